/* Start: environment, format, scan of the wal; when all lanes have that, clean mark read and
 * cleared. The scan finds what the committer keeps in RAM; nothing is repaired, because a
 * transaction is there or not. And the same environment once more, after a meta page that could not
 * be written. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "store/lane_parts.h"

enum { READERS_MAX = 64, PATH_BYTES = 4096 };

static void lane_path(char *out, const char *dir, uint32_t index)
{
    (void)snprintf(out, PATH_BYTES, "%s/lane-%02u", dir, index);
}

static err_t refuse(char *error, uint32_t error_bytes, const char *dir, uint32_t index,
                    const char *why, err_t e)
{
    (void)snprintf(error, error_bytes, "%s/lane-%02u: %s", dir, index, why);
    return e;
}

static err_t refuse_code(char *error, uint32_t error_bytes, const char *dir, uint32_t index, int rc)
{
    err_t e = refuse(error, error_bytes, dir, index, mdb_strerror(rc), lane_error(rc));
    return e == ERR_FULL ? ERR_IO : e;
}

/* ---- environment ---- */

/* Zeros in the list of free pages would be taken for pages that can be written to. */
static int check_free_pages(MDB_env *env, size_t last_page)
{
    const MDB_dbi free_dbi = 0;
    enum { FIRST_PAGE = 2 };               /* behind the meta pages */
    MDB_txn *txn;
    MDB_cursor *cursor = NULL;
    MDB_val k, v;
    size_t count, page;
    int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc != MDB_SUCCESS) return rc;
    rc = mdb_cursor_open(txn, free_dbi, &cursor);
    while (rc == MDB_SUCCESS && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == MDB_SUCCESS) {
        memcpy(&count, v.mv_data, sizeof count);
        if (count >= v.mv_size / sizeof count) rc = MDB_CORRUPTED;
        for (size_t i = 1; rc == MDB_SUCCESS && i <= count; i++) {
            memcpy(&page, (const uint8_t *)v.mv_data + i * sizeof page, sizeof page);
            if (page < FIRST_PAGE || page > last_page) rc = MDB_CORRUPTED;
        }
    }
    if (cursor != NULL) mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? MDB_SUCCESS : rc;
}

/* A file that ends before its last page would end the process where it is read (SIGBUS). What is
 * missing reads as zeros then: found wrong where it matters. Pages at the end that were taken and
 * given back in one transaction have never been written. */
static int make_whole(MDB_env *env, const char *path)
{
    char file[PATH_BYTES + 16];
    MDB_envinfo info;
    MDB_stat st;
    struct stat is;
    (void)snprintf(file, sizeof file, "%s/data.mdb", path);
    int rc = mdb_env_info(env, &info);
    if (rc == MDB_SUCCESS) rc = mdb_env_stat(env, &st);
    if (rc != MDB_SUCCESS) return rc;
    off_t bytes = (off_t)((info.me_last_pgno + 1) * st.ms_psize);
    if (stat(file, &is) != 0) return errno;
    if (is.st_size >= bytes) return MDB_SUCCESS;
    LOG(LOG_WARN, "the file ends before its last page: run weftctl store check", "file", file);
    if (truncate(file, bytes) != 0) return errno;
    rc = check_free_pages(env, info.me_last_pgno);
    if (rc != MDB_SUCCESS && truncate(file, is.st_size) != 0) return errno;   /* it stays cut */
    return rc;
}

static int env_open(const char *path, MDB_env **env)
{
    int rc = mdb_env_create(env);
    if (rc != MDB_SUCCESS) return rc;
    rc = mdb_env_set_maxdbs(*env, FORMAT_DBS);
    if (rc == MDB_SUCCESS) rc = mdb_env_set_mapsize(*env, LANE_MAP_BYTES);
    if (rc == MDB_SUCCESS) rc = mdb_env_set_maxreaders(*env, READERS_MAX);
    if (rc == MDB_SUCCESS) rc = mdb_env_open(*env, path, MDB_NOTLS, 0600);
    if (rc == MDB_SUCCESS) rc = make_whole(*env, path);
    if (rc != MDB_SUCCESS) {
        mdb_env_close(*env);
        *env = NULL;
    }
    return rc;
}

