/* Goal: allowed_origins and CORS patterns match what the protocol page says.
 * Method: a table of pattern, origin and answer; a table of patterns that could never be meant.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/origin.h"

static void origin_patterns_match_as_documented(void **state)
{
    static const struct { const char *pattern, *origin; bool matches; } list[] = {
        {"*", "", true}, {"any", "", true}, {"ANY", "http://a.com", true}, {"*", "null", true},
        {"https://a.com", "", false}, {"*.a.com", "", false}, {"a*", "", false},
        {"https://a.com", "https://a.com", true}, {"https://A.com", "HTTPS://a.COM", true},
        {"https://a.com", "http://a.com", false}, {"https://a.com", "https://a.com:8443", false},
        {"https://a.com", "https://a.com.evil.org", false},
        {"https://a.com", "https://b.a.com", false},
        {"a.com", "https://a.com", true}, {"a.com", "http://a.com", true},
        {"a.com", "http://a.com:3000", false}, {"a.com:3000", "http://a.com:3000", true},
        {"a.com", "https://xa.com", false}, {"null", "null", true},
        {"null", "http://null.x", false},
        {"*.a.com", "https://a.com", true}, {"*.a.com", "http://x.A.com", true},
        {"*.a.com", "https://x.y.a.com", true}, {"*.a.com", "https://xa.com", false},
        {"*.a.com", "https://a.com.evil.org", false}, {"*.a.com", "https://.a.com", false},
        {"*.a.com:81", "http://x.a.com:81", true}, {"*.a.com", "http://x.a.com:81", false},
        {"https://*.a.com", "https://x.a.com", true}, {"https://*.a.com", "https://a.com", false},
        {"https://*.a.com", "http://x.a.com", false}, {"https://*", "https://x:1", true},
        {"https://*", "http://x", false}, {"*://a.com", "http://a.com", true},
        {"*://a.com", "http://b.a.com", false}, {"localhost:*", "http://localhost:3000", true},
        {"localhost:*", "http://localhost", false}, {"app-*.a.com", "https://app-7.a.com", true},
        {"app-*.a.com", "https://app.a.com", false}, {"ab*ba", "http://aba", false},
        {"ab*ba", "http://abba", true}, {"http://*:*", "http://a:1", false},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (origin_matches(slice_str(list[i].origin), slice_str(list[i].pattern)) !=
            list[i].matches) {
            fail_msg("%s against %s", list[i].pattern, list[i].origin);
        }
    }
    assert_true(origin_matches(slice_of(NULL, 0), slice_str("*")));
    assert_false(origin_matches(slice_of(NULL, 0), slice_str("a.com")));
}

static void origin_senseless_patterns_are_refused(void **state)
{
    static const char *const bad[] = {
        "", "**", "*.*", "a*b*", "https://", "://a.com", "://", "*://", "*.", "https://*.", ":80",
        "http://:80", "*.a.com:*",
    };
    static const char *const good[] = {
        "*", "any", "Any", "a.com", "a.com:80", "*.a.com", "https://a.com", "https://*",
        "*://a.com", "https://*.a.com", "localhost:*", "null", "http://[::1]:3000",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (origin_pattern_valid(slice_str(bad[i]))) fail_msg("accepted: %s", bad[i]);
        assert_false(origin_matches(slice_str(bad[i]), slice_str(bad[i])));
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!origin_pattern_valid(slice_str(good[i]))) fail_msg("refused: %s", good[i]);
    }
    assert_false(origin_pattern_valid(slice_of(NULL, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(origin_patterns_match_as_documented),
        cmocka_unit_test(origin_senseless_patterns_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
