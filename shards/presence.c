#include "shards/presence.h"

#include "shards/presence_log.h"
#include "shards/presence_update.h"

#include <stdio.h>

enum { RETRY_MS = 1000, LIST_BYTES_MAX = 1 << 29 };

static uint64_t member_hash(const struct shard *sh, const struct home *h, struct slice id)
{
    return hash_table(sh->server->table_seed ^ (uintptr_t)h, h->app, id);
}

static struct member *member_find(struct shard *sh, struct home *h, struct slice id)
{
    struct table_node *n = table_find(&sh->members, member_hash(sh, h, id));
    for (; n != NULL; n = table_find_next(n)) {
        struct member *m = CONTAINER_OF(n, struct member, node);
        if (m->home == h && slice_equal(member_id(m), id)) return m;
    }
    return NULL;
}

static uint32_t member_bytes(const struct member *m)
{
    return (uint32_t)sizeof(*m) + m->id_json_bytes + m->id_bytes + m->info_bytes;
}

static struct member *member_make(struct shard *sh, struct home *h, const struct presence *who)
{
    struct home_extra *x = home_extra(sh, h);
    if (x == NULL) return NULL;
    struct member *m = heap_alloc(sh->heap, (uint32_t)sizeof(*m) + who->id_json.bytes +
                                                who->id.bytes + who->info_json.bytes);
    if (m == NULL) return NULL;
    memset(m, 0, sizeof(*m));
    m->home = h;
    m->grace.kind = SHARD_TIMER_MEMBER;
    m->id_json_bytes = who->id_json.bytes;
    m->id_bytes = who->id.bytes;
    m->info_bytes = who->info_json.bytes;
    memcpy(m->bytes, who->id_json.ptr, who->id_json.bytes);
    memcpy(m->bytes + m->id_json_bytes, who->id.ptr, who->id.bytes);
    memcpy(m->bytes + m->id_json_bytes + m->id_bytes, who->info_json.ptr, who->info_json.bytes);
    table_put(&sh->members, &m->node, member_hash(sh, h, who->id));
    m->next = x->members;
    m->link = &x->members;
    if (m->next != NULL) m->next->link = &m->next;
    x->members = m;
    x->members_count++;
    metric_add(sh->metrics, METRIC_PRESENCE_MEMBERS, h->app, 0, 1);
    return m;
}

static void member_end(struct shard *sh, struct home *h, struct member *m)
{
    timer_disarm(&sh->re.wheel, &m->grace);
    table_del(&sh->members, &m->node);
    *m->link = m->next;
    if (m->next != NULL) m->next->link = m->link;
    h->extra->members_count--;
    metric_add(sh->metrics, METRIC_PRESENCE_MEMBERS, h->app, 0, -1);
    presence_update_forget(sh, m);
    heap_free(sh->heap, m, member_bytes(m));
}

/* A buffer that is filled piece by piece; sized beforehand. */
static uint8_t *put(uint8_t *at, struct slice s)
{
    memcpy(at, s.ptr, s.bytes);
    return at + s.bytes;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    return put(at, slice_str(text));
}

/* member_added or member_removed to every subscriber. The joiner is not among them: its own
 * subscription joins when it handles the answer, which follows this frame. False at the bound of
 * the heap: nobody was told. */
static bool announce(struct shard *sh, struct home *h, const struct member *m, bool added)
{
    uint32_t room = 40 + m->id_json_bytes + member_info(m).bytes;
    uint8_t *text = heap_alloc(sh->heap, room);
    struct frame *f = NULL;
    if (text != NULL) {
        uint8_t *at = put(put_text(text, "{\"user_id\":"), member_id_json(m));
        if (added) at = put(put_text(at, ",\"user_info\":"), member_info(m));
        at = put_text(at, "}");
        struct slice data = slice_of(text, (uint32_t)(at - text));
        f = home_internal_frame(sh, h, added ? "\"pusher_internal:member_added\""
                                             : "\"pusher_internal:member_removed\"", data);
        heap_free(sh->heap, text, room);
    }
    if (f == NULL) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
        return false;
    }
    home_fan(sh, h, f, 0, 0, 0);
    frame_put(sh, &f);
    return true;
}

enum home_status presence_join(struct shard *sh, struct home *h, const struct presence *who,
                               struct member **out)
{
    struct member *m = member_find(sh, h, who->id);
    uint32_t limit = sh->conf->apps[h->app].max_presence_members_per_channel;
    if (m == NULL) {
        if (limit > 0 && h->extra != NULL && h->extra->members_count >= limit) return HOME_FULL;
        m = member_make(sh, h, who);
        if (m == NULL) return HOME_NO_MEMORY;
        if (!announce(sh, h, m, true)) {
            member_end(sh, h, m);
            return HOME_NO_MEMORY;
        }
        struct presence_edge by = {PRESENCE_LOG_JOIN, who->socket_a, who->socket_b};
        presence_log(sh, h, m, PRESENCE_LOG_ADDED, &by);
    }
    timer_disarm(&sh->re.wheel, &m->grace);   /* came back in time: nobody needs to know */
    m->sockets_count++;
    *out = m;
    return HOME_OK;
}

