#include "shards/resume_parts.h"

#include "shards/fan.h"
#include "shards/session_v2.h"

enum { KEPT_ROOM_MIN = 16 };

static bool has_ended(const struct resume_item *item)
{
    return item->state == RESUME_RECOVERED || item->state == RESUME_FAILED;
}

static void count_limit(struct shard *sh, enum series_limit limit)
{
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, limit, 1);
}

static struct resume_item *item_of(const struct conn *c, const struct sub *s)
{
    struct resume *r = c->resume;
    for (uint32_t i = 0; i < r->items_count; i++) {
        if (r->items[i].sub == s) return &r->items[i];
    }
    return NULL;
}

static void item_fail(struct resume_item *item, const char *code, const char *reason)
{
    struct attach *a = &item->a;
    item->state = RESUME_FAILED;
    a->code = code;
    a->reason = reason;
    memcpy(a->expected_id, a->stream_id, sizeof(a->expected_id));
    a->current_id[0] = '\0';
    a->oldest = a->newest = 0;
}

/* ---- the gate ---- */

static void gate(struct resume_item *item, struct sub *s)
{
    item->sub = s;
    s->voice = VOICE_GATED;
}

/* Room for one more kept frame. */
static bool keep_room(struct shard *sh, struct resume *r)
{
    uint32_t size = (uint32_t)sizeof(*r->kept), room = u32_max(r->kept_room * 2, KEPT_ROOM_MIN);
    if (r->kept_count < r->kept_room) return true;
    struct resume_kept *fresh = heap_alloc(sh->heap, room * size);
    if (fresh == NULL) return false;
    if (r->kept_count > 0) memcpy(fresh, r->kept, (size_t)r->kept_count * size);
    heap_free(sh->heap, r->kept, r->kept_room * size);
    r->kept = fresh;
    r->kept_room = room;
    return true;
}

static void free_kept(struct shard *sh, struct resume *r)
{
    heap_free(sh->heap, r->kept, r->kept_room * (uint32_t)sizeof(*r->kept));
    r->kept = NULL;
    r->kept_count = r->kept_room = 0;
    r->kept_bytes = 0;
}

/* Everything that was kept goes out, in the order in which it came. */
static void open_gates(struct shard *sh, struct conn *c)
{
    struct resume *r = c->resume;
    for (uint32_t i = 0; i < r->items_count; i++) {
        struct sub *s = r->items[i].sub;
        if (s != NULL && s->voice == VOICE_GATED) s->voice = chan_voice(s);
    }
    for (uint32_t i = 0; i < r->kept_count; i++) {
        conn_send(sh, c, r->kept[i].frame);
        frame_put(sh, &r->kept[i].frame);
    }
    free_kept(sh, r);
}

/* ---- the end ---- */

void resume_end(struct shard *sh, struct conn *c)
{
    struct resume *r = c->resume;
    if (r == NULL) return;
    c->resume = NULL;
    for (uint32_t i = 0; i < r->kept_count; i++) frame_put(sh, &r->kept[i].frame);
    free_kept(sh, r);
    heap_free(sh->heap, r, r->block_bytes);
}

/* The aggregate, then what was kept back. Replays that are still under way come too late now. */
static void answer(struct shard *sh, struct conn *c)
{
    struct resume *r = c->resume;
    for (uint32_t i = 0; i < r->items_count; i++) {
        struct resume_item *item = &r->items[i];
        if (item->state != RESUME_JOINING && item->state != RESUME_REPLAYING) continue;
        item_fail(item, "persistence_unavailable", "failed_to_deliver_recovery_payload");
        resume_write_failed(sh, c, item);
    }
    r->answered = true;
    resume_write_aggregate(sh, c, r);
    open_gates(sh, c);
}

/* Something has ended: is that all? */
static void settle(struct shard *sh, struct conn *c)
{
    struct resume *r = c->resume;
    for (uint32_t i = 0; i < r->items_count; i++) {
        if (!has_ended(&r->items[i])) return;
    }
    if (!r->answered) answer(sh, c);
    resume_end(sh, c);
}

