/* What a V2 client says about the past and about itself: resume, channel_history and
 * presence_update. Part of v2.h.
 */
#include "proto/v2.h"

#include <stdio.h>

#include "core/hash.h"
#include "proto/v2_read.h"

enum { HISTORY_LIMIT = 100, HISTORY_LIMIT_MAX = 1000, WORD_BYTES_MAX = 64, NAME_BYTES_MAX = 1024 };

static bool fail(const char *text, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "Invalid message format: %s", text);
    return false;
}

static bool missing(const struct json_value *data)
{
    return data->type == JSON_ABSENT || data->type == JSON_NULL;
}

/* ---- resume ---- */

static bool fail_resume(const char *text, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "Invalid message format: Invalid resume data JSON: %s",
             text);
    return false;
}

/* A channel's name as it is compared: decoded. Names over NAME_BYTES_MAX that hold escapes are
 * compared as written. */
static struct slice name_text(const struct json_value *name, uint8_t buffer[NAME_BYTES_MAX])
{
    struct slice text;
    if (json_plain(name, &text)) return text;
    if (name->text_bytes > NAME_BYTES_MAX) return name->raw;
    json_decode(name, buffer);
    return slice_of(buffer, name->text_bytes);
}

/* Two readers could disagree about a channel that is named twice. The hashes keep the look through
 * the names before it cheap. */
static bool named_before(const struct v2_position *positions, uint64_t hashes[V2_POSITIONS_MAX],
                         uint32_t count, const struct json_value *channel)
{
    uint8_t buffer[NAME_BYTES_MAX], other[NAME_BYTES_MAX];
    struct slice name = name_text(channel, buffer);
    hashes[count] = hash_table(0, 0, name);
    for (uint32_t i = 0; i < count; i++) {
        if (hashes[i] != hashes[count]) continue;
        if (slice_equal(name, name_text(&positions[i].channel, other))) return true;
    }
    return false;
}

static bool text_or_absent(struct json_value *value)
{
    if (value->type == JSON_NULL) *value = (struct json_value){0};
    return value->type == JSON_ABSENT || value->type == JSON_STRING;
}

/* NULL, or what is wrong. */
static const char *position_parse(const struct json_value *value, struct v2_position *out)
{
    struct json_value serial;
    const struct json_field fields[] = {
        {"serial", &serial}, {"stream_id", &out->stream_id},
        {"last_message_id", &out->last_message_id},
    };
    struct json_error wrong;
    if (!json_object(value->raw, fields, 3, &wrong)) return "a position is not an object";
    if (!v2_number(&serial, &out->serial) && !v2_number_text(&serial, &out->serial)) {
        return "serial is not an unsigned integer";
    }
    if (!text_or_absent(&out->stream_id)) return "stream_id is not a string";
    if (!text_or_absent(&out->last_message_id)) return "last_message_id is not a string";
    return NULL;
}

static const char *positions_parse(const struct json_value *map, bool legacy,
                                   struct v2_position out[V2_POSITIONS_MAX], uint32_t *count)
{
    struct json_value channel, value;
    uint64_t hashes[V2_POSITIONS_MAX];
    if (map->type != JSON_OBJECT) return "positions are not an object";
    struct json_iter it = json_iter_begin(map);
    while (json_object_next(&it, &channel, &value)) {
        struct v2_position p = {.channel = channel, .legacy = legacy};
        if (*count == V2_POSITIONS_MAX) return "more than 256 channels";
        if (named_before(out, hashes, *count, &channel)) return "a channel is named twice";
        if (!legacy) {
            const char *what = position_parse(&value, &p);
            if (what != NULL) return what;
        } else if (!v2_number(&value, &p.serial) && !v2_number_text(&value, &p.serial)) {
            return "serial is not an unsigned integer";
        }
        out[(*count)++] = p;
    }
    return NULL;
}

