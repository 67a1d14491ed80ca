#include "shards/annotation_parts.h"

#include "shards/want_parts.h"

#include <stdio.h>

enum { PAGE_ROWS = 1000, AGAIN_MS = 10000, AGE_PARTS = 64, CHANNEL_BUCKETS_MAX = 1 << 16,
       BUCKETS_MAX = 1 << 18 };
static const char serial_prefix[] = "ann:";

struct annotation_book {
    struct table               channels;
    struct annotation_channel *oldest, *newest;
};

static void on_page(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);

/* ---- serials ---- */

void annotation_serial_write(char out[ANNOTATION_SERIAL_BYTES], uint64_t serial)
{
    snprintf(out, ANNOTATION_SERIAL_BYTES, "%s%020llu", serial_prefix,
             (unsigned long long)serial);
}

bool annotation_serial_parse(struct slice text, uint64_t *serial)
{
    uint64_t n = 0;
    if (text.bytes != ANNOTATION_SERIAL_BYTES - 1 || !slice_starts(text, serial_prefix)) {
        return false;
    }
    for (uint32_t i = sizeof(serial_prefix) - 1; i < text.bytes; i++) {
        uint64_t digit = (uint64_t)text.ptr[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, digit, &n)) {
            return false;
        }
    }
    *serial = n;
    return true;
}

/* ---- opening, closing, forgetting ---- */

err_t annotation_open(struct shard *sh)
{
    struct annotation_book *b = heap_zalloc(sh->heap, sizeof(*b));
    if (b == NULL) return ERR_MEMORY;
    sh->annotations = b;
    return table_open(&b->channels, CHANNEL_BUCKETS_MAX);
}

static void clear(struct shard *sh, struct annotation_channel *ch)
{
    while (ch->subjects_first != NULL) {
        struct annotation_subject *s = ch->subjects_first;
        ch->subjects_first = s->next;
        table_del(&ch->subjects, &s->node);
        annotation_free(&s->summary);
        heap_free(sh->heap, s, (uint32_t)sizeof(*s) + s->message_bytes + s->type_bytes);
    }
    while (ch->deletes_first != NULL) {
        struct annotation_deleted *d = ch->deletes_first;
        ch->deletes_first = d->next;
        table_del(&ch->deletes, &d->node);
        heap_free(sh->heap, d, sizeof(*d));
    }
    ch->bytes = ch->oldest_ms = 0;
}

static void unlist(struct annotation_book *b, struct annotation_channel *ch)
{
    if (ch->older != NULL) ch->older->newer = ch->newer;
    else b->oldest = ch->newer;
    if (ch->newer != NULL) ch->newer->older = ch->older;
    else b->newest = ch->older;
    ch->older = ch->newer = NULL;
}

static void list(struct annotation_book *b, struct annotation_channel *ch)
{
    ch->older = b->newest;
    if (b->newest != NULL) b->newest->newer = ch;
    else b->oldest = ch;
    b->newest = ch;
}

static void channel_free(struct shard *sh, struct annotation_channel *ch)
{
    ASSERT(ch->flying == 0 && ch->waits_first == NULL);
    clear(sh, ch);
    unlist(sh->annotations, ch);
    table_del(&sh->annotations->channels, &ch->node);
    if (ch->opened) {
        table_close(&ch->subjects);
        table_close(&ch->deletes);
    }
    heap_free(sh->heap, ch, (uint32_t)sizeof(*ch) + ch->name_bytes);
}

void annotation_close(struct shard *sh)
{
    struct annotation_book *b = sh->annotations;
    if (b == NULL) return;
    while (b->oldest != NULL) {
        b->oldest->flying = 0;           /* their letters will not come any more */
        b->oldest->waits_first = NULL;
        channel_free(sh, b->oldest);
    }
    table_close(&b->channels);
    heap_free(sh->heap, b, sizeof(*b));
    sh->annotations = NULL;
}

/* So that there are fewer; when memory is short, as many as can be given up. */
static void evict(struct shard *sh, uint32_t fewer_than)
{
    struct annotation_book *b = sh->annotations;
    struct annotation_channel *ch = b->oldest;
    while (ch != NULL && (b->channels.nodes_count >= fewer_than ||
                          heap_used_bytes(sh->heap) >= sh->heap_mark)) {
        struct annotation_channel *newer = ch->newer;
        if (ch->flying == 0 && !ch->loading) channel_free(sh, ch);
        ch = newer;
    }
}

void annotation_tick(struct shard *sh) { evict(sh, UINT32_MAX); }

/* ---- finding and making ---- */

