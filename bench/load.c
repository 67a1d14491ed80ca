#include "bench/load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bench/bench.h"

/* Newer than liburing 2.3; numbers of the kernel's interface. */
enum { OP_FIXED_FD_INSTALL = 54, OP_BIND = 56, CMD_SETSOCKOPT = 3, BIND_ADDRESS_NO_PORT = 24 };
enum { SQ_ENTRIES = 1024, CQ_ENTRIES = 8192, CHAIN_SQES_MAX = 8, REAP_MAX = 4096, SOURCES_MAX = 64,
       BANK_SLOTS = 16000, RECV_BYTES = 512, RECV_BUFFERS = 1024 };

/* user_data is id << 8 | step. */
enum step { STEP_SOCKET, STEP_OPTION, STEP_BIND, STEP_CONNECT, STEP_UPGRADE, STEP_RECV, STEP_SEND,
            STEP_CLOSE, STEP_INSTALL };
enum state { STATE_FREE, STATE_CONNECTING, STATE_OPEN, STATE_CLOSING };

struct conn {
    struct wire wire;
    uint8_t     kind;          /* enum load_kind */
    uint8_t     state;         /* enum state */
    bool        upgraded;      /* LOAD_WS: the 101 answer is past */
    bool        recv_armed;
    bool        close_done;
    bool        was_open;
};

struct bank {
    struct io_uring           ring;
    struct io_uring_buf_ring *bufs;
    uint8_t                  *bufs_base;
};

struct load {
    struct load_conf   conf;
    struct conn       *conns;
    struct bank       *banks;
    uint32_t           banks_count;
    int                wake_fd;
    uint8_t           *scratch;
    uint32_t           scratch_at;
    struct sockaddr_in server;
    struct sockaddr_in sources[SOURCES_MAX];
    int                option_on, rcvbuf;
    int                installed_fd;
    struct load_counts counts;
};

#define UPGRADE(protocol)                                                                     \
    "GET /app/app-key?protocol=" protocol "&client=bench&version=1.0&flash=false HTTP/1.1\r\n" \
    "Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"                         \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
static const char upgrade[2][256] = {UPGRADE("7"), UPGRADE("2")};   /* by load_conf.v2 */

static struct bank *bank_of(struct load *l, uint32_t id)
{
    return &l->banks[id / l->conf.bank_slots];
}

static int slot_of(const struct load *l, uint32_t id)
{
    return (int)(id % l->conf.bank_slots);
}

static void give_buffer(struct load *l, struct bank *b, uint16_t buffer)
{
    io_uring_buf_ring_add(b->bufs, b->bufs_base + (size_t)buffer * l->conf.recv_bytes,
                          l->conf.recv_bytes, buffer,
                          io_uring_buf_ring_mask(l->conf.recv_buffers), 0);
    io_uring_buf_ring_advance(b->bufs, 1);
}

static void bank_open(struct load *l, struct bank *b)
{
    struct io_uring_params p = {
        .flags = IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE,
        .cq_entries = CQ_ENTRIES};
    size_t ring_bytes = l->conf.recv_buffers * sizeof(struct io_uring_buf);

    int rc = io_uring_queue_init_params(SQ_ENTRIES, &b->ring, &p);
    if (rc == 0) rc = io_uring_register_files_sparse(&b->ring, l->conf.bank_slots);
    if (rc == 0) rc = io_uring_register_eventfd(&b->ring, l->wake_fd);
    if (rc == 0) rc = posix_memalign((void **)&b->bufs, 4096, ring_bytes);
    if (rc == 0) {
        struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)b->bufs,
                                       .ring_entries = l->conf.recv_buffers};
        rc = io_uring_register_buf_ring(&b->ring, &reg, 0);
    }
    if (rc != 0) bench_die("cannot open a ring: %s", strerror(-rc));

    io_uring_buf_ring_init(b->bufs);
    b->bufs_base = bench_calloc(l->conf.recv_buffers, l->conf.recv_bytes);
    for (uint32_t i = 0; i < l->conf.recv_buffers; i++) give_buffer(l, b, (uint16_t)i);
}

