/* A channel's rows, oldest first: those in segments, then those of the tail. Every bound of
 * retention is monotone along them: once a row is young enough, all after it are. So the oldest row
 * that is kept is found by bisection, over segments (by the newest row at or before their end) and
 * over tail entries (each taken for a row). */
#include "store/lane_parts.h"

struct row {                               /* or what a row would be in this place */
    uint64_t ordinal, bytes_before;        /* counted from the channel's birth */
    uint64_t delivery, time_ms, history;
};

struct bounds {
    uint64_t floor;                        /* rows created up to this are gone */
    uint64_t since_ms, ordinal, bytes_before;   /* kept: at least each of these */
};

static bool keeps(const struct bounds *b, const struct row *r)
{
    return r->delivery > b->floor && r->time_ms >= b->since_ms && r->ordinal >= b->ordinal &&
           r->bytes_before >= b->bytes_before;
}

/* ---- views ---- */

err_t lane_view_open(struct lane_view *v, MDB_txn *txn, const MDB_dbi *dbis, uint64_t chan,
                     const struct lane_entry *tail, uint32_t tail_count)
{
    struct format_key key = format_key1(chan);
    MDB_val k = lane_key(&key), value;
    *v = (struct lane_view){.txn = txn, .dbis = dbis, .chan = chan, .tail = tail,
                            .tail_count = tail_count};
    int rc = mdb_get(txn, dbis[FORMAT_HEADS], &k, &value);
    if (rc == MDB_NOTFOUND) return OK;
    if (rc != MDB_SUCCESS) return lane_error(rc);
    v->known = true;
    return format_head_read(lane_slice(value), &v->head, &v->app_id, &v->channel) ? OK : ERR_IO;
}

uint64_t lane_view_delivery(const struct lane_view *v)
{
    return v->tail_count > 0 ? v->tail[v->tail_count - 1].delivery : v->head.delivery;
}

uint64_t lane_view_time_ms(const struct lane_view *v)
{
    return v->tail_count > 0 ? v->tail[v->tail_count - 1].time_ms : v->head.time_ms;
}

static struct row row_of_entry(const struct lane_view *v, uint32_t index)
{
    const struct lane_entry *e = &v->tail[index], *first = &v->tail[0];
    return (struct row){
        .ordinal = v->head.rows + e->rows_before - first->rows_before,
        .bytes_before = v->head.row_bytes + e->row_bytes_before - first->row_bytes_before,
        .delivery = e->delivery, .time_ms = e->time_ms, .history = e->history,
    };
}

/* What would come next: its ordinal is the number of rows, its bytes_before their bytes. */
static struct row row_end(const struct lane_view *v)
{
    if (v->tail_count == 0) {
        return (struct row){.ordinal = v->head.rows, .bytes_before = v->head.row_bytes,
                            .delivery = v->head.delivery + 1};
    }
    const struct lane_entry *last = &v->tail[v->tail_count - 1];
    struct row r = row_of_entry(v, v->tail_count - 1);
    if (last->row) {
        r.ordinal++;
        r.bytes_before += last->bytes;
    }
    r.delivery++;
    return r;
}

