#include <stdlib.h>

#include "store/check_parts.h"

/* ---- records that are in no segment ---- */

static void entry_add(struct check *c, const struct record *r, uint64_t seq, uint32_t offset,
                      uint32_t bytes)
{
    if (c->entries_count == c->entries_room) {
        c->entries_room = c->entries_room == 0 ? 1024 : 2 * c->entries_room;
        c->entries = check_need(c->entries, c->entries_room, sizeof *c->entries);
    }
    c->entries[c->entries_count++] = (struct check_entry){
        .chan = r->chan,
        .e = {.delivery = r->delivery, .message = reader_message_of(r), .history = r->history,
              .time_ms = r->time_ms, .wal_seq = seq, .offset = offset, .bytes = bytes,
              .kind = r->kind, .flags = r->flags, .row = record_is_row(r)},
    };
}

static int entry_order(const void *a, const void *b)
{
    const struct check_entry *x = a, *y = b;
    if (x->chan != y->chan) return x->chan < y->chan ? -1 : 1;
    if (x->e.delivery != y->e.delivery) return x->e.delivery < y->e.delivery ? -1 : 1;
    return x->e.wal_seq < y->e.wal_seq ? 1 : -1;      /* the newest copy first */
}

/* A record that was moved to a newer value may still lie in the old one: the same bytes. */
static void drop_copies(struct check *c)
{
    uint32_t kept = 0;
    if (c->entries_count > 0) {
        qsort(c->entries, c->entries_count, sizeof *c->entries, entry_order);
    }
    for (uint32_t i = 0; i < c->entries_count; i++) {
        const struct check_entry *x = &c->entries[i];
        const struct check_entry *same = kept > 0 ? &c->entries[kept - 1] : NULL;
        if (same == NULL || same->chan != x->chan || same->e.delivery != x->e.delivery) {
            c->entries[kept++] = *x;
            continue;
        }
        struct slice a, b;
        struct record r;
        if (!lane_entry_read(c->txn, c->dbis, &same->e, &a, &r) ||
            !lane_entry_read(c->txn, c->dbis, &x->e, &b, &r) || !slice_equal(a, b)) {
            check_find(c, "wal: channel %llu has two records %llu",
                       (unsigned long long)x->chan, (unsigned long long)x->e.delivery);
        }
    }
    c->entries_count = kept;
}

const struct lane_entry *check_tail(struct check *c, uint64_t chan, uint32_t *count)
{
    uint32_t low = 0, high = c->entries_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->entries[middle].chan < chan) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    uint64_t rows = 0, row_bytes = 0;
    for (*count = 0; low < c->entries_count && c->entries[low].chan == chan; low++, ++*count) {
        if (*count == c->tail_room) {
            c->tail_room = c->tail_room == 0 ? 1024 : 2 * c->tail_room;
            c->tail = check_need(c->tail, c->tail_room, sizeof *c->tail);
        }
        struct lane_entry *e = &c->tail[*count];
        *e = c->entries[low].e;
        e->rows_before = rows;
        e->row_bytes_before = row_bytes;
        rows += e->row;
        row_bytes += e->row ? e->bytes : 0;
    }
    return c->tail;
}

/* ---- channels that are no more ---- */

static void gone_add(struct check_gones *g, uint64_t chan, uint64_t seq)
{
    if (g->count == g->room) {
        g->room = g->room == 0 ? 64 : 2 * g->room;
        g->all = check_need(g->all, g->room, sizeof *g->all);
    }
    g->all[g->count++] = (struct check_gone){chan, seq};
}

