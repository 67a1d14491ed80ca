/* Bytes in, requests and messages out.
 *
 * Input is parsed where it lies: in the ring's buffer while whole requests or frames arrive, and in
 * conn->in once something came in pieces. `need` says how long the gathered input must be before
 * parsing again is worthwhile, so slow delivery costs no repeated work. */
#include "shards/conn.h"

#include "shards/api.h"
#include "shards/reply.h"
#include "shards/session_v2.h"

enum { INPUT_ROOM_MIN = 512, HTTP_LINE_MAX = 8192, HTTP_HEAD_MAX = 16384 };
enum {
    PIPELINE_IN_MAX = 65536,      /* gathered behind a request that waits: then reading stops */
    PRESSED_MESSAGE_MAX = 16384,  /* of an unfinished message while memory is short */
    PIPELINE_OUT_MAX = 262144,    /* answers not yet read by the client: then the next ones wait */
};

static struct http_limits http_limits_of(const struct shard *sh)
{
    return (struct http_limits){
        .line_bytes_max = HTTP_LINE_MAX, .head_bytes_max = HTTP_HEAD_MAX,
        .headers_max = HTTP_HEADERS_MAX,
        .body_bytes_max = (uint64_t)sh->conf->http_request_limit_in_mb << 20,
    };
}

/* Append to *in, growing it. False at the heap's bound. */
static bool gather(struct shard *sh, struct conn_input **in, const uint8_t *bytes, uint32_t count,
                   uint32_t expected)
{
    struct conn_input *old = *in;
    uint32_t have = old == NULL ? 0 : old->bytes;
    if (old == NULL || old->room - have < count) {
        /* Doubling, so that a long body costs no quadratic copying; but never past what is known
         * to come, and no slack for a leftover that may stay small. */
        uint32_t total = have + count, room = have == 0 ? total : 2 * total;
        if (expected > total) room = u32_min(expected, 2 * total);
        room = heap_class_bytes((uint32_t)sizeof(*old) + u32_max(room, INPUT_ROOM_MIN)) -
               (uint32_t)sizeof(*old);
        struct conn_input *fresh = heap_alloc(sh->heap, (uint32_t)sizeof(*fresh) + room);
        if (fresh == NULL) {
            metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
            return false;
        }
        fresh->room = room;
        fresh->bytes = have;
        if (old != NULL) {
            memcpy(fresh->data, old->data, have);
            heap_free(sh->heap, old, (uint32_t)sizeof(*old) + old->room);
        }
        *in = fresh;
    }
    memcpy((*in)->data + have, bytes, count);
    (*in)->bytes += count;
    return true;
}

static void free_input(struct shard *sh, struct conn_input **in)
{
    if (*in != NULL) heap_free(sh->heap, *in, (uint32_t)sizeof(**in) + (*in)->room);
    *in = NULL;
}

/* ---- HTTP ---- */

static void request(struct shard *sh, struct conn *c, const struct http_request *r,
                    struct slice whole)
{
    timer_disarm(&sh->re.wheel, &c->timer);
    c->continued = false;
    if (c->tag == CONN_METRICS) api_metrics_request(sh, c, r);
    else api_request(sh, c, NULL, r, whole);
}

/* A chunked body, decoded in place inside conn->in. Returns bytes consumed, 0 for more. */
static uint32_t take_chunked(struct shard *sh, struct conn *c)
{
    struct http_limits limits = http_limits_of(sh);
    struct conn_body *b = c->body;
    struct http_error error;
    uint8_t *data = c->in->data;
    uint32_t out = b->head_bytes + (uint32_t)b->chunked.body_bytes, used, produced;
    enum http_result e = http_chunked_feed(&b->chunked, &limits, data + b->raw,
                                           c->in->bytes - b->raw, data + out, &used, &produced,
                                           &error);
    b->raw += used;
    out += produced;
    if (e == HTTP_NEED_MORE) {           /* close the gap that decoding left */
        memmove(data + out, data + b->raw, c->in->bytes - b->raw);
        c->in->bytes -= b->raw - out;
        b->raw = out;
        c->need = c->in->bytes + 1;
        return 0;
    }
    uint32_t consumed = b->raw, scanned = 0;
    heap_free(sh->heap, b, sizeof(*b));
    c->body = NULL;
    if (e == HTTP_BAD) {
        reply_bad(sh, c, error.status, error.text);
        return c->in->bytes;
    }
    struct http_request r;
    e = http_parse(&limits, slice_of(data, out), &scanned, &r, &error);
    ASSERT(e == HTTP_OK);
    request(sh, c, &r, slice_of(data, out));
    return consumed;
}

