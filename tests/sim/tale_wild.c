/* Channels of a tale that nobody keeps books of: everything that can be asked about a channel with
 * memory is asked in any order, resets and purges within it, after which some are forgotten. What
 * must hold: nobody waits for ever, nothing is answered as an internal error, a place in a stream
 * stands for one version for ever, and at rest the server's own books agree (check.c). */
#include "tests/sim/backend.h"
#include "tests/sim/peer.h"
#include "tests/sim/tale.h"

#include "proto/sign.h"
#include "proto/ws.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    WINDOW = 1 << 20, BACKENDS = 3, SOCKETS = 6, CHANNELS = 4, NAMES = 24, PENDING_MAX = 4,
    TEXT_BYTES = 2048, SAID_MAX = 1 << 15,
};

static const char *const channels[CHANNELS] = {
    "wild-a", "wild-b", "private-wild", "presence-wild",
};

struct backend {
    struct sim_peer *peer;
    struct sim_pipe  in;
    uint32_t         pending;
};

struct place { char stream[TALE_STREAM_BYTES]; uint64_t serial; };

struct socket {
    struct sim_peer *peer;
    struct sim_pipe  in;
    uint32_t         app;
    bool             open, full;
    char             id[PUSHER_SOCKET_ID_BYTES];
    struct place     ears[CHANNELS]; /* of the newest frame, or the success */
};

struct name {                        /* what was heard of: a message, an annotation of it */
    uint32_t app, channel;
    char     message[TALE_SERIAL_BYTES], annotation[TALE_SERIAL_BYTES];
};

static struct backend backends[BACKENDS];
static struct socket  sockets[SOCKETS];
static struct name    names[NAMES];
static struct place   places[WORLD_APPS][CHANNELS];    /* heard of last, by anybody */
static struct { uint32_t app, channel, name; } asked[BACKENDS][PENDING_MAX];
static struct said { uint64_t place, version; } said[SAID_MAX];    /* place 0: free */

/* ---- backends ---- */

static struct name *some_name(void) { return &names[below(NAMES)]; }

static void ask(struct backend *b, const char *method, uint32_t app, uint32_t channel,
                const char *rest, const char *body, const struct name *about)
{
    char path[256];
    static char text[2 * TEXT_BYTES];
    uint32_t who = (uint32_t)(b - backends);
    snprintf(path, sizeof(path), rest[0] == '/' ? "channels/%s%s" : "%s%s",
             rest[0] == '/' ? channels[channel] : "", rest);
    uint32_t n = backend_request_write(text, sizeof(text), method, app, path, "", body);
    if (world.verbose) fprintf(stderr, "%u: wild %u asks app %u %s %s %s\n", world.step, who, app,
                               method, path, body);
    sim_pipe_put(&b->peer->to_server, text, n);
    asked[who][b->pending].app = app;
    asked[who][b->pending].channel = channel;
    asked[who][b->pending].name = about == NULL ? NAMES : (uint32_t)(about - names);
    b->pending++;
}

static void ask_publish(struct backend *b, uint32_t app, uint32_t channel)
{
    char body[TEXT_BYTES], key[64] = "";
    uint32_t what = below(4);
    if (what == 0) snprintf(key, sizeof(key), ",\"message_id\":\"m%u\"", below(6));
    if (what == 1) snprintf(key, sizeof(key), ",\"idempotency_key\":\"i%u\"", below(6));
    if (what == 2 && maybe(300)) snprintf(key, sizeof(key), ",\"extras\":{\"ephemeral\":true}");
    snprintf(body, sizeof(body), "{\"name\":\"ev\",\"channels\":[\"%s\"%s],\"data\":\"w%u\","
             "\"info\":\"subscription_count\"%s}", channels[channel],
             maybe(200) ? ",\"wild-a\"" : "", below(3), key);
    ask(b, "POST", app, channel, "events", body, NULL);
}

static void ask_change(struct backend *b, const struct name *m)
{
    static const char *const words[] = {"append", "append", "update", "delete"};
    char rest[256], body[256], id[32] = "";
    if (maybe(300)) snprintf(id, sizeof(id), ",\"op_id\":\"o%u\"", below(6));
    snprintf(rest, sizeof(rest), "/messages/%s/%s", m->message, words[below(4)]);
    snprintf(body, sizeof(body), "{\"data\":\"+%u\"%s}", below(3), id);
    ask(b, "POST", m->app, m->channel, rest, body, NULL);
}

