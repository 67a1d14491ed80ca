#include "shards/upgrade.h"

#include "proto/origin.h"
#include "shards/ask.h"
#include "shards/reply.h"
#include "shards/session_v2.h"
#include "shards/socket_id.h"

#include <stdio.h>

enum { KEY_BYTES_MAX = 256, SUBPROTOCOL_BYTES_MAX = 128, VALUE_BYTES_MAX = 64 };

struct attempt {                         /* what the request asks for */
    uint8_t      key_bytes[KEY_BYTES_MAX];
    struct slice key;
    struct slice origin, subprotocol;
    bool         v2;                     /* protocol=2 */
    struct v2_query query;               /* V2 only */
    bool         token;
    char         accept[WS_ACCEPT_BYTES];
};

/* ---- reading the request ---- */

static bool boolean(struct slice v)
{
    return slice_is(v, "true") || slice_is(v, "false");
}

static bool protocol_number(struct slice v, uint32_t *out)
{
    uint32_t n = 0;
    if (v.bytes == 0 || v.bytes > 3) return false;
    for (uint32_t i = 0; i < v.bytes; i++) {
        if (v.ptr[i] < '0' || v.ptr[i] > '9') return false;
        n = n * 10 + (v.ptr[i] - '0');
    }
    *out = n;
    return n <= 255;
}

/* The next parameter, its value decoded into `bytes`. One that is malformed, or longer than any
 * that is read here, stays as it is. */
static bool next_parameter(struct slice *rest, struct slice *name, struct slice *value,
                           uint8_t bytes[VALUE_BYTES_MAX])
{
    if (!http_query_next(rest, name, value)) return false;
    int64_t n = value->bytes <= VALUE_BYTES_MAX ? http_decode(*value, true, bytes) : -1;
    if (n >= 0) *value = slice_of(bytes, (uint32_t)n);
    return true;
}

/* NULL when fine, else the text of the 400. The protocol says how the others are read. */
static const char *read_protocol(const struct http_request *r, struct attempt *a)
{
    struct slice rest = r->query, name, value;
    uint8_t bytes[VALUE_BYTES_MAX];
    uint32_t protocol = 7;
    while (next_parameter(&rest, &name, &value, bytes)) {
        if (slice_is(name, "protocol") && !protocol_number(value, &protocol)) {
            return "Invalid protocol parameter";
        }
    }
    a->v2 = protocol == 2;
    return NULL;
}

static const char *read_query(const struct http_request *r, struct attempt *a)
{
    struct slice rest = r->query, name, value;
    uint8_t bytes[VALUE_BYTES_MAX];
    const char *error = read_protocol(r, a);
    while (error == NULL && next_parameter(&rest, &name, &value, bytes)) {
        if (slice_is(name, "token")) a->token = true;
        if (a->v2) {
            v2_query_take(&a->query, name, value, &error);
        } else if (slice_is(name, "echo_messages") && !boolean(value)) {
            error = "Invalid echo_messages parameter";
        }
    }
    return error;
}

static const char *read_request(const struct http_request *r, struct attempt *a)
{
    struct slice path = slice_skip(r->path, 5), protocols;
    memset(a, 0, sizeof(*a));
    if (!r->upgrade) return "Connection and Upgrade headers must ask for websocket";
    if (!slice_is(http_header(r, "sec-websocket-version"), "13")) {
        return "Sec-WebSocket-Version must be 13";
    }
    if (!ws_accept_key(http_header(r, "sec-websocket-key"), a->accept)) {
        return "Sec-WebSocket-Key is missing or malformed";
    }
    if (path.bytes > 0 && path.ptr[path.bytes - 1] == '/') path.bytes--;
    if (path.bytes > sizeof(a->key_bytes)) path.bytes = 0;
    int64_t n = http_decode(path, false, a->key_bytes);
    if (n < 0) return "Invalid path encoding";
    a->key = slice_of(a->key_bytes, (uint32_t)n);
    a->origin = http_header(r, "origin");
    protocols = http_header(r, "sec-websocket-protocol");
    uint32_t end = 0;
    while (end < protocols.bytes && protocols.ptr[end] != ',' && protocols.ptr[end] != ' ') end++;
    if (end <= SUBPROTOCOL_BYTES_MAX) a->subprotocol = slice_of(protocols.ptr, end);
    return read_query(r, a);
}

