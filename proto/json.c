/* A text is walked once by `struct scan`. Containers are tracked in a word of bits, one per level,
 * so that no input can grow the stack:
 *
 *     {"a":[1,{"b":2}]}        at the 2: depth 3, objects = 0b101 (innermost level in bit 0)
 *
 * White space outside strings is counted on the way. The compact length of a value is its raw
 * length minus what was counted inside it, and costs no second pass.
 */
#include "proto/json.h"

/* Eight copies of a byte. */
#define LANES(byte) (0x0101010101010101u * (uint64_t)(byte))

static_assert(JSON_DEPTH_MAX <= 64, "one bit per level of nesting");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte is the lowest lane");

const char *const JSON_NOT_OBJECT = "not an object";

struct scan {
    const uint8_t *start, *at, *end;
    uint32_t       spaces;       /* white space skipped so far, outside strings */
    const char    *failure;      /* what is wrong at `at` */
};

static bool fail(struct scan *s, const char *text)
{
    s->failure = text;
    return false;
}

static bool fail_end(struct scan *s)
{
    return fail(s, "unexpected end");
}

static inline void skip_space(struct scan *s)
{
    const uint8_t *p = s->at;
    while (p < s->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    s->spaces += (uint32_t)(p - s->at);
    s->at = p;
}

/* ---- strings ---- */

/* The first byte at or after p that is a quote, a backslash or a control byte, or (when `high` is
 * LANES(0x80)) not ASCII. Borrows run upwards only: the lowest bit found is always a true one. */
static inline const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end, uint64_t high)
{
    for (; end - p >= 8; p += 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        uint64_t quote = x ^ LANES('"');
        uint64_t slash = x ^ LANES('\\');
        uint64_t stop = ((x - LANES(0x20)) & ~x) | ((quote - LANES(1)) & ~quote) |
                        ((slash - LANES(1)) & ~slash) | (x & high);
        stop &= LANES(0x80);
        if (stop != 0) return p + (__builtin_ctzll(stop) >> 3);
    }
    while (p < end && *p >= 0x20 && *p != '"' && *p != '\\' && (*p < 0x80 || high == 0)) p++;
    return p;
}

/* Length of the character at p, whose first byte is not ASCII; 0: not valid (RFC 3629). */
static uint32_t character_bytes(const uint8_t *p, const uint8_t *end)
{
    uint8_t  first = p[0], low = 0x80, high = 0xbf;
    uint32_t bytes;
    if (first >= 0xc2 && first <= 0xdf) {
        bytes = 2;
    } else if ((first & 0xf0) == 0xe0) {
        bytes = 3;
        if (first == 0xe0) low = 0xa0;
        if (first == 0xed) high = 0x9f;
    } else if (first >= 0xf0 && first <= 0xf4) {
        bytes = 4;
        if (first == 0xf0) low = 0x90;
        if (first == 0xf4) high = 0x8f;
    } else {
        return 0;
    }
    if (end - p < bytes || p[1] < low || p[1] > high) return 0;
    for (uint32_t i = 2; i < bytes; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    return bytes;
}

/* The value of four hex digits at p, or -1. */
static int32_t hex4(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i], lower = c | 0x20;
        if (c >= '0' && c <= '9') value = value << 4 | (c - '0');
        else if (lower >= 'a' && lower <= 'f') value = value << 4 | (lower - 'a' + 10);
        else return -1;
    }
    return value;
}

static uint32_t character_write(uint32_t code, uint8_t out[4])
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    uint32_t bytes = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (uint32_t i = bytes - 1; i > 0; i--, code >>= 6) out[i] = 0x80 | (code & 0x3f);
    static const uint8_t lead[] = {0xc0, 0xe0, 0xf0};
    out[0] = (uint8_t)(lead[bytes - 2] | code);
    return bytes;
}

