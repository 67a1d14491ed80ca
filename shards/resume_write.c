/* The JSON of resume_failed and of the aggregate. All members are always there, null when they are
 * not known. */
#include "shards/resume_parts.h"

#include "proto/put.h"
#include "shards/session_v2.h"

enum { ITEM_BYTES = 640 };             /* of an item's JSON without channel and ids */

static uint8_t *put_text(uint8_t *at, const char *text)
{
    return put_bytes(at, text, (uint32_t)strlen(text));
}

static uint8_t *put_quoted(uint8_t *at, const char *text)
{
    return at + json_quote(slice_str(text), at);
}

static uint8_t *put_id(uint8_t *at, const char *text)
{
    return text[0] == '\0' ? PUT(at, "null") : put_quoted(at, text);
}

static uint8_t *put_serial(uint8_t *at, uint64_t serial)
{
    return serial == 0 ? PUT(at, "null") : put_u64(at, serial);
}

static uint32_t room_of(const struct resume_item *item)
{
    const struct attach *a = &item->a;
    return ITEM_BYTES + json_quote_bytes(item->name) + json_quote_bytes(slice_str(a->stream_id)) +
           json_quote_bytes(slice_str(a->expected_id)) +
           json_quote_bytes(slice_str(a->current_id)) +
           json_quote_bytes(slice_str(a->position_id));
}

static uint8_t *put_failed(uint8_t *at, const struct resume_item *item)
{
    const struct attach *a = &item->a;
    bool ended = item->state == RESUME_FAILED;
    at = PUT(at, "{\"channel\":");
    at += json_quote(item->name, at);
    at = PUT(at, ",\"code\":");
    at = put_quoted(at, ended ? a->code : "continuity_unverifiable");
    at = PUT(at, ",\"reason\":");
    at = put_quoted(at, ended ? a->reason : "not_subscribed");
    at = PUT(at, ",\"expected_stream_id\":");
    at = put_id(at, ended ? a->expected_id : a->stream_id);
    at = PUT(at, ",\"current_stream_id\":");
    at = put_id(at, ended ? a->current_id : "");
    at = PUT(at, ",\"oldest_available_serial\":");
    at = put_serial(at, ended ? a->oldest : 0);
    at = PUT(at, ",\"newest_available_serial\":");
    at = put_serial(at, ended ? a->newest : 0);
    return PUT(at, "}");
}

static uint8_t *put_recovered(uint8_t *at, const struct resume_item *item)
{
    const struct attach *a = &item->a;
    at = PUT(at, "{\"channel\":");
    at += json_quote(item->name, at);
    at = a->cold ? PUT(at, ",\"source\":\"cold\"") : PUT(at, ",\"source\":\"hot\"");
    at = PUT(at, ",\"replayed\":");
    at = put_u64(at, a->replayed);
    if (!a->position_moved) return PUT(at, ",\"position\":null}");
    at = PUT(at, ",\"position\":{\"stream_id\":");
    at = put_id(at, a->current_id[0] != '\0' ? a->current_id : a->stream_id);
    at = PUT(at, ",\"serial\":");
    at = put_u64(at, a->position_serial);
    at = PUT(at, ",\"last_message_id\":");
    at = put_id(at, a->position_id);
    return PUT(at, "}}");
}

void resume_write_failed(struct shard *sh, struct conn *c, const struct resume_item *item)
{
    uint32_t room = room_of(item);
    uint8_t *text = heap_alloc(sh->heap, room);
    if (text == NULL) {
        conn_kill_later(sh, c);
        return;
    }
    uint32_t n = (uint32_t)(put_failed(text, item) - text);
    session_v2_tell_text(sh, c, "\"sockudo:resume_failed\"", item->name, slice_of(text, n));
    heap_free(sh->heap, text, room);
}

/* The items of one kind, with commas. */
static uint8_t *put_items(uint8_t *at, const struct resume *r, bool recovered)
{
    bool first = true;
    for (uint32_t i = 0; i < r->items_count; i++) {
        const struct resume_item *item = &r->items[i];
        if ((item->state == RESUME_RECOVERED) != recovered) continue;
        if (!first) at = PUT(at, ",");
        first = false;
        at = recovered ? put_recovered(at, item) : put_failed(at, item);
    }
    return at;
}

void resume_write_aggregate(struct shard *sh, struct conn *c, const struct resume *r)
{
    uint32_t room = 64;
    for (uint32_t i = 0; i < r->items_count; i++) room += room_of(&r->items[i]);
    uint8_t *text = heap_alloc(sh->heap, room);
    if (text == NULL) {
        conn_kill_later(sh, c);
        return;
    }
    uint8_t *at = put_items(put_text(text, "{\"recovered\":["), r, true);
    at = put_items(put_text(at, "],\"failed\":["), r, false);
    at = PUT(at, "]}");
    session_v2_tell_text(sh, c, "\"sockudo:resume_success\"", slice_of(NULL, 0),
                         slice_of(text, (uint32_t)(at - text)));
    heap_free(sh->heap, text, room);
}
