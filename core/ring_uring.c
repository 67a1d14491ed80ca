/* The one real implementation of ring.h; accepting is in ring_accept.c.
 *
 * A bank's pending submissions and its completions are handled by one io_uring_enter, which for
 * bank 0 is also the one that sleeps. Completions reach user space only when this thread asks for
 * them (DEFER_TASKRUN), so in-kernel work per call stays bounded even when a hundred thousand peers
 * vanish at once. */
#include "core/ring_bank.h"

#include "core/mem.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- opening ---- */

static int bank_open_bufs(struct bank *b)
{
    size_t head = sizeof(struct io_uring_buf) * RING_BUFS;
    size_t all = head + (size_t)RING_BUFS * RING_BUF_BYTES;
    b->bufs = mem_reserve(all);
    if (b->bufs == NULL) return -ENOMEM;
    b->buf_bytes = (uint8_t *)b->bufs + head;
    io_uring_buf_ring_init(b->bufs);
    int e = uring_buf_ring_register(&b->ring, b->bufs, RING_BUFS, BUF_GROUP);
    if (e < 0) return e;
    for (uint32_t i = 0; i < RING_BUFS; i++) {
        io_uring_buf_ring_add(b->bufs, b->buf_bytes + (size_t)i * RING_BUF_BYTES, RING_BUF_BYTES,
                              (uint16_t)i, RING_BUFS - 1, (int)i);
    }
    io_uring_buf_ring_advance(b->bufs, RING_BUFS);
    return 0;
}

static void release(void *p, uint64_t bytes)
{
    if (p != NULL) mem_release(p, bytes);
}

static void bank_close(const struct ring *r, struct bank *b)
{
    io_uring_queue_exit(&b->ring);
    release(b->bufs, (sizeof(struct io_uring_buf) + RING_BUF_BYTES) * RING_BUFS);
    release(b->msgs, sizeof(struct msg) * RING_SQ);
    release(b->slots, sizeof(struct bank_slot) * r->bank_slots);
    memset(b, 0, sizeof(*b));
}

int ring_bank_open(struct ring *r)
{
    struct bank *b = &r->banks[r->banks_count];
    bool first = r->banks_count == 0;
    struct io_uring_params p = {
        .flags = IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        .cq_entries = RING_CQ,
    };
    int e = io_uring_queue_init_params(RING_SQ, &b->ring, &p);
    if (e < 0) return e;
    b->msgs = mem_reserve(sizeof(struct msg) * RING_SQ);
    b->slots = mem_reserve(sizeof(struct bank_slot) * r->bank_slots);
    if (b->msgs == NULL || b->slots == NULL) e = -ENOMEM;
    if (e == 0) e = io_uring_register_files_sparse(&b->ring, r->bank_slots);
    if (e == 0 && !first) e = io_uring_register_eventfd(&b->ring, r->event_fd);
    if (e == 0) e = bank_open_bufs(b);
    if (e < 0) {
        bank_close(r, b);
        return e;
    }
    /* Shutdowns are all that the kernel's helper threads do: two are plenty, a mass close must not
     * start hundreds. A kernel that refuses the limit only has more of them. */
    unsigned workers[2] = {2, 2};
    (void)io_uring_register_iowq_max_workers(&b->ring, workers);
    if (r->banks_count < REGISTERED_RINGS_MAX) io_uring_register_ring_fd(&b->ring);
    if (!first) io_uring_cq_eventfd_toggle(&b->ring, false);
    r->banks_count++;
    r->stats.banks = r->banks_count;
    return 0;
}

static void open_failed(int e, char *error, uint32_t error_bytes)
{
    const char *advice = "";
    if (e == -ENOMEM) advice = " (too little memory, or RLIMIT_MEMLOCK is too low: raise it)";
    if (e == -EMFILE) advice = " (RLIMIT_NOFILE is too low: raise it)";
    if (e == -EPERM || e == -ENOSYS) advice = " (io_uring is switched off here: allow it)";
    snprintf(error, error_bytes, "cannot open an io_uring: %s%s", strerror(-e), advice);
}