static struct annotation_channel *channel_find(struct shard *sh, uint32_t app, struct slice name)
{
    uint64_t hash = hash_table(sh->server->table_seed, app, name);
    struct table_node *n = table_find(&sh->annotations->channels, hash);
    for (; n != NULL; n = table_find_next(n)) {
        struct annotation_channel *ch = CONTAINER_OF(n, struct annotation_channel, node);
        if (ch->app == app && slice_equal(slice_of(ch->name, ch->name_bytes), name)) return ch;
    }
    return NULL;
}

void annotation_doubt(struct shard *sh, uint32_t app, struct slice channel)
{
    struct annotation_channel *ch = channel_find(sh, app, channel);
    if (ch != NULL && !ch->loading) ch->broken = true;
}

static struct annotation_channel *channel_make(struct shard *sh, uint32_t app, struct slice name)
{
    evict(sh, ANNOTATION_CHANNELS_MAX);
    struct annotation_channel *ch = heap_zalloc(sh->heap, (uint32_t)sizeof(*ch) + name.bytes);
    if (ch == NULL) return NULL;
    ch->app = app;
    ch->name_bytes = name.bytes;
    memcpy(ch->name, name.ptr, name.bytes);
    table_put(&sh->annotations->channels, &ch->node,
              hash_table(sh->server->table_seed, app, name));
    list(sh->annotations, ch);
    return ch;
}

static uint64_t subject_hash(const struct shard *sh, struct slice message)
{
    return hash_table(sh->server->table_seed, 0, message);
}

static void subject_list(struct annotation_channel *ch, struct annotation_subject *s)
{
    s->next = ch->subjects_first;
    s->link = &ch->subjects_first;
    if (s->next != NULL) s->next->link = &s->next;
    ch->subjects_first = s;
}

static void subject_unlist(struct annotation_subject *s)
{
    *s->link = s->next;
    if (s->next != NULL) s->next->link = s->link;
}

static bool open_tables(struct annotation_channel *ch)
{
    if (ch->opened) return true;
    if (table_open(&ch->subjects, BUCKETS_MAX) != OK) return false;
    if (table_open(&ch->deletes, BUCKETS_MAX) != OK) {
        table_close(&ch->subjects);
        return false;
    }
    ch->opened = true;
    return true;
}

static struct annotation_subject *subject_find(const struct shard *sh,
                                               const struct annotation_channel *ch,
                                               struct slice message, struct slice type)
{
    struct table_node *n = !ch->opened ? NULL
                                       : table_find(&ch->subjects, subject_hash(sh, message));
    for (; n != NULL; n = table_find_next(n)) {
        struct annotation_subject *s = CONTAINER_OF(n, struct annotation_subject, node);
        if (slice_equal(annotation_subject_message(s), message) &&
            slice_equal(annotation_subject_type(s), type)) {
            return s;
        }
    }
    return NULL;
}

/* Found or made; NULL at the heap's bound, or when the type is none of ours. */
static struct annotation_subject *subject_get(struct shard *sh, struct annotation_channel *ch,
                                   struct slice message, struct slice type)
{
    char ignored[PUSHER_ERROR_TEXT_BYTES];
    enum annotation_kind kind;
    if (!open_tables(ch)) return NULL;
    struct annotation_subject *found = subject_find(sh, ch, message, type);
    if (found != NULL) return found;
    if (!annotation_type_parse(type, &kind, ignored)) return NULL;
    struct annotation_subject *s =
        heap_zalloc(sh->heap, (uint32_t)sizeof(*s) + message.bytes + type.bytes);
    if (s == NULL) return NULL;
    s->summary.kind = kind;
    s->summary.heap = sh->heap;
    s->message_bytes = message.bytes;
    s->type_bytes = type.bytes;
    memcpy(s->bytes, message.ptr, message.bytes);
    memcpy(s->bytes + message.bytes, type.ptr, type.bytes);
    table_put(&ch->subjects, &s->node, subject_hash(sh, message));
    subject_list(ch, s);
    ch->bytes += sizeof(*s) + message.bytes + type.bytes;
    return s;
}

bool annotation_rows(const struct shard *sh, const struct annotation_channel *ch,
                     struct slice message, struct slice type, uint64_t *first, uint64_t *last)
{
    struct table_node *n = !ch->opened ? NULL
                                       : table_find(&ch->subjects, subject_hash(sh, message));
    *first = UINT64_MAX;
    *last = 0;
    for (; n != NULL; n = table_find_next(n)) {
        const struct annotation_subject *s = CONTAINER_OF(n, struct annotation_subject, node);
        if (!slice_equal(annotation_subject_message(s), message)) continue;
        if (type.ptr != NULL && !slice_equal(annotation_subject_type(s), type)) continue;
        *first = u64_min(*first, s->first_row);
        *last = u64_max(*last, s->last_row);
    }
    return *last > 0;
}

/* ---- deletes ---- */

static uint64_t delete_hash(uint64_t target) { return target * 0x9e3779b97f4a7c15ull; }

