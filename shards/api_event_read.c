/* A body of /events or /batch_events, read and validated whole before anything is published:
 * content type, JSON, shape of all, then the rules event by event. */
#include "shards/api_events.h"

#include <stdio.h>

enum { NAME_SHOWN_BYTES = 1000, WORK_BYTES_MAX = 1 << 30 };

void api_event_free(struct shard *sh, struct event_work *w)
{
    if (w->claim.entry != NULL) ask_claim_end(sh, &w->claim, NULL);
    for (uint32_t i = 0; w->events != NULL && i < w->events_count; i++) {
        struct event *e = &w->events[i];
        if (e->claim.entry != NULL) ask_claim_end(sh, &e->claim, NULL);
        heap_free(sh->heap, e->data_made, e->data_made_bytes);
        heap_free(sh->heap, e->extras_made, e->extras_text.text_bytes);
        heap_free(sh->heap, e->owner, e->owner_bytes);
    }
    for (uint32_t i = 0; w->targets != NULL && i < w->targets_count; i++) {
        frame_put(sh, &w->targets[i].frame);
        if (w->targets[i].publish != NULL) publish_free(sh, w->targets[i].publish);
    }
    if (w->targets != NULL) {
        heap_free(sh->heap, w->targets, w->targets_room * (uint32_t)sizeof(*w->targets));
    }
    if (w->events != NULL) {
        heap_free(sh->heap, w->events, w->events_count * (uint32_t)sizeof(*w->events));
    }
    if (w->bytes != NULL) heap_free(sh->heap, w->bytes, (uint32_t)w->bytes_room);
    heap_free(sh->heap, w, sizeof(*w));
}

/* ---- refusals; all return false ---- */

static bool no_memory(struct api_call *call)
{
    api_busy(call, "Server is at its memory limit");
    return false;
}

static bool not_json(struct api_call *call, const struct json_error *e)
{
    api_not_json(call, e);
    return false;
}

static bool wrong_shape(struct api_call *call, const char *what)
{
    api_wrong_shape(call, what);
    return false;
}

/* "{before}{name}{after}", the name decoded and cut. */
static bool refuse_name(struct api_call *call, uint16_t status, const char *code,
                        const char *before, const struct json_value *name, const char *after)
{
    struct heap *heap = call->sh->heap;
    struct api_text t = {.heap = heap};
    uint8_t *decoded = heap_alloc(heap, u32_max(name->text_bytes, 1));
    if (decoded == NULL) return no_memory(call);
    json_decode(name, decoded);
    uint32_t shown = u32_min(name->text_bytes, NAME_SHOWN_BYTES);
    while (shown > 0 && shown < name->text_bytes && (decoded[shown] & 0xc0) == 0x80) shown--;
    api_text_str(&t, before);
    api_text_add(&t, slice_of(decoded, shown));
    api_text_str(&t, after);
    heap_free(heap, decoded, u32_max(name->text_bytes, 1));
    if (t.failed) {
        api_text_free(&t);
        return no_memory(call);
    }
    api_refuse(call, status, code, api_text_slice(&t), 0);
    api_text_free(&t);
    return false;
}

/* ---- shape ---- */

/* null is as good as absent. */
static bool is_optional_string(struct json_value *v)
{
    if (v->type == JSON_NULL) v->type = JSON_ABSENT;
    return v->type == JSON_ABSENT || v->type == JSON_STRING;
}

static bool is_optional_strings(struct json_value *v)
{
    struct json_value item;
    if (v->type == JSON_NULL) v->type = JSON_ABSENT;
    if (v->type == JSON_ABSENT) return true;
    if (v->type != JSON_ARRAY) return false;
    for (struct json_iter it = json_iter_begin(v); json_array_next(&it, &item);) {
        if (item.type != JSON_STRING) return false;
    }
    return true;
}

static bool shape(struct api_call *call, struct slice text, struct event *e)
{
    struct json_error error;
    const struct json_field fields[] = {
        {"name", &e->name}, {"data", &e->data}, {"channels", &e->channels},
        {"channel", &e->channel}, {"socket_id", &e->socket_id}, {"info", &e->info_text},
        {"idempotency_key", &e->key_text}, {"message_id", &e->message_id},
        {"tags", &e->tags}, {"extras", &e->extras_text},
    };
    if (!json_object(text, fields, sizeof(fields) / sizeof(fields[0]), &error)) {
        if (error.text == JSON_NOT_OBJECT) return wrong_shape(call, "an event is an object");
        return not_json(call, &error);
    }
    if (!is_optional_string(&e->name)) return wrong_shape(call, "name is a string");
    if (!is_optional_strings(&e->channels)) {
        return wrong_shape(call, "channels is an array of strings");
    }
    if (!is_optional_string(&e->channel)) return wrong_shape(call, "channel is a string");
    if (!is_optional_string(&e->socket_id)) return wrong_shape(call, "socket_id is a string");
    if (!is_optional_string(&e->info_text)) return wrong_shape(call, "info is a string");
    if (!is_optional_string(&e->key_text)) {
        return wrong_shape(call, "idempotency_key is a string");
    }
    if (!is_optional_string(&e->message_id)) return wrong_shape(call, "message_id is a string");
    e->with_info = e->info_text.type == JSON_STRING || e->message_id.type == JSON_STRING;
    return api_event_shape_more(call, e);
}

