/* session.h - what a Pusher client says on its socket, message by message.
 *
 * Threads  The shard.
 * Errors   Every refusal is an error frame with the documented code and text; the socket stays open
 *          unless the app's limits say otherwise.
 * Source   spec/pusher-v1.md 2-5.
 */
#pragma once
#include "shards/chan.h"

struct conn_rates {                       /* fixed windows of one socket */
    uint64_t events_from_ms, messages_from_ms;
    uint32_t events_count, messages_count;
};

/* One whole text or binary message. */
void session_message(struct shard *sh, struct conn *c, struct slice text);
/* A subscribe is refused: error frame, then pusher:subscription_error for the channel. */
void session_refuse(struct shard *sh, struct conn *c, struct slice channel, uint32_t code,
                    const char *message, uint32_t status);
/* The activity deadline of a WebSocket: ping, or close with 4201. */
void session_on_timer(struct shard *sh, struct conn *c);
/* Arms the first deadline after connection_established. */
void session_open(struct shard *sh, struct conn *c);
