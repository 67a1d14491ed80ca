/* The writing half of json.h: compact copies and quoted strings. */
#include "proto/json.h"

#define LANES(byte) (0x0101010101010101u * (uint64_t)(byte))

/* What a byte becomes: 0 itself, 'u' a \u00XX escape, else the letter behind the backslash. */
static const uint8_t escapes[256] = {
    ['"'] = '"', ['\\'] = '\\', ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r',
    ['\t'] = 't', [0] = 'u', [1] = 'u', [2] = 'u', [3] = 'u', [4] = 'u', [5] = 'u', [6] = 'u',
    [7] = 'u', [11] = 'u', [14] = 'u', [15] = 'u', [16] = 'u', [17] = 'u', [18] = 'u',
    [19] = 'u', [20] = 'u', [21] = 'u', [22] = 'u', [23] = 'u', [24] = 'u', [25] = 'u',
    [26] = 'u', [27] = 'u', [28] = 'u', [29] = 'u', [30] = 'u', [31] = 'u',
};

/* The first byte at or after p that needs an escape. Eight bytes at a time; the lowest bit found
 * is always a true one, because borrows run upwards only. */
static inline const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
    for (; end - p >= 8; p += 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        uint64_t quote = x ^ LANES('"');
        uint64_t slash = x ^ LANES('\\');
        uint64_t stop = ((x - LANES(0x20)) & ~x) | ((quote - LANES(1)) & ~quote) |
                        ((slash - LANES(1)) & ~slash);
        stop &= LANES(0x80);
        if (stop != 0) return p + (__builtin_ctzll(stop) >> 3);
    }
    while (p < end && escapes[*p] == 0) p++;
    return p;
}

uint32_t json_quote_bytes(struct slice text)
{
    uint64_t bytes = 2 + (uint64_t)text.bytes;
    const uint8_t *p = text.ptr, *end = text.bytes > 0 ? p + text.bytes : p;
    for (; (p = skip_plain(p, end)) < end; p++) bytes += escapes[*p] == 'u' ? 5 : 1;
    ASSERT(bytes <= UINT32_MAX);
    return (uint32_t)bytes;
}

uint32_t json_quote(struct slice text, uint8_t *out)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t *at = out;
    const uint8_t *p = text.ptr, *end = text.bytes > 0 ? p + text.bytes : p;
    *at++ = '"';
    while (p < end) {
        const uint8_t *stop = skip_plain(p, end);
        memcpy(at, p, (size_t)(stop - p));
        at += stop - p;
        p = stop;
        /* escapes cluster (JSON inside JSON): stay here until plain text comes again */
        for (; p < end && escapes[*p] != 0; p++) {
            *at++ = '\\';
            *at++ = escapes[*p];
            if (escapes[*p] != 'u') continue;
            *at++ = '0';
            *at++ = '0';
            *at++ = (uint8_t)digits[*p >> 4];
            *at++ = (uint8_t)digits[*p & 15];
        }
    }
    *at++ = '"';
    return (uint32_t)(at - out);
}

/* Behind the closing quote of the string at p. The text is valid, so there is one. */
static const uint8_t *string_end(const uint8_t *p, const uint8_t *end)
{
    for (p++; *p != '"'; p++) {
        if (*p == '\\') p++;
        ASSERT(p + 1 < end);
    }
    return p + 1;
}

uint32_t json_compact(const struct json_value *value, uint8_t *out)
{
    ASSERT(value->type != JSON_ABSENT);
    struct slice raw = value->raw;
    bool container = value->type == JSON_ARRAY || value->type == JSON_OBJECT;
    if (!container || !value->escaped) {
        memcpy(out, raw.ptr, raw.bytes);
        return raw.bytes;
    }
    uint8_t *at = out;
    const uint8_t *p = raw.ptr, *end = p + raw.bytes;
    while (p < end) {
        if (*p == '"') {
            const uint8_t *stop = string_end(p, end);
            memcpy(at, p, (size_t)(stop - p));
            at += stop - p;
            p = stop;
        } else {
            if (*p != ' ' && *p != '\n' && *p != '\r' && *p != '\t') *at++ = *p;
            p++;
        }
    }
    ASSERT((uint32_t)(at - out) == value->text_bytes);
    return (uint32_t)(at - out);
}
