/* Goal: ws.h refuses every malformed frame with the right code and reads every good one, however
 * the bytes arrive. Method: a masking client encoder (run_ws.h), exhaustive first bytes and close
 * codes, every split point of a set of streams. */
#include "proto/ws.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/fuzz/run_ws.h"

enum { PAYLOAD_MAX = 65536, MASK = 0x9d3fa271, FIN = 0x80 };

static uint8_t room[2 * PAYLOAD_MAX];
static uint8_t text[PAYLOAD_MAX + 1];
static uint32_t need;
static uint16_t code;
static struct ws_frame frame;

static enum ws_result next(const void *in, uint32_t bytes)
{
    need = 0;
    code = 0;
    memcpy(room, in, bytes);
    return ws_next(room, bytes, PAYLOAD_MAX, &frame, &need, &code);
}

static void text_fill(void)
{
    for (uint32_t i = 0; i < sizeof text; i++) text[i] = (uint8_t)(i * 31 + (i >> 8));
}

static void decode_of_encode_is_the_same(void **arg)
{
    static const uint32_t lengths[] = {0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 63, 64, 65, 124, 125,
                                       126, 127, 128, 1000, 65535, 65536};
    text_fill();
    for (uint32_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (uint32_t shift = 0; shift < 9; shift++) {       /* every alignment */
            struct slice payload = slice_of(text, lengths[i]);
            uint32_t bytes = run_ws_encode(room + shift, FIN | WS_BINARY, payload, MASK);
            assert_int_equal(ws_next(room + shift, bytes, PAYLOAD_MAX, &frame, &need, &code),
                             WS_FRAME);
            assert_int_equal(frame.opcode, WS_BINARY);
            assert_true(frame.fin);
            assert_int_equal(frame.frame_bytes, bytes);
            assert_true(slice_equal(frame.payload, payload));
        }
    }
}

static void every_first_byte_is_judged_by_the_rfc(void **arg)
{
    for (uint32_t first = 0; first < 256; first++) {
        uint8_t opcode = first & 15;
        bool known = opcode <= 2 || (opcode >= 8 && opcode <= 10);
        bool want = known && !(first & 0x70) && (opcode < 8 || first & 0x80);
        uint8_t in[6] = {(uint8_t)first, 0x80, 1, 2, 3, 4};
        assert_int_equal(next(in, sizeof in), want ? WS_FRAME : WS_BAD);
        assert_int_equal(next(in, 1), want ? WS_NEED_MORE : WS_BAD);
        if (!want) assert_int_equal(code, WS_CLOSE_PROTOCOL);
        if (want) assert_int_equal(frame.fin, first >> 7);
    }
}

static void unmasked_frames_are_refused(void **arg)
{
    assert_int_equal(next("\x81\x01x", 3), WS_BAD);
    assert_int_equal(code, WS_CLOSE_PROTOCOL);
    assert_int_equal(next("\x81\x00", 2), WS_BAD);
    assert_int_equal(code, WS_CLOSE_PROTOCOL);
}

static void control_frames_hold_at_most_125_bytes(void **arg)
{
    struct slice fits = slice_of(text, 125);
    uint8_t in[200];
    for (uint32_t opcode = WS_CLOSE; opcode <= WS_PONG; opcode++) {
        uint32_t bytes = run_ws_encode(in, (uint8_t)(FIN | opcode), fits, MASK);
        assert_int_equal(next(in, bytes), WS_FRAME);
        in[1] = 0x80 | 126;
        assert_int_equal(next(in, 2), WS_BAD);
        assert_int_equal(code, WS_CLOSE_PROTOCOL);
    }
}

static void lengths_are_minimal(void **arg)
{
    assert_int_equal(next("\x82\xfe\x00\x7d", 4), WS_BAD);                     /* 125 in 16 bits */
    assert_int_equal(code, WS_CLOSE_PROTOCOL);
    assert_int_equal(next("\x82\xfe\x00\x7e", 4), WS_NEED_MORE);
    assert_int_equal(need, 4 + 4 + 126);
    assert_int_equal(next("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", 10), WS_BAD);
    assert_int_equal(code, WS_CLOSE_PROTOCOL);
    assert_int_equal(next("\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00", 10), WS_NEED_MORE);
    assert_int_equal(need, 10 + 4 + 65536);
    assert_int_equal(next("\x82\xff\x80\x00\x00\x00\x00\x01\x00\x00", 10), WS_BAD);  /* top bit */
    assert_int_equal(code, WS_CLOSE_PROTOCOL);
}

