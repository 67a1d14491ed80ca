/* Goal    The offline check says nothing about a whole store, and finds every flipped byte in a key
 *         or value, every record that is missing and every gap, without ever falling over itself.
 * Method  A store with everything in it is closed; its file is then damaged in one place, checked
 *         and mended again. Where live keys and values lie in the file is seen from LMDB's map.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_kit.h"

enum { FLIPS = 260, FLIPS_ANYWHERE = 60, SPANS_MAX = 1 << 16 };

/* ---- flipped bytes ---- */

struct span { uint64_t offset, bytes; uint8_t db; bool key; };
static struct span spans[SPANS_MAX];
static uint32_t    spans_count;

static const uint8_t *map_base(void)
{
    char line[4096], path[2 * KIT_PATH_BYTES];
    unsigned long long start = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    check_kit_path(path, 0, "/data.mdb");
    while (start == 0 && fgets(line, sizeof line, f) != NULL) {
        if (strstr(line, path) != NULL) assert_int_equal(sscanf(line, "%llx-", &start), 1);
    }
    (void)fclose(f);
    assert_int_not_equal(start, 0);
    return (const uint8_t *)(uintptr_t)start;
}

static void find_spans(void)
{
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_env *env = check_kit_env(&txn, dbis, MDB_RDONLY);
    const uint8_t *base = map_base();
    spans_count = 0;
    for (uint8_t db = 0; db < FORMAT_DBS; db++) {
        MDB_cursor *c;
        MDB_val key, data;
        assert_int_equal(mdb_cursor_open(txn, dbis[db], &c), 0);
        while (mdb_cursor_get(c, &key, &data, MDB_NEXT) == 0) {
            const MDB_val *both[] = {&key, &data};
            for (uint32_t i = 0; i < 2; i++) {
                if (both[i]->mv_size == 0) continue;
                assert_true(spans_count < SPANS_MAX);
                spans[spans_count++] = (struct span){
                    (uint64_t)((const uint8_t *)both[i]->mv_data - base), both[i]->mv_size, db,
                    i == 0};
            }
        }
        mdb_cursor_close(c);
    }
    mdb_txn_abort(txn);
    mdb_env_close(env);
}

static void a_flipped_byte_of_a_key_or_value_is_found(void **state)
{
    uint32_t met[FORMAT_DBS][2] = {{0}};
    find_spans();
    for (uint32_t i = 0; i < FLIPS; i++) {
        uint32_t db = i % FORMAT_DBS;
        bool key = i / FORMAT_DBS % 2 == 0;
        const struct span *s;
        uint32_t tries = 0;
        do {                                   /* each database, keys and values in turn */
            s = &spans[rng_below(&rng, spans_count)];
        } while ((s->db != db || s->key != key) && ++tries < 200000);
        if (s->db != db || s->key != key) continue;     /* names have no values */
        uint64_t at = s->offset + rng_below(&rng, s->bytes);
        uint8_t bits = (uint8_t)(1 << rng_below(&rng, 8));
        met[db][key]++;
        check_kit_flip(at, bits);
        if (check_kit_run() != CHECK_DAMAGED) {
            fail_msg("%s: byte %llu of a %s of %llu bytes", format_db_names[db],
                     (unsigned long long)(at - s->offset), key ? "key" : "value",
                     (unsigned long long)s->bytes);
        }
        check_kit_flip(at, bits);
    }
    for (uint32_t db = 0; db < FORMAT_DBS; db++) {
        assert_true(met[db][1] > 0 && (met[db][0] > 0 || db == FORMAT_NAMES));
    }
    check_kit_sound();
}

/* A wrong number in one of LMDB's two meta pages makes the older one count: the newest commit is
 * gone, and what is left is in good order. (The one flip that makes the newest look two older than
 * it is leaves nothing to compare with.) */
