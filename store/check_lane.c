#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/check_parts.h"

/* ---- open and close ---- */

static void on_assert(MDB_env *env, const char *text)
{
    struct check *c = mdb_env_get_userctx(env);
    check_find(c, "the tree of pages is damaged: LMDB stopped at \"%s\"", text);
    _exit(0);
}

/* LMDB's meta pages: that of transaction N is page N & 1, the other one is of N - 1. A number that
 * was damaged hides the newest commit behind the one before it, in good order. */
static void check_metas(struct check *c, const char *path, uint32_t page_bytes)
{
    enum { TXN_AT = 144 };                 /* in a page, with 8 bytes a number */
    uint64_t txn[2] = {0, 0}, newest_free = 0;
    MDB_cursor *cursor;
    MDB_val key, data;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool read = fd >= 0 && pread(fd, &txn[0], 8, TXN_AT) == 8 &&
                pread(fd, &txn[1], 8, page_bytes + TXN_AT) == 8;
    if (fd >= 0) (void)close(fd);
    uint64_t newest = u64_max(txn[0], txn[1]);
    if (!read || newest != mdb_txn_id(c->txn) || txn[newest & 1] != newest ||
        txn[~newest & 1] + 1 != newest) {
        check_find(c, "the meta pages do not fit each other");
        return;
    }
    /* A commit lists what it leaves behind under its own number. */
    if (mdb_cursor_open(c->txn, 0, &cursor) != 0) return;
    if (mdb_cursor_get(cursor, &key, &data, MDB_LAST) == 0 && key.mv_size == sizeof newest_free) {
        memcpy(&newest_free, key.mv_data, sizeof newest_free);
    }
    mdb_cursor_close(cursor);
    if (newest_free != newest) check_find(c, "the meta pages are not of the newest transaction");
}

/* Read-only and without LMDB's lock file: the caller holds the directory's lock. */
static int env_open(struct check *c)
{
    int e = mdb_env_create(&c->env);
    if (e != 0) return e;
    (void)mdb_env_set_userctx(c->env, c);
    (void)mdb_env_set_assert(c->env, on_assert);
    e = mdb_env_set_maxdbs(c->env, FORMAT_DBS);
    if (e == 0) e = mdb_env_set_mapsize(c->env, LANE_MAP_BYTES);
    if (e == 0) e = mdb_env_open(c->env, c->path, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0);
    return e == 0 ? mdb_txn_begin(c->env, NULL, MDB_RDONLY, &c->txn) : e;
}

static bool check_said(struct check *c)
{
    MDB_val key = {strlen(FORMAT_META_LANE), (void *)(uintptr_t)FORMAT_META_LANE}, data;
    if (mdb_get(c->txn, c->dbis[FORMAT_META], &key, &data) != 0) {
        check_find(c, "meta: \"lane\" is missing");
        return true;
    }
    uint32_t format = 0;
    if (data.mv_size >= 12) memcpy(&format, (const uint8_t *)data.mv_data + 8, sizeof format);
    if (!format_lane_read(lane_slice(data), &c->said)) {
        check_find(c, "meta: \"lane\": wrong checksum");
    } else if (format < STORE_FORMAT_MADE || format > STORE_FORMAT) {
        check_say(c, 'C', "format %u: this program knows %u", format, STORE_FORMAT);
        return false;
    } else if (c->said.lane != c->index) {
        check_find(c, "meta: this is lane %u", c->said.lane);
    } else {
        check_say(c, 'I', "store %s, lanes %u", c->said.store_id, c->said.lanes);
    }
    return true;
}

/* ---- a file that ends before its last page ---- */

static int cut_fd;                       /* of the only check in this process */

/* The list of free pages is not there itself. */
static void on_bus(int signal)
{
    static const char line[] = "Fdata.mdb is cut short\n";
    ssize_t wrote = write(cut_fd, line, sizeof line - 1);
    (void)signal;
    (void)wrote;
    _exit(0);
}

/* Free pages from `first` on. */
static uint64_t free_from(struct check *c, size_t first)
{
    const MDB_dbi free_dbi = 0;
    uint64_t found = 0;
    MDB_cursor *cursor;
    MDB_val key, data;
    if (mdb_cursor_open(c->txn, free_dbi, &cursor) != 0) return 0;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        size_t page;                       /* a count, and as many page numbers */
        for (size_t at = sizeof page; at + sizeof page <= data.mv_size; at += sizeof page) {
            memcpy(&page, (const uint8_t *)data.mv_data + at, sizeof page);
            found += page >= first;
        }
    }
    mdb_cursor_close(cursor);
    return found;
}

