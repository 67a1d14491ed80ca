/* Goal    Blocks are big enough, aligned, never overlap, come back for reuse, and the bound and the
 *         counters hold at every moment.
 * Method  Class arithmetic over every size; random allocations filled with a pattern of their own
 *         that must still be there when they are freed; resident pages counted for reserved space.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "core/mem.h"
#include "core/rng.h"

enum { CLASS_BYTES_MAX = 256 * 1024, BLOCKS = 600 };

/* Sanitizer builds run on malloc, which delays reuse on purpose. */
#if defined(__has_feature)
#  if __has_feature(address_sanitizer)
enum { ON_MALLOC = 1 };
#  else
enum { ON_MALLOC = 0 };
#  endif
#elif defined(__SANITIZE_ADDRESS__)
enum { ON_MALLOC = 1 };
#else
enum { ON_MALLOC = 0 };
#endif

static uint64_t resident_bytes(void)
{
    unsigned long long whole, resident;
    FILE              *f = fopen("/proc/self/statm", "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%llu %llu", &whole, &resident), 2);
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void heap_classes_are_tight_multiples_of_16(void **state)
{
    uint32_t last = 0, classes = 0;

    for (uint32_t bytes = 1; bytes <= CLASS_BYTES_MAX; bytes++) {
        uint32_t class_bytes = heap_class_bytes(bytes);
        assert_true(class_bytes >= bytes && class_bytes % 16 == 0);
        assert_true(class_bytes >= last);
        /* 16-byte steps, then at most a quarter of the doubling is wasted. */
        assert_true(class_bytes - bytes < (bytes <= 256 ? 16 : u32_max(bytes / 4, 64)));
        classes += class_bytes != last;
        last = class_bytes;
    }
    assert_int_equal(last, CLASS_BYTES_MAX);
    assert_int_equal(classes, 16 + 40);
}

static void heap_class_bytes_is_its_own_class(void **state)
{
    for (uint32_t bytes = 1; bytes < 3 * CLASS_BYTES_MAX; bytes += 1 + bytes / 100) {
        uint32_t class_bytes = heap_class_bytes(bytes);
        assert_true(class_bytes >= bytes);
        assert_int_equal(heap_class_bytes(class_bytes), class_bytes);
    }
}

static void heap_block_may_be_used_in_full(void **state)
{
    struct heap *h;

    assert_int_equal(heap_open(&h, 1 << 30), OK);
    for (uint32_t bytes = 1; bytes < 3 * CLASS_BYTES_MAX; bytes += 1 + bytes / 50) {
        uint8_t *p = heap_alloc(h, bytes);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, 0xa5, heap_class_bytes(bytes));
        heap_free(h, p, heap_class_bytes(bytes));   /* any size of the class will do */
        assert_int_equal(heap_used_bytes(h), 0);
    }
    heap_close(&h);
    assert_null(h);
    heap_close(&h);
}

static void heap_zalloc_clears_reused_blocks(void **state)
{
    struct heap *h;

    assert_int_equal(heap_open(&h, 1 << 30), OK);
    for (uint32_t bytes = 1; bytes < 2 * CLASS_BYTES_MAX; bytes += 1 + bytes / 20) {
        uint8_t *dirty = heap_alloc(h, bytes);
        assert_non_null(dirty);
        memset(dirty, 0xff, bytes);
        heap_free(h, dirty, bytes);
        uint8_t *p = heap_zalloc(h, bytes);
        assert_non_null(p);
        for (uint32_t i = 0; i < bytes; i++) assert_int_equal(p[i], 0);
        heap_free(h, p, bytes);
    }
    heap_close(&h);
}

static void heap_reuses_the_last_freed_block_first(void **state)
{
    struct heap *h;

    if (ON_MALLOC) skip();
    assert_int_equal(heap_open(&h, 1 << 20), OK);
    void *a = heap_alloc(h, 100), *b = heap_alloc(h, 100), *other = heap_alloc(h, 113);
    heap_free(h, a, 100);
    heap_free(h, b, 97);
    assert_ptr_equal(heap_alloc(h, 112), b);
    assert_ptr_equal(heap_alloc(h, 100), a);
    assert_ptr_not_equal(other, a);
    heap_close(&h);
}

static void heap_bound_holds_by_class_size(void **state)
{
    static const uint32_t sizes[] = {1, 16, 100, 5000, CLASS_BYTES_MAX, CLASS_BYTES_MAX + 1};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        enum { FIT = 7 };
        uint32_t     bytes = sizes[i], class_bytes = heap_class_bytes(bytes);
        void        *blocks[FIT];
        struct heap *h;
        assert_int_equal(heap_open(&h, (uint64_t)FIT * class_bytes + class_bytes - 1), OK);
        for (int n = 0; n < FIT; n++) {
            blocks[n] = heap_alloc(h, bytes);
            assert_non_null(blocks[n]);
            assert_int_equal(heap_used_bytes(h), (uint64_t)(n + 1) * class_bytes);
            assert_int_equal(heap_used_objects(h), n + 1);
        }
        assert_null(heap_alloc(h, bytes));
        assert_null(heap_zalloc(h, UINT32_MAX));
        assert_int_equal(heap_used_objects(h), FIT);
        heap_free(h, blocks[3], bytes);
        assert_non_null(heap_alloc(h, bytes));
        assert_null(heap_alloc(h, bytes));
        heap_close(&h);   /* blocks still out are lost with it, and unmapped */
    }
}

