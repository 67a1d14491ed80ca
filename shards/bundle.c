#include "shards/bundle.h"

#include "shards/frame.h"

uint32_t bundle_run(struct frame *const *frames, uint32_t frames_count)
{
    uint32_t n = 0, bytes = 0;
    for (; n < frames_count; n++) {
        const struct frame *f = frames[n];
        bytes += f->bytes_count;
        if (f->refs < BUNDLE_HOLDERS_MIN || f->more > 0 || f->asked) break;
        if (f->bytes_count > BUNDLE_FRAME_BYTES_MAX || bytes > BUNDLE_BYTES_MAX) break;
    }
    return n > 1 ? n : 0;
}

static struct frame *whole_of(struct shard *sh, struct frame *const *run, uint32_t run_count)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < run_count; i++) bytes += run[i]->bytes_count;
    struct frame *whole = frame_make(sh, bytes);
    if (whole == NULL) return NULL;
    for (uint32_t i = 0; i < run_count; i++) {
        memcpy(frame_room(whole) + whole->bytes_count, run[i]->bytes, run[i]->bytes_count);
        whole->bytes_count += run[i]->bytes_count;
    }
    whole->more = (uint16_t)(run_count - 1);
    return whole;
}

static void forget(struct shard *sh, struct bundle *b)
{
    for (uint32_t i = 0; b->taken > 0 && i < b->frames_count; i++) {
        b->frames[i]->refs -= b->taken - 1;
        frame_put(sh, &b->frames[i]);
    }
    frame_put(sh, &b->whole);
    b->frames_count = b->taken = 0;
}

struct frame *bundle_take(struct shard *sh, struct frame *const *run, uint32_t run_count)
{
    struct bundle *b = sh->bundles, *end = b + BUNDLES;
    size_t bytes = sizeof(*run) * run_count;
    while (b < end && (b->frames_count != run_count || memcmp(b->frames, run, bytes) != 0)) b++;
    if (b == end) {                      /* not seen before: next time */
        b = &sh->bundles[sh->bundles_next++ % BUNDLES];
        forget(sh, b);
        memcpy(b->frames, run, bytes);
        b->frames_count = run_count;
        return NULL;
    }
    if (b->whole == NULL) b->whole = whole_of(sh, run, run_count);
    if (b->whole == NULL) return NULL;
    b->taken++;
    return frame_ref(b->whole);
}

void bundle_forget_all(struct shard *sh)
{
    for (uint32_t i = 0; i < BUNDLES; i++) forget(sh, &sh->bundles[i]);
}
