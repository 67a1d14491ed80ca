/* Sockets of a tale: they subscribe with or without a position, before it, with it or after it, go
 * away at any moment and come back. */
#include "tests/sim/tale.h"

#include "proto/ws.h"

#include <stdio.h>
#include <stdlib.h>

enum { TEXT_BYTES = 2048, AUDITORS = WORLD_APPS };

struct tale_client tale_clients[TALE_CLIENTS];

void tale_clients_open(void)
{
    for (uint32_t i = 0; i < TALE_CLIENTS; i++) {
        struct tale_client *c = &tale_clients[i];
        uint32_t app = i < AUDITORS ? i : maybe(400) ? TALE_VERSIONED : below(WORLD_APPS);
        *c = (struct tale_client){
            .app = app, .auditor = i < AUDITORS, .v2 = i < AUDITORS || maybe(800),
        };
    }
}

/* ---- saying ---- */

void tale_write_frame(struct sim_peer *p, uint8_t opcode, const void *payload, uint32_t bytes)
{
    uint8_t head[8] = {(uint8_t)(0x80 | opcode)}, *body;
    uint32_t n = 2, mask = (uint32_t)rng_next(&ring_sim_rng);
    ASSERT(bytes < 65536 && p != NULL);
    head[1] = (uint8_t)(0x80 | (bytes < 126 ? bytes : 126));
    if (bytes >= 126) {
        head[2] = (uint8_t)(bytes >> 8);
        head[3] = (uint8_t)bytes;
        n = 4;
    }
    memcpy(head + n, &mask, 4);
    sim_pipe_put(&p->to_server, head, n + 4);
    sim_pipe_put(&p->to_server, payload, bytes);
    if (bytes == 0) return;
    body = sim_pipe_at(&p->to_server) + p->to_server.count - bytes;
    for (uint32_t i = 0; i < bytes; i++) body[i] ^= head[n + i % 4];
}

static void say(struct tale_client *c, const char *text)
{
    if (world.verbose) fprintf(stderr, "%u: socket %u says %s\n", world.step, c->number, text);
    tale_write_frame(c->peer, WS_TEXT, text, (uint32_t)strlen(text));
}

void tale_client_connect(struct tale_client *c)
{
    char text[512];
    struct ring_addr addr = {{0}};
    c->peer = ring_sim_connect(world.server.shards[below(world.shards)].re.ring, 0, addr);
    c->peer->owner = WORLD_CLIENTS_MAX;
    c->state = TALE_ASKING;
    c->number = ++world.connections;
    c->full = c->v2 && !c->auditor && maybe(300);
    c->reading = true;
    int n = snprintf(text, sizeof(text),
                     "GET /app/%s?protocol=%u%s HTTP/1.1\r\nHost: sim\r\n"
                     "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", world.apps[c->app].key,
                     c->v2 ? 2 : 7, c->full ? "&append_mode=full" : "");
    sim_pipe_put(&c->peer->to_server, text, (uint32_t)n);
}

static void ping(struct tale_client *c)
{
    say(c, c->v2 ? "{\"event\":\"sockudo:ping\"}" : "{\"event\":\"pusher:ping\",\"data\":{}}");
    c->pings++;
}

void tale_client_pong(struct tale_client *c)
{
    say(c, "{\"event\":\"pusher:pong\",\"data\":{}}");
}

void tale_client_subscribe(struct tale_client *c, uint32_t channel, uint32_t rewind)
{
    char text[256], more[32] = "";
    struct tale_ear *e = &c->ears[channel];
    if (e->asked || e->live || e->leaving) return;
    if (!c->v2 || !tale_is_stored(c->app) || e->resuming) rewind = 0;
    if (rewind > 0) snprintf(more, sizeof(more), ",\"rewind\":%u", rewind);
    snprintf(text, sizeof(text), "{\"event\":\"%s:subscribe\",\"data\":{\"channel\":\"%s\"%s}}",
             c->v2 ? "sockudo" : "pusher", tale_channel(channel), more);
    say(c, text);
    e->asked = true;
    e->rewind = rewind;
    e->rewound = e->along = 0;
    e->rewound_from = e->rewound_upto = 0;
    e->floor = tale.logs[c->app][channel].head;
    memcpy(e->floor_stream, tale.logs[c->app][channel].stream, sizeof(e->floor_stream));
}

