/* State, reset and purge of a history, and of a presence log:
 *
 *   state   read -> answer
 *   reset   read (what there is) -> record committed -> read (what is left) -> answer
 *   purge   read (the newest row that goes) -> record committed -> read -> answer */
#include "shards/presence_log.h"
#include "shards/want_parts.h"

static void on_before(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);
static void on_after(struct shard *sh, struct stream *st, struct store_read *r, void *ctx);

static bool is_presence(const struct want *w)
{
    return w->kind == WANT_PRESENCE_STATE || w->kind == WANT_PRESENCE_RESET;
}

/* ---- what a stream says of itself ---- */

bool want_lost(const struct shard *sh, const struct stream *st)
{
    return st->what == STREAM_PRESENCE &&
           presence_log_is_lost(sh, st->home->app, home_name(st->home));
}

/* A presence log with a hole is to be reset; one that lost everything holds nothing to distrust. */
void want_write_state(struct shard *sh, struct api_text *t, const struct stream *st,
                      const struct store_head *head)
{
    bool presence = st->what == STREAM_PRESENCE, lost = want_lost(sh, st);
    bool healthy = !lost && !st->degraded, reset = lost && head->rows_count > 0;
    const char *reason = st->degraded ? "durable_history_read_failed"
                         : reset      ? "presence_history_reset_required_after_write_failure"
                         : lost       ? "presence_history_write_failed" : NULL;
    api_text_str(t, "{");
    want_write_text(t, "stream_id", slice_str(st->history_id));
    api_text_str(t, ",");
    want_write_text(t, "durable_state", slice_str(healthy ? "healthy"
                                                  : reset ? "reset_required" : "degraded"));
    api_text_str(t, presence ? ",\"continuity_proven\":" : ",\"recovery_allowed\":");
    api_text_str(t, healthy ? "true" : "false");
    api_text_str(t, reset ? ",\"reset_required\":true," : ",\"reset_required\":false,");
    want_write_text(t, "reason", reason == NULL ? slice_of(NULL, 0) : slice_str(reason));
    api_text_str(t, ",\"node_id\":null,");
    want_write_null(t, "last_transition_at_ms", head->reset_ms > 0, head->reset_ms);
    api_text_str(t, ",\"authoritative_source\":\"durable_store\","
                    "\"observed_source\":\"durable_store\"}");
}

void want_write_span(struct api_text *t, const struct store_head *head)
{
    bool any = head->rows_first > 0;
    want_write_null(t, "oldest_available_serial", any, head->rows_first);
    api_text_str(t, ",");
    want_write_null(t, "newest_available_serial", any, head->rows_newest);
    api_text_str(t, ",");
    want_write_null(t, "oldest_available_published_at_ms", any, head->rows_first_ms);
    api_text_str(t, ",");
    want_write_null(t, "newest_available_published_at_ms", any, head->rows_newest_ms);
}

void want_write_retained(struct api_text *t, const struct stream *st,
                         const struct store_head *head)
{
    bool presence = st->what == STREAM_PRESENCE;
    want_write_null(t, presence ? "retained_events" : "retained_messages", true,
                    head->rows_count);
    api_text_str(t, ",");
    want_write_null(t, "retained_bytes", true, head->rows_bytes);
}

void want_write_stream(struct shard *sh, struct api_text *t, const struct stream *st,
                       const struct store_head *head)
{
    api_text_str(t, "{");
    want_write_text(t, "stream_id", slice_str(st->history_id));
    api_text_str(t, ",");
    want_write_null(t, "next_serial", true, u64_max(head->history_next, 1));
    api_text_str(t, ",\"retained\":{");
    want_write_text(t, "stream_id", slice_str(st->history_id));
    api_text_str(t, ",");
    want_write_retained(t, st, head);
    api_text_str(t, ",");
    want_write_span(t, head);
    api_text_str(t, "},\"state\":");
    want_write_state(sh, t, st, head);
    api_text_str(t, "}");
}

