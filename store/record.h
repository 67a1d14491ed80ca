/* record.h - one committed fact about a channel, packed: what the wal, the segments, cold reads and
 * a replicated log carry, and what a home applies.
 *
 * Shape    A packed record is a fixed head (lengths, checksum, serials, time) and the texts that
 *          are present. Packed records follow each other without padding. Texts that will go into
 *          frames are kept as raw JSON, so that nothing is decoded or encoded again: an append's
 *          fragment is a raw JSON string with its quotes.
 *          A record is whole when it says everything a frame needs: creates, updates, deletes, and
 *          appends that change extras are. An append that changes nothing but data refers by
 *          `context` to the newest whole record of its message.
 * Threads  Pure.
 * Memory   struct record borrows the packed bytes.
 * Errors   RECORD_SHORT: more bytes are needed. RECORD_BAD: checksum or shape is wrong.
 * Source   spec/messages-and-history.md 1-4, 6; spec/settled.md 30, 31, 36, 38, 39.
 */
#pragma once
#include "core/err.h"

enum record_kind {
    RECORD_CREATE = 1, RECORD_UPDATE, RECORD_DELETE, RECORD_APPEND,
    RECORD_PLAIN,        /* a publish while versioned messages are off: a row, never mutated */
    RECORD_PRESENCE,     /* hidden channel "[presence-history]{c}"; data: the event's JSON */
    RECORD_ANNOTATION,   /* hidden channel "[annotations]{c}"; data: the event's JSON */
    RECORD_CHANNEL,      /* names channel number `chan`: data is app id, 0x00, channel name (plain
                            bytes); delivery 0; stands before the channel's first other record. Its
                            delivery epoch begins as `history`. Of a channel whose head cannot be
                            read: it begins anew */
    RECORD_RESET,        /* rows created up to `message` are gone, but for RECORD_ENDS not their
                            messages; epoch is `history`, history serials start again at 1; takes no
                            delivery serial */
    RECORD_PURGE,        /* messages created up to `message` and their rows are gone; no serial */
    RECORD_EPOCH,        /* delivery epoch becomes `history`: continuity was lost; no serial */
    RECORD_REQUEST,      /* a finished request key: chan 0; key, print; data: the answer's body */
    RECORD_FORGET,       /* the lane's own: channels that are no more; data: their numbers, 8 bytes
                            each; chan 0. What the wal holds of them before it is dead */
};

enum record_flag {
    RECORD_WHOLE = 1,    /* says name, extras, tags, message_id, user as they are at this version */
    RECORD_FOLDED = 2,   /* made by a read, never stored: `kind` is the latest version's, data and
                            all texts are the message's state as of `delivery` */
    RECORD_RELAXED = 4,  /* was delivered before it was committed */
    RECORD_CONTEXT = 8,  /* put into an answer because an append in it refers to it; never stored */
    RECORD_ENDS = RECORD_WHOLE,    /* of a RESET: the messages of its rows are gone as well */
};

struct record {
    uint8_t  kind, flags;          /* enum record_kind, record_flag */
    uint64_t chan;                 /* the lane's number of the channel; 0: none */
    uint64_t delivery;             /* serial; contiguous from 1 in a channel */
    uint64_t history;              /* history serial of the message's create (rows); see kinds */
    uint64_t message;              /* delivery serial of the message's create: its identity */
    uint64_t time_ms;              /* never falls within a channel */
    uint64_t message_ms;           /* time_ms of the create */
    uint64_t context;              /* delivery serial of the newest whole record; own if whole */
    uint64_t op_hash;              /* of (action, op_id); 0: none */
    uint8_t  key[16], print[16];   /* publish receipt: hashed key, fingerprint of the content; print
                                      alone: fingerprint of an op_id's operation. Zero: none */
    struct slice name;             /* raw JSON string: event name or the patched one; NULL: none */
    struct slice data;             /* raw JSON value; ptr NULL: absent. APPEND: the fragment */
    struct slice extras;           /* raw JSON object, canonical (proto/v2.h), no sockudo_* */
    struct slice tags;             /* raw JSON object */
    struct slice message_id;       /* plain text, as are the rest */
    struct slice user;             /* user_id of frames; owner and client below for authorisation */
    struct slice owner;            /* original_client_id; creates and folded records */
    struct slice client;           /* version.client_id */
    struct slice op_id;
    struct slice description;
    struct slice metadata;         /* raw JSON value */
};

enum record_result { RECORD_OK, RECORD_SHORT, RECORD_BAD };

/* Exact size of the packed form, at most RECORD_BYTES_MAX (callers bound their texts). */
enum { RECORD_BYTES_MAX = 64 << 20 };
uint32_t record_bytes(const struct record *r);
/* Pack; returns record_bytes(r). */
uint32_t record_write(const struct record *r, uint8_t *out);
/* Unpack the first record of `in` and check it; *bytes is its packed length. */
enum record_result record_read(struct slice in, struct record *out, uint32_t *bytes);
/* The same without the checksum, for bytes that this process has checked or made. */
enum record_result record_peek(struct slice in, struct record *out, uint32_t *bytes);

static inline bool record_is_row(const struct record *r)       /* takes a place in history */
{
    return r->kind == RECORD_CREATE || r->kind == RECORD_PLAIN || r->kind == RECORD_PRESENCE ||
           r->kind == RECORD_ANNOTATION;
}
static inline bool record_is_version(const struct record *r)   /* takes a delivery serial */
{
    return r->kind >= RECORD_CREATE && r->kind <= RECORD_ANNOTATION;
}
static inline bool record_ends_messages(const struct record *r)   /* those up to `message` */
{
    return r->kind == RECORD_PURGE ||
           (r->kind == RECORD_RESET && (r->flags & RECORD_ENDS) != 0);
}
