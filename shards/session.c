#include "shards/session.h"

#include "shards/home.h"
#include "shards/session_auth.h"
#include "shards/user.h"

#include <stdio.h>

void session_refuse(struct shard *sh, struct conn *c, struct slice channel, uint32_t code,
                    const char *message, uint32_t status)
{
    conn_error(sh, c, code, message);
    uint32_t quoted = json_quote_bytes(slice_str(message));
    uint32_t room = quoted + 64;
    uint8_t *text = heap_alloc(sh->heap, room);
    if (text == NULL) return;
    uint32_t n = (uint32_t)snprintf((char *)text, room, "{\"type\":\"%s\",\"error\":",
                                    code == PUSHER_UNAUTHORIZED ? "AuthError" : "ChannelError");
    n += json_quote(slice_str(message), text + n);
    n += (uint32_t)snprintf((char *)text + n, room - n, ",\"status\":%u}", status);
    struct pusher_out o = {
        .event_json = slice_str("\"pusher:subscription_error\""), .channel = channel,
        .data_json = slice_of(text, n),
    };
    struct frame *f = frame_make(sh, pusher_event_bytes(&o));
    if (f != NULL) {
        f->bytes_count = pusher_event_write(&o, frame_room(f));
        conn_send(sh, c, f);
        frame_put(sh, &f);
    }
    heap_free(sh->heap, text, room);
}

/* ---- rate windows ---- */

static struct conn_rates *rates_of(struct shard *sh, struct conn *c)
{
    if (c->rates == NULL) c->rates = heap_zalloc(sh->heap, sizeof(*c->rates));
    return c->rates;
}

/* Count one in a fixed window. False when it is one too many. */
static bool window_take(uint64_t now_ms, uint64_t *from_ms, uint32_t *count, uint32_t limit,
                        uint32_t seconds)
{
    if (*count == 0 || now_ms - *from_ms >= (uint64_t)seconds * 1000) {
        *from_ms = now_ms;
        *count = 0;
    }
    if (*count <= limit) (*count)++;
    return *count <= limit;
}

static void rate_refuse(struct shard *sh, struct conn *c, uint32_t limiter, bool terminate)
{
    metric_add(sh->metrics, METRIC_RATE_LIMIT_TRIGGERED_TOTAL, c->app, limiter, 1);
    if (terminate) {
        conn_fail(sh, c, PUSHER_CLIENT_EVENT, "Connection closed due to client event rate limit");
    } else {
        conn_error(sh, c, PUSHER_CLIENT_EVENT, "Client event rejected due to rate limit");
    }
}

static bool message_allowed(struct shard *sh, struct conn *c, const struct conf_app *app)
{
    if (!app->message_rate_enabled) return true;
    struct conn_rates *r = rates_of(sh, c);
    metric_add(sh->metrics, METRIC_RATE_LIMIT_CHECKS_TOTAL, c->app, SERIES_LIMITER_MESSAGES, 1);
    if (r != NULL && window_take(sh->re.now_ms, &r->messages_from_ms, &r->messages_count,
                                 app->message_rate_max_attempts,
                                 app->message_rate_decay_seconds)) {
        return true;
    }
    rate_refuse(sh, c, SERIES_LIMITER_MESSAGES, app->message_rate_terminate_on_limit);
    return false;
}

static bool client_event_allowed(struct shard *sh, struct conn *c, const struct conf_app *app)
{
    if (app->max_client_events_per_second == 0) return true;
    struct conn_rates *r = rates_of(sh, c);
    metric_add(sh->metrics, METRIC_RATE_LIMIT_CHECKS_TOTAL, c->app,
               SERIES_LIMITER_CLIENT_EVENTS, 1);
    if (r != NULL && window_take(sh->re.now_ms, &r->events_from_ms, &r->events_count,
                                 app->max_client_events_per_second,
                                 app->decay_seconds)) {
        return true;
    }
    rate_refuse(sh, c, SERIES_LIMITER_CLIENT_EVENTS, app->terminate_on_limit);
    return false;
}

/* ---- unsubscribe ---- */

static void on_unsubscribe(struct shard *sh, struct conn *c, const struct pusher_frame *f)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct json_value channel;
    if (!pusher_unsubscribe_parse(&f->data, &channel, error)) {
        conn_error(sh, c, PUSHER_GENERIC, error);
        return;
    }
    if (channel.text_bytes > SESSION_NAME_BYTES_MAX) return;   /* no such subscription */
    uint8_t name[SESSION_NAME_BYTES_MAX];
    json_decode(&channel, name);
    struct chan *ch = chan_find(sh, c->app, slice_of(name, channel.text_bytes));
    struct sub *s = ch == NULL ? NULL : chan_sub_of(c, ch);
    if (s == NULL) return;
    if (s->hidden) s->shown = false;       /* events for the user keep coming while signed in */
    else chan_leave(sh, c, s, false);
}

