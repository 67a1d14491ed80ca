/* What POST /events and /batch_events answer, and count, once everything has been published. */
#include "shards/api_events.h"

#include "shards/want.h"

/* A key of the request or of a batch's item was counted when it was claimed. */
static bool key_counted(const struct event_work *w, const struct event *e)
{
    return e->key.ptr != NULL || (!w->batch && w->key.ptr != NULL);
}

/* message_id or extras.idempotencyKey: not the key that an item has from its batch. */
static bool has_own_key(const struct event *e)
{
    return e->message_id.type == JSON_STRING || e->extras.idempotency_key.type == JSON_STRING;
}

void api_event_count(struct shard *sh, uint32_t app, const struct event_work *w)
{
    for (uint32_t i = 0; i < w->events_count; i++) {
        const struct event *e = &w->events[i];
        bool keyed = false, duplicate = !e->skipped;     /* on every one of its channels */
        for (uint32_t j = 0; j < e->targets_count; j++) {
            const struct target *t = &w->targets[e->targets_first + j];
            keyed = keyed || t->keyed;
            duplicate = duplicate && t->duplicate;
        }
        bool counted = key_counted(w, e);
        if (!keyed || (!counted && !has_own_key(e))) continue;
        if (!counted) metric_add(sh->metrics, METRIC_IDEMPOTENCY_PUBLISH_TOTAL, app, 0, 1);
        if (duplicate) metric_add(sh->metrics, METRIC_IDEMPOTENCY_DUPLICATES_TOTAL, app, 0, 1);
    }
}

static void write_uuid(struct shard *sh, struct api_text *t)
{
    char text[V2_UUID_BYTES];
    v2_uuid_write(text, rng_next(&sh->re.rng), rng_next(&sh->re.rng));
    api_text_quote(t, slice_str(text));
}

/* "acknowledgement_id":"..","message_serial":"..", ... of a channel where it became a message. */
static void write_serials(struct shard *sh, struct api_text *t, const struct event_work *w,
                          const struct target *target)
{
    char node[V2_NODE_BYTES], message[V2_SERIAL_BYTES], version[V2_SERIAL_BYTES];
    stream_node(sh, w->app, target->name, node);
    v2_serial_write(message, target->create_ms, node, target->create);
    v2_serial_write(version, target->time_ms, node, target->delivery);
    api_text_quote(t, slice_str(message));
    api_text_str(t, ",\"message_serial\":");
    api_text_quote(t, slice_str(message));
    api_text_str(t, ",\"version_serial\":");
    api_text_quote(t, slice_str(version));
    api_text_str(t, ",\"history_serial\":");
    api_text_number(t, target->history);
    api_text_str(t, ",\"delivery_serial\":");
    api_text_number(t, target->delivery);
}

/* {"acknowledgement_id":"..",..,"user_count":n,"subscription_count":n} */
static void write_ack(struct shard *sh, struct api_text *t, const struct event_work *w,
                      const struct event *e, const struct target *target)
{
    api_text_str(t, "{\"acknowledgement_id\":");
    if (target->versioned) write_serials(sh, t, w, target);
    else if (e->id.ptr != NULL) api_text_quote(t, e->id);
    else write_uuid(sh, t);
    if (e->info & (API_INFO_USERS | API_INFO_SUBSCRIPTIONS)) {
        uint32_t before = t->bytes;
        api_text_str(t, ",");
        if (!api_info_write(t, e->info, target->kind.kind == PUSHER_PRESENCE, target->users,
                            target->subscriptions)) {
            t->bytes = before;
        }
    }
    api_text_str(t, "}");
}

/* {"channels":{"a":{..},"b":{..}}} */
static void write_channels(struct shard *sh, struct api_text *t, const struct event_work *w,
                           const struct event *e)
{
    api_text_str(t, "{\"channels\":{");
    for (uint32_t i = 0; i < e->targets_count; i++) {
        const struct target *target = &w->targets[e->targets_first + i];
        if (i > 0) api_text_str(t, ",");
        api_text_quote(t, target->name);
        api_text_str(t, ":");
        write_ack(sh, t, w, e, target);
    }
    api_text_str(t, "}}");
}

void api_event_write(struct shard *sh, struct api_text *t, const struct event_work *w,
                     const struct event *e)
{
    if (e->with_info) write_channels(sh, t, w, e);
    else api_text_str(t, "{\"ok\":true}");
}

void api_event_write_batch(struct shard *sh, struct api_text *t, const struct event_work *w)
{
    bool any = false;
    for (uint32_t i = 0; i < w->events_count; i++) any = any || w->events[i].with_info;
    if (!any) {
        api_text_str(t, "{}");
        return;
    }
    api_text_str(t, "{\"batch\":[");
    for (uint32_t i = 0; i < w->events_count; i++) {
        const struct event *e = &w->events[i];
        if (i > 0) api_text_str(t, ",");
        if (!e->with_info || e->skipped) api_text_str(t, "{}");
        else write_ack(sh, t, w, e, &w->targets[e->targets_first]);
    }
    api_text_str(t, "]}");
}
