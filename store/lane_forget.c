/* Channels that are no more: the sweep takes head and name of one of which nothing else is left. A
 * later channel of that name is another stream, so what it begins with is another epoch each time:
 * a mark says which, for all names of a bucket together, or as many marks would stay as there were
 * channels. A home that has a channel in memory goes on where its head stands; it stays until the
 * home says that it has closed it. */
#include <stdlib.h>

#include "store/lane_parts.h"

enum { CHANS_MAX = 1 << 22 };

struct held { struct table_node node; uint64_t chan; };

struct lane_forget {
    struct table held;                   /* channels in the memory of homes */
    /* planned by the open transaction */
    uint32_t     count;
    uint64_t     chans[LANE_FORGETS_MAX];
    uint64_t     seq;                    /* of the wal value that says so */
    uint32_t     bytes;
};

err_t lane_forget_open(struct lane *l)
{
    l->forget = calloc(1, sizeof *l->forget);
    return l->forget == NULL ? ERR_MEMORY : table_open(&l->forget->held, CHANS_MAX);
}

void lane_forget_close(struct lane *l)
{
    struct table *t;
    if (l->forget == NULL) return;
    t = &l->forget->held;
    for (uint32_t i = 0; t->buckets != NULL && i < t->buckets_count; i++) {
        for (struct table_node *n = t->buckets[i], *next; n != NULL; n = next) {
            next = n->next;
            free(CONTAINER_OF(n, struct held, node));
        }
    }
    if (t->buckets != NULL) table_close(t);
    free(l->forget);
    l->forget = NULL;
}

/* ---- channels in memory ---- */

static struct held *held_find(const struct lane *l, uint64_t chan)
{
    struct table_node *n = table_find(&l->forget->held, lane_chan_hash(chan));
    while (n != NULL && CONTAINER_OF(n, struct held, node)->chan != chan) n = table_find_next(n);
    return n == NULL ? NULL : CONTAINER_OF(n, struct held, node);
}

err_t lane_hold(struct lane *l, uint64_t chan)
{
    if (l->conf->forget_after_ms == 0 || held_find(l, chan) != NULL) return OK;
    struct held *h = calloc(1, sizeof *h);
    if (h == NULL) return ERR_MEMORY;
    h->chan = chan;
    table_put(&l->forget->held, &h->node, lane_chan_hash(chan));
    return OK;
}

void lane_let_go(struct lane *l, uint64_t chan)
{
    struct held *h = held_find(l, chan);
    if (h == NULL) return;
    table_del(&l->forget->held, &h->node);
    free(h);
}

/* ---- marks ---- */

err_t lane_mark_find(MDB_txn *txn, const MDB_dbi *dbis, uint64_t name_hash, struct format_mark *out)
{
    struct format_key key = format_mark_key(name_hash);
    MDB_val k = lane_key(&key), v;
    *out = (struct format_mark){0};
    int rc = mdb_get(txn, dbis[FORMAT_META], &k, &v);
    if (rc == MDB_NOTFOUND) return OK;
    if (rc != MDB_SUCCESS) return lane_error(rc);
    return format_mark_read(lane_slice(v), out) ? OK : ERR_IO;
}

/* Another epoch than any that a channel of this bucket has begun with. */
static err_t put_mark(struct lane *l, MDB_txn *txn, uint64_t name_hash, uint64_t chan,
                      uint64_t time_ms)
{
    struct format_mark mark;
    err_t e = lane_mark_find(txn, l->dbis, name_hash, &mark);
    if (e == ERR_IO) mark = (struct format_mark){0};     /* damaged: this one takes its place */
    else if (e != OK) return e;
    struct { char store[STORE_ID_BYTES]; uint64_t chan, seq, wall_ms, before; } facts = {
        .chan = chan, .seq = l->seq_next, .wall_ms = l->conf->wall_ms(), .before = mark.epoch,
    };
    memcpy(facts.store, store_id(l->store), sizeof facts.store);
    mark.epoch = format_mark_epoch(slice_of(&facts, sizeof facts));
    mark.time_ms = u64_max(mark.time_ms, time_ms);
    mark.check = format_check(slice_of(&mark, sizeof mark), sizeof mark, 0);
    struct format_key key = format_mark_key(name_hash);
    return lane_put(l, txn, FORMAT_META, &key, slice_of(&mark, sizeof mark));
}

/* ---- forgetting ---- */

