/* check.h - looks through the data directory of a stopped server: is everything there, and whole?
 *
 * Shape    Each lane is read by a child process of its own, because LMDB trusts its pages: a
 *          damaged tree may end the process that reads it, and that is then one more finding. The
 *          children write lines, which the caller gets in order of lanes. What is verified: order
 *          and reachability of every key; checksums of every value and record; that values say the
 *          same as their keys; per channel: delivery serials without gap from the floor to the
 *          newest record, rows without gap in history, time, counters and row lists of segments and
 *          head; that mutations refer to a create and to a whole record of the same message; parts
 *          (each record of a mutated message is listed, nothing else is), bases (folded again and
 *          compared), open presence members against the log; names and heads one to one; receipts;
 *          format, lane and store id of all lanes; LMDB's count of pages and its two meta pages.
 * Threads  A process with one thread.
 * Memory   Per lane: the tail's entries, and the mutated messages of one channel.
 * Errors   CHECK_CANNOT: the lines say why nothing was verified.
 * Source   spec/settled.md 42.
 */
#pragma once
#include "core/err.h"

enum check_verdict { CHECK_SOUND, CHECK_DAMAGED, CHECK_CANNOT };

typedef void (*check_line)(void *ctx, const char *line);

MUST_CHECK enum check_verdict check_run(const char *dir, check_line line, void *ctx);
/* Sizes and counts instead of findings; CHECK_DAMAGED: a lane could not be read. */
MUST_CHECK enum check_verdict check_stat(const char *dir, check_line line, void *ctx);
