/* tale.h - worlds whose channels have memory: what was said, who may say what, what must hold.
 *
 * Shape    A tale is one data directory through several lives of the server. Backends create and
 *          change messages (tale_backend.c), sockets of both protocols listen, leave and come back
 *          with their positions (tale_client.c, tale_frame.c), the process dies at random moments
 *          or stops, and starts again on any number of shards (tale.c). The model (tale_model.c)
 *          holds what anybody was told, by channel and serial; when all is quiet the audit
 *          (tale_audit.c) reads everything back and compares. In half of the worlds others do
 *          whatever can be done to channels of their own (tale_wild.c).
 * Checks   A position of a stream stands for one operation for ever; operations happen at most
 *          once, those that were acknowledged exactly once; serials have no gap; a socket gets
 *          every serial behind its position once and in order, or is told that it cannot; what was
 *          told survives (of channels that promise it) or their stream has another name.
 * Threads  One.
 */
#pragma once
#include "tests/sim/world.h"

enum {
    TALE_CHANNELS = 3,               /* of each app */
    TALE_CLIENTS = 20,               /* the first of each app audits */
    TALE_TEXT_BYTES = 512,           /* of one operation */
    TALE_SERIAL_BYTES = 80,
    TALE_STREAM_BYTES = 40,
    TALE_SKIPPED = 64,
    TALE_AGE_MS = 100000000,         /* what is said is kept for longer than a tale */
};

enum tale_kind {                     /* what an app's channels are; apps have one kind each */
    TALE_VERSIONED, TALE_PLAIN /* history, no versions */,
    TALE_RELAXED /* versioned, delivered before the commit */, TALE_RING /* recovery only */,
};

enum tale_action { TALE_CREATE, TALE_UPDATE, TALE_DELETE, TALE_APPEND, TALE_ACTIONS };

struct tale_op {                     /* one thing that a backend says, by number */
    uint8_t  app, channel, action;
    bool     keyed;                  /* has a message_id or an op_id: may be said again */
    bool     marked;                 /* its extras name it */
    bool     cleared;                /* a delete that clears the data */
    bool     done;                   /* acknowledged, or seen by somebody */
    uint32_t create;                 /* the operation that it changes; its own number: a create */
    uint64_t serial;                 /* where it stands; 0: not known (yet) */
    char     name[TALE_SERIAL_BYTES];/* creates: message_serial; empty: not known */
};

struct tale_entry {                  /* one serial of a stream */
    uint32_t op;                     /* 0: nobody has told yet */
    uint32_t before;                 /* the message's serial before this one; 0: none, unknown */
    uint64_t ms;                     /* of its version serial; 0: not known */
};

struct tale_log {                    /* a channel, in its present stream */
    char               stream[TALE_STREAM_BYTES];    /* empty: not known */
    char               gone[TALE_STREAM_BYTES];      /* the stream before it, which is over */
    struct tale_entry *entries;      /* owned; by serial, the first is not used */
    uint32_t           room;
    uint64_t           head;         /* the newest that anybody was told */
};

struct tale {
    struct tale_op *ops;             /* owned; the first is not used */
    uint32_t        ops_count, ops_room;
    struct tale_log logs[WORLD_APPS][TALE_CHANNELS];
    uint32_t        lives, kills, shards_max;
    bool            failing;         /* commits may fail in this world */
    bool            wild;            /* tale_wild.c has a part in it */
    uint32_t        fail_commit;     /* in 1024: commits that fail */
    uint32_t        store_pace;      /* in 1024: store steps per turn; 0: the lanes stand still */
    uint32_t        hold;            /* in 1024: what lanes say stays on its way for a step */
    uint32_t        within;          /* in 1024: shards take turns while a lane commits */
    bool            committing;      /* it is so now */
    uint64_t        failed_commits, forgotten;   /* channels of which nothing was left */
    uint64_t        frames, rewinds, resumes, recovered, refused, mends, twice, answers, again;
                                     /* so far */
};

extern struct tale tale;

static inline enum tale_kind tale_kind_of(uint32_t app) { return (enum tale_kind)app; }
/* Where commits fail, what was delivered before them is taken back at any time: only what one
 * socket is told of one stream must fit together. */
static inline bool tale_is_loose(uint32_t app)
{
    return tale_kind_of(app) == TALE_RELAXED && tale.failing;
}
static inline bool tale_is_versioned(uint32_t app)
{
    return tale_kind_of(app) == TALE_VERSIONED || tale_kind_of(app) == TALE_RELAXED;
}
/* What is left of empty channels goes at once. */
static inline bool tale_forgets(void) { return world.seed % 2 != 0; }
static inline bool tale_is_stored(uint32_t app) { return tale_kind_of(app) != TALE_RING; }
/* What was told of it is never taken back. */
static inline bool tale_is_promised(uint32_t app)
{
    return tale_kind_of(app) == TALE_VERSIONED || tale_kind_of(app) == TALE_PLAIN;
}
static inline bool tale_troubled(void)
{
    return world.failed > 0 || tale.failed_commits > 0 || world.conf.history_max_bytes > 0;
}
const char *tale_channel(uint32_t channel);
int tale_channel_of(const char *name);   /* -1: none of ours */

/* ---- tale_model.c ---- */

