#include "tests/sim/world.h"

#include "shards/server_store.h"
#include "shards/stream_parts.h"
#include "tests/sim/client.h"
#include "tests/sim/tale.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

struct world world;

static const char *const names[WORLD_CHANNELS] = {
    "news", "orders", "chat-3", "private-a", "private-b", "private-encrypted-e", "presence-x",
    "presence-y", "presence-z", "cache-p", "cache-q", "private-cache-r", "presence-cache-s",
    "private-encrypted-cache-t", "rare",
    "#server-to-user-u0", "#server-to-user-u1", "#server-to-user-u2", "#server-to-user-u3",
    "#server-to-user-u4", "#server-to-user-u5",
};

void world_fail(const char *format, ...)
{
    va_list args;
    fprintf(stderr, "sim: seed %llu, step %u: ", (unsigned long long)world.seed, world.step);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nreplay: sim --seed %llu --shards %u --steps %u --only %s\n",
            (unsigned long long)world.seed, world.shards_asked, world.steps,
            world.tale ? "tale" : "crowd");
    abort();
}

const char *world_name(uint32_t channel)
{
    ASSERT(channel < WORLD_CHANNELS);
    return names[channel];
}

int world_channel(struct slice name)
{
    for (int i = 0; i < WORLD_CHANNELS; i++) {
        if (slice_is(name, names[i])) return i;
    }
    return -1;
}

/* ---- messages ---- */

uint32_t world_message(uint32_t app, uint32_t channel, uint32_t except)
{
    if (world.messages_count == world.messages_room) {
        world.messages_room = u32_max(2 * world.messages_room, 1024);
        world.messages = realloc(world.messages, world.messages_room * sizeof(struct message));
        ASSERT(world.messages != NULL);
    }
    if (world.messages_count == 0) world.messages[world.messages_count++] = (struct message){0};
    world.messages[world.messages_count] = (struct message){
        .except = except, .app = (uint16_t)app, .channel = (uint16_t)channel,
    };
    return world.messages_count++;
}

uint32_t world_message_in(const void *text, uint32_t bytes)
{
    const char *at = memmem(text, bytes, "#m", 2);
    return at == NULL ? 0 : (uint32_t)strtoul(at + 2, NULL, 10);
}

void world_publish(uint32_t shard, uint32_t app, uint32_t channel, uint64_t except_a,
                   uint64_t except_b, uint32_t except)
{
    struct shard *sh = &world.server.shards[shard];
    char data[256];
    struct pusher_channel kind;
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct slice name = slice_str(names[channel]);
    uint32_t counts[REACTOR_SHARDS_MAX] = {0};
    bool good = pusher_channel_parse(name, 0, NULL, &kind, error);
    ASSERT(good);
    int n = snprintf(data, sizeof(data), "\"#m%u;%*s\"",
                     world_message(app, channel, except), (int)below(200), "");
    struct pusher_out o = {
        .event_json = slice_str("\"ev\""), .channel = name,
        .data_json = slice_of(data, (uint32_t)n),
    };
    counts[shard_home(sh, app, name)] = 1;
    struct frame *f = frame_make(sh, pusher_event_bytes(&o));
    struct publish *p = f == NULL ? NULL : publish_make(sh, app, name, &kind);
    if (p == NULL || !publish_room(sh, counts)) {
        if (p != NULL) publish_free(sh, p);
        frame_put(sh, &f);
        return;
    }
    f->bytes_count = pusher_event_write(&o, frame_room(f));
    p->except_a = except_a;
    p->except_b = except_b;
    p->cache = kind.cache;
    publish_post(sh, p, f);
}

/* ---- the server ---- */

