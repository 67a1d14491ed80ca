/* store.h - durable history: lanes of packed records in LMDB. What a shard sees of it.
 *
 * Shape    A lane is one LMDB environment with one committer thread and one reader thread. Shards
 *          write to them by letter (core/mail_kinds.h) and get their structs back by letter:
 *            MAIL_COMMIT  -> committer -> MAIL_COMMITTED   struct store_batch
 *            MAIL_READ    -> committer (takes a snapshot) -> reader -> MAIL_READ_DONE
 *                                                          struct store_read
 *            MAIL_CLOSED  -> committer                     no answer
 *          From STORE_OPEN, or the RECORD_CHANNEL of one that was never seen, until MAIL_CLOSED a
 *          channel is in a home's memory and is not forgotten: what that home sequences goes on
 *          where its head stands.
 *          Slots map to lanes: lane = slot * lanes >> 10. The lane count is fixed when the data
 *          directory is made, so the shard count can change at every start.
 * Threads  store_open and store_close: main. The committer owns the environment's write side, the
 *          tail index and the retention floors; the reader only reads, with transactions that the
 *          committer began for it.
 * Order    A batch commits after every batch posted before it by the same shard; a read sees every
 *          batch that its shard posted before it. One commit takes all batches that are waiting.
 * Bounds   wal WAL_BYTES_MAX a lane; reads end after 1 MiB or 50 ms of one snapshot and go on in
 *          the next; segments written 8 or 256 KiB a commit; 8 deleted a transaction. Data that a
 *          lane may hold: history.max_bytes (0: the disk), less the floor of free space.
 * Memory   Batches and reads belong to the shard and are lent until their letter returns. Results
 *          are malloc'ed by the reader and owned by the store_read; store_read_free.
 * Errors   A failed commit fails its batch and everything queued (ERR_IO; ERR_FULL: no room on the
 *          disk) and raises the lane's generation; batches of an older generation fail with
 *          ERR_FULL until the shard uses the new one, which it does by having seen the failure.
 * Source   design D5, D6; spec/settled.md 30-42; spec/operations.md.
 */
#pragma once
#include "core/reactor.h"
#include "store/record.h"

enum { STORE_LANES_MAX = 16, STORE_WAL_BYTES_MAX = 64 << 20,
       STORE_FORMAT = 2, STORE_FORMAT_MADE = 1,   /* a lane that has forgotten a channel is 2 */
       STORE_READ_BYTES_MAX = 4 << 20, STORE_ID_BYTES = 32,
       STORE_NAME_BYTES_MAX = UINT16_MAX };   /* of app id and stored channel name together */

/* Before a channel's name: hidden channels that belong to it, stored in the same lane. */
#define STORE_PRESENCE_PREFIX "[presence-history]"
#define STORE_ANNOTATIONS_PREFIX "[annotations]"

struct store;

/* How long a channel's rows and versions are kept, as configured. 0: no bound. */
struct store_policy {
    uint64_t age_ms, messages_max, bytes_max;   /* of history rows */
    uint64_t version_age_ms;                    /* UINT64_MAX: as the rows (spec/settled.md 40) */
    uint64_t receipt_age_ms;                    /* records younger than this stay on disk, whatever
                                                   else says that they may go: a publish receipt is
                                                   found in its record */
};
/* Asked for a stored channel; hidden channels by their stored names. Any thread; pure. */
/* Without one nothing is ever deleted. */
typedef void (*store_policy_fn)(void *ctx, struct slice app_id, struct slice channel,
                                struct store_policy *out);

struct store_conf {
    const char      *dir;              /* the data directory: locked by the caller, writable */
    uint32_t         lanes;            /* used when the directory is made; else what it says */
    uint32_t         shards_count;
    uint64_t         bytes_max;        /* of all lanes; 0: none */
    uint32_t         purge_interval_ms;
    uint64_t         request_age_ms;   /* the longest that a RECORD_REQUEST is asked for */
    uint64_t         forget_after_ms;  /* head and name of a channel of which nothing else is left
                                          go when nothing has changed for so long; 0: never */
    struct reactor_office *office;     /* its posts for lanes are opened here */
    store_policy_fn  policy;
    void            *policy_ctx;
    uint64_t       (*wall_ms)(void);   /* the clock for retention */
    bool             threads;          /* false: a simulation calls store_step */
};