void load_open(struct load **out, const struct load_conf *conf)
{
    struct load *l = bench_calloc(1, sizeof *l);
    l->conf = *conf;
    l->conf.v2 |= bench_arg("v2", 0) != 0;
    if (l->conf.bank_slots == 0) l->conf.bank_slots = BANK_SLOTS;
    if (l->conf.recv_bytes == 0) l->conf.recv_bytes = RECV_BYTES;
    if (l->conf.recv_buffers == 0) l->conf.recv_buffers = RECV_BUFFERS;
    if (l->conf.sources_count > SOURCES_MAX) bench_die("at most %d sources", SOURCES_MAX);
    if (l->conf.bank_slots > l->conf.conns_max) l->conf.bank_slots = l->conf.conns_max;

    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->wake_fd < 0) bench_die("cannot open an eventfd");
    l->option_on = 1;
    l->rcvbuf = (int)conf->rcvbuf_bytes;
    l->server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(conf->port),
                                     .sin_addr.s_addr = htonl(0x7f000001)};
    uint32_t first = 0x7f000800 + conf->source_first;                    /* 127.0.8.x */
    for (uint32_t i = 0; i < l->conf.sources_count; i++) {
        l->sources[i] = (struct sockaddr_in){.sin_family = AF_INET,
                                             .sin_addr.s_addr = htonl(first + i)};
    }
    l->conns = bench_calloc(conf->conns_max, sizeof *l->conns);
    l->scratch = bench_calloc(1, LOAD_SCRATCH_BYTES);
    l->banks_count = (conf->conns_max + l->conf.bank_slots - 1) / l->conf.bank_slots;
    l->banks = bench_calloc(l->banks_count, sizeof *l->banks);
    for (uint32_t i = 0; i < l->banks_count; i++) bank_open(l, &l->banks[i]);
    *out = l;
}

void load_free(struct load **out)
{
    struct load *l = *out;
    for (uint32_t i = 0; i < l->conf.conns_max; i++) wire_drop(&l->conns[i].wire);
    for (uint32_t i = 0; i < l->banks_count; i++) {
        io_uring_queue_exit(&l->banks[i].ring);
        free(l->banks[i].bufs);
        free(l->banks[i].bufs_base);
    }
    close(l->wake_fd);
    free(l->banks);
    free(l->scratch);
    free(l->conns);
    free(l);
    *out = NULL;
}

/* Room for `count` entries that must reach the kernel together. */
static void want_sqes(struct bank *b, uint32_t count)
{
    if (io_uring_sq_space_left(&b->ring) >= count) return;
    int rc = io_uring_submit(&b->ring);
    if (rc < 0 || io_uring_sq_space_left(&b->ring) < count) bench_die("submit: %s", strerror(-rc));
}

static struct io_uring_sqe *get_sqe(struct bank *b)
{
    want_sqes(b, 1);
    return io_uring_get_sqe(&b->ring);
}

static void mark(struct io_uring_sqe *sqe, uint32_t id, enum step step, uint32_t flags)
{
    sqe->flags |= (uint8_t)flags;
    sqe->user_data = (uint64_t)id << 8 | step;
}

static void prep_setsockopt(struct io_uring_sqe *sqe, int slot, int level, int name, int *value)
{
    uint32_t level_and_name[2] = {(uint32_t)level, (uint32_t)name};
    io_uring_prep_rw(IORING_OP_URING_CMD, sqe, slot, NULL, 0, CMD_SETSOCKOPT);
    memcpy(&sqe->addr, level_and_name, sizeof level_and_name);
    sqe->file_index = sizeof *value;               /* the option's length */
    sqe->addr3 = (uintptr_t)value;
}

static void arm_recv(struct load *l, uint32_t id)
{
    struct io_uring_sqe *sqe = get_sqe(bank_of(l, id));
    io_uring_prep_recv_multishot(sqe, slot_of(l, id), NULL, 0, 0);
    sqe->buf_group = 0;
    mark(sqe, id, STEP_RECV, IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT);
    l->conns[id].recv_armed = true;
}