/* LMDB never writes pages at the end that one transaction took and gave back: those are free. */
static bool is_cut(struct check *c, uint64_t file_bytes, uint64_t last_page, uint64_t page_bytes)
{
    struct sigaction ours = {.sa_handler = on_bus}, before;
    uint64_t whole = file_bytes / page_bytes;
    if (whole > last_page) return false;
    cut_fd = c->fd;
    (void)sigaction(SIGBUS, &ours, &before);
    bool cut = free_from(c, whole) != last_page + 1 - whole;
    (void)sigaction(SIGBUS, &before, NULL);
    return cut;
}

bool check_open(struct check *c)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat file;
    char path[4200];

    (void)snprintf(path, sizeof path, "%s/data.mdb", c->path);
    if (lstat(path, &file) == 0 && S_ISREG(file.st_mode) && file.st_size == 0) {
        check_find(c, "data.mdb is empty");
        return false;
    }
    int e = env_open(c);
    if (e == EACCES || e == ENOMEM) {
        check_say(c, 'C', "cannot be opened: %s", mdb_strerror(e));
        return false;
    }
    if (e != 0) {
        check_find(c, "cannot be opened: %s", mdb_strerror(e));
        return false;
    }
    if (mdb_env_info(c->env, &info) != 0 || mdb_env_stat(c->env, &stat) != 0 ||
        lstat(path, &file) != 0 ||
        is_cut(c, (uint64_t)file.st_size, info.me_last_pgno, stat.ms_psize)) {
        check_find(c, "data.mdb is cut short");
        return false;
    }
    check_metas(c, path, stat.ms_psize);
    for (uint32_t i = 0; i < FORMAT_DBS; i++) {
        e = mdb_dbi_open(c->txn, format_db_names[i], 0, &c->dbis[i]);
        if (e != 0) {
            check_find(c, "%s: %s", format_db_names[i], mdb_strerror(e));
            return false;
        }
    }
    return check_said(c);
}

void check_close(struct check *c)
{
    if (c->txn != NULL) mdb_txn_abort(c->txn);
    if (c->env != NULL) mdb_env_close(c->env);
    free(c->entries);
    free(c->headless.all);
    free(c->forgotten.all);
    free(c->tail);
}

/* ---- what hangs together across channels ---- */

static void check_mark(struct check *c, struct slice key, struct slice value)
{
    struct format_mark mark;
    if (!format_mark_read(value, &mark)) {
        check_find(c, "meta: mark %02x%02x of forgotten channels: wrong checksum", key.ptr[1],
                   key.ptr[2]);
    } else if (c->said.format < 2) {
        check_find(c, "meta: channels were forgotten, but the format is %u", c->said.format);
    }
}

static void check_meta(struct check *c)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_META], &cursor) != 0) return;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        struct slice name = lane_slice(key);
        if (slice_is(name, FORMAT_META_LANE)) continue;
        if (name.bytes == FORMAT_MARK_KEY_BYTES && name.ptr[0] == 'f') {
            check_mark(c, name, lane_slice(data));
        } else if (!slice_is(name, FORMAT_META_CLEAN)) {
            check_find(c, "meta: a key that nobody writes");
        } else if (data.mv_size != 0) {
            check_find(c, "meta: \"clean\" has a value");
        }
    }
    mdb_cursor_close(cursor);
}

/* Names that share a hash lie side by side: none of them may be the same name. */
static void check_twins(struct check *c, uint64_t hash, const struct lane_view *v)
{
    struct format_key from = format_key2(hash, 0);
    MDB_val key = lane_key(&from), data;
    MDB_cursor *cursor;
    uint64_t other_hash = 0, chan = 0;
    struct lane_view other;

    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_NAMES], &cursor) != 0) return;
    for (int e = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
         e == 0 && format_key_part(lane_slice(key), 0, &other_hash) && other_hash == hash &&
         format_key_part(lane_slice(key), 1, &chan) && chan < v->chan;
         e = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) {
        if (lane_view_open(&other, c->txn, c->dbis, chan, NULL, 0) == OK && other.known &&
            slice_equal(other.app_id, v->app_id) && slice_equal(other.channel, v->channel)) {
            check_find(c, "names: channels %llu and %llu have the same name",
                       (unsigned long long)chan, (unsigned long long)v->chan);
        }
    }
    mdb_cursor_close(cursor);
}

