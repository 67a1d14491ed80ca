/* Publishes that the home builds the frames of: channels with memory, and what V2 publishers say
 * beside the data. */
#include "shards/stream_parts.h"

/* ---- the answer ---- */

void stream_publish_answer(struct shard *sh, const struct home *h, struct publish *p,
                           uint16_t from_shard, enum home_status status, const struct record *r)
{
    struct content *c = p->content;
    struct letter l = {.kind = MAIL_PUBLISHED, .payload = p, .arg = {status}};
    if (h != NULL) {
        l.arg[1] = h->subs_count;
        l.arg[2] = h->extra == NULL ? 0 : h->extra->members_count;
    }
    if (r != NULL) {
        c->versioned = r->kind == RECORD_CREATE && r->delivery > 0;
        c->delivery = c->create = r->delivery;
        c->history = r->history;
        c->time_ms = c->create_ms = r->time_ms;
    }
    shard_answer(sh, from_shard, &l);
}

static struct publish *publish_in(const struct letter *l)
{
    return (void *)(uintptr_t)l->arg[0];
}

/* ---- without a place in the order ---- */

/* Channels without memory, ephemeral messages: delivered as they come. False: refused. */
static bool pass(struct shard *sh, struct home *h, const struct letter *l)
{
    struct publish *p = publish_in(l);
    const struct publish asked = *p;
    struct record r = p->content->r;     /* its texts are the publish's */
    struct frame *f = NULL, *cached = NULL;
    if (h == NULL && asked.cache) {
        h = home_make(sh, asked.app, slice_of(p->name, p->name_bytes), asked.kind, true);
    }
    if (h == NULL) {
        stream_publish_answer(sh, NULL, p, l->from_shard, HOME_OK, &r);
        return true;
    }
    struct slice actor = p->content->actor;
    bool made = stream_frame_make(sh, h, NULL, &r, NULL, actor, NULL, &f);
    if (made && asked.cache) cached = stream_frame_cache(sh, h, &r, actor);
    if (asked.cache && cached == NULL) made = false;
    if (!made) {
        stream_publish_answer(sh, h, p, l->from_shard, HOME_NO_MEMORY, NULL);
    } else {
        stream_publish_answer(sh, h, p, l->from_shard, HOME_OK, &r);
        if (cached != NULL) home_cache_put(sh, h, cached);
        if (f != NULL) {
            home_fan(sh, h, f, asked.except_a, asked.except_b, asked.started_ns);
        }
    }
    frame_put(sh, &cached);
    frame_put(sh, &f);
    home_release(sh, h);
    return made;
}

/* ---- with one ---- */

enum repeat { REPEAT_NO, REPEAT_ANSWERED, REPEAT_WAITS, REPEAT_REFUSED };

/* The key was used before: the same content is the same message, another is refused; while the
 * first is in flight neither is said. */
static enum repeat check_receipt(struct shard *sh, struct stream *st, const struct letter *l)
{
    struct publish *p = publish_in(l);
    struct content *c = p->content;
    if (!c->has_key) return REPEAT_NO;
    const struct stream_receipt *k = stream_receipt_find(sh, st, c->r.key);
    if (k == NULL) return sh->re.now_ms < st->unsure_ms ? REPEAT_REFUSED : REPEAT_NO;
    if (k->pending) {
        return stream_wait_for(sh, st, l, k->delivery) ? REPEAT_WAITS : REPEAT_REFUSED;
    }
    if (memcmp(k->print, c->r.print, sizeof(k->print)) != 0) {
        stream_publish_answer(sh, st->home, p, l->from_shard, HOME_PRINT_DIFFERS, NULL);
        return REPEAT_ANSWERED;
    }
    struct record first = {
        .kind = st->versioned ? RECORD_CREATE : RECORD_PLAIN, .delivery = k->delivery,
        .history = k->history, .time_ms = k->time_ms,
    };
    c->duplicate = true;
    stream_publish_answer(sh, st->home, p, l->from_shard, HOME_OK, &first);
    return REPEAT_ANSWERED;
}

