/* Goal: names mean what the protocol says, client frames are read with the exact texts of the
 * protocol, and server frames are, byte for byte, those of the protocol.
 * Method: tables of names and frames; written frames are compared whole and parsed again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/pusher.h"
#include "proto/ws.h"

static char error[PUSHER_ERROR_TEXT_BYTES];

/* ---- names ---- */

static void pusher_prefixes_decide_kind_and_cache(void **state)
{
    static const struct {
        const char      *name;
        enum pusher_kind kind;
        bool             cache;
        uint32_t         label;
    } list[] = {
        {"orders", PUSHER_PUBLIC, false, 0}, {"a", PUSHER_PUBLIC, false, 0},
        {"Az09_-=@,.;", PUSHER_PUBLIC, false, 0}, {"Private-x", PUSHER_PUBLIC, false, 0},
        {"xprivate-", PUSHER_PUBLIC, false, 0}, {"private", PUSHER_PUBLIC, false, 0},
        {"mycache-1", PUSHER_PUBLIC, false, 0}, {"cache-1", PUSHER_PUBLIC, true, 4},
        {"private-room", PUSHER_PRIVATE, false, 1}, {"private-", PUSHER_PRIVATE, false, 1},
        {"private-mycache-1", PUSHER_PRIVATE, false, 1},
        {"private-cache-1", PUSHER_PRIVATE, true, 1},
        {"private-cache", PUSHER_PRIVATE, false, 1},
        {"private-encrypted-a", PUSHER_ENCRYPTED, false, 3},
        {"private-encrypted-cache-a", PUSHER_ENCRYPTED, true, 3},
        {"private-encrypted", PUSHER_PRIVATE, false, 1},
        {"presence-room", PUSHER_PRESENCE, false, 2},
        {"presence-cache-room", PUSHER_PRESENCE, true, 2},
        {"presence-private-cache-a", PUSHER_PRESENCE, false, 2},
        {"cache-private-a", PUSHER_PUBLIC, true, 4},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct pusher_channel c;
        assert_true(pusher_channel_parse(slice_str(list[i].name), 200, NULL, &c, error));
        assert_int_equal(c.kind, list[i].kind);
        assert_int_equal(c.cache, list[i].cache);
        assert_int_equal(pusher_type_label(&c), list[i].label);
        assert_null(c.user_id.ptr);
    }
}

