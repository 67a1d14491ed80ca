/* Goal: utf8.h accepts exactly RFC 3629, in whole buffers and in any pieces.
 * Method: compare with a second decoder that works by arithmetic on code points. */
#include "proto/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* Independent of the tables in utf8.c: decode, then judge the code point and its length. */
static bool oracle(const uint8_t *p, uint32_t bytes)
{
    uint32_t at = 0;
    while (at < bytes) {
        uint32_t more = p[at] < 0x80 ? 0 : (p[at] >> 5) == 6 ? 1 : (p[at] >> 4) == 14 ? 2
                        : (p[at] >> 3) == 30 ? 3 : 99;
        if (more == 99 || bytes - at <= more) return false;
        uint32_t point = more == 0 ? p[at] : p[at] & (0x3fu >> more);
        for (uint32_t i = 1; i <= more; i++) {
            if ((p[at + i] & 0xc0) != 0x80) return false;
            point = point << 6 | (p[at + i] & 0x3f);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
            return false;
        }
        at += more + 1;
    }
    return true;
}

static uint32_t encode(uint32_t point, uint8_t *out)
{
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    uint32_t bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (uint32_t i = bytes - 1; i > 0; i--, point >>= 6) out[i] = (uint8_t)(0x80 | (point & 0x3f));
    out[0] = (uint8_t)((0xf00u >> bytes & 0xf0) | point);
    return bytes;
}

static void every_code_point_is_valid_except_surrogates(void **arg)
{
    uint8_t text[4];
    for (uint32_t point = 0; point <= 0x10ffff; point++) {
        uint32_t bytes = encode(point, text);
        bool surrogate = point >= 0xd800 && point <= 0xdfff;
        assert_int_equal(utf8_valid(slice_of(text, bytes)), !surrogate);
    }
    assert_false(utf8_valid(slice_of(text, encode(0x110000, text))));
}

static void short_sequences_agree_with_the_oracle(void **arg)
{
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    uint32_t valid = 0;
    for (uint32_t pair = 0; pair < 65536; pair++) {
        for (uint32_t edge = 0; edge < sizeof edges * sizeof edges; edge++) {
            uint8_t text[4] = {(uint8_t)(pair >> 8), (uint8_t)pair, edges[edge / sizeof edges],
                               edges[edge % sizeof edges]};
            for (uint32_t bytes = 1; bytes <= 4; bytes++) {
                bool want = oracle(text, bytes);
                valid += want;
                if (utf8_valid(slice_of(text, bytes)) != want) {
                    fail_msg("%02x %02x %02x %02x, %u bytes", text[0], text[1], text[2], text[3],
                             bytes);
                }
            }
        }
    }
    assert_true(valid > 100000);
}

static void a_bad_byte_is_found_at_every_position(void **arg)
{
    uint8_t text[48];
    for (uint32_t bytes = 0; bytes <= sizeof text; bytes++) {
        memset(text, 'a', sizeof text);
        assert_true(utf8_valid(slice_of(text, bytes)));
        for (uint32_t at = 0; at < bytes; at++) {
            text[at] = 0x80;
            assert_false(utf8_valid(slice_of(text, bytes)));
            text[at] = 'a';
        }
    }
    assert_true(utf8_valid(slice_of(NULL, 0)));
}

static void every_split_ends_in_the_same_state(void **arg)
{
    static const char *const texts[] = {
        "plain ascii, longer than a word", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 mixed \xc2\xa2",
        "cut \xe2\x82", "cut \xf0\x9f\x98", "\xed\xa0\x80", "ok then \xff bad", "\xf4\x90\x80\x80",
        "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xc0\x80", "12345678\xc3", "1234567\xc3\xa9x",
    };
    for (uint32_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct slice all = slice_str(texts[i]);
        uint32_t want = utf8_feed(UTF8_ACCEPT, all);
        assert_int_equal(want == UTF8_ACCEPT, oracle(all.ptr, all.bytes));
        uint32_t each = UTF8_ACCEPT;
        for (uint32_t cut = 0; cut <= all.bytes; cut++) {
            uint32_t state = utf8_feed(UTF8_ACCEPT, slice_of(all.ptr, cut));
            assert_int_equal(utf8_feed(state, slice_skip(all, cut)), want);
            if (cut > 0) each = utf8_feed(each, slice_of(all.ptr + cut - 1, 1));
        }
        assert_int_equal(each, want);
    }
}

static void reject_is_final(void **arg)
{
    uint32_t state = utf8_feed(UTF8_ACCEPT, slice_str("\xff"));
    assert_int_equal(state, UTF8_REJECT);
    assert_int_equal(utf8_feed(state, slice_str("fine")), UTF8_REJECT);
    assert_int_equal(utf8_feed(state, slice_of(NULL, 0)), UTF8_REJECT);
}

static void a_cut_text_is_mended(void **arg)
{
    static const struct { const char *text, *mended; } cases[] = {
        {"", ""}, {"plain", "plain"}, {"caf\xc3\xa9", "caf\xc3\xa9"}, {"caf\xc3", "caf?"},
        {"'\xe2\x82' is", "'?\?' is"}, {"\xf0\x9f\x98\x80\xf0\x9f\x98", "\xf0\x9f\x98\x80?\?\?"},
        {"\x80""a\xff", "?a?"},
    };
    char room[64], cut[6];
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *out = utf8_mend(cases[i].text, room, sizeof(room));
        assert_string_equal(out, cases[i].mended);
        assert_true(utf8_valid(slice_str(out)));
    }
    assert_string_equal(utf8_mend("\xff""ab\xc3\xa9z", cut, sizeof(cut)), "?ab\xc3\xa9");
    assert_string_equal(utf8_mend("\xff""abc\xc3\xa9", cut, sizeof(cut)), "?abc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_is_valid_except_surrogates),
        cmocka_unit_test(short_sequences_agree_with_the_oracle),
        cmocka_unit_test(a_bad_byte_is_found_at_every_position),
        cmocka_unit_test(every_split_ends_in_the_same_state),
        cmocka_unit_test(reject_is_final),
        cmocka_unit_test(a_cut_text_is_mended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
