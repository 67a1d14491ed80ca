#include "shards/chan.h"

#include "shards/fan.h"
#include "shards/home.h"
#include "shards/session.h"
#include "shards/user.h"

/* ---- handles: index + generation, so that a letter that comes too late finds nothing ---- */

static bool handle_take(struct shard *sh, struct chan *ch)
{
    uint32_t index;
    if (sh->chan_slots_free != 0) {
        index = sh->chan_slots_free - 1;
        sh->chan_slots_free = sh->chan_slots[index].next_free;
    } else if (sh->chan_slots_count < SHARD_CHANNELS_MAX) {
        index = sh->chan_slots_count++;
    } else {
        return false;
    }
    struct handle_slot *s = &sh->chan_slots[index];
    s->object = ch;
    s->gen++;
    ch->handle = (uint64_t)s->gen << 32 | index;
    return true;
}

static void handle_back(struct shard *sh, uint64_t handle)
{
    struct handle_slot *s = &sh->chan_slots[(uint32_t)handle];
    ASSERT(s->object != NULL && s->gen == handle >> 32);
    s->object = NULL;
    s->next_free = sh->chan_slots_free;
    sh->chan_slots_free = (uint32_t)handle + 1;
}

struct chan *chan_by_handle(struct shard *sh, uint64_t handle)
{
    ASSERT((uint32_t)handle < sh->chan_slots_count);
    struct handle_slot *s = &sh->chan_slots[(uint32_t)handle];
    return s->gen == handle >> 32 ? s->object : NULL;
}

/* ---- channels ---- */

struct chan *chan_find(struct shard *sh, uint32_t app, struct slice name)
{
    uint64_t hash = hash_table(sh->server->table_seed, app, name);
    for (struct table_node *n = table_find(&sh->chans, hash); n != NULL; n = table_find_next(n)) {
        struct chan *ch = CONTAINER_OF(n, struct chan, node);
        if (ch->app == app && slice_equal(chan_name(ch), name)) return ch;
    }
    return NULL;
}

static struct chan *chan_make(struct shard *sh, uint32_t app, struct slice name,
                              const struct pusher_channel *kind)
{
    struct chan *ch = heap_zalloc(sh->heap, (uint32_t)sizeof(*ch) + name.bytes);
    if (ch == NULL) return NULL;
    if (!handle_take(sh, ch)) {
        heap_free(sh->heap, ch, (uint32_t)sizeof(*ch) + name.bytes);
        return NULL;
    }
    ch->app = (uint16_t)app;
    ch->kind = (uint8_t)kind->kind;
    ch->cache = kind->cache;
    ch->home_shard = shard_home(sh, app, name);
    ch->name_bytes = name.bytes;
    memcpy(ch->name, name.ptr, name.bytes);
    table_put(&sh->chans, &ch->node, hash_table(sh->server->table_seed, app, name));
    return ch;
}

static void chan_release(struct shard *sh, struct chan *ch)
{
    if (ch->joined_count > 0 || ch->asked_count > 0) return;
    ASSERT(ch->subs == NULL);
    fan_drop(sh, ch);
    table_del(&sh->chans, &ch->node);
    handle_back(sh, ch->handle);
    heap_free(sh->heap, ch, (uint32_t)sizeof(*ch) + ch->name_bytes);
}

struct sub *chan_sub_of(const struct conn *c, const struct chan *ch)
{
    for (struct sub *s = c->subs; s != NULL; s = s->conn_next) {
        if (s->chan == ch) return s;
    }
    return NULL;
}

/* ---- joining ---- */

static void count_subs(struct shard *sh, const struct chan *ch, uint32_t series, int64_t n)
{
    struct pusher_channel kind = {.kind = (enum pusher_kind)ch->kind, .cache = ch->cache};
    metric_add(sh->metrics, series, ch->app, pusher_type_label(&kind), n);
}

