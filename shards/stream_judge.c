/* What becomes of a position: recovered from the ring, read from the lane, or failed and why. */
#include "shards/stream_parts.h"

#include <stdio.h>

static const char *const codes[] = {
    [SERIES_RECOVERY_STREAM_RESET] = "stream_reset",
    [SERIES_RECOVERY_POSITION_EXPIRED] = "position_expired",
    [SERIES_RECOVERY_CONTINUITY_UNVERIFIABLE] = "continuity_unverifiable",
    [SERIES_RECOVERY_PERSISTENCE_UNAVAILABLE] = "persistence_unavailable",
};

static void fail(struct shard *sh, struct stream_attach *job, enum series_recovery code,
                 const char *reason)
{
    struct attach *a = job->a;
    a->recovered = false;
    a->code = codes[code];
    a->reason = reason;
    memcpy(a->expected_id, a->stream_id, sizeof(a->expected_id));
    if (job->st != NULL) {
        struct stream *st = job->st;
        snprintf(a->current_id, sizeof(a->current_id), "%s", stream_id(st));
        a->newest = stream_serial(st, &st->now);
        if (a->oldest == 0) a->oldest = stream_ring_oldest(sh, st);
    }
    metric_add(sh->metrics, METRIC_HISTORY_RECOVERY_FAILURES_TOTAL, job->home->app, code, 1);
}

void stream_judge_fail(struct shard *sh, struct stream_attach *job, enum series_recovery code,
                       const char *reason)
{
    fail(sh, job, code, reason);
}

static void recovered(struct shard *sh, struct stream_attach *job, bool cold)
{
    job->a->recovered = true;
    job->a->cold = cold;
    job->hot = !cold;
    metric_add(sh->metrics, METRIC_HISTORY_RECOVERY_SUCCESS_TOTAL, job->home->app,
               cold ? SERIES_SOURCE_COLD : SERIES_SOURCE_HOT, 1);
}

/* The delivery serial at a serial of the wire: rows without versions stand one to one. */
uint64_t stream_delivery_of(const struct stream *st, uint64_t serial)
{
    return stream_by_history(st) ? st->now.delivery - (st->now.history - serial) : serial;
}

static bool ring_has(const struct shard *sh, const struct stream *st, uint64_t serial)
{
    uint64_t delivery = stream_delivery_of(st, serial);
    if (delivery > st->now.delivery || !stream_ring_covers(sh, st, delivery, false)) return false;
    if (delivery == st->now.delivery) return true;
    uint64_t first = stream_ring_at(st, 0)->delivery;
    return stream_ring_at(st, (uint32_t)(delivery + 1 - first))->serial == serial + 1;
}

/* How far back the ring may serve. A gate makes it longer than it is to be; what the lane would
 * give as well is not refused for that. */
static uint64_t window(const struct shard *sh, const struct stream *st)
{
    uint32_t most = st->policy->recovery_max;
    return st->history ? u32_max(most, sh->conf->history_cold_replay_max_messages) : most;
}

static const char *reset_reason(const struct stream *st)
{
    if (st->ring_count > 0 || !st->history) return "stream_id_mismatch";
    return stream_by_history(st) ? "durable_stream_id_mismatch" : "version_stream_id_mismatch";
}

