/* Backends of a tale: they create and change messages, say again what they had no answer to, read
 * messages, versions and history, and compare every answer with the model. */
#include "tests/sim/backend.h"
#include "tests/sim/peer.h"
#include "tests/sim/tale.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    WINDOW = 1 << 20, BACKENDS = 4, PENDING_MAX = 16, ACT_PENDING_MAX = 4, BATCH_MAX = 3,
    BODY_BYTES = 4096, ANSWER_BYTES = 1 << 20, PAGE = 7,
};

enum ask { ASK_EVENT, ASK_BATCH, ASK_CHANGE, ASK_MESSAGE, ASK_VERSIONS, ASK_HISTORY };

struct pending {
    enum ask ask;
    uint32_t app, channel, count;
    uint32_t ops[BATCH_MAX];         /* the message asked for, in its place */
};

struct backend {
    struct sim_peer *peer;
    struct sim_pipe  in;
    struct pending   pending[PENDING_MAX];
    uint32_t         pending_count;
};

static struct backend backends[BACKENDS];
struct tale_pages tale_pages;
static char answer_text[ANSWER_BYTES], whole_text[ANSWER_BYTES];

/* ---- what is asked ---- */

static void ask(struct backend *b, const char *method, const char *rest, const char *info,
                const char *body, struct pending p)
{
    static char text[2 * BODY_BYTES];
    uint32_t n = backend_request_write(text, sizeof(text), method, p.app, rest, info, body);
    ASSERT(b->pending_count < PENDING_MAX);
    if (world.verbose) fprintf(stderr, "%u: backend %d asks app %u %s %s %s\n", world.step,
                               (int)(b - backends), p.app, rest, info, body);
    sim_pipe_put(&b->peer->to_server, text, n);
    b->pending[b->pending_count++] = p;
}

static uint32_t put_event(char *at, size_t room, uint32_t op)
{
    const struct tale_op *o = &tale.ops[op];
    char text[TALE_TEXT_BYTES], key[64] = "", extras[64] = "";
    tale_text(op, text);
    if (o->keyed) snprintf(key, sizeof(key), ",\"message_id\":\"k%u\"", op);
    if (o->marked) snprintf(extras, sizeof(extras), ",\"extras\":{\"headers\":{\"op\":%u}}", op);
    int n = snprintf(at, room, "{\"name\":\"ev\",\"channel\":\"%s\",\"data\":\"%s\"%s%s}",
                     tale_channel(o->channel), text, key, extras);
    ASSERT(n < (int)room);
    return (uint32_t)n;
}

static void say_create(struct backend *b, uint32_t op)
{
    char body[BODY_BYTES];
    const struct tale_op *o = &tale.ops[op];
    put_event(body, sizeof(body), op);
    ask(b, "POST", "events", "", body, (struct pending){
        .ask = ASK_EVENT, .app = o->app, .channel = o->channel, .count = 1, .ops = {op},
    });
}

static void say_change(struct backend *b, uint32_t op)
{
    static const char *const words[] = {"", "update", "delete", "append"};
    const struct tale_op *o = &tale.ops[op];
    char body[BODY_BYTES], rest[256], text[TALE_TEXT_BYTES];
    char data[TALE_TEXT_BYTES + 16] = "\"clear_fields\":[\"data\"]", id[64] = "", extras[64] = "";
    tale_text(op, text);
    if (!o->cleared) snprintf(data, sizeof(data), "\"data\":\"%s\"", text);
    if (o->keyed) snprintf(id, sizeof(id), ",\"op_id\":\"o%u\"", op);
    if (o->marked) snprintf(extras, sizeof(extras), ",\"extras\":{\"headers\":{\"op\":%u}}", op);
    snprintf(body, sizeof(body), "{%s%s%s}", data, id, extras);
    snprintf(rest, sizeof(rest), "channels/%s/messages/%s/%s", tale_channel(o->channel),
             tale.ops[o->create].name, words[o->action]);
    ask(b, "POST", rest, "", body, (struct pending){
        .ask = ASK_CHANGE, .app = o->app, .channel = o->channel, .count = 1, .ops = {op},
    });
}

static uint32_t make_create(uint32_t app)
{
    uint32_t op = tale_op_new(app, maybe(600) ? 0 : below(TALE_CHANNELS), TALE_CREATE, 0);
    tale.ops[op].keyed = maybe(700);
    tale.ops[op].marked = maybe(256);
    return op;
}

