/* ws.h - RFC 6455 frames: decode what clients send, encode what the server sends.
 *
 * Shape    ws_next takes contiguous bytes and yields one whole frame at a time, unmasked in place.
 *          ws_check applies the rules that span frames (fragmentation, UTF-8): 8 bytes of state.
 * Threads  Pure.
 * Bounds   The payload limit is applied to the frame header, before payload is accepted.
 * Memory   Nothing is allocated. The payload points into the caller's buffer.
 * Errors   WS_BAD with the close code to send: 1002 protocol, 1007 bad UTF-8, 1009 too big.
 * Source   RFC 6455 sections 5, 7.4, 8.1; limit: spec/settled.md 11.
 */
#pragma once
#include "core/base.h"

enum ws_opcode {
    WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10,
};
enum {
    WS_CLOSE_NORMAL = 1000, WS_CLOSE_PROTOCOL = 1002, WS_CLOSE_BAD_DATA = 1007,
    WS_CLOSE_TOO_BIG = 1009,
    WS_CONTROL_BYTES_MAX = 125,
    WS_SERVER_HEADER_BYTES_MAX = 10,   /* unmasked */
    WS_CLIENT_HEADER_BYTES_MAX = 14,
    WS_ACCEPT_BYTES = 28,              /* Sec-WebSocket-Accept */
    WS_CLOSE_FRAME_BYTES_MAX = 2 + WS_CONTROL_BYTES_MAX,
};

enum ws_result { WS_FRAME, WS_NEED_MORE, WS_BAD };

struct ws_frame {
    uint8_t      opcode;        /* enum ws_opcode, only the six above */
    bool         fin;
    struct slice payload;       /* unmasked, inside the input */
    uint32_t     frame_bytes;   /* header and payload: how far to advance */
};

/* Decode one frame from client bytes. WS_NEED_MORE: *need_bytes is the length that the buffer must
 * reach before calling again is worthwhile (> in_bytes; never above header + payload_max). WS_BAD:
 * *close_code is set. Refused here: unmasked frames, reserved bits, unknown opcodes, control
 * frames that are fragmented or longer than 125, a data frame's length over payload_max (1009),
 * non-minimal lengths (1002), and the 64-bit length's top bit. payload_max does not bind control
 * frames, so it may be what is left of a fragmented message; it is below 2^32 - 14. The answer does
 * not depend on how the bytes were cut. The input is changed only when WS_FRAME is returned. */
enum ws_result ws_next(uint8_t *in, uint32_t in_bytes, uint32_t payload_max,
                       struct ws_frame *out, uint32_t *need_bytes, uint16_t *close_code);

struct ws_state {
    uint8_t  message_opcode;    /* 0 = no fragmented message open */
    uint32_t utf8;              /* state of utf8_feed inside a text message */
};

/* Apply cross-frame rules to a data or control frame: a continuation without a start, a new data
 * frame inside a fragmented message, text that is not UTF-8, a Close payload with a bad code or
 * reason. True when fine; else *close_code is set. */
bool ws_check(struct ws_state *st, const struct ws_frame *f, uint16_t *close_code);

/* The code of a checked Close frame; 1005 when it carries none. */
uint16_t ws_close_code(const struct ws_frame *f);

/* Encode, all unmasked with fin set. Each returns the bytes written. */
uint32_t ws_header_bytes(uint32_t payload_bytes);   /* 2, 4 or 10 */
uint32_t ws_header_write(uint8_t *out, enum ws_opcode opcode, uint32_t payload_bytes);
/* The reason is cut at a character boundary to fit 123 bytes. out: WS_CLOSE_FRAME_BYTES_MAX.
 * Code 1005 (what ws_close_code says of an empty Close) writes an empty Close. */
uint32_t ws_close_write(uint8_t *out, uint16_t code, struct slice reason);

/* base64(SHA-1(key + GUID)); key is the raw Sec-WebSocket-Key (24 base64 characters, checked).
 * False when the key is malformed. */
bool ws_accept_key(struct slice key, char out[WS_ACCEPT_BYTES]);
