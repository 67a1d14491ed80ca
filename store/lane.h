/* lane.h - private contract between the parts of a lane: committer (lane_*.c) and reader
 * (reader*.c).
 *
 * Shape    The committer thread: letters in, one transaction for all batches that wait, letters
 *          out; then packing, retention and space in the time between. It alone writes, owns the
 *          tail index (where each record of the wal lies that is in no segment yet) and begins read
 *          transactions. The reader thread answers store_reads from snapshots: a read transaction
 *          and a copy of the tail entries of one channel, taken in the same moment.
 *          lane_tail.c index; lane_commit.c group commit; lane_pack.c wal to segments; lane_base.c
 *          folded bases; lane_retain.c deletes and space; lane_floor.c views and floors;
 *          lane_forget.c channels that are no more; lane_open.c start and end.
 * Threads  Fields say their owner. lane_view_*, lane_head and lane_floors: any thread, on its own
 *          transaction.
 * Order    RAM follows the disk: the tail index changes after its transaction has committed.
 * Bounds   LANE_* below.
 * Memory   The tail index is malloc'ed; a snapshot's copy belongs to the snapshot.
 * Errors   lane_error translates LMDB's codes.
 * Source   design D6.
 */
#pragma once
#include <lmdb.h>

#include "core/table.h"
#include "store/format.h"
#include "store/store.h"

enum {
    LANE_SNAPSHOTS_MAX = 8,              /* with the reader at once: later reads wait their turn */
    LANE_COMMIT_BYTES_MAX = 8 << 20,     /* of batches in one transaction */
    LANE_TAIL_BYTES = 16 << 10,          /* a tail this long becomes a segment */
    LANE_PACK_SEGMENTS_MAX = 8,          /* written in a transaction; more near the wal's bound */
    LANE_PACK_WAITING = 64,              /* one, and one more for each so many that wait */
    LANE_PACK_BYTES_MAX = 256 << 10,
    LANE_DELETES_MAX = 8,                /* segments deleted in one transaction */
    LANE_FORGETS_MAX = 32,               /* channels forgotten in one */
    LANE_SNAPSHOT_BYTES_MAX = 1 << 20,   /* read of one snapshot, then it is renewed */
    LANE_SNAPSHOT_NS_MAX = 50000000,
};
#ifdef __SANITIZE_THREAD__                 /* leaves no address space for more */
#  define LANE_MAP_BYTES (1ull << 34)
#else
#  define LANE_MAP_BYTES (1ull << 40)
#endif

/* ---- the tail index ---- */

/* A record in the wal that is in no segment yet. */
struct lane_entry {
    uint64_t delivery, message, history, time_ms;   /* history 0 unless the record is a row */
    uint64_t wal_seq;                    /* the wal value that holds it */
    uint64_t rows_before, row_bytes_before;   /* see lane_view: absolute only there */
    uint32_t offset, bytes;              /* among the records of the wal value (format_wal_read) */
    uint8_t  kind, flags;                /* enum record_kind, record_flag */
    bool     row;                        /* record_is_row */
};

struct lane_chan {                       /* committer's; lives while its tail has entries */
    struct table_node  node;             /* in lane.chans, by number */
    uint64_t           chan;
    struct lane_entry *entries;          /* owned; entries[first .. first + count) are live */
    uint32_t           first, count, room;
    uint64_t           bytes;            /* of the live records */
    uint64_t           pending;          /* newest delivery serial of the open transaction */
    uint32_t           pending_count;    /* records of the open transaction */
    struct lane_chan  *pack_next;        /* in lane.pack_first .. pack_last */
    bool               packing;          /* is in that queue */
    bool               headless;         /* its head cannot be read: it waits for a reset here */
};

struct lane_wal {                        /* committer's: one value of the wal */
    uint64_t seq;
    uint32_t bytes;                      /* 0: deleted, its place is not yet reused */
    uint32_t live;                       /* records in the tail; at 0 the next commit deletes it */
    bool     forgets;                    /* has a RECORD_FORGET: it goes when it is the oldest */
};

