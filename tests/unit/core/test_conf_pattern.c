/* test_conf_pattern.c - regular expressions for names.
 *
 * Goal    A pattern is found where other engines find it, is refused where they would read it
 *         otherwise, and costs the same however it is written.
 * Method  Tables of patterns and texts; random patterns, each made together with the set of short
 *         texts that it takes, worked out from the sets of its parts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/conf_pattern.h"
#include "core/rng.h"

static bool found(const char *pattern, const char *text)
{
    struct conf_pattern *p = conf_pattern_compile(pattern);

    if (p == NULL) fail_msg("refused: %s", pattern);
    bool yes = conf_pattern_found(p, slice_str(text));
    conf_pattern_free(&p);
    assert_null(p);
    return yes;
}

static void patterns_are_found_where_they_are(void **state)
{
    static const struct { const char *pattern, *yes[4], *no[4]; } list[] = {
        {"", {"", "a"}, {NULL}},
        {"b", {"b", "abc"}, {"", "ac"}},
        {"^b", {"b", "bc"}, {"ab"}},
        {"b$", {"b", "ab"}, {"ba"}},
        {"^$", {""}, {"a"}},
        {"^a|b$", {"ax", "xb"}, {"xa", "bx"}},
        {"^(a|b)$", {"a", "b"}, {"ab", ""}},
        {"^(?:a|)b$", {"ab", "b"}, {"aab"}},
        {"^a*b+c?$", {"b", "aabbc", "bb"}, {"ac", "abcc"}},
        {"^a*?b+?c??$", {"b", "aabbc", "bb"}, {"ac", "abcc"}},
        {"^a{2}$", {"aa"}, {"a", "aaa"}},
        {"^a{2,}$", {"aa", "aaaaa"}, {"a"}},
        {"^a{1,3}$", {"a", "aaa"}, {"", "aaaa"}},
        {"^(ab){0,2}$", {"", "ab", "abab"}, {"a", "ababab"}},
        {"^a{0}b$", {"b"}, {"ab"}},
        {"^(a*)*b$", {"b", "aab"}, {"aa"}},
        {"^(a?){3}$", {"", "a", "aaa"}, {"aaaa"}},
        {"^[a-cx]+$", {"abcx"}, {"d", ""}},
        {"^[^a-c]$", {"d", "\n", "-"}, {"b", ""}},
        {"^[]a]+$", {"]a"}, {"b"}},
        {"^[^]a]+$", {"b"}, {"]"}},
        {"^[a-]+$", {"a-"}, {"b"}},
        {"^[-a]+$", {"a-"}, {"b"}},
        {"^[[:alpha:]_]+$", {"aZ_"}, {"1"}},
        {"^[\\d.]+$", {"1.2"}, {"a"}},
        {"^[^\\w-]$", {"."}, {"a", "-", "_"}},
        {"^[\\]\\\\]+$", {"]\\"}, {"["}},
        {"^\\d\\D\\w\\W\\s\\S$", {"1a_- a"}, {"aa_- a", "11_- a", "1a-- a", "1a__ a"}},
        {"^.$", {"a", "-"}, {"\n", ""}},
        {"^\\.\\*\\[$", {".*["}, {"a*["}},
        {"a]b}c", {"a]b}c"}, {"abc"}},
        {"^rooms:[a-z0-9-]{1,36}$", {"rooms:a-1"}, {"rooms:", "rooms:A"}},
    };
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        for (size_t k = 0; k < 4 && list[i].yes[k] != NULL; k++)
            if (!found(list[i].pattern, list[i].yes[k]))
                fail_msg("%s not found in %s", list[i].pattern, list[i].yes[k]);
        for (size_t k = 0; k < 4 && list[i].no[k] != NULL; k++)
            if (found(list[i].pattern, list[i].no[k]))
                fail_msg("%s found in %s", list[i].pattern, list[i].no[k]);
    }
}

static void other_patterns_are_refused(void **state)
{
    static const char *const bad[] = {
        "(", ")", "a)", "(a", "[", "[a", "[]", "[^]", "[^", "*", "+a", "?", "{1}", "(*)", "|*",
        "a{", "a{}", "a{,2}", "a{2,1}", "a{1001}", "a{1", "a{1,", "a{99999999999999999999}",
        "\\", "\\1", "\\b", "\\B", "\\A", "\\z", "\\n", "\\x41", "\\pL", "\\Q", "\\<", "[\\b]",
        "[z-a]", "[a-\\d]", "[\\d-a]", "[a&&b]", "[a--b]", "[a~~b]", "[[a]]", "[[:colour:]]",
        "[[:^alpha:]]", "[[.a.]]", "[[=a=]]", "[a-", "(?i)a", "(?=a)", "(?!a)", "(?<n>a)",
        "(?P<n>a)", "(?", "caf\xc3\xa9", "[\xc3\xa9]",
        "(a{100}){100}", "((((a{9}){9}){9}){9}){9}", "(((((((){999}){999}){999}){999}){999}){999})",
    };
    char deep[CONF_PATTERN_BYTES_MAX + 2];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (conf_pattern_compile(bad[i]) != NULL) fail_msg("taken: %s", bad[i]);
    memset(deep, 'a', sizeof(deep));
    deep[CONF_PATTERN_BYTES_MAX + 1] = '\0';
    assert_null(conf_pattern_compile(deep));
    deep[CONF_PATTERN_BYTES_MAX] = '\0';
    assert_true(found(deep, deep));
    for (uint32_t depth = CONF_PATTERN_DEPTH_MAX; depth <= CONF_PATTERN_DEPTH_MAX + 1; depth++) {
        memset(deep, '(', depth);
        memset(deep + depth, ')', depth);
        deep[2 * depth] = '\0';
        struct conf_pattern *p = conf_pattern_compile(deep);
        assert_int_equal(p != NULL, depth == CONF_PATTERN_DEPTH_MAX);
        conf_pattern_free(&p);
    }
}

/* ---- against sets of texts ------------------------------------------------------------------ */