static bool room_for(uint64_t count, uint64_t each) { return count * each <= WORK_BYTES_MAX; }

static uint32_t array_count(const struct json_value *array)
{
    struct json_value item;
    uint32_t n = 0;
    for (struct json_iter it = json_iter_begin(array); json_array_next(&it, &item);) n++;
    return n;
}

static bool make_events(struct api_call *call, struct event_work *w, uint32_t count)
{
    if (count == 0) return true;
    if (!room_for(count, sizeof(*w->events))) return no_memory(call);
    w->events = heap_zalloc(call->sh->heap, count * (uint32_t)sizeof(*w->events));
    if (w->events == NULL) return no_memory(call);
    w->events_count = count;
    return true;
}

static bool shape_batch(struct api_call *call, struct event_work *w)
{
    struct json_value batch, item;
    struct json_error error;
    const struct json_field field = {"batch", &batch};
    uint32_t max = call->sh->conf->apps[call->app].max_event_batch_size, i = 0;
    char text[80];
    if (!json_object(call->body, &field, 1, &error)) {
        if (error.text == JSON_NOT_OBJECT) return wrong_shape(call, "a batch is an object");
        return not_json(call, &error);
    }
    if (batch.type != JSON_ARRAY) return wrong_shape(call, "batch is an array of events");
    uint32_t count = array_count(&batch);
    if (max > 0 && count > max) {
        snprintf(text, sizeof(text), "Batch size (%u) exceeds limit (%u)", count, max);
        api_refuse_text(call, 400, "limit_exceeded", text);
        return false;
    }
    if (!make_events(call, w, count)) return false;
    for (struct json_iter it = json_iter_begin(&batch); json_array_next(&it, &item); i++) {
        if (!shape(call, item.raw, &w->events[i])) return false;
    }
    return true;
}

/* ---- rules ---- */

static bool check_channels(struct api_call *call, struct event *e)
{
    uint32_t max = call->sh->conf->apps[call->app].max_event_channels_at_once;
    uint32_t count = e->channel.type == JSON_STRING;
    char text[80];
    if (e->channels.type == JSON_ARRAY) count = array_count(&e->channels);
    if (max > 0 && count > max) {
        snprintf(text, sizeof(text), "Number of channels (%u) exceeds limit (%u)", count, max);
        api_refuse_text(call, 400, "limit_exceeded", text);
        return false;
    }
    if (count == 0) {
        api_refuse_text(call, 400, "missing_channel_info",
                        "Request must contain 'channels' (list) or 'channel' (string)");
        return false;
    }
    e->targets_count = count;
    return true;
}

static bool check_socket_id(struct api_call *call, struct event *e)
{
    uint8_t text[PUSHER_SOCKET_ID_BYTES];
    if (e->socket_id.type == JSON_ABSENT) return true;
    if (e->socket_id.text_bytes < sizeof(text)) {
        json_decode(&e->socket_id, text);
        if (pusher_socket_id_parse(slice_of(text, e->socket_id.text_bytes), &e->except_a,
                                   &e->except_b)) {
            return true;
        }
    }
    api_refuse_text(call, 400, "invalid_input", "Invalid socket_id");
    return false;
}

static bool check_key(struct api_call *call, uint32_t bytes)
{
    uint32_t max = call->sh->conf->idempotency_max_key_length;
    char text[80];
    if (bytes > 0 && bytes <= max) return true;
    snprintf(text, sizeof(text), "Idempotency key exceeds maximum length of %u characters", max);
    api_refuse_text(call, 400, "invalid_input",
                    bytes == 0 ? "Idempotency key must not be empty" : text);
    return false;
}

