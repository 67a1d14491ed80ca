/* Goal: what was committed is there after every start, in the order of the channel, and nothing
 * else. Method: random channels and records against a list of what was acknowledged, with clean
 * ends and with children that are killed. */
#include "tests/unit/store/store_kit.h"

#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/rng.h"
#include "store/format.h"

enum { CHANS = 8 };

static struct rng rng;

static struct record text_record(uint64_t chan, uint64_t delivery, const char *data)
{
    return (struct record){.kind = RECORD_CREATE, .flags = RECORD_WHOLE, .chan = chan,
                           .delivery = delivery, .history = delivery, .message = delivery,
                           .time_ms = kit.now_ms, .message_ms = kit.now_ms, .context = delivery,
                           .name = slice_str("\"n\""), .data = slice_str(data)};
}

/* RANGE of the whole channel must be exactly delivery serials 1..newest with the data given. */
static void assert_range(const char *name, uint64_t newest, uint64_t marker)
{
    struct store_head head = kit_head(name, 0);
    assert_true(head.known);
    assert_int_equal(head.delivery, newest);
    struct store_read r = {.kind = STORE_RANGE, .app_id = slice_str("app"),
                           .channel = slice_str(name), .chan = head.chan, .upto = head.delivery,
                           .now_ms = kit.now_ms, .limit = UINT32_MAX, .bytes_max = UINT32_MAX};
    kit_read(&r, 0, 0);
    assert_int_equal(r.status, STORE_READ_OK);
    assert_int_equal(r.records_count, newest);
    struct slice rest = slice_of(r.bytes, r.bytes_count);
    for (uint64_t i = 1; i <= newest; i++) {
        struct record got;
        uint32_t bytes;
        char want[64];
        assert_int_equal(record_read(rest, &got, &bytes), RECORD_OK);
        assert_int_equal(got.delivery, i);
        (void)snprintf(want, sizeof want, "\"%llu-%llu\"", (unsigned long long)marker,
                       (unsigned long long)i);
        assert_true(slice_is(got.data, want));
        rest = slice_skip(rest, bytes);
    }
    assert_int_equal(rest.bytes, 0);
    store_read_free(&r);
}

static void put_text(struct kit_batch *b, uint64_t chan, uint64_t marker, uint64_t delivery)
{
    char data[64];
    (void)snprintf(data, sizeof data, "\"%llu-%llu\"", (unsigned long long)marker,
                   (unsigned long long)delivery);
    struct record r = text_record(chan, delivery, data);
    kit_put(b, &r);
}

