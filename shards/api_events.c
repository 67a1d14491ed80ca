/* POST /events and /batch_events: read -> claim keys -> ask for owners -> publish -> wait for every
 * home -> answer.
 *
 * Nothing is delivered unless every home has room for all of it. Work that has nothing to ask for
 * is published in the turn in which it arrived. */
#include "shards/api_events.h"

enum { SCOPE_EVENT, SCOPE_BATCH };

static void claim_step(struct shard *sh, struct op *op);
static void owner_step(struct shard *sh, struct op *op);
static void publish(struct shard *sh, struct op *op);

/* ---- ending ---- */

static void end_work(struct shard *sh, struct op *op)
{
    if (op->work != NULL) api_event_free(sh, op->work);
    op->work = NULL;
}

static void end_json(struct shard *sh, struct op *op, struct slice body)
{
    struct reply r = {
        .status = 200, .content_type = "application/json", .body = body, .counted = true,
        .app = op->app,
    };
    reply_op(sh, op, &r);
}

/* Keys that are still claimed are released. */
static void end_refused(struct shard *sh, struct op *op, uint16_t status, const char *code,
                        const char *text)
{
    char body[REPLY_ERROR_BYTES];
    struct reply r = {
        .status = status, .content_type = "application/json",
        .retry_after_s = status == 503 ? 1 : 0,
        .body = slice_of(body, reply_error_write(body, status, code, slice_str(text))),
        .counted = true, .app = op->app,
    };
    end_work(sh, op);
    reply_op(sh, op, &r);
}

static void end_busy(struct shard *sh, struct op *op, const char *text)
{
    end_refused(sh, op, 503, "backpressure", text);
}

/* ---- the answer ---- */

/* A key that stands for something stored is stored itself before the answer leaves. */
static bool is_durable(const struct shard *sh, const struct event_work *w, uint32_t first,
                       uint32_t count)
{
    for (uint32_t i = first; i < first + count && sh->server->store != NULL; i++) {
        if (w->targets[i].content && w->targets[i].status == HOME_OK) return true;
    }
    return false;
}

static void keep_body(struct shard *sh, struct op *op, struct op_claim *claim,
                      const struct api_text *t, bool durable)
{
    struct frame *f = t->failed ? NULL : frame_copy(sh, t->ptr, t->bytes);
    if (f == NULL) ask_claim_end_lost(sh, claim);
    else if (durable) ask_claim_store(sh, op, claim, f);
    else ask_claim_end(sh, claim, f);
    frame_put(sh, &f);
}

/* What was published although another part of the request failed stays published: its key too. */
static void keep_published(struct shard *sh, struct op *op, struct event_work *w,
                           struct api_text *t)
{
    for (uint32_t i = 0; i < w->events_count; i++) {
        struct event *e = &w->events[i];
        bool whole = e->claim.entry != NULL;
        for (uint32_t k = 0; whole && k < e->targets_count; k++) {
            whole = w->targets[e->targets_first + k].status == HOME_OK;
        }
        if (!whole) continue;
        api_event_write(sh, t, w, e);
        keep_body(sh, op, &e->claim, t, is_durable(sh, w, e->targets_first, e->targets_count));
        api_text_free(t);
    }
}

/* A channel of the request could not be published to. */
static void end_failed(struct shard *sh, struct op *op, enum home_status status)
{
    switch (status) {
    case HOME_PRINT_DIFFERS:
        end_refused(sh, op, 400, "invalid_input",
                    "idempotency key was already used with a different payload");
        return;
    case HOME_TOO_LARGE:
        end_refused(sh, op, 413, "payload_too_large", "Message is too large to be stored");
        return;
    case HOME_BUSY:
        end_busy(sh, op, "History cannot be written at the moment");
        return;
    case HOME_NO_MEMORY:
        end_busy(sh, op, "Server is at its memory limit");
        return;
    case HOME_OK:
    case HOME_FULL: break;
    }
    ASSERT(!"not the status of a publish");
}

