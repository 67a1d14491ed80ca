/* stream_parts.h - between the parts of stream.h.
 *
 * Shape    stream.c           find, make, load, forget
 *          stream_read.c      cold reads: asked and answered
 *          stream_wait.c      what waits for something and is handled again
 *          stream_seq.c       serials, the lanes' open batches, posting them
 *          stream_apply.c     what a commit or a failure does
 *          stream_publish.c   publishes: the way in, the answer
 *          stream_frame.c     one record as frames
 *          stream_ring.c      the hot ring
 *          stream_receipt.c   publish receipts
 *          stream_message.c   folded messages in memory
 *          stream_mutate.c    updates, deletes, appends
 *          stream_attach.c    V2 subscribes and resumes: the outcome, the reads it needs
 *          stream_line.c      whose turn it is to read, what is held of it
 *          stream_judge.c     what becomes of their positions
 *          stream_replay.c    what such a one is sent
 *          stream_mark.c      the last version of each message in a replay
 *          stream_mend.c      what a replay adds that comes behind live frames
 *          stream_base.c      the texts that replayed appends are added to
 *          stream_blob.c      frames behind each other in one block
 *          stream_request.c   finished request keys
 * Threads  The home shard.
 */
#pragma once
#include "shards/stream.h"

enum {
    STREAM_RECORD_BYTES_MAX = 32 << 20,     /* one record, and one message's data */
    STREAM_BATCH_BYTES_MAX = 128 << 10,     /* a batch is posted early beyond it: it is applied in
                                               one step of a turn */
    STREAM_LANE_BYTES_MAX = 64 << 20,       /* in flight on a lane; more is refused */
    STREAM_WHOLES_MAX = 8,                  /* whole texts that an attach reads at a time */
    STREAM_READS_MAX = 64,                  /* reads without turns under way; others wait */
    STREAM_READS_APP_MAX = 16,              /* of them, one app's; all when it is alone */
    STREAM_COLD_BYTES_MAX = 128 << 20,      /* read in turns at a time; others wait */
    STREAM_BLOBS_PART = 4,                  /* of the heap: answers to sockets not sent yet */
    STREAM_LINE_MAX = 16384,                /* attaches and pages that wait for a turn, */
    STREAM_LINE_MS = 4000,                  /* and how long: a resume waits a second longer */
    STREAM_APP_PART = 2,                    /* of bytes and places above, one app's: likewise */
    STREAM_RECEIPTS_MAX = 1 << 20,          /* a shard; more is refused, none is evicted */
};

/* What is kept beside a record in a batch. */
struct stream_item {
    struct stream         *st;
    struct stream_message *message;      /* of a mutation: flying */
    struct publish        *publish;      /* lent until PUBLISHED; NULL: no publish, or answered */
    stream_done            done;         /* may be NULL */
    void                  *ctx;
    uint32_t               at;           /* the record's offset in the batch */
    uint16_t               from_shard;   /* of the publish */
    bool                   applied;      /* relaxed: shown before the commit */
};

/* FAILING: while a failure of the lane is settled, which may post batches of its own. DEAD: its
 * items have been failed. */
enum stream_batch_state { STREAM_BATCH_LIVE, STREAM_BATCH_FAILING, STREAM_BATCH_DEAD };
struct stream_batch {
    struct store_batch   b;
    struct stream_batch *next;           /* posted later */
    struct stream_item  *items;          /* owned; one a record */
    uint32_t             items_room;
    uint8_t              state;          /* enum stream_batch_state */
};

struct stream_lane {
    uint32_t             generation;
    struct stream_batch *open;           /* owned; NULL: nothing since the last post */
    struct stream_batch *out_first, *out_last;
    uint64_t             out_bytes;      /* posted, not back */
};

struct stream_receipt {
    struct table_node      node;         /* shard's receipts, by stream and key */
    struct stream         *st;
    struct stream_receipt *older, *newer;    /* of the stream, by age */
    uint8_t                key[16], print[16];
    uint64_t               delivery, history, time_ms;   /* delivery 0: an ephemeral publish */
    uint64_t               until_ms;     /* reactor time */
    bool                   pending;      /* in flight */
};

enum stream_wait_what { STREAM_WAIT_LETTER, STREAM_WAIT_RECORD };
struct stream_wait {
    struct stream_wait *next;
    uint8_t             what;
    uint64_t            delivery;        /* until `now` has it; 0: only for the load */
    uint64_t            message;         /* until this message is loaded; 0: none */
    struct letter       letter;
    stream_done         done;            /* RECORD: sequenced when loaded */
    void               *ctx;
    uint32_t            bytes;
    uint8_t             packed[];
};

