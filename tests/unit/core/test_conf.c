/* test_conf.c - configuration: values, precedence, apps, printed pages.
 *
 * Goal    Whoever writes a setting gets it, from the strongest source that has it.
 * Method  conf_kit.h. The argument of this program is the source folder: docs/configuration.md
 *         and ops/weft.example.yaml are checked there.
 */
#include "conf_kit.h"

static const char *source_root;

/* ---- values --------------------------------------------------------------------------------- */

static void defaults_are_those_of_the_table(void **state)
{
    kit_loads(LIST(), LIST("PATH=/bin", "PORT=1", "HOST=elsewhere", "WEFTY=1"));
    assert_int_equal(kit_action, CONF_RUN);
    assert_string_equal(kit_conf.host, "0.0.0.0");
    assert_int_equal(kit_conf.port, 6001);
    assert_int_equal(kit_conf.metrics_port, 9601);
    assert_in_range(kit_conf.shards, 1, 64);
    assert_string_equal(kit_conf.data_dir, "weft-data");
    assert_true(kit_conf.pin_threads && kit_conf.metrics_enabled && kit_conf.http_usage_enabled);
    assert_true(kit_conf.cors_credentials);
    assert_false(kit_conf.debug || kit_conf.rate_limiter_enabled || kit_conf.log_json);
    assert_string_equal(kit_conf.log_level, "info");
    assert_string_equal(kit_conf.metrics_prefix, "sockudo_");
    assert_int_equal(kit_conf.user_authentication_timeout, 0);
    assert_int_equal(kit_conf.activity_timeout, 120);
    assert_int_equal(kit_conf.websocket_max_bytes, 1 << 20);
    assert_int_equal(kit_conf.websocket_max_messages, 1000);
    assert_int_equal(kit_conf.websocket_max_payload_kb, 64);
    assert_int_equal(kit_conf.websocket_pong_timeout, 30);
    assert_int_equal(kit_conf.cache_max_bytes, 64 << 20);
    assert_int_equal(kit_conf.cache_ttl, 3600);
    assert_int_equal(kit_conf.connections_capacity, 1 << 20);
    assert_int_equal(kit_conf.max_channels_per_connection, 100);
    assert_int_equal(kit_conf.idempotency_max_entries, 1000000);
    assert_int_equal(kit_conf.cors_origins_count, 1);
    assert_string_equal(kit_conf.cors_origins[0], "*");
    assert_int_equal(kit_conf.cors_methods_count, 6);
    assert_string_equal(kit_conf.cors_methods[5], "OPTIONS");
    assert_int_equal(kit_conf.rate_api.max_requests, 0);
    conf_free(&kit_conf);
}

static void defaults_of_history_are_those_of_the_page(void **state)
{
    kit_loads(LIST(), LIST());
    const struct conf *c = &kit_conf;
    assert_false(c->history_enabled || c->versioned_messages_enabled || c->annotations_enabled);
    assert_false(c->presence_history_enabled || c->connection_recovery_enabled);
    assert_true(c->history_rewind_enabled && c->ephemeral_enabled && c->echo_control_enabled);
    assert_true(c->echo_control_default_echo_messages && !c->history_relaxed);
    assert_int_equal(c->history_retention_window_seconds, 86400);
    assert_int_equal(c->history_max_page_size, 100);
    assert_int_equal(c->history_max_messages_per_channel, 0);
    assert_int_equal(c->history_max_bytes_per_channel, 0);
    assert_int_equal(c->history_purge_interval_seconds, 300);
    assert_int_equal(c->history_lanes, 2);
    assert_int_equal(c->history_max_bytes, 0);
    assert_int_equal(c->history_cold_replay_max_messages, 10000);
    assert_int_equal(c->history_cold_replay_max_bytes, 4 << 20);
    assert_int_equal(c->history_message_cache_mb, 256);
    assert_int_equal(c->annotations_max_channel_mb, 64);
    assert_int_equal(c->versioned_messages_max_page_size, 100);
    assert_true(c->versioned_messages_retention_window_seconds == UINT64_MAX);
    assert_int_equal(c->presence_history_retention_window_seconds, 86400);
    assert_int_equal(c->presence_history_max_page_size, 100);
    assert_int_equal(c->connection_recovery_buffer_ttl_seconds, 120);
    assert_int_equal(c->connection_recovery_max_buffer_size, 100);
    assert_int_equal(c->websocket_ping_interval, 30);
    assert_int_equal(c->websocket_idle_timeout, 120);
    assert_int_equal(c->presence_v2_ungraceful_timeout_seconds, 15);
    assert_int_equal(c->presence_update_rate_limit_per_member_per_second, 10);
    conf_free(&kit_conf);
}

