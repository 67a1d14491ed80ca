/* Goal: signatures agree with the real SDK and nothing but the exact one is accepted.
 * Method: the documented vectors, each also with one thing changed; the order of checks by making
 * several things wrong at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <sodium.h>

#include "proto/sign.h"

static const char room_hex[] = "193ca4cc41aa83ade0918fad3c4d300f9d256f3ce2dc6f7b71f4dafa524eb126";
static const char presence_hex[] =
    "f4ea45554dfff0e5ae32853d63fd88759bee6b12372a491fa141d5ff55a96491";
static const char signin_hex[] = "5ec3e888f4753aebeefafcd7eb98b16c8a1260986af9e4d2162cf5ca70dc50e3";
static const char webhook_hex[] =
    "262a043ef60850b9df279268f317015c18d90551d305dc9308243b5f54c9b693";
static const char body[] = "{\"name\":\"ev\",\"channels\":[\"room\"],\"data\":\"{\\\"a\\\":1}\"}";
static const uint64_t then_s = 1700000000;

#define BASE "auth_key=key-abc&auth_timestamp=1700000000&auth_version=1.0"
#define MD5 "&body_md5=9792596ba62e112049430c145b4c75e9"
#define POST_SIGNATURE \
    "&auth_signature=b2eadead3beb4b6e64613877a3302dd44bb26aef332c4e70f85e01bd6cf461f9"
#define GET_SIGNATURE \
    "&auth_signature=35df8d4b9e093821cba0738a58a2b7ea9831f43a42c271efc2677599078f7c91"
#define GET_INFO "&filter_by_prefix=presence-&info=user_count"

static struct slice secret(void) { return slice_str("secret-xyz"); }

static void sign_channel_vectors_hold(void **state)
{
    static const struct { const char *parts[5], *hex; } list[] = {
        {{"123.456", ":", "private-room", "", ""}, room_hex},
        {{"123.456", ":", "presence-room", ":",
          "{\"user_id\":\"u1\",\"user_info\":{\"name\":\"Ann\"}}"}, presence_hex},
        {{"123.456", "::user::", "{\"id\":\"u1\"}", "", ""}, signin_hex},
        {{"{\"time_ms\":1700000000000,\"events\":[", "{\"name\":\"channel_occupied\",",
          "\"channel\":\"room\"}]}", "", ""}, webhook_hex},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct slice parts[5];
        char hex[SIGN_HEX_BYTES];
        for (uint32_t k = 0; k < 5; k++) parts[k] = slice_str(list[i].parts[k]);
        sign_hex(secret(), parts, 5, hex);
        assert_memory_equal(hex, list[i].hex, SIGN_HEX_BYTES);
    }
}

static bool room_auth(const char *auth)
{
    const struct slice parts[] = {slice_str("123.456"), slice_str(":"), slice_str("private-room")};
    return sign_auth_valid(slice_str(auth), slice_str("key-abc"), secret(), parts, 3);
}

static void sign_auth_accepts_the_exact_string_only(void **state)
{
    char auth[128];
    int bytes = sprintf(auth, "key-abc:%s", room_hex);
    assert_true(room_auth(auth));
    for (int i = 0; i < bytes; i++) {
        for (int bit = 0; bit < 8; bit++) {
            char kept = auth[i];
            auth[i] = (char)(auth[i] ^ 1 << bit);
            assert_false(room_auth(auth));
            auth[i] = kept;
        }
    }
    auth[bytes - 1] = 0;
    assert_false(room_auth(auth));
    sprintf(auth, "key-abc:%s0", room_hex);
    assert_false(room_auth(auth));
    sprintf(auth, "%s", room_hex);
    assert_false(room_auth(auth));
    sprintf(auth, "key-abc:%s", presence_hex);
    assert_false(room_auth(auth));
    assert_false(room_auth(""));
    assert_false(room_auth("key-abc:"));
    assert_false(sign_auth_valid(slice_of(NULL, 0), slice_str("k"), secret(), NULL, 0));
}

/* ---- signed requests ---- */

static uint8_t scratch[4096];

