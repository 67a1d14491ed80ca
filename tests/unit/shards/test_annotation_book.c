/* Goal    Summaries say what the log of annotations says: what has left it with its age is not
 *         counted for good, and what a clock that was set back gives again is.
 * Method  annotation_book.c on a heap and with clocks of its own; the lane it reads is the test's
 *         (wrapped by the linker), which answers with the events that are young enough.
 */
#include "shards/annotation_book.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "shards/stream.h"
#include "shards/want_parts.h"

enum { EVENTS = 3, AGE_MS = 60000, EVENT_BYTES = 512 };

static uint64_t           event_ms[EVENTS];   /* of the log's events; each adds one to a total */
static struct store_read  asked;
static stream_read_fn     asked_done;
static void              *asked_ctx;
static uint32_t           reads, told;

struct store_read *__wrap_stream_read_make(struct shard *sh, struct stream *st, uint8_t kind,
                                           stream_read_fn done, void *ctx);
struct store_read *__wrap_stream_read_make(struct shard *sh, struct stream *st, uint8_t kind,
                                           stream_read_fn done, void *ctx)
{
    (void)sh, (void)st;
    assert_int_equal(kind, STORE_ROWS);
    asked = (struct store_read){.kind = kind};
    asked_done = done;
    asked_ctx = ctx;
    return &asked;
}

void __wrap_stream_read_post(struct shard *sh, struct stream *st, struct store_read *r);
void __wrap_stream_read_post(struct shard *sh, struct stream *st, struct store_read *r)
{
    (void)sh, (void)st;
    assert_ptr_equal(r, &asked);
    reads++;
}

void __wrap_stream_read_end(struct shard *sh, struct store_read *r);
void __wrap_stream_read_end(struct shard *sh, struct store_read *r) { (void)sh, (void)r; }

void __wrap_want_on_want(struct shard *sh, const struct letter *l);
void __wrap_want_on_want(struct shard *sh, const struct letter *l)
{
    (void)sh, (void)l;
    told++;
}

struct fixture {
    struct conf_app    app;
    struct conf        conf;
    struct server      server;
    struct shard       sh;
    struct conf_policy policy;
    struct stream      st;
    struct want        w;
};

static void answer(struct fixture *f)
{
    uint8_t bytes[EVENTS * EVENT_BYTES];
    asked.bytes = bytes;
    asked.status = STORE_READ_OK;
    for (uint32_t i = 0; i < EVENTS; i++) {
        if (event_ms[i] + AGE_MS < f->sh.re.wall_ms) continue;
        struct record r = {
            .kind = RECORD_ANNOTATION, .flags = RECORD_WHOLE, .delivery = i + 1, .history = i + 1,
            .message = i + 1, .time_ms = event_ms[i], .name = slice_str("\"annotation.create\""),
            .data = slice_str("{}"), .message_id = slice_str("m"), .owner = slice_str("r:total.v1"),
        };
        assert_true(asked.bytes_count + record_bytes(&r) <= sizeof(bytes));
        asked.bytes_count += record_write(&r, bytes + asked.bytes_count);
        asked.records_count++;
    }
    asked_done(&f->sh, &f->st, &asked, asked_ctx);
}

/* The total that a subscriber is sent now, 0: none; read from the log if that is due. */
static uint32_t total(struct fixture *f)
{
    struct annotation_channel *ch = annotation_get(&f->sh, &f->st, &f->w);
    if (ch == NULL) {
        uint32_t before = told;
        answer(f);
        assert_int_equal(told, before + 1);
        ch = annotation_get(&f->sh, &f->st, &f->w);
    }
    assert_non_null(ch);
    struct api_text t = {.heap = f->sh.heap};
    uint32_t n = 0;
    annotation_write_frames(&f->sh, &t, ch, f->w.channel);
    assert_false(t.failed);
    if (t.bytes > 0) {
        static const char before[] = "\"total\":";
        const uint8_t *at = memmem(t.ptr, t.bytes, before, sizeof(before) - 1);
        assert_non_null(at);
        n = at[sizeof(before) - 1] - '0';
    }
    api_text_free(&t);
    return n;
}

static void pass(struct fixture *f, uint64_t ms)
{
    f->sh.re.now_ms += ms;
    f->sh.re.wall_ms += ms;
}

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->conf = (struct conf){.apps = &f->app, .apps_count = 1, .websocket_max_payload_kb = 64};
    f->server = (struct server){.conf = &f->conf, .shards_count = 1, .table_seed = 7};
    f->sh.server = &f->server;
    f->sh.conf = &f->conf;
    f->sh.re.now_ms = 1000;
    f->sh.re.wall_ms = 1700000000000;
    f->policy = (struct conf_policy){.annotations = true, .version_age_ms = AGE_MS};
    f->st.policy = &f->policy;
    f->w.channel = slice_str("notes");
    assert_int_equal(heap_open(&f->sh.heap, 4 << 20), OK);
    f->sh.heap_mark = 4 << 20;
    assert_int_equal(annotation_open(&f->sh), OK);
    reads = 0;
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    annotation_close(&f->sh);
    assert_int_equal(heap_used_objects(f->sh.heap), 0);
    heap_close(&f->sh.heap);
    free(f);
    return 0;
}

static void events_of_age_are_not_counted(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < EVENTS; i++) event_ms[i] = f->sh.re.wall_ms - (EVENTS - 1 - i) * 20000;
    assert_int_equal(total(f), EVENTS);
    pass(f, 15000);
    assert_int_equal(total(f), EVENTS);
    assert_int_equal(reads, 1);          /* none has aged: nothing is read */
    pass(f, 10000);
    assert_int_equal(total(f), EVENTS - 1);
    assert_int_equal(reads, 2);
    pass(f, 5000);
    assert_int_equal(total(f), EVENTS - 1);
    pass(f, 60000);
    assert_int_equal(total(f), 0);
    assert_int_equal(reads, 3);
    pass(f, 60000);
    assert_int_equal(total(f), 0);       /* nothing is left that could age */
    assert_int_equal(reads, 3);
}

/* Every use of a busy channel would read all of it. */
static void a_channel_is_not_read_at_every_use(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < EVENTS; i++) event_ms[i] = f->sh.re.wall_ms - AGE_MS + 1 + i;
    assert_int_equal(total(f), EVENTS);
    for (uint32_t i = 0; i < 100; i++) {
        pass(f, 50);
        (void)total(f);
    }
    assert_int_equal(reads, 1);
    pass(f, 10000);
    assert_int_equal(total(f), 0);
    assert_int_equal(reads, 2);
}

static void a_clock_that_leaps_costs_nothing_for_good(void **state)
{
    enum { YEARS_MS = 1000000000 };
    struct fixture *f = *state;
    for (uint32_t i = 0; i < EVENTS; i++) event_ms[i] = f->sh.re.wall_ms;
    assert_int_equal(total(f), EVENTS);
    pass(f, 20000);
    f->sh.re.wall_ms += YEARS_MS;
    assert_int_equal(total(f), 0);
    pass(f, 20000);
    f->sh.re.wall_ms -= YEARS_MS;
    assert_int_equal(total(f), EVENTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(events_of_age_are_not_counted, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(a_channel_is_not_read_at_every_use, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(a_clock_that_leaps_costs_nothing_for_good, open_fixture,
                                        close_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
