#include "core/conf_parts.h"

#ifndef WEFT_VERSION
#error "the build passes -DWEFT_VERSION"
#endif

void conf_print_version(FILE *to)
{
    fprintf(to, "weft %s\n", WEFT_VERSION);
}

void conf_print_help(FILE *to)
{
    fputs(
        "weft - a realtime server for Pusher clients\n"
        "\n"
        "Usage: weft [flags]\n"
        "\n"
        "  --config FILE         read settings from a YAML file (JSON is YAML too)\n"
        "  --host ADDRESS        listen address (0.0.0.0)\n"
        "  --port N              port for WebSocket and HTTP (6001; 0: any free port)\n"
        "  --metrics-port N      port for /metrics (9601; 0: any free port)\n"
        "  --shards N            shard threads, 1 to 64 (one per usable core)\n"
        "  --data-dir DIR        directory of this server, made if missing (weft-data)\n"
        "  --log-level LEVEL     error, warn, info, debug or trace (info)\n"
        "  --set KEY=VALUE       any key of --help-config; the value is YAML; repeatable\n"
        "  --check-config        check flags, environment and file, then stop\n"
        "  --help-config         print every key with type, default and meaning (Markdown)\n"
        "  --help                print this text\n"
        "  --version             print the version\n"
        "\n"
        "A flag counts before the environment, that before the file, that before the default.\n"
        "The environment has one name per key: WEFT_, then the key in upper case, with two\n"
        "underscores for each dot. It takes YAML values, as --set does.\n"
        "\n"
        "Examples:\n"
        "  weft\n"
        "      serve on 6001 with the built-in app: app-id, app-key, app-secret\n"
        "  weft --config /etc/weft/weft.yaml --shards 8\n"
        "  weft --config weft.yaml --check-config\n"
        "      exit status 0, or 1 and one line: file, line, key, what was expected\n"
        "  weft --set websocket.max_bytes=4194304 --set 'cors.origin=[https://example.com]'\n"
        "  WEFT_WEBSOCKET__MAX_BYTES=4194304 weft --log-level debug\n"
        "  WEFT_APP_MANAGER__ARRAY__APPS='[{id: shop, key: k1, secret: s1}]' weft\n",
        to);
}

/* ---- the reference -------------------------------------------------------------------------- */

static const char *type_name(const struct conf_key *key)
{
    switch (key->type) {
    case CONF_NUMBER: return "number";
    case CONF_BOOL: return "bool";
    case CONF_TEXT: return "text";
    case CONF_CHOICE: return "word";
    case CONF_LIST: return "list of texts";
    case CONF_APPS: return "list of apps";
    case CONF_NAMESPACES: return "list of namespaces";
    }
    return "";
}

/* `silent` is printed where a key has no default of its own. */
static void print_standard(FILE *to, const struct conf_key *key, const char *silent)
{
    if (key->shown != NULL) {
        fputs(key->shown, to);
    } else if (key->standard == NULL) {
        fputs(silent, to);
    } else if (key->type != CONF_LIST) {
        fprintf(to, "`%s`", key->standard);
    } else {
        fputs("`[", to);
        for (const char *p = key->standard; *p != '\0'; p++) {
            if (*p == ' ') fputs(", ", to);
            else if (*p == '*') fputs("\"*\"", to);
            else fputc(*p, to);
        }
        fputs("]`", to);
    }
}

static void print_range(FILE *to, const struct conf_key *key)
{
    if (key->type == CONF_NUMBER)
        fprintf(to, " %llu to %llu", (unsigned long long)key->min, (unsigned long long)key->max);
    if (key->type != CONF_CHOICE) return;
    fputs(": `", to);
    for (const char *p = key->choices; *p != '\0'; p++) {
        if (*p == ' ') fputs("`, `", to);
        else fputc(*p, to);
    }
    fputc('`', to);
}

