/* What a V2 client says first: the upgrade's query, its frames and a subscribe. The other parts of
 * v2.h: v2_recover.c reads resume, channel_history and presence_update, v2_extras.c extras,
 * v2_serial.c serials; v2_write.c writes frames.
 */
#include "proto/v2.h"

#include <stdio.h>

#include "proto/v2_read.h"

/* ---- the upgrade's query ---- */

static bool space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct slice trimmed(struct slice text)
{
    while (text.bytes > 0 && space(text.ptr[0])) text = slice_skip(text, 1);
    while (text.bytes > 0 && space(text.ptr[text.bytes - 1])) text.bytes--;
    return text;
}

/* `word` is in lower case. */
static bool is_word(struct slice text, const char *word)
{
    if (text.bytes != strlen(word)) return false;
    for (uint32_t i = 0; i < text.bytes; i++) {
        uint8_t c = text.ptr[i];
        if (c >= 'A' && c <= 'Z') c |= 0x20;
        if (c != (uint8_t)word[i]) return false;
    }
    return true;
}

static bool one_of(struct slice text, const char *const *words, uint32_t words_count)
{
    for (uint32_t i = 0; i < words_count; i++) {
        if (is_word(text, words[i])) return true;
    }
    return false;
}

static bool refuse(const char *text, const char **error)
{
    *error = text;
    return false;
}

static bool take_format(struct slice value, const char **error)
{
    static const char *const binary[] = {"msgpack", "messagepack", "protobuf", "proto"};
    struct slice name = trimmed(value);
    if (name.bytes == 0 || is_word(name, "json")) return true;
    return refuse(one_of(name, binary, 4) ? "Format not supported by this build: use json"
                                          : "Invalid format", error);
}

static bool take_window(struct slice value, const char **error)
{
    static const char *const windows[] = {"0", "20", "40", "100", "500"};
    return one_of(value, windows, 5) || refuse("Invalid append_rollup_window", error);
}

bool v2_query_take(struct v2_query *q, struct slice name, struct slice value, const char **error)
{
    if (slice_is(name, "format")) return take_format(value, error);
    if (slice_is(name, "append_rollup_window")) return take_window(value, error);
    if (slice_is(name, "echo_messages")) {
        q->has_echo = true;
        q->echo = slice_is(value, "true");
        return q->echo || slice_is(value, "false") || refuse("Invalid echo_messages", error);
    }
    if (slice_is(name, "append_mode")) {
        q->full = slice_is(value, "full");
        return q->full || value.bytes == 0 || slice_is(value, "delta") ||
               refuse("Invalid append_mode", error);
    }
    return true;
}

/* ---- frames ---- */

static bool fail(const char *text, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "Invalid message format: %s", text);
    return false;
}

static bool fail_decode(const char *name, const char *text, uint32_t offset,
                        char error[PUSHER_ERROR_TEXT_BYTES])
{
    static const char decode_failed[] = "Invalid message format: Decode failed: ";
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "%s%.20s%.400s at byte %u", decode_failed, name, text,
             offset);
    return false;
}

static enum v2_event event_kind(const struct json_value *event)
{
    static const char *const prefixes[] = {
        "pusher:", "sockudo:", "pusher_internal:", "sockudo_internal:",
    };
    static const struct {
        const char   *word;
        enum v2_event kind;
    } words[] = {
        {"ping", V2_EV_PING}, {"pong", V2_EV_PONG}, {"subscribe", V2_EV_SUBSCRIBE},
        {"unsubscribe", V2_EV_UNSUBSCRIBE}, {"signin", V2_EV_SIGNIN}, {"resume", V2_EV_RESUME},
        {"channel_history", V2_EV_HISTORY}, {"presence_update", V2_EV_PRESENCE_UPDATE},
    };
    enum { NAME_BYTES_MAX = 40, PREFIXES = 4, INTERNAL = 2 };
    uint8_t decoded[NAME_BYTES_MAX];

