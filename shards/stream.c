/* Streams of this shard's homes: made on first use, loaded from their lane, forgotten when idle. */
#include "shards/stream_parts.h"

#include <stdio.h>

#include "shards/annotation_book.h"

enum { SWEEP_MIN = 4096, EVICT_STEPS = 64, TABLE_BUCKETS_MAX = 1 << 20 };

static const char *const stored_prefixes[STREAM_WHATS] = {
    [STREAM_MAIN] = "", [STREAM_PRESENCE] = STORE_PRESENCE_PREFIX,
    [STREAM_ANNOTATIONS] = STORE_ANNOTATIONS_PREFIX,
};

/* ---- stream ids ---- */

/* Relaxed: a start after a crash makes every such channel of the lane another stream, whatever of
 * it is stored: it may have shown more. With the other durability it never was the same stream. */
static uint64_t losses_of(const struct shard *sh, const struct stream *st)
{
    return st->relaxed ? store_losses(sh->server->store, st->lane) : UINT64_MAX;
}

/* A UUID's shape over whatever makes the stream this one. Without history that is the shard's salt
 * and an age. Streams in which nothing was said come and go with the same age, which their home
 * keeps; when one goes that had serials, those that are made from then on have another. */
static void write_id(const struct shard *sh, const struct stream *st, const char *kind,
                     char out[37])
{
    uint64_t facts[3] = {st->delivery_epoch, kind[0] == 'h' ? st->history_epoch : 0,
                         st->history ? losses_of(sh, st) : sh->streams->salt};
    uint64_t hash[2];
    struct slice parts[] = {
        slice_str(st->history ? store_id(sh->server->store) : ""),
        sh->server->app_ids[st->home->app], st->stored_name, slice_str(kind),
        slice_of(facts, sizeof(facts)),
    };
    hash_parts(parts, sizeof(parts) / sizeof(parts[0]), hash);
    v2_uuid_write(out, hash[0], hash[1]);
}

void stream_node(const struct shard *sh, uint32_t app, struct slice channel,
                 char out[V2_NODE_BYTES])
{
    const struct store *store = sh->server->store;
    struct slice parts[] = {
        slice_str(store == NULL ? "" : store_id(store)), sh->server->app_ids[app], channel,
    };
    uint64_t hash[2];
    hash_parts(parts, sizeof(parts) / sizeof(parts[0]), hash);
    v2_node_write(out, hash[0], hash[1]);
}

void stream_ids(struct shard *sh, struct stream *st)
{
    write_id(sh, st, "delivery", st->delivery_id);
    write_id(sh, st, "history", st->history_id);
}

void stream_reset_applied(struct shard *sh, struct stream *st, uint64_t history_epoch)
{
    if (st->history_epoch == history_epoch) return;
    st->history_epoch = history_epoch;
    stream_ids(sh, st);
    if (stream_by_history(st)) stream_ring_clear(sh, st);   /* its frames are of another stream */
}

/* ---- making and forgetting ---- */

bool stream_idle(const struct stream *st)
{
    if (st->waits_first != NULL || st->flying > 0 || st->reads > 0 || st->gates > 0) return false;
    if (st->epoch_owed || st->degraded) return false;
    if (st->ring_count > 0 || st->woken || st->state == STREAM_LOADING) return false;
    if (!st->history && st->receipts_oldest != NULL) return false;
    return st->what != STREAM_MAIN || st->history || st->home->v2_count == 0;
}

/* Its lane may forget the channel now: it is loaded from what is stored then, if anything is. */
static void tell_closed(struct shard *sh, const struct stream *st)
{
    struct letter l = {.kind = MAIL_CLOSED, .arg = {st->chan}};
    shard_answer(sh, store_post(sh->server->store, st->lane), &l);
}

static void stream_free(struct shard *sh, struct stream *st)
{
    struct stream_book *b = sh->streams;
    struct home *h = st->home;
    ASSERT(st->waits_first == NULL && st->flying == 0 && st->reads == 0 && st->gates == 0);
    if (!st->history && st->spoken) h->stream_age = ++b->age;
    if (st->held) tell_closed(sh, st);
    stream_degrade(sh, st, false);
    stream_message_free_all(sh, st);
    stream_receipt_free_all(sh, st);
    stream_ring_clear(sh, st);
    heap_free(sh->heap, st->ring, (uint32_t)sizeof(*st->ring) * st->ring_room);
    if (st->what != STREAM_MAIN) {
        heap_free(sh->heap, (void *)(uintptr_t)st->stored_name.ptr, st->stored_name.bytes);
    }
    if (b->hand == st) b->hand = st->newer == st ? NULL : st->newer;
    st->older->newer = st->newer;
    st->newer->older = st->older;
    b->streams_count--;
    metric_set(sh->metrics, METRIC_STREAMS, 0, 0, b->streams_count);
    h->extra->streams[st->what] = NULL;
    heap_free(sh->heap, st, sizeof(*st));
    h->pins--;
    home_extra_release(sh, h);
    home_release(sh, h);
}

