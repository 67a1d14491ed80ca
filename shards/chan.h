/* chan.h - a channel as one shard sees it: the local subscribers.
 *
 * Shape    A channel lives here from the first local subscribe request to the last local leave. Its
 *          home (home.h) counts every subscription; a subscription joins the local list when the
 *          home's answer is handled. Homes know a local channel by its handle: index + generation.
 * Threads  The shard. A home reads chan->name and sub->presence of a subscription that waits for
 *          its answer: both are immutable meanwhile.
 * Order    Letters about one channel from its home are handled in order. A subscription that joins
 *          while a fan-out is still walking is skipped by it (fan_serial).
 * Bounds   limits.max_channels_per_connection.
 * Source   spec/pusher-v1.md 3; spec/settled.md 6, 7.
 */
#pragma once
#include "proto/pusher.h"
#include "shards/conn.h"

struct presence {                /* who a presence subscription is; lent to the home */
    struct slice id_json;        /* raw JSON string, as it goes into frames */
    struct slice id;             /* decoded */
    struct slice info_json;      /* compact JSON; "{}" when absent */
    uint32_t     bytes_count;    /* of `bytes` */
    uint8_t      bytes[];
};

enum sub_state { SUB_ASKED, SUB_JOINED, SUB_LEAVING /* left before the answer came */ };

struct sub {                     /* one socket on one channel */
    struct chan     *chan;
    uint32_t         sock, gen;
    struct sub      *chan_next, **chan_link;   /* among the channel's joined subscribers */
    struct sub      *conn_next;                /* among the socket's */
    void            *home, *member;   /* the home's entries; opaque here, valid while counted */
    struct presence *presence;   /* owned; presence channels only */
    uint64_t         joined;     /* fan_serial at the join */
    uint8_t          state;      /* enum sub_state */
    uint8_t          asked;      /* answers outstanding */
    bool             left_joined;   /* LEAVING: the home counts it and must be told */
    bool             hidden;     /* a signed-in socket's own user channel */
    bool             shown;      /* hidden, but the client has subscribed to it as well */
    bool             abrupt;     /* left without a Close */
};

struct fan_job {                 /* a fan-out that did not finish in its turn */
    struct fan_job *next;
    struct frame   *frame;       /* counted (this shard) */
    struct sub     *cursor;      /* next subscriber to visit */
    uint64_t        serial, except_a, except_b, started_ns;
    uint64_t        recipients;
    uint32_t        left;        /* subscribers still to be visited, at most: in fan_waiting */
    bool            observe;
};

struct chan {
    struct table_node node;
    struct sub       *subs;      /* joined */
    uint32_t          joined_count, asked_count;
    struct fan_job   *jobs_first, *jobs_last;   /* owned */
    struct chan      *fan_next;  /* on the shard's list of channels with jobs */
    uint64_t          handle;
    uint16_t          app, home_shard;
    uint8_t           kind;      /* enum pusher_kind */
    bool              cache, fanning;
    uint32_t          name_bytes;
    char              name[];
};

static inline struct slice chan_name(const struct chan *ch)
{
    return slice_of(ch->name, ch->name_bytes);
}

struct chan *chan_find(struct shard *sh, uint32_t app, struct slice name);
struct chan *chan_by_handle(struct shard *sh, uint64_t handle);
struct sub *chan_sub_of(const struct conn *c, const struct chan *ch);   /* NULL: not subscribed */

/* Ask the home to count this socket in. presence is given (owned by the sub from now on) or NULL.
 * ERR_FULL or ERR_MEMORY: nothing changed, presence not taken. */
MUST_CHECK err_t chan_join(struct shard *sh, struct conn *c, struct slice name,
                           const struct pusher_channel *kind, struct presence *presence,
                           bool hidden);
/* Ask the home to answer again for a subscription that stands: a duplicate subscribe. */
void chan_join_again(struct shard *sh, struct sub *sub);
/* Leave; the sub is gone (or LEAVING until its answer comes). */
void chan_leave(struct shard *sh, struct conn *c, struct sub *sub, bool abrupt);
void chan_leave_all(struct shard *sh, struct conn *c, bool abrupt);

/* Queue subscription_succeeded; given: the home's frame, or NULL for the plain one. */
void chan_send_succeeded(struct shard *sh, struct conn *c, struct chan *ch, struct frame *given);

/* MAIL_SUBSCRIBED. */
void chan_on_subscribed(struct shard *sh, const struct letter *l);
