/* The tail index from the wal. While the scan runs, a channel's `pending` is the newest serial that
 * its segments hold and `pending_count` 1 says that it has been looked up. FORGOTTEN: it has no
 * head, so a RECORD_FORGET must come behind all its records; `pending_count` 2 when that was seen.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/log.h"
#include "store/lane_parts.h"

#define FORGOTTEN UINT64_MAX

struct scan {
    struct lane *lane;
    MDB_txn     *txn;
    char        *error;
    uint32_t     error_bytes;
};

static err_t damaged(const struct scan *s, const char *what, uint64_t number)
{
    (void)snprintf(s->error, s->error_bytes, "%s/lane-%02u: %s %" PRIu64 " is damaged: the server "
                   "does not start on it; `weftctl store check` lists what is wrong",
                   s->lane->conf->dir, s->lane->index, what, number);
    return ERR_IO;
}

/* One head costs its channel, not the start: where its tail begins is what its segments say. */
static err_t without_head(const struct scan *s, struct lane_chan *c)
{
    char index[12], chan[24];
    struct format_head left;
    err_t e = lane_head_left(s->txn, s->lane->dbis, c->chan, &left);
    if (e != OK) return damaged(s, "the head of channel", c->chan);
    (void)snprintf(index, sizeof index, "%u", s->lane->index);
    (void)snprintf(chan, sizeof chan, "%" PRIu64, c->chan);
    LOG(LOG_ERROR, "a channel cannot be read: it is named when it is asked for, and to be reset",
        "lane", index, "number", chan);
    c->headless = true;
    c->pending = left.delivery;
    c->pending_count = 1;
    return OK;
}

static err_t look_up(const struct scan *s, struct lane_chan *c)
{
    struct format_key key = format_key1(c->chan);
    struct slice value, app_id, channel;
    struct format_head head;
    bool found;
    if (c->pending_count > 0) return OK;
    err_t e = lane_get(s->lane, s->txn, FORMAT_HEADS, &key, &value, &found);
    if (e != OK) return damaged(s, "the head of channel", c->chan);
    if (found && !format_head_read(value, &head, &app_id, &channel)) return without_head(s, c);
    c->pending = found ? head.delivery : FORGOTTEN;
    c->pending_count = 1;
    return OK;
}

static err_t scan_forget(const struct scan *s, const struct record *r)
{
    struct lane *l = s->lane;
    for (uint32_t i = 0; i + sizeof(uint64_t) <= r->data.bytes; i += sizeof(uint64_t)) {
        uint64_t chan;
        memcpy(&chan, r->data.ptr + i, sizeof chan);
        struct lane_chan *c = lane_tail_find(l, chan);
        if (c == NULL) continue;
        if (c->pending != FORGOTTEN) return damaged(s, "the end of channel", chan);
        c->pending_count = 2;
    }
    l->wals[l->wals_first + l->wals_count - 1].forgets = true;
    return OK;
}

static err_t scan_record(const struct scan *s, const struct record *r, uint64_t seq,
                         uint32_t offset, uint32_t bytes)
{
    struct lane *l = s->lane;
    if (r->kind == RECORD_FORGET) return scan_forget(s, r);
    if (!record_is_version(r)) return OK;
    struct lane_chan *c = lane_tail_get(l, r->chan);
    if (c == NULL) return ERR_MEMORY;
    err_t e = look_up(s, c);
    if (e == OK && c->pending_count == 2) return damaged(s, "the end of channel", c->chan);
    if (e != OK || r->delivery <= c->pending) return e;
    e = lane_tail_room(c, 1);
    if (e != OK) return e;
    struct lane_entry entry = {
        .delivery = r->delivery, .message = r->message != 0 ? r->message : r->delivery,
        .history = r->history, .time_ms = r->time_ms, .wal_seq = seq, .offset = offset,
        .bytes = bytes, .kind = r->kind, .flags = r->flags, .row = record_is_row(r),
    };
    lane_tail_add(l, c, &entry);
    return OK;
}

