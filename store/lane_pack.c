/* wal: one value a commit, records of many channels -> segments: long runs of one channel.
 *
 * A transaction plans: `drops` leave the tail for a segment, `moves` go from the oldest wal value
 * to a new one. RAM follows when it has committed. Wal values without live records are deleted by
 * the transaction after the one that emptied them.
 */
#include <stdlib.h>

#include "core/log.h"
#include "store/lane_parts.h"

enum {
    CLEAN_FROM_BYTES = STORE_WAL_BYTES_MAX / 4 * 3,   /* cleaning begins below the bound */
    DEAD_MAX = 64,                       /* values deleted in one transaction */
    HURRY_MAX = 5,                       /* doublings of the budget near the wal's bound */
    HURRY_BYTES = (STORE_WAL_BYTES_MAX - CLEAN_FROM_BYTES) / HURRY_MAX,   /* one for each so many */
};

struct drop { struct lane_chan *c; uint32_t count; };
struct move { struct lane_chan *c; uint64_t delivery, seq; uint32_t offset; };
struct mutated { uint64_t message, delivery; uint32_t offset, bytes; };

struct lane_pack {
    struct drop    *drops;               /* owned */
    uint32_t        drops_count, drops_room;
    struct move    *moves;               /* owned */
    uint32_t        moves_count, moves_room;
    uint8_t        *moved;               /* owned; the records of `moves`, one behind the other */
    uint32_t        moved_bytes, moved_room;
    uint64_t        moved_seq;
    uint32_t        dead_count;
    struct mutated *mutated;             /* owned; of the segment being written */
    uint32_t        mutated_room;
    uint32_t        segments, bytes;     /* left of this transaction's budget */
    uint64_t        clean_seq;           /* the value being cleaned, and how far */
    uint32_t        clean_offset;
    bool            idle;                /* the last plan was empty */
};

static_assert((uint64_t)LANE_PACK_BYTES_MAX << HURRY_MAX >= LANE_COMMIT_BYTES_MAX,
              "at the bound as much leaves the wal as one commit can bring");

/* Room for `count` items; a failed one leaves the array as it is. */
static err_t grow(void **array, uint32_t *room, uint32_t count, uint32_t item_bytes)
{
    if (count <= *room) return OK;
    uint32_t more = u32_max(count, *room == 0 ? 64 : *room * 2);
    void *grown = realloc(*array, (size_t)more * item_bytes);
    if (grown == NULL) return ERR_MEMORY;
    *array = grown;
    *room = more;
    return OK;
}
#define GROW(array, room, count) grow((void **)&(array), &(room), count, sizeof *(array))

/* ---- the queue of long tails ---- */

static void queue_put(struct lane *l, struct lane_chan *c)
{
    c->packing = true;
    c->pack_next = NULL;
    if (l->pack_first == NULL) {
        l->pack_first = c;
    } else {
        l->pack_last->pack_next = c;
    }
    l->pack_last = c;
    l->pack_count++;
}

static struct lane_chan *queue_take(struct lane *l)
{
    struct lane_chan *c = l->pack_first;
    l->pack_first = c->pack_next;
    if (l->pack_first == NULL) l->pack_last = NULL;
    l->pack_count--;
    return c;                              /* `packing` until the transaction has ended */
}

void lane_pack_want(struct lane *l, struct lane_chan *c)
{
    if (!c->packing && !c->headless && c->bytes >= LANE_TAIL_BYTES) queue_put(l, c);
}

bool lane_pack_waiting(const struct lane *l)
{
    if (l->damaged) return false;
    return l->pack_first != NULL || l->wals_dead_count >= DEAD_MAX ||
           (l->wal_bytes > CLEAN_FROM_BYTES && !l->pack->idle);
}

/* ---- one segment ---- */

static int by_message(const void *a, const void *b)
{
    const struct mutated *x = a, *y = b;
    if (x->message != y->message) return x->message < y->message ? -1 : 1;
    return (x->delivery > y->delivery) - (x->delivery < y->delivery);
}

