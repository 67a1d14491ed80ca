/* api_parts.h - between the parts of the HTTP API: api.c routes and authenticates, then one of
 * api_events.c, api_state.c, api_message.c, api_history.c, api_annotations.c, api_health.c
 * answers.
 *
 * Shape    struct api_call is one request on its way through; it lives on the stack of api_request.
 *          Exactly one answer function ends it, or it is suspended in its op.
 * Threads  The shard.
 */
#pragma once
#include "proto/json.h"
#include "proto/sign.h"
#include "shards/api.h"
#include "shards/ask.h"
#include "shards/reply.h"

enum api_route {
    API_NONE, API_LIVE, API_UP, API_UP_APP, API_USAGE, API_STATS, API_EVENTS, API_BATCH,
    API_CHANNELS, API_CHANNEL, API_USERS, API_TERMINATE, API_RECONNECT,
    API_MESSAGE, API_VERSIONS, API_UPDATE, API_DELETE, API_APPEND,
    API_HISTORY, API_HISTORY_STATE, API_HISTORY_RESET, API_HISTORY_PURGE,
    API_PRESENCE_HISTORY, API_PRESENCE_STATE, API_PRESENCE_RESET, API_PRESENCE_SNAPSHOT,
    API_ANNOTATIONS, API_ANNOTATION,
};

/* The path cut at its slashes; API_SEGMENTS_MAX + 1 when there are more (api_route.c). */
enum { API_SEGMENTS_MAX = 8 };
uint32_t api_route_split(struct slice path, struct slice segments[API_SEGMENTS_MAX]);
enum api_route api_route_of(const struct slice *segments, uint32_t count);
/* NULL when the route takes the method, else the text of the Allow header. */
const char *api_route_refuses(enum api_route route, enum http_method method);

struct api_call {
    struct shard              *sh;
    struct conn               *c;
    struct op                 *op;      /* NULL until the request has to wait */
    const struct http_request *r;
    struct slice               whole, body;
    enum api_route             route;
    struct slice               app_id;  /* decoded path segments; ptr NULL where there is none */
    struct slice               name;    /* channel name or user id */
    struct slice               message, annotation;     /* serials in the path */
    const struct sign_query   *query;   /* signed routes */
    uint32_t                   app;     /* signed routes, once authenticated */
    uint32_t                   count_app;   /* under which app_id it is counted */
    bool                       counted, authentic;
};

/* ---- answers: each ends the call ---- */

/* Fills what the request decides (CORS, HEAD, rate headers, counting) and sends. */
void api_answer(struct api_call *call, struct reply *r);
void api_json(struct api_call *call, struct slice body);
void api_plain(struct api_call *call, uint16_t status, const char *text);
void api_refuse(struct api_call *call, uint16_t status, const char *code, struct slice text,
                uint32_t retry_after_s);
void api_refuse_text(struct api_call *call, uint16_t status, const char *code, const char *text);
/* The same with "ai_code". */
void api_refuse_ai(struct api_call *call, uint16_t status, const char *code, uint32_t ai_code,
                   const char *text);
/* 400 and 422 as plain text: what is wrong with the JSON, or with its shape. */
void api_not_json(struct api_call *call, const struct json_error *e);
void api_wrong_shape(struct api_call *call, const char *what);
/* True when the body is said to be JSON; else the request has been refused with 415. */
bool api_json_type(struct api_call *call);
/* 503 backpressure with Retry-After: 1. */
void api_busy(struct api_call *call, const char *text);

/* The call's op, made when missing. NULL: answered with 503. */
struct op *api_op(struct api_call *call);
/* op_suspend for this call; what is asked next runs the request again. NULL: answered with 503. */
struct op *api_suspend(struct api_call *call);

/* ---- routes ---- */

void api_events(struct api_call *call);       /* /events and /batch_events */
uint32_t api_events_weight(const struct api_call *call);   /* how many events it publishes */
void api_state(struct api_call *call);        /* the three GET .../channels */
void api_users(struct api_call *call);        /* /users/{id}/... */
void api_message(struct api_call *call);      /* .../messages/{m}, its versions, mutations */
void api_history(struct api_call *call);      /* .../history..., .../presence/history... */
void api_annotations(struct api_call *call);  /* .../messages/{m}/annotations... */
void api_health(struct api_call *call);       /* unsigned routes */

/* A request that publishes: MAIL_PUBLISHED has come for one of its channels. */
void api_events_on_published(struct op *op, const struct letter *l);

/* ---- text that grows, in the shard's heap ---- */

struct api_text {
    struct heap *heap;
    uint8_t     *ptr;                   /* owned */
    uint32_t     bytes, room;
    bool         failed;                /* memory ran out: the text is incomplete */
};

void api_text_add(struct api_text *t, struct slice s);
void api_text_str(struct api_text *t, const char *text);
void api_text_number(struct api_text *t, uint64_t n);
void api_text_quote(struct api_text *t, struct slice s);   /* as a JSON string */
void api_text_free(struct api_text *t);
static inline struct slice api_text_slice(const struct api_text *t)
{
    return slice_of(t->ptr, t->bytes);
}

/* ---- texts that outlive the request: copied to *at, which moves on; ptr NULL: not there ---- */

struct slice api_keep_text(uint8_t **at, const struct json_value *v);   /* a string, decoded */
struct slice api_keep_raw(uint8_t **at, const struct json_value *v);    /* any value, compact */

/* ---- lists: what a request asks of homes, and what homes send back ---- */

enum api_info { API_INFO_USERS = 1, API_INFO_SUBSCRIPTIONS = 2, API_INFO_CACHE = 4,
                API_INFO_GIVEN = 8 /* an info parameter that is not empty */ };
/* The comma-separated info parameter; unknown words are ignored. */
uint32_t api_info_parse(struct slice info);
/* "user_count":n,"subscription_count":n - those that `info` asks for; false when none. */
bool api_info_write(struct api_text *t, uint32_t info, bool presence, uint64_t users,
                    uint64_t subscriptions);

struct api_query {                      /* lent to homes until their last MAIL_LISTED */
    enum api_route route;               /* API_CHANNELS, API_CHANNEL or API_USERS */
    uint32_t       app, info;
    struct slice   name;                /* of the channel, or the prefix of the list */
};

enum { API_PIECE_BYTES = 32768 };
struct api_piece {                      /* JSON text, built in the home's heap */
    struct api_piece *next;
    uint32_t          bytes, room;
    uint16_t          shard;            /* where it goes home to */
    uint8_t           data[];
};
/* arg1 of MAIL_LISTED. */
enum api_listed { API_LISTED_MORE, API_LISTED_LAST, API_LISTED_NO_MEMORY /* last, too */,
                  API_LISTED_NOT_PRESENCE /* last, too */ };
