/* What a socket of a tale may be told. Texts are looked at as the bytes that they are. */
#include "tests/sim/peer.h"
#include "tests/sim/tale.h"

#include "proto/ws.h"

#include <stdio.h>
#include <stdlib.h>

enum { FRAME_BYTES = 65536 };

struct frame_in {
    const char *text;
    char        event[64];
    int         channel;             /* -1: none */
};

static char whole_known[FRAME_BYTES], whole_told[FRAME_BYTES];

uint64_t tale_number(const char *text, const char *before)
{
    const char *at = strstr(text, before);
    return at == NULL ? 0 : strtoull(at + strlen(before), NULL, 10);
}

static bool is(const struct frame_in *f, const char *event) { return strcmp(f->event, event) == 0; }

/* ---- messages ---- */

/* The text against what is known; the operation that it shows. */
static uint32_t read_version(const struct tale_client *c, const struct frame_in *f,
                             const struct tale_ear *e, uint64_t serial)
{
    static const char *const actions[] = {"create", "update", "delete", "append"};
    char action[32] = "", text[TALE_TEXT_BYTES], name[TALE_SERIAL_BYTES] = "";
    bool has = peer_between(f->text, "\"data\":\"", whole_told, sizeof(whole_told));
    bool acts = peer_between(f->text, "\"sockudo_action\":\"message.", action, sizeof(action));
    uint32_t op = has ? tale_op_in(whole_told) : 0;
    MUST(acts == tale_is_versioned(c->app), "socket %u: %s", c->number, f->text);
    if (strcmp(action, "delete") == 0) op = (uint32_t)tale_number(f->text, "\"op\":");
    MUST(op != 0 && op < tale.ops_count, "socket %u: what says %s", c->number, f->text);
    const struct tale_op *o = &tale.ops[op];
    tale_text(op, text);
    if (!acts) {
        MUST(strcmp(text, whole_told) == 0 && is(f, "ev"), "socket %u: %s", c->number, f->text);
        return op;
    }
    bool named = peer_between(f->text, "\"sockudo_message_serial\":\"", name, sizeof(name));
    struct tale_op *create = &tale.ops[o->create];
    bool same = create->name[0] == 0 || strcmp(create->name, name) == 0;
    MUST(named && (same || tale_is_loose(c->app)), "message %s is called %s", create->name, name);
    memcpy(create->name, name, sizeof(name));
    tale_saw(c->app, o->channel, serial, op);
    named = peer_between(f->text, "\"sockudo_version_serial\":\"", name, sizeof(name));
    MUST(named, "socket %u: no version in %s", c->number, f->text);
    tale_saw_version(c->app, o->channel, serial, name);
    bool update_of_append = o->action == TALE_APPEND && strcmp(action, "update") == 0 &&
                            (c->full || e->rewind > 0 || e->mending);
    MUST(strcmp(action, actions[o->action]) == 0 || update_of_append, "operation %u is told as %s",
         op, f->text);
    bool aggregate = o->action == TALE_APPEND && (c->full || update_of_append);
    MUST(aggregate || strcmp(o->cleared ? "" : text, has ? whole_told : "") == 0,
         "operation %u says %s", op, f->text);
    if (aggregate && tale_whole(c->app, o->channel, serial, whole_known, sizeof(whole_known))) {
        MUST(strcmp(whole_known, whole_told) == 0, "socket %u: message at %llu reads %s, not %s",
             c->number, (unsigned long long)serial, whole_told, whole_known);
    }
    return op;
}

/* Where a message was created: its serial ends with that. */
static uint64_t created_at(const char *name)
{
    const char *last = strrchr(name, ':');
    return last == NULL ? 0 : strtoull(last + 1, NULL, 10);
}

