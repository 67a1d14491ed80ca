/* One round: take letters -> commit every batch that came, in groups -> hand out reads ->
 * background. Reads are handed out after the batches that were taken with them, so a read sees what
 * its shard posted before it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mail_kinds.h"
#include "core/mem.h"
#include "store/lane_parts.h"

enum {
    LETTERS_MAX = 1024,                  /* taken in a round */
    READS_MAX = 1 << 22,                 /* waiting; address space, touched only when used */
    BACKGROUND_NS_MAX = 50000000,        /* the background waits for commits no longer than this */
};

struct fresh { struct lane_chan *c; struct lane_entry e; };   /* a record of the open transaction */

struct lane_commit {
    struct store_batch *batches[LETTERS_MAX];   /* taken and not yet answered */
    uint32_t            batches_first, batches_count;
    struct store_read **reads;                  /* owned: READS_MAX reserved; waiting */
    uint32_t            reads_first, reads_count;
    struct fresh       *fresh;                  /* owned */
    uint32_t            fresh_count, fresh_room;
    uint8_t            *receipts;               /* owned; the transaction's REQUESTs, packed */
    uint32_t            receipts_bytes, receipts_room;
    uint64_t            receipts_ms;            /* the newest time among them */
    uint16_t            sender;                 /* reactor_post_take */
    uint64_t            background_ns;          /* when it last ran */
};

err_t lane_error(int code)
{
    switch (code) {
    case MDB_SUCCESS: return OK;
    case MDB_MAP_FULL: case ENOSPC: case EDQUOT: case EFBIG: return ERR_FULL;
    case ENOMEM: return ERR_MEMORY;
    default: return ERR_IO;
    }
}

static void give_up(struct lane *l, const char *message, const char *what)
{
    char index[12];
    if (l->damaged) return;
    l->damaged = true;
    __atomic_store_n(&l->refusing, true, __ATOMIC_RELAXED);
    if (message == NULL) return;
    (void)snprintf(index, sizeof index, "%u", l->index);
    LOG(LOG_ERROR, message, "lane", index, "what", what);
}

void lane_damage(struct lane *l, const char *what)
{
    give_up(l, "stored data is damaged: durable publishes are refused; stop the server and run "
            "weftctl store check", what);
}

err_t lane_put(struct lane *l, MDB_txn *txn, enum format_db db, struct format_key *key,
               struct slice value)
{
    MDB_val k = lane_key(key), v = lane_val(value);
    return lane_error(mdb_put(txn, l->dbis[db], &k, &v, 0));
}

err_t lane_get(struct lane *l, MDB_txn *txn, enum format_db db, struct format_key *key,
               struct slice *value, bool *found)
{
    MDB_val k = lane_key(key), v;
    int rc = mdb_get(txn, l->dbis[db], &k, &v);
    *found = rc == MDB_SUCCESS;
    if (*found) *value = lane_slice(v);
    return rc == MDB_NOTFOUND ? OK : lane_error(rc);
}

/* LMDB could not write its meta page: it takes nothing more until it is opened again. */
static err_t txn_error(struct lane *l, int rc)
{
    if (rc == MDB_PANIC && !l->damaged) {
        l->failed = true;
        give_up(l, l->failed_said ? NULL : "durable publishes and reads are refused until the disk "
                "takes what it is given: see to it", "the meta page could not be written");
        l->failed_said = true;
    }
    return lane_error(rc);
}

err_t lane_txn_begin(struct lane *l, unsigned flags, MDB_txn **txn)
{
    if (l->env == NULL) return ERR_IO;
    return txn_error(l, mdb_txn_begin(l->env, NULL, flags, txn));
}

