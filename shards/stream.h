/* stream.h - a channel with memory, at its home: serials, what is in flight, what can be replayed.
 *
 * Shape    A home whose channel has history or recovery owns a stream from its first publish or V2
 *          subscribe on. A stream with history is loaded from its lane (STORE_OPEN) before it does
 *          anything; letters that come meanwhile wait on it and are handled again afterwards.
 *
 *          publish, mutation -> sequence (against `next`, the speculative head)
 *                            -> record packed into the lane's open batch, item kept beside it
 *          end of the turn   -> MAIL_COMMIT, one batch a lane
 *          MAIL_COMMITTED    -> apply in order: `now` advances, message folded, frames built, ring,
 *                               fan-out, answer
 *          failure           -> every item answered 503, `next` falls back to `now`, the message
 *                               summaries likewise; what waited is handled again
 *
 *          Nothing but `now` is ever shown. A request whose outcome depends on what is in flight (a
 *          duplicate, a refusal) waits for `now` to reach what it saw and is then handled again.
 *          Without history (recovery only) there is no lane: sequence and apply are one step.
 *          With `relaxed` durability apply follows sequence at once and the commit comes behind.
 *
 *          Hidden streams (presence log, annotations) are streams of the same home without
 *          subscribers; see enum stream_what. They are never relaxed: what is derived from them
 *          (summaries, who was left open) could not be taken back.
 * Threads  The home shard.
 * Order    Records of a stream are sequenced, committed, applied and fanned out in one order.
 * Bounds   Ring: connection_recovery.max_buffer_size and buffer_ttl_seconds, longer only while an
 *          attach waits for a cold read (STREAM_GATE_FRAMES, STREAM_GATE_BYTES; past them the
 *          attach fails with 4100); history.cold_replay_max_bytes, and all rings of a shard an
 *          eighth of limits.shard_memory_mb. Folded messages: history.message_cache_mb, least
 *          recently used out.
 *          Streams without ring, waiters or flight are forgotten (those without history only when
 *          nobody speaks V2 there), those first that were not used since a hand passed them, beyond
 *          STREAM_IDLE_MAX a shard, and at once when the heap is nearly full. Of those with history
 *          that nobody subscribes to, each goes once it was not used for STREAM_LEFT_MS or, if that
 *          is less, history.forget_after_seconds (0: not for that reason). One that nothing
 *          happened to but an attach or two goes as soon as they are answered: a channel where
 *          nobody speaks costs no stream.
 * Source   design D5-D7; spec/settled.md 30-40; spec/messages-and-history.md 1-4, 7, 10;
 *          spec/protocol-v2.md 4, 6, 7, 14.
 */
#pragma once
#include "core/conf_policy.h"
#include "proto/v2.h"
#include "shards/home.h"
#include "store/fold.h"
#include "store/store.h"

enum { STREAM_GATE_FRAMES = 10000, STREAM_GATE_BYTES = 4 << 20, STREAM_IDLE_MAX = 65536,
       STREAM_KEPT_SUBS = 4,             /* so many subscribers keep a stream where nobody speaks */
       STREAM_LEFT_MS = 3600000 };       /* without subscribers and unused, one is closed then */

enum stream_what { STREAM_MAIN, STREAM_PRESENCE, STREAM_ANNOTATIONS, STREAM_WHATS };
enum stream_state {
    STREAM_LOADING, STREAM_OPEN,
    STREAM_FAILED                  /* could not be loaded: stream_of is NULL */
};

struct stream_head {
    uint64_t delivery;             /* newest */
    uint64_t history;              /* newest row; 0: none in this epoch */
    uint64_t time_ms;              /* of the newest record: the next is not below it */
};

struct stream_entry {              /* one applied record in the hot ring */
    uint64_t      delivery, serial;/* serial: as it is on the wire (stream_serial) */
    uint64_t      at_ms;           /* reactor time: for the ttl */
    uint64_t      message;         /* of a mutation: its create; 0: a create, a plain row */
    struct frame *frame;           /* counted; in the ring: what V2 sockets get, no family */
    uint32_t      bytes;           /* in the ring: what it costs */
    uint32_t      data_at, data_bytes;   /* an append's fragment (raw JSON) within the V2 payload,
                                            where sockets in full mode get the aggregate; 0: none */
    char          message_id[V2_SERIAL_BYTES];   /* of the frame; empty: none or longer */
};

