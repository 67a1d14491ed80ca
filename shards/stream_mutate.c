/* Updates, deletes, appends: checked against what will be once everything in flight is committed.
 *
 * An append that changes nothing but data packs its fragment and a few numbers. Every other version
 * says the whole message, so it waits until nothing of that message is in flight; whatever comes
 * for the message meanwhile waits behind it. */
#include "shards/stream_parts.h"

/* ---- who may ---- */

static bool is_same(struct slice a, const struct fold_text *b)
{
    volatile uint8_t different = 0;      /* no early end: the time says nothing */
    if (a.bytes == 0 || !b->set || a.bytes != b->bytes) return false;
    for (uint32_t i = 0; i < a.bytes; i++) different |= a.ptr[i] ^ b->ptr[i];
    return different == 0;
}

static bool is_allowed(const struct content *c, const struct fold *f)
{
    switch ((enum content_scope)c->scope) {
    case CONTENT_PRIVILEGED:
    case CONTENT_ANY: return true;
    case CONTENT_OWN: return is_same(c->actor, &f->owner);
    case CONTENT_NONE: break;
    }
    return false;
}

static void count(struct shard *sh, const struct stream *st, const struct content *c,
                  enum series_mutation_result result)
{
    metric_add(sh->metrics, METRIC_VERSIONED_MESSAGE_MUTATIONS_TOTAL, st->home->app,
               series_mutation(c->r.kind - RECORD_CREATE, result), 1);
}

/* ---- op_id ---- */

static void verify_done(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct stream_wait *w = ctx;
    struct stream_verified *v = &sh->streams->verified;
    struct record record = {0};
    struct slice packed = slice_of(r->bytes, r->bytes_count);
    uint32_t bytes;
    bool found = false;
    while (r->status == STORE_READ_OK && !found && packed.bytes > 0 &&
           record_peek(packed, &record, &bytes) == RECORD_OK) {
        found = record.delivery == w->delivery;   /* a context record may stand before it */
        packed = slice_skip(packed, bytes);
    }
    *v = (struct stream_verified){
        .st = st, .delivery = w->delivery, .record = found ? &record : NULL,
        .failed = r->status == STORE_READ_IO || r->status == STORE_READ_MEMORY,
    };
    sh->streams->again = true;
    shard_handle(sh, &w->letter);
    sh->streams->again = false;
    *v = (struct stream_verified){0};
    stream_read_end(sh, r);
    heap_free(sh->heap, w, sizeof(*w));
}

/* Read the version that carries the hash, then handle the letter again. */
static bool verify(struct shard *sh, struct stream *st, const struct letter *l, uint64_t message,
                   uint64_t delivery)
{
    struct stream_wait *w = heap_zalloc(sh->heap, sizeof(*w));
    struct store_read *r = NULL;
    if (w != NULL) r = stream_read_make(sh, st, STORE_VERSIONS, verify_done, w);
    if (r == NULL) {
        heap_free(sh->heap, w, sizeof(*w));
        return false;
    }
    w->letter = *l;
    w->delivery = delivery;
    r->message = message;
    r->from = delivery - 1;
    r->limit = 1;
    stream_read_post(sh, st, r);
    return true;
}

static void fill_answer(struct content *c, const struct record *r)
{
    c->versioned = true;
    c->delivery = r->delivery;
    c->history = r->history;
    c->time_ms = r->time_ms;
    c->create = r->message;
    c->create_ms = r->message_ms;
}

enum { OP_NEW = -1 };

/* A verdict, or OP_NEW. A hash finds candidates; the version itself decides. */
static int check_op(struct shard *sh, struct stream *st, const struct stream_message *m,
                    const struct letter *l, struct content *c)
{
    const struct stream_verified *v = &sh->streams->verified;
    bool passed = v->st != st;           /* candidates up to the verified one are settled */
    if (c->r.op_hash == 0) return OP_NEW;
    for (uint32_t i = 0; i < m->ops_count; i++) {
        uint64_t delivery = m->ops[2 * i + 1];
        if (m->ops[2 * i] != c->r.op_hash) continue;
        if (delivery > st->now.delivery) {
            return stream_wait_for(sh, st, l, delivery) ? STREAM_WAITS : STREAM_BUSY;
        }
        if (passed) return verify(sh, st, l, m->message, delivery) ? STREAM_WAITS : STREAM_BUSY;
        if (delivery != v->delivery) continue;
        if (v->failed) return STREAM_BUSY;
        passed = true;
        if (v->record == NULL) continue;         /* it ended with its version */
        if (v->record->kind != c->r.kind || !slice_equal(v->record->op_id, c->r.op_id)) continue;
        if (memcmp(v->record->print, c->r.print, sizeof(c->r.print)) != 0) {
            return STREAM_PRINT_DIFFERS;
        }
        fill_answer(c, v->record);
        c->duplicate = true;
        count(sh, st, c, SERIES_MUTATION_DUPLICATE);
        return STREAM_DUPLICATE;
    }
    return OP_NEW;
}

