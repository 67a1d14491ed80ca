/* Annotations at the home: create, delete, list, and the summaries for a new subscriber.
 *
 *   create   message found -> summaries read -> record committed -> answer, new summary, frames
 *   delete   the create found -> the same
 *   list     rows of the hidden stream, those of the message: between its first and its last one,
 *            at most LIST_SCAN_MAX a request; a page may be short, then its cursor leads on */
#include "shards/annotation_book.h"
#include "shards/want_parts.h"

enum { LIST_ROWS = 500, LIST_SCAN_MAX = 20000 };

/* A create or delete that has been sequenced. */
struct flight { struct want *w; struct annotation_channel *ch; uint64_t target; uint32_t bytes; };

static void on_message(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);
static void on_target(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);
static void on_rows(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);

/* ---- committing ---- */

static void answer(struct shard *sh, struct want *w, uint64_t serial, uint64_t target)
{
    char text[ANNOTATION_SERIAL_BYTES];
    struct api_text t = {.heap = sh->heap};
    annotation_serial_write(text, serial);
    api_text_str(&t, "{\"annotationSerial\":");
    api_text_quote(&t, slice_str(text));
    if (w->kind == WANT_UNANNOTATE) {
        annotation_serial_write(text, target);
        api_text_str(&t, ",\"deletedAnnotationSerial\":");
        api_text_quote(&t, slice_str(text));
    }
    api_text_str(&t, "}");
    want_answer(sh, w, &t);
}

static void done(struct shard *sh, struct stream *st, void *ctx, const struct record *r,
                 bool committed)
{
    struct flight *f = ctx;
    if (committed) answer(sh, f->w, r->delivery, f->target);
    else want_busy(sh, f->w, "History cannot be written at the moment");
    annotation_end(sh, st, f->ch, f->bytes, r, committed);
    heap_free(sh->heap, f, sizeof(*f));
}

static void commit(struct shard *sh, struct stream *st, struct want *w,
                   struct annotation_channel *ch, struct record *r, uint64_t target)
{
    struct flight *f = heap_alloc(sh->heap, sizeof(*f));
    if (f == NULL || (target > 0 && !annotation_delete_begin(sh, ch, target))) {
        heap_free(sh->heap, f, sizeof(*f));
        want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    uint32_t bytes = record_bytes(r);
    *f = (struct flight){w, ch, target, bytes};
    annotation_begin(ch, bytes);
    if (stream_append(sh, st, r, done, f)) {
        if (target > 0) annotation_delete_sequenced(ch, target, r->delivery);
        return;
    }
    heap_free(sh->heap, f, sizeof(*f));
    annotation_end(sh, st, ch, bytes, r, false);
    want_busy(sh, w, "History cannot be written at the moment");
}

/* ---- create ---- */

static bool is_there(const struct want *w, uint64_t message_ms)
{
    return message_ms == w->message_ms;
}

/* True when the message exists; else the want waits, reads, or has been refused. */
static bool message_found(struct shard *sh, struct stream *st, struct want *w)
{
    struct stream *main = stream_of(sh, st->home, STREAM_MAIN);
    if (w->found) return true;
    if (main == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return false;
    }
    if (main->state == STREAM_LOADING) {
        want_wait(sh, main, w, 0);
        return false;
    }
    if (w->message == 0 || w->message > main->now.delivery) {
        want_not_found(sh, w);
        return false;
    }
    const struct fold *fold = stream_fold(sh, main, w->message);
    if (fold != NULL) {
        w->found = is_there(w, fold->message_ms);
        if (!w->found) want_not_found(sh, w);
        return w->found;
    }
    struct store_read *r = stream_read_make(sh, main, STORE_MESSAGE, on_message, w);
    if (r == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return false;
    }
    r->message = w->message;
    r->upto = main->now.delivery;
    r->bytes_max = RECORD_BYTES_MAX;
    stream_read_post(sh, main, r);
    return false;
}

static void on_message(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct want *w = ctx;
    struct record record;
    struct want_walk walk = want_walk_begin(r);
    bool ok = r->status == STORE_READ_OK && want_walk_next(&walk, &record);
    (void)st;
    if (r->status == STORE_READ_NOT_FOUND || r->status == STORE_READ_GONE ||
        (ok && !is_there(w, record.message_ms))) {
        want_not_found(sh, w);
    } else if (!ok) {
        want_read_failed(sh, w, r);
    } else {
        struct letter l = want_letter(w);
        w->found = true;
        want_on_want(sh, &l);
    }
    stream_read_end(sh, r);
}

static void create(struct shard *sh, struct stream *st, struct want *w)
{
    if (!message_found(sh, st, w)) return;
    struct annotation_channel *ch = annotation_get(sh, st, w);
    if (ch == NULL) return;
    struct record r = w->content->r;     /* what the request made of it */
    if (annotation_fits(sh, ch, &r)) {
        commit(sh, st, w, ch, &r, 0);
        return;
    }
    if (annotation_read_again(sh, ch)) {
        (void)annotation_get(sh, st, w);
        return;
    }
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_ANNOTATIONS, 1);
    want_refuse(sh, w, 413, "payload_too_large", PUSHER_GENERIC,
                "Annotations of channel '%.*s' exceed what their summaries may hold",
                (int)w->channel.bytes, (const char *)w->channel.ptr);
}

