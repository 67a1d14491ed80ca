/* presence.h - the members of presence channels, at the channel's home.
 *
 * Shape    A member is a user id; it counts the sockets that joined as it. member_added goes out
 *          for the first, member_removed for the last (or after the grace time of an abrupt leave).
 * Threads  The home shard.
 * Bounds   max_presence_members_per_channel of the app; an existing member always gets in.
 * Source   spec/pusher-v1.md 3.2, 3.5.
 */
#pragma once
#include "shards/home.h"

/* Count a socket in as `who`; announces a new member to the others first. */
enum home_status presence_join(struct shard *sh, struct home *h, const struct presence *who,
                               struct member **out);
/* flags: enum home_flags; a, b: the socket's id. */
void presence_leave(struct shard *sh, struct home *h, struct member *m, uint64_t flags, uint64_t a,
                    uint64_t b);
/* The frame of subscription_succeeded with the member list; NULL at the heap's bound, or when the
 * list is longer than any frame (512 MiB). */
struct frame *presence_succeeded(struct shard *sh, struct home *h);
/* The data of a success frame, from the heap (*room bytes): the members of a presence channel, and
 * the history head where there is history. NULL as above. */
uint8_t *presence_data(struct shard *sh, struct home *h, bool has_attach, uint64_t attach_serial,
                       uint32_t *bytes, uint32_t *room);
void presence_on_grace(struct shard *sh, struct member *m);
