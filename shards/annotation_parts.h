/* annotation_parts.h - between the parts of annotation_book.h.
 *
 * Shape    annotation_book.c keeps the summaries of channels, annotation_push.c makes their frames.
 * Threads  The home shard.
 */
#pragma once
#include "core/table.h"
#include "shards/annotation_book.h"

struct annotation_subject {              /* one message and type */
    struct table_node          node;     /* by message */
    struct annotation_subject *next, **link;   /* annotated last first */
    uint64_t                   first_row, last_row;   /* history serials of its events */
    struct annotation_summary  summary;
    uint32_t                   message_bytes, type_bytes;
    uint8_t                    bytes[];
};

struct annotation_deleted {              /* a create that a delete has been sequenced for */
    struct table_node          node;
    struct annotation_deleted *next;
    uint64_t                   target;   /* serial of the create */
    uint64_t                   delivery; /* of the delete; 0 until it is known */
    bool                       committed;
};

struct annotation_channel {
    struct table_node          node;     /* by app and name */
    struct annotation_channel *older, *newer;
    struct table               subjects, deletes;
    struct annotation_subject *subjects_first;
    struct annotation_deleted *deletes_first;
    struct want               *waits_first, *waits_last;
    uint32_t                   flying;
    uint64_t                   bytes;    /* of summaries and deletes */
    uint64_t                   flying_bytes;   /* of records in flight: what they may add */
    uint64_t                   read_upto;/* loading: rows taken so far */
    uint32_t                   rows;     /* loading: asked for at a time */
    uint64_t                   read_ms;  /* when it was read, reactor time */
    uint64_t                   read_wall_ms;   /* the same, wall time */
    uint64_t                   oldest_ms;/* of its oldest event, wall time; 0: it has none */
    bool                       loading, broken;
    bool                       opened;   /* the tables: most channels have no annotation */
    uint32_t                   app, name_bytes;
    uint8_t                    name[];
};

static inline struct slice annotation_subject_message(const struct annotation_subject *s)
{
    return slice_of(s->bytes, s->message_bytes);
}
static inline struct slice annotation_subject_type(const struct annotation_subject *s)
{
    return slice_of(s->bytes + s->message_bytes, s->type_bytes);
}

/* What a frame of the app's may hold. */
uint64_t annotation_frame_bytes_max(const struct shard *sh, uint32_t app);
/* A summary has changed by an event: frames for the subscribers. */
void annotation_push(struct shard *sh, struct home *h, const struct annotation_channel *ch,
                     const struct annotation_subject *s, const struct record *r);
