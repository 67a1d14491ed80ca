/* Goal    What the engine prints is valid Prometheus text and says what was counted.
 * Method  A small table with one series of each kind; the text is read back by a strict reader.
 */
#include "core/metric.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "exposition.h"

static const char *const kind_names[] = {"kind", "size"};
static const char *const kind_values[] = {"a", "small", "a", "big", "b", "small"};
static const struct metric_labels kinds = {2, 3, kind_names, kind_values};
static const char *const global_names[] = {"app_id"};
static const char *const global_values[] = {"global"};
static const struct metric_labels global = {1, 1, global_names, global_values};
static const char *const more[] = {"unknown", "system", NULL};
static const double bounds[] = {0.5, 1, 2.5, 1000};

enum id { PLAIN, APPS, KINDS, FAMILY, FAMILY_GLOBAL, SPAN, SHARD_SPAN, PER_SHARD, RATIO, MOST, MEAN,
          LITERAL, ID_COUNT };

static const struct metric_series series[ID_COUNT] = {
    [PLAIN] = {.name = "plain_total", .help = "Line\nbreak, back\\slash, \"quote\".",
               .type = METRIC_COUNTER},
    [APPS] = {.name = "apps", .help = "Per app.", .type = METRIC_GAUGE, .has_app = true,
              .has_port = true, .apps_more = more},
    [KINDS] = {.name = "kinds_total", .help = "Rows.", .type = METRIC_COUNTER, .has_app = true,
               .labels = &kinds},
    [FAMILY] = {.name = "family_total", .help = "Shared name.", .type = METRIC_COUNTER,
                .has_app = true, .has_port = true},
    [FAMILY_GLOBAL] = {.name = "family_total", .help = "Shared name.", .type = METRIC_COUNTER,
                       .has_port = true, .labels = &global},
    [SPAN] = {.name = "span_ms", .help = "Histogram.", .type = METRIC_HISTOGRAM, .has_app = true,
              .has_port = true, .labels = &kinds, .buckets = bounds, .buckets_count = 4},
    [SHARD_SPAN] = {.name = "shard_span_us", .help = "Histogram per shard.",
                    .type = METRIC_HISTOGRAM, .shard_label = "shard", .buckets = bounds,
                    .buckets_count = 4},
    [PER_SHARD] = {.name = "per_shard", .help = "Per shard.", .type = METRIC_GAUGE,
                   .shard_label = "worker"},
    [RATIO] = {.name = "ratio", .help = "Scaled.", .type = METRIC_GAUGE, .decimals = 6},
    [MOST] = {.name = "most", .help = "Largest.", .type = METRIC_GAUGE, .merge = METRIC_MAX},
    [MEAN] = {.name = "mean", .help = "Mean.", .type = METRIC_GAUGE, .merge = METRIC_MEAN,
              .decimals = 3},
    [LITERAL] = {.name = "process_x", .help = "No prefix.", .type = METRIC_GAUGE,
                 .literal_name = true},
};

enum { SETS = 3 };                     /* two shards, one thread that is none */

struct fixture {
    struct metric_table   table;
    struct metrics        sets[SETS];
    const struct metrics *all[SETS];
    struct metric_text    text;
};

static void fixture_open(struct fixture *f, const char *const *apps, uint32_t apps_count)
{
    const struct metric_table_conf conf = {apps, apps_count, "weft_", "9601"};

    *f = (struct fixture){0};
    assert_int_equal(metric_table_open(&f->table, series, ID_COUNT, &conf), OK);
    for (int32_t i = 0; i < SETS; i++) {
        int32_t shard = i < SETS - 1 ? i : METRIC_NO_SHARD;
        assert_int_equal(metric_open(&f->sets[i], &f->table, shard), OK);
        f->all[i] = &f->sets[i];
    }
}

static void fixture_render(struct fixture *f)
{
    assert_int_equal(metric_render(&f->table, f->all, SETS, &f->text), OK);
}

static void fixture_close(struct fixture *f)
{
    for (uint32_t i = 0; i < SETS; i++) metric_close(&f->sets[i]);
    metric_table_close(&f->table);
    metric_text_free(&f->text);
}

static const char *const two_apps[] = {"one", "two"};

