#include "core/conf_parts.h"

#include <ctype.h>
#include <sched.h>
#include <stdlib.h>

enum { FLAG_TEXT_BYTES = 8192 };

/* ---- one value from outside the file -------------------------------------------------------- */

/* `text` is YAML: a number, a word in or without quotes, a list in brackets. */
static err_t value_load(struct conf_job *job, const char *source, const char *path,
                        const char *text)
{
    const struct conf_key *key = conf_table_find(&conf_table_server, path);
    bool empty;

    if (key == NULL) return conf_fail_key(job, source, &conf_table_server, "", path);
    err_t e = conf_check(job, source, false, key, text, strlen(text), &empty);
    if (e != OK) return e;
    return conf_schema_load(job, source, key, text, strlen(text));
}

/* `text` is meant as it stands, as in --data-dir "a: b"; YAML's double quotes carry it. */
static err_t plain_load(struct conf_job *job, const char *source, const char *path,
                        const char *text)
{
    char quoted[FLAG_TEXT_BYTES];
    size_t n = 0;

    if (strlen(text) > (sizeof(quoted) - 3) / 4)
        return conf_fail(job, source, "%s: expected a shorter value", path);
    quoted[n++] = '"';
    for (const char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
            n += (size_t)snprintf(quoted + n, sizeof(quoted) - n, "\\x%02x", c);
        else
            quoted[n++] = *p;
    }
    quoted[n++] = '"';
    quoted[n] = '\0';
    return value_load(job, source, path, quoted);
}

/* ---- environment ---------------------------------------------------------------------------- */

/* websocket.max_bytes from WEFT_WEBSOCKET__MAX_BYTES; false when it is too long to be a key. */
static bool path_of_variable(const char *name, size_t bytes, char *out, size_t out_bytes)
{
    size_t n = 0;

    if (bytes >= out_bytes) return false;
    for (size_t i = 0; i < bytes; i++) {
        if (name[i] == '_' && i + 1 < bytes && name[i + 1] == '_') {
            out[n++] = '.';
            i++;
        } else {
            out[n++] = (char)tolower((unsigned char)name[i]);
        }
    }
    out[n] = '\0';
    return true;
}

static err_t environment_load(struct conf_job *job)
{
    for (char **e = job->environment; e != NULL && *e != NULL; e++) {
        char path[CONF_PATH_BYTES], source[CONF_PATH_BYTES], proper[CONF_PATH_BYTES + 64];
        size_t name_bytes = strcspn(*e, "=");

        if (strncmp(*e, "WEFT_", 5) != 0 || (*e)[name_bytes] == '\0') continue;
        snprintf(source, sizeof(source), "%.*s", (int)name_bytes, *e);
        if (!path_of_variable(*e + 5, name_bytes - 5, path, sizeof(path) / 2))
            return conf_fail(job, source, "unknown variable; --help-config lists all");
        conf_table_environment_name(path, proper, sizeof(proper));
        if (strcmp(proper, source) != 0)                   /* lower case, or three underscores */
            return conf_fail(job, source, "unknown variable; did you mean %s?", proper);
        err_t error = value_load(job, source, path, *e + name_bytes + 1);
        if (error != OK) return error;
    }
    return OK;
}

/* ---- flags ---------------------------------------------------------------------------------- */

/* Flags that take a value, and the key each one sets. */
static const struct {
    const char *flag, *path;
} flags[] = {
    {"--host", "host"},
    {"--port", "port"},
    {"--metrics-port", "metrics.port"},
    {"--shards", "shards"},
    {"--data-dir", "data_dir"},
    {"--log-level", "logging.level"},
    {"--config", NULL},
    {"--set", NULL},
};

struct flag {
    const char *name;                /* as in the table; NULL: one without a value */
    const char *path;
    const char *value;               /* borrowed from argv */
};

static enum conf_action bare_action(const char *arg)
{
    if (strcmp(arg, "--check-config") == 0) return CONF_CHECK;
    if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) return CONF_PRINTED;
    if (strcmp(arg, "--help-config") == 0 || strcmp(arg, "--version") == 0) return CONF_PRINTED;
    return CONF_RUN;
}

/* Reads the flag at argv[*at] and steps over it: --name value or --name=value. */
static err_t flag_read(struct conf_job *job, int argc, char **argv, int *at, struct flag *out)
{
    const char *arg = argv[(*at)++];
    size_t name_bytes = strcspn(arg, "=");

    *out = (struct flag){0};
    if (bare_action(arg) != CONF_RUN) return OK;
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        const char *name = flags[i].flag;
        if (strlen(name) != name_bytes || memcmp(name, arg, name_bytes) != 0) continue;
        out->name = name;
        out->path = flags[i].path;
        if (arg[name_bytes] == '=') out->value = arg + name_bytes + 1;
        else if (*at < argc) out->value = argv[(*at)++];
        else return conf_fail(job, name, "expected a value after it; see weft --help");
        return OK;
    }
    char shown[64];
    snprintf(shown, sizeof(shown), "%.*s", (int)u64_min(name_bytes, 60), arg);
    return conf_fail(job, shown, "unknown flag; see weft --help");
}

static err_t set_load(struct conf_job *job, const char *value)
{
    char path[CONF_PATH_BYTES], source[CONF_PATH_BYTES + 16];
    size_t bytes = strcspn(value, "=");

    if (value[bytes] == '\0' || bytes == 0 || bytes >= sizeof(path))
        return conf_fail(job, "--set", "expected key.path=value");
    snprintf(path, sizeof(path), "%.*s", (int)bytes, value);
    snprintf(source, sizeof(source), "--set");
    return value_load(job, source, path, value + bytes + 1);
}

