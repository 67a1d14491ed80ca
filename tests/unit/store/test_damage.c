/* Goal: what is damaged in the directory costs what it is about, and never the server: every search
 * ends, every sweep rests, and a lane that refuses goes on refusing. Method: a store with
 * everything in it, damaged while it is closed or under its feet, then used. */
#include "check_kit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/clock.h"

static struct check_kit_copy copy;
static uint32_t counts[2];                     /* of the models' records */

static int save(void **state)
{
    copy = check_kit_save();
    for (uint32_t i = 0; i < 2; i++) counts[i] = m[i].count;
    return 0;
}

static int restore(void **state)
{
    kit_policy = (struct store_policy){.version_age_ms = UINT64_MAX};
    for (uint32_t i = 0; i < 2; i++) model_truncate(&m[i], counts[i]);
    check_kit_restore(&copy);
    return 0;
}

/* Inverts a byte `at` bytes from each place where the file has the text, old copies included. */
static void invert_near(const char *text, int64_t at)
{
    struct check_kit_copy c = check_kit_save();
    size_t bytes = strlen(text);
    uint32_t found = 0;
    int fd = check_kit_file();
    for (size_t i = 0; i + bytes <= c.count; i++) {
        if (memcmp(c.bytes + i, text, bytes) != 0) continue;
        uint64_t place = (uint64_t)((int64_t)i + at);
        uint8_t byte = c.bytes[place] ^ 0xff;
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)place), 1);
        found++;
    }
    assert_true(found > 0);
    (void)close(fd);
    free(c.bytes);
}

static uint8_t open_status(const struct model *x)
{
    struct store_read r = {.kind = STORE_OPEN, .app_id = x->app_id, .channel = x->channel};
    kit_read(&k, &r);
    store_read_free(&r);
    return r.status;
}

static void some_rounds(uint64_t ms)
{
    for (uint64_t began_ns = clock_mono_ns(); clock_mono_ns() - began_ns < ms * 1000000;) {
        (void)store_step(k.store);
    }
}

