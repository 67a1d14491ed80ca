/* fuzz_conf.c - any text as a configuration file.
 *
 * Goal    A text is either loaded or refused with one line; what the checker (libyaml) accepts,
 *         the loader (libcyaml) loads and the table stores, so nothing is refused without a line
 *         number and nothing asserts.
 * Method  The text goes through ${VAR} expansion, the check, the schema and the resolving of apps.
 */
#include "core/conf_parts.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(bool held)
{
    if (!held) abort();
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
        require(e == OK);
        require(job.target.conf.apps_count >= 1 && job.target.conf.shards >= 1);
    }
    require(e == OK || e == ERR_CONFIG);
    require((e == OK) == (error[0] == '\0'));
    require(strchr(error, '\n') == NULL && strncmp(error, "weft.yaml: cannot", 17) != 0);
    conf_schema_close(&job);
    conf_free(&job.target.conf);
    return 0;
}
