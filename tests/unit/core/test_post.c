/* Goal    Threads without a ring and shards reach each other: every letter once and in order, no
 *         wake-up lost, spilled letters after the others, and nobody is woken who has no box.
 * Method  A token goes shard -> post -> post -> shard; each sleeps when it has nothing to do. It
 *         stops for ever when one wake-up is lost, so its rounds end in time or the test fails. A
 *         storm of numbered letters from a post that never reads passes a full queue, and a turn
 *         takes only a few of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include "core/clock.h"
#include "core/reactor.h"

enum { TOKEN = 1, NUMBER, ROUNDS = 3000, NUMBERS = 3 * MAIL_SLOTS, WAIT_MS = 20000 };

struct world {
    struct reactor_office office;
    struct reactor        re;
    uint16_t              posts[2];
    pthread_t             threads[2];
    struct timer          end;
    uint64_t              tokens, numbers, wrong;
    bool                  late, stop;       /* stop: atomic */
};

static void post_letter(struct mailbox *box, uint16_t from, uint16_t kind, uint64_t number)
{
    struct letter l = {.kind = kind, .from_shard = from, .arg = {number}};
    mail_post_sure(box, &l);
}

/* Hands the token on: the first post to the second, the second to the shard. */
static void post_run(struct world *w, bool first)
{
    struct reactor_office *o = &w->office;
    uint16_t me = w->posts[first ? 0 : 1], to = first ? w->posts[1] : 0, sender = 0;
    struct letter letters[8];
    for (uint64_t n = 0; first && n < NUMBERS; n++) {
        post_letter(o->boxes[me][0], me, NUMBER, n);
    }
    while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
        uint32_t taken = reactor_post_take(o, me, &sender, letters, 8);
        for (uint32_t i = 0; i < taken; i++) post_letter(o->boxes[me][to], me, TOKEN, 0);
        bool spilled = reactor_post_flush(o, me);
        if (taken > 0) continue;
        reactor_post_rest(o, me, spilled ? REACTOR_SPILL_RETRY_NS : UINT64_MAX);
    }
}

static void *first_main(void *arg)
{
    post_run(arg, true);
    return NULL;
}

static void *second_main(void *arg)
{
    post_run(arg, false);
    return NULL;
}

static void on_letter(void *ctx, const struct letter *l)
{
    struct world *w = ctx;
    if (l->kind == NUMBER) {
        w->wrong += l->arg[0] != w->numbers++ || l->from_shard != w->posts[0];
        return;
    }
    w->wrong += l->from_shard != w->posts[1];
    if (++w->tokens < ROUNDS) post_letter(reactor_box(&w->re, w->posts[0]), 0, TOKEN, 0);
}

static void on_timer(void *ctx, struct timer *t)
{
    struct world *w = ctx;
    w->late = t == &w->end;
}

static bool work(void *ctx) { return false; }

static bool finished(void *ctx)
{
    const struct world *w = ctx;
    return w->late || (w->tokens == ROUNDS && w->numbers == NUMBERS);
}

static void posts_and_shards_wake_each_other(void **state)
{
    static const struct reactor_ops ops = {on_letter, on_timer, work, finished};
    static const struct ring_handler handler;
    struct ring_conf conf = {.socks_max = 10, .accepts_max = 2, .handler = &handler};
    static struct world w;
    char error[256];
    assert_int_equal(reactor_office_open(&w.office, 1), OK);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(reactor_post_open(&w.office, &w.posts[i]), OK);
        assert_int_equal(w.posts[i], 1 + i);
    }
    assert_int_equal(reactor_box_open(&w.office, 0, w.posts[0]), OK);
    assert_int_equal(reactor_box_open(&w.office, w.posts[0], 0), OK);
    assert_int_equal(reactor_box_open(&w.office, w.posts[0], w.posts[1]), OK);
    assert_int_equal(reactor_box_open(&w.office, w.posts[1], 0), OK);
    assert_int_equal(reactor_open(&w.re, 0, &w.office, &conf, &ops, &w, error, sizeof error), OK);
    timer_arm(&w.re.wheel, &w.end, w.re.now_ms + WAIT_MS);
    post_letter(reactor_box(&w.re, w.posts[0]), 0, TOKEN, 0);
    assert_int_equal(pthread_create(&w.threads[0], NULL, first_main, &w), 0);
    assert_int_equal(pthread_create(&w.threads[1], NULL, second_main, &w), 0);
    reactor_run(&w.re);
    __atomic_store_n(&w.stop, true, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < 2; i++) {
        reactor_post_ring(&w.office, w.posts[i]);
        assert_int_equal(pthread_join(w.threads[i], NULL), 0);
    }
    assert_false(w.late);
    assert_int_equal(w.wrong, 0);
    assert_int_equal(w.tokens, ROUNDS);
    reactor_close(&w.re);
    reactor_office_close(&w.office);
}

