/* GET of a message and of its versions; how a message looks in every read. */
#include "shards/want_parts.h"

static void on_message(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);
static void on_versions(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);

/* ---- a message as JSON ---- */

const char *want_action(uint8_t record_kind)
{
    switch (record_kind) {
    case RECORD_UPDATE: return v2_action_words[V2_UPDATE];
    case RECORD_DELETE: return v2_action_words[V2_DELETE];
    case RECORD_APPEND: return v2_action_words[V2_APPEND];
    default: return v2_action_words[V2_CREATE];
    }
}

static void add_raw(struct api_text *t, const char *before, struct slice raw)
{
    if (raw.ptr == NULL) return;
    api_text_str(t, before);
    api_text_add(t, raw);
}

static void add_text(struct api_text *t, const char *before, struct slice text)
{
    if (text.ptr == NULL) return;
    api_text_str(t, before);
    api_text_quote(t, text);
}

static void add_number(struct api_text *t, const char *before, uint64_t n)
{
    api_text_str(t, before);
    api_text_number(t, n);
}

void want_write_item(struct api_text *t, const char *node, struct slice channel,
                     const struct record *r, const struct record *whole, struct slice stream_id)
{
    char message[V2_SERIAL_BYTES], version[V2_SERIAL_BYTES];
    const char *action = want_action(r->kind);
    v2_serial_write(message, r->message_ms, node, r->message);
    v2_serial_write(version, r->time_ms, node, r->delivery);
    api_text_str(t, "{\"event\":\"sockudo:message.");
    api_text_str(t, action);
    add_text(t, "\",\"channel\":", channel);
    add_raw(t, ",\"data\":", r->data);
    add_raw(t, ",\"name\":", whole->name);
    add_text(t, ",\"stream_id\":", stream_id);
    add_number(t, ",\"serial\":", r->delivery);
    add_raw(t, ",\"extras\":", whole->extras);
    api_text_str(t, ",\"action\":\"");
    api_text_str(t, action);
    add_text(t, "\",\"message_serial\":", slice_str(message));
    add_number(t, ",\"history_serial\":", r->history);
    add_number(t, ",\"delivery_serial\":", r->delivery);
    add_text(t, ",\"version\":{\"serial\":", slice_str(version));
    add_number(t, ",\"timestamp_ms\":", r->time_ms);
    add_text(t, ",\"client_id\":", r->client);
    add_text(t, ",\"description\":", r->description);
    add_raw(t, ",\"metadata\":", r->metadata);
    api_text_str(t, "}}");
}

/* ---- one message ---- */

static void answer_message(struct shard *sh, const struct stream *st, struct want *w,
                           const struct record *r)
{
    struct api_text t = {.heap = sh->heap};
    if (r->message_ms != w->message_ms) {
        want_not_found(sh, w);
        return;
    }
    api_text_str(&t, "{\"channel\":");
    api_text_quote(&t, w->channel);
    api_text_str(&t, ",\"item\":");
    want_write_item(&t, st->node, w->channel, r, r, slice_of(NULL, 0));
    api_text_str(&t, "}");
    want_answer(sh, w, &t);
}

