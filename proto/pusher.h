/* pusher.h - Pusher V1: what a channel name means, what a client frame says, how server frames
 * look.
 *
 * Shape    Reading yields slices and json_values that borrow the input. Writing fills a buffer that
 *          the caller sized with the matching _bytes function, WebSocket header included: frames
 *          come out ready to send.
 * Threads  Pure.
 * Errors   Texts and codes are exactly those of spec/pusher-v1.md; clients compare them.
 * Source   spec/pusher-v1.md 1.1, 2, 3, 4, 5; spec/protocol-v2.md 11; spec/settled.md 13, 17, 19.
 */
#pragma once
#include "core/conf_policy.h"
#include "proto/json.h"

enum pusher_code {
    PUSHER_GENERIC = 4000, PUSHER_NO_APP = 4001, PUSHER_APP_DISABLED = 4003,
    PUSHER_APP_QUOTA = 4004, PUSHER_PATH = 4005, PUSHER_VERSION = 4007,
    PUSHER_UNAUTHORIZED = 4009, PUSHER_OVER_CAPACITY = 4100, PUSHER_RECONNECT = 4200,
    PUSHER_NO_PONG = 4201, PUSHER_CHANNEL = 4300, PUSHER_CLIENT_EVENT = 4301,
    PUSHER_WATCHLIST = 4302,
};

/* ---- channel names ---- */
enum pusher_kind { PUSHER_PUBLIC, PUSHER_PRIVATE, PUSHER_ENCRYPTED, PUSHER_PRESENCE, PUSHER_USER };

struct pusher_channel {
    enum pusher_kind kind;      /* USER: "#server-to-user-{id}" */
    bool             cache;     /* "cache-" follows the kind's prefix, or is the prefix */
    struct slice     user_id;   /* USER only: the id */
    struct slice     users;     /* user-limited: the ids behind '#', else ptr NULL */
    const struct conf_namespace *ns;    /* borrowed from the configuration; NULL: none */
};

enum { PUSHER_ERROR_TEXT_BYTES = 512 };

/* Classify and check a name: 1..name_bytes_max bytes (0: no limit; a namespace may have its own) of
 * A-Z a-z 0-9 _ - = @ , . ; and, where namespaces are configured, ':' behind the name of one and
 * '#' before the users a channel is limited to. (USER names: 1-128 bytes of UTF-8 without control
 * characters after the prefix, whatever the rest says.) The name may hold any bytes; `names` are
 * the app's, or NULL for none. False: `error` holds the text without the "Channel error: " prefix
 * (names quoted in it are cut and control bytes shown as ?):
 *   Channel name too long. Max length is {n}
 *   Channel name contains invalid characters: '{name}' (invalid chars: [..])
 *   Channel name must not be empty
 *   Unknown channel namespace '{x}'
 *   Channel '{name}' does not match namespace '{x}' pattern
 *   Channel '{name}' uses user-limited syntax but the namespace does not allow it
 *   Channel '{name}' contains multiple user limit separators
 *   Channel '{name}' has an empty user limit segment
 *   Channel '{name}' contains an empty user id in its user limit segment
 *   Channel '{name}' contains an invalid user id in its user limit segment
 *   ... only supported on protocol V2        (a '*' or a leading "[meta]") */
bool pusher_channel_parse(struct slice name, uint32_t name_bytes_max,
                          const struct conf_names *names, struct pusher_channel *out,
                          char error[PUSHER_ERROR_TEXT_BYTES]);
/* True unless the channel is limited to users and this is not one of them. */
bool pusher_channel_admits(const struct pusher_channel *c, struct slice user_id);

/* "public", "private", "presence", "private_encrypted", "cache": metric label, and its index. */
enum { PUSHER_TYPE_LABELS = 5 };
extern const char *const pusher_type_labels[PUSHER_TYPE_LABELS];
uint32_t pusher_type_label(const struct pusher_channel *c);

/* ---- client frames ---- */
enum pusher_event {
    PUSHER_EV_UNKNOWN,          /* ignored silently */
    PUSHER_EV_PING, PUSHER_EV_PONG, PUSHER_EV_SUBSCRIBE, PUSHER_EV_UNSUBSCRIBE, PUSHER_EV_SIGNIN,
    PUSHER_EV_CLIENT,           /* name starts with "client-" */
};