static void continue_100(struct shard *sh, struct conn *c, const struct http_request *r)
{
    static const char answer[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!r->expect_continue || c->continued) return;
    c->continued = true;
    conn_send_bytes(sh, c, answer, sizeof(answer) - 1);
}

static uint32_t take_http(struct shard *sh, struct conn *c, uint8_t *data, uint32_t bytes)
{
    struct http_limits limits = http_limits_of(sh);
    struct http_request r;
    struct http_error error;
    if (c->body != NULL) return take_chunked(sh, c);
    switch (http_parse(&limits, slice_of(data, bytes), &c->scanned, &r, &error)) {
    case HTTP_NEED_MORE:
        return 0;
    case HTTP_BAD:
        if (error.status == 413 || error.status == 414 || error.status == 431) {
            metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_REQUEST_SIZE, 1);
        }
        reply_bad(sh, c, error.status, error.text);
        return bytes;
    case HTTP_OK:
        break;
    }
    if (r.chunked) {
        if (c->in == NULL || data != c->in->data) {
            c->stash = true;             /* decoding moves bytes: gather them first */
            return 0;
        }
        c->body = heap_zalloc(sh->heap, sizeof(*c->body));
        if (c->body == NULL) {
            reply_bad(sh, c, 503, "Service Unavailable");
            return bytes;
        }
        c->body->head_bytes = c->body->raw = r.head_bytes;
        continue_100(sh, c, &r);
        return take_chunked(sh, c);
    }
    uint64_t total = r.head_bytes + r.content_length;
    if (bytes < total) {
        c->need = (uint32_t)total;
        c->scanned = 0;
        continue_100(sh, c, &r);
        return 0;
    }
    request(sh, c, &r, slice_of(data, (uint32_t)total));
    return (uint32_t)total;
}

/* ---- WebSocket ---- */

static void too_big(struct shard *sh, struct conn *c)
{
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_PAYLOAD, 1);
    conn_close(sh, c, WS_CLOSE_TOO_BIG, "Message too big");
}