static err_t put_part(struct lane *l, MDB_txn *txn, const struct format_segment *seg,
                      const struct mutated *m, uint32_t count)
{
    struct format_part part = {.first = m[0].delivery, .last = m[count - 1].delivery,
                               .records_count = count};
    struct format_key key = format_key3(seg->chan, m[0].message, seg->first);
    MDB_val k = lane_key(&key), v = {sizeof part + count * sizeof(uint32_t), NULL};
    for (uint32_t i = 0; i < count; i++) part.records_bytes += m[i].bytes;
    int rc = mdb_put(txn, l->dbis[FORMAT_MSGS], &k, &v, MDB_RESERVE);
    if (rc != MDB_SUCCESS) return lane_error(rc);
    uint8_t *to = v.mv_data;
    memcpy(to, &part, sizeof part);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(to + sizeof part + i * sizeof(uint32_t), &m[i].offset, sizeof(uint32_t));
    }
    part.check = format_check(lane_slice(v), (uint32_t)v.mv_size, 0);
    memcpy(to, &part.check, sizeof part.check);
    lane_base_want(l, seg->chan, m[0].message, part.records_bytes);
    return OK;
}

/* Parts of the messages that were mutated in the segment; others need none. */
static err_t put_parts(struct lane *l, MDB_txn *txn, const struct format_segment *seg,
                       uint32_t count)
{
    struct mutated *m = l->pack->mutated;
    err_t e = OK;
    qsort(m, count, sizeof *m, by_message);
    for (uint32_t i = 0, end; e == OK && i < count; i = end) {
        for (end = i + 1; end < count && m[end].message == m[i].message;) end++;
        if (end - i > 1 || m[i].delivery != m[i].message) e = put_part(l, txn, seg, m + i, end - i);
    }
    return e;
}

/* How many entries the next segment takes: rows of one history epoch, up to the bound. */
static uint32_t segment_entries(const struct lane_chan *c, const struct format_head *head,
                                struct format_segment *seg)
{
    const struct lane_entry *e = lane_tail_entries(c);
    bool before = e[0].delivery <= head->reset_floor;
    uint32_t n = 0;
    for (; n < c->count; n++) {
        if (n > 0 && seg->records_bytes + e[n].bytes > FORMAT_SEGMENT_BYTES_MAX) break;
        if (before != (e[n].delivery <= head->reset_floor)) break;
        seg->records_bytes += e[n].bytes;
        if (e[n].row) {
            seg->rows_count++;
            seg->row_bytes += e[n].bytes;
        }
    }
    seg->records_count = n;
    seg->chan = c->chan;
    seg->first = e[0].delivery;
    seg->last = e[n - 1].delivery;
    seg->first_ms = e[0].time_ms;
    seg->last_ms = e[n - 1].time_ms;
    seg->rows_before = head->rows;
    seg->row_bytes_before = head->row_bytes;
    seg->last_row = head->last_row;
    return n;
}

/* The packed record of a tail entry as it lies there: a copy is checked by whoever reads it, since
 * its checksum goes with it. *value: the wal value looked at last, to be kept from call to call
 * while nothing is put. */
static bool entry_bytes(struct lane *l, MDB_txn *txn, const struct lane_entry *e, uint64_t *seq,
                        struct slice *value, const uint8_t **out)
{
    if (*seq != e->wal_seq) {
        struct format_key key = format_key1(e->wal_seq);
        bool found;
        if (lane_get(l, txn, FORMAT_WAL, &key, value, &found) != OK || !found) return false;
        *seq = e->wal_seq;
    }
    uint64_t at = sizeof(struct format_wal) + (uint64_t)e->offset;
    *out = value->ptr + at;
    return at + e->bytes <= value->bytes;
}

/* Copies the records behind each other, lists rows and what may have been mutated. */
static err_t fill_segment(struct lane *l, MDB_txn *txn, const struct lane_chan *c,
                          struct format_segment *seg, uint8_t *to, uint32_t *mutated_count)
{
    const struct lane_entry *e = lane_tail_entries(c);
    uint8_t *records = to + sizeof *seg, *rows = records + seg->records_bytes;
    struct slice value;
    uint64_t seq = 0;
    uint32_t offset = 0;
    *mutated_count = 0;
    for (uint32_t i = 0; i < seg->records_count; offset += e[i++].bytes) {
        const uint8_t *packed;
        if (!entry_bytes(l, txn, &e[i], &seq, &value, &packed)) {
            lane_damage(l, "a value of the wal is wrong");
            return ERR_IO;
        }
        memcpy(records + offset, packed, e[i].bytes);
        if (e[i].row) {
            seg->last_row = (struct format_row){e[i].delivery, e[i].history, e[i].time_ms, offset,
                                                e[i].bytes};
            memcpy(rows, &seg->last_row, sizeof seg->last_row);
            rows += sizeof seg->last_row;
        }
        if (e[i].kind >= RECORD_CREATE && e[i].kind <= RECORD_APPEND) {
            l->pack->mutated[(*mutated_count)++] =
                (struct mutated){e[i].message, e[i].delivery, offset, e[i].bytes};
        }
    }
    memcpy(to, seg, sizeof *seg);
    uint32_t bytes = (uint32_t)(rows - to);
    seg->check = format_check(slice_of(to, bytes), sizeof *seg, seg->records_bytes);
    memcpy(to, &seg->check, sizeof seg->check);
    return OK;
}

