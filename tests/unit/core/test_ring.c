/* Goal    Sockets on a real io_uring behave as ring.h says: every accept keeps its own peer's
 *         address, streams arrive whole and in order whatever runs out, sends complete whole,
 *         closing frees the slot for a new generation and never touches a stranger.
 * Method  A small server (ring_kit) and blocking or non-blocking clients of the same thread.
 *         Streams have known bytes, so counting proves order. Every wait is bounded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/rng.h"
#include "ring_kit.h"

static void accepts_keep_each_peers_own_address(void **state)
{
    enum { PEERS = 300 };
    struct kit k;
    int fds[PEERS];
    uint8_t bytes[PEERS];
    uint32_t seen = 0;
    kit_open(&k, 1000, 64, 0);
    kit_fill(bytes, 0, PEERS);
    for (uint32_t i = 0; i < PEERS; i++) {       /* peer i sends i + 1 bytes from its own address */
        fds[i] = kit_client(k.port, (uint16_t)((i / 200 + 3) << 8 | (i % 200 + 1)));
        assert_int_equal(write(fds[i], bytes, i + 1), i + 1);
    }
    kit_until(&k, &k.accepted, PEERS);
    kit_settle(&k);
    for (uint32_t sock = 0; sock < KIT_SOCKS; sock++) {
        struct kit_sock *s = &k.socks[sock];
        static const uint8_t mapped[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};
        if (!s->open) continue;
        seen++;
        assert_memory_equal(s->peer.ip, mapped, sizeof(mapped));
        assert_int_equal(s->peer.ip[13], 0);
        assert_int_equal(s->received, (s->peer.ip[14] - 3) * 200 + s->peer.ip[15]);
        assert_int_equal(s->tag, KIT_TAG);
    }
    assert_int_equal(seen, PEERS);
    for (uint32_t i = 0; i < PEERS; i++) close(fds[i]);
    kit_close(&k);
}

static void ipv6_peers_keep_their_address(void **state)
{
    struct kit k;
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t bytes = sizeof(a);
    int six = socket(AF_INET6, SOCK_STREAM, 0);
    if (six < 0 || bind(six, (struct sockaddr *)&a, bytes) != 0) skip();   /* a host without it */
    assert_int_equal(listen(six, 8), 0);
    assert_int_equal(getsockname(six, (struct sockaddr *)&a, &bytes), 0);
    kit_open(&k, 100, 4, 0);
    ring_listen(k.ring, six, 66);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    kit_until(&k, &k.accepted, 1);
    assert_int_equal(k.socks[k.last].tag, 66);
    assert_memory_equal(k.socks[k.last].peer.ip, &in6addr_loopback, 16);
    close(fd);
    close(six);
    kit_close(&k);
}

/* What the socket takes now, up to position `total` of the stream. */
static void write_some(int fd, const uint8_t *stream, uint64_t *position, uint64_t total)
{
    while (*position < total) {
        ssize_t n = send(fd, stream + *position, total - *position, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return;
        assert_true(n > 0);
        *position += (uint64_t)n;
    }
}

static void streams_survive_buffer_exhaustion(void **state)
{
    enum { PEERS = 24, TOTAL = 2000003 };
    struct kit k;
    struct ring_stats stats;
    int fds[PEERS];
    uint64_t written[PEERS] = {0}, end_ns = clock_mono_ns() + KIT_WAIT_NS, whole = 0;
    uint8_t *stream = malloc(TOTAL);
    kit_fill(stream, 0, TOTAL);
    kit_open(&k, 100, 16, 0);
    for (uint32_t i = 0; i < PEERS; i++) fds[i] = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, PEERS);
    while (whole < PEERS) {
        for (uint32_t i = 0; i < PEERS; i++) write_some(fds[i], stream, &written[i], TOTAL);
        kit_step(&k, 1000000);
        whole = 0;
        for (uint32_t s = 0; s < KIT_SOCKS; s++) whole += k.socks[s].received == TOTAL;
        assert_true(clock_mono_ns() < end_ns);
    }
    ring_stats_read(k.ring, &stats);
    assert_true(stats.recv_bufs_exhausted > 10);
    for (uint32_t i = 0; i < PEERS; i++) close(fds[i]);
    free(stream);
    kit_close(&k);
}

