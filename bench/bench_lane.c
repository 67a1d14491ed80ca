/* bench_lane.c - how many records one lane commits per second, in batches.
 *
 * Method   The store alone: one lane, one poster on core 1 with --in-flight batches of --batch
 *          appends of --fragment-bytes to --channels messages. Every batch is answered once it is
 *          durable. After --warm-seconds the clock runs for --seconds, long enough for the wal to
 *          be packed into segments many times over.
 */
#include <stdio.h>

#include "bench/bench.h"
#include "bench/lanes.h"

static void run_for(struct lanes *l, uint64_t seconds, uint32_t batch, uint32_t bytes,
                    uint32_t in_flight)
{
    struct lanes_answer a;
    uint64_t            end_ns = bench_now_ns() + seconds * 1000000000;
    while (bench_now_ns() < end_ns) {
        while (l->batches_out < in_flight && lanes_append(l, batch, bytes, false)) {
        }
        lanes_take(l, &a, 1000000);
    }
}

int main(int argc, char **argv)
{
    static struct lanes l;
    struct store_stats  before, after;

    bench_open(argc, argv, "channels,batch,fragment-bytes,in-flight,warm-seconds,seconds,bar", 180);
    uint32_t batch = (uint32_t)bench_arg("batch", 2048), bytes = (uint32_t)bench_arg(
        "fragment-bytes", 24), in_flight = (uint32_t)bench_arg("in-flight", 8);
    if (in_flight > LANES_BATCHES) bench_die("at most %d batches", LANES_BATCHES);

    bench_pin(-1);
    lanes_open(&l, (uint32_t)bench_arg("channels", 1000), 0, 300000);
    bench_pin(1);
    run_for(&l, bench_arg("warm-seconds", 2), batch, bytes, in_flight);
    store_stats_read(l.store, 0, &before);
    uint64_t records = l.records_committed, start_ns = bench_now_ns();
    run_for(&l, bench_arg("seconds", 8), batch, bytes, in_flight);
    records = l.records_committed - records;
    double wall_s = (double)(bench_now_ns() - start_ns) / 1e9;
    store_stats_read(l.store, 0, &after);

    uint64_t commits = after.commits - before.commits;
    printf("%lu commits of %.0f records, %.0f us each; %lu segments written\n", commits,
           (double)records / (double)commits,
           (double)(after.commit_ns - before.commit_ns) / (double)commits / 1e3,
           after.segments - before.segments);
    bench_figure("lane_rate", (double)records / wall_s, "records/s", BENCH_AT_LEAST,
                 (double)bench_arg("bar", 1000000));
    lanes_close(&l);
    return bench_close();
}
