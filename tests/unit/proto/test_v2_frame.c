/* Goal: a V2 client's query, frames, subscribes, resumes, history requests and presence updates
 * mean what the protocol says, in every documented form, and are refused with its texts.
 * Method: tables of texts and what they must become.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/v2.h"

static char error[PUSHER_ERROR_TEXT_BYTES];
static uint8_t scratch[1 << 16];

static struct json_value value_of(const char *json)
{
    struct json_value value = {0};
    struct json_error wrong;
    if (json != NULL) assert_true(json_parse(slice_str(json), &value, &wrong));
    return value;
}

static void assert_text(const struct json_value *value, const char *text)
{
    if (text == NULL) assert_int_equal(value->type, JSON_ABSENT);
    else assert_true(json_text_is(value, text));
}

/* ---- query ---- */

static void v2_query_takes_what_the_page_lists(void **state)
{
    static const struct { const char *name, *value; bool fine, echo, full, has_echo; } list[] = {
        {"format", "json", true, true, false, false}, {"format", "", true, true, false, false},
        {"format", " JSON\t", true, true, false, false},
        {"format", "msgpack", false, true, false, false},
        {"format", "Proto", false, true, false, false},
        {"format", "xml", false, true, false, false},
        {"echo_messages", "false", true, false, false, true},
        {"echo_messages", "true", true, true, false, true},
        {"echo_messages", "", false, false, false, true},
        {"echo_messages", "True", false, false, false, true},
        {"append_mode", "full", true, true, true, false},
        {"append_mode", "delta", true, true, false, false},
        {"append_mode", "", true, true, false, false},
        {"append_mode", "FULL", false, true, false, false},
        {"append_rollup_window", "0", true, true, false, false},
        {"append_rollup_window", "500", true, true, false, false},
        {"append_rollup_window", "60", false, true, false, false},
        {"append_rollup_window", "", false, true, false, false},
        {"client", "js", true, true, false, false}, {"flash", "false", true, true, false, false},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct v2_query q = {.echo = true};
        const char *text = NULL;
        bool fine = v2_query_take(&q, slice_str(list[i].name), slice_str(list[i].value), &text);
        assert_int_equal(fine, list[i].fine);
        assert_int_equal(text == NULL, fine);
        if (!fine) continue;
        assert_int_equal(q.echo, list[i].echo);
        assert_int_equal(q.full, list[i].full);
        assert_int_equal(q.has_echo, list[i].has_echo);
    }
}

/* ---- frames ---- */

