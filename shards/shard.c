#include "shards/shard.h"

#include "shards/annotation_book.h"
#include "shards/api.h"
#include "shards/ask.h"
#include "shards/chan.h"
#include "shards/fan.h"
#include "shards/home.h"
#include "shards/presence.h"
#include "shards/presence_log.h"
#include "shards/presence_update.h"
#include "shards/stream.h"
#include "shards/user.h"
#include "shards/want.h"

#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>

enum { SECOND_MS = 1000, DRAIN_STEP_MS = 10, DRAIN_STEP_SOCKS_MIN = 64 };
enum { SPILLED_LETTER_SUBS = 64, DRAIN_STEP_WALK = 65536 };
enum { HOMES_BUCKETS_MAX = 1 << 23, SOCKS_SLACK = 2 * 32768 };

/* ---- small services ---- */

err_t shard_ask(struct shard *sh, uint16_t to, struct letter *l)
{
    l->from_shard = sh->id;
    l->posted_ns = sh->re.now_ns;
    err_t e = mail_post(reactor_box(&sh->re, to), l);
    if (e != OK) metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_MAILBOX, 1);
    return e;
}

void shard_answer(struct shard *sh, uint16_t to, struct letter *l)
{
    struct mailbox *box = reactor_box(&sh->re, to);
    l->from_shard = sh->id;
    l->posted_ns = sh->re.now_ns;
    uint32_t before = mail_spilled(box);
    mail_post_sure(box, l);
    if (UNLIKELY(mail_spilled(box) > before)) {
        metric_add(sh->metrics, METRIC_MAIL_SPILLED_TOTAL, 0, 0, 1);
    }
}

uint16_t shard_home(const struct shard *sh, uint32_t app, struct slice name)
{
    uint32_t slot = hash_slot(sh->server->app_ids[app], name);
    return (uint16_t)hash_slot_shard(slot, sh->server->shards_count);
}

bool shard_pressed(struct shard *sh)
{
    if (heap_used_bytes(sh->heap) < sh->heap_mark) return false;
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
    return true;
}

static bool find_app(const struct server *s, const uint32_t *order, const struct slice *texts,
                     struct slice text, uint32_t *app)
{
    uint32_t low = 0, high = s->conf->apps_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int d = slice_order(texts[order[middle]], text);
        if (d == 0) {
            *app = order[middle];
            return true;
        }
        if (d < 0) low = middle + 1;
        else high = middle;
    }
    return false;
}

bool shard_app_by_key(const struct server *s, struct slice key, uint32_t *app)
{
    return find_app(s, s->apps_by_key, s->app_keys, key, app);
}

bool shard_app_by_id(const struct server *s, struct slice id, uint32_t *app)
{
    return find_app(s, s->apps_by_id, s->app_ids, id, app);
}

/* ---- letters ---- */

