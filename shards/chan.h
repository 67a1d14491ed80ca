/* chan.h - a channel as one shard sees it: the local subscribers.
 *
 * Shape    A channel lives here from the first local subscribe request to the last local leave. Its
 *          home (home.h) counts every subscription; a subscription joins the local list when the
 *          home's answer is handled. Homes know a local channel by its handle: index + generation.
 *          A V2 socket asks with an attach (stream.h). One question of a subscription is under way
 *          at a time; further ones wait in a chain behind its attach. Its first question is held
 *          until the read that brought it has been parsed, so that a resume in the same read finds
 *          it (spec/settled.md 33), and for as long as its home's mailbox is full; after
 *          CHAN_HELD_MS, or when the home refuses, a V2 socket is closed with 4100, so that no
 *          client waits on an open socket for a channel that it will not get.
 * Threads  The shard. A home reads chan->name and sub->presence of a subscription that waits for
 *          its answer: both are immutable meanwhile.
 * Order    Letters about one channel from its home are handled in order. A subscription that joins
 *          while a fan-out is still walking is skipped by it (fan_serial).
 * Bounds   limits.max_channels_per_connection; CHAN_QUESTIONS_MAX questions waiting a subscription.
 * Source   spec/pusher-v1.md 3; spec/protocol-v2.md 3, 6; spec/settled.md 6, 7, 33.
 */
#pragma once
#include "proto/pusher.h"
#include "shards/conn.h"

struct attach;

struct presence {                /* who a presence subscription is; lent to the home */
    struct slice id_json;        /* raw JSON string, as it goes into frames */
    struct slice id;             /* decoded */
    struct slice info_json;      /* compact JSON; "{}" when absent */
    uint64_t     socket_a, socket_b;   /* the socket's id */
    uint32_t     bytes_count;    /* of `bytes` */
    uint8_t      bytes[];
};

enum { CHAN_QUESTIONS_MAX = 8, CHAN_HELD_MS = 10000 };

enum home_flags {                /* of SUBSCRIBE and UNSUBSCRIBE */
    HOME_AGAIN = 1, HOME_V2 = 2, HOME_FULL_MODE = 4,
    /* how a socket left; none of them: it said so */
    HOME_ABRUPT = 8,             /* without a Close: a member may come back in the grace time */
    HOME_TIMEOUT = 16,           /* it did not answer a ping */
    HOME_FORCED = 32,            /* the server has ended it */
};

enum sub_state {
    SUB_ASKED, SUB_JOINED, SUB_LEAVING /* left before the answer came */,
    SUB_HELD                     /* asks when the read has been parsed and there is room */
};

/* Which bytes of a frame's family a subscription gets: an index into what a fan-out offers. */
enum sub_voice {
    VOICE_V1, VOICE_V2, VOICE_FULL,
    VOICE_V2_ALL = 5, VOICE_FULL_ALL = 6,   /* raw annotation events as well */
    VOICE_GATED = 7,             /* nothing now: its socket keeps live frames back (resume.h) */
    VOICES
};
enum { VOICE_ANNOTATIONS = 4 };

/* What an attach leaves behind on a channel with memory. */
struct attach_mark {
    uint64_t head;               /* wire serial: what lies behind it has been sent */
    uint64_t shown;              /* delivery serial up to which its answer showed the stream */
    uint64_t head_epoch;         /* of the stream that it is the head of */
    uint64_t attach_serial;      /* history serial */
    uint64_t rewound_from, rewound_upto;   /* messages that a rewind has shown as of that head or
                                              later, by their creates; 0: none */
    bool     has_head, has_attach_serial;
};

struct sub {                     /* one socket on one channel */
    struct chan     *chan;
    uint32_t         sock, gen;
    struct sub      *chan_next, **chan_link;   /* of the channel's joined; held: of a home */
    struct sub      *conn_next;                /* among the socket's */
    void            *home, *member;   /* the home's entries; opaque here, valid while counted */
    struct presence *presence;   /* owned; presence channels only */
    struct attach   *attach;     /* owned; V2 sockets (stream.h): lent to the home while asked */
    struct attach_mark *mark;    /* owned; V2 sockets on channels with memory, once joined */
    union {
        uint64_t     joined;     /* fan_serial at the join */
        uint64_t     held_ms;    /* HELD: since when, in reactor time */
    };
    uint8_t          state;      /* enum sub_state */
    uint8_t          asked;      /* answers outstanding */
    uint8_t          voice;      /* enum sub_voice */
    uint8_t          how;        /* LEAVING: enum home_flags of how it left */
    bool             left_joined : 1;   /* LEAVING: the home counts it and must be told */
    bool             hidden : 1;        /* a signed-in socket's own user channel */
    bool             shown : 1;         /* hidden, but the client has subscribed to it as well */
    bool             v2 : 1, full : 1;  /* the socket's */
    bool             annotations : 1;   /* V2: wants raw annotation events */
};

struct fan_job {                 /* a fan-out that did not finish in its turn */
    struct fan_job *next;
    struct frame   *frame;       /* counted (this shard) */
    struct frame   *by[VOICES];  /* that frame or its siblings; NULL: nothing for this voice */
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
    uint64_t          shown, shown_at;   /* delivery serial up to which frames were handed out, and
                                            the fan_serial of that; 0: none yet */
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

/* Ask the home to count this socket in. presence and attach are given (owned by the sub from now
 * on) or NULL; a V2 socket always has an attach, and its question leaves with chan_ask_held.
 * ERR_MEMORY: nothing changed, nothing was taken. */
MUST_CHECK err_t chan_join(struct shard *sh, struct conn *c, struct slice name,
                           const struct pusher_channel *kind, struct presence *presence,
                           struct attach *attach, bool hidden);
/* Ask the home to answer again for a subscription that stands: a duplicate subscribe. attach: of a
 * V2 socket, taken; else NULL. */
void chan_join_again(struct shard *sh, struct sub *sub, struct attach *attach);
/* The first questions of the read that has been parsed; those without room wait for it. */
void chan_ask_held(struct shard *sh);
/* Tries again; who has waited for too long is refused. */
void chan_on_held_timer(struct shard *sh);
/* Ask for the frames between a position and what this subscription has been sent (MAIL_REPLAY).
 * attach is taken. False: refused for want of room, nothing was taken. */
MUST_CHECK bool chan_replay(struct shard *sh, struct sub *sub, struct attach *attach);
struct attach *chan_attach_make(struct shard *sh, const struct conn *c);   /* NULL at the bound */
void chan_attach_free(struct shard *sh, struct attach *a);
/* The voice of a subscription that is not gated. */
uint8_t chan_voice(const struct sub *sub);
/* Leave; the sub is gone (or LEAVING until its answer comes). how: enum home_flags. */
void chan_leave(struct shard *sh, struct conn *c, struct sub *sub, uint8_t how);
void chan_leave_all(struct shard *sh, struct conn *c, uint8_t how);

/* Queue subscription_succeeded; given: the home's frame, or NULL for the plain one. */
void chan_send_succeeded(struct shard *sh, struct conn *c, struct chan *ch, struct frame *given);

/* MAIL_SUBSCRIBED, MAIL_REPLAYED. */
void chan_on_subscribed(struct shard *sh, const struct letter *l);
void chan_on_replayed(struct shard *sh, const struct letter *l);
