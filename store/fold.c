#include "store/fold.h"

#include <stdlib.h>

#include "core/mem.h"

/* ---- texts ---- */

static void block_free(struct fold *f, void *ptr, uint32_t room)
{
    if (f->heap != NULL) {
        heap_free(f->heap, ptr, room);
    } else {
        free(ptr);
    }
}

/* Room for `bytes`, contents kept. Data doubles, other texts are as long as they must be. */
static err_t text_room(struct fold *f, struct fold_text *t, uint64_t bytes)
{
    enum { STEP = 16 };
    if (bytes <= t->room) return OK;
    uint64_t room = bytes;
    if (t == &f->data && t->room > 0 && room < 2 * (uint64_t)t->room) room = 2 * (uint64_t)t->room;
    room = (room + STEP - 1) & ~(uint64_t)(STEP - 1);
    if (room > RECORD_BYTES_MAX) room = bytes;
    if (room > RECORD_BYTES_MAX) return ERR_MEMORY;
    uint8_t *ptr = f->heap != NULL ? heap_alloc(f->heap, (uint32_t)room) : malloc(room);
    if (ptr == NULL) return ERR_MEMORY;
    if (t->bytes > 0) memcpy(ptr, t->ptr, t->bytes);
    if (t->ptr != NULL) block_free(f, t->ptr, t->room);
    t->ptr = ptr;
    t->room = (uint32_t)room;
    return OK;
}

/* The caller has made room. */
static void text_set(struct fold_text *t, struct slice s)
{
    t->set = s.ptr != NULL;
    t->bytes = s.ptr != NULL ? s.bytes : 0;
    if (t->bytes > 0) memcpy(t->ptr, s.ptr, s.bytes);
}

static struct slice text_slice(const struct fold_text *t)
{
    static const uint8_t nothing[1];
    if (!t->set) return (struct slice){NULL, 0};
    return slice_of(t->ptr != NULL ? t->ptr : nothing, t->bytes);
}

static bool is_string(struct slice s)
{
    return s.bytes >= 2 && s.ptr[0] == '"' && s.ptr[s.bytes - 1] == '"';
}

/* ---- a record onto the state ---- */

struct change { struct fold_text *to; struct slice from; };

enum { CHANGES_MAX = 11 };

/* What the record replaces: data apart, which an append lengthens. */
static uint32_t changes_of(struct fold *f, const struct record *r, bool first, struct change *out)
{
    uint32_t n = 0;
    out[n++] = (struct change){&f->client, r->client};
    out[n++] = (struct change){&f->op_id, r->op_id};
    out[n++] = (struct change){&f->description, r->description};
    out[n++] = (struct change){&f->metadata, r->metadata};
    if (first) out[n++] = (struct change){&f->owner, r->owner};
    if (first || r->kind != RECORD_APPEND || (r->flags & RECORD_WHOLE) != 0) {
        out[n++] = (struct change){&f->name, r->name};
        out[n++] = (struct change){&f->extras, r->extras};
        out[n++] = (struct change){&f->tags, r->tags};
        out[n++] = (struct change){&f->message_id, r->message_id};
        out[n++] = (struct change){&f->user, r->user};
    }
    if (first || r->kind != RECORD_APPEND) out[n++] = (struct change){&f->data, r->data};
    ASSERT(n <= CHANGES_MAX);
    return n;
}

static bool can_follow(const struct fold *f, const struct record *r)
{
    if (!f->started) return record_is_row(r) || (r->flags & RECORD_FOLDED) != 0;
    if (r->message != f->message || r->delivery <= f->delivery) return false;
    if (r->kind == RECORD_UPDATE || r->kind == RECORD_DELETE) return true;
    return r->kind == RECORD_APPEND && is_string(r->data) &&
           (!f->data.set || is_string(text_slice(&f->data)));
}

static void identify(struct fold *f, const struct record *r)
{
    f->started = true;
    f->chan = r->chan;
    f->message = r->message != 0 ? r->message : r->delivery;
    f->message_ms = r->message_ms != 0 ? r->message_ms : r->time_ms;
    f->history = r->history;
    if ((r->flags & RECORD_FOLDED) == 0) f->appends = f->versions = 0;
}

err_t fold_apply(struct fold *f, const struct record *r)
{
    bool first = !f->started, append = !first && r->kind == RECORD_APPEND;
    struct change changes[CHANGES_MAX];

    if (!can_follow(f, r)) return ERR_IO;
    uint32_t count = changes_of(f, r, first, changes);
    for (uint32_t i = 0; i < count; i++) {
        if (text_room(f, changes[i].to, changes[i].from.bytes) != OK) return ERR_MEMORY;
    }
    if (append) {
        err_t e = text_room(f, &f->data, (uint64_t)f->data.bytes + r->data.bytes);
        if (e != OK) return e;
    }

    if (first) {
        identify(f, r);
    } else {
        f->versions++;
        if (append) f->appends++;
    }
    for (uint32_t i = 0; i < count; i++) text_set(changes[i].to, changes[i].from);
    if (append && !f->data.set) {
        text_set(&f->data, r->data);
    } else if (append) {
        memcpy(f->data.ptr + f->data.bytes - 1, r->data.ptr + 1, r->data.bytes - 1);
        f->data.bytes += r->data.bytes - 2;
    }
    f->kind = r->kind;
    f->delivery = r->delivery;
    f->time_ms = r->time_ms;
    bool whole = r->kind != RECORD_APPEND || (r->flags & RECORD_WHOLE) != 0;
    if ((r->flags & RECORD_FOLDED) != 0) {
        f->context = r->context;
    } else if (first || whole) {
        f->context = r->delivery;
    }
    return OK;
}

void fold_record(const struct fold *f, struct record *out)
{
    ASSERT(f->started);
    *out = (struct record){
        .kind = f->kind, .flags = RECORD_WHOLE | RECORD_FOLDED, .chan = f->chan,
        .delivery = f->delivery, .history = f->history, .message = f->message,
        .time_ms = f->time_ms, .message_ms = f->message_ms, .context = f->context,
        .name = text_slice(&f->name), .data = text_slice(&f->data),
        .extras = text_slice(&f->extras), .tags = text_slice(&f->tags),
        .message_id = text_slice(&f->message_id), .user = text_slice(&f->user),
        .owner = text_slice(&f->owner), .client = text_slice(&f->client),
        .op_id = text_slice(&f->op_id), .description = text_slice(&f->description),
        .metadata = text_slice(&f->metadata),
    };
}

void fold_free(struct fold *f)
{
    struct fold_text *texts[] = {&f->name, &f->data, &f->extras, &f->tags, &f->message_id, &f->user,
                                 &f->owner, &f->client, &f->op_id, &f->description, &f->metadata};
    for (uint32_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i]->ptr != NULL) block_free(f, texts[i]->ptr, texts[i]->room);
    }
    *f = (struct fold){.heap = f->heap};
}