/* Decode the escape at p (a backslash): returns its length, 0 when it is not valid. */
static uint32_t escape_read(const uint8_t *p, const uint8_t *end, uint8_t out[4], uint32_t *bytes)
{
    static const char marks[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    if (end - p < 2) return 0;
    if (p[1] != 'u') {
        const char *mark = p[1] == 0 ? NULL : strchr(marks, p[1]);
        if (mark == NULL) return 0;
        out[0] = (uint8_t)means[mark - marks];
        *bytes = 1;
        return 2;
    }
    int32_t code = hex4(p + 2, end);
    if (code < 0 || (code >= 0xdc00 && code <= 0xdfff)) return 0;
    if (code < 0xd800 || code > 0xdbff) {
        *bytes = character_write((uint32_t)code, out);
        return 6;
    }
    if (end - p < 12 || p[6] != '\\' || p[7] != 'u') return 0;
    int32_t second = hex4(p + 8, end);
    if (second < 0xdc00 || second > 0xdfff) return 0;
    uint32_t pair = (((uint32_t)code & 0x3ff) << 10 | ((uint32_t)second & 0x3ff)) + 0x10000;
    *bytes = character_write(pair, out);
    return 12;
}

static bool scan_string(struct scan *s, struct json_value *out)
{
    const uint8_t *start = s->at++;
    uint32_t saved = 0;                          /* bytes that escapes lose when decoded */
    for (;;) {
        s->at = skip_plain(s->at, s->end, LANES(0x80));
        if (s->at == s->end) return fail_end(s);
        uint8_t c = *s->at;
        if (c == '"') break;
        if (c >= 0x80) {
            do {
                uint32_t bytes = character_bytes(s->at, s->end);
                if (bytes == 0) return fail(s, "invalid UTF-8");
                s->at += bytes;
            } while (s->at < s->end && *s->at >= 0x80);
        } else if (c == '\\') {
            uint8_t  decoded[4];
            uint32_t decoded_bytes = 0;
            uint32_t bytes = escape_read(s->at, s->end, decoded, &decoded_bytes);
            if (bytes == 0) return fail(s, "invalid escape");
            s->at += bytes;
            saved += bytes - decoded_bytes;
        } else {
            return fail(s, "control byte in a string");
        }
    }
    uint32_t raw_bytes = (uint32_t)(++s->at - start);
    *out = (struct json_value){JSON_STRING, slice_of(start, raw_bytes), raw_bytes - 2 - saved,
                               saved > 0};
    return true;
}

/* ---- other values ---- */

static bool scan_literal(struct scan *s, const char *text, enum json_type type,
                         struct json_value *out)
{
    uint32_t bytes = (uint32_t)strlen(text);
    if ((size_t)(s->end - s->at) < bytes || memcmp(s->at, text, bytes) != 0) {
        return fail(s, "expected a value");
    }
    *out = (struct json_value){type, slice_of(s->at, bytes), bytes, false};
    s->at += bytes;
    return true;
}

static bool scan_digits(struct scan *s)
{
    if (s->at == s->end) return fail_end(s);
    if (*s->at < '0' || *s->at > '9') return fail(s, "invalid number");
    do s->at++; while (s->at < s->end && *s->at >= '0' && *s->at <= '9');
    return true;
}

static bool scan_number(struct scan *s, struct json_value *out)
{
    const uint8_t *start = s->at;
    if (*s->at == '-') s->at++;
    if (s->at < s->end && *s->at == '0') {
        s->at++;
        if (s->at < s->end && *s->at >= '0' && *s->at <= '9') return fail(s, "invalid number");
    } else if (!scan_digits(s)) {
        return false;
    }
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        if (!scan_digits(s)) return false;
    }
    if (s->at < s->end && (*s->at | 0x20) == 'e') {
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-')) s->at++;
        if (!scan_digits(s)) return false;
    }
    uint32_t bytes = (uint32_t)(s->at - start);
    *out = (struct json_value){JSON_NUMBER, slice_of(start, bytes), bytes, false};
    return true;
}

/* Anything but a container. */
static bool scan_scalar(struct scan *s, struct json_value *out)
{
    if (s->at == s->end) return fail_end(s);
    uint8_t c = *s->at;
    if (c == '"') return scan_string(s, out);
    if (c == '-' || (c >= '0' && c <= '9')) return scan_number(s, out);
    if (c == 't') return scan_literal(s, "true", JSON_TRUE, out);
    if (c == 'f') return scan_literal(s, "false", JSON_FALSE, out);
    return scan_literal(s, "null", JSON_NULL, out);
}

/* A member's name, its colon and the space around that. */
static bool scan_key(struct scan *s, struct json_value *key)
{
    if (s->at == s->end) return fail_end(s);
    if (*s->at != '"') return fail(s, "expected a name in quotes");
    if (!scan_string(s, key)) return false;
    skip_space(s);
    if (s->at == s->end) return fail_end(s);
    if (*s->at != ':') return fail(s, "expected ':'");
    s->at++;
    skip_space(s);
    return true;
}