static void a_new_directory_is_clean_and_named(void **state)
{
    kit_open(2, 1, false);
    char id[STORE_ID_BYTES];
    assert_int_equal(store_losses(kit.store, 0), 0);
    assert_int_equal(store_lanes(kit.store), 2);
    strcpy(id, store_id(kit.store));
    assert_true(strlen(id) > 0 && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789") == strlen(id));
    kit.conf.lanes = 5;                    /* the directory knows better */
    kit_restart();
    assert_int_equal(store_lanes(kit.store), 2);
    assert_string_equal(id, store_id(kit.store));
    assert_int_equal(store_losses(kit.store, 0), 0);
    kit_close();
}

static void records_survive_restarts_in_order(void **state)
{
    uint64_t chans[CHANS], newest[CHANS] = {0};
    struct kit_batch b = {0};
    char name[CHANS][16];
    kit_open(1, 1, false);
    for (uint32_t i = 0; i < CHANS; i++) {
        (void)snprintf(name[i], sizeof name[i], "room-%u", i);
        chans[i] = kit_chan(&b, name[i], 0);
        put_text(&b, chans[i], i, ++newest[i]);
    }
    assert_int_equal(kit_commit(&b, 0, 0), OK);
    for (uint32_t round = 0; round < 6; round++) {
        for (uint32_t n = 0; n < 40; n++) {
            for (uint32_t k = (uint32_t)rng_below(&rng, 60); k > 0; k--) {
                uint32_t i = (uint32_t)rng_below(&rng, CHANS);
                i = (uint32_t)rng_below(&rng, i + 1);   /* some channels get much more */
                put_text(&b, chans[i], i, ++newest[i]);
            }
            assert_int_equal(kit_commit(&b, 0, 0), OK);
        }
        kit_idle();
        for (uint32_t i = 0; i < CHANS; i++) assert_range(name[i], newest[i], i);
        kit_restart();
        assert_int_equal(store_losses(kit.store, 0), 0);
        for (uint32_t i = 0; i < CHANS; i++) assert_range(name[i], newest[i], i);
    }
    kit_batch_free(&b);
    kit_close();
}

static void batches_of_one_shard_are_answered_in_order_by_threads(void **state)
{
    enum { BATCHES = 300 };
    static struct kit_batch batches[2][BATCHES];
    struct kit_batch first = {0};
    kit_open(1, 2, true);
    uint64_t chans[2] = {kit_chan(&first, "a", 0), kit_chan(&first, "b", 0)};
    assert_int_not_equal(chans[0], chans[1]);
    assert_int_equal(kit_commit(&first, 0, 0), OK);
    for (uint32_t i = 0; i < BATCHES; i++) {
        for (uint16_t shard = 0; shard < 2; shard++) {
            put_text(&batches[shard][i], chans[shard], shard, i + 1);
            kit_post(&batches[shard][i], shard, 0);
        }
    }
    for (uint16_t shard = 0; shard < 2; shard++) {
        for (uint32_t i = 0; i < BATCHES; i++) {
            struct store_batch *b = kit_committed(shard);
            assert_ptr_equal(b, &batches[shard][i].b);
            assert_int_equal(b->result, OK);
            assert_true(b->commit_ns > 0);
        }
    }
    struct store_stats stats;
    store_stats_read(kit.store, 0, &stats);
    assert_int_equal(stats.records, 2 * BATCHES);
    assert_true(stats.commits < 2 * BATCHES);   /* what waits is committed together */
    assert_range("a", BATCHES, 0);
    assert_range("b", BATCHES, 1);
    kit_restart();
    assert_range("a", BATCHES, 0);
    assert_range("b", BATCHES, 1);
    for (uint32_t i = 0; i < BATCHES; i++) {
        kit_batch_free(&batches[0][i]);
        kit_batch_free(&batches[1][i]);
    }
    kit_batch_free(&first);
    kit_close();
}

/* The child commits without end and says what was answered; it is killed somewhere in that. */
static void child(int out)
{
    struct kit_batch b = {0};
    kit.conf.threads = true;
    if (kit_start() != OK) _exit(1);
    struct store_head head = kit_head("killed", 0);
    uint64_t chan = kit_chan(&b, "killed", 0), newest = head.delivery;
    for (;;) {
        for (uint32_t k = 1 + (uint32_t)rng_below(&rng, 50); k > 0; k--) {
            put_text(&b, chan, 7, ++newest);
        }
        if (kit_commit(&b, 0, 0) != OK || write(out, &newest, sizeof newest) < 0) _exit(1);
    }
}

static void what_was_answered_survives_a_kill(void **state)
{
    uint64_t known = 0;
    kit_open(1, 1, false);
    kit_stop();
    for (uint32_t round = 0; round < 12; round++) {
        int ends[2];
        uint64_t answered;
        uint32_t commits = (uint32_t)rng_below(&rng, 120) + 1;
        assert_int_equal(pipe(ends), 0);
        (void)rng_next(&rng);              /* each child draws from where the parent is */
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) child(ends[1]);
        (void)close(ends[1]);
        for (uint32_t i = 0; i < commits; i++) {
            assert_int_equal(read(ends[0], &answered, sizeof answered), sizeof answered);
            known = answered;
        }
        assert_int_equal(kill(pid, SIGKILL), 0);
        while (read(ends[0], &answered, sizeof answered) == sizeof answered) known = answered;
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        (void)close(ends[0]);

        assert_int_equal(kit_start(), OK);
        assert_int_equal(store_losses(kit.store, 0), round + 1);
        struct store_head head = kit_head("killed", 0);
        assert_true(head.known && head.delivery >= known);
        assert_range("killed", head.delivery, 7);
        known = head.delivery;
        kit_stop();
    }
    assert_int_equal(kit_start(), OK);     /* a clean end loses nothing */
    assert_int_equal(store_losses(kit.store, 0), 12);
    store_doubt(kit.store, 0);             /* whoever knows better says so */
    kit_restart();
    assert_int_equal(store_losses(kit.store, 0), 13);
    kit_check();
    assert_int_equal(store_losses(kit.store, 0), 13);
    kit_close();
}

