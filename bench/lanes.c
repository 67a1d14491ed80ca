#include "bench/lanes.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "core/mail_kinds.h"

enum { SHARD = 0, TRY_NS = 5000, FRAGMENT_BYTES_MAX = 16384 };
#define WAIT_NS_MAX 20000000000ull
static const struct slice app_id = {(const uint8_t *)"bench", 5};
static uint64_t           keep_ms_now;

static uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void policy_of(void *ctx, struct slice app, struct slice channel, struct store_policy *out)
{
    (void)ctx, (void)app, (void)channel;
    *out = (struct store_policy){.age_ms = keep_ms_now, .version_age_ms = UINT64_MAX};
}

static void post(struct lanes *l, uint16_t kind, void *payload)
{
    struct mailbox *box = l->office->boxes[SHARD][l->post];
    struct letter   letter = {.kind = kind, .from_shard = SHARD, .payload = payload};
    mail_post_sure(box, &letter);
    if (mail_flush(box) && mail_door_knock(&l->office->doors[l->post])) {
        reactor_post_ring(l->office, l->post);
    }
}

/* ---- answers ---- */

static bool take(struct lanes *l, struct letter *out)
{
    for (uint16_t from = 1; from < l->office->ends_count; from++) {
        struct mailbox *box = l->office->boxes[from][SHARD];
        if (box != NULL && mail_take(box, out, 1) == 1) return true;
    }
    return false;
}

static void batch_back(struct lanes *l, struct store_batch *b)
{
    if (b->result != OK) bench_die("a commit failed: %s", err_name(b->result));
    l->generation = b->generation_now;
    l->batch_busy[b - l->batches] = false;
    l->batches_out--;
    l->records_committed += b->records_count;
}

static void read_back(struct lanes *l, struct store_read *r)
{
    if (r->status != STORE_READ_OK) bench_die("a read failed with status %u", r->status);
    l->records_read += r->records_count;
    l->read_busy[r - l->reads] = false;
    l->reads_out--;
}

bool lanes_take(struct lanes *l, struct lanes_answer *out, uint64_t wait_ns)
{
    struct letter letter;
    uint64_t      start_ns = bench_now_ns();

    *out = (struct lanes_answer){0};
    while (!take(l, &letter)) {
        if (bench_now_ns() - start_ns >= wait_ns) return false;
        bench_sleep_ns(TRY_NS);
    }
    if (letter.kind == MAIL_COMMITTED) {
        out->batch = letter.payload;
        batch_back(l, out->batch);
    } else if (letter.kind == MAIL_READ_DONE) {
        out->read = letter.payload;
        read_back(l, out->read);
        store_read_free(out->read);
    } else {
        bench_die("a letter of kind %u", letter.kind);
    }
    return true;
}

static void drain(struct lanes *l)
{
    struct lanes_answer a;
    while (l->batches_out + l->reads_out > 0) {
        if (!lanes_take(l, &a, WAIT_NS_MAX)) bench_die("the lane does not answer");
    }
}

/* ---- questions ---- */

static struct store_batch *batch_free(struct lanes *l)
{
    for (uint32_t i = 0; i < LANES_BATCHES; i++) {
        if (l->batch_busy[i]) continue;
        struct store_batch *b = &l->batches[i];
        l->batch_busy[i] = true;
        l->batches_out++;
        b->shard = SHARD;
        b->lane = 0;
        b->generation = l->generation;
        b->records_count = b->bytes_count = 0;
        b->posted_ns = bench_now_ns();
        return b;
    }
    return NULL;
}

static void put(struct store_batch *b, const struct record *r)
{
    uint32_t bytes = record_bytes(r);
    if (b->bytes_count + bytes > b->bytes_room) {
        b->bytes_room = 2 * b->bytes_room + bytes;
        b->bytes = realloc(b->bytes, b->bytes_room);
        if (b->bytes == NULL) bench_die("out of memory");
    }
    b->bytes_count += record_write(r, b->bytes + b->bytes_count);
    b->records_count++;
}

static void put_create(struct lanes_channel *c, struct store_batch *b, struct slice data)
{
    struct record r = {.kind = RECORD_CREATE, .flags = RECORD_WHOLE, .chan = c->chan, .data = data,
                       .delivery = ++c->delivery, .time_ms = wall_ms(),
                       .name = {(const uint8_t *)"\"talk\"", 6}};
    r.history = r.message = r.context = r.delivery;
    r.message_ms = r.time_ms;
    put(b, &r);
}

static void put_append(struct lanes_channel *c, struct store_batch *b, struct slice data)
{
    struct record r = {.kind = RECORD_APPEND, .chan = c->chan, .delivery = ++c->delivery,
                       .history = 1, .message = 1, .context = 1, .time_ms = wall_ms(),
                       .message_ms = c->create_ms, .data = data};
    put(b, &r);
}

