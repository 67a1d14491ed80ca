/* annotation.h - what the annotations of one message and type add up to: the five summarizers.
 *
 * Shape    A summary is fed the events of its (message, type) in serial order and is always up to
 *          date: an event costs a search by halves. Writing costs what is written.
 * Threads  One owner; no I/O.
 * Memory   Grown from the heap given; annotation_free gives everything back. `bytes` says how much
 *          it is: who feeds it decides what is too much.
 * Errors   ERR_MEMORY: the event was not applied.
 * Source   spec/messages-and-history.md 9.
 */
#pragma once
#include "proto/pusher.h"
#include "shards/api_parts.h"

enum annotation_kind {
    ANNOTATION_TOTAL, ANNOTATION_FLAG, ANNOTATION_DISTINCT, ANNOTATION_UNIQUE,
    ANNOTATION_MULTIPLE,
};

enum { ANNOTATION_TYPE_BYTES_MAX = 256 };

/* "{namespace}:{summarizer}.v1". False: `error` is the text of the 400. */
bool annotation_type_parse(struct slice type, enum annotation_kind *out,
                           char error[PUSHER_ERROR_TEXT_BYTES]);
static inline bool annotation_wants_name(enum annotation_kind k)
{
    return k == ANNOTATION_DISTINCT || k == ANNOTATION_UNIQUE || k == ANNOTATION_MULTIPLE;
}
static inline bool annotation_wants_client(enum annotation_kind k)
{
    return k == ANNOTATION_FLAG || k == ANNOTATION_DISTINCT || k == ANNOTATION_UNIQUE;
}

struct annotation_event {
    bool         removed;              /* a delete, with the texts of what it deletes */
    struct slice name, client;         /* plain text; ptr NULL: none */
    uint64_t     count;                /* 1 when none was given */
};

struct annotation_name;                /* a name's clients */

struct annotation_summary {
    enum annotation_kind     kind;
    struct heap             *heap;
    uint64_t                 total;    /* TOTAL */
    struct annotation_name **names;    /* owned; sorted; FLAG has one, without a name */
    uint32_t                 names_count, names_room;
    uint64_t                 clients_bytes;   /* of all client ids, as JSON strings */
    uint64_t                 names_bytes;     /* what all names take in the JSON, at most */
    uint64_t                 bytes;           /* of memory, for names and clients */
};

MUST_CHECK err_t annotation_apply(struct annotation_summary *s, const struct annotation_event *e);
/* names_bytes, were this name among them; ptr NULL: none. */
uint64_t annotation_names_bytes(const struct annotation_summary *s, struct slice name);
/* The summary's JSON value with at most clients_max clients listed for each name. */
void annotation_write(struct api_text *t, const struct annotation_summary *s, uint32_t clients_max);
void annotation_free(struct annotation_summary *s);
