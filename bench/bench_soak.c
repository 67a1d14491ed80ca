/* bench_soak.c - a long mixed run that must leave the server as it was after its warm-up.
 *
 * Method   For --warm-seconds and then for --seconds: sockets come and go, subscribe, leave
 *          channels and ping, publishes flow, slow readers are closed by the server and come again.
 *          After each of the two periods everything is closed and the quiet server is measured:
 *          resident memory (within 2 %), ordinary and direct descriptors and pool use (equal).
 *          Readers check that each channel's messages come without a gap; nobody but slow readers
 *          may be closed.
 */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/publish.h"
#include "bench/server.h"
#include "bench/subs.h"

enum { ROOMS = 256, ROOMS_PER_SOCKET = 4, PUBLISHERS = 16, SLOW = 16, TURN_NS = 5000000,
       SLOW_TURN_SECONDS = 12, FLOOD_BYTES = 8000, FLOOD_PER_S = 120, QUIET_NS = 3000000000 };
#define GAUGE_NS_MAX 20000000000ull

struct socket {
    uint32_t room[ROOMS_PER_SOCKET];     /* number + 1 of the channel; 0: none */
    uint32_t next[ROOMS_PER_SOCKET];     /* 0: the first message says */
    bool     ours;                       /* we are closing it */
};

struct quiet { double rss_bytes, descriptors, direct, heap_bytes; };

struct soak {
    struct server  server;
    struct load   *load, *slow;
    struct publish publish;
    struct socket *sockets;
    uint32_t       sockets_count, room_next[ROOMS + 1];
    uint64_t       random, messages, slow_filled_ns, opened;
};

static uint32_t draw(struct soak *s, uint32_t bound)      /* xorshift: any even spread will do */
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (uint32_t)(s->random >> 33) % bound;
}

static void say(struct soak *s, uint32_t id, const char *event, uint32_t room)
{
    char text[160];
    int  n = snprintf(text, sizeof text, "{\"event\":\"pusher:%s\",\"data\":{\"auth\":\"\","
                      "\"channel\":\"room-%u\"}}", event, room);
    load_text(s->load, id, text, (uint32_t)n);
}

static void on_open(void *ctx, uint32_t id)
{
    struct soak   *s = ctx;
    struct socket *k = &s->sockets[id];
    if (id >= s->sockets_count) return;
    *k = (struct socket){0};
    for (uint32_t i = 0; i < ROOMS_PER_SOCKET; i++) {
        k->room[i] = 1 + i * (ROOMS / ROOMS_PER_SOCKET) + draw(s, ROOMS / ROOMS_PER_SOCKET);
        say(s, id, "subscribe", k->room[i]);
    }
}

static void take_message(struct soak *s, uint32_t id, const uint8_t *at)
{
    struct socket *k = &s->sockets[id];
    unsigned       room, number;
    if (sscanf((const char *)at, "room=%u.%u;", &room, &number) != 2) bench_die("odd message");
    for (uint32_t i = 0; i < ROOMS_PER_SOCKET; i++) {
        if (k->room[i] != room) continue;
        if (k->next[i] != 0 && k->next[i] != number) {
            bench_die("socket %u, room %u: message %u, expected %u", id, room, number, k->next[i]);
        }
        k->next[i] = number + 1;
        s->messages++;
    }
}

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct soak *s = ctx;
    if (id >= s->sockets_count) {
        publish_reply(&s->publish, id, item);
        return;
    }
    const uint8_t *at = memmem(item->ptr, item->bytes, "room=", 5);
    if (at != NULL) {
        take_message(s, id, at);
    } else if (memmem(item->ptr, item->bytes, "pusher:error", 12) != NULL) {
        bench_die("an error: %.*s", (int)item->bytes, (const char *)item->ptr);
    }
}

static void on_close(void *ctx, uint32_t id)
{
    struct soak *s = ctx;
    if (id >= s->sockets_count || !s->sockets[id].ours) bench_die("connection %u was closed", id);
}

static double slow_closed(const struct soak *s)
{
    return server_metric(&s->server, "sockudo_slow_consumer_disconnects_total");
}

/* One socket, drawn at random, changes. */
static void change_one(struct soak *s)
{
    static const char ping[] = "{\"event\":\"pusher:ping\",\"data\":{}}";
    uint32_t          id = draw(s, s->sockets_count), what = draw(s, 4);
    struct socket    *k = &s->sockets[id];

    if (!load_is_open(s->load, id)) {
        if (load_is_free(s->load, id)) {
            load_connect(s->load, LOAD_WS, id);
            s->opened++;
        }
    } else if (what == 0) {
        k->ours = true;
        load_shut(s->load, id);
    } else if (what == 1) {
        load_text(s->load, id, ping, sizeof ping - 1);
    } else if (k->room[what] != 0) {
        say(s, id, "unsubscribe", k->room[what]);
        k->room[what] = k->next[what] = 0;
    }
}

static void publish_one(struct soak *s)
{
    char     name[32], data[128];
    uint32_t room = 1 + draw(s, ROOMS), conn = room % PUBLISHERS;     /* one publisher per room */
    if (s->publish.busy[conn]) return;
    snprintf(name, sizeof name, "room-%u", room);
    snprintf(data, sizeof data, "room=%u.%u;%050d", room, ++s->room_next[room], 0);
    publish_send(&s->publish, (int)conn, name, data);
}

static void flood_one(struct soak *s)
{
    static char data[FLOOD_BYTES + 1];
    if (s->publish.busy[0]) return;
    memset(data, 'f', FLOOD_BYTES);
    publish_send(&s->publish, 0, "flood", data);
}

/* Slow readers subscribe and are then not polled, so that nothing reads; after a while they are
 * looked after again: whoever was closed meanwhile connects anew. */
