/* run_log.h - what a parser said about a stream, as bytes: two runs are equal when their logs are.
 *
 * Shape    A run feeds `bytes` of input in pieces: one of `first` bytes, then pieces of `then`.
 *          Bytes that have not arrived yet are hidden, so that a sanitizer sees any early look.
 * Memory   The log grows on the heap; run_log_free gives it back.
 */
#pragma once
#include "core/base.h"

#include <sanitizer/asan_interface.h>   /* its macros do nothing without AddressSanitizer */
#include <stdlib.h>

struct run_log {
    uint8_t *ptr;
    size_t   bytes, room;
};

static inline void run_log_put(struct run_log *log, const void *ptr, size_t bytes)
{
    if (bytes > log->room - log->bytes) {
        log->room = 2 * log->room + bytes + 256;
        log->ptr = realloc(log->ptr, log->room);
        ASSERT(log->ptr != NULL);
    }
    if (bytes > 0) memcpy(log->ptr + log->bytes, ptr, bytes);
    log->bytes += bytes;
}

static inline void run_log_u64(struct run_log *log, uint64_t value)
{
    run_log_put(log, &value, sizeof value);
}

static inline void run_log_slice(struct run_log *log, struct slice s)
{
    run_log_u64(log, s.bytes);
    run_log_put(log, s.ptr, s.bytes);
}

static inline bool run_log_equal(const struct run_log *a, const struct run_log *b)
{
    return a->bytes == b->bytes && (a->bytes == 0 || memcmp(a->ptr, b->ptr, a->bytes) == 0);
}

static inline void run_log_free(struct run_log *log)
{
    free(log->ptr);
    *log = (struct run_log){0};
}

/* A stream that arrives piece by piece. */
struct run_feed {
    uint8_t *ptr;
    uint32_t bytes, have, then;
};

static inline struct run_feed run_feed_open(const uint8_t *in, uint32_t bytes, uint32_t first,
                                            uint32_t then)
{
    struct run_feed feed = {malloc(bytes + 1), bytes, first < bytes ? first : bytes, then};
    ASSERT(feed.ptr != NULL && then > 0);
    if (bytes > 0) memcpy(feed.ptr, in, bytes);
    ASAN_POISON_MEMORY_REGION(feed.ptr + feed.have, bytes + 1 - feed.have);
    return feed;
}

/* One more piece; false when there is none. */
static inline bool run_feed_more(struct run_feed *feed)
{
    if (feed->have == feed->bytes) return false;
    uint32_t piece = u32_min(feed->then, feed->bytes - feed->have);
    ASAN_UNPOISON_MEMORY_REGION(feed->ptr + feed->have, piece);
    feed->have += piece;
    return true;
}

static inline void run_feed_close(struct run_feed *feed)
{
    ASAN_UNPOISON_MEMORY_REGION(feed->ptr, feed->bytes + 1);
    free(feed->ptr);
    feed->ptr = NULL;
}
