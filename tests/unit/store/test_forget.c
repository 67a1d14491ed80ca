/* Goal: of a channel of which nothing is left, head and name go in time and not sooner, nothing of
 * a later channel of that name is ever taken for it, and what the wal holds of it does no harm.
 * Method: channels that lose their rows by age or purge, under a clock of the test's; the directory
 * is checked as `weftctl store check` does, and looked at with LMDB. */
#include "tests/unit/store/store_kit.h"

#include <lmdb.h>
#include <stdio.h>

#include "store/check.h"
#include "store/format.h"

enum { AGE_MS = 1000, FORGET_MS = 60000 };

static struct kit_batch batch;

/* ---- channels ---- */

static void put(uint64_t chan, uint64_t delivery, enum record_kind kind)
{
    struct record r = {.kind = (uint8_t)kind, .flags = RECORD_WHOLE, .chan = chan,
                       .delivery = delivery, .message = delivery, .history = delivery,
                       .time_ms = kit.now_ms, .message_ms = kit.now_ms, .context = delivery,
                       .name = slice_str(kind == RECORD_PRESENCE ? "\"member_added\"" : "\"ev\""),
                       .user = slice_str("u"), .data = slice_str("\"text\"")};
    kit_put(&batch, &r);
}

static void commit(void) { assert_int_equal(kit_commit(&batch, 0, 0), OK); }

/* As a home does it: with the epoch that it was told to begin with. */
static struct store_head begin(const char *name)
{
    struct store_head head = kit_head(name, 0);
    uint8_t data[64];
    uint32_t bytes = (uint32_t)strlen(name);
    if (head.known) return head;
    memcpy(data, "app", 4);
    memcpy(data + 4, name, bytes);
    struct record r = {.kind = RECORD_CHANNEL, .chan = head.chan, .history = head.delivery_epoch,
                       .time_ms = head.time_ms, .data = slice_of(data, 4 + bytes)};
    kit_put(&batch, &r);
    return head;
}

/* Says `rows` things and closes it. */
static struct store_head live(const char *name, uint64_t rows)
{
    struct store_head head = begin(name);
    for (uint64_t i = 1; i <= rows; i++) put(head.chan, head.delivery + i, RECORD_CREATE);
    commit();
    kit_closed(head.chan, 0, 0);
    return head;
}

static void purge(uint64_t chan, uint64_t upto)
{
    struct record r = {.kind = RECORD_PURGE, .chan = chan, .message = upto, .time_ms = kit.now_ms};
    kit_put(&batch, &r);
    commit();
}

static uint64_t forgotten(void)
{
    struct store_stats s;
    store_stats_read(kit.store, 0, &s);
    return s.forgotten;
}

/* Two sweeps: what the first one empties the second one forgets. */
static uint64_t sweep(void)
{
    uint64_t count = 0;
    kit.conf.purge_interval_ms = 3600000;
    for (uint32_t i = 0; i < 2; i++) {
        kit_restart();                     /* a sweep begins with the start */
        kit_idle();
        count += forgotten();
    }
    return count;
}

/* While the store runs, as homes that have opened something want it. */
static void sweep_on(void)
{
    uint32_t asked = kit.policies;
    uint64_t began_ns = clock_mono_ns();
    while (kit.policies < asked + 4) {
        (void)store_step(kit.store);
        assert_true(clock_mono_ns() - began_ns < 20000000000);
    }
    kit_idle();
}

static void open(uint32_t shards)
{
    kit_open(1, shards, false);
    kit.conf.forget_after_ms = FORGET_MS;
    kit.policy = (struct store_policy){.version_age_ms = UINT64_MAX, .age_ms = AGE_MS};
    kit_restart();
}

static void close_all(void)
{
    kit_check();
    kit_batch_free(&batch);
    kit_close();
}

/* ---- the directory, as LMDB shows it ---- */

static MDB_env *env;
static MDB_txn *txn;
static MDB_dbi dbi;

