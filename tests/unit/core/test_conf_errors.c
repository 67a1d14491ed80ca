/* test_conf_errors.c - the exact line of every mistake.
 *
 * Goal    Whoever writes a wrong setting reads where it stands and what was expected, and no line
 *         ever shows a secret.
 * Method  conf_kit.h: wrong files, flags and variables, and the whole line compared.
 */
#include "conf_kit.h"

static void mistakes_in_apps_are_named(void **state)
{
    kit_wrong(APPS "      - {id: a, key: k}\n",
                 "weft.yaml:4: app_manager.array.apps[0].secret: expected a text of 1 to 200 "
                 "printable bytes, got nothing");
    kit_wrong(APPS "      - {id: '', key: k, secret: s}\n",
                 "weft.yaml:4: app_manager.array.apps[0].id: expected a text of 1 to 200 "
                 "printable bytes, got \"\"");
    kit_wrong(APPS "      - {id: a, key: k, secret: s}\n      - {id: a, key: l, secret: s}\n",
                 "weft.yaml:5: app_manager.array.apps[1].id: expected another id than that of "
                 "app_manager.array.apps[0]");
    kit_wrong(APPS "      - {id: a, key: k, secret: s}\n      - {id: b, key: k, secret: s}\n",
                 "weft.yaml:5: app_manager.array.apps[1].key: expected another key than that of "
                 "app_manager.array.apps[0]");
    kit_wrong(APPS "      - {id: a, key: k, secret: s, webhooks: []}\n",
                 "weft.yaml:4: app_manager.array.apps[0].webhooks: known, but not supported by "
                 "this build");
    kit_wrong(APPS "      - {id: a, key: k, secret: s, max_connection: 1}\n",
                 "weft.yaml:4: app_manager.array.apps[0].max_connection: unknown key; did you "
                 "mean app_manager.array.apps[0].max_connections?");
    kit_wrong(APPS "      - {id: a, key: k, secret: s, policy: {},\n         decay_seconds: 1}\n",
                 "weft.yaml:5: app_manager.array.apps[0].decay_seconds: expected under policy, "
                 "since this app has one");
    kit_wrong(APPS "      - text\n",
                 "weft.yaml:4: app_manager.array.apps[0]: expected an app with id, key and "
                 "secret, got another value");
    kit_wrong(APPS "      a: 1\n",
                 "weft.yaml:4: app_manager.array.apps: expected a list of apps, got a section of "
                 "keys");
}

static void a_secret_is_never_quoted(void **state)
{
    static const char *const texts[] = {
        APPS "      - {id: a, key: k, secret: \"hush\\thush\"}\n",
        APPS "      - {id: a, key: \"hush\\thush\", secret: s}\n",
        APPS "      - {id: a, key: k, secret: [hush]}\n",
        "app_manager: {array: {apps: hush}}\n",
        APPS "      - hush\n",
        APPS "      - {id: a, key: hush, secret: s}\n      - {id: b, key: hush, secret: s}\n",
        APPS "      - {id: a, key: k, secret: 'hush}\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        kit_file_write(texts[i]);
        assert_int_equal(kit_load(LIST("--config", "weft.yaml"), LIST()), ERR_CONFIG);
        assert_null(strstr(kit_error, "hush"));
    }
    char *list = "WEFT_APP_MANAGER__ARRAY__APPS=[{id: a, key: k, secret: \"hush\\n\"}]";
    kit_refused(LIST(), LIST(list),
                "WEFT_APP_MANAGER__ARRAY__APPS: app_manager.array.apps[0].secret: "
                "expected a text of 1 to 200 printable bytes, got another value");
}

/* ---- mistakes ------------------------------------------------------------------------------- */

static void bad_values_are_named_with_file_and_line(void **state)
{
    kit_wrong("# one\nwebsocket:\n  max_bytes: many\n",
                 "weft.yaml:3: websocket.max_bytes: expected a whole number from 1024 to "
                 "1073741824, got \"many\"");
    kit_wrong("websocket: {max_bytes: 99999999999999999999}\n",
                 "weft.yaml:1: websocket.max_bytes: expected a whole number from 1024 to "
                 "1073741824, got \"99999999999999999999\"");
    kit_wrong("port: -1\n", "weft.yaml:1: port: expected a whole number from 0 to 65535, got "
                 "\"-1\"");
    kit_wrong("shards: 65\n", "weft.yaml:1: shards: expected a whole number from 0 to 64, got "
                 "\"65\"");
    kit_wrong("debug: maybe\n", "weft.yaml:1: debug: expected true or false, got \"maybe\"");
    kit_wrong("port:\n", "weft.yaml:1: port: expected a whole number from 0 to 65535, got "
                 "nothing");
    kit_wrong("port: [1]\n", "weft.yaml:1: port: expected a whole number from 0 to 65535, got "
                 "a list");
    kit_wrong("logging: {level: loud}\n", "weft.yaml:1: logging.level: expected one of: error "
                 "warn info debug trace, got \"loud\"");
    kit_wrong("cors: {origin: []}\n", "weft.yaml:1: cors.origin: expected a list of 1 to 1024 "
                 "texts, got a list");
    kit_wrong("cors:\n  origin:\n    - a\n    - \"b\\r\\n\"\n", "weft.yaml:4: cors.origin[1]: "
                 "expected a text of 1 to 255 printable bytes, got \"b??\"");
    kit_wrong("metrics: {prometheus: {prefix: 9-}}\n", "weft.yaml:1: metrics.prometheus.prefix"
                 ": expected a text of 0 to 64 letters, digits, _ and :, got \"9-\"");
    kit_wrong("app_manager: {driver: mysql}\n", "weft.yaml:1: app_manager.driver: expected "
                 "memory (this build supports no other), got \"mysql\"");
    kit_wrong("websocket: {disconnect_on_buffer_full: false}\n",
                 "weft.yaml:1: websocket.disconnect_on_buffer_full: expected true (a slow socket "
                 "is closed, its messages are never dropped silently), got \"false\"");
    kit_file_loads("websocket: {disconnect_on_buffer_full: true}\n");
    conf_free(&kit_conf);
}

