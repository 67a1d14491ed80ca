/* At the home: quotas and fixed windows. A window starts at its first event. */
#include "shards/ask_parts.h"

#include "shards/actor.h"

enum { TICK_ADDRESSES_MAX = 4096, ADDRESS_BUCKETS_MAX = 1 << 17, CLAIM_BUCKETS_MAX = 1 << 22 };

err_t ask_open(struct shard *sh)
{
    uint32_t apps = sh->conf->apps_count;
    struct ask_book *b = heap_zalloc(sh->heap, sizeof(*b));
    if (b == NULL) return ERR_MEMORY;
    sh->asks = b;
    b->app_sockets = heap_zalloc(sh->heap, apps * (uint32_t)sizeof(*b->app_sockets));
    b->backend = heap_zalloc(sh->heap, apps * (uint32_t)sizeof(*b->backend));
    b->read = heap_zalloc(sh->heap, apps * (uint32_t)sizeof(*b->read));
    if (b->app_sockets == NULL || b->backend == NULL || b->read == NULL) return ERR_MEMORY;
    b->claims_max = u32_max(sh->conf->idempotency_max_entries / sh->server->shards_count, 1);
    err_t e = table_open(&b->addresses, ADDRESS_BUCKETS_MAX);
    if (e == OK) e = table_open(&b->claims, CLAIM_BUCKETS_MAX);
    return e;
}

void ask_close(struct shard *sh)
{
    struct ask_book *b = sh->asks;
    if (b == NULL) return;
    table_close(&b->addresses);
    table_close(&b->claims);
    sh->asks = NULL;                     /* entries go with the heap */
}

void ask_tell(struct shard *sh, uint16_t to, struct op *op, enum ask_verdict verdict,
              uint64_t arg1, uint64_t arg2, uint64_t arg3)
{
    struct letter l = {.kind = MAIL_ASKED, .payload = op, .arg = {verdict, arg1, arg2, arg3}};
    shard_answer(sh, to, &l);
}

/* ---- windows ---- */

static bool window_over(const struct ask_window *w, uint64_t window_ms, uint64_t now_ms)
{
    return w->count == 0 || now_ms - w->from_ms >= window_ms;
}

/* Count `weight` events in, or none; answers the op. */
static void window_take(struct shard *sh, const struct letter *l, struct ask_window *w,
                        uint32_t limit, uint32_t window_s, uint32_t weight)
{
    uint64_t window_ms = (uint64_t)window_s * 1000, now_ms = sh->re.now_ms;
    if (window_over(w, window_ms, now_ms)) *w = (struct ask_window){.from_ms = now_ms};
    uint64_t reset_s = (w->from_ms + window_ms - now_ms + 999) / 1000;
    if (weight > limit) weight = limit;  /* a large batch takes a whole window, or never gets in */
    bool fits = weight <= limit - u32_min(w->count, limit);
    if (fits) {
        w->count += weight;
    } else if (l->arg[0] == ASK_BACKEND_RATE || l->arg[0] == ASK_READ_RATE) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0,
                   l->arg[0] == ASK_READ_RATE ? SERIES_LIMIT_READ_RATE : SERIES_LIMIT_BACKEND_RATE,
                   1);
    }
    ask_tell(sh, l->from_shard, l->payload, fits ? ASK_YES : ASK_NO, limit,
             limit - u32_min(w->count, limit), reset_s);
}

static void on_app_rate(struct shard *sh, const struct letter *l)
{
    struct ask_book *b = sh->asks;
    uint32_t app = (uint32_t)l->arg[1];
    const struct conf_app *conf = &sh->conf->apps[app];
    if (l->arg[0] == ASK_BACKEND_RATE) {
        window_take(sh, l, &b->backend[app], conf->max_backend_events_per_second, 1,
                    (uint32_t)l->arg[2]);
    } else {
        window_take(sh, l, &b->read[app], conf->max_read_requests_per_second, 1,
                    (uint32_t)l->arg[2]);
    }
}

/* ---- windows of addresses ---- */

static const struct conf_rate *rate_of(const struct shard *sh, uint32_t kind)
{
    return kind == 0 ? &sh->conf->rate_api : &sh->conf->rate_websocket;
}

static void address_unlist(struct ask_book *b, struct ask_address *a)
{
    if (a->older != NULL) a->older->newer = a->newer;
    else b->oldest[a->kind] = a->newer;
    if (a->newer != NULL) a->newer->older = a->older;
    else b->newest[a->kind] = a->older;
}

static void address_list(struct ask_book *b, struct ask_address *a)
{
    a->newer = NULL;
    a->older = b->newest[a->kind];
    if (a->older != NULL) a->older->newer = a;
    else b->oldest[a->kind] = a;
    b->newest[a->kind] = a;
}

/* Drop up to `most` addresses whose window is over. */
static void addresses_expire(struct shard *sh, uint32_t kind, uint32_t most)
{
    struct ask_book *b = sh->asks;
    uint64_t window_ms = (uint64_t)rate_of(sh, kind)->window_seconds * 1000;
    while (most-- > 0 && b->oldest[kind] != NULL) {
        struct ask_address *a = b->oldest[kind];
        if (!window_over(&a->window, window_ms, sh->re.now_ms)) return;
        address_unlist(b, a);
        table_del(&b->addresses, &a->node);
        b->addresses_count[kind]--;
        heap_free(sh->heap, a, sizeof(*a));
    }
}

