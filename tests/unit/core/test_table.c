/* Goal    The table finds exactly what was put and not yet deleted, at every size, while growing,
 *         shrinking, at its bucket bound and when every hash is the same.
 * Method  Random puts and deletes against a plain array; the table validates itself along the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include "core/rng.h"
#include "core/table.h"

enum { ITEMS = 5000 };

struct item {
    struct table_node node;
    uint64_t          hash;
    bool              in;
};

static struct item items[ITEMS];

static void put(struct table *t, struct item *it)
{
    table_put(t, &it->node, it->hash);
    it->in = true;
}

static void del(struct table *t, struct item *it)
{
    table_del(t, &it->node);
    it->in = false;
}

/* How often the item's node is met among the nodes of its hash; all of them must have that hash. */
static uint32_t met(const struct table *t, const struct item *it)
{
    uint32_t count = 0;

    for (struct table_node *n = table_find(t, it->hash); n != NULL; n = table_find_next(n)) {
        assert_int_equal(n->hash, it->hash);
        assert_true(CONTAINER_OF(n, struct item, node)->in);
        count += n == &it->node;
    }
    return count;
}

static void check_all(const struct table *t)
{
    uint32_t in = 0;

    for (uint32_t i = 0; i < ITEMS; i++) {
        assert_int_equal(met(t, &items[i]), items[i].in ? 1 : 0);
        in += items[i].in;
    }
    assert_int_equal(t->nodes_count, in);
    table_validate(t);
}

static void fill_hashes(struct rng *r, uint64_t distinct)
{
    memset(items, 0, sizeof items);
    for (uint32_t i = 0; i < ITEMS; i++) {
        items[i].hash = distinct == 0 ? rng_next(r) : rng_below(r, distinct) * 0x9e3779b97f4a7c15u;
    }
}

/* The target fill wanders, so that the table grows and shrinks through many sizes. */
static void run_model(uint64_t seed, uint32_t buckets_max, uint64_t distinct, int steps)
{
    struct table t;
    struct rng   r;
    uint64_t     target = 0;

    rng_seed(&r, seed);
    fill_hashes(&r, distinct);
    assert_int_equal(table_open(&t, buckets_max), OK);
    for (int step = 0; step < steps; step++) {
        if (step % 4000 == 0) target = rng_below(&r, ITEMS + 1);
        struct item *it = &items[rng_below(&r, ITEMS)];
        if (it->in && rng_below(&r, ITEMS) >= target) del(&t, it);
        else if (!it->in && rng_below(&r, ITEMS) < target) put(&t, it);
        assert_int_equal(met(&t, it), it->in ? 1 : 0);
        if (step % 4000 == 3999) check_all(&t);
    }
    for (uint32_t i = 0; i < ITEMS; i++) {
        if (items[i].in) del(&t, &items[i]);
    }
    check_all(&t);
    table_close(&t);
    assert_null(t.buckets);
}

static void table_agrees_with_a_plain_array(void **state)
{
    for (uint64_t seed = 1; seed <= 5; seed++) run_model(seed, 1 << 16, 0, 60000);
}

static void table_at_its_bucket_bound_still_agrees(void **state)
{
    run_model(11, 2, 0, 8000);
    run_model(12, 64, 0, 20000);
    run_model(13, 256, 0, 20000);
}

static void table_keeps_equal_hashes_apart(void **state)
{
    run_model(21, 1 << 16, 1, 8000);
    run_model(22, 1 << 16, 300, 20000);
}

static void table_load_stays_about_one_and_memory_shrinks_back(void **state)
{
    struct table t;
    struct rng   r;

    rng_seed(&r, 5);
    fill_hashes(&r, 0);
    assert_int_equal(table_open(&t, 1 << 16), OK);
    uint32_t first = t.buckets_count;
    for (uint32_t i = 0; i < ITEMS; i++) {
        uint32_t before = t.buckets_count;
        put(&t, &items[i]);
        assert_true(t.nodes_count <= t.buckets_count);
        assert_true(t.buckets_count - before <= 1);   /* one bucket per put, no pause */
    }
    assert_int_equal(t.buckets_count, ITEMS);
    for (uint32_t i = 0; i < ITEMS; i++) {
        uint32_t before = t.buckets_count;
        del(&t, &items[i]);
        assert_true(before - t.buckets_count <= 1);
        assert_true(t.buckets_count <= t.nodes_count + 65);
    }
    assert_int_equal(t.buckets_count, first);
    table_close(&t);
}

static void table_find_on_an_empty_table_is_null(void **state)
{
    struct table t;

    assert_int_equal(table_open(&t, 1 << 10), OK);
    for (uint64_t hash = 0; hash < 1000; hash++) assert_null(table_find(&t, hash));
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(table_agrees_with_a_plain_array),
        cmocka_unit_test(table_at_its_bucket_bound_still_agrees),
        cmocka_unit_test(table_keeps_equal_hashes_apart),
        cmocka_unit_test(table_load_stays_about_one_and_memory_shrinks_back),
        cmocka_unit_test(table_find_on_an_empty_table_is_null),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