/* ---- snapshots: begun by the committer, used by the reader ---- */

struct snapshot {
    struct store_read *read;             /* lent by its shard */
    MDB_txn           *txn;              /* read only; the reader resets it before it sends BACK */
    uint64_t           chan;             /* whose tail this is; 0: none yet (OPEN, ACTIVE) */
    uint64_t           chan_fresh;       /* OPEN: number for a channel that was never seen */
    struct lane_entry *tail;             /* owned by the snapshot; in delivery order */
    uint32_t           tail_count, tail_room;
    void              *work;             /* the reader's own, kept across renewals; NULL at first */
    struct snapshot   *next;             /* lane.snapshots_free */
};

struct lane_pack;                        /* lane_pack.c: what the open transaction moves */
struct reader;

struct lane {
    /* set at open, then read by both threads */
    struct store            *store;
    const struct store_conf *conf;
    uint32_t                 index;
    MDB_env                 *env;        /* NULL once it could not be opened again */
    MDB_dbi                  dbis[FORMAT_DBS];   /* the reader: while it has a snapshot */
    uint16_t                 post, reader_post;   /* of the office */
    struct reader           *reader;
    uint32_t                 losses;     /* starts that found no clean mark, this one included */
    bool                     clean;      /* the mark was there, and this start took it */

    /* committer's */
    uint64_t          seq_next, chan_next;
    struct table      chans;             /* lane_chan by number */
    struct lane_wal  *wals;              /* owned; wals[wals_first .. + wals_count), by seq */
    uint32_t          wals_first, wals_count, wals_room;
    uint64_t          wal_bytes, wal_live_bytes;
    uint64_t         *wals_dead;         /* owned; seqs of values to be deleted */
    uint32_t          wals_dead_count, wals_dead_room;
    uint64_t          txn_newest;        /* of LMDB: what the tail index stands for */
    bool              damaged;           /* a stored value was wrong: nothing durable any more */
    bool              failed, failed_said;   /* damaged because LMDB takes nothing any more:
                                                lane_reopen. Said: until it accepts again */
    struct lane_chan *pack_first, *pack_last;     /* tails long enough for a segment */
    uint32_t          pack_count;
    struct lane_pack *pack;              /* owned; lane_pack.c */
    struct lane_base *base;              /* owned; lane_base.c */
    struct lane_commit *commit;          /* owned; lane_commit.c */
    struct lane_retain *retain;          /* owned; lane_retain.c */
    struct lane_forget *forget;          /* owned; lane_forget.c */
    struct snapshot   snapshots[LANE_SNAPSHOTS_MAX], *snapshots_free;
    uint32_t          generations[REACTOR_SHARDS_MAX];   /* per shard that had a batch fail */

    /* read by any thread */
    bool               refusing;         /* atomic */
    bool               doubted;          /* atomic: something shown is lost, no mark at the end */
    struct store_stats stats;            /* atomic fields; `reads`, `read_ns`: the reader's */
};

static inline void lane_stat_set(uint64_t *stat, uint64_t value)
{
    __atomic_store_n(stat, value, __ATOMIC_RELAXED);
}
static inline void lane_stat_add(uint64_t *stat, uint64_t value)   /* one writer a field */
{
    __atomic_store_n(stat, *stat + value, __ATOMIC_RELAXED);
}

/* OK, ERR_FULL (no room), ERR_MEMORY or ERR_IO. */
err_t lane_error(int lmdb_code);
static inline MDB_val lane_val(struct slice s) { return (MDB_val){s.bytes, (void *)s.ptr}; }
static inline struct slice lane_slice(MDB_val v)
{
    return slice_of(v.mv_data, (uint32_t)v.mv_size);
}
static inline MDB_val lane_key(struct format_key *k) { return (MDB_val){k->count, k->bytes}; }

/* ---- lane_floor.c: a channel as one transaction and its tail show it. Any thread ---- */