static void without_an_app_the_builtin_one_is_there(void **state)
{
    kit_loads(LIST(), LIST());
    assert_true(kit_conf.builtin_app);
    assert_int_equal(kit_conf.apps_count, 1);
    assert_string_equal(kit_conf.apps[0].id, "app-id");
    assert_string_equal(kit_conf.apps[0].key, "app-key");
    assert_string_equal(kit_conf.apps[0].secret, "app-secret");
    assert_true(kit_conf.apps[0].enabled && kit_conf.apps[0].enable_client_messages);
    assert_true(kit_conf.apps[0].enable_user_authentication);
    assert_true(kit_conf.apps[0].enable_watchlist_events);
    assert_false(kit_conf.apps[0].enable_subscription_count);
    assert_int_equal(kit_conf.apps[0].max_event_payload_in_kb, 100);
    conf_free(&kit_conf);
    kit_file_loads("app_manager: {array: {apps: []}}\n");
    assert_true(kit_conf.builtin_app);
    conf_free(&kit_conf);
}

static void rate_limits_have_their_defaults_once_enabled(void **state)
{
    kit_file_loads("rate_limiter:\n  enabled: on\n");
    assert_true(kit_conf.rate_limiter_enabled);
    assert_int_equal(kit_conf.rate_api.max_requests, 100);
    assert_int_equal(kit_conf.rate_api.window_seconds, 60);
    assert_int_equal(kit_conf.rate_websocket.max_requests, 20);
    assert_int_equal(kit_conf.rate_websocket.window_seconds, 60);
    assert_int_equal(kit_conf.rate_websocket.trust_hops, 0);
    conf_free(&kit_conf);
}

static void yaml_json_aliases_and_empty_files_load(void **state)
{
    kit_file_loads("");
    conf_free(&kit_conf);
    kit_file_loads("# nothing yet\n");
    conf_free(&kit_conf);
    kit_file_loads("{\"port\": 7001, \"cors\": {\"origin\": [\"https://a.example\"]}}");
    assert_int_equal(kit_conf.port, 7001);
    assert_string_equal(kit_conf.cors_origins[0], "https://a.example");
    conf_free(&kit_conf);
    kit_file_loads("port: &p '7002'\nmetrics: {port: *p}\nlogging: {format: json}\n");
    assert_int_equal(kit_conf.port, 7002);
    assert_int_equal(kit_conf.metrics_port, 7002);
    assert_true(kit_conf.log_json);
    conf_free(&kit_conf);
}

static void debug_lowers_the_log_level_unless_one_is_given(void **state)
{
    kit_loads(LIST("--set", "debug=true"), LIST());
    assert_string_equal(kit_conf.log_level, "debug");
    conf_free(&kit_conf);
    kit_loads(LIST("--set", "debug=true", "--log-level", "warn"), LIST());
    assert_string_equal(kit_conf.log_level, "warn");
    conf_free(&kit_conf);
}

