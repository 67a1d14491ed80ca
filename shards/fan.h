/* fan.h - one frame to every local subscriber of a channel.
 *
 * Shape    A frame may be a family (frame.h): each subscriber gets the member that its voice names.
 *          A fan-out visits subscribers within the turn's budget; small channels finish at once,
 *          large ones continue in the next turns, one job after the other per channel.
 * Threads  The shard.
 * Order    Frames of one channel reach every socket's queue in letter order.
 * Bounds   FAN_TURN_SUBS subscribers a turn over all channels. What is left counts in fan_waiting;
 *          past limits.fanout_backlog on any shard publishes are refused (publish_room).
 * Memory   One pointer push per subscriber; a job is allocated only when a fan-out is not finished
 *          in its turn.
 */
#pragma once
#include "shards/chan.h"

enum { FAN_TURN_SUBS = 32768 };
enum fan_flags {                 /* of MAIL_FAN */
    FAN_OBSERVE = 1,             /* this reader observes the latency */
    FAN_ANNOTATIONS = 2,         /* only subscriptions that asked for raw annotation events */
    FAN_RECIPIENTS_SHIFT = 2,    /* above the flags: how many subscriptions the home counts */
};

/* MAIL_FAN. */
void fan_on_letter(struct shard *sh, const struct letter *l);
/* Continue unfinished jobs. True when some are left. */
bool fan_work(struct shard *sh);
/* Queue now what waits for this channel's subscribers: what comes next must not overtake it. */
void fan_finish(struct shard *sh, struct chan *ch);
/* A subscriber leaves: no job may keep a cursor on it. */
void fan_forget(struct chan *ch, struct sub *sub);
/* A channel ends: drop its jobs. */
void fan_drop(struct shard *sh, struct chan *ch);
