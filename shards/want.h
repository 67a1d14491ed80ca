/* want.h - a question about a channel's memory, from the shard of the request to the channel's
 * home: reads, mutations, annotations, history.
 *
 * Shape    The asking shard fills a struct want and lends it with MAIL_WANT; the home answers with
 *          MAIL_WANTED: a status and a body (JSON text in a frame, lent). HTTP requests wait in
 *          their op (want.op), channel_history of a socket in nobody: socket and generation.
 *          At the home a want is handled again whenever what it waited for has come, so a handler
 *          starts from the beginning each time and keeps nothing but what is in the struct.
 * Threads  want_make, want_post, want_free, want_on_wanted: the asking shard. want_on_want and what
 *          it calls: the home, which may write what is marked as its own.
 * Bounds   Two channel_history requests a socket (4301); HTTP: one a connection.
 * Source   spec/messages-and-history.md 3, 5, 7, 8, 9; spec/protocol-v2.md 8.
 */
#pragma once
#include "shards/stream.h"

enum want_kind {
    WANT_MUTATE, WANT_MESSAGE, WANT_VERSIONS,
    WANT_HISTORY, WANT_HISTORY_STATE, WANT_HISTORY_RESET, WANT_HISTORY_PURGE,
    WANT_PRESENCE_HISTORY, WANT_PRESENCE_STATE, WANT_PRESENCE_RESET, WANT_PRESENCE_SNAPSHOT,
    WANT_ANNOTATE, WANT_UNANNOTATE, WANT_ANNOTATIONS,
    WANT_ANNOTATION_SUMMARIES,         /* of a V2 socket that has subscribed: frames, not JSON */
};

struct api_text;

struct want_page {                     /* history pages, versions, lists: already validated */
    uint32_t limit;
    bool     newest_first;
    bool     has_start, has_end, has_time_from, has_time_upto;
    uint64_t start_serial, end_serial; /* inclusive */
    int64_t  time_from_ms, time_upto_ms;
    struct slice cursor;               /* as given; ptr NULL: none */
    bool     until_attach, on_socket;  /* socket: differences of section 7's last paragraph */
    bool     has_attach_serial;
    uint64_t attach_serial;
    bool     has_at_serial, has_at_time;     /* presence snapshot */
    uint64_t at_serial;
    int64_t  at_time_ms;
};

/* Who asks, when he is a socket: what the home needs to decide. */
struct want_actor {
    bool         given;
    bool         denied;               /* 401: `text` says why; only once the message was found */
    uint8_t      scope;                /* annotations: enum content_scope of a delete */
    struct slice id;
};

struct want {
    uint8_t   kind;                    /* enum want_kind */
    struct op *op;                     /* HTTP; NULL: a socket */
    uint32_t  sock, gen;
    uint32_t  app;
    struct slice channel;              /* these point into bytes */
    struct slice serial;               /* message serial as given */
    uint64_t  message, message_ms;     /* what it names; 0: nothing of this store */
    struct slice reason, requested_by; /* reset, purge: raw JSON; requested_by may be absent */
    uint8_t   channel_kind;            /* enum pusher_kind */
    bool      channel_cache;
    uint8_t   mode;                    /* purge: enum want_purge */
    uint64_t  before;                  /* purge bound */
    struct want_page page;
    struct want_actor actor;
    struct actor *asked;               /* owned, asking shard; NULL: no socket is named */
    struct content  *content;          /* owned; mutations, annotations */
    uint8_t  *json;                    /* owned; annotations: the data of content */
    uint32_t  json_bytes;
    uint8_t   action;                  /* WANT_MUTATE: enum record_kind */
    struct slice type;                 /* annotations: the type, plain text */
    struct slice annotation;           /* serial of the one to be deleted */
    /* the home's own, while it is lent */
    uint16_t  from_shard;
    uint32_t  rows_limit;              /* rows asked of the lane: fewer when they were too large */
    uint64_t  purged_count, purged_bytes;
    char      previous_id[37];
    uint8_t   healed;                  /* reset: bits of streams without a head to be read */
    uint64_t  lost_mark;               /* presence_log_newest before the reset */
    struct want *next;                 /* waits for the channel's annotations to be read */
    bool      found;                   /* annotations: the message was found */
    struct api_text *list;             /* owned; a list under way */
    uint32_t  list_count;
    uint64_t  list_last, list_shown;   /* serials: of the last row read, of the last one listed */
    uint64_t  list_end;                /* of the last row that can be listed */
    uint32_t  list_read;               /* rows read */
    /* the answer */
    uint16_t  status;                  /* HTTP status; 200: body */
    uint32_t  ai_code;                 /* 0: none */
    const char *code;                  /* error code, static */
    char      text[PUSHER_ERROR_TEXT_BYTES];   /* error text */
    uint32_t  retry_after_s;
    uint32_t  ws_code;                 /* a socket's error code: 4000, 4300, 4301 */
    struct frame *body;                /* counted, asking shard: the answer, once it is back */
    /* memory */
    uint32_t  bytes_count, bytes_room;
    uint8_t   bytes[];
};
enum want_purge { WANT_PURGE_ALL, WANT_PURGE_SERIAL, WANT_PURGE_TIME };

/* Room for the texts that will be copied with want_text. NULL at the heap's bound. */
struct want *want_make(struct shard *sh, enum want_kind kind, uint32_t app, uint32_t bytes_room);
struct slice want_text(struct want *w, struct slice text);
void want_free(struct shard *sh, struct want *w);
/* ERR_FULL: nothing was asked; the want is the caller's still. */
MUST_CHECK err_t want_post(struct shard *sh, struct want *w);

/* A V2 socket has subscribed: ask for the summaries of what is annotated on the channel, which
 * follow its success frame. What there is no room to ask for now comes with the next change. */
void want_annotation_summaries(struct shard *sh, struct conn *c, const struct chan *ch);

/* Letters. */
void want_on_want(struct shard *sh, const struct letter *l);     /* MAIL_WANT, at the home */
void want_on_wanted(struct shard *sh, const struct letter *l);   /* MAIL_WANTED, back */

/* The HTTP side: post the want and answer the request with what comes back. The op's want must be
 * in op->work. Ends the op in any case. */
void want_run(struct shard *sh, struct op *op);
/* Refuse a request whose want was not posted. */
void want_end_refused(struct shard *sh, struct op *op, uint16_t status, const char *code,
                      uint32_t ai_code, const char *text);

/* ---- at the home ---- */

/* The letter of a want that is here: to wait, or to answer. */
static inline struct letter want_letter(struct want *w)
{
    return (struct letter){.kind = MAIL_WANT, .payload = w, .from_shard = w->from_shard};
}
/* Answer with a body, copied; t is freed. A failed text is answered with 503. */
void want_answer(struct shard *sh, struct want *w, struct api_text *t);
/* The same with a frame; its reference is taken. NULL: there was no memory. */
void want_answer_frame(struct shard *sh, struct want *w, struct frame *f);
/* Refuse: HTTP status and code; ws_code: what a socket is told. */
void want_refuse(struct shard *sh, struct want *w, uint16_t status, const char *code,
                 uint32_t ws_code, const char *format, ...) __attribute__((format(printf, 6, 7)));
void want_busy(struct shard *sh, struct want *w, const char *text);   /* 503, Retry-After: 1 */
void want_not_found(struct shard *sh, struct want *w);                /* 404 of a message */
/* What a read that gave nothing is answered with: 500 or 503. */
void want_read_failed(struct shard *sh, struct want *w, const struct store_read *r);