bool lanes_append(struct lanes *l, uint32_t records, uint32_t fragment_bytes, bool creates)
{
    static uint8_t      text[FRAGMENT_BYTES_MAX];
    struct store_batch *b = batch_free(l);
    if (b == NULL) return false;
    if (fragment_bytes + 2 > sizeof text) bench_die("fragments of at most %zu", sizeof text - 2);

    memset(text, 'w', fragment_bytes + 2);
    text[0] = text[fragment_bytes + 1] = '"';
    for (uint32_t i = 0; i < records; i++) {
        struct lanes_channel *c = &l->channels[l->next_channel];
        l->next_channel = (l->next_channel + 1) % l->channels_count;
        if (creates) put_create(c, b, (struct slice){text, fragment_bytes + 2});
        else put_append(c, b, (struct slice){text, fragment_bytes + 2});
    }
    post(l, MAIL_COMMIT, b);
    return true;
}

static struct store_read *read_free(struct lanes *l, uint8_t kind, const struct lanes_channel *c)
{
    for (uint32_t i = 0; i < LANES_READS; i++) {
        if (l->read_busy[i]) continue;
        l->read_busy[i] = true;
        l->reads_out++;
        l->reads[i] = (struct store_read){.kind = kind, .shard = SHARD, .app_id = app_id,
            .channel = {(const uint8_t *)c->name, (uint32_t)strlen(c->name)}, .chan = c->chan,
            .now_ms = wall_ms(), .rows_upto = UINT64_MAX, .time_upto_ms = UINT64_MAX};
        return &l->reads[i];
    }
    return NULL;
}

bool lanes_read(struct lanes *l, uint32_t channel, uint32_t rows)
{
    struct lanes_channel *c = &l->channels[channel];
    struct store_read    *r = read_free(l, STORE_ROWS, c);
    if (r == NULL) return false;
    r->upto = c->delivery;
    r->limit = rows;
    post(l, MAIL_READ, r);
    return true;
}

/* ---- life ---- */

/* Asks for the channel's number, then names it and creates its message. */
static void open_channels(struct lanes *l)
{
    char                 app_and_name[LANES_NAME_BYTES + 8];
    struct lanes_answer  a;
    static const uint8_t empty[] = {'"', '"'};

    for (uint32_t i = 0; i < l->channels_count; i++) {
        struct lanes_channel *c = &l->channels[i];
        snprintf(c->name, sizeof c->name, "talk-%u", i);
        struct store_read *r = read_free(l, STORE_OPEN, c);
        if (r == NULL) bench_die("reads are missing");
        post(l, MAIL_READ, r);
        if (!lanes_take(l, &a, WAIT_NS_MAX) || a.read == NULL) bench_die("the lane does not open");
        c->chan = a.read->head.chan;
    }
    struct store_batch *b = batch_free(l);
    for (uint32_t i = 0; i < l->channels_count; i++) {
        struct lanes_channel *c = &l->channels[i];
        int n = snprintf(app_and_name, sizeof app_and_name, "bench%c%s", 0, c->name);
        struct record named = {.kind = RECORD_CHANNEL, .chan = c->chan, .time_ms = wall_ms(),
                               .data = {(const uint8_t *)app_and_name, (uint32_t)n}};
        put(b, &named);
        c->create_ms = named.time_ms;
        put_create(c, b, (struct slice){empty, sizeof empty});
    }
    post(l, MAIL_COMMIT, b);
    drain(l);
}

void lanes_open(struct lanes *l, uint32_t channels, uint64_t keep_ms, uint32_t purge_interval_ms)
{
    char error[512];
    *l = (struct lanes){.dir = "/tmp/weft-bench-XXXXXX", .channels_count = channels,
                        .keep_ms = keep_ms};
    keep_ms_now = keep_ms;
    if (mkdtemp(l->dir) == NULL) bench_die("cannot make a directory under /tmp");
    l->channels = bench_calloc(channels, sizeof *l->channels);
    l->office = bench_calloc(1, sizeof *l->office);
    if (reactor_office_open(l->office, 1) != OK) bench_die("no mailboxes");
    struct store_conf conf = {.dir = l->dir, .lanes = 1, .shards_count = 1, .office = l->office,
                              .purge_interval_ms = purge_interval_ms, .policy = policy_of,
                              .wall_ms = wall_ms, .threads = true};
    if (store_open(&l->store, &conf, error, sizeof error) != OK) bench_die("%s", error);
    l->post = store_post(l->store, 0);
    open_channels(l);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st, (void)kind, (void)walk;
    return remove(path);
}

void lanes_close(struct lanes *l)
{
    drain(l);
    store_close(&l->store);
    reactor_office_close(l->office);
    for (uint32_t i = 0; i < LANES_BATCHES; i++) free(l->batches[i].bytes);
    free(l->office);
    free(l->channels);
    nftw(l->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