struct stream_turn {                     /* something that reads or sends much: stream_line.c */
    struct stream_turn *next;            /* of its app, behind it in the line */
    void   (*go)(struct shard *sh, struct stream_turn *t, bool late);   /* late: it is given up */
    uint64_t wanted, share;              /* counted in cold_bytes while it reads */
    uint64_t late_ms;
    uint32_t app;
    bool     admitted;                   /* has had its turn */
};

struct stream_app {                      /* an app's part of what is shared */
    uint64_t            cold_bytes, blobs_bytes;
    uint32_t            reads_out;
    struct stream_read *reads_first, *reads_last;    /* wait for a place */
    struct stream_turn *turns_first, *turns_last;
    uint32_t            turns_count;
};

struct stream_read {
    struct store_read r;
    struct stream    *st;                /* NULL: a read of the shard itself */
    stream_read_fn    done;
    void             *ctx;
    uint64_t          epoch;             /* the stream's delivery_epoch when it was asked */
    struct stream_read *next;            /* of those that wait for a place */
    bool              counted;           /* among reads_out, or waits to be */
    struct stream_turn turn;             /* of a page for a socket */
    struct stream_read *all_next, **all_link;    /* of the shard: freed with it */
};

/* A version that was read to verify an op_id, for the time of one letter. */
struct stream_verified {
    const struct stream *st;
    uint64_t             delivery;
    const struct record *record;         /* NULL: it is gone */
    bool                 failed;         /* could not be read */
};

struct stream_book {
    struct stream          *hand;        /* the ring of streams; NULL: none */
    uint32_t                streams_count, streams_idle_max;
    uint64_t                rings_bytes, rings_bytes_max;    /* frames in all rings */
    struct stream_read     *reads_all;
    struct stream_app      *apps;        /* owned */
    uint32_t                apps_count, reads_turn, line_turn;   /* whose turn is next */
    uint32_t                reads_out, reads_waiting;    /* under way, but for those in turns */
    uint64_t                cold_bytes;  /* that may be held of what is read in turns */
    uint64_t                blobs_bytes, blobs_max;  /* of answers to sockets, not sent yet */
    uint32_t                line_count;  /* turns that wait until those are less */
    uint64_t                salt;        /* in the ids of streams without history */
    uint32_t                age;         /* of the next of them: stream.c */
    struct stream          *woken_first, *woken_last;
    struct stream_lane      lanes[STORE_LANES_MAX];
    struct table            receipts, messages;
    uint32_t                receipts_count;
    struct stream_message  *messages_oldest, *messages_newest;
    uint64_t                messages_bytes, messages_bytes_max;
    struct stream_verified  verified;
    bool                    again;       /* letters are being handled again */
    bool                    begun;       /* STORE_ACTIVE was asked for */
    uint32_t                active_reads;    /* lanes whose STORE_ACTIVE has not come */
    uint32_t                active_failed;   /* of them, as bits: to be asked again */
};

/* ---- stream_wait.c ---- */
/* Handle what waits, where it can go on, at the end of this turn. */
void stream_wake(struct shard *sh, struct stream *st);
void stream_run_woken(struct shard *sh);
bool stream_wait_message(struct shard *sh, struct stream *st, const struct letter *l,
                         uint64_t message);

/* ---- stream.c ---- */
void stream_ids(struct shard *sh, struct stream *st);    /* the texts, after an epoch changed */
bool stream_idle(const struct stream *st);
/* Gives the stream up when nothing happened to it but reads, and they are answered. */
void stream_rest(struct shard *sh, struct stream *st);

/* Not counted: the job has had its turn. */
void stream_read_post_now(struct shard *sh, struct store_read *r);

/* ---- stream_line.c ---- */
MUST_CHECK err_t stream_line_open(struct shard *sh);
void stream_read_is_back(struct shard *sh, const struct stream_read *back);
/* Takes a turn that reads `share` bytes (0: it only sends); false: it is to wait. */
bool stream_turn_now(struct shard *sh, struct stream_turn *t, uint64_t share);
/* Its `go` is called when it may go or is late. False: too many wait. */
bool stream_turn_wait(struct shard *sh, struct stream_turn *t);
/* It holds nothing any more of what it read. */
void stream_turn_end(struct shard *sh, struct stream_turn *t);
/* Those that there is room for: once a turn of the shard. */
void stream_line_run(struct shard *sh);

