/* fuzz_http.c - requests and chunked bodies: any split gives the same events; a request written out
 * again from its parts reads the same; what was encoded is what is decoded. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/run_http.h"

#include <stdio.h>

static const struct http_limits limits = {     /* small, so that inputs reach them */
    .line_bytes_max = 256, .head_bytes_max = 1024, .headers_max = 16, .body_bytes_max = 512,
};

static void splits_agree(const uint8_t *data, uint32_t bytes)
{
    struct run_log want = {0}, got = {0};
    uint32_t cuts[] = {1, bytes / 3, bytes / 2, bytes > 0 ? bytes - 1 : 0};

    run_http(&want, data, bytes, bytes, 1, &limits);
    for (uint32_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        run_http(&got, data, bytes, cuts[i], i == 0 ? 1 : bytes + 1, &limits);
        ASSERT(run_log_equal(&want, &got));
        run_log_free(&got);
    }
    run_log_free(&want);
}

static void put(struct run_log *out, const char *text) { run_log_put(out, text, strlen(text)); }

/* The parts of a head in their plainest form: no other reader sees anything else in it. */
static void head_comes_back(struct slice in)
{
    struct http_request r, again;
    struct http_error error;
    struct http_limits wide = limits;     /* ": " may add a byte for each header */
    struct run_log out = {0}, want = {0}, got = {0};
    uint32_t scanned = 0;

    if (http_parse(&limits, in, &scanned, &r, &error) != HTTP_OK) return;
    wide.head_bytes_max += HTTP_HEADERS_MAX;
    run_log_put(&out, r.method_text.ptr, r.method_text.bytes);
    put(&out, " ");
    run_log_put(&out, r.target.ptr, r.target.bytes);
    put(&out, r.minor == 1 ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n");
    for (uint32_t i = 0; i < r.headers_count; i++) {
        run_log_put(&out, r.headers[i].name.ptr, r.headers[i].name.bytes);
        put(&out, ": ");
        run_log_put(&out, r.headers[i].value.ptr, r.headers[i].value.bytes);
        put(&out, "\r\n");
    }
    put(&out, "\r\n");
    struct slice text = slice_of(out.ptr, (uint32_t)out.bytes);
    ASSERT(http_parse(&wide, text, &scanned, &again, &error) == HTTP_OK);
    ASSERT(again.head_bytes == text.bytes);   /* nothing of it is left over */
    run_http_head(&want, &r, in.ptr);
    run_http_head(&got, &again, out.ptr);
    ASSERT(run_log_equal(&want, &got));
    run_log_free(&out);
    run_log_free(&want);
    run_log_free(&got);
}

/* The data as chunks, decoded in place from pieces. */
static void chunks_come_back(struct slice body)
{
    struct run_log wire = {0};
    uint32_t chunk_bytes = body.bytes == 0 ? 1 : 1 + body.ptr[0] % 40;
    struct http_limits wide = limits;
    struct http_chunked c = {0};
    struct http_error error;
    uint32_t used, produced, at = 0, to = 0;
    enum http_result result = HTTP_NEED_MORE;

    wide.body_bytes_max = body.bytes;
    for (uint32_t from = 0; from < body.bytes; from += chunk_bytes) {
        uint32_t bytes = u32_min(chunk_bytes, body.bytes - from);
        char line[32];
        snprintf(line, sizeof line, from % 2 ? "%x\r\n" : "0%X;n=v\r\n", bytes);
        put(&wire, line);
        run_log_put(&wire, body.ptr + from, bytes);
        put(&wire, "\r\n");
    }
    put(&wire, "0\r\nTrailer: dropped\r\n\r\n");
    while (result == HTTP_NEED_MORE) {
        uint32_t piece = u32_min(1 + chunk_bytes / 2, (uint32_t)wire.bytes - at);
        ASSERT(piece > 0);
        result = http_chunked_feed(&c, &wide, wire.ptr + at, piece, wire.ptr + to, &used,
                                   &produced, &error);
        at += used;
        to += produced;
    }
    ASSERT(result == HTTP_OK && at == wire.bytes && to == body.bytes);
    ASSERT(to == 0 || memcmp(wire.ptr, body.ptr, to) == 0);
    run_log_free(&wire);
}

/* Every byte as %XX decodes to itself; decoding in place gives what decoding elsewhere gives. */
static void escapes_come_back(struct slice text)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    uint8_t *escaped = malloc(3 * (size_t)text.bytes + 1);
    uint8_t *copy = malloc((size_t)text.bytes + 1);
    ASSERT(escaped != NULL && copy != NULL);

    for (uint32_t i = 0; i < text.bytes; i++) {
        uint32_t low = text.ptr[i] & 15;
        escaped[3 * i] = '%';
        escaped[3 * i + 1] = (uint8_t)digits[text.ptr[i] >> 4];
        escaped[3 * i + 2] = (uint8_t)digits[low > 9 ? low + 6 : low];
    }
    ASSERT(http_decode(slice_of(escaped, 3 * text.bytes), true, escaped) == text.bytes);
    ASSERT(text.bytes == 0 || memcmp(escaped, text.ptr, text.bytes) == 0);

    if (text.bytes > 0) memcpy(copy, text.ptr, text.bytes);
    int64_t bytes = http_decode(text, true, escaped);
    ASSERT(http_decode(slice_of(copy, text.bytes), true, copy) == bytes);
    ASSERT(bytes <= 0 || memcmp(copy, escaped, (size_t)bytes) == 0);
    free(escaped);
    free(copy);
}

/* The pieces of a query cover it in order, with nothing but separators between them. */
static void query_is_covered(struct slice query)
{
    struct slice rest = query, name, value;
    const uint8_t *at = query.ptr, *end = query.ptr + query.bytes;

    while (http_query_next(&rest, &name, &value)) {
        while (at < name.ptr) ASSERT(*at++ == '&');
        at += name.bytes;
        ASSERT(name.bytes == 0 || memchr(name.ptr, '=', name.bytes) == NULL);
        if (at < value.ptr) ASSERT(*at++ == '=');
        ASSERT(at == value.ptr && (value.bytes == 0 || !memchr(at, '&', value.bytes)));
        at += value.bytes;
    }
    while (at < end) ASSERT(*at++ == '&');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct slice all = slice_of(data, (uint32_t)bytes);

    splits_agree(data, all.bytes);
    head_comes_back(all);
    chunks_come_back(all);
    escapes_come_back(all);
    query_is_covered(all);
    return 0;
}
