/* GET .../presence/history/snapshot: who was there, found by replaying the log. */
#include "shards/want_parts.h"

#include "core/hash.h"

#include <stdio.h>
#include <stdlib.h>

enum { PAGE_ROWS = 1000, BUCKETS_MAX = 1 << 20 };

struct who {                             /* a member as of the rows replayed so far */
    struct table_node node;
    struct who       *next;
    bool              here;
    uint64_t          serial, at_ms;
    uint32_t          event_bytes, id_bytes;
    uint8_t           bytes[];           /* event as raw JSON, user id as text */
};

struct snapshot {
    struct want *w;
    struct table table;
    struct who  *first;
    uint32_t     count, here;            /* in the list; of them there */
    uint64_t     replayed, serial, at_ms;
    uint32_t     rows;                   /* asked for at a time */
    bool         begun, whole;           /* whole: no event of the log is missing */
    struct store_head head;              /* as of the first page */
    const char  *wrong;                  /* static text of the 400 */
};

static void on_page(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);

static struct slice who_event(const struct who *m) { return slice_of(m->bytes, m->event_bytes); }
static struct slice who_id(const struct who *m)
{
    return slice_of(m->bytes + m->event_bytes, m->id_bytes);
}
static uint32_t who_bytes(const struct who *m)
{
    return (uint32_t)sizeof(*m) + m->event_bytes + m->id_bytes;
}

static void snapshot_free(struct shard *sh, struct snapshot *s)
{
    while (s->first != NULL) {
        struct who *m = s->first;
        s->first = m->next;
        heap_free(sh->heap, m, who_bytes(m));
    }
    table_close(&s->table);
    heap_free(sh->heap, s, sizeof(*s));
}

/* ---- replay ---- */

static struct who *who_find(struct shard *sh, struct snapshot *s, struct slice id)
{
    struct table_node *n = table_find(&s->table, hash_table(sh->server->table_seed, 0, id));
    for (; n != NULL; n = table_find_next(n)) {
        struct who *m = CONTAINER_OF(n, struct who, node);
        if (slice_equal(who_id(m), id)) return m;
    }
    return NULL;
}

/* Room for the longest event name, so that an entry can be written again in place. */
enum { EVENT_BYTES = sizeof("\"member_removed\"") - 1 };

static struct who *who_make(struct shard *sh, struct snapshot *s, struct slice id)
{
    struct who *m = heap_zalloc(sh->heap, (uint32_t)sizeof(*m) + EVENT_BYTES + id.bytes);
    if (m == NULL) return NULL;
    m->event_bytes = EVENT_BYTES;
    m->id_bytes = id.bytes;
    if (id.bytes > 0) memcpy(m->bytes + EVENT_BYTES, id.ptr, id.bytes);
    table_put(&s->table, &m->node, hash_table(sh->server->table_seed, 0, id));
    m->next = s->first;
    s->first = m;
    s->count++;
    return m;
}

/* What is wrong with this event after those before it; NULL: nothing. */
static const char *anomaly(const struct snapshot *s, const struct who *m, const struct record *r)
{
    bool here = m != NULL && m->here;
    if (!s->whole || s->w->page.has_at_time) return NULL;
    if (slice_is(r->name, "\"member_added\"")) {
        return here ? "presence history transition anomaly: duplicate_member_added" : NULL;
    }
    if (here) return NULL;
    return slice_is(r->name, "\"member_updated\"")
               ? "presence history transition anomaly: member_updated_without_join"
               : "presence history transition anomaly: member_removed_without_join";
}

/* False at the heap's bound. */
static bool replay(struct shard *sh, struct snapshot *s, const struct record *r)
{
    struct who *m = who_find(sh, s, r->user);
    uint64_t expected = s->replayed == 0 ? s->head.rows_first : s->serial + 1;
    s->wrong = anomaly(s, m, r);
    if (r->history != expected && !s->w->page.has_at_time) {
        s->wrong = "presence history has a gap in its serials";
    }
    if (m == NULL) m = who_make(sh, s, r->user);
    if (m == NULL) return false;
    bool removed = slice_is(r->name, "\"member_removed\"");
    bool there = m->here, added = slice_is(r->name, "\"member_added\"");
    m->here = !removed && (there || added);
    s->here = s->here + m->here - there;
    memset(m->bytes, ' ', EVENT_BYTES);
    memcpy(m->bytes, r->name.ptr, u32_min(r->name.bytes, EVENT_BYTES));
    m->serial = s->serial = r->history;
    m->at_ms = s->at_ms = r->time_ms;
    s->replayed++;
    return true;
}

/* ---- the answer ---- */

static int by_id(const void *a, const void *b)
{
    return slice_order(who_id(*(struct who *const *)a), who_id(*(struct who *const *)b));
}

