/* lane_parts.h - what the files of the committer owe each other.
 *
 * Shape    lane_open (scan) -> lane_begin, when all lanes are open -> lane_round: letters, commits,
 *          reads, background -> lane_close.
 *          A write transaction is: puts; lane_pack_some; commit; then lane_*_applied changes RAM,
 *          or lane_*_undone forgets what was planned.
 * Threads  The committer's (open and close: main, while no thread runs).
 * Memory   malloc. RAM that a commit needs is made before the commit.
 * Errors   lane_damage says once that a stored value is wrong; the lane then refuses for good.
 */
#pragma once
#include "store/lane.h"

/* ---- lane_open.c ---- */
MUST_CHECK err_t lane_open(struct lane *l, char *error, uint32_t error_bytes);
/* Takes the clean mark away, or counts that it was missing: the first write of a start. */
MUST_CHECK err_t lane_begin(struct lane *l, char *error, uint32_t error_bytes);
/* clean: everything was committed, so the mark may be set. */
void lane_close(struct lane *l, bool clean);
/* The environment of a lane that `failed` is opened anew once the disk takes its meta pages, if it
 * stands where the tail index does. True: the lane is no longer damaged. */
bool lane_reopen(struct lane *l);
/* What the directory says of itself: 0 lanes when there is none yet. Errors fill `error`. */
MUST_CHECK err_t lane_probe(const char *dir, uint32_t index, struct format_lane *out, char *error,
                            uint32_t error_bytes);
MUST_CHECK err_t lane_make(const char *dir, const struct format_lane *made, char *error,
                           uint32_t error_bytes);

/* Writes this number into the lane's description, if it says a lower one. */
MUST_CHECK err_t lane_format_need(struct lane *l, MDB_txn *txn, uint32_t format);

/* ---- lane_scan.c ---- */
MUST_CHECK err_t lane_scan(struct lane *l, MDB_txn *txn, char *error, uint32_t error_bytes);

/* ---- lane_tail.c ---- */
MUST_CHECK err_t lane_tail_open(struct lane *l);
void lane_tail_close(struct lane *l);
static inline uint64_t lane_chan_hash(uint64_t chan)
{
    return chan * 0x9e3779b97f4a7c15u ^ chan >> 32;
}
struct lane_chan *lane_tail_find(const struct lane *l, uint64_t chan);
struct lane_chan *lane_tail_get(struct lane *l, uint64_t chan);   /* made if need be; or NULL */
MUST_CHECK err_t lane_tail_room(struct lane_chan *c, uint32_t more);
/* The caller has made room; wal_seq names the newest value or one that exists. */
void lane_tail_add(struct lane *l, struct lane_chan *c, const struct lane_entry *e);
/* Forgets the oldest n entries. A tail that is empty then and has nothing pending ends. */
void lane_tail_drop(struct lane *l, struct lane_chan *c, uint32_t n);
void lane_tail_release(struct lane *l, struct lane_chan *c);        /* ends it when it is empty */
/* After the scan: in order, and of two copies of a record only the newer. */
void lane_tail_sort(struct lane *l, struct lane_chan *c);
static inline struct lane_entry *lane_tail_entries(const struct lane_chan *c)
{
    return c->entries + c->first;
}
MUST_CHECK err_t lane_wal_room(struct lane *l, uint32_t more);
void lane_wal_add(struct lane *l, uint64_t seq, uint32_t bytes);    /* newest so far */
struct lane_wal *lane_wal_find(const struct lane *l, uint64_t seq);
void lane_wal_less(struct lane *l, struct lane_wal *w, uint32_t bytes);   /* one live record less */
struct lane_wal *lane_wal_oldest(struct lane *l);        /* that has live records; NULL: none */
void lane_wal_gone(struct lane *l, struct lane_wal *w);  /* it was deleted */

/* ---- lane_commit.c ---- */
MUST_CHECK err_t lane_commit_open(struct lane *l);
void lane_commit_close(struct lane *l);
/* Letters, commits, reads, background. True when more can be done at once. */
bool lane_round(struct lane *l);
/* Nanoseconds until lane_round has something to do by itself. */
uint64_t lane_rest_ns(const struct lane *l);
void lane_damage(struct lane *l, const char *what);
/* Begins a transaction: flags 0 or MDB_RDONLY. When LMDB takes nothing any more the lane has
 * `failed`. */
MUST_CHECK err_t lane_txn_begin(struct lane *l, unsigned flags, MDB_txn **txn);
/* Commits `txn` or aborts it; *txn is gone in any case. Counts the time. */
MUST_CHECK err_t lane_txn_commit(struct lane *l, MDB_txn **txn);
MUST_CHECK err_t lane_put(struct lane *l, MDB_txn *txn, enum format_db db, struct format_key *key,
                          struct slice value);
