#include "tests/sim/backend.h"

#include "proto/sign.h"
#include "tests/sim/client.h"
#include "tests/sim/peer.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

enum { BACKENDS = 3, PENDING_MAX = 64, ACT_PENDING_MAX = 3, TEXT_BYTES = 4096 };

struct pending {                     /* a request that has not been answered */
    bool     publish, keyed;
    bool     compare;                /* asked when all was quiet: the numbers must fit */
    uint32_t app, channel;           /* channel WORLD_CHANNELS: the list of all */
};

struct backend {
    struct sim_peer *peer;
    uint64_t         quiet_ms;       /* when it connected or was last answered */
    struct sim_pipe  in;
    struct pending   pending[PENDING_MAX];
    uint32_t         pending_count;
    bool             ended;          /* no more requests; answers are still read */
};

static struct backend backends[BACKENDS];

/* ---- requests ---- */

static void md5_hex(const char *body, uint32_t bytes, char out[33])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int good = EVP_Digest(body, bytes, digest, &n, EVP_md5(), NULL);
    ASSERT(good == 1 && n == 16);
    for (uint32_t i = 0; i < 16; i++) sprintf(out + 2 * i, "%02x", digest[i]);
}

uint32_t backend_request_write(char *text, uint32_t room, const char *method, uint32_t app,
                               const char *rest, const char *info, const char *body)
{
    char query[512], path[256], hex[SIGN_HEX_BYTES + 1] = "", md5[33] = "";
    uint32_t bytes = (uint32_t)strlen(body);
    int n = snprintf(query, sizeof(query), "auth_key=%s&auth_timestamp=%llu&auth_version=1.0",
                     world.apps[app].key, (unsigned long long)(clock_wall_ms() / 1000));
    if (bytes > 0) {
        md5_hex(body, bytes, md5);
        n += snprintf(query + n, sizeof(query) - (size_t)n, "&body_md5=%s", md5);
    }
    n += snprintf(query + n, sizeof(query) - (size_t)n, "%s", info);
    ASSERT(n < (int)sizeof(query));
    snprintf(path, sizeof(path), "/apps/%s/%s", world.apps[app].id, rest);
    struct slice parts[5] = {
        slice_str(method), slice_str("\n"), slice_str(path), slice_str("\n"), slice_str(query),
    };
    sign_hex(slice_str("secret"), parts, 5, hex);
    n = snprintf(text, room,
                 "%s %s?%s&auth_signature=%s HTTP/1.1\r\nHost: sim\r\n"
                 "Content-Type: application/json\r\nContent-Length: %u\r\n\r\n%s", method, path,
                 query, hex, bytes, body);
    ASSERT(n < (int)room);
    return (uint32_t)n;
}

static void request(struct backend *b, const char *method, uint32_t app, const char *rest,
                    const char *info, const char *body, struct pending pending)
{
    char text[TEXT_BYTES];
    uint32_t n = backend_request_write(text, sizeof(text), method, app, rest, info, body);
    ASSERT(b->pending_count < PENDING_MAX);
    sim_pipe_put(&b->peer->to_server, text, n);
    b->pending[b->pending_count++] = pending;
}

static void ask_channel(struct backend *b, uint32_t app, uint32_t channel, bool compare)
{
    struct pending p = {.compare = compare, .app = app, .channel = channel};
    char rest[128];
    if (channel == WORLD_CHANNELS) {
        request(b, "GET", app, "channels", "&info=subscription_count", "", p);
        return;
    }
    snprintf(rest, sizeof(rest), "channels/%s", world_name(channel));
    bool presence = world_is_presence(channel);
    request(b, "GET", app, rest,
            presence ? "&info=subscription_count,user_count" : "&info=subscription_count", "", p);
}

/* An event for one to three channels, sometimes without one of the sockets, sometimes with a key */
static void publish(struct backend *b, uint32_t app)
{
    char body[1024], names[256] = "", more[128] = "";
    uint32_t count = 1 + below(3), first = below(WORLD_CHANNELS), key = below(32), except = 0;
    struct client *c = &clients[below(clients_count)];
    if (c->state == CLIENT_OPEN && c->socket_id[0] != 0 && c->app == app && maybe(512)) {
        except = c->number;
        snprintf(more, sizeof(more), ",\"socket_id\":\"%s\"", c->socket_id);
    }
    /* A message has one channel, so an event for several has text that names none. */
    if (count > 1) first = below(WORLD_NAMES);
    uint32_t id = count == 1 ? world_message(app, first, except) : 0;
    for (uint32_t i = 0, n = 0; i < count; i++) {
        n += (uint32_t)snprintf(names + n, sizeof(names) - n, "%s\"%s\"", i == 0 ? "" : ",",
                                world_name((first + 5 * i) % (count == 1 ? WORLD_CHANNELS
                                                                         : WORLD_NAMES)));
    }
    size_t used = strlen(more);
    bool keyed = key < 6 && count > 1;
    if (keyed) {
        snprintf(more + used, sizeof(more) - used, ",\"idempotency_key\":\"key-%u\"", key);
    }
    snprintf(body, sizeof(body), "{\"name\":\"%s\",\"channels\":[%s],\"data\":\"#m%u;%*s\"%s%s}",
             count == 1 ? "ev" : "many", names, id, (int)below(100), "", more,
             maybe(512) ? ",\"info\":\"subscription_count\"" : "");
    request(b, "POST", app, "events", "", body,
            (struct pending){.publish = true, .keyed = keyed, .app = app});
}