static enum sign_api parse(const char *query, struct sign_query *q)
{
    return sign_query_parse(slice_str(query), true, scratch, q);
}

static enum sign_api check_at(const char *method, const char *path, const char *query,
                              const char *content, uint64_t now_s)
{
    struct sign_query q;
    enum sign_api e = parse(query, &q);
    if (e != SIGN_API_OK) return e;
    return sign_api_check(&q, slice_str(method), slice_str(path), slice_str(content), secret(),
                          now_s);
}

static enum sign_api check(const char *method, const char *path, const char *query,
                           const char *content)
{
    return check_at(method, path, query, content, then_s);
}

static void sign_request_vectors_hold(void **state)
{
    assert_int_equal(check("POST", "/apps/42/events", BASE MD5 POST_SIGNATURE, body), SIGN_API_OK);
    assert_int_equal(check("GET", "/apps/42/channels", BASE GET_INFO GET_SIGNATURE, ""),
                     SIGN_API_OK);
    /* order and case of names, encoding of values and a trailing slash make no difference */
    assert_int_equal(check("GET", "/apps/42/channels/",
                           "info=user%5fcount&Filter_By_Prefix=presence%2D" GET_SIGNATURE
                           "&AUTH_version=1.0&auth_Timestamp=1700000000&auth_key=key-abc", ""),
                     SIGN_API_OK);
    assert_int_equal(check("GET", "/apps/42/channels",
                           BASE "&info=x" GET_INFO GET_SIGNATURE, ""), SIGN_API_OK);
}

static void sign_any_change_breaks_the_signature(void **state)
{
    assert_int_equal(check("PUT", "/apps/42/channels", BASE GET_INFO GET_SIGNATURE, ""),
                     SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("GET", "/apps/43/channels", BASE GET_INFO GET_SIGNATURE, ""),
                     SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("GET", "/apps/42/channels//", BASE GET_INFO GET_SIGNATURE, ""),
                     SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("GET", "/apps/42/channels", BASE GET_INFO "&x=1" GET_SIGNATURE, ""),
                     SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("GET", "/apps/42/channels", BASE GET_INFO "&info=z" GET_SIGNATURE, ""),
                     SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("GET", "/apps/42/channels", BASE GET_SIGNATURE, ""),
                     SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("GET", "/apps/42/channels", BASE GET_INFO, ""), SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("GET", "/apps/42/channels", BASE GET_INFO GET_SIGNATURE "0", ""),
                     SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("GET", "/apps/42/channels", BASE GET_INFO POST_SIGNATURE, ""),
                     SIGN_API_BAD_SIGNATURE);
}

/* Sign a GET of `path` with the base parameters and check it as a request of `sent`. */
static enum sign_api check_path(const char *path, const char *sent)
{
    const struct slice parts[] = {slice_str("GET\n"), slice_str(path), slice_str("\n" BASE)};
    char query[256], hex[SIGN_HEX_BYTES];
    sign_hex(secret(), parts, 3, hex);
    sprintf(query, BASE "&auth_signature=%.*s", SIGN_HEX_BYTES, hex);
    return check("GET", sent, query, "");
}

static void sign_either_form_of_the_path_may_be_signed(void **state)
{
    assert_int_equal(check_path("/apps/42/users/u%201", "/apps/42/users/u%201"), SIGN_API_OK);
    assert_int_equal(check_path("/apps/42/users/u 1", "/apps/42/users/u%201"), SIGN_API_OK);
    assert_int_equal(check_path("/a/\xc3\xa9+%", "/a/%c3%A9+%25/"), SIGN_API_OK);
    assert_int_equal(check_path("/", "/"), SIGN_API_OK);
    assert_int_equal(check_path("/a/u 1", "/a/u+1"), SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check_path("/a/u 1", "/a/u%2"), SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check_path("/a/u", "/a/u%zz"), SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check_path("/a/u%zz", "/a/u%zz"), SIGN_API_OK);
}

