#include "tests/sim/client.h"

#include "proto/ws.h"

#include <stdio.h>

struct client clients[WORLD_CLIENTS_MAX];
uint32_t clients_count;

struct client *client_of(const struct sim_peer *p)
{
    if (p->owner >= WORLD_CLIENTS_MAX) return NULL;
    struct client *c = &clients[p->owner];
    return c->peer == p ? c : NULL;
}

void client_open_all(uint32_t count)
{
    clients_count = count;
    for (uint32_t i = 0; i < count; i++) clients[i] = (struct client){.user = -1};
}

void client_leave(struct client *c, bool broken)
{
    if (c->peer == NULL) return;
    if (broken) c->peer->broken = true;
    c->peer->ended = true;
    ring_sim_drop(&c->peer);
    sim_pipe_free(&c->in);
    *c = (struct client){.user = -1};
}

void client_close_all(void)
{
    for (uint32_t i = 0; i < clients_count; i++) client_leave(&clients[i], maybe(512));
}

bool client_is_current(const struct client *c)
{
    return c->state == CLIENT_OPEN && c->reading && c->answering && c->peer->to_server.count == 0 &&
           c->peer->from_server.count == 0 && c->pings == c->pongs && !c->peer->saw_end &&
           !c->peer->ended && c->in.count == 0 && !c->rough;
}

/* ---- what arrives ---- */

/* The answer to the upgrade. False while it is not complete. */
static bool take_answer(struct client *c)
{
    uint8_t *at = sim_pipe_at(&c->in), *end;
    if (at == NULL || (end = memmem(at, c->in.count, "\r\n\r\n", 4)) == NULL) return false;
    bool opened = memcmp(at, "HTTP/1.1 101 ", 13) == 0;
    bool late = memcmp(at, "HTTP/1.1 408 ", 13) == 0, full = memcmp(at, "HTTP/1.1 503 ", 13) == 0;
    MUST(opened || late || full, "the upgrade is answered by %.20s", at);
    sim_pipe_skip(&c->in, (uint32_t)(end + 4 - at));
    c->state = opened ? CLIENT_OPEN : CLIENT_REFUSED;
    return true;
}

/* One frame. False while it is not complete. */
static bool take_frame(struct client *c)
{
    uint8_t *at = c->in.count == 0 ? NULL : sim_pipe_at(&c->in);
    uint32_t have = c->in.count, head = 2, bytes;
    if (have < 2) return false;
    MUST((at[0] & 0xf0) == 0x80 && at[1] < 0x80, "a server frame starts with %02x %02x", at[0],
         at[1]);
    bytes = at[1];
    if (bytes == 126) {
        if (have < 4) return false;
        bytes = (uint32_t)at[2] << 8 | at[3];
        head = 4;
    }
    MUST(at[1] != 127, "a server frame of more than 64 KiB");
    if (have < head + bytes) return false;
    belief_frame(c, at[0] & 15, at + head, bytes);
    if (c->peer != NULL) sim_pipe_skip(&c->in, head + bytes);
    return true;
}

bool client_read(struct client *c, bool all)
{
    if (c->peer == NULL || !c->reading) return false;
    uint32_t n = c->peer->from_server.count;
    if (!all && n > 1) n = 1 + below(n);
    if (n > 0) {
        sim_pipe_put(&c->in, sim_pipe_at(&c->peer->from_server), n);
        sim_pipe_skip(&c->peer->from_server, n);
    }
    if (c->state == CLIENT_ASKING) take_answer(c);
    if (c->state == CLIENT_REFUSED) sim_pipe_skip(&c->in, c->in.count);
    while (c->state == CLIENT_OPEN || c->state == CLIENT_CLOSING) {
        if (c->peer == NULL || !take_frame(c)) break;
    }
    if (c->peer != NULL && c->peer->saw_end && c->peer->from_server.count == 0) {
        /* Cut in the middle of a frame only if we gave it cause: a flood unread, or a fault. */
        client_leave(c, false);
        return true;
    }
    return n > 0;
}

/* ---- what it does ---- */

static void act_open(struct client *c)
{
    uint32_t channel = below(WORLD_NAMES), what = below(100);
    for (uint32_t i = 0; i < 8 && what >= 40 && !c->channels[channel].live; i++) {
        channel = below(WORLD_NAMES);    /* to leave or speak is worth more where it is */
    }
    if (what < 40) {
        client_subscribe(c, channel, maybe(40));
    } else if (what < 60) {
        client_unsubscribe(c, channel);
    } else if (what < 76) {
        client_event(c, channel);
    } else if (what < 82) {
        client_sign_in(c, below(WORLD_USERS), maybe(40));
    } else if (what < 85) {
        client_subscribe(c, WORLD_NAMES + below(WORLD_USERS), false);
    } else if (what < 87) {
        client_unsubscribe(c, WORLD_NAMES + below(WORLD_USERS));
    } else if (what < 92) {
        client_ping(c);
    } else if (what < 94) {
        if (maybe(100)) client_rubbish(c);
    } else if (what < 96) {
        if (maybe(100)) c->reading = false;
        if (maybe(20)) c->answering = false;
    } else if (maybe(256)) {
        client_leave(c, maybe(512));
    } else if (maybe(128)) {
        client_send_frame(c, WS_CLOSE, "\x03\xe8", 2);
        c->rough = true;
    }
}

void client_act(struct client *c)
{
    if (c->state == CLIENT_IDLE) {
        client_connect(c, below(world.shards));
    } else if (c->state == CLIENT_OPEN && c->socket_id[0] != 0) {
        act_open(c);
    } else if (maybe(16)) {              /* gone in the middle of its upgrade or its end */
        client_leave(c, maybe(512));
    }
}
