/* bench_mass_drop.c - half of all connections die at once: what do the others notice?
 *
 * Method   A child process holds half of --conns connections, this one the rest. --echo of these
 *          send pusher:ping at --rate per second altogether, open loop: each latency runs from the
 *          time the ping was due. Then the child is killed. p99 is taken over the pings due between
 *          the kill and the moment the gauge sockudo_connected reads the new count. Then slots,
 *          direct descriptors, live connections and heap must be back within 30 s: what comes back
 *          is the half that the dead connections had used.
 * Threads  One sends and receives the echoes; a second reads the metrics.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/load.h"
#include "bench/server.h"

enum { PENDING = 64, HOLDERS_POLL_NS = 200000000, SAMPLES_MAX = 2000000, ROOM_PERCENT = 5 };
#define BACK_NS_MAX 30000000000ull

struct echo {
    struct load *load;
    uint32_t     conns;
    uint64_t   (*due_ns)[PENDING];      /* per connection, of the pings without an answer */
    uint32_t    *head, *tail;
    uint64_t    *sample_due_ns, *sample_ns;
    uint64_t     samples, sent, late_ns_max;   /* late: how long after its time a ping left */
};

struct watch {
    struct server     *server;
    double             connected;       /* the count to wait for */
    double             descriptors, heap_bytes;
    atomic_uint_least64_t gauge_ns, back_ns;
};

static const char ping[] = "{\"event\":\"pusher:ping\",\"data\":{}}";

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct echo *e = ctx;
    if (e->due_ns == NULL) return;                            /* a holder: heartbeats only */
    if (memmem(item->ptr, item->bytes, "pusher:pong", 11) == NULL) return;
    if (e->tail[id] == e->head[id]) bench_die("a pong that nobody asked for");
    if (e->samples == SAMPLES_MAX) bench_die("too many samples");
    uint64_t due_ns = e->due_ns[id][e->tail[id]++ % PENDING];
    e->sample_due_ns[e->samples] = due_ns;
    e->sample_ns[e->samples++] = bench_now_ns() - due_ns;
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("survivor %u was closed", id);
}

static void hold(struct load **l, struct echo *e, uint16_t port, uint32_t conns,
                 uint32_t source_first)
{
    struct load_conf conf = {.port = port, .conns_max = conns, .ctx = e, .recv_buffers = 256,
                             .on_item = on_item, .on_close = on_close, .sources_count = 16,
                             .source_first = source_first};
    load_open(l, &conf);
    load_fill(*l, LOAD_WS, 0, conns, 512);
}

static pid_t start_victims(uint16_t port, uint32_t conns)
{
    int   ready[2];
    char  byte;
    pid_t parent = getpid(), pid;

    if (pipe(ready) != 0 || (pid = fork()) < 0) bench_die("cannot fork");
    if (pid == 0) {
        struct load *l;
        struct echo  none = {0};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        hold(&l, &none, port, conns, 144);
        if (write(ready[1], "r", 1) != 1) _exit(1);
        while (getppid() == parent) load_poll(l, 200000000);
        _exit(0);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) bench_die("the other half could not connect");
    close(ready[0]);
    return pid;
}

/* Send what is due, receive, until end_ns or *until is set. */
static void echo_run(struct echo *e, struct load *holders, uint64_t rate, uint64_t end_ns,
                     atomic_uint_least64_t *until)
{
    uint64_t gap_ns = 1000000000 / rate, next_ns = bench_now_ns(), holders_ns = next_ns;
    uint32_t conn = 0;

    for (;;) {
        uint64_t now_ns = bench_now_ns();
        if (now_ns >= end_ns || (until != NULL && atomic_load(until) != 0)) break;
        for (; next_ns <= now_ns; next_ns += gap_ns, conn = (conn + 1) % e->conns) {
            if (e->head[conn] - e->tail[conn] == PENDING) bench_die("echoes stand still");
            e->due_ns[conn][e->head[conn]++ % PENDING] = next_ns;
            if (now_ns - next_ns > e->late_ns_max) e->late_ns_max = now_ns - next_ns;
            e->sent++;
            load_text(e->load, conn, ping, sizeof ping - 1);
        }
        if (now_ns - holders_ns > HOLDERS_POLL_NS) {
            load_poll(holders, 0);
            holders_ns = now_ns;
        }
        load_poll(e->load, next_ns - now_ns);
    }
    while (e->samples < e->sent) load_poll(e->load, 1000000);
}

static void *watch_main(void *arg)
{
    struct watch        *w = arg;
    const struct server *s = w->server;
    uint64_t             start_ns = bench_now_ns();

    server_wait_metric(s, "sockudo_connected", w->connected, BACK_NS_MAX);
    atomic_store(&w->gauge_ns, bench_now_ns());
    for (;;) {
        double descriptors = server_metric(s, "sockudo_direct_descriptors");
        double heap_bytes = server_metric(s, "sockudo_heap_used_bytes");
        if (descriptors <= w->descriptors && heap_bytes <= w->heap_bytes) break;
        if (bench_now_ns() - start_ns > BACK_NS_MAX) {
            bench_die("after 30 s: %.0f descriptors (at most %.0f), %.0f B of heap (at most %.0f)",
                      descriptors, w->descriptors, heap_bytes, w->heap_bytes);
        }
        bench_sleep_ns(100000000);
    }
    atomic_store(&w->back_ns, bench_now_ns());
    return NULL;
}

