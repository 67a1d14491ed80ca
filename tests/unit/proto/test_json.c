/* Goal: the reader accepts RFC 8259 and nothing else, and what it says about a value is true.
 * Method: lists of accepted and refused texts, edges of RFC 8259; random documents written twice,
 * with white space and without, so that the compact form is known beforehand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/json.h"

struct text { const char *ptr; uint32_t bytes; };
#define T(literal) {literal, sizeof(literal) - 1}

/* Parse from a block of the exact size, so that a sanitizer sees any step outside. */
static bool parses(const void *ptr, uint32_t bytes, struct json_error *error)
{
    struct json_value value;
    uint8_t *copy = malloc(bytes == 0 ? 1 : bytes);
    assert_non_null(copy);
    memcpy(copy, ptr, bytes);
    bool ok = json_parse(slice_of(copy, bytes), &value, error);
    assert_int_equal(ok, value.type != JSON_ABSENT);
    if (!ok) assert_true(error->offset <= bytes && error->text != NULL);
    free(copy);
    return ok;
}

static void json_accepts_what_rfc_8259_allows(void **state)
{
    static const struct text list[] = {
        T("0"), T("-0"), T("-0.0"), T("1e999"), T("1E+2"), T("1e-2"), T("0e0"), T("10.25e+07"),
        T("123456789012345678901234567890"), T("true"), T("false"), T("null"), T("\"\""),
        T("[]"), T("{}"), T("[ ]"), T("{ }"), T(" \t\r\n1\n"), T("[1,[2,{\"a\":[]}],{}]"),
        T("{\"a\":1,\"b\":{\"a\":1}}"), T("{\"\":0}"), T("{\"a\":1,\"a\":2}"),
        T("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), T("\"\\u0000\""), T("\"\\uD83D\\uDE00\""),
        T("\"\\ud800\\udc00\\uDBFF\\uDFFF\""), T("\"\\uFFFF\\ue000\\ud7ff\""), T("\"\x7f\""),
        T("\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\""),
        T("\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\""), T("\"\xef\xbb\xbf\""),
        T("\"12345678\""), T("\"1234567890123456\\n\""), T("[\"1234567\",\"123456789\"]"),
    };
    struct json_error error;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (!parses(list[i].ptr, list[i].bytes, &error)) {
            fail_msg("%s: %s at %u", list[i].ptr, error.text, error.offset);
        }
    }
}

static void json_refuses_everything_else(void **state)
{
    static const struct text list[] = {
        T(""), T(" "), T("01"), T("-01"), T("00"), T("+1"), T(".5"), T("1."), T("1.e1"), T("1e"),
        T("1e+"), T("-"), T("--1"), T("-a"), T("0x10"), T("1_0"), T("NaN"), T("Infinity"),
        T("-Infinity"), T("True"), T("tru"), T("truee"), T("nul"), T("nulll"), T("undefined"),
        T("'a'"), T("a"), T("\xef\xbb\xbf{}"), T("{} {}"), T("1 2"), T("[] x"), T("1\0"),
        T("[1,]"), T("[,1]"), T("[,]"), T("[1 2]"), T("[1}"), T("{1]"), T("[1"), T("["), T("]"),
        T("{\"a\":1,}"), T("{,}"), T("{\"a\"}"), T("{\"a\":}"), T("{\"a\" 1}"), T("{\"a\":1"),
        T("{\"a\":1 \"b\":2}"), T("{a:1}"), T("{'a':1}"), T("{1:1}"), T("{null:1}"), T("{"),
        T("}"), T("{\"a\":1]"), T("[{]"), T("[{\"a\":[1}]"), T("[1]]"), T("{}}"), T("[1,,2]"),
        T("\""), T("\"a"), T("\"\\\""), T("\"\\"), T("\"\\x\""), T("\"\\a\""), T("\"\\'\""),
        T("\"\\0\""), T("\"\\\0\""), T("\"\\U0041\""), T("\"\\u\""), T("\"\\u004\""),
        T("\"\\u00g0\""), T("\"\\u+041\""), T("\"\\ud800\""), T("\"\\udc00\""),
        T("\"\\ud800\\u0041\""), T("\"\\ud800\\ud800\""), T("\"\\ud800a\""), T("\"\\ud800\\n\""),
        T("\"\\udc00\\ud800\""), T("\"\\ud800\\udc0\""), T("\"\\ud800\\u"), T("\"\n\""),
        T("\"\t\""), T("\"\0\""), T("\"\x1f\""), T("\"12345678\x01\""), T("\"\x80\""),
        T("\"\xc0\xaf\""), T("\"\xc1\xbf\""), T("\"\xc2\""), T("\"\xc2\x41\""),
        T("\"\xe0\x9f\xbf\""), T("\"\xed\xa0\x80\""), T("\"\xe2\x82\""), T("\"\xe2\x82\xc0\""),
        T("\"\xf0\x8f\xbf\xbf\""), T("\"\xf4\x90\x80\x80\""), T("\"\xf5\x80\x80\x80\""),
        T("\"\xf0\x9f\x98\""), T("\"\xff\""), T("\"\xfe\""), T("\"\xe2\x82"), T("\xc2\xa0""1"),
        T("\f1"), T("\v1"), T("// c\n1"), T("/* c */1"), T("[1]#"), T("1\xe2\x80\xa8"),
    };
    struct json_error error;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (parses(list[i].ptr, list[i].bytes, &error)) fail_msg("accepted: %s", list[i].ptr);
    }
}

