/* Goal: a failed commit takes back exactly its batch and those that were built on it; a lane
 * without room refuses and recovers by itself; a history bound refuses until retention has made
 * room. Method: the real limit on the size of files (RLIMIT_FSIZE), lowered and raised under a
 * store; and LMDB's writes cut short. */
#include "tests/unit/store/bad_disk.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void limit_files(uint64_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes == 0 ? limit.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static uint64_t file_bytes(void)
{
    char path[128];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/lane-00/data.mdb", kit.dir);
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void a_failed_commit_takes_back_what_was_built_on_it(void **state)
{
    struct kit_batch a[3] = {0}, other = {0};
    kit_open(1, 2, false);
    uint64_t chan = kit_chan(&a[0], "a", 0), chan_b, good = 0;
    assert_int_equal(kit_commit(&a[0], 0, 0), OK);
    chan_b = kit_chan(&other, "b", 0);
    assert_int_equal(kit_commit(&other, 1, 0), OK);
    limit_files(file_bytes() + (1 << 20));
    for (;;) {                             /* until the file may not grow */
        for (uint32_t k = 0; k < 20; k++) put_row(&a[0], chan, good + 1 + k, ROW_BYTES);
        if (kit_commit(&a[0], 0, 0) != OK) break;
        good += 20;
        assert_true(good < 2000);
    }
    assert_true(a[0].b.result == ERR_FULL || a[0].b.result == ERR_IO);
    assert_int_equal(a[0].b.generation_now, 1);
    assert_true(store_refuses(kit.store, 0));
    assert_newest("a", good);

    /* Built on it, posted before the failure was seen: nothing of them may be stored. */
    for (uint32_t i = 1; i < 3; i++) {
        put_row(&a[i], chan, good + 20 + i, 100);
        kit_post(&a[i], 0, 0);
    }
    for (uint32_t i = 1; i < 3; i++) {
        assert_ptr_equal(kit_committed(0), &a[i].b);
        assert_int_equal(a[i].b.result, ERR_FULL);
        assert_int_equal(a[i].b.generation_now, 1);
    }
    assert_newest("a", good);
    put_row(&other, chan_b, 1, 100);       /* another shard's channels were not in it */
    assert_int_equal(kit_commit(&other, 1, 0), OK);
    assert_int_equal(other.b.generation_now, 0);

    limit_files(0);
    until_accepts();
    put_row(&a[0], chan, good + 1, 100);   /* the serials that were taken back are used again */
    assert_int_equal(kit_commit(&a[0], 0, 0), OK);
    kit_idle();
    assert_newest("a", good + 1);
    assert_newest("b", 1);
    kit_check();
    assert_newest("a", good + 1);
    assert_newest("b", 1);
    for (uint32_t i = 0; i < 3; i++) kit_batch_free(&a[i]);
    kit_batch_free(&other);
    kit_close();
}

/* Records that were shown before their commit, which fails while the store ends: nobody is left to
 * see the answer, so the next start may not believe that it ended well. */
static void a_relaxed_record_that_is_lost_leaves_no_clean_mark(void **state)
{
    for (uint32_t relaxed = 0; relaxed < 2; relaxed++) {
        struct kit_batch b = {0};
        kit_open(1, 1, false);
        uint64_t chan = kit_chan(&b, "a", 0);
        put_row(&b, chan, 1, 100);
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        limit_files(file_bytes() + (64 << 10));
        for (uint32_t k = 0; k < 20; k++) put_row(&b, chan, 2 + k, ROW_BYTES);
        struct record last = {.kind = RECORD_EPOCH, .chan = chan, .history = 7,
                              .flags = relaxed ? RECORD_RELAXED : 0, .time_ms = kit.now_ms};
        kit_put(&b, &last);
        assert_true(kit_commit(&b, 0, 0) != OK);
        limit_files(0);
        kit_restart();
        assert_int_equal(store_losses(kit.store, 0), relaxed);
        assert_newest("a", 1);
        kit_restart();                     /* and not again */
        assert_int_equal(store_losses(kit.store, 0), relaxed);
        kit_batch_free(&b);
        kit_close();
    }
}

/* Retention meets a full disk as well, and goes on when there is room. (A write that is cut short
 * is an EIO to LMDB: no damage.) */
static void a_sweep_without_room_is_no_damage(void **state)
{
    struct kit_batch b = {0};
    uint64_t n = 0, refused = 0;
    kit_open(1, 1, false);
    kit_stop();
    kit.conf.purge_interval_ms = 1;
    assert_int_equal(kit_start(), OK);
    uint64_t chan = kit_chan(&b, "a", 0);
    for (uint32_t i = 0; i < 300; i++) {
        put_row(&b, chan, ++n, ROW_BYTES);
        assert_int_equal(kit_commit(&b, 0, 0), OK);
    }
    for (uint32_t round = 0; round < 20; round++) {
        disk_full = true;
        kit.policy.messages_max = 290 - round * 14;
        for (uint64_t began_ns = clock_mono_ns(); clock_mono_ns() - began_ns < 20000000;) {
            (void)store_step(kit.store);
        }
        disk_full = false;
        refused += store_refuses(kit.store, 0);
        until_accepts();
        put_row(&b, chan, ++n, 100);
        assert_int_equal(kit_commit(&b, 0, 0), OK);
    }
    assert_true(refused > 0);
    kit_check();
    kit_batch_free(&b);
    kit_close();
}

static void a_sweep_that_fails_rests(void **state)
{
    struct kit_batch b = {0};
    struct store_stats before, after;
    open_overdue(&b);
    disk_full = true;
    store_stats_read(kit.store, 0, &before);
    assert_true(busy_rounds(1000) < SWEPT / 2);
    store_stats_read(kit.store, 0, &after);
    assert_in_range(after.commits - before.commits, 1, SWEPT / 2);   /* tried, not over and over */
    assert_true(store_refuses(kit.store, 0));
    disk_full = false;
    until_accepts();
    uint64_t began_ns = clock_mono_ns(), full = after.map_bytes;
    do {                                   /* and the sweep goes on by itself */
        (void)store_step(kit.store);
        store_stats_read(kit.store, 0, &after);
        assert_true(clock_mono_ns() - began_ns < WAIT_NS);
    } while (after.map_bytes > full / 2);
    kit_check();
    kit_batch_free(&b);
    kit_close();
}

/* At every size at which the file may end: acknowledged or refused, nothing between. */
static void every_place_where_room_ends(void **state)
{
    struct kit_batch b = {0};
    uint64_t good = 0;
    uint32_t failed = 0, generation = 0;
    kit_open(1, 1, false);
    uint64_t chan = kit_chan(&b, "a", 0);
    assert_int_equal(kit_commit(&b, 0, 0), OK);
    for (uint32_t round = 0; round < 30; round++) {
        limit_files(file_bytes() + round * 4096);
        for (uint32_t k = 0; k < 4; k++) put_row(&b, chan, good + 1 + k, 20000);
        if (kit_commit(&b, 0, 0) == OK) {
            good += 4;
        } else {
            assert_int_equal(b.b.generation_now, ++generation);
            failed++;
        }
        (void)store_step(kit.store);       /* packing meets the limit as well */
        assert_newest("a", good);
        limit_files(0);
        until_accepts();
    }
    assert_true(failed > 5 && good > 20);
    kit_check();
    assert_newest("a", good);
    kit_batch_free(&b);
    kit_close();
}

static void a_history_bound_refuses_until_there_is_room(void **state)
{
    struct kit_batch b = {0};
    uint64_t n = 0, began_ns = clock_mono_ns();
    kit_open(1, 1, false);
    kit_stop();
    kit.conf.bytes_max = 4 << 20;
    kit.conf.purge_interval_ms = 1;
    assert_int_equal(kit_start(), OK);
    uint64_t chan = kit_chan(&b, "a", 0);
    while (!store_refuses(kit.store, 0)) {
        if (n < 100) put_row(&b, chan, ++n, ROW_BYTES);   /* 6 MB in all */
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        assert_true(clock_mono_ns() - began_ns < WAIT_NS);
    }
    assert_true(n > 60);
    kit.policy.messages_max = 5;
    until_accepts();
    struct store_head head = kit_head("a", 0);
    assert_true(head.delivery == n && head.rows_count == 5);
    kit_check();
    kit_batch_free(&b);
    kit_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_commit_takes_back_what_was_built_on_it),
        cmocka_unit_test(a_relaxed_record_that_is_lost_leaves_no_clean_mark),
        cmocka_unit_test(a_sweep_without_room_is_no_damage),
        cmocka_unit_test(a_sweep_that_fails_rests),
        cmocka_unit_test(every_place_where_room_ends),
        cmocka_unit_test(a_history_bound_refuses_until_there_is_room),
    };
    (void)signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
