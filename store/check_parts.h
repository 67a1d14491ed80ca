/* check_parts.h - what the files of the offline check owe each other. All of it runs in the child
 * that reads one lane.
 *
 * Shape    check.c: children and lines; check_lane.c: the lane as a whole; check_tree.c: keys in
 *          order; check_wal.c: wal and tails; check_chan.c: a channel's records; check_msgs.c:
 *          parts and bases; check_members.c: presence; check_stat.c: counts.
 * Threads  One.
 * Memory   malloc; check_need ends the child when there is none.
 * Errors   check_find: one finding. A finding does not end the check.
 */
#pragma once
#include "store/check.h"
#include "store/reader.h"

enum { CHECK_FINDINGS_MAX = 200 /* listed for one lane */, CHECK_LINE_BYTES = 512 };

struct check_entry {                     /* a record of the wal that is in no segment */
    uint64_t          chan;
    struct lane_entry e;
};

struct check_gone { uint64_t chan, seq; };   /* a channel without a head in wal value `seq` */
struct check_gones { struct check_gone *all; uint32_t count, room; };   /* owned */

struct check_counts {
    uint64_t channels, records, segments, rows, parts, bases, wal_values, receipts, members, bytes;
};

struct check {
    const char         *path;            /* of the lane */
    uint32_t            index;
    int                 fd;              /* lines go here */
    MDB_env            *env;
    MDB_txn            *txn;
    MDB_dbi             dbis[FORMAT_DBS];
    struct format_lane  said;
    uint64_t            findings;
    struct check_counts counts;
    struct check_entry *entries;         /* owned; by channel and delivery serial */
    uint32_t            entries_count, entries_room;
    struct check_gones  headless, forgotten;   /* of the wal */
    struct lane_entry  *tail;            /* owned; of the channel at hand */
    uint32_t            tail_room;
    uint64_t            chan_next;
};

/* check.c. `kind`: 'F' finding, 'T' text, 'I' identity of the lane, 'C' it cannot be checked. */
void check_say(struct check *c, char kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void check_find(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *check_need(void *ptr, size_t count, size_t size);   /* realloc that does not fail */

/* check_lane.c: bodies of the children. */
void check_lane(struct check *c);
bool check_open(struct check *c);
void check_close(struct check *c);
void check_stat_lane(struct check *c);

void check_tree(struct check *c);
void check_wal(struct check *c);
/* Entries of a channel's tail, as a view wants them. */
const struct lane_entry *check_tail(struct check *c, uint64_t chan, uint32_t *count);
/* Every channel that has a head. */
void check_channels(struct check *c);

struct check_chan;
struct check_segment {                   /* a record of the segment at hand */
    uint64_t message, delivery;
    uint32_t offset;
    bool     mutation;
};
/* Each message with mutations in this segment has its part: `listed` counts the parts found, apart
 * from those of messages created below `known_from`, which may have been swept away. */
void check_parts(struct check *c, uint64_t chan, uint64_t first, uint64_t known_from,
                 struct check_segment *records, uint32_t count, uint64_t *listed);
/* Parts that list nothing (`listed` UINT64_MAX: that is not known), and bases: folded again from
 * `source`. */
void check_msgs(struct check *c, struct reader_source *source, uint64_t known_from,
                uint64_t listed);

struct check_members {
    struct check_member { uint64_t high, low, delivery; struct slice packed; bool removed; } *all;
    uint32_t count, room;                /* owned; events of one channel, as they come */
};
void check_member_add(struct check_members *m, const struct record *r, struct slice packed);
/* The log's newest events against what is kept as open. */
void check_members(struct check *c, uint64_t chan, uint64_t known_from, uint64_t purge_floor,
                   struct check_members *m);