err_t ring_open(struct ring **out, const struct ring_conf *conf, char *error, uint32_t error_bytes)
{
    struct rlimit files;
    struct ring *r = mem_reserve(sizeof(*r));
    *out = NULL;
    if (r == NULL) return ERR_MEMORY;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) files.rlim_cur = 1024;
    r->bank_slots = (uint32_t)u64_min(files.rlim_cur, BANK_SLOTS_MAX);
    r->socks_max = conf->socks_max;
    uint64_t socks = (uint64_t)conf->socks_max + RING_SOCKS_SPARE;
    r->banks_max = (uint32_t)u64_min(BANKS_MAX, (socks + r->bank_slots - 1) / r->bank_slots);
    r->accepts_max = u32_min(UINT16_MAX, u32_max(RING_LISTENERS_MAX, conf->accepts_max));
    r->handler = conf->handler;
    r->ctx = conf->ctx;
    r->banks = mem_reserve(sizeof(struct bank) * BANKS_MAX);
    r->accepts = mem_reserve(sizeof(struct accept_slot) * r->accepts_max);
    r->accepts_idle = mem_reserve(sizeof(uint16_t) * r->accepts_max);
    /* Blocking, so that bank 0's read of it waits for a signal instead of failing at once. */
    r->event_fd = eventfd(0, EFD_CLOEXEC);
    int e = r->event_fd < 0 ? -errno : 0;
    if (r->banks == NULL || r->accepts == NULL || r->accepts_idle == NULL) e = -ENOMEM;
    if (e == 0) e = ring_bank_open(r);
    if (e < 0) {
        open_failed(e, error, error_bytes);
        ring_close_all(&r);
        return ERR_UNSUPPORTED;
    }
    while (r->accepts_idle_count < r->accepts_max) {
        r->accepts_idle[r->accepts_idle_count] = (uint16_t)r->accepts_idle_count;
        r->accepts_idle_count++;
    }
    *out = r;
    return OK;
}

void ring_close_all(struct ring **rp)
{
    struct ring *r = *rp;
    if (r == NULL) return;
    for (uint32_t i = 0; i < r->banks_count; i++) bank_close(r, &r->banks[i]);
    if (r->event_fd >= 0) close(r->event_fd);
    release(r->banks, sizeof(struct bank) * BANKS_MAX);
    release(r->accepts, sizeof(struct accept_slot) * r->accepts_max);
    release(r->accepts_idle, sizeof(uint16_t) * r->accepts_max);
    release(r, sizeof(*r));
    *rp = NULL;
}

/* ---- submitting ---- */

/* Every io_uring_enter of a bank: submit, and collect when asked to. EBUSY and EAGAIN leave entries
 * queued: the next call submits them. EBADR asserts: the kernel lost a completion for want of
 * memory, and what it said cannot be known any more. */
static void bank_enter(struct ring *r, struct bank *b, bool collect, uint32_t wait_count,
                       const struct __kernel_timespec *limit)
{
    int e = uring_enter(&b->ring, collect, wait_count, limit);
    ASSERT(e >= 0 || e == -ETIME || e == -EINTR || e == -EBUSY || e == -EAGAIN);
    r->stats.enters++;
    if (io_uring_sq_ready(&b->ring) == 0) b->msgs_count = 0;
}

struct io_uring_sqe *ring_sqe(struct ring *r, struct bank *b)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring);
    bool collect = false;
    while (UNLIKELY(sqe == NULL)) {
        bank_enter(r, b, collect, 0, NULL);
        sqe = io_uring_get_sqe(&b->ring);
        collect = true;               /* the kernel took nothing: let it post completions too */
    }
    return sqe;
}

static struct bank *bank_of(struct ring *r, uint32_t sock, uint32_t *slot)
{
    uint32_t bank = sock / r->bank_slots;
    ASSERT(bank < r->banks_count);
    *slot = sock % r->bank_slots;
    return &r->banks[bank];
}

void ring_recv(struct ring *r, uint32_t sock, uint32_t gen)
{
    uint32_t slot;
    struct bank *b = bank_of(r, sock, &slot);
    struct io_uring_sqe *sqe = ring_sqe(r, b);
    io_uring_prep_recv_multishot(sqe, (int)slot, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUF_GROUP;
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_RECV, gen, sock));
}