/* ---- delete ---- */

static void refuse_unknown(struct shard *sh, struct want *w)
{
    want_refuse(sh, w, 404, "not_found", PUSHER_GENERIC,
                "Annotation '%.*s' was not found in channel '%.*s'", (int)w->annotation.bytes,
                (const char *)w->annotation.ptr, (int)w->channel.bytes,
                (const char *)w->channel.ptr);
}

static bool may_delete(const struct want *w, const struct record *target)
{
    switch ((enum content_scope)w->actor.scope) {
    case CONTENT_PRIVILEGED:
    case CONTENT_ANY: return true;
    case CONTENT_OWN:
        return w->actor.id.ptr != NULL && target->client.ptr != NULL &&
               slice_equal(w->actor.id, target->client);
    case CONTENT_NONE: break;
    }
    return false;
}

/* {"action":"annotation.delete","messageSerial":..,"type":..,"name":..,"clientId":..,"count":..} */
static void write_delete(struct api_text *t, const struct record *target)
{
    api_text_str(t, "{\"action\":\"annotation.delete\",\"messageSerial\":");
    api_text_quote(t, target->message_id);
    api_text_str(t, ",\"type\":");
    api_text_quote(t, target->owner);
    if (target->description.ptr != NULL) {
        api_text_str(t, ",\"name\":");
        api_text_quote(t, target->description);
    }
    if (target->client.ptr != NULL) {
        api_text_str(t, ",\"clientId\":");
        api_text_quote(t, target->client);
    }
    if (target->metadata.ptr != NULL) {
        api_text_str(t, ",\"count\":");
        api_text_add(t, target->metadata);
    }
    api_text_str(t, "}");
}

static void append_delete(struct shard *sh, struct stream *st, struct want *w,
                          struct annotation_channel *ch, const struct record *target)
{
    struct api_text t = {.heap = sh->heap};
    write_delete(&t, target);
    struct record r = {
        .kind = RECORD_ANNOTATION, .name = slice_str("\"annotation.delete\""),
        .data = api_text_slice(&t), .message_id = target->message_id, .owner = target->owner,
        .description = target->description, .client = target->client,
        .metadata = target->metadata, .op_id = w->annotation,
    };
    if (t.failed) want_busy(sh, w, "Server is at its memory limit");
    else commit(sh, st, w, ch, &r, target->delivery);
    api_text_free(&t);
}