static void ask_annotation(struct backend *b, struct name *m)
{
    static const char *const kinds[] = {"total", "flag", "distinct", "unique", "multiple"};
    char rest[256], body[256];
    uint32_t what = below(10);
    snprintf(rest, sizeof(rest), "/messages/%s/annotations", m->message);
    if (what < 2) {
        ask(b, "GET", m->app, m->channel, rest, "", NULL);
    } else if (what < 5 && m->annotation[0] != 0) {
        size_t n = strlen(rest);
        snprintf(rest + n, sizeof(rest) - n, "/%s", m->annotation);
        ask(b, "DELETE", m->app, m->channel, rest, "", NULL);
    } else {
        snprintf(body, sizeof(body), "{\"type\":\"r:%s.v1\",\"name\":\"n%u\",\"clientId\":\"c%u\"}",
                 kinds[below(5)], below(3), below(4));
        ask(b, "POST", m->app, m->channel, rest, body, m);
    }
}

static void ask_end(struct backend *b, uint32_t app, uint32_t channel)
{
    char body[256];
    bool presence = channel == 3 && maybe(600), purge = !presence && maybe(600);
    char bound[64] = "";
    if (purge && maybe(512)) {
        snprintf(bound, sizeof(bound), ",\"mode\":\"before_serial\",\"before_serial\":%u",
                 below(60));
    } else if (purge) {
        snprintf(bound, sizeof(bound), ",\"mode\":\"all\"");
    }
    snprintf(body, sizeof(body), "{\"confirm_channel\":\"%s\",\"confirm_operation\":\"%s\","
             "\"reason\":\"why not\"%s}", channels[channel], purge ? "purge" : "reset", bound);
    ask(b, "POST", app, channel, presence ? "/presence/history/reset"
                                 : purge  ? "/history/purge" : "/history/reset", body, NULL);
}

static void ask_read(struct backend *b, uint32_t app, uint32_t channel)
{
    static const char *const what[] = {"/history", "/history/state", "/presence/history",
                                       "/presence/history/state", "/presence/history/snapshot"};
    const struct name *m = some_name();
    char rest[256];
    if (maybe(512) || m->message[0] == 0) {
        ask(b, "GET", app, channel, what[below(channel == 3 ? 5 : 2)], "", NULL);
        return;
    }
    snprintf(rest, sizeof(rest), "/messages/%s%s", m->message, maybe(512) ? "/versions" : "");
    ask(b, "GET", m->app, m->channel, rest, "", NULL);
}

static void on_answer(struct backend *b, uint32_t status, const char *body)
{
    uint32_t who = (uint32_t)(b - backends);
    MUST(b->pending > 0, "a wild answer that nobody asked for: %u %s", status, body);
    uint32_t app = asked[who][0].app, channel = asked[who][0].channel, at = asked[who][0].name;
    b->pending--;
    memmove(asked[who], asked[who] + 1, sizeof(asked[who][0]) * b->pending);
    if (world.verbose) fprintf(stderr, "%u: wild %u is told %u %s\n", world.step, who, status,
                               body);
    bool known = status == 200 || status == 400 || status == 403 || status == 404 ||
                 status == 413 || status == 422 || status == 503;
    MUST(known, "wild answer %u: %s", status, body);
    MUST(status != 503 || tale_troubled() || strstr(body, "was reset") != NULL ||
             strstr(body, "in progress") != NULL, "wild answer %u: %s", status, body);
    if (status != 200) return;
    char text[TALE_SERIAL_BYTES];
    if (at < NAMES) {
        if (peer_between(body, "\"annotationSerial\":\"", text, sizeof(text))) {
            memcpy(names[at].annotation, text, sizeof(text));
        }
    } else if (peer_between(body, "\"acknowledgement_id\":\"", text, sizeof(text)) &&
               strstr(body, "\"message_serial\"") != NULL) {
        struct name *m = some_name();
        *m = (struct name){.app = app, .channel = channel};
        memcpy(m->message, text, sizeof(text));
    }
}

