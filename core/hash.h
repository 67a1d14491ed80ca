/* hash.h - the hashes of the system. A hash is never an identity: tables compare full names.
 *
 * Threads  Any.
 * Source   Slots: spec/settled.md 6. XXH3 by libxxhash.
 */
#pragma once
#include "core/base.h"

enum { HASH_SLOTS = 1024 };

/* slot = XXH3_64(app_id, 0x00, name; seed 0) & 1023. Never changes: clusters agree on it. */
uint32_t hash_slot(struct slice app_id, struct slice name);
/* shard = slot * shards >> 10. */
static inline uint32_t hash_slot_shard(uint32_t slot, uint32_t shards_count)
{
    return slot * shards_count >> 10;
}
/* Seeded, for tables: the seed is drawn at start so that names cannot be chosen to collide. */
uint64_t hash_table(uint64_t seed, uint32_t app, struct slice name);
/* XXH3_128 of parts, each with its length before it. Stable; not for tables. */
void hash_parts(const struct slice *parts, uint32_t parts_count, uint64_t out[2]);