/* Without memory to say so the member stays until there is some: lists never differ silently. */
static void end_or_retry(struct shard *sh, struct home *h, struct member *m)
{
    struct presence_edge by = {(enum presence_log_cause)m->left_cause, m->left_a, m->left_b};
    if (!announce(sh, h, m, false)) {
        timer_arm(&sh->re.wheel, &m->grace, sh->re.now_ms + RETRY_MS);
        return;
    }
    presence_log(sh, h, m, PRESENCE_LOG_REMOVED, &by);
    member_end(sh, h, m);
}

/* A grace time that ends is a time-out as well. */
static enum presence_log_cause cause_of(uint64_t flags, bool grace)
{
    if ((flags & HOME_FORCED) != 0) return PRESENCE_LOG_FORCED;
    if ((flags & HOME_TIMEOUT) != 0 || grace) return PRESENCE_LOG_TIMEOUT;
    return PRESENCE_LOG_DISCONNECT;
}

void presence_leave(struct shard *sh, struct home *h, struct member *m, uint64_t flags, uint64_t a,
                    uint64_t b)
{
    uint32_t grace_s = (flags & HOME_V2) != 0 ? sh->conf->presence_v2_ungraceful_timeout_seconds
                                              : sh->conf->presence_ungraceful_timeout_seconds;
    uint64_t grace_ms = (uint64_t)grace_s * 1000;
    ASSERT(m->home == h && m->sockets_count > 0);
    if (--m->sockets_count > 0) return;
    bool grace = (flags & HOME_ABRUPT) != 0 && grace_ms > 0;
    m->left_a = a;
    m->left_b = b;
    m->left_cause = (uint8_t)cause_of(flags, grace);
    if (grace) timer_arm(&sh->re.wheel, &m->grace, sh->re.now_ms + grace_ms);
    else end_or_retry(sh, h, m);
}

void presence_on_grace(struct shard *sh, struct member *m)
{
    struct home *h = m->home;
    ASSERT(m->sockets_count == 0);
    end_or_retry(sh, h, m);
    home_release(sh, h);
}

enum { LIST_FIXED_BYTES = 128 };

static uint64_t list_bytes(const struct home_extra *x)
{
    uint64_t bytes = LIST_FIXED_BYTES;
    for (const struct member *m = x->members; m != NULL; m = m->next) {
        bytes += 2ull * m->id_json_bytes + member_info(m).bytes + 3;
    }
    return bytes;
}

static uint8_t *put_list(uint8_t *at, struct home_extra *x)
{
    at = put_text(at, "\"presence\":{\"ids\":[");
    for (struct member *m = x->members; m != NULL; m = m->next) {
        at = put(at, member_id_json(m));
        if (m->next != NULL) at = put_text(at, ",");
    }
    at = put_text(at, "],\"hash\":{");
    for (struct member *m = x->members; m != NULL; m = m->next) {
        at = put(put_text(put(at, member_id_json(m)), ":"), member_info(m));
        if (m->next != NULL) at = put_text(at, ",");
    }
    char count[32];
    int n = snprintf(count, sizeof(count), "},\"count\":%u}", x->members_count);
    return put(at, slice_of(count, (uint32_t)n));
}

uint8_t *presence_data(struct shard *sh, struct home *h, bool has_attach, uint64_t attach_serial,
                       uint32_t *bytes, uint32_t *room)
{
    struct home_extra *x = h->kind == PUSHER_PRESENCE ? h->extra : NULL;
    uint64_t whole = x != NULL ? list_bytes(x) : LIST_FIXED_BYTES;
    uint8_t *text = whole > LIST_BYTES_MAX ? NULL : heap_alloc(sh->heap, (uint32_t)whole);
    if (text == NULL) return NULL;
    uint8_t *at = put_text(text, "{");
    if (x != NULL) at = put_list(at, x);
    if (has_attach) {
        char serial[48];
        int n = snprintf(serial, sizeof(serial), "%s\"attach_serial\":%llu", x != NULL ? "," : "",
                         (unsigned long long)attach_serial);
        at = put(at, slice_of(serial, (uint32_t)n));
    }
    at = put_text(at, "}");
    *bytes = (uint32_t)(at - text);
    *room = (uint32_t)whole;
    return text;
}

struct frame *presence_succeeded(struct shard *sh, struct home *h)
{
    uint32_t bytes, room;
    uint8_t *text = presence_data(sh, h, false, 0, &bytes, &room);
    if (text == NULL) return NULL;
    struct slice data = slice_of(text, bytes);
    struct pusher_out o = {
        .event_json = slice_str("\"pusher_internal:subscription_succeeded\""),
        .channel = home_name(h),
    };
    struct frame *f = frame_make(sh, pusher_event_text_bytes(&o, data));
    if (f != NULL) f->bytes_count = pusher_event_text_write(&o, data, frame_room(f));
    heap_free(sh->heap, text, room);
    return f;
}
