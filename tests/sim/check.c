/* When all is quiet: the server's books agree with each other and with what clients were told. */
#include "tests/sim/client.h"

#include "shards/annotation_book.h"
#include "shards/presence_log_parts.h"
#include "shards/stream.h"
#include "shards/user.h"

#include <stdio.h>

static struct shard *shard_at(uint32_t i) { return &world.server.shards[i]; }

static int64_t gauge(uint32_t id, uint32_t app, uint32_t labels)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < world.shards; i++) {
        for (uint32_t k = 0; k < labels; k++) sum += metric_read(&world.sets[i], id, app, k);
    }
    return sum;
}

struct count { int64_t connected, users_signed, users, subs, channels, members; };
static struct count counts[WORLD_APPS];

/* ---- a shard's own books ---- */

static void check_chan(struct shard *sh, struct chan *ch)
{
    struct shard *hs = shard_at(ch->home_shard);
    struct home *h = home_find(hs, ch->app, chan_name(ch));
    uint32_t joined = 0;
    MUST(ch->asked_count == 0 && ch->jobs_first == NULL && !ch->fanning, "%s is not settled",
         ch->name);
    MUST(chan_by_handle(sh, ch->handle) == ch && h != NULL, "a channel without handle or home");
    for (struct sub *s = ch->subs; s != NULL; s = s->chan_next) {
        struct conn *c = conn_get(sh, s->sock, s->gen);
        MUST(c != NULL && chan_sub_of(c, ch) == s, "a subscriber that is gone");
        MUST(s->state == SUB_JOINED && s->asked == 0 && s->home == h, "a sub is not settled");
        struct member *m = s->member;
        MUST((m != NULL) == (ch->kind == PUSHER_PRESENCE), "member or none");
        MUST(m == NULL || (m->home == h && slice_equal(member_id(m), s->presence->id)),
             "a sub with the wrong member");
        joined++;
    }
    MUST(joined == ch->joined_count && joined > 0, "%s counts %u of %u", ch->name,
         ch->joined_count, joined);
    for (uint32_t i = 0; i < h->interests_count; i++) {
        struct interest *in = &h->interests[i];
        if (in->shard != sh->id) continue;
        MUST(in->subs_count == joined && in->chan == ch->handle, "the home of %s counts %u of %u",
             ch->name, in->subs_count, joined);
        return;
    }
    world_fail("the home of %s does not know shard %u", ch->name, sh->id);
}

static void check_members(struct home *h)
{
    uint32_t members = 0, sockets = 0;
    for (struct member *m = h->extra->members; m != NULL; m = m->next) {
        members++;
        sockets += m->sockets_count;
        MUST(m->sockets_count > 0 || timer_armed(&m->grace), "a member without a socket");
        MUST(m->sockets_count == 0 || !timer_armed(&m->grace), "a member with a socket is leaving");
    }
    MUST(members == h->extra->members_count, "members of %s", h->name);
    MUST(h->kind != PUSHER_PRESENCE || sockets == h->subs_count, "sockets of %s", h->name);
    counts[h->app].members += members;
}

/* At rest nothing is speculative: whatever was sequenced has been committed or taken back. */
static void check_stream(const struct stream *st)
{
    const char *name = st->home->name;
    MUST(st->state != STREAM_LOADING && st->waits_first == NULL && st->reads == 0 &&
             st->flying == 0 && st->gates == 0, "the stream of %s is not at rest", name);
    MUST(st->now.delivery == st->next.delivery && st->now.history == st->next.history,
         "%s is at %llu, and would go on at %llu", name, (unsigned long long)st->now.delivery,
         (unsigned long long)st->next.delivery);
    MUST(!st->relaxed || st->stored.delivery == st->now.delivery, "%s has shown too much", name);
    MUST(!st->degraded, "%s is said to be damaged", name);
    for (uint32_t i = 0; i + 1 < st->ring_count; i++) {
        const struct stream_entry *a = &st->ring[(st->ring_first + i) & (st->ring_room - 1)];
        const struct stream_entry *b = &st->ring[(st->ring_first + i + 1) & (st->ring_room - 1)];
        MUST(b->delivery == a->delivery + 1, "the ring of %s has a gap", name);
    }
    for (const struct stream_message *m = st->messages; m != NULL; m = m->next) {
        MUST(m->flying == 0 && !m->loading && !m->barrier, "message %llu of %s is not at rest: %u "
             "fly, loading %d, barrier %d", (unsigned long long)m->message, name, m->flying,
             m->loading, m->barrier);
        MUST(!m->fold.started || m->next_delivery == m->fold.delivery, "%s: a message", name);
    }
}

