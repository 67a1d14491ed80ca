/* chans: number -> entries, oldest first       wals: values by seq, each with its live records; one
 *                                              that forgets channels outlives those before it
 *
 *   entries  . . . [first ......... first + count) . . room
 *   wals     . . . [wals_first .... + wals_count)   bytes 0: deleted, out of turn
 */
#include <stdlib.h>

#include "store/lane_parts.h"

enum { CHANS_MAX = 1 << 22, ROOM_FIRST = 4 };

err_t lane_tail_open(struct lane *l)
{
    return table_open(&l->chans, CHANS_MAX);
}

void lane_tail_close(struct lane *l)
{
    for (uint32_t i = 0; l->chans.buckets != NULL && i < l->chans.buckets_count; i++) {
        for (struct table_node *n = l->chans.buckets[i], *next; n != NULL; n = next) {
            struct lane_chan *c = CONTAINER_OF(n, struct lane_chan, node);
            next = n->next;
            free(c->entries);
            free(c);
        }
    }
    if (l->chans.buckets != NULL) table_close(&l->chans);
    free(l->wals);
    free(l->wals_dead);
}

static void chan_free(struct lane *l, struct lane_chan *c)
{
    table_del(&l->chans, &c->node);
    free(c->entries);
    free(c);
}

struct lane_chan *lane_tail_find(const struct lane *l, uint64_t chan)
{
    struct table_node *n = table_find(&l->chans, lane_chan_hash(chan));
    while (n != NULL && CONTAINER_OF(n, struct lane_chan, node)->chan != chan) {
        n = table_find_next(n);
    }
    return n == NULL ? NULL : CONTAINER_OF(n, struct lane_chan, node);
}

struct lane_chan *lane_tail_get(struct lane *l, uint64_t chan)
{
    struct lane_chan *c = lane_tail_find(l, chan);
    if (c != NULL) return c;
    c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->chan = chan;
    table_put(&l->chans, &c->node, lane_chan_hash(chan));
    return c;
}

err_t lane_tail_room(struct lane_chan *c, uint32_t more)
{
    if (c->first + c->count + more <= c->room) return OK;
    if (c->first > c->room / 2 && c->count + more <= c->room) {
        memmove(c->entries, c->entries + c->first, c->count * sizeof *c->entries);
        c->first = 0;
        return OK;
    }
    uint32_t room = c->room == 0 ? ROOM_FIRST : c->room * 2;
    while (room < c->first + c->count + more) room *= 2;
    struct lane_entry *grown = realloc(c->entries, room * sizeof *grown);
    if (grown == NULL) return ERR_MEMORY;
    c->entries = grown;
    c->room = room;
    return OK;
}

void lane_tail_add(struct lane *l, struct lane_chan *c, const struct lane_entry *e)
{
    ASSERT(c->first + c->count < c->room);
    struct lane_entry *to = c->entries + c->first + c->count++;
    struct lane_wal *w = lane_wal_find(l, e->wal_seq);
    ASSERT(w != NULL);

    *to = *e;
    if (c->count > 1) {
        to->rows_before = to[-1].rows_before + (to[-1].row ? 1 : 0);
        to->row_bytes_before = to[-1].row_bytes_before + (to[-1].row ? to[-1].bytes : 0);
    } else {
        to->rows_before = to->row_bytes_before = 0;
    }
    c->bytes += e->bytes;
    w->live++;
    l->wal_live_bytes += e->bytes;
}

void lane_tail_drop(struct lane *l, struct lane_chan *c, uint32_t n)
{
    struct lane_wal *w = NULL;
    ASSERT(n <= c->count);
    for (uint32_t i = 0; i < n; i++) {
        struct lane_entry *e = c->entries + c->first + i;
        if (w == NULL || w->seq != e->wal_seq) w = lane_wal_find(l, e->wal_seq);
        ASSERT(w != NULL);
        lane_wal_less(l, w, e->bytes);
        c->bytes -= e->bytes;
    }
    c->first += n;
    c->count -= n;
    lane_tail_release(l, c);
}

void lane_tail_release(struct lane *l, struct lane_chan *c)
{
    if (c->count == 0 && c->pending_count == 0 && !c->packing) chan_free(l, c);
}

static int by_delivery(const void *a, const void *b)
{
    const struct lane_entry *x = a, *y = b;
    if (x->delivery != y->delivery) return x->delivery < y->delivery ? -1 : 1;
    return (x->wal_seq > y->wal_seq) - (x->wal_seq < y->wal_seq);
}

