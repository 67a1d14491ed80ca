/* Goal    Letters arrive once, whole and in post order, spilled ones included, between two real
 *         threads; bounds are exact; no wake-up is lost.
 * Method  Bounds and spilling on one thread against a running number. Then a poster thread and a
 *         reading main thread: every letter carries its number and words derived from it, so a torn
 *         or reordered letter shows. For the doors the reader really sleeps, on an eventfd with a
 *         bound of five seconds, and the poster goes on only when its letter was seen: a lost
 *         wake-up ends in that bound and fails. The window that the doors' barriers close is a few
 *         nanoseconds wide, so one more case sends both threads into it at the same moment.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "core/mail.h"
#include "core/rng.h"

enum { FROM = 3, TO = 5, BATCH = 64, WAIT_MS_MAX = 5000 };

static struct letter letter_of(uint64_t number)
{
    struct letter l = {.kind = (uint16_t)number, .from_shard = FROM, .flags = (uint32_t)~number,
                       .posted_ns = number};

    for (uint64_t i = 0; i < 5; i++) l.arg[i] = number * (2 * i + 3) + i;
    return l;
}

/* Not a cmocka assertion: it is used on both threads. */
static bool letter_is(const struct letter *l, uint64_t number)
{
    struct letter expected = letter_of(number);

    return memcmp(l, &expected, sizeof expected) == 0;
}

static struct mailbox *open_box(void)
{
    struct mailbox *box;

    assert_int_equal(mail_open(&box, FROM, TO), OK);
    assert_non_null(box);
    return box;
}

static void take_exactly(struct mailbox *box, uint64_t *next, uint64_t count)
{
    struct letter out[BATCH];

    while (count > 0) {
        uint32_t got = mail_take(box, out, (uint32_t)u64_min(count, BATCH));
        assert_true(got > 0);
        for (uint32_t i = 0; i < got; i++) assert_true(letter_is(&out[i], (*next)++));
        count -= got;
    }
}

static void mail_holds_exactly_its_slots(void **state)
{
    struct mailbox *box = open_box();
    uint64_t        posted = 0, taken = 0;
    struct letter   l, out;

    assert_false(mail_waiting(box));
    assert_int_equal(mail_take(box, &out, 1), 0);
    assert_false(mail_flush(box));
    for (int round = 0; round < 5; round++) {   /* round and round the queue */
        while (mail_room(box) > 0) {
            assert_int_equal(mail_room(box), MAIL_SLOTS - (posted - taken));
            l = letter_of(posted++);
            assert_int_equal(mail_post(box, &l), OK);
        }
        assert_int_equal(posted - taken, MAIL_SLOTS);
        l = letter_of(posted);
        assert_int_equal(mail_post(box, &l), ERR_FULL);
        assert_int_equal(mail_spilled(box), 0);
        assert_true(mail_flush(box));
        assert_false(mail_flush(box));          /* nothing new since */
        assert_true(mail_waiting(box));
        take_exactly(box, &taken, 700 + (uint64_t)round * 300);
        assert_int_equal(mail_room(box), MAIL_SLOTS - (posted - taken));
    }
    take_exactly(box, &taken, posted - taken);
    assert_false(mail_waiting(box));
    mail_close(&box);
    assert_null(box);
    mail_close(&box);
}

static void mail_spilled_letters_keep_their_order(void **state)
{
    struct mailbox *box = open_box();
    uint64_t        posted = 0, taken = 0;
    struct letter   l;

    for (int i = 0; i < MAIL_SLOTS + 5000; i++) {
        l = letter_of(posted++);
        mail_post_sure(box, &l);
    }
    assert_int_equal(mail_spilled(box), 5000);
    take_exactly(box, &taken, 100);

    /* The queue has room, but a plain letter now would overtake the spilled ones. */
    l = letter_of(posted);
    assert_int_equal(mail_room(box), 0);
    assert_int_equal(mail_post(box, &l), ERR_FULL);
    mail_post_sure(box, &l);
    posted++;
    assert_int_equal(mail_spilled(box), 5001);

    assert_true(mail_flush(box));
    assert_int_equal(mail_spilled(box), 4901);
    assert_false(mail_flush(box));              /* still full: nothing was published */
    while (taken < posted) {
        take_exactly(box, &taken, u64_min(posted - taken, MAIL_SLOTS));
        assert_int_equal(mail_flush(box), taken < posted);
    }
    assert_int_equal(mail_spilled(box), 0);
    assert_int_equal(mail_room(box), MAIL_SLOTS);
    assert_int_equal(mail_post(box, &l), OK);
    mail_close(&box);
}

