#include <stdlib.h>

#include "store/reader.h"

/* ---- folding ---- */

static int op_add(struct reader_work *w, uint64_t hash, uint64_t delivery)
{
    enum { START = 64 };
    if (w->ops_count == w->ops_room) {
        uint32_t room = w->ops_room == 0 ? START : 2 * w->ops_room;
        uint64_t *ops = realloc(w->ops, (size_t)room * 2 * sizeof *ops);
        if (ops == NULL) return STORE_READ_MEMORY;
        w->ops = ops;
        w->ops_room = room;
    }
    w->ops[2 * w->ops_count] = hash;
    w->ops[2 * w->ops_count + 1] = delivery;
    w->ops_count++;
    return STORE_READ_OK;
}

/* Starts from the base if it is old enough, else from the create. */
static int fold_start(struct reader_source *s, struct reader_work *w, uint64_t message,
                      uint64_t upto, bool ops)
{
    struct reader_base base;
    int status = reader_base_find(s, message, &base);
    if (status != STORE_READ_OK || !base.loaded || base.base.delivery > upto) return status;

    err_t e = fold_apply(&w->fold, &base.r);
    if (e != OK) return e == ERR_MEMORY ? STORE_READ_MEMORY : STORE_READ_IO;
    w->fold.appends = base.base.appends;
    w->fold.versions = base.base.versions;
    for (uint32_t i = 0; ops && i < base.base.ops_count && status == STORE_READ_OK; i++) {
        uint64_t pair[2];
        memcpy(pair, base.ops.ptr + i * sizeof pair, sizeof pair);
        status = op_add(w, pair[0], pair[1]);
    }
    s->steps++;
    return status;
}

int reader_fold(struct reader_source *s, struct reader_work *w, uint64_t message, uint64_t upto,
                bool ops)
{
    struct reader_walk walk;
    struct reader_found f;
    int status = STORE_READ_OK;

    if (!w->folding || w->fold_message != message) {
        fold_free(&w->fold);
        w->folding = true;
        w->fold_message = message;
        status = fold_start(s, w, message, upto, ops);
        if (status != STORE_READ_OK) return status;
    } else if (message < s->view.head.floor) {
        return STORE_READ_NOT_FOUND;           /* evicted meanwhile: what would follow next is not
                                                  what was next */
    }
    reader_walk_open(&walk, s, message, w->fold.started ? w->fold.delivery : 0, upto, false);
    while (!reader_over(s)) {
        status = reader_walk_next(&walk, &f);
        if (status == STORE_READ_NOT_FOUND) {
            w->folding = false;
            return w->fold.started ? STORE_READ_OK : STORE_READ_NOT_FOUND;
        }
        if (status != STORE_READ_OK) return status;
        err_t e = fold_apply(&w->fold, &f.r);
        if (e != OK) return e == ERR_MEMORY ? STORE_READ_MEMORY : STORE_READ_IO;
        if (ops && f.r.op_hash != 0) status = op_add(w, f.r.op_hash, f.r.delivery);
        if (status != STORE_READ_OK) return status;
        s->steps++;
    }
    return READER_AGAIN;
}

/* A message is there while its newest version is kept: an edit of yesterday outlives a create of
 * last week. What it is folded from stays as long as its row or its versions do. */
static int find_floor(struct reader_source *s, const struct store_read *r, struct reader_work *w,
                      const struct store_policy *policy)
{
    struct lane_floors floors;
    if (!s->view.known || r->message == 0 || r->message > r->upto) return STORE_READ_NOT_FOUND;
    err_t e = lane_floors(&s->view, policy, r->now_ms, &floors);
    if (e != OK) return e == ERR_MEMORY ? STORE_READ_MEMORY : STORE_READ_IO;
    w->floor = floors.version;
    return r->message < u64_min(floors.row, floors.version) ? STORE_READ_NOT_FOUND : STORE_READ_OK;
}

int reader_message(struct reader_source *s, struct store_read *r, struct reader_work *w,
                   const struct store_policy *policy)
{
    struct record folded;
    int status = w->started ? STORE_READ_OK : find_floor(s, r, w, policy);
    w->started = true;
    if (status == STORE_READ_OK) status = reader_fold(s, w, r->message, r->upto, true);
    if (status != STORE_READ_OK) return status;
    if (w->fold.delivery < w->floor) return STORE_READ_NOT_FOUND;
    fold_record(&w->fold, &folded);
    r->appends = w->fold.appends;
    r->versions = w->fold.versions;
    if (r->bytes_max != 0 && record_bytes(&folded) > r->bytes_max) return STORE_READ_LARGE;
    w->items++;
    return reader_put_record(w, &folded);
}

/* ---- versions ---- */

static int versions_start(struct reader_source *s, const struct store_read *r,
                          struct reader_work *w, const struct store_policy *policy)
{
    struct reader_walk walk;
    struct reader_found f;
    int status = find_floor(s, r, w, policy);
    if (status != STORE_READ_OK) return status;
    status = reader_find(s, r->message, READER_ASIDE, &f);
    if (status == STORE_READ_OK && !record_is_row(&f.r)) status = STORE_READ_NOT_FOUND;
    if (status == STORE_READ_OK && r->message < w->floor) {
        reader_walk_open(&walk, s, r->message, 0, r->upto, true);
        status = reader_walk_next(&walk, &f);
        if (status == STORE_READ_OK && f.r.delivery < w->floor) status = STORE_READ_NOT_FOUND;
    }
    if (status != STORE_READ_OK) return status;
    w->at = r->newest_first ? r->from : u64_max(r->from, w->floor - 1);
    w->started = true;
    return STORE_READ_OK;
}

int reader_versions(struct reader_source *s, struct store_read *r, struct reader_work *w,
                    const struct store_policy *policy)
{
    struct reader_walk walk;
    struct reader_found f;
    int status;

    if (!w->started) {
        status = versions_start(s, r, w, policy);
        if (status != STORE_READ_OK) return status;
    }
    if (r->message < s->view.head.floor) {     /* evicted meanwhile: the page ends here */
        return w->items > 0 ? STORE_READ_OK : STORE_READ_NOT_FOUND;
    }
    reader_walk_open(&walk, s, r->message, w->at, r->upto, r->newest_first);
    while (!reader_over(s)) {
        status = reader_walk_next(&walk, &f);
        if (status == STORE_READ_NOT_FOUND) return STORE_READ_OK;
        if (status != STORE_READ_OK) return status;
        if (f.r.delivery < w->floor) return STORE_READ_OK;
        bool full = w->items > 0 && w->out_bytes + f.packed.bytes > reader_bytes_max(r);
        if (full || (r->limit != 0 && w->items == r->limit)) {
            r->more = true;
            return STORE_READ_OK;
        }
        if (reader_needs_context(&f.r)) status = reader_put_context(s, w, &f.r);
        if (status == STORE_READ_NOT_FOUND) status = STORE_READ_IO;
        if (status == STORE_READ_OK) status = reader_put(w, f.packed);
        if (status == STORE_READ_OK && !reader_needs_context(&f.r)) {
            status = reader_set_add(&w->contexts, f.r.delivery);
        }
        if (status != STORE_READ_OK) return status;
        w->items++;
        w->at = f.r.delivery;
        s->steps++;
    }
    return READER_AGAIN;
}
