/* Routes, and the checks that every signed request passes in this order: address window ->
 * signature -> app -> the app's own window -> the route's handler. A check that must ask a home
 * suspends the request, which then runs again from the top (op.h). */
#include "shards/api_parts.h"

#include "proto/utf8.h"
#include "shards/upgrade.h"
#include "shards/user.h"

#include <stdio.h>

enum { TARGET_BYTES_MAX = 8192 };

/* ---- answers ---- */

void api_answer(struct api_call *call, struct reply *r)
{
    r->cors = true;
    r->counted = call->counted;
    r->app = call->count_app;
    if (call->op != NULL) {
        reply_op(call->sh, call->op, r);
        return;
    }
    r->head_only = call->r->method == HTTP_HEAD;
    r->origin = http_header(call->r, "origin");
    reply_send(call->sh, call->c, r, call->r->keep_alive);
}

void api_json(struct api_call *call, struct slice body)
{
    struct reply r = {.status = 200, .content_type = "application/json", .body = body};
    api_answer(call, &r);
}

void api_plain(struct api_call *call, uint16_t status, const char *text)
{
    struct reply r = {
        .status = status, .content_type = "text/plain; charset=utf-8", .body = slice_str(text),
    };
    api_answer(call, &r);
}

void api_refuse(struct api_call *call, uint16_t status, const char *code, struct slice text,
                uint32_t retry_after_s)
{
    char body[REPLY_ERROR_BYTES];
    struct reply r = {
        .status = status, .content_type = "application/json", .retry_after_s = retry_after_s,
        .body = slice_of(body, reply_error_write(body, status, code, text)),
    };
    api_answer(call, &r);
}

void api_refuse_text(struct api_call *call, uint16_t status, const char *code, const char *text)
{
    api_refuse(call, status, code, slice_str(text), 0);
}

void api_refuse_ai(struct api_call *call, uint16_t status, const char *code, uint32_t ai_code,
                   const char *text)
{
    char body[REPLY_ERROR_BYTES];
    uint32_t bytes = reply_error_write_ai(body, status, code, ai_code, slice_str(text));
    struct reply r = {
        .status = status, .content_type = "application/json", .body = slice_of(body, bytes),
    };
    api_answer(call, &r);
}

void api_not_json(struct api_call *call, const struct json_error *e)
{
    char text[160];
    snprintf(text, sizeof(text), "Failed to parse the request body as JSON: %s at byte %u",
             e->text, e->offset);
    api_plain(call, 400, text);
}

void api_wrong_shape(struct api_call *call, const char *what)
{
    char text[PUSHER_ERROR_TEXT_BYTES + 80];
    snprintf(text, sizeof(text),
             "Failed to deserialize the JSON body into the target type: %s", what);
    api_plain(call, 422, text);
}

static bool type_is_json(struct slice type)
{
    static const char json[] = "application/json";
    uint32_t end = 0;
    while (end < type.bytes && type.ptr[end] != ';') end++;
    while (end > 0 && (type.ptr[end - 1] == ' ' || type.ptr[end - 1] == '\t')) end--;
    if (end != sizeof(json) - 1) return false;
    for (uint32_t i = 0; i < end; i++) {
        uint8_t c = type.ptr[i];
        if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != (uint8_t)json[i]) return false;
    }
    return true;
}

bool api_json_type(struct api_call *call)
{
    if (type_is_json(http_header(call->r, "content-type"))) return true;
    api_plain(call, 415, "Expected request with `Content-Type: application/json`");
    return false;
}

void api_busy(struct api_call *call, const char *text)
{
    api_refuse(call, 503, "backpressure", slice_str(text), 1);
}

static struct op *op_taken(struct api_call *call, struct op *op)
{
    call->op = op;
    if (op == NULL) {
        api_busy(call, "Server is at its memory limit");
        return NULL;
    }
    op->app = call->app;
    if (call->authentic) op->passed |= OP_SIGNED;
    return op;
}

