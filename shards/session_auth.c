/* The subscribe message, of both protocols: names, rights, signatures, presence data. */
#include "proto/sign.h"
#include "shards/actor.h"
#include "shards/resume.h"
#include "shards/session.h"
#include "shards/stream.h"

#include <stdio.h>

enum { NAME_SHOWN_MAX = 200 };           /* bytes of a name in an error text */

struct ask {                             /* one subscribe under examination */
    struct pusher_subscribe in;
    struct v2_subscribe     more;        /* V2 only: rewind and modes */
    struct pusher_channel   kind;
    struct slice            name;        /* decoded */
    struct slice            data;        /* channel_data decoded; ptr NULL when absent */
    struct presence        *presence;    /* made by check_presence */
    uint8_t                *scratch;     /* owned; data given as a string, decoded */
    uint8_t                *decoded;     /* owned; name and channel_data */
    uint32_t                scratch_bytes, decoded_bytes;
};

static void refuse(struct shard *sh, struct conn *c, const struct ask *a, uint32_t code,
                   const char *text)
{
    uint32_t status = code == PUSHER_UNAUTHORIZED ? 401 : code == PUSHER_OVER_CAPACITY ? 403 : 400;
    if (code == PUSHER_UNAUTHORIZED) {
        metric_add(sh->metrics, METRIC_CONNECTION_ERRORS_TOTAL, c->app,
                   SERIES_ERROR_AUTHENTICATION_FAILED, 1);
    }
    if (c->v2 && code == PUSHER_OVER_CAPACITY) {
        conn_fail(sh, c, code, text);    /* it would wait for the channel; so it comes back */
    } else if (a->name.bytes > 0 && a->name.bytes <= SESSION_NAME_BYTES_MAX) {
        session_refuse(sh, c, a->name, code, text, status);
    } else {
        conn_error(sh, c, code, text);
    }
}

/* Code and a text that ends with the channel's name. */
static void refuse_named(struct shard *sh, struct conn *c, const struct ask *a, uint32_t code,
                         const char *text)
{
    char whole[PUSHER_ERROR_TEXT_BYTES];
    int shown = (int)u32_min(a->name.bytes, NAME_SHOWN_MAX);
    snprintf(whole, sizeof(whole), "%s channel '%.*s'", text, shown, (const char *)a->name.ptr);
    refuse(sh, c, a, code, whole);
}

/* Decode channel and channel_data into one block. */
static bool decode(struct shard *sh, struct ask *a)
{
    uint32_t name = a->in.channel.text_bytes;
    uint32_t data = a->in.channel_data.type == JSON_STRING ? a->in.channel_data.text_bytes : 0;
    uint32_t more = name + data + 1;
    uint8_t *fresh = heap_alloc(sh->heap, more);
    if (fresh == NULL) return false;
    a->decoded = fresh;
    a->decoded_bytes = more;
    json_decode(&a->in.channel, fresh);
    a->name = slice_of(fresh, name);
    if (a->in.channel_data.type == JSON_STRING) {
        json_decode(&a->in.channel_data, fresh + name);
        a->data = slice_of(fresh + name, data);
    }
    return true;
}

static bool signature_valid(struct shard *sh, struct conn *c, const struct ask *a)
{
    const struct server *s = sh->server;
    char id[PUSHER_SOCKET_ID_BYTES];
    uint8_t auth[256];
    if (a->in.auth.text_bytes > sizeof(auth)) return false;
    json_decode(&a->in.auth, auth);
    struct slice parts[5] = {
        slice_of(id, pusher_socket_id_write(id, c->socket_a, c->socket_b)), slice_str(":"),
        a->name, slice_str(":"), a->data,
    };
    uint32_t count = a->kind.kind == PUSHER_PRESENCE && a->data.ptr != NULL ? 5 : 3;
    return sign_auth_valid(slice_of(auth, a->in.auth.text_bytes), s->app_keys[c->app],
                           s->app_secrets[c->app], parts, count);
}