static void metric_every_series_is_there_and_zero(void **state)
{
    struct fixture f;

    fixture_open(&f, two_apps, 2);
    fixture_render(&f);
    /* 1 + 4 apps + 2 apps * 3 rows + 2 + 1 + 2 * 3 histograms of 7 + 2 shards of 7 + 2 + 4 */
    assert_int_equal(expo_check(&f.text), 1 + 4 + 6 + 3 + 42 + 14 + 2 + 4);
    assert_true(expo_value(&f.text, "weft_plain_total") == 0);
    assert_true(expo_value(&f.text, "weft_apps{app_id=\"two\",port=\"9601\"}") == 0);
    assert_true(expo_value(&f.text, "weft_apps{app_id=\"unknown\",port=\"9601\"}") == 0);
    assert_true(expo_value(&f.text, "weft_kinds_total{app_id=\"one\",kind=\"b\",size=\"small\"}")
                == 0);
    assert_true(expo_value(&f.text, "weft_span_ms_bucket{app_id=\"one\",port=\"9601\",kind=\"a\","
                                    "size=\"big\",le=\"+Inf\"}") == 0);
    assert_true(expo_value(&f.text, "weft_shard_span_us_count{shard=\"1\"}") == 0);
    assert_true(expo_value(&f.text, "process_x") == 0);
    fixture_close(&f);
}

static void metric_values_are_summed_over_sets(void **state)
{
    struct fixture f;

    fixture_open(&f, two_apps, 2);
    metric_add(&f.sets[0], PLAIN, 0, 0, 5);
    metric_add(&f.sets[1], PLAIN, 0, 0, 7);
    metric_add(&f.sets[2], PLAIN, 0, 0, 1);
    metric_add(&f.sets[0], APPS, 1, 0, 10);
    metric_add(&f.sets[1], APPS, 1, 0, -4);
    metric_add(&f.sets[1], APPS, 3, 0, 9);
    metric_add(&f.sets[0], KINDS, 1, 2, 3);
    metric_set(&f.sets[0], PER_SHARD, 0, 0, 11);
    metric_set(&f.sets[1], PER_SHARD, 0, 0, 22);
    metric_set(&f.sets[2], PER_SHARD, 0, 0, 33);
    fixture_render(&f);
    expo_check(&f.text);

    assert_true(expo_value(&f.text, "weft_plain_total") == 13);
    assert_true(expo_value(&f.text, "weft_apps{app_id=\"one\",port=\"9601\"}") == 0);
    assert_true(expo_value(&f.text, "weft_apps{app_id=\"two\",port=\"9601\"}") == 6);
    assert_true(expo_value(&f.text, "weft_apps{app_id=\"system\",port=\"9601\"}") == 9);
    assert_true(expo_value(&f.text, "weft_kinds_total{app_id=\"two\",kind=\"b\",size=\"small\"}")
                == 3);
    assert_true(expo_value(&f.text, "weft_per_shard{worker=\"0\"}") == 11);
    assert_true(expo_value(&f.text, "weft_per_shard{worker=\"1\"}") == 22);
    assert_false(expo_has(&f.text, "weft_per_shard{worker=\"-1\"}"));
    assert_int_equal(metric_sum(f.all, SETS, APPS, 1, 0), 6);
    assert_int_equal(metric_read(&f.sets[1], APPS, 1, 0), -4);
    fixture_close(&f);
}

static void metric_merges_by_maximum_and_mean(void **state)
{
    struct fixture f;

    fixture_open(&f, two_apps, 2);
    metric_set(&f.sets[0], MOST, 0, 0, 1);
    metric_set(&f.sets[1], MOST, 0, 0, 1);
    metric_set(&f.sets[0], MEAN, 0, 0, 3000);
    metric_set(&f.sets[1], MEAN, 0, 0, 4000);
    fixture_render(&f);
    assert_true(expo_value(&f.text, "weft_most") == 1);
    assert_true(expo_value(&f.text, "weft_mean") == 3.5);
    fixture_close(&f);
}

