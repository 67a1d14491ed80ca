/* Goal: extras keep what the publisher said in one canonical form, serials and ids have exactly one
 * spelling, and server frames are, byte for byte, those of the protocol.
 * Method: tables of texts; written frames are compared whole, with their lengths.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/v2.h"
#include "proto/ws.h"

static char error[PUSHER_ERROR_TEXT_BYTES];

/* ---- extras ---- */

static bool extras_of(const char *json, uint8_t *out, struct v2_extras *e)
{
    struct json_value value;
    struct json_error wrong;
    assert_true(json_parse(slice_str(json), &value, &wrong));
    return v2_extras_parse(&value, out, e, error);
}

static void v2_extras_are_kept_in_canonical_form(void **state)
{
    static const struct { const char *json, *canonical; } list[] = {
        {"{}", NULL}, {"{\"headers\":{}}", NULL}, {"{\"headers\":null,\"ai\":null}", NULL},
        {"{\"headers\":{\"sockudo_action\":\"message.append\"}}", NULL},
        {"{\"headers\":{\"a\":1}}", "{\"headers\":{\"a\":1}}"},
        {" { \"x\" : [1, 2] , \"headers\" : { \"b\" : \"} {\" , \"sockudo_x\" : 1, \"c\":1.50 } }",
         "{\"headers\":{\"b\":\"} {\",\"c\":1.50},\"x\":[1,2]}"},
        {"{\"echo\":false,\"headers\":{\"sockud\\u006f_x\":1},\"n\":null}",
         "{\"echo\":false,\"n\":null}"},
        {"{\"idempotencyKey\":\"k\",\"push\":{\"a\":null},\"ephemeral\":true,\"echo\":null}",
         "{\"idempotencyKey\":\"k\",\"push\":{\"a\":null},\"ephemeral\":true}"},
        {"{\"idempotency_key\":\"k\",\"ai\":{\"codec\":{}}}",
         "{\"idempotency_key\":\"k\",\"ai\":{\"codec\":{}}}"},
        {"{\"\\u0068eaders\":{\"a\":true},\"z\":1}", "{\"headers\":{\"a\":true},\"z\":1}"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        uint8_t out[256];
        struct v2_extras e;
        assert_true(extras_of(list[i].json, out, &e));
        if (list[i].canonical == NULL) assert_null(e.canonical.ptr);
        else assert_true(slice_is(e.canonical, list[i].canonical));
        assert_true(extras_of(list[i].json, NULL, &e));
        assert_null(e.canonical.ptr);
    }
}

static void v2_extras_tell_flags_key_and_status(void **state)
{
    struct v2_extras e;
    assert_true(extras_of("{\"ephemeral\":true,\"echo\":false,\"idempotencyKey\":\"k1\","
                          "\"ai\":{\"codec\":{\"status\":\"complete\"},"
                          "\"transport\":{\"status\":\"streaming\"}}}", NULL, &e));
    assert_true(e.ephemeral && e.has_echo && !e.echo);
    assert_true(json_text_is(&e.idempotency_key, "k1"));
    assert_true(slice_is(e.status, "complete"));
    assert_true(extras_of("{\"echo\":true,\"ai\":{\"transport\":{\"status\":\"cancelled\"},"
                          "\"codec\":null}}", NULL, &e));
    assert_true(!e.ephemeral && e.has_echo && e.echo);
    assert_true(slice_is(e.status, "cancelled"));
    assert_true(extras_of("{\"ai\":{\"transport\":{\"a\":\"b\"}}}", NULL, &e));
    assert_true(!e.has_echo && e.status.ptr == NULL && e.idempotency_key.type == JSON_ABSENT);
}

static void v2_extras_of_wrong_types_are_refused(void **state)
{
    static const char *const list[] = {
        "[]", "{\"headers\":[]}", "{\"headers\":{\"a\":null}}", "{\"headers\":{\"a\":{}}}",
        "{\"headers\":{\"sockudo_a\":[]}}", "{\"ephemeral\":1}", "{\"echo\":\"true\"}",
        "{\"idempotencyKey\":5}", "{\"ai\":[]}", "{\"ai\":{\"transport\":{\"a\":1}}}",
        "{\"ai\":{\"codec\":\"x\"}}", "{\"echo\":true,\"echo\":false}",
        "{\"ai\":{\"codec\":{\"status\":\"a\",\"status\":\"b\"}}}",
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        uint8_t out[256];
        struct v2_extras e;
        memset(error, 0, sizeof error);
        assert_false(extras_of(list[i], out, &e));
        assert_true(strncmp(error, "extras", 6) == 0 || strcmp(error, "a key of extras is given "
                                                                      "twice") == 0);
    }
}

/* ---- serials and ids ---- */

static void v2_serials_are_written_and_read_back(void **state)
{
    static const uint64_t numbers[] = {0, 1, 1760000000123, UINT64_MAX};
    char text[V2_SERIAL_BYTES];
    uint64_t ms, serial;
    uint32_t bytes = v2_serial_write(text, 1718000123456, "node-a", 42);
    assert_string_equal(text, "00000001718000123456:node-a:00000000000000000042");
    assert_int_equal(bytes, strlen(text));
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 4; j++) {
            bytes = v2_serial_write(text, numbers[i], "0123456789abcdef0123456789abcdef",
                                    numbers[j]);
            assert_int_equal(bytes, V2_SERIAL_BYTES - 1);
            assert_true(v2_serial_parse(slice_of(text, bytes), "0123456789abcdef0123456789abcdef",
                                        &ms, &serial));
            assert_true(ms == numbers[i] && serial == numbers[j]);
        }
    }
}