/* A rewind has shown the message of this serial, for all that is known. */
static bool was_rewound(const struct tale_client *c, uint32_t channel, const struct tale_ear *e,
                        uint64_t serial)
{
    const struct tale_log *log = &tale.logs[c->app][channel];
    bool known = strcmp(log->stream, e->now) == 0 && serial < log->room &&
                 log->entries[serial].op != 0;
    if (e->rewound_upto == 0 || !known) return e->rewound_upto > 0;
    const char *name = tale.ops[tale.ops[log->entries[serial].op].create].name;
    uint64_t create = name[0] == 0 && tale_is_versioned(c->app) ? e->rewound_upto
                      : name[0] == 0 ? serial : created_at(name);
    return create >= e->rewound_from && create <= e->rewound_upto;
}

/* A replay to a socket in full mode leaves out appends behind which the message has a newer
 * version: that is looked at when all is known (tale_audit.c). And every replay leaves out what a
 * rewind has shown. */
static void note_skipped(const struct tale_client *c, uint32_t channel, struct tale_ear *e,
                         uint64_t from, uint64_t upto)
{
    MUST(upto - from < 4096, "socket %u goes from %llu to %llu", c->number,
         (unsigned long long)from, (unsigned long long)upto);
    for (uint64_t s = from; s < upto; s++) {
        if (was_rewound(c, channel, e, s)) continue;
        MUST(c->full, "socket %u was not told of %llu of %s", c->number, (unsigned long long)s,
             tale_channel(channel));
        if (e->skipped_count < TALE_SKIPPED) e->skipped[e->skipped_count++] = s;
    }
}

static void take_serial(struct tale_client *c, const struct frame_in *f, struct tale_ear *e,
                        uint64_t serial)
{
    bool skips = c->full && (e->resuming || e->late || e->rewind > 0);
    bool same = strcmp(e->stream, e->now) == 0;
    if (e->behind && e->resuming && same && serial > e->position && serial < e->first) {
        MUST(serial == e->position + 1 || skips || e->rewound_upto > 0,
             "socket %u of %s of app %u has %llu: %s", c->number,
             tale_channel((uint32_t)f->channel), c->app, (unsigned long long)e->position, f->text);
        bool known = strcmp(tale.logs[c->app][f->channel].stream, e->now) == 0;
        MUST(!known || !was_rewound(c, (uint32_t)f->channel, e, serial),
             "socket %u: a rewind has shown it: %s", c->number, f->text);
        note_skipped(c, (uint32_t)f->channel, e, e->position + 1, serial);
        e->position = serial;
        e->replayed++;
    } else {
        MUST(serial == e->next || (skips && serial > e->next),
             "socket %u of %s of app %u expects %llu: %s", c->number,
             tale_channel((uint32_t)f->channel), c->app, (unsigned long long)e->next, f->text);
        MUST(!e->resuming || e->replayed == 0, "socket %u: live within a replay: %s",
             c->number, f->text);
        note_skipped(c, (uint32_t)f->channel, e, e->next, serial);
        e->next = serial + 1;
        e->along += e->after || e->rewind > 0;
    }
    if (e->behind && same && e->position + 1 == e->first) e->behind = false;
    if (!e->behind) e->position = e->next - 1;
}

/* A message of a rewind is shown as it was when the socket came. */
static void on_rewound(struct tale_client *c, const struct frame_in *f, struct tale_ear *e,
                       uint64_t serial, uint32_t op)
{
    uint32_t create = tale.ops[op].create;
    uint64_t first = tale.ops[create].serial;
    uint64_t latest = tale_latest(create, e->first - 1);
    MUST(latest == serial || first == 0, "socket %u: message %u is rewound at %llu, its newest "
         "version is %llu", c->number, create, (unsigned long long)serial,
         (unsigned long long)latest);
    const char *name = tale.ops[create].name;
    uint64_t created = name[0] == 0 ? serial : created_at(name);
    MUST(first == 0 || first == created, "socket %u: message %u was created at %llu: %s", c->number,
         create, (unsigned long long)first, f->text);
    MUST(created > e->rewound_upto, "socket %u: rewound out of order: %s", c->number, f->text);
    if (e->rewound == 0) e->rewound_from = created;
    e->rewound_upto = created;
    e->rewound++;
}

