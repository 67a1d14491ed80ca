/* Messages in memory: folded as of `now`, with what is in flight on top; the least recently used of
 * the shard go beyond history.message_cache_mb. */
#include "shards/stream_parts.h"

enum { CHECKED_MS = 1000 };

static uint64_t message_hash(const struct stream *st, uint64_t message)
{
    uint64_t x = (message + (uint64_t)(uintptr_t)st) * 0x9e3779b97f4a7c15ull;
    return x ^ x >> 29;
}

struct stream_message *stream_message_find(struct shard *sh, const struct stream *st,
                                           uint64_t message)
{
    struct table_node *n = table_find(&sh->streams->messages, message_hash(st, message));
    for (; n != NULL; n = table_find_next(n)) {
        struct stream_message *m = CONTAINER_OF(n, struct stream_message, node);
        if (m->stream == st && m->message == message) return m;
    }
    return NULL;
}

/* ---- what retention may have taken ---- */

/* Just now. A clock that was set, back or ahead, asks again. */
static bool was_checked(const struct shard *sh, const struct stream_message *m)
{
    return m->checked_ms != 0 && sh->re.wall_ms - m->checked_ms < CHECKED_MS;
}

/* The lane knows exactly what is kept. A message that may be beyond a bound is read again, unless
 * it was read just now. */
static bool is_doubtful(const struct shard *sh, const struct stream *st,
                        const struct stream_message *m)
{
    const struct conf_policy *p = st->policy;
    const struct fold *f = &m->fold;
    uint64_t now_ms = sh->re.wall_ms, age_ms = now_ms - u64_min(f->message_ms, now_ms);
    uint64_t newest_ms = now_ms - u64_min(f->time_ms, now_ms);
    if (!st->history || !f->started || m->loading || m->flying > 0) return false;
    if (p->version_age_ms == 0 || was_checked(sh, m)) return false;
    if (p->version_age_ms != UINT64_MAX && age_ms < p->version_age_ms) return false;
    if (newest_ms >= p->version_age_ms) return true;
    return (p->history_age_ms > 0 && age_ms >= p->history_age_ms) ||
           (p->history_messages_max > 0 &&
            st->now.history - u64_min(f->history, st->now.history) >= p->history_messages_max) ||
           (p->history_bytes_max > 0 && st->row_bytes - m->checked_rows >= p->history_bytes_max);
}

/* How many bytes of rows came after the create is not known of one that was read: any is one too
 * many. */
static void note_read(const struct shard *sh, struct stream_message *m)
{
    const struct stream *st = m->stream;
    m->checked_ms = sh->re.wall_ms;
    m->checked_rows = st->row_bytes + 1 - u64_max(st->policy->history_bytes_max, 1);
}

const struct fold *stream_fold(struct shard *sh, struct stream *st, uint64_t message)
{
    struct stream_message *m = stream_message_find(sh, st, message);
    if (m == NULL || !m->fold.started || is_doubtful(sh, st, m)) return NULL;
    stream_message_use(sh, m);
    return &m->fold;
}

/* ---- the list by use, and what it weighs ---- */

static void unlist(struct stream_book *b, struct stream_message *m)
{
    if (m->older != NULL) m->older->newer = m->newer;
    else b->messages_oldest = m->newer;
    if (m->newer != NULL) m->newer->older = m->older;
    else b->messages_newest = m->older;
}

static void list(struct stream_book *b, struct stream_message *m)
{
    m->newer = NULL;
    m->older = b->messages_newest;
    if (m->older != NULL) m->older->newer = m;
    else b->messages_oldest = m;
    b->messages_newest = m;
}

void stream_message_use(struct shard *sh, struct stream_message *m)
{
    if (sh->streams->messages_newest == m) return;
    unlist(sh->streams, m);
    list(sh->streams, m);
}

