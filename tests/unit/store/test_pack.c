/* Goal: packing moves records and never changes what is read; the wal keeps its bound. Method: the
 * same channels are read before and after packing, restarts and the offline check. */
#include "tests/unit/store/store_kit.h"

#include <stdio.h>

static void fill(char *data, uint64_t chan, uint64_t delivery, uint32_t bytes)
{
    int n = snprintf(data, bytes, "\"%llu-%llu-", (unsigned long long)chan,
                     (unsigned long long)delivery);
    memset(data + n, 'p', bytes - (uint32_t)n);
    data[bytes - 1] = '"';
}

static void put_row(struct kit_batch *b, uint64_t chan, uint64_t delivery, uint32_t bytes)
{
    static char data[64 << 10];
    assert_true(bytes <= sizeof data);
    fill(data, chan, delivery, bytes);
    struct record r = {.kind = RECORD_CREATE, .flags = RECORD_WHOLE, .chan = chan,
                       .delivery = delivery, .history = delivery, .message = delivery,
                       .time_ms = kit.now_ms, .message_ms = kit.now_ms, .context = delivery,
                       .data = slice_of(data, bytes)};
    kit_put(b, &r);
}

static void assert_rows(const char *name, uint64_t chan, uint64_t newest, uint32_t bytes)
{
    static char want[64 << 10];
    struct store_read r = {.kind = STORE_RANGE, .app_id = slice_str("app"),
                           .channel = slice_str(name), .chan = chan, .upto = newest,
                           .now_ms = kit.now_ms, .limit = UINT32_MAX, .bytes_max = UINT32_MAX};
    kit_read(&r, 0, 0);
    assert_int_equal(r.status, STORE_READ_OK);
    assert_int_equal(r.records_count, newest);
    assert_int_equal(r.head.delivery, newest);
    assert_int_equal(r.head.rows_count, newest);
    struct slice rest = slice_of(r.bytes, r.bytes_count);
    for (uint64_t i = 1; i <= newest; i++) {
        struct record got;
        uint32_t read;
        assert_int_equal(record_read(rest, &got, &read), RECORD_OK);
        fill(want, chan, i, bytes);
        assert_true(got.delivery == i && slice_equal(got.data, slice_of(want, bytes)));
        rest = slice_skip(rest, read);
    }
    store_read_free(&r);
}

static struct store_stats stats(void)
{
    struct store_stats s;
    store_stats_read(kit.store, 0, &s);
    return s;
}

static void a_long_tail_becomes_segments(void **state)
{
    struct kit_batch b = {0};
    kit_open(1, 1, false);
    uint64_t chan = kit_chan(&b, "long", 0), n = 0;
    for (uint32_t i = 0; i < 100; i++) {
        for (uint32_t k = 0; k < 7; k++) put_row(&b, chan, ++n, 900);
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        if (i % 25 == 0) assert_rows("long", chan, n, 900);
    }
    kit_idle();
    assert_true(stats().segments > 0);
    assert_true(stats().wal_bytes < 64 << 10);   /* what is packed leaves the wal */
    assert_rows("long", chan, n, 900);
    kit_check();
    assert_rows("long", chan, n, 900);
    put_row(&b, chan, ++n, 900);           /* and it goes on from there */
    assert_int_equal(kit_commit(&b, 0, 0), OK);
    assert_rows("long", chan, n, 900);
    kit_batch_free(&b);
    kit_close();
}

static void a_record_longer_than_a_segment_has_one_alone(void **state)
{
    struct kit_batch b = {0};
    kit_open(1, 1, false);
    uint64_t chan = kit_chan(&b, "huge", 0);
    uint32_t bytes = 900 << 10;
    char *data = malloc(bytes);
    assert_non_null(data);
    for (uint64_t i = 1; i <= 3; i++) {
        fill(data, chan, i, bytes);
        struct record r = {.kind = RECORD_CREATE, .flags = RECORD_WHOLE, .chan = chan,
                           .delivery = i, .history = i, .message = i, .time_ms = kit.now_ms,
                           .context = i, .data = slice_of(data, bytes)};
        kit_put(&b, &r);
    }
    assert_int_equal(kit_commit(&b, 0, 0), OK);
    kit_idle();
    assert_int_equal(stats().segments, 3);
    kit_check();
    struct store_read r = {.kind = STORE_RANGE, .app_id = slice_str("app"),
                           .channel = slice_str("huge"), .chan = chan, .upto = 3,
                           .now_ms = kit.now_ms, .limit = 10};
    kit_read(&r, 0, 0);
    assert_int_equal(r.status, STORE_READ_OK);
    assert_int_equal(r.records_count, 3);
    store_read_free(&r);
    free(data);
    kit_batch_free(&b);
    kit_close();
}

