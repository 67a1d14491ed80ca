/* http.h - HTTP/1.1 requests in, responses out. Strict: what could be read two ways is refused.
 *
 * Shape    http_parse takes contiguous bytes and yields a whole request head. Bodies are read by
 *          length by the caller, or through struct http_chunked in place.
 * Threads  Pure.
 * Bounds   struct http_limits, each with its own status: request line 414, header section 431,
 *          header count 431, body 413.
 * Memory   Slices point into the caller's input. Nothing is allocated.
 * Errors   HTTP_BAD with a status and a short English text for a plain-text answer; the
 *          connection is then closed. Refused as 400: bare CR or LF in the head, white space before
 *          the colon, folded lines, NUL or control bytes, a Host that is missing, repeated or
 *          malformed in 1.1, Content-Length with Transfer-Encoding, differing or repeated
 *          Content-Length, any Transfer-Encoding but exactly "chunked" (501), chunked in 1.0,
 *          absolute-form or asterisk-form targets except "OPTIONS *", bytes outside of printable
 *          ASCII or '#' in a target, a WebSocket upgrade with a body, more than four empty lines
 *          before a request; a version other than 1.0 or 1.1 is 505.
 * Source   RFC 9112, RFC 9110 5.5 and 5.6.2.
 */
#pragma once
#include "core/base.h"

enum { HTTP_HEADERS_MAX = 64 };

struct http_limits {
    uint32_t line_bytes_max;      /* request line, default 8192 */
    uint32_t head_bytes_max;      /* whole head, default 16384 */
    uint32_t headers_max;         /* <= HTTP_HEADERS_MAX */
    uint64_t body_bytes_max;
};

enum http_method {
    HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE, HTTP_OPTIONS, HTTP_OTHER,
};

struct http_header { struct slice name, value; };  /* value without surrounding white space */

struct http_request {
    enum http_method   method;
    struct slice       method_text;
    struct slice       target;          /* as received */
    struct slice       path, query;     /* target cut at '?'; query without it, may be empty */
    bool               has_query;
    uint8_t            minor;           /* 0 or 1 */
    bool               keep_alive;      /* from version and Connection */
    bool               upgrade;         /* Connection: upgrade with Upgrade: websocket, in 1.1 */
    bool               chunked;
    bool               expect_continue;
    uint64_t           content_length;  /* 0 when absent or chunked */
    uint32_t           head_bytes;      /* how far to advance to the body */
    uint32_t           headers_count;
    struct http_header headers[HTTP_HEADERS_MAX];
};

enum http_result { HTTP_OK, HTTP_NEED_MORE, HTTP_BAD };

struct http_error { uint16_t status; const char *text; };

/* `scanned` carries, between calls on a growing buffer, how far the end of the head was searched
 * for; start with 0, as it is again after HTTP_OK. Leading empty lines (CRLF) before the request
 * line are skipped (RFC 9112 2.2) and count into the head. A head is refused at its first bare line
 * feed or at the byte that passes a limit; anything else wrong shows when the head is whole. */
enum http_result http_parse(const struct http_limits *limits, struct slice in, uint32_t *scanned,
                            struct http_request *out, struct http_error *error);

/* Value of the header, compared without case; an empty slice with ptr NULL when absent. */
struct slice http_header(const struct http_request *r, const char *name);

/* Chunked bodies, decoded in place: body bytes are moved to the front of the buffer. Extensions and
 * trailers are checked for form and dropped: a size line has at most 256 bytes (400), the trailers
 * together head_bytes_max (431). A size is held against body_bytes_max digit by digit (413). */
struct http_chunked {
    uint64_t left;       /* bytes left in the current chunk */
    uint64_t body_bytes; /* decoded so far */
    uint32_t line_bytes; /* of the size line or trailers so far */
    uint8_t  state;      /* start with all zero */
};
/* Decode in[0..*in_bytes). On return *used bytes of input are consumed and *produced decoded bytes
 * stand at `out` (which may equal `in`: never writes past what it has read). HTTP_OK: body
 * complete, trailers discarded. */
enum http_result http_chunked_feed(struct http_chunked *c, const struct http_limits *limits,
                                   const uint8_t *in, uint32_t in_bytes, uint8_t *out,
                                   uint32_t *used, uint32_t *produced, struct http_error *error);

/* Percent-decode (and '+' to space when `form`). Returns bytes written (<= in.bytes) or -1 when a
 * % is not followed by two hex digits. out may equal in.ptr. */
int64_t http_decode(struct slice in, bool form, uint8_t *out);

/* Walk "a=1&b=2" without decoding. False at the end; empty pieces are skipped. */
bool http_query_next(struct slice *rest, struct slice *name, struct slice *value);

const char *http_status_text(uint16_t status);   /* "Not Found"; "Unknown" for others */
