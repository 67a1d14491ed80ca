/* test_conf_policy.c - namespaces and policies: what holds for one channel.
 *
 * Goal    The most specific setting wins (namespace, app, server), a feature is never half on, and
 *         what cannot be in force is refused at the start.
 * Method  conf_kit.h: a file is loaded and channels are asked about.
 */
#include "conf_kit.h"

#define ON "history: {enabled: true}\nversioned_messages: {enabled: true}\n" \
           "annotations: {enabled: true}\npresence_history: {enabled: true}\n" \
           "connection_recovery: {enabled: true}\n"

static struct conf_policy policy(uint32_t app, const char *channel)
{
    struct conf_policy p;

    memset(&p, 0xff, sizeof(p));
    conf_policy_of(&kit_conf, app, slice_str(channel), &p);
    return p;
}

static const char *named(const char *channel)
{
    const struct conf_namespace *ns = conf_namespace_of(&kit_conf, 0, slice_str(channel));
    return ns == NULL ? NULL : ns->name;
}

static void by_default_nothing_is_on(void **state)
{
    static const struct conf_policy none;

    kit_loads(LIST(), LIST());
    struct conf_policy p = policy(0, "presence-a");
    assert_memory_equal(&p, &none, sizeof(p));
    assert_false(kit_conf.apps[0].policy_any);
    assert_null(named("private-a:b"));
    conf_free(&kit_conf);
}

static void what_the_server_says_holds_for_every_channel(void **state)
{
    kit_file_loads("history: {enabled: true, retention_window_seconds: 60, durability: relaxed,\n"
                   "  max_messages_per_channel: 7, max_bytes_per_channel: 8}\n");
    struct conf_policy p = policy(0, "a");
    assert_true(p.history && p.rewind && p.relaxed);
    assert_false(p.versioned || p.annotations || p.presence_history || p.recovery);
    assert_int_equal(p.history_age_ms, 60000);
    assert_int_equal(p.history_messages_max, 7);
    assert_int_equal(p.history_bytes_max, 8);
    assert_true(p.version_age_ms == UINT64_MAX);
    conf_free(&kit_conf);

    kit_file_loads(ON);
    p = policy(0, "presence-cache-a");
    assert_true(p.history && p.versioned && p.presence_history && p.recovery);
    assert_false(p.annotations || p.relaxed);             /* annotations need an app's word too */
    assert_int_equal(p.presence_age_ms, 86400000);
    assert_int_equal(p.presence_events_max, 0);
    assert_int_equal(p.recovery_ttl_ms, 120000);
    assert_int_equal(p.recovery_max, 100);
    assert_false(policy(0, "private-a").presence_history);
    assert_false(policy(0, "a-presence-").presence_history);
    conf_free(&kit_conf);
}

static void versions_live_as_long_as_rows_unless_said(void **state)
{
    kit_file_loads("history: {enabled: true}\n"
                   "versioned_messages: {enabled: true, retention_window_seconds: 0}\n");
    assert_int_equal(policy(0, "a").version_age_ms, 0);
    conf_free(&kit_conf);
    kit_file_loads("history: {enabled: true}\n"
                   "versioned_messages: {enabled: true, retention_window_seconds: 9}\n");
    assert_int_equal(policy(0, "a").version_age_ms, 9000);
    conf_free(&kit_conf);
}