/* The first segment of a channel, to be changed or to be put elsewhere. */
static void first_segment(uint64_t chan, void (*change)(uint8_t *value, size_t bytes),
                          uint64_t key_first)
{
    static uint8_t value[1 << 20];
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_cursor *c;
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    struct format_key from = format_key2(chan, 0), to = format_key2(chan, key_first);
    MDB_val key = {from.count, from.bytes}, data;
    assert_int_equal(mdb_cursor_open(txn, dbis[FORMAT_SEGMENTS], &c), 0);
    assert_int_equal(mdb_cursor_get(c, &key, &data, MDB_SET_RANGE), 0);
    assert_true(data.mv_size <= sizeof value);
    memcpy(value, data.mv_data, data.mv_size);
    data.mv_data = value;
    if (change != NULL) {
        change(value, data.mv_size);
        assert_int_equal(mdb_cursor_put(c, &key, &data, MDB_CURRENT), 0);
    }
    mdb_cursor_close(c);
    if (change == NULL) {
        assert_int_equal(mdb_del(txn, dbis[FORMAT_SEGMENTS], &key, NULL), 0);
        key = (MDB_val){to.count, to.bytes};
        assert_int_equal(mdb_put(txn, dbis[FORMAT_SEGMENTS], &key, &data, 0), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

/* The others are gone, as after retention: wherever one looks, the segment that is found is not the
 * one that was looked for. */
static void a_segment_under_another_key_is_not_searched_for_ever(void **state)
{
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    uint64_t chan = m[0].chan, first = 0;
    first_segment(chan, NULL, 1ull << 40);
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    for (bool all = false; !all;) {
        struct format_key from = format_key2(chan, 0);
        MDB_val key = {from.count, from.bytes}, data;
        MDB_cursor *c;
        assert_int_equal(mdb_cursor_open(txn, dbis[FORMAT_SEGMENTS], &c), 0);
        assert_int_equal(mdb_cursor_get(c, &key, &data, MDB_SET_RANGE), 0);
        assert_true(format_key_part(slice_of(key.mv_data, (uint32_t)key.mv_size), 1, &first));
        all = first == 1ull << 40;
        if (!all) assert_int_equal(mdb_cursor_del(c, 0), 0);
        mdb_cursor_close(c);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    kit_policy.messages_max = 10;
    kit_start(&k);
    kit_settle(&k);
    assert_int_equal(open_status(&m[0]), STORE_READ_IO);
    assert_int_equal(open_status(&m[1]), STORE_READ_OK);
    assert_false(store_refuses(k.store, 0));
    kit_stop(&k);
}

static void spoil(uint8_t *value, size_t bytes)
{
    struct format_segment g;
    memcpy(&g, value, sizeof g);
    uint32_t middle = (uint32_t)sizeof g + g.records_bytes / 2;
    assert_true(middle + 64 < bytes);
    for (uint32_t i = 0; i < 64; i++) value[middle + i] ^= 0xff;
}

/* A message that goes on growing, whose older records cannot be read any more. */
static void a_bad_record_costs_no_lane(void **state)
{
    enum { APPENDS = 60, TEXT_BYTES = 2000 };
    char text[TEXT_BYTES];
    memset(text, 'w', sizeof text);
    text[0] = text[TEXT_BYTES - 1] = '"';
    kit_start(&k);
    uint64_t chan = kit_channel(&k, slice_str("app"), slice_str("worn")), n = 0;
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < APPENDS; i++) {
            n++;
            struct record r = {.kind = n == 1 ? RECORD_CREATE : RECORD_APPEND,
                               .flags = n == 1 ? RECORD_WHOLE : 0, .chan = chan, .delivery = n,
                               .history = 1, .message = 1, .time_ms = kit_now_ms,
                               .message_ms = kit_now_ms, .context = 1,
                               .data = slice_of(text, n == 1 ? 100 : TEXT_BYTES)};
            kit_add(&k, &r);
            if (i % 6 == 0) kit_commit(&k);
            if (round == 0 && n == 12) kit_settle(&k);   /* one segment, and no base yet */
            if (round == 0 && n == 12) break;
        }
        kit_commit(&k);
        kit_settle(&k);
        some_rounds(300);
        assert_false(store_refuses(k.store, 0));
        if (round == 1) break;
        kit_stop(&k);
        first_segment(chan, spoil, 0);
        kit_start(&k);
    }
    struct store_read r = {.kind = STORE_MESSAGE, .app_id = slice_str("app"),
                           .channel = slice_str("worn"), .chan = chan, .upto = n, .message = 1};
    kit_read(&k, &r);
    assert_int_equal(r.status, STORE_READ_IO);
    store_read_free(&r);
    kit_stop(&k);
}

/* Its tail can go nowhere: the lane says so once, and does not take it back. */
static void a_lane_with_a_bad_head_does_not_waver(void **state)
{
    uint32_t refused = 0;
    kit_start(&k);
    invert_near("appnotes", -64);
    for (uint32_t i = 0; i < 40 && !store_refuses(k.store, 0); i++) {
        model_grow(&m[0], 30);
        refused += kit_try(&k) != OK;
        if (refused == 0) kit_settle(&k);
    }
    assert_true(store_refuses(k.store, 0));
    for (uint64_t began_ns = clock_mono_ns(); clock_mono_ns() - began_ns < 500000000;) {
        (void)store_step(k.store);
        assert_true(store_refuses(k.store, 0));
    }
    kit_stop(&k);
}

/* LMDB's own entry of a database leads to a page that does not exist. */
static void a_sweep_that_cannot_read_on_rests(void **state)
{
    enum { ROOT_AT = 40, SWEEPS = 20 };
    kit_start(&k);
    kit_settle(&k);
    invert_near("heads", (int64_t)strlen("heads") + ROOT_AT + 4);
    for (uint32_t i = 0; i < SWEEPS; i++) {
        some_rounds(6);                        /* one is due */
        kit_settle(&k);
    }
    assert_false(store_refuses(k.store, 0));
    assert_int_equal(open_status(&m[0]), STORE_READ_IO);
    kit_stop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_segment_under_another_key_is_not_searched_for_ever, save,
                                        restore),
        cmocka_unit_test_setup_teardown(a_bad_record_costs_no_lane, save, restore),
        cmocka_unit_test_setup_teardown(a_lane_with_a_bad_head_does_not_waver, save, restore),
        cmocka_unit_test_setup_teardown(a_sweep_that_cannot_read_on_rests, save, restore),
    };
    return cmocka_run_group_tests(tests, check_kit_fill, check_kit_empty);
}
