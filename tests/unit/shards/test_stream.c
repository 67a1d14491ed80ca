/* Goal    Frames of appends are what a client expects, and blobs hold frames without copying them.
 *         Streams that are at rest come and go with their ids, and never with a home in use.
 *         Records that wait for a load are sequenced in the order in which they came. What was
 *         refused may be said again. A failed commit takes back what was in flight and nothing that
 *         is written because of it.
 * Method  The pure parts of stream_parts.h on a heap, without a shard's thread; homes and streams
 *         without history on a shard that has no ring; batches on a lane that the test answers for.
 */
#include "shards/stream_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static bool starts(const char *text, const char *start)
{
    return stream_frame_starts(slice_str(text), slice_str(start));
}

static void texts_are_compared_as_they_read(void **state)
{
    (void)state;
    assert_true(starts("abc", "abc"));
    assert_true(starts("abcd", "abc"));
    assert_false(starts("ab", "abc"));
    assert_false(starts("abx", "abc"));
    assert_true(starts("", ""));
    assert_true(starts("\\u0041bc", "Ab"));
    assert_true(starts("A\\/b", "A/b"));
    assert_true(starts("\\n\\t\\\"", "\\u000a\\u0009\\u0022"));
    assert_true(starts("\xc3\xa9t\xc3\xa9", "\\u00e9t"));
    assert_true(starts("\\u20AC1", "\xe2\x82\xac"));
    assert_true(starts("\\ud83d\\ude00!", "\xf0\x9f\x98\x80"));
    assert_false(starts("\\ud83d\\ude00", "\xf0\x9f\x98\x81"));
    assert_false(starts("\\u0041", "\\u0042"));
    assert_false(starts("\\\\", "\\\""));
}

static struct slice payload_of(const uint8_t *frame, uint32_t bytes)
{
    return pusher_payload(slice_of(frame, bytes));
}

/* Whatever the lengths, the spliced frame is the one that would have been written at once. */
static void a_spliced_frame_is_the_one_with_the_whole_text(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {1, 80, 125, 126, 65000, 70000};
    for (uint32_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint32_t whole_bytes = lengths[i] + 2;
        uint8_t *whole = malloc(whole_bytes);
        memset(whole, 'x', whole_bytes);
        whole[0] = whole[whole_bytes - 1] = '"';
        struct v2_out o = {
            .event_json = slice_str("\"sockudo:message.append\""), .channel = slice_str("a\"b"),
            .data_json = slice_str("\"frag\\n\""), .name_json = slice_str("\"n\""),
            .stream_id = slice_str("s"), .serial = 7,
        };
        uint8_t *delta = malloc(v2_event_bytes(&o));
        struct slice payload = payload_of(delta, v2_event_write(&o, delta));
        const uint8_t *at = memmem(payload.ptr, payload.bytes, "\"frag", 5);
        uint32_t fragment_bytes = o.data_json.bytes;
        uint8_t *spliced = malloc(stream_frame_splice_bytes(payload, fragment_bytes,
                                                            slice_of(whole, whole_bytes)));
        uint32_t bytes = stream_frame_splice(payload, (uint32_t)(at - payload.ptr),
                                             fragment_bytes, slice_of(whole, whole_bytes),
                                             spliced);
        o.data_json = slice_of(whole, whole_bytes);
        uint8_t *want = malloc(v2_event_bytes(&o));
        assert_int_equal(bytes, v2_event_write(&o, want));
        assert_memory_equal(spliced, want, bytes);
        free(want);
        free(spliced);
        free(delta);
        free(whole);
    }
}

