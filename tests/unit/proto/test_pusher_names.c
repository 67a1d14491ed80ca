/* Goal: where namespaces are configured, a name with ':' or '#' is taken only as they say, with the
 * exact texts of the protocol, and every other name as where none are.
 * Method: a table of names against a fixed list of namespaces.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/conf_pattern.h"
#include "proto/pusher.h"

static char error[PUSHER_ERROR_TEXT_BYTES];
static struct conf_namespace list[] = {          /* sorted by name */
    {.name = "open"},
    {.name = "rooms", .max_channel_name_length = 30, .allow_user_limited_channels = true},
    {.name = "short", .max_channel_name_length = 12},
};
static const struct conf_names names = {list, 3};

static int setup(void **state)
{
    list[1].pattern = conf_pattern_compile("^rooms:[a-z]+$");
    return list[1].pattern == NULL;
}

static int teardown(void **state)
{
    conf_pattern_free(&list[1].pattern);
    return 0;
}

static bool parse(const char *name, struct pusher_channel *c)
{
    return pusher_channel_parse(slice_str(name), 20, &names, c, error);
}

static void names_of_a_namespace_are_taken(void **state)
{
    static const struct {
        const char           *name;
        enum pusher_kind      kind;
        struct conf_namespace *ns;
        const char           *users;
    } good[] = {
        {"orders", PUSHER_PUBLIC, NULL, NULL},
        {"private-orders", PUSHER_PRIVATE, NULL, NULL},
        {"open:", PUSHER_PUBLIC, &list[0], NULL},
        {"open:a:b", PUSHER_PUBLIC, &list[0], NULL},
        {"presence-open:a", PUSHER_PRESENCE, &list[0], NULL},
        {"private-rooms:abcdefghijklmnop", PUSHER_PRIVATE, &list[1], NULL},
        {"private-encrypted-rooms:a", PUSHER_ENCRYPTED, &list[1], NULL},
        {"rooms:a#u1", PUSHER_PUBLIC, &list[1], "u1"},
        {"private-rooms:a#u1,u.2,@u=3-_", PUSHER_PRIVATE, &list[1], "u1,u.2,@u=3-_"},
        {"short:6789ab", PUSHER_PUBLIC, &list[2], NULL},
        {"#server-to-user-no:such#x", PUSHER_USER, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct pusher_channel c;
        assert_true(parse(good[i].name, &c));
        assert_int_equal(c.kind, good[i].kind);
        assert_ptr_equal(c.ns, good[i].ns);
        if (good[i].users == NULL) assert_null(c.users.ptr);
        else assert_true(slice_is(c.users, good[i].users));
    }
}

static void other_names_are_refused_with_the_exact_text(void **state)
{
    static const struct { const char *name, *text; } bad[] = {
        {"no:such", "Unknown channel namespace 'no'"},
        {"private-no:such", "Unknown channel namespace 'no'"},
        {":", "Unknown channel namespace ''"},
        {"no:such#u1", "Unknown channel namespace 'no'"},
        {"short:6789abc", "Channel name too long. Max length is 12"},
        {"open:6789012345678901", "Channel name too long. Max length is 20"},
        {"orders789012345678901", "Channel name too long. Max length is 20"},
        {"rooms:1", "Channel 'rooms:1' does not match namespace 'rooms' pattern"},
        {"private-rooms:a1", "Channel 'private-rooms:a1' does not match namespace 'rooms' pattern"},
        {"rooms:1#u1", "Channel 'rooms:1#u1' does not match namespace 'rooms' pattern"},
        {"open:a#u1", "Channel 'open:a#u1' uses user-limited syntax but the namespace does not "
                      "allow it"},
        {"a#u1", "Channel 'a#u1' uses user-limited syntax but the namespace does not allow it"},
        {"#u1", "Channel '#u1' uses user-limited syntax but the namespace does not allow it"},
        {"rooms:a#u1#u2", "Channel 'rooms:a#u1#u2' contains multiple user limit separators"},
        {"rooms:a#", "Channel 'rooms:a#' has an empty user limit segment"},
        {"rooms:a#u1,", "Channel 'rooms:a#u1,' contains an empty user id in its user limit "
                        "segment"},
        {"rooms:a#,u1", "Channel 'rooms:a#,u1' contains an empty user id in its user limit "
                        "segment"},
        {"rooms:a#u;1", "Channel 'rooms:a#u;1' contains an invalid user id in its user limit "
                        "segment"},
        {"rooms:a#u:1", "Channel 'rooms:a#u:1' contains an invalid user id in its user limit "
                        "segment"},
        {"rooms:a b#", "Channel name contains invalid characters: 'rooms:a b#' "
                       "(invalid chars: [' '])"},
        {"rooms:*", "Wildcard subscriptions are only supported on protocol V2"},
        {"[meta]rooms:a", "Metachannel subscriptions are only supported on protocol V2"},
        {"", "Channel name must not be empty"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pusher_channel c;
        assert_false(parse(bad[i].name, &c));
        assert_string_equal(error, bad[i].text);
    }
}

static void a_limited_channel_admits_its_users_only(void **state)
{
    struct pusher_channel c;
    assert_true(parse("rooms:a#u1,u22", &c));
    assert_true(pusher_channel_admits(&c, slice_str("u1")));
    assert_true(pusher_channel_admits(&c, slice_str("u22")));
    assert_false(pusher_channel_admits(&c, slice_str("u2")));
    assert_false(pusher_channel_admits(&c, slice_str("u1,u22")));
    assert_false(pusher_channel_admits(&c, slice_str("")));
    assert_true(parse("rooms:a", &c));
    assert_true(pusher_channel_admits(&c, slice_str("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_a_namespace_are_taken),
        cmocka_unit_test(other_names_are_refused_with_the_exact_text),
        cmocka_unit_test(a_limited_channel_admits_its_users_only),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