/* The newest row there is, whether it is kept or not; delivery 0: none. */
static struct format_row newest_row(const struct lane_view *v)
{
    uint64_t rows = row_end(v).ordinal;
    uint32_t low = 0, high = v->tail_count;
    if (v->tail_count == 0 || rows == v->head.rows) return v->head.last_row;
    while (low < high) {                   /* the first entry that has all rows before it */
        uint32_t mid = low + (high - low) / 2;
        if (row_of_entry(v, mid).ordinal < rows) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    const struct lane_entry *e = &v->tail[low - 1];
    return (struct format_row){.delivery = e->delivery, .history = e->history,
                               .time_ms = e->time_ms, .bytes = e->bytes};
}

uint64_t lane_view_history_next(const struct lane_view *v)
{
    struct format_row last = newest_row(v);
    return last.delivery > v->head.reset_floor ? last.history + 1 : 1;
}

/* ---- segments ---- */

bool lane_segment_at(const struct lane_view *v, uint64_t delivery, struct slice *value, err_t *e)
{
    struct format_key key = format_key2(v->chan, delivery);
    MDB_val k = lane_key(&key), val;
    MDB_cursor *cursor;
    uint64_t chan, first;
    struct format_segment head;
    *e = lane_error(mdb_cursor_open(v->txn, v->dbis[FORMAT_SEGMENTS], &cursor));
    if (*e != OK) return false;
    int rc = mdb_cursor_get(cursor, &k, &val, MDB_SET_RANGE);
    bool here = rc == MDB_SUCCESS && format_key_part(lane_slice(k), 0, &chan) && chan == v->chan &&
                format_key_part(lane_slice(k), 1, &first);
    if (here) *value = lane_slice(val);
    if (!here || first != delivery) {      /* the one before may hold it */
        if (rc == MDB_SUCCESS || rc == MDB_NOTFOUND) {
            rc = mdb_cursor_get(cursor, &k, &val, rc == MDB_SUCCESS ? MDB_PREV : MDB_LAST);
        }
        if (rc == MDB_SUCCESS && format_key_part(lane_slice(k), 0, &chan) && chan == v->chan &&
            val.mv_size >= sizeof head) {
            memcpy(&head, val.mv_data, sizeof head);
            if (head.last >= delivery) {
                *value = lane_slice(val);
                here = true;
            }
        }
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_SUCCESS && rc != MDB_NOTFOUND) *e = lane_error(rc);
    return here && *e == OK;
}

struct segment { struct format_segment head; struct slice records, rows; };

static bool segment_at(const struct lane_view *v, uint64_t delivery, struct segment *out, err_t *e)
{
    struct slice value;
    if (!lane_segment_at(v, delivery, &value, e)) return false;
    if (format_segment_read(value, &out->head, &out->records, &out->rows) &&
        out->head.chan == v->chan && out->head.first <= out->head.last &&
        out->head.last >= delivery) {
        return true;
    }
    *e = ERR_IO;                           /* a search by it would not end */
    return false;
}

/* The first segment behind the record `behind` for which `is` holds; it must hold for all after it.
 * What was purged may be damaged: nobody looks there. */
typedef bool segment_test(const struct segment *s, const void *arg);
static bool segment_first(const struct lane_view *v, uint64_t behind, segment_test *is,
                          const void *arg, struct segment *out, err_t *e)
{
    uint64_t low = u64_max(v->head.floor, behind + 1), high = v->head.delivery + 1;
    bool found = false;
    struct segment s;
    *e = OK;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        if (!segment_at(v, mid, &s, e) || s.head.first >= high) {
            if (*e != OK) return false;
            high = mid;
        } else if (is(&s, arg)) {
            *out = s;
            found = true;
            high = u64_min(s.head.first, mid);
        } else {
            low = s.head.last + 1;
        }
    }
    return found;
}

static struct row row_of_segment_end(const struct segment *s)   /* the newest row so far */
{
    const struct format_row *last = &s->head.last_row;
    return (struct row){
        .ordinal = s->head.rows_before + s->head.rows_count - 1,
        .bytes_before = s->head.row_bytes_before + s->head.row_bytes - last->bytes,
        .delivery = last->delivery, .time_ms = last->time_ms, .history = last->history,
    };
}

static bool end_is_kept(const struct segment *s, const void *arg)
{
    struct row r = row_of_segment_end(s);
    return s->head.last_row.delivery != 0 && keeps(arg, &r);
}

static bool has_row_from(const struct segment *s, const void *arg)   /* arg: ordinal */
{
    return s->head.rows_before + s->head.rows_count > *(const uint64_t *)arg;
}

static bool row_in_segment(const struct segment *s, const struct bounds *b, struct row *out)
{
    struct row r = {.ordinal = s->head.rows_before, .bytes_before = s->head.row_bytes_before};
    for (uint32_t i = 0; i < s->head.rows_count; i++) {
        struct format_row row = format_row_at(s->rows, i);
        r.delivery = row.delivery;
        r.time_ms = row.time_ms;
        r.history = row.history;
        if (keeps(b, &r)) {
            *out = r;
            return true;
        }
        r.ordinal++;
        r.bytes_before += row.bytes;
    }
    return false;
}

/* A kept row that ends a segment may be in one that is already deleted: then the next is the
 * oldest. */
static bool row_in_segments(const struct lane_view *v, const struct bounds *b, struct row *out,
                            err_t *e)
{
    struct segment s;
    if (!segment_first(v, b->floor, end_is_kept, b, &s, e)) return false;
    if (row_in_segment(&s, b, out)) return true;
    uint64_t ordinal = s.head.rows_before + s.head.rows_count;
    return segment_first(v, b->floor, has_row_from, &ordinal, &s, e) &&
           row_in_segment(&s, b, out);
}

static bool row_in_tail(const struct lane_view *v, const struct bounds *b, struct row *out)
{
    uint32_t low = 0, high = v->tail_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        struct row r = row_of_entry(v, mid);
        if (keeps(b, &r)) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    while (low < v->tail_count && !v->tail[low].row) low++;
    if (low == v->tail_count) return false;
    *out = row_of_entry(v, low);
    return true;
}

/* ---- floors ---- */