/* A message that is in use: folded as of `now`, and what is in flight on top of it. */
struct stream_message {
    struct table_node      node;   /* shard's messages, by stream and create delivery serial */
    struct stream_message *older, *newer;   /* shard's list by use */
    struct stream_message *next, **link;    /* among the stream's */
    struct stream         *stream;
    uint64_t               message;/* create delivery serial */
    struct fold            fold;   /* committed; not started: loading, missing or failed */
    uint64_t              *ops;    /* owned; pairs (op_hash, delivery), in flight ones included */
    uint32_t               ops_count, ops_room;   /* in pairs */
    uint32_t               flying; /* records in flight */
    uint64_t               checked_ms, checked_rows;   /* wall time: was_checked; is_doubtful */
    uint64_t               bytes;  /* counted in the shard's cache */
    bool                   loading, missing, failed;
    bool                   barrier;/* a whole record waits for what flies; others wait behind it */
    /* as it will be once everything in flight is committed */
    bool                   next_data_set, next_data_text;
    uint64_t               next_data_bytes, next_delivery, next_context;
};

struct stream_receipt;             /* publish receipts: stream_receipt.c */
struct stream_wait;                /* a letter that is handled again later: stream.c */

struct stream {
    struct home           *home;   /* pinned while the stream exists */
    struct stream         *older, *newer;    /* shard's streams, a ring that a hand walks */
    struct stream         *woken_next;       /* shard's streams whose waits may go on */
    uint8_t                what, state;
    bool                   history;          /* has a lane */
    bool                   named, named_now; /* its RECORD_CHANNEL is in flight; stored */
    bool                   held;             /* its lane knows that it is in memory: MAIL_CLOSED */
    bool                   relaxed;
    bool                   versioned;        /* policy, and history */
    bool                   used;             /* since the hand passed */
    bool                   spoken;           /* something was applied since it was made */
    bool                   woken, touched;
    bool                   degraded;         /* what is stored of it cannot be read */
    bool                   unreadable;       /* FAILED, and not for want of memory */
    bool                   lost;             /* of that, its head: stream_heal */
    bool                   epoch_owed;       /* a RECORD_EPOCH goes before its next record */
    const struct conf_policy *policy;        /* the configuration's */
    uint16_t               lane;
    uint32_t               used_ms;          /* when the hand passed and it had been used, or it was
                                                made: low 32 bits of the reactor's */
    uint64_t               chan;             /* number in the lane */
    struct slice           stored_name;      /* owned when hidden, else the home's */
    struct stream_head     now, next;        /* committed; speculative */
    struct stream_head     stored;           /* relaxed: what the lane has; else as now */
    uint64_t               delivery_epoch, history_epoch;
    uint64_t               stored_epoch;     /* relaxed: history's, as the lane has it */
    char                   delivery_id[37], history_id[37];   /* stream_id texts, settled 30 */
    char                   node[V2_NODE_BYTES];      /* stream_node of its channel */
    struct stream_entry   *ring;             /* owned; ring_room entries, oldest first */
    uint32_t               ring_first, ring_count, ring_room;
    uint64_t               ring_bytes;
    uint32_t               gates;            /* attaches that wait for a cold read */
    uint64_t               gate_from;        /* their lowest position: the ring keeps the rest */
    struct stream_message *messages;
    uint64_t               ending;           /* messages up to it go with a reset or purge in
                                                flight; 0: none */
    uint64_t               unsure_ms;        /* until then receipts may be missing that could not
                                                be read: a new key may be an old one */
    uint64_t               row_bytes;        /* of rows that were applied since it was made */
    struct stream_receipt *receipts_oldest, *receipts_newest;
    struct stream_wait    *waits_first, *waits_last;
    uint32_t               flying;           /* records in flight */
    uint32_t               reads;            /* cold reads under way */
};

/* ---- what a V2 subscribe or a resume asks, lent to the home with its sub; the home fills the
 *      answer (shards/chan.h: sub.attach) ---- */

struct attach {
    /* the socket's shard's own: what is asked when this has been answered, and how */
    struct attach *next;
    bool     again, replay;                  /* MAIL_SUBSCRIBE with HOME_AGAIN; MAIL_REPLAY */
    /* the question */
    bool     v2, full;                       /* the socket's */
    bool     resume;                         /* has a position */
    bool     legacy;                         /* position without a stream id */
    uint8_t  rewind;                         /* enum v2_rewind */
    bool     annotations;                    /* wants raw annotation events */
    uint64_t rewind_amount;
    uint64_t serial;                         /* position: the last one seen */
    uint64_t upto;                           /* replay only (MAIL_REPLAY): mark.head (chan.h) */
    uint64_t rewound_from, rewound_upto;     /* messages that a rewind has shown, by their creates:
                                                replay: asked, left out; else answered; 0: none */
    uint64_t shown;                          /* delivery serial up to which the socket has been
                                                sent the stream: replay: asked; else answered */
    char     stream_id[37];                  /* longer ones are cut: they match nothing */
    /* the answer */
    uint64_t head;                           /* wire serial at the attach: live starts behind it */
    uint64_t head_epoch;                     /* of its stream; replay: as it was at the attach */
    uint64_t attach_serial;                  /* history head at the attach */
    bool     has_head, has_attach_serial;
    bool     recovered, cold;
    uint32_t replayed;
    bool     position_moved;                 /* position below is set */
    uint64_t position_serial;
    char     position_id[V2_SERIAL_BYTES];   /* last_message_id, or empty */
    const char *code, *reason;               /* when not recovered; static texts */
    char     expected_id[37], current_id[37];/* empty: null */
    uint64_t oldest, newest;                 /* 0: null */
};

