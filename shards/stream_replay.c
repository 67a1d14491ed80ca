/* What an attach or a resume is sent: success frame, what was missed, what came meanwhile. All of
 * it is one frame of the shard, so that nothing comes between. */
#include "shards/stream_parts.h"

#include "shards/presence.h"

#include <stdio.h>

bool stream_replay_wholes(struct shard *sh, struct stream_attach *job)
{
    struct stream_marks ms = {0};
    uint64_t behind = job->a->serial;
    bool good = job->range != NULL ? stream_mark_range(sh, job->range, behind, &ms)
                                   : stream_mark_ring(sh, job->st, behind, job->head, &ms);
    for (uint32_t i = 0; good && i < ms.count; i++) {
        const struct stream_mark *m = &ms.list[i];
        if (m->append) good = stream_aggregate_add(sh, job, m->message, m->delivery);
    }
    stream_marks_free(sh, &ms);
    return good;
}

static const struct stream_aggregate *aggregate_of(const struct stream_attach *job,
                                                   uint64_t message, uint64_t delivery)
{
    uint32_t low = 0, high = job->wholes_count;          /* in the order of messages */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (job->aggregates[middle].message < message) low = middle + 1;
        else high = middle;
    }
    if (low == job->wholes_count) return NULL;
    const struct stream_aggregate *g = &job->aggregates[low];
    return g->message == message && g->delivery == delivery ? g : NULL;
}

bool stream_whole(struct shard *sh, const struct stream *st, const struct store_read *read,
                  uint64_t message, uint64_t delivery, struct record *out)
{
    uint32_t bytes;
    if (read != NULL) {
        return record_peek(slice_of(read->bytes, read->bytes_count), out, &bytes) == RECORD_OK;
    }
    const struct stream_message *m = stream_message_find(sh, st, message);
    if (m == NULL || !m->fold.started || m->fold.delivery != delivery) return false;
    fold_record(&m->fold, out);
    return true;
}

/* ---- the success frame ---- */

static bool put_success(struct shard *sh, struct blob *b, struct home *h, struct stream *st,
                        uint64_t serial, uint64_t attach_serial)
{
    char id[V2_UUID_BYTES];
    uint32_t text_bytes = 0, text_room = 0;
    uint8_t *text = presence_data(sh, h, st != NULL && st->history, attach_serial, &text_bytes,
                                  &text_room);
    if (text == NULL) return false;
    v2_uuid_write(id, rng_next(&sh->re.rng), rng_next(&sh->re.rng));
    struct v2_out o = {
        .event_json = slice_str("\"sockudo_internal:subscription_succeeded\""),
        .channel = home_name(h), .message_id = slice_str(id),
    };
    if (st != NULL && st->policy->recovery) {
        o.stream_id = slice_str(stream_id(st));
        o.serial = serial;
    }
    struct slice data = slice_of(text, text_bytes);
    uint8_t *at = stream_blob_room(b, v2_event_text_bytes(&o, data));
    if (at != NULL) b->bytes += v2_event_text_write(&o, data, at);
    heap_free(sh->heap, text, text_room);
    return at != NULL;
}

/* ---- frames of the ring ---- */

static struct slice v2_bytes(const struct stream_entry *e)
{
    return slice_of(e->frame->bytes, e->frame->bytes_count);
}

static bool put_whole_entry(struct blob *b, const struct stream_entry *e,
                            const struct record *whole)
{
    struct slice payload = pusher_payload(v2_bytes(e));
    uint8_t *at = stream_blob_room(b, stream_frame_splice_bytes(payload, e->data_bytes,
                                                                whole->data));
    if (at == NULL) return false;
    b->bytes += stream_frame_splice(payload, e->data_at, e->data_bytes, whole->data, at);
    return true;
}

static void moved(struct attach *a, uint64_t serial, struct slice message_id)
{
    a->position_moved = true;
    a->position_serial = serial;
    a->position_id[0] = '\0';
    if (message_id.bytes >= sizeof(a->position_id)) return;
    memcpy(a->position_id, message_id.ptr, message_id.bytes);
    a->position_id[message_id.bytes] = '\0';
}

