/* Goal    Timers fire neither early nor late nor twice, whatever jumps time makes and whatever the
 *         callbacks do, and time jumps cost by timers, not by milliseconds.
 * Method  Edge cases by hand, then random arms, disarms and time steps against a plain array of due
 *         times; the wheel's own validation runs along. A failure prints the seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include "core/rng.h"
#include "core/timer.h"

enum { TIMERS = 400, ALL = 1 << 30 };
static_assert(sizeof(struct timer) == 32, "the header promises 32 bytes");

/* The model: due[i] is UINT64_MAX while timer i is not armed. */
struct bed {
    struct timer_wheel wheel;
    struct timer       timers[TIMERS];
    uint64_t           due[TIMERS];
    uint64_t           now_ms;
    uint32_t           fired;
    struct rng         rng;
    bool               callbacks_act;
};

static void bed_open(struct bed *b, uint64_t now_ms, uint64_t seed)
{
    memset(b, 0, sizeof *b);
    timer_wheel_open(&b->wheel, now_ms);
    for (uint32_t i = 0; i < TIMERS; i++) {
        b->due[i] = UINT64_MAX;
        b->timers[i].kind = i;
    }
    b->now_ms = now_ms;
    rng_seed(&b->rng, seed);
}

static void bed_arm(struct bed *b, uint32_t i, uint64_t due_ms)
{
    timer_arm(&b->wheel, &b->timers[i], due_ms);
    b->due[i] = due_ms;
}

static void bed_disarm(struct bed *b, uint32_t i)
{
    timer_disarm(&b->wheel, &b->timers[i]);
    b->due[i] = UINT64_MAX;
}

/* Near, around slot borders, and far; sometimes in the past. */
static uint64_t any_due(struct bed *b)
{
    uint64_t delta = rng_below(&b->rng, 1ull << rng_below(&b->rng, 30));

    switch (rng_below(&b->rng, 8)) {
    case 0: return b->now_ms - u64_min(b->now_ms, delta);
    case 1: return b->now_ms + (1ull << rng_below(&b->rng, 30)) - rng_below(&b->rng, 2);
    case 2: return (b->now_ms | 63) + rng_below(&b->rng, 3);
    case 3: return b->now_ms + TIMER_SPAN_MS - rng_below(&b->rng, 3);
    }
    return b->now_ms + delta;
}

/* The wheel's own time lags behind while it works through a backlog: the span counts from there. */
static uint64_t random_due(struct bed *b)
{
    return u64_min(any_due(b), b->wheel.now_ms + TIMER_SPAN_MS);
}

static void act(struct bed *b)
{
    uint32_t i = (uint32_t)rng_below(&b->rng, TIMERS);

    if (rng_below(&b->rng, 3) == 0) bed_disarm(b, i);
    else bed_arm(b, i, random_due(b));
}

static void on_fire(void *ctx, struct timer *t)
{
    struct bed *b = ctx;

    assert_ptr_equal(t, &b->timers[t->kind]);
    assert_false(timer_armed(t));
    assert_true(b->due[t->kind] <= b->now_ms);   /* armed by the model, and not early */
    b->due[t->kind] = UINT64_MAX;
    b->fired++;
    if (b->callbacks_act && rng_below(&b->rng, 2) == 0) act(b);
    if (b->callbacks_act && rng_below(&b->rng, 4) == 0) bed_arm(b, t->kind, random_due(b));
}

static uint32_t bed_run(struct bed *b, uint64_t now_ms, uint32_t fire_max)
{
    b->now_ms = now_ms;
    b->fired = 0;
    uint32_t fired = timer_run(&b->wheel, now_ms, fire_max, on_fire, b);
    assert_int_equal(fired, b->fired);
    assert_true(fired <= fire_max);
    return fired;
}

static uint64_t bed_next(const struct bed *b)
{
    uint64_t next = UINT64_MAX;

    for (uint32_t i = 0; i < TIMERS; i++) next = u64_min(next, b->due[i]);
    return next;
}

static void bed_check(const struct bed *b)
{
    uint64_t armed = 0;

    for (uint32_t i = 0; i < TIMERS; i++) {
        assert_int_equal(timer_armed(&b->timers[i]), b->due[i] != UINT64_MAX);
        armed += b->due[i] != UINT64_MAX;
    }
    assert_int_equal(b->wheel.armed_count, armed);
    timer_validate(&b->wheel);
}

