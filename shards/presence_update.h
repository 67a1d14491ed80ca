/* presence_update.h - a member of a presence channel replaces its user_info.
 *
 * Shape    The socket's shard lends a struct presence_update to the channel's home with
 *          MAIL_PRESENCE; the home changes the member, tells every V2 subscriber, and gives it back
 *          with MAIL_PRESENCE_DONE. Success is silent on the socket.
 * Threads  presence_update_ask, presence_update_done: the socket's shard. presence_update_at_home:
 *          the home.
 * Order    Behind the subscription that it stands on, before its end: member and home are there.
 * Bounds   presence.update_rate_limit_per_member_per_second, all sockets of the member together.
 * Source   spec/protocol-v2.md 9.3.
 */
#pragma once
#include "shards/home.h"

enum { PRESENCE_UPDATE_BYTES_MAX = 1024 };

enum presence_update_status { PRESENCE_UPDATED, PRESENCE_TOO_OFTEN, PRESENCE_NO_MEMORY };

struct presence_update {
    uint32_t sock, gen;            /* whose */
    uint64_t socket_a, socket_b;   /* his socket id */
    uint8_t  status;               /* the answer: enum presence_update_status */
    uint32_t info_bytes;
    uint8_t  info[];               /* compact JSON */
};

/* False: no room, nothing was asked. info: compact, at most PRESENCE_UPDATE_BYTES_MAX. */
MUST_CHECK bool presence_update_ask(struct shard *sh, struct conn *c, const struct sub *s,
                                    const struct json_value *info, uint32_t info_bytes);
/* Letters: MAIL_PRESENCE, MAIL_PRESENCE_DONE. */
void presence_update_at_home(struct shard *sh, const struct letter *l);
void presence_update_done(struct shard *sh, const struct letter *l);
/* A member ends. */
void presence_update_forget(struct shard *sh, struct member *m);
