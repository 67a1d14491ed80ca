/* The lives of one data directory. */
#include "tests/sim/tale.h"

#include "store/store.h"

#include <stdio.h>

enum { LIVES_MAX = 6 };

static void choose_pace(void)
{
    static const uint32_t paces[] = {1024, 256, 40, 8, 0};
    static const uint32_t fails[] = {0, 0, 0, 60, 400};
    static const uint32_t alloc[] = {0, 0, 0, 20, 200}, post[] = {0, 0, 300};
    tale.store_pace = paces[below(5)];
    tale.fail_commit = tale.failing ? fails[below(5)] : 0;
    tale.hold = maybe(512) ? below(900) : 0;
    tale.within = maybe(512) ? below(900) : 0;
    world.fail_alloc = alloc[below(5)];
    world.fail_post = post[below(3)];
    world.faults = maybe(300);
    world.lazy_fan = maybe(256);
}

void tale_turn_within(void)
{
    if (tale.within == 0 || tale.committing || !maybe(tale.within)) return;
    tale.committing = true;
    for (uint32_t i = below(6); i > 0; i--) {
        tale_backend_act();
        world_turn(below(world.shards));
    }
    tale.committing = false;
}

static void step(void)
{
    uint32_t what = below(1000);
    if (tale.wild && maybe(300)) {
        tale_wild_act();
        tale_wild_read();
    } else if (what < 380) {
        world_turn(below(world.shards));
    } else if (what < 540) {
        tale_backend_act();
        tale_backend_read();
    } else if (what < 700) {
        tale_client_act(&tale_clients[WORLD_APPS + below(TALE_CLIENTS - WORLD_APPS)]);
    } else if (what < 940) {
        (void)tale_client_read(&tale_clients[below(TALE_CLIENTS)], false);
    } else if (what < 950) {
        choose_pace();
    } else if (what < 955) {
        clock_sim_wall_ms += (int64_t)below(120000) - 60000;
    } else {
        world_pass(maybe(10) ? below(8000) : below(20));
    }
}

/* What the disk holds at some commit of one more step of the lanes; nobody was told of it. */
static void kill_server(void)
{
    tale.hold = tale.within = 0;
    world.faults = false;
    if (maybe(700)) {
        world_copy_after(1 + below(4));
        (void)store_step(world.store);
    }
    tale.fail_commit = 0;
    world_copy_after(0);
    tale_clients_cut();
    tale_backend_cut();
    tale_wild_cut();
    world_stop(true);
    tale_model_lost(true);
    tale.kills++;
}

static void stop_server(void)
{
    world.faults = false;
    if (maybe(512)) tale_audit();
    else tale_settle();
    tale_clients_close();
    tale_backend_close();
    tale_wild_close();
    world_settle(tale_settle_read);
    world_stop(false);
    tale_model_lost(false);
}

static void live(uint32_t steps)
{
    world.faults = false;
    tale.hold = tale.within = 0;
    tale.store_pace = 512;
    if (maybe(300)) tale_audit();
    choose_pace();
    for (uint32_t i = 0; i < steps; i++, world.step++) step();
    world.faults = false;
    tale.hold = tale.within = 0;
}

/* Behind the tale, whose books end with what is kept: the wild channels lose everything, are
 * forgotten and come again. */
static void forget(void)
{
    enum { ROUNDS = 3, STEPS = 600, SWEEPS = 6 };
    for (uint32_t round = 0; round < ROUNDS && tale.wild && tale_forgets(); round++) {
        for (uint32_t i = 0; i < STEPS; i++, world.step++) {
            tale_wild_act();
            tale_wild_read();
            world_turn(below(world.shards));
        }
        world_settle(tale_settle_read);
        tale_wild_close();
        for (uint32_t i = 0; i < SWEEPS; i++) {    /* rows, hidden channels, channels */
            tale.fail_commit = tale.failing && i < SWEEPS - 3 ? below(500) : 0;
            world_settle(tale_settle_read);
            world_pass(i == 0 ? TALE_AGE_MS + 1000 : 3000);
        }
    }
}

void tale_run(uint64_t seed, uint32_t shards, uint32_t steps, bool verbose)
{
    static const uint32_t counts[] = {1, 2, 3, 5};
    memset(&world, 0, sizeof(world));
    world.seed = seed;
    world.shards_asked = shards;
    world.steps = steps;
    world.verbose = verbose;
    world.tale = true;
    rng_seed(&ring_sim_rng, seed ^ 0x7a1e);
    ring_sim_chances = (struct ring_sim_chances){
        .event = 200 + below(820), .whole = below(1024), .no_bufs = below(32),
        .disarm = below(64), .short_send = maybe(512) ? below(32) : 0,
    };
    tale.failing = maybe(512);
    tale.wild = maybe(512);
    tale_wild_open();
    clock_sim_ns = 1000000000;
    clock_sim_wall_ms = 0;
    world.shards = shards > 0 ? shards : counts[below(4)];
    tale_clients_open();
    uint32_t lives = 1 + below(LIVES_MAX);
    for (uint32_t i = 0; i < lives; i++) {
        bool last = i + 1 == lives, killed = !last && maybe(700);
        tale.lives++;
        world_leaks(killed);
        if (i == 0) {
            world_open();
        } else {
            if (shards == 0) world.shards = counts[below(4)];
            world_start();
        }
        live(steps / lives);
        if (killed) kill_server();
        else if (!last) stop_server();
    }
    tale_audit();
    tale_clients_close();
    tale_backend_close();
    tale_wild_close();
    forget();
    for (uint32_t i = 0; i < 4; i++) {
        world_settle(tale_settle_read);
        world_pass(40000000);            /* what is kept for a time runs out */
    }
    check_empty();
    world_leaks(false);
    world_close();
    if (verbose) {
        const char *form = "tale %llu: %u lives, %u kills, %u operations, %llu said again, %llu "
                           "answers, %llu frames, %llu rewinds, %llu resumes, %llu taken up, %llu "
                           "refused, %llu mended, %llu twice, %llu commits failed, %llu channels "
                           "forgotten\n";
        fprintf(stderr, form, (unsigned long long)seed, tale.lives, tale.kills, tale.ops_count,
                (unsigned long long)tale.again, (unsigned long long)tale.answers,
                (unsigned long long)tale.frames, (unsigned long long)tale.rewinds,
                (unsigned long long)tale.resumes,
                (unsigned long long)tale.recovered, (unsigned long long)tale.refused,
                (unsigned long long)tale.mends, (unsigned long long)tale.twice,
                (unsigned long long)tale.failed_commits, (unsigned long long)tale.forgotten);
    }
    tale_model_free();
}