/* ---- client events ---- */

static void publish_event(struct shard *sh, struct conn *c, const struct pusher_frame *f,
                          struct slice name, const struct pusher_channel *kind,
                          const struct sub *s)
{
    uint32_t counts[REACTOR_SHARDS_MAX] = {0};
    counts[s->chan->home_shard] = 1;
    struct slice data = f->data.type == JSON_ABSENT ? slice_str("null") : f->data.raw;
    struct pusher_out o = {.event_json = f->event.raw, .channel = name, .data_json = data};
    if (kind->kind == PUSHER_PRESENCE && s->presence != NULL) o.user_id_json = s->presence->id_json;
    uint8_t *compact = NULL;
    if (f->data.type != JSON_ABSENT && f->data.type != JSON_STRING && f->data.escaped) {
        compact = heap_alloc(sh->heap, f->data.text_bytes);
        if (compact != NULL) o.data_json = slice_of(compact, json_compact(&f->data, compact));
    }
    struct frame *frame = shard_pressed(sh) ? NULL : frame_make(sh, pusher_event_bytes(&o));
    struct publish *p = frame == NULL ? NULL : publish_make(sh, c->app, name, kind);
    if (p == NULL || !publish_room(sh, counts)) {
        if (p != NULL) publish_free(sh, p);
        frame_put(sh, &frame);
        conn_error(sh, c, SESSION_BROADCAST_ERROR, "Broadcast error: server is busy, try again");
    } else {
        frame->bytes_count = pusher_event_write(&o, frame_room(frame));
        p->except_a = c->socket_a;
        p->except_b = c->socket_b;
        p->sock = conn_sock(sh, c);
        p->gen = c->gen;
        publish_post(sh, p, frame);
    }
    heap_free(sh->heap, compact, f->data.text_bytes);
}

/* The channel part of the checks. 0 when the event may go; else the code, with the text. */
static uint32_t check_target(struct shard *sh, struct conn *c, const struct pusher_frame *f,
                             struct slice name, struct pusher_channel *kind, struct sub **s,
                             char *text, uint32_t text_bytes)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
    char id[PUSHER_SOCKET_ID_BYTES], ignored[PUSHER_ERROR_TEXT_BYTES];
    uint32_t size = f->data.type == JSON_STRING ? f->data.raw.bytes : f->data.text_bytes;
    bool known = pusher_channel_parse(name, app->max_channel_name_length, kind, ignored);
    struct chan *ch = known ? chan_find(sh, c->app, name) : NULL;
    *s = ch == NULL ? NULL : chan_sub_of(c, ch);
    if (!known || (kind->kind != PUSHER_PRIVATE && kind->kind != PUSHER_PRESENCE)) {
        snprintf(text, text_bytes, "Client event error: Client events can only be sent to private "
                                   "or presence channels");
    } else if (app->max_event_payload_in_kb > 0 && size > app->max_event_payload_in_kb * 1024) {
        snprintf(text, text_bytes,
                 "Client event error: Event payload size (%u bytes) exceeds limit (%uKB)", size,
                 app->max_event_payload_in_kb);
    } else if (*s == NULL) {
        uint32_t n = pusher_socket_id_write(id, c->socket_a, c->socket_b);
        snprintf(text, text_bytes,
                 "Client event error: Socket %.*s is not subscribed to channel %.*s", (int)n, id,
                 (int)name.bytes, (const char *)name.ptr);
    } else {
        return 0;
    }
    return PUSHER_CLIENT_EVENT;
}

/* The checks in the order of spec/pusher-v1.md 4, after the rate limit. */
static uint32_t check_event(struct shard *sh, struct conn *c, const struct pusher_frame *f,
                            char *text, uint32_t text_bytes)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
    uint32_t limit = app->max_channel_name_length, event_limit = app->max_event_name_length;
    if (f->channel.type == JSON_ABSENT) {
        snprintf(text, text_bytes, "Client event error: Channel required for client event");
        return PUSHER_CLIENT_EVENT;
    }
    if (!app->enable_client_messages) {
        snprintf(text, text_bytes,
                 "Client event error: Client events are not enabled for this app");
        return PUSHER_CLIENT_EVENT;
    }
    if (event_limit > 0 && f->event.text_bytes > event_limit) {
        snprintf(text, text_bytes, "Invalid event name: Event name exceeds maximum length of %u",
                 event_limit);
        return PUSHER_GENERIC;
    }
    if (limit == 0 || limit > SESSION_NAME_BYTES_MAX) limit = SESSION_NAME_BYTES_MAX;
    if (f->channel.text_bytes > limit) {
        snprintf(text, text_bytes,
                 "Channel name invalid: Channel name exceeds maximum length of %u", limit);
        return PUSHER_CHANNEL;
    }
    return 0;
}

