/* Goal    The presence log says whose edge an event was and why, keeps the order in which things
 *         happened whatever the lane refuses or fails, and admits what it lost.
 * Method  presence_log.c on a heap of its own; the stream it writes to is the test's (wrapped by
 *         the linker), which takes, refuses, commits or fails records as it is told.
 */
#include "shards/presence_log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "shards/series.h"
#include "shards/stream.h"

enum { TAKEN_MAX = 64, TEXT_BYTES = 400, APPS = 1 };

struct taken { char user[16]; char data[TEXT_BYTES]; stream_done done; void *ctx; };

struct fixture {
    struct conf         conf;
    struct conf_app     app;
    struct server       server;
    struct shard        sh;
    struct metric_table table;
    struct metrics      metrics;
    struct home        *home;
};

static const char *const              app_ids[APPS] = {"app-id"};
static const struct metric_table_conf table_conf = {app_ids, APPS, "sockudo_", "9601"};

static struct taken   taken[TAKEN_MAX];
static uint32_t       taken_count;
static bool           refusing;          /* records of presence-c */
static struct home   *homes[2];          /* presence-c, presence-d */
static struct stream  streams[2];

bool __wrap_stream_requests_known(const struct shard *sh);
bool __wrap_stream_requests_known(const struct shard *sh)
{
    (void)sh;
    return true;
}

bool __wrap_shard_app_by_id(const struct server *s, struct slice id, uint32_t *app);
bool __wrap_shard_app_by_id(const struct server *s, struct slice id, uint32_t *app)
{
    (void)s;
    *app = 0;
    return slice_is(id, "app-id");
}

struct home *__wrap_home_make(struct shard *sh, uint32_t app, struct slice name, uint8_t kind,
                              bool cache);
struct home *__wrap_home_make(struct shard *sh, uint32_t app, struct slice name, uint8_t kind,
                              bool cache)
{
    (void)sh, (void)app, (void)kind, (void)cache;
    return homes[slice_equal(name, home_name(homes[1]))];
}

struct stream *__wrap_stream_of(struct shard *sh, struct home *h, enum stream_what what);
struct stream *__wrap_stream_of(struct shard *sh, struct home *h, enum stream_what what)
{
    (void)sh;
    assert_int_equal(what, STREAM_PRESENCE);
    return &streams[h == homes[1]];
}

void __wrap_conf_policy_of(const struct conf *conf, uint32_t app, struct slice channel,
                           struct conf_policy *out);
void __wrap_conf_policy_of(const struct conf *conf, uint32_t app, struct slice channel,
                           struct conf_policy *out)
{
    (void)conf, (void)app, (void)channel;
    *out = (struct conf_policy){.presence_history = true};
}

bool __wrap_stream_append(struct shard *sh, struct stream *st, struct record *r, stream_done done,
                          void *ctx);
bool __wrap_stream_append(struct shard *sh, struct stream *st, struct record *r, stream_done done,
                          void *ctx)
{
    (void)sh;
    if (refusing && st == &streams[0]) return false;
    assert_true(taken_count < TAKEN_MAX && r->data.bytes < TEXT_BYTES);
    struct taken *t = &taken[taken_count++];
    snprintf(t->user, sizeof(t->user), "%.*s", (int)r->user.bytes, (const char *)r->user.ptr);
    snprintf(t->data, sizeof(t->data), "%.*s", (int)r->data.bytes, (const char *)r->data.ptr);
    t->done = done;
    t->ctx = ctx;
    return true;
}

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->app.id = (char *)(uintptr_t)app_ids[0];
    f->conf = (struct conf){.apps = &f->app, .apps_count = APPS};
    f->server = (struct server){.conf = &f->conf, .shards_count = 1, .table_seed = 7};
    f->sh.server = &f->server;
    f->sh.conf = &f->conf;
    f->sh.metrics = &f->metrics;
    assert_int_equal(metric_table_open(&f->table, series_table, METRIC_COUNT, &table_conf), OK);
    assert_int_equal(metric_open(&f->metrics, &f->table, 0), OK);
    assert_int_equal(heap_open(&f->sh.heap, 4 << 20), OK);
    assert_int_equal(presence_log_open(&f->sh), OK);
    for (uint32_t i = 0; i < 2; i++) {
        homes[i] = calloc(1, sizeof(*f->home) + 16);
        homes[i]->name_bytes = 10;
        memcpy(homes[i]->name, i == 0 ? "presence-c" : "presence-d", 10);
    }
    f->home = homes[0];
    taken_count = 0;
    refusing = false;
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    presence_log_close(&f->sh);
    assert_int_equal(heap_used_objects(f->sh.heap), 0);
    heap_close(&f->sh.heap);
    metric_close(&f->metrics);
    metric_table_close(&f->table);
    free(homes[0]);
    free(homes[1]);
    free(f);
    return 0;
}

