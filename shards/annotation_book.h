/* annotation_book.h - at the home: the summaries of a channel's annotations, and their frames.
 *
 * Shape    A channel's summaries are made by reading its hidden stream once, when they are first
 *          needed, and follow every event from then on. Events are sequenced by want_annotation.c.
 * Threads  The home shard.
 * Bounds   ANNOTATION_CHANNELS_MAX channels a shard, least recently used out, and all that are not
 *          in use when memory is short; one with events in flight stays.
 * Source   spec/messages-and-history.md 9; spec/settled.md 39.
 */
#pragma once
#include "shards/annotation.h"
#include "shards/want.h"

enum { ANNOTATION_CHANNELS_MAX = 4096, ANNOTATION_SERIAL_BYTES = 4 + 20 + 1 };

/* "ann:" and 20 digits, with a final zero. */
void annotation_serial_write(char out[ANNOTATION_SERIAL_BYTES], uint64_t serial);
bool annotation_serial_parse(struct slice text, uint64_t *serial);

/* An annotation event lies in its record as: data the JSON that lists show (less serial and time),
 * message_id the message's serial, owner the type, description the name, client the client,
 * metadata the count, op_id the serial of what is deleted (deletes only). */

struct annotation_book;
struct annotation_channel;

MUST_CHECK err_t annotation_open(struct shard *sh);
void annotation_close(struct shard *sh);

/* The channel's summaries, or NULL: the want waits for them to be read, or has been refused. */
struct annotation_channel *annotation_get(struct shard *sh, struct stream *st, struct want *w);

/* Between which rows (inclusive) the events of a message are, of one type or (ptr NULL) of all.
 * False: there are none. */
bool annotation_rows(const struct shard *sh, const struct annotation_channel *ch,
                     struct slice message, struct slice type, uint64_t *first, uint64_t *last);

/* Events in flight. A delete that is under way or done is found by its target's serial; *delivery
 * is 0 once it is committed. */
void annotation_begin(struct annotation_channel *ch);
bool annotation_delete_find(const struct annotation_channel *ch, uint64_t target,
                            uint64_t *delivery);
/* False at the heap's bound. */
bool annotation_delete_begin(struct shard *sh, struct annotation_channel *ch, uint64_t target);
void annotation_delete_sequenced(struct annotation_channel *ch, uint64_t target,
                                 uint64_t delivery);
/* It has been committed (summaries change, frames leave), or has failed. */
void annotation_end(struct shard *sh, struct stream *st, struct annotation_channel *ch,
                    const struct record *r, bool committed);

/* One event as lists and raw frames show it. */
void annotation_write_event(struct api_text *t, const struct record *r);
/* A summary frame for each message and type, one behind the other: those annotated last first, as
 * many as one subscriber is sent (1000, 512 KiB); it asks for others (GET .../annotations). */
void annotation_write_frames(struct shard *sh, struct api_text *t, struct annotation_channel *ch,
                             struct slice channel);