/* The first failure, in the request's order, is the answer. */
static uint32_t first_failed(const struct event_work *w)
{
    uint32_t failed = 0;
    while (failed < w->targets_count && w->targets[failed].status == HOME_OK) failed++;
    return failed;
}

/* Every key is where it has to be. */
static void answer(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    struct api_text t = w->answer;
    uint32_t failed = first_failed(w);
    if (failed < w->targets_count) {
        end_failed(sh, op, (enum home_status)w->targets[failed].status);
    } else if (t.failed) {
        end_busy(sh, op, "Server is at its memory limit");
    } else {
        end_work(sh, op);
        end_json(sh, op, api_text_slice(&t));
    }
    api_text_free(&t);
}

/* Every home has answered. */
static void finish(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    struct api_text t = {.heap = sh->heap};
    api_event_count(sh, op->app, w);
    keep_published(sh, op, w, &t);
    if (first_failed(w) == w->targets_count) {
        if (w->batch) api_event_write_batch(sh, &t, w);
        else api_event_write(sh, &t, w, &w->events[0]);
        if (w->claim.entry != NULL) {
            keep_body(sh, op, &w->claim, &t, is_durable(sh, w, 0, w->targets_count));
        }
    }
    w->answer = t;
    op->next = answer;
    if (op->waiting == 0) answer(sh, op);
}

/* ---- publishing ---- */

/* Data that is not a string becomes one that holds its compact JSON text. */
static bool make_data(struct shard *sh, struct event *e)
{
    if (e->data.type == JSON_STRING || e->data.type == JSON_ABSENT || e->data_made != NULL) {
        return true;
    }
    uint32_t bytes = e->data.text_bytes;
    uint8_t *compact = heap_alloc(sh->heap, bytes);
    if (compact == NULL) return false;
    json_compact(&e->data, compact);
    e->data_made_bytes = json_quote_bytes(slice_of(compact, bytes));
    e->data_made = heap_alloc(sh->heap, e->data_made_bytes);
    if (e->data_made != NULL) json_quote(slice_of(compact, bytes), e->data_made);
    heap_free(sh->heap, compact, bytes);
    return e->data_made != NULL;
}

static bool make_frame(struct shard *sh, struct event *e, struct target *t)
{
    struct pusher_out o = {
        .event_json = e->name.raw, .channel = t->name, .data_json = slice_str("\"null\""),
    };
    if (e->data_made != NULL) o.data_json = slice_of(e->data_made, e->data_made_bytes);
    else if (e->data.type == JSON_STRING) o.data_json = e->data.raw;
    t->frame = frame_make(sh, pusher_event_bytes(&o));
    if (t->frame == NULL) return false;
    t->frame->bytes_count = pusher_event_write(&o, frame_room(t->frame));
    return true;
}

static bool make_target(struct shard *sh, struct op *op, struct event_work *w, uint32_t index)
{
    struct target *t = &w->targets[index];
    struct event *e = &w->events[t->event];
    if (e->skipped) return true;
    if (!make_data(sh, e) || (!t->content && !make_frame(sh, e, t))) return false;
    t->publish = publish_make(sh, op->app, t->name, &t->kind);
    if (t->publish == NULL) return false;
    if (t->content) {
        t->publish->content = api_event_content(sh, op->app, w, e, t);
        if (t->publish->content == NULL) return false;
    }
    t->publish->op = op;
    t->publish->index = index;
    t->publish->cache = t->kind.cache;
    t->publish->except_a = e->except_a;
    t->publish->except_b = e->except_b;
    t->publish->started_ns = op->started_ns;
    return true;
}

