/* What a home has answered: the socket is told, the subscription joins or ends, the next question
 * follows. */
#include "shards/chan_parts.h"

#include "shards/fan.h"
#include "shards/resume.h"
#include "shards/session_v2.h"
#include "shards/user.h"
#include "shards/want.h"

void chan_send_succeeded(struct shard *sh, struct conn *c, struct chan *ch, struct frame *given)
{
    struct frame *f = given;
    if (f == NULL && c->v2) {
        session_v2_tell(sh, c, "\"sockudo_internal:subscription_succeeded\"", chan_name(ch),
                        slice_str("\"{}\""));
        return;
    }
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
        conn_send(sh, c, c->v2 && cached->v2 != NULL ? cached->v2 : cached);
        return;
    }
    if (c->v2) {
        session_v2_tell(sh, c, "\"sockudo:cache_miss\"", chan_name(ch), slice_str("\"{}\""));
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

void chan_refuse(struct shard *sh, struct conn *c, struct sub *s, bool full)
{
    struct sub **at = &c->subs;
    while (*at != s) at = &(*at)->conn_next;
    *at = s->conn_next;
    c->subs_count--;
    if (c->resume != NULL) resume_left(sh, c, s);
    if (!c->v2) {
        session_refuse(sh, c, chan_name(s->chan), PUSHER_OVER_CAPACITY, "Over capacity", 403);
    }
    if (s->hidden) user_gone(sh, c);     /* the sign-in ends with it */
    if (s->asked > 0) {                  /* a repeated answer still refers to the sub */
        s->state = SUB_LEAVING;
        s->chan->asked_count++;
    } else {
        struct chan *ch = s->chan;
        chan_sub_free(sh, s);
        chan_release(sh, ch);
    }
    if (c->v2 && full) conn_error(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
    else if (c->v2) conn_fail(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
}

static void join(struct shard *sh, struct conn *c, struct sub *s, const struct letter *l)
{
    struct chan *ch = s->chan;
    s->state = SUB_JOINED;
    s->voice = chan_voice(s);
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
        chan_count_subs(sh, ch, METRIC_CHANNEL_SUBSCRIPTIONS_TOTAL, 1);
    }
}

/* The sub's socket has left in the meantime. first: the letter answers the join. */
static void settle_leaving(struct shard *sh, struct sub *s, const struct letter *l, bool first)
{
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
    if (s->left_joined) chan_uncount(sh, s, s->how);
    chan_sub_free(sh, s);
    chan_release(sh, ch);
}

/* A second rewind is put to the first only where the two meet: between them nothing was shown. */
static void keep_rewound(struct attach_mark *m, const struct attach *a)
{
    if (a->rewound_upto == 0 || a->head_epoch != m->head_epoch) return;
    if (m->rewound_upto == 0) {
        m->rewound_from = a->rewound_from;
        m->rewound_upto = a->rewound_upto;
    } else if (a->rewound_from <= m->rewound_upto && m->rewound_from <= a->rewound_upto) {
        m->rewound_from = u64_min(m->rewound_from, a->rewound_from);
        m->rewound_upto = u64_max(m->rewound_upto, a->rewound_upto);
    }
}

/* What of an attach is needed later. The first head stays: live frames have come since. Where a
 * position went along, all behind it has been sent, so that nothing of that is replayed again. */
static void keep_mark(struct shard *sh, struct conn *c, struct sub *s, const struct attach *a)
{
    if (!a->has_head && !a->has_attach_serial) return;
    if (s->mark == NULL) s->mark = heap_zalloc(sh->heap, sizeof(*s->mark));
    if (s->mark == NULL) {
        conn_kill_later(sh, c);
        return;
    }
    if (!s->mark->has_head) {
        s->mark->has_head = a->has_head;
        s->mark->head = a->recovered ? a->serial : a->head;
        s->mark->shown = a->shown;
        s->mark->head_epoch = a->head_epoch;
    }
    s->mark->has_attach_serial = a->has_attach_serial;
    s->mark->attach_serial = a->attach_serial;
    keep_rewound(s->mark, a);
}

/* The attach of a V2 subscribe has been answered and the socket has been told. */
static void attached(struct shard *sh, struct conn *c, struct sub *s)
{
    struct attach *a = s->attach;
    s->attach = a->next;
    keep_mark(sh, c, s, a);
    s->annotations = a->annotations;
    if (s->voice != VOICE_GATED) s->voice = chan_voice(s);
    if (!s->hidden || s->shown) want_annotation_summaries(sh, c, s->chan);
    resume_attached(sh, c, s, a);
    chan_attach_free(sh, a);
    chan_ask_next(sh, c, s);
}

bool chan_refuse_again(struct shard *sh, struct conn *c, const struct sub *s)
{
    if (s->v2 && s->hidden) {
        conn_fail(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
        return false;
    }
    conn_error(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
    return true;
}

static void refused_again(struct shard *sh, struct conn *c, struct sub *s)
{
    if (!s->v2) return;
    struct attach *a = s->attach;
    s->attach = a->next;
    chan_attach_free(sh, a);
    if (chan_refuse_again(sh, c, s)) chan_ask_next(sh, c, s);
}

/* Of a signed-in socket's own channel only what its client has asked for is told. The answer to the
 * sign-in serves for a subscribe that came meanwhile, unless that has a question of its own. */
static bool is_told(const struct sub *s, bool again)
{
    if (!s->hidden) return true;
    return s->shown && (again || s->attach == NULL || s->attach->next == NULL);
}

/* The socket is there still. */
static void tell(struct shard *sh, struct sub *s, const struct letter *l, struct frame *success,
                 struct frame *cached)
{
    bool again = (l->flags & HOME_AGAIN) != 0;
    struct chan *ch = s->chan;
    struct conn *c = &sh->conns[s->sock];
    ASSERT(c->gen == s->gen);
    if (!again) ch->asked_count--;
    if (l->arg[0] != HOME_OK) {
        if (again) refused_again(sh, c, s);
        else chan_refuse(sh, c, s, l->arg[0] == HOME_FULL);
        return;
    }
    if (again) fan_finish(sh, ch);       /* the list must not overtake events that it includes */
    else join(sh, c, s, l);
    if ((success == NULL && (l->arg[3] != 0 || ch->kind == PUSHER_PRESENCE)) ||
        (cached == NULL && l->arg[4] != 0)) {
        conn_kill_later(sh, c);          /* no memory to tell it: it must not think it is joined */
        return;
    }
    bool kept = again && s->voice == VOICE_GATED && !s->hidden;   /* behind what is kept back */
    if (is_told(s, again) && kept) resume_hold(sh, c, s, success);
    else if (is_told(s, again)) chan_send_succeeded(sh, c, ch, success);
    if (ch->cache) send_cached(sh, c, ch, cached);
    if (s->v2) attached(sh, c, s);
}

void chan_on_subscribed(struct shard *sh, const struct letter *l)
{
    struct sub *s = l->payload;
    struct frame *success = NULL, *cached = NULL;
    if (l->arg[3] != 0) success = frame_borrow(sh, (void *)(uintptr_t)l->arg[3], l->from_shard);
    if (success != NULL) success->asked = true;
    if (l->arg[4] != 0) cached = frame_borrow(sh, (void *)(uintptr_t)l->arg[4], l->from_shard);
    s->asked--;
    if (s->state == SUB_LEAVING) settle_leaving(sh, s, l, (l->flags & HOME_AGAIN) == 0);
    else tell(sh, s, l, success, cached);
    frame_put(sh, &success);
    frame_put(sh, &cached);
}

/* Replayed frames go out only while the resume that asked for them waits: later they would follow
 * younger ones. */
void chan_on_replayed(struct shard *sh, const struct letter *l)
{
    struct sub *s = l->payload;
    struct frame *blob = NULL;
    if (l->arg[0] != 0) blob = frame_borrow(sh, (void *)(uintptr_t)l->arg[0], l->from_shard);
    if (blob != NULL) blob->asked = true;
    s->asked--;
    if (s->state == SUB_LEAVING) {
        settle_leaving(sh, s, l, false);
    } else {
        struct conn *c = &sh->conns[s->sock];
        struct attach *a = s->attach;
        ASSERT(c->gen == s->gen);
        s->attach = a->next;
        if (blob == NULL && l->arg[0] != 0) conn_kill_later(sh, c);
        else if (c->resume != NULL) resume_replayed(sh, c, a, blob);
        chan_attach_free(sh, a);
        chan_ask_next(sh, c, s);
    }
    frame_put(sh, &blob);
}
