#include "shards/home.h"

#include "shards/fan.h"
#include "shards/presence.h"
#include "shards/stream.h"
#include "shards/user.h"

#include <stdio.h>

enum { COUNT_BATCH_SUBS = 100, COUNT_BATCH_MS = 5000, CACHE_EXPIRE_MAX = 10000 };

static uint64_t home_hash(const struct shard *sh, uint32_t app, struct slice name)
{
    return hash_table(sh->server->table_seed, app, name);
}

struct home *home_find(struct shard *sh, uint32_t app, struct slice name)
{
    uint64_t hash = home_hash(sh, app, name);
    for (struct table_node *n = table_find(&sh->homes, hash); n != NULL; n = table_find_next(n)) {
        struct home *h = CONTAINER_OF(n, struct home, node);
        if (h->app == app && slice_equal(home_name(h), name)) return h;
    }
    return NULL;
}

struct home *home_make(struct shard *sh, uint32_t app, struct slice name, uint8_t kind, bool cache)
{
    struct home *h = home_find(sh, app, name);
    if (h != NULL) return h;
    h = heap_zalloc(sh->heap, (uint32_t)sizeof(*h) + name.bytes);
    if (h == NULL) return NULL;
    h->app = (uint16_t)app;
    h->kind = kind;
    h->cache = cache;
    h->name_bytes = name.bytes;
    memcpy(h->name, name.ptr, name.bytes);
    table_put(&sh->homes, &h->node, home_hash(sh, app, name));
    h->app_next = sh->homes_of_app[app];
    h->app_link = &sh->homes_of_app[app];
    if (h->app_next != NULL) h->app_next->app_link = &h->app_next;
    sh->homes_of_app[app] = h;
    return h;
}

struct home_extra *home_extra(struct shard *sh, struct home *h)
{
    if (h->extra == NULL) {
        h->extra = heap_zalloc(sh->heap, sizeof(*h->extra));
        if (h->extra == NULL) return NULL;
        h->extra->count_timer.kind = SHARD_TIMER_COUNT;
        h->extra->home = h;
    }
    return h->extra;
}

static bool extra_empty(const struct home_extra *x)
{
    for (uint32_t i = 0; i < sizeof(x->streams) / sizeof(x->streams[0]); i++) {
        if (x->streams[i] != NULL) return false;
    }
    return x->members_count == 0 && x->cached == NULL && x->watchers == NULL;
}

void home_extra_release(struct shard *sh, struct home *h)
{
    struct home_extra *x = h->extra;
    if (x == NULL || timer_armed(&x->count_timer) || !extra_empty(x)) return;
    h->extra = NULL;
    heap_free(sh->heap, x, sizeof(*x));
}

void home_release(struct shard *sh, struct home *h)
{
    struct home_extra *x = h->extra;
    if (h->subs_count > 0 || h->pins > 0) return;
    if (x != NULL) {
        if (!extra_empty(x)) return;
        timer_disarm(&sh->re.wheel, &x->count_timer);
        heap_free(sh->heap, x, sizeof(*x));
    }
    ASSERT(h->interests_count == 0);
    heap_free(sh->heap, h->interests, (uint32_t)sizeof(*h->interests) * h->interests_room);
    table_del(&sh->homes, &h->node);
    *h->app_link = h->app_next;
    if (h->app_next != NULL) h->app_next->app_link = h->app_link;
    heap_free(sh->heap, h, (uint32_t)sizeof(*h) + h->name_bytes);
}

/* ---- interests ---- */

static struct interest *interest_of(struct home *h, uint16_t shard)
{
    for (uint32_t i = 0; i < h->interests_count; i++) {
        if (h->interests[i].shard == shard) return &h->interests[i];
    }
    return NULL;
}

/* Counts of V2 sockets and of those in full mode: what frames are needed. */
static void count_voices(struct home *h, struct interest *in, uint64_t flags, int32_t by)
{
    if ((flags & HOME_V2) == 0) return;
    in->v2_count += (uint32_t)by;
    h->v2_count += (uint32_t)by;
    if ((flags & HOME_FULL_MODE) == 0) return;
    in->full_count += (uint32_t)by;
    h->full_count += (uint32_t)by;
}

