/* http_body.c - chunked bodies of http.h, one byte at a time outside of the data itself.
 *
 *   SIZE_FIRST -> SIZE -> [BLANK] -> [EXTENSION] -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF --+
 *       ^                                              |                                    |
 *       +----------------------------------------------|------------------------------------+
 *                                            size 0:   v
 *                           TRAILER_FIRST -> NAME -> VALUE -> TRAILER_LF -> TRAILER_FIRST ...
 *                                 +-- empty line --> LAST_LF -> DONE
 */
#include "proto/http_chars.h"

enum { SIZE_LINE_BYTES_MAX = 256 };   /* a size with its extensions, which are ignored */

enum state {
    SIZE_FIRST = 0, SIZE, BLANK, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF,
    TRAILER_FIRST, NAME, VALUE, TRAILER_LF, LAST_LF, DONE,
};

static bool blank(uint8_t byte) { return byte == ' ' || byte == '\t'; }

/* Checked at every digit: an absurd size is refused before the rest of it arrives. */
static enum http_result size_digit(struct http_chunked *c, const struct http_limits *limits,
                                   uint8_t byte, struct http_error *error)
{
    int digit = http_hex(byte);

    if (digit < 0) return http_bad(error, 400, "bad chunk size");
    if (c->left >> 60) return http_bad(error, 413, "body is too large");
    c->left = c->left << 4 | (uint64_t)digit;
    c->state = SIZE;
    if (c->left > limits->body_bytes_max - c->body_bytes) {
        return http_bad(error, 413, "body is too large");
    }
    return HTTP_NEED_MORE;
}

static enum http_result size_step(struct http_chunked *c, const struct http_limits *limits,
                                  uint8_t byte, struct http_error *error)
{
    if (++c->line_bytes > SIZE_LINE_BYTES_MAX) {
        return http_bad(error, 400, "chunk size line is too long");
    }
    if (c->state == SIZE_LF) {
        if (byte != '\n') return http_bad(error, 400, "bad line end in chunked body");
        c->line_bytes = 0;
        c->state = c->left == 0 ? TRAILER_FIRST : DATA;
        return HTTP_NEED_MORE;
    }
    if (c->state == SIZE_FIRST) return size_digit(c, limits, byte, error);
    if (byte == '\r' && c->state != BLANK) {
        c->state = SIZE_LF;
    } else if (c->state == EXTENSION) {
        if (!http_char_is(byte, HTTP_CHAR_VALUE)) {
            return http_bad(error, 400, "bad chunk extension");
        }
    } else if (byte == ';') {
        c->state = EXTENSION;
    } else if (blank(byte)) {
        c->state = BLANK;              /* allowed before ';' only (RFC 9112 7.1.1) */
    } else if (c->state == SIZE) {
        return size_digit(c, limits, byte, error);
    } else {
        return http_bad(error, 400, "bad chunk size");
    }
    return HTTP_NEED_MORE;
}

/* Trailers are dropped, but held to the rules and to the size of a header section. */
static enum http_result trailer_step(struct http_chunked *c, const struct http_limits *limits,
                                     uint8_t byte, struct http_error *error)
{
    if (++c->line_bytes > limits->head_bytes_max) {
        return http_bad(error, 431, "trailers are too large");
    }
    switch ((enum state)c->state) {
    case TRAILER_FIRST:
        if (byte == '\r') {
            c->state = LAST_LF;
            return HTTP_NEED_MORE;
        }
        if (!http_char_is(byte, HTTP_CHAR_TOKEN)) return http_bad(error, 400, "bad trailer name");
        c->state = NAME;
        return HTTP_NEED_MORE;
    case NAME:
        if (byte == ':') c->state = VALUE;
        else if (!http_char_is(byte, HTTP_CHAR_TOKEN)) {
            return http_bad(error, 400, "bad trailer name");
        }
        return HTTP_NEED_MORE;
    case VALUE:
        if (byte == '\r') c->state = TRAILER_LF;
        else if (!http_char_is(byte, HTTP_CHAR_VALUE)) {
            return http_bad(error, 400, "bad trailer value");
        }
        return HTTP_NEED_MORE;
    case TRAILER_LF:
    case LAST_LF:
        if (byte != '\n') return http_bad(error, 400, "bad line end in chunked body");
        c->state = c->state == LAST_LF ? DONE : TRAILER_FIRST;
        return c->state == DONE ? HTTP_OK : HTTP_NEED_MORE;
    case SIZE_FIRST: case SIZE: case BLANK: case EXTENSION: case SIZE_LF:
    case DATA: case DATA_CR: case DATA_LF: case DONE:
        break;
    }
    ASSERT(!"a state outside of the trailers");
    return HTTP_BAD;
}

/* The CR LF that ends a chunk's data. */
static enum http_result data_end(struct http_chunked *c, uint8_t byte, struct http_error *error)
{
    if (byte != (c->state == DATA_CR ? '\r' : '\n')) {
        return http_bad(error, 400, "chunk data does not end where its size says");
    }
    c->state = c->state == DATA_CR ? DATA_LF : SIZE_FIRST;
    return HTTP_NEED_MORE;
}

enum http_result http_chunked_feed(struct http_chunked *c, const struct http_limits *limits,
                                   const uint8_t *in, uint32_t in_bytes, uint8_t *out,
                                   uint32_t *used, uint32_t *produced, struct http_error *error)
{
    enum http_result result = c->state == DONE ? HTTP_OK : HTTP_NEED_MORE;
    uint32_t at = 0, to = 0;

    while (at < in_bytes && result == HTTP_NEED_MORE) {
        if (c->state == DATA) {
            uint32_t piece = (uint32_t)u64_min(c->left, in_bytes - at);
            memmove(out + to, in + at, piece);
            at += piece;
            to += piece;
            c->left -= piece;
            c->body_bytes += piece;
            if (c->left == 0) c->state = DATA_CR;
            continue;
        }
        uint8_t byte = in[at++];
        if (c->state < DATA) result = size_step(c, limits, byte, error);
        else if (c->state < TRAILER_FIRST) result = data_end(c, byte, error);
        else result = trailer_step(c, limits, byte, error);
    }
    *used = at;
    *produced = to;
    return result;
}