static void v2_event_names_take_any_protocol_prefix(void **state)
{
    static const struct { const char *name; enum v2_event kind; } list[] = {
        {"sockudo:ping", V2_EV_PING}, {"pusher:ping", V2_EV_PING},
        {"sockudo_internal:pong", V2_EV_PONG}, {"pusher_internal:subscribe", V2_EV_SUBSCRIBE},
        {"sockudo:subscribe", V2_EV_SUBSCRIBE}, {"pusher:unsubscribe", V2_EV_UNSUBSCRIBE},
        {"sockudo:signin", V2_EV_SIGNIN}, {"sockudo:resume", V2_EV_RESUME},
        {"channel_history", V2_EV_HISTORY}, {"pusher_internal:channel_history", V2_EV_HISTORY},
        {"sockudo:presence_update", V2_EV_PRESENCE_UPDATE},
        {"pusher:presence_update", V2_EV_PRESENCE_UPDATE},
        {"sockudo_internal:presence_update", V2_EV_UNKNOWN},
        {"presence_update", V2_EV_UNKNOWN}, {"subscribe", V2_EV_UNKNOWN},
        {"resume", V2_EV_UNKNOWN}, {"", V2_EV_UNKNOWN}, {"sockudo:", V2_EV_UNKNOWN},
        {"sockudo:sockudo:ping", V2_EV_UNKNOWN}, {"Sockudo:ping", V2_EV_UNKNOWN},
        {"sockudo:pinga", V2_EV_UNKNOWN}, {"client-a", V2_EV_CLIENT},
        {"\\u0063lient-a", V2_EV_CLIENT}, {"sockudo\\u003aresume", V2_EV_RESUME},
        {"sockudo:client-a", V2_EV_UNKNOWN},
        {"sockudo:an-event-name-that-is-longer-than-any-that-is-known", V2_EV_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct v2_frame f;
        char text[256];
        snprintf(text, sizeof text, "{\"event\":\"%s\"}", list[i].name);
        assert_true(v2_frame_parse(slice_str(text), &f, error));
        assert_int_equal(f.event_kind, list[i].kind);
        assert_int_equal(f.channel.type, JSON_ABSENT);
        assert_int_equal(f.data.type, JSON_ABSENT);
    }
}

static void v2_known_fields_are_strict_and_others_ignored(void **state)
{
    static const char *const fine[] = {
        "{\"event\":\"e\",\"channel\":null,\"name\":null,\"tags\":null,\"serial\":null,"
        "\"extras\":null}",
        "{\"event\":\"e\",\"channel\":\"c\",\"data\":[1],\"name\":\"n\",\"user_id\":\"u\","
        "\"tags\":{\"a\":\"b\"},\"sequence\":1,\"conflation_key\":\"k\",\"message_id\":\"m\","
        "\"stream_id\":\"s\",\"serial\":0,\"idempotency_key\":\"i\",\"extras\":{},"
        "\"__delta_seq\":2,\"__conflation_key\":\"k\"}",
        "{\"event\":\"e\",\"unknown\":[{}],\"auth\":7}",
    };
    static const struct { const char *json, *text; } bad[] = {
        {"{\"event\":\"e\",\"serial\":-1}",
         "Invalid message format: Decode failed: serial is not an unsigned integer at byte 22"},
        {"{\"event\":\"e\",\"serial\":\"1\"}",
         "Invalid message format: Decode failed: serial is not an unsigned integer at byte 22"},
        {"{\"event\":\"e\",\"tags\":{\"a\":1}}",
         "Invalid message format: Decode failed: tags is not an object of strings at byte 20"},
        {"{\"event\":7}", "Invalid message format: Decode failed: event is not a string at byte 9"},
        {"{\"event\":\"e\",\"__conflation_key\":1}",
         "Invalid message format: Decode failed: __conflation_key is not a string at byte 32"},
        {"{\"event\":\"e\",\"extras\":{\"headers\":{\"a\":null}}}",
         "Invalid message format: Decode failed: extras.headers is not an object of strings, "
         "numbers and booleans at byte 22"},
        {"{\"event\":\"e\",\"event\":\"e\"}",
         "Invalid message format: Decode failed: name given twice at byte 13"},
        {"[]", "Invalid message format: Decode failed: "},
        {"{\"channel\":\"c\"}", "Invalid event name: Event name is required"},
        {"{\"event\":null}", "Invalid event name: Event name is required"},
    };
    struct v2_frame f;
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        assert_true(v2_frame_parse(slice_str(fine[i]), &f, error));
        assert_true(json_text_is(&f.event, "e"));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(v2_frame_parse(slice_str(bad[i].json), &f, error));
        assert_memory_equal(error, bad[i].text, strlen(bad[i].text));
    }
}

/* ---- subscribe ---- */

