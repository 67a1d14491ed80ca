/* Goal    Each clock reads the right system clock in the right unit.
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

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(clock_mono_never_goes_back),
        cmocka_unit_test(clock_wall_counts_unix_milliseconds),
        cmocka_unit_test(clock_cpu_grows_with_work_and_not_faster_than_time),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
