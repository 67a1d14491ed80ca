/* server.h - the whole process: opens everything in dependency order, waits for the word to stop.
 *
 * Threads  main.
 * Errors   server_open: one line in `error`; what was opened ends with the process.
 */
#pragma once
#include "shards/shard.h"

struct server_run {                     /* what main keeps */
    struct server          server;
    struct reactor_office *office;      /* owned */
    struct store          *store;       /* owned; NULL while history is off */
    struct metric_table    table;
    struct metrics        *sets;        /* owned; one a shard */
    const char           **app_names;   /* owned; for the metric table */
    int                    listen_fds[REACTOR_SHARDS_MAX];
    int                    lock_fd;
    uint16_t               port, metrics_port;   /* as bound */
    char                   metrics_port_text[8];
};

MUST_CHECK err_t server_open(struct server_run *r, const struct conf *conf, char *error,
                             uint32_t error_bytes);
/* Until SIGTERM or SIGINT; then drain. A second signal ends the process at once (exit code 1). */
void server_wait(struct server_run *r);
void server_close(struct server_run *r);
