#include "shards/presence_log_parts.h"

#include "proto/put.h"

enum { ROOM_BUCKETS_MAX = 1 << 16, REFUSALS_PER_TICK = 4096 };

static const char *const event_names[] = {
    [PRESENCE_LOG_ADDED] = "\"member_added\"", [PRESENCE_LOG_UPDATED] = "\"member_updated\"",
    [PRESENCE_LOG_REMOVED] = "\"member_removed\"",
};
static const char *const cause_names[] = {
    [PRESENCE_LOG_JOIN] = "join", [PRESENCE_LOG_DISCONNECT] = "disconnect",
    [PRESENCE_LOG_TIMEOUT] = "timeout", [PRESENCE_LOG_FORCED] = "forced_disconnect",
    [PRESENCE_LOG_ORPHAN] = "orphan_cleanup",
};

/* ---- opening and closing ---- */

err_t presence_log_open(struct shard *sh)
{
    struct presence_book *b = heap_zalloc(sh->heap, sizeof(*b));
    if (b == NULL) return ERR_MEMORY;
    sh->presence_log = b;
    err_t e = presence_orphan_open(b);
    return e == OK ? table_open(&b->rooms, ROOM_BUCKETS_MAX) : e;
}

static void pending_free(struct shard *sh, struct pending *p)
{
    sh->presence_log->pending_count--;
    heap_free(sh->heap, p, (uint32_t)sizeof(*p) + p->name_bytes + p->user_bytes + p->data_bytes);
}

static void room_free(struct shard *sh, struct room *r)
{
    while (r->first != NULL) {
        struct pending *p = r->first;
        r->first = p->next;
        pending_free(sh, p);
    }
    table_del(&sh->presence_log->rooms, &r->node);
    heap_free(sh->heap, r, (uint32_t)sizeof(*r) + r->name_bytes);
}

void presence_log_close(struct shard *sh)
{
    struct presence_book *b = sh->presence_log;
    if (b == NULL) return;
    presence_orphan_close(sh);
    for (uint32_t i = 0; i < b->rooms.buckets_count; i++) {
        while (b->rooms.buckets[i] != NULL) {
            room_free(sh, CONTAINER_OF(b->rooms.buckets[i], struct room, node));
        }
    }
    table_close(&b->rooms);
    heap_free(sh->heap, b, sizeof(*b));
    sh->presence_log = NULL;
}

/* ---- channels whose events wait, or are lost ---- */

static struct slice pending_name(const struct pending *p)
{
    return slice_of(p->bytes, p->name_bytes);
}

static struct room *room_find(const struct shard *sh, uint32_t app, struct slice name)
{
    struct presence_book *b = sh->presence_log;
    struct table_node *n = table_find(&b->rooms, hash_table(sh->server->table_seed, app, name));
    for (; n != NULL; n = table_find_next(n)) {
        struct room *r = CONTAINER_OF(n, struct room, node);
        if (r->app == app && slice_equal(slice_of(r->name, r->name_bytes), name)) return r;
    }
    return NULL;
}

/* Found or made; NULL at the heap's bound. */
static struct room *room_get(struct shard *sh, uint32_t app, struct slice name)
{
    struct room *r = room_find(sh, app, name);
    if (r != NULL) return r;
    r = heap_zalloc(sh->heap, (uint32_t)sizeof(*r) + name.bytes);
    if (r == NULL) return NULL;
    r->app = app;
    r->name_bytes = name.bytes;
    memcpy(r->name, name.ptr, name.bytes);
    table_put(&sh->presence_log->rooms, &r->node,
              hash_table(sh->server->table_seed, app, name));
    return r;
}

static void room_list(struct presence_book *b, struct room *r)
{
    r->next = NULL;
    r->before = b->last;
    if (b->last != NULL) b->last->next = r;
    else b->first = r;
    b->last = r;
}

static void room_unlist(struct presence_book *b, struct room *r)
{
    if (r->before != NULL) r->before->next = r->next;
    else b->first = r->next;
    if (r->next != NULL) r->next->before = r->before;
    else b->last = r->before;
}

static void lose(struct shard *sh, uint32_t app, struct slice name)
{
    struct room *r = room_get(sh, app, name);
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_PRESENCE_LOG, 1);
    if (r == NULL) {
        sh->presence_log->lost_any = true;
        return;
    }
    if (r->lost_at == 0) metric_add(sh->metrics, METRIC_HISTORY_DEGRADED_CHANNELS, app, 0, 1);
    r->lost_at = ++sh->presence_log->serial;
}