void load_connect(struct load *l, enum load_kind kind, uint32_t id)
{
    static const uint32_t quiet = IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
    struct bank          *b = bank_of(l, id);
    int                   slot = slot_of(l, id);
    struct io_uring_sqe  *sqe;

    if (id >= l->conf.conns_max || l->conns[id].state != STATE_FREE) bench_die("id %u taken", id);
    l->conns[id] = (struct conn){.kind = (uint8_t)kind, .state = STATE_CONNECTING};
    want_sqes(b, CHAIN_SQES_MAX);

    sqe = get_sqe(b);
    io_uring_prep_socket_direct(sqe, AF_INET, SOCK_STREAM, 0, (unsigned)slot, 0);
    mark(sqe, id, STEP_SOCKET, quiet);
    if (l->rcvbuf > 0) {
        sqe = get_sqe(b);
        prep_setsockopt(sqe, slot, SOL_SOCKET, SO_RCVBUF, &l->rcvbuf);
        mark(sqe, id, STEP_OPTION, quiet | IOSQE_FIXED_FILE);
    }
    if (l->conf.sources_count > 0) {
        sqe = get_sqe(b);
        prep_setsockopt(sqe, slot, IPPROTO_IP, BIND_ADDRESS_NO_PORT, &l->option_on);
        mark(sqe, id, STEP_OPTION, quiet | IOSQE_FIXED_FILE);
        sqe = get_sqe(b);
        io_uring_prep_rw(OP_BIND, sqe, slot, &l->sources[id % l->conf.sources_count], 0,
                         sizeof(struct sockaddr_in));
        mark(sqe, id, STEP_BIND, quiet | IOSQE_FIXED_FILE);
    }
    sqe = get_sqe(b);
    io_uring_prep_connect(sqe, slot, (struct sockaddr *)&l->server, sizeof l->server);
    mark(sqe, id, STEP_CONNECT, (kind == LOAD_WS ? quiet : IOSQE_IO_LINK) | IOSQE_FIXED_FILE);
    if (kind == LOAD_WS) {
        sqe = get_sqe(b);
        const char *text = upgrade[l->conf.v2];
        io_uring_prep_send(sqe, slot, text, strlen(text), MSG_NOSIGNAL | MSG_WAITALL);
        mark(sqe, id, STEP_UPGRADE, quiet | IOSQE_FIXED_FILE);
    }
    arm_recv(l, id);
}

/* The end of a connection has up to two completions, the receive's and the close's. */
static void settle(struct load *l, uint32_t id)
{
    struct conn *c = &l->conns[id];
    if (c->state != STATE_CLOSING || c->recv_armed || !c->close_done) return;

    if (c->was_open) l->counts.closed++;
    else l->counts.failed++;
    wire_drop(&c->wire);
    c->state = STATE_FREE;
    if (l->conf.on_close != NULL) l->conf.on_close(l->conf.ctx, id);
}

/* A receive keeps the file alive: shutdown ends it, and only then does the close send a FIN. */
void load_shut(struct load *l, uint32_t id)
{
    struct conn *c = &l->conns[id];
    struct bank *b = bank_of(l, id);
    if (c->state == STATE_FREE || c->state == STATE_CLOSING) return;

    if (c->state == STATE_OPEN) l->counts.open--;
    c->state = STATE_CLOSING;
    want_sqes(b, 2);
    struct io_uring_sqe *sqe = get_sqe(b);
    io_uring_prep_shutdown(sqe, slot_of(l, id), SHUT_RDWR);
    mark(sqe, id, STEP_OPTION, IOSQE_FIXED_FILE | IOSQE_IO_HARDLINK | IOSQE_CQE_SKIP_SUCCESS);
    sqe = get_sqe(b);
    io_uring_prep_close_direct(sqe, (unsigned)slot_of(l, id));
    mark(sqe, id, STEP_CLOSE, 0);
}

bool load_is_open(const struct load *l, uint32_t id)
{
    return l->conns[id].state == STATE_OPEN;
}

bool load_is_free(const struct load *l, uint32_t id)
{
    return l->conns[id].state == STATE_FREE;
}

static void opened(struct load *l, uint32_t id)
{
    l->conns[id].state = STATE_OPEN;
    l->conns[id].was_open = true;
    l->counts.open++;
    l->counts.opened++;
    if (l->conf.on_open != NULL) l->conf.on_open(l->conf.ctx, id);
}