bool v2_resume_parse(const struct json_value *data, uint8_t *scratch,
                     struct v2_position out[V2_POSITIONS_MAX], uint32_t *count,
                     char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct json_value positions, serials;
    const struct json_field fields[] = {
        {"channel_positions", &positions}, {"channel_serials", &serials},
    };
    struct json_error wrong;
    *count = 0;
    if (missing(data)) return fail("Missing data in resume message", error);
    if (!json_object(v2_data_text(data, scratch), fields, 2, &wrong)) {
        return fail_resume(wrong.text, error);
    }
    bool legacy = missing(&positions);
    if (legacy && missing(&serials)) {
        return fail("Missing channel_positions or channel_serials in resume data", error);
    }
    const char *what = positions_parse(legacy ? &serials : &positions, legacy, out, count);
    if (what == NULL) return true;
    if (*count < V2_POSITIONS_MAX) *count = 0;   /* else it was one too many */
    return fail_resume(what, error);
}

/* ---- channel_history ---- */

enum {
    H_CHANNEL, H_CURSOR, H_DIRECTION, H_LIMIT, H_START_SERIAL, H_START, H_END_SERIAL, H_END,
    H_START_TIME, H_END_TIME, H_UNTIL, H_UNTIL_CAMEL, H_FIELDS,
};

static bool history_fields(struct slice text, struct json_value values[H_FIELDS],
                           struct json_value *params, struct json_error *wrong)
{
    static const char *const names[H_FIELDS] = {
        "channel", "cursor", "direction", "limit", "start_serial", "start", "end_serial", "end",
        "start_time_ms", "end_time_ms", "until_attach", "untilAttach",
    };
    struct json_field fields[H_FIELDS + 1];
    for (uint32_t i = 0; i < H_FIELDS; i++) fields[i] = (struct json_field){names[i], &values[i]};
    fields[H_FIELDS] = (struct json_field){"params", params};
    return json_object(text, fields, H_FIELDS + 1, wrong);
}

static bool direction_parse(const struct json_value *value, struct v2_history *out,
                            char error[PUSHER_ERROR_TEXT_BYTES])
{
    static const char *const newest[] = {"newest_first", "backwards", "reverse"};
    static const char *const oldest[] = {"oldest_first", "forwards", "forward"};
    uint8_t text[WORD_BYTES_MAX];
    out->newest_first = true;
    if (value->type != JSON_STRING) return true;
    for (uint32_t i = 0; i < 3; i++) {
        if (json_text_is(value, newest[i])) return true;
        if (!json_text_is(value, oldest[i])) continue;
        out->newest_first = false;
        return true;
    }
    struct slice shown = slice_str("(too long)");
    if (value->text_bytes <= WORD_BYTES_MAX) {
        json_decode(value, text);
        shown = slice_of(text, value->text_bytes);
    }
    snprintf(error, PUSHER_ERROR_TEXT_BYTES,
             "Invalid message format: Unsupported history direction: %.*s", (int)shown.bytes,
             (const char *)shown.ptr);
    return false;
}

static bool time_parse(const struct json_value *value, int64_t *out)
{
    uint64_t number;
    if (value->type != JSON_NUMBER) return false;
    bool minus = value->raw.ptr[0] == '-';
    if (!v2_digits(minus ? slice_skip(value->raw, 1) : value->raw, &number)) return false;
    *out = minus ? -(int64_t)number : (int64_t)number;
    return true;
}