static void create(struct backend *b, uint32_t app)
{
    char body[BODY_BYTES] = "{\"batch\":[";
    struct pending p = {.ask = ASK_BATCH, .app = app};
    if (maybe(900)) {
        say_create(b, make_create(app));
        return;
    }
    size_t n = strlen(body);
    for (uint32_t i = 0, count = 2 + below(BATCH_MAX - 1); i < count; i++) {
        uint32_t op = p.ops[p.count++] = make_create(app);
        if (i > 0) body[n++] = ',';
        n += put_event(body + n, sizeof(body) - n, op);
    }
    snprintf(body + n, sizeof(body) - n, "]}");
    ask(b, "POST", "batch_events", "", body, p);
}

/* Mostly a message of late; 0: none is known. */
static uint32_t some_message(uint32_t app)
{
    for (uint32_t i = 0; i < 40 && tale.ops_count > 1; i++) {
        uint32_t back = below(maybe(800) ? 60 : tale.ops_count - 1);
        if (back >= tale.ops_count - 1) continue;
        uint32_t op = tale.ops_count - 1 - back;
        const struct tale_op *o = &tale.ops[op];
        if (o->app == app && o->action == TALE_CREATE && o->name[0] != 0) return op;
    }
    return 0;
}

static void change(struct backend *b, uint32_t app)
{
    uint32_t message = some_message(app), what = below(100);
    if (message == 0) return;
    enum tale_action action = what < 70 ? TALE_APPEND : what < 88 ? TALE_UPDATE : TALE_DELETE;
    uint32_t op = tale_op_new(app, tale.ops[message].channel, action, message);
    struct tale_op *o = &tale.ops[op];
    o->keyed = maybe(600);
    o->marked = action == TALE_DELETE || maybe(100);
    o->cleared = action == TALE_DELETE && maybe(300);
    say_change(b, op);
}

/* What nobody answered is said again, and now and then what was answered. */
static void again(struct backend *b)
{
    for (uint32_t i = 0; i < 20 && tale.ops_count > 1; i++) {
        uint32_t back = below(maybe(900) ? 200 : tale.ops_count - 1);
        if (back >= tale.ops_count - 1) continue;
        uint32_t op = tale.ops_count - 1 - back;
        const struct tale_op *o = &tale.ops[op];
        if (!o->keyed || (o->done && maybe(900))) continue;
        if (o->action != TALE_CREATE && tale.ops[o->create].name[0] == 0) continue;
        tale.again++;
        if (o->action == TALE_CREATE) say_create(b, op);
        else say_change(b, op);
        return;
    }
}

static void look(struct backend *b, uint32_t app)
{
    uint32_t message = some_message(app);
    char rest[256];
    if (message == 0) return;
    bool versions = maybe(400);
    snprintf(rest, sizeof(rest), "channels/%s/messages/%s%s",
             tale_channel(tale.ops[message].channel), tale.ops[message].name,
             versions ? "/versions" : "");
    ask(b, "GET", rest, versions ? maybe(512) ? "&direction=oldest_first" : "" : "", "",
        (struct pending){.ask = versions ? ASK_VERSIONS : ASK_MESSAGE, .app = app,
                         .channel = tale.ops[message].channel, .count = 1, .ops = {message}});
}

/* ---- what is answered ---- */

/* `at` stands before "message_serial". */
static void take_ack(uint32_t op, const char *at)
{
    char name[TALE_SERIAL_BYTES], version[TALE_SERIAL_BYTES];
    struct tale_op *o = &tale.ops[op], *create = &tale.ops[o->create];
    uint64_t serial = tale_number(at, "\"delivery_serial\":");
    bool named = peer_between(at, "\"message_serial\":\"", name, sizeof(name)) &&
                 peer_between(at, "\"version_serial\":\"", version, sizeof(version));
    MUST(named && serial > 0, "operation %u is acknowledged with %s", op, at);
    bool same = create->name[0] == 0 || strcmp(create->name, name) == 0;
    MUST(same || tale_is_loose(o->app), "message %s is called %s",
         create->name, name);
    MUST(o->create != op || strcmp(name, version) == 0, "a create with %s and %s", name, version);
    memcpy(create->name, name, sizeof(name));
    tale_saw(o->app, o->channel, serial, op);
    tale_saw_version(o->app, o->channel, serial, version);
}

static void on_event(const struct pending *p, const char *body)
{
    struct tale_op *o = &tale.ops[p->ops[0]];
    o->done = true;
    if (o->keyed && tale_is_versioned(p->app)) take_ack(p->ops[0], body);
}