struct piece { uint8_t *p; uint32_t bytes; uint8_t mark; };

static uint32_t random_bytes(struct rng *r)
{
    if (rng_below(r, 200) == 0) return CLASS_BYTES_MAX + (uint32_t)rng_below(r, 100000);
    return 1 + (uint32_t)rng_below(r, 1ull << rng_below(r, 18));
}

static void heap_blocks_never_overlap(void **state)
{
    static struct piece pieces[BLOCKS];
    struct heap        *h;
    struct rng          r;
    uint64_t            bytes_max = 3 << 20, used = 0, objects = 0, refused = 0;

    rng_seed(&r, 1);
    assert_int_equal(heap_open(&h, bytes_max), OK);
    for (int step = 0; step < 40000; step++) {
        struct piece *it = &pieces[rng_below(&r, BLOCKS)];
        if (it->p != NULL) {
            for (uint32_t i = 0; i < it->bytes; i += 1 + it->bytes / 64) {
                assert_int_equal(it->p[i], it->mark);
            }
            assert_int_equal(it->p[it->bytes - 1], it->mark);
            heap_free(h, it->p, it->bytes);
            used -= heap_class_bytes(it->bytes);
            objects--;
            it->p = NULL;
        } else {
            it->bytes = random_bytes(&r);
            it->mark = (uint8_t)rng_next(&r);
            it->p = heap_alloc(h, it->bytes);
            uint64_t after = used + heap_class_bytes(it->bytes);
            assert_int_equal(it->p != NULL, after <= bytes_max);   /* refuses at the bound only */
            refused += it->p == NULL;
            if (it->p != NULL) {
                assert_int_equal((uintptr_t)it->p % 16, 0);
                memset(it->p, it->mark, it->bytes);
                used = after;
                objects++;
            }
        }
        assert_int_equal(heap_used_bytes(h), used);
        assert_int_equal(heap_used_objects(h), objects);
    }
    assert_true(refused > 100);   /* the bound was in play */
    heap_close(&h);
}

static void heap_free_of_null_is_nothing(void **state)
{
    struct heap *h;

    assert_int_equal(heap_open(&h, 1000), OK);
    heap_free(h, NULL, 100);
    heap_free(h, NULL, CLASS_BYTES_MAX * 2);
    assert_int_equal(heap_used_objects(h), 0);
    heap_close(&h);
}

static void heap_gives_big_blocks_back_to_the_system(void **state)
{
    enum { BIG = 64 << 20 };
    struct heap *h;
    uint64_t     before = resident_bytes();

    if (ON_MALLOC) skip();
    assert_int_equal(heap_open(&h, (uint64_t)BIG * 100), OK);
    for (int i = 0; i < 3; i++) {
        uint8_t *p = heap_zalloc(h, BIG);
        assert_non_null(p);
        assert_true(resident_bytes() - before < 4 << 20);   /* zeroed without touching it */
        memset(p, 1, BIG);
        assert_true(resident_bytes() - before > BIG / 2);
        heap_free(h, p, BIG);
        assert_true(resident_bytes() - before < 4 << 20);
    }
    heap_close(&h);
}

static void mem_reserve_costs_only_what_is_touched(void **state)
{
    uint64_t bytes = 4ull << 30, before = resident_bytes();
    uint8_t *p = mem_reserve(bytes);

    assert_non_null(p);
    for (uint64_t at = 0; at < bytes; at += bytes / 16) {
        assert_int_equal(p[at], 0);
        p[at] = 1;
    }
    assert_true(resident_bytes() < before + (4 << 20));
    mem_release(p, bytes);
    assert_null(mem_reserve(1ull << 60));
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(heap_classes_are_tight_multiples_of_16),
        cmocka_unit_test(heap_class_bytes_is_its_own_class),
        cmocka_unit_test(heap_block_may_be_used_in_full),
        cmocka_unit_test(heap_zalloc_clears_reused_blocks),
        cmocka_unit_test(heap_reuses_the_last_freed_block_first),
        cmocka_unit_test(heap_bound_holds_by_class_size),
        cmocka_unit_test(heap_blocks_never_overlap),
        cmocka_unit_test(heap_free_of_null_is_nothing),
        cmocka_unit_test(heap_gives_big_blocks_back_to_the_system),
        cmocka_unit_test(mem_reserve_costs_only_what_is_touched),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