/* ---- stream_seq.c ---- */
static inline void stream_flies(struct shard *sh, struct stream *st, int32_t by)
{
    st->flying += (uint32_t)by;
    ASSERT(st->flying < UINT32_MAX / 2);
    metric_add(sh->metrics, METRIC_HISTORY_QUEUE_DEPTH, st->home->app, 0, by);
}
/* Stamp, pack and apply as the durability says. item: filled but for `at`. False: refused, nothing
 * has changed. */
bool stream_sequence(struct shard *sh, struct stream *st, struct record *r,
                     struct stream_item *item);
/* A record of no channel (RECORD_REQUEST); the item's done gets st NULL. */
bool stream_lane_put(struct shard *sh, uint16_t lane, const struct record *r,
                     const struct stream_item *item);
void stream_lane_post(struct shard *sh, uint16_t lane);
void stream_batch_free(struct shard *sh, struct stream_batch *sb);
/* Never one that was used before: serials may repeat in it. */
uint64_t stream_epoch_draw(struct shard *sh);
/* Continuity is lost: another stream id from now on. It is owed while it cannot be written. */
void stream_epoch_change(struct shard *sh, struct stream *st);
/* Writes an epoch that is owed, when the lane takes it. */
void stream_epoch_settle(struct shard *sh, struct stream *st);
void stream_head_advance(struct stream_head *head, const struct record *r);

/* ---- stream_apply.c ---- */
void stream_apply(struct shard *sh, struct stream *st, const struct record *r,
                  struct stream_item *item);

/* ---- stream_publish.c ---- */
/* The publish is its shard's again. r: what was stored, or NULL. */
void stream_publish_answer(struct shard *sh, const struct home *h, struct publish *p,
                           uint16_t from_shard, enum home_status status, const struct record *r);

/* ---- stream_frame.c ---- */
/* The family for the live fan-out and the ring; *out NULL: nobody needs it. False: no memory. st
 * NULL: a channel without memory; delivery 0: no position. f: the message with this record applied
 * (mutations); entry is filled but for the frame's own and may be NULL. actor: user_id of the V1
 * frame, where the record names no user. */
bool stream_frame_make(struct shard *sh, const struct home *h, const struct stream *st,
                       const struct record *r, const struct fold *f, struct slice actor,
                       struct stream_entry *entry, struct frame **out);
/* What a cache channel keeps: both forms, without position. NULL: no memory. */
struct frame *stream_frame_cache(struct shard *sh, const struct home *h, const struct record *r,
                                 struct slice actor);
/* The V2 frame of an append with its fragment replaced: what sockets in full mode get. */
uint32_t stream_frame_splice_bytes(struct slice payload, uint32_t fragment_bytes,
                                   struct slice data);
uint32_t stream_frame_splice(struct slice payload, uint32_t data_at, uint32_t fragment_bytes,
                             struct slice data, uint8_t *out);
/* True when the raw JSON string `text` begins with all of `start`, whatever their escapes. */
bool stream_frame_starts(struct slice text, struct slice start);
/* The same; *text is what follows then. */
bool stream_frame_skip(struct slice *text, struct slice start);
/* A record in the form of cold replays and rewinds. `texts` holds what o points at. */
struct stream_texts {
    char              message[V2_SERIAL_BYTES], version[V2_SERIAL_BYTES];
    struct v2_version v;
};
void stream_frame_cold(const struct shard *sh, const struct stream *st, const struct record *r,
                       const struct record *context, struct stream_texts *texts,
                       struct v2_out *o);
/* Nobody may miss a message unknowingly: the subscribers reconnect, the ring is emptied. */
void stream_lost(struct shard *sh, struct home *h, struct stream *st);

/* ---- stream_ring.c ---- */
/* Keeps what V2 sockets get of the entry's frame, of which nothing has been queued yet. */
void stream_ring_put(struct shard *sh, struct stream *st, const struct stream_entry *e);
void stream_ring_trim(struct shard *sh, struct stream *st);
void stream_ring_clear(struct shard *sh, struct stream *st);
/* For want of memory: counted, and not while an attach needs it. */
void stream_ring_relieve(struct shard *sh, struct stream *st);
static inline struct stream_entry *stream_ring_at(const struct stream *st, uint32_t index)
{
    return &st->ring[(st->ring_first + index) & (st->ring_room - 1)];
}
/* Everything behind `delivery` up to `now` is here, young enough unless gated. */
bool stream_ring_covers(const struct shard *sh, const struct stream *st, uint64_t delivery,
                        bool gated);
