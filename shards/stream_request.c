/* Finished request keys: stored on the lane of their slot before the answer leaves, read back at
 * the start together with the presence members that were left open. */
#include "shards/stream_parts.h"

#include <stdio.h>

#include "shards/ask_parts.h"
#include "shards/presence_log.h"

/* ---- the start ---- */

bool stream_requests_known(const struct shard *sh)
{
    return sh->streams->begun && sh->streams->active_reads == 0;
}

static void take_requests(struct shard *sh, const struct store_read *r)
{
    struct slice packed = slice_of(r->bytes, r->bytes_count);
    struct record record;
    uint32_t bytes;
    while (packed.bytes > 0 && record_peek(packed, &record, &bytes) == RECORD_OK) {
        packed = slice_skip(packed, bytes);
        if (record.kind == RECORD_REQUEST) ask_claim_load(sh, &record);
    }
}

static void on_active(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct stream_book *b = sh->streams;
    bool good = r->status == STORE_READ_OK || r->status == STORE_READ_NOT_FOUND;
    uint16_t lane = r->lane;
    ASSERT(st == NULL && b->active_reads > 0);
    if (r->unreadable > 0) {
        char count[12];
        snprintf(count, sizeof(count), "%u", r->unreadable);
        LOG(LOG_ERROR, "stored request keys or presence members cannot be read: they are forgotten",
            "values", count);
    }
    if (good) {
        take_requests(sh, r);
        presence_log_active(sh, r);
        b->active_reads--;
    } else {
        b->active_failed |= 1u << lane;  /* the tick asks again: unknown keys would be repeated */
    }
    stream_read_end(sh, r);
    if (b->active_reads == 0) ask_claims_open(sh);
}

static uint32_t slots_from(uint32_t part, uint32_t parts)
{
    return (part * HASH_SLOTS + parts - 1) / parts;
}

/* False at the heap's bound: the tick tries again. */
static bool ask_active(struct shard *sh, uint16_t lane)
{
    struct stream_book *b = sh->streams;
    struct store_read *r = stream_read_make(sh, NULL, STORE_ACTIVE, on_active, NULL);
    if (r == NULL) {
        b->active_failed |= 1u << lane;
        return false;
    }
    uint32_t ttl_s = 0;
    for (uint32_t i = 0; i < sh->conf->apps_count; i++) {
        ttl_s = u32_max(ttl_s, sh->conf->apps[i].idempotency_ttl_seconds);
    }
    r->lane = lane;
    r->receipt_age_ms = (uint64_t)ttl_s * 1000;
    r->slot_from = slots_from(sh->id, sh->server->shards_count);
    r->slot_upto = slots_from(sh->id + 1u, sh->server->shards_count);
    stream_read_post(sh, NULL, r);
    return true;
}

/* Lanes that hold some of the shard's slots. */
void stream_request_begin(struct shard *sh)
{
    struct stream_book *b = sh->streams;
    const struct store *store = sh->server->store;
    uint32_t lanes = store == NULL ? 0 : store_lanes(store);
    uint32_t from = slots_from(sh->id, sh->server->shards_count);
    uint32_t upto = slots_from(sh->id + 1u, sh->server->shards_count);
    b->begun = true;
    for (uint32_t lane = 0; lane < lanes; lane++) {
        if (slots_from(lane + 1, lanes) <= from || slots_from(lane, lanes) >= upto) continue;
        b->active_reads++;
        (void)ask_active(sh, (uint16_t)lane);
    }
    if (b->active_reads > 0) return;
    presence_log_active(sh, NULL);
    ask_claims_open(sh);
}

void stream_request_tick(struct shard *sh)
{
    ask_claims_expire(sh);
    uint32_t failed = sh->streams->active_failed;
    sh->streams->active_failed = 0;
    for (uint16_t lane = 0; failed != 0; lane++, failed >>= 1) {
        if ((failed & 1) != 0) (void)ask_active(sh, lane);
    }
}

/* ---- a finished key ---- */

bool stream_request_put(struct shard *sh, uint32_t app, struct record *r, stream_done done,
                        void *ctx)
{
    const struct store *store = sh->server->store;
    if (store == NULL || record_bytes(r) > STREAM_RECORD_BYTES_MAX) return false;
    uint32_t slot = hash_slot(sh->server->app_ids[app], r->op_id);
    r->time_ms = sh->re.wall_ms;
    struct stream_item item = {.done = done, .ctx = ctx};
    return stream_lane_put(sh, (uint16_t)store_lane_of(store, slot), r, &item);
}
