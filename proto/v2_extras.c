/* Extras: what a publisher attaches beside data. Part of v2.h.
 *
 * Kept form: one compact object, "headers" first and never empty, so that v2_write.c finds the
 * place for the server's own headers without searching the whole text.
 */
#include "proto/v2.h"

#include <stdio.h>

#include "proto/put.h"

static bool fail(const char *text, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "%s", text);
    return false;
}

/* ---- checks ---- */

static bool headers_valid(const struct json_value *headers)
{
    struct json_value name, value;
    if (headers->type == JSON_ABSENT) return true;
    if (headers->type != JSON_OBJECT) return false;
    struct json_iter it = json_iter_begin(headers);
    while (json_object_next(&it, &name, &value)) {
        switch (value.type) {
        case JSON_STRING: case JSON_NUMBER: case JSON_FALSE: case JSON_TRUE:
            break;
        case JSON_NULL: case JSON_ARRAY: case JSON_OBJECT: case JSON_ABSENT:
            return false;
        }
    }
    return true;
}

/* One tier of ai, a map of strings; *status becomes the text inside the quotes when it has one. */
static bool tier_valid(const struct json_value *tier, struct slice *status)
{
    struct json_value name, value;
    bool found = false;
    if (tier->type == JSON_ABSENT || tier->type == JSON_NULL) return true;
    if (tier->type != JSON_OBJECT) return false;
    struct json_iter it = json_iter_begin(tier);
    while (json_object_next(&it, &name, &value)) {
        if (value.type != JSON_STRING) return false;
        if (!json_text_is(&name, "status")) continue;
        if (found) return false;               /* two readers could disagree on it */
        found = true;
        *status = slice_of(value.raw.ptr + 1, value.raw.bytes - 2);
    }
    return true;
}

static bool ai_valid(const struct json_value *ai, struct slice *status)
{
    struct json_value transport, codec;
    const struct json_field fields[] = {{"transport", &transport}, {"codec", &codec}};
    struct json_error wrong;
    if (ai->type == JSON_ABSENT) return true;
    if (ai->type != JSON_OBJECT || !json_object(ai->raw, fields, 2, &wrong)) return false;
    return tier_valid(&transport, status) && tier_valid(&codec, status);   /* codec's wins */
}

static bool flag_or_absent(const struct json_value *value)
{
    return value->type == JSON_ABSENT || value->type == JSON_TRUE || value->type == JSON_FALSE;
}

/* ---- the kept form ---- */

static uint8_t *put_member(uint8_t *at, bool first, char open, const struct json_value *name,
                           const struct json_value *value)
{
    *at++ = (uint8_t)(first ? open : ',');
    at = put_slice(at, name->raw);
    *at++ = ':';
    return at + json_compact(value, at);
}

/* {"headers":{..} without the last brace; nothing when no header is the user's. */
static uint8_t *put_headers(uint8_t *out, const struct json_value *headers)
{
    struct json_value name, value;
    bool first = true;
    if (headers->type != JSON_OBJECT) return out;
    uint8_t *at = PUT(out, "{\"headers\":");
    struct json_iter it = json_iter_begin(headers);
    while (json_object_next(&it, &name, &value)) {
        if (json_text_starts(&name, "sockudo_")) continue;    /* the server's own */
        at = put_member(at, first, '{', &name, &value);
        first = false;
    }
    if (first) return out;
    *at++ = '}';
    return at;
}

/* Written before the others, or not worth keeping: null of a known key is as if absent. */
static bool member_dropped(const struct json_value *name, const struct json_value *value)
{
    static const char *const known[] = {"ephemeral", "idempotencyKey", "echo", "ai"};
    if (json_text_is(name, "headers")) return true;
    if (value->type != JSON_NULL) return false;
    for (uint32_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (json_text_is(name, known[i])) return true;
    }
    return false;
}

static struct slice extras_put(uint8_t *out, const struct json_value *extras,
                               const struct json_value *headers)
{
    struct json_value name, value;
    uint8_t *at = put_headers(out, headers);
    struct json_iter it = json_iter_begin(extras);
    while (json_object_next(&it, &name, &value)) {
        if (!member_dropped(&name, &value)) at = put_member(at, at == out, '{', &name, &value);
    }
    if (at == out) return (struct slice){NULL, 0};
    *at++ = '}';
    ASSERT(at - out <= (ptrdiff_t)extras->text_bytes);
    return slice_of(out, (uint32_t)(at - out));
}

bool v2_extras_parse(const struct json_value *value, uint8_t *out, struct v2_extras *e,
                     char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct json_value headers, ephemeral, echo, ai;
    const struct json_field fields[] = {
        {"headers", &headers}, {"ephemeral", &ephemeral}, {"echo", &echo}, {"ai", &ai},
        {"idempotencyKey", &e->idempotency_key},
    };
    enum { FIELDS = sizeof fields / sizeof fields[0] };
    struct json_error wrong;
    *e = (struct v2_extras){0};
    if (value->type != JSON_OBJECT) return fail("extras is not an object", error);
    if (!json_object(value->raw, fields, FIELDS, &wrong)) {
        return fail("a key of extras is given twice", error);
    }
    for (uint32_t i = 0; i < FIELDS; i++) {
        if (fields[i].value->type == JSON_NULL) *fields[i].value = (struct json_value){0};
    }
    if (!headers_valid(&headers)) {
        return fail("extras.headers is not an object of strings, numbers and booleans", error);
    }
    if (!flag_or_absent(&ephemeral)) return fail("extras.ephemeral is not a boolean", error);
    if (!flag_or_absent(&echo)) return fail("extras.echo is not a boolean", error);
    if (e->idempotency_key.type != JSON_ABSENT && e->idempotency_key.type != JSON_STRING) {
        return fail("extras.idempotencyKey is not a string", error);
    }
    if (!ai_valid(&ai, &e->status)) {
        return fail("extras.ai is not an object of transport and codec with strings", error);
    }
    e->ephemeral = ephemeral.type == JSON_TRUE;
    e->has_echo = echo.type != JSON_ABSENT;
    e->echo = echo.type == JSON_TRUE;
    if (out != NULL) e->canonical = extras_put(out, value, &headers);
    return true;
}