static void v2_subscribe_reads_every_form(void **state)
{
    static const struct {
        const char    *json, *auth, *member;
        enum v2_rewind rewind;
        uint64_t       amount;
        bool           annotations;
    } list[] = {
        {"{\"channel\":\"a\"}", NULL, NULL, V2_REWIND_NONE, 0, false},
        {"{\"channel\":\"a\",\"auth\":\"k:s\",\"channel_data\":\"{}\"}", "k:s", "{}",
         V2_REWIND_NONE, 0, false},
        {"\"{\\\"channel\\\":\\\"a\\\",\\\"auth\\\":\\\"k\\\"}\"", "k", NULL, V2_REWIND_NONE, 0,
         false},
        {"{\"channel\":\"a\",\"auth\":5,\"channel_data\":{}}", NULL, NULL, V2_REWIND_NONE, 0,
         false},
        {"{\"channel\":\"a\",\"rewind\":20}", NULL, NULL, V2_REWIND_COUNT, 20, false},
        {"{\"channel\":\"a\",\"rewind\":\"20\"}", NULL, NULL, V2_REWIND_COUNT, 20, false},
        {"{\"channel\":\"a\",\"rewind\":{\"count\":3}}", NULL, NULL, V2_REWIND_COUNT, 3, false},
        {"{\"channel\":\"a\",\"rewind\":{\"seconds\":30}}", NULL, NULL, V2_REWIND_SECONDS, 30,
         false},
        {"{\"channel\":\"a\",\"rewind\":{\"duration_seconds\":9}}", NULL, NULL,
         V2_REWIND_SECONDS, 9, false},
        {"{\"channel\":\"a\",\"rewind\":99999999999999999999}", NULL, NULL, V2_REWIND_COUNT,
         UINT32_MAX, false},
        {"{\"channel\":\"a\",\"modes\":[\"SUBSCRIBE\",1,\"ANNOTATION_SUBSCRIBE\"]}", NULL, NULL,
         V2_REWIND_NONE, 0, true},
        {"{\"channel\":\"a\",\"modes\":[\"SUBSCRIBE\"]}", NULL, NULL, V2_REWIND_NONE, 0, false},
        {"{\"channel\":\"a\",\"delta\":true}", NULL, NULL, V2_REWIND_NONE, 0, false},
        {"{\"channel\":\"a\",\"delta\":{\"enabled\":true}}", NULL, NULL, V2_REWIND_NONE, 0,
         false},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct json_value data = value_of(list[i].json);
        struct v2_subscribe s;
        assert_true(v2_subscribe_parse(&data, scratch, &s, error));
        assert_text(&s.channel, "a");
        assert_text(&s.auth, list[i].auth);
        assert_text(&s.channel_data, list[i].member);
        assert_int_equal(s.rewind, list[i].rewind);
        assert_int_equal(s.rewind_amount, list[i].amount);
        assert_int_equal(s.annotations, list[i].annotations);
    }
}

