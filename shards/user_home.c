/* Users at their home shard: who watches them, and their end. */
#include "shards/user.h"

struct watch_entry {                   /* one watching socket; listed in home_extra.watchers */
    struct watch_entry *next, **link;
    struct home        *home;
    uint64_t            socket, index; /* arg1 and arg2 of MAIL_WATCH_EVENT */
    uint16_t            shard;
};

void user_on_watch(struct shard *sh, const struct letter *l)
{
    const struct watch *w = l->payload;
    struct slice name = slice_of(w->name, w->name_bytes);
    struct home *h = home_make(sh, w->user->app, name, PUSHER_USER, false);
    struct home_extra *x = h == NULL ? NULL : home_extra(sh, h);
    struct watch_entry *e = x == NULL ? NULL : heap_alloc(sh->heap, sizeof(*e));
    struct letter answer = {
        .kind = MAIL_WATCHED, .payload = l->payload,
        .arg = {h != NULL && h->subs_count > 0, (uintptr_t)e},
    };
    if (e != NULL) {
        *e = (struct watch_entry){
            .next = x->watchers, .link = &x->watchers, .home = h, .socket = l->arg[1],
            .index = l->arg[2], .shard = l->from_shard,
        };
        if (e->next != NULL) e->next->link = &e->next;
        x->watchers = e;
    } else {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
        if (h != NULL) home_release(sh, h);
    }
    shard_answer(sh, l->from_shard, &answer);
}

void user_on_unwatch(struct shard *sh, const struct letter *l)
{
    struct watch_entry *e = (void *)(uintptr_t)l->arg[0];
    struct home *h = e->home;
    *e->link = e->next;
    if (e->next != NULL) e->next->link = e->link;
    heap_free(sh->heap, e, sizeof(*e));
    home_release(sh, h);
}

void user_transition(struct shard *sh, struct home *h, bool online)
{
    metric_add(sh->metrics, METRIC_USERS, h->app, 0, online ? 1 : -1);
    if (h->extra == NULL) return;
    for (struct watch_entry *e = h->extra->watchers; e != NULL; e = e->next) {
        struct letter l = {.kind = MAIL_WATCH_EVENT, .arg = {online, e->socket, e->index}};
        shard_answer(sh, e->shard, &l);
    }
}

/* ---- ending a user's sockets ---- */

err_t user_end(struct shard *sh, struct op *op, uint32_t app, struct slice id, uint32_t code)
{
    static const char prefix[] = "#server-to-user-";
    char name[sizeof(prefix) + USER_ID_BYTES_MAX];
    ASSERT(id.bytes <= USER_ID_BYTES_MAX);
    memcpy(name, prefix, sizeof(prefix) - 1);
    memcpy(name + sizeof(prefix) - 1, id.ptr, id.bytes);
    struct slice own = slice_of(name, (uint32_t)sizeof(prefix) - 1 + id.bytes);
    struct pusher_channel kind = {.kind = PUSHER_USER};
    struct publish *p = publish_make(sh, app, own, &kind);
    if (p == NULL) return ERR_MEMORY;
    p->op = op;
    struct letter l = {.kind = MAIL_USER_END, .payload = p, .arg = {code}};
    err_t e = shard_ask(sh, shard_home(sh, app, own), &l);
    if (e != OK) publish_free(sh, p);
    return e;
}

void user_on_end_at_home(struct shard *sh, const struct letter *l)
{
    struct publish *p = l->payload;
    struct home *h = home_find(sh, p->app, slice_of(p->name, p->name_bytes));
    for (uint32_t i = 0; h != NULL && i < h->interests_count; i++) {
        struct letter end = {.kind = MAIL_END_USER, .arg = {h->interests[i].chan, l->arg[0]}};
        shard_answer(sh, h->interests[i].shard, &end);
    }
    struct letter answer = {.kind = MAIL_PUBLISHED, .payload = p, .flags = 1};
    shard_answer(sh, l->from_shard, &answer);
}

void user_on_end(struct shard *sh, const struct letter *l)
{
    const char *text = "You got disconnected by the app.";
    if (l->arg[1] == PUSHER_RECONNECT) text = "Force reconnect requested by the app.";
    if (l->arg[1] == PUSHER_OVER_CAPACITY) text = "Over capacity";   /* a channel lost a message */
    struct chan *ch = chan_by_handle(sh, l->arg[0]);
    while (ch != NULL && ch->subs != NULL) {
        struct conn *c = &sh->conns[ch->subs->sock];
        c->forced = true;
        if (c->state == CONN_WS) conn_fail(sh, c, (uint32_t)l->arg[1], text);
        else conn_detach(sh, c);         /* closing already, but still on the list */
        ch = chan_by_handle(sh, l->arg[0]);
    }
}