    if (json_text_starts(event, "client-")) return V2_EV_CLIENT;
    if (event->text_bytes > NAME_BYTES_MAX) return V2_EV_UNKNOWN;
    json_decode(event, decoded);
    struct slice name = slice_of(decoded, event->text_bytes);
    uint32_t prefix = 0;
    while (prefix < PREFIXES && !slice_starts(name, prefixes[prefix])) prefix++;
    if (prefix < PREFIXES) name = slice_skip(name, (uint32_t)strlen(prefixes[prefix]));
    for (uint32_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (!slice_is(name, words[i].word)) continue;
        enum v2_event kind = words[i].kind;
        if (prefix == PREFIXES && kind != V2_EV_HISTORY) return V2_EV_UNKNOWN;
        if (prefix >= INTERNAL && kind == V2_EV_PRESENCE_UPDATE) return V2_EV_UNKNOWN;
        return kind;
    }
    return V2_EV_UNKNOWN;
}

/* The fields of the envelope by type, those of every frame first. */
enum { TEXTS_FROM = 1, COUNTS_FROM = 10, TAGS = 13, EXTRAS = 14, FIELDS = 15 };
static const char *const field_names[FIELDS] = {
    "data", "event", "channel", "name", "user_id", "conflation_key", "message_id", "stream_id",
    "idempotency_key", "__conflation_key", "sequence", "serial", "__delta_seq", "tags", "extras",
};

static bool tags_valid(const struct json_value *tags)
{
    struct json_value name, value;
    if (tags->type != JSON_OBJECT) return false;
    struct json_iter it = json_iter_begin(tags);
    while (json_object_next(&it, &name, &value)) {
        if (value.type != JSON_STRING) return false;
    }
    return true;
}

/* What is wrong with a field that is there; NULL when nothing is. */
static const char *field_wrong(uint32_t field, const struct json_value *value,
                               char text[PUSHER_ERROR_TEXT_BYTES])
{
    struct v2_extras extras;
    uint64_t number;
    if (field < TEXTS_FROM) return NULL;
    if (field < COUNTS_FROM) return value->type == JSON_STRING ? NULL : " is not a string";
    if (field < TAGS) return v2_number(value, &number) ? NULL : " is not an unsigned integer";
    if (field == TAGS) return tags_valid(value) ? NULL : " is not an object of strings";
    return v2_extras_parse(value, NULL, &extras, text) ? NULL : text;
}

bool v2_frame_parse(struct slice text, struct v2_frame *out, char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct json_value  values[FIELDS];
    struct json_field  fields[FIELDS];
    struct json_error  wrong;
    char               reason[PUSHER_ERROR_TEXT_BYTES];
    *out = (struct v2_frame){0};
    for (uint32_t i = 0; i < FIELDS; i++) {
        fields[i] = (struct json_field){field_names[i], &values[i]};
    }
    if (!json_object(text, fields, FIELDS, &wrong)) {
        return fail_decode("", wrong.text, wrong.offset, error);
    }
    for (uint32_t i = TEXTS_FROM; i < FIELDS; i++) {
        if (values[i].type == JSON_NULL) values[i] = (struct json_value){0};   /* as if absent */
        if (values[i].type == JSON_ABSENT) continue;
        const char *what = field_wrong(i, &values[i], reason);
        if (what == NULL) continue;
        return fail_decode(i == EXTRAS ? "" : field_names[i], what,
                           (uint32_t)(values[i].raw.ptr - text.ptr), error);
    }
    out->data = values[0];
    out->event = values[1];
    out->channel = values[2];
    if (out->event.type == JSON_ABSENT) {
        snprintf(error, PUSHER_ERROR_TEXT_BYTES, "Invalid event name: Event name is required");
        return false;
    }
    out->event_kind = event_kind(&out->event);
    return true;
}

/* ---- subscribe ---- */

static bool rewind_count(const struct json_value *value, uint64_t *out)
{
    return v2_number(value, out) || v2_number_text(value, out);
}

