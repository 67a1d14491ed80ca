#include "read_model.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- growing ---- */

static void *need(void *ptr, size_t count, size_t size)
{
    void *grown = reallocarray(ptr, count, size);
    assert_non_null(grown);
    return grown;
}

void model_open(struct model *m, struct kit *k, struct rng *rng, const char *app_id,
                const char *channel)
{
    *m = (struct model){.kit = k, .rng = rng, .app_id = slice_str(app_id),
                        .channel = slice_str(channel), .history_next = 1, .text_max = 200,
                        .time_ms = kit_now_ms};
    m->chan = kit_channel(k, m->app_id, m->channel);
}

void model_close(struct model *m)
{
    for (uint32_t i = 0; i < m->count; i++) free(m->records[i].packed);
    free(m->records);
    free(m->messages);
}

const struct record *model_record_at(const struct model *m, uint64_t delivery)
{
    assert_in_range(delivery, 1, m->count);
    return &m->records[delivery - 1].r;
}

static void publish(struct model *m, const struct record *r)
{
    uint32_t bytes;
    if (m->count == m->room) {
        m->room = m->room == 0 ? 256 : 2 * m->room;
        m->records = need(m->records, m->room, sizeof *m->records);
    }
    struct model_record *to = &m->records[m->count++];
    to->bytes = record_bytes(r);
    to->packed = need(NULL, 1, to->bytes);
    (void)record_write(r, to->packed);
    assert_int_equal(record_read(slice_of(to->packed, to->bytes), &to->r, &bytes), RECORD_OK);
    assert_int_equal(r->delivery, m->count);
    kit_add(m->kit, r);
}

/* A JSON string of random length in a buffer that stays until the next but three. */
static struct slice text(struct model *m)
{
    static uint8_t buffers[4][1 << 17];
    static uint32_t turn;
    uint8_t *p = buffers[turn++ % 4];
    uint32_t bytes = (uint32_t)rng_below(m->rng, m->text_max);
    if (rng_below(m->rng, 50) == 0) bytes *= 20;
    if (bytes > sizeof buffers[0] - 2) bytes = sizeof buffers[0] - 2;
    uint8_t fill = (uint8_t)('a' + rng_below(m->rng, 26));
    p[0] = '"';
    for (uint32_t i = 0; i < bytes; i++) p[1 + i] = (uint8_t)(fill + (i & 1));
    p[1 + bytes] = '"';
    return slice_of(p, bytes + 2);
}

static uint64_t pass_time(struct model *m)
{
    if (rng_below(m->rng, 4) == 0) kit_now_ms += rng_below(m->rng, 40);
    m->time_ms = u64_max(m->time_ms, kit_now_ms);
    return m->time_ms;
}

static void create(struct model *m)
{
    static const char *const user[] = {"ann", "bob"};
    struct record r = {
        .kind = m->plain ? RECORD_PLAIN : RECORD_CREATE, .flags = RECORD_WHOLE, .chan = m->chan,
        .delivery = m->count + 1, .history = m->history_next++, .message = m->count + 1,
        .context = m->count + 1, .name = slice_str("\"note\""), .data = text(m),
    };
    r.time_ms = r.message_ms = pass_time(m);
    if (rng_below(m->rng, 2) == 0) r.extras = slice_str("{\"headers\":{\"a\":1}}");
    if (rng_below(m->rng, 3) == 0) r.owner = slice_str(user[rng_below(m->rng, 2)]);
    if (rng_below(m->rng, 3) == 0) r.tags = slice_str("{\"t\":\"x\"}");
    if (rng_below(m->rng, 2) == 0) {
        uint64_t key = rng_next(m->rng) | 1;
        memcpy(r.key, &key, sizeof key);
        memcpy(r.print, &key, sizeof key);
    }
    publish(m, &r);
    if (m->plain) return;
    if (m->messages_count == m->messages_room) {
        m->messages_room = m->messages_room == 0 ? 64 : 2 * m->messages_room;
        m->messages = need(m->messages, m->messages_room, sizeof *m->messages);
    }
    m->messages[m->messages_count++] =
        (struct model_message){r.message, r.history, r.time_ms, r.delivery};
}

