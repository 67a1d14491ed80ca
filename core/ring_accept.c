/* Accepting: single-shot accepts straight into a bank's table, each with its own address. Never
 * more of them than the bank has free slots: a connection accepted into a full table is lost. */
#include "core/ring_bank.h"

#include <errno.h>

enum { ACCEPT_PAUSE_NS = 100000000 };

static uint32_t bank_free(const struct ring *r, const struct bank *b)
{
    return r->bank_slots - b->socks - b->accepts;
}

/* Nothing is gained by trying again at once: files, memory or the listener are missing. Accepting
 * rests for a while, the connections wait in the listener's queue. */
static void pause_accepting(struct ring *r)
{
    static const struct __kernel_timespec pause = {.tv_nsec = ACCEPT_PAUSE_NS};
    if (r->accept_paused) return;
    r->accept_paused = true;
    struct io_uring_sqe *sqe = ring_sqe(r, &r->banks[0]);
    io_uring_prep_timeout(sqe, (struct __kernel_timespec *)(uintptr_t)&pause, 0, 0);
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_ACCEPT_PAUSED, 0, 0));
}

/* The bank that takes the next accept: the one being filled, else the emptiest, else a new one.
 * NULL when every slot is in use or promised. */
static struct bank *bank_for_accept(struct ring *r)
{
    if (bank_free(r, &r->banks[r->bank_fill]) > 0) return &r->banks[r->bank_fill];
    uint32_t best = 0;
    for (uint32_t i = 1; i < r->banks_count; i++) {
        if (bank_free(r, &r->banks[i]) > bank_free(r, &r->banks[best])) best = i;
    }
    if (bank_free(r, &r->banks[best]) == 0) {
        if (r->banks_count == r->banks_max) return NULL;
        if (ring_bank_open(r) < 0) {          /* costly to try: not every turn */
            r->stats.accept_errors++;
            pause_accepting(r);
            return NULL;
        }
        best = r->banks_count - 1;
    }
    r->bank_fill = best;
    return &r->banks[best];
}

/* Accepts that belong to a listener: a second one gets a small share, the first all others. */
static uint32_t share(const struct ring *r, uint32_t listener)
{
    uint32_t second = r->listeners_count > 1 ? u32_max(1, r->accepts_max / 16) : 0;
    return listener > 0 ? second : r->accepts_max - second;
}

static void accept_arm(struct ring *r, struct bank *b, uint32_t listener)
{
    uint32_t index = r->accepts_idle[--r->accepts_idle_count];
    struct accept_slot *a = &r->accepts[index];
    ASSERT(!a->busy);
    a->addr_bytes = sizeof(a->addr);
    a->bank = (uint16_t)(b - r->banks);
    a->listener = (uint8_t)listener;
    a->busy = true;
    b->accepts++;
    r->listen_accepts[listener]++;
    struct io_uring_sqe *sqe = ring_sqe(r, b);
    uring_prep_accept_direct(sqe, r->listen_fds[listener], (struct sockaddr *)&a->addr,
                             &a->addr_bytes);
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_ACCEPT, 0, index));
}

/* Arm every idle accept for which there is a listener below its share and room for its socket. The
 * small listener comes first: near the bound it is the way to see why. */
void ring_accept_arm_idle(struct ring *r)
{
    if (!r->listening || r->accept_paused) return;
    for (uint32_t l = r->listeners_count; l-- > 0;) {
        while (r->accepts_idle_count > 0 && r->listen_accepts[l] < share(r, l)) {
            uint32_t promised = r->accepts_max - r->accepts_idle_count;
            if (r->socks_count + promised >= r->socks_max + RING_SOCKS_SPARE) return;
            struct bank *b = bank_for_accept(r);
            if (b == NULL) return;
            accept_arm(r, b, l);
        }
    }
}

static void accept_cancel(struct ring *r, uint32_t index)
{
    struct io_uring_sqe *sqe = ring_sqe(r, &r->banks[r->accepts[index].bank]);
    io_uring_prep_cancel64(sqe, ring_tag(KIND_ACCEPT, 0, index), 0);
    io_uring_sqe_set_data64(sqe, ring_tag(KIND_IGNORE, 0, index));
}

void ring_listen(struct ring *r, int fd, uint32_t tag)
{
    ASSERT(r->listeners_count < RING_LISTENERS_MAX);
    uint32_t l = r->listeners_count++;
    r->listen_fds[l] = fd;
    r->listen_tags[l] = tag;
    r->listening = true;
    /* What the first listener holds beyond its new share ends and is armed anew for this one. */
    uint32_t over = r->listen_accepts[0] - u32_min(r->listen_accepts[0], share(r, 0));
    for (uint32_t i = 0; i < r->accepts_max && over > 0; i++) {
        if (!r->accepts[i].busy) continue;
        accept_cancel(r, i);
        over--;
    }
}

void ring_listen_stop(struct ring *r)
{
    r->listening = false;
    for (uint32_t i = 0; i < r->accepts_max; i++) {
        if (r->accepts[i].busy) accept_cancel(r, i);
    }
}

static void addr_read(const struct sockaddr_storage *from, struct ring_addr *out)
{
    memset(out, 0, sizeof(*out));
    if (from->ss_family == AF_INET6) {
        memcpy(out->ip, &((const struct sockaddr_in6 *)from)->sin6_addr, 16);
    } else if (from->ss_family == AF_INET) {
        out->ip[10] = out->ip[11] = 0xff;
        memcpy(out->ip + 12, &((const struct sockaddr_in *)from)->sin_addr, 4);
    }
}

void ring_accept_done(struct ring *r, uint32_t index, int32_t res)
{
    struct accept_slot *a = &r->accepts[index];
    struct bank *b = &r->banks[a->bank];
    uint32_t tag = r->listen_tags[a->listener];
    ASSERT(a->busy && b->accepts > 0 && r->listen_accepts[a->listener] > 0);
    a->busy = false;
    b->accepts--;
    r->listen_accepts[a->listener]--;
    r->accepts_idle[r->accepts_idle_count++] = (uint16_t)index;
    if (res == -ECANCELED) return;    /* as we asked */
    if (res < 0) {
        r->stats.accept_errors++;
        if (res != -ECONNABORTED) pause_accepting(r);     /* else only this peer left */
        return;
    }
    b->socks++;
    r->socks_count++;
    r->stats.socks = r->socks_count;
    struct ring_addr peer;
    addr_read(&a->addr, &peer);
    r->handler->on_accept(r->ctx, a->bank * r->bank_slots + (uint32_t)res, tag, &peer);
}