void shard_handle(struct shard *sh, const struct letter *l)
{
    switch ((enum mail_kind)l->kind) {
    case MAIL_FRAME_HOME:  frame_came_home(sh, l->payload); return;
    case MAIL_FAN:         fan_on_letter(sh, l); return;
    case MAIL_END_USER:    user_on_end(sh, l); return;
    case MAIL_SUBSCRIBED:  chan_on_subscribed(sh, l); return;
    case MAIL_REPLAYED:    chan_on_replayed(sh, l); return;
    case MAIL_PRESENCE:    presence_update_at_home(sh, l); return;
    case MAIL_PRESENCE_DONE: presence_update_done(sh, l); return;
    case MAIL_WANT:        want_on_want(sh, l); return;
    case MAIL_WANTED:      want_on_wanted(sh, l); return;
    case MAIL_PUBLISHED:   publish_on_published(sh, l); return;
    case MAIL_ASKED:       ask_on_asked(sh, l); return;
    case MAIL_WATCHED:     user_on_watched(sh, l); return;
    case MAIL_WATCH_EVENT: user_on_watch_event(sh, l); return;
    case MAIL_LISTED:      api_on_listed(sh, l); return;
    case MAIL_LIST_HOME:   api_on_list_home(sh, l); return;
    case MAIL_SUBSCRIBE:   home_on_subscribe(sh, l); return;
    case MAIL_UNSUBSCRIBE: home_on_unsubscribe(sh, l); return;
    case MAIL_PUBLISH:     publish_on_publish(sh, l); return;
    case MAIL_ASK:         ask_on_ask(sh, l); return;
    case MAIL_ASK_DONE:    ask_on_done(sh, l); return;
    case MAIL_WATCH:       user_on_watch(sh, l); return;
    case MAIL_UNWATCH:     user_on_unwatch(sh, l); return;
    case MAIL_USER_END:    user_on_end_at_home(sh, l); return;
    case MAIL_LIST:        api_on_list(sh, l); return;
    case MAIL_REPLAY:      stream_on_replay(sh, l); return;
    case MAIL_COMMITTED:   stream_on_committed(sh, l); return;
    case MAIL_READ_DONE:   stream_on_read_done(sh, l); return;
    case MAIL_COMMIT:
    case MAIL_READ:
    case MAIL_SNAPSHOT:
    case MAIL_SNAPSHOT_BACK:
    case MAIL_CLOSED: break;             /* for lanes */
    }
    ASSERT(!"unknown letter");
}

static void on_letter(void *ctx, const struct letter *l)
{
    struct shard *sh = ctx;
    uint64_t delay_ns = sh->re.now_ns > l->posted_ns ? sh->re.now_ns - l->posted_ns : 0;
    if (l->from_shard != sh->id) {
        metric_observe(sh->metrics, METRIC_MAIL_QUEUE_DELAY_US, 0, 0, (double)delay_ns / 1000);
    }
    shard_handle(sh, l);
}

/* ---- time ---- */

/* The lanes are the server's: shard 0 tells of them. */
static void copy_store_stats(struct shard *sh)
{
    const struct store *store = sh->server->store;
    struct metrics *m = sh->metrics;
    struct store_stats all = {0}, one;
    if (sh->id != 0 || store == NULL) return;
    for (uint32_t lane = 0; lane < store_lanes(store); lane++) {
        store_stats_read(store, lane, &one);
        all.commits += one.commits;
        all.records += one.records;
        all.reads += one.reads;
        all.read_ns += one.read_ns;
        all.failed += one.failed;
        all.refused += one.refused;
        all.forgotten += one.forgotten;
        all.queue_batches += one.queue_batches;
        all.wal_bytes += one.wal_bytes;
        all.tails += one.tails;
        all.segments += one.segments;
        all.map_bytes += one.map_bytes;
        all.free_bytes = one.free_bytes; /* one disk */
    }
    metric_set(m, METRIC_STORE_COMMITS_TOTAL, 0, 0, (int64_t)all.commits);
    metric_set(m, METRIC_STORE_RECORDS_TOTAL, 0, 0, (int64_t)all.records);
    metric_set(m, METRIC_STORE_READS_TOTAL, 0, 0, (int64_t)all.reads);
    metric_set(m, METRIC_STORE_READ_SECONDS_TOTAL, 0, 0, (int64_t)(all.read_ns / 1000));
    metric_set(m, METRIC_STORE_FAILED_TOTAL, 0, 0, (int64_t)all.failed);
    metric_set(m, METRIC_STORE_REFUSED_TOTAL, 0, 0, (int64_t)all.refused);
    metric_set(m, METRIC_STORE_FORGOTTEN_TOTAL, 0, 0, (int64_t)all.forgotten);
    metric_set(m, METRIC_STORE_QUEUE_BATCHES, 0, 0, (int64_t)all.queue_batches);
    metric_set(m, METRIC_STORE_WAL_BYTES, 0, 0, (int64_t)all.wal_bytes);
    metric_set(m, METRIC_STORE_TAILS, 0, 0, (int64_t)all.tails);
    metric_set(m, METRIC_STORE_SEGMENTS, 0, 0, (int64_t)all.segments);
    metric_set(m, METRIC_STORE_MAP_BYTES, 0, 0, (int64_t)all.map_bytes);
    metric_set(m, METRIC_STORE_FREE_BYTES, 0, 0, (int64_t)all.free_bytes);
}