bool presence_log_is_lost(const struct shard *sh, uint32_t app, struct slice channel)
{
    const struct room *r = room_find(sh, app, channel);
    return sh->presence_log->lost_any || (r != NULL && r->lost_at > 0);
}

bool presence_log_may_reset(const struct shard *sh, uint32_t app, struct slice channel)
{
    const struct room *r = room_find(sh, app, channel);
    return r == NULL || r->first == NULL;
}

void presence_log_was_reset(struct shard *sh, uint32_t app, struct slice channel, uint64_t mark)
{
    struct room *r = room_find(sh, app, channel);
    if (r == NULL || r->lost_at == 0 || r->lost_at > mark) return;
    r->lost_at = 0;
    metric_add(sh->metrics, METRIC_HISTORY_DEGRADED_CHANNELS, app, 0, -1);
    if (r->first == NULL) room_free(sh, r);
}

/* In the order in which they happened. Events whose commit has failed come back one behind the
 * other, before those that never left: the place of the last one is where to look first. */
static void enqueue(struct shard *sh, struct pending *p)
{
    struct room *r = room_get(sh, p->app, pending_name(p));
    if (r == NULL) {
        lose(sh, p->app, pending_name(p));
        pending_free(sh, p);
        return;
    }
    if (r->first == NULL) room_list(sh->presence_log, r);
    struct pending *before = NULL, *at = r->first;
    if (r->last != NULL && r->last->serial < p->serial) {
        before = r->last;
    } else {
        if (r->placed != NULL && r->placed->serial < p->serial) before = r->placed;
        if (before != NULL) at = before->next;
        for (; at != NULL && at->serial < p->serial; at = at->next) before = at;
    }
    p->next = before == NULL ? r->first : before->next;
    if (before == NULL) r->first = p;
    else before->next = p;
    if (p->next == NULL) r->last = p;
    r->placed = p;
}

static struct pending *dequeue(struct room *r)
{
    struct pending *p = r->first;
    r->first = p->next;
    if (r->first == NULL) r->last = NULL;
    if (r->placed == p) r->placed = NULL;
    return p;
}

/* ---- events ---- */

static void done(struct shard *sh, struct stream *st, void *ctx, const struct record *r,
                 bool committed)
{
    (void)st;
    (void)r;
    struct pending *p = ctx;
    bool dropped = !committed && p->again;
    if (dropped) lose(sh, p->app, pending_name(p));
    if (dropped || committed) pending_free(sh, p);
    else enqueue(sh, p);
}

/* True when it is on its way. */
static bool append(struct shard *sh, struct pending *p)
{
    struct slice name = pending_name(p);
    bool cache = slice_starts(name, "presence-cache-");
    struct home *h = home_make(sh, p->app, name, PUSHER_PRESENCE, cache);
    struct stream *st = h == NULL ? NULL : stream_of(sh, h, STREAM_PRESENCE);
    if (st == NULL) {
        if (h != NULL) home_release(sh, h);
        return false;
    }
    struct record r = {
        .kind = RECORD_PRESENCE, .name = slice_str(event_names[p->event]),
        .user = slice_of(p->bytes + p->name_bytes, p->user_bytes),
        .data = slice_of(p->bytes + p->name_bytes + p->user_bytes, p->data_bytes),
    };
    return stream_append(sh, st, &r, done, p);
}

/* One who is logged as present since before the start has only come back. */
static bool attempt(struct shard *sh, struct pending *p)
{
    if (!stream_requests_known(sh)) return false;    /* who was left open is not known yet */
    bool left_open = presence_orphan_take(sh, p->app, pending_name(p),
                                          slice_of(p->bytes + p->name_bytes, p->user_bytes));
    if (!left_open || p->event != PRESENCE_LOG_ADDED) return append(sh, p);
    pending_free(sh, p);
    return true;
}

/* ---- logging ---- */

static uint8_t *put_socket(uint8_t *at, const struct presence_edge *by)
{
    char id[PUSHER_SOCKET_ID_BYTES];
    if (by->a == 0 && by->b == 0) return PUT(at, "null");
    at = PUT(at, "\"");
    at = put_slice(at, slice_of(id, pusher_socket_id_write(id, by->a, by->b)));
    return PUT(at, "\"");
}