static bool interest_add(struct shard *sh, struct home *h, uint16_t shard, uint64_t chan,
                         uint64_t flags)
{
    struct interest *in = interest_of(h, shard);
    if (in == NULL) {
        if (h->interests_count == h->interests_room) {
            uint32_t size = (uint32_t)sizeof(*in), room = h->interests_room;
            uint32_t more = room == 0 ? 1 : room * 2;
            struct interest *fresh = heap_alloc(sh->heap, size * more);
            if (fresh == NULL) return false;
            if (room > 0) memcpy(fresh, h->interests, (size_t)size * room);
            heap_free(sh->heap, h->interests, size * room);
            h->interests = fresh;
            h->interests_room = (uint16_t)more;
        }
        in = &h->interests[h->interests_count++];
        *in = (struct interest){.shard = shard};
    }
    in->chan = chan;                     /* a channel that ended and began again has a new handle */
    in->subs_count++;
    h->subs_count++;
    count_voices(h, in, flags, 1);
    return true;
}

static void interest_drop(struct home *h, uint16_t shard, uint64_t flags)
{
    struct interest *in = interest_of(h, shard);
    ASSERT(in != NULL && in->subs_count > 0 && h->subs_count > 0);
    h->subs_count--;
    count_voices(h, in, flags, -1);
    if (--in->subs_count > 0) return;
    *in = h->interests[--h->interests_count];
}

uint32_t home_fan(struct shard *sh, struct home *h, struct frame *f, uint64_t except_a,
                  uint64_t except_b, uint64_t started_ns)
{
    const struct stream *st = h->extra == NULL ? NULL : h->extra->streams[STREAM_MAIN];
    uint64_t delivery = st == NULL ? 0 : st->now.delivery;
    for (uint32_t i = 0; i < h->interests_count; i++) {
        uint32_t observe = i == 0 && started_ns != 0 ? FAN_OBSERVE : 0;
        struct letter l = {
            .kind = MAIL_FAN, .payload = frame_lend(f),
            .flags = observe | h->subs_count << FAN_RECIPIENTS_SHIFT,
            .arg = {h->interests[i].chan, except_a, except_b, started_ns, delivery},
        };
        shard_answer(sh, h->interests[i].shard, &l);
    }
    return h->subs_count;
}

/* ---- counting ---- */

static uint32_t type_label(const struct home *h)
{
    struct pusher_channel kind = {.kind = (enum pusher_kind)h->kind, .cache = h->cache};
    return pusher_type_label(&kind);
}

struct frame *home_internal_frame(struct shard *sh, const struct home *h, const char *name,
                                  struct slice data)
{
    struct pusher_out o = {.event_json = slice_str(name), .channel = home_name(h)};
    struct frame *f = frame_make(sh, pusher_event_text_bytes(&o, data));
    if (f == NULL) return NULL;
    f->bytes_count = pusher_event_text_write(&o, data, frame_room(f));
    if (h->v2_count == 0) return f;
    struct v2_out v2 = {.event_json = o.event_json, .channel = o.channel};
    f->v2 = frame_sibling(sh, f, v2_event_text_bytes(&v2, data));
    if (f->v2 != NULL) f->v2->bytes_count = v2_event_text_write(&v2, data, frame_room(f->v2));
    else frame_put(sh, &f);
    return f;
}

static void fan_count(struct shard *sh, struct home *h)
{
    char text[48];
    int n = snprintf(text, sizeof(text), "{\"subscription_count\":%u}", h->subs_count);
    struct frame *f = home_internal_frame(sh, h, "\"pusher_internal:subscription_count\"",
                                          slice_of(text, (uint32_t)n));
    if (f == NULL) return;               /* the next change tells the count again */
    home_fan(sh, h, f, 0, 0, 0);
    frame_put(sh, &f);
}

