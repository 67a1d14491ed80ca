#include "tests/unit/store/store_kit.h"

#include <dirent.h>
#include <stdio.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/check.h"

#define WAIT_NS_MAX 30000000000ull

struct kit kit;

static uint64_t wall_ms(void) { return __atomic_load_n(&kit.now_ms, __ATOMIC_RELAXED); }

static void policy(void *ctx, struct slice app_id, struct slice channel, struct store_policy *out)
{
    uint64_t began_ns = clock_mono_ns();
    while (clock_mono_ns() - began_ns < kit.policy_ns) (void)sched_yield();
    kit.policies++;
    *out = kit.policy;
}

err_t kit_start(void)
{
    assert_int_equal(reactor_office_open(&kit.office, kit.conf.shards_count), OK);
    err_t e = store_open(&kit.store, &kit.conf, kit.error, sizeof kit.error);
    if (e != OK) reactor_office_close(&kit.office);
    return e;
}

void kit_open(uint32_t lanes, uint32_t shards, bool threads)
{
    (void)snprintf(kit.dir, sizeof kit.dir, "weft-store-XXXXXX");
    assert_non_null(mkdtemp(kit.dir));
    kit.now_ms = 1700000000000;
    kit.policy = (struct store_policy){.version_age_ms = UINT64_MAX};
    kit.policy_ns = 0;
    kit.conf = (struct store_conf){
        .dir = kit.dir, .lanes = lanes, .shards_count = shards, .purge_interval_ms = 3600000,
        .request_age_ms = 120000, .office = &kit.office, .policy = policy, .wall_ms = wall_ms,
        .threads = threads,
    };
    err_t e = kit_start();
    if (e != OK) print_error("%s\n", kit.error);
    assert_int_equal(e, OK);
}

void kit_stop(void)
{
    if (kit.store == NULL) return;
    store_close(&kit.store);
    reactor_office_close(&kit.office);
}

void kit_restart(void)
{
    kit_stop();
    err_t e = kit_start();
    if (e != OK) print_error("%s\n", kit.error);
    assert_int_equal(e, OK);
}

struct said { char text[4096]; uint32_t bytes; };

static void say(void *ctx, const char *line)
{
    struct said *said = ctx;
    int n = snprintf(said->text + said->bytes, sizeof said->text - said->bytes, "%s\n", line);
    if (n > 0) said->bytes = u32_min(said->bytes + (uint32_t)n, sizeof said->text - 1);
}

void kit_check(void)
{
    struct said said = {.bytes = 0};
    kit_stop();
    enum check_verdict verdict = check_run(kit.dir, say, &said);
    if (verdict != CHECK_SOUND) print_error("%s", said.text);
    assert_int_equal(verdict, CHECK_SOUND);
    assert_int_equal(kit_start(), OK);
}

static void remove_tree(const char *path, uint32_t depth)
{
    DIR *dir = opendir(path);
    if (dir != NULL && depth < 3) {
        for (struct dirent *d; (d = readdir(dir)) != NULL;) {
            char name[1024];
            if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
            (void)snprintf(name, sizeof name, "%.256s/%s", path, d->d_name);
            remove_tree(name, depth + 1);
        }
    }
    if (dir != NULL) (void)closedir(dir);
    (void)remove(path);
}

void kit_close(void)
{
    kit_stop();
    remove_tree(kit.dir, 0);
}

/* ---- letters ---- */

static void post_letter(uint16_t shard, uint16_t lane, struct letter l)
{
    uint16_t to = store_post(kit.store, lane);
    struct mailbox *box = kit.office.boxes[shard][to];
    mail_post_sure(box, &l);
    if (mail_flush(box) && mail_door_knock(&kit.office.doors[to])) {
        reactor_post_ring(&kit.office, to);
    }
}

static void post(uint16_t shard, uint16_t lane, uint16_t kind, void *payload)
{
    post_letter(shard, lane, (struct letter){.kind = kind, .from_shard = shard,
                                             .payload = payload});
}

