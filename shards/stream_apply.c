/* What a commit does: `now` moves on, the message is folded, its frames leave, whoever waits is
 * answered. And what a failure does: everything on the lane that is not committed never was. */
#include "shards/stream_parts.h"

/* ---- a record takes effect ---- */

static bool is_change(const struct record *r)
{
    return r->kind == RECORD_UPDATE || r->kind == RECORD_DELETE || r->kind == RECORD_APPEND;
}

static bool has_receipt(const struct record *r)
{
    static const uint8_t none[sizeof(r->key)];
    return record_is_row(r) && memcmp(r->key, none, sizeof(none)) != 0;
}

static void count(struct shard *sh, const struct stream *st, const struct record *r)
{
    uint32_t app = st->home->app;
    if (st->what == STREAM_PRESENCE) {
        metric_add(sh->metrics, METRIC_PRESENCE_HISTORY_WRITES_TOTAL, app, 0, 1);
    } else if (st->what == STREAM_MAIN && record_is_row(r)) {    /* annotations are no rows */
        metric_add(sh->metrics, METRIC_HISTORY_WRITES_TOTAL, app, 0, 1);
    }
    if (r->kind >= RECORD_CREATE && r->kind <= RECORD_APPEND) {
        metric_add(sh->metrics, METRIC_VERSIONED_MESSAGE_MUTATIONS_TOTAL, app,
                   series_mutation(r->kind - RECORD_CREATE, SERIES_MUTATION_APPLIED), 1);
    }
}

/* The frames of a main stream's record; NULL when nobody needs any, or after a loss. */
static struct frame *show(struct shard *sh, struct stream *st, const struct record *r,
                          const struct stream_message *m, struct slice actor)
{
    struct stream_entry entry;
    struct frame *f = NULL;
    const struct fold *fold = NULL;
    if (is_change(r)) {
        fold = m != NULL && m->fold.started && m->fold.delivery == r->delivery ? &m->fold : NULL;
        if (fold == NULL) {              /* no memory to fold it */
            stream_lost(sh, st->home, st);
            return NULL;
        }
    }
    if (!stream_frame_make(sh, st->home, st, r, fold, actor, &entry, &f)) {
        stream_lost(sh, st->home, st);
        return NULL;
    }
    if (f != NULL && stream_ring_wanted(st)) {
        entry.frame = f;
        stream_ring_put(sh, st, &entry);
    }
    return f;
}

static void keep_cached(struct shard *sh, struct home *h, const struct record *r,
                        struct slice actor)
{
    struct frame *f = stream_frame_cache(sh, h, r, actor);
    if (f == NULL) {                     /* an old event must not pass for the newest */
        home_cache_drop(sh, h);
        return;
    }
    home_cache_put(sh, h, f);
    frame_put(sh, &f);
}

static void fold_in(struct shard *sh, struct stream *st, const struct record *r,
                    struct stream_message *m)
{
    if (has_receipt(r)) stream_receipt_applied(sh, st, r);
    if (st->what == STREAM_MAIN && st->versioned) stream_message_applied(sh, st, m, r);
}

/* A publish or mutation is answered before its fan-out: its place in the order is fixed. */
void stream_apply(struct shard *sh, struct stream *st, const struct record *r,
                  struct stream_item *item)
{
    struct home *h = st->home;
    struct frame *f = NULL;
    struct publish asked = {0};
    struct slice actor = {NULL, 0};
    stream_head_advance(&st->now, r);
    st->spoken = true;
    if (item->publish != NULL) {
        asked = *item->publish;          /* it is its shard's again once it is answered */
        actor = asked.content->actor;
    }
    if (r->kind == RECORD_CHANNEL) st->named_now = true;
    if (r->kind == RECORD_RESET) {
        stream_reset_applied(sh, st, r->history);
        stream_degrade(sh, st, false);
        st->unsure_ms = 0;
    }
    if (record_ends_messages(r)) {
        stream_message_end(sh, st, r->message);
        if (st->ending <= r->message) st->ending = 0;
    }
    if (record_is_row(r)) st->row_bytes += record_bytes(r);
    if (record_is_version(r)) {
        count(sh, st, r);
        fold_in(sh, st, r, item->message);
        if (st->what == STREAM_MAIN) f = show(sh, st, r, item->message, actor);
    }
    if (asked.cache) keep_cached(sh, h, r, actor);
    if (item->publish != NULL) {
        stream_publish_answer(sh, h, item->publish, item->from_shard, HOME_OK, r);
        item->publish = NULL;
    }
    if (item->done != NULL) item->done(sh, st, item->ctx, r, true);
    if (f != NULL) {
        home_fan(sh, h, f, asked.except_a, asked.except_b, asked.started_ns);
        frame_put(sh, &f);
    }
    stream_message_evict(sh);
}

