/* Cursors of history pages: base64url of a JSON object that says where the last page ended and what
 * was asked. A cursor is no secret and proves nothing: all of it is checked again. */
#include "shards/want_parts.h"

#include <sodium.h>
#include <stdio.h>

enum { CURSOR_VERSION = 1 };

static const int base64 = sodium_base64_VARIANT_URLSAFE_NO_PADDING;

static const char *direction_of(const struct want_page *p)
{
    return p->newest_first ? "newest_first" : "oldest_first";
}

static void write_time(struct api_text *t, const char *name, bool set, int64_t ms)
{
    char text[64];
    int n = set ? snprintf(text, sizeof(text), ",\"%s\":%lld", name, (long long)ms)
                : snprintf(text, sizeof(text), ",\"%s\":null", name);
    api_text_add(t, slice_of(text, (uint32_t)n));
}

void want_write_bounds(struct api_text *t, const struct want_page *p, bool with_attach)
{
    api_text_str(t, "{");
    want_write_null(t, "start_serial", p->has_start, p->start_serial);
    api_text_str(t, ",");
    want_write_null(t, "end_serial", p->has_end, p->end_serial);
    write_time(t, "start_time_ms", p->has_time_from, p->time_from_ms);
    write_time(t, "end_time_ms", p->has_time_upto, p->time_upto_ms);
    if (with_attach) {
        api_text_str(t, p->until_attach ? ",\"until_attach\":true," : ",\"until_attach\":false,");
        want_write_null(t, "attach_serial", p->has_attach_serial, p->attach_serial);
    }
    api_text_str(t, "}");
}

void want_cursor_write(struct api_text *t, const struct want_scope *scope, struct slice stream_id,
                       uint64_t serial)
{
    struct api_text json = {.heap = t->heap};
    api_text_str(&json, "{\"version\":1,");
    want_write_text(&json, "app_id", scope->app_id);
    api_text_str(&json, ",");
    want_write_text(&json, "channel", scope->channel);
    api_text_str(&json, ",");
    want_write_text(&json, "stream_id", stream_id);
    api_text_str(&json, ",");
    want_write_null(&json, "serial", true, serial);
    api_text_str(&json, ",");
    want_write_text(&json, "direction", slice_str(direction_of(scope->page)));
    api_text_str(&json, ",\"bounds\":");
    want_write_bounds(&json, scope->page, false);
    api_text_str(&json, "}");
    uint32_t room = (uint32_t)sodium_base64_encoded_len(json.bytes, base64);
    char *text = json.failed ? NULL : heap_alloc(t->heap, room);
    if (text == NULL) {
        t->failed = true;
    } else {
        sodium_bin2base64(text, room, json.ptr, json.bytes, base64);
        api_text_add(t, slice_of(text, room - 1));
        heap_free(t->heap, text, room);
    }
    api_text_free(&json);
}

/* ---- reading ---- */

struct fields { struct json_value version, app, channel, stream, serial, direction, bounds; };

static bool text_is(const struct json_value *v, struct slice text)
{
    uint8_t stack[512];
    if (v->type != JSON_STRING || v->text_bytes != text.bytes) return false;
    if (text.bytes > sizeof(stack)) {    /* names that long hold no escapes: they are plain */
        struct slice plain;
        return json_plain(v, &plain) && slice_equal(plain, text);
    }
    json_decode(v, stack);
    return slice_equal(slice_of(stack, text.bytes), text);
}

static bool bounds_are(struct heap *heap, const struct json_value *v, const struct want_page *p)
{
    struct api_text t = {.heap = heap};
    want_write_bounds(&t, p, false);
    bool same = !t.failed && slice_equal(v->raw, api_text_slice(&t));
    api_text_free(&t);
    return same;
}

static bool fail(char error[PUSHER_ERROR_TEXT_BYTES], const char *format, const char *word,
                 const char *more)
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, format, word, more);
    return false;
}

/* "History" -> "history". */
static void lower_first(char out[32], const char *word)
{
    snprintf(out, 32, "%s", word);
    out[0] = (char)(out[0] | 0x20);
}

static bool check(struct heap *heap, const struct want_scope *scope, struct slice json,
                  const char *word, struct want_cursor *out, char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct fields f;
    struct json_error wrong;
    uint64_t version;
    char low[32];
    const struct json_field fields[] = {
        {"version", &f.version}, {"app_id", &f.app}, {"channel", &f.channel},
        {"stream_id", &f.stream}, {"serial", &f.serial}, {"direction", &f.direction},
        {"bounds", &f.bounds},
    };
    lower_first(low, word);
    if (!json_object(json, fields, sizeof(fields) / sizeof(fields[0]), &wrong)) {
        return fail(error, "Invalid %s cursor: %s", low, wrong.text);
    }
    if (!json_u64(&f.version, &version)) {
        return fail(error, "Invalid %s cursor: %s", low, "no version");
    }
    if (version != CURSOR_VERSION) {
        snprintf(error, PUSHER_ERROR_TEXT_BYTES, "Unsupported %s cursor version: %llu", low,
                 (unsigned long long)version);
        return false;
    }
    if (f.stream.type != JSON_STRING || f.stream.text_bytes >= sizeof(out->stream_id) ||
        !json_u64(&f.serial, &out->serial)) {
        return fail(error, "Invalid %s cursor: %s", low, "no position");
    }
    if (!text_is(&f.app, scope->app_id)) {
        return fail(error, "%s cursor app does not match the request%s", word, "");
    }
    if (!text_is(&f.channel, scope->channel)) {
        return fail(error, "%s cursor channel does not match the request%s", word, "");
    }
    if (!text_is(&f.direction, slice_str(direction_of(scope->page)))) {
        return fail(error, "%s cursor direction does not match the request%s", word, "");
    }
    if (!bounds_are(heap, &f.bounds, scope->page)) {
        return fail(error, "%s cursor bounds do not match the request%s", word, "");
    }
    json_decode(&f.stream, (uint8_t *)out->stream_id);
    out->stream_id[f.stream.text_bytes] = '\0';
    return true;
}

bool want_cursor_read(struct heap *heap, const struct want_scope *scope, struct slice text,
                      const char *word, struct want_cursor *out,
                      char error[PUSHER_ERROR_TEXT_BYTES])
{
    char low[32];
    uint8_t json[WANT_CURSOR_BYTES_MAX];
    size_t bytes;
    const char *end;
    lower_first(low, word);
    const char *in = (const char *)text.ptr;
    if (text.bytes > WANT_CURSOR_BYTES_MAX) {
        return fail(error, "%s cursor exceeds 16 KiB%s", word, "");
    }
    if (sodium_base642bin(json, sizeof(json), in, text.bytes, NULL, &bytes, &end, base64) != 0 ||
        end != in + text.bytes) {
        return fail(error, "Invalid %s cursor: %s", low, "not base64url");
    }
    return check(heap, scope, slice_of(json, (uint32_t)bytes), word, out, error);
}
