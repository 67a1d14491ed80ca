/* Goal    Shards that share nothing but letters: each letter arrives once and in order, to oneself
 *         too; timers never fire early; no wake-up is lost however often shards fall asleep; the
 *         CPU time that is counted is work.
 * Method  Real reactors, one thread each. A letter carries its number; a token that goes round
 *         stops for ever when one wake-up is lost, so its rounds end in time or the test fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include "core/clock.h"
#include "core/reactor.h"

enum { SHARDS = 3, WAIT_MS = 20000, TIMERS = 200 };

struct node {
    struct reactor  re;
    struct world   *world;
    pthread_t       thread;
    uint32_t        id;
    uint64_t        posted[SHARDS], taken[SHARDS], wrong, tokens;
    struct timer    end, timers[TIMERS];
    uint64_t        armed_ms[TIMERS], fired, early;
    bool            done, late;
};

struct world {
    struct reactor_office office;
    struct node           nodes[SHARDS];
    uint32_t              opened, stopped;
    uint64_t              letters_each, token_rounds;
    bool                  timers;
};

static bool all_done(const struct node *n)
{
    const struct world *w = n->world;
    for (uint32_t i = 0; i < w->office.shards_count; i++) {
        if (n->taken[i] < w->letters_each || n->posted[i] < w->letters_each) return false;
    }
    return n->tokens >= w->token_rounds && (!w->timers || n->fired == TIMERS);
}

static void post_token(struct node *n)
{
    uint32_t to = (n->id + 1) % n->world->office.shards_count;
    struct letter l = {.kind = 1, .from_shard = n->re.shard};
    mail_post_sure(reactor_box(&n->re, (uint16_t)to), &l);
}

static void on_letter(void *ctx, const struct letter *l)
{
    struct node *n = ctx;
    if (l->kind == 1) {
        n->tokens++;
        if (n->id != 0 || n->tokens < n->world->token_rounds) post_token(n);
        return;
    }
    n->wrong += l->arg[0] != n->taken[l->from_shard] || l->arg[1] != n->id;
    n->taken[l->from_shard]++;
}

static void on_timer(void *ctx, struct timer *t)
{
    struct node *n = ctx;
    if (t == &n->end) {
        n->late = true;
        return;
    }
    uint32_t i = (uint32_t)(t - n->timers);
    n->early += clock_mono_ns() < t->due_ms * 1000000 || t->due_ms - n->armed_ms[i] != t->kind;
    n->fired++;
}

/* Some letters to everyone, whatever fits. */
static bool work(void *ctx)
{
    struct node *n = ctx;
    bool more = false;
    for (uint32_t to = 0; to < n->world->office.shards_count; to++) {
        struct mailbox *box = reactor_box(&n->re, (uint16_t)to);
        for (uint32_t i = 0; i < 700 && n->posted[to] < n->world->letters_each; i++) {
            struct letter l = {.from_shard = n->re.shard, .arg = {n->posted[to], to}};
            if (mail_post(box, &l) != OK) break;
            n->posted[to]++;
        }
        if (n->posted[to] < n->world->letters_each) more = true;
    }
    return more;
}

/* A node that is done tells the others, and leaves when all are. */
static bool finished(void *ctx)
{
    struct node *n = ctx;
    struct world *w = n->world;
    if (!n->done && (n->late || all_done(n))) {
        n->done = true;
        __atomic_add_fetch(&w->stopped, 1, __ATOMIC_SEQ_CST);
        for (uint16_t i = 0; i < w->office.shards_count; i++) reactor_poke(&w->office, i);
    }
    return __atomic_load_n(&w->stopped, __ATOMIC_SEQ_CST) == w->office.shards_count;
}

static void arm_timers(struct node *n)
{
    timer_arm(&n->re.wheel, &n->end, n->re.now_ms + WAIT_MS);
    for (uint32_t i = 0; n->world->timers && i < TIMERS; i++) {
        n->armed_ms[i] = n->re.now_ms;
        n->timers[i].kind = i * 2;
        timer_arm(&n->re.wheel, &n->timers[i], n->re.now_ms + i * 2);
    }
}

static void open_node(struct node *n, const struct reactor_ops *ops)
{
    static const struct ring_handler handler;
    struct world *w = n->world;
    struct ring_conf conf = {.socks_max = 10, .accepts_max = 2, .handler = &handler};
    char error[256];
    if (reactor_open(&n->re, (uint16_t)n->id, &w->office, &conf, ops, n, error,
                     sizeof(error)) != OK) {
        base_assert_failed(__FILE__, __LINE__, error);
    }
    __atomic_add_fetch(&w->opened, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&w->opened, __ATOMIC_SEQ_CST) < w->office.shards_count) {}
}

static void *run(void *arg)
{
    static const struct reactor_ops ops = {on_letter, on_timer, work, finished};
    struct node *n = arg;
    open_node(n, &ops);
    arm_timers(n);
    if (n->id == 0 && n->world->token_rounds > 0) post_token(n);
    reactor_run(&n->re);
    return NULL;
}

