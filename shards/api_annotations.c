/* POST and GET .../messages/{m}/annotations, DELETE .../messages/{m}/annotations/{a}. */
#include "shards/api_want.h"

#include "shards/annotation.h"

#include <stdio.h>

struct create {
    struct json_value   type, name, client, socket, count, data, encoding;
    struct slice        type_text;       /* decoded, in the caller's buffer */
    enum annotation_kind kind;
    bool                has_socket;
    uint64_t            socket_a, socket_b;
};

static bool refuse(struct api_call *call, const char *text)
{
    api_refuse_text(call, 400, "invalid_input", text);
    return false;
}

/* ---- what all have in common ---- */

static bool check_channel(struct api_call *call, struct pusher_channel *kind, bool with_history)
{
    struct conf_policy policy;
    char text[PUSHER_ERROR_TEXT_BYTES];
    if (!api_want_channel(call, kind, &policy) || !api_want_versioned(call) ||
        !api_want_enabled(call, call->sh->conf->annotations_enabled,
                          "Annotations are disabled globally")) {
        return false;
    }
    if (!policy.annotations) {
        snprintf(text, sizeof(text), "Annotations are disabled by channel policy for channel "
                 "'%.*s'", (int)call->name.bytes, (const char *)call->name.ptr);
        api_refuse_text(call, 403, "forbidden", text);
        return false;
    }
    return !with_history ||
           api_want_enabled(call, policy.history, "Durable history is disabled by policy");
}

static bool parse_socket(struct api_call *call, struct slice text, uint64_t *a, uint64_t *b)
{
    if (pusher_socket_id_parse(text, a, b)) return true;
    return refuse(call, "Invalid socket_id: expected two integers joined by a dot");
}

/* ---- the actor: refused before the home is asked ---- */

static void refuse_capability(struct shard *sh, struct op *op, const char *what)
{
    const struct want *w = op->work;
    char text[PUSHER_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "%s capability is required for channel '%.*s'", what,
             (int)w->channel.bytes, (const char *)w->channel.ptr);
    want_end_refused(sh, op, 403, "forbidden", 0, text);
}

/* False: the request has been refused with 401. client: as given; ptr NULL: not. */
static bool check_actor(struct shard *sh, struct op *op, struct slice client)
{
    const struct want *w = op->work;
    const struct actor *who = w->asked;
    char text[PUSHER_ERROR_TEXT_BYTES], socket[PUSHER_SOCKET_ID_BYTES];
    pusher_socket_id_write(socket, who->a, who->b);
    if (!who->connected) {
        snprintf(text, sizeof(text), "Annotation actor socket '%s' is not connected", socket);
    } else if (!who->v2) {
        snprintf(text, sizeof(text), "Annotation actor socket must use protocol V2");
    } else if (client.ptr != NULL && who->id_bytes == 0) {
        snprintf(text, sizeof(text),
                 "Annotation actor socket is not signed in with an identified client");
    } else if (client.ptr != NULL && !slice_equal(client, slice_of(who->id, who->id_bytes))) {
        snprintf(text, sizeof(text),
                 "Requested client_id '%.*s' does not match authenticated actor '%.*s'",
                 (int)client.bytes, (const char *)client.ptr, (int)who->id_bytes,
                 (const char *)who->id);
    } else {
        return true;
    }
    want_end_refused(sh, op, 401, "auth_failed", 0, text);
    return false;
}

/* ---- create: the body ---- */

static bool shape(struct api_call *call, struct create *c)
{
    const struct json_field fields[] = {
        {"type", &c->type}, {"name", &c->name}, {"clientId", &c->client},
        {"socketId", &c->socket}, {"count", &c->count}, {"data", &c->data},
        {"encoding", &c->encoding},
    };
    uint64_t ignored;
    if (!api_want_body(call, fields, sizeof(fields) / sizeof(fields[0])) ||
        !api_want_type(call, &c->type, JSON_STRING, true, "type is a string") ||
        !api_want_type(call, &c->name, JSON_STRING, false, "name is a string") ||
        !api_want_type(call, &c->client, JSON_STRING, false, "clientId is a string") ||
        !api_want_type(call, &c->socket, JSON_STRING, false, "socketId is a string") ||
        !api_want_type(call, &c->count, JSON_NUMBER, false, "count is a number") ||
        !api_want_type(call, &c->encoding, JSON_STRING, false, "encoding is a string")) {
        return false;
    }
    if (c->data.type == JSON_NULL) c->data.type = JSON_ABSENT;
    if (c->count.type == JSON_NUMBER && !json_u64(&c->count, &ignored)) {
        api_wrong_shape(call, "count is an integer that is not negative");
        return false;
    }
    return true;
}