/* Who waits for a commit does not wait for all that is to be packed: it is spread. */
static void tails_that_fill_together_are_spread(void **state)
{
    enum { CHANS = 200, ROWS = 16, ROW_BYTES = 1000, MANY = 64 };
    struct kit_batch b = {0};
    uint64_t chans[CHANS], most = 0;
    kit_open(1, 1, false);
    for (uint32_t n = 1; n <= ROWS + 1; n++) {
        for (uint32_t i = 0; i < CHANS; i++) {
            char name[16];
            (void)snprintf(name, sizeof name, "room-%u", i);
            if (n == 1) chans[i] = kit_chan(&b, name, 0);
            put_row(&b, chans[i], n, ROW_BYTES);
        }
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        if (n < ROWS - 1) assert_int_equal(stats().segments, 0);
    }
    for (uint64_t had = stats().segments; had < CHANS; had = stats().segments) {
        uint64_t commits = stats().commits;
        bool more = store_step(kit.store);
        uint64_t came = stats().segments - had, each = stats().commits - commits;
        assert_true(more || had + came == CHANS);
        assert_true(came <= each * (1 + (CHANS - had) / MANY));
        most = u64_max(most, came);
    }
    assert_true(most > 1);
    kit_idle();
    kit_check();
    kit_batch_free(&b);
    kit_close();
}

/* Few records of quiet channels hold old values of the wal: they move to a new one. */
static void quiet_channels_do_not_hold_the_wal(void **state)
{
    enum { QUIET = 50, ROUNDS = 1800, ROWS = 10, ROW_BYTES = 4000 };
    struct kit_batch b = {0};
    uint64_t quiet[QUIET], loud, n = 0;
    char name[QUIET][16];
    kit_open(1, 1, false);
    loud = kit_chan(&b, "loud", 0);
    for (uint32_t i = 0; i < QUIET; i++) {
        (void)snprintf(name[i], sizeof name[i], "quiet-%u", i);
        quiet[i] = kit_chan(&b, name[i], 0);
        put_row(&b, quiet[i], 1, 100);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (i % 100 < QUIET) put_row(&b, quiet[i % 100], 2 + i / 100, 100);
        for (uint32_t k = 0; k < ROWS; k++) put_row(&b, loud, ++n, ROW_BYTES);
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        assert_true(stats().wal_bytes <= STORE_WAL_BYTES_MAX);
    }
    assert_true(n * ROW_BYTES > STORE_WAL_BYTES_MAX);
    for (uint32_t i = 0; i < QUIET; i++) assert_rows(name[i], quiet[i], 1 + ROUNDS / 100, 100);
    kit_check();
    for (uint32_t i = 0; i < QUIET; i++) assert_rows(name[i], quiet[i], 1 + ROUNDS / 100, 100);
    kit_batch_free(&b);
    kit_close();
}

/* A record that cleaning moved lies in two values for a while: the directory opens nonetheless, at
 * whatever moment it is stopped. */
static void a_lane_opens_at_any_moment_of_cleaning(void **state)
{
    enum { QUIET = 50, ROUNDS = 1500, QUIETLY = 1190, EACH = 7, ROWS = 10, ROW_BYTES = 4000 };
    struct kit_batch b = {0};
    uint64_t quiet[QUIET], newest[QUIET], loud, n = 0;
    uint32_t stops = 0;
    char name[QUIET][16];
    kit_open(1, 1, false);
    loud = kit_chan(&b, "loud", 0);
    for (uint32_t i = 0; i < QUIET; i++) {
        (void)snprintf(name[i], sizeof name[i], "quiet-%u", i);
        quiet[i] = kit_chan(&b, name[i], 0);
        put_row(&b, quiet[i], newest[i] = 1, 100);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t q = i % QUIET;
        put_row(&b, quiet[q], ++newest[q], 100);
        for (uint32_t k = 0; k < ROWS; k++) put_row(&b, loud, ++n, ROW_BYTES);
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        if (i < QUIETLY || i % EACH != 0) continue;
        if (stops++ % 8 == 0) kit_check();
        else kit_restart();
        assert_rows(name[q], quiet[q], newest[q], 100);
        uint32_t other = (q + QUIET / 2) % QUIET;
        assert_rows(name[other], quiet[other], newest[other], 100);
    }
    for (uint32_t i = 0; i < QUIET; i++) assert_rows(name[i], quiet[i], newest[i], 100);
    kit_batch_free(&b);
    kit_close();
}

