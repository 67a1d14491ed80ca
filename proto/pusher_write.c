/* What the server says: the frame-writing half of pusher.h. A frame is its WebSocket header and its
 * JSON; the JSON's length is computed before the first byte is written, so nothing is moved.
 */
#include "proto/pusher.h"

#include "proto/ws.h"

/* The compiler knows the length of a literal. */
#define PUT(at, literal) put((at), (literal), sizeof(literal) - 1)
#define LITERAL_BYTES(literal) ((uint32_t)sizeof(literal) - 1)

static const uint64_t socket_part_max = 10000000000;

static uint8_t *put(uint8_t *at, const void *from, uint32_t bytes)
{
    memcpy(at, from, bytes);
    return at + bytes;
}

static uint8_t *put_slice(uint8_t *at, struct slice s)
{
    return s.bytes > 0 ? put(at, s.ptr, s.bytes) : at;
}

static uint32_t u64_digits(uint64_t value)
{
    uint32_t digits = 1;
    while (value >= 10) value /= 10, digits++;
    return digits;
}

static uint8_t *put_u64(uint8_t *at, uint64_t value)
{
    uint32_t digits = u64_digits(value);
    for (uint32_t i = digits; i > 0; value /= 10) at[--i] = (uint8_t)('0' + value % 10);
    return at + digits;
}

/* Start a frame of `payload_bytes`; returns where the payload goes. */
static uint8_t *put_header(uint8_t *out, uint32_t payload_bytes)
{
    return out + ws_header_write(out, WS_TEXT, payload_bytes);
}

/* ---- events ---- */

static const char event_key[] = "{\"event\":", channel_key[] = ",\"channel\":",
                  data_key[] = ",\"data\":", user_key[] = ",\"user_id\":";

static uint32_t event_payload_bytes(const struct pusher_out *o, bool has_data, uint32_t data_bytes)
{
    uint32_t bytes = LITERAL_BYTES(event_key) + o->event_json.bytes + 1;
    if (o->channel.ptr != NULL) bytes += LITERAL_BYTES(channel_key) + json_quote_bytes(o->channel);
    if (has_data) bytes += LITERAL_BYTES(data_key) + data_bytes;
    if (o->user_id_json.ptr != NULL) bytes += LITERAL_BYTES(user_key) + o->user_id_json.bytes;
    return bytes;
}

/* Everything in front of the value of data. */
static uint8_t *event_begin(const struct pusher_out *o, bool has_data, uint8_t *at)
{
    at = PUT(at, event_key);
    at = put_slice(at, o->event_json);
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
    uint8_t *at = put_header(out, LITERAL_BYTES(head) + id_bytes + LITERAL_BYTES(middle) +
                                      u64_digits(activity_timeout_s) + LITERAL_BYTES(tail));
    at = PUT(at, head);
    at = put(at, id, id_bytes);
    at = PUT(at, middle);
    at = put_u64(at, activity_timeout_s);
    at = PUT(at, tail);
    return (uint32_t)(at - out);
}

/* Cut `text` at the end of a character so that it is at most `bytes_max` when quoted. */
static struct slice cut(struct slice text, uint32_t bytes_max)
{
    text.bytes = u32_min(text.bytes, bytes_max);   /* what is behind cannot fit: bounds the work */
    while (text.bytes > 0 && json_quote_bytes(text) > bytes_max) text.bytes--;
    return text;
}

/* The same, not inside a character. */
static struct slice cut_character(struct slice text, uint32_t bytes_max)
{
    struct slice kept = cut(text, bytes_max);
    while (kept.bytes > 0 && kept.bytes < text.bytes && (text.ptr[kept.bytes] & 0xc0) == 0x80) {
        kept.bytes--;
    }
    return kept;
}

uint32_t pusher_error_write(uint8_t *out, uint32_t code, const char *message)
{
    static const char head[] = "{\"event\":\"pusher:error\",\"data\":{\"code\":";
    static const char middle[] = ",\"message\":";
    static const char tail[] = "}}";
    uint32_t fixed = LITERAL_BYTES(head) + u64_digits(code) + LITERAL_BYTES(middle) +
                     LITERAL_BYTES(tail);
    uint32_t room = PUSHER_SMALL_FRAME_BYTES - WS_SERVER_HEADER_BYTES_MAX - fixed;
    struct slice text = cut_character(slice_str(message), room);
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
    return (uint32_t)(PUT(put_header(out, LITERAL_BYTES(payload)), payload) - out);
}

uint32_t pusher_pong_write(uint8_t *out)
{
    static const char payload[] = "{\"event\":\"pusher:pong\"}";
    return (uint32_t)(PUT(put_header(out, LITERAL_BYTES(payload)), payload) - out);
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