/* A ring keeps what V2 sockets get for minutes: not what V1 sockets and those in full mode got. */
static void what_v2_sockets_get_outlives_the_rest_of_its_family(void **state)
{
    (void)state;
    enum { BIG = 1 << 20 };
    struct shard sh = {.id = 3};
    assert_int_equal(heap_open(&sh.heap, 64 << 20), OK);
    for (int full = 0; full < 2; full++) {
        struct frame *f = frame_make(&sh, full ? 8 : BIG);
        struct frame *other = frame_sibling(&sh, f, full ? BIG : 8);
        struct frame *v2 = full ? f : other;
        memcpy(frame_room(v2), "12345678", 8);
        v2->bytes_count = 8;
        if (full) f->full = other;
        else f->v2 = other;
        struct frame *kept = frame_keep_v2(&sh, f);
        assert_non_null(kept);
        struct frame *queued = frame_ref(other), *lent = frame_lend(f);
        frame_put(&sh, &f);
        frame_put(&sh, &queued);
        assert_true(heap_used_bytes(sh.heap) >= BIG);
        frame_put(&sh, &lent);
        assert_true(heap_used_bytes(sh.heap) < 4096);
        assert_int_equal(kept->bytes_count, 8);
        assert_memory_equal(kept->bytes, "12345678", 8);
        frame_put(&sh, &kept);
        assert_int_equal(heap_used_bytes(sh.heap), 0);
    }
    heap_close(&sh.heap);
}

static void a_blob_becomes_a_frame_and_gives_everything_back(void **state)
{
    (void)state;
    struct shard sh = {.id = 3};
    assert_int_equal(heap_open(&sh.heap, 64 << 20), OK);
    struct blob b = {.heap = sh.heap};
    uint8_t piece[1000];
    for (uint32_t i = 0; i < 300; i++) {
        memset(piece, (int)(i & 0xff), sizeof(piece));
        stream_blob_put(&b, piece, i);
    }
    struct frame *f = stream_blob_frame(&sh, &b);
    assert_non_null(f);
    assert_int_equal(f->bytes_count, 299 * 300 / 2);
    for (uint32_t i = 0, at = 0; i < 300; at += i, i++) {
        for (uint32_t k = 0; k < i; k++) assert_int_equal(f->bytes[at + k], i & 0xff);
    }
    frame_put(&sh, &f);
    assert_int_equal(heap_used_objects(sh.heap), 0);
    f = stream_blob_frame(&sh, &b);      /* nothing was put: an empty one */
    assert_int_equal(f->bytes_count, 0);
    frame_put(&sh, &f);
    heap_close(&sh.heap);
}

static void a_blob_at_the_heaps_bound_fails_as_a_whole(void **state)
{
    (void)state;
    struct shard sh = {0};
    uint8_t piece[4096] = {0};
    assert_int_equal(heap_open(&sh.heap, 2 << 20), OK);
    struct blob b = {.heap = sh.heap};
    for (uint32_t i = 0; i < 1024; i++) stream_blob_put(&b, piece, sizeof(piece));
    assert_true(b.failed);
    assert_null(stream_blob_frame(&sh, &b));
    assert_int_equal(heap_used_objects(sh.heap), 0);
    heap_close(&sh.heap);
}

/* ---- streams without history ---- */

struct fixture {
    struct conf_app     app;
    struct conf         conf;
    struct server       server;
    struct shard        sh;
    struct metric_table table;
    struct metrics      metrics;
    struct slice        app_id;
};

static struct fixture *fixture_open(void)
{
    static const char *const ids[] = {"app"};
    static const struct metric_table_conf table_conf = {ids, 1, "sockudo_", "9601"};
    struct fixture *f = calloc(1, sizeof(*f));
    f->app.id = (char *)(uintptr_t)ids[0];
    f->app.policy_any = true;
    f->app.policy = (struct conf_policy){.recovery = true, .recovery_max = 10,
                                         .recovery_ttl_ms = 1000};
    f->conf = (struct conf){.apps = &f->app, .apps_count = 1};
    f->app_id = slice_str(ids[0]);
    f->server = (struct server){.conf = &f->conf, .shards_count = 1, .app_ids = &f->app_id};
    f->sh = (struct shard){.server = &f->server, .conf = &f->conf, .metrics = &f->metrics};
    rng_seed(&f->sh.re.rng, 5);
    timer_wheel_open(&f->sh.re.wheel, 0);
    assert_int_equal(metric_table_open(&f->table, series_table, METRIC_COUNT, &table_conf), OK);
    assert_int_equal(metric_open(&f->metrics, &f->table, 0), OK);
    assert_int_equal(heap_open(&f->sh.heap, 64 << 20), OK);
    assert_int_equal(table_open(&f->sh.homes, 64), OK);
    f->sh.homes_of_app = calloc(1, sizeof(struct home *));
    assert_int_equal(stream_open_all(&f->sh), OK);
    return f;
}