/* The backlog wanders between nothing and several windows while far more letters than that pass. */
static void mail_spill_agrees_with_a_running_number(void **state)
{
    struct mailbox *box = open_box();
    uint64_t        posted = 0, taken = 0, target = 0, spilled_max = 0;
    struct rng      r;

    rng_seed(&r, 1);
    for (int step = 0; step < 4000; step++) {
        if (step % 100 == 0) target = rng_below(&r, 2) * rng_below(&r, 40000);
        uint64_t post = posted - taken < target ? rng_below(&r, 5000) : rng_below(&r, 300);
        for (; post > 0; post--) {
            struct letter l = letter_of(posted);
            if (post % 3 != 0) mail_post_sure(box, &l);
            else if (mail_post(box, &l) != OK) continue;
            posted++;
        }
        assert_true(mail_spilled(box) <= posted - taken);
        spilled_max = u64_max(spilled_max, mail_spilled(box));
        mail_flush(box);
        uint64_t queued = posted - taken - mail_spilled(box);
        assert_true(queued == MAIL_SLOTS || mail_spilled(box) == 0);
        take_exactly(box, &taken, u64_min(queued, rng_below(&r, 2000)));
    }
    assert_true(spilled_max > 20000);           /* the window grew and slid */
    mail_close(&box);
}

static uint64_t resident_bytes(void)
{
    unsigned long long whole, resident;
    FILE              *f = fopen("/proc/self/statm", "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%llu %llu", &whole, &resident), 2);
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* A reader that stays a little behind for ever must not walk the poster through all its space. */
static void mail_spill_costs_what_waits_not_what_passed(void **state)
{
    struct mailbox *box = open_box();
    uint64_t        posted = 0, taken = 0, before = 0;

    for (int step = 0; step < 2000; step++) {
        while (posted - taken < MAIL_SLOTS + 3000) {
            struct letter l = letter_of(posted++);
            mail_post_sure(box, &l);
        }
        mail_flush(box);
        take_exactly(box, &taken, 500);
        assert_true(mail_spilled(box) > 0);
        if (step == 50) before = resident_bytes();
    }
    assert_true(posted > 1000000);              /* 64 MB of letters */
    assert_true(resident_bytes() < before + (8 << 20));
    mail_close(&box);
}

struct pair {
    struct mailbox  *box;
    struct mail_door door;
    int              wake_fd;
    uint64_t         letters;
    uint64_t         seen;      /* written by the reader, atomically */
    bool             gave_up;   /* by the reader: the poster stops waiting */
    uint32_t         arrived;   /* at the meeting point, both threads */
};

/* Mostly letters that must not be refused, so that the spill list is in play while they move. */
static void *post_stream(void *ctx)
{
    struct pair *p = ctx;

    for (uint64_t number = 0; number < p->letters;) {
        for (int i = 0; i < 100 && number < p->letters; i++) {
            struct letter l = letter_of(number);
            if (number % 4 != 0) mail_post_sure(p->box, &l);
            else if (mail_post(p->box, &l) != OK) break;
            number++;
        }
        mail_flush(p->box);
        if (mail_spilled(p->box) > 20000) sched_yield();
    }
    while (mail_spilled(p->box) > 0 && !__atomic_load_n(&p->gave_up, __ATOMIC_ACQUIRE)) {
        mail_flush(p->box);
        sched_yield();
    }
    return NULL;
}

static void mail_order_holds_between_threads(void **state)
{
    struct pair   p = {.box = open_box(), .letters = 1000000};
    struct letter out[BATCH];
    uint64_t      next = 0, wrong = 0;
    pthread_t     poster;

    assert_int_equal(pthread_create(&poster, NULL, post_stream, &p), 0);
    while (next < p.letters && wrong == 0) {
        uint32_t got = mail_take(p.box, out, BATCH);
        for (uint32_t i = 0; i < got; i++) wrong += !letter_is(&out[i], next++);
        if (got == 0) sched_yield();
    }
    __atomic_store_n(&p.gave_up, true, __ATOMIC_RELEASE);
    assert_int_equal(pthread_join(poster, NULL), 0);
    assert_int_equal(wrong, 0);
    assert_int_equal(next, p.letters);
    assert_false(mail_waiting(p.box));
    mail_close(&p.box);
}

/* One letter at a time: the poster waits until it was seen, without ever knocking again. */
static void *post_and_knock(void *ctx)
{
    struct pair *p = ctx;

    for (uint64_t number = 0; number < p->letters; number++) {
        struct letter l = letter_of(number);
        uint64_t      one = 1;
        if (mail_post(p->box, &l) != OK) return p;
        if (!mail_flush(p->box)) return p;
        if (mail_door_knock(&p->door) && write(p->wake_fd, &one, sizeof one) != sizeof one) {
            return p;
        }
        for (uint32_t spins = 0; __atomic_load_n(&p->seen, __ATOMIC_ACQUIRE) <= number; spins++) {
            if (__atomic_load_n(&p->gave_up, __ATOMIC_ACQUIRE)) return p;
            if (spins > 100) sched_yield();
        }
    }
    return NULL;
}

