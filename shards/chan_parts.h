/* chan_parts.h - between chan.c, which asks, and chan_answer.c, which hears the answers.
 *
 * Threads  The shard.
 */
#pragma once
#include "shards/stream.h"

/* Frees the channel when nobody is on it or asking for it. */
void chan_release(struct shard *sh, struct chan *ch);
void chan_sub_free(struct shard *sh, struct sub *s);
/* Tell the home that a counted subscription ends. */
void chan_uncount(struct shard *sh, struct sub *s, uint8_t how);
/* The next question, when one waits and none is under way. */
void chan_ask_next(struct shard *sh, struct conn *c, struct sub *s);
/* A repeated subscribe gets no answer. The subscription stands, unless its client does not know of
 * it yet: then the socket ends, and false is returned. */
bool chan_refuse_again(struct shard *sh, struct conn *c, const struct sub *s);
/* Take the sub off its socket: the home refused it, or could not be asked. A V2 socket ends with
 * it, so that its client comes back, unless the presence channel is full: then it would come back
 * to the same. */
void chan_refuse(struct shard *sh, struct conn *c, struct sub *s, bool full);
void chan_count_subs(struct shard *sh, const struct chan *ch, uint32_t series, int64_t n);
