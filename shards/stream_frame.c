/* One record as frames: V1, V2, V2 with the whole text.
 *
 * An append's frame is built once with its fragment. What sockets in full mode get is the same text
 * with the aggregate in the fragment's place, made only when somebody wants it. */
#include "shards/stream_parts.h"

#include "proto/put.h"

static const char event_key[] = "{\"event\":", channel_key[] = ",\"channel\":",
                  data_key[] = ",\"data\":";

static const char *const mutation_events[] = {
    [RECORD_CREATE] = "\"sockudo:message.create\"", [RECORD_UPDATE] = "\"sockudo:message.update\"",
    [RECORD_DELETE] = "\"sockudo:message.delete\"", [RECORD_APPEND] = "\"sockudo:message.append\"",
};
static const enum v2_action actions[] = {
    [RECORD_CREATE] = V2_CREATE, [RECORD_UPDATE] = V2_UPDATE, [RECORD_DELETE] = V2_DELETE,
    [RECORD_APPEND] = V2_APPEND,
};

/* ---- texts compared as they read ---- */

static uint32_t hex4(const uint8_t *p)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t c = p[i] | 0x20;        /* digits keep their bit 5 */
        value = value * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return value;
}

/* The next character inside a JSON string: a code point. The text is known to be valid. */
static uint32_t next_character(const uint8_t **at)
{
    const uint8_t *p = *at;
    uint32_t c = *p++;
    if (c == '\\') {
        c = *p++;
        switch (c) {
        case 'b': c = '\b'; break;
        case 'f': c = '\f'; break;
        case 'n': c = '\n'; break;
        case 'r': c = '\r'; break;
        case 't': c = '\t'; break;
        case 'u':
            c = hex4(p);
            p += 4;
            if (c >= 0xd800 && c < 0xdc00) {     /* the other half follows */
                c = 0x10000 + ((c - 0xd800) << 10) + (hex4(p + 2) - 0xdc00);
                p += 6;
            }
            break;
        default: break;                  /* itself */
        }
    } else if (c >= 0x80) {
        uint32_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        c &= 0x3f >> more;
        while (more-- > 0) c = c << 6 | (*p++ & 0x3f);
    }
    *at = p;
    return c;
}

bool stream_frame_skip(struct slice *text, struct slice start)
{
    const uint8_t *t = text->ptr, *t_end = text->ptr + text->bytes;
    const uint8_t *s = start.ptr, *s_end = start.ptr + start.bytes;
    while (s < s_end) {
        if (t >= t_end || next_character(&t) != next_character(&s)) return false;
    }
    *text = slice_of(t, (uint32_t)(t_end - t));
    return true;
}

bool stream_frame_starts(struct slice text, struct slice start)
{
    return stream_frame_skip(&text, start);
}

/* ---- the fields ---- */

static void serials(const struct stream *st, const struct record *r, enum v2_action action,
                    struct stream_texts *texts, struct v2_out *o)
{
    v2_serial_write(texts->message, r->message_ms, st->node, r->message);
    v2_serial_write(texts->version, r->time_ms, st->node, r->delivery);
    texts->v = (struct v2_version){
        .action = action, .message_serial = texts->message, .version_serial = texts->version,
        .time_ms = r->time_ms, .history_serial = r->history,
    };
    o->version = &texts->v;
    if (action != V2_CREATE) o->message_id = slice_str(texts->version);
}

static void position(const struct stream *st, const struct record *r, struct v2_out *o)
{
    if (st == NULL || r->delivery == 0) return;
    o->stream_id = slice_str(stream_id(st));
    o->serial = stream_by_history(st) ? r->history : r->delivery;
}

/* As it was published. */
static void fill_published(const struct home *h, const struct record *r, struct v2_out *o)
{
    *o = (struct v2_out){
        .event_json = r->name, .channel = home_name(h), .data_json = r->data,
        .tags_json = r->tags, .user_id = r->user, .message_id = r->message_id,
        .extras = r->extras,
    };
}

/* The newest whole version says everything but the fragment. */
static void fill_append(const struct home *h, const struct record *r, const struct record *whole,
                        struct v2_out *o)
{
    bool of_create = whole->context == whole->message;
    *o = (struct v2_out){
        .event_json = slice_str(mutation_events[RECORD_APPEND]), .channel = home_name(h),
        .data_json = r->data, .name_json = whole->name, .extras = whole->extras,
    };
    if (!of_create) o->user_id = whole->user;
}

static void fill_change(const struct home *h, const struct record *r, struct v2_out *o)
{
    *o = (struct v2_out){
        .event_json = slice_str(mutation_events[r->kind]), .channel = home_name(h),
        .data_json = r->data, .name_json = r->name, .user_id = r->user, .extras = r->extras,
    };
}

