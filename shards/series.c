#include "shards/series.h"

#include "core/process.h"

#define COUNT_OF(a) ((uint32_t)(sizeof(a) / sizeof((a)[0])))

/* ---- buckets ---- */

static const double buckets_ms[] = {0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000};
static const double buckets_us[] = {1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000,
                                    10000, 50000};
static const double buckets_bytes[] = {64, 256, 1024, 4096, 16384, 65536, 262144, 1048576};

/* ---- label sets: names, then one row of values per combination ---- */

#define TEXT(id, text) text,
#define LABELS(set, names_n, names_array, values_array)                                \
    static const struct metric_labels set##_labels = {names_n, COUNT_OF(values_array) / names_n, \
                                                      names_array, values_array}

static const struct metric_labels none_labels = {0, 1, NULL, NULL};

static const char *const error_names[] = {"error_type"};
static const char *const error_values[] = {SERIES_ERRORS(TEXT)};
LABELS(errors, 1, error_names, error_values);

static const char *const channel_names[] = {"channel_type"};
static const char *const channel_values[] = {SERIES_CHANNELS(TEXT)};
LABELS(channels, 1, channel_names, channel_values);

#define BROADCAST_ROWS(id, text) text, "xs", text, "sm", text, "md", text, "lg", text, "xl",
static const char *const broadcast_names[] = {"channel_type", "recipient_count_bucket"};
static const char *const broadcast_values[] = {SERIES_CHANNELS(BROADCAST_ROWS)};
LABELS(broadcasts, 2, broadcast_names, broadcast_values);
static_assert(COUNT_OF(broadcast_values) == 2 * SERIES_CHANNEL_COUNT * SERIES_RECIPIENTS_COUNT,
              "series_broadcast counts rows this way");

static const char *const socket_limiter_names[] = {"limiter_type", "request_context"};
static const char *const socket_limiter_values[] = {"messages", "unknown",
                                                    "client_events", "unknown"};
LABELS(socket_limiters, 2, socket_limiter_names, socket_limiter_values);

static const char *const http_limiter_names[] = {"app_id", "limiter_type", "request_context"};
static const char *const http_limiter_values[] = {
    "global", "api_rate_limit", "http_api",
    "global", "websocket_rate_limit", "websocket_upgrade"};
LABELS(http_limiters, 3, http_limiter_names, http_limiter_values);

static const char *const limit_names[] = {"limit"};
static const char *const limit_values[] = {SERIES_LIMITS(TEXT)};
LABELS(limits, 1, limit_names, limit_values);

static const char *const slow_values[] = {"bytes", "messages"};
LABELS(slows, 1, limit_names, slow_values);

static const char *const recovery_names[] = {"code"};
static const char *const recovery_values[] = {SERIES_RECOVERIES(TEXT)};
LABELS(recoveries, 1, recovery_names, recovery_values);

static const char *const source_names[] = {"source"};
static const char *const source_values[] = {"hot", "cold"};
LABELS(sources, 1, source_names, source_values);

#define MUTATION_ROWS(id, text) text, "applied", text, "duplicate", text, "auth_failed",
static const char *const mutation_names[] = {"action", "result"};
static const char *const mutation_values[] = {SERIES_MUTATIONS(MUTATION_ROWS)};
LABELS(mutations, 2, mutation_names, mutation_values);

static const char *const retrieval_names[] = {"surface", "result"};
static const char *const retrieval_values[] = {"latest", "hit", "latest", "miss",
                                               "versions", "hit", "versions", "miss"};
LABELS(retrievals, 2, retrieval_names, retrieval_values);

static const char *const substitution_names[] = {"result"};
static const char *const substitution_values[] = {"applied", "missing_latest", "not_versioned"};
LABELS(substitutions, 1, substitution_names, substitution_values);

/* ---- forms and scopes of SERIES_LIST ---- */

#define FORM_COUNTER .type = METRIC_COUNTER
#define FORM_GAUGE .type = METRIC_GAUGE
#define FORM_GAUGE_MAX .type = METRIC_GAUGE, .merge = METRIC_MAX
#define FORM_RATIO .type = METRIC_GAUGE, .decimals = 6
#define FORM_MEAN_NS .type = METRIC_GAUGE, .merge = METRIC_MEAN, .decimals = 3
#define FORM_CPU_US .type = METRIC_COUNTER, .decimals = 6
#define FORM_TIME_MS .type = METRIC_GAUGE, .decimals = 3
#define FORM_HISTOGRAM(array) \
    .type = METRIC_HISTOGRAM, .buckets = array, .buckets_count = COUNT_OF(array)
#define FORM_MS FORM_HISTOGRAM(buckets_ms)
#define FORM_US FORM_HISTOGRAM(buckets_us)
#define FORM_BYTES FORM_HISTOGRAM(buckets_bytes)

static const char *const apps_unknown[] = {"unknown", NULL};
static const char *const apps_more[] = {"unknown", "system", NULL};

#define SCOPE_PROCESS .literal_name = true
#define SCOPE_SERVER .literal_name = false
#define SCOPE_APP .has_app = true
#define SCOPE_APP_PORT .has_app = true, .has_port = true
#define SCOPE_APP_PORT_UNKNOWN .has_app = true, .has_port = true, .apps_more = apps_unknown
#define SCOPE_APP_PORT_MORE .has_app = true, .has_port = true, .apps_more = apps_more
#define SCOPE_GLOBAL_PORT .has_port = true
#define SCOPE_SHARD .shard_label = "shard"
#define SCOPE_WORKER .shard_label = "worker"

#define SERIES_ROW(id, text, form, scope, set, sentence) \
    [METRIC_##id] = {.name = text, .help = sentence, FORM_##form, SCOPE_##scope, \
                     .labels = &set##_labels},

const struct metric_series series_table[METRIC_COUNT] = {SERIES_LIST(SERIES_ROW)};

static int64_t clamped(uint64_t value)
{
    return (int64_t)u64_min(value, INT64_MAX);       /* "no limit" is all ones */
}

void series_process(struct metrics *m, const struct metrics *const *sets, uint32_t sets_count,
                    uint64_t started_wall_ms)
{
    struct process_facts facts;
    int64_t              fds_direct = metric_sum(sets, sets_count, METRIC_DIRECT_DESCRIPTORS, 0, 0);

    process_read(&facts);
    metric_set(m, METRIC_PROCESS_RESIDENT_MEMORY_BYTES, 0, 0, clamped(facts.resident_bytes));
    metric_set(m, METRIC_PROCESS_VIRTUAL_MEMORY_BYTES, 0, 0, clamped(facts.virtual_bytes));
    metric_set(m, METRIC_PROCESS_CPU_SECONDS_TOTAL, 0, 0, clamped(facts.cpu_us));
    metric_set(m, METRIC_PROCESS_START_TIME_SECONDS, 0, 0, clamped(started_wall_ms));
    metric_set(m, METRIC_PROCESS_OPEN_FDS, 0, 0, clamped(facts.fds_open) + fds_direct);
    metric_set(m, METRIC_PROCESS_MAX_FDS, 0, 0, clamped(facts.fds_max));
}
