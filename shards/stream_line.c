/* Who reads from the lanes next, and what is held of it.
 *
 * The apps take turns, and one of them has only a part of every bound: clients that ask for many
 * large pages hold up those of their own app, not the others. Within an app it is first come, first
 * served.
 *
 *   reads  so many are under way, of one app and of all
 *   turns  attaches, and pages for sockets: counted in bytes while they read, and until the socket
 *          has taken what was read */
#include "shards/stream_parts.h"

err_t stream_line_open(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    b->apps_count = u32_max(sh->conf->apps_count, 1);
    b->apps = heap_zalloc(sh->heap, b->apps_count * (uint32_t)sizeof(*b->apps));
    b->blobs_max = ((uint64_t)sh->conf->shard_memory_mb << 20) / STREAM_BLOBS_PART;
    return b->apps == NULL ? ERR_MEMORY : OK;
}

static struct stream_app *app_at(struct stream_book *b, uint32_t *turn)
{
    struct stream_app *a = &b->apps[*turn];
    *turn = (*turn + 1) % b->apps_count;
    return a;
}

/* ---- reads ---- */

static bool may_read(const struct stream_book *b, const struct stream_app *a)
{
    uint32_t part = b->apps_count == 1 ? STREAM_READS_MAX : STREAM_READS_APP_MAX;
    return b->reads_out < STREAM_READS_MAX && a->reads_out < part;
}

static void read_go(struct shard *sh, struct stream_app *a, struct stream_read *q)
{
    sh->streams->reads_out++;
    a->reads_out++;
    stream_read_post_now(sh, &q->r);
}

/* Answers are as large as a page: so many may be on their way. Loading a channel is not held up. */
void stream_read_post(struct shard *sh, struct stream *st, struct store_read *r)
{
    struct stream_book *b = sh->streams;
    struct stream_read *q = CONTAINER_OF(r, struct stream_read, r);
    q->counted = r->kind != STORE_OPEN && r->kind != STORE_ACTIVE;
    if (!q->counted) {
        stream_read_post_now(sh, r);
        return;
    }
    struct stream_app *a = &b->apps[st->home->app];
    if (a->reads_first == NULL && may_read(b, a)) {
        read_go(sh, a, q);
        return;
    }
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_COLD_READS, 1);
    q->next = NULL;
    if (a->reads_first == NULL) a->reads_first = q;
    else a->reads_last->next = q;
    a->reads_last = q;
    b->reads_waiting++;
}

void stream_read_is_back(struct shard *sh, const struct stream_read *back)
{
    struct stream_book *b = sh->streams;
    if (!back->counted) return;
    b->reads_out--;
    b->apps[back->st->home->app].reads_out--;
    for (uint32_t i = 0; b->reads_waiting > 0 && i < b->apps_count; i++) {
        struct stream_app *a = app_at(b, &b->reads_turn);
        struct stream_read *q = a->reads_first;
        if (q == NULL || !may_read(b, a)) continue;
        a->reads_first = q->next;
        b->reads_waiting--;
        read_go(sh, a, q);
        return;                          /* the place of the one that is back */
    }
}

/* ---- turns ---- */

/* An app's part: room for two even where there is little, and all of it where there is no other. */
static uint64_t part_of(const struct stream_book *b, uint64_t all, uint64_t more)
{
    return b->apps_count == 1 ? all : u64_max(all / STREAM_APP_PART, 2 * more + 1);
}

/* Room for one more: of what is not sent yet (what is being read comes to it) and, when it reads,
 * of what is read. Who has nothing has room, however little there is. */
static bool has_room(const struct stream_book *b, const struct stream_app *a, uint64_t more)
{
    uint64_t cold_max = STREAM_COLD_BYTES_MAX;
    uint64_t all = b->blobs_bytes + b->cold_bytes, mine = a->blobs_bytes + a->cold_bytes;
    if (all > 0 && all + more >= b->blobs_max) return false;
    if (mine > 0 && mine + more >= part_of(b, b->blobs_max, more)) return false;
    if (more == 0) return true;
    if (b->cold_bytes > 0 && b->cold_bytes + more > cold_max) return false;
    return a->cold_bytes == 0 || a->cold_bytes + more <= part_of(b, cold_max, more);
}

