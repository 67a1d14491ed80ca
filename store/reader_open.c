#include <stdlib.h>

#include "core/rng.h"
#include "store/reader.h"

/* ---- opening a channel ---- */

static int receipt_add(struct reader_work *w, const struct record *r)
{
    enum { START = 64 };
    static const uint8_t none[16];
    if (memcmp(r->key, none, sizeof none) == 0) return STORE_READ_OK;
    if (w->receipts_count == w->receipts_room) {
        uint32_t room = w->receipts_room == 0 ? START : 2 * w->receipts_room;
        struct store_receipt *receipts = realloc(w->receipts, room * sizeof *receipts);
        if (receipts == NULL) return STORE_READ_MEMORY;
        w->receipts = receipts;
        w->receipts_room = room;
    }
    struct store_receipt *out = &w->receipts[w->receipts_count++];
    *out = (struct store_receipt){
        .delivery = r->delivery, .history = r->history, .time_ms = r->time_ms};
    memcpy(out->key, r->key, sizeof out->key);
    memcpy(out->print, r->print, sizeof out->print);
    return STORE_READ_OK;
}

/* Receipts of one segment, from its first record younger than `least_ms` to before w.at. */
static int segment_receipts(struct reader_source *s, struct reader_work *w, uint64_t least_ms,
                            bool *older)
{
    struct reader_found f;
    int status = reader_segment_load(s, w->at - 1, READER_MAIN);
    if (status != STORE_READ_OK) return status;
    uint64_t first = s->segments[READER_MAIN].seg.first;
    *older = s->segments[READER_MAIN].seg.first_ms < least_ms;
    if (s->segments[READER_MAIN].seg.last_ms >= least_ms) {
        for (uint64_t d = first; d < w->at; d++) {
            status = reader_find(s, d, READER_MAIN, &f);
            if (status == STORE_READ_OK && f.r.time_ms >= least_ms) status = receipt_add(w, &f.r);
            if (status != STORE_READ_OK) return status;
        }
    }
    w->at = first;
    return STORE_READ_OK;
}

/* From the newest record back, for as long as they are young: time never falls in a channel. */
static int gather_receipts(struct reader_source *s, struct store_read *r, struct reader_work *w)
{
    const struct lane_view *v = &s->view;
    uint64_t least_ms = r->now_ms >= r->receipt_age_ms ? r->now_ms - r->receipt_age_ms + 1 : 0;
    bool older = r->receipt_age_ms == 0;
    struct reader_found f;
    int status = STORE_READ_OK;

    while (!older && w->at > v->head.floor && status == STORE_READ_OK) {
        if (reader_over(s)) return READER_AGAIN;
        if (r->limit != 0 && w->receipts_count >= r->limit) break;
        if (v->tail_count > 0 && w->at > v->tail[0].delivery) {
            const struct lane_entry *e = &v->tail[w->at - 1 - v->tail[0].delivery];
            older = e->time_ms < least_ms;
            if (!older) {
                status = reader_find(s, w->at - 1, READER_MAIN, &f);
                if (status == STORE_READ_OK) status = receipt_add(w, &f.r);
                w->at--;
            }
        } else {
            status = segment_receipts(s, w, least_ms, &older);
        }
        s->steps++;
    }
    return status == STORE_READ_NOT_FOUND ? STORE_READ_OK : status;   /* evicted meanwhile */
}

static int receipt_order(const void *a, const void *b)
{
    const struct store_receipt *x = a, *y = b;
    return x->delivery < y->delivery ? -1 : x->delivery > y->delivery;
}

/* Oldest first; when there are too many, the newest. */
static void sort_receipts(const struct store_read *r, struct reader_work *w)
{
    if (w->receipts_count == 0) return;
    qsort(w->receipts, w->receipts_count, sizeof *w->receipts, receipt_order);
    if (r->limit == 0 || w->receipts_count <= r->limit) return;
    uint32_t surplus = w->receipts_count - r->limit;
    memmove(w->receipts, w->receipts + surplus, r->limit * sizeof *w->receipts);
    w->receipts_count = r->limit;
}