static void on_rewind_complete(struct tale_client *c, const struct frame_in *f, struct tale_ear *e)
{
    uint32_t channel = (uint32_t)f->channel, creates = 0;
    MUST(e->live && e->rewind > 0, "socket %u: %s", c->number, f->text);
    MUST(tale_number(f->text, "\"historical_count\":") == e->rewound &&
             tale_number(f->text, "\"live_count\":") == e->along,
         "socket %u: %u were rewound, %u live: %s", c->number, e->rewound, e->along, f->text);
    bool known = tale_known(c->app, channel, 1, e->first - 1);
    for (uint64_t s = 1; known && s < e->first; s++) {
        creates += tale.ops[tale.logs[c->app][channel].entries[s].op].action == TALE_CREATE;
    }
    MUST(!known || e->rewound == u32_min(creates, e->rewind), "socket %u: %u of %u rewound",
         c->number, e->rewound, creates);
    e->rewind = 0;
    tale.rewinds++;
}

/* It starts from what is there now: a real client reads the history. */
static void rebuild(struct tale_ear *e)
{
    memcpy(e->stream, e->now, sizeof(e->stream));
    e->position = e->next - 1;
    e->placed = true;
}

/* The stream has ended under the socket, which goes on with the next one. */
static void start_over(struct tale_ear *e, const char *stream, uint64_t serial)
{
    memcpy(e->now, stream, TALE_STREAM_BYTES);
    e->first = e->next = serial;
    if (!e->resuming) rebuild(e);
}

/* A message that was changed live while its older versions were missing is shown whole behind them,
 * as of the last live frame. */
static void on_mend(struct tale_client *c, const struct frame_in *f, struct tale_ear *e)
{
    char name[TALE_SERIAL_BYTES] = "";
    MUST(e->resuming && c->resuming && tale_is_versioned(c->app), "socket %u: %s", c->number,
         f->text);
    bool named = peer_between(f->text, "\"sockudo_version_serial\":\"", name, sizeof(name));
    uint64_t serial = created_at(name);
    MUST(named && serial >= e->first && serial < e->next, "socket %u was sent %llu to %llu: %s",
         c->number, (unsigned long long)e->first, (unsigned long long)e->next - 1, f->text);
    e->mending = true;
    uint32_t op = read_version(c, f, e, serial);
    e->mending = false;
    uint64_t latest = tale_latest(tale.ops[op].create, e->next - 1);
    MUST(latest == serial || tale.ops[tale.ops[op].create].serial == 0,
         "socket %u was sent %llu already: %s", c->number, (unsigned long long)latest, f->text);
    e->mended++;
    tale.mends++;
}

/* Every message that has versions on both sides of the success was mended. */
static void check_mended(const struct tale_client *c, uint32_t channel, const struct tale_ear *e)
{
    const struct tale_log *log = &tale.logs[c->app][channel];
    bool known = strcmp(log->stream, e->now) == 0 && tale_is_versioned(c->app) &&
                 tale_known(c->app, channel, e->from + 1, e->next - 1);
    uint32_t both = 0;
    for (uint64_t s = e->from + 1; known && s < e->first; s++) {
        uint32_t create = tale.ops[log->entries[s].op].create;
        bool last = tale_latest(create, e->first - 1) == s;
        both += last && tale_latest(create, e->next - 1) > s && !was_rewound(c, channel, e, s);
    }
    MUST(!known || both == e->mended, "socket %u: %u of %u messages were mended on %s behind %llu",
         c->number, e->mended, both, tale_channel(channel), (unsigned long long)e->from);
}