static bool rewind_parse(const struct json_value *value, struct v2_subscribe *out)
{
    struct json_value count, seconds, duration;
    const struct json_field fields[] = {
        {"count", &count}, {"seconds", &seconds}, {"duration_seconds", &duration},
    };
    struct json_error wrong;
    if (rewind_count(value, &out->rewind_amount)) {
        out->rewind = V2_REWIND_COUNT;
    } else {
        if (value->type != JSON_OBJECT || !json_object(value->raw, fields, 3, &wrong)) return false;
        if (v2_number(&count, &out->rewind_amount)) out->rewind = V2_REWIND_COUNT;
        else if (v2_number(&seconds, &out->rewind_amount)) out->rewind = V2_REWIND_SECONDS;
        else if (v2_number(&duration, &out->rewind_amount)) out->rewind = V2_REWIND_SECONDS;
        else return false;
    }
    out->rewind_amount = u64_min(out->rewind_amount, UINT32_MAX);
    return out->rewind_amount > 0;
}

static bool modes_parse(const struct json_value *modes, struct v2_subscribe *out)
{
    struct json_value mode;
    if (modes->type != JSON_ARRAY) return false;
    struct json_iter it = json_iter_begin(modes);
    while (json_array_next(&it, &mode)) {
        if (json_text_is(&mode, "ANNOTATION_SUBSCRIBE")) out->annotations = true;
    }
    return true;
}

struct subscribe_options { struct json_value filter, tags_filter, delta, rewind, modes; };

static bool options_parse(const struct subscribe_options *in, struct v2_subscribe *out,
                          char error[PUSHER_ERROR_TEXT_BYTES])
{
    const struct json_value *filter = in->filter.type != JSON_ABSENT ? &in->filter
                                                                     : &in->tags_filter;
    if (filter->type == JSON_OBJECT) return fail("filters are not supported by this build", error);
    if (filter->type != JSON_ABSENT) return fail("Invalid tags filter: not an object", error);
    switch (in->delta.type) {
    case JSON_ABSENT: case JSON_NULL: case JSON_FALSE: case JSON_TRUE: case JSON_STRING:
    case JSON_OBJECT:
        break;
    case JSON_NUMBER: case JSON_ARRAY:
        return fail("Invalid delta option in subscription data", error);
    }
    if (in->rewind.type != JSON_ABSENT && !rewind_parse(&in->rewind, out)) {
        return fail("Invalid rewind option in subscription data", error);
    }
    if (in->modes.type != JSON_ABSENT && !modes_parse(&in->modes, out)) {
        return fail("subscription modes must be an array", error);
    }
    return true;
}

bool v2_subscribe_parse(const struct json_value *data, uint8_t *scratch, struct v2_subscribe *out,
                        char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct subscribe_options o;
    const struct json_field fields[] = {
        {"channel", &out->channel}, {"auth", &out->auth}, {"channel_data", &out->channel_data},
        {"filter", &o.filter}, {"tags_filter", &o.tags_filter}, {"delta", &o.delta},
        {"rewind", &o.rewind}, {"modes", &o.modes},
    };
    struct json_error wrong;
    *out = (struct v2_subscribe){0};
    if (data->type == JSON_ABSENT || data->type == JSON_NULL) {
        return fail("Invalid subscription data format", error);
    }
    struct slice text = v2_data_text(data, scratch);
    if (!json_object(text, fields, sizeof fields / sizeof fields[0], &wrong) &&
        wrong.text != JSON_NOT_OBJECT) {
        return fail("Failed to parse subscription data", error);
    }
    v2_keep_strings(&out->channel);
    v2_keep_strings(&out->auth);
    v2_keep_strings(&out->channel_data);
    if (out->channel.type == JSON_ABSENT) {
        return fail(data->type == JSON_STRING ? "Missing channel field in string data"
                                              : "Missing channel field", error);
    }
    return options_parse(&o, out, error);
}
