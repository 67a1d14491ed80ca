/* Pages of history, and of the presence log: the same rows under other names. */
#include "shards/want_parts.h"

#include "shards/session_v2.h"

#include <stdio.h>

static void on_rows(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);

static bool is_presence(const struct want *w) { return w->kind == WANT_PRESENCE_HISTORY; }

static const char *word_of(const struct want *w)
{
    return is_presence(w) ? "Presence history" : "History";
}

static struct want_scope scope_of(const struct shard *sh, const struct want *w)
{
    return (struct want_scope){sh->server->app_ids[w->app], w->channel, &w->page};
}

static void add_number(struct api_text *t, const char *before, uint64_t n)
{
    api_text_str(t, before);
    api_text_number(t, n);
}

static void add_raw(struct api_text *t, const char *before, struct slice raw)
{
    if (raw.ptr == NULL) return;
    api_text_str(t, before);
    api_text_add(t, raw);
}

/* ---- rows ---- */

struct page { struct shard *sh; struct stream *st; struct want *w; struct api_text *t, *scratch; };

/* A publish that cannot be changed, as it was broadcast. */
static void write_plain(struct api_text *t, const struct page *p, const struct record *r)
{
    add_raw(t, "{\"event\":", r->name);
    api_text_str(t, ",\"channel\":");
    api_text_quote(t, p->w->channel);
    add_raw(t, ",\"data\":", r->data);
    if (r->user.ptr != NULL) {
        api_text_str(t, ",\"user_id\":");
        api_text_quote(t, r->user);
    }
    add_raw(t, ",\"tags\":", r->tags);
    api_text_str(t, ",");
    want_write_text(t, "message_id", r->message_id);
    api_text_str(t, ",");
    want_write_text(t, "stream_id", slice_str(p->st->history_id));
    add_number(t, ",\"serial\":", r->history);
    add_raw(t, ",\"extras\":", r->extras);
    api_text_str(t, "}");
}

/* row: as stored; now: the message's newest version, row itself when it was never changed. */
static void write_row(const struct page *p, const struct record *row, const struct record *now)
{
    struct api_text *t = p->t, *message = p->scratch;
    bool plain = row->kind == RECORD_PLAIN, socket = p->w->page.on_socket;
    message->bytes = 0;
    if (plain) {
        write_plain(message, p, row);
    } else {
        want_write_item(message, p->st->node, p->w->channel, now, now,
                        socket ? slice_str(stream_id(p->st)) : slice_of(NULL, 0));
    }
    api_text_str(t, ",");
    want_write_text(t, "message_id", row->message_id);
    api_text_str(t, ",\"event_name\":");
    if (plain) {
        if (row->name.ptr != NULL) api_text_add(t, row->name);
        else api_text_str(t, "null");
        api_text_str(t, ",\"operation_kind\":\"append");
    } else {
        api_text_str(t, "\"sockudo:message.");
        api_text_str(t, want_action(now->kind));
        api_text_str(t, socket ? "\",\"operation_kind\":\""
                               : "\",\"operation_kind\":\"message.");
        api_text_str(t, want_action(now->kind));
    }
    add_number(t, "\",\"payload_size_bytes\":", message->bytes);
    api_text_str(t, ",\"message\":");
    api_text_add(t, api_text_slice(message));
}

/* now: as for write_row. A row that has outlived its versions is shown as it was created. */
static void count_row(const struct page *p, const struct record *row, const struct record *now,
                      uint64_t now_ms)
{
    uint64_t age_ms = p->st->policy->version_age_ms;
    bool kept = (now->flags & RECORD_FOLDED) || age_ms == 0 || age_ms == UINT64_MAX ||
                row->time_ms + age_ms >= now_ms;
    enum series_substitution result = kept ? SERIES_SUBSTITUTED : SERIES_MISSING_LATEST;
    if (row->kind == RECORD_PLAIN) result = SERIES_NOT_VERSIONED;
    metric_add(p->sh->metrics, METRIC_VERSIONED_HISTORY_SUBSTITUTION_TOTAL, p->w->app, result, 1);
}

