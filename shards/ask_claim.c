/* At the home: idempotency keys.
 *
 *   (none) -> claimed by one request -> done: its body is kept for the TTL -> (none)
 *                                    -> released: the first who waits gets it, else (none)
 *
 * A claimed key has no deadline: whoever holds it ends it, also when its client has gone. A key
 * that stands for a durable publish is stored before its request is answered, and known again after
 * a start: until the stored ones have been read, nobody is answered. */
#include "shards/ask_parts.h"

#include "shards/stream.h"

#include <stdio.h>

struct ask_held { struct ask_held *next; uint64_t since_ms; struct letter letter; };

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
    uint8_t           print[16];         /* of what it stands for; zero: not known */
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

/* NULL: the table holds `max` or more, or there is no memory. */
static struct claim *claim_make(struct shard *sh, uint64_t hash, uint32_t app, uint32_t scope,
                                struct slice key, const uint8_t print[16], uint32_t max)
{
    struct ask_book *b = sh->asks;
    struct claim *k = NULL;
    if (b->claims_count < max) {
        k = heap_zalloc(sh->heap, (uint32_t)sizeof(*k) + key.bytes);
    }
    if (k == NULL) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_IDEMPOTENCY_ENTRIES, 1);
        return NULL;
    }
    k->timed.timer.kind = SHARD_TIMER_ASK;
    k->timed.what = ASK_TIMED_CLAIM;
    k->app = app;
    k->scope = scope;
    k->key_bytes = key.bytes;
    memcpy(k->print, print, sizeof(k->print));
    memcpy(k->key, key.ptr, key.bytes);
    table_put(&b->claims, &k->node, hash);
    b->claims_count++;
    return k;
}

static uint64_t claim_hash(const struct shard *sh, uint32_t app, uint32_t scope, struct slice key)
{
    return hash_table(sh->server->table_seed ^ scope, app, key);
}

static bool is_other(const struct claim *k, const uint8_t print[16])
{
    static const uint8_t none[sizeof(k->print)];
    if (memcmp(k->print, none, sizeof(none)) == 0 || memcmp(print, none, sizeof(none)) == 0) {
        return false;
    }
    return memcmp(k->print, print, sizeof(k->print)) != 0;
}

/* The stored keys are not read yet: asked again once they are. */
static void hold(struct shard *sh, const struct letter *l)
{
    struct ask_book *b = sh->asks;
    struct ask_held *held = heap_zalloc(sh->heap, sizeof(*held));
    if (held == NULL) {
        ask_tell(sh, l->from_shard, l->payload, ASK_BUSY, 0, 0, 0);
        return;
    }
    held->letter = *l;
    held->since_ms = sh->re.now_ms;
    if (b->held_last == NULL) b->held_first = held;
    else b->held_last->next = held;
    b->held_last = held;
}

static struct ask_held *held_take(struct ask_book *b)
{
    struct ask_held *held = b->held_first;
    b->held_first = held->next;
    if (b->held_first == NULL) b->held_last = NULL;
    return held;
}

void ask_claims_expire(struct shard *sh)
{
    struct ask_book *b = sh->asks;
    while (b->held_first != NULL &&
           sh->re.now_ms - b->held_first->since_ms >= ASK_CLAIM_WAIT_MS) {
        struct ask_held *held = held_take(b);
        ask_tell(sh, held->letter.from_shard, held->letter.payload, ASK_BUSY, 0, 0, 0);
        heap_free(sh->heap, held, sizeof(*held));
    }
}

void ask_claims_open(struct shard *sh)
{
    struct ask_book *b = sh->asks;
    while (b->held_first != NULL) {
        struct ask_held *held = held_take(b);
        ask_claim_on_ask(sh, &held->letter);
        heap_free(sh->heap, held, sizeof(*held));
    }
}

