/* What clients say: the frame-reading half of pusher.h. */
#include "proto/pusher.h"

#include <stdio.h>

static const char invalid_message[] = "Invalid message format: ";

static bool fail(const char *prefix, const char *text, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "%s%s", prefix, text);
    return false;
}

static bool fail_decode(const char *text, uint32_t offset, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "%sDecode failed: %s at byte %u", invalid_message,
             text, offset);
    return false;
}

static enum pusher_event event_kind(const struct json_value *event)
{
    static const struct {
        const char       *name;
        enum pusher_event kind;
    } names[] = {
        {"pusher:ping", PUSHER_EV_PING}, {"pusher:pong", PUSHER_EV_PONG},
        {"pusher:subscribe", PUSHER_EV_SUBSCRIBE}, {"pusher:unsubscribe", PUSHER_EV_UNSUBSCRIBE},
        {"pusher:signin", PUSHER_EV_SIGNIN},
        {"sockudo:ping", PUSHER_EV_PING}, {"sockudo:pong", PUSHER_EV_PONG},
        {"sockudo:subscribe", PUSHER_EV_SUBSCRIBE},
        {"sockudo:unsubscribe", PUSHER_EV_UNSUBSCRIBE}, {"sockudo:signin", PUSHER_EV_SIGNIN},
    };

    if (json_text_starts(event, "client-")) return PUSHER_EV_CLIENT;
    for (uint32_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (json_text_is(event, names[i].name)) return names[i].kind;
    }
    return PUSHER_EV_UNKNOWN;
}

/* null counts as absent, like in the reference; any other type but a string is refused. */
static bool text_or_absent(struct json_value *value)
{
    if (value->type == JSON_NULL) *value = (struct json_value){0};
    return value->type == JSON_ABSENT || value->type == JSON_STRING;
}

bool pusher_frame_parse(struct slice text, struct pusher_frame *out,
                        char error[PUSHER_ERROR_TEXT_BYTES])
{
    const struct json_field fields[] = {
        {"event", &out->event}, {"channel", &out->channel}, {"data", &out->data},
    };
    struct json_error wrong;
    out->kind = PUSHER_EV_UNKNOWN;
    if (!json_object(text, fields, 3, &wrong)) return fail_decode(wrong.text, wrong.offset, error);
    if (!text_or_absent(&out->event)) {
        return fail_decode("event is not a string", (uint32_t)(out->event.raw.ptr - text.ptr),
                           error);
    }
    if (!text_or_absent(&out->channel)) {
        return fail_decode("channel is not a string", (uint32_t)(out->channel.raw.ptr - text.ptr),
                           error);
    }
    if (out->event.type == JSON_ABSENT) {
        return fail("Invalid event name: ", "Event name is required", error);
    }
    out->kind = event_kind(&out->event);
    return true;
}

/* Forget a value that is not of the type wanted. */
static void keep_only(struct json_value *value, enum json_type type)
{
    if (value->type != type) *value = (struct json_value){0};
}

bool pusher_subscribe_parse(const struct json_value *data, uint8_t *scratch,
                            struct pusher_subscribe *out, char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct json_value rewind;
    const struct json_field fields[] = {
        {"channel", &out->channel}, {"auth", &out->auth}, {"channel_data", &out->channel_data},
        {"rewind", &rewind},
    };
    struct slice text = data->raw;
    struct json_error wrong;
    *out = (struct pusher_subscribe){0};
    if (data->type == JSON_STRING && !json_plain(data, &text)) {
        json_decode(data, scratch);
        text = slice_of(scratch, data->text_bytes);
    }
    if ((data->type != JSON_STRING && data->type != JSON_OBJECT) ||
        !json_object(text, fields, 4, &wrong)) {
        return fail(invalid_message, "Invalid subscription data format", error);
    }
    out->rewind = rewind.type != JSON_ABSENT && rewind.type != JSON_NULL;
    keep_only(&out->channel, JSON_STRING);
    keep_only(&out->auth, JSON_STRING);
    keep_only(&out->channel_data, JSON_STRING);
    if (out->channel.type == JSON_ABSENT) {
        return fail(invalid_message, "Missing channel field", error);
    }
    return true;
}

bool pusher_unsubscribe_parse(const struct json_value *data, struct json_value *channel,
                              char error[PUSHER_ERROR_TEXT_BYTES])
{
    const struct json_field fields[] = {{"channel", channel}};
    struct json_error wrong;
    if (data->type == JSON_STRING) {
        *channel = *data;
        return true;
    }
    bool found = data->type == JSON_OBJECT && json_object(data->raw, fields, 1, &wrong) &&
                 channel->type == JSON_STRING;
    return found || fail(invalid_message, "Missing channel in unsubscribe message", error);
}

/* An integer in its one spelling: no fraction, no exponent, no "-0". */
static bool integer(const struct json_value *value)
{
    if (value->type != JSON_NUMBER || slice_is(value->raw, "-0")) return false;
    for (uint32_t i = 0; i < value->raw.bytes; i++) {
        uint8_t c = value->raw.ptr[i];
        if ((c < '0' || c > '9') && c != '-') return false;
    }
    return true;
}

bool pusher_member_parse(struct slice channel_data, struct pusher_member *out, uint32_t *code,
                         char error[PUSHER_ERROR_TEXT_BYTES])
{
    const struct json_field fields[] = {
        {"user_id", &out->user_id}, {"user_info", &out->user_info},
    };
    struct json_error wrong;
    if (!json_object(channel_data, fields, 2, &wrong) && wrong.text != JSON_NOT_OBJECT) {
        *code = PUSHER_GENERIC;
        return fail(invalid_message, "Invalid channel_data JSON for presence", error);
    }
    bool text = out->user_id.type == JSON_STRING && out->user_id.text_bytes > 0;
    if (!text && !integer(&out->user_id)) {
        *code = PUSHER_CHANNEL;
        return fail("Channel error: ", "Missing user_id in channel_data", error);
    }
    return true;
}

static bool strings_only(const struct json_value *array)
{
    if (array->type != JSON_ARRAY) return false;
    struct json_iter it = json_iter_begin(array);
    struct json_value element;
    while (json_array_next(&it, &element)) {
        if (element.type != JSON_STRING) return false;
    }
    return true;
}

bool pusher_user_parse(struct slice user_data, struct pusher_user *out,
                       char error[PUSHER_ERROR_TEXT_BYTES])
{
    static const char invalid[] = "Authentication error: Invalid user_data JSON: ";
    const struct json_field fields[] = {
        {"id", &out->id}, {"user_info", &out->user_info}, {"watchlist", &out->watchlist},
    };
    struct json_error wrong;
    if (!json_object(user_data, fields, 3, &wrong) && wrong.text != JSON_NOT_OBJECT) {
        snprintf(error, PUSHER_ERROR_TEXT_BYTES, "%s%s at byte %u", invalid, wrong.text,
                 wrong.offset);
        return false;
    }
    if (out->id.type != JSON_STRING || out->id.text_bytes == 0) {
        return fail("Authentication error: ", "Missing 'id' field in user_data", error);
    }
    if (out->watchlist.type == JSON_NULL) out->watchlist = (struct json_value){0};
    if (out->watchlist.type != JSON_ABSENT && !strings_only(&out->watchlist)) {
        return fail(invalid, "watchlist is not an array of strings", error);
    }
    return true;
}