static void a_length_over_the_limit_is_refused_at_the_header(void **arg)
{
    assert_int_equal(next("\x82\xff\x00\x00\x00\x00\x00\x01\x00\x01", 10), WS_BAD);
    assert_int_equal(code, WS_CLOSE_TOO_BIG);
    assert_int_equal(next("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 10), WS_BAD);
    assert_int_equal(code, WS_CLOSE_TOO_BIG);
    assert_int_equal(ws_next((uint8_t[]){0x81, 0x86}, 2, 5, &frame, &need, &code), WS_BAD);
    assert_int_equal(code, WS_CLOSE_TOO_BIG);
    assert_int_equal(ws_next((uint8_t[]){0x81, 0x85}, 2, 5, &frame, &need, &code), WS_NEED_MORE);
    assert_int_equal(need, 11);
    /* what is left of a message does not bind a ping in its middle */
    uint8_t ping[] = {0x89, 0x81, 0, 0, 0, 0, 'p'};
    assert_int_equal(ws_next(ping, sizeof ping, 0, &frame, &need, &code), WS_FRAME);
}

static void need_more_leaves_the_input_alone(void **arg)
{
    uint8_t in[64], before[64];
    uint32_t bytes = run_ws_encode(in, FIN | WS_TEXT, slice_str("masked payload, 24 bytes"), MASK);
    memcpy(before, in, bytes);
    for (uint32_t have = 0; have < bytes; have++) {
        assert_int_equal(ws_next(in, have, PAYLOAD_MAX, &frame, &need, &code), WS_NEED_MORE);
        assert_int_equal(need, have == 0 ? 1 : have == 1 ? 2 : bytes);
        assert_memory_equal(in, before, bytes);
    }
}

static void close_codes_are_those_of_the_registry(void **arg)
{
    for (uint32_t value = 0; value < 65536; value++) {
        uint8_t payload[2] = {(uint8_t)(value >> 8), (uint8_t)value};
        struct ws_frame f = {.opcode = WS_CLOSE, .fin = true, .payload = slice_of(payload, 2)};
        struct ws_state st = {0};
        bool want = (value >= 1000 && value <= 1014 && value != 1004 && value != 1005 &&
                     value != 1006) || (value >= 3000 && value < 5000);
        code = 0;
        assert_int_equal(ws_check(&st, &f, &code), want);
        assert_int_equal(code, want ? 0 : WS_CLOSE_PROTOCOL);
        assert_int_equal(ws_close_code(&f), value);
    }
}

struct step {
    uint8_t     first;      /* fin and opcode */
    const char *payload;
    uint32_t    bytes;
    uint16_t    code;       /* 0: fine */
};
#define STEP(first, text, code) {first, text, sizeof(text) - 1, code}

static void messages_follow_the_fragmentation_rules(void **arg)
{
    static const struct step runs[][5] = {
        {STEP(0x81, "caf\xc3\xa9", 0), STEP(0x82, "\xff", 0), STEP(0x81, "", 0)},
        {STEP(0x01, "caf\xc3", 0), STEP(0x89, "\xff", 0), STEP(0x80, "\xa9", 0),
         STEP(0x81, "next", 0)},
        {STEP(0x01, "", 0), STEP(0x00, "", 0), STEP(0x8a, "", 0), STEP(0x80, "", 0),
         STEP(0x80, "", 1002)},
        {STEP(0x02, "\xff", 0), STEP(0x80, "\xff", 0), STEP(0x00, "a", 1002)},
        {STEP(0x01, "a", 0), STEP(0x81, "b", 1002)},
        {STEP(0x02, "a", 0), STEP(0x01, "b", 1002)},
        {STEP(0x80, "a", 1002)},
        {STEP(0x00, "a", 1002)},
        {STEP(0x81, "caf\xc3", 1007)},
        {STEP(0x01, "caf\xc3", 0), STEP(0x80, "", 1007)},
        {STEP(0x01, "ok", 0), STEP(0x00, "\xf4\x90", 1007)},       /* at once, not at the end */
        {STEP(0x81, "\xed\xa0\x80", 1007)},
        {STEP(0x88, "", 0)},
        {STEP(0x88, "\x03", 1002)},
        {STEP(0x88, "\x03\xe8" "bye", 0)},
        {STEP(0x88, "\x03\xe8" "bye\xc3", 1007)},
        {STEP(0x01, "a", 0), STEP(0x88, "\x0f\xa0", 0)},
    };
    for (uint32_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        struct ws_state st = {0};
        for (uint32_t j = 0; j < 5 && runs[i][j].payload != NULL; j++) {
            const struct step *s = &runs[i][j];
            struct ws_frame f = {.opcode = s->first & 15, .fin = s->first >> 7,
                                 .payload = slice_of(s->payload, s->bytes)};
            code = 0;
            if (ws_check(&st, &f, &code) != (s->code == 0) || code != s->code) {
                fail_msg("run %u, step %u: code %u", i, j, code);
            }
        }
    }
}

static void every_split_gives_the_same_events(void **arg)
{
    static uint8_t in[4096];
    static const uint8_t tails[][12] = {
        {0x88, 0x82, 0, 0, 0, 0, 3, 0xe8}, {0x83, 0x80}, {0x81, 0x01, 'x'}, {0xc1, 0x80},
        {0x82, 0xfe, 0x00, 0x10}, {0x82, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0}, {0x89, 0xfe},
        {0x88, 0x81, 0, 0, 0, 0, 3}, {0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28}, {0x80, 0x80, 1, 1, 1, 1},
    };
    for (uint32_t t = 0; t < sizeof tails / sizeof tails[0]; t++) {
        uint32_t n = run_ws_encode(in, FIN | WS_TEXT, slice_str("h\xc3\xa9llo"), MASK);
        n += run_ws_encode(in + n, WS_TEXT, slice_str("part \xe2\x82"), MASK + 1);
        n += run_ws_encode(in + n, FIN | WS_PING, slice_str("ping"), 0);
        n += run_ws_encode(in + n, FIN | WS_CONTINUATION, slice_str("\xac end"), MASK + 2);
        n += run_ws_encode(in + n, FIN | WS_BINARY, slice_of(text, 300), MASK + 3);
        memcpy(in + n, tails[t], sizeof tails[t]);
        n += sizeof tails[t];

        struct run_log want = {0}, got = {0};
        run_ws(&want, in, n, n, n, 1024);
        assert_true(want.bytes > 5 * 16 + 300);
        for (uint32_t cut = 0; cut <= n; cut++) {
            run_ws(&got, in, n, cut, n, 1024);
            assert_true(run_log_equal(&want, &got));
            run_log_free(&got);
        }
        run_ws(&got, in, n, 1, 1, 1024);
        assert_true(run_log_equal(&want, &got));
        run_log_free(&got);
        run_log_free(&want);
    }
}

static void server_headers_use_the_shortest_length(void **arg)
{
    static const struct { uint32_t payload_bytes, header_bytes; uint8_t header[10]; } cases[] = {
        {0, 2, {0x81, 0}}, {125, 2, {0x81, 125}}, {126, 4, {0x81, 126, 0, 126}},
        {65535, 4, {0x81, 126, 0xff, 0xff}}, {65536, 10, {0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
        {UINT32_MAX, 10, {0x81, 127, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}},
    };
    uint8_t out[WS_SERVER_HEADER_BYTES_MAX];
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(ws_header_bytes(cases[i].payload_bytes), cases[i].header_bytes);
        assert_int_equal(ws_header_write(out, WS_TEXT, cases[i].payload_bytes),
                         cases[i].header_bytes);
        assert_memory_equal(out, cases[i].header, cases[i].header_bytes);
    }
}

static void a_close_reason_is_cut_between_characters(void **arg)
{
    uint8_t out[WS_CLOSE_FRAME_BYTES_MAX];
    static const uint8_t plain[] = {0x88, 5, 0x0f, 0xa1, 'b', 'y', 'e'};
    assert_int_equal(ws_close_write(out, 4001, slice_str("bye")), sizeof plain);
    assert_memory_equal(out, plain, sizeof plain);
    assert_int_equal(ws_close_write(out, 1000, slice_of(NULL, 0)), 4);
    assert_int_equal(ws_close_write(out, 1005, slice_of(NULL, 0)), 2);
    assert_memory_equal(out, "\x88\x00", 2);

    char reason[130];
    for (uint32_t lead = 118; lead <= 126; lead++) {     /* a four-byte character at each place */
        memset(reason, 'r', sizeof reason);
        memcpy(reason + lead, "\xf0\x9f\x98\x80", 4);
        uint32_t want = lead + 4 <= 123 ? 123 : u32_min(lead, 123);
        assert_int_equal(ws_close_write(out, 4100, slice_of(reason, sizeof reason)), 4 + want);
        assert_int_equal(out[1], 2 + want);
        assert_memory_equal(out + 4, reason, want);
    }
}

static void the_accept_value_is_that_of_the_rfc(void **arg)
{
    char out[WS_ACCEPT_BYTES];
    assert_true(ws_accept_key(slice_str("dGhlIHNhbXBsZSBub25jZQ=="), out));
    assert_memory_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", WS_ACCEPT_BYTES);

    static const char *const bad[] = {
        "", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQQ=", "dGhlIHNhbXBsZSBub25jZ===", "dGhlIHNhbXBs ZSBub25jZ==",
        "dGhlIHNhbXBs-SBub25jZQ==", "dGhlIHNhbXBs_SBub25jZQ==", "dGhlIHNhbXBs\xc3SBub25jZQ==",
    };
    for (uint32_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(ws_accept_key(slice_str(bad[i]), out));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_of_encode_is_the_same),
        cmocka_unit_test(every_first_byte_is_judged_by_the_rfc),
        cmocka_unit_test(unmasked_frames_are_refused),
        cmocka_unit_test(control_frames_hold_at_most_125_bytes),
        cmocka_unit_test(lengths_are_minimal),
        cmocka_unit_test(a_length_over_the_limit_is_refused_at_the_header),
        cmocka_unit_test(need_more_leaves_the_input_alone),
        cmocka_unit_test(close_codes_are_those_of_the_registry),
        cmocka_unit_test(messages_follow_the_fragmentation_rules),
        cmocka_unit_test(every_split_gives_the_same_events),
        cmocka_unit_test(server_headers_use_the_shortest_length),
        cmocka_unit_test(a_close_reason_is_cut_between_characters),
        cmocka_unit_test(the_accept_value_is_that_of_the_rfc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
