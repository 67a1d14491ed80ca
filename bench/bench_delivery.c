/* bench_delivery.c - from the append to the subscriber, durable, at half of what the server can do.
 *
 * Method   As bench_append, with one V2 subscriber (delta) on each channel: first the peak, closed
 *          loop, for --peak-seconds; then --seconds of appends at half of that rate, open loop.
 *          Each carries its due time, and the latency runs from there until the subscriber has the
 *          frame, whenever the append really left. Serials show that nothing is lost or out of
 *          order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/server.h"
#include "bench/speakers.h"
#include "bench/subs.h"


struct run {
    struct load    *load;
    struct speakers speakers;
    uint32_t        conns;
    uint64_t        joined, delivered;
    uint64_t        next[SPEAKERS_MAX];     /* the serial that subscriber i must get */
    struct bench_times *times;
    uint16_t        idle[SPEAKERS_MAX];     /* who has no request outstanding, longest first */
    uint32_t        idle_first, idle_last;  /* they only rise */
    uint64_t        late_ns, late_max_ns;   /* of the generator */
    bool            going, open_loop;
};

static void append(struct run *r, uint32_t i, uint64_t due_ns)
{
    char data[64];
    snprintf(data, sizeof data, "t=%019lu ", due_ns);
    speakers_append(&r->speakers, i, data);
}

static uint64_t number_behind(const struct wire_item *item, const char *mark)
{
    const char *at = memmem(item->ptr, item->bytes, mark, strlen(mark));
    if (at == NULL) bench_die("no %s: %.*s", mark, (int)item->bytes, (const char *)item->ptr);
    return strtoull(at + strlen(mark), NULL, 10);
}

static void take_frame(struct run *r, uint32_t id, const struct wire_item *item)
{
    if (memmem(item->ptr, item->bytes, "subscription_succeeded", 22) != NULL) {
        r->next[id] = 1;
        r->joined++;
        return;
    }
    uint64_t serial = number_behind(item, "\"serial\":");
    if (serial != r->next[id]) {
        bench_die("subscriber %u: serial %lu, expected %lu", id, serial, r->next[id]);
    }
    r->next[id]++;
    r->delivered++;
    if (!r->open_loop || serial == 1) return;
    bench_time_add(r->times, bench_now_ns() - number_behind(item, "t="));
}

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct run *r = ctx;
    if (!speakers_owns(&r->speakers, id)) {
        take_frame(r, id, item);
        return;
    }
    uint32_t i = speakers_reply(&r->speakers, id, item);
    if (r->going) append(r, i, 0);
    else r->idle[r->idle_last++ % SPEAKERS_MAX] = (uint16_t)i;
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

static void join_all(struct run *r)
{
    char channel[32], text[256];
    for (uint32_t i = 0; i < r->conns; i++) {
        speakers_channel(channel, sizeof channel, i);
        load_text(r->load, i, text, (uint32_t)subs_request(text, sizeof text, channel));
    }
    while (r->joined < r->conns) load_poll(r->load, 10000000);
}

static void wait_delivered(struct run *r)
{
    while (r->delivered < r->speakers.publish.sent) load_poll(r->load, 1000000);
}

static double peak(struct run *r, uint64_t seconds)
{
    uint64_t start_ns = bench_now_ns(), end_ns = start_ns + seconds * 1000000000;
    uint64_t delivered = r->delivered;

    r->going = true;
    for (uint32_t i = 0; i < r->conns; i++) append(r, i, 0);
    while (bench_now_ns() < end_ns) load_poll(r->load, 1000000);
    double rate = (double)(r->delivered - delivered) * 1e9 / (double)(bench_now_ns() - start_ns);
    r->going = false;
    r->idle_first = r->idle_last = 0;
    wait_delivered(r);
    while (r->speakers.publish.answered < r->speakers.publish.sent) load_poll(r->load, 1000000);
    return rate;
}

static void open_loop(struct run *r, double per_s, uint64_t seconds)
{
    double   gap_ns = 1e9 / per_s;
    uint64_t start_ns = bench_now_ns(), total = (uint64_t)(per_s * (double)seconds), sent = 0;

    r->open_loop = true;
    while (sent < total) {
        uint64_t due_ns = start_ns + (uint64_t)((double)sent * gap_ns), now_ns = bench_now_ns();
        if (due_ns <= now_ns && r->idle_first != r->idle_last) {
            append(r, r->idle[r->idle_first++ % SPEAKERS_MAX], due_ns);
            sent++;
            r->late_ns += now_ns - due_ns;
            if (now_ns - due_ns > r->late_max_ns) r->late_max_ns = now_ns - due_ns;
            continue;
        }
        load_poll(r->load, due_ns > now_ns ? due_ns - now_ns : 100000);
    }
    wait_delivered(r);
    printf("the generator was late by %.2f ms on average, %.2f ms at most\n",
           (double)r->late_ns / (double)sent / 1e6, (double)r->late_max_ns / 1e6);
}

int main(int argc, char **argv)
{
    static struct run r;
    struct server     server;

    bench_open(argc, argv, "conns,peak-seconds,seconds,cpu", 180);
    r.conns = (uint32_t)bench_arg("conns", 256);
    if (r.conns > SPEAKERS_MAX) bench_die("at most %d", SPEAKERS_MAX);
    r.times = bench_calloc(1, sizeof *r.times);

    bench_pin(1);
    server_start(&server, 1, (int)bench_arg("cpu", 0), server_history);
    struct load_conf conf = {.port = server.port, .conns_max = 2 * r.conns, .recv_bytes = 4096,
                             .recv_buffers = 2048, .v2 = true, .ctx = &r, .on_item = on_item,
                             .on_close = on_close};
    load_open(&r.load, &conf);
    r.speakers.publish.first = r.conns;
    load_fill(r.load, LOAD_WS, 0, r.conns, 64);
    join_all(&r);
    speakers_open(&r.speakers, r.load, r.conns, r.conns);

    double top = peak(&r, bench_arg("peak-seconds", 5));
    bench_figure("delivery_peak", top, "appends/s", BENCH_NOTE, 0);
    open_loop(&r, top / 2, bench_arg("seconds", 10));
    bench_figure("delivery_p50", bench_time_percentile(r.times, 0.5), "ms", BENCH_NOTE, 0);
    bench_figure("delivery_p99", bench_time_percentile(r.times, 0.99), "ms", BENCH_AT_MOST, 10);
    bench_figure("delivery_p999", bench_time_percentile(r.times, 0.999), "ms", BENCH_NOTE, 0);
    bench_figure("delivery_max", bench_time_percentile(r.times, 1), "ms", BENCH_NOTE, 0);
    server_stop(&server);
    return bench_close();
}