static void take_item(struct load *l, uint32_t id, const struct wire_item *item)
{
    static const char established[] = ":connection_established";
    struct conn      *c = &l->conns[id];

    if (c->kind == LOAD_WS && !c->upgraded) {
        if (item->status != 101) bench_die("upgrade answered with status %u", item->status);
        c->upgraded = true;
    } else if (c->kind == LOAD_WS && c->state == STATE_CONNECTING) {
        if (memmem(item->ptr, item->bytes, established, sizeof established - 1) != NULL) {
            opened(l, id);
        } else if (item->kind == WIRE_TEXT) {
            fprintf(stderr, "bench: refused: %.*s\n", (int)item->bytes, (const char *)item->ptr);
        }
    } else if (item->kind == WIRE_CLOSE) {
        load_shut(l, id);
    } else if (l->conf.on_item != NULL) {
        l->conf.on_item(l->conf.ctx, id, item);
    }
}

static void take_bytes(struct load *l, uint32_t id, const uint8_t *p, uint32_t bytes)
{
    struct conn     *c = &l->conns[id];
    struct wire_item item;

    wire_join(&c->wire, &p, &bytes);
    while (bytes > 0 && c->state != STATE_CLOSING) {
        bool            replies = c->kind == LOAD_HTTP || (c->kind == LOAD_WS && !c->upgraded);
        enum wire_result r = wire_next(replies ? WIRE_HTTP : WIRE_WS, p, bytes, &item);
        if (r == WIRE_BAD) bench_die("connection %u: broken bytes from the server", id);
        if (r == WIRE_MORE) break;
        take_item(l, id, &item);
        p += item.bytes_total;
        bytes -= item.bytes_total;
    }
    if (c->wire.part != NULL || bytes > 0) wire_keep(&c->wire, p, bytes);
}

static void take_recv(struct load *l, struct bank *b, uint32_t id, struct io_uring_cqe *cqe)
{
    struct conn *c = &l->conns[id];

    if (cqe->flags & IORING_CQE_F_BUFFER) {
        uint16_t buffer = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        if (cqe->res > 0 && c->state != STATE_CLOSING) {
            take_bytes(l, id, b->bufs_base + (size_t)buffer * l->conf.recv_bytes,
                       (uint32_t)cqe->res);
        }
        give_buffer(l, b, buffer);
    }
    if (cqe->flags & IORING_CQE_F_MORE) return;

    c->recv_armed = false;
    if (c->state == STATE_CLOSING) {
        settle(l, id);
    } else if (cqe->res > 0 || cqe->res == -ENOBUFS) {
        l->counts.rearms++;
        arm_recv(l, id);
    } else {
        load_shut(l, id);
    }
}

static void take_cqe(struct load *l, struct bank *b, struct io_uring_cqe *cqe)
{
    uint32_t     id = (uint32_t)(cqe->user_data >> 8);
    struct conn *c = &l->conns[id];

    switch ((enum step)(cqe->user_data & 0xff)) {
    case STEP_RECV:
        take_recv(l, b, id, cqe);
        break;
    case STEP_CONNECT:
        if (cqe->res == 0) {
            opened(l, id);
            break;
        }
        fprintf(stderr, "bench: connect %u: %s\n", id, strerror(-cqe->res));
        if (c->kind == LOAD_WS) c->recv_armed = false;   /* a quiet link fails as one */
        load_shut(l, id);
        break;
    case STEP_SOCKET: case STEP_BIND: case STEP_UPGRADE:
        fprintf(stderr, "bench: connection %u: %s\n", id, strerror(-cqe->res));
        c->recv_armed = false;
        load_shut(l, id);
        break;
    case STEP_OPTION:                                    /* a shutdown, or a failed link */
        if (c->state == STATE_CONNECTING) bench_die("socket option: %s", strerror(-cqe->res));
        break;
    case STEP_SEND:
        l->counts.send_errors++;
        break;
    case STEP_CLOSE:
        c->close_done = true;
        settle(l, id);
        break;
    case STEP_INSTALL:
        if (cqe->res < 0) bench_die("install a descriptor: %s", strerror(-cqe->res));
        l->installed_fd = cqe->res;
        break;
    }
}

/* Asking for many completions and waiting for none: a plain get_events runs only 20 pieces of
 * deferred work (kernel 6.18) and nothing signals the rest. */