void ring_recv_stop(struct ring *r, uint32_t sock, uint32_t gen)
{
    uint32_t slot;
    struct bank *b = bank_of(r, sock, &slot);
    struct io_uring_sqe *sqe = ring_sqe(r, b);
    io_uring_prep_cancel64(sqe, ring_tag(KIND_RECV, gen, sock), 0);
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_IGNORE, gen, sock));
}

void ring_send(struct ring *r, uint32_t sock, uint32_t gen, const struct iovec *iov,
               uint32_t iov_count)
{
    uint32_t slot;
    struct bank *b = bank_of(r, sock, &slot);
    ASSERT(iov_count > 0 && iov_count <= RING_SEND_IOV_MAX);
    while (UNLIKELY(b->msgs_count == RING_SQ)) bank_enter(r, b, true, 0, NULL);
    struct io_uring_sqe *sqe = ring_sqe(r, b);
    if (iov_count == 1) {
        io_uring_prep_send(sqe, (int)slot, iov->iov_base, iov->iov_len,
                           MSG_NOSIGNAL | MSG_WAITALL);
    } else {
        /* The kernel copies header and vector at submission: they live in the bank until then. */
        struct msg *m = &b->msgs[b->msgs_count++];
        memcpy(m->iov, iov, sizeof(*iov) * iov_count);
        m->head = (struct msghdr){.msg_iov = m->iov, .msg_iovlen = iov_count};
        io_uring_prep_sendmsg(sqe, (int)slot, &m->head, MSG_NOSIGNAL | MSG_WAITALL);
    }
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_SEND, gen, sock));
    r->stats.sends++;
}

void ring_shutdown(struct ring *r, uint32_t sock, uint32_t gen, bool both)
{
    uint32_t slot;
    struct bank *b = bank_of(r, sock, &slot);
    struct io_uring_sqe *sqe = ring_sqe(r, b);
    io_uring_prep_shutdown(sqe, (int)slot, both ? SHUT_RDWR : SHUT_WR);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_SHUTDOWN, gen, sock));
    ASSERT(!b->slots[slot].close_waits);
    b->slots[slot].shutdowns++;
}

void ring_close(struct ring *r, uint32_t sock, uint32_t gen)
{
    uint32_t slot;
    struct bank *b = bank_of(r, sock, &slot);
    if (b->slots[slot].shutdowns > 0) {
        b->slots[slot].close_waits = true;
        b->slots[slot].close_gen = gen;
        return;
    }
    struct io_uring_sqe *sqe = ring_sqe(r, b);
    io_uring_prep_close_direct(sqe, slot);
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_CLOSE, gen, sock));
}

/* ---- completions ---- */

static void recv_done(struct ring *r, struct bank *b, const struct io_uring_cqe *cqe,
                      uint32_t *bufs_back)
{
    uint32_t sock = (uint32_t)cqe->user_data, gen = (uint32_t)(cqe->user_data >> 32) & 0xffffff;
    bool more = (cqe->flags & IORING_CQE_F_MORE) != 0;
    uint8_t *bytes = NULL;
    uint16_t buf = 0;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        buf = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        bytes = b->buf_bytes + (size_t)buf * RING_BUF_BYTES;
    }
    if (cqe->res == -ENOBUFS) r->stats.recv_bufs_exhausted++;
    else if (cqe->res > 0 && !more) r->stats.recv_rearmed++;
    r->stats.recvs++;
    r->handler->on_recv(r->ctx, sock, gen, bytes, cqe->res, more);
    if (bytes != NULL) {
        io_uring_buf_ring_add(b->bufs, bytes, RING_BUF_BYTES, buf, RING_BUFS - 1,
                              (int)(*bufs_back)++);
    }
}

static void shutdown_done(struct ring *r, struct bank *b, uint32_t sock)
{
    struct bank_slot *s = &b->slots[sock % r->bank_slots];
    ASSERT(s->shutdowns > 0);
    if (--s->shutdowns > 0 || !s->close_waits) return;
    s->close_waits = false;
    ring_close(r, sock, s->close_gen);
}