/* ---- commits ---- */

static struct record record_at(const struct stream_batch *sb, uint32_t at)
{
    struct record r;
    uint32_t bytes;
    struct slice packed = slice_of(sb->b.bytes + at, sb->b.bytes_count - at);
    enum record_result e = record_peek(packed, &r, &bytes);
    ASSERT(e == RECORD_OK);
    return r;
}

static void observe(struct shard *sh, const struct stream_batch *sb, const struct stream *st)
{
    double ms = (double)(sh->re.now_ns - u64_min(sb->b.posted_ns, sh->re.now_ns)) / 1e6;
    enum metric_id id = st->what == STREAM_PRESENCE ? METRIC_PRESENCE_HISTORY_WRITE_LATENCY_MS
                                                    : METRIC_HISTORY_WRITE_LATENCY_MS;
    metric_observe(sh->metrics, id, st->home->app, 0, ms);
}

static void take(struct shard *sh, struct stream_batch *sb)
{
    for (uint32_t i = 0; i < sb->b.records_count; i++) {
        struct stream_item *item = &sb->items[i];
        struct stream *st = item->st;
        struct record r = record_at(sb, item->at);
        if (st == NULL) {
            if (item->done != NULL) item->done(sh, NULL, item->ctx, &r, true);
            continue;
        }
        stream_flies(sh, st, -1);
        if (item->message != NULL && --item->message->flying == 0) item->message->barrier = false;
        if (record_is_version(&r)) observe(sh, sb, st);
        if (st->relaxed) stream_head_advance(&st->stored, &r);
        if (st->relaxed && r.kind == RECORD_RESET) st->stored_epoch = r.history;
        if (!item->applied) stream_apply(sh, st, &r, item);
        else if (r.kind == RECORD_CHANNEL) st->named_now = true;
        if (st->waits_first != NULL) stream_wake(sh, st);
    }
}

/* ---- failures ---- */

/* Everything of a batch is out of flight; its streams are marked. */
static void unfly(struct shard *sh, struct stream_batch *sb)
{
    for (uint32_t i = 0; i < sb->b.records_count; i++) {
        struct stream_item *item = &sb->items[i];
        struct stream *st = item->st;
        if (st == NULL) continue;
        struct record r = record_at(sb, item->at);
        stream_flies(sh, st, -1);
        st->touched = true;
        if (item->message != NULL) item->message->flying--;
        if (r.kind == RECORD_EPOCH) st->epoch_owed = true;
    }
}

/* What was shown and is not stored: serials are used again, in another stream. */
static void take_back(struct shard *sh, struct stream *st)
{
    st->history_epoch = st->stored_epoch;
    stream_message_free_all(sh, st);
    stream_ring_clear(sh, st);
    stream_epoch_change(sh, st);
}