static void a_hidden_commit_is_found(void **state)
{
    enum { TXN_AT = 144, PAGE_BYTES = 4096 };
    struct check_kit_copy c = check_kit_save();
    uint64_t txn[2];
    for (uint32_t page = 0; page < 2; page++) {
        memcpy(&txn[page], c.bytes + page * PAGE_BYTES + TXN_AT, sizeof txn[page]);
    }
    uint64_t newest = u64_max(txn[0], txn[1]);
    assert_true(txn[newest & 1] == newest && txn[~newest & 1] == newest - 1);
    for (uint32_t page = 0; page < 2; page++) {
        for (uint32_t bit = 0; bit < 64; bit++) {
            uint64_t at = page * PAGE_BYTES + TXN_AT + bit / 8;
            if ((txn[page] ^ 1ull << bit) == newest - 2 && txn[page] == newest) continue;
            check_kit_flip(at, (uint8_t)(1 << bit % 8));
            check_kit_found("meta pages");
            check_kit_flip(at, (uint8_t)(1 << bit % 8));
        }
    }
    check_kit_restore(&c);
}

/* Also where no key lies: page heads, inner pages, free pages, LMDB's own. It may or may not
 * matter, but the check itself always ends, and says so when it could not read on. */
static void a_flipped_byte_anywhere_ends_no_check(void **state)
{
    uint32_t damaged = 0;
    struct check_kit_copy c = check_kit_save();
    for (uint32_t i = 0; i < FLIPS_ANYWHERE; i++) {
        enum { HEAD_BYTES = 64 };              /* of a page: where most damage is done */
        uint64_t at = rng_below(&rng, c.count);
        if (i % 2 == 0) at = at / 4096 * 4096 + rng_below(&rng, HEAD_BYTES);
        uint8_t bits = (uint8_t)(1 + rng_below(&rng, 255));
        check_kit_flip(at, bits);
        enum check_verdict v = check_kit_run();
        assert_true(v == CHECK_SOUND || v == CHECK_DAMAGED);
        assert_true(check_kit_lines > 0);
        damaged += v == CHECK_DAMAGED;
        check_kit_flip(at, bits);
    }
    assert_true(damaged > 0);
    check_kit_restore(&c);
}

static void a_file_that_was_cut_is_found(void **state)
{
    struct check_kit_copy c = check_kit_save();
    int fd = check_kit_file();
    assert_int_equal(ftruncate(fd, (off_t)(c.count / 2)), 0);
    (void)close(fd);
    check_kit_found("cut short");
    fd = check_kit_file();
    assert_int_equal(ftruncate(fd, 0), 0);
    (void)close(fd);
    check_kit_found("empty");
    fd = check_kit_file();
    assert_int_equal(ftruncate(fd, 100), 0);
    (void)close(fd);
    assert_int_equal(check_kit_run(), CHECK_DAMAGED);
    check_kit_restore(&c);
}

/* What one transaction puts and deletes may leave free pages at the end that nobody has written. */
static bool ends_early(MDB_env *env, MDB_dbi dbi)
{
    static uint8_t value[9000];
    struct format_key at;
    MDB_envinfo info;
    MDB_stat stat_now;
    struct stat file;
    MDB_txn *txn;
    uint32_t count = (uint32_t)rng_below(&rng, 60);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    for (uint32_t i = 0; i < 2 * count; i++) {
        at = format_key3(1, i % count, 0);
        MDB_val key = {at.count, at.bytes}, data = {1 + rng_below(&rng, sizeof value), value};
        if (i < count) assert_int_equal(mdb_put(txn, dbi, &key, &data, 0), 0);
        else assert_int_equal(mdb_del(txn, dbi, &key, NULL), 0);
    }
    assert_int_equal(mdb_txn_commit(txn), 0);
    int fd = check_kit_file();
    assert_int_equal(fstat(fd, &file), 0);
    (void)close(fd);
    assert_int_equal(mdb_env_info(env, &info), 0);
    assert_int_equal(mdb_env_stat(env, &stat_now), 0);
    return (uint64_t)file.st_size / stat_now.ms_psize <= info.me_last_pgno;
}