/* Subscribers learn of the new count: at once, or batched on large channels. */
static void tell_count(struct shard *sh, struct home *h)
{
    if (!sh->conf->apps[h->app].enable_subscription_count) return;
    if (h->kind == PUSHER_PRESENCE || h->kind == PUSHER_USER || h->subs_count == 0) return;
    if (h->subs_count <= COUNT_BATCH_SUBS) {
        fan_count(sh, h);
        return;
    }
    struct home_extra *x = home_extra(sh, h);
    if (x != NULL && !timer_armed(&x->count_timer)) {
        timer_arm(&sh->re.wheel, &x->count_timer, sh->re.now_ms + COUNT_BATCH_MS);
    }
}

void home_on_timer(struct shard *sh, struct home_extra *x)
{
    if (x->home->subs_count > 0) fan_count(sh, x->home);
}

static void came(struct shard *sh, struct home *h)
{
    metric_add(sh->metrics, METRIC_SUBSCRIPTIONS, h->app, type_label(h), 1);
    if (h->subs_count != 1) return;
    metric_add(sh->metrics, METRIC_ACTIVE_CHANNELS, h->app, type_label(h), 1);
    if (h->kind == PUSHER_USER) user_transition(sh, h, true);
}

static void went(struct shard *sh, struct home *h)
{
    metric_add(sh->metrics, METRIC_SUBSCRIPTIONS, h->app, type_label(h), -1);
    if (h->subs_count != 0) return;
    metric_add(sh->metrics, METRIC_ACTIVE_CHANNELS, h->app, type_label(h), -1);
    if (h->kind == PUSHER_USER) user_transition(sh, h, false);
}

/* ---- letters ---- */

static void answer_subscribed(struct shard *sh, const struct letter *ask, enum home_status status,
                              struct home *h, struct member *m)
{
    struct letter l = {
        .kind = MAIL_SUBSCRIBED, .payload = ask->payload, .flags = (uint32_t)ask->arg[1],
        .arg = {status, (uintptr_t)h, (uintptr_t)m, 0, 0},
    };
    if (status == HOME_OK && h->kind == PUSHER_PRESENCE) {
        struct frame *f = presence_succeeded(sh, h);
        l.arg[3] = (uintptr_t)f;         /* the one reference goes with the letter */
    }
    if (status == HOME_OK && h->cache) {
        struct frame *f = home_cached(sh, h);
        if (f != NULL) l.arg[4] = (uintptr_t)frame_lend(f);
    }
    shard_answer(sh, ask->from_shard, &l);
}

enum home_status home_admit(struct shard *sh, struct home *h, const struct letter *l,
                            const struct sub *s, struct member **m)
{
    if (!interest_add(sh, h, l->from_shard, l->arg[0], l->arg[1])) return HOME_NO_MEMORY;
    if (h->kind != PUSHER_PRESENCE) return HOME_OK;
    enum home_status status = presence_join(sh, h, s->presence, m);
    if (status != HOME_OK) interest_drop(h, l->from_shard, l->arg[1]);
    return status;
}

void home_unadmit(struct shard *sh, struct home *h, const struct letter *l, struct member *m)
{
    interest_drop(h, l->from_shard, l->arg[1]);
    const struct presence *who = ((const struct sub *)l->payload)->presence;
    if (m != NULL) presence_leave(sh, h, m, 0, who->socket_a, who->socket_b);
}

void home_joined(struct shard *sh, struct home *h)
{
    came(sh, h);
    tell_count(sh, h);
}

