/* sign.h - the signatures of the Pusher protocol. Secrets stay in here; comparisons are constant
 * time.
 *
 * Threads  Pure. sodium_init must have run (main).
 * Memory   No allocation: libsodium HMAC; OpenSSL's low-level MD5.
 * Source   spec/pusher-v1.md 3.2, 5, 7.1 with their test vectors.
 */
#pragma once
#include "core/base.h"
#include "proto/http.h"

enum { SIGN_HEX_BYTES = 64, SIGN_MD5_HEX_BYTES = 32, SIGN_PARTS_MAX = 8 };

/* Lower-case hex HMAC-SHA256 of the parts, concatenated. */
void sign_hex(struct slice secret, const struct slice *parts, uint32_t parts_count,
              char out[SIGN_HEX_BYTES]);

/* auth = "{key}:{hex}", where hex signs the parts. Compared as a whole, in constant time. */
bool sign_auth_valid(struct slice auth, struct slice key, struct slice secret,
                     const struct slice *parts, uint32_t parts_count);

/* Signed HTTP requests (7.1), in the reference's order of checks. */
enum sign_api {
    SIGN_API_OK, SIGN_API_NO_QUERY, SIGN_API_BAD_QUERY, SIGN_API_NO_KEY, SIGN_API_NO_TIMESTAMP,
    SIGN_API_BAD_TIMESTAMP, SIGN_API_EXPIRED, SIGN_API_MD5_MISMATCH, SIGN_API_MD5_MISSING,
    SIGN_API_MD5_FORBIDDEN, SIGN_API_BAD_SIGNATURE,
};

enum { SIGN_QUERY_PAIRS_MAX = 64 };
struct sign_query {                        /* a decoded query: names lower-cased, sorted */
    uint32_t     pairs_count;
    struct slice names[SIGN_QUERY_PAIRS_MAX], values[SIGN_QUERY_PAIRS_MAX];
    struct slice auth_key, auth_timestamp, auth_signature, body_md5; /* ptr NULL when absent */
};

/* Decode into scratch (at least query.bytes). On a repeated name the last value wins, except that
 * an auth parameter given twice is SIGN_API_BAD_QUERY, as are names and values that do not decode
 * to UTF-8. Returns OK, NO_QUERY (an empty one too), BAD_QUERY or NO_KEY. */
enum sign_api sign_query_parse(struct slice query, bool has_query, uint8_t *scratch,
                               struct sign_query *out);
/* The value of a query parameter (lower-case name); ptr NULL when absent. */
struct slice sign_query_get(const struct sign_query *q, const char *name);

/* Timestamp, body_md5 and signature of a parsed query; path without the query, as received. Either
 * the received or the percent-decoded form of the path may have been signed. An empty POST body
 * needs no body_md5 (spec/settled.md 19); other methods need none, and may have the right one. */
enum sign_api sign_api_check(const struct sign_query *q, struct slice method, struct slice path,
                             struct slice body, struct slice secret, uint64_t now_unix_s);

/* The documented error text and status (401 or 400) of a failure, for the method named in
 * SIGN_API_MD5_FORBIDDEN; "GET" by default. */
const char *sign_api_text(enum sign_api e);