/* The newest value of a lane's wal with one byte of it turned over. */
static void flip_wal(uint32_t lane)
{
    char path[128];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi wal;
    MDB_cursor *cursor;
    MDB_val k, v;
    uint8_t value[4096];
    (void)snprintf(path, sizeof path, "%s/lane-%02u", kit.dir, lane);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, FORMAT_DBS), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOTLS, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, format_db_names[FORMAT_WAL], 0, &wal), 0);
    assert_int_equal(mdb_cursor_open(txn, wal, &cursor), 0);
    assert_int_equal(mdb_cursor_get(cursor, &k, &v, MDB_LAST), 0);
    assert_true(v.mv_size <= sizeof value);
    memcpy(value, v.mv_data, v.mv_size);
    value[v.mv_size - 1] ^= 1;
    v.mv_data = value;
    assert_int_equal(mdb_cursor_put(cursor, &k, &v, MDB_CURRENT), 0);
    mdb_cursor_close(cursor);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

/* Nothing was lost, so nothing may say so later: relaxed channels would start new streams. */
static void a_start_that_fails_leaves_the_marks(void **state)
{
    enum { LANES = 3 };
    for (uint32_t bad = 0; bad < LANES; bad++) {
        struct kit_batch b = {0};
        kit_open(LANES, 1, false);
        for (uint16_t lane = 0; lane < LANES; lane++) {
            put_text(&b, kit_chan(&b, "a", lane), 0, 1);
            assert_int_equal(kit_commit(&b, 0, lane), OK);
        }
        kit_stop();
        flip_wal(bad);
        for (uint32_t i = 0; i < 2; i++) {
            assert_int_equal(kit_start(), ERR_IO);
            assert_non_null(strstr(kit.error, "wal value"));
        }
        flip_wal(bad);
        assert_int_equal(kit_start(), OK);
        for (uint32_t lane = 0; lane < LANES; lane++) {
            assert_int_equal(store_losses(kit.store, lane), 0);
        }
        kit_batch_free(&b);
        kit_close();
    }
}

/* ---- the same while segments, bases and deletes are under way ---- */

enum { BUSY_CHANS = 6, KEPT = 50, OPEN_MESSAGES = 4 };

struct busy { uint64_t newest[BUSY_CHANS], rows[BUSY_CHANS]; };

static void put_busy(struct kit_batch *b, struct busy *s, const uint64_t *chans, uint32_t i)
{
    static char data[602];
    memset(data, 'b', sizeof data);
    data[0] = data[sizeof data - 1] = '"';
    struct record r = text_record(chans[i], ++s->newest[i], "");
    r.data = slice_of(data, 2 + (uint32_t)rng_below(&rng, 600));
    ((char *)(uintptr_t)r.data.ptr)[r.data.bytes - 1] = '"';
    /* Message k of the channel is created at delivery serial k + 1 and appended to for ever. */
    if (s->rows[i] < OPEN_MESSAGES || rng_below(&rng, 3) == 0) {
        r.history = ++s->rows[i];
    } else {
        r.kind = RECORD_APPEND;
        r.flags = 0;
        r.message = r.context = r.history = 1 + rng_below(&rng, OPEN_MESSAGES);
    }
    kit_put(b, &r);
}

