#include "shards/annotation.h"

#include <stdio.h>

struct client { uint64_t count; uint32_t bytes; uint8_t text[]; };

struct annotation_name {
    struct client **clients;             /* owned; sorted */
    uint32_t        clients_count, clients_room;
    uint64_t        counts, unidentified;/* MULTIPLE: of clients; of nobody in particular */
    uint32_t        bytes;
    uint8_t         text[];
};

enum { NAME_JSON_BYTES = 128 };          /* of one name's value in the JSON, without clients */

static struct slice client_text(const struct client *c) { return slice_of(c->text, c->bytes); }
static struct slice name_text(const struct annotation_name *n)
{
    return slice_of(n->text, n->bytes);
}

/* ---- types ---- */

static bool refuse(char error[PUSHER_ERROR_TEXT_BYTES], const char *text, struct slice more)
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "%s%.*s", text, (int)more.bytes,
             (const char *)more.ptr);
    return false;
}

static bool is_number(struct slice text)
{
    for (uint32_t i = 0; i < text.bytes; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') return false;
    }
    return text.bytes > 0;
}

bool annotation_type_parse(struct slice type, enum annotation_kind *out,
                           char error[PUSHER_ERROR_TEXT_BYTES])
{
    static const char *const kinds[] = {"total", "flag", "distinct", "unique", "multiple"};
    const struct slice none = slice_of("", 0);
    if (type.bytes > ANNOTATION_TYPE_BYTES_MAX) {
        return refuse(error, "annotation type must be at most 256 bytes", none);
    }
    for (uint32_t i = 0; i < type.bytes; i++) {
        if (type.ptr[i] == ' ' || (type.ptr[i] >= '\t' && type.ptr[i] <= '\r')) {
            return refuse(error, "annotation type must not contain whitespace", none);
        }
    }
    uint32_t colon = 0, dot = type.bytes;
    while (colon < type.bytes && type.ptr[colon] != ':') colon++;
    while (dot > 0 && type.ptr[dot - 1] != '.') dot--;
    if (colon == 0 || colon == type.bytes || dot < colon + 3) {
        return refuse(error, "annotation type must use namespace:summarizer.version", none);
    }
    struct slice word = slice_of(type.ptr + colon + 1, dot - colon - 2);
    struct slice version = slice_skip(type, dot);
    uint32_t kind = 0;
    while (kind < 5 && !slice_is(word, kinds[kind])) kind++;
    if (kind == 5) return refuse(error, "unsupported annotation summarizer: ", word);
    if (!slice_starts(version, "v") || !is_number(slice_skip(version, 1))) {
        return refuse(error, "invalid annotation summarizer version: ", version);
    }
    if (!slice_is(version, "v1")) {
        return refuse(error, "unsupported annotation summarizer version: ", slice_skip(version, 1));
    }
    *out = (enum annotation_kind)kind;
    return true;
}

/* ---- sorted lists ---- */

/* One more place in an array of pointers. */
static bool grow(struct heap *heap, void **list, uint32_t count, uint32_t *room)
{
    if (count < *room) return true;
    uint32_t more = *room == 0 ? 4 : *room * 2, each = (uint32_t)sizeof(void *);
    void *fresh = heap_alloc(heap, more * each);
    if (fresh == NULL) return false;
    if (count > 0) memcpy(fresh, *list, (size_t)count * each);
    heap_free(heap, *list, *room * each);
    *list = fresh;
    *room = more;
    return true;
}

