/* Between the server's own parts, by the linker's --wrap: who sees a message at its home, when a
 * socket was counted in, and the faults of memory and mailboxes that a bound would cause. */
#include "shards/fan.h"
#include "tests/sim/client.h"

#include <stdlib.h>

void *__real_heap_alloc(struct heap *h, uint32_t bytes);
void *__real_heap_zalloc(struct heap *h, uint32_t bytes);
err_t __real_mail_post(struct mailbox *box, const struct letter *l);
uint32_t __real_mail_room(const struct mailbox *box);
bool __real_fan_work(struct shard *sh);
uint32_t __real_home_fan(struct shard *sh, struct home *h, struct frame *f, uint64_t except_a,
                         uint64_t except_b, uint64_t started_ns);
void __real_home_on_subscribe(struct shard *sh, const struct letter *l);

void *__wrap_heap_alloc(struct heap *h, uint32_t bytes);
void *__wrap_heap_zalloc(struct heap *h, uint32_t bytes);
err_t __wrap_mail_post(struct mailbox *box, const struct letter *l);
uint32_t __wrap_mail_room(const struct mailbox *box);
bool __wrap_fan_work(struct shard *sh);
uint32_t __wrap_home_fan(struct shard *sh, struct home *h, struct frame *f, uint64_t except_a,
                         uint64_t except_b, uint64_t started_ns);
void __wrap_home_on_subscribe(struct shard *sh, const struct letter *l);

static bool fail(uint32_t chance)
{
    if (!world.faults || chance == 0 || rng_below(&ring_sim_rng, 65536) >= chance) return false;
    world.failed++;
    return true;
}

void *__wrap_heap_alloc(struct heap *h, uint32_t bytes)
{
    return fail(world.fail_alloc) ? NULL : __real_heap_alloc(h, bytes);
}

void *__wrap_heap_zalloc(struct heap *h, uint32_t bytes)
{
    return fail(world.fail_alloc) ? NULL : __real_heap_zalloc(h, bytes);
}

err_t __wrap_mail_post(struct mailbox *box, const struct letter *l)
{
    if (fail(world.fail_post)) return ERR_FULL;
    err_t e = __real_mail_post(box, l);
    if (e != OK) world.failed++;         /* full without our doing */
    return e;
}

uint32_t __wrap_mail_room(const struct mailbox *box)
{
    if (fail(world.fail_post)) return 0;
    uint32_t room = __real_mail_room(box);
    if (room < WORLD_CHANNELS) world.failed++;   /* a request may want that much */
    return room;
}

/* A turn that has no time for fan-outs: what was begun stays begun. */
bool __wrap_fan_work(struct shard *sh)
{
    if (world.lazy_fan && maybe(700)) return sh->fan_first != NULL;
    return __real_fan_work(sh);
}

/* The order of a channel is the order in which its home fans out. */
static void note(const struct home *h, const struct frame *f)
{
    uint32_t id = world_message_in(f->bytes, f->bytes_count);
    int channel = world_channel(home_name(h));
    if (id == 0) return;
    MUST(channel >= 0 && id < world.messages_count, "a channel or message out of nowhere");
    struct message *m = &world.messages[id];
    struct log *log = &world.logs[h->app][channel];
    MUST(m->seq == 0, "message %u leaves its home twice", id);
    MUST(m->app == h->app && m->channel == channel, "message %u is on the wrong channel", id);
    if (log->count == log->room) {
        log->room = u32_max(2 * log->room, 256);
        log->ids = realloc(log->ids, log->room * sizeof(uint32_t));
        ASSERT(log->ids != NULL);
    }
    log->ids[log->count++] = id;
    m->seq = log->count;
}

uint32_t __wrap_home_fan(struct shard *sh, struct home *h, struct frame *f, uint64_t except_a,
                         uint64_t except_b, uint64_t started_ns)
{
    note(h, f);
    return __real_home_fan(sh, h, f, except_a, except_b, started_ns);
}

void __wrap_home_on_subscribe(struct shard *sh, const struct letter *l)
{
    const struct sub *s = l->payload;
    struct shard *from = &world.server.shards[l->from_shard];
    const struct sim_peer *p = ring_sim_peer(from->re.ring, s->sock, s->gen);
    struct client *c = p == NULL ? NULL : client_of(p);
    int channel = world_channel(chan_name(s->chan));
    MUST(channel >= 0, "a subscription to a channel that nobody named");
    if (c != NULL && (l->arg[1] & HOME_AGAIN) == 0) {
        struct belief *b = &c->channels[channel];
        b->admitted_seq = world.logs[s->chan->app][channel].count;
        b->admissions++;
    }
    __real_home_on_subscribe(sh, l);
}