static bool check_event(struct api_call *call, struct event *e)
{
    const struct conf_app *app = &call->sh->conf->apps[call->app];
    uint32_t data_bytes = e->data.type == JSON_ABSENT ? 4 : e->data.text_bytes;
    char text[96], before[64];
    if (e->name.type == JSON_ABSENT || e->name.text_bytes == 0) {
        api_refuse_text(call, 400, "invalid_input", "Event name is required");
        return false;
    }
    if (app->max_event_name_length > 0 && e->name.text_bytes > app->max_event_name_length) {
        snprintf(text, sizeof(text), "' exceeds maximum length of %u",
                 app->max_event_name_length);
        return refuse_name(call, 400, "limit_exceeded", "Event name '", &e->name, text);
    }
    if (app->max_event_payload_in_kb > 0 &&
        data_bytes > (uint64_t)app->max_event_payload_in_kb * 1024) {
        snprintf(before, sizeof(before), "Event payload size (%u bytes) for event '", data_bytes);
        snprintf(text, sizeof(text), "' exceeds limit (%uKB)", app->max_event_payload_in_kb);
        return refuse_name(call, 413, "payload_too_large", before, &e->name, text);
    }
    if (!check_channels(call, e) || !check_socket_id(call, e)) return false;
    if (e->key_text.type == JSON_STRING && app->idempotency_enabled) {
        return check_key(call, e->key_text.text_bytes);
    }
    e->key_text.type = JSON_ABSENT;
    return true;
}

/* ---- names, keys, info: copied out ---- */

static struct slice copy_text(struct event_work *w, const struct json_value *v)
{
    uint8_t *at = w->bytes + w->bytes_count;
    ASSERT(w->bytes_count + v->text_bytes <= w->bytes_room);
    json_decode(v, at);
    w->bytes_count += v->text_bytes;
    return slice_of(at, v->text_bytes);
}

static uint64_t event_bytes(const struct event *e)
{
    struct json_value item;
    uint64_t bytes = e->key_text.type == JSON_STRING ? e->key_text.text_bytes : 0;
    if (e->message_id.type == JSON_STRING) bytes += e->message_id.text_bytes;
    if (e->channels.type != JSON_ARRAY) return bytes + e->channel.text_bytes;
    for (struct json_iter it = json_iter_begin(&e->channels); json_array_next(&it, &item);) {
        bytes += item.text_bytes;
    }
    return bytes;
}

static bool make_targets(struct api_call *call, struct event_work *w)
{
    uint64_t targets = 0, bytes = w->key.bytes;
    for (uint32_t i = 0; i < w->events_count; i++) {
        targets += w->events[i].targets_count;
        bytes += event_bytes(&w->events[i]);
    }
    if (!room_for(targets, sizeof(*w->targets)) || !room_for(bytes, 1)) return no_memory(call);
    w->targets_room = (uint32_t)targets;
    w->bytes_room = u64_max(bytes, 1);
    if (targets > 0) {
        w->targets = heap_zalloc(call->sh->heap,
                                 w->targets_room * (uint32_t)sizeof(*w->targets));
        if (w->targets == NULL) return no_memory(call);
    }
    w->bytes = heap_alloc(call->sh->heap, (uint32_t)w->bytes_room);
    return w->bytes == NULL ? no_memory(call) : true;
}

static bool add_target(struct api_call *call, struct event_work *w, uint32_t event,
                       const struct json_value *name)
{
    const struct conf_app *app = &call->sh->conf->apps[call->app];
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct target *t = &w->targets[w->targets_count++];
    ASSERT(w->targets_count <= w->targets_room);
    t->event = event;
    t->name = copy_text(w, name);
    if (!pusher_channel_parse(t->name, app->max_channel_name_length, &app->names, &t->kind,
                              error)) {
        api_refuse_text(call, 400, "invalid_input", error);
        return false;
    }
    t->home = shard_home(call->sh, call->app, t->name);
    api_event_settle(call->sh, call->app, &w->events[event], t);
    w->owners = w->owners || w->events[event].owner_wanted;
    return true;
}

/* A channel named twice in one event gets it once. Open addressing: names may be many. */
static bool drop_repeats(struct api_call *call, struct event_work *w, struct event *e)
{
    uint32_t room = 4, kept = e->targets_first;
    if (e->targets_count < 2) return true;
    while (room < e->targets_count * 2) room *= 2;
    uint32_t *seen = heap_zalloc(call->sh->heap, room * (uint32_t)sizeof(*seen));
    if (seen == NULL) return no_memory(call);
    for (uint32_t i = e->targets_first; i < e->targets_first + e->targets_count; i++) {
        struct slice name = w->targets[i].name;
        uint64_t hash = hash_table(call->sh->server->table_seed, call->app, name);
        uint32_t at = (uint32_t)hash & (room - 1);
        while (seen[at] != 0 && !slice_equal(w->targets[seen[at] - 1].name, name)) {
            at = (at + 1) & (room - 1);
        }
        if (seen[at] != 0) continue;
        w->targets[kept++] = w->targets[i];
        seen[at] = kept;
    }
    heap_free(call->sh->heap, seen, room * (uint32_t)sizeof(*seen));
    e->targets_count = kept - e->targets_first;
    w->targets_count = kept;
    return true;
}