static err_t put_segment(struct lane *l, MDB_txn *txn, struct lane_chan *c,
                         const struct format_head *head, struct format_segment *seg)
{
    struct lane_pack *p = l->pack;
    uint32_t count = segment_entries(c, head, seg), mutated_count;
    err_t e = GROW(p->mutated, p->mutated_room, count);
    if (e != OK) return e;
    struct format_key key = format_key2(c->chan, seg->first);
    size_t bytes = sizeof *seg + seg->records_bytes + seg->rows_count * sizeof(struct format_row);
    MDB_val k = lane_key(&key), v = {bytes, NULL};
    int rc = mdb_put(txn, l->dbis[FORMAT_SEGMENTS], &k, &v, MDB_RESERVE | MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST) lane_damage(l, "a segment lies where none should be");
    if (rc != MDB_SUCCESS) return lane_error(rc);
    e = fill_segment(l, txn, c, seg, v.mv_data, &mutated_count);
    return e == OK ? put_parts(l, txn, seg, mutated_count) : e;
}

/* The oldest part of a tail becomes a segment. */
static err_t pack_chan(struct lane *l, MDB_txn *txn, struct lane_chan *c)
{
    struct lane_pack *p = l->pack;
    struct format_segment seg = {0};
    struct lane_view v;
    const struct lane_entry *first = lane_tail_entries(c);
    err_t e = GROW(p->drops, p->drops_room, p->drops_count + 1);
    if (e != OK) return e;
    e = lane_view_open(&v, txn, l->dbis, c->chan, NULL, 0);
    if (e != OK && e != ERR_IO) return e;
    if (e == ERR_IO || !v.known || first->delivery != v.head.delivery + 1) {
        lane_damage(l, "a channel's head is wrong, or does not fit its tail");
        return ERR_IO;
    }
    e = put_segment(l, txn, c, &v.head, &seg);
    if (e != OK) return e;
    for (uint32_t i = 0; i < seg.records_count; i++) {
        if ((first[i].flags & RECORD_RELAXED) != 0) v.head.flags |= FORMAT_HEAD_RELAXED;
    }
    v.head.delivery = seg.last;
    v.head.time_ms = seg.last_ms;
    v.head.rows += seg.rows_count;
    v.head.row_bytes += seg.row_bytes;
    v.head.last_row = seg.last_row;
    /* The view's texts lie where the puts above may have moved pages: they are read again. */
    struct lane_view again;
    e = lane_view_open(&again, txn, l->dbis, c->chan, NULL, 0);
    if (e == OK) e = lane_head_put(l, txn, c->chan, &v.head, again.app_id, again.channel);
    if (e != OK) return e;
    p->drops[p->drops_count++] = (struct drop){c, seg.records_count};
    p->segments -= u32_min(p->segments, 1);
    p->bytes -= u32_min(p->bytes, seg.records_bytes);
    return OK;
}

/* ---- cleaning the wal ---- */

/* The tail entry of a record of wal value `seq`; NULL: dead, or leaving already. */
static struct lane_chan *live_chan(struct lane *l, const struct record *r, uint64_t seq)
{
    struct lane_chan *c = record_is_version(r) ? lane_tail_find(l, r->chan) : NULL;
    if (c == NULL || c->packing || c->count == 0) return NULL;
    const struct lane_entry *e = lane_tail_entries(c);
    if (r->delivery < e->delivery || r->delivery - e->delivery >= c->count) return NULL;
    return e[r->delivery - e->delivery].wal_seq == seq ? c : NULL;
}

