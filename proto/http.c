#include "proto/http_chars.h"

enum {
    EMPTY_LINES_MAX = 4,      /* before a request; a bound keeps the skip from being a rescan */
    PORT_DIGITS_MAX = 5,
    PORT_MAX = 65535,
    IPV6_BYTES_MAX = 45,      /* with an IPv4 tail */
};

/* What the header section said about framing, before the rules between headers are applied. */
struct seen {
    uint32_t     hosts, lengths, encodings;
    struct slice encoding;
    bool         length_huge;
    bool         close, keep_alive, upgrade, websocket, expect;
};

static uint8_t lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c; }

/* `name` is in lower case and as long as `text`. */
static bool same_nocase(const uint8_t *text, const char *name, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        if (lower(text[i]) != (uint8_t)name[i]) return false;
    }
    return true;
}

#define IS_NOCASE(s, literal) \
    ((s).bytes == sizeof(literal) - 1 && same_nocase((s).ptr, literal, sizeof(literal) - 1))

static bool all_of(struct slice s, uint8_t class)
{
    for (uint32_t i = 0; i < s.bytes; i++) {
        if (!http_char_is(s.ptr[i], class)) return false;
    }
    return true;
}

static bool blank(uint8_t c) { return c == ' ' || c == '\t'; }

static struct slice trim(struct slice s)
{
    while (s.bytes > 0 && blank(s.ptr[0])) s = slice_skip(s, 1);
    while (s.bytes > 0 && blank(s.ptr[s.bytes - 1])) s.bytes--;
    return s;
}

/* Eight bytes at a time while there is neither a control byte nor DEL: values are most of a head.
 * A tab ends the fast part, too; the table then decides. */
static bool value_ok(struct slice s)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t word;

    while (s.bytes >= sizeof word) {
        memcpy(&word, s.ptr, sizeof word);
        uint64_t del = word ^ ones * 0x7f;
        if (((word - ones * 0x20) & ~word & tops) || ((del - ones) & ~del & tops)) break;
        s = slice_skip(s, sizeof word);
    }
    return all_of(s, HTTP_CHAR_VALUE);
}

/* Refuse as soon as `end` bytes are known to hold no end of the request line, or of the head. The
 * smaller bound speaks, however many bytes came at once. */
static bool within(const struct http_limits *limits, struct slice in, uint32_t start, uint32_t end,
                   struct http_error *error)
{
    uint64_t line_end_max = (uint64_t)start + limits->line_bytes_max + 2;

    if (end > line_end_max && line_end_max <= limits->head_bytes_max &&
        memchr(in.ptr + start, '\n', (size_t)line_end_max - start) == NULL) {
        (void)http_bad(error, 414, "request line is too long");
        return false;
    }
    if (end > limits->head_bytes_max) {
        (void)http_bad(error, 431, "request head is too large");
        return false;
    }
    return true;
}

/* Find the empty line that ends the head that begins at `start`. Every line feed is looked at once,
 * so a head that uses bare ones is refused at its first line instead of waited for. */
static enum http_result head_find(const struct http_limits *limits, struct slice in,
                                  uint32_t start, uint32_t *scanned, uint32_t *head_end,
                                  struct http_error *error)
{
    uint32_t at = u32_max(*scanned, start);

    for (;;) {
        const uint8_t *found = at < in.bytes ? memchr(in.ptr + at, '\n', in.bytes - at) : NULL;
        uint32_t end = found != NULL ? (uint32_t)(found - in.ptr) + 1 : in.bytes;
        if (!within(limits, in, start, end, error)) return HTTP_BAD;
        if (found == NULL) break;
        if (end - start < 2 || in.ptr[end - 2] != '\r') {
            return http_bad(error, 400, "bare line feed");
        }
        if (end - start > 2 && in.ptr[end - 3] == '\n') {
            *head_end = end;
            return HTTP_OK;
        }
        at = end;
    }
    *scanned = in.bytes;
    return HTTP_NEED_MORE;
}

/* Step over empty lines before the request line. */
static enum http_result empty_lines(struct slice in, uint32_t *start, struct http_error *error)
{
    uint32_t at = 0;