static void the_most_specific_setting_wins(void **state)
{
    kit_file_loads(ON APPS
        "      - {id: a, key: ka, secret: s}\n"
        "      - id: b\n"
        "        key: kb\n"
        "        secret: s\n"
        "        policy:\n"
        "          history: {rewind_enabled: false, retention_window_seconds: 50,\n"
        "                    durability: relaxed, max_messages_per_channel: 5}\n"
        "          presence_history: {max_events_per_channel: 3}\n"
        "          connection_recovery: {buffer_ttl_seconds: 9, max_buffer_size: 4}\n"
        "          channels:\n"
        "            channel_namespaces:\n"
        "              - name: z\n"
        "                history: {rewind_enabled: true, durability: commit,\n"
        "                          max_bytes_per_channel: 6}\n"
        "                presence_history: {enabled: false, retention_window_seconds: 2}\n"
        "              - {name: c, annotations_enabled: true}\n"
        "      - id: d\n"
        "        key: kd\n"
        "        secret: s\n"
        "        history: {enabled: false}\n"
        "        connection_recovery: {enabled: false}\n"
        "        annotations_enabled: true\n"
        "        channel_namespaces: [{name: quiet, annotations_enabled: false}]\n");
    struct conf_policy a = policy(0, "z:1"), b = policy(1, "presence-1"),
                       z = policy(1, "presence-z:1"), c = policy(1, "private-encrypted-c:1");
    assert_true(a.history && a.rewind && a.recovery && !a.relaxed && !a.annotations);
    assert_int_equal(a.history_messages_max, 0);
    assert_true(b.history && !b.rewind && b.relaxed && b.presence_history && !b.annotations);
    assert_int_equal(b.history_age_ms, 50000);
    assert_int_equal(b.history_messages_max, 5);
    assert_int_equal(b.presence_events_max, 3);
    assert_int_equal(b.presence_age_ms, 86400000);
    assert_int_equal(b.recovery_ttl_ms, 9000);
    assert_int_equal(b.recovery_max, 4);
    assert_true(z.history && z.rewind && !z.relaxed && !z.presence_history && z.recovery);
    assert_int_equal(z.history_age_ms, 50000);
    assert_int_equal(z.history_messages_max, 5);
    assert_int_equal(z.history_bytes_max, 6);
    assert_int_equal(z.presence_age_ms, 2000);
    assert_true(c.annotations && c.versioned && c.relaxed && !c.rewind);

    struct conf_policy d = policy(2, "1"), quiet = policy(2, "quiet:1");
    assert_true(d.history && d.annotations && d.versioned && !d.recovery);
    assert_false(quiet.history || quiet.annotations || quiet.versioned || quiet.rewind);
    assert_true(kit_conf.apps[2].policy_any);
    conf_free(&kit_conf);
}

static void a_namespace_alone_can_have_a_policy(void **state)
{
    kit_file_loads(ON APPS "      - {id: a, key: k, secret: s, history: {enabled: false},\n"
                   "         presence_history: {enabled: false},\n"
                   "         connection_recovery: {enabled: false},\n"
                   "         channel_namespaces: [{name: p, presence_history: {enabled: on}}]}\n");
    assert_true(kit_conf.apps[0].policy_any);
    assert_true(policy(0, "presence-p:1").presence_history);
    assert_false(policy(0, "presence-q").presence_history || policy(0, "p:1").presence_history);
    conf_free(&kit_conf);
}

static void a_namespace_is_the_text_before_the_first_colon(void **state)
{
    kit_file_loads(APPS "      - id: a\n        key: k\n        secret: s\n"
                   "        channel_namespaces: [{name: b}, {name: a}, {name: aa}, {name: c-1},\n"
                   "                             {name: private-x}, {name: cache-}]\n");
    assert_int_equal(kit_conf.apps[0].names.count, 6);
    static const struct { const char *channel, *name; } list[] = {
        {"a:", "a"}, {"a:b:c", "a"}, {"aa:x", "aa"}, {"b:x", "b"}, {"c-1:x", "c-1"},
        {"private-a:x", "a"}, {"private-cache-a:x", "a"}, {"private-encrypted-a:x", "a"},
        {"private-encrypted-cache-a:x", "a"}, {"presence-a:x", "a"},
        {"presence-cache-a:x", "a"}, {"cache-a:x", "a"}, {"private-private-x:x", "private-x"},
        {"cache-cache-:x", "cache-"}, {"a:x#u1,u2", "a"},
        {"private-x:x", NULL}, {"a", NULL}, {"", NULL}, {":a", NULL}, {"ab:", NULL},
        {"A:x", NULL}, {"cache-private-a:x", NULL}, {"#server-to-user-a:x", NULL},
        {"x#a:b", NULL}, {"private-", NULL},
    };
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        const char *name = named(list[i].channel);
        if (list[i].name == NULL) assert_null(name);
        else assert_non_null(name);
        if (name != NULL) assert_string_equal(name, list[i].name);
    }
    const struct conf_namespace *a = conf_namespace_of(&kit_conf, 0, slice_str("a:"));
    assert_true(a->allow_subscribe_for_client && a->allow_publish_for_client);
    assert_true(a->allow_presence_for_client && !a->allow_user_limited_channels);
    assert_int_equal(a->max_channel_name_length, 0);
    assert_null(a->pattern);
    conf_free(&kit_conf);
}

