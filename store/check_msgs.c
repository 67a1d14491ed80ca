#include <stdlib.h>

#include "store/check_parts.h"

/* ---- parts: where a segment has a message's records ---- */

static int record_order(const void *a, const void *b)
{
    const struct check_segment *x = a, *y = b;
    if (x->message != y->message) return x->message < y->message ? -1 : 1;
    return x->delivery < y->delivery ? -1 : x->delivery > y->delivery;
}

/* `records` are those of one message. */
static void check_part(struct check *c, uint64_t chan, uint64_t first, uint64_t known_from,
                       const struct check_segment *records, uint32_t count, uint64_t *listed)
{
    const unsigned long long message = records[0].message;
    struct format_key want = format_key3(chan, records[0].message, first);
    MDB_val key = lane_key(&want), data;
    struct format_part p;
    struct slice offsets;

    if (mdb_get(c->txn, c->dbis[FORMAT_MSGS], &key, &data) != 0) {
        if (records[0].message < known_from) return;   /* evicted with its create */
        check_find(c, "msgs: channel %llu, message %llu: its records in segment %llu are not "
                   "listed", (unsigned long long)chan, message, (unsigned long long)first);
        return;
    }
    if (records[0].message >= known_from) ++*listed;
    c->counts.parts++;
    if (!format_part_read(lane_slice(data), &p, &offsets)) {
        check_find(c, "msgs: channel %llu, message %llu, segment %llu: wrong checksum",
                   (unsigned long long)chan, message, (unsigned long long)first);
        return;
    }
    bool same = p.records_count == count && p.first == records[0].delivery &&
                p.last == records[count - 1].delivery;
    for (uint32_t i = 0; same && i < count; i++) {
        same = format_offset_at(offsets, i) == records[i].offset;
    }
    if (!same) {
        check_find(c, "msgs: channel %llu, message %llu: other records are listed than segment "
                   "%llu has", (unsigned long long)chan, message, (unsigned long long)first);
    }
}

void check_parts(struct check *c, uint64_t chan, uint64_t first, uint64_t known_from,
                 struct check_segment *records, uint32_t count, uint64_t *listed)
{
    if (count == 0) return;
    qsort(records, count, sizeof *records, record_order);
    for (uint32_t i = 0, n; i < count; i += n) {
        bool mutated = false;
        for (n = 0; i + n < count && records[i + n].message == records[i].message; n++) {
            mutated = mutated || records[i + n].mutation;
        }
        if (mutated) check_part(c, chan, first, known_from, records + i, n, listed);
    }
}

/* ---- bases: a message folded in advance ---- */

/* Folds the message from its create as far as the base goes. */
static bool fold_again(struct reader_source *source, const struct reader_base *base,
                       struct fold *fold, uint64_t **ops, uint32_t *ops_count)
{
    struct reader_walk walk;
    struct reader_found f;
    uint32_t room = 0;
    int status;

    reader_walk_open(&walk, source, base->r.message, 0, base->base.delivery, false);
    while ((status = reader_walk_next(&walk, &f)) == STORE_READ_OK) {
        if (fold_apply(fold, &f.r) != OK) return false;
        if (f.r.op_hash == 0) continue;
        if (*ops_count == room) {
            room = room == 0 ? 64 : 2 * room;
            *ops = check_need(*ops, room, 2 * sizeof **ops);
        }
        (*ops)[2 * *ops_count] = f.r.op_hash;
        (*ops)[2 * *ops_count + 1] = f.r.delivery;
        ++*ops_count;
    }
    return status == STORE_READ_NOT_FOUND && fold->started;
}

static bool same_as_base(const struct reader_base *base, const struct fold *fold,
                         const uint64_t *ops, uint32_t ops_count, struct slice record)
{
    struct record folded;
    fold_record(fold, &folded);
    uint32_t bytes = record_bytes(&folded);
    if (bytes != record.bytes || fold->appends != base->base.appends ||
        fold->versions != base->base.versions || ops_count != base->base.ops_count) {
        return false;
    }
    if (ops_count > 0 && memcmp(ops, base->ops.ptr, base->ops.bytes) != 0) return false;
    uint8_t *packed = check_need(NULL, 1, bytes);
    (void)record_write(&folded, packed);
    bool same = memcmp(packed, record.ptr, bytes) == 0;
    free(packed);
    return same;
}

static void check_base(struct check *c, struct reader_source *source, uint64_t known_from,
                       uint64_t message, struct slice value)
{
    struct reader_base base;
    struct format_base head;
    struct slice pairs, record;
    struct fold fold = {.heap = NULL};
    uint64_t *ops = NULL;
    uint32_t ops_count = 0;
    const unsigned long long chan = source->view.chan, number = message;

    c->counts.bases++;
    if (!format_base_read(value, &head, &pairs, &record) ||
        reader_base_find(source, message, &base) != STORE_READ_OK || !base.loaded) {
        check_find(c, "msgs: channel %llu, message %llu: the base is damaged", chan, number);
        return;
    }
    if (base.base.delivery > lane_view_delivery(&source->view)) {
        check_find(c, "msgs: channel %llu, message %llu: the base is newer than its records", chan,
                   number);
    } else if (message >= known_from) {
        if (!fold_again(source, &base, &fold, &ops, &ops_count) ||
            !same_as_base(&base, &fold, ops, ops_count, record)) {
            check_find(c, "msgs: channel %llu, message %llu: the base is not what its records say",
                       chan, number);
        }
    }
    fold_free(&fold);
    free(ops);
}

void check_msgs(struct check *c, struct reader_source *source, uint64_t known_from,
                uint64_t listed)
{
    struct format_key from = format_key1(source->view.chan);
    MDB_val key = lane_key(&from), data;
    MDB_cursor *cursor;
    uint64_t chan = 0, message = 0, part = 0, parts = 0;

    if (mdb_cursor_open(c->txn, c->dbis[FORMAT_MSGS], &cursor) != 0) return;
    for (int e = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
         e == 0 && format_key_part(lane_slice(key), 0, &chan) && chan == source->view.chan;
         e = mdb_cursor_get(cursor, &key, &data, MDB_NEXT)) {
        if (!format_key_part(lane_slice(key), 1, &message) ||
            !format_key_part(lane_slice(key), 2, &part)) {
            break;
        }
        c->counts.bytes += data.mv_size;
        if (part == FORMAT_PART_BASE) {
            check_base(c, source, known_from, message, lane_slice(data));
        } else if (message >= known_from) {  /* others wait for the sweep */
            parts++;
        }
    }
    mdb_cursor_close(cursor);
    if (listed != UINT64_MAX && parts != listed) {
        check_find(c, "msgs: channel %llu: %llu lists of records, but segments call for %llu",
                   (unsigned long long)source->view.chan, (unsigned long long)parts,
                   (unsigned long long)listed);
    }
}
