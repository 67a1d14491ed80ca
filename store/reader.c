#include "store/reader.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/mail_kinds.h"

struct reader {
    struct lane *lane;
    uint16_t     sender;                 /* whose box is next (reactor_post_take) */
};

err_t reader_open(struct reader **out, struct lane *l)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) return ERR_MEMORY;
    (*out)->lane = l;
    return OK;
}

void reader_close(struct reader **r)
{
    free(*r);
    *r = NULL;
}

void reader_work_free(void *work)
{
    struct reader_work *w = work;
    if (w == NULL) return;
    fold_free(&w->fold);
    free(w->out);
    free(w->contexts.slots);
    free(w->ops);
    free(w->receipts);
    free(w);
}

void store_read_free(struct store_read *r)
{
    free(r->bytes);
    free(r->receipts);
    free(r->ops);
    r->bytes = NULL;
    r->receipts = NULL;
    r->ops = NULL;
    r->bytes_count = r->records_count = r->receipts_count = r->ops_count = 0;
}

/* ---- the answer's bytes ---- */

static int out_room(struct reader_work *w, uint64_t bytes)
{
    enum { START = 4096 };
    if (w->out_bytes + bytes > UINT32_MAX) return STORE_READ_LARGE;
    if (w->out_bytes + bytes <= w->out_room) return STORE_READ_OK;
    uint64_t room = u64_max(u64_max(START, 2 * w->out_room), w->out_bytes + bytes);
    uint8_t *out = realloc(w->out, room);
    if (out == NULL) return STORE_READ_MEMORY;
    w->out = out;
    w->out_room = room;
    return STORE_READ_OK;
}

int reader_put(struct reader_work *w, struct slice packed)
{
    int status = out_room(w, packed.bytes);
    if (status != STORE_READ_OK) return status;
    memcpy(w->out + w->out_bytes, packed.ptr, packed.bytes);
    w->out_bytes += packed.bytes;
    w->records++;
    return STORE_READ_OK;
}

int reader_put_record(struct reader_work *w, const struct record *r)
{
    uint32_t bytes = record_bytes(r);
    int status = out_room(w, bytes);
    if (status != STORE_READ_OK) return status;
    w->out_bytes += record_write(r, w->out + w->out_bytes);
    w->records++;
    return STORE_READ_OK;
}

static uint32_t set_slot(const struct reader_set *set, uint64_t delivery)
{
    uint32_t i = (uint32_t)(delivery * 0x9e3779b97f4a7c15 >> 32) & (set->room - 1);
    while (set->slots[i] != 0 && set->slots[i] != delivery) i = (i + 1) & (set->room - 1);
    return i;
}

bool reader_set_has(const struct reader_set *set, uint64_t delivery)
{
    return set->room > 0 && set->slots[set_slot(set, delivery)] == delivery;
}

int reader_set_add(struct reader_set *set, uint64_t delivery)
{
    enum { START = 64 };
    if (2 * (set->count + 1) > set->room) {
        struct reader_set grown = {.room = set->room == 0 ? START : 2 * set->room};
        grown.slots = calloc(grown.room, sizeof *grown.slots);
        if (grown.slots == NULL) return STORE_READ_MEMORY;
        for (uint32_t i = 0; i < set->room; i++) {
            if (set->slots[i] != 0) grown.slots[set_slot(&grown, set->slots[i])] = set->slots[i];
        }
        grown.count = set->count;
        free(set->slots);
        *set = grown;
    }
    uint32_t slot = set_slot(set, delivery);
    if (set->slots[slot] == 0) set->count++;
    set->slots[slot] = delivery;
    return STORE_READ_OK;
}

int reader_put_context(struct reader_source *s, struct reader_work *w, const struct record *append)
{
    struct reader_found f;
    if (reader_set_has(&w->contexts, append->context)) return STORE_READ_OK;
    int status = reader_find(s, append->context, READER_ASIDE, &f);
    if (status != STORE_READ_OK) return status;
    if (reader_needs_context(&f.r) || reader_message_of(&f.r) != append->message) {
        return STORE_READ_IO;
    }
    f.r.flags |= RECORD_CONTEXT;
    status = reader_set_add(&w->contexts, append->context);
    return status == STORE_READ_OK ? reader_put_record(w, &f.r) : status;
}

/* ---- one snapshot of one read ---- */

