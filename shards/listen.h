/* listen.h - listening sockets, the data directory's lock: what a process takes from the machine.
 *
 * Threads  main, before any shard runs.
 * Errors   ERR_IN_USE or ERR_IO with one line that says what to do.
 * Source   spec/settled.md 2, 3, 10.
 */
#pragma once
#include "core/err.h"

enum { LISTEN_BACKLOG = 4096 };

/* `count` listeners of one address for SO_REUSEPORT, one a shard. *port 0 takes a free one and says
 * which. A port that another server uses is found out first: with SO_REUSEPORT alone the bind
 * would succeed and share it silently. Tries for two seconds while the port is taken. */
MUST_CHECK err_t listen_open(const char *host, uint16_t *port, uint32_t count, int *fds,
                             char *error, uint32_t error_bytes);

/* Create the directory if missing, lock it against a second process (the lock ends with the
 * process, however it ends) and try to write in it. *fd holds the lock. */
MUST_CHECK err_t listen_lock_dir(const char *path, int *fd, char *error, uint32_t error_bytes);
