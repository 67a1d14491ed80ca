/* read_kit.h - a store without threads in a directory of its own, driven by letters from shard 0.
 *
 * Shape    kit_add packs records into the open batch; kit_commit posts it and waits; kit_read posts
 *          a read and waits. Waiting is store_step, bounded.
 * Threads  One.
 * Errors   Anything unexpected fails the test.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include "store/store.h"

enum { KIT_LANES = 2, KIT_PATH_BYTES = 256 };

struct kit {
    char                  dir[KIT_PATH_BYTES];
    struct reactor_office office;
    struct store         *store;
    uint32_t              lane, generation;
    struct store_read    *pending;       /* posted by kit_read_post, not answered yet */
    uint8_t              *bytes;         /* owned; the open batch */
    uint32_t              bytes_count, bytes_room, records_count;
};

extern uint64_t            kit_now_ms;   /* the wall clock of retention, and of reads */
extern struct store_policy kit_policy;   /* of every channel */
extern uint64_t            kit_forget_after_ms;   /* of stores started from now on */

void kit_make_dir(struct kit *k);        /* an empty one, removed by kit_remove_dir */
void kit_remove_dir(struct kit *k);
void kit_start(struct kit *k);
MUST_CHECK err_t kit_try_start(struct kit *k, char *error, uint32_t error_bytes);
void kit_stop(struct kit *k);
void kit_restart(struct kit *k);
void kit_settle(struct kit *k);          /* background work until there is none */

void kit_add(struct kit *k, const struct record *r);
void kit_commit(struct kit *k);
MUST_CHECK err_t kit_try(struct kit *k); /* the same; it may fail */
/* Fills shard, lane, names and time; the answer is the caller's to free. */
void kit_read(struct kit *k, struct store_read *r);
/* Posts it only. It goes on with every commit; k.pending is NULL when it has been answered. */
void kit_read_post(struct kit *k, struct store_read *r);
void kit_read_await(struct kit *k);
/* Opens a channel and commits its name when it is new. Returns its number. */
uint64_t kit_channel(struct kit *k, struct slice app_id, struct slice channel);
void kit_channel_closed(struct kit *k, uint64_t chan);
