#include "tests/sim/ring_sim.h"

#include <errno.h>
#include <stdlib.h>

struct sim_sock {
    struct sim_peer *peer;            /* NULL: the slot is free */
    uint32_t         gen;
    bool             known;           /* the generation has been said by the first operation */
    bool             recv, recv_stop, send, shut_read, shut_write, close;
    uint32_t         iov_count, sent, total;
    struct iovec     iov[RING_SEND_IOV_MAX];
};

struct ring {
    struct ring_conf  conf;
    struct sim_sock  *socks;          /* slots_count of them */
    uint32_t          slots_count, used;
    struct sim_peer  *backlog, **backlog_end;
    struct ring_stats stats;
};

struct ring_sim_chances ring_sim_chances = {.event = 512, .whole = 512};
struct rng              ring_sim_rng;

bool ring_sim_maybe(uint32_t n)
{
    return rng_below(&ring_sim_rng, 1024) < n;
}

/* ---- peers ---- */

struct sim_peer *ring_sim_connect(struct ring *r, uint32_t tag, struct ring_addr addr)
{
    struct sim_peer *p = calloc(1, sizeof(*p));
    ASSERT(p != NULL);
    p->ring = r;
    p->tag = tag;
    p->addr = addr;
    p->window = 1024u << rng_below(&ring_sim_rng, 6);
    *r->backlog_end = p;
    r->backlog_end = &p->next;
    return p;
}

static void peer_free(struct sim_peer *p)
{
    sim_pipe_free(&p->to_server);
    sim_pipe_free(&p->from_server);
    free(p);
}

void ring_sim_drop(struct sim_peer **pp)
{
    struct sim_peer *p = *pp;
    *pp = NULL;
    ASSERT(p->ended || p->broken || p->closed);
    p->dropped = true;
    if (p->closed) peer_free(p);
}

struct sim_peer *ring_sim_peer(struct ring *r, uint32_t sock, uint32_t gen)
{
    ASSERT(sock < r->slots_count);
    struct sim_sock *s = &r->socks[sock];
    return s->peer != NULL && s->known && s->gen == gen ? s->peer : NULL;
}

uint32_t ring_sim_socks(const struct ring *r) { return r->used; }

/* ---- ring.h: opening ---- */

err_t ring_probe(char *error, uint32_t error_bytes)
{
    (void)error, (void)error_bytes;
    return OK;
}

err_t ring_open(struct ring **out, const struct ring_conf *conf, char *error, uint32_t error_bytes)
{
    (void)error, (void)error_bytes;
    struct ring *r = calloc(1, sizeof(*r));
    ASSERT(r != NULL);
    r->conf = *conf;
    r->slots_count = conf->socks_max + RING_SOCKS_SPARE;
    r->socks = calloc(r->slots_count, sizeof(*r->socks));
    r->backlog_end = &r->backlog;
    ASSERT(r->socks != NULL);
    *out = r;
    return OK;
}

void ring_close_all(struct ring **rp)
{
    struct ring *r = *rp;
    for (uint32_t i = 0; i < r->slots_count; i++) {
        if (r->socks[i].peer != NULL) peer_free(r->socks[i].peer);
    }
    while (r->backlog != NULL) {
        struct sim_peer *next = r->backlog->next;
        peer_free(r->backlog);
        r->backlog = next;
    }
    free(r->socks);
    free(r);
    *rp = NULL;
}

void ring_listen(struct ring *r, int fd, uint32_t tag) { (void)r, (void)fd, (void)tag; }
void ring_listen_stop(struct ring *r) { (void)r; }

/* ---- ring.h: operations ---- */

static struct sim_sock *sock_of(struct ring *r, uint32_t sock, uint32_t gen)
{
    ASSERT(sock < r->slots_count);
    struct sim_sock *s = &r->socks[sock];
    ASSERT(s->peer != NULL && !s->close);
    if (!s->known) {
        s->known = true;
        s->gen = s->peer->gen = gen;
    }
    ASSERT(s->gen == gen);
    return s;
}