static void on_v2_message(struct tale_client *c, const struct frame_in *f, struct tale_ear *e)
{
    char stream[TALE_STREAM_BYTES];
    uint64_t serial = tale_number(f->text, "\"serial\":");
    bool placed = peer_between(f->text, "\"stream_id\":\"", stream, sizeof(stream));
    MUST(e->live, "socket %u is not on the channel: %s", c->number, f->text);
    if (!placed) {
        on_mend(c, f, e);
        tale.frames++;
        return;
    }
    bool same = placed && strcmp(stream, e->now) == 0;
    if (tale_is_loose(c->app) && placed && !same) start_over(e, stream, serial);
    MUST(same || (placed && tale_is_loose(c->app)), "socket %u listens to %s: %s", c->number,
         e->now, f->text);
    uint32_t op = read_version(c, f, e, serial);
    tale_saw(c->app, (uint32_t)f->channel, serial, op);
    if (e->rewind > 0 && serial < e->first) on_rewound(c, f, e, serial, op);
    else take_serial(c, f, e, serial);
    tale.frames++;
}

/* Only creates, in their order, and nothing that the older protocol does not know. */
static void on_v1_message(struct tale_client *c, const struct frame_in *f, struct tale_ear *e)
{
    char text[TALE_TEXT_BYTES];
    MUST(e->live && is(f, "ev"), "socket %u: %s", c->number, f->text);
    MUST(strstr(f->text, "sockudo") == NULL && strstr(f->text, "serial") == NULL &&
             strstr(f->text, "stream_id") == NULL && strstr(f->text, "extras") == NULL,
         "socket %u is told %s", c->number, f->text);
    bool has = peer_between(f->text, "\"data\":\"", whole_told, sizeof(whole_told));
    uint32_t op = has ? tale_op_in(whole_told) : 0;
    MUST(op != 0, "socket %u: what is %s", c->number, f->text);
    struct tale_op *o = &tale.ops[op];
    tale_text(op, text);
    MUST(o->action == TALE_CREATE && strcmp(text, whole_told) == 0 && o->app == c->app &&
             o->channel == f->channel, "socket %u: %s", c->number, f->text);
    o->done = true;
    if (e->heard_count == e->heard_room) {
        e->heard_room = u32_max(2 * e->heard_room, 64);
        e->heard = realloc(e->heard, e->heard_room * sizeof(uint32_t));
        ASSERT(e->heard != NULL);
    }
    e->heard[e->heard_count++] = op;
}

/* ---- subscriptions and resumes ---- */

static void on_succeeded(struct tale_client *c, const struct frame_in *f, struct tale_ear *e)
{
    char stream[TALE_STREAM_BYTES];
    MUST(e->asked && !e->live, "socket %u: a success unasked: %s", c->number, f->text);
    e->asked = false;
    e->live = true;
    e->heard_after = UINT64_MAX;
    if (!c->v2) return;
    const char *data = strstr(f->text, "\"stream_id\":");
    MUST(data != NULL, "socket %u: no stream in %s", c->number, f->text);
    uint64_t serial = tale_number(data, "\"serial\":");
    bool named = peer_between(data, "\"stream_id\":\"", stream, sizeof(stream));
    MUST(named, "socket %u: no stream in %s", c->number, f->text);
    tale_saw_stream(c->app, (uint32_t)f->channel, stream);
    if (tale_kind_of(c->app) == TALE_RING && strcmp(stream, e->floor_stream) != 0) e->floor = 0;
    memcpy(e->now, stream, sizeof(stream));
    bool same = e->placed && strcmp(e->stream, stream) == 0;
    bool resumed = same && e->resuming && serial == e->position;
    MUST((resumed || serial >= e->floor) && (!same || serial >= e->position),
         "socket %u: %s stands at %llu; %llu was told, it has %llu", c->number,
         tale_channel((uint32_t)f->channel), (unsigned long long)serial,
         (unsigned long long)e->floor, (unsigned long long)e->position);
    tale_saw_head(c->app, (uint32_t)f->channel, serial);
    e->first = e->next = serial + 1;
    e->after = e->resuming && c->resuming;
    e->late = e->resuming && !c->resuming;
    if (resumed && e->late) e->resuming = false;   /* nothing more is said about it */
    e->behind = e->resuming && (!same || serial > e->position);
    if (!e->resuming && same && serial > e->position) e->behind = maybe(512);   /* asks later */
    if (!e->behind) rebuild(e);
}