static void publish(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    uint32_t counts[REACTOR_SHARDS_MAX] = {0}, posted = 0;
    for (uint32_t i = 0; i < w->targets_count; i++) {
        if (!w->events[w->targets[i].event].skipped) counts[w->targets[i].home]++;
    }
    if (shard_pressed(sh)) {
        end_busy(sh, op, "Server is at its memory limit");
        return;
    }
    if (!publish_room(sh, counts)) {
        end_busy(sh, op, "Server is busy");
        return;
    }
    for (uint32_t i = 0; i < w->targets_count; i++) {
        if (make_target(sh, op, w, i)) continue;
        end_busy(sh, op, "Server is at its memory limit");
        return;
    }
    for (uint32_t i = 0; i < w->targets_count; i++) {
        struct target *t = &w->targets[i];
        if (t->publish == NULL) continue;
        publish_post(sh, t->publish, t->frame);
        t->publish = NULL;               /* given away, both */
        t->frame = NULL;
        posted++;
    }
    op->waiting = posted;
    op->next = finish;
    if (posted == 0) finish(sh, op);
}

void api_events_on_published(struct op *op, const struct letter *l)
{
    struct event_work *w = op->work;
    ASSERT(l->arg[0] < w->targets_count);
    struct target *t = &w->targets[l->arg[0]];
    t->status = (uint16_t)l->arg[1];
    t->subscriptions = l->arg[2];
    t->users = l->arg[3];
    const struct content *c = (const void *)(uintptr_t)l->arg[4];
    if (c == NULL) return;
    t->versioned = c->versioned;
    t->keyed = c->has_key;
    t->duplicate = c->duplicate;
    t->delivery = c->delivery;
    t->history = c->history;
    t->time_ms = c->time_ms;
    t->create = c->create;
    t->create_ms = c->create_ms;
}

/* ---- idempotency keys, one after the other ---- */

/* The earlier item of this batch that has claimed the key; NULL: none. */
static const struct event *claimed_before(const struct event_work *w, const struct event *item)
{
    for (const struct event *e = w->events; e < item; e++) {
        if (e->claim.entry != NULL && slice_equal(e->key, item->key)) return e;
    }
    return NULL;
}

static void answer_stored(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    struct slice body = slice_str(w->batch ? "{}" : "{\"ok\":true}");
    if (op->stored != NULL) body = slice_of(op->stored->bytes, op->stored->bytes_count);
    end_work(sh, op);
    end_json(sh, op, body);
}

/* The answer about key claim_next is in. */
static void claim_answered(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    struct event *e = w->claim_next > 0 ? &w->events[w->claim_next - 1] : NULL;
    switch ((enum ask_verdict)op->verdict[0]) {
    case ASK_YES:
        *(e == NULL ? &w->claim : &e->claim) = op->claim;
        op->claim.entry = NULL;
        break;
    case ASK_STORED:
        if (e == NULL) {
            answer_stored(sh, op);
            return;
        }
        e->skipped = true;
        frame_put(sh, &op->stored);
        break;
    case ASK_BUSY:
        end_busy(sh, op, "Idempotent publish is still in progress");
        return;
    case ASK_DIFFERS:
        end_failed(sh, op, HOME_PRINT_DIFFERS);
        return;
    case ASK_NO:
    case ASK_TABLE_FULL:
        end_busy(sh, op, "Idempotency store is full");
        return;
    }
    w->claim_next++;
    claim_step(sh, op);
}

/* What a key stands for: the body of a batch, the facts of an event. Not the key itself, which
 * clients send in the body, in a header or in both, and not what the answer is to hold. */
static void print_of(struct op *op, const struct event_work *w, const struct event *e)
{
    if (e == NULL && w->batch) {
        struct slice body = slice_skip(slice_of(op->input, op->input_bytes), op->head_bytes);
        ask_print(op, &body, 1);
        return;
    }
    if (e == NULL) e = &w->events[0];
    struct slice parts[] = {
        e->name.raw, e->data.raw, e->channels.raw, e->channel.raw, e->socket_id.raw,
        e->message_id.raw, e->tags.raw, e->extras_text.raw,
    };
    ask_print(op, parts, sizeof(parts) / sizeof(parts[0]));
}