static void a_stopped_receive_resumes_without_loss(void **state)
{
    enum { TOTAL = 6000001 };
    struct kit k;
    struct rng rng;
    uint64_t written = 0, end_ns = clock_mono_ns() + KIT_WAIT_NS, steps = 0;
    uint8_t *stream = malloc(TOTAL);
    rng_seed(&rng, 11);
    kit_fill(stream, 0, TOTAL);
    kit_open(&k, 100, 4, 0);
    int fd = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, 1);
    uint32_t sock = k.last;
    struct kit_sock *s = &k.socks[sock];
    while (s->received < TOTAL) {
        write_some(fd, stream, &written, u64_min(TOTAL, s->received + 300000));
        if (s->receiving && !s->stopping && rng_below(&rng, 2) == 0) {
            s->stopping = true;
            ring_recv_stop(k.ring, sock, s->gen);
        }
        kit_step(&k, 1000000);
        if (!s->receiving && ++steps % 3 == 0) {
            s->receiving = true;
            ring_recv(k.ring, sock, s->gen);
        }
        assert_true(clock_mono_ns() < end_ns);
    }
    assert_true(k.stops > 5);
    close(fd);
    free(stream);
    kit_close(&k);
}

static void send_pieces(struct kit *k, uint32_t sock, const uint8_t *stream, uint32_t pieces,
                        uint32_t piece_bytes)
{
    struct iovec v[RING_SEND_IOV_MAX];
    for (uint32_t i = 0; i < pieces; i++) {
        v[i] = (struct iovec){(void *)(uintptr_t)(stream + (size_t)i * piece_bytes), piece_bytes};
    }
    k->socks[sock].sending = true;
    ring_send(k->ring, sock, k->socks[sock].gen, v, pieces);
}

/* Reads the whole stream in small pieces, letting the server step between them. */
static void read_slowly(struct kit *k, int fd, uint64_t total)
{
    uint64_t got = 0, end_ns = clock_mono_ns() + KIT_WAIT_NS;
    uint8_t part[30000];
    while (got < total) {
        ssize_t n = recv(fd, part, sizeof(part), MSG_DONTWAIT);
        if (n > 0) {
            for (ssize_t i = 0; i < n; i++) assert_int_equal(part[i], kit_byte(got + (uint64_t)i));
            got += (uint64_t)n;
        } else {
            assert_true(n < 0 && errno == EAGAIN);
        }
        kit_step(k, n > 0 ? 0 : 1000000);
        assert_true(clock_mono_ns() < end_ns);
    }
}

static void big_vectored_sends_complete_whole_for_slow_readers(void **state)
{
    enum { PIECE = 70001, TOTAL = PIECE * RING_SEND_IOV_MAX };
    struct kit k;
    uint8_t *stream = malloc(TOTAL);
    kit_fill(stream, 0, TOTAL);
    kit_open(&k, 100, 4, 0);
    int fd = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, 1);
    send_pieces(&k, k.last, stream, RING_SEND_IOV_MAX, PIECE);
    read_slowly(&k, fd, TOTAL);
    kit_until(&k, &k.sent_count, 1);
    assert_int_equal(k.socks[k.last].sent, TOTAL);
    close(fd);
    free(stream);
    kit_close(&k);
}

