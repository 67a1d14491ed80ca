/* What a client may be told, frame by frame. Texts are looked at as the bytes that they are, not
 * with the server's own reader. */
#include "tests/sim/client.h"
#include "tests/sim/peer.h"

#include "proto/ws.h"

#include <stdio.h>
#include <stdlib.h>

struct frame_in {
    const char *text;                /* whole payload, ended by a zero */
    char        event[64];
    int         channel;             /* -1: none */
};

static bool is(const struct frame_in *f, const char *event) { return strcmp(f->event, event) == 0; }

/* The users u0..u5 named between `from` and the next ']', as bits. */
static uint32_t users_after(const char *text, const char *from)
{
    uint32_t users = 0;
    const char *at = strstr(text, from);
    if (at == NULL) return 0;
    for (at += strlen(from); *at != 0 && *at != ']'; at++) {
        if (*at != 'u') continue;
        uint32_t bit = 1u << (at[1] - '0');
        MUST(at[1] >= '0' && at[1] < '0' + WORLD_USERS, "an unknown user in %s", text);
        MUST((users & bit) == 0, "a user twice in %s", text);
        users |= bit;
    }
    return users;
}

/* ---- channels ---- */

static void on_succeeded(struct client *c, const struct frame_in *f, struct belief *b)
{
    MUST(b->live || b->asked > 0 || b->leaves_count > 0, "client %u: a success for %s, unasked",
         c->number, world_name((uint32_t)f->channel));
    if (world_is_presence((uint32_t)f->channel)) {
        uint32_t members = users_after(f->text, "\\\"ids\\\":[");
        const char *count = strstr(f->text, "\\\"count\\\":");
        MUST(count != NULL && strtol(count + 10, NULL, 10) == __builtin_popcount(members),
             "count and ids differ: %s", f->text);
        MUST(!b->live || members == b->members, "client %u: the list says %x, the events said %x",
             c->number, members, b->members);
        b->members = members;
    }
    if (!b->live) {
        b->live = true;
        if (f->channel < WORLD_NAMES) b->next = b->admissions == 1 ? b->admitted_seq + 1 : 0;
        b->admissions = 0;
    }
    b->cached_next = world_is_cache((uint32_t)f->channel);
}

static void on_member(struct client *c, const struct frame_in *f, struct belief *b, bool added)
{
    const char *at = strstr(f->text, "user_id\\\":\\\"u");
    MUST(b->live && at != NULL, "client %u: not for this socket: %s", c->number, f->text);
    uint32_t bit = 1u << (at[13] - '0');
    MUST(((b->members & bit) != 0) != added, "client %u: %s, but the list is %x", c->number,
         f->text, b->members);
    b->members ^= bit;
}

/* All messages from *next up to `seq`, which are now known not to come, must not be for us. */
static void skipped(const struct client *c, uint32_t channel, uint32_t from, uint32_t to)
{
    const struct log *log = &world.logs[c->app][channel];
    for (uint32_t seq = from; seq < to; seq++) {
        uint32_t id = log->ids[seq - 1];
        MUST(world.messages[id].except == c->number, "client %u lost message %u of %s (at %u)",
             c->number, id, world_name(channel), seq);
    }
}

static bool may_hear_user(const struct client *c, uint32_t user)
{
    if (c->user == (int)user) return true;
    for (uint32_t n = c->signed_in + 1; n <= c->signins; n++) {
        if (c->signin_user[n % 256] == user) return true;
    }
    return false;
}

static void on_message(struct client *c, const struct frame_in *f, struct belief *b)
{
    uint32_t id = world_message_in(f->text, (uint32_t)strlen(f->text));
    uint32_t channel = (uint32_t)f->channel;
    MUST(id != 0 && id < world.messages_count, "client %u: what is %s", c->number, f->text);
    const struct message *m = &world.messages[id];
    MUST(m->app == c->app && m->channel == channel, "client %u: message %u is not of %s",
         c->number, id, world_name(channel));
    MUST(m->seq > 0, "message %u has not been to its home", id);
    if (b->cached_next) {
        b->cached_next = false;
        return;
    }
    MUST(m->except != c->number, "client %u gets message %u, which leaves it out", c->number, id);
    if (channel >= WORLD_NAMES) {
        MUST(may_hear_user(c, channel - WORLD_NAMES), "client %u is not %s", c->number,
             world_name(channel));
        if (c->signins != c->signed_in) b->next = 0;
    } else {
        MUST(b->live, "client %u is not on %s but gets message %u", c->number,
             world_name(channel), id);
    }
    if (b->next != 0) {
        MUST(m->seq >= b->next, "client %u: message %u of %s comes late (%u after %u)", c->number,
             id, world_name(channel), m->seq, b->next - 1);
        skipped(c, channel, b->next, m->seq);
    }
    b->next = m->seq + 1;
}

/* ---- the socket ---- */

static void on_pong(struct client *c)
{
    MUST(c->pongs < c->pings, "client %u: a pong too many", c->number);
    c->pongs++;
    for (uint32_t i = 0; i < WORLD_CHANNELS; i++) {
        struct belief *b = &c->channels[i];
        if (b->leaves_count == 0 || b->leaves[0] != c->pongs) continue;
        b->leaves_count--;                   /* that unsubscribe has been processed */
        memmove(b->leaves, b->leaves + 1, b->leaves_count * sizeof(b->leaves[0]));
        b->live = false;
        b->members = 0;
        if (i < WORLD_NAMES) b->next = 0;
    }
}

