/* api_events.h - between the parts of POST /events and /batch_events.
 *
 * Shape    api_event_read.c turns a body into struct event_work, everything validated; api_events.c
 *          claims its idempotency keys, publishes and answers.
 * Threads  The shard.
 * Memory   JSON values point into the request's bytes: valid while it is handled for the first
 *          time, and later only where the op has kept them (requests with keys). Names and keys
 *          are copied.
 */
#pragma once
#include "proto/pusher.h"
#include "shards/api_parts.h"
#include "shards/home.h"

struct event {
    struct json_value name, data;
    struct json_value channels, channel, socket_id, info_text, key_text;   /* reading only */
    uint8_t          *data_made;        /* owned; the data when it is not a string, as one */
    uint32_t          data_made_bytes;
    uint32_t          targets_first, targets_count;
    uint64_t          except_a, except_b;
    uint32_t          info;             /* enum api_info */
    bool              with_info;        /* answered with attributes */
    bool              skipped;          /* its key was known: not published */
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
    uint64_t              subscriptions, users;
};

struct event_work {
    struct event   *events;             /* owned, as the next two */
    struct target  *targets;
    uint8_t        *bytes;              /* names and keys */
    uint32_t        events_count, targets_count, targets_room;
    uint64_t        bytes_count, bytes_room;
    bool            batch;
    bool            keys;               /* some key is to be claimed */
    struct slice    key;                /* of the whole request; ptr NULL: none */
    struct op_claim claim;
    uint32_t        claim_next;         /* 0: the whole request's; i: event i - 1 */
};

/* NULL: the request has been refused. */
struct event_work *api_event_read(struct api_call *call);
/* Releases claims that are still held. */
void api_event_free(struct shard *sh, struct event_work *w);