static void look_at(enum format_db db, unsigned flags)
{
    char path[96];
    (void)snprintf(path, sizeof path, "%s/lane-00", kit.dir);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, FORMAT_DBS), 0);
    assert_int_equal(mdb_env_open(env, path, flags, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, flags, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, format_db_names[db], 0, &dbi), 0);
}

static uint64_t keys(enum format_db db)
{
    MDB_stat stat;
    kit_stop();
    look_at(db, MDB_RDONLY);
    assert_int_equal(mdb_stat(txn, dbi, &stat), 0);
    mdb_txn_abort(txn);
    mdb_env_close(env);
    assert_int_equal(kit_start(), OK);
    return stat.ms_entries;
}

/* Deletes the oldest or the newest key of `db`. */
static void cut(enum format_db db, bool newest)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    look_at(db, 0);
    assert_int_equal(mdb_cursor_open(txn, dbi, &cursor), 0);
    assert_int_equal(mdb_cursor_get(cursor, &k, &v, newest ? MDB_LAST : MDB_FIRST), 0);
    assert_int_equal(mdb_cursor_del(cursor, 0), 0);
    mdb_cursor_close(cursor);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

struct said { const char *word; bool found; };

static void look_for(void *ctx, const char *line)
{
    struct said *said = ctx;
    said->found = said->found || strstr(line, said->word) != NULL;
}

static void assert_damaged(const char *word)
{
    struct said said = {.word = word};
    assert_int_equal(check_run(kit.dir, look_for, &said), CHECK_DAMAGED);
    assert_true(said.found);
    assert_int_not_equal(kit_start(), OK);
    assert_non_null(strstr(kit.error, "damaged"));
}

/* ---- cases ---- */

static void what_is_empty_goes_in_time(void **state)
{
    open(1);
    struct store_head first = live("c", 3), other = live("kept", 1);
    assert_true(first.delivery_epoch == 0 && first.time_ms == 0);
    kit.now_ms += AGE_MS + FORGET_MS / 2;
    assert_int_equal(sweep(), 0);          /* the rows are gone, the head is young */
    struct store_head empty = kit_head("c", 0);
    assert_true(empty.known && empty.chan == first.chan && empty.delivery == 3);
    assert_true(empty.rows_count == 0 && empty.history_next == 4);
    struct store_head again = live("kept", 1);
    assert_int_equal(again.chan, other.chan);
    kit.now_ms += FORGET_MS / 2 + 1;
    assert_int_equal(sweep(), 1);
    assert_true(keys(FORMAT_HEADS) == 1 && keys(FORMAT_NAMES) == 1);
    struct store_head anew = kit_head("c", 0), never = kit_head("never", 0);
    assert_true(!anew.known && anew.chan > other.chan && anew.delivery == 0);
    assert_true(anew.history_next == 1 && anew.replay_floor == 1 && anew.row_floor == 1);
    assert_true(anew.rows_count == 0 && anew.reset_ms == 0 && anew.history_epoch == 0);
    assert_true(anew.delivery_epoch != 0 && (anew.delivery_epoch & 1) == 0);
    assert_true(anew.time_ms >= 1700000000000 && never.delivery_epoch == 0 && never.time_ms == 0);
    assert_int_equal(kit_head("kept", 0).delivery_epoch, 0);
    close_all();
}

