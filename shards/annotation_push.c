/* Frames of annotations: a summary for every V2 subscriber, the event for those who asked. */
#include "shards/annotation_parts.h"
#include "shards/fan.h"

enum { CLIENTS_LISTED = 64, FRAMES_MAX = 1000, FRAMES_BYTES_MAX = 512 * 1024 };

static void write_summary(struct api_text *t, const struct annotation_subject *s,
                          uint32_t clients_max)
{
    api_text_str(t, "{\"action\":\"message.summary\",\"serial\":");
    api_text_quote(t, annotation_subject_message(s));
    api_text_str(t, ",\"annotations\":{\"summary\":{");
    api_text_quote(t, annotation_subject_type(s));
    api_text_str(t, ":");
    annotation_write(t, &s->summary, clients_max);
    api_text_str(t, "}}}");
}

static struct v2_out summary_out(struct slice channel, struct slice data)
{
    return (struct v2_out){
        .event_json = slice_str("\"sockudo_internal:message\""), .channel = channel,
        .data_json = data, .extras = slice_str("{\"ephemeral\":true}"),
    };
}

uint64_t annotation_frame_bytes_max(const struct shard *sh, uint32_t app)
{
    uint32_t kb = sh->conf->apps[app].max_event_payload_in_kb;
    return (uint64_t)(kb > 0 ? kb : sh->conf->websocket_max_payload_kb) * 1024;
}

/* The data of a summary frame that fits: clients are left out until it does. */
static void write_fitting(struct shard *sh, struct api_text *t,
                          const struct annotation_channel *ch, const struct annotation_subject *s)
{
    uint64_t bytes_max = annotation_frame_bytes_max(sh, ch->app);
    struct slice name = slice_of(ch->name, ch->name_bytes);
    uint32_t clients = s->summary.clients_bytes > bytes_max ? CLIENTS_LISTED : UINT32_MAX;
    for (;;) {
        t->bytes = 0;
        write_summary(t, s, clients);
        struct v2_out o = summary_out(name, api_text_slice(t));
        if (t->failed || clients == 0 || v2_event_bytes(&o) <= bytes_max) return;
        clients = clients == UINT32_MAX ? CLIENTS_LISTED : clients / 2;
    }
}

static struct frame *frame_of(struct shard *sh, const struct v2_out *o)
{
    struct frame *f = frame_make(sh, v2_event_bytes(o));
    if (f == NULL) return NULL;
    f->bytes_count = v2_event_write(o, frame_room(f));
    f->v2_only = true;
    return f;
}

static void fan(struct shard *sh, struct home *h, struct frame *f, uint32_t flags)
{
    for (uint32_t i = 0; i < h->interests_count; i++) {
        if (h->interests[i].v2_count == 0) continue;
        struct letter l = {
            .kind = MAIL_FAN, .payload = frame_lend(f), .flags = flags,
            .arg = {h->interests[i].chan},
        };
        shard_answer(sh, h->interests[i].shard, &l);
    }
}

/* What cannot be sent for want of memory comes with the next change, or the next subscribe. */
void annotation_push(struct shard *sh, struct home *h, const struct annotation_channel *ch,
                     const struct annotation_subject *s, const struct record *r)
{
    struct api_text t = {.heap = sh->heap};
    if (h->v2_count == 0) return;
    write_fitting(sh, &t, ch, s);
    struct v2_out o = summary_out(home_name(h), api_text_slice(&t));
    struct frame *f = t.failed ? NULL : frame_of(sh, &o);
    if (f != NULL) fan(sh, h, f, 0);
    frame_put(sh, &f);
    t.bytes = 0;
    annotation_write_event(&t, r);
    o = (struct v2_out){
        .event_json = slice_str("\"sockudo_internal:annotation\""), .channel = home_name(h),
        .data_json = api_text_slice(&t),
    };
    f = t.failed ? NULL : frame_of(sh, &o);
    if (f != NULL) fan(sh, h, f, FAN_ANNOTATIONS);
    frame_put(sh, &f);
    api_text_free(&t);
}

void annotation_write_event(struct api_text *t, const struct record *r)
{
    char serial[ANNOTATION_SERIAL_BYTES];
    annotation_serial_write(serial, r->delivery);
    api_text_str(t, "{\"serial\":");
    api_text_quote(t, slice_str(serial));
    api_text_str(t, ",\"timestamp\":");
    api_text_number(t, r->time_ms);
    api_text_str(t, ",");
    api_text_add(t, slice_skip(r->data, 1));     /* without its brace */
}

void annotation_write_frames(struct shard *sh, struct api_text *t, struct annotation_channel *ch,
                             struct slice channel)
{
    struct api_text data = {.heap = sh->heap};
    const struct annotation_subject *s = ch->subjects_first;
    uint32_t count = 0;
    for (; s != NULL && !t->failed; s = s->next) {
        write_fitting(sh, &data, ch, s);
        struct v2_out o = summary_out(channel, api_text_slice(&data));
        uint32_t room = v2_event_bytes(&o);
        if (count++ == FRAMES_MAX || t->bytes + room > FRAMES_BYTES_MAX) {
            metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0,
                       SERIES_LIMIT_ANNOTATION_SUMMARIES, 1);
            break;
        }
        uint8_t *bytes = data.failed ? NULL : heap_alloc(sh->heap, room);
        if (bytes == NULL) {
            t->failed = true;
            break;
        }
        api_text_add(t, slice_of(bytes, v2_event_write(&o, bytes)));
        heap_free(sh->heap, bytes, room);
    }
    api_text_free(&data);
}
