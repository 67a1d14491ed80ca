/* ask.h - what is counted for the whole server: quotas, request windows, idempotency keys.
 *
 * Shape    Each has one home shard (spec/settled.md 8): node quota: shard 0; app quota and app
 *          rates: slot of the app id; per-address windows: slot of the address; idempotency: slot
 *          of (app, key). A request asks by letter and is run again with the answer (op.h). Nothing
 *          is asked where no limit is configured.
 * Threads  ask_* of the requesting side: the shard that holds the op. ask_on_*: the home.
 * Bounds   idempotency.max_entries over all shards; a live key is never evicted. Windows of
 *          addresses: ASK_ADDRESSES_MAX a shard and kind, the oldest expired first; when full of
 *          live ones the request is allowed and counted.
 * Source   spec/pusher-v1.md 7.8, 7.9; spec/operations.md 5; spec/settled.md 8, 16, 21.
 */
#pragma once
#include "shards/op.h"

enum { ASK_ADDRESSES_MAX = 65536, ASK_CLAIM_WAIT_MS = 300 };

enum ask_question { ASK_NODE_QUOTA, ASK_APP_QUOTA, ASK_API_RATE, ASK_WS_RATE, ASK_BACKEND_RATE,
                    ASK_READ_RATE, ASK_CLAIM, ASK_ALIVE, ASK_USER_END /* by user_end */,
                    ASK_ACTOR /* by actor_ask */, ASK_CLAIM_STORE };
enum ask_verdict {
    ASK_YES = 0,          /* go on; windows: arg1-3 as below. CLAIM: op->claim holds the key */
    ASK_NO,               /* quota or window full: arg1 limit, arg2 left, arg3 seconds to reset */
    ASK_STORED,           /* CLAIM: op->stored is the stored 200 body (NULL: it was lost) */
    ASK_BUSY,             /* CLAIM: still in progress after ASK_CLAIM_WAIT_MS */
    ASK_TABLE_FULL,       /* CLAIM: idempotency.max_entries live keys, or no memory */
    ASK_DIFFERS,          /* CLAIM: the key was used with another print */
};

MUST_CHECK err_t ask_open(struct shard *sh);
void ask_close(struct shard *sh);

/* Ask; op->next runs when the answer is in, with op->verdict set and the bit of the question in
 * op->passed after a yes, in op->refused after a no. ERR_FULL: answer 503; nothing was asked. The
 * weight of a window's question is how many events it counts (a batch counts its items). */
MUST_CHECK err_t ask_quota(struct shard *sh, struct op *op, enum ask_question q);  /* of op->app */
MUST_CHECK err_t ask_address(struct shard *sh, struct op *op, enum ask_question q,
                             const struct ring_addr *addr);
MUST_CHECK err_t ask_app_rate(struct shard *sh, struct op *op, enum ask_question q,
                              uint32_t weight);
/* scope keeps /events keys and whole-batch keys apart. The key is copied into the op; op->print
 * goes along (ask_print). */
MUST_CHECK err_t ask_claim(struct shard *sh, struct op *op, uint32_t scope, struct slice key);
/* One answer from every shard that its loop turns. Adds to op->waiting. */
MUST_CHECK err_t ask_alive(struct shard *sh, struct op *op);
/* Who is on a socket (actor.h): `who` is lent to shard `to` until op->next runs. */
struct actor;
MUST_CHECK err_t ask_actor(struct shard *sh, struct op *op, uint16_t to, struct actor *who);

/* Whose window a request counts in: the peer, or the trust_hops-th entry from the right of
 * X-Forwarded-For where trust_hops > 0 and that entry is an address. */
struct ring_addr ask_client(const struct conn *c, const struct http_request *r,
                            uint32_t trust_hops);
/* True when the windows of this kind are on. */
bool ask_address_limited(const struct shard *sh, enum ask_question q);

/* Give a connection's place back. */
void ask_quota_back(struct shard *sh, enum ask_question q, uint32_t app);
/* End a claim and clear it: keep `body` for the TTL, or release the key (NULL). */
void ask_claim_end(struct shard *sh, struct op_claim *claim, struct frame *body);
/* The same for a request that was done but whose body there was no memory to keep. */
void ask_claim_end_lost(struct shard *sh, struct op_claim *claim);

/* The same, and the body is stored before op->next runs: for requests that published to a channel
 * with history. Adds to op->waiting; op->next runs when the last answer is in. */
void ask_claim_store(struct shard *sh, struct op *op, struct op_claim *claim, struct frame *body);
/* Fingerprint of the parts of a request, into op->print. */
void ask_print(struct op *op, const struct slice *parts, uint32_t parts_count);

/* Letters at the home, and the answer at the op's shard. */
void ask_on_ask(struct shard *sh, const struct letter *l);
void ask_on_done(struct shard *sh, const struct letter *l);
void ask_on_asked(struct shard *sh, const struct letter *l);
void ask_on_timer(struct shard *sh, struct timer *t);
/* Once a second: expire windows, a bounded number at a time. */
void ask_tick(struct shard *sh);