/* The reader's side of the protocol, as the reactor does it. False: nobody woke us in time. */
static bool sleep_until_mail(struct pair *p, uint64_t *sleeps)
{
    bool woken = true;

    mail_door_shut(&p->door);
    if (!mail_waiting(p->box)) {
        struct pollfd fd = {.fd = p->wake_fd, .events = POLLIN};
        uint64_t      knocks;
        woken = poll(&fd, 1, WAIT_MS_MAX) == 1 && read(p->wake_fd, &knocks, sizeof knocks) > 0;
        ++*sleeps;
    }
    mail_door_open(&p->door);
    return woken;
}

static void mail_door_loses_no_wake_up(void **state)
{
    struct pair   p = {.box = open_box(), .letters = 60000, .wake_fd = eventfd(0, EFD_NONBLOCK)};
    struct letter out;
    uint64_t      wrong = 0, sleeps = 0;
    void         *failed;
    pthread_t     poster;
    bool          woken = true;

    assert_true(p.wake_fd >= 0);
    assert_int_equal(pthread_create(&poster, NULL, post_and_knock, &p), 0);
    while (p.seen < p.letters && wrong == 0 && woken) {
        if (mail_take(p.box, &out, 1) == 0) {
            woken = sleep_until_mail(&p, &sleeps);
            continue;
        }
        wrong += !letter_is(&out, p.seen);
        __atomic_store_n(&p.seen, p.seen + 1, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&p.gave_up, true, __ATOMIC_RELEASE);
    assert_int_equal(pthread_join(poster, &failed), 0);
    assert_true(woken);
    assert_int_equal(wrong, 0);
    assert_null(failed);
    assert_int_equal(p.seen, p.letters);
    assert_true(sleeps > 0);
    close(p.wake_fd);
    mail_close(&p.box);
}

/* Both threads leave at nearly the same moment, for the round-th time. */
static void meet(struct pair *p, uint32_t round)
{
    __atomic_add_fetch(&p->arrived, 1, __ATOMIC_ACQ_REL);
    for (uint32_t spins = 0; __atomic_load_n(&p->arrived, __ATOMIC_ACQUIRE) < 2 * round; spins++) {
        if (spins > 1000) sched_yield();
    }
}

/* Shifts the two threads against each other by a little, so that all offsets come up. */
static void linger(uint32_t steps)
{
    for (volatile uint32_t i = 0; i < steps; i++) continue;
}

/* Leaves in p->seen whether the poster was told to wake the reader in this round. */
static void *knock_in_rounds(void *ctx)
{
    struct pair *p = ctx;

    for (uint32_t round = 1; round <= p->letters; round++) {
        struct letter l = letter_of(round);
        meet(p, 2 * round - 1);
        linger(round % 64);
        bool posted = mail_post(p->box, &l) == OK && mail_flush(p->box);
        p->seen = mail_door_knock(&p->door);
        if (!posted) p->gave_up = true;
        meet(p, 2 * round);
    }
    return NULL;
}

static void mail_door_reader_or_poster_notices_the_other(void **state)
{
    struct pair   p = {.box = open_box(), .letters = 400000};
    struct letter out;
    uint64_t      missed = 0;
    pthread_t     poster;

    assert_int_equal(pthread_create(&poster, NULL, knock_in_rounds, &p), 0);
    for (uint32_t round = 1; round <= p.letters; round++) {
        meet(&p, 2 * round - 1);
        linger(round / 64 % 64);
        mail_door_shut(&p.door);
        bool waiting = mail_waiting(p.box);
        meet(&p, 2 * round);
        missed += !waiting && p.seen == 0;
        mail_door_open(&p.door);
        p.gave_up |= mail_take(p.box, &out, 1) != 1;
    }
    assert_int_equal(pthread_join(poster, NULL), 0);
    assert_int_equal(missed, 0);
    assert_false(p.gave_up);
    mail_close(&p.box);
}

static void mail_door_answers_one_knock_per_sleep(void **state)
{
    struct mail_door door = {0};

    assert_false(mail_door_knock(&door));
    mail_door_shut(&door);
    assert_true(mail_door_knock(&door));
    assert_false(mail_door_knock(&door));
    mail_door_open(&door);
    assert_false(mail_door_knock(&door));
    mail_door_shut(&door);
    mail_door_open(&door);
    assert_false(mail_door_knock(&door));
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(mail_holds_exactly_its_slots),
        cmocka_unit_test(mail_spilled_letters_keep_their_order),
        cmocka_unit_test(mail_spill_agrees_with_a_running_number),
        cmocka_unit_test(mail_spill_costs_what_waits_not_what_passed),
        cmocka_unit_test(mail_order_holds_between_threads),
        cmocka_unit_test(mail_door_loses_no_wake_up),
        cmocka_unit_test(mail_door_reader_or_poster_notices_the_other),
        cmocka_unit_test(mail_door_answers_one_knock_per_sleep),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
