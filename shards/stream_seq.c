/* Serials, and the batches that carry what has been sequenced to the lanes. */
#include "shards/stream_parts.h"

enum { BATCH_BYTES_MIN = 4096, BATCH_ITEMS_MIN = 16 };

uint64_t stream_epoch_draw(struct shard *sh)
{
    return rng_next(&sh->re.rng) | 1;    /* never the 0 that a channel begins with */
}

/* ---- batches ---- */

static struct stream_batch *batch_open(struct shard *sh, uint16_t lane)
{
    struct stream_lane *ln = &sh->streams->lanes[lane];
    if (ln->open != NULL) return ln->open;
    struct stream_batch *sb = heap_zalloc(sh->heap, sizeof(*sb));
    if (sb == NULL) return NULL;
    sb->b.shard = sh->id;
    sb->b.lane = lane;
    ln->open = sb;
    return sb;
}

void stream_batch_free(struct shard *sh, struct stream_batch *sb)
{
    heap_free(sh->heap, sb->b.bytes, sb->b.bytes_room);
    heap_free(sh->heap, sb->items, (uint32_t)sizeof(*sb->items) * sb->items_room);
    heap_free(sh->heap, sb, sizeof(*sb));
}

/* Room for `bytes` more and for one more item. */
static bool batch_room(struct shard *sh, struct stream_batch *sb, uint32_t bytes)
{
    uint64_t need = (uint64_t)sb->b.bytes_count + bytes;
    if (need > sb->b.bytes_room) {
        uint64_t room = u64_max(u64_max(need, BATCH_BYTES_MIN), 2ull * sb->b.bytes_room);
        uint8_t *fresh = heap_alloc(sh->heap, (uint32_t)room);
        if (fresh == NULL) return false;
        if (sb->b.bytes_count > 0) memcpy(fresh, sb->b.bytes, sb->b.bytes_count);
        heap_free(sh->heap, sb->b.bytes, sb->b.bytes_room);
        sb->b.bytes = fresh;
        sb->b.bytes_room = (uint32_t)room;
    }
    if (sb->b.records_count < sb->items_room) return true;
    uint32_t size = (uint32_t)sizeof(*sb->items);
    uint32_t room = u32_max(2 * sb->items_room, BATCH_ITEMS_MIN);
    struct stream_item *fresh = heap_alloc(sh->heap, size * room);
    if (fresh == NULL) return false;
    if (sb->items_room > 0) memcpy(fresh, sb->items, (size_t)size * sb->items_room);
    heap_free(sh->heap, sb->items, size * sb->items_room);
    sb->items = fresh;
    sb->items_room = room;
    return true;
}

static void batch_put(struct stream_batch *sb, const struct record *r,
                      const struct stream_item *item)
{
    struct stream_item *kept = &sb->items[sb->b.records_count++];
    *kept = *item;
    kept->at = sb->b.bytes_count;
    sb->b.bytes_count += record_write(r, sb->b.bytes + sb->b.bytes_count);
    ASSERT(sb->b.bytes_count <= sb->b.bytes_room);
}

void stream_lane_post(struct shard *sh, uint16_t lane)
{
    struct stream_lane *ln = &sh->streams->lanes[lane];
    struct stream_batch *sb = ln->open;
    if (sb == NULL) return;
    ln->open = NULL;
    if (sb->b.records_count == 0) {
        stream_batch_free(sh, sb);
        return;
    }
    sb->b.generation = ln->generation;
    sb->b.posted_ns = sh->re.now_ns;
    if (ln->out_last == NULL) ln->out_first = sb;
    else ln->out_last->next = sb;
    ln->out_last = sb;
    ln->out_bytes += sb->b.bytes_room;
    struct letter l = {.kind = MAIL_COMMIT, .payload = &sb->b};
    shard_answer(sh, store_post(sh->server->store, lane), &l);
}

/* What makes room, or takes none, is let through while there is none: a lane that fails answers it
 * by itself. */
static bool grows(const struct record *r)
{
    if (r->kind == RECORD_PRESENCE) return !slice_is(r->name, "\"member_removed\"");
    return r->kind != RECORD_RESET && r->kind != RECORD_PURGE && r->kind != RECORD_EPOCH;
}

static bool lane_refuses(struct shard *sh, uint16_t lane, bool more)
{
    const struct stream_lane *ln = &sh->streams->lanes[lane];
    if (more && store_refuses(sh->server->store, lane)) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_STORE, 1);
        return true;
    }
    if (ln->out_bytes < STREAM_LANE_BYTES_MAX) return false;
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_LANE_BYTES, 1);
    return true;
}