/* Frames are kept back up to half of what a socket may leave unread; then the aggregate leaves
 * early, with the unfinished as failed, and they follow. */
void resume_hold(struct shard *sh, struct conn *c, struct sub *s, struct frame *f)
{
    struct resume *r = c->resume;
    const struct conf *conf = sh->conf;
    if (f == NULL || c->state != CONN_WS) return;
    ASSERT(r != NULL && !r->answered);
    if (r->kept_count + 1ull > conf->websocket_max_messages / 2 ||
        r->kept_bytes + f->bytes_count > conf->websocket_max_bytes / 2) {
        count_limit(sh, SERIES_LIMIT_RESUME_GATE);
        answer(sh, c);
        conn_send(sh, c, f);
        settle(sh, c);
    } else if (!keep_room(sh, r)) {
        conn_kill_later(sh, c);
    } else {
        r->kept[r->kept_count++] = (struct resume_kept){s, frame_ref(f)};
        r->kept_bytes += f->bytes_count;
    }
}

uint64_t resume_due_ms(const struct conn *c)
{
    const struct resume *r = c->resume;
    if (r == NULL) return UINT64_MAX;
    return r->answered ? r->forget_ms : r->answer_ms;
}

void resume_on_time(struct shard *sh, struct conn *c)
{
    struct resume *r = c->resume;
    if (r == NULL || sh->re.now_ms < resume_due_ms(c)) return;
    count_limit(sh, SERIES_LIMIT_RESUME_TIME);
    if (!r->answered) {
        answer(sh, c);
        settle(sh, c);
        return;
    }
    for (uint32_t i = 0; i < r->items_count; i++) {
        struct resume_item *item = &r->items[i];
        if (item->state != RESUME_WAITING) continue;
        item_fail(item, "continuity_unverifiable", "not_subscribed");
        resume_write_failed(sh, c, item);
    }
    resume_end(sh, c);                   /* an attach under way answers for itself */
}

/* ---- outcomes ---- */

static void end_item(struct shard *sh, struct conn *c, struct resume_item *item,
                     const struct attach *a)
{
    ASSERT(a->recovered || (a->code != NULL && a->reason != NULL));
    item->a = *a;
    item->state = a->recovered ? RESUME_RECOVERED : RESUME_FAILED;
    if (!a->recovered) resume_write_failed(sh, c, item);
    settle(sh, c);
}

static void fail_replay(struct shard *sh, struct conn *c, struct resume_item *item,
                        const char *code, const char *reason)
{
    item_fail(item, code, reason);
    resume_write_failed(sh, c, item);
    settle(sh, c);
}

static void take_position(struct attach *a, const struct resume_item *item)
{
    a->resume = true;
    a->legacy = item->a.legacy;
    a->serial = item->a.serial;
    memcpy(a->stream_id, item->a.stream_id, sizeof(a->stream_id));
}

/* Once the aggregate has left nothing is kept back any more: a replay would follow younger frames.
 * The aggregate has named the channel as failed. */
static void start_replay(struct shard *sh, struct conn *c, struct resume_item *item, struct sub *s)
{
    if (c->resume->answered) {
        fail_replay(sh, c, item, "continuity_unverifiable", "not_subscribed");
        return;
    }
    fan_finish(sh, s->chan);             /* what it has been sent ends at one serial: chan.shown */
    gate(item, s);
    if (s->mark == NULL || !s->mark->has_head) {
        fail_replay(sh, c, item, "continuity_unverifiable", "version_stream_head_unavailable");
        return;
    }
    struct attach *a = chan_attach_make(sh, c);
    if (a != NULL) take_position(a, item);
    item->state = RESUME_REPLAYING;
    item->question = a;
    if (a != NULL && chan_replay(sh, s, a)) return;
    if (a != NULL) chan_attach_free(sh, a);
    fail_replay(sh, c, item, "persistence_unavailable", "failed_to_deliver_recovery_payload");
}