static void variables_in_the_file_are_expanded_once(void **state)
{
    kit_file_write("port: ${P}\nhost: ${H:-127.0.0.2} # ${not one}\ndata_dir: $D ${\n");
    kit_loads(LIST("--config", "weft.yaml"), LIST("P=7003", "H=", "D=x"));
    assert_int_equal(kit_conf.port, 7003);
    assert_string_equal(kit_conf.host, "127.0.0.2");
    assert_string_equal(kit_conf.data_dir, "$D ${");
    conf_free(&kit_conf);
    kit_refused(LIST("--config", "weft.yaml"), LIST("P=${P}"),
            "weft.yaml:1: port: expected a whole number from 0 to 65535, got \"${P}\"");
    kit_wrong("# top\nhost: ${H}\nport: ${P}${H:-}\n",
                 "weft.yaml:2: environment variables that are not set: H, P");
}

/* ---- apps ----------------------------------------------------------------------------------- */

static void an_app_takes_the_servers_limits_where_it_is_silent(void **state)
{
    kit_file_loads("event_limits: {max_batch_size: 7, max_payload_in_kb: 0}\n"
               "presence: {max_members_per_channel: 9}\n"
               "idempotency: {enabled: false, ttl_seconds: 33}\n"
               "app_manager:\n"
               "  driver: memory\n"
               "  array:\n"
               "    apps:\n"
               "      - {id: a, key: ka, secret: sa}\n"
               "      - id: b\n"
               "        key: kb\n"
               "        secret: sb\n"
               "        enabled: no\n"
               "        policy:\n"
               "          limits:\n"
               "            max_event_batch_size: 0\n"
               "            max_presence_members_per_channel: 5\n"
               "            max_connections: 3\n"
               "            message_rate_limit: {enabled: true, max_attempts: 8}\n"
               "          features: {enable_subscription_count: true}\n"
               "          channels: {allowed_origins: ['*.a.example', b.example]}\n"
               "          idempotency: {enabled: yes}\n");
    assert_false(kit_conf.builtin_app);
    assert_int_equal(kit_conf.apps_count, 2);
    const struct conf_app *a = &kit_conf.apps[0], *b = &kit_conf.apps[1];
    assert_true(a->enabled);
    assert_int_equal(a->max_event_batch_size, 7);
    assert_int_equal(a->max_event_payload_in_kb, 0);
    assert_int_equal(a->max_event_channels_at_once, 100);
    assert_int_equal(a->max_channel_name_length, 200);
    assert_int_equal(a->max_presence_members_per_channel, 9);
    assert_int_equal(a->decay_seconds, 1);
    assert_false(a->idempotency_enabled || a->enable_client_messages);
    assert_int_equal(a->idempotency_ttl_seconds, 33);
    assert_int_equal(a->allowed_origins_count, 0);
    assert_false(b->enabled);
    assert_int_equal(b->max_event_batch_size, 0);
    assert_int_equal(b->max_presence_members_per_channel, 5);
    assert_int_equal(b->max_connections, 3);
    assert_true(b->message_rate_enabled && b->idempotency_enabled);
    assert_int_equal(b->message_rate_max_attempts, 8);
    assert_int_equal(b->message_rate_decay_seconds, 60);
    assert_true(b->enable_subscription_count);
    assert_int_equal(b->allowed_origins_count, 2);
    assert_string_equal(b->allowed_origins[1], "b.example");
    conf_free(&kit_conf);
}

static void the_flat_form_of_an_app_means_the_same(void **state)
{
    kit_file_loads("app_manager: {array: {apps: [{id: a, key: k, secret: s, max_connections: '4',\n"
               "  enable_client_messages: true, allowed_origins: [x.example],\n"
               "  message_rate_limit: {enabled: 1}, idempotency: {ttl_seconds: 6}}]}}\n");
    assert_int_equal(kit_conf.apps[0].max_connections, 4);
    assert_true(kit_conf.apps[0].enable_client_messages && kit_conf.apps[0].message_rate_enabled);
    assert_string_equal(kit_conf.apps[0].allowed_origins[0], "x.example");
    assert_int_equal(kit_conf.apps[0].idempotency_ttl_seconds, 6);
    conf_free(&kit_conf);
}