void stream_frame_cold(const struct shard *sh, const struct stream *st, const struct record *r,
                       const struct record *context, struct stream_texts *texts,
                       struct v2_out *o)
{
    const struct home *h = st->home;
    enum v2_action action = V2_NO_ACTION;
    bool folded = (r->flags & RECORD_FOLDED) != 0;
    if (r->kind == RECORD_APPEND && folded) {
        fill_append(h, r, context != NULL ? context : r, o);     /* with the whole text */
        o->event_json = slice_str(mutation_events[RECORD_UPDATE]);
        action = V2_UPDATE;
    } else if (r->kind == RECORD_APPEND) {
        fill_append(h, r, context != NULL ? context : r, o);
        action = V2_APPEND;
    } else if (r->kind == RECORD_UPDATE || r->kind == RECORD_DELETE) {
        fill_change(h, r, o);
        action = actions[r->kind];
    } else {
        fill_published(h, r, o);
        if (r->kind == RECORD_CREATE) {
            o->event_json = slice_str(mutation_events[RECORD_CREATE]);
            o->name_json = r->name;
            o->tags_json = (struct slice){NULL, 0};
            o->user_id = r->client;
            action = V2_CREATE;
        }
    }
    if (action != V2_NO_ACTION) serials(st, r, action, texts, o);
    position(st, r, o);
}

/* ---- frames ---- */

static struct frame *make_v1(struct shard *sh, const struct home *h, const struct record *r,
                             struct slice actor)
{
    struct slice who = r->user.ptr != NULL ? r->user : actor;
    struct pusher_out o = {.event_json = r->name, .channel = home_name(h), .data_json = r->data};
    uint8_t *user = NULL;
    uint32_t user_bytes = 0;
    if (who.ptr != NULL) {
        user_bytes = json_quote_bytes(who);
        user = heap_alloc(sh->heap, user_bytes);
        if (user == NULL) return NULL;
        json_quote(who, user);
        o.user_id_json = slice_of(user, user_bytes);
    }
    struct frame *f = frame_make(sh, pusher_event_bytes(&o));
    if (f != NULL) f->bytes_count = pusher_event_write(&o, frame_room(f));
    heap_free(sh->heap, user, user_bytes);
    return f;
}

static struct frame *make_v2(struct shard *sh, const struct v2_out *o)
{
    struct frame *f = frame_make(sh, v2_event_bytes(o));
    if (f != NULL) f->bytes_count = v2_event_write(o, frame_room(f));
    return f;
}

static bool add_v2(struct shard *sh, struct frame *f, const struct v2_out *o)
{
    f->v2 = frame_sibling(sh, f, v2_event_bytes(o));
    if (f->v2 != NULL) f->v2->bytes_count = v2_event_write(o, frame_room(f->v2));
    return f->v2 != NULL;
}

static bool make_published(struct shard *sh, const struct home *h, const struct stream *st,
                           const struct record *r, struct slice actor, struct frame **out)
{
    bool v1 = h->subs_count > h->v2_count;
    bool v2 = h->v2_count > 0 || (st != NULL && r->delivery > 0 && stream_ring_wanted(st));
    struct stream_texts texts;
    struct v2_out o;
    if (v1) {
        *out = make_v1(sh, h, r, actor);
        if (*out == NULL) return false;
    }
    if (!v2) return true;
    fill_published(h, r, &o);
    if (r->kind == RECORD_CREATE && r->delivery > 0) serials(st, r, V2_CREATE, &texts, &o);
    position(st, r, &o);
    if (v1) {
        if (!add_v2(sh, *out, &o)) frame_put(sh, out);
    } else {
        *out = make_v2(sh, &o);
        if (*out != NULL) (*out)->v2_only = true;
    }
    return *out != NULL;
}

uint32_t stream_frame_splice_bytes(struct slice payload, uint32_t fragment_bytes,
                                   struct slice data)
{
    return WS_SERVER_HEADER_BYTES_MAX + payload.bytes - fragment_bytes + data.bytes;
}

uint32_t stream_frame_splice(struct slice payload, uint32_t data_at, uint32_t fragment_bytes,
                             struct slice data, uint8_t *out)
{
    struct slice tail = slice_skip(payload, data_at + fragment_bytes);
    uint8_t *at = put_header(out, data_at + data.bytes + tail.bytes);
    at = put_bytes(at, payload.ptr, data_at);
    at = put_slice(at, data);
    at = put_slice(at, tail);
    return (uint32_t)(at - out);
}

/* Where an append's fragment stands in the payload of its V2 frame. */
static uint32_t data_offset(const struct v2_out *o)
{
    return PUT_BYTES(event_key) + o->event_json.bytes + PUT_BYTES(channel_key) +
           json_quote_bytes(o->channel) + PUT_BYTES(data_key);
}