static void v2_subscribe_is_refused_with_the_exact_text(void **state)
{
    static const char rewind[] = "Invalid rewind option in subscription data",
                      filter[] = "filters are not supported by this build";
    static const struct { const char *json, *text; } list[] = {
        {NULL, "Invalid subscription data format"}, {"null", "Invalid subscription data format"},
        {"7", "Missing channel field"}, {"{}", "Missing channel field"},
        {"{\"channel\":7}", "Missing channel field"},
        {"\"room\"", "Failed to parse subscription data"},
        {"\"{}\"", "Missing channel field in string data"},
        {"{\"channel\":\"a\",\"rewind\":0}", rewind},
        {"{\"channel\":\"a\",\"rewind\":null}", rewind},
        {"{\"channel\":\"a\",\"rewind\":\"0\"}", rewind},
        {"{\"channel\":\"a\",\"rewind\":\"ten\"}", rewind},
        {"{\"channel\":\"a\",\"rewind\":-1}", rewind},
        {"{\"channel\":\"a\",\"rewind\":1.5}", rewind},
        {"{\"channel\":\"a\",\"rewind\":{}}", rewind},
        {"{\"channel\":\"a\",\"rewind\":{\"count\":0,\"seconds\":5}}", rewind},
        {"{\"channel\":\"a\",\"modes\":\"SUBSCRIBE\"}", "subscription modes must be an array"},
        {"{\"channel\":\"a\",\"filter\":{\"events\":[\"x\"]}}", filter},
        {"{\"channel\":\"a\",\"tags_filter\":{\"key\":\"x\"}}", filter},
        {"{\"channel\":\"a\",\"filter\":null}", "Invalid tags filter: not an object"},
        {"{\"channel\":\"a\",\"filter\":null,\"tags_filter\":{\"key\":\"x\"}}",
         "Invalid tags filter: not an object"},
        {"{\"channel\":\"a\",\"delta\":1}", "Invalid delta option in subscription data"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct json_value data = value_of(list[i].json);
        struct v2_subscribe s;
        char text[PUSHER_ERROR_TEXT_BYTES];
        assert_false(v2_subscribe_parse(&data, scratch, &s, error));
        snprintf(text, sizeof text, "Invalid message format: %s", list[i].text);
        assert_string_equal(error, text);
    }
}

/* ---- resume ---- */

static void v2_resume_reads_positions_and_the_legacy_form(void **state)
{
    static struct v2_position p[V2_POSITIONS_MAX];
    uint32_t count;
    struct json_value data = value_of(
        "\"{\\\"channel_positions\\\":{\\\"orders\\\":{\\\"stream_id\\\":\\\"f0\\\","
        "\\\"serial\\\":41,\\\"last_message_id\\\":\\\"6c\\\"},\\\"chat\\\":{\\\"serial\\\":"
        "\\\"9007199254740993\\\",\\\"stream_id\\\":null}}}\"");
    assert_true(v2_resume_parse(&data, scratch, p, &count, error));
    assert_int_equal(count, 2);
    assert_text(&p[0].channel, "orders");
    assert_text(&p[0].stream_id, "f0");
    assert_text(&p[0].last_message_id, "6c");
    assert_true(p[0].serial == 41 && !p[0].legacy);
    assert_text(&p[1].channel, "chat");
    assert_text(&p[1].stream_id, NULL);
    assert_true(p[1].serial == 9007199254740993ull);

    data = value_of("{\"channel_serials\":{\"a\":99999999999999999999},"
                    "\"channel_positions\":null}");
    assert_true(v2_resume_parse(&data, scratch, p, &count, error));
    assert_true(count == 1 && p[0].legacy && p[0].serial == INT64_MAX);

    data = value_of("{\"channel_serials\":{\"a\":1},\"channel_positions\":{}}");
    assert_true(v2_resume_parse(&data, scratch, p, &count, error));
    assert_int_equal(count, 0);
}

static void v2_resume_is_refused_with_the_exact_text(void **state)
{
    static const struct { const char *json, *text; } list[] = {
        {NULL, "Missing data in resume message"}, {"null", "Missing data in resume message"},
        {"{}", "Missing channel_positions or channel_serials in resume data"},
        {"[]", "Invalid resume data JSON: "}, {"\"x\"", "Invalid resume data JSON: "},
        {"{\"channel_positions\":[]}", "Invalid resume data JSON: positions are not an object"},
        {"{\"channel_positions\":{\"a\":4}}",
         "Invalid resume data JSON: a position is not an object"},
        {"{\"channel_positions\":{\"a\":{}}}",
         "Invalid resume data JSON: serial is not an unsigned integer"},
        {"{\"channel_positions\":{\"a\":{\"serial\":-1}}}",
         "Invalid resume data JSON: serial is not an unsigned integer"},
        {"{\"channel_positions\":{\"a\":{\"serial\":1,\"stream_id\":4}}}",
         "Invalid resume data JSON: stream_id is not a string"},
        {"{\"channel_positions\":{\"a\":{\"serial\":1,\"last_message_id\":4}}}",
         "Invalid resume data JSON: last_message_id is not a string"},
        {"{\"channel_positions\":{\"ab\":{\"serial\":1},\"\\u0061b\":{\"serial\":2}}}",
         "Invalid resume data JSON: a channel is named twice"},
        {"{\"channel_serials\":{\"a\":{}}}",
         "Invalid resume data JSON: serial is not an unsigned integer"},
    };
    static struct v2_position p[V2_POSITIONS_MAX];
    uint32_t count;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct json_value data = value_of(list[i].json);
        char text[PUSHER_ERROR_TEXT_BYTES];
        assert_false(v2_resume_parse(&data, scratch, p, &count, error));
        snprintf(text, sizeof text, "Invalid message format: %s", list[i].text);
        assert_memory_equal(error, text, strlen(text));
        assert_int_equal(count, 0);
    }
}

static void v2_resume_takes_256_channels_and_no_more(void **state)
{
    static struct v2_position p[V2_POSITIONS_MAX];
    static char text[16384];
    for (uint32_t channels = V2_POSITIONS_MAX; channels <= V2_POSITIONS_MAX + 1; channels++) {
        uint32_t count;
        int at = snprintf(text, sizeof text, "{\"channel_serials\":{");
        for (uint32_t i = 0; i < channels; i++) {
            at += snprintf(text + at, sizeof text - (size_t)at, "%s\"c%u\":%u",
                           i == 0 ? "" : ",", i, i);
        }
        snprintf(text + at, sizeof text - (size_t)at, "}}");
        struct json_value data = value_of(text);
        bool fine = v2_resume_parse(&data, scratch, p, &count, error);
        assert_int_equal(fine, channels == V2_POSITIONS_MAX);
        assert_int_equal(count, V2_POSITIONS_MAX);
        if (fine) assert_true(p[255].serial == 255);
        else assert_string_equal(error, "Invalid message format: Invalid resume data JSON: "
                                        "more than 256 channels");
    }
}

