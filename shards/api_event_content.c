/* What a publish says beside its name and data: message id, tags, extras; and what the home of a
 * channel with memory is told of it. */
#include "shards/api_events.h"

#include <sodium.h>
#include <stdio.h>

enum { RECEIPT_KEY_BYTES_MAX = 128, AI_NOT_ENABLED = 104003 };

static const char *const ai_events[] = {
    "ai-input", "ai-output", "ai-run-start", "ai-run-suspend", "ai-run-resume", "ai-run-end",
    "ai-cancel", "ai-step-start", "ai-step-end", "ai-turn-start", "ai-turn-end",
};

/* ---- shape ---- */

/* A compact object without one of its members, in place. */
static void drop_member(struct slice *object, uint8_t *text, const char *name)
{
    struct json_value whole = {.type = JSON_OBJECT, .raw = *object}, key, value;
    uint32_t at = 1;
    for (struct json_iter it = json_iter_begin(&whole); json_object_next(&it, &key, &value);) {
        if (json_text_is(&key, name)) continue;
        uint32_t bytes = (uint32_t)(value.raw.ptr + value.raw.bytes - key.raw.ptr);
        if (at > 1) text[at++] = ',';
        memmove(text + at, key.raw.ptr, bytes);
        at += bytes;
    }
    text[at++] = '}';
    *object = at == 2 ? slice_of(NULL, 0) : slice_of(text, at);
}

static bool shape_extras(struct api_call *call, struct event *e)
{
    const struct conf *conf = call->sh->conf;
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (e->extras_text.type == JSON_NULL) e->extras_text.type = JSON_ABSENT;
    if (e->extras_text.type == JSON_ABSENT) return true;
    if (e->extras_text.type != JSON_OBJECT) {
        api_wrong_shape(call, "extras is an object");
        return false;
    }
    e->extras_made = heap_alloc(call->sh->heap, e->extras_text.text_bytes);
    if (e->extras_made == NULL) {
        api_busy(call, "Server is at its memory limit");
        return false;
    }
    if (!v2_extras_parse(&e->extras_text, e->extras_made, &e->extras, error)) {
        api_wrong_shape(call, error);
        return false;
    }
    struct slice *kept = &e->extras.canonical;
    uint8_t *text = e->extras_made;
    ASSERT(kept->ptr == NULL || kept->ptr == text);
    if (!conf->ephemeral_enabled && kept->ptr != NULL) drop_member(kept, text, "ephemeral");
    if (!conf->echo_control_enabled && kept->ptr != NULL) drop_member(kept, text, "echo");
    if (!conf->ephemeral_enabled) e->extras.ephemeral = false;
    return true;
}

static bool shape_tags(struct api_call *call, struct event *e)
{
    struct json_value key, value;
    if (e->tags.type == JSON_NULL) e->tags.type = JSON_ABSENT;
    if (e->tags.type == JSON_ABSENT) return true;
    bool fits = e->tags.type == JSON_OBJECT;
    if (fits) {
        struct json_iter it = json_iter_begin(&e->tags);
        while (fits && json_object_next(&it, &key, &value)) fits = value.type == JSON_STRING;
    }
    if (!fits) api_wrong_shape(call, "tags is an object of strings");
    return fits;
}

bool api_event_shape_more(struct api_call *call, struct event *e)
{
    return shape_tags(call, e) && shape_extras(call, e);
}

/* ---- rules ---- */

static bool is_ai(const struct event *e)
{
    struct json_value ai;
    struct json_error error;
    const struct json_field field = {"ai", &ai};
    for (uint32_t i = 0; i < sizeof(ai_events) / sizeof(ai_events[0]); i++) {
        if (json_text_is(&e->name, ai_events[i])) return true;
    }
    return e->extras.canonical.ptr != NULL &&
           json_object(e->extras.canonical, &field, 1, &error) && ai.type == JSON_OBJECT;
}

/* The key of the publish's receipt: message id, else extras.idempotencyKey; JSON_ABSENT: that of
 * the request or item, which has been checked. */
static const struct json_value *own_key(const struct event *e)
{
    return e->message_id.type == JSON_STRING ? &e->message_id : &e->extras.idempotency_key;
}

bool api_event_check_more(struct api_call *call, const struct event *e)
{
    const struct json_value *key = own_key(e);
    const char *text = NULL;
    if (is_ai(e)) {
        api_refuse_ai(call, 403, "ai_event_not_permitted", AI_NOT_ENABLED,
                      "AI Transport is not enabled for this channel");
        return false;
    }
    if (key->type != JSON_STRING || !call->sh->conf->apps[call->app].idempotency_enabled) {
        return true;
    }
    if (key->text_bytes == 0) text = "idempotency key must not be empty";
    else if (key->text_bytes > RECEIPT_KEY_BYTES_MAX) text = "idempotency key exceeds 128 bytes";
    if (text != NULL) api_refuse_text(call, 400, "invalid_input", text);
    return text == NULL;
}

