/* sockudo:presence_update as a socket says it. */
#include "shards/actor.h"
#include "shards/presence_update.h"
#include "shards/session_v2.h"

static void update(struct shard *sh, struct conn *c, const struct v2_presence_update *in)
{
    struct sub *s = session_sub_of(sh, c, &in->channel);
    uint32_t bytes = in->data.type == JSON_STRING ? in->data.raw.bytes : in->data.text_bytes;
    if (!json_text_starts(&in->channel, "presence-")) {
        conn_error(sh, c, PUSHER_GENERIC, "presence_update requires a presence channel");
    } else if (bytes > PRESENCE_UPDATE_BYTES_MAX) {
        conn_error(sh, c, PUSHER_GENERIC, "presence_update data exceeds limit (1024 bytes)");
    } else if (s == NULL || s->state != SUB_JOINED || s->member == NULL) {
        conn_error(sh, c, PUSHER_GENERIC,
                   "presence_update requires an active membership of the channel");
    } else if (!session_granted(c, chan_name(s->chan), ACTOR_PRESENCE)) {
        conn_error(sh, c, PUSHER_UNAUTHORIZED,
                   "Authentication error: Connection is not allowed to update presence");
    } else if (shard_pressed(sh) || !presence_update_ask(sh, c, s, &in->data, bytes)) {
        conn_error(sh, c, PUSHER_GENERIC, "presence_update failed: server is busy, try again");
    }
}

void session_presence_update(struct shard *sh, struct conn *c, const struct v2_frame *f)
{
    char error[PUSHER_ERROR_TEXT_BYTES];
    struct v2_presence_update in;
    uint32_t room = f->data.type == JSON_STRING ? u32_max(f->data.text_bytes, 1) : 0;
    uint8_t *scratch = room == 0 ? NULL : heap_alloc(sh->heap, room);
    if (room > 0 && scratch == NULL) {
        conn_error(sh, c, PUSHER_OVER_CAPACITY, "Over capacity");
    } else if (!v2_presence_update_parse(f, scratch, &in, error)) {
        conn_error(sh, c, PUSHER_GENERIC, error);
    } else {
        update(sh, c, &in);
    }
    heap_free(sh->heap, scratch, room);
}