static void v2_nodes_take_80_bits_of_a_hash(void **state)
{
    char one[V2_NODE_BYTES], other[V2_NODE_BYTES];
    v2_node_write(one, 0, UINT64_MAX);
    assert_string_equal(one, "00000000vvvvvvvv");
    v2_node_write(one, 10 | 31ull << 35, 1);
    assert_string_equal(one, "a000000v10000000");
    for (uint32_t bit = 0; bit < 40; bit++) {
        v2_node_write(one, 1ull << bit, 0);
        v2_node_write(other, 0, 1ull << bit);
        assert_string_not_equal(one, other);
        assert_string_not_equal(one, "0000000000000000");
    }
}

static void v2_other_texts_are_no_serials(void **state)
{
    static const char *const list[] = {
        "",
        "00000001718000123456:s2:00000000000000000042",
        "00000001718000123456:s:0000000000000000042",
        "00000001718000123456:s:000000000000000000042",
        "00000001718000123456;s:00000000000000000042",
        "00000001718000123456:s;00000000000000000042",
        "+0000001718000123456:s:00000000000000000042",
        "00000001718000123456:s:0000000000000000004x",
        "18446744073709551616:s:00000000000000000042",
        "00000001718000123456:s:99999999999999999999",
    };
    uint64_t ms, serial;
    assert_true(v2_serial_parse(slice_str("18446744073709551615:s:00000000000000000042"), "s", &ms,
                                &serial));
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        assert_false(v2_serial_parse(slice_str(list[i]), "s", &ms, &serial));
    }
}

static void v2_serial_syntax_is_checked_with_the_exact_text(void **state)
{
    char longest[130];
    memset(longest, 'a', sizeof longest);
    assert_true(v2_serial_check(slice_str("any:thing-\xc3\xa9"), "message_serial", error));
    assert_true(v2_serial_check(slice_of(longest, 128), "message_serial", error));
    assert_false(v2_serial_check(slice_of(longest, 129), "version_serial", error));
    assert_string_equal(error, "version_serial must be at most 128 bytes");
    assert_false(v2_serial_check(slice_str(""), "message_serial", error));
    assert_string_equal(error, "message_serial must not be empty");
    static const char *const spaces[] = {
        " ", "a b", "a\n", "\ta", "a\xc2\xa0", "\xe2\x80\x83" "b", "\xe3\x80\x80", "\xc2\x85",
    };
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        assert_false(v2_serial_check(slice_str(spaces[i]), "message_serial", error));
        assert_string_equal(error, "message_serial must not contain whitespace");
    }
}