/* Of the pings due in [from_ns, to_ns]. */
static void figure_of(const struct echo *e, const char *when, uint64_t from_ns, uint64_t to_ns,
                      bool judged)
{
    uint64_t *some = bench_calloc(e->samples, sizeof *some), count = 0;
    char      label[64];
    for (uint64_t i = 0; i < e->samples; i++) {
        if (e->sample_due_ns[i] >= from_ns && e->sample_due_ns[i] <= to_ns) {
            some[count++] = e->sample_ns[i];
        }
    }
    snprintf(label, sizeof label, "mass_drop_p99_%s", when);
    bench_figure(label, bench_percentile(some, count, 0.99) / 1e6, "ms",
                 judged ? BENCH_AT_MOST : BENCH_NOTE, 50);
    printf("%s the drop: %lu echoes, p50 %.3f ms, p99.9 %.3f ms, max %.3f ms\n", when, count,
           bench_percentile(some, count, 0.5) / 1e6, bench_percentile(some, count, 0.999) / 1e6,
           bench_percentile(some, count, 1) / 1e6);
    free(some);
}

static void open_echo(struct echo *e, uint16_t port, uint32_t conns)
{
    e->conns = conns;
    e->due_ns = bench_calloc(conns, sizeof *e->due_ns);
    e->head = bench_calloc(conns, sizeof *e->head);
    e->tail = bench_calloc(conns, sizeof *e->tail);
    e->sample_due_ns = bench_calloc(SAMPLES_MAX, sizeof *e->sample_due_ns);
    e->sample_ns = bench_calloc(SAMPLES_MAX, sizeof *e->sample_ns);
    hold(&e->load, e, port, conns, 160);
}

/* What the dead half had used must be back: half of the growth, and a little slack. */
static double after_drop(double empty, double full, double part_left)
{
    return empty + (full - empty) * (part_left + ROOM_PERCENT / 100.0);
}

int main(int argc, char **argv)
{
    static const char *const quiet[] = {"--set", "activity_timeout=3600", NULL};
    struct server server;
    struct load  *holders;
    struct echo   echo = {0}, none = {0};
    pthread_t     thread;

    bench_open(argc, argv, "conns,echo,rate,shards,before-seconds", 300);
    uint32_t conns = (uint32_t)bench_arg("conns", 200000), half = conns / 2;
    uint32_t echoes = (uint32_t)bench_arg("echo", 1000);
    uint64_t rate = bench_arg("rate", 1000);

    server_start(&server, (uint32_t)bench_arg("shards", 2), -1, quiet);
    double descriptors_empty = server_metric(&server, "sockudo_direct_descriptors");
    double heap_empty = server_metric(&server, "sockudo_heap_used_bytes");
    pid_t  victims = start_victims(server.port, half);
    open_echo(&echo, server.port, echoes);
    hold(&holders, &none, server.port, conns - half - echoes, 176);
    server_wait_metric(&server, "sockudo_connected", conns, BACK_NS_MAX);
    bench_sleep_ns(1500000000);                      /* heap gauges are copied once a second */

    struct watch watch = {.server = &server, .connected = conns - half};
    watch.descriptors = after_drop(descriptors_empty,
                                   server_metric(&server, "sockudo_direct_descriptors"), 0.5);
    watch.heap_bytes = after_drop(heap_empty,
                                  server_metric(&server, "sockudo_heap_used_bytes"), 0.5);
    uint64_t calm_ns = bench_now_ns();
    echo_run(&echo, holders, rate, calm_ns + bench_arg("before-seconds", 5) * 1000000000, NULL);

    uint64_t kill_ns = bench_now_ns();
    echo.late_ns_max = 0;
    kill(victims, SIGKILL);
    if (pthread_create(&thread, NULL, watch_main, &watch) != 0) bench_die("no thread");
    echo_run(&echo, holders, rate, kill_ns + BACK_NS_MAX, &watch.gauge_ns);
    uint64_t gauge_ns = atomic_load(&watch.gauge_ns);
    if (gauge_ns == 0) bench_die("the gauge did not reach the new count");
    echo_run(&echo, holders, rate, kill_ns + 2 * BACK_NS_MAX, &watch.back_ns);
    pthread_join(thread, NULL);
    waitpid(victims, NULL, 0);

    figure_of(&echo, "before", calm_ns, kill_ns - 1, false);
    figure_of(&echo, "during", kill_ns, gauge_ns, true);
    bench_figure("mass_drop_generator_late_max", (double)echo.late_ns_max / 1e6, "ms",
                 BENCH_NOTE, 0);
    bench_figure("mass_drop_gauge", (double)(gauge_ns - kill_ns) / 1e9, "s", BENCH_NOTE, 0);
    bench_figure("mass_drop_all_back", (double)(watch.back_ns - kill_ns) / 1e9, "s",
                 BENCH_AT_MOST, 30);
    if (load_counts(holders).open + load_counts(echo.load).open != conns - half) {
        bench_die("a survivor was lost");
    }
    server_stop(&server);
    return bench_close();
}