static struct presence *presence_make(struct shard *sh, struct slice id_json, struct slice id,
                                      struct slice info_json)
{
    uint32_t bytes = id_json.bytes + id.bytes + info_json.bytes;
    struct presence *p = heap_alloc(sh->heap, (uint32_t)sizeof(*p) + bytes);
    if (p == NULL) return NULL;
    p->bytes_count = bytes;
    p->id_json = slice_of(p->bytes, id_json.bytes);
    p->id = slice_of(p->bytes + id_json.bytes, id.bytes);
    p->info_json = slice_of(p->bytes + id_json.bytes + id.bytes, info_json.bytes);
    memcpy(p->bytes, id_json.ptr, id_json.bytes);
    memcpy(p->bytes + id_json.bytes, id.ptr, id.bytes);
    memcpy(p->bytes + id_json.bytes + id.bytes, info_json.ptr, info_json.bytes);
    return p;
}

/* From channel_data: decoded id, id as a JSON string, compact info. One block holds the working
 * copies. */
static struct presence *presence_from(struct shard *sh, const struct pusher_member *m)
{
    bool text = m->user_id.type == JSON_STRING;
    uint32_t id = text ? m->user_id.text_bytes : m->user_id.raw.bytes;
    uint32_t id_json = text ? m->user_id.raw.bytes : id + 2;
    uint32_t info = m->user_info.type == JSON_ABSENT ? 2
                    : m->user_info.type == JSON_STRING ? m->user_info.raw.bytes
                                                       : m->user_info.text_bytes;
    uint32_t room = id + id_json + info;
    uint8_t *b = heap_alloc(sh->heap, room);
    if (b == NULL) return NULL;
    if (text) {
        json_decode(&m->user_id, b);
        memcpy(b + id, m->user_id.raw.ptr, id_json);
    } else {
        memcpy(b, m->user_id.raw.ptr, id);
        b[id] = b[id + id_json - 1] = '"';
        memcpy(b + id + 1, m->user_id.raw.ptr, id);
    }
    if (m->user_info.type == JSON_ABSENT) memcpy(b + id + id_json, "{}", 2);
    else json_compact(&m->user_info, b + id + id_json);
    struct presence *p = presence_make(sh, slice_of(b + id, id_json), slice_of(b, id),
                                       slice_of(b + id + id_json, info));
    heap_free(sh->heap, b, room);
    return p;
}

/* Who joins a presence channel. Sets a->presence; false when refused. */
static bool check_presence(struct shard *sh, struct conn *c, struct ask *a)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
    char text[PUSHER_ERROR_TEXT_BYTES];
    uint32_t code;
    if (a->data.ptr == NULL) {
        if (c->user == NULL) {
            refuse(sh, c, a, PUSHER_GENERIC,
                   "Invalid message format: Missing channel_data for presence channel");
            return false;
        }
        a->presence = presence_make(sh, c->user->id_json, c->user->id, c->user->info_json);
    } else {
        struct pusher_member m;
        if (!pusher_member_parse(a->data, &m, &code, text)) {
            refuse(sh, c, a, code, text);
            return false;
        }
        uint32_t limit = app->max_presence_member_size_in_kb;
        uint32_t kb = (m.user_info.type == JSON_ABSENT ? 0 : m.user_info.text_bytes) / 1024;
        if (limit > 0 && kb > limit) {
            snprintf(text, sizeof(text),
                     "Channel error: Presence member data size (%uKB) exceeds limit (%uKB)", kb,
                     limit);
            refuse(sh, c, a, PUSHER_CHANNEL, text);
            return false;
        }
        a->presence = presence_from(sh, &m);
    }
    if (a->presence == NULL) {
        refuse(sh, c, a, PUSHER_OVER_CAPACITY, "Over capacity");
        return false;
    }
    a->presence->socket_a = c->socket_a;
    a->presence->socket_b = c->socket_b;
    return true;
}

/* What a subscribe asks beyond the channel must be V2's, and allowed by the channel's policy. */
static bool check_policy(struct shard *sh, struct conn *c, struct ask *a)
{
    struct conf_policy policy;
    if (a->in.rewind) {
        refuse(sh, c, a, PUSHER_CHANNEL,
               "Channel error: Channel rewind is only supported on protocol V2");
        return false;
    }
    if (a->more.rewind == V2_REWIND_NONE && !a->more.annotations) return true;
    conf_policy_of(sh->conf, c->app, a->name, &policy);
    if (a->more.rewind != V2_REWIND_NONE && !policy.rewind) {
        refuse_named(sh, c, a, PUSHER_CHANNEL,
                     "Channel error: Channel rewind is disabled by policy for");
        return false;
    }
    if (a->more.annotations && !policy.annotations) {
        refuse_named(sh, c, a, PUSHER_CHANNEL, "Channel error: Annotations are disabled for");
        return false;
    }
    return true;
}