/* ---- precedence ----------------------------------------------------------------------------- */

static void a_flag_beats_the_environment_beats_the_file(void **state)
{
    char *environment = "WEFT_PORT=7002", *list = "WEFT_CORS__ORIGIN=[a.example, b.example]";

    kit_file_write("port: 7001\nhost: 127.0.0.1\ncors: {origin: [kit_conf.example]}\n");
    kit_loads(LIST("--config", "weft.yaml"), LIST());
    assert_int_equal(kit_conf.port, 7001);
    conf_free(&kit_conf);
    kit_loads(LIST("--config", "weft.yaml"), LIST(environment, list));
    assert_int_equal(kit_conf.port, 7002);
    assert_string_equal(kit_conf.host, "127.0.0.1");
    assert_int_equal(kit_conf.cors_origins_count, 2);
    assert_string_equal(kit_conf.cors_origins[1], "b.example");
    conf_free(&kit_conf);
    kit_loads(LIST("--port=7003", "--config=weft.yaml", "--set", "cors.origin=['*']"),
          LIST(environment, list));
    assert_int_equal(kit_conf.port, 7003);
    assert_int_equal(kit_conf.cors_origins_count, 1);
    conf_free(&kit_conf);
    kit_loads(LIST("--port", "7003", "--set", "port=7004"), LIST());
    assert_int_equal(kit_conf.port, 7004);
    conf_free(&kit_conf);
}

static void apps_of_the_environment_replace_those_of_the_file(void **state)
{
    kit_file_write(APPS "      - {id: a, key: k, secret: s}\n      - {id: b, key: l, secret: s}\n");
    kit_loads(LIST("--config", "weft.yaml"),
          LIST("WEFT_APP_MANAGER__ARRAY__APPS=[{id: e, key: m, secret: t}]"));
    assert_int_equal(kit_conf.apps_count, 1);
    assert_string_equal(kit_conf.apps[0].id, "e");
    conf_free(&kit_conf);
}

static void flags_take_their_text_as_it_stands(void **state)
{
    kit_loads(LIST("--data-dir", "a: \"b\\ [c", "--shards", "2", "--host", "::1", "--metrics-port",
               "0", "--log-level", "trace", "--check-config"), LIST());
    assert_int_equal(kit_action, CONF_CHECK);
    assert_string_equal(kit_conf.data_dir, "a: \"b\\ [c");
    assert_int_equal(kit_conf.shards, 2);
    assert_string_equal(kit_conf.host, "::1");
    assert_int_equal(kit_conf.metrics_port, 0);
    assert_string_equal(kit_conf.log_level, "trace");
    conf_free(&kit_conf);
}

/* ---- printed pages -------------------------------------------------------------------------- */

static char *read_all(FILE *f)
{
    static char text[1 << 17];
    size_t n = fread(text, 1, sizeof(text) - 1, f);

    assert_true(n < sizeof(text) - 1);
    text[n] = '\0';
    return text;
}