static void a_file_that_ends_with_free_pages_is_sound(void **state)
{
    enum { ROUNDS_MAX = 5000 };
    struct check_kit_copy c = check_kit_save();
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    uint32_t rounds = 0;
    while (rounds < ROUNDS_MAX && !ends_early(env, dbis[FORMAT_RECEIPTS])) rounds++;
    assert_true(rounds < ROUNDS_MAX);
    mdb_env_close(env);
    check_kit_sound();
    check_kit_restore(&c);
}

/* ---- what is missing ---- */

/* Deletes a random entry of a database in a good transaction: LMDB has nothing to complain of. */
static void delete_one(enum format_db db, const struct format_key *not)
{
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_stat stat;
    MDB_cursor *c;
    MDB_val key, data;
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    assert_int_equal(mdb_stat(txn, dbis[db], &stat), 0);
    assert_int_equal(mdb_cursor_open(txn, dbis[db], &c), 0);
    uint64_t part;
    for (bool gone = false; !gone;) {
        uint64_t n = rng_below(&rng, stat.ms_entries);
        assert_int_equal(mdb_cursor_get(c, &key, &data, MDB_FIRST), 0);
        while (n-- > 0) assert_int_equal(mdb_cursor_get(c, &key, &data, MDB_NEXT), 0);
        struct slice bytes = slice_of(key.mv_data, (uint32_t)key.mv_size);
        bool base = db == FORMAT_MSGS && format_key_part(bytes, 2, &part) &&
                    part == FORMAT_PART_BASE;
        if (base || (not != NULL && slice_equal(bytes, slice_of(not->bytes, not->count)))) continue;
        assert_int_equal(mdb_cursor_del(c, 0), 0);
        gone = true;
    }
    mdb_cursor_close(c);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void what_is_missing_is_found(void **state)
{
    const struct { enum format_db db; const char *word; } cases[] = {
        {FORMAT_SEGMENTS, "missing"}, {FORMAT_MSGS, "not listed"}, {FORMAT_NAMES, "missing"},
        {FORMAT_HEADS, "no head"}, {FORMAT_PRESENCE, "lost"}, {FORMAT_META, ""},
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (uint32_t n = 0; n < 3; n++) {
            struct format_key clean = {.count = 5, .bytes = "clean"};
            struct check_kit_copy c = check_kit_save();
            delete_one(cases[i].db, cases[i].db == FORMAT_META ? &clean : NULL);
            if (cases[i].db == FORMAT_SEGMENTS) {
                assert_int_equal(check_kit_run(), CHECK_DAMAGED);
            } else {
                check_kit_found(cases[i].word);
            }
            check_kit_restore(&c);
        }
    }
}

/* ---- gaps that carry good checksums ---- */

/* Rewrites the value without its index-th record; the struct is counted and sealed again. */
typedef void (*reseal)(uint8_t *value, uint32_t bytes, uint32_t removed);

static void reseal_wal(uint8_t *value, uint32_t bytes, uint32_t removed)
{
    struct format_wal w;
    memcpy(&w, value, sizeof w);
    w.records_count--;
    w.records_bytes -= removed;
    memcpy(value, &w, sizeof w);
    w.check = format_check(slice_of(value, bytes), sizeof w, w.records_bytes);
    memcpy(value, &w.check, sizeof w.check);
}

static void reseal_segment(uint8_t *value, uint32_t bytes, uint32_t removed)
{
    struct format_segment g;
    memcpy(&g, value, sizeof g);
    g.records_count--;
    g.records_bytes -= removed;
    memcpy(value, &g, sizeof g);
    g.check = format_check(slice_of(value, bytes), sizeof g, g.records_bytes);
    memcpy(value, &g.check, sizeof g.check);
}

static void cut_record(enum format_db db, uint32_t struct_bytes, uint64_t chan, reseal seal)
{
    static uint8_t value[1 << 20];
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_cursor *c;
    MDB_val key, data;
    struct record r;
    uint32_t bytes = 0, at = struct_bytes;
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    assert_int_equal(mdb_cursor_open(txn, dbis[db], &c), 0);
    do {                                       /* the first value with a mutation of the channel */
        assert_int_equal(mdb_cursor_get(c, &key, &data, MDB_NEXT), 0);
        assert_true(data.mv_size < sizeof value);
        memcpy(value, data.mv_data, data.mv_size);
        at = struct_bytes;
        for (;; at += bytes) {
            struct slice rest = slice_of(value + at, (uint32_t)data.mv_size - at);
            if (record_read(rest, &r, &bytes) != RECORD_OK) break;
            if (r.chan == chan && r.kind == RECORD_APPEND && r.delivery < m[0].count) break;
        }
    } while (r.chan != chan || r.kind != RECORD_APPEND || at + bytes >= data.mv_size);
    memmove(value + at, value + at + bytes, data.mv_size - at - bytes);
    MDB_val less = {data.mv_size - bytes, value};
    seal(value, (uint32_t)less.mv_size, bytes);
    uint8_t copy[FORMAT_KEY_BYTES_MAX];
    memcpy(copy, key.mv_data, key.mv_size);
    key.mv_data = copy;
    mdb_cursor_close(c);
    assert_int_equal(mdb_put(txn, dbis[db], &key, &less, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void a_gap_in_the_serials_is_found(void **state)
{
    struct check_kit_copy c = check_kit_save();
    cut_record(FORMAT_SEGMENTS, sizeof(struct format_segment), m[0].chan, reseal_segment);
    check_kit_found("a gap");
    check_kit_restore(&c);
}

static void a_gap_in_the_tail_is_found(void **state)
{
    kit_start(&k);                             /* some records that stay in the wal */
    model_grow(&m[0], 8);
    kit_commit(&k);
    kit_stop(&k);
    struct check_kit_copy c = check_kit_save();
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_cursor *cursor;
    MDB_val key, data;
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    static uint8_t value[1 << 20];
    struct record r;
    uint32_t bytes, first;
    assert_int_equal(mdb_cursor_open(txn, dbis[FORMAT_WAL], &cursor), 0);
    assert_int_equal(mdb_cursor_get(cursor, &key, &data, MDB_LAST), 0);
    memcpy(value, data.mv_data, data.mv_size);
    first = sizeof(struct format_wal);         /* its first record goes */
    assert_int_equal(record_read(slice_of(value + first, (uint32_t)data.mv_size - first), &r,
                                 &bytes), RECORD_OK);
    memmove(value + first, value + first + bytes, data.mv_size - first - bytes);
    MDB_val less = {data.mv_size - bytes, value};
    reseal_wal(value, (uint32_t)less.mv_size, bytes);
    assert_int_equal(mdb_cursor_put(cursor, &key, &less, MDB_CURRENT), 0);
    mdb_cursor_close(cursor);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    check_kit_found("a gap");
    check_kit_restore(&c);
}

/* A second number for a name that has one: both are whole, but only one is ever found. */
static void a_name_given_twice_is_found(void **state)
{
    static uint8_t head[1024];
    struct check_kit_copy c = check_kit_save();
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    uint64_t twin = m[0].chan + 1000;
    struct format_key from = format_key1(m[0].chan), to = format_key1(twin);
    struct format_key name = format_key2(format_name_hash(m[0].app_id, m[0].channel), twin);
    struct format_head empty = {.floor = 1};
    MDB_val key = {from.count, from.bytes}, data;
    assert_int_equal(mdb_get(txn, dbis[FORMAT_HEADS], &key, &data), 0);
    assert_true(data.mv_size <= sizeof head);
    memcpy(head, data.mv_data, data.mv_size);
    empty.app_bytes = (uint16_t)m[0].app_id.bytes;
    empty.name_bytes = (uint16_t)m[0].channel.bytes;
    memcpy(head, &empty, sizeof empty);
    struct slice value = slice_of(head, (uint32_t)data.mv_size);
    empty.check = format_check(value, value.bytes, 0);
    memcpy(head, &empty.check, sizeof empty.check);
    key = (MDB_val){to.count, to.bytes};
    data = (MDB_val){value.bytes, head};
    assert_int_equal(mdb_put(txn, dbis[FORMAT_HEADS], &key, &data, 0), 0);
    key = (MDB_val){name.count, name.bytes};
    data = (MDB_val){0, head};
    assert_int_equal(mdb_put(txn, dbis[FORMAT_NAMES], &key, &data, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    check_kit_found("have the same name");
    check_kit_restore(&c);
}

/* ---- the directory ---- */

static void a_directory_in_use_is_not_checked(void **state)
{
    char path[2 * KIT_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/lock", k.dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(check_kit_run(), CHECK_CANNOT);
    assert_non_null(strstr(check_kit_last, "in use"));
    (void)close(fd);
    check_kit_sound();
    (void)snprintf(path, sizeof path, "%s/nothing", k.dir);
    assert_int_equal(check_run(path, check_kit_line, NULL), CHECK_CANNOT);
    assert_non_null(strstr(check_kit_last, "holds no store"));
}

static void a_missing_lane_is_found(void **state)
{
    char from[2 * KIT_PATH_BYTES], to[2 * KIT_PATH_BYTES];
    check_kit_path(from, 1, "");
    check_kit_path(to, 1, ".away");
    assert_int_equal(rename(from, to), 0);
    check_kit_found("lane-01: missing");
    check_kit_path(from, 1, "");
    assert_int_equal(rename(to, from), 0);
    check_kit_path(to, 2, "");
    assert_int_equal(rename(from, to), 0);
    check_kit_found("lane-02: one lane too many");
    assert_int_equal(rename(to, from), 0);
    check_kit_sound();
}

static void a_newer_format_is_refused(void **state)
{
    struct check_kit_copy c = check_kit_save();
    MDB_txn *txn;
    MDB_dbi dbis[FORMAT_DBS];
    MDB_env *env = check_kit_env(&txn, dbis, 0);
    MDB_val key = {4, "lane"}, data;
    struct format_lane lane;
    assert_int_equal(mdb_get(txn, dbis[FORMAT_META], &key, &data), 0);
    memcpy(&lane, data.mv_data, sizeof lane);
    lane.format = STORE_FORMAT + 1;
    lane.check = format_check(slice_of(&lane, sizeof lane), sizeof lane, 0);
    data = (MDB_val){sizeof lane, &lane};
    assert_int_equal(mdb_put(txn, dbis[FORMAT_META], &key, &data, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    assert_int_equal(check_kit_run(), CHECK_CANNOT);
    assert_non_null(strstr(check_kit_all, "format 3"));
    check_kit_restore(&c);
}

static void counts_are_told(void **state)
{
    check_kit_all[0] = 0;
    assert_int_equal(check_stat(k.dir, check_kit_line, NULL), CHECK_SOUND);
    assert_non_null(strstr(check_kit_all, "cleanly stopped"));
    assert_non_null(strstr(check_kit_all, "segments"));
    assert_non_null(strstr(check_kit_all, "channels; packed: "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flipped_byte_of_a_key_or_value_is_found),
        cmocka_unit_test(a_hidden_commit_is_found),
        cmocka_unit_test(a_flipped_byte_anywhere_ends_no_check),
        cmocka_unit_test(a_file_that_was_cut_is_found),
        cmocka_unit_test(a_file_that_ends_with_free_pages_is_sound),
        cmocka_unit_test(what_is_missing_is_found),
        cmocka_unit_test(a_gap_in_the_serials_is_found),
        cmocka_unit_test(a_gap_in_the_tail_is_found),
        cmocka_unit_test(a_name_given_twice_is_found),
        cmocka_unit_test(a_directory_in_use_is_not_checked),
        cmocka_unit_test(a_missing_lane_is_found),
        cmocka_unit_test(a_newer_format_is_refused),
        cmocka_unit_test(counts_are_told),
    };
    return cmocka_run_group_tests(tests, check_kit_fill, check_kit_empty);
}
