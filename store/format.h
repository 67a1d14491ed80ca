/* format.h - what lies in a lane's directory: the databases, their keys and their values.
 *
 * Shape    A lane is an LMDB environment (<data directory>/lane-NN) with the databases below. Keys
 *          are big-endian, so that they sort as numbers; values are little-endian structs, followed
 *          by packed records (store/record.h) or text. LMDB promises no alignment: values are
 *          copied out with format_* before they are looked at.
 *            wal       seq                     format_wal, packed records of one commit
 *            segments  chan, first delivery    format_segment, packed records, format_row each row
 *            msgs      chan, message, part     format_part, offset each record; the last part is
 *                                              format_base, op pairs, one folded record
 *            receipts  newest ms, seq, hash    packed RECORD_REQUEST records of one commit; the
 *                                              hash is of these bytes and of seq
 *            names     hash of name, chan      empty
 *            heads     chan                    format_head, app id, channel name
 *            presence  chan, hash of user      one packed RECORD_PRESENCE: the member's newest
 *            meta      text                    format_lane under "lane"; "clean" after a clean end;
 *                      'f', a name's bucket    format_mark
 * Order    A channel's records lie in its segments up to head.delivery, and in the wal after it;
 *          both contiguous. All that is below head.floor is gone. A record of the wal whose
 *          delivery serial is not above its head is dead. Records without a delivery serial act on
 *          heads in the commit that brings them and are dead from then on. Values of the wal are in
 *          order of commits, but records that were moved to a newer value follow later ones of
 *          their channel. A channel that was forgotten has no key left but its mark; records of it
 *          in the wal are dead because a RECORD_FORGET follows them, which stays until every value
 *          before its own is gone. Numbers of channels are not given out twice.
 * Threads  Pure.
 * Memory   Nothing is owned here.
 * Errors   false: too short, wrong length, or a wrong checksum. Records carry their own; a value's
 *          `check` covers its struct, and what lies behind it that is not a record.
 * Source   design D6.
 */
#pragma once
#include "store/record.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are stored as they lie in memory");

enum format_db {
    FORMAT_WAL, FORMAT_SEGMENTS, FORMAT_MSGS, FORMAT_RECEIPTS, FORMAT_NAMES, FORMAT_HEADS,
    FORMAT_PRESENCE, FORMAT_META, FORMAT_DBS
};
extern const char *const format_db_names[FORMAT_DBS];
#define FORMAT_META_LANE "lane"
#define FORMAT_META_CLEAN "clean"

enum {
    FORMAT_SEGMENT_BYTES_MAX = 256 << 10,   /* of records, unless one alone is longer */
    FORMAT_KEY_BYTES_MAX = 24,
    FORMAT_MARK_KEY_BYTES = 3,              /* 65,536 buckets */
};
#define FORMAT_PART_BASE UINT64_MAX         /* `part` of a message's folded base */

/* ---- keys ---- */

struct format_key { uint8_t bytes[FORMAT_KEY_BYTES_MAX]; uint32_t count; };   /* count: of bytes */
struct format_key format_key1(uint64_t a);                          /* wal, heads */
struct format_key format_key2(uint64_t a, uint64_t b);              /* segments, names */
struct format_key format_key3(uint64_t a, uint64_t b, uint64_t c);  /* msgs, receipts */
struct format_key format_presence_key(uint64_t chan, struct slice user);
struct format_key format_receipts_key(uint64_t newest_ms, uint64_t seq, struct slice value);
/* The index-th number of a key; false when the key is too short. */
bool format_key_part(struct slice key, uint32_t index, uint64_t *out);
/* First half of a key of `names`. */
uint64_t format_name_hash(struct slice app_id, struct slice channel);
/* Of the mark that names with such a hash share: FORMAT_MARK_KEY_BYTES long. */
struct format_key format_mark_key(uint64_t name_hash);
/* Of a hidden channel "[...]{c}" the name of c, of any other its own. */
struct slice format_main_name(struct slice channel);
/* The slot of a stored channel: hidden channels belong to the slot of theirs. */
uint32_t format_slot(struct slice app_id, struct slice channel);

/* ---- values: `check` is the first member of each, set last, by format_check ---- */

struct format_lane {                       /* meta "lane" */
    uint64_t check;
    uint32_t format, lane, lanes;
    uint32_t losses;                       /* starts that found no clean mark */
    char     store_id[32];                 /* ends with 0 */
    uint64_t made_ms;
};