static const char *plain(const char *text)
{
    static char out[FRAME_BYTES];
    char *to = out;
    for (; *text != 0; text++) {
        if (*text != '\\') *to++ = *text;
    }
    *to = 0;
    return out;
}

/* A position cannot be taken up. `at`: its JSON. */
static void on_failed(struct tale_client *c, uint32_t channel, const char *at)
{
    struct tale_ear *e = &c->ears[channel];
    char code[64], reason[128];
    bool said = peer_between(at, "\"code\":\"", code, sizeof(code)) &&
                peer_between(at, "\"reason\":\"", reason, sizeof(reason));
    const struct tale_log *log = &tale.logs[c->app][channel];
    bool other = strcmp(e->stream, log->stream) != 0;
    bool unknown = log->stream[0] == 0;
    MUST(said, "what failed: %s", at);
    MUST(!e->resuming || e->replayed == 0, "socket %u: %s after %u of it", c->number, at,
         e->replayed);
    if (strcmp(code, "stream_reset") == 0) {
        MUST(other || unknown, "socket %u: %s of app %u is said to be another: %s", c->number,
             tale_channel(channel), c->app, at);
    } else if (strcmp(code, "position_expired") == 0) {
        MUST(!tale_is_stored(c->app), "socket %u: it is stored: %s", c->number, at);
    } else if (strcmp(code, "continuity_unverifiable") == 0) {
        MUST(strcmp(reason, "not_subscribed") == 0 && !e->live, "socket %u: %s", c->number, at);
    } else {
        MUST(strcmp(code, "persistence_unavailable") == 0, "socket %u: %s", c->number, at);
    }
    tale.refused++;
    e->resuming = e->after = false;
    e->behind = false;
    if (e->live) rebuild(e);
    else e->placed = false;
}

static void on_resume_failed(struct tale_client *c, const struct frame_in *f)
{
    MUST(f->channel >= 0, "socket %u: %s", c->number, f->text);
    struct tale_ear *e = &c->ears[f->channel];
    if (e->twice && !e->half && c->resuming) {   /* the second one may say more */
        e->half = true;
        return;
    }
    if (e->twice && !e->resuming) {              /* the first one's, when both were given up */
        e->twice = false;
        return;
    }
    MUST(e->resuming, "socket %u: %s", c->number, f->text);
    on_failed(c, (uint32_t)f->channel, plain(f->text));
}

static void on_aggregate(struct tale_client *c, const struct frame_in *f)
{
    const char *text = plain(f->text), *failed = strstr(text, "],\"failed\":[");
    MUST(c->resuming && failed != NULL, "socket %u: %s", c->number, f->text);
    c->resuming = false;
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) {
        char key[64];
        struct tale_ear *e = &c->ears[i];
        snprintf(key, sizeof(key), "{\"channel\":\"%s\"", tale_channel(i));
        const char *at = strstr(text, key);
        bool asked = e->named;
        e->named = false;
        if (at == NULL) {
            MUST(!asked, "socket %u: nothing of %s in %s", c->number, key, text);
            continue;
        }
        if (at < failed) {
            if (e->behind && e->rewound_upto > 0 && strcmp(e->stream, e->now) == 0) {
                note_skipped(c, i, e, e->position + 1, e->first);
                rebuild(e);
                e->behind = false;
            }
            MUST(e->resuming && e->live && !e->behind, "socket %u: %s, but it has %llu of %llu",
                 c->number, text, (unsigned long long)e->position,
                 (unsigned long long)e->first - 1);
            uint64_t said = tale_number(at, "\"replayed\":");
            MUST(said == e->replayed || (e->replayed == 0 && said <= e->along),
                 "socket %u counts %u or %u: %s", c->number, e->replayed, e->along, text);
            check_mended(c, i, e);
            e->resuming = e->after = false;
            tale.recovered++;
        } else if (e->resuming && e->half) {
            on_failed(c, i, at);
        } else if (e->resuming) {            /* it may still come in time */
            MUST(strstr(at, "not_subscribed") != NULL && !e->live, "socket %u: %s, without word",
                 c->number, text);
        }
    }
}

