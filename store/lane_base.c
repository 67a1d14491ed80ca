/* A message's base is its state folded as of one of its versions, so that a read folds only what
 * came after it. A new one is made when the fragments since the last are as long as that: an
 * append's share of all bases stays a constant number of its own bytes.
 *
 * wants: a direct-mapped table of messages that grow. Two that meet in one place forget each other,
 * which costs reads some work and nothing else. So does a message whose stored records are wrong:
 * it gets no base, its channel tells its readers, and the lane goes on.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"
#include "store/fold.h"
#include "store/lane_parts.h"

enum {
    WANTS = 1024, DUE_MAX = 256,
    BASE_FROM_BYTES = 16 << 10,          /* shorter messages are read from their records */
    PARTS_MAX = 1 << 16, BASE_BYTES_MAX = 16 << 20,
};

struct want { uint64_t chan, message; uint32_t bytes, need; bool due; };

struct lane_base {
    struct want wants[WANTS];
    uint16_t    due[DUE_MAX];            /* places in wants, a ring */
    uint32_t    due_first, due_count;
};

err_t lane_base_open(struct lane *l)
{
    l->base = calloc(1, sizeof *l->base);
    return l->base == NULL ? ERR_MEMORY : OK;
}

void lane_base_close(struct lane *l)
{
    free(l->base);
    l->base = NULL;
}

void lane_base_want(struct lane *l, uint64_t chan, uint64_t message, uint32_t bytes)
{
    struct lane_base *b = l->base;
    uint16_t place = (uint16_t)((chan * 0x9e3779b97f4a7c15u + message * 0xc2b2ae3d27d4eb4fu) >> 54);
    struct want *w = &b->wants[place];
    static_assert(WANTS == 1 << 10, "the top 10 bits are a place");
    if (w->chan != chan || w->message != message) {
        *w = (struct want){.chan = chan, .message = message, .need = BASE_FROM_BYTES,
                           .due = w->due};
    }
    w->bytes = u32_min(w->bytes, UINT32_MAX - bytes) + bytes;
    if (w->bytes < w->need || w->due || b->due_count == DUE_MAX) return;
    w->due = true;
    b->due[(b->due_first + b->due_count++) % DUE_MAX] = place;
}

bool lane_base_waiting(const struct lane *l)
{
    return !l->damaged && l->base->due_count > 0;
}

/* ---- making one ---- */

struct making {
    struct lane       *lane;
    MDB_txn           *txn;
    uint64_t           chan, message;
    struct format_base base;             /* the one before; delivery 0: none */
    struct slice       base_ops, base_record;
    uint64_t          *parts;            /* owned; newest first */
    uint32_t           parts_count, parts_room;
    uint64_t           bytes;            /* of the records in them */
    struct fold        fold;
    uint64_t          *ops;              /* owned; pairs */
    uint32_t           ops_count, ops_room;
};

/* The parts behind the last base. */
static err_t find_parts(struct making *m)
{
    struct format_key key = format_key3(m->chan, m->message, FORMAT_PART_BASE);
    MDB_val k = lane_key(&key), v;
    MDB_cursor *cursor;
    err_t e = lane_error(mdb_cursor_open(m->txn, m->lane->dbis[FORMAT_MSGS], &cursor));
    if (e != OK) return e;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    uint64_t chan, message, part;
    struct slice offsets;
    if (rc == MDB_SUCCESS && slice_equal(lane_slice(k), slice_of(key.bytes, key.count))) {
        if (!format_base_read(lane_slice(v), &m->base, &m->base_ops, &m->base_record)) {
            e = ERR_IO;
        }
    }
    if (rc == MDB_SUCCESS || rc == MDB_NOTFOUND) {
        rc = mdb_cursor_get(cursor, &k, &v, rc == MDB_SUCCESS ? MDB_PREV : MDB_LAST);
    }
    for (; e == OK && rc == MDB_SUCCESS; rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV)) {
        struct format_part p;
        if (!format_key_part(lane_slice(k), 0, &chan) || chan != m->chan ||
            !format_key_part(lane_slice(k), 1, &message) || message != m->message ||
            !format_key_part(lane_slice(k), 2, &part)) {
            break;
        }
        if (!format_part_read(lane_slice(v), &p, &offsets)) {
            e = ERR_IO;
            break;
        }
        if (p.last <= m->base.delivery || m->parts_count == PARTS_MAX) break;
        if (m->parts_count == m->parts_room) {
            uint32_t room = m->parts_room == 0 ? 64 : m->parts_room * 2;
            uint64_t *grown = realloc(m->parts, room * sizeof *grown);
            e = grown == NULL ? ERR_MEMORY : OK;
            if (e != OK) break;
            m->parts = grown;
            m->parts_room = room;
        }
        m->parts[m->parts_count++] = part;
        m->bytes += p.records_bytes;
    }
    mdb_cursor_close(cursor);
    return e == OK && rc != MDB_SUCCESS && rc != MDB_NOTFOUND ? lane_error(rc) : e;
}

