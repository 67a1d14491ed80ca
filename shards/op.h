/* op.h - an HTTP request (or upgrade) that waits for answers of homes.
 *
 * Shape    A request handler is a function of the request and of the questions already answered
 *          (`passed`). When it needs a question it calls op_suspend, asks (ask.h) and returns; the
 *          request's bytes are then kept in the op, and when the answers are in the handler runs
 *          again from the start on those bytes with one more bit in `passed`. Work in flight at
 *          homes (publishes, lists) counts in `waiting` and goes on in a `next` of its own.
 * Threads  The shard that received the request. Homes hold the pointer only to send it back.
 * Order    An op is freed when `waiting` is 0 and its continuation has run, never earlier, even if
 *          its connection is gone.
 * Bounds   One op a connection; ops of a shard are bounded by its connections.
 */
#pragma once
#include "shards/conn.h"

struct op;
typedef void (*op_fn)(struct shard *sh, struct op *op);

enum op_passed {                     /* questions that have been answered with yes */
    OP_RATE = 1 << 0, OP_BACKEND = 1 << 1, OP_CLAIM = 1 << 2, OP_QUOTA_NODE = 1 << 3,
    OP_QUOTA_APP = 1 << 4, OP_READ = 1 << 5, OP_SIGNED = 1 << 6 /* nobody is asked for it: api.c */,
};

/* A claimed idempotency key (ask.h). entry NULL: none. */
struct op_claim { void *entry; uint16_t shard; };

struct op {
    uint32_t   sock, gen;            /* the connection, if it still lives: op_conn */
    uint32_t   passed;               /* enum op_passed */
    uint32_t   refused;              /* the question (as a bit) answered with no, or 0 */
    uint32_t   asking;               /* enum ask_question under way, or last answered */
    uint32_t   waiting;              /* answers outstanding */
    op_fn      next;                 /* runs when waiting drops to 0 */
    op_fn      late;                 /* runs when `timer` fires; may answer, must not close */
    uint8_t   *input;                /* owned; head and body of the request, once suspended */
    uint32_t   input_bytes, head_bytes;
    uint32_t   app;
    bool       answered;             /* the client has its answer */
    bool       keep_alive, head_only;
    uint64_t   verdict[4];           /* arg0..arg3 of the last MAIL_ASKED */
    uint64_t   rate_left, rate_reset_s, rate_limit;   /* for X-RateLimit-*; limit 0: no header */
    struct op_claim claim;           /* released by op_close unless taken over */
    struct frame   *stored;          /* counted; the stored body after ASK_STORED, or NULL */
    uint8_t   *key;                  /* owned; lent to the home while a claim is asked for */
    uint32_t   key_bytes;
    uint8_t    print[16];            /* fingerprint of what the key stands for; zero: none */
    uint8_t   *origin;               /* owned; the request's Origin, where CORS needs it */
    uint32_t   origin_bytes;
    uint64_t   started_ns;
    struct timer timer;              /* deadline of a wait, where one applies */
    void      *work;                 /* owned by the handler that set it */
};

/* A new op for a connection; marks it busy. NULL at the heap's bound. */
struct op *op_open(struct shard *sh, struct conn *c);
/* The same for a request: notes what the answer needs of it. `op`, when not NULL, is returned. */
struct op *op_of_request(struct shard *sh, struct conn *c, struct op *op,
                         const struct http_request *r);
/* op_of_request, then op_keep, and the request is run again on the kept bytes (api_request) when
 * what is asked next has been answered. NULL at the heap's bound: answer 503, nothing is left. */
struct op *op_suspend(struct shard *sh, struct conn *c, struct op *op, const struct http_request *r,
                      struct slice whole);
/* Frees everything but what `work` points at, and gives back what the op still holds: its claim,
 * and quotas (OP_QUOTA_* in passed: clear the bits when the connection takes them over). */
void op_close(struct shard *sh, struct op *op);
/* The connection, or NULL when it has gone or nothing can be answered any more. */
struct conn *op_conn(struct shard *sh, struct op *op);
/* Keep a copy of the request's bytes in the op (once). False at the heap's bound. */
bool op_keep(struct shard *sh, struct op *op, struct slice head_and_body, uint32_t head_bytes);
/* The kept request, parsed. */
void op_request(const struct shard *sh, const struct op *op, struct http_request *out);
/* One answer came in; runs op->next at the last one. */
void op_answered(struct shard *sh, struct op *op);
void op_arm(struct shard *sh, struct op *op, uint64_t delay_ms, op_fn late);
void op_on_timer(struct shard *sh, struct timer *t);
