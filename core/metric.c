#include "core/metric.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* One set, for apps A and B; a descriptor's cells are contiguous:
 *
 *   counter, gauge   | A row0 | A row1 | B row0 | B row1 |
 *   histogram        | A: le b0 | le b1 | ... | more | sum | B: le b0 | ...
 *
 * Buckets hold their own hits only; the text makes them cumulative. The sum is a double's bits.
 */
static_assert(sizeof(double) == sizeof(int64_t), "a histogram's sum lives in a cell");

enum { NUMBER_BYTES = 32, CELLS_ALIGN = 64 };

static const struct metric_labels no_labels = {0, 1, NULL, NULL};

static const struct metric_labels *labels_of(const struct metric_series *s)
{
    return s->labels != NULL ? s->labels : &no_labels;
}

/* ---- table ---- */

static bool name_valid(const char *name)
{
    if (*name == '\0' || (*name >= '0' && *name <= '9')) return false;
    for (const char *c = name; *c != '\0'; c++) {
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '_';
        if (!letter) return false;
    }
    return true;
}

static bool series_same_family(const struct metric_series *a, const struct metric_series *b)
{
    return strcmp(a->name, b->name) == 0;
}

static void series_check(const struct metric_series *all, uint32_t index)
{
    const struct metric_series *s = &all[index];
    const struct metric_labels *l = labels_of(s);

    ASSERT(name_valid(s->name) && s->help != NULL);
    ASSERT(s->decimals == 0 || s->decimals == 3 || s->decimals == 6);
    ASSERT(l->names_count <= METRIC_LABELS_MAX && l->rows_count > 0);
    for (uint32_t i = 0; i < l->names_count; i++) ASSERT(name_valid(l->names[i]));
    for (uint32_t i = 0; i < l->names_count * l->rows_count; i++) ASSERT(l->values[i] != NULL);
    ASSERT((s->type == METRIC_HISTOGRAM) == (s->buckets_count > 0));
    ASSERT(s->buckets_count <= METRIC_BUCKETS_MAX);
    ASSERT(s->type != METRIC_HISTOGRAM || (s->decimals == 0 && s->merge == METRIC_SUM));
    ASSERT(s->apps_more == NULL || s->has_app);
    for (uint32_t i = 1; i < s->buckets_count; i++) ASSERT(s->buckets[i - 1] < s->buckets[i]);

    for (uint32_t i = 0; i < index; i++) {           /* a family is one run of neighbours */
        if (!series_same_family(&all[i], s)) continue;
        ASSERT(series_same_family(&all[index - 1], s));
        ASSERT(all[i].type == s->type && strcmp(all[i].help, s->help) == 0);
    }
}

static void place_fill(struct metric_place *p, const struct metric_series *s, uint32_t first,
                       uint32_t apps_count)
{
    p->first = first;
    p->rows_count = labels_of(s)->rows_count;
    p->width = s->type == METRIC_HISTOGRAM ? s->buckets_count + 2 : 1;
    p->apps_count = s->has_app ? apps_count : 1;
    for (uint32_t i = 0; s->apps_more != NULL && s->apps_more[i] != NULL; i++) p->apps_count++;
    p->app_stride = s->has_app ? p->rows_count * p->width : 0;
    p->cells_count = p->apps_count * p->rows_count * p->width;
    p->buckets = s->buckets;
    p->buckets_count = s->buckets_count;
}

err_t metric_table_open(struct metric_table *t, const struct metric_series *series,
                        uint32_t series_count, const struct metric_table_conf *conf)
{
    ASSERT(series_count > 0 && conf->prefix != NULL && conf->port != NULL);
    t->series = series;
    t->series_count = series_count;
    t->cells_count = 0;
    t->conf = *conf;
    t->places = calloc(series_count, sizeof(*t->places));
    if (t->places == NULL) return ERR_MEMORY;

    for (uint32_t i = 0; i < series_count; i++) {
        series_check(series, i);
        place_fill(&t->places[i], &series[i], t->cells_count, conf->apps_count);
        t->cells_count += t->places[i].cells_count;
    }
    return OK;
}

