/* run_http.h - a stream of requests with their bodies through http_parse and http_chunked_feed, as
 * a log. For the unit tests and the fuzz target. */
#pragma once
#include "proto/http.h"
#include "tests/fuzz/run_log.h"

enum { RUN_HTTP_END = 0xe0, RUN_HTTP_BAD = 0xe1 };

static inline bool run_http_inside(struct slice s, const uint8_t *from, const uint8_t *to)
{
    return s.ptr >= from && s.ptr + s.bytes <= to;
}

static inline void run_http_head(struct run_log *log, const struct http_request *r,
                                 const uint8_t *in)
{
    const uint8_t *end = in + r->head_bytes;

    ASSERT(run_http_inside(r->method_text, in, end) && run_http_inside(r->target, in, end));
    ASSERT(run_http_inside(r->path, in, end) && run_http_inside(r->query, in, end));
    ASSERT(r->path.bytes + r->has_query + r->query.bytes == r->target.bytes);
    ASSERT(!(r->chunked && r->content_length > 0) && r->minor <= 1);
    ASSERT(!r->upgrade || (!r->chunked && r->content_length == 0));
    run_log_u64(log, r->method | (uint64_t)r->minor << 8 | (uint64_t)r->keep_alive << 16 |
                         (uint64_t)r->upgrade << 17 | (uint64_t)r->chunked << 18 |
                         (uint64_t)r->expect_continue << 19);
    run_log_u64(log, r->content_length);
    run_log_slice(log, r->method_text);
    run_log_slice(log, r->path);
    run_log_slice(log, r->query);
    for (uint32_t i = 0; i < r->headers_count; i++) {
        ASSERT(run_http_inside(r->headers[i].name, in, end));
        ASSERT(run_http_inside(r->headers[i].value, in, end));
        run_log_slice(log, r->headers[i].name);
        run_log_slice(log, r->headers[i].value);
    }
}

/* A chunked body in place, from `*at` on. Logs the decoded bytes. */
static inline enum http_result run_http_chunked(struct run_log *log, struct run_feed *feed,
                                                uint32_t *at, const struct http_limits *limits,
                                                struct http_error *error)
{
    struct http_chunked c = {0};
    uint32_t body_at = *at, body_bytes = 0, used, produced;
    enum http_result result;

    for (;;) {
        result = http_chunked_feed(&c, limits, feed->ptr + *at, feed->have - *at,
                                   feed->ptr + body_at + body_bytes, &used, &produced, error);
        ASSERT(used <= feed->have - *at && produced <= used);
        ASSERT(result != HTTP_NEED_MORE || used == feed->have - *at);
        *at += used;
        body_bytes += produced;
        ASSERT(c.body_bytes == body_bytes && body_bytes <= limits->body_bytes_max);
        if (result != HTTP_NEED_MORE || !run_feed_more(feed)) break;
    }
    run_log_slice(log, slice_of(feed->ptr + body_at, body_bytes));
    return result;
}

/* Logs every request with its body, then RUN_HTTP_BAD and the status, or RUN_HTTP_END. */
static inline void run_http(struct run_log *log, const uint8_t *in, uint32_t bytes, uint32_t first,
                            uint32_t then, const struct http_limits *limits)
{
    struct run_feed feed = run_feed_open(in, bytes, first, then);
    struct http_request r;
    struct http_error error = {0};
    uint32_t at = 0, scanned = 0;
    enum http_result result = HTTP_OK;

    while (result != HTTP_BAD) {
        result = http_parse(limits, slice_of(feed.ptr + at, feed.have - at), &scanned, &r, &error);
        if (result == HTTP_NEED_MORE) {
            if (!run_feed_more(&feed)) break;
            continue;
        }
        if (result == HTTP_BAD) break;
        ASSERT(scanned == 0 && r.head_bytes <= feed.have - at);
        run_log_u64(log, r.head_bytes);
        run_http_head(log, &r, feed.ptr + at);
        at += r.head_bytes;
        if (r.chunked) {
            result = run_http_chunked(log, &feed, &at, limits, &error);
            if (result == HTTP_NEED_MORE) break;
            continue;
        }
        ASSERT(r.content_length <= limits->body_bytes_max);
        while (feed.have - at < r.content_length && run_feed_more(&feed)) {}
        if (feed.have - at < r.content_length) break;
        run_log_slice(log, slice_of(feed.ptr + at, (uint32_t)r.content_length));
        at += (uint32_t)r.content_length;
    }
    ASSERT((result == HTTP_BAD) == (error.status != 0));
    run_log_u64(log, error.status == 0 ? RUN_HTTP_END : RUN_HTTP_BAD);
    run_log_u64(log, error.status);
    if (error.status != 0) run_log_put(log, error.text, strlen(error.text));
    run_feed_close(&feed);
}