/* True: it must be read from the lane. Otherwise the outcome is there. */
bool stream_judge(struct shard *sh, struct stream_attach *job)
{
    const struct stream *st = job->st;
    const struct attach *a = job->a;
    bool rows = st != NULL && stream_by_history(st);
    bool ring = st != NULL && ring_has(sh, st, a->serial);
    if (st == NULL || !st->policy->recovery) {
        fail(sh, job, SERIES_RECOVERY_POSITION_EXPIRED,
             "hot_replay_expired_and_durable_history_disabled");
    } else if (a->legacy || a->stream_id[0] == '\0') {
        fail(sh, job, SERIES_RECOVERY_CONTINUITY_UNVERIFIABLE,
             "legacy_serial_only_position_cannot_use_cold_recovery");
    } else if (strcmp(a->stream_id, stream_id(st)) != 0) {
        fail(sh, job, SERIES_RECOVERY_STREAM_RESET, reset_reason(st));
    } else if (a->serial > stream_serial(st, &st->now)) {
        fail(sh, job, SERIES_RECOVERY_CONTINUITY_UNVERIFIABLE,
             rows ? "position_ahead_of_durable_stream" : "position_ahead_of_version_stream");
    } else if (a->serial >= job->head) {
        recovered(sh, job, false);
    } else if (ring && job->head - a->serial <= window(sh, st)) {
        recovered(sh, job, false);
    } else if (!st->history) {
        fail(sh, job, SERIES_RECOVERY_POSITION_EXPIRED,
             ring ? "recovery_window_exceeded"
                  : "hot_replay_expired_and_durable_history_disabled");
    } else if (job->head - a->serial > sh->conf->history_cold_replay_max_messages) {
        fail(sh, job, SERIES_RECOVERY_POSITION_EXPIRED, "recovery_window_exceeded");
    } else if (st->degraded) {           /* also where this part could be read: until its reset */
        fail(sh, job, SERIES_RECOVERY_PERSISTENCE_UNAVAILABLE,
             rows ? "history_stream_degraded" : "version_store_state_unavailable");
    } else {
        return true;
    }
    return false;
}

/* Every version behind the position, up to the frozen head, without a hole. */
static bool is_contiguous(const struct stream_attach *job, const struct store_read *r, bool *whole)
{
    struct slice packed = slice_of(r->bytes, r->bytes_count);
    uint64_t next = job->a->serial + 1;
    bool rows = r->kind == STORE_ROWS;
    struct record record;
    uint32_t bytes;
    while (packed.bytes > 0 && record_peek(packed, &record, &bytes) == RECORD_OK) {
        uint64_t serial = rows ? record.history : record.delivery;
        packed = slice_skip(packed, bytes);
        if ((record.flags & (RECORD_FOLDED | RECORD_CONTEXT)) != 0 ||
            (!rows && record.delivery <= job->a->serial)) {
            continue;                    /* what a row has become; a context */
        }
        if (serial != next) return false;
        next++;
    }
    *whole = next == job->head + 1;
    return true;
}

void stream_judge_read(struct shard *sh, struct stream_attach *job, const struct store_read *r)
{
    bool rows = r->kind == STORE_ROWS, whole = false;
    uint64_t floor = rows ? r->head.rows_first : r->head.replay_floor;
    bool behind = rows && r->status == STORE_READ_OK && floor > job->a->serial + 1;
    if (r->status == STORE_READ_GONE || r->status == STORE_READ_NOT_FOUND || behind ||
        (rows && r->status == STORE_READ_OK && r->records_count == 0)) {
        bool empty = rows ? floor == 0 : floor == 0 || floor > job->head;
        job->a->oldest = empty ? 0 : floor;
        fail(sh, job, SERIES_RECOVERY_POSITION_EXPIRED,
             rows ? (empty ? "durable_history_empty_after_prior_writes"
                           : "retained_history_floor_is_ahead_of_requested_serial")
                  : (empty ? "version_replay_empty_after_prior_writes"
                           : "version_replay_floor_is_ahead_of_requested_serial"));
    } else if (r->status == STORE_READ_LARGE || (r->status == STORE_READ_OK && r->more)) {
        fail(sh, job, SERIES_RECOVERY_POSITION_EXPIRED, "recovery_window_exceeded");
    } else if (r->status != STORE_READ_OK) {
        if (r->status == STORE_READ_IO) stream_degrade(sh, job->st, true);
        fail(sh, job, SERIES_RECOVERY_PERSISTENCE_UNAVAILABLE,
             rows ? "durable_history_read_failed" : "version_store_replay_failed");
    } else if (!is_contiguous(job, r, &whole)) {
        fail(sh, job, SERIES_RECOVERY_CONTINUITY_UNVERIFIABLE,
             rows ? "durable_history_is_not_contiguous" : "version_replay_is_not_contiguous");
    } else if (!whole) {
        fail(sh, job, SERIES_RECOVERY_CONTINUITY_UNVERIFIABLE,
             rows ? "durable_history_ended_before_stream_head"
                  : "version_replay_ended_before_stream_head");
    } else {
        recovered(sh, job, true);
    }
}
