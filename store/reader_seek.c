#include "store/reader.h"

/* A segment's struct without its checks: enough to choose a direction. What is chosen is checked
 * when it is loaded. */
static int peek(const struct reader_source *s, uint64_t delivery, struct format_segment *out)
{
    struct slice value;
    err_t e = OK;
    if (!lane_segment_at(&s->view, delivery, &value, &e)) {
        return e == OK ? STORE_READ_NOT_FOUND : STORE_READ_IO;
    }
    if (value.bytes < sizeof *out) return STORE_READ_IO;
    memcpy(out, value.ptr, sizeof *out);
    return out->last >= delivery && out->first <= out->last ? STORE_READ_OK : STORE_READ_IO;
}

static uint64_t key_of(const struct format_row *row, bool by_time)
{
    return by_time ? row->time_ms : row->history;
}

/* Delivery serials from `floor` to the head are searched for the first segment whose newest row so
 * far is wanted: `last_row` only grows from segment to segment. */
static int seek_segment(struct reader_source *s, uint64_t floor, bool by_time, uint64_t least,
                        uint64_t *first)
{
    uint64_t low = floor, high = s->view.head.delivery + 1;   /* the answer begins in [low, high] */
    struct format_segment seg;
    *first = 0;
    while (low < high) {
        int status = peek(s, low + (high - low) / 2, &seg);
        if (status == STORE_READ_IO) return status;
        bool wanted = status == STORE_READ_OK && seg.last_row.delivery >= floor &&
                      key_of(&seg.last_row, by_time) >= least;
        if (status == STORE_READ_NOT_FOUND) {                 /* nothing from the middle on */
            high = low + (high - low) / 2;
        } else if (wanted) {
            *first = seg.first;
            high = u64_min(seg.first, low + (high - low) / 2);
        } else {
            low = seg.last + 1;
        }
    }
    return STORE_READ_OK;
}

static int seek_in_segment(struct reader_source *s, uint64_t first, uint64_t floor, bool by_time,
                           uint64_t least, struct reader_row *out)
{
    int status = reader_segment_load(s, first, READER_MAIN);
    if (status != STORE_READ_OK) return STORE_READ_IO;
    const struct reader_segment *g = &s->segments[READER_MAIN];
    uint32_t low = 0, high = g->seg.rows_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct format_row row = format_row_at(g->rows, middle);
        if (row.delivery < floor || key_of(&row, by_time) < least) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == g->seg.rows_count) return STORE_READ_OK;   /* it is behind what may be seen */
    struct format_row row = format_row_at(g->rows, low);
    if (row.delivery > s->view.head.delivery) return STORE_READ_OK;
    *out = (struct reader_row){true, row.delivery, row.history, row.time_ms};
    return STORE_READ_OK;
}

/* The tail's row with `before` rows between the tail's first entry and it. */
static const struct lane_entry *row_in_tail(const struct lane_view *v, uint64_t before)
{
    uint64_t rows = v->tail[0].rows_before + before;
    uint32_t low = 0, high = v->tail_count;
    while (low < high) {                   /* the first entry behind it */
        uint32_t middle = low + (high - low) / 2;
        if (v->tail[middle].rows_before > rows) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return &v->tail[low - 1];
}

/* From `floor` on, history and time only grow from row to row. */
static void seek_in_tail(const struct lane_view *v, uint64_t floor, bool by_time, uint64_t least,
                         struct reader_row *out)
{
    if (v->tail_count == 0) return;
    const struct lane_entry *first = v->tail, *last = v->tail + v->tail_count - 1;
    uint64_t start = floor > first->delivery ? floor - first->delivery : 0;
    if (start >= v->tail_count) return;
    uint64_t low = first[start].rows_before - first->rows_before;
    uint64_t rows = last->rows_before - first->rows_before + (last->row ? 1 : 0), high = rows;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct lane_entry *e = row_in_tail(v, middle);
        if ((by_time ? e->time_ms : e->history) < least) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == rows) return;
    const struct lane_entry *e = row_in_tail(v, low);
    *out = (struct reader_row){true, e->delivery, e->history, e->time_ms};
}

int reader_row_seek(struct reader_source *s, uint64_t floor, bool by_time, uint64_t least,
                    struct reader_row *out)
{
    const struct lane_view *v = &s->view;
    uint64_t first = 0;

    *out = (struct reader_row){.found = false};
    if (v->known && v->head.delivery >= floor && v->head.last_row.delivery >= floor &&
        key_of(&v->head.last_row, by_time) >= least) {
        int status = seek_segment(s, floor, by_time, least, &first);
        if (status == STORE_READ_OK && first != 0) {
            status = seek_in_segment(s, first, floor, by_time, least, out);
        }
        if (status != STORE_READ_OK) return status;
    }
    if (!out->found) seek_in_tail(v, floor, by_time, least, out);
    return STORE_READ_OK;
}
