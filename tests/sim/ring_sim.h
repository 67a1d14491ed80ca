/* ring_sim.h - core/ring.h without a kernel: sockets whose far ends are scripted.
 *
 * Shape    A peer is the far end of one connection. It puts bytes in `to_server`, takes them from
 *          `from_server`, may end or break. ring_turn makes up completions: in any order between
 *          sockets, late, with any cut of the bytes, with ended multishots, -ENOBUFS, short sends.
 *          A closed slot is taken by the next accept at once.
 * Checks   Every rule of ring.h about what may be outstanding asserts here.
 * Memory   Received bytes are handed over in blocks of their own, gone when the handler returns;
 *          sent bytes are read when they leave, not when they are queued: an address sanitizer
 *          finds what lives too short.
 */
#pragma once
#include "core/ring.h"
#include "core/rng.h"
#include "tests/sim/sim_pipe.h"

struct sim_peer {
    struct sim_pipe  to_server, from_server;
    uint32_t         window;          /* bytes from_server holds before sends wait */
    bool             ended;           /* end of stream after to_server */
    bool             broken;          /* reset: both directions fail */
    bool             accepted;
    bool             saw_end;         /* the server sends nothing more */
    bool             closed;          /* the server has given the slot back */
    bool             dropped;         /* nobody looks at it any more: freed when closed */
    uint32_t         sock, gen, owner;   /* owner: for whoever made it */
    uint32_t         app;             /* scratch of the owner */
    struct ring     *ring;
    struct ring_addr addr;
    uint32_t         tag;
    struct sim_peer *next;            /* in the backlog */
};

struct ring_sim_chances {             /* in 1024; the script changes them between phases */
    uint32_t event;                   /* a possible completion happens in this turn */
    uint32_t whole;                   /* receives and sends are not cut */
    uint32_t no_bufs, disarm, short_send;
};

extern struct ring_sim_chances ring_sim_chances;
extern struct rng              ring_sim_rng;      /* draws every choice of the simulation */

/* True with a chance of n in 1024. */
bool ring_sim_maybe(uint32_t n);

/* A new connection to this shard, waiting to be accepted. */
struct sim_peer *ring_sim_connect(struct ring *r, uint32_t tag, struct ring_addr addr);
/* The owner looks at it no more; it must have ended or broken. Clears *p. */
void ring_sim_drop(struct sim_peer **p);
/* The peer at a slot when the generation matches, else NULL. */
struct sim_peer *ring_sim_peer(struct ring *r, uint32_t sock, uint32_t gen);
uint32_t ring_sim_socks(const struct ring *r);    /* slots in use */