static void wrong_keys_are_named_with_file_and_line(void **state)
{
    kit_wrong("port: 1\nwebsocket:\n  max_byte: 1\n", "weft.yaml:3: websocket.max_byte: "
                 "unknown key; did you mean websocket.max_bytes?");
    kit_wrong("max_bytes: 1\n", "weft.yaml:1: max_bytes: unknown key; did you mean "
                 "websocket.max_bytes?");
    kit_wrong("colour: red\n", "weft.yaml:1: colour: unknown key; --help-config lists all");
    kit_wrong("history:\n  writer_shards: 1\n", "weft.yaml:2: history.writer_shards: known, but "
                 "not supported by this build");
    kit_wrong("ai_transport: {rollup: {enabled: true}}\n", "weft.yaml:1: ai_transport.rollup."
                 "enabled: known, but not supported by this build");
    kit_wrong("history: {colour: red}\n", "weft.yaml:1: history.colour: unknown key; "
                 "--help-config lists all");
    kit_wrong("ssl:\n", "weft.yaml:1: ssl: known, but not supported by this build");
    kit_wrong("websocket: 5\n", "weft.yaml:1: websocket: expected a section of keys, got "
                 "another value");
    kit_wrong("port: 1\nhost: a\nport: 2\n", "weft.yaml:3: port: given twice, first on line 1");
    kit_wrong("[a]: 1\n", "weft.yaml:1: expected the name of a key, got a list");
}

static void broken_files_are_named(void **state)
{
    kit_wrong("port: 1\nhost: 'a\n", "weft.yaml:3: not valid YAML: found unexpected end of "
                 "stream");
    kit_wrong("port: 1\nhost: \xff\n", "weft.yaml:2: not valid YAML: invalid leading UTF-8 "
                 "octet");
    kit_wrong("port: 1\n---\nport: 2\n", "weft.yaml:3: expected one YAML document, got a "
                 "second");
    kit_wrong("- a\n", "weft.yaml:1: expected keys and values, as in `port: 6001`");
    kit_refused(LIST("--config", "absent.yaml"), LIST(),
            "absent.yaml: cannot be opened: No such file or directory");
    kit_refused(LIST("--config", "."), LIST(), ".: expected a file, got a directory");
}

static void wrong_flags_and_variables_are_named(void **state)
{
    kit_refused(LIST("--prot", "1"), LIST(), "--prot: unknown flag; see weft --help");
    kit_refused(LIST("serve"), LIST(), "serve: unknown flag; see weft --help");
    kit_refused(LIST("--port"), LIST(), "--port: expected a value after it; see weft --help");
    kit_refused(LIST("--port", "x"), LIST(),
                "--port: port: expected a whole number from 0 to 65535, got \"x\"");
    kit_refused(LIST("--set", "port"), LIST(), "--set: expected key.path=value");
    kit_refused(LIST("--set", "websocket=1"), LIST(),
                "--set: websocket: a section, not a key; name one of its keys");
    kit_refused(LIST("--set", "history.memory=1"), LIST(),
                "--set: history.memory: known, but not supported by this build");
    kit_refused(LIST("--set", "port="), LIST(), "--set: port: expected a whole number from 0 to "
            "65535, got nothing");
    kit_refused(LIST(), LIST("WEFT_PROT=1"), "WEFT_PROT: prot: unknown key; did you mean port?");
    kit_refused(LIST(), LIST("WEFT_WEBSOCKET__MAX_BYTES=1"), "WEFT_WEBSOCKET__MAX_BYTES: "
            "websocket.max_bytes: expected a whole number from 1024 to 1073741824, got \"1\"");
    kit_refused(LIST(), LIST("WEFT_port=1"),
                "WEFT_port: unknown variable; did you mean WEFT_PORT?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_in_apps_are_named),
        cmocka_unit_test(a_secret_is_never_quoted),
        cmocka_unit_test(bad_values_are_named_with_file_and_line),
        cmocka_unit_test(wrong_keys_are_named_with_file_and_line),
        cmocka_unit_test(broken_files_are_named),
        cmocka_unit_test(wrong_flags_and_variables_are_named),
    };

    return KIT_RUN(tests);
}
