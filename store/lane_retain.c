/* The sweep goes over the heads by channel number, a few at a time: what lies below a channel's
 * physical floor is deleted, some segments a transaction, and channels of which nothing is left are
 * forgotten, as many as one step passes. Then old request keys. Commits wait for
 * a step of it, so a step ends early, and looks no further than at a channel's oldest segment when
 * that one stays. The probe looks at the room that is left, and lets a lane that refused accept
 * again. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "core/clock.h"
#include "core/log.h"
#include "store/lane_parts.h"

enum {
    CHANS_PER_STEP = 32,
    PARTS_PER_STEP = 256, RECEIPTS_PER_STEP = 64,
    STEP_NS_MAX = 1000000,               /* of the sweep, unless one channel takes longer */
    PROBE_NS = 1000000000, PROBE_REFUSING_NS = 100000000,
    FREE_BYTES_MIN = 64 << 20, FREE_DIVISOR = 50,   /* 2 % */
};
static_assert(CHANS_PER_STEP <= (int)LANE_FORGETS_MAX, "one transaction may forget all of them");

struct lane_retain {
    uint64_t sweep_ns, probe_ns;         /* when they are due */
    uint64_t resume_ns;                  /* a sweep that failed goes on then */
    uint64_t now_ms;                     /* the time of the sweep */
    struct clock_belief belief;
    bool     sweeping, jumped;
    bool     at_chan;                    /* what was read last belongs to `chan` alone */
    uint64_t chan;                       /* the sweep has done those below */
    uint32_t passed, passed_max;         /* channels of a step; bound of the next one, or 0 */
    bool     failed;                     /* a commit failed since the last probe that found room */
    /* planned by the open transaction */
    struct lane_chan *drop_chan;
    uint32_t drop_count;
    bool     deleted, more;
};

err_t lane_retain_open(struct lane *l)
{
    l->retain = calloc(1, sizeof *l->retain);
    return l->retain == NULL ? ERR_MEMORY : OK;
}

void lane_retain_close(struct lane *l)
{
    free(l->retain);
    l->retain = NULL;
}

uint64_t lane_retain_due_ns(const struct lane *l)
{
    const struct lane_retain *t = l->retain;
    if (l->damaged) return t->probe_ns;
    return u64_min(t->sweeping ? t->resume_ns : t->sweep_ns, t->probe_ns);
}

/* ---- room ---- */

struct room { uint64_t disk_bytes, free_bytes, used_bytes; };

/* Free is what the disk has and what the file itself can use again. */
static bool room_read(struct lane *l, struct room *out)
{
    struct statvfs fs;
    MDB_envinfo info;
    MDB_stat st = {0};
    MDB_txn *txn;
    *out = (struct room){0};
    if (statvfs(l->conf->dir, &fs) != 0 || mdb_env_info(l->env, &info) != MDB_SUCCESS ||
        lane_txn_begin(l, MDB_RDONLY, &txn) != OK) {
        return false;
    }
    uint64_t pages = 0;
    for (uint32_t i = 0; i < FORMAT_DBS; i++) {
        if (mdb_stat(txn, l->dbis[i], &st) != MDB_SUCCESS) continue;
        pages += st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages;
        out->used_bytes = pages * st.ms_psize;
    }
    mdb_txn_abort(txn);
    uint64_t file_bytes = (info.me_last_pgno + 1) * (uint64_t)st.ms_psize;
    out->disk_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    out->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (file_bytes > out->used_bytes) out->free_bytes += file_bytes - out->used_bytes;
    lane_stat_set(&l->stats.map_bytes, out->used_bytes);
    lane_stat_set(&l->stats.free_bytes, out->free_bytes);
    return true;
}

/* Stores the lane's description again as it is: a commit like any other. */
static err_t write_probe(struct lane *l)
{
    MDB_txn *txn;
    MDB_val k = {strlen(FORMAT_META_LANE), (void *)(uintptr_t)FORMAT_META_LANE}, v;
    struct format_lane said;
    err_t e = lane_txn_begin(l, 0, &txn);
    if (e != OK) return e;
    e = lane_error(mdb_get(txn, l->dbis[FORMAT_META], &k, &v));
    if (e == OK && !format_lane_read(lane_slice(v), &said)) e = ERR_IO;
    if (e == OK) {
        v = (MDB_val){sizeof said, &said};
        e = lane_error(mdb_put(txn, l->dbis[FORMAT_META], &k, &v, 0));
    }
    if (e == OK) return lane_txn_commit(l, &txn);
    mdb_txn_abort(txn);
    return e;
}

