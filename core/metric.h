/* metric.h - counters, gauges and histograms, and their Prometheus text.
 *
 * Shape    A table of descriptors is laid out once (metric_table_open) for the configured apps.
 *          Each shard, and any other thread that counts, owns one `struct metrics`: an array of
 *          64-bit cells in that layout. A series is one cell per app and label row; a histogram has
 *          one cell per bucket, one for what exceeds the last, and one for the sum. All of it is
 *          there and zero from the start.
 * Threads  One writer per struct metrics. Any thread reads (metric_read, metric_sum,
 *          metric_render): cells are relaxed atomics, so a reader may lag and two series may be
 *          moments apart, but no value is torn and a histogram's buckets add up to its count.
 * Cost     A count is two loads of the layout, one compare, one load and one store; no lock prefix.
 * Memory   The table and each set are allocated at open. metric_render grows a malloc'ed text: it
 *          runs once per scrape, never per message.
 * Errors   ERR_MEMORY from open and render. A wrong id, app or label is our bug: it asserts.
 * Source   Text format 0.0.4; rules: spec/operations.md 1.1, spec/settled.md 22.
 */
#pragma once
#include "core/err.h"

#define METRIC_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum { METRIC_BUCKETS_MAX = 32, METRIC_LABELS_MAX = 4, METRIC_NO_SHARD = -1 };

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
enum metric_merge { METRIC_SUM, METRIC_MAX, METRIC_MEAN }; /* how sets become one value */

/* Extra labels: every combination that exists, one row each. `label` of the calls is the row. */
struct metric_labels {
    uint32_t           names_count;    /* 0: no extra label, one row */
    uint32_t           rows_count;
    const char *const *names;          /* names_count */
    const char *const *values;         /* rows_count * names_count */
};

/* One descriptor. Neighbours may share a name, type and help: they are one family in the text. */
struct metric_series {
    const char                 *name;         /* without the prefix */
    const char                 *help;
    enum metric_type            type;
    enum metric_merge           merge;
    bool                        literal_name; /* the prefix is not applied (process_*) */
    bool                        has_app;      /* label app_id: every configured app */
    bool                        has_port;     /* label port: the metrics port */
    const char *const          *apps_more;    /* further ids, ended by NULL; or NULL. A configured
                                                 app of the same id shares its lines */
    const char                 *shard_label;  /* one line per set, labelled so; NULL: merged */
    const struct metric_labels *labels;       /* NULL: none */
    uint32_t                    decimals;     /* a cell of 1 prints as 10^-decimals; 0, 3 or 6 */
    const double               *buckets;      /* histogram: rising upper bounds, +Inf implied */
    uint32_t                    buckets_count;
};

struct metric_place {                  /* where the cells of one descriptor are */
    uint32_t      first, cells_count;
    uint32_t      app_stride, width;   /* cells per app (0: no app) and per label row */
    uint32_t      apps_count, rows_count;
    const double *buckets;             /* borrowed from the descriptor */
    uint32_t      buckets_count;
};

struct metric_table_conf {             /* all borrowed for the life of the table */
    const char *const *app_ids;        /* configuration order */
    uint32_t           apps_count;
    const char        *prefix;         /* e.g. "sockudo_" */
    const char        *port;           /* the metrics port as text */
};

struct metric_table {
    const struct metric_series *series;       /* borrowed, static */
    uint32_t                    series_count;
    uint32_t                    cells_count;  /* of one set */
    struct metric_place        *places;       /* owned */
    struct metric_table_conf    conf;
};

struct metrics {                       /* written by one thread */
    const struct metric_place *places; /* borrowed from the table */
    int64_t                   *cells;  /* owned; cache-line aligned */
    const struct metric_table *table;  /* borrowed */
    int32_t                    shard;  /* METRIC_NO_SHARD: no part in per-shard series */
};

/* Checks the descriptors (names, families, buckets) and lays them out. */
MUST_CHECK err_t metric_table_open(struct metric_table *t, const struct metric_series *series,
                                   uint32_t series_count, const struct metric_table_conf *conf);
void metric_table_close(struct metric_table *t);

MUST_CHECK err_t metric_open(struct metrics *m, const struct metric_table *t, int32_t shard);
void metric_close(struct metrics *m);
uint64_t metric_bytes(const struct metric_table *t); /* memory of one set's cells */

/* `app` is the index in configuration order; the index apps_count + k is apps_more[k], the first of
 * which is "unknown" where an unknown key can be counted. Ignored where the series has no app. */
static inline int64_t *metric_cell(const struct metrics *m, uint32_t id, uint32_t app,
                                   uint32_t label)
{
    const struct metric_place *p = &m->places[id];
    uint32_t offset = app * p->app_stride + label * p->width;

    ASSERT(label < p->rows_count && offset < p->cells_count);
    return &m->cells[p->first + offset];
}

static inline void metric_cell_add(int64_t *cell, int64_t n)
{
    __atomic_store_n(cell, __atomic_load_n(cell, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

/* Counters, and gauges by a signed difference. */
static inline void metric_add(struct metrics *m, uint32_t id, uint32_t app, uint32_t label,
                              int64_t n)
{
    metric_cell_add(metric_cell(m, id, app, label), n);
}

/* Gauges, and counters that are kept elsewhere and only copied here. */
static inline void metric_set(struct metrics *m, uint32_t id, uint32_t app, uint32_t label,
                              int64_t value)
{
    __atomic_store_n(metric_cell(m, id, app, label), value, __ATOMIC_RELAXED);
}

/* Histograms. The value is finite; a value equal to a bound belongs to that bucket. */
static inline void metric_observe(struct metrics *m, uint32_t id, uint32_t app, uint32_t label,
                                  double value)
{
    const struct metric_place *p = &m->places[id];
    int64_t *cell = metric_cell(m, id, app, label);
    int64_t *sum_cell = cell + p->buckets_count + 1;
    uint32_t i = 0;
    double   sum;

    ASSERT(p->buckets_count > 0);
    while (i < p->buckets_count && value > p->buckets[i]) i++;
    metric_cell_add(cell + i, 1);

    int64_t bits = __atomic_load_n(sum_cell, __ATOMIC_RELAXED);
    memcpy(&sum, &bits, sizeof(sum));
    sum += value;
    memcpy(&bits, &sum, sizeof(bits));
    __atomic_store_n(sum_cell, bits, __ATOMIC_RELAXED);
}

/* One cell, as stored (not scaled by `decimals`); of a histogram its count. */
int64_t metric_read(const struct metrics *m, uint32_t id, uint32_t app, uint32_t label);
/* metric_read summed over sets. */
int64_t metric_sum(const struct metrics *const *sets, uint32_t sets_count, uint32_t id,
                   uint32_t app, uint32_t label);

struct metric_text {                   /* zero it before first use; reuse keeps the memory */
    char  *ptr;                        /* owned; NULL while empty */
    size_t bytes, cap;
    bool   failed;                     /* memory ran out: the text is incomplete */
};
void metric_text_free(struct metric_text *text);

/* Replaces the text by all series of all sets. Sets of one table only; one set per shard. */
MUST_CHECK err_t metric_render(const struct metric_table *t, const struct metrics *const *sets,
                               uint32_t sets_count, struct metric_text *out);
