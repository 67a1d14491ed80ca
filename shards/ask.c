/* The requesting side: questions to the homes of quotas, windows and keys, and their answers. */
#include "shards/ask_parts.h"

#include <arpa/inet.h>

static uint32_t bit_of(enum ask_question q)
{
    switch (q) {
    case ASK_NODE_QUOTA: return OP_QUOTA_NODE;
    case ASK_APP_QUOTA: return OP_QUOTA_APP;
    case ASK_API_RATE:
    case ASK_WS_RATE: return OP_RATE;
    case ASK_BACKEND_RATE: return OP_BACKEND;
    case ASK_READ_RATE: return OP_READ;
    case ASK_CLAIM: return OP_CLAIM;
    case ASK_CLAIM_STORE:
    case ASK_ALIVE:
    case ASK_ACTOR:
    case ASK_USER_END: return 0;
    }
    ASSERT(!"unknown question");
    return 0;
}

static err_t post(struct shard *sh, struct op *op, uint16_t to, enum ask_question q, uint64_t arg1,
                  uint64_t arg2, uint64_t arg3, uint64_t arg4)
{
    struct letter l = {.kind = MAIL_ASK, .payload = op, .arg = {q, arg1, arg2, arg3, arg4}};
    if (shard_ask(sh, to, &l) != OK) return ERR_FULL;
    op->asking = q;
    op->refused = 0;
    op->waiting++;
    return OK;
}

static uint16_t quota_home(const struct shard *sh, enum ask_question q, uint32_t app)
{
    return q == ASK_NODE_QUOTA ? 0 : shard_home(sh, app, slice_str(""));
}

err_t ask_quota(struct shard *sh, struct op *op, enum ask_question q)
{
    return post(sh, op, quota_home(sh, q, op->app), q, op->app, 0, 0, 0);
}

void ask_quota_back(struct shard *sh, enum ask_question q, uint32_t app)
{
    struct letter l = {.kind = MAIL_ASK_DONE, .arg = {q, app}};
    shard_answer(sh, quota_home(sh, q, app), &l);
}

err_t ask_app_rate(struct shard *sh, struct op *op, enum ask_question q, uint32_t weight)
{
    return post(sh, op, shard_home(sh, op->app, slice_str("")), q, op->app, weight, 0, 0);
}

bool ask_address_limited(const struct shard *sh, enum ask_question q)
{
    const struct conf *conf = sh->conf;
    const struct conf_rate *rate = q == ASK_API_RATE ? &conf->rate_api : &conf->rate_websocket;
    return conf->rate_limiter_enabled && rate->max_requests > 0;
}

err_t ask_address(struct shard *sh, struct op *op, enum ask_question q,
                  const struct ring_addr *addr)
{
    uint32_t limiter = q == ASK_API_RATE ? SERIES_LIMITER_API : SERIES_LIMITER_WEBSOCKET;
    uint32_t slot = hash_slot(slice_of(addr->ip, sizeof(addr->ip)), slice_str(""));
    uint64_t half[2];
    memcpy(half, addr->ip, sizeof(half));
    metric_add(sh->metrics, METRIC_RATE_LIMIT_CHECKS_TOTAL_GLOBAL, 0, limiter, 1);
    return post(sh, op, (uint16_t)hash_slot_shard(slot, sh->server->shards_count), q, half[0],
                half[1], 0, 0);
}

err_t ask_claim(struct shard *sh, struct op *op, uint32_t scope, struct slice key)
{
    ASSERT(op->claim.entry == NULL && op->stored == NULL && key.bytes > 0);
    if (op->key != NULL) heap_free(sh->heap, op->key, op->key_bytes);
    op->key = heap_alloc(sh->heap, key.bytes);
    if (op->key == NULL) return ERR_FULL;
    memcpy(op->key, key.ptr, key.bytes);
    op->key_bytes = key.bytes;
    return post(sh, op, shard_home(sh, op->app, key), ASK_CLAIM, op->app, scope,
                (uintptr_t)op->key, key.bytes);
}

static void claim_done(struct shard *sh, struct op_claim *claim, struct frame *body,
                       uint32_t flags)
{
    struct letter l = {
        .kind = MAIL_ASK_DONE, .flags = flags,
        .arg = {ASK_CLAIM, (uintptr_t)claim->entry, 0},
    };
    ASSERT(claim->entry != NULL);
    if (body != NULL) l.arg[2] = (uintptr_t)frame_lend(body);
    shard_answer(sh, claim->shard, &l);
    claim->entry = NULL;
}

void ask_claim_end(struct shard *sh, struct op_claim *claim, struct frame *body)
{
    claim_done(sh, claim, body, 0);
}

void ask_claim_end_lost(struct shard *sh, struct op_claim *claim)
{
    claim_done(sh, claim, NULL, ASK_DONE_LOST);
}

