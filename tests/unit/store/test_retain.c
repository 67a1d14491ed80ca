/* Goal: what a channel's policy keeps is shown, exactly; what no bound keeps is deleted in the
 * background and nothing else is. Method: rows with known times and sizes; the head is compared
 * with a plain model before and after the sweep, with rows in segments, in the tail and in both. */
#include "tests/unit/store/store_kit.h"

#include <stdio.h>

#include "core/rng.h"

enum { ROWS_MAX = 3000 };

static struct rng rng;
static struct { uint64_t delivery, time_ms; uint32_t bytes; } rows[ROWS_MAX];
static uint64_t rows_count, newest, chan;
static struct kit_batch batch;
static uint64_t outlived;                  /* replay floor when messages outlived a reset, else 0 */

static void put(enum record_kind kind, uint64_t message, uint32_t data_bytes)
{
    static char data[4096];
    memset(data, 'x', sizeof data);
    data[0] = data[data_bytes - 1] = '"';
    newest++;
    bool row = kind == RECORD_CREATE;
    struct record r = {.kind = (uint8_t)kind, .flags = row ? RECORD_WHOLE : 0, .chan = chan,
                       .delivery = newest, .message = row ? newest : rows[message].delivery,
                       .history = row ? rows_count + 1 : message + 1, .time_ms = kit.now_ms,
                       .message_ms = row ? kit.now_ms : rows[message].time_ms,
                       .context = row ? newest : rows[message].delivery,
                       .data = slice_of(data, data_bytes)};
    kit_put(&batch, &r);
    if (!row) return;
    rows[rows_count].delivery = newest;
    rows[rows_count].time_ms = kit.now_ms;
    rows[rows_count++].bytes = record_bytes(&r);
}

/* Rows one second apart, some with appends behind them. */
static void make(uint32_t count, uint32_t bytes_max)
{
    rows_count = newest = 0;
    chan = kit_chan(&batch, "kept", 0);
    while (rows_count < count) {
        kit.now_ms += 1000;
        put(RECORD_CREATE, 0, 20 + (uint32_t)rng_below(&rng, bytes_max));
        for (uint64_t k = rng_below(&rng, 3); k > 0; k--) {
            put(RECORD_APPEND, rows_count - 1 - rng_below(&rng, u64_min(rows_count, 5)), 20);
        }
        if (rng_below(&rng, 10) == 0) assert_int_equal(kit_commit(&batch, 0, 0), OK);
    }
    assert_int_equal(kit_commit(&batch, 0, 0), OK);
}

/* The plain model: from the newest row back as long as every bound holds. */
static uint64_t first_kept(const struct store_policy *p, uint64_t gone)
{
    uint64_t bytes = 0, first = rows_count;
    while (first > 0) {
        uint64_t i = first - 1;
        if (p->age_ms > 0 && rows[i].time_ms + p->age_ms < kit.now_ms) break;
        if (p->messages_max > 0 && rows_count - i > p->messages_max) break;
        bytes += rows[i].bytes;
        if (p->bytes_max > 0 && bytes > p->bytes_max) break;
        if (rows[i].delivery <= gone) break;
        first = i;
    }
    return first;
}

static void assert_head(uint64_t gone)
{
    uint64_t first = first_kept(&kit.policy, gone), bytes = 0;
    struct store_head head = kit_head("kept", 0);
    for (uint64_t i = first; i < rows_count; i++) bytes += rows[i].bytes;
    assert_int_equal(head.delivery, newest);
    assert_int_equal(head.rows_count, rows_count - first);
    assert_int_equal(head.rows_bytes, bytes);
    assert_int_equal(head.row_floor, first < rows_count ? rows[first].delivery : newest + 1);
    if (outlived != 0) assert_int_equal(head.replay_floor, outlived);
    if (first == rows_count) return;
    assert_int_equal(head.rows_first, first + 1);
    assert_int_equal(head.rows_first_ms, rows[first].time_ms);
    assert_int_equal(head.rows_newest, rows_count);
    assert_int_equal(head.rows_newest_ms, rows[rows_count - 1].time_ms);
    if (kit.policy.version_age_ms == UINT64_MAX && outlived == 0) {
        assert_true(head.replay_floor == head.row_floor);
    }
}