static bool take_answer(struct backend *b)
{
    static char text[1 << 20];
    uint32_t status;
    if (!peer_answer(&b->in, text, sizeof(text), &status)) return false;
    if (status != 408) on_answer(b, status, text);
    return true;
}

static void backend_leave(struct backend *b, bool broken)
{
    peer_leave(&b->peer, &b->in, broken);
    *b = (struct backend){0};
}

static void wild_backend_act(struct backend *b)
{
    uint32_t app = below(WORLD_APPS), channel = below(CHANNELS), what = below(100);
    struct name *m = some_name();
    bool named = m->message[0] != 0;
    if (b->peer == NULL) b->peer = peer_connect(WINDOW);
    else if (b->pending == PENDING_MAX) return;
    else if (what < 40) ask_publish(b, app, channel);
    else if (what < 60 && named) ask_change(b, m);
    else if (what < 75 && named) ask_annotation(b, m);
    else if (what < 84) ask_end(b, app, channel);
    else if (what < 98) ask_read(b, app, channel);
    else if (maybe(200)) backend_leave(b, maybe(512));
}

/* ---- sockets ---- */

static void say(struct socket *s, const char *text)
{
    if (world.verbose) fprintf(stderr, "%u: wild socket %d of app %u says %s\n", world.step,
                               (int)(s - sockets), s->app, text);
    tale_write_frame(s->peer, WS_TEXT, text, (uint32_t)strlen(text));
}

static void socket_leave(struct socket *s, bool broken)
{
    peer_leave(&s->peer, &s->in, broken);
    *s = (struct socket){0};
}

static void socket_connect(struct socket *s)
{
    char text[512];
    s->peer = peer_connect(WINDOW);
    s->app = below(WORLD_APPS);
    s->full = maybe(400);
    int n = snprintf(text, sizeof(text),
                     "GET /app/%s?protocol=2%s HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
                     world.apps[s->app].key, s->full ? "&append_mode=full" : "");
    sim_pipe_put(&s->peer->to_server, text, (uint32_t)n);
}

static void subscribe(struct socket *s, uint32_t channel)
{
    char text[TEXT_BYTES], data[64] = "", quoted[96] = "", auth[160] = "", more[64] = "";
    char hex[SIGN_HEX_BYTES + 1] = "";
    bool presence = channel == 3;
    if (presence) {
        uint32_t user = below(4);
        snprintf(data, sizeof(data), "{\"user_id\":\"u%u\"}", user);
        snprintf(quoted, sizeof(quoted), ",\"channel_data\":\"{\\\"user_id\\\":\\\"u%u\\\"}\"",
                 user);
    }
    struct slice parts[5] = {slice_str(s->id), slice_str(":"), slice_str(channels[channel]),
                             slice_str(":"), slice_str(data)};
    if (channel >= 2) {
        sign_hex(slice_str("secret"), parts, presence ? 5 : 3, hex);
        snprintf(auth, sizeof(auth), ",\"auth\":\"%s:%s\"", world.apps[s->app].key, hex);
    }
    if (tale_is_stored(s->app) && maybe(300)) {
        snprintf(more, sizeof(more), ",\"rewind\":%u", 1 + below(20));
    }
    snprintf(text, sizeof(text), "{\"event\":\"sockudo:subscribe\",\"data\":{\"channel\":\"%s\""
             "%s%s%s}}", channels[channel], auth, quoted, more);
    say(s, text);
}

static void resume(struct socket *s)
{
    char text[TEXT_BYTES] = "{\"event\":\"sockudo:resume\",\"data\":{\"channel_positions\":{";
    const char *comma = "";
    for (uint32_t i = 0; i < CHANNELS; i++) {
        size_t n = strlen(text);
        uint64_t serial = places[s->app][i].serial;
        if (places[s->app][i].stream[0] == 0 || maybe(300)) continue;
        snprintf(text + n, sizeof(text) - n, "%s\"%s\":{\"stream_id\":\"%s\",\"serial\":%llu}",
                 comma, channels[i], places[s->app][i].stream,
                 (unsigned long long)(serial - u64_min(serial, below(80))));
        comma = ",";
    }
    if (comma[0] == 0) return;
    strcat(text, "}}}");
    say(s, text);
}

