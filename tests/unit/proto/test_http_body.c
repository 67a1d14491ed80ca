/* Goal: chunked bodies are decoded in place, however they arrive, and every broken one is refused;
 * queries and percent escapes are read strictly. Method: tables, each chunked body also in every
 * two pieces and byte by byte. */
#include "proto/http.h"

#include "tests/unit/proto/test_http_kit.h"

static struct http_error error;

/* Decode in place; returns the result and leaves the body at the front. */
static enum http_result chunks(const struct text *t, char *body, uint32_t *body_bytes)
{
    struct http_chunked c = {0};
    uint32_t used;
    error = (struct http_error){0};
    memcpy(body, t->ptr, t->bytes);
    enum http_result result = http_chunked_feed(&c, &limits, (uint8_t *)body, t->bytes,
                                                (uint8_t *)body, &used, body_bytes, &error);
    if (result == HTTP_OK) {
        assert_int_equal(used, t->bytes);
        assert_int_equal(http_chunked_feed(&c, &limits, (const uint8_t *)"x", 1, (uint8_t *)body,
                                           &used, body_bytes, &error), HTTP_OK);
        assert_int_equal(used, 0);
        *body_bytes = (uint32_t)c.body_bytes;
    }
    return result;
}

static void chunked_bodies_are_decoded(void **arg)
{
    static const struct text cases[] = {
        TEXT("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", 0),
        TEXT("b\r\nhello world\r\n000\r\n\r\n", 0),
        TEXT("00B;a=b;c=\"d e\"\r\nhello world\r\n0 ; x\r\nTrailer: yes\r\nX:\r\n\r\n", 0),
        TEXT("1 \t;\r\nh\r\nA\r\nello world\r\n0\r\n\r\n", 0),
    };
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        char body[200];
        uint32_t bytes;
        assert_int_equal(chunks(&cases[i], body, &bytes), HTTP_OK);
        assert_int_equal(bytes, 11);
        assert_memory_equal(body, "hello world", 11);

        char text[400];
        memcpy(text, CHUNKED, sizeof CHUNKED - 1);
        memcpy(text + sizeof CHUNKED - 1, cases[i].ptr, cases[i].bytes);
        splits_agree(text, (uint32_t)sizeof CHUNKED - 1 + cases[i].bytes);
    }
}

static void broken_chunks_are_refused(void **arg)
{
    static const struct text cases[] = {
        TEXT("\r\n", 400), TEXT(";x\r\n", 400), TEXT("g\r\n", 400), TEXT(" 5\r\n", 400),
        TEXT("+5\r\n", 400), TEXT("-1\r\n", 400), TEXT("0x5\r\n", 400), TEXT("5 \r\n", 400),
        TEXT("5 5\r\n", 400), TEXT("5\n", 400), TEXT("5\rx", 400), TEXT("5;a\nhello", 400),
        TEXT("5;a\x01\r\n", 400), TEXT("5;\0\r\n", 400), TEXT("5;a\rb\r\n", 400),
        TEXT("5\r\nhello0\r\n\r\n", 400), TEXT("5\r\nhello\n0\r\n\r\n", 400),
        TEXT("5\r\nhello\r0", 400), TEXT("5\r\nhell\r\n0\r\n\r\n", 400),
        TEXT("65\r\n", 413), TEXT("ffffffffffffffff\r\n", 413),
        TEXT("10000000000000005\r\n", 413), TEXT("40\r\n" "0123456789abcdef0123456789abcdef"
                                                 "0123456789abcdef0123456789abcdef\r\n25", 413),
        TEXT("0\r\n X: y\r\n\r\n", 400), TEXT("0\r\nX : y\r\n\r\n", 400),
        TEXT("0\r\nX\r\n\r\n", 400), TEXT("0\r\n: y\r\n\r\n", 400), TEXT("0\r\nX: \x01\r\n", 400),
        TEXT("0\r\nX: y\n\r\n", 400), TEXT("0\r\n\rx", 400), TEXT("0\r\n\n", 400),
        TEXT("0\n\r\n", 400), TEXT("0\r\nX: y\rz", 400), TEXT("0\r\nX: y\r\n z\r\n\r\n", 400),
    };
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        char body[200], text[400];
        uint32_t bytes;
        if (chunks(&cases[i], body, &bytes) != HTTP_BAD || error.status != cases[i].status) {
            fail_msg("%u: status %u: %s", i, error.status, cases[i].ptr);
        }
        memcpy(text, CHUNKED, sizeof CHUNKED - 1);
        memcpy(text + sizeof CHUNKED - 1, cases[i].ptr, cases[i].bytes);
        splits_agree(text, (uint32_t)sizeof CHUNKED - 1 + cases[i].bytes);
    }
}

