/* bench_scale.c - from one shard to two, next to one and two independent bare loops.
 *
 * Method   A fixed burst (--messages to --subs subscribers of one channel) goes to receivers that
 *          do not read while the clock runs: socket buffers take it all, so that no core is spent
 *          on receiving. The clock runs from the first publish to the last segment that any
 *          receiver got, by tcpi_last_data_recv (a few ms of grain), the same for all four cases.
 *          One publisher, one request outstanding, about one frame per send; each bare case sends
 *          as many frames at once as its server case did. Afterwards the receivers read everything
 *          and check it. --pairs of {1 shard, 2 shards, 1 loop, 2 loops}; judged by the median.
 *          One more such round goes before and is not counted.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "bench/limit.h"
#include "bench/publish.h"
#include "bench/server.h"
#include "bench/subs.h"

enum { PAIRS_MAX = 64, PORTS = 2, SETTLE_NS = 400000000, RCVBUF_BYTES = 1 << 20 };

struct burst {
    double frames_per_s, frames_per_send;
};

static uint32_t subs_count, data_bytes, messages;

static void on_message(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct subs *s = ctx;
    subs_take(s, id - s->first, item);
}

static void on_reply(void *ctx, uint32_t id, const struct wire_item *item)
{
    publish_reply(ctx, id, item);
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

static void receivers_open(struct load **l, struct subs *s, uint16_t port, uint32_t count,
                           enum load_kind kind)
{
    struct load_conf conf = {.port = port, .conns_max = count, .recv_bytes = 4096, .ctx = s,
                             .recv_buffers = 4096, .rcvbuf_bytes = RCVBUF_BYTES,
                             .on_item = on_message, .on_close = on_close};
    load_open(l, &conf);
    subs_open(s, *l, 0, count, 1);
    load_fill(*l, kind, 0, count, 256);
}

/* What the kernel says now that all is quiet: when the last segment came, how many there were. */
static struct burst result(struct subs *s, uint32_t parts, uint64_t start_ns, uint64_t segments)
{
    uint64_t now_ns = bench_now_ns(), segments_now = 0;
    uint32_t last_ms = UINT32_MAX;
    for (uint32_t i = 0; i < parts; i++) {
        struct subs_kernel k = subs_kernel(&s[i]);
        segments_now += k.segments;
        if (k.last_data_ms_min < last_ms) last_ms = k.last_data_ms_min;
        while (s[i].frames < (uint64_t)messages * s[i].count) load_poll(s[i].load, 1000000);
    }
    if (last_ms < SETTLE_NS / 2000000) bench_die("the burst did not fit or was not over");
    double wall_s = (double)(now_ns - start_ns) / 1e9 - last_ms / 1e3;
    double frames = (double)messages * subs_count;
    return (struct burst){frames / wall_s, frames / (double)(segments_now - segments)};
}

static struct burst measure_server(uint32_t shards, uint32_t *payload_bytes)
{
    static const char *const extra[] = {"--set", "websocket.max_messages=100000", NULL};
    struct server  server;
    struct load   *receivers, *sender;
    struct subs    subs;
    struct publish publish;
    char           data[PUBLISH_BYTES_MAX];

    server_start(&server, shards, shards == 1 ? 0 : -1, extra);
    receivers_open(&receivers, &subs, server.port, subs_count, LOAD_WS);
    subs_join(&subs, "bench");
    struct load_conf conf = {.port = server.port, .conns_max = 1, .ctx = &publish,
                             .on_item = on_reply, .on_close = on_close};
    load_open(&sender, &conf);
    publish_open(&publish, sender, 0, 1);
    uint64_t segments = subs_kernel(&subs).segments;

