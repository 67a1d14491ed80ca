#include "shards/user.h"

#include "proto/sign.h"
#include "shards/actor.h"
#include "shards/session_v2.h"

#include <stdio.h>

#define USER_PREFIX "#server-to-user-"
enum { PREFIX_BYTES = sizeof(USER_PREFIX) - 1, NAME_BYTES_MAX = PREFIX_BYTES + USER_ID_BYTES_MAX };

static struct slice watch_name(const struct watch *w)
{
    return slice_of(w->name, w->name_bytes);
}

static struct slice watch_id(const struct watch *w)
{
    return slice_skip(watch_name(w), PREFIX_BYTES);
}

/* ---- the end of a sign-in ---- */

static void unwatch(struct shard *sh, struct watch *w)
{
    if (w->entry == NULL) return;
    struct letter l = {.kind = MAIL_UNWATCH, .arg = {(uintptr_t)w->entry}};
    w->entry = NULL;
    shard_answer(sh, w->home_shard, &l);
}

static void user_release(struct shard *sh, struct user *u)
{
    u->gone = true;
    if (u->joining) {                      /* the answer will find another user, or none */
        u->joining = false;
        u->waiting--;
    }
    for (uint32_t i = 0; i < u->watches_count; i++) unwatch(sh, &u->watches[i]);
    if (u->waiting == 0) heap_free(sh->heap, u, u->block_bytes);
}

void user_gone(struct shard *sh, struct conn *c)
{
    struct user *u = c->user;
    if (u == NULL) return;
    c->user = NULL;
    metric_add(sh->metrics, METRIC_AUTHENTICATED_CONNECTIONS, c->app, 0, -1);
    user_release(sh, u);
}

/* ---- what the socket is told ---- */

static void send_text_event(struct shard *sh, struct conn *c, const char *event_json,
                            struct slice data)
{
    struct pusher_out o = {.event_json = slice_str(event_json)};
    struct frame *f = frame_make(sh, pusher_event_text_bytes(&o, data));
    if (f == NULL) {
        conn_kill_later(sh, c);
        return;
    }
    f->bytes_count = pusher_event_text_write(&o, data, frame_room(f));
    conn_send(sh, c, f);
    frame_put(sh, &f);
}

static void send_success(struct shard *sh, struct conn *c, const struct user *u)
{
    uint32_t room = json_quote_bytes(u->data) + 16;
    uint8_t *data = heap_alloc(sh->heap, room);
    if (data == NULL) {
        conn_kill_later(sh, c);
        return;
    }
    memcpy(data, "{\"user_data\":", 13);
    uint32_t n = 13 + json_quote(u->data, data + 13);
    data[n++] = '}';
    if (c->v2) {
        session_v2_tell(sh, c, "\"sockudo:signin_success\"", slice_of(NULL, 0),
                        slice_of(data, n));
        heap_free(sh->heap, data, room);
        return;
    }
    struct pusher_out o = {
        .event_json = slice_str("\"pusher:signin_success\""), .data_json = slice_of(data, n),
    };
    struct frame *f = frame_make(sh, pusher_event_bytes(&o));
    if (f != NULL) {
        f->bytes_count = pusher_event_write(&o, frame_room(f));
        conn_send(sh, c, f);
        frame_put(sh, &f);
    } else {
        conn_kill_later(sh, c);
    }
    heap_free(sh->heap, data, room);
}

/* {"name":"online","user_ids":[...]} of the watches in one state. Returns bytes written. */
static uint32_t put_list(uint8_t *out, const struct watch *watches, uint32_t count, bool online)
{
    const char *head = online ? "{\"name\":\"online\",\"user_ids\":["
                              : "{\"name\":\"offline\",\"user_ids\":[";
    uint32_t n = (uint32_t)strlen(head);
    memcpy(out, head, n);
    bool first = true;
    for (uint32_t i = 0; i < count; i++) {
        if (watches[i].online != online) continue;
        if (!first) out[n++] = ',';
        first = false;
        n += json_quote(watch_id(&watches[i]), out + n);
    }
    if (first) return 0;
    memcpy(out + n, "]}", 2);
    return n + 2;
}