/* ---- publishing ---- */

/* What a publish says, beside its name: lent to the home in struct publish (home.h). The slices
 * point into `bytes`. */
struct content {
    struct record r;                         /* kind, texts, key, print, op_hash as given; the home
                                                fills serials and time */
    uint64_t message;                        /* mutations: create delivery serial, and its ms */
    uint64_t message_ms;
    uint8_t  clear;                          /* mutations: enum content_clear */
    bool     has_key, ephemeral;
    bool     data_given;                     /* mutations: tri-state */
    bool     name_given, extras_given;
    /* authorisation of a mutation: settled by the home against the stored owner */
    uint8_t  scope;                          /* enum content_scope */
    struct slice actor;                      /* user id of the actor's socket; client events on
                                                presence channels: user_id of the V1 frame only */
    /* the answer */
    bool     versioned, duplicate;
    uint64_t delivery, history, time_ms, create_ms, create;
    uint32_t bytes_count;
    uint8_t  bytes[];
};
enum content_clear { CONTENT_CLEAR_NAME = 1, CONTENT_CLEAR_DATA = 2, CONTENT_CLEAR_EXTRAS = 4 };
enum content_scope { CONTENT_PRIVILEGED, CONTENT_ANY, CONTENT_OWN, CONTENT_NONE };

/* MAIL_PUBLISH with content: sequences it (or waits, or refuses). The answer is MAIL_PUBLISHED with
 * enum home_status and the content's answer filled. */
void stream_on_publish(struct shard *sh, const struct letter *l);
/* MAIL_SUBSCRIBE of a V2 socket (sub.attach set): answers MAIL_SUBSCRIBED now or later. */
void stream_on_subscribe(struct shard *sh, const struct letter *l);
/* MAIL_REPLAY: answers MAIL_REPLAYED. */
void stream_on_replay(struct shard *sh, const struct letter *l);
/* MAIL_COMMITTED, MAIL_READ_DONE. */
void stream_on_committed(struct shard *sh, const struct letter *l);
void stream_on_read_done(struct shard *sh, const struct letter *l);

MUST_CHECK err_t stream_open_all(struct shard *sh);
void stream_close_all(struct shard *sh);
/* The shard's thread takes no more letters: what was shown and may not be stored is said to the
 * store. */
void stream_end(struct shard *sh);
/* A frame for one socket that holds much: counted, at its home, until the socket has taken it. */
void stream_blob_count(struct shard *sh, struct frame *f, uint32_t app);
bool stream_blobs_have_room(const struct shard *sh, uint32_t app);
/* frame.h: it has been sent and freed. */
void stream_blob_freed(struct shard *sh, const struct frame *f);
/* Handles again what can go on, posts the open batches: once a turn, after the letters. The first
 * one asks for what the lanes know of a start (STORE_ACTIVE). */
void stream_flush(struct shard *sh);
/* Once a second: ring ttl, receipts' ttl, idle streams. */
void stream_tick(struct shard *sh);
/* Forgets every idle stream: when memory is short. */
void stream_forget_idle(struct shard *sh);

/* What runs at a record's commit or failure. */
typedef void (*stream_done)(struct shard *sh, struct stream *st, void *ctx, const struct record *r,
                            bool committed);

/* ---- for ask_claim.c ---- */

/* True once every finished request key of the shard's slots has been read back. */
bool stream_requests_known(const struct shard *sh);
/* Store a finished request key (RECORD_REQUEST, op_id: the key's text, owner: the app's id) on the
 * lane of its slot. False: refused, done does not run. done gets no stream. */
bool stream_request_put(struct shard *sh, uint32_t app, struct record *r, stream_done done,
                        void *ctx);

/* ---- for the other parts of a home (want.c, presence log, annotations) ---- */

/* The home's stream, made (and loading) when missing. NULL at the heap's bound, or when it could
 * not be loaded: answer 503. */