static void print_table(FILE *to, const struct conf_table *t, const char *silent)
{
    bool environment = t == &conf_table_server;
    fprintf(to, "| key | type | default | unit | meaning |%s\n",
            environment ? " environment |" : "");
    fprintf(to, "|---|---|---|---|---|%s\n", environment ? "---|" : "");
    for (uint32_t i = 0; i < t->count; i++) {
        const struct conf_key *key = &t->keys[i];
        char name[CONF_PATH_BYTES];
        fprintf(to, "| `%s` | %s", key->path, type_name(key));
        print_range(to, key);
        fputs(" | ", to);
        print_standard(to, key, silent);
        fprintf(to, " | %s | %s |", key->unit != NULL ? key->unit : "", key->sentence);
        if (environment) {
            conf_table_environment_name(key->path, name, sizeof(name));
            fprintf(to, " `%s` |", name);
        }
        fputc('\n', to);
    }
}

static void print_unsupported(FILE *to)
{
    const char *section, *names;

    for (uint32_t i = 0; conf_table_unsupported(i, &section, &names); i++) {
        fprintf(to, "- %s%s%s: `", section[0] != '\0' ? "`" : "top level", section,
                section[0] != '\0' ? "`" : "");
        for (const char *p = names; *p != '\0'; p++) {
            if (*p == ' ') fputs("`, `", to);
            else fputc(*p, to);
        }
        fputs("`\n", to);
    }
}

void conf_print_reference(FILE *to)
{
    fputs(
        "# Configuration\n"
        "\n"
        "Printed by `weft --help-config` from the table that also makes the checks and the\n"
        "defaults (`core/conf_keys.h`). Change the table, then print this page again.\n"
        "\n"
        "## Where values come from\n"
        "\n"
        "1. Flags: `--set websocket.max_bytes=4194304` sets any key; `--host`, `--port`,\n"
        "   `--metrics-port`, `--shards`, `--data-dir` and `--log-level` are short forms.\n"
        "2. Environment: `WEFT_`, then the key in upper case, with two underscores for each dot.\n"
        "3. The YAML file of `--config`; JSON is YAML too. A dot in a key is one level of the\n"
        "   file.\n"
        "4. The default.\n"
        "\n"
        "The first of these that has a key decides; a list is taken whole. Values of `--set` and\n"
        "of the environment are YAML, so `[a, b]` is a list and `''` an empty text. Bools are\n"
        "`true`, `yes`, `on`, `1` and `false`, `no`, `off`, `0`. In the file's text `${NAME}` is\n"
        "replaced by an environment variable, and `${NAME:-text}` by `text` where that is unset\n"
        "or empty; a missing variable without a text is an error. Unknown keys, unknown `WEFT_`\n"
        "variables and values out of range stop the start with one line that names file, line,\n"
        "key and what was expected; `weft --check-config` checks without serving.\n"
        "\n"
        "## Keys\n"
        "\n", to);
    print_table(to, &conf_table_server, "");
    fputs(
        "\n"
        "## One app\n"
        "\n"
        "Each entry of `app_manager.array.apps` has these keys. Where `policy` is absent, its\n"
        "limits, features and `allowed_origins` may stand directly beside `id` and `key`, as in\n"
        "older files: `max_connections` for `policy.limits.max_connections`. \"The server's\"\n"
        "means the value of the key of that name in `event_limits`, `channel_limits`,\n"
        "`presence`, `idempotency`, `history`, `presence_history` or `connection_recovery`.\n"
        "History, presence history, annotations and recovery that are off for the server cannot\n"
        "be on for an app or a namespace; the start says so.\n"
        "\n", to);
    print_table(to, &conf_table_app, "the server's");
    fputs(
        "\n"
        "## One namespace\n"
        "\n"
        "Each entry of an app's `channel_namespaces` has these keys. A channel belongs to the\n"
        "namespace whose name stands before the first `:`, behind the prefixes `private-`,\n"
        "`private-encrypted-`, `presence-` and `cache-`. An app without namespaces has no\n"
        "channels with a `:`. Annotations bring history with them.\n"
        "\n", to);
    print_table(to, &conf_table_namespace, "the app's");
    fputs(
        "\n"
        "## Known, not supported by this build\n"
        "\n"
        "These keys have a meaning elsewhere; here they stop the start with an error of their\n"
        "own, so that nobody believes them to be in force.\n"
        "\n", to);
    print_unsupported(to);
}