static void json_errors_say_where(void **state)
{
    static const struct { const char *in, *text; uint32_t offset; } list[] = {
        {"", "unexpected end", 0}, {"[1,", "unexpected end", 3}, {"[1,]", "expected a value", 3},
        {"[1 2]", "expected ',' or ']'", 3}, {"{\"a\":1 2}", "expected ',' or '}'", 7},
        {"[{\"a\":1 2}]", "expected ',' or '}'", 8},
        {"{a}", "expected a name in quotes", 1}, {"{\"a\" 1}", "expected ':'", 5},
        {"01", "invalid number", 1}, {"1.x", "invalid number", 2}, {"1 2", "trailing bytes", 2},
        {"\"ab\\q\"", "invalid escape", 3}, {"\"ab\n\"", "control byte in a string", 3},
        {"\"ab\xff\"", "invalid UTF-8", 3},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct json_error error;
        assert_false(parses(list[i].in, (uint32_t)strlen(list[i].in), &error));
        assert_string_equal(error.text, list[i].text);
        assert_int_equal(error.offset, list[i].offset);
    }
}

/* `depth` containers, of mixed kinds. */
static uint32_t nest(char *out, uint32_t depth)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < depth; i++) {
        n += (uint32_t)sprintf(out + n, i % 3 == 0 ? "{\"a\":" : "[");
    }
    out[n++] = '7';
    for (uint32_t i = depth; i-- > 0;) out[n++] = i % 3 == 0 ? '}' : ']';
    return n;
}

static void json_depth_is_bounded(void **state)
{
    char text[1024];
    struct json_error error;
    struct json_value value;
    const struct json_field field = {"a", &value};
    uint32_t bytes = nest(text, JSON_DEPTH_MAX);
    assert_true(parses(text, bytes, &error));
    assert_true(json_object(slice_of(text, bytes), &field, 1, &error));
    bytes = nest(text, JSON_DEPTH_MAX + 1);
    assert_false(parses(text, bytes, &error));
    assert_string_equal(error.text, "nested too deeply");
    assert_false(json_object(slice_of(text, bytes), &field, 1, &error));
    assert_string_equal(error.text, "nested too deeply");

    char *deep = malloc(1 << 20);
    assert_non_null(deep);
    memset(deep, '[', 1 << 20);
    assert_false(parses(deep, 1 << 20, &error));
    assert_int_equal(error.offset, JSON_DEPTH_MAX);
    free(deep);
}

static void json_object_captures_named_members_only(void **state)
{
    static const char text[] =
        " { \"b\" : [1, {\"a\":0}] , \"\\u0061\":\"x\\ty\", \"ab\":2,\"\":3 } ";
    struct json_value a, b, c, empty;
    const struct json_field fields[] = {{"a", &a}, {"b", &b}, {"c", &c}, {"", &empty}};
    struct json_error error;
    assert_true(json_object(slice_str(text), fields, 4, &error));
    assert_int_equal(a.type, JSON_STRING);
    assert_true(a.escaped);
    assert_int_equal(a.text_bytes, 3);
    assert_true(json_text_is(&a, "x\ty"));
    assert_int_equal(b.type, JSON_ARRAY);
    assert_true(b.escaped);
    assert_true(slice_is(b.raw, "[1, {\"a\":0}]"));
    assert_int_equal(b.text_bytes, b.raw.bytes - 1);
    assert_int_equal(c.type, JSON_ABSENT);
    assert_true(slice_is(empty.raw, "3"));
    assert_true(json_object(slice_str("{}"), fields, 4, &error));
    assert_int_equal(a.type, JSON_ABSENT);
}

