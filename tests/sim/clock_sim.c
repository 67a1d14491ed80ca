#include "tests/sim/clock_sim.h"

enum { START_WALL_S = 1700000000 };

uint64_t clock_sim_ns = 1000000000;
int64_t  clock_sim_wall_ms;

uint64_t clock_mono_ns(void) { return clock_sim_ns; }
uint64_t clock_wall_ms(void)
{
    return START_WALL_S * 1000ull + clock_sim_ns / 1000000 + (uint64_t)clock_sim_wall_ms;
}
uint64_t clock_cpu_ns(void) { return clock_sim_ns; }
