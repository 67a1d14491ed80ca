#include "shards/api_want.h"

#include <stdio.h>

/* ---- checks ---- */

bool api_want_channel(struct api_call *call, struct pusher_channel *kind,
                      struct conf_policy *policy)
{
    const struct conf_app *app = &call->sh->conf->apps[call->app];
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (!pusher_channel_parse(call->name, app->max_channel_name_length, &app->names, kind,
                              error)) {
        api_refuse_text(call, 400, "invalid_input", error);
        return false;
    }
    conf_policy_of(call->sh->conf, call->app, call->name, policy);
    return true;
}

bool api_want_enabled(struct api_call *call, bool enabled, const char *what)
{
    char text[PUSHER_ERROR_TEXT_BYTES];
    if (enabled) return true;
    snprintf(text, sizeof(text), "%s for channel '%.*s'", what, (int)call->name.bytes,
             (const char *)call->name.ptr);
    api_refuse_text(call, 422, "feature_disabled", text);
    return false;
}

bool api_want_versioned(struct api_call *call)
{
    return api_want_enabled(call, call->sh->conf->versioned_messages_enabled,
                            "Versioned messages are disabled");
}

bool api_want_serial(struct api_call *call)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    if (v2_serial_check(call->message, "message_serial", error)) return true;
    api_refuse_text(call, 400, "invalid_input", error);
    return false;
}

static bool bad_number(struct api_call *call, const char *name)
{
    char text[96];
    snprintf(text, sizeof(text), "Failed to deserialize query string: %s is not a number", name);
    api_plain(call, 400, text);
    return false;
}

static struct slice query_of(const struct api_call *call, const char *name, const char *alias)
{
    struct slice v = sign_query_get(call->query, name);
    return v.ptr == NULL && alias != NULL ? sign_query_get(call->query, alias) : v;
}

static bool digits(struct slice text, uint64_t *out)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < text.bytes; i++) {
        uint64_t digit = (uint64_t)text.ptr[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, digit, &n)) {
            return false;
        }
    }
    *out = n;
    return text.bytes > 0;
}

bool api_want_u64(struct api_call *call, const char *name, const char *alias, bool *has,
                  uint64_t *out)
{
    struct slice v = query_of(call, name, alias);
    *has = v.ptr != NULL;
    return !*has || digits(v, out) || bad_number(call, name);
}

bool api_want_i64(struct api_call *call, const char *name, const char *alias, bool *has,
                  int64_t *out)
{
    struct slice v = query_of(call, name, alias);
    uint64_t n = 0;
    *has = v.ptr != NULL;
    if (!*has) return true;
    bool minus = v.bytes > 0 && v.ptr[0] == '-';
    if (!digits(minus ? slice_skip(v, 1) : v, &n) || n > INT64_MAX) {
        return bad_number(call, name);
    }
    *out = minus ? -(int64_t)n : (int64_t)n;
    return true;
}

bool api_want_limit(struct api_call *call, uint32_t max, const char *what, uint32_t *out)
{
    uint64_t n = max;
    bool has;
    char text[96];
    if (!api_want_u64(call, "limit", NULL, &has, &n)) return false;
    if (n == 0) {
        snprintf(text, sizeof(text), "%s must be greater than 0", what);
        api_refuse_text(call, 400, "invalid_input", text);
        return false;
    }
    *out = (uint32_t)u64_min(n, max);
    return true;
}

bool api_want_body(struct api_call *call, const struct json_field *fields, uint32_t fields_count)
{
    struct json_error error;
    if (!api_json_type(call)) return false;
    if (json_object(call->body, fields, fields_count, &error)) return true;
    if (error.text == JSON_NOT_OBJECT) api_wrong_shape(call, "the body is an object");
    else api_not_json(call, &error);
    return false;
}

bool api_want_type(struct api_call *call, struct json_value *v, enum json_type type, bool required,
                   const char *what)
{
    if (v->type == JSON_NULL) v->type = JSON_ABSENT;
    if (v->type == type || (v->type == JSON_ABSENT && !required)) return true;
    api_wrong_shape(call, what);
    return false;
}

/* ---- asking ---- */

struct want *api_want_make(struct api_call *call, enum want_kind kind,
                           const struct pusher_channel *channel, uint32_t more)
{
    if (shard_pressed(call->sh)) {
        api_busy(call, "Server is at its memory limit");
        return NULL;
    }
    struct op *op = api_op(call);
    if (op == NULL) return NULL;
    struct want *w = want_make(call->sh, kind, call->app,
                               call->name.bytes + call->message.bytes + more);
    if (w == NULL) {
        api_busy(call, "Server is at its memory limit");
        return NULL;
    }
    op->work = w;
    w->op = op;
    w->channel = want_text(w, call->name);
    w->serial = want_text(w, call->message);
    w->channel_kind = (uint8_t)channel->kind;
    w->channel_cache = channel->cache;
    if (call->message.ptr != NULL) {
        char node[V2_NODE_BYTES];
        stream_node(call->sh, call->app, w->channel, node);
        if (!v2_serial_parse(w->serial, node, &w->message_ms, &w->message)) w->message = 0;
    }
    return w;
}

void api_want_refuse(struct api_call *call, uint16_t status, const char *code, const char *text)
{
    want_end_refused(call->sh, call->op, status, code, 0, text);
}

void api_want_no_message(struct api_call *call)
{
    char text[PUSHER_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "Message '%.*s' was not found in channel '%.*s'",
             (int)call->message.bytes, (const char *)call->message.ptr, (int)call->name.bytes,
             (const char *)call->name.ptr);
    if (call->op != NULL && call->op->work != NULL) api_want_refuse(call, 404, "not_found", text);
    else api_refuse_text(call, 404, "not_found", text);
}

bool api_want_actor(struct api_call *call, struct want *w, uint64_t a, uint64_t b,
                    op_fn next)
{
    struct shard *sh = call->sh;
    w->asked = heap_zalloc(sh->heap, sizeof(*w->asked));
    if (w->asked == NULL) {
        api_want_refuse(call, 503, "backpressure", "Server is at its memory limit");
        return false;
    }
    w->asked->a = a;
    w->asked->b = b;
    w->asked->app = call->app;
    w->asked->channel = w->channel;
    w->op->next = next;
    if (actor_ask(sh, w->op, w->asked) == OK) return true;
    api_want_refuse(call, 503, "backpressure", "Server is busy");
    return false;
}