static enum home_status sequence(struct shard *sh, struct stream *st, const struct letter *l)
{
    struct publish *p = publish_in(l);
    struct content *c = p->content;
    struct record r = c->r;
    char id[V2_UUID_BYTES];
    if (c->bytes_count > STREAM_RECORD_BYTES_MAX) return HOME_TOO_LARGE;
    r.kind = st->versioned ? RECORD_CREATE : RECORD_PLAIN;
    if (r.message_id.ptr == NULL) {
        v2_uuid_write(id, rng_next(&sh->re.rng), rng_next(&sh->re.rng));
        r.message_id = slice_str(id);
    }
    if (!c->has_key) {
        memset(r.key, 0, sizeof(r.key));
        memset(r.print, 0, sizeof(r.print));
    }
    struct stream_receipt *k = NULL;
    if (c->has_key) {                    /* before the record: with relaxed it is applied at once */
        struct record will = r;
        will.delivery = st->next.delivery + 1;
        k = stream_receipt_add(sh, st, &will, true);
        if (k == NULL) return HOME_BUSY;
    }
    struct stream_item item = {.st = st, .publish = p, .from_shard = l->from_shard};
    if (!stream_sequence(sh, st, &r, &item)) {
        if (k != NULL) stream_receipt_drop(sh, k);
        return HOME_BUSY;
    }
    if (k != NULL) {
        k->history = r.history;
        k->time_ms = r.time_ms;
    }
    return HOME_OK;                      /* answered, or will be */
}

/* What is not stored, an ephemeral message or one on a channel without memory, is known by its key
 * for the key's lifetime, only here. */
static void pass_once(struct shard *sh, struct stream *st, const struct letter *l)
{
    struct stream_receipt *k = stream_receipt_add(sh, st, &publish_in(l)->content->r, false);
    if (k == NULL) {
        stream_publish_answer(sh, st->home, publish_in(l), l->from_shard, HOME_BUSY, NULL);
    } else if (!pass(sh, st->home, l)) {
        stream_receipt_drop(sh, k);      /* it is to be said again */
    }
}

static bool has_memory(const struct shard *sh, const struct publish *p, const struct home *h)
{
    struct conf_policy policy;
    const struct stream *st = h == NULL || h->extra == NULL ? NULL
                                                            : h->extra->streams[STREAM_MAIN];
    if (st != NULL) return st->history || st->policy->recovery;
    conf_policy_of(sh->conf, p->app, slice_of(p->name, p->name_bytes), &policy);
    return policy.history || policy.recovery;
}

static void publish_on(struct shard *sh, struct stream *st, const struct letter *l)
{
    struct publish *p = publish_in(l);
    enum home_status status = HOME_BUSY;
    if (st->state == STREAM_LOADING) {
        if (stream_wait_for(sh, st, l, 0)) return;
    } else {
        switch (check_receipt(sh, st, l)) {
        case REPEAT_ANSWERED:
        case REPEAT_WAITS: return;
        case REPEAT_REFUSED: break;
        case REPEAT_NO:
            if (p->content->ephemeral || !(st->history || st->policy->recovery)) {
                pass_once(sh, st, l);
                return;
            }
            status = sequence(sh, st, l);
            break;
        }
    }
    if (status != HOME_OK) {
        stream_publish_answer(sh, st->home, p, l->from_shard, status, NULL);
    }
}

void stream_on_publish(struct shard *sh, const struct letter *l)
{
    struct publish *p = publish_in(l);
    struct slice name = slice_of(p->name, p->name_bytes);
    struct home *h = home_find(sh, p->app, name);
    ASSERT(l->payload == NULL);
    bool memory = has_memory(sh, p, h);
    if (!p->content->has_key && (!memory || p->content->ephemeral)) {
        (void)pass(sh, h, l);
        return;
    }
    if (h == NULL) h = home_make(sh, p->app, name, p->kind, p->cache);
    struct stream *st = h == NULL ? NULL : stream_of(sh, h, STREAM_MAIN);
    if (st == NULL) {
        stream_publish_answer(sh, h, p, l->from_shard, h == NULL ? HOME_NO_MEMORY : HOME_BUSY,
                              NULL);
        if (h != NULL) home_release(sh, h);
        return;
    }
    publish_on(sh, st, l);
}
