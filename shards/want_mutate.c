/* Updates, deletes and appends at the home: shards/stream.h sequences them, this answers. */
#include "shards/want_parts.h"

static void answer(struct shard *sh, struct want *w, const char *status)
{
    const struct content *c = w->content;
    struct api_text t = {.heap = sh->heap};
    char node[V2_NODE_BYTES], message[V2_SERIAL_BYTES], version[V2_SERIAL_BYTES];
    stream_node(sh, w->app, w->channel, node);
    v2_serial_write(message, c->create_ms, node, c->create);
    v2_serial_write(version, c->time_ms, node, c->delivery);
    api_text_str(&t, "{\"channel\":");
    api_text_quote(&t, w->channel);
    api_text_str(&t, ",\"message_serial\":");
    api_text_quote(&t, slice_str(message));
    api_text_str(&t, ",\"action\":\"");
    api_text_str(&t, want_action(w->action));
    api_text_str(&t, "\",\"accepted\":true,\"version_serial\":");
    api_text_quote(&t, slice_str(version));
    api_text_str(&t, ",\"history_serial\":");
    api_text_number(&t, c->history);
    api_text_str(&t, ",\"delivery_serial\":");
    api_text_number(&t, c->delivery);
    api_text_str(&t, ",\"status\":\"");
    api_text_str(&t, status);
    api_text_str(&t, "\"}");
    want_answer(sh, w, &t);
}

static void done(struct shard *sh, struct stream *st, void *ctx, const struct record *r,
                 bool committed)
{
    struct want *w = ctx;
    struct content *c = w->content;
    (void)st;
    if (!committed) {
        want_busy(sh, w, "History cannot be written at the moment");
        return;
    }
    c->create = r->message;
    c->create_ms = r->message_ms;
    c->delivery = r->delivery;
    c->time_ms = r->time_ms;
    c->history = r->history;
    answer(sh, w, "applied");
}

static void refuse_denied(struct shard *sh, struct want *w)
{
    if (w->actor.denied) {               /* who he is could not be settled: `text` says why */
        char text[PUSHER_ERROR_TEXT_BYTES];
        memcpy(text, w->text, sizeof(text));
        want_refuse(sh, w, 401, "auth_failed", PUSHER_UNAUTHORIZED, "%s", text);
        return;
    }
    w->ai_code = 93002;
    want_refuse(sh, w, 403, "mutable_not_permitted", PUSHER_UNAUTHORIZED,
                "mutations not permitted on this channel");
}

void want_mutate_on_want(struct shard *sh, struct stream *st, struct want *w)
{
    struct letter l = want_letter(w);
    switch (stream_mutate(sh, st, &l, w->content, done, w)) {
    case STREAM_TAKEN:
    case STREAM_WAITS: return;
    case STREAM_DUPLICATE: answer(sh, w, "duplicate"); return;
    case STREAM_BUSY: want_busy(sh, w, "History cannot be written at the moment"); return;
    case STREAM_NOT_FOUND: want_not_found(sh, w); return;
    case STREAM_DENIED: refuse_denied(sh, w); return;
    case STREAM_PRINT_DIFFERS:
        want_refuse(sh, w, 400, "invalid_input", PUSHER_GENERIC,
                    "idempotency key was already used with a different payload");
        return;
    case STREAM_NOT_TEXT:
        want_refuse(sh, w, 400, "invalid_input", PUSHER_GENERIC,
                    "append requires string message data in the release 4.3 core model");
        return;
    case STREAM_TOO_LARGE:
        want_refuse(sh, w, 413, "payload_too_large", PUSHER_GENERIC,
                    "Message is too large to be stored");
        return;
    }
    ASSERT(!"unknown verdict");
}
