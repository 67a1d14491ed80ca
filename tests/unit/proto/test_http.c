/* Goal: http.h reads well-formed requests and refuses every request that two readers could frame
 * differently. Method: tables of requests; each one also in every two pieces and byte by byte. */
#include "proto/http.h"

#include "tests/unit/proto/test_http_kit.h"

static struct http_request r;
static struct http_error error;

static enum http_result parse(const char *ptr, uint32_t bytes)
{
    uint32_t scanned = 0;
    error = (struct http_error){0};
    return http_parse(&limits, slice_of(ptr, bytes), &scanned, &r, &error);
}

#define PARSE(literal) parse(literal, sizeof(literal) - 1)

static void an_upgrade_request_is_understood(void **arg)
{
    static const char text[] =
        "GET /app/key-abc?protocol=7&client=js HTTP/1.1\r\nHost: localhost:6001\r\n"
        "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version:13\r\n"
        "sec-websocket-key: \t dGhlIHNhbXBsZSBub25jZQ== \t\r\nX-Empty:\r\n\r\nrest";
    assert_int_equal(PARSE(text), HTTP_OK);
    assert_int_equal(r.method, HTTP_GET);
    assert_true(slice_is(r.method_text, "GET"));
    assert_true(slice_is(r.target, "/app/key-abc?protocol=7&client=js"));
    assert_true(slice_is(r.path, "/app/key-abc"));
    assert_true(slice_is(r.query, "protocol=7&client=js"));
    assert_true(r.has_query && r.upgrade && r.keep_alive);
    assert_false(r.chunked || r.expect_continue);
    assert_int_equal(r.minor, 1);
    assert_int_equal(r.content_length, 0);
    assert_int_equal(r.head_bytes, sizeof text - 1 - 4);
    assert_int_equal(r.headers_count, 6);
    assert_true(slice_is(http_header(&r, "Sec-WebSocket-Key"), "dGhlIHNhbXBsZSBub25jZQ=="));
    assert_true(slice_is(http_header(&r, "x-empty"), ""));
    assert_non_null(http_header(&r, "x-empty").ptr);
    assert_null(http_header(&r, "x-absent").ptr);
    assert_null(http_header(&r, "hos").ptr);
}

static void methods_are_told_apart_by_case(void **arg)
{
    static const struct { const char *name; enum http_method method; } cases[] = {
        {"GET", HTTP_GET}, {"HEAD", HTTP_HEAD}, {"POST", HTTP_POST}, {"PUT", HTTP_PUT},
        {"PATCH", HTTP_PATCH}, {"DELETE", HTTP_DELETE}, {"OPTIONS", HTTP_OPTIONS},
        {"get", HTTP_OTHER}, {"GETS", HTTP_OTHER}, {"M-SEARCH", HTTP_OTHER},
    };
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        char text[64];
        int bytes = snprintf(text, sizeof text, "%s / HTTP/1.1\r\nHost: h\r\n\r\n", cases[i].name);
        assert_int_equal(parse(text, (uint32_t)bytes), HTTP_OK);
        assert_int_equal(r.method, cases[i].method);
    }
}

static void connection_and_version_decide_keep_alive(void **arg)
{
    static const struct { const char *text; bool keep_alive, upgrade; } cases[] = {
        {HEAD "\r\n", true, false},
        {HEAD "Connection: close\r\n\r\n", false, false},
        {HEAD "Connection: Keep-Alive\r\nConnection: x ,CLOSE\r\n\r\n", false, false},
        {"GET / HTTP/1.0\r\n\r\n", false, false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true, false},
        {"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", false, false},
        {HEAD "Connection: upgrade\r\n\r\n", true, false},
        {HEAD "Upgrade: websocket\r\n\r\n", true, false},
        {HEAD "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n", true, true},
        {HEAD "Connection: upgrade\r\nUpgrade: websockets\r\n\r\n", true, false},
        {HEAD "Connection: ,, upgraded,\r\nUpgrade: websocket\r\n\r\n", true, false},
    };
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(parse(cases[i].text, (uint32_t)strlen(cases[i].text)), HTTP_OK);
        assert_int_equal(r.keep_alive, cases[i].keep_alive);
        assert_int_equal(r.upgrade, cases[i].upgrade);
        splits_agree(cases[i].text, (uint32_t)strlen(cases[i].text));
    }
}