/* A record that cleaning moved lies in its old value too, until that is deleted as a whole. */
static void keep_newest(struct lane *l, struct lane_chan *c)
{
    struct lane_entry *e = lane_tail_entries(c);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        if (i + 1 < c->count && e[i + 1].delivery == e[i].delivery) {
            c->bytes -= e[i].bytes;
            lane_wal_less(l, lane_wal_find(l, e[i].wal_seq), e[i].bytes);
        } else {
            e[kept++] = e[i];
        }
    }
    c->count = kept;
}

void lane_tail_sort(struct lane *l, struct lane_chan *c)
{
    struct lane_entry *e = lane_tail_entries(c);
    if (c->count > 1) qsort(e, c->count, sizeof *e, by_delivery);
    keep_newest(l, c);
    for (uint32_t i = 0; i < c->count; i++) {
        e[i].rows_before = i == 0 ? 0 : e[i - 1].rows_before + (e[i - 1].row ? 1 : 0);
        e[i].row_bytes_before =
            i == 0 ? 0 : e[i - 1].row_bytes_before + (e[i - 1].row ? e[i - 1].bytes : 0);
    }
}

/* ---- values of the wal ---- */

err_t lane_wal_room(struct lane *l, uint32_t more)
{
    ASSERT(more <= 32);
    if (l->wals_first + l->wals_count + more > l->wals_room) {
        if (l->wals_first >= more && l->wals_first > l->wals_room / 2) {
            memmove(l->wals, l->wals + l->wals_first, l->wals_count * sizeof *l->wals);
            l->wals_first = 0;
        } else {
            uint32_t room = l->wals_room == 0 ? 64 : l->wals_room * 2;
            struct lane_wal *grown = realloc(l->wals, room * sizeof *grown);
            if (grown == NULL) return ERR_MEMORY;
            l->wals = grown;
            l->wals_room = room;
        }
    }
    /* Every value may be dead at once. */
    if (l->wals_dead_room < l->wals_room) {
        uint64_t *grown = realloc(l->wals_dead, l->wals_room * sizeof *grown);
        if (grown == NULL) return ERR_MEMORY;
        l->wals_dead = grown;
        l->wals_dead_room = l->wals_room;
    }
    return OK;
}

void lane_wal_add(struct lane *l, uint64_t seq, uint32_t bytes)
{
    ASSERT(l->wals_first + l->wals_count < l->wals_room);
    struct lane_wal *w = l->wals + l->wals_first + l->wals_count;
    ASSERT(bytes > 0 && (l->wals_count == 0 || w[-1].seq < seq));
    if (l->wals_count > 0 && w[-1].live == 0 && (l->wals_count == 1 || !w[-1].forgets)) {
        w[-1].forgets = false;
        l->wals_dead[l->wals_dead_count++] = w[-1].seq;
    }
    *w = (struct lane_wal){.seq = seq, .bytes = bytes};
    l->wals_count++;
    l->wal_bytes += bytes;
}

struct lane_wal *lane_wal_find(const struct lane *l, uint64_t seq)
{
    uint32_t low = 0, high = l->wals_count;
    struct lane_wal *w = l->wals + l->wals_first;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (w[mid].seq < seq) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < l->wals_count && w[low].seq == seq ? &w[low] : NULL;
}

static bool is_newest(const struct lane *l, const struct lane_wal *w)
{
    return w == l->wals + l->wals_first + l->wals_count - 1;
}

/* The newest value stays, dead or not: it says how far sequence and channel numbers are. */
void lane_wal_less(struct lane *l, struct lane_wal *w, uint32_t bytes)
{
    ASSERT(w->live > 0 && l->wal_live_bytes >= bytes);
    l->wal_live_bytes -= bytes;
    if (--w->live == 0 && !is_newest(l, w)) l->wals_dead[l->wals_dead_count++] = w->seq;
}

void lane_wal_gone(struct lane *l, struct lane_wal *w)
{
    ASSERT(w->live == 0 && !is_newest(l, w));
    l->wal_bytes -= w->bytes;
    w->bytes = 0;
    while (l->wals_count > 0 && l->wals[l->wals_first].bytes == 0) {
        l->wals_first++;
        l->wals_count--;
    }
    if (l->wals_count < 2) return;         /* none, or the newest */
    w = &l->wals[l->wals_first];
    if (!w->forgets) return;
    w->forgets = false;                    /* nothing before it is left that it speaks of */
    l->wals_dead[l->wals_dead_count++] = w->seq;
}

struct lane_wal *lane_wal_oldest(struct lane *l)
{
    for (uint32_t i = 0; i < l->wals_count; i++) {
        struct lane_wal *w = &l->wals[l->wals_first + i];
        if (w->live > 0) return w;
    }
    return NULL;
}