static void pusher_bad_names_are_refused_with_the_exact_text(void **state)
{
    static const struct { const char *name, *text; } list[] = {
        {"", "Channel name must not be empty"},
        {"a b", "Channel name contains invalid characters: 'a b' (invalid chars: [' '])"},
        {"a!b/!", "Channel name contains invalid characters: 'a!b/!' "
                  "(invalid chars: ['!', '/', '!'])"},
        {"it's", "Channel name contains invalid characters: 'it's' (invalid chars: ['\\''])"},
        {"a\nb", "Channel name contains invalid characters: 'a?b' (invalid chars: ['?'])"},
        {"caf\xc3\xa9", "Channel name contains invalid characters: 'caf\xc3\xa9' "
                        "(invalid chars: ['\xc3\xa9'])"},
        {"a\xff\xc2\x85", "Channel name contains invalid characters: 'a?" "?" "?' "
                          "(invalid chars: ['?', '?', '?'])"},
        {"a\xe2\x82", "Channel name contains invalid characters: 'a?" "?' "
                      "(invalid chars: ['?', '?'])"},
        {"#other", "Channel name contains invalid characters: '#other' (invalid chars: ['#'])"},
        {"a: b", "Channel name contains invalid characters: 'a: b' (invalid chars: [' '])"},
        {"ns:room", "Unknown channel namespace 'ns'"},
        {"private-ns:room:x", "Unknown channel namespace 'ns'"},
        {"presence-cache-ns:x", "Unknown channel namespace 'ns'"},
        {":x", "Unknown channel namespace ''"},
        {"a*", "Wildcard subscriptions are only supported on protocol V2"},
        {"private-*", "Wildcard subscriptions are only supported on protocol V2"},
        {"[meta]room", "Metachannel subscriptions are only supported on protocol V2"},
        {"#server-to-user-", "Channel name must not be empty"},
        {"#server-to-user-a\x01", "Channel name contains invalid characters: "
                                  "'#server-to-user-a?' (invalid chars: ['#', '?'])"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct pusher_channel c;
        assert_false(pusher_channel_parse(slice_str(list[i].name), 200, NULL, &c, error));
        assert_string_equal(error, list[i].text);
    }
}

static void pusher_name_length_is_bounded(void **state)
{
    char name[2000];
    struct pusher_channel c;
    memset(name, 'x', sizeof name);
    assert_true(pusher_channel_parse(slice_of(name, 200), 200, NULL, &c, error));
    assert_false(pusher_channel_parse(slice_of(name, 201), 200, NULL, &c, error));
    assert_string_equal(error, "Channel name too long. Max length is 200");
    assert_false(pusher_channel_parse(slice_of(name, 6), 5, NULL, &c, error));
    assert_string_equal(error, "Channel name too long. Max length is 5");
    assert_true(pusher_channel_parse(slice_of(name, sizeof name), 0, NULL, &c, error));

    memset(name, '\'', sizeof name);              /* the longest text there can be */
    assert_false(pusher_channel_parse(slice_of(name, sizeof name), 0, NULL, &c, error));
    assert_true(strlen(error) > 300 && strlen(error) < PUSHER_ERROR_TEXT_BYTES);
    assert_non_null(strstr(error, "'\\'', '\\'', ..])"));
}

static void pusher_user_names_take_any_text_as_id(void **state)
{
    struct pusher_channel c;
    char name[256];
    static const char *const good[] = {"u1", "u 1", "a:b*c#[meta]", "caf\xc3\xa9",
                                       "\xf0\x9f\x98\x80"};
    static const char *const bad[] = {"a\nb", "\x7f", "a\xc2\x85", "\xff", "\xed\xa0\x80"};
    for (size_t i = 0; i < 5; i++) {
        sprintf(name, "#server-to-user-%s", good[i]);
        assert_true(pusher_channel_parse(slice_str(name), 5, NULL, &c, error));
        assert_int_equal(c.kind, PUSHER_USER);
        assert_true(slice_is(c.user_id, good[i]));
        sprintf(name, "#server-to-user-%s", bad[i]);
        assert_false(pusher_channel_parse(slice_str(name), 200, NULL, &c, error));
    }
    memset(name, 'x', sizeof name);
    memcpy(name, "#server-to-user-", 16);
    assert_true(pusher_channel_parse(slice_of(name, 16 + 128), 10, NULL, &c, error));
    assert_int_equal(c.user_id.bytes, 128);
    assert_false(pusher_channel_parse(slice_of(name, 16 + 129), 200, NULL, &c, error));
    assert_string_equal(error, "Channel name too long. Max length is 144");
}

/* ---- client frames ---- */

static void pusher_events_are_told_apart(void **state)
{
    static const struct { const char *event; enum pusher_event kind; } list[] = {
        {"pusher:ping", PUSHER_EV_PING}, {"sockudo:ping", PUSHER_EV_PING},
        {"pusher:pong", PUSHER_EV_PONG}, {"sockudo:pong", PUSHER_EV_PONG},
        {"pusher:subscribe", PUSHER_EV_SUBSCRIBE}, {"sockudo:subscribe", PUSHER_EV_SUBSCRIBE},
        {"pusher:unsubscribe", PUSHER_EV_UNSUBSCRIBE},
        {"sockudo:unsubscribe", PUSHER_EV_UNSUBSCRIBE},
        {"pusher:signin", PUSHER_EV_SIGNIN}, {"sockudo:signin", PUSHER_EV_SIGNIN},
        {"pusher\\u003aping", PUSHER_EV_PING}, {"clien\\u0074-a", PUSHER_EV_CLIENT},
        {"client-", PUSHER_EV_CLIENT}, {"client-\\u00e9", PUSHER_EV_CLIENT},
        {"Client-a", PUSHER_EV_UNKNOWN}, {"client", PUSHER_EV_UNKNOWN}, {"", PUSHER_EV_UNKNOWN},
        {"pusher:pin", PUSHER_EV_UNKNOWN}, {"pusher:pings", PUSHER_EV_UNKNOWN},
        {"pusher:PING", PUSHER_EV_UNKNOWN}, {"ping", PUSHER_EV_UNKNOWN},
        {"pusher_internal:ping", PUSHER_EV_UNKNOWN}, {"pusher:ping\\u0000", PUSHER_EV_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        char text[128];
        struct pusher_frame f;
        sprintf(text, "{\"event\":\"%s\",\"data\":{}}", list[i].event);
        assert_true(pusher_frame_parse(slice_str(text), &f, error));
        assert_int_equal(f.kind, list[i].kind);
        assert_int_equal(f.channel.type, JSON_ABSENT);
        assert_true(slice_is(f.data.raw, "{}"));
    }
}

static void pusher_broken_frames_get_the_exact_text(void **state)
{
    static const struct { const char *frame, *text; } list[] = {
        {"", "Invalid message format: Decode failed: unexpected end at byte 0"},
        {"hello", "Invalid message format: Decode failed: expected a value at byte 0"},
        {"[]", "Invalid message format: Decode failed: not an object at byte 0"},
        {" \"pusher:ping\"", "Invalid message format: Decode failed: not an object at byte 1"},
        {"{\"event\":1}", "Invalid message format: Decode failed: event is not a string at byte 9"},
        {"{\"event\":\"a\",\"channel\":[]}",
         "Invalid message format: Decode failed: channel is not a string at byte 23"},
        {"{\"event\":\"a\",\"event\":\"b\"}",
         "Invalid message format: Decode failed: name given twice at byte 13"},
        {"{\"event\":\"a\"", "Invalid message format: Decode failed: unexpected end at byte 12"},
        {"{}", "Invalid event name: Event name is required"},
        {"{\"event\":null}", "Invalid event name: Event name is required"},
        {"{\"data\":{\"event\":\"a\"}}", "Invalid event name: Event name is required"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct pusher_frame f;
        assert_false(pusher_frame_parse(slice_str(list[i].frame), &f, error));
        assert_string_equal(error, list[i].text);
    }
}

static void pusher_frame_keeps_data_as_it_is(void **state)
{
    struct pusher_frame f;
    assert_true(pusher_frame_parse(slice_str("{\"event\":\"client-a\",\"channel\":\"private-x\","
                                             "\"data\":{\"on\": true},\"user_id\":\"forged\"}"),
                                   &f, error));
    assert_true(json_text_is(&f.channel, "private-x"));
    assert_true(slice_is(f.data.raw, "{\"on\": true}"));
    assert_int_equal(f.data.text_bytes, 11);
    assert_true(pusher_frame_parse(slice_str("{\"event\":\"client-a\",\"channel\":null,"
                                             "\"data\":null}"), &f, error));
    assert_int_equal(f.channel.type, JSON_ABSENT);
    assert_int_equal(f.data.type, JSON_NULL);
}

static struct json_value value_of(const char *text)
{
    struct json_value value;
    struct json_error wrong;
    if (text == NULL) return (struct json_value){0};
    assert_true(json_parse(slice_str(text), &value, &wrong));
    return value;
}

static void pusher_subscribe_reads_object_and_string(void **state)
{
    static const char *const forms[] = {
        "{\"auth\":\"k:s\",\"channel\":\"presence-a\",\"channel_data\":\"{\\\"user_id\\\":1}\"}",
        "\"{\\\"auth\\\":\\\"k:s\\\",\\\"channel\\\":\\\"presence-a\\\",\\\"channel_data\\\":"
        "\\\"{\\\\\\\"user_id\\\\\\\":1}\\\"}\"",
    };
    for (size_t i = 0; i < 2; i++) {
        struct json_value data = value_of(forms[i]);
        struct pusher_subscribe s;
        uint8_t *scratch = malloc(data.text_bytes);
        assert_true(pusher_subscribe_parse(&data, scratch, &s, error));
        assert_true(json_text_is(&s.channel, "presence-a"));
        assert_true(json_text_is(&s.auth, "k:s"));
        assert_true(json_text_is(&s.channel_data, "{\"user_id\":1}"));
        free(scratch);
    }
    struct json_value data = value_of("{\"channel\":\"a\",\"auth\":null,\"channel_data\":{}}");
    struct pusher_subscribe s;
    assert_true(pusher_subscribe_parse(&data, NULL, &s, error));
    assert_int_equal(s.auth.type, JSON_ABSENT);
    assert_int_equal(s.channel_data.type, JSON_ABSENT);
}

static void pusher_subscribe_refuses_with_the_exact_text(void **state)
{
    static const struct { const char *data, *text; } list[] = {
        {NULL, "Invalid message format: Invalid subscription data format"},
        {"null", "Invalid message format: Invalid subscription data format"},
        {"[]", "Invalid message format: Invalid subscription data format"},
        {"1", "Invalid message format: Invalid subscription data format"},
        {"\"orders\"", "Invalid message format: Invalid subscription data format"},
        {"\"[]\"", "Invalid message format: Invalid subscription data format"},
        {"{\"channel\":\"a\",\"channel\":\"b\"}",
         "Invalid message format: Invalid subscription data format"},
        {"{}", "Invalid message format: Missing channel field"},
        {"\"{}\"", "Invalid message format: Missing channel field"},
        {"{\"channel\":7}", "Invalid message format: Missing channel field"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct json_value data = value_of(list[i].data);
        struct pusher_subscribe s;
        uint8_t scratch[64];
        assert_false(pusher_subscribe_parse(&data, scratch, &s, error));
        assert_string_equal(error, list[i].text);
    }
}

static void pusher_unsubscribe_reads_object_and_bare_string(void **state)
{
    struct json_value data = value_of("{\"channel\":\"a\"}"), channel;
    assert_true(pusher_unsubscribe_parse(&data, &channel, error));
    assert_true(json_text_is(&channel, "a"));
    data = value_of("\"b\"");
    assert_true(pusher_unsubscribe_parse(&data, &channel, error));
    assert_true(json_text_is(&channel, "b"));
    static const char *const bad[] = {NULL, "null", "{}", "{\"channel\":null}", "[\"a\"]", "1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        data = value_of(bad[i]);
        assert_false(pusher_unsubscribe_parse(&data, &channel, error));
        assert_string_equal(error,
                            "Invalid message format: Missing channel in unsubscribe message");
    }
}

static void pusher_member_needs_a_user_id(void **state)
{
    struct pusher_member m;
    uint32_t code;
    assert_true(pusher_member_parse(slice_str("{\"user_id\":\"u1\",\"user_info\":{\"n\":1}}"), &m,
                                    &code, error));
    assert_true(json_text_is(&m.user_id, "u1"));
    assert_true(slice_is(m.user_info.raw, "{\"n\":1}"));
    assert_true(pusher_member_parse(slice_str("{\"user_id\":-12}"), &m, &code, error));
    assert_true(slice_is(m.user_id.raw, "-12"));
    assert_int_equal(m.user_info.type, JSON_ABSENT);
    static const char *const no_id[] = {
        "{}", "[]", "1", "{\"user_id\":null}", "{\"user_id\":1.5}", "{\"user_id\":1e2}",
        "{\"user_id\":-0}", "{\"user_id\":\"\"}", "{\"user_id\":true}", "{\"user_id\":[1]}",
    };
    for (size_t i = 0; i < sizeof no_id / sizeof no_id[0]; i++) {
        assert_false(pusher_member_parse(slice_str(no_id[i]), &m, &code, error));
        assert_int_equal(code, 4300);
        assert_string_equal(error, "Channel error: Missing user_id in channel_data");
    }
    static const char *const no_json[] = {"", "{", "{} {}", "{\"user_id\":1,\"user_id\":2}"};
    for (size_t i = 0; i < sizeof no_json / sizeof no_json[0]; i++) {
        assert_false(pusher_member_parse(slice_str(no_json[i]), &m, &code, error));
        assert_int_equal(code, 4000);
        assert_string_equal(error,
                            "Invalid message format: Invalid channel_data JSON for presence");
    }
}

static void pusher_user_needs_an_id_and_a_list_of_names(void **state)
{
    static const struct { const char *in, *text; } bad[] = {
        {"{\"id\":", "Authentication error: Invalid user_data JSON: unexpected end at byte 6"},
        {"[]", "Authentication error: Missing 'id' field in user_data"},
        {"{}", "Authentication error: Missing 'id' field in user_data"},
        {"{\"id\":1}", "Authentication error: Missing 'id' field in user_data"},
        {"{\"id\":\"\"}", "Authentication error: Missing 'id' field in user_data"},
        {"{\"id\":\"a\",\"watchlist\":\"b\"}", "Authentication error: Invalid user_data JSON: "
                                               "watchlist is not an array of strings"},
        {"{\"id\":\"a\",\"watchlist\":[\"b\",1]}", "Authentication error: Invalid user_data JSON: "
                                                   "watchlist is not an array of strings"},
    };
    struct pusher_user u;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(pusher_user_parse(slice_str(bad[i].in), &u, error));
        assert_string_equal(error, bad[i].text);
    }
    assert_true(pusher_user_parse(slice_str("{\"id\":\"u1\",\"user_info\":{},"
                                            "\"watchlist\":[\"u2\",\"u3\"]}"), &u, error));
    assert_true(json_text_is(&u.id, "u1"));
    assert_int_equal(u.watchlist.type, JSON_ARRAY);
    assert_int_equal(u.user_info.type, JSON_OBJECT);
    assert_true(pusher_user_parse(slice_str("{\"id\":\"u1\",\"watchlist\":null}"), &u, error));
    assert_int_equal(u.watchlist.type, JSON_ABSENT);
}

/* ---- server frames ---- */

/* One text frame, its length right, its payload valid JSON; returns the payload. */
static struct slice payload_of(const uint8_t *frame, uint32_t bytes)
{
    struct slice payload = pusher_payload(slice_of(frame, bytes));
    struct json_value value;
    struct json_error wrong;
    uint8_t header[WS_SERVER_HEADER_BYTES_MAX];
    uint32_t header_bytes = ws_header_write(header, WS_TEXT, payload.bytes);
    assert_int_equal(header_bytes, ws_header_bytes(payload.bytes));
    assert_int_equal(bytes, header_bytes + payload.bytes);
    assert_memory_equal(frame, header, header_bytes);
    assert_true(json_parse(payload, &value, &wrong));
    assert_int_equal(value.type, JSON_OBJECT);
    return payload;
}

static void assert_frame(const uint8_t *frame, uint32_t bytes, const char *want)
{
    struct slice payload = payload_of(frame, bytes);
    if (!slice_is(payload, want)) fail_msg("%.*s", (int)payload.bytes, payload.ptr);
}

static void pusher_small_frames_are_exact(void **state)
{
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    assert_frame(out, pusher_ping_write(out), "{\"event\":\"pusher:ping\"}");
    assert_frame(out, pusher_pong_write(out), "{\"event\":\"pusher:pong\"}");
    assert_frame(out, pusher_established_write(out, 812, 99417, 120),
                 "{\"event\":\"pusher:connection_established\",\"data\":\"{\\\"socket_id\\\":"
                 "\\\"812.99417\\\",\\\"activity_timeout\\\":120}\"}");
    assert_frame(out, pusher_established_write(out, 10000000000, 0, UINT32_MAX),
                 "{\"event\":\"pusher:connection_established\",\"data\":\"{\\\"socket_id\\\":"
                 "\\\"10000000000.0\\\",\\\"activity_timeout\\\":4294967295}\"}");
    assert_frame(out, pusher_error_write(out, 4001, "Application does not exist"),
                 "{\"event\":\"pusher:error\",\"data\":{\"code\":4001,"
                 "\"message\":\"Application does not exist\"}}");
    assert_frame(out, pusher_error_write(out, 4300, "a \"b\"\n\xc3\xa9"),
                 "{\"event\":\"pusher:error\",\"data\":{\"code\":4300,"
                 "\"message\":\"a \\\"b\\\"\\n\xc3\xa9\"}}");
}

/* Every length of every width of character, plain and escaped: never too long, never half a
 * character, and nothing is cut that fits. */
static void pusher_error_text_is_cut_between_characters(void **state)
{
    static const char *const units[] = {"x", "\"", "\x01", "\xc3\xa9", "\xe2\x82\xac",
                                        "\xf0\x9f\x98\x80"};
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    char message[4096];
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        for (uint32_t shift = 0; shift < 4; shift++) {
            uint32_t bytes = shift;
            memset(message, 'a', shift);
            while (bytes < 2000) bytes += (uint32_t)sprintf(message + bytes, "%s", units[u]);
            uint32_t written = pusher_error_write(out, 4000, message);
            assert_in_range(written, PUSHER_SMALL_FRAME_BYTES - 16, PUSHER_SMALL_FRAME_BYTES);
            payload_of(out, written);
        }
    }
}

static void pusher_events_are_exact(void **state)
{
    uint8_t out[512];
    struct pusher_out o = {
        slice_str("\"App\\\\Events\\\\Shipped\""), slice_str("orders"),
        slice_str("\"{\\\"id\\\":7}\""), {NULL, 0},
    };
    uint32_t bytes = pusher_event_write(&o, out);
    assert_true(bytes <= pusher_event_bytes(&o));
    assert_frame(out, bytes, "{\"event\":\"App\\\\Events\\\\Shipped\",\"channel\":\"orders\","
                             "\"data\":\"{\\\"id\\\":7}\"}");
    bytes = pusher_event_text_write(&o, slice_str("{\"id\":7}"), out);
    assert_true(bytes <= pusher_event_text_bytes(&o, slice_str("{\"id\":7}")));
    assert_frame(out, bytes, "{\"event\":\"App\\\\Events\\\\Shipped\",\"channel\":\"orders\","
                             "\"data\":\"{\\\"id\\\":7}\"}");
    o = (struct pusher_out){slice_str("\"client-typing\""), slice_str("presence-room"),
                            slice_str("{\"on\":true}"), slice_str("\"u1\"")};
    assert_frame(out, pusher_event_write(&o, out),
                 "{\"event\":\"client-typing\",\"channel\":\"presence-room\","
                 "\"data\":{\"on\":true},\"user_id\":\"u1\"}");
    o = (struct pusher_out){.event_json = slice_str("\"a\"")};
    assert_frame(out, pusher_event_write(&o, out), "{\"event\":\"a\"}");
    assert_frame(out, pusher_event_text_write(&o, slice_str("{}"), out),
                 "{\"event\":\"a\",\"data\":\"{}\"}");
    o.channel = slice_str("#server-to-user-a\"b");
    assert_frame(out, pusher_event_text_write(&o, slice_of(NULL, 0), out),
                 "{\"event\":\"a\",\"channel\":\"#server-to-user-a\\\"b\",\"data\":\"\"}");
}

/* All three header widths, from blocks of exactly the promised size. */
static void pusher_event_bytes_covers_every_header_width(void **state)
{
    static const uint32_t sizes[] = {0, 1, 50, 70, 80, 90, 100, 200, 1000, 65480, 65500, 65520,
                                     65536, 200000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (uint32_t extra = 0; extra < 20; extra++) {
            uint32_t text_bytes = sizes[i] + extra;
            uint8_t *text = malloc(text_bytes + 1);
            memset(text, 'x', text_bytes);
            struct pusher_out o = {slice_str("\"e\""), slice_str("c"), {NULL, 0}, {NULL, 0}};
            uint32_t bytes = pusher_event_text_bytes(&o, slice_of(text, text_bytes));
            uint8_t *out = malloc(bytes);
            uint32_t written = pusher_event_text_write(&o, slice_of(text, text_bytes), out);
            assert_in_range(written, text_bytes, bytes);
            payload_of(out, written);
            free(out);
            free(text);
        }
    }
}

static void pusher_socket_ids_round_trip(void **state)
{
    static const uint64_t list[] = {0, 1, 9, 10, 812, 99417, 9999999999, 10000000000};
    for (size_t i = 0; i < 8; i++) {
        for (size_t k = 0; k < 8; k++) {
            char text[PUSHER_SOCKET_ID_BYTES], want[64];
            uint64_t a, b;
            uint32_t bytes = pusher_socket_id_write(text, list[i], list[k]);
            sprintf(want, "%llu.%llu", (unsigned long long)list[i], (unsigned long long)list[k]);
            assert_string_equal(text, want);
            assert_int_equal(bytes, strlen(want));
            assert_true(pusher_socket_id_parse(slice_of(text, bytes), &a, &b));
            assert_true(a == list[i] && b == list[k]);
        }
    }
    static const char *const bad[] = {
        "", ".", "1", "1.", ".1", "1.2.3", "a.1", "1.a", "-1.2", "1.+2", " 1.2", "1.2 ", "1,2",
        "10000000001.1", "1.99999999999", "000000000001.1", "1.2\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t a, b;
        assert_false(pusher_socket_id_parse(slice_str(bad[i]), &a, &b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pusher_prefixes_decide_kind_and_cache),
        cmocka_unit_test(pusher_bad_names_are_refused_with_the_exact_text),
        cmocka_unit_test(pusher_name_length_is_bounded),
        cmocka_unit_test(pusher_user_names_take_any_text_as_id),
        cmocka_unit_test(pusher_events_are_told_apart),
        cmocka_unit_test(pusher_broken_frames_get_the_exact_text),
        cmocka_unit_test(pusher_frame_keeps_data_as_it_is),
        cmocka_unit_test(pusher_subscribe_reads_object_and_string),
        cmocka_unit_test(pusher_subscribe_refuses_with_the_exact_text),
        cmocka_unit_test(pusher_unsubscribe_reads_object_and_bare_string),
        cmocka_unit_test(pusher_member_needs_a_user_id),
        cmocka_unit_test(pusher_user_needs_an_id_and_a_list_of_names),
        cmocka_unit_test(pusher_small_frames_are_exact),
        cmocka_unit_test(pusher_error_text_is_cut_between_characters),
        cmocka_unit_test(pusher_events_are_exact),
        cmocka_unit_test(pusher_event_bytes_covers_every_header_width),
        cmocka_unit_test(pusher_socket_ids_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
