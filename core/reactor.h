/* reactor.h - the tick of a shard: fixed phases, each with a budget, then sleep.
 *
 * Shape    turn: completions -> timers -> letters -> work (fan-out, flush) -> post and wake ->
 *          sleep when every phase is dry. The clock is read once per turn.
 *          Threads without a ring (the store's) have posts: numbers behind those of the shards,
 *          with boxes only to and from those they talk to, a door and an eventfd.
 * Threads  reactor_open and reactor_run: the shard's thread. reactor_poke, reactor_post_ring: any
 *          thread. reactor_post_open, reactor_box_open: main, before any thread runs. Other
 *          reactor_post_*: the post's thread.
 * Order    As above, always. Letters of one sender in post order.
 * Bounds   REACTOR_* below; what a phase leaves is taken in the next turn.
 * Memory   The office (mailboxes, doors) is made by main before any shard runs.
 * Errors   reactor_open passes on ring_open's.
 */
#pragma once
#include "core/clock.h"
#include "core/mail.h"
#include "core/ring.h"
#include "core/rng.h"
#include "core/timer.h"

enum {
    REACTOR_SHARDS_MAX = 64,
    REACTOR_POSTS_MAX = 32,               /* a committer and a reader for each lane */
    REACTOR_ENDS_MAX = REACTOR_SHARDS_MAX + REACTOR_POSTS_MAX,
    REACTOR_TIMERS_PER_TURN_MAX = 1024,
    REACTOR_LETTERS_PER_BOX_MAX = 1024,   /* per sender and turn */
    REACTOR_LETTERS_PER_POST_MAX = 8,     /* the same: one of a post's may bring a whole batch */
    REACTOR_BUSY_LAG_NS = 20000000,
    REACTOR_SPILL_RETRY_NS = 200000,      /* the reader's progress wakes nobody */
};

/* What all threads share: the mailboxes and the means to wake each other. Ends below shards_count
 * are shards, the rest posts. */
struct reactor_office {
    uint32_t          shards_count, ends_count;
    struct mailbox   *boxes[REACTOR_ENDS_MAX][REACTOR_ENDS_MAX];  /* [from][to]; NULL: never talk */
    struct mail_door  doors[REACTOR_ENDS_MAX];
    struct ring      *rings[REACTOR_SHARDS_MAX];   /* set by each shard before the start barrier */
    int               post_fds[REACTOR_POSTS_MAX];   /* eventfd of post shards_count + index */
};

MUST_CHECK err_t reactor_office_open(struct reactor_office *o, uint32_t shards_count);
void reactor_office_close(struct reactor_office *o);

/* A post for a thread without a ring, and a box that is not there yet. ERR_IO: no eventfd. */
MUST_CHECK err_t reactor_post_open(struct reactor_office *o, uint16_t *out);
MUST_CHECK err_t reactor_box_open(struct reactor_office *o, uint16_t from, uint16_t to);

/* Up to out_count_max letters for the post, each sender in turn from *sender on (start with 0);
 * returns how many. 0: every box is empty. */
uint32_t reactor_post_take(struct reactor_office *o, uint16_t post, uint16_t *sender,
                           struct letter *out, uint32_t out_count_max);
bool reactor_post_waiting(const struct reactor_office *o, uint16_t post);
/* Publishes what the post has posted and wakes readers. True when letters did not fit: flush again
 * within REACTOR_SPILL_RETRY_NS. */
bool reactor_post_flush(struct reactor_office *o, uint16_t post);
/* Sleeps until a letter comes, the post is rung or the time is over. */
void reactor_post_rest(struct reactor_office *o, uint16_t post, uint64_t timeout_ns);
void reactor_post_ring(struct reactor_office *o, uint16_t post);

struct reactor_ops {
    void (*on_letter)(void *ctx, const struct letter *l);
    void (*on_timer)(void *ctx, struct timer *t);
    /* Fan-out steps and the flush of this turn. True when work is left for the next turn. */
    bool (*work)(void *ctx);
    /* Once per turn, before sleeping: true ends the run. */
    bool (*finished)(void *ctx);
};

struct reactor_stats {
    uint64_t turns, letters, forced_yields;
    uint64_t busy_ns;                /* CPU time of the thread, at most REACTOR_BUSY_LAG_NS old */
    uint64_t started_ns;
};

struct reactor {
    uint16_t                  shard;
    struct reactor_office    *office;
    struct ring              *ring;
    struct timer_wheel        wheel;
    struct rng                rng;
    uint64_t                  now_ns;     /* monotonic, of this turn */
    uint64_t                  now_ms;     /* now_ns in ms: the wheel's time */
    uint64_t                  wall_ms;    /* Unix, of this turn, as far as it is believed: stamps */
    uint64_t                  clock_ms;   /* the same as the clock has it: what others' are compared
                                             with */
    struct clock_belief       belief;
    uint64_t                  busy_read_ns, busy_started_ns;
    const struct reactor_ops *ops;
    void                     *ctx;
    struct reactor_stats      stats;
    bool                      spilled;    /* letters wait for room in some box */
};

MUST_CHECK err_t reactor_open(struct reactor *r, uint16_t shard, struct reactor_office *office,
                              const struct ring_conf *ring_conf, const struct reactor_ops *ops,
                              void *ctx, char *error, uint32_t error_bytes);
void reactor_run(struct reactor *r);
/* One turn at the time in now_ns, now_ms and wall_ms, without clocks or sleep: what reactor_run
 * repeats, and what a simulation drives with a time of its own. True when more work is waiting. */
bool reactor_turn(struct reactor *r);
void reactor_close(struct reactor *r);

/* Make a shard take a turn, from any thread. */
void reactor_poke(struct reactor_office *o, uint16_t shard);

/* The box to a shard, this one included, or to a post that has a box with this shard. */
static inline struct mailbox *reactor_box(struct reactor *r, uint16_t to)
{
    return r->office->boxes[r->shard][to];
}
