/* Versions of messages: the last of each, and where the whole ones stand. */
#include "shards/stream_parts.h"

#include <stdlib.h>

bool stream_mark_put(struct shard *sh, struct stream_marks *ms, struct stream_mark m)
{
    if (ms->count == ms->room) {
        uint32_t size = (uint32_t)sizeof(m), room = u32_max(2 * ms->room, 64);
        struct stream_mark *fresh = heap_alloc(sh->heap, size * room);
        if (fresh == NULL) return false;
        if (ms->count > 0) memcpy(fresh, ms->list, (size_t)size * ms->count);
        heap_free(sh->heap, ms->list, size * ms->room);
        ms->list = fresh;
        ms->room = room;
    }
    ms->list[ms->count++] = m;
    return true;
}

void stream_marks_free(struct shard *sh, struct stream_marks *ms)
{
    heap_free(sh->heap, ms->list, (uint32_t)sizeof(*ms->list) * ms->room);
}

static int by_message(const void *a, const void *b)
{
    const struct stream_mark *x = a, *y = b;
    if (x->message != y->message) return x->message < y->message ? -1 : 1;
    return (x->delivery > y->delivery) - (x->delivery < y->delivery);
}

void stream_marks_sort(struct stream_marks *ms)
{
    if (ms->count > 0) qsort(ms->list, ms->count, sizeof(*ms->list), by_message);
}

/* Sort, and keep only the last version of each message. */
static void keep_last(struct stream_marks *ms)
{
    uint32_t kept = 0;
    stream_marks_sort(ms);
    for (uint32_t i = 0; i < ms->count; i++) {
        if (i + 1 < ms->count && ms->list[i + 1].message == ms->list[i].message) continue;
        ms->list[kept++] = ms->list[i];
    }
    ms->count = kept;
}

const struct stream_mark *stream_mark_of(const struct stream_marks *ms, uint64_t message)
{
    uint32_t low = 0, high = ms->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ms->list[middle].message < message) low = middle + 1;
        else high = middle;
    }
    return low < ms->count && ms->list[low].message == message ? &ms->list[low] : NULL;
}

bool stream_mark_ring(struct shard *sh, const struct stream *st, uint64_t behind, uint64_t upto,
                      struct stream_marks *ms)
{
    for (uint32_t i = 0; i < st->ring_count; i++) {
        const struct stream_entry *e = stream_ring_at(st, i);
        if (e->serial <= behind || e->serial > upto) continue;
        struct stream_mark m = {.message = e->message != 0 ? e->message : e->delivery,
                                .delivery = e->delivery, .append = e->data_bytes > 0};
        if (!stream_mark_put(sh, ms, m)) return false;
    }
    keep_last(ms);
    return true;
}

bool stream_mark_range(struct shard *sh, const struct store_read *r, uint64_t behind,
                       struct stream_marks *ms)
{
    struct slice packed = slice_of(r->bytes, r->bytes_count);
    struct record record;
    uint32_t bytes;
    while (packed.bytes > 0 && record_peek(packed, &record, &bytes) == RECORD_OK) {
        packed = slice_skip(packed, bytes);
        if (record.delivery <= behind || (record.flags & (RECORD_FOLDED | RECORD_CONTEXT)) != 0) {
            continue;
        }
        struct stream_mark m = {
            .message = record_is_row(&record) ? record.delivery : record.message,
            .delivery = record.delivery, .append = record.kind == RECORD_APPEND,
        };
        if (!stream_mark_put(sh, ms, m)) return false;
    }
    keep_last(ms);
    return true;
}
