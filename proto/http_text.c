/* http_text.c - the small text parts of http.h: byte classes, percent-decoding, queries, names of
 * statuses. */
#include "proto/http_chars.h"

enum {
    TARGET = HTTP_CHAR_TARGET | HTTP_CHAR_VALUE,
    TOKEN = HTTP_CHAR_TOKEN | TARGET,
    HOST = HTTP_CHAR_HOST | TOKEN,
};

const uint8_t http_chars[256] = {
    ['\t'] = HTTP_CHAR_VALUE,
    [' '] = HTTP_CHAR_VALUE,
    ['!'] = TOKEN, ['"'] = TARGET, ['#'] = HTTP_CHAR_TOKEN | HTTP_CHAR_VALUE,
    ['$'] = TOKEN, ['%'] = TOKEN, ['&'] = TOKEN, ['\''] = TOKEN,
    ['('] = TARGET, [')'] = TARGET, ['*'] = TOKEN, ['+'] = TOKEN, [','] = TARGET,
    ['-'] = HOST, ['.'] = HOST, ['/'] = TARGET,
    ['0' ... '9'] = HOST,
    [':' ... '@'] = TARGET,
    ['A' ... 'Z'] = HOST,
    ['[' ... ']'] = TARGET,
    ['^'] = TOKEN, ['_'] = HOST, ['`'] = TOKEN,
    ['a' ... 'z'] = HOST,
    ['{'] = TARGET, ['|'] = TOKEN, ['}'] = TARGET, ['~'] = TOKEN,
    [0x80 ... 0xff] = HTTP_CHAR_VALUE,
};

int64_t http_decode(struct slice in, bool form, uint8_t *out)
{
    uint32_t at = 0;
    uint8_t *to = out;

    while (at < in.bytes) {
        uint8_t c = in.ptr[at++];
        if (c == '%') {
            if (in.bytes - at < 2) return -1;
            int high = http_hex(in.ptr[at]);
            int low = http_hex(in.ptr[at + 1]);
            if (high < 0 || low < 0) return -1;
            c = (uint8_t)(high << 4 | low);
            at += 2;
        } else if (c == '+' && form) {
            c = ' ';
        }
        *to++ = c;
    }
    return to - out;
}

/* Cut off everything before the first `mark`, and the mark. Without one: all of it. */
static struct slice cut(struct slice *rest, uint8_t mark)
{
    const uint8_t *end = rest->bytes > 0 ? memchr(rest->ptr, mark, rest->bytes) : NULL;
    struct slice head = *rest;

    if (end == NULL) {
        *rest = slice_skip(*rest, rest->bytes);
        return head;
    }
    head.bytes = (uint32_t)(end - rest->ptr);
    *rest = slice_skip(*rest, head.bytes + 1);
    return head;
}

bool http_query_next(struct slice *rest, struct slice *name, struct slice *value)
{
    while (rest->bytes > 0) {
        struct slice piece = cut(rest, '&');
        if (piece.bytes == 0) continue;
        *name = cut(&piece, '=');
        *value = piece;
        return true;
    }
    return false;
}

const char *http_status_text(uint16_t status)
{
    switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 426: return "Upgrade Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Unknown";
    }
}