struct op *api_op(struct api_call *call)
{
    return op_taken(call, op_of_request(call->sh, call->c, call->op, call->r));
}

struct op *api_suspend(struct api_call *call)
{
    return op_taken(call, op_suspend(call->sh, call->c, call->op, call->r, call->whole));
}

/* ---- routing ---- */

static bool is_write(enum api_route route)
{
    return route == API_EVENTS || route == API_BATCH || route == API_UPDATE ||
           route == API_DELETE || route == API_APPEND;
}

static bool is_signed(enum api_route route) { return route >= API_EVENTS; }

static bool decode(struct slice in, uint8_t **at, struct slice *out)
{
    int64_t n = http_decode(in, false, *at);
    if (n < 0) return false;
    *out = slice_of(*at, (uint32_t)n);
    *at += n;
    return utf8_valid(*out);
}

/* ---- counting ---- */

static void count(struct api_call *call)
{
    struct shard *sh = call->sh;
    uint32_t apps = sh->conf->apps_count, app = series_app_unknown(apps);
    if (!is_signed(call->route) && call->route != API_UP && call->route != API_UP_APP) return;
    call->counted = true;
    if (call->route == API_UP) app = series_app_system(apps);
    else shard_app_by_id(sh->server, call->app_id, &app);
    call->count_app = app;
    if (call->op != NULL) return;        /* it was counted when it first ran */
    metric_add(sh->metrics, METRIC_HTTP_CALLS_RECEIVED_TOTAL, app, 0, 1);
    metric_add(sh->metrics, METRIC_HTTP_RECEIVED_BYTES, app, 0, call->body.bytes);
}

/* ---- the checks: each is true when the request may go on, else it has answered or waits ---- */

static bool refuse_window(struct api_call *call)
{
    struct op *op = call->op;
    static const char body[] = "{\"error\":\"Too Many Requests\","
                               "\"message\":\"Rate limit exceeded. Please try again later.\"}";
    struct reply r = {
        .status = 429, .content_type = "application/json", .body = slice_str(body),
        .retry_after_s = (uint32_t)u64_max(op->rate_reset_s, 1),
    };
    api_answer(call, &r);
    return false;
}

static bool check_address(struct api_call *call)
{
    struct shard *sh = call->sh;
    struct op *op = call->op;
    if (!ask_address_limited(sh, ASK_API_RATE)) return true;
    if (op != NULL && op->asking == ASK_API_RATE) {
        op->rate_limit = op->verdict[1];
        op->rate_left = op->verdict[2];
        op->rate_reset_s = op->verdict[3];
    }
    if (op != NULL && (op->passed & OP_RATE)) return true;
    if (op != NULL && op->refused == OP_RATE) return refuse_window(call);
    struct ring_addr addr = ask_client(call->c, call->r, sh->conf->rate_api.trust_hops);
    op = api_suspend(call);
    if (op != NULL && ask_address(sh, op, ASK_API_RATE, &addr) != OK) {
        api_busy(call, "Server is busy");
    }
    return false;
}

static bool refuse_signature(struct api_call *call, enum sign_api e)
{
    char text[96];
    uint16_t status = 401;
    const char *code = "auth_failed", *why = sign_api_text(e);
    if (e == SIGN_API_NO_QUERY || e == SIGN_API_BAD_QUERY) {
        status = 400;
        code = "invalid_input";
    } else if (e == SIGN_API_NO_KEY) {
        status = 404;
        code = "app_not_found";
    } else if (e == SIGN_API_MD5_FORBIDDEN) {
        snprintf(text, sizeof(text),
                 "body_md5 must not be present in query parameters for %.*s requests",
                 (int)u32_min(call->r->method_text.bytes, 16),
                 (const char *)call->r->method_text.ptr);
        why = text;
    }
    api_refuse_text(call, status, code, why);
    return false;
}