static void change(struct model *m, struct model_message *x)
{
    uint64_t dice = rng_below(m->rng, 20);
    struct record r = {
        .kind = dice == 0 ? RECORD_DELETE : dice <= 2 ? RECORD_UPDATE : RECORD_APPEND,
        .chan = m->chan, .delivery = m->count + 1, .history = x->history, .message = x->message,
        .time_ms = pass_time(m), .message_ms = x->time_ms, .data = text(m),
        .op_hash = rng_below(m->rng, 3) == 0 ? rng_next(m->rng) | 1 : 0,
    };
    if (r.kind != RECORD_APPEND || dice == 3) {
        r.flags = RECORD_WHOLE;
        r.name = slice_str("\"changed\"");
        r.extras = slice_str("{\"headers\":{\"b\":2}}");
        r.message_id = slice_str("id-1");
        x->context = r.delivery;
    }
    if (r.kind == RECORD_DELETE && rng_below(m->rng, 2) == 0) r.data = (struct slice){NULL, 0};
    if (rng_below(m->rng, 4) == 0) r.client = slice_str("carol");
    if (rng_below(m->rng, 5) == 0) r.metadata = slice_str("{\"why\":[1,2]}");
    if (rng_below(m->rng, 5) == 0) r.description = slice_str("because");
    r.context = x->context;
    publish(m, &r);
}

/* Mostly the newest messages change, now and then any. */
void model_grow(struct model *m, uint32_t records)
{
    enum { NEW_ONES = 6 };
    for (uint32_t i = 0; i < records; i++) {
        uint32_t n = m->messages_count;
        if (n == 0 || rng_below(m->rng, 4) == 0) {
            create(m);
            continue;
        }
        uint32_t back = (uint32_t)rng_below(m->rng, rng_below(m->rng, 10) == 0 ? n :
                                            u32_min(n, NEW_ONES));
        change(m, &m->messages[n - 1 - back]);
    }
}

void model_truncate(struct model *m, uint32_t count)
{
    assert_in_range(count, 0, m->count);
    while (m->count > count) free(m->records[--m->count].packed);
    m->messages_count = 0;
    m->history_next = 1;
    for (uint32_t i = 0; i < count; i++) {
        const struct record *r = &m->records[i].r;
        if (record_is_row(r)) {
            m->history_next = r->history + 1;
            m->messages[m->messages_count++] = (struct model_message){
                r->message, r->history, r->time_ms, r->delivery};
            continue;
        }
        for (uint32_t n = 0; n < m->messages_count; n++) {
            if (m->messages[n].message == r->message) m->messages[n].context = r->context;
        }
    }
}

void model_reset(struct model *m)
{
    struct record r = {.kind = RECORD_RESET, .chan = m->chan, .message = m->count,
                       .history = ++m->history_epoch, .time_ms = pass_time(m)};
    kit_add(m->kit, &r);
    m->reset_floor = m->count;
    m->history_next = 1;
}

void model_purge(struct model *m, uint64_t upto)
{
    struct record r = {.kind = RECORD_PURGE, .chan = m->chan, .message = upto,
                       .time_ms = pass_time(m)};
    kit_add(m->kit, &r);
    m->purge_floor = u64_max(m->purge_floor, upto);
}

/* ---- answers ---- */

void model_answer_free(struct model_answer *a)
{
    free(a->bytes);
    *a = (struct model_answer){.bytes = NULL};
}

static void put(struct model_answer *a, const struct record *r, uint8_t flags)
{
    struct record copy = *r;
    copy.flags |= flags;
    uint32_t bytes = record_bytes(&copy);
    if (a->bytes_count + bytes > a->bytes_room) {
        a->bytes_room = 2 * (a->bytes_count + bytes);
        a->bytes = need(a->bytes, 1, a->bytes_room);
    }
    a->bytes_count += record_write(&copy, a->bytes + a->bytes_count);
    a->records++;
}

static bool is_row(const struct record *r)
{
    return r->kind == RECORD_CREATE || r->kind == RECORD_PLAIN;
}