/* All flags of one kind, in order: the last one wins. */
static err_t flags_load(struct conf_job *job, int argc, char **argv, bool config_file)
{
    struct flag f;

    for (int at = 1; at < argc;) {
        err_t e = flag_read(job, argc, argv, &at, &f);
        if (e == OK && f.name != NULL) {
            bool is_config = strcmp(f.name, "--config") == 0;
            if (is_config && config_file) e = conf_file_load(job, f.value);
            else if (!is_config && !config_file && f.path != NULL)
                e = plain_load(job, f.name, f.path, f.value);
            else if (!is_config && !config_file)
                e = set_load(job, f.value);
        }
        if (e != OK) return e;
    }
    return OK;
}

/* --help and its like win over everything, even over flags that are wrong. */
static bool print_wanted(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (bare_action(argv[i]) != CONF_PRINTED) continue;
        if (strcmp(argv[i], "--help-config") == 0) conf_print_reference(stdout);
        else if (strcmp(argv[i], "--version") == 0) conf_print_version(stdout);
        else conf_print_help(stdout);
        fflush(stdout);
        return true;
    }
    return false;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static uint32_t cores_usable(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    return u32_max(1, u32_min((uint32_t)CPU_COUNT(&set), CONF_SHARDS_MAX));
}

static bool given(const struct conf_job *job, const char *path)
{
    return job->given[conf_table_find(&conf_table_server, path) - conf_table_server.keys];
}

/* What the server says of channels, for apps that are silent. */
static struct conf_channels channels_of(const struct conf *c)
{
    return (struct conf_channels){
        .history_enabled = c->history_enabled,
        .history_rewind_enabled = c->history_rewind_enabled,
        .history_relaxed = c->history_relaxed,
        .history_retention_window_seconds = c->history_retention_window_seconds,
        .history_max_messages_per_channel = c->history_max_messages_per_channel,
        .history_max_bytes_per_channel = c->history_max_bytes_per_channel,
        .presence_history_enabled = c->presence_history_enabled,
        .presence_history_retention_window_seconds =
            c->presence_history_retention_window_seconds,
        .presence_history_max_events_per_channel = c->presence_history_max_events_per_channel,
        .presence_history_max_bytes_per_channel = c->presence_history_max_bytes_per_channel,
        .connection_recovery_enabled = c->connection_recovery_enabled,
        .connection_recovery_buffer_ttl_seconds = c->connection_recovery_buffer_ttl_seconds,
        .connection_recovery_max_buffer_size = c->connection_recovery_max_buffer_size,
    };
}

/* Values that depend on others. */
static err_t finish(struct conf_job *job)
{
    struct conf *c = &job->target.conf;

    if (c->shards == 0) c->shards = cores_usable();
    if (c->debug && !given(job, "logging.level")) {
        err_t e = conf_value_store(conf_table_find(&conf_table_server, "logging.level"),
                                   &job->target, "debug");
        if (e != OK) return e;
    }
    if (!c->rate_limiter_enabled) c->rate_api.max_requests = c->rate_websocket.max_requests = 0;
    if (!given(job, "versioned_messages.retention_window_seconds"))
        c->versioned_messages_retention_window_seconds = UINT64_MAX;
    err_t e = conf_names_server_check(job);
    if (e != OK) return e;
    job->target.shared.channels = channels_of(c);
    return conf_apps_resolve(job);
}

err_t conf_job_finish(struct conf_job *job)
{
    for (uint32_t i = 0; i < conf_table_server.count; i++) {
        const struct conf_key *key = &conf_table_server.keys[i];
        const struct conf_slot *slot = &job->merged[i];
        err_t e;

        if (key->type == CONF_APPS) continue;
        if (slot->ptr == NULL) e = conf_value_store_standard(key, &job->target);
        else if (key->type == CONF_LIST)
            e = conf_value_store_list(key, &job->target, slot->ptr, slot->count);
        else e = conf_value_store(key, &job->target, slot->ptr);
        if (e != OK) return e;
    }
    return finish(job);
}

err_t conf_load(struct conf *out, int argc, char **argv, char **environment,
                enum conf_action *action, char *error, uint32_t error_bytes)
{
    struct conf_job job = {.environment = environment, .error = error,
                           .error_bytes = error_bytes};

    ASSERT(error_bytes > 0);
    error[0] = '\0';
    *out = (struct conf){0};
    *action = CONF_PRINTED;
    if (print_wanted(argc, argv)) return OK;

    *action = CONF_RUN;
    for (int i = 1; i < argc; i++)
        if (bare_action(argv[i]) == CONF_CHECK) *action = CONF_CHECK;
    err_t e = conf_schema_open(&job);
    if (e == OK) e = flags_load(&job, argc, argv, true);
    if (e == OK) e = environment_load(&job);
    if (e == OK) e = flags_load(&job, argc, argv, false);
    if (e == OK) e = conf_job_finish(&job);
    conf_schema_close(&job);
    if (e == OK) {
        *out = job.target.conf;
        return OK;
    }
    if (error[0] == '\0') snprintf(error, error_bytes, "configuration: out of memory");
    conf_free(&job.target.conf);
    return e;
}

static void list_free(char **items, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) free(items[i]);
    free(items);
}

void conf_free(struct conf *c)
{
    conf_apps_free(c);
    list_free(c->cors_origins, c->cors_origins_count);
    list_free(c->cors_methods, c->cors_methods_count);
    list_free(c->cors_headers, c->cors_headers_count);
    free(c->host);
    free(c->data_dir);
    free(c->metrics_host);
    free(c->metrics_prefix);
    free(c->log_level);
    *c = (struct conf){0};
}