static void a_pattern_is_found_anywhere_unless_anchored(void **state)
{
    kit_file_loads(APPS "      - id: a\n        key: k\n        secret: s\n"
                   "        channel_namespaces:\n"
                   "          - {name: a, channel_name_pattern: '^a:[0-9]{1,3}$',\n"
                   "             max_channel_name_length: 9, allow_subscribe_for_client: false}\n"
                   "          - {name: b, channel_name_pattern: 'x|[[:digit:]]'}\n");
    const struct conf_names *names = &kit_conf.apps[0].names;
    const struct conf_namespace *a = &names->list[0], *b = &names->list[1];
    assert_true(conf_namespace_admits(a, slice_str("a:12")));
    assert_true(conf_namespace_admits(a, slice_of("a:123456", 5)));    /* ends with the slice */
    assert_false(conf_namespace_admits(a, slice_str("a:1234")));
    assert_false(conf_namespace_admits(a, slice_str("b:12")));
    assert_false(conf_namespace_admits(a, slice_of(NULL, 0)));
    assert_true(conf_namespace_admits(b, slice_str("b:yx")));
    assert_true(conf_namespace_admits(b, slice_str("b:7y")));
    assert_false(conf_namespace_admits(b, slice_str("b:y")));
    assert_int_equal(a->max_channel_name_length, 9);
    assert_false(a->allow_subscribe_for_client);
    assert_true(b->allow_subscribe_for_client);
    conf_free(&kit_conf);
}

#define NS APPS "      - id: a\n        key: k\n        secret: s\n        channel_namespaces:\n"
#define AT_NS "weft.yaml:8: app_manager.array.apps[0].channel_namespaces[0]"

static void mistakes_in_namespaces_are_named(void **state)
{
    kit_wrong(NS "          - {annotations_enabled: true}\n",
              AT_NS ".name: expected a text of 1 to 200 letters, digits and _-=@,.;, got nothing");
    kit_wrong(NS "          - {name: 'a:b'}\n", AT_NS ".name: expected a text of 1 to 200 letters,"
              " digits and _-=@,.;, got \"a:b\"");
    kit_wrong(NS "          - {name: a, max_channel_name_length: 0}\n", AT_NS
              ".max_channel_name_length: expected a whole number from 1 to 16384, got \"0\"");
    kit_wrong(NS "          - {name: a, channel_name_pattern: 'a\\b'}\n",
              AT_NS ".channel_name_pattern: expected a text of 0 to 255 bytes, a regular "
              "expression of characters, . [] () | * + ? {} ^ $ \\d \\w \\s, got \"a\\b\"");
    kit_wrong(NS "          - {name: a, history: {enabled: true}}\n",
              AT_NS ".history.enabled: unknown key; did you mean "
              "app_manager.array.apps[0].channel_namespaces[0].presence_history.enabled?");
    kit_wrong(NS "          - {name: a}\n          - {name: a}\n",
              "weft.yaml:9: app_manager.array.apps[0].channel_namespaces[1].name: expected another "
              "name than that of app_manager.array.apps[0].channel_namespaces[0]");
    kit_wrong(NS "          - a\n", AT_NS ": expected a namespace with a name, got another value");
    kit_wrong(NS "          a: 1\n", "weft.yaml:8: app_manager.array.apps[0].channel_namespaces: "
              "expected a list of at most 1024 namespaces, got a section of keys");
    kit_wrong(APPS "      - id: a\n        key: k\n        secret: s\n        policy: {}\n"
              "        history: {enabled: true}\n",
              "weft.yaml:8: app_manager.array.apps[0].history: expected under policy, since this "
              "app has one");
}

