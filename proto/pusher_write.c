/* What the server says: the frame-writing half of pusher.h. A frame is its WebSocket header and its
 * JSON; the JSON's length is computed before the first byte is written, so nothing is moved.
 */
#include "proto/pusher.h"

#include "proto/put.h"

static const uint64_t socket_part_max = 10000000000;

/* ---- events ---- */

static const char event_key[] = "{\"event\":", channel_key[] = ",\"channel\":",
                  data_key[] = ",\"data\":", user_key[] = ",\"user_id\":";

static uint32_t event_payload_bytes(const struct pusher_out *o, bool has_data, uint32_t data_bytes)
{
    uint32_t bytes = PUT_BYTES(event_key) + put_event_bytes(o->event_json, PUT_PUSHER) + 1;
    if (o->channel.ptr != NULL) bytes += PUT_BYTES(channel_key) + json_quote_bytes(o->channel);
    if (has_data) bytes += PUT_BYTES(data_key) + data_bytes;
    if (o->user_id_json.ptr != NULL) bytes += PUT_BYTES(user_key) + o->user_id_json.bytes;
    return bytes;
}

/* Everything in front of the value of data. */
static uint8_t *event_begin(const struct pusher_out *o, bool has_data, uint8_t *at)
{
    at = put_event(PUT(at, event_key), o->event_json, PUT_PUSHER);
    if (o->channel.ptr != NULL) {
        at = PUT(at, channel_key);
        at += json_quote(o->channel, at);
    }
    return has_data ? PUT(at, data_key) : at;
}

static uint32_t event_end(const struct pusher_out *o, uint8_t *at, const uint8_t *out)
{
    if (o->user_id_json.ptr != NULL) {
        at = PUT(at, user_key);
        at = put_slice(at, o->user_id_json);
    }
    *at++ = '}';
    return (uint32_t)(at - out);
}

uint32_t pusher_event_bytes(const struct pusher_out *o)
{
    uint32_t payload = event_payload_bytes(o, o->data_json.ptr != NULL, o->data_json.bytes);
    return ws_header_bytes(payload) + payload;
}

uint32_t pusher_event_write(const struct pusher_out *o, uint8_t *out)
{
    bool has_data = o->data_json.ptr != NULL;
    uint32_t payload = event_payload_bytes(o, has_data, o->data_json.bytes);
    uint8_t *start = put_header(out, payload);
    uint8_t *at = event_begin(o, has_data, start);
    at = put_slice(at, o->data_json);
    uint32_t bytes = event_end(o, at, out);
    ASSERT(bytes == (uint32_t)(start - out) + payload);
    return bytes;
}

uint32_t pusher_event_text_bytes(const struct pusher_out *o, struct slice data_text)
{
    uint32_t payload = event_payload_bytes(o, true, json_quote_bytes(data_text));
    return ws_header_bytes(payload) + payload;
}

uint32_t pusher_event_text_write(const struct pusher_out *o, struct slice data_text, uint8_t *out)
{
    uint32_t payload = event_payload_bytes(o, true, json_quote_bytes(data_text));
    uint8_t *start = put_header(out, payload);
    uint8_t *at = event_begin(o, true, start);
    at += json_quote(data_text, at);
    uint32_t bytes = event_end(o, at, out);
    ASSERT(bytes == (uint32_t)(start - out) + payload);
    return bytes;
}

struct slice pusher_payload(struct slice frame)
{
    ASSERT(frame.bytes >= 2);
    uint8_t length = frame.ptr[1] & 0x7f;
    return slice_skip(frame, length < 126 ? 2 : length == 126 ? 4 : 10);
}

/* ---- small frames ---- */

uint32_t pusher_socket_id_write(char out[PUSHER_SOCKET_ID_BYTES], uint64_t a, uint64_t b)
{
    ASSERT(a <= socket_part_max && b <= socket_part_max);
    uint8_t *at = put_u64((uint8_t *)out, a);
    *at++ = '.';
    at = put_u64(at, b);
    *at = 0;
    return (uint32_t)(at - (uint8_t *)out);
}

uint32_t pusher_established_write(uint8_t *out, uint64_t socket_a, uint64_t socket_b,
                                  uint32_t activity_timeout_s)
{
    static const char head[] = "{\"event\":\"pusher:connection_established\",\"data\":"
                               "\"{\\\"socket_id\\\":\\\"";
    static const char middle[] = "\\\",\\\"activity_timeout\\\":";
    static const char tail[] = "}\"}";
    char id[PUSHER_SOCKET_ID_BYTES];
    uint32_t id_bytes = pusher_socket_id_write(id, socket_a, socket_b);
    uint8_t *at = put_header(out, PUT_BYTES(head) + id_bytes + PUT_BYTES(middle) +
                                      put_u64_bytes(activity_timeout_s) + PUT_BYTES(tail));
    at = PUT(at, head);
    at = put_bytes(at, id, id_bytes);
    at = PUT(at, middle);
    at = put_u64(at, activity_timeout_s);
    at = PUT(at, tail);
    return (uint32_t)(at - out);
}

uint32_t pusher_error_write(uint8_t *out, uint32_t code, const char *message)
{
    static const char head[] = "{\"event\":\"pusher:error\",\"data\":{\"code\":";
    static const char middle[] = ",\"message\":";
    static const char tail[] = "}}";
    uint32_t fixed = PUT_BYTES(head) + put_u64_bytes(code) + PUT_BYTES(middle) +
                     PUT_BYTES(tail);
    uint32_t room = PUSHER_SMALL_FRAME_BYTES - WS_SERVER_HEADER_BYTES_MAX - fixed;
    struct slice text = put_cut(slice_str(message), room);
    uint8_t *at = put_header(out, fixed + json_quote_bytes(text));
    at = PUT(at, head);
    at = put_u64(at, code);
    at = PUT(at, middle);
    at += json_quote(text, at);
    at = PUT(at, tail);
    ASSERT(at - out <= PUSHER_SMALL_FRAME_BYTES);
    return (uint32_t)(at - out);
}

uint32_t pusher_ping_write(uint8_t *out)
{
    static const char payload[] = "{\"event\":\"pusher:ping\"}";
    return (uint32_t)(PUT(put_header(out, PUT_BYTES(payload)), payload) - out);
}

uint32_t pusher_pong_write(uint8_t *out)
{
    static const char payload[] = "{\"event\":\"pusher:pong\"}";
    return (uint32_t)(PUT(put_header(out, PUT_BYTES(payload)), payload) - out);
}

/* One part of a socket id: 1-11 digits, at most 10000000000. */
static bool id_part(struct slice text, uint64_t *out)
{
    uint64_t value = 0;
    if (text.bytes == 0 || text.bytes > 11) return false;
    for (uint32_t i = 0; i < text.bytes; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') return false;
        value = value * 10 + (text.ptr[i] - '0');
    }
    *out = value;
    return value <= socket_part_max;
}

bool pusher_socket_id_parse(struct slice text, uint64_t *a, uint64_t *b)
{
    const uint8_t *dot = text.bytes > 0 ? memchr(text.ptr, '.', text.bytes) : NULL;
    if (dot == NULL) return false;
    uint32_t before = (uint32_t)(dot - text.ptr);
    return id_part(slice_of(text.ptr, before), a) && id_part(slice_skip(text, before + 1), b);
}
