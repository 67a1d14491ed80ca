#include "tests/sim/tale.h"

#include <stdio.h>
#include <stdlib.h>

struct tale tale;

static const char *const channels[TALE_CHANNELS] = {"tale-a", "tale-b", "tale-c"};

const char *tale_channel(uint32_t channel)
{
    ASSERT(channel < TALE_CHANNELS);
    return channels[channel];
}

int tale_channel_of(const char *name)
{
    for (int i = 0; i < TALE_CHANNELS; i++) {
        if (strcmp(name, channels[i]) == 0) return i;
    }
    return -1;
}

/* ---- operations ---- */

uint32_t tale_op_new(uint32_t app, uint32_t channel, enum tale_action action, uint32_t create)
{
    if (tale.ops_count == tale.ops_room) {
        tale.ops_room = u32_max(2 * tale.ops_room, 1024);
        tale.ops = realloc(tale.ops, tale.ops_room * sizeof(struct tale_op));
        ASSERT(tale.ops != NULL);
    }
    if (tale.ops_count == 0) tale.ops[tale.ops_count++] = (struct tale_op){0};
    uint32_t op = tale.ops_count++;
    tale.ops[op] = (struct tale_op){
        .app = (uint8_t)app, .channel = (uint8_t)channel, .action = (uint8_t)action,
        .create = create == 0 ? op : create,
    };
    return op;
}

/* "(12:xxx)": what stands between brackets is the operation's alone. */
void tale_text(uint32_t op, char out[TALE_TEXT_BYTES])
{
    uint32_t pad = op % 7 == 0 ? op * 31 % 400 : op % 23;
    int n = snprintf(out, TALE_TEXT_BYTES, "(%u:", op);
    memset(out + n, 'a' + (int)(op % 26), pad);
    memcpy(out + n + pad, ")", 2);
}

uint32_t tale_op_in(const char *text)
{
    const char *at = strrchr(text, '(');
    uint32_t op = at == NULL ? 0 : (uint32_t)strtoul(at + 1, NULL, 10);
    MUST(op < tale.ops_count, "nobody said %s", text);
    return op;
}

/* ---- streams ---- */

static struct tale_log *log_of(uint32_t app, uint32_t channel)
{
    ASSERT(app < WORLD_APPS && channel < TALE_CHANNELS);
    return &tale.logs[app][channel];
}

static struct tale_entry *entry_of(struct tale_log *log, uint64_t serial)
{
    MUST(serial > 0 && serial < 1 << 20, "a serial of %llu", (unsigned long long)serial);
    if (serial >= log->room) {
        uint32_t room = u32_max(2 * log->room, (uint32_t)serial + 256);
        log->entries = realloc(log->entries, room * sizeof(struct tale_entry));
        ASSERT(log->entries != NULL);
        memset(log->entries + log->room, 0, (room - log->room) * sizeof(struct tale_entry));
        log->room = room;
    }
    return &log->entries[serial];
}

static void forget(uint32_t app, uint32_t channel);

void tale_saw_stream(uint32_t app, uint32_t channel, const char *stream)
{
    struct tale_log *log = log_of(app, channel);
    if (tale_is_loose(app)) return;
    MUST(strlen(stream) == 36, "a stream named %s", stream);
    MUST(strcmp(stream, log->gone) != 0, "%s of app %u has its old name again, %s",
         tale_channel(channel), app, stream);
    /* What has no lane ends when nobody listens and nothing can be replayed (world.c). */
    bool ends = tale_kind_of(app) == TALE_RING && world_streams_go();
    if (ends && log->stream[0] != 0 && strcmp(stream, log->stream) != 0) forget(app, channel);
    if (log->stream[0] == 0) snprintf(log->stream, sizeof(log->stream), "%s", stream);
    MUST(strcmp(stream, log->stream) == 0, "%s of app %u was %s and is %s", tale_channel(channel),
         app, log->stream, stream);
}

void tale_saw_head(uint32_t app, uint32_t channel, uint64_t serial)
{
    struct tale_log *log = log_of(app, channel);
    if (!tale_is_loose(app)) log->head = u64_max(log->head, serial);
}

/* Versions of one message are a chain from the newest to the create; what was not told yet is put
 * in between when it is. */
static void chain(struct tale_log *log, uint64_t serial, uint32_t create)
{
    struct tale_entry *e = &log->entries[serial];
    for (uint64_t s = serial; s-- > 1;) {
        uint32_t other = log->entries[s].op;
        if (other == 0 || tale.ops[other].create != create) continue;
        e->before = (uint32_t)s;
        break;
    }
    for (uint64_t s = serial + 1; s < log->room && s <= log->head; s++) {
        uint32_t other = log->entries[s].op;
        if (other == 0 || tale.ops[other].create != create) continue;
        log->entries[s].before = (uint32_t)serial;
        break;
    }
}

