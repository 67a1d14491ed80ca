#include "shards/api_parts.h"

#include <stdio.h>

enum { TEXT_ROOM_MIN = 256 };

/* Room for `count` more bytes at the end; NULL at the heap's bound. */
static uint8_t *reserve(struct api_text *t, uint32_t count)
{
    if (t->failed) return NULL;
    if (t->room - t->bytes < count) {
        uint64_t want = u64_max((uint64_t)t->bytes + count, (uint64_t)t->room * 2);
        uint32_t room = heap_class_bytes((uint32_t)u64_min(u64_max(want, TEXT_ROOM_MIN), 1u << 31));
        uint8_t *fresh = want > 1u << 31 ? NULL : heap_alloc(t->heap, room);
        if (fresh == NULL) {
            t->failed = true;
            return NULL;
        }
        if (t->bytes > 0) memcpy(fresh, t->ptr, t->bytes);
        if (t->ptr != NULL) heap_free(t->heap, t->ptr, t->room);
        t->ptr = fresh;
        t->room = room;
    }
    return t->ptr + t->bytes;
}

void api_text_add(struct api_text *t, struct slice s)
{
    uint8_t *at = reserve(t, s.bytes);
    if (at == NULL || s.bytes == 0) return;
    memcpy(at, s.ptr, s.bytes);
    t->bytes += s.bytes;
}

void api_text_str(struct api_text *t, const char *text)
{
    api_text_add(t, slice_str(text));
}

void api_text_number(struct api_text *t, uint64_t n)
{
    char text[24];
    int  bytes = snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
    api_text_add(t, slice_of(text, (uint32_t)bytes));
}

void api_text_quote(struct api_text *t, struct slice s)
{
    uint8_t *at = reserve(t, json_quote_bytes(s));
    if (at != NULL) t->bytes += json_quote(s, at);
}

void api_text_free(struct api_text *t)
{
    if (t->ptr != NULL) heap_free(t->heap, t->ptr, t->room);
    *t = (struct api_text){.heap = t->heap};
}

/* ---- the info parameter ---- */

uint32_t api_info_parse(struct slice info)
{
    uint32_t out = info.bytes > 0 ? API_INFO_GIVEN : 0, at = 0;
    while (at < info.bytes) {
        uint32_t end = at;
        while (end < info.bytes && info.ptr[end] != ',') end++;
        struct slice word = slice_of(info.ptr + at, end - at);
        while (word.bytes > 0 && word.ptr[0] == ' ') word = slice_skip(word, 1);
        while (word.bytes > 0 && word.ptr[word.bytes - 1] == ' ') word.bytes--;
        if (slice_is(word, "user_count")) out |= API_INFO_USERS;
        if (slice_is(word, "subscription_count")) out |= API_INFO_SUBSCRIPTIONS;
        if (slice_is(word, "cache")) out |= API_INFO_CACHE;
        at = end + 1;
    }
    return out;
}

bool api_info_write(struct api_text *t, uint32_t info, bool presence, uint64_t users,
                    uint64_t subscriptions)
{
    bool any = false;
    if ((info & API_INFO_USERS) && presence) {
        api_text_str(t, "\"user_count\":");
        api_text_number(t, users);
        any = true;
    }
    if (info & API_INFO_SUBSCRIPTIONS) {
        api_text_str(t, any ? ",\"subscription_count\":" : "\"subscription_count\":");
        api_text_number(t, subscriptions);
        any = true;
    }
    return any;
}

/* ---- texts that outlive the request ---- */

struct slice api_keep_text(uint8_t **at, const struct json_value *v)
{
    if (v->type != JSON_STRING) return slice_of(NULL, 0);
    json_decode(v, *at);
    struct slice out = slice_of(*at, v->text_bytes);
    *at += v->text_bytes;
    return out;
}

struct slice api_keep_raw(uint8_t **at, const struct json_value *v)
{
    if (v->type == JSON_ABSENT) return slice_of(NULL, 0);
    struct slice out = slice_of(*at, json_compact(v, *at));
    *at += out.bytes;
    return out;
}
