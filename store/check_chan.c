/* A channel is read from its floor to its newest record, segments first, then the tail. What the
 * records say is kept in a struct chan and compared with what segments and head say. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/check_parts.h"

struct message {                         /* that has mutations */
    uint64_t message;                    /* 0: free slot */
    uint64_t history, time_ms;           /* of the create; history 0: it is gone */
    uint64_t context;                    /* newest whole record seen */
};

struct chan {
    struct check         *c;
    struct reader_source  source;
    const char           *where;         /* "segments" or "wal" */
    uint64_t              chan, next;    /* delivery serial that must come */
    uint64_t              known_from;    /* oldest record that is there */
    uint64_t              time_ms, first_ms;   /* first_ms: of the segment at hand */
    uint64_t              rows, row_bytes;
    struct format_row     last_row;      /* delivery 0: not known */
    uint64_t              epoch;
    bool                  counted;       /* rows and row_bytes are known */
    bool                  relaxed;
    bool                  broken;        /* a record could not be read: sums mean nothing */
    uint64_t              listed;        /* parts found */
    struct check_segment *records;       /* owned; of the segment at hand */
    uint32_t              records_room;
    struct message       *messages;      /* owned; a hash table */
    uint32_t              messages_count, messages_room;
    struct check_members  members;
};

__attribute__((format(printf, 3, 4))) static void wrong(struct chan *h, uint64_t delivery,
                                                        const char *format, ...)
{
    char text[CHECK_LINE_BYTES / 2];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    check_find(h->c, "%s: channel %llu, record %llu: %s", h->where, (unsigned long long)h->chan,
               (unsigned long long)delivery, text);
}

/* ---- mutated messages ---- */

static struct message *message_slot(struct chan *h, uint64_t message)
{
    uint32_t i = (uint32_t)(message * 0x9e3779b97f4a7c15u >> 32) & (h->messages_room - 1);
    while (h->messages[i].message != 0 && h->messages[i].message != message) {
        i = (i + 1) & (h->messages_room - 1);
    }
    return &h->messages[i];
}

static void messages_grow(struct chan *h)
{
    enum { START = 256 };
    struct message *old = h->messages;
    uint32_t old_room = h->messages_room;
    h->messages_room = old_room == 0 ? START : 2 * old_room;
    h->messages = check_need(NULL, h->messages_room, sizeof *h->messages);
    memset(h->messages, 0, (size_t)h->messages_room * sizeof *h->messages);
    for (uint32_t i = 0; i < old_room; i++) {
        if (old[i].message != 0) *message_slot(h, old[i].message) = old[i];
    }
    free(old);
}

static struct message *message_of(struct chan *h, const struct record *r)
{
    struct reader_found f;
    if (2 * (h->messages_count + 1) > h->messages_room) messages_grow(h);
    struct message *m = message_slot(h, r->message);
    if (m->message != 0) return m;
    *m = (struct message){.message = r->message};
    h->messages_count++;
    if (r->message < h->known_from) return m;
    int status = reader_find(&h->source, r->message, READER_ASIDE, &f);
    if (status != STORE_READ_OK || f.r.kind != RECORD_CREATE) {
        wrong(h, r->delivery, "its message %llu has no create", (unsigned long long)r->message);
        return m;
    }
    m->history = f.r.history;
    m->time_ms = f.r.time_ms;
    m->context = r->message;
    return m;
}

static bool is_string(struct slice s)
{
    return s.bytes >= 2 && s.ptr[0] == '"' && s.ptr[s.bytes - 1] == '"';
}