static err_t has_keys(struct lane *l, MDB_txn *txn, enum format_db db, uint64_t chan, bool *has)
{
    struct format_key key = format_key1(chan);
    MDB_val k = lane_key(&key), v;
    MDB_cursor *cursor;
    uint64_t owner;
    err_t e = lane_error(mdb_cursor_open(txn, l->dbis[db], &cursor));
    if (e != OK) return e;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (rc == MDB_SUCCESS && format_key_part(lane_slice(k), 0, &owner) && owner == chan) {
        *has = true;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? OK : lane_error(rc);
}

/* Retention has taken everything, nothing came for so long, and no home has it in memory. */
static bool is_left(const struct lane *l, const struct lane_view *v, uint64_t now_ms)
{
    const struct format_head *h = &v->head;
    return h->floor > h->delivery &&
           u64_max(h->time_ms, h->reset_ms) + l->conf->forget_after_ms < now_ms &&
           held_find(l, v->chan) == NULL && lane_tail_find(l, v->chan) == NULL;
}

/* Annotations name messages of their channel, whose serials count on; those of annotations count
 * for the channel alone: hidden channels go when theirs may go as well, and it goes after them. */
static err_t has_main(struct lane *l, MDB_txn *txn, const struct lane_view *v, uint64_t now_ms,
                      bool *has)
{
    struct lane_view theirs;
    uint64_t chan;
    err_t e = lane_name_find(txn, l->dbis, v->app_id, format_main_name(v->channel), &chan);
    if (e != OK || chan == 0) return e;
    e = lane_view_open(&theirs, txn, l->dbis, chan, NULL, 0);
    if (e == OK && !is_left(l, &theirs, now_ms)) *has = true;
    return e;
}

static err_t has_hidden(struct lane *l, MDB_txn *txn, const struct lane_view *v, bool *has)
{
    static const char *const prefixes[] = {STORE_PRESENCE_PREFIX, STORE_ANNOTATIONS_PREFIX};
    uint8_t name[STORE_NAME_BYTES_MAX + sizeof STORE_PRESENCE_PREFIX];
    for (uint32_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        uint32_t bytes = (uint32_t)strlen(prefixes[i]);
        uint64_t chan;
        memcpy(name, prefixes[i], bytes);
        memcpy(name + bytes, v->channel.ptr, v->channel.bytes);
        err_t e = lane_name_find(txn, l->dbis, v->app_id,
                                 slice_of(name, bytes + v->channel.bytes), &chan);
        if (e != OK) return e;
        if (chan != 0) *has = true;
    }
    return OK;
}

static err_t delete(struct lane *l, MDB_txn *txn, enum format_db db, struct format_key key)
{
    MDB_val k = lane_key(&key);
    return lane_error(mdb_del(txn, l->dbis[db], &k, NULL));
}

err_t lane_forget_chan(struct lane *l, MDB_txn *txn, const struct lane_view *v, uint64_t now_ms)
{
    struct lane_forget *f = l->forget;
    uint64_t chan = v->chan, time_ms = v->head.time_ms;
    bool has = false, hidden = format_main_name(v->channel).bytes < v->channel.bytes;
    if (l->conf->forget_after_ms == 0 || l->conf->policy == NULL || !is_left(l, v, now_ms)) {
        return OK;
    }
    err_t e = has_keys(l, txn, FORMAT_PRESENCE, chan, &has);
    if (e == OK && !has) e = has_keys(l, txn, FORMAT_SEGMENTS, chan, &has);
    if (e == OK && !has) e = has_keys(l, txn, FORMAT_MSGS, chan, &has);
    if (e == OK && !has && hidden) e = has_main(l, txn, v, now_ms, &has);
    if (e == OK && !has && !hidden) e = has_hidden(l, txn, v, &has);
    if (e != OK || has) return e;
    ASSERT(f->count < LANE_FORGETS_MAX);
    uint64_t hash = format_name_hash(v->app_id, v->channel);
    e = put_mark(l, txn, hash, chan, time_ms);
    if (e == OK) e = delete(l, txn, FORMAT_NAMES, format_key2(hash, chan));
    if (e == OK) e = delete(l, txn, FORMAT_HEADS, format_key1(chan));
    if (e == OK) f->chans[f->count++] = chan;
    return e;
}

/* ---- the transaction ---- */

bool lane_forget_planned(const struct lane *l) { return l->forget->count > 0; }

err_t lane_forget_put(struct lane *l, MDB_txn *txn)
{
    struct lane_forget *f = l->forget;
    uint8_t value[sizeof(struct format_wal) + sizeof f->chans + 64];
    struct record r = {.kind = RECORD_FORGET, .time_ms = l->conf->wall_ms(),
                       .data = slice_of(f->chans, f->count * (uint32_t)sizeof f->chans[0])};
    struct format_wal head = {.seq = l->seq_next, .chan_next = l->chan_next, .wall_ms = r.time_ms,
                              .records_count = 1, .records_bytes = record_bytes(&r)};
    err_t e = lane_wal_room(l, 1);
    if (e == OK) e = lane_format_need(l, txn, STORE_FORMAT);
    if (e != OK) return e;
    ASSERT(sizeof head + head.records_bytes <= sizeof value);
    memcpy(value, &head, sizeof head);
    (void)record_write(&r, value + sizeof head);
    f->seq = l->seq_next++;                /* a number that fails is not used again */
    f->bytes = (uint32_t)sizeof head + head.records_bytes;
    head.check = format_check(slice_of(value, f->bytes), sizeof head, head.records_bytes);
    memcpy(value, &head.check, sizeof head.check);
    struct format_key key = format_key1(f->seq);
    return lane_put(l, txn, FORMAT_WAL, &key, slice_of(value, f->bytes));
}

void lane_forget_applied(struct lane *l)
{
    struct lane_forget *f = l->forget;
    if (f->count == 0) return;
    lane_wal_add(l, f->seq, f->bytes);
    lane_wal_find(l, f->seq)->forgets = true;
    lane_stat_add(&l->stats.forgotten, f->count);
    lane_stat_set(&l->stats.wal_bytes, l->wal_bytes);
    f->count = 0;
}

void lane_forget_undone(struct lane *l) { l->forget->count = 0; }