static void take_data(struct shard *sh, struct conn *c, const struct ws_frame *f)
{
    uint32_t limit = sh->conf->websocket_max_payload_kb * 1024;
    metric_add(sh->metrics, METRIC_SOCKET_RECEIVED_BYTES, c->app, 0, f->payload.bytes);
    if (f->fin && c->message == NULL) {
        metric_add(sh->metrics, METRIC_WS_MESSAGES_RECEIVED_TOTAL, c->app, 0, 1);
        session_message(sh, c, f->payload);
        return;
    }
    uint32_t have = c->message == NULL ? 0 : c->message->bytes;
    if (have + f->payload.bytes > limit) {
        too_big(sh, c);
        return;
    }
    if (have + f->payload.bytes > PRESSED_MESSAGE_MAX && shard_pressed(sh)) {
        conn_fail(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
        return;
    }
    if (!gather(sh, &c->message, f->payload.ptr, f->payload.bytes, limit)) {
        conn_fail(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
        return;
    }
    if (f->fin) {
        struct conn_input *m = c->message;
        c->message = NULL;
        metric_add(sh->metrics, METRIC_WS_MESSAGES_RECEIVED_TOTAL, c->app, 0, 1);
        session_message(sh, c, slice_of(m->data, m->bytes));
        free_input(sh, &m);
    }
}

static void take_close(struct shard *sh, struct conn *c, const struct ws_frame *f)
{
    if (c->state == CONN_CLOSING) {      /* the answer to ours: both sides are done */
        c->ended = true;
        if (c->out_count == 0) conn_kill(sh, c);
        return;
    }
    uint16_t code = ws_close_code(f);
    conn_close(sh, c, code == 1005 ? WS_CLOSE_NORMAL : code, "");
    c->deaf = true;                      /* nothing counts after a Close; wait for the end only */
}

static uint32_t take_ws(struct shard *sh, struct conn *c, uint8_t *data, uint32_t bytes)
{
    struct ws_frame f;
    uint16_t code = 0;
    uint32_t limit = sh->conf->websocket_max_payload_kb * 1024;
    enum ws_result e = ws_next(data, bytes, limit, &f, &c->need, &code);
    if (e == WS_NEED_MORE) return 0;
    if (e == WS_BAD || !ws_check(&c->ws, &f, &code)) {
        if (code == WS_CLOSE_TOO_BIG) too_big(sh, c);
        else if (code == WS_CLOSE_BAD_DATA) conn_close(sh, c, code, "Invalid UTF-8");
        else conn_close(sh, c, code, "Protocol error");
        if (c->state == CONN_CLOSING) c->deaf = true;
        return bytes;
    }
    if (!c->v2) c->pinged = false;       /* any frame proves liveness */
    if (f.opcode == WS_CLOSE) {
        take_close(sh, c, &f);
        return bytes;                    /* nothing counts after a Close */
    }
    if (c->state == CONN_CLOSING) return f.frame_bytes;
    if (f.opcode == WS_PING) {
        uint8_t out[WS_SERVER_HEADER_BYTES_MAX + WS_CONTROL_BYTES_MAX];
        uint32_t head = ws_header_write(out, WS_PONG, f.payload.bytes);
        memcpy(out + head, f.payload.ptr, f.payload.bytes);
        conn_send_bytes(sh, c, out, head + f.payload.bytes);
    } else if (f.opcode == WS_PONG) {
        if (c->v2) session_v2_pong(c, f.payload);
    } else {
        take_data(sh, c, &f);
    }
    return f.frame_bytes;
}

/* ---- the loop ---- */

/* A request waits for its answer, or the client does not read its answers. */
static bool is_held(const struct conn *c)
{
    return c->busy || (c->state == CONN_HTTP && c->out_bytes > PIPELINE_OUT_MAX);
}

/* Parse as much as is there. Returns bytes consumed. */
static uint32_t run(struct shard *sh, struct conn *c, uint8_t *data, uint32_t bytes)
{
    uint32_t used = 0;
    while (used < bytes && !is_held(c)) {
        uint32_t n;
        c->need = 0;
        if (c->state == CONN_HTTP && !c->last) {
            /* A body that is gathered in place must start where the buffer starts. */
            if (used > 0 && c->in != NULL && data == c->in->data && c->body == NULL) {
                memmove(data, data + used, bytes - used);
                bytes -= used;
                c->in->bytes = bytes;
                used = 0;
            }
            n = take_http(sh, c, data + used, bytes - used);
            if (n > 0) c->scanned = 0;
        } else if (c->state == CONN_WS || (c->state == CONN_CLOSING && c->close_sent && !c->deaf)) {
            n = take_ws(sh, c, data + used, bytes - used);
        } else {
            return bytes;                /* closing: the rest is not read */
        }
        if (n == 0) break;
        if (c->in != NULL && data == c->in->data) bytes = c->in->bytes;
        used += n;
    }
    return u32_min(used, bytes);
}

static void run_gathered(struct shard *sh, struct conn *c)
{
    struct conn_input *in = c->in;
    uint32_t used = run(sh, c, in->data, in->bytes);
    if (c->state == CONN_DEAD || used == in->bytes) {
        free_input(sh, &c->in);
    } else if (used > 0) {
        memmove(in->data, in->data + used, in->bytes - used);
        in->bytes -= used;
    }
}

static void out_of_memory(struct shard *sh, struct conn *c)
{
    if (c->state == CONN_WS) conn_fail(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
    else if (c->state != CONN_HTTP || c->busy) conn_kill(sh, c);
    else if (!c->last) reply_bad(sh, c, 503, "Service Unavailable");
    if (c->state == CONN_HTTP) free_input(sh, &c->in);   /* nothing of it will be read any more */
}

/* A body is memory that nobody has signed for yet: it must not grow into what open sockets need. */
static bool gather_input(struct shard *sh, struct conn *c, const uint8_t *bytes, uint32_t count)
{
    if (c->state == CONN_HTTP && c->need > 0 && shard_pressed(sh)) return false;
    return gather(sh, &c->in, bytes, count, c->need);
}

static void pause_if_flooding(struct shard *sh, struct conn *c)
{
    if (is_held(c) && c->in != NULL && c->in->bytes > PIPELINE_IN_MAX && !c->paused &&
        c->receiving) {
        c->paused = true;
        ring_recv_stop(sh->re.ring, c->ring_sock, c->gen);
    }
}

/* A body may take long if it moves, but not for ever: one of single bytes would. */
static void arm_body(struct shard *sh, struct conn *c)
{
    uint32_t limit = sh->conf->request_timeout_ms, age = (uint32_t)sh->re.now_ms - c->opened_ms;
    conn_arm(sh, c, u32_min(sh->conf->handshake_timeout_ms, age >= limit ? 0 : limit - age));
}

void conn_take_input(struct shard *sh, struct conn *c, uint8_t *bytes, uint32_t count)
{
    sh->input_of = c;
    if (c->in == NULL && c->state == CONN_HTTP) c->opened_ms = (uint32_t)sh->re.now_ms;
    if (c->in == NULL && !is_held(c)) {
        uint32_t used = run(sh, c, bytes, count);
        if (c->state != CONN_DEAD && used < count &&
            !gather_input(sh, c, bytes + used, count - used)) {
            out_of_memory(sh, c);
        } else if (c->stash && c->in != NULL) {
            c->stash = false;
            if (c->state != CONN_DEAD && !is_held(c)) run_gathered(sh, c);
        }
    } else if (!gather_input(sh, c, bytes, count)) {
        out_of_memory(sh, c);
    } else if (!is_held(c) && c->in->bytes >= c->need) {
        run_gathered(sh, c);
    }
    sh->input_of = NULL;
    if (sh->held_count > 0) chan_ask_held(sh);   /* the whole read has been parsed */
    if (c->state == CONN_DEAD) {
        free_input(sh, &c->in);
    } else if (c->state == CONN_HTTP && c->in != NULL && !c->busy &&
               (!timer_armed(&c->timer) || c->need > 0)) {
        arm_body(sh, c);
    }
    pause_if_flooding(sh, c);
}

void conn_resume_input(struct shard *sh, struct conn *c)
{
    if (sh->input_of == c || c->state == CONN_DEAD) return;
    if (c->in != NULL && !is_held(c) && c->in->bytes >= c->need) {
        struct conn *before = sh->input_of;
        sh->input_of = c;
        c->stash = false;
        run_gathered(sh, c);
        sh->input_of = before;
        if (sh->held_count > 0) chan_ask_held(sh);
    }
    if (c->paused && !is_held(c) && c->state != CONN_DEAD) {
        c->paused = false;
        if (!c->receiving && !c->ended) {
            c->receiving = true;
            ring_recv(sh->re.ring, c->ring_sock, c->gen);
        }
    }
    if (c->ended && c->state == CONN_HTTP && !is_held(c) && !c->last) {
        c->last = true;                  /* every request that came before its end is answered */
        if (c->out_count == 0) conn_out_empty(sh, c);
    }
}

void conn_answered(struct shard *sh, struct conn *c, bool keep)
{
    c->busy = false;
    if (c->state == CONN_DEAD) {
        conn_reap(sh, c);
        return;
    }
    if (c->state != CONN_HTTP) {         /* it was an upgrade */
        conn_resume_input(sh, c);
        return;
    }
    if (!keep) c->last = true;
    c->opened_ms = (uint32_t)sh->re.now_ms;            /* what stands behind it begins */
    conn_arm(sh, c, sh->conf->keepalive_timeout_ms);   /* also for a peer that does not read */
    if (c->out_count == 0) conn_out_empty(sh, c);
    conn_resume_input(sh, c);
}

void conn_become_ws(struct shard *sh, struct conn *c)
{
    ASSERT(c->state == CONN_HTTP);
    timer_disarm(&sh->re.wheel, &c->timer);
    c->state = CONN_WS;
    c->attached = true;
    c->scanned = c->need = 0;
}
