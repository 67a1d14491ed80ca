#include "check_kit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct kit   k;
struct model m[2];
struct rng   rng;

/* ---- what the check said ---- */

uint32_t check_kit_lines;
char     check_kit_last[LINE_BYTES], check_kit_all[16 * LINE_BYTES];

void check_kit_line(void *ctx, const char *line)
{
    check_kit_lines++;
    (void)snprintf(check_kit_last, sizeof check_kit_last, "%s", line);
    size_t at = strlen(check_kit_all);
    (void)snprintf(check_kit_all + at, sizeof check_kit_all - at, "%s\n", line);
}

enum check_verdict check_kit_run(void)
{
    check_kit_lines = 0;
    check_kit_all[0] = 0;
    return check_run(k.dir, check_kit_line, NULL);
}

void check_kit_sound(void)
{
    enum check_verdict v = check_kit_run();
    if (v != CHECK_SOUND) fail_msg("%s", check_kit_all);
}

void check_kit_found(const char *word)
{
    assert_int_equal(check_kit_run(), CHECK_DAMAGED);
    if (strstr(check_kit_all, word) == NULL) fail_msg("no \"%s\" in: %s", word, check_kit_all);
}

/* ---- a store with everything in it ---- */

static void add_event(uint64_t chan, uint64_t delivery, const char *user, const char *event)
{
    struct record r = {.kind = RECORD_PRESENCE, .flags = RECORD_WHOLE, .chan = chan,
                       .delivery = delivery, .history = delivery, .message = delivery,
                       .time_ms = kit_now_ms, .message_ms = kit_now_ms, .context = delivery,
                       .name = slice_str(event), .data = slice_str("{}"), .user = slice_str(user)};
    kit_add(&k, &r);
}

int check_kit_fill(void **state)
{
    struct record request = {.kind = RECORD_REQUEST, .time_ms = kit_now_ms,
                             .data = slice_str("{\"ok\":true}"), .key = {7}};
    rng_seed(&rng, 5);
    k = (struct kit){.lane = 0};
    kit_policy = (struct store_policy){.version_age_ms = UINT64_MAX};
    kit_make_dir(&k);
    kit_start(&k);
    model_open(&m[0], &k, &rng, "app", "notes");
    model_open(&m[1], &k, &rng, "app", "other");
    uint64_t lab = kit_channel(&k, slice_str("app"), slice_str("[presence-history]presence-lab"));
    add_event(lab, 1, "ann", "\"member_added\"");
    add_event(lab, 2, "bob", "\"member_added\"");
    add_event(lab, 3, "ann", "\"member_removed\"");
    kit_add(&k, &request);
    m[0].text_max = 900;
    for (uint32_t i = 0; i < 12; i++) {
        model_grow(&m[0], 30);
        model_grow(&m[1], 20);
        kit_commit(&k);
        kit_settle(&k);
        if (i == 6) model_reset(&m[1]);
    }
    kit_stop(&k);
    return 0;
}

int check_kit_empty(void **state)
{
    model_close(&m[0]);
    model_close(&m[1]);
    kit_remove_dir(&k);
    return 0;
}

/* ---- the file ---- */

void check_kit_path(char *out, uint32_t lane, const char *file)
{
    (void)snprintf(out, 2 * KIT_PATH_BYTES, "%s/lane-%02u%s", k.dir, lane, file);
}

int check_kit_file(void)
{
    char path[2 * KIT_PATH_BYTES];
    check_kit_path(path, 0, "/data.mdb");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

void check_kit_flip(uint64_t offset, uint8_t bits)
{
    uint8_t byte;
    int fd = check_kit_file();
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    (void)close(fd);
}

struct check_kit_copy check_kit_save(void)
{
    struct stat st;
    int fd = check_kit_file();
    assert_int_equal(fstat(fd, &st), 0);
    struct check_kit_copy c = {malloc((size_t)st.st_size), (size_t)st.st_size};
    assert_non_null(c.bytes);
    assert_int_equal(pread(fd, c.bytes, c.count, 0), st.st_size);
    (void)close(fd);
    return c;
}

void check_kit_restore(struct check_kit_copy *c)
{
    int fd = check_kit_file();
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, c->bytes, c->count, 0), (ssize_t)c->count);
    (void)close(fd);
    free(c->bytes);
    check_kit_sound();
}

MDB_env *check_kit_env(MDB_txn **txn, MDB_dbi *dbis, unsigned flags)
{
    char path[2 * KIT_PATH_BYTES];
    MDB_env *env;
    check_kit_path(path, 0, "");
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, FORMAT_DBS), 0);
    assert_int_equal(mdb_env_set_mapsize(env, 1ull << 30), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOTLS | flags, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, flags, txn), 0);
    for (uint32_t i = 0; i < FORMAT_DBS; i++) {
        assert_int_equal(mdb_dbi_open(*txn, format_db_names[i], 0, &dbis[i]), 0);
    }
    return env;
}