static int dbis_open(MDB_txn *txn, MDB_dbi *dbis, unsigned flags)
{
    int rc = MDB_SUCCESS;
    for (uint32_t i = 0; rc == MDB_SUCCESS && i < FORMAT_DBS; i++) {
        rc = mdb_dbi_open(txn, format_db_names[i], flags, &dbis[i]);
    }
    return rc;
}

static int meta_get(MDB_txn *txn, MDB_dbi meta, const char *name, MDB_val *v)
{
    MDB_val k = {strlen(name), (void *)(uintptr_t)name};
    return mdb_get(txn, meta, &k, v);
}

static void seal(struct format_lane *said)
{
    said->check = format_check(slice_of(said, sizeof *said), sizeof *said, 0);
}

static int meta_put(MDB_txn *txn, MDB_dbi meta, const char *name, const void *ptr, size_t bytes)
{
    MDB_val k = {strlen(name), (void *)(uintptr_t)name}, v = {bytes, (void *)(uintptr_t)ptr};
    return mdb_put(txn, meta, &k, &v, 0);
}

/* A format number is read before anything else is believed: it stays where it is for ever. */
static err_t lane_said(MDB_txn *txn, MDB_dbi meta, const char *dir, uint32_t index,
                       struct format_lane *out, char *error, uint32_t error_bytes)
{
    MDB_val v;
    int rc = meta_get(txn, meta, FORMAT_META_LANE, &v);
    uint32_t format = 0;
    if (rc == MDB_SUCCESS && v.mv_size >= 12) memcpy(&format, (uint8_t *)v.mv_data + 8, 4);
    if (format > STORE_FORMAT) {
        (void)snprintf(error, error_bytes, "%s was written by a newer version (format %u, this one "
                       "knows %u): start that version, or use another data directory", dir, format,
                       STORE_FORMAT);
        return ERR_CONFIG;
    }
    if (rc != MDB_SUCCESS || !format_lane_read(lane_slice(v), out) || out->lane != index ||
        out->lanes == 0 || out->lanes > STORE_LANES_MAX) {
        return refuse(error, error_bytes, dir, index,
                      "its description is damaged: see `weftctl store check`", ERR_IO);
    }
    return OK;
}

err_t lane_format_need(struct lane *l, MDB_txn *txn, uint32_t format)
{
    struct format_lane said;
    MDB_val v;
    err_t e = lane_error(meta_get(txn, l->dbis[FORMAT_META], FORMAT_META_LANE, &v));
    if (e == OK && !format_lane_read(lane_slice(v), &said)) e = ERR_IO;
    if (e != OK || said.format >= format) return e;
    said.format = format;
    seal(&said);
    return lane_error(meta_put(txn, l->dbis[FORMAT_META], FORMAT_META_LANE, &said, sizeof said));
}

/* ---- a new directory ---- */

static int sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = MDB_SUCCESS;
    if (fd < 0) return errno;
    if (fsync(fd) != 0 && errno != EINVAL) rc = errno;   /* EINVAL: they need no sync here */
    (void)close(fd);
    return rc;
}

/* Fills a lane; what holds channels is left as it is. */
static int make_in(MDB_txn *txn, const struct format_lane *made, bool *has_data)
{
    MDB_dbi dbis[FORMAT_DBS];
    MDB_stat heads, wal;
    int rc = dbis_open(txn, dbis, MDB_CREATE);
    if (rc == MDB_SUCCESS) rc = mdb_stat(txn, dbis[FORMAT_HEADS], &heads);
    if (rc == MDB_SUCCESS) rc = mdb_stat(txn, dbis[FORMAT_WAL], &wal);
    if (rc != MDB_SUCCESS) return rc;
    *has_data = heads.ms_entries > 0 || wal.ms_entries > 0;
    if (*has_data) return MDB_SUCCESS;
    struct format_lane sealed = *made;
    seal(&sealed);
    rc = meta_put(txn, dbis[FORMAT_META], FORMAT_META_LANE, &sealed, sizeof sealed);
    if (rc != MDB_SUCCESS) return rc;
    return meta_put(txn, dbis[FORMAT_META], FORMAT_META_CLEAN, "", 0);
}

