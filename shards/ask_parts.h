/* ask_parts.h - between the parts of ask.h: ask.c, ask_home.c, ask_claim.c.
 *
 * Shape    ask.c is the requesting side; ask_home.c keeps quotas and windows, ask_claim.c the
 *          idempotency keys, both for what has its home on this shard.
 * Threads  The shard.
 */
#pragma once
#include "shards/ask.h"

struct ask_window { uint64_t from_ms; uint32_t count; };   /* count 0: not begun */

/* One address in one kind of window; listed by the start of its window, oldest first. */
struct ask_address {
    struct table_node   node;
    struct ask_address *older, *newer;
    struct ask_window   window;
    struct ring_addr    addr;
    uint8_t             kind;            /* 0: ASK_API_RATE, 1: ASK_WS_RATE */
};
enum { ASK_ADDRESS_KINDS = 2 };

/* What SHARD_TIMER_ASK timers stand in. */
enum ask_timed_what { ASK_TIMED_CLAIM, ASK_TIMED_WAITER };
struct ask_timed { struct timer timer; uint8_t what; };

struct ask_book {
    uint64_t            sockets;         /* node quota in use; shard 0 only */
    uint32_t           *app_sockets;     /* by app; owned, as the two arrays below */
    struct ask_window  *backend, *read;
    struct table        addresses;
    struct ask_address *oldest[ASK_ADDRESS_KINDS], *newest[ASK_ADDRESS_KINDS];
    uint32_t            addresses_count[ASK_ADDRESS_KINDS];
    struct table        claims;
    uint32_t            claims_count, claims_max;
    struct ask_held    *held_first, *held_last;  /* questions before the stored keys are known */
};

/* At the home: the answer to a question. */
void ask_tell(struct shard *sh, uint16_t to, struct op *op, enum ask_verdict verdict,
              uint64_t arg1, uint64_t arg2, uint64_t arg3);

/* ask_claim.c */
void ask_claim_on_store(struct shard *sh, const struct letter *l);
/* At the start: a finished key that was stored; then, once, whoever asked meanwhile is answered. */
struct record;
void ask_claim_load(struct shard *sh, const struct record *r);
void ask_claims_open(struct shard *sh);
void ask_claims_expire(struct shard *sh);   /* once a second: who has asked for too long */
void ask_claim_on_ask(struct shard *sh, const struct letter *l);
void ask_claim_on_done(struct shard *sh, const struct letter *l);
/* Flags of a MAIL_ASK_DONE about a claim: done although no body comes along. */
enum { ASK_DONE_LOST = 1 };