/* Members of the wrong type count as absent (spec section 8). */
static bool history_read(const struct json_value v[H_FIELDS], struct v2_history *out,
                         char error[PUSHER_ERROR_TEXT_BYTES])
{
    if (v[H_CHANNEL].type != JSON_STRING) {
        return fail("Missing channel in channel_history message", error);
    }
    out->channel = v[H_CHANNEL];
    if (!direction_parse(&v[H_DIRECTION], out, error)) return false;
    out->cursor = v[H_CURSOR];
    v2_keep_strings(&out->cursor);
    if (!v2_number(&v[H_LIMIT], &out->limit)) out->limit = HISTORY_LIMIT;
    out->limit = u64_min(out->limit, HISTORY_LIMIT_MAX);
    out->has_start = v2_number(&v[H_START_SERIAL], &out->start_serial) ||
                     v2_number(&v[H_START], &out->start_serial);
    out->has_end = v2_number(&v[H_END_SERIAL], &out->end_serial) ||
                   v2_number(&v[H_END], &out->end_serial);
    out->has_time_from = time_parse(&v[H_START_TIME], &out->time_from_ms);
    out->has_time_upto = time_parse(&v[H_END_TIME], &out->time_upto_ms);
    const struct json_value *until = v[H_UNTIL].type != JSON_ABSENT ? &v[H_UNTIL]
                                                                    : &v[H_UNTIL_CAMEL];
    out->until_attach = until->type == JSON_TRUE;
    return true;
}

bool v2_history_parse(const struct json_value *data, uint8_t *scratch, struct v2_history *out,
                      char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct json_value root[H_FIELDS], inner[H_FIELDS], params, other;
    struct json_error wrong;
    *out = (struct v2_history){0};
    if (missing(data)) return fail("Missing data in channel_history message", error);
    bool read = history_fields(v2_data_text(data, scratch), root, &params, &wrong);
    if (read && params.type == JSON_OBJECT) {
        read = history_fields(params.raw, inner, &other, &wrong);
        for (uint32_t i = 0; read && i < H_FIELDS; i++) {
            bool keep = i == H_CHANNEL && root[i].type != JSON_ABSENT;
            if (inner[i].type != JSON_ABSENT && !keep) root[i] = inner[i];
        }
    }
    if (read) return history_read(root, out, error);
    if (wrong.text == JSON_NOT_OBJECT) {
        return fail("Missing channel in channel_history message", error);
    }
    snprintf(error, PUSHER_ERROR_TEXT_BYTES,
             "Invalid message format: Invalid channel_history data JSON: %s", wrong.text);
    return false;
}

/* ---- presence_update ---- */

static bool fail_presence(const char *text, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "presence_update %s", text);
    return false;
}

/* {"user_info":X} and nothing else. */
static bool only_user_info(const struct json_value *info, struct json_value *user_info)
{
    struct json_value name, value;
    if (info->type != JSON_OBJECT) return false;
    struct json_iter it = json_iter_begin(info);
    return json_object_next(&it, &name, user_info) && json_text_is(&name, "user_info") &&
           !json_object_next(&it, &name, &value);
}

bool v2_presence_update_parse(const struct v2_frame *f, uint8_t *scratch,
                              struct v2_presence_update *out, char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct json_value channel, data, user_info, info = f->data;
    const struct json_field fields[] = {{"channel", &channel}, {"data", &data}};
    struct json_error wrong;
    *out = (struct v2_presence_update){0};
    if (missing(&f->data)) return fail_presence("data is required", error);
    struct slice text = v2_data_text(&f->data, scratch);
    bool object = json_object(text, fields, 2, &wrong);
    bool named = object && channel.type == JSON_STRING && channel.text_bytes > 0;
    if (named && data.type != JSON_ABSENT) {
        *out = (struct v2_presence_update){channel, data};
        return true;
    }
    if (f->channel.type != JSON_STRING || f->channel.text_bytes == 0) {
        return fail_presence(!object ? "data must be a JSON object" :
                             named ? "data field is required" : "channel is required", error);
    }
    /* the channel is the envelope's: data is the member's info, however it is wrapped */
    if (object) {
        bool valid = json_parse(text, &info, &wrong);
        ASSERT(valid);
    }
    *out = (struct v2_presence_update){f->channel, only_user_info(&info, &user_info) ? user_info
                                                                                     : info};
    return true;
}