/* Each of these alone keeps a head, whatever its age. */
static void what_is_not_empty_stays(void **state)
{
    open(1);
    struct store_head member = begin("[presence-history]p");
    put(member.chan, 1, RECORD_PRESENCE);
    commit();
    (void)live("p", 1);                    /* has a log */
    (void)live("a", 1);
    struct store_head hidden = live("[annotations]a", 1);
    (void)live("b", 1);
    (void)live("[annotations]b", 1);
    kit.now_ms += AGE_MS + FORGET_MS + 1;
    (void)live("b", 1);                    /* goes on, and so do serials of its annotations */
    assert_int_equal(sweep(), 1);          /* [annotations]a, */
    assert_true(kit_head("a", 0).known && kit_head("[annotations]b", 0).known);
    assert_int_equal(sweep(), 1);          /* and then a */
    assert_true(!kit_head("[annotations]a", 0).known && !kit_head("a", 0).known);
    assert_true(kit_head("[presence-history]p", 0).known && kit_head("p", 0).known);
    assert_int_not_equal(kit_head("[annotations]a", 0).chan, hidden.chan);
    kit.policy.receipt_age_ms = 10 * FORGET_MS;
    struct store_head keyed = live("keyed", 1);
    kit.now_ms += 5 * FORGET_MS;
    assert_int_equal(sweep(), 0);
    assert_int_equal(kit_head("keyed", 0).chan, keyed.chan);
    kit.policy.receipt_age_ms = 0;
    kit.policy.version_age_ms = 0;         /* for ever */
    kit.now_ms += 5 * FORGET_MS;
    assert_int_equal(sweep(), 0);
    kit.policy.version_age_ms = UINT64_MAX;
    kit.conf.forget_after_ms = 0;          /* never */
    assert_int_equal(sweep(), 0);
    kit.conf.forget_after_ms = FORGET_MS;
    assert_int_equal(sweep(), 3);          /* keyed, [annotations]b, and then b */
    assert_true(!kit_head("keyed", 0).known && !kit_head("b", 0).known);
    close_all();
}

static void a_home_that_has_it_goes_on(void **state)
{
    open(1);
    kit.conf.purge_interval_ms = 1;
    kit_restart();
    struct store_head head = begin("c");
    put(head.chan, 1, RECORD_CREATE);
    put(head.chan, 2, RECORD_CREATE);
    commit();
    for (uint32_t i = 0; i < 3; i++) {     /* named; opened with rows; opened without */
        kit.now_ms += 10 * FORGET_MS;
        sweep_on();
        assert_int_equal(forgotten(), 0);
        put(head.chan, 3 + i, RECORD_CREATE);
        commit();
        struct store_head now = kit_head("c", 0);
        assert_true(now.known && now.chan == head.chan && now.delivery == 3 + i);
        assert_true(now.rows_count == 1 && now.rows_first == 3 + i && now.delivery_epoch == 0);
        kit_restart();
        if (i == 1) kit.now_ms += 10 * FORGET_MS;
        assert_true(kit_head("c", 0).known);
    }
    kit.now_ms += 10 * FORGET_MS;
    kit_closed(head.chan, 0, 0);
    for (uint64_t began_ns = clock_mono_ns(); forgotten() == 0;) {
        (void)store_step(kit.store);
        assert_true(clock_mono_ns() - began_ns < 20000000000);
    }
    close_all();
}

/* The reader has found the name in a snapshot that is older than the end of the channel. */
static void what_ends_while_it_is_opened_begins_anew(void **state)
{
    open(1);
    struct store_head first = live("c", 1);
    purge(first.chan, 1);
    kit_closed(first.chan, 0, 0);
    kit_restart();
    kit_idle();
    kit.now_ms += FORGET_MS + 1;
    kit_restart();                         /* the sweep comes right behind the snapshot */
    struct store_head head = kit_head("c", 0);
    assert_int_equal(forgotten(), 1);
    assert_true(!head.known && head.chan != first.chan && head.delivery_epoch != 0);
    (void)live("c", 1);
    assert_int_equal(kit_head("c", 0).delivery, 1);
    close_all();
}