static void say_of(struct socket *s, const char *form, uint32_t channel)
{
    char text[256];
    snprintf(text, sizeof(text), form, channels[channel]);
    say(s, text);
}

static void socket_act(struct socket *s)
{
    static const char unsubscribe[] =
        "{\"event\":\"sockudo:unsubscribe\",\"data\":{\"channel\":\"%s\"}}";
    static const char update[] = "{\"event\":\"sockudo:presence_update\",\"data\":"
                                 "{\"channel\":\"%s\",\"data\":{\"mood\":1}}}";
    static const char history[] = "{\"event\":\"sockudo:channel_history\",\"data\":"
                                  "{\"channel\":\"%s\",\"until_attach\":true,\"limit\":5}}";
    static const char event[] = "{\"event\":\"client-x\",\"channel\":\"%s\",\"data\":\"c\"}";
    uint32_t what = below(100), channel = below(CHANNELS);
    if (s->peer == NULL) socket_connect(s);
    else if (s->id[0] == 0) return;
    else if (what < 35) subscribe(s, channel);
    else if (what < 50) resume(s);
    else if (what < 65) say_of(s, unsubscribe, channel);
    else if (what < 72) say_of(s, update, 3);
    else if (what < 80) say_of(s, history, channel);
    else if (what < 92) say_of(s, event, 2 + below(2));
    else if (what < 97) socket_leave(s, maybe(512));
}

/* Where a frame stands. A live frame leaves none out, also while its channel is reset or purged:
 * of one stream, or with the first of the next. */
static void note_place(struct socket *s, const char *text, uint32_t channel)
{
    static const char *const messages[] = {"sockudo:message.", "ev\"", "client-x\""};
    struct place *e = &s->ears[channel], here = {.serial = tale_number(text, "\"serial\":")};
    if (!peer_between(text, ",\"stream_id\":\"", here.stream, sizeof(here.stream))) return;
    places[s->app][channel] = here;
    bool first = strstr(text, "subscription_succeeded") != NULL, message = false;
    for (uint32_t i = 0; i < 3; i++) {
        message = message || strncmp(text + 10, messages[i], strlen(messages[i])) == 0;
    }
    if (!first && !message) return;
    bool same = strcmp(e->stream, here.stream) == 0;
    bool next = same ? here.serial <= e->serial + 1 : here.serial == 1;
    MUST(first || s->full || next || tale_is_loose(s->app),
         "wild socket %d of %s of app %u is at %llu: %s", (int)(s - sockets), channels[channel],
         s->app, (unsigned long long)e->serial, text);
    if (first || !same || here.serial > e->serial) *e = here;
}

/* A place in a stream is one version's, whatever became of the channel meanwhile. */
static void note_version(const struct socket *s, const char *text)
{
    char version[TALE_SERIAL_BYTES], stream[TALE_STREAM_BYTES];
    uint64_t serial = tale_number(text, "\"serial\":");
    if (tale_is_loose(s->app) ||
        !peer_between(text, "\"sockudo_version_serial\":\"", version, sizeof(version)) ||
        !peer_between(text, ",\"stream_id\":\"", stream, sizeof(stream))) {
        return;
    }
    struct slice where[] = {slice_str(stream), slice_of(&serial, sizeof(serial))};
    struct slice what[] = {slice_str(version)};
    uint64_t place[2], hash[2];
    hash_parts(where, 2, place);
    hash_parts(what, 1, hash);
    struct said *x = &said[place[0] % SAID_MAX];
    for (uint32_t i = 0; x->place != 0 && x->place != place[0]; i++) {
        if (i == SAID_MAX) return;
        x = x + 1 == said + SAID_MAX ? said : x + 1;
    }
    MUST(x->place == 0 || x->version == hash[0], "another version stands at %llu of %s: %s",
         (unsigned long long)serial, stream, text);
    *x = (struct said){place[0], hash[0]};
}

static void on_frame(struct socket *s, const char *text)
{
    char name[64];
    if (world.verbose) fprintf(stderr, "%u: wild socket %d gets %s\n", world.step,
                               (int)(s - sockets), text);
    if (s->id[0] == 0 && peer_between(text, "socket_id\\\":\\\"", s->id, sizeof(s->id))) {
        s->id[strcspn(s->id, "\\")] = 0;
    }
    if (!peer_between(text, ",\"channel\":\"", name, sizeof(name))) return;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        if (strcmp(name, channels[i]) == 0) note_place(s, text, i);
    }
    note_version(s, text);
}

