/* fuzz_pusher.c - client frames and channel names of any bytes, and the frames made from them.
 *
 * Properties: a refusal has a text that is UTF-8 and ends; what is written is one WebSocket frame
 * within the promised size whose payload is valid JSON and gives back what went in; a socket id
 * that parses is written as its numbers. The input is taken as a frame, as each kind of data, as
 * a channel name and as a socket id.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "proto/pusher.h"
#include "proto/utf8.h"
#include "proto/ws.h"

static uint8_t *block(size_t bytes)
{
    uint8_t *ptr = malloc(bytes == 0 ? 1 : bytes);
    ASSERT(ptr != NULL);
    return ptr;
}

/* The payload of one whole text frame, with its fields. */
static void check_frame(const uint8_t *frame, uint32_t bytes, struct json_value out[4])
{
    static const char *const names[4] = {"event", "channel", "data", "user_id"};
    struct json_field fields[4];
    struct json_error wrong;
    uint8_t header[WS_SERVER_HEADER_BYTES_MAX];
    struct slice payload = pusher_payload(slice_of(frame, bytes));
    uint32_t header_bytes = ws_header_write(header, WS_TEXT, payload.bytes);
    ASSERT(bytes == header_bytes + payload.bytes && memcmp(frame, header, header_bytes) == 0);
    for (uint32_t i = 0; i < 4; i++) fields[i] = (struct json_field){names[i], &out[i]};
    ASSERT(json_object(payload, fields, 4, &wrong));
}

/* A refusal's text, and the error frame that carries it. */
static void check_refusal(const char *text)
{
    size_t bytes = strnlen(text, PUSHER_ERROR_TEXT_BYTES);
    ASSERT(bytes > 0 && bytes < PUSHER_ERROR_TEXT_BYTES);
    ASSERT(utf8_valid(slice_str(text)));
    uint8_t frame[PUSHER_SMALL_FRAME_BYTES];
    struct json_value fields[4], message;
    struct json_field field = {"message", &message};
    struct json_error wrong;
    check_frame(frame, pusher_error_write(frame, PUSHER_GENERIC, text), fields);
    ASSERT(json_text_is(&fields[0], "pusher:error") && fields[1].type == JSON_ABSENT);
    ASSERT(json_object(fields[2].raw, &field, 1, &wrong) && message.type == JSON_STRING);
    char *kept = (char *)block(message.text_bytes + 1);
    json_decode(&message, (uint8_t *)kept);
    kept[message.text_bytes] = 0;
    ASSERT(strncmp(kept, text, message.text_bytes) == 0);
    free(kept);
}

static void check_name(struct slice name, uint32_t bytes_max)
{
    struct pusher_channel c;
    char error[PUSHER_ERROR_TEXT_BYTES];
    memset(error, 'x', sizeof error);
    if (!pusher_channel_parse(name, bytes_max, NULL, &c, error)) {
        check_refusal(error);
        return;
    }
    ASSERT(name.bytes > 0 && utf8_valid(name));
    ASSERT(pusher_type_label(&c) < PUSHER_TYPE_LABELS);
    if (c.kind == PUSHER_USER) {
        ASSERT(!c.cache && c.user_id.bytes > 0 && c.user_id.bytes <= 128);
        ASSERT(c.user_id.ptr + c.user_id.bytes == name.ptr + name.bytes);
    } else {
        ASSERT(c.user_id.ptr == NULL && (bytes_max == 0 || name.bytes <= bytes_max));
        ASSERT(slice_starts(name, "p") || c.kind == PUSHER_PUBLIC);
    }
}

/* The same name where namespaces are configured: whatever was right without a colon still is. */
static void check_named(struct slice name, uint32_t bytes_max)
{
    static struct conf_namespace list[] = {
        {.name = "a", .max_channel_name_length = 40},
        {.name = "b", .allow_user_limited_channels = true},
    };
    static const struct conf_names names = {list, 2};
    struct pusher_channel c, plain;
    char error[PUSHER_ERROR_TEXT_BYTES];
    bool before = pusher_channel_parse(name, bytes_max, NULL, &plain, error);
    memset(error, 'x', sizeof error);
    if (!pusher_channel_parse(name, bytes_max, &names, &c, error)) {
        ASSERT(!before);
        check_refusal(error);
        return;
    }
    ASSERT(!before || (c.ns == NULL && c.users.ptr == NULL && c.kind == plain.kind));
    ASSERT(c.ns != &list[0] || name.bytes <= 40);
    ASSERT(c.users.ptr == NULL || (c.ns == &list[1] && c.users.bytes > 0));
    ASSERT(pusher_channel_admits(&c, slice_of("\x01", 1)) == (c.users.ptr == NULL));
}