static void configure_apps(void)
{
    static char *ids[WORLD_APPS] = {"one", "two", "off", "small"};
    static char *keys[WORLD_APPS] = {"key-one", "key-two", "key-off", "key-small"};
    for (uint32_t i = 0; i < WORLD_APPS; i++) {
        struct conf_app *a = &world.apps[i];
        *a = world.conf_apps[0];
        a->id = ids[i];
        a->key = keys[i];
        a->secret = "secret";
        a->enabled = i != 2 || world.tale;
        a->enable_client_messages = a->enable_user_authentication = true;
        a->enable_watchlist_events = true;
        a->enable_subscription_count = maybe(512);
        a->max_presence_members_per_channel = i == 1 ? 3 : 0;
        a->max_connections = i == 3 && !world.tale ? 3 : 0;
        a->idempotency_ttl_seconds = 3;
    }
    world.conf.apps = world.apps;
    world.conf.apps_count = WORLD_APPS;
}

/* What is published to the two apps in use is committed first, or (relaxed) behind. */
static void configure_memory(void)
{
    bool versioned = maybe(512), relaxed = maybe(256);
    world.conf.history_enabled = true;
    for (uint32_t i = 0; i < 2; i++) {
        world.apps[i].policy = (struct conf_policy){
            .history = true, .rewind = true, .versioned = versioned, .recovery = maybe(512),
            .relaxed = relaxed, .recovery_ttl_ms = 1 + below(5000), .recovery_max = 1 + below(20),
            .version_age_ms = UINT64_MAX,
        };
        world.apps[i].policy_any = true;
    }
}

/* Apps of every kind (tale.h), nothing that runs out but now and then the store, and rings that
 * forget. */
static void configure_tale(void)
{
    struct conf *c = &world.conf;
    c->history_enabled = c->versioned_messages_enabled = c->connection_recovery_enabled = true;
    c->annotations_enabled = c->presence_history_enabled = tale.wild;
    c->connections_capacity = 1000;
    c->shard_memory_mb = 64;
    c->websocket_max_bytes = 4 << 20;
    c->websocket_max_messages = 50000;
    c->history_lanes = 1 + below(3);
    if (maybe(100)) c->history_max_bytes = (300 + below(600)) << 10;   /* it will be full */
    if (tale_forgets()) c->history_forget_after_seconds = c->history_purge_interval_seconds = 1;
    c->activity_timeout = 20;
    for (uint32_t i = 0; i < WORLD_APPS; i++) {
        struct conf_app *a = &world.apps[i];
        bool stored = tale_is_stored(i), versioned = tale_is_versioned(i);
        a->idempotency_ttl_seconds = TALE_AGE_MS / 1000;
        a->channels.connection_recovery_enabled = true;
        a->policy_any = true;
        a->policy = (struct conf_policy){
            .history = stored, .rewind = stored, .versioned = versioned, .recovery = true,
            .annotations = versioned && tale.wild, .presence_history = stored && tale.wild,
            .relaxed = tale_kind_of(i) == TALE_RELAXED, .version_age_ms = UINT64_MAX,
            .recovery_ttl_ms = maybe(512) ? 100000 : 1 + below(3000),
            .recovery_max = maybe(512) ? 1000 : 1 + below(20),
            .history_age_ms = TALE_AGE_MS, .presence_age_ms = TALE_AGE_MS,
        };
    }
}

static void configure(void)
{
    char *argv[] = {"sim", NULL}, *environment[] = {NULL};
    enum conf_action action;
    char error[256];
    struct conf *c = &world.conf;
    err_t e = conf_load(c, 1, argv, environment, &action, error, sizeof(error));
    ASSERT(e == OK);
    world.conf_apps = c->apps;
    configure_apps();
    if (world.tale) {
        configure_tale();
        return;
    }
    c->connections_capacity = maybe(256) ? 12 * world.shards : 1000;
    c->max_connections = maybe(256) ? 20 : 0;
    c->max_channels_per_connection = maybe(256) ? 3 : 100;
    c->shard_memory_mb = 64;
    c->fanout_backlog = maybe(256) ? 16 : 4194304;
    bool patient = maybe(256);           /* a flood fits into the queues */
    c->websocket_max_bytes = patient ? 1 << 20 : 2048 + below(16384);
    c->websocket_max_messages = patient ? 5000 : 8 + below(64);
    c->websocket_max_payload_kb = 4;
    c->cache_ttl = maybe(512) ? 5 : 3600;
    c->cache_max_bytes = maybe(512) ? 1024 : 1 << 20;
    c->presence_ungraceful_timeout_seconds = maybe(512) ? 2 : 0;
    c->user_authentication_timeout = maybe(256) ? 60 : 0;
    c->activity_timeout = 20;
    c->websocket_pong_timeout = 5;
    if (world.memory) configure_memory();
}

