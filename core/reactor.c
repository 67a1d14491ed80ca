#include "core/reactor.h"

#include "core/clock.h"

enum { SPILL_RETRY_NS = 200000 };        /* the reader's progress wakes nobody */

err_t reactor_office_open(struct reactor_office *o, uint32_t shards_count)
{
    memset(o, 0, sizeof(*o));
    ASSERT(shards_count > 0 && shards_count <= REACTOR_SHARDS_MAX);
    o->shards_count = shards_count;
    for (uint16_t from = 0; from < shards_count; from++) {
        for (uint16_t to = 0; to < shards_count; to++) {
            err_t e = mail_open(&o->boxes[from][to], from, to);
            if (e != OK) {
                reactor_office_close(o);
                return e;
            }
        }
    }
    return OK;
}

void reactor_office_close(struct reactor_office *o)
{
    for (uint32_t from = 0; from < o->shards_count; from++) {
        for (uint32_t to = 0; to < o->shards_count; to++) {
            if (o->boxes[from][to] != NULL) mail_close(&o->boxes[from][to]);
        }
    }
}

static void read_clocks(struct reactor *r)
{
    r->now_ns = clock_mono_ns();
    r->now_ms = r->now_ns / 1000000;
    r->wall_ms = clock_wall_ms();
}

/* Sleeping in the ring also submits and receives, so wall time outside of it would say too little:
 * the thread's CPU clock knows. Reading it is a system call, hence not every turn. */
static void read_busy(struct reactor *r)
{
    if (r->now_ns - r->busy_read_ns < REACTOR_BUSY_LAG_NS) return;
    r->busy_read_ns = r->now_ns;
    r->stats.busy_ns = clock_cpu_ns() - r->busy_started_ns;
}

err_t reactor_open(struct reactor *r, uint16_t shard, struct reactor_office *office,
                   const struct ring_conf *ring_conf, const struct reactor_ops *ops, void *ctx,
                   char *error, uint32_t error_bytes)
{
    memset(r, 0, sizeof(*r));
    r->shard = shard;
    r->office = office;
    r->ops = ops;
    r->ctx = ctx;
    rng_seed_system(&r->rng);
    read_clocks(r);
    r->stats.started_ns = r->busy_read_ns = r->now_ns;
    r->busy_started_ns = clock_cpu_ns();
    timer_wheel_open(&r->wheel, r->now_ms);
    err_t e = ring_open(&r->ring, ring_conf, error, error_bytes);
    if (e != OK) return e;
    office->rings[shard] = r->ring;
    return OK;
}

void reactor_close(struct reactor *r)
{
    r->office->rings[r->shard] = NULL;
    ring_close_all(&r->ring);
}

/* Letters that arrive for this shard, from every sender in turn. True when a box still has some. */
static bool take_letters(struct reactor *r)
{
    enum { BATCH = 32 };
    struct letter batch[BATCH];
    bool more = false;
    for (uint32_t i = 0; i < r->office->shards_count; i++) {
        struct mailbox *box = r->office->boxes[i][r->shard];
        uint32_t taken = 0, n;
        while (taken < REACTOR_LETTERS_PER_BOX_MAX && (n = mail_take(box, batch, BATCH)) > 0) {
            for (uint32_t k = 0; k < n; k++) r->ops->on_letter(r->ctx, &batch[k]);
            taken += n;
        }
        r->stats.letters += taken;
        if (taken >= REACTOR_LETTERS_PER_BOX_MAX) {
            r->stats.forced_yields++;
            more = true;
        }
    }
    return more;
}

/* Publish what was posted in this turn and wake the readers that sleep. True when this shard has
 * mail for itself. Letters that did not fit are tried again after SPILL_RETRY_NS at the latest. */
static bool post_letters(struct reactor *r)
{
    bool more = false;
    r->spilled = false;
    for (uint16_t to = 0; to < r->office->shards_count; to++) {
        struct mailbox *box = reactor_box(r, to);
        bool posted = mail_flush(box);
        if (mail_spilled(box) > 0) r->spilled = true;
        if (to == r->shard) {
            if (mail_waiting(box)) more = true;
        } else if (posted && mail_door_knock(&r->office->doors[to])) {
            ring_wake(r->ring, ring_wake_fd(r->office->rings[to]));
        }
    }
    return more;
}

static bool mail_for_me(struct reactor *r)
{
    for (uint32_t i = 0; i < r->office->shards_count; i++) {
        if (mail_waiting(r->office->boxes[i][r->shard])) return true;
    }
    return false;
}

static void rest(struct reactor *r)
{
    uint64_t next_ms = timer_next_ms(&r->wheel), timeout_ns = UINT64_MAX;
    struct mail_door *door = &r->office->doors[r->shard];
    mail_door_shut(door);
    bool ready = ring_sleep_ready(r->ring) || mail_for_me(r);
    if (!ready && next_ms != UINT64_MAX) {
        uint64_t due_ns = next_ms * 1000000, now_ns = clock_mono_ns();
        timeout_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    }
    if (r->spilled) timeout_ns = u64_min(timeout_ns, SPILL_RETRY_NS);
    if (!ready && timeout_ns > 0) ring_sleep(r->ring, timeout_ns);
    mail_door_open(door);
    ring_awake(r->ring);
}

bool reactor_turn(struct reactor *r)
{
    r->stats.turns++;
    bool more = ring_turn(r->ring);
    uint32_t fired = timer_run(&r->wheel, r->now_ms, REACTOR_TIMERS_PER_TURN_MAX,
                               r->ops->on_timer, r->ctx);
    if (fired == REACTOR_TIMERS_PER_TURN_MAX) {
        r->stats.forced_yields++;
        more = true;
    }
    if (take_letters(r)) more = true;
    if (r->ops->work(r->ctx)) more = true;
    if (post_letters(r)) more = true;
    return more;
}

void reactor_run(struct reactor *r)
{
    read_clocks(r);
    for (;;) {
        bool more = reactor_turn(r);
        if (r->ops->finished(r->ctx)) {
            ring_sleep(r->ring, 0);   /* submits the wake-ups for this turn's letters */
            return;
        }
        if (!more) rest(r);
        read_clocks(r);
        read_busy(r);
    }
}

void reactor_poke(struct reactor_office *o, uint16_t shard)
{
    if (o->rings[shard] != NULL) ring_wake_by_event(o->rings[shard]);
}