static void fixture_close(struct fixture *f)
{
    stream_close_all(&f->sh);
    table_close(&f->sh.homes);
    free(f->sh.homes_of_app);
    heap_close(&f->sh.heap);
    metric_close(&f->metrics);
    metric_table_close(&f->table);
    free(f);
}

static struct home *home_of(struct fixture *f, const char *name)
{
    struct home *h = home_make(&f->sh, 0, slice_str(name), PUSHER_PRESENCE, false);
    assert_non_null(h);
    return h;
}

/* At the bound the hand may take the only stream of the very home that wants another one. */
static void room_for_a_stream_costs_no_home_its_life(void **state)
{
    (void)state;
    struct fixture *f = fixture_open();
    f->sh.streams->streams_idle_max = 0;
    struct home *h = home_of(f, "presence-c");
    struct stream *first = stream_of(&f->sh, h, STREAM_PRESENCE);
    assert_non_null(first);
    struct stream *st = stream_of(&f->sh, h, STREAM_MAIN);
    assert_non_null(st);
    assert_ptr_equal(h->extra->streams[STREAM_PRESENCE], first);   /* it has just been used */
    stream_forget_idle(&f->sh);
    first = stream_of(&f->sh, home_of(f, "presence-c"), STREAM_PRESENCE);
    h = first->home;
    first->used = false;                 /* the hand has passed */
    st = stream_of(&f->sh, h, STREAM_MAIN);
    assert_non_null(st);
    assert_ptr_equal(home_find(&f->sh, 0, slice_str("presence-c")), h);
    assert_ptr_equal(h->extra->streams[STREAM_MAIN], st);
    assert_null(h->extra->streams[STREAM_PRESENCE]);
    fixture_close(f);
}

static void a_stream_at_rest_goes_and_comes_back_as_itself(void **state)
{
    (void)state;
    char first[37];
    struct fixture *f = fixture_open();
    uint64_t before = heap_used_objects(f->sh.heap);
    struct home *h = home_of(f, "c");
    h->subs_count = 1;                   /* somebody is there and listens */
    struct stream *st = stream_of(&f->sh, h, STREAM_MAIN);
    memcpy(first, stream_id(st), sizeof(first));
    stream_rest(&f->sh, st);
    assert_null(h->extra);
    assert_int_equal(heap_used_objects(f->sh.heap), before + 1);   /* the home */

    st = stream_of(&f->sh, h, STREAM_MAIN);
    assert_string_equal(stream_id(st), first);
    h->subs_count = STREAM_KEPT_SUBS;    /* many: one stream costs each of them little */
    stream_rest(&f->sh, st);
    assert_ptr_equal(h->extra->streams[STREAM_MAIN], st);

    /* With serials it is not given up; once it is forgotten, what follows is another stream. */
    h->subs_count = 1;
    struct record r = {.kind = RECORD_PLAIN, .name = slice_str("\"e\""),
                       .data = slice_str("\"d\"")};
    assert_true(stream_append(&f->sh, st, &r, NULL, NULL));
    stream_ring_clear(&f->sh, st);
    stream_rest(&f->sh, st);
    assert_ptr_equal(h->extra->streams[STREAM_MAIN], st);
    assert_int_equal(st->now.delivery, 1);
    stream_forget_idle(&f->sh);
    st = stream_of(&f->sh, h, STREAM_MAIN);
    assert_int_equal(st->now.delivery, 0);
    assert_string_not_equal(stream_id(st), first);
    fixture_close(f);
}

/* ---- records that wait for the load ---- */

static char ended[16];                   /* 'a': taken, 'A': refused */
static bool mends;                       /* the first refusal makes the stream usable */

