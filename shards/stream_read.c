/* Cold reads that streams ask of their lane: so many at a time, and whose answers are still to be
 * believed when they come. */
#include "shards/stream_parts.h"

struct store_read *stream_read_make(struct shard *sh, struct stream *st, uint8_t kind,
                                    stream_read_fn done, void *ctx)
{
    struct stream_read *q = heap_zalloc(sh->heap, sizeof(*q));
    if (q == NULL) return NULL;
    q->all_next = sh->streams->reads_all;
    q->all_link = &sh->streams->reads_all;
    if (q->all_next != NULL) q->all_next->all_link = &q->all_next;
    sh->streams->reads_all = q;
    q->st = st;
    q->done = done;
    q->ctx = ctx;
    q->r.kind = kind;
    q->r.shard = sh->id;
    q->r.now_ms = sh->re.wall_ms;
    q->r.rows_upto = q->r.time_upto_ms = UINT64_MAX;
    if (st == NULL) return &q->r;
    st->reads++;
    q->r.lane = st->lane;
    q->r.app_id = sh->server->app_ids[st->home->app];
    q->r.channel = st->stored_name;
    q->r.chan = st->chan;
    q->r.upto = st->now.delivery;
    q->epoch = st->delivery_epoch;
    return &q->r;
}

void stream_read_post_now(struct shard *sh, struct store_read *r)
{
    struct letter l = {.kind = MAIL_READ, .payload = r};
    stream_lane_post(sh, r->lane);       /* a read sees what was posted before it */
    shard_answer(sh, store_post(sh->server->store, r->lane), &l);
}

void stream_read_end(struct shard *sh, struct store_read *r)
{
    struct stream_read *q = CONTAINER_OF(r, struct stream_read, r);
    store_read_free(r);
    *q->all_link = q->all_next;
    if (q->all_next != NULL) q->all_next->all_link = q->all_link;
    if (q->st != NULL) q->st->reads--;
    stream_turn_end(sh, &q->turn);
    heap_free(sh->heap, q, sizeof(*q));
}

void stream_on_read_done(struct shard *sh, const struct letter *l)
{
    struct store_read *r = l->payload;
    struct stream_read *q = CONTAINER_OF(r, struct stream_read, r);
    /* What it asked for was shown (relaxed) and has been taken back, or will be: the reader may be
     * quicker than the news of the commit. Nothing stored is damaged. */
    struct stream *st = q->st;
    bool unsure = st != NULL && r->kind != STORE_OPEN && (q->epoch != st->delivery_epoch ||
                  (st->relaxed && r->upto > st->stored.delivery));
    if (unsure && r->status == STORE_READ_IO) r->status = STORE_READ_MEMORY;
    if (st != NULL) st->reads++;         /* holds the stream */
    stream_read_is_back(sh, q);
    q->done(sh, st, r, q->ctx);
    if (st == NULL) return;
    st->reads--;
    stream_rest(sh, st);
}
