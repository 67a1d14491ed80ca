/* At the home: idempotency keys.
 *
 *   (none) -> claimed by one request -> done: its body is kept for the TTL -> (none)
 *                                    -> released: the first who waits gets it, else (none)
 *
 * A claimed key has no deadline: whoever holds it ends it, also when its client has gone. */
#include "shards/ask_parts.h"

struct waiter {                          /* a repeat while the first is running */
    struct ask_timed timed;
    struct claim    *claim;
    struct waiter   *older, *newer;
    struct op       *op;
    uint16_t         shard;
};

struct claim {
    struct ask_timed  timed;             /* done: when it is forgotten */
    struct table_node node;
    struct waiter    *oldest, *newest;
    struct frame     *body;              /* counted; NULL unless done, or when it was lost */
    uint64_t          until_ms;          /* the wheel's span may be shorter than the TTL */
    bool              done;
    uint32_t          app, scope, key_bytes;
    uint8_t           key[];
};

static struct claim *claim_find(struct shard *sh, uint64_t hash, uint32_t app, uint32_t scope,
                                struct slice key)
{
    struct table_node *n = table_find(&sh->asks->claims, hash);
    for (; n != NULL; n = table_find_next(n)) {
        struct claim *k = CONTAINER_OF(n, struct claim, node);
        if (k->app == app && k->scope == scope &&
            slice_equal(slice_of(k->key, k->key_bytes), key)) {
            return k;
        }
    }
    return NULL;
}

static void claim_free(struct shard *sh, struct claim *k)
{
    ASSERT(k->oldest == NULL);
    timer_disarm(&sh->re.wheel, &k->timed.timer);
    table_del(&sh->asks->claims, &k->node);
    sh->asks->claims_count--;
    frame_put(sh, &k->body);
    heap_free(sh->heap, k, (uint32_t)sizeof(*k) + k->key_bytes);
}

static void tell_stored(struct shard *sh, const struct claim *k, uint16_t to, struct op *op)
{
    struct frame *body = k->body == NULL ? NULL : frame_lend(k->body);
    ask_tell(sh, to, op, ASK_STORED, (uintptr_t)body, 0, 0);
}

static void wait(struct shard *sh, struct claim *k, const struct letter *l)
{
    struct waiter *w = heap_zalloc(sh->heap, sizeof(*w));
    if (w == NULL) {
        ask_tell(sh, l->from_shard, l->payload, ASK_BUSY, 0, 0, 0);
        return;
    }
    w->timed.timer.kind = SHARD_TIMER_ASK;
    w->timed.what = ASK_TIMED_WAITER;
    w->claim = k;
    w->op = l->payload;
    w->shard = l->from_shard;
    w->older = k->newest;
    if (w->older != NULL) w->older->newer = w;
    else k->oldest = w;
    k->newest = w;
    timer_arm(&sh->re.wheel, &w->timed.timer, sh->re.now_ms + ASK_CLAIM_WAIT_MS);
}

static void waiter_free(struct shard *sh, struct waiter *w)
{
    struct claim *k = w->claim;
    timer_disarm(&sh->re.wheel, &w->timed.timer);
    if (w->older != NULL) w->older->newer = w->newer;
    else k->oldest = w->newer;
    if (w->newer != NULL) w->newer->older = w->older;
    else k->newest = w->older;
    heap_free(sh->heap, w, sizeof(*w));
}

void ask_claim_on_ask(struct shard *sh, const struct letter *l)
{
    struct ask_book *b = sh->asks;
    uint32_t app = (uint32_t)l->arg[1], scope = (uint32_t)l->arg[2];
    struct slice key = slice_of((void *)(uintptr_t)l->arg[3], (uint32_t)l->arg[4]);
    uint64_t hash = hash_table(sh->server->table_seed ^ scope, app, key);
    struct claim *k = claim_find(sh, hash, app, scope, key);
    if (k != NULL) {
        if (k->done) tell_stored(sh, k, l->from_shard, l->payload);
        else wait(sh, k, l);
        return;
    }
    if (b->claims_count < b->claims_max) {
        k = heap_zalloc(sh->heap, (uint32_t)sizeof(*k) + key.bytes);
    }
    if (k == NULL) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_IDEMPOTENCY_ENTRIES, 1);
        ask_tell(sh, l->from_shard, l->payload, ASK_TABLE_FULL, 0, 0, 0);
        return;
    }
    k->timed.timer.kind = SHARD_TIMER_ASK;
    k->timed.what = ASK_TIMED_CLAIM;
    k->app = app;
    k->scope = scope;
    k->key_bytes = key.bytes;
    memcpy(k->key, key.ptr, key.bytes);
    table_put(&b->claims, &k->node, hash);
    b->claims_count++;
    ask_tell(sh, l->from_shard, l->payload, ASK_YES, (uintptr_t)k, 0, 0);
}

/* A release hands the key to the first who waits. */
static void release(struct shard *sh, struct claim *k)
{
    struct waiter *w = k->oldest;
    if (w == NULL) {
        claim_free(sh, k);
        return;
    }
    ask_tell(sh, w->shard, w->op, ASK_YES, (uintptr_t)k, 0, 0);
    waiter_free(sh, w);
}

void ask_claim_on_done(struct shard *sh, const struct letter *l)
{
    struct claim *k = (void *)(uintptr_t)l->arg[1];
    struct frame *loan = (void *)(uintptr_t)l->arg[2];
    ASSERT(!k->done);
    if (loan == NULL && (l->flags & ASK_DONE_LOST) == 0) {
        release(sh, k);
        return;
    }
    /* Without memory for the loan the body is lost, but not the fact that it was published. */
    if (loan != NULL) k->body = frame_borrow(sh, loan, l->from_shard);
    k->done = true;
    while (k->oldest != NULL) {
        tell_stored(sh, k, k->oldest->shard, k->oldest->op);
        waiter_free(sh, k->oldest);
    }
    k->until_ms = sh->re.now_ms +
                  (uint64_t)sh->conf->apps[k->app].idempotency_ttl_seconds * 1000;
    timer_arm(&sh->re.wheel, &k->timed.timer, k->until_ms);
}

void ask_on_timer(struct shard *sh, struct timer *t)
{
    struct ask_timed *timed = CONTAINER_OF(t, struct ask_timed, timer);
    switch ((enum ask_timed_what)timed->what) {
    case ASK_TIMED_CLAIM: {
        struct claim *k = CONTAINER_OF(timed, struct claim, timed);
        if (sh->re.now_ms < k->until_ms) timer_arm(&sh->re.wheel, t, k->until_ms);
        else claim_free(sh, k);
        return;
    }
    case ASK_TIMED_WAITER: {
        struct waiter *w = CONTAINER_OF(timed, struct waiter, timed);
        ask_tell(sh, w->shard, w->op, ASK_BUSY, 0, 0, 0);
        waiter_free(sh, w);
        return;
    }
    }
    ASSERT(!"unknown timer");
}
