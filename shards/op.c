#include "shards/op.h"

#include "shards/api.h"
#include "shards/ask.h"

struct op *op_open(struct shard *sh, struct conn *c)
{
    ASSERT(c->state == CONN_HTTP && !c->busy);
    struct op *op = heap_zalloc(sh->heap, sizeof(*op));
    if (op == NULL) return NULL;
    op->sock = conn_sock(sh, c);
    op->gen = c->gen;
    op->started_ns = sh->re.now_ns;
    op->timer.kind = SHARD_TIMER_OP;
    c->busy = true;
    sh->ops_count++;
    return op;
}

/* Origins are answered one by one only where CORS is not open to all. */
static bool origin_wanted(const struct conf *conf)
{
    for (uint32_t i = 0; i < conf->cors_origins_count; i++) {
        struct slice pattern = slice_str(conf->cors_origins[i]);
        if (slice_is(pattern, "*") || slice_is(pattern, "any")) return false;
    }
    return conf->cors_origins_count > 0;
}

struct op *op_of_request(struct shard *sh, struct conn *c, struct op *op,
                         const struct http_request *r)
{
    if (op != NULL) return op;
    op = op_open(sh, c);
    if (op == NULL) return NULL;
    op->keep_alive = r->keep_alive;
    op->head_only = r->method == HTTP_HEAD;
    struct slice origin = http_header(r, "origin");
    if (origin.bytes == 0 || !origin_wanted(sh->conf)) return op;
    op->origin = heap_alloc(sh->heap, origin.bytes);
    if (op->origin == NULL) {
        op_close(sh, op);
        c->busy = false;
        return NULL;
    }
    memcpy(op->origin, origin.ptr, origin.bytes);
    op->origin_bytes = origin.bytes;
    return op;
}

bool op_keep(struct shard *sh, struct op *op, struct slice head_and_body, uint32_t head_bytes)
{
    if (op->input != NULL) return true;
    op->input = heap_alloc(sh->heap, head_and_body.bytes);
    if (op->input == NULL) return false;
    memcpy(op->input, head_and_body.ptr, head_and_body.bytes);
    op->input_bytes = head_and_body.bytes;
    op->head_bytes = head_bytes;
    return true;
}

void op_request(const struct shard *sh, const struct op *op, struct http_request *out)
{
    struct http_limits limits = {
        .line_bytes_max = op->head_bytes, .head_bytes_max = op->head_bytes,
        .headers_max = HTTP_HEADERS_MAX, .body_bytes_max = UINT64_MAX,
    };
    struct http_error error;
    uint32_t scanned = 0;
    (void)sh;
    enum http_result e = http_parse(&limits, slice_of(op->input, op->input_bytes), &scanned, out,
                                    &error);
    ASSERT(e == HTTP_OK);                /* it was a whole request when it was kept */
}

static void run_again(struct shard *sh, struct op *op)
{
    struct conn *c = op_conn(sh, op);
    struct http_request r;
    if (c == NULL) {
        op_close(sh, op);
        return;
    }
    op_request(sh, op, &r);
    api_request(sh, c, op, &r, slice_of(op->input, op->input_bytes));
}

struct op *op_suspend(struct shard *sh, struct conn *c, struct op *op, const struct http_request *r,
                      struct slice whole)
{
    op = op_of_request(sh, c, op, r);
    if (op == NULL) return NULL;
    if (!op_keep(sh, op, whole, r->head_bytes)) {
        op_close(sh, op);
        c->busy = false;
        return NULL;
    }
    op->next = run_again;
    return op;
}

void op_close(struct shard *sh, struct op *op)
{
    struct conn *c = conn_get(sh, op->sock, op->gen);
    ASSERT(op->waiting == 0);
    timer_disarm(&sh->re.wheel, &op->timer);
    if (op->claim.entry != NULL) ask_claim_end(sh, &op->claim, NULL);
    if (op->passed & OP_QUOTA_NODE) ask_quota_back(sh, ASK_NODE_QUOTA, op->app);
    if (op->passed & OP_QUOTA_APP) ask_quota_back(sh, ASK_APP_QUOTA, op->app);
    frame_put(sh, &op->stored);
    if (op->input != NULL) heap_free(sh->heap, op->input, op->input_bytes);
    if (op->key != NULL) heap_free(sh->heap, op->key, op->key_bytes);
    if (op->origin != NULL) heap_free(sh->heap, op->origin, op->origin_bytes);
    bool answered = op->answered;
    heap_free(sh->heap, op, sizeof(*op));
    sh->ops_count--;
    if (c != NULL && !answered && c->state != CONN_HTTP && c->busy) {
        c->busy = false;
        conn_reap(sh, c);                /* the connection died while the request waited */
    }
}

struct conn *op_conn(struct shard *sh, struct op *op)
{
    struct conn *c = conn_get(sh, op->sock, op->gen);
    return c != NULL && c->state == CONN_HTTP && !op->answered ? c : NULL;
}

void op_answered(struct shard *sh, struct op *op)
{
    ASSERT(op->waiting > 0);
    if (--op->waiting == 0) op->next(sh, op);
}

void op_arm(struct shard *sh, struct op *op, uint64_t delay_ms, op_fn late)
{
    op->late = late;
    timer_arm(&sh->re.wheel, &op->timer, sh->re.now_ms + delay_ms);
}

void op_on_timer(struct shard *sh, struct timer *t)
{
    struct op *op = CONTAINER_OF(t, struct op, timer);
    op->late(sh, op);
}