static int make_at(const char *path, const struct format_lane *made, bool *has_data)
{
    MDB_env *env = NULL;
    MDB_txn *txn;
    int rc = env_open(path, &env);
    if (rc == MDB_SUCCESS) rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc == MDB_SUCCESS) {
        rc = make_in(txn, made, has_data);
        if (rc == MDB_SUCCESS && !*has_data) {
            rc = mdb_txn_commit(txn);
        } else {
            mdb_txn_abort(txn);
        }
    }
    if (env != NULL) mdb_env_close(env);
    return rc;
}

/* LMDB does not sync an environment's first pages before it uses them: a power cut may leave a file
 * that it cannot open. So a lane is made under another name, and has its own only when it is whole.
 * */
static int make_new(const char *dir, const char *path, const struct format_lane *made)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    char made_at[PATH_BYTES + 8], file[PATH_BYTES + 32];
    bool has_data = false;
    (void)snprintf(made_at, sizeof made_at, "%s.new", path);
    if (mkdir(made_at, 0700) != 0 && errno != EEXIST) return errno;
    for (uint32_t i = 0; i < 2; i++) {     /* what an earlier attempt has left */
        (void)snprintf(file, sizeof file, "%s/%s", made_at, files[i]);
        if (unlink(file) != 0 && errno != ENOENT) return errno;
    }
    int rc = make_at(made_at, made, &has_data);
    if (rc == MDB_SUCCESS) rc = sync_dir(made_at);
    if (rc != MDB_SUCCESS) return rc;
    return rename(made_at, path) == 0 ? sync_dir(dir) : errno;
}

err_t lane_make(const char *dir, const struct format_lane *made, char *error, uint32_t error_bytes)
{
    char path[PATH_BYTES], file[PATH_BYTES + 16];
    struct stat st;
    bool has_data = false;
    lane_path(path, dir, made->lane);
    (void)snprintf(file, sizeof file, "%s/data.mdb", path);
    /* Lanes that stand while lane 0 does not are of a making that was cut short. */
    int rc = stat(file, &st) == 0 ? make_at(path, made, &has_data) : make_new(dir, path, made);
    if (rc != MDB_SUCCESS) return refuse_code(error, error_bytes, dir, made->lane, rc);
    if (has_data) {
        return refuse(error, error_bytes, dir, made->lane,
                      "holds data although lane-00 is missing: put that back", ERR_CONFIG);
    }
    return OK;
}

err_t lane_probe(const char *dir, uint32_t index, struct format_lane *out, char *error,
                 uint32_t error_bytes)
{
    char path[PATH_BYTES], file[PATH_BYTES + 16];
    struct stat st;
    MDB_env *env = NULL;
    MDB_txn *txn;
    MDB_dbi meta;
    *out = (struct format_lane){0};
    lane_path(path, dir, index);
    (void)snprintf(file, sizeof file, "%s/data.mdb", path);
    if (stat(file, &st) != 0) {
        return errno == ENOENT || errno == ENOTDIR ? OK :
               refuse_code(error, error_bytes, dir, index, errno);
    }
    int rc = env_open(path, &env);
    if (rc != MDB_SUCCESS) return refuse_code(error, error_bytes, dir, index, rc);
    err_t e = OK;
    rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc == MDB_SUCCESS) {
        rc = mdb_dbi_open(txn, format_db_names[FORMAT_META], 0, &meta);
        if (rc == MDB_SUCCESS) e = lane_said(txn, meta, dir, index, out, error, error_bytes);
        mdb_txn_abort(txn);
    }
    mdb_env_close(env);
    if (rc == MDB_NOTFOUND) return OK;     /* its making was cut short */
    return rc == MDB_SUCCESS ? e : refuse_code(error, error_bytes, dir, index, rc);
}