/* ---- opening ---- */

static uint32_t write_101(char *out, uint32_t room, const struct attempt *a)
{
    int n = snprintf(out, room,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %.*s\r\n", WS_ACCEPT_BYTES,
                     a->accept);
    if (a->subprotocol.bytes > 0) {
        n += snprintf(out + n, room - (uint32_t)n, "Sec-WebSocket-Protocol: %.*s\r\n",
                      (int)a->subprotocol.bytes, (const char *)a->subprotocol.ptr);
    }
    return (uint32_t)(n + snprintf(out + n, room - (uint32_t)n, "\r\n"));
}

enum { OPENING_BYTES = 512 + PUSHER_SMALL_FRAME_BYTES };

static void set_protocol(const struct shard *sh, struct conn *c, const struct attempt *a)
{
    const struct conf *conf = sh->conf;
    c->v2 = a->v2;
    c->full = a->v2 && a->query.full;
    c->echo = !conf->echo_control_enabled ||
              (a->query.has_echo ? a->query.echo : conf->echo_control_default_echo_messages);
}

static void open_socket(struct shard *sh, struct conn *c, const struct attempt *a, uint32_t app)
{
    char out[OPENING_BYTES];
    uint32_t n = write_101(out, sizeof(out), a);
    c->app = (uint16_t)app;
    socket_id_draw(sh, c);
    conn_become_ws(sh, c);
    c->counted = true;
    set_protocol(sh, c, a);
    conn_log(sh, c, "connected", "protocol", slice_str(c->v2 ? "sockudo v2" : "pusher"));
    metric_add(sh->metrics, METRIC_CONNECTED, app, 0, 1);
    metric_add(sh->metrics, METRIC_NEW_CONNECTIONS_TOTAL, app, 0, 1);
    if (c->v2) {
        char id[V2_UUID_BYTES];
        session_v2_uuid(sh, id);
        n += v2_established_write((uint8_t *)out + n, c->socket_a, c->socket_b,
                                  sh->conf->activity_timeout, id);
    } else {
        n += pusher_established_write((uint8_t *)out + n, c->socket_a, c->socket_b,
                                      sh->conf->activity_timeout);
    }
    conn_send_bytes(sh, c, out, n);
    session_open(sh, c);
}

static void fail_socket(struct shard *sh, struct conn *c, const struct attempt *a, uint32_t code,
                        const char *text)
{
    char out[OPENING_BYTES];
    conn_become_ws(sh, c);
    set_protocol(sh, c, a);
    conn_send_bytes(sh, c, out, write_101(out, sizeof(out), a));
    conn_fail(sh, c, code, text);
}

static void count_error(struct shard *sh, uint32_t app, enum series_error e)
{
    metric_add(sh->metrics, METRIC_CONNECTION_ERRORS_TOTAL, app, e, 1);
}

static bool origin_allowed(const struct conf_app *app, struct slice origin)
{
    if (app->allowed_origins_count == 0) return true;
    for (uint32_t i = 0; i < app->allowed_origins_count; i++) {
        if (origin_matches(origin, slice_str(app->allowed_origins[i]))) return true;
    }
    return false;
}

/* Ask, and run again with the answer. False when the question could not be posted. */
static void again(struct shard *sh, struct op *op);

