#include "shards/frame.h"

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

static void frame_free(struct shard *sh, struct frame *f)
{
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
    if (--f->refs == 0) frame_free(sh, f);
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
        .origin_shard = from_shard, .origin = loan,
    };
    return f;
}

void frame_came_home(struct shard *sh, struct frame *loan)
{
    frame_put(sh, &loan);
}