/* ---- open and close ---- */

static err_t open_dbis(struct lane *l, char *error, uint32_t error_bytes)
{
    struct format_lane said;
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);
    if (rc == MDB_SUCCESS) {
        rc = dbis_open(txn, l->dbis, 0);
        if (rc == MDB_SUCCESS) {
            rc = mdb_txn_commit(txn);      /* keeps the handles */
        } else {
            mdb_txn_abort(txn);
        }
    }
    if (rc == MDB_SUCCESS) rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);
    if (rc != MDB_SUCCESS) return refuse_code(error, error_bytes, l->conf->dir, l->index, rc);
    err_t e = lane_said(txn, l->dbis[FORMAT_META], l->conf->dir, l->index, &said, error,
                        error_bytes);
    if (e == OK) {
        error[0] = 0;
        e = lane_scan(l, txn, error, error_bytes);
        if (e != OK && error[0] == 0) {
            e = refuse(error, error_bytes, l->conf->dir, l->index, err_name(e), e);
        }
    }
    mdb_txn_abort(txn);
    return e;
}

err_t lane_open(struct lane *l, char *error, uint32_t error_bytes)
{
    char path[PATH_BYTES];
    err_t e = lane_tail_open(l);
    if (e == OK) e = lane_pack_open(l);
    if (e == OK) e = lane_commit_open(l);
    if (e == OK) e = lane_retain_open(l);
    if (e == OK) e = lane_forget_open(l);
    if (e != OK) return refuse(error, error_bytes, l->conf->dir, l->index, err_name(e), e);
    lane_snapshots_open(l);
    lane_path(path, l->conf->dir, l->index);
    int rc = env_open(path, &l->env);
    if (rc != MDB_SUCCESS) return refuse_code(error, error_bytes, l->conf->dir, l->index, rc);
    return open_dbis(l, error, error_bytes);
}

static int count_loss(struct lane *l, MDB_txn *txn, struct format_lane *said)
{
    said->losses++;
    seal(said);
    return meta_put(txn, l->dbis[FORMAT_META], FORMAT_META_LANE, said, sizeof *said);
}

static int take_mark(struct lane *l, MDB_txn *txn, struct format_lane *said, bool *clean)
{
    MDB_val k = {strlen(FORMAT_META_CLEAN), (void *)(uintptr_t)FORMAT_META_CLEAN}, v;
    int rc = meta_get(txn, l->dbis[FORMAT_META], FORMAT_META_CLEAN, &v);
    *clean = rc == MDB_SUCCESS;
    if (rc == MDB_NOTFOUND) return count_loss(l, txn, said);
    return rc == MDB_SUCCESS ? mdb_del(txn, l->dbis[FORMAT_META], &k, NULL) : rc;
}

/* In a transaction of its own, synced before anything else is written. A start that fails over one
 * lane takes no other's mark: their relaxed channels lost nothing. */
err_t lane_begin(struct lane *l, char *error, uint32_t error_bytes)
{
    struct format_lane said;
    MDB_txn *txn;
    bool clean = false;
    int rc = sync_dir(l->conf->dir);       /* the start that made it may have come no further */
    if (rc == MDB_SUCCESS) rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc != MDB_SUCCESS) return refuse_code(error, error_bytes, l->conf->dir, l->index, rc);
    err_t e = lane_said(txn, l->dbis[FORMAT_META], l->conf->dir, l->index, &said, error,
                        error_bytes);
    if (e == OK) rc = take_mark(l, txn, &said, &clean);
    if (e == OK && rc == MDB_SUCCESS) {
        rc = mdb_txn_commit(txn);
    } else {
        mdb_txn_abort(txn);
    }
    if (e != OK) return e;
    if (rc != MDB_SUCCESS) return refuse_code(error, error_bytes, l->conf->dir, l->index, rc);
    MDB_envinfo info;
    rc = mdb_env_info(l->env, &info);
    if (rc != MDB_SUCCESS) return refuse_code(error, error_bytes, l->conf->dir, l->index, rc);
    l->txn_newest = info.me_last_txnid;
    l->losses = said.losses;
    l->clean = clean;
    return OK;
}

