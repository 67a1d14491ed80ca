#include <stdlib.h>

#include "store/reader.h"

/* ---- what the tail has of each message ---- */

static int mutation_order(const void *a, const void *b)
{
    const struct lane_entry *x = *(const struct lane_entry *const *)a;
    const struct lane_entry *y = *(const struct lane_entry *const *)b;
    if (x->message != y->message) return x->message < y->message ? -1 : 1;
    return x->delivery < y->delivery ? -1 : x->delivery > y->delivery;
}

/* One sort a snapshot, so that a page of rows does not look through the tail for each of them. */
static int know_mutations(struct reader_source *s)
{
    uint32_t count = 0;
    if (s->mutations_known) return STORE_READ_OK;
    for (uint32_t i = 0; i < s->view.tail_count; i++) count += !s->view.tail[i].row;
    if (count > 0) {
        s->mutations = malloc(count * sizeof *s->mutations);
        if (s->mutations == NULL) return STORE_READ_MEMORY;
        for (uint32_t i = 0; i < s->view.tail_count; i++) {
            if (!s->view.tail[i].row) s->mutations[s->mutations_count++] = &s->view.tail[i];
        }
        qsort(s->mutations, count, sizeof *s->mutations, mutation_order);
    }
    s->mutations_known = true;
    return STORE_READ_OK;
}