static bool is_busy(const struct stream *st)
{
    return st->state == STREAM_LOADING || st->waits_first != NULL || st->flying > 0 ||
           st->reads > 0 || st->gates > 0 || st->woken;
}

static bool has_nothing(const struct stream *st)
{
    return st->state == STREAM_OPEN && !st->spoken && !st->epoch_owed && !st->degraded &&
           st->ring_count == 0 && st->receipts_oldest == NULL && st->messages == NULL;
}

/* All of a channel's streams at once: a request may need two, and must not lose the one while it
 * waits for the other. */
void stream_rest(struct shard *sh, struct stream *st)
{
    struct home *h = st->home;
    struct home_extra *x = h->extra;
    if (st->state == STREAM_FAILED && stream_idle(st)) {
        stream_free(sh, st);             /* whoever asks next tries again */
        return;
    }
    if (h->subs_count >= STREAM_KEPT_SUBS || !has_nothing(st)) return;
    for (uint32_t i = 0; i < STREAM_WHATS; i++) {
        if (x->streams[i] != NULL && is_busy(x->streams[i])) return;
    }
    h->pins++;
    for (uint32_t i = 0; i < STREAM_WHATS && h->extra != NULL; i++) {
        struct stream *other = h->extra->streams[i];
        if (other != NULL && has_nothing(other)) stream_free(sh, other);
    }
    h->pins--;
    home_release(sh, h);
}

/* Nobody has come for so long that the lane may have its channel back, to forget it in time. */
static bool is_left(const struct shard *sh, const struct stream *st)
{
    uint64_t after_ms = (uint64_t)sh->conf->history_forget_after_seconds * 1000;
    return st->held && after_ms > 0 && st->home->subs_count == 0 &&
           (uint32_t)sh->re.now_ms - st->used_ms >= u64_min(after_ms, STREAM_LEFT_MS);
}

/* The hand passes `steps` streams: what has expired goes, and whole streams beyond the bound. */
static void sweep(struct shard *sh, uint32_t steps)
{
    struct stream_book *b = sh->streams;
    while (steps-- > 0 && b->hand != NULL) {
        struct stream *st = b->hand;
        b->hand = st->newer;
        stream_epoch_settle(sh, st);
        stream_ring_trim(sh, st);
        stream_receipt_expire(sh, st, sh->re.now_ms);
        bool surplus = b->streams_count > b->streams_idle_max || is_left(sh, st);
        if (st->used) st->used_ms = (uint32_t)sh->re.now_ms;
        if (!st->used && surplus && stream_idle(st)) {
            stream_free(sh, st);
        } else {
            st->used = false;
        }
    }
}

static bool name_hidden(struct shard *sh, struct stream *st)
{
    struct slice prefix = slice_str(stored_prefixes[st->what]), name = home_name(st->home);
    if (st->what == STREAM_MAIN) {
        st->stored_name = name;
        return true;
    }
    uint8_t *text = heap_alloc(sh->heap, prefix.bytes + name.bytes);
    if (text == NULL) return false;
    memcpy(text, prefix.ptr, prefix.bytes);
    memcpy(text + prefix.bytes, name.ptr, name.bytes);
    st->stored_name = slice_of(text, prefix.bytes + name.bytes);
    return true;
}

static bool has_history(const struct shard *sh, const struct stream *st)
{
    if (sh->server->store == NULL) return false;
    switch ((enum stream_what)st->what) {
    case STREAM_MAIN: return st->policy->history;
    case STREAM_PRESENCE:
    case STREAM_ANNOTATIONS:
    case STREAM_WHATS: break;
    }
    return true;
}

static void loaded(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);

static bool load(struct shard *sh, struct stream *st)
{
    const struct conf_app *app = &sh->conf->apps[st->home->app];
    struct store_read *r = stream_read_make(sh, st, STORE_OPEN, loaded, NULL);
    if (r == NULL) return false;
    if (app->idempotency_enabled) {
        r->receipt_age_ms = (uint64_t)app->idempotency_ttl_seconds * 1000;
    }
    stream_read_post(sh, st, r);
    return true;
}

