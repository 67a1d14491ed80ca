/* server_store.h - the store as the configuration wants it.
 *
 * Shape    server_store_open opens the lanes in the data directory and tells them, channel by
 *          channel, how long things are kept: hidden channels ("[presence-history]{c}",
 *          "[annotations]{c}") by the policy of c.
 * Threads  server_store_open: main, before any shard. The lanes' threads ask for the policy.
 * Errors   As store_open.
 */
#pragma once
#include "shards/shard.h"
#include "store/store.h"

/* Sets server->store as well. threads false: a simulation turns the lanes. */
MUST_CHECK err_t server_store_open(struct server *s, struct store **out, bool threads,
                                   uint64_t (*wall_ms)(void), char *error, uint32_t error_bytes);