static void check_mutation(struct chan *h, const struct record *r)
{
    if (r->message == 0 || r->message >= r->delivery) {
        wrong(h, r->delivery, "it changes a message that comes later");
        return;
    }
    struct message *m = message_of(h, r);
    if (m->history != 0 && r->history != m->history) {
        wrong(h, r->delivery, "history serial %llu instead of %llu of its create",
              (unsigned long long)r->history, (unsigned long long)m->history);
    }
    if (m->history != 0 && r->message_ms != 0 && r->message_ms != m->time_ms) {
        wrong(h, r->delivery, "another time than that of its create");
    }
    if (r->kind == RECORD_APPEND && !is_string(r->data)) {
        wrong(h, r->delivery, "an append without text");
    }
    if (!reader_needs_context(r)) {
        m->context = r->delivery;
    } else if (m->context != 0 && r->context != m->context) {
        wrong(h, r->delivery, "it refers to record %llu instead of %llu",
              (unsigned long long)r->context, (unsigned long long)m->context);
    }
}

/* ---- one record ---- */

static void check_row(struct chan *h, const struct record *r, uint32_t offset, uint32_t bytes)
{
    const struct format_head *head = &h->source.view.head;
    uint64_t before = h->last_row.history;
    bool first = h->counted && h->rows == 0;
    bool known = h->last_row.delivery != 0, fits = true;
    bool after_reset = known && h->last_row.delivery <= head->reset_floor &&
                       r->delivery > head->reset_floor;

    if (first || after_reset) {
        fits = r->history == 1;
    } else if (known) {                  /* resets before the last one are not remembered */
        fits = r->history == before + 1 ||
               (r->history == 1 && r->delivery <= head->reset_floor);
    }
    if (!fits) {
        wrong(h, r->delivery, "history serial %llu behind %llu", (unsigned long long)r->history,
              (unsigned long long)before);
    }
    if (r->message != 0 && r->message != r->delivery) {
        wrong(h, r->delivery, "a row that belongs to record %llu", (unsigned long long)r->message);
    }
    h->last_row = (struct format_row){r->delivery, r->history, r->time_ms, offset, bytes};
    h->rows++;
    h->row_bytes += bytes;
    h->c->counts.rows++;
}

static void check_record(struct chan *h, const struct record *r, uint32_t offset,
                         struct slice packed)
{
    h->c->counts.records++;
    if (r->chan != h->chan) {
        wrong(h, r->delivery, "it belongs to channel %llu", (unsigned long long)r->chan);
    }
    if (r->delivery != h->next) {
        wrong(h, r->delivery, "a gap: %llu is missing", (unsigned long long)h->next);
    }
    if (r->time_ms < h->time_ms) wrong(h, r->delivery, "time falls");
    if (!record_is_version(r) || (r->flags & (RECORD_FOLDED | RECORD_CONTEXT)) != 0) {
        wrong(h, r->delivery, "its kind is never stored here");
    }
    if (record_is_row(r)) {
        check_row(h, r, offset, packed.bytes);
    } else {
        check_mutation(h, r);
    }
    if (r->kind == RECORD_PRESENCE) check_member_add(&h->members, r, packed);
    h->relaxed = h->relaxed || (r->flags & RECORD_RELAXED) != 0;
    h->time_ms = u64_max(h->time_ms, r->time_ms);
    h->next = r->delivery + 1;
}

/* ---- one segment ---- */

static bool row_equal(const struct format_row *a, const struct format_row *b)
{
    return a->delivery == b->delivery && a->history == b->history && a->time_ms == b->time_ms &&
           a->offset == b->offset && a->bytes == b->bytes;
}

static void note_record(struct chan *h, uint32_t index, const struct record *r, uint32_t offset)
{
    if (index >= h->records_room) {
        h->records_room = h->records_room == 0 ? 1024 : 2 * h->records_room;
        h->records = check_need(h->records, h->records_room, sizeof *h->records);
    }
    h->records[index] = (struct check_segment){.message = reader_message_of(r),
                                               .delivery = r->delivery, .offset = offset,
                                               .mutation = !record_is_row(r)};
}

