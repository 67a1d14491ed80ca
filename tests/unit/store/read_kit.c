#include "read_kit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mail_kinds.h"

enum { STEPS_MAX = 200000 };

uint64_t            kit_now_ms = 1700000000000;
struct store_policy kit_policy;
uint64_t            kit_forget_after_ms;

static uint64_t wall_ms(void)
{
    return kit_now_ms;
}

static void policy(void *ctx, struct slice app_id, struct slice channel, struct store_policy *out)
{
    *out = kit_policy;
}

/* ---- directory ---- */

void kit_make_dir(struct kit *k)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(k->dir, sizeof k->dir, "%s/weft-store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(k->dir));
}

static void remove_in(const char *dir)
{
    char path[2 * KIT_PATH_BYTES];
    DIR *d = opendir(dir);
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        (void)snprintf(path, sizeof path, "%s/%.255s", dir, e->d_name);
        struct stat st;
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            remove_in(path);
        } else {
            (void)unlink(path);
        }
    }
    (void)closedir(d);
    (void)rmdir(dir);
}

void kit_remove_dir(struct kit *k)
{
    remove_in(k->dir);
}

/* ---- life ---- */

err_t kit_try_start(struct kit *k, char *error, uint32_t error_bytes)
{
    assert_int_equal(reactor_office_open(&k->office, 1), OK);
    struct store_conf conf = {
        .dir = k->dir, .lanes = KIT_LANES, .shards_count = 1, .purge_interval_ms = 5,
        .request_age_ms = 100000, .forget_after_ms = kit_forget_after_ms, .office = &k->office,
        .policy = policy, .wall_ms = wall_ms,
        .threads = false,
    };
    err_t e = store_open(&k->store, &conf, error, error_bytes);
    if (e != OK) reactor_office_close(&k->office);
    k->generation = 0;
    return e;
}

void kit_start(struct kit *k)
{
    char error[512] = "";
    if (kit_try_start(k, error, sizeof error) != OK) fail_msg("%s", error);
}

void kit_stop(struct kit *k)
{
    store_close(&k->store);
    reactor_office_close(&k->office);
    free(k->bytes);
    k->bytes = NULL;
    k->bytes_count = k->bytes_room = k->records_count = 0;
}

void kit_restart(struct kit *k)
{
    kit_stop(k);
    kit_start(k);
}

void kit_settle(struct kit *k)
{
    for (uint32_t i = 0; i < STEPS_MAX; i++) {
        if (!store_step(k->store)) return;
    }
    fail_msg("the store does not come to rest");
}

/* ---- letters ---- */

static void post_letter(struct kit *k, const struct letter *l)
{
    struct mailbox *box = k->office.boxes[0][store_post(k->store, k->lane)];
    mail_post_sure(box, l);
    (void)mail_flush(box);
}

static void post(struct kit *k, uint16_t kind, void *payload)
{
    struct letter l = {.kind = kind, .from_shard = 0, .payload = payload};
    post_letter(k, &l);
}

static void await(struct kit *k, uint16_t kind, const void *payload)
{
    struct letter l;
    bool found = false;
    for (uint32_t i = 0; i < STEPS_MAX && !found; i++) {
        (void)store_step(k->store);
        for (uint32_t from = 0; from < k->office.ends_count; from++) {
            struct mailbox *box = k->office.boxes[from][0];
            if (box == NULL || mail_take(box, &l, 1) == 0) continue;
            if (l.kind == MAIL_READ_DONE && l.payload == k->pending) k->pending = NULL;
            if (l.payload == payload) {
                assert_int_equal(l.kind, kind);
                found = true;
            } else {
                assert_null(k->pending);
            }
        }
    }
    if (!found) fail_msg("no answer");
}

void kit_add(struct kit *k, const struct record *r)
{
    uint32_t bytes = record_bytes(r);
    if (k->bytes_count + bytes > k->bytes_room) {
        k->bytes_room = 2 * (k->bytes_count + bytes);
        k->bytes = realloc(k->bytes, k->bytes_room);
        assert_non_null(k->bytes);
    }
    k->bytes_count += record_write(r, k->bytes + k->bytes_count);
    k->records_count++;
}

err_t kit_try(struct kit *k)
{
    struct store_batch b = {.shard = 0, .lane = (uint16_t)k->lane, .generation = k->generation,
                            .records_count = k->records_count, .bytes_count = k->bytes_count,
                            .bytes_room = k->bytes_room, .bytes = k->bytes};
    if (k->records_count == 0) return OK;
    post(k, MAIL_COMMIT, &b);
    await(k, MAIL_COMMITTED, &b);
    k->generation = b.generation_now;
    k->bytes_count = k->records_count = 0;
    return b.result;
}

void kit_commit(struct kit *k)
{
    assert_int_equal(kit_try(k), OK);
}

void kit_read_post(struct kit *k, struct store_read *r)
{
    r->shard = 0;
    r->lane = (uint16_t)k->lane;
    r->now_ms = kit_now_ms;
    k->pending = r;
    post(k, MAIL_READ, r);
}

void kit_read_await(struct kit *k)
{
    if (k->pending != NULL) await(k, MAIL_READ_DONE, k->pending);
}

void kit_read(struct kit *k, struct store_read *r)
{
    kit_read_post(k, r);
    kit_read_await(k);
}

uint64_t kit_channel(struct kit *k, struct slice app_id, struct slice channel)
{
    uint8_t name[512];
    struct store_read r = {.kind = STORE_OPEN, .app_id = app_id, .channel = channel};
    kit_read(k, &r);
    assert_int_equal(r.status, STORE_READ_OK);
    uint64_t chan = r.head.chan;
    if (!r.head.known) {
        memcpy(name, app_id.ptr, app_id.bytes);
        name[app_id.bytes] = 0;
        memcpy(name + app_id.bytes + 1, channel.ptr, channel.bytes);
        struct record named = {.kind = RECORD_CHANNEL, .chan = chan,
                               .data = slice_of(name, app_id.bytes + 1 + channel.bytes)};
        kit_add(k, &named);
    }
    store_read_free(&r);
    return chan;
}

void kit_channel_closed(struct kit *k, uint64_t chan)
{
    struct letter l = {.kind = MAIL_CLOSED, .from_shard = 0, .arg = {chan}};
    post_letter(k, &l);
}