static void v2_uuids_are_of_version_4(void **state)
{
    char text[V2_UUID_BYTES];
    v2_uuid_write(text, 0, 0);
    assert_string_equal(text, "00000000-0000-4000-8000-000000000000");
    v2_uuid_write(text, UINT64_MAX, UINT64_MAX);
    assert_string_equal(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    v2_uuid_write(text, 0x0123456789abcdef, 0x1122334455667788);
    assert_string_equal(text, "01234567-89ab-4def-9122-334455667788");
}

/* ---- frames ---- */

static void assert_frame(const uint8_t *frame, uint32_t bytes, const char *payload)
{
    uint8_t header[WS_SERVER_HEADER_BYTES_MAX];
    uint32_t payload_bytes = (uint32_t)strlen(payload);
    uint32_t header_bytes = ws_header_write(header, WS_TEXT, payload_bytes);
    assert_int_equal(bytes, header_bytes + payload_bytes);
    assert_memory_equal(frame, header, header_bytes);
    assert_memory_equal(frame + header_bytes, payload, payload_bytes);
}

static void assert_event(const struct v2_out *o, const char *payload)
{
    uint8_t frame[2048];
    uint32_t bytes = v2_event_write(o, frame);
    assert_int_equal(bytes, v2_event_bytes(o));
    assert_frame(frame, bytes, payload);
}

static void v2_events_have_their_fields_in_order(void **state)
{
    struct v2_out o = {.event_json = slice_str("\"e\"")};
    assert_event(&o, "{\"event\":\"e\"}");
    o = (struct v2_out){
        slice_str("\"e\""), slice_str("c\"x"), slice_str("{\"a\":1}"), slice_str("\"n\""),
        slice_str("{\"t\":\"v\"}"), slice_str("u\n1"), slice_str("m"), slice_str("s"), 0,
        slice_str("{\"echo\":true}"), NULL,
    };
    assert_event(&o, "{\"event\":\"e\",\"channel\":\"c\\\"x\",\"data\":{\"a\":1},\"name\":\"n\","
                     "\"user_id\":\"u\\n1\",\"tags\":{\"t\":\"v\"},\"message_id\":\"m\","
                     "\"stream_id\":\"s\",\"serial\":0,\"extras\":{\"echo\":true}}");
    o = (struct v2_out){.event_json = slice_str("\"e\""), .serial = 5};
    assert_event(&o, "{\"event\":\"e\"}");

    uint8_t frame[256];
    o = (struct v2_out){.event_json = slice_str("\"e\""), .stream_id = slice_str("s"),
                        .serial = UINT64_MAX};
    uint32_t bytes = v2_event_text_write(&o, slice_str("{\"a\":1}"), frame);
    assert_int_equal(bytes, v2_event_text_bytes(&o, slice_str("{\"a\":1}")));
    assert_frame(frame, bytes, "{\"event\":\"e\",\"data\":\"{\\\"a\\\":1}\",\"stream_id\":\"s\","
                               "\"serial\":18446744073709551615}");
}

static void names_have_the_word_of_the_protocol(void **state)
{
    static const struct { const char *from, *v2, *v1; } list[] = {
        {"\"pusher:x\"", "{\"event\":\"sockudo:x\"}", "{\"event\":\"pusher:x\"}"},
        {"\"sockudo:x\"", "{\"event\":\"sockudo:x\"}", "{\"event\":\"pusher:x\"}"},
        {"\"pusher_internal:x\"", "{\"event\":\"sockudo_internal:x\"}",
         "{\"event\":\"pusher_internal:x\"}"},
        {"\"sockudo_internal:x\"", "{\"event\":\"sockudo_internal:x\"}",
         "{\"event\":\"pusher_internal:x\"}"},
        {"\"pushers:x\"", "{\"event\":\"pushers:x\"}", "{\"event\":\"pushers:x\"}"},
        {"\"sockudos:x\"", "{\"event\":\"sockudos:x\"}", "{\"event\":\"sockudos:x\"}"},
        {"\"pusher\"", "{\"event\":\"pusher\"}", "{\"event\":\"pusher\"}"},
        {"\"sockudo\"", "{\"event\":\"sockudo\"}", "{\"event\":\"sockudo\"}"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct v2_out o = {.event_json = slice_str(list[i].from)};
        struct pusher_out old = {.event_json = o.event_json};
        uint8_t frame[64];
        assert_event(&o, list[i].v2);
        uint32_t bytes = pusher_event_write(&old, frame);
        assert_int_equal(bytes, pusher_event_bytes(&old));
        assert_frame(frame, bytes, list[i].v1);
    }
}

#define VERSION_HEADERS \
    "\"sockudo_action\":\"message.append\",\"sockudo_message_serial\":\"M\"," \
    "\"sockudo_version_serial\":\"V\",\"sockudo_version_timestamp_ms\":1760000000123," \
    "\"sockudo_history_serial\":7"

static void v2_version_headers_join_the_publishers_extras(void **state)
{
    static const struct { const char *extras, *with; } list[] = {
        {NULL, "{\"headers\":{" VERSION_HEADERS "}}"},
        {"{\"echo\":true,\"x\":{}}", "{\"headers\":{" VERSION_HEADERS "},\"echo\":true,\"x\":{}}"},
        {"{\"headers\":{\"a\":1}}", "{\"headers\":{\"a\":1," VERSION_HEADERS "}}"},
        {"{\"headers\":{\"}\\\"}\":\"\\\\\",\"b\":\"}\"},\"ai\":{}}",
         "{\"headers\":{\"}\\\"}\":\"\\\\\",\"b\":\"}\"," VERSION_HEADERS "},\"ai\":{}}"},
    };
    const struct v2_version v = {V2_APPEND, "M", "V", 1760000000123, 7};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct v2_out o = {.event_json = slice_str("\"e\""), .version = &v};
        uint8_t extras[512];
        char payload[1024];
        if (list[i].extras != NULL) o.extras = slice_str(list[i].extras);
        snprintf(payload, sizeof payload, "{\"event\":\"e\",\"extras\":%s}", list[i].with);
        assert_event(&o, payload);
        uint32_t bytes = v2_extras_write(o.extras, &v, extras);
        assert_int_equal(bytes, v2_extras_bytes(o.extras, &v));
        assert_true(slice_is(slice_of(extras, bytes), list[i].with));
    }
}

static void v2_an_append_frame_is_that_of_the_page(void **state)
{
    const struct v2_version v = {V2_APPEND, "M", "V", 1760000000123, 7};
    struct v2_out o = {
        .event_json = slice_str("\"sockudo:message.append\""), .channel = slice_str("ai:s1"),
        .data_json = slice_str("\" world\""), .name_json = slice_str("\"ai-output\""),
        .message_id = slice_str("V"), .stream_id = slice_str("v9"), .serial = 12,
        .extras = slice_str("{\"ai\":{\"transport\":{\"status\":\"streaming\"}}}"), .version = &v,
    };
    assert_event(&o, "{\"event\":\"sockudo:message.append\",\"channel\":\"ai:s1\","
                     "\"data\":\" world\",\"name\":\"ai-output\",\"message_id\":\"V\","
                     "\"stream_id\":\"v9\",\"serial\":12,\"extras\":{\"headers\":{"
                     VERSION_HEADERS "},\"ai\":{\"transport\":{\"status\":\"streaming\"}}}}");
}

static void v2_small_frames_are_exact(void **state)
{
    uint8_t frame[PUSHER_SMALL_FRAME_BYTES];
    assert_frame(frame, v2_established_write(frame, 8123, 447, 120, "6c0e"),
                 "{\"event\":\"sockudo:connection_established\",\"data\":\"{\\\"socket_id\\\":"
                 "\\\"8123.447\\\",\\\"activity_timeout\\\":120}\",\"message_id\":\"6c0e\"}");
    assert_frame(frame, v2_error_write(frame, 4301, "Client event error: \"x\"", "6c0e"),
                 "{\"event\":\"sockudo:error\",\"data\":{\"code\":4301,\"message\":"
                 "\"Client event error: \\\"x\\\"\"},\"message_id\":\"6c0e\"}");
    assert_frame(frame, v2_pong_write(frame), "{\"event\":\"sockudo:pong\"}");
}

static void v2_a_long_error_is_cut_between_characters(void **state)
{
    uint8_t frame[PUSHER_SMALL_FRAME_BYTES];
    static char text[4096];
    for (uint32_t shift = 0; shift < 4; shift++) {
        memset(text, 'a', shift);
        for (uint32_t at = shift; at + 3 < sizeof text; at += 3) {
            memcpy(text + at, "\xe2\x82\xac", 3);
        }
        uint32_t bytes = v2_error_write(frame, 4000, text, "6c0e");
        struct slice payload = pusher_payload(slice_of(frame, bytes));
        struct json_value value;
        struct json_error wrong;
        assert_true(bytes <= PUSHER_SMALL_FRAME_BYTES && bytes > PUSHER_SMALL_FRAME_BYTES - 16);
        assert_true(json_parse(payload, &value, &wrong));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v2_extras_are_kept_in_canonical_form),
        cmocka_unit_test(v2_extras_tell_flags_key_and_status),
        cmocka_unit_test(v2_extras_of_wrong_types_are_refused),
        cmocka_unit_test(v2_serials_are_written_and_read_back),
        cmocka_unit_test(v2_nodes_take_80_bits_of_a_hash),
        cmocka_unit_test(v2_other_texts_are_no_serials),
        cmocka_unit_test(v2_serial_syntax_is_checked_with_the_exact_text),
        cmocka_unit_test(v2_uuids_are_of_version_4),
        cmocka_unit_test(v2_events_have_their_fields_in_order),
        cmocka_unit_test(names_have_the_word_of_the_protocol),
        cmocka_unit_test(v2_version_headers_join_the_publishers_extras),
        cmocka_unit_test(v2_an_append_frame_is_that_of_the_page),
        cmocka_unit_test(v2_small_frames_are_exact),
        cmocka_unit_test(v2_a_long_error_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
