/* bench_append.c - signed HTTP appends, kept-alive, each answered once it is durable.
 *
 * Method   One shard, one lane, all threads of the server on core 0; the generator on core 1.
 *          --conns connections, each with a message and a channel of its own, one request
 *          outstanding, fragments of --fragment-bytes. After --warm-seconds the clock runs for
 *          --seconds. Before that, the bare group commit (group.h) with records of the size the
 *          store writes for such an append, at the same concurrency, on the same disk: the bar is
 *          the smaller of --bar and 0.8 of that.
 * Source   spec/settled.md 44.
 */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/group.h"
#include "bench/server.h"
#include "bench/speakers.h"
#include "store/record.h"

enum { SAMPLES_MAX = 8 << 20 };

struct run {
    struct load    *load;
    struct speakers speakers;
    char            data[PUBLISH_BYTES_MAX];
    uint64_t        sent_ns[SPEAKERS_MAX], *samples, samples_count;
    bool            going, counting;
};

static void append(struct run *r, uint32_t i)
{
    r->sent_ns[i] = bench_now_ns();
    speakers_append(&r->speakers, i, r->data);
}

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct run *r = ctx;
    uint32_t    i = speakers_reply(&r->speakers, id, item);
    if (r->counting && r->samples_count < SAMPLES_MAX) {
        r->samples[r->samples_count++] = bench_now_ns() - r->sent_ns[i];
    }
    if (r->going) append(r, i);
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

static void run_for(struct run *r, uint64_t seconds)
{
    uint64_t end_ns = bench_now_ns() + seconds * 1000000000;
    while (bench_now_ns() < end_ns) load_poll(r->load, 1000000);
}

/* The packed size of what the store writes for one append. */
static uint32_t append_record_bytes(uint32_t fragment_bytes)
{
    static uint8_t text[PUBLISH_BYTES_MAX];
    struct record  r = {.kind = RECORD_APPEND, .chan = 1000, .delivery = 100000, .history = 1,
                        .message = 1, .context = 1, .data = {text, fragment_bytes + 2}};
    return record_bytes(&r);
}

static void report(struct run *r, double limit, uint64_t answered, double wall_s, double cpu_s)
{
    double bar = (double)bench_arg("bar", 60000), rate = (double)answered / wall_s;
    if (0.8 * limit < bar) bar = 0.8 * limit;
    printf("%lu appends in %.2f s; the server used %.2f of its core\n", answered, wall_s,
           cpu_s / wall_s);
    bench_figure("append_rate", rate, "appends/s", BENCH_AT_LEAST, bar);
    bench_figure("append_group_commit_limit", limit, "records/s", BENCH_NOTE, 0);
    bench_figure("append_per_cpu_second", (double)answered / cpu_s, "appends", BENCH_NOTE, 0);
    bench_figure("append_answer_p50", bench_percentile(r->samples, r->samples_count, 0.5) / 1e6,
                 "ms", BENCH_NOTE, 0);
    bench_figure("append_answer_p99", bench_percentile(r->samples, r->samples_count, 0.99) / 1e6,
                 "ms", BENCH_NOTE, 0);
}

int main(int argc, char **argv)
{
    static struct run r;
    struct server     server;

    bench_open(argc, argv, "conns,fragment-bytes,warm-seconds,seconds,limit-seconds,bar,cpu", 180);
    uint32_t conns = (uint32_t)bench_arg("conns", 256);
    uint32_t fragment_bytes = (uint32_t)bench_arg("fragment-bytes", 24);
    if (conns > SPEAKERS_MAX || fragment_bytes >= sizeof r.data) bench_die("too many");
    memset(r.data, 'w', fragment_bytes);
    r.samples = bench_calloc(SAMPLES_MAX, sizeof *r.samples);

    uint32_t            record = append_record_bytes(fragment_bytes);
    struct group_result g = group_run("/tmp", record, conns, true,
                                      (double)bench_arg("limit-seconds", 3));
    printf("bare group commit of %u records of %u B: p50 %.0f us, p99 %.0f us\n", conns, record,
           g.commit_p50_us, g.commit_p99_us);

    bench_pin(1);
    server_start(&server, 1, (int)bench_arg("cpu", 0), server_history);
    struct load_conf conf = {.port = server.port, .conns_max = conns, .recv_bytes = 2048, .ctx = &r,
                             .recv_buffers = 2048, .on_item = on_item, .on_close = on_close};
    load_open(&r.load, &conf);
    speakers_open(&r.speakers, r.load, 0, conns);
    r.going = true;
    for (uint32_t i = 0; i < conns; i++) append(&r, i);
    run_for(&r, bench_arg("warm-seconds", 2));

    uint64_t answered = r.speakers.publish.answered, start_ns = bench_now_ns();
    double   cpu_s = server_cpu_seconds(server.pid);
    r.counting = true;
    run_for(&r, bench_arg("seconds", 10));
    answered = r.speakers.publish.answered - answered;
    cpu_s = server_cpu_seconds(server.pid) - cpu_s;
    double wall_s = (double)(bench_now_ns() - start_ns) / 1e9;
    r.going = r.counting = false;
    while (r.speakers.publish.answered < r.speakers.publish.sent) load_poll(r.load, 1000000);
    report(&r, g.records_per_s, answered, wall_s, cpu_s);
    server_stop(&server);
    return bench_close();
}
