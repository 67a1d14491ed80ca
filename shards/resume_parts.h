/* resume_parts.h - between resume.c and resume_write.c.
 *
 * Threads  The shard of the socket.
 */
#pragma once
#include "shards/resume.h"
#include "shards/stream.h"

enum resume_state {
    RESUME_WAITING, RESUME_ATTACHING, RESUME_JOINING, RESUME_REPLAYING, RESUME_RECOVERED,
    RESUME_FAILED,
};

struct resume_item {
    uint8_t       state;               /* enum resume_state */
    struct slice  name;                /* of the channel, inside the block */
    struct sub   *sub;                 /* borrowed; NULL while nobody has subscribed */
    const struct attach *question;     /* ATTACHING, REPLAYING: the sub's, to know the answer by */
    struct attach a;                   /* the position, then the outcome */
};

struct resume_kept { struct sub *sub; struct frame *frame; };   /* frame: counted */

struct resume {
    uint64_t            answer_ms, forget_ms;      /* reactor time */
    bool                answered;      /* the aggregate has left */
    struct resume_kept *kept;          /* owned; kept_room of them */
    uint32_t            kept_count, kept_room;
    uint64_t            kept_bytes;
    uint32_t            items_count, block_bytes;
    struct resume_item  items[];       /* names behind them */
};

/* sockudo:resume_failed of one item. */
void resume_write_failed(struct shard *sh, struct conn *c, const struct resume_item *item);
/* sockudo:resume_success of all; items that have not ended count as failed. */
void resume_write_aggregate(struct shard *sh, struct conn *c, const struct resume *r);