static void on_signed_in(struct client *c, const struct frame_in *f)
{
    const char *at = strstr(f->text, "n\\\":");
    uint32_t number = at == NULL ? 0 : (uint32_t)strtoul(at + 4, NULL, 10);
    MUST(number > c->signed_in && number <= c->signins, "client %u: %s after sign-in %u",
         c->number, f->text, c->signed_in);
    c->signed_in = number;
    c->user = c->signin_user[number % 256];
    c->watched = c->signin_watch[number % 256];
    c->status_next = c->watched != 0;
    c->online = 0;
    for (uint32_t i = WORLD_NAMES; i < WORLD_CHANNELS; i++) c->channels[i].next = 0;
}

static void on_status(struct client *c, const struct frame_in *f)
{
    uint32_t on = users_after(f->text, "\\\"online\\\",\\\"user_ids\\\":[");
    uint32_t off = users_after(f->text, "\\\"offline\\\",\\\"user_ids\\\":[");
    MUST((on & off) == 0 && (on | off) != 0 && ((on | off) & ~c->watched) == 0,
         "client %u watches %x: %s", c->number, c->watched, f->text);
    if (c->status_next) {
        MUST((on | off) == c->watched, "client %u: the first status is %s", c->number, f->text);
        c->status_next = false;
    } else {
        MUST((on & c->online) == 0 && (off & ~c->online) == 0, "client %u: %s, but online is %x",
             c->number, f->text, c->online);
    }
    c->online = (c->online | on) & ~off;
}

static void on_established(struct client *c, const struct frame_in *f)
{
    MUST(c->socket_id[0] == 0, "established twice");
    bool found = peer_between(f->text, "socket_id\\\":\\\"", c->socket_id, sizeof(c->socket_id));
    MUST(found, "no socket id in %s", f->text);
    c->socket_id[strcspn(c->socket_id, "\\")] = 0;
    c->socket_a = strtoull(c->socket_id, NULL, 10);
    c->socket_b = strtoull(strchr(c->socket_id, '.') + 1, NULL, 10);
}

static void on_close(struct client *c, const uint8_t *payload, uint32_t bytes)
{
    uint32_t code = bytes < 2 ? 1005 : (uint32_t)payload[0] << 8 | payload[1];
    c->state = CLIENT_CLOSING;
    MUST(code < 4000 || c->code == code, "client %u: close %u after error %u", c->number, code,
         c->code);
    if (!c->answering || c->peer->ended) return;
    client_send_frame(c, WS_CLOSE, payload, bytes >= 2 ? 2 : 0);
    if (maybe(512)) c->peer->ended = true;
}

static void on_socket(struct client *c, const struct frame_in *f)
{
    static const char pong[] = "{\"event\":\"pusher:pong\",\"data\":{}}";
    if (is(f, "pusher:connection_established")) on_established(c, f);
    else if (is(f, "pusher:pong")) on_pong(c);
    else if (is(f, "pusher:signin_success")) on_signed_in(c, f);
    else if (is(f, "pusher_internal:watchlist_events")) on_status(c, f);
    else if (is(f, "pusher:error")) c->code = (uint32_t)atoi(strstr(f->text, "\"code\":") + 7);
    else if (is(f, "pusher:ping")) {
        if (c->answering && !c->peer->ended) client_send_text(c, pong, sizeof(pong) - 1);
    } else world_fail("client %u: what is %s", c->number, f->text);
}

static void on_channel(struct client *c, const struct frame_in *f)
{
    struct belief *b = &c->channels[f->channel];
    if (is(f, "pusher_internal:subscription_succeeded")) {
        on_succeeded(c, f, b);
    } else if (is(f, "pusher:subscription_error")) {
        b->admissions += 10;
    } else if (is(f, "pusher:cache_miss")) {
        MUST(b->cached_next, "client %u: %s", c->number, f->text);
        b->cached_next = false;
    } else if (is(f, "pusher_internal:member_added")) {
        on_member(c, f, b, true);
    } else if (is(f, "pusher_internal:member_removed")) {
        on_member(c, f, b, false);
    } else if (is(f, "pusher_internal:subscription_count")) {
        MUST(b->live, "client %u: %s", c->number, f->text);
    } else if (is(f, "many")) {
        MUST(b->live, "client %u: %s", c->number, f->text);
        b->cached_next = false;
    } else {
        MUST(is(f, "ev") || is(f, "client-e"), "client %u: what is %s", c->number, f->text);
        on_message(c, f, b);
    }
}

void belief_frame(struct client *c, uint8_t opcode, const uint8_t *payload, uint32_t bytes)
{
    static char text[65536];
    char name[64];
    struct frame_in f = {.text = text, .channel = -1};
    memcpy(text, payload, bytes);
    text[bytes] = 0;
    if (world.verbose) fprintf(stderr, "%u: client %u gets %u %s\n", world.step, c->number,
                               opcode, opcode == WS_CLOSE ? text + 2 : text);
    MUST(c->state == CLIENT_OPEN, "client %u: a frame after the close: %s", c->number, text);
    if (opcode == WS_CLOSE) {
        on_close(c, payload, bytes);
        return;
    }
    if (opcode != WS_TEXT) return;               /* the answer to a ping of the rubbish */
    bool named = peer_between(text, "{\"event\":\"", f.event, sizeof(f.event));
    MUST(named, "no event in %s", text);
    if (peer_between(text, ",\"channel\":\"", name, sizeof(name))) {
        f.channel = world_channel(slice_str(name));
        MUST(f.channel >= 0, "which channel is %s", text);
    }
    for (int i = 0; i < WORLD_CHANNELS; i++) {
        MUST(!c->channels[i].cached_next || f.channel == i,
             "client %u: %s instead of the cached event of %s", c->number, text,
             world_name((uint32_t)i));
    }
    MUST(!c->status_next || is(&f, "pusher_internal:watchlist_events"),
         "client %u: %s instead of the status", c->number, text);
    if (f.channel >= 0) on_channel(c, &f);
    else on_socket(c, &f);
}
