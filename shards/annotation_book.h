/* annotation_book.h - at the home: the summaries of a channel's annotations, and their frames.
 *
 * Shape    A channel's summaries are made by reading its hidden stream once, when they are first
 *          needed, and follow every event from then on; they are made again when events have left
 *          the log with their age. Events are sequenced by want_annotation.c.
 * Threads  The home shard.
 * Bounds   ANNOTATION_CHANNELS_MAX channels a shard, least recently used out, and all that are not
 *          in use when memory is short; one with events in flight stays. The summaries of one
 *          channel: annotations.max_channel_mb; the names of one summary: what an event's payload
 *          may hold, so that its frame fits when no client is listed. Past either, a create is
 *          refused.
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

/* False: this create would make the channel's summaries, or the frame of its own, too large. */
bool annotation_fits(const struct shard *sh, const struct annotation_channel *ch,
                     const struct record *r);
/* Events leave the log with their age, and the summaries when they are read again: true when that
 * may help. annotation_get reads them then. */
bool annotation_read_again(const struct shard *sh, struct annotation_channel *ch);
/* The log is not what it was: it is read again before it is used again. */
void annotation_doubt(struct shard *sh, uint32_t app, struct slice channel);
/* Gives up what is not in use while memory is short: once a second. */
void annotation_tick(struct shard *sh);

/* Events in flight, with the bytes of their records. A delete that is under way or done is found by
 * its target's serial; *delivery is 0 once it is committed. */
void annotation_begin(struct annotation_channel *ch, uint32_t bytes);
bool annotation_delete_find(const struct annotation_channel *ch, uint64_t target,
                            uint64_t *delivery);
/* False at the heap's bound. */
bool annotation_delete_begin(struct shard *sh, struct annotation_channel *ch, uint64_t target);
void annotation_delete_sequenced(struct annotation_channel *ch, uint64_t target,
                                 uint64_t delivery);
/* It has been committed (summaries change, frames leave), or has failed. */
void annotation_end(struct shard *sh, struct stream *st, struct annotation_channel *ch,
                    uint32_t bytes, const struct record *r, bool committed);

/* One event as lists and raw frames show it. */
void annotation_write_event(struct api_text *t, const struct record *r);
/* A summary frame for each message and type, one behind the other: those annotated last first, as
 * many as one subscriber is sent (1000, 512 KiB); it asks for others (GET .../annotations). */
void annotation_write_frames(struct shard *sh, struct api_text *t, struct annotation_channel *ch,
                             struct slice channel);
