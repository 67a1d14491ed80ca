/* Goal    A ring set holds more sockets than one descriptor table, accepts exactly as many as it
 *         may, loses none that waits, survives listeners that fail, and sleeps without spinning and
 *         wakes without fail, whichever bank or thread has news.
 * Method  RLIMIT_NOFILE is lowered while the ring opens, so that a bank has 64 slots and a few
 *         hundred clients fill several. Wake-ups go between real threads that really sleep; a lost
 *         one shows as a sleep that lasts to its bound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/rng.h"
#include "ring_kit.h"

enum { SLOTS = 64 };

static void echo_one(struct kit *k, int fd, uint64_t position)
{
    uint8_t byte = kit_byte(position), back = 0;
    uint64_t sent = k->sent_count;
    assert_int_equal(write(fd, &byte, 1), 1);
    kit_until(k, &k->sent_count, sent + 1);
    assert_int_equal(recv(fd, &back, 1, 0), 1);
    assert_int_equal(back, byte);
}

static void banks_open_on_demand_and_accepting_stops_at_the_bound(void **state)
{
    enum { SOCKS = 200, BOUND = SOCKS + RING_SOCKS_SPARE, PEERS = BOUND + 40 };
    struct kit k;
    struct ring_stats stats;
    static int fds[PEERS];
    kit_open(&k, SOCKS, 32, SLOTS);
    k.echo = k.close_ended = true;
    for (uint32_t i = 0; i < PEERS; i++) fds[i] = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, BOUND);
    kit_settle(&k);
    ring_stats_read(k.ring, &stats);
    assert_int_equal(k.accepted, BOUND);
    assert_int_equal(stats.socks, BOUND);
    assert_int_equal(stats.banks, (BOUND + SLOTS - 1) / SLOTS);
    assert_int_equal(stats.slots, stats.banks * SLOTS);
    for (uint32_t i = 0; i < BOUND; i++) echo_one(&k, fds[i], 0);
    for (uint32_t i = 0; i < PEERS - BOUND; i++) {      /* one leaves, one that waits comes in */
        close(fds[i * 5]);
        kit_until(&k, &k.closed, i + 1);
        kit_until(&k, &k.accepted, BOUND + i + 1);
        echo_one(&k, fds[BOUND + i], 0);
    }
    kit_settle(&k);
    ring_stats_read(k.ring, &stats);
    assert_int_equal(stats.socks, BOUND);
    assert_int_equal(stats.accept_errors, 0);
    for (uint32_t i = 0; i < PEERS; i++) {
        if (i % 5 != 0 || i / 5 >= PEERS - BOUND) close(fds[i]);
    }
    kit_until(&k, &k.closed, PEERS);
    kit_close(&k);
}

static void a_second_listener_gets_its_share_when_all_accepts_are_armed(void **state)
{
    struct kit k;
    uint16_t port;
    kit_open(&k, 100, 1, 0);
    kit_settle(&k);                              /* every accept now waits at the first one */
    int other = kit_listener(&port);
    ring_listen(k.ring, other, 9);
    for (uint32_t i = 0; i < 6; i++) {
        int fd = kit_client(i % 2 == 0 ? port : k.port, 0);
        kit_until(&k, &k.accepted, i + 1);
        assert_int_equal(k.socks[k.last].tag, i % 2 == 0 ? 9 : KIT_TAG);
        close(fd);
    }
    close(other);
    kit_close(&k);
}

static void nothing_is_accepted_after_listen_stop(void **state)
{
    struct kit k;
    kit_open(&k, 100, 8, 0);
    int first = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, 1);
    ring_listen_stop(k.ring);
    kit_settle(&k);
    int second = kit_client(k.port, 0);          /* the listener's queue still takes it */
    kit_settle(&k);
    assert_int_equal(k.accepted, 1);
    close(first);
    close(second);
    kit_close(&k);
}