static void json_object_refuses_a_captured_name_given_twice(void **state)
{
    struct json_value a;
    const struct json_field field = {"a", &a};
    struct json_error error;
    assert_false(json_object(slice_str("{\"a\":1,\"b\":0,\"a\":1}"), &field, 1, &error));
    assert_string_equal(error.text, "name given twice");
    assert_int_equal(error.offset, 13);
    assert_int_equal(a.type, JSON_ABSENT);
    assert_false(json_object(slice_str("{\"a\":null,\"\\u0061\":1}"), &field, 1, &error));
    assert_true(json_object(slice_str("{\"a\":{\"a\":1},\"b\":1,\"b\":1}"), &field, 1, &error));
}

static void json_object_tells_no_object_from_no_json(void **state)
{
    struct json_value a;
    const struct json_field field = {"a", &a};
    struct json_error error;
    static const char *const others[] = {"[]", " \"a\" ", "1", "null", "[{\"a\":1}]"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_false(json_object(slice_str(others[i]), &field, 1, &error));
        assert_ptr_equal(error.text, JSON_NOT_OBJECT);
        assert_int_equal(error.offset, others[i][0] == ' ');
    }
    static const char *const broken[] = {"", "[", "[] []", "{", "{}}", "{\"a\":1", "nul", "{} {}"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        assert_false(json_object(slice_str(broken[i]), &field, 1, &error));
        assert_ptr_not_equal(error.text, JSON_NOT_OBJECT);
        assert_int_equal(a.type, JSON_ABSENT);
    }
}

static struct json_value value_of(const char *text)
{
    struct json_value value;
    struct json_error error;
    assert_true(json_parse(slice_str(text), &value, &error));
    return value;
}

static void json_decodes_every_escape(void **state)
{
    static const char in[] =
        "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\ude00\\u0000z\"";
    static const char want[] = "a\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\0z";
    struct json_value value = value_of(in);
    uint8_t out[sizeof want];
    struct slice plain;
    assert_int_equal(value.text_bytes, sizeof want - 1);
    json_decode(&value, out);
    assert_memory_equal(out, want, sizeof want - 1);
    assert_false(json_plain(&value, &plain));
    value = value_of("\"caf\xc3\xa9\"");
    assert_true(json_plain(&value, &plain));
    assert_true(slice_is(plain, "caf\xc3\xa9"));
}

static void json_text_comparisons_see_decoded_text(void **state)
{
    struct json_value value = value_of("\"cl\\u0069ent-\\ud83d\\ude00\"");
    assert_true(json_text_is(&value, "client-\xf0\x9f\x98\x80"));
    assert_true(json_text_starts(&value, "client-"));
    assert_true(json_text_starts(&value, "client-\xf0\x9f"));
    assert_true(json_text_starts(&value, ""));
    assert_false(json_text_starts(&value, "Client-"));
    assert_false(json_text_is(&value, "client-"));
    value = value_of("\"a\\u0000\"");
    assert_false(json_text_is(&value, "a"));
    value = value_of("\"abc\"");
    assert_true(json_text_is(&value, "abc"));
    assert_true(json_text_starts(&value, "ab"));
    assert_false(json_text_starts(&value, "abcd"));
    value = value_of("12");
    assert_false(json_text_is(&value, "12"));
    assert_false(json_text_starts(&value, ""));
}

static void json_u64_takes_plain_integers_only(void **state)
{
    static const struct { const char *in; bool ok; uint64_t value; } list[] = {
        {"0", true, 0}, {"42", true, 42}, {"9223372036854775807", true, INT64_MAX},
        {"9223372036854775808", false, 0}, {"18446744073709551616", false, 0}, {"-1", false, 0},
        {"-0", false, 0}, {"1.0", false, 0}, {"1e3", false, 0}, {"\"1\"", false, 0},
        {"99999999999999999999", false, 0}, {"true", false, 0},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct json_value value = value_of(list[i].in);
        uint64_t got = 0;
        assert_int_equal(json_u64(&value, &got), list[i].ok);
        if (list[i].ok) assert_true(got == list[i].value);
    }
}