/* The event as it is stored; time, stream and serial are the record's and are added by reads. */
static uint8_t *write_event(uint8_t *at, enum presence_log_event event,
                            const struct presence_edge *by, struct slice id_json,
                            struct slice info_json)
{
    at = PUT(at, "{\"event\":");
    at = put_slice(at, slice_str(event_names[event]));
    at = PUT(at, ",\"cause\":\"");
    at = put_slice(at, slice_str(cause_names[by->cause]));
    at = PUT(at, "\",\"user_id\":");
    at = put_slice(at, id_json);
    at = put_socket(PUT(at, ",\"connection_id\":"), by);
    at = PUT(at, ",\"user_info\":");
    at = put_slice(at, info_json);
    return PUT(at, ",\"dead_node_id\":null}");
}

enum { EVENT_ROOM = 160 + PUSHER_SOCKET_ID_BYTES };   /* everything but id and info */

/* An event as it is written down; NULL at a bound. */
struct pending *presence_log_make(struct shard *sh, uint32_t app, struct slice name,
                                    struct slice user, struct slice id_json,
                                    struct slice info_json, enum presence_log_event event,
                                    const struct presence_edge *by)
{
    struct presence_book *b = sh->presence_log;
    uint32_t room = EVENT_ROOM + id_json.bytes + info_json.bytes, bytes = 0;
    uint8_t *text = heap_alloc(sh->heap, room);
    struct pending *p = NULL;
    if (text != NULL && b->pending_count < PRESENCE_LOG_EVENTS_MAX) {
        bytes = (uint32_t)(write_event(text, event, by, id_json, info_json) - text);
        ASSERT(bytes <= room);
        p = heap_alloc(sh->heap, (uint32_t)sizeof(*p) + name.bytes + user.bytes + bytes);
    }
    if (p == NULL) {
        lose(sh, app, name);
    } else {
        *p = (struct pending){
            .serial = ++b->serial, .app = app, .name_bytes = name.bytes,
            .user_bytes = user.bytes, .data_bytes = bytes, .event = (uint8_t)event,
        };
        uint8_t *at = put_slice(p->bytes, name);
        at = put_slice(at, user);
        put_slice(at, slice_of(text, bytes));
        b->pending_count++;
    }
    heap_free(sh->heap, text, room);
    return p;
}

void presence_log_event(struct shard *sh, struct pending *p)
{
    const struct room *r = p == NULL ? NULL : room_find(sh, p->app, pending_name(p));
    if (p != NULL && ((r != NULL && r->first != NULL) || !attempt(sh, p))) enqueue(sh, p);
}

/* Each channel for itself: one that cannot be written holds up nobody else. */
void presence_log_drain(struct shard *sh)
{
    struct presence_book *b = sh->presence_log;
    struct room *refused = NULL;         /* the first one */
    uint32_t refusals = 0;
    while (b->first != NULL && b->first != refused && refusals < REFUSALS_PER_TICK) {
        struct room *r = b->first;
        struct pending *p = dequeue(r);
        bool taken = attempt(sh, p);
        if (taken && r->first != NULL) continue;
        room_unlist(b, r);
        if (!taken) {                    /* its turn comes again behind the others */
            if (refused == NULL) refused = r;
            refusals++;
            p->next = r->first;
            r->first = p;
            if (r->last == NULL) r->last = p;
            room_list(b, r);
        } else if (r->lost_at == 0) {
            room_free(sh, r);
        }
    }
}

/* ---- what others call ---- */

void presence_log(struct shard *sh, struct home *h, const struct member *m,
                  enum presence_log_event event, const struct presence_edge *by)
{
    struct conf_policy policy;
    conf_policy_of(sh->conf, h->app, home_name(h), &policy);
    if (!policy.presence_history) return;
    presence_log_event(sh, presence_log_make(sh, h->app, home_name(h), member_id(m),
                                             member_id_json(m), member_info(m), event, by));
}

void presence_log_copy(struct shard *sh, struct pending *p)
{
    if (p == NULL) return;
    p->again = true;
    if (append(sh, p)) return;
    lose(sh, p->app, pending_name(p));
    pending_free(sh, p);
}

uint64_t presence_log_newest(const struct shard *sh) { return sh->presence_log->serial; }

void presence_log_again(struct shard *sh, struct home *h)
{
    const struct presence_edge by = {.cause = PRESENCE_LOG_JOIN};
    const struct member *m = h->extra == NULL ? NULL : h->extra->members;
    for (; m != NULL; m = m->next) {
        presence_log_copy(sh, presence_log_make(sh, h->app, home_name(h), member_id(m),
                                                member_id_json(m), member_info(m),
                                                PRESENCE_LOG_ADDED, &by));
    }
    presence_orphan_again(sh, h);
}

void presence_log_tick(struct shard *sh)
{
    presence_log_drain(sh);
    presence_orphan_tick(sh);
}
