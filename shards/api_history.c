/* GET .../history, its state, POST reset and purge; the same of .../presence/history, and its
 * snapshot. */
#include "shards/api_want.h"

#include <stdio.h>

static bool is_presence(enum api_route route)
{
    return route >= API_PRESENCE_HISTORY && route <= API_PRESENCE_SNAPSHOT;
}

static bool refuse(struct api_call *call, const char *text)
{
    api_refuse_text(call, 400, "invalid_input", text);
    return false;
}

/* ---- what all have in common ---- */

static bool check_channel(struct api_call *call, struct pusher_channel *kind)
{
    struct conf_policy policy;
    bool presence = is_presence(call->route);
    if (!api_want_channel(call, kind, &policy)) return false;
    if (presence && kind->kind != PUSHER_PRESENCE) {
        return refuse(call, "Only presence channels support this endpoint");
    }
    return presence ? api_want_enabled(call, policy.presence_history,
                                       "Presence history is disabled by policy")
                    : api_want_enabled(call, policy.history,
                                       "Durable history is disabled by policy");
}

/* ---- pages ---- */

/* Words that mean newest_first and oldest_first, in any case. */
static bool same_word(struct slice given, const char *word)
{
    uint32_t i = 0;
    for (; i < given.bytes && word[i] != '\0'; i++) {
        uint8_t c = given.ptr[i];
        if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != (uint8_t)word[i]) return false;
    }
    return i == given.bytes && word[i] == '\0';
}

static bool check_direction(struct api_call *call, struct slice given, bool *newest_first)
{
    static const char *const newest[] = {"newest_first", "backwards", "reverse"};
    static const char *const oldest[] = {"oldest_first", "forwards", "forward"};
    char text[200];
    *newest_first = true;
    if (given.ptr == NULL) return true;
    for (uint32_t i = 0; i < 3; i++) {
        if (same_word(given, newest[i])) return true;
        if (!same_word(given, oldest[i])) continue;
        *newest_first = false;
        return true;
    }
    snprintf(text, sizeof(text), "Invalid direction '%.*s'. Accepted values: newest_first, "
             "oldest_first, backwards, forwards", (int)u32_min(given.bytes, 80),
             (const char *)given.ptr);
    return refuse(call, text);
}

/* Numbers that are none are refused before anything else is looked at. */
static bool read_page(struct api_call *call, struct want_page *p)
{
    bool has;
    uint64_t limit;
    return api_want_u64(call, "limit", NULL, &has, &limit) &&
           api_want_u64(call, "start_serial", NULL, &p->has_start, &p->start_serial) &&
           api_want_u64(call, "end_serial", NULL, &p->has_end, &p->end_serial) &&
           api_want_i64(call, "start_time_ms", "start", &p->has_time_from, &p->time_from_ms) &&
           api_want_i64(call, "end_time_ms", "end", &p->has_time_upto, &p->time_upto_ms);
}

static bool check_page(struct api_call *call, struct want_page *p)
{
    const struct conf *conf = call->sh->conf;
    bool presence = is_presence(call->route);
    uint32_t max = presence ? conf->presence_history_max_page_size : conf->history_max_page_size;
    if (!api_want_limit(call, max, presence ? "Presence history limit" : "History limit",
                        &p->limit) ||
        !check_direction(call, sign_query_get(call->query, "direction"), &p->newest_first)) {
        return false;
    }
    if (p->has_start && p->has_end && p->start_serial > p->end_serial) {
        return refuse(call, "start_serial must be less than or equal to end_serial");
    }
    if (p->has_time_from && p->has_time_upto && p->time_from_ms > p->time_upto_ms) {
        return refuse(call, "start_time_ms must be less than or equal to end_time_ms");
    }
    p->cursor = sign_query_get(call->query, "cursor");
    return true;
}

static void page(struct api_call *call)
{
    struct want_page p = {0};
    struct pusher_channel kind;
    if (!read_page(call, &p) || !check_channel(call, &kind) || !check_page(call, &p)) return;
    struct want *w = api_want_make(call, is_presence(call->route) ? WANT_PRESENCE_HISTORY
                                                                  : WANT_HISTORY,
                                   &kind, p.cursor.bytes);
    if (w == NULL) return;
    w->page = p;
    w->page.cursor = want_text(w, p.cursor);
    want_run(call->sh, call->op);
}

static void state(struct api_call *call)
{
    struct pusher_channel kind;
    if (!check_channel(call, &kind)) return;
    struct want *w = api_want_make(call, is_presence(call->route) ? WANT_PRESENCE_STATE
                                                                  : WANT_HISTORY_STATE,
                                   &kind, 0);
    if (w != NULL) want_run(call->sh, call->op);
}

static void snapshot(struct api_call *call)
{
    struct want_page p = {0};
    struct pusher_channel kind;
    if (!api_want_i64(call, "at_time_ms", "at", &p.has_at_time, &p.at_time_ms) ||
        !api_want_u64(call, "at_serial", NULL, &p.has_at_serial, &p.at_serial) ||
        !check_channel(call, &kind)) {
        return;
    }
    struct want *w = api_want_make(call, WANT_PRESENCE_SNAPSHOT, &kind, 0);
    if (w == NULL) return;
    w->page = p;
    want_run(call->sh, call->op);
}

/* ---- reset and purge ---- */

struct order {
    struct json_value channel, operation, reason, requested_by, mode, before_serial, before_time;
    enum want_purge   purge;
    uint64_t          before;
};

