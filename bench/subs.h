/* subs.h - subscribers that check what they get: every message, once, in its publisher's order.
 *
 * Shape    A run of connections of one load. Messages carry `seq=PP.NNNNNNNNNN` (publisher, number)
 *          somewhere in their payload; the number must be the one after the last.
 * Threads  The load's.
 * Memory   4 B per subscriber and publisher.
 * Errors   A lost, repeated or reordered message ends the program.
 */
#pragma once
#include "bench/load.h"

enum { SUBS_PUBLISHERS_MAX = 64, SUBS_DATA_BYTES_MIN = 17 };

struct subs {
    struct load *load;                 /* borrowed */
    uint32_t     first, count, publishers;
    uint32_t    *next;                 /* owned; [subscriber][publisher] */
    uint64_t     joined, frames;
    uint32_t     frame_bytes;          /* of one message on the wire, header included */
    uint32_t     payload_bytes;
    uint32_t     mark_at;              /* of "seq=" in the payload */
};

struct subs_kernel {                   /* sums over the subscribers, from TCP_INFO */
    uint64_t segments, bytes;
    uint32_t last_data_ms_min;         /* how long ago the latest of them got data */
};

void subs_open(struct subs *s, struct load *load, uint32_t first, uint32_t count,
               uint32_t publishers);
void subs_close(struct subs *s);
/* The frame that subscribes to a public channel; returns its length. */
int  subs_request(char *out, uint32_t out_bytes, const char *channel);
/* Subscribe all to one channel; returns when all have succeeded. */
void subs_join(struct subs *s, const char *channel);
bool subs_owns(const struct subs *s, uint32_t id);
/* Every item of a subscriber goes here. */
void subs_take(struct subs *s, uint32_t id, const struct wire_item *item);

struct subs_kernel subs_kernel(const struct subs *s);

/* The data of message `number` of a publisher: data_bytes characters and a 0. */
void subs_data(char *out, uint32_t data_bytes, uint32_t publisher, uint32_t number);