bool stream_replay_was_rewound(const struct stream_attach *job, uint64_t message)
{
    return job->replay && message >= job->a->rewound_from && message <= job->a->rewound_upto;
}

static uint64_t message_of(const struct record *r)
{
    return record_is_row(r) ? r->delivery : r->message;
}

static bool put_hot(struct shard *sh, struct blob *b, struct stream_attach *job)
{
    struct stream *st = job->st;
    struct attach *a = job->a;
    for (uint32_t i = 0; i < st->ring_count; i++) {
        const struct stream_entry *e = stream_ring_at(st, i);
        if (e->serial <= a->serial || e->serial > job->head) continue;
        moved(a, e->serial, slice_str(e->message_id));
        if (stream_replay_was_rewound(job, e->message != 0 ? e->message : e->delivery)) continue;
        if (a->full && e->data_bytes > 0) {
            struct record whole;
            const struct stream_aggregate *g = aggregate_of(job, e->message, e->delivery);
            if (g == NULL) continue;     /* a newer version follows */
            if (!stream_whole(sh, st, g->read, e->message, e->delivery, &whole)) return false;
            if (!put_whole_entry(b, e, &whole)) return false;
        } else {
            struct slice bytes = v2_bytes(e);
            stream_blob_put(b, bytes.ptr, bytes.bytes);
        }
        a->replayed++;
    }
    return !b->failed;
}

/* What was published while the lane was read. */
static bool put_live(struct shard *sh, struct blob *b, struct stream_attach *job)
{
    struct stream *st = job->st;
    struct stream_marks ms = {0};
    uint64_t behind = job->head, newest = stream_serial(st, &st->now);
    bool good = !job->a->full || stream_mark_ring(sh, st, behind, newest, &ms);
    for (uint32_t i = 0; good && i < st->ring_count; i++) {
        const struct stream_entry *e = stream_ring_at(st, i);
        struct record whole;
        if (e->delivery <= job->delivery) continue;
        if (job->a->full && e->data_bytes > 0) {
            if (stream_mark_of(&ms, e->message)->delivery != e->delivery) continue;
            good = stream_whole(sh, st, NULL, e->message, e->delivery, &whole) &&
                   put_whole_entry(b, e, &whole);
        } else {
            struct slice bytes = v2_bytes(e);
            stream_blob_put(b, bytes.ptr, bytes.bytes);
        }
        job->live++;
        if (!job->a->recovered) continue;
        job->a->replayed++;              /* before the aggregate: the position is behind it */
        moved(job->a, e->serial, slice_str(e->message_id));
    }
    stream_marks_free(sh, &ms);
    return good && !b->failed;
}

/* ---- frames of the lane ---- */

static bool mark_contexts(struct shard *sh, struct slice all, struct stream_marks *ms)
{
    struct slice packed = all;
    struct record record;
    uint32_t bytes;
    while (packed.bytes > 0 && record_peek(packed, &record, &bytes) == RECORD_OK) {
        struct stream_mark m = {.message = record.delivery, .at = all.bytes - packed.bytes};
        packed = slice_skip(packed, bytes);
        if ((record.flags & RECORD_WHOLE) == 0) continue;
        if (!stream_mark_put(sh, ms, m)) return false;
    }
    stream_marks_sort(ms);
    return true;
}

static bool context_of(const struct stream_marks *ms, struct slice all, uint64_t delivery,
                       struct record *out)
{
    uint32_t low = 0, high = ms->count, bytes;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ms->list[middle].message < delivery) low = middle + 1;
        else high = middle;
    }
    if (low == ms->count || ms->list[low].message != delivery) return false;
    return record_peek(slice_skip(all, ms->list[low].at), out, &bytes) == RECORD_OK;
}

static bool put_version(struct shard *sh, struct blob *b, struct stream_attach *job,
                        const struct record *r, const struct record *context)
{
    struct record whole;
    if (r->kind == RECORD_APPEND && job->a->full) {
        const struct stream_aggregate *g = aggregate_of(job, r->message, r->delivery);
        if (g == NULL) return true;      /* a newer version follows */
        if (!stream_whole(sh, job->st, g->read, r->message, r->delivery, &whole)) return false;
        r = &whole;
    }
    job->a->replayed++;
    return stream_blob_record(sh, job->st, b, r, context);
}

