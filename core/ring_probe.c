/* The start-up self-test: everything the engine relies on, tried once on throw-away rings, so that
 * a kernel that refuses is named before the first client connects. */
#include "core/ring.h"

#include "core/mem.h"
#include "core/uring_compat.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { PROBE_ENTRIES = 8, PROBE_BUF_BYTES = 64, PROBE_GROUP = 1, PROBE_PAGE_BYTES = 4096 };

struct probe {
    struct io_uring a, b;
    bool            a_open, b_open;
    void           *page;
    int             pair[2], event_fd;
    const char     *failed;          /* the feature, once something was refused */
    int             why;             /* negative errno */
};

static bool check(struct probe *p, const char *feature, int result)
{
    if (result >= 0) return true;
    p->failed = feature;
    p->why = result;
    return false;
}

static int wait_res(struct io_uring *ring, int32_t *res)
{
    struct io_uring_cqe *cqe;
    struct __kernel_timespec limit = {.tv_sec = 2};
    int e = io_uring_submit_and_wait_timeout(ring, &cqe, 1, &limit, NULL);
    if (e < 0) return e;
    e = io_uring_peek_cqe(ring, &cqe);
    if (e < 0) return e;
    *res = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return 0;
}

static bool open_rings(struct probe *p)
{
    unsigned flags = IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER |
                     IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL;
    if (!check(p, "io_uring with DEFER_TASKRUN (Linux 6.1)",
               io_uring_queue_init(PROBE_ENTRIES, &p->a, flags))) return false;
    p->a_open = true;
    if (!check(p, "a second io_uring", io_uring_queue_init(PROBE_ENTRIES, &p->b, flags))) {
        return false;
    }
    p->b_open = true;
    p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return check(p, "eventfd", p->event_fd < 0 ? -errno : 0) &&
           check(p, "an eventfd on a ring", io_uring_register_eventfd(&p->b, p->event_fd)) &&
           check(p, "direct descriptors", io_uring_register_files_sparse(&p->a, PROBE_ENTRIES)) &&
           check(p, "direct descriptors", io_uring_register_files_sparse(&p->b, PROBE_ENTRIES));
}

static bool try_message(struct probe *p)
{
    int32_t res = 0;
    uint64_t count = 0;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&p->a);
    io_uring_prep_msg_ring(sqe, p->b.ring_fd, 7, 42, 0);
    int e = wait_res(&p->a, &res);
    if (!check(p, "messages between rings (MSG_RING)", e < 0 ? e : res)) return false;
    e = wait_res(&p->b, &res);
    if (e == 0 && res != 7) e = -EIO;
    if (!check(p, "messages between rings (MSG_RING)", e)) return false;
    return check(p, "wake-up of a ring by its eventfd",
                 read(p->event_fd, &count, sizeof(count)) == sizeof(count) ? 0 : -EIO);
}

/* A socket moves into a's table, from there to b's, and receives there into a provided buffer. */
static bool try_descriptor(struct probe *p)
{
    int32_t res = 0;
    if (!check(p, "socketpair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p->pair) < 0
                                    ? -errno : 0)) return false;
    int e = io_uring_register_files_update(&p->a, 0, &p->pair[0], 1);
    if (!check(p, "direct descriptors", e)) return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&p->a);
    ASSERT(sqe != NULL);              /* every step waits for its own, so one is always free */
    uring_prep_send_fd(sqe, p->b.ring_fd, 0, 43);
    e = wait_res(&p->a, &res);
    if (!check(p, "handing descriptors over (MSG_RING SEND_FD)", e < 0 ? e : res)) return false;
    e = wait_res(&p->b, &res);
    return check(p, "handing descriptors over (MSG_RING SEND_FD)", e < 0 ? e : res);
}

static bool try_buffers(struct probe *p)
{
    int32_t res = 0;
    struct io_uring_buf_ring *br = p->page;
    uint8_t *bytes = (uint8_t *)p->page + PROBE_ENTRIES * sizeof(struct io_uring_buf);
    io_uring_buf_ring_init(br);
    int e = uring_buf_ring_register(&p->b, br, PROBE_ENTRIES, PROBE_GROUP);
    if (!check(p, "provided-buffer rings", e)) return false;
    io_uring_buf_ring_add(br, bytes, PROBE_BUF_BYTES, 0, PROBE_ENTRIES - 1, 0);
    io_uring_buf_ring_advance(br, 1);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&p->b);
    io_uring_prep_recv_multishot(sqe, 0, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->buf_group = PROBE_GROUP;
    if (write(p->pair[1], "weft", 4) != 4) return check(p, "socketpair", -errno);
    e = wait_res(&p->b, &res);
    if (e == 0 && (res != 4 || memcmp(bytes, "weft", 4) != 0)) e = res < 0 ? res : -EIO;
    return check(p, "multishot receive (Linux 6.0)", e);
}

static void report(const struct probe *p, char *error, uint32_t error_bytes)
{
    struct utsname u = {0};
    uname(&u);
    const char *advice = "Weft needs Linux 6.1 or newer with io_uring";
    if (p->why == -EPERM || p->why == -ENOSYS) {
        advice = "io_uring is switched off here: allow it (sysctl kernel.io_uring_disabled=0; a "
                 "container's seccomp profile must permit io_uring_setup)";
    } else if (p->why == -ENOMEM) {
        advice = "Too little memory, or RLIMIT_MEMLOCK is too low: raise it";
    } else if (p->why == -EMFILE || p->why == -ENFILE) {
        advice = "Too few file descriptors: raise RLIMIT_NOFILE";
    }
    snprintf(error, error_bytes, "kernel %s refuses %s: %s. %s", u.release, p->failed,
             strerror(-p->why), advice);
}

err_t ring_probe(char *error, uint32_t error_bytes)
{
    struct probe p = {.pair = {-1, -1}, .event_fd = -1};
    p.page = mem_reserve(PROBE_PAGE_BYTES);
    bool good = check(&p, "memory", p.page == NULL ? -ENOMEM : 0) && open_rings(&p) &&
                try_message(&p) && try_descriptor(&p) && try_buffers(&p);
    if (!good) report(&p, error, error_bytes);
    if (p.a_open) io_uring_queue_exit(&p.a);
    if (p.b_open) io_uring_queue_exit(&p.b);
    if (p.pair[0] >= 0) close(p.pair[0]);
    if (p.pair[1] >= 0) close(p.pair[1]);
    if (p.event_fd >= 0) close(p.event_fd);
    if (p.page != NULL) mem_release(p.page, PROBE_PAGE_BYTES);
    return good ? OK : ERR_UNSUPPORTED;
}
