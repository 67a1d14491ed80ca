/* conf.h - the configuration: one table of keys, one struct of values.
 *
 * Shape    conf_load applies, in this order: defaults from the table, the YAML file of --config,
 *          WEFT_* environment variables, --flags and --set in the order given. conf_keys.h is the
 *          table (key, type, range, default, unit, sentence); the schema, the environment names,
 *          --help-config and docs/configuration.md are made from it. conf_parts.h says what each
 *          conf_*.c does.
 *          Two libraries read the text. libcyaml loads it by a schema made from the table. Before
 *          that libyaml, on which libcyaml stands, walks the text for mistakes: libcyaml tells the
 *          line of an error to its log only, knows no line for a value it has already loaded, and
 *          lets a key stand twice; libyaml's nodes carry their marks.
 * Threads  Loaded by main before any other thread starts; read-only afterwards.
 * Memory   Owned by struct conf; conf_free releases it.
 * Errors   ERR_CONFIG with one line that names file, line, key and what was expected, and never an
 *          app's key or secret. ERR_MEMORY.
 * Source   Keys and meanings: spec/operations.md 4, spec/messages-and-history.md 11,
 *          spec/settled.md 2, 10-12, 14-21, 34, 40.
 */
#pragma once
#include "core/conf_policy.h"
#include "core/err.h"

/* What an app or a namespace says of the channels it covers, resolved: its own value, else that of
 * the next wider one. conf_policy_of is what the server asks; these are the settings behind it. */
struct conf_channels {
    bool     history_enabled, history_rewind_enabled, history_relaxed;
    uint32_t history_retention_window_seconds;
    uint64_t history_max_messages_per_channel, history_max_bytes_per_channel;
    bool     presence_history_enabled;
    uint32_t presence_history_retention_window_seconds;
    uint64_t presence_history_max_events_per_channel, presence_history_max_bytes_per_channel;
    bool     annotations_enabled;
    bool     connection_recovery_enabled;                  /* these three: apps only */
    uint32_t connection_recovery_buffer_ttl_seconds, connection_recovery_max_buffer_size;
};

/* One application. Limits are resolved: the app's value, else the server-wide one, 0 = no limit. */
struct conf_app {
    char    *id, *key, *secret;
    bool     enabled;
    uint32_t max_connections;
    uint32_t max_client_events_per_second, decay_seconds;
    bool     terminate_on_limit;
    bool     message_rate_enabled;
    uint32_t message_rate_max_attempts, message_rate_decay_seconds;
    bool     message_rate_terminate_on_limit;
    uint32_t max_presence_members_per_channel, max_presence_member_size_in_kb;
    uint32_t max_channel_name_length, max_event_name_length;
    uint32_t max_event_payload_in_kb, max_event_channels_at_once, max_event_batch_size;
    uint32_t max_backend_events_per_second, max_read_requests_per_second;
    bool     enable_client_messages, enable_user_authentication, enable_watchlist_events;
    bool     enable_subscription_count;
    char   **allowed_origins;          /* empty: any origin */
    uint32_t allowed_origins_count;
    bool     idempotency_enabled;
    uint32_t idempotency_ttl_seconds;
    struct conf_channels channels;
    struct conf_policy   policy;       /* of channels without a namespace */
    struct conf_names    names;        /* policy.channels.channel_namespaces, sorted by name */
    bool     policy_any;               /* something is on for some channel of the app */
};

struct conf_rate {                     /* fixed window per address; max_requests 0 = off,
                                          as both are while rate_limiter.enabled is false */
    uint32_t max_requests, window_seconds, trust_hops;
};

struct conf {
    char    *host;                     /* listen address of the traffic port */
    uint16_t port;
    uint32_t shards;                   /* 1 to 64; 0 in the file means one per usable core */
    char    *data_dir;
    bool     debug;                    /* has already lowered log_level, unless that is given */
    bool     pin_threads;              /* shards_pin, default true */

    uint32_t max_connections;          /* node-wide, 0 = off */
    uint32_t connections_capacity;     /* limits.connections_capacity, default 1,048,576 */
    uint32_t max_channels_per_connection; /* limits.max_channels_per_connection, 100, 0 = none */
    uint32_t shard_memory_mb;          /* limits.shard_memory_mb: heap bound per shard, 4096 */
    uint32_t accepts_outstanding;      /* limits.accepts_outstanding per shard, 256 */
    uint32_t fanout_backlog;           /* limits.fanout_backlog, subscribers, 4,194,304 */
    uint32_t handshake_timeout_ms;     /* limits.handshake_timeout_ms: the head of a request, and
                                          between two pieces of its body, 10,000 */
    uint32_t request_timeout_ms;       /* limits.request_timeout_ms: first bytes to the end of the
                                          body, 120,000 */
    uint32_t keepalive_timeout_ms;     /* http_api.keepalive_timeout_ms: idle HTTP, 60,000 */

