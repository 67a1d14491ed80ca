#include "shards/server.h"

#include "core/clock.h"
#include "shards/listen.h"
#include "shards/server_store.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 10, LAST_ANSWERS_NS = 1000000000 };

static err_t open_metrics(struct server_run *r, const struct conf *conf)
{
    snprintf(r->metrics_port_text, sizeof(r->metrics_port_text), "%u", r->metrics_port);
    r->app_names = mem_reserve(conf->apps_count * sizeof(char *));
    r->sets = mem_reserve(r->server.shards_count * sizeof(struct metrics));
    if (r->app_names == NULL || r->sets == NULL) return ERR_MEMORY;
    for (uint32_t i = 0; i < conf->apps_count; i++) r->app_names[i] = conf->apps[i].id;
    struct metric_table_conf t = {
        .app_ids = r->app_names, .apps_count = conf->apps_count, .prefix = conf->metrics_prefix,
        .port = r->metrics_port_text,
    };
    err_t e = metric_table_open(&r->table, series_table, METRIC_COUNT, &t);
    for (uint32_t i = 0; e == OK && i < r->server.shards_count; i++) {
        e = metric_open(&r->sets[i], &r->table, (int32_t)i);
    }
    return e;
}

static err_t open_listeners(struct server_run *r, const struct conf *conf, char *error,
                            uint32_t error_bytes)
{
    r->port = conf->port;
    r->metrics_port = conf->metrics_port;
    r->server.metrics_fd = -1;
    err_t e = listen_open(conf->host, &r->port, r->server.shards_count, r->listen_fds, error,
                          error_bytes);
    if (e == OK && conf->metrics_enabled) {
        e = listen_open(conf->metrics_host, &r->metrics_port, 1, &r->server.metrics_fd, error,
                        error_bytes);
    }
    return e;
}

static int by_text(const void *a, const void *b, void *texts)
{
    const struct slice *t = texts;
    return slice_order(t[*(const uint32_t *)a], t[*(const uint32_t *)b]);
}

/* Indexes of the apps, sorted by id or key: looked up for every request. */
static uint32_t *sorted(struct slice *texts, uint32_t count)
{
    uint32_t *order = mem_reserve(count * sizeof(*order));
    if (order == NULL) return NULL;
    for (uint32_t i = 0; i < count; i++) order[i] = i;
    qsort_r(order, count, sizeof(*order), by_text, texts);
    return order;
}

static err_t open_apps(struct server *s)
{
    const struct conf *conf = s->conf;
    uint64_t bytes = conf->apps_count * sizeof(struct slice);
    s->app_ids = mem_reserve(bytes);
    s->app_keys = mem_reserve(bytes);
    s->app_secrets = mem_reserve(bytes);
    if (s->app_ids == NULL || s->app_keys == NULL || s->app_secrets == NULL) return ERR_MEMORY;
    for (uint32_t i = 0; i < conf->apps_count; i++) {
        s->app_ids[i] = slice_str(conf->apps[i].id);
        s->app_keys[i] = slice_str(conf->apps[i].key);
        s->app_secrets[i] = slice_str(conf->apps[i].secret);
    }
    s->apps_by_id = sorted(s->app_ids, conf->apps_count);
    s->apps_by_key = sorted(s->app_keys, conf->apps_count);
    return s->apps_by_id == NULL || s->apps_by_key == NULL ? ERR_MEMORY : OK;
}

static err_t open_shards(struct server_run *r, char *error, uint32_t error_bytes)
{
    struct server *s = &r->server;
    s->shards = mem_reserve(s->shards_count * sizeof(struct shard));
    if (s->shards == NULL) {
        snprintf(error, error_bytes, "cannot start: %s", err_name(ERR_MEMORY));
        return ERR_MEMORY;
    }
    for (uint32_t i = 0; i < s->shards_count; i++) {
        struct shard *sh = &s->shards[i];
        sh->server = s;
        sh->conf = s->conf;
        sh->id = (uint16_t)i;
        sh->listen_fd = r->listen_fds[i];
        sh->metrics = &r->sets[i];
        err_t e = shard_start(sh);
        if (e != OK) {                   /* the process ends: threads that wait end with it */
            snprintf(error, error_bytes, "%s", sh->error);
            return e;
        }
    }
    __atomic_store_n(&s->started, 1, __ATOMIC_RELEASE);
    return OK;
}

