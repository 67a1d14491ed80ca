#include "bench/group.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"

enum { ROOM_BYTES = 256 << 20, HEAD_BYTES = 144, PAGE_BYTES = 4096, SAMPLES_MAX = 1 << 20 };

static int open_file(char *path, uint32_t path_bytes, const char *dir, const char *name, int flags,
                     uint64_t room_bytes)
{
    snprintf(path, path_bytes, "%s/%s", dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600);
    if (fd < 0) bench_die("%s: %s", path, strerror(errno));
    if (posix_fallocate(fd, 0, (off_t)room_bytes) != 0) bench_die("%s: no room", path);
    return fd;
}

static void write_all(int fd, const void *bytes, uint64_t count, uint64_t at)
{
    if (pwrite(fd, bytes, count, (off_t)at) != (ssize_t)count) {
        bench_die("group commit: %s", strerror(errno));
    }
}

struct group_result group_run(const char *dir, uint32_t record_bytes, uint32_t concurrency,
                              bool twice, double seconds)
{
    char      data_path[512], head_path[512], head[HEAD_BYTES] = {1};
    uint64_t  bytes = (uint64_t)record_bytes * concurrency, at = 0, commits = 0;
    uint64_t *samples = bench_calloc(SAMPLES_MAX, sizeof *samples);
    uint8_t  *group = bench_calloc(1, bytes);
    int       data = open_file(data_path, sizeof data_path, dir, "group-data", 0, ROOM_BYTES);
    int       page = open_file(head_path, sizeof head_path, dir, "group-head", O_DSYNC,
                               2 * PAGE_BYTES);
    memset(group, 0x5a, bytes);

    uint64_t start_ns = bench_now_ns(), end_ns = start_ns + (uint64_t)(seconds * 1e9);
    uint64_t now_ns = start_ns;
    while (now_ns < end_ns && commits < SAMPLES_MAX) {
        if (at + bytes > ROOM_BYTES) at = 0;
        write_all(data, group, bytes, at);
        if (fdatasync(data) != 0) bench_die("fdatasync: %s", strerror(errno));
        if (twice) write_all(page, head, sizeof head, (commits & 1) * PAGE_BYTES);
        at += bytes;
        uint64_t done_ns = bench_now_ns();
        samples[commits++] = done_ns - now_ns;
        now_ns = done_ns;
    }
    struct group_result r = {.commits = commits,
        .records_per_s = (double)commits * concurrency * 1e9 / (double)(now_ns - start_ns),
        .commit_p50_us = bench_percentile(samples, commits, 0.5) / 1e3,
        .commit_p99_us = bench_percentile(samples, commits, 0.99) / 1e3};
    close(data);
    close(page);
    unlink(data_path);
    unlink(head_path);
    free(group);
    free(samples);
    return r;
}
