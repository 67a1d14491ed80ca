/* shard.h - one shard: its connections, channels, counters, and the modules that work on them.
 *
 * Shape    struct server is what all shards share, read-only after start but for the two marked
 *          fields. struct shard is owned by its thread.
 * Threads  shard_start and shard_join: main. shard_drain: any thread. Everything else in shards/
 *          runs on the shard's own thread and asserts it where it is entered.
 * Memory   Objects come from the shard's heap; connections from a table reserved for the capacity.
 * Errors   shard_start reports through struct shard_start.
 */
#pragma once
#include "core/conf.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/mail_kinds.h"
#include "core/mem.h"
#include "core/metric.h"
#include "core/reactor.h"
#include "core/table.h"
#include "shards/bundle.h"
#include "shards/series.h"

#include <pthread.h>

struct conn;
struct chan;
struct sub;
struct home;
struct ask_book;
struct stream_book;
struct presence_book;
struct annotation_book;
struct api_list_job;
struct shard;
struct store;

struct server {
    const struct conf     *conf;
    uint32_t               shards_count;
    struct shard          *shards;          /* shards_count of them */
    struct reactor_office *office;
    struct store          *store;           /* borrowed; NULL: no channel has history */
    uint64_t               table_seed;
    uint64_t               started_wall_ms;
    struct metric_table   *metric_table;    /* borrowed; for rendering */
    int                    metrics_fd;      /* listener, -1 when off; shard 0 serves it */
    struct slice          *app_ids, *app_keys, *app_secrets;  /* by app index */
    uint32_t              *apps_by_id, *apps_by_key;          /* app indexes in text order */
    uint32_t               started;         /* atomic: every shard has opened */
    uint32_t               draining;        /* atomic: 1 after the first SIGTERM */
    uint32_t               door;            /* atomic: enum server_door */
    uint32_t               quitting;        /* atomic: 1 when the grace period is over */
};
/* While it drains: SHUT once no socket is left anywhere, so that what is under way comes to an end;
 * with sockets that do not go, REFUSES from half of the grace period on. */
enum server_door { SERVER_OPEN, SERVER_REFUSES /* requests */, SERVER_SHUT /* and listeners */ };

struct handle_slot { void *object; uint32_t gen, next_free; };

struct shard {
    struct reactor   re;
    struct server   *server;                /* borrowed */
    const struct conf *conf;                /* borrowed */
    struct heap     *heap;                  /* owned */
    struct metrics  *metrics;               /* owned; others read it */
    uint16_t         id;
    int              listen_fd;             /* owned */
    pthread_t        thread;
    uint32_t         state;                 /* atomic: enum shard_state */
    char             error[256];            /* why opening failed */

    char             name[16];              /* of the thread */

    struct conn     *conns;                 /* reserved, by the connection's number */
    uint32_t        *conn_of_sock;          /* reserved, by the ring's number of the socket */
    uint64_t         conns_reserved, socks_reserved;
    uint32_t         conns_free;            /* 1 + the number freed last; 0: none */
    uint32_t         gen_last;              /* last generation given to a connection */
    uint64_t         heap_mark;             /* above it new work is refused */
    uint32_t         conns_max, conns_count;/* max: 4100 beyond it */
    uint32_t         conns_seen;            /* numbers ever used: the most there were at a time */
    uint32_t         flush_first;           /* sock + 1 of the first connection to flush, 0 none */
    uint32_t         flush_last;
    struct bundle    bundles[BUNDLES];      /* what this turn's flushes have in common */
    uint32_t         bundles_next;
    uint64_t         send_frames;           /* all that have left */
    uint32_t         reap_first, reap_last; /* dead connections whose slots are to be closed */
    struct conn_watch *watched;             /* owned; sockets that are to take large answers */
    uint32_t         watched_count, watched_room;
    struct conn     *input_of;              /* whose input is being parsed; NULL outside */

    struct chan_line { struct sub *first, *last; } held[REACTOR_SHARDS_MAX];
                                            /* by home: subscribes that have not been asked yet */
    uint32_t         held_count;
    struct timer     held_again;            /* armed while some are held for want of room */
    struct table     chans;                 /* local channels by (app, name) */
    struct handle_slot *chan_slots;         /* handles of local channels */
    uint32_t         chan_slots_count, chan_slots_free;
    struct chan     *fan_first, *fan_last;  /* channels with fan-out work left */
    uint64_t         fan_serial;            /* grows with every channel letter handled */
    uint32_t         fan_jobs;              /* unfinished fan-outs of all channels */
    uint64_t         fan_waiting;           /* subscribers that they have still to visit */
    uint64_t         backlog;               /* atomic, read by others: that and spilled letters */
    uint32_t         fan_budget;            /* subscribers left in this turn */

