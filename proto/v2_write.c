/* What the server says in V2: the frame-writing half of v2.h. Lengths come first, then every
 * byte is written once and in place.
 */
#include "proto/v2.h"

#include "proto/put.h"

const char *const v2_action_words[] = {
    [V2_NO_ACTION] = "", [V2_CREATE] = "create", [V2_UPDATE] = "update", [V2_DELETE] = "delete",
    [V2_APPEND] = "append",
};

/* ---- extras ---- */

static const char headers_open[] = "{\"headers\":{";
static const char action_key[] = "\"sockudo_action\":\"message.";
static const char message_key[] = "\",\"sockudo_message_serial\":\"";
static const char version_key[] = "\",\"sockudo_version_serial\":\"";
static const char time_key[] = "\",\"sockudo_version_timestamp_ms\":";
static const char history_key[] = ",\"sockudo_history_serial\":";

static uint32_t version_bytes(const struct v2_version *v)
{
    return PUT_BYTES(action_key) + (uint32_t)strlen(v2_action_words[v->action]) +
           PUT_BYTES(message_key) + (uint32_t)strlen(v->message_serial) +
           PUT_BYTES(version_key) + (uint32_t)strlen(v->version_serial) +
           PUT_BYTES(time_key) + put_u64_bytes(v->time_ms) +
           PUT_BYTES(history_key) + put_u64_bytes(v->history_serial);
}

static uint8_t *version_put(uint8_t *at, const struct v2_version *v)
{
    ASSERT(v->action != V2_NO_ACTION);
    at = PUT(at, action_key);
    at = put_slice(at, slice_str(v2_action_words[v->action]));
    at = PUT(at, message_key);
    at = put_slice(at, slice_str(v->message_serial));
    at = PUT(at, version_key);
    at = put_slice(at, slice_str(v->version_serial));
    at = PUT(at, time_key);
    at = put_u64(at, v->time_ms);
    at = PUT(at, history_key);
    return put_u64(at, v->history_serial);
}

/* The offset of the brace that ends the headers of canonical extras. Their values are scalars, so
 * it is the first one outside a string. */
static uint32_t headers_end(struct slice extras)
{
    const uint8_t *p = extras.ptr + PUT_BYTES(headers_open), *end = extras.ptr + extras.bytes;
    for (bool inside = false; ; p++) {
        ASSERT(p < end);
        if (inside && *p == '\\') p++;
        else if (*p == '"') inside = !inside;
        else if (*p == '}' && !inside) return (uint32_t)(p - extras.ptr);
    }
}

uint32_t v2_extras_bytes(struct slice extras, const struct v2_version *v)
{
    if (v == NULL) return extras.bytes;
    uint32_t bytes = version_bytes(v);
    if (extras.ptr == NULL) return PUT_BYTES(headers_open) + bytes + 2;
    ASSERT(extras.bytes > 2 && extras.ptr[0] == '{');        /* canonical: never an empty object */
    if (slice_starts(extras, headers_open)) return extras.bytes + 1 + bytes;
    return PUT_BYTES(headers_open) + bytes + 2 + extras.bytes - 1;
}

uint32_t v2_extras_write(struct slice extras, const struct v2_version *v, uint8_t *out)
{
    uint8_t *at = out;
    if (v == NULL) {
        at = put_slice(at, extras);
    } else if (extras.ptr != NULL && slice_starts(extras, headers_open)) {
        uint32_t upto = headers_end(extras);
        at = put_bytes(at, extras.ptr, upto);
        *at++ = ',';
        at = version_put(at, v);
        at = put_slice(at, slice_skip(extras, upto));
    } else {
        at = PUT(at, headers_open);
        at = version_put(at, v);
        *at++ = '}';
        if (extras.ptr == NULL) {
            *at++ = '}';
        } else {
            *at++ = ',';
            at = put_slice(at, slice_skip(extras, 1));
        }
    }
    return (uint32_t)(at - out);
}

/* ---- events ---- */

