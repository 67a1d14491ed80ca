/* Client events: the checks, then a publish at the channel's home. On a channel with memory the
 * home sequences it and builds the frames; elsewhere the frame is built here. */
#include "shards/actor.h"
#include "shards/session.h"
#include "shards/stream.h"

#include <stdio.h>

enum { BROADCAST_ERROR = 4303 };

struct event {                           /* one client event under examination */
    const struct json_value *event, *channel, *data;
    struct slice             name;       /* of the channel, decoded */
    struct pusher_channel    kind;
    struct sub              *sub;
    struct slice             data_json;  /* compact */
    uint8_t                 *compact;    /* owned; NULL: data_json is the message's own */
};

/* ---- publishing ---- */

static bool compact(struct shard *sh, struct event *e)
{
    const struct json_value *data = e->data;
    e->data_json = data->type == JSON_ABSENT ? slice_str("null") : data->raw;
    if (data->type == JSON_ABSENT || data->type == JSON_STRING || !data->escaped) return true;
    e->compact = heap_alloc(sh->heap, data->text_bytes);
    if (e->compact == NULL) return false;
    e->data_json = slice_of(e->compact, json_compact(data, e->compact));
    return true;
}

/* V1 sockets learn who spoke on a presence channel, V2 sockets do not (spec/protocol-v2.md 5.1). */
static struct frame *build_frame(struct shard *sh, const struct event *e)
{
    struct pusher_out o = {
        .event_json = e->event->raw, .channel = e->name, .data_json = e->data_json,
    };
    struct frame *v2 = NULL, *f = NULL;
    if (e->kind.kind == PUSHER_PRESENCE && e->sub->presence != NULL) {
        o.user_id_json = e->sub->presence->id_json;
    }
    f = frame_make(sh, pusher_event_bytes(&o));
    if (f == NULL) return NULL;
    f->bytes_count = pusher_event_write(&o, frame_room(f));
    if (o.user_id_json.ptr == NULL) return f;
    o.user_id_json = slice_of(NULL, 0);
    v2 = frame_sibling(sh, f, pusher_event_bytes(&o));
    if (v2 == NULL) {
        frame_put(sh, &f);
        return NULL;
    }
    v2->bytes_count = pusher_event_write(&o, frame_room(v2));
    f->v2 = v2;
    return f;
}

static struct slice keep(uint8_t **at, struct slice from)
{
    if (from.bytes > 0) memcpy(*at, from.ptr, from.bytes);
    struct slice kept = slice_of(*at, from.bytes);
    *at += from.bytes;
    return kept;
}

static struct content *build_content(struct shard *sh, const struct conn *c, const struct event *e)
{
    struct slice member = slice_of(NULL, 0), owner = member;
    if (e->kind.kind == PUSHER_PRESENCE && e->sub->presence != NULL) member = e->sub->presence->id;
    owner = c->user != NULL ? c->user->id : member;
    uint32_t bytes = e->event->raw.bytes + e->data_json.bytes + member.bytes + owner.bytes;
    struct content *n = heap_zalloc(sh->heap, (uint32_t)sizeof(*n) + bytes);
    if (n == NULL) return NULL;
    uint8_t *at = n->bytes;
    n->bytes_count = bytes;
    n->r.name = keep(&at, e->event->raw);
    n->r.data = keep(&at, e->data_json);
    if (member.bytes > 0) n->actor = keep(&at, member);
    if (owner.bytes > 0) n->r.owner = keep(&at, owner);
    return n;
}

static bool publish(struct shard *sh, struct conn *c, struct event *e)
{
    uint32_t counts[REACTOR_SHARDS_MAX] = {0};
    struct conf_policy policy;
    counts[e->sub->chan->home_shard] = 1;
    conf_policy_of(sh->conf, c->app, e->name, &policy);
    bool memory = policy.history || policy.recovery;
    if (shard_pressed(sh) || !compact(sh, e)) return false;
    struct publish *p = publish_make(sh, c->app, e->name, &e->kind);
    if (p == NULL) return false;
    struct frame *f = NULL;
    if (memory) p->content = build_content(sh, c, e);
    else f = build_frame(sh, e);
    if ((f == NULL && p->content == NULL) || !publish_room(sh, counts)) {
        publish_free(sh, p);             /* and its content */
        frame_put(sh, &f);
        return false;
    }
    if (!c->v2 || !c->echo) {
        p->except_a = c->socket_a;
        p->except_b = c->socket_b;
    }
    p->sock = conn_sock(sh, c);
    p->gen = c->gen;
    publish_post(sh, p, f);
    return true;
}

void session_busy(struct shard *sh, struct conn *c)
{
    if (c->v2) conn_error(sh, c, PUSHER_OVER_CAPACITY, "Buffer full: server is busy, try again");
    else conn_error(sh, c, BROADCAST_ERROR, "Broadcast error: server is busy, try again");
}

/* ---- the checks ---- */

