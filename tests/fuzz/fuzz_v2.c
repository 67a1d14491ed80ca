/* fuzz_v2.c - V2 client frames, data, extras, serials and query parameters of any bytes, and the
 * frames made from them.
 *
 * Properties: a refusal has a text that is UTF-8 and ends; what is parsed is within its documented
 * bounds; canonical extras parse to themselves, and still do after the server has put its own
 * headers into them; what is written is one WebSocket frame of exactly the promised size whose
 * payload is valid JSON and gives back what went in; a serial that parses is written as it was.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "proto/utf8.h"
#include "proto/v2.h"
#include "proto/ws.h"

static const char store[] = "s1";

static uint8_t *block(size_t bytes)
{
    uint8_t *ptr = malloc(bytes == 0 ? 1 : bytes);
    ASSERT(ptr != NULL);
    return ptr;
}

enum { EVENT, CHANNEL, DATA, USER, ID, STREAM, SERIAL, EXTRAS, FIELDS };

/* The payload of one whole text frame, with its fields. */
static void read_frame(const uint8_t *frame, uint32_t bytes, struct json_value out[FIELDS])
{
    static const char *const names[FIELDS] = {
        "event", "channel", "data", "user_id", "message_id", "stream_id", "serial", "extras",
    };
    struct json_field fields[FIELDS];
    struct json_error wrong;
    uint8_t header[WS_SERVER_HEADER_BYTES_MAX];
    struct slice payload = pusher_payload(slice_of(frame, bytes));
    uint32_t header_bytes = ws_header_write(header, WS_TEXT, payload.bytes);
    ASSERT(bytes == header_bytes + payload.bytes && memcmp(frame, header, header_bytes) == 0);
    for (uint32_t i = 0; i < FIELDS; i++) fields[i] = (struct json_field){names[i], &out[i]};
    ASSERT(json_object(payload, fields, FIELDS, &wrong));
}

/* A refusal's text, and the error frame that carries it. */
static void check_refusal(const char *text)
{
    static const char id[] = "01234567-89ab-4def-9122-334455667788";
    size_t bytes = strnlen(text, PUSHER_ERROR_TEXT_BYTES);
    ASSERT(bytes > 0 && bytes < PUSHER_ERROR_TEXT_BYTES);
    ASSERT(utf8_valid(slice_str(text)));
    uint8_t frame[PUSHER_SMALL_FRAME_BYTES];
    struct json_value fields[FIELDS];
    read_frame(frame, v2_error_write(frame, PUSHER_GENERIC, text, id), fields);
    ASSERT(json_text_is(&fields[EVENT], "sockudo:error") && json_text_is(&fields[ID], id));
}

static bool text_or_absent(const struct json_value *v)
{
    return v->type == JSON_STRING || v->type == JSON_ABSENT;
}

/* ---- what clients say ---- */

static void check_subscribe(const struct json_value *data, uint8_t *scratch)
{
    struct v2_subscribe s;
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (!v2_subscribe_parse(data, scratch, &s, error)) {
        check_refusal(error);
        return;
    }
    ASSERT(s.channel.type == JSON_STRING);
    ASSERT(text_or_absent(&s.auth) && text_or_absent(&s.channel_data));
    ASSERT((s.rewind == V2_REWIND_NONE) == (s.rewind_amount == 0));
    ASSERT(s.rewind_amount <= UINT32_MAX);
}

static void check_resume(const struct json_value *data, uint8_t *scratch)
{
    static struct v2_position p[V2_POSITIONS_MAX];
    char error[PUSHER_ERROR_TEXT_BYTES];
    uint32_t count;
    if (!v2_resume_parse(data, scratch, p, &count, error)) {
        ASSERT(count == 0 || count == V2_POSITIONS_MAX);
        check_refusal(error);
        return;
    }
    ASSERT(count <= V2_POSITIONS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        ASSERT(p[i].channel.type == JSON_STRING && p[i].serial <= INT64_MAX);
        ASSERT(text_or_absent(&p[i].stream_id) && text_or_absent(&p[i].last_message_id));
        ASSERT(p[i].legacy == p[0].legacy);
        for (uint32_t j = 0; j < i; j++) ASSERT(!slice_equal(p[i].channel.raw, p[j].channel.raw));
    }
}

static void check_history(const struct json_value *data, uint8_t *scratch)
{
    struct v2_history h;
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (!v2_history_parse(data, scratch, &h, error)) {
        check_refusal(error);
        return;
    }
    ASSERT(h.channel.type == JSON_STRING && text_or_absent(&h.cursor) && h.limit <= 1000);
    ASSERT(h.start_serial <= INT64_MAX && h.end_serial <= INT64_MAX);
}

static void check_presence(const struct v2_frame *f, uint8_t *scratch)
{
    struct v2_presence_update u;
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (!v2_presence_update_parse(f, scratch, &u, error)) {
        check_refusal(error);
        return;
    }
    ASSERT(u.channel.type == JSON_STRING && u.channel.text_bytes > 0);
    ASSERT(u.data.type != JSON_ABSENT);
}

/* ---- extras ---- */

/* `text` is extras that parse to `canonical` (ptr NULL: to nothing). */
static void check_canonical(struct slice text, struct slice canonical)
{
    struct json_value value;
    struct json_error wrong;
    struct v2_extras e;
    char error[PUSHER_ERROR_TEXT_BYTES];
    ASSERT(json_parse(text, &value, &wrong));
    uint8_t *out = block(value.text_bytes);
    ASSERT(v2_extras_parse(&value, out, &e, error));
    ASSERT((e.canonical.ptr == NULL) == (canonical.ptr == NULL));
    ASSERT(slice_equal(e.canonical, canonical));
    free(out);
}