void ask_claim_on_ask(struct shard *sh, const struct letter *l)
{
    const struct op *op = l->payload;    /* its key and print hold still until the answer */
    uint32_t app = (uint32_t)l->arg[1], scope = (uint32_t)l->arg[2];
    struct slice key = slice_of((void *)(uintptr_t)l->arg[3], (uint32_t)l->arg[4]);
    uint64_t hash = claim_hash(sh, app, scope, key);
    if (!stream_requests_known(sh)) {
        hold(sh, l);
        return;
    }
    struct claim *k = claim_find(sh, hash, app, scope, key);
    if (k != NULL) {
        if (is_other(k, op->print)) ask_tell(sh, l->from_shard, l->payload, ASK_DIFFERS, 0, 0, 0);
        else if (k->done) tell_stored(sh, k, l->from_shard, l->payload);
        else wait(sh, k, l);
        return;
    }
    k = claim_make(sh, hash, app, scope, key, op->print, sh->asks->claims_max);
    if (k == NULL) ask_tell(sh, l->from_shard, l->payload, ASK_TABLE_FULL, 0, 0, 0);
    else ask_tell(sh, l->from_shard, l->payload, ASK_YES, (uintptr_t)k, 0, 0);
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

static uint64_t lifetime_ms(const struct shard *sh, uint32_t app)
{
    return (uint64_t)sh->conf->apps[app].idempotency_ttl_seconds * 1000;
}

/* The key is done: its body, if it has one, is in place. */
static void end(struct shard *sh, struct claim *k, uint64_t life_ms)
{
    k->done = true;
    while (k->oldest != NULL) {
        tell_stored(sh, k, k->oldest->shard, k->oldest->op);
        waiter_free(sh, k->oldest);
    }
    k->until_ms = sh->re.now_ms + life_ms;
    timer_arm(&sh->re.wheel, &k->timed.timer, k->until_ms);
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
    end(sh, k, lifetime_ms(sh, k->app));
}

/* ---- stored keys ---- */

struct storing { struct claim *claim; struct op *op; uint16_t shard; };

/* Whatever became of the record: the publish is committed, and its key is known here. */
static void stored(struct shard *sh, struct stream *st, void *ctx, const struct record *r,
                   bool committed)
{
    struct storing *s = ctx;
    (void)st;
    (void)r;
    (void)committed;
    end(sh, s->claim, lifetime_ms(sh, s->claim->app));
    ask_tell(sh, s->shard, s->op, ASK_YES, 0, 0, 0);
    heap_free(sh->heap, s, sizeof(*s));
}

void ask_claim_on_store(struct shard *sh, const struct letter *l)
{
    struct claim *k = (void *)(uintptr_t)l->arg[1];
    char scope[16];
    ASSERT(!k->done);
    k->body = frame_borrow(sh, (void *)(uintptr_t)l->arg[2], l->from_shard);
    struct storing *s = heap_alloc(sh->heap, sizeof(*s));
    if (s != NULL) {
        struct slice key = slice_of(k->key, k->key_bytes);
        uint64_t hash[2];
        int n = snprintf(scope, sizeof(scope), "%u", k->scope);
        struct slice parts[] = {sh->server->app_ids[k->app], slice_of(scope, (uint32_t)n), key};
        struct record r = {
            .kind = RECORD_REQUEST, .owner = parts[0], .client = parts[1], .op_id = key,
        };
        hash_parts(parts, sizeof(parts) / sizeof(parts[0]), hash);
        memcpy(r.key, hash, sizeof(r.key));
        memcpy(r.print, k->print, sizeof(r.print));
        if (k->body != NULL) r.data = slice_of(k->body->bytes, k->body->bytes_count);
        *s = (struct storing){.claim = k, .op = l->payload, .shard = l->from_shard};
        if (stream_request_put(sh, k->app, &r, stored, s)) return;
        heap_free(sh->heap, s, sizeof(*s));
    }
    end(sh, k, lifetime_ms(sh, k->app));
    ask_tell(sh, l->from_shard, l->payload, ASK_YES, 0, 0, 0);
}

static uint32_t scope_of(struct slice text)
{
    uint32_t scope = 0;
    for (uint32_t i = 0; i < text.bytes && i < 9; i++) scope = scope * 10 + (text.ptr[i] - '0');
    return scope;
}

void ask_claim_load(struct shard *sh, const struct record *r)
{
    uint32_t app, scope = scope_of(r->client);
    if (!shard_app_by_id(sh->server, r->owner, &app) || r->op_id.bytes == 0) return;
    if (shard_home(sh, app, r->op_id) != sh->id) return;
    uint64_t age_ms = sh->re.wall_ms - u64_min(r->time_ms, sh->re.wall_ms);
    if (age_ms >= lifetime_ms(sh, app)) return;
    uint64_t hash = claim_hash(sh, app, scope, r->op_id);
    if (claim_find(sh, hash, app, scope, r->op_id) != NULL) return;
    /* With another number of shards before the start, this one's share may have been larger. */
    struct claim *k = claim_make(sh, hash, app, scope, r->op_id, r->print,
                                 sh->conf->idempotency_max_entries);
    if (k == NULL) return;
    if (r->data.ptr != NULL) k->body = frame_copy(sh, r->data.ptr, r->data.bytes);
    end(sh, k, lifetime_ms(sh, app) - age_ms);
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
