/* Members that the presence log holds open since before the start: they come back, or are removed
 * with cause orphan_cleanup when their grace time is over. */
#include "shards/presence_log_parts.h"

#include "proto/put.h"
#include "shards/stream.h"

enum { ORPHAN_BUCKETS_MAX = 1 << 20, ORPHANS_PER_TICK = 1024 };

static const char hidden_prefix[] = "[presence-history]";

static uint32_t orphan_bytes(const struct orphan *o)
{
    return (uint32_t)sizeof(*o) + o->name_bytes + o->user_bytes + o->id_bytes + o->info_bytes;
}

static void orphan_unlink(struct shard *sh, struct orphan *o)
{
    table_del(&sh->presence_log->orphans, &o->node);
    *o->link = o->next;
    if (o->next != NULL) o->next->link = o->link;
}

static void orphan_free(struct shard *sh, struct orphan *o)
{
    orphan_unlink(sh, o);
    heap_free(sh->heap, o, orphan_bytes(o));
}

static uint64_t orphan_hash(const struct shard *sh, uint32_t app, struct slice name,
                            struct slice user)
{
    return hash_table(hash_table(sh->server->table_seed, app, name), app, user);
}

static struct slice orphan_name(const struct orphan *o)
{
    return slice_of(o->bytes, o->name_bytes);
}
static struct slice orphan_user(const struct orphan *o)
{
    return slice_of(o->bytes + o->name_bytes, o->user_bytes);
}

static struct orphan *orphan_find(struct shard *sh, uint32_t app, struct slice name,
                                  struct slice user)
{
    struct table_node *n = table_find(&sh->presence_log->orphans,
                                      orphan_hash(sh, app, name, user));
    for (; n != NULL; n = table_find_next(n)) {
        struct orphan *o = CONTAINER_OF(n, struct orphan, node);
        if (o->app == app && slice_equal(orphan_name(o), name) &&
            slice_equal(orphan_user(o), user)) {
            return o;
        }
    }
    return NULL;
}

static void orphan_add(struct shard *sh, uint32_t app, struct slice name, const struct record *r)
{
    struct presence_book *b = sh->presence_log;
    struct json_value id, info;
    struct json_error error;
    const struct json_field fields[] = {{"user_id", &id}, {"user_info", &info}};
    if (orphan_find(sh, app, name, r->user) != NULL ||
        !json_object(r->data, fields, 2, &error)) {
        return;
    }
    uint32_t bytes = name.bytes + r->user.bytes + id.raw.bytes + info.raw.bytes;
    struct orphan *o = heap_zalloc(sh->heap, (uint32_t)sizeof(*o) + bytes);
    if (o == NULL) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
        return;
    }
    o->app = app;
    o->name_bytes = name.bytes;
    o->user_bytes = r->user.bytes;
    o->id_bytes = id.raw.bytes;
    o->info_bytes = info.raw.bytes;
    uint8_t *at = put_slice(put_slice(o->bytes, name), r->user);
    put_slice(put_slice(at, id.raw), info.raw);
    table_put(&b->orphans, &o->node, orphan_hash(sh, app, name, r->user));
    o->next = b->orphans_first;
    o->link = &b->orphans_first;
    if (o->next != NULL) o->next->link = &o->next;
    b->orphans_first = o;
}

static struct pending *orphan_event(struct shard *sh, const struct orphan *o,
                                    enum presence_log_event event, const struct presence_edge *by)
{
    const uint8_t *json = o->bytes + o->name_bytes + o->user_bytes;
    return presence_log_make(sh, o->app, orphan_name(o), orphan_user(o),
                             slice_of(json, o->id_bytes),
                             slice_of(json + o->id_bytes, o->info_bytes), event, by);
}

/* "app id" 0x00 "[presence-history]channel" -> app and channel; false: nobody's. */
static bool split_name(const struct shard *sh, struct slice stored, uint32_t *app,
                       struct slice *name)
{
    const uint8_t *zero = memchr(stored.ptr, 0, stored.bytes);
    if (zero == NULL) return false;
    struct slice id = slice_of(stored.ptr, (uint32_t)(zero - stored.ptr));
    *name = slice_skip(stored, id.bytes + 1);
    if (!slice_starts(*name, hidden_prefix) || !shard_app_by_id(sh->server, id, app)) return false;
    *name = slice_skip(*name, sizeof(hidden_prefix) - 1);
    return true;
}

void presence_log_active(struct shard *sh, const struct store_read *r)
{
    struct slice rest = r == NULL ? slice_of(NULL, 0) : slice_of(r->bytes, r->bytes_count);
    struct slice name = {0};
    struct record record;
    uint32_t bytes, app = 0;
    uint64_t grace_s = u64_max(sh->conf->presence_ungraceful_timeout_seconds,
                               sh->conf->presence_v2_ungraceful_timeout_seconds);
    bool known = false;
    while (rest.bytes > 0 && record_peek(rest, &record, &bytes) == RECORD_OK) {
        rest = slice_skip(rest, bytes);
        if (record.kind == RECORD_CHANNEL) known = split_name(sh, record.data, &app, &name);
        if (record.kind == RECORD_PRESENCE && known) orphan_add(sh, app, name, &record);
    }
    sh->presence_log->orphans_due_ms = sh->re.now_ms + grace_s * 1000 + 1;
    presence_log_drain(sh);
}

err_t presence_orphan_open(struct presence_book *b)
{
    return table_open(&b->orphans, ORPHAN_BUCKETS_MAX);
}

void presence_orphan_close(struct shard *sh)
{
    struct presence_book *b = sh->presence_log;
    while (b->orphans_first != NULL) orphan_free(sh, b->orphans_first);
    table_close(&b->orphans);
}

bool presence_orphan_take(struct shard *sh, uint32_t app, struct slice name, struct slice user)
{
    struct orphan *o = orphan_find(sh, app, name, user);
    if (o != NULL) orphan_free(sh, o);
    return o != NULL;
}

void presence_orphan_again(struct shard *sh, const struct home *h)
{
    const struct presence_edge by = {.cause = PRESENCE_LOG_JOIN};
    const struct orphan *o = sh->presence_log->orphans_first;
    for (; o != NULL; o = o->next) {
        if (o->app != h->app || !slice_equal(orphan_name(o), home_name(h))) continue;
        presence_log_copy(sh, orphan_event(sh, o, PRESENCE_LOG_ADDED, &by));
    }
}

void presence_orphan_tick(struct shard *sh)
{
    struct presence_book *b = sh->presence_log;
    const struct presence_edge by = {.cause = PRESENCE_LOG_ORPHAN};
    if (!stream_requests_known(sh) || sh->re.now_ms < b->orphans_due_ms) return;
    for (uint32_t i = 0; i < ORPHANS_PER_TICK && b->orphans_first != NULL; i++) {
        struct orphan *o = b->orphans_first;
        orphan_unlink(sh, o);
        struct pending *p = orphan_event(sh, o, PRESENCE_LOG_REMOVED, &by);
        if (p != NULL) p->serial = 0;    /* the log has him inside: before all that waits */
        presence_log_event(sh, p);
        heap_free(sh->heap, o, orphan_bytes(o));
    }
}
