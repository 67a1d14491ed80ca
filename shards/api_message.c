/* GET .../messages/{m}, its versions; POST .../messages/{m}/update, delete, append. */
#include "shards/api_want.h"

#include <sodium.h>
#include <stdio.h>

enum { OP_ID_BYTES_MAX = 64 };

/* ---- reads ---- */

static bool read_versions_page(struct api_call *call, struct want_page *page)
{
    struct slice direction = sign_query_get(call->query, "direction");
    page->newest_first = direction.ptr == NULL || slice_is(direction, "newest_first");
    if (!page->newest_first && !slice_is(direction, "oldest_first")) {
        api_plain(call, 400, "Failed to deserialize query string: direction is newest_first or "
                             "oldest_first");
        return false;
    }
    page->cursor = sign_query_get(call->query, "cursor");
    uint64_t number;
    bool has;
    return api_want_u64(call, "limit", NULL, &has, &number);
}

static bool check_versions_page(struct api_call *call, struct want_page *page)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (!api_want_limit(call, call->sh->conf->versioned_messages_max_page_size, "versions limit",
                        &page->limit)) {
        return false;
    }
    if (page->cursor.ptr == NULL || v2_serial_check(page->cursor, "version_serial", error)) {
        return true;
    }
    api_refuse_text(call, 400, "invalid_input", error);
    return false;
}

static void read(struct api_call *call)
{
    bool versions = call->route == API_VERSIONS;
    struct want_page page = {0};
    struct pusher_channel kind;
    struct conf_policy policy;
    if (versions && !read_versions_page(call, &page)) return;
    if (!api_want_channel(call, &kind, &policy) || !api_want_versioned(call) ||
        !api_want_serial(call) || (versions && !check_versions_page(call, &page))) {
        return;
    }
    if (!policy.versioned) {             /* no history, no messages */
        api_want_no_message(call);
        return;
    }
    struct want *w = api_want_make(call, versions ? WANT_VERSIONS : WANT_MESSAGE, &kind,
                                   page.cursor.bytes);
    if (w == NULL) return;
    w->page = page;
    w->page.cursor = want_text(w, page.cursor);
    want_run(call->sh, call->op);
}

/* ---- mutations: the body ---- */

struct mutation {
    struct json_value name, data, extras_text, clear_fields, client, socket, description, metadata,
        op;
    struct v2_extras extras;
    uint8_t  clear;                      /* enum content_clear */
    uint64_t socket_a, socket_b;
};

static bool refuse(struct api_call *call, const char *text)
{
    api_refuse_text(call, 400, "invalid_input", text);
    return false;
}

static bool shape(struct api_call *call, struct mutation *m)
{
    bool append = call->route == API_APPEND;
    struct json_value unused[2];
    const struct json_field fields[] = {
        {"name", call->route == API_UPDATE ? &m->name : &unused[0]}, {"data", &m->data},
        {"extras", &m->extras_text}, {"clear_fields", append ? &unused[1] : &m->clear_fields},
        {"client_id", &m->client}, {"socket_id", &m->socket},
        {"description", &m->description}, {"metadata", &m->metadata}, {"op_id", &m->op},
    };
    if (!api_want_body(call, fields, sizeof(fields) / sizeof(fields[0]))) return false;
    if (m->data.type == JSON_NULL) m->data.type = JSON_ABSENT;
    if (m->metadata.type == JSON_NULL) m->metadata.type = JSON_ABSENT;
    return api_want_type(call, &m->name, JSON_STRING, false, "name is a string") &&
           (!append || api_want_type(call, &m->data, JSON_STRING, true, "data is a string")) &&
           api_want_type(call, &m->extras_text, JSON_OBJECT, false, "extras is an object") &&
           api_want_type(call, &m->clear_fields, JSON_ARRAY, false, "clear_fields is an array") &&
           api_want_type(call, &m->client, JSON_STRING, false, "client_id is a string") &&
           api_want_type(call, &m->socket, JSON_STRING, false, "socket_id is a string") &&
           api_want_type(call, &m->description, JSON_STRING, false, "description is a string") &&
           api_want_type(call, &m->op, JSON_STRING, false, "op_id is a string");
}

