/* Unsigned routes: is it alive, is it ready, what does it hold; and the metrics listener. */
#include "shards/api_parts.h"

#include "core/process.h"

#include <stdio.h>

/* ---- /up ---- */

static void answer_health(struct api_call *call, uint16_t status, const char *word)
{
    struct reply r = {.status = status, .body = slice_str(word), .health = word};
    api_answer(call, &r);
}

static void health_of_op(const struct op *op, struct reply *r, uint16_t status, const char *word)
{
    *r = (struct reply){
        .status = status, .body = slice_str(word), .health = word, .counted = true,
        .app = op->app, .cors = true, .head_only = op->head_only,
        .origin = slice_of(op->origin, op->origin_bytes),
    };
}

/* Every shard has answered; perhaps after the timeout, then the probe has its answer. */
static void alive(struct shard *sh, struct op *op)
{
    struct reply r;
    health_of_op(op, &r, 200, "OK");
    reply_op(sh, op, &r);
}

/* A shard does not answer in time. The op stays until it has. */
static void late(struct shard *sh, struct op *op)
{
    struct conn *c = op_conn(sh, op);
    struct reply r;
    if (c == NULL) return;
    health_of_op(op, &r, 503, "ERROR");
    op->answered = true;
    reply_send(sh, c, &r, op->keep_alive);
}

static void up(struct api_call *call)
{
    struct shard *sh = call->sh;
    uint32_t app;
    if (shard_is_draining(sh)) {
        answer_health(call, 503, "DRAINING");
        return;
    }
    if (call->route == API_UP_APP) {
        if (!shard_app_by_id(sh->server, call->app_id, &app)) {
            answer_health(call, 404, "NOT_FOUND");
            return;
        }
        if (!sh->conf->apps[app].enabled) {
            answer_health(call, 503, "ERROR");
            return;
        }
    }
    struct op *op = api_op(call);
    if (op == NULL) return;
    op->app = call->count_app;
    op->next = alive;
    if (ask_alive(sh, op) == OK) {
        op_arm(sh, op, sh->conf->health_check_timeout_ms, late);
        return;
    }
    late(sh, op);                        /* a full mailbox: its reader does not keep up */
    if (op->waiting == 0) op_close(sh, op);
}

/* ---- /usage, /stats ---- */

static void write_memory(struct api_text *t)
{
    struct process_host host;
    char percent[32];
    process_host_read(&host);
    uint64_t used = host.memory_bytes - host.free_bytes;
    snprintf(percent, sizeof(percent), "%.2f",
             host.memory_bytes == 0 ? 0.0 : 100.0 * (double)used / (double)host.memory_bytes);
    api_text_str(t, "\"memory\":{\"free\":");
    api_text_number(t, host.free_bytes);
    api_text_str(t, ",\"used\":");
    api_text_number(t, used);
    api_text_str(t, ",\"total\":");
    api_text_number(t, host.memory_bytes);
    api_text_str(t, ",\"percent\":");
    api_text_str(t, percent);
    api_text_str(t, "}");
}

struct stats {
    uint64_t connections, authenticated, users, channels, subscriptions;
    uint64_t presence_channels, presence_subscriptions, presence_members;
};

static uint64_t sum(const struct shard *sh, uint32_t id, uint32_t app, uint32_t label)
{
    int64_t total = 0;
    for (uint32_t i = 0; i < sh->server->shards_count; i++) {
        total += metric_read(sh->server->shards[i].metrics, id, app, label);
    }
    return total < 0 ? 0 : (uint64_t)total;   /* read while others count: moments apart */
}

static void read_app(const struct shard *sh, uint32_t app, struct stats *s)
{
    *s = (struct stats){
        .connections = sum(sh, METRIC_CONNECTED, app, 0),
        .authenticated = sum(sh, METRIC_AUTHENTICATED_CONNECTIONS, app, 0),
        .users = sum(sh, METRIC_USERS, app, 0),
        .presence_channels = sum(sh, METRIC_ACTIVE_CHANNELS, app, SERIES_CHANNEL_PRESENCE),
        .presence_subscriptions = sum(sh, METRIC_SUBSCRIPTIONS, app, SERIES_CHANNEL_PRESENCE),
        .presence_members = sum(sh, METRIC_PRESENCE_MEMBERS, app, 0),
    };
    for (uint32_t type = 0; type < SERIES_CHANNEL_COUNT; type++) {
        s->channels += sum(sh, METRIC_ACTIVE_CHANNELS, app, type);
        s->subscriptions += sum(sh, METRIC_SUBSCRIPTIONS, app, type);
    }
}

static void add_stats(struct stats *total, const struct stats *s)
{
    total->connections += s->connections;
    total->authenticated += s->authenticated;
    total->users += s->users;
    total->channels += s->channels;
    total->subscriptions += s->subscriptions;
    total->presence_channels += s->presence_channels;
    total->presence_subscriptions += s->presence_subscriptions;
    total->presence_members += s->presence_members;
}