static void link_stream(struct stream_book *b, struct stream *st)
{
    if (b->hand == NULL) {
        b->hand = st->older = st->newer = st;
    } else {                             /* behind the hand: visited last */
        st->newer = b->hand;
        st->older = b->hand->older;
        st->older->newer = st;
        st->newer->older = st;
    }
    b->streams_count++;
}

/* The home stays. Few steps: who waits for one stream must keep the other one that he needs. */
static void make_room(struct shard *sh, struct home *h)
{
    if (sh->streams->streams_count < sh->streams->streams_idle_max) return;
    h->pins++;
    sweep(sh, u32_min(EVICT_STEPS, 1 + sh->streams->streams_count / 8));
    h->pins--;
}

static struct stream *make(struct shard *sh, struct home *h, enum stream_what what)
{
    struct stream_book *b = sh->streams;
    make_room(sh, h);
    if (home_extra(sh, h) == NULL) return NULL;
    struct stream *st = heap_zalloc(sh->heap, sizeof(*st));
    if (st == NULL) return NULL;
    st->home = h;
    st->what = (uint8_t)what;
    st->used_ms = (uint32_t)sh->re.now_ms;
    st->policy = conf_policy_at(sh->conf, h->app, home_name(h));
    stream_node(sh, h->app, home_name(h), st->node);
    if (!name_hidden(sh, st)) {
        heap_free(sh->heap, st, sizeof(*st));
        return NULL;
    }
    h->pins++;
    h->extra->streams[what] = st;
    link_stream(b, st);
    metric_set(sh->metrics, METRIC_STREAMS, 0, 0, b->streams_count);
    st->history = has_history(sh, st);
    if (!st->history) {
        if (b->salt == 0) b->salt = stream_epoch_draw(sh);
        if (h->stream_age == 0) h->stream_age = b->age;
        st->delivery_epoch = h->stream_age;
        stream_ids(sh, st);
        st->state = STREAM_OPEN;
        return st;
    }
    uint32_t slot = hash_slot(sh->server->app_ids[h->app], home_name(h));
    st->lane = (uint16_t)store_lane_of(sh->server->store, slot);
    st->relaxed = st->policy->relaxed && what == STREAM_MAIN;
    st->versioned = st->policy->versioned;
    st->state = STREAM_LOADING;
    if (load(sh, st)) return st;
    h->pins++;                           /* the caller goes on with the home */
    stream_free(sh, st);
    h->pins--;
    return NULL;
}

struct stream *stream_of(struct shard *sh, struct home *h, enum stream_what what)
{
    struct stream *st = h->extra == NULL ? NULL : h->extra->streams[what];
    if (st == NULL) st = make(sh, h, what);
    if (st != NULL && st->state == STREAM_FAILED && !sh->streams->again) {
        st->state = STREAM_LOADING;      /* another try */
        if (!load(sh, st)) st->state = STREAM_FAILED;
    }
    if (st == NULL || st->state == STREAM_FAILED) return NULL;
    st->used = true;
    return st;
}

bool stream_is_unreadable(const struct home *h, enum stream_what what)
{
    const struct stream *st = h->extra == NULL ? NULL : h->extra->streams[what];
    return st != NULL && st->state == STREAM_FAILED && st->unreadable;
}

/* ---- loading ---- */

void stream_degrade(struct shard *sh, struct stream *st, bool degraded)
{
    if (st->degraded == degraded) return;
    st->degraded = degraded;
    int32_t by = degraded ? 1 : -1;      /* nothing but a reset mends it */
    metric_add(sh->metrics, METRIC_HISTORY_DEGRADED_CHANNELS, st->home->app, 0, by);
    metric_add(sh->metrics, METRIC_HISTORY_RESET_REQUIRED_CHANNELS, st->home->app, 0, by);
    if (!degraded) return;
    char name[128];
    snprintf(name, sizeof(name), "%.*s", (int)u32_min(st->stored_name.bytes, 100),
             (const char *)st->stored_name.ptr);
    LOG(LOG_ERROR, "stored history cannot be read: reset it", "app",
        sh->conf->apps[st->home->app].id, "channel", name);
}