/* An item whose key another one has claimed says the same, or is refused. */
static bool repeats(struct op *op, const struct event_work *w, const struct event *first,
                    struct event *item)
{
    uint8_t print[sizeof(op->print)];
    print_of(op, w, first);
    memcpy(print, op->print, sizeof(print));
    print_of(op, w, item);
    item->skipped = memcmp(print, op->print, sizeof(print)) == 0;
    return item->skipped;
}

/* Ask for the next key; then for owners. */
static void claim_step(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    if (op_conn(sh, op) == NULL) {       /* the client left before anything was published */
        end_work(sh, op);
        op_close(sh, op);
        return;
    }
    for (; w->claim_next <= w->events_count; w->claim_next++) {
        struct slice key = w->claim_next == 0 ? w->key : w->events[w->claim_next - 1].key;
        if (key.ptr == NULL) continue;
        metric_add(sh->metrics, METRIC_IDEMPOTENCY_PUBLISH_TOTAL, op->app, 0, 1);
        struct event *item = w->claim_next == 0 ? NULL : &w->events[w->claim_next - 1];
        const struct event *first = item == NULL ? NULL : claimed_before(w, item);
        if (first != NULL) {
            metric_add(sh->metrics, METRIC_IDEMPOTENCY_DUPLICATES_TOTAL, op->app, 0, 1);
            if (repeats(op, w, first, item)) continue;
            end_failed(sh, op, HOME_PRINT_DIFFERS);
            return;
        }
        uint32_t scope = w->claim_next == 0 && w->batch ? SCOPE_BATCH : SCOPE_EVENT;
        print_of(op, w, item);
        op->next = claim_answered;
        if (ask_claim(sh, op, scope, key) != OK) end_busy(sh, op, "Server is busy");
        return;
    }
    owner_step(sh, op);
}

/* ---- owners: who is signed in on the socket that an event names ---- */

static void owner_answered(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    struct event *e = &w->events[w->owner_next++];
    if (w->actor.id_bytes > 0) {
        e->owner = heap_alloc(sh->heap, w->actor.id_bytes);
        if (e->owner == NULL) {
            end_busy(sh, op, "Server is at its memory limit");
            return;
        }
        e->owner_bytes = w->actor.id_bytes;
        memcpy(e->owner, w->actor.id, e->owner_bytes);
    }
    owner_step(sh, op);
}

/* Ask for the next owner, or publish when there is none left. */
static void owner_step(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    for (; w->owner_next < w->events_count; w->owner_next++) {
        const struct event *e = &w->events[w->owner_next];
        if (!e->owner_wanted || e->skipped) continue;
        w->actor.a = e->except_a;
        w->actor.b = e->except_b;
        w->actor.app = op->app;
        w->actor.channel = w->targets[e->targets_first].name;
        op->next = owner_answered;
        if (actor_ask(sh, op, &w->actor) != OK) end_busy(sh, op, "Server is busy");
        return;
    }
    publish(sh, op);
}

/* ---- the entry ---- */

void api_events(struct api_call *call)
{
    struct shard *sh = call->sh;
    struct event_work *w = api_event_read(call);
    if (w == NULL) return;
    bool kept = call->op != NULL && call->op->input != NULL;
    if ((w->keys || w->owners) && !kept) {
        /* The event is built after the answers are in: read again from bytes that stay. */
        api_event_free(sh, w);
        struct op *op = api_suspend(call);
        if (op != NULL) op->next(sh, op);
        return;
    }
    struct op *op = api_op(call);
    if (op == NULL) {
        api_event_free(sh, w);
        return;
    }
    op->work = w;
    if (w->keys || w->owners) claim_step(sh, op);
    else publish(sh, op);
}
