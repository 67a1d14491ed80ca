#include "ring_kit.h"

#include <setjmp.h>
#include <stdarg.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"

enum { ECHO_BYTES = 65536 };
static uint8_t echo_bytes[ECHO_BYTES];

uint8_t kit_byte(uint64_t position)
{
    return (uint8_t)(position * 31 + (position >> 8) * 7 + (position >> 16));
}

void kit_fill(uint8_t *at, uint64_t position, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) at[i] = kit_byte(position + i);
}

static void on_accept(void *ctx, uint32_t sock, uint32_t tag, const struct ring_addr *peer)
{
    struct kit *k = ctx;
    struct kit_sock *s = &k->socks[sock];
    k->events++;
    if (sock >= KIT_SOCKS || s->open) {
        k->wrong++;
        return;
    }
    *s = (struct kit_sock){.gen = s->gen + 1, .tag = tag, .open = true, .receiving = true,
                           .peer = *peer};
    k->accepted++;
    k->last = sock;
    ring_recv(k->ring, sock, s->gen);
}

static void take(struct kit *k, uint32_t sock, const uint8_t *bytes, int32_t n)
{
    struct kit_sock *s = &k->socks[sock];
    for (int32_t i = 0; i < n; i++) k->wrong += bytes[i] != kit_byte(s->received + (uint64_t)i);
    s->received += (uint64_t)n;
    if (!k->echo) return;
    struct iovec v = {echo_bytes, (size_t)n};
    kit_fill(echo_bytes, s->received - (uint64_t)n, (uint64_t)n);
    s->sending = true;
    ring_send(k->ring, sock, s->gen, &v, 1);
}

static void on_recv(void *ctx, uint32_t sock, uint32_t gen, uint8_t *bytes, int32_t n, bool more)
{
    struct kit *k = ctx;
    struct kit_sock *s = &k->socks[sock];
    k->events++;
    if (!s->open || !s->receiving || gen != s->gen || (n > 0) != (bytes != NULL)) k->wrong++;
    if (n > 0) take(k, sock, bytes, n);
    if (more) return;
    s->receiving = false;
    if (s->stopping && (n > 0 || n == -ECANCELED || n == -ENOBUFS)) {
        s->stopping = false;
        k->stops++;
    } else if (n > 0 || n == -ENOBUFS) {
        s->receiving = true;
        ring_recv(k->ring, sock, gen);
    } else {
        s->ended = true;
        if (k->close_ended && !s->sending) ring_close(k->ring, sock, gen);
    }
}

static void on_sent(void *ctx, uint32_t sock, uint32_t gen, int32_t n)
{
    struct kit *k = ctx;
    struct kit_sock *s = &k->socks[sock];
    k->events++;
    if (!s->open || !s->sending || gen != s->gen) k->wrong++;
    s->sending = false;
    s->sent = n;
    k->sent_count++;
    if (s->ended && k->close_ended) ring_close(k->ring, sock, gen);
}

static void on_closed(void *ctx, uint32_t sock, uint32_t gen)
{
    struct kit *k = ctx;
    struct kit_sock *s = &k->socks[sock];
    k->events++;
    if (!s->open || s->receiving || s->sending || gen != s->gen) k->wrong++;
    s->open = false;
    k->closed++;
}

int kit_listener(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t bytes = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, bytes), 0);
    assert_int_equal(listen(fd, 4096), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &bytes), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

int kit_client(uint16_t port, uint16_t from)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
    if (from != 0) {
        a.sin_addr.s_addr = htonl(0x7f000000u | from);
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    }
    a.sin_port = htons(port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

bool kit_client_ended(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint8_t byte;
    return poll(&p, 1, (int)(KIT_WAIT_NS / 1000000)) == 1 && recv(fd, &byte, 1, 0) <= 0;
}

void kit_open(struct kit *k, uint32_t socks_max, uint32_t accepts_max, uint32_t bank_slots)
{
    static const struct ring_handler handler = {on_accept, on_recv, on_sent, on_closed};
    struct ring_conf conf = {socks_max, accepts_max, &handler, k};
    struct rlimit usual, low;
    char error[256] = "";
    memset(k, 0, sizeof(*k));
    k->socks = calloc(KIT_SOCKS, sizeof(*k->socks));
    assert_non_null(k->socks);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    low = usual;
    low.rlim_cur = bank_slots == 0 ? usual.rlim_cur : bank_slots;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    err_t e = ring_open(&k->ring, &conf, error, sizeof(error));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
    assert_string_equal(error, "");
    assert_int_equal(e, OK);
    k->listen_fd = kit_listener(&k->port);
    ring_listen(k->ring, k->listen_fd, KIT_TAG);
}

void kit_close(struct kit *k)
{
    assert_int_equal(k->wrong, 0);
    ring_close_all(&k->ring);
    assert_null(k->ring);
    close(k->listen_fd);
    free(k->socks);
}

void kit_step(struct kit *k, uint64_t sleep_ns)
{
    uint64_t before = k->events;
    bool more = ring_turn(k->ring);
    if (k->events - before > k->turn_events_max) k->turn_events_max = k->events - before;
    if (more || k->events != before) return;      /* the caller looks at what happened first */
    if (!ring_sleep_ready(k->ring) && sleep_ns > 0) ring_sleep(k->ring, sleep_ns);
    ring_awake(k->ring);
}

void kit_until(struct kit *k, const uint64_t *counter, uint64_t target)
{
    uint64_t end_ns = clock_mono_ns() + KIT_WAIT_NS;
    while (*counter < target) {
        kit_step(k, KIT_WAIT_NS / 10);
        assert_int_equal(k->wrong, 0);
        assert_true(clock_mono_ns() < end_ns);
    }
}

void kit_settle(struct kit *k)
{
    for (uint32_t quiet = 0; quiet < 5; quiet++) {
        uint64_t before = k->events;
        kit_step(k, 2000000);
        if (k->events != before) quiet = 0;
    }
    assert_int_equal(k->wrong, 0);
}