    uint32_t activity_timeout;         /* s */
    uint32_t user_authentication_timeout; /* s; 0 = not configured (settled 12) */
    uint32_t shutdown_grace_period;    /* s */
    uint32_t health_check_timeout_ms;

    uint32_t websocket_max_payload_kb; /* 64 */
    uint32_t websocket_max_messages;   /* 1000 */
    uint32_t websocket_max_bytes;      /* 1 MiB */
    uint32_t websocket_pong_timeout;   /* s, 30 */
    uint32_t websocket_close_timeout_ms; /* wait for the peer's Close, 2000 */
    uint32_t websocket_ping_interval;  /* s, 30; V2 native pings, 0 = none */
    uint32_t websocket_idle_timeout;   /* s, 120; V2, 0 = none */

    uint32_t http_request_limit_in_mb; /* http_api.request_limit_in_mb, 10 */
    bool     http_usage_enabled;

    uint32_t cache_ttl;                /* channel_limits.cache_ttl, s, 3600 */
    uint64_t cache_max_bytes;          /* cache.max_bytes, whole server, 64 MiB */
    uint32_t idempotency_max_key_length;
    uint32_t idempotency_max_entries;  /* whole server, 1,000,000 */
    uint32_t presence_ungraceful_timeout_seconds; /* V1: 0 */
    uint32_t presence_v2_ungraceful_timeout_seconds; /* 15 */
    uint32_t presence_update_rate_limit_per_member_per_second; /* 10 */

    bool     history_enabled;          /* false: no store is opened and no channel has history */
    bool     history_rewind_enabled;   /* true */
    uint32_t history_retention_window_seconds; /* 86400 */
    uint32_t history_max_page_size;    /* 100 */
    uint64_t history_max_messages_per_channel, history_max_bytes_per_channel; /* 0 = no limit */
    bool     history_relaxed;          /* history.durability: relaxed; commit */
    uint32_t history_purge_interval_seconds; /* 300 */
    uint32_t history_forget_after_seconds; /* empty channels: 604,800, 0 = never */
    uint32_t history_lanes;            /* 2: used when the data directory is made */
    uint64_t history_max_bytes;        /* of all lanes, 0 = the disk */
    uint32_t history_cold_replay_max_messages; /* 10,000 */
    uint32_t history_cold_replay_max_bytes; /* 4 MiB */
    uint32_t history_message_cache_mb; /* folded messages in memory, whole server, 256 */
    bool     versioned_messages_enabled; /* false */
    uint32_t versioned_messages_max_page_size; /* 100 */
    uint64_t versioned_messages_retention_window_seconds; /* 0 = for ever, UINT64_MAX (not set):
                                          as the channel's history (settled 40) */
    bool     annotations_enabled;      /* false */
    uint32_t annotations_max_channel_mb; /* memory for the summaries of one channel, 64 */
    bool     presence_history_enabled; /* false */
    uint32_t presence_history_retention_window_seconds; /* 86400 */
    uint32_t presence_history_max_page_size; /* 100 */
    uint64_t presence_history_max_events_per_channel; /* 0 = no limit */
    uint64_t presence_history_max_bytes_per_channel;  /* 0 = no limit */

    bool     connection_recovery_enabled; /* false */
    uint32_t connection_recovery_buffer_ttl_seconds; /* 120 */
    uint32_t connection_recovery_max_buffer_size; /* 100: frames a replay ring keeps */
    bool     ephemeral_enabled;        /* true */
    bool     echo_control_enabled, echo_control_default_echo_messages; /* true, true */

    bool     rate_limiter_enabled;     /* default false here (issue: off until configured) */
    struct conf_rate rate_api, rate_websocket;

    char   **cors_origins;  uint32_t cors_origins_count;   /* default ["*"] */
    char   **cors_methods;  uint32_t cors_methods_count;
    char   **cors_headers;  uint32_t cors_headers_count;
    bool     cors_credentials;

    bool     metrics_enabled;
    char    *metrics_host;
    uint16_t metrics_port;
    char    *metrics_prefix;           /* "sockudo_" */

    char    *log_level;                /* error warn info debug trace */
    bool     log_json;

    struct conf_app *apps;             /* at least one */
    uint32_t apps_count;
    bool     builtin_app;              /* none was configured: main prints a warning */
};

enum conf_action {
    CONF_RUN,          /* start the server */
    CONF_CHECK,        /* --check-config: valid; exit 0 */
    CONF_PRINTED,      /* --help, --help-config, --version: already printed; exit 0 */
};

/* Reads argv, environ and files. Prints --help, --help-config and --version to stdout itself. On
 * ERR_CONFIG `error` holds one line that says where, what and what was expected. */
MUST_CHECK err_t conf_load(struct conf *out, int argc, char **argv, char **environment,
                           enum conf_action *action, char *error, uint32_t error_bytes);
void conf_free(struct conf *c);
