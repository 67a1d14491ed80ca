#include "bench/wire.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bench/bench.h"

static enum wire_result next_frame(const uint8_t *p, uint32_t bytes, struct wire_item *out)
{
    if (bytes < 2) return WIRE_MORE;
    if ((p[0] & 0xf0) != 0x80 || (p[1] & 0x80) != 0) return WIRE_BAD;   /* FIN, no RSV, no mask */

    uint32_t head = 2;
    uint64_t payload = p[1];
    if (payload == 126) {
        if (bytes < 4) return WIRE_MORE;
        payload = (uint64_t)p[2] << 8 | p[3];
        head = 4;
    } else if (payload == 127) {
        if (bytes < 10) return WIRE_MORE;
        payload = 0;
        for (uint32_t i = 2; i < 10; i++) payload = payload << 8 | p[i];
        head = 10;
    }
    if (payload > WIRE_ITEM_BYTES_MAX) return WIRE_BAD;
    if (bytes < head + payload) return WIRE_MORE;

    *out = (struct wire_item){.kind = p[0] & 15, .ptr = p + head, .bytes = (uint32_t)payload,
                              .bytes_total = head + (uint32_t)payload};
    return WIRE_OK;
}

static uint32_t content_length(const uint8_t *head, uint32_t bytes)
{
    static const char name[] = "\r\ncontent-length:";
    for (uint32_t i = 0; i + sizeof name < bytes; i++) {
        if (strncasecmp((const char *)head + i, name, sizeof name - 1) == 0) {
            return (uint32_t)strtoul((const char *)head + i + sizeof name - 1, NULL, 10);
        }
    }
    return 0;
}

static enum wire_result next_reply(const uint8_t *p, uint32_t bytes, struct wire_item *out)
{
    const uint8_t *end = memmem(p, bytes, "\r\n\r\n", 4);
    if (end == NULL) return bytes > WIRE_ITEM_BYTES_MAX ? WIRE_BAD : WIRE_MORE;
    if (memcmp(p, "HTTP/1.1 ", 9) != 0) return WIRE_BAD;

    uint32_t head = (uint32_t)(end - p) + 4;
    uint32_t body = content_length(p, head);
    if (body > WIRE_ITEM_BYTES_MAX) return WIRE_BAD;
    if (bytes < head + body) return WIRE_MORE;

    *out = (struct wire_item){.kind = WIRE_REPLY, .ptr = p + head, .bytes = body,
                              .status = (uint32_t)strtoul((const char *)p + 9, NULL, 10),
                              .bytes_total = head + body};
    return WIRE_OK;
}

enum wire_result wire_next(enum wire_mode mode, const uint8_t *p, uint32_t bytes,
                           struct wire_item *out)
{
    return mode == WIRE_WS ? next_frame(p, bytes, out) : next_reply(p, bytes, out);
}

void wire_join(struct wire *w, const uint8_t **p, uint32_t *bytes)
{
    if (w->part == NULL) return;

    w->part = realloc(w->part, w->part_bytes + *bytes);
    if (w->part == NULL) bench_die("out of memory");
    memcpy(w->part + w->part_bytes, *p, *bytes);
    *p = w->part;
    *bytes += w->part_bytes;
    w->part_bytes = *bytes;
}

void wire_keep(struct wire *w, const uint8_t *p, uint32_t bytes)
{
    uint8_t *kept = NULL;
    if (bytes > 0) {
        kept = bench_calloc(1, bytes);
        memcpy(kept, p, bytes);
    }
    free(w->part);
    w->part = kept;
    w->part_bytes = bytes;
}

void wire_drop(struct wire *w)
{
    wire_keep(w, NULL, 0);
}

static uint32_t put_length(uint8_t *out, uint32_t bytes, uint8_t mask_bit)
{
    if (bytes < 126) {
        out[1] = (uint8_t)(mask_bit | bytes);
        return 2;
    }
    if (bytes < 65536) {
        out[1] = mask_bit | 126;
        out[2] = (uint8_t)(bytes >> 8);
        out[3] = (uint8_t)bytes;
        return 4;
    }
    out[1] = mask_bit | 127;
    for (uint32_t i = 0; i < 8; i++) out[2 + i] = (uint8_t)((uint64_t)bytes >> (56 - 8 * i));
    return 10;
}

uint32_t wire_header(uint8_t *out, uint32_t payload_bytes)
{
    out[0] = 0x81;
    return put_length(out, payload_bytes, 0);
}

uint32_t wire_text(uint8_t *out, uint32_t out_bytes, const char *payload, uint32_t payload_bytes)
{
    if (out_bytes < payload_bytes + 14) bench_die("frame of %u bytes: no room", payload_bytes);
    out[0] = 0x81;
    uint32_t head = put_length(out, payload_bytes, 0x80);
    memset(out + head, 0, 4);
    memcpy(out + head + 4, payload, payload_bytes);
    return head + 4 + payload_bytes;
}
