/* limit_fanout.c - the bare limit of a fan-out: an io_uring loop that only sends.
 *
 * Shape    Each thread (pinned to its own core) accepts its share of plain TCP receivers on a port
 *          of its own into direct descriptors. Then, round by round, one send per receiver from one
 *          shared buffer of whole frames: prep, submit in batches, reap. Nothing else is done.
 * Driven   By limit.h: the receivers and the clock are those that also serve the server's side.
 *          Standard output: "listening", "connected", then one line of its own counts; standard
 *          input: one byte starts the sending, its end ends the program.
 * Options  --port (first of --threads), --receivers, --payload-bytes, --frames (per receiver),
 *          --send-milli (frames per send, in thousandths).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/subs.h"

enum { THREADS_MAX = 8, SQ_ENTRIES = 1024, CQ_ENTRIES = 4096, FRAMES_PER_SEND_MAX = 256 };

struct sender {
    pthread_t thread;
    uint32_t  index, receivers, payload_bytes, frames, send_milli;
    uint16_t  port;
    uint64_t  sends, cpu_ns, wall_ns;
};

static atomic_uint connected, started;

static int listen_on(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int                on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);    /* inherited by what it accepts */
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 4096) != 0) {
        bench_die("cannot listen on port %u: %s", port, strerror(errno));
    }
    return fd;
}

static void ring_open(struct io_uring *ring, uint32_t slots)
{
    struct io_uring_params p = {
        .flags = IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_CQSIZE,
        .cq_entries = CQ_ENTRIES};
    int rc = io_uring_queue_init_params(SQ_ENTRIES, ring, &p);
    if (rc == 0) rc = io_uring_register_files_sparse(ring, slots);
    if (rc == 0) rc = io_uring_register_ring_fd(ring) == 1 ? 0 : -EINVAL;
    if (rc != 0) bench_die("cannot open a ring: %s", strerror(-rc));
}

static void accept_all(struct io_uring *ring, int fd, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        struct io_uring_cqe *cqe;
        io_uring_prep_accept_direct(sqe, fd, NULL, NULL, 0, i);
        io_uring_submit_and_wait(ring, 1);
        if (io_uring_wait_cqe(ring, &cqe) != 0 || cqe->res < 0) bench_die("accept failed");
        io_uring_cqe_seen(ring, cqe);
    }
}

/* The frames of one round, back to back. */
static uint32_t build(const struct sender *s, uint8_t *out, uint32_t first, uint32_t count)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        char *payload = (char *)out + at + 10;
        subs_data(payload, s->payload_bytes, 0, first + i);
        uint32_t head = wire_header(out + at, s->payload_bytes);
        memmove(out + at + head, payload, s->payload_bytes);
        at += head + s->payload_bytes;
    }
    return at;
}

static uint32_t reap(struct io_uring *ring, uint32_t bytes)
{
    struct io_uring_cqe *cqe;
    unsigned             head;
    uint32_t             count = 0;
    io_uring_for_each_cqe(ring, head, cqe) {
        if (cqe->res != (int)bytes) bench_die("a send ended with %d", cqe->res);
        count++;
    }
    io_uring_cq_advance(ring, count);
    return count;
}

static void round_send(struct io_uring *ring, uint32_t receivers, const uint8_t *p, uint32_t bytes)
{
    uint32_t out = 0;
    for (uint32_t i = 0; i < receivers; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        if (sqe == NULL) {
            io_uring_submit_and_get_events(ring);
            out -= reap(ring, bytes);
            sqe = io_uring_get_sqe(ring);
        }
        io_uring_prep_send(sqe, (int)i, p, bytes, MSG_NOSIGNAL | MSG_WAITALL);
        sqe->flags |= IOSQE_FIXED_FILE;
        out++;
    }
    while (out > 0) {
        io_uring_submit_and_wait(ring, out < CQ_ENTRIES / 2 ? out : CQ_ENTRIES / 2);
        out -= reap(ring, bytes);
    }
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *sender_main(void *arg)
{
    struct sender  *s = arg;
    struct io_uring ring;
    uint8_t *frames = bench_calloc(FRAMES_PER_SEND_MAX, s->payload_bytes + 16);
    int      fd = listen_on(s->port);

    if (bench_arg("threads", 1) > 1) bench_pin((int)s->index);
    ring_open(&ring, s->receivers);
    printf("listening\n");
    accept_all(&ring, fd, s->receivers);
    atomic_fetch_add(&connected, 1);
    while (!atomic_load(&started)) bench_sleep_ns(100000);

    uint64_t wall_ns = bench_now_ns(), cpu_ns = thread_cpu_ns(), rounds = 0;
    for (uint32_t sent = 0; sent < s->frames; rounds++) {
        uint32_t upto = (uint32_t)((rounds + 1) * s->send_milli / 1000);
        if (upto > s->frames) upto = s->frames;
        if (upto == sent) continue;
        if (upto - sent > FRAMES_PER_SEND_MAX) bench_die("too many frames per send");
        uint32_t bytes = build(s, frames, sent, upto - sent);
        round_send(&ring, s->receivers, frames, bytes);
        s->sends += s->receivers;
        sent = upto;
    }
    s->wall_ns = bench_now_ns() - wall_ns;
    s->cpu_ns = thread_cpu_ns() - cpu_ns;
    free(frames);
    return NULL;
}

static void print_counts(const struct sender *senders, uint32_t threads)
{
    uint64_t sends = 0, cpu_ns = 0, wall_ns = 0, frames = 0;
    for (uint32_t i = 0; i < threads; i++) {
        sends += senders[i].sends;
        frames += (uint64_t)senders[i].frames * senders[i].receivers;
        cpu_ns += senders[i].cpu_ns;
        if (senders[i].wall_ns > wall_ns) wall_ns = senders[i].wall_ns;
    }
    printf("limit: %.0f sends/s, %.0f frames/s, %.0f sends per CPU second, %.0f%% of %u core(s)\n",
           (double)sends * 1e9 / (double)wall_ns, (double)frames * 1e9 / (double)wall_ns,
           (double)sends * 1e9 / (double)cpu_ns, 100.0 * (double)cpu_ns / (double)wall_ns, threads);
}

int main(int argc, char **argv)
{
    struct sender senders[THREADS_MAX] = {0};
    char          byte;

    bench_open(argc, argv, "receivers,payload-bytes,frames,send-milli,threads", 300);
    uint32_t threads = (uint32_t)bench_arg("threads", 1);
    if (threads == 0 || threads > THREADS_MAX) bench_die("1 to %d threads", THREADS_MAX);
    for (uint32_t i = 0; i < threads; i++) {
        senders[i] = (struct sender){.index = i, .port = (uint16_t)(bench_arg("port", 6111) + i),
                                     .receivers = (uint32_t)bench_arg("receivers", 1000) / threads,
                                     .payload_bytes = (uint32_t)bench_arg("payload-bytes", 200),
                                     .frames = (uint32_t)bench_arg("frames", 500),
                                     .send_milli = (uint32_t)bench_arg("send-milli", 1000)};
        if (pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]) != 0) {
            bench_die("no thread");
        }
    }
    while (atomic_load(&connected) < threads) bench_sleep_ns(1000000);
    printf("connected\n");
    if (read(STDIN_FILENO, &byte, 1) != 1) return 0;
    atomic_store(&started, 1);
    for (uint32_t i = 0; i < threads; i++) pthread_join(senders[i].thread, NULL);
    print_counts(senders, threads);
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    return bench_close();
}