static void json_quote_escapes_what_must_be(void **state)
{
    static const char in[] = "\"\\\b\f\n\r\t\0\x01\x0b\x1f\x7f/ caf\xc3\xa9 12345678\"";
    static const char want[] = "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u0001\\u000b\\u001f\x7f/ "
                               "caf\xc3\xa9 12345678\\\"\"";
    uint8_t out[sizeof want];
    struct slice text = slice_of(in, sizeof in - 1);
    assert_int_equal(json_quote_bytes(text), sizeof want - 1);
    assert_int_equal(json_quote(text, out), sizeof want - 1);
    assert_memory_equal(out, want, sizeof want - 1);
    assert_int_equal(json_quote_bytes(slice_of(NULL, 0)), 2);
    assert_int_equal(json_quote(slice_of(NULL, 0), out), 2);
}

/* One special byte at every offset of a long string: the eight-byte search misses none. */
static void json_strings_stop_at_the_first_special_byte(void **state)
{
    static const uint8_t specials[] = {'"', '\\', 0, 0x1f, 0x80, 0xff, 0x0a};
    for (uint32_t length = 1; length < 40; length++) {
        for (uint32_t at = 0; at < length; at++) {
            for (uint32_t k = 0; k < sizeof specials; k++) {
                uint8_t text[48];
                struct json_error error;
                memset(text, k % 2 ? 0x20 : 0x7f, sizeof text);
                text[0] = text[length + 1] = '"';
                assert_true(parses(text, length + 2, &error));
                text[1 + at] = specials[k];
                assert_false(parses(text, length + 2, &error));
                bool hides_end = specials[k] == '\\' && at + 1 == length;
                assert_int_equal(error.offset,
                                 hides_end ? length + 2 : at + 1 + (specials[k] == '"'));
                assert_int_equal(json_quote_bytes(slice_of(text + 1, length)),
                                 length + 2 + (specials[k] < 0x20 ? specials[k] == '\n' ? 1 : 5
                                               : specials[k] < 0x80));
            }
        }
    }
}

/* ---- random documents ---- */

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t draw(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32) % below;
}

enum { DOCUMENT_BYTES = 1 << 16 };
static char spaced[DOCUMENT_BYTES], compact[DOCUMENT_BYTES];
static uint32_t spaced_bytes, compact_bytes, values_count;

static void both(const char *text)
{
    uint32_t bytes = (uint32_t)strlen(text);
    assert_true(spaced_bytes + bytes + 8 < DOCUMENT_BYTES);
    memcpy(spaced + spaced_bytes, text, bytes);
    memcpy(compact + compact_bytes, text, bytes);
    spaced_bytes += bytes;
    compact_bytes += bytes;
}

static void space(void)
{
    while (draw(3) == 0) spaced[spaced_bytes++] = " \t\r\n"[draw(4)];
}

static void document_value(uint32_t depth)
{
    static const char *const scalars[] = {
        "0", "-1.5e+10", "true", "false", "null", "\"\"", "\" { [ , : ] } \"", "\"a\\\"b\\\\\"",
        "\"\\ud83d\\ude00 \xe2\x82\xac\"", "\"long enough for the eight byte search \\\\\"", "12",
    };
    values_count++;
    uint32_t kind = depth == 0 ? 2 + draw(2) : draw(depth < 7 ? 4 : 2);
    if (kind < 2) {
        both(scalars[draw(sizeof scalars / sizeof scalars[0])]);
        return;
    }
    uint32_t members = draw(4);
    both(kind == 2 ? "[" : "{");
    space();
    for (uint32_t i = 0; i < members; i++) {
        if (i > 0) both(",");
        space();
        if (kind == 3) {
            both(scalars[5 + draw(5)]);
            space();
            both(":");
            space();
        }
        document_value(depth + 1);
        space();
    }
    both(kind == 2 ? "]" : "}");
}

