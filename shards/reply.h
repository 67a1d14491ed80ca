/* reply.h - HTTP answers: status line, headers, CORS, body, all in one queued piece.
 *
 * Threads  The shard.
 * Source   spec/pusher-v1.md 7.2, 7.7, 7.9.
 */
#pragma once
#include "shards/op.h"

struct reply {
    uint16_t     status;
    const char  *content_type;     /* NULL: no Content-Type header */
    struct slice body;             /* copied */
    const char  *health;           /* X-Health-Check, or NULL */
    uint32_t     retry_after_s;    /* 0: no header */
    uint64_t     rate_limit, rate_left, rate_reset_s;   /* rate_limit 0: no X-RateLimit-* */
    bool         head_only;        /* HEAD: length of the body, no body */
    bool         cors;             /* add CORS headers (default for traffic routes) */
    struct slice origin;           /* request's Origin header, for CORS */
    const char  *allow;            /* Allow header of a 405, or NULL */
    struct slice more;             /* further header lines, each ended by CRLF; copied */
    bool         counted;          /* body bytes count in http_transmitted_bytes of `app` */
    uint32_t     app;              /* index, or series_app_unknown, series_app_system */
};

/* Queue the answer and go on (conn_answered). keep: the request allowed keep-alive. */
void reply_send(struct shard *sh, struct conn *c, const struct reply *r, bool keep);
/* The same for a request that waited: fills head_only, CORS and rate headers from the op, and
 * closes the op. Nothing is sent when the connection has gone. */
void reply_op(struct shard *sh, struct op *op, struct reply *r);
/* {"error":text,"code":code,"status":status} into out; returns its length. */
enum { REPLY_ERROR_BYTES = 8192 };
uint32_t reply_error_write(char out[REPLY_ERROR_BYTES], uint16_t status, const char *code,
                           struct slice text);
/* The same with "ai_code":ai_code behind the code. */
uint32_t reply_error_write_ai(char out[REPLY_ERROR_BYTES], uint16_t status, const char *code,
                              uint32_t ai_code, struct slice text);
/* Plain text before routing (bad requests): closes afterwards. */
void reply_bad(struct shard *sh, struct conn *c, uint16_t status, const char *text);
