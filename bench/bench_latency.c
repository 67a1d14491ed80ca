/* bench_latency.c - from the publish to the subscribers, at half of what the server can deliver.
 *
 * Method   --conns sockets in --channels channels, --publishers kept-alive connections. First the
 *          peak: as many publishes as are answered, for --peak-seconds. Then --seconds of publishes
 *          at half of that rate, open loop: each has its due time in its data, and each delivery's
 *          latency runs from there, whenever the publish really left. A channel belongs to one
 *          publisher, so that every subscriber can check that nothing is lost or out of order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/publish.h"
#include "bench/server.h"
#include "bench/subs.h"

enum { MARK_BYTES = 2, DUE_DIGITS = 19, JOIN_BATCH = 256, WINDOW = 4 };

struct run {
    struct load   *load;
    struct publish publish;
    uint32_t       conns, channels;
    uint32_t      *sub_next;            /* per subscriber: the number it must get next */
    uint32_t      *channel_next;
    uint64_t       joined, delivered;
    struct bench_times *times;          /* of deliveries */
    bool           open_loop;
};

static void take_message(struct run *r, uint32_t id, const struct wire_item *item)
{
    const char *at = memmem(item->ptr, item->bytes, "t=", MARK_BYTES);
    if (at == NULL) bench_die("not a message: %.*s", (int)item->bytes, (const char *)item->ptr);

    uint64_t due_ns = strtoull(at + MARK_BYTES, NULL, 10);
    uint32_t number = (uint32_t)strtoul(at + MARK_BYTES + DUE_DIGITS + 1, NULL, 10);
    if (number != r->sub_next[id]) {
        bench_die("subscriber %u: message %u, expected %u", id, number, r->sub_next[id]);
    }
    r->sub_next[id]++;
    r->delivered++;
    if (!r->open_loop) return;
    bench_time_add(r->times, bench_now_ns() - due_ns);
}

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct run *r = ctx;
    if (publish_owns(&r->publish, id)) publish_reply(&r->publish, id, item);
    else if (memmem(item->ptr, item->bytes, "subscription_succeeded", 22) != NULL) r->joined++;
    else take_message(r, id, item);
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

static void join_all(struct run *r)
{
    char channel[32], text[256];
    for (uint32_t asked = 0; r->joined < r->conns;) {
        while (asked < r->conns && asked - r->joined < JOIN_BATCH) {
            snprintf(channel, sizeof channel, "room-%u", asked % r->channels);
            int n = subs_request(text, sizeof text, channel);
            load_text(r->load, asked++, text, (uint32_t)n);
        }
        load_poll(r->load, 10000000);
    }
}

/* Publish the next message of a channel, if its publisher is free. */
static bool publish_next(struct run *r, uint32_t channel, uint64_t due_ns)
{
    char     name[32], data[128];
    uint32_t conn = channel % r->publish.conns_count;
    if (r->publish.busy[conn]) return false;

    snprintf(name, sizeof name, "room-%u", channel);
    snprintf(data, sizeof data, "t=%019lu.%u.%060d", due_ns, r->channel_next[channel]++, 0);
    publish_send(&r->publish, (int)conn, name, data);
    return true;
}

static void wait_delivered(struct run *r)
{
    while (r->delivered < r->publish.sent * (r->conns / r->channels)) load_poll(r->load, 1000000);
}

/* Deliveries per second when publishing as fast as answers come. */
static double peak(struct run *r, uint64_t seconds)
{
    uint32_t each = r->conns / r->channels, channel = 0;
    uint64_t start_ns = bench_now_ns(), end_ns = start_ns + seconds * 1000000000;
    uint64_t window = (uint64_t)WINDOW * r->publish.conns_count;

    while (bench_now_ns() < end_ns) {
        while (r->publish.sent - r->delivered / each < window && publish_next(r, channel, 0)) {
            channel = (channel + 1) % r->channels;
        }
        load_poll(r->load, 1000000);
    }
    wait_delivered(r);
    return (double)r->delivered * 1e9 / (double)(bench_now_ns() - start_ns);
}

static void open_loop(struct run *r, double deliveries_per_s, uint64_t seconds)
{
    double   gap_ns = 1e9 * (r->conns / r->channels) / deliveries_per_s;
    uint64_t start_ns = bench_now_ns(), total = (uint64_t)((double)seconds * 1e9 / gap_ns);
    uint64_t sent = 0;

    r->open_loop = true;
    while (sent < total) {
        uint64_t due_ns = start_ns + (uint64_t)((double)sent * gap_ns), now_ns = bench_now_ns();
        if (due_ns <= now_ns && publish_next(r, (uint32_t)(sent % r->channels), due_ns)) {
            sent++;
            continue;
        }
        load_poll(r->load, due_ns > now_ns ? due_ns - now_ns : 100000);
    }
    wait_delivered(r);
}

int main(int argc, char **argv)
{
    struct server server;
    struct run    r = {0};

    bench_open(argc, argv, "conns,channels,publishers,shards,peak-seconds,seconds", 300);
    r.conns = (uint32_t)bench_arg("conns", 10000);
    r.channels = (uint32_t)bench_arg("channels", 1000);
    uint32_t publishers = (uint32_t)bench_arg("publishers", 50);
    if (r.conns % r.channels != 0 || r.channels % publishers != 0) {
        bench_die("conns must divide by channels, channels by publishers");
    }
    r.sub_next = bench_calloc(r.conns, sizeof *r.sub_next);
    r.channel_next = bench_calloc(r.channels, sizeof *r.channel_next);
    r.times = bench_calloc(1, sizeof *r.times);

    server_start(&server, (uint32_t)bench_arg("shards", 2), -1, NULL);
    struct load_conf conf = {.port = server.port, .conns_max = r.conns + publishers, .ctx = &r,
                             .bank_slots = 18000, .recv_bytes = 2048, .recv_buffers = 4096,
                             .on_item = on_item, .on_close = on_close};
    load_open(&r.load, &conf);
    load_fill(r.load, LOAD_WS, 0, r.conns, 512);
    join_all(&r);
    publish_open(&r.publish, r.load, r.conns, publishers);

    double top = peak(&r, bench_arg("peak-seconds", 5));
    bench_figure("latency_peak", top, "deliveries/s", BENCH_NOTE, 0);
    open_loop(&r, top / 2, bench_arg("seconds", 10));
    bench_figure("latency_p50", bench_time_percentile(r.times, 0.5), "ms", BENCH_AT_MOST, 0.15);
    bench_figure("latency_p99", bench_time_percentile(r.times, 0.99), "ms", BENCH_AT_MOST, 1);
    bench_figure("latency_p999", bench_time_percentile(r.times, 0.999), "ms", BENCH_NOTE, 0);
    bench_figure("latency_max", bench_time_percentile(r.times, 1), "ms", BENCH_NOTE, 0);
    server_stop(&server);
    return bench_close();
}