static void write_member(const struct page *p, const struct record *r)
{
    static const char *const names[] = {"event", "cause", "user_id", "connection_id",
                                        "dead_node_id"};
    enum { NAMES = sizeof(names) / sizeof(names[0]) };
    struct json_value values[NAMES];
    struct json_field fields[NAMES];
    struct json_error error;
    for (uint32_t i = 0; i < NAMES; i++) fields[i] = (struct json_field){names[i], &values[i]};
    bool read = json_object(r->data, fields, NAMES, &error);
    ASSERT(read);                        /* presence_log.c wrote it */
    for (uint32_t i = 0; i < NAMES; i++) {
        api_text_str(p->t, ",\"");
        api_text_str(p->t, names[i]);
        api_text_str(p->t, "\":");
        if (values[i].type == JSON_ABSENT) api_text_str(p->t, "null");
        else api_text_add(p->t, values[i].raw);
    }
    add_number(p->t, ",\"payload_size_bytes\":", r->data.bytes);
    add_number(p->t, ",\"presence_event\":{\"published_at_ms\":", r->time_ms);
    api_text_str(p->t, ",");
    api_text_add(p->t, slice_of(r->data.ptr + 1, r->data.bytes - 2));
    api_text_str(p->t, ",");
    want_write_text(p->t, "stream_id", slice_str(p->st->history_id));
    add_number(p->t, ",\"serial\":", r->history);
    api_text_str(p->t, "}");
}

/* Returns the number of rows; *last: the history serial of the last one. */
static uint32_t write_items(const struct page *p, const struct store_read *r, uint64_t *last)
{
    struct want_walk walk = want_walk_begin(r);
    struct record row, now;
    uint32_t count = 0;
    bool more = want_walk_next(&walk, &row);
    while (more) {
        struct record next;
        now = row;
        more = want_walk_next(&walk, &next);
        if (more && (next.flags & RECORD_FOLDED)) {
            now = next;
            more = want_walk_next(&walk, &next);
        }
        if (count++ > 0) api_text_str(p->t, ",");
        api_text_str(p->t, "{");
        want_write_text(p->t, "stream_id", slice_str(p->st->history_id));
        add_number(p->t, ",\"serial\":", row.history);
        add_number(p->t, ",\"published_at_ms\":", row.time_ms);
        if (is_presence(p->w)) {
            write_member(p, &row);
        } else {
            write_row(p, &row, &now);
            count_row(p, &row, &now, r->now_ms);
        }
        api_text_str(p->t, "}");
        *last = row.history;
        if (more) row = next;
    }
    return count;
}

/* ---- what the page says of itself ---- */

static bool is_truncated(const struct want_page *p, const struct store_head *head)
{
    if (head->rows_first == 0) return false;
    if (p->has_start && p->start_serial < head->rows_first) return true;
    if (p->has_time_from && p->time_from_ms < (int64_t)head->rows_first_ms) return true;
    return !p->has_start && !p->has_time_from && head->rows_first > 1;
}

/* Nothing is kept, and something of the range may have been. */
static bool is_gone(const struct want_page *p, const struct store_head *head)
{
    return store_rows_gone(head) && !(p->has_start && p->start_serial >= head->history_next) &&
           !(p->has_end && p->end_serial == 0) &&
           !(p->has_time_from && p->time_from_ms > (int64_t)head->time_ms);
}

static void write_continuity(const struct page *p, const struct store_head *head, bool more)
{
    struct api_text *t = p->t;
    bool presence = is_presence(p->w);
    bool truncated = is_truncated(&p->w->page, head), lost = want_lost(p->sh, p->st);
    bool whole = !more && !truncated && !lost && !is_gone(&p->w->page, head);
    api_text_str(t, "{");
    want_write_text(t, "stream_id", slice_str(p->st->history_id));
    api_text_str(t, ",");
    want_write_span(t, head);
    api_text_str(t, ",");
    want_write_retained(t, p->st, head);
    if (presence) api_text_str(t, lost ? ",\"degraded\":true" : ",\"degraded\":false");
    api_text_str(t, whole ? ",\"complete\":true" : ",\"complete\":false");
    api_text_str(t, truncated ? ",\"truncated_by_retention\":true}"
                              : ",\"truncated_by_retention\":false}");
}

/* What the socket is sent: counted here for as long as it has not taken it. */
static struct frame *page_frame(struct shard *sh, const struct want *w, struct slice page)
{
    char id[V2_UUID_BYTES];
    session_v2_uuid(sh, id);
    struct v2_out o = {
        .event_json = slice_str("\"sockudo:channel_history\""), .channel = w->channel,
        .data_json = page, .message_id = slice_str(id),
    };
    struct frame *f = frame_make(sh, v2_event_bytes(&o));
    if (f == NULL) return NULL;
    f->bytes_count = v2_event_write(&o, frame_room(f));
    stream_blob_count(sh, f, w->app);
    return f;
}

