/* put.h - the pieces that frame writers share: literals, numbers and the frame's header.
 *
 * Shape    Each function writes at `at` and returns where the next byte goes. The caller has
 *          computed the length before and owns the room.
 * Threads  Pure.
 */
#pragma once
#include "core/base.h"
#include "proto/json.h"
#include "proto/ws.h"

/* The compiler knows the length of a literal. */
#define PUT(at, literal) put_bytes((at), (literal), sizeof(literal) - 1)
#define PUT_BYTES(literal) ((uint32_t)sizeof(literal) - 1)

static inline uint8_t *put_bytes(uint8_t *at, const void *from, uint32_t bytes)
{
    memcpy(at, from, bytes);
    return at + bytes;
}

static inline uint8_t *put_slice(uint8_t *at, struct slice s)
{
    return s.bytes > 0 ? put_bytes(at, s.ptr, s.bytes) : at;
}

static inline uint32_t put_u64_bytes(uint64_t value)
{
    uint32_t digits = 1;
    while (value >= 10) value /= 10, digits++;
    return digits;
}

static inline uint8_t *put_u64(uint8_t *at, uint64_t value)
{
    uint32_t digits = put_u64_bytes(value);
    for (uint32_t i = digits; i > 0; value /= 10) at[--i] = (uint8_t)('0' + value % 10);
    return at + digits;
}

/* An event's name, a raw JSON string, in the words of one protocol: "pusher:x" and "sockudo:x" are
 * the same event, as are "pusher_internal:x" and "sockudo_internal:x". */
enum put_words { PUT_PUSHER, PUT_SOCKUDO };

static inline bool put_renamed(struct slice event_json, enum put_words to)
{
    const char *from = to == PUT_PUSHER ? "\"sockudo" : "\"pusher";
    if (!slice_starts(event_json, from)) return false;
    struct slice rest = slice_skip(event_json, (uint32_t)strlen(from));
    return slice_starts(rest, ":") || slice_starts(rest, "_internal:");
}

static inline uint32_t put_event_bytes(struct slice event_json, enum put_words to)
{
    if (!put_renamed(event_json, to)) return event_json.bytes;
    return to == PUT_PUSHER ? event_json.bytes - 1 : event_json.bytes + 1;
}

static inline uint8_t *put_event(uint8_t *at, struct slice event_json, enum put_words to)
{
    if (!put_renamed(event_json, to)) return put_slice(at, event_json);
    if (to == PUT_PUSHER) {
        at = PUT(at, "\"pusher");
        return put_slice(at, slice_skip(event_json, PUT_BYTES("\"sockudo")));
    }
    at = PUT(at, "\"sockudo");
    return put_slice(at, slice_skip(event_json, PUT_BYTES("\"pusher")));
}

/* Start a text frame of `payload_bytes`; returns where the payload goes. */
static inline uint8_t *put_header(uint8_t *out, uint32_t payload_bytes)
{
    return out + ws_header_write(out, WS_TEXT, payload_bytes);
}

/* Cut valid UTF-8 at the end of a character so that it has at most `bytes_max` bytes quoted. */
static inline struct slice put_cut(struct slice text, uint32_t bytes_max)
{
    struct slice kept = text;
    kept.bytes = u32_min(kept.bytes, bytes_max);   /* what is behind cannot fit: bounds the work */
    while (kept.bytes > 0 && json_quote_bytes(kept) > bytes_max) kept.bytes--;
    while (kept.bytes > 0 && kept.bytes < text.bytes && (text.ptr[kept.bytes] & 0xc0) == 0x80) {
        kept.bytes--;
    }
    return kept;
}
