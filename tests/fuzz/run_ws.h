/* run_ws.h - a stream of client frames through ws_next and ws_check, as a log; and its opposite, an
 * encoder of client frames. For the unit tests and the fuzz target. */
#pragma once
#include "proto/ws.h"
#include "tests/fuzz/run_log.h"

enum { RUN_WS_END = 0xe0, RUN_WS_BAD = 0xe1 };

/* Logs every frame, then either RUN_WS_BAD and the close code, or RUN_WS_END and what is needed. */
static inline void run_ws(struct run_log *log, const uint8_t *in, uint32_t bytes, uint32_t first,
                          uint32_t then, uint32_t payload_max)
{
    struct run_feed feed = run_feed_open(in, bytes, first, then);
    struct ws_state state = {0};
    struct ws_frame f;
    uint32_t at = 0, need = 0, need_before = 0;
    uint16_t code = 0;
    bool fine = true;

    while (fine) {
        enum ws_result result = ws_next(feed.ptr + at, feed.have - at, payload_max, &f, &need,
                                        &code);
        if (result == WS_NEED_MORE) {
            ASSERT(need > feed.have - at);
            ASSERT(need <= WS_CLIENT_HEADER_BYTES_MAX + u32_max(payload_max, WS_CONTROL_BYTES_MAX));
            need_before = need;
            if (!run_feed_more(&feed)) break;
            continue;
        }
        ASSERT(feed.have - at >= need_before);      /* no answer before the length it asked for */
        need_before = 0;
        fine = result == WS_FRAME && ws_check(&state, &f, &code);
        if (result != WS_FRAME) break;
        ASSERT(f.frame_bytes <= feed.have - at);
        ASSERT(f.payload.ptr + f.payload.bytes == feed.ptr + at + f.frame_bytes);
        run_log_u64(log, f.opcode | (uint64_t)f.fin << 8);
        run_log_slice(log, f.payload);
        at += f.frame_bytes;
    }
    bool bad = code != 0;
    run_log_u64(log, bad ? RUN_WS_BAD : RUN_WS_END);
    run_log_u64(log, bad ? code : need);
    run_feed_close(&feed);
}

/* A frame as a client sends it: masked, with any first byte. Returns its length. */
static inline uint32_t run_ws_encode(uint8_t *out, uint8_t first_byte, struct slice payload,
                                     uint32_t mask)
{
    uint32_t at = 0;
    uint32_t length_bytes = payload.bytes < 126 ? 0 : payload.bytes <= UINT16_MAX ? 2 : 8;

    uint32_t short_length = length_bytes == 0 ? payload.bytes : length_bytes == 2 ? 126 : 127;

    out[at++] = first_byte;
    out[at++] = (uint8_t)(0x80 | short_length);
    for (uint32_t i = length_bytes; i > 0; i--) {
        out[at++] = i > 4 ? 0 : (uint8_t)(payload.bytes >> 8 * (i - 1));
    }
    for (uint32_t i = 0; i < 4; i++) out[at++] = (uint8_t)(mask >> 8 * i);
    for (uint32_t i = 0; i < payload.bytes; i++) {
        out[at++] = (uint8_t)(payload.ptr[i] ^ mask >> 8 * (i % 4));
    }
    return at;
}