/* How many values an iteration meets, container itself included; checks that all lie inside. */
static uint32_t count_values(const struct json_value *value)
{
    uint32_t count = 1;
    if (value->type != JSON_ARRAY && value->type != JSON_OBJECT) return count;
    struct json_iter it = json_iter_begin(value);
    struct json_value key, element;
    while (value->type == JSON_ARRAY ? json_array_next(&it, &element)
                                     : json_object_next(&it, &key, &element)) {
        assert_true(element.raw.ptr > value->raw.ptr);
        assert_true(element.raw.ptr + element.raw.bytes < value->raw.ptr + value->raw.bytes);
        count += count_values(&element);
    }
    return count;
}

static void json_random_documents_round_trip(void **state)
{
    uint8_t *out = malloc(DOCUMENT_BYTES);
    assert_non_null(out);
    for (uint32_t round = 0; round < 2000; round++) {
        struct json_value value, again;
        struct json_error error;
        spaced_bytes = compact_bytes = values_count = 0;
        document_value(0);
        assert_true(json_parse(slice_of(spaced, spaced_bytes), &value, &error));
        assert_int_equal(value.text_bytes, compact_bytes);
        assert_int_equal(value.escaped, spaced_bytes != compact_bytes);
        assert_int_equal(json_compact(&value, out), compact_bytes);
        assert_memory_equal(out, compact, compact_bytes);
        assert_true(json_parse(slice_of(out, compact_bytes), &again, &error));
        assert_false(again.escaped);
        assert_int_equal(again.text_bytes, compact_bytes);
        assert_int_equal(count_values(&value), values_count);
        assert_int_equal(count_values(&again), values_count);
        for (uint32_t cut = 0; round < 200 && cut < spaced_bytes; cut++) {
            assert_false(json_parse(slice_of(spaced, cut), &again, &error));
            assert_int_equal(again.type, JSON_ABSENT);
        }
    }
    free(out);
}

static void json_random_texts_survive_quote_and_decode(void **state)
{
    static const char *const pieces[] = {
        "a", "\"", "\\", "\n", "\x01", "\xc3\xa9", "\xf0\x9f\x98\x80", "/", "\x7f",
        "plain text, a little longer",
    };
    for (uint32_t round = 0; round < 2000; round++) {
        char text[1024];
        uint8_t quoted[6 * sizeof text + 2], decoded[sizeof text];
        uint32_t bytes = 0;
        for (uint32_t i = draw(30); i > 0; i--) {
            bytes += (uint32_t)sprintf(text + bytes, "%s", pieces[draw(10)]);
        }
        uint32_t quoted_bytes = json_quote(slice_of(text, bytes), quoted);
        struct json_value value;
        struct json_error error;
        assert_int_equal(quoted_bytes, json_quote_bytes(slice_of(text, bytes)));
        assert_true(json_parse(slice_of(quoted, quoted_bytes), &value, &error));
        assert_int_equal(value.text_bytes, bytes);
        json_decode(&value, decoded);
        assert_memory_equal(decoded, text, bytes);
    }
}

static void json_long_strings_are_one_value(void **state)
{
    enum { BYTES = 4 << 20 };
    char *text = malloc(BYTES);
    struct json_value value;
    struct json_error error;
    assert_non_null(text);
    memset(text, 'x', BYTES);
    text[0] = text[BYTES - 1] = '"';
    assert_true(json_parse(slice_of(text, BYTES), &value, &error));
    assert_int_equal(value.text_bytes, BYTES - 2);
    text[BYTES / 2 + 3] = '\n';
    assert_false(json_parse(slice_of(text, BYTES), &value, &error));
    assert_int_equal(error.offset, BYTES / 2 + 3);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_accepts_what_rfc_8259_allows),
        cmocka_unit_test(json_refuses_everything_else),
        cmocka_unit_test(json_errors_say_where),
        cmocka_unit_test(json_depth_is_bounded),
        cmocka_unit_test(json_object_captures_named_members_only),
        cmocka_unit_test(json_object_refuses_a_captured_name_given_twice),
        cmocka_unit_test(json_object_tells_no_object_from_no_json),
        cmocka_unit_test(json_decodes_every_escape),
        cmocka_unit_test(json_text_comparisons_see_decoded_text),
        cmocka_unit_test(json_u64_takes_plain_integers_only),
        cmocka_unit_test(json_quote_escapes_what_must_be),
        cmocka_unit_test(json_strings_stop_at_the_first_special_byte),
        cmocka_unit_test(json_random_documents_round_trip),
        cmocka_unit_test(json_random_texts_survive_quote_and_decode),
        cmocka_unit_test(json_long_strings_are_one_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
