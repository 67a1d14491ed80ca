/* From accepted to closed.
 *
 *   accept -> HTTP -> WS -> CLOSING -> DEAD -> (receive and send ended) -> close slot -> FREE
 *
 * A slot is closed only when nothing is outstanding on it: an armed receive would keep the file
 * open, and the kernel hands a free slot out again at once. */
#include "shards/conn.h"

#include "proto/utf8.h"
#include "shards/ask.h"
#include "shards/chan.h"
#include "shards/reply.h"
#include "shards/resume.h"
#include "shards/session_v2.h"
#include "shards/user.h"

#include <errno.h>

enum { ERROR_TEXT_BYTES = 1024 };

struct conn *conn_get(struct shard *sh, uint32_t sock, uint32_t gen)
{
    struct conn *c = &sh->conns[sock];
    return c->gen == gen && c->state != CONN_FREE ? c : NULL;
}

void conn_arm(struct shard *sh, struct conn *c, uint64_t delay_ms)
{
    timer_arm(&sh->re.wheel, &c->timer, sh->re.now_ms + delay_ms);
}

void conn_log(const struct shard *sh, const struct conn *c, const char *message, const char *key,
              struct slice value)
{
    char id[PUSHER_SOCKET_ID_BYTES + 1], text[256];
    if (!log_on(LOG_DEBUG)) return;
    id[pusher_socket_id_write(id, c->socket_a, c->socket_b)] = '\0';
    uint32_t n = u32_min(value.bytes, sizeof(text) - 1);
    memcpy(text, value.ptr, n);
    text[n] = '\0';
    LOG(LOG_DEBUG, message, "app_id", sh->conf->apps[c->app].id, "socket_id", id, key, text);
}

static struct conn *conn_take(struct shard *sh)
{
    if (sh->conns_free == 0) {
        ASSERT(sh->conns_seen < sh->conns_reserved);
        return &sh->conns[sh->conns_seen++];
    }
    struct conn *c = &sh->conns[sh->conns_free - 1];
    sh->conns_free = c->flush_next;
    return c;
}

static void on_accept(void *ctx, uint32_t sock, uint32_t tag, const struct ring_addr *peer)
{
    struct shard *sh = ctx;
    struct conn *c = conn_take(sh);
    ASSERT(c->state == CONN_FREE && sock < sh->socks_reserved);
    sh->conn_of_sock[sock] = conn_sock(sh, c);
    sh->gen_last = sh->gen_last % 0xffffff + 1;
    memset(c, 0, sizeof(*c));
    c->gen = sh->gen_last;
    c->ring_sock = sock;
    c->state = CONN_HTTP;
    c->tag = (uint8_t)tag;
    c->peer = *peer;
    c->opened_ms = c->heard_ms = (uint32_t)sh->re.now_ms;
    c->timer.kind = SHARD_TIMER_CONN;
    c->receiving = true;
    sh->conns_count++;
    metric_set(sh->metrics, METRIC_SHARD_CONNECTIONS, 0, 0, sh->conns_count);
    sh->opened++;
    ring_recv(sh->re.ring, sock, c->gen);
    conn_arm(sh, c, sh->conf->handshake_timeout_ms);
}

/* The peer will send nothing more. An HTTP client may still wait for its answer. */
static void on_end(struct shard *sh, struct conn *c)
{
    c->ended = true;
    if (c->state == CONN_HTTP && (c->busy || (c->in != NULL && c->out_count > 0))) {
        return;                          /* conn_resume_input: what was asked is answered first */
    }
    if (c->state == CONN_HTTP && c->out_count > 0) {
        c->last = true;
        return;
    }
    if (c->state == CONN_WS) c->abrupt = true;
    conn_kill(sh, c);
}