static void a_failing_listener_does_not_spin(void **state)
{
    enum { MS = 350, ACCEPTS = 4 };
    struct kit k;
    struct ring_stats stats;
    int deaf = socket(AF_INET, SOCK_STREAM, 0);  /* not listening: accept answers EINVAL */
    uint64_t turns = 0;
    kit_open(&k, 100, ACCEPTS, 0);
    ring_listen(k.ring, deaf, 9);
    uint64_t end_ns = clock_mono_ns() + MS * 1000000ull;
    while (clock_mono_ns() < end_ns) {
        kit_step(&k, end_ns - u64_min(clock_mono_ns(), end_ns - 1));
        turns++;
    }
    ring_stats_read(k.ring, &stats);
    assert_in_range(stats.accept_errors, 2, MS / 100 + 1);
    assert_true(turns < 100);
    int fd = kit_client(k.port, 0);              /* the sound listener works on */
    kit_until(&k, &k.accepted, 1);
    close(fd);
    close(deaf);
    kit_close(&k);
}

static void a_mass_disconnect_is_processed_whole_in_bounded_turns(void **state)
{
    enum { PEERS = 4000, BANK = 1500 };
    struct kit k;
    static int fds[PEERS];
    kit_open(&k, 5000, 64, BANK);
    k.close_ended = true;
    for (uint32_t i = 0; i < PEERS; i++) fds[i] = kit_client(k.port, (uint16_t)(i % 4 + 2));
    kit_until(&k, &k.accepted, PEERS);
    kit_settle(&k);
    k.turn_events_max = 0;
    for (uint32_t i = 0; i < PEERS; i++) close(fds[i]);
    kit_until(&k, &k.closed, PEERS);
    assert_true(k.turn_events_max > 100);        /* they did come together */
    assert_true(k.turn_events_max < RING_TURN_EVENTS_MAX + 512);
    kit_close(&k);
}

static void a_sleep_ends_at_its_time_limit_and_idle_costs_one_enter(void **state)
{
    enum { SLEEPS = 100, MS = 2 };
    struct kit k;
    struct ring_stats before, after;
    kit_open(&k, 200, 32, SLOTS);
    int fds[150];
    for (uint32_t i = 0; i < 150; i++) fds[i] = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, 150);             /* several banks */
    kit_settle(&k);
    ring_stats_read(k.ring, &before);
    uint64_t cpu_ns = clock_cpu_ns(), start_ns = clock_mono_ns();
    for (uint32_t i = 0; i < SLEEPS; i++) {
        uint64_t at_ns = clock_mono_ns();
        assert_false(ring_turn(k.ring));
        assert_false(ring_sleep_ready(k.ring));
        ring_sleep(k.ring, MS * 1000000ull);
        ring_awake(k.ring);
        assert_true(clock_mono_ns() - at_ns >= MS * 1000000ull);
    }
    assert_true(clock_mono_ns() - start_ns < SLEEPS * MS * 1000000ull * 20);
    assert_true(clock_cpu_ns() - cpu_ns < SLEEPS * MS * 1000000ull / 4);
    ring_stats_read(k.ring, &after);
    assert_int_equal(after.wakes - before.wakes, SLEEPS);
    assert_in_range(after.enters - before.enters, SLEEPS, SLEEPS + 10);
    for (uint32_t i = 0; i < 150; i++) close(fds[i]);
    kit_close(&k);
}

/* ---- waking ---- */

struct peers { int *fds; uint32_t count, rounds; uint64_t lost; };