/* Which fields are to be cleared; *repeated: one of them twice. */
static bool shape_clear(struct api_call *call, struct mutation *m, bool *repeated)
{
    static const char *const names[] = {"name", "data", "extras"};
    struct json_value item;
    *repeated = false;
    if (m->clear_fields.type != JSON_ARRAY) return true;
    for (struct json_iter it = json_iter_begin(&m->clear_fields); json_array_next(&it, &item);) {
        uint8_t bit = 0;
        for (uint32_t i = 0; i < 3; i++) {
            if (json_text_is(&item, names[i])) bit = (uint8_t)(1 << i);
        }
        if (bit == 0) {
            api_wrong_shape(call, "clear_fields holds name, data or extras");
            return false;
        }
        *repeated = *repeated || (m->clear & bit);
        m->clear |= bit;
    }
    return true;
}
static_assert(CONTENT_CLEAR_NAME == 1 && CONTENT_CLEAR_DATA == 2 && CONTENT_CLEAR_EXTRAS == 4,
              "bits in the order of the names");

static bool is_terminal(const struct mutation *m)
{
    return slice_is(m->extras.status, "complete") || slice_is(m->extras.status, "cancelled");
}

static bool check_socket(struct api_call *call, struct mutation *m)
{
    uint8_t text[PUSHER_SOCKET_ID_BYTES];
    if (m->socket.type == JSON_ABSENT) return true;
    if (m->socket.text_bytes < sizeof(text)) {
        json_decode(&m->socket, text);
        if (pusher_socket_id_parse(slice_of(text, m->socket.text_bytes), &m->socket_a,
                                   &m->socket_b)) {
            return true;
        }
    }
    return refuse(call, "Invalid socket_id: expected two integers joined by a dot");
}

static bool check(struct api_call *call, const struct mutation *m, bool repeated)
{
    bool any = m->name.type != JSON_ABSENT || m->data.type != JSON_ABSENT ||
               m->extras_text.type != JSON_ABSENT || m->clear != 0 ||
               m->client.type != JSON_ABSENT || m->description.type != JSON_ABSENT ||
               m->metadata.type != JSON_ABSENT || m->op.type != JSON_ABSENT;
    if (call->route == API_UPDATE && !any) {
        return refuse(call, "update request must include at least one patch field or operation "
                            "metadata");
    }
    if (repeated) return refuse(call, "clear_fields must not contain duplicates");
    if (((m->clear & CONTENT_CLEAR_NAME) && m->name.type != JSON_ABSENT) ||
        ((m->clear & CONTENT_CLEAR_DATA) && m->data.type != JSON_ABSENT) ||
        ((m->clear & CONTENT_CLEAR_EXTRAS) && m->extras_text.type != JSON_ABSENT)) {
        return refuse(call, call->route == API_UPDATE
                                ? "update request cannot both replace and clear the same field"
                                : "delete request cannot both replace and clear the same field");
    }
    if (call->route == API_APPEND && m->data.text_bytes == 0 && !is_terminal(m)) {
        return refuse(call, "append request data must not be empty");
    }
    return true;
}

/* What the configuration and the path allow; then, at the home, whether the message exists. */
static bool check_target(struct api_call *call, const struct mutation *m,
                         struct pusher_channel *kind)
{
    struct conf_policy policy;
    if (m->op.type == JSON_STRING &&
        (m->op.text_bytes == 0 || m->op.text_bytes > OP_ID_BYTES_MAX)) {
        return refuse(call, "op_id must be 1..=64 bytes");
    }
    return api_want_channel(call, kind, &policy) && api_want_versioned(call) &&
           api_want_enabled(call, policy.history, "Durable history is disabled by policy") &&
           api_want_serial(call);
}

/* ---- mutations: the content ---- */

