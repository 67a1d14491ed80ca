/* conn.h - one peer: from accepted to closed, its input, its send queue, its deadline.
 *
 * Shape    HTTP -> (upgrade) -> WS -> CLOSING -> DEAD -> FREE. CLOSING: the Close frame is queued
 *          or sent, input is ignored but for the peer's Close. DEAD: shut down; the slot is closed
 *          as soon as no receive and no send is outstanding.
 * Threads  The shard that accepted it.
 * Order    Frames leave in the order they were queued; at most one send is in flight, vectored over
 *          everything queued so far.
 * Bounds   websocket.max_bytes and websocket.max_messages unread per WebSocket; past either the
 *          socket is a slow consumer: 4100, counted. A burst that leaves before the peer could have
 *          read may be CONN_BURST times as large, and so may what comes behind an answer (a replay,
 *          a page) that the peer is still reading. Answers do not count; of them CONN_ASKED times
 *          max_bytes may be unread, and of what waits with them CONN_SEND_BYTES must be taken
 *          within websocket.pong_timeout. Input: one request or one message. A bundle (bundle.h)
 *          counts as the frames in it.
 * Memory   An idle connection holds this struct and nothing else.
 * Source   spec/pusher-v1.md 1-2; spec/protocol-v2.md 1-2; spec/settled.md 13-15; RFC 6455 7.
 */
#pragma once
#include "proto/http.h"
#include "proto/ws.h"
#include "shards/frame.h"

enum conn_state { CONN_FREE, CONN_HTTP, CONN_WS, CONN_CLOSING, CONN_DEAD };

enum conn_tag { CONN_TRAFFIC = 0, CONN_METRICS = 1 };   /* which listener */

struct conn_input { uint32_t bytes, room; uint8_t data[]; };

enum { CONN_QUEUE_FRAMES = 14, CONN_BURST = 16, CONN_ASKED = 64, CONN_REAPS_PER_TURN = 64,
       CONN_SEND_BYTES = 128 << 10 };    /* at once, while an answer waits: progress shows */
struct conn_queue {                      /* one segment of the send queue */
    struct conn_queue *next;
    uint16_t           head, tail;
    uint32_t           pad;
    struct frame      *frames[CONN_QUEUE_FRAMES];   /* counted (this shard) */
};

struct conn {
    uint32_t           gen;              /* 24 bits, drawn at the accept; never 0 while in use */
    uint32_t           ring_sock;        /* the socket's number at the ring */
    uint8_t            state;            /* enum conn_state */
    uint8_t            tag;              /* enum conn_tag */
    uint16_t           app;              /* index, once known */
    bool               receiving : 1;    /* a multishot receive is outstanding */
    bool               sending : 1;
    bool               shut : 1;         /* shutdown submitted */
    bool               closing_slot : 1; /* close submitted */
    bool               busy : 1;         /* a request waits for an answer: input only gathers */
    bool               paused : 1;       /* receive stopped until the request is answered */
    bool               last : 1;         /* close after what is queued has left */
    bool               counted : 1;      /* counted in `connected` (and quotas asked) */
    bool               quota_node : 1, quota_app : 1;   /* to be given back */
    bool               pinged : 1;       /* a pusher:ping awaits any frame, a V2 ping its pong */
    bool               continued : 1;    /* 100 Continue was sent for this request */
    bool               close_sent : 1;
    bool               abrupt : 1;       /* the peer vanished without a Close */
    bool               timed_out : 1;    /* it did not answer a ping, or was silent too long */
    bool               forced : 1;       /* ended by us for what it, its user or the app did */
    bool               authorised : 1;   /* signed in or joined a private channel */
    bool               flushing : 1;     /* on the flush list */
    bool               slow : 1;         /* overflowed: leaves its channels at the next flush */
    bool               stash : 1;        /* input must be gathered before it can be parsed */
    bool               ended : 1;        /* the peer has sent its end of stream */
    bool               deaf : 1;         /* input can no longer be parsed as frames */
    bool               half_shut : 1;    /* we have sent ours */
    bool               attached : 1;     /* may hold channels, a user, quotas: see conn_detach */
    bool               v2 : 1;           /* speaks Protocol V2 */
    bool               echo : 1;         /* V2: hears its own client events */
    bool               full : 1;         /* V2: append_mode=full */
    bool               fresh : 1;        /* V2: not pinged yet */
    uint8_t            histories : 2;    /* V2: channel_history requests under way */
    uint32_t           flush_next;       /* sock + 1; on the flush list or, once dead, to reap */
    struct timer       timer;            /* the one deadline of the current state */
    struct conn_input *in;               /* owned; NULL while nothing is half received */
    struct conn_input *message;          /* owned; fragments of an unfinished message */
    struct frame      *out_one;          /* counted; the queue's first, if alone or a bundle */
    struct conn_queue *out_first, *out_last;   /* owned; frames behind it, or NULL */
    uint32_t           out_bytes, out_count;   /* frames, each of a bundle (bundle.h) too */
    uint32_t           out_asked;        /* of out_bytes: answers (frame.asked) */
    uint32_t           out_offset;       /* bytes of the first frame already sent */
    uint32_t           send_turn;        /* turn in which the send under way was started */
    uint16_t           out_inflight;     /* pieces in the send under way */
    uint16_t           subs_count;
    uint32_t           scanned;          /* HTTP: searched so far for the end of the head */
    uint32_t           need;             /* input is not looked at before it is this long */
    uint64_t           socket_a, socket_b;   /* the two numbers of the socket id */
    struct ws_state    ws;
    uint64_t           ping_due_ms;      /* while pinged: when the answer is overdue */
    uint32_t           opened_ms;        /* HTTP: this request began; WS: the socket opened. As */
    uint32_t           heard_ms;         /* this, low 32 bits of the reactor's milliseconds */
    struct sub        *subs;             /* owned list */
    struct user       *user;             /* owned; signed in (or signing in) */
    struct conn_body  *body;             /* owned; a chunked body under way */
    struct conn_rates *rates;            /* owned; windows of client events and messages */
    struct resume     *resume;           /* owned; V2: a resume under way (resume.h) */
    struct ring_addr   peer;
};
static_assert(sizeof(struct conn) <= 256, "an idle connection is small");