/* True when a client would take the fragment for the whole text: it begins with the text so far. */
static bool looks_whole(const struct record *r, const struct fold *f)
{
    uint32_t before = f->data.bytes - r->data.bytes;     /* the quotes of one of them are left */
    return before > 0 && stream_frame_starts(slice_of(r->data.ptr + 1, r->data.bytes - 2),
                                             slice_of(f->data.ptr + 1, before));
}

static bool make_append(struct shard *sh, const struct home *h, const struct stream *st,
                        const struct record *r, const struct fold *f, struct stream_entry *entry,
                        struct frame **out)
{
    struct stream_texts texts;
    struct v2_out o;
    struct record folded;
    fold_record(f, &folded);
    fill_append(h, r, &folded, &o);
    bool whole = looks_whole(r, f);
    if (whole) {
        o.event_json = slice_str(mutation_events[RECORD_UPDATE]);
        o.data_json = folded.data;
    }
    serials(st, r, whole ? V2_UPDATE : V2_APPEND, &texts, &o);
    position(st, r, &o);
    *out = make_v2(sh, &o);
    if (*out == NULL) return false;
    (*out)->v2_only = true;
    if (whole) return true;
    struct slice payload = pusher_payload(slice_of((*out)->bytes, (*out)->bytes_count));
    uint32_t at = data_offset(&o);
    ASSERT(memcmp(payload.ptr + at, r->data.ptr, r->data.bytes) == 0);
    if (entry != NULL) {
        entry->data_at = at;
        entry->data_bytes = r->data.bytes;
    }
    if (h->full_count == 0) return true;
    uint32_t room = stream_frame_splice_bytes(payload, r->data.bytes, folded.data);
    struct frame *full = frame_sibling(sh, *out, room);
    if (full == NULL) {
        frame_put(sh, out);
        return false;
    }
    full->bytes_count = stream_frame_splice(payload, at, r->data.bytes, folded.data,
                                            frame_room(full));
    (*out)->full = full;
    return true;
}

static void note_entry(const struct stream *st, const struct record *r, struct stream_entry *entry)
{
    bool changes = r->kind == RECORD_UPDATE || r->kind == RECORD_DELETE ||
                   r->kind == RECORD_APPEND;
    entry->delivery = r->delivery;
    entry->serial = stream_by_history(st) ? r->history : r->delivery;
    entry->message = changes ? r->message : 0;
}

static void note_id(const struct stream *st, const struct record *r, struct stream_entry *entry)
{
    if (entry->message != 0) {
        v2_serial_write(entry->message_id, r->time_ms, st->node, r->delivery);
    } else if (r->message_id.bytes > 0 && r->message_id.bytes < sizeof(entry->message_id)) {
        memcpy(entry->message_id, r->message_id.ptr, r->message_id.bytes);
    }
}

bool stream_frame_make(struct shard *sh, const struct home *h, const struct stream *st,
                       const struct record *r, const struct fold *f, struct slice actor,
                       struct stream_entry *entry, struct frame **out)
{
    struct stream_texts texts;
    struct v2_out o;
    bool made;
    *out = NULL;
    if (entry != NULL) memset(entry, 0, sizeof(*entry));
    if (f == NULL) {
        made = make_published(sh, h, st, r, actor, out);
    } else if (h->v2_count == 0 && !stream_ring_wanted(st)) {
        return true;
    } else if (r->kind == RECORD_APPEND) {
        made = make_append(sh, h, st, r, f, entry, out);
    } else {
        fill_change(h, r, &o);
        serials(st, r, actions[r->kind], &texts, &o);
        position(st, r, &o);
        *out = make_v2(sh, &o);
        if (*out != NULL) (*out)->v2_only = true;
        made = *out != NULL;
    }
    if (!made || *out == NULL || entry == NULL) return made;
    note_entry(st, r, entry);
    note_id(st, r, entry);
    return true;
}

struct frame *stream_frame_cache(struct shard *sh, const struct home *h, const struct record *r,
                                 struct slice actor)
{
    struct v2_out o;
    struct frame *f = make_v1(sh, h, r, actor);
    if (f == NULL) return NULL;
    fill_published(h, r, &o);
    if (!add_v2(sh, f, &o)) frame_put(sh, &f);
    return f;
}

void stream_lost(struct shard *sh, struct home *h, struct stream *st)
{
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
    if (st != NULL) stream_ring_clear(sh, st);
    for (uint32_t i = 0; i < h->interests_count; i++) {
        struct letter end = {
            .kind = MAIL_END_USER, .arg = {h->interests[i].chan, PUSHER_OVER_CAPACITY},
        };
        shard_answer(sh, h->interests[i].shard, &end);
    }
}
