/* MD5 here is no security: body_md5 is a field of the protocol, covered by the HMAC. */
#define OPENSSL_SUPPRESS_DEPRECATED  /* MD5_*: the EVP replacement allocates on every call */
#include "proto/sign.h"

#include <openssl/md5.h>
#include <sodium.h>

#include "proto/utf8.h"

enum { TIMESTAMP_LEEWAY_S = 600, TIMESTAMP_DIGITS_MAX = 18 };

static void hmac_open(struct crypto_auth_hmacsha256_state *h, struct slice secret)
{
    crypto_auth_hmacsha256_init(h, secret.ptr, secret.bytes);
}

static void hmac_add(struct crypto_auth_hmacsha256_state *h, struct slice part)
{
    if (part.bytes > 0) crypto_auth_hmacsha256_update(h, part.ptr, part.bytes);
}

/* Lower-case hex of `bytes` bytes, without a final zero. */
static void hex_write(const uint8_t *from, uint32_t bytes, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (uint32_t i = 0; i < bytes; i++) {
        out[2 * i] = digits[from[i] >> 4];
        out[2 * i + 1] = digits[from[i] & 15];
    }
}

static void hmac_close(struct crypto_auth_hmacsha256_state *h, char out[SIGN_HEX_BYTES])
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    static_assert(sizeof mac * 2 == SIGN_HEX_BYTES, "hex doubles");
    crypto_auth_hmacsha256_final(h, mac);
    sodium_memzero(h, sizeof *h);
    hex_write(mac, sizeof mac, out);
}

void sign_hex(struct slice secret, const struct slice *parts, uint32_t parts_count,
              char out[SIGN_HEX_BYTES])
{
    struct crypto_auth_hmacsha256_state h;
    ASSERT(parts_count <= SIGN_PARTS_MAX);
    hmac_open(&h, secret);
    for (uint32_t i = 0; i < parts_count; i++) hmac_add(&h, parts[i]);
    hmac_close(&h, out);
}

/* The time depends on the lengths alone; the length of an app key is no secret. */
bool sign_auth_valid(struct slice auth, struct slice key, struct slice secret,
                     const struct slice *parts, uint32_t parts_count)
{
    char hex[SIGN_HEX_BYTES];
    if (auth.bytes != (uint64_t)key.bytes + 1 + SIGN_HEX_BYTES) return false;
    sign_hex(secret, parts, parts_count, hex);
    int differs = key.bytes > 0 ? sodium_memcmp(auth.ptr, key.ptr, key.bytes) : 0;
    differs |= auth.ptr[key.bytes] ^ ':';
    differs |= sodium_memcmp(auth.ptr + key.bytes + 1, hex, SIGN_HEX_BYTES);
    return differs == 0;
}

/* ---- the query of a signed request ---- */