void model_floors(const struct model *m, uint64_t upto, struct model_floors *out)
{
    const struct store_policy *p = &kit_policy;
    uint64_t rows = 0, bytes = 0, n = 0, b = 0, oldest = 0;
    uint64_t since = p->age_ms > 0 && p->age_ms < kit_now_ms ? kit_now_ms - p->age_ms : 0;
    uint64_t version_since =
        p->version_age_ms < kit_now_ms ? kit_now_ms - p->version_age_ms : 0;

    *out = (struct model_floors){.row = upto + 1, .version = upto + 1};
    for (uint64_t d = 1; d <= upto; d++) {
        if (!is_row(&m->records[d - 1].r)) continue;
        rows++;
        bytes += m->records[d - 1].bytes;
    }
    for (uint64_t d = 1; d <= upto; d++) {
        const struct model_record *x = &m->records[d - 1];
        if (x->r.time_ms >= version_since) out->version = u64_min(out->version, d);
        if (!is_row(&x->r)) continue;
        bool kept = d > m->purge_floor && x->r.time_ms >= since;
        if (p->messages_max > 0 && rows > p->messages_max && n < rows - p->messages_max) {
            kept = false;
        }
        if (p->bytes_max > 0 && bytes > p->bytes_max && b < bytes - p->bytes_max) kept = false;
        n++;
        b += x->bytes;
        if (kept && oldest == 0) oldest = d;
        if (!kept || d <= m->reset_floor) continue;
        if (out->rows_count++ == 0) {
            out->row = d;
            out->rows_first = x->r.history;
        }
        out->rows_newest = x->r.history;
        out->rows_bytes += x->bytes;
    }
    if (p->version_age_ms == 0) out->version = 1;
    if (p->version_age_ms == UINT64_MAX) out->version = oldest > 0 ? oldest : upto + 1;
    out->version = u64_max(out->version, m->purge_floor + 1);
    out->replay = u64_min(out->row, out->version);
}

bool model_range(const struct model *m, uint64_t from, uint64_t upto, uint64_t replay,
                 struct model_answer *out)
{
    bool whole = true;
    *out = (struct model_answer){.bytes = NULL};
    uint8_t *shown = need(NULL, 1, m->count + 1);
    memset(shown, 0, m->count + 1);
    for (uint64_t d = from + 1; d <= upto; d++) {
        const struct record *r = model_record_at(m, d);
        bool needs = r->kind == RECORD_APPEND && (r->flags & RECORD_WHOLE) == 0;
        if (needs && r->context <= from && !shown[r->context]) {
            shown[r->context] = 1;
            whole = whole && r->context >= replay;
            put(out, model_record_at(m, r->context), RECORD_CONTEXT);
        }
        put(out, r, 0);
    }
    free(shown);
    return whole;
}

/* ---- messages ---- */

struct state { struct record r; uint8_t *data; uint32_t bytes; };

static void apply(struct state *s, const struct record *r)
{
    struct record before = s->r;
    bool append = r->kind == RECORD_APPEND;
    s->r = *r;
    s->r.owner = before.owner;
    if (append && (r->flags & RECORD_WHOLE) == 0) {
        s->r.name = before.name;
        s->r.extras = before.extras;
        s->r.tags = before.tags;
        s->r.message_id = before.message_id;
        s->r.user = before.user;
    }
    if (append && before.data.ptr != NULL) {
        s->data = need(s->data, 1, s->bytes + r->data.bytes);
        memcpy(s->data + s->bytes - 1, r->data.ptr + 1, r->data.bytes - 1);
        s->bytes += r->data.bytes - 2;
    } else {
        s->data = need(s->data, 1, r->data.bytes + 1);
        if (r->data.bytes > 0) memcpy(s->data, r->data.ptr, r->data.bytes);
        s->bytes = r->data.bytes;
    }
    s->r.data = r->data.ptr == NULL ? r->data : slice_of(s->data, s->bytes);
}

bool model_keeps(const struct model *m, uint64_t message, uint64_t upto)
{
    struct model_floors floors;
    model_floors(m, upto, &floors);
    if (message < u64_min(floors.row, floors.version)) return false;
    for (uint64_t d = u64_max(message, floors.version); d <= upto; d++) {
        if (d == message || model_record_at(m, d)->message == message) return true;
    }
    return false;
}