static uint64_t map_bytes(void)
{
    struct store_stats s;
    store_stats_read(kit.store, 0, &s);
    return s.map_bytes;
}

static void sweep(void)
{
    kit.conf.purge_interval_ms = 1;
    kit_restart();                         /* a sweep begins with the start */
    kit_idle();
}

static void open_with(uint32_t count, uint32_t bytes_max, struct store_policy policy)
{
    kit_open(1, 1, false);
    policy.version_age_ms = policy.version_age_ms == 0 ? UINT64_MAX : policy.version_age_ms;
    make(count, bytes_max);
    kit.policy = policy;
}

static void done(void)
{
    kit_check();
    kit_batch_free(&batch);
    kit_close();
}

static void each_bound_keeps_what_it_says(void **state)
{
    const struct store_policy policies[] = {
        {.messages_max = 1}, {.messages_max = 17}, {.messages_max = 900}, {.messages_max = 5000},
        {.bytes_max = 1}, {.bytes_max = 700}, {.bytes_max = 100000}, {.bytes_max = 100000000},
        {.age_ms = 1}, {.age_ms = 1000}, {.age_ms = 250000}, {.age_ms = 100000000},
        {.messages_max = 100, .bytes_max = 20000, .age_ms = 50000},
    };
    const uint32_t sizes[][2] = {{30, 100}, {1000, 400}};   /* in the tail; mostly in segments */
    for (uint32_t s = 0; s < 2; s++) {
        for (uint32_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
            open_with(sizes[s][0], sizes[s][1], policies[i]);
            assert_head(0);
            kit_idle();
            assert_head(0);
            sweep();
            assert_head(0);
            kit.now_ms += 3000;            /* a bound moves on without a publish */
            assert_head(0);
            put(RECORD_CREATE, 0, 30);     /* and the channel goes on */
            assert_int_equal(kit_commit(&batch, 0, 0), OK);
            assert_head(0);
            done();
        }
    }
}

static void what_nothing_keeps_is_deleted(void **state)
{
    open_with(2500, 4000, (struct store_policy){.messages_max = 10});
    sweep();
    assert_head(0);
    kit_restart();
    kit_idle();
    assert_true(map_bytes() > 0 && map_bytes() < 400 << 10);   /* of 5 MB */
    assert_head(0);
    kit.policy.messages_max = 0;
    kit.policy.age_ms = 1;
    kit.now_ms += 10;
    sweep();
    assert_head(0);
    struct store_read r = {.kind = STORE_RANGE, .app_id = slice_str("app"),
                           .channel = slice_str("kept"), .chan = chan, .upto = newest,
                           .now_ms = kit.now_ms, .limit = 10};
    kit_read(&r, 0, 0);
    assert_int_equal(r.status, STORE_READ_GONE);
    store_read_free(&r);
    done();
}

static void versions_live_as_long_as_their_own_age(void **state)
{
    open_with(1000, 400, (struct store_policy){.messages_max = 5, .version_age_ms = 300000});
    uint64_t oldest = newest + 1;
    for (uint64_t i = rows_count; i-- > 0 && rows[i].time_ms + 300000 >= kit.now_ms;) {
        oldest = rows[i].delivery;
    }
    for (uint32_t round = 0; round < 2; round++) {
        struct store_head head = kit_head("kept", 0);
        assert_int_equal(head.replay_floor, oldest);
        assert_int_equal(head.rows_count, 5);
        sweep();
    }
    done();
}

static void receipts_keep_their_records(void **state)
{
    open_with(1000, 400, (struct store_policy){.messages_max = 1, .receipt_age_ms = 400000});
    sweep();
    uint64_t kept = map_bytes();
    assert_head(0);                        /* shown is what the policy says */
    kit.policy.receipt_age_ms = 0;
    sweep();
    kit_restart();
    kit_idle();
    assert_true(map_bytes() < kept);
    assert_head(0);
    done();
}

/* What a policy does not keep goes as soon as its segment holds nothing else, and no sooner: shown
 * by a policy that keeps everything which is still there. */