/* Room for everything that may go into it: compact forms are never longer than what was given. */
static struct content *content_make(struct shard *sh, const struct mutation *m)
{
    const struct json_value *values[] = {
        &m->name, &m->data, &m->extras_text, &m->client, &m->description, &m->metadata, &m->op,
    };
    uint64_t bytes = USER_ID_BYTES_MAX;
    for (uint32_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        if (values[i]->type != JSON_ABSENT) bytes += values[i]->raw.bytes;
    }
    if (bytes > RECORD_BYTES_MAX) return NULL;
    struct content *c = heap_alloc(sh->heap, (uint32_t)sizeof(*c) + (uint32_t)bytes);
    if (c == NULL) return NULL;
    memset(c, 0, sizeof(*c));
    c->bytes_count = (uint32_t)bytes;
    return c;
}

static uint8_t record_kind(enum api_route route)
{
    return route == API_UPDATE ? RECORD_UPDATE : route == API_DELETE ? RECORD_DELETE
                                                                     : RECORD_APPEND;
}

/* False: the extras are refused. */
static bool content_fill(struct api_call *call, struct mutation *m, struct content *c)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    uint8_t *at = c->bytes + USER_ID_BYTES_MAX;      /* the actor's id may follow */
    if (m->extras_text.type == JSON_OBJECT) {
        if (!v2_extras_parse(&m->extras_text, at, &m->extras, error)) {
            api_wrong_shape(call, error);
            return false;
        }
        c->r.extras = m->extras.canonical;
        c->extras_given = true;
        at += c->r.extras.bytes;
    }
    c->r.kind = record_kind(call->route);
    c->r.name = api_keep_raw(&at, &m->name);
    c->r.data = api_keep_raw(&at, &m->data);
    c->r.client = api_keep_text(&at, &m->client);
    c->r.description = api_keep_text(&at, &m->description);
    c->r.metadata = api_keep_raw(&at, &m->metadata);
    c->r.op_id = api_keep_text(&at, &m->op);
    c->name_given = m->name.type != JSON_ABSENT;
    c->data_given = m->data.type != JSON_ABSENT;
    c->clear = m->clear;
    c->scope = CONTENT_PRIVILEGED;
    return true;
}

static void hash_field(crypto_generichash_state *h, struct slice text)
{
    uint64_t bytes = text.ptr == NULL ? UINT64_MAX : text.bytes;
    crypto_generichash_update(h, (const uint8_t *)&bytes, sizeof(bytes));
    if (text.bytes > 0) crypto_generichash_update(h, text.ptr, text.bytes);
}

/* What an op_id stands for: of which action, and of exactly which operation. `given` is the
 * client_id of the request, before the actor's took its place. */
static void fingerprint(const struct shard *sh, const struct want *w, struct slice given)
{
    struct content *c = w->content;
    crypto_generichash_state h;
    uint8_t op[crypto_generichash_BYTES_MIN], word[2] = {c->r.kind, c->clear};
    if (c->r.op_id.ptr == NULL) return;
    crypto_generichash_init(&h, NULL, 0, sizeof(op));
    crypto_generichash_update(&h, word, 1);
    crypto_generichash_update(&h, c->r.op_id.ptr, c->r.op_id.bytes);
    crypto_generichash_final(&h, op, sizeof(op));
    memcpy(&c->r.op_hash, op, sizeof(c->r.op_hash));
    if (c->r.op_hash == 0) c->r.op_hash = 1;
    crypto_generichash_init(&h, NULL, 0, sizeof(c->r.print));
    crypto_generichash_update(&h, word, sizeof(word));
    hash_field(&h, sh->server->app_ids[w->app]);
    hash_field(&h, w->channel);
    hash_field(&h, w->serial);
    hash_field(&h, c->r.name);
    hash_field(&h, c->r.data);
    hash_field(&h, c->extras_given && c->r.extras.ptr == NULL ? slice_str("{}") : c->r.extras);
    hash_field(&h, given);
    hash_field(&h, c->r.description);
    hash_field(&h, c->r.metadata);
    hash_field(&h, c->actor);
    crypto_generichash_final(&h, c->r.print, sizeof(c->r.print));
}

/* ---- mutations: the actor ---- */

