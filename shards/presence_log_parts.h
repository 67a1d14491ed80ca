/* presence_log_parts.h - between the parts of presence_log.h.
 *
 * Shape    presence_log.c logs what happens; presence_orphan.c knows who was left open by the
 *          process before.
 * Threads  The home shard.
 */
#pragma once
#include "core/table.h"
#include "shards/presence_log.h"
#include "shards/stream.h"

struct pending {                         /* an event on its way into the log */
    struct pending *next;                /* while it waits to be tried again */
    uint64_t serial;                     /* the order in which they happened; 0: of an orphan */
    uint32_t app, name_bytes, user_bytes, data_bytes;
    uint8_t  event;
    bool     again;                      /* of a reset: worth nothing if it is not committed */
    uint8_t  bytes[];                    /* channel, user id, event as JSON */
};

struct orphan {                          /* a member left open before the start */
    struct table_node node;
    struct orphan    *next, **link;      /* all of them */
    uint32_t app, name_bytes, user_bytes, id_bytes, info_bytes;
    uint8_t  bytes[];                    /* channel, user id, id and info as raw JSON */
};

struct room {                            /* a channel with events that wait, or that lost one */
    struct table_node node;
    struct room    *next, *before;       /* among those with events */
    struct pending *first, *last;        /* by serial */
    struct pending *placed;              /* the one that came back last; or NULL */
    uint64_t lost_at;                    /* serial of the last event lost; 0: none */
    uint32_t app, name_bytes;
    uint8_t  name[];
};

struct presence_book {
    struct table    rooms;
    struct room    *first, *last;        /* those with events, that tried last at the end */
    uint64_t        serial;              /* of the newest event */
    uint32_t        pending_count;       /* waiting and in flight */
    bool            lost_any;            /* nobody knows whose */
    struct table    orphans;
    struct orphan  *orphans_first;
    uint64_t        orphans_due_ms;      /* when those that are left have gone */
};

/* An event as it is written down; NULL at a bound: it is lost. */
struct pending *presence_log_make(struct shard *sh, uint32_t app, struct slice name,
                                  struct slice user, struct slice id_json,
                                  struct slice info_json, enum presence_log_event event,
                                  const struct presence_edge *by);
/* Log it behind the channel's others; NULL is ignored. */
void presence_log_event(struct shard *sh, struct pending *p);
/* The same right behind a reset, which it shares its commit with. */
void presence_log_copy(struct shard *sh, struct pending *p);
/* Try again what waits. */
void presence_log_drain(struct shard *sh);

/* ---- presence_orphan.c ---- */
err_t presence_orphan_open(struct presence_book *b);
void presence_orphan_close(struct shard *sh);
/* True when this member was left open; he is no longer. */
bool presence_orphan_take(struct shard *sh, uint32_t app, struct slice name, struct slice user);
void presence_orphan_again(struct shard *sh, const struct home *h);
void presence_orphan_tick(struct shard *sh);
