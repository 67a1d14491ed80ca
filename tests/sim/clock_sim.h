/* clock_sim.h - core/clock.h for the simulation: time is what the script says. */
#pragma once
#include "core/clock.h"

extern uint64_t clock_sim_ns;
extern int64_t  clock_sim_wall_ms;   /* by how much the wall clock was set, forth or back */
