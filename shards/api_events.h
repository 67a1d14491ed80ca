/* api_events.h - between the parts of POST /events and /batch_events.
 *
 * Shape    api_event_read.c turns a body into struct event_work, everything validated; api_events.c
 *          claims its idempotency keys, asks who its sockets are, publishes and waits;
 *          api_event_content.c knows what a channel with memory wants to be told beside the frame;
 *          api_event_answer.c writes the answers.
 * Threads  The shard.
 * Memory   JSON values point into the request's bytes: valid while it is handled for the first
 *          time, and later only where the op has kept them (requests with keys, or with sockets
 *          whose users are asked for). Names and keys are copied.
 */
#pragma once
#include "proto/pusher.h"
#include "shards/actor.h"
#include "shards/api_parts.h"
#include "shards/stream.h"

struct event {
    struct json_value name, data;
    struct json_value message_id, tags, extras_text;
    struct json_value channels, channel, socket_id, info_text, key_text;   /* reading only */
    struct v2_extras  extras;           /* its canonical form lies in extras_made */
    uint8_t          *extras_made;      /* owned; extras_text.text_bytes */
    uint8_t          *data_made;        /* owned; the data when it is not a string, as one */
    uint32_t          data_made_bytes;
    uint32_t          targets_first, targets_count;
    uint64_t          except_a, except_b;
    uint32_t          info;             /* enum api_info */
    bool              with_info;        /* answered with attributes */
    bool              skipped;          /* its key was known: not published */
    bool              owner_wanted;     /* whose socket it names is to be asked */
    uint8_t          *owner;            /* owned; his user id; NULL: nobody's */
    uint32_t          owner_bytes;
    struct slice      id;               /* its message id, decoded; ptr NULL: none */
    struct slice      key;              /* of a batch item; ptr NULL: none */
    struct op_claim   claim;
};

struct target {                         /* one distinct channel of one event */
    struct slice          name;
    struct pusher_channel kind;
    struct publish       *publish;      /* until it is posted */
    struct frame         *frame;        /* until it is posted */
    uint32_t              event;
    uint16_t              home;
    uint16_t              status;       /* enum home_status */
    bool                  content;      /* its home gets a struct content, not a frame */
    bool                  versioned;    /* it has become a message: the serials below are set */
    bool                  keyed;        /* its home looked for a receipt */
    bool                  duplicate;    /* ... and found it */
    uint64_t              subscriptions, users;
    uint64_t              delivery, history, time_ms, create, create_ms;
};

struct event_work {
    struct event   *events;             /* owned, as the next two */
    struct target  *targets;
    uint8_t        *bytes;              /* names and keys */
    uint32_t        events_count, targets_count, targets_room;
    uint64_t        bytes_count, bytes_room;
    uint32_t        app;
    bool            batch;
    bool            keys;               /* some key is to be claimed */
    bool            owners;             /* some socket's user is to be asked for */
    struct slice    key;                /* of the whole request; ptr NULL: none */
    struct op_claim claim;
    uint32_t        claim_next;         /* 0: the whole request's; i: event i - 1 */
    uint32_t        owner_next;
    struct actor    actor;              /* lent while it is asked for */
    struct api_text answer;             /* owned; while keys are being stored */
};

/* NULL: the request has been refused. */
struct event_work *api_event_read(struct api_call *call);
/* Releases claims that are still held. */
void api_event_free(struct shard *sh, struct event_work *w);

/* ---- api_event_content.c ---- */

/* Extras, tags and message id of an event: shape (422), then the rules. False: refused. */
bool api_event_shape_more(struct api_call *call, struct event *e);
bool api_event_check_more(struct api_call *call, const struct event *e);
/* Does the home of this target want content? Sets t->content and e->owner_wanted. */
void api_event_settle(const struct shard *sh, uint32_t app, struct event *e, struct target *t);
/* What its home is told. The event's data is a string (data_made). NULL at the heap's bound. */
struct content *api_event_content(struct shard *sh, uint32_t app, const struct event_work *w,
                                  const struct event *e, const struct target *t);

/* ---- api_event_answer.c ---- */

/* Every home has answered: which publishes had a key, which were answered from an earlier one. */
void api_event_count(struct shard *sh, uint32_t app, const struct event_work *w);

/* What POST /events answers for this event; what the whole batch does. */
void api_event_write(struct shard *sh, struct api_text *t, const struct event_work *w,
                     const struct event *e);
void api_event_write_batch(struct shard *sh, struct api_text *t, const struct event_work *w);