static err_t take(struct making *m, const struct record *r)
{
    err_t e = fold_apply(&m->fold, r);
    if (e != OK || r->op_hash == 0) return e;
    if (m->ops_count == m->ops_room) {
        uint32_t room = m->ops_room == 0 ? 64 : m->ops_room * 2;
        uint64_t *grown = realloc(m->ops, room * 2 * sizeof *grown);
        if (grown == NULL) return ERR_MEMORY;
        m->ops = grown;
        m->ops_room = room;
    }
    m->ops[2 * m->ops_count] = r->op_hash;
    m->ops[2 * m->ops_count + 1] = r->delivery;
    m->ops_count++;
    return OK;
}

/* The state to go on from: the last base, or the create. */
static err_t begin(struct making *m)
{
    struct record r;
    uint32_t bytes;
    if (m->base.delivery != 0) {
        if (record_read(m->base_record, &r, &bytes) != RECORD_OK) return ERR_IO;
        m->fold.appends = m->base.appends;
        m->fold.versions = m->base.versions;
        m->ops_room = m->base.ops_count;
        m->ops = malloc(m->base_ops.bytes + 1);
        if (m->ops == NULL) return ERR_MEMORY;
        memcpy(m->ops, m->base_ops.ptr, m->base_ops.bytes);
        m->ops_count = m->base.ops_count;
        return take(m, &r);
    }
    struct lane_view v;
    struct slice value, rest, rows;
    struct format_segment seg;
    err_t e = lane_view_open(&v, m->txn, m->lane->dbis, m->chan, NULL, 0);
    if (e != OK) return e;
    if (!lane_segment_at(&v, m->message, &value, &e)) return ERR_IO;
    if (!format_segment_read(value, &seg, &rest, &rows)) return ERR_IO;
    for (; rest.bytes > 0; rest = slice_skip(rest, bytes)) {
        if (record_read(rest, &r, &bytes) != RECORD_OK) break;
        if (r.delivery == m->message) return take(m, &r);
    }
    return ERR_IO;
}

static err_t take_part(struct making *m, uint64_t part)
{
    struct format_key key = format_key3(m->chan, m->message, part);
    struct slice value, offsets, records, rows;
    struct format_part p;
    struct format_segment seg;
    bool found;
    err_t e = lane_get(m->lane, m->txn, FORMAT_MSGS, &key, &value, &found);
    if (e != OK || !found || !format_part_read(value, &p, &offsets)) return ERR_IO;
    key = format_key2(m->chan, part);
    e = lane_get(m->lane, m->txn, FORMAT_SEGMENTS, &key, &value, &found);
    if (e != OK || !found || !format_segment_read(value, &seg, &records, &rows)) return ERR_IO;
    for (uint32_t i = 0; i < p.records_count; i++) {
        struct record r;
        uint32_t offset = format_offset_at(offsets, i), bytes;
        if (offset >= records.bytes ||
            record_read(slice_skip(records, offset), &r, &bytes) != RECORD_OK) {
            return ERR_IO;
        }
        if (r.delivery <= m->fold.delivery) continue;
        e = take(m, &r);
        if (e != OK) return e;
    }
    return OK;
}

