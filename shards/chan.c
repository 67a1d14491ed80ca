#include "shards/chan_parts.h"

#include "shards/fan.h"
#include "shards/resume.h"

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

void chan_release(struct shard *sh, struct chan *ch)
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

void chan_count_subs(struct shard *sh, const struct chan *ch, uint32_t series, int64_t n)
{
    struct pusher_channel kind = {.kind = (enum pusher_kind)ch->kind, .cache = ch->cache};
    metric_add(sh->metrics, series, ch->app, pusher_type_label(&kind), n);
}

/* ---- questions to the home ---- */

struct attach *chan_attach_make(struct shard *sh, const struct conn *c)
{
    struct attach *a = heap_zalloc(sh->heap, sizeof(*a));
    if (a == NULL) return NULL;
    a->v2 = c->v2;
    a->full = c->full;
    return a;
}

void chan_attach_free(struct shard *sh, struct attach *a)
{
    heap_free(sh->heap, a, sizeof(*a));
}

static uint64_t flags_of(const struct sub *s)
{
    return (s->v2 ? HOME_V2 : 0u) | (s->full ? HOME_FULL_MODE : 0u);
}

/* Post the question that is due. */
static bool post(struct shard *sh, struct sub *s, bool again)
{
    struct letter l = {
        .kind = MAIL_SUBSCRIBE, .payload = s,
        .arg = {s->chan->handle, flags_of(s) | (again ? HOME_AGAIN : 0u)},
    };
    if (s->attach != NULL && s->attach->replay) l.kind = MAIL_REPLAY;
    if (s->asked == UINT8_MAX || shard_ask(sh, s->chan->home_shard, &l) != OK) return false;
    s->asked++;
    return true;
}

static bool has_room(struct shard *sh, uint16_t home)
{
    return mail_room(reactor_box(&sh->re, home)) > 0;
}

/* The home reads the attach of the question under way: another one waits for its turn. */
static bool line_up(struct shard *sh, struct sub *s, struct attach *a)
{
    uint32_t waiting = 0;
    struct attach **at = &s->attach;
    for (; *at != NULL; at = &(*at)->next) waiting++;
    if (waiting >= CHAN_QUESTIONS_MAX) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_QUESTIONS, 1);
        return false;
    }
    *at = a;
    if (waiting > 0 || post(sh, s, a->again)) return true;
    *at = NULL;
    return false;
}

static void hold(struct shard *sh, struct sub *s)
{
    struct chan_line *line = &sh->held[s->chan->home_shard];
    s->state = SUB_HELD;
    s->held_ms = sh->re.now_ms;
    s->chan_next = NULL;
    s->chan_link = line->last == NULL ? &line->first : &line->last->chan_next;
    *s->chan_link = line->last = s;
    sh->held_count++;
}

static void unhold(struct shard *sh, struct sub *s)
{
    struct chan_line *line = &sh->held[s->chan->home_shard];
    *s->chan_link = s->chan_next;
    if (s->chan_next != NULL) s->chan_next->chan_link = s->chan_link;
    else if (s->chan_link == &line->first) line->last = NULL;
    else line->last = CONTAINER_OF(s->chan_link, struct sub, chan_next);
    s->chan_next = NULL;
    s->state = SUB_ASKED;
    sh->held_count--;
}

err_t chan_join(struct shard *sh, struct conn *c, struct slice name,
                const struct pusher_channel *kind, struct presence *presence,
                struct attach *attach, bool hidden)
{
    struct chan *ch = chan_find(sh, c->app, name);
    bool made = ch == NULL;
    ASSERT((attach != NULL) == c->v2);
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
    s->attach = attach;
    s->hidden = hidden;
    s->v2 = c->v2;
    s->full = c->full;
    s->state = SUB_ASKED;
    if (s->v2 || !has_room(sh, ch->home_shard) || !post(sh, s, false)) hold(sh, s);
    s->conn_next = c->subs;
    c->subs = s;
    c->subs_count++;
    ch->asked_count++;
    return OK;
}

void chan_join_again(struct shard *sh, struct sub *s, struct attach *attach)
{
    bool asked;
    if (s->state == SUB_HELD && attach == NULL) return;   /* one answer serves for both */
    if (attach != NULL) {
        attach->again = true;
        asked = line_up(sh, s, attach);
        if (!asked) chan_attach_free(sh, attach);
    } else {
        asked = post(sh, s, true);
    }
    if (!asked) chan_refuse_again(sh, &sh->conns[s->sock], s);
}

bool chan_replay(struct shard *sh, struct sub *s, struct attach *attach)
{
    attach->replay = true;
    attach->upto = s->mark == NULL ? 0 : s->mark->head;
    attach->head_epoch = s->mark == NULL ? 0 : s->mark->head_epoch;
    attach->rewound_from = s->mark == NULL ? 0 : s->mark->rewound_from;
    attach->rewound_upto = s->mark == NULL ? 0 : s->mark->rewound_upto;
    attach->shown = s->chan->shown_at > s->joined ? s->chan->shown
                    : s->mark == NULL             ? 0
                                                  : s->mark->shown;
    return line_up(sh, s, attach);
}