/* ---- the record ---- */

static struct slice text_of(const struct fold_text *t)
{
    return t->set ? slice_of(t->ptr == NULL ? (const uint8_t *)"" : t->ptr, t->bytes)
                  : (struct slice){NULL, 0};
}

static bool keeps_user(const struct content *c, const struct fold *f)
{
    bool of_create = f->context == f->message;
    if (c->r.client.ptr == NULL) return true;
    return !of_create && f->user.set && slice_equal(c->r.client, text_of(&f->user));
}

/* Only data changes: everything else is as the newest whole version says. */
static bool is_plain_append(const struct content *c, const struct fold *f)
{
    return c->r.kind == RECORD_APPEND && !c->extras_given && keeps_user(c, f);
}

static struct slice patched(bool given, struct slice value, bool clear,
                            const struct fold_text *kept)
{
    if (given) return value;
    return clear ? (struct slice){NULL, 0} : text_of(kept);
}

static void fill_whole(const struct content *c, const struct fold *f, struct record *r)
{
    bool of_create = f->context == f->message;
    r->flags |= RECORD_WHOLE;
    r->name = patched(c->name_given, c->r.name, (c->clear & CONTENT_CLEAR_NAME) != 0, &f->name);
    r->extras = patched(c->extras_given, c->r.extras, (c->clear & CONTENT_CLEAR_EXTRAS) != 0,
                        &f->extras);
    if (r->kind != RECORD_APPEND) {
        r->data = patched(c->data_given, c->r.data, (c->clear & CONTENT_CLEAR_DATA) != 0, &f->data);
    }
    r->tags = text_of(&f->tags);
    r->message_id = text_of(&f->message_id);
    if (c->r.client.ptr != NULL) r->user = c->r.client;
    else r->user = of_create ? (struct slice){NULL, 0} : text_of(&f->user);
}

static void note_next(struct stream_message *m, const struct record *r)
{
    bool append = r->kind == RECORD_APPEND && m->next_data_set;
    m->next_data_bytes = r->data.bytes + (append ? m->next_data_bytes - 2 : 0);
    m->next_data_set = r->data.ptr != NULL;
    m->next_data_text = m->next_data_set && r->data.ptr[0] == '"';
    m->next_delivery = r->delivery;
    if ((r->flags & RECORD_WHOLE) != 0) m->next_context = r->delivery;
}

static enum stream_verdict sequence(struct shard *sh, struct stream *st, struct stream_message *m,
                                    struct content *c, bool plain, stream_done done, void *ctx)
{
    struct record r = c->r;
    r.flags = 0;
    r.history = m->fold.history;
    r.message = m->message;
    r.message_ms = m->fold.message_ms;
    memset(r.key, 0, sizeof(r.key));
    r.user = r.owner = r.tags = r.message_id = (struct slice){NULL, 0};
    if (plain) {
        r.context = m->next_context;
        r.name = r.extras = (struct slice){NULL, 0};
    } else {
        fill_whole(c, &m->fold, &r);
    }
    uint64_t data_bytes = r.data.bytes + (r.kind == RECORD_APPEND ? m->next_data_bytes : 0);
    uint64_t record_most = c->bytes_count;
    if (!plain) {
        bool keeps_data = r.kind != RECORD_APPEND && !c->data_given;
        record_most += (uint64_t)(keeps_data ? m->fold.data.bytes : 0) + m->fold.extras.bytes +
                       m->fold.name.bytes + m->fold.tags.bytes;
    }
    if (record_most > STREAM_RECORD_BYTES_MAX || data_bytes > STREAM_RECORD_BYTES_MAX) {
        return STREAM_TOO_LARGE;
    }
    uint64_t delivery = st->next.delivery + 1;
    if (r.op_hash != 0 && !stream_message_op_put(sh, m, r.op_hash, delivery)) return STREAM_BUSY;
    struct stream_item item = {.st = st, .message = m, .done = done, .ctx = ctx};
    fill_answer(c, &r);                  /* before: with relaxed it is answered within */
    c->delivery = delivery;
    c->time_ms = u64_max(sh->re.wall_ms, st->next.time_ms);
    struct stream_message before = *m;
    r.delivery = delivery;
    note_next(m, &r);
    if (stream_sequence(sh, st, &r, &item)) return STREAM_TAKEN;
    if (r.op_hash != 0) m->ops_count--;
    m->next_data_bytes = before.next_data_bytes;
    m->next_data_set = before.next_data_set;
    m->next_data_text = before.next_data_text;
    m->next_delivery = before.next_delivery;
    m->next_context = before.next_context;
    return STREAM_BUSY;
}