/* ---- once more ---- */

/* LMDB takes back a meta page that it could not write, but only in the page cache. On the disk the
 * failed commit may stand, and a power cut would bring it back over pages that are used for
 * something else by then: so both meta pages go to the disk as they are. */
static int settle_metas(const char *path, uint32_t page_bytes)
{
    char file[PATH_BYTES + 16];
    size_t bytes = 2 * (size_t)page_bytes;
    (void)snprintf(file, sizeof file, "%s/data.mdb", path);
    uint8_t *pages = malloc(bytes);
    int fd = open(file, O_RDWR | O_CLOEXEC), rc = MDB_SUCCESS;
    if (pages == NULL || fd < 0 || pread(fd, pages, bytes, 0) != (ssize_t)bytes ||
        pwrite(fd, pages, bytes, 0) != (ssize_t)bytes || fdatasync(fd) != 0) {
        rc = EIO;                          /* whatever it is: tried again */
    }
    if (fd >= 0) (void)close(fd);
    free(pages);
    return rc;
}

/* The same databases, as the newest good transaction left them? */
static bool opened_as_it_was(struct lane *l)
{
    MDB_envinfo info;
    MDB_txn *txn;
    if (mdb_env_info(l->env, &info) != MDB_SUCCESS || info.me_last_txnid != l->txn_newest ||
        mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn) != MDB_SUCCESS) {
        return false;
    }
    if (dbis_open(txn, l->dbis, 0) == MDB_SUCCESS) return mdb_txn_commit(txn) == MDB_SUCCESS;
    mdb_txn_abort(txn);
    return false;
}

bool lane_reopen(struct lane *l)
{
    char path[PATH_BYTES], index[12];
    MDB_stat st;
    lane_path(path, l->conf->dir, l->index);
    if (!lane_snapshots_end(l) || mdb_env_stat(l->env, &st) != MDB_SUCCESS ||
        settle_metas(path, st.ms_psize) != MDB_SUCCESS) {
        return false;
    }
    mdb_env_close(l->env);
    if (env_open(path, &l->env) == MDB_SUCCESS && opened_as_it_was(l)) {
        l->damaged = l->failed = false;
        return true;
    }
    if (l->env != NULL) mdb_env_close(l->env);
    l->env = NULL;
    l->failed = false;
    (void)snprintf(index, sizeof index, "%u", l->index);
    LOG(LOG_ERROR, "durable publishes and reads are refused: restart the server", "lane", index,
        "what", "the environment is not what it was");
    return false;
}

void lane_close(struct lane *l, bool clean)
{
    MDB_txn *txn;
    lane_snapshots_close(l);
    clean = clean && !l->damaged && !__atomic_load_n(&l->doubted, __ATOMIC_RELAXED);
    if (l->env != NULL && clean &&
        mdb_txn_begin(l->env, NULL, 0, &txn) == MDB_SUCCESS) {
        if (meta_put(txn, l->dbis[FORMAT_META], FORMAT_META_CLEAN, "", 0) == MDB_SUCCESS) {
            (void)mdb_txn_commit(txn);     /* without the mark the next start is careful */
        } else {
            mdb_txn_abort(txn);
        }
    }
    if (l->env != NULL) mdb_env_close(l->env);
    l->env = NULL;
    lane_forget_close(l);
    lane_retain_close(l);
    lane_commit_close(l);
    lane_pack_close(l);
    lane_tail_close(l);
}
