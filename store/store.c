/* lanes[i]: post (committer) and reader_post, with boxes
 *
 *   shard -> committer: COMMIT, READ           committer -> shard: COMMITTED, failed READ_DONE
 *   committer -> reader: SNAPSHOT              reader -> committer: SNAPSHOT_BACK
 *                                              reader -> shard: READ_DONE
 */
#include "store/store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/rng.h"
#include "store/lane_parts.h"

struct store_thread {
    pthread_t thread;
    bool      runs;
    char      name[16];
};

struct store {
    struct store_conf   conf;
    uint32_t            lanes_count;
    char                id[STORE_ID_BYTES];
    bool                opened;             /* every lane: what is there may be marked clean */
    bool                stop_committers, stop_readers;   /* atomic */
    struct store_thread committers[STORE_LANES_MAX], readers[STORE_LANES_MAX];
    struct lane         lanes[];
};

/* ---- threads ---- */

static bool stopping(const bool *stop)
{
    return __atomic_load_n(stop, __ATOMIC_ACQUIRE);
}

static void *committer_main(void *arg)
{
    struct lane *l = arg;
    struct reactor_office *o = l->conf->office;
    log_thread_join(l->store->committers[l->index].name);
    for (;;) {
        bool stop = stopping(&l->store->stop_committers);
        bool more = lane_round(l);
        bool spilled = reactor_post_flush(o, l->post);
        if (stop && !reactor_post_waiting(o, l->post)) return NULL;
        if (more || stop) continue;
        uint64_t rest_ns = lane_rest_ns(l);
        reactor_post_rest(o, l->post, spilled ? u64_min(rest_ns, REACTOR_SPILL_RETRY_NS) : rest_ns);
    }
}

static void *reader_main(void *arg)
{
    struct lane *l = arg;
    struct reactor_office *o = l->conf->office;
    log_thread_join(l->store->readers[l->index].name);
    while (!stopping(&l->store->stop_readers)) {
        bool more = reader_round(l->reader);
        bool spilled = reactor_post_flush(o, l->reader_post);
        if (more) continue;
        reactor_post_rest(o, l->reader_post, spilled ? REACTOR_SPILL_RETRY_NS : UINT64_MAX);
    }
    return NULL;
}

static err_t thread_start(struct store_thread *t, const char *what, struct lane *l,
                          void *(*main_of)(void *))
{
    (void)snprintf(t->name, sizeof t->name, "%s-%u", what, l->index);
    if (pthread_create(&t->thread, NULL, main_of, l) != 0) return ERR_MEMORY;
    (void)pthread_setname_np(t->thread, t->name);
    t->runs = true;
    return OK;
}

static void threads_stop(struct store *s, struct store_thread *threads, bool *stop)
{
    __atomic_store_n(stop, true, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < s->lanes_count; i++) {
        if (!threads[i].runs) continue;
        bool committer = threads == s->committers;
        reactor_post_ring(s->conf.office, committer ? s->lanes[i].post : s->lanes[i].reader_post);
        (void)pthread_join(threads[i].thread, NULL);
        threads[i].runs = false;
    }
}

/* ---- open ---- */

static void draw_id(char *out)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    enum { ID_CHARS = 16 };
    struct rng rng;
    rng_seed_system(&rng);
    for (uint32_t i = 0; i < ID_CHARS; i++) out[i] = letters[rng_below(&rng, sizeof letters - 1)];
    out[ID_CHARS] = 0;
}

/* Lane 0 is made last: where it stands, all do. */
static err_t directory_open(const struct store_conf *conf, struct format_lane *said, char *error,
                            uint32_t error_bytes)
{
    err_t e = lane_probe(conf->dir, 0, said, error, error_bytes);
    if (e != OK || said->lanes > 0) return e;
    ASSERT(conf->lanes > 0 && conf->lanes <= STORE_LANES_MAX);
    struct format_lane made = {.format = STORE_FORMAT_MADE, .lanes = conf->lanes,
                               .made_ms = conf->wall_ms()};
    draw_id(made.store_id);
    for (uint32_t i = conf->lanes; i-- > 0;) {
        made.lane = i;
        e = lane_make(conf->dir, &made, error, error_bytes);
        if (e != OK) return e;
    }
    *said = made;
    return OK;
}

static err_t lanes_whole(const struct store *s, char *error, uint32_t error_bytes)
{
    struct format_lane other;
    for (uint32_t i = 1; i < s->lanes_count; i++) {
        err_t e = lane_probe(s->conf.dir, i, &other, error, error_bytes);
        if (e != OK) return e;
        if (other.lanes != s->lanes_count || strcmp(other.store_id, s->id) != 0) {
            (void)snprintf(error, error_bytes, "%s/lane-%02u is missing or belongs to another "
                           "directory: put back what was there", s->conf.dir, i);
            return ERR_CONFIG;
        }
    }
    return OK;
}

