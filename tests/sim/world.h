/* world.h - one simulated server and everything that is known about what it should do.
 *
 * Shape    N shards of one server in one thread; a script takes their turns in any order at a time
 *          of its own (world.c), clients act (client.c) and believe what they are told
 *          (belief.c), witness.c listens at the home of each channel, check.c compares when all
 *          is quiet. Worlds whose channels have memory, with several lives: tale.h.
 * Errors   A violation prints what, the seed and the command that replays it, and exits.
 */
#pragma once
#include "shards/home.h"
#include "shards/server.h"
#include "tests/sim/clock_sim.h"
#include "tests/sim/ring_sim.h"

enum {
    WORLD_APPS = 4,              /* 0 and 1 are used; 2 is disabled, 3 is small */
    WORLD_NAMES = 15,            /* channels of an app */
    WORLD_USERS = 6,
    WORLD_CHANNELS = WORLD_NAMES + WORLD_USERS,   /* the users' own channels come last */
    WORLD_CLIENTS_MAX = 48,
};

struct log {                     /* a channel's messages in the order of its home */
    uint32_t *ids;               /* owned; ids[seq - 1] */
    uint32_t  count, room;
};

struct message {
    uint32_t seq;                /* 0: its home has not fanned it out */
    uint32_t except;             /* connection number that must not get it; 0: none */
    uint32_t sender;             /* connection number of the client that said it; 0: a backend */
    uint16_t app, channel;
};

struct world {
    uint64_t              seed;
    uint32_t              shards, steps, step;
    uint32_t              shards_asked;      /* on the command line; 0: the seed chooses */
    bool                  verbose;
    struct conf           conf;
    struct conf_app       apps[WORLD_APPS];
    struct conf_app      *conf_apps;         /* what conf_load made */
    struct server         server;
    struct reactor_office office;
    struct metric_table   table;
    struct metrics        sets[REACTOR_SHARDS_MAX];
    uint64_t              baseline[REACTOR_SHARDS_MAX];   /* heap objects of an empty shard */
    struct log            logs[WORLD_APPS][WORLD_CHANNELS];
    struct message       *messages;          /* owned; by id, the first is not used */
    uint32_t              messages_count, messages_room;
    uint32_t              connections;       /* numbers given */
    bool                  faults;            /* allocations and posts fail at times */
    uint32_t              fail_alloc, fail_post, fail_commit;   /* in 65536, while faults are on */
    uint64_t              failed;            /* how many did */
    bool                  lazy_fan;          /* fan-outs stay unfinished over turns */
    bool                  memory;            /* channels have history: the lanes take steps */
    uint64_t              rows;              /* committed, as the server counts them */
    struct store         *store;             /* owned; NULL without */
    char                  dir[64];           /* its data directory, removed at the end */
    char                  copy[64];          /* a copy of it at some commit; empty: none */
    uint32_t              copy_after;        /* commits until then; 0: none is wanted */
    uint32_t              starts, draws;     /* of the server; of the system's entropy */
    bool                  tale;              /* tale.h, not the clients of client.h */
};

extern struct world world;

/* Ends the run: this must never be. */
__attribute__((noreturn, format(printf, 1, 2))) void world_fail(const char *format, ...);
#define MUST(c, ...) (LIKELY(c) ? (void)0 : world_fail(__VA_ARGS__))

static inline bool maybe(uint32_t n) { return ring_sim_maybe(n); }
static inline uint32_t below(uint32_t n) { return (uint32_t)rng_below(&ring_sim_rng, n); }

/* The name of a channel; -1 when a name is none of ours. */
const char *world_name(uint32_t channel);
int world_channel(struct slice name);
static inline bool world_is_presence(uint32_t channel)
{
    return strncmp(world_name(channel), "presence-", 9) == 0;
}
static inline bool world_is_cache(uint32_t channel)
{
    return strstr(world_name(channel), "cache-") != NULL;
}

/* A new message for a channel. Its text is "#m{id};". */
uint32_t world_message(uint32_t app, uint32_t channel, uint32_t except);
/* The id of the message in a text; 0 when there is none. */
uint32_t world_message_in(const void *text, uint32_t bytes);

void world_open(void);
void world_close(void);
/* Another life in the same data directory. A kill loses whatever the disk does not hold; it goes on
 * from the copy, which world_copy_after makes behind that many more commits (0: now, unless there
 * is one). */
void world_start(void);
void world_stop(bool kill);
void world_copy_after(uint32_t commits);
/* What a killed server had in memory is nobody's any more: a leak checker need not ask for it. */
void world_leaks(bool may);
/* One shard takes a turn. True when it has more to do. */
bool world_turn(uint32_t shard);
void world_pass(uint64_t ms);
/* Turns of everybody, faults off, until nothing moves. `settle` runs between rounds and says
 * whether something outside the server moved. */
void world_settle(bool (*settle)(void));
/* An event published by the app's backend, taken in by a shard. */
void world_publish(uint32_t shard, uint32_t app, uint32_t channel, uint64_t except_a,
                   uint64_t except_b, uint32_t except);

/* In some worlds a shard keeps no stream that is not in use. */
static inline bool world_streams_go(void) { return world.seed % 4 == 1; }

/* check.c: everything agrees (all is quiet); nothing is left (all have gone). */
void check_quiet(void);
void check_empty(void);