static void unsubscribe(struct tale_client *c, uint32_t channel)
{
    char text[256];
    struct tale_ear *e = &c->ears[channel];
    if (!e->live || e->leaving || c->resuming || e->resuming || e->rewind > 0) return;
    snprintf(text, sizeof(text), "{\"event\":\"%s:unsubscribe\",\"data\":{\"channel\":\"%s\"}}",
             c->v2 ? "sockudo" : "pusher", tale_channel(channel));
    say(c, text);
    ping(c);
    e->leaving = true;
    e->leave_ping = c->pings;
}

void tale_client_resume(struct tale_client *c)
{
    char text[TEXT_BYTES];
    bool as_text = maybe(300);
    const char *q = as_text ? "\\\"" : "\"", *comma = "";
    bool waits = !c->v2 || c->resuming;
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) {       /* a second one forgets what waits */
        waits = waits || (c->ears[i].resuming && !c->ears[i].asked);
    }
    if (waits) return;
    int n = snprintf(text, sizeof(text),
                     "{\"event\":\"sockudo:resume\",\"data\":%s{%schannel_positions%s:{",
                     as_text ? "\"" : "", q, q);
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) {
        struct tale_ear *e = &c->ears[i];
        if (e->rewind > 0 || !e->placed || e->leaving || (e->live && !e->behind)) continue;
        n += snprintf(text + n, sizeof(text) - (size_t)n,
                      "%s%s%s%s:{%sstream_id%s:%s%s%s,%sserial%s:%llu}", comma, q,
                      tale_channel(i), q, q, q, q, e->stream, q, q, q,
                      (unsigned long long)e->position);
        comma = ",";
        e->after = e->late = e->half = false;
        e->twice = e->resuming;
        tale.twice += e->twice;
        e->from = e->position;
        e->resuming = e->named = true;
        e->replayed = e->along = e->mended = 0;
    }
    if (comma[0] == 0) return;
    snprintf(text + n, sizeof(text) - (size_t)n, "}}%s}", as_text ? "\"" : "");
    say(c, text);
    c->resuming = true;
    tale.resumes++;
}

/* ---- going ---- */

static void ear_close(struct tale_ear *e)
{
    free(e->heard);
    struct tale_ear fresh = {.position = e->position, .placed = e->placed};
    memcpy(fresh.stream, e->stream, sizeof(fresh.stream));
    *e = fresh;
}

static void forget_peer(struct tale_client *c)
{
    sim_pipe_free(&c->in);
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) ear_close(&c->ears[i]);
    c->state = TALE_IDLE;
    c->resuming = false;
    c->socket_id[0] = 0;
    c->pings = c->pongs = 0;
}

void tale_client_leave(struct tale_client *c, bool broken)
{
    if (c->peer == NULL) return;
    if (broken) c->peer->broken = true;
    c->peer->ended = true;
    ring_sim_drop(&c->peer);
    forget_peer(c);
}

void tale_clients_close(void)
{
    for (uint32_t i = 0; i < TALE_CLIENTS; i++) {
        tale_client_leave(&tale_clients[i], maybe(512));
    }
}

void tale_clients_cut(void)
{
    for (uint32_t i = 0; i < TALE_CLIENTS; i++) {
        struct tale_client *c = &tale_clients[i];
        if (c->peer == NULL) continue;
        if (c->peer->closed) ring_sim_drop(&c->peer);
        c->peer = NULL;
        forget_peer(c);
    }
}

/* ---- what arrives ---- */

