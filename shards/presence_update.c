#include "shards/presence_update.h"

#include "proto/v2.h"
#include "shards/presence_log.h"

enum { WINDOW_MS = 1000 };

static uint32_t news_bytes(const struct member_news *n)
{
    return (uint32_t)sizeof(*n) + n->info_bytes;
}

/* ---- the socket's shard ---- */

static void update_free(struct shard *sh, struct presence_update *u)
{
    heap_free(sh->heap, u, (uint32_t)sizeof(*u) + u->info_bytes);
}

bool presence_update_ask(struct shard *sh, struct conn *c, const struct sub *s,
                         const struct json_value *info, uint32_t info_bytes)
{
    ASSERT(s->state == SUB_JOINED && s->member != NULL);
    ASSERT(info_bytes <= PRESENCE_UPDATE_BYTES_MAX);
    struct presence_update *u = heap_alloc(sh->heap, (uint32_t)sizeof(*u) + info_bytes);
    if (u == NULL) return false;
    *u = (struct presence_update){
        .sock = conn_sock(sh, c), .gen = c->gen, .socket_a = c->socket_a,
        .socket_b = c->socket_b, .info_bytes = info_bytes,
    };
    uint32_t written = json_compact(info, u->info);
    ASSERT(written == info_bytes);
    struct letter l = {
        .kind = MAIL_PRESENCE, .payload = u, .arg = {(uintptr_t)s->home, (uintptr_t)s->member},
    };
    if (shard_ask(sh, s->chan->home_shard, &l) == OK) return true;
    update_free(sh, u);
    return false;
}

void presence_update_done(struct shard *sh, const struct letter *l)
{
    struct presence_update *u = l->payload;
    struct conn *c = conn_get(sh, u->sock, u->gen);
    if (c != NULL && u->status == PRESENCE_TOO_OFTEN) {
        conn_error(sh, c, PUSHER_CLIENT_EVENT, "presence_update rate limit exceeded");
    } else if (c != NULL && u->status == PRESENCE_NO_MEMORY) {
        conn_error(sh, c, PUSHER_GENERIC, "presence_update failed: server is busy, try again");
    }
    update_free(sh, u);
}

/* ---- the home ---- */

void presence_update_forget(struct shard *sh, struct member *m)
{
    if (m->news != NULL) heap_free(sh->heap, m->news, news_bytes(m->news));
    m->news = NULL;
}

static bool too_often(struct shard *sh, const struct member *m)
{
    const struct member_news *n = m->news;
    return n != NULL && sh->re.now_ms - n->from_ms < WINDOW_MS &&
           n->count >= sh->conf->presence_update_rate_limit_per_member_per_second;
}

static struct member_news *news_make(struct shard *sh, const struct member *m,
                                     const struct presence_update *u)
{
    const struct member_news *old = m->news;
    struct member_news *n = heap_alloc(sh->heap, (uint32_t)sizeof(*n) + u->info_bytes);
    if (n == NULL) return NULL;
    bool going_on = old != NULL && sh->re.now_ms - old->from_ms < WINDOW_MS;
    n->from_ms = going_on ? old->from_ms : sh->re.now_ms;
    n->count = going_on ? old->count + 1 : 1;
    n->info_bytes = u->info_bytes;
    memcpy(n->info, u->info, u->info_bytes);
    return n;
}

/* {"user_id":..,"user_info":..} to every V2 subscriber, the member's own sockets included. */
static struct frame *news_frame(struct shard *sh, const struct member *m, struct slice info)
{
    static const char head[] = "{\"user_id\":", middle[] = ",\"user_info\":";
    struct slice id = member_id_json(m);
    uint32_t room = (uint32_t)(sizeof(head) + sizeof(middle)) + id.bytes + info.bytes;
    uint8_t *text = heap_alloc(sh->heap, room);
    if (text == NULL) return NULL;
    uint8_t *at = text;
    const struct slice parts[] = {slice_str(head), id, slice_str(middle), info, slice_str("}")};
    for (uint32_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        memcpy(at, parts[i].ptr, parts[i].bytes);
        at += parts[i].bytes;
    }
    struct slice data = slice_of(text, (uint32_t)(at - text));
    struct v2_out o = {
        .event_json = slice_str("\"sockudo_internal:presence_update\""),
        .channel = home_name(m->home),
    };
    struct frame *f = frame_make(sh, v2_event_text_bytes(&o, data));
    if (f != NULL) {
        f->bytes_count = v2_event_text_write(&o, data, frame_room(f));
        f->v2_only = true;
    }
    heap_free(sh->heap, text, room);
    return f;
}

static enum presence_update_status update(struct shard *sh, struct home *h, struct member *m,
                                          const struct presence_update *u)
{
    if (too_often(sh, m)) return PRESENCE_TOO_OFTEN;
    struct member_news *n = news_make(sh, m, u);
    struct frame *f = n == NULL ? NULL : news_frame(sh, m, slice_of(u->info, u->info_bytes));
    if (f == NULL) {
        if (n != NULL) heap_free(sh->heap, n, news_bytes(n));
        return PRESENCE_NO_MEMORY;
    }
    presence_update_forget(sh, m);
    m->news = n;
    struct presence_edge by = {PRESENCE_LOG_JOIN, u->socket_a, u->socket_b};
    presence_log(sh, h, m, PRESENCE_LOG_UPDATED, &by);
    home_fan(sh, h, f, 0, 0, 0);
    frame_put(sh, &f);
    return PRESENCE_UPDATED;
}

void presence_update_at_home(struct shard *sh, const struct letter *l)
{
    struct presence_update *u = l->payload;
    struct letter answer = {.kind = MAIL_PRESENCE_DONE, .payload = u};
    u->status = (uint8_t)update(sh, (void *)(uintptr_t)l->arg[0], (void *)(uintptr_t)l->arg[1], u);
    shard_answer(sh, l->from_shard, &answer);
}
