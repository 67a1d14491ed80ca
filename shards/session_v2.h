/* session_v2.h - what is particular to a Protocol V2 socket: its messages, heartbeats and frames.
 *
 * Shape    session_v2.c: dispatch, deadlines, small frames. session_history.h: channel_history.
 *          session_presence.c: presence_update. Subscribe and client events are shared with V1
 *          (session.h); resume has a module of its own (resume.h).
 * Threads  The shard.
 * Order    Subscribes of one read are asked once the read has been parsed, or before the first
 *          message that could depend on them.
 * Errors   A sockudo:error frame with the documented code and text; the socket stays open.
 * Source   spec/protocol-v2.md 1-5, 8, 9.3; spec/settled.md 32, 33.
 */
#pragma once
#include "proto/v2.h"
#include "shards/session.h"

struct want;

/* One whole text or binary message. */
void session_v2_message(struct shard *sh, struct conn *c, struct slice text);
/* The deadlines: native pings, silence, authentication, a resume. */
void session_v2_open(struct shard *sh, struct conn *c);
void session_v2_on_timer(struct shard *sh, struct conn *c);
/* A nearer deadline may have come. */
void session_v2_rearm(struct shard *sh, struct conn *c);
/* A native pong. */
void session_v2_pong(struct conn *c, struct slice payload);

/* Frames for this socket alone, with a message_id of their own. channel: ptr NULL for none. data is
 * compact JSON, or plain text that becomes a JSON string. No memory: the socket is ended. */
void session_v2_tell(struct shard *sh, struct conn *c, const char *event_json,
                     struct slice channel, struct slice data_json);
void session_v2_tell_text(struct shard *sh, struct conn *c, const char *event_json,
                          struct slice channel, struct slice data_text);
void session_v2_uuid(struct shard *sh, char out[V2_UUID_BYTES]);

/* MAIL_WANTED of a channel_history: w says the outcome; body is the page's JSON when the status is
 * 200, else NULL. Both stay the caller's (session_history.c). */
void session_on_wanted(struct shard *sh, struct want *w, struct frame *body);
/* sockudo:presence_update (session_presence.c). */
void session_presence_update(struct shard *sh, struct conn *c, const struct v2_frame *f);