static void turn_slow(struct soak *s)
{
    char text[128];
    int  n = subs_request(text, sizeof text, "flood");
    while (load_poll(s->slow, 0) > 0) {
    }
    for (uint32_t id = 0; id < SLOW; id++) {
        if (!load_is_free(s->slow, id)) continue;
        load_fill(s->slow, LOAD_WS, id, 1, 1);
        load_text(s->slow, id, text, (uint32_t)n);
    }
    load_poll(s->slow, 0);
    s->slow_filled_ns = bench_now_ns();
}

static void mix(struct soak *s, uint64_t seconds, uint64_t changes_per_s, uint64_t publishes_per_s)
{
    uint64_t start_ns = bench_now_ns(), changed = 0, published = 0, flooded = 0, told = 0;
    for (;;) {
        uint64_t past_ns = bench_now_ns() - start_ns;
        if (past_ns >= seconds * 1000000000) return;
        for (; changed < past_ns * changes_per_s / 1000000000; changed++) change_one(s);
        for (; published < past_ns * publishes_per_s / 1000000000; published++) publish_one(s);
        for (; flooded < past_ns * FLOOD_PER_S / 1000000000; flooded++) flood_one(s);
        if (bench_now_ns() - s->slow_filled_ns > SLOW_TURN_SECONDS * 1000000000ull) turn_slow(s);
        if (past_ns / 60000000000 > told) {
            told = past_ns / 60000000000;
            printf("minute %lu: RSS %.1f MB, %lu sockets so far, %lu messages read, "
                   "%.0f slow readers closed\n", told,
                   (double)server_memory(s->server.pid).rss_bytes / 1e6, s->opened, s->messages,
                   slow_closed(s));
        }
        load_poll(s->load, TURN_NS);
    }
}

/* Close everything, let the server settle, look at it. */
static struct quiet quiet(struct soak *s)
{
    while (s->publish.answered < s->publish.sent) load_poll(s->load, TURN_NS);
    for (uint32_t busy = 1; busy > 0;) {
        busy = 0;
        for (uint32_t id = 0; id < s->sockets_count; id++) {
            s->sockets[id].ours = true;
            if (load_is_open(s->load, id)) load_shut(s->load, id);
            busy += !load_is_free(s->load, id);
        }
        load_poll(s->load, TURN_NS);
    }
    for (uint32_t busy = 1; busy > 0;) {
        busy = 0;
        for (uint32_t id = 0; id < SLOW; id++) {
            if (load_is_open(s->slow, id)) load_shut(s->slow, id);
            busy += !load_is_free(s->slow, id);
        }
        load_poll(s->slow, TURN_NS);
    }
    server_wait_metric(&s->server, "sockudo_connected", 0, GAUGE_NS_MAX);
    bench_sleep_ns(QUIET_NS);
    s->slow_filled_ns = 0;
    return (struct quiet){(double)server_memory(s->server.pid).rss_bytes,
                          server_descriptors(s->server.pid),
                          server_metric(&s->server, "sockudo_direct_descriptors"),
                          server_metric(&s->server, "sockudo_heap_used_bytes")};
}

static void start(struct soak *s)
{
    s->random = bench_arg("seed", 88172645463325252);
    s->sockets_count = (uint32_t)bench_arg("conns", 4000);
    s->sockets = bench_calloc(s->sockets_count, sizeof *s->sockets);
    /* A slow reader answers no ping; it shall end by its queue's bound on a busy machine, too. */
    static const char *const extra[] = {"--set", "websocket.pong_timeout=600", NULL};
    server_start(&s->server, (uint32_t)bench_arg("shards", 2), -1, extra);

    struct load_conf conf = {.port = s->server.port, .conns_max = s->sockets_count + PUBLISHERS,
                             .ctx = s, .recv_bytes = 2048, .recv_buffers = 2048,
                             .on_open = on_open, .on_item = on_item, .on_close = on_close};
    load_open(&s->load, &conf);
    publish_open(&s->publish, s->load, s->sockets_count, PUBLISHERS);
    struct load_conf slow = {.port = s->server.port, .conns_max = SLOW, .ctx = s,
                             .rcvbuf_bytes = 8192};
    load_open(&s->slow, &slow);
}

int main(int argc, char **argv)
{
    static struct soak s;
    bench_open(argc, argv, "conns,shards,seconds,warm-seconds,changes,publishes,seed", 7200);
    uint64_t changes = bench_arg("changes", 600), publishes = bench_arg("publishes", 300);

    start(&s);
    mix(&s, bench_arg("warm-seconds", 180), changes, publishes);
    struct quiet before = quiet(&s);
    mix(&s, bench_arg("seconds", 1800), changes, publishes);
    struct quiet after = quiet(&s);

    printf("%lu sockets, %lu publishes, %lu messages read\n", s.opened, s.publish.sent, s.messages);
    bench_figure("soak_rss_before", before.rss_bytes / 1e6, "MB", BENCH_NOTE, 0);
    bench_figure("soak_rss_growth", 100 * (after.rss_bytes - before.rss_bytes) / before.rss_bytes,
                 "%", BENCH_AT_MOST, 2);
    bench_figure("soak_descriptors", after.descriptors, "ordinary", BENCH_EXACT,
                 before.descriptors);
    bench_figure("soak_direct_descriptors", after.direct, "direct", BENCH_EXACT, before.direct);
    bench_figure("soak_pool", after.heap_bytes, "B in use", BENCH_EXACT, before.heap_bytes);
    bench_figure("soak_slow_closed", slow_closed(&s), "slow readers", BENCH_AT_LEAST, 1);
    bench_figure("soak_messages", (double)s.messages, "messages read", BENCH_AT_LEAST, 1);
    server_stop(&s.server);
    return bench_close();
}
