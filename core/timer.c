/* A timer lies on the level of the highest 6-bit digit of its distance when armed, in the slot
 * which that digit of its due time names:
 *
 *      due  = | d4 | d3 | d2 | d1 | d0 |      level 0: 64 slots of 1 ms, level 1: of 64 ms,
 *      now  = | n4 | n3 | n2 | n1 | n0 |      ... level 4: of 4.7 h; each level wraps
 *
 * On level 0 the slots n0 .. n0 + 63 are in use, above it n + 1 .. n + 64: a slot of now's own
 * number is a turn away. When now reaches the start of a slot above level 0 its timers move down,
 * so 200,000 timers spread over two minutes move some 7,000 at a time, never all at once.
 */
#include "core/timer.h"

enum { DIGIT_BITS = 6 };
static_assert(1 << DIGIT_BITS == TIMER_SLOTS, "a digit names a slot");
static_assert(TIMER_SLOTS == 64, "one bitmap word per level");
static_assert(TIMER_SPAN_MS >> (DIGIT_BITS * TIMER_LEVELS) == 0, "the span ends on the top level");

void timer_wheel_open(struct timer_wheel *w, uint64_t now_ms)
{
    memset(w, 0, sizeof *w);
    w->now_ms = now_ms;
}

static uint32_t digit(uint64_t ms, uint32_t level)
{
    return (uint32_t)(ms >> (DIGIT_BITS * level)) & (TIMER_SLOTS - 1);
}

/* The slot, numbered across levels, in which a timer due at due_ms belongs now. */
static uint32_t slot_of(const struct timer_wheel *w, uint64_t due_ms)
{
    uint64_t distance = (due_ms - w->now_ms) | 1;
    uint32_t level = (63u - (uint32_t)__builtin_clzll(distance)) / DIGIT_BITS;

    return level * TIMER_SLOTS + digit(due_ms, level);
}

static void link_in(struct timer_wheel *w, struct timer *t, uint32_t slot)
{
    uint32_t       level = slot / TIMER_SLOTS;
    struct timer **head = &w->slots[level][slot % TIMER_SLOTS];

    t->slot = slot;
    t->next = *head;
    t->link = head;
    if (t->next != NULL) t->next->link = &t->next;
    *head = t;
    w->occupied[level] |= 1ull << (slot % TIMER_SLOTS);
}

static void unlink_out(struct timer_wheel *w, struct timer *t)
{
    uint32_t level = t->slot / TIMER_SLOTS, at = t->slot % TIMER_SLOTS;

    *t->link = t->next;
    if (t->next != NULL) t->next->link = t->link;
    else if (w->slots[level][at] == NULL) w->occupied[level] &= ~(1ull << at);
    t->next = NULL;
    t->link = NULL;
}

void timer_arm(struct timer_wheel *w, struct timer *t, uint64_t due_ms)
{
    due_ms = u64_max(due_ms, w->now_ms);
    if (due_ms - w->now_ms > TIMER_SPAN_MS) due_ms = w->now_ms + TIMER_SPAN_MS;

    uint32_t slot = slot_of(w, due_ms);
    t->due_ms = due_ms;
    if (t->link != NULL) {
        if (t->slot == slot) return;   /* pushing a deadline by less than a slot: nothing moves */
        unlink_out(w, t);
    } else {
        w->armed_count++;
    }
    link_in(w, t, slot);
}

void timer_disarm(struct timer_wheel *w, struct timer *t)
{
    if (t->link == NULL) return;
    unlink_out(w, t);
    w->armed_count--;
}

/* When the next occupied slot begins; UINT64_MAX when all are empty. */
static uint64_t next_start(const struct timer_wheel *w)
{
    uint64_t next_ms = UINT64_MAX;

    for (uint32_t level = 0; level < TIMER_LEVELS; level++) {
        uint64_t bits = w->occupied[level];
        if (bits == 0) continue;

        /* Rotated so that bit 0 is the first slot in use: now's own on level 0, else the next. */
        uint64_t at = (w->now_ms >> (DIGIT_BITS * level)) + (level > 0);
        uint32_t first = (uint32_t)at & (TIMER_SLOTS - 1);
        bits = (bits >> first) | (bits << (-first & (TIMER_SLOTS - 1)));
        at += (uint64_t)__builtin_ctzll(bits);
        next_ms = u64_min(next_ms, at << (DIGIT_BITS * level));
    }
    return next_ms;
}

/* now_ms has just come to start_ms: slots above level 0 that begin there move their timers down. */
static void advance(struct timer_wheel *w, uint64_t start_ms)
{
    w->now_ms = start_ms;
    for (uint32_t level = 1; level < TIMER_LEVELS; level++) {
        if ((start_ms & ((1ull << (DIGIT_BITS * level)) - 1)) != 0) return;

        uint32_t      at = digit(start_ms, level);
        struct timer *t = w->slots[level][at];
        w->slots[level][at] = NULL;
        w->occupied[level] &= ~(1ull << at);
        while (t != NULL) {
            struct timer *next = t->next;
            link_in(w, t, slot_of(w, t->due_ms));
            t = next;
        }
    }
}

uint32_t timer_run(struct timer_wheel *w, uint64_t now_ms, uint32_t fire_max,
                   void (*fn)(void *ctx, struct timer *t), void *ctx)
{
    uint32_t fired = 0;

    /* The wheel's own time stops at each occupied slot on the way to now_ms. It stays there when
     * fire_max is reached, so what is left over needs no list of its own. */
    while (fired < fire_max) {
        struct timer *t = w->slots[0][digit(w->now_ms, 0)];
        if (t != NULL) {
            ASSERT(t->due_ms == w->now_ms);
            timer_disarm(w, t);
            fired++;
            fn(ctx, t);
            continue;
        }

        uint64_t start_ms = next_start(w);
        if (start_ms > now_ms) {
            w->now_ms = u64_max(w->now_ms, now_ms);   /* a clock that went back moves nothing */
            break;
        }
        ASSERT(start_ms > w->now_ms);
        advance(w, start_ms);
    }
    return fired;
}

uint64_t timer_next_ms(const struct timer_wheel *w)
{
    return next_start(w);
}

void timer_validate(const struct timer_wheel *w)
{
    uint64_t armed = 0;

    for (uint32_t slot = 0; slot < TIMER_LEVELS * TIMER_SLOTS; slot++) {
        uint32_t level = slot / TIMER_SLOTS, at = slot % TIMER_SLOTS;
        struct timer *const *link = &w->slots[level][at];

        ASSERT(((w->occupied[level] >> at & 1) != 0) == (*link != NULL));
        for (const struct timer *t = *link; t != NULL; t = t->next) {
            ASSERT(t->link == link);
            ASSERT(t->slot == slot);
            ASSERT(digit(t->due_ms, level) == at);
            uint64_t ahead = (t->due_ms >> (DIGIT_BITS * level)) -
                             (w->now_ms >> (DIGIT_BITS * level));
            ASSERT(ahead - (level > 0) < TIMER_SLOTS);
            ASSERT(t->due_ms >= w->now_ms && t->due_ms - w->now_ms <= TIMER_SPAN_MS);
            ASSERT(++armed <= w->armed_count);
            link = &t->next;
        }
    }
    ASSERT(armed == w->armed_count);
}
