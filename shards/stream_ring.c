/* The hot ring: the newest frames of a channel, for those who come back soon. What a bound takes
 * from it is read from the lane, where there is one. */
#include "shards/stream_parts.h"

enum { RING_ROOM_MIN = 8, RELIEF_STEPS = 64 };

static void drop_oldest(struct shard *sh, struct stream *st)
{
    struct stream_entry *e = stream_ring_at(st, 0);
    st->ring_bytes -= e->bytes;
    sh->streams->rings_bytes -= e->bytes;
    frame_put(sh, &e->frame);
    st->ring_first = (st->ring_first + 1) & (st->ring_room - 1);
    st->ring_count--;
}

void stream_ring_clear(struct shard *sh, struct stream *st)
{
    while (st->ring_count > 0) drop_oldest(sh, st);
}

static bool is_old(const struct shard *sh, const struct stream *st, const struct stream_entry *e)
{
    return sh->re.now_ms - e->at_ms >= st->policy->recovery_ttl_ms;
}

/* An attach that reads needs everything behind its frozen head, within the gate's bounds. */
static bool is_gated(const struct stream *st, const struct stream_entry *e)
{
    return st->gates > 0 && e->delivery > st->gate_from;
}

void stream_ring_trim(struct shard *sh, struct stream *st)
{
    uint32_t most = st->policy->recovery ? st->policy->recovery_max : 0;
    while (st->ring_count > 0) {
        const struct stream_entry *e = stream_ring_at(st, 0);
        if (is_gated(st, e)) {
            if (st->ring_count <= STREAM_GATE_FRAMES && st->ring_bytes <= STREAM_GATE_BYTES) return;
            metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_ATTACH_GATE, 1);
        } else if (st->ring_count <= most && !is_old(sh, st, e)) {
            if (st->ring_bytes <= sh->conf->history_cold_replay_max_bytes) return;
            metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_RING_BYTES, 1);
        }
        drop_oldest(sh, st);
    }
    if (st->ring_room == 0 || st->gates > 0) return;
    heap_free(sh->heap, st->ring, (uint32_t)sizeof(*st->ring) * st->ring_room);
    st->ring = NULL;
    st->ring_room = st->ring_first = 0;
}

static bool grow(struct shard *sh, struct stream *st)
{
    uint32_t size = (uint32_t)sizeof(*st->ring), room = u32_max(2 * st->ring_room, RING_ROOM_MIN);
    struct stream_entry *fresh = heap_alloc(sh->heap, size * room);
    if (fresh == NULL) return false;
    for (uint32_t i = 0; i < st->ring_count; i++) fresh[i] = *stream_ring_at(st, i);
    heap_free(sh->heap, st->ring, size * st->ring_room);
    st->ring = fresh;
    st->ring_room = room;
    st->ring_first = 0;
    return true;
}

void stream_ring_relieve(struct shard *sh, struct stream *st)
{
    if (st->ring_count == 0 || st->gates > 0) return;
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_RING_BYTES, 1);
    stream_ring_clear(sh, st);
}

/* All rings together are past their bound: those go that were not used since the hand passed them,
 * and if it finds none soon, this one. */
static void relieve_all(struct shard *sh, struct stream *st)
{
    struct stream_book *b = sh->streams;
    for (uint32_t i = 0; i < RELIEF_STEPS && b->rings_bytes > b->rings_bytes_max; i++) {
        struct stream *at = b->hand;
        b->hand = at->newer;
        if (at == st) continue;
        if (at->used) at->used = false;
        else stream_ring_relieve(sh, at);
    }
    if (b->rings_bytes > b->rings_bytes_max) stream_ring_relieve(sh, st);
}

void stream_ring_put(struct shard *sh, struct stream *st, const struct stream_entry *e)
{
    struct stream_book *b = sh->streams;
    if (st->ring_count == st->ring_room && !grow(sh, st)) {
        stream_ring_clear(sh, st);       /* a ring with a hole would lie */
        return;
    }
    if (st->ring_count > 0) {
        const struct stream_entry *last = stream_ring_at(st, st->ring_count - 1);
        if (last->delivery + 1 != e->delivery) stream_ring_clear(sh, st);
    }
    struct frame *f = frame_keep_v2(sh, e->frame);
    if (f == NULL) {
        stream_ring_clear(sh, st);
        return;
    }
    st->ring_count++;
    struct stream_entry *kept = stream_ring_at(st, st->ring_count - 1);
    *kept = *e;
    kept->frame = f;
    kept->at_ms = sh->re.now_ms;
    kept->bytes = (uint32_t)sizeof(*f) + f->bytes_room;
    st->ring_bytes += kept->bytes;
    b->rings_bytes += kept->bytes;
    stream_ring_trim(sh, st);
    if (b->rings_bytes > b->rings_bytes_max) relieve_all(sh, st);
}

bool stream_ring_covers(const struct shard *sh, const struct stream *st, uint64_t delivery,
                        bool gated)
{
    if (delivery >= st->now.delivery) return true;
    if (st->ring_count == 0) return false;
    const struct stream_entry *last = stream_ring_at(st, st->ring_count - 1);
    const struct stream_entry *first = stream_ring_at(st, 0);
    if (last->delivery != st->now.delivery || first->delivery > delivery + 1) return false;
    const struct stream_entry *e = stream_ring_at(st, (uint32_t)(delivery + 1 - first->delivery));
    ASSERT(e->delivery == delivery + 1);
    return gated || !is_old(sh, st, e);
}

uint64_t stream_ring_oldest(const struct shard *sh, const struct stream *st)
{
    uint32_t low = 0, high = st->ring_count;               /* the older ones stand first */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (is_old(sh, st, stream_ring_at(st, middle))) low = middle + 1;
        else high = middle;
    }
    return low < st->ring_count ? stream_ring_at(st, low)->serial : 0;
}