static bool ends_since(const struct segment *s, const void *arg)   /* arg: ms */
{
    return s->head.last_ms >= *(const uint64_t *)arg;
}

/* The oldest record behind `behind` that is not older than `since_ms`; delivery + 1: none. */
static err_t record_since(const struct lane_view *v, uint64_t behind, uint64_t since_ms,
                          uint64_t *out)
{
    struct segment s;
    err_t e;
    if (segment_first(v, behind, ends_since, &since_ms, &s, &e)) {
        struct record r;
        uint32_t bytes;
        for (struct slice rest = s.records; rest.bytes > 0; rest = slice_skip(rest, bytes)) {
            if (record_peek(rest, &r, &bytes) != RECORD_OK) return ERR_IO;
            *out = r.delivery;
            if (r.time_ms >= since_ms) return OK;
        }
        return ERR_IO;
    }
    uint32_t low = 0, high = v->tail_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (v->tail[mid].time_ms >= since_ms) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    *out = low < v->tail_count ? v->tail[low].delivery : lane_view_delivery(v) + 1;
    return e;
}

static uint64_t since(uint64_t now_ms, uint64_t age_ms)
{
    return age_ms < now_ms ? now_ms - age_ms : 0;
}

/* Of rows with `floor` at the head's reset and purge floor; of the messages that have the retention
 * of rows, at the purge floor: they outlive a reset. */
static struct bounds bounds_of(const struct lane_view *v, const struct store_policy *policy,
                               uint64_t now_ms, uint64_t floor)
{
    struct row end = row_end(v);
    struct bounds b = {.floor = floor};
    if (policy->age_ms > 0) b.since_ms = since(now_ms, policy->age_ms);
    if (policy->messages_max > 0 && end.ordinal > policy->messages_max) {
        b.ordinal = end.ordinal - policy->messages_max;
    }
    if (policy->bytes_max > 0 && end.bytes_before > policy->bytes_max) {
        b.bytes_before = end.bytes_before - policy->bytes_max;
    }
    return b;
}

bool lane_keeps_oldest(const struct lane_view *v, const struct store_policy *policy,
                       uint64_t now_ms)
{
    struct bounds b = bounds_of(v, policy, now_ms, v->head.purge_floor);
    struct slice value;
    struct segment s;                      /* its head, unchecked: what deletes checks more */
    err_t e;
    if (!v->known) return true;
    if (policy->version_age_ms == 0 && v->head.purge_floor < v->head.floor) return true;
    if (v->head.floor > v->head.delivery) return false;
    if (!lane_segment_at(v, v->head.floor, &value, &e) || value.bytes < sizeof s.head) return false;
    memcpy(&s.head, value.ptr, sizeof s.head);
    if (s.head.chan != v->chan || s.head.first != v->head.floor) return false;
    if (s.head.last <= v->head.purge_floor) return false;
    if (policy->version_age_ms == 0) return true;
    if (s.head.rows_count > 0 && end_is_kept(&s, &b)) return true;
    uint64_t age_ms = policy->receipt_age_ms;
    if (policy->version_age_ms != UINT64_MAX) age_ms = u64_max(age_ms, policy->version_age_ms);
    return age_ms > 0 && s.head.last_ms >= since(now_ms, age_ms);
}

/* The oldest row that is kept; *out as row_end when there is none. */
static err_t row_since(const struct lane_view *v, const struct bounds *b, struct row *out)
{
    struct row found;
    err_t e;
    *out = row_end(v);
    if (row_in_segments(v, b, &found, &e) || (e == OK && row_in_tail(v, b, &found))) *out = found;
    return e;
}

/* The oldest record that version retention keeps. */
static err_t version_floor(const struct lane_view *v, const struct store_policy *policy,
                           uint64_t now_ms, uint64_t row_floor, uint64_t *out)
{
    const struct format_head *h = &v->head;
    struct row first = {.delivery = row_floor};
    err_t e = OK;
    if (policy->version_age_ms == 0) {
        *out = h->floor;
    } else if (policy->version_age_ms != UINT64_MAX) {
        e = record_since(v, h->purge_floor, since(now_ms, policy->version_age_ms), out);
    } else {
        struct bounds b = bounds_of(v, policy, now_ms, h->purge_floor);
        if (h->reset_floor > h->purge_floor) e = row_since(v, &b, &first);
        *out = first.delivery;
    }
    *out = u64_max(*out, h->purge_floor + 1);
    return e;
}

