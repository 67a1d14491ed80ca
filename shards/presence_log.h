/* presence_log.h - the history of a presence channel: one event for each user who comes or goes.
 *
 * Shape    Events are rows of the hidden stream STREAM_PRESENCE of the channel's home. An event
 *          that the lane does not take at the moment is kept here and tried again every second;
 *          those of the channel that are behind it wait for it, so the log has everything, in
 *          order, as long as the process lives. After a start the members that the log holds open
 *          are remembered as left open: one who joins again within the grace time has never left,
 *          the others are removed with cause orphan_cleanup.
 * Threads  The home shard.
 * Order    Events of a channel are logged in the order in which they happened; delivery of presence
 *          frames never waits for the log.
 * Bounds   PRESENCE_LOG_EVENTS_MAX events on their way a shard; beyond it, and at the heap's bound,
 *          an event is lost and counted, and its channel's log is marked until it is reset, as long
 *          as the process lives. Without memory for the mark, all logs of the shard are marked.
 * Source   spec/messages-and-history.md 8; spec/settled.md 39.
 */
#pragma once
#include "shards/home.h"

enum { PRESENCE_LOG_EVENTS_MAX = 1 << 20 };

enum presence_log_event { PRESENCE_LOG_ADDED, PRESENCE_LOG_UPDATED, PRESENCE_LOG_REMOVED };
enum presence_log_cause {
    PRESENCE_LOG_JOIN, PRESENCE_LOG_DISCONNECT, PRESENCE_LOG_TIMEOUT, PRESENCE_LOG_FORCED,
    PRESENCE_LOG_ORPHAN,
};

struct presence_edge {                   /* which socket's coming or going it was, and why */
    enum presence_log_cause cause;
    uint64_t                a, b;        /* its id */
};

MUST_CHECK err_t presence_log_open(struct shard *sh);
void presence_log_close(struct shard *sh);

/* The member has come, changed or gone. Does nothing where presence history is off. */
void presence_log(struct shard *sh, struct home *h, const struct member *m,
                  enum presence_log_event event, const struct presence_edge *by);

/* An event of the channel was lost; forgotten when its log has been reset. */
bool presence_log_is_lost(const struct shard *sh, uint32_t app, struct slice channel);

/* A reset: allowed while nothing of the channel waits; once it is sequenced, those who are there
 * are logged again; the newest event before it tells at its commit which losses it has healed. */
bool presence_log_may_reset(const struct shard *sh, uint32_t app, struct slice channel);
void presence_log_again(struct shard *sh, struct home *h);
uint64_t presence_log_newest(const struct shard *sh);
void presence_log_was_reset(struct shard *sh, uint32_t app, struct slice channel, uint64_t mark);

/* A finished STORE_ACTIVE: its presence records, each behind the RECORD_CHANNEL of its channel;
 * NULL: there is none to come. Until all have come (stream_requests_known), events wait. */
struct store_read;
void presence_log_active(struct shard *sh, const struct store_read *r);

/* Once a second: what could not be logged, and members left open whose time is over. */
void presence_log_tick(struct shard *sh);