static void close_done(struct ring *r, struct bank *b, const struct io_uring_cqe *cqe)
{
    uint32_t gen = (uint32_t)(cqe->user_data >> 32) & 0xffffff;
    ASSERT(cqe->res == 0);            /* a close of a slot that is not open would be our own bug */
    b->socks--;
    r->socks_count--;
    r->stats.socks = r->socks_count;
    r->handler->on_closed(r->ctx, (uint32_t)cqe->user_data, gen);
}

/* The knock has been answered for: a wake-up that the kernel could not deliver now is sent again. A
 * ring that is gone needs none. */
static void wake_failed(struct ring *r, int wake_fd, int32_t res)
{
    if (res == -EOVERFLOW || res == -EAGAIN || res == -ENOMEM || res == -EBUSY) {
        ring_wake(r, wake_fd);
    }
}

static void cqe_dispatch(struct ring *r, struct bank *b, const struct io_uring_cqe *cqe,
                         uint32_t *bufs_back)
{
    uint32_t index = (uint32_t)cqe->user_data, gen = (uint32_t)(cqe->user_data >> 32) & 0xffffff;
    switch ((enum kind)(cqe->user_data >> 56)) {
    case KIND_RECV:   recv_done(r, b, cqe, bufs_back); return;
    case KIND_SEND:   r->handler->on_sent(r->ctx, index, gen, cqe->res); return;
    case KIND_ACCEPT: ring_accept_done(r, index, cqe->res); return;
    case KIND_CLOSE:  close_done(r, b, cqe); return;
    case KIND_SHUTDOWN:      shutdown_done(r, b, index); return;
    case KIND_WAKE_FAILED:   wake_failed(r, (int)index, cqe->res); return;
    case KIND_EVENT:         r->event_armed = false; return;
    case KIND_ACCEPT_PAUSED: r->accept_paused = false; return;
    case KIND_NONE:
    case KIND_IGNORE:        /* a cancel, successful or too late */
    case KIND_WAKE:   return;
    }
    ASSERT(!"unknown completion kind");
}