void metric_table_close(struct metric_table *t)
{
    free(t->places);
    t->places = NULL;
}

/* ---- sets ---- */

uint64_t metric_bytes(const struct metric_table *t)
{
    uint64_t bytes = (uint64_t)t->cells_count * sizeof(int64_t);
    return (bytes + CELLS_ALIGN - 1) / CELLS_ALIGN * CELLS_ALIGN;
}

err_t metric_open(struct metrics *m, const struct metric_table *t, int32_t shard)
{
    ASSERT(shard >= METRIC_NO_SHARD);
    m->places = t->places;
    m->table = t;
    m->shard = shard;
    m->cells = aligned_alloc(CELLS_ALIGN, metric_bytes(t)); /* no line shared between writers */
    if (m->cells == NULL) return ERR_MEMORY;
    memset(m->cells, 0, metric_bytes(t));
    return OK;
}

void metric_close(struct metrics *m)
{
    free(m->cells);
    m->cells = NULL;
}

static int64_t cell_load(const int64_t *cell)
{
    return __atomic_load_n(cell, __ATOMIC_RELAXED);
}

int64_t metric_read(const struct metrics *m, uint32_t id, uint32_t app, uint32_t label)
{
    ASSERT(id < m->table->series_count);
    const int64_t *cell = metric_cell(m, id, app, label);
    int64_t        total = 0;

    for (uint32_t i = 0; i <= m->places[id].buckets_count; i++) total += cell_load(cell + i);
    return total;
}

int64_t metric_sum(const struct metrics *const *sets, uint32_t sets_count, uint32_t id,
                   uint32_t app, uint32_t label)
{
    int64_t total = 0;

    for (uint32_t i = 0; i < sets_count; i++) total += metric_read(sets[i], id, app, label);
    return total;
}

/* ---- text ---- */

void metric_text_free(struct metric_text *text)
{
    free(text->ptr);
    *text = (struct metric_text){0};
}

static void put(struct metric_text *out, const char *bytes, size_t bytes_count)
{
    if (out->failed) return;
    if (out->cap - out->bytes < bytes_count) {
        size_t cap = out->cap * 2 + bytes_count + 4096;
        char  *grown = realloc(out->ptr, cap);
        if (grown == NULL) {
            out->failed = true;
            return;
        }
        out->ptr = grown;
        out->cap = cap;
    }
    memcpy(out->ptr + out->bytes, bytes, bytes_count);
    out->bytes += bytes_count;
}

static void put_str(struct metric_text *out, const char *text)
{
    put(out, text, strlen(text));
}

/* HELP texts escape backslash and newline; label values the double quote as well. */
static void put_escaped(struct metric_text *out, const char *text, bool quotes)
{
    for (const char *c = text; *c != '\0';) {
        size_t plain = strcspn(c, quotes ? "\\\n\"" : "\\\n");
        put(out, c, plain);
        c += plain;
        if (*c == '\0') break;
        put_str(out, *c == '\n' ? "\\n" : *c == '"' ? "\\\"" : "\\\\");
        c++;
    }
}

/* value / 10^decimals, exactly, without trailing zeros. */
static void put_number(struct metric_text *out, int64_t value, uint32_t decimals)
{
    char     digits[NUMBER_BYTES];
    uint32_t at = NUMBER_BYTES, printed = 0;
    bool     significant = false;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

    while (rest > 0 || printed <= decimals) {
        uint32_t digit = (uint32_t)(rest % 10);
        rest /= 10;
        significant = significant || digit != 0 || printed >= decimals;
        if (printed == decimals && at < NUMBER_BYTES) digits[--at] = '.';
        if (significant) digits[--at] = (char)('0' + digit);
        printed++;
    }
    if (value < 0) digits[--at] = '-';
    put(out, digits + at, NUMBER_BYTES - at);
}

static void put_double(struct metric_text *out, double value)
{
    char text[NUMBER_BYTES];

    if (isinf(value)) {
        put_str(out, value > 0 ? "+Inf" : "-Inf");
        return;
    }
    int written = snprintf(text, sizeof(text), "%.15g", value);
    ASSERT(written > 0 && (size_t)written < sizeof(text));
    put(out, text, (size_t)written);
}