static bool check_body(struct api_call *call, struct create *c,
                       uint8_t type[ANNOTATION_TYPE_BYTES_MAX])
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    uint8_t socket[PUSHER_SOCKET_ID_BYTES];
    uint64_t count = 1;
    if (c->type.text_bytes > ANNOTATION_TYPE_BYTES_MAX) {
        return refuse(call, "annotation type must be at most 256 bytes");
    }
    json_decode(&c->type, type);
    c->type_text = slice_of(type, c->type.text_bytes);
    if (!annotation_type_parse(c->type_text, &c->kind, error)) return refuse(call, error);
    if (c->count.type == JSON_NUMBER) json_u64(&c->count, &count);
    if (count == 0) return refuse(call, "Annotation count must be greater than 0");
    if (annotation_wants_name(c->kind) && c->name.type == JSON_ABSENT) {
        return refuse(call, "annotation name is required for this annotation type");
    }
    c->has_socket = c->socket.type == JSON_STRING;
    if (annotation_wants_client(c->kind) && c->client.type == JSON_ABSENT && !c->has_socket) {
        return refuse(call, "annotation client_id is required for this annotation type");
    }
    if (!c->has_socket) return true;
    uint32_t bytes = c->socket.text_bytes < sizeof(socket) ? c->socket.text_bytes : 0;
    if (bytes > 0) json_decode(&c->socket, socket);
    return parse_socket(call, slice_of(socket, bytes), &c->socket_a, &c->socket_b);
}

/* ---- create: the content ---- */

static struct slice keep(uint8_t **at, struct slice text)
{
    struct slice out = slice_of(*at, text.bytes);
    if (text.bytes > 0) memcpy(*at, text.ptr, text.bytes);
    *at += text.bytes;
    return out;
}

/* The texts of the event; r.tags and r.extras hold data and encoding until write_event. */
static struct content *content_make(struct api_call *call, const struct create *c,
                                    const struct want *w)
{
    const struct json_value *values[] = {&c->name, &c->client, &c->count, &c->data, &c->encoding};
    uint64_t bytes = USER_ID_BYTES_MAX + c->type_text.bytes + w->serial.bytes;
    for (uint32_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        if (values[i]->type != JSON_ABSENT) bytes += values[i]->raw.bytes;
    }
    if (bytes > RECORD_BYTES_MAX) return NULL;
    struct content *out = heap_alloc(call->sh->heap, (uint32_t)sizeof(*out) + (uint32_t)bytes);
    if (out == NULL) return NULL;
    memset(out, 0, sizeof(*out));
    out->bytes_count = (uint32_t)bytes;
    uint8_t *at = out->bytes + USER_ID_BYTES_MAX;    /* the actor's id may follow */
    out->r.kind = RECORD_ANNOTATION;
    out->r.name = slice_str("\"annotation.create\"");
    out->r.message_id = keep(&at, w->serial);
    out->r.owner = keep(&at, c->type_text);
    out->r.description = api_keep_text(&at, &c->name);
    out->r.client = api_keep_text(&at, &c->client);
    out->r.metadata = api_keep_raw(&at, &c->count);
    out->r.tags = api_keep_raw(&at, &c->data);
    out->r.extras = api_keep_raw(&at, &c->encoding);
    return out;
}

static void add_text(struct api_text *t, const char *before, struct slice text)
{
    if (text.ptr == NULL) return;
    api_text_str(t, before);
    api_text_quote(t, text);
}

static void add_raw(struct api_text *t, const char *before, struct slice raw)
{
    if (raw.ptr == NULL) return;
    api_text_str(t, before);
    api_text_add(t, raw);
}

/* The event as it is stored, now that it is known whose it is; false at the heap's bound. */
static bool write_event(struct shard *sh, struct want *w)
{
    struct record *r = &w->content->r;
    struct api_text t = {.heap = sh->heap};
    char id[V2_UUID_BYTES];
    v2_uuid_write(id, rng_next(&sh->re.rng), rng_next(&sh->re.rng));
    add_text(&t, "{\"action\":\"annotation.create\",\"id\":", slice_str(id));
    add_text(&t, ",\"messageSerial\":", r->message_id);
    add_text(&t, ",\"type\":", r->owner);
    add_text(&t, ",\"name\":", r->description);
    add_text(&t, ",\"clientId\":", r->client);
    add_raw(&t, ",\"count\":", r->metadata);
    add_raw(&t, ",\"data\":", r->tags);
    add_raw(&t, ",\"encoding\":", r->extras);
    api_text_str(&t, "}");
    r->tags = r->extras = slice_of(NULL, 0);
    w->json = t.failed ? NULL : heap_alloc(sh->heap, t.bytes);
    if (w->json != NULL) {
        memcpy(w->json, t.ptr, t.bytes);
        w->json_bytes = t.bytes;
        r->data = slice_of(w->json, t.bytes);
    }
    api_text_free(&t);
    return w->json != NULL;
}

static void create_run(struct shard *sh, struct op *op)
{
    if (write_event(sh, op->work)) want_run(sh, op);
    else want_end_refused(sh, op, 503, "backpressure", 0, "Server is at its memory limit");
}

