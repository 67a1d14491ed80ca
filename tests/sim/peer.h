/* peer.h - what everyone does who sits at the far end of a connection: connect, take what the
 * server sent, read answers, leave. */
#pragma once
#include "tests/sim/world.h"

/* To a shard drawn at random; `window` as in struct sim_peer. */
struct sim_peer *peer_connect(uint32_t window);
/* Moves to `in` what the server has sent; true when there was something. */
bool peer_take(struct sim_peer *p, struct sim_pipe *in);
/* Ends or breaks the connection, if there is one, and empties `in`. */
void peer_leave(struct sim_peer **p, struct sim_pipe *in, bool broken);
/* The next whole HTTP answer: its status, its body in `text`, ended by a zero. */
bool peer_answer(struct sim_pipe *in, char *text, uint32_t room, uint32_t *status);
/* Copies what stands between `before` and the next quote. False: `before` is not there. */
bool peer_between(const char *text, const char *before, char *out, size_t room);