void home_on_subscribe(struct shard *sh, const struct letter *l)
{
    const struct sub *s = l->payload;
    const struct chan *ch = s->chan;     /* name, kind and presence hold still until the answer */
    struct member *m = NULL;
    if (s->attach != NULL) {
        stream_on_subscribe(sh, l);
        return;
    }
    if (l->arg[1] & HOME_AGAIN) {
        struct home *h = home_find(sh, ch->app, chan_name(ch));
        answer_subscribed(sh, l, h == NULL ? HOME_FULL : HOME_OK, h, NULL);
        return;
    }
    struct home *h = home_make(sh, ch->app, chan_name(ch), ch->kind, ch->cache);
    enum home_status status = h == NULL ? HOME_NO_MEMORY : home_admit(sh, h, l, s, &m);
    answer_subscribed(sh, l, status, h, m);
    if (status == HOME_OK) {
        home_joined(sh, h);
    } else if (h != NULL) {
        home_release(sh, h);
    }
}

void home_on_unsubscribe(struct shard *sh, const struct letter *l)
{
    struct home *h = (void *)(uintptr_t)l->arg[0];
    struct member *m = (void *)(uintptr_t)l->arg[1];
    interest_drop(h, l->from_shard, l->arg[2]);
    if (m != NULL) presence_leave(sh, h, m, l->arg[2], l->arg[3], l->arg[4]);
    went(sh, h);
    tell_count(sh, h);
    home_release(sh, h);
}

/* ---- the cached event ---- */

static void cache_unlink(struct shard *sh, struct home *h)
{
    struct home_extra *x = h->extra;
    if (x->cache_older != NULL) x->cache_older->extra->cache_newer = x->cache_newer;
    else sh->cache_oldest = x->cache_newer;
    if (x->cache_newer != NULL) x->cache_newer->extra->cache_older = x->cache_older;
    else sh->cache_newest = x->cache_older;
    x->cache_older = x->cache_newer = NULL;
}

static uint32_t family_bytes(const struct frame *f)
{
    return f->bytes_count + (f->v2 != NULL ? f->v2->bytes_count : 0);
}

void home_cache_drop(struct shard *sh, struct home *h)
{
    if (h->extra == NULL || h->extra->cached == NULL) return;
    cache_unlink(sh, h);
    sh->cache_bytes -= family_bytes(h->extra->cached);
    frame_put(sh, &h->extra->cached);
}

void home_cache_put(struct shard *sh, struct home *h, struct frame *f)
{
    uint64_t bound = sh->conf->cache_max_bytes / sh->server->shards_count;
    home_cache_drop(sh, h);
    struct home_extra *x = home_extra(sh, h);
    if (x == NULL || family_bytes(f) > bound) {   /* not kept: seen as a cache_miss */
        metric_add(sh->metrics, METRIC_CACHE_EVICTED_TOTAL, h->app, 0, 1);
        return;
    }
    while (sh->cache_oldest != NULL && sh->cache_bytes + family_bytes(f) > bound) {
        struct home *old = sh->cache_oldest;
        metric_add(sh->metrics, METRIC_CACHE_EVICTED_TOTAL, old->app, 0, 1);
        home_cache_drop(sh, old);
        if (old != h) home_release(sh, old);
    }
    x->cached = frame_ref(f);
    x->cached_until_ms = sh->re.now_ms + (uint64_t)sh->conf->cache_ttl * 1000;
    sh->cache_bytes += family_bytes(f);
    x->cache_older = sh->cache_newest;
    if (sh->cache_newest != NULL) sh->cache_newest->extra->cache_newer = h;
    else sh->cache_oldest = h;
    sh->cache_newest = h;
}

struct frame *home_cached(struct shard *sh, struct home *h)
{
    struct home_extra *x = h->extra;
    if (x == NULL || x->cached == NULL) return NULL;
    if (x->cached_until_ms > sh->re.now_ms) return x->cached;
    home_cache_drop(sh, h);
    return NULL;
}

/* Once a second: events past their time go, so that an unused channel leaves nothing behind. All
 * live equally long, so the list of ages is the list of ends. */
void home_cache_expire(struct shard *sh)
{
    for (uint32_t i = 0; i < CACHE_EXPIRE_MAX && sh->cache_oldest != NULL; i++) {
        struct home *h = sh->cache_oldest;
        if (h->extra->cached_until_ms > sh->re.now_ms) return;
        home_cache_drop(sh, h);
        home_release(sh, h);
    }
}