/* ---- answers ---- */

static void add_raw(struct api_text *t, const char *before, struct slice raw)
{
    api_text_str(t, before);
    if (raw.ptr != NULL) api_text_add(t, raw);
    else api_text_str(t, "null");
}

static void write_purge(struct api_text *t, const struct want *w)
{
    static const char *const modes[] = {
        [WANT_PURGE_ALL] = "all", [WANT_PURGE_SERIAL] = "before_serial",
        [WANT_PURGE_TIME] = "before_time_ms",
    };
    api_text_str(t, ",");
    want_write_text(t, "mode", slice_str(modes[w->mode]));
    api_text_str(t, ",");
    want_write_null(t, "before_serial", w->mode == WANT_PURGE_SERIAL, w->before);
    api_text_str(t, ",");
    want_write_null(t, "before_time_ms", w->mode == WANT_PURGE_TIME, w->before);
}

/* What a reset or purge answers before its "stream". */
static void write_done(struct api_text *t, const struct stream *st, const struct want *w)
{
    bool purge = w->kind == WANT_HISTORY_PURGE;
    api_text_str(t, purge ? "{\"ok\":true,\"operation\":\"purge\","
                          : "{\"ok\":true,\"operation\":\"reset\",");
    want_write_text(t, "channel", w->channel);
    if (purge) write_purge(t, w);
    add_raw(t, ",\"reason\":", w->reason);
    add_raw(t, ",\"requested_by\":", w->requested_by);
    if (!purge) {
        api_text_str(t, ",");
        want_write_text(t, "previous_stream_id",
                        (w->healed & 1u << st->what) != 0 ? slice_of(NULL, 0)
                                                          : slice_str(w->previous_id));
        api_text_str(t, ",");
        want_write_text(t, "new_stream_id", slice_str(st->history_id));
    }
    api_text_str(t, ",");
    want_write_null(t, is_presence(w) ? "purged_events" : "purged_messages", true,
                    w->purged_count);
    api_text_str(t, ",");
    want_write_null(t, "purged_bytes", true, w->purged_bytes);
}

static void answer(struct shard *sh, struct stream *st, struct want *w,
                   const struct store_head *head)
{
    struct api_text t = {.heap = sh->heap};
    if (w->kind == WANT_HISTORY_STATE || w->kind == WANT_PRESENCE_STATE) {
        api_text_str(&t, "{");
        want_write_text(&t, "channel", w->channel);
    } else {
        write_done(&t, st, w);
    }
    api_text_str(&t, ",\"stream\":");
    want_write_stream(sh, &t, st, head);
    api_text_str(&t, "}");
    want_answer(sh, w, &t);
}

/* ---- the steps ---- */

static void read_after(struct shard *sh, struct stream *st, struct want *w)
{
    struct store_read *r = want_rows(sh, st, w, on_after, 1, true);
    if (r == NULL) return;
    r->bytes_max = RECORD_BYTES_MAX;
    stream_read_post(sh, st, r);
}

static void on_after(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct want *w = ctx;
    if (r->status != STORE_READ_OK) {
        want_read_failed(sh, w, r);
    } else if (r->head.history_epoch != st->history_epoch) {
        read_after(sh, st, w);           /* another reset meanwhile */
    } else {
        if (w->kind == WANT_HISTORY_PURGE && w->purged_count > 0) {
            w->purged_bytes -= u64_min(w->purged_bytes, r->head.rows_bytes);
        }
        answer(sh, st, w, &r->head);
    }
    stream_read_end(sh, r);
}

static void on_committed(struct shard *sh, struct stream *st, void *ctx, const struct record *r,
                         bool committed)
{
    struct want *w = ctx;
    (void)r;
    if (committed && w->kind == WANT_PRESENCE_RESET) {
        presence_log_was_reset(sh, st->home->app, home_name(st->home), w->lost_mark);
    }
    if (committed) read_after(sh, st, w);
    else want_busy(sh, w, "History cannot be written at the moment");
}