static void open_shard(uint32_t i)
{
    struct shard *sh = &world.server.shards[i];
    sh->server = &world.server;
    sh->conf = &world.conf;
    sh->id = (uint16_t)i;
    sh->metrics = &world.sets[i];
    err_t e = metric_open(&world.sets[i], &world.table, (int32_t)i);
    ASSERT(e == OK);
    e = shard_open(sh);
    ASSERT(e == OK);
    if (world_streams_go()) sh->streams->streams_idle_max = 4;   /* streams come and go */
    rng_seed(&sh->re.rng, (world.starts << 16) + world.seed * 64 + i);
    world.baseline[i] = heap_used_objects(sh->heap);
}

/* ---- the data directory ---- */

/* In memory where there is a file system for it: nothing here is about disks. */
static void make_dir(char dir[64])
{
    const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(dir, sizeof(world.dir), "%s/weft-sim-XXXXXX", tmp);
    char *made = mkdtemp(dir);
    ASSERT(made != NULL);
}

static int remove_one(const char *path, const struct stat *status, int what, struct FTW *where)
{
    return remove(path);
}

static void remove_dir(char dir[64])
{
    if (dir[0] != 0) (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    dir[0] = 0;
}

static void copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0600);
    ssize_t n;
    ASSERT(in >= 0 && out >= 0);
    while ((n = sendfile(out, in, NULL, 1 << 20)) > 0) continue;
    ASSERT(n == 0);
    close(in);
    close(out);
}

static int copy_one(const char *path, const struct stat *status, int what, struct FTW *where)
{
    char to[256];
    const char *rest = path + strlen(world.dir);
    if (rest[0] == 0 || strcmp(path + where->base, "lock.mdb") == 0) return 0;
    snprintf(to, sizeof(to), "%s%s", world.copy, rest);
    if (what == FTW_D) return mkdir(to, 0700);
    copy_file(path, to);
    return 0;
}

void world_copy_after(uint32_t commits)
{
    world.copy_after = commits;
    if (commits > 0 || world.copy[0] != 0) return;
    make_dir(world.copy);
    int e = nftw(world.dir, copy_one, 8, FTW_PHYS);
    ASSERT(e == 0);
}

static void open_store(void)
{
    char error[256];
    char *kept = world.conf.data_dir;
    world.conf.data_dir = world.dir;
    err_t e = server_store_open(&world.server, &world.store, false, clock_wall_ms, error,
                                sizeof(error));
    world.conf.data_dir = kept;
    if (e != OK) world_fail("no store: %s", error);
}

/* ---- open and close ---- */

void world_start(void)
{
    static const char *app_names[WORLD_APPS];
    static struct slice ids[WORLD_APPS], keys[WORLD_APPS], secrets[WORLD_APPS];
    static uint32_t by_id[WORLD_APPS] = {2, 0, 3, 1};     /* off, one, small, two */
    struct server *s = &world.server;
    world.conf.shards = world.shards;
    for (uint32_t i = 0; i < WORLD_APPS; i++) {
        app_names[i] = world.apps[i].id;
        ids[i] = slice_str(world.apps[i].id);
        keys[i] = slice_str(world.apps[i].key);
        secrets[i] = slice_str(world.apps[i].secret);
    }
    *s = (struct server){
        .conf = &world.conf, .shards_count = world.shards, .office = &world.office,
        .table_seed = world.seed, .metric_table = &world.table, .metrics_fd = -1, .app_ids = ids,
        .app_keys = keys, .app_secrets = secrets, .apps_by_id = by_id, .apps_by_key = by_id,
        .started = 1,
    };
    struct metric_table_conf t = {
        .app_ids = app_names, .apps_count = WORLD_APPS, .prefix = "sockudo_", .port = "9601",
    };
    err_t e = reactor_office_open(&world.office, world.shards);
    ASSERT(e == OK);
    e = metric_table_open(&world.table, series_table, METRIC_COUNT, &t);
    ASSERT(e == OK);
    if (world.dir[0] != 0) open_store();
    s->shards = mem_reserve(world.shards * sizeof(struct shard));
    ASSERT(s->shards != NULL);
    for (uint32_t i = 0; i < world.shards; i++) open_shard(i);
    world.starts++;
}