struct stream *stream_of(struct shard *sh, struct home *h, enum stream_what what);
/* True when stream_of refuses this one because what is stored cannot be read: answer 500. */
bool stream_is_unreadable(const struct home *h, enum stream_what what);
/* Messages wear the delivery stream's id and serial, rows without versions the history's. */
static inline bool stream_by_history(const struct stream *st)
{
    return st->history && !st->versioned;
}
/* What stands between the numbers of a channel's string serials, made of the store's id and the
 * channel's name: a version serial is the message_id of a frame as well, and clients drop one that
 * they have seen, on whatever channel. Any shard. */
void stream_node(const struct shard *sh, uint32_t app, struct slice channel,
                 char out[V2_NODE_BYTES]);
static inline const char *stream_id(const struct stream *st)
{
    return stream_by_history(st) ? st->history_id : st->delivery_id;
}
/* Another one: another stream, whose serials have begun anew. */
static inline uint64_t stream_epoch(const struct stream *st)
{
    return stream_by_history(st) ? st->history_epoch ^ st->delivery_epoch : st->delivery_epoch;
}
static inline uint64_t stream_serial(const struct stream *st, const struct stream_head *head)
{
    return stream_by_history(st) ? head->history : head->delivery;
}
/* A message folded as of `now`, when it is in memory; NULL otherwise: read it. */
const struct fold *stream_fold(struct shard *sh, struct stream *st, uint64_t message);
/* Handle this letter again when the stream has loaded, or when `now` has reached `delivery`, or
 * when what was in flight has failed. False at the heap's bound: refuse it. */
bool stream_wait_for(struct shard *sh, struct stream *st, const struct letter *l,
                     uint64_t delivery);
/* Sequence a record; done runs at its commit (or at once: relaxed, no lane) or failure. False:
 * refused (lane refuses, memory): answer 503, done does not run. Fills serials, time, chan; a
 * stream that loads keeps a copy and does so later. RECORD_RESET: history is the new epoch (0: the
 * next one), message the last serial that goes (0: all so far), as for RECORD_PURGE. */
bool stream_append(struct shard *sh, struct stream *st, struct record *r, stream_done done,
                   void *ctx);
/* Post a read (allocated with stream_read_make; owner and done set); done frees it. */
typedef void (*stream_read_fn)(struct shard *sh, struct stream *st, struct store_read *r,
                               void *ctx);
struct store_read *stream_read_make(struct shard *sh, struct stream *st, uint8_t kind,
                                    stream_read_fn done, void *ctx);
void stream_read_post(struct shard *sh, struct stream *st, struct store_read *r);
/* The same for a page that a socket asked for: it waits while too much is not taken by sockets.
 * STORE_READ_MEMORY when that is too long; done may run before the return. */
void stream_read_post_page(struct shard *sh, struct stream *st, struct store_read *r);
void stream_read_end(struct shard *sh, struct store_read *r);   /* frees read and answer */
/* A mutation (MAIL_WANT with content): sequences it; the want is answered by want_mutated. */
enum stream_verdict { STREAM_TAKEN, STREAM_WAITS, STREAM_BUSY, STREAM_NOT_FOUND, STREAM_DENIED,
                      STREAM_PRINT_DIFFERS, STREAM_NOT_TEXT, STREAM_DUPLICATE, STREAM_TOO_LARGE };
enum stream_verdict stream_mutate(struct shard *sh, struct stream *st, const struct letter *l,
                                  struct content *c, stream_done done, void *ctx);
/* A read found stored rows damaged: counted and logged until a reset. */
void stream_degrade(struct shard *sh, struct stream *st, bool degraded);
/* Of a stream whose head cannot be read (`lost`): writes another one, behind all that it held.
 * False: refused, done does not run. After its commit stream_of loads the stream again. */
bool stream_heal(struct shard *sh, struct stream *st, stream_done done, void *ctx);
/* Change of epoch or floor: RECORD_RESET, RECORD_PURGE through stream_append; then this. */
void stream_reset_applied(struct shard *sh, struct stream *st, uint64_t history_epoch);
/* One V2 frame of a record appended to a blob, as cold replay and rewind show it (right-hand form
 * of messages-and-history 6). context: the whole record an append refers to, or NULL. False at the
 * heap's bound. */
struct blob { struct heap *heap; uint8_t *ptr; uint32_t bytes, room; bool failed; };
bool stream_blob_record(struct shard *sh, const struct stream *st, struct blob *b,
                        const struct record *r, const struct record *context);
struct frame *stream_blob_frame(struct shard *sh, struct blob *b);   /* takes the blob's memory */
