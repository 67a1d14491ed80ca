#include "shards/want_parts.h"

#include "shards/actor.h"
#include "shards/annotation_book.h"
#include "shards/fan.h"
#include "shards/reply.h"
#include "shards/resume.h"
#include "shards/session_v2.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- the asking shard ---- */

struct want *want_make(struct shard *sh, enum want_kind kind, uint32_t app, uint32_t bytes_room)
{
    struct want *w = heap_alloc(sh->heap, (uint32_t)sizeof(*w) + bytes_room);
    if (w == NULL) return NULL;
    memset(w, 0, sizeof(*w));
    w->kind = (uint8_t)kind;
    w->app = app;
    w->bytes_room = bytes_room;
    return w;
}

struct slice want_text(struct want *w, struct slice text)
{
    if (text.ptr == NULL) return text;
    struct slice out = slice_of(w->bytes + w->bytes_count, text.bytes);
    ASSERT(w->bytes_room - w->bytes_count >= text.bytes);
    if (text.bytes > 0) memcpy(w->bytes + w->bytes_count, text.ptr, text.bytes);
    w->bytes_count += text.bytes;
    return out;
}

void want_free(struct shard *sh, struct want *w)
{
    if (w->content != NULL) {
        heap_free(sh->heap, w->content, (uint32_t)sizeof(*w->content) + w->content->bytes_count);
    }
    frame_put(sh, &w->body);
    heap_free(sh->heap, w->json, w->json_bytes);
    heap_free(sh->heap, w->asked, sizeof(*w->asked));
    heap_free(sh->heap, w, (uint32_t)sizeof(*w) + w->bytes_room);
}

err_t want_post(struct shard *sh, struct want *w)
{
    struct letter l = {.kind = MAIL_WANT, .payload = w};
    return shard_ask(sh, shard_home(sh, w->app, w->channel), &l);
}

/* What a subscriber finds on the channel, if he is still there. It stands behind all that its home
 * has sent before, whether that is still being handed out here or held back by a resume. */
static void send_frames(struct shard *sh, struct want *w)
{
    struct conn *c = conn_get(sh, w->sock, w->gen);
    struct chan *ch = c == NULL || w->body == NULL ? NULL : chan_find(sh, w->app, w->channel);
    struct sub *s = ch == NULL || c->state != CONN_WS ? NULL : chan_sub_of(c, ch);
    if (s == NULL || s->state != SUB_JOINED) return;
    w->body->asked = true;
    fan_finish(sh, ch);
    if (s->voice == VOICE_GATED) resume_hold(sh, c, s, w->body);
    else conn_send(sh, c, w->body);
}

void want_annotation_summaries(struct shard *sh, struct conn *c, const struct chan *ch)
{
    struct conf_policy policy;
    conf_policy_of(sh->conf, ch->app, chan_name(ch), &policy);
    if (!policy.annotations) return;
    struct want *w = want_make(sh, WANT_ANNOTATION_SUMMARIES, ch->app, ch->name_bytes);
    if (w == NULL) return;
    w->sock = conn_sock(sh, c);
    w->gen = c->gen;
    w->channel = want_text(w, chan_name(ch));
    w->channel_kind = ch->kind;
    w->channel_cache = ch->cache;
    if (want_post(sh, w) != OK) want_free(sh, w);
}

void want_on_wanted(struct shard *sh, const struct letter *l)
{
    struct want *w = l->payload;
    struct frame *loan = (void *)(uintptr_t)l->arg[0];
    ASSERT((loan != NULL) == (w->status == 200));
    if (loan != NULL) {
        w->body = frame_borrow(sh, loan, l->from_shard);
        if (w->body == NULL) {
            w->status = 503;
            w->code = "backpressure";
            w->retry_after_s = 1;
            w->ws_code = PUSHER_CLIENT_EVENT;
            snprintf(w->text, sizeof(w->text), "Server is at its memory limit");
        }
    }
    if (w->op != NULL) {
        op_answered(sh, w->op);
        return;
    }
    if (w->kind == WANT_ANNOTATION_SUMMARIES) send_frames(sh, w);
    else session_on_wanted(sh, w, w->body);
    want_free(sh, w);
}

static void end(struct shard *sh, struct op *op, struct reply *r)
{
    struct want *w = op->work;
    r->content_type = "application/json";
    r->counted = true;
    r->app = op->app;
    op->work = NULL;
    reply_op(sh, op, r);
    want_free(sh, w);
}

void want_end_refused(struct shard *sh, struct op *op, uint16_t status, const char *code,
                      uint32_t ai_code, const char *text)
{
    char body[REPLY_ERROR_BYTES];
    uint32_t bytes = reply_error_write_ai(body, status, code, ai_code, slice_str(text));
    struct reply r = {
        .status = status, .retry_after_s = status == 503 ? 1 : 0, .body = slice_of(body, bytes),
    };
    end(sh, op, &r);
}

