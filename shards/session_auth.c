#include "shards/session_auth.h"

#include "proto/sign.h"
#include "shards/user.h"

#include <stdio.h>

struct ask {                             /* one subscribe under examination */
    struct pusher_subscribe in;
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
    if (a->name.bytes > 0 && a->name.bytes <= SESSION_NAME_BYTES_MAX) {
        session_refuse(sh, c, a->name, code, text, status);
    } else {
        conn_error(sh, c, code, text);
    }
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
    if (a->presence == NULL) refuse(sh, c, a, PUSHER_OVER_CAPACITY, "Over capacity");
    return a->presence != NULL;
}

static bool check_auth(struct shard *sh, struct conn *c, struct ask *a)
{
    if (a->kind.kind == PUSHER_USER) {
        if (c->user != NULL && slice_equal(c->user->id, a->kind.user_id)) return true;
        refuse(sh, c, a, PUSHER_UNAUTHORIZED,
               "Authentication error: Channel requires a sign-in as this user");
        return false;
    }
    if (a->kind.kind == PUSHER_PUBLIC) return true;
    if (a->in.auth.type == JSON_ABSENT) {
        refuse(sh, c, a, PUSHER_UNAUTHORIZED,
               "Authentication error: Authentication signature required for this channel");
        return false;
    }
    if (!signature_valid(sh, c, a)) {
        refuse(sh, c, a, PUSHER_UNAUTHORIZED,
               "Authentication error: Channel requires authentication");
        return false;
    }
    c->authorised = true;
    return a->kind.kind != PUSHER_PRESENCE || check_presence(sh, c, a);
}

/* A subscription that stands is answered again; it changes nothing. */
static bool repeated(struct shard *sh, struct conn *c, const struct ask *a)
{
    struct chan *ch = chan_find(sh, c->app, a->name);
    struct sub *s = ch == NULL ? NULL : chan_sub_of(c, ch);
    if (s == NULL) return false;
    if (s->hidden) {
        s->shown = true;                 /* still under way: its answer will say so */
        if (s->state == SUB_JOINED) chan_send_succeeded(sh, c, ch, NULL);
    } else {
        chan_join_again(sh, s);
    }
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
    if (shard_pressed(sh) || chan_join(sh, c, a->name, &a->kind, a->presence, false) != OK) {
        refuse(sh, c, a, PUSHER_OVER_CAPACITY, "Over capacity");
        return;
    }
    a->presence = NULL;                  /* the subscription's now */
}

static void examine(struct shard *sh, struct conn *c, struct ask *a)
{
    char error[PUSHER_ERROR_TEXT_BYTES], text[PUSHER_ERROR_TEXT_BYTES + 16];
    const struct conf_app *app = &sh->conf->apps[c->app];
    uint32_t limit = app->max_channel_name_length == 0 ? SESSION_NAME_BYTES_MAX
                                                       : app->max_channel_name_length;
    limit = u32_min(limit, SESSION_NAME_BYTES_MAX);
    if (!pusher_channel_parse(a->name, limit, &a->kind, error)) {
        snprintf(text, sizeof(text), "Channel error: %s", error);
        refuse(sh, c, a, PUSHER_CHANNEL, text);
        return;
    }
    if (check_auth(sh, c, a)) join(sh, c, a);
}

void session_subscribe(struct shard *sh, struct conn *c, const struct pusher_frame *f)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct ask a = {0};
    if (f->data.type == JSON_STRING) {
        a.scratch_bytes = u32_max(f->data.text_bytes, 1);
        a.scratch = heap_alloc(sh->heap, a.scratch_bytes);
        if (a.scratch == NULL) {
            conn_error(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
            return;
        }
    }
    if (!pusher_subscribe_parse(&f->data, a.scratch, &a.in, error)) {
        conn_error(sh, c, PUSHER_GENERIC, error);
    } else if (!decode(sh, &a)) {
        conn_error(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
    } else {
        examine(sh, c, &a);
    }
    if (a.presence != NULL) {
        heap_free(sh->heap, a.presence, (uint32_t)sizeof(*a.presence) + a.presence->bytes_count);
    }
    heap_free(sh->heap, a.decoded, a.decoded_bytes);
    heap_free(sh->heap, a.scratch, a.scratch_bytes);
}
