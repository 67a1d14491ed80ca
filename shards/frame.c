#include "shards/frame.h"

#include "shards/stream.h"

struct frame *frame_make(struct shard *sh, uint32_t room)
{
    struct frame *f = heap_alloc(sh->heap, (uint32_t)sizeof(*f) + room);
    if (f == NULL) return NULL;
    *f = (struct frame){
        .bytes = (const uint8_t *)(f + 1), .bytes_room = room, .refs = 1, .origin_shard = sh->id,
    };
    return f;
}

struct frame *frame_copy(struct shard *sh, const void *bytes, uint32_t bytes_count)
{
    struct frame *f = frame_make(sh, bytes_count);
    if (f == NULL) return NULL;
    memcpy(frame_room(f), bytes, bytes_count);
    f->bytes_count = bytes_count;
    return f;
}

struct frame *frame_sibling(struct shard *sh, struct frame *f, uint32_t room)
{
    struct frame *s = frame_make(sh, room);
    if (s == NULL) return NULL;
    s->refs = 0;                         /* the family holds it */
    s->parent = f;
    return s;
}

/* Where V2 sockets get the frame itself, a sibling for full mode would stay with it: so a copy. */
struct frame *frame_keep_v2(struct shard *sh, struct frame *f)
{
    struct frame *v2 = f->v2;
    if (v2 == NULL && f->full != NULL) return frame_copy(sh, f->bytes, f->bytes_count);
    if (v2 == NULL) return frame_ref(f);
    ASSERT(v2->parent == f && v2->refs == 0 && f->origin == NULL);
    v2->parent = NULL;
    v2->refs = 2;                        /* the family's and the caller's */
    return v2;
}

static void free_sibling(struct shard *sh, struct frame *s)
{
    if (s == NULL) return;
    if (s->parent == NULL) frame_put(sh, &s);
    else heap_free(sh->heap, s, (uint32_t)sizeof(*s) + s->bytes_room);
}

static void frame_free(struct shard *sh, struct frame *f)
{
    if (f->blob) stream_blob_freed(sh, f);
    free_sibling(sh, f->v2);
    free_sibling(sh, f->full);
    if (f->origin != NULL) {
        struct letter l = {.kind = MAIL_FRAME_HOME, .payload = f->origin};
        shard_answer(sh, f->origin_shard, &l);
    }
    heap_free(sh->heap, f, (uint32_t)sizeof(*f) + f->bytes_room);
}

void frame_put(struct shard *sh, struct frame **fp)
{
    struct frame *f = *fp;
    if (f == NULL) return;
    *fp = NULL;
    ASSERT(f->refs > 0);
    if (--f->refs > 0) return;
    if (f->parent != NULL) frame_put(sh, &(struct frame *){f->parent});
    else frame_free(sh, f);
}

/* The reader's own counts for a lent sibling. */
static bool borrow_sibling(struct shard *sh, struct frame *f, const struct frame *lent,
                           struct frame **out)
{
    if (lent == NULL) return true;
    struct frame *s = frame_sibling(sh, f, 0);
    if (s == NULL) return false;
    s->bytes = lent->bytes;
    s->bytes_count = lent->bytes_count;
    *out = s;
    return true;
}

struct frame *frame_borrow(struct shard *sh, struct frame *loan, uint16_t from_shard)
{
    if (from_shard == sh->id) return loan;
    struct frame *f = heap_alloc(sh->heap, sizeof(*f));
    if (f == NULL) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
        struct letter l = {.kind = MAIL_FRAME_HOME, .payload = loan};
        shard_answer(sh, from_shard, &l);
        return NULL;
    }
    *f = (struct frame){
        .bytes = loan->bytes, .bytes_count = loan->bytes_count, .refs = 1,
        .origin_shard = from_shard, .origin = loan, .v2_only = loan->v2_only,
    };
    if (!borrow_sibling(sh, f, loan->v2, &f->v2) || !borrow_sibling(sh, f, loan->full, &f->full)) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
        frame_put(sh, &f);               /* returns the loan as well */
    }
    return f;
}

void frame_came_home(struct shard *sh, struct frame *loan)
{
    frame_put(sh, &loan);
}
