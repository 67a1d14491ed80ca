/* reader.h - private to the read side (reader*.c) and to the offline check: finding the records of
 * a channel in one transaction, and the reads that are made of them.
 *
 * Shape    A source is one channel as one transaction and its tail show it. Records are found by
 *          delivery serial (reader_find), rows by history serial or time (reader_row_seek), a
 *          message's records by walking its parts (reader_walk_*). Each kind of store_read is a
 *          step function that goes on where it stopped; what it needs for that is in its
 *          reader_work.
 * Threads  One owner: the reader thread, or the check.
 * Bounds   A step ends with READER_AGAIN once reader_over says so, but never without progress, and
 *          is called again with the next snapshot. read.upto freezes what may be seen, so the
 *          answer is the same however often that happens.
 * Memory   Everything found borrows the transaction. Works and answers are malloc'ed.
 * Errors   Functions answer enum store_read_status, or READER_AGAIN.
 * Source   design D6.
 */
#pragma once
#include "store/fold.h"
#include "store/lane.h"

enum { READER_AGAIN = 100 };

/* ---- reader_find.c: a channel's records ---- */

/* A segment that is looked at; borrows the transaction. */
struct reader_segment {
    bool                  loaded;
    struct format_segment seg;
    struct slice          records, rows;
    uint64_t              next;          /* where the last search stopped: delivery serial, */
    uint32_t              next_offset;   /* and its place among the records */
};

enum { READER_MAIN, READER_ASIDE, READER_SEGMENTS };   /* aside: contexts, so that runs stay runs */

struct reader_source {
    struct lane_view          view;      /* cut to what may be seen */
    struct reader_segment     segments[READER_SEGMENTS];
    const struct lane_entry **mutations; /* owned; of the tail, by message and delivery */
    uint32_t                  mutations_count;
    bool                      mutations_known;
    uint64_t                  began_ns, touched;   /* bytes of values looked at */
    uint32_t                  steps;     /* units of progress made in this snapshot */
};

struct reader_found {
    struct slice  packed;
    struct record r;
};

void reader_source_close(struct reader_source *s);
/* A snapshot is used up: let the committer make a new one. */
bool reader_over(const struct reader_source *s);
/* Cuts the view to what was there at delivery serial `upto`. STORE_READ_IO: it was not. */
MUST_CHECK int reader_cut(struct reader_source *s, uint64_t upto);
/* STORE_READ_NOT_FOUND: no such record (any more). */
MUST_CHECK int reader_find(struct reader_source *s, uint64_t delivery, uint32_t which,
                           struct reader_found *out);
/* Loads the segment that holds `delivery`. STORE_READ_NOT_FOUND: none does. */
MUST_CHECK int reader_segment_load(struct reader_source *s, uint64_t delivery, uint32_t which);
static inline uint64_t reader_message_of(const struct record *r)
{
    return r->message != 0 ? r->message : r->delivery;
}
/* Says nothing but data: a frame of it needs its context record. */
static inline bool reader_needs_context(const struct record *r)
{
    return r->kind == RECORD_APPEND && (r->flags & RECORD_WHOLE) == 0;
}

/* ---- reader_walk.c: a message's records, in one direction ---- */

struct reader_walk {
    struct reader_source *s;
    uint64_t     message, upto;          /* upto: inclusive */
    uint64_t     at;                     /* delivery serial of the last one given; exclusive */
    bool         backward;
    bool         part_loaded, parts_done;
    uint64_t     part;                   /* its segment's first delivery serial */
    struct slice offsets, records;
    uint32_t     index;                  /* forward: next one to look at; backward: one behind it */
};

/* forward: records behind `at`; backward: records before `at` (0: from the newest). */
void reader_walk_open(struct reader_walk *w, struct reader_source *s, uint64_t message,
                      uint64_t at, uint64_t upto, bool backward);