/* The number under which a name is listed whose head cannot be read; 0: there is none. */
static uint64_t lost_number(const struct lane_view *v, const struct store_read *r)
{
    uint64_t hash = format_name_hash(r->app_id, r->channel), key_hash, number, lost = 0;
    struct format_key key = format_key2(hash, 0);
    MDB_val k = lane_key(&key), value;
    MDB_cursor *cursor;
    if (mdb_cursor_open(v->txn, v->dbis[FORMAT_NAMES], &cursor) != 0) return 0;
    int rc = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE);
    while (rc == 0 && lost == 0 && format_key_part(lane_slice(k), 0, &key_hash) &&
           format_key_part(lane_slice(k), 1, &number) && key_hash == hash) {
        struct lane_view other;
        err_t e = lane_view_open(&other, v->txn, v->dbis, number, NULL, 0);
        if (e == ERR_IO && other.known) lost = number;
        rc = mdb_cursor_get(cursor, &k, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return lost;
}

/* Or forgotten: there is no difference. */
static int never_seen(const struct lane_view *v, const struct snapshot *snap)
{
    struct store_read *r = snap->read;
    struct format_mark mark;
    err_t e = lane_mark_find(v->txn, v->dbis, format_name_hash(r->app_id, r->channel), &mark);
    if (e == ERR_MEMORY) return STORE_READ_MEMORY;
    if (e != OK) {                         /* it cannot be read: an epoch that nobody had */
        struct rng rng;
        rng_seed_system(&rng);
        uint64_t drawn = rng_next(&rng);
        mark = (struct format_mark){.epoch = format_mark_epoch(slice_of(&drawn, sizeof drawn))};
    }
    r->head = (struct store_head){
        .chan = snap->chan_fresh, .history_next = 1, .replay_floor = 1, .row_floor = 1,
        .delivery_epoch = mark.epoch, .time_ms = mark.time_ms,
    };
    return STORE_READ_OK;
}

int reader_open_channel(struct reader_source *s, struct snapshot *snap, struct reader_work *w,
                        const struct store_conf *conf)
{
    struct store_read *r = snap->read;
    struct store_policy policy = {.age_ms = 0};
    struct lane_view *v = &s->view;
    uint64_t chan = snap->chan;

    if (chan == 0) {
        if ((uint64_t)r->app_id.bytes + r->channel.bytes > STORE_NAME_BYTES_MAX) {
            return STORE_READ_LARGE;
        }
        err_t e = lane_name_find(v->txn, v->dbis, r->app_id, r->channel, &chan);
        if (e == ERR_IO) {
            uint64_t lost = lost_number(v, r);
            r->head = (struct store_head){.chan = lost, .lost = lost != 0};
        }
        if (e != OK) return e == ERR_MEMORY ? STORE_READ_MEMORY : STORE_READ_IO;
        if (chan != 0) {                       /* the committer knows its tail */
            snap->chan = chan;
            return READER_AGAIN;
        }
        return never_seen(v, snap);
    }
    if (!v->known) return never_seen(v, snap);   /* forgotten since its name was found */
    if (!w->started) {
        if (conf->policy != NULL) conf->policy(conf->policy_ctx, r->app_id, r->channel, &policy);
        err_t e = lane_head(v, &policy, r->now_ms, &r->head);
        if (e != OK) return e == ERR_MEMORY ? STORE_READ_MEMORY : STORE_READ_IO;
        w->at = r->head.delivery + 1;
        w->started = true;
    }
    int status = gather_receipts(s, r, w);
    if (status != READER_AGAIN) sort_receipts(r, w);
    return status;
}

/* ---- what a start needs ---- */

/* Is the channel in the slots that are asked for? If so, its name goes before its members. */
static int member_channel(struct reader_source *s, const struct store_read *r,
                          struct reader_work *w, uint64_t chan)
{
    uint8_t name[STORE_NAME_BYTES_MAX + 1];
    struct slice app_id = {NULL, 0}, channel = {NULL, 0};
    struct format_head head;
    struct format_key want = format_key1(chan);
    MDB_val key = lane_key(&want), data;

    int e = mdb_get(s->view.txn, s->view.dbis[FORMAT_HEADS], &key, &data);
    w->member_chan = chan;
    w->member_wanted = false;
    if (e == MDB_NOTFOUND) return STORE_READ_OK;
    if (e != 0) return STORE_READ_IO;
    if (!format_head_read(lane_slice(data), &head, &app_id, &channel) ||
        app_id.bytes + channel.bytes > STORE_NAME_BYTES_MAX) {
        w->unreadable++;
        return STORE_READ_OK;
    }
    uint32_t slot = format_slot(app_id, channel);
    w->member_wanted = r->slot_from <= slot && slot < r->slot_upto;
    if (!w->member_wanted) return STORE_READ_OK;
    memcpy(name, app_id.ptr, app_id.bytes);
    name[app_id.bytes] = 0;
    memcpy(name + app_id.bytes + 1, channel.ptr, channel.bytes);
    struct record r_name = {.kind = RECORD_CHANNEL, .chan = chan,
                            .data = slice_of(name, app_id.bytes + 1 + channel.bytes)};
    return reader_put_record(w, &r_name);
}

static int put_member(struct reader_source *s, const struct store_read *r, struct reader_work *w,
                      struct slice key, struct slice value)
{
    struct record member;
    uint64_t chan;
    uint32_t bytes;

    if (!format_key_part(key, 0, &chan) || record_read(value, &member, &bytes) != RECORD_OK ||
        member.chan != chan) {
        w->unreadable++;                       /* one member less, rather than none */
        return STORE_READ_OK;
    }
    int status = chan == w->member_chan ? STORE_READ_OK : member_channel(s, r, w, chan);
    if (status != STORE_READ_OK || !w->member_wanted) return status;
    w->items++;
    return reader_put(w, slice_of(value.ptr, bytes));
}

/* Goes through a database from the key behind the last one handled. */
static int each(struct reader_source *s, struct store_read *r, struct reader_work *w,
                enum format_db db,
                int (*one)(struct reader_source *s, const struct store_read *r,
                           struct reader_work *w, struct slice key, struct slice value))
{
    MDB_cursor *c;
    MDB_val key = {w->key_bytes, w->key}, data;
    int status = STORE_READ_OK, op = w->key_bytes > 0 ? MDB_SET_RANGE : MDB_FIRST, e;

    if (mdb_cursor_open(s->view.txn, s->view.dbis[db], &c) != 0) return STORE_READ_IO;
    while ((e = mdb_cursor_get(c, &key, &data, op)) == 0) {
        bool again = op == MDB_SET_RANGE && w->started && key.mv_size == w->key_bytes &&
                     memcmp(key.mv_data, w->key, w->key_bytes) == 0;
        op = MDB_NEXT;
        if (again) continue;
        if (key.mv_size > sizeof w->key) {
            w->unreadable++;                   /* nobody writes such a key */
            continue;
        }
        status = reader_over(s) ? READER_AGAIN : one(s, r, w, lane_slice(key), lane_slice(data));
        if (status != STORE_READ_OK) break;
        memcpy(w->key, key.mv_data, key.mv_size);
        w->key_bytes = (uint32_t)key.mv_size;
        w->started = true;
        s->touched += data.mv_size;
        s->steps++;
    }
    mdb_cursor_close(c);
    if (e != 0 && e != MDB_NOTFOUND) return STORE_READ_IO;
    return status;
}

static int put_requests(struct reader_source *s, const struct store_read *r, struct reader_work *w,
                        struct slice key, struct slice value)
{
    struct record request;
    uint32_t bytes;
    while (value.bytes > 0) {
        if (record_read(value, &request, &bytes) != RECORD_OK) {
            w->unreadable++;                   /* where the next one begins is not known */
            break;
        }
        int status = reader_put(w, slice_of(value.ptr, bytes));
        if (status != STORE_READ_OK) return status;
        w->items++;
        value = slice_skip(value, bytes);
    }
    return STORE_READ_OK;
}

int reader_active(struct reader_source *s, struct store_read *r, struct reader_work *w)
{
    if (!w->members_done) {
        int status = each(s, r, w, FORMAT_PRESENCE, put_member);
        if (status != STORE_READ_OK) return status;
        w->members_done = true;
        w->started = false;
        uint64_t least = r->now_ms >= r->receipt_age_ms ? r->now_ms - r->receipt_age_ms + 1 : 0;
        struct format_key first = format_key2(least, 0);
        memcpy(w->key, first.bytes, first.count);
        w->key_bytes = first.count;
    }
    int status = each(s, r, w, FORMAT_RECEIPTS, put_requests);
    r->unreadable = w->unreadable;
    return status;
}
