/* bench_restart.c - how soon a server with much history answers after a crash.
 *
 * Method   --mib MiB of history are published over 64 connections to --channels channels. Then the
 *          server is killed (and, in a second run, ended by SIGTERM), the page cache of its files
 *          is dropped, and it is started again: the time from the start to the first answer of
 *          GET history of a channel, which reads what is stored. The cache is dropped for the whole
 *          machine where that is permitted, else file by file with POSIX_FADV_DONTNEED.
 */
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/publish.h"
#include "bench/server.h"

enum { CONNS = 64, DATA_BYTES = 8000 };

static struct publish publisher;
static struct load   *load;
static uint64_t       stored_bytes;

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    (void)ctx;
    publish_reply(&publisher, id, item);
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx, (void)id;      /* the server is ended on purpose */
}

static void fill(uint64_t bytes, uint32_t channels)
{
    static char data[DATA_BYTES + 1];
    char        channel[32];
    uint64_t    count = bytes / DATA_BYTES;
    memset(data, 'h', DATA_BYTES);
    while (publisher.answered < count) {
        for (int conn; publisher.sent < count && (conn = publish_idle(&publisher)) >= 0;) {
            snprintf(channel, sizeof channel, "kept-%lu", publisher.sent % channels);
            publish_send(&publisher, conn, channel, data);
        }
        load_poll(load, 1000000);
    }
}

static int forget_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)walk;
    if (kind != FTW_F) return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) bench_die("cannot open %s", path);
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    stored_bytes += (uint64_t)st->st_blocks * 512;
    return 0;
}

static void drop_cache(const struct server *server)
{
    static bool told;
    stored_bytes = 0;
    sync();
    if (nftw(server->dir, forget_one, 8, FTW_PHYS) != 0) bench_die("cannot walk %s", server->dir);
    int  fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    bool all = fd >= 0 && write(fd, "3", 1) == 1;
    if (fd >= 0) close(fd);
    if (!told) {
        printf("page cache dropped %s; %.2f GiB on the disk\n",
               all ? "for the whole machine" : "file by file (POSIX_FADV_DONTNEED)",
               (double)stored_bytes / (1 << 30));
    }
    told = true;
}

static void measure(struct server *server, uint32_t shards, int signal, const char *name)
{
    char path[512], label[64];
    server_end(server, signal);
    drop_cache(server);
    publish_signed_path(path, sizeof path, "/channels/kept-1/history");
    uint64_t ns = server_again(server, shards, -1, server_history, path);
    snprintf(label, sizeof label, "restart_%s", name);
    bench_figure(label, (double)ns / 1e9, "s", BENCH_AT_MOST, 2);
}

int main(int argc, char **argv)
{
    struct server server;

    bench_open(argc, argv, "mib,channels,shards", 600);
    uint32_t shards = (uint32_t)bench_arg("shards", 2);
    uint64_t mib = bench_arg("mib", 1024);

    server_start(&server, shards, -1, server_history);
    struct load_conf conf = {.port = server.port, .conns_max = CONNS, .on_item = on_item,
                             .on_close = on_close};
    load_open(&load, &conf);
    publish_open(&publisher, load, 0, CONNS);
    uint64_t start_ns = bench_now_ns();
    fill(mib << 20, (uint32_t)bench_arg("channels", 1000));
    printf("%lu MiB of history in %.1f s\n", mib, (double)(bench_now_ns() - start_ns) / 1e9);
    measure(&server, shards, SIGKILL, "after_kill");
    measure(&server, shards, SIGTERM, "after_stop");
    if ((double)stored_bytes < 0.9 * (double)(mib << 20)) bench_die("the history is not there");
    load_free(&load);
    server_stop(&server);
    return bench_close();
}