/* STORE_READ_NOT_FOUND: no more. The first record of all is the create, if it still exists. */
MUST_CHECK int reader_walk_next(struct reader_walk *w, struct reader_found *out);
/* Is there anything but the create? */
MUST_CHECK int reader_mutated(struct reader_source *s, uint64_t message, bool *out);
/* The message's base; `loaded` false: there is none. */
struct reader_base {
    bool               loaded;
    struct format_base base;
    struct slice       ops;
    struct record      r;
};
MUST_CHECK int reader_base_find(struct reader_source *s, uint64_t message,
                                struct reader_base *out);

/* ---- reader_seek.c: rows by history serial or time ---- */

struct reader_row {
    bool     found;
    uint64_t delivery, history, time_ms;
};
/* The oldest row from delivery serial `floor` on whose history serial (or time) is at least
 * `least`. */
MUST_CHECK int reader_row_seek(struct reader_source *s, uint64_t floor, bool by_time,
                               uint64_t least, struct reader_row *out);

/* ---- reader.c, reader_*.c: the reads ---- */

struct reader_set {                      /* delivery serials */
    uint64_t *slots;                     /* owned; 0: empty */
    uint32_t  count, room;               /* room: a power of two */
};

struct reader_work {
    bool                started;
    uint8_t            *out;             /* owned */
    uint64_t            out_bytes, out_room;
    uint32_t            records, items;  /* items: records or rows that were asked for */
    uint64_t            at;              /* how far it came */
    uint64_t            low, high;       /* ROWS: history serials */
    uint64_t            floor;           /* MESSAGE, VERSIONS: oldest version that is kept */
    bool                folding;
    uint64_t            fold_message;
    struct fold         fold;
    struct reader_set   contexts;        /* whole records that stand in the answer */
    uint64_t           *ops;             /* owned; pairs */
    uint32_t            ops_count, ops_room;
    struct store_receipt *receipts;      /* owned */
    uint32_t            receipts_count, receipts_room;
    bool                members_done;    /* ACTIVE */
    uint8_t             key[FORMAT_KEY_BYTES_MAX];   /* ACTIVE: last one handled */
    uint32_t            key_bytes;
    uint32_t            unreadable;      /* ACTIVE: values that were left out */
    uint64_t            member_chan;     /* ACTIVE: the channel of `key`, */
    bool                member_wanted;   /* and whether it is in the slots */
};

typedef int reader_step(struct reader_source *s, struct store_read *r, struct reader_work *w,
                        const struct store_policy *policy);
reader_step reader_range, reader_message, reader_versions, reader_rows;
/* These are not about one known channel. */
int reader_open_channel(struct reader_source *s, struct snapshot *snap, struct reader_work *w,
                        const struct store_conf *conf);
int reader_active(struct reader_source *s, struct store_read *r, struct reader_work *w);

/* Copies a packed record into the answer. */
MUST_CHECK int reader_put(struct reader_work *w, struct slice packed);
/* Packs a record into it: one with other flags than the stored one, or a folded one. */
MUST_CHECK int reader_put_record(struct reader_work *w, const struct record *r);
/* Puts the context of an append, unless it stands in the answer already. */
MUST_CHECK int reader_put_context(struct reader_source *s, struct reader_work *w,
                                  const struct record *append);
MUST_CHECK int reader_set_add(struct reader_set *set, uint64_t delivery);
bool reader_set_has(const struct reader_set *set, uint64_t delivery);
/* Folds `message` into w.fold as of `upto`; gathers op hashes when `ops`. STORE_READ_NOT_FOUND: its
 * create is gone, or it is no message. */
MUST_CHECK int reader_fold(struct reader_source *s, struct reader_work *w, uint64_t message,
                           uint64_t upto, bool ops);
static inline uint64_t reader_bytes_max(const struct store_read *r)
{
    return r->bytes_max != 0 ? r->bytes_max : STORE_READ_BYTES_MAX;
}
