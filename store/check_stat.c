#include <stdio.h>
#include <sys/stat.h>

#include "store/check_parts.h"

/* Bytes of keys and values of one database. */
static void count_db(struct check *c, enum format_db db)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    MDB_stat stat;
    uint64_t bytes = 0;

    if (mdb_stat(c->txn, c->dbis[db], &stat) != 0) return;
    if (mdb_cursor_open(c->txn, c->dbis[db], &cursor) != 0) return;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) bytes += key.mv_size + data.mv_size;
    mdb_cursor_close(cursor);
    check_say(c, 'T', "%-9s %10zu keys %14llu bytes in %8zu pages, depth %u", format_db_names[db],
              stat.ms_entries, (unsigned long long)bytes,
              stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages, stat.ms_depth);
}

static void count_channels(struct check *c)
{
    MDB_cursor *cursor;
    MDB_val key, data;
    struct format_head head;
    struct slice app_id, channel;
    uint64_t channels = 0, bad = 0, records = 0, rows = 0, newest_ms = 0;

    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_HEADS], &cursor) != 0) return;
    while (mdb_cursor_get(cursor, &key, &data, MDB_NEXT) == 0) {
        channels++;
        if (!format_head_read(lane_slice(data), &head, &app_id, &channel)) {
            bad++;
            continue;
        }
        records += head.delivery + 1 - head.floor;
        rows += head.rows;
        newest_ms = u64_max(newest_ms, head.time_ms);
    }
    mdb_cursor_close(cursor);
    /* A head knows what has been packed: the wal's share is not in these figures. */
    check_say(c, 'T', "%llu channels; packed: %llu records, %llu rows ever, newest at %llu ms",
              (unsigned long long)channels, (unsigned long long)records, (unsigned long long)rows,
              (unsigned long long)newest_ms);
    if (bad > 0) check_find(c, "%llu heads with a wrong checksum", (unsigned long long)bad);
}

void check_stat_lane(struct check *c)
{
    MDB_val key = {strlen(FORMAT_META_CLEAN), (void *)(uintptr_t)FORMAT_META_CLEAN}, data;
    struct stat file;
    MDB_envinfo info;
    char path[4200];

    if (check_open(c)) {
        (void)snprintf(path, sizeof path, "%s/data.mdb", c->path);
        bool clean = mdb_get(c->txn, c->dbis[FORMAT_META], &key, &data) == 0;
        if (mdb_env_info(c->env, &info) == 0 && stat(path, &file) == 0) {
            check_say(c, 'T', "store %s, lane %u of %u, format %u, %s", c->said.store_id,
                      c->said.lane, c->said.lanes, c->said.format,
                      clean ? "cleanly stopped" : "not cleanly stopped");
            check_say(c, 'T', "data.mdb is %llu bytes long, transaction %zu",
                      (unsigned long long)file.st_size, info.me_last_txnid);
        }
        for (uint32_t i = 0; i < FORMAT_DBS; i++) count_db(c, (enum format_db)i);
        count_channels(c);
    }
    check_close(c);
}
