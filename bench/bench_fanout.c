/* bench_fanout.c - one shard to many subscribers of one channel, next to the bare loop.
 *
 * Method   The server's shard owns core 0; the subscribers and the publishers, one thread, core 1.
 *          Signed publishes go out as fast as they are answered, at most --window undelivered.
 *          Every subscriber checks every message. After --warm messages the clock runs for
 *          --messages. Frames per send come from the subscribers' tcpi_data_segs_in. Then the bare
 *          loop takes the server's place: same core, same receivers' code and clock, same frame
 *          length, same frames per send. --pairs such pairs in turn; the ratio is judged by its
 *          median, by wall clock and by CPU second of the sending process.
 *          The receivers never sleep on their ring (they spin, or nap for --nap-us), so no sender
 *          pays for wake-ups and a publisher's next request is not late.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/limit.h"
#include "bench/publish.h"
#include "bench/server.h"
#include "bench/subs.h"

enum { SUBS_MAX = 16000, PAIRS_MAX = 64 };

struct side {
    double frames_per_s, frames_per_cpu_s, cpu_share, frames_per_send;
};

/* One run of either side. */
struct run {
    struct load   *load;
    struct subs    subs;
    struct publish publish;
    bool           publishing;
    uint32_t       numbers[SUBS_PUBLISHERS_MAX];   /* next message of each publisher */
    uint64_t       messages_max;
};

static uint32_t subs_count, publishers, data_bytes, warm, messages, window, nap_us;

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct run *r = ctx;
    if (r->publishing && publish_owns(&r->publish, id)) publish_reply(&r->publish, id, item);
    else subs_take(&r->subs, id, item);
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

static void open_load(struct run *r, uint16_t port)
{
    struct load_conf conf = {.port = port, .conns_max = subs_count + publishers, .recv_bytes = 4096,
                             .recv_buffers = 4096, .ctx = r, .on_item = on_item,
                             .on_close = on_close};
    load_open(&r->load, &conf);
    subs_open(&r->subs, r->load, 0, subs_count, publishers);
}

static void publish_some(struct run *r)
{
    char data[PUBLISH_BYTES_MAX];
    for (;;) {
        uint64_t delivered = r->subs.frames / subs_count;
        int      conn = publish_idle(&r->publish);
        if (conn < 0 || r->publish.sent == r->messages_max) return;
        if (r->publish.sent - delivered >= window) return;
        subs_data(data, data_bytes, (uint32_t)conn, r->numbers[conn]++);
        publish_send(&r->publish, conn, "bench", data);
    }
}

/* Until every subscriber has had `count` messages on average. */
static void pump(struct run *r, uint64_t count)
{
    while (r->subs.frames < count * subs_count) {
        if (r->publishing) publish_some(r);
        load_poll(r->load, 0);
        if (nap_us > 0) bench_sleep_ns((uint64_t)nap_us * 1000);
    }
}

static struct side measure(struct run *r, pid_t sender, struct limit *limit)
{
    struct subs_kernel before = subs_kernel(&r->subs);
    if (limit != NULL) limit_go(limit);
    pump(r, warm);
    uint64_t frames = r->subs.frames, start_ns = bench_now_ns();
    double   cpu_s = server_cpu_seconds(sender);
    pump(r, warm + messages);
    double wall_s = (double)(bench_now_ns() - start_ns) / 1e9;
    cpu_s = server_cpu_seconds(sender) - cpu_s;
    frames = r->subs.frames - frames;

    struct subs_kernel after = subs_kernel(&r->subs);
    return (struct side){(double)frames / wall_s, (double)frames / cpu_s, cpu_s / wall_s,
                         (double)(after.bytes - before.bytes) / r->subs.frame_bytes /
                             (double)(after.segments - before.segments)};
}

static void check_all_came(const struct run *r)
{
    uint64_t expected = (uint64_t)(warm + messages) * subs_count;
    if (r->subs.frames != expected) {
        bench_die("%lu frames came, %lu were due", r->subs.frames, expected);
    }
}

static struct side measure_server(const struct server *server, uint32_t *payload_bytes)
{
    struct run *r = bench_calloc(1, sizeof *r);
    open_load(r, server->port);
    r->messages_max = warm + messages;
    load_fill(r->load, LOAD_WS, 0, subs_count, 256);
    subs_join(&r->subs, "bench");
    publish_open(&r->publish, r->load, subs_count, publishers);
    r->publishing = true;