/* An edge of a member whose info is `info_bytes` long. */
static void say(struct fixture *f, const char *user, enum presence_log_event event,
                enum presence_log_cause cause, uint32_t info_bytes)
{
    uint32_t n = (uint32_t)strlen(user);
    struct member *m = calloc(1, sizeof(*m) + 2 * n + 2 + info_bytes);
    struct presence_edge by = {cause, 12, 34};
    m->id_json_bytes = n + 2;
    m->id_bytes = n;
    m->info_bytes = info_bytes;
    snprintf((char *)m->bytes, n + 3, "\"%s\"", user);
    memcpy(m->bytes + n + 2, user, n);
    memset(m->bytes + 2 * n + 2, '1', info_bytes);
    presence_log(&f->sh, f->home, m, event, &by);
    free(m);
}

static void ends(struct fixture *f, uint32_t at, bool committed)
{
    taken[at].done(&f->sh, &streams[0], taken[at].ctx, NULL, committed);
}

static void an_event_says_whose_edge_it_was(void **state)
{
    struct fixture *f = *state;
    static const struct { enum presence_log_event event; enum presence_log_cause cause;
                          const char *text; } cases[] = {
        {PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, "\"member_added\",\"cause\":\"join\""},
        {PRESENCE_LOG_UPDATED, PRESENCE_LOG_JOIN, "\"member_updated\",\"cause\":\"join\""},
        {PRESENCE_LOG_REMOVED, PRESENCE_LOG_DISCONNECT,
         "\"member_removed\",\"cause\":\"disconnect\""},
        {PRESENCE_LOG_REMOVED, PRESENCE_LOG_TIMEOUT, "\"member_removed\",\"cause\":\"timeout\""},
        {PRESENCE_LOG_REMOVED, PRESENCE_LOG_FORCED,
         "\"member_removed\",\"cause\":\"forced_disconnect\""},
    };
    char want[TEXT_BYTES];
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        say(f, "ann", cases[i].event, cases[i].cause, 1);
        snprintf(want, sizeof(want), "{\"event\":%s,\"user_id\":\"ann\","
                 "\"connection_id\":\"12.34\",\"user_info\":1,\"dead_node_id\":null}",
                 cases[i].text);
        assert_string_equal(taken[i].data, want);
        ends(f, i, true);
    }
}

static void expect_order(const char *users)
{
    char seen[TAKEN_MAX + 1] = "";
    for (uint32_t i = 0; i < taken_count; i++) seen[i] = taken[i].user[0];
    assert_string_equal(seen, users);
}

