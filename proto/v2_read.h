/* v2_read.h - what the readers of V2 data share: text of data, numbers, optional strings.
 *
 * Shape    Small helpers of v2_frame.c and v2_recover.c; nobody else includes this.
 * Threads  Pure.
 * Bounds   Numbers are read up to 2^63 - 1 and kept there when larger: nothing counts that far, so
 *          a larger one means the same, and callers may add 1.
 */
#pragma once
#include "proto/json.h"

/* The JSON text of data: the text inside a string (decoded into scratch, text_bytes bytes, when it
 * holds escapes), any other value as it stands. */
static inline struct slice v2_data_text(const struct json_value *data, uint8_t *scratch)
{
    struct slice text = data->raw;
    if (data->type != JSON_STRING || json_plain(data, &text)) return text;
    json_decode(data, scratch);
    return slice_of(scratch, data->text_bytes);
}

/* Decimal digits, at least one. */
static inline bool v2_digits(struct slice text, uint64_t *out)
{
    uint64_t value = 0;
    if (text.bytes == 0) return false;
    for (uint32_t i = 0; i < text.bytes; i++) {
        uint8_t c = text.ptr[i];
        if (c < '0' || c > '9') return false;
        value = value > INT64_MAX / 10 ? INT64_MAX : value * 10 + (c - '0');
        value = u64_min(value, INT64_MAX);
    }
    *out = value;
    return true;
}

/* A number without sign, fraction or exponent. */
static inline bool v2_number(const struct json_value *value, uint64_t *out)
{
    return value->type == JSON_NUMBER && v2_digits(value->raw, out);
}

/* A string of digits. */
static inline bool v2_number_text(const struct json_value *value, uint64_t *out)
{
    struct slice text;
    return value->type == JSON_STRING && json_plain(value, &text) && v2_digits(text, out);
}

/* Forget a value that is not a string. */
static inline void v2_keep_strings(struct json_value *value)
{
    if (value->type != JSON_STRING) *value = (struct json_value){0};
}