err_t lane_txn_commit(struct lane *l, MDB_txn **txn)
{
    uint64_t began_ns = clock_mono_ns();
    MDB_envinfo info;
    int rc = mdb_txn_commit(*txn);
    *txn = NULL;
    if (rc == MDB_SUCCESS && mdb_env_info(l->env, &info) == MDB_SUCCESS) {
        l->txn_newest = info.me_last_txnid;
    }
    lane_stat_add(&l->stats.commits, 1);
    lane_stat_add(&l->stats.commit_ns, clock_mono_ns() - began_ns);
    return txn_error(l, rc);
}

/* ---- one group of batches in one transaction ---- */

static err_t fresh_add(struct lane *l, const struct record *r, uint64_t seq, uint32_t offset,
                       uint32_t bytes)
{
    struct lane_commit *m = l->commit;
    if (m->fresh_count == m->fresh_room) {
        uint32_t room = m->fresh_room == 0 ? 1024 : m->fresh_room * 2;
        struct fresh *grown = realloc(m->fresh, room * sizeof *grown);
        if (grown == NULL) return ERR_MEMORY;
        m->fresh = grown;
        m->fresh_room = room;
    }
    ASSERT(r->chan != 0 && r->delivery != 0);
    struct lane_chan *c = lane_tail_get(l, r->chan);
    if (c == NULL) return ERR_MEMORY;
    err_t e = lane_tail_room(c, c->pending_count + 1);
    if (e != OK) {
        lane_tail_release(l, c);
        return e;
    }
    uint64_t last = c->pending_count > 0 ? c->pending :
                    c->count > 0 ? lane_tail_entries(c)[c->count - 1].delivery : 0;
    ASSERT(last == 0 || r->delivery == last + 1);   /* a home orders its channel without gaps */
    c->pending = r->delivery;
    c->pending_count++;
    m->fresh[m->fresh_count++] = (struct fresh){c, {
        .delivery = r->delivery, .message = r->message != 0 ? r->message : r->delivery,
        .history = r->history, .time_ms = r->time_ms, .wal_seq = seq, .offset = offset,
        .bytes = bytes, .kind = r->kind, .flags = r->flags, .row = record_is_row(r),
    }};
    return OK;
}

static err_t receipt_add(struct lane_commit *m, const struct record *r, struct slice packed)
{
    if (m->receipts_room - m->receipts_bytes < packed.bytes) {
        uint32_t room = u32_max(m->receipts_room * 2, m->receipts_bytes + packed.bytes);
        uint8_t *grown = realloc(m->receipts, room);
        if (grown == NULL) return ERR_MEMORY;
        m->receipts = grown;
        m->receipts_room = room;
    }
    memcpy(m->receipts + m->receipts_bytes, packed.ptr, packed.bytes);
    m->receipts_bytes += packed.bytes;
    m->receipts_ms = u64_max(m->receipts_ms, r->time_ms);
    return OK;
}

/* What each record of a batch does; `at`: where the batch begins in the wal value. */
static err_t walk(struct lane *l, MDB_txn *txn, const struct store_batch *b, uint64_t seq,
                  uint32_t at)
{
    struct slice rest = slice_of(b->bytes, b->bytes_count);
    uint32_t count = 0, bytes;
    struct record r;
    for (; rest.bytes > 0; rest = slice_skip(rest, bytes), count++) {
        enum record_result result = record_peek(rest, &r, &bytes);
        ASSERT(result == RECORD_OK && (r.flags & (RECORD_FOLDED | RECORD_CONTEXT)) == 0);
        struct slice packed = slice_of(rest.ptr, bytes);
        uint32_t offset = at + (uint32_t)(rest.ptr - b->bytes);
        err_t e = r.kind == RECORD_REQUEST ? receipt_add(l->commit, &r, packed) :
                                             lane_change(l, txn, &r, packed);
        if (e == OK && record_is_version(&r)) e = fresh_add(l, &r, seq, offset, bytes);
        if (e != OK) return e;
    }
    ASSERT(count == b->records_count);
    return OK;
}