/* What is wrong with the actor, for a 401; false: nothing is. */
static bool actor_refused(struct want *w, struct slice client)
{
    const struct actor *who = w->asked;
    char socket[PUSHER_SOCKET_ID_BYTES];
    pusher_socket_id_write(socket, who->a, who->b);
    if (!who->connected) {
        snprintf(w->text, sizeof(w->text), "Mutation actor socket '%s' is not connected", socket);
    } else if (!who->v2) {
        snprintf(w->text, sizeof(w->text), "Mutation actor socket must use protocol V2");
    } else if (client.ptr != NULL && who->id_bytes == 0) {
        snprintf(w->text, sizeof(w->text),
                 "Mutation actor socket is not signed in with an identified client");
    } else if (client.ptr != NULL && !slice_equal(client, slice_of(who->id, who->id_bytes))) {
        snprintf(w->text, sizeof(w->text),
                 "Requested client_id '%.*s' does not match authenticated actor '%.*s'",
                 (int)client.bytes, (const char *)client.ptr, (int)who->id_bytes,
                 (const char *)who->id);
    } else {
        return false;
    }
    return true;
}

static void settle_scope(struct want *w)
{
    struct content *c = w->content;
    uint32_t granted = w->asked->granted, any, own;
    switch (w->action) {
    case RECORD_UPDATE: any = ACTOR_UPDATE_ANY; own = ACTOR_UPDATE_OWN; break;
    case RECORD_DELETE: any = ACTOR_DELETE_ANY; own = ACTOR_DELETE_OWN; break;
    default: any = ACTOR_APPEND_ANY; own = ACTOR_APPEND_OWN; break;
    }
    c->scope = granted & any ? CONTENT_ANY : granted & own ? CONTENT_OWN : CONTENT_NONE;
    memcpy(c->bytes, w->asked->id, w->asked->id_bytes);
    if (w->asked->id_bytes == 0) return;
    c->actor = slice_of(c->bytes, w->asked->id_bytes);
    if (c->scope == CONTENT_OWN || c->r.client.ptr == NULL) c->r.client = c->actor;
}

static void actor_answered(struct shard *sh, struct op *op)
{
    struct want *w = op->work;
    struct slice given = w->content->r.client;
    w->actor.denied = actor_refused(w, given);
    if (w->actor.denied) w->content->scope = CONTENT_NONE;
    else settle_scope(w);
    fingerprint(sh, w, given);
    want_run(sh, op);
}

static void mutate(struct api_call *call, struct mutation *m, const struct pusher_channel *kind,
                   struct content *c)
{
    struct want *w = api_want_make(call, WANT_MUTATE, kind, 0);
    if (w == NULL) {
        heap_free(call->sh->heap, c, (uint32_t)sizeof(*c) + c->bytes_count);
        return;
    }
    w->content = c;
    w->action = c->r.kind;
    c->message = w->message;
    c->message_ms = w->message_ms;
    if (w->message == 0) {
        api_want_no_message(call);
    } else if (m->socket.type == JSON_STRING) {
        w->actor.given = true;
        api_want_actor(call, w, m->socket_a, m->socket_b, actor_answered);
    } else {
        fingerprint(call->sh, w, c->r.client);
        want_run(call->sh, call->op);
    }
}

static void write(struct api_call *call)
{
    struct mutation m = {0};
    struct pusher_channel kind;
    bool repeated;
    if (!shape(call, &m) || !shape_clear(call, &m, &repeated)) return;
    struct content *c = content_make(call->sh, &m);
    if (c == NULL) {
        api_busy(call, "Server is at its memory limit");
        return;
    }
    if (content_fill(call, &m, c) && check(call, &m, repeated) && check_socket(call, &m) &&
        check_target(call, &m, &kind)) {
        mutate(call, &m, &kind, c);
        return;
    }
    heap_free(call->sh->heap, c, (uint32_t)sizeof(*c) + c->bytes_count);
}

void api_message(struct api_call *call)
{
    if (call->route == API_MESSAGE || call->route == API_VERSIONS) read(call);
    else write(call);
}
