#include "bench/bench.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    int    argc;
    char **argv;
    bool   missed;
} run;

static bool name_known(const char *known, const char *name)
{
    size_t bytes = strlen(name);
    for (const char *p = known; p != NULL; p = strchr(p, ',')) {
        if (*p == ',') p++;
        if (strncmp(p, name, bytes) == 0 && (p[bytes] == ',' || p[bytes] == 0)) return true;
    }
    return false;
}

void bench_open(int argc, char **argv, const char *names_known, uint32_t seconds_max)
{
    static const char common[] = "server,port,v2,history";   /* of server, load */

    run.argc = argc;
    run.argv = argv;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i += 2) {
        bool known = strncmp(argv[i], "--", 2) == 0 &&
                     (name_known(names_known, argv[i] + 2) || name_known(common, argv[i] + 2));
        if (!known || i + 1 == argc) {
            bench_die("usage: %s [--name value]..., names: %s,%s", argv[0], common, names_known);
        }
    }
    alarm(seconds_max);
}

int bench_close(void)
{
    return run.missed ? 1 : 0;
}

const char *bench_arg_text(const char *name, const char *fallback)
{
    for (int i = 1; i + 1 < run.argc; i += 2) {
        if (strcmp(run.argv[i] + 2, name) == 0) return run.argv[i + 1];
    }
    return fallback;
}

uint64_t bench_arg(const char *name, uint64_t fallback)
{
    const char *text = bench_arg_text(name, NULL);
    if (text == NULL) return fallback;

    char    *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text == 0 || *end != 0) bench_die("--%s: not a whole number: %s", name, text);
    return value;
}

uint64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void bench_sleep_ns(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

uint32_t bench_cpus(void)
{
    return (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
}

void bench_pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (uint32_t i = 0; i < bench_cpus(); i++) {
        if (cpu < 0 || i == (uint32_t)cpu % bench_cpus()) CPU_SET(i, &set);
    }
    if (sched_setaffinity(0, sizeof set, &set) != 0) bench_die("cannot pin to core %d", cpu);
}

void bench_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "bench: ");
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

void *bench_calloc(uint64_t count, uint64_t bytes)
{
    void *p = calloc(count, bytes);
    if (p == NULL) bench_die("out of memory");
    return p;
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int by_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double median_of_sorted(const double *values, uint32_t count)
{
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct bench_spread bench_spread_of(double *values, uint32_t values_count)
{
    if (values_count == 0) bench_die("no values to take a median of");
    qsort(values, values_count, sizeof *values, by_double);

    struct bench_spread s = {
        median_of_sorted(values, values_count), 0, values[0], values[values_count - 1]};
    double *away = bench_calloc(values_count, sizeof *away);
    for (uint32_t i = 0; i < values_count; i++) away[i] = fabs(values[i] - s.median);
    qsort(away, values_count, sizeof *away, by_double);
    s.mad = median_of_sorted(away, values_count);
    free(away);
    return s;
}

double bench_percentile(uint64_t *samples, uint64_t samples_count, double part)
{
    if (samples_count == 0) bench_die("no samples to take a percentile of");
    qsort(samples, samples_count, sizeof *samples, by_u64);
    uint64_t at = (uint64_t)(part * (double)samples_count);
    return (double)samples[at < samples_count ? at : samples_count - 1];
}

void bench_time_add(struct bench_times *t, uint64_t ns)
{
    uint64_t us = ns / 1000;
    t->counts[us < BENCH_BUCKETS ? us : BENCH_BUCKETS - 1]++;
}

double bench_time_percentile(const struct bench_times *t, double part)
{
    uint64_t total = 0, seen = 0;
    for (uint32_t i = 0; i < BENCH_BUCKETS; i++) total += t->counts[i];
    for (uint32_t i = 0; total > 0 && i < BENCH_BUCKETS; i++) {
        seen += t->counts[i];
        if ((double)seen >= part * (double)total) return (i + 1) / 1e3;
    }
    bench_die("no times to take a percentile of");
}

void bench_figure(const char *name, double value, const char *unit, enum bench_bar kind,
                  double bar)
{
    static const char *const signs[] = {"", ">=", "<=", "="};
    bool met = true;
    switch (kind) {
    case BENCH_NOTE: break;
    case BENCH_AT_LEAST: met = value >= bar; break;
    case BENCH_AT_MOST: met = value <= bar; break;
    case BENCH_EXACT: met = value == bar; break;
    }
    met = met && isfinite(value);
    run.missed |= !met;
    printf("FIGURE %s%s%s | %.6g | %s | ", name, bench_arg("v2", 0) != 0 ? "_v2" : "",
           bench_arg("history", 0) != 0 ? "_history" : "", value, unit);
    if (kind == BENCH_NOTE) printf("- | noted\n");
    else printf("%s %.6g | %s\n", signs[kind], bar, met ? "met" : "MISSED");
}