/* What stays the same for all lines of one descriptor. */
struct render {
    const struct metric_table    *table;
    const struct metric_series   *series;
    const struct metric_place    *place;
    const struct metrics *const  *sets;
    uint32_t                      sets_count;
    struct metric_text           *out;
    char                          bounds[METRIC_BUCKETS_MAX + 1][NUMBER_BYTES];
};

/* The cell offset of the line within the descriptor, and its labels. */
struct line {
    uint32_t              offset;
    uint32_t              twin;        /* further cells of the same labels, this far on; 0: none */
    uint32_t              row;
    const char           *app_id;      /* NULL: no such label */
    const struct metrics *set;         /* NULL: all sets merged */
};

static void put_label(struct metric_text *out, const char *name, const char *value, char *opener)
{
    put(out, opener, 1);
    put_str(out, name);
    put_str(out, "=\"");
    put_escaped(out, value, true);
    put_str(out, "\"");
    *opener = ',';
}

static void put_name(const struct render *r, const struct line *l, const char *suffix,
                     const char *bound)
{
    const struct metric_labels *labels = labels_of(r->series);
    struct metric_text         *out = r->out;
    char                        opener = '{';

    if (!r->series->literal_name) put_str(out, r->table->conf.prefix);
    put_str(out, r->series->name);
    put_str(out, suffix);
    if (l->app_id != NULL) put_label(out, "app_id", l->app_id, &opener);
    if (r->series->has_port) put_label(out, "port", r->table->conf.port, &opener);
    for (uint32_t i = 0; i < labels->names_count; i++) {
        put_label(out, labels->names[i], labels->values[l->row * labels->names_count + i], &opener);
    }
    if (l->set != NULL) {
        char shard[NUMBER_BYTES];
        snprintf(shard, sizeof(shard), "%d", (int)l->set->shard);
        put_label(out, r->series->shard_label, shard, &opener);
    }
    if (bound != NULL) put_label(out, "le", bound, &opener);
    put_str(out, opener == ',' ? "} " : " ");
}

static int64_t of_set(const struct render *r, const struct line *l, const struct metrics *set,
                      uint32_t cell)
{
    const int64_t *at = &set->cells[r->place->first + l->offset + cell];
    return cell_load(at) + (l->twin > 0 ? cell_load(at + l->twin) : 0);
}

/* One cell of the line: of its set, or merged over all sets as the descriptor says. */
static int64_t merged(const struct render *r, const struct line *l, uint32_t cell)
{
    int64_t  total = 0, most = 0;
    uint32_t shards_count = 0;

    if (l->set != NULL) return of_set(r, l, l->set, cell);
    for (uint32_t i = 0; i < r->sets_count; i++) {
        int64_t value = of_set(r, l, r->sets[i], cell);
        total += value;
        if (i == 0 || value > most) most = value;
        if (r->sets[i]->shard != METRIC_NO_SHARD) shards_count++;
    }
    switch (r->series->merge) {
    case METRIC_SUM: return total;
    case METRIC_MAX: return most;
    case METRIC_MEAN: return shards_count == 0 ? total : total / (int64_t)shards_count;
    }
    ASSERT(false);
    return 0;
}

