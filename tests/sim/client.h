/* client.h - a raw Pusher client: what it does and what it has been told.
 *
 * Shape    client_act does one random thing. client_read takes what has arrived and checks every
 *          frame against what this socket may see at that point.
 */
#pragma once
#include "tests/sim/world.h"

enum client_state {
    CLIENT_IDLE, CLIENT_ASKING /* the upgrade is under way */, CLIENT_OPEN, CLIENT_CLOSING,
    CLIENT_REFUSED /* by HTTP */,
};

enum { BELIEF_LEAVES = 4 };

struct belief {                  /* about one channel */
    bool     live;               /* subscription_succeeded came, no processed unsubscribe since */
    bool     cached_next;        /* the cached event or cache_miss must be the next frame */
    uint32_t asked;              /* subscribes sent since the last unsubscribe */
    uint32_t leaves[BELIEF_LEAVES];   /* the pings sent after unsubscribes not yet processed */
    uint32_t leaves_count;
    uint32_t next;               /* sequence expected next; 0: not known */
    uint32_t admitted_seq;       /* the home's count when it admitted this socket */
    uint32_t admissions;         /* how often since the last success: above 1 nothing is known */
    uint32_t members;            /* presence: users as bits */
};

struct client {
    struct sim_peer *peer;
    enum client_state state;
    uint32_t number;             /* of this connection, from 1 */
    uint32_t shard, app;
    uint64_t socket_a, socket_b;
    char     socket_id[PUSHER_SOCKET_ID_BYTES];
    struct sim_pipe in;          /* read, not yet understood */
    struct belief   channels[WORLD_CHANNELS];
    uint32_t pings, pongs;
    uint32_t signins, signed_in; /* numbers of the last sign-in sent, of the last success */
    uint8_t  signin_user[256];   /* by number, modulo 256 */
    uint8_t  signin_watch[256];  /* users as bits */
    int      user;               /* of the last success; -1 none */
    bool     status_next;        /* the initial watchlist status must be the next frame */
    uint32_t watched, online;    /* users as bits */
    uint32_t code;               /* of the last error frame */
    bool     reading, answering; /* takes what arrives; answers pings and closes */
    bool     rough;              /* has sent rubbish: may be closed for it */
    bool     ended;              /* its user was ended: must be closed with 4009 */
};

extern struct client clients[WORLD_CLIENTS_MAX];
extern uint32_t clients_count;

void client_open_all(uint32_t count);
void client_close_all(void);
void client_act(struct client *c);
/* Returns true when something was taken. */
bool client_read(struct client *c, bool all);
/* The connection is over for the client's part. */
void client_leave(struct client *c, bool broken);
/* True when the client knows everything the server has said and nothing else is under way. */
bool client_is_current(const struct client *c);
/* The client of a peer; NULL when it has let go of it. */
struct client *client_of(const struct sim_peer *p);

/* client_send.c: what clients say. */
void client_send_text(struct client *c, const char *text, uint32_t bytes);
void client_send_frame(struct client *c, uint8_t opcode, const void *payload, uint32_t bytes);
void client_connect(struct client *c, uint32_t shard);
void client_subscribe(struct client *c, uint32_t channel, bool wrong);
void client_unsubscribe(struct client *c, uint32_t channel);
void client_event(struct client *c, uint32_t channel);
void client_sign_in(struct client *c, uint32_t user, bool wrong);
void client_ping(struct client *c);
void client_rubbish(struct client *c);

/* belief.c: one whole frame from the server. */
void belief_frame(struct client *c, uint8_t opcode, const uint8_t *payload, uint32_t bytes);