static void write_stats(struct api_text *t, const struct stats *s)
{
    const struct { const char *name; uint64_t n; } fields[] = {
        {"\"connections\":", s->connections},
        {",\"authenticated_connections\":", s->authenticated},
        {",\"users\":", s->users},
        {",\"connections_with_meta\":", 0},
        {",\"occupancy\":{\"channels\":", s->channels},
        {",\"subscriptions\":", s->subscriptions},
        {",\"presence_channels\":", s->presence_channels},
        {",\"presence_subscriptions\":", s->presence_subscriptions},
        {",\"presence_members\":", s->presence_members},
    };
    for (uint32_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        api_text_str(t, fields[i].name);
        api_text_number(t, fields[i].n);
    }
    api_text_str(t, "}");
}

/* The app whose id follows `after` in order (NULL: the first); -1 at the end. Apps are few. */
static int64_t next_app(const struct conf *conf, const char *after)
{
    int64_t best = -1;
    for (uint32_t i = 0; i < conf->apps_count; i++) {
        const char *id = conf->apps[i].id;
        if (after != NULL && strcmp(id, after) <= 0) continue;
        if (best < 0 || strcmp(id, conf->apps[best].id) < 0) best = i;
    }
    return best;
}

static void write_apps(struct shard *sh, struct api_text *t, struct stats *total)
{
    const struct conf *conf = sh->conf;
    int64_t app = next_app(conf, NULL);
    for (bool first = true; app >= 0; first = false) {
        struct stats s;
        read_app(sh, (uint32_t)app, &s);
        add_stats(total, &s);
        api_text_str(t, first ? "{\"app_id\":" : ",{\"app_id\":");
        api_text_quote(t, slice_str(conf->apps[app].id));
        api_text_str(t, ",");
        write_stats(t, &s);
        api_text_str(t, "}");
        app = next_app(conf, conf->apps[app].id);
    }
}

static void usage(struct api_call *call)
{
    struct shard *sh = call->sh;
    struct api_text t = {.heap = sh->heap}, apps = t;
    struct stats total = {0};
    if (!sh->conf->http_usage_enabled) {
        api_plain(call, 404, "404 NOT FOUND");
        return;
    }
    api_text_str(&t, "{");
    write_memory(&t);
    if (call->route == API_STATS) {
        write_apps(sh, &apps, &total);
        api_text_str(&t, ",\"totals\":{\"apps\":");
        api_text_number(&t, sh->conf->apps_count);
        api_text_str(&t, ",");
        write_stats(&t, &total);
        api_text_str(&t, "},\"apps\":[");
        api_text_add(&t, api_text_slice(&apps));
        api_text_str(&t, "]");
    }
    api_text_str(&t, "}");
    if (t.failed || apps.failed) api_busy(call, "Server is at its memory limit");
    else api_json(call, api_text_slice(&t));
    api_text_free(&apps);
    api_text_free(&t);
}

void api_health(struct api_call *call)
{
    if (call->route == API_LIVE) {
        struct reply r = {.status = 200};
        api_answer(call, &r);
    } else if (call->route == API_UP || call->route == API_UP_APP) {
        up(call);
    } else {
        usage(call);
    }
}

/* ---- the metrics listener ---- */

void api_metrics_request(struct shard *sh, struct conn *c, const struct http_request *r)
{
    const struct metrics *sets[REACTOR_SHARDS_MAX];
    struct metric_text text = {0};
    struct reply answer = {
        .status = 200, .content_type = METRIC_CONTENT_TYPE, .head_only = r->method == HTTP_HEAD,
    };
    if (!slice_is(r->path, "/metrics") || (r->method != HTTP_GET && r->method != HTTP_HEAD)) {
        answer.status = 404;
        answer.content_type = "text/plain; charset=utf-8";
        answer.body = slice_str("404 NOT FOUND");
        reply_send(sh, c, &answer, r->keep_alive);
        return;
    }
    uint32_t n = sh->server->shards_count;
    for (uint32_t i = 0; i < n; i++) sets[i] = sh->server->shards[i].metrics;
    metric_set(sh->metrics, METRIC_LOG_LINES_DROPPED_TOTAL, 0, 0, (int64_t)log_dropped());
    series_process(sh->metrics, sets, n, sh->server->started_wall_ms);
    if (metric_render(sh->server->metric_table, sets, n, &text) == OK &&
        text.bytes <= UINT32_MAX / 2) {
        answer.body = slice_of(text.ptr, (uint32_t)text.bytes);
    } else {
        answer.status = 503;
    }
    reply_send(sh, c, &answer, r->keep_alive);
    metric_text_free(&text);
}