static void busy_child(int out, struct busy *s)
{
    struct kit_batch b = {0};
    uint64_t chans[BUSY_CHANS];
    char name[16];
    kit.conf.threads = true;
    kit.conf.purge_interval_ms = 1;
    if (kit_start() != OK) _exit(1);
    for (uint32_t i = 0; i < BUSY_CHANS; i++) {
        (void)snprintf(name, sizeof name, "busy-%u", i);
        chans[i] = kit_chan(&b, name, 0);
    }
    for (;;) {
        for (uint32_t k = 1 + (uint32_t)rng_below(&rng, 60); k > 0; k--) {
            put_busy(&b, s, chans, (uint32_t)rng_below(&rng, BUSY_CHANS));
        }
        if (kit_commit(&b, 0, 0) != OK || write(out, s, sizeof *s) < 0) _exit(1);
    }
}

/* What was answered is there, at most one commit more, and what the policy keeps is kept. */
static void assert_busy(struct busy *s)
{
    char name[16];
    for (uint32_t i = 0; i < BUSY_CHANS; i++) {
        (void)snprintf(name, sizeof name, "busy-%u", i);
        struct store_head head = kit_head(name, 0);
        assert_true(head.delivery >= s->newest[i] && head.history_next > s->rows[i]);
        s->newest[i] = head.delivery;
        s->rows[i] = head.history_next - 1;
        assert_int_equal(head.rows_count, s->rows[i] < KEPT ? s->rows[i] : KEPT);
        if (head.rows_count == 0) continue;
        assert_int_equal(head.rows_newest, s->rows[i]);
        assert_int_equal(head.rows_first, s->rows[i] + 1 - head.rows_count);
    }
}

static void a_kill_in_the_background_leaves_a_sound_directory(void **state)
{
    struct busy known = {0}, answered;
    kit_open(1, 1, false);
    kit.policy.messages_max = KEPT;
    kit_stop();
    for (uint32_t round = 0; round < 15; round++) {
        int ends[2];
        uint32_t commits = 1 + (uint32_t)rng_below(&rng, 150);
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) busy_child(ends[1], &known);
        (void)close(ends[1]);
        for (uint32_t i = 0; i < commits; i++) {
            assert_int_equal(read(ends[0], &answered, sizeof answered), sizeof answered);
            known = answered;
        }
        assert_int_equal(kill(pid, SIGKILL), 0);
        while (read(ends[0], &answered, sizeof answered) == sizeof answered) known = answered;
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        (void)close(ends[0]);
        kit.conf.threads = false;
        kit.conf.purge_interval_ms = 3600000;
        kit_check();                       /* as the kill left it */
        assert_busy(&known);
        kit_stop();
    }
    kit_close();
}

static void a_newer_format_is_refused(void **state)
{
    kit_open(1, 1, false);
    kit_stop();
    char path[128];
    (void)snprintf(path, sizeof path, "%s/lane-00/data.mdb", kit.dir);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    static uint8_t image[1 << 20];
    size_t bytes = fread(image, 1, sizeof image, f);
    uint32_t changed = 0, newer = STORE_FORMAT + 1, lane = 0;
    /* format_lane: check, format 1, lane 0, lanes 1, 0 */
    const uint32_t said[] = {STORE_FORMAT_MADE, lane, 1, 0};
    for (size_t at = 8; at + sizeof said <= bytes; at += 2) {
        if (memcmp(image + at, said, sizeof said) != 0) continue;
        assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
        assert_int_equal(fwrite(&newer, sizeof newer, 1, f), 1);
        changed++;
    }
    assert_int_equal(fclose(f), 0);
    assert_true(changed > 0);
    assert_int_equal(kit_start(), ERR_CONFIG);
    assert_non_null(strstr(kit.error, "newer version"));
    kit_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_directory_is_clean_and_named),
        cmocka_unit_test(records_survive_restarts_in_order),
        cmocka_unit_test(batches_of_one_shard_are_answered_in_order_by_threads),
        cmocka_unit_test(what_was_answered_survives_a_kill),
        cmocka_unit_test(a_start_that_fails_leaves_the_marks),
        cmocka_unit_test(a_kill_in_the_background_leaves_a_sound_directory),
        cmocka_unit_test(a_newer_format_is_refused),
    };
    rng_seed(&rng, 2);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