static bool suspend(struct shard *sh, struct conn *c, struct op **op, const struct http_request *r,
                    struct slice whole, enum ask_question q)
{
    *op = op_of_request(sh, c, *op, r);
    if (*op == NULL || !op_keep(sh, *op, whole, r->head_bytes)) return false;
    (*op)->next = again;
    (*op)->asking = q;
    if (q != ASK_WS_RATE) return ask_quota(sh, *op, q) == OK;
    struct ring_addr addr = ask_client(c, r, sh->conf->rate_websocket.trust_hops);
    return ask_address(sh, *op, q, &addr) == OK;
}

/* ---- the order of checks ---- */

enum outcome { DONE, WAITING, REFUSED };

/* Node and app quotas, in that order. REFUSED: *code and *text say how. */
static enum outcome quotas(struct shard *sh, struct conn *c, struct op **op,
                           const struct http_request *r, struct slice whole, uint32_t app,
                           uint32_t *code, const char **text)
{
    static const struct { enum ask_question q; uint32_t bit; uint32_t code; const char *text; }
    steps[] = {
        {ASK_NODE_QUOTA, OP_QUOTA_NODE, PUSHER_OVER_CAPACITY, "Over capacity"},
        {ASK_APP_QUOTA, OP_QUOTA_APP, PUSHER_APP_QUOTA, "Application is over adapter quota"},
    };
    uint32_t limits[] = {sh->conf->max_connections, sh->conf->apps[app].max_connections};
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t passed = *op == NULL ? 0 : (*op)->passed;
        if (limits[i] == 0 || (passed & steps[i].bit)) continue;
        *code = steps[i].code;
        *text = steps[i].text;
        if (*op != NULL && (*op)->refused == steps[i].bit) return REFUSED;
        *op = op_of_request(sh, c, *op, r);
        if (*op != NULL) (*op)->app = app;
        if (*op != NULL && suspend(sh, c, op, r, whole, steps[i].q)) return WAITING;
        *code = PUSHER_OVER_CAPACITY;
        *text = "Over capacity";
        return REFUSED;
    }
    return DONE;
}

/* Everything that is answered on an open WebSocket. NULL when the socket may open. */
static const char *check_app(struct shard *sh, struct conn *c, const struct attempt *a,
                             uint32_t *app, uint32_t *code)
{
    bool known = shard_app_by_key(sh->server, a->key, app);
    if (!known) {
        *code = PUSHER_NO_APP;
        count_error(sh, series_app_unknown(sh->conf->apps_count), SERIES_ERROR_APP_NOT_FOUND);
        return "Application does not exist";
    }
    const struct conf_app *conf = &sh->conf->apps[*app];
    c->app = (uint16_t)*app;
    if (!conf->enabled) {
        *code = PUSHER_APP_DISABLED;
        count_error(sh, *app, SERIES_ERROR_APP_DISABLED);
        return "Application disabled";
    }
    if (!origin_allowed(conf, a->origin)) {
        *code = PUSHER_UNAUTHORIZED;
        count_error(sh, *app, SERIES_ERROR_ORIGIN_NOT_ALLOWED);
        return "Origin not allowed";
    }
    if (sh->conns_count > sh->conns_max) {
        *code = PUSHER_OVER_CAPACITY;
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_CONNECTIONS_CAPACITY, 1);
        return "Over capacity";
    }
    if (shard_pressed(sh)) {
        *code = PUSHER_OVER_CAPACITY;
        return "Over capacity";
    }
    if (a->token) {
        *code = PUSHER_UNAUTHORIZED;
        count_error(sh, *app, SERIES_ERROR_AUTHENTICATION_FAILED);
        return a->v2 ? "Authentication error: capability tokens are not supported by this build"
                     : "Authentication error: capability tokens require protocol V2";
    }
    return NULL;
}

static void finish(struct shard *sh, struct conn *c, struct op *op, bool keep)
{
    if (op != NULL) op_close(sh, op);
    conn_answered(sh, c, keep);
}