static void weigh(struct shard *sh, struct stream_message *m)
{
    const struct fold *f = &m->fold;
    const struct fold_text *texts[] = {&f->name, &f->data, &f->extras, &f->tags, &f->message_id,
                                       &f->user, &f->owner, &f->client, &f->op_id,
                                       &f->description, &f->metadata};
    uint64_t bytes = sizeof(*m) + m->ops_room * 2 * sizeof(*m->ops);
    for (uint32_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) bytes += texts[i]->room;
    sh->streams->messages_bytes += bytes - m->bytes;
    m->bytes = bytes;
}

static struct stream_message *make(struct shard *sh, struct stream *st, uint64_t message)
{
    struct stream_message *m = heap_zalloc(sh->heap, sizeof(*m));
    if (m == NULL) return NULL;
    m->stream = st;
    m->message = message;
    m->fold.heap = sh->heap;
    m->next = st->messages;
    m->link = &st->messages;
    if (m->next != NULL) m->next->link = &m->next;
    st->messages = m;
    table_put(&sh->streams->messages, &m->node, message_hash(st, message));
    list(sh->streams, m);
    weigh(sh, m);
    return m;
}

void stream_message_free(struct shard *sh, struct stream_message *m)
{
    ASSERT(m->flying == 0 && !m->loading);
    sh->streams->messages_bytes -= m->bytes;
    unlist(sh->streams, m);
    table_del(&sh->streams->messages, &m->node);
    *m->link = m->next;
    if (m->next != NULL) m->next->link = m->link;
    fold_free(&m->fold);
    heap_free(sh->heap, m->ops, m->ops_room * 2 * (uint32_t)sizeof(*m->ops));
    heap_free(sh->heap, m, sizeof(*m));
}

/* All that is known of the stream's messages; those that are being read are found stale then. */
void stream_message_free_all(struct shard *sh, struct stream *st)
{
    for (struct stream_message *m = st->messages, *next; m != NULL; m = next) {
        next = m->next;
        if (m->loading) m->failed = true;
        else stream_message_free(sh, m);
    }
}

void stream_message_evict(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    struct stream_message *m = b->messages_oldest;
    while (m != NULL && b->messages_bytes > b->messages_bytes_max) {
        struct stream_message *newer = m->newer;
        if (m->flying == 0 && !m->loading) stream_message_free(sh, m);
        m = newer;
    }
}

/* ---- operations ---- */

bool stream_message_op_put(struct shard *sh, struct stream_message *m, uint64_t op_hash,
                           uint64_t delivery)
{
    if (m->ops_count == m->ops_room) {
        uint32_t pair = 2 * (uint32_t)sizeof(*m->ops), room = u32_max(2 * m->ops_room, 4);
        uint64_t *fresh = heap_alloc(sh->heap, pair * room);
        if (fresh == NULL) return false;
        if (m->ops_count > 0) memcpy(fresh, m->ops, (size_t)pair * m->ops_count);
        heap_free(sh->heap, m->ops, pair * m->ops_room);
        m->ops = fresh;
        m->ops_room = room;
    }
    m->ops[2 * m->ops_count] = op_hash;
    m->ops[2 * m->ops_count + 1] = delivery;
    m->ops_count++;
    weigh(sh, m);
    return true;
}

/* ---- loading ---- */

/* What is in flight follows the committed state. */
static void next_from_fold(struct stream_message *m)
{
    const struct fold *f = &m->fold;
    m->next_data_set = f->data.set;
    m->next_data_text = f->data.set && f->data.ptr[0] == '"';
    m->next_data_bytes = f->data.bytes;
    m->next_delivery = f->delivery;
    m->next_context = f->context;
}

static bool take_folded(struct shard *sh, struct stream_message *m, const struct store_read *r)
{
    struct record folded;
    uint32_t bytes;
    if (record_peek(slice_of(r->bytes, r->bytes_count), &folded, &bytes) != RECORD_OK) return false;
    if (fold_apply(&m->fold, &folded) != OK) return false;
    m->fold.appends = r->appends;
    m->fold.versions = r->versions;
    for (uint32_t i = 0; i < r->ops_count; i++) {
        if (stream_message_op_put(sh, m, r->ops[2 * i], r->ops[2 * i + 1])) continue;
        fold_free(&m->fold);             /* an operation that is not known would be done twice */
        return false;
    }
    next_from_fold(m);
    return true;
}

