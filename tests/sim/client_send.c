#include "tests/sim/client.h"

#include "proto/sign.h"
#include "proto/ws.h"

#include <stdio.h>

enum { TEXT_BYTES = 2048 };

static char *put(char *at, const char *text)
{
    size_t n = strlen(text);
    memcpy(at, text, n + 1);
    return at + n;
}

static char *put_quoted(char *at, const char *text)
{
    at += json_quote(slice_str(text), (uint8_t *)at);
    *at = 0;
    return at;
}

/* "{key}:{signature}" over the parts; spoilt when wrong. */
static char *put_auth(char *at, const struct client *c, const char *between, const char *what,
                      const char *data, bool wrong)
{
    char hex[SIGN_HEX_BYTES + 1] = "";
    struct slice parts[5] = {
        slice_str(c->socket_id), slice_str(between), slice_str(what), slice_str(":"),
        slice_str(data == NULL ? "" : data),
    };
    sign_hex(slice_str("secret"), parts, data == NULL ? 3 : 5, hex);
    if (wrong) hex[5] = hex[5] == 'a' ? 'b' : 'a';
    return at + sprintf(at, "%s:%s", world.apps[c->app].key, hex);
}

void client_send_frame(struct client *c, uint8_t opcode, const void *payload, uint32_t bytes)
{
    uint8_t head[14] = {(uint8_t)(0x80 | opcode)}, *body = NULL;
    uint32_t n = 2, mask = (uint32_t)rng_next(&ring_sim_rng);
    ASSERT(bytes < 65536 && c->peer != NULL);
    if (bytes < 126) {
        head[1] = (uint8_t)(0x80 | bytes);
    } else {
        head[1] = 0x80 | 126;
        head[2] = (uint8_t)(bytes >> 8);
        head[3] = (uint8_t)bytes;
        n = 4;
    }
    memcpy(head + n, &mask, 4);
    sim_pipe_put(&c->peer->to_server, head, n + 4);
    sim_pipe_put(&c->peer->to_server, payload, bytes);
    if (bytes > 0) body = sim_pipe_at(&c->peer->to_server) + c->peer->to_server.count - bytes;
    for (uint32_t i = 0; i < bytes; i++) body[i] ^= head[n + i % 4];
}

void client_send_text(struct client *c, const char *text, uint32_t bytes)
{
    if (world.verbose) fprintf(stderr, "%u: client %u says %.*s\n", world.step, c->number,
                               (int)bytes, text);
    if (bytes > 8 && maybe(100)) {       /* as two fragments, a control frame between them */
        uint32_t first = below(bytes);
        client_send_frame(c, WS_TEXT, text, first);
        uint32_t head = c->peer->to_server.count - first - (first < 126 ? 6 : 8);
        sim_pipe_at(&c->peer->to_server)[head] &= 0x7f;
        if (maybe(512)) client_send_frame(c, WS_PONG, "x", 1);
        client_send_frame(c, WS_CONTINUATION, text + first, bytes - first);
    } else {
        client_send_frame(c, maybe(100) ? WS_BINARY : WS_TEXT, text, bytes);
    }
}

void client_connect(struct client *c, uint32_t shard)
{
    static const char *const keys[] = {"key-one", "key-two", "key-off", "key-small", "unknown"};
    char text[512];
    uint32_t key = maybe(900) ? below(2) : below(5);
    struct ring_addr addr = {{0}};
    addr.ip[15] = (uint8_t)below(4);
    c->peer = ring_sim_connect(world.server.shards[shard].re.ring, 0, addr);
    c->peer->owner = (uint32_t)(c - clients);
    c->state = CLIENT_ASKING;
    c->number = ++world.connections;
    c->shard = shard;
    c->app = key < 4 ? key : 0;
    c->reading = c->answering = true;
    int n = snprintf(text, sizeof(text),
                     "GET /app/%s?protocol=7&client=js HTTP/1.1\r\nHost: sim\r\n"
                     "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", keys[key]);
    if (maybe(30)) {                     /* it stops half-way */
        sim_pipe_put(&c->peer->to_server, text, below((uint32_t)n));
        if (maybe(700)) client_leave(c, maybe(512));
        return;
    }
    sim_pipe_put(&c->peer->to_server, text, (uint32_t)n);
}