static void answer(struct shard *sh, struct stream *st, struct want *w, const struct store_read *r)
{
    struct api_text t = {.heap = sh->heap}, scratch = {.heap = sh->heap};
    struct page p = {sh, st, w, &t, &scratch};
    struct want_scope scope = scope_of(sh, w);
    uint64_t last = 0;
    api_text_str(&t, "{\"items\":[");
    uint32_t count = write_items(&p, r, &last);
    bool more = r->more && count > 0;
    api_text_str(&t, w->page.newest_first ? "],\"direction\":\"newest_first\""
                                          : "],\"direction\":\"oldest_first\"");
    add_number(&t, ",\"limit\":", w->page.limit);
    api_text_str(&t, more ? ",\"has_more\":true,\"next_cursor\":\""
                          : ",\"has_more\":false,\"next_cursor\":null");
    if (more) {
        want_cursor_write(&t, &scope, slice_str(st->history_id), last);
        api_text_str(&t, "\"");
    }
    api_text_str(&t, ",\"bounds\":");
    want_write_bounds(&t, &w->page, w->page.on_socket);
    api_text_str(&t, ",\"continuity\":");
    write_continuity(&p, &r->head, more);
    api_text_str(&t, ",\"stream_state\":");
    want_write_state(sh, &t, st, &r->head);
    api_text_str(&t, "}");
    t.failed = t.failed || scratch.failed;
    api_text_free(&scratch);
    if (!w->page.on_socket) {
        want_answer(sh, w, &t);
        return;
    }
    want_answer_frame(sh, w, t.failed ? NULL : page_frame(sh, w, api_text_slice(&t)));
    api_text_free(&t);
}

/* ---- the read ---- */

static void refuse_cursor(struct shard *sh, struct want *w, const char *text)
{
    want_refuse(sh, w, 400, "invalid_input", PUSHER_GENERIC, "%s", text);
}

/* False: the want has been refused. */
static bool read_cursor(struct shard *sh, struct stream *st, struct want *w, uint64_t *after)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct want_scope scope = scope_of(sh, w);
    struct want_cursor cursor;
    *after = 0;
    if (w->page.cursor.ptr == NULL) return true;
    if (!want_cursor_read(sh->heap, &scope, w->page.cursor, word_of(w), &cursor, error)) {
        refuse_cursor(sh, w, error);
        return false;
    }
    if (strcmp(cursor.stream_id, st->history_id) != 0) {
        refuse_cursor(sh, w, is_presence(w)
                                 ? "Expired presence history cursor: channel stream changed"
                                 : "Expired history cursor: channel stream changed");
        return false;
    }
    *after = cursor.serial;
    return true;
}

static void post(struct shard *sh, struct stream *st, struct want *w)
{
    const struct want_page *p = &w->page;
    uint64_t after;
    if (!read_cursor(sh, st, w, &after)) return;
    struct store_read *r = want_rows(sh, st, w, on_rows, w->rows_limit, p->newest_first);
    if (r == NULL) return;
    r->rows_after = after;
    r->bytes_max = w->rows_limit == 1 ? RECORD_BYTES_MAX : 0;
    if (p->has_start) r->rows_from = p->start_serial;
    if (p->has_end) r->rows_upto = p->end_serial;
    if (p->has_time_from && p->time_from_ms > 0) r->time_from_ms = (uint64_t)p->time_from_ms;
    if (p->has_time_upto) r->time_upto_ms = p->time_upto_ms < 0 ? 0 : (uint64_t)p->time_upto_ms;
    if (p->on_socket) stream_read_post_page(sh, st, r);
    else stream_read_post(sh, st, r);
}

static void on_rows(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct want *w = ctx;
    const struct store_head *head = &r->head;
    if (r->status == STORE_READ_LARGE && w->rows_limit > 1) {
        w->rows_limit = (w->rows_limit + 1) / 2;     /* a shorter page: there is a cursor */
        post(sh, st, w);
    } else if (r->status != STORE_READ_OK) {
        if (r->status == STORE_READ_IO) stream_degrade(sh, st, true);
        want_read_failed(sh, w, r);
    } else if (head->history_epoch != st->history_epoch) {
        post(sh, st, w);                 /* reset meanwhile */
    } else if (r->rows_after > 0 && (head->rows_first == 0 || r->rows_after < head->rows_first)) {
        refuse_cursor(sh, w, is_presence(w)
                                 ? "Expired presence history cursor: cursor points before "
                                   "retained presence history"
                                 : "Expired history cursor: cursor points before retained "
                                   "history");
    } else {
        answer(sh, st, w, r);
    }
    stream_read_end(sh, r);
}

void want_history_on_want(struct shard *sh, struct stream *st, struct want *w)
{
    w->rows_limit = w->page.limit;
    if (st->degraded) {                  /* until it is reset (section 7) */
        want_refuse(sh, w, 500, "internal_error", PUSHER_CLIENT_EVENT, "Internal server error");
        return;
    }
    post(sh, st, w);
}