struct levels {
    uint64_t objects;     /* bit 0: the innermost open container is an object */
    uint32_t depth;       /* open containers */
};

/* Behind a value: close containers up to the next comma or the end of the outermost one. */
static bool scan_behind(struct scan *s, struct levels *open)
{
    while (open->depth > 0) {
        skip_space(s);
        if (s->at == s->end) return fail_end(s);
        bool object = open->objects & 1;
        if (*s->at == ',') {
            struct json_value key;
            s->at++;
            skip_space(s);
            return !object || scan_key(s, &key);
        }
        if (*s->at != (object ? '}' : ']')) {
            return fail(s, object ? "expected ',' or '}'" : "expected ',' or ']'");
        }
        s->at++;
        open->objects >>= 1;
        open->depth--;
    }
    return true;
}

/* Any value. `depth` containers are open around it. */
static bool scan_value(struct scan *s, uint32_t depth, struct json_value *out)
{
    if (s->at == s->end || (*s->at != '{' && *s->at != '[')) return scan_scalar(s, out);
    const uint8_t *start = s->at;
    uint32_t spaces = s->spaces;
    struct levels open = {0, 0};
    do {
        struct json_value part;
        uint8_t c = s->at < s->end ? *s->at : 0;
        if (c == '{' || c == '[') {
            if (depth + open.depth == JSON_DEPTH_MAX) return fail(s, "nested too deeply");
            open.objects = open.objects << 1 | (c == '{');
            open.depth++;
            s->at++;
            skip_space(s);
            bool empty = s->at < s->end && *s->at == (c == '{' ? '}' : ']');
            if (!empty) {
                if (c == '{' && !scan_key(s, &part)) return false;
                continue;
            }
        } else if (!scan_scalar(s, &part)) {
            return false;
        }
        if (!scan_behind(s, &open)) return false;
    } while (open.depth > 0);
    uint32_t raw_bytes = (uint32_t)(s->at - start), inside = s->spaces - spaces;
    *out = (struct json_value){*start == '{' ? JSON_OBJECT : JSON_ARRAY,
                               slice_of(start, raw_bytes), raw_bytes - inside, inside > 0};
    return true;
}

/* ---- whole texts ---- */

static struct scan scan_begin(struct slice text)
{
    struct scan s = {text.ptr, text.ptr, text.ptr, 0, NULL};
    if (text.bytes > 0) s.end = text.ptr + text.bytes;
    skip_space(&s);
    return s;
}

static bool scan_end(struct scan *s)
{
    skip_space(s);
    return s->at == s->end || fail(s, "trailing bytes");
}

static bool report(const struct scan *s, struct json_error *error)
{
    *error = (struct json_error){(uint32_t)(s->at - s->start), s->failure};
    return false;
}

bool json_parse(struct slice text, struct json_value *out, struct json_error *error)
{
    struct scan s = scan_begin(text);
    if (scan_value(&s, 0, out) && scan_end(&s)) return true;
    *out = (struct json_value){0};
    return report(&s, error);
}

static const struct json_field *field_find(const struct json_field *fields, uint32_t count,
                                           const struct json_value *key)
{
    for (uint32_t i = 0; i < count; i++) {
        if (json_text_is(key, fields[i].name)) return &fields[i];
    }
    return NULL;
}

static bool scan_members(struct scan *s, const struct json_field *fields, uint32_t fields_count)
{
    s->at++;
    skip_space(s);
    if (s->at < s->end && *s->at == '}') {
        s->at++;
        return true;
    }
    for (;;) {
        struct json_value key, value;
        if (!scan_key(s, &key) || !scan_value(s, 1, &value)) return false;
        const struct json_field *field = field_find(fields, fields_count, &key);
        if (field != NULL) {
            if (field->value->type != JSON_ABSENT) {
                s->at = key.raw.ptr;
                return fail(s, "name given twice");
            }
            *field->value = value;
        }
        skip_space(s);
        if (s->at == s->end) return fail_end(s);
        if (*s->at != ',' && *s->at != '}') return fail(s, "expected ',' or '}'");
        if (*s->at++ == '}') return true;
        skip_space(s);
    }
}