    while (in.bytes - at >= 2 && memcmp(in.ptr + at, "\r\n", 2) == 0) {
        at += 2;
        if (at > 2 * EMPTY_LINES_MAX) return http_bad(error, 400, "too many empty lines");
    }
    *start = at;
    return HTTP_OK;
}

static enum http_method method_of(struct slice text)
{
    static const struct { const char *name; enum http_method method; } methods[] = {
        {"GET", HTTP_GET}, {"POST", HTTP_POST}, {"HEAD", HTTP_HEAD}, {"OPTIONS", HTTP_OPTIONS},
        {"PUT", HTTP_PUT}, {"PATCH", HTTP_PATCH}, {"DELETE", HTTP_DELETE},
    };
    for (uint32_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (slice_is(text, methods[i].name)) return methods[i].method;
    }
    return HTTP_OTHER;
}

/* Cut `rest` at the first space. False when there is none, or nothing before it. */
static bool word_next(struct slice *rest, struct slice *word)
{
    const uint8_t *space = rest->bytes > 0 ? memchr(rest->ptr, ' ', rest->bytes) : NULL;
    if (space == NULL || space == rest->ptr) return false;
    *word = slice_of(rest->ptr, (uint32_t)(space - rest->ptr));
    *rest = slice_skip(*rest, word->bytes + 1);
    return true;
}

static bool digit(uint8_t c) { return c >= '0' && c <= '9'; }

static enum http_result line_parse(struct slice line, struct http_request *r,
                                   struct http_error *error)
{
    struct slice rest = line;

