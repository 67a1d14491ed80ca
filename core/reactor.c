#include "core/reactor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>


err_t reactor_office_open(struct reactor_office *o, uint32_t shards_count)
{
    memset(o, 0, sizeof(*o));
    ASSERT(shards_count > 0 && shards_count <= REACTOR_SHARDS_MAX);
    o->shards_count = o->ends_count = shards_count;
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
    for (uint32_t from = 0; from < o->ends_count; from++) {
        for (uint32_t to = 0; to < o->ends_count; to++) {
            if (o->boxes[from][to] != NULL) mail_close(&o->boxes[from][to]);
        }
    }
    while (o->ends_count > o->shards_count) {
        (void)close(o->post_fds[--o->ends_count - o->shards_count]);
    }
}

static void read_clocks(struct reactor *r)
{
    r->now_ns = clock_mono_ns();
    r->now_ms = r->now_ns / 1000000;
    r->clock_ms = clock_wall_ms();
    r->wall_ms = clock_believed_ms(&r->belief, r->clock_ms, r->now_ns);
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
    for (uint32_t i = 0; i < r->office->ends_count; i++) {
        struct mailbox *box = r->office->boxes[i][r->shard];
        uint32_t most = i < r->office->shards_count ? REACTOR_LETTERS_PER_BOX_MAX
                                                    : REACTOR_LETTERS_PER_POST_MAX;
        uint32_t taken = 0, n;
        if (box == NULL) continue;
        while (taken < most && (n = mail_take(box, batch, u32_min(BATCH, most - taken))) > 0) {
            for (uint32_t k = 0; k < n; k++) r->ops->on_letter(r->ctx, &batch[k]);
            taken += n;
        }
        r->stats.letters += taken;
        if (taken >= most) {
            r->stats.forced_yields++;
            more = true;
        }
    }
    return more;
}

/* Publish what was posted in this turn and wake the readers that sleep. True when this shard has
 * mail for itself. Letters that did not fit are tried again after REACTOR_SPILL_RETRY_NS. */
static bool post_letters(struct reactor *r)
{
    bool more = false;
    r->spilled = false;
    for (uint16_t to = 0; to < r->office->ends_count; to++) {
        struct mailbox *box = reactor_box(r, to);
        if (box == NULL) continue;
        bool posted = mail_flush(box);
        if (mail_spilled(box) > 0) r->spilled = true;
        if (to == r->shard) {
            if (mail_waiting(box)) more = true;
        } else if (posted && mail_door_knock(&r->office->doors[to])) {
            if (to < r->office->shards_count) {
                ring_wake(r->ring, ring_wake_fd(r->office->rings[to]));
            } else {
                reactor_post_ring(r->office, to);
            }
        }
    }
    return more;
}

static bool mail_for(const struct reactor_office *o, uint16_t end)
{
    for (uint32_t i = 0; i < o->ends_count; i++) {
        if (o->boxes[i][end] != NULL && mail_waiting(o->boxes[i][end])) return true;
    }
    return false;
}

static void rest(struct reactor *r)
{
    uint64_t next_ms = timer_next_ms(&r->wheel), timeout_ns = UINT64_MAX;
    struct mail_door *door = &r->office->doors[r->shard];
    mail_door_shut(door);
    bool ready = ring_sleep_ready(r->ring) || mail_for(r->office, r->shard);
    if (!ready && next_ms != UINT64_MAX) {
        uint64_t due_ns = next_ms * 1000000, now_ns = clock_mono_ns();
        timeout_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    }
    if (r->spilled) timeout_ns = u64_min(timeout_ns, REACTOR_SPILL_RETRY_NS);
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

/* ---- posts ---- */

err_t reactor_post_open(struct reactor_office *o, uint16_t *out)
{
    uint32_t index = o->ends_count - o->shards_count;
    ASSERT(index < REACTOR_POSTS_MAX);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return ERR_IO;
    o->post_fds[index] = fd;
    *out = (uint16_t)o->ends_count++;
    return OK;
}

err_t reactor_box_open(struct reactor_office *o, uint16_t from, uint16_t to)
{
    ASSERT(from < o->ends_count && to < o->ends_count && o->boxes[from][to] == NULL);
    return mail_open(&o->boxes[from][to], from, to);
}

uint32_t reactor_post_take(struct reactor_office *o, uint16_t post, uint16_t *sender,
                           struct letter *out, uint32_t out_count_max)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; i < o->ends_count && taken < out_count_max; i++) {
        uint16_t from = *sender < o->ends_count ? *sender : 0;
        if (o->boxes[from][post] != NULL) {
            taken += mail_take(o->boxes[from][post], out + taken, out_count_max - taken);
        }
        *sender = from + 1;
    }
    return taken;
}

bool reactor_post_waiting(const struct reactor_office *o, uint16_t post)
{
    return mail_for(o, post);
}

bool reactor_post_flush(struct reactor_office *o, uint16_t post)
{
    bool spilled = false;
    for (uint16_t to = 0; to < o->ends_count; to++) {
        struct mailbox *box = o->boxes[post][to];
        if (box == NULL) continue;
        bool posted = mail_flush(box);
        if (mail_spilled(box) > 0) spilled = true;
        if (!posted || !mail_door_knock(&o->doors[to])) continue;
        if (to < o->shards_count) {
            reactor_poke(o, to);
        } else {
            reactor_post_ring(o, to);
        }
    }
    return spilled;
}

void reactor_post_rest(struct reactor_office *o, uint16_t post, uint64_t timeout_ns)
{
    struct mail_door *door = &o->doors[post];
    int fd = o->post_fds[post - o->shards_count];
    mail_door_shut(door);
    if (!mail_for(o, post)) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        struct timespec most = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                                .tv_nsec = (long)(timeout_ns % 1000000000)};
        (void)ppoll(&wait, 1, timeout_ns == UINT64_MAX ? NULL : &most, NULL);
    }
    mail_door_open(door);
    uint64_t rung;
    (void)!read(fd, &rung, sizeof rung);   /* not blocking: empty is as good */
}

void reactor_post_ring(struct reactor_office *o, uint16_t post)
{
    uint64_t one = 1;
    ASSERT(post >= o->shards_count && post < o->ends_count);
    (void)!write(o->post_fds[post - o->shards_count], &one, sizeof one);   /* full is rung, too */
}
