/* bench_growth.c - what an append costs at the start and at the end of a long message.
 *
 * Method   --messages messages at once, each on a channel of its own with one V2 subscriber
 *          (delta), each built of --appends appends until it has --message-kb: 4,096 of 256 B make
 *          1 MiB. The appends run in rounds, one for each message. For every eighth of the rounds:
 *          CPU time of all the server's threads per append (schedstat), bytes a subscriber got per
 *          append. Judged: the last eighth against the first.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/server.h"
#include "bench/speakers.h"
#include "bench/subs.h"

enum { PARTS = 8 };

struct run {
    struct load    *load;
    struct speakers speakers;
    uint32_t        messages;
    uint64_t        joined, frames, frame_bytes;
};

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct run *r = ctx;
    if (speakers_owns(&r->speakers, id)) {
        speakers_reply(&r->speakers, id, item);
    } else if (memmem(item->ptr, item->bytes, "subscription_succeeded", 22) != NULL) {
        r->joined++;
    } else {
        r->frames++;
        r->frame_bytes += item->bytes_total;
    }
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

/* CPU time of all threads of a process, to the nanosecond. */
static uint64_t cpu_ns(pid_t pid)
{
    char     path[352], text[128];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    if (d == NULL) bench_die("%s is not there", path);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, e->d_name);
        int     fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        if (fd >= 0) close(fd);
        if (n <= 0) continue;               /* a thread that has ended */
        text[n] = 0;
        sum += strtoull(text, NULL, 10);
    }
    closedir(d);
    return sum;
}

static void one_round(struct run *r, const char *data)
{
    for (uint32_t i = 0; i < r->messages; i++) speakers_append(&r->speakers, i, data);
    while (r->speakers.publish.answered < r->speakers.publish.sent ||
           r->frames < r->speakers.publish.sent) {
        load_poll(r->load, 1000000);
    }
}

static void join_all(struct run *r)
{
    char channel[32], text[256];
    for (uint32_t i = 0; i < r->messages; i++) {
        speakers_channel(channel, sizeof channel, i);
        load_text(r->load, i, text, (uint32_t)subs_request(text, sizeof text, channel));
    }
    while (r->joined < r->messages) load_poll(r->load, 10000000);
}

int main(int argc, char **argv)
{
    static struct run r;
    static char       data[PUBLISH_BYTES_MAX];
    struct server     server;
    double            cost[PARTS], bytes[PARTS];

    bench_open(argc, argv, "messages,appends,message-kb,ratio-percent", 300);
    uint32_t appends = (uint32_t)bench_arg("appends", 4096);
    uint32_t fragment = (uint32_t)bench_arg("message-kb", 1024) * 1024 / appends;
    r.messages = (uint32_t)bench_arg("messages", 16);
    if (r.messages > SPEAKERS_MAX || fragment >= sizeof data || appends < PARTS) {
        bench_die("too many, too large or too few");
    }
    memset(data, 'w', fragment);

    bench_pin(1);
    server_start(&server, 1, 0, server_history);
    struct load_conf conf = {.port = server.port, .conns_max = 2 * r.messages, .recv_bytes = 4096,
                             .v2 = true, .ctx = &r, .on_item = on_item, .on_close = on_close};
    load_open(&r.load, &conf);
    r.speakers.publish.first = r.messages;
    load_fill(r.load, LOAD_WS, 0, r.messages, 64);
    join_all(&r);
    speakers_open(&r.speakers, r.load, r.messages, r.messages);

    for (uint32_t part = 0; part < PARTS; part++) {
        uint64_t rounds = appends / PARTS, frame_bytes = r.frame_bytes, cpu = cpu_ns(server.pid);
        for (uint64_t i = 0; i < rounds; i++) one_round(&r, data);
        double count = (double)rounds * r.messages;
        cost[part] = (double)(cpu_ns(server.pid) - cpu) / count / 1e3;
        bytes[part] = (double)(r.frame_bytes - frame_bytes) / count;
        printf("messages of %4u to %4u KiB: %.2f us of CPU, %.0f B to the subscriber an append\n",
               part * fragment * (appends / PARTS) / 1024,
               (part + 1) * fragment * (appends / PARTS) / 1024, cost[part], bytes[part]);
    }
    bench_figure("growth_cpu_first", cost[0], "us per append", BENCH_NOTE, 0);
    bench_figure("growth_cpu_last", cost[PARTS - 1], "us per append", BENCH_NOTE, 0);
    bench_figure("growth_cpu_ratio", cost[PARTS - 1] / cost[0], "last / first", BENCH_AT_MOST,
                 (double)bench_arg("ratio-percent", 115) / 100);
    bench_figure("growth_frame_ratio", bytes[PARTS - 1] / bytes[0], "last / first", BENCH_AT_MOST,
                 1.05);
    server_stop(&server);
    return bench_close();
}