static err_t put_wal(struct lane *l, MDB_txn *txn, struct store_batch **group, uint32_t count,
                     uint32_t bytes, uint32_t records)
{
    struct format_wal head = {.seq = l->seq_next, .chan_next = l->chan_next,
                              .wall_ms = l->conf->wall_ms(), .records_count = records,
                              .records_bytes = bytes};
    struct format_key key = format_key1(head.seq);
    MDB_val k = lane_key(&key), v = {sizeof head + bytes, NULL};
    int rc = mdb_put(txn, l->dbis[FORMAT_WAL], &k, &v, MDB_RESERVE | MDB_APPEND);
    if (rc != MDB_SUCCESS) return lane_error(rc);
    uint8_t *to = v.mv_data;
    memcpy(to, &head, sizeof head);
    head.check = format_check(slice_of(to, (uint32_t)v.mv_size), sizeof head, bytes);
    memcpy(to, &head.check, sizeof head.check);
    to += sizeof head;
    for (uint32_t i = 0; i < count; i++) {
        if (group[i]->bytes_count > 0) memcpy(to, group[i]->bytes, group[i]->bytes_count);
        to += group[i]->bytes_count;
    }
    return OK;
}

static err_t put_group(struct lane *l, MDB_txn *txn, struct store_batch **group, uint32_t count,
                       bool pack)
{
    struct lane_commit *m = l->commit;
    uint32_t bytes = 0, records = 0;
    for (uint32_t i = 0; i < count; i++) {
        bytes += group[i]->bytes_count;
        records += group[i]->records_count;
    }
    err_t e = lane_wal_room(l, 2);       /* this one and one that packing makes */
    if (e == OK) e = put_wal(l, txn, group, count, bytes, records);
    for (uint32_t i = 0, at = 0; e == OK && i < count; at += group[i++]->bytes_count) {
        e = walk(l, txn, group[i], l->seq_next, at);
    }
    if (e == OK && m->receipts_bytes > 0) {
        struct slice value = slice_of(m->receipts, m->receipts_bytes);
        struct format_key key = format_receipts_key(m->receipts_ms, l->seq_next, value);
        e = lane_put(l, txn, FORMAT_RECEIPTS, &key, value);
    }
    l->seq_next++;                       /* a number that fails is not used again */
    return e == OK && pack ? lane_pack_some(l, txn) : e;
}

static void group_applied(struct lane *l, uint64_t seq, uint32_t bytes)
{
    struct lane_commit *m = l->commit;
    lane_wal_add(l, seq, bytes);
    for (uint32_t i = 0; i < m->fresh_count; i++) {
        struct fresh *f = &m->fresh[i];
        f->c->pending_count--;
        lane_tail_add(l, f->c, &f->e);
        lane_pack_want(l, f->c);
    }
    lane_pack_applied(l);
    lane_stat_add(&l->stats.records, m->fresh_count);
}

static void group_undone(struct lane *l)
{
    struct lane_commit *m = l->commit;
    lane_pack_undone(l);
    for (uint32_t i = 0; i < m->fresh_count; i++) {
        struct lane_chan *c = m->fresh[i].c;
        if (--c->pending_count == 0) lane_tail_release(l, c);
    }
}

static err_t commit_group(struct lane *l, struct store_batch **group, uint32_t count, bool pack)
{
    struct lane_commit *m = l->commit;
    uint64_t seq = l->seq_next;
    uint32_t bytes = sizeof(struct format_wal);
    MDB_txn *txn;
    m->fresh_count = m->receipts_bytes = 0;
    m->receipts_ms = 0;
    err_t e = lane_txn_begin(l, 0, &txn);
    if (e != OK) return e;
    e = put_group(l, txn, group, count, pack);
    if (e == OK) {
        e = lane_txn_commit(l, &txn);
    } else {
        mdb_txn_abort(txn);
    }
    for (uint32_t i = 0; i < count; i++) bytes += group[i]->bytes_count;
    if (e == OK) {
        group_applied(l, seq, bytes);
    } else {
        group_undone(l);
    }
    return e;
}

/* ---- batches ---- */

