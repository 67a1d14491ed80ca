/* user.h - signed-in users: sign-in, online status, watchlists, ending a user's sockets.
 *
 * Shape    A signed-in socket is a hidden subscriber of "#server-to-user-{id}", so events for the
 *          user, its count of sockets and its end all use the channel machinery. A watch is one
 *          entry per (watching socket, watched user) at the watched user's home.
 * Threads  The shard; watch entries at homes belong to the home's shard.
 * Bounds   USER_WATCHLIST_MAX watches a socket.
 * Source   spec/pusher-v1.md 5; spec/protocol-v2.md 3; spec/settled.md 7, 17, 19.
 */
#pragma once
#include "shards/home.h"

enum { USER_WATCHLIST_MAX = 100, USER_ID_BYTES_MAX = 128 };

struct watch_entry;                    /* at the watched user's home */

struct watch {                         /* one watched user of one socket */
    struct user        *user;          /* owner */
    struct watch_entry *entry;         /* at the home, once answered; opaque */
    uint16_t            home_shard;
    bool                online;
    uint32_t            name_bytes;    /* of the watched user's channel name */
    char               *name;          /* inside the user's block */
};

struct user {                          /* a socket's signed-in user; owned by the connection */
    uint32_t      sock, gen;
    uint32_t      app;
    uint32_t      waiting;             /* answers outstanding */
    uint32_t      epoch;               /* tells this sign-in from others on the same socket */
    bool          joining;             /* its own channel has not answered yet */
    bool          ready;               /* signin_success has been sent */
    bool          gone;                /* the socket left or signed in again: free at waiting 0 */
    struct slice  id;                  /* decoded, inside the block */
    struct slice  id_json, info_json;  /* raw JSON */
    struct slice  data;                /* user_data as sent, decoded text */
    struct watch *watches;             /* inside the block */
    uint32_t      watches_count;
    uint32_t      block_bytes;
};

/* pusher:signin; its data. */
void user_signin(struct shard *sh, struct conn *c, const struct json_value *data);
/* The socket closes. */
void user_gone(struct shard *sh, struct conn *c);
/* The home has answered the hidden subscription of this socket. */
void user_on_joined(struct shard *sh, struct conn *c);

/* Close all sockets of a user with `code` (4009 or 4200); op gets a MAIL_ASKED when the home has
 * sent the word to every shard. ERR_FULL, ERR_MEMORY: nothing was done. */
MUST_CHECK err_t user_end(struct shard *sh, struct op *op, uint32_t app, struct slice id,
                          uint32_t code);

/* Letters. */
void user_on_end_at_home(struct shard *sh, const struct letter *l);   /* MAIL_USER_END */
void user_on_end(struct shard *sh, const struct letter *l);           /* MAIL_END_USER */
void user_on_watch(struct shard *sh, const struct letter *l);
void user_on_unwatch(struct shard *sh, const struct letter *l);
void user_on_watched(struct shard *sh, const struct letter *l);
void user_on_watch_event(struct shard *sh, const struct letter *l);
/* The first socket of the user came or the last one left. */
void user_transition(struct shard *sh, struct home *h, bool online);
