/* table.h - an intrusive hash table that grows and shrinks one bucket at a time.
 *
 * Shape    Linear hashing over a reserved bucket array: an insert past the load factor splits one
 *          bucket, a removal below it merges one. No pause, no rehash of the whole.
 * Threads  One owner.
 * Bounds   Buckets stop growing at buckets_max; chains then lengthen. Load factor about 1.
 * Memory   8 B of touched address space per bucket. Nodes belong to the caller.
 */
#pragma once
#include "core/err.h"

struct table_node {
    struct table_node *next;  /* table-owned */
    uint64_t           hash;  /* full hash; equal hashes do not mean equal keys */
};

struct table {
    struct table_node **buckets;
    uint32_t            buckets_count;  /* in use */
    uint32_t            buckets_max;    /* power of two */
    uint32_t            nodes_count;
};

MUST_CHECK err_t table_open(struct table *t, uint32_t buckets_max);
void table_close(struct table *t);

void table_put(struct table *t, struct table_node *node, uint64_t hash);
void table_del(struct table *t, struct table_node *node);

/* First and next node whose full hash is equal; the caller compares the key. NULL at the end. */
struct table_node *table_find(const struct table *t, uint64_t hash);
struct table_node *table_find_next(const struct table_node *node);

void table_validate(const struct table *t);