static const struct v2_version version = {
    V2_APPEND, "00000000000000000001:s1:00000000000000000001",
    "00000000000000000002:s1:00000000000000000002", UINT64_MAX, 1,
};

/* Canonical extras of `value` into out; false when it is refused. */
static bool check_extras(const struct json_value *value, uint8_t *out, struct v2_extras *e)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (!v2_extras_parse(value, out, e, error)) {
        check_refusal(error);
        return false;
    }
    ASSERT(text_or_absent(&e->idempotency_key) && (e->has_echo || !e->echo));
    if (e->canonical.ptr != NULL) check_canonical(e->canonical, e->canonical);
    uint32_t bytes = v2_extras_bytes(e->canonical, &version);
    uint8_t *with = block(bytes);
    ASSERT(v2_extras_write(e->canonical, &version, with) == bytes);
    check_canonical(slice_of(with, bytes), e->canonical);
    free(with);
    return true;
}

/* ---- what the server says ---- */

/* Relay the pieces of a client frame as the server would. */
static void check_relay(const struct v2_frame *f, struct slice extras)
{
    uint8_t *channel = block(f->channel.text_bytes), *data = block(f->data.raw.bytes);
    struct v2_out o = {
        .event_json = f->event.raw, .user_id = slice_str("u\"1"), .message_id = slice_str("m1"),
        .stream_id = slice_str("s1"), .serial = 7, .extras = extras, .version = &version,
    };
    struct json_value got[FIELDS];
    if (f->channel.type == JSON_STRING) {
        json_decode(&f->channel, channel);
        o.channel = slice_of(channel, f->channel.text_bytes);
    }
    if (f->data.type != JSON_ABSENT) o.data_json = slice_of(data, json_compact(&f->data, data));
    uint32_t bytes = v2_event_bytes(&o);
    uint8_t *frame = block(bytes);
    ASSERT(v2_event_write(&o, frame) == bytes);
    read_frame(frame, bytes, got);
    struct json_value *event = &got[EVENT];
    bool renamed = event->raw.bytes == f->event.raw.bytes + 1;
    ASSERT(renamed ? json_text_starts(event, "sockudo") : slice_equal(event->raw, f->event.raw));
    ASSERT(got[CHANNEL].type == f->channel.type);
    ASSERT(got[CHANNEL].text_bytes == f->channel.text_bytes);
    ASSERT(slice_equal(got[DATA].raw, o.data_json) && json_text_is(&got[USER], "u\"1"));
    ASSERT(json_text_is(&got[STREAM], "s1") && slice_is(got[SERIAL].raw, "7"));
    check_canonical(got[EXTRAS].raw, extras);
    free(frame);

    o.version = NULL;
    bytes = v2_event_text_bytes(&o, o.data_json);
    frame = block(bytes);
    ASSERT(v2_event_text_write(&o, o.data_json, frame) == bytes);
    read_frame(frame, bytes, got);
    ASSERT(got[DATA].type == JSON_STRING && got[DATA].text_bytes == o.data_json.bytes);
    ASSERT(slice_equal(got[EXTRAS].raw, extras));
    free(frame);
    free(channel);
    free(data);
}

/* ---- the input as each of them ---- */

static void check_frame(struct slice in)
{
    struct v2_frame f;
    struct json_value extras = {0};
    const struct json_field fields[] = {{"extras", &extras}};
    struct json_error wrong;
    struct v2_extras e = {0};
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (!v2_frame_parse(in, &f, error)) {
        check_refusal(error);
        return;
    }
    ASSERT(f.event.type == JSON_STRING && text_or_absent(&f.channel));
    uint8_t *scratch = block(f.data.text_bytes);
    check_subscribe(&f.data, scratch);
    check_resume(&f.data, scratch);
    check_history(&f.data, scratch);
    check_presence(&f, scratch);
    free(scratch);
    ASSERT(json_object(in, fields, 1, &wrong));
    uint8_t *out = block(extras.text_bytes);
    if (extras.type == JSON_OBJECT) ASSERT(check_extras(&extras, out, &e));
    check_relay(&f, e.canonical);
    free(out);
}

static void check_data(struct slice in)
{
    struct json_value value;
    struct json_error wrong;
    struct v2_extras e;
    if (!json_parse(in, &value, &wrong)) return;
    uint8_t *scratch = block(value.text_bytes);
    check_subscribe(&value, scratch);
    check_resume(&value, scratch);
    check_history(&value, scratch);
    check_extras(&value, scratch, &e);
    free(scratch);
}

static void check_serial(struct slice in)
{
    char text[V2_SERIAL_BYTES], error[PUSHER_ERROR_TEXT_BYTES];
    uint64_t ms, serial;
    bool fine = v2_serial_check(in, "message_serial", error);
    if (!fine) check_refusal(error);
    if (!v2_serial_parse(in, store, &ms, &serial)) return;
    ASSERT(fine);
    uint32_t bytes = v2_serial_write(text, ms, store, serial);
    ASSERT(slice_equal(slice_of(text, bytes), in));
}

static void check_query(struct slice in)
{
    struct v2_query q = {.echo = true};
    const char *error = NULL;
    const uint8_t *equals = in.bytes > 0 ? memchr(in.ptr, '=', in.bytes) : NULL;
    if (equals == NULL) return;
    uint32_t upto = (uint32_t)(equals - in.ptr);
    bool fine = v2_query_take(&q, slice_of(in.ptr, upto), slice_skip(in, upto + 1), &error);
    ASSERT(fine == (error == NULL));
    ASSERT(q.has_echo || q.echo);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes_in, size_t bytes)
{
    struct slice in = slice_of(bytes_in, (uint32_t)bytes);
    check_frame(in);
    check_data(in);
    check_serial(in);
    check_query(in);
    return 0;
}
