/* sim [--seed N | --seeds A-B] [--shards K] [--steps S] [--only crowd|tale] [--verbose]
 *
 * One seed is two worlds. A crowd (here) is one server's life: clients of every temper, in phases;
 * after each phase all comes to rest and is checked; at the end all leave (or are drained) and
 * nothing may be left. A tale (tale.h) is a data directory through several lives. Without --shards
 * the seed chooses 1, 2, 3 or 5. */
#include "shards/user.h"
#include "tests/sim/backend.h"
#include "tests/sim/client.h"
#include "tests/sim/tale.h"

#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { STEPS = 6000, TALE_STEPS = 20000, PHASES = 4 };

static bool read_all(void)
{
    bool any = backend_read_all();
    for (uint32_t i = 0; i < clients_count; i++) {
        if (client_read(&clients[i], true)) any = true;
    }
    return any;
}

static void choose(void)
{
    static const uint32_t alloc[] = {0, 0, 20, 200, 2000}, post[] = {0, 0, 300};
    static const uint32_t commit[] = {0, 0, 3000, 20000};
    rng_seed(&ring_sim_rng, world.seed);
    uint32_t shards[] = {1, 2, 3, 5};
    if (world.shards == 0) world.shards = shards[below(4)];
    ring_sim_chances = (struct ring_sim_chances){
        .event = 128 + below(896), .whole = below(1024), .no_bufs = below(32),
        .disarm = below(64), .short_send = maybe(512) ? below(32) : 0,
    };
    world.fail_alloc = alloc[below(5)];
    world.fail_post = post[below(3)];
    world.fail_commit = commit[below(4)];
    world.faults = false;
    world.failed = 0;
    world.lazy_fan = maybe(512);
    world.memory = maybe(512);
}

/* Events come in without HTTP: mostly one, now and then a flood that fills mailboxes and queues;
 * sometimes without one of the sockets. */
static void publish(void)
{
    uint32_t channel = below(WORLD_CHANNELS), except = below(64), shard = below(world.shards);
    uint32_t many = maybe(4) ? 100 : maybe(2) ? MAIL_SLOTS - below(8) : 1;
    for (uint32_t i = 0; i < many; i++) {
        struct client *c = except < clients_count ? &clients[except] : NULL;
        if (c != NULL && c->state == CLIENT_OPEN && c->socket_id[0] != 0) {
            world_publish(shard, c->app, channel, c->socket_a, c->socket_b, c->number);
        } else {
            world_publish(shard, below(2), channel, 0, 0, 0);
        }
    }
}

static void end_user(uint32_t app, uint32_t user)
{
    struct shard *sh = &world.server.shards[below(world.shards)];
    char id[8];
    snprintf(id, sizeof(id), "u%u", user);
    err_t e = user_end(sh, NULL, app, slice_str(id), maybe(512) ? 4009 : 4200);
    if (e != OK) MUST(world.failed > 0, "a user cannot be ended");
}

static void step(void)
{
    uint32_t what = below(100);
    if (what < 50) {
        world_turn(below(world.shards));
    } else if (what < 75) {
        client_act(&clients[below(clients_count)]);
    } else if (what < 92) {
        client_read(&clients[below(clients_count)], false);
    } else if (what < 95) {
        publish();
    } else if (what < 97) {
        backend_act();
        backend_read_all();
    } else if (what < 98) {
        if (maybe(100)) end_user(below(2), below(WORLD_USERS));
    } else {
        world_pass(maybe(20) ? below(8000) : below(20));
    }
}

/* All that were signed in as this user when the word came must have been closed. */
static void check_end_user(void)
{
    uint32_t app = below(2), user = below(WORLD_USERS);
    uint32_t numbers[WORLD_CLIENTS_MAX] = {0};
    for (uint32_t i = 0; i < clients_count; i++) {
        struct client *c = &clients[i];
        if (c->peer == NULL || !client_is_current(c)) continue;
        struct shard *sh = &world.server.shards[c->shard];
        struct conn *conn = conn_get(sh, c->peer->sock, c->peer->gen);
        bool signed_in = conn != NULL && conn->user != NULL;   /* a fault may have refused it */
        if (c->app == app && c->user == (int)user && signed_in) numbers[i] = c->number;
    }
    end_user(app, user);
    world_settle(read_all);
    check_quiet();
    for (uint32_t i = 0; i < clients_count; i++) {
        struct client *c = &clients[i];
        MUST(numbers[i] == 0 || c->number != numbers[i] || c->state == CLIENT_CLOSING,
             "client %u outlives the end of u%u", c->number, user);
    }
}

