#include "shards/reply.h"

#include "proto/json.h"
#include "proto/origin.h"
#include "proto/utf8.h"

#include <stdarg.h>
#include <stdio.h>

enum { HEAD_BYTES = 1024, ORIGIN_BYTES_MAX = 256, ERROR_TEXT_BYTES_MAX = 1200 };

/* ---- the head ---- */

struct head { char text[HEAD_BYTES]; uint32_t bytes; };

__attribute__((format(printf, 2, 3))) static void add(struct head *h, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(h->text + h->bytes, sizeof(h->text) - h->bytes, format, args);
    va_end(args);
    ASSERT(n >= 0 && (uint32_t)n < sizeof(h->text) - h->bytes);
    h->bytes += (uint32_t)n;
}

static void add_cors(struct head *h, const struct conf *conf, struct slice origin)
{
    bool matched = false;
    for (uint32_t i = 0; i < conf->cors_origins_count; i++) {
        struct slice pattern = slice_str(conf->cors_origins[i]);
        if (slice_is(pattern, "*") || slice_is(pattern, "any")) {
            add(h, "Access-Control-Allow-Origin: *\r\n");
            return;                      /* credentials never go with it */
        }
        if (origin.bytes > 0 && origin_matches(origin, pattern)) matched = true;
    }
    if (matched && origin.bytes <= ORIGIN_BYTES_MAX) {
        add(h, "Access-Control-Allow-Origin: %.*s\r\n", (int)origin.bytes,
            (const char *)origin.ptr);
        if (conf->cors_credentials) add(h, "Access-Control-Allow-Credentials: true\r\n");
    }
    add(h, "Vary: Origin\r\n");
}

static void write_head(struct head *h, const struct conf *conf, const struct reply *r, bool keep)
{
    h->bytes = 0;
    add(h, "HTTP/1.1 %u %s\r\n", r->status, http_status_text(r->status));
    if (r->content_type != NULL) add(h, "Content-Type: %s\r\n", r->content_type);
    add(h, "Content-Length: %u\r\nConnection: %s\r\n", r->body.bytes,
        keep ? "keep-alive" : "close");
    if (r->health != NULL) add(h, "X-Health-Check: %s\r\n", r->health);
    if (r->allow != NULL) add(h, "Allow: %s\r\n", r->allow);
    if (r->retry_after_s > 0) add(h, "Retry-After: %u\r\n", r->retry_after_s);
    if (r->rate_limit > 0) {
        add(h, "X-RateLimit-Limit: %llu\r\nX-RateLimit-Remaining: %llu\r\n"
               "X-RateLimit-Reset: %llu\r\n", (unsigned long long)r->rate_limit,
            (unsigned long long)r->rate_left, (unsigned long long)r->rate_reset_s);
    }
    if (r->cors) add_cors(h, conf, r->origin);
}

/* ---- sending ---- */

static uint8_t *put(uint8_t *at, const void *bytes, uint32_t count)
{
    if (count > 0) memcpy(at, bytes, count);
    return at + count;
}

void reply_send(struct shard *sh, struct conn *c, const struct reply *r, bool keep)
{
    struct head h;
    uint32_t body_bytes = r->head_only ? 0 : r->body.bytes;
    if (shard_is_draining(sh)) keep = false;
    write_head(&h, sh->conf, r, keep);
    struct frame *f = frame_make(sh, h.bytes + r->more.bytes + 2 + body_bytes);
    if (f == NULL) {
        conn_kill_later(sh, c);          /* there is no memory to say so */
    } else {
        uint8_t *at = put(frame_room(f), h.text, h.bytes);
        at = put(at, r->more.ptr, r->more.bytes);
        at = put(at, "\r\n", 2);
        at = put(at, r->body.ptr, body_bytes);
        f->bytes_count = (uint32_t)(at - frame_room(f));
        conn_send(sh, c, f);
        frame_put(sh, &f);
    }
    if (r->counted) {
        metric_add(sh->metrics, METRIC_HTTP_TRANSMITTED_BYTES, r->app, 0, body_bytes);
    }
    conn_answered(sh, c, keep);
}

void reply_op(struct shard *sh, struct op *op, struct reply *r)
{
    struct conn *c = op_conn(sh, op);
    if (c != NULL) {
        r->head_only = op->head_only;
        r->cors = true;
        r->origin = slice_of(op->origin, op->origin_bytes);
        r->rate_limit = op->rate_limit;
        r->rate_left = op->rate_left;
        r->rate_reset_s = op->rate_reset_s;
        op->answered = true;
        reply_send(sh, c, r, op->keep_alive);
    }
    op_close(sh, op);
}

/* ---- errors ---- */

uint32_t reply_error_write_ai(char out[REPLY_ERROR_BYTES], uint16_t status, const char *code,
                              uint32_t ai_code, struct slice text)
{
    char ai[32] = "", cut[ERROR_TEXT_BYTES_MAX + 1], mended[ERROR_TEXT_BYTES_MAX + 1];
    snprintf(cut, sizeof(cut), "%.*s", (int)u32_min(text.bytes, ERROR_TEXT_BYTES_MAX),
             (const char *)text.ptr);
    text = slice_str(utf8_mend(cut, mended, sizeof(mended)));
    uint8_t *at = put((uint8_t *)out, "{\"error\":", 9);
    at += json_quote(text, at);
    if (ai_code != 0) snprintf(ai, sizeof(ai), ",\"ai_code\":%u", ai_code);
    int n = snprintf((char *)at, REPLY_ERROR_BYTES - (size_t)(at - (uint8_t *)out),
                     ",\"code\":\"%s\"%s,\"status\":%u}", code, ai, status);
    return (uint32_t)(at - (uint8_t *)out) + (uint32_t)n;
}

uint32_t reply_error_write(char out[REPLY_ERROR_BYTES], uint16_t status, const char *code,
                           struct slice text)
{
    return reply_error_write_ai(out, status, code, 0, text);
}

void reply_bad(struct shard *sh, struct conn *c, uint16_t status, const char *text)
{
    struct reply r = {
        .status = status, .content_type = "text/plain; charset=utf-8", .body = slice_str(text),
        .cors = c->tag == CONN_TRAFFIC,
    };
    reply_send(sh, c, &r, false);
}
