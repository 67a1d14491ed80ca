/* Goal: a start gets every member and request key that can be read, whatever is wrong with the
 * others, and names of every length that can be stored. Method: values of a closed store are
 * damaged through LMDB, then the start's question is asked. */
#include "read_kit.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/format.h"

enum { CHANS = 3, KEYS = 3, BATCHES = 2 };

static struct kit k;
static uint64_t   chan_second;

static void add_member(uint64_t chan, uint64_t delivery, const char *user, struct slice data)
{
    struct record r = {.kind = RECORD_PRESENCE, .flags = RECORD_WHOLE, .chan = chan,
                       .delivery = delivery, .history = delivery, .message = delivery,
                       .time_ms = kit_now_ms, .message_ms = kit_now_ms, .context = delivery,
                       .name = slice_str("\"member_added\""), .data = data,
                       .user = slice_str(user)};
    kit_add(&k, &r);
}

/* Three channels of two members; six request keys in two values. */
static int fill(void **state)
{
    char name[64];
    k = (struct kit){.lane = 0};
    kit_policy = (struct store_policy){.version_age_ms = UINT64_MAX};
    kit_make_dir(&k);
    kit_start(&k);
    for (uint32_t i = 0; i < CHANS; i++) {
        (void)snprintf(name, sizeof name, "[presence-history]presence-%u", i);
        uint64_t chan = kit_channel(&k, slice_str("app"), slice_str(name));
        if (i == 1) chan_second = chan;
        add_member(chan, 1, "ann", slice_str("{}"));
        add_member(chan, 2, "bob", slice_str("{}"));
        kit_commit(&k);
    }
    for (uint32_t i = 0; i < BATCHES * KEYS; i++) {
        struct record r = {.kind = RECORD_REQUEST, .time_ms = kit_now_ms,
                           .key = {1, (uint8_t)i}, .data = slice_str("{}")};
        kit_add(&k, &r);
        if (i % KEYS == KEYS - 1) kit_commit(&k);
    }
    return 0;
}

static int empty(void **state)
{
    if (k.store != NULL) kit_stop(&k);
    kit_remove_dir(&k);
    return 0;
}

/* The index-th value of a database of the closed store; `at` from its end. */
static void flip(enum format_db db, uint32_t index, uint32_t at)
{
    char path[2 * KIT_PATH_BYTES];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_cursor *cursor;
    MDB_val key, v;
    uint8_t value[1024];
    (void)snprintf(path, sizeof path, "%s/lane-00", k.dir);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, FORMAT_DBS), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOTLS, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, format_db_names[db], 0, &dbi), 0);
    assert_int_equal(mdb_cursor_open(txn, dbi, &cursor), 0);
    for (uint32_t i = 0; i <= index; i++) {
        assert_int_equal(mdb_cursor_get(cursor, &key, &v, MDB_NEXT), 0);
    }
    assert_true(v.mv_size <= sizeof value && at < v.mv_size);
    memcpy(value, v.mv_data, v.mv_size);
    value[v.mv_size - 1 - at] ^= 1;
    v.mv_data = value;
    assert_int_equal(mdb_cursor_put(cursor, &key, &v, MDB_CURRENT), 0);
    mdb_cursor_close(cursor);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void assert_active(uint32_t members, uint32_t keys, uint32_t unreadable)
{
    struct store_read r = {.kind = STORE_ACTIVE, .receipt_age_ms = 1000, .slot_upto = 1024};
    uint32_t seen[RECORD_REQUEST + 1] = {0}, bytes;
    struct record x;
    kit_read(&k, &r);
    assert_int_equal(r.status, STORE_READ_OK);
    struct slice rest = slice_of(r.bytes, r.bytes_count);
    for (uint64_t chan = 0; rest.bytes > 0; rest = slice_skip(rest, bytes)) {
        assert_int_equal(record_read(rest, &x, &bytes), RECORD_OK);
        seen[x.kind]++;
        if (x.kind == RECORD_CHANNEL) chan = x.chan;
        if (x.kind == RECORD_PRESENCE) assert_int_equal(x.chan, chan);
    }
    assert_int_equal(seen[RECORD_PRESENCE], members);
    assert_int_equal(seen[RECORD_REQUEST], keys);
    assert_int_equal(r.unreadable, unreadable);
    store_read_free(&r);
}

