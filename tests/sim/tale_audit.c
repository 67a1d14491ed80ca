/* When all is quiet: everything is read back, and nothing is missing, twice or different. */
#include "tests/sim/tale.h"

#include <stdio.h>

enum { SETTLE_ROUNDS = 40, RESUME_MS = 6000, PROBE_MS = 1500 };

bool tale_settle_read(void)
{
    bool any = tale_backend_read(), wild = tale_wild_read();
    any = any || wild;
    for (uint32_t i = 0; i < TALE_CLIENTS; i++) {
        if (tale_client_read(&tale_clients[i], true)) any = true;
    }
    return any;
}

/* Who waits for an answer; NULL: nobody. */
static const char *waits(void)
{
    static char text[128];
    if (tale_backend_waiting() > 0) return "a backend";
    if (tale_wild_waiting() > 0) return "a wild backend";
    for (uint32_t i = 0; i < TALE_CLIENTS; i++) {
        const struct tale_client *c = &tale_clients[i];
        for (uint32_t k = 0; c->peer != NULL && k < TALE_CHANNELS; k++) {
            const struct tale_ear *e = &c->ears[k];
            if (!c->resuming && !e->asked && !e->leaving && !e->resuming) continue;
            snprintf(text, sizeof(text), "socket %u on %s: resuming %d, asked %d, leaving %d, "
                     "position under way %d", c->number, tale_channel(k), c->resuming, e->asked,
                     e->leaving, e->resuming);
            return text;
        }
    }
    return NULL;
}

void tale_settle(void)
{
    bool failed = tale.fail_commit > 0;
    uint32_t pace = tale.store_pace;
    tale.fail_commit = 0;
    tale.store_pace = 512;
    world_settle(tale_settle_read);
    for (uint32_t i = 0; failed || waits() != NULL; i++) {
        MUST(i < SETTLE_ROUNDS, "%s waits for ever", waits());
        world_pass(failed ? PROBE_MS : RESUME_MS);
        world_settle(tale_settle_read);
        failed = false;
    }
    tale.store_pace = pace;
}

/* ---- everything from the first serial on ---- */

static void open_auditor(struct tale_client *c)
{
    tale_client_leave(c, false);
    world_settle(tale_settle_read);
    tale_client_connect(c);
    world_settle(tale_settle_read);
    MUST(tale_client_current(c), "the auditor is not let in");
}

static void subscribe_all(struct tale_client *c)
{
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) tale_client_subscribe(c, i, 0);
}

static void check_complete(uint32_t app, uint32_t channel)
{
    const struct tale_log *log = &tale.logs[app][channel];
    uint64_t ms = 0;
    for (uint64_t s = 1; s <= log->head; s++) {
        MUST(s < log->room && log->entries[s].op != 0, "nothing stands at %llu of %llu of %s of "
             "app %u", (unsigned long long)s, (unsigned long long)log->head,
             tale_channel(channel), app);
        MUST(log->entries[s].ms == 0 || log->entries[s].ms >= ms, "%s of app %u: %llu is older "
             "than what stands before it", tale_channel(channel), app, (unsigned long long)s);
        ms = u64_max(ms, log->entries[s].ms);
    }
}

static void replay_all(uint32_t app)
{
    struct tale_client *c = &tale_clients[app];
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) c->ears[i].placed = false;
    open_auditor(c);
    subscribe_all(c);
    world_settle(tale_settle_read);
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) {
        MUST(c->ears[i].live && c->ears[i].next == tale.logs[app][i].head + 1,
             "%s of app %u stands at %llu, %llu was told", tale_channel(i), app,
             (unsigned long long)c->ears[i].next - 1,
             (unsigned long long)tale.logs[app][i].head);
    }
    if (!tale_is_stored(app)) return;
    open_auditor(c);
    uint64_t refused = tale.refused;
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) c->ears[i].position = 0;
    if (maybe(512)) tale_client_resume(c);
    subscribe_all(c);
    tale_client_resume(c);
    tale_settle();
    MUST(tale.refused == refused, "app %u does not replay from the start", app);
    for (uint32_t i = 0; i < TALE_CHANNELS; i++) {
        MUST(c->ears[i].live && c->ears[i].position == tale.logs[app][i].head,
             "%s of app %u is replayed up to %llu of %llu", tale_channel(i), app,
             (unsigned long long)c->ears[i].position, (unsigned long long)tale.logs[app][i].head);
        check_complete(app, i);
    }
    tale_client_leave(c, false);
}