static const char event_key[] = "{\"event\":", channel_key[] = ",\"channel\":",
                  data_key[] = ",\"data\":", name_key[] = ",\"name\":",
                  user_key[] = ",\"user_id\":", tags_key[] = ",\"tags\":",
                  id_key[] = ",\"message_id\":", stream_key[] = ",\"stream_id\":",
                  serial_key[] = ",\"serial\":", extras_key[] = ",\"extras\":";

static uint32_t raw_bytes(uint32_t key_bytes, struct slice value)
{
    return value.ptr != NULL ? key_bytes + value.bytes : 0;
}

static uint32_t text_bytes(uint32_t key_bytes, struct slice value)
{
    return value.ptr != NULL ? key_bytes + json_quote_bytes(value) : 0;
}

static uint32_t payload_bytes(const struct v2_out *o, uint32_t data_bytes)
{
    uint32_t bytes = PUT_BYTES(event_key) + put_event_bytes(o->event_json, PUT_SOCKUDO) + 1;
    bytes += text_bytes(PUT_BYTES(channel_key), o->channel) + data_bytes;
    bytes += raw_bytes(PUT_BYTES(name_key), o->name_json);
    bytes += text_bytes(PUT_BYTES(user_key), o->user_id);
    bytes += raw_bytes(PUT_BYTES(tags_key), o->tags_json);
    bytes += text_bytes(PUT_BYTES(id_key), o->message_id);
    if (o->stream_id.ptr != NULL) {
        bytes += text_bytes(PUT_BYTES(stream_key), o->stream_id);
        bytes += PUT_BYTES(serial_key) + put_u64_bytes(o->serial);
    }
    if (o->extras.ptr != NULL || o->version != NULL) {
        bytes += PUT_BYTES(extras_key) + v2_extras_bytes(o->extras, o->version);
    }
    return bytes;
}

static uint8_t *put_raw(uint8_t *at, const char *key, uint32_t key_bytes, struct slice value)
{
    return value.ptr != NULL ? put_slice(put_bytes(at, key, key_bytes), value) : at;
}

static uint8_t *put_text(uint8_t *at, const char *key, uint32_t key_bytes, struct slice value)
{
    if (value.ptr == NULL) return at;
    at = put_bytes(at, key, key_bytes);
    return at + json_quote(value, at);
}

#define PUT_RAW(at, key, value) put_raw((at), (key), PUT_BYTES(key), (value))
#define PUT_TEXT(at, key, value) put_text((at), (key), PUT_BYTES(key), (value))

/* Everything in front of data. */
static uint8_t *event_begin(const struct v2_out *o, uint8_t *at)
{
    at = put_event(PUT(at, event_key), o->event_json, PUT_SOCKUDO);
    return PUT_TEXT(at, channel_key, o->channel);
}

static uint32_t event_end(const struct v2_out *o, uint8_t *at, const uint8_t *out)
{
    at = PUT_RAW(at, name_key, o->name_json);
    at = PUT_TEXT(at, user_key, o->user_id);
    at = PUT_RAW(at, tags_key, o->tags_json);
    at = PUT_TEXT(at, id_key, o->message_id);
    if (o->stream_id.ptr != NULL) {
        at = PUT_TEXT(at, stream_key, o->stream_id);
        at = PUT(at, serial_key);
        at = put_u64(at, o->serial);
    }
    if (o->extras.ptr != NULL || o->version != NULL) {
        at = PUT(at, extras_key);
        at += v2_extras_write(o->extras, o->version, at);
    }
    *at++ = '}';
    return (uint32_t)(at - out);
}

uint32_t v2_event_bytes(const struct v2_out *o)
{
    uint32_t payload = payload_bytes(o, raw_bytes(PUT_BYTES(data_key), o->data_json));
    return ws_header_bytes(payload) + payload;
}