void ask_claim_store(struct shard *sh, struct op *op, struct op_claim *claim, struct frame *body)
{
    struct letter l = {
        .kind = MAIL_ASK, .payload = op,
        .arg = {ASK_CLAIM_STORE, (uintptr_t)claim->entry, (uintptr_t)frame_lend(body)},
    };
    ASSERT(claim->entry != NULL);
    shard_answer(sh, claim->shard, &l);
    claim->entry = NULL;
    op->asking = ASK_CLAIM_STORE;
    op->refused = 0;
    op->waiting++;
}

void ask_print(struct op *op, const struct slice *parts, uint32_t parts_count)
{
    uint64_t hash[2];
    hash_parts(parts, parts_count, hash);
    hash[0] |= hash[0] == 0 && hash[1] == 0;     /* zero means none */
    memcpy(op->print, hash, sizeof(op->print));
}

err_t ask_alive(struct shard *sh, struct op *op)
{
    for (uint16_t to = 0; to < sh->server->shards_count; to++) {
        if (post(sh, op, to, ASK_ALIVE, 0, 0, 0, 0) != OK) return ERR_FULL;
    }
    return OK;
}

err_t ask_actor(struct shard *sh, struct op *op, uint16_t to, struct actor *who)
{
    return post(sh, op, to, ASK_ACTOR, (uintptr_t)who, 0, 0, 0);
}

void ask_on_asked(struct shard *sh, const struct letter *l)
{
    struct op *op = l->payload;
    uint32_t bit = bit_of((enum ask_question)op->asking);
    memcpy(op->verdict, l->arg, sizeof(op->verdict));
    switch ((enum ask_verdict)l->arg[0]) {
    case ASK_YES:
        op->passed |= bit;
        if (op->asking == ASK_CLAIM) {
            op->claim.entry = (void *)(uintptr_t)l->arg[1];
            op->claim.shard = l->from_shard;
        }
        break;
    case ASK_NO:
        op->refused = bit;
        if (op->asking == ASK_API_RATE || op->asking == ASK_WS_RATE) {
            metric_add(sh->metrics, METRIC_RATE_LIMIT_TRIGGERED_TOTAL_GLOBAL, 0,
                       op->asking == ASK_API_RATE ? SERIES_LIMITER_API : SERIES_LIMITER_WEBSOCKET,
                       1);
        }
        break;
    case ASK_STORED:
        op->refused = bit;
        if (l->arg[1] != 0) {
            op->stored = frame_borrow(sh, (struct frame *)(uintptr_t)l->arg[1], l->from_shard);
        }
        metric_add(sh->metrics, METRIC_IDEMPOTENCY_DUPLICATES_TOTAL, op->app, 0, 1);
        break;
    case ASK_BUSY:
    case ASK_TABLE_FULL:
    case ASK_DIFFERS:
        op->refused = bit;
        break;
    }
    op_answered(sh, op);
}

/* ---- whose window ---- */

static bool address_parse(struct slice text, struct ring_addr *out)
{
    char copy[INET6_ADDRSTRLEN];
    if (text.bytes == 0 || text.bytes >= sizeof(copy)) return false;
    memcpy(copy, text.ptr, text.bytes);
    copy[text.bytes] = '\0';
    if (inet_pton(AF_INET6, copy, out->ip) == 1) return true;
    memset(out->ip, 0, 10);
    out->ip[10] = out->ip[11] = 0xff;
    return inet_pton(AF_INET, copy, out->ip + 12) == 1;
}

/* The last entry of a comma-separated list, taken off its end. */
static struct slice list_pop(struct slice *list)
{
    uint32_t at = list->bytes;
    while (at > 0 && list->ptr[at - 1] != ',') at--;
    struct slice entry = slice_skip(*list, at);
    list->bytes = at > 0 ? at - 1 : 0;
    while (entry.bytes > 0 && (entry.ptr[0] == ' ' || entry.ptr[0] == '\t')) {
        entry = slice_skip(entry, 1);
    }
    while (entry.bytes > 0 && (entry.ptr[entry.bytes - 1] == ' ' ||
                               entry.ptr[entry.bytes - 1] == '\t')) {
        entry.bytes--;
    }
    return entry;
}

static bool is_forwarded(struct slice name)
{
    static const char text[] = "x-forwarded-for";
    if (name.bytes != sizeof(text) - 1) return false;
    for (uint32_t i = 0; i < name.bytes; i++) {
        if ((name.ptr[i] | 0x20) != text[i] && name.ptr[i] != text[i]) return false;
    }
    return true;
}

/* Several header lines are one list, in their order (RFC 9110 5.3). */
struct ring_addr ask_client(const struct conn *c, const struct http_request *r,
                            uint32_t trust_hops)
{
    struct ring_addr out;
    uint32_t left = trust_hops;
    for (uint32_t i = r->headers_count; i > 0 && left > 0; i--) {
        struct slice list = r->headers[i - 1].value;
        if (!is_forwarded(r->headers[i - 1].name)) continue;
        while (list.bytes > 0 && left > 0) {
            struct slice entry = list_pop(&list);
            if (--left == 0 && address_parse(entry, &out)) return out;
        }
    }
    return c->peer;
}
