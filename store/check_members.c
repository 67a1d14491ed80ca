#include <stdlib.h>

#include "store/check_parts.h"

void check_member_add(struct check_members *m, const struct record *r, struct slice packed)
{
    struct format_key key = format_presence_key(r->chan, r->user);
    if (m->count == m->room) {
        m->room = m->room == 0 ? 64 : 2 * m->room;
        m->all = check_need(m->all, m->room, sizeof *m->all);
    }
    struct check_member *to = &m->all[m->count++];
    *to = (struct check_member){.delivery = r->delivery, .packed = packed,
                                .removed = slice_is(r->name, "\"member_removed\"")};
    (void)format_key_part(slice_of(key.bytes, key.count), 1, &to->high);
    (void)format_key_part(slice_of(key.bytes, key.count), 2, &to->low);
}

/* By member, the newest event first. */
static int member_order(const void *a, const void *b)
{
    const struct check_member *x = a, *y = b;
    if (x->high != y->high) return x->high < y->high ? -1 : 1;
    if (x->low != y->low) return x->low < y->low ? -1 : 1;
    return x->delivery > y->delivery ? -1 : x->delivery < y->delivery;
}

static const struct check_member *member_find(const struct check_members *m, uint64_t high,
                                              uint64_t low)
{
    uint32_t from = 0, upto = m->count;
    while (from < upto) {
        uint32_t middle = from + (upto - from) / 2;
        const struct check_member *x = &m->all[middle];
        if (x->high < high || (x->high == high && x->low < low)) {
            from = middle + 1;
        } else {
            upto = middle;
        }
    }
    if (from == m->count || m->all[from].high != high || m->all[from].low != low) return NULL;
    return &m->all[from];
}

static void check_kept(struct check *c, uint64_t chan, uint64_t known_from,
                       const struct check_members *m, struct slice key, struct slice value)
{
    const unsigned long long number = chan;
    uint64_t high = 0, low = 0;
    struct record r;
    uint32_t bytes;

    c->counts.members++;
    if (record_read(value, &r, &bytes) != RECORD_OK || bytes != value.bytes ||
        r.kind != RECORD_PRESENCE) {
        check_find(c, "presence: a member of channel %llu: wrong checksum", number);
        return;
    }
    struct format_key want = format_presence_key(r.chan, r.user);
    if (r.chan != chan || !slice_equal(slice_of(want.bytes, want.count), key)) {
        check_find(c, "presence: a member of channel %llu is kept under another's key", number);
        return;
    }
    (void)format_key_part(key, 1, &high);
    (void)format_key_part(key, 2, &low);
    const struct check_member *event = member_find(m, high, low);
    if (event == NULL && r.delivery >= known_from) {
        check_find(c, "presence: channel %llu keeps event %llu, which is not in its log", number,
                   (unsigned long long)r.delivery);
    } else if (event != NULL && (event->removed || !slice_equal(event->packed, value))) {
        check_find(c, "presence: channel %llu keeps event %llu, but %llu is newer", number,
                   (unsigned long long)r.delivery, (unsigned long long)event->delivery);
    }
}

void check_members(struct check *c, uint64_t chan, uint64_t known_from, uint64_t purge_floor,
                   struct check_members *m)
{
    struct format_key first = format_key1(chan);
    MDB_val key = lane_key(&first), data;
    MDB_cursor *cursor;
    uint64_t owner = 0, kept = 0, open = 0;

    if (m->count > 0) qsort(m->all, m->count, sizeof *m->all, member_order);
    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_PRESENCE], &cursor) != 0) return;
    for (int e = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
         e == 0 && format_key_part(lane_slice(key), 0, &owner) && owner == chan;
         e = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) {
        uint64_t high = 0, low = 0;
        check_kept(c, chan, known_from, m, lane_slice(key), lane_slice(data));
        (void)format_key_part(lane_slice(key), 1, &high);
        (void)format_key_part(lane_slice(key), 2, &low);
        kept += member_find(m, high, low) != NULL;
    }
    mdb_cursor_close(cursor);
    for (uint32_t i = 0; i < m->count; i++) {
        bool newest = i == 0 || m->all[i].high != m->all[i - 1].high ||
                      m->all[i].low != m->all[i - 1].low;
        open += newest && !m->all[i].removed && m->all[i].delivery > purge_floor;
    }
    if (open > kept) {
        check_find(c, "presence: channel %llu has lost %llu open members",
                   (unsigned long long)chan, (unsigned long long)(open - kept));
    }
}
