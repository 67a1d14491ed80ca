#include "store/check_parts.h"

static const uint32_t key_bytes[FORMAT_DBS] = {
    [FORMAT_WAL] = 8, [FORMAT_SEGMENTS] = 16, [FORMAT_MSGS] = 24, [FORMAT_RECEIPTS] = 24,
    [FORMAT_NAMES] = 16, [FORMAT_HEADS] = 8, [FORMAT_PRESENCE] = 24, [FORMAT_META] = 0,
};

/* Keys in order, each found where it is looked for: a damaged key on an inner page hides others. */
static void walk(struct check *c, MDB_dbi dbi, const char *name, uint32_t bytes)
{
    MDB_cursor *cursor;
    MDB_val key, data, before = {0, NULL}, found;
    uint64_t count = 0;
    MDB_stat stat;
    int e;

    if (mdb_cursor_open(c->txn, dbi, &cursor) != 0 || mdb_stat(c->txn, dbi, &stat) != 0) {
        check_find(c, "%s: cannot be read", name);
        return;
    }
    while ((e = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == 0) {
        count++;
        if (bytes != 0 && key.mv_size != bytes) {
            check_find(c, "%s: key %llu is %zu bytes long", name, (unsigned long long)count,
                       key.mv_size);
        }
        if (before.mv_data != NULL && mdb_cmp(c->txn, dbi, &before, &key) >= 0) {
            check_find(c, "%s: keys are not in order behind key %llu", name,
                       (unsigned long long)count - 1);
            break;
        }
        if (mdb_get(c->txn, dbi, &key, &found) != 0 || found.mv_data != data.mv_data) {
            check_find(c, "%s: key %llu is not found where it belongs", name,
                       (unsigned long long)count);
        }
        before = key;
    }
    mdb_cursor_close(cursor);
    if (e != 0 && e != MDB_NOTFOUND) check_find(c, "%s: %s", name, mdb_strerror(e));
    if (e == MDB_NOTFOUND && count != stat.ms_entries) {
        check_find(c, "%s: %llu keys, but the tree says %zu", name, (unsigned long long)count,
                   stat.ms_entries);
    }
}

static uint64_t pages_of(const MDB_stat *s)
{
    return s->ms_branch_pages + s->ms_leaf_pages + s->ms_overflow_pages;
}

/* Every page is in one of the trees or in the list of free ones. */
static void count_pages(struct check *c, MDB_dbi main_dbi)
{
    const MDB_dbi free_dbi = 0;
    uint64_t pages = 2, freed = 0;           /* two meta pages */
    MDB_cursor *cursor;
    MDB_val key, data;
    MDB_envinfo info;
    MDB_stat stat;

    for (uint32_t i = 0; i < FORMAT_DBS; i++) {
        if (mdb_stat(c->txn, c->dbis[i], &stat) == 0) pages += pages_of(&stat);
    }
    if (mdb_stat(c->txn, free_dbi, &stat) == 0) pages += pages_of(&stat);
    if (mdb_stat(c->txn, main_dbi, &stat) == 0) pages += pages_of(&stat);
    if (mdb_cursor_open(c->txn, free_dbi, &cursor) != 0) {
        check_find(c, "the list of free pages cannot be read");
        return;
    }
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        size_t count = 0;
        if (data.mv_size >= sizeof count) memcpy(&count, data.mv_data, sizeof count);
        if (data.mv_size < sizeof count || count > data.mv_size / sizeof count - 1) {
            check_find(c, "the list of free pages is damaged");
            break;
        }
        freed += count;
    }
    mdb_cursor_close(cursor);
    if (mdb_env_info(c->env, &info) == 0 && pages + freed != info.me_last_pgno + 1) {
        check_find(c, "%llu pages are in use and %llu free, but there are %llu",
                   (unsigned long long)pages, (unsigned long long)freed,
                   (unsigned long long)info.me_last_pgno + 1);
    }
}

void check_tree(struct check *c)
{
    MDB_dbi main_dbi;
    if (mdb_dbi_open(c->txn, NULL, 0, &main_dbi) != 0) {
        check_find(c, "the root cannot be read");
        return;
    }
    walk(c, main_dbi, "root", 0);
    for (uint32_t i = 0; i < FORMAT_DBS; i++) walk(c, c->dbis[i], format_db_names[i], key_bytes[i]);
    count_pages(c, main_dbi);
}