static void fall_back(struct shard *sh, struct stream *st)
{
    bool shown = st->relaxed && (st->now.delivery != st->stored.delivery ||
                                 st->history_epoch != st->stored_epoch);
    ASSERT(st->flying == 0);
    st->touched = false;
    st->named = st->named_now;
    if (shown) st->now = st->stored;
    st->next = st->now;
    st->ending = 0;
    stream_receipt_fail(sh, st);
    stream_message_fail(sh, st);
    for (struct stream_wait *w = st->waits_first; w != NULL; w = w->next) w->delivery = 0;
    if (shown) take_back(sh, st);
    if (st->waits_first != NULL) stream_wake(sh, st);
}

static void settle(struct shard *sh, struct stream_batch *sb)
{
    for (uint32_t i = 0; i < sb->b.records_count; i++) {
        if (sb->items[i].st != NULL && sb->items[i].st->touched) fall_back(sh, sb->items[i].st);
    }
}

static void refuse(struct shard *sh, struct stream_batch *sb)
{
    for (uint32_t i = 0; i < sb->b.records_count; i++) {
        struct stream_item *item = &sb->items[i];
        struct record r = record_at(sb, item->at);
        if (item->st != NULL && record_is_version(&r)) {
            metric_add(sh->metrics,
                       item->st->what == STREAM_PRESENCE
                           ? METRIC_PRESENCE_HISTORY_WRITE_FAILURES_TOTAL
                           : METRIC_HISTORY_WRITE_FAILURES_TOTAL,
                       item->st->home->app, 0, 1);
        }
        if (item->applied) continue;
        if (item->publish != NULL) {
            stream_publish_answer(sh, item->st->home, item->publish, item->from_shard, HOME_BUSY,
                                  NULL);
        }
        if (item->done != NULL) item->done(sh, item->st, item->ctx, &r, false);
    }
}

/* A batch of this lane has failed. Those posted behind it carry an older generation and will fail
 * too, and what is open was sequenced on top of them: all of it is taken back at once, so that
 * nothing is sequenced on a state that will not be. */
static void fail_lane(struct shard *sh, struct stream_lane *ln, struct stream_batch *first)
{
    struct stream_batch *open = ln->open;
    ln->open = NULL;
    unfly(sh, first);
    for (struct stream_batch *sb = ln->out_first; sb != NULL; sb = sb->next) {
        if (sb->state != STREAM_BATCH_LIVE) continue;
        sb->state = STREAM_BATCH_FAILING;
        unfly(sh, sb);
    }
    if (open != NULL) unfly(sh, open);
    settle(sh, first);                   /* posts: new epochs may fill a batch */
    for (struct stream_batch *sb = ln->out_first; sb != NULL; sb = sb->next) {
        if (sb->state == STREAM_BATCH_FAILING) settle(sh, sb);
    }
    if (open != NULL) settle(sh, open);
    refuse(sh, first);
    for (struct stream_batch *sb = ln->out_first; sb != NULL; sb = sb->next) {
        if (sb->state != STREAM_BATCH_FAILING) continue;
        refuse(sh, sb);
        sb->state = STREAM_BATCH_DEAD;
    }
    if (open == NULL) return;
    refuse(sh, open);
    stream_batch_free(sh, open);
}

void stream_on_committed(struct shard *sh, const struct letter *l)
{
    struct store_batch *b = l->payload;
    struct stream_batch *sb = CONTAINER_OF(b, struct stream_batch, b);
    struct stream_lane *ln = &sh->streams->lanes[b->lane];
    ASSERT(ln->out_first == sb);
    ln->out_first = sb->next;
    if (ln->out_first == NULL) ln->out_last = NULL;
    ln->out_bytes -= b->bytes_room;
    bool dead = sb->state == STREAM_BATCH_DEAD;
    ASSERT(!dead || b->result != OK);
    if (b->result == OK) {
        metric_observe(sh->metrics, METRIC_STORE_COMMIT_MS, 0, 0, (double)b->commit_ns / 1e6);
        take(sh, sb);
    } else if (!dead) {
        /* A dead batch's generation is not looked at: it may be newer than what is in flight. */
        ln->generation = b->generation_now;
        fail_lane(sh, ln, sb);
    }
    stream_batch_free(sh, sb);
}