/* The serial of the oldest frame that is young enough; 0: none. */
uint64_t stream_ring_oldest(const struct shard *sh, const struct stream *st);
static inline bool stream_ring_wanted(const struct stream *st)
{
    return st->policy->recovery || st->gates > 0;
}

/* ---- stream_receipt.c ---- */
struct stream_receipt *stream_receipt_find(struct shard *sh, const struct stream *st,
                                           const uint8_t key[16]);
/* NULL: no memory or the bound. */
struct stream_receipt *stream_receipt_add(struct shard *sh, struct stream *st,
                                          const struct record *r, bool pending);
void stream_receipt_drop(struct shard *sh, struct stream_receipt *k);
void stream_receipt_applied(struct shard *sh, struct stream *st, const struct record *r);
/* Those that are in flight, or newer than `now`: the commit has failed. */
void stream_receipt_fail(struct shard *sh, struct stream *st);
void stream_receipt_expire(struct shard *sh, struct stream *st, uint64_t now_ms);
bool stream_receipt_load(struct shard *sh, struct stream *st, const struct store_read *r);
void stream_receipt_free_all(struct shard *sh, struct stream *st);

/* ---- stream_message.c ---- */
struct stream_message *stream_message_find(struct shard *sh, const struct stream *st,
                                           uint64_t message);
/* Found, or loading from now on. NULL: no memory. */
struct stream_message *stream_message_get(struct shard *sh, struct stream *st, uint64_t message);
void stream_message_applied(struct shard *sh, struct stream *st, struct stream_message *m,
                            const struct record *r);
bool stream_message_op_put(struct shard *sh, struct stream_message *m, uint64_t op_hash,
                           uint64_t delivery);
/* Those up to `message` were reset or purged. */
void stream_message_end(struct shard *sh, struct stream *st, uint64_t message);
void stream_message_fail(struct shard *sh, struct stream *st);
void stream_message_free(struct shard *sh, struct stream_message *m);
void stream_message_free_all(struct shard *sh, struct stream *st);
void stream_message_use(struct shard *sh, struct stream_message *m);
void stream_message_evict(struct shard *sh);

/* ---- stream_blob.c ---- */
uint8_t *stream_blob_room(struct blob *b, uint32_t bytes);   /* NULL: failed */
void stream_blob_put(struct blob *b, const void *from, uint32_t bytes);
bool stream_blob_event(struct blob *b, const struct v2_out *o);
void stream_blob_free(struct blob *b);

/* ---- stream_attach.c, stream_judge.c, stream_replay.c ---- */
struct stream_aggregate {
    uint64_t           message, delivery;    /* the append that is sent with the whole text */
    struct store_read *read;             /* owned; NULL: the fold in memory has it */
    bool               alone;            /* too large for its part: to be read with no other */
};
struct stream_whole { struct store_read *read; uint32_t index; };   /* under way: of aggregates */
struct stream_attach {                   /* a subscribe or replay under way */
    struct letter      letter;
    struct sub        *sub;              /* lent until the answer */
    struct attach     *a;
    struct home       *home;
    struct stream     *st;               /* NULL: a channel without memory */
    bool               replay;           /* MAIL_REPLAY; else a subscribe */
    bool               gated;
    bool               ranges;           /* a cold replay is read */
    bool               hot;              /* the ring has what is replayed */
    bool               broken;           /* refuse it: a read has failed */
    uint64_t           delivery;         /* frozen head; later frames are live */
    uint64_t           head, attach_serial;  /* the same on the wire; in history */
    uint64_t           delivery_epoch, history_epoch;   /* at the freeze */
    uint64_t           ring_from;        /* gated: the ring is needed behind this delivery serial */
    struct store_read *range, *rewind;   /* finished reads, owned; range: a cold replay, of versions
                                            or (rows without versions) of rows */
    struct stream_aggregate *aggregates; /* owned; NULL: none; at most one for a frame */
    uint32_t           aggregates_count, aggregates_room, aggregates_next;
    uint32_t           wholes_count;     /* of them: the replay's own, by message; mends behind */
    struct stream_whole wholes[STREAM_WHOLES_MAX];
    uint32_t           wholes_out, alone_count;      /* that are being read; still to be, alone */
    uint64_t           wholes_bytes;     /* that were read for them */
    bool               too_large;        /* they are more than they may be */
    struct stream_turn turn;             /* to read or send */
    uint32_t           historical, live;
};
/* The outcome of the job's position is in its attach; true: it must be read from the lane first,
 * then stream_judge_read. */
