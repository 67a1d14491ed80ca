/* speakers.h - messages that grow: one HTTP connection, one channel and one message each, appended
 * to with one request outstanding.
 *
 * Shape    speakers_open connects, creates the messages and learns their serials. The owner calls
 *          speakers_append for an idle speaker and hands every reply to speakers_reply.
 * Threads  The load's.
 * Errors   An answer other than 200 ends the program.
 * Source   spec/messages-and-history.md 2, 3.
 */
#pragma once
#include "bench/publish.h"

enum { SPEAKERS_MAX = PUBLISH_CONNS_MAX, SPEAKERS_PATH_BYTES = 256 };

struct speakers {
    struct publish publish;
    uint32_t       count, created;
    char           path[SPEAKERS_MAX][SPEAKERS_PATH_BYTES];   /* of the append */
};

/* The channel of speaker i; a subscriber may join it before or after. */
void speakers_channel(char *out, uint32_t out_bytes, uint32_t i);
void speakers_open(struct speakers *s, struct load *load, uint32_t first, uint32_t count);
bool speakers_owns(const struct speakers *s, uint32_t id);
/* `data` must need no JSON escapes. */
void speakers_append(struct speakers *s, uint32_t i, const char *data);
/* Returns the speaker that may go on. */
uint32_t speakers_reply(struct speakers *s, uint32_t id, const struct wire_item *item);
