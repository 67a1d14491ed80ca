/* lanes.h - the store alone, driven by one thread that stands for a shard.
 *
 * Shape    lanes_open makes a store with one lane in a directory of its own and opens channels with
 *          one message each. Batches are filled with appends to them and posted; lanes_take gives
 *          back what is committed or read.
 * Threads  One, besides the store's own.
 * Bounds   LANES_BATCHES batches and LANES_READS reads at a time.
 * Errors   All end the program.
 * Source   store/store.h.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "core/reactor.h"
#include "store/store.h"

enum { LANES_BATCHES = 16, LANES_READS = 8, LANES_NAME_BYTES = 32 };

struct lanes_channel {
    char     name[LANES_NAME_BYTES];
    uint64_t chan, delivery, create_ms;
};

struct lanes {
    struct store          *store;
    struct reactor_office *office;
    struct lanes_channel  *channels;
    uint32_t               channels_count, next_channel;
    uint16_t               post;
    uint32_t               generation;
    uint64_t               keep_ms;            /* retention of rows and versions; 0: for ever */
    char                   dir[64];
    uint32_t               batches_out, reads_out;
    struct store_batch     batches[LANES_BATCHES];
    bool                   batch_busy[LANES_BATCHES];
    struct store_read      reads[LANES_READS];
    bool                   read_busy[LANES_READS];
    uint64_t               records_committed, records_read;
};

/* What came back; either may be NULL. */
struct lanes_answer { struct store_batch *batch; struct store_read *read; };

void lanes_open(struct lanes *l, uint32_t channels, uint64_t keep_ms, uint32_t purge_interval_ms);
void lanes_close(struct lanes *l);

/* Posts `records` appends of `fragment_bytes`, one channel after the other. False: all batches are
 * out. With `creates` each is a message of its own, a row of history. */
bool lanes_append(struct lanes *l, uint32_t records, uint32_t fragment_bytes, bool creates);
/* Posts a read of the history rows of a channel. False: all reads are out. */
bool lanes_read(struct lanes *l, uint32_t channel, uint32_t rows);
/* The next answer; waits when wait_ns > 0. What it says is good until the next call. */
bool lanes_take(struct lanes *l, struct lanes_answer *out, uint64_t wait_ns);
