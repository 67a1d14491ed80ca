/* log.h - one line per event, human or JSON, written by a thread of its own.
 *
 * Shape    Each thread that logs has a bounded queue (ck_ring) to the log thread, which writes to
 *          stderr. A full queue drops the line and counts it; the count is logged once there is
 *          room again.
 * Threads  log_open, log_close: main. log_thread_join: once on each logging thread. The rest: any
 *          joined thread; before log_open and after log_close lines are written directly.
 * Bounds   LOG_LINE_BYTES per line (longer is cut), LOG_QUEUE_LINES per thread.
 * Errors   Never fails and never blocks a shard. Never pass it a secret, a key, a signature, a
 *          token, a payload or a raw query (spec/operations.md 9).
 * Source   JSON shape and levels: spec/operations.md 9.
 */
#pragma once
#include "core/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };
enum { LOG_LINE_BYTES = 1024, LOG_QUEUE_LINES = 1024 };

struct log_conf {
    enum log_level level;
    bool           json;
};

MUST_CHECK err_t log_open(const struct log_conf *conf);
/* The other threads have stopped. Writes what is queued, then stops the log thread; a reader of
 * stderr that has stopped reading gets one second. */
void log_close(void);
/* After log_open. The name (under 64 bytes, kept by pointer) appears as "thread" in the line. */
void log_thread_join(const char *name);

bool log_on(enum log_level level);     /* cheap; guards work done only for a line */

/* printf-like message plus stable fields as text: LOG(LOG_INFO, "socket closed", "app_id", id,
 * "cause", "client_close"). Field values are const char *; the macro ends the list with NULL. */
void log_line(enum log_level level, const char *message, ...) __attribute__((sentinel));
#define LOG(level, ...) \
    do { if (log_on(level)) log_line(level, __VA_ARGS__, NULL); } while (0)

uint64_t log_dropped(void);            /* lines lost to full queues, all threads */