/* Records and the list of rows; false: the rest of the segment cannot be read. */
static bool check_records(struct chan *h, const struct format_segment *g, struct slice records,
                          struct slice rows)
{
    uint32_t offset = 0, bytes = 0, index = 0, row = 0;
    struct record r;
    for (; offset < records.bytes; offset += bytes, index++) {
        if (record_read(slice_skip(records, offset), &r, &bytes) != RECORD_OK) {
            wrong(h, g->first + index, "wrong checksum");
            h->next = g->last + 1;
            h->broken = true;
            return false;
        }
        if (index == 0) h->first_ms = r.time_ms;
        check_record(h, &r, offset, slice_of(records.ptr + offset, bytes));
        note_record(h, index, &r, offset);
        if (!record_is_row(&r)) continue;
        struct format_row listed = {.delivery = 0};
        if (row < g->rows_count) listed = format_row_at(rows, row);
        if (!row_equal(&listed, &h->last_row)) wrong(h, r.delivery, "the list of rows differs");
        row++;
    }
    if (index != g->records_count || row != g->rows_count) {
        wrong(h, g->last, "%u records and %u rows instead of %u and %u", index, row,
              g->records_count, g->rows_count);
    }
    check_parts(h->c, h->chan, g->first, h->known_from, h->records, index, &h->listed);
    return true;
}

static void check_segment(struct chan *h, uint64_t first, struct slice value)
{
    struct format_segment g;
    struct slice records, rows;

    h->c->counts.segments++;
    h->c->counts.bytes += value.bytes;
    if (!format_segment_read(value, &g, &records, &rows)) {
        wrong(h, first, "wrong checksum of the segment that begins here");
        h->next = 0;
        h->broken = true;
        return;
    }
    if (g.chan != h->chan || g.first != first) {
        wrong(h, first, "the segment that begins here says that it is another");
        return;
    }
    if (!h->counted) {                       /* the first that is left says how many were before */
        h->rows = g.rows_before;
        h->row_bytes = g.row_bytes_before;
        h->counted = true;
    }
    if (h->next == 0) h->next = first;       /* what was before could not be read */
    if (g.rows_before != h->rows || g.row_bytes_before != h->row_bytes) {
        wrong(h, first, "the count of rows does not go on");
        h->rows = g.rows_before;
        h->row_bytes = g.row_bytes_before;
    }
    uint64_t row_bytes = h->row_bytes;
    if (!check_records(h, &g, records, rows)) {
        h->rows = g.rows_before + g.rows_count;
        h->row_bytes = g.row_bytes_before + g.row_bytes;
        h->last_row = g.last_row;
        return;
    }
    if (h->next != g.last + 1 || h->row_bytes - row_bytes != g.row_bytes ||
        g.first_ms != h->first_ms || g.last_ms != h->time_ms) {
        wrong(h, first, "the segment that begins here describes other records");
    }
    if (h->last_row.delivery == 0) h->last_row = g.last_row;
    if (!row_equal(&g.last_row, &h->last_row)) wrong(h, first, "its last row is another");
}

static void check_segments(struct chan *h)
{
    struct check *c = h->c;
    struct format_key from = format_key1(h->chan);
    MDB_val key = lane_key(&from), data;
    MDB_cursor *cursor;
    uint64_t chan = 0, first = 0;

    h->where = "segments";
    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_SEGMENTS], &cursor) != 0) return;
    for (int e = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
         e == 0 && format_key_part(lane_slice(key), 0, &chan) && chan == h->chan;
         e = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) {
        if (!format_key_part(lane_slice(key), 1, &first)) break;
        if (h->known_from == 0) {            /* the floor may lie within the oldest */
            h->known_from = first;
            h->next = u64_min(first, h->source.view.head.floor);
        }
        check_segment(h, first, lane_slice(data));
    }
    mdb_cursor_close(cursor);
}

/* ---- head and tail ---- */

