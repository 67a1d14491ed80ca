/* bench_handshake.c - what one upgrade costs the server.
 *
 * Method   --conns connections from --sources addresses are set up and held; each counts once it
 *          has received pusher:connection_established. Upgrades are divided by the CPU seconds
 *          (user and system, all threads) that the server used meanwhile. The wall rate is printed
 *          as well: it includes the generator, which shares the machine.
 */
#include <stdio.h>

#include "bench/bench.h"
#include "bench/load.h"
#include "bench/server.h"

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

int main(int argc, char **argv)
{
    struct server server;
    struct load  *load;

    bench_open(argc, argv, "conns,sources,in-flight,shards,bar", 300);
    uint32_t conns = (uint32_t)bench_arg("conns", 100000);
    struct load_conf conf = {.conns_max = conns, .on_close = on_close,
                             .source_first = 1,
                             .sources_count = (uint32_t)bench_arg("sources", 8)};

    server_start(&server, (uint32_t)bench_arg("shards", 2), -1, NULL);
    conf.port = server.port;
    load_open(&load, &conf);
    double   cpu_s = server_cpu_seconds(server.pid);
    uint64_t wall_ns = load_fill(load, LOAD_WS, 0, conns, (uint32_t)bench_arg("in-flight", 512));
    cpu_s = server_cpu_seconds(server.pid) - cpu_s;

    if (load_counts(load).open != conns) bench_die("not all connections are open");
    if (server_metric(&server, "sockudo_connected") != conns) bench_die("the gauge disagrees");
    printf("%u upgrades in %.2f s, %.2f CPU seconds of the server\n", conns, (double)wall_ns / 1e9,
           cpu_s);
    bench_figure("handshake_per_cpu_second", conns / cpu_s, "upgrades", BENCH_AT_LEAST,
                 (double)bench_arg("bar", 20000));
    bench_figure("handshake_wall_rate", conns * 1e9 / (double)wall_ns, "upgrades/s", BENCH_NOTE, 0);
    server_stop(&server);
    return bench_close();
}
