/* process.h - what the system knows about this process, for /metrics and /usage.
 *
 * Threads  Any. Reads /proc: off the hot path only.
 * Errors   A fact that cannot be read stays 0.
 */
#pragma once
#include "core/base.h"

struct process_facts {
    uint64_t resident_bytes, virtual_bytes;
    uint64_t cpu_us;                   /* user and system, all threads */
    uint64_t fds_open;                 /* ordinary descriptors; direct ones are not among them */
    uint64_t fds_max;                  /* soft limit */
};

void process_read(struct process_facts *out);

struct process_host { uint64_t memory_bytes, free_bytes; };   /* free: available without swapping */
void process_host_read(struct process_host *out);