static void send_status(struct shard *sh, struct conn *c, const struct watch *watches,
                        uint32_t count)
{
    uint32_t room = 96;
    for (uint32_t i = 0; i < count; i++) room += json_quote_bytes(watch_id(&watches[i])) + 1;
    uint8_t *data = heap_alloc(sh->heap, room);
    if (data == NULL) {
        conn_kill_later(sh, c);
        return;
    }
    memcpy(data, "{\"events\":[", 11);
    uint32_t n = 11, on = put_list(data + n, watches, count, true);
    n += on;
    if (on > 0) data[n++] = ',';
    uint32_t off = put_list(data + n, watches, count, false);
    n += off;
    if (on > 0 && off == 0) n--;
    memcpy(data + n, "]}", 2);
    if (c->v2) {
        session_v2_tell(sh, c, "\"sockudo_internal:watchlist_events\"", slice_of(NULL, 0),
                        slice_of(data, n + 2));
    } else {
        send_text_event(sh, c, "\"pusher_internal:watchlist_events\"", slice_of(data, n + 2));
    }
    heap_free(sh->heap, data, room);
}

/* One answer is in. At the last one the socket learns that it is signed in and who is online: V1
 * afterwards, V2 before. */
static void settle(struct shard *sh, struct user *u)
{
    ASSERT(u->waiting > 0);
    if (--u->waiting > 0) return;
    if (u->gone) {
        for (uint32_t i = 0; i < u->watches_count; i++) unwatch(sh, &u->watches[i]);
        heap_free(sh->heap, u, u->block_bytes);
        return;
    }
    struct conn *c = conn_get(sh, u->sock, u->gen);
    ASSERT(c != NULL && c->user == u);
    u->ready = true;
    conn_log(sh, c, "signed in", "user_id", u->id);
    if (c->v2 && u->watches_count > 0) send_status(sh, c, u->watches, u->watches_count);
    send_success(sh, c, u);
    if (!c->v2 && u->watches_count > 0) send_status(sh, c, u->watches, u->watches_count);
}

void user_on_joined(struct shard *sh, struct conn *c)
{
    if (c->user != NULL && !c->user->ready && c->user->joining) {
        c->user->joining = false;
        settle(sh, c->user);
    }
}

/* ---- sign-in ---- */

static void refuse(struct shard *sh, struct conn *c, uint32_t code, const char *text)
{
    if (code == PUSHER_UNAUTHORIZED) {
        metric_add(sh->metrics, METRIC_CONNECTION_ERRORS_TOTAL, c->app,
                   SERIES_ERROR_AUTHENTICATION_ERROR, 1);
    }
    conn_error(sh, c, code, text);
}

static bool is_user_id(const struct json_value *v)
{
    return v->type == JSON_STRING && v->text_bytes > 0 && v->text_bytes <= USER_ID_BYTES_MAX;
}

/* Count the watches of a list and the bytes of their channel names. */
static uint32_t watches_in(const struct json_value *list, uint32_t *bytes)
{
    struct json_value v;
    uint32_t count = 0;
    *bytes = 0;
    if (list->type != JSON_ARRAY) return 0;
    struct json_iter it = json_iter_begin(list);
    while (json_array_next(&it, &v)) {
        if (!is_user_id(&v)) continue;
        count++;
        *bytes += PREFIX_BYTES + v.text_bytes;
    }
    return count;
}

static uint8_t *keep(uint8_t *at, struct slice from, struct slice *out)
{
    if (from.bytes > 0) memcpy(at, from.ptr, from.bytes);
    *out = slice_of(at, from.bytes);
    return at + from.bytes;
}

static void fill_watches(struct shard *sh, struct user *u, const struct json_value *list,
                         uint8_t *at)
{
    struct json_value v;
    if (list->type != JSON_ARRAY) return;
    struct json_iter it = json_iter_begin(list);
    while (json_array_next(&it, &v)) {
        if (!is_user_id(&v)) continue;
        struct watch *w = &u->watches[u->watches_count];
        w->user = u;
        w->name = (char *)at;
        w->name_bytes = PREFIX_BYTES + v.text_bytes;
        memcpy(at, USER_PREFIX, PREFIX_BYTES);
        json_decode(&v, at + PREFIX_BYTES);
        bool skip = slice_equal(watch_id(w), u->id);   /* nobody is told about himself */
        for (uint32_t i = 0; i < u->watches_count && !skip; i++) {
            skip = slice_equal(watch_name(w), watch_name(&u->watches[i]));
        }
        if (skip) continue;
        w->home_shard = shard_home(sh, u->app, watch_name(w));
        at += w->name_bytes;
        u->watches_count++;
    }
}

