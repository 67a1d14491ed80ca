/* home.h - a channel at its home shard: who is interested, how many, the order of its messages.
 *
 * Shape    One entry a channel while it has subscriptions, a cached event, members in their grace
 *          time, or (user channels) watchers. Every shard with subscribers is one interest.
 * Threads  The home shard. `publish` structs are lent by the shard that received the publish.
 * Order    The order in which letters are handled here is the order of the channel, for everybody.
 * Bounds   cache.max_bytes (this shard's part) for cached events, oldest out, counted.
 * Source   spec/pusher-v1.md 3.4-3.7, 6; spec/settled.md 6, 7, 21.
 */
#pragma once
#include "shards/chan.h"
#include "shards/op.h"

struct stream;
struct content;

struct interest {                      /* one shard's subscriptions */
    uint64_t chan;                     /* handle there */
    uint32_t subs_count;
    uint32_t v2_count, full_count;     /* of them: V2 sockets; with append_mode=full */
    uint16_t shard;
};

struct member_news {                   /* a member has changed its info: presence_update.h */
    uint64_t from_ms;                  /* of the window under way */
    uint32_t count;                    /* updates in it */
    uint32_t info_bytes;
    uint8_t  info[];                   /* compact JSON */
};

struct member {                        /* a user on a presence channel */
    struct table_node node;            /* shard's members table, by (home, id) */
    struct home      *home;
    struct member    *next, **link;    /* among the channel's members */
    uint32_t          sockets_count;
    struct timer      grace;           /* presence.ungraceful_timeout_seconds */
    uint64_t          left_a, left_b;  /* while it runs: the socket that left last */
    uint8_t           left_cause;      /* and why: enum presence_log_cause */
    struct member_news *news;          /* owned; NULL: the info is the one it came with */
    uint32_t          id_json_bytes, id_bytes, info_bytes;
    uint8_t           bytes[];         /* id as raw JSON, id decoded, info as compact JSON */
};
static inline struct slice member_id_json(const struct member *m)
{
    return slice_of(m->bytes, m->id_json_bytes);
}
static inline struct slice member_id(const struct member *m)
{
    return slice_of(m->bytes + m->id_json_bytes, m->id_bytes);
}
static inline struct slice member_info(const struct member *m)
{
    if (m->news != NULL) return slice_of(m->news->info, m->news->info_bytes);
    return slice_of(m->bytes + m->id_json_bytes + m->id_bytes, m->info_bytes);
}

struct home_extra {                    /* what most channels do not have */
    struct member *members;            /* presence channels */
    uint32_t       members_count;
    struct frame  *cached;             /* counted (this shard); NULL when none */
    uint64_t       cached_until_ms;    /* wheel time */
    struct home   *cache_older, *cache_newer;
    struct watch_entry *watchers;      /* user channels */
    struct stream *streams[3];         /* by enum stream_what (stream.h); NULL: none */
    struct timer   count_timer;        /* a subscription_count frame is due */
    struct home   *home;               /* whose this is */
};

struct home {
    struct table_node  node;
    struct home       *app_next, **app_link;   /* among the app's homes on this shard */
    struct home_extra *extra;          /* owned; NULL for most */
    struct interest   *interests;      /* owned, interests_room of them */
    uint16_t           interests_count, interests_room;
    uint32_t           subs_count, v2_count, full_count;
    uint16_t           app;
    uint16_t           pins;           /* its streams, attaches under way, lists that stand here */
    uint8_t            kind;           /* enum pusher_kind */
    bool               cache;
    uint32_t           stream_age;     /* of its stream without history: stream.c */
    uint32_t           name_bytes;
    char               name[];
};
static inline struct slice home_name(const struct home *h)
{
    return slice_of(h->name, h->name_bytes);
}