static struct annotation_deleted *deleted_of(const struct annotation_channel *ch, uint64_t target)
{
    struct table_node *n = !ch->opened ? NULL : table_find(&ch->deletes, delete_hash(target));
    for (; n != NULL; n = table_find_next(n)) {
        struct annotation_deleted *d = CONTAINER_OF(n, struct annotation_deleted, node);
        if (d->target == target) return d;
    }
    return NULL;
}

bool annotation_delete_find(const struct annotation_channel *ch, uint64_t target,
                            uint64_t *delivery)
{
    const struct annotation_deleted *d = deleted_of(ch, target);
    if (d == NULL) return false;
    *delivery = d->committed ? 0 : d->delivery;
    return true;
}

bool annotation_delete_begin(struct shard *sh, struct annotation_channel *ch, uint64_t target)
{
    struct annotation_deleted *d = open_tables(ch) ? heap_zalloc(sh->heap, sizeof(*d)) : NULL;
    if (d == NULL) return false;
    d->target = target;
    table_put(&ch->deletes, &d->node, delete_hash(target));
    d->next = ch->deletes_first;
    ch->deletes_first = d;
    ch->bytes += sizeof(*d);
    return true;
}

void annotation_delete_sequenced(struct annotation_channel *ch, uint64_t target,
                                 uint64_t delivery)
{
    struct annotation_deleted *d = deleted_of(ch, target);
    if (d != NULL) d->delivery = delivery;
}

static void deleted_forget(struct shard *sh, struct annotation_channel *ch, uint64_t target)
{
    struct annotation_deleted *d = deleted_of(ch, target), **link = &ch->deletes_first;
    if (d == NULL) return;
    while (*link != d) link = &(*link)->next;
    *link = d->next;
    ch->bytes -= sizeof(*d);
    table_del(&ch->deletes, &d->node);
    heap_free(sh->heap, d, sizeof(*d));
}

/* ---- events ---- */

static uint64_t count_of(const struct record *r)
{
    struct json_value v = {.type = JSON_NUMBER, .raw = r->metadata};
    uint64_t n;
    return r->metadata.ptr != NULL && json_u64(&v, &n) ? n : 1;
}

/* NULL at the heap's bound: the summaries are no longer what the events say. */
static struct annotation_subject *apply(struct shard *sh, struct annotation_channel *ch,
                             const struct record *r)
{
    struct annotation_event e = {
        .removed = r->op_id.ptr != NULL, .name = r->description, .client = r->client,
        .count = count_of(r),
    };
    struct annotation_subject *s = subject_get(sh, ch, r->message_id, r->owner);
    uint64_t target, before = s == NULL ? 0 : s->summary.bytes;
    err_t applied = s == NULL ? ERR_MEMORY : annotation_apply(&s->summary, &e);
    if (s != NULL) ch->bytes += s->summary.bytes - before;
    if (applied != OK) return NULL;
    if (ch->oldest_ms == 0) ch->oldest_ms = r->time_ms;
    if (s->first_row == 0) s->first_row = r->history;
    s->last_row = r->history;
    subject_unlist(s);
    subject_list(ch, s);
    if (!e.removed || !annotation_serial_parse(r->op_id, &target)) return s;
    if (deleted_of(ch, target) == NULL && !annotation_delete_begin(sh, ch, target)) return NULL;
    deleted_of(ch, target)->committed = true;
    return s;
}

bool annotation_fits(const struct shard *sh, const struct annotation_channel *ch,
                     const struct record *r)
{
    static const struct annotation_summary none;
    const struct annotation_subject *s = subject_find(sh, ch, r->message_id, r->owner);
    uint64_t most = (uint64_t)sh->conf->annotations_max_channel_mb << 20;
    char ignored[PUSHER_ERROR_TEXT_BYTES];
    enum annotation_kind kind;
    if (ch->bytes + ch->flying_bytes + record_bytes(r) > most) return false;
    if (!annotation_type_parse(r->owner, &kind, ignored) || !annotation_wants_name(kind)) {
        return true;
    }
    return annotation_names_bytes(s == NULL ? &none : &s->summary, r->description) <=
           annotation_frame_bytes_max(sh, ch->app);
}

bool annotation_read_again(const struct shard *sh, struct annotation_channel *ch)
{
    if (sh->re.now_ms - ch->read_ms < AGAIN_MS) return false;
    ch->broken = true;
    return true;
}

void annotation_begin(struct annotation_channel *ch, uint32_t bytes)
{
    ch->flying++;
    ch->flying_bytes += bytes;
}

