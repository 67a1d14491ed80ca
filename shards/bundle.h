/* bundle.h - what many sockets are to be sent one behind the other, in one piece.
 *
 * Shape    The subscribers of a busy channel come to a flush with the same frames at the head of
 *          their queues: a run. The second of a turn that shows a run makes a bundle of it, one
 *          frame with the bytes of all; it and the later ones send that instead. A run ends before
 *          a frame that few sockets hold or that is large: small channels, private frames and
 *          large events are sent as they are.
 * Threads  The shard.
 * Order    A bundle stands for exactly the frames that it replaces, in their order.
 * Bounds   BUNDLES runs are remembered, until the end of the turn; a bundle holds at most
 *          RING_SEND_IOV_MAX frames and BUNDLE_BYTES_MAX.
 * Memory   One frame per run and turn, from the shard's heap; freed with the last send of it. At
 *          the heap's bound the frames are sent one by one.
 */
#pragma once
#include "core/ring.h"

struct frame;
struct shard;

enum { BUNDLES = 4, BUNDLE_HOLDERS_MIN = 8, BUNDLE_FRAME_BYTES_MAX = 4 << 10,
       BUNDLE_BYTES_MAX = 64 << 10 };

struct bundle {                          /* a run that was seen in this turn */
    struct frame *frames[RING_SEND_IOV_MAX];   /* counted `taken` times */
    uint32_t      frames_count;
    uint32_t      taken;                 /* how many sockets have handed the run over */
    struct frame *whole;                 /* counted; NULL: seen once, not taken */
};

/* How many of the first of these frames are a run; 0 when it is not worth while. */
uint32_t bundle_run(struct frame *const *frames, uint32_t frames_count);
/* One frame in place of a run, with one reference for the caller, whose references to the frames of
 * the run are taken instead. NULL: send them as they are; nothing was taken. */
struct frame *bundle_take(struct shard *sh, struct frame *const *run, uint32_t run_count);
/* The turn ends. */
void bundle_forget_all(struct shard *sh);
