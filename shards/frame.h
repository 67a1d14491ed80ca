/* frame.h - a WebSocket frame, built once, shared by every subscriber.
 *
 * Shape    An owned frame carries its bytes behind the struct. A borrowed frame points at another
 *          shard's bytes; when its own count drops to zero a letter returns the loan.
 *          A frame may be a family: the bytes differ by the protocol that a socket speaks. A
 *          sibling that is queued somewhere holds one reference of its parent; the parent's end
 *          frees all. Only a sibling that was taken out of its family (frame_keep_v2) has a life
 *          of its own, and the family one reference of it.
 * Threads  The shard that made or borrowed it. Counts are plain integers. The bytes are immutable
 *          once the frame is lent or queued, so other shards may read them.
 * Memory   frame_make and frame_borrow allocate from the shard's heap: once per publish (and per
 *          interested shard), never per subscriber.
 * Errors   NULL at the heap's bound.
 */
#pragma once
#include "shards/shard.h"

struct frame {
    const uint8_t *bytes;        /* owned (behind this struct) or lent by origin's shard */
    uint32_t       bytes_count;
    uint32_t       bytes_room;   /* allocated behind the struct; 0 when borrowed */
    uint32_t       refs;         /* this shard's */
    uint16_t       origin_shard; /* borrowed: where `origin` lives */
    uint16_t       more;         /* of a bundle (bundle.h): frames in it behind the first */
    struct frame  *origin;       /* borrowed: the lender's frame; NULL when owned */
    struct frame  *v2, *full;    /* siblings: what V2 sockets get, and those with append_mode=full;
                                    NULL: v2 as this frame, full as v2 */
    struct frame  *parent;       /* of a sibling: the frame that keeps its memory */
    bool           v2_only;      /* V1 sockets get nothing */
    bool           blob;         /* much for one socket: counted for its app (stream.h) */
    bool           asked;        /* one socket's, which asked for it: bounded by what it may ask */
    uint16_t       app;          /* of a blob */
};

/* An owned frame with room for `room` bytes and one reference; fill frame_room, set bytes_count. */
struct frame *frame_make(struct shard *sh, uint32_t room);
static inline uint8_t *frame_room(struct frame *f) { return (uint8_t *)(f + 1); }
/* The same, filled with a copy. */
struct frame *frame_copy(struct shard *sh, const void *bytes, uint32_t bytes_count);

/* A sibling with room for `room` bytes, NULL at the bound; the caller makes it f->v2 or f->full. */
struct frame *frame_sibling(struct shard *sh, struct frame *f, uint32_t room);
/* What V2 sockets get, to be kept when the rest of the family has gone: one reference. Before
 * anything of the family is queued or lent. NULL at the heap's bound. */
struct frame *frame_keep_v2(struct shard *sh, struct frame *f);
/* A sibling's first reference takes one of its parent. */
static inline struct frame *frame_ref(struct frame *f)
{
    if (f->refs++ == 0) f->parent->refs++;
    return f;
}
/* Drops a reference and clears *f; NULL is ignored. */
void frame_put(struct shard *sh, struct frame **f);

/* Take a reference for another shard: the letter that carries it hands this reference over. */
static inline struct frame *frame_lend(struct frame *f) { return frame_ref(f); }
/* The reader's side: a frame of this shard with one reference. Within one shard the loan itself.
 * NULL at the heap's bound; the loan has then been returned. */
struct frame *frame_borrow(struct shard *sh, struct frame *loan, uint16_t from_shard);
/* MAIL_FRAME_HOME. */
void frame_came_home(struct shard *sh, struct frame *loan);