/* ERR_CONFIG: a newer format; ERR_IO, ERR_MEMORY. `error` says what and what to do. */
MUST_CHECK err_t store_open(struct store **out, const struct store_conf *conf, char *error,
                            uint32_t error_bytes);
/* Commits what was posted, marks a clean end, joins the threads. Shards have stopped. */
void store_close(struct store **s);
/* Without threads: one round of every committer and reader. True: there may be more to do. */
bool store_step(struct store *s);

uint32_t store_lanes(const struct store *s);
/* Text in every string serial: [a-z0-9]+, drawn when the directory was made. */
const char *store_id(const struct store *s);
/* How often records of the lane that were shown before their commit may have been lost: one more,
 * durably, at each start without the clean mark. */
uint32_t store_losses(const struct store *s, uint32_t lane);
/* Something shown was lost and could not be noted: the lane will not be marked clean. A lane sees
 * by itself when the commit of a RECORD_RELAXED fails. Any thread. */
void store_doubt(struct store *s, uint32_t lane);
static inline uint32_t store_lane_of(const struct store *s, uint32_t slot)
{
    return slot * store_lanes(s) >> 10;
}
/* True while durable publishes must be refused (disk nearly full, or a lane that fails): answer
 * 503. Any thread; the committer tries again by itself and clears it when there is room. */
bool store_refuses(const struct store *s, uint32_t lane);
/* Where letters for a lane go: a post of the office (reactor_box). */
uint16_t store_post(const struct store *s, uint32_t lane);

/* ---- writing ---- */

struct store_batch {
    uint16_t  shard;                   /* filled by the poster */
    uint16_t  lane;
    uint32_t  generation;              /* the newest that this shard has learned for the lane */
    uint32_t  records_count;
    uint32_t  bytes_count, bytes_room; /* of `bytes` */
    uint8_t  *bytes;                   /* packed records, each channel's in serial order */
    uint64_t  posted_ns;
    void     *items;                   /* the shard's own */
    /* the answer */
    err_t     result;
    uint32_t  generation_now;          /* to be used from now on */
    uint64_t  commit_ns;               /* duration of the commit it was in */
};

/* ---- reading ---- */

enum store_read_kind {
    STORE_OPEN,          /* name -> head; one never seen gets a fresh number (head.known false);
                            LARGE: the name is too long to be stored */
    STORE_RANGE,         /* versions with from < delivery <= upto, in order, context records of
                            appends inserted before them where they lie outside the range, marked
                            RECORD_CONTEXT; GONE also when such a record was evicted */
    STORE_MESSAGE,       /* `message` folded as of upto: one folded record, then its op hashes */
    STORE_VERSIONS,      /* records of `message`, after `from` in `newest_first` order, to limit;
                            appends keep their fragment; a context stands before the first append
                            that needs it, marked, and again as an item if it is one */
    STORE_ROWS,          /* history rows as of upto: for each row its record as stored and, when it
                            was mutated, a folded record behind it */
    STORE_ACTIVE,        /* at start: presence members left open (records, newest added event each)
                            and request keys not expired (RECORD_REQUEST), of slots
                            [slot_from, slot_upto); what cannot be read is left out and counted */
};

enum store_read_status {
    STORE_READ_OK, STORE_READ_NOT_FOUND, STORE_READ_GONE /* below the floor */,
    STORE_READ_LARGE /* over limit or bytes_max: nothing returned */, STORE_READ_IO,
    STORE_READ_MEMORY /* not now: no memory, or the lane cannot begin a read */,
};