static void set_refusing(struct lane *l, bool refusing, const char *why)
{
    char index[12];
    if (__atomic_load_n(&l->refusing, __ATOMIC_RELAXED) == refusing) return;
    __atomic_store_n(&l->refusing, refusing, __ATOMIC_RELAXED);
    (void)snprintf(index, sizeof index, "%u", l->index);
    if (refusing) {
        LOG(LOG_ERROR, "durable publishes are refused", "lane", index, "why", why);
    } else {
        LOG(LOG_WARN, "durable publishes are accepted again", "lane", index);
    }
}

static void probe(struct lane *l)
{
    struct lane_retain *t = l->retain;
    struct room room;
    if (l->damaged && !(l->failed && lane_reopen(l))) return;
    if (!room_read(l, &room)) return;
    bool refusing = __atomic_load_n(&l->refusing, __ATOMIC_RELAXED);
    uint64_t low = u64_max(FREE_BYTES_MIN, room.disk_bytes / FREE_DIVISOR);
    uint64_t share = l->conf->bytes_max / l->conf->lanes;
    bool over = share > 0 && room.used_bytes > (refusing ? share / 16 * 15 : share);
    if (room.free_bytes < (refusing ? 2 * low : low)) {
        set_refusing(l, true, "the disk is nearly full");
    } else if (over) {
        set_refusing(l, true, "history.max_bytes is reached");
    } else if (refusing && (!t->failed || write_probe(l) == OK)) {
        t->failed = l->failed_said = false;
        set_refusing(l, false, "");
    }
}

void lane_retain_failed(struct lane *l, err_t e)
{
    struct lane_retain *t = l->retain;
    t->failed = true;
    t->probe_ns = u64_min(t->probe_ns, clock_mono_ns() + PROBE_REFUSING_NS);
    set_refusing(l, true, e == ERR_FULL ? "a commit found no room" : "a commit failed");
}

/* ---- the sweep ---- */

/* Once a second as well: a leap may pass at once what the time since the last look allows. */
static uint64_t read_clock(struct lane *l, uint64_t now_ns)
{
    struct lane_retain *t = l->retain;
    uint64_t wall_ms = l->conf->wall_ms();
    uint64_t believed_ms = clock_believed_ms(&t->belief, wall_ms, now_ns);
    if (believed_ms != wall_ms && !t->jumped) {
        char index[12];
        (void)snprintf(index, sizeof index, "%u", l->index);
        LOG(LOG_WARN, "the clock leapt ahead by more than an hour: retention follows slowly",
            "lane", index);
    }
    t->jumped = believed_ms != wall_ms;
    return believed_ms;
}

/* The delivery serial that will be the oldest: segments go as wholes. */
static uint64_t floor_of(const struct lane_view *v, const struct store_policy *policy,
                         uint64_t now_ms, err_t *e)
{
    struct slice value;
    struct format_segment seg;
    struct lane_floors f;
    *e = OK;
    if (lane_keeps_oldest(v, policy, now_ms)) return v->head.floor;
    *e = lane_floors(v, policy, now_ms, &f);
    if (*e != OK) return v->head.floor;
    uint64_t physical = f.physical;
    if (physical > v->head.delivery) return physical;
    if (!lane_segment_at(v, physical, &value, e)) return v->head.delivery + 1;
    memcpy(&seg, value.ptr, sizeof seg);
    return seg.first;
}

/* Places the cursor on the channel's first key; its second part in *part. MDB_NOTFOUND: none. */
static int first_of(MDB_cursor *cursor, struct format_key *from, uint64_t chan,
                    uint64_t *part)
{
    MDB_val k = lane_key(from), v;
    uint64_t owner;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    if (rc != MDB_SUCCESS) return rc;
    bool here = format_key_part(lane_slice(k), 0, &owner) && owner == chan &&
                format_key_part(lane_slice(k), 1, part);
    return here ? MDB_SUCCESS : MDB_NOTFOUND;
}