bool json_object(struct slice text, const struct json_field *fields, uint32_t fields_count,
                 struct json_error *error)
{
    for (uint32_t i = 0; i < fields_count; i++) *fields[i].value = (struct json_value){0};
    struct scan s = scan_begin(text);
    if (s.at == s.end || *s.at != '{') {
        struct json_value other;
        const uint8_t *start = s.at;
        if (scan_value(&s, 0, &other) && scan_end(&s)) {
            s.at = start;
            s.failure = JSON_NOT_OBJECT;
        }
        return report(&s, error);
    }
    if (scan_members(&s, fields, fields_count) && scan_end(&s)) return true;
    for (uint32_t i = 0; i < fields_count; i++) *fields[i].value = (struct json_value){0};
    return report(&s, error);
}

/* ---- walking and reading validated values ---- */

struct json_iter json_iter_begin(const struct json_value *array_or_object)
{
    ASSERT(array_or_object->type == JSON_ARRAY || array_or_object->type == JSON_OBJECT);
    struct slice raw = array_or_object->raw;
    return (struct json_iter){raw.ptr + 1, raw.ptr + raw.bytes - 1};
}

/* Step to the next element; false behind the last one. */
static bool iter_step(const struct json_iter *it, struct scan *s)
{
    *s = (struct scan){it->at, it->at, it->end, 0, NULL};
    skip_space(s);
    if (s->at == s->end) return false;
    if (*s->at == ',') {
        s->at++;
        skip_space(s);
    }
    return true;
}

bool json_array_next(struct json_iter *it, struct json_value *value)
{
    struct scan s;
    if (!iter_step(it, &s)) return false;
    bool valid = scan_value(&s, 1, value);
    ASSERT(valid);
    it->at = s.at;
    return true;
}

bool json_object_next(struct json_iter *it, struct json_value *key, struct json_value *value)
{
    struct scan s;
    if (!iter_step(it, &s)) return false;
    bool valid = scan_key(&s, key) && scan_value(&s, 1, value);
    ASSERT(valid);
    it->at = s.at;
    return true;
}

void json_decode(const struct json_value *string, uint8_t *out)
{
    ASSERT(string->type == JSON_STRING);
    const uint8_t *p = string->raw.ptr + 1, *end = string->raw.ptr + string->raw.bytes - 1;
    while (p < end) {
        const uint8_t *escape = memchr(p, '\\', (size_t)(end - p));
        size_t run = (size_t)((escape != NULL ? escape : end) - p);
        memcpy(out, p, run);
        out += run;
        p += run;
        if (escape == NULL) break;
        uint8_t  decoded[4];
        uint32_t bytes = 0, used = escape_read(p, end, decoded, &bytes);
        ASSERT(used > 0);
        memcpy(out, decoded, bytes);
        out += bytes;
        p += used;
    }
}

bool json_plain(const struct json_value *string, struct slice *out)
{
    ASSERT(string->type == JSON_STRING);
    if (string->escaped) return false;
    *out = slice_of(string->raw.ptr + 1, string->raw.bytes - 2);
    return true;
}

bool json_text_starts(const struct json_value *string, const char *prefix)
{
    size_t left = strlen(prefix);
    if (string->type != JSON_STRING || string->text_bytes < left) return false;
    const uint8_t *p = string->raw.ptr + 1, *end = string->raw.ptr + string->raw.bytes - 1;
    if (!string->escaped) return memcmp(p, prefix, left) == 0;
    while (left > 0) {
        uint8_t  decoded[4] = {*p};
        uint32_t bytes = 1, used = 1;
        if (*p == '\\') used = escape_read(p, end, decoded, &bytes);
        ASSERT(used > 0);
        size_t compared = bytes < left ? bytes : left;
        if (memcmp(decoded, prefix, compared) != 0) return false;
        prefix += compared;
        left -= compared;
        p += used;
    }
    return true;
}

bool json_text_is(const struct json_value *string, const char *text)
{
    return string->text_bytes == strlen(text) && json_text_starts(string, text);
}

bool json_u64(const struct json_value *number, uint64_t *out)
{
    if (number->type != JSON_NUMBER || number->raw.bytes > 19) return false;
    uint64_t value = 0;                       /* 19 digits always fit */
    for (uint32_t i = 0; i < number->raw.bytes; i++) {
        uint8_t c = number->raw.ptr[i];
        if (c < '0' || c > '9') return false;
        value = value * 10 + (c - '0');
    }
    *out = value;
    return value <= INT64_MAX;
}