/* ---- answers ---- */

static uint32_t subs_of(uint32_t app, uint32_t channel, uint32_t *users)
{
    struct slice name = slice_str(world_name(channel));
    struct shard *any = &world.server.shards[0];
    struct shard *sh = &world.server.shards[shard_home(any, app, name)];
    struct home *h = home_find(sh, app, name);
    *users = h == NULL || h->extra == NULL ? 0 : h->extra->members_count;
    return h == NULL ? 0 : h->subs_count;
}

static void compare_one(const struct pending *p, const char *body)
{
    char want[64];
    uint32_t users, subs = subs_of(p->app, p->channel, &users);
    snprintf(want, sizeof(want), "\"occupied\":%s", subs > 0 ? "true" : "false");
    MUST(strstr(body, want) != NULL, "%s of %s", body, world_name(p->channel));
    snprintf(want, sizeof(want), "\"subscription_count\":%u", subs);
    MUST(strstr(body, want) != NULL, "%s of %s, %u subscriptions", body, world_name(p->channel),
         subs);
    snprintf(want, sizeof(want), "\"user_count\":%u", users);
    MUST(!world_is_presence(p->channel) || strstr(body, want) != NULL, "%s of %s, %u users", body,
         world_name(p->channel), users);
}

static void compare_all(const struct pending *p, const char *body)
{
    char want[128];
    uint32_t expected = 0, found = 0, users;
    for (uint32_t i = 0; i < WORLD_NAMES; i++) {
        uint32_t subs = subs_of(p->app, i, &users);
        if (subs == 0) continue;
        expected++;
        snprintf(want, sizeof(want), "\"%s\":{\"subscription_count\":%u}", world_name(i), subs);
        MUST(strstr(body, want) != NULL, "no %s in %s", want, body);
    }
    for (const char *at = body; (at = strstr(at, "\"subscription_count\"")) != NULL; at++) found++;
    MUST(found == expected, "%u of %u channels: %s", found, expected, body);
}

static void on_answer(struct backend *b, uint32_t status, const char *body)
{
    MUST(b->pending_count > 0, "an answer that nobody asked for: %u %s", status, body);
    struct pending p = b->pending[0];
    b->pending_count--;
    b->quiet_ms = clock_mono_ns() / 1000000;
    memmove(b->pending, b->pending + 1, b->pending_count * sizeof(p));
    if (p.keyed && status == 400) {      /* the key stands for another event */
        MUST(strstr(body, "different payload") != NULL, "answer %u: %s", status, body);
        return;
    }
    MUST(status == 200 || status == 503, "answer %u: %s", status, body);
    MUST(status == 200 || world.failed > 0 || strstr(body, "Idempotent") != NULL ||
             world.server.draining || world.conf.fanout_backlog < WORLD_CLIENTS_MAX,
         "answer %u: %s", status, body);
    if (status != 200 || !p.compare) return;
    if (p.channel == WORLD_CHANNELS) compare_all(&p, body);
    else compare_one(&p, body);
}

static bool take_answer(struct backend *b)
{
    static char text[1 << 16];
    uint32_t status;
    if (!peer_answer(&b->in, text, sizeof(text), &status)) return false;
    if (status == 408) {                 /* it took too long to arrive */
        b->ended = true;
        b->pending_count = 0;
        return true;
    }
    on_answer(b, status, text);
    return true;
}

/* ---- the life of a connection ---- */

static void connect_one(struct backend *b)
{
    b->peer = peer_connect(1 << 16);
    b->quiet_ms = clock_mono_ns() / 1000000;
}

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
        /* A request may be on its way while its connection is closed as idle. */
        bool late = clock_mono_ns() / 1000000 - b->quiet_ms >= world.conf.handshake_timeout_ms;
        bool unread = b->peer->to_server.count > 0 || late;
        MUST(b->pending_count == 0 || unread || world.failed > 0, "cut before %u answers",
             b->pending_count);
        leave(b, false);
        return true;
    }
    return any;
}

void backend_open_all(void)
{
    memset(backends, 0, sizeof(backends));
}

bool backend_read_all(void)
{
    bool any = false;
    for (uint32_t i = 0; i < BACKENDS; i++) {
        if (read_one(&backends[i])) any = true;
    }
    return any;
}

void backend_act(void)
{
    struct backend *b = &backends[below(BACKENDS)];
    uint32_t app = below(2), what = below(100);
    if (b->peer == NULL) {
        connect_one(b);
    } else if (b->pending_count >= ACT_PENDING_MAX || b->ended) {
        return;
    } else if (what < 70) {
        publish(b, app);
    } else if (what < 95) {
        ask_channel(b, app, below(WORLD_NAMES), false);
    } else if (what < 98) {
        ask_channel(b, app, WORLD_CHANNELS, false);
    } else if (maybe(512)) {
        leave(b, maybe(512));
    } else {                             /* what was asked is still answered */
        b->ended = b->peer->ended = true;
    }
}

void backend_ask_all(void)
{
    struct backend *b = &backends[0];
    leave(b, false);
    connect_one(b);
    for (uint32_t app = 0; app < 2; app++) {
        for (uint32_t i = 0; i < WORLD_NAMES; i++) ask_channel(b, app, i, true);
        ask_channel(b, app, WORLD_CHANNELS, true);
    }
}

void backend_close_all(void)
{
    for (uint32_t i = 0; i < BACKENDS; i++) leave(&backends[i], maybe(512));
}