static err_t plan_move(struct lane *l, struct lane_chan *c, const struct record *r, uint64_t seq,
                       struct slice packed)
{
    struct lane_pack *p = l->pack;
    err_t e = GROW(p->moves, p->moves_room, p->moves_count + 1);
    if (e == OK) e = GROW(p->moved, p->moved_room, p->moved_bytes + packed.bytes);
    if (e != OK) return e;
    p->moves[p->moves_count++] = (struct move){c, r->delivery, seq, p->moved_bytes};
    memcpy(p->moved + p->moved_bytes, packed.ptr, packed.bytes);
    p->moved_bytes += packed.bytes;
    p->bytes -= u32_min(p->bytes, packed.bytes);
    return OK;
}

static err_t put_moved(struct lane *l, MDB_txn *txn)
{
    struct lane_pack *p = l->pack;
    struct format_wal head = {.seq = l->seq_next, .chan_next = l->chan_next,
                              .wall_ms = l->conf->wall_ms(), .records_count = p->moves_count,
                              .records_bytes = p->moved_bytes};
    if (p->moves_count == 0) return OK;
    err_t e = lane_wal_room(l, 2);
    if (e != OK) return e;
    struct format_key key = format_key1(head.seq);
    MDB_val k = lane_key(&key), v = {sizeof head + p->moved_bytes, NULL};
    int rc = mdb_put(txn, l->dbis[FORMAT_WAL], &k, &v, MDB_RESERVE | MDB_APPEND);
    if (rc != MDB_SUCCESS) return lane_error(rc);
    uint8_t *to = v.mv_data;
    memcpy(to, &head, sizeof head);
    memcpy(to + sizeof head, p->moved, p->moved_bytes);
    head.check = format_check(lane_slice(v), sizeof head, p->moved_bytes);
    memcpy(to, &head.check, sizeof head.check);
    p->moved_seq = l->seq_next++;
    return OK;
}

/* The oldest value that has live records is emptied: they go to a new value, or, when what lives
 * alone fills half of the bound, with their tails into small segments. */
static err_t clean_wal(struct lane *l, MDB_txn *txn)
{
    struct lane_pack *p = l->pack;
    struct lane_wal *w = lane_wal_oldest(l);
    bool evict = l->wal_live_bytes > STORE_WAL_BYTES_MAX / 2;
    struct slice value, records;
    struct format_wal head;
    bool found;
    if (w == NULL) return OK;
    if (w->seq != p->clean_seq) p->clean_offset = 0;
    p->clean_seq = w->seq;
    struct format_key key = format_key1(w->seq);
    err_t e = lane_get(l, txn, FORMAT_WAL, &key, &value, &found);
    if (e != OK) return e;
    if (!found || !format_wal_read(value, &head, &records) || p->clean_offset > records.bytes) {
        lane_damage(l, "a value of the wal is wrong");
        return ERR_IO;
    }
    /* A segment's put may move the value; its bytes are found again by their offset. */
    while (p->clean_offset < records.bytes && p->segments > 0 && p->bytes > 0) {
        struct record r;
        uint32_t bytes;
        struct slice rest = slice_skip(records, p->clean_offset);
        if (record_read(rest, &r, &bytes) != RECORD_OK) {
            lane_damage(l, "a record of the wal is wrong");
            return ERR_IO;
        }
        struct lane_chan *c = live_chan(l, &r, head.seq);
        p->clean_offset += bytes;
        if (c == NULL) continue;
        if (!evict || c->headless) {
            e = plan_move(l, c, &r, head.seq, slice_of(rest.ptr, bytes));
        } else {
            c->packing = true;
            c->pack_next = NULL;
            e = pack_chan(l, txn, c);
            if (e != OK) c->packing = false;
            if (e == OK) e = lane_get(l, txn, FORMAT_WAL, &key, &value, &found);
            if (e == OK && found) records = slice_skip(value, sizeof head);
        }
        if (e != OK) return e;
    }
    if (p->clean_offset >= records.bytes) p->clean_offset = 0;   /* the queued leave anyway */
    return put_moved(l, txn);
}

/* ---- a transaction's share ---- */

static err_t delete_dead(struct lane *l, MDB_txn *txn)
{
    struct lane_pack *p = l->pack;
    for (; p->dead_count < u32_min(DEAD_MAX, l->wals_dead_count); p->dead_count++) {
        uint64_t seq = l->wals_dead[p->dead_count];
        struct format_key key = format_key1(seq);
        MDB_val k = lane_key(&key);
        int rc = mdb_del(txn, l->dbis[FORMAT_WAL], &k, NULL);
        if (rc != MDB_SUCCESS) return lane_error(rc);
    }
    return OK;
}

static void plan_clear(struct lane_pack *p)
{
    p->drops_count = p->moves_count = p->moved_bytes = p->dead_count = 0;
    p->moved_seq = 0;
}