err_t server_open(struct server_run *r, const struct conf *conf, char *error, uint32_t error_bytes)
{
    struct server *s = &r->server;
    struct rng rng;
    memset(r, 0, sizeof(*r));
    rng_seed_system(&rng);
    s->conf = conf;
    s->shards_count = conf->shards;
    s->table_seed = rng_next(&rng);
    s->started_wall_ms = clock_wall_ms();
    err_t e = ring_probe(error, error_bytes);
    if (e == OK) e = listen_lock_dir(conf->data_dir, &r->lock_fd, error, error_bytes);
    if (e == OK) e = open_listeners(r, conf, error, error_bytes);
    if (e != OK) return e;
    r->office = mem_reserve(sizeof(*r->office));
    e = r->office == NULL ? ERR_MEMORY : reactor_office_open(r->office, s->shards_count);
    s->office = r->office;
    s->metric_table = &r->table;
    if (e == OK) e = open_apps(s);
    if (e == OK) e = open_metrics(r, conf);
    if (e != OK) {
        snprintf(error, error_bytes, "cannot start: %s", err_name(e));
        return e;
    }
    if (conf->history_enabled) {
        e = server_store_open(s, &r->store, true, clock_wall_ms, error, error_bytes);
        if (e != OK) return e;
    }
    return open_shards(r, error, error_bytes);
}

/* ---- waiting and draining ---- */

static void poke_all(struct server *s)
{
    for (uint32_t i = 0; i < s->shards_count; i++) reactor_poke(s->office, (uint16_t)i);
}

static bool all_drained(const struct server *s, enum shard_drained bit)
{
    for (uint32_t i = 0; i < s->shards_count; i++) {
        if ((__atomic_load_n(&s->shards[i].drained, __ATOMIC_ACQUIRE) & bit) == 0) return false;
    }
    return true;
}

/* Requests that come one after the other would keep it from ever being empty. */
static void close_door(struct server *s, bool half_over)
{
    if (s->door == SERVER_SHUT) return;
    if (all_drained(s, SHARD_NO_SOCKETS)) {
        __atomic_store_n(&s->door, SERVER_SHUT, __ATOMIC_RELEASE);
    } else if (half_over) {
        __atomic_store_n(&s->door, SERVER_REFUSES, __ATOMIC_RELEASE);
    }
}

/* Polls until every shard has this bit, or until the time. A second signal ends the process. */
static bool wait_drained(struct server *s, const sigset_t *set, enum shard_drained bit,
                         uint64_t half_ns, uint64_t deadline_ns)
{
    struct timespec step = {.tv_nsec = POLL_MS * 1000000};
    while (!all_drained(s, bit)) {
        uint64_t now_ns = clock_mono_ns();
        if (now_ns >= deadline_ns) return false;
        close_door(s, now_ns >= half_ns);
        poke_all(s);
        if (sigtimedwait(set, NULL, &step) > 0) _exit(1);
    }
    return true;
}

void server_wait(struct server_run *r)
{
    struct server *s = &r->server;
    sigset_t set;
    int sig = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    while (sigwait(&set, &sig) != 0) continue;
    LOG(LOG_INFO, "draining: sockets are asked to reconnect; a second signal ends at once");
    __atomic_store_n(&s->draining, 1, __ATOMIC_RELEASE);
    uint64_t grace_ns = s->conf->shutdown_grace_period * 1000000000ull, now_ns = clock_mono_ns();
    if (!wait_drained(s, &set, SHARD_EMPTY, now_ns + grace_ns / 2, now_ns + grace_ns)) {
        LOG(LOG_WARN, "grace period over: the connections left are cut");
        now_ns = clock_mono_ns();
        (void)wait_drained(s, &set, SHARD_NO_OPS, now_ns, now_ns + LAST_ANSWERS_NS);
    }
    __atomic_store_n(&s->quitting, 1, __ATOMIC_RELEASE);
    poke_all(s);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);    /* a signal still ends a close that hangs */
}

void server_close(struct server_run *r)
{
    struct server *s = &r->server;
    /* Accepts that are still outstanding hold the listeners: shut them down so that the next server
     * on this port does not share it with ours. */
    for (uint32_t i = 0; i < s->shards_count; i++) shutdown(r->listen_fds[i], SHUT_RDWR);
    if (s->metrics_fd >= 0) shutdown(s->metrics_fd, SHUT_RDWR);
    for (uint32_t i = 0; i < s->shards_count; i++) {
        while (__atomic_load_n(&s->shards[i].state, __ATOMIC_ACQUIRE) != SHARD_STOPPED) {
            sched_yield();
        }
    }
    /* What the shards have posted is committed while their memory still stands. */
    if (r->store != NULL) store_close(&r->store);
    for (uint32_t i = 0; i < s->shards_count; i++) {
        shard_join(&s->shards[i]);
        metric_close(&r->sets[i]);
        close(r->listen_fds[i]);
    }
    if (s->metrics_fd >= 0) close(s->metrics_fd);
    metric_table_close(&r->table);
    reactor_office_close(r->office);
    close(r->lock_fd);
}