/* *oldest: the first serial of what is left, `floor` when that is in no segment. */
static err_t delete_segments(struct lane *l, MDB_txn *txn, uint64_t chan, uint64_t floor,
                             uint64_t *oldest)
{
    struct format_key key = format_key2(chan, 0);
    MDB_cursor *cursor;
    uint64_t first;
    err_t e = lane_error(mdb_cursor_open(txn, l->dbis[FORMAT_SEGMENTS], &cursor));
    if (e != OK) return e;
    int rc = MDB_SUCCESS;
    for (uint32_t n = 0; rc == MDB_SUCCESS; n++) {
        rc = first_of(cursor, &key, chan, &first);
        if (rc != MDB_SUCCESS) break;
        *oldest = first;
        if (first >= floor) break;
        if (n == LANE_DELETES_MAX) {
            l->retain->more = true;
            break;
        }
        rc = mdb_cursor_del(cursor, 0);
        l->retain->deleted = true;
        *oldest = floor;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? OK : lane_error(rc);
}

static err_t delete_parts(struct lane *l, MDB_txn *txn, uint64_t chan, uint64_t floor)
{
    struct format_key key = format_key3(chan, 0, 0);
    MDB_cursor *cursor;
    uint64_t message;
    err_t e = lane_error(mdb_cursor_open(txn, l->dbis[FORMAT_MSGS], &cursor));
    if (e != OK) return e;
    int rc = MDB_SUCCESS;
    for (uint32_t n = 0; rc == MDB_SUCCESS; n++) {
        rc = first_of(cursor, &key, chan, &message);
        if (rc != MDB_SUCCESS || message >= floor) break;
        if (n == PARTS_PER_STEP) {
            l->retain->more = true;
            break;
        }
        rc = mdb_cursor_del(cursor, 0);
        if (rc == MDB_SUCCESS) l->retain->deleted = true;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? OK : lane_error(rc);
}

/* What the tail loses is gone like a segment: the head takes its counts. */
static void drop_tail(struct lane *l, struct lane_view *v, uint64_t floor)
{
    struct lane_chan *c = lane_tail_find(l, v->chan);
    const struct lane_entry *e = v->tail;
    uint32_t n = 0;
    for (; n < v->tail_count && e[n].delivery < floor; n++) {
        if (e[n].row) {
            v->head.rows++;
            v->head.row_bytes += e[n].bytes;
            v->head.last_row = (struct format_row){e[n].delivery, e[n].history, e[n].time_ms, 0,
                                                   e[n].bytes};
        }
        if ((e[n].flags & RECORD_RELAXED) != 0) v->head.flags |= FORMAT_HEAD_RELAXED;
        v->head.delivery = e[n].delivery;
        v->head.time_ms = e[n].time_ms;
    }
    l->retain->drop_chan = c;
    l->retain->drop_count = n;
    l->retain->deleted = true;
}

static err_t sweep_chan(struct lane *l, MDB_txn *txn, uint64_t chan)
{
    struct store_policy policy = {0};
    struct lane_chan *c = lane_tail_find(l, chan);
    struct lane_view v;
    err_t e = lane_view_open(&v, txn, l->dbis, chan, c == NULL ? NULL : lane_tail_entries(c),
                             c == NULL ? 0 : c->count);
    if (e != OK) return e;
    if (l->conf->policy != NULL) {
        l->conf->policy(l->conf->policy_ctx, v.app_id, v.channel, &policy);
    }
    uint64_t floor = floor_of(&v, &policy, l->retain->now_ms, &e), oldest = v.head.delivery + 1;
    if (e != OK) return e;
    e = delete_segments(l, txn, chan, floor, &oldest);
    if (e == OK) e = delete_parts(l, txn, chan, u64_min(floor, oldest));
    if (e != OK) return e;
    if (oldest > v.head.delivery) {        /* no segment is left */
        oldest = u64_max(v.head.delivery + 1, floor);
        if (floor > v.head.delivery + 1) drop_tail(l, &v, floor);
    }
    if (oldest == v.head.floor && l->retain->drop_count == 0) {
        return l->retain->more ? OK : lane_forget_chan(l, txn, &v, l->retain->now_ms);
    }
    v.head.floor = u64_max(v.head.floor, oldest);
    struct lane_view again;                /* the deletes may have moved the texts */
    e = lane_view_open(&again, txn, l->dbis, chan, NULL, 0);
    return e == OK ? lane_head_put(l, txn, chan, &v.head, again.app_id, again.channel) : e;
}

static err_t sweep_receipts(struct lane *l, MDB_txn *txn)
{
    uint64_t now_ms = l->retain->now_ms, made_ms;
    MDB_val k, v;
    MDB_cursor *cursor;
    err_t e = lane_error(mdb_cursor_open(txn, l->dbis[FORMAT_RECEIPTS], &cursor));
    if (e != OK) return e;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
    for (uint32_t n = 0; rc == MDB_SUCCESS; n++) {
        if (!format_key_part(lane_slice(k), 0, &made_ms) ||
            made_ms + l->conf->request_age_ms >= now_ms) {
            break;
        }
        if (n == RECEIPTS_PER_STEP) {
            l->retain->more = true;
            break;
        }
        rc = mdb_cursor_del(cursor, 0);
        l->retain->deleted = true;
        if (rc == MDB_SUCCESS) rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? OK : lane_error(rc);
}

/* Some channels, up to one that has something to delete; behind the last channel the receipts. */
static err_t sweep_some(struct lane *l, MDB_txn *txn)
{
    struct lane_retain *t = l->retain;
    uint64_t began_ns = clock_mono_ns();
    uint32_t max = t->passed_max > 0 ? t->passed_max : CHANS_PER_STEP;
    t->passed_max = 0;
    for (t->passed = 0; t->passed < max && !t->deleted; t->passed++) {
        if (t->passed > 0 && clock_mono_ns() - began_ns > STEP_NS_MAX) break;
        struct format_key key = format_key1(t->chan);
        MDB_val k = lane_key(&key), v;
        MDB_cursor *cursor;
        t->at_chan = false;
        err_t e = lane_error(mdb_cursor_open(txn, l->dbis[FORMAT_HEADS], &cursor));
        if (e != OK) return e;
        int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
        bool here = rc == MDB_SUCCESS && format_key_part(lane_slice(k), 0, &t->chan);
        mdb_cursor_close(cursor);
        if (rc != MDB_SUCCESS && rc != MDB_NOTFOUND) return lane_error(rc);
        if (!here) {
            e = sweep_receipts(l, txn);
            t->sweeping = t->more;
            return e;
        }
        t->at_chan = true;
        e = sweep_chan(l, txn, t->chan);
        if (e != OK) return e;
        if (!t->more) t->chan++;
    }
    return OK;
}

/* What is wrong with one channel costs that channel its retention, and others nothing. Where there
 * is no going on behind it the sweep ends. The next one tries again. */
static void skip_chan(struct lane *l)
{
    struct lane_retain *t = l->retain;
    char index[12], chan[24];
    (void)snprintf(index, sizeof index, "%u", l->index);
    (void)snprintf(chan, sizeof chan, "%llu", (unsigned long long)t->chan);
    LOG(LOG_ERROR, t->at_chan ? "a channel cannot be swept: run weftctl store check" :
        "the sweep of old history ends early: run weftctl store check", "lane", index, "number",
        chan);
    t->sweeping = t->at_chan;
    t->chan++;
}

static void sweep(struct lane *l)
{
    struct lane_retain *t = l->retain;
    MDB_txn *txn = NULL;
    t->drop_chan = NULL;
    t->drop_count = 0;
    t->deleted = t->more = false;
    uint64_t first = t->chan;
    err_t e = lane_txn_begin(l, 0, &txn);
    bool unreadable = false;
    if (e == OK) {
        e = sweep_some(l, txn);
        unreadable = e == ERR_IO;
    }
    if (e == OK && lane_forget_planned(l)) e = lane_forget_put(l, txn);
    if (e == OK && (t->deleted || lane_forget_planned(l))) {
        e = lane_txn_commit(l, &txn);
        if (e == OK && t->drop_count > 0) lane_tail_drop(l, t->drop_chan, t->drop_count);
        if (e == OK) lane_forget_applied(l);
    } else if (txn != NULL) {
        mdb_txn_abort(txn);
    }
    bool planned = lane_forget_planned(l);
    lane_forget_undone(l);
    if (e == OK) return;
    if (unreadable && planned) {           /* those before it go without it */
        t->sweeping = true;
        t->chan = first;
        t->passed_max = t->passed;
    } else if (unreadable) {
        skip_chan(l);
    } else {
        lane_retain_failed(l, e);          /* LMDB calls a write that a full disk cut short EIO */
        t->resume_ns = clock_mono_ns() + PROBE_NS;
    }
}

bool lane_retain_step(struct lane *l, uint64_t now_ns)
{
    struct lane_retain *t = l->retain;
    if (now_ns >= t->probe_ns) {
        probe(l);
        bool refusing = __atomic_load_n(&l->refusing, __ATOMIC_RELAXED);
        t->probe_ns = now_ns + (refusing ? PROBE_REFUSING_NS : PROBE_NS);
        (void)read_clock(l, now_ns);
    }
    if (l->damaged) return false;
    if (!t->sweeping && now_ns >= t->sweep_ns) {
        t->sweeping = true;
        t->chan = t->resume_ns = 0;
        t->now_ms = read_clock(l, now_ns);
        t->sweep_ns = now_ns + (uint64_t)u32_max(l->conf->purge_interval_ms, 1) * 1000000;
    }
    if (t->sweeping && now_ns >= t->resume_ns) sweep(l);
    return t->sweeping && t->resume_ns <= now_ns;
}
