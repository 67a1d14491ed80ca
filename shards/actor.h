/* actor.h - the socket that a request names: who is signed in on it, and what he may do.
 *
 * Shape    The requesting shard lends a struct actor to the shard that the socket id names
 *          (socket_id.h), as a question of ask.h; that shard fills the answer.
 * Threads  actor_ask: the shard of the op. actor_on_ask: the socket's.
 * Memory   The struct and the channel's name stay until the answer.
 * Errors   A socket that is not there is an answer, not an error.
 * Source   spec/messages-and-history.md 2, 3, 9.
 */
#pragma once
#include "shards/ask.h"
#include "shards/user.h"

/* Capabilities of user_data.capabilities that cover the channel. ACTOR_BASIC are granted when the
 * list is absent, the others are not. */
enum actor_grant {
    ACTOR_PUBLISH = 1 << 0, ACTOR_SUBSCRIBE = 1 << 1,
    ACTOR_UPDATE_OWN = 1 << 2, ACTOR_UPDATE_ANY = 1 << 3, ACTOR_DELETE_OWN = 1 << 4,
    ACTOR_DELETE_ANY = 1 << 5, ACTOR_APPEND_OWN = 1 << 6, ACTOR_APPEND_ANY = 1 << 7,
    ACTOR_ANNOTATE = 1 << 8, ACTOR_ANNOTATIONS = 1 << 9, ACTOR_UNANNOTATE_OWN = 1 << 10,
    ACTOR_UNANNOTATE_ANY = 1 << 11, ACTOR_HISTORY = 1 << 12, ACTOR_PRESENCE = 1 << 13,
    ACTOR_BASIC = ACTOR_PUBLISH | ACTOR_SUBSCRIBE | ACTOR_HISTORY | ACTOR_PRESENCE,
};

struct actor {
    uint64_t     a, b;                     /* the socket id */
    uint32_t     app;
    struct slice channel;                  /* borrowed */
    /* the answer */
    bool         connected, v2;
    uint32_t     granted;                  /* bits of enum actor_grant */
    uint32_t     id_bytes;                 /* 0: nobody is signed in */
    uint8_t      id[USER_ID_BYTES_MAX];
};

/* op->next runs when the answer is in. ERR_FULL: nothing was asked; answer 503. */
MUST_CHECK err_t actor_ask(struct shard *sh, struct op *op, struct actor *who);
/* ASK_ACTOR at the socket's shard: fills the answer. */
void actor_on_ask(struct shard *sh, struct actor *who);

/* Does a pattern (exact text, or one '*' anywhere) cover a name? */
bool actor_covers(struct slice pattern, struct slice name);
/* user_data.capabilities as it must be: absent, null, or an object in which each list that is known
 * is given once, as null or as an array of strings. What is not would grant more than was meant. */
bool actor_capabilities_valid(struct slice user_data);
/* The bits that user_data (the decoded text of a sign-in) grants on a channel. */
uint32_t actor_grants(struct slice user_data, struct slice channel);
