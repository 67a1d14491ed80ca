/* limit_commit.c - what the disk's group commit allows, without a server.
 *
 * Method   group.h, in --dir, with records of --record-bytes from --concurrency writers: once with
 *          one sync a commit, once with the second durable write of a store that has a head page.
 */
#include <stdio.h>

#include "bench/bench.h"
#include "bench/group.h"

int main(int argc, char **argv)
{
    bench_open(argc, argv, "dir,record-bytes,concurrency,seconds", 120);
    for (uint32_t twice = 0; twice < 2; twice++) {
        struct group_result r = group_run(bench_arg_text("dir", "/tmp"),
                                          (uint32_t)bench_arg("record-bytes", 160),
                                          (uint32_t)bench_arg("concurrency", 256), twice != 0,
                                          (double)bench_arg("seconds", 3));
        printf("%s: %lu commits, p50 %.0f us, p99 %.0f us\n",
               twice ? "two durable writes" : "one sync", r.commits, r.commit_p50_us,
               r.commit_p99_us);
        bench_figure(twice ? "limit_commit" : "limit_commit_one_sync", r.records_per_s, "records/s",
                     BENCH_NOTE, 0);
    }
    return bench_close();
}