static char *reference(void)
{
    static char text[1 << 17];
    FILE *f = fmemopen(text, sizeof(text), "w");

    assert_non_null(f);
    conf_print_reference(f);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void every_key_is_in_the_reference_and_settable_by_its_variable(void **state)
{
    const char *page = reference();

    for (uint32_t i = 0; i < conf_table_server.count; i++) {
        const struct conf_key *key = &conf_table_server.keys[i];
        char name[CONF_PATH_BYTES], row[CONF_PATH_BYTES * 2], setting[CONF_PATH_BYTES * 2];
        conf_table_environment_name(key->path, name, sizeof(name));
        snprintf(row, sizeof(row), "| `%s` | ", key->path);
        assert_non_null(strstr(page, row));
        assert_non_null(strstr(page, name));
        bool list = key->type == CONF_LIST || key->type == CONF_APPS;
        snprintf(setting, sizeof(setting), "%s=%s", name,
                 key->type == CONF_LIST ? "[a]" : list ? "[]" : key->standard);
        kit_loads(LIST(), LIST(setting));
        conf_free(&kit_conf);
    }
    for (uint32_t i = 0; i < conf_table_app.count; i++) {
        char row[CONF_PATH_BYTES];
        snprintf(row, sizeof(row), "| `%s` | ", conf_table_app.keys[i].path);
        assert_non_null(strstr(page, row));
    }
    for (uint32_t i = 0; i < conf_table_namespace.count; i++) {
        char row[CONF_PATH_BYTES];
        snprintf(row, sizeof(row), "| `%s` | ", conf_table_namespace.keys[i].path);
        assert_non_null(strstr(page, row));
    }
}

static void unsupported_keys_are_not_also_supported(void **state)
{
    const char *section, *names;
    uint32_t seen = 0;

    for (uint32_t i = 0; conf_table_unsupported(i, &section, &names); i++) {
        char words[1024];
        snprintf(words, sizeof(words), "%s", names);
        for (char *save = NULL, *w = strtok_r(words, " ", &save); w != NULL;
             w = strtok_r(NULL, " ", &save), seen++) {
            char path[CONF_PATH_BYTES];
            bool is_section;
            snprintf(path, sizeof(path), "%s%s%s", section, section[0] ? "." : "", w);
            assert_true(conf_table_is_unsupported(path, &is_section));
            assert_null(conf_table_find(&conf_table_server, path));
        }
    }
    assert_true(seen > 100);
}

static void the_committed_reference_is_the_printed_one(void **state)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/docs/configuration.md", source_root);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_string_equal(read_all(f), reference());
    fclose(f);
}

static void help_names_every_flag(void **state)
{
    static const char *const flags[] = {
        "--config FILE", "--host ", "--port N", "--metrics-port N", "--shards N",
        "--data-dir DIR", "--log-level ", "--set KEY=VALUE", "--check-config", "--help-config",
        "--help ", "--version",
    };
    char page[8192];
    FILE *f = fmemopen(page, sizeof(page), "w");

    assert_non_null(f);
    conf_print_help(f);
    assert_int_equal(fclose(f), 0);
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        assert_non_null(strstr(page, flags[i]));
}

static void the_example_file_loads(void **state)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/ops/weft.example.yaml", source_root);
    kit_loads(LIST("--config", path), LIST("MY_APP_SECRET=s3"));
    assert_string_equal(kit_conf.apps[0].secret, "s3");
    assert_string_equal(kit_conf.apps[0].key, "change-this-key");
    conf_free(&kit_conf);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_table),
        cmocka_unit_test(defaults_of_history_are_those_of_the_page),
        cmocka_unit_test(without_an_app_the_builtin_one_is_there),
        cmocka_unit_test(rate_limits_have_their_defaults_once_enabled),
        cmocka_unit_test(yaml_json_aliases_and_empty_files_load),
        cmocka_unit_test(debug_lowers_the_log_level_unless_one_is_given),
        cmocka_unit_test(variables_in_the_file_are_expanded_once),
        cmocka_unit_test(an_app_takes_the_servers_limits_where_it_is_silent),
        cmocka_unit_test(the_flat_form_of_an_app_means_the_same),
        cmocka_unit_test(a_flag_beats_the_environment_beats_the_file),
        cmocka_unit_test(apps_of_the_environment_replace_those_of_the_file),
        cmocka_unit_test(flags_take_their_text_as_it_stands),
        cmocka_unit_test(every_key_is_in_the_reference_and_settable_by_its_variable),
        cmocka_unit_test(unsupported_keys_are_not_also_supported),
        cmocka_unit_test(the_committed_reference_is_the_printed_one),
        cmocka_unit_test(help_names_every_flag),
        cmocka_unit_test(the_example_file_loads),
    };

    if (argc != 2) return 1;
    source_root = argv[1];
    return KIT_RUN(tests);
}
