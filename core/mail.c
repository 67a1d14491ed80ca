/* post --> [ spill: poster's own ] --flush--> [ ring: shared ] --> take
 *
 * While the spill list is empty letters go straight to the ring. The spill list is a window of
 * reserved memory, spill[first .. end), that slides up and is moved back down to 0 when it comes
 * to the window's end, so memory touched is at most about twice what was waiting at once.
 */
#include "core/mail.h"

#include <ck_ring.h>
#include "core/mem.h"

/* Thread sanitizer cannot see order made by ck's inline assembly, so it is told. */
#if defined(__has_feature)
#  if __has_feature(thread_sanitizer)
#    define MAIL_TSAN 1
#  endif
#elif defined(__SANITIZE_THREAD__)
#  define MAIL_TSAN 1
#endif
#ifdef MAIL_TSAN
#  include <sanitizer/tsan_interface.h>
#  define ORDER_BEFORE(p) __tsan_release(p)
#  define ORDER_AFTER(p) __tsan_acquire(p)
#else
#  define ORDER_BEFORE(p) ((void)(p))
#  define ORDER_AFTER(p) ((void)(p))
#endif

CK_RING_PROTOTYPE(letter, letter)

enum {
    RING_SLOTS = 2 * MAIL_SLOTS,   /* ck_ring wants a power of two and holds one less */
    SPILL_WINDOW_FIRST = 4096,
};
static_assert(RING_SLOTS - 1 >= MAIL_SLOTS, "MAIL_SLOTS letters fit");
static_assert(MAIL_SPILL_MAX % SPILL_WINDOW_FIRST == 0 &&
              (MAIL_SPILL_MAX & (MAIL_SPILL_MAX - 1)) == 0, "the window doubles up to the bound");

struct mailbox {
    _Alignas(64) struct ck_ring ring;   /* reader's index, poster's index, size: a line each */
    uint16_t       from_shard;
    uint16_t       to_shard;

    /* The poster's own. */
    _Alignas(64) struct letter *spill;  /* owned: MAIL_SPILL_MAX reserved */
    uint32_t       spill_first;
    uint32_t       spill_end;
    uint32_t       spill_window;
    bool           published;           /* since the last flush */

    _Alignas(64) struct letter letters[RING_SLOTS];
};
static_assert(offsetof(struct mailbox, spill) >= 192, "the poster's line is not the reader's");

err_t mail_open(struct mailbox **out, uint16_t from_shard, uint16_t to_shard)
{
    struct mailbox *box = mem_reserve(sizeof *box);

    *out = NULL;
    if (box == NULL) return ERR_MEMORY;
    box->spill = mem_reserve((uint64_t)MAIL_SPILL_MAX * sizeof(struct letter));
    if (box->spill == NULL) {
        mem_release(box, sizeof *box);
        return ERR_MEMORY;
    }
    box->from_shard = from_shard;
    box->to_shard = to_shard;
    box->spill_window = SPILL_WINDOW_FIRST;
    ck_ring_init(&box->ring, RING_SLOTS);
    *out = box;
    return OK;
}

static uint32_t ring_room(const struct mailbox *box)
{
    uint32_t taken = ck_ring_size(&box->ring);

    ASSERT(taken <= MAIL_SLOTS);
    return MAIL_SLOTS - taken;
}

/* The caller has seen room. */
static void ring_put(struct mailbox *box, const struct letter *l)
{
    ORDER_AFTER(&box->ring.c_head);
    struct letter *slot = ck_ring_enqueue_reserve_spsc_letter(&box->ring, box->letters);

    ASSERT(slot != NULL);
    *slot = *l;
    ORDER_BEFORE(&box->ring.p_tail);
    ck_ring_enqueue_commit_spsc(&box->ring);
    box->published = true;
}

err_t mail_post(struct mailbox *box, const struct letter *l)
{
    ASSERT(l->from_shard == box->from_shard);
    if (UNLIKELY(mail_room(box) == 0)) return ERR_FULL;
    ring_put(box, l);
    return OK;
}

/* Makes place at the end of a full window: doubles it when most of it waits, else moves what
 * waits down, which costs less than one copy per letter that was posted since the last move. */
__attribute__((noinline, cold)) static void spill_slide(struct mailbox *box)
{
    uint32_t waiting = box->spill_end - box->spill_first;

    if (waiting > box->spill_window / 2 && box->spill_window < MAIL_SPILL_MAX) {
        box->spill_window *= 2;
        return;
    }
    ASSERT(waiting < MAIL_SPILL_MAX);   /* answers are bounded by the requests let in */
    memmove(box->spill, box->spill + box->spill_first, waiting * sizeof box->spill[0]);
    box->spill_first = 0;
    box->spill_end = waiting;
}

void mail_post_sure(struct mailbox *box, const struct letter *l)
{
    ASSERT(l->from_shard == box->from_shard);
    if (LIKELY(mail_room(box) > 0)) {
        ring_put(box, l);
        return;
    }
    if (box->spill_end == box->spill_window) spill_slide(box);
    box->spill[box->spill_end++] = *l;
}

uint32_t mail_room(const struct mailbox *box)
{
    return mail_spilled(box) > 0 ? 0 : ring_room(box);
}

uint32_t mail_spilled(const struct mailbox *box)
{
    return box->spill_end - box->spill_first;
}

bool mail_flush(struct mailbox *box)
{
    if (UNLIKELY(mail_spilled(box) > 0)) {
        uint32_t move = u32_min(mail_spilled(box), ring_room(box));

        while (move-- > 0) ring_put(box, &box->spill[box->spill_first++]);
        if (mail_spilled(box) == 0) {
            box->spill_first = box->spill_end = 0;
            box->spill_window = SPILL_WINDOW_FIRST;
        }
    }
    bool published = box->published;
    box->published = false;
    return published;
}

uint32_t mail_take(struct mailbox *box, struct letter *out, uint32_t out_count_max)
{
    uint32_t count = u32_min(ck_ring_size(&box->ring), out_count_max);

    ORDER_AFTER(&box->ring.p_tail);
    for (uint32_t i = 0; i < count; i++) {
        bool taken = ck_ring_dequeue_spsc_letter(&box->ring, box->letters, &out[i]);
        ASSERT(taken);
        ORDER_BEFORE(&box->ring.c_head);
    }
    return count;
}

bool mail_waiting(const struct mailbox *box)
{
    return ck_ring_size(&box->ring) > 0;
}

void mail_close(struct mailbox **box)
{
    struct mailbox *closed = *box;

    *box = NULL;
    if (closed == NULL) return;
    mem_release(closed->spill, (uint64_t)MAIL_SPILL_MAX * sizeof(struct letter));
    mem_release(closed, sizeof *closed);
}

/* Reader: asleep = 1, fence, look at the boxes. Poster: put a letter, fence, look at asleep. In
 * every interleaving at least one of them sees what the other wrote. */
void mail_door_shut(struct mail_door *d)
{
    __atomic_store_n(&d->asleep, 1, __ATOMIC_RELAXED);
    ck_pr_fence_strict_memory();
}

void mail_door_open(struct mail_door *d)
{
    __atomic_store_n(&d->asleep, 0, __ATOMIC_RELAXED);
}

bool mail_door_knock(struct mail_door *d)
{
    ck_pr_fence_strict_memory();
    if (__atomic_load_n(&d->asleep, __ATOMIC_RELAXED) == 0) return false;
    return __atomic_exchange_n(&d->asleep, 0, __ATOMIC_ACQ_REL) == 1;   /* one poster gets the 1 */
}