static void a_half_shutdown_lets_the_peer_read_everything(void **state)
{
    enum { PIECE = 200000 };
    struct kit k;
    uint8_t *stream = malloc(PIECE);
    int small = 32768;
    kit_fill(stream, 0, PIECE);
    kit_open(&k, 100, 4, 0);
    k.close_ended = true;
    int fd = kit_client(k.port, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    kit_until(&k, &k.accepted, 1);
    send_pieces(&k, k.last, stream, 1, PIECE);   /* fits the socket: the rest waits in the kernel */
    kit_until(&k, &k.sent_count, 1);
    ring_shutdown(k.ring, k.last, k.socks[k.last].gen, false);
    kit_settle(&k);
    assert_true(k.socks[k.last].receiving);      /* the other direction goes on */
    read_slowly(&k, fd, PIECE);
    assert_true(kit_client_ended(fd));
    close(fd);
    kit_until(&k, &k.closed, 1);
    free(stream);
    kit_close(&k);
}

static void a_closed_slot_is_used_again_with_a_new_generation(void **state)
{
    struct kit k;
    kit_open(&k, 100, 4, 0);
    k.close_ended = true;
    for (uint32_t round = 1; round <= 50; round++) {
        int fd = kit_client(k.port, 0);
        kit_until(&k, &k.accepted, round);
        assert_int_equal(k.last, 0);             /* lowest free slot, every time */
        assert_int_equal(k.socks[0].gen, round);
        ring_shutdown(k.ring, 0, round, true);
        kit_until(&k, &k.closed, round);
        assert_true(kit_client_ended(fd));
        close(fd);
    }
    struct ring_stats stats;
    ring_stats_read(k.ring, &stats);
    assert_int_equal(stats.socks, 0);
    kit_close(&k);
}

/* The kernel runs shutdowns later than what was queued after them. With every slot taken and a peer
 * waiting, the slot of a closed socket goes to that peer at once: it must not be the one shut. */
static void a_shutdown_never_hits_the_next_owner_of_the_slot(void **state)
{
    enum { ROUNDS = 200 };
    struct kit k;
    int fds[RING_SOCKS_SPARE + ROUNDS];
    uint8_t byte = kit_byte(0), back;
    kit_open(&k, 0, 64, 0);
    k.echo = true;
    for (uint32_t i = 0; i < RING_SOCKS_SPARE; i++) fds[i] = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, RING_SOCKS_SPARE);
    kit_settle(&k);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t sock = k.last;
        uint64_t ended = 0, sent = k.sent_count;
        fds[RING_SOCKS_SPARE + i] = kit_client(k.port, 0);           /* waits */
        assert_int_equal(shutdown(fds[RING_SOCKS_SPARE + i - 1], SHUT_WR), 0);
        for (uint32_t n = 0; n < 10000 && ended == 0; n++) {
            kit_step(&k, 10000000);
            ended = k.socks[sock].ended;
        }
        assert_int_equal(ended, 1);
        ring_shutdown(k.ring, sock, k.socks[sock].gen, true);
        ring_close(k.ring, sock, k.socks[sock].gen);
        kit_until(&k, &k.accepted, RING_SOCKS_SPARE + 1 + i);
        assert_int_equal(k.last, sock);
        assert_int_equal(write(fds[RING_SOCKS_SPARE + i], &byte, 1), 1);
        kit_until(&k, &k.sent_count, sent + 1);
        assert_int_equal(recv(fds[RING_SOCKS_SPARE + i], &back, 1, MSG_DONTWAIT), 1);
        assert_false(k.socks[sock].ended);
    }
    for (uint32_t i = 0; i < RING_SOCKS_SPARE + ROUNDS; i++) close(fds[i]);
    kit_close(&k);
}

static void more_sends_than_the_queue_holds_in_one_turn(void **state)
{
    enum { PEERS = 2500, PIECES = 3, PIECE = 5 };
    static_assert(PEERS > 2 * RING_SQ, "the queue overflows twice");
    struct kit k;
    static int fds[PEERS];
    static uint8_t stream[PIECES * PIECE];
    uint8_t got[PIECES * PIECE + 1];
    kit_fill(stream, 0, sizeof(stream));
    kit_open(&k, 4000, 64, 0);
    for (uint32_t i = 0; i < PEERS; i++) fds[i] = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, PEERS);
    for (uint32_t sock = 0; sock < PEERS; sock++) {
        assert_true(k.socks[sock].open);
        send_pieces(&k, sock, stream, PIECES, PIECE);
    }
    kit_until(&k, &k.sent_count, PEERS);
    for (uint32_t i = 0; i < PEERS; i++) {
        assert_int_equal(k.socks[i].sent, sizeof(stream));
        assert_int_equal(recv(fds[i], got, sizeof(got), MSG_DONTWAIT), sizeof(stream));
        assert_memory_equal(got, stream, sizeof(stream));
        close(fds[i]);
    }
    kit_close(&k);
}

static void closing_the_ring_ends_every_connection(void **state)
{
    struct kit k;
    int fds[20];
    kit_open(&k, 100, 4, 0);
    for (uint32_t i = 0; i < 20; i++) fds[i] = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, 20);
    kit_close(&k);
    for (uint32_t i = 0; i < 20; i++) {
        assert_true(kit_client_ended(fds[i]));
        close(fds[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_keep_each_peers_own_address),
        cmocka_unit_test(ipv6_peers_keep_their_address),
        cmocka_unit_test(streams_survive_buffer_exhaustion),
        cmocka_unit_test(a_stopped_receive_resumes_without_loss),
        cmocka_unit_test(big_vectored_sends_complete_whole_for_slow_readers),
        cmocka_unit_test(a_half_shutdown_lets_the_peer_read_everything),
        cmocka_unit_test(a_closed_slot_is_used_again_with_a_new_generation),
        cmocka_unit_test(a_shutdown_never_hits_the_next_owner_of_the_slot),
        cmocka_unit_test(more_sends_than_the_queue_holds_in_one_turn),
        cmocka_unit_test(closing_the_ring_ends_every_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
