/* group.h - the bare group commit: records of one size, written and synced together, nothing else.
 *
 * Shape    As many writers as `concurrency`, each with one record outstanding: a commit takes the
 *          records of all, so it writes concurrency * record_bytes at the end of a file that has
 *          its room already, syncs it, and, with `twice`, writes a small record through an O_DSYNC
 *          descriptor, as a store with a head page must (design D6).
 * Errors   All end the program.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct group_result {
    double   records_per_s, commit_p50_us, commit_p99_us;
    uint64_t commits;
};

/* In a file of its own in the directory `dir`, removed afterwards. */
struct group_result group_run(const char *dir, uint32_t record_bytes, uint32_t concurrency,
                              bool twice, double seconds);