static err_t put_base(struct making *m)
{
    struct record r;
    fold_record(&m->fold, &r);
    uint32_t ops_bytes = m->ops_count * 2 * (uint32_t)sizeof(uint64_t);
    struct format_base base = {.delivery = m->fold.delivery, .appends = m->fold.appends,
                               .versions = m->fold.versions, .ops_count = m->ops_count,
                               .record_bytes = record_bytes(&r)};
    struct format_key key = format_key3(m->chan, m->message, FORMAT_PART_BASE);
    MDB_val k = lane_key(&key), v = {sizeof base + ops_bytes + base.record_bytes, NULL};
    int rc = mdb_put(m->txn, m->lane->dbis[FORMAT_MSGS], &k, &v, MDB_RESERVE);
    if (rc != MDB_SUCCESS) return lane_error(rc);
    uint8_t *to = v.mv_data;
    memcpy(to, &base, sizeof base);
    if (ops_bytes > 0) memcpy(to + sizeof base, m->ops, ops_bytes);
    (void)record_write(&r, to + sizeof base + ops_bytes);
    base.check = format_check(lane_slice(v), (uint32_t)sizeof base + ops_bytes, base.record_bytes);
    memcpy(to, &base.check, sizeof base.check);
    return OK;
}

/* Folds what the next base will say. *due false: there is to be none yet. */
static err_t make(struct making *m, struct want *w, bool *due)
{
    struct lane_view v;
    err_t e = lane_view_open(&v, m->txn, m->lane->dbis, m->chan, NULL, 0);
    if (e != OK || !v.known || m->message < v.head.floor) return e;   /* retention was faster */
    e = find_parts(m);
    if (e != OK) return e;
    uint64_t need = u64_max(m->base.record_bytes, BASE_FROM_BYTES);
    if (m->bytes < need) {
        w->need = (uint32_t)(need - m->bytes);
        return OK;
    }
    w->need = (uint32_t)u64_min(m->bytes + need, BASE_BYTES_MAX);
    if (m->bytes + m->base.record_bytes > BASE_BYTES_MAX) return OK;
    if (m->parts_count == PARTS_MAX) return OK;            /* older ones may be missing */
    e = begin(m);
    while (e == OK && m->parts_count > 0) e = take_part(m, m->parts[--m->parts_count]);
    *due = e == OK;
    return e;
}

static void report(const struct making *m)
{
    char lane[12], chan[24], message[24];
    (void)snprintf(lane, sizeof lane, "%u", m->lane->index);
    (void)snprintf(chan, sizeof chan, "%llu", (unsigned long long)m->chan);
    (void)snprintf(message, sizeof message, "%llu", (unsigned long long)m->message);
    LOG(LOG_ERROR, "the stored records of a message are wrong: run weftctl store check", "lane",
        lane, "number", chan, "message", message);
}

err_t lane_base_some(struct lane *l, MDB_txn *txn)
{
    struct lane_base *b = l->base;
    if (b->due_count == 0) return OK;
    struct want *w = &b->wants[b->due[b->due_first]];
    b->due_first = (b->due_first + 1) % DUE_MAX;
    b->due_count--;
    w->due = false;
    w->bytes = 0;
    struct making m = {.lane = l, .txn = txn, .chan = w->chan, .message = w->message};
    bool due = false;
    err_t e = make(&m, w, &due);
    if (e == ERR_IO) {                     /* nothing was put */
        report(&m);
        w->need = BASE_BYTES_MAX;          /* not over and over */
    }
    e = due ? put_base(&m) : OK;           /* without memory a later append asks again */
    fold_free(&m.fold);
    free(m.parts);
    free(m.ops);
    return e;
}
