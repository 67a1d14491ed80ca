#include "shards/session_v2.h"

#include "core/hash.h"
#include "shards/resume.h"
#include "shards/session_history.h"
#include "shards/user.h"

enum { PING_INTERVAL_MIN_S = 5, NONCE_BYTES = 8, CLOSE_GOING_AWAY = 1001 };

/* ---- small frames ---- */

void session_v2_uuid(struct shard *sh, char out[V2_UUID_BYTES])
{
    uint64_t a = rng_next(&sh->re.rng), b = rng_next(&sh->re.rng);
    v2_uuid_write(out, a, b);
}

static void tell(struct shard *sh, struct conn *c, const char *event_json, struct slice channel,
                 struct slice data, bool text)
{
    char id[V2_UUID_BYTES];
    session_v2_uuid(sh, id);
    struct v2_out o = {
        .event_json = slice_str(event_json), .channel = channel, .message_id = slice_str(id),
    };
    if (!text) o.data_json = data;
    struct frame *f = frame_make(sh, text ? v2_event_text_bytes(&o, data) : v2_event_bytes(&o));
    if (f == NULL) {
        conn_kill_later(sh, c);
        return;
    }
    f->bytes_count = text ? v2_event_text_write(&o, data, frame_room(f))
                          : v2_event_write(&o, frame_room(f));
    f->asked = true;
    conn_send(sh, c, f);
    frame_put(sh, &f);
}

void session_v2_tell(struct shard *sh, struct conn *c, const char *event_json,
                     struct slice channel, struct slice data_json)
{
    tell(sh, c, event_json, channel, data_json, false);
}

void session_v2_tell_text(struct shard *sh, struct conn *c, const char *event_json,
                          struct slice channel, struct slice data_text)
{
    tell(sh, c, event_json, channel, data_text, true);
}

/* ---- messages ---- */

void session_v2_message(struct shard *sh, struct conn *c, struct slice text)
{
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct v2_frame f;
    if (!v2_frame_parse(text, &f, error)) {
        session_bad_message(sh, c, error);
        return;
    }
    if (!session_message_allowed(sh, c)) return;
    switch (f.event_kind) {
    case V2_EV_UNKNOWN:
    case V2_EV_PONG:
        return;
    case V2_EV_PING:
        conn_send_bytes(sh, c, out, v2_pong_write(out));
        return;
    case V2_EV_SUBSCRIBE:
        session_subscribe(sh, c, &f.data);
        return;
    case V2_EV_RESUME:
        resume_request(sh, c, &f.data);
        return;
    default:
        break;
    }
    chan_ask_held(sh);                   /* what comes now may depend on a subscribe before it */
    switch (f.event_kind) {
    case V2_EV_UNSUBSCRIBE:
        session_unsubscribe(sh, c, &f.data);
        return;
    case V2_EV_SIGNIN:
        user_signin(sh, c, &f.data);
        return;
    case V2_EV_CLIENT:
        session_event(sh, c, &f.event, &f.channel, &f.data);
        return;
    case V2_EV_HISTORY:
        session_history(sh, c, &f.data);
        return;
    case V2_EV_PRESENCE_UPDATE:
        session_presence_update(sh, c, &f);
        return;
    default:
        ASSERT(!"every kind is handled");
    }
}

/* ---- time ---- */

static uint64_t ping_interval_ms(const struct shard *sh)
{
    uint32_t s = sh->conf->websocket_ping_interval;
    if (s == 0) return UINT64_MAX;
    return u32_max(u32_max(s, sh->conf->activity_timeout / 2), PING_INTERVAL_MIN_S) * 1000ull;
}

static uint64_t idle_limit_ms(const struct shard *sh)
{
    uint64_t s = sh->conf->websocket_idle_timeout;
    return s == 0 ? UINT64_MAX : s * 1000;
}

/* Of the ping under way: known from when its answer is due, so that it needs no memory. */
static void nonce_write(const struct conn *c, uint8_t out[NONCE_BYTES])
{
    uint64_t nonce = hash_table(c->ping_due_ms, c->gen, slice_of(&c->socket_b, 8));
    for (uint32_t i = 0; i < NONCE_BYTES; i++) out[i] = (uint8_t)(nonce >> (56 - 8 * i));
}

void session_v2_pong(struct conn *c, struct slice payload)
{
    uint8_t nonce[NONCE_BYTES];
    if (!c->pinged) return;
    nonce_write(c, nonce);
    if (slice_equal(payload, slice_of(nonce, NONCE_BYTES))) c->pinged = false;
}

static void ping(struct shard *sh, struct conn *c)
{
    uint8_t out[WS_SERVER_HEADER_BYTES_MAX + NONCE_BYTES];
    c->pinged = true;
    c->fresh = false;
    c->ping_due_ms = sh->re.now_ms + (uint64_t)sh->conf->websocket_pong_timeout * 1000;
    uint32_t head = ws_header_write(out, WS_PING, NONCE_BYTES);
    nonce_write(c, out + head);
    conn_send_bytes(sh, c, out, head + NONCE_BYTES);
}

static uint64_t silent_ms(const struct shard *sh, const struct conn *c)
{
    return (uint32_t)((uint32_t)sh->re.now_ms - c->heard_ms);
}

/* Silence after which a ping is due. The first one comes earlier, so that sockets that came
 * together are not pinged together. */
static uint64_t ping_after_ms(const struct shard *sh, const struct conn *c)
{
    uint64_t interval_ms = ping_interval_ms(sh);
    if (!c->fresh || interval_ms == UINT64_MAX) return interval_ms;
    return interval_ms / 2 + c->socket_b % (interval_ms / 2);
}

static uint64_t left_of(uint64_t limit_ms, uint64_t passed_ms)
{
    return limit_ms > passed_ms ? limit_ms - passed_ms : 0;
}

void session_v2_rearm(struct shard *sh, struct conn *c)
{
    uint64_t silent = silent_ms(sh, c), resume_due = resume_due_ms(c);
    uint64_t left = u64_min(session_auth_left_ms(sh, c), left_of(idle_limit_ms(sh), silent));
    left = u64_min(left, c->pinged ? left_of(c->ping_due_ms, sh->re.now_ms)
                                   : left_of(ping_after_ms(sh, c), silent));
    left = u64_min(left, left_of(resume_due, sh->re.now_ms));
    if (left > TIMER_SPAN_MS) timer_disarm(&sh->re.wheel, &c->timer);
    else conn_arm(sh, c, left);
}

void session_v2_open(struct shard *sh, struct conn *c)
{
    c->heard_ms = (uint32_t)sh->re.now_ms;
    c->fresh = true;
    session_v2_rearm(sh, c);
}

void session_v2_on_timer(struct shard *sh, struct conn *c)
{
    uint64_t silent = silent_ms(sh, c);
    if (session_auth_left_ms(sh, c) == 0) {
        conn_fail(sh, c, PUSHER_UNAUTHORIZED, "Connection not authorized within timeout.");
        return;
    }
    if (silent >= idle_limit_ms(sh)) {
        c->abrupt = c->timed_out = true;
        conn_close(sh, c, CLOSE_GOING_AWAY, "Connection idle timeout");
        return;
    }
    if (c->pinged && sh->re.now_ms >= c->ping_due_ms) {
        c->abrupt = c->timed_out = true;
        conn_close(sh, c, PUSHER_NO_PONG, "Pong reply not received in time");
        return;
    }
    if (!c->pinged && silent >= ping_after_ms(sh, c)) ping(sh, c);
    resume_on_time(sh, c);
    if (c->state == CONN_WS) session_v2_rearm(sh, c);
}