/* ---- channel_history ---- */

static void v2_history_reads_top_level_and_params(void **state)
{
    struct v2_history h;
    struct json_value data = value_of("{\"channel\":\"orders\"}");
    assert_true(v2_history_parse(&data, scratch, &h, error));
    assert_text(&h.channel, "orders");
    assert_text(&h.cursor, NULL);
    assert_true(h.limit == 100 && h.newest_first && !h.until_attach && !h.has_start && !h.has_end &&
                !h.has_time_from && !h.has_time_upto);

    data = value_of(
        "{\"channel\":\"top\",\"limit\":5,\"start\":1,\"params\":{\"channel\":\"inner\","
        "\"limit\":50,\"direction\":\"forwards\",\"cursor\":\"eyJ2\",\"end_serial\":9,"
        "\"start_time_ms\":-5,\"end_time_ms\":1760000000000,\"untilAttach\":true}}");
    assert_true(v2_history_parse(&data, scratch, &h, error));
    assert_text(&h.channel, "top");
    assert_text(&h.cursor, "eyJ2");
    assert_true(h.limit == 50 && !h.newest_first && h.until_attach);
    assert_true(h.has_start && h.start_serial == 1 && h.has_end && h.end_serial == 9);
    assert_true(h.has_time_from && h.time_from_ms == -5);
    assert_true(h.has_time_upto && h.time_upto_ms == 1760000000000);

    data = value_of("\"{\\\"params\\\":{\\\"channel\\\":\\\"inner\\\",\\\"limit\\\":0}}\"");
    assert_true(v2_history_parse(&data, scratch, &h, error));
    assert_text(&h.channel, "inner");
    assert_true(h.limit == 0);
}

static void v2_history_members_of_another_type_count_as_absent(void **state)
{
    struct v2_history h;
    struct json_value data = value_of(
        "{\"channel\":\"c\",\"limit\":\"5\",\"direction\":7,\"cursor\":null,\"start_serial\":-1,"
        "\"end_serial\":1.5,\"start_time_ms\":\"1\",\"end_time_ms\":1e3,\"until_attach\":\"true\","
        "\"params\":[]}");
    assert_true(v2_history_parse(&data, scratch, &h, error));
    assert_text(&h.cursor, NULL);
    assert_true(h.limit == 100 && h.newest_first && !h.until_attach && !h.has_start && !h.has_end &&
                !h.has_time_from && !h.has_time_upto);
    data = value_of("{\"channel\":\"c\",\"limit\":5000,\"direction\":\"reverse\","
                    "\"end\":18446744073709551615,\"end_serial\":{}}");
    assert_true(v2_history_parse(&data, scratch, &h, error));
    assert_true(h.limit == 1000 && h.newest_first && h.has_end && h.end_serial == INT64_MAX);
}

static void v2_history_is_refused_with_the_exact_text(void **state)
{
    static const struct { const char *json, *text; } list[] = {
        {NULL, "Missing data in channel_history message"},
        {"{}", "Missing channel in channel_history message"},
        {"{\"channel\":5,\"params\":{\"channel\":\"c\"}}",
         "Missing channel in channel_history message"},
        {"7", "Missing channel in channel_history message"},
        {"\"c\"", "Invalid channel_history data JSON: expected a value"},
        {"{\"channel\":\"c\",\"direction\":\"sideways\"}",
         "Unsupported history direction: sideways"},
    };
    struct v2_history h;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct json_value data = value_of(list[i].json);
        char text[PUSHER_ERROR_TEXT_BYTES];
        assert_false(v2_history_parse(&data, scratch, &h, error));
        snprintf(text, sizeof text, "Invalid message format: %s", list[i].text);
        assert_string_equal(error, text);
    }
}

/* ---- presence_update ---- */