static err_t scan_value(const struct scan *s, struct slice key, struct slice value)
{
    struct lane *l = s->lane;
    struct format_wal head;
    struct slice rest;
    uint64_t seq = 0;
    uint32_t bytes, count = 0;
    struct record r;
    if (!format_key_part(key, 0, &seq) || !format_wal_read(value, &head, &rest) ||
        head.seq != seq) {
        return damaged(s, "wal value", seq);
    }
    err_t e = lane_wal_room(l, 1);
    if (e != OK) return e;
    lane_wal_add(l, seq, value.bytes);
    l->seq_next = seq + 1;
    l->chan_next = head.chan_next;
    for (const uint8_t *first = rest.ptr; rest.bytes > 0; rest = slice_skip(rest, bytes), count++) {
        if (record_read(rest, &r, &bytes) != RECORD_OK) return damaged(s, "wal value", seq);
        e = scan_record(s, &r, seq, (uint32_t)(rest.ptr - first), bytes);
        if (e != OK) return e;
    }
    return count == head.records_count ? OK : damaged(s, "wal value", seq);
}

/* Without a head it is not known what retention has taken of a tail: its wal values may still hold
 * some of it, with gaps. */
static void drop_gaps(struct lane *l, struct lane_chan *c)
{
    const struct lane_entry *e = lane_tail_entries(c);
    uint32_t drop = 0;
    for (uint32_t k = 1; k < c->count; k++) {
        if (e[k].delivery != e[k - 1].delivery + 1) drop = k;
    }
    if (c->pending == 0) lane_tail_drop(l, c, drop);
    if (c->pending == 0 && c->count > 0) c->pending = lane_tail_entries(c)[0].delivery - 1;
}

/* Each tail goes on where its segments end, without a gap. */
static err_t scan_finish(const struct scan *s)
{
    struct lane *l = s->lane;
    for (uint32_t i = 0; i < l->chans.buckets_count; i++) {
        for (struct table_node *n = l->chans.buckets[i]; n != NULL; n = n->next) {
            struct lane_chan *c = CONTAINER_OF(n, struct lane_chan, node);
            if (c->pending == FORGOTTEN && c->pending_count != 2) {
                return damaged(s, "the head of channel", c->chan);
            }
            lane_tail_sort(l, c);
            if (c->headless) drop_gaps(l, c);
            const struct lane_entry *e = lane_tail_entries(c);
            for (uint32_t k = 0; k < c->count; k++) {
                if (e[k].delivery != c->pending + 1 + k) {
                    return damaged(s, "the order of channel", c->chan);
                }
            }
            c->pending_count = 0;
        }
    }
    return OK;
}

/* Channels that have nothing in the tail end. A removal moves others about, so they are listed
 * first (by pack_next, which is theirs as long as they do not wait for packing). */
static void scan_release(struct lane *l)
{
    struct lane_chan *empty = NULL;
    for (uint32_t i = 0; i < l->chans.buckets_count; i++) {
        for (struct table_node *n = l->chans.buckets[i]; n != NULL; n = n->next) {
            struct lane_chan *c = CONTAINER_OF(n, struct lane_chan, node);
            c->pending = 0;
            if (c->count > 0) {
                lane_pack_want(l, c);
            } else {
                c->pack_next = empty;
                empty = c;
            }
        }
    }
    for (struct lane_chan *next; empty != NULL; empty = next) {
        next = empty->pack_next;
        lane_tail_release(l, empty);
    }
}

err_t lane_scan(struct lane *l, MDB_txn *txn, char *error, uint32_t error_bytes)
{
    struct scan s = {l, txn, error, error_bytes};
    MDB_cursor *cursor;
    MDB_val k, v;
    l->seq_next = l->chan_next = 1;
    err_t e = lane_error(mdb_cursor_open(txn, l->dbis[FORMAT_WAL], &cursor));
    if (e != OK) return e;
    int rc;
    for (rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST); e == OK && rc == MDB_SUCCESS;
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        e = scan_value(&s, lane_slice(k), lane_slice(v));
    }
    mdb_cursor_close(cursor);
    if (e == OK && rc != MDB_NOTFOUND) e = lane_error(rc);
    if (e == OK) e = scan_finish(&s);
    if (e == OK) scan_release(l);
    return e;
}