/* A connection's number on its shard (`sock` in what refers to it): the one freed last is taken
 * first, so that the table is touched only as far as there were connections at a time. The ring
 * numbers sockets by slot, and the kernel hands slots out in any order: conn_of_sock leads from one
 * to the other. */
static inline struct conn *conn_of_ring(struct shard *sh, uint32_t ring_sock)
{
    return &sh->conns[sh->conn_of_sock[ring_sock]];
}
static inline uint32_t conn_sock(const struct shard *sh, const struct conn *c)
{
    return (uint32_t)(c - sh->conns);
}
/* The connection of a number when its generation still matches, else NULL. */
struct conn *conn_get(struct shard *sh, uint32_t sock, uint32_t gen);

/* ring_handler of every shard; ctx is the shard. */
extern const struct ring_handler conn_ring_handler;
/* Timers of connections (enum in shard.c routes to it). */
void conn_on_timer(struct shard *sh, struct conn *c);

/* A line at level debug about what became of this socket, with one field of its own. */
void conn_log(const struct shard *sh, const struct conn *c, const char *message, const char *key,
              struct slice value);

/* Queue a frame (a reference is taken). A slow consumer is closed here. False when not queued. */
bool conn_send(struct shard *sh, struct conn *c, struct frame *f);
/* Queue a small copy: control frames, errors, HTTP responses. Takes any size. */
bool conn_send_bytes(struct shard *sh, struct conn *c, const void *bytes, uint32_t count);

/* Once a second: who has stopped taking what he asked for is a slow consumer. */
void conn_watch_all(struct shard *sh);
/* Start all sends of this turn. */
void conn_flush_all(struct shard *sh);

/* Error frame, Close frame with the same code and text, then close (spec/settled.md 13). */
void conn_fail(struct shard *sh, struct conn *c, uint32_t code, const char *message);
/* Close frame only: WebSocket protocol errors and the answer to the peer's Close. */
void conn_close(struct shard *sh, struct conn *c, uint16_t code, const char *reason);
/* An error frame of the socket's protocol; the connection stays open. */
void conn_error(struct shard *sh, struct conn *c, uint32_t code, const char *message);
/* More is kept for this socket than it may have unread: 4100 for a slow consumer, counted. Callers
 * may be walking a list that the connection is on. */
void conn_overflow(struct shard *sh, struct conn *c, uint32_t limit);
/* Shut down now; what is queued is dropped. */
void conn_kill(struct shard *sh, struct conn *c);
/* The same at the next timer phase, for want of memory (counted): callers may be walking a list
 * that the connection is on. */
void conn_kill_later(struct shard *sh, struct conn *c);

/* An HTTP answer (101 included) is queued: go on with the next request or frame; !keep: close. */
void conn_answered(struct shard *sh, struct conn *c, bool keep);
/* The connection is a WebSocket from now on; queue what it is to be told, then conn_answered. */
void conn_become_ws(struct shard *sh, struct conn *c);
void conn_arm(struct shard *sh, struct conn *c, uint64_t delay_ms);

/* ---- between the parts of this module: conn.c, conn_input.c, conn_out.c ---- */

struct conn_body { struct http_chunked chunked; uint32_t head_bytes, raw; };  /* raw: undecoded */

/* Bytes arrived (conn_input.c). */
void conn_take_input(struct shard *sh, struct conn *c, uint8_t *bytes, uint32_t count);
/* Look again at what was gathered: the request before it has been answered. */
void conn_resume_input(struct shard *sh, struct conn *c);
/* A send ended (conn_out.c). */
void conn_on_sent(void *ctx, uint32_t sock, uint32_t gen, int32_t n);
/* The error frame of the socket's protocol, with its header. out: PUSHER_SMALL_FRAME_BYTES. */
uint32_t conn_error_write(struct shard *sh, const struct conn *c, uint8_t *out, uint32_t code,
                          const char *message);
/* Drop queued frames; those in flight stay until their send ends unless `all`. */
void conn_drop_out(struct shard *sh, struct conn *c, bool all);
/* Everything queued has left: go on with closing where that is due. */
void conn_out_empty(struct shard *sh, struct conn *c);
/* Leave channels, user and quotas; once. The socket no longer counts as connected. */
void conn_detach(struct shard *sh, struct conn *c);
/* Queue the slot for closing once nothing is outstanding on it. */
void conn_reap(struct shard *sh, struct conn *c);
/* Close CONN_REAPS_PER_TURN of them. True when more are queued. */
bool conn_reap_some(struct shard *sh);