/* ERR_FULL and ERR_IO as lane_error; *found false when there is none. */
MUST_CHECK err_t lane_get(struct lane *l, MDB_txn *txn, enum format_db db, struct format_key *key,
                          struct slice *value, bool *found);
/* Seals the head and stores it with the channel's texts. */
MUST_CHECK err_t lane_head_put(struct lane *l, MDB_txn *txn, uint64_t chan,
                               struct format_head *head, struct slice app_id, struct slice channel);

/* ---- lane_change.c: what records do besides lying in the wal ---- */
/* CHANNEL, RESET, PURGE, EPOCH, PRESENCE act on heads, names and presence; REQUESTs are collected.
 * */
MUST_CHECK err_t lane_change(struct lane *l, MDB_txn *txn, const struct record *r,
                             struct slice packed);

/* ---- lane_heal.c: a head that cannot be read ---- */
/* What the channel's segments say of their head; floor 0: it has none. `delivery` is what they may
 * hold at the most where the newest of them cannot be read either. Any thread. */
MUST_CHECK err_t lane_head_left(MDB_txn *txn, const MDB_dbi *dbis, uint64_t chan,
                                struct format_head *out);
/* Another head: all that the channel held is purged, its epochs are new ones. */
MUST_CHECK err_t lane_head_anew(struct lane *l, MDB_txn *txn, uint64_t chan, struct slice app_id,
                                struct slice channel);

/* ---- lane_reads.c: snapshots out, snapshots back ---- */
void lane_snapshots_open(struct lane *l);
void lane_snapshots_close(struct lane *l);
/* Ends what the environment has of them; false: the reader has one. */
bool lane_snapshots_end(struct lane *l);
void lane_snapshot_back(struct lane *l, struct snapshot *s, bool renew);
/* Hands a read to the reader; false: no snapshot is free. A read that cannot begin is answered. */
bool lane_snapshot_send(struct lane *l, struct store_read *read);

/* ---- lane_pack.c ---- */
MUST_CHECK err_t lane_pack_open(struct lane *l);
void lane_pack_close(struct lane *l);
void lane_pack_want(struct lane *l, struct lane_chan *c);      /* queues it once, if it is long */
bool lane_pack_waiting(const struct lane *l);
/* Moves tails into segments, cleans the wal, deletes dead values: as much as one commit may carry.
 * A tail that is packed loses nothing in RAM before lane_pack_applied. */
MUST_CHECK err_t lane_pack_some(struct lane *l, MDB_txn *txn);
void lane_pack_applied(struct lane *l);
void lane_pack_undone(struct lane *l);

/* ---- lane_base.c ---- */
MUST_CHECK err_t lane_base_open(struct lane *l);
void lane_base_close(struct lane *l);
/* So many bytes of mutations of a message came into segments: its base may be due. Forgetful: a
 * base only makes reads cheaper. */
void lane_base_want(struct lane *l, uint64_t chan, uint64_t message, uint32_t bytes);
bool lane_base_waiting(const struct lane *l);
/* Writes the base of one message that is due. */
MUST_CHECK err_t lane_base_some(struct lane *l, MDB_txn *txn);

/* ---- lane_forget.c: head and name of channels of which nothing else is left ---- */
MUST_CHECK err_t lane_forget_open(struct lane *l);
void lane_forget_close(struct lane *l);
/* A home has it in memory; no more. */
MUST_CHECK err_t lane_hold(struct lane *l, uint64_t chan);
void lane_let_go(struct lane *l, uint64_t chan);
/* Plans to forget the channel, if it may go: at most LANE_FORGETS_MAX a transaction. */
MUST_CHECK err_t lane_forget_chan(struct lane *l, MDB_txn *txn, const struct lane_view *v,
                                  uint64_t now_ms);
bool lane_forget_planned(const struct lane *l);
/* Says in the wal who is forgotten: the last put of the transaction. */
MUST_CHECK err_t lane_forget_put(struct lane *l, MDB_txn *txn);
void lane_forget_applied(struct lane *l);
void lane_forget_undone(struct lane *l);

/* ---- lane_retain.c ---- */
MUST_CHECK err_t lane_retain_open(struct lane *l);
void lane_retain_close(struct lane *l);
/* One step of the sweep, in a transaction of its own if something is to be deleted, and the look at
 * free space when it is due. True when the sweep goes on. */
bool lane_retain_step(struct lane *l, uint64_t now_ns);
uint64_t lane_retain_due_ns(const struct lane *l);
/* A commit failed: refuse until a probe finds room again. */
void lane_retain_failed(struct lane *l, err_t e);