static void play(struct world *w, uint32_t shards, void *(*main_of)(void *))
{
    assert_int_equal(reactor_office_open(&w->office, shards), OK);
    for (uint32_t i = 0; i < shards; i++) {
        w->nodes[i].id = i;
        w->nodes[i].world = w;
        assert_int_equal(pthread_create(&w->nodes[i].thread, NULL, main_of, &w->nodes[i]), 0);
    }
    for (uint32_t i = 0; i < shards; i++) {
        assert_int_equal(pthread_join(w->nodes[i].thread, NULL), 0);
    }
    for (uint32_t i = 0; i < shards; i++) {
        assert_false(w->nodes[i].late);
        assert_int_equal(w->nodes[i].wrong, 0);
        assert_int_equal(w->nodes[i].early, 0);
        reactor_close(&w->nodes[i].re);
    }
    reactor_office_close(&w->office);
}

static void letters_of_all_shards_arrive_once_and_in_order(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->letters_each = 100000;
    play(w, SHARDS, run);
    for (uint32_t i = 0; i < SHARDS; i++) {
        for (uint32_t from = 0; from < SHARDS; from++) {
            assert_int_equal(w->nodes[i].taken[from], w->letters_each);
        }
        assert_int_equal(w->nodes[i].re.stats.letters, SHARDS * w->letters_each);
    }
    free(w);
}

static void a_lone_shard_gets_its_own_letters(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->letters_each = 50000;
    w->token_rounds = 1000;
    play(w, 1, run);
    assert_int_equal(w->nodes[0].taken[0], 50000);
    assert_int_equal(w->nodes[0].tokens, 1000);
    free(w);
}

static void a_token_between_sleeping_shards_never_stops(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->token_rounds = 20000;
    play(w, 2, run);
    assert_int_equal(w->nodes[0].tokens, w->token_rounds);
    assert_int_equal(w->nodes[1].tokens, w->token_rounds);
    free(w);
}

static void timers_fire_all_and_never_early_while_letters_flow(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->timers = true;
    w->token_rounds = 2000;
    play(w, SHARDS, run);
    for (uint32_t i = 0; i < SHARDS; i++) assert_int_equal(w->nodes[i].fired, TIMERS);
    free(w);
}

static void sleeping_is_not_counted_as_busy(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->timers = true;                            /* 400 ms with next to nothing to do */
    play(w, 1, run);
    struct reactor *re = &w->nodes[0].re;
    assert_true(re->now_ns - re->stats.started_ns >= ((TIMERS - 1) * 2 - 1) * 1000000ull);
    assert_in_range(re->stats.busy_ns, 1, (re->now_ns - re->stats.started_ns) / 3);
    assert_true(re->stats.turns < TIMERS * 10);
    free(w);
}

/* ---- a last letter ---- */

static void farewell_letter(void *ctx, const struct letter *l)
{
    struct node *n = ctx;
    __atomic_store_n(&n->taken[l->from_shard], 1, __ATOMIC_SEQ_CST);
}

/* Only shard 0 has a timer: it posts when that fires, long after shard 1 fell asleep. */
static void farewell_timer(void *ctx, struct timer *t)
{
    struct node *n = ctx;
    struct letter l = {.from_shard = 0};
    mail_post_sure(reactor_box(&n->re, 1), &l);
    n->done = true;
}

static bool farewell_work(void *ctx) { return false; }

static bool farewell_finished(void *ctx)
{
    const struct node *n = ctx;
    return n->done || n->taken[0] > 0;
}

static void *run_farewell(void *arg)
{
    static const struct reactor_ops ops = {farewell_letter, farewell_timer, farewell_work,
                                           farewell_finished};
    struct node *n = arg, *other = &n->world->nodes[1];
    open_node(n, &ops);
    if (n->id == 0) timer_arm(&n->re.wheel, &n->end, n->re.now_ms + 50);
    reactor_run(&n->re);
    uint64_t end_ns = clock_mono_ns() + 3000000000ull;
    while (__atomic_load_n(&other->taken[0], __ATOMIC_SEQ_CST) == 0 && !n->late) {
        if (clock_mono_ns() < end_ns) continue;
        n->late = true;                          /* it sleeps on: let it see that we failed */
        reactor_poke(&n->world->office, 1);
    }
    return NULL;
}

static void the_letter_of_a_last_turn_still_wakes_its_reader(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    play(w, 2, run_farewell);
    assert_int_equal(w->nodes[1].taken[0], 1);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_of_all_shards_arrive_once_and_in_order),
        cmocka_unit_test(a_lone_shard_gets_its_own_letters),
        cmocka_unit_test(a_token_between_sleeping_shards_never_stops),
        cmocka_unit_test(timers_fire_all_and_never_early_while_letters_flow),
        cmocka_unit_test(sleeping_is_not_counted_as_busy),
        cmocka_unit_test(the_letter_of_a_last_turn_still_wakes_its_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
