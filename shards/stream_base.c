/* The texts that appends are added to, while a cold replay is written.
 *
 * A fragment that begins with the whole text so far is sent as an update with what has become of
 * it: a client would take it for the whole text (settled 37). A live append knows that text. Here
 * it is found again: from the create or the change that the replay itself holds, else from the
 * message as of its first append in it, which is read only when some fragment begins as the text
 * does. */
#include "shards/stream_parts.h"

#include <stdlib.h>

/* A fragment; next: 1 + index, 0: none. */
struct stream_piece { struct slice text; uint32_t next; };

static struct slice inner(struct slice json)
{
    if (json.bytes < 2 || json.ptr[0] != '"') return slice_of(NULL, 0);
    return slice_of(json.ptr + 1, json.bytes - 2);
}

static uint64_t message_of(const struct record *r)
{
    return r->kind == RECORD_CREATE ? r->delivery : r->message;
}

static bool is_replayed(const struct record *r, uint64_t behind)
{
    return (r->flags & (RECORD_FOLDED | RECORD_CONTEXT)) == 0 && r->delivery > behind;
}

/* ---- the messages ---- */

static int by_message(const void *a, const void *b)
{
    const struct stream_base *x = a, *y = b;
    return (x->message > y->message) - (x->message < y->message);
}

struct stream_base *stream_base_of(const struct stream_bases *bs, const struct record *r)
{
    struct stream_base key = {.message = message_of(r)};
    if (bs->count == 0) return NULL;
    return bsearch(&key, bs->list, bs->count, sizeof(key), by_message);
}

static bool room(struct shard *sh, struct stream_bases *bs)
{
    uint32_t size = (uint32_t)sizeof(*bs->list), more = u32_max(2 * bs->room, 16);
    if (bs->count < bs->room) return true;
    struct stream_base *fresh = heap_alloc(sh->heap, size * more);
    if (fresh == NULL) return false;
    if (bs->count > 0) memcpy(fresh, bs->list, (size_t)size * bs->count);
    heap_free(sh->heap, bs->list, size * bs->room);
    bs->list = fresh;
    bs->room = more;
    return true;
}

/* Those that the replay holds appends of. */
static bool collect(struct shard *sh, const struct store_read *read, uint64_t behind,
                    struct stream_bases *bs)
{
    struct slice packed = slice_of(read->bytes, read->bytes_count);
    struct record r;
    uint32_t bytes, kept = 0;
    while (packed.bytes > 0 && record_peek(packed, &r, &bytes) == RECORD_OK) {
        packed = slice_skip(packed, bytes);
        if (r.kind != RECORD_APPEND || !is_replayed(&r, behind)) continue;
        if (!room(sh, bs)) return false;
        bs->list[bs->count++] = (struct stream_base){.message = r.message};
    }
    bs->pieces_room = bs->count;
    if (bs->count == 0) return true;
    qsort(bs->list, bs->count, sizeof(*bs->list), by_message);
    for (uint32_t i = 0; i < bs->count; i++) {
        if (kept == 0 || bs->list[kept - 1].message != bs->list[i].message) {
            bs->list[kept++] = bs->list[i];
        }
    }
    bs->count = kept;
    return true;
}

bool stream_bases_open(struct shard *sh, const struct stream_attach *job, struct stream_bases *bs)
{
    *bs = (struct stream_bases){.count = 0};
    if (job->a->full || job->range->kind == STORE_ROWS) return true;
    if (!collect(sh, job->range, job->a->serial, bs)) return false;
    if (bs->count == 0) return true;
    bs->pieces = heap_alloc(sh->heap, (uint32_t)sizeof(*bs->pieces) * bs->pieces_room);
    return bs->pieces != NULL;
}

void stream_bases_free(struct shard *sh, struct stream_bases *bs)
{
    heap_free(sh->heap, bs->list, (uint32_t)sizeof(*bs->list) * bs->room);
    if (bs->pieces == NULL) return;
    heap_free(sh->heap, bs->pieces, (uint32_t)sizeof(*bs->pieces) * bs->pieces_room);
}

/* ---- what must be read ---- */