struct letter kit_letter(uint16_t shard)
{
    uint64_t began_ns = clock_mono_ns();
    struct letter l;
    for (;;) {
        for (uint32_t from = kit.office.shards_count; from < kit.office.ends_count; from++) {
            struct mailbox *box = kit.office.boxes[from][shard];
            if (box != NULL && mail_take(box, &l, 1) == 1) return l;
        }
        if (kit.conf.threads) {
            (void)sched_yield();
        } else {
            (void)store_step(kit.store);
        }
        assert_true(clock_mono_ns() - began_ns < WAIT_NS_MAX);
    }
}

void kit_put(struct kit_batch *k, const struct record *r)
{
    struct store_batch *b = &k->b;
    uint32_t bytes = record_bytes(r);
    if (b->bytes_room - b->bytes_count < bytes) {
        b->bytes_room = u32_max(b->bytes_room * 2, b->bytes_count + bytes);
        b->bytes = realloc(b->bytes, b->bytes_room);
        assert_non_null(b->bytes);
    }
    assert_int_equal(record_write(r, b->bytes + b->bytes_count), bytes);
    b->bytes_count += bytes;
    b->records_count++;
}

void kit_post(struct kit_batch *b, uint16_t shard, uint16_t lane)
{
    b->b.shard = shard;
    b->b.lane = lane;
    b->b.generation = b->generations[lane];
    post(shard, lane, MAIL_COMMIT, &b->b);
}

struct store_batch *kit_committed(uint16_t shard)
{
    struct letter l = kit_letter(shard);
    assert_int_equal(l.kind, MAIL_COMMITTED);
    return l.payload;
}

err_t kit_commit(struct kit_batch *b, uint16_t shard, uint16_t lane)
{
    kit_post(b, shard, lane);
    assert_ptr_equal(kit_committed(shard), &b->b);
    b->generations[lane] = b->b.generation_now;
    b->b.bytes_count = b->b.records_count = 0;
    return b->b.result;
}

void kit_batch_free(struct kit_batch *b)
{
    free(b->b.bytes);
    *b = (struct kit_batch){0};
}

void kit_read_post(struct store_read *r, uint16_t shard, uint16_t lane)
{
    r->shard = shard;
    r->lane = lane;
    post(shard, lane, MAIL_READ, r);
}

void kit_read(struct store_read *r, uint16_t shard, uint16_t lane)
{
    kit_read_post(r, shard, lane);
    struct letter l = kit_letter(shard);
    assert_int_equal(l.kind, MAIL_READ_DONE);
    assert_ptr_equal(l.payload, r);
}

struct store_head kit_head(const char *name, uint16_t lane)
{
    struct store_read r = {.kind = STORE_OPEN, .app_id = slice_str("app"),
                           .channel = slice_str(name), .now_ms = kit.now_ms};
    kit_read(&r, 0, lane);
    assert_int_equal(r.status, STORE_READ_OK);
    store_read_free(&r);
    return r.head;
}

uint64_t kit_chan(struct kit_batch *b, const char *name, uint16_t lane)
{
    struct store_head head = kit_head(name, lane);
    if (!head.known) {
        uint8_t data[256];
        uint32_t bytes = (uint32_t)strlen(name);
        assert_true(bytes < sizeof data - 4);
        memcpy(data, "app", 4);
        memcpy(data + 4, name, bytes);
        struct record r = {.kind = RECORD_CHANNEL, .chan = head.chan, .time_ms = kit.now_ms,
                           .data = slice_of(data, 4 + bytes)};
        kit_put(b, &r);
    }
    return head.chan;
}

void kit_closed(uint64_t chan, uint16_t shard, uint16_t lane)
{
    post_letter(shard, lane, (struct letter){.kind = MAIL_CLOSED, .from_shard = shard,
                                             .arg = {chan}});
}

void kit_idle(void)
{
    assert_false(kit.conf.threads);
    for (uint32_t i = 0; i < 100000; i++) {
        if (!store_step(kit.store)) return;
    }
    fail_msg("the store never rests");
}
