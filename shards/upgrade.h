/* upgrade.h - from a GET /app/{key} to an open socket of either protocol, or to the documented
 * refusal.
 *
 * Threads  The shard.
 * Source   spec/pusher-v1.md 1; spec/protocol-v2.md 1; spec/settled.md 8, 13, 15.
 */
#pragma once
#include "shards/op.h"

/* Handles a request whose path starts with /app/. Same contract as api_request. */
void upgrade_request(struct shard *sh, struct conn *c, struct op *op, const struct http_request *r,
                     struct slice whole);
