/* bench_capacity.c - as many connections as the server is asked to hold, set up, answered, idle.
 *
 * Method   --conns connections from --sources addresses, each upgraded and greeted. Then every one
 *          sends pusher:ping and gets pusher:pong. Then nothing happens for --idle-seconds, with
 *          no heartbeat due (activity_timeout an hour); the server's CPU time is read before and
 *          after. --heartbeat-seconds N repeats the idle time on a fresh server of
 *          activity_timeout N whose pings are answered: the cost of heartbeats, reported apart.
 */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/load.h"
#include "bench/server.h"

enum { PING_BATCH = 2000 };
#define GAUGE_NS_MAX 10000000000ull

static const char ping[] = "{\"event\":\"pusher:ping\",\"data\":{}}";
static const char pong[] = "{\"event\":\"pusher:pong\",\"data\":{}}";

struct answers { struct load *load; uint64_t pongs, pings; };

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct answers *a = ctx;
    if (memmem(item->ptr, item->bytes, "pusher:pong", 11) != NULL) {
        a->pongs++;
    } else if (memmem(item->ptr, item->bytes, "pusher:ping", 11) != NULL) {
        a->pings++;
        load_text(a->load, id, pong, sizeof pong - 1);
    } else {
        bench_die("unexpected: %.*s", (int)item->bytes, (const char *)item->ptr);
    }
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

static void open_all(struct answers *a, const struct server *server, uint32_t conns,
                     uint32_t source_first)
{
    struct load_conf conf = {.port = server->port, .conns_max = conns, .ctx = a,
                             .recv_buffers = 512, .source_first = source_first,
                             .on_item = on_item, .on_close = on_close,
                             .sources_count = (uint32_t)bench_arg("sources", 16)};
    *a = (struct answers){0};
    load_open(&a->load, &conf);
    uint64_t ns = load_fill(a->load, LOAD_WS, 0, conns, (uint32_t)bench_arg("in-flight", 512));
    server_wait_metric(server, "sockudo_connected", conns, GAUGE_NS_MAX);
    printf("%u connections in %.2f s\n", conns, (double)ns / 1e9);
    bench_figure("capacity_setup_rate", conns * 1e9 / (double)ns, "connections/s", BENCH_AT_LEAST,
                 (double)bench_arg("setup-bar", 15000));
}

static void ask_all(struct answers *a, uint32_t conns)
{
    uint64_t start_ns = bench_now_ns();
    for (uint32_t asked = 0; a->pongs < conns;) {
        while (asked < conns && asked - a->pongs < PING_BATCH) {
            load_text(a->load, asked++, ping, sizeof ping - 1);
        }
        load_poll(a->load, 10000000);
    }
    bench_figure("capacity_answered", (double)a->pongs, "connections", BENCH_EXACT, conns);
    bench_figure("capacity_ping_rate", conns * 1e9 / (double)(bench_now_ns() - start_ns),
                 "pongs/s", BENCH_NOTE, 0);
}

/* CPU of the server, as a share of one core, while nobody asks anything. */
static double idle_share(struct answers *a, const struct server *server, uint64_t seconds)
{
    uint64_t end_ns = bench_now_ns() + seconds * 1000000000;
    double   cpu_s = server_cpu_seconds(server->pid);
    while (bench_now_ns() < end_ns) load_poll(a->load, 50000000);
    return (server_cpu_seconds(server->pid) - cpu_s) / (double)seconds;
}

static void hold(uint32_t conns, uint64_t idle_seconds)
{
    static const char *const quiet[] = {"--set", "activity_timeout=3600", NULL};
    struct server  server;
    struct answers a;

    server_start(&server, (uint32_t)bench_arg("shards", 2), -1, quiet);
    struct server_memory before = server_memory(server.pid);
    open_all(&a, &server, conns, 16);
    ask_all(&a, conns);
    bench_sleep_ns(1000000000);

    double idle = idle_share(&a, &server, idle_seconds);
    struct server_memory after = server_memory(server.pid);
    if (a.pings > 0) bench_die("a heartbeat was due while idle");
    if (load_counts(a.load).open != conns) bench_die("not all connections are open");
    bench_figure("capacity_held", server_metric(&server, "sockudo_connected"), "connections",
                 BENCH_EXACT, conns);
    bench_figure("capacity_idle_cpu", 100 * idle, "% of a core", BENCH_AT_MOST, 1);
    bench_figure("capacity_rss", (double)after.rss_bytes / 1e6, "MB", BENCH_NOTE, 0);
    bench_figure("capacity_rss_per_connection",
                 (double)(after.rss_bytes - before.rss_bytes) / conns, "B", BENCH_NOTE, 0);
    bench_figure("capacity_descriptors", server_descriptors(server.pid), "ordinary descriptors",
                 BENCH_AT_MOST, 20000);
    load_free(&a.load);
    server_stop(&server);
}

static void heartbeats(uint32_t conns, uint64_t every_seconds)
{
    char           text[64];
    const char    *extra[] = {"--set", text, NULL};
    struct server  server;
    struct answers a;

    snprintf(text, sizeof text, "activity_timeout=%lu", every_seconds);
    server_start(&server, (uint32_t)bench_arg("shards", 2), -1, extra);
    open_all(&a, &server, conns, 80);
    idle_share(&a, &server, every_seconds);       /* until the first pings are out */
    uint64_t pings = a.pings;
    double   share = idle_share(&a, &server, every_seconds);
    pings = a.pings - pings;
    printf("heartbeat every %lu s: %lu pings answered in %lu s\n", every_seconds, pings,
           every_seconds);
    if (pings < conns / 2) bench_die("too few heartbeats for a figure");
    bench_figure("capacity_heartbeat_cpu", 100 * share, "% of a core", BENCH_NOTE, 0);
    load_free(&a.load);
    server_stop(&server);
}

int main(int argc, char **argv)
{
    bench_open(argc, argv, "conns,sources,in-flight,shards,idle-seconds,heartbeat-seconds,"
               "setup-bar", 600);
    uint32_t conns = (uint32_t)bench_arg("conns", 200000);
    hold(conns, bench_arg("idle-seconds", 30));
    if (bench_arg("heartbeat-seconds", 0) > 0) heartbeats(conns, bench_arg("heartbeat-seconds", 0));
    return bench_close();
}