static void everything_is_there(void **state)
{
    kit_restart(&k);
    assert_active(2 * CHANS, BATCHES * KEYS, 0);
}

static void a_bad_member_is_left_out(void **state)
{
    kit_stop(&k);
    flip(FORMAT_PRESENCE, 2, 0);
    kit_start(&k);
    assert_active(2 * CHANS - 1, BATCHES * KEYS, 1);
}

static void a_bad_key_is_left_out(void **state)
{
    kit_stop(&k);
    flip(FORMAT_RECEIPTS, 0, 0);           /* the last of its value */
    kit_start(&k);
    assert_active(2 * CHANS, BATCHES * KEYS - 1, 1);
    kit_stop(&k);
    flip(FORMAT_RECEIPTS, 1, 0);
    kit_start(&k);
    assert_active(2 * CHANS, BATCHES * KEYS - 2, 2);
}

/* (A start refuses a bad head only where records of its channel are still in the wal.) */
static void members_of_a_bad_head_are_left_out(void **state)
{
    static char data[20000];
    memset(data, '1', sizeof data);
    add_member(chan_second, 3, "ann", slice_of(data, sizeof data));
    kit_commit(&k);
    for (uint32_t i = 0; i < 2; i++) {     /* each takes dead values of the wal with it */
        struct record r = {.kind = RECORD_REQUEST, .time_ms = kit_now_ms,
                           .key = {2, (uint8_t)i}, .data = slice_str("{}")};
        kit_settle(&k);
        kit_add(&k, &r);
        kit_commit(&k);
    }
    kit_stop(&k);
    flip(FORMAT_HEADS, 1, 0);
    kit_start(&k);
    assert_active(2 * CHANS - 2, BATCHES * KEYS + 2, 1);
}

static uint8_t long_name[STORE_NAME_BYTES_MAX + 1];

static uint64_t open_long(uint32_t bytes, uint8_t status)
{
    static uint8_t text[STORE_NAME_BYTES_MAX + 2];
    struct store_read r = {.kind = STORE_OPEN, .app_id = slice_str("app"),
                           .channel = slice_of(long_name, bytes)};
    kit_read(&k, &r);
    assert_int_equal(r.status, status);
    if (status != STORE_READ_OK || r.head.known) return r.head.chan;
    memcpy(text, "app", 4);
    memcpy(text + 4, long_name, bytes);
    struct record named = {.kind = RECORD_CHANNEL, .chan = r.head.chan,
                           .data = slice_of(text, 4 + bytes)};
    kit_add(&k, &named);
    return r.head.chan;
}

/* One that cannot be stored is refused before a batch of it could fail with others in it. */
static void a_name_has_a_bound(void **state)
{
    const uint32_t bounds[] = {1020, 1021, 20000, STORE_NAME_BYTES_MAX - 3};
    memset(long_name, 'n', sizeof long_name);
    memcpy(long_name, "[presence-history]", 18);
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t chan = open_long(bounds[i], STORE_READ_OK);
        add_member(chan, 1, "ann", slice_str("{}"));
        kit_commit(&k);
        assert_int_equal(open_long(bounds[i], STORE_READ_OK), chan);
    }
    (void)open_long(STORE_NAME_BYTES_MAX - 2, STORE_READ_LARGE);
    kit_restart(&k);
    assert_active(2 * CHANS + 4, BATCHES * KEYS, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_is_there, fill, empty),
        cmocka_unit_test_setup_teardown(a_bad_member_is_left_out, fill, empty),
        cmocka_unit_test_setup_teardown(a_bad_key_is_left_out, fill, empty),
        cmocka_unit_test_setup_teardown(members_of_a_bad_head_are_left_out, fill, empty),
        cmocka_unit_test_setup_teardown(a_name_has_a_bound, fill, empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
