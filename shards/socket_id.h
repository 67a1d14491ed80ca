/* socket_id.h - the two numbers of a socket id: the first leads to the connection.
 *
 * Shape    a = n * places + number * shards + shard, where places = shards * conns_reserved, n is
 *          random, and number is the connection's on its shard. b is random. So a socket that is
 *          named in a request is found without a table, and two living sockets never share an id.
 *          Nothing is proved by knowing an id: b makes it unlikely that an old one names another.
 * Threads  The shard; socket_id_shard: any.
 * Source   spec/pusher-v1.md 2 (two integers up to 10^10).
 */
#pragma once
#include "shards/conn.h"

#define SOCKET_ID_PART_MAX 10000000000ull

static inline uint64_t socket_id_places(const struct shard *sh)
{
    return sh->conns_reserved * sh->server->shards_count;
}

static inline void socket_id_draw(struct shard *sh, struct conn *c)
{
    uint64_t places = socket_id_places(sh);
    uint64_t place = (uint64_t)conn_sock(sh, c) * sh->server->shards_count + sh->id;
    uint64_t rounds = (SOCKET_ID_PART_MAX - place) / places + 1;
    c->socket_a = rng_below(&sh->re.rng, rounds) * places + place;
    c->socket_b = rng_below(&sh->re.rng, SOCKET_ID_PART_MAX + 1);
}

/* The open WebSocket with this id on this shard, or NULL. */
static inline struct conn *socket_id_find(struct shard *sh, uint64_t a, uint64_t b)
{
    uint64_t place = a % socket_id_places(sh);
    uint64_t number = place / sh->server->shards_count;
    if (place % sh->server->shards_count != sh->id || number >= sh->conns_seen) return NULL;
    struct conn *c = &sh->conns[number];
    return c->state == CONN_WS && c->socket_a == a && c->socket_b == b ? c : NULL;
}