static void copy_stats(struct shard *sh)
{
    struct metrics *m = sh->metrics;
    copy_store_stats(sh);
    struct ring_stats ring;
    struct reactor_stats *re = &sh->re.stats;
    ring_stats_read(sh->re.ring, &ring);
    uint64_t uptime_ns = u64_max(sh->re.now_ns - re->started_ns, 1);
    uint64_t waiting = 0;
    for (uint16_t to = 0; to < sh->server->shards_count; to++) {
        struct mailbox *box = reactor_box(&sh->re, to);
        waiting += mail_spilled(box) + MAIL_SLOTS - mail_room(box);
    }
    metric_set(m, METRIC_DIRECT_DESCRIPTORS, 0, 0, ring.socks);
    metric_set(m, METRIC_DIRECT_DESCRIPTOR_SLOTS, 0, 0, ring.slots);
    metric_set(m, METRIC_ACCEPT_ERRORS_TOTAL, 0, 0, (int64_t)ring.accept_errors);
    metric_set(m, METRIC_HEAP_USED_BYTES, 0, 0, (int64_t)heap_used_bytes(sh->heap));
    metric_set(m, METRIC_RECV_BUFFERS_EXHAUSTED_TOTAL, 0, 0, (int64_t)ring.recv_bufs_exhausted);
    metric_set(m, METRIC_RECV_REARMED_TOTAL, 0, 0, (int64_t)ring.recv_rearmed);
    metric_set(m, METRIC_SENDS_TOTAL, 0, 0, (int64_t)ring.sends);
    metric_set(m, METRIC_SEND_FRAMES_TOTAL, 0, 0, (int64_t)sh->send_frames);
    metric_set(m, METRIC_RING_ENTERS_TOTAL, 0, 0, (int64_t)ring.enters);
    metric_set(m, METRIC_WAKEUPS_TOTAL, 0, 0, (int64_t)ring.wakes);
    metric_set(m, METRIC_TOKIO_WORKERS_COUNT, 0, 0, 1);
    metric_set(m, METRIC_TOKIO_ACTIVE_TASKS, 0, 0,
               (int64_t)(sh->conns_count + sh->re.wheel.armed_count + sh->ops_count));
    metric_set(m, METRIC_TOKIO_INJECTION_QUEUE_DEPTH, 0, 0, (int64_t)waiting);
    metric_set(m, METRIC_TOKIO_WORKER_LOCAL_QUEUE_DEPTH, 0, 0, sh->fan_jobs);
    metric_set(m, METRIC_TOKIO_WORKER_BUSY_RATIO, 0, 0,
               (int64_t)(u64_min(re->busy_ns, uptime_ns) * 1.0e6 / (double)uptime_ns));
    metric_set(m, METRIC_TOKIO_WORKER_MEAN_POLL_DURATION_US, 0, 0,
               (int64_t)(re->busy_ns / u64_max(re->turns, 1)));
    metric_set(m, METRIC_TOKIO_BUDGET_FORCED_YIELD_COUNT, 0, 0, (int64_t)re->forced_yields);
    metric_set(m, METRIC_DRAIN_STATE, 0, 0, sh->draining);
    metric_set(m, METRIC_CONNECTIONS_DRAINING, 0, 0, sh->draining ? sh->conns_count : 0);
}

