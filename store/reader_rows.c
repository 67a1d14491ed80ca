#include "store/reader.h"

static int status_of(err_t e)
{
    return e == OK ? STORE_READ_OK : e == ERR_MEMORY ? STORE_READ_MEMORY : STORE_READ_IO;
}

/* ---- versions in delivery order ---- */

static int range_start(struct reader_source *s, struct store_read *r, struct reader_work *w,
                       const struct store_policy *policy)
{
    int status = status_of(lane_head(&s->view, policy, r->now_ms, &r->head));
    if (status != STORE_READ_OK) return status;
    w->at = r->from;
    w->started = true;
    if (r->from >= r->upto) return STORE_READ_OK;
    if (r->from + 1 < r->head.replay_floor) return STORE_READ_GONE;
    if (r->limit != 0 && r->upto - r->from > r->limit) return STORE_READ_LARGE;
    return STORE_READ_OK;
}

int reader_range(struct reader_source *s, struct store_read *r, struct reader_work *w,
                 const struct store_policy *policy)
{
    struct reader_found f;
    int status = w->started ? STORE_READ_OK : range_start(s, r, w, policy);

    while (status == STORE_READ_OK && w->at < r->upto) {
        if (reader_over(s)) return READER_AGAIN;
        status = reader_find(s, w->at + 1, READER_MAIN, &f);
        if (status == STORE_READ_OK && reader_needs_context(&f.r) && f.r.context <= r->from) {
            status = reader_put_context(s, w, &f.r);
        }
        if (status == STORE_READ_OK) status = reader_put(w, f.packed);
        if (status == STORE_READ_OK && w->out_bytes > reader_bytes_max(r)) {
            status = STORE_READ_LARGE;
        }
        w->at++;
        s->steps++;
    }
    /* a record, or what it refers to, was evicted: the range cannot be shown any more */
    return status == STORE_READ_NOT_FOUND ? STORE_READ_GONE : status;
}

/* ---- history rows ---- */

/* History serials of the rows that match. Time never falls along them, so its bounds are serials
 * as well. */
static int rows_bounds(struct reader_source *s, struct store_read *r, struct reader_work *w,
                       const struct lane_floors *floors)
{
    struct reader_row row;
    int status;

    w->low = u64_max(r->rows_from, floors->row_first);
    w->high = u64_min(r->rows_upto, r->head.rows_newest);
    if (r->time_from_ms > floors->row_first_ms) {
        status = reader_row_seek(s, floors->row, true, r->time_from_ms, &row);
        if (status != STORE_READ_OK) return status;
        w->low = row.found ? u64_max(w->low, row.history) : UINT64_MAX;
    }
    if (r->time_upto_ms < r->head.rows_newest_ms) {
        status = reader_row_seek(s, floors->row, true, r->time_upto_ms + 1, &row);
        if (status != STORE_READ_OK) return status;
        if (row.found) w->high = u64_min(w->high, row.history - 1);
    }
    if (r->rows_after != 0 && r->newest_first) w->high = u64_min(w->high, r->rows_after - 1);
    if (r->rows_after != 0 && !r->newest_first) {
        w->low = r->rows_after == UINT64_MAX ? UINT64_MAX : u64_max(w->low, r->rows_after + 1);
    }
    w->at = r->newest_first ? w->high : w->low;
    return STORE_READ_OK;
}

/* Each snapshot has its own floors. Rows that were evicted in between are not there any more: a
 * page from the newest row ends there; a page from the oldest ends as if it were full. */
static int rows_start(struct reader_source *s, struct store_read *r, struct reader_work *w,
                      const struct lane_floors *floors, const struct store_policy *policy)
{
    if (!w->started) {
        int status = status_of(lane_head(&s->view, policy, r->now_ms, &r->head));
        if (status != STORE_READ_OK) return status;
        w->started = true;
        if (floors->row_first != 0) return rows_bounds(s, r, w, floors);
        w->low = 1;
        w->high = w->at = 0;
        return STORE_READ_OK;
    }
    if (floors->row_first == 0) {
        w->low = UINT64_MAX;
        return STORE_READ_OK;
    }
    w->low = u64_max(w->low, floors->row_first);
    if (!r->newest_first && w->at < w->low) {
        if (w->items > 0) {
            r->more = w->low <= w->high;
            w->high = 0;
        }
        w->at = w->low;
    }
    return STORE_READ_OK;
}

/* The row `w.at` and what became of it. */
static int put_row(struct reader_source *s, struct store_read *r, struct reader_work *w,
                   const struct lane_floors *floors, bool *full)
{
    struct reader_row row;
    struct reader_found f;
    struct record folded;
    bool mutated = false;
    uint64_t bytes;

    int status = reader_row_seek(s, floors->row, false, w->at, &row);
    if (status == STORE_READ_OK && (!row.found || row.history != w->at)) status = STORE_READ_IO;
    if (status == STORE_READ_OK) status = reader_find(s, row.delivery, READER_MAIN, &f);
    if (status != STORE_READ_OK) return status == STORE_READ_NOT_FOUND ? STORE_READ_IO : status;
    if (!record_is_row(&f.r) || f.r.history != w->at) return STORE_READ_IO;
    if (f.r.kind == RECORD_CREATE) {
        status = reader_mutated(s, row.delivery, &mutated);
        if (status == STORE_READ_OK && mutated) {
            status = reader_fold(s, w, row.delivery, r->upto, false);
        }
        if (status != STORE_READ_OK) return status;
    }
    bytes = w->out_bytes + f.packed.bytes;
    /* Nothing else was to be seen then, or its versions are not kept any more. */
    if (w->fold.delivery == row.delivery || w->fold.delivery < floors->version) mutated = false;
    if (mutated) {
        fold_record(&w->fold, &folded);
        bytes += record_bytes(&folded);
    }
    *full = w->items > 0 && bytes > reader_bytes_max(r);
    if (*full) return STORE_READ_OK;
    status = reader_put(w, f.packed);
    if (status == STORE_READ_OK && mutated) status = reader_put_record(w, &folded);
    w->items++;
    return status;
}

int reader_rows(struct reader_source *s, struct store_read *r, struct reader_work *w,
                const struct store_policy *policy)
{
    struct lane_floors floors;
    bool full = false;

    int status = status_of(lane_floors(&s->view, policy, r->now_ms, &floors));
    if (status == STORE_READ_OK) status = rows_start(s, r, w, &floors, policy);
    while (status == STORE_READ_OK && w->low <= w->at && w->at <= w->high) {
        if (reader_over(s)) return READER_AGAIN;
        full = r->limit != 0 && w->items == r->limit;
        if (!full) status = put_row(s, r, w, &floors, &full);
        if (status != STORE_READ_OK || full) break;
        w->at = r->newest_first ? w->at - 1 : w->at + 1;
        s->steps++;
    }
    if (full) r->more = true;
    return status;
}