/* Channels that grow alike fill their tails together: what comes at once is spread over commits, as
 * each has appends waiting for it, and more go with each the more there are. */
static uint32_t pace(const struct lane *l)
{
    return u32_min(1 + l->pack_count / LANE_PACK_WAITING, LANE_PACK_SEGMENTS_MAX);
}

err_t lane_pack_some(struct lane *l, MDB_txn *txn)
{
    struct lane_pack *p = l->pack;
    uint32_t hurry = 0;
    if (l->damaged) return OK;
    if (l->wal_bytes > CLEAN_FROM_BYTES) {
        uint64_t over = (l->wal_bytes - CLEAN_FROM_BYTES) / HURRY_BYTES;
        hurry = (uint32_t)u64_min(over, HURRY_MAX);
    }
    p->segments = hurry > 0 ? (uint32_t)LANE_PACK_SEGMENTS_MAX << hurry : pace(l);
    p->bytes = LANE_PACK_BYTES_MAX << hurry;
    err_t e = delete_dead(l, txn);
    while (e == OK && l->pack_first != NULL && p->segments > 0 && p->bytes > 0) {
        struct lane_chan *c = queue_take(l);
        if (c->count > 0) {
            e = pack_chan(l, txn, c);
            if (e != OK) queue_put(l, c);
        } else {
            c->packing = false;            /* retention was faster */
            lane_tail_release(l, c);
        }
    }
    if (e == OK && l->wal_bytes > CLEAN_FROM_BYTES) e = clean_wal(l, txn);
    p->idle = p->drops_count == 0 && p->moves_count == 0 && p->dead_count == 0;
    return e;
}

static void move_applied(struct lane *l, const struct move *m)
{
    struct lane_entry *e = lane_tail_entries(m->c);
    ASSERT(m->delivery >= e->delivery && m->delivery - e->delivery < m->c->count);
    e += m->delivery - e->delivery;
    ASSERT(e->wal_seq == m->seq);
    lane_wal_less(l, lane_wal_find(l, m->seq), e->bytes);
    e->wal_seq = l->pack->moved_seq;
    e->offset = m->offset;
    lane_wal_find(l, e->wal_seq)->live++;
    l->wal_live_bytes += e->bytes;
}

void lane_pack_applied(struct lane *l)
{
    struct lane_pack *p = l->pack;
    for (uint32_t i = 0; i < p->dead_count; i++) {
        lane_wal_gone(l, lane_wal_find(l, l->wals_dead[i]));
    }
    l->wals_dead_count -= p->dead_count;   /* the commit may have found more meanwhile */
    memmove(l->wals_dead, l->wals_dead + p->dead_count, l->wals_dead_count * sizeof *l->wals_dead);
    if (p->moved_seq != 0) {
        lane_wal_add(l, p->moved_seq, (uint32_t)sizeof(struct format_wal) + p->moved_bytes);
    }
    for (uint32_t i = 0; i < p->moves_count; i++) move_applied(l, &p->moves[i]);
    for (uint32_t i = 0; i < p->drops_count; i++) {
        struct lane_chan *c = p->drops[i].c;
        lane_tail_drop(l, c, p->drops[i].count);   /* `packing` keeps it */
        c->packing = false;
        lane_pack_want(l, c);
        lane_tail_release(l, c);
    }
    lane_stat_add(&l->stats.segments, p->drops_count);
    lane_stat_set(&l->stats.wal_bytes, l->wal_bytes);
    lane_stat_set(&l->stats.tails, l->chans.nodes_count);
    plan_clear(p);
}

void lane_pack_undone(struct lane *l)
{
    struct lane_pack *p = l->pack;
    for (uint32_t i = 0; i < p->drops_count; i++) {
        p->drops[i].c->packing = false;
        lane_pack_want(l, p->drops[i].c);
    }
    p->clean_offset = 0;
    plan_clear(p);
}

err_t lane_pack_open(struct lane *l)
{
    l->pack = calloc(1, sizeof *l->pack);
    return l->pack == NULL ? ERR_MEMORY : lane_base_open(l);
}

void lane_pack_close(struct lane *l)
{
    if (l->pack == NULL) return;
    free(l->pack->drops);
    free(l->pack->moves);
    free(l->pack->moved);
    free(l->pack->mutated);
    free(l->pack);
    l->pack = NULL;
    lane_base_close(l);
}