/* The name as given, or with V1's word in place of V2's. */
static void check_word(struct slice said, struct slice given)
{
    ASSERT(!slice_starts(said, "\"sockudo:") && !slice_starts(said, "\"sockudo_internal:"));
    if (slice_equal(said, given)) return;
    ASSERT(slice_starts(said, "\"pusher") && slice_starts(given, "\"sockudo"));
    ASSERT(slice_equal(slice_skip(said, 7), slice_skip(given, 8)));
}

/* Relay the pieces of a client frame as the server would. */
static void check_relay(const struct pusher_frame *f)
{
    uint8_t *channel = block(f->channel.text_bytes), *data = block(f->data.raw.bytes);
    struct pusher_out o = {f->event.raw, {NULL, 0}, {NULL, 0}, slice_str("\"u1\"")};
    struct json_value got[4];
    if (f->channel.type == JSON_STRING) {
        json_decode(&f->channel, channel);
        o.channel = slice_of(channel, f->channel.text_bytes);
        check_name(o.channel, 200);
    }
    if (f->data.type != JSON_ABSENT) o.data_json = slice_of(data, json_compact(&f->data, data));
    uint32_t bytes = pusher_event_bytes(&o);
    uint8_t *frame = block(bytes);
    check_frame(frame, pusher_event_write(&o, frame), got);
    check_word(got[0].raw, f->event.raw);
    ASSERT(got[1].type == f->channel.type && got[1].text_bytes == f->channel.text_bytes);
    ASSERT(slice_equal(got[2].raw, o.data_json) && json_text_is(&got[3], "u1"));
    free(frame);

    bytes = pusher_event_text_bytes(&o, o.data_json);
    frame = block(bytes);
    check_frame(frame, pusher_event_text_write(&o, o.data_json, frame), got);
    ASSERT(got[2].type == JSON_STRING && got[2].text_bytes == o.data_json.bytes);
    free(frame);
    free(channel);
    free(data);
}

static void check_data(const struct json_value *data)
{
    struct pusher_subscribe s;
    struct json_value channel;
    char error[PUSHER_ERROR_TEXT_BYTES];
    uint8_t *scratch = block(data->text_bytes);
    if (!pusher_subscribe_parse(data, scratch, &s, error)) check_refusal(error);
    else ASSERT(s.channel.type == JSON_STRING);
    if (!pusher_unsubscribe_parse(data, &channel, error)) check_refusal(error);
    else ASSERT(channel.type == JSON_STRING);
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes_in, size_t bytes)
{
    struct slice in = slice_of(bytes_in, (uint32_t)bytes);
    struct pusher_frame f;
    struct pusher_member m;
    struct pusher_user u;
    char error[PUSHER_ERROR_TEXT_BYTES], id[PUSHER_SOCKET_ID_BYTES];
    uint32_t code;
    uint64_t a, b, a2, b2;
    if (pusher_frame_parse(in, &f, error)) {
        ASSERT(f.event.type == JSON_STRING);
        check_relay(&f);
        check_data(&f.data);
    } else {
        check_refusal(error);
    }
    if (!pusher_member_parse(in, &m, &code, error)) {
        ASSERT(code == PUSHER_GENERIC || code == PUSHER_CHANNEL);
        check_refusal(error);
    }
    if (!pusher_user_parse(in, &u, error)) check_refusal(error);
    else ASSERT(u.id.type == JSON_STRING && u.id.text_bytes > 0);
    check_name(in, 200);
    check_name(in, 0);
    check_named(in, 200);
    if (pusher_socket_id_parse(in, &a, &b)) {
        uint32_t id_bytes = pusher_socket_id_write(id, a, b);
        ASSERT(pusher_socket_id_parse(slice_of(id, id_bytes), &a2, &b2) && a == a2 && b == b2);
    }
    return 0;
}