static void no_two_lives_are_one_stream(void **state)
{
    enum { LIVES = 20 };
    uint64_t epochs[LIVES], newest_ms = 0;
    open(1);
    for (uint32_t i = 0; i < LIVES; i++) {
        struct store_head head = live("c", 1 + i % 3);
        assert_true(!head.known && head.time_ms >= newest_ms);
        epochs[i] = head.delivery_epoch;
        for (uint32_t k = 0; k < i; k++) assert_true(epochs[k] != epochs[i]);
        newest_ms = kit.now_ms;
        kit_restart();
        struct store_head stored = kit_head("c", 0);
        assert_true(stored.known && stored.delivery_epoch == epochs[i]);
        if (i % 2 == 0) {
            struct record r = {.kind = RECORD_EPOCH, .chan = stored.chan, .history = 2 * i + 1};
            kit_put(&batch, &r);
            commit();
            assert_int_equal(kit_head("c", 0).delivery_epoch, 2 * i + 1);
        }
        kit.now_ms += AGE_MS + FORGET_MS + 1;
        assert_int_equal(sweep(), 1);
        kit.now_ms -= FORGET_MS;           /* set back: what is said next is not older */
        if (i % 5 == 0) kit_check();
    }
    close_all();
}

/* Values of the wal hold records of channels that are no more beside those of others. */
static void dead_records_do_no_harm(void **state)
{
    open(1);
    kit.policy.age_ms = 0;
    struct store_head gone = begin("gone"), kept = begin("kept");
    put(gone.chan, 1, RECORD_CREATE);
    put(kept.chan, 1, RECORD_CREATE);
    commit();
    purge(gone.chan, 1);
    kit_closed(gone.chan, 0, 0);
    kit_closed(kept.chan, 0, 0);
    kit.now_ms += FORGET_MS + 1;
    assert_int_equal(sweep(), 1);
    for (uint32_t i = 0; i < 80; i++) {    /* what forgets it stays as long as they do */
        put(kept.chan, 2 + i, RECORD_CREATE);
        commit();
        if (i == 40) kit_check();
    }
    kit_check();
    assert_true(kit_head("kept", 0).rows_count == 81 && !kit_head("gone", 0).known);
    purge(kept.chan, 80);
    assert_int_equal(sweep(), 0);
    for (uint32_t i = 0; i < 3; i++) {     /* and goes with them */
        put(kept.chan, 82 + i, RECORD_CREATE);
        commit();
        kit_idle();
    }
    assert_in_range(keys(FORMAT_WAL), 1, 5);
    close_all();
}

/* The same directory each time: `cutting` the wal value that forgets, or the head of the other. */
static void without(enum format_db db, bool newest, const char *word)
{
    open(1);
    kit.policy.age_ms = 0;
    struct store_head gone = begin("gone"), kept = begin("kept");
    put(gone.chan, 1, RECORD_CREATE);
    put(kept.chan, 1, RECORD_CREATE);
    commit();
    purge(gone.chan, 1);
    kit_closed(gone.chan, 0, 0);
    kit.now_ms += FORGET_MS + 1;
    assert_int_equal(sweep(), 1);
    kit_check();
    kit_stop();
    cut(db, newest);
    assert_damaged(word);
    kit_batch_free(&batch);
    kit_close();
}

static void a_head_that_is_missing_is_still_found(void **state)
{
    without(FORMAT_HEADS, false, "which has no good head");
    without(FORMAT_WAL, true, "which has no good head");
}