/* All texts of a and b up to four letters, numbered by length, then by letters. */
enum { TEXTS = 1 + 2 + 4 + 8 + 16, TEXT_MAX = 4 };

static const char *text_of(uint32_t i)
{
    static char text[TEXT_MAX + 1];
    uint32_t length = 0, first = 0;

    while (i >= first + (1u << length)) first += 1u << length++;
    for (uint32_t k = 0; k < length; k++) text[k] = (char)('a' + ((i - first) >> k & 1));
    text[length] = '\0';
    return text;
}

static uint32_t index_of(const char *text)
{
    uint32_t length = (uint32_t)strlen(text), i = (1u << length) - 1;

    for (uint32_t k = 0; k < length; k++) i += (uint32_t)(text[k] - 'a') << k;
    return i;
}

/* The texts, of at most four letters, that are one of `x` followed by one of `y`. */
static uint32_t joined(uint32_t x, uint32_t y)
{
    uint32_t both = 0;

    for (uint32_t i = 0; i < TEXTS; i++) {
        for (uint32_t k = 0; (x >> i & 1) && k < TEXTS; k++) {
            char text[2 * TEXT_MAX + 1];
            if (!(y >> k & 1)) continue;
            strcpy(text, text_of(i));
            strcat(text, text_of(k));
            if (strlen(text) <= TEXT_MAX) both |= 1u << index_of(text);
        }
    }
    return both;
}

/* Appends a random pattern to `out`; answers the set of texts that it takes whole. */
static uint32_t grow(struct rng *r, char *out, uint32_t depth)
{
    uint32_t set, more;

    switch (depth == 0 ? rng_below(r, 3) : rng_below(r, 8)) {
    case 0: strcat(out, "a"); return 1u << index_of("a");
    case 1: strcat(out, "b"); return 1u << index_of("b");
    case 2: strcat(out, "."); return 1u << index_of("a") | 1u << index_of("b");
    case 3:
    case 4:
        strcat(out, "(");
        set = grow(r, out, depth - 1);
        strcat(out, "|");
        set |= grow(r, out, depth - 1);
        strcat(out, ")");
        return set;
    case 5:
    case 6:
        set = grow(r, out, depth - 1);
        more = grow(r, out, depth - 1);
        return joined(set, more);
    }
    static const char *const repeats[] = {"*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}"};
    static const uint32_t least[] = {0, 1, 0, 2, 1, 0, 2}, most[] = {4, 4, 1, 2, 2, 3, 4};
    uint32_t kind = (uint32_t)rng_below(r, 7), all = 0, power = 1u << index_of("");
    strcat(out, "(");
    set = grow(r, out, depth - 1);
    strcat(out, ")");
    strcat(out, repeats[kind]);
    /* a loop over texts that may be empty takes fewer letters a round, never more than four */
    for (uint32_t i = 0; i <= most[kind]; i++, power = joined(power, set))
        if (i >= least[kind]) all |= power;
    return all;
}

static void random_patterns_take_what_they_should(void **state)
{
    struct rng r;
    uint32_t tried = 0;

    rng_seed(&r, 20);
    while (tried < 2000) {
        char pattern[4096] = "^(";
        uint32_t set = grow(&r, pattern, 4);
        strcat(pattern, ")$");
        struct conf_pattern *p = conf_pattern_compile(pattern);
        if (p == NULL) continue;                           /* too long, or too many states */
        for (uint32_t i = 0; i < TEXTS; i++)
            if (conf_pattern_found(p, slice_str(text_of(i))) != (set >> i & 1))
                fail_msg("%s and \"%s\"", pattern, text_of(i));
        conf_pattern_free(&p);
        tried++;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_are_found_where_they_are),
        cmocka_unit_test(other_patterns_are_refused),
        cmocka_unit_test(random_patterns_take_what_they_should),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