static bool drained(void)
{
    for (uint32_t i = 0; i < world.shards; i++) {
        if (world.server.shards[i].drained == 0) return false;
    }
    return true;
}

/* Everybody leaves, what is kept for a time runs out, and nothing is left. */
static void finish(void)
{
    bool drain = maybe(512);
    if (drain) {
        world.server.draining = 1;
        for (uint32_t i = 0; i < clients_count; i++) {
            clients[i].reading = true;
            if (clients[i].state == CLIENT_IDLE && maybe(100)) client_connect(&clients[i], 0);
        }
    }
    for (uint32_t i = 0; i < 10 || (drain && !drained()); i++) {
        MUST(i < 2000, "the server does not drain");
        read_all();
        for (uint32_t k = 0; k < world.shards; k++) world_turn(k);
        world_pass(10);
    }
    client_close_all();
    backend_close_all();
    for (uint32_t i = 0; i < 8; i++) {
        world_settle(read_all);
        world_pass(world.conf.cache_ttl * 500ull + 1000);
    }
    world_settle(read_all);
    check_empty();
}

static void run(uint64_t seed, uint32_t shards, uint32_t steps, bool verbose)
{
    memset(&world, 0, sizeof(world));
    world.seed = seed;
    world.shards = world.shards_asked = shards;
    world.steps = steps;
    world.verbose = verbose;
    choose();
    world_open();
    backend_open_all();
    client_open_all(2 + below(WORLD_CLIENTS_MAX - 2));
    for (uint32_t phase = 0; phase < PHASES; phase++) {
        world.faults = phase > 0;
        for (uint32_t i = 0; i < steps / PHASES; i++, world.step++) step();
        world.faults = false;
        world_settle(read_all);
        check_quiet();
        backend_ask_all();
        world_settle(read_all);
        check_end_user();
    }
    finish();
    for (uint32_t i = 0; i < world.shards; i++) {
        for (uint32_t app = 0; app < 2; app++) {
            world.rows += (uint64_t)metric_read(&world.sets[i], METRIC_HISTORY_WRITES_TOTAL, app,
                                                0);
        }
    }
    world_close();
}

/* An assertion of the server says where it stands, not when. */
static void on_abort(int signal)
{
    char text[160];
    int n = snprintf(text, sizeof(text), "sim: at seed %llu, step %u of a %s\n",
                     (unsigned long long)world.seed, world.step, world.tale ? "tale" : "crowd");
    (void)!write(STDERR_FILENO, text, (size_t)n);
    (void)signal;
}

int main(int argc, char **argv)
{
    unsigned long long from = 1, to = 20;
    uint32_t shards = 0, steps = 0;
    bool verbose = false, crowds = true, tales = true;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--verbose") == 0) {
            verbose = true;
            continue;
        }
        if (strcmp(argv[i], "--seed") == 0) from = to = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--shards") == 0) shards = (uint32_t)atoi(value);
        else if (strcmp(argv[i], "--steps") == 0) steps = (uint32_t)atoi(value);
        else if (strcmp(argv[i], "--only") == 0) {
            crowds = strcmp(value, "tale") != 0;
            tales = strcmp(value, "crowd") != 0;
        }
        else if (strcmp(argv[i], "--seeds") != 0 || sscanf(value, "%llu-%llu", &from, &to) != 2) {
            fprintf(stderr, "usage: sim [--seed N | --seeds A-B] [--shards K] [--steps S] "
                    "[--only crowd|tale]\n");
            return 2;
        }
        i++;
    }
    (void)signal(SIGABRT, on_abort);
    struct log_conf quiet = {.level = LOG_ERROR};
    if (sodium_init() < 0 || log_open(&quiet) != OK) return 2;
    for (unsigned long long seed = from; seed <= to; seed++) {
        if (tales) tale_run(seed, shards, steps > 0 ? steps : TALE_STEPS, verbose);
        if (!crowds) continue;
        run(seed, shards, steps > 0 ? steps : STEPS, verbose);
        if (verbose) fprintf(stderr, "seed %llu: %u connections, %u messages, %llu rows, "
                             "%llu faults\n", seed, world.connections, world.messages_count,
                             (unsigned long long)world.rows, (unsigned long long)world.failed);
    }
    log_close();
    printf("sim: seeds %llu-%llu hold\n", from, to);
    return 0;
}
