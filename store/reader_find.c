#include <stdlib.h>

#include "core/clock.h"
#include "store/reader.h"

void reader_source_close(struct reader_source *s)
{
    free(s->mutations);
    *s = (struct reader_source){.steps = 0};
}

bool reader_over(const struct reader_source *s)
{
    return s->steps > 0 && (s->touched >= LANE_SNAPSHOT_BYTES_MAX ||
                            clock_mono_ns() - s->began_ns >= LANE_SNAPSHOT_NS_MAX);
}

/* ---- one record ---- */

int reader_segment_load(struct reader_source *s, uint64_t delivery, uint32_t which)
{
    struct reader_segment *g = &s->segments[which];
    struct slice value;
    err_t e = OK;

    if (g->loaded && g->seg.first <= delivery && delivery <= g->seg.last) return STORE_READ_OK;
    g->loaded = false;
    if (!lane_segment_at(&s->view, delivery, &value, &e)) {
        return e == OK ? STORE_READ_NOT_FOUND : STORE_READ_IO;
    }
    if (!format_segment_read(value, &g->seg, &g->records, &g->rows)) return STORE_READ_IO;
    if (g->seg.chan != s->view.chan || g->seg.first > g->seg.last) return STORE_READ_IO;
    if (g->seg.first > delivery) return STORE_READ_NOT_FOUND;
    if (delivery > g->seg.last) return STORE_READ_IO;
    s->touched += sizeof g->seg + g->rows.bytes;
    g->loaded = true;
    g->next = g->seg.first;
    g->next_offset = 0;
    return STORE_READ_OK;
}

/* Most records that are looked for out of order are creates: their places are listed. */
static void start_at_row(struct reader_segment *g, uint64_t delivery)
{
    uint32_t low = 0, high = g->seg.rows_count;
    while (low < high) {                       /* first row behind `delivery` */
        uint32_t middle = low + (high - low) / 2;
        if (format_row_at(g->rows, middle).delivery <= delivery) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool back = delivery < g->next;
    if (back) {
        g->next = g->seg.first;
        g->next_offset = 0;
    }
    if (low == 0) return;
    struct format_row row = format_row_at(g->rows, low - 1);
    if (row.delivery <= g->next) return;       /* what was reached already is nearer */
    g->next = row.delivery;
    g->next_offset = row.offset;
}

static int find_in_segment(struct reader_source *s, uint64_t delivery, uint32_t which,
                           struct reader_found *out)
{
    struct reader_segment *g = &s->segments[which];
    int status = reader_segment_load(s, delivery, which);
    uint32_t bytes;

    if (status != STORE_READ_OK) return status;
    if (delivery != g->next) start_at_row(g, delivery);
    for (;;) {
        if (g->next_offset > g->records.bytes) return STORE_READ_IO;
        struct slice rest = slice_skip(g->records, g->next_offset);
        bool there = g->next == delivery;
        enum record_result result =
            there ? record_read(rest, &out->r, &bytes) : record_peek(rest, &out->r, &bytes);
        if (result != RECORD_OK || out->r.delivery != g->next) {
            g->loaded = false;
            return STORE_READ_IO;
        }
        s->touched += bytes;
        g->next++;
        g->next_offset += bytes;
        if (!there) continue;
        out->packed = slice_of(rest.ptr, bytes);
        return out->r.chan == s->view.chan ? STORE_READ_OK : STORE_READ_IO;
    }
}

int reader_find(struct reader_source *s, uint64_t delivery, uint32_t which,
                struct reader_found *out)
{
    const struct lane_view *v = &s->view;
    if (v->tail_count == 0 || delivery < v->tail[0].delivery) {
        if (!v->known || delivery > v->head.delivery) return STORE_READ_NOT_FOUND;
        return find_in_segment(s, delivery, which, out);
    }
    uint64_t index = delivery - v->tail[0].delivery;
    if (index >= v->tail_count) return STORE_READ_NOT_FOUND;
    ASSERT(v->tail[index].delivery == delivery);
    if (!lane_entry_read(v->txn, v->dbis, &v->tail[index], &out->packed, &out->r)) {
        return STORE_READ_IO;
    }
    s->touched += out->packed.bytes;
    return STORE_READ_OK;
}

/* ---- a view of the past ---- */

/* The head as it was when `upto` was the channel's newest record, inside a segment. */
static int cut_head(struct reader_source *s, uint64_t upto)
{
    struct format_head *head = &s->view.head;
    struct reader_found found;

    int status = reader_find(s, upto, READER_MAIN, &found);
    if (status == STORE_READ_NOT_FOUND) {      /* retention went past it: nothing is left to see */
        head->floor = u64_max(head->floor, upto + 1);
        head->last_row = (struct format_row){.delivery = 0};
        head->delivery = upto;
        return STORE_READ_OK;
    }
    if (status != STORE_READ_OK) return status;

    const struct reader_segment *g = &s->segments[READER_MAIN];
    struct format_row row = {.delivery = 0};
    head->rows = g->seg.rows_before;
    head->row_bytes = g->seg.row_bytes_before;
    for (uint32_t i = 0; i < g->seg.rows_count; i++) {
        struct format_row next = format_row_at(g->rows, i);
        if (next.delivery > upto) break;
        row = next;
        head->rows++;
        head->row_bytes += next.bytes;
    }
    if (row.delivery == 0 && g->seg.first > head->floor) {
        status = reader_segment_load(s, g->seg.first - 1, READER_ASIDE);
        if (status == STORE_READ_IO) return status;
        if (status == STORE_READ_OK) row = s->segments[READER_ASIDE].seg.last_row;
    }
    head->last_row = row;
    head->delivery = upto;
    head->time_ms = found.r.time_ms;
    return STORE_READ_OK;
}

int reader_cut(struct reader_source *s, uint64_t upto)
{
    struct lane_view *v = &s->view;
    uint64_t newest = lane_view_delivery(v);

    if (upto > newest) return STORE_READ_IO;
    if (upto == newest) return STORE_READ_OK;
    if (v->tail_count > 0 && upto >= v->tail[0].delivery) {
        v->tail_count = (uint32_t)(upto - v->tail[0].delivery) + 1;
        return STORE_READ_OK;
    }
    v->tail_count = 0;
    return v->head.delivery == upto ? STORE_READ_OK : cut_head(s, upto);
}