err_t chan_join(struct shard *sh, struct conn *c, struct slice name,
                const struct pusher_channel *kind, struct presence *presence, bool hidden)
{
    struct chan *ch = chan_find(sh, c->app, name);
    bool made = ch == NULL;
    if (made) ch = chan_make(sh, c->app, name, kind);
    if (ch == NULL) return ERR_MEMORY;
    struct sub *s = heap_zalloc(sh->heap, sizeof(*s));
    if (s == NULL) {
        if (made) chan_release(sh, ch);
        return ERR_MEMORY;
    }
    /* Filled before it is posted: the home reads it from then on. */
    s->chan = ch;
    s->sock = conn_sock(sh, c);
    s->gen = c->gen;
    s->presence = presence;
    s->hidden = hidden;
    s->state = SUB_ASKED;
    s->asked = 1;
    struct letter l = {.kind = MAIL_SUBSCRIBE, .payload = s, .arg = {ch->handle}};
    if (shard_ask(sh, ch->home_shard, &l) != OK) {
        heap_free(sh->heap, s, sizeof(*s));
        if (made) chan_release(sh, ch);
        return ERR_FULL;
    }
    s->conn_next = c->subs;
    c->subs = s;
    c->subs_count++;
    ch->asked_count++;
    return OK;
}

void chan_join_again(struct shard *sh, struct sub *s)
{
    struct letter l = {
        .kind = MAIL_SUBSCRIBE, .payload = s, .arg = {s->chan->handle, HOME_AGAIN},
    };
    if (s->asked < UINT8_MAX && shard_ask(sh, s->chan->home_shard, &l) == OK) s->asked++;
    else conn_error(sh, &sh->conns[s->sock], PUSHER_OVER_CAPACITY, "Over capacity");
}

static void sub_free(struct shard *sh, struct sub *s)
{
    if (s->presence != NULL) {
        heap_free(sh->heap, s->presence,
                  (uint32_t)sizeof(*s->presence) + s->presence->bytes_count);
    }
    heap_free(sh->heap, s, sizeof(*s));
}

/* Tell the home that a counted subscription ends. */
static void uncount(struct shard *sh, struct sub *s, bool abrupt)
{
    struct letter l = {
        .kind = MAIL_UNSUBSCRIBE,
        .arg = {(uintptr_t)s->home, (uintptr_t)s->member, abrupt ? HOME_ABRUPT : 0},
    };
    shard_answer(sh, s->chan->home_shard, &l);
}

static void unlink_joined(struct sub *s)
{
    fan_forget(s->chan, s);
    *s->chan_link = s->chan_next;
    if (s->chan_next != NULL) s->chan_next->chan_link = s->chan_link;
    s->chan->joined_count--;
}

void chan_leave(struct shard *sh, struct conn *c, struct sub *s, bool abrupt)
{
    struct chan *ch = s->chan;
    struct sub **at = &c->subs;
    while (*at != s) at = &(*at)->conn_next;
    *at = s->conn_next;
    c->subs_count--;
    if (s->state == SUB_JOINED) {
        unlink_joined(s);
        if (!s->hidden) count_subs(sh, ch, METRIC_CHANNEL_UNSUBSCRIPTIONS_TOTAL, 1);
        if (s->asked == 0) {
            uncount(sh, s, abrupt);
            sub_free(sh, s);
            chan_release(sh, ch);
            return;
        }
        ch->asked_count++;               /* a repeated answer still refers to the sub */
    }
    s->left_joined = s->state == SUB_JOINED;
    s->state = SUB_LEAVING;
    s->abrupt = abrupt;
}

void chan_leave_all(struct shard *sh, struct conn *c, bool abrupt)
{
    while (c->subs != NULL) chan_leave(sh, c, c->subs, abrupt);
}

/* ---- the home's answer ---- */

void chan_send_succeeded(struct shard *sh, struct conn *c, struct chan *ch, struct frame *given)
{
    struct frame *f = given;
    if (f == NULL) {
        struct pusher_out o = {
            .event_json = slice_str("\"pusher_internal:subscription_succeeded\""),
            .channel = chan_name(ch), .data_json = slice_str("\"{}\""),
        };
        f = frame_make(sh, pusher_event_bytes(&o));
        if (f == NULL) {
            conn_kill_later(sh, c);
            return;
        }
        f->bytes_count = pusher_event_write(&o, frame_room(f));
    }
    conn_send(sh, c, f);
    if (given == NULL) frame_put(sh, &f);
}

