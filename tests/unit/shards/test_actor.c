/* Goal    Capabilities of a signed-in user grant exactly what their patterns cover; socket ids lead
 *         back to their connection and to no other.
 * Method  Tables of patterns and of user_data; ids drawn for many places on several shard counts.
 */
#include "shards/actor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "shards/socket_id.h"

static void patterns_have_one_star(void **state)
{
    static const struct { const char *pattern, *name; bool covers; } cases[] = {
        {"*", "", true}, {"*", "anything", true}, {"a", "a", true}, {"a", "ab", false},
        {"a*", "a", true}, {"a*", "ab", true}, {"a*", "ba", false}, {"*a", "ba", true},
        {"*a", "ab", false}, {"a*z", "az", true}, {"a*z", "abcz", true}, {"a*z", "abc", false},
        {"ab*ba", "aba", false}, {"ab*ba", "abba", true}, {"a*b*", "aabb", false}, {"", "", true},
        {"", "a", false}, {"**", "a", false},
    };
    (void)state;
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (actor_covers(slice_str(cases[i].pattern), slice_str(cases[i].name)) !=
            cases[i].covers) {
            fail_msg("%s on %s", cases[i].pattern, cases[i].name);
        }
    }
}

/* Nobody's data and no name have no bytes behind them: the sanitizers watch what is read. */
static void nothing_is_compared_with_nothing(void **state)
{
    const struct slice none = slice_of(NULL, 0);
    (void)state;
    assert_true(actor_covers(none, none));
    assert_true(actor_covers(slice_str("*"), none));
    assert_false(actor_covers(slice_str("a*"), none));
    assert_false(actor_covers(slice_str("*a"), none));
    assert_false(actor_covers(none, slice_str("a")));
    assert_int_equal(actor_grants(none, none), ACTOR_BASIC);
    assert_int_equal(actor_grants(slice_str("{\"capabilities\":{\"history\":[\"\"]}}"), none),
                     ACTOR_BASIC);
    assert_int_equal(actor_grants(slice_str("{\"capabilities\":{\"history\":[\"a\"]}}"), none),
                     ACTOR_BASIC & ~ACTOR_HISTORY);
}

static void lists_grant(void **state)
{
    enum { BASIC = ACTOR_PUBLISH | ACTOR_SUBSCRIBE };
    static const struct { const char *data; uint32_t not, also; } cases[] = {
        {"{\"id\":\"u\"}", 0, 0}, {"", 0, 0}, {"{\"capabilities\":[]}", 0, 0},
        {"{\"capabilities\":{}}", 0, 0}, {"{\"capabilities\":{\"publish\":[]}}", ACTOR_PUBLISH, 0},
        {"{\"capabilities\":{\"publish\":null}}", 0, 0},
        {"{\"capabilities\":{\"subscribe\":[\"other\"]}}", ACTOR_SUBSCRIBE, 0},
        {"{\"capabilities\":{\"subscribe\":[\"other\",\"no*\"]}}", 0, 0},
        {"{\"capabilities\":{\"message_append_own\":[\"notes\"],\"message-update-any\":[\"*\"]}}",
         0, ACTOR_APPEND_OWN | ACTOR_UPDATE_ANY},
        {"{\"capabilities\":{\"annotation-publish\":[\"n*\"],\"annotation_delete_own\":[\"x\"]}}",
         0, ACTOR_ANNOTATE},
        {"{\"capabilities\":{\"message_append_any\":\"*\"}}", 0, 0},
        {"{\"capabilities\":{\"message_append_any\":[1,\"notes\"]}}", 0, ACTOR_APPEND_ANY},
        {"{\"capabilities\":{\"unknown\":[\"*\"]}}", 0, 0},
    };
    uint32_t plain = actor_grants(slice_str("{}"), slice_str("notes"));
    (void)state;
    assert_int_equal(plain & BASIC, BASIC);
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t want = (plain & ~cases[i].not) | cases[i].also;
        if (actor_grants(slice_str(cases[i].data), slice_str("notes")) != want) {
            fail_msg("%s", cases[i].data);
        }
    }
}

/* What cannot be read must not be taken for what was left out. */
static void lists_must_be_readable(void **state)
{
    static const char *const good[] = {
        "{\"id\":\"u\"}", "{\"capabilities\":null}", "{\"capabilities\":{}}",
        "{\"capabilities\":{\"publish\":null,\"history\":[],\"presence\":[\"a\",\"b*\"]}}",
        "{\"capabilities\":{\"unknown\":7}}",
    };
    static const char *const bad[] = {
        "{\"capabilities\":[]}", "{\"capabilities\":\"publish\"}", "{\"capabilities\":true}",
        "{\"capabilities\":{\"publish\":\"*\"}}", "{\"capabilities\":{\"history\":[1]}}",
        "{\"capabilities\":{\"annotation_publish\":[],\"annotation-publish\":[\"*\"]}}",
        "{\"capabilities\":{\"publish\":[]},\"capabilities\":{}}",
    };
    (void)state;
    for (uint32_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        if (!actor_capabilities_valid(slice_str(good[i]))) fail_msg("%s", good[i]);
    }
    for (uint32_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (actor_capabilities_valid(slice_str(bad[i]))) fail_msg("%s", bad[i]);
    }
}

enum { CONNS = 50 };

static void ids_lead_back(void **state)
{
    static struct conn conns[CONNS];
    (void)state;
    for (uint32_t shards = 1; shards <= 5; shards++) {
        struct server server = {.shards_count = shards};
        for (uint32_t id = 0; id < shards; id++) {
            struct shard sh = {.server = &server, .id = (uint16_t)id, .conns = conns,
                               .conns_reserved = 1048576 / shards, .conns_seen = CONNS};
            rng_seed(&sh.re.rng, 5 + id);
            for (uint32_t i = 0; i < CONNS; i++) {
                conns[i] = (struct conn){.state = CONN_WS};
                socket_id_draw(&sh, &conns[i]);
                assert_true(conns[i].socket_a <= SOCKET_ID_PART_MAX);
                assert_true(conns[i].socket_b <= SOCKET_ID_PART_MAX);
                assert_int_equal(shard_of_socket(&sh, conns[i].socket_a), id);
            }
            for (uint32_t i = 0; i < CONNS; i++) {
                uint64_t a = conns[i].socket_a, b = conns[i].socket_b;
                assert_ptr_equal(socket_id_find(&sh, a, b), &conns[i]);
                assert_null(socket_id_find(&sh, a, b ^ 1));
                assert_null(socket_id_find(&sh, a + shards, b));
                assert_null(socket_id_find(&sh, UINT64_MAX - i, b));
                conns[i].state = CONN_CLOSING;
                assert_null(socket_id_find(&sh, a, b));
                conns[i].state = CONN_WS;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_have_one_star),
        cmocka_unit_test(nothing_is_compared_with_nothing), cmocka_unit_test(lists_grant),
        cmocka_unit_test(lists_must_be_readable),
        cmocka_unit_test(ids_lead_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
