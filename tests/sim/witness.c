/* Between the server's own parts, by the linker's --wrap: who sees a message at its home, when a
 * socket was counted in, and the faults of memory and mailboxes that a bound would cause. */
#include "shards/fan.h"
#include "tests/sim/client.h"
#include "tests/sim/tale.h"

#include <errno.h>
#include <lmdb.h>
#include <stdlib.h>

void *__real_heap_alloc(struct heap *h, uint32_t bytes);
void *__real_heap_zalloc(struct heap *h, uint32_t bytes);
err_t __real_mail_post(struct mailbox *box, const struct letter *l);
uint32_t __real_mail_room(const struct mailbox *box);
bool __real_fan_work(struct shard *sh);
uint32_t __real_home_fan(struct shard *sh, struct home *h, struct frame *f, uint64_t except_a,
                         uint64_t except_b, uint64_t started_ns);
void __real_home_on_subscribe(struct shard *sh, const struct letter *l);

bool __real_reactor_post_flush(struct reactor_office *o, uint16_t post);
bool __wrap_reactor_post_flush(struct reactor_office *o, uint16_t post);
void __wrap_rng_seed_system(struct rng *r);
void *__wrap_heap_alloc(struct heap *h, uint32_t bytes);
void *__wrap_heap_zalloc(struct heap *h, uint32_t bytes);
err_t __wrap_mail_post(struct mailbox *box, const struct letter *l);
uint32_t __wrap_mail_room(const struct mailbox *box);
bool __wrap_fan_work(struct shard *sh);
uint32_t __wrap_home_fan(struct shard *sh, struct home *h, struct frame *f, uint64_t except_a,
                         uint64_t except_b, uint64_t started_ns);
void __wrap_home_on_subscribe(struct shard *sh, const struct letter *l);
int __real_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn);
void __real_home_cache_put(struct shard *sh, struct home *h, struct frame *f);
void __wrap_home_cache_put(struct shard *sh, struct home *h, struct frame *f);

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

/* Nobody else puts letters into a box: room that was seen is there. */
static const struct mailbox *roomy;
static uint32_t roomy_left;

err_t __wrap_mail_post(struct mailbox *box, const struct letter *l)
{
    bool told = box == roomy && roomy_left > 0;
    if (told) roomy_left--;
    else if (fail(world.fail_post)) return ERR_FULL;
    err_t e = __real_mail_post(box, l);
    if (e != OK) world.failed++;         /* full without our doing */
    return e;
}

uint32_t __wrap_mail_room(const struct mailbox *box)
{
    if (fail(world.fail_post)) return 0;
    uint32_t room = __real_mail_room(box);
    if (room < WORLD_CHANNELS) world.failed++;   /* a request may want that much */
    roomy = box;
    roomy_left = room;
    return room;
}

/* A disk that refuses: the lane fails, and comes back by itself. (LMDB drops a transaction that it
 * cannot commit.) */
int __wrap_mdb_txn_commit(MDB_txn *txn)
{
    bool failed = tale.fail_commit > 0 && maybe(tale.fail_commit);
    tale_turn_within();
    if (!failed && !fail(world.fail_commit)) {
        int e = __real_mdb_txn_commit(txn);
        if (world.copy_after > 0 && --world.copy_after == 0) world_copy_after(0);
        return e;
    }
    tale.failed_commits += failed;
    mdb_txn_abort(txn);
    return maybe(512) ? ENOSPC : EIO;
}

/* What a lane says may still be on its way while the shard does something else. */
bool __wrap_reactor_post_flush(struct reactor_office *o, uint16_t post)
{
    return tale.hold > 0 && maybe(tale.hold) ? true : __real_reactor_post_flush(o, post);
}

void __wrap_rng_seed_system(struct rng *r)
{
    rng_seed(r, world.seed * 1000003 + ++world.draws);
}

/* A turn that has no time for fan-outs: what was begun stays begun. */
bool __wrap_fan_work(struct shard *sh)
{
    if (world.lazy_fan && maybe(700)) return sh->fan_first != NULL;
    return __real_fan_work(sh);
}

/* What one socket says on a channel stays in the order in which it said it. */
static void check_sender(const struct log *log, uint32_t id)
{
    uint32_t sender = world.messages[id].sender;
    for (uint32_t i = log->count; sender != 0 && i-- > 0;) {
        uint32_t before = log->ids[i];
        if (world.messages[before].sender != sender) continue;
        MUST(before < id, "message %u of client %u stands behind %u", id, sender, before);
        return;
    }
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
    check_sender(log, id);
    log->ids[log->count++] = id;
    m->seq = log->count;
}

/* An event is kept for those who subscribe next before it is fanned out; nobody may be there to
 * hear it. */
static uint32_t kept;

void __wrap_home_cache_put(struct shard *sh, struct home *h, struct frame *f)
{
    kept = 0;
    note(h, f);
    kept = world_message_in(f->bytes, f->bytes_count);
    __real_home_cache_put(sh, h, f);
}

uint32_t __wrap_home_fan(struct shard *sh, struct home *h, struct frame *f, uint64_t except_a,
                         uint64_t except_b, uint64_t started_ns)
{
    uint32_t id = world_message_in(f->bytes, f->bytes_count);
    if (id == 0 || id != kept) note(h, f);
    if (id != 0) kept = 0;
    return __real_home_fan(sh, h, f, except_a, except_b, started_ns);
}

void __wrap_home_on_subscribe(struct shard *sh, const struct letter *l)
{
    const struct sub *s = l->payload;
    struct shard *from = &world.server.shards[l->from_shard];
    const struct sim_peer *p = ring_sim_peer(from->re.ring, s->sock, s->gen);
    struct client *c = p == NULL ? NULL : client_of(p);
    int channel = world_channel(chan_name(s->chan));
    if (world.tale) {
        __real_home_on_subscribe(sh, l);
        return;
    }
    MUST(channel >= 0, "a subscription to a channel that nobody named");
    if (c != NULL && (l->arg[1] & HOME_AGAIN) == 0) {
        struct belief *b = &c->channels[channel];
        b->admitted_seq = world.logs[s->chan->app][channel].count;
        b->admissions++;
    }
    __real_home_on_subscribe(sh, l);
}