void annotation_end(struct shard *sh, struct stream *st, struct annotation_channel *ch,
                    uint32_t bytes, const struct record *r, bool committed)
{
    uint64_t target;
    ASSERT(ch->flying > 0 && ch->flying_bytes >= bytes);
    ch->flying--;
    ch->flying_bytes -= bytes;
    if (!committed) {
        if (r->op_id.ptr != NULL && annotation_serial_parse(r->op_id, &target)) {
            deleted_forget(sh, ch, target);
        }
        return;
    }
    const struct annotation_subject *s = apply(sh, ch, r);
    if (s != NULL) annotation_push(sh, st->home, ch, s, r);
    else ch->broken = true;              /* read again before it is used again */
}

/* ---- reading a channel's events ---- */

/* Whoever waited is handled again: he finds the summaries, or asks for them once more. */
static void loaded(struct shard *sh, struct annotation_channel *ch, bool ok,
                   const struct store_read *r)
{
    struct want *w = ch->waits_first;
    ch->waits_first = ch->waits_last = NULL;
    ch->loading = false;
    ch->broken = !ok;
    ch->read_ms = sh->re.now_ms;
    ch->read_wall_ms = sh->re.wall_ms;
    while (w != NULL) {
        struct want *next = w->next;
        struct letter l = want_letter(w);
        w->next = NULL;
        if (ok) want_on_want(sh, &l);
        else want_read_failed(sh, w, r);
        w = next;
    }
}

static bool post(struct shard *sh, struct stream *st, struct annotation_channel *ch)
{
    struct store_read *r = stream_read_make(sh, st, STORE_ROWS, on_page, ch);
    if (r == NULL) return false;
    r->upto = st->now.delivery;
    r->rows_upto = r->time_upto_ms = UINT64_MAX;
    r->rows_after = ch->read_upto;
    r->limit = ch->rows;
    r->bytes_max = ch->rows == 1 ? RECORD_BYTES_MAX : 0;
    stream_read_post(sh, st, r);
    return true;
}

static void on_page(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct annotation_channel *ch = ctx;
    struct want_walk walk = want_walk_begin(r);
    struct record record;
    bool ok = r->status == STORE_READ_OK, again = r->more;
    if (r->status == STORE_READ_LARGE && ch->rows > 1) {
        ch->rows = (ch->rows + 1) / 2;
        ok = again = true;
    }
    while (ok && want_walk_next(&walk, &record)) {
        ok = apply(sh, ch, &record) != NULL;
        if (!ok) r->status = STORE_READ_MEMORY;
        ch->read_upto = record.history;
    }
    if (ok && again) {
        if (post(sh, st, ch)) {
            stream_read_end(sh, r);
            return;
        }
        ok = false;
        r->status = STORE_READ_MEMORY;
    }
    if (r->status == STORE_READ_IO) stream_degrade(sh, st, true);
    loaded(sh, ch, ok, r);
    stream_read_end(sh, r);
}

/* What has left the log with its age is not counted any more; what had left it for a clock that has
 * been set back is again. A busy channel loses events all the time, so that shows a part of their
 * age late. */
static bool has_aged(const struct shard *sh, const struct stream *st,
                     const struct annotation_channel *ch)
{
    uint64_t age_ms = conf_policy_annotations_age_ms(st->policy);
    uint64_t late_ms = u64_max(AGAIN_MS, age_ms / AGE_PARTS);
    bool aged = ch->oldest_ms > 0 && ch->oldest_ms + age_ms < sh->re.wall_ms;
    return age_ms > 0 && (aged || sh->re.wall_ms < ch->read_wall_ms) &&
           sh->re.now_ms - ch->read_ms >= late_ms;
}

struct annotation_channel *annotation_get(struct shard *sh, struct stream *st, struct want *w)
{
    struct annotation_channel *ch = channel_find(sh, w->app, w->channel);
    if (ch != NULL && !ch->loading && has_aged(sh, st, ch)) ch->broken = true;
    if (ch != NULL && !ch->loading && !ch->broken) {
        unlist(sh->annotations, ch);
        list(sh->annotations, ch);
        return ch;
    }
    if (ch != NULL && ch->broken && ch->flying > 0) {
        want_wait(sh, st, w, st->next.delivery);     /* read them when all have landed */
        return NULL;
    }
    if (ch == NULL) ch = channel_make(sh, w->app, w->channel);
    if (ch == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return NULL;
    }
    if (!ch->loading) {
        clear(sh, ch);
        ch->broken = false;
        ch->read_upto = 0;
        ch->rows = PAGE_ROWS;
        ch->loading = true;
        if (!post(sh, st, ch)) {
            ch->loading = false;
            ch->broken = true;
            want_busy(sh, w, "Server is at its memory limit");
            return NULL;
        }
    }
    if (ch->waits_last == NULL) ch->waits_first = w;
    else ch->waits_last->next = w;
    ch->waits_last = w;
    return NULL;
}