    if (!word_next(&rest, &r->method_text) || !all_of(r->method_text, HTTP_CHAR_TOKEN)) {
        return http_bad(error, 400, "bad method");
    }
    r->method = method_of(r->method_text);
    if (!word_next(&rest, &r->target) || !all_of(r->target, HTTP_CHAR_TARGET)) {
        return http_bad(error, 400, "bad request target");
    }
    if (rest.bytes != 8 || memcmp(rest.ptr, "HTTP/", 5) != 0 || !digit(rest.ptr[5]) ||
        rest.ptr[6] != '.' || !digit(rest.ptr[7])) {
        return http_bad(error, 400, "bad HTTP version");
    }
    if (rest.ptr[5] != '1' || rest.ptr[7] > '1') {
        return http_bad(error, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    r->minor = (uint8_t)(rest.ptr[7] - '0');

    bool asterisk = r->method == HTTP_OPTIONS && slice_is(r->target, "*");
    if (r->target.ptr[0] != '/' && !asterisk) {
        return http_bad(error, 400, "request target must be a path");
    }
    const uint8_t *mark = memchr(r->target.ptr, '?', r->target.bytes);
    r->has_query = mark != NULL;
    r->path = r->target;
    r->query = slice_of(r->target.ptr + r->target.bytes, 0);
    if (mark != NULL) {
        r->path.bytes = (uint32_t)(mark - r->target.ptr);
        r->query = slice_skip(r->target, r->path.bytes + 1);
    }
    return HTTP_OK;
}

static bool port_ok(struct slice port)
{
    uint32_t value = 0;

    if (port.bytes > PORT_DIGITS_MAX) return false;
    for (uint32_t i = 0; i < port.bytes; i++) {
        if (!digit(port.ptr[i])) return false;
        value = value * 10 + (uint32_t)(port.ptr[i] - '0');
    }
    return value <= PORT_MAX;
}

/* A name, an IPv4 address or an IPv6 address in brackets, then perhaps ":" and a port. Narrower
 * than RFC 3986, whose further characters occur in attacks only. */
static bool host_ok(struct slice host)
{
    uint32_t at = 0;

    if (host.bytes > 0 && host.ptr[0] == '[') {
        for (at = 1; at < host.bytes && host.ptr[at] != ']'; at++) {
            uint8_t c = host.ptr[at];
            if (http_hex(c) < 0 && c != ':' && c != '.') return false;
        }
        if (at == host.bytes || at < 3 || at > IPV6_BYTES_MAX + 1) return false;
        at++;
    } else {
        while (at < host.bytes && http_char_is(host.ptr[at], HTTP_CHAR_HOST)) at++;
        if (at == 0) return false;
    }
    if (at == host.bytes) return true;
    return host.ptr[at] == ':' && port_ok(slice_skip(host, at + 1));
}

static bool length_parse(struct slice value, uint64_t *out, bool *huge)
{
    *out = 0;
    if (value.bytes == 0) return false;
    for (uint32_t i = 0; i < value.bytes; i++) {
        if (!digit(value.ptr[i])) return false;
        if (__builtin_mul_overflow(*out, 10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(value.ptr[i] - '0'), out)) {
            *huge = true;
        }
    }
    return true;
}

/* The next element of a comma-separated list; false at its end. */
static bool list_next(struct slice *rest, struct slice *item)
{
    if (rest->bytes == 0) return false;
    const uint8_t *comma = memchr(rest->ptr, ',', rest->bytes);
    uint32_t bytes = comma != NULL ? (uint32_t)(comma - rest->ptr) : rest->bytes;
    *item = trim(slice_of(rest->ptr, bytes));
    *rest = slice_skip(*rest, comma != NULL ? bytes + 1 : bytes);
    return true;
}

static void connection_note(struct slice list, struct seen *seen)
{
    struct slice item;
    while (list_next(&list, &item)) {
        if (IS_NOCASE(item, "close")) seen->close = true;
        else if (IS_NOCASE(item, "keep-alive")) seen->keep_alive = true;
        else if (IS_NOCASE(item, "upgrade")) seen->upgrade = true;
    }
}

static void upgrade_note(struct slice list, struct seen *seen)
{
    struct slice item;
    while (list_next(&list, &item)) {
        if (IS_NOCASE(item, "websocket")) seen->websocket = true;
    }
}

/* Remember what matters for framing. Lengths differ, so most headers cost one comparison. */
static enum http_result header_note(const struct http_header *h, struct http_request *r,
                                    struct seen *seen, struct http_error *error)
{
    if (IS_NOCASE(h->name, "host")) {
        if (seen->hosts++ > 0) return http_bad(error, 400, "Host is repeated");
        if (!host_ok(h->value)) return http_bad(error, 400, "bad Host");
    } else if (IS_NOCASE(h->name, "content-length")) {
        if (seen->lengths++ > 0) return http_bad(error, 400, "Content-Length is repeated");
        if (!length_parse(h->value, &r->content_length, &seen->length_huge)) {
            return http_bad(error, 400, "bad Content-Length");
        }
    } else if (IS_NOCASE(h->name, "transfer-encoding")) {
        seen->encodings++;
        seen->encoding = h->value;
    } else if (IS_NOCASE(h->name, "connection")) {
        connection_note(h->value, seen);
    } else if (IS_NOCASE(h->name, "upgrade")) {
        upgrade_note(h->value, seen);
    } else if (IS_NOCASE(h->name, "expect")) {
        seen->expect = IS_NOCASE(h->value, "100-continue");
    }
    return HTTP_OK;
}

static enum http_result headers_parse(const struct http_limits *limits, struct slice section,
                                      struct http_request *r, struct seen *seen,
                                      struct http_error *error)
{
    while (section.bytes > 0) {
        const uint8_t *end = memchr(section.ptr, '\n', section.bytes);
        ASSERT(end != NULL && end > section.ptr && end[-1] == '\r');   /* head_find saw to it */
        struct slice line = slice_of(section.ptr, (uint32_t)(end - section.ptr) - 1);
        section = slice_skip(section, line.bytes + 2);

        if (r->headers_count == limits->headers_max) {
            return http_bad(error, 431, "too many headers");
        }
        ASSERT(line.bytes > 0);
        if (blank(line.ptr[0])) return http_bad(error, 400, "folded header line");
        const uint8_t *colon = memchr(line.ptr, ':', line.bytes);
        if (colon == NULL) return http_bad(error, 400, "header line without a colon");

        struct http_header *h = &r->headers[r->headers_count++];
        h->name = slice_of(line.ptr, (uint32_t)(colon - line.ptr));
        h->value = trim(slice_skip(line, h->name.bytes + 1));
        if (h->name.bytes == 0 || !all_of(h->name, HTTP_CHAR_TOKEN)) {
            return http_bad(error, 400, "bad header name");
        }
        if (!value_ok(h->value)) return http_bad(error, 400, "bad header value");
        enum http_result result = header_note(h, r, seen, error);
        if (result != HTTP_OK) return result;
    }
    return HTTP_OK;
}

/* The rules between headers. What two readers could frame differently is 400, before what this
 * server merely does not do (501) or does not want (413). */
static enum http_result framing_check(const struct http_limits *limits, struct http_request *r,
                                      const struct seen *seen, struct http_error *error)
{
    bool has_body = seen->encodings > 0 || r->content_length > 0 || seen->length_huge;

    if (seen->hosts == 0 && r->minor == 1) return http_bad(error, 400, "Host is missing");
    if (seen->encodings > 0 && seen->lengths > 0) {
        return http_bad(error, 400, "Content-Length with Transfer-Encoding");
    }
    if (seen->encodings > 0 && r->minor == 0) {
        return http_bad(error, 400, "Transfer-Encoding in HTTP/1.0");
    }
    r->keep_alive = !seen->close && (r->minor == 1 || seen->keep_alive);
    r->upgrade = seen->upgrade && seen->websocket && r->minor == 1;
    r->expect_continue = seen->expect && has_body && r->minor == 1;
    if (r->upgrade && has_body) return http_bad(error, 400, "upgrade with a body");
    if (seen->encodings > 0) {
        if (seen->encodings > 1 || !IS_NOCASE(seen->encoding, "chunked")) {
            return http_bad(error, 501, "unknown Transfer-Encoding");
        }
        r->chunked = true;
    }
    if (seen->length_huge || r->content_length > limits->body_bytes_max) {
        return http_bad(error, 413, "body is too large");
    }
    return HTTP_OK;
}

enum http_result http_parse(const struct http_limits *limits, struct slice in, uint32_t *scanned,
                            struct http_request *out, struct http_error *error)
{
    struct seen seen = {0};
    uint32_t start, head_end;
    enum http_result result;

    ASSERT(limits->headers_max <= HTTP_HEADERS_MAX);
    ASSERT(*scanned <= in.bytes);

    result = empty_lines(in, &start, error);
    if (result != HTTP_OK) return result;
    result = head_find(limits, in, start, scanned, &head_end, error);
    if (result != HTTP_OK) return result;

    /* Field by field: clearing the whole struct would touch 2 KiB of headers for every request. */
    out->content_length = 0;
    out->chunked = false;
    out->headers_count = 0;
    out->head_bytes = head_end;

    const uint8_t *line_end = memchr(in.ptr + start, '\r', head_end - start);
    if (line_end[1] != '\n') return http_bad(error, 400, "bare carriage return");
    struct slice line = slice_of(in.ptr + start, (uint32_t)(line_end - in.ptr) - start);
    result = line_parse(line, out, error);
    if (result != HTTP_OK) return result;

    uint32_t at = start + line.bytes + 2;
    struct slice section = slice_of(in.ptr + at, head_end - 2 - at);
    result = headers_parse(limits, section, out, &seen, error);
    if (result != HTTP_OK) return result;
    result = framing_check(limits, out, &seen, error);
    if (result == HTTP_OK) *scanned = 0;   /* the next head starts afresh */
    return result;
}

struct slice http_header(const struct http_request *r, const char *name)
{
    uint32_t bytes = (uint32_t)strlen(name);

    for (uint32_t i = 0; i < r->headers_count; i++) {
        struct slice have = r->headers[i].name;
        uint32_t at = 0;
        if (have.bytes != bytes) continue;
        while (at < bytes && lower(have.ptr[at]) == lower((uint8_t)name[at])) at++;
        if (at == bytes) return r->headers[i].value;
    }
    return slice_of(NULL, 0);
}