bool stream_lane_put(struct shard *sh, uint16_t lane, const struct record *r,
                     const struct stream_item *item)
{
    if (lane_refuses(sh, lane, grows(r))) return false;
    struct stream_batch *sb = batch_open(sh, lane);
    if (sb == NULL || !batch_room(sh, sb, record_bytes(r))) return false;
    batch_put(sb, r, item);
    if (sb->b.bytes_count >= STREAM_BATCH_BYTES_MAX) stream_lane_post(sh, lane);
    return true;
}

/* ---- sequencing ---- */

/* The channel's name goes before its first record. */
static bool put_name(struct shard *sh, struct stream *st, stream_done done, void *ctx)
{
    struct slice app = sh->server->app_ids[st->home->app], name = st->stored_name;
    uint32_t bytes = app.bytes + 1 + name.bytes;
    uint8_t *text = heap_alloc(sh->heap, bytes);
    if (text == NULL) return false;
    memcpy(text, app.ptr, app.bytes);
    text[app.bytes] = '\0';
    memcpy(text + app.bytes + 1, name.ptr, name.bytes);
    struct record r = {.kind = RECORD_CHANNEL, .chan = st->chan, .history = st->delivery_epoch,
                       .time_ms = st->next.time_ms, .data = slice_of(text, bytes)};
    struct stream_item item = {.st = st, .done = done, .ctx = ctx};
    bool put = stream_lane_put(sh, st->lane, &r, &item);
    heap_free(sh->heap, text, bytes);
    if (!put) return false;
    st->named = st->held = true;
    stream_flies(sh, st, 1);
    return true;
}

bool stream_heal(struct shard *sh, struct stream *st, stream_done done, void *ctx)
{
    ASSERT(st->state == STREAM_FAILED && st->lost);
    return put_name(sh, st, done, ctx);
}

/* What the record will be, were it taken. */
static void stamp(struct shard *sh, const struct stream *st, struct record *r)
{
    const struct stream_head *next = &st->next;
    r->chan = st->chan;
    r->time_ms = u64_max(sh->re.wall_ms, next->time_ms);
    if (st->relaxed) r->flags |= RECORD_RELAXED;
    if (record_is_version(r)) r->delivery = next->delivery + 1;
    if (record_is_row(r)) {
        r->history = next->history + 1;
        r->message = r->delivery;
        r->message_ms = r->time_ms;
        r->context = r->delivery;
        r->flags |= RECORD_WHOLE;
    }
    if (r->kind == RECORD_RESET) {
        if (r->history == 0) r->history = st->history_epoch + 1;
        if (r->message == 0) r->message = next->delivery;
    }
    if ((r->flags & RECORD_WHOLE) != 0) r->context = r->delivery;
}

void stream_head_advance(struct stream_head *head, const struct record *r)
{
    head->time_ms = u64_max(head->time_ms, r->time_ms);   /* a name's: the least it may be */
    if (record_is_version(r)) {
        ASSERT(r->delivery == head->delivery + 1);
        head->delivery = r->delivery;
    }
    if (record_is_row(r)) head->history = r->history;
    if (r->kind == RECORD_RESET) head->history = 0;
}

static bool put_epoch(struct shard *sh, struct stream *st)
{
    struct record r = {.kind = RECORD_EPOCH, .history = st->delivery_epoch};
    struct stream_item item = {.st = st, .applied = true};
    stamp(sh, st, &r);
    if (!stream_lane_put(sh, st->lane, &r, &item)) return false;
    stream_flies(sh, st, 1);
    st->epoch_owed = false;
    return true;
}

void stream_epoch_settle(struct shard *sh, struct stream *st)
{
    if (!st->epoch_owed || st->state != STREAM_OPEN) return;
    if (st->named || put_name(sh, st, NULL, NULL)) (void)put_epoch(sh, st);
}

void stream_epoch_change(struct shard *sh, struct stream *st)
{
    metric_add(sh->metrics, METRIC_HISTORY_CONTINUITY_LOST_TOTAL, st->home->app, 0, 1);
    st->delivery_epoch = stream_epoch_draw(sh);
    st->epoch_owed = true;
    stream_ids(sh, st);
    if (st->named || put_name(sh, st, NULL, NULL)) (void)put_epoch(sh, st);
}

bool stream_sequence(struct shard *sh, struct stream *st, struct record *r,
                     struct stream_item *item)
{
    ASSERT(st->state == STREAM_OPEN);
    stamp(sh, st, r);
    if (st->history) {
        if (!st->named && !put_name(sh, st, NULL, NULL)) return false;
        if (st->epoch_owed && !put_epoch(sh, st)) return false;
        item->applied = st->relaxed;
        if (!stream_lane_put(sh, st->lane, r, item)) return false;
        stream_flies(sh, st, 1);
        if (item->message != NULL) item->message->flying++;
    }
    stream_head_advance(&st->next, r);
    if (record_ends_messages(r)) st->ending = u64_max(st->ending, r->message);
    if (st->history && !st->relaxed) return true;
    stream_apply(sh, st, r, item);
    return true;
}