static void what_is_kept_stays_to_the_segment(void **state)
{
    enum { SEGMENT_BYTES = 40 << 10 };     /* a tail that has just become long, with its appends */
    const struct store_policy policies[] = {
        {.messages_max = 1990}, {.messages_max = 1989}, {.messages_max = 1800},
        {.messages_max = 1799}, {.bytes_max = 400000}, {.bytes_max = 399000},
        {.age_ms = 1500000}, {.age_ms = 1499000}, {.messages_max = 900, .receipt_age_ms = 1100000},
        {.messages_max = 900, .receipt_age_ms = 1}, {.messages_max = 600, .bytes_max = 150000},
        {.messages_max = 1, .age_ms = 300000, .receipt_age_ms = 250000}, {.messages_max = 100},
    };
    uint64_t there = 0;
    open_with(2000, 400, (struct store_policy){0});
    kit.conf.purge_interval_ms = 1;
    for (uint32_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        kit.policy = policies[i];
        kit.policy.version_age_ms = UINT64_MAX;
        uint64_t first = first_kept(&kit.policy, 0), bytes = 0;
        while (first > 0 && kit.policy.receipt_age_ms > 0 &&
               rows[first - 1].time_ms + kit.policy.receipt_age_ms >= kit.now_ms) {
            first--;
        }
        first = u64_max(first, there);
        kit_restart();
        kit_idle();
        kit.policy = (struct store_policy){.version_age_ms = UINT64_MAX};
        there = kit_head("kept", 0).rows_first - 1;
        assert_in_range(there, 0, first);
        for (uint64_t k = there; k < first; k++) bytes += rows[k].bytes;
        assert_true(bytes < SEGMENT_BYTES);
    }
    done();
}

/* A commit waits for a step of the sweep. */
static void a_step_of_the_sweep_is_short(void **state)
{
    enum { CHANS = 50 };
    char name[16];
    kit_open(1, 1, false);
    for (uint32_t i = 0; i < CHANS; i++) {
        (void)snprintf(name, sizeof name, "c-%u", i);
        chan = kit_chan(&batch, name, 0);
        newest = rows_count = 0;
        put(RECORD_CREATE, 0, 30);
    }
    assert_int_equal(kit_commit(&batch, 0, 0), OK);
    kit_restart();
    kit.policy_ns = 1500000;               /* longer than a step may take */
    for (uint32_t swept = kit.policies + CHANS; kit.policies < swept;) {
        uint32_t before = kit.policies;
        (void)store_step(kit.store);
        assert_in_range(kit.policies - before, 0, 1);
    }
    kit.policy_ns = 0;
    kit_idle();
    done();
}

static bool all_there(void)
{
    struct store_policy policy = kit.policy;
    kit.policy = (struct store_policy){.version_age_ms = UINT64_MAX};
    uint64_t count = kit_head("kept", 0).rows_count;
    kit.policy = policy;
    assert_true(count == rows_count || count == 0);
    return count > 0;
}

/* Until the policy was asked so many times: a sweep asks once. */
static void sweeps(uint32_t count)
{
    uint64_t began_ns = clock_mono_ns();
    for (uint32_t upto = kit.policies + count; kit.policies < upto;) {
        (void)store_step(kit.store);
        assert_true(clock_mono_ns() - began_ns < 20000000000);
    }
}

/* A clock that goes wrong for a while costs no history; one that stays where it is is believed. */
static void a_leap_of_the_clock_is_followed_slowly(void **state)
{
    const uint64_t hour_ms = 3600000;
    open_with(30, 100, (struct store_policy){.age_ms = 2 * hour_ms});
    kit.conf.purge_interval_ms = 1;
    kit_restart();
    sweeps(2);
    for (uint32_t i = 0; i < 3; i++) {
        kit.now_ms += 1000 * hour_ms;
        sweeps(5);
        kit.now_ms -= 1000 * hour_ms;
        sweeps(2);
        assert_true(all_there());
        assert_head(0);
    }
    kit.policy.age_ms = 600000;
    uint64_t began_ns = clock_mono_ns();
    sweeps(2);
    assert_true(all_there());
    kit.now_ms += hour_ms + 30000;         /* half a second to follow */
    while (all_there()) {
        sweeps(10);
        assert_true(clock_mono_ns() - began_ns < 20000000000);
    }
    assert_true(clock_mono_ns() - began_ns > 300000000);
    rows_count = 0;
    assert_head(0);
    done();
}