/* One block: the struct, its watches, and copies of all texts. */
static struct user *user_make(struct shard *sh, struct conn *c, const struct pusher_user *in,
                              struct slice data, bool watching)
{
    struct json_value none = {0};
    const struct json_value *list = watching ? &in->watchlist : &none;
    uint32_t names, count = watches_in(list, &names);
    struct slice info = in->user_info.type == JSON_ABSENT ? slice_str("{}") : in->user_info.raw;
    uint32_t bytes = (uint32_t)sizeof(struct user) + count * (uint32_t)sizeof(struct watch) +
                     names + NAME_BYTES_MAX + in->id.text_bytes + in->id.raw.bytes + info.bytes +
                     data.bytes;
    struct user *u = heap_zalloc(sh->heap, bytes);
    if (u == NULL) return NULL;
    u->block_bytes = bytes;
    u->sock = conn_sock(sh, c);
    u->gen = c->gen;
    u->app = c->app;
    u->epoch = ++sh->user_epoch;
    u->watches = (struct watch *)(u + 1);
    uint8_t *at = (uint8_t *)(u->watches + count);
    json_decode(&in->id, at);
    u->id = slice_of(at, in->id.text_bytes);
    at += in->id.text_bytes;
    at = keep(at, in->id.raw, &u->id_json);
    uint32_t compact = in->user_info.type == JSON_ABSENT || in->user_info.type == JSON_STRING
                           ? (memcpy(at, info.ptr, info.bytes), info.bytes)
                           : json_compact(&in->user_info, at);
    u->info_json = slice_of(at, compact);
    at += compact;
    at = keep(at, data, &u->data);
    fill_watches(sh, u, list, at);
    return u;
}

static bool join_own(struct shard *sh, struct conn *c, struct slice own,
                     const struct pusher_channel *kind)
{
    struct attach *at = c->v2 ? chan_attach_make(sh, c) : NULL;
    if (c->v2 && at == NULL) return false;
    if (chan_join(sh, c, own, kind, NULL, at, true) == OK) return true;
    if (at != NULL) chan_attach_free(sh, at);
    return false;
}

/* Ask the homes: the user's own (the hidden subscription) and those of the watched users. */
static bool begin(struct shard *sh, struct conn *c, struct user *u)
{
    char name[NAME_BYTES_MAX];
    memcpy(name, USER_PREFIX, PREFIX_BYTES);
    memcpy(name + PREFIX_BYTES, u->id.ptr, u->id.bytes);
    struct slice own = slice_of(name, PREFIX_BYTES + u->id.bytes);
    struct pusher_channel kind = {.kind = PUSHER_USER, .user_id = slice_skip(own, PREFIX_BYTES)};
    struct chan *ch = chan_find(sh, c->app, own);
    struct sub *s = ch == NULL ? NULL : chan_sub_of(c, ch);
    u->waiting = 1;                        /* held until everything has been asked */
    if (s == NULL || s->state != SUB_JOINED) {
        if (s == NULL && !join_own(sh, c, own, &kind)) return false;
        u->joining = true;
        u->waiting++;
    }
    for (uint32_t i = 0; i < u->watches_count; i++) {
        struct letter l = {
            .kind = MAIL_WATCH, .payload = &u->watches[i],
            .arg = {0, (uint64_t)u->gen << 32 | u->sock, (uint64_t)u->epoch << 32 | i},
        };
        shard_answer(sh, u->watches[i].home_shard, &l);   /* at most 100 per admitted sign-in */
        u->waiting++;
    }
    return true;
}

/* Leave the channel of a user that this socket is no longer. */
static void leave_other(struct shard *sh, struct conn *c, struct slice id)
{
    for (struct sub *s = c->subs; s != NULL; s = s->conn_next) {
        if (s->hidden && !slice_equal(slice_skip(chan_name(s->chan), PREFIX_BYTES), id)) {
            chan_leave(sh, c, s, 0);
            return;
        }
    }
}

