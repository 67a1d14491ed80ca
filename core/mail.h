/* mail.h - how one thread hands work to another. There is no other way.
 *
 * Shape    One mailbox per ordered pair of threads (from -> to): a fixed queue of 64-byte letters
 *          and, on the poster's side only, a spill list for letters that must not be refused.
 * Threads  mail_post, mail_post_sure, mail_room, mail_flush: the `from` thread. mail_take: the
 *          `to` thread. mail_door_*: see each.
 * Order    Letters of one box arrive in post order, spilled ones included. Between boxes none.
 * Bounds   MAIL_SLOTS letters in the queue. mail_post answers ERR_FULL while the queue is full or
 *          anything is spilled. mail_post_sure always takes the letter: it is for answers and
 *          returns, whose number is bounded by the requests that were let in. The spill list holds
 *          up to MAIL_SPILL_MAX (address space reserved, touched only when used: about twice the
 *          longest backlog). Only mail_flush moves it on: while mail_spilled is not 0 the poster
 *          must come back by itself, since the reader's progress wakes nobody.
 * Memory   mail_open allocates everything. Post and take copy, never allocate.
 * Errors   mail_post: ERR_FULL. mail_open: ERR_MEMORY. A letter with another from_shard or a spill
 *          list past its bound is our bug: it asserts.
 * Source   Queue: ck_ring, one producer, one consumer.
 */
#pragma once
#include "core/err.h"

enum { MAIL_SLOTS = 2048, MAIL_SPILL_MAX = 1 << 22 };
static_assert((MAIL_SLOTS & (MAIL_SLOTS - 1)) == 0, "slot index is a mask");

struct letter {
    uint16_t kind;        /* enum mail_kind; mail_kinds.h lists all, with payloads */
    uint16_t from_shard;
    uint32_t flags;       /* per kind */
    uint64_t posted_ns;   /* poster's tick time: feeds the queue-delay histogram */
    void    *payload;     /* per kind: lent, given or NULL */
    uint64_t arg[5];      /* per kind */
};
static_assert(sizeof(struct letter) == 64, "one letter is one cache line");

struct mailbox;

MUST_CHECK err_t mail_open(struct mailbox **out, uint16_t from_shard, uint16_t to_shard);
void mail_close(struct mailbox **box);

MUST_CHECK err_t mail_post(struct mailbox *box, const struct letter *l);
void mail_post_sure(struct mailbox *box, const struct letter *l);

/* How many mail_post would take now: 0 while anything is spilled. Grows only by the reader. */
uint32_t mail_room(const struct mailbox *box);
/* Letters on the poster's spill list: the poster's sign that the reader is behind. */
uint32_t mail_spilled(const struct mailbox *box);

/* Moves spilled letters into the queue as far as they fit. True when letters were published since
 * the last flush, so that the reader may have to be woken. Once per tick. */
bool mail_flush(struct mailbox *box);

/* Up to out_count_max letters into out, oldest first. Returns how many. */
uint32_t mail_take(struct mailbox *box, struct letter *out, uint32_t out_count_max);
/* True when mail_take would return something. Reader only. */
bool mail_waiting(const struct mailbox *box);

/* A door tells posters whether a reader sleeps. The reader calls mail_door_shut, then checks every
 * box once more, then sleeps, then calls mail_door_open. After mail_flush said true the poster
 * asks mail_door_knock: true means "asleep: wake it", and is said to one poster only. Both sides
 * have a full barrier between their store and their load, so no wake-up is lost. */
struct mail_door { _Alignas(64) uint32_t asleep; };
void mail_door_shut(struct mail_door *d);
void mail_door_open(struct mail_door *d);
bool mail_door_knock(struct mail_door *d);