static bool refuse_namespace(struct shard *sh, struct conn *c, struct ask *a, const char *what)
{
    char text[PUSHER_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "Authentication error: Namespace '%s' does not allow client %s",
             a->kind.ns->name, what);
    refuse(sh, c, a, PUSHER_UNAUTHORIZED, text);
    return false;
}

/* Namespace flags, capabilities, user limit: in this order. */
static bool check_rights(struct shard *sh, struct conn *c, struct ask *a)
{
    const struct conf_namespace *ns = a->kind.ns;
    bool presence = a->kind.kind == PUSHER_PRESENCE;
    if (ns != NULL && !ns->allow_subscribe_for_client) {
        return refuse_namespace(sh, c, a, "subscriptions");
    }
    if (ns != NULL && presence && !ns->allow_presence_for_client) {
        return refuse_namespace(sh, c, a, "presence subscriptions");
    }
    const char *what = NULL;
    if (!session_granted(c, a->name, ACTOR_SUBSCRIBE)) {
        what = "Authentication error: Connection is not allowed to subscribe";
    } else if (presence && !session_granted(c, a->name, ACTOR_PRESENCE)) {
        what = "Authentication error: Connection is not allowed to presence";
    } else if (a->more.rewind != V2_REWIND_NONE && !session_granted(c, a->name, ACTOR_HISTORY)) {
        what = "Authentication error: Connection is not allowed to history";
    } else if (a->more.annotations && !session_granted(c, a->name, ACTOR_ANNOTATIONS)) {
        what = "Authentication error: Connection is not allowed to annotation_subscribe";
    } else if (!session_admitted(c, &a->kind)) {
        what = "Authentication error: User is not allowed to access";
    }
    if (what != NULL) refuse_named(sh, c, a, PUSHER_UNAUTHORIZED, what);
    return what == NULL;
}

static bool check_auth(struct shard *sh, struct conn *c, struct ask *a)
{
    if (a->kind.kind == PUSHER_USER) {
        if (c->user != NULL && slice_equal(c->user->id, a->kind.user_id)) return true;
        refuse(sh, c, a, PUSHER_UNAUTHORIZED,
               "Authentication error: Channel requires a sign-in as this user");
        return false;
    }
    if (a->kind.kind != PUSHER_PUBLIC && a->in.auth.type == JSON_ABSENT) {
        refuse(sh, c, a, PUSHER_UNAUTHORIZED,
               "Authentication error: Authentication signature required for this channel");
        return false;
    }
    if (!check_rights(sh, c, a)) return false;
    if (a->kind.kind == PUSHER_PUBLIC) return true;
    if (!signature_valid(sh, c, a)) {
        refuse(sh, c, a, PUSHER_UNAUTHORIZED,
               "Authentication error: Channel requires authentication");
        return false;
    }
    c->authorised = true;
    return a->kind.kind != PUSHER_PRESENCE || check_presence(sh, c, a);
}

/* What a V2 subscribe asks the channel's home. NULL for V1, or without memory. */
static struct attach *attach_of(struct shard *sh, struct conn *c, const struct ask *a)
{
    struct attach *at = c->v2 ? chan_attach_make(sh, c) : NULL;
    if (at == NULL) return NULL;
    at->rewind = (uint8_t)a->more.rewind;
    at->rewind_amount = a->more.rewind_amount;
    at->annotations = a->more.annotations;
    return at;
}

/* A subscription that stands is answered again; it changes nothing. On V2 a presence channel says
 * nothing (spec/protocol-v2.md 3). */
static bool repeated(struct shard *sh, struct conn *c, const struct ask *a)
{
    struct chan *ch = chan_find(sh, c->app, a->name);
    struct sub *s = ch == NULL ? NULL : chan_sub_of(c, ch);
    if (s == NULL) return false;
    if (c->v2 && ch->kind == PUSHER_PRESENCE) return true;
    if (s->hidden) s->shown = true;      /* still under way: its answer will say so */
    if (s->hidden && !c->v2) {
        if (s->state == SUB_JOINED) chan_send_succeeded(sh, c, ch, NULL);
        return true;
    }
    struct attach *at = attach_of(sh, c, a);
    if (c->v2 && at == NULL) {
        refuse(sh, c, a, PUSHER_OVER_CAPACITY, "Over capacity");
        return true;
    }
    chan_join_again(sh, s, at);
    if (s->hidden && c->resume != NULL) resume_offer(sh, c, s);
    return true;
}