static bool take_head(struct shard *sh, struct stream *st, const struct store_read *r)
{
    const struct store_head *head = &r->head;
    st->chan = head->chan;
    st->named = st->named_now = head->known;
    st->held = st->held || head->known;
    st->now.delivery = head->delivery;
    st->now.history = head->history_next > 0 ? head->history_next - 1 : 0;
    st->now.time_ms = head->known || head->time_ms > 0 ? head->time_ms + 1 : 0;
    st->delivery_epoch = head->delivery_epoch;
    st->history_epoch = head->history_epoch;
    st->next = st->stored = st->now;
    st->stored_epoch = st->history_epoch;
    stream_ids(sh, st);
    /* A log that was forgotten begins again at 1: the book may still hold what it had. */
    if (st->what == STREAM_ANNOTATIONS && !head->known) {
        annotation_doubt(sh, st->home->app, home_name(st->home));
    }
    stream_receipt_free_all(sh, st);     /* of a load that failed half way */
    return stream_receipt_load(sh, st, r);
}

static void loaded(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    /* Damaged rows do not end a channel: publishing goes on, but with no new key for as long as one
     * of theirs would be known. */
    bool lost = r->status == STORE_READ_IO && r->head.lost;
    bool damaged = r->status == STORE_READ_IO && r->head.chan != 0 && !lost;
    bool good = r->status == STORE_READ_OK || damaged;
    st->state = STREAM_OPEN;
    st->unreadable = r->status == STORE_READ_IO && !damaged;
    st->lost = lost;
    if (good) good = take_head(sh, st, r);
    if (lost) st->chan = r->head.chan;
    if (!good) st->state = STREAM_FAILED;
    if (good || lost) stream_degrade(sh, st, damaged || lost);
    st->unsure_ms = damaged ? sh->re.now_ms + r->receipt_age_ms : 0;
    stream_read_end(sh, r);
    stream_wake(sh, st);
}

/* ---- the shard ---- */

err_t stream_open_all(struct shard *sh)
{
    struct stream_book *b = heap_zalloc(sh->heap, sizeof(*b));
    if (b == NULL) return ERR_MEMORY;
    sh->streams = b;
    b->streams_idle_max = STREAM_IDLE_MAX;
    b->age = 1;
    b->rings_bytes_max = ((uint64_t)sh->conf->shard_memory_mb << 20) / 8;
    b->messages_bytes_max = ((uint64_t)sh->conf->history_message_cache_mb << 20) /
                            sh->server->shards_count;
    err_t e = stream_line_open(sh);
    if (e == OK) e = table_open(&b->receipts, TABLE_BUCKETS_MAX);
    if (e == OK) e = table_open(&b->messages, TABLE_BUCKETS_MAX);
    return e;
}

void stream_close_all(struct shard *sh)
{
    if (sh->streams == NULL) return;
    for (struct stream_read *q = sh->streams->reads_all; q != NULL; q = q->all_next) {
        store_read_free(&q->r);          /* the lanes have stopped */
    }
    table_close(&sh->streams->receipts);
    table_close(&sh->streams->messages);
    sh->streams = NULL;                  /* streams go with the heap */
}

void stream_end(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    struct store *store = sh->server->store;
    struct stream *st = b->hand;
    for (uint32_t left = b->streams_count; left > 0; left--, st = st->newer) {
        if (st->epoch_owed) store_doubt(store, st->lane);
    }
    for (uint16_t i = 0; store != NULL && i < store_lanes(store); i++) {
        if (b->lanes[i].open != NULL ||
            mail_spilled(reactor_box(&sh->re, store_post(store, i))) > 0) {
            store_doubt(store, i);       /* never reaches its lane */
        }
    }
}

void stream_flush(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    if (!b->begun) stream_request_begin(sh);
    stream_run_woken(sh);
    stream_line_run(sh);
    for (uint16_t i = 0; sh->server->store != NULL && i < store_lanes(sh->server->store); i++) {
        stream_lane_post(sh, i);
    }
}

void stream_forget_idle(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    for (uint32_t left = b->streams_count; left > 0; left--) {
        struct stream *st = b->hand;
        b->hand = st->newer;
        stream_ring_trim(sh, st);
        if (st->history) stream_ring_relieve(sh, st);    /* the lane has it */
        stream_receipt_expire(sh, st, sh->re.now_ms);
        if (stream_idle(st)) stream_free(sh, st);
    }
}

void stream_tick(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    stream_request_tick(sh);
    if (heap_used_bytes(sh->heap) >= sh->heap_mark) stream_forget_idle(sh);
    sweep(sh, u32_min(b->streams_count, u32_max(SWEEP_MIN, b->streams_count / 4)));
}