struct publish {                       /* one publish to one channel, lent to the home */
    struct op *op;                     /* who waits for MAIL_PUBLISHED; NULL: a client event */
    uint64_t   except_a, except_b;     /* socket id that is left out; 0/0: none */
    uint64_t   started_ns;
    uint32_t   app, index;             /* index: which of the op's channels */
    uint32_t   sock, gen;              /* a client event's sender; gen 0: none */
    uint8_t    kind;                   /* enum pusher_kind */
    bool       cache;                  /* keep as the channel's cached event */
    struct content *content;           /* owned; channels with history or recovery (stream.h): the
                                          home builds the frames; NULL: the letter has the frame */
    uint32_t   name_bytes;
    char       name[];
};

enum home_status {
    HOME_OK, HOME_FULL /* presence member limit */, HOME_NO_MEMORY,
    HOME_BUSY,                         /* the lane refuses or the commit failed: 503, retry */
    HOME_PRINT_DIFFERS,                /* a publish receipt with another payload: 400 */
    HOME_TOO_LARGE,                    /* a record would be over its bound: 413 */
};

/* Find; make when `make` (then NULL only at the heap's bound). */
struct home *home_find(struct shard *sh, uint32_t app, struct slice name);
struct home *home_make(struct shard *sh, uint32_t app, struct slice name, uint8_t kind, bool cache);
struct home_extra *home_extra(struct shard *sh, struct home *h);   /* made when missing */
/* Frees the extra when nothing is in it. */
void home_extra_release(struct shard *sh, struct home *h);
/* Frees the entry when nothing holds it any more. */
void home_release(struct shard *sh, struct home *h);

/* Send a frame to every interested shard; takes no reference. Returns the subscriptions counted. */
uint32_t home_fan(struct shard *sh, struct home *h, struct frame *f, uint64_t except_a,
                  uint64_t except_b, uint64_t started_ns);

/* A subscription: counted (with its presence), taken back before it was told, told to others. */
enum home_status home_admit(struct shard *sh, struct home *h, const struct letter *l,
                            const struct sub *s, struct member **m);
void home_unadmit(struct shard *sh, struct home *h, const struct letter *l, struct member *m);
void home_joined(struct shard *sh, struct home *h);
/* The frame of a pusher_internal event whose data is text; with a V2 sibling when somebody needs
 * it. NULL: no memory. */
struct frame *home_internal_frame(struct shard *sh, const struct home *h, const char *name,
                                  struct slice data);

/* Letters. */
void home_on_subscribe(struct shard *sh, const struct letter *l);
void home_on_unsubscribe(struct shard *sh, const struct letter *l);
void publish_on_publish(struct shard *sh, const struct letter *l);
void home_on_timer(struct shard *sh, struct home_extra *x);   /* count_timer */

/* The publishing side: a struct publish (name copied behind it) is allocated by publish_make and
 * given to publish_post together with one reference of the frame; the PUBLISHED answer frees it.
 * publish_post does not refuse: call publish_room first for all channels of a request. */
struct publish *publish_make(struct shard *sh, uint32_t app, struct slice name,
                             const struct pusher_channel *kind);
void publish_free(struct shard *sh, struct publish *p);
/* True when every box can take counts[shard] more publishes now and no shard's fan-out is further
 * behind than limits.fanout_backlog. Counted. */
bool publish_room(struct shard *sh, const uint32_t counts[REACTOR_SHARDS_MAX]);
void publish_post(struct shard *sh, struct publish *p, struct frame *f);
/* MAIL_PUBLISHED. */
void publish_on_published(struct shard *sh, const struct letter *l);
/* Keep a frame as the channel's cached event (a reference is taken); evicts the oldest. */
void home_cache_put(struct shard *sh, struct home *h, struct frame *f);
void home_cache_drop(struct shard *sh, struct home *h);
/* The cached frame while it is fresh; NULL otherwise. */
struct frame *home_cached(struct shard *sh, struct home *h);
void home_cache_expire(struct shard *sh);   /* once a second */