static int gone_order(const void *a, const void *b)
{
    const struct check_gone *x = a, *y = b;
    if (x->chan != y->chan) return x->chan < y->chan ? -1 : 1;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

static void check_forget(struct check *c, const struct record *r, uint64_t seq)
{
    uint64_t chan;
    if (r->chan != 0 || r->data.bytes == 0 || r->data.bytes % sizeof chan != 0) {
        check_find(c, "wal: value %llu forgets no channels", (unsigned long long)seq);
    }
    for (uint32_t i = 0; i + sizeof chan <= r->data.bytes; i += sizeof chan) {
        memcpy(&chan, r->data.ptr + i, sizeof chan);
        gone_add(&c->forgotten, chan, seq);
    }
}

static bool has_head(struct check *c, uint64_t chan)
{
    struct format_key want = format_key1(chan);
    MDB_val key = lane_key(&want), data;
    return mdb_get(c->txn, c->dbis[FORMAT_HEADS], &key, &data) == 0;
}

static void no_good_head(struct check *c, uint64_t chan, uint64_t seq)
{
    check_find(c, "wal: value %llu has a record of channel %llu, which has no good head",
               (unsigned long long)seq, (unsigned long long)chan);
}

/* A channel is forgotten once, after all its records, and has no head from then on. */
static void check_gone(struct check *c)
{
    const struct check_gone *all = c->forgotten.all;
    if (c->forgotten.count > 0) {
        qsort(c->forgotten.all, c->forgotten.count, sizeof *all, gone_order);
    }
    for (uint32_t i = 0; i < c->forgotten.count; i++) {
        if (has_head(c, all[i].chan) || (i > 0 && all[i].chan == all[i - 1].chan)) {
            check_find(c, "wal: value %llu forgets channel %llu, which is still there",
                       (unsigned long long)all[i].seq, (unsigned long long)all[i].chan);
        }
    }
    for (uint32_t k = 0; k < c->headless.count; k++) {
        const struct check_gone *x = &c->headless.all[k];
        uint32_t low = 0, high = c->forgotten.count;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (gone_order(&all[middle], x) < 0) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if (low == c->forgotten.count || all[low].chan != x->chan) no_good_head(c, x->chan, x->seq);
    }
}

/* ---- values ---- */

static bool head_of(struct check *c, uint64_t chan, struct format_head *head, struct slice *app_id,
                    struct slice *channel)
{
    struct format_key want = format_key1(chan);
    MDB_val key = lane_key(&want), data;
    return mdb_get(c->txn, c->dbis[FORMAT_HEADS], &key, &data) == 0 &&
           format_head_read(lane_slice(data), head, app_id, channel);
}

static void check_record(struct check *c, const struct record *r, uint64_t seq, uint32_t offset,
                         uint32_t bytes)
{
    struct format_head head;
    struct slice app_id, channel;
    const unsigned long long chan = r->chan;

    c->counts.bytes += bytes;
    if ((r->flags & (RECORD_FOLDED | RECORD_CONTEXT)) != 0) {
        check_find(c, "wal: value %llu holds a record that is never stored",
                   (unsigned long long)seq);
    }
    if (r->kind == RECORD_FORGET) check_forget(c, r, seq);
    if (r->kind == RECORD_REQUEST || r->kind == RECORD_FORGET) return;
    if (!head_of(c, r->chan, &head, &app_id, &channel)) {
        if (has_head(c, r->chan)) no_good_head(c, r->chan, seq);
        else gone_add(&c->headless, r->chan, seq);
        return;
    }
    switch ((enum record_kind)r->kind) {
    case RECORD_CHANNEL:
        if (r->data.bytes != app_id.bytes + 1 + channel.bytes || r->data.ptr[app_id.bytes] != 0 ||
            memcmp(r->data.ptr, app_id.ptr, app_id.bytes) != 0 ||
            memcmp(r->data.ptr + app_id.bytes + 1, channel.ptr, channel.bytes) != 0) {
            check_find(c, "heads: channel %llu has another name than in the wal", chan);
        }
        break;
    case RECORD_RESET:
    case RECORD_PURGE:
        if (r->kind == RECORD_RESET && head.reset_floor < r->message) {
            check_find(c, "heads: channel %llu lacks a reset", chan);
        }
        if (record_ends_messages(r) && head.purge_floor < r->message) {
            check_find(c, "heads: channel %llu lacks a purge", chan);
        }
        break;
    case RECORD_EPOCH:
    case RECORD_REQUEST:
    case RECORD_FORGET: break;
    case RECORD_CREATE:
    case RECORD_UPDATE:
    case RECORD_DELETE:
    case RECORD_APPEND:
    case RECORD_PLAIN:
    case RECORD_PRESENCE:
    case RECORD_ANNOTATION:
        if (r->delivery > head.delivery) entry_add(c, r, seq, offset, bytes);
        break;
    }
}

static void check_value(struct check *c, struct slice key, struct slice value)
{
    struct format_wal w;
    struct slice records;
    struct record r;
    uint64_t seq = 0;
    uint32_t count = 0, bytes = 0, offset = 0;

    (void)format_key_part(key, 0, &seq);
    const unsigned long long number = seq;
    c->counts.wal_values++;
    if (!format_wal_read(value, &w, &records)) {
        check_find(c, "wal: value %llu: wrong checksum", number);
        return;
    }
    if (w.seq != seq) check_find(c, "wal: value %llu says that it is another", number);
    if (w.chan_next < c->chan_next) {
        check_find(c, "wal: value %llu gives out channel numbers again", number);
    }
    c->chan_next = w.chan_next;
    for (; offset < records.bytes; offset += bytes, count++) {
        if (record_read(slice_skip(records, offset), &r, &bytes) != RECORD_OK) {
            check_find(c, "wal: value %llu: record %u: wrong checksum", number, count);
            return;
        }
        check_record(c, &r, seq, offset, bytes);
    }
    if (count != w.records_count) {
        check_find(c, "wal: value %llu has %u records, not %u", number, count, w.records_count);
    }
}

void check_wal(struct check *c)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_WAL], &cursor) != 0) return;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        check_value(c, lane_slice(key), lane_slice(data));
    }
    mdb_cursor_close(cursor);
    drop_copies(c);
    check_gone(c);
}