/* The value fails its checksum from now on. */
static void spoil(enum format_db db, struct format_key key)
{
    uint8_t value[256];
    MDB_val k = {key.count, key.bytes}, v;
    look_at(db, 0);
    assert_int_equal(mdb_get(txn, dbi, &k, &v), 0);
    assert_in_range(v.mv_size, 2 * sizeof(uint64_t), sizeof value);
    memcpy(value, v.mv_data, v.mv_size);
    value[sizeof(uint64_t)] ^= 1;
    v.mv_data = value;
    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

/* One channel that cannot be swept keeps none of its neighbours. */
static void a_bad_head_stays_alone(void **state)
{
    enum { CHANNELS = 50, BAD = 20 };
    char name[16];
    uint64_t bad = 0;
    open(1);
    for (uint32_t i = 0; i < CHANNELS; i++) {
        (void)snprintf(name, sizeof name, "c-%u", i);
        struct store_head head = live(name, 1);
        if (i == BAD) bad = head.chan;
    }
    kit.now_ms += AGE_MS + 1;
    assert_int_equal(sweep(), 0);
    kit.now_ms += FORGET_MS;
    kit_stop();
    spoil(FORMAT_HEADS, format_key1(bad));
    assert_int_equal(kit_start(), OK);
    kit_idle();
    assert_int_equal(forgotten(), CHANNELS - 1);
    assert_int_equal(keys(FORMAT_HEADS), 1);
    kit_batch_free(&batch);
    kit_close();
}

/* Which epoch it held nobody knows any more: names go on with one that nobody had. */
static void a_bad_mark_is_replaced(void **state)
{
    open(1);
    (void)live("c", 1);
    kit.now_ms += AGE_MS + FORGET_MS + 1;
    assert_int_equal(sweep(), 1);
    uint64_t lost = kit_head("c", 0).delivery_epoch;
    kit_stop();
    spoil(FORMAT_META, format_mark_key(format_name_hash(slice_str("app"), slice_str("c"))));
    assert_int_equal(kit_start(), OK);
    struct store_head anew = live("c", 1);
    assert_true(!anew.known && anew.delivery_epoch != 0 && anew.delivery_epoch != lost);
    kit.now_ms += AGE_MS + FORGET_MS + 1;
    assert_int_equal(sweep(), 1);
    assert_true(kit_head("c", 0).delivery_epoch != anew.delivery_epoch);
    close_all();                           /* sound again */
}

static void many_go_with_few_commits(void **state)
{
    enum { CHANNELS = 1000 };
    char name[16];
    struct store_stats before, after;
    open(1);
    for (uint32_t i = 0; i < CHANNELS; i++) {
        (void)snprintf(name, sizeof name, "c-%u", i);
        struct store_head head = begin(name);
        put(head.chan, 1, RECORD_CREATE);
    }
    commit();
    kit.now_ms += AGE_MS + 1;
    kit_restart();
    kit_idle();
    assert_int_equal(forgotten(), 0);
    kit.now_ms += FORGET_MS;
    kit_restart();
    store_stats_read(kit.store, 0, &before);
    kit_idle();
    store_stats_read(kit.store, 0, &after);
    assert_int_equal(after.forgotten, CHANNELS);
    assert_in_range(after.commits - before.commits, CHANNELS / 32, CHANNELS / 32 + 30);
    assert_true(keys(FORMAT_HEADS) == 0 && keys(FORMAT_NAMES) == 0);
    assert_in_range(keys(FORMAT_META), 900, CHANNELS + 2);    /* marks */
    kit_idle();
    store_stats_read(kit.store, 0, &before);
    assert_int_equal(before.forgotten, 0);
    close_all();
}

static void the_first_one_changes_the_format(void **state)
{
    struct said said = {.word = "format 1,"};
    open(1);
    struct store_head head = live("c", 1);
    kit_stop();
    assert_int_equal(check_stat(kit.dir, look_for, &said), CHECK_SOUND);
    assert_true(said.found);
    assert_int_equal(kit_start(), OK);
    purge(head.chan, 1);
    kit.now_ms += FORGET_MS + 1;
    assert_int_equal(sweep(), 1);
    kit_stop();
    said = (struct said){.word = "format 2,"};
    assert_int_equal(check_stat(kit.dir, look_for, &said), CHECK_SOUND);
    assert_true(said.found);
    assert_int_equal(kit_start(), OK);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_empty_goes_in_time),
        cmocka_unit_test(what_is_not_empty_stays),
        cmocka_unit_test(a_home_that_has_it_goes_on),
        cmocka_unit_test(what_ends_while_it_is_opened_begins_anew),
        cmocka_unit_test(no_two_lives_are_one_stream),
        cmocka_unit_test(dead_records_do_no_harm),
        cmocka_unit_test(a_head_that_is_missing_is_still_found),
        cmocka_unit_test(a_bad_head_stays_alone),
        cmocka_unit_test(a_bad_mark_is_replaced),
        cmocka_unit_test(many_go_with_few_commits),
        cmocka_unit_test(the_first_one_changes_the_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