/* The item that waits for this answer in this state, or NULL. */
static struct resume_item *item_asking(const struct conn *c, const struct attach *a, uint8_t state)
{
    struct resume *r = c->resume;
    for (uint32_t i = 0; r != NULL && i < r->items_count; i++) {
        if (r->items[i].question == a && r->items[i].state == state) return &r->items[i];
    }
    return NULL;
}

static bool same_position(const struct attach *a, const struct attach *b)
{
    return a->legacy == b->legacy && a->serial == b->serial &&
           strcmp(a->stream_id, b->stream_id) == 0;
}

void resume_attached(struct shard *sh, struct conn *c, struct sub *s, const struct attach *a)
{
    struct resume_item *item = item_asking(c, a, RESUME_ATTACHING);
    if (item != NULL) {
        if (!c->resume->answered) gate(item, s);
        end_item(sh, c, item, a);
        return;
    }
    item = c->resume == NULL ? NULL : item_of(c, s);
    bool joining = item != NULL && item->state == RESUME_JOINING;
    if (joining && a->resume && same_position(a, &item->a)) {
        if (!c->resume->answered) gate(item, s);
        end_item(sh, c, item, a);        /* an earlier resume's attach has answered this one too */
        return;
    }
    if (a->resume && !a->recovered && a->code != NULL) {   /* its resume was forgotten meanwhile */
        struct resume_item late = {.state = RESUME_FAILED, .name = chan_name(s->chan), .a = *a};
        resume_write_failed(sh, c, &late);
    }
    if (joining) start_replay(sh, c, item, s);
}

void resume_replayed(struct shard *sh, struct conn *c, const struct attach *a, struct frame *blob)
{
    struct resume_item *item = item_asking(c, a, RESUME_REPLAYING);
    if (item == NULL) return;
    if (blob != NULL) conn_send(sh, c, blob);
    struct attach_mark *m = item->sub->mark;
    if (a->recovered) m->head = u64_min(m->head, a->serial);   /* never again what has been sent */
    end_item(sh, c, item, a);
}

void resume_dropped(struct shard *sh, struct conn *c, const struct attach *a)
{
    struct resume_item *item = item_asking(c, a, RESUME_REPLAYING);
    if (item == NULL) return;
    fail_replay(sh, c, item, "persistence_unavailable", "failed_to_deliver_recovery_payload");
}

/* The client gave the channel up: only the aggregate says so. */
void resume_left(struct shard *sh, struct conn *c, struct sub *s)
{
    struct resume *r = c->resume;
    struct resume_item *item = item_of(c, s);
    if (item == NULL) return;
    uint32_t left = 0;
    for (uint32_t i = 0; i < r->kept_count; i++) {
        if (r->kept[i].sub != s) {
            r->kept[left++] = r->kept[i];
            continue;
        }
        r->kept_bytes -= r->kept[i].frame->bytes_count;
        frame_put(sh, &r->kept[i].frame);
    }
    r->kept_count = left;
    item->sub = NULL;
    if (has_ended(item)) return;
    item_fail(item, "continuity_unverifiable", "not_subscribed");
    settle(sh, c);
}

/* ---- the request ---- */

/* The subscription has not asked yet: its question takes the position along. */
static void go_along(struct resume_item *item, struct sub *s)
{
    take_position(s->attach, item);
    item->sub = s;
    item->question = s->attach;
    item->state = RESUME_ATTACHING;
}

/* What becomes of an item follows from how far its subscription is. */
static void start_item(struct shard *sh, struct conn *c, struct resume_item *item, struct sub *s)
{
    ASSERT(s->state != SUB_LEAVING);     /* that one is not its socket's any more */
    if (s->state == SUB_HELD && !s->hidden) {    /* came in the same read */
        go_along(item, s);
    } else if (s->state != SUB_JOINED) {
        item->sub = s;
        item->state = RESUME_JOINING;
    } else {
        start_replay(sh, c, item, s);
    }
}