static void log_summary(struct shard *sh)
{
    char id[8], open[16], opened[24], closed[24], subscribed[24];
    if (sh->opened == 0 && sh->closed == 0 && sh->subscribed == 0) return;
    snprintf(id, sizeof(id), "%u", sh->id);
    snprintf(open, sizeof(open), "%u", sh->conns_count);
    snprintf(opened, sizeof(opened), "%llu", (unsigned long long)sh->opened);
    snprintf(closed, sizeof(closed), "%llu", (unsigned long long)sh->closed);
    snprintf(subscribed, sizeof(subscribed), "%llu", (unsigned long long)sh->subscribed);
    LOG(LOG_INFO, "connections in the last second", "shard", id, "open", open, "opened", opened,
        "closed", closed, "subscribed", subscribed);
    sh->opened = sh->closed = sh->subscribed = 0;
}

static void drain_step(struct shard *sh);

static void on_second(struct shard *sh)
{
    home_cache_expire(sh);
    stream_tick(sh);
    conn_watch_all(sh);
    if (sh->draining) {
        drain_step(sh);
        return;
    }
    copy_stats(sh);
    log_summary(sh);
    ask_tick(sh);
    presence_log_tick(sh);
    annotation_tick(sh);
    timer_arm(&sh->re.wheel, &sh->second, sh->re.now_ms + SECOND_MS);
}

static void on_timer(void *ctx, struct timer *t)
{
    struct shard *sh = ctx;
    switch ((enum shard_timer)t->kind) {
    case SHARD_TIMER_CONN:
        conn_on_timer(sh, CONTAINER_OF(t, struct conn, timer));
        return;
    case SHARD_TIMER_SECOND: on_second(sh); return;
    case SHARD_TIMER_MEMBER:
        presence_on_grace(sh, CONTAINER_OF(t, struct member, grace));
        return;
    case SHARD_TIMER_COUNT:
        home_on_timer(sh, CONTAINER_OF(t, struct home_extra, count_timer));
        return;
    case SHARD_TIMER_ASK: ask_on_timer(sh, t); return;
    case SHARD_TIMER_OP: op_on_timer(sh, t); return;
    case SHARD_TIMER_HELD: chan_on_held_timer(sh); return;
    }
    ASSERT(!"unknown timer");
}

/* ---- draining: settled 15 ---- */

/* Sockets are told to reconnect elsewhere in steps, so that they do not arrive there as one storm;
 * the steps take at most half of the grace period. */
static void drain_step(struct shard *sh)
{
    uint64_t steps = u64_max((uint64_t)sh->conf->shutdown_grace_period * 1000 / 2 / DRAIN_STEP_MS,
                             1);
    uint64_t batch = u64_max(sh->drain_total / steps + 1, DRAIN_STEP_SOCKS_MIN);
    copy_stats(sh);
    uint32_t end = (uint32_t)u64_min((uint64_t)sh->drain_next + DRAIN_STEP_WALK, sh->conns_seen);
    while (sh->drain_next < end && batch > 0) {
        struct conn *c = &sh->conns[sh->drain_next++];
        if (c->state != CONN_WS) continue;
        conn_fail(sh, c, PUSHER_RECONNECT, "Server shutting down");
        batch--;
    }
    /* A socket that opened behind the walk (its upgrade was under way) is met on the next round. */
    if (sh->drain_next == sh->conns_seen) sh->drain_next = 0;
    timer_arm(&sh->re.wheel, &sh->second, sh->re.now_ms + DRAIN_STEP_MS);
}

/* What is left that a client waits for: sockets gone, requests answered, answers sent? */
static uint32_t drained(const struct shard *sh)
{
    bool sockets = false, more = sh->ops_count > 0;
    for (uint32_t i = 0; i < sh->conns_seen && !sockets; i++) {
        const struct conn *c = &sh->conns[i];
        if (c->state == CONN_WS || (c->state == CONN_CLOSING && c->close_sent)) sockets = true;
        if (c->state == CONN_CLOSING || c->out_count > 0) more = true;
        if (c->state == CONN_HTTP && c->in != NULL) more = true;    /* half a request */
    }
    return (sockets ? 0 : SHARD_NO_SOCKETS) | (sh->ops_count > 0 ? 0 : SHARD_NO_OPS) |
           (sockets || more ? 0 : SHARD_EMPTY);
}

