/* Publish receipts: the same key and content again is the same message, for the time that the app's
 * idempotency lasts. In memory here; those of a channel with history come back with its load. */
#include "shards/stream_parts.h"

static uint64_t receipt_hash(const struct stream *st, const uint8_t key[16])
{
    uint64_t half;
    memcpy(&half, key, sizeof(half));    /* the key is a hash already */
    return half ^ (uint64_t)(uintptr_t)st * 0x9e3779b97f4a7c15ull;
}

struct stream_receipt *stream_receipt_find(struct shard *sh, const struct stream *st,
                                           const uint8_t key[16])
{
    struct table_node *n = table_find(&sh->streams->receipts, receipt_hash(st, key));
    for (; n != NULL; n = table_find_next(n)) {
        struct stream_receipt *k = CONTAINER_OF(n, struct stream_receipt, node);
        if (k->st != st || memcmp(k->key, key, sizeof(k->key)) != 0) continue;
        if (k->pending || k->until_ms > sh->re.now_ms) return k;
    }
    return NULL;
}

static uint64_t lifetime_ms(const struct shard *sh, const struct stream *st)
{
    return (uint64_t)sh->conf->apps[st->home->app].idempotency_ttl_seconds * 1000;
}

static struct stream_receipt *make(struct shard *sh, struct stream *st, const uint8_t key[16],
                                   const uint8_t print[16])
{
    struct stream_book *b = sh->streams;
    struct stream_receipt *k = NULL;
    if (b->receipts_count < STREAM_RECEIPTS_MAX) k = heap_zalloc(sh->heap, sizeof(*k));
    if (k == NULL) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_IDEMPOTENCY_ENTRIES, 1);
        return NULL;
    }
    k->st = st;
    memcpy(k->key, key, sizeof(k->key));
    memcpy(k->print, print, sizeof(k->print));
    k->older = st->receipts_newest;
    if (k->older != NULL) k->older->newer = k;
    else st->receipts_oldest = k;
    st->receipts_newest = k;
    table_put(&b->receipts, &k->node, receipt_hash(st, key));
    b->receipts_count++;
    return k;
}

void stream_receipt_drop(struct shard *sh, struct stream_receipt *k)
{
    struct stream *st = k->st;
    if (k->older != NULL) k->older->newer = k->newer;
    else st->receipts_oldest = k->newer;
    if (k->newer != NULL) k->newer->older = k->older;
    else st->receipts_newest = k->older;
    table_del(&sh->streams->receipts, &k->node);
    sh->streams->receipts_count--;
    heap_free(sh->heap, k, sizeof(*k));
}

struct stream_receipt *stream_receipt_add(struct shard *sh, struct stream *st,
                                          const struct record *r, bool pending)
{
    struct stream_receipt *k = make(sh, st, r->key, r->print);
    if (k == NULL) return NULL;
    k->delivery = r->delivery;
    k->history = r->history;
    k->time_ms = r->time_ms;
    k->pending = pending;
    k->until_ms = sh->re.now_ms + lifetime_ms(sh, st);
    return k;
}

void stream_receipt_applied(struct shard *sh, struct stream *st, const struct record *r)
{
    struct stream_receipt *k = stream_receipt_find(sh, st, r->key);
    if (k == NULL || k->delivery != r->delivery) return;
    k->pending = false;
    k->until_ms = sh->re.now_ms + lifetime_ms(sh, st);
}

void stream_receipt_fail(struct shard *sh, struct stream *st)
{
    for (struct stream_receipt *k = st->receipts_newest, *older; k != NULL; k = older) {
        older = k->older;
        if (k->pending || k->delivery > st->now.delivery) stream_receipt_drop(sh, k);
    }
}

void stream_receipt_expire(struct shard *sh, struct stream *st, uint64_t now_ms)
{
    while (st->receipts_oldest != NULL && !st->receipts_oldest->pending &&
           st->receipts_oldest->until_ms <= now_ms) {
        stream_receipt_drop(sh, st->receipts_oldest);
    }
}

/* False: not all fit. A receipt that is not known would let its publish be repeated. */
bool stream_receipt_load(struct shard *sh, struct stream *st, const struct store_read *r)
{
    uint64_t life_ms = lifetime_ms(sh, st), wall_ms = sh->re.wall_ms;
    for (uint32_t i = 0; i < r->receipts_count; i++) {
        const struct store_receipt *from = &r->receipts[i];
        uint64_t age_ms = wall_ms - u64_min(from->time_ms, wall_ms);
        if (age_ms >= life_ms) continue;
        struct stream_receipt *k = make(sh, st, from->key, from->print);
        if (k == NULL) return false;
        k->delivery = from->delivery;
        k->history = from->history;
        k->time_ms = from->time_ms;
        k->until_ms = sh->re.now_ms + life_ms - age_ms;
    }
    return true;
}

void stream_receipt_free_all(struct shard *sh, struct stream *st)
{
    while (st->receipts_oldest != NULL) stream_receipt_drop(sh, st->receipts_oldest);
}