    uint64_t start_ns = bench_now_ns();
    while (publish.answered < messages) {
        if (publish_idle(&publish) >= 0 && publish.sent < messages) {
            subs_data(data, data_bytes, 0, (uint32_t)publish.sent);
            publish_send(&publish, 0, "bench", data);
        }
        load_poll(sender, 1000000);
    }
    bench_sleep_ns(SETTLE_NS + (uint64_t)messages * subs_count * 8000);
    struct burst b = result(&subs, 1, start_ns, segments);
    *payload_bytes = subs.payload_bytes;
    load_free(&sender);
    load_free(&receivers);
    subs_close(&subs);
    server_stop(&server);
    return b;
}

static struct burst measure_limit(uint32_t threads, uint32_t payload_bytes, double frames_per_send)
{
    struct load      *receivers[PORTS];
    struct subs       subs[PORTS];
    struct limit      limit;
    struct limit_conf conf = {.port = (uint16_t)(bench_arg("port", 6101) + 10), .frames = messages,
                              .threads = threads, .receivers = subs_count,
                              .cpu = threads == 1 ? 0 : -1, .payload_bytes = payload_bytes,
                              .send_milli = (uint32_t)(frames_per_send * 1000 + 0.5)};
    limit_start(&limit, &conf);
    for (uint32_t i = 0; i < threads; i++) {
        receivers_open(&receivers[i], &subs[i], (uint16_t)(conf.port + i), subs_count / threads,
                       LOAD_RAW);
    }
    limit_ready(&limit);
    uint64_t start_ns = bench_now_ns();
    limit_go(&limit);
    limit_wait(&limit);
    bench_sleep_ns(SETTLE_NS);
    struct burst b = result(subs, threads, start_ns, 0);
    limit_stop(&limit);
    for (uint32_t i = 0; i < threads; i++) {
        load_free(&receivers[i]);
        subs_close(&subs[i]);
    }
    return b;
}

int main(int argc, char **argv)
{
    double   ratios[PAIRS_MAX], ours[PAIRS_MAX], bare[PAIRS_MAX];
    uint32_t payload_bytes;

    bench_open(argc, argv, "pairs,subs,data-bytes,messages,bar-percent", 900);
    uint32_t pairs = (uint32_t)bench_arg("pairs", 7);
    subs_count = (uint32_t)bench_arg("subs", 4000);
    data_bytes = (uint32_t)bench_arg("data-bytes", 100);
    messages = (uint32_t)bench_arg("messages", 60);
    if (pairs == 0 || pairs > PAIRS_MAX) bench_die("1 to %d pairs", PAIRS_MAX);

    for (uint32_t run = 0; run <= pairs; run++) {
        uint32_t     i = run == 0 ? 0 : run - 1;     /* the first run only warms up */
        struct burst s1 = measure_server(1, &payload_bytes), s2 = measure_server(2, &payload_bytes);
        struct burst l1 = measure_limit(1, payload_bytes, s1.frames_per_send);
        struct burst l2 = measure_limit(2, payload_bytes, s2.frames_per_send);
        ours[i] = s2.frames_per_s / s1.frames_per_s;
        bare[i] = l2.frames_per_s / l1.frames_per_s;
        ratios[i] = ours[i] / bare[i];
        if (run == 0) continue;
        printf("pair %u: server %.0f -> %.0f frames/s (x%.2f; %.2f, %.2f per send), "
               "bare %.0f -> %.0f (x%.2f), ratio %.3f\n", i + 1, s1.frames_per_s, s2.frames_per_s,
               ours[i], s1.frames_per_send, s2.frames_per_send, l1.frames_per_s, l2.frames_per_s,
               bare[i], ratios[i]);
    }
    struct bench_spread r = bench_spread_of(ratios, pairs);
    printf("ratio: median %.3f, MAD %.3f, min %.3f, max %.3f\n", r.median, r.mad, r.min, r.max);
    bench_figure("scale_server", bench_spread_of(ours, pairs).median, "x", BENCH_NOTE, 0);
    bench_figure("scale_bare", bench_spread_of(bare, pairs).median, "x", BENCH_NOTE, 0);
    bench_figure("scale_ratio", r.median, "of two bare loops", BENCH_AT_LEAST,
                 (double)bench_arg("bar-percent", 90) / 100);
    return bench_close();
}