static void send_cached(struct shard *sh, struct conn *c, struct chan *ch, struct frame *cached)
{
    if (cached != NULL) {
        conn_send(sh, c, cached);
        return;
    }
    struct pusher_out o = {
        .event_json = slice_str("\"pusher:cache_miss\""), .channel = chan_name(ch),
        .data_json = slice_str("\"{}\""),
    };
    uint32_t bytes = pusher_event_bytes(&o);
    struct frame *f = frame_make(sh, bytes);
    if (f == NULL) {
        conn_kill_later(sh, c);
        return;
    }
    f->bytes_count = pusher_event_write(&o, frame_room(f));
    conn_send(sh, c, f);
    frame_put(sh, &f);
}

/* Take the sub off its socket: the home refused it. */
static void refuse(struct shard *sh, struct conn *c, struct sub *s)
{
    struct sub **at = &c->subs;
    while (*at != s) at = &(*at)->conn_next;
    *at = s->conn_next;
    c->subs_count--;
    session_refuse(sh, c, chan_name(s->chan), PUSHER_OVER_CAPACITY, "Over capacity", 403);
    if (s->hidden) user_gone(sh, c);     /* the sign-in ends with it */
    if (s->asked > 0) {                  /* a repeated answer still refers to the sub */
        s->state = SUB_LEAVING;
        s->chan->asked_count++;
        return;
    }
    struct chan *ch = s->chan;
    sub_free(sh, s);
    chan_release(sh, ch);
}

static void join(struct shard *sh, struct conn *c, struct sub *s, const struct letter *l)
{
    struct chan *ch = s->chan;
    s->state = SUB_JOINED;
    s->home = (void *)(uintptr_t)l->arg[1];
    s->member = (void *)(uintptr_t)l->arg[2];
    s->joined = sh->fan_serial;
    s->chan_next = ch->subs;
    s->chan_link = &ch->subs;
    if (ch->subs != NULL) ch->subs->chan_link = &s->chan_next;
    ch->subs = s;
    ch->joined_count++;
    if (s->hidden) {
        user_on_joined(sh, c);
    } else {
        sh->subscribed++;
        conn_log(sh, c, "subscribed", "channel", chan_name(ch));
        count_subs(sh, ch, METRIC_CHANNEL_SUBSCRIPTIONS_TOTAL, 1);
    }
}

/* The sub's socket has left in the meantime. */
static void settle_leaving(struct shard *sh, struct sub *s, const struct letter *l)
{
    bool first = (l->flags & HOME_AGAIN) == 0;
    struct chan *ch = s->chan;
    if (first && l->arg[0] == HOME_OK) {
        s->home = (void *)(uintptr_t)l->arg[1];
        s->member = (void *)(uintptr_t)l->arg[2];
        s->left_joined = true;
    }
    ch->asked_count--;
    if (s->asked > 0) {
        ch->asked_count++;
        return;
    }
    if (s->left_joined) uncount(sh, s, s->abrupt);
    sub_free(sh, s);
    chan_release(sh, ch);
}

void chan_on_subscribed(struct shard *sh, const struct letter *l)
{
    struct sub *s = l->payload;
    struct chan *ch = s->chan;
    bool again = (l->flags & HOME_AGAIN) != 0;
    struct frame *success = NULL, *cached = NULL;
    if (l->arg[3] != 0) success = frame_borrow(sh, (void *)(uintptr_t)l->arg[3], l->from_shard);
    if (l->arg[4] != 0) cached = frame_borrow(sh, (void *)(uintptr_t)l->arg[4], l->from_shard);
    s->asked--;
    if (s->state == SUB_LEAVING) {
        settle_leaving(sh, s, l);
    } else {
        struct conn *c = &sh->conns[s->sock];
        ASSERT(c->gen == s->gen);
        if (!again) ch->asked_count--;
        if (l->arg[0] != HOME_OK) {
            if (!again) refuse(sh, c, s);
        } else if ((ch->kind == PUSHER_PRESENCE && success == NULL) ||
                   (l->arg[4] != 0 && cached == NULL)) {
            if (!again) join(sh, c, s, l);
            conn_kill_later(sh, c);      /* no memory to tell it: it must not think it is joined */
        } else {
            if (!again) join(sh, c, s, l);
            else fan_finish(sh, ch);     /* the list must not overtake events that it includes */
            if (!s->hidden || s->shown) chan_send_succeeded(sh, c, ch, success);
            if (ch->cache) send_cached(sh, c, ch, cached);
        }
    }
    frame_put(sh, &success);
    frame_put(sh, &cached);
}
