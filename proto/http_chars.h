/* http_chars.h - which bytes may stand where in a request; for the three files behind http.h only.
 *
 * Shape    One table of class bits, and two helpers that these files share.
 * Threads  Pure.
 * Source   RFC 9110 5.5 and 5.6.2, RFC 3986, RFC 9112 2.2.
 */
#pragma once
#include "proto/http.h"

enum {
    HTTP_CHAR_TOKEN = 1,   /* method and header names */
    HTTP_CHAR_TARGET = 2,  /* printable ASCII; without '#', which never reaches a server */
    HTTP_CHAR_VALUE = 4,   /* header values: space, tab, printable ASCII, 80..FF */
    HTTP_CHAR_HOST = 8,    /* letters, digits and "-._": a name or an IPv4 address */
};
extern const uint8_t http_chars[256];

static inline bool http_char_is(uint8_t c, uint8_t class) { return http_chars[c] & class; }

/* 0 to 15, or -1. */
static inline int http_hex(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline enum http_result http_bad(struct http_error *error, uint16_t status,
                                        const char *text)
{
    *error = (struct http_error){status, text};
    return HTTP_BAD;
}