struct lane_view {
    MDB_txn                 *txn;
    const MDB_dbi           *dbis;
    uint64_t                 chan;
    bool                     known;      /* the head exists */
    struct format_head       head;
    struct slice             app_id, channel;   /* borrow the transaction */
    const struct lane_entry *tail;       /* borrowed; rows_before and row_bytes_before of an entry e
                                            count from the channel's birth as head.rows +
                                            e.rows_before - tail[0].rows_before, likewise bytes */
    uint32_t                 tail_count;
};

/* ERR_IO: a head that fails its checksum. An unknown channel is no error (known false). */
MUST_CHECK err_t lane_view_open(struct lane_view *v, MDB_txn *txn, const MDB_dbi *dbis,
                                uint64_t chan, const struct lane_entry *tail, uint32_t tail_count);

struct lane_floors {
    uint64_t row;        /* F: delivery serial of the oldest retained row; delivery + 1: no row */
    uint64_t version;    /* V: of the oldest record that version retention keeps, likewise; a reset
                            moves F alone, a purge both */
    uint64_t replay;     /* min(F, V), at least head.floor: the oldest record that is shown */
    uint64_t physical;   /* less what receipts keep: records below may be deleted */
    uint64_t row_first;  /* history serial of the oldest retained row; 0: none */
    uint64_t row_first_ms;
    uint64_t rows_count, rows_bytes;     /* retained */
};
/* The newest record and row, committed: from the tail, else the head. */
uint64_t lane_view_delivery(const struct lane_view *v);
uint64_t lane_view_time_ms(const struct lane_view *v);
uint64_t lane_view_history_next(const struct lane_view *v);
MUST_CHECK err_t lane_floors(const struct lane_view *v, const struct store_policy *policy,
                             uint64_t now_ms, struct lane_floors *out);
/* True: no segment lies wholly below floors.physical. Looks at the oldest segment only; false
 * says nothing. */
bool lane_keeps_oldest(const struct lane_view *v, const struct store_policy *policy,
                       uint64_t now_ms);
/* Everything a store_head says, floors applied. */
MUST_CHECK err_t lane_head(const struct lane_view *v, const struct store_policy *policy,
                           uint64_t now_ms, struct store_head *out);
/* The segment that holds `delivery`, else the first one after it. false: none, or the search failed
 * (*e). `value` borrows the transaction and is not yet checked. */
bool lane_segment_at(const struct lane_view *v, uint64_t delivery, struct slice *value, err_t *e);
/* Finds a stored channel's number by name; 0: never seen. */
MUST_CHECK err_t lane_name_find(MDB_txn *txn, const MDB_dbi *dbis, struct slice app_id,
                                struct slice channel, uint64_t *chan);
/* The mark that this name shares, all 0 when there is none. ERR_IO: it fails its checksum. */
MUST_CHECK err_t lane_mark_find(MDB_txn *txn, const MDB_dbi *dbis, uint64_t name_hash,
                                struct format_mark *out);
/* The packed record of a tail entry, checked; false: missing or bad. Borrows the transaction. */
bool lane_entry_read(MDB_txn *txn, const MDB_dbi *dbis, const struct lane_entry *e,
                     struct slice *packed, struct record *out);

/* ---- reader.c: on the reader thread, unless said otherwise ---- */

MUST_CHECK err_t reader_open(struct reader **out, struct lane *l);   /* main */
void reader_close(struct reader **r);                                /* main; frees waiting work */
/* Takes MAIL_SNAPSHOT letters from its post (reactor_post_take), answers MAIL_READ_DONE to the
 * read's shard and MAIL_SNAPSHOT_BACK to the committer: arg0 0: free (read done); 1: renew for the
 * same read (snapshot.chan says whose tail is wanted; `work` is kept). Posts only: the caller
 * flushes. True when more work is left. */
bool reader_round(struct reader *r);
/* Frees snapshot.work of a read that will not go on (close). Any thread. */
void reader_work_free(void *work);