void tale_saw(uint32_t app, uint32_t channel, uint64_t serial, uint32_t op)
{
    struct tale_log *log = log_of(app, channel);
    struct tale_op *o = &tale.ops[op];
    struct tale_entry *e = entry_of(log, serial);
    MUST(o->app == app && o->channel == channel, "operation %u is not of %s of app %u", op,
         tale_channel(channel), app);
    if (tale_is_loose(app)) return;
    MUST(e->op == 0 || e->op == op, "%s of app %u: %llu was operation %u and is %u",
         tale_channel(channel), app, (unsigned long long)serial, e->op, op);
    MUST(o->serial == 0 || o->serial == serial, "operation %u stands at %llu and at %llu of %s",
         op, (unsigned long long)o->serial, (unsigned long long)serial, tale_channel(channel));
    tale_saw_head(app, channel, serial);
    o->done = true;
    if (e->op != 0) return;
    e->op = op;
    o->serial = serial;
    const struct tale_op *create = &tale.ops[o->create];
    MUST(o->create == op || create->serial == 0 || create->serial < serial,
         "operation %u stands before its message", op);
    chain(log, serial, o->create);
}

void tale_saw_version(uint32_t app, uint32_t channel, uint64_t serial, const char *version)
{
    struct tale_entry *e = entry_of(log_of(app, channel), serial);
    const char *last = strrchr(version, ':');
    uint64_t ms = strtoull(version, NULL, 10);
    if (tale_is_loose(app)) return;
    MUST(last != NULL && strtoull(last + 1, NULL, 10) == serial, "version %s stands at %llu",
         version, (unsigned long long)serial);
    MUST(e->ms == 0 || e->ms == ms, "%s of app %u: %llu was of %llu and is of %llu",
         tale_channel(channel), app, (unsigned long long)serial, (unsigned long long)e->ms,
         (unsigned long long)ms);
    e->ms = ms;
}

/* ---- messages ---- */

bool tale_known(uint32_t app, uint32_t channel, uint64_t from, uint64_t upto)
{
    const struct tale_log *log = log_of(app, channel);
    for (uint64_t s = from; s <= upto; s++) {
        if (s >= log->room || log->entries[s].op == 0) return false;
    }
    return true;
}

static bool whole(const struct tale_log *log, uint64_t serial, char *out, size_t room)
{
    const struct tale_entry *e = &log->entries[serial];
    const struct tale_op *o = &tale.ops[e->op];
    char text[TALE_TEXT_BYTES];
    tale_text(e->op, text);
    bool adds = o->action == TALE_APPEND;
    if (o->cleared) text[0] = 0;
    if (!adds) return snprintf(out, room, "%s", text) < (int)room;
    if (e->before == 0 || !whole(log, e->before, out, room)) return false;
    size_t n = strlen(out);
    return snprintf(out + n, room - n, "%s", text) < (int)(room - n);
}

bool tale_whole(uint32_t app, uint32_t channel, uint64_t serial, char *out, size_t room)
{
    struct tale_log *log = log_of(app, channel);
    if (serial >= log->room || log->entries[serial].op == 0) return false;
    uint64_t first = tale.ops[tale.ops[log->entries[serial].op].create].serial;
    if (first == 0 || !tale_known(app, channel, first, serial)) return false;
    return whole(log, serial, out, room);
}

uint64_t tale_latest(uint32_t op, uint64_t upto)
{
    const struct tale_op *o = &tale.ops[op];
    const struct tale_log *log = log_of(o->app, o->channel);
    uint64_t latest = o->serial;
    for (uint64_t s = o->serial + 1; o->serial > 0 && s <= upto && s < log->room; s++) {
        if (log->entries[s].op != 0 && tale.ops[log->entries[s].op].create == op) latest = s;
    }
    return latest;
}

/* ---- the end of a life ---- */

static void forget(uint32_t app, uint32_t channel)
{
    struct tale_log *log = log_of(app, channel);
    memcpy(log->gone, log->stream, sizeof(log->gone));
    log->stream[0] = 0;
    log->head = 0;
    if (log->room > 0) memset(log->entries, 0, log->room * sizeof(struct tale_entry));
    for (uint32_t i = 1; i < tale.ops_count; i++) {
        struct tale_op *o = &tale.ops[i];
        if (o->app != app || o->channel != channel) continue;
        o->serial = 0;
        o->done = false;
        o->name[0] = 0;
    }
}

void tale_model_lost(bool killed)
{
    for (uint32_t app = 0; app < WORLD_APPS; app++) {
        enum tale_kind kind = tale_kind_of(app);
        if (kind != TALE_RING && !(kind == TALE_RELAXED && killed)) continue;
        for (uint32_t i = 0; i < TALE_CHANNELS; i++) forget(app, i);
    }
}

void tale_model_free(void)
{
    free(tale.ops);
    for (uint32_t app = 0; app < WORLD_APPS; app++) {
        for (uint32_t i = 0; i < TALE_CHANNELS; i++) free(tale.logs[app][i].entries);
    }
    memset(&tale, 0, sizeof(tale));
}