static double cell_load_double(const int64_t *cell)
{
    int64_t bits = cell_load(cell);
    double  value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static double merged_sum(const struct render *r, const struct line *l)
{
    uint32_t index = r->place->first + l->offset + r->place->buckets_count + 1;
    double   total = 0;

    for (uint32_t i = 0; i < r->sets_count; i++) {
        if (l->set != NULL && l->set != r->sets[i]) continue;
        const int64_t *at = &r->sets[i]->cells[index];
        total += cell_load_double(at) + (l->twin > 0 ? cell_load_double(at + l->twin) : 0);
    }
    return total;
}

/* The count is the last running total, not a cell of its own: it cannot disagree with le="+Inf". */
static void put_histogram(const struct render *r, const struct line *l)
{
    int64_t total = 0;

    for (uint32_t i = 0; i <= r->place->buckets_count; i++) {
        total += merged(r, l, i);
        put_name(r, l, "_bucket", r->bounds[i]);
        put_number(r->out, total, 0);
        put_str(r->out, "\n");
    }
    put_name(r, l, "_sum", NULL);
    put_double(r->out, merged_sum(r, l));
    put_str(r->out, "\n");
    put_name(r, l, "_count", NULL);
    put_number(r->out, total, 0);
    put_str(r->out, "\n");
}

static void put_line(const struct render *r, const struct line *l)
{
    if (r->series->type == METRIC_HISTOGRAM) {
        put_histogram(r, l);
        return;
    }
    put_name(r, l, "", NULL);
    put_number(r->out, merged(r, l, 0), r->series->decimals);
    put_str(r->out, "\n");
}

static void put_family_head(const struct render *r)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    const struct metric_series *s = r->series;
    const char                 *prefix = s->literal_name ? "" : r->table->conf.prefix;
    struct metric_text         *out = r->out;

    put_str(out, "# HELP ");
    put_str(out, prefix);
    put_str(out, s->name);
    put_str(out, " ");
    put_escaped(out, s->help, false);
    put_str(out, "\n# TYPE ");
    put_str(out, prefix);
    put_str(out, s->name);
    put_str(out, " ");
    put_str(out, types[s->type]);
    put_str(out, "\n");
}

/* Which app a line is of. A configured app may bear the id of one of apps_more; two lines with the
 * same labels would void the whole scrape, so its line takes both. False: no line of its own. */
static bool line_set_app(const struct render *r, struct line *l, uint32_t app)
{
    const struct metric_table_conf *conf = &r->table->conf;
    const char *const              *more = r->series->apps_more;

    if (!r->series->has_app) return true;
    if (app < conf->apps_count) {
        l->app_id = conf->app_ids[app];
        for (uint32_t i = 0; more != NULL && more[i] != NULL; i++) {
            if (strcmp(more[i], l->app_id) != 0) continue;
            l->twin = (conf->apps_count + i - app) * r->place->app_stride;
        }
        return true;
    }
    l->app_id = more[app - conf->apps_count];
    for (uint32_t i = 0; i < conf->apps_count; i++) {
        if (strcmp(conf->app_ids[i], l->app_id) == 0) return false;
    }
    return true;
}

static void put_series(struct render *r)
{
    const struct metric_place *p = r->place;

    for (uint32_t i = 0; i < p->buckets_count; i++) {
        snprintf(r->bounds[i], NUMBER_BYTES, "%.15g", p->buckets[i]);
    }
    snprintf(r->bounds[p->buckets_count], NUMBER_BYTES, "+Inf");

    for (uint32_t i = 0; i < p->apps_count * p->rows_count; i++) {
        struct line l = {.offset = i * p->width, .row = i % p->rows_count};
        if (!line_set_app(r, &l, i / p->rows_count)) continue;
        if (r->series->shard_label == NULL) {
            put_line(r, &l);
            continue;
        }
        for (uint32_t s = 0; s < r->sets_count; s++) {
            l.set = r->sets[s];
            if (l.set->shard != METRIC_NO_SHARD) put_line(r, &l);
        }
    }
}

err_t metric_render(const struct metric_table *t, const struct metrics *const *sets,
                    uint32_t sets_count, struct metric_text *out)
{
    struct render r = {.table = t, .sets = sets, .sets_count = sets_count, .out = out};

    for (uint32_t i = 0; i < sets_count; i++) ASSERT(sets[i]->table == t);
    out->bytes = 0;
    out->failed = false;
    for (uint32_t i = 0; i < t->series_count; i++) {
        r.series = &t->series[i];
        r.place = &t->places[i];
        bool continues = i > 0 && series_same_family(&t->series[i - 1], r.series);
        if (!continues) put_family_head(&r);
        put_series(&r);
    }
    return out->failed ? ERR_MEMORY : OK;
}
