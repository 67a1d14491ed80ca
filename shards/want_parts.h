/* want_parts.h - between the parts of want.h at the home.
 *
 * Shape    want.c dispatches; want_message.c, want_mutate.c, want_history.c, want_reset.c,
 *          want_presence.c and want_annotation.c answer. want_cursor.c is pure.
 * Threads  The home shard; want_cursor.c: any.
 */
#pragma once
#include "shards/api_parts.h"
#include "shards/want.h"

/* Each ends with want_answer, want_refuse, a wait or a read whose end does. */
void want_message_on_want(struct shard *sh, struct stream *st, struct want *w);
void want_mutate_on_want(struct shard *sh, struct stream *st, struct want *w);
void want_history_on_want(struct shard *sh, struct stream *st, struct want *w);
void want_reset_on_want(struct shard *sh, struct stream *st, struct want *w);
void want_presence_on_want(struct shard *sh, struct stream *st, struct want *w);
void want_annotation_on_want(struct shard *sh, struct stream *st, struct want *w);

/* Wait for `delivery` to be committed (0: for the stream to load), then want_on_want again. */
void want_wait(struct shard *sh, struct stream *st, struct want *w, uint64_t delivery);

/* ---- pieces of JSON ---- */

/* "name":value, where value is null when it is not set (ptr NULL). */
void want_write_null(struct api_text *t, const char *name, bool set, uint64_t n);
void want_write_text(struct api_text *t, const char *name, struct slice text);
/* A message as reads show it (section 5). whole: the record that says name and extras (r itself, or
 * what an append refers to). stream_id ptr NULL: left out. */
void want_write_item(struct api_text *t, const char *node, struct slice channel,
                     const struct record *r, const struct record *whole, struct slice stream_id);
const char *want_action(uint8_t record_kind);    /* "create" ... */

/* The objects of "stream_state" and "stream". */
void want_write_state(struct shard *sh, struct api_text *t, const struct stream *st,
                      const struct store_head *head);
void want_write_stream(struct shard *sh, struct api_text *t, const struct stream *st,
                       const struct store_head *head);
/* The retained rows: serials and times of the oldest and newest; how many and how large. */
void want_write_span(struct api_text *t, const struct store_head *head);
void want_write_retained(struct api_text *t, const struct stream *st,
                         const struct store_head *head);
/* The presence log of this stream lacks an event. */
bool want_lost(const struct shard *sh, const struct stream *st);

/* ---- reads of rows, as all parts make them ---- */

struct store_read *want_rows(struct shard *sh, struct stream *st, struct want *w,
                             stream_read_fn done, uint32_t limit, bool newest_first);

/* Walk the records of an answer. False at the end. */
struct want_walk { struct slice rest; };
static inline struct want_walk want_walk_begin(const struct store_read *r)
{
    return (struct want_walk){slice_of(r->bytes, r->bytes_count)};
}
bool want_walk_next(struct want_walk *walk, struct record *out);

/* ---- want_cursor.c ---- */

enum { WANT_CURSOR_BYTES_MAX = 16384 };
struct want_cursor { char stream_id[37]; uint64_t serial; };
/* What a cursor is bound to, beside its stream. */
struct want_scope { struct slice app_id, channel; const struct want_page *page; };
/* The encoded text, without quotes. */
void want_cursor_write(struct api_text *t, const struct want_scope *scope, struct slice stream_id,
                       uint64_t serial);
/* False: `error` is the text of the 400. word: "History" or "Presence history". */
bool want_cursor_read(struct heap *heap, const struct want_scope *scope, struct slice text,
                      const char *word, struct want_cursor *out,
                      char error[PUSHER_ERROR_TEXT_BYTES]);
/* {"start_serial":..,"end_serial":..,"start_time_ms":..,"end_time_ms":..}; a socket's has two
 * more. */
void want_write_bounds(struct api_text *t, const struct want_page *page, bool with_attach);