static uint32_t bank_run(struct load *l, struct bank *b)
{
    struct io_uring_cqe     *cqe;
    struct __kernel_timespec now = {0, 0};
    unsigned                 head;
    uint32_t                 count = 0, flags = *(volatile unsigned *)b->ring.sq.kflags;

    if (io_uring_sq_ready(&b->ring) > 0 || flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) {
        int rc = io_uring_submit_and_wait_timeout(&b->ring, &cqe, REAP_MAX, &now, NULL);
        if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
            bench_die("ring: %s", strerror(-rc));
        }
    }
    io_uring_for_each_cqe(&b->ring, head, cqe) {
        take_cqe(l, b, cqe);
        count++;
    }
    io_uring_cq_advance(&b->ring, count);
    return count;
}

static uint32_t banks_run(struct load *l)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < l->banks_count; i++) count += bank_run(l, &l->banks[i]);
    for (uint32_t i = 0; i < l->banks_count; i++) {      /* what the callbacks queued */
        if (io_uring_sq_ready(&l->banks[i].ring) > 0) io_uring_submit(&l->banks[i].ring);
    }
    return count;
}

uint32_t load_poll(struct load *l, uint64_t timeout_ns)
{
    uint32_t count = banks_run(l);
    if (count > 0 || timeout_ns == 0) return count;

    struct pollfd   p = {.fd = l->wake_fd, .events = POLLIN};
    struct timespec t = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    uint64_t        ignored;
    ppoll(&p, 1, &t, NULL);
    if (read(l->wake_fd, &ignored, sizeof ignored) < 0 && errno != EAGAIN) bench_die("eventfd");
    return banks_run(l);
}

uint64_t load_fill(struct load *l, enum load_kind kind, uint32_t first, uint32_t count,
                   uint32_t in_flight_max)
{
    uint64_t start_ns = bench_now_ns(), opened_before = l->counts.opened;
    uint64_t failed_before = l->counts.failed;
    uint32_t asked = 0;

    for (;;) {
        uint64_t done = l->counts.opened - opened_before;
        if (l->counts.failed != failed_before) bench_die("a connection failed after %lu", done);
        if (done == count) return bench_now_ns() - start_ns;
        while (asked < count && asked - done < in_flight_max) {
            load_connect(l, kind, first + asked++);
        }
        load_poll(l, 100000000);
    }
}

static uint8_t *scratch(struct load *l, uint32_t bytes)
{
    if (l->scratch_at + bytes > LOAD_SCRATCH_BYTES) l->scratch_at = 0;
    uint8_t *p = l->scratch + l->scratch_at;
    l->scratch_at += bytes;
    return p;
}

static void send_scratch(struct load *l, uint32_t id, const uint8_t *p, uint32_t bytes)
{
    if (l->conns[id].state != STATE_OPEN) return;
    struct io_uring_sqe *sqe = get_sqe(bank_of(l, id));
    io_uring_prep_send(sqe, slot_of(l, id), p, bytes, MSG_NOSIGNAL | MSG_WAITALL);
    mark(sqe, id, STEP_SEND, IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS);
}

void load_send(struct load *l, uint32_t id, const void *bytes, uint32_t bytes_count)
{
    uint8_t *p = scratch(l, bytes_count);
    memcpy(p, bytes, bytes_count);
    send_scratch(l, id, p, bytes_count);
}

void load_text(struct load *l, uint32_t id, const char *payload, uint32_t payload_bytes)
{
    uint8_t *p = scratch(l, payload_bytes + 14);
    send_scratch(l, id, p, wire_text(p, payload_bytes + 14, payload, payload_bytes));
}

struct load_counts load_counts(const struct load *l)
{
    return l->counts;
}

void load_tcp_info(struct load *l, uint32_t id, struct tcp_info *out)
{
    struct io_uring_sqe *sqe = get_sqe(bank_of(l, id));
    io_uring_prep_rw(OP_FIXED_FD_INSTALL, sqe, slot_of(l, id), NULL, 0, 0);
    mark(sqe, id, STEP_INSTALL, IOSQE_FIXED_FILE);
    l->installed_fd = -1;
    while (l->installed_fd < 0) bank_run(l, bank_of(l, id));

    socklen_t bytes = sizeof *out;
    int       rc = getsockopt(l->installed_fd, IPPROTO_TCP, TCP_INFO, out, &bytes);
    close(l->installed_fd);
    if (rc != 0) bench_die("TCP_INFO: %s", strerror(errno));
}
