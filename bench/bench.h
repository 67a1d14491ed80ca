/* bench.h - what every measuring program needs: arguments, time, statistics, printed figures.
 *
 * Shape    A program calls bench_open, measures, prints figures and returns bench_close(). A figure
 *          is one line for people and run.py: `FIGURE name | value | unit | bar | verdict`.
 * Threads  Main thread only, but bench_now_ns and bench_die.
 * Bounds   bench_open sets an alarm: a program that hangs dies, and the servers it started with it.
 * Errors   bench_die: the run itself is broken (exit 2). A missed bar is an answer (exit 1).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum bench_bar { BENCH_NOTE, BENCH_AT_LEAST, BENCH_AT_MOST, BENCH_EXACT };

struct bench_spread {
    double median, mad, min, max;   /* mad: median of the absolute distances from the median */
};

/* names_known: comma-separated option names, each given as `--name value`. `seconds_max` bounds
 * the whole program. Known to all: server and port; v2 (1: sockets speak Protocol V2), history (1:
 * the server keeps history, versions and a replay ring), which the names of the figures then
 * show. */
void bench_open(int argc, char **argv, const char *names_known, uint32_t seconds_max);
/* 0 when every bar was met, else 1. */
int bench_close(void);

uint64_t    bench_arg(const char *name, uint64_t fallback);
const char *bench_arg_text(const char *name, const char *fallback);

uint64_t bench_now_ns(void);
void     bench_sleep_ns(uint64_t ns);
/* Keep the calling thread (and what it starts) on one core; cpu < 0 allows all. */
void bench_pin(int cpu);
uint32_t bench_cpus(void);

__attribute__((noreturn, format(printf, 1, 2))) void bench_die(const char *format, ...);
void *bench_calloc(uint64_t count, uint64_t bytes);

/* Sorts the values. */
struct bench_spread bench_spread_of(double *values, uint32_t values_count);
/* The value below which `part` (0..1) of the sorted samples lie. Sorts. */
double bench_percentile(uint64_t *samples, uint64_t samples_count, double part);

/* Durations counted by whole microseconds, for more of them than can be kept; zeroed. The last
 * bucket holds all that took longer. */
enum { BENCH_BUCKETS = 2000000 };
struct bench_times { uint64_t counts[BENCH_BUCKETS]; };
void bench_time_add(struct bench_times *t, uint64_t ns);
/* The ms below which `part` (0..1) of them lie. */
double bench_time_percentile(const struct bench_times *t, double part);

void bench_figure(const char *name, double value, const char *unit, enum bench_bar kind,
                  double bar);