static void shut_door(struct shard *sh)
{
    if (sh->shut || __atomic_load_n(&sh->server->door, __ATOMIC_ACQUIRE) != SERVER_SHUT) return;
    sh->shut = true;
    ring_listen_stop(sh->re.ring);
    shutdown(sh->listen_fd, SHUT_RDWR);  /* who is in its queue hears that nobody will come */
}

static void check_drain(struct shard *sh)
{
    if (!shard_is_draining(sh)) return;
    if (!sh->draining) {
        sh->draining = true;
        sh->drain_total = sh->conns_count;
        sh->drain_checked_ms = 0;
        drain_step(sh);
    }
    shut_door(sh);
    if (sh->re.now_ms - sh->drain_checked_ms >= DRAIN_STEP_MS + sh->conns_seen / 1024) {
        sh->drain_checked_ms = sh->re.now_ms;
        __atomic_store_n(&sh->drained, drained(sh), __ATOMIC_RELEASE);
    }
}

/* ---- the turn ---- */

/* What publishers on every shard look at before they add to it. A spilled letter may stand for many
 * subscribers elsewhere. */
static void tell_backlog(struct shard *sh)
{
    uint64_t backlog = sh->fan_waiting;
    for (uint16_t to = 0; to < sh->server->shards_count; to++) {
        backlog += (uint64_t)mail_spilled(reactor_box(&sh->re, to)) * SPILLED_LETTER_SUBS;
    }
    __atomic_store_n(&sh->backlog, backlog, __ATOMIC_RELAXED);
}

static bool work(void *ctx)
{
    struct shard *sh = ctx;
    check_drain(sh);
    stream_flush(sh);                    /* what this turn has sequenced goes to its lanes */
    bool more = fan_work(sh);
    if (api_list_work(sh)) more = true;
    conn_flush_all(sh);
    if (conn_reap_some(sh)) more = true;
    tell_backlog(sh);
    return more;
}

static bool finished(void *ctx)
{
    struct shard *sh = ctx;
    return __atomic_load_n(&sh->server->quitting, __ATOMIC_ACQUIRE) != 0;
}

static const struct reactor_ops reactor_ops = {
    .on_letter = on_letter, .on_timer = on_timer, .work = work, .finished = finished,
};

/* ---- opening and closing ---- */

static err_t open_memory(struct shard *sh)
{
    uint64_t bytes = (uint64_t)sh->conf->shard_memory_mb << 20;
    uint32_t shards = sh->server->shards_count;
    sh->heap_mark = bytes - bytes / 8;
    sh->conns_max = (sh->conf->connections_capacity + shards - 1) / shards;
    sh->conns_reserved = (uint64_t)sh->conns_max + RING_SOCKS_SPARE;
    sh->socks_reserved = (uint64_t)sh->conns_max + SOCKS_SLACK;
    sh->conns = mem_reserve(sh->conns_reserved * sizeof(struct conn));
    sh->conn_of_sock = mem_reserve(sh->socks_reserved * sizeof(uint32_t));
    sh->chan_slots = mem_reserve((uint64_t)SHARD_CHANNELS_MAX * sizeof(struct handle_slot));
    if (sh->conns == NULL || sh->conn_of_sock == NULL || sh->chan_slots == NULL) return ERR_MEMORY;
    err_t e = heap_open(&sh->heap, bytes);
    if (e == OK) e = table_open(&sh->chans, HOMES_BUCKETS_MAX);
    if (e == OK) e = table_open(&sh->homes, HOMES_BUCKETS_MAX);
    if (e == OK) e = table_open(&sh->members, HOMES_BUCKETS_MAX);
    if (e != OK) return e;
    uint32_t lists = sh->conf->apps_count * (uint32_t)sizeof(struct home *);
    sh->homes_of_app = heap_zalloc(sh->heap, lists);
    return sh->homes_of_app == NULL ? ERR_MEMORY : OK;
}