bool stream_aggregate_add(struct shard *sh, struct stream_attach *job, uint64_t message,
                          uint64_t delivery)
{
    uint32_t size = (uint32_t)sizeof(*job->aggregates);
    if (job->aggregates_count == job->aggregates_room) {
        uint32_t room = u32_max(2 * job->aggregates_room, 16);
        struct stream_aggregate *fresh = heap_alloc(sh->heap, size * room);
        if (fresh == NULL) return false;
        if (job->aggregates_count > 0) {
            memcpy(fresh, job->aggregates, (size_t)size * job->aggregates_count);
        }
        heap_free(sh->heap, job->aggregates, size * job->aggregates_room);
        job->aggregates = fresh;
        job->aggregates_room = room;
    }
    job->aggregates[job->aggregates_count++] = (struct stream_aggregate){
        .message = message, .delivery = delivery,
    };
    return true;
}

/* Of the text before the replay only the beginning may be known: an append's context. */
static void judge(struct stream_base *base, const struct record *r)
{
    struct slice start = inner(base->start);
    if (base->known) return;
    if (base->append == 0) base->append = r->delivery;
    if (start.bytes == 0 || stream_frame_starts(inner(r->data), start)) base->doubtful = true;
}

bool stream_replay_bases(struct shard *sh, struct stream_attach *job)
{
    struct stream_bases bs;
    struct record r;
    uint32_t bytes;
    struct slice packed = slice_of(job->range->bytes, job->range->bytes_count);
    bool good = stream_bases_open(sh, job, &bs);
    while (bs.count > 0 && packed.bytes > 0 && record_peek(packed, &r, &bytes) == RECORD_OK) {
        packed = slice_skip(packed, bytes);
        struct stream_base *base = stream_base_of(&bs, &r);
        bool replayed = is_replayed(&r, job->a->serial);
        if (base == NULL) continue;
        if (r.kind == RECORD_APPEND && replayed) judge(base, &r);
        else if (replayed) base->known = true;
        else if (r.kind != RECORD_APPEND) base->start = r.data;
    }
    for (uint32_t i = 0; good && i < bs.count; i++) {
        const struct stream_base *base = &bs.list[i];
        if (base->doubtful) good = stream_aggregate_add(sh, job, base->message, base->append);
    }
    stream_bases_free(sh, &bs);
    return good;
}

/* ---- the running text ---- */

void stream_base_set(struct stream_base *base, struct slice data)
{
    base->text = inner(data);
    base->text_bytes = base->text.bytes;
    base->first = base->last = 0;
    base->known = true;
}

void stream_base_before(struct stream_base *base, struct slice whole, struct slice fragment)
{
    stream_base_set(base, whole);
    base->text.bytes = base->text_bytes = whole.bytes - fragment.bytes;
}

void stream_base_add(struct stream_bases *bs, struct stream_base *base, struct slice fragment)
{
    ASSERT(bs->pieces_count < bs->pieces_room);
    bs->pieces[bs->pieces_count++] = (struct stream_piece){.text = inner(fragment)};
    if (base->last == 0) base->first = bs->pieces_count;
    else bs->pieces[base->last - 1].next = bs->pieces_count;
    base->last = bs->pieces_count;
    base->text_bytes += inner(fragment).bytes;
}

bool stream_base_starts(const struct stream_bases *bs, const struct stream_base *base,
                        struct slice fragment)
{
    struct slice rest = inner(fragment);
    if (!base->known || base->text_bytes == 0) return false;
    if (!stream_frame_skip(&rest, base->text)) return false;
    for (uint32_t i = base->first; i != 0; i = bs->pieces[i - 1].next) {
        if (!stream_frame_skip(&rest, bs->pieces[i - 1].text)) return false;
    }
    return true;
}

static uint8_t *put(uint8_t *at, struct slice text)
{
    if (text.bytes > 0) memcpy(at, text.ptr, text.bytes);
    return at + text.bytes;
}

struct slice stream_base_join(struct shard *sh, const struct stream_bases *bs,
                              const struct stream_base *base, struct slice fragment)
{
    uint32_t bytes = (uint32_t)base->text_bytes + fragment.bytes;
    uint8_t *out = heap_alloc(sh->heap, bytes), *at = out;
    if (out == NULL) return slice_of(NULL, 0);
    *at++ = '"';
    at = put(at, base->text);
    for (uint32_t i = base->first; i != 0; i = bs->pieces[i - 1].next) {
        at = put(at, bs->pieces[i - 1].text);
    }
    at = put(at, inner(fragment));
    *at++ = '"';
    ASSERT((uint32_t)(at - out) == bytes);
    return slice_of(out, bytes);
}
