/* POST /events and /batch_events: read -> claim keys -> publish -> wait for every home -> answer.
 *
 * Nothing is delivered unless every home has room for all of it. Work that has no key to claim is
 * published in the turn in which it arrived. */
#include "shards/api_events.h"

#include <stdio.h>

enum { SCOPE_EVENT, SCOPE_BATCH };

static void claim_step(struct shard *sh, struct op *op);
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

/* 503: keys that are still claimed are released. */
static void end_busy(struct shard *sh, struct op *op, const char *text)
{
    char body[REPLY_ERROR_BYTES];
    struct reply r = {
        .status = 503, .content_type = "application/json", .retry_after_s = 1,
        .body = slice_of(body, reply_error_write(body, 503, "backpressure", slice_str(text))),
        .counted = true, .app = op->app,
    };
    end_work(sh, op);
    reply_op(sh, op, &r);
}

/* ---- the answer ---- */

static void write_id(struct shard *sh, struct api_text *t)
{
    char text[48];
    uint64_t a = rng_next(&sh->re.rng), b = rng_next(&sh->re.rng);
    int n = snprintf(text, sizeof(text), "%08x-%04x-4%03x-%04x-%012llx", (uint32_t)(a >> 32),
                     (uint32_t)(a >> 16) & 0xffff, (uint32_t)a & 0xfff,
                     ((uint32_t)(b >> 48) & 0x3fff) | 0x8000,
                     (unsigned long long)(b & 0xffffffffffffull));
    api_text_quote(t, slice_of(text, (uint32_t)n));
}

/* {"acknowledgement_id":"..","user_count":n,"subscription_count":n} */
static void write_attributes(struct shard *sh, struct api_text *t, const struct event *e,
                             const struct target *target)
{
    api_text_str(t, "{\"acknowledgement_id\":");
    write_id(sh, t);
    if (e->info & (API_INFO_USERS | API_INFO_SUBSCRIPTIONS)) {
        uint32_t before = t->bytes;
        api_text_str(t, ",");
        if (!api_info_write(t, e->info, target->kind.kind == PUSHER_PRESENCE, target->users,
                            target->subscriptions)) {
            t->bytes = before;
        }
    }
    api_text_str(t, "}");
}

/* {"channels":{"a":{..},"b":{..}}} */
static void write_channels(struct shard *sh, struct api_text *t, const struct event_work *w,
                           const struct event *e)
{
    api_text_str(t, "{\"channels\":{");
    for (uint32_t i = 0; i < e->targets_count; i++) {
        const struct target *target = &w->targets[e->targets_first + i];
        if (i > 0) api_text_str(t, ",");
        api_text_quote(t, target->name);
        api_text_str(t, ":");
        write_attributes(sh, t, e, target);
    }
    api_text_str(t, "}}");
}

/* What POST /events answers for this event. */
static void write_event(struct shard *sh, struct api_text *t, const struct event_work *w,
                        const struct event *e)
{
    if (e->with_info) write_channels(sh, t, w, e);
    else api_text_str(t, "{\"ok\":true}");
}

static void write_batch(struct shard *sh, struct api_text *t, const struct event_work *w)
{
    bool any = false;
    for (uint32_t i = 0; i < w->events_count; i++) any = any || w->events[i].with_info;
    if (!any) {
        api_text_str(t, "{}");
        return;
    }
    api_text_str(t, "{\"batch\":[");
    for (uint32_t i = 0; i < w->events_count; i++) {
        const struct event *e = &w->events[i];
        if (i > 0) api_text_str(t, ",");
        if (!e->with_info || e->skipped) api_text_str(t, "{}");
        else if (e->channels.type == JSON_ARRAY) write_channels(sh, t, w, e);
        else write_attributes(sh, t, e, &w->targets[e->targets_first]);
    }
    api_text_str(t, "]}");
}

static void keep_body(struct shard *sh, struct op_claim *claim, const struct api_text *t)
{
    struct frame *f = t->failed ? NULL : frame_copy(sh, t->ptr, t->bytes);
    if (f == NULL) ask_claim_end_lost(sh, claim);
    else ask_claim_end(sh, claim, f);
    frame_put(sh, &f);
}

/* Every home has answered. */
static void finish(struct shard *sh, struct op *op)
{
    struct event_work *w = op->work;
    struct api_text t = {.heap = sh->heap};
    for (uint32_t i = 0; i < w->targets_count; i++) {
        if (w->targets[i].status != HOME_OK) {
            end_busy(sh, op, "Server is at its memory limit");
            return;
        }
    }
    for (uint32_t i = 0; i < w->events_count; i++) {
        if (w->events[i].claim.entry == NULL) continue;
        write_event(sh, &t, w, &w->events[i]);
        keep_body(sh, &w->events[i].claim, &t);
        api_text_free(&t);
    }
    if (w->batch) write_batch(sh, &t, w);
    else write_event(sh, &t, w, &w->events[0]);
    if (w->claim.entry != NULL) keep_body(sh, &w->claim, &t);
    if (t.failed) {
        end_busy(sh, op, "Server is at its memory limit");
    } else {
        end_work(sh, op);
        end_json(sh, op, api_text_slice(&t));
    }
    api_text_free(&t);
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
    if (!make_data(sh, e) || !make_frame(sh, e, t)) return false;
    t->publish = publish_make(sh, op->app, t->name, &t->kind);
    if (t->publish == NULL) return false;
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
}

/* ---- idempotency keys, one after the other ---- */

/* A key that an earlier item of this batch has claimed. */
static bool claimed_before(const struct event_work *w, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++) {
        const struct event *e = &w->events[i];
        if (e->claim.entry != NULL && slice_equal(e->key, w->events[index].key)) return true;
    }
    return false;
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
    case ASK_NO:
    case ASK_TABLE_FULL:
        end_busy(sh, op, "Idempotency store is full");
        return;
    }
    w->claim_next++;
    claim_step(sh, op);
}

/* Ask for the next key, or publish when there is none left. */
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
        if (w->claim_next > 0 && claimed_before(w, w->claim_next - 1)) {
            metric_add(sh->metrics, METRIC_IDEMPOTENCY_DUPLICATES_TOTAL, op->app, 0, 1);
            w->events[w->claim_next - 1].skipped = true;
            continue;
        }
        uint32_t scope = w->claim_next == 0 && w->batch ? SCOPE_BATCH : SCOPE_EVENT;
        op->next = claim_answered;
        if (ask_claim(sh, op, scope, key) != OK) end_busy(sh, op, "Server is busy");
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
    if (w->keys && !kept) {
        /* The event is built after the keys are claimed: read again from bytes that stay. */
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
    if (w->keys) claim_step(sh, op);
    else publish(sh, op);
}