void api_event_settle(const struct shard *sh, uint32_t app, struct event *e, struct target *t)
{
    struct conf_policy policy;
    conf_policy_of(sh->conf, app, t->name, &policy);
    t->content = policy.history || policy.recovery || e->tags.type == JSON_OBJECT ||
                 e->extras.canonical.ptr != NULL || e->message_id.type == JSON_STRING ||
                 json_text_starts(&e->name, "pusher") || json_text_starts(&e->name, "sockudo");
    if (policy.versioned && !e->extras.ephemeral && e->except_a + e->except_b > 0) {
        e->owner_wanted = true;
    }
}

/* ---- content ---- */

static struct slice keep(uint8_t **at, struct slice text)
{
    struct slice out = slice_of(text.ptr == NULL ? NULL : *at, text.bytes);
    if (text.bytes > 0) memcpy(*at, text.ptr, text.bytes);
    *at += text.bytes;
    return out;
}

static void hash_field(crypto_generichash_state *h, struct slice text)
{
    uint64_t bytes = text.ptr == NULL ? UINT64_MAX : text.bytes;
    crypto_generichash_update(h, (const uint8_t *)&bytes, sizeof(bytes));
    if (text.bytes > 0) crypto_generichash_update(h, text.ptr, text.bytes);
}

/* item: of a batch, under the key of the whole batch; 0: the key is the publish's own. */
static void make_receipt(const struct shard *sh, uint32_t app, const struct target *t,
                         struct slice key, uint32_t item, struct content *c)
{
    static const uint8_t zero = 0;
    uint8_t apart[16] = {0};
    struct slice app_id = sh->server->app_ids[app];
    crypto_generichash_state h;
    static_assert(sizeof(c->r.key) >= crypto_generichash_BYTES_MIN, "BLAKE2b makes 16 bytes");
    static_assert(sizeof(apart) >= crypto_generichash_KEYBYTES_MIN, "BLAKE2b's own key");
    memcpy(apart, &item, sizeof(item));
    crypto_generichash_init(&h, item > 0 ? apart : NULL, item > 0 ? sizeof(apart) : 0,
                            sizeof(c->r.key));
    crypto_generichash_update(&h, app_id.ptr, app_id.bytes);
    crypto_generichash_update(&h, &zero, 1);
    crypto_generichash_update(&h, t->name.ptr, t->name.bytes);
    crypto_generichash_update(&h, &zero, 1);
    crypto_generichash_update(&h, key.ptr, key.bytes);
    crypto_generichash_final(&h, c->r.key, sizeof(c->r.key));
    crypto_generichash_init(&h, NULL, 0, sizeof(c->r.print));
    hash_field(&h, t->name);
    hash_field(&h, c->r.name);
    hash_field(&h, c->r.data);
    hash_field(&h, c->r.tags);
    hash_field(&h, c->r.extras);
    hash_field(&h, c->r.message_id);
    crypto_generichash_final(&h, c->r.print, sizeof(c->r.print));
    c->has_key = true;
}

struct content *api_event_content(struct shard *sh, uint32_t app, const struct event_work *w,
                                  const struct event *e, const struct target *t)
{
    struct slice data = slice_str("\"null\"");
    const struct json_value *key = own_key(e);
    uint8_t key_text[RECEIPT_KEY_BYTES_MAX];
    if (e->data_made != NULL) data = slice_of(e->data_made, e->data_made_bytes);
    else if (e->data.type == JSON_STRING) data = e->data.raw;
    uint64_t bytes = (uint64_t)e->name.raw.bytes + data.bytes + e->extras.canonical.bytes +
                     e->tags.text_bytes + e->message_id.text_bytes + e->owner_bytes;
    if (bytes > RECORD_BYTES_MAX) return NULL;
    struct content *c = heap_alloc(sh->heap, (uint32_t)sizeof(*c) + (uint32_t)bytes);
    if (c == NULL) return NULL;
    memset(c, 0, sizeof(*c));
    c->bytes_count = (uint32_t)bytes;
    uint8_t *at = c->bytes;
    c->r.name = keep(&at, e->name.raw);
    c->r.data = keep(&at, data);
    c->r.extras = keep(&at, e->extras.canonical);
    if (e->tags.type == JSON_OBJECT) {
        c->r.tags = slice_of(at, json_compact(&e->tags, at));
        at += c->r.tags.bytes;
    }
    c->r.message_id = api_keep_text(&at, &e->message_id);
    c->r.owner = keep(&at, slice_of(e->owner, e->owner_bytes));
    c->ephemeral = e->extras.ephemeral;
    if (!sh->conf->apps[app].idempotency_enabled) return c;
    uint32_t item = w->batch && e->key.bytes == 0 ? 1 + (uint32_t)(e - w->events) : 0;
    struct slice given = item > 0 || !w->batch ? w->key : e->key;
    if (key->type == JSON_STRING) {
        json_decode(key, key_text);
        given = slice_of(key_text, key->text_bytes);
        item = 0;
    }
    if (given.bytes > 0) make_receipt(sh, app, t, given, item, c);
    return c;
}
