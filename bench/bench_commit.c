/* bench_commit.c - how long commits take while everything else a lane does goes on.
 *
 * Method   The store alone: a batch of --batch rows of --row-bytes every --gap-us, to --channels
 *          channels, while segments are written, --reads cold reads of a random channel's history
 *          are always under way, and retention deletes what is older than --keep-seconds. After
 *          --warm-seconds, when deletion has begun, every batch's commit time counts, for
 *          --seconds. The run only counts when segments were written and reads answered; what was
 *          deleted shows in the oldest rows that reads find.
 */
#include <stdio.h>

#include "bench/bench.h"
#include "bench/lanes.h"

enum { SAMPLES_MAX = 1 << 20, ROWS_A_READ = 50 };

struct run {
    struct lanes lanes;
    uint64_t    *samples, samples_count, posted, late, reads, reads_cut;
    uint32_t     random, reads_wanted;
    bool         counting;
};

static uint32_t draw(struct run *r, uint32_t below)
{
    r->random = r->random * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)r->random * below >> 32);
}

static void take_all(struct run *r, uint64_t wait_ns)
{
    struct lanes_answer a;
    while (lanes_take(&r->lanes, &a, wait_ns)) {
        wait_ns = 0;
        if (a.batch != NULL && r->counting && r->samples_count < SAMPLES_MAX) {
            r->samples[r->samples_count++] = a.batch->commit_ns;
        }
        if (a.read == NULL) continue;
        r->reads += r->counting;
        r->reads_cut += r->counting && a.read->head.rows_first > 1;
    }
}

static void run_for(struct run *r, uint64_t seconds)
{
    uint64_t gap_ns = bench_arg("gap-us", 1000) * 1000, due_ns = bench_now_ns();
    uint64_t end_ns = due_ns + seconds * 1000000000;
    uint32_t batch = (uint32_t)bench_arg("batch", 40);
    uint32_t bytes = (uint32_t)bench_arg("row-bytes", 400);

    while (due_ns < end_ns) {
        while (r->lanes.reads_out < r->reads_wanted) {
            if (!lanes_read(&r->lanes, draw(r, r->lanes.channels_count), ROWS_A_READ)) break;
        }
        uint64_t now_ns = bench_now_ns();
        if (now_ns < due_ns) {
            take_all(r, due_ns - now_ns);
            continue;
        }
        if (lanes_append(&r->lanes, batch, bytes, true)) r->posted++;
        else r->late++;
        due_ns += gap_ns;
    }
}

int main(int argc, char **argv)
{
    static struct run  r = {.random = 1};
    struct store_stats before, after;

    bench_open(argc, argv, "channels,batch,row-bytes,gap-us,reads,keep-seconds,warm-seconds,"
               "seconds", 180);
    r.samples = bench_calloc(SAMPLES_MAX, sizeof *r.samples);
    r.reads_wanted = (uint32_t)bench_arg("reads", 2);
    uint64_t keep_ms = bench_arg("keep-seconds", 4) * 1000;

    bench_pin(-1);
    lanes_open(&r.lanes, (uint32_t)bench_arg("channels", 2000), keep_ms, 1000);
    bench_pin(1);
    run_for(&r, bench_arg("warm-seconds", 8));
    store_stats_read(r.lanes.store, 0, &before);
    r.counting = true;
    run_for(&r, bench_arg("seconds", 15));
    r.counting = false;
    store_stats_read(r.lanes.store, 0, &after);

    printf("%lu commits, %lu batches, %lu late; %lu segments written; %lu reads, %lu of channels "
           "whose first rows are deleted\n", after.commits - before.commits, r.posted, r.late,
           after.segments - before.segments, r.reads, r.reads_cut);
    if (r.samples_count == 0 || r.reads == 0 || r.reads_cut == 0 ||
        after.segments == before.segments) {
        bench_die("not everything took place");
    }
    bench_figure("commit_p50", bench_percentile(r.samples, r.samples_count, 0.5) / 1e6, "ms",
                 BENCH_NOTE, 0);
    bench_figure("commit_p99", bench_percentile(r.samples, r.samples_count, 0.99) / 1e6, "ms",
                 BENCH_AT_MOST, 2);
    bench_figure("commit_max", bench_percentile(r.samples, r.samples_count, 1) / 1e6, "ms",
                 BENCH_NOTE, 0);
    lanes_close(&r.lanes);
    return bench_close();
}