void ring_recv(struct ring *r, uint32_t sock, uint32_t gen)
{
    struct sim_sock *s = sock_of(r, sock, gen);
    ASSERT(!s->recv);
    s->recv = true;
    s->recv_stop = false;
}

void ring_recv_stop(struct ring *r, uint32_t sock, uint32_t gen)
{
    struct sim_sock *s = sock_of(r, sock, gen);
    ASSERT(s->recv);
    s->recv_stop = true;
}

void ring_send(struct ring *r, uint32_t sock, uint32_t gen, const struct iovec *iov,
               uint32_t iov_count)
{
    struct sim_sock *s = sock_of(r, sock, gen);
    ASSERT(!s->send && iov_count > 0 && iov_count <= RING_SEND_IOV_MAX);
    s->send = true;
    s->iov_count = iov_count;
    s->sent = s->total = 0;
    for (uint32_t i = 0; i < iov_count; i++) {
        s->iov[i] = iov[i];
        s->total += (uint32_t)iov[i].iov_len;
    }
    ASSERT(s->total > 0);
    r->stats.sends++;
}

void ring_shutdown(struct ring *r, uint32_t sock, uint32_t gen, bool both)
{
    struct sim_sock *s = sock_of(r, sock, gen);
    s->shut_write = true;
    if (both) s->shut_read = true;
}

void ring_close(struct ring *r, uint32_t sock, uint32_t gen)
{
    struct sim_sock *s = sock_of(r, sock, gen);
    ASSERT(!s->recv && !s->send);
    s->close = true;
}

/* ---- completions ---- */

/* Bytes of a possible count that happen now. */
static uint32_t cut(uint32_t count)
{
    if (count <= 1 || ring_sim_maybe(ring_sim_chances.whole)) return count;
    return 1 + (uint32_t)rng_below(&ring_sim_rng, ring_sim_maybe(256) ? u32_min(count, 4) : count);
}

static void recv_end(struct ring *r, uint32_t sock, int32_t n)
{
    struct sim_sock *s = &r->socks[sock];
    s->recv = s->recv_stop = false;
    r->conf.handler->on_recv(r->conf.ctx, sock, s->gen, NULL, n, false);
}

static bool recv_event(struct ring *r, uint32_t sock)
{
    struct sim_sock *s = &r->socks[sock];
    struct sim_peer *p = s->peer;
    if (p->broken) {
        recv_end(r, sock, -ECONNRESET);
    } else if (s->recv_stop && !ring_sim_maybe(256)) {
        recv_end(r, sock, -ECANCELED);
    } else if (p->to_server.count > 0 && ring_sim_maybe(ring_sim_chances.no_bufs)) {
        recv_end(r, sock, -ENOBUFS);
    } else if (s->shut_read && ring_sim_maybe(512)) {
        recv_end(r, sock, 0);
    } else if (p->to_server.count > 0) {
        uint32_t n = cut(u32_min(p->to_server.count, RING_BUF_BYTES));
        bool more = !ring_sim_maybe(ring_sim_chances.disarm);
        uint8_t *bytes = malloc(n);
        ASSERT(bytes != NULL);
        memcpy(bytes, sim_pipe_at(&p->to_server), n);
        sim_pipe_skip(&p->to_server, n);
        if (!more) s->recv = s->recv_stop = false;
        r->conf.handler->on_recv(r->conf.ctx, sock, s->gen, bytes, (int32_t)n, more);
        free(bytes);
    } else if (p->ended || s->shut_read) {
        recv_end(r, sock, 0);
    } else {
        return false;
    }
    r->stats.recvs++;
    return true;
}

static void send_end(struct ring *r, uint32_t sock, int32_t n)
{
    r->socks[sock].send = false;
    r->conf.handler->on_sent(r->conf.ctx, sock, r->socks[sock].gen, n);
}

/* Move `n` bytes of the vector, from where it stands, to the peer. */
static void send_move(struct sim_sock *s, uint32_t n)
{
    uint32_t skip = s->sent;
    s->sent += n;
    for (uint32_t i = 0; n > 0; i++) {
        uint32_t length = (uint32_t)s->iov[i].iov_len;
        if (skip >= length) {
            skip -= length;
            continue;
        }
        uint32_t part = u32_min(length - skip, n);
        sim_pipe_put(&s->peer->from_server, (uint8_t *)s->iov[i].iov_base + skip, part);
        n -= part;
        skip = 0;
    }
}