/* ---- the socket ---- */

static void on_pong(struct tale_client *c)
{
    c->pongs++;
    MUST(c->pongs <= c->pings, "socket %u: a pong too many", c->number);
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) {
        struct tale_ear *e = &c->ears[i];
        if (!e->leaving || e->leave_ping != c->pongs) continue;
        e->leaving = e->live = e->behind = false;
        e->heard_count = 0;
    }
}

static void on_socket(struct tale_client *c, const struct frame_in *f)
{
    const char *event = strchr(f->event, ':');
    MUST(strncmp(f->event, c->v2 ? "sockudo" : "pusher", c->v2 ? 7 : 6) == 0 ||
             is(f, "pusher:error"), "socket %u: %s", c->number, f->text);
    if (strcmp(event, ":connection_established") == 0) {
        bool found = peer_between(f->text, "socket_id\\\":\\\"", c->socket_id,
                                  sizeof(c->socket_id));
        MUST(found, "no socket id in %s", f->text);
    } else if (strcmp(event, ":pong") == 0) {
        on_pong(c);
    } else if (strcmp(event, ":ping") == 0) {
        MUST(!c->v2, "socket %u is pinged with an event", c->number);
        tale_client_pong(c);
    } else if (strcmp(event, ":resume_success") == 0) {
        on_aggregate(c, f);
    } else if (strcmp(event, ":error") == 0) {
        MUST(tale_troubled() || strstr(f->text, "4100") != NULL ||
                 strstr(f->text, "4201") != NULL || strstr(f->text, "4200") != NULL,
             "socket %u: %s", c->number, f->text);
        tale_client_leave(c, false);
    } else {
        world_fail("socket %u: what is %s", c->number, f->text);
    }
}

static void on_channel(struct tale_client *c, const struct frame_in *f)
{
    struct tale_ear *e = &c->ears[f->channel];
    if (is(f, c->v2 ? "sockudo_internal:subscription_succeeded"
                    : "pusher_internal:subscription_succeeded")) on_succeeded(c, f, e);
    else if (is(f, "sockudo:resume_failed")) on_resume_failed(c, f);
    else if (is(f, "sockudo:rewind_complete")) on_rewind_complete(c, f, e);
    else if (is(f, "pusher:subscription_error")) tale_client_leave(c, false);
    else if (strstr(f->event, "subscription_count") != NULL) return;
    else if (c->v2) on_v2_message(c, f, e);
    else on_v1_message(c, f, e);
}

void tale_frame(struct tale_client *c, uint8_t opcode, const uint8_t *payload, uint32_t bytes)
{
    static char text[FRAME_BYTES];
    char name[64];
    struct frame_in f = {.text = text, .channel = -1};
    memcpy(text, payload, bytes);
    text[bytes] = 0;
    if (world.verbose) fprintf(stderr, "%u: socket %u gets %u %s\n", world.step, c->number,
                               opcode, opcode == WS_CLOSE ? text + 2 : text);
    if (opcode == WS_CLOSE) {
        tale_client_leave(c, false);
        return;
    }
    if (opcode != WS_TEXT) return;
    bool named = peer_between(text, "{\"event\":\"", f.event, sizeof(f.event));
    MUST(named, "no event in %s", text);
    if (peer_between(text, ",\"channel\":\"", name, sizeof(name))) {
        f.channel = tale_channel_of(name);
        MUST(f.channel >= 0, "which channel is %s", text);
    }
    if (f.channel >= 0) on_channel(c, &f);
    else on_socket(c, &f);
}