static void delete_target(struct shard *sh, struct stream *st, struct want *w,
                          const struct record *target)
{
    uint64_t flying = 0;
    if (!slice_equal(target->message_id, w->serial)) {
        want_refuse(sh, w, 404, "not_found", PUSHER_GENERIC,
                    "Annotation '%.*s' does not target message '%.*s'",
                    (int)w->annotation.bytes, (const char *)w->annotation.ptr,
                    (int)w->serial.bytes, (const char *)w->serial.ptr);
        return;
    }
    if (target->op_id.ptr != NULL) {
        want_refuse(sh, w, 400, "invalid_input", PUSHER_GENERIC,
                    "Only annotation.create events can be deleted");
        return;
    }
    if (!may_delete(w, target)) {
        want_refuse(sh, w, 403, "forbidden", PUSHER_UNAUTHORIZED,
                    "annotation-delete capability is required for channel '%.*s'",
                    (int)w->channel.bytes, (const char *)w->channel.ptr);
        return;
    }
    struct annotation_channel *ch = annotation_get(sh, st, w);
    if (ch == NULL) return;
    if (!annotation_delete_find(ch, target->delivery, &flying)) {
        append_delete(sh, st, w, ch, target);
    } else if (flying > 0) {
        want_wait(sh, st, w, flying);
    } else {
        answer(sh, w, target->delivery, target->delivery);
    }
}

static void on_target(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct want *w = ctx;
    struct record target;
    struct want_walk walk = want_walk_begin(r);
    bool ok = r->status == STORE_READ_OK;
    bool found = ok && want_walk_next(&walk, &target);
    if (found) delete_target(sh, st, w, &target);
    else if (ok || r->status == STORE_READ_NOT_FOUND || r->status == STORE_READ_GONE) {
        refuse_unknown(sh, w);
    } else {
        want_read_failed(sh, w, r);
    }
    stream_read_end(sh, r);
}

