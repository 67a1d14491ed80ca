/* A channel whose head cannot be read. What is left of it says how far its serials are. Its name
 * makes it a channel again when it is reset: one that begins anew behind all that it held. */
#include "core/rng.h"
#include "store/lane_parts.h"

/* The channel's oldest or newest segment; MDB_NOTFOUND: it has none. */
static int segment_end(MDB_cursor *cursor, uint64_t chan, bool newest, uint64_t *first,
                       struct slice *value)
{
    struct format_key key = newest ? format_key1(chan + 1) : format_key1(chan);
    MDB_val k = lane_key(&key), v;
    uint64_t owner;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (newest && (rc == MDB_SUCCESS || rc == MDB_NOTFOUND)) {
        rc = mdb_cursor_get(cursor, &k, &v, rc == MDB_SUCCESS ? MDB_PREV : MDB_LAST);
    }
    if (rc != MDB_SUCCESS) return rc;
    *value = lane_slice(v);
    bool here = format_key_part(lane_slice(k), 0, &owner) && owner == chan &&
                format_key_part(lane_slice(k), 1, first);
    return here ? MDB_SUCCESS : MDB_NOTFOUND;
}

err_t lane_head_left(MDB_txn *txn, const MDB_dbi *dbis, uint64_t chan, struct format_head *out)
{
    struct format_segment seg;
    struct slice value, records, rows;
    uint64_t oldest = 0, newest = 0;
    MDB_cursor *cursor;
    bool good = false;
    *out = (struct format_head){.floor = 0};
    err_t e = lane_error(mdb_cursor_open(txn, dbis[FORMAT_SEGMENTS], &cursor));
    if (e != OK) return e;
    int rc = segment_end(cursor, chan, false, &oldest, &value);
    if (rc == MDB_SUCCESS) rc = segment_end(cursor, chan, true, &newest, &value);
    if (rc == MDB_SUCCESS) {
        out->floor = oldest;
        good = format_segment_read(value, &seg, &records, &rows) && seg.chan == chan &&
               seg.first == newest && seg.last >= newest;
    }
    if (rc == MDB_SUCCESS && good) {
        out->delivery = seg.last;
        out->time_ms = seg.last_ms;
        out->rows = seg.rows_before + seg.rows_count;
        out->row_bytes = seg.row_bytes_before + seg.row_bytes;
        out->last_row = seg.last_row;
    } else if (rc == MDB_SUCCESS) {        /* no segment holds more records than bytes */
        out->delivery = newest + FORMAT_SEGMENT_BYTES_MAX;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? OK : lane_error(rc);
}

/* The tail goes on behind `head`, which knows of segments only. Returns the newest serial. */
static uint64_t behind_tail(struct format_head *head, const struct lane_chan *c)
{
    if (c == NULL || c->count == 0) return head->delivery;
    const struct lane_entry *e = lane_tail_entries(c);
    head->delivery = e[0].delivery - 1;
    if (head->rows > 0) return e[c->count - 1].delivery;
    for (uint32_t i = 0; i < c->count; i++) {   /* no segment says how many rows there were */
        if (!e[i].row) continue;
        head->rows = e[i].history - 1;
        break;
    }
    return e[c->count - 1].delivery;
}

/* Of members who were present nobody knows any more whether they still are. */
static err_t forget_members(struct lane *l, MDB_txn *txn, uint64_t chan)
{
    struct format_key key = format_key1(chan);
    MDB_cursor *cursor;
    uint64_t owner;
    err_t e = lane_error(mdb_cursor_open(txn, l->dbis[FORMAT_PRESENCE], &cursor));
    if (e != OK) return e;
    int rc = MDB_SUCCESS;
    while (rc == MDB_SUCCESS) {
        MDB_val k = lane_key(&key), v;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
        if (rc != MDB_SUCCESS || !format_key_part(lane_slice(k), 0, &owner) || owner != chan) break;
        rc = mdb_cursor_del(cursor, 0);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? OK : lane_error(rc);
}

err_t lane_head_anew(struct lane *l, MDB_txn *txn, uint64_t chan, struct slice app_id,
                     struct slice channel)
{
    struct lane_chan *c = lane_tail_find(l, chan);
    struct format_head head;
    struct rng rng;
    err_t e = lane_head_left(txn, l->dbis, chan, &head);
    if (e == OK) e = forget_members(l, txn, chan);
    if (e != OK) return e;
    ASSERT(c == NULL || c->pending_count == 0);   /* nothing is published to what cannot be read */
    rng_seed_system(&rng);
    head.reset_floor = head.purge_floor = behind_tail(&head, c);
    head.reset_ms = l->conf->wall_ms();
    if (head.floor == 0) head.floor = head.delivery + 1;   /* it has no segments */
    if (head.time_ms == 0 && (c == NULL || c->count == 0)) head.time_ms = head.reset_ms;
    head.flags = FORMAT_HEAD_RELAXED;      /* it may have been */
    head.delivery_epoch = rng_next(&rng) | 1;
    head.history_epoch = rng_next(&rng) | 1;
    e = lane_head_put(l, txn, chan, &head, app_id, channel);
    if (e == OK && c != NULL) c->headless = false;   /* found out again, if this is not committed */
    return e;
}