static void what_cannot_be_in_force_is_refused(void **state)
{
    static const struct { const char *text, *line; } list[] = {
        {"versioned_messages: {enabled: true}\n",
         "versioned_messages.enabled: expected history.enabled to be true too"},
        {"history: {enabled: true}\nannotations: {enabled: true}\n",
         "annotations.enabled: expected versioned_messages.enabled to be true too"},
        {"presence_history: {enabled: true}\n",
         "presence_history.enabled: expected history.enabled to be true too"},
        {APPS "      - {id: a, key: k, secret: s}\n"
              "      - {id: b, key: l, secret: s, history: {enabled: true}}\n",
         "app_manager.array.apps[1].history.enabled: expected history.enabled to be true too"},
        {APPS "      - {id: a, key: k, secret: s, policy: {presence_history: {enabled: true}}}\n",
         "app_manager.array.apps[0].policy.presence_history.enabled: expected history.enabled to "
         "be true too"},
        {APPS "      - {id: a, key: k, secret: s, policy: {channels: {annotations_enabled: "
              "true}}}\n",
         "app_manager.array.apps[0].policy.channels.annotations_enabled: expected "
         "annotations.enabled to be true too"},
        {APPS "      - {id: a, key: k, secret: s, annotations_enabled: true}\n",
         "app_manager.array.apps[0].annotations_enabled: expected annotations.enabled to be true "
         "too"},
        {APPS "      - {id: a, key: k, secret: s, policy: {channels: {channel_namespaces: "
              "[{name: n, presence_history: {enabled: true}}]}}}\n",
         "app_manager.array.apps[0].policy.channels.channel_namespaces[0].presence_history.enabled:"
         " expected history.enabled to be true too"},
        {APPS "      - {id: a, key: k, secret: s, connection_recovery: {enabled: true}}\n",
         "app_manager.array.apps[0].connection_recovery.enabled: expected "
         "connection_recovery.enabled to be true too"},
        {NS "          - {name: a}\n          - {name: A, annotations_enabled: true}\n",
         "app_manager.array.apps[0].channel_namespaces[1].annotations_enabled: expected "
         "annotations.enabled to be true too"},
    };

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        char line[512];
        snprintf(line, sizeof(line), "configuration: %s", list[i].line);
        kit_wrong(list[i].text, line);
    }
}

static void backends_of_the_reference_are_refused_by_name(void **state)
{
    kit_wrong("history: {backend: postgres}\n", "weft.yaml:1: history.backend: expected lmdb (this "
              "build supports no other), got \"postgres\"");
    kit_wrong("versioned_messages: {driver: memory}\n", "weft.yaml:1: versioned_messages.driver: "
              "expected lmdb (this build supports no other), got \"memory\"");
    kit_wrong("history: {durability: maybe}\n", "weft.yaml:1: history.durability: expected one of:"
              " commit relaxed, got \"maybe\"");
    kit_wrong("history: {postgres: {table_prefix: x}}\n", "weft.yaml:1: history.postgres: known, "
              "but not supported by this build");
    kit_file_loads("history: {enabled: true, backend: lmdb}\nversioned_messages: {driver: lmdb}\n");
    conf_free(&kit_conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_default_nothing_is_on),
        cmocka_unit_test(what_the_server_says_holds_for_every_channel),
        cmocka_unit_test(versions_live_as_long_as_rows_unless_said),
        cmocka_unit_test(the_most_specific_setting_wins),
        cmocka_unit_test(a_namespace_alone_can_have_a_policy),
        cmocka_unit_test(a_namespace_is_the_text_before_the_first_colon),
        cmocka_unit_test(a_pattern_is_found_anywhere_unless_anchored),
        cmocka_unit_test(mistakes_in_namespaces_are_named),
        cmocka_unit_test(what_cannot_be_in_force_is_refused),
        cmocka_unit_test(backends_of_the_reference_are_refused_by_name),
    };

    return KIT_RUN(tests);
}