static void timer_never_fires_early(void **state)
{
    static struct bed b;

    for (uint32_t delta = 1; delta < 300000; delta += 1 + delta / 7) {
        bed_open(&b, 1000003, 1);
        bed_arm(&b, 0, 1000003 + delta);
        assert_int_equal(bed_run(&b, 1000003, ALL), 0);
        assert_int_equal(bed_run(&b, 1000003 + delta / 2, ALL), 0);
        assert_int_equal(bed_run(&b, 1000003 + delta - 1, ALL), 0);
        assert_int_equal(bed_run(&b, 1000003 + delta, ALL), 1);
        assert_int_equal(bed_run(&b, 1000003 + 2 * delta, ALL), 0);
    }
}

static void timer_due_now_or_before_fires_in_the_next_run(void **state)
{
    static struct bed b;

    bed_open(&b, 5000, 1);
    bed_arm(&b, 0, 5000);
    bed_arm(&b, 1, 4999);
    bed_arm(&b, 2, 0);
    assert_int_equal(timer_next_ms(&b.wheel), 5000);
    assert_int_equal(bed_run(&b, 5000, ALL), 3);
    assert_int_equal(timer_next_ms(&b.wheel), UINT64_MAX);
}

static void timer_beyond_the_span_is_clamped_to_it(void **state)
{
    /* From every place in the top level's turn, that turn's border included. */
    for (uint64_t now_ms = 3; now_ms < 3ull << 30; now_ms += (1 << 24) - 1) {
        static struct bed b;
        bed_open(&b, now_ms, 1);
        timer_arm(&b.wheel, &b.timers[0], UINT64_MAX);
        timer_arm(&b.wheel, &b.timers[1], now_ms + TIMER_SPAN_MS + 1);
        timer_validate(&b.wheel);
        b.due[0] = b.due[1] = now_ms + TIMER_SPAN_MS;
        assert_int_equal(bed_run(&b, now_ms + TIMER_SPAN_MS - 1, ALL), 0);
        assert_int_equal(bed_run(&b, now_ms + TIMER_SPAN_MS, ALL), 2);
    }
}

static void timer_rearm_moves_and_disarm_forgets(void **state)
{
    static struct bed b;

    bed_open(&b, 0, 1);
    bed_arm(&b, 0, 10);
    bed_arm(&b, 0, 100000);
    bed_arm(&b, 0, 100001);          /* same slot: only the due time changes */
    bed_arm(&b, 1, 20);
    bed_disarm(&b, 1);
    bed_disarm(&b, 1);
    bed_check(&b);
    assert_int_equal(bed_run(&b, 100000, ALL), 0);
    assert_int_equal(bed_run(&b, 100001, ALL), 1);
}

static void timer_fire_max_loses_nothing(void **state)
{
    static struct bed b;

    bed_open(&b, 777, 1);
    for (uint32_t i = 0; i < TIMERS; i++) bed_arm(&b, i, 777 + i * 37 % 9000);
    uint32_t left = TIMERS;
    assert_int_equal(bed_run(&b, 20000, 0), 0);
    while (left > 0) {
        uint32_t fired = bed_run(&b, 20000, 7);
        assert_int_equal(fired, u32_min(left, 7));
        left -= fired;
        bed_check(&b);
    }
    assert_int_equal(bed_run(&b, 20000, 7), 0);
}

static void timer_clock_that_goes_back_is_no_time(void **state)
{
    static struct bed b;

    bed_open(&b, 10000, 1);
    bed_arm(&b, 0, 10050);
    assert_int_equal(bed_run(&b, 10049, ALL), 0);
    assert_int_equal(bed_run(&b, 9000, ALL), 0);
    assert_int_equal(bed_run(&b, 0, ALL), 0);
    assert_int_equal(b.wheel.now_ms, 10049);
    assert_int_equal(bed_run(&b, 10050, ALL), 1);

    /* While a backlog waits, the wheel's time lags; going back still fires nothing early. */
    for (uint32_t i = 0; i < 10; i++) bed_arm(&b, i, 10100 + i);
    assert_int_equal(bed_run(&b, 10200, 3), 3);
    assert_int_equal(bed_run(&b, 10105, ALL), 3);
    assert_int_equal(bed_run(&b, 10200, ALL), 4);
}

static void disarm_neighbours(void *ctx, struct timer *t)
{
    struct bed *b = ctx;

    b->fired++;
    b->due[t->kind] = UINT64_MAX;
    for (uint32_t i = 0; i < TIMERS; i++) {
        if (i / 4 == t->kind / 4) bed_disarm(b, i);
    }
}