/* {"batch":[{..},{}]}, or {} when there is nothing to say of any. */
static void on_batch(const struct pending *p, const char *body)
{
    const char *at = strstr(body, "[{");
    for (uint32_t i = 0; i < p->count; i++) tale.ops[p->ops[i]].done = true;
    if (!tale_is_versioned(p->app) || at == NULL) return;
    for (uint32_t i = 0; i < p->count; i++) {
        at = strchr(at, '{');
        MUST(at != NULL, "%u items are answered with %s", p->count, body);
        if (*++at != '}') take_ack(p->ops[i], at);
        at = strchr(at, '}');
    }
}

/* One version as it is read back. `fragment`: an append shows what it added. */
static void take_item(const struct pending *p, uint32_t message, const char *text, bool fragment)
{
    char data[TALE_TEXT_BYTES], action[16];
    uint64_t serial = tale_number(text, "\"delivery_serial\":");
    bool has = peer_between(text, "\"data\":\"", whole_text, sizeof(whole_text));
    bool acts = peer_between(text, "\"action\":\"", action, sizeof(action));
    uint32_t op = has ? tale_op_in(whole_text) : 0;
    MUST(acts && serial > 0, "what is %.300s", text);
    if (strcmp(action, "delete") == 0) op = (uint32_t)tale_number(text, "\"op\":");
    tale_saw_head(p->app, p->channel, serial);
    if (op == 0 || tale_is_loose(p->app)) return;
    MUST(tale.ops[op].create == message, "operation %u changed another message than %u", op,
         message);
    tale_saw(p->app, p->channel, serial, op);
    if (fragment && strcmp(action, "append") == 0) {
        tale_text(op, data);
        MUST(strcmp(data, whole_text) == 0, "fragment %u reads %s", op, whole_text);
        return;
    }
    if (!has) whole_text[0] = 0;
    static char known[ANSWER_BYTES];
    if (!tale_whole(p->app, p->channel, serial, known, sizeof(known))) return;
    MUST(strcmp(known, whole_text) == 0, "message %u at %llu reads %s, wanted %s", message,
         (unsigned long long)serial, whole_text, known);
}

static void on_versions(const struct pending *p, char *body)
{
    static const char start[] = "{\"event\":\"sockudo:message.";
    char *at = strstr(body, start);
    while (at != NULL) {
        char *next = strstr(at + 1, start), kept = 0;
        if (next != NULL) kept = *next, *next = 0;
        take_item(p, p->ops[0], at, true);
        if (next != NULL) *next = kept;
        at = next;
    }
}

/* A page of rows: what follows the last one must be there. */
static void on_history(const struct pending *p, char *body)
{
    static const char start[] = "{\"stream_id\":\"";
    char *end = strstr(body, "],\"direction\""), cursor[512] = "", info[640];
    bool more = strstr(body, "\"has_more\":true") != NULL;
    MUST(end != NULL, "what history is %s", body);
    if (more) MUST(peer_between(end, "\"next_cursor\":\"", cursor, sizeof(cursor)), "no cursor");
    *end = 0;
    for (char *at = strstr(body, start); at != NULL;) {
        char *next = strstr(at + 1, start), kept = 0;
        if (next != NULL) kept = *next, *next = 0;
        uint64_t serial = tale_number(at, "\"serial\":");
        char data[TALE_TEXT_BYTES];
        MUST(serial == tale_pages.last + 1, "row %llu follows row %llu of %s",
             (unsigned long long)serial, (unsigned long long)tale_pages.last,
             tale_channel(p->channel));
        tale_pages.last = serial;
        tale_pages.items++;
        if (tale_is_versioned(p->app)) {
            char name[TALE_SERIAL_BYTES];
            bool named = peer_between(at, "\"message_serial\":\"", name, sizeof(name));
            MUST(named, "a row without a name: %s", at);
            uint64_t create = strtoull(strrchr(name, ':') + 1, NULL, 10);
            const struct tale_log *log = &tale.logs[p->app][p->channel];
            uint32_t message = create < log->room ? log->entries[create].op : 0;
            MUST(message != 0, "nobody knows message %s", name);
            take_item(p, message, at, false);
            MUST(tale_number(at, "\"delivery_serial\":") == tale_latest(message, log->head),
                 "message %u is shown at %s, its newest version is %llu", message, at,
                 (unsigned long long)tale_latest(message, log->head));
        } else {
            bool has = peer_between(at, "\"data\":\"", data, sizeof(data));
            MUST(has, "a row without data: %s", at);
            tale_saw(p->app, p->channel, serial, tale_op_in(data));
        }
        if (next != NULL) *next = kept;
        at = next;
    }
    tale_pages.asking--;
    if (!more) return;
    snprintf(info, sizeof(info), "&cursor=%s&direction=oldest_first&limit=%u", cursor, PAGE);
    char rest[64];
    snprintf(rest, sizeof(rest), "channels/%s/history", tale_channel(p->channel));
    tale_pages.asking++;
    ask(&backends[0], "GET", rest, info, "", *p);
}