void client_ping(struct client *c)
{
    static const char text[] = "{\"event\":\"pusher:ping\",\"data\":{}}";
    client_send_text(c, text, sizeof(text) - 1);
    c->pings++;
}

void client_subscribe(struct client *c, uint32_t channel, bool wrong)
{
    const char *name = world_name(channel);
    char text[TEXT_BYTES], data[128] = "", *at = text;
    bool presence = world_is_presence(channel), has_data = presence && !maybe(50);
    at = put(at, "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":");
    at = put_quoted(at, name);
    if (presence || strncmp(name, "private-", 8) == 0) {
        uint32_t user = below(WORLD_USERS);
        snprintf(data, sizeof(data), "{\"user_id\":\"u%u\",\"user_info\":{\"n\":%u}}", user, user);
        at = put(at, ",\"auth\":\"");
        at = put_auth(at, c, ":", name, has_data ? data : NULL, wrong);
        at = put(at, "\"");
        if (has_data) at = put_quoted(put(at, ",\"channel_data\":"), data);
    }
    at = put(at, "}}");
    client_send_text(c, text, (uint32_t)(at - text));
    c->channels[channel].asked++;
}

void client_unsubscribe(struct client *c, uint32_t channel)
{
    char text[256];
    int n = snprintf(text, sizeof(text),
                     "{\"event\":\"pusher:unsubscribe\",\"data\":{\"channel\":\"%s\"}}",
                     world_name(channel));
    struct belief *b = &c->channels[channel];
    if (b->leaves_count == BELIEF_LEAVES) return;
    client_send_text(c, text, (uint32_t)n);
    client_ping(c);
    b->asked = 0;
    b->leaves[b->leaves_count++] = c->pings;
}

void client_event(struct client *c, uint32_t channel)
{
    char text[512];
    uint32_t id = world_message(c->app, channel, c->number);
    world.messages[id].sender = c->number;
    int n = snprintf(text, sizeof(text),
                     "{\"event\":\"client-e\",\"channel\":\"%s\",\"data\":%s#m%u;%*s\"}}",
                     world_name(channel), "{ \"v\" : \"", id, (int)below(200), "");
    client_send_text(c, text, (uint32_t)n);
}

void client_sign_in(struct client *c, uint32_t user, bool wrong)
{
    char text[TEXT_BYTES], data[256], *at = data;
    uint32_t watch = maybe(512) ? below(1u << WORLD_USERS) : 0, number = c->signins + 1;
    at += sprintf(at, "{\"id\":\"u%u\",\"n\":%u,\"watchlist\":[", user, number);
    const char *comma = "";
    for (uint32_t i = 0; i < WORLD_USERS; i++) {
        if (!(watch >> i & 1)) continue;
        at += sprintf(at, "%s\"u%u\"", comma, i);
        comma = ",";
    }
    at = put(at, "]}");
    at = put(text, "{\"event\":\"pusher:signin\",\"data\":{\"auth\":\"");
    at = put_auth(at, c, "::user::", data, NULL, wrong);
    at = put_quoted(put(at, "\",\"user_data\":"), data);
    at = put(at, "}}");
    client_send_text(c, text, (uint32_t)(at - text));
    if (wrong) return;
    c->signins = number;
    c->signin_user[number % 256] = (uint8_t)user;
    c->signin_watch[number % 256] = (uint8_t)(watch & ~(1u << user));
}

void client_rubbish(struct client *c)
{
    uint8_t bytes[64];
    uint32_t n = 1 + below(sizeof(bytes));
    for (uint32_t i = 0; i < n; i++) bytes[i] = (uint8_t)below(256);
    c->rough = true;
    if (maybe(512)) sim_pipe_put(&c->peer->to_server, bytes, n);
    else if (maybe(512)) client_send_frame(c, WS_BINARY, bytes, n);
    else for (uint32_t i = 0; i < 5; i++) client_send_frame(c, WS_TEXT, "[1,2]", 5);
}
