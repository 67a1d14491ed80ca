#include <stdlib.h>

#include "core/clock.h"
#include "core/mail_kinds.h"
#include "store/lane_parts.h"

void lane_snapshots_open(struct lane *l)
{
    l->snapshots_free = NULL;
    for (uint32_t i = 0; i < LANE_SNAPSHOTS_MAX; i++) {
        l->snapshots[i] = (struct snapshot){.next = l->snapshots_free};
        l->snapshots_free = &l->snapshots[i];
    }
}

void lane_snapshots_close(struct lane *l)
{
    for (uint32_t i = 0; i < LANE_SNAPSHOTS_MAX; i++) {
        struct snapshot *s = &l->snapshots[i];
        if (s->work != NULL) reader_work_free(s->work);
        if (s->txn != NULL) mdb_txn_abort(s->txn);
        free(s->tail);
        *s = (struct snapshot){0};
    }
    l->snapshots_free = NULL;
}

bool lane_snapshots_end(struct lane *l)
{
    uint32_t free_count = 0;
    for (const struct snapshot *s = l->snapshots_free; s != NULL; s = s->next) free_count++;
    if (free_count < LANE_SNAPSHOTS_MAX) return false;
    for (struct snapshot *s = l->snapshots_free; s != NULL; s = s->next) {
        if (s->txn != NULL) mdb_txn_abort(s->txn);
        s->txn = NULL;
    }
    return true;
}

static void post(struct lane *l, uint16_t to, uint16_t kind, void *payload)
{
    struct letter letter = {.kind = kind, .from_shard = l->post, .payload = payload,
                            .posted_ns = clock_mono_ns()};
    mail_post_sure(l->conf->office->boxes[l->post][to], &letter);
}

/* Transaction and tail of one moment: the index changes only in this thread. */
static err_t snapshot_take(struct lane *l, struct snapshot *s)
{
    struct lane_chan *c = s->chan == 0 ? NULL : lane_tail_find(l, s->chan);
    s->tail_count = c == NULL ? 0 : c->count;
    if (s->tail_count > s->tail_room) {
        struct lane_entry *grown = realloc(s->tail, s->tail_count * sizeof *grown);
        if (grown == NULL) return ERR_MEMORY;
        s->tail = grown;
        s->tail_room = s->tail_count;
    }
    if (s->tail_count > 0) {
        memcpy(s->tail, lane_tail_entries(c), s->tail_count * sizeof *s->tail);
    }
    return s->txn == NULL ? lane_txn_begin(l, MDB_RDONLY, &s->txn) :
                            lane_error(mdb_txn_renew(s->txn));
}

/* Nothing was read, so nothing is known to be damaged: after a meta page that could not be written
 * LMDB reads nothing either until it is opened again. */
static void read_failed(struct lane *l, struct store_read *read)
{
    read->status = STORE_READ_MEMORY;
    post(l, read->shard, MAIL_READ_DONE, read);
}

bool lane_snapshot_send(struct lane *l, struct store_read *read)
{
    struct snapshot *s = l->snapshots_free;
    if (s == NULL) return false;
    s->read = read;
    s->chan = read->kind == STORE_OPEN || read->kind == STORE_ACTIVE ? 0 : read->chan;
    s->chan_fresh = read->kind == STORE_OPEN ? l->chan_next++ : 0;
    s->work = NULL;
    if (snapshot_take(l, s) != OK) {
        read_failed(l, read);
        return true;
    }
    l->snapshots_free = s->next;
    s->next = NULL;
    post(l, l->reader_post, MAIL_SNAPSHOT, s);
    return true;
}

/* The reader has found the channel's name: from now on the sweep leaves it alone. If it has just
 * been forgotten, its number means nothing any more, and nobody closes it. */
static err_t hold_opened(struct lane *l, const struct snapshot *s)
{
    struct format_key key = format_key1(s->chan);
    MDB_val k = lane_key(&key), v;
    if (s->read->kind != STORE_OPEN || l->conf->forget_after_ms == 0) return OK;
    int rc = mdb_get(s->txn, l->dbis[FORMAT_HEADS], &k, &v);
    if (rc == MDB_NOTFOUND) return OK;
    err_t e = rc == MDB_SUCCESS ? lane_hold(l, s->chan) : lane_error(rc);
    if (e != OK) mdb_txn_reset(s->txn);
    return e;
}

/* A copy of a long tail is given back with its snapshot, or eight of them would stay for good. */
static void snapshot_free(struct lane *l, struct snapshot *s)
{
    enum { KEEP = 1024 };
    if (s->tail_room > KEEP) {
        free(s->tail);
        s->tail = NULL;
        s->tail_room = 0;
    }
    s->next = l->snapshots_free;
    l->snapshots_free = s;
}

void lane_snapshot_back(struct lane *l, struct snapshot *s, bool renew)
{
    if (renew) {
        if (snapshot_take(l, s) == OK && hold_opened(l, s) == OK) {
            post(l, l->reader_post, MAIL_SNAPSHOT, s);
            return;
        }
        if (s->work != NULL) reader_work_free(s->work);
        read_failed(l, s->read);
    }
    s->work = NULL;
    s->read = NULL;
    snapshot_free(l, s);
}