static int step_channel(struct lane *l, struct snapshot *snap, struct reader_source *s,
                        struct reader_work *w)
{
    struct store_read *r = snap->read;
    struct store_policy policy = {.age_ms = 0};
    err_t e = lane_view_open(&s->view, snap->txn, l->dbis, snap->chan, snap->tail,
                             snap->tail_count);
    if (e != OK) return e == ERR_MEMORY ? STORE_READ_MEMORY : STORE_READ_IO;
    if (r->kind == STORE_OPEN) return reader_open_channel(s, snap, w, l->conf);

    int status = reader_cut(s, r->upto);
    if (status != STORE_READ_OK) return status;
    if (l->conf->policy != NULL) {
        l->conf->policy(l->conf->policy_ctx, r->app_id, r->channel, &policy);
    }
    switch ((enum store_read_kind)r->kind) {
    case STORE_RANGE: return reader_range(s, r, w, &policy);
    case STORE_MESSAGE: return reader_message(s, r, w, &policy);
    case STORE_VERSIONS: return reader_versions(s, r, w, &policy);
    case STORE_ROWS: return reader_rows(s, r, w, &policy);
    case STORE_OPEN:
    case STORE_ACTIVE: break;
    }
    ASSERT(false);
    return STORE_READ_IO;
}

static int step(struct lane *l, struct snapshot *snap, struct reader_work *w)
{
    struct reader_source s = {.began_ns = clock_mono_ns()};
    int status;
    if (snap->read->kind == STORE_ACTIVE) {
        s.view = (struct lane_view){.txn = snap->txn, .dbis = l->dbis};
        status = reader_active(&s, snap->read, w);
    } else {
        status = step_channel(l, snap, &s, w);
    }
    reader_source_close(&s);
    return status;
}

static void answer(struct store_read *r, struct reader_work *w, int status)
{
    r->status = (uint8_t)status;
    r->bytes = NULL;
    r->receipts = NULL;
    r->ops = NULL;
    r->bytes_count = r->records_count = r->receipts_count = r->ops_count = 0;
    bool opened = r->kind == STORE_OPEN && status == STORE_READ_IO && w != NULL;
    if (status == STORE_READ_OK || opened) {
        r->receipts = w->receipts;
        r->receipts_count = w->receipts_count;
        w->receipts = NULL;
    }
    if (status != STORE_READ_OK) {
        r->more = false;
        return;
    }
    r->bytes = w->out;
    r->bytes_count = (uint32_t)w->out_bytes;
    r->records_count = w->records;
    r->ops = w->ops;
    r->ops_count = w->ops_count;
    w->out = NULL;
    w->ops = NULL;
}

static void post(struct lane *l, uint16_t to, uint16_t kind, void *payload, uint64_t arg)
{
    struct letter letter = {.kind = kind, .from_shard = l->reader_post,
                            .posted_ns = clock_mono_ns(), .payload = payload, .arg = {arg}};
    mail_post_sure(l->conf->office->boxes[l->reader_post][to], &letter);
}

static void serve(struct lane *l, struct snapshot *snap)
{
    uint64_t began_ns = clock_mono_ns();
    struct store_read *r = snap->read;
    int status = STORE_READ_MEMORY;

    if (snap->work == NULL) {
        snap->work = calloc(1, sizeof(struct reader_work));
        r->more = false;
    }
    if (snap->work != NULL) status = step(l, snap, snap->work);
    mdb_txn_reset(snap->txn);
    if (status != READER_AGAIN) {
        answer(r, snap->work, status);
        reader_work_free(snap->work);
        snap->work = NULL;
        lane_stat_add(&l->stats.reads, 1);
    }
    lane_stat_add(&l->stats.read_ns, clock_mono_ns() - began_ns);
    post(l, l->post, MAIL_SNAPSHOT_BACK, snap, status == READER_AGAIN);
    if (status != READER_AGAIN) post(l, r->shard, MAIL_READ_DONE, r, 0);
}

bool reader_round(struct reader *r)
{
    struct letter letters[LANE_SNAPSHOTS_MAX];
    struct lane *l = r->lane;
    uint32_t count = reactor_post_take(l->conf->office, l->reader_post, &r->sender, letters,
                                       LANE_SNAPSHOTS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        ASSERT(letters[i].kind == MAIL_SNAPSHOT);
        serve(l, letters[i].payload);
    }
    return count > 0;
}