/* What is left of channels that were forgotten, for all names of a bucket together. */
struct format_mark {
    uint64_t check;
    uint64_t epoch;                        /* that of a channel without a head: another one each
                                              time; even, not 0, as no drawn one and no first is */
    uint64_t time_ms;                      /* no record of theirs was newer */
};

struct format_wal {
    uint64_t check;
    uint64_t seq;
    uint64_t chan_next;                    /* numbers below were given out */
    uint64_t wall_ms;
    uint32_t records_count, records_bytes;
};

/* One history row, as segments list them and as heads remember the last one. */
struct format_row {
    uint64_t delivery, history, time_ms;   /* delivery 0: there was none yet */
    uint32_t offset, bytes;                /* of the packed record, among the segment's records */
};

struct format_segment {
    uint64_t check;                        /* over struct and rows */
    uint64_t chan, first, last;            /* delivery serials, contiguous */
    uint64_t first_ms, last_ms;
    uint64_t reserved;                     /* 0, as the last one */
    uint64_t rows_before, row_bytes_before;   /* since the channel's birth, without these */
    uint64_t row_bytes;                    /* of the rows in here */
    struct format_row last_row;            /* newest row in here or in any segment before */
    uint32_t records_count, records_bytes, rows_count, reserved_too;
};

struct format_head {
    uint64_t check;                        /* over struct and texts */
    uint64_t delivery, time_ms;            /* newest record in segments (or dropped); 0: none */
    uint64_t rows, row_bytes;              /* since the channel's birth, up to `delivery` */
    struct format_row last_row;            /* up to `delivery` */
    uint64_t floor;                        /* oldest delivery serial that exists, at least 1 */
    /* set by the commit that brings RESET, PURGE or EPOCH, whatever is still in the wal */
    uint64_t delivery_epoch, history_epoch;
    uint64_t reset_floor;                  /* rows created up to it are gone */
    uint64_t purge_floor;                  /* likewise, and all records up to it */
    uint64_t reset_ms;
    uint32_t flags;                        /* FORMAT_HEAD_RELAXED */
    uint16_t app_bytes, name_bytes;
};
enum { FORMAT_HEAD_RELAXED = 1 };          /* a record up to `delivery` had RECORD_RELAXED */

/* Where a mutated message's records are: one part for each segment that has some of them since the
 * message's first mutation (with the create, if it is in the same segment). `part` of the key is
 * the segment's first delivery serial. A create in an older segment is found by its own serial. */
struct format_part {
    uint64_t check;                        /* over struct and offsets */
    uint64_t first, last;                  /* delivery serials of the message's records in here */
    uint32_t records_count;                /* offsets (uint32_t) follow, in delivery order */
    uint32_t records_bytes;
};

/* The message folded as of `delivery`, with all its op hashes so far. */
struct format_base {
    uint64_t check;                        /* over struct and op pairs */
    uint64_t delivery;
    uint32_t appends, versions;            /* counted since the create */
    uint32_t ops_count, record_bytes;      /* pairs (op_hash, delivery); then the record */
};

/* XXH3 of what stands before the records at `records_at`, less the first 8 bytes, seeds that of
 * what stands behind their `records_bytes` bytes: records carry checksums of their own. */
uint64_t format_check(struct slice value, uint32_t records_at, uint32_t records_bytes);

bool format_lane_read(struct slice value, struct format_lane *out);
bool format_mark_read(struct slice value, struct format_mark *out);
/* An epoch for a mark, made of facts that never come together twice. */
uint64_t format_mark_epoch(struct slice facts);
/* `records`: the packed records, not yet checked themselves. All borrow `value`. */
bool format_wal_read(struct slice value, struct format_wal *out, struct slice *records);
bool format_segment_read(struct slice value, struct format_segment *out, struct slice *records,
                         struct slice *rows);
bool format_head_read(struct slice value, struct format_head *out, struct slice *app_id,
                      struct slice *channel);
bool format_part_read(struct slice value, struct format_part *out, struct slice *offsets);
bool format_base_read(struct slice value, struct format_base *out, struct slice *ops,
                      struct slice *record);
/* The index-th row or offset of the slices above. */
struct format_row format_row_at(struct slice rows, uint32_t index);
uint32_t format_offset_at(struct slice offsets, uint32_t index);
