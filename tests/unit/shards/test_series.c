/* Goal    The table of this build prints valid text with every series the operators' alerts name,
 *         and docs/metrics.md says the same as the table.
 * Method  Render for two shards and three apps and read back. `test_series --print` prints the
 *         page: to renew it, write that output to docs/metrics.md.
 */
#include "shards/series.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../core/exposition.h"
#include "proto/pusher.h"

enum { SHARDS = 2, APPS = 3, DOCS_BYTES_MAX = 1 << 20 };

static const char *const app_ids[APPS] = {"app-id", "shop", "chat"};
static const struct metric_table_conf conf = {app_ids, APPS, "sockudo_", "9601"};

struct fixture {
    struct metric_table   table;
    struct metrics        sets[SHARDS];
    const struct metrics *all[SHARDS];
    struct metric_text    text;
};

static void fixture_open(struct fixture *f)
{
    *f = (struct fixture){0};
    assert_int_equal(metric_table_open(&f->table, series_table, METRIC_COUNT, &conf), OK);
    for (int32_t i = 0; i < SHARDS; i++) {
        assert_int_equal(metric_open(&f->sets[i], &f->table, i), OK);
        f->all[i] = &f->sets[i];
    }
}

static void fixture_render(struct fixture *f)
{
    assert_int_equal(metric_render(&f->table, f->all, SHARDS, &f->text), OK);
}

static void fixture_close(struct fixture *f)
{
    for (uint32_t i = 0; i < SHARDS; i++) metric_close(&f->sets[i]);
    metric_table_close(&f->table);
    metric_text_free(&f->text);
}

static void series_all_exist_from_the_start(void **state)
{
    static const char *const want[] = {
        "sockudo_connected{app_id=\"shop\",port=\"9601\"}",
        "sockudo_connection_errors_total{app_id=\"unknown\",port=\"9601\","
        "error_type=\"app_not_found\"}",
        "sockudo_http_calls_received_total{app_id=\"system\",port=\"9601\"}",
        "sockudo_active_channels{app_id=\"chat\",port=\"9601\",channel_type=\"private_encrypted\"}",
        "sockudo_broadcast_latency_ms_bucket{app_id=\"app-id\",port=\"9601\","
        "channel_type=\"public\",recipient_count_bucket=\"xl\",le=\"0.5\"}",
        "sockudo_rate_limit_triggered_total{port=\"9601\",app_id=\"global\","
        "limiter_type=\"websocket_rate_limit\",request_context=\"websocket_upgrade\"}",
        "sockudo_rate_limit_checks_total{app_id=\"shop\",port=\"9601\","
        "limiter_type=\"client_events\",request_context=\"unknown\"}",
        "sockudo_slow_consumer_disconnects_total{app_id=\"shop\",limit=\"bytes\"}",
        "sockudo_limit_hits_total{limit=\"read_rate\"}",
        "sockudo_mail_queue_delay_us_bucket{shard=\"1\",le=\"+Inf\"}",
        "sockudo_tokio_worker_busy_ratio{worker=\"0\"}",
        "sockudo_tokio_active_tasks", "sockudo_drain_state", "process_open_fds",
    };
    struct fixture f;

    fixture_open(&f);
    fixture_render(&f);
    uint32_t lines_count = expo_check(&f.text);
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        assert_true(expo_value(&f.text, want[i]) == 0);
    }
    print_message("%d series, %u lines, %zu bytes of text, %u cells (%llu bytes) per shard\n",
                  (int)METRIC_COUNT, lines_count, f.text.bytes, f.table.cells_count,
                  (unsigned long long)metric_bytes(&f.table));
    assert_true(metric_bytes(&f.table) < 16384);     /* a shard's counters stay near its caches */
    fixture_close(&f);
}