/* NULL: the table is full of live windows, or there is no memory. */
static struct ask_address *address_get(struct shard *sh, uint32_t kind,
                                       const struct ring_addr *addr)
{
    struct ask_book *b = sh->asks;
    uint64_t hash = hash_table(sh->server->table_seed, kind, slice_of(addr->ip, sizeof(addr->ip)));
    struct table_node *n = table_find(&b->addresses, hash);
    for (; n != NULL; n = table_find_next(n)) {
        struct ask_address *a = CONTAINER_OF(n, struct ask_address, node);
        if (a->kind == kind && memcmp(&a->addr, addr, sizeof(*addr)) == 0) return a;
    }
    if (b->addresses_count[kind] >= ASK_ADDRESSES_MAX) addresses_expire(sh, kind, 1);
    if (b->addresses_count[kind] >= ASK_ADDRESSES_MAX) return NULL;
    struct ask_address *a = heap_zalloc(sh->heap, sizeof(*a));
    if (a == NULL) return NULL;
    a->kind = (uint8_t)kind;
    a->addr = *addr;
    a->window.from_ms = sh->re.now_ms;
    table_put(&b->addresses, &a->node, hash);
    address_list(b, a);
    b->addresses_count[kind]++;
    return a;
}

static void on_address(struct shard *sh, const struct letter *l)
{
    uint32_t kind = l->arg[0] == ASK_API_RATE ? 0 : 1;
    const struct conf_rate *rate = rate_of(sh, kind);
    struct ring_addr addr;
    memcpy(addr.ip, &l->arg[1], sizeof(addr.ip));
    struct ask_address *a = address_get(sh, kind, &addr);
    if (a == NULL) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_RATE_ADDRESSES, 1);
        ask_tell(sh, l->from_shard, l->payload, ASK_YES, rate->max_requests, rate->max_requests,
                 rate->window_seconds);
        return;
    }
    if (window_over(&a->window, (uint64_t)rate->window_seconds * 1000, sh->re.now_ms)) {
        address_unlist(sh->asks, a);     /* its window begins anew: keep the list in order */
        address_list(sh->asks, a);
    }
    window_take(sh, l, &a->window, rate->max_requests, rate->window_seconds, 1);
}

void ask_tick(struct shard *sh)
{
    for (uint32_t kind = 0; kind < ASK_ADDRESS_KINDS; kind++) {
        addresses_expire(sh, kind, TICK_ADDRESSES_MAX);
    }
}

/* ---- quotas ---- */

static void on_node_quota(struct shard *sh, const struct letter *l)
{
    uint32_t limit = sh->conf->max_connections;
    bool fits = limit == 0 || sh->asks->sockets < limit;
    if (fits) sh->asks->sockets++;
    else metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_MAX_CONNECTIONS, 1);
    ask_tell(sh, l->from_shard, l->payload, fits ? ASK_YES : ASK_NO, limit, 0, 0);
}

static void on_app_quota(struct shard *sh, const struct letter *l)
{
    uint32_t app = (uint32_t)l->arg[1], limit = sh->conf->apps[app].max_connections;
    uint32_t *used = &sh->asks->app_sockets[app];
    bool fits = limit == 0 || *used < limit;
    if (fits) (*used)++;
    else metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_APP_CONNECTIONS, 1);
    ask_tell(sh, l->from_shard, l->payload, fits ? ASK_YES : ASK_NO, limit, 0, 0);
}

/* ---- letters ---- */

void ask_on_ask(struct shard *sh, const struct letter *l)
{
    switch ((enum ask_question)l->arg[0]) {
    case ASK_NODE_QUOTA: on_node_quota(sh, l); return;
    case ASK_APP_QUOTA: on_app_quota(sh, l); return;
    case ASK_API_RATE:
    case ASK_WS_RATE: on_address(sh, l); return;
    case ASK_BACKEND_RATE:
    case ASK_READ_RATE: on_app_rate(sh, l); return;
    case ASK_CLAIM: ask_claim_on_ask(sh, l); return;
    case ASK_CLAIM_STORE: ask_claim_on_store(sh, l); return;
    case ASK_ALIVE: ask_tell(sh, l->from_shard, l->payload, ASK_YES, 0, 0, 0); return;
    case ASK_ACTOR:
        actor_on_ask(sh, (void *)(uintptr_t)l->arg[1]);
        ask_tell(sh, l->from_shard, l->payload, ASK_YES, 0, 0, 0);
        return;
    case ASK_USER_END: break;            /* goes as MAIL_USER_END */
    }
    ASSERT(!"unknown question");
}

void ask_on_done(struct shard *sh, const struct letter *l)
{
    struct ask_book *b = sh->asks;
    uint32_t app = (uint32_t)l->arg[1];
    switch ((enum ask_question)l->arg[0]) {
    case ASK_NODE_QUOTA:
        ASSERT(b->sockets > 0);
        b->sockets--;
        return;
    case ASK_APP_QUOTA:
        ASSERT(b->app_sockets[app] > 0);
        b->app_sockets[app]--;
        return;
    case ASK_CLAIM: ask_claim_on_done(sh, l); return;
    case ASK_CLAIM_STORE:
    case ASK_API_RATE:
    case ASK_WS_RATE:
    case ASK_BACKEND_RATE:
    case ASK_READ_RATE:
    case ASK_ALIVE:
    case ASK_ACTOR:
    case ASK_USER_END: break;            /* nothing stays open after their answer */
    }
    ASSERT(!"nothing to close");
}