    struct side side = measure(r, server->pid, NULL);
    check_all_came(r);
    *payload_bytes = r->subs.payload_bytes;
    subs_close(&r->subs);
    load_free(&r->load);
    free(r);
    return side;
}

static struct side measure_limit(uint32_t payload_bytes, double frames_per_send)
{
    struct run       *r = bench_calloc(1, sizeof *r);
    struct limit      limit;
    struct limit_conf conf = {.port = (uint16_t)(bench_arg("port", 6101) + 10), .threads = 1,
                              .receivers = subs_count, .payload_bytes = payload_bytes,
                              .frames = warm + messages, .cpu = 0,
                              .send_milli = (uint32_t)(frames_per_send * 1000 + 0.5)};
    limit_start(&limit, &conf);
    open_load(r, conf.port);
    load_fill(r->load, LOAD_RAW, 0, subs_count, 256);
    limit_ready(&limit);

    struct side side = measure(r, limit.pid, &limit);
    check_all_came(r);
    limit_wait(&limit);
    limit_stop(&limit);
    subs_close(&r->subs);
    load_free(&r->load);
    free(r);
    return side;
}

static void print_side(const char *name, const struct side *s)
{
    printf("  %-7s %9.0f frames/s  %9.0f frames per CPU second  %3.0f%% of a core  "
           "%.2f frames per send\n", name, s->frames_per_s, s->frames_per_cpu_s,
           100 * s->cpu_share, s->frames_per_send);
}

static void print_ratio(const char *name, double *ratios, uint32_t count, double bar)
{
    char label[64];
    struct bench_spread s = bench_spread_of(ratios, count);
    printf("%s: median %.3f, MAD %.3f, min %.3f, max %.3f\n", name, s.median, s.mad, s.min, s.max);
    snprintf(label, sizeof label, "fanout_%s_%upub", name, publishers);
    bench_figure(label, s.median, "of the bare loop", BENCH_AT_LEAST, bar);
}

int main(int argc, char **argv)
{
    struct server server;
    double        wall[PAIRS_MAX], cpu[PAIRS_MAX], rates[PAIRS_MAX], limits[PAIRS_MAX];

    bench_open(argc, argv, "pairs,subs,publishers,data-bytes,warm,messages,window,nap-us,"
               "bar-percent", 600);
    uint32_t pairs = (uint32_t)bench_arg("pairs", 5), payload_bytes = 0;
    subs_count = (uint32_t)bench_arg("subs", 1000);
    publishers = (uint32_t)bench_arg("publishers", 1);
    data_bytes = (uint32_t)bench_arg("data-bytes", 100);
    warm = (uint32_t)bench_arg("warm", 100);
    messages = (uint32_t)bench_arg("messages", 400);
    window = (uint32_t)bench_arg("window", publishers + 2);
    nap_us = (uint32_t)bench_arg("nap-us", 0);
    double bar = (double)bench_arg("bar-percent", 80) / 100;
    if (pairs == 0 || pairs > PAIRS_MAX || subs_count > SUBS_MAX) bench_die("too many");

    bench_pin(1);
    server_start(&server, 1, 0, NULL);
    for (uint32_t i = 0; i < pairs; i++) {
        struct side s = measure_server(&server, &payload_bytes);
        struct side l = measure_limit(payload_bytes, s.frames_per_send);
        printf("pair %u, %u subscribers, payload %u B\n", i + 1, subs_count, payload_bytes);
        print_side("server", &s);
        print_side("bare", &l);
        wall[i] = s.frames_per_s / l.frames_per_s;
        cpu[i] = s.frames_per_cpu_s / l.frames_per_cpu_s;
        rates[i] = s.frames_per_s;
        limits[i] = l.frames_per_s;
    }
    server_stop(&server);

    char label[64];
    snprintf(label, sizeof label, "fanout_rate_%upub", publishers);
    bench_figure(label, bench_spread_of(rates, pairs).median, "frames/s", BENCH_NOTE, 0);
    snprintf(label, sizeof label, "fanout_bare_rate_%upub", publishers);
    bench_figure(label, bench_spread_of(limits, pairs).median, "frames/s", BENCH_NOTE, 0);
    print_ratio("wall", wall, pairs, bar);
    print_ratio("cpu", cpu, pairs, bar);
    return bench_close();
}