err_t lane_floors(const struct lane_view *v, const struct store_policy *policy, uint64_t now_ms,
                  struct lane_floors *out)
{
    const struct format_head *h = &v->head;
    struct bounds b = bounds_of(v, policy, now_ms, u64_max(h->reset_floor, h->purge_floor));
    struct row end = row_end(v), first;
    err_t e = row_since(v, &b, &first);
    *out = (struct lane_floors){.row = first.delivery};
    if (e != OK) return e;
    if (first.ordinal < end.ordinal) {
        out->row_first = first.history;
        out->row_first_ms = first.time_ms;
        out->rows_count = end.ordinal - first.ordinal;
        out->rows_bytes = end.bytes_before - first.bytes_before;
    }
    e = version_floor(v, policy, now_ms, out->row, &out->version);
    if (e != OK) return e;
    out->replay = u64_max(u64_min(out->row, out->version), v->head.floor);
    out->physical = out->replay;
    if (policy->receipt_age_ms > 0 && out->replay > v->head.floor) {
        uint64_t receipts;
        e = record_since(v, 0, since(now_ms, policy->receipt_age_ms), &receipts);
        if (e == ERR_IO) return OK;        /* what cannot be read is no receipt */
        out->physical = u64_max(u64_min(out->replay, receipts), v->head.floor);
    }
    return e;
}

err_t lane_head(const struct lane_view *v, const struct store_policy *policy, uint64_t now_ms,
                struct store_head *out)
{
    struct lane_floors f;
    struct format_row last = newest_row(v);
    *out = (struct store_head){.chan = v->chan, .history_next = 1, .replay_floor = 1,
                               .row_floor = 1};
    if (!v->known) return OK;
    err_t e = lane_floors(v, policy, now_ms, &f);
    out->known = true;
    out->delivery = lane_view_delivery(v);
    out->time_ms = lane_view_time_ms(v);
    out->history_next = lane_view_history_next(v);
    out->delivery_epoch = v->head.delivery_epoch;
    out->history_epoch = v->head.history_epoch;
    out->replay_floor = f.replay;
    out->row_floor = f.row;
    out->rows_count = f.rows_count;
    out->rows_bytes = f.rows_bytes;
    if (f.rows_count > 0) {
        out->rows_first = f.row_first;
        out->rows_first_ms = f.row_first_ms;
        out->rows_newest = last.history;
        out->rows_newest_ms = last.time_ms;
    }
    out->relaxed = (v->head.flags & FORMAT_HEAD_RELAXED) != 0;
    for (uint32_t i = 0; !out->relaxed && i < v->tail_count; i++) {
        out->relaxed = (v->tail[i].flags & RECORD_RELAXED) != 0;
    }
    out->reset_ms = v->head.reset_ms;
    return e;
}

/* ---- names and entries ---- */

err_t lane_name_find(MDB_txn *txn, const MDB_dbi *dbis, struct slice app_id, struct slice channel,
                     uint64_t *chan)
{
    uint64_t hash = format_name_hash(app_id, channel), key_hash, number;
    struct format_key key = format_key2(hash, 0);
    MDB_val k = lane_key(&key), value;
    MDB_cursor *cursor;
    *chan = 0;
    err_t e = lane_error(mdb_cursor_open(txn, dbis[FORMAT_NAMES], &cursor));
    if (e != OK) return e;
    int rc = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE);
    for (; e == OK && rc == MDB_SUCCESS; rc = mdb_cursor_get(cursor, &k, &value, MDB_NEXT)) {
        struct lane_view v;
        if (!format_key_part(lane_slice(k), 0, &key_hash) ||
            !format_key_part(lane_slice(k), 1, &number)) {
            e = ERR_IO;
            break;
        }
        if (key_hash != hash) break;
        e = lane_view_open(&v, txn, dbis, number, NULL, 0);
        if (e == OK && !v.known) e = ERR_IO;
        if (e == OK && slice_equal(v.app_id, app_id) && slice_equal(v.channel, channel)) {
            *chan = number;
            break;
        }
    }
    mdb_cursor_close(cursor);
    if (e == OK && rc != MDB_SUCCESS && rc != MDB_NOTFOUND) e = lane_error(rc);
    return e;
}

bool lane_entry_read(MDB_txn *txn, const MDB_dbi *dbis, const struct lane_entry *entry,
                     struct slice *packed, struct record *out)
{
    struct format_key key = format_key1(entry->wal_seq);
    MDB_val k = lane_key(&key), v;
    uint32_t bytes;
    if (mdb_get(txn, dbis[FORMAT_WAL], &k, &v) != MDB_SUCCESS) return false;
    uint64_t at = sizeof(struct format_wal) + (uint64_t)entry->offset;
    if (at + entry->bytes > v.mv_size) return false;
    *packed = slice_of((const uint8_t *)v.mv_data + at, entry->bytes);
    return record_read(*packed, out, &bytes) == RECORD_OK && bytes == entry->bytes &&
           out->delivery == entry->delivery;
}