static uint32_t client_at(const struct annotation_name *n, struct slice text, bool *found)
{
    uint32_t low = 0, high = n->clients_count;
    *found = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int d = slice_order(client_text(n->clients[middle]), text);
        if (d == 0) *found = true;
        if (d < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static uint32_t name_at(const struct annotation_summary *s, struct slice text, bool *found)
{
    uint32_t low = 0, high = s->names_count;
    *found = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int d = slice_order(name_text(s->names[middle]), text);
        if (d == 0) *found = true;
        if (d < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* What is counted in the summary's `bytes`: a block and its place in a list. */
static uint32_t name_bytes(struct slice text)
{
    return (uint32_t)(sizeof(struct annotation_name) + sizeof(void *)) + text.bytes;
}
static uint32_t client_bytes(struct slice text)
{
    return (uint32_t)(sizeof(struct client) + sizeof(void *)) + text.bytes;
}

uint64_t annotation_names_bytes(const struct annotation_summary *s, struct slice name)
{
    bool found = name.ptr == NULL;
    if (!found) (void)name_at(s, name, &found);
    return s->names_bytes + (found ? 0 : json_quote_bytes(name) + NAME_JSON_BYTES);
}

static void client_free(struct annotation_summary *s, struct client *c)
{
    s->clients_bytes -= json_quote_bytes(client_text(c));
    s->bytes -= client_bytes(client_text(c));
    heap_free(s->heap, c, (uint32_t)sizeof(*c) + c->bytes);
}

static void name_free(struct annotation_summary *s, struct annotation_name *n)
{
    for (uint32_t i = 0; i < n->clients_count; i++) client_free(s, n->clients[i]);
    s->names_bytes -= json_quote_bytes(name_text(n)) + NAME_JSON_BYTES;
    s->bytes -= name_bytes(name_text(n));
    heap_free(s->heap, n->clients, n->clients_room * (uint32_t)sizeof(void *));
    heap_free(s->heap, n, (uint32_t)sizeof(*n) + n->bytes);
}

static void name_drop(struct annotation_summary *s, uint32_t at)
{
    name_free(s, s->names[at]);
    s->names_count--;
    memmove(s->names + at, s->names + at + 1, (s->names_count - at) * sizeof(*s->names));
}

/* Found or made; NULL at the heap's bound. */
static struct annotation_name *name_get(struct annotation_summary *s, struct slice text)
{
    bool found;
    uint32_t at = name_at(s, text, &found);
    if (found) return s->names[at];
    if (!grow(s->heap, (void **)&s->names, s->names_count, &s->names_room)) return NULL;
    struct annotation_name *n = heap_zalloc(s->heap, (uint32_t)sizeof(*n) + text.bytes);
    if (n == NULL) return NULL;
    n->bytes = text.bytes;
    if (text.bytes > 0) memcpy(n->text, text.ptr, text.bytes);
    memmove(s->names + at + 1, s->names + at, (s->names_count - at) * sizeof(*s->names));
    s->names[at] = n;
    s->names_count++;
    s->names_bytes += json_quote_bytes(text) + NAME_JSON_BYTES;
    s->bytes += name_bytes(text);
    return n;
}

static bool client_add(struct annotation_summary *s, struct annotation_name *n, struct slice text,
                       uint64_t count)
{
    bool found;
    uint32_t at = client_at(n, text, &found);
    if (!found) {
        if (!grow(s->heap, (void **)&n->clients, n->clients_count, &n->clients_room)) return false;
        struct client *c = heap_zalloc(s->heap, (uint32_t)sizeof(*c) + text.bytes);
        if (c == NULL) return false;
        c->bytes = text.bytes;
        if (text.bytes > 0) memcpy(c->text, text.ptr, text.bytes);
        memmove(n->clients + at + 1, n->clients + at,
                (n->clients_count - at) * sizeof(*n->clients));
        n->clients[at] = c;
        n->clients_count++;
        s->clients_bytes += json_quote_bytes(text);
        s->bytes += client_bytes(text);
    }
    n->clients[at]->count += count;
    n->counts += count;
    return true;
}

static void client_drop(struct annotation_summary *s, struct annotation_name *n, struct slice text)
{
    bool found;
    uint32_t at = client_at(n, text, &found);
    if (!found) return;
    struct client *c = n->clients[at];
    n->counts -= c->count;
    n->clients_count--;
    memmove(n->clients + at, n->clients + at + 1, (n->clients_count - at) * sizeof(*n->clients));
    client_free(s, c);
}

/* ---- events ---- */

/* Take the client out of one name, or (all) of whichever has him; empty names go with him unless
 * they are kept. */
static void remove_client(struct annotation_summary *s, const struct annotation_event *e, bool all,
                          bool keep_names)
{
    for (uint32_t i = 0; i < s->names_count;) {
        struct annotation_name *n = s->names[i];
        if (all || slice_equal(name_text(n), e->name)) client_drop(s, n, e->client);
        if (n->clients_count == 0 && !keep_names) name_drop(s, i);
        else i++;
    }
}

/* The new place is made before the old one is left: without memory nothing has happened. */
static err_t move_client(struct annotation_summary *s, const struct annotation_event *e)
{
    struct annotation_name *to = name_get(s, e->name);
    if (to == NULL || !client_add(s, to, e->client, 0)) return ERR_MEMORY;
    for (uint32_t i = 0; i < s->names_count;) {
        struct annotation_name *n = s->names[i];
        if (n != to) client_drop(s, n, e->client);
        if (n->clients_count == 0) name_drop(s, i);
        else i++;
    }
    return OK;
}

static err_t apply_multiple(struct annotation_summary *s, const struct annotation_event *e)
{
    if (e->removed) {
        if (e->client.ptr != NULL) remove_client(s, e, false, true);
        return OK;
    }
    struct annotation_name *n = name_get(s, e->name);
    if (n == NULL) return ERR_MEMORY;
    if (e->client.ptr == NULL) n->unidentified += e->count;
    else if (!client_add(s, n, e->client, e->count)) return ERR_MEMORY;
    return OK;
}

static err_t add_client(struct annotation_summary *s, struct slice name, struct slice client)
{
    struct annotation_name *n = name_get(s, name);
    return n != NULL && client_add(s, n, client, 0) ? OK : ERR_MEMORY;
}

err_t annotation_apply(struct annotation_summary *s, const struct annotation_event *e)
{
    switch (s->kind) {
    case ANNOTATION_TOTAL:
        if (!e->removed) s->total++;
        else if (s->total > 0) s->total--;
        return OK;
    case ANNOTATION_FLAG:
        if (!e->removed) return add_client(s, slice_of("", 0), e->client);
        remove_client(s, e, true, true);
        return OK;
    case ANNOTATION_DISTINCT:
        if (!e->removed) return add_client(s, e->name, e->client);
        remove_client(s, e, false, false);
        return OK;
    case ANNOTATION_UNIQUE:
        if (!e->removed) return move_client(s, e);
        remove_client(s, e, true, false);
        return OK;
    case ANNOTATION_MULTIPLE: return apply_multiple(s, e);
    }
    ASSERT(!"unknown summarizer");
    return OK;
}

void annotation_free(struct annotation_summary *s)
{
    for (uint32_t i = 0; i < s->names_count; i++) name_free(s, s->names[i]);
    heap_free(s->heap, s->names, s->names_room * (uint32_t)sizeof(void *));
    s->names = NULL;
    s->names_count = s->names_room = 0;
}

/* ---- writing ---- */

static void write_number(struct api_text *t, const char *before, uint64_t n)
{
    api_text_str(t, before);
    api_text_number(t, n);
}

static void write_set(struct api_text *t, const struct annotation_name *n, uint32_t clients_max)
{
    uint32_t count = n == NULL ? 0 : n->clients_count, shown = u32_min(count, clients_max);
    write_number(t, "{\"total\":", count);
    api_text_str(t, ",\"clientIds\":[");
    for (uint32_t i = 0; i < shown; i++) {
        if (i > 0) api_text_str(t, ",");
        api_text_quote(t, client_text(n->clients[i]));
    }
    api_text_str(t, shown < count ? "],\"clipped\":true}" : "],\"clipped\":false}");
}

static void write_counts(struct api_text *t, const struct annotation_name *n, uint32_t clients_max)
{
    uint32_t shown = u32_min(n->clients_count, clients_max);
    write_number(t, "{\"total\":", n->counts + n->unidentified);
    api_text_str(t, ",\"clientCounts\":{");
    for (uint32_t i = 0; i < shown; i++) {
        if (i > 0) api_text_str(t, ",");
        api_text_quote(t, client_text(n->clients[i]));
        write_number(t, ":", n->clients[i]->count);
    }
    write_number(t, "},\"totalUnidentified\":", n->unidentified);
    api_text_str(t, shown < n->clients_count ? ",\"clipped\":true" : ",\"clipped\":false");
    write_number(t, ",\"totalClientIds\":", n->clients_count);
    api_text_str(t, "}");
}

void annotation_write(struct api_text *t, const struct annotation_summary *s, uint32_t clients_max)
{
    if (s->kind == ANNOTATION_TOTAL) {
        write_number(t, "{\"total\":", s->total);
        api_text_str(t, "}");
        return;
    }
    if (s->kind == ANNOTATION_FLAG) {
        write_set(t, s->names_count > 0 ? s->names[0] : NULL, clients_max);
        return;
    }
    api_text_str(t, "{");
    for (uint32_t i = 0; i < s->names_count; i++) {
        if (i > 0) api_text_str(t, ",");
        api_text_quote(t, name_text(s->names[i]));
        api_text_str(t, ":");
        if (s->kind == ANNOTATION_MULTIPLE) write_counts(t, s->names[i], clients_max);
        else write_set(t, s->names[i], clients_max);
    }
    api_text_str(t, "}");
}