static void on_answer(struct backend *b, uint32_t status, char *body)
{
    MUST(b->pending_count > 0, "an answer that nobody asked for: %u %s", status, body);
    struct pending p = b->pending[0];
    b->pending_count--;
    memmove(b->pending, b->pending + 1, b->pending_count * sizeof(p));
    tale.answers++;
    if (world.verbose) fprintf(stderr, "%u: backend %d is told %u %s\n", world.step,
                               (int)(b - backends), status, body);
    if (status == 404 && tale_is_loose(p.app)) return;
    MUST(status == 200 || status == 503, "answer %u: %s (operation %u)", status, body, p.ops[0]);
    MUST(status == 200 || tale_troubled(), "answer %u: %s", status, body);
    if (status != 200) {
        MUST(p.ask != ASK_HISTORY, "no history: %s", body);
        return;
    }
    switch (p.ask) {
    case ASK_EVENT: on_event(&p, body); return;
    case ASK_BATCH: on_batch(&p, body); return;
    case ASK_CHANGE: take_ack(p.ops[0], body); return;
    case ASK_MESSAGE: take_item(&p, p.ops[0], body, false); return;
    case ASK_VERSIONS: on_versions(&p, body); return;
    case ASK_HISTORY: on_history(&p, body); return;
    }
}

static bool take_answer(struct backend *b)
{
    uint32_t status;
    if (!peer_answer(&b->in, answer_text, ANSWER_BYTES, &status)) return false;
    if (status != 408) on_answer(b, status, answer_text);   /* 408: it came too slowly */
    return true;
}

/* ---- the life of a connection ---- */

static void leave(struct backend *b, bool broken)
{
    peer_leave(&b->peer, &b->in, broken);
    *b = (struct backend){0};
}

static bool read_one(struct backend *b)
{
    if (b->peer == NULL) return false;
    bool any = peer_take(b->peer, &b->in);
    while (take_answer(b)) continue;
    if (b->peer->saw_end && b->peer->from_server.count == 0) {
        leave(b, false);
        return true;
    }
    return any;
}

bool tale_backend_read(void)
{
    bool any = false;
    for (uint32_t i = 0; i < BACKENDS; i++) {
        if (read_one(&backends[i])) any = true;
    }
    return any;
}

void tale_backend_act(void)
{
    struct backend *b = &backends[below(BACKENDS)];
    uint32_t app = below(WORLD_APPS), what = below(100);
    if (b->peer == NULL) b->peer = peer_connect(WINDOW);
    else if (b->pending_count >= ACT_PENDING_MAX) return;
    else if (what < 30) create(b, app);
    else if (what < 70 && tale_is_versioned(app)) change(b, app);
    else if (what < 82) again(b);
    else if (what < 96 && tale_is_versioned(app)) look(b, app);
    else if (maybe(100)) leave(b, maybe(512));
}

void tale_backend_ask_history(uint32_t app, uint32_t channel)
{
    char rest[64], info[64];
    tale_pages = (struct tale_pages){.asking = 1, .app = app, .channel = channel};
    leave(&backends[0], false);
    backends[0].peer = peer_connect(WINDOW);
    snprintf(rest, sizeof(rest), "channels/%s/history", tale_channel(channel));
    snprintf(info, sizeof(info), "&direction=oldest_first&limit=%u", PAGE);
    ask(&backends[0], "GET", rest, info, "",
        (struct pending){.ask = ASK_HISTORY, .app = app, .channel = channel});
}

uint32_t tale_backend_waiting(void)
{
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < BACKENDS; i++) waiting += backends[i].pending_count;
    return waiting;
}

void tale_backend_close(void)
{
    for (uint32_t i = 0; i < BACKENDS; i++) leave(&backends[i], maybe(512));
}

/* The rings free what is still connected to them. */
void tale_backend_cut(void)
{
    for (uint32_t i = 0; i < BACKENDS; i++) {
        struct backend *b = &backends[i];
        if (b->peer != NULL && b->peer->closed) ring_sim_drop(&b->peer);
        sim_pipe_free(&b->in);
        *b = (struct backend){0};
    }
}