err_t shard_open(struct shard *sh)
{
    err_t e = open_memory(sh);
    if (e == OK) e = ask_open(sh);
    if (e == OK) e = stream_open_all(sh);
    if (e == OK) e = presence_log_open(sh);
    if (e == OK) e = annotation_open(sh);
    if (e != OK) {
        snprintf(sh->error, sizeof(sh->error), "shard %u: %s", sh->id, err_name(e));
        return e;
    }
    struct ring_conf conf = {
        .socks_max = sh->conns_max, .accepts_max = sh->conf->accepts_outstanding,
        .handler = &conn_ring_handler, .ctx = sh,
    };
    e = reactor_open(&sh->re, sh->id, sh->server->office, &conf, &reactor_ops, sh, sh->error,
                     sizeof(sh->error));
    if (e != OK) return e;
    sh->second.kind = SHARD_TIMER_SECOND;
    timer_arm(&sh->re.wheel, &sh->second, sh->re.now_ms + SECOND_MS);
    copy_stats(sh);
    return OK;
}

void shard_close(struct shard *sh)
{
    reactor_close(&sh->re);
    ask_close(sh);
    stream_close_all(sh);
    presence_log_close(sh);
    annotation_close(sh);
    table_close(&sh->chans);
    table_close(&sh->homes);
    table_close(&sh->members);
    heap_close(&sh->heap);
    mem_release(sh->conns, sh->conns_reserved * sizeof(struct conn));
    mem_release(sh->conn_of_sock, sh->socks_reserved * sizeof(uint32_t));
    mem_release(sh->chan_slots, (uint64_t)SHARD_CHANNELS_MAX * sizeof(struct handle_slot));
}

static void pin(const struct shard *sh)
{
    cpu_set_t usable, one;
    if (!sh->conf->pin_threads || sched_getaffinity(0, sizeof(usable), &usable) != 0) return;
    int count = CPU_COUNT(&usable);
    if (sh->server->shards_count > (uint32_t)count) return;   /* let the kernel share the cores */
    int nth = sh->id;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &usable) || nth-- > 0) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof(one), &one);
        return;
    }
}

static void *run(void *arg)
{
    struct shard *sh = arg;
    char name[16];
    snprintf(name, sizeof(name), "shard-%u", sh->id);
    pthread_setname_np(pthread_self(), name);
    memcpy(sh->name, name, sizeof(name));
    log_thread_join(sh->name);
    pin(sh);
    bool opened = shard_open(sh) == OK;
    __atomic_store_n(&sh->state, opened ? SHARD_OPEN : SHARD_FAILED, __ATOMIC_RELEASE);
    if (!opened) return NULL;
    /* Letters may only be sent once every shard has a ring to be woken by. */
    while (__atomic_load_n(&sh->server->started, __ATOMIC_ACQUIRE) == 0) sched_yield();
    ring_listen(sh->re.ring, sh->listen_fd, CONN_TRAFFIC);
    if (sh->id == 0 && sh->server->metrics_fd >= 0) {
        ring_listen(sh->re.ring, sh->server->metrics_fd, CONN_METRICS);
    }
    reactor_run(&sh->re);
    stream_end(sh);
    __atomic_store_n(&sh->state, SHARD_STOPPED, __ATOMIC_RELEASE);
    return NULL;
}

err_t shard_start(struct shard *sh)
{
    sh->state = SHARD_STARTING;
    int e = pthread_create(&sh->thread, NULL, run, sh);
    if (e != 0) {
        snprintf(sh->error, sizeof(sh->error), "cannot start a thread: %s", strerror(e));
        return ERR_IO;
    }
    while (__atomic_load_n(&sh->state, __ATOMIC_ACQUIRE) == SHARD_STARTING) sched_yield();
    if (sh->state == SHARD_FAILED) {
        pthread_join(sh->thread, NULL);
        return ERR_UNSUPPORTED;
    }
    return OK;
}

void shard_join(struct shard *sh)
{
    pthread_join(sh->thread, NULL);
    shard_close(sh);
}