uint32_t v2_event_write(const struct v2_out *o, uint8_t *out)
{
    uint32_t payload = payload_bytes(o, raw_bytes(PUT_BYTES(data_key), o->data_json));
    uint8_t *start = put_header(out, payload);
    uint8_t *at = PUT_RAW(event_begin(o, start), data_key, o->data_json);
    uint32_t bytes = event_end(o, at, out);
    ASSERT(bytes == (uint32_t)(start - out) + payload);
    return bytes;
}

uint32_t v2_event_text_bytes(const struct v2_out *o, struct slice data_text)
{
    uint32_t payload = payload_bytes(o, PUT_BYTES(data_key) + json_quote_bytes(data_text));
    return ws_header_bytes(payload) + payload;
}

uint32_t v2_event_text_write(const struct v2_out *o, struct slice data_text, uint8_t *out)
{
    uint32_t payload = payload_bytes(o, PUT_BYTES(data_key) + json_quote_bytes(data_text));
    uint8_t *start = put_header(out, payload);
    uint8_t *at = PUT(event_begin(o, start), data_key);
    at += json_quote(data_text, at);
    uint32_t bytes = event_end(o, at, out);
    ASSERT(bytes == (uint32_t)(start - out) + payload);
    return bytes;
}

/* ---- small frames ---- */

uint32_t v2_established_write(uint8_t *out, uint64_t socket_a, uint64_t socket_b,
                              uint32_t activity_timeout_s, const char *message_id)
{
    static const char head[] = "{\"event\":\"sockudo:connection_established\",\"data\":"
                               "\"{\\\"socket_id\\\":\\\"";
    static const char middle[] = "\\\",\\\"activity_timeout\\\":";
    static const char tail[] = "}\",\"message_id\":\"", end[] = "\"}";
    char id[PUSHER_SOCKET_ID_BYTES];
    uint32_t id_bytes = pusher_socket_id_write(id, socket_a, socket_b);
    uint8_t *at = put_header(out, PUT_BYTES(head) + id_bytes + PUT_BYTES(middle) +
                                      put_u64_bytes(activity_timeout_s) + PUT_BYTES(tail) +
                                      (uint32_t)strlen(message_id) + PUT_BYTES(end));
    at = PUT(at, head);
    at = put_bytes(at, id, id_bytes);
    at = PUT(at, middle);
    at = put_u64(at, activity_timeout_s);
    at = PUT(at, tail);
    at = put_slice(at, slice_str(message_id));
    at = PUT(at, end);
    ASSERT(at - out <= PUSHER_SMALL_FRAME_BYTES);
    return (uint32_t)(at - out);
}

uint32_t v2_error_write(uint8_t *out, uint32_t code, const char *message, const char *message_id)
{
    static const char head[] = "{\"event\":\"sockudo:error\",\"data\":{\"code\":";
    static const char middle[] = ",\"message\":";
    static const char tail[] = "},\"message_id\":\"", end[] = "\"}";
    uint32_t fixed = PUT_BYTES(head) + put_u64_bytes(code) + PUT_BYTES(middle) + PUT_BYTES(tail) +
                     (uint32_t)strlen(message_id) + PUT_BYTES(end);
    uint32_t room = PUSHER_SMALL_FRAME_BYTES - WS_SERVER_HEADER_BYTES_MAX;
    ASSERT(fixed + 2 <= room);                               /* an id of the server's own making */
    struct slice text = put_cut(slice_str(message), room - fixed);
    uint8_t *at = put_header(out, fixed + json_quote_bytes(text));
    at = PUT(at, head);
    at = put_u64(at, code);
    at = PUT(at, middle);
    at += json_quote(text, at);
    at = PUT(at, tail);
    at = put_slice(at, slice_str(message_id));
    at = PUT(at, end);
    ASSERT(at - out <= PUSHER_SMALL_FRAME_BYTES);
    return (uint32_t)(at - out);
}

uint32_t v2_pong_write(uint8_t *out)
{
    static const char payload[] = "{\"event\":\"sockudo:pong\"}";
    return (uint32_t)(PUT(put_header(out, PUT_BYTES(payload)), payload) - out);
}