/* Records of relaxed channels have been shown already. Their shard will say so in the channels; it
 * may have stopped, or the lane may fail for good. */
static void doubt_shown(struct lane *l, const struct store_batch *b)
{
    struct slice rest = slice_of(b->bytes, b->bytes_count);
    struct record r;
    uint32_t bytes;
    for (; rest.bytes > 0; rest = slice_skip(rest, bytes)) {
        enum record_result result = record_peek(rest, &r, &bytes);
        ASSERT(result == RECORD_OK);
        if ((r.flags & RECORD_RELAXED) != 0) store_doubt(l->store, l->index);
    }
}

static void answer(struct lane *l, struct store_batch *b, err_t result, uint64_t commit_ns)
{
    if (result != OK) doubt_shown(l, b);
    b->result = result;
    b->generation_now = l->generations[b->shard];
    b->commit_ns = commit_ns;
    struct letter letter = {.kind = MAIL_COMMITTED, .from_shard = l->post, .payload = b,
                            .posted_ns = clock_mono_ns()};
    mail_post_sure(l->conf->office->boxes[l->post][b->shard], &letter);
}

/* The batches behind in the queue of the shards that failed carry the old generation. */
static void group_failed(struct lane *l, struct store_batch **group, uint32_t count, err_t e)
{
    uint64_t seen = 0;
    static_assert(REACTOR_SHARDS_MAX <= 64, "a bit for each shard");
    for (uint32_t i = 0; i < count; i++) {
        uint64_t bit = 1ull << group[i]->shard;
        if ((seen & bit) == 0) l->generations[group[i]->shard]++;
        seen |= bit;
    }
    lane_stat_add(&l->stats.failed, 1);
    lane_retain_failed(l, e);
}

/* The next batches that fit one transaction, less those of an old generation, which are answered
 * when their turn comes: answers keep the order of the queue. */
static uint32_t next_group(struct lane *l, struct store_batch **group)
{
    struct lane_commit *m = l->commit;
    uint64_t bytes = 0;
    uint32_t count = 0;
    while (m->batches_count > 0) {
        struct store_batch *b = m->batches[m->batches_first];
        ASSERT(b->lane == l->index && b->shard < l->conf->shards_count);
        bool old = b->generation != l->generations[b->shard];
        if (old && count > 0) break;
        if (!old && count > 0 && bytes + b->bytes_count > LANE_COMMIT_BYTES_MAX) break;
        m->batches_first++;
        m->batches_count--;
        if (old) {
            lane_stat_add(&l->stats.refused, 1);
            answer(l, b, ERR_FULL, 0);
            continue;
        }
        bytes += b->bytes_count;
        group[count++] = b;
    }
    return count;
}

static void commit_all(struct lane *l)
{
    struct store_batch *group[LETTERS_MAX];
    uint32_t count;
    while ((count = next_group(l, group)) > 0) {
        uint64_t began_ns = clock_mono_ns();
        err_t e = commit_group(l, group, count, true);
        /* Packing needs room of its own, which must not cost a commit that fits without it. (LMDB
         * calls a write that was cut short by a full disk EIO.) */
        if (e != OK && !l->damaged) e = commit_group(l, group, count, false);
        if (e != OK) group_failed(l, group, count, e);
        uint64_t commit_ns = clock_mono_ns() - began_ns;
        for (uint32_t i = 0; i < count; i++) answer(l, group[i], e, commit_ns);
        lane_stat_set(&l->stats.queue_batches, l->commit->batches_count);
        if (l->conf->threads) (void)reactor_post_flush(l->conf->office, l->post);
    }
}

/* ---- the round ---- */

