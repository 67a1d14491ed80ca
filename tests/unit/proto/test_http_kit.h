/* test_http_kit.h - what test_http.c and test_http_body.c share.
 *
 * Shape    Limits that are easy to reach, literals with their lengths, and the split property.
 * Threads  One.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "tests/fuzz/run_http.h"

static const struct http_limits limits = {
    .line_bytes_max = 200, .head_bytes_max = 1000, .headers_max = 8, .body_bytes_max = 100,
};

struct text {
    const char *ptr;
    uint32_t    bytes;
    uint16_t    status;
};
#define TEXT(literal, status) {literal, sizeof(literal) - 1, status}
#define LINE "GET /a HTTP/1.1\r\n"
#define HEAD LINE "Host: h\r\n"
#define POST "POST /a HTTP/1.1\r\nHost: h\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Whole, in every two pieces and byte by byte: always the same events. */
static void splits_agree(const char *ptr, uint32_t bytes)
{
    struct run_log want = {0}, got = {0};
    run_http(&want, (const uint8_t *)ptr, bytes, bytes, bytes + 1, &limits);
    for (uint32_t cut = 0; cut <= bytes + 1; cut++) {
        bool single = cut == bytes + 1;
        run_http(&got, (const uint8_t *)ptr, bytes, single ? 1 : cut, single ? 1 : bytes + 1,
                 &limits);
        if (!run_log_equal(&want, &got)) fail_msg("split at %u of: %.*s", cut, (int)bytes, ptr);
        run_log_free(&got);
    }
    run_log_free(&want);
}