static bool bank_flagged(const struct bank *b)
{
    return (__atomic_load_n(b->ring.sq.kflags, __ATOMIC_RELAXED) &
            (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

/* Submit what is queued and collect up to about a turn's share of completions. One enter runs at
 * most 20 pieces of deferred work (Linux 6.18) and flags the rest, so it is repeated while it
 * brings something. The flag may stay set with nothing behind it: then nothing comes, we stop. */
static void bank_collect(struct ring *r, struct bank *b)
{
    uint32_t ready = io_uring_cq_ready(&b->ring), before;
    do {
        before = ready;
        bank_enter(r, b, true, 0, NULL);
        ready = io_uring_cq_ready(&b->ring);
    } while (bank_flagged(b) && ready > before && ready < EVENTS_PER_BANK_MAX);
}

/* Submit, collect and dispatch one bank. Returns completions handled. */
static uint32_t bank_turn(struct ring *r, struct bank *b)
{
    if (io_uring_cq_ready(&b->ring) < EVENTS_PER_BANK_MAX) {
        if (io_uring_sq_ready(&b->ring) > 0 || bank_flagged(b)) bank_collect(r, b);
    } else if (io_uring_sq_ready(&b->ring) > 0) {
        bank_enter(r, b, false, 0, NULL);
    }
    uint32_t bufs_back = 0, done = 0;
    /* Handlers may submit, which moves the CQ tail but never its head: each entry is copied out
     * and the head advanced before the handler runs. */
    while (done < EVENTS_PER_BANK_MAX) {
        unsigned head = *b->ring.cq.khead;
        if (head == io_uring_smp_load_acquire(b->ring.cq.ktail)) break;
        struct io_uring_cqe cqe = b->ring.cq.cqes[head & *b->ring.cq.kring_mask];
        io_uring_cq_advance(&b->ring, 1);
        cqe_dispatch(r, b, &cqe, &bufs_back);
        if (bufs_back == 32) {
            io_uring_buf_ring_advance(b->bufs, (int)bufs_back);
            bufs_back = 0;
        }
        done++;
    }
    if (bufs_back > 0) io_uring_buf_ring_advance(b->bufs, (int)bufs_back);
    return done;
}

bool ring_turn(struct ring *r)
{
    uint32_t events = 0, count = r->banks_count;
    bool more = false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = bank_turn(r, &r->banks[(r->turn_first + i) % count]);
        events += n;
        if (n == EVENTS_PER_BANK_MAX) more = true;
        if (events >= RING_TURN_EVENTS_MAX) {      /* the next turn starts where this one stopped */
            r->turn_first = (r->turn_first + i + 1) % count;
            more = true;
            break;
        }
    }
    ring_accept_arm_idle(r);
    return more;
}

/* ---- sleeping and waking ---- */

static bool bank_ready(const struct bank *b)
{
    return *b->ring.cq.khead != io_uring_smp_load_acquire(b->ring.cq.ktail);
}

/* Of one of the banks that are not slept in. The order matters (measured: any other either spins or
 * misses work): the eventfd is enabled, full barrier, what is flagged runs, and then only heads and
 * tails count, since TASKRUN may stay set with nothing to do. Work that the kernel still holds back
 * afterwards would not be signalled, so it is run to the end: a wait for as many completions as
 * there can be, with no time to wait. */
static bool bank_sleep_ready(struct ring *r, struct bank *b)
{
    struct __kernel_timespec none = {0};
    if (io_uring_sq_ready(&b->ring) > 0 || bank_flagged(b)) bank_collect(r, b);
    if (!bank_ready(b) && bank_flagged(b)) bank_enter(r, b, true, RING_CQ, &none);
    return bank_ready(b);
}

bool ring_sleep_ready(struct ring *r)
{
    if (bank_ready(&r->banks[0])) return true;
    for (uint32_t i = 1; i < r->banks_count; i++) {
        io_uring_cq_eventfd_toggle(&r->banks[i].ring, true);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (uint32_t i = 1; i < r->banks_count; i++) {
        if (bank_sleep_ready(r, &r->banks[i])) return true;
    }
    return false;
}

/* Sleeping is waiting in bank 0, which takes along what is queued there: a quiet shard needs one
 * system call per event. */
void ring_sleep(struct ring *r, uint64_t timeout_ns)
{
    struct bank *b = &r->banks[0];
    struct __kernel_timespec limit = {(int64_t)(timeout_ns / 1000000000),
                                      (int64_t)(timeout_ns % 1000000000)};
    if (!r->event_armed) {
        struct io_uring_sqe *sqe = ring_sqe(r, b);
        io_uring_prep_read(sqe, r->event_fd, &r->event_count, sizeof(r->event_count), 0);
        io_uring_sqe_set_data64(sqe, ring_tag(KIND_EVENT, 0, 0));
        r->event_armed = true;
    }
    bank_enter(r, b, true, 1, timeout_ns == UINT64_MAX ? NULL : &limit);
    r->stats.wakes++;
}

void ring_awake(struct ring *r)
{
    for (uint32_t i = 1; i < r->banks_count; i++) {
        io_uring_cq_eventfd_toggle(&r->banks[i].ring, false);
    }
}

int ring_wake_fd(const struct ring *r)
{
    return r->banks[0].ring.ring_fd;
}

void ring_wake(struct ring *r, int wake_fd)
{
    struct io_uring_sqe *sqe = ring_sqe(r, &r->banks[0]);
    io_uring_prep_msg_ring(sqe, wake_fd, 0, ring_tag(KIND_WAKE, 0, 0), 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_WAKE_FAILED, 0, (uint32_t)wake_fd));
}

void ring_wake_by_event(struct ring *r)
{
    uint64_t one = 1;
    ssize_t n = write(r->event_fd, &one, sizeof(one));
    ASSERT(n == (ssize_t)sizeof(one) || errno == EAGAIN);
}

void ring_stats_read(const struct ring *r, struct ring_stats *out)
{
    *out = r->stats;
    out->slots = r->banks_count * r->bank_slots;
}