static bool check_signature(struct api_call *call, struct sign_query *q, uint8_t *scratch)
{
    struct shard *sh = call->sh;
    const struct http_request *r = call->r;
    enum sign_api e = sign_query_parse(r->query, r->has_query, scratch, q);
    if (e == SIGN_API_OK && !shard_app_by_key(sh->server, q->auth_key, &call->app)) {
        e = SIGN_API_NO_KEY;
    }
    if (e != SIGN_API_OK) return refuse_signature(call, e);
    call->query = q;
    call->authentic = call->op != NULL && (call->op->passed & OP_SIGNED);
    if (call->authentic) return true;
    if (!slice_equal(sh->server->app_ids[call->app], call->app_id)) {
        api_refuse_text(call, 401, "auth_failed", "Authenticated app does not match route app_id");
        return false;
    }
    e = sign_api_check(q, r->method_text, r->path, call->body,
                       sh->server->app_secrets[call->app], sh->re.clock_ms / 1000);
    if (e != SIGN_API_OK) return refuse_signature(call, e);
    if (!sh->conf->apps[call->app].enabled) {
        api_refuse_text(call, 403, "auth_failed", "Application disabled");
        return false;
    }
    call->authentic = true;
    return true;
}

static bool check_app_window(struct api_call *call)
{
    struct shard *sh = call->sh;
    const struct conf_app *app = &sh->conf->apps[call->app];
    bool write = is_write(call->route);
    if (!write && call->r->method != HTTP_GET && call->r->method != HTTP_HEAD) return true;
    uint32_t bit = write ? OP_BACKEND : OP_READ;
    uint32_t limit = write ? app->max_backend_events_per_second
                           : app->max_read_requests_per_second;
    struct op *op = call->op;
    if (limit == 0 || (op != NULL && (op->passed & bit))) return true;
    if (op != NULL && op->refused == bit) {
        api_refuse(call, 429, "rate_limited", slice_str("Rate limit exceeded"),
                   (uint32_t)u64_max(op->verdict[3], 1));
        return false;
    }
    op = api_suspend(call);
    if (op != NULL && ask_app_rate(sh, op, write ? ASK_BACKEND_RATE : ASK_READ_RATE,
                                   write ? api_events_weight(call) : 1) != OK) {
        api_busy(call, "Server is busy");
    }
    return false;
}

static void signed_request(struct api_call *call)
{
    uint8_t scratch[TARGET_BYTES_MAX];
    struct sign_query q;
    ASSERT(call->r->query.bytes <= sizeof(scratch));
    if (call->op == NULL && shard_refuses_requests(call->sh)) {   /* one under way goes on */
        api_busy(call, "Server is shutting down");
        return;
    }
    if (!check_address(call)) return;
    if (!check_signature(call, &q, scratch)) return;
    if (!check_app_window(call)) return;
    switch (call->route) {
    case API_EVENTS:
    case API_BATCH: api_events(call); return;
    case API_CHANNELS:
    case API_CHANNEL:
    case API_USERS: api_state(call); return;
    case API_TERMINATE:
    case API_RECONNECT: api_users(call); return;
    case API_MESSAGE:
    case API_VERSIONS:
    case API_UPDATE:
    case API_DELETE:
    case API_APPEND: api_message(call); return;
    case API_HISTORY:
    case API_HISTORY_STATE:
    case API_HISTORY_RESET:
    case API_HISTORY_PURGE:
    case API_PRESENCE_HISTORY:
    case API_PRESENCE_STATE:
    case API_PRESENCE_RESET:
    case API_PRESENCE_SNAPSHOT: api_history(call); return;
    case API_ANNOTATIONS:
    case API_ANNOTATION: api_annotations(call); return;
    case API_NONE:
    case API_LIVE:
    case API_UP:
    case API_UP_APP:
    case API_USAGE:
    case API_STATS: break;
    }
    ASSERT(!"not a signed route");
}