static void sign_query_is_decoded_sorted_and_bounded(void **state)
{
    struct sign_query q;
    assert_int_equal(parse("z=1&auth_key=k&B=2&a%62=x+y%26&b=3&&ab", &q), SIGN_API_OK);
    assert_int_equal(q.pairs_count, 4);
    assert_true(slice_is(q.names[0], "ab") && slice_is(q.values[0], ""));
    assert_true(slice_is(q.names[1], "auth_key") && slice_is(q.values[1], "k"));
    assert_true(slice_is(q.names[2], "b") && slice_is(q.values[2], "3"));
    assert_true(slice_is(q.names[3], "z") && slice_is(q.values[3], "1"));
    assert_true(slice_is(sign_query_get(&q, "b"), "3"));
    assert_null(sign_query_get(&q, "c").ptr);
    assert_null(q.body_md5.ptr);

    assert_int_equal(sign_query_parse(slice_of(NULL, 0), false, scratch, &q), SIGN_API_NO_QUERY);
    assert_int_equal(parse("", &q), SIGN_API_NO_QUERY);
    static const char *const bad[] = {
        "auth_key=a&auth_key=a", "auth_key=a&AUTH_KEY=b", "body_md5=a&body_md5=a",
        "auth_key=a&auth_x=1&auth_x=1", "auth_key=%", "auth_key=%4", "auth_key=%zz", "%zz=1",
        "auth_key=a&x=%ff", "auth_key=a&%c3=1",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(parse(bad[i], &q), SIGN_API_BAD_QUERY);
    }
    static const char *const no_key[] = {"a=1", "auth_key=", "auth_key", "xauth_key=1"};
    for (size_t i = 0; i < sizeof no_key / sizeof no_key[0]; i++) {
        assert_int_equal(parse(no_key[i], &q), SIGN_API_NO_KEY);
    }
    char many[2048];
    int bytes = sprintf(many, "auth_key=k");
    for (int i = 1; i < SIGN_QUERY_PAIRS_MAX; i++) {
        bytes += snprintf(many + bytes, sizeof many - (size_t)bytes, "&p%d=%d", i, i);
    }
    assert_int_equal(parse(many, &q), SIGN_API_OK);
    assert_int_equal(q.pairs_count, SIGN_QUERY_PAIRS_MAX);
    for (uint32_t i = 1; i < q.pairs_count; i++) {
        assert_true(memcmp(q.names[i - 1].ptr, q.names[i].ptr, 2) <= 0);
    }
    snprintf(many + bytes, sizeof many - (size_t)bytes, "&p1=1");
    assert_int_equal(parse(many, &q), SIGN_API_BAD_QUERY);
}

static void sign_timestamps_are_bounded_both_ways(void **state)
{
    static const char query[] = BASE GET_INFO GET_SIGNATURE;
    assert_int_equal(check_at("GET", "/apps/42/channels", query, "", then_s + 600), SIGN_API_OK);
    assert_int_equal(check_at("GET", "/apps/42/channels", query, "", then_s - 600), SIGN_API_OK);
    assert_int_equal(check_at("GET", "/apps/42/channels", query, "", then_s + 601),
                     SIGN_API_EXPIRED);
    assert_int_equal(check_at("GET", "/apps/42/channels", query, "", then_s - 601),
                     SIGN_API_EXPIRED);
    assert_int_equal(check("GET", "/", "auth_key=k", ""), SIGN_API_NO_TIMESTAMP);
    assert_int_equal(check("GET", "/", "auth_key=k&auth_timestamp=-5", ""), SIGN_API_EXPIRED);
    static const char *const bad[] = {"", "1.5", "x", "1700000000x", " 1", "-",
                                      "9999999999999999999", "0x10"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[128];
        sprintf(text, "auth_key=k&auth_timestamp=%s", bad[i]);
        assert_int_equal(check("GET", "/", text, ""), SIGN_API_BAD_TIMESTAMP);
    }
}

