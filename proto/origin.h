/* origin.h - the pattern language of allowed_origins and CORS.
 *
 * Threads  Pure.
 * Source   spec/pusher-v1.md 1.2, spec/operations.md 8.
 */
#pragma once
#include "core/base.h"

/* A pattern that could never be meant: two '*', an empty host or scheme. For --check-config. */
bool origin_pattern_valid(struct slice pattern);
/* Case-insensitive. "*" and "any" match everything, an empty origin included. */
bool origin_matches(struct slice origin, struct slice pattern);
