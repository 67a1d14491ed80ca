/* fuzz_json.c - what the reader says about a text is true, and what the writer writes is read back.
 *
 * Properties: the compact form has the promised length, parses, is its own compact form and holds
 * the same values; iterators meet every value inside its container; decoded strings have the
 * promised length, are UTF-8 and survive quoting; json_object agrees with iteration; a valid text
 * is valid inside an array and cut short nowhere.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "proto/json.h"
#include "proto/utf8.h"

static uint8_t *block(size_t bytes)
{
    uint8_t *ptr = malloc(bytes == 0 ? 1 : bytes);
    ASSERT(ptr != NULL);
    return ptr;
}

/* Quoted and read again, text is itself. */
static void check_quote(struct slice text)
{
    uint32_t bytes = json_quote_bytes(text);
    uint8_t *quoted = block(bytes), *decoded = block(text.bytes);
    ASSERT(json_quote(text, quoted) == bytes);
    struct json_value value;
    struct json_error error;
    ASSERT(json_parse(slice_of(quoted, bytes), &value, &error));
    ASSERT(value.type == JSON_STRING && value.text_bytes == text.bytes);
    json_decode(&value, decoded);
    ASSERT(slice_equal(slice_of(decoded, text.bytes), text));
    struct slice plain;
    ASSERT(json_plain(&value, &plain) == (bytes == text.bytes + 2));
    free(quoted);
    free(decoded);
}

static void check_string(const struct json_value *v)
{
    uint8_t *decoded = block(v->text_bytes + 1);
    json_decode(v, decoded);
    decoded[v->text_bytes] = 0;
    struct slice text = slice_of(decoded, v->text_bytes), plain;
    ASSERT(utf8_valid(text));
    if (json_plain(v, &plain)) ASSERT(slice_equal(plain, text));
    if (memchr(decoded, 0, v->text_bytes) == NULL) {
        ASSERT(json_text_is(v, (const char *)decoded));
        ASSERT(json_text_starts(v, (const char *)decoded));
        if (text.bytes > 0) decoded[text.bytes / 2] = 0;
        ASSERT(json_text_starts(v, (const char *)decoded));
    }
    free(decoded);
}

/* Both values hold the same: the second is the compact form of the first. */
static void check_same(const struct json_value *a, const struct json_value *b, uint32_t depth)
{
    ASSERT(depth <= JSON_DEPTH_MAX && a->type == b->type && a->text_bytes == b->text_bytes);
    bool array = a->type == JSON_ARRAY;
    if (a->type == JSON_STRING) check_string(a);
    if (!array && a->type != JSON_OBJECT) {
        ASSERT(slice_equal(a->raw, b->raw) && a->escaped == b->escaped);
        return;
    }
    ASSERT(!b->escaped && b->raw.bytes == b->text_bytes);
    struct json_iter ia = json_iter_begin(a), ib = json_iter_begin(b);
    struct json_value ka, kb, va, vb;
    while (array ? json_array_next(&ia, &va) : json_object_next(&ia, &ka, &va)) {
        ASSERT(array ? json_array_next(&ib, &vb) : json_object_next(&ib, &kb, &vb));
        ASSERT(va.raw.ptr > a->raw.ptr);
        ASSERT(va.raw.ptr + va.raw.bytes < a->raw.ptr + a->raw.bytes);
        if (!array) check_same(&ka, &kb, depth + 1);
        check_same(&va, &vb, depth + 1);
    }
    ASSERT(!(array ? json_array_next(&ib, &vb) : json_object_next(&ib, &kb, &vb)));
}

static void check_compact(const struct json_value *value)
{
    uint32_t bytes = value->type == JSON_STRING ? value->raw.bytes : value->text_bytes;
    uint8_t *compact = block(bytes), *again = block(bytes);
    struct json_value second;
    struct json_error error;
    ASSERT(json_compact(value, compact) == bytes);
    ASSERT(json_parse(slice_of(compact, bytes), &second, &error));
    ASSERT(second.raw.bytes == bytes && json_compact(&second, again) == bytes);
    ASSERT(memcmp(compact, again, bytes) == 0);
    check_same(value, &second, 0);
    free(compact);
    free(again);
}

/* Captured fields are those that iteration finds, and refusals are for a reason. */
static void check_object(struct slice text, const struct json_value *value, bool valid)
{
    static const char *const names[] = {"event", "channel", "data", "a", ""};
    enum { COUNT = sizeof names / sizeof names[0] };
    struct json_value got[COUNT], want[COUNT] = {0}, key, member;
    struct json_field fields[COUNT];
    struct json_error error;
    for (uint32_t i = 0; i < COUNT; i++) fields[i] = (struct json_field){names[i], &got[i]};
    bool ok = json_object(text, fields, COUNT, &error);
    ASSERT(ok || error.offset <= text.bytes);
    bool object = valid && value->type == JSON_OBJECT;
    ASSERT((!ok && error.text == JSON_NOT_OBJECT) == (valid && !object));
    if (!object) {
        ASSERT(!ok);
        return;
    }
    bool twice = false;
    struct json_iter it = json_iter_begin(value);
    while (json_object_next(&it, &key, &member)) {
        for (uint32_t i = 0; i < COUNT; i++) {
            if (!json_text_is(&key, names[i])) continue;
            twice |= want[i].type != JSON_ABSENT;
            want[i] = member;
        }
    }
    ASSERT(ok != twice);
    for (uint32_t i = 0; ok && i < COUNT; i++) {
        ASSERT(got[i].type == want[i].type && slice_equal(got[i].raw, want[i].raw));
        ASSERT(got[i].text_bytes == want[i].text_bytes && got[i].escaped == want[i].escaped);
    }
}

/* Inside an array it is as valid, unless that makes it too deep; without the bracket it is not. */
static void check_wrapped(struct slice text, bool valid)
{
    uint8_t *wrapped = block(text.bytes + 2);
    struct json_value value;
    struct json_error error;
    wrapped[0] = '[';
    memcpy(wrapped + 1, text.ptr, text.bytes);
    wrapped[text.bytes + 1] = ']';
    if (json_parse(slice_of(wrapped, text.bytes + 2), &value, &error)) {
        ASSERT(value.type == JSON_ARRAY);
    } else if (valid) {
        ASSERT(strcmp(error.text, "nested too deeply") == 0);
    }
    ASSERT(!valid || !json_parse(slice_of(wrapped, text.bytes + 1), &value, &error));
    free(wrapped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct slice text = slice_of(data, (uint32_t)bytes);
    struct json_value value;
    struct json_error error;
    bool valid = json_parse(text, &value, &error);
    if (valid) {
        uint64_t number;
        check_compact(&value);
        if (json_u64(&value, &number)) ASSERT(value.type == JSON_NUMBER && number <= INT64_MAX);
        ASSERT(utf8_valid(text));
    } else {
        ASSERT(error.offset <= bytes && error.text != NULL && value.type == JSON_ABSENT);
    }
    check_object(text, &value, valid);
    if (bytes > 0) check_wrapped(text, valid);
    if (utf8_valid(text)) check_quote(text);
    return 0;
}