static void check_home(struct shard *sh, struct home *h)
{
    uint32_t subs = 0;
    MUST(shard_home(sh, h->app, home_name(h)) == sh->id, "%s is not at home", h->name);
    for (uint32_t i = 0; i < h->interests_count; i++) {
        struct interest *in = &h->interests[i];
        struct chan *ch = chan_by_handle(shard_at(in->shard), in->chan);
        MUST(ch != NULL && in->subs_count > 0 && ch->joined_count == in->subs_count,
             "%s: an interest of nobody", h->name);
        subs += in->subs_count;
    }
    struct home_extra *x = h->extra;
    uint32_t streams = 0;
    for (uint32_t i = 0; x != NULL && i < STREAM_WHATS; i++) {
        if (x->streams[i] == NULL) continue;
        check_stream(x->streams[i]);
        streams++;
    }
    MUST(subs == h->subs_count && h->pins == streams, "%s counts %u of %u, %u pins", h->name,
         h->subs_count, subs, h->pins);
    MUST(subs > 0 || streams > 0 || (x != NULL && (x->members_count > 0 || x->cached != NULL ||
                                    x->watchers != NULL)), "nothing holds %s", h->name);
    if (x != NULL) check_members(h);
    counts[h->app].subs += subs;
    counts[h->app].channels += subs > 0;
    counts[h->app].users += subs > 0 && h->kind == PUSHER_USER;
}

static void check_shard(struct shard *sh)
{
    uint32_t chans = 0, homes = 0, conns = 0;
    timer_validate(&sh->re.wheel);
    for (uint32_t i = 0; i < sh->chan_slots_count; i++) {
        if (sh->chan_slots[i].object == NULL) continue;
        chans++;
        check_chan(sh, sh->chan_slots[i].object);
    }
    MUST(chans == sh->chans.nodes_count, "channels of shard %u", sh->id);
    for (uint32_t a = 0; a < WORLD_APPS; a++) {
        for (struct home *h = sh->homes_of_app[a]; h != NULL; h = h->app_next) {
            homes++;
            check_home(sh, h);
        }
    }
    MUST(homes == sh->homes.nodes_count, "homes of shard %u", sh->id);
    MUST(sh->fan_first == NULL && sh->fan_last == NULL, "fan-outs are left");
    for (uint32_t i = 0; i < sh->conns_seen; i++) {
        struct conn *c = &sh->conns[i];
        if (c->state == CONN_FREE) continue;
        conns++;
        counts[c->app].connected += c->counted;
        counts[c->app].users_signed += c->user != NULL;
    }
    MUST(conns == sh->conns_count && conns == ring_sim_socks(sh->re.ring), "sockets of shard %u",
         sh->id);
}

static void check_gauges(void)
{
    for (uint32_t a = 0; a < WORLD_APPS; a++) {
        struct count *n = &counts[a];
        MUST(gauge(METRIC_CONNECTED, a, 1) == n->connected, "connected of app %u", a);
        MUST(gauge(METRIC_AUTHENTICATED_CONNECTIONS, a, 1) == n->users_signed,
             "authenticated_connections of app %u", a);
        MUST(gauge(METRIC_USERS, a, 1) == n->users, "users of app %u", a);
        MUST(gauge(METRIC_PRESENCE_MEMBERS, a, 1) == n->members, "presence_members of app %u", a);
        MUST(gauge(METRIC_SUBSCRIPTIONS, a, PUSHER_TYPE_LABELS) == n->subs,
             "subscriptions of app %u", a);
        MUST(gauge(METRIC_ACTIVE_CHANNELS, a, PUSHER_TYPE_LABELS) == n->channels,
             "active_channels of app %u", a);
    }
}

/* ---- what clients were told ---- */

static struct home *home_of(uint32_t app, uint32_t channel)
{
    struct slice name = slice_str(world_name(channel));
    return home_find(shard_at(shard_home(shard_at(0), app, name)), app, name);
}

static void check_belief(const struct client *c, struct shard *sh, const struct conn *conn,
                         uint32_t channel)
{
    const struct belief *b = &c->channels[channel];
    struct chan *ch = chan_find(sh, c->app, slice_str(world_name(channel)));
    struct sub *s = ch == NULL ? NULL : chan_sub_of(conn, ch);
    bool hears = channel < WORLD_NAMES ? b->live : c->user == (int)(channel - WORLD_NAMES);
    MUST(hears == (s != NULL), "client %u and the server differ about %s", c->number,
         world_name(channel));
    if (s == NULL) return;
    const struct log *log = &world.logs[c->app][channel];
    for (uint32_t seq = b->next; seq > 0 && seq <= log->count; seq++) {
        MUST(world.messages[log->ids[seq - 1]].except == c->number,
             "client %u did not get the last message (%u) of %s", c->number, log->ids[seq - 1],
             world_name(channel));
    }
    uint32_t members = 0;
    struct home *h = home_of(c->app, channel);
    if (h->kind != PUSHER_PRESENCE) return;
    for (struct member *m = h->extra->members; m != NULL; m = m->next) {
        members |= 1u << (member_id(m).ptr[1] - '0');
    }
    MUST(members == b->members, "client %u thinks that %s has %x, it has %x", c->number,
         world_name(channel), b->members, members);
}