static void metric_scaled_numbers_are_exact(void **state)
{
    static const struct { int64_t cell; const char *text; } cases[] = {
        {0, "weft_ratio 0\n"}, {1, "weft_ratio 0.000001\n"}, {500000, "weft_ratio 0.5\n"},
        {1000000, "weft_ratio 1\n"}, {10000000, "weft_ratio 10\n"},
        {-1500000, "weft_ratio -1.5\n"}, {123456789, "weft_ratio 123.456789\n"},
        {INT64_MAX, "weft_ratio 9223372036854.775807\n"},
        {INT64_MIN, "weft_ratio -9223372036854.775808\n"},
    };
    struct fixture f;

    fixture_open(&f, two_apps, 2);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        metric_set(&f.sets[0], RATIO, 0, 0, cases[i].cell);
        fixture_render(&f);
        expo_check(&f.text);
        assert_non_null(memmem(f.text.ptr, f.text.bytes, cases[i].text, strlen(cases[i].text)));
    }
    fixture_close(&f);
}

static void metric_histogram_is_cumulative(void **state)
{
    static const struct { const char *sample; double value; } want[] = {
        {"bucket{app_id=\"two\",port=\"9601\",kind=\"a\",size=\"big\",le=\"0.5\"}", 1},
        {"bucket{app_id=\"two\",port=\"9601\",kind=\"a\",size=\"big\",le=\"1\"}", 2},
        {"bucket{app_id=\"two\",port=\"9601\",kind=\"a\",size=\"big\",le=\"2.5\"}", 4},
        {"bucket{app_id=\"two\",port=\"9601\",kind=\"a\",size=\"big\",le=\"1000\"}", 4},
        {"bucket{app_id=\"two\",port=\"9601\",kind=\"a\",size=\"big\",le=\"+Inf\"}", 5},
        {"count{app_id=\"two\",port=\"9601\",kind=\"a\",size=\"big\"}", 5},
        {"sum{app_id=\"two\",port=\"9601\",kind=\"a\",size=\"big\"}", 1005.5},
        {"count{app_id=\"two\",port=\"9601\",kind=\"a\",size=\"small\"}", 0},
        {"count{app_id=\"one\",port=\"9601\",kind=\"a\",size=\"big\"}", 0},
    };
    struct fixture f;

    fixture_open(&f, two_apps, 2);
    metric_observe(&f.sets[0], SPAN, 1, 1, 0.25);
    metric_observe(&f.sets[0], SPAN, 1, 1, 1);       /* equal to a bound: in that bucket */
    metric_observe(&f.sets[1], SPAN, 1, 1, 1.25);
    metric_observe(&f.sets[1], SPAN, 1, 1, 2.0);
    metric_observe(&f.sets[0], SPAN, 1, 1, 1001);
    metric_observe(&f.sets[1], SHARD_SPAN, 0, 0, 3);
    fixture_render(&f);
    expo_check(&f.text);
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        char sample[256];
        snprintf(sample, sizeof(sample), "weft_span_ms_%s", want[i].sample);
        assert_true(expo_value(&f.text, sample) == want[i].value);
    }
    assert_true(expo_value(&f.text, "weft_shard_span_us_count{shard=\"0\"}") == 0);
    assert_true(expo_value(&f.text, "weft_shard_span_us_sum{shard=\"1\"}") == 3);
    assert_int_equal(metric_sum(f.all, SETS, SPAN, 1, 1), 5);
    fixture_close(&f);
}

static void metric_texts_are_escaped(void **state)
{
    static const char *const apps[] = {"a\"b\\c\nd", "\xc3\xa9"};
    static const char help[] = "# HELP weft_plain_total Line\\nbreak, back\\\\slash, \"quote\".\n";
    struct fixture f;

    fixture_open(&f, apps, 2);
    metric_add(&f.sets[0], APPS, 0, 0, 4);
    fixture_render(&f);
    expo_check(&f.text);
    assert_true(expo_value(&f.text, "weft_apps{app_id=\"a\\\"b\\\\c\\nd\",port=\"9601\"}") == 4);
    assert_true(expo_has(&f.text, "weft_apps{app_id=\"\xc3\xa9\",port=\"9601\"}"));
    assert_memory_equal(f.text.ptr, help, strlen(help));
    fixture_close(&f);
}

static void metric_family_has_one_head(void **state)
{
    static const char head[] = "# TYPE weft_family_total counter\n";
    struct fixture f;

    fixture_open(&f, two_apps, 2);
    metric_add(&f.sets[0], FAMILY, 0, 0, 2);
    metric_add(&f.sets[0], FAMILY_GLOBAL, 0, 0, 3);
    fixture_render(&f);
    expo_check(&f.text);
    char *first = memmem(f.text.ptr, f.text.bytes, head, strlen(head));
    assert_non_null(first);
    size_t rest = f.text.bytes - (size_t)(first + 1 - f.text.ptr);
    assert_null(memmem(first + 1, rest, head, strlen(head)));
    assert_true(expo_value(&f.text, "weft_family_total{app_id=\"one\",port=\"9601\"}") == 2);
    assert_true(expo_value(&f.text, "weft_family_total{port=\"9601\",app_id=\"global\"}") == 3);
    fixture_close(&f);
}