static void check_head(struct chan *h)
{
    const struct format_head *head = &h->source.view.head;
    const unsigned long long number = h->chan;
    if (head->floor == 0 || head->floor > head->delivery + 1) {
        check_find(h->c, "heads: channel %llu begins at %llu", number,
                   (unsigned long long)head->floor);
    }
    if (h->known_from == 0) {                /* no segments: nothing to compare with */
        if (head->floor != head->delivery + 1) {
            check_find(h->c, "segments: channel %llu: records %llu to %llu are missing", number,
                       (unsigned long long)head->floor, (unsigned long long)head->delivery);
        }
        h->known_from = h->next = head->delivery + 1;
    } else if (h->next != 0 && h->next != head->delivery + 1) {
        check_find(h->c, "segments: channel %llu: the newest record is %llu, the head says %llu",
                   number, (unsigned long long)h->next - 1, (unsigned long long)head->delivery);
    } else if (!h->broken && (head->rows != h->rows || head->row_bytes != h->row_bytes ||
               head->time_ms != h->time_ms || !row_equal(&head->last_row, &h->last_row))) {
        check_find(h->c, "heads: channel %llu: rows or time are not those of its records", number);
    }
    if (h->relaxed && (head->flags & FORMAT_HEAD_RELAXED) == 0) {
        check_find(h->c, "heads: channel %llu is not marked as relaxed", number);
    }
    h->next = head->delivery + 1;
    h->rows = head->rows;
    h->row_bytes = head->row_bytes;
    h->counted = true;
    h->time_ms = head->time_ms;
    h->last_row = head->last_row;
}

static void check_tail_records(struct chan *h)
{
    const struct lane_view *v = &h->source.view;
    struct slice packed;
    struct record r;
    h->where = "wal";
    for (uint32_t i = 0; i < v->tail_count; i++) {
        if (lane_entry_read(v->txn, v->dbis, &v->tail[i], &packed, &r)) {
            check_record(h, &r, 0, packed);
        }
    }
}

/* Serials of the tail must go on without a gap before the source may be searched by them. */
static uint32_t tail_without_gap(struct chan *h, const struct lane_entry *tail, uint32_t count)
{
    uint64_t next = h->source.view.head.delivery + 1;
    uint32_t good = 0;
    h->where = "wal";
    while (good < count && tail[good].delivery == next + good) good++;
    if (good < count) {
        wrong(h, tail[good].delivery, "a gap: %llu is missing", (unsigned long long)(next + good));
    }
    return good;
}

static void check_name(struct check *c, const struct lane_view *v)
{
    struct format_key key = format_key2(format_name_hash(v->app_id, v->channel), v->chan);
    MDB_val k = lane_key(&key), data;
    if (mdb_get(c->txn, c->dbis[FORMAT_NAMES], &k, &data) != 0) {
        check_find(c, "names: channel %llu is missing", (unsigned long long)v->chan);
    }
    if (v->chan >= c->chan_next && c->chan_next != 0) {
        check_find(c, "wal: the number of channel %llu was not given out yet",
                   (unsigned long long)v->chan);
    }
}

static void check_channel(struct check *c, uint64_t chan)
{
    struct chan h = {.c = c, .chan = chan};
    uint32_t count;
    const struct lane_entry *tail = check_tail(c, chan, &count);

    c->counts.channels++;
    if (lane_view_open(&h.source.view, c->txn, c->dbis, chan, NULL, 0) != OK) {
        check_find(c, "heads: channel %llu: wrong checksum", (unsigned long long)chan);
        return;
    }
    check_name(c, &h.source.view);
    h.source.view.tail = tail;
    h.source.view.tail_count = tail_without_gap(&h, tail, count);
    check_segments(&h);
    check_head(&h);
    check_tail_records(&h);
    check_msgs(c, &h.source, h.known_from, h.broken ? UINT64_MAX : h.listed);
    check_members(c, chan, h.known_from, h.source.view.head.purge_floor, &h.members);
    reader_source_close(&h.source);
    free(h.records);
    free(h.messages);
    free(h.members.all);
}

void check_channels(struct check *c)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    uint64_t chan = 0;
    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_HEADS], &cursor) != 0) return;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        if (format_key_part(lane_slice(key), 0, &chan)) check_channel(c, chan);
    }
    mdb_cursor_close(cursor);
}
