/* uring_compat.h - what newer kernels know and liburing 2.3 does not.
 *
 * Shape    Helpers over raw submission entries; nothing is probed here, ring_probe.c does that.
 * Threads  Any.
 * Source   Linux uapi io_uring.h; io_uring_enter(2).
 */
#pragma once
#include "core/base.h"
#include <liburing.h>

enum {
    URING_MSG_SEND_FD = 1,              /* IORING_MSG_SEND_FD, kernel 6.0 */
    URING_ENTER_NO_IOWAIT = 1 << 7,     /* both kernel 6.15 */
    URING_FEAT_NO_IOWAIT = 1 << 17,
};
#define URING_FILE_INDEX_ALLOC (~0u)

/* liburing 2.3 adds one to file_index here and so turns ALLOC into "no direct descriptor". */
static inline void uring_prep_accept_direct(struct io_uring_sqe *sqe, int fd,
                                            struct sockaddr *addr, socklen_t *addr_bytes)
{
    io_uring_prep_accept(sqe, fd, addr, addr_bytes, 0);
    sqe->file_index = URING_FILE_INDEX_ALLOC;
}

/* Hand the direct descriptor `slot` of the submitting ring to another ring's table. */
static inline void uring_prep_send_fd(struct io_uring_sqe *sqe, int target_ring, uint32_t slot,
                                      uint64_t target_user_data)
{
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = IORING_OP_MSG_RING;
    sqe->fd = target_ring;
    sqe->off = target_user_data;
    sqe->addr = URING_MSG_SEND_FD;
    sqe->addr3 = slot;
    sqe->file_index = URING_FILE_INDEX_ALLOC;
}

/* Provided-buffer ring over caller's memory (page aligned). */
static inline int uring_buf_ring_register(struct io_uring *ring, struct io_uring_buf_ring *br,
                                          uint32_t entries, uint16_t group)
{
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)br, .ring_entries = entries, .bgid = group,
    };
    return io_uring_register_buf_ring(ring, &reg, 0);
}

/* One io_uring_enter, whatever there is: submits what is queued; with `collect` also runs deferred
 * work and waits until wait_count completions are there or `limit` (NULL: none) has passed. Returns
 * the number submitted or a negative errno. Unlike liburing's calls it never enters twice, and
 * where the kernel allows it the wait is not booked as I/O wait: idle shards would look like slow
 * disks. */
static inline int uring_enter(struct io_uring *ring, bool collect, unsigned wait_count,
                              const struct __kernel_timespec *limit)
{
    struct io_uring_sq *sq = &ring->sq;
    unsigned tail = *sq->ktail, flags = 0;
    while (sq->sqe_head != sq->sqe_tail) {
        sq->array[tail++ & *sq->kring_mask] = sq->sqe_head++ & *sq->kring_mask;
    }
    io_uring_smp_store_release(sq->ktail, tail);
    if (ring->enter_ring_fd != ring->ring_fd) flags |= IORING_ENTER_REGISTERED_RING;
    if (collect) flags |= IORING_ENTER_GETEVENTS;
    if (wait_count > 0 && (ring->features & URING_FEAT_NO_IOWAIT) != 0) {
        flags |= URING_ENTER_NO_IOWAIT;
    }
    struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)limit};
    if (limit == NULL) {
        return io_uring_enter2((unsigned)ring->enter_ring_fd, tail - *sq->khead, wait_count, flags,
                               NULL, _NSIG / 8);
    }
    return io_uring_enter2((unsigned)ring->enter_ring_fd, tail - *sq->khead, wait_count,
                           flags | IORING_ENTER_EXT_ARG, (sigset_t *)(void *)&arg, sizeof(arg));
}
