/* session.h - what a client says on its socket, message by message.
 *
 * Shape    session.c: dispatch, V1's heartbeat, rate windows. session_auth.c: subscribe, for both
 *          protocols. session_event.c: client events, for both. session_v2.h: the rest of V2.
 * Threads  The shard.
 * Errors   Every refusal is an error frame with the documented code and text; the socket stays open
 *          unless the app's limits say otherwise.
 * Source   spec/pusher-v1.md 2-5; spec/protocol-v2.md 2-5.
 */
#pragma once
#include "shards/chan.h"

struct conn_rates {                       /* fixed windows of one socket */
    uint64_t events_from_ms, messages_from_ms;
    uint32_t events_count, messages_count;
};

/* One whole text or binary message. */
void session_message(struct shard *sh, struct conn *c, struct slice text);
/* A subscribe is refused: error frame, then (V1) pusher:subscription_error for the channel. */
void session_refuse(struct shard *sh, struct conn *c, struct slice channel, uint32_t code,
                    const char *message, uint32_t status);
/* A client event that its channel's home, or the way to it, has no room for. */
void session_busy(struct shard *sh, struct conn *c);
/* The activity deadline of a WebSocket: ping, or close. */
void session_on_timer(struct shard *sh, struct conn *c);
/* Arms the first deadline after connection_established. */
void session_open(struct shard *sh, struct conn *c);

/* ---- between the parts of this module ---- */

enum { SESSION_NAME_BYTES_MAX = 16384 };  /* longer names are refused whatever the app allows */

/* 4000 for a message that is none; counted. */
void session_bad_message(struct shard *sh, struct conn *c, const char *error);
/* Windows: one message more, one client event more. False: refused, perhaps for good. */
bool session_message_allowed(struct shard *sh, struct conn *c);
bool session_event_allowed(struct shard *sh, struct conn *c);
void session_subscribe(struct shard *sh, struct conn *c, const struct json_value *data);
void session_unsubscribe(struct shard *sh, struct conn *c, const struct json_value *data);
/* A client-* event. channel: a string or absent. */
void session_event(struct shard *sh, struct conn *c, const struct json_value *event,
                   const struct json_value *channel, const struct json_value *data);
/* The subscription of this socket to a channel named by a JSON string, or NULL. */
struct sub *session_sub_of(struct shard *sh, const struct conn *c,
                           const struct json_value *channel);
/* What is left of the time to prove who one is; UINT64_MAX: no such limit. */
uint64_t session_auth_left_ms(const struct shard *sh, const struct conn *c);

/* A V2 socket's right to something on a channel: an ACTOR_* bit (actor.h). Always true for V1. */
bool session_granted(const struct conn *c, struct slice channel, uint32_t bit);
/* False: the channel is limited to users and this socket is none of them. */
bool session_admitted(const struct conn *c, const struct pusher_channel *kind);