static void count_forgotten(void)
{
    struct store_stats s;
    for (uint32_t i = 0; world.store != NULL && i < store_lanes(world.store); i++) {
        store_stats_read(world.store, i, &s);
        tale.forgotten += s.forgotten;
    }
}

void world_stop(bool kill)
{
    count_forgotten();
    if (world.store != NULL) store_close(&world.store);   /* shards still have their memory */
    for (uint32_t i = 0; i < world.shards; i++) {
        shard_close(&world.server.shards[i]);
        metric_close(&world.sets[i]);
    }
    mem_release(world.server.shards, world.shards * sizeof(struct shard));
    metric_table_close(&world.table);
    reactor_office_close(&world.office);
    if (!kill) return;
    ASSERT(world.copy[0] != 0);
    remove_dir(world.dir);
    memcpy(world.dir, world.copy, sizeof(world.dir));
    world.copy[0] = 0;
}

void world_open(void)
{
    configure();
    if (world.memory || world.tale) make_dir(world.dir);
    world_start();
}

void world_close(void)
{
    world_stop(false);
    remove_dir(world.dir);
    for (uint32_t a = 0; a < WORLD_APPS; a++) {
        for (uint32_t c = 0; c < WORLD_CHANNELS; c++) free(world.logs[a][c].ids);
    }
    free(world.messages);
    world.conf.apps = world.conf_apps;
    world.conf.apps_count = 1;
    conf_free(&world.conf);
}

__attribute__((weak)) void __lsan_disable(void);
__attribute__((weak)) void __lsan_enable(void);

void world_leaks(bool may)
{
    static bool now;
    if (may == now || __lsan_disable == NULL) return;
    now = may;
    if (may) __lsan_disable();
    else __lsan_enable();
}

/* ---- time and turns ---- */

void world_pass(uint64_t ms)
{
    clock_sim_ns += ms * 1000000;
}

bool world_turn(uint32_t shard)
{
    struct reactor *r = &world.server.shards[shard].re;
    r->now_ns = clock_mono_ns();
    r->now_ms = r->now_ns / 1000000;
    r->wall_ms = r->clock_ms = clock_wall_ms();
    if (world.store != NULL && !tale.committing && maybe(world.tale ? tale.store_pace : 256)) {
        (void)store_step(world.store);
    }
    if (world.lazy_fan && maybe(512)) world.server.shards[shard].fan_budget = below(4);
    return reactor_turn(r);
}

void world_settle(bool (*settle)(void))
{
    bool faults = world.faults;
    uint32_t event = ring_sim_chances.event;
    world.faults = false;
    for (uint32_t round = 0, quiet = 0; quiet < 12; round++) {
        ring_sim_chances.event = quiet > 2 ? 1024 : event;   /* what is possible does happen */
        bool any = settle();
        uint32_t first = below(world.shards);
        for (uint32_t i = 0; i < world.shards; i++) {
            if (world_turn((first + i) % world.shards)) any = true;
        }
        if (world.store != NULL && store_step(world.store)) any = true;
        quiet = any ? 0 : quiet + 1;
        MUST(round < 100000, "the server never comes to rest");
        if (round % 64 == 63) world_pass(1);
    }
    ring_sim_chances.event = event;
    world.faults = faults;
}