/* An operator may name an app "system"; a sample that occurs twice would void the scrape. */
static void metric_app_named_like_an_extra_id_shares_its_line(void **state)
{
    static const char *const apps[] = {"one", "system"};
    struct fixture f;

    fixture_open(&f, apps, 2);
    metric_add(&f.sets[0], APPS, 1, 0, 4);           /* the configured app */
    metric_add(&f.sets[1], APPS, 3, 0, 5);           /* the extra id */
    fixture_render(&f);
    expo_check(&f.text);
    assert_true(expo_value(&f.text, "weft_apps{app_id=\"system\",port=\"9601\"}") == 9);
    assert_true(expo_value(&f.text, "weft_apps{app_id=\"unknown\",port=\"9601\"}") == 0);
    fixture_close(&f);
}

static void metric_cells_do_not_overlap(void **state)
{
    struct fixture f;
    int64_t        value = 1;

    fixture_open(&f, two_apps, 2);
    for (int pass = 0; pass < 2; pass++) {           /* write a distinct value to each, then read */
        value = 1;
        for (uint32_t id = 0; id < ID_COUNT; id++) {
            const struct metric_place *p = &f.table.places[id];
            if (series[id].type == METRIC_HISTOGRAM) continue;
            for (uint32_t i = 0; i < p->apps_count * p->rows_count; i++, value++) {
                uint32_t app = i / p->rows_count, row = i % p->rows_count;
                if (pass == 0) metric_set(&f.sets[0], id, app, row, value);
                assert_int_equal(metric_read(&f.sets[0], id, app, row), value);
            }
        }
    }
    assert_int_equal(metric_sum(f.all, SETS, SPAN, 0, 0), 0);
    fixture_close(&f);
}

enum { WRITES = 200000 };

struct writer {
    struct metrics *set;
    bool            done;
};

static void *write_all(void *arg)
{
    struct writer *w = arg;

    for (int i = 0; i < WRITES; i++) {
        metric_add(w->set, PLAIN, 0, 0, 1);
        metric_observe(w->set, SPAN, 0, 0, i % 4);
        metric_set(w->set, PER_SHARD, 0, 0, i);
    }
    __atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void metric_is_rendered_while_another_thread_writes(void **state)
{
    struct fixture f;
    pthread_t      threads[2];
    struct writer  writers[2];
    double         total_before = 0;
    bool           done = false;

    fixture_open(&f, two_apps, 2);
    for (int i = 0; i < 2; i++) {
        writers[i] = (struct writer){.set = &f.sets[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, write_all, &writers[i]), 0);
    }
    while (!done) {
        done = __atomic_load_n(&writers[0].done, __ATOMIC_ACQUIRE) &&
               __atomic_load_n(&writers[1].done, __ATOMIC_ACQUIRE);
        fixture_render(&f);
        expo_check(&f.text);                         /* +Inf equals the count every time */
        double total = expo_value(&f.text, "weft_plain_total");
        assert_true(total >= total_before);
        total_before = total;
    }
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(total_before == 2 * WRITES);
    assert_true(expo_value(&f.text, "weft_span_ms_sum{app_id=\"one\",port=\"9601\",kind=\"a\","
                                    "size=\"small\"}") == 2 * (WRITES / 4) * (0 + 1 + 2 + 3));
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metric_every_series_is_there_and_zero),
        cmocka_unit_test(metric_values_are_summed_over_sets),
        cmocka_unit_test(metric_merges_by_maximum_and_mean),
        cmocka_unit_test(metric_scaled_numbers_are_exact),
        cmocka_unit_test(metric_histogram_is_cumulative),
        cmocka_unit_test(metric_texts_are_escaped),
        cmocka_unit_test(metric_family_has_one_head),
        cmocka_unit_test(metric_app_named_like_an_extra_id_shares_its_line),
        cmocka_unit_test(metric_cells_do_not_overlap),
        cmocka_unit_test(metric_is_rendered_while_another_thread_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