static void append(struct shard *sh, struct stream *st, struct want *w, struct record r)
{
    bool presence = is_presence(w);
    if (presence) w->lost_mark = presence_log_newest(sh);
    if ((presence && !presence_log_may_reset(sh, st->home->app, home_name(st->home))) ||
        !stream_append(sh, st, &r, on_committed, w)) {
        want_busy(sh, w, "History cannot be written at the moment");
    } else if (presence) {
        presence_log_again(sh, st->home);
    }
}

/* Messages outlive a reset (messages-and-history 7), but for those that cannot be read: what could
 * not be replayed after it would not be healed. */
static void reset(struct shard *sh, struct stream *st, struct want *w,
                  const struct store_head *head)
{
    uint64_t seen = head->history_next > 0 ? head->history_next - 1 : 0;
    memcpy(w->previous_id, st->history_id, sizeof(w->previous_id));
    w->purged_count = head->rows_count + st->next.history - u64_min(seen, st->next.history);
    w->purged_bytes = head->rows_bytes;
    bool ends = st->what != STREAM_MAIN || !st->versioned || st->degraded;
    append(sh, st, w, (struct record){.kind = RECORD_RESET, .flags = ends ? RECORD_ENDS : 0});
}

static void purge(struct shard *sh, struct stream *st, struct want *w, const struct store_read *r)
{
    struct want_walk walk = want_walk_begin(r);
    struct record newest;
    bool found = r->records_count > 0 && want_walk_next(&walk, &newest);
    if (w->mode == WANT_PURGE_SERIAL && w->before == 0) found = false;
    if (w->mode == WANT_PURGE_TIME && w->before == 0) found = false;
    if (!found) {
        answer(sh, st, w, &r->head);
        return;
    }
    w->purged_count = newest.history - r->head.rows_first + 1;
    w->purged_bytes = r->head.rows_bytes;
    append(sh, st, w, (struct record){.kind = RECORD_PURGE, .message = newest.message});
}

static void on_before(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct want *w = ctx;
    struct store_head head = r->head;
    bool purging = w->kind == WANT_HISTORY_PURGE;
    bool damaged = r->status == STORE_READ_IO && !purging;
    if (damaged) {                       /* nothing is known but the stream itself */
        stream_degrade(sh, st, true);
        head = (struct store_head){
            .history_next = st->now.history + 1, .history_epoch = st->history_epoch,
        };
    }
    if (r->status != STORE_READ_OK && !damaged) want_read_failed(sh, w, r);
    else if (head.history_epoch != st->history_epoch) want_reset_on_want(sh, st, w);
    else if (purging) purge(sh, st, w, r);
    else if (w->kind == WANT_HISTORY_RESET || w->kind == WANT_PRESENCE_RESET) {
        reset(sh, st, w, &head);
    } else {
        answer(sh, st, w, &head);
    }
    stream_read_end(sh, r);
}

void want_reset_on_want(struct shard *sh, struct stream *st, struct want *w)
{
    struct store_read *r = want_rows(sh, st, w, on_before, 1, true);
    if (r == NULL) return;
    r->bytes_max = RECORD_BYTES_MAX;
    if (w->kind != WANT_HISTORY_PURGE) r->rows_upto = 0;     /* no row is needed, none is read */
    if (w->kind == WANT_HISTORY_PURGE && w->mode == WANT_PURGE_SERIAL) {
        r->rows_upto = w->before == 0 ? 0 : w->before - 1;
    }
    if (w->kind == WANT_HISTORY_PURGE && w->mode == WANT_PURGE_TIME) {
        r->time_upto_ms = w->before == 0 ? 0 : w->before - 1;
    }
    stream_read_post(sh, st, r);
}