static void on_recv(void *ctx, uint32_t sock, uint32_t gen, uint8_t *bytes, int32_t n, bool more)
{
    struct shard *sh = ctx;
    struct conn *c = conn_of_ring(sh, sock);
    if (UNLIKELY(c->gen != gen || c->state == CONN_FREE)) {
        metric_add(sh->metrics, METRIC_STALE_COMPLETIONS_TOTAL, 0, 0, 1);
        return;
    }
    if (!more) c->receiving = false;
    if (c->state != CONN_DEAD) {
        if (n > 0) {
            c->heard_ms = (uint32_t)sh->re.now_ms;
            conn_take_input(sh, c, bytes, (uint32_t)n);
        } else if (n == 0) {
            on_end(sh, c);
        } else if (n != -ENOBUFS && n != -ECANCELED) {
            c->ended = c->abrupt = true;
            conn_kill(sh, c);
        }
    }
    if (!c->receiving && !c->ended && !c->paused && c->state != CONN_DEAD) {
        c->receiving = true;
        ring_recv(sh->re.ring, sock, c->gen);
    }
    conn_reap(sh, c);
}

static void on_closed(void *ctx, uint32_t sock, uint32_t gen)
{
    struct shard *sh = ctx;
    struct conn *c = conn_of_ring(sh, sock);
    ASSERT(c->gen == gen && c->state == CONN_DEAD && c->closing_slot);
    ASSERT(c->out_count == 0 && c->subs == NULL && c->user == NULL && !c->busy);
    c->state = CONN_FREE;
    c->flush_next = sh->conns_free;
    sh->conns_free = conn_sock(sh, c) + 1;
    sh->conns_count--;
    metric_set(sh->metrics, METRIC_SHARD_CONNECTIONS, 0, 0, sh->conns_count);
    sh->closed++;
}

const struct ring_handler conn_ring_handler = {
    .on_accept = on_accept, .on_recv = on_recv, .on_sent = conn_on_sent, .on_closed = on_closed,
};

/* Closing costs the kernel ten times what learning of an end does, and everything behind it in the
 * same turn waits. So when thousands of peers vanish, their ends are taken in at full speed and the
 * closes follow a few per turn. */
void conn_reap(struct shard *sh, struct conn *c)
{
    if (c->state != CONN_DEAD || c->receiving || c->sending || c->closing_slot || c->flushing) {
        return;
    }
    if (c->busy) return;                 /* an op still points here: op_close reaps */
    c->closing_slot = true;
    c->flush_next = 0;
    uint32_t mark = conn_sock(sh, c) + 1;
    if (sh->reap_last == 0) sh->reap_first = mark;
    else sh->conns[sh->reap_last - 1].flush_next = mark;
    sh->reap_last = mark;
}

bool conn_reap_some(struct shard *sh)
{
    for (uint32_t i = 0; i < CONN_REAPS_PER_TURN && sh->reap_first != 0; i++) {
        struct conn *c = &sh->conns[sh->reap_first - 1];
        sh->reap_first = c->flush_next;
        ring_close(sh->re.ring, c->ring_sock, c->gen);
    }
    if (sh->reap_first == 0) sh->reap_last = 0;
    return sh->reap_first != 0;
}

static void free_input(struct shard *sh, struct conn_input **in)
{
    if (*in == NULL) return;
    heap_free(sh->heap, *in, (uint32_t)sizeof(**in) + (*in)->room);
    *in = NULL;
}

static uint8_t how_left(const struct conn *c)
{
    return (uint8_t)((c->abrupt ? HOME_ABRUPT : 0) | (c->timed_out ? HOME_TIMEOUT : 0) |
                     (c->forced ? HOME_FORCED : 0));
}

void conn_detach(struct shard *sh, struct conn *c)
{
    if (!c->attached) return;
    c->attached = false;
    resume_end(sh, c);
    user_gone(sh, c);
    chan_leave_all(sh, c, how_left(c));
    if (c->quota_app) ask_quota_back(sh, ASK_APP_QUOTA, c->app);
    if (c->quota_node) ask_quota_back(sh, ASK_NODE_QUOTA, c->app);
    c->quota_app = c->quota_node = false;
    if (c->counted) {
        c->counted = false;
        conn_log(sh, c, "disconnected", "cause", slice_str(c->abrupt ? "lost" : "closed"));
        metric_add(sh->metrics, METRIC_CONNECTED, c->app, 0, -1);
        metric_add(sh->metrics, METRIC_NEW_DISCONNECTIONS_TOTAL, c->app, 0, 1);
    }
}