static uint32_t take(struct lane *l)
{
    struct lane_commit *m = l->commit;
    struct letter letters[64];
    uint32_t taken = 0, n;
    m->batches_first = 0;
    while (taken + 64 <= LETTERS_MAX &&
           (n = reactor_post_take(l->conf->office, l->post, &m->sender, letters, 64)) > 0) {
        taken += n;
        for (uint32_t i = 0; i < n; i++) {
            if (letters[i].kind == MAIL_COMMIT) {
                m->batches[m->batches_count++] = letters[i].payload;
            } else if (letters[i].kind == MAIL_READ) {
                ASSERT(m->reads_first + m->reads_count < READS_MAX);
                m->reads[m->reads_first + m->reads_count++] = letters[i].payload;
            } else if (letters[i].kind == MAIL_CLOSED) {
                lane_let_go(l, letters[i].arg[0]);
            } else {
                ASSERT(letters[i].kind == MAIL_SNAPSHOT_BACK);
                lane_snapshot_back(l, letters[i].payload, letters[i].arg[0] == 1);
            }
        }
    }
    return taken;
}

static void send_reads(struct lane *l)
{
    struct lane_commit *m = l->commit;
    while (m->reads_count > 0 && lane_snapshot_send(l, m->reads[m->reads_first])) {
        m->reads_first++;
        m->reads_count--;
    }
    if (m->reads_count == 0) {
        m->reads_first = 0;
    } else if (m->reads_first > READS_MAX / 2) {
        memmove(m->reads, m->reads + m->reads_first, m->reads_count * sizeof(struct store_read *));
        m->reads_first = 0;
    }
}

/* Packing without a commit to ride on. */
static bool pack_alone(struct lane *l)
{
    MDB_txn *txn;
    if (!lane_pack_waiting(l) && !lane_base_waiting(l)) return false;
    err_t e = lane_txn_begin(l, 0, &txn);
    if (e != OK) {
        lane_retain_failed(l, e);
        return false;
    }
    e = lane_pack_some(l, txn);
    if (e == OK) e = lane_base_some(l, txn);
    if (e == OK) {
        e = lane_txn_commit(l, &txn);
    } else {
        mdb_txn_abort(txn);
    }
    if (e == OK) {
        lane_pack_applied(l);
    } else {
        lane_pack_undone(l);
        lane_retain_failed(l, e);
    }
    return e == OK && (lane_pack_waiting(l) || lane_base_waiting(l));
}

static bool background(struct lane *l)
{
    struct lane_commit *m = l->commit;
    uint64_t now_ns = clock_mono_ns();
    bool waits = reactor_post_waiting(l->conf->office, l->post);
    if (waits && now_ns - m->background_ns < BACKGROUND_NS_MAX) return true;
    m->background_ns = now_ns;
    bool more = !l->damaged && !__atomic_load_n(&l->refusing, __ATOMIC_RELAXED) && pack_alone(l);
    return lane_retain_step(l, now_ns) || more || waits;
}

bool lane_round(struct lane *l)
{
    uint32_t taken = take(l);
    commit_all(l);
    send_reads(l);
    if (l->conf->threads) (void)reactor_post_flush(l->conf->office, l->post);
    bool more = background(l);
    return more || taken > 0;
}

uint64_t lane_rest_ns(const struct lane *l)
{
    uint64_t due_ns = lane_retain_due_ns(l), now_ns = clock_mono_ns();
    return due_ns > now_ns ? due_ns - now_ns : 0;
}

/* ---- open and close ---- */

err_t lane_commit_open(struct lane *l)
{
    l->commit = calloc(1, sizeof *l->commit);
    if (l->commit == NULL) return ERR_MEMORY;
    l->commit->reads = mem_reserve((uint64_t)READS_MAX * sizeof(struct store_read *));
    return l->commit->reads == NULL ? ERR_MEMORY : OK;
}

void lane_commit_close(struct lane *l)
{
    struct lane_commit *m = l->commit;
    if (m == NULL) return;
    if (m->reads != NULL) {
        mem_release(m->reads, (uint64_t)READS_MAX * sizeof(struct store_read *));
    }
    free(m->fresh);
    free(m->receipts);
    free(m);
    l->commit = NULL;
}