/* One byte to a random connection and back, again and again, from another thread. */
static void *ask_at_random(void *arg)
{
    struct peers *p = arg;
    uint64_t *positions = calloc(p->count, sizeof(*positions));
    struct timeval limit = {.tv_sec = 3};
    struct rng rng;
    rng_seed(&rng, 5);
    for (uint32_t i = 0; i < p->count; i++) {
        setsockopt(p->fds[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    }
    for (uint32_t i = 0; i < p->rounds && p->lost == 0; i++) {
        uint32_t n = (uint32_t)rng_below(&rng, p->count);
        uint8_t byte = kit_byte(positions[n]++), back = 0;
        if (write(p->fds[n], &byte, 1) != 1 || recv(p->fds[n], &back, 1, 0) != 1 || back != byte) {
            p->lost++;
        }
    }
    free(positions);
    return NULL;
}

static void news_in_any_bank_wakes_the_sleeper(void **state)
{
    enum { PEERS = 230 };
    struct kit k;
    int fds[PEERS];
    struct peers peers = {fds, PEERS, 15000, 0};
    pthread_t thread;
    kit_open(&k, 200, 16, SLOTS);
    k.echo = true;
    for (uint32_t i = 0; i < PEERS; i++) fds[i] = kit_client(k.port, 0);
    kit_until(&k, &k.accepted, PEERS);
    assert_int_equal(pthread_create(&thread, NULL, ask_at_random, &peers), 0);
    uint64_t end_ns = clock_mono_ns() + KIT_WAIT_NS;
    while (k.sent_count < peers.rounds && clock_mono_ns() < end_ns) kit_step(&k, 5000000000ull);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(peers.lost, 0);
    assert_int_equal(k.sent_count, peers.rounds);
    for (uint32_t i = 0; i < PEERS; i++) close(fds[i]);
    kit_close(&k);
}

/* Two rings hand a token to and fro: `turn_of` says whose it is. The one that hands it over wakes
 * the other, which may be at any point of going to sleep. */
struct court { struct ring *rings[2]; uint32_t turn_of, rounds, late, open; bool by_event; };

static const struct ring_handler no_handler;

static void hand_over(struct court *c, uint32_t me)
{
    __atomic_store_n(&c->turn_of, !me, __ATOMIC_SEQ_CST);
    if (c->by_event) ring_wake_by_event(c->rings[!me]);
    else ring_wake(c->rings[me], ring_wake_fd(c->rings[!me]));
}

static void play(struct court *c, uint32_t me)
{
    struct ring_conf conf = {.socks_max = 10, .accepts_max = 2, .handler = &no_handler};
    char error[256];
    if (ring_open(&c->rings[me], &conf, error, sizeof(error)) != OK) {
        __atomic_add_fetch(&c->late, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_add_fetch(&c->open, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&c->open, __ATOMIC_SEQ_CST) < 2) {}
    for (uint32_t i = 0; i < c->rounds && __atomic_load_n(&c->late, __ATOMIC_SEQ_CST) == 0;) {
        bool more = ring_turn(c->rings[me]);
        if (__atomic_load_n(&c->turn_of, __ATOMIC_SEQ_CST) == me) {
            hand_over(c, me);
            i++;
        } else if (!more) {
            uint64_t start_ns = clock_mono_ns();
            if (!ring_sleep_ready(c->rings[me])) ring_sleep(c->rings[me], 3000000000ull);
            ring_awake(c->rings[me]);
            if (clock_mono_ns() - start_ns > 2900000000ull) {
                __atomic_add_fetch(&c->late, 1, __ATOMIC_SEQ_CST);
            }
        }
    }
    ring_turn(c->rings[me]);                     /* the last wake-up leaves */
    __atomic_add_fetch(&c->open, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&c->open, __ATOMIC_SEQ_CST) < 4) {}
    ring_close_all(&c->rings[me]);
}

static void *play_second(void *court)
{
    play(court, 1);
    return NULL;
}

static void wake_ups_are_never_lost(bool by_event)
{
    struct court c = {.rounds = 10000, .by_event = by_event};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, play_second, &c), 0);
    play(&c, 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(c.late, 0);
}

static void a_ring_is_woken_by_another(void **state) { wake_ups_are_never_lost(false); }

static void a_ring_is_woken_by_its_event(void **state) { wake_ups_are_never_lost(true); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(banks_open_on_demand_and_accepting_stops_at_the_bound),
        cmocka_unit_test(a_second_listener_gets_its_share_when_all_accepts_are_armed),
        cmocka_unit_test(nothing_is_accepted_after_listen_stop),
        cmocka_unit_test(a_failing_listener_does_not_spin),
        cmocka_unit_test(a_mass_disconnect_is_processed_whole_in_bounded_turns),
        cmocka_unit_test(a_sleep_ends_at_its_time_limit_and_idle_costs_one_enter),
        cmocka_unit_test(news_in_any_bank_wakes_the_sleeper),
        cmocka_unit_test(a_ring_is_woken_by_another),
        cmocka_unit_test(a_ring_is_woken_by_its_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