/* With its fragment, unless a client would take that for the whole text. */
static bool put_append(struct shard *sh, struct blob *b, struct stream_attach *job,
                       struct stream_bases *bs, struct stream_base *base, const struct record *r,
                       const struct record *context)
{
    const struct stream_aggregate *g = aggregate_of(job, r->message, r->delivery);
    struct record shown = *r, whole;
    if (g != NULL) {
        if (!stream_whole(sh, job->st, g->read, r->message, r->delivery, &whole)) return false;
        if (whole.data.bytes < r->data.bytes) return false;
        stream_base_before(base, whole.data, r->data);
    }
    bool joined = stream_base_starts(bs, base, r->data);
    if (joined) {
        shown.data = stream_base_join(sh, bs, base, r->data);
        shown.flags |= RECORD_FOLDED;
        if (shown.data.ptr == NULL) return false;
    }
    stream_base_add(bs, base, r->data);
    bool good = put_version(sh, b, job, &shown, context);
    if (joined) heap_free(sh->heap, (void *)(uintptr_t)shown.data.ptr, shown.data.bytes);
    return good;
}

static bool put_range(struct shard *sh, struct blob *b, struct stream_attach *job)
{
    struct stream_bases bs;
    struct slice all = slice_of(job->range->bytes, job->range->bytes_count), packed = all;
    bool rows = job->range->kind == STORE_ROWS;
    struct stream_marks ms = {0};
    struct record r, context;
    uint32_t bytes;
    bool good = stream_bases_open(sh, job, &bs) && mark_contexts(sh, all, &ms);
    while (good && packed.bytes > 0 && record_peek(packed, &r, &bytes) == RECORD_OK) {
        packed = slice_skip(packed, bytes);
        uint64_t serial = rows ? r.history : r.delivery;
        if (serial <= job->a->serial) continue;
        if ((r.flags & (RECORD_FOLDED | RECORD_CONTEXT)) != 0) continue;
        char id[V2_SERIAL_BYTES];
        if (record_is_row(&r)) {
            moved(job->a, serial, r.message_id);
        } else {
            v2_serial_write(id, r.time_ms, job->st->node, r.delivery);
            moved(job->a, serial, slice_str(id));
        }
        if (stream_replay_was_rewound(job, message_of(&r))) continue;
        bool has = r.kind == RECORD_APPEND && (r.flags & RECORD_WHOLE) == 0 &&
                   context_of(&ms, all, r.context, &context);
        struct stream_base *base = stream_base_of(&bs, &r);
        if (base != NULL && r.kind == RECORD_APPEND) {
            good = put_append(sh, b, job, &bs, base, &r, has ? &context : NULL);
            continue;
        }
        if (base != NULL) stream_base_set(base, r.data);
        good = put_version(sh, b, job, &r, has ? &context : NULL);
    }
    stream_marks_free(sh, &ms);
    stream_bases_free(sh, &bs);
    return good && !b->failed;
}

/* What a subscription that stands asks for again must not be older than what it was sent while the
 * lane was read. Who was changed meanwhile is in memory. */
static void bring_up(struct shard *sh, const struct stream_attach *job, struct record *r)
{
    if (job->replay || (job->letter.arg[1] & HOME_AGAIN) == 0) return;
    const struct stream_message *m = stream_message_find(sh, job->st, message_of(r));
    if (m != NULL && m->fold.started && m->fold.delivery > r->delivery) fold_record(&m->fold, r);
}