static void lines_inside_chunked_bodies_are_bounded(void **arg)
{
    static const struct { const char *lead; uint32_t fits; uint16_t status; } cases[] = {
        {"0000000000", 256, 400}, {"5;x", 256, 400}, {"0\r\nX:", 3 + 1000, 431},
    };
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        char text[1100];
        uint8_t out[1100];
        uint32_t used, produced;
        struct http_chunked c = {0};
        memset(text, '0', sizeof text);
        memcpy(text, cases[i].lead, strlen(cases[i].lead));
        assert_int_equal(http_chunked_feed(&c, &limits, (uint8_t *)text, cases[i].fits, out,
                                           &used, &produced, &error), HTTP_NEED_MORE);
        assert_int_equal(http_chunked_feed(&c, &limits, (uint8_t *)text + cases[i].fits, 1, out,
                                           &used, &produced, &error), HTTP_BAD);
        assert_int_equal(error.status, cases[i].status);
    }
}

static void a_chunk_size_never_wraps(void **arg)
{
    static const char fits[] = "ffffffffffffffff\r\n", wraps[] = "10000000000000005\r\n";
    struct http_limits huge = limits;
    uint32_t used, produced;
    uint8_t out[32];

    huge.body_bytes_max = UINT64_MAX;
    struct http_chunked c = {0};
    assert_int_equal(http_chunked_feed(&c, &huge, (const uint8_t *)fits, sizeof fits - 1, out,
                                       &used, &produced, &error), HTTP_NEED_MORE);
    assert_true(c.left == UINT64_MAX);
    c = (struct http_chunked){0};
    assert_int_equal(http_chunked_feed(&c, &huge, (const uint8_t *)wraps, sizeof wraps - 1, out,
                                       &used, &produced, &error), HTTP_BAD);
    assert_int_equal(error.status, 413);
}

static void percent_decoding_is_strict(void **arg)
{
    static const struct { const char *in; bool form; const char *out; } cases[] = {
        {"", false, ""}, {"a+b", false, "a+b"}, {"a+b", true, "a b"}, {"%2B+%2b", true, "+ +"},
        {"%41%7a%C3%a9", false, "Az\xc3\xa9"}, {"100%25", false, "100%"}, {"%", false, NULL},
        {"%4", false, NULL}, {"a%4g", false, NULL}, {"%%41", false, NULL}, {"%+1", true, NULL},
    };
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        uint8_t room[32];
        memcpy(room, cases[i].in, strlen(cases[i].in));
        struct slice in = slice_of(room, (uint32_t)strlen(cases[i].in));
        int64_t bytes = http_decode(in, cases[i].form, room);     /* in place */
        if (cases[i].out == NULL) {
            assert_int_equal(bytes, -1);
        } else {
            assert_true(slice_is(slice_of(room, (uint32_t)bytes), cases[i].out));
        }
    }
    uint8_t zero;
    assert_int_equal(http_decode(slice_str("%00"), false, &zero), 1);
    assert_int_equal(zero, 0);
}

static void queries_are_walked(void **arg)
{
    static const char *const want[] = {"a", "1", "b", "", "", "v", "c", "d=e", "%61", "+"};
    struct slice rest = slice_str("&a=1&&b&=v&c=d=e&%61=+&"), name, value;
    uint32_t at = 0;
    while (http_query_next(&rest, &name, &value)) {
        assert_true(at + 2 <= COUNT(want));
        assert_true(slice_is(name, want[at++]) && slice_is(value, want[at++]));
    }
    assert_int_equal(at, COUNT(want));
    rest = slice_of(NULL, 0);
    assert_false(http_query_next(&rest, &name, &value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunked_bodies_are_decoded),
        cmocka_unit_test(broken_chunks_are_refused),
        cmocka_unit_test(lines_inside_chunked_bodies_are_bounded),
        cmocka_unit_test(a_chunk_size_never_wraps),
        cmocka_unit_test(percent_decoding_is_strict),
        cmocka_unit_test(queries_are_walked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