static void create_actor(struct shard *sh, struct op *op)
{
    struct want *w = op->work;
    struct content *c = w->content;
    enum annotation_kind kind;
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (!check_actor(sh, op, c->r.client)) return;
    if (!(w->asked->granted & ACTOR_PUBLISH) || !(w->asked->granted & ACTOR_ANNOTATE)) {
        refuse_capability(sh, op, "annotation-publish");
        return;
    }
    if (w->asked->id_bytes > 0) {
        memcpy(c->bytes, w->asked->id, w->asked->id_bytes);
        c->r.client = slice_of(c->bytes, w->asked->id_bytes);
    }
    bool known = annotation_type_parse(c->r.owner, &kind, error);
    ASSERT(known);
    if (annotation_wants_client(kind) && c->r.client.ptr == NULL) {
        want_end_refused(sh, op, 400, "invalid_input", 0,
                         "annotation client_id is required for this annotation type");
        return;
    }
    create_run(sh, op);
}

static void create(struct api_call *call)
{
    uint8_t type[ANNOTATION_TYPE_BYTES_MAX];
    struct pusher_channel kind;
    struct create c = {0};
    if (!shape(call, &c) || !check_channel(call, &kind, true) || !api_want_serial(call) ||
        !check_body(call, &c, type)) {
        return;
    }
    struct want *w = api_want_make(call, WANT_ANNOTATE, &kind, 0);
    if (w == NULL) return;
    w->content = content_make(call, &c, w);
    if (w->content == NULL) {
        api_want_refuse(call, 503, "backpressure", "Server is at its memory limit");
    } else if (c.has_socket) {
        api_want_actor(call, w, c.socket_a, c.socket_b, create_actor);
    } else {
        create_run(call->sh, call->op);
    }
}

/* ---- delete ---- */

static void delete_actor(struct shard *sh, struct op *op)
{
    struct want *w = op->work;
    uint32_t granted = w->asked->granted;
    if (!check_actor(sh, op, slice_of(NULL, 0))) return;
    bool identified = w->asked->id_bytes > 0;
    w->actor.id = slice_of(w->asked->id, w->asked->id_bytes);
    w->actor.scope = !identified                       ? CONTENT_NONE
                     : granted & ACTOR_UNANNOTATE_ANY ? CONTENT_ANY
                     : granted & ACTOR_UNANNOTATE_OWN ? CONTENT_OWN : CONTENT_NONE;
    want_run(sh, op);
}

static void delete(struct api_call *call)
{
    struct slice socket = sign_query_get(call->query, "socket_id");
    struct pusher_channel kind;
    char error[PUSHER_ERROR_TEXT_BYTES];
    uint64_t a = 0, b = 0;
    if (!check_channel(call, &kind, false) || !api_want_serial(call)) return;
    if (!v2_serial_check(call->annotation, "annotation_serial", error)) {
        refuse(call, error);
        return;
    }
    if (socket.ptr != NULL && !parse_socket(call, socket, &a, &b)) return;
    struct want *w = api_want_make(call, WANT_UNANNOTATE, &kind, call->annotation.bytes);
    if (w == NULL) return;
    w->annotation = want_text(w, call->annotation);
    w->actor.scope = CONTENT_PRIVILEGED;
    if (socket.ptr != NULL) api_want_actor(call, w, a, b, delete_actor);
    else want_run(call->sh, call->op);
}

/* ---- list ---- */

static void list_actor(struct shard *sh, struct op *op)
{
    const struct want *w = op->work;
    if (!check_actor(sh, op, slice_of(NULL, 0))) return;
    if ((w->asked->granted & ACTOR_SUBSCRIBE) && (w->asked->granted & ACTOR_ANNOTATIONS)) {
        want_run(sh, op);
    } else {
        refuse_capability(sh, op, "annotation-subscribe");
    }
}

static void list(struct api_call *call)
{
    struct slice socket = sign_query_get(call->query, "socket_id");
    struct slice type = sign_query_get(call->query, "type");
    struct slice from = sign_query_get(call->query, "from_serial");
    struct pusher_channel kind;
    enum annotation_kind ignored;
    char error[PUSHER_ERROR_TEXT_BYTES];
    uint32_t limit;
    uint64_t a = 0, b = 0, number;
    bool has;
    if (!api_want_u64(call, "limit", NULL, &has, &number)) return;   /* shape before policy */
    if (!check_channel(call, &kind, true) || !api_want_serial(call) ||
        !api_want_limit(call, call->sh->conf->versioned_messages_max_page_size,
                        "Annotation event limit", &limit)) {
        return;
    }
    if ((type.ptr != NULL && !annotation_type_parse(type, &ignored, error)) ||
        (from.ptr != NULL && !v2_serial_check(from, "annotation_serial", error))) {
        refuse(call, error);
        return;
    }
    if (socket.ptr != NULL && !parse_socket(call, socket, &a, &b)) return;
    struct want *w = api_want_make(call, WANT_ANNOTATIONS, &kind, type.bytes + from.bytes);
    if (w == NULL) return;
    w->type = want_text(w, type);
    w->page.cursor = want_text(w, from);
    w->page.limit = limit;
    if (socket.ptr != NULL) api_want_actor(call, w, a, b, list_actor);
    else want_run(call->sh, call->op);
}

void api_annotations(struct api_call *call)
{
    if (call->route == API_ANNOTATION) delete(call);
    else if (call->r->method == HTTP_POST) create(call);
    else list(call);
}
