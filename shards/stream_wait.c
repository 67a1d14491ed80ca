/* Letters and records that wait for a stream: for its load, for a serial to be committed, for a
 * message to be read. They are handled again in the order in which they came. */
#include "shards/stream_parts.h"

static struct stream_wait *wait_make(struct shard *sh, struct stream *st, uint32_t bytes)
{
    struct stream_wait *w = heap_zalloc(sh->heap, (uint32_t)sizeof(*w) + bytes);
    if (w == NULL) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
        return NULL;
    }
    w->bytes = bytes;
    if (st->waits_last == NULL) st->waits_first = w;
    else st->waits_last->next = w;
    st->waits_last = w;
    return w;
}

bool stream_wait_for(struct shard *sh, struct stream *st, const struct letter *l,
                     uint64_t delivery)
{
    struct stream_wait *w = wait_make(sh, st, 0);
    if (w == NULL) return false;
    w->letter = *l;
    w->delivery = delivery;
    return true;
}

bool stream_wait_message(struct shard *sh, struct stream *st, const struct letter *l,
                         uint64_t message)
{
    struct stream_wait *w = wait_make(sh, st, 0);
    if (w == NULL) return false;
    w->letter = *l;
    w->message = message;
    return true;
}

/* A record for a stream that loads: a copy is sequenced afterwards. */
static bool wait_record(struct shard *sh, struct stream *st, const struct record *r,
                        stream_done done, void *ctx)
{
    struct stream_wait *w = wait_make(sh, st, record_bytes(r));
    if (w == NULL) return false;
    w->what = STREAM_WAIT_RECORD;
    w->done = done;
    w->ctx = ctx;
    record_write(r, w->packed);
    return true;
}

/* False: refused. */
static bool append_waited(struct shard *sh, struct stream *st, const struct stream_wait *w,
                          bool refused)
{
    struct record r;
    uint32_t bytes;
    enum record_result e = record_peek(slice_of(w->packed, w->bytes), &r, &bytes);
    ASSERT(e == RECORD_OK);
    if (!refused && st->state == STREAM_OPEN && stream_append(sh, st, &r, w->done, w->ctx)) {
        return true;
    }
    if (w->done != NULL) w->done(sh, st, w->ctx, &r, false);
    return false;
}

static bool is_ready(struct shard *sh, struct stream *st, const struct stream_wait *w)
{
    if (st->state == STREAM_LOADING) return false;
    if (st->state == STREAM_FAILED) return true;
    if (st->now.delivery < w->delivery) return false;
    const struct stream_message *m = NULL;
    if (w->message != 0) m = stream_message_find(sh, st, w->message);
    return m == NULL || !m->loading;
}

/* In the order in which they came; who waits again stays in it. Behind a record that is refused
 * all are: a younger one that is taken would stand before it. */
static void run_waits(struct shard *sh, struct stream *st)
{
    struct stream_wait *list = st->waits_first;
    bool refused = false;
    st->waits_first = st->waits_last = NULL;
    st->reads++;                         /* holds the stream */
    sh->streams->again = true;
    while (list != NULL) {
        struct stream_wait *w = list;
        list = w->next;
        if (!is_ready(sh, st, w)) {
            w->next = NULL;
            if (st->waits_last == NULL) st->waits_first = w;
            else st->waits_last->next = w;
            st->waits_last = w;
            continue;
        }
        if (w->what != STREAM_WAIT_RECORD) shard_handle(sh, &w->letter);
        else if (!append_waited(sh, st, w, refused)) refused = true;
        heap_free(sh->heap, w, (uint32_t)sizeof(*w) + w->bytes);
    }
    sh->streams->again = false;
    st->reads--;
}

void stream_wake(struct shard *sh, struct stream *st)
{
    struct stream_book *b = sh->streams;
    if (st->woken) return;
    st->woken = true;
    st->woken_next = NULL;
    if (b->woken_last == NULL) b->woken_first = st;
    else b->woken_last->woken_next = st;
    b->woken_last = st;
}

void stream_run_woken(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    while (b->woken_first != NULL) {
        struct stream *st = b->woken_first;
        b->woken_first = st->woken_next;
        if (b->woken_first == NULL) b->woken_last = NULL;
        st->woken = false;
        run_waits(sh, st);
        stream_rest(sh, st);
    }
}

bool stream_append(struct shard *sh, struct stream *st, struct record *r, stream_done done,
                   void *ctx)
{
    bool behind = st->woken && st->waits_first != NULL;   /* of those whose turn comes at once */
    if (st->state == STREAM_LOADING || behind) return wait_record(sh, st, r, done, ctx);
    if (st->state != STREAM_OPEN) return false;
    struct stream_item item = {.st = st, .done = done, .ctx = ctx};
    return stream_sequence(sh, st, r, &item);
}