static void timer_callback_may_disarm_the_rest_of_its_slot(void **state)
{
    static struct bed b;

    bed_open(&b, 100, 1);
    for (uint32_t i = 0; i < TIMERS; i++) bed_arm(&b, i, 5000);
    assert_int_equal(timer_run(&b.wheel, 5000, ALL, disarm_neighbours, &b), TIMERS / 4);
    bed_check(&b);
    assert_int_equal(b.wheel.armed_count, 0);
}

static void rearm_later(void *ctx, struct timer *t)
{
    struct bed *b = ctx;

    timer_arm(&b->wheel, t, t->due_ms + 10);
}

static void timer_periodic_callback_catches_up(void **state)
{
    static struct bed b;

    bed_open(&b, 0, 1);
    timer_arm(&b.wheel, &b.timers[0], 10);
    assert_int_equal(timer_run(&b.wheel, 1000, 30, rearm_later, &b), 30);
    assert_int_equal(timer_run(&b.wheel, 1000, ALL, rearm_later, &b), 70);
    assert_int_equal(timer_run(&b.wheel, 1009, ALL, rearm_later, &b), 0);
    assert_int_equal(timer_run(&b.wheel, 1010, ALL, rearm_later, &b), 1);
}

/* Sleeping until timer_next_ms each time reaches the due time within one wake-up per level. */
static void timer_next_is_never_late_and_seldom_early(void **state)
{
    static struct bed b;

    bed_open(&b, 12345, 3);
    for (int round = 0; round < 3000; round++) {
        uint64_t due_ms = u64_max(random_due(&b), b.now_ms);
        bed_arm(&b, 0, due_ms);
        int wakes = 0;
        while (b.due[0] != UINT64_MAX) {
            uint64_t next_ms = timer_next_ms(&b.wheel);
            assert_true(next_ms <= due_ms && next_ms >= b.now_ms);
            bed_run(&b, next_ms, ALL);
            wakes++;
        }
        assert_true(wakes <= TIMER_LEVELS);
        assert_int_equal(b.now_ms, due_ms);
    }
}

static void timer_far_jumps_cost_by_timers(void **state)
{
    static struct bed b;

    /* 2^54 ms in 1,000 jumps: a loop over every millisecond or slot would not end. */
    bed_open(&b, 0, 4);
    for (uint64_t jump = 1; jump <= 1000; jump++) {
        bed_arm(&b, 0, b.now_ms + TIMER_SPAN_MS / 2);
        bed_arm(&b, 1, b.now_ms + 1);
        assert_int_equal(bed_run(&b, jump << 44, ALL), 2);
    }
}

static void run_model(uint64_t seed, uint64_t start_ms)
{
    static struct bed b;

    bed_open(&b, start_ms, seed);
    b.callbacks_act = seed % 2;
    for (int step = 0; step < 600; step++) {
        for (uint64_t n = rng_below(&b.rng, 20); n > 0; n--) act(&b);
        assert_true(timer_next_ms(&b.wheel) <= u64_max(bed_next(&b), b.now_ms));

        uint64_t passed = rng_below(&b.rng, 1ull << rng_below(&b.rng, 31));
        uint32_t fire_max = rng_below(&b.rng, 3) == 0 ? (uint32_t)rng_below(&b.rng, 50) : 100000;
        uint32_t fired = bed_run(&b, b.now_ms + passed * rng_below(&b.rng, 2), fire_max);
        if (fired < fire_max) assert_true(bed_next(&b) > b.now_ms);   /* none is due */
        bed_check(&b);
    }
}

static void timer_agrees_with_a_plain_list(void **state)
{
    static const uint64_t starts[] = {0, 63, 1ull << 30, (1ull << 30) - 1, 1700000000000ull};

    for (uint64_t seed = 1; seed <= 60; seed++) {
        print_message("seed %llu\r", (unsigned long long)seed);
        run_model(seed, starts[seed % 5]);
    }
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(timer_never_fires_early),
        cmocka_unit_test(timer_due_now_or_before_fires_in_the_next_run),
        cmocka_unit_test(timer_beyond_the_span_is_clamped_to_it),
        cmocka_unit_test(timer_rearm_moves_and_disarm_forgets),
        cmocka_unit_test(timer_fire_max_loses_nothing),
        cmocka_unit_test(timer_clock_that_goes_back_is_no_time),
        cmocka_unit_test(timer_callback_may_disarm_the_rest_of_its_slot),
        cmocka_unit_test(timer_periodic_callback_catches_up),
        cmocka_unit_test(timer_next_is_never_late_and_seldom_early),
        cmocka_unit_test(timer_far_jumps_cost_by_timers),
        cmocka_unit_test(timer_agrees_with_a_plain_list),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