/* Index of the first mutation of the tail at or behind (message, delivery). */
static uint32_t mutation_from(const struct reader_source *s, uint64_t message, uint64_t delivery)
{
    uint32_t low = 0, high = s->mutations_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct lane_entry *e = s->mutations[middle];
        if (e->message < message || (e->message == message && e->delivery < delivery)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* ---- parts ---- */

/* The part of the message whose segment holds `at`, else its neighbour in the direction. */
static int part_seek(const struct reader_source *s, uint64_t message, uint64_t at, bool backward,
                     uint64_t *part, struct slice *value)
{
    struct format_key want = format_key3(s->view.chan, message, at);
    MDB_val key = lane_key(&want), data;
    MDB_cursor *c;
    uint64_t chan = 0, owner = 0, first = 0;
    int status = STORE_READ_NOT_FOUND;

    if (mdb_cursor_open(s->view.txn, s->view.dbis[FORMAT_MSGS], &c) != 0) return STORE_READ_IO;
    int e = mdb_cursor_get(c, &key, &data, MDB_SET_RANGE);
    bool exact = e == 0 && key.mv_size == want.count &&
                 memcmp(key.mv_data, want.bytes, want.count) == 0;
    if (backward && !exact) e = mdb_cursor_get(c, &key, &data, e == 0 ? MDB_PREV : MDB_LAST);
    if (e == 0) {
        if (!format_key_part(lane_slice(key), 0, &chan) ||
            !format_key_part(lane_slice(key), 1, &owner) ||
            !format_key_part(lane_slice(key), 2, &first)) {
            status = STORE_READ_IO;
        } else if (chan == s->view.chan && owner == message && first != FORMAT_PART_BASE) {
            *part = first;
            *value = lane_slice(data);
            status = STORE_READ_OK;
        }
    } else if (e != MDB_NOTFOUND) {
        status = STORE_READ_IO;
    }
    mdb_cursor_close(c);
    return status;
}

static int part_read(struct reader_walk *w, uint64_t part, struct slice value)
{
    struct reader_source *s = w->s;
    struct format_part p;

    if (!format_part_read(value, &p, &w->offsets) || p.records_count == 0) return STORE_READ_IO;
    int status = reader_segment_load(s, part, READER_ASIDE);
    if (status != STORE_READ_OK) return status;
    const struct reader_segment *g = &s->segments[READER_ASIDE];
    if (g->seg.first != part || p.first < part || p.last > g->seg.last) return STORE_READ_IO;
    w->records = g->records;
    w->part = part;
    w->index = w->backward ? p.records_count : 0;
    w->part_loaded = true;
    s->touched += value.bytes;
    return STORE_READ_OK;
}

/* The part that the walk goes on with, behind (or before) what it has given. */
static int part_next(struct reader_walk *w)
{
    uint64_t part;
    struct slice value;
    int status;

    if (w->part_loaded) {                      /* its neighbour */
        w->part_loaded = false;
        if (w->backward && w->part == 0) return STORE_READ_NOT_FOUND;
        status = part_seek(w->s, w->message, w->backward ? w->part - 1 : w->part + 1, w->backward,
                           &part, &value);
    } else if (w->backward) {
        status = part_seek(w->s, w->message, w->at - 1, true, &part, &value);
    } else {                                   /* the one that may hold at + 1 begins before it */
        status = part_seek(w->s, w->message, w->at + 1, true, &part, &value);
        if (status == STORE_READ_NOT_FOUND) {
            status = part_seek(w->s, w->message, w->at + 1, false, &part, &value);
        }
    }
    return status == STORE_READ_OK ? part_read(w, part, value) : status;
}

/* ---- the walk ---- */

void reader_walk_open(struct reader_walk *w, struct reader_source *s, uint64_t message,
                      uint64_t at, uint64_t upto, bool backward)
{
    if (backward && (at == 0 || at > upto)) at = upto + 1;
    *w = (struct reader_walk){
        .s = s, .message = message, .upto = upto, .at = at, .backward = backward};
}

/* Takes what the walk may give. False: go on looking, or over (`end`). */
static bool give(struct reader_walk *w, const struct reader_found *f, bool *end)
{
    uint64_t d = f->r.delivery;
    *end = !w->backward && d > w->upto;
    if (*end || d > w->upto || (w->backward ? d >= w->at : d <= w->at)) return false;
    w->at = d;
    return true;
}

static int next_in_parts(struct reader_walk *w, struct reader_found *out)
{
    uint32_t bytes;
    bool end = false;
    while (!w->parts_done) {
        uint32_t count = w->part_loaded ? w->offsets.bytes / (uint32_t)sizeof(uint32_t) : 0;
        if (!w->part_loaded || (w->backward ? w->index == 0 : w->index == count)) {
            int status = part_next(w);
            w->parts_done = status == STORE_READ_NOT_FOUND;
            if (status != STORE_READ_OK) return status;
            continue;
        }
        uint32_t offset = format_offset_at(w->offsets, w->backward ? --w->index : w->index++);
        if (offset > w->records.bytes) return STORE_READ_IO;
        struct slice rest = slice_skip(w->records, offset);
        if (record_read(rest, &out->r, &bytes) != RECORD_OK || out->r.chan != w->s->view.chan ||
            reader_message_of(&out->r) != w->message) {
            return STORE_READ_IO;
        }
        out->packed = slice_of(rest.ptr, bytes);
        w->s->touched += bytes;
        if (give(w, out, &end)) return STORE_READ_OK;
        w->parts_done = end;
    }
    return STORE_READ_NOT_FOUND;
}

static int next_in_tail(struct reader_walk *w, struct reader_found *out)
{
    struct reader_source *s = w->s;
    bool end;
    int status = know_mutations(s);
    if (status != STORE_READ_OK) return status;

    uint32_t i = mutation_from(s, w->message, w->backward ? w->at : w->at + 1);
    if (w->backward) {
        if (i == 0) return STORE_READ_NOT_FOUND;
        i--;
    }
    if (i == s->mutations_count || s->mutations[i]->message != w->message) {
        return STORE_READ_NOT_FOUND;
    }
    const struct lane_entry *e = s->mutations[i];
    if (!lane_entry_read(s->view.txn, s->view.dbis, e, &out->packed, &out->r)) {
        return STORE_READ_IO;
    }
    s->touched += out->packed.bytes;
    return give(w, out, &end) ? STORE_READ_OK : STORE_READ_NOT_FOUND;
}

static int next_create(struct reader_walk *w, struct reader_found *out)
{
    bool end;
    int status = reader_find(w->s, w->message, READER_ASIDE, out);
    if (status != STORE_READ_OK) return status;
    if (!record_is_row(&out->r)) return STORE_READ_NOT_FOUND;
    return give(w, out, &end) ? STORE_READ_OK : STORE_READ_NOT_FOUND;
}

int reader_walk_next(struct reader_walk *w, struct reader_found *out)
{
    int status;
    if (!w->backward) {
        if (w->at < w->message) return next_create(w, out);
        status = next_in_parts(w, out);
        return status == STORE_READ_NOT_FOUND ? next_in_tail(w, out) : status;
    }
    status = next_in_tail(w, out);
    if (status == STORE_READ_NOT_FOUND) status = next_in_parts(w, out);
    if (status == STORE_READ_NOT_FOUND && w->at > w->message) status = next_create(w, out);
    return status;
}

int reader_mutated(struct reader_source *s, uint64_t message, bool *out)
{
    uint64_t part;
    struct slice value;
    int status = part_seek(s, message, 0, false, &part, &value);
    if (status == STORE_READ_NOT_FOUND) {
        status = know_mutations(s);
        if (status != STORE_READ_OK) return status;
        uint32_t i = mutation_from(s, message, 0);
        *out = i < s->mutations_count && s->mutations[i]->message == message;
        return STORE_READ_OK;
    }
    *out = true;
    return status;
}

int reader_base_find(struct reader_source *s, uint64_t message, struct reader_base *out)
{
    struct format_key want = format_key3(s->view.chan, message, FORMAT_PART_BASE);
    MDB_val key = lane_key(&want), data;
    struct slice record;
    uint32_t bytes;

    *out = (struct reader_base){.loaded = false};
    int e = mdb_get(s->view.txn, s->view.dbis[FORMAT_MSGS], &key, &data);
    if (e == MDB_NOTFOUND) return STORE_READ_OK;
    if (e != 0 || !format_base_read(lane_slice(data), &out->base, &out->ops, &record) ||
        record_read(record, &out->r, &bytes) != RECORD_OK || bytes != record.bytes ||
        out->r.chan != s->view.chan || out->r.message != message ||
        out->r.delivery != out->base.delivery || (out->r.flags & RECORD_FOLDED) == 0) {
        return STORE_READ_IO;
    }
    s->touched += data.mv_size;
    out->loaded = true;
    return STORE_READ_OK;
}
