/* At homes: what channels there are, what one of them holds, who is on it.
 *
 * A list of channels is made in bounded steps. Between two steps it stands on the entry to visit
 * next, which is pinned: a pinned home stays on its app's list even when nothing else holds it.
 * Entries that come meanwhile are put in front and may be missed, as if they had come later. */
#include "shards/api_parts.h"
#include "shards/home.h"

enum { TURN_VISITS = 4096, STEP_VISITS = 512, FIRST_PIECE_BYTES = 2048,
       LISTS_PINS_MAX = UINT16_MAX / 2 };

struct out {                             /* where pieces of one answer go */
    struct op              *op;          /* lent by the asking shard, as the query */
    const struct api_query *query;
    struct api_piece       *piece;       /* being filled; NULL at first */
    uint16_t                to;
    bool                    sent;        /* a piece has left: more are to be expected */
};

struct api_list_job {
    struct api_list_job *next;
    struct home         *at;             /* pinned */
    struct out           out;
    struct api_text      entry;          /* reused for every entry */
};

/* ---- pieces ---- */

static void piece_free(struct shard *sh, struct api_piece *p)
{
    if (p != NULL) heap_free(sh->heap, p, (uint32_t)sizeof(*p) + p->room);
}

static void send(struct shard *sh, struct out *o, enum api_listed how)
{
    struct letter l = {
        .kind = MAIL_LISTED, .payload = o->op, .arg = {(uintptr_t)o->piece, how},
    };
    o->piece = NULL;
    o->sent = true;
    shard_answer(sh, o->to, &l);
}

/* The last word; nothing of the query or the op is touched after it. */
static void end(struct shard *sh, struct out *o, enum api_listed how)
{
    if (how != API_LISTED_LAST) {
        piece_free(sh, o->piece);
        o->piece = NULL;
    }
    send(sh, o, how);
}

static bool append(struct shard *sh, struct out *o, struct slice text)
{
    if (o->piece != NULL && o->piece->room - o->piece->bytes < text.bytes) {
        send(sh, o, API_LISTED_MORE);
    }
    if (o->piece == NULL) {
        uint32_t room = u32_max(o->sent ? API_PIECE_BYTES : FIRST_PIECE_BYTES, text.bytes);
        o->piece = heap_alloc(sh->heap, (uint32_t)sizeof(*o->piece) + room);
        if (o->piece == NULL) return false;
        *o->piece = (struct api_piece){.room = room, .shard = sh->id};
    }
    memcpy(o->piece->data + o->piece->bytes, text.ptr, text.bytes);
    o->piece->bytes += text.bytes;
    return true;
}

void api_on_list_home(struct shard *sh, const struct letter *l)
{
    piece_free(sh, l->payload);
}

/* ---- one channel ---- */

static uint32_t users_of(const struct home *h)
{
    return h == NULL || h->extra == NULL ? 0 : h->extra->members_count;
}

static void write_cached(struct shard *sh, struct api_text *t, struct home *h)
{
    const struct frame *f = home_cached(sh, h);
    if (f == NULL) return;
    api_text_str(t, ",\"cache\":{\"data\":");
    api_text_quote(t, pusher_payload(slice_of(f->bytes, f->bytes_count)));
    api_text_str(t, ",\"ttl\":");
    api_text_number(t, (h->extra->cached_until_ms - sh->re.now_ms + 999) / 1000);
    api_text_str(t, "}");
}

static void list_channel(struct shard *sh, struct out *o)
{
    const struct api_query *q = o->query;
    struct home *h = home_find(sh, q->app, q->name);
    struct api_text t = {.heap = sh->heap};
    uint32_t subs = h == NULL ? 0 : h->subs_count;
    bool presence = slice_starts(q->name, "presence-");
    api_text_str(&t, subs > 0 ? "{\"occupied\":true" : "{\"occupied\":false");
    if (q->info & (API_INFO_SUBSCRIPTIONS | (presence ? API_INFO_USERS : 0))) {
        api_text_str(&t, ",");
        api_info_write(&t, q->info, presence, users_of(h), subs);
    }
    if (h != NULL && h->cache && (q->info & API_INFO_CACHE)) write_cached(sh, &t, h);
    api_text_str(&t, "}");
    bool done = !t.failed && append(sh, o, api_text_slice(&t));
    end(sh, o, done ? API_LISTED_LAST : API_LISTED_NO_MEMORY);
    api_text_free(&t);
    if (h != NULL) home_release(sh, h);  /* an expired event may have been all that held it */
}

/* Members are walked in one go, as for every subscriber that joins (presence.c). */
static void list_users(struct shard *sh, struct out *o)
{
    struct home *h = home_find(sh, o->query->app, o->query->name);
    struct api_text t = {.heap = sh->heap};
    bool done = true;
    const struct member *m = h == NULL || h->extra == NULL ? NULL : h->extra->members;
    for (; m != NULL && done; m = m->next) {
        t.bytes = 0;
        api_text_str(&t, "{\"id\":");
        api_text_quote(&t, member_id(m));
        api_text_str(&t, "},");
        done = !t.failed && append(sh, o, api_text_slice(&t));
    }
    end(sh, o, done ? API_LISTED_LAST : API_LISTED_NO_MEMORY);
    api_text_free(&t);
}

