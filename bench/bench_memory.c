/* bench_memory.c - what an idle connection costs the server in memory.
 *
 * Method   Three fresh servers: no subscription, a channel for each connection, one shared by all.
 *          Each first sees 20 rounds of 1,000 connections that come and go; growth is counted from
 *          there, over --conns connections, and divided by them. Judged by anonymous memory
 *          (RssAnon) and by all of it (VmRSS). Rounds may leave memory behind that the connections
 *          then reuse, so the growth since the start, rounds and all, is printed too.
 */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/load.h"
#include "bench/server.h"
#include "bench/subs.h"

enum { ROUNDS = 20, ROUND_CONNS = 1000, SETTLE_NS = 1500000000, IN_FLIGHT = 256 };
#define GAUGE_NS_MAX 10000000000ull

enum mode { MODE_IDLE, MODE_DISTINCT, MODE_SHARED };

static uint64_t joined;

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    (void)ctx, (void)id;
    static const char succeeded[] = "_internal:subscription_succeeded";
    if (memmem(item->ptr, item->bytes, succeeded, sizeof succeeded - 1) == NULL) {
        bench_die("not an answer: %.*s", (int)item->bytes, (const char *)item->ptr);
    }
    joined++;
}

static void rounds(struct load *load, const struct server *server)
{
    for (uint32_t round = 0; round < ROUNDS; round++) {
        load_fill(load, LOAD_WS, 0, ROUND_CONNS, IN_FLIGHT);
        uint64_t closed = load_counts(load).closed + ROUND_CONNS;
        for (uint32_t id = 0; id < ROUND_CONNS; id++) load_shut(load, id);
        while (load_counts(load).closed < closed) load_poll(load, 10000000);
        server_wait_metric(server, "sockudo_connected", 0, GAUGE_NS_MAX);
    }
}

static void subscribe(struct load *load, uint32_t conns, enum mode mode)
{
    char     channel[64], text[256];
    uint32_t asked = 0;
    joined = 0;
    while (joined < conns) {
        while (asked < conns && asked - joined < IN_FLIGHT) {
            snprintf(channel, sizeof channel, "room-%06u", mode == MODE_DISTINCT ? asked : 0);
            int n = subs_request(text, sizeof text, channel);
            load_text(load, asked++, text, (uint32_t)n);
        }
        load_poll(load, 10000000);
    }
}

static void measure(enum mode mode, const char *name, double bar)
{
    struct server server;
    struct load  *load;
    uint32_t      conns = (uint32_t)bench_arg("conns", 15000);
    char          label[64];

    server_start(&server, (uint32_t)bench_arg("shards", 1), -1, NULL);
    struct load_conf conf = {.port = server.port, .on_item = on_item,
                             .conns_max = conns > ROUND_CONNS ? conns : ROUND_CONNS};
    load_open(&load, &conf);
    struct server_memory fresh = server_memory(server.pid);
    rounds(load, &server);
    bench_sleep_ns(SETTLE_NS);
    struct server_memory before = server_memory(server.pid);

    load_fill(load, LOAD_WS, 0, conns, IN_FLIGHT);
    if (mode != MODE_IDLE) subscribe(load, conns, mode);
    bench_sleep_ns(SETTLE_NS);
    struct server_memory after = server_memory(server.pid);
    server_wait_metric(&server, "sockudo_connected", conns, GAUGE_NS_MAX);

    double anon = ((double)after.anon_bytes - (double)before.anon_bytes) / conns;
    double rss = ((double)after.rss_bytes - (double)before.rss_bytes) / conns;
    printf("%s: baseline %.1f MB, with %u connections %.1f MB\n", name,
           (double)before.rss_bytes / 1e6, conns, (double)after.rss_bytes / 1e6);
    snprintf(label, sizeof label, "memory_%s_anon", name);
    bench_figure(label, anon, "B per connection", BENCH_AT_MOST, bar);
    snprintf(label, sizeof label, "memory_%s_rss", name);
    bench_figure(label, rss, "B per connection", BENCH_AT_MOST, bar);
    snprintf(label, sizeof label, "memory_%s_from_start", name);
    bench_figure(label, ((double)after.rss_bytes - (double)fresh.rss_bytes) / conns,
                 "B per connection", BENCH_NOTE, 0);
    load_free(&load);
    server_stop(&server);
}

int main(int argc, char **argv)
{
    bench_open(argc, argv, "conns,shards", 300);
    measure(MODE_IDLE, "idle", 512);
    measure(MODE_DISTINCT, "distinct_channels", 768);
    measure(MODE_SHARED, "shared_channel", 768);
    return bench_close();
}