static void sign_in(struct shard *sh, struct conn *c, const struct pusher_user *in,
                    struct slice data)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
    uint32_t names;
    if (app->enable_watchlist_events &&
        watches_in(&in->watchlist, &names) > USER_WATCHLIST_MAX) {
        refuse(sh, c, PUSHER_WATCHLIST, "Watchlist limit exceeded");
        return;
    }
    struct user *u = user_make(sh, c, in, data, app->enable_watchlist_events);
    if (u == NULL) {
        refuse(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
        return;
    }
    user_gone(sh, c);
    leave_other(sh, c, u->id);
    c->user = u;
    metric_add(sh->metrics, METRIC_AUTHENTICATED_CONNECTIONS, c->app, 0, 1);
    c->authorised = true;
    if (!begin(sh, c, u)) {
        u->waiting = 0;
        user_gone(sh, c);
        refuse(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
        return;
    }
    settle(sh, u);
}

static void check_user_data(struct shard *sh, struct conn *c, struct slice auth, struct slice data)
{
    const struct server *s = sh->server;
    char id[PUSHER_SOCKET_ID_BYTES], error[PUSHER_ERROR_TEXT_BYTES];
    struct pusher_user in;
    struct slice parts[3] = {
        slice_of(id, pusher_socket_id_write(id, c->socket_a, c->socket_b)), slice_str("::user::"),
        data,
    };
    if (!sign_auth_valid(auth, s->app_keys[c->app], s->app_secrets[c->app], parts, 3)) {
        refuse(sh, c, PUSHER_UNAUTHORIZED,
               "Authentication error: Connection not authorized for signin.");
    } else if (!pusher_user_parse(data, &in, error)) {
        refuse(sh, c, PUSHER_UNAUTHORIZED, error);
    } else if (in.id.text_bytes > USER_ID_BYTES_MAX) {
        refuse(sh, c, PUSHER_UNAUTHORIZED,
               "Authentication error: User id exceeds maximum length of 128");
    } else if (c->v2 && !actor_capabilities_valid(data)) {
        refuse(sh, c, PUSHER_UNAUTHORIZED,
               "Authentication error: Invalid capabilities in user_data");
    } else {
        sign_in(sh, c, &in, data);
    }
}

void user_signin(struct shard *sh, struct conn *c, const struct json_value *signin)
{
    struct json_value auth, data;
    struct json_error error;
    const struct json_field fields[] = {{"auth", &auth}, {"user_data", &data}};
    if (!sh->conf->apps[c->app].enable_user_authentication) {
        refuse(sh, c, PUSHER_UNAUTHORIZED,
               "Authentication error: User authentication is disabled for this app");
    } else if (signin->type != JSON_OBJECT || !json_object(signin->raw, fields, 2, &error)) {
        refuse(sh, c, PUSHER_GENERIC, "Invalid message format: Invalid signin data format");
    } else if (auth.type != JSON_STRING) {
        refuse(sh, c, PUSHER_UNAUTHORIZED,
               "Authentication error: Missing 'auth' field in signin data");
    } else if (data.type != JSON_STRING) {
        refuse(sh, c, PUSHER_UNAUTHORIZED,
               "Authentication error: Missing 'user_data' field in signin data");
    } else {
        uint32_t room = auth.text_bytes + data.text_bytes + 1;
        uint8_t *b = heap_alloc(sh->heap, room);
        if (b == NULL) {
            refuse(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
            return;
        }
        json_decode(&auth, b);
        json_decode(&data, b + auth.text_bytes);
        check_user_data(sh, c, slice_of(b, auth.text_bytes),
                        slice_of(b + auth.text_bytes, data.text_bytes));
        heap_free(sh->heap, b, room);
    }
}

void user_on_watched(struct shard *sh, const struct letter *l)
{
    struct watch *w = l->payload;
    w->entry = (void *)(uintptr_t)l->arg[1];
    w->online = l->arg[0] != 0;
    settle(sh, w->user);
}

void user_on_watch_event(struct shard *sh, const struct letter *l)
{
    struct conn *c = conn_get(sh, (uint32_t)l->arg[1], (uint32_t)(l->arg[1] >> 32));
    struct user *u = c == NULL ? NULL : c->user;
    uint32_t index = (uint32_t)l->arg[2];
    if (u == NULL || u->epoch != l->arg[2] >> 32) return;
    ASSERT(index < u->watches_count);
    struct watch *w = &u->watches[index];
    w->online = l->arg[0] != 0;
    if (u->ready) send_status(sh, c, w, 1);
}
