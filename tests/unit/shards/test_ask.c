/* Goal    Homes of quotas, windows and idempotency keys answer as documented, and every lent body
 *         comes home.
 * Method  The home's side of ask.h on one shard without a reactor: letters go in by hand, answers
 *         are caught in shard_answer (wrapped by the linker), time is the test's.
 */
#include "shards/ask_parts.h"
#include "shards/stream_parts.h"
#include "shards/presence_log.h"
#include "shards/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ASKER = 1, ANSWERS_MAX = 16, APPS = 1 };

static struct letter answers[ANSWERS_MAX];
static uint32_t      answers_count;

void __wrap_shard_answer(struct shard *sh, uint16_t to, struct letter *l);
void __wrap_shard_answer(struct shard *sh, uint16_t to, struct letter *l)
{
    assert_int_equal(to, ASKER);
    answers[answers_count++ % ANSWERS_MAX] = *l;
}

struct fixture {
    struct conf         conf;
    struct conf_app     app;
    struct server       server;
    struct shard        sh;
    struct metric_table table;
    struct metrics      metrics;
    struct slice        app_ids[APPS];
    struct op           op;              /* who asks */
};

static const char *const               app_ids[APPS] = {"app-id"};
static const struct metric_table_conf  table_conf = {app_ids, APPS, "sockudo_", "9601"};

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->app = (struct conf_app){
        .idempotency_ttl_seconds = 2, .max_connections = 2, .max_backend_events_per_second = 10,
    };
    f->conf = (struct conf){
        .apps = &f->app, .apps_count = APPS, .idempotency_max_entries = 2, .max_connections = 3,
        .rate_api = {.max_requests = 2, .window_seconds = 10},
        .rate_websocket = {.max_requests = 1, .window_seconds = 1},
    };
    f->server = (struct server){.conf = &f->conf, .shards_count = 1, .table_seed = 7};
    f->app_ids[0] = slice_str(app_ids[0]);
    f->app.id = (char *)(uintptr_t)app_ids[0];
    f->server.app_ids = f->app_ids;
    f->server.apps_by_id = calloc(1, sizeof(uint32_t));
    f->sh.server = &f->server;
    f->sh.conf = &f->conf;
    f->sh.metrics = &f->metrics;
    f->sh.re.now_ms = 1000;
    timer_wheel_open(&f->sh.re.wheel, f->sh.re.now_ms);
    assert_int_equal(metric_table_open(&f->table, series_table, METRIC_COUNT, &table_conf), OK);
    assert_int_equal(metric_open(&f->metrics, &f->table, 0), OK);
    assert_int_equal(heap_open(&f->sh.heap, 64 << 20), OK);
    assert_int_equal(ask_open(&f->sh), OK);
    assert_int_equal(stream_open_all(&f->sh), OK);
    assert_int_equal(presence_log_open(&f->sh), OK);
    stream_flush(&f->sh);                /* without a store every key is known */
    answers_count = 0;
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    ask_close(&f->sh);
    presence_log_close(&f->sh);
    stream_close_all(&f->sh);
    free(f->server.apps_by_id);
    heap_close(&f->sh.heap);
    metric_close(&f->metrics);
    metric_table_close(&f->table);
    free(f);
    return 0;
}

static void fire(void *ctx, struct timer *t) { ask_on_timer(ctx, t); }

static void pass_ms(struct fixture *f, uint64_t ms)
{
    f->sh.re.now_ms += ms;
    timer_run(&f->sh.re.wheel, f->sh.re.now_ms, UINT32_MAX, fire, &f->sh);
}

/* The answer that came last; there must have been exactly `total` so far. */
static const struct letter *answer(uint32_t total)
{
    assert_int_equal(answers_count, total);
    return &answers[(total - 1) % ANSWERS_MAX];
}

static void ask(struct fixture *f, enum ask_question q, uint64_t a, uint64_t b, uint64_t c,
                uint64_t d)
{
    struct letter l = {
        .kind = MAIL_ASK, .from_shard = ASKER, .payload = &f->op, .arg = {q, a, b, c, d},
    };
    ask_on_ask(&f->sh, &l);
}

static void claim(struct fixture *f, uint32_t scope, const char *key)
{
    ask(f, ASK_CLAIM, 0, scope, (uintptr_t)key, strlen(key));
}

static void done(struct fixture *f, uint64_t entry, struct frame *body, uint32_t flags)
{
    struct letter l = {
        .kind = MAIL_ASK_DONE, .from_shard = ASKER, .flags = flags,
        .arg = {ASK_CLAIM, entry, (uintptr_t)body},
    };
    ask_on_done(&f->sh, &l);
}