uint32_t tale_op_new(uint32_t app, uint32_t channel, enum tale_action action, uint32_t create);
/* Its text: unlike that of every other operation. */
void tale_text(uint32_t op, char out[TALE_TEXT_BYTES]);
/* The number of the last operation in a text; 0: none. */
uint32_t tale_op_in(const char *text);
/* A stream was named. */
void tale_saw_stream(uint32_t app, uint32_t channel, const char *stream);
/* Operation `op` stands at this serial. */
void tale_saw(uint32_t app, uint32_t channel, uint64_t serial, uint32_t op);
/* And this is its version serial. */
void tale_saw_version(uint32_t app, uint32_t channel, uint64_t serial, const char *version);
/* Something stands there, whatever it is. */
void tale_saw_head(uint32_t app, uint32_t channel, uint64_t serial);
/* Everything from `from` to `upto` has been told. */
bool tale_known(uint32_t app, uint32_t channel, uint64_t from, uint64_t upto);
/* The message's whole text at its version `serial`; false: not all of it is known. */
bool tale_whole(uint32_t app, uint32_t channel, uint64_t serial, char *out, size_t room);
/* The newest version of a create up to `upto`, as far as known. */
uint64_t tale_latest(uint32_t op, uint64_t upto);
/* The process was killed or stopped: what was not promised is open again. */
void tale_model_lost(bool killed);
void tale_model_free(void);

/* ---- tale_client.c, tale_frame.c ---- */

enum tale_state { TALE_IDLE, TALE_ASKING, TALE_OPEN };

struct tale_ear {                    /* what a socket knows of a channel */
    bool     asked, live, leaving;
    bool     placed;                 /* has a position, which outlives the socket */
    char     stream[TALE_STREAM_BYTES];
    uint64_t position;               /* all up to here has been taken in */
    char     now[TALE_STREAM_BYTES]; /* live: the stream it listens to */
    uint64_t first, next;            /* live: serials since the success */
    bool     behind;                 /* (position, first) is missing, or `stream` is over */
    bool     resuming;               /* its position is under way */
    bool     named;                  /* in the resume that waits for its aggregate */
    bool     after;                  /* the success came while the resume was under way */
    bool     late;                   /* the success came when the resume had been answered */
    bool     twice, half;            /* resuming for the second time while its subscribe is under
                                        way; the first one's position was refused */
    uint64_t from;                   /* resuming: the position that was named */
    bool     mending;                /* a mend is looked at */
    uint32_t mended;                 /* messages that were shown once more behind the replay */
    uint32_t replayed, along;        /* frames below `first`; behind it, with or after the replay
                                        that came with the success */
    uint32_t rewind, rewound;        /* messages asked for with the subscribe; come */
    uint64_t rewound_from, rewound_upto;   /* the creates of the first and the last of them */
    uint64_t floor;                  /* what was told to anybody before the subscribe, */
    char     floor_stream[TALE_STREAM_BYTES];    /* of this stream */
    uint64_t skipped[TALE_SKIPPED];  /* full mode: serials that were left out for newer ones */
    uint32_t skipped_count;
    /* V1: the creates that it heard */
    uint32_t *heard;                 /* owned */
    uint32_t  heard_count, heard_room;
    uint64_t  heard_after;           /* they start behind this serial; UINT64_MAX: not known */
    uint32_t  leave_ping;
};

struct tale_client {
    struct sim_peer *peer;
    enum tale_state  state;
    uint32_t         number, app;
    bool             v2, full, auditor, reading;
    char             socket_id[PUSHER_SOCKET_ID_BYTES];
    struct sim_pipe  in;
    struct tale_ear  ears[TALE_CHANNELS];
    bool             resuming;       /* waits for the aggregate */
    uint32_t         pings, pongs;
};

extern struct tale_client tale_clients[TALE_CLIENTS];

void tale_clients_open(void);
void tale_client_act(struct tale_client *c);
bool tale_client_read(struct tale_client *c, bool all);
void tale_client_connect(struct tale_client *c);
void tale_client_pong(struct tale_client *c);
void tale_client_leave(struct tale_client *c, bool broken);
void tale_client_subscribe(struct tale_client *c, uint32_t channel, uint32_t rewind);
void tale_client_resume(struct tale_client *c);
void tale_clients_close(void);       /* they leave */
void tale_clients_cut(void);         /* the server is gone */
bool tale_client_current(const struct tale_client *c);
void tale_frame(struct tale_client *c, uint8_t opcode, const uint8_t *payload, uint32_t bytes);
uint64_t tale_number(const char *text, const char *before);   /* 0: not there */

void tale_write_frame(struct sim_peer *p, uint8_t opcode, const void *payload, uint32_t bytes);

/* ---- tale_wild.c ---- */

void tale_wild_open(void);
void tale_wild_act(void);
bool tale_wild_read(void);
uint32_t tale_wild_waiting(void);
void tale_wild_close(void);
void tale_wild_cut(void);

/* ---- tale_backend.c ---- */

void tale_backend_act(void);
bool tale_backend_read(void);
void tale_backend_close(void);
void tale_backend_cut(void);
void tale_backend_ask_history(uint32_t app, uint32_t channel);
/* What was read back, page by page; complete once `asking` is 0. */
struct tale_pages { uint32_t asking; uint64_t last, items; uint32_t app, channel; };
extern struct tale_pages tale_pages;
uint32_t tale_backend_waiting(void);

/* ---- tale_audit.c ---- */

void tale_audit(void);
bool tale_settle_read(void);
void tale_settle(void);

/* ---- tale.c ---- */

/* Shards go on while a lane waits for its disk. */
void tale_turn_within(void);
void tale_run(uint64_t seed, uint32_t shards, uint32_t steps, bool verbose);