static void join(struct shard *sh, struct conn *c, struct ask *a)
{
    uint32_t limit = sh->conf->max_channels_per_connection;
    char text[96];
    if (repeated(sh, c, a)) return;
    uint32_t own = c->user != NULL;      /* a signed-in socket's hidden channel does not count */
    if (limit > 0 && c->subs_count >= limit + own) {
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_CHANNELS_PER_CONNECTION,
                   1);
        snprintf(text, sizeof(text),
                 "Channel error: Number of channels on this connection exceeds limit (%u)", limit);
        refuse(sh, c, a, PUSHER_CHANNEL, text);
        return;
    }
    struct attach *at = attach_of(sh, c, a);
    if (shard_pressed(sh) || (c->v2 && at == NULL) ||
        chan_join(sh, c, a->name, &a->kind, a->presence, at, false) != OK) {
        if (at != NULL) chan_attach_free(sh, at);
        refuse(sh, c, a, PUSHER_OVER_CAPACITY, "Over capacity");
        return;
    }
    a->presence = NULL;                  /* the subscription's now */
    if (c->resume != NULL) resume_offer(sh, c, c->subs);
}

/* What the name check says of V2's own kinds of names is true for V1 sockets only. */
static void name_error(const struct conn *c, const char *error, char *text, uint32_t room)
{
    const char *tail = c->v2 ? strstr(error, " are only supported on protocol V2") : NULL;
    int n = tail == NULL ? (int)strlen(error) : (int)(tail - error);
    snprintf(text, room, "Channel error: %.*s%s", n, error,
             tail == NULL ? "" : " are not supported by this build");
}

static void examine(struct shard *sh, struct conn *c, struct ask *a)
{
    char error[PUSHER_ERROR_TEXT_BYTES], text[PUSHER_ERROR_TEXT_BYTES + 64];
    const struct conf_app *app = &sh->conf->apps[c->app];
    uint32_t limit = app->max_channel_name_length == 0 ? SESSION_NAME_BYTES_MAX
                                                       : app->max_channel_name_length;
    limit = u32_min(limit, SESSION_NAME_BYTES_MAX);
    if (!pusher_channel_parse(a->name, limit, &app->names, &a->kind, error)) {
        name_error(c, error, text, sizeof(text));
        refuse(sh, c, a, PUSHER_CHANNEL, text);
        return;
    }
    if (check_policy(sh, c, a) && check_auth(sh, c, a)) join(sh, c, a);
}

static bool read_data(const struct conn *c, const struct json_value *data, struct ask *a,
                      char error[PUSHER_ERROR_TEXT_BYTES])
{
    if (!c->v2) return pusher_subscribe_parse(data, a->scratch, &a->in, error);
    if (!v2_subscribe_parse(data, a->scratch, &a->more, error)) return false;
    a->in = (struct pusher_subscribe){
        .channel = a->more.channel, .auth = a->more.auth, .channel_data = a->more.channel_data,
    };
    return true;
}

void session_subscribe(struct shard *sh, struct conn *c, const struct json_value *data)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct ask a = {0};
    if (data->type == JSON_STRING) {
        a.scratch_bytes = u32_max(data->text_bytes, 1);
        a.scratch = heap_alloc(sh->heap, a.scratch_bytes);
        if (a.scratch == NULL) {
            refuse(sh, c, &a, PUSHER_OVER_CAPACITY, "Over capacity");
            return;
        }
    }
    if (!read_data(c, data, &a, error)) {
        conn_error(sh, c, PUSHER_GENERIC, error);
    } else if (!decode(sh, &a)) {
        refuse(sh, c, &a, PUSHER_OVER_CAPACITY, "Over capacity");
    } else {
        examine(sh, c, &a);
    }
    if (a.presence != NULL) {
        heap_free(sh->heap, a.presence, (uint32_t)sizeof(*a.presence) + a.presence->bytes_count);
    }
    heap_free(sh->heap, a.decoded, a.decoded_bytes);
    heap_free(sh->heap, a.scratch, a.scratch_bytes);
}