static void finish(struct shard *sh, struct op *op)
{
    struct want *w = op->work;
    if (w->status != 200) {
        want_end_refused(sh, op, w->status, w->code, w->ai_code, w->text);
        return;
    }
    struct reply r = {.status = 200, .body = slice_of(w->body->bytes, w->body->bytes_count)};
    end(sh, op, &r);
}

void want_run(struct shard *sh, struct op *op)
{
    struct want *w = op->work;
    w->op = op;
    if (want_post(sh, w) != OK) {
        want_end_refused(sh, op, 503, "backpressure", 0, "Server is busy");
        return;
    }
    op->next = finish;
    op->waiting++;
}

/* ---- the home ---- */

/* Reads of a message and of its versions: found, or not. */
static void count_read(struct shard *sh, const struct want *w, bool found)
{
    enum series_retrieval hit = SERIES_LATEST_HIT, miss = SERIES_LATEST_MISS;
    if (w->kind != WANT_MESSAGE && w->kind != WANT_VERSIONS) return;
    if (w->kind == WANT_VERSIONS) {
        hit = SERIES_VERSIONS_HIT;
        miss = SERIES_VERSIONS_MISS;
    }
    metric_add(sh->metrics, METRIC_VERSIONED_MESSAGE_RETRIEVAL_TOTAL, w->app, found ? hit : miss,
               1);
}

void want_answer(struct shard *sh, struct want *w, struct api_text *t)
{
    struct frame *f = t->failed ? NULL : frame_copy(sh, t->ptr, t->bytes);
    api_text_free(t);
    want_answer_frame(sh, w, f);
}