static void bodies_are_framed(void **arg)
{
    assert_int_equal(PARSE(POST "Content-Length: 100\r\nExpect: 100-Continue\r\n\r\n"), HTTP_OK);
    assert_int_equal(r.content_length, 100);
    assert_true(r.expect_continue);
    assert_int_equal(PARSE(POST "Content-Length: 007\r\n\r\n"), HTTP_OK);
    assert_int_equal(r.content_length, 7);
    assert_int_equal(PARSE(POST "Transfer-Encoding: Chunked\r\n\r\n"), HTTP_OK);
    assert_true(r.chunked);
    assert_false(r.expect_continue);
    assert_int_equal(PARSE(POST "Expect: 100-continue\r\n\r\n"), HTTP_OK);
    assert_false(r.expect_continue);                  /* there is no body to wait for */
}

static void unusual_but_clear_heads_are_read(void **arg)
{
    static const struct text cases[] = {
        TEXT("\r\n\r\n" HEAD "\r\n", 0),
        TEXT("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 0),
        TEXT("GET /%00?a?b=/&\x7e HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 0),
        TEXT(LINE "Host: a-b_c.example:\r\n\r\n", 0),
        TEXT(LINE "Host: 127.0.0.1:65535\r\n\r\n", 0),
        TEXT(HEAD "X: tab\there, high \xc3\xa9\xff, and a longer plain run\r\n\r\n", 0),
        TEXT(HEAD "!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n", 0),
        TEXT("GET / HTTP/1.0\r\n\r\n", 0),
    };
    for (uint32_t i = 0; i < COUNT(cases); i++) {
        if (parse(cases[i].ptr, cases[i].bytes) != HTTP_OK) fail_msg("%u: %s", i, error.text);
        assert_int_equal(r.head_bytes, cases[i].bytes);
        splits_agree(cases[i].ptr, cases[i].bytes);
    }
}

static const struct text refused[] = {
    /* line ends */
    TEXT("GET /a HTTP/1.1\nHost: h\n\n", 400),
    TEXT(LINE "Host: h\n\r\n", 400),
    TEXT(LINE "Host: h\r\n\n", 400),
    TEXT("\n" HEAD "\r\n", 400),
    TEXT("\r" HEAD "\r\n", 400),
    TEXT("\r\n\r\n\r\n\r\n\r\n", 400),
    TEXT("GET /a\rHTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a HTTP/1.1\r\r\nHost: h\r\n\r\n", 400),
    TEXT(HEAD "X: a\rb\r\n\r\n", 400),
    TEXT(HEAD "X: a\r\r\n\r\n", 400),
    TEXT(HEAD "\r\r\n\r\n", 400),
    /* request line */
    TEXT("GET /a\r\n\r\n", 400),
    TEXT(" GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET  /a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET\t/a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
    TEXT("G(T /a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("G\0T /a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("OPTIONS ** HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a http/1.1\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a HTTP/1.\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a HTTP/1.10\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a HTTP/11\r\nHost: h\r\n\r\n", 400),
    TEXT("GET /a HTTP/1.2\r\nHost: h\r\n\r\n", 505),
    TEXT("GET /a HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    TEXT("GET /a HTTP/0.9\r\nHost: h\r\n\r\n", 505),
    TEXT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    /* headers */
    TEXT(HEAD "X: a\r\n b\r\n\r\n", 400),
    TEXT(HEAD "X: a\r\n\tb\r\n\r\n", 400),
    TEXT(LINE " Host: h\r\n\r\n", 400),
    TEXT(LINE "Host : h\r\n\r\n", 400),
    TEXT(LINE "Host\t: h\r\n\r\n", 400),
    TEXT(HEAD ": x\r\n\r\n", 400),
    TEXT(HEAD "X\r\n\r\n", 400),
    TEXT(HEAD "X Y: a\r\n\r\n", 400),
    TEXT(HEAD "X\0: a\r\n\r\n", 400),
    TEXT(HEAD "X\xc3\xa9: a\r\n\r\n", 400),
    TEXT(HEAD "X(: a\r\n\r\n", 400),
    TEXT(HEAD "X: a\0b\r\n\r\n", 400),
    TEXT(HEAD "X: a long value with a byte \x01 in it\r\n\r\n", 400),
    TEXT(HEAD "X: a long value with a byte \x7f in it\r\n\r\n", 400),
    TEXT(HEAD "X: \x0b\r\n\r\n", 400),
    /* Host */
    TEXT(LINE "\r\n", 400),
    TEXT(LINE "Host: h\r\nHost: h\r\n\r\n", 400),
    TEXT("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400),
    TEXT(LINE "Host:\r\n\r\n", 400),
    TEXT(LINE "Host: a b\r\n\r\n", 400),
    TEXT(LINE "Host: a,b\r\n\r\n", 400),
    TEXT(LINE "Host: a/b\r\n\r\n", 400),
    TEXT(LINE "Host: u@h\r\n\r\n", 400),
    TEXT(LINE "Host: h:8x\r\n\r\n", 400),
    TEXT(LINE "Host: h:65536\r\n\r\n", 400),
    TEXT(LINE "Host: h:000080\r\n\r\n", 400),
    TEXT(LINE "Host: :80\r\n\r\n", 400),
    TEXT(LINE "Host: [::1\r\n\r\n", 400),
    TEXT(LINE "Host: []\r\n\r\n", 400),
    TEXT(LINE "Host: [::1]x\r\n\r\n", 400),
    TEXT(LINE "Host: h\xc3\xa9\r\n\r\n", 400),
    /* framing */
    TEXT(POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
    TEXT(POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    TEXT(POST "Content-Length: 5, 5\r\n\r\n", 400),
    TEXT(POST "Content-Length: +5\r\n\r\n", 400),
    TEXT(POST "Content-Length: -5\r\n\r\n", 400),
    TEXT(POST "Content-Length: 0x10\r\n\r\n", 400),
    TEXT(POST "Content-Length: 5 5\r\n\r\n", 400),
    TEXT(POST "Content-Length: 5.0\r\n\r\n", 400),
    TEXT(POST "Content-Length: 1e1\r\n\r\n", 400),
    TEXT(POST "Content-Length: \x0b" "5\r\n\r\n", 400),
    TEXT(POST "Content-Length:\r\n\r\n", 400),
    TEXT(POST "Content-Length: 101\r\n\r\n", 413),
    TEXT(POST "Content-Length: 18446744073709551616\r\n\r\n", 413),
    TEXT(POST "Content-Length: 18446744073709551626\r\n\r\n", 413),
    TEXT(POST "Content-Length: 99999999999999999999999999999999\r\n\r\n", 413),
    TEXT(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    TEXT(POST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 400),
    TEXT(POST "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n", 400),
    TEXT(POST "Transfer-Encoding: xchunked\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding: chunked, identity\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding: identity\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding: \"chunked\"\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding: chunked;q=1\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding:\r\n\r\n", 501),
    TEXT(POST "Transfer-Encoding: \x0b" "chunked\r\n\r\n", 400),
    TEXT(POST "Transfer-Encoding : chunked\r\n\r\n", 400),
    TEXT(POST "Transfer-Encoding:\r\n chunked\r\n\r\n", 400),
    TEXT("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    TEXT(HEAD "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n", 400),
    TEXT(HEAD "Connection: upgrade\r\nUpgrade: websocket\r\n"
         "Transfer-Encoding: chunked\r\n\r\n", 400),
    /* header count: eight are allowed */
    TEXT(HEAD "1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n8:\r\n\r\n", 431),
};

static void what_could_be_read_two_ways_is_refused(void **arg)
{
    for (uint32_t i = 0; i < COUNT(refused); i++) {
        const struct text *t = &refused[i];
        if (parse(t->ptr, t->bytes) != HTTP_BAD || error.status != t->status) {
            fail_msg("%u: status %u, not %u: %s", i, error.status, t->status, t->ptr);
        }
        assert_non_null(error.text);
        splits_agree(t->ptr, t->bytes);
    }
}

static void limits_hold_at_their_exact_byte(void **arg)
{
    char text[2048];
    uint32_t bytes;

    for (uint32_t over = 0; over <= 1; over++) {
        uint32_t line = limits.line_bytes_max + over;
        memset(text, 'a', sizeof text);
        memcpy(text, "GET /", 5);
        memcpy(text + line - 9, " HTTP/1.1\r\nHost: h\r\n\r\n", 22);
        bytes = line + 13;
        assert_int_equal(parse(text, bytes), over ? HTTP_BAD : HTTP_OK);
        assert_int_equal(error.status, over ? 414 : 0);
        splits_agree(text, bytes);

        memset(text, 'a', sizeof text);
        bytes = limits.head_bytes_max + over;
        memcpy(text, HEAD "X: ", sizeof(HEAD "X: ") - 1);
        memcpy(text + bytes - 4, "\r\n\r\n", 4);
        assert_int_equal(parse(text, bytes), over ? HTTP_BAD : HTTP_OK);
        assert_int_equal(error.status, over ? 431 : 0);
        splits_agree(text, bytes);
    }
    memset(text, 'a', sizeof text);                 /* refused before an end is in sight */
    assert_int_equal(parse(text, limits.line_bytes_max + 2), HTTP_NEED_MORE);
    assert_int_equal(parse(text, limits.line_bytes_max + 3), HTTP_BAD);
    assert_int_equal(error.status, 414);
    memcpy(text, LINE, sizeof LINE - 1);
    assert_int_equal(parse(text, limits.head_bytes_max), HTTP_NEED_MORE);
    assert_int_equal(parse(text, limits.head_bytes_max + 1), HTTP_BAD);
    assert_int_equal(error.status, 431);
}

static void a_head_is_searched_once_and_its_faults_show_early(void **arg)
{
    uint32_t scanned = 0;

    assert_int_equal(PARSE("\n"), HTTP_BAD);
    assert_int_equal(PARSE("GET / HTTP/1.1\n"), HTTP_BAD);
    assert_int_equal(PARSE("\r"), HTTP_NEED_MORE);
    assert_int_equal(http_parse(&limits, slice_str(HEAD), &scanned, &r, &error), HTTP_NEED_MORE);
    assert_int_equal(scanned, sizeof HEAD - 1);
    assert_int_equal(http_parse(&limits, slice_str(HEAD "\r\n"), &scanned, &r, &error), HTTP_OK);
    assert_int_equal(scanned, 0);
}

static void pipelined_requests_come_out_in_order(void **arg)
{
    static const char text[] =
        POST "Content-Length: 3\r\n\r\nabc" HEAD "\r\n" CHUNKED "3\r\nabc\r\n0\r\n\r\n"
        "\r\nGET /last HTTP/1.0\r\n\r\n" "GET /unfinished";
    splits_agree(text, sizeof text - 1);

    struct run_log log = {0};
    run_http(&log, (const uint8_t *)text, sizeof text - 1, 1, 1, &limits);
    assert_non_null(memmem(log.ptr, log.bytes, "/last", 5));
    run_log_free(&log);
}

static void statuses_have_names(void **arg)
{
    assert_string_equal(http_status_text(101), "Switching Protocols");
    assert_string_equal(http_status_text(200), "OK");
    assert_string_equal(http_status_text(404), "Not Found");
    assert_string_equal(http_status_text(299), "Unknown");
    for (uint32_t i = 0; i < COUNT(refused); i++) {
        assert_string_not_equal(http_status_text(refused[i].status), "Unknown");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_upgrade_request_is_understood),
        cmocka_unit_test(methods_are_told_apart_by_case),
        cmocka_unit_test(connection_and_version_decide_keep_alive),
        cmocka_unit_test(bodies_are_framed),
        cmocka_unit_test(unusual_but_clear_heads_are_read),
        cmocka_unit_test(what_could_be_read_two_ways_is_refused),
        cmocka_unit_test(limits_hold_at_their_exact_byte),
        cmocka_unit_test(a_head_is_searched_once_and_its_faults_show_early),
        cmocka_unit_test(pipelined_requests_come_out_in_order),
        cmocka_unit_test(statuses_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
