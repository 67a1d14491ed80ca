/* timer.h - a hierarchical timer wheel fed with the caller's time; it never reads a clock.
 *
 * Shape    1 ms ticks, TIMER_LEVELS levels of 64 slots with an occupancy bitmap each. Timers are
 *          intrusive: 32 bytes inside the object that owns them.
 * Threads  One owner.
 * Order    A timer never fires early; it fires in the first timer_run whose now_ms has reached
 *          its due time. Timers of one millisecond fire in no promised order.
 * Bounds   Due times further than TIMER_SPAN_MS from the wheel's now_ms are clamped to it. That
 *          time lags behind the caller's while timer_run works through more than fire_max.
 * Memory   None allocated after timer_wheel_open.
 */
#pragma once
#include "core/err.h"

enum { TIMER_LEVELS = 5, TIMER_SLOTS = 64 };
#define TIMER_SPAN_MS ((1ull << (6 * TIMER_LEVELS)) - 1)

struct timer {
    struct timer  *next;   /* wheel-owned */
    struct timer **link;   /* wheel-owned; NULL while not armed */
    uint64_t       due_ms; /* as clamped by timer_arm */
    uint32_t       kind;   /* owner's tag, handed back unchanged */
    uint32_t       slot;   /* wheel-owned */
};
static_assert(sizeof(struct timer) <= 40, "timers sit inside every connection");

struct timer_wheel {
    uint64_t      now_ms;
    uint64_t      armed_count;
    uint64_t      occupied[TIMER_LEVELS];
    struct timer *slots[TIMER_LEVELS][TIMER_SLOTS];
};

void timer_wheel_open(struct timer_wheel *w, uint64_t now_ms);

/* Arm or re-arm; t was zeroed before its first use. A due time at or before now fires in the next
 * timer_run. */
void timer_arm(struct timer_wheel *w, struct timer *t, uint64_t due_ms);
/* Does nothing when t is not armed. */
void timer_disarm(struct timer_wheel *w, struct timer *t);
static inline bool timer_armed(const struct timer *t) { return t->link != NULL; }

/* Fire up to fire_max due timers; each is disarmed before fn is called, and fn may arm or disarm
 * any timer, this one included. Returns how many fired; fewer than fire_max means none is due. */
uint32_t timer_run(struct timer_wheel *w, uint64_t now_ms, uint32_t fire_max,
                   void (*fn)(void *ctx, struct timer *t), void *ctx);

/* A time at or before the next due timer, never earlier than necessary by more than one cascade;
 * UINT64_MAX when nothing is armed. The reactor sleeps until then. */
uint64_t timer_next_ms(const struct timer_wheel *w);

/* Walks everything and asserts the invariants. */
void timer_validate(const struct timer_wheel *w);