/* Just before a sweep, long after the one before it: it is the time of the leap that counts. */
static void a_leap_between_two_sweeps_is_not_believed_for_their_distance(void **state)
{
    const uint64_t hour_ms = 3600000, leap_ms = hour_ms + 210000, interval_ms = 4000;
    uint32_t before;
    open_with(30, 100, (struct store_policy){.age_ms = hour_ms + 60000});
    kit.conf.purge_interval_ms = interval_ms;
    kit_restart();
    do {                                   /* again where a step took so long that it was missed */
        sweeps(1);
        before = kit.policies;
        uint64_t began_ns = clock_mono_ns(), wait_ns = (interval_ms - 500) * 1000000;
        while (clock_mono_ns() - began_ns < wait_ns) (void)store_step(kit.store);
    } while (kit.policies != before);
    kit.now_ms += leap_ms;
    sweeps(1);
    kit.now_ms -= leap_ms;
    assert_true(all_there());
    done();
}

static void control(enum record_kind kind, uint8_t flags, uint64_t floor, uint64_t epoch)
{
    struct record r = {.kind = (uint8_t)kind, .flags = flags, .chan = chan, .message = floor,
                       .history = epoch, .time_ms = kit.now_ms};
    kit_put(&batch, &r);
    assert_int_equal(kit_commit(&batch, 0, 0), OK);
}

static void a_purge_takes_rows_and_no_serial(void **state)
{
    open_with(800, 400, (struct store_policy){0});
    uint64_t gone = rows[500].delivery;
    control(RECORD_PURGE, 0, gone, 0);
    assert_head(gone);
    assert_int_equal(kit_head("kept", 0).history_next, rows_count + 1);
    sweep();
    assert_head(gone);
    control(RECORD_PURGE, 0, newest, 0);
    assert_head(newest);
    assert_int_equal(kit_head("kept", 0).history_next, rows_count + 1);
    sweep();
    assert_head(newest);
    assert_int_equal(kit_head("kept", 0).history_next, rows_count + 1);
    put(RECORD_CREATE, 0, 30);
    assert_int_equal(kit_commit(&batch, 0, 0), OK);
    assert_head(newest - 1);
    done();
}

/* Bounds of the rows bind the messages that outlive a reset as well: the count goes over both. */
static void reset_is(bool ends, bool swept, uint32_t messages_max)
{
    open_with(swept ? 700 : 20, 300, (struct store_policy){.messages_max = messages_max});
    uint64_t before = newest;
    if (!ends) outlived = messages_max == 0 ? 1 : rows[rows_count + 300 - messages_max].delivery;
    control(RECORD_RESET, ends ? RECORD_ENDS : 0, newest, 1);
    struct store_head head = kit_head("kept", 0);
    assert_true(head.history_epoch == 1 && head.history_next == 1 && head.rows_count == 0);
    assert_true(head.delivery == before && head.reset_ms == kit.now_ms);
    rows_count = 0;
    for (uint32_t i = 0; i < 300; i++) put(RECORD_CREATE, 0, 300);
    assert_int_equal(kit_commit(&batch, 0, 0), OK);
    assert_head(before);
    if (swept) sweep();
    kit_idle();
    assert_head(before);
    control(RECORD_EPOCH, 0, 0, 9);
    head = kit_head("kept", 0);
    assert_true(head.delivery_epoch == 9 && head.history_epoch == 1);
    kit_restart();
    head = kit_head("kept", 0);
    assert_true(head.delivery_epoch == 9 && head.history_next == 301);
    assert_head(before);
    outlived = 0;                          /* a purge takes what a reset left */
    control(RECORD_PURGE, 0, before, 0);
    assert_head(before);
    if (swept) sweep();
    assert_head(before);
    done();
}

