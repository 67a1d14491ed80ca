/* json.h - the hot-path JSON reader and writer: one strict pass, no tree, no allocation.
 *
 * Shape    A value is validated once, whole, and remembered as its raw text. json_object captures
 *          the fields that the caller names in the same pass that validates everything else.
 * Threads  Pure.
 * Bounds   JSON_DEPTH_MAX levels of nesting.
 * Memory   Values point into the caller's text.
 * Errors   json_error: byte offset and a short English text. RFC 8259 without extensions: strict
 *          numbers, no trailing bytes, valid UTF-8, \u surrogates in pairs only, control bytes
 *          escaped. A named field given twice is an error: two readers could disagree on it.
 * Source   RFC 8259; spec/pusher-v1.md (envelope, compact JSON).
 */
#pragma once
#include "core/base.h"

enum { JSON_DEPTH_MAX = 64 };

enum json_type {
    JSON_ABSENT = 0,  /* a named field that was not there */
    JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT,
};

struct json_value {
    enum json_type type;
    struct slice   raw;            /* the whole value as written; a string with its quotes */
    uint32_t       text_bytes;     /* strings: bytes when decoded. Others: of the compact form */
    bool           escaped;        /* strings: raw holds a backslash. Others: raw is not compact */
};

struct json_error { uint32_t offset; const char *text; };

/* Validate `text` as exactly one JSON value with optional surrounding white space. */
bool json_parse(struct slice text, struct json_value *out, struct json_error *error);

struct json_field { const char *name; struct json_value *value; };
/* Validate `text` as exactly one JSON object and capture the named members (each *value is set,
 * JSON_ABSENT when missing). Names are compared after decoding. A text that is valid JSON but not
 * an object fails with error->text JSON_NOT_OBJECT (compare the pointer). */
extern const char *const JSON_NOT_OBJECT;
bool json_object(struct slice text, const struct json_field *fields, uint32_t fields_count,
                 struct json_error *error);

/* Walk a value that was validated above. The iterator borrows the value's text. */
struct json_iter { const uint8_t *at, *end; };
struct json_iter json_iter_begin(const struct json_value *array_or_object);
bool json_array_next(struct json_iter *it, struct json_value *value);
bool json_object_next(struct json_iter *it, struct json_value *key, struct json_value *value);

/* Decode a string value into out (text_bytes long). */
void json_decode(const struct json_value *string, uint8_t *out);
/* The decoded text without copying when it holds no escape; false when it does. */
bool json_plain(const struct json_value *string, struct slice *out);
bool json_text_is(const struct json_value *string, const char *text);
/* Both compare the decoded text; false when the value is not a string. */
bool json_text_starts(const struct json_value *string, const char *prefix);
/* The compact form of any validated value; returns bytes written: text_bytes for non-strings,
 * raw.bytes for strings (copied as written). */
uint32_t json_compact(const struct json_value *value, uint8_t *out);
/* An integer without sign, fraction or exponent in [0, 2^63); false otherwise. */
bool json_u64(const struct json_value *number, uint64_t *out);

/* Writing. json_quote writes `text` (valid UTF-8) as a JSON string with quotes; json_quote_bytes
 * says how long that is. Escapes: \" \\ \b \f \n \r \t and \u00XX for other control bytes. */
uint32_t json_quote_bytes(struct slice text);
uint32_t json_quote(struct slice text, uint8_t *out);