static int name_compare(struct slice a, struct slice b)
{
    uint32_t common = u32_min(a.bytes, b.bytes);
    int order = common > 0 ? memcmp(a.ptr, b.ptr, common) : 0;
    return order != 0 ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

/* Decode one piece to *at and move it on. */
static bool decode(struct slice in, uint8_t **at, struct slice *out)
{
    int64_t bytes = http_decode(in, true, *at);
    if (bytes < 0) return false;
    *out = slice_of(*at, (uint32_t)bytes);
    *at += bytes;
    return utf8_valid(*out);
}

/* Insert in order of names. False: an auth parameter given twice. At most 64 pairs: a linear
 * search costs less than anything clever. */
static bool pair_insert(struct sign_query *q, struct slice name, struct slice value)
{
    uint32_t at = q->pairs_count;
    while (at > 0) {
        int order = name_compare(q->names[at - 1], name);
        if (order < 0) break;
        at--;
        if (order > 0) continue;
        q->values[at] = value;
        return !slice_starts(name, "auth_") && !slice_is(name, "body_md5");
    }
    uint32_t behind = q->pairs_count - at;
    memmove(&q->names[at + 1], &q->names[at], behind * sizeof q->names[0]);
    memmove(&q->values[at + 1], &q->values[at], behind * sizeof q->values[0]);
    q->names[at] = name;
    q->values[at] = value;
    q->pairs_count++;
    return true;
}

struct slice sign_query_get(const struct sign_query *q, const char *name)
{
    for (uint32_t i = 0; i < q->pairs_count; i++) {
        if (slice_is(q->names[i], name)) return q->values[i];
    }
    return (struct slice){NULL, 0};
}

enum sign_api sign_query_parse(struct slice query, bool has_query, uint8_t *scratch,
                               struct sign_query *out)
{
    struct slice name, value;
    uint8_t *at = scratch;
    uint32_t pairs = 0;
    out->pairs_count = 0;
    out->auth_key = out->auth_timestamp = out->auth_signature = out->body_md5 = slice_of(NULL, 0);
    if (!has_query || query.bytes == 0) return SIGN_API_NO_QUERY;
    for (struct slice rest = query; http_query_next(&rest, &name, &value);) {
        if (pairs++ == SIGN_QUERY_PAIRS_MAX) return SIGN_API_BAD_QUERY;
        uint8_t *start = at;
        if (!decode(name, &at, &name) || !decode(value, &at, &value)) return SIGN_API_BAD_QUERY;
        for (uint32_t i = 0; i < name.bytes; i++) {
            if (start[i] >= 'A' && start[i] <= 'Z') start[i] += 'a' - 'A';
        }
        if (!pair_insert(out, name, value)) return SIGN_API_BAD_QUERY;
    }
    out->auth_key = sign_query_get(out, "auth_key");
    out->auth_timestamp = sign_query_get(out, "auth_timestamp");
    out->auth_signature = sign_query_get(out, "auth_signature");
    out->body_md5 = sign_query_get(out, "body_md5");
    return out->auth_key.bytes == 0 ? SIGN_API_NO_KEY : SIGN_API_OK;
}

/* ---- checking a signed request ---- */

static enum sign_api timestamp_check(struct slice text, uint64_t now_unix_s)
{
    if (text.ptr == NULL) return SIGN_API_NO_TIMESTAMP;
    bool negative = slice_starts(text, "-");
    struct slice digits = slice_skip(text, negative);
    if (digits.bytes == 0 || digits.bytes > TIMESTAMP_DIGITS_MAX) return SIGN_API_BAD_TIMESTAMP;
    uint64_t value = 0;
    for (uint32_t i = 0; i < digits.bytes; i++) {
        uint8_t c = digits.ptr[i];
        if (c < '0' || c > '9') return SIGN_API_BAD_TIMESTAMP;
        value = value * 10 + (c - '0');
    }
    uint64_t off = value > now_unix_s ? value - now_unix_s : now_unix_s - value;
    return negative || off > TIMESTAMP_LEEWAY_S ? SIGN_API_EXPIRED : SIGN_API_OK;
}

static bool is_md5_of(struct slice text, struct slice body)
{
    MD5_CTX context;
    uint8_t digest[MD5_DIGEST_LENGTH];
    char hex[SIGN_MD5_HEX_BYTES];
    MD5_Init(&context);
    if (body.bytes > 0) MD5_Update(&context, body.ptr, body.bytes);
    MD5_Final(digest, &context);
    hex_write(digest, sizeof digest, hex);
    return slice_equal(text, slice_of(hex, sizeof hex));
}

static enum sign_api body_check(const struct sign_query *q, struct slice method,
                                struct slice body)
{
    if (!slice_is(method, "POST")) {       /* the Python SDK says that nothing is in the body */
        return q->body_md5.ptr == NULL || is_md5_of(q->body_md5, body) ? SIGN_API_OK
                                                                       : SIGN_API_MD5_FORBIDDEN;
    }
    if (q->body_md5.bytes == 0) return body.bytes == 0 ? SIGN_API_OK : SIGN_API_MD5_MISSING;
    return is_md5_of(q->body_md5, body) ? SIGN_API_OK : SIGN_API_MD5_MISMATCH;
}

/* Add the path piece by piece, percent-decoded: its length is bounded by the request line only, so
 * there is no buffer for it. False when it cannot be decoded. */
static bool path_add_decoded(struct crypto_auth_hmacsha256_state *h, struct slice path)
{
    while (path.bytes > 0) {
        const uint8_t *percent = memchr(path.ptr, '%', path.bytes);
        uint32_t run = percent != NULL ? (uint32_t)(percent - path.ptr) : path.bytes;
        hmac_add(h, slice_of(path.ptr, run));
        path = slice_skip(path, run);
        if (path.bytes == 0) break;
        uint8_t decoded[3];
        if (http_decode(slice_of(path.ptr, u32_min(path.bytes, 3)), false, decoded) != 1) {
            return false;
        }
        hmac_add(h, slice_of(decoded, 1));
        path = slice_skip(path, 3);
    }
    return true;
}

/* Is this the signature over the path as received, or percent-decoded? */
static bool signature_matches(const struct sign_query *q, struct slice method, struct slice path,
                              bool decoded, struct slice secret)
{
    struct crypto_auth_hmacsha256_state h;
    char hex[SIGN_HEX_BYTES];
    bool possible = true, first = true;
    if (q->auth_signature.bytes != SIGN_HEX_BYTES) return false;
    hmac_open(&h, secret);
    hmac_add(&h, method);
    hmac_add(&h, slice_str("\n"));
    if (decoded) possible = path_add_decoded(&h, path);
    else hmac_add(&h, path);
    hmac_add(&h, slice_str("\n"));
    for (uint32_t i = 0; i < q->pairs_count; i++) {
        if (slice_is(q->names[i], "auth_signature")) continue;
        if (!first) hmac_add(&h, slice_str("&"));
        first = false;
        hmac_add(&h, q->names[i]);
        hmac_add(&h, slice_str("="));
        hmac_add(&h, q->values[i]);
    }
    hmac_close(&h, hex);
    return sodium_memcmp(q->auth_signature.ptr, hex, SIGN_HEX_BYTES) == 0 && possible;
}

enum sign_api sign_api_check(const struct sign_query *q, struct slice method, struct slice path,
                             struct slice body, struct slice secret, uint64_t now_unix_s)
{
    enum sign_api e = timestamp_check(q->auth_timestamp, now_unix_s);
    if (e == SIGN_API_OK) e = body_check(q, method, body);
    if (e != SIGN_API_OK) return e;
    if (path.bytes > 1 && path.ptr[path.bytes - 1] == '/') path.bytes--;
    if (signature_matches(q, method, path, false, secret)) return SIGN_API_OK;
    bool encoded = path.bytes > 0 && memchr(path.ptr, '%', path.bytes) != NULL;
    return encoded && signature_matches(q, method, path, true, secret) ? SIGN_API_OK
                                                                      : SIGN_API_BAD_SIGNATURE;
}

const char *sign_api_text(enum sign_api e)
{
    switch (e) {
    case SIGN_API_OK: return "";
    case SIGN_API_NO_QUERY: return "Missing authentication query parameters";
    case SIGN_API_BAD_QUERY:
        return "Invalid authentication query parameters: not decodable, too many, or an "
               "authentication parameter given twice";
    case SIGN_API_NO_KEY: return "Application key not found or invalid: Invalid app key";
    case SIGN_API_NO_TIMESTAMP: return "auth_timestamp is missing";
    case SIGN_API_BAD_TIMESTAMP: return "Invalid auth_timestamp format";
    case SIGN_API_EXPIRED: return "Timestamp expired or too far in the future";
    case SIGN_API_MD5_MISMATCH: return "body_md5 mismatch";
    case SIGN_API_MD5_MISSING:
        return "body_md5 is required and must be non-empty in query parameters for POST requests "
               "with a non-empty body";
    case SIGN_API_MD5_FORBIDDEN:
        return "body_md5 must not be present in query parameters for GET requests";
    case SIGN_API_BAD_SIGNATURE: return "Invalid API signature";
    }
    ASSERT(false);
}