static bool take_frame(struct socket *s)
{
    static char text[1 << 20];
    uint8_t *at = s->in.count < 2 ? NULL : sim_pipe_at(&s->in);
    uint32_t head = 2, bytes;
    if (at == NULL) return false;
    bytes = at[1];
    if (bytes >= 126) head = bytes == 126 ? 4 : 10;
    if (s->in.count < head) return false;
    if (head > 2) bytes = 0;
    for (uint32_t i = 2; i < head; i++) bytes = bytes << 8 | at[i];
    MUST(bytes < sizeof(text), "a frame of %u bytes", bytes);
    if (s->in.count < head + bytes) return false;
    uint8_t opcode = at[0] & 15;
    memcpy(text, at + head, bytes);
    text[bytes] = 0;
    if (opcode == WS_PING) tale_write_frame(s->peer, WS_PONG, text, bytes);
    if (opcode == WS_TEXT) on_frame(s, text);
    sim_pipe_skip(&s->in, head + bytes);
    return true;
}

static bool take_upgrade(struct socket *s)
{
    uint8_t *at = s->in.count == 0 ? NULL : sim_pipe_at(&s->in), *end;
    if (at == NULL || (end = memmem(at, s->in.count, "\r\n\r\n", 4)) == NULL) return false;
    s->open = memcmp(at, "HTTP/1.1 101 ", 13) == 0;
    sim_pipe_skip(&s->in, (uint32_t)(end + 4 - at));
    return s->open;
}

static bool socket_read(struct socket *s)
{
    if (s->peer == NULL) return false;
    uint32_t n = s->peer->from_server.count;
    if (n > 0) {
        sim_pipe_put(&s->in, sim_pipe_at(&s->peer->from_server), n);
        sim_pipe_skip(&s->peer->from_server, n);
    }
    if (!s->open) (void)take_upgrade(s);
    while (s->open && take_frame(s)) continue;
    if (s->peer->saw_end && s->peer->from_server.count == 0) {
        socket_leave(s, false);
        return true;
    }
    return n > 0;
}

/* ---- all of them ---- */

void tale_wild_act(void)
{
    if (maybe(512)) wild_backend_act(&backends[below(BACKENDS)]);
    else socket_act(&sockets[below(SOCKETS)]);
}

bool tale_wild_read(void)
{
    bool any = false;
    for (uint32_t i = 0; i < SOCKETS; i++) any = socket_read(&sockets[i]) || any;
    for (uint32_t i = 0; i < BACKENDS; i++) {
        struct backend *b = &backends[i];
        if (b->peer == NULL) continue;
        if (peer_take(b->peer, &b->in)) any = true;
        while (take_answer(b)) continue;
        if (b->peer->saw_end && b->peer->from_server.count == 0) backend_leave(b, false);
    }
    return any;
}

uint32_t tale_wild_waiting(void)
{
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < BACKENDS; i++) waiting += backends[i].pending;
    return waiting;
}

void tale_wild_close(void)
{
    for (uint32_t i = 0; i < BACKENDS; i++) backend_leave(&backends[i], maybe(512));
    for (uint32_t i = 0; i < SOCKETS; i++) socket_leave(&sockets[i], maybe(512));
}

static void cut(struct sim_peer **peer, struct sim_pipe *in)
{
    if (*peer != NULL && (*peer)->closed) ring_sim_drop(peer);
    sim_pipe_free(in);
    *peer = NULL;
}

/* The rings free what is still connected to them. */
void tale_wild_cut(void)
{
    for (uint32_t i = 0; i < BACKENDS; i++) {
        cut(&backends[i].peer, &backends[i].in);
        backends[i] = (struct backend){0};
    }
    for (uint32_t i = 0; i < SOCKETS; i++) {
        cut(&sockets[i].peer, &sockets[i].in);
        sockets[i] = (struct socket){0};
    }
}

void tale_wild_open(void)
{
    memset(names, 0, sizeof(names));
    memset(places, 0, sizeof(places));
    memset(said, 0, sizeof(said));
}
