#include "proto/utf8.h"
#include "shards/actor.h"
#include "shards/session_v2.h"

#include <stdio.h>

void session_refuse(struct shard *sh, struct conn *c, struct slice channel, uint32_t code,
                    const char *message, uint32_t status)
{
    char mended[PUSHER_ERROR_TEXT_BYTES + SESSION_NAME_BYTES_MAX];
    message = utf8_mend(message, mended, sizeof(mended));
    conn_error(sh, c, code, message);
    if (c->v2) return;
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
        c->forced = true;
        conn_fail(sh, c, PUSHER_CLIENT_EVENT, "Connection closed due to client event rate limit");
    } else {
        conn_error(sh, c, PUSHER_CLIENT_EVENT, "Client event rejected due to rate limit");
    }
}

bool session_message_allowed(struct shard *sh, struct conn *c)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
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

bool session_event_allowed(struct shard *sh, struct conn *c)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
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

/* ---- who may ---- */

bool session_granted(const struct conn *c, struct slice channel, uint32_t bit)
{
    if (!c->v2) return true;
    struct slice data = c->user == NULL ? slice_of(NULL, 0) : c->user->data;
    return (actor_grants(data, channel) & bit) != 0;
}

bool session_admitted(const struct conn *c, const struct pusher_channel *kind)
{
    if (kind->users.ptr == NULL) return true;
    return c->user != NULL && pusher_channel_admits(kind, c->user->id);
}

/* ---- unsubscribe ---- */

struct sub *session_sub_of(struct shard *sh, const struct conn *c,
                           const struct json_value *channel)
{
    uint8_t name[SESSION_NAME_BYTES_MAX];
    if (channel->type != JSON_STRING || channel->text_bytes > sizeof(name)) return NULL;
    json_decode(channel, name);
    struct chan *ch = chan_find(sh, c->app, slice_of(name, channel->text_bytes));
    return ch == NULL ? NULL : chan_sub_of(c, ch);
}

void session_unsubscribe(struct shard *sh, struct conn *c, const struct json_value *data)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct json_value channel;
    if (!pusher_unsubscribe_parse(data, &channel, error)) {
        conn_error(sh, c, PUSHER_GENERIC, error);
        return;
    }
    struct sub *s = session_sub_of(sh, c, &channel);
    if (s == NULL) return;
    if (s->hidden) s->shown = false;       /* events for the user keep coming while signed in */
    else chan_leave(sh, c, s, 0);
}

/* ---- every message ---- */

void session_bad_message(struct shard *sh, struct conn *c, const char *error)
{
    metric_add(sh->metrics, METRIC_CONNECTION_ERRORS_TOTAL, c->app,
               strncmp(error, "Invalid event name", 18) == 0
                   ? SERIES_ERROR_MISSING_EVENT_NAME : SERIES_ERROR_INVALID_MESSAGE_FORMAT, 1);
    conn_error(sh, c, PUSHER_GENERIC, error);
}

void session_message(struct shard *sh, struct conn *c, struct slice text)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct pusher_frame f;
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    if (c->v2) {
        session_v2_message(sh, c, text);
        return;
    }
    if (!pusher_frame_parse(text, &f, error)) {
        session_bad_message(sh, c, error);
        return;
    }
    if (!session_message_allowed(sh, c)) return;
    switch (f.kind) {
    case PUSHER_EV_UNKNOWN:
    case PUSHER_EV_PONG:
        return;
    case PUSHER_EV_PING:
        conn_send_bytes(sh, c, out, pusher_pong_write(out));
        return;
    case PUSHER_EV_SUBSCRIBE:
        session_subscribe(sh, c, &f.data);
        return;
    case PUSHER_EV_UNSUBSCRIBE:
        session_unsubscribe(sh, c, &f.data);
        return;
    case PUSHER_EV_SIGNIN:
        user_signin(sh, c, &f.data);
        return;
    case PUSHER_EV_CLIENT:
        session_event(sh, c, &f.event, &f.channel, &f.data);
        return;
    }
}

/* ---- time ---- */

uint64_t session_auth_left_ms(const struct shard *sh, const struct conn *c)
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
    if (c->v2) {
        session_v2_open(sh, c);
        return;
    }
    /* Spread over the interval: sockets that came together are not pinged together. */
    conn_arm(sh, c, u64_min(interval_ms + rng_below(&sh->re.rng, interval_ms + 1),
                            session_auth_left_ms(sh, c)));
}

void session_on_timer(struct shard *sh, struct conn *c)
{
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    uint64_t interval_ms = (uint64_t)sh->conf->activity_timeout * 1000;
    uint64_t idle_ms = (uint32_t)((uint32_t)sh->re.now_ms - c->heard_ms);
    uint64_t auth_ms = session_auth_left_ms(sh, c);
    if (c->v2) {
        session_v2_on_timer(sh, c);
        return;
    }
    if (auth_ms == 0) {
        conn_fail(sh, c, PUSHER_UNAUTHORIZED, "Connection not authorized within timeout.");
        return;
    }
    if (c->pinged && sh->re.now_ms >= c->ping_due_ms) {
        c->abrupt = c->timed_out = true;
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