struct pusher_frame {
    enum pusher_event kind;
    struct json_value event, channel, data;   /* channel: JSON_ABSENT or JSON_STRING */
};

/* Parse one text message. False: `error` holds the exact text for a 4000 error frame
 * ("Invalid message format: Decode failed: ..." or "Invalid event name: Event name is required").
 * "pusher:" and "sockudo:" prefixes are equal. */
bool pusher_frame_parse(struct slice text, struct pusher_frame *out,
                        char error[PUSHER_ERROR_TEXT_BYTES]);

/* The data of subscribe: an object, or a string holding one (then decoded into scratch, which has
 * data->text_bytes bytes). Values borrow data or scratch. channel is a JSON_STRING; auth and
 * channel_data are JSON_STRING or JSON_ABSENT. False with the exact 4000 text. */
struct pusher_subscribe {
    struct json_value channel, auth, channel_data;
    bool rewind;                   /* asked for: what only V2 has */
};
bool pusher_subscribe_parse(const struct json_value *data, uint8_t *scratch,
                            struct pusher_subscribe *out, char error[PUSHER_ERROR_TEXT_BYTES]);

/* The channel of unsubscribe: {"channel":..} or a bare string. */
bool pusher_unsubscribe_parse(const struct json_value *data, struct json_value *channel,
                              char error[PUSHER_ERROR_TEXT_BYTES]);

/* channel_data of a presence subscribe (decoded text). user_id: JSON_STRING, not empty, or
 * JSON_NUMBER, an integer whose raw text is the id; user_info: any JSON or JSON_ABSENT. code is
 * 4000 (not JSON) or 4300 (no user_id). */
struct pusher_member { struct json_value user_id, user_info; };
bool pusher_member_parse(struct slice channel_data, struct pusher_member *out, uint32_t *code,
                         char error[PUSHER_ERROR_TEXT_BYTES]);

/* user_data of a sign-in (decoded text). watchlist: JSON_ABSENT or a JSON_ARRAY of strings. */
struct pusher_user { struct json_value id, user_info, watchlist; };
bool pusher_user_parse(struct slice user_data, struct pusher_user *out,
                       char error[PUSHER_ERROR_TEXT_BYTES]);

/* ---- server frames: WebSocket header included; each returns the bytes written ---- */

/* {"event":E,"channel":C,"data":D[,"user_id":U]}: E and D are raw JSON as given (D must be compact
 * and valid), C is plain text to be quoted; C, D and U may have ptr NULL to be left out; U is raw
 * JSON. A name that begins with "sockudo" in place of "pusher" gets V1's word.
 * pusher_event_bytes is an upper bound good enough to allocate by. */
struct pusher_out { struct slice event_json, channel, data_json, user_id_json; };
uint32_t pusher_event_bytes(const struct pusher_out *o);
uint32_t pusher_event_write(const struct pusher_out *o, uint8_t *out);

/* The same with `data` given as plain text that becomes a JSON string ("string-encoded"). */
uint32_t pusher_event_text_bytes(const struct pusher_out *o, struct slice data_text);
uint32_t pusher_event_text_write(const struct pusher_out *o, struct slice data_text, uint8_t *out);

/* The JSON payload of a frame written above: what follows the WebSocket header. */
struct slice pusher_payload(struct slice frame);

enum { PUSHER_SMALL_FRAME_BYTES = 1024 };  /* enough for each of the following */
uint32_t pusher_established_write(uint8_t *out, uint64_t socket_a, uint64_t socket_b,
                                  uint32_t activity_timeout_s);
uint32_t pusher_error_write(uint8_t *out, uint32_t code, const char *message); /* cut to fit */
uint32_t pusher_ping_write(uint8_t *out);
uint32_t pusher_pong_write(uint8_t *out);

/* socket_id text "{a}.{b}" and a final zero; a and b are at most 10000000000. Returns the length
 * without the zero. */
enum { PUSHER_SOCKET_ID_BYTES = 24 };
uint32_t pusher_socket_id_write(char out[PUSHER_SOCKET_ID_BYTES], uint64_t a, uint64_t b);
/* ^\d{1,11}\.\d{1,11}$ with both parts <= 10000000000; false otherwise. */
bool pusher_socket_id_parse(struct slice text, uint64_t *a, uint64_t *b);