static void a_turn_takes_few_letters_of_a_post(void **state)
{
    static const struct reactor_ops ops = {on_letter, on_timer, work, finished};
    static const struct ring_handler handler;
    struct ring_conf conf = {.socks_max = 10, .accepts_max = 2, .handler = &handler};
    static struct world w;
    char error[256];
    enum { COUNT = 5 * REACTOR_LETTERS_PER_POST_MAX / 2 };
    assert_int_equal(reactor_office_open(&w.office, 1), OK);
    assert_int_equal(reactor_post_open(&w.office, &w.posts[0]), OK);
    assert_int_equal(reactor_box_open(&w.office, w.posts[0], 0), OK);
    assert_int_equal(reactor_open(&w.re, 0, &w.office, &conf, &ops, &w, error, sizeof error), OK);
    for (uint64_t n = 0; n < COUNT; n++) {
        post_letter(w.office.boxes[w.posts[0]][0], w.posts[0], NUMBER, n);
    }
    assert_false(reactor_post_flush(&w.office, w.posts[0]));
    assert_true(reactor_turn(&w.re));
    assert_int_equal(w.numbers, REACTOR_LETTERS_PER_POST_MAX);
    assert_true(reactor_turn(&w.re));
    assert_int_equal(w.numbers, 2 * REACTOR_LETTERS_PER_POST_MAX);
    assert_false(reactor_turn(&w.re));
    assert_int_equal(w.numbers, COUNT);
    assert_int_equal(w.wrong, 0);
    reactor_close(&w.re);
    reactor_office_close(&w.office);
}

static void a_rest_ends_by_ring_letter_or_time(void **state)
{
    struct reactor_office o;
    uint16_t post, other, sender = 0;
    struct letter l;
    assert_int_equal(reactor_office_open(&o, 2), OK);
    assert_int_equal(reactor_post_open(&o, &post), OK);
    assert_int_equal(reactor_post_open(&o, &other), OK);
    assert_int_equal(reactor_box_open(&o, other, post), OK);
    assert_null(o.boxes[0][post]);

    uint64_t began_ns = clock_mono_ns();
    reactor_post_rest(&o, post, 3000000);
    assert_true(clock_mono_ns() - began_ns >= 3000000);
    reactor_post_ring(&o, post);           /* rung before it sleeps: it does not */
    reactor_post_rest(&o, post, UINT64_MAX);
    post_letter(o.boxes[other][post], other, NUMBER, 5);
    assert_false(reactor_post_flush(&o, other));
    assert_true(reactor_post_waiting(&o, post));
    reactor_post_rest(&o, post, UINT64_MAX);
    assert_int_equal(reactor_post_take(&o, post, &sender, &l, 1), 1);
    assert_true(l.kind == NUMBER && l.arg[0] == 5 && l.from_shard == other);
    assert_int_equal(reactor_post_take(&o, post, &sender, &l, 1), 0);
    assert_false(reactor_post_waiting(&o, post));
    reactor_office_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_and_shards_wake_each_other),
        cmocka_unit_test(a_turn_takes_few_letters_of_a_post),
        cmocka_unit_test(a_rest_ends_by_ring_letter_or_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
