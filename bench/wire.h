/* wire.h - the client's end of the wire: cuts a byte stream into upgrade answer, frames, replies.
 *
 * Shape    Bytes go in as they come; whole items come out. Only what is incomplete is kept.
 * Memory   An idle stream holds nothing: wire.part exists only between two halves of an item.
 * Errors   WIRE_BAD: the server broke the protocol (masked or oversize frame, bad HTTP).
 * Source   RFC 6455 section 5.2; RFC 9112 as far as a client of our own server needs it.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { WIRE_ITEM_BYTES_MAX = 1 << 20 };

enum wire_mode {
    WIRE_WS,      /* WebSocket frames */
    WIRE_HTTP,    /* HTTP replies with Content-Length, or the 101 answer */
};

enum wire_kind { WIRE_TEXT = 1, WIRE_BINARY = 2, WIRE_CLOSE = 8, WIRE_PING = 9, WIRE_PONG = 10,
                 WIRE_REPLY = 16 };

struct wire_item {
    uint32_t       kind;         /* enum wire_kind */
    uint32_t       status;       /* of a WIRE_REPLY */
    const uint8_t *ptr;          /* payload or body; valid during the callback */
    uint32_t       bytes;
    uint32_t       bytes_total;  /* with its header */
};

enum wire_result { WIRE_OK, WIRE_MORE, WIRE_BAD };

struct wire {
    uint8_t *part;        /* owned; NULL while nothing is incomplete */
    uint32_t part_bytes;
};

/* One item at the start of p. */
enum wire_result wire_next(enum wire_mode mode, const uint8_t *p, uint32_t bytes,
                           struct wire_item *out);

/* The bytes to look at now: what was kept plus `p`. Follow with wire_keep of what is left over. */
void wire_join(struct wire *w, const uint8_t **p, uint32_t *bytes);
void wire_keep(struct wire *w, const uint8_t *p, uint32_t bytes);
void wire_drop(struct wire *w);

/* A masked text frame (all-zero mask: the payload stays readable). Returns its length. */
uint32_t wire_text(uint8_t *out, uint32_t out_bytes, const char *payload, uint32_t payload_bytes);
/* The header of an unmasked frame as a server writes it. Returns its length, at most 10. */
uint32_t wire_header(uint8_t *out, uint32_t payload_bytes);