/* What the channel allows: namespace, capability, user limit. 0, or the code with the text. */
static uint32_t check_rights(const struct conn *c, const struct event *e, char *text, uint32_t room)
{
    if (e->kind.ns != NULL && !e->kind.ns->allow_publish_for_client) {
        snprintf(text, room,
                 "Authentication error: Namespace '%s' does not allow client publishes",
                 e->kind.ns->name);
    } else if (!session_granted(c, e->name, ACTOR_PUBLISH)) {
        snprintf(text, room,
                 "Authentication error: Connection is not allowed to publish channel '%.*s'",
                 (int)e->name.bytes, (const char *)e->name.ptr);
    } else if (!session_admitted(c, &e->kind)) {
        snprintf(text, room,
                 "Authentication error: User is not allowed to access channel '%.*s'",
                 (int)e->name.bytes, (const char *)e->name.ptr);
    } else {
        return 0;
    }
    return PUSHER_UNAUTHORIZED;
}

/* The channel part of the checks. 0 when the event may go; else the code, with the text. */
static uint32_t check_target(struct shard *sh, struct conn *c, struct event *e, char *text,
                             uint32_t room)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
    char id[PUSHER_SOCKET_ID_BYTES], ignored[PUSHER_ERROR_TEXT_BYTES];
    uint32_t size = e->data->type == JSON_STRING ? e->data->raw.bytes : e->data->text_bytes;
    bool known = pusher_channel_parse(e->name, app->max_channel_name_length, &app->names, &e->kind,
                                      ignored);
    struct chan *ch = known ? chan_find(sh, c->app, e->name) : NULL;
    e->sub = ch == NULL ? NULL : chan_sub_of(c, ch);
    uint32_t code = known ? check_rights(c, e, text, room) : 0;
    if (!known || (e->kind.kind != PUSHER_PRIVATE && e->kind.kind != PUSHER_PRESENCE)) {
        snprintf(text, room, "Client event error: Client events can only be sent to private or "
                             "presence channels");
    } else if (app->max_event_payload_in_kb > 0 && size > app->max_event_payload_in_kb * 1024) {
        snprintf(text, room,
                 "Client event error: Event payload size (%u bytes) exceeds limit (%uKB)", size,
                 app->max_event_payload_in_kb);
    } else if (code != 0) {
        return code;
    } else if (e->sub == NULL) {
        uint32_t n = pusher_socket_id_write(id, c->socket_a, c->socket_b);
        snprintf(text, room, "Client event error: Socket %.*s is not subscribed to channel %.*s",
                 (int)n, id, (int)e->name.bytes, (const char *)e->name.ptr);
    } else {
        return 0;
    }
    return PUSHER_CLIENT_EVENT;
}

/* The checks in the order of spec/pusher-v1.md 4, after the rate limit. */
static uint32_t check_event(struct shard *sh, struct conn *c, const struct event *e, char *text,
                            uint32_t room)
{
    const struct conf_app *app = &sh->conf->apps[c->app];
    uint32_t limit = app->max_channel_name_length, event_limit = app->max_event_name_length;
    if (e->channel->type == JSON_ABSENT) {
        snprintf(text, room, "Client event error: Channel required for client event");
        return PUSHER_CLIENT_EVENT;
    }
    if (!app->enable_client_messages) {
        snprintf(text, room, "Client event error: Client events are not enabled for this app");
        return PUSHER_CLIENT_EVENT;
    }
    if (event_limit > 0 && e->event->text_bytes > event_limit) {
        snprintf(text, room, "Invalid event name: Event name exceeds maximum length of %u",
                 event_limit);
        return PUSHER_GENERIC;
    }
    if (limit == 0 || limit > SESSION_NAME_BYTES_MAX) limit = SESSION_NAME_BYTES_MAX;
    if (e->channel->text_bytes > limit) {
        snprintf(text, room, "Channel name invalid: Channel name exceeds maximum length of %u",
                 limit);
        return PUSHER_CHANNEL;
    }
    return 0;
}

void session_event(struct shard *sh, struct conn *c, const struct json_value *event,
                   const struct json_value *channel, const struct json_value *data)
{
    char text[PUSHER_ERROR_TEXT_BYTES + SESSION_NAME_BYTES_MAX];
    uint8_t name[SESSION_NAME_BYTES_MAX];
    struct event e = {.event = event, .channel = channel, .data = data};
    if (!session_event_allowed(sh, c)) return;
    uint32_t code = check_event(sh, c, &e, text, sizeof(text));
    if (code == 0) {
        json_decode(channel, name);
        e.name = slice_of(name, channel->text_bytes);
        code = check_target(sh, c, &e, text, sizeof(text));
    }
    if (code != 0) {
        conn_error(sh, c, code, text);
    } else if (!publish(sh, c, &e)) {
        session_busy(sh, c);
    }
    heap_free(sh->heap, e.compact, data->text_bytes);
}
