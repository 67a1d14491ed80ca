/* fuzz_sign.c - signed requests of any bytes.
 *
 * The input is four lines: method, path, query, body (the rest). Properties: a parsed query is
 * sorted, its names are lower-case and unique, its slices lie in the scratch block, and encoding it
 * again gives the same pairs; a signature made the slow way over either form of the path is
 * accepted, and with one bit changed it is not.
 */
#include "tests/fuzz/fuzz.h"

#include <sodium.h>
#include <stdlib.h>

#include "proto/sign.h"

static const uint64_t now_s = 1700000000;

static uint8_t *block(size_t bytes)
{
    uint8_t *ptr = malloc(bytes == 0 ? 1 : bytes);
    ASSERT(ptr != NULL);
    return ptr;
}

static struct slice line_next(struct slice *rest)
{
    const uint8_t *end = rest->bytes > 0 ? memchr(rest->ptr, '\n', rest->bytes) : NULL;
    struct slice line = *rest;
    if (end == NULL) {
        *rest = slice_skip(*rest, rest->bytes);
        return line;
    }
    line.bytes = (uint32_t)(end - rest->ptr);
    *rest = slice_skip(*rest, line.bytes + 1);
    return line;
}

static void check_pairs(const struct sign_query *q, const uint8_t *scratch, uint32_t bytes)
{
    ASSERT(q->pairs_count >= 1 && q->pairs_count <= SIGN_QUERY_PAIRS_MAX);
    for (uint32_t i = 0; i < q->pairs_count; i++) {
        struct slice both[] = {q->names[i], q->values[i]};
        for (uint32_t k = 0; k < 2; k++) {
            ASSERT(both[k].ptr >= scratch && both[k].ptr + both[k].bytes <= scratch + bytes);
        }
        for (uint32_t k = 0; k < both[0].bytes; k++) {
            ASSERT(both[0].ptr[k] < 'A' || both[0].ptr[k] > 'Z');
        }
        if (i == 0) continue;
        struct slice before = q->names[i - 1];
        int order = memcmp(before.ptr, both[0].ptr, u32_min(before.bytes, both[0].bytes));
        ASSERT(order < 0 || (order == 0 && before.bytes < both[0].bytes));
    }
}

static uint8_t *encode(uint8_t *at, struct slice text)
{
    for (uint32_t i = 0; i < text.bytes; i++) {
        *at++ = '%';
        *at++ = (uint8_t)"0123456789abcdef"[text.ptr[i] >> 4];
        *at++ = (uint8_t)"0123456789ABCDEF"[text.ptr[i] & 15];
    }
    return at;
}

static void check_encoded_again(const struct sign_query *q, uint32_t query_bytes)
{
    uint8_t *query = block(4 * (size_t)query_bytes + 2 * SIGN_QUERY_PAIRS_MAX), *at = query;
    for (uint32_t i = q->pairs_count; i-- > 0;) {
        at = encode(at, q->names[i]);
        *at++ = '=';
        at = encode(at, q->values[i]);
        *at++ = '&';
    }
    uint32_t bytes = (uint32_t)(at - query);
    uint8_t *scratch = block(bytes);
    struct sign_query again;
    ASSERT(sign_query_parse(slice_of(query, bytes), true, scratch, &again) == SIGN_API_OK);
    ASSERT(again.pairs_count == q->pairs_count);
    for (uint32_t i = 0; i < q->pairs_count; i++) {
        ASSERT(slice_equal(again.names[i], q->names[i]));
        ASSERT(slice_equal(again.values[i], q->values[i]));
    }
    free(query);
    free(scratch);
}

static uint8_t *put(uint8_t *at, struct slice text)
{
    if (text.bytes > 0) memcpy(at, text.ptr, text.bytes);
    return at + text.bytes;
}

/* The signature of method, path and pairs, from the whole string in one piece. */
static void sign_slowly(const struct sign_query *q, struct slice method, struct slice path,
                        uint32_t query_bytes, struct slice secret, char hex[SIGN_HEX_BYTES])
{
    uint8_t *text = block((size_t)method.bytes + path.bytes + query_bytes + 2 + 130), *at = text;
    at = put(at, method);
    at = put(at, slice_str("\n"));
    at = put(at, path);
    at = put(at, slice_str("\n"));
    bool first = true;
    for (uint32_t i = 0; i < q->pairs_count; i++) {
        if (slice_is(q->names[i], "auth_signature")) continue;
        if (!first) *at++ = '&';
        first = false;
        at = put(at, q->names[i]);
        *at++ = '=';
        at = put(at, q->values[i]);
    }
    struct slice whole = slice_of(text, (uint32_t)(at - text));
    sign_hex(secret, &whole, 1, hex);
    free(text);
}

/* With the right signature the request passes; with one bit changed it does not. */
static void check_signed(struct sign_query *q, struct slice method, struct slice path,
                         struct slice body, struct slice secret, char hex[SIGN_HEX_BYTES])
{
    q->auth_signature = slice_of(hex, SIGN_HEX_BYTES);
    ASSERT(sign_api_check(q, method, path, body, secret, now_s) == SIGN_API_OK);
    uint32_t at = body.bytes % SIGN_HEX_BYTES;
    hex[at] ^= 1;
    ASSERT(sign_api_check(q, method, path, body, secret, now_s) == SIGN_API_BAD_SIGNATURE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct slice secret = {(const uint8_t *)"secret-xyz", 10};
    struct slice body = slice_of(data, (uint32_t)bytes);
    ASSERT(sodium_init() >= 0);
    struct slice method = line_next(&body), path = line_next(&body), query = line_next(&body);
    uint8_t *scratch = block(query.bytes);
    struct sign_query q;
    enum sign_api e = sign_query_parse(query, true, scratch, &q);
    if (e == SIGN_API_OK) {
        check_pairs(&q, scratch, query.bytes);
        check_encoded_again(&q, query.bytes);
        e = sign_api_check(&q, method, path, body, secret, now_s);
    }
    ASSERT(e == SIGN_API_OK || sign_api_text(e)[0] != 0);
    if (e == SIGN_API_OK || e == SIGN_API_BAD_SIGNATURE) {
        char hex[SIGN_HEX_BYTES];
        struct slice cut = path;
        if (cut.bytes > 1 && cut.ptr[cut.bytes - 1] == '/') cut.bytes--;
        sign_slowly(&q, method, cut, query.bytes, secret, hex);
        check_signed(&q, method, path, body, secret, hex);
        uint8_t *decoded = block(cut.bytes);
        int64_t decoded_bytes = http_decode(cut, false, decoded);
        if (decoded_bytes >= 0) {
            struct slice plain = slice_of(decoded, (uint32_t)decoded_bytes);
            sign_slowly(&q, method, plain, query.bytes, secret, hex);
            check_signed(&q, method, path, body, secret, hex);
        }
        free(decoded);
        struct slice parts[] = {method, path, body};
        uint8_t *auth = block(query.bytes + 1 + SIGN_HEX_BYTES);
        sign_hex(secret, parts, 3, hex);
        put(put(put(auth, query), slice_str(":")), slice_of(hex, SIGN_HEX_BYTES));
        struct slice text = slice_of(auth, query.bytes + 1 + SIGN_HEX_BYTES);
        ASSERT(sign_auth_valid(text, query, secret, parts, 3));
        auth[body.bytes % text.bytes] ^= 4;
        ASSERT(!sign_auth_valid(text, query, secret, parts, 3));
        free(auth);
    }
    free(scratch);
    return 0;
}
