/* GET .../channels, .../channels/{name}, .../channels/{name}/users: the requesting side. Homes
 * answer with pieces of JSON text, which are put together here and then sent home. */
#include "shards/api_parts.h"

#include "proto/pusher.h"

struct state_work {
    struct api_query  query;             /* lent to homes */
    struct api_piece *first, *last;      /* lent by homes */
    uint64_t          bytes;             /* of all pieces */
    uint32_t          worst;             /* enum api_listed */
    uint32_t          name_bytes;
    uint8_t           name[];
};

static void work_free(struct shard *sh, struct state_work *w)
{
    while (w->first != NULL) {
        struct api_piece *p = w->first;
        w->first = p->next;
        struct letter l = {.kind = MAIL_LIST_HOME, .payload = p};
        shard_answer(sh, p->shard, &l);
    }
    heap_free(sh->heap, w, (uint32_t)sizeof(*w) + w->name_bytes);
}

/* ---- the answer ---- */

static void end_refused(struct shard *sh, struct op *op, uint16_t status, const char *code,
                        const char *text)
{
    char body[REPLY_ERROR_BYTES];
    struct reply r = {
        .status = status, .content_type = "application/json",
        .retry_after_s = status == 503 ? 1 : 0, .counted = true, .app = op->app,
        .body = slice_of(body, reply_error_write(body, status, code, slice_str(text))),
    };
    reply_op(sh, op, &r);
}

/* Entries end with a comma each; the last one is dropped. */
static void put_together(struct api_text *t, const struct state_work *w)
{
    bool list = w->query.route != API_CHANNEL;
    if (list) api_text_str(t, w->query.route == API_USERS ? "{\"users\":[" : "{\"channels\":{");
    for (const struct api_piece *p = w->first; p != NULL; p = p->next) {
        api_text_add(t, slice_of(p->data, p->bytes));
    }
    if (!list) return;
    if (w->bytes > 0 && !t->failed) t->bytes--;
    api_text_str(t, w->query.route == API_USERS ? "]}" : "}}");
}

static void finish(struct shard *sh, struct op *op)
{
    struct state_work *w = op->work;
    struct api_text t = {.heap = sh->heap};
    uint32_t worst = w->worst;
    if (worst == API_LISTED_LAST && op_conn(sh, op) != NULL) put_together(&t, w);
    work_free(sh, w);
    op->work = NULL;
    if (worst == API_LISTED_NOT_PRESENCE) {
        end_refused(sh, op, 400, "invalid_input",
                    "user_count is only available for presence channels. "
                    "Use filter_by_prefix=presence-");
    } else if (worst == API_LISTED_NO_MEMORY || t.failed) {
        end_refused(sh, op, 503, "backpressure", "Server is at its memory limit");
    } else {
        struct reply r = {
            .status = 200, .content_type = "application/json", .body = api_text_slice(&t),
            .counted = true, .app = op->app,
        };
        reply_op(sh, op, &r);
    }
    api_text_free(&t);
}

void api_on_listed(struct shard *sh, const struct letter *l)
{
    struct op *op = l->payload;
    struct state_work *w = op->work;
    struct api_piece *p = (void *)(uintptr_t)l->arg[0];
    if (p != NULL) {
        p->next = NULL;
        if (w->last == NULL) w->first = p;
        else w->last->next = p;
        w->last = p;
        w->bytes += p->bytes;
    }
    w->worst = u32_max(w->worst, (uint32_t)l->arg[1]);
    if (l->arg[1] != API_LISTED_MORE) op_answered(sh, op);
}

/* ---- the question ---- */

static struct state_work *work_make(struct api_call *call, uint32_t info, struct slice name)
{
    struct state_work *w = heap_zalloc(call->sh->heap, (uint32_t)sizeof(*w) + name.bytes);
    if (w == NULL) return NULL;
    w->name_bytes = name.bytes;
    if (name.bytes > 0) memcpy(w->name, name.ptr, name.bytes);
    w->query = (struct api_query){
        .route = call->route, .app = call->app, .info = info,
        .name = slice_of(w->name, name.bytes),
    };
    return w;
}

/* One letter to each of [first, end), or none. */
static bool ask_homes(struct shard *sh, struct op *op, struct state_work *w, uint32_t first,
                      uint32_t end)
{
    for (uint32_t to = first; to < end; to++) {
        if (mail_room(reactor_box(&sh->re, (uint16_t)to)) > 0) continue;
        metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_MAILBOX, 1);
        return false;
    }
    for (uint32_t to = first; to < end; to++) {
        struct letter l = {.kind = MAIL_LIST, .payload = op, .arg = {(uintptr_t)&w->query}};
        shard_answer(sh, (uint16_t)to, &l);
        op->waiting++;
    }
    return true;
}

/* True when the name may be asked about; else the request has been refused. */
static bool check_name(struct api_call *call, uint32_t info)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct pusher_channel kind;
    const struct conf_app *app = &call->sh->conf->apps[call->app];
    const char *text = NULL;
    if (!pusher_channel_parse(call->name, app->max_channel_name_length, &app->names, &kind,
                              error)) {
        text = error;
    } else if (kind.kind != PUSHER_PRESENCE && call->route == API_USERS) {
        text = "Only presence channels support this endpoint";
    } else if (kind.kind != PUSHER_PRESENCE && (info & API_INFO_USERS)) {
        text = "user_count is only available for presence channels";
    }
    if (text != NULL) api_refuse_text(call, 400, "invalid_input", text);
    return text == NULL;
}

void api_state(struct api_call *call)
{
    struct shard *sh = call->sh;
    uint32_t info = api_info_parse(sign_query_get(call->query, "info"));
    bool all = call->route == API_CHANNELS;
    struct slice name = all ? sign_query_get(call->query, "filter_by_prefix") : call->name;
    if (!all && !check_name(call, info)) return;
    uint32_t first = all ? 0 : shard_home(sh, call->app, name);
    uint32_t end = all ? sh->server->shards_count : first + 1;
    if (shard_pressed(sh)) {
        api_busy(call, "Server is at its memory limit");
        return;
    }
    struct op *op = api_op(call);
    if (op == NULL) return;
    struct state_work *w = work_make(call, info, name);
    if (w == NULL) {
        api_busy(call, "Server is at its memory limit");
        return;
    }
    op->next = finish;
    op->work = w;
    if (ask_homes(sh, op, w, first, end)) return;
    op->work = NULL;
    work_free(sh, w);
    api_busy(call, "Server is busy");
}
