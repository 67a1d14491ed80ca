/* fuzz_ws.c - frames: any split gives the same events; what was encoded is what is decoded. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/run_ws.h"

enum { PAYLOAD_MAX = 2048, FIN = 0x80 };

static void splits_agree(const uint8_t *data, uint32_t bytes)
{
    struct run_log want = {0}, got = {0};
    uint32_t cuts[] = {1, bytes / 3, bytes / 2, bytes > 0 ? bytes - 1 : 0};

    run_ws(&want, data, bytes, bytes, 1, PAYLOAD_MAX);
    for (uint32_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        run_ws(&got, data, bytes, cuts[i], i == 0 ? 1 : bytes + 1, PAYLOAD_MAX);
        ASSERT(run_log_equal(&want, &got));
        run_log_free(&got);
    }
    run_log_free(&want);
}

/* The data as a binary message of several fragments with a ping between them. */
static void message_comes_back(const uint8_t *data, uint32_t bytes)
{
    uint32_t piece_bytes = bytes == 0 ? 1 : 1 + data[0] * 5u;
    uint32_t frames = bytes / piece_bytes + 1;
    uint8_t *wire = malloc(bytes + frames * 2 * (WS_CLIENT_HEADER_BYTES_MAX + 4));
    uint8_t *back = malloc(bytes + 1);
    uint32_t wire_bytes = 0, back_bytes = 0;
    ASSERT(wire != NULL && back != NULL);

    for (uint32_t i = 0; i < frames; i++) {
        uint32_t from = i * piece_bytes;
        uint8_t first = (uint8_t)((i == 0 ? WS_BINARY : 0) | (i + 1 == frames ? FIN : 0));
        struct slice piece = slice_of(data + from, u32_min(piece_bytes, bytes - from));
        uint32_t mask = (from + 1) * 0x9e3779b1u;
        wire_bytes += run_ws_encode(wire + wire_bytes, first, piece, mask);
        wire_bytes += run_ws_encode(wire + wire_bytes, FIN | WS_PING, slice_str("ping"), ~mask);
    }

    struct ws_state state = {0};
    struct ws_frame f;
    uint32_t need;
    uint16_t code;
    for (uint32_t at = 0; at < wire_bytes; at += f.frame_bytes) {
        ASSERT(ws_next(wire + at, wire_bytes - at, piece_bytes, &f, &need, &code) == WS_FRAME);
        ASSERT(ws_check(&state, &f, &code));
        if (f.opcode == WS_PING) {
            ASSERT(slice_is(f.payload, "ping"));
            continue;
        }
        ASSERT(back_bytes + f.payload.bytes <= bytes);
        if (f.payload.bytes > 0) memcpy(back + back_bytes, f.payload.ptr, f.payload.bytes);
        back_bytes += f.payload.bytes;
    }
    ASSERT(state.message_opcode == 0 && back_bytes == bytes);
    ASSERT(bytes == 0 || memcmp(back, data, bytes) == 0);
    free(wire);
    free(back);
}

/* Our own Close, masked as a client would, passes our own rules when the reason is text. */
static void close_comes_back(struct slice reason)
{
    uint8_t out[WS_CLOSE_FRAME_BYTES_MAX], in[WS_CLOSE_FRAME_BYTES_MAX + 4];
    uint32_t bytes = ws_close_write(out, 4100, reason);
    struct ws_state state = {0}, text_state = {0};
    struct ws_frame f, text = {.opcode = WS_TEXT, .fin = true, .payload = reason};
    uint32_t need;
    uint16_t code;

    ASSERT(bytes >= 4 && bytes <= sizeof out && out[1] == bytes - 2);
    bytes = run_ws_encode(in, out[0], slice_of(out + 2, bytes - 2), 0x5a17c3e9);
    ASSERT(ws_next(in, bytes, 0, &f, &need, &code) == WS_FRAME);
    ASSERT(ws_close_code(&f) == 4100);
    if (ws_check(&text_state, &text, &code)) ASSERT(ws_check(&state, &f, &code));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char accept[WS_ACCEPT_BYTES];
    struct slice all = slice_of(data, (uint32_t)bytes);

    splits_agree(data, all.bytes);
    message_comes_back(data, all.bytes);
    close_comes_back(all);
    if (ws_accept_key(all, accept)) ASSERT(accept[WS_ACCEPT_BYTES - 1] == '=');
    return 0;
}