/* ---- OPTIONS ---- */

static void add_words(struct api_text *t, const char *name, char *const *words, uint32_t count)
{
    if (count == 0) return;
    api_text_str(t, name);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) api_text_str(t, ", ");
        api_text_str(t, words[i]);
    }
    api_text_str(t, "\r\n");
}

static void preflight(struct api_call *call)
{
    const struct conf *conf = call->sh->conf;
    struct api_text t = {.heap = call->sh->heap};
    add_words(&t, "Access-Control-Allow-Methods: ", conf->cors_methods, conf->cors_methods_count);
    add_words(&t, "Access-Control-Allow-Headers: ", conf->cors_headers, conf->cors_headers_count);
    struct reply r = {.status = 200};
    if (!t.failed) r.more = api_text_slice(&t);
    api_answer(call, &r);
    api_text_free(&t);
}

/* ---- the entry ---- */

static void run(struct api_call *call, struct slice path)
{
    uint8_t decoded[TARGET_BYTES_MAX], *at = decoded;
    struct slice s[API_SEGMENTS_MAX];
    ASSERT(path.bytes <= sizeof(decoded));
    if (path.bytes > 1 && path.ptr[path.bytes - 1] == '/') path.bytes--;
    uint32_t n = api_route_split(path, s);
    call->route = api_route_of(s, n);
    if (call->route == API_NONE) {
        api_plain(call, 404, "404 NOT FOUND");
        return;
    }
    const char *allow = api_route_refuses(call->route, call->r->method);
    if (allow != NULL) {
        struct reply r = {.status = 405, .allow = allow};
        api_answer(call, &r);
        return;
    }
    if ((n > 1 && !decode(s[1], &at, &call->app_id)) ||
        (n > 3 && !decode(s[3], &at, &call->name)) ||
        (n > 5 && !decode(s[5], &at, &call->message)) ||
        (n > 7 && !decode(s[7], &at, &call->annotation))) {
        api_plain(call, 400, "Invalid URL: not percent-encoded UTF-8");
        return;
    }
    count(call);
    if (is_signed(call->route)) signed_request(call);
    else api_health(call);
}

void api_request(struct shard *sh, struct conn *c, struct op *op, const struct http_request *r,
                 struct slice whole)
{
    struct api_call call = {
        .sh = sh, .c = c, .op = op, .r = r, .whole = whole,
        .body = slice_skip(whole, r->head_bytes),
    };
    if (r->method == HTTP_OPTIONS) preflight(&call);
    else if (slice_starts(r->path, "/app/")) upgrade_request(sh, c, op, r, whole);
    else run(&call, r->path);
}

/* ---- users ---- */

static void users_ended(struct shard *sh, struct op *op)
{
    struct reply r = {
        .status = 200, .content_type = "application/json", .body = slice_str("{\"ok\":true}"),
        .counted = true, .app = op->app,
    };
    reply_op(sh, op, &r);
}

void api_users(struct api_call *call)
{
    uint32_t code = call->route == API_TERMINATE ? PUSHER_UNAUTHORIZED : PUSHER_RECONNECT;
    if (call->name.bytes == 0 || call->name.bytes > USER_ID_BYTES_MAX) {
        api_json(call, slice_str("{\"ok\":true}"));      /* nobody can be signed in as this */
        return;
    }
    struct op *op = api_op(call);
    if (op == NULL) return;
    if (user_end(call->sh, op, call->app, call->name, code) != OK) {
        api_busy(call, "Server is busy");
        return;
    }
    op->asking = ASK_USER_END;
    op->waiting++;
    op->next = users_ended;
}

/* ---- letters ---- */

void api_on_published(struct shard *sh, const struct letter *l)
{
    struct op *op = l->payload;
    if (op->work != NULL) api_events_on_published(op, l);
    op_answered(sh, op);
}
