/* Goal    Slots never change, whatever the length of the name; slots and table hashes spread.
 * Method  Slots are literals, worked out once with the library's one-shot function over the joined
 *         bytes. The streamed path is compared with that function around its threshold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <xxhash.h>
#include "core/hash.h"

static void hash_slot_is_fixed_forever(void **state)
{
    static const struct { const char *app_id, *name; uint32_t slot; } known[] = {
        {"app-id", "my-channel", 789},
        {"1", "private-orders", 437},
        {"weft", "presence-room-1", 754},
        {"app-id", "", 425},
        {"", "x", 960},
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        assert_int_equal(hash_slot(slice_str(known[i].app_id), slice_str(known[i].name)),
                         known[i].slot);
    }
    static uint8_t text[1000];
    memset(text, 'a', sizeof text);
    assert_int_equal(hash_slot(slice_of(text, 3), slice_of(text, 508)), 287);   /* 512 joined */
    assert_int_equal(hash_slot(slice_of(text, 3), slice_of(text, 996)), 331);   /* streamed */
}

static void hash_slot_equals_the_joined_hash_at_every_length(void **state)
{
    static uint8_t joined[1400];

    for (uint32_t i = 0; i < sizeof joined; i++) joined[i] = (uint8_t)(i * 131 + (i >> 8) + 1);
    for (uint32_t bytes = 1; bytes <= sizeof joined; bytes++) {
        uint32_t app_bytes = bytes / 3;
        uint8_t  kept = joined[app_bytes];
        joined[app_bytes] = 0;
        uint32_t slot = hash_slot(slice_of(joined, app_bytes),
                                  slice_of(joined + app_bytes + 1, bytes - app_bytes - 1));
        assert_int_equal(slot, XXH3_64bits(joined, bytes) % HASH_SLOTS);
        joined[app_bytes] = kept;
    }
}

static void hash_slot_takes_null_slices(void **state)
{
    assert_int_equal(hash_slot(slice_of(NULL, 0), slice_of(NULL, 0)),
                     XXH3_64bits("", 1) % HASH_SLOTS);
}

static void hash_slot_spreads_and_shards_share_evenly(void **state)
{
    enum { NAMES = 102400, SHARDS = 5 };
    static uint32_t per_slot[HASH_SLOTS];
    uint32_t        per_shard[SHARDS] = {0};
    char            name[32];

    for (int i = 0; i < NAMES; i++) {
        snprintf(name, sizeof name, "room-%d", i);
        uint32_t slot = hash_slot(slice_str("app"), slice_str(name));
        assert_true(slot < HASH_SLOTS);
        per_slot[slot]++;
        uint32_t shard = hash_slot_shard(slot, SHARDS);
        assert_true(shard < SHARDS);
        per_shard[shard]++;
    }
    for (int i = 0; i < HASH_SLOTS; i++) assert_in_range(per_slot[i], 50, 160);   /* mean 100 */
    for (int i = 0; i < SHARDS; i++) {
        assert_in_range(per_shard[i], NAMES / SHARDS * 97 / 100, NAMES / SHARDS * 103 / 100);
    }
}

static void hash_table_depends_on_seed_app_and_name(void **state)
{
    struct slice name = slice_str("presence-room");
    uint64_t     base = hash_table(1, 1, name);

    assert_int_equal(hash_table(1, 1, name), base);
    assert_int_not_equal(hash_table(2, 1, name), base);
    assert_int_not_equal(hash_table(1, 2, name), base);
    assert_int_not_equal(hash_table(1, 1, slice_str("presence-roon")), base);
    assert_int_equal(hash_table(9, 3, slice_of(NULL, 0)), hash_table(9, 3, slice_str("")));
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(hash_slot_is_fixed_forever),
        cmocka_unit_test(hash_slot_equals_the_joined_hash_at_every_length),
        cmocka_unit_test(hash_slot_takes_null_slices),
        cmocka_unit_test(hash_slot_spreads_and_shards_share_evenly),
        cmocka_unit_test(hash_table_depends_on_seed_app_and_name),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