void chan_ask_next(struct shard *sh, struct conn *c, struct sub *s)
{
    while (s->asked == 0 && s->attach != NULL && !post(sh, s, s->attach->again)) {
        struct attach *a = s->attach;
        bool replay = a->replay;
        s->attach = a->next;
        if (replay) resume_dropped(sh, c, a);
        chan_attach_free(sh, a);
        if (!replay && !chan_refuse_again(sh, c, s)) return;
    }
}

uint8_t chan_voice(const struct sub *s)
{
    if (!s->v2) return VOICE_V1;
    return (uint8_t)((s->full ? VOICE_FULL : VOICE_V2) | (s->annotations ? VOICE_ANNOTATIONS : 0));
}

void chan_sub_free(struct shard *sh, struct sub *s)
{
    if (s->presence != NULL) {
        heap_free(sh->heap, s->presence,
                  (uint32_t)sizeof(*s->presence) + s->presence->bytes_count);
    }
    while (s->attach != NULL) {
        struct attach *a = s->attach;
        s->attach = a->next;
        chan_attach_free(sh, a);
    }
    heap_free(sh->heap, s->mark, sizeof(*s->mark));
    heap_free(sh->heap, s, sizeof(*s));
}

void chan_uncount(struct shard *sh, struct sub *s, uint8_t how)
{
    struct letter l = {
        .kind = MAIL_UNSUBSCRIBE,
        .arg = {(uintptr_t)s->home, (uintptr_t)s->member, flags_of(s) | how},
    };
    if (s->presence != NULL) {
        l.arg[3] = s->presence->socket_a;
        l.arg[4] = s->presence->socket_b;
    }
    shard_answer(sh, s->chan->home_shard, &l);
}

static void unlink_joined(struct sub *s)
{
    fan_forget(s->chan, s);
    *s->chan_link = s->chan_next;
    if (s->chan_next != NULL) s->chan_next->chan_link = s->chan_link;
    s->chan->joined_count--;
}

/* A home that is behind is asked when it has caught up: a refused subscribe would leave its client
 * on an open socket without the channel. */
void chan_ask_held(struct shard *sh)
{
    for (uint16_t home = 0; home < sh->server->shards_count; home++) {
        struct chan_line *line = &sh->held[home];
        while (line->first != NULL && has_room(sh, home) && post(sh, line->first, false)) {
            unhold(sh, line->first);
        }
    }
    if (sh->held_count == 0 || timer_armed(&sh->held_again)) return;
    sh->held_again.kind = SHARD_TIMER_HELD;
    timer_arm(&sh->re.wheel, &sh->held_again, sh->re.now_ms + 1);
}

void chan_on_held_timer(struct shard *sh)
{
    chan_ask_held(sh);
    for (uint16_t home = 0; home < sh->server->shards_count; home++) {
        struct chan_line *line = &sh->held[home];
        while (line->first != NULL && sh->re.now_ms - line->first->held_ms >= CHAN_HELD_MS) {
            struct sub *s = line->first;
            metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_MAILBOX, 1);
            unhold(sh, s);
            s->chan->asked_count--;
            chan_refuse(sh, &sh->conns[s->sock], s, false);
        }
    }
}

void chan_leave(struct shard *sh, struct conn *c, struct sub *s, uint8_t how)
{
    struct chan *ch = s->chan;
    struct sub **at = &c->subs;
    while (*at != s) at = &(*at)->conn_next;
    *at = s->conn_next;
    c->subs_count--;
    if (c->resume != NULL) resume_left(sh, c, s);
    if (s->state == SUB_HELD) {              /* nobody has heard of it */
        unhold(sh, s);
        ch->asked_count--;
        chan_sub_free(sh, s);
        chan_release(sh, ch);
        return;
    }
    if (s->state == SUB_JOINED) {
        unlink_joined(s);
        if (!s->hidden) chan_count_subs(sh, ch, METRIC_CHANNEL_UNSUBSCRIPTIONS_TOTAL, 1);
        if (s->asked == 0) {
            chan_uncount(sh, s, how);
            chan_sub_free(sh, s);
            chan_release(sh, ch);
            return;
        }
        ch->asked_count++;               /* a repeated answer still refers to the sub */
    }
    s->left_joined = s->state == SUB_JOINED;
    s->state = SUB_LEAVING;
    s->how = how;
}

void chan_leave_all(struct shard *sh, struct conn *c, uint8_t how)
{
    while (c->subs != NULL) chan_leave(sh, c, c->subs, how);
}