static void check_client(const struct client *c)
{
    struct shard *sh = shard_at(c->shard);
    uint32_t sock = conn_sock(sh, conn_of_ring(sh, c->peer->sock));
    struct conn *conn = conn_get(sh, sock, c->peer->gen);
    MUST(conn != NULL && conn->state == CONN_WS, "client %u thinks it is open, state %d", c->number,
         conn == NULL ? -1 : conn->state);
    MUST(conn->out_count == 0 && conn->in == NULL, "client %u: %u frames wait, input %s", c->number,
         conn->out_count, conn->in == NULL ? "none" : "waits");
    for (uint32_t i = 0; i < WORLD_NAMES; i++) check_belief(c, sh, conn, i);
    if (world.failed > 0) return;        /* a sign-in or a watch may have been refused for it */
    for (uint32_t i = WORLD_NAMES; i < WORLD_CHANNELS; i++) check_belief(c, sh, conn, i);
    MUST(!c->status_next && c->signins == c->signed_in, "client %u waits for its sign-in",
         c->number);
    MUST((conn->user != NULL) == (c->user >= 0), "client %u: signed in or not", c->number);
    MUST(conn->user == NULL || conn->user->id.ptr[1] - '0' == c->user, "client %u is another",
         c->number);
    for (uint32_t u = 0; u < WORLD_USERS; u++) {
        if (!(c->watched >> u & 1)) continue;
        struct home *h = home_of(c->app, WORLD_NAMES + u);
        MUST(h != NULL && (h->subs_count > 0) == (c->online >> u & 1),
             "client %u thinks that u%u is %s", c->number, u,
             c->online >> u & 1 ? "online" : "offline");
    }
}

void check_quiet(void)
{
    memset(counts, 0, sizeof(counts));
    for (uint32_t i = 0; i < world.shards; i++) check_shard(shard_at(i));
    check_gauges();
    for (uint32_t i = 0; i < clients_count; i++) {
        if (clients[i].peer != NULL && client_is_current(&clients[i])) check_client(&clients[i]);
    }
}

void check_empty(void)
{
    for (uint32_t i = 0; i < world.shards; i++) {
        uint64_t mark = shard_at(i)->heap_mark;
        stream_forget_idle(shard_at(i));
        shard_at(i)->heap_mark = 0;      /* as if memory were short */
        annotation_tick(shard_at(i));
        shard_at(i)->heap_mark = mark;
    }
    check_quiet();
    for (uint32_t i = 0; i < world.shards; i++) {
        struct shard *sh = shard_at(i);
        MUST(ring_sim_socks(sh->re.ring) == 0, "shard %u has sockets left", i);
        for (uint32_t a = 0; a < WORLD_APPS; a++) {
            const struct home *h = sh->homes_of_app[a];
            MUST(h == NULL, "shard %u: %s of app %u is left: %u subscribers, %u pins", i, h->name,
                 a, h->subs_count, h->pins);
        }
        MUST(sh->homes.nodes_count == 0 && sh->members.nodes_count == 0 &&
                 sh->chans.nodes_count == 0 && sh->ops_count == 0 && sh->cache_bytes == 0,
             "shard %u: %u homes, %u members, %u channels, %u ops left", i, sh->homes.nodes_count,
             sh->members.nodes_count, sh->chans.nodes_count, sh->ops_count);
        MUST(sh->fan_jobs == 0 && sh->fan_waiting == 0, "shard %u: %u fan-outs, %llu visits left",
             i, sh->fan_jobs, (unsigned long long)sh->fan_waiting);
        uint64_t kept = world.baseline[i] + (sh->watched_room > 0);   /* grows, and stays */
        /* A store that is full takes no events: they wait, behind each other. */
        MUST(sh->presence_log->pending_count == 0 || world.conf.history_max_bytes > 0,
             "shard %u: events wait for the log", i);
        kept += sh->presence_log->pending_count + sh->presence_log->rooms.nodes_count;
        MUST(heap_used_objects(sh->heap) == kept, "shard %u leaks %lld objects", i,
             (long long)(heap_used_objects(sh->heap) - kept));
    }
}