static void on_end(struct shard *sh, struct stream *st, void *ctx, const struct record *r,
                   bool committed)
{
    (void)sh, (void)r;
    const char *name = ctx;
    ended[strlen(ended)] = (char)(committed ? name[0] : name[0] - 'a' + 'A');
    if (!committed && mends) st->state = STREAM_OPEN;
}

static void say(struct fixture *f, struct stream *st, const char *name)
{
    struct record r = {.kind = RECORD_PRESENCE, .name = slice_str("\"member_added\""),
                       .user = slice_str(name), .data = slice_str("{}")};
    assert_true(stream_append(&f->sh, st, &r, on_end, (void *)(uintptr_t)name));
}

static void run_waited(enum stream_state state, const char *want)
{
    struct fixture *f = fixture_open();
    struct stream *st = stream_of(&f->sh, home_of(f, "presence-c"), STREAM_PRESENCE);
    assert_non_null(st);
    memset(ended, 0, sizeof(ended));
    st->state = STREAM_LOADING;
    say(f, st, "a");
    say(f, st, "b");
    st->state = (uint8_t)state;
    stream_wake(&f->sh, st);
    if (state == STREAM_OPEN) say(f, st, "c");   /* in the same turn as the answer to the load */
    assert_string_equal(ended, "");
    stream_run_woken(&f->sh);
    assert_string_equal(ended, want);
    if (state == STREAM_OPEN) say(f, st, "d");
    assert_int_equal(strlen(ended), strlen(want) + (state == STREAM_OPEN));
    fixture_close(f);
}

/* None is overtaken: not by one that finds the stream open, nor when it is refused itself. */
static void records_that_wait_keep_their_order(void **state)
{
    (void)state;
    mends = false;
    run_waited(STREAM_OPEN, "abc");
    mends = true;
    run_waited(STREAM_FAILED, "AB");
}

/* ---- publishes that are not stored ---- */

static enum home_status answered;
static struct store_batch *posted[64];   /* to the lane, in their order */
static uint32_t posted_count;
void __wrap_shard_answer(struct shard *sh, uint16_t to, struct letter *l);
void __wrap_shard_answer(struct shard *sh, uint16_t to, struct letter *l)
{
    (void)sh, (void)to;
    if (l->kind == MAIL_COMMIT) {
        assert_true(posted_count < sizeof(posted) / sizeof(posted[0]));
        posted[posted_count++] = l->payload;
        return;
    }
    assert_int_equal(l->kind, MAIL_PUBLISHED);
    answered = (enum home_status)l->arg[0];
}

/* What could not be delivered for want of memory is delivered when it is said again. */
static void a_refused_publish_leaves_no_receipt(void **state)
{
    (void)state;
    enum { DATA_BYTES = 8 << 20, HOG_BYTES = 58 << 20 };
    struct fixture *f = fixture_open();
    struct home *h = home_of(f, "c");
    h->subs_count = 1;
    f->app.idempotency_ttl_seconds = 60;
    uint8_t *data = malloc(DATA_BYTES);
    memset(data, 'x', DATA_BYTES);
    data[0] = data[DATA_BYTES - 1] = '"';
    struct content *c = calloc(1, sizeof(*c));
    *c = (struct content){.has_key = true, .ephemeral = true};
    c->r = (struct record){.name = slice_str("\"e\""), .data = slice_of(data, DATA_BYTES),
                           .key = "key"};
    struct publish *p = calloc(1, sizeof(*p) + 1);
    p->content = c;
    p->name_bytes = 1;
    p->name[0] = 'c';
    struct letter l = {.kind = MAIL_PUBLISH, .arg = {(uintptr_t)p}};
    void *hog = heap_alloc(f->sh.heap, HOG_BYTES);
    assert_non_null(hog);
    stream_on_publish(&f->sh, &l);
    assert_int_equal(answered, HOME_NO_MEMORY);
    heap_free(f->sh.heap, hog, HOG_BYTES);
    stream_on_publish(&f->sh, &l);
    assert_int_equal(answered, HOME_OK);
    assert_false(c->duplicate);
    stream_on_publish(&f->sh, &l);
    assert_int_equal(answered, HOME_OK);
    assert_true(c->duplicate);
    fixture_close(f);
    free(p);
    free(c);
    free(data);
}

