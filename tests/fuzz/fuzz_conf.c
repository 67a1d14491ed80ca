/* fuzz_conf.c - any text as a configuration file.
 *
 * Goal    A text is either loaded or refused with one line; what the checker (libyaml) accepts,
 *         the loader (libcyaml) loads and the table stores, so nothing is refused without a line
 *         number, what lacks its ground aside, and nothing asserts.
 * Method  The text goes through ${VAR} expansion, the check, the schema and the resolving of apps
 *         and namespaces; the result is asked about a channel.
 */
#include "core/conf_parts.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(bool held)
{
    if (!held) abort();
}

/* Any bytes may be asked about as a channel; what is on must have what it stands on. */
static void ask(const struct conf *c, uint32_t app, struct slice channel)
{
    struct conf_policy p;
    const struct conf_names *names = &c->apps[app].names;

    conf_policy_of(c, app, channel, &p);
    require(!p.annotations || p.versioned);
    require(p.history || (!p.versioned && !p.rewind));
    require(c->history_enabled || (!p.history && !p.presence_history));
    require(c->connection_recovery_enabled || !p.recovery);
    for (uint32_t i = 0; i < names->count; i++) {
        require(i == 0 || strcmp(names->list[i - 1].name, names->list[i].name) < 0);
        conf_namespace_admits(&names->list[i], slice_of(channel.ptr, u32_min(channel.bytes, 200)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char *environment[] = {"PORT=7001", "SECRET=s", NULL};
    char error[512] = "";
    struct conf_job job = {.environment = environment, .error = error,
                           .error_bytes = sizeof(error)};

    if (bytes > 4096) return 0;
    require(conf_schema_open(&job) == OK);
    err_t e = conf_file_load_text(&job, "weft.yaml", (const char *)data, bytes);
    if (e == OK) {
        e = conf_job_finish(&job);
        require(e == OK || strncmp(error, "configuration: ", 15) == 0);
    }
    if (e == OK) {
        require(job.target.conf.apps_count >= 1 && job.target.conf.shards >= 1);
        for (uint32_t i = 0; i < job.target.conf.apps_count; i++)
            ask(&job.target.conf, i, slice_of(data, (uint32_t)bytes));
    }
    require(e == OK || e == ERR_CONFIG);
    require((e == OK) == (error[0] == '\0'));
    require(strchr(error, '\n') == NULL && strncmp(error, "weft.yaml: cannot", 17) != 0);
    conf_schema_close(&job);
    conf_free(&job.target.conf);
    return 0;
}