static void v2_presence_update_takes_every_form(void **state)
{
    static const char *const frames[] = {
        "{\"event\":\"x\",\"data\":{\"channel\":\"presence-a\",\"data\":{\"n\":1}}}",
        "{\"event\":\"x\",\"data\":\"{\\\"channel\\\":\\\"presence-a\\\",\\\"data\\\":"
        "{\\\"n\\\":1}}\"}",
        "{\"event\":\"x\",\"channel\":\"presence-z\",\"data\":{\"channel\":\"presence-a\","
        "\"data\":{\"n\":1}}}",
        "{\"event\":\"x\",\"channel\":\"presence-a\",\"data\":{\"user_info\":{\"n\":1}}}",
        "{\"event\":\"x\",\"channel\":\"presence-a\",\"data\":{\"n\":1}}",
        "{\"event\":\"x\",\"channel\":\"presence-a\",\"data\":\"{\\\"n\\\":1}\"}",
        "{\"event\":\"x\",\"channel\":\"presence-a\",\"data\":\"{\\\"user_info\\\":"
        "{\\\"n\\\":1}}\"}",
    };
    struct v2_frame f;
    struct v2_presence_update u;
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        assert_true(v2_frame_parse(slice_str(frames[i]), &f, error));
        assert_true(v2_presence_update_parse(&f, scratch, &u, error));
        assert_text(&u.channel, "presence-a");
        assert_true(slice_is(u.data.raw, "{\"n\":1}"));
    }
    static const struct { const char *frame, *info; } kept[] = {
        {"{\"event\":\"x\",\"channel\":\"presence-a\",\"data\":\"busy\"}", "\"busy\""},
        {"{\"event\":\"x\",\"channel\":\"presence-a\",\"data\":7}", "7"},
        {"{\"event\":\"x\",\"channel\":\"presence-a\",\"data\":{\"user_info\":1,\"n\":2}}",
         "{\"user_info\":1,\"n\":2}"},
        {"{\"event\":\"x\",\"channel\":\"presence-a\",\"data\":{}}", "{}"},
    };
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        assert_true(v2_frame_parse(slice_str(kept[i].frame), &f, error));
        assert_true(v2_presence_update_parse(&f, scratch, &u, error));
        assert_text(&u.channel, "presence-a");
        assert_true(slice_is(u.data.raw, kept[i].info));
    }
}

static void v2_presence_update_is_refused_with_the_exact_text(void **state)
{
    static const struct { const char *frame, *text; } list[] = {
        {"{\"event\":\"x\",\"channel\":\"presence-a\"}", "presence_update data is required"},
        {"{\"event\":\"x\",\"data\":{\"data\":1}}", "presence_update channel is required"},
        {"{\"event\":\"x\",\"data\":{\"channel\":\"\",\"data\":1}}",
         "presence_update channel is required"},
        {"{\"event\":\"x\",\"data\":{\"channel\":\"presence-a\"}}",
         "presence_update data field is required"},
        {"{\"event\":\"x\",\"data\":[]}", "presence_update data must be a JSON object"},
        {"{\"event\":\"x\",\"data\":\"busy\"}", "presence_update data must be a JSON object"},
    };
    struct v2_frame f;
    struct v2_presence_update u;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        assert_true(v2_frame_parse(slice_str(list[i].frame), &f, error));
        assert_false(v2_presence_update_parse(&f, scratch, &u, error));
        assert_string_equal(error, list[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v2_query_takes_what_the_page_lists),
        cmocka_unit_test(v2_event_names_take_any_protocol_prefix),
        cmocka_unit_test(v2_known_fields_are_strict_and_others_ignored),
        cmocka_unit_test(v2_subscribe_reads_every_form),
        cmocka_unit_test(v2_subscribe_is_refused_with_the_exact_text),
        cmocka_unit_test(v2_resume_reads_positions_and_the_legacy_form),
        cmocka_unit_test(v2_resume_is_refused_with_the_exact_text),
        cmocka_unit_test(v2_resume_takes_256_channels_and_no_more),
        cmocka_unit_test(v2_history_reads_top_level_and_params),
        cmocka_unit_test(v2_history_members_of_another_type_count_as_absent),
        cmocka_unit_test(v2_history_is_refused_with_the_exact_text),
        cmocka_unit_test(v2_presence_update_takes_every_form),
        cmocka_unit_test(v2_presence_update_is_refused_with_the_exact_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
