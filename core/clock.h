/* clock.h - the only reader of clocks. The tick reads once and passes the value down.
 *
 * Threads  Any.
 */
#pragma once
#include "core/base.h"

uint64_t clock_mono_ns(void);  /* CLOCK_MONOTONIC: timers, rates, latencies */
uint64_t clock_wall_ms(void);  /* Unix milliseconds: signatures, logs, wire fields */
uint64_t clock_cpu_ns(void);   /* CPU time of the calling thread */
