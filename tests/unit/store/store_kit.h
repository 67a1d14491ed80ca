/* store_kit.h - a store in a scratch directory, and shards that are no more than their letters.
 *
 * Shape    kit_open, then batches (kit_batch, kit_put, kit_commit) and reads (kit_read). A channel
 *          is made by kit_chan. With `threads` false each call steps the store until it has
 *          answered.
 * Threads  The test's, which plays every shard.
 * Memory   kit_close removes the directory.
 * Errors   Everything unexpected fails the test.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/clock.h"
#include "core/mail_kinds.h"
#include "store/fold.h"
#include "store/store.h"

struct kit {
    struct reactor_office office;
    struct store         *store;
    struct store_conf     conf;
    struct store_policy   policy;          /* given for every channel */
    uint64_t              now_ms;          /* the store's wall clock */
    uint64_t              policy_ns;       /* so long the store waits for a policy, at least */
    uint32_t              policies;        /* given so far */
    char                  dir[64], error[512];
};
extern struct kit kit;

void kit_open(uint32_t lanes, uint32_t shards, bool threads);
void kit_close(void);
err_t kit_start(void);                      /* on the directory as it is */
void kit_stop(void);                        /* clean */
void kit_restart(void);
/* Stops it, looks through the directory as `weftctl store check` does, and starts again. */
void kit_check(void);

struct kit_batch { struct store_batch b; uint32_t generations[STORE_LANES_MAX]; };
void kit_put(struct kit_batch *b, const struct record *r);
void kit_post(struct kit_batch *b, uint16_t shard, uint16_t lane);   /* does not wait */
struct store_batch *kit_committed(uint16_t shard);                   /* waits for the next answer */
/* Posts, waits and empties the batch for the next use. */
err_t kit_commit(struct kit_batch *b, uint16_t shard, uint16_t lane);
void kit_batch_free(struct kit_batch *b);

struct letter kit_letter(uint16_t shard);   /* waits for the next one, from any lane */
void kit_read_post(struct store_read *r, uint16_t shard, uint16_t lane);   /* does not wait */
/* The answer is in *r; the caller frees it with store_read_free. */
void kit_read(struct store_read *r, uint16_t shard, uint16_t lane);
/* STORE_OPEN of a channel of app "app" by its name, on the lane given. */
struct store_head kit_head(const char *name, uint16_t lane);
/* Opens it, and when it is new puts its RECORD_CHANNEL into the batch; returns its number. */
uint64_t kit_chan(struct kit_batch *b, const char *name, uint16_t lane);
/* Its home has it in memory no longer. */
void kit_closed(uint64_t chan, uint16_t shard, uint16_t lane);
void kit_idle(void);                        /* until the store has nothing more to do */

static inline struct slice kit_text(const char *text) { return slice_str(text); }