static bool send_event(struct ring *r, uint32_t sock)
{
    struct sim_sock *s = &r->socks[sock];
    struct sim_peer *p = s->peer;
    if (p->broken || s->shut_write) {
        send_end(r, sock, s->sent > 0 ? (int32_t)s->sent : -EPIPE);
        return true;
    }
    uint32_t room = p->window > p->from_server.count ? p->window - p->from_server.count : 0;
    uint32_t n = cut(u32_min(room, s->total - s->sent));
    if (n == 0) return false;
    send_move(s, n);
    if (s->sent == s->total || ring_sim_maybe(ring_sim_chances.short_send)) {
        send_end(r, sock, (int32_t)s->sent);
    }
    return true;
}

static void close_event(struct ring *r, uint32_t sock)
{
    struct sim_sock *s = &r->socks[sock];
    struct sim_peer *p = s->peer;
    uint32_t gen = s->gen;
    p->saw_end = p->closed = true;
    if (p->dropped) peer_free(p);
    *s = (struct sim_sock){0};
    r->used--;
    r->conf.handler->on_closed(r->conf.ctx, sock, gen);
}

static bool sock_event(struct ring *r, uint32_t sock)
{
    struct sim_sock *s = &r->socks[sock];
    if (s->peer == NULL || !ring_sim_maybe(ring_sim_chances.event)) return false;
    if (s->close) {
        close_event(r, sock);
        return true;
    }
    bool send_first = ring_sim_maybe(512), any = false;
    if (s->send && send_first) any = send_event(r, sock);
    /* A handler may have closed the socket; its slot is not handed out before we return. */
    if (s->peer != NULL && s->recv && !s->close && recv_event(r, sock)) any = true;
    if (s->send && !send_first && send_event(r, sock)) any = true;
    if (s->peer != NULL && s->shut_write && !s->send && !s->peer->saw_end) {
        s->peer->saw_end = true;
        any = true;
    }
    return any;
}

static bool accept_event(struct ring *r)
{
    struct sim_peer *p = r->backlog;
    uint32_t sock = 0;
    if (p == NULL || !ring_sim_maybe(ring_sim_chances.event)) return false;
    while (sock < r->slots_count && r->socks[sock].peer != NULL) sock++;
    if (sock == r->slots_count) return false;
    r->backlog = p->next;
    if (p->next == NULL) r->backlog_end = &r->backlog;
    p->next = NULL;
    p->sock = sock;
    p->accepted = true;
    r->socks[sock] = (struct sim_sock){.peer = p};
    r->used++;
    r->conf.handler->on_accept(r->conf.ctx, sock, p->tag, &p->addr);
    return true;
}

bool ring_turn(struct ring *r)
{
    bool any = false;
    uint32_t first = (uint32_t)rng_below(&ring_sim_rng, r->slots_count), seen = 0;
    for (uint32_t i = 0; i < r->slots_count && seen < r->used; i++) {
        uint32_t sock = (first + i) % r->slots_count;
        if (r->socks[sock].peer != NULL) seen++;
        if (sock_event(r, sock)) any = true;
        if (ring_sim_maybe(64) && accept_event(r)) any = true;
    }
    while (accept_event(r)) any = true;
    return any;
}

/* ---- sleeping and waking: the script takes the turns ---- */

bool ring_sleep_ready(struct ring *r)
{
    (void)r;
    return true;
}

void ring_sleep(struct ring *r, uint64_t timeout_ns) { (void)r, (void)timeout_ns; }
void ring_awake(struct ring *r) { (void)r; }
int ring_wake_fd(const struct ring *r)
{
    (void)r;
    return 0;
}

void ring_wake(struct ring *r, int wake_fd) { (void)r, (void)wake_fd; }
void ring_wake_by_event(struct ring *r) { (void)r; }

void ring_stats_read(const struct ring *r, struct ring_stats *out)
{
    *out = r->stats;
    out->socks = r->used;
    out->slots = r->slots_count;
}