void want_answer_frame(struct shard *sh, struct want *w, struct frame *f)
{
    struct letter l = {.kind = MAIL_WANTED, .payload = w};
    if (f == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    count_read(sh, w, true);
    w->status = 200;
    l.arg[0] = (uintptr_t)frame_lend(f);
    shard_answer(sh, w->from_shard, &l);
    frame_put(sh, &f);
}

static void tell(struct shard *sh, struct want *w)
{
    struct letter l = {.kind = MAIL_WANTED, .payload = w};
    shard_answer(sh, w->from_shard, &l);
}

void want_refuse(struct shard *sh, struct want *w, uint16_t status, const char *code,
                 uint32_t ws_code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(w->text, sizeof(w->text), format, args);
    va_end(args);
    ASSERT(status != 200);
    w->status = status;
    w->code = code;
    w->ws_code = ws_code;
    tell(sh, w);
}

void want_busy(struct shard *sh, struct want *w, const char *text)
{
    w->retry_after_s = 1;
    want_refuse(sh, w, 503, "backpressure", PUSHER_CLIENT_EVENT, "%s", text);
}

void want_not_found(struct shard *sh, struct want *w)
{
    count_read(sh, w, false);
    want_refuse(sh, w, 404, "not_found", PUSHER_GENERIC,
                "Message '%.*s' was not found in channel '%.*s'", (int)w->serial.bytes,
                (const char *)w->serial.ptr, (int)w->channel.bytes,
                (const char *)w->channel.ptr);
}

static void unreadable_end(struct shard *sh, struct want *w)
{
    want_refuse(sh, w, 500, "internal_error", PUSHER_CLIENT_EVENT, "Internal server error");
}

void want_read_failed(struct shard *sh, struct want *w, const struct store_read *r)
{
    if (r->status == STORE_READ_MEMORY) {
        want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    unreadable_end(sh, w);
}

void want_wait(struct shard *sh, struct stream *st, struct want *w, uint64_t delivery)
{
    struct letter l = want_letter(w);
    if (!stream_wait_for(sh, st, &l, delivery)) want_busy(sh, w, "Server is at its memory limit");
}

static enum stream_what what_of(enum want_kind kind)
{
    switch (kind) {
    case WANT_PRESENCE_HISTORY:
    case WANT_PRESENCE_STATE:
    case WANT_PRESENCE_RESET:
    case WANT_PRESENCE_SNAPSHOT: return STREAM_PRESENCE;
    case WANT_UNANNOTATE:
    case WANT_ANNOTATIONS:
    case WANT_ANNOTATION_SUMMARIES:
    case WANT_ANNOTATE: return STREAM_ANNOTATIONS;
    case WANT_MUTATE:
    case WANT_MESSAGE:
    case WANT_VERSIONS:
    case WANT_HISTORY:
    case WANT_HISTORY_STATE:
    case WANT_HISTORY_RESET:
    case WANT_HISTORY_PURGE: break;
    }
    return STREAM_MAIN;
}

static void dispatch(struct shard *sh, struct stream *st, struct want *w)
{
    switch ((enum want_kind)w->kind) {
    case WANT_MUTATE: want_mutate_on_want(sh, st, w); return;
    case WANT_MESSAGE:
    case WANT_VERSIONS: want_message_on_want(sh, st, w); return;
    case WANT_HISTORY:
    case WANT_PRESENCE_HISTORY: want_history_on_want(sh, st, w); return;
    case WANT_HISTORY_STATE:
    case WANT_HISTORY_RESET:
    case WANT_HISTORY_PURGE:
    case WANT_PRESENCE_STATE:
    case WANT_PRESENCE_RESET: want_reset_on_want(sh, st, w); return;
    case WANT_PRESENCE_SNAPSHOT: want_presence_on_want(sh, st, w); return;
    case WANT_ANNOTATE:
    case WANT_UNANNOTATE:
    case WANT_ANNOTATIONS:
    case WANT_ANNOTATION_SUMMARIES: want_annotation_on_want(sh, st, w); return;
    }
    ASSERT(!"unknown want");
}

/* ---- what a reset finds that cannot be read ---- */

static void healed(struct shard *sh, struct stream *st, void *ctx, const struct record *r,
                   bool committed)
{
    struct want *w = ctx;
    struct letter l = want_letter(w);
    (void)r;
    w->healed |= (uint8_t)(1u << st->what);
    if (committed) want_on_want(sh, &l);
    else want_busy(sh, w, "History cannot be written at the moment");
}

/* True: the reset goes on when the stream has a head again. */
static bool heal(struct shard *sh, const struct home *h, struct want *w, enum stream_what what)
{
    struct stream *st = h->extra == NULL ? NULL : h->extra->streams[what];
    bool reset = w->kind == WANT_HISTORY_RESET || w->kind == WANT_PRESENCE_RESET;
    if (!reset || st == NULL || st->state != STREAM_FAILED || !st->lost) return false;
    if ((w->healed & 1u << what) != 0) return false;
    if (!stream_heal(sh, st, healed, w)) {
        want_busy(sh, w, "History cannot be written at the moment");
    }
    return true;
}

/* A history's reset keeps the log of its annotations, unless that cannot be read. True: it goes on
 * later. */
static bool heal_annotations(struct shard *sh, struct home *h, struct want *w)
{
    const struct conf_policy *policy = conf_policy_at(sh->conf, w->app, w->channel);
    if (w->kind != WANT_HISTORY_RESET || !policy->annotations) return false;
    struct stream *st = stream_of(sh, h, STREAM_ANNOTATIONS);
    if (st != NULL && st->state == STREAM_LOADING) {
        want_wait(sh, st, w, 0);
        return true;
    }
    if (st == NULL && !heal(sh, h, w, STREAM_ANNOTATIONS)) return false;
    if (st != NULL && !st->degraded) return false;
    annotation_doubt(sh, h->app, home_name(h));    /* the want may have been answered */
    if (st == NULL) return true;
    struct record r = {.kind = RECORD_RESET, .flags = RECORD_ENDS};
    (void)stream_append(sh, st, &r, NULL, NULL);   /* refused: it is as it was, and says so */
    return false;
}

void want_on_want(struct shard *sh, const struct letter *l)
{
    struct want *w = l->payload;
    w->from_shard = l->from_shard;
    struct home *h = home_make(sh, w->app, w->channel, w->channel_kind, w->channel_cache);
    struct stream *st = h == NULL ? NULL : stream_of(sh, h, what_of((enum want_kind)w->kind));
    if (st == NULL) {
        if (h != NULL && heal(sh, h, w, what_of((enum want_kind)w->kind))) return;
        bool unreadable = h != NULL && stream_is_unreadable(h, what_of((enum want_kind)w->kind));
        if (h != NULL) home_release(sh, h);
        if (unreadable) unreadable_end(sh, w);
        else want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    if (st->state == STREAM_LOADING) want_wait(sh, st, w, 0);
    else if (!heal_annotations(sh, h, w)) dispatch(sh, st, w);
}

/* ---- pieces that all parts use ---- */

bool want_walk_next(struct want_walk *walk, struct record *out)
{
    uint32_t bytes;
    if (walk->rest.bytes == 0) return false;
    enum record_result e = record_peek(walk->rest, out, &bytes);
    ASSERT(e == RECORD_OK);              /* the reader has checked it */
    walk->rest = slice_skip(walk->rest, bytes);
    return true;
}

void want_write_null(struct api_text *t, const char *name, bool set, uint64_t n)
{
    api_text_str(t, "\"");
    api_text_str(t, name);
    api_text_str(t, "\":");
    if (set) api_text_number(t, n);
    else api_text_str(t, "null");
}

void want_write_text(struct api_text *t, const char *name, struct slice text)
{
    api_text_str(t, "\"");
    api_text_str(t, name);
    api_text_str(t, "\":");
    if (text.ptr != NULL) api_text_quote(t, text);
    else api_text_str(t, "null");
}

struct store_read *want_rows(struct shard *sh, struct stream *st, struct want *w,
                             stream_read_fn done, uint32_t limit, bool newest_first)
{
    struct store_read *r = stream_read_make(sh, st, STORE_ROWS, done, w);
    if (r == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return NULL;
    }
    r->upto = st->now.delivery;
    r->rows_upto = r->time_upto_ms = UINT64_MAX;
    r->limit = limit;
    r->newest_first = newest_first;
    return r;
}