/* Every name leads to a head that has this name. Heads without a name: check_chan.c. */
static void check_names(struct check *c)
{
    struct lane_view v;
    MDB_cursor *cursor;
    MDB_val key, data;
    uint64_t hash = 0, chan = 0;

    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_NAMES], &cursor) != 0) return;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        (void)format_key_part(lane_slice(key), 0, &hash);
        (void)format_key_part(lane_slice(key), 1, &chan);
        err_t e = lane_view_open(&v, c->txn, c->dbis, chan, NULL, 0);
        if (e == OK && (!v.known || format_name_hash(v.app_id, v.channel) != hash)) {
            check_find(c, "names: channel %llu has another name or no head",
                       (unsigned long long)chan);
        } else if (e == OK) {
            check_twins(c, hash, &v);
        }
        if (data.mv_size != 0) {
            check_find(c, "names: channel %llu has a value", (unsigned long long)chan);
        }
    }
    mdb_cursor_close(cursor);
}

/* Keys begin with a channel's number: is there such a channel? */
static void check_owners(struct check *c, enum format_db db)
{
    MDB_cursor *cursor;
    MDB_val key, data, head;
    uint64_t chan = 0, before = UINT64_MAX;

    if (mdb_cursor_open(c->txn, c->dbis[db], &cursor) != 0) return;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        if (!format_key_part(lane_slice(key), 0, &chan) || chan == before) continue;
        before = chan;
        struct format_key want = format_key1(chan);
        MDB_val owner = lane_key(&want);
        if (mdb_get(c->txn, c->dbis[FORMAT_HEADS], &owner, &head) != 0) {
            check_find(c, "%s: channel %llu has no head", format_db_names[db],
                       (unsigned long long)chan);
        }
    }
    mdb_cursor_close(cursor);
}

static void check_receipts(struct check *c)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    uint64_t seq = 0, newest_ms;
    struct record r;
    uint32_t bytes;

    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_RECEIPTS], &cursor) != 0) return;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        struct slice records = lane_slice(data);
        (void)format_key_part(lane_slice(key), 1, &seq);
        newest_ms = 0;
        c->counts.bytes += data.mv_size;
        if (records.bytes == 0) {
            check_find(c, "receipts: value %llu is empty", (unsigned long long)seq);
        }
        for (; records.bytes > 0; records = slice_skip(records, bytes)) {
            if (record_read(records, &r, &bytes) != RECORD_OK || r.kind != RECORD_REQUEST) {
                check_find(c, "receipts: value %llu: wrong checksum", (unsigned long long)seq);
                break;
            }
            c->counts.receipts++;
            newest_ms = u64_max(newest_ms, r.time_ms);
        }
        struct format_key want = format_receipts_key(newest_ms, seq, lane_slice(data));
        if (!slice_equal(lane_slice(key), slice_of(want.bytes, want.count))) {
            check_find(c, "receipts: value %llu has another's key", (unsigned long long)seq);
        }
    }
    mdb_cursor_close(cursor);
}

void check_lane(struct check *c)
{
    if (check_open(c)) {
        check_tree(c);
        check_meta(c);
        check_wal(c);
        check_names(c);
        check_owners(c, FORMAT_SEGMENTS);
        check_owners(c, FORMAT_MSGS);
        check_owners(c, FORMAT_PRESENCE);
        check_channels(c);
        check_receipts(c);
        const struct check_counts *n = &c->counts;
        check_say(c, 'T', "%llu channels, %llu records (%llu rows), %llu segments, %llu wal "
                  "values, %llu message lists, %llu bases, %llu open members, %llu request keys",
                  (unsigned long long)n->channels, (unsigned long long)n->records,
                  (unsigned long long)n->rows, (unsigned long long)n->segments,
                  (unsigned long long)n->wal_values, (unsigned long long)n->parts,
                  (unsigned long long)n->bases, (unsigned long long)n->members,
                  (unsigned long long)n->receipts);
    }
    check_close(c);
}
