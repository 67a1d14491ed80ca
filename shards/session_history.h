/* session_history.h - sockudo:channel_history: a page of a channel's history, asked on the socket.
 *
 * Shape    session_history checks and asks the channel's home (want.h); session_on_wanted
 *          (session_v2.h) makes one sockudo:channel_history frame around the page's JSON, or an
 *          error frame.
 * Threads  The shard of the socket.
 * Bounds   SESSION_HISTORIES_MAX requests under way a socket (4301).
 * Source   spec/protocol-v2.md 8.
 */
#pragma once
#include "shards/session_v2.h"
#include "shards/want.h"

enum { SESSION_HISTORIES_MAX = 2 };

/* The data of the request. */
void session_history(struct shard *sh, struct conn *c, const struct json_value *data);