/* ---- the verdict ---- */

/* Found and in memory, or a verdict. */
static int find(struct shard *sh, struct stream *st, const struct letter *l, struct content *c,
                struct stream_message **out)
{
    if (st->state == STREAM_LOADING) {
        return stream_wait_for(sh, st, l, 0) ? STREAM_WAITS : STREAM_BUSY;
    }
    if (c->message == 0 || c->message > st->next.delivery) return STREAM_NOT_FOUND;
    if (c->message <= st->ending) {      /* it is for the reset or purge to say */
        return stream_wait_for(sh, st, l, 0) ? STREAM_WAITS : STREAM_BUSY;
    }
    if (c->message > st->now.delivery) {
        return stream_wait_for(sh, st, l, c->message) ? STREAM_WAITS : STREAM_BUSY;
    }
    struct stream_message *m = stream_message_get(sh, st, c->message);
    if (m == NULL || (m->failed && !m->loading)) return STREAM_BUSY;
    if (m->loading) {
        return stream_wait_message(sh, st, l, m->message) ? STREAM_WAITS : STREAM_BUSY;
    }
    if (m->missing || m->fold.message_ms != c->message_ms) return STREAM_NOT_FOUND;
    *out = m;
    return OP_NEW;
}

enum stream_verdict stream_mutate(struct shard *sh, struct stream *st, const struct letter *l,
                                  struct content *c, stream_done done, void *ctx)
{
    struct stream_message *m = NULL;
    int verdict = find(sh, st, l, c, &m);
    if (verdict != OP_NEW) return (enum stream_verdict)verdict;
    if (!is_allowed(c, &m->fold)) {
        count(sh, st, c, SERIES_MUTATION_AUTH_FAILED);
        return STREAM_DENIED;
    }
    verdict = check_op(sh, st, m, l, c);
    if (verdict != OP_NEW) return (enum stream_verdict)verdict;
    bool flies = m->flying > 0 && !st->relaxed;  /* relaxed: what flies has been folded already */
    if (m->barrier && flies && !sh->streams->again) {    /* behind the one that waits for a rest */
        return stream_wait_for(sh, st, l, m->next_delivery) ? STREAM_WAITS : STREAM_BUSY;
    }
    bool sure = !flies || m->next_context == m->fold.context;
    bool plain = sure && is_plain_append(c, &m->fold);
    if (flies && !plain && (c->r.kind != RECORD_APPEND || c->extras_given ||
                            c->r.client.ptr != NULL)) {
        m->barrier = stream_wait_for(sh, st, l, m->next_delivery);
        return m->barrier ? STREAM_WAITS : STREAM_BUSY;
    }
    m->barrier = false;
    if (flies) plain = true;             /* no client, no extras: as the newest whole one says */
    bool text = c->r.kind != RECORD_APPEND || !m->next_data_set || m->next_data_text;
    verdict = text ? (int)sequence(sh, st, m, c, plain, done, ctx) : STREAM_NOT_TEXT;
    /* What has not been committed refuses nobody. */
    if ((verdict != STREAM_NOT_TEXT && verdict != STREAM_TOO_LARGE) || !flies) {
        return (enum stream_verdict)verdict;
    }
    return stream_wait_for(sh, st, l, m->next_delivery) ? STREAM_WAITS : STREAM_BUSY;
}
