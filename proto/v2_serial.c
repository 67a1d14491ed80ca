/* String serials and ids. Part of v2.h. */
#include "proto/v2.h"

#include <stdio.h>

enum { PART_DIGITS = 20, NODE_BYTES_MAX = 32, TEXT_BYTES_MAX = 128 };
static_assert(V2_SERIAL_BYTES == PART_DIGITS + 1 + NODE_BYTES_MAX + 1 + PART_DIGITS + 1,
              "two numbers, a node, two colons and a zero");

void v2_node_write(char out[V2_NODE_BYTES], uint64_t a, uint64_t b)
{
    enum { HALF = (V2_NODE_BYTES - 1) / 2, BITS = 5 };
    for (uint32_t i = 0; i < HALF; i++, a >>= BITS, b >>= BITS) {
        out[i] = "0123456789abcdefghijklmnopqrstuv"[a & 31];
        out[HALF + i] = "0123456789abcdefghijklmnopqrstuv"[b & 31];
    }
    out[V2_NODE_BYTES - 1] = 0;
}

static char *digits_write(char *at, uint64_t value)
{
    for (uint32_t i = PART_DIGITS; i > 0; value /= 10) at[--i] = (char)('0' + value % 10);
    return at + PART_DIGITS;
}

uint32_t v2_serial_write(char out[V2_SERIAL_BYTES], uint64_t ms, const char *node,
                         uint64_t delivery)
{
    size_t node_bytes = strlen(node);
    ASSERT(node_bytes > 0 && node_bytes <= NODE_BYTES_MAX);
    char *at = digits_write(out, ms);
    *at++ = ':';
    memcpy(at, node, node_bytes);
    at += node_bytes;
    *at++ = ':';
    at = digits_write(at, delivery);
    *at = 0;
    return (uint32_t)(at - out);
}

static bool digits_read(const uint8_t *at, uint64_t *out)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < PART_DIGITS; i++) {
        uint64_t digit = (uint64_t)at[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            return false;
        }
    }
    *out = value;
    return true;
}

bool v2_serial_parse(struct slice text, const char *node, uint64_t *ms, uint64_t *delivery)
{
    uint32_t node_bytes = (uint32_t)strlen(node);
    if (text.bytes != PART_DIGITS + 1 + node_bytes + 1 + PART_DIGITS) return false;
    const uint8_t *name = text.ptr + PART_DIGITS + 1, *last = name + node_bytes + 1;
    return name[-1] == ':' && last[-1] == ':' && memcmp(name, node, node_bytes) == 0 &&
           digits_read(text.ptr, ms) && digits_read(last, delivery);
}

/* The character at p is one of Unicode's White_Space. */
static bool white_space(const uint8_t *p, const uint8_t *end)
{
    if (*p == ' ' || (*p >= '\t' && *p <= '\r')) return true;
    if (*p == 0xc2 && end - p >= 2) return p[1] == 0x85 || p[1] == 0xa0;
    if (end - p < 3) return false;
    uint32_t three = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
    return three == 0xe19a80 ||                              /* U+1680 */
           (three >= 0xe28080 && three <= 0xe2808a) ||       /* U+2000 to U+200A */
           three == 0xe280a8 || three == 0xe280a9 || three == 0xe280af ||
           three == 0xe2819f || three == 0xe38080;           /* U+205F, U+3000 */
}

static bool fail(const char *what, const char *text, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "%s must %s", what, text);
    return false;
}

bool v2_serial_check(struct slice text, const char *what, char error[PUSHER_ERROR_TEXT_BYTES])
{
    if (text.bytes == 0) return fail(what, "not be empty", error);
    const uint8_t *end = text.ptr + text.bytes;
    for (const uint8_t *p = text.ptr; p < end; p++) {
        if (white_space(p, end)) return fail(what, "not contain whitespace", error);
    }
    return text.bytes <= TEXT_BYTES_MAX || fail(what, "be at most 128 bytes", error);
}

void v2_uuid_write(char out[V2_UUID_BYTES], uint64_t a, uint64_t b)
{
    static const char digits[] = "0123456789abcdef";
    a = (a & ~0xf000ull) | 0x4000;                           /* version 4, RFC 9562 5.4 */
    b = (b & ~(3ull << 62)) | 2ull << 62;                    /* variant 10 */
    char *at = out;
    for (uint32_t i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) *at++ = '-';
        uint64_t half = i < 16 ? a : b;
        *at++ = digits[half >> (60 - 4 * (i & 15)) & 15];
    }
    *at = 0;
}