void resume_offer(struct shard *sh, struct conn *c, struct sub *s)
{
    struct resume *r = c->resume;
    for (uint32_t i = 0; i < r->items_count; i++) {
        struct resume_item *item = &r->items[i];
        if (item->state != RESUME_WAITING || !slice_equal(item->name, chan_name(s->chan))) continue;
        start_item(sh, c, item, s);
        return;
    }
}

/* Who is signed in has not subscribed to his own channel by that. */
static struct sub *subscribed(struct shard *sh, const struct conn *c, struct slice name)
{
    struct chan *ch = chan_find(sh, c->app, name);
    struct sub *s = ch == NULL ? NULL : chan_sub_of(c, ch);
    return s == NULL || (s->hidden && !s->shown) ? NULL : s;
}

static void read_item(struct resume_item *item, const struct v2_position *p, uint8_t **names)
{
    item->state = RESUME_WAITING;
    item->name = slice_of(*names, p->channel.text_bytes);
    json_decode(&p->channel, *names);
    *names += item->name.bytes;
    item->a.resume = true;
    item->a.legacy = p->legacy;
    item->a.serial = p->serial;
    if (p->stream_id.type != JSON_STRING) return;
    if (p->stream_id.text_bytes <= V2_STREAM_ID_BYTES) {
        json_decode(&p->stream_id, (uint8_t *)item->a.stream_id);
    } else {
        memset(item->a.stream_id, '?', V2_STREAM_ID_BYTES);   /* like no stream of this server */
    }
}

static void start(struct shard *sh, struct conn *c, const struct v2_position *positions,
                  uint32_t count)
{
    uint32_t bytes = (uint32_t)sizeof(struct resume) + count * (uint32_t)sizeof(struct resume_item);
    uint32_t names_at = bytes;
    for (uint32_t i = 0; i < count; i++) bytes += positions[i].channel.text_bytes;
    struct resume *r = shard_pressed(sh) ? NULL : heap_zalloc(sh->heap, bytes);
    if (r == NULL) {
        conn_fail(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");   /* it would wait for the rest */
        return;
    }
    r->block_bytes = bytes;
    r->items_count = count;
    r->answer_ms = sh->re.now_ms + RESUME_ANSWER_MS;
    r->forget_ms = sh->re.now_ms + RESUME_FORGET_MS;
    uint8_t *names = (uint8_t *)r + names_at;
    for (uint32_t i = 0; i < count; i++) read_item(&r->items[i], &positions[i], &names);
    c->resume = r;
    session_v2_rearm(sh, c);
    for (uint32_t i = 0; c->resume == r && i < count; i++) {
        struct sub *s = subscribed(sh, c, r->items[i].name);
        if (s != NULL) start_item(sh, c, &r->items[i], s);
    }
}

void resume_request(struct shard *sh, struct conn *c, const struct json_value *data)
{
    static const char off[] = "Connection recovery is not enabled";
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct v2_position positions[V2_POSITIONS_MAX];
    uint32_t count = 0, room = data->type == JSON_STRING ? u32_max(data->text_bytes, 1) : 0;
    uint8_t *scratch = room == 0 ? NULL : heap_alloc(sh->heap, room);
    if (!sh->conf->apps[c->app].channels.connection_recovery_enabled) {
        conn_error(sh, c, PUSHER_CLIENT_EVENT, off);
    } else if (room > 0 && scratch == NULL) {
        conn_fail(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
    } else if (!v2_resume_parse(data, scratch, positions, &count, error)) {
        if (count == V2_POSITIONS_MAX) count_limit(sh, SERIES_LIMIT_RESUME_POSITIONS);
        conn_error(sh, c, PUSHER_GENERIC, error);
    } else if (count == 0) {
        conn_error(sh, c, PUSHER_WATCHLIST, "No channel recovery positions provided");
    } else if (c->resume != NULL && !c->resume->answered) {
        count_limit(sh, SERIES_LIMIT_RESUMES);
        conn_error(sh, c, PUSHER_CLIENT_EVENT, "A resume is already in progress");
    } else {
        resume_end(sh, c);               /* what an earlier one still waits for is forgotten */
        start(sh, c, positions, count);
    }
    heap_free(sh->heap, scratch, room);
}