static void try_open(struct shard *sh, struct conn *c, struct op *op, const struct attempt *a,
                     const struct http_request *r, struct slice whole)
{
    uint32_t app = 0, code = 0;
    const char *text = check_app(sh, c, a, &app, &code);
    if (text == NULL) {
        switch (quotas(sh, c, &op, r, whole, app, &code, &text)) {
        case WAITING:
            return;
        case DONE:
            if (op != NULL) {
                c->quota_node = (op->passed & OP_QUOTA_NODE) != 0;
                c->quota_app = (op->passed & OP_QUOTA_APP) != 0;
                op->passed &= ~(uint32_t)(OP_QUOTA_NODE | OP_QUOTA_APP);   /* the socket's now */
            }
            open_socket(sh, c, a, app);
            finish(sh, c, op, true);
            return;
        case REFUSED:
            break;
        }
    }
    fail_socket(sh, c, a, code, text);
    finish(sh, c, op, true);
}

static void refuse_rate(struct shard *sh, struct conn *c, struct op *op, struct slice origin,
                        bool keep)
{
    static const char body[] = "{\"error\":\"Too Many Requests\","
                               "\"message\":\"Rate limit exceeded. Please try again later.\"}";
    struct reply r = {
        .status = 429, .content_type = "application/json", .body = slice_str(body),
        .retry_after_s = (uint32_t)u64_max(op->verdict[3], 1), .rate_limit = op->verdict[1],
        .rate_left = op->verdict[2], .rate_reset_s = op->verdict[3], .cors = true,
        .origin = origin,
    };
    op->answered = true;
    reply_send(sh, c, &r, keep);
    op_close(sh, op);
}

static void refuse_http(struct shard *sh, struct conn *c, struct op *op, uint16_t status,
                        const char *text, const char *allow, bool keep)
{
    struct reply r = {
        .status = status, .content_type = "text/plain", .body = slice_str(text), .cors = true,
        .allow = allow,
    };
    if (op != NULL) op->answered = true;
    reply_send(sh, c, &r, keep);
    if (op != NULL) op_close(sh, op);
}

void upgrade_request(struct shard *sh, struct conn *c, struct op *op, const struct http_request *r,
                     struct slice whole)
{
    const struct conf *conf = sh->conf;
    struct attempt a;
    const char *text;
    if (r->method != HTTP_GET) {
        refuse_http(sh, c, op, 405, "Method Not Allowed", "GET", r->keep_alive);
    } else if (shard_is_draining(sh)) {
        refuse_http(sh, c, op, 503, "", NULL, r->keep_alive);
    } else if ((text = read_request(r, &a)) != NULL) {
        refuse_http(sh, c, op, 400, text, NULL, r->keep_alive);
    } else if (conf->rate_limiter_enabled && conf->rate_websocket.max_requests > 0 &&
               (op == NULL || !(op->passed & OP_RATE))) {
        if (op != NULL && op->refused == OP_RATE) {
            refuse_rate(sh, c, op, a.origin, r->keep_alive);
        } else if (!suspend(sh, c, &op, r, whole, ASK_WS_RATE)) {
            refuse_http(sh, c, op, 503, "Service Unavailable", NULL, r->keep_alive);
        }
    } else {
        try_open(sh, c, op, &a, r, whole);
    }
}

static void again(struct shard *sh, struct op *op)
{
    uint32_t bit = op->asking == ASK_WS_RATE ? OP_RATE
                   : op->asking == ASK_NODE_QUOTA ? OP_QUOTA_NODE : OP_QUOTA_APP;
    struct conn *c = op_conn(sh, op);
    struct http_request r;
    if (op->verdict[0] == ASK_YES) op->passed |= bit;
    else op->refused = bit;
    if (c != NULL && c->ended) {         /* the client left while we asked */
        conn_kill(sh, c);
        c = NULL;
    }
    if (c == NULL || c->state != CONN_HTTP) {
        op_close(sh, op);
        return;
    }
    op_request(sh, op, &r);
    upgrade_request(sh, c, op, &r, slice_of(op->input, op->input_bytes));
}