static int64_t limit_hits(struct fixture *f, enum series_limit limit)
{
    return metric_read(&f->metrics, METRIC_LIMIT_HITS_TOTAL, 0, limit);
}

/* ---- keys ---- */

static void a_repeat_waits_and_is_told_busy_not_early(void **state)
{
    struct fixture *f = *state;
    claim(f, 0, "key");
    assert_int_equal(answer(1)->arg[0], ASK_YES);
    claim(f, 0, "key");
    pass_ms(f, ASK_CLAIM_WAIT_MS - 1);
    assert_int_equal(answers_count, 1);
    pass_ms(f, 1);
    assert_int_equal(answer(2)->arg[0], ASK_BUSY);
    pass_ms(f, 100000);                  /* a claim that runs has no deadline */
    claim(f, 0, "key");
    assert_int_equal(answers_count, 2);
}

static void a_released_key_goes_to_the_first_who_waits(void **state)
{
    struct fixture *f = *state;
    claim(f, 0, "key");
    uint64_t entry = answer(1)->arg[1];
    claim(f, 0, "key");
    pass_ms(f, 10);
    claim(f, 0, "key");
    done(f, entry, NULL, 0);
    assert_int_equal(answer(2)->arg[0], ASK_YES);
    assert_int_equal(answers[1].arg[1], entry);
    pass_ms(f, ASK_CLAIM_WAIT_MS);
    assert_int_equal(answer(3)->arg[0], ASK_BUSY);
    done(f, entry, NULL, 0);
    claim(f, 0, "key");                  /* released with nobody waiting: free again */
    assert_int_equal(answer(4)->arg[0], ASK_YES);
}

static void a_stored_body_is_told_until_the_ttl_and_comes_home(void **state)
{
    struct fixture *f = *state;
    static const uint8_t text[] = "{\"ok\":true}";
    struct frame loan = {.bytes = text, .bytes_count = sizeof(text) - 1, .refs = 1};
    claim(f, 0, "key");
    uint64_t entry = answer(1)->arg[1];
    claim(f, 0, "key");
    done(f, entry, &loan, 0);
    assert_int_equal(answer(2)->arg[0], ASK_STORED);
    struct frame *told = (void *)(uintptr_t)answers[1].arg[1];
    assert_memory_equal(told->bytes, text, sizeof(text) - 1);
    frame_put(&f->sh, &told);            /* what frame_came_home does for the asker's loan */
    pass_ms(f, 1999);
    claim(f, 0, "key");
    assert_int_equal(answer(3)->arg[0], ASK_STORED);
    told = (void *)(uintptr_t)answers[2].arg[1];
    pass_ms(f, 1);                       /* forgotten, but the last loan is still out */
    assert_int_equal(answers_count, 3);
    frame_put(&f->sh, &told);
    assert_int_equal(answer(4)->kind, MAIL_FRAME_HOME);
    assert_ptr_equal(answers[3].payload, &loan);
    claim(f, 0, "key");
    assert_int_equal(answer(5)->arg[0], ASK_YES);
}

static void a_lost_body_still_marks_the_key_as_done(void **state)
{
    struct fixture *f = *state;
    claim(f, 0, "key");
    done(f, answer(1)->arg[1], NULL, ASK_DONE_LOST);
    claim(f, 0, "key");
    assert_int_equal(answer(2)->arg[0], ASK_STORED);
    assert_int_equal(answers[1].arg[1], 0);
}

static void scopes_keep_keys_apart_and_a_full_table_refuses(void **state)
{
    struct fixture *f = *state;
    claim(f, 0, "key");
    claim(f, 1, "key");
    assert_int_equal(answer(2)->arg[0], ASK_YES);
    assert_true(answers[0].arg[1] != answers[1].arg[1]);
    claim(f, 0, "third");
    assert_int_equal(answer(3)->arg[0], ASK_TABLE_FULL);
    assert_int_equal(limit_hits(f, SERIES_LIMIT_IDEMPOTENCY_ENTRIES), 1);
    done(f, answers[0].arg[1], NULL, 0);
    claim(f, 0, "third");
    assert_int_equal(answer(4)->arg[0], ASK_YES);
}

static void a_key_with_another_print_is_told_so_at_any_time(void **state)
{
    struct fixture *f = *state;
    struct slice first = slice_str("one"), second = slice_str("two");
    ask_print(&f->op, &first, 1);
    claim(f, 0, "key");
    uint64_t entry = answer(1)->arg[1];
    ask_print(&f->op, &second, 1);
    claim(f, 0, "key");
    assert_int_equal(answer(2)->arg[0], ASK_DIFFERS);
    done(f, entry, NULL, ASK_DONE_LOST);
    claim(f, 0, "key");
    assert_int_equal(answer(3)->arg[0], ASK_DIFFERS);
    ask_print(&f->op, &first, 1);
    claim(f, 0, "key");
    assert_int_equal(answer(4)->arg[0], ASK_STORED);
}