/* a, b and c are under way when the lane fails; d and e come while it does. */
static void failures_do_not_change_the_order(void **state)
{
    struct fixture *f = *state;
    static const char *const users[] = {"a", "b", "c", "d", "e"};
    for (uint32_t i = 0; i < 5; i++) {
        refusing = i > 2;
        say(f, users[i], PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    }
    expect_order("abc");
    for (uint32_t i = 0; i < 3; i++) ends(f, i, false);
    presence_log_tick(&f->sh);           /* still refused */
    refusing = false;
    say(f, "f", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    expect_order("abc");
    taken_count = 0;
    presence_log_tick(&f->sh);
    expect_order("abcdef");
    ends(f, 0, true);
    for (uint32_t i = 1; i < 6; i++) ends(f, i, false);
    taken_count = 0;
    presence_log_tick(&f->sh);
    expect_order("bcdef");
    for (uint32_t i = 0; i < 5; i++) ends(f, i, true);
    taken_count = 0;
    presence_log_tick(&f->sh);
    expect_order("");
}

/* A log that cannot be written is nobody else's business. */
static void channels_do_not_wait_for_each_other(void **state)
{
    struct fixture *f = *state;
    refusing = true;
    say(f, "a", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    say(f, "b", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    f->home = homes[1];
    say(f, "x", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    expect_order("x");
    ends(f, 0, false);
    say(f, "y", PRESENCE_LOG_REMOVED, PRESENCE_LOG_DISCONNECT, 1);
    expect_order("x");                   /* behind x */
    taken_count = 0;
    presence_log_tick(&f->sh);
    expect_order("xy");
    ends(f, 0, true);
    ends(f, 1, true);
    refusing = false;
    taken_count = 0;
    presence_log_tick(&f->sh);
    expect_order("ab");
    ends(f, 0, true);
    ends(f, 1, true);
}

static void a_lost_event_is_admitted_until_a_reset(void **state)
{
    struct fixture *f = *state;
    struct slice own = slice_str("presence-c"), other = slice_str("presence-d");
    say(f, "ann", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    assert_false(presence_log_is_lost(&f->sh, 0, own));
    for (uint32_t i = 0; i < 2; i++) {
        say(f, "bob", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 8 << 20);   /* over the heap */
        assert_int_equal(taken_count, 1);
        assert_true(presence_log_is_lost(&f->sh, 0, own));
        assert_false(presence_log_is_lost(&f->sh, 0, other));
    }
    assert_int_equal(*metric_cell(&f->metrics, METRIC_HISTORY_DEGRADED_CHANNELS, 0, 0), 1);
    presence_log_was_reset(&f->sh, 0, other, UINT64_MAX);
    assert_true(presence_log_is_lost(&f->sh, 0, own));
    presence_log_was_reset(&f->sh, 0, own, 1);   /* lost since */
    assert_true(presence_log_is_lost(&f->sh, 0, own));
    presence_log_was_reset(&f->sh, 0, own, UINT64_MAX);
    assert_false(presence_log_is_lost(&f->sh, 0, own));
    assert_int_equal(*metric_cell(&f->metrics, METRIC_HISTORY_DEGRADED_CHANNELS, 0, 0), 0);
    ends(f, 0, true);
}

/* Behind a reset stand those who are there; what is not committed with it is worth nothing. */
static void a_reset_is_followed_by_who_is_there(void **state)
{
    struct fixture *f = *state;
    struct home_extra extra = {0};
    struct slice own = slice_str("presence-c");
    struct member *list[2];
    for (uint32_t i = 0; i < 2; i++) {
        struct member *m = list[i] = calloc(1, sizeof(*m) + 6);
        m->id_json_bytes = 3;
        m->id_bytes = m->info_bytes = 1;
        memcpy(m->bytes, i == 0 ? "\"a\"a7" : "\"b\"b7", 5);
        m->next = extra.members;
        extra.members = m;
    }
    f->home->extra = &extra;
    presence_log_again(&f->sh, f->home);
    expect_order("ba");
    assert_string_equal(taken[1].data, "{\"event\":\"member_added\",\"cause\":\"join\","
                        "\"user_id\":\"a\",\"connection_id\":null,\"user_info\":7,"
                        "\"dead_node_id\":null}");
    assert_true(presence_log_may_reset(&f->sh, 0, own));
    ends(f, 0, true);
    assert_false(presence_log_is_lost(&f->sh, 0, own));
    ends(f, 1, false);
    assert_true(presence_log_is_lost(&f->sh, 0, own));
    taken_count = 0;
    presence_log_tick(&f->sh);
    expect_order("");
    refusing = true;
    say(f, "x", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    assert_false(presence_log_may_reset(&f->sh, 0, own));
    free(list[0]);
    free(list[1]);
}

/* What a start finds: the log of presence-c holds this user inside. */
static void left_open(struct fixture *f, const char *user)
{
    static const char name[] = "app-id\0[presence-history]presence-c";
    char text[64];
    uint8_t packed[512];
    snprintf(text, sizeof(text), "{\"user_id\":\"%s\",\"user_info\":1}", user);
    const struct record records[] = {
        {.kind = RECORD_CHANNEL, .chan = 1, .data = slice_of(name, sizeof(name) - 1)},
        {.kind = RECORD_PRESENCE, .chan = 1, .delivery = 1, .history = 1, .context = 1,
         .user = slice_str(user), .name = slice_str("\"member_added\""), .data = slice_str(text)},
    };
    struct store_read r = {.bytes = packed};
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(r.bytes_count + record_bytes(&records[i]) <= sizeof(packed));
        r.bytes_count += record_write(&records[i], packed + r.bytes_count);
    }
    presence_log_active(&f->sh, &r);
}

static bool says(uint32_t at, const char *user, const char *event)
{
    return strcmp(taken[at].user, user) == 0 && strstr(taken[at].data, event) != NULL;
}

/* One who is back has never left; one who comes back while nothing is taken, and whose time ends
 * meanwhile, goes before he comes: each user's events alternate. */
static void who_was_left_open_goes_before_he_comes(void **state)
{
    struct fixture *f = *state;
    left_open(f, "ann");
    left_open(f, "bob");
    say(f, "ann", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    expect_order("");
    refusing = true;
    say(f, "x", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    say(f, "bob", PRESENCE_LOG_ADDED, PRESENCE_LOG_JOIN, 1);
    f->sh.re.now_ms += 1000;
    presence_log_tick(&f->sh);           /* the grace time is over */
    refusing = false;
    presence_log_tick(&f->sh);
    expect_order("bxb");
    assert_true(says(0, "bob", "\"member_removed\",\"cause\":\"orphan_cleanup\""));
    assert_true(says(2, "bob", "\"member_added\""));
    for (uint32_t i = 0; i < 3; i++) ends(f, i, false);
    taken_count = 0;
    presence_log_tick(&f->sh);
    expect_order("bxb");
    assert_true(says(0, "bob", "\"member_removed\""));
    for (uint32_t i = 0; i < 3; i++) ends(f, i, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_event_says_whose_edge_it_was, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(failures_do_not_change_the_order, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(channels_do_not_wait_for_each_other, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(a_reset_is_followed_by_who_is_there, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(who_was_left_open_goes_before_he_comes, open_fixture,
                                        close_fixture),
        cmocka_unit_test_setup_teardown(a_lost_event_is_admitted_until_a_reset, open_fixture,
                                        close_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
