/* Goal    Each clock reads the right system clock in the right unit; a leap of the wall clock is
 *         not believed at once.
 * Method  Readings are compared with time() and with each other around work that takes CPU time,
 *         until a bound of work is used up; no sleeping.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <time.h>
#include "core/clock.h"

static void clock_mono_never_goes_back(void **state)
{
    uint64_t first = clock_mono_ns(), last = first;

    for (int i = 0; i < 100000; i++) {
        uint64_t now = clock_mono_ns();
        assert_true(now >= last);
        last = now;
    }
    assert_true(last > first);
    assert_true(last - first < 60u * 1000000000u);   /* nanoseconds, not something finer */
}

static void clock_wall_counts_unix_milliseconds(void **state)
{
    uint64_t before = (uint64_t)time(NULL), wall_ms = clock_wall_ms();
    uint64_t after = (uint64_t)time(NULL);

    /* time() may read a coarser clock that lags by one kernel tick. */
    assert_in_range(wall_ms, before * 1000, after * 1000 + 1100);
}

static void clock_cpu_grows_with_work_and_not_faster_than_time(void **state)
{
    uint64_t mono_start = clock_mono_ns(), cpu_start = clock_cpu_ns(), cpu = cpu_start;
    uint64_t rounds = 0;

    while (cpu - cpu_start < 2000000 && rounds < 100000000) {
        cpu = clock_cpu_ns();
        rounds++;
    }
    assert_true(cpu - cpu_start >= 2000000);
    /* The two clocks are read at different instants: a millisecond covers their steps. */
    assert_true(cpu - cpu_start <= clock_mono_ns() - mono_start + 1000000);
}

/* Ten years ahead for an hour, and back: nothing is stamped more than that hour's minutes ahead. */
static void clock_a_leap_is_followed_slowly(void **state)
{
    enum { S = 1000 };
    const uint64_t start_ms = 1700000000000, years_ms = 315360000000, ns = 1000000;
    struct clock_belief b = {0};
    assert_int_equal(clock_believed_ms(&b, start_ms, 5 * ns), start_ms);
    uint64_t mono_ms = 5, most = start_ms;
    for (uint32_t i = 0; i < 4 * 3600; i++) {        /* turns far shorter than a second add up */
        mono_ms += S / 4;
        uint64_t believed = clock_believed_ms(&b, start_ms + years_ms + mono_ms, mono_ms * ns);
        assert_true(believed >= most && believed <= start_ms + mono_ms * CLOCK_LEAP_PACE);
        most = believed;
    }
    assert_true(most > start_ms + 3000 * S * (uint64_t)CLOCK_LEAP_PACE);
    assert_int_equal(clock_believed_ms(&b, start_ms + mono_ms, mono_ms * ns), start_ms + mono_ms);
    /* A true one arrives. */
    uint64_t day_ms = 86400000, steps = 0;
    while (clock_believed_ms(&b, start_ms + day_ms + mono_ms, mono_ms * ns) !=
           start_ms + day_ms + mono_ms) {
        mono_ms += S;
        assert_true(++steps < day_ms / CLOCK_LEAP_PACE / S);
    }
    assert_true(steps > 1000);
    /* Back, still, and ahead within the hour: as the clock says. */
    static const int64_t shifts_ms[] = {-3600000, 0, 0, 3000000, -86400000, 0};
    for (uint32_t i = 0; i < sizeof(shifts_ms) / sizeof(shifts_ms[0]); i++) {
        uint64_t at_ms = b.wall_ms + (uint64_t)shifts_ms[i];
        assert_int_equal(clock_believed_ms(&b, at_ms, mono_ms * ns), at_ms);
    }
}

static void clock_that_is_set_late_is_followed(void **state)
{
    const uint64_t set_ms = 1700000000000, ns = 1000000;
    struct clock_belief b = {0};
    assert_int_equal(clock_believed_ms(&b, 30000, 5 * ns), 30000);   /* half a minute of 1970 */
    assert_int_equal(clock_believed_ms(&b, set_ms, 6 * ns), set_ms);
    assert_int_not_equal(clock_believed_ms(&b, 2 * set_ms, 7 * ns), 2 * set_ms);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(clock_mono_never_goes_back),
        cmocka_unit_test(clock_wall_counts_unix_milliseconds),
        cmocka_unit_test(clock_cpu_grows_with_work_and_not_faster_than_time),
        cmocka_unit_test(clock_a_leap_is_followed_slowly),
        cmocka_unit_test(clock_that_is_set_late_is_followed),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
