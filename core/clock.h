/* clock.h - the only reader of clocks. The tick reads once and passes the value down.
 *
 * Threads  Any.
 */
#pragma once
#include "core/base.h"

uint64_t clock_mono_ns(void);  /* CLOCK_MONOTONIC: timers, rates, latencies */
uint64_t clock_wall_ms(void);  /* Unix milliseconds: signatures, logs, wire fields */
uint64_t clock_cpu_ns(void);   /* CPU time of the calling thread */

/* What is stamped with a wrong time, or deleted for its age, does not come back: a wall clock that
 * leaps ahead by more than an hour is followed a minute a second, so that there is time to set it
 * right. The first reading is believed, one that goes back, and what follows on a clock that had
 * never been set. */
enum { CLOCK_LEAP_MS = 3600000, CLOCK_LEAP_PACE = 60 };
#define CLOCK_NEVER_SET_MS 1577836800000u   /* 2020: before it are machines without a clock */
struct clock_belief { uint64_t wall_ms, mono_ns; };   /* the newest readings that were believed */
static inline uint64_t clock_believed_ms(struct clock_belief *b, uint64_t wall_ms,
                                         uint64_t mono_ns)
{
    uint64_t most_ms = b->wall_ms + (mono_ns - b->mono_ns) / 1000000 * CLOCK_LEAP_PACE;
    if (b->wall_ms > CLOCK_NEVER_SET_MS && wall_ms > most_ms + CLOCK_LEAP_MS) return most_ms;
    *b = (struct clock_belief){wall_ms, mono_ns};
    return wall_ms;
}
