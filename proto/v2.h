/* v2.h - Sockudo Protocol V2: what a client frame says, how server frames look.
 *
 * Shape    As pusher.h: reading yields json_values that borrow the input; writing fills a buffer
 *          that the caller sized with the matching _bytes function, WebSocket header included.
 *          Field order of events: event, channel, data, name, user_id, tags, message_id,
 *          stream_id, serial, extras. Absent fields are left out.
 * Threads  Pure.
 * Errors   Texts and codes are those of spec/protocol-v2.md; V1 texts where the page has none.
 * Source   spec/protocol-v2.md; spec/settled.md 30-41; spec/messages-and-history.md 6.
 */
#pragma once
#include "proto/pusher.h"

/* ---- the upgrade's query ---- */
struct v2_query {                  /* fill with defaults first; absent parameters change nothing */
    bool     echo, full;           /* echo_messages; append_mode=full */
    bool     has_echo;
};
/* One parameter of the upgrade, percent-decoded. False: `error` is the text of the 400 (format:
 * only json here). Names that are not V2's own change nothing. */
bool v2_query_take(struct v2_query *q, struct slice name, struct slice value, const char **error);

/* ---- client frames ---- */
enum v2_event {
    V2_EV_UNKNOWN, V2_EV_PING, V2_EV_PONG, V2_EV_SUBSCRIBE, V2_EV_UNSUBSCRIBE, V2_EV_SIGNIN,
    V2_EV_CLIENT, V2_EV_RESUME, V2_EV_HISTORY, V2_EV_PRESENCE_UPDATE,
};
struct v2_frame {
    enum v2_event event_kind;
    struct json_value event, channel, data;      /* channel: absent or a string */
};
/* Strict types of the known envelope fields; unknown fields are ignored (section 0). Data of
 * unsubscribe is read by pusher_unsubscribe_parse. */
bool v2_frame_parse(struct slice text, struct v2_frame *out, char error[PUSHER_ERROR_TEXT_BYTES]);

enum v2_rewind { V2_REWIND_NONE, V2_REWIND_COUNT, V2_REWIND_SECONDS };
struct v2_subscribe {
    struct json_value channel, auth, channel_data;
    enum v2_rewind    rewind;
    uint64_t          rewind_amount;             /* 1..2^32-1, larger ones are cut to that */
    bool              annotations;               /* modes has ANNOTATION_SUBSCRIBE */
};
/* data: an object, or a string holding one (decoded into scratch, data->text_bytes bytes). filter,
 * tags_filter and delta must have their documented shapes' type but are not applied here: a
 * subscribe that asks for a filter is refused with "Invalid message format: filters are not
 * supported by this build" so that nobody gets what he did not want; delta is accepted, ignored. */
bool v2_subscribe_parse(const struct json_value *data, uint8_t *scratch, struct v2_subscribe *out,
                        char error[PUSHER_ERROR_TEXT_BYTES]);

enum { V2_POSITIONS_MAX = 256, V2_STREAM_ID_BYTES = 36 };
struct v2_position {
    struct json_value channel;                   /* a string */
    struct json_value stream_id, last_message_id;/* string, or absent (null counts as absent) */
    uint64_t          serial;                    /* numbers, and strings of digits (section 15.1) */
    bool              legacy;                    /* from channel_serials */
};
/* data: object or string (scratch as above). *count is 0 for an empty map. False with 4000 text and
 * *count 0; more than V2_POSITIONS_MAX is an error (*count is that then), and so is a channel named
 * twice. Numbers here and in v2_history are at most 2^63-1: larger ones are cut to that. */
bool v2_resume_parse(const struct json_value *data, uint8_t *scratch,
                     struct v2_position out[V2_POSITIONS_MAX], uint32_t *count,
                     char error[PUSHER_ERROR_TEXT_BYTES]);

struct v2_history {                              /* channel_history; spec section 8 */
    struct json_value channel, cursor;           /* string; string or absent */
    uint64_t limit;                              /* 100 when absent, at most 1000; 0 as given:
                                                    the caller refuses it in its turn */
    bool     newest_first, until_attach;
    bool     has_start, has_end, has_time_from, has_time_upto;
    uint64_t start_serial, end_serial;
    int64_t  time_from_ms, time_upto_ms;
};
bool v2_history_parse(const struct json_value *data, uint8_t *scratch, struct v2_history *out,
                      char error[PUSHER_ERROR_TEXT_BYTES]);