static void sign_body_md5_goes_with_the_body(void **state)
{
    assert_int_equal(check("POST", "/apps/42/events", BASE MD5 POST_SIGNATURE, "{}"),
                     SIGN_API_MD5_MISMATCH);
    assert_int_equal(check("POST", "/apps/42/events", BASE MD5 POST_SIGNATURE, ""),
                     SIGN_API_MD5_MISMATCH);
    assert_int_equal(check("POST", "/apps/42/events", BASE POST_SIGNATURE, body),
                     SIGN_API_MD5_MISSING);
    assert_int_equal(check("POST", "/apps/42/events", BASE "&body_md5=" POST_SIGNATURE, body),
                     SIGN_API_MD5_MISSING);
    assert_int_equal(check("GET", "/apps/42/channels", BASE MD5 GET_SIGNATURE, ""),
                     SIGN_API_MD5_FORBIDDEN);
    assert_int_equal(check("DELETE", "/apps/42/channels", BASE "&body_md5=" GET_SIGNATURE, ""),
                     SIGN_API_MD5_FORBIDDEN);
    assert_int_equal(check("GET", "/", BASE "&body_md5=d41d8cd98f00b204e9800998ecf8427e", ""),
                     SIGN_API_BAD_SIGNATURE);          /* it is right: this reaches the signature */
    /* an empty POST needs none, but a given one must be right: both reach the signature */
    assert_int_equal(check("POST", "/", BASE, ""), SIGN_API_BAD_SIGNATURE);
    assert_int_equal(check("POST", "/", BASE "&body_md5=d41d8cd98f00b204e9800998ecf8427e", ""),
                     SIGN_API_BAD_SIGNATURE);
}

static void sign_checks_come_in_the_documented_order(void **state)
{
    assert_int_equal(check("POST", "/", "auth_timestamp=x&body_md5=x", body), SIGN_API_NO_KEY);
    assert_int_equal(check("POST", "/", "auth_key=k&auth_timestamp=x&body_md5=x", body),
                     SIGN_API_BAD_TIMESTAMP);
    assert_int_equal(check("POST", "/", "auth_key=k&auth_timestamp=1&body_md5=x", body),
                     SIGN_API_EXPIRED);
    assert_int_equal(check("POST", "/", BASE "&body_md5=x", body), SIGN_API_MD5_MISMATCH);
}

static void sign_texts_are_exact(void **state)
{
    assert_string_equal(sign_api_text(SIGN_API_NO_QUERY),
                        "Missing authentication query parameters");
    assert_int_equal(strncmp(sign_api_text(SIGN_API_BAD_QUERY),
                             "Invalid authentication query parameters: ", 41), 0);
    assert_string_equal(sign_api_text(SIGN_API_NO_KEY),
                        "Application key not found or invalid: Invalid app key");
    assert_string_equal(sign_api_text(SIGN_API_NO_TIMESTAMP), "auth_timestamp is missing");
    assert_string_equal(sign_api_text(SIGN_API_BAD_TIMESTAMP), "Invalid auth_timestamp format");
    assert_string_equal(sign_api_text(SIGN_API_EXPIRED),
                        "Timestamp expired or too far in the future");
    assert_string_equal(sign_api_text(SIGN_API_MD5_MISMATCH), "body_md5 mismatch");
    assert_string_equal(sign_api_text(SIGN_API_MD5_MISSING),
                        "body_md5 is required and must be non-empty in query parameters for POST "
                        "requests with a non-empty body");
    assert_string_equal(sign_api_text(SIGN_API_MD5_FORBIDDEN),
                        "body_md5 must not be present in query parameters for GET requests");
    assert_string_equal(sign_api_text(SIGN_API_BAD_SIGNATURE), "Invalid API signature");
}

int main(void)
{
    if (sodium_init() < 0) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sign_channel_vectors_hold),
        cmocka_unit_test(sign_auth_accepts_the_exact_string_only),
        cmocka_unit_test(sign_request_vectors_hold),
        cmocka_unit_test(sign_any_change_breaks_the_signature),
        cmocka_unit_test(sign_either_form_of_the_path_may_be_signed),
        cmocka_unit_test(sign_query_is_decoded_sorted_and_bounded),
        cmocka_unit_test(sign_timestamps_are_bounded_both_ways),
        cmocka_unit_test(sign_body_md5_goes_with_the_body),
        cmocka_unit_test(sign_checks_come_in_the_documented_order),
        cmocka_unit_test(sign_texts_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