/* Rows stand as they were asked for, newest first; they are sent oldest first. */
static bool put_rewound(struct shard *sh, struct blob *b, struct stream_attach *job)
{
    const struct store_read *read = job->rewind;
    struct slice all = slice_of(read->bytes, read->bytes_count), packed = all;
    struct stream_marks rows = {0};
    struct record r;
    uint32_t bytes;
    bool good = true;
    while (good && packed.bytes > 0 && record_peek(packed, &r, &bytes) == RECORD_OK) {
        uint32_t at = all.bytes - packed.bytes;
        packed = slice_skip(packed, bytes);
        if ((r.flags & RECORD_FOLDED) != 0) {    /* what has become of the row before it */
            if (rows.count > 0) rows.list[rows.count - 1].at = at;
        } else {
            good = stream_mark_put(sh, &rows, (struct stream_mark){.at = at});
        }
    }
    for (uint32_t i = 0; good && i < rows.count; i++) {
        uint32_t index = read->newest_first ? rows.count - 1 - i : i;
        good = record_peek(slice_skip(all, rows.list[index].at), &r, &bytes) == RECORD_OK;
        if (!good) break;
        bring_up(sh, job, &r);
        good = stream_blob_record(sh, job->st, b, &r, NULL);
        job->a->rewound_upto = message_of(&r);
        if (i == 0) job->a->rewound_from = job->a->rewound_upto;
    }
    job->historical = rows.count;
    stream_marks_free(sh, &rows);
    return good;
}

/* Says where live frames begin: clients take the last serial that they saw for their position, and
 * the last message of a rewind may be older than what has become of one before it. */
static bool put_complete(struct shard *sh, struct blob *b, const struct stream_attach *job)
{
    const struct attach *a = job->a;
    const struct store_read *r = job->rewind;
    bool by_count = a->rewind == V2_REWIND_COUNT, by_limit = false, by_retention = false;
    if (r != NULL) {
        by_limit = r->more || (by_count && a->rewind_amount > sh->conf->history_max_page_size);
        by_retention = (r->head.rows_first > 1 &&
                        (by_count || r->head.rows_first_ms > r->time_from_ms)) ||
                       (store_rows_gone(&r->head) &&
                        (by_count || r->head.time_ms >= r->time_from_ms));
    }
    if (job->st != NULL && job->st->degraded) by_retention = true;   /* never as if it were whole */
    char text[256], id[V2_UUID_BYTES];
    int n = snprintf(text, sizeof(text),
                     "{\"historical_count\":%u,\"live_count\":%u,\"complete\":%s,"
                     "\"truncated_by_retention\":%s,\"truncated_by_limit\":%s}",
                     job->historical, job->live, by_limit || by_retention ? "false" : "true",
                     by_retention ? "true" : "false", by_limit ? "true" : "false");
    v2_uuid_write(id, rng_next(&sh->re.rng), rng_next(&sh->re.rng));
    struct v2_out o = {
        .event_json = slice_str("\"sockudo:rewind_complete\""), .channel = home_name(job->home),
        .data_json = slice_of(text, (uint32_t)n), .message_id = slice_str(id),
    };
    if (job->st != NULL && job->st->policy->recovery) {
        o.stream_id = slice_str(stream_id(job->st));
        o.serial = stream_serial(job->st, &job->st->now);
    }
    return stream_blob_event(b, &o);
}

/* ---- all of it ---- */

static bool put_missed(struct shard *sh, struct blob *b, struct stream_attach *job)
{
    if (job->a->recovered) {
        bool good = job->hot ? put_hot(sh, b, job) : put_range(sh, b, job);
        return good && stream_mend_put(sh, b, job);
    }
    return job->rewind == NULL || put_rewound(sh, b, job);
}

struct frame *stream_replay_frame(struct shard *sh, struct stream_attach *job)
{
    struct blob b = {.heap = sh->heap};
    struct attach *a = job->a;
    struct stream *st = job->st;
    bool again = !job->replay && (job->letter.arg[1] & HOME_AGAIN) != 0;
    bool good = true;
    a->replayed = 0;
    uint64_t head = job->head;
    if (!job->replay && st != NULL) a->shown = st->now.delivery;
    if (again && st != NULL) head = stream_serial(st, &st->now);   /* all that has gone out live */
    if (!job->replay) {
        good = put_success(sh, &b, job->home, st, a->recovered ? a->serial : head,
                           job->attach_serial);
    }
    if (good && st != NULL) good = put_missed(sh, &b, job);
    if (good && job->gated && !again && !job->replay) good = put_live(sh, &b, job);
    if (good && !job->replay && a->rewind != V2_REWIND_NONE) good = put_complete(sh, &b, job);
    if (!good) b.failed = true;
    return stream_blob_frame(sh, &b);
}