static bool shape(struct api_call *call, struct order *o, bool purge)
{
    struct json_value unused[3];
    const struct json_field fields[] = {
        {"confirm_channel", &o->channel}, {"confirm_operation", &o->operation},
        {"reason", &o->reason}, {"requested_by", &o->requested_by},
        {"mode", purge ? &o->mode : &unused[0]},
        {"before_serial", purge ? &o->before_serial : &unused[1]},
        {"before_time_ms", purge ? &o->before_time : &unused[2]},
    };
    uint64_t ignored;
    if (!api_want_body(call, fields, sizeof(fields) / sizeof(fields[0])) ||
        !api_want_type(call, &o->channel, JSON_STRING, true, "confirm_channel is a string") ||
        !api_want_type(call, &o->operation, JSON_STRING, true, "confirm_operation is a string") ||
        !api_want_type(call, &o->reason, JSON_STRING, true, "reason is a string") ||
        !api_want_type(call, &o->requested_by, JSON_STRING, false, "requested_by is a string")) {
        return false;
    }
    if (!purge) return true;
    if (json_text_is(&o->mode, "all")) o->purge = WANT_PURGE_ALL;
    else if (json_text_is(&o->mode, "before_serial")) o->purge = WANT_PURGE_SERIAL;
    else if (json_text_is(&o->mode, "before_time_ms")) o->purge = WANT_PURGE_TIME;
    else {
        api_wrong_shape(call, "mode is all, before_serial or before_time_ms");
        return false;
    }
    if (!api_want_type(call, &o->before_serial, JSON_NUMBER, false, "before_serial is a number") ||
        !api_want_type(call, &o->before_time, JSON_NUMBER, false, "before_time_ms is a number")) {
        return false;
    }
    if ((o->before_serial.type == JSON_NUMBER && !json_u64(&o->before_serial, &ignored)) ||
        (o->before_time.type == JSON_NUMBER && !json_u64(&o->before_time, &ignored))) {
        api_wrong_shape(call, "bounds are integers that are not negative");
        return false;
    }
    return true;
}

static bool is_blank(const struct json_value *text)
{
    for (uint32_t i = 1; i + 1 < text->raw.bytes; i++) {
        uint8_t c = text->raw.ptr[i];
        if (c == '\\' && i + 2 < text->raw.bytes) {
            c = text->raw.ptr[++i];      /* \t, \n, \r, \f are blank as well */
            if (c == 't' || c == 'n' || c == 'r' || c == 'f') continue;
            return false;
        }
        if (c != ' ') return false;
    }
    return true;
}

static bool is_channel(const struct api_call *call, const struct json_value *v)
{
    struct heap *heap = call->sh->heap;
    struct slice plain;
    if (v->text_bytes != call->name.bytes) return false;
    if (json_plain(v, &plain)) return slice_equal(plain, call->name);
    uint8_t *text = heap_alloc(heap, u32_max(v->text_bytes, 1));
    if (text == NULL) return false;
    json_decode(v, text);
    bool same = slice_equal(slice_of(text, v->text_bytes), call->name);
    heap_free(heap, text, u32_max(v->text_bytes, 1));
    return same;
}

static bool check_order(struct api_call *call, struct order *o, bool purge)
{
    bool serial = o->before_serial.type == JSON_NUMBER, time = o->before_time.type == JSON_NUMBER;
    if (!is_channel(call, &o->channel)) {
        return refuse(call, "confirm_channel must exactly match the channel path");
    }
    if (!json_text_is(&o->operation, purge ? "purge" : "reset")) {
        return refuse(call, purge ? "confirm_operation must be 'purge'"
                                  : "confirm_operation must be 'reset'");
    }
    if (is_blank(&o->reason)) return refuse(call, "reason must not be empty");
    if (!purge) return true;
    if (o->purge == WANT_PURGE_ALL && (serial || time)) {
        return refuse(call, "Purge mode 'all' does not accept bounds");
    }
    if (o->purge == WANT_PURGE_SERIAL && (!serial || time)) {
        return refuse(call, "Purge mode 'before_serial' requires before_serial only");
    }
    if (o->purge == WANT_PURGE_TIME && (serial || !time)) {
        return refuse(call, "Purge mode 'before_time_ms' requires before_time_ms only");
    }
    if (serial) json_u64(&o->before_serial, &o->before);
    if (time) json_u64(&o->before_time, &o->before);
    return true;
}

static void change(struct api_call *call)
{
    bool purge = call->route == API_HISTORY_PURGE;
    struct order o = {0};
    struct pusher_channel kind;
    if (!shape(call, &o, purge) || !check_channel(call, &kind) || !check_order(call, &o, purge)) {
        return;
    }
    struct want *w = api_want_make(call, purge ? WANT_HISTORY_PURGE
                                         : is_presence(call->route) ? WANT_PRESENCE_RESET
                                                                    : WANT_HISTORY_RESET,
                                   &kind, o.reason.raw.bytes + o.requested_by.raw.bytes);
    if (w == NULL) return;
    w->mode = (uint8_t)o.purge;
    w->before = o.before;
    w->reason = want_text(w, o.reason.raw);
    if (o.requested_by.type == JSON_STRING) w->requested_by = want_text(w, o.requested_by.raw);
    want_run(call->sh, call->op);
}

void api_history(struct api_call *call)
{
    switch (call->route) {
    case API_HISTORY:
    case API_PRESENCE_HISTORY: page(call); return;
    case API_HISTORY_STATE:
    case API_PRESENCE_STATE: state(call); return;
    case API_PRESENCE_SNAPSHOT: snapshot(call); return;
    default: change(call); return;
    }
}