static void loaded(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct stream_message *m = ctx;
    bool stale = m->failed;              /* what was read has been taken back meanwhile */
    m->loading = false;
    if (r->status == STORE_READ_NOT_FOUND || r->status == STORE_READ_GONE) m->missing = true;
    else if (r->status != STORE_READ_OK || !take_folded(sh, m, r)) m->failed = true;
    note_read(sh, m);
    weigh(sh, m);
    if (stale) stream_message_free(sh, m);
    stream_read_end(sh, r);
    stream_wake(sh, st);
}

struct stream_message *stream_message_get(struct shard *sh, struct stream *st, uint64_t message)
{
    struct stream_message *m = stream_message_find(sh, st, message);
    if (m != NULL && m->failed && !m->loading && m->flying == 0 && !sh->streams->again) {
        stream_message_free(sh, m);      /* another try */
        m = NULL;
    }
    /* What was too old, or not there, may be there again: clocks are set back. */
    bool gone = m != NULL && m->missing && !m->loading && m->flying == 0 && !was_checked(sh, m);
    if (m != NULL && !sh->streams->again && (gone || is_doubtful(sh, st, m))) {
        stream_message_free(sh, m);
        m = NULL;
    }
    if (m != NULL) {
        stream_message_use(sh, m);
        return m;
    }
    m = make(sh, st, message);
    if (m == NULL) return NULL;
    struct store_read *r = stream_read_make(sh, st, STORE_MESSAGE, loaded, m);
    if (r == NULL) {
        stream_message_free(sh, m);
        return NULL;
    }
    r->message = message;
    m->loading = true;
    stream_read_post(sh, st, r);
    return m;
}

/* ---- commits ---- */

/* A create is kept: it is the likeliest to be changed. Without memory it is read when it is. */
static void created(struct shard *sh, struct stream *st, const struct record *r)
{
    struct stream_message *m = make(sh, st, r->delivery);
    if (m == NULL) return;
    if (fold_apply(&m->fold, r) != OK) {
        stream_message_free(sh, m);
        return;
    }
    m->checked_rows = st->row_bytes - record_bytes(r);
    next_from_fold(m);
    weigh(sh, m);
}

void stream_message_applied(struct shard *sh, struct stream *st, struct stream_message *m,
                            const struct record *r)
{
    if (r->kind == RECORD_CREATE) created(sh, st, r);
    if (m == NULL) return;
    if (fold_apply(&m->fold, r) != OK) { /* no memory: read again when it is needed */
        fold_free(&m->fold);
        m->failed = true;
    }
    weigh(sh, m);
    stream_message_use(sh, m);
}

void stream_message_end(struct shard *sh, struct stream *st, uint64_t message)
{
    for (struct stream_message *m = st->messages, *next; m != NULL; m = next) {
        next = m->next;
        if (m->message > message) continue;
        if (m->loading) {
            m->failed = true;
        } else if (m->flying == 0) {
            stream_message_free(sh, m);
        } else {                         /* relaxed: shown, not yet stored */
            fold_free(&m->fold);
            m->missing = true;
        }
    }
}

void stream_message_fail(struct shard *sh, struct stream *st)
{
    for (struct stream_message *m = st->messages; m != NULL; m = m->next) {
        ASSERT(m->flying == 0);
        m->barrier = false;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < m->ops_count; i++) {
            if (m->ops[2 * i + 1] > st->now.delivery) continue;
            m->ops[2 * kept] = m->ops[2 * i];
            m->ops[2 * kept + 1] = m->ops[2 * i + 1];
            kept++;
        }
        m->ops_count = kept;
        if (m->fold.started) next_from_fold(m);
    }
}