/* So many short tails that they alone would pass the bound: small segments are written. */
static void many_short_tails_keep_the_bound(void **state)
{
    enum { CHANS = 9000, ROW_BYTES = 10000 };
    static uint64_t chans[CHANS];
    struct kit_batch b = {0};
    char name[16];
    kit_open(1, 1, false);
    for (uint32_t i = 0; i < CHANS; i++) {
        (void)snprintf(name, sizeof name, "c-%u", i);
        chans[i] = kit_chan(&b, name, 0);
        put_row(&b, chans[i], 1, ROW_BYTES);
        if (i % 8 != 7) continue;
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        assert_true(stats().wal_bytes < STORE_WAL_BYTES_MAX / 8 * 9);
    }
    assert_true((uint64_t)CHANS * ROW_BYTES > STORE_WAL_BYTES_MAX / 8 * 10);
    kit_idle();
    assert_true(stats().segments > 0);
    kit_check();
    for (uint32_t i = 0; i < CHANS; i += 111) {
        (void)snprintf(name, sizeof name, "c-%u", i);
        assert_rows(name, chans[i], 1, ROW_BYTES);
    }
    kit_batch_free(&b);
    kit_close();
}

/* ---- messages that grow ---- */

enum { MESSAGES = 4, APPENDS = 4096, FRAGMENT = 256 };

static void put_append(struct kit_batch *b, uint64_t chan, uint64_t delivery, uint64_t message,
                       uint32_t index)
{
    char data[FRAGMENT + 2];
    memset(data, 'a' + (int)(index % 26), sizeof data);
    data[0] = data[FRAGMENT + 1] = '"';
    struct record r = {.kind = RECORD_APPEND, .chan = chan, .delivery = delivery,
                       .message = message, .history = message, .time_ms = kit.now_ms,
                       .message_ms = kit.now_ms, .context = message,
                       .op_hash = index % 100 == 0 ? delivery : 0,
                       .data = slice_of(data, sizeof data)};
    kit_put(b, &r);
}

static void assert_message(uint64_t chan, uint64_t message, uint64_t upto, uint32_t appends)
{
    struct store_read r = {.kind = STORE_MESSAGE, .app_id = slice_str("app"),
                           .channel = slice_str("grow"), .chan = chan, .upto = upto,
                           .message = message, .now_ms = kit.now_ms};
    struct record got;
    uint32_t bytes;
    kit_read(&r, 0, 0);
    assert_int_equal(r.status, STORE_READ_OK);
    assert_int_equal(record_read(slice_of(r.bytes, r.bytes_count), &got, &bytes), RECORD_OK);
    assert_int_equal(got.data.bytes, 2 + (appends + 1) * FRAGMENT);
    for (uint32_t i = 0; i < appends; i++) {
        const uint8_t *at = got.data.ptr + 1 + (i + 1) * FRAGMENT;
        assert_true(at[0] == 'a' + i % 26 && at[FRAGMENT - 1] == 'a' + i % 26);
    }
    assert_true(r.appends == appends && r.versions == appends);
    assert_int_equal(r.ops_count, appends == 0 ? 0 : (appends + 99) / 100);
    for (uint32_t i = 0; i < r.ops_count; i++) assert_true(r.ops[2 * i] == r.ops[2 * i + 1]);
    store_read_free(&r);
}

static void a_long_message_is_read_whole(void **state)
{
    struct kit_batch b = {0};
    kit_open(1, 1, false);
    uint64_t chan = kit_chan(&b, "grow", 0), n = 0, half = 0;
    for (uint32_t m = 0; m < MESSAGES; m++) put_row(&b, chan, ++n, FRAGMENT + 2);
    for (uint32_t i = 0; i < APPENDS; i++) {
        for (uint32_t m = 0; m < MESSAGES; m++) put_append(&b, chan, ++n, m + 1, i);
        if (i == APPENDS / 2 - 1) half = n;
        if (i % 16 == 15) {
            assert_int_equal(kit_commit(&b, 0, 0), OK);
            if (i % 512 == 511) assert_message(chan, 1 + i % MESSAGES, n, i + 1);
        }
    }
    kit_idle();
    for (uint32_t m = 1; m <= MESSAGES; m++) {
        assert_message(chan, m, n, APPENDS);
        assert_message(chan, m, half, APPENDS / 2);   /* as of a head that has been passed */
        assert_message(chan, m, MESSAGES, 0);
    }
    kit_check();
    for (uint32_t m = 1; m <= MESSAGES; m++) assert_message(chan, m, n, APPENDS);
    kit_batch_free(&b);
    kit_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_tail_becomes_segments),
        cmocka_unit_test(a_record_longer_than_a_segment_has_one_alone),
        cmocka_unit_test(tails_that_fill_together_are_spread),
        cmocka_unit_test(quiet_channels_do_not_hold_the_wal),
        cmocka_unit_test(a_lane_opens_at_any_moment_of_cleaning),
        cmocka_unit_test(many_short_tails_keep_the_bound),
        cmocka_unit_test(a_long_message_is_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