    struct table     homes;                 /* channels whose home is here */
    struct table     members;               /* presence members of those */
    struct home    **homes_of_app;          /* list heads by app index */
    struct home     *cache_oldest, *cache_newest;
    uint64_t         cache_bytes;

    struct presence_book *presence_log;     /* presence events on their way into the log */
    struct annotation_book *annotations;    /* summaries of channels whose home is here */
    struct stream_book *streams;            /* channels with memory whose home is here */
    struct ask_book *asks;                  /* quotas, windows and idempotency kept here */
    struct api_list_job *lists_first, *lists_last;   /* lists of channels under way at this home */
    struct timer     second;                /* once-a-second bookkeeping */
    uint64_t         opened, closed, subscribed;   /* for the summary line */
    bool             draining;
    uint32_t         drain_next, drain_total;   /* next sock to close; sockets at the start */
    uint64_t         drain_checked_ms;
    uint32_t         ops_count;             /* pending operations */
    uint32_t         user_epoch;            /* last given to a sign-in */
    bool             shut;                  /* its listeners are */
    uint32_t         drained;               /* atomic: draining; enum shard_drained */
};

enum shard_drained {                        /* bits */
    SHARD_NO_SOCKETS = 1, SHARD_NO_OPS = 2, /* no WebSocket, no request that waits for an answer */
    SHARD_EMPTY = 4,                        /* and nothing else that a client waits for */
};

enum shard_timer {                          /* struct timer.kind */
    SHARD_TIMER_CONN = 1, SHARD_TIMER_SECOND, SHARD_TIMER_MEMBER, SHARD_TIMER_COUNT,
    SHARD_TIMER_ASK, SHARD_TIMER_OP, SHARD_TIMER_HELD,
};

enum { SHARD_CHANNELS_MAX = 1 << 24 };      /* local channels of a shard: handles, table buckets */

enum shard_state { SHARD_STARTING, SHARD_OPEN, SHARD_FAILED, SHARD_STOPPED };

/* Opens the shard on a thread of its own and waits until it has; it runs once server->started is
 * set. ERR_* with sh->error set. shard_join waits for the end and frees everything. */
MUST_CHECK err_t shard_start(struct shard *sh);
void shard_join(struct shard *sh);

/* What that thread does first and shard_join last: everything but the thread and the listeners. A
 * simulation calls them itself and drives sh->re with reactor_turn. */
MUST_CHECK err_t shard_open(struct shard *sh);
void shard_close(struct shard *sh);

static inline bool shard_refuses_requests(const struct shard *sh)
{
    return __atomic_load_n(&sh->server->door, __ATOMIC_RELAXED) != SERVER_OPEN;
}
static inline bool shard_is_draining(const struct shard *sh)
{
    return __atomic_load_n(&sh->server->draining, __ATOMIC_RELAXED) != 0;
}

/* Post a question (may be refused) or an answer (never) to a shard, this one included. */
MUST_CHECK err_t shard_ask(struct shard *sh, uint16_t to, struct letter *l);
void shard_answer(struct shard *sh, uint16_t to, struct letter *l);

/* Handle a letter, for the first time or again (stream.h). */
void shard_handle(struct shard *sh, const struct letter *l);

/* The home shard of a channel of an app. */
uint16_t shard_home(const struct shard *sh, uint32_t app, struct slice name);

/* The shard that holds the socket with this socket id, if any does: the first number says it. */
static inline uint16_t shard_of_socket(const struct shard *sh, uint64_t socket_a)
{
    return (uint16_t)(socket_a % sh->server->shards_count);
}

/* New work is refused while this is true: the heap is nearly at its bound. Counted. */
bool shard_pressed(struct shard *sh);

/* Index of the app with this key or id; false when there is none. Neither is secret. */
bool shard_app_by_key(const struct server *s, struct slice key, uint32_t *app);
bool shard_app_by_id(const struct server *s, struct slice id, uint32_t *app);