static void a_reset_starts_a_new_history(void **state)
{
    for (uint32_t ends = 0; ends < 2; ends++) {
        reset_is(ends, false, 0);
        reset_is(ends, true, 0);
        reset_is(ends, false, 310);
        reset_is(ends, true, 450);
    }
}

/* A read that goes on in the next snapshot finds the records behind a hole: it may not go on with
 * them. */
static void what_is_swept_while_it_is_read_is_gone(void **state)
{
    enum { APPENDS = 2500, FRAGMENT = 3000 };
    open_with(1, 100, (struct store_policy){0});
    kit.conf.purge_interval_ms = 1;
    kit_restart();
    for (uint32_t i = 0; i < APPENDS; i++) {
        put(RECORD_APPEND, 0, FRAGMENT);
        if (i % 100 == 0) assert_int_equal(kit_commit(&batch, 0, 0), OK);
    }
    assert_int_equal(kit_commit(&batch, 0, 0), OK);
    kit_idle();                            /* in segments, with a base */
    put(RECORD_CREATE, 0, 30);
    put(RECORD_APPEND, 0, 30);             /* in the tail */
    assert_int_equal(kit_commit(&batch, 0, 0), OK);
    struct store_read r = {.kind = STORE_MESSAGE, .app_id = slice_str("app"),
                           .channel = slice_str("kept"), .chan = chan, .upto = newest,
                           .message = rows[0].delivery, .now_ms = kit.now_ms};
    kit_read(&r, 0, 0);
    assert_int_equal(r.status, STORE_READ_OK);
    assert_true(r.appends > APPENDS && r.bytes_count > APPENDS * (FRAGMENT - 2));
    store_read_free(&r);
    kit_read_post(&r, 0, 0);
    (void)store_step(kit.store);           /* the first snapshot is used up */
    kit.policy.messages_max = 1;
    uint32_t asked = kit.policies;
    for (uint64_t began_ns = clock_mono_ns(); clock_mono_ns() - began_ns < 2000000;) continue;
    assert_int_equal(kit_letter(0).kind, MAIL_READ_DONE);
    assert_true(kit.policies > asked + 1);
    assert_int_equal(r.status, STORE_READ_NOT_FOUND);
    store_read_free(&r);
    kit.policy.messages_max = 0;
    done();
}

static void request_keys_expire(void **state)
{
    kit_open(1, 1, false);
    for (uint32_t i = 0; i < 200; i++) {
        struct record r = {.kind = RECORD_REQUEST, .time_ms = kit.now_ms, .key = {1, (uint8_t)i},
                           .data = slice_str("{}")};
        kit_put(&batch, &r);
        assert_int_equal(kit_commit(&batch, 0, 0), OK);
        kit.now_ms += 1000;
    }
    kit_check();
    sweep();
    kit_check();
    struct store_read r = {.kind = STORE_ACTIVE, .now_ms = kit.now_ms, .receipt_age_ms = UINT32_MAX,
                           .slot_upto = 1024};
    kit_read(&r, 0, 0);
    assert_int_equal(r.status, STORE_READ_OK);
    assert_true(r.records_count >= 120 && r.records_count <= 121);
    store_read_free(&r);
    kit_batch_free(&batch);
    kit_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bound_keeps_what_it_says),
        cmocka_unit_test(what_nothing_keeps_is_deleted),
        cmocka_unit_test(versions_live_as_long_as_their_own_age),
        cmocka_unit_test(receipts_keep_their_records),
        cmocka_unit_test(what_is_kept_stays_to_the_segment),
        cmocka_unit_test(a_step_of_the_sweep_is_short),
        cmocka_unit_test(a_leap_of_the_clock_is_followed_slowly),
        cmocka_unit_test(a_leap_between_two_sweeps_is_not_believed_for_their_distance),
        cmocka_unit_test(a_purge_takes_rows_and_no_serial),
        cmocka_unit_test(a_reset_starts_a_new_history),
        cmocka_unit_test(what_is_swept_while_it_is_read_is_gone),
        cmocka_unit_test(request_keys_expire),
    };
    rng_seed(&rng, 5);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