static void series_broadcast_finds_the_row_of_its_labels(void **state)
{
    static const struct { uint64_t recipients; const char *size; } cases[] = {
        {1, "xs"}, {10, "xs"}, {11, "sm"}, {100, "sm"}, {101, "md"}, {1000, "md"},
        {1001, "lg"}, {10000, "lg"}, {10001, "xl"}, {UINT64_MAX, "xl"},
    };
    const struct metric_labels *rows = series_table[METRIC_BROADCAST_LATENCY_MS].labels;
    const struct metric_labels *types = series_table[METRIC_ACTIVE_CHANNELS].labels;

    for (uint32_t type = 0; type < SERIES_CHANNEL_COUNT; type++) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            uint32_t row = series_broadcast((enum series_channel)type, cases[i].recipients);
            assert_true(row < rows->rows_count);
            assert_string_equal(rows->values[row * 2], types->values[type]);
            assert_string_equal(rows->values[row * 2 + 1], cases[i].size);
        }
    }
}

static void series_enums_follow_their_label_rows(void **state)
{
    static const struct { enum metric_id id; uint32_t row, name; const char *value; } cases[] = {
        {METRIC_CONNECTION_ERRORS_TOTAL, SERIES_ERROR_MISSING_EVENT_NAME, 0, "missing_event_name"},
        {METRIC_LIMIT_HITS_TOTAL, SERIES_LIMIT_IDEMPOTENCY_ENTRIES, 0, "idempotency_entries"},
        {METRIC_SLOW_CONSUMER_DISCONNECTS_TOTAL, SERIES_SLOW_BYTES, 0, "bytes"},
        {METRIC_SLOW_CONSUMER_DISCONNECTS_TOTAL, SERIES_SLOW_MESSAGES, 0, "messages"},
        {METRIC_RATE_LIMIT_CHECKS_TOTAL, SERIES_LIMITER_MESSAGES, 0, "messages"},
        {METRIC_RATE_LIMIT_CHECKS_TOTAL, SERIES_LIMITER_CLIENT_EVENTS, 0, "client_events"},
        {METRIC_RATE_LIMIT_CHECKS_TOTAL_GLOBAL, SERIES_LIMITER_API, 1, "api_rate_limit"},
        {METRIC_RATE_LIMIT_CHECKS_TOTAL_GLOBAL, SERIES_LIMITER_WEBSOCKET, 1,
         "websocket_rate_limit"},
        {METRIC_ACTIVE_CHANNELS, SERIES_CHANNEL_PRESENCE, 0, "presence"},
        {METRIC_ACTIVE_CHANNELS, SERIES_CHANNEL_CACHE, 0, "cache"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct metric_labels *l = series_table[cases[i].id].labels;
        assert_string_equal(l->values[cases[i].row * l->names_count + cases[i].name],
                            cases[i].value);
    }
    const struct metric_labels *types = series_table[METRIC_ACTIVE_CHANNELS].labels;
    assert_int_equal(types->rows_count, PUSHER_TYPE_LABELS);
    for (uint32_t i = 0; i < PUSHER_TYPE_LABELS; i++) {  /* pusher_type_label is the row */
        assert_string_equal(types->values[i], pusher_type_labels[i]);
    }
    assert_int_equal(series_app_unknown(APPS), APPS);
    assert_int_equal(series_app_system(APPS), APPS + 1);
}

static void series_process_tells_of_this_process(void **state)
{
    struct fixture f;

    fixture_open(&f);
    fixture_render(&f);
    series_process(&f.sets[0], f.all, SHARDS, 1700000000250);
    int64_t fds = metric_read(&f.sets[0], METRIC_PROCESS_OPEN_FDS, 0, 0);
    metric_set(&f.sets[0], METRIC_DIRECT_DESCRIPTORS, 0, 0, 1000);
    metric_set(&f.sets[1], METRIC_DIRECT_DESCRIPTORS, 0, 0, 2000);
    series_process(&f.sets[0], f.all, SHARDS, 1700000000250);
    fixture_render(&f);
    expo_check(&f.text);
    assert_true(fds >= 3);
    assert_true(expo_value(&f.text, "process_open_fds") == (double)(fds + 3000));
    assert_true(expo_value(&f.text, "process_max_fds") >= 3);
    assert_true(expo_value(&f.text, "process_start_time_seconds") == 1700000000.25);
    assert_true(expo_value(&f.text, "process_cpu_seconds_total") < 3600);
    double resident = expo_value(&f.text, "process_resident_memory_bytes");
    assert_true(resident > 100000);
    assert_true(expo_value(&f.text, "process_virtual_memory_bytes") >= resident);
    fixture_close(&f);
}

/* ---- docs/metrics.md ---- */

static bool value_seen(const struct metric_labels *l, uint32_t row, uint32_t name)
{
    for (uint32_t i = 0; i < row; i++) {
        if (strcmp(l->values[i * l->names_count + name], l->values[row * l->names_count + name])
            == 0) {
            return true;
        }
    }
    return false;
}

static void docs_labels(FILE *out, const struct metric_series *s)
{
    const struct metric_labels *l = s->labels;
    const char                 *comma = "";

    if (s->has_app) fprintf(out, "`app_id`"), comma = ", ";
    for (uint32_t i = 0; s->apps_more != NULL && s->apps_more[i] != NULL; i++) {
        fprintf(out, "%s`%s`", i == 0 ? " (also " : " ", s->apps_more[i]);
    }
    if (s->apps_more != NULL) fprintf(out, ")");
    if (s->has_port) fprintf(out, "%s`port`", comma), comma = ", ";
    for (uint32_t name = 0; name < l->names_count; name++) {
        fprintf(out, "%s`%s`:", comma, l->names[name]);
        for (uint32_t row = 0; row < l->rows_count; row++) {
            if (value_seen(l, row, name)) continue;
            fprintf(out, " `%s`", l->values[row * l->names_count + name]);
        }
        comma = ", ";
    }
    if (s->shard_label != NULL) fprintf(out, "%s`%s`", comma, s->shard_label);
}

static void docs_print(FILE *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};

    fprintf(out,
            "# Metrics\n\n"
            "`GET /metrics` on the metrics port (9601) answers in Prometheus text format 0.0.4.\n"
            "This page is printed from the table in `shards/series.h` and a test keeps it in "
            "step.\n\n"
            "The prefix `sockudo_` is the default of `metrics.prometheus.prefix`; `process_*` has "
            "none.\nEvery series is there from the start, at 0, for every configured app. "
            "`port` is the metrics port,\n`shard` and `worker` are the shard's number. "
            "Histograms list their bucket bounds.\n\n"
            "| name | type | labels | meaning |\n|---|---|---|---|\n");
    for (uint32_t i = 0; i < METRIC_COUNT; i++) {
        const struct metric_series *s = &series_table[i];
        fprintf(out, "| `%s%s` | %s | ", s->literal_name ? "" : conf.prefix, s->name,
                types[s->type]);
        docs_labels(out, s);
        fprintf(out, " | %s", s->help);
        for (uint32_t b = 0; b < s->buckets_count; b++) {
            fprintf(out, "%s%.15g", b == 0 ? " Buckets: " : " ", s->buckets[b]);
        }
        fprintf(out, "%s |\n", s->buckets_count > 0 ? "." : "");
    }
}

static void series_docs_are_in_step(void **state)
{
    char  *want = NULL, *have = malloc(DOCS_BYTES_MAX);
    size_t want_bytes = 0;

    assert_non_null(have);
    FILE *out = open_memstream(&want, &want_bytes);
    assert_non_null(out);
    docs_print(out);
    assert_int_equal(fclose(out), 0);

    FILE *in = fopen(DOCS_METRICS, "r");
    assert_non_null(in);
    size_t have_bytes = fread(have, 1, DOCS_BYTES_MAX, in);
    fclose(in);
    assert_int_equal(have_bytes, want_bytes);
    assert_memory_equal(have, want, want_bytes);
    free(want);
    free(have);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(series_all_exist_from_the_start),
        cmocka_unit_test(series_broadcast_finds_the_row_of_its_labels),
        cmocka_unit_test(series_enums_follow_their_label_rows),
        cmocka_unit_test(series_process_tells_of_this_process),
        cmocka_unit_test(series_docs_are_in_step),
    };

    if (argc > 1 && strcmp(argv[1], "--print") == 0) {
        docs_print(stdout);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
