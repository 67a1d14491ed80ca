/* api_want.h - between the parts of the HTTP API that ask homes about a channel's memory.
 *
 * Shape    api_message.c, api_history.c and api_annotations.c check a request in the documented
 *          order and turn it into a struct want (want.h), which want_run sends and answers.
 * Threads  The shard.
 */
#pragma once
#include "shards/actor.h"
#include "shards/api_parts.h"
#include "shards/want.h"

/* ---- checks: false means that the request has been refused ---- */

/* The channel's name (400), and what the configuration says of it. */
bool api_want_channel(struct api_call *call, struct pusher_channel *kind,
                      struct conf_policy *policy);
/* 422 when versioned messages are off. */
bool api_want_versioned(struct api_call *call);
/* 422 `{what} is disabled by policy for channel '{c}'`. */
bool api_want_enabled(struct api_call *call, bool enabled, const char *what);
/* The serial in the path: its syntax (400). */
bool api_want_serial(struct api_call *call);
/* A number in the query: absent, or *has. 400 as plain text when it is none. */
bool api_want_u64(struct api_call *call, const char *name, const char *alias, bool *has,
                  uint64_t *out);
bool api_want_i64(struct api_call *call, const char *name, const char *alias, bool *has,
                  int64_t *out);
/* limit: absent is max, 0 is refused with `{what} must be greater than 0`, more is cut to max. */
bool api_want_limit(struct api_call *call, uint32_t max, const char *what, uint32_t *out);
/* A body that is one JSON object with these fields: 415, 400, 422. */
bool api_want_body(struct api_call *call, const struct json_field *fields, uint32_t fields_count);
/* A body field of this type; null is absent. 422. */
bool api_want_type(struct api_call *call, struct json_value *v, enum json_type type, bool required,
                   const char *what);

/* ---- asking ---- */

/* A want in an op of its own, with the channel and the serials of the path; `more` bytes are left
 * for other texts. NULL: answered with 503. */
struct want *api_want_make(struct api_call *call, enum want_kind kind,
                           const struct pusher_channel *channel, uint32_t more);
/* Refuse after api_want_make. */
void api_want_refuse(struct api_call *call, uint16_t status, const char *code, const char *text);
void api_want_no_message(struct api_call *call);         /* 404; with or without a want */
/* Ask who is on the socket, then op->next; the want has w->asked. False: answered with 503. */
bool api_want_actor(struct api_call *call, struct want *w, uint64_t a, uint64_t b,
                    op_fn next);