/* ---- all channels, step by step ---- */

/* The entry of one channel; an empty text when it is left out. */
static void write_entry(struct api_text *t, const struct api_query *q, const struct home *h)
{
    t->bytes = 0;
    api_text_quote(t, home_name(h));
    api_text_str(t, ":{");
    bool any = api_info_write(t, q->info, h->kind == PUSHER_PRESENCE, users_of(h), h->subs_count);
    if ((q->info & API_INFO_GIVEN) && !any) {
        t->bytes = 0;
        return;
    }
    api_text_str(t, "},");
}

/* API_LISTED_MORE: go on. */
static enum api_listed visit(struct shard *sh, struct api_list_job *job, const struct home *h)
{
    const struct api_query *q = job->out.query;
    struct slice name = home_name(h);
    if (h->subs_count == 0 || h->kind == PUSHER_USER) return API_LISTED_MORE;
    if (name.bytes < q->name.bytes ||
        (q->name.bytes > 0 && memcmp(name.ptr, q->name.ptr, q->name.bytes) != 0)) {
        return API_LISTED_MORE;
    }
    if ((q->info & API_INFO_USERS) && h->kind != PUSHER_PRESENCE) return API_LISTED_NOT_PRESENCE;
    write_entry(&job->entry, q, h);
    if (job->entry.failed) return API_LISTED_NO_MEMORY;
    if (job->entry.bytes == 0) return API_LISTED_MORE;
    return append(sh, &job->out, api_text_slice(&job->entry)) ? API_LISTED_MORE
                                                              : API_LISTED_NO_MEMORY;
}

static bool pin(struct home *h)
{
    if (h == NULL) return true;
    if (h->pins >= LISTS_PINS_MAX) return false;     /* the rest is for streams and attaches */
    h->pins++;
    return true;
}

static void unpin(struct shard *sh, struct home *h)
{
    ASSERT(h->pins > 0);
    h->pins--;
    home_release(sh, h);
}

/* Up to STEP_VISITS entries. True when the job has ended. */
static bool step(struct shard *sh, struct api_list_job *job)
{
    enum api_listed how = API_LISTED_MORE;
    for (uint32_t i = 0; i < STEP_VISITS && job->at != NULL && how == API_LISTED_MORE; i++) {
        struct home *h = job->at, *next = h->app_next;
        how = visit(sh, job, h);
        job->at = pin(next) ? next : NULL;
        if (next != NULL && job->at == NULL) how = API_LISTED_NO_MEMORY;
        unpin(sh, h);
    }
    if (how == API_LISTED_MORE && job->at != NULL) return false;
    if (job->at != NULL) unpin(sh, job->at);
    end(sh, &job->out, how == API_LISTED_MORE ? API_LISTED_LAST : how);
    api_text_free(&job->entry);
    heap_free(sh->heap, job, sizeof(*job));
    return true;
}

static void enqueue(struct shard *sh, struct api_list_job *job)
{
    job->next = NULL;
    if (sh->lists_last == NULL) sh->lists_first = job;
    else sh->lists_last->next = job;
    sh->lists_last = job;
}

bool api_list_work(struct shard *sh)
{
    for (uint32_t left = TURN_VISITS / STEP_VISITS; left > 0 && sh->lists_first != NULL; left--) {
        struct api_list_job *job = sh->lists_first;
        sh->lists_first = job->next;
        if (sh->lists_first == NULL) sh->lists_last = NULL;
        if (!step(sh, job)) enqueue(sh, job);    /* to the back: lists take turns */
    }
    return sh->lists_first != NULL;
}

static void list_channels(struct shard *sh, struct out *o)
{
    struct home *at = sh->homes_of_app[o->query->app];
    if (at == NULL) {
        end(sh, o, API_LISTED_LAST);
        return;
    }
    struct api_list_job *job = heap_zalloc(sh->heap, sizeof(*job));
    if (job == NULL || !pin(at)) {
        heap_free(sh->heap, job, sizeof(*job));
        end(sh, o, API_LISTED_NO_MEMORY);
        return;
    }
    job->at = at;
    job->out = *o;
    job->entry.heap = sh->heap;
    enqueue(sh, job);
}

void api_on_list(struct shard *sh, const struct letter *l)
{
    struct out o = {
        .op = l->payload, .query = (void *)(uintptr_t)l->arg[0], .to = l->from_shard,
    };
    if (o.query->route == API_CHANNELS) list_channels(sh, &o);
    else if (o.query->route == API_CHANNEL) list_channel(sh, &o);
    else list_users(sh, &o);
}
