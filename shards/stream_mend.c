/* What a replay that comes behind live frames must add.
 *
 * A resume behind the subscribe replays what lies before the attach, while live frames may have
 * been sent since (settled 33). For messages that stand in one of the two only, that order does no
 * harm. Of one that stands in both a client would have the newer fragments before the older ones,
 * or an older text for the newer: it takes versions as they come. So each of those is shown once
 * more behind the replay, whole, as of the last frame that the socket was sent before its gate. The
 * frame has no position, which is the replay's, and a message_id of its own: clients drop one that
 * they have seen. */
#include "shards/stream_parts.h"

/* Both sides are known as long as the ring has the younger one; else every replayed message that
 * may have changed is read, and put_mend sees whether it has. */
bool stream_mend_find(struct shard *sh, struct stream_attach *job)
{
    struct stream *st = job->st;
    struct attach *a = job->a;
    if (!job->replay || !st->versioned || a->shown <= job->head || a->serial >= job->head) {
        return true;
    }
    struct stream_marks replayed = {0}, live = {0};
    bool known = stream_ring_covers(sh, st, job->head, true);
    bool good = job->range != NULL
                    ? stream_mark_range(sh, job->range, a->serial, &replayed)
                    : stream_mark_ring(sh, st, a->serial, job->head, &replayed);
    if (good && known) good = stream_mark_ring(sh, st, job->head, a->shown, &live);
    for (uint32_t i = 0; good && i < replayed.count; i++) {
        uint64_t message = replayed.list[i].message, delivery = a->shown;
        const struct stream_mark *m = stream_mark_of(&live, message);
        const struct fold *f = known ? NULL : stream_fold(sh, st, message);
        if (known ? m == NULL : f != NULL && f->delivery <= job->head) continue;
        if (stream_replay_was_rewound(job, message)) continue;
        if (m != NULL) delivery = m->delivery;
        else if (f != NULL) delivery = u64_min(delivery, f->delivery);
        good = stream_aggregate_add(sh, job, message, delivery);
    }
    stream_marks_free(sh, &replayed);
    stream_marks_free(sh, &live);
    return good;
}

static bool put_mend(struct shard *sh, struct blob *b, const struct stream_attach *job,
                     const struct stream_aggregate *g)
{
    struct stream_texts texts;
    struct record whole;
    struct v2_out o;
    char id[V2_UUID_BYTES];
    if (!stream_whole(sh, job->st, g->read, g->message, g->delivery, &whole)) return false;
    if (whole.delivery <= job->head) return true;    /* it has not changed since */
    stream_frame_cold(sh, job->st, &whole, NULL, &texts, &o);
    v2_uuid_write(id, rng_next(&sh->re.rng), rng_next(&sh->re.rng));
    o.message_id = slice_str(id);
    o.stream_id = slice_of(NULL, 0);
    return stream_blob_event(b, &o);
}

bool stream_mend_put(struct shard *sh, struct blob *b, const struct stream_attach *job)
{
    bool good = true;
    for (uint32_t i = job->wholes_count; good && i < job->aggregates_count; i++) {
        good = put_mend(sh, b, job, &job->aggregates[i]);
    }
    return good;
}