bool stream_judge(struct shard *sh, struct stream_attach *job);
void stream_judge_read(struct shard *sh, struct stream_attach *job, const struct store_read *r);
void stream_judge_fail(struct shard *sh, struct stream_attach *job, enum series_recovery code,
                       const char *reason);
/* The delivery serial at a serial of the wire: rows without versions stand one to one. */
uint64_t stream_delivery_of(const struct stream *st, uint64_t serial);
/* Success frame, replay, what came meanwhile, rewind_complete; fills the attach. NULL: no
 * memory. */
struct frame *stream_replay_frame(struct shard *sh, struct stream_attach *job);
/* Full mode: which appends of the replay are sent as whole texts. False: no memory. */
bool stream_replay_wholes(struct shard *sh, struct stream_attach *job);
/* The message as of that version, read or (NULL) in memory; false when memory has moved on. */
bool stream_whole(struct shard *sh, const struct stream *st, const struct store_read *read,
                  uint64_t message, uint64_t delivery, struct record *out);
/* A rewind has shown what became of the message: its versions would be added to that again. */
bool stream_replay_was_rewound(const struct stream_attach *job, uint64_t message);

/* ---- stream_mark.c ---- */
struct stream_mark { uint64_t message, delivery; uint32_t at; bool append; };
struct stream_marks { struct stream_mark *list; uint32_t count, room; };     /* owned */
bool stream_mark_put(struct shard *sh, struct stream_marks *ms, struct stream_mark m);
void stream_marks_sort(struct stream_marks *ms);         /* by message, then by delivery */
void stream_marks_free(struct shard *sh, struct stream_marks *ms);
/* The last version of each message behind `behind` (and up to `upto`). False: no memory. */
bool stream_mark_ring(struct shard *sh, const struct stream *st, uint64_t behind, uint64_t upto,
                      struct stream_marks *ms);
bool stream_mark_range(struct shard *sh, const struct store_read *r, uint64_t behind,
                       struct stream_marks *ms);
const struct stream_mark *stream_mark_of(const struct stream_marks *ms, uint64_t message);

/* ---- stream_mend.c: messages that were changed before and behind an attach ---- */
/* Which they are: behind the replay's own in job->aggregates. False: no memory. */
bool stream_mend_find(struct shard *sh, struct stream_attach *job);
bool stream_mend_put(struct shard *sh, struct blob *b, const struct stream_attach *job);

/* ---- stream_base.c: a message of which a cold replay in delta mode holds appends ---- */
struct stream_base {
    uint64_t     message;
    uint64_t     append;                 /* the first one, where nothing whole stands before it */
    struct slice start;                  /* the text's beginning, as JSON, if it is known */
    struct slice text;                   /* as far as known: of the last whole version, unquoted */
    uint64_t     text_bytes;             /* of that and the fragments since */
    uint32_t     first, last;            /* 1 + index of those; 0: none */
    bool         known, doubtful;        /* doubtful: to be read as of `append` */
};
struct stream_bases {
    struct stream_base  *list;           /* owned, by message */
    struct stream_piece *pieces;         /* owned; fragments */
    uint32_t             count, room, pieces_count, pieces_room;
};
bool stream_bases_open(struct shard *sh, const struct stream_attach *job,
                       struct stream_bases *bs);         /* false: no memory; to be freed as well */
void stream_bases_free(struct shard *sh, struct stream_bases *bs);
struct stream_base *stream_base_of(const struct stream_bases *bs, const struct record *r);
/* The text is that of a whole version; or what was there before its last fragment. */
void stream_base_set(struct stream_base *base, struct slice data);
void stream_base_before(struct stream_base *base, struct slice whole, struct slice fragment);
void stream_base_add(struct stream_bases *bs, struct stream_base *base, struct slice fragment);
/* True when the fragment begins with the whole text so far. */
bool stream_base_starts(const struct stream_bases *bs, const struct stream_base *base,
                        struct slice fragment);
/* The text so far and the fragment, as JSON, of the shard's heap; ptr NULL: no memory. */
struct slice stream_base_join(struct shard *sh, const struct stream_bases *bs,
                              const struct stream_base *base, struct slice fragment);
/* What must be read as of an append: for job->aggregates, by message. False: no memory. */
bool stream_replay_bases(struct shard *sh, struct stream_attach *job);
bool stream_aggregate_add(struct shard *sh, struct stream_attach *job, uint64_t message,
                          uint64_t delivery);

/* ---- stream_request.c ---- */
void stream_request_begin(struct shard *sh);
void stream_request_tick(struct shard *sh);