/* A finished key as the store gives it back: {app, scope, key}, one second old. */
static void load_key(struct fixture *f, const char *key, const char *body)
{
    struct record r = {
        .kind = RECORD_REQUEST, .time_ms = f->sh.re.wall_ms - 1000, .owner = f->app_ids[0],
        .client = slice_str("0"), .op_id = slice_str(key), .data = slice_str(body),
    };
    ask_claim_load(&f->sh, &r);
}

static void load(struct fixture *f, const char *body) { load_key(f, "key", body); }

/* The keys were stored when the shard's share of the table was larger. */
static void keys_of_an_earlier_life_are_known_beyond_the_share_of_now(void **state)
{
    struct fixture *f = *state;
    f->sh.re.wall_ms = 5000;
    f->sh.asks->claims_max = 1;
    load_key(f, "a", "{}");
    load_key(f, "b", "{}");
    const char *const keys[] = {"a", "b"};
    for (uint32_t i = 0; i < 2; i++) {
        claim(f, 0, keys[i]);
        assert_int_equal(answer(i + 1)->arg[0], ASK_STORED);
        struct frame *told = (void *)(uintptr_t)answers[i].arg[1];
        frame_put(&f->sh, &told);
    }
    claim(f, 0, "c");
    assert_int_equal(answer(3)->arg[0], ASK_TABLE_FULL);
}

static void nobody_waits_for_ever_for_keys_that_cannot_be_read(void **state)
{
    struct fixture *f = *state;
    f->sh.streams->active_reads = 1;     /* one lane has not answered */
    claim(f, 0, "key");
    f->sh.re.now_ms += ASK_CLAIM_WAIT_MS - 1;
    claim(f, 0, "later");
    stream_tick(&f->sh);
    assert_int_equal(answers_count, 0);
    f->sh.re.now_ms += 1;
    stream_tick(&f->sh);
    assert_int_equal(answer(1)->arg[0], ASK_BUSY);
    f->sh.streams->active_reads = 0;
    ask_claims_open(&f->sh);             /* the lane has answered */
    assert_int_equal(answer(2)->arg[0], ASK_YES);
}

static void a_key_of_an_earlier_life_is_known_for_the_rest_of_its_ttl(void **state)
{
    struct fixture *f = *state;
    f->sh.re.wall_ms = 5000;
    load(f, "{}");
    claim(f, 0, "key");
    assert_int_equal(answer(1)->arg[0], ASK_STORED);
    struct frame *told = (void *)(uintptr_t)answers[0].arg[1];
    assert_memory_equal(told->bytes, "{}", 2);
    frame_put(&f->sh, &told);
    pass_ms(f, 999);
    claim(f, 1, "key");                  /* the scope came along */
    assert_int_equal(answer(2)->arg[0], ASK_YES);
    pass_ms(f, 1);
    claim(f, 0, "key");
    assert_int_equal(answer(3)->arg[0], ASK_YES);
}

static void a_claim_that_cannot_be_stored_is_kept_in_memory_and_answered(void **state)
{
    struct fixture *f = *state;
    static const uint8_t text[] = "{\"ok\":true}";
    struct frame loan = {.bytes = text, .bytes_count = sizeof(text) - 1, .refs = 1};
    claim(f, 0, "key");
    uint64_t entry = answer(1)->arg[1];
    ask(f, ASK_CLAIM_STORE, entry, (uintptr_t)&loan, 0, 0);
    assert_int_equal(answer(2)->arg[0], ASK_YES);
    claim(f, 0, "key");
    assert_int_equal(answer(3)->arg[0], ASK_STORED);
    struct frame *told = (void *)(uintptr_t)answers[2].arg[1];
    frame_put(&f->sh, &told);
}

/* ---- windows ---- */

static void a_window_starts_at_its_first_event_and_counts_weights(void **state)
{
    struct fixture *f = *state;
    ask(f, ASK_BACKEND_RATE, 0, 8, 0, 0);
    assert_int_equal(answer(1)->arg[0], ASK_YES);
    assert_int_equal(answers[0].arg[2], 2);
    pass_ms(f, 999);
    ask(f, ASK_BACKEND_RATE, 0, 3, 0, 0);
    assert_int_equal(answer(2)->arg[0], ASK_NO);
    assert_int_equal(answers[1].arg[3], 1);
    ask(f, ASK_BACKEND_RATE, 0, 2, 0, 0);
    assert_int_equal(answer(3)->arg[0], ASK_YES);
    pass_ms(f, 1);
    ask(f, ASK_BACKEND_RATE, 0, 10, 0, 0);
    assert_int_equal(answer(4)->arg[0], ASK_YES);
    assert_int_equal(limit_hits(f, SERIES_LIMIT_BACKEND_RATE), 1);
}