static err_t boxes_open(struct lane *l)
{
    struct reactor_office *o = l->conf->office;
    err_t e = reactor_post_open(o, &l->post);
    if (e == OK) e = reactor_post_open(o, &l->reader_post);
    if (e == OK) e = reactor_box_open(o, l->post, l->reader_post);
    if (e == OK) e = reactor_box_open(o, l->reader_post, l->post);
    for (uint16_t shard = 0; e == OK && shard < l->conf->shards_count; shard++) {
        e = reactor_box_open(o, shard, l->post);
        if (e == OK) e = reactor_box_open(o, l->post, shard);
        if (e == OK) e = reactor_box_open(o, l->reader_post, shard);
    }
    return e;
}

static err_t lanes_open(struct store *s, char *error, uint32_t error_bytes)
{
    for (uint32_t i = 0; i < s->lanes_count; i++) {
        struct lane *l = &s->lanes[i];
        l->store = s;
        l->conf = &s->conf;
        l->index = i;
        err_t e = lane_open(l, error, error_bytes);
        if (e != OK) return e;
        e = boxes_open(l);
        if (e == OK) e = reader_open(&l->reader, l);
        if (e != OK) {
            (void)snprintf(error, error_bytes, "lane %u: %s", i, err_name(e));
            return e;
        }
    }
    for (uint32_t i = 0; i < s->lanes_count; i++) {
        err_t e = lane_begin(&s->lanes[i], error, error_bytes);
        if (e != OK) return e;
    }
    s->opened = true;
    return OK;
}

static err_t threads_start(struct store *s, char *error, uint32_t error_bytes)
{
    for (uint32_t i = 0; i < s->lanes_count; i++) {
        struct lane *l = &s->lanes[i];
        err_t e = thread_start(&s->committers[i], "lane", l, committer_main);
        if (e == OK) e = thread_start(&s->readers[i], "lane-read", l, reader_main);
        if (e != OK) {
            (void)snprintf(error, error_bytes, "the threads of lane %u do not start", i);
            return e;
        }
    }
    return OK;
}

err_t store_open(struct store **out, const struct store_conf *conf, char *error,
                 uint32_t error_bytes)
{
    struct format_lane said;
    *out = NULL;
    err_t e = directory_open(conf, &said, error, error_bytes);
    if (e != OK) return e;
    struct store *s = calloc(1, sizeof *s + said.lanes * sizeof s->lanes[0]);
    if (s == NULL) {
        (void)snprintf(error, error_bytes, "no memory for the store");
        return ERR_MEMORY;
    }
    s->conf = *conf;
    s->lanes_count = s->conf.lanes = said.lanes;
    memcpy(s->id, said.store_id, sizeof s->id);
    e = lanes_whole(s, error, error_bytes);
    if (e == OK) e = lanes_open(s, error, error_bytes);
    if (e == OK && conf->threads) e = threads_start(s, error, error_bytes);
    if (e != OK) {
        store_close(&s);
        return e;
    }
    *out = s;
    return OK;
}

/* ---- life ---- */

static bool step(struct store *s)
{
    bool more = false;
    for (uint32_t i = 0; i < s->lanes_count; i++) {
        struct lane *l = &s->lanes[i];
        more |= lane_round(l);
        more |= reactor_post_flush(s->conf.office, l->post);
        more |= reader_round(l->reader);
        more |= reactor_post_flush(s->conf.office, l->reader_post);
    }
    return more;
}

bool store_step(struct store *s)
{
    ASSERT(!s->conf.threads);
    return step(s);
}

uint32_t store_lanes(const struct store *s) { return s->lanes_count; }
const char *store_id(const struct store *s) { return s->id; }
uint32_t store_losses(const struct store *s, uint32_t lane) { return s->lanes[lane].losses; }
uint16_t store_post(const struct store *s, uint32_t lane) { return s->lanes[lane].post; }

void store_doubt(struct store *s, uint32_t lane)
{
    __atomic_store_n(&s->lanes[lane].doubted, true, __ATOMIC_RELAXED);
}

bool store_refuses(const struct store *s, uint32_t lane)
{
    return __atomic_load_n(&s->lanes[lane].refusing, __ATOMIC_RELAXED);
}

void store_stats_read(const struct store *s, uint32_t lane, struct store_stats *out)
{
    static_assert(sizeof *out % sizeof(uint64_t) == 0, "nothing but counters");
    const uint64_t *from = (const uint64_t *)(const void *)&s->lanes[lane].stats;
    uint64_t *to = (uint64_t *)(void *)out;
    for (uint32_t i = 0; i < sizeof *out / sizeof *to; i++) {
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    }
}

void store_close(struct store **store)
{
    struct store *s = *store;
    *store = NULL;
    if (s == NULL) return;
    threads_stop(s, s->committers, &s->stop_committers);
    threads_stop(s, s->readers, &s->stop_readers);
    for (uint32_t i = 0; i < s->lanes_count; i++) {
        struct lane *l = &s->lanes[i];
        if (l->conf == NULL) continue;     /* opening stopped before it */
        if (s->opened && !s->conf.threads) {
            while (reactor_post_waiting(s->conf.office, l->post)) (void)lane_round(l);
        }
        if (l->reader != NULL) reader_close(&l->reader);
        lane_close(l, s->opened || l->clean);   /* unused: what was taken is put back */
    }
    free(s);
}
