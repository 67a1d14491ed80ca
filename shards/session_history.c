#include "shards/session_history.h"

#include "shards/actor.h"

#include <stdio.h>

enum { NAME_SHOWN_MAX = 200 };           /* bytes of a name in an error text */

struct request {
    struct v2_history in;
    struct slice      name;              /* decoded, in `decoded` */
    struct slice      cursor;            /* the same; ptr NULL: none */
    struct pusher_channel kind;
    uint8_t          *scratch, *decoded; /* owned */
    uint32_t          scratch_bytes, decoded_bytes;
};

static void refuse(struct shard *sh, struct conn *c, const struct request *q, uint32_t code,
                   const char *before, const char *behind)
{
    char text[PUSHER_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "%s'%.*s'%s", before,
             (int)u32_min(q->name.bytes, NAME_SHOWN_MAX), (const char *)q->name.ptr, behind);
    conn_error(sh, c, code, text);
}

static bool decode(struct shard *sh, struct request *q)
{
    uint32_t name = q->in.channel.text_bytes, cursor = q->in.cursor.text_bytes;
    if (q->in.cursor.type != JSON_STRING) cursor = 0;
    q->decoded_bytes = name + cursor + 1;
    q->decoded = heap_alloc(sh->heap, q->decoded_bytes);
    if (q->decoded == NULL) return false;
    json_decode(&q->in.channel, q->decoded);
    q->name = slice_of(q->decoded, name);
    if (q->in.cursor.type != JSON_STRING) return true;
    json_decode(&q->in.cursor, q->decoded + name);
    q->cursor = slice_of(q->decoded + name, cursor);
    return true;
}

/* Subscribed, admitted, granted, and the channel has a history. Yields the subscription, or NULL
 * when refused. */
static struct sub *check_channel(struct shard *sh, struct conn *c, struct request *q)
{
    struct conf_policy policy;
    char ignored[PUSHER_ERROR_TEXT_BYTES];
    const struct conf_app *app = &sh->conf->apps[c->app];
    struct chan *ch = chan_find(sh, c->app, q->name);
    struct sub *s = ch == NULL ? NULL : chan_sub_of(c, ch);
    if (s == NULL ||                     /* one under way will do: its rights have been checked */
        !pusher_channel_parse(q->name, SESSION_NAME_BYTES_MAX, &app->names, &q->kind, ignored)) {
        refuse(sh, c, q, PUSHER_CLIENT_EVENT, "Client event error: Not subscribed to channel ", "");
        return NULL;
    }
    if (!session_admitted(c, &q->kind)) {
        refuse(sh, c, q, PUSHER_UNAUTHORIZED,
               "Authentication error: User is not allowed to access channel ", "");
        return NULL;
    }
    if (!session_granted(c, q->name, ACTOR_HISTORY)) {
        refuse(sh, c, q, PUSHER_UNAUTHORIZED,
               "Authentication error: Connection is not allowed to history channel ", "");
        return NULL;
    }
    conf_policy_of(sh->conf, c->app, q->name, &policy);
    if (!policy.history) {
        refuse(sh, c, q, PUSHER_CHANNEL,
               "Channel error: Durable history is disabled by policy for channel ", "");
        return NULL;
    }
    return s;
}

/* The bounds that the home is to apply. False: refused. */
static bool read_page(struct shard *sh, struct conn *c, const struct request *q,
                      const struct sub *s, struct want_page *out)
{
    const struct v2_history *in = &q->in;
    *out = (struct want_page){
        .limit = (uint32_t)u64_min(in->limit, sh->conf->history_max_page_size),
        .newest_first = in->newest_first, .has_start = in->has_start, .has_end = in->has_end,
        .has_time_from = in->has_time_from, .has_time_upto = in->has_time_upto,
        .start_serial = in->start_serial, .end_serial = in->end_serial,
        .time_from_ms = in->time_from_ms, .time_upto_ms = in->time_upto_ms,
        .until_attach = in->until_attach, .on_socket = true,
    };
    if (in->limit == 0) {
        conn_error(sh, c, PUSHER_GENERIC, "History limit must be greater than 0");
        return false;
    }
    out->has_attach_serial = s->mark != NULL && s->mark->has_attach_serial;
    if (out->has_attach_serial) out->attach_serial = s->mark->attach_serial;
    if (in->until_attach) {
        if (!out->has_attach_serial) {
            refuse(sh, c, q, PUSHER_GENERIC, "No attach_serial is recorded for channel ", "");
            return false;
        }
        out->end_serial = in->has_end ? u64_min(in->end_serial, out->attach_serial)
                                      : out->attach_serial;
        out->has_end = true;
    }
    bool crossed = in->has_start && out->has_end && in->start_serial > out->end_serial;
    if (crossed || (in->has_time_from && in->has_time_upto &&
                    in->time_from_ms > in->time_upto_ms)) {
        conn_error(sh, c, PUSHER_GENERIC,
                   crossed ? "start_serial must be less than or equal to end_serial"
                           : "start_time_ms must be less than or equal to end_time_ms");
        return false;
    }
    return true;
}

static void ask(struct shard *sh, struct conn *c, struct request *q)
{
    struct want_page page;
    struct sub *s = check_channel(sh, c, q);
    if (s == NULL || !read_page(sh, c, q, s, &page)) return;
    struct want *w = shard_pressed(sh) ? NULL
                     : want_make(sh, WANT_HISTORY, c->app, q->name.bytes + q->cursor.bytes);
    if (w != NULL) {
        w->sock = conn_sock(sh, c);
        w->gen = c->gen;
        w->channel = want_text(w, q->name);
        w->channel_kind = (uint8_t)q->kind.kind;
        w->channel_cache = q->kind.cache;
        w->page = page;
        w->page.cursor = want_text(w, q->cursor);
        if (want_post(sh, w) == OK) {
            c->histories++;
            return;
        }
        want_free(sh, w);
    }
    conn_error(sh, c, PUSHER_CLIENT_EVENT, "Server is busy, try again");
}

void session_history(struct shard *sh, struct conn *c, const struct json_value *data)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct request q = {0};
    if (c->histories >= SESSION_HISTORIES_MAX) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HISTORIES, 1);
        conn_error(sh, c, PUSHER_CLIENT_EVENT, "Too many concurrent channel_history requests");
        return;
    }
    if (data->type == JSON_STRING) {
        q.scratch_bytes = u32_max(data->text_bytes, 1);
        q.scratch = heap_alloc(sh->heap, q.scratch_bytes);
    }
    if (q.scratch_bytes > 0 && q.scratch == NULL) {
        conn_error(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
    } else if (!v2_history_parse(data, q.scratch, &q.in, error)) {
        conn_error(sh, c, PUSHER_GENERIC, error);
    } else if (!decode(sh, &q)) {
        conn_error(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
    } else {
        ask(sh, c, &q);
    }
    heap_free(sh->heap, q.decoded, q.decoded_bytes);
    heap_free(sh->heap, q.scratch, q.scratch_bytes);
}

void session_on_wanted(struct shard *sh, struct want *w, struct frame *body)
{
    struct conn *c = conn_get(sh, w->sock, w->gen);
    if (c == NULL) return;
    ASSERT(c->histories > 0);
    c->histories--;
    if (body != NULL) {
        body->asked = true;
        conn_send(sh, c, body);
    } else {
        conn_error(sh, c, w->ws_code != 0 ? w->ws_code : PUSHER_CLIENT_EVENT, w->text);
    }
}