static void on_client_event(struct shard *sh, struct conn *c, const struct pusher_frame *f)
{
    char text[PUSHER_ERROR_TEXT_BYTES + SESSION_NAME_BYTES_MAX];
    uint8_t bytes[SESSION_NAME_BYTES_MAX];
    struct pusher_channel kind;
    struct sub *s;
    if (!client_event_allowed(sh, c, &sh->conf->apps[c->app])) return;
    uint32_t code = check_event(sh, c, f, text, sizeof(text));
    if (code == 0) {
        json_decode(&f->channel, bytes);
        struct slice name = slice_of(bytes, f->channel.text_bytes);
        code = check_target(sh, c, f, name, &kind, &s, text, sizeof(text));
        if (code == 0) {
            publish_event(sh, c, f, name, &kind, s);
            return;
        }
    }
    conn_error(sh, c, code, text);
}

/* ---- every message ---- */

void session_message(struct shard *sh, struct conn *c, struct slice text)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct pusher_frame f;
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    if (!pusher_frame_parse(text, &f, error)) {
        metric_add(sh->metrics, METRIC_CONNECTION_ERRORS_TOTAL, c->app,
                   strncmp(error, "Invalid event name", 18) == 0
                       ? SERIES_ERROR_MISSING_EVENT_NAME : SERIES_ERROR_INVALID_MESSAGE_FORMAT, 1);
        conn_error(sh, c, PUSHER_GENERIC, error);
        return;
    }
    if (!message_allowed(sh, c, app)) return;
    switch (f.kind) {
    case PUSHER_EV_UNKNOWN:
    case PUSHER_EV_PONG:
        return;
    case PUSHER_EV_PING:
        conn_send_bytes(sh, c, out, pusher_pong_write(out));
        return;
    case PUSHER_EV_SUBSCRIBE:
        session_subscribe(sh, c, &f);
        return;
    case PUSHER_EV_UNSUBSCRIBE:
        on_unsubscribe(sh, c, &f);
        return;
    case PUSHER_EV_SIGNIN:
        user_signin(sh, c, &f);
        return;
    case PUSHER_EV_CLIENT:
        on_client_event(sh, c, &f);
        return;
    }
}

/* ---- time ---- */

static uint64_t auth_left_ms(const struct shard *sh, const struct conn *c)
{
    uint64_t timeout_ms = (uint64_t)sh->conf->user_authentication_timeout * 1000;
    if (timeout_ms == 0 || c->authorised ||
        !sh->conf->apps[c->app].enable_user_authentication) {
        return UINT64_MAX;
    }
    uint64_t age_ms = (uint32_t)((uint32_t)sh->re.now_ms - c->opened_ms);
    return age_ms >= timeout_ms ? 0 : timeout_ms - age_ms;
}

void session_open(struct shard *sh, struct conn *c)
{
    uint64_t interval_ms = (uint64_t)sh->conf->activity_timeout * 1000;
    if (c->state != CONN_WS) return;       /* no memory for its first frame: it is being ended */
    c->opened_ms = (uint32_t)sh->re.now_ms;
    /* Spread over the interval: sockets that came together are not pinged together. */
    conn_arm(sh, c, u64_min(interval_ms + rng_below(&sh->re.rng, interval_ms + 1),
                            auth_left_ms(sh, c)));
}

void session_on_timer(struct shard *sh, struct conn *c)
{
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    uint64_t interval_ms = (uint64_t)sh->conf->activity_timeout * 1000;
    uint64_t idle_ms = (uint32_t)((uint32_t)sh->re.now_ms - c->heard_ms);
    uint64_t auth_ms = auth_left_ms(sh, c);
    if (auth_ms == 0) {
        conn_fail(sh, c, PUSHER_UNAUTHORIZED, "Connection not authorized within timeout.");
        return;
    }
    if (c->pinged && sh->re.now_ms >= c->ping_due_ms) {
        c->abrupt = true;
        conn_fail(sh, c, PUSHER_NO_PONG, "Pong reply not received in time");
        return;
    }
    uint64_t left_ms;
    if (c->pinged) {
        left_ms = c->ping_due_ms - sh->re.now_ms;
    } else if (idle_ms < interval_ms) {
        left_ms = interval_ms - idle_ms;
    } else {
        c->pinged = true;
        left_ms = (uint64_t)sh->conf->websocket_pong_timeout * 1000;
        c->ping_due_ms = sh->re.now_ms + left_ms;
        conn_send_bytes(sh, c, out, pusher_ping_write(out));
        if (c->state != CONN_WS) return;
    }
    conn_arm(sh, c, u64_min(left_ms, auth_ms));
}