static void addresses_and_kinds_have_windows_of_their_own(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < 3; i++) ask(f, ASK_API_RATE, 1, 2, 0, 0);
    assert_int_equal(answer(3)->arg[0], ASK_NO);
    assert_int_equal(answers[2].arg[1], 2);
    assert_int_equal(answers[2].arg[3], 10);
    assert_int_equal(answers[1].arg[0], ASK_YES);
    ask(f, ASK_API_RATE, 1, 3, 0, 0);
    assert_int_equal(answer(4)->arg[0], ASK_YES);
    ask(f, ASK_WS_RATE, 1, 2, 0, 0);
    assert_int_equal(answer(5)->arg[0], ASK_YES);
    pass_ms(f, 10000);
    ask(f, ASK_API_RATE, 1, 2, 0, 0);
    assert_int_equal(answer(6)->arg[0], ASK_YES);
    assert_int_equal(answers[5].arg[2], 1);
}

static void more_live_addresses_than_fit_are_allowed_and_counted(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 0; i < ASK_ADDRESSES_MAX; i++) ask(f, ASK_WS_RATE, i, 0, 0, 0);
    ask(f, ASK_WS_RATE, 1, 1, 0, 0);
    ask(f, ASK_WS_RATE, 1, 1, 0, 0);
    assert_int_equal(answer(ASK_ADDRESSES_MAX + 2)->arg[0], ASK_YES);
    assert_int_equal(limit_hits(f, SERIES_LIMIT_RATE_ADDRESSES), 2);
    pass_ms(f, 1000);                    /* the oldest makes room, also without a tick */
    ask(f, ASK_WS_RATE, 1, 1, 0, 0);
    ask(f, ASK_WS_RATE, 1, 1, 0, 0);
    assert_int_equal(answer(ASK_ADDRESSES_MAX + 4)->arg[0], ASK_NO);
    for (uint32_t i = 0; i < 64; i++) ask_tick(&f->sh);
    assert_int_equal(f->sh.asks->addresses_count[1], 1);
}

/* ---- quotas ---- */

static void a_quota_is_strict_and_given_back(void **state)
{
    struct fixture *f = *state;
    struct letter back = {.kind = MAIL_ASK_DONE, .from_shard = ASKER, .arg = {ASK_APP_QUOTA, 0}};
    for (uint32_t i = 0; i < 3; i++) ask(f, ASK_APP_QUOTA, 0, 0, 0, 0);
    assert_int_equal(answers[1].arg[0], ASK_YES);
    assert_int_equal(answer(3)->arg[0], ASK_NO);
    assert_int_equal(limit_hits(f, SERIES_LIMIT_APP_CONNECTIONS), 1);
    ask_on_done(&f->sh, &back);
    ask(f, ASK_APP_QUOTA, 0, 0, 0, 0);
    assert_int_equal(answer(4)->arg[0], ASK_YES);
    for (uint32_t i = 0; i < 4; i++) ask(f, ASK_NODE_QUOTA, 0, 0, 0, 0);
    assert_int_equal(answers[6].arg[0], ASK_YES);
    assert_int_equal(answer(8)->arg[0], ASK_NO);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest cases[] = {
        CASE(a_repeat_waits_and_is_told_busy_not_early),
        CASE(a_released_key_goes_to_the_first_who_waits),
        CASE(a_stored_body_is_told_until_the_ttl_and_comes_home),
        CASE(a_lost_body_still_marks_the_key_as_done),
        CASE(scopes_keep_keys_apart_and_a_full_table_refuses),
        CASE(a_key_with_another_print_is_told_so_at_any_time),
        CASE(a_key_of_an_earlier_life_is_known_for_the_rest_of_its_ttl),
        CASE(keys_of_an_earlier_life_are_known_beyond_the_share_of_now),
        CASE(nobody_waits_for_ever_for_keys_that_cannot_be_read),
        CASE(a_claim_that_cannot_be_stored_is_kept_in_memory_and_answered),
        CASE(a_window_starts_at_its_first_event_and_counts_weights),
        CASE(addresses_and_kinds_have_windows_of_their_own),
        CASE(more_live_addresses_than_fit_are_allowed_and_counted),
        CASE(a_quota_is_strict_and_given_back),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
