/* With n buckets and m = the power of two at or above n, a hash belongs to bucket h mod m when
 * that bucket exists and to h mod m/2 when it does not exist yet:
 *
 *      n = 6, m = 8:   0  1  2  3  4  5          growing splits 2 into 2 and 6, then 3 into 3 and 7
 *                      ^--^        ^--^          shrinking merges 5 into 1, then 4 into 0
 *                      already split
 */
#include "core/table.h"

#include "core/mem.h"

enum {
    BUCKETS_FIRST = 64,   /* in use from the start and never given up */
    SHRINK_SLACK = 64,    /* so that put, del, put, del does not split and merge each time */
};
static_assert(sizeof(struct table_node) == 16, "nodes sit inside every connection and channel");

err_t table_open(struct table *t, uint32_t buckets_max)
{
    ASSERT(buckets_max >= 2 && (buckets_max & (buckets_max - 1)) == 0);

    *t = (struct table){.buckets_count = u32_min(BUCKETS_FIRST, buckets_max),
                        .buckets_max = buckets_max};
    t->buckets = mem_reserve((uint64_t)buckets_max * sizeof t->buckets[0]);
    return t->buckets == NULL ? ERR_MEMORY : OK;
}

static uint32_t bucket_of(const struct table *t, uint64_t hash)
{
    uint32_t mask = UINT32_MAX >> __builtin_clz(t->buckets_count - 1);
    uint32_t index = (uint32_t)hash & mask;

    return index < t->buckets_count ? index : index & (mask >> 1);
}

/* The bucket that `last`, the highest bucket, was split from and is merged into. */
static uint32_t parent_of(uint32_t last)
{
    return last & ~(0x80000000u >> __builtin_clz(last));
}

static void split_one(struct table *t)
{
    uint32_t            last = t->buckets_count++;
    uint32_t            parent = parent_of(last);
    struct table_node **keep = &t->buckets[parent];
    struct table_node **move = &t->buckets[last];

    for (struct table_node *node = *keep; node != NULL; node = node->next) {
        if (bucket_of(t, node->hash) == last) {
            *move = node;
            move = &node->next;
        } else {
            *keep = node;
            keep = &node->next;
        }
    }
    *keep = NULL;
    *move = NULL;
}

static void merge_one(struct table *t)
{
    uint32_t            last = --t->buckets_count;
    struct table_node **end = &t->buckets[parent_of(last)];

    while (*end != NULL) end = &(*end)->next;
    *end = t->buckets[last];   /* the stale word is written anew by the next split */
}

void table_put(struct table *t, struct table_node *node, uint64_t hash)
{
    struct table_node **bucket = &t->buckets[bucket_of(t, hash)];

    node->hash = hash;
    node->next = *bucket;
    *bucket = node;
    t->nodes_count++;
    if (t->nodes_count > t->buckets_count && t->buckets_count < t->buckets_max) split_one(t);
}

void table_del(struct table *t, struct table_node *node)
{
    struct table_node **at = &t->buckets[bucket_of(t, node->hash)];

    while (*at != node) {
        ASSERT(*at != NULL);   /* not in this table, or its hash was changed */
        at = &(*at)->next;
    }
    *at = node->next;
    node->next = NULL;
    t->nodes_count--;
    if (t->buckets_count > BUCKETS_FIRST && t->nodes_count + SHRINK_SLACK < t->buckets_count) {
        merge_one(t);
    }
}

struct table_node *table_find(const struct table *t, uint64_t hash)
{
    struct table_node *node = t->buckets[bucket_of(t, hash)];

    while (node != NULL && node->hash != hash) node = node->next;
    return node;
}

struct table_node *table_find_next(const struct table_node *node)
{
    struct table_node *next = node->next;

    while (next != NULL && next->hash != node->hash) next = next->next;
    return next;
}

void table_close(struct table *t)
{
    uint64_t bytes = (uint64_t)t->buckets_max * sizeof t->buckets[0];

    if (t->buckets != NULL) mem_release(t->buckets, bytes);
    *t = (struct table){0};
}

void table_validate(const struct table *t)
{
    uint64_t nodes = 0;

    ASSERT(t->buckets_count <= t->buckets_max);
    ASSERT(t->buckets_count >= u32_min(BUCKETS_FIRST, t->buckets_max));
    ASSERT(t->nodes_count <= t->buckets_count || t->buckets_count == t->buckets_max);
    for (uint32_t i = 0; i < t->buckets_count; i++) {
        for (const struct table_node *node = t->buckets[i]; node != NULL; node = node->next) {
            ASSERT(bucket_of(t, node->hash) == i);
            ASSERT(++nodes <= t->nodes_count);   /* also ends a chain that became a loop */
        }
    }
    ASSERT(nodes == t->nodes_count);
}