static bool write_members(struct shard *sh, struct api_text *t, const struct snapshot *s)
{
    uint32_t bytes = u32_max(s->here, 1) * (uint32_t)sizeof(struct who *), n = 0;
    struct who **list = heap_alloc(sh->heap, bytes);
    if (list == NULL) return false;
    for (struct who *m = s->first; m != NULL; m = m->next) {
        if (m->here) list[n++] = m;
    }
    ASSERT(n == s->here);
    qsort(list, n, sizeof(*list), by_id);
    for (uint32_t i = 0; i < n; i++) {
        struct slice event = who_event(list[i]);
        while (event.ptr[event.bytes - 1] == ' ') event.bytes--;
        api_text_str(t, i > 0 ? ",{" : "{");
        want_write_text(t, "user_id", who_id(list[i]));
        api_text_str(t, ",\"last_event\":");
        api_text_add(t, event);
        api_text_str(t, ",");
        want_write_null(t, "last_event_serial", true, list[i]->serial);
        api_text_str(t, ",");
        want_write_null(t, "last_event_at_ms", true, list[i]->at_ms);
        api_text_str(t, "}");
    }
    heap_free(sh->heap, list, bytes);
    return true;
}

static void write_continuity(struct api_text *t, const struct stream *st,
                             const struct snapshot *s)
{
    const struct store_head *head = &s->head;
    api_text_str(t, "{");
    want_write_text(t, "stream_id", slice_str(st->history_id));
    api_text_str(t, ",");
    want_write_span(t, head);
    api_text_str(t, ",");
    want_write_retained(t, st, head);
    api_text_str(t, s->whole ? ",\"complete\":true" : ",\"complete\":false");
    api_text_str(t, head->rows_first > 1 ? ",\"truncated_by_retention\":true}"
                                         : ",\"truncated_by_retention\":false}");
}

static void answer(struct shard *sh, struct stream *st, struct snapshot *s)
{
    struct api_text t = {.heap = sh->heap};
    api_text_str(&t, "{");
    want_write_text(&t, "channel", s->w->channel);
    api_text_str(&t, ",\"members\":[");
    if (!write_members(sh, &t, s)) t.failed = true;
    api_text_str(&t, "],");
    want_write_null(&t, "member_count", true, s->here);
    api_text_str(&t, ",");
    want_write_null(&t, "events_replayed", true, s->replayed);
    api_text_str(&t, ",");
    want_write_null(&t, "snapshot_serial", s->replayed > 0, s->serial);
    api_text_str(&t, ",");
    want_write_null(&t, "snapshot_time_ms", s->replayed > 0, s->at_ms);
    api_text_str(&t, ",\"continuity\":");
    write_continuity(&t, st, s);
    api_text_str(&t, "}");
    want_answer(sh, s->w, &t);
}

/* ---- the pages ---- */

static void post(struct shard *sh, struct stream *st, struct snapshot *s)
{
    const struct want_page *p = &s->w->page;
    struct store_read *r = stream_read_make(sh, st, STORE_ROWS, on_page, s);
    if (r == NULL) {
        want_busy(sh, s->w, "Server is at its memory limit");
        snapshot_free(sh, s);
        return;
    }
    r->upto = st->now.delivery;
    r->rows_upto = p->has_at_serial ? p->at_serial : UINT64_MAX;
    if (s->begun) r->rows_upto = u64_min(r->rows_upto, s->head.rows_newest);
    r->time_upto_ms = UINT64_MAX;
    if (p->has_at_time) r->time_upto_ms = p->at_time_ms < 0 ? 0 : (uint64_t)p->at_time_ms;
    r->rows_after = s->serial;
    r->limit = s->rows;
    r->bytes_max = s->rows == 1 ? RECORD_BYTES_MAX : 0;
    stream_read_post(sh, st, r);
}

/* True when another page follows. */
static bool take(struct shard *sh, struct stream *st, struct snapshot *s, struct store_read *r)
{
    struct want_walk walk = want_walk_begin(r);
    struct record record;
    if (r->status == STORE_READ_LARGE && s->rows > 1) {
        s->rows = (s->rows + 1) / 2;
        return true;
    }
    if (r->status != STORE_READ_OK) {
        want_read_failed(sh, s->w, r);
        return false;
    }
    if (!s->begun) {
        s->begun = true;
        s->head = r->head;
        s->whole = r->head.rows_first <= 1 && !store_rows_gone(&r->head) && !want_lost(sh, st);
    }
    if (r->head.history_epoch != s->head.history_epoch) {
        want_busy(sh, s->w, "The presence history was reset");
        return false;
    }
    while (s->wrong == NULL && want_walk_next(&walk, &record)) {
        if (replay(sh, s, &record)) continue;
        want_busy(sh, s->w, "Server is at its memory limit");
        return false;
    }
    if (s->wrong != NULL) {
        want_refuse(sh, s->w, 400, "invalid_input", PUSHER_GENERIC, "%s", s->wrong);
        return false;
    }
    if (r->more) return true;
    answer(sh, st, s);
    return false;
}

static void on_page(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct snapshot *s = ctx;
    bool more = take(sh, st, s, r);
    stream_read_end(sh, r);
    if (more) post(sh, st, s);
    else snapshot_free(sh, s);
}

void want_presence_on_want(struct shard *sh, struct stream *st, struct want *w)
{
    struct snapshot *s = heap_zalloc(sh->heap, sizeof(*s));
    if (s == NULL || table_open(&s->table, BUCKETS_MAX) != OK) {
        heap_free(sh->heap, s, sizeof(*s));
        want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    s->w = w;
    s->rows = PAGE_ROWS;
    post(sh, st, s);
}
