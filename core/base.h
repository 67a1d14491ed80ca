/* base.h - the few words every file uses: slices, assertions, small arithmetic.
 *
 * Threads  Any.
 * Memory   A slice borrows; it is valid as long as the bytes it was cut from.
 * Errors   ASSERT stays on in release builds: it marks our own mistakes, never a peer's.
 */
#pragma once
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Prints file, line and condition to stderr and aborts. Defined in base.c. */
__attribute__((noreturn, cold)) void base_assert_failed(const char *file, int line,
                                                        const char *condition);
#define ASSERT(c) (LIKELY(c) ? (void)0 : base_assert_failed(__FILE__, __LINE__, #c))

/* The struct that holds `member`, given a pointer to that member. */
#define CONTAINER_OF(p, type, member) ((type *)(void *)((char *)(p) - offsetof(type, member)))

struct slice {
    const uint8_t *ptr;  /* borrowed; may be NULL when bytes is 0 */
    uint32_t       bytes;
};

static inline struct slice slice_of(const void *ptr, uint32_t bytes)
{
    return (struct slice){ptr, bytes};
}

static inline struct slice slice_str(const char *text)
{
    return (struct slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.ptr, b.ptr, a.bytes) == 0);
}

/* Bytewise order: negative, 0 or positive. */
static inline int slice_order(struct slice a, struct slice b)
{
    uint32_t n = a.bytes < b.bytes ? a.bytes : b.bytes;
    int d = n == 0 ? 0 : memcmp(a.ptr, b.ptr, n);
    return d != 0 ? d : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static inline bool slice_is(struct slice a, const char *text)
{
    return slice_equal(a, slice_str(text));
}

static inline bool slice_starts(struct slice a, const char *prefix)
{
    size_t n = strlen(prefix);
    return a.bytes >= n && memcmp(a.ptr, prefix, n) == 0;
}

static inline struct slice slice_skip(struct slice a, uint32_t bytes)
{
    ASSERT(bytes <= a.bytes);
    return (struct slice){a.ptr + bytes, a.bytes - bytes};
}

static inline uint32_t u32_min(uint32_t a, uint32_t b) { return a < b ? a : b; }
static inline uint32_t u32_max(uint32_t a, uint32_t b) { return a > b ? a : b; }
static inline uint64_t u64_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t u64_max(uint64_t a, uint64_t b) { return a > b ? a : b; }