struct v2_presence_update { struct json_value channel, data; };
/* Every form of Q1 is accepted: data.{channel,data}, envelope channel + data.{user_info} (its only
 * member) or the info itself, string or object. The error is the whole text of the 4000 frame. */
bool v2_presence_update_parse(const struct v2_frame *f, uint8_t *scratch,
                              struct v2_presence_update *out, char error[PUSHER_ERROR_TEXT_BYTES]);

/* ---- extras ---- */
struct v2_extras {
    struct slice canonical;        /* into `out`: compact, "headers" first and not empty, sockudo_*
                                      headers removed, `ephemeral`/`echo` kept, null of known keys
                                      removed; ptr NULL when nothing is left */
    bool ephemeral, has_echo, echo;
    struct json_value idempotency_key;           /* string or absent; in the text that was parsed */
    struct slice status;           /* ai.codec.status, else ai.transport.status: the raw text inside
                                      the quotes; ptr NULL when neither is there */
};
/* Read and normalise a raw extras object. out: value->text_bytes bytes are enough; NULL to check
 * only. False: text for a plain 422 (headers values string, number or bool only; types of known
 * keys). */
bool v2_extras_parse(const struct json_value *value, uint8_t *out, struct v2_extras *e,
                     char error[PUSHER_ERROR_TEXT_BYTES]);

/* ---- server frames ---- */
enum v2_action { V2_NO_ACTION, V2_CREATE, V2_UPDATE, V2_DELETE, V2_APPEND };
extern const char *const v2_action_words[];      /* "create" ... by enum v2_action */

enum { V2_NODE_BYTES = 16 + 1, V2_SERIAL_BYTES = 20 + 1 + 32 + 1 + 20 + 1 };
/* 80 bits of a hash as 16 letters and digits, and a final zero. */
void v2_node_write(char out[V2_NODE_BYTES], uint64_t a, uint64_t b);
/* "{ms:020}:{node}:{serial:020}" and a final zero; returns the length without it. */
uint32_t v2_serial_write(char out[V2_SERIAL_BYTES], uint64_t ms, const char *node,
                         uint64_t delivery);
/* False when the text is not a serial of this node. */
bool v2_serial_parse(struct slice text, const char *node, uint64_t *ms, uint64_t *delivery);
/* Empty, white space, over 128 bytes: false with "{what} must ..." (messages-and-history 1). */
bool v2_serial_check(struct slice text, const char *what, char error[PUSHER_ERROR_TEXT_BYTES]);

struct v2_version {                /* runtime headers of a versioned message */
    enum v2_action action;
    const char    *message_serial, *version_serial;   /* nothing in them needs an escape */
    uint64_t       time_ms, history_serial;      /* written as plain integers */
};
struct v2_out {
    struct slice event_json;       /* raw JSON string; the prefixes pusher: and pusher_internal: are
                                      written as sockudo: and sockudo_internal: */
    struct slice channel;          /* plain text; ptr NULL: left out, as every one below */
    struct slice data_json, name_json, tags_json;
    struct slice user_id;          /* plain text */
    struct slice message_id, stream_id;          /* plain text */
    uint64_t     serial;           /* written when stream_id is */
    struct slice extras;           /* canonical form: v2_extras_parse made it */
    const struct v2_version *version;            /* NULL: none */
};
/* The value of extras alone: canonical extras (ptr NULL: none) with the version's headers behind
 * the publisher's own. */
uint32_t v2_extras_bytes(struct slice extras, const struct v2_version *version);
uint32_t v2_extras_write(struct slice extras, const struct v2_version *version, uint8_t *out);

uint32_t v2_event_bytes(const struct v2_out *o);
uint32_t v2_event_write(const struct v2_out *o, uint8_t *out);
/* data given as plain text that becomes a JSON string. */
uint32_t v2_event_text_bytes(const struct v2_out *o, struct slice data_text);
uint32_t v2_event_text_write(const struct v2_out *o, struct slice data_text, uint8_t *out);

uint32_t v2_established_write(uint8_t *out, uint64_t socket_a, uint64_t socket_b,
                              uint32_t activity_timeout_s, const char *message_id);
uint32_t v2_error_write(uint8_t *out, uint32_t code, const char *message, const char *message_id);
uint32_t v2_pong_write(uint8_t *out);            /* PUSHER_SMALL_FRAME_BYTES each */

enum { V2_UUID_BYTES = 37 };
/* A version 4 UUID text from 128 random bits, final zero included. */
void v2_uuid_write(char out[V2_UUID_BYTES], uint64_t a, uint64_t b);
