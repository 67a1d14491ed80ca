/* resume.h - sockudo:resume on one socket: positions, replays, the frames kept back meanwhile.
 *
 * Shape    A resume names channels and positions. Each becomes an item:
 *
 *            WAITING    nobody has subscribed yet: a subscribe takes the position along
 *            ATTACHING  its subscribe carries the position: one step at the home
 *            JOINING    its subscribe was under way already: a replay follows its answer
 *            REPLAYING  it was subscribed: the home is asked for what lies before the attach
 *            RECOVERED, FAILED
 *
 *          From the resume (or the join, if later) until the aggregate has been queued the item's
 *          subscription is gated: its live frames are kept here. The aggregate leaves when every
 *          item has ended, or after RESUME_ANSWER_MS or at the bound of kept frames with the rest
 *          as failed; then the kept frames follow. WAITING items are remembered until
 *          RESUME_FORGET_MS.
 * Threads  The shard of the socket.
 * Order    Per channel: replay, aggregate, live. resume_failed of a channel precedes the aggregate.
 *          A replay that comes behind live frames is mended for readers that do not sort
 *          (stream_mend.c).
 * Bounds   V2_POSITIONS_MAX items; kept frames: half of websocket.max_messages and max_bytes, then
 *          the aggregate leaves early. One resume at a time.
 * Memory   One block of items and names; the list of kept frames grows by doubling.
 * Source   spec/protocol-v2.md 6; spec/settled.md 32, 33.
 */
#pragma once
#include "proto/v2.h"
#include "shards/chan.h"

enum { RESUME_ANSWER_MS = 5000, RESUME_FORGET_MS = 10000 };

/* sockudo:resume; its data. */
void resume_request(struct shard *sh, struct conn *c, const struct json_value *data);

/* ---- the socket has a resume (c->resume is not NULL) ---- */

/* A new subscription, or a signed-in socket's own that its client now asks for: if its channel
 * waits with a position, its question takes it along while it has not been asked, else a replay
 * follows. */
void resume_offer(struct shard *sh, struct conn *c, struct sub *s);
/* A replay was answered; blob may be NULL. */
void resume_replayed(struct shard *sh, struct conn *c, const struct attach *a, struct frame *blob);
/* A subscription ends or was refused. */
void resume_left(struct shard *sh, struct conn *c, struct sub *s);
/* Keep a live frame of a gated subscription; f may be NULL: it is not for this socket. */
void resume_hold(struct shard *sh, struct conn *c, struct sub *s, struct frame *f);
/* When resume_on_time is next due, in reactor time. */
uint64_t resume_due_ms(const struct conn *c);
void resume_on_time(struct shard *sh, struct conn *c);

/* ---- always ---- */

/* A subscription has joined or its attach was answered; the socket has been told. */
void resume_attached(struct shard *sh, struct conn *c, struct sub *s, const struct attach *a);
/* A replay could not be asked for. */
void resume_dropped(struct shard *sh, struct conn *c, const struct attach *a);
/* The socket ends: everything is freed. */
void resume_end(struct shard *sh, struct conn *c);
