/* session_auth.h - the subscribe message: names, signatures, presence data.
 *
 * Shape    One entry, called by session.c; part of the same module.
 * Threads  The shard.
 * Source   spec/pusher-v1.md 3.2, 3.3; spec/settled.md 13, 16, 17, 19.
 */
#pragma once
#include "shards/session.h"

enum {
    SESSION_NAME_BYTES_MAX = 16384,     /* longer names are refused whatever the app allows */
    SESSION_BROADCAST_ERROR = 4303,
};

void session_subscribe(struct shard *sh, struct conn *c, const struct pusher_frame *f);