struct store_head {                    /* a channel as stored, policy floors applied at `now_ms` */
    bool     known;                    /* has records */
    bool     lost;                     /* OPEN, with IO: it cannot be read. A RECORD_CHANNEL for
                                          `chan` makes another, behind all that there was */
    uint64_t chan;
    uint64_t delivery, history_next, time_ms;    /* newest delivery serial, next history serial */
    uint64_t delivery_epoch, history_epoch;      /* 0 at first. Not known: OPEN says with which
                                                    delivery epoch it begins (`history` of its
                                                    RECORD_CHANNEL), and which time_ms it is not to
                                                    fall below: that of names that were forgotten */
    uint64_t replay_floor;             /* oldest serial that can be read; delivery + 1: none */
    uint64_t rows_first, rows_newest;  /* oldest and newest retained history serial; 0: none */
    uint64_t rows_count, rows_bytes, rows_first_ms, rows_newest_ms;
    uint64_t row_floor;                /* delivery serial of the oldest retained row, or delivery
                                          + 1 */
    bool     relaxed;                  /* has a record that was delivered first */
    uint64_t reset_ms;
};

struct store_receipt {                 /* a live publish receipt of the opened channel */
    uint8_t  key[16], print[16];
    uint64_t delivery, history, time_ms;
};

struct store_read {
    uint8_t  kind;                     /* enum store_read_kind */
    uint16_t shard, lane;
    /* the question; slices are the shard's and stay until the answer */
    struct slice app_id, channel;      /* OPEN: and of every kind, for the policy */
    uint64_t chan;                     /* all but OPEN, ACTIVE */
    uint64_t upto;                     /* the shard's committed head: nothing newer is shown */
    uint64_t from;                     /* RANGE; VERSIONS: exclusive cursor, 0: from the end */
    uint64_t message;
    uint64_t rows_from, rows_upto;     /* ROWS: inclusive history serials; 0 and UINT64_MAX: open */
    uint64_t time_from_ms, time_upto_ms;   /* ROWS: inclusive; 0 and UINT64_MAX: open */
    uint64_t rows_after;               /* ROWS: exclusive cursor in the direction; 0: none */
    uint64_t now_ms;
    uint64_t receipt_age_ms;           /* OPEN: receipts younger than this; ACTIVE: request keys */
    uint32_t limit, bytes_max;         /* records or rows; 0: STORE_READ_BYTES_MAX (MESSAGE: any) */
    uint32_t slot_from, slot_upto;     /* ACTIVE */
    bool     newest_first;
    void    *owner;                    /* the shard's own */
    /* the answer */
    uint8_t  status;                   /* enum store_read_status */
    bool     more;                     /* VERSIONS, ROWS: another page follows */
    uint32_t unreadable;               /* ACTIVE: values that were left out */
    struct store_head head;            /* OPEN, ROWS, RANGE: as of the read */
    uint8_t *bytes;                    /* malloc'ed packed records */
    uint32_t bytes_count, records_count;
    struct store_receipt *receipts;    /* OPEN, also with IO, if `head` is known; malloc'ed */
    uint32_t receipts_count;
    uint64_t *ops;                     /* MESSAGE: pairs (op_hash, delivery); malloc'ed */
    uint32_t ops_count;                /* pairs */
    uint32_t appends, versions;        /* MESSAGE: counted since the create */
};
void store_read_free(struct store_read *r);   /* what the answer owns, not r */
/* There were rows, and none of them is kept. */
static inline bool store_rows_gone(const struct store_head *h)
{
    return h->rows_first == 0 && h->history_next > 1;
}

/* ---- for metrics: read by any thread, may lag ---- */

struct store_stats {
    uint64_t commits, commit_ns, records, wal_bytes, tails, segments, map_bytes, free_bytes;
    uint64_t reads, read_ns, failed, refused, forgotten;
    uint64_t queue_batches;
};
void store_stats_read(const struct store *s, uint32_t lane, struct store_stats *out);
