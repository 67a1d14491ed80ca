/* limit.h - runs limit_fanout, the bare loop, as a child process.
 *
 * Shape    limit_start returns once it listens; the caller connects LOAD_RAW receivers; limit_ready
 *          waits until it has them; limit_go starts the sending; limit_wait waits for the end of
 *          it; limit_stop closes the connections.
 * Errors   All end the program. The child ends with its parent.
 */
#pragma once
#include <stdint.h>
#include <sys/types.h>

struct limit {
    pid_t pid;
    int   to_child, from_child;
    char  line[256];             /* its own counts, after limit_wait */
};

struct limit_conf {
    uint16_t port;               /* and the following, one per thread */
    uint32_t threads, receivers, payload_bytes, frames, send_milli;
    int      cpu;                /* for one thread; -1 any. Several pin themselves */
};

void limit_start(struct limit *l, const struct limit_conf *conf);
void limit_ready(struct limit *l);
void limit_go(struct limit *l);
void limit_wait(struct limit *l);
void limit_stop(struct limit *l);