/* ---- a commit that fails ---- */

bool __wrap_store_refuses(const struct store *s, uint32_t lane);
bool __wrap_store_refuses(const struct store *s, uint32_t lane) { return (void)s, lane > 0; }
uint16_t __wrap_store_post(const struct store *s, uint32_t lane);
uint16_t __wrap_store_post(const struct store *s, uint32_t lane) { return (void)s, (uint16_t)lane; }
uint32_t __wrap_store_losses(const struct store *s, uint32_t lane);
uint32_t __wrap_store_losses(const struct store *s, uint32_t lane) { return (void)s, lane; }
const char *__wrap_store_id(const struct store *s);
const char *__wrap_store_id(const struct store *s) { return (void)s, "s"; }

static struct stream *relaxed_stream(struct fixture *f, uint32_t number)
{
    char name[16];
    (void)snprintf(name, sizeof(name), "c%u", number);
    struct stream *st = stream_of(&f->sh, home_of(f, name), STREAM_MAIN);
    assert_non_null(st);
    st->history = st->relaxed = st->named = st->named_now = true;   /* as loaded */
    st->chan = number + 1;
    return st;
}

static void lane_answers(struct fixture *f, struct store_batch *b, err_t result)
{
    struct letter l = {.kind = MAIL_COMMITTED, .payload = b};
    b->result = result;
    b->generation_now = 1;
    stream_on_committed(&f->sh, &l);
}

/* The new epochs of many channels fill batches while the failure is still being settled. */
static void what_a_failure_writes_does_not_fail_with_it(void **state)
{
    (void)state;
    enum { STREAMS = 8000 };
    struct fixture *f = fixture_open();
    struct stream **streams = calloc(STREAMS, sizeof(struct stream *));
    posted_count = 0;
    for (uint32_t i = 0; i < STREAMS; i++) streams[i] = relaxed_stream(f, i);
    f->server.store = (struct store *)(void *)f;     /* never looked into */
    for (uint32_t i = 0; i < STREAMS; i++) {
        struct record r = {.kind = RECORD_PLAIN, .name = slice_str("\"e\""),
                           .data = slice_str("1")};
        assert_true(stream_append(&f->sh, streams[i], &r, NULL, NULL));
        assert_int_equal(streams[i]->now.delivery, 1);   /* relaxed: shown */
    }
    stream_lane_post(&f->sh, 0);
    uint32_t failed = posted_count;
    assert_true(failed > 1);
    lane_answers(f, posted[0], ERR_IO);
    assert_true(posted_count > failed);
    for (uint32_t i = 1; i < failed; i++) lane_answers(f, posted[i], ERR_FULL);
    stream_lane_post(&f->sh, 0);
    for (uint32_t i = failed; i < posted_count; i++) {
        assert_int_equal(posted[i]->generation, 1);
        lane_answers(f, posted[i], OK);
    }
    for (uint32_t i = 0; i < STREAMS; i++) {
        assert_int_equal(streams[i]->now.delivery, 0);
        assert_int_equal(streams[i]->flying, 0);
        assert_false(streams[i]->epoch_owed);
    }
    free(streams);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(texts_are_compared_as_they_read),
        cmocka_unit_test(a_spliced_frame_is_the_one_with_the_whole_text),
        cmocka_unit_test(what_v2_sockets_get_outlives_the_rest_of_its_family),
        cmocka_unit_test(a_blob_becomes_a_frame_and_gives_everything_back),
        cmocka_unit_test(a_blob_at_the_heaps_bound_fails_as_a_whole),
        cmocka_unit_test(room_for_a_stream_costs_no_home_its_life),
        cmocka_unit_test(a_stream_at_rest_goes_and_comes_back_as_itself),
        cmocka_unit_test(records_that_wait_keep_their_order),
        cmocka_unit_test(a_refused_publish_leaves_no_receipt),
        cmocka_unit_test(what_a_failure_writes_does_not_fail_with_it),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
