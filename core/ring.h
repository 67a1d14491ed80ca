/* ring.h - a shard's sockets as io_uring completions.
 *
 * Shape    A ring set is one or more rings ("banks"), each with its own table of direct
 *          descriptors, because one table cannot exceed RLIMIT_NOFILE. Banks open on demand. A
 *          socket is known by `sock` = bank * bank_slots + slot; the slot is chosen by the kernel,
 *          lowest free first. Every operation carries the caller's 24-bit generation of that
 *          socket and every completion hands it back.
 * Threads  One owner: the thread that called ring_open (SINGLE_ISSUER, DEFER_TASKRUN).
 *          ring_wake_fd and ring_wake_by_event: any thread.
 * Order    Completions of one socket's receives come in stream order. Nothing is promised between
 *          sockets. Handlers run only inside ring_turn and may start any operation. What a call
 *          queues goes to the kernel with the next ring_turn or ring_sleep.
 * Bounds   socks_max sockets plus RING_SOCKS_SPARE, so that "over capacity" can be said politely;
 *          accepts_max outstanding accepts, each with its own address (a multishot accept shares
 *          one sockaddr and reports the last) and never more than there are free slots (a full
 *          table drops the connection already taken). RING_TURN_EVENTS_MAX completions per turn.
 * Memory   Per bank: SQ and CQ, one provided-buffer ring of RING_BUFS x RING_BUF_BYTES. An idle
 *          socket holds none of it.
 * Errors   ring_open: ERR_UNSUPPORTED with a text that names the kernel and the feature.
 * Source   ARCHITECTURE.md (engine); io_uring(7), Linux 6.1 or newer.
 */
#pragma once
#include "core/err.h"
#include <sys/uio.h>

enum {
    RING_BUFS = 256, RING_BUF_BYTES = 4096,
    RING_SQ = 1024, RING_CQ = 8192,
    RING_SOCKS_SPARE = 64,
    RING_TURN_EVENTS_MAX = 2048,
    RING_LISTENERS_MAX = 2,
    RING_SEND_IOV_MAX = 64,
};

struct ring;

struct ring_addr { uint8_t ip[16]; };   /* IPv6, IPv4-mapped where needed */

/* What the owner does with completions. `n` < 0 is a negative errno. */
struct ring_handler {
    /* A connection was accepted by listener `tag`. The handler starts receiving with ring_recv. */
    void (*on_accept)(void *ctx, uint32_t sock, uint32_t tag, const struct ring_addr *peer);
    /* n > 0: bytes, writable, borrowed until the handler returns. n == 0: end of stream. more:
     * the receive stays armed; when false the socket has no receive outstanding any more. */
    void (*on_recv)(void *ctx, uint32_t sock, uint32_t gen, uint8_t *bytes, int32_t n, bool more);
    void (*on_sent)(void *ctx, uint32_t sock, uint32_t gen, int32_t n);
    /* The slot is free: the kernel may hand it out again. */
    void (*on_closed)(void *ctx, uint32_t sock, uint32_t gen);
};

struct ring_conf {
    uint32_t                   socks_max;
    uint32_t                   accepts_max;
    const struct ring_handler *handler;   /* borrowed for the life of the ring */
    void                      *ctx;
};

struct ring_stats {                       /* monotonic but for the last three */
    uint64_t enters, wakes, sends, recvs, recv_bufs_exhausted, recv_rearmed;
    uint64_t accept_errors;
    uint32_t banks, socks, slots;
};

/* Start-up self-test: two rings, a message, a descriptor handed over, a provided buffer, an
 * eventfd. ERR_UNSUPPORTED fills `error` with one line that says what to do. */
MUST_CHECK err_t ring_probe(char *error, uint32_t error_bytes);

MUST_CHECK err_t ring_open(struct ring **out, const struct ring_conf *conf, char *error,
                           uint32_t error_bytes);
/* Closes the rings; the kernel closes the sockets. Clears *r. */
void ring_close_all(struct ring **r);

/* Accept from a listening descriptor (borrowed, kept open by the caller). A second one gets a small
 * share of the accepts, at least one. When accepting fails for want of memory or files it rests for
 * 100 ms; connections wait in the listener's queue. */
void ring_listen(struct ring *r, int fd, uint32_t tag);
/* Stop accepting: outstanding accepts are cancelled, no new ones start. */
void ring_listen_stop(struct ring *r);

/* Multishot receive into provided buffers. */
void ring_recv(struct ring *r, uint32_t sock, uint32_t gen);
/* Ask the outstanding receive to end; it ends with on_recv(n < 0, more = false). */
void ring_recv_stop(struct ring *r, uint32_t sock, uint32_t gen);
/* One vectored send; the bytes must live until on_sent. At most RING_SEND_IOV_MAX pieces; the
 * vector itself is copied. Sends complete whole unless the socket fails or is shut down. */
void ring_send(struct ring *r, uint32_t sock, uint32_t gen, const struct iovec *iov,
               uint32_t iov_count);
/* Shut down sending only (the peer reads to the end and answers with its own), or both directions:
 * outstanding receives and sends end. No completion is reported. The kernel does it on a thread of
 * its own, so it may come later than operations queued after it, but never after a ring_close. */
void ring_shutdown(struct ring *r, uint32_t sock, uint32_t gen, bool both);
/* Close. Call only when no receive and no send is outstanding (else the file stays open). Waits for
 * the socket's shutdowns. */
void ring_close(struct ring *r, uint32_t sock, uint32_t gen);

/* Submit what is queued, collect and dispatch completions. True when a bound left completions for
 * the next turn; what handlers queued meanwhile does not count, since sleeping submits it too. */
bool ring_turn(struct ring *r);

/* Submit what is queued and sleep until a completion, a wake-up or timeout_ns (UINT64_MAX: no
 * limit). ring_sleep_ready must be called first; when it says true there is work and the caller
 * must not sleep. ring_awake must be called afterwards in both cases. */
bool ring_sleep_ready(struct ring *r);
void ring_sleep(struct ring *r, uint64_t timeout_ns);
void ring_awake(struct ring *r);

/* Wake another shard: queue a message to its first ring (ring_wake_fd of that ring), which is where
 * it sleeps. It leaves with the next ring_turn or ring_sleep. */
int  ring_wake_fd(const struct ring *r);
void ring_wake(struct ring *r, int wake_fd);
/* Wake from a thread without a ring. */
void ring_wake_by_event(struct ring *r);

void ring_stats_read(const struct ring *r, struct ring_stats *out);
