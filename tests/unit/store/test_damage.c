/* Goal: what is damaged in the directory costs what it is about, and never the server: every search
 * ends, every sweep rests, and a lane that refuses goes on refusing. Method: a store with
 * everything in it, damaged while it is closed or under its feet, then used. */
#include "check_kit.h"

#include <fcntl.h>
#include <stdio.h>
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

static void spoil_front(uint8_t *value, size_t bytes)
{
    assert_true(bytes > sizeof(struct format_segment));
    value[offsetof(struct format_segment, last)] ^= 0xff;
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

/* ---- a channel whose head cannot be read ---- */

static void spoil_head(uint64_t chan)
{
    uint8_t value[sizeof(struct format_head) + STORE_NAME_BYTES_MAX];
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    struct format_key at = format_key1(chan);
    MDB_val key = {at.count, at.bytes}, data;
    assert_int_equal(mdb_get(txn, dbis[FORMAT_HEADS], &key, &data), 0);
    memcpy(value, data.mv_data, data.mv_size);
    value[20] ^= 1;
    data.mv_data = value;
    assert_int_equal(mdb_put(txn, dbis[FORMAT_HEADS], &key, &data, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static struct store_head opened(const char *name, uint8_t status)
{
    struct store_read r = {.kind = STORE_OPEN, .app_id = slice_str("app"),
                           .channel = slice_str(name)};
    kit_read(&k, &r);
    store_read_free(&r);
    assert_int_equal(r.status, status);
    return r.head;
}

static void put_rows(uint64_t chan, uint64_t behind, uint32_t count, uint32_t bytes)
{
    char *text = malloc(bytes);
    memset(text, 'n', bytes);
    text[0] = text[bytes - 1] = '"';
    for (uint32_t i = 1; i <= count; i++) {
        struct record r = {.kind = RECORD_CREATE, .flags = RECORD_WHOLE, .chan = chan,
                           .delivery = behind + i, .history = i, .message = behind + i,
                           .context = behind + i, .time_ms = kit_now_ms, .message_ms = kit_now_ms,
                           .data = slice_of(text, bytes)};
        kit_add(&k, &r);
    }
    kit_commit(&k);
    kit_settle(&k);
    free(text);
}

/* Found lost, named again, and used: sound from then on, and nobody takes it for what it was. */
static void begins_anew(const char *name, uint64_t chan, uint64_t newest)
{
    enum { ROWS = 40, ROW_BYTES = 900 };
    char text[64];
    struct store_head was = opened(name, STORE_READ_IO);
    assert_true(was.lost);
    assert_int_equal(was.chan, chan);
    struct record again = {.kind = RECORD_CHANNEL, .chan = chan};
    size_t bytes = (size_t)snprintf(text, sizeof text, "app%c%s", 0, name);
    again.data = slice_of(text, (uint32_t)bytes);
    kit_add(&k, &again);
    kit_commit(&k);
    struct store_head head = opened(name, STORE_READ_OK);
    assert_true(head.known && !head.lost);
    assert_int_equal(head.chan, chan);
    if (newest > 0) assert_int_equal(head.delivery, newest);
    assert_int_equal(head.rows_count, 0);
    assert_int_equal(head.history_next, 1);
    assert_true(head.replay_floor > head.delivery);
    assert_true(head.delivery_epoch != 0 && head.history_epoch != 0);
    kit_stop(&k);
    if (newest > 0) check_kit_sound();
    kit_start(&k);
    put_rows(chan, head.delivery, ROWS, ROW_BYTES);
    some_rounds(20);
    kit_settle(&k);
    assert_false(store_refuses(k.store, 0));
    assert_int_equal(opened(name, STORE_READ_OK).rows_count, ROWS);
    kit_stop(&k);
    check_kit_sound();
}

static void a_channel_without_its_head_begins_anew(void **state)
{
    spoil_head(m[0].chan);
    check_kit_found("wrong checksum");
    kit_start(&k);
    for (uint32_t i = 0; i < 20; i++) {      /* others go on, and are packed */
        model_grow(&m[1], 30);
        kit_commit(&k);
        kit_settle(&k);
    }
    assert_int_equal(open_status(&m[1]), STORE_READ_OK);
    assert_false(store_refuses(k.store, 0));
    begins_anew("notes", m[0].chan, m[0].count);
}

/* A log that lies in the wal alone; and one that retention has begun to take from there. */
static void a_tail_without_a_head_begins_anew(void **state)
{
    static const char name[] = "[presence-history]presence-lab";
    for (uint32_t i = 0; i < 2; i++) {
        kit_start(&k);
        uint64_t chan = opened(name, STORE_READ_OK).chan, newest = 3;
        if (i == 1) {
            kit_policy.age_ms = 1000;
            kit_now_ms += 5000;
            put_rows(chan, newest, 5, 100);
            newest += 5;
            some_rounds(20);
            kit_policy.age_ms = 0;
        }
        kit_stop(&k);
        spoil_head(chan);
        kit_start(&k);
        begins_anew(name, chan, newest);
        if (i == 1) break;
        struct check_kit_copy again = check_kit_save();
        check_kit_restore(&copy);
        copy = check_kit_save();
        free(again.bytes);
    }
}

/* Nothing says how far its serials went: they go on behind all that its segment can hold. */
static void a_channel_without_head_and_segment_begins_anew(void **state)
{
    enum { ROWS = 30 };
    kit_start(&k);
    uint64_t chan = kit_channel(&k, slice_str("app"), slice_str("worn"));
    put_rows(chan, 0, ROWS, 900);
    kit_stop(&k);
    spoil_head(chan);
    first_segment(chan, spoil_front, 0);
    kit_start(&k);
    begins_anew("worn", chan, 0);
}

/* What a purge ended is not looked at again: its segment can be damaged from its first byte on. */
static void a_purge_ends_a_damaged_segment(void **state)
{
    enum { ROWS = 30 };
    kit_policy.receipt_age_ms = 1000;
    kit_start(&k);
    uint64_t chan = kit_channel(&k, slice_str("app"), slice_str("worn"));
    put_rows(chan, 0, ROWS, 900);
    kit_stop(&k);
    first_segment(chan, spoil_front, 0);
    kit_start(&k);
    (void)opened("worn", STORE_READ_IO);
    struct record reset = {.kind = RECORD_RESET, .flags = RECORD_ENDS, .chan = chan,
                           .history = 9, .message = ROWS, .time_ms = kit_now_ms};
    kit_add(&k, &reset);
    kit_commit(&k);
    kit_now_ms += 2000;
    some_rounds(20);
    kit_settle(&k);
    assert_int_equal(opened("worn", STORE_READ_OK).rows_count, 0);
    kit_stop(&k);
    check_kit_sound();
}

/* Wherever it ends, the server says so or goes on; it does not die of it. */
static void a_file_that_is_cut_short_is_survived(void **state)
{
    enum { PAGE_BYTES = 4096, CUTS = 24 };
    char error[512];
    uint32_t refused = 0;
    for (uint32_t i = 0; i < CUTS; i++) {
        size_t keep = i < CUTS / 2 ? (2 + i) * PAGE_BYTES
                                   : copy.count - (i - CUTS / 2) * PAGE_BYTES - 1;
        int fd = check_kit_file();
        assert_int_equal(pwrite(fd, copy.bytes, copy.count, 0), (ssize_t)copy.count);
        assert_int_equal(ftruncate(fd, (off_t)keep), 0);
        (void)close(fd);
        if (kit_try_start(&k, error, sizeof error) != OK) {
            assert_non_null(strstr(error, "lane-00"));
            refused++;
            continue;
        }
        for (uint32_t n = 0; n < 2; n++) (void)open_status(&m[n]);
        some_rounds(10);
        kit_stop(&k);
    }
    assert_true(refused > 0);
}

/* A list of free pages that is several pages long ends in zeros, which are no pages. */
static void a_cut_list_of_free_pages_is_refused(void **state)
{
    enum { VALUES = 1500, VALUE_BYTES = 3000, PAGE_BYTES = 4096, KNOWN_BYTES = 2000 };
    static uint8_t value[VALUE_BYTES], list[KNOWN_BYTES];
    char error[512];
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    for (uint64_t i = 0; i < 2 * VALUES; i++) {
        struct format_key at = format_key3(1, i % VALUES, 0);
        MDB_val key = {at.count, at.bytes}, data = {sizeof value, value};
        if (i == VALUES) {
            assert_int_equal(mdb_txn_commit(txn), 0);
            assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
        }
        if (i < VALUES) assert_int_equal(mdb_put(txn, dbis[FORMAT_RECEIPTS], &key, &data, 0), 0);
        else assert_int_equal(mdb_del(txn, dbis[FORMAT_RECEIPTS], &key, NULL), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    MDB_cursor *cursor;
    MDB_val key, data;
    bool found = false;
    assert_int_equal(mdb_cursor_open(txn, 0, &cursor), 0);
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        if (data.mv_size <= PAGE_BYTES) continue;
        memcpy(list, data.mv_data, sizeof list);
        found = true;
    }
    assert_true(found);
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    mdb_env_close(env);
    struct check_kit_copy now = check_kit_save();
    const uint8_t *there = memmem(now.bytes, now.count, list, sizeof list);
    assert_non_null(there);
    off_t keep = (there - now.bytes) / PAGE_BYTES * PAGE_BYTES + PAGE_BYTES;
    assert_true(keep < (off_t)now.count);
    int fd = check_kit_file();
    assert_int_equal(ftruncate(fd, keep), 0);
    for (uint32_t i = 0; i < 2; i++) {     /* each time */
        assert_int_not_equal(kit_try_start(&k, error, sizeof error), OK);
        assert_non_null(strstr(error, "lane-00"));
        assert_int_equal(lseek(fd, 0, SEEK_END), keep);
    }
    (void)close(fd);
    free(now.bytes);
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
        cmocka_unit_test_setup_teardown(a_channel_without_its_head_begins_anew, save, restore),
        cmocka_unit_test_setup_teardown(a_tail_without_a_head_begins_anew, save, restore),
        cmocka_unit_test_setup_teardown(a_channel_without_head_and_segment_begins_anew, save,
                                        restore),
        cmocka_unit_test_setup_teardown(a_file_that_is_cut_short_is_survived, save, restore),
        cmocka_unit_test_setup_teardown(a_cut_list_of_free_pages_is_refused, save, restore),
        cmocka_unit_test_setup_teardown(a_purge_ends_a_damaged_segment, save, restore),
        cmocka_unit_test_setup_teardown(a_sweep_that_cannot_read_on_rests, save, restore),
    };
    return cmocka_run_group_tests(tests, check_kit_fill, check_kit_empty);
}