bool model_message(const struct model *m, uint64_t message, uint64_t upto,
                   struct model_answer *out, uint32_t *versions, uint32_t *appends, uint32_t *ops)
{
    struct state s = {.bytes = 0};
    *out = (struct model_answer){.bytes = NULL};
    *versions = *appends = *ops = 0;
    if (message == 0 || message > upto || !is_row(model_record_at(m, message))) return false;
    const struct record *first = model_record_at(m, message);
    s.r = *first;
    s.data = need(NULL, 1, first->data.bytes + 1);
    memcpy(s.data, first->data.ptr, first->data.bytes);
    s.bytes = first->data.bytes;
    s.r.data = slice_of(s.data, s.bytes);
    for (uint64_t d = message + 1; d <= upto; d++) {
        const struct record *r = model_record_at(m, d);
        if (r->message != message) continue;
        apply(&s, r);
        ++*versions;
        *appends += r->kind == RECORD_APPEND;
        *ops += r->op_hash != 0;
    }
    s.r.flags = RECORD_WHOLE | RECORD_FOLDED;
    s.r.op_hash = 0;
    memset(s.r.key, 0, sizeof s.r.key);
    memset(s.r.print, 0, sizeof s.r.print);
    put(out, &s.r, 0);
    free(s.data);
    return true;
}

void model_versions(const struct model *m, const struct store_read *r, struct model_answer *out)
{
    uint32_t items = 0;
    struct model_floors floors;
    uint64_t first = r->newest_first ? (r->from == 0 ? r->upto : r->from - 1) : r->from + 1;
    uint8_t *shown = need(NULL, 1, m->count + 1);
    *out = (struct model_answer){.bytes = NULL};
    memset(shown, 0, m->count + 1);
    model_floors(m, r->upto, &floors);
    if (!r->newest_first) first = u64_max(first, floors.version);
    for (uint64_t d = first; d >= floors.version && d <= r->upto;
         d = r->newest_first ? d - 1 : d + 1) {
        const struct record *x = model_record_at(m, d);
        if (x->message != r->message) continue;
        if (r->limit != 0 && items == r->limit) {
            out->more = true;
            break;
        }
        bool needs = x->kind == RECORD_APPEND && (x->flags & RECORD_WHOLE) == 0;
        if (needs && !shown[x->context]) {
            shown[x->context] = 1;
            put(out, model_record_at(m, x->context), RECORD_CONTEXT);
        }
        if (!needs) shown[d] = 1;
        put(out, x, 0);
        items++;
    }
    free(shown);
}

/* ---- rows ---- */

static bool row_matches(const struct store_read *r, const struct record *x)
{
    if (x->history < r->rows_from || x->history > r->rows_upto) return false;
    if (x->time_ms < r->time_from_ms || x->time_ms > r->time_upto_ms) return false;
    if (r->rows_after == 0) return true;
    return r->newest_first ? x->history < r->rows_after : x->history > r->rows_after;
}

void model_rows(const struct model *m, const struct store_read *r, struct model_answer *out)
{
    struct model_floors floors;
    uint32_t items = 0, versions, appends, ops;
    *out = (struct model_answer){.bytes = NULL};
    model_floors(m, r->upto, &floors);
    uint64_t first = r->newest_first ? r->upto : floors.row;
    for (uint64_t d = first; d >= floors.row && d <= r->upto; d = r->newest_first ? d - 1 : d + 1) {
        const struct record *x = model_record_at(m, d);
        if (!is_row(x) || !row_matches(r, x)) continue;
        if (items == r->limit) {
            out->more = true;
            break;
        }
        put(out, x, 0);
        items++;
        struct model_answer folded;
        if (x->kind == RECORD_CREATE && model_keeps(m, d, r->upto) &&
            model_message(m, d, r->upto, &folded, &versions, &appends, &ops)) {
            struct record f;
            uint32_t bytes;
            assert_int_equal(record_read(slice_of(folded.bytes, folded.bytes_count), &f, &bytes),
                             RECORD_OK);
            if (versions > 0) put(out, &f, 0);
            model_answer_free(&folded);
        }
    }
}