static void check_ops(void)
{
    for (uint32_t i = 1; i < tale.ops_count; i++) {
        const struct tale_op *o = &tale.ops[i];
        if (!o->done || !tale_is_stored(o->app) || tale_is_loose(o->app)) continue;
        MUST(o->serial != 0, "operation %u was told and stands nowhere in %s of app %u", i,
             tale_channel(o->channel), o->app);
    }
}

/* ---- history ---- */

static void check_history(uint32_t app, uint32_t channel)
{
    const struct tale_log *log = &tale.logs[app][channel];
    uint64_t creates = 0;
    for (uint64_t s = 1; s <= log->head; s++) {
        creates += tale.ops[log->entries[s].op].action == TALE_CREATE;
    }
    tale_backend_ask_history(app, channel);
    world_settle(tale_settle_read);
    MUST(tale_pages.asking == 0 && tale_pages.items == creates,
         "the history of %s of app %u has %llu of %llu messages", tale_channel(channel), app,
         (unsigned long long)tale_pages.items, (unsigned long long)creates);
}

/* ---- who listens ---- */

/* The creates of the log, one after the other, behind what was heard before. */
static void check_heard(const struct tale_client *c, uint32_t channel)
{
    struct tale_ear *e = &tale_clients[c - tale_clients].ears[channel];
    const struct tale_log *log = &tale.logs[c->app][channel];
    uint64_t s = e->heard_after;
    uint32_t heard = 0;
    if (s == UINT64_MAX) {
        s = log->head;
        if (e->heard_count > 0) s = tale.ops[e->heard[0]].serial - 1;
    }
    while (++s <= log->head) {
        if (tale.ops[log->entries[s].op].action != TALE_CREATE) continue;
        MUST(heard < e->heard_count && e->heard[heard] == log->entries[s].op,
             "socket %u heard operation %u instead of %u of %s", c->number,
             heard < e->heard_count ? e->heard[heard] : 0, log->entries[s].op,
             tale_channel(channel));
        heard++;
    }
    MUST(heard == e->heard_count, "socket %u heard %u, %u were said", c->number, e->heard_count,
         heard);
    e->heard_count = 0;
    e->heard_after = log->head;
}

static void check_skipped(const struct tale_client *c, uint32_t channel)
{
    const struct tale_ear *e = &c->ears[channel];
    const struct tale_log *log = &tale.logs[c->app][channel];
    for (uint32_t i = 0; i < e->skipped_count; i++) {
        uint64_t s = e->skipped[i];
        const struct tale_op *o = &tale.ops[log->entries[s].op];
        MUST(o->action == TALE_APPEND && tale_latest(o->create, e->next - 1) > s,
             "socket %u was not told of %llu of %s", c->number, (unsigned long long)s,
             tale_channel(channel));
    }
}

static void check_ear(const struct tale_client *c, uint32_t channel)
{
    const struct tale_ear *e = &c->ears[channel];
    if (!e->live) return;
    if (!c->v2) {
        if (tale_is_stored(c->app)) check_heard(c, channel);
        return;
    }
    MUST(e->next == tale.logs[c->app][channel].head + 1, "socket %u of %s of app %u is at %llu of "
         "%llu", c->number, tale_channel(channel), c->app, (unsigned long long)e->next - 1,
         (unsigned long long)tale.logs[c->app][channel].head);
    check_skipped(c, channel);
}

void tale_audit(void)
{
    tale_settle();
    check_quiet();
    for (uint32_t app = 0; app < WORLD_APPS; app++) {
        if (!tale_is_loose(app)) replay_all(app);
    }
    check_ops();
    for (uint32_t app = 0; app < WORLD_APPS; app++) {
        if (!tale_is_stored(app) || tale_is_loose(app)) continue;
        for (uint32_t i = 0; i < TALE_CHANNELS; i++) check_history(app, i);
    }
    for (uint32_t i = 0; i < TALE_CLIENTS; i++) {
        const struct tale_client *c = &tale_clients[i];
        if (!tale_client_current(c) || tale_is_loose(c->app)) continue;
        for (uint32_t k = 0; k < TALE_CHANNELS; k++) check_ear(c, k);
    }
}