void conn_kill(struct shard *sh, struct conn *c)
{
    if (c->state == CONN_DEAD || c->state == CONN_FREE) return;
    conn_detach(sh, c);
    c->state = CONN_DEAD;
    timer_disarm(&sh->re.wheel, &c->timer);
    conn_drop_out(sh, c, !c->sending);
    free_input(sh, &c->message);
    if (sh->input_of != c) free_input(sh, &c->in);
    if (c->body != NULL) heap_free(sh->heap, c->body, sizeof(*c->body));
    if (c->rates != NULL) heap_free(sh->heap, c->rates, sizeof(*c->rates));
    c->body = NULL;
    c->rates = NULL;
    if (c->receiving || c->sending) {
        c->shut = true;
        ring_shutdown(sh->re.ring, c->ring_sock, c->gen, true);
    }
    conn_reap(sh, c);
}

/* ---- closing politely ---- */

static void start_closing(struct shard *sh, struct conn *c)
{
    c->state = CONN_CLOSING;
    c->close_sent = true;
    conn_detach(sh, c);
    conn_arm(sh, c, sh->conf->websocket_close_timeout_ms);
}

uint32_t conn_error_write(struct shard *sh, const struct conn *c, uint8_t *out, uint32_t code,
                          const char *message)
{
    char id[V2_UUID_BYTES], room[ERROR_TEXT_BYTES];
    message = utf8_mend(message, room, sizeof(room));
    if (!c->v2) return pusher_error_write(out, code, message);
    session_v2_uuid(sh, id);
    return v2_error_write(out, code, message, id);
}

void conn_error(struct shard *sh, struct conn *c, uint32_t code, const char *message)
{
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    conn_send_bytes(sh, c, out, conn_error_write(sh, c, out, code, message));
}

void conn_close(struct shard *sh, struct conn *c, uint16_t code, const char *reason)
{
    uint8_t out[WS_CLOSE_FRAME_BYTES_MAX];
    if (c->state != CONN_WS) return;
    conn_send_bytes(sh, c, out, ws_close_write(out, code, slice_str(reason)));
    if (c->state == CONN_WS) start_closing(sh, c);
}

void conn_fail(struct shard *sh, struct conn *c, uint32_t code, const char *message)
{
    if (c->state != CONN_WS) return;
    conn_error(sh, c, code, message);
    conn_close(sh, c, (uint16_t)code, message);
}

void conn_on_timer(struct shard *sh, struct conn *c)
{
    switch ((enum conn_state)c->state) {
    case CONN_HTTP:                      /* no request in time, or idle for long */
        if (c->busy) return;
        if (c->in != NULL && !c->last) {
            if ((uint32_t)sh->re.now_ms - c->opened_ms >= sh->conf->request_timeout_ms) {
                metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_REQUEST_TIME, 1);
            }
            reply_bad(sh, c, 408, "Request Timeout");
        } else {
            conn_kill(sh, c);
        }
        return;
    case CONN_WS:
        session_on_timer(sh, c);
        return;
    case CONN_CLOSING:
        c->abrupt = true;
        conn_kill(sh, c);
        return;
    case CONN_DEAD:
    case CONN_FREE:
        return;
    }
}

void conn_out_empty(struct shard *sh, struct conn *c)
{
    if (c->state != CONN_CLOSING && !c->last) {
        if (c->state == CONN_HTTP && (c->in != NULL || c->paused)) conn_resume_input(sh, c);
        return;
    }
    if (c->state == CONN_HTTP && c->busy) return;
    if (c->ended) {
        conn_kill(sh, c);
    } else if (!c->half_shut) {
        c->half_shut = true;             /* the peer reads everything, then ends its side */
        ring_shutdown(sh->re.ring, c->ring_sock, c->gen, false);
        if (c->state == CONN_HTTP) {
            c->state = CONN_CLOSING;
            conn_arm(sh, c, sh->conf->websocket_close_timeout_ms);
        }
    }
}