static bool take_answer(struct tale_client *c)
{
    uint8_t *at = sim_pipe_at(&c->in), *end;
    if (at == NULL || (end = memmem(at, c->in.count, "\r\n\r\n", 4)) == NULL) return false;
    bool opened = memcmp(at, "HTTP/1.1 101 ", 13) == 0;
    MUST(opened || memcmp(at, "HTTP/1.1 408 ", 13) == 0 || memcmp(at, "HTTP/1.1 503 ", 13) == 0,
         "the upgrade is answered by %.20s", at);
    sim_pipe_skip(&c->in, (uint32_t)(end + 4 - at));
    if (opened) c->state = TALE_OPEN;
    return opened;
}

static bool take_frame(struct tale_client *c)
{
    uint8_t *at = c->in.count == 0 ? NULL : sim_pipe_at(&c->in);
    uint32_t have = c->in.count, head = 2, bytes;
    if (have < 2) return false;
    MUST((at[0] & 0xf0) == 0x80 && at[1] < 0x80, "a frame starts with %02x %02x", at[0], at[1]);
    bytes = at[1];
    if (bytes == 126) {
        if (have < 4) return false;
        bytes = (uint32_t)at[2] << 8 | at[3];
        head = 4;
    }
    MUST(at[1] != 127, "a frame of more than 64 KiB");
    if (have < head + bytes) return false;
    if ((at[0] & 15) == WS_PING) tale_write_frame(c->peer, WS_PONG, at + head, bytes);
    else tale_frame(c, at[0] & 15, at + head, bytes);
    if (c->peer != NULL) sim_pipe_skip(&c->in, head + bytes);
    return true;
}

bool tale_client_read(struct tale_client *c, bool all)
{
    if (c->peer == NULL || (!all && !c->reading)) return false;
    uint32_t n = c->peer->from_server.count;
    if (!all && n > 1) n = 1 + below(n);
    if (n > 0) {
        sim_pipe_put(&c->in, sim_pipe_at(&c->peer->from_server), n);
        sim_pipe_skip(&c->peer->from_server, n);
    }
    if (c->state == TALE_ASKING) take_answer(c);
    while (c->state == TALE_OPEN && c->peer != NULL && take_frame(c)) continue;
    if (c->peer != NULL && c->peer->saw_end && c->peer->from_server.count == 0) {
        tale_client_leave(c, false);
        return true;
    }
    return n > 0;
}

bool tale_client_current(const struct tale_client *c)
{
    return c->state == TALE_OPEN && c->socket_id[0] != 0 && c->peer->from_server.count == 0 &&
           c->peer->to_server.count == 0 && c->in.count == 0 && !c->peer->saw_end &&
           !c->peer->ended && c->pings == c->pongs;
}

/* ---- what they do ---- */

/* A new socket says what it is back for, in one of the orders that clients know. */
static void act_new(struct tale_client *c)
{
    uint32_t order = below(3);
    if (order == 0) tale_client_resume(c);
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) {
        if (maybe(800)) tale_client_subscribe(c, i, maybe(200) ? 1 + below(30) : 0);
    }
    if (order == 1) tale_client_resume(c);
}

static bool is_new(const struct tale_client *c)
{
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) {
        if (c->ears[i].asked || c->ears[i].live || c->ears[i].resuming) return false;
    }
    return true;
}

void tale_client_act(struct tale_client *c)
{
    uint32_t what = below(100), channel = below(TALE_CHANNELS);
    if (c->auditor) return;
    if (c->state == TALE_IDLE) tale_client_connect(c);
    else if (c->state != TALE_OPEN || c->socket_id[0] == 0) {
        if (maybe(16)) tale_client_leave(c, maybe(512));
    } else if (is_new(c)) act_new(c);
    else if (what < 20) tale_client_subscribe(c, channel, maybe(512) ? 1 + below(30) : 0);
    else if (what < 40) tale_client_resume(c);
    else if (what < 50) unsubscribe(c, channel);
    else if (what < 56) ping(c);
    else if (what < 62) c->reading = !c->reading;
    else if (what < 72) tale_client_leave(c, maybe(512));
}
