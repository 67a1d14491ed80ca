/* ring_bank.h - what ring_uring.c and ring_accept.c share; nobody else includes it.
 *
 * Shape    user_data:  | kind 8 | generation 24 | index 32 |     index: sock, or accept number
 *          The owner sleeps inside bank 0. Every other bank signals one shared eventfd, and only
 *          while the owner sleeps; bank 0 has a read of that eventfd outstanding.
 * Threads  The ring's owner.
 */
#pragma once
#include "core/ring.h"
#include "core/uring_compat.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum { BANKS_MAX = 512, BANK_SLOTS_MAX = 32768, REGISTERED_RINGS_MAX = 16 };
enum { BUF_GROUP = 1, EVENTS_PER_BANK_MAX = 512 };

enum kind {
    KIND_NONE, KIND_ACCEPT, KIND_RECV, KIND_SEND, KIND_SHUTDOWN, KIND_CLOSE, KIND_IGNORE,
    KIND_WAKE, KIND_WAKE_FAILED, KIND_EVENT, KIND_ACCEPT_PAUSED,
};

struct msg {                          /* alive until the bank's next submit */
    struct msghdr head;
    struct iovec  iov[RING_SEND_IOV_MAX];
};

/* The kernel runs a shutdown on a thread of its own, which looks the slot up only then. The slot
 * must not be closed, and so reused, before: it would shut a stranger down. */
struct bank_slot {
    uint32_t close_gen;                       /* of the close that waits */
    uint16_t shutdowns;                       /* outstanding */
    bool     close_waits;
};

struct bank {
    struct io_uring           ring;
    struct io_uring_buf_ring *bufs;           /* owned, buf_bytes is part of it */
    uint8_t                  *buf_bytes;
    struct bank_slot         *slots;          /* owned; bank_slots of them, reserved */
    struct msg               *msgs;           /* owned; RING_SQ of them, reserved */
    uint32_t                  msgs_count;
    uint32_t                  socks;          /* slots in use */
    uint32_t                  accepts;        /* slots promised to outstanding accepts */
};

struct accept_slot {                  /* one outstanding accept */
    struct sockaddr_storage addr;
    socklen_t               addr_bytes;
    uint16_t                bank;
    uint8_t                 listener;
    bool                    busy;
};

struct ring {
    struct bank         *banks;       /* owned; BANKS_MAX reserved, banks_count open */
    uint32_t             banks_count, banks_max, bank_slots, bank_fill;
    uint32_t             socks_max, socks_count;
    struct accept_slot  *accepts;     /* owned; accepts_max of them */
    uint16_t            *accepts_idle;                  /* owned; a stack of their numbers */
    uint32_t             accepts_max, accepts_idle_count;
    int                  listen_fds[RING_LISTENERS_MAX];
    uint32_t             listen_tags[RING_LISTENERS_MAX];
    uint32_t             listen_accepts[RING_LISTENERS_MAX];   /* outstanding */
    uint32_t             listeners_count;
    bool                 listening, accept_paused;
    int                  event_fd;    /* owned */
    bool                 event_armed; /* bank 0 is reading it */
    uint64_t             event_count; /* written by that read */
    uint32_t             turn_first;  /* bank that the next turn starts with */
    const struct ring_handler *handler;
    void                *ctx;
    struct ring_stats    stats;
};

static inline uint64_t ring_tag(enum kind kind, uint32_t gen, uint32_t index)
{
    return (uint64_t)kind << 56 | (uint64_t)(gen & 0xffffff) << 32 | index;
}

/* ring_uring.c: open one more bank; 0 or a negative errno. */
int ring_bank_open(struct ring *r);
/* A submission entry of bank b. A full queue is submitted first: an ordinary, counted event. */
struct io_uring_sqe *ring_sqe(struct ring *r, struct bank *b);
/* ring_accept.c: arm every accept that may be armed; handle the completion of one. */
void ring_accept_arm_idle(struct ring *r);
void ring_accept_done(struct ring *r, uint32_t index, int32_t res);