static void delete(struct shard *sh, struct stream *st, struct want *w)
{
    uint64_t target;
    if (!annotation_serial_parse(w->annotation, &target) || target == 0 ||
        target > st->now.delivery) {
        refuse_unknown(sh, w);
        return;
    }
    struct store_read *r = stream_read_make(sh, st, STORE_RANGE, on_target, w);
    if (r == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    r->from = target - 1;
    r->upto = target;
    r->limit = 1;
    r->bytes_max = RECORD_BYTES_MAX;
    stream_read_post(sh, st, r);
}

/* ---- list ---- */

static void list_free(struct shard *sh, struct api_text *list)
{
    api_text_free(list);
    heap_free(sh->heap, list, sizeof(*list));
}

static void list_end(struct shard *sh, struct want *w)
{
    if (w->list == NULL) return;
    list_free(sh, w->list);
    w->list = NULL;
}

static void list_post(struct shard *sh, struct stream *st, struct want *w)
{
    struct api_text *list = w->list;     /* without a read the want is its asker's again */
    struct store_read *r = want_rows(sh, st, w, on_rows, w->rows_limit, false);
    if (r == NULL) {
        list_free(sh, list);
        return;
    }
    r->rows_after = w->list_last;
    r->rows_upto = w->list_end;
    r->bytes_max = w->rows_limit == 1 ? RECORD_BYTES_MAX : 0;
    stream_read_post(sh, st, r);
}

/* cursor: serial of the last one listed when more follow; 0: none do. */
static void list_answer(struct shard *sh, struct want *w, uint64_t cursor)
{
    struct api_text t = {.heap = sh->heap};
    char text[ANNOTATION_SERIAL_BYTES];
    api_text_str(&t, "{");
    want_write_text(&t, "channel", w->channel);
    api_text_str(&t, ",");
    want_write_text(&t, "messageSerial", w->serial);
    api_text_str(&t, ",");
    want_write_null(&t, "limit", true, w->page.limit);
    api_text_str(&t, cursor > 0 ? ",\"hasMore\":true," : ",\"hasMore\":false,");
    annotation_serial_write(text, cursor);
    want_write_text(&t, "nextCursor", cursor > 0 ? slice_str(text) : slice_of(NULL, 0));
    api_text_str(&t, ",\"items\":[");
    api_text_add(&t, api_text_slice(w->list));
    api_text_str(&t, "]}");
    t.failed = t.failed || w->list->failed;
    list_end(sh, w);
    want_answer(sh, w, &t);
}

static bool is_listed(const struct want *w, const struct record *r)
{
    return slice_equal(r->message_id, w->serial) &&
           (w->type.ptr == NULL || slice_equal(r->owner, w->type));
}

static void on_rows(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct want *w = ctx;
    struct want_walk walk = want_walk_begin(r);
    struct record record;
    bool full = false;
    if (r->status == STORE_READ_LARGE && w->rows_limit > 1) {
        w->rows_limit = (w->rows_limit + 1) / 2;
        list_post(sh, st, w);
        stream_read_end(sh, r);
        return;
    }
    if (r->status != STORE_READ_OK) {
        list_end(sh, w);
        want_read_failed(sh, w, r);
        stream_read_end(sh, r);
        return;
    }
    while (!full && want_walk_next(&walk, &record)) {
        w->list_last = record.history;
        w->list_read++;
        if (!is_listed(w, &record)) continue;
        full = w->list_count == w->page.limit;
        if (full) break;
        if (w->list_count++ > 0) api_text_str(w->list, ",");
        annotation_write_event(w->list, &record);
        w->list_shown = record.history;
    }
    if (full) list_answer(sh, w, w->list_shown);
    else if (r->more && w->list_read >= LIST_SCAN_MAX) list_answer(sh, w, w->list_last);
    else if (r->more) list_post(sh, st, w);
    else list_answer(sh, w, 0);
    stream_read_end(sh, r);
}

static void list(struct shard *sh, struct stream *st, struct want *w)
{
    struct annotation_channel *ch = annotation_get(sh, st, w);
    uint64_t first;
    if (ch == NULL) return;
    list_end(sh, w);
    w->list = heap_zalloc(sh->heap, sizeof(*w->list));
    if (w->list == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    w->list->heap = sh->heap;
    w->list_count = 0;
    w->list_last = 0;
    if (w->page.cursor.ptr != NULL && !annotation_serial_parse(w->page.cursor, &w->list_last)) {
        /* none of ours, in the order of texts: before or behind all that are */
        if (slice_order(w->page.cursor, slice_str("ann:")) > 0) w->list_last = UINT64_MAX;
    }
    w->list_read = 0;
    w->rows_limit = LIST_ROWS;
    if (!annotation_rows(sh, ch, w->serial, w->type, &first, &w->list_end) ||
        w->list_last >= w->list_end) {
        list_answer(sh, w, 0);
        return;
    }
    w->list_last = u64_max(w->list_last, first - 1);
    list_post(sh, st, w);
}

/* ---- summaries ---- */

static void summaries(struct shard *sh, struct stream *st, struct want *w)
{
    struct annotation_channel *ch = annotation_get(sh, st, w);
    if (ch == NULL) return;
    if (!stream_blobs_have_room(sh, w->app)) {   /* too much is not taken by sockets */
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_ANNOTATION_SUMMARIES, 1);
        want_busy(sh, w, "Server is busy, try again");
        return;
    }
    struct api_text t = {.heap = sh->heap};
    annotation_write_frames(sh, &t, ch, w->channel);
    if (t.bytes > 0 && !t.failed) {
        struct frame *f = frame_copy(sh, t.ptr, t.bytes);
        api_text_free(&t);
        if (f != NULL) stream_blob_count(sh, f, w->app);
        want_answer_frame(sh, w, f);
        return;
    }
    api_text_free(&t);
    want_refuse(sh, w, 404, "not_found", PUSHER_GENERIC, "Nothing is annotated");
}

void want_annotation_on_want(struct shard *sh, struct stream *st, struct want *w)
{
    switch ((enum want_kind)w->kind) {
    case WANT_ANNOTATE: create(sh, st, w); return;
    case WANT_UNANNOTATE: delete(sh, st, w); return;
    case WANT_ANNOTATIONS: list(sh, st, w); return;
    default: summaries(sh, st, w); return;
    }
}
