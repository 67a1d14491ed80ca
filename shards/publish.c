/* The straight line of a publish: made and posted where it was received, sequenced and fanned out
 * by the channel's home. */
#include "shards/home.h"

#include "shards/api.h"
#include "shards/ask.h"
#include "shards/session.h"
#include "shards/stream.h"

struct publish *publish_make(struct shard *sh, uint32_t app, struct slice name,
                             const struct pusher_channel *kind)
{
    struct publish *p = heap_zalloc(sh->heap, (uint32_t)sizeof(*p) + name.bytes);
    if (p == NULL) return NULL;
    p->app = app;
    p->kind = (uint8_t)kind->kind;
    p->started_ns = sh->re.now_ns;
    p->name_bytes = name.bytes;
    memcpy(p->name, name.ptr, name.bytes);
    return p;
}

void publish_free(struct shard *sh, struct publish *p)
{
    if (p->content != NULL) {
        heap_free(sh->heap, p->content,
                  (uint32_t)sizeof(*p->content) + p->content->bytes_count);
    }
    heap_free(sh->heap, p, (uint32_t)sizeof(*p) + p->name_bytes);
}

bool publish_room(struct shard *sh, const uint32_t counts[REACTOR_SHARDS_MAX])
{
    for (uint32_t i = 0; i < sh->server->shards_count; i++) {
        uint64_t backlog = __atomic_load_n(&sh->server->shards[i].backlog, __ATOMIC_RELAXED);
        if (backlog <= sh->conf->fanout_backlog) continue;
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_FANOUT_BACKLOG, 1);
        return false;
    }
    for (uint16_t to = 0; to < sh->server->shards_count; to++) {
        const struct shard *home = &sh->server->shards[to];
        if (counts[to] > 0 && heap_used_bytes(home->heap) >= home->heap_mark) {
            metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
            return false;                /* its home might not take it: all or nothing */
        }
        if (counts[to] > 0 && mail_room(reactor_box(&sh->re, to)) < counts[to]) {
            metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_MAILBOX, 1);
            return false;
        }
    }
    return true;
}

void publish_post(struct shard *sh, struct publish *p, struct frame *f)
{
    struct letter l = {.kind = MAIL_PUBLISH, .payload = f, .arg = {(uintptr_t)p}};
    shard_answer(sh, shard_home(sh, p->app, slice_of(p->name, p->name_bytes)), &l);
}

/* The answer is posted before the fan-out: the place in the order is fixed by then, and the backend
 * can send its next event while the frames of this one leave. */
void publish_on_publish(struct shard *sh, const struct letter *l)
{
    struct publish *p = (void *)(uintptr_t)l->arg[0];
    if (p->content != NULL) {
        stream_on_publish(sh, l);
        return;
    }
    const struct publish asked = *p;     /* p is its shard's again once the answer is posted */
    struct slice name = slice_of(p->name, p->name_bytes);
    struct letter answer = {.kind = MAIL_PUBLISHED, .payload = p};
    struct frame *f = frame_borrow(sh, l->payload, l->from_shard);
    struct home *h = home_find(sh, asked.app, name);
    if (f == NULL) {
        answer.arg[0] = HOME_NO_MEMORY;
    } else {
        if (h == NULL && asked.cache) h = home_make(sh, asked.app, name, asked.kind, true);
        if (h != NULL && asked.cache) home_cache_put(sh, h, f);
        if (h != NULL) {
            answer.arg[1] = h->subs_count;
            answer.arg[2] = h->extra == NULL ? 0 : h->extra->members_count;
        }
    }
    shard_answer(sh, l->from_shard, &answer);
    if (h != NULL && f != NULL) {
        home_fan(sh, h, f, asked.except_a, asked.except_b, asked.started_ns);
        home_release(sh, h);
    }
    frame_put(sh, &f);
}

void publish_on_published(struct shard *sh, const struct letter *l)
{
    struct publish *p = l->payload;
    if (l->flags != 0) {                 /* a user's sockets have been told to end */
        struct letter told = {.kind = MAIL_ASKED, .payload = p->op, .arg = {ASK_YES}};
        if (p->op != NULL) ask_on_asked(sh, &told);
    } else if (p->op != NULL) {
        struct letter told = *l;
        told.payload = p->op;
        told.arg[0] = p->index;
        told.arg[1] = l->arg[0];
        told.arg[2] = l->arg[1];
        told.arg[3] = l->arg[2];
        told.arg[4] = (uintptr_t)p->content;
        api_on_published(sh, &told);
    }
    struct conn *c = p->op == NULL && l->flags == 0 && l->arg[0] != HOME_OK
                         ? conn_get(sh, p->sock, p->gen) : NULL;
    if (c != NULL && p->gen != 0) {      /* a client event that its home could not take */
        session_busy(sh, c);
    }
    publish_free(sh, p);
}