static void read_message(struct shard *sh, struct stream *st, struct want *w)
{
    struct store_read *r = stream_read_make(sh, st, STORE_MESSAGE, on_message, w);
    if (r == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    r->message = w->message;
    r->upto = st->now.delivery;
    r->bytes_max = RECORD_BYTES_MAX;
    stream_read_post(sh, st, r);
}

static void on_message(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct want *w = ctx;
    struct record record;
    struct want_walk walk = want_walk_begin(r);
    if (r->status == STORE_READ_NOT_FOUND || r->status == STORE_READ_GONE) {
        want_not_found(sh, w);
    } else if (r->status != STORE_READ_OK || !want_walk_next(&walk, &record)) {
        want_read_failed(sh, w, r);
    } else {
        answer_message(sh, st, w, &record);
    }
    stream_read_end(sh, r);
}

/* ---- its versions ---- */

/* Versions come in the order asked; a record that an append refers to stands before it where the
 * page does not hold it, or holds it behind it, and is marked. */
static bool is_item(const struct store_read *r, const struct record *record)
{
    if ((record->flags & RECORD_CONTEXT) != 0) return false;
    return r->newest_first || record->delivery > r->from;
}

static bool is_whole(const struct record *r)
{
    return r->kind != RECORD_APPEND || (r->flags & RECORD_WHOLE) != 0;
}

/* The record of the page with this serial; false when there is none. */
static bool find_record(const struct store_read *r, uint64_t delivery, struct record *out)
{
    struct want_walk walk = want_walk_begin(r);
    while (want_walk_next(&walk, out)) {
        if (out->delivery == delivery) return true;
    }
    return false;
}

/* Returns how many were written; *last: the serial of the last one. False in *found: a record that
 * a version refers to is missing. */
static uint32_t write_versions(struct api_text *t, const char *node, const struct want *w,
                               const struct store_read *r, struct record *last, bool *found)
{
    struct want_walk walk = want_walk_begin(r);
    struct record record, whole = {0};   /* the last one so far: as a rule the one referred to */
    uint32_t count = 0;
    *found = true;
    while (want_walk_next(&walk, &record)) {
        if (is_whole(&record)) whole = record;
        if (!is_item(r, &record)) continue;
        if (!is_whole(&record) && whole.delivery != record.context &&
            !find_record(r, record.context, &whole)) {
            *found = false;
            return count;
        }
        if (count++ > 0) api_text_str(t, ",");
        want_write_item(t, node, w->channel, &record, &whole, slice_of(NULL, 0));
        *last = record;
    }
    return count;
}

static void post_versions(struct shard *sh, struct stream *st, struct want *w, uint64_t from)
{
    struct store_read *r = stream_read_make(sh, st, STORE_VERSIONS, on_versions, w);
    if (r == NULL) {
        want_busy(sh, w, "Server is at its memory limit");
        return;
    }
    r->message = w->message;
    r->upto = st->now.delivery;
    r->from = from;
    r->limit = w->rows_limit;
    r->newest_first = w->page.newest_first;
    r->bytes_max = w->rows_limit == 1 ? RECORD_BYTES_MAX : 0;
    stream_read_post(sh, st, r);
}

static void answer_versions(struct shard *sh, const struct stream *st, struct want *w,
                            const struct store_read *r)
{
    struct api_text t = {.heap = sh->heap};
    struct record last = {0};
    char serial[V2_SERIAL_BYTES];
    bool found;
    api_text_str(&t, "{\"channel\":");
    api_text_quote(&t, w->channel);
    api_text_str(&t, w->page.newest_first ? ",\"direction\":\"newest_first\",\"limit\":"
                                          : ",\"direction\":\"oldest_first\",\"limit\":");
    api_text_number(&t, w->page.limit);
    api_text_str(&t, r->more ? ",\"has_more\":true" : ",\"has_more\":false");
    api_text_str(&t, ",\"items\":[");
    uint32_t count = write_versions(&t, st->node, w, r, &last, &found);
    api_text_str(&t, "]");
    if (!found || (count > 0 && last.message_ms != w->message_ms)) {
        api_text_free(&t);
        if (found) want_not_found(sh, w);
        else want_read_failed(sh, w, r);
        return;
    }
    if (r->more && count > 0) {
        v2_serial_write(serial, last.time_ms, st->node, last.delivery);
        api_text_str(&t, ",\"next_cursor\":");
        api_text_quote(&t, slice_str(serial));
    }
    api_text_str(&t, "}");
    want_answer(sh, w, &t);
}

static void on_versions(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct want *w = ctx;
    if (r->status == STORE_READ_LARGE && w->rows_limit > 1) {
        w->rows_limit = (w->rows_limit + 1) / 2;     /* a shorter page: there is a cursor */
        post_versions(sh, st, w, r->from);
    } else if (r->status == STORE_READ_NOT_FOUND || r->status == STORE_READ_GONE) {
        want_not_found(sh, w);
    } else if (r->status != STORE_READ_OK) {
        want_read_failed(sh, w, r);
    } else {
        answer_versions(sh, st, w, r);
    }
    stream_read_end(sh, r);
}

void want_message_on_want(struct shard *sh, struct stream *st, struct want *w)
{
    uint64_t from = 0, ms;
    if (w->message == 0 || w->message > st->now.delivery) {
        want_not_found(sh, w);
        return;
    }
    if (w->kind == WANT_VERSIONS) {
        if (w->page.cursor.ptr != NULL &&
            !v2_serial_parse(w->page.cursor, st->node, &ms, &from)) {
            want_refuse(sh, w, 400, "invalid_input", PUSHER_GENERIC,
                        "cursor is not a version_serial of this server");
            return;
        }
        w->rows_limit = w->page.limit;
        post_versions(sh, st, w, from);
        return;
    }
    const struct fold *f = stream_fold(sh, st, w->message);
    struct record record;
    if (f == NULL) {
        read_message(sh, st, w);
        return;
    }
    fold_record(f, &record);
    answer_message(sh, st, w, &record);
}