static bool copy_event(struct api_call *call, struct event_work *w, uint32_t index)
{
    struct event *e = &w->events[index];
    struct json_value item;
    e->targets_first = w->targets_count;
    if (e->channels.type == JSON_ARRAY) {
        for (struct json_iter it = json_iter_begin(&e->channels); json_array_next(&it, &item);) {
            if (!add_target(call, w, index, &item)) return false;
        }
        if (!drop_repeats(call, w, e)) return false;
    } else if (!add_target(call, w, index, &e->channel)) {
        return false;
    }
    if (e->message_id.type == JSON_STRING) e->id = copy_text(w, &e->message_id);
    if (e->key_text.type == JSON_STRING) {
        e->key = copy_text(w, &e->key_text);
        w->keys = true;
    }
    if (e->info_text.type == JSON_STRING && e->info_text.text_bytes < NAME_SHOWN_BYTES) {
        uint8_t info[NAME_SHOWN_BYTES];
        json_decode(&e->info_text, info);
        e->info = api_info_parse(slice_of(info, e->info_text.text_bytes));
    }
    return true;
}

/* The key of the whole request: of /events the body's, else the header's; of a batch the header's.
 * An /events key is kept as the request's, so that both are claimed and answered the same way. */
static bool copy_request_key(struct api_call *call, struct event_work *w)
{
    struct slice header = http_header(call->r, "x-idempotency-key");
    if (!w->batch && w->events[0].key.ptr != NULL) {
        w->key = w->events[0].key;
        w->events[0].key = slice_of(NULL, 0);
        return true;
    }
    if (w->key.ptr == NULL) return true;
    ASSERT(header.bytes == w->key.bytes);
    uint8_t *at = w->bytes + w->bytes_count;
    memcpy(at, header.ptr, header.bytes);
    w->bytes_count += header.bytes;
    w->key = slice_of(at, header.bytes);
    w->keys = true;
    return true;
}

/* A keyed request that fails in part is said again whole. Where one home may refuse its part, the
 * others know theirs by the key: also those that would be handed nothing but the frame. */
static void settle_keyed(struct event_work *w)
{
    bool any = false;
    for (uint32_t i = 0; i < w->targets_count; i++) any = any || w->targets[i].content;
    for (uint32_t i = 0; any && w->key.ptr != NULL && i < w->targets_count; i++) {
        w->targets[i].content = true;
    }
}

/* ---- the whole ---- */

static bool read(struct api_call *call, struct event_work *w)
{
    bool idempotent = call->sh->conf->apps[call->app].idempotency_enabled;
    struct slice header = http_header(call->r, "x-idempotency-key");
    if (w->batch) {
        if (!shape_batch(call, w)) return false;
    } else if (!make_events(call, w, 1) || !shape(call, call->body, &w->events[0])) {
        return false;
    }
    for (uint32_t i = 0; i < w->events_count; i++) {
        if (!check_event(call, &w->events[i])) return false;
        if (!api_event_check_more(call, &w->events[i])) return false;
    }
    if (idempotent && header.ptr != NULL &&
        (w->batch || w->events[0].key_text.type == JSON_ABSENT)) {
        if (!check_key(call, header.bytes)) return false;
        w->key = header;
    }
    if (!make_targets(call, w)) return false;
    for (uint32_t i = 0; i < w->events_count; i++) {
        if (!copy_event(call, w, i)) return false;
    }
    if (!copy_request_key(call, w)) return false;
    settle_keyed(w);
    return true;
}

struct event_work *api_event_read(struct api_call *call)
{
    if (!api_json_type(call)) return NULL;
    struct event_work *w = heap_zalloc(call->sh->heap, sizeof(*w));
    if (w == NULL) {
        no_memory(call);
        return NULL;
    }
    struct shard *sh = call->sh;
    w->app = call->app;
    w->batch = call->route == API_BATCH;
    if (read(call, w)) return w;
    api_event_free(sh, w);
    return NULL;
}

uint32_t api_events_weight(const struct api_call *call)
{
    struct json_value batch;
    struct json_error error;
    const struct json_field field = {"batch", &batch};
    if (call->route != API_BATCH || !json_object(call->body, &field, 1, &error)) return 1;
    return batch.type == JSON_ARRAY ? u32_max(array_count(&batch), 1) : 1;
}