static void take(struct stream_book *b, struct stream_turn *t)
{
    t->admitted = true;
    t->share = t->wanted;
    b->cold_bytes += t->share;
    b->apps[t->app].cold_bytes += t->share;
}

bool stream_turn_now(struct shard *sh, struct stream_turn *t, uint64_t share)
{
    struct stream_book *b = sh->streams;
    const struct stream_app *a = &b->apps[t->app];
    if (t->admitted && (share == 0 || t->share > 0)) return true;
    t->wanted = share;
    bool first = b->line_count == 0 || a->blobs_bytes + a->cold_bytes == 0;
    if (a->turns_first != NULL || !first || !has_room(b, a, share)) return false;
    take(b, t);
    return true;
}

bool stream_turn_wait(struct shard *sh, struct stream_turn *t)
{
    struct stream_book *b = sh->streams;
    struct stream_app *a = &b->apps[t->app];
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_COLD_READS, 1);
    if (b->line_count == STREAM_LINE_MAX) return false;
    if (a->turns_count >= part_of(b, STREAM_LINE_MAX, 0)) return false;
    t->late_ms = sh->re.now_ms + STREAM_LINE_MS;
    t->next = NULL;
    if (a->turns_first == NULL) a->turns_first = t;
    else a->turns_last->next = t;
    a->turns_last = t;
    a->turns_count++;
    b->line_count++;
    return true;
}

void stream_turn_end(struct shard *sh, struct stream_turn *t)
{
    struct stream_book *b = sh->streams;
    b->cold_bytes -= t->share;
    if (t->share > 0) b->apps[t->app].cold_bytes -= t->share;
    t->share = 0;
}

/* The first of an app that may go, or has waited too long. False: none. */
static bool run_one(struct shard *sh, struct stream_app *a)
{
    struct stream_book *b = sh->streams;
    struct stream_turn *t = a->turns_first;
    bool late = t != NULL && sh->re.now_ms >= t->late_ms;
    if (t == NULL || (!late && !has_room(b, a, t->wanted))) return false;
    a->turns_first = t->next;
    a->turns_count--;
    b->line_count--;
    if (!late) take(b, t);
    t->go(sh, t, late);
    return true;
}

void stream_line_run(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    uint32_t idle = 0;
    while (b->line_count > 0 && idle < b->apps_count) {
        idle = run_one(sh, app_at(b, &b->line_turn)) ? 0 : idle + 1;
    }
}

/* ---- pages for sockets ---- */

static void page_refused(struct shard *sh, struct stream_read *q)
{
    struct stream *st = q->st;
    q->r.status = STORE_READ_MEMORY;
    st->reads++;                         /* holds the stream */
    q->done(sh, st, &q->r, q->ctx);
    st->reads--;
    stream_rest(sh, st);
}

static void page_go(struct shard *sh, struct stream_turn *t, bool late)
{
    struct stream_read *q = CONTAINER_OF(t, struct stream_read, turn);
    if (late) page_refused(sh, q);
    else stream_read_post_now(sh, &q->r);
}

void stream_read_post_page(struct shard *sh, struct stream *st, struct store_read *r)
{
    struct stream_read *q = CONTAINER_OF(r, struct stream_read, r);
    q->turn.app = st->home->app;
    q->turn.go = page_go;
    if (stream_turn_now(sh, &q->turn, STORE_READ_BYTES_MAX)) stream_read_post_now(sh, r);
    else if (!stream_turn_wait(sh, &q->turn)) page_refused(sh, q);
}

/* ---- what is not sent yet ---- */

void stream_blob_count(struct shard *sh, struct frame *f, uint32_t app)
{
    f->blob = true;
    f->app = (uint16_t)app;
    sh->streams->blobs_bytes += f->bytes_room;
    sh->streams->apps[app].blobs_bytes += f->bytes_room;
}

void stream_blob_freed(struct shard *sh, const struct frame *f)
{
    struct stream_book *b = sh->streams;
    if (b == NULL) return;               /* the shard has closed */
    ASSERT(b->blobs_bytes >= f->bytes_room && b->apps[f->app].blobs_bytes >= f->bytes_room);
    b->blobs_bytes -= f->bytes_room;
    b->apps[f->app].blobs_bytes -= f->bytes_room;
}

bool stream_blobs_have_room(const struct shard *sh, uint32_t app)
{
    return has_room(sh->streams, &sh->streams->apps[app], 0);
}
