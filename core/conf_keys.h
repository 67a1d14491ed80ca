/* conf_keys.h - the table of configuration keys. Everything said about a key is said here.
 *
 * Shape    Rows of struct conf_key (conf_parts.h), grouped as the reference prints them. The
 *          schema, the WEFT_* names, the checks, the defaults, --help-config and
 *          docs/configuration.md all come from these rows. Only conf_table.c includes this file.
 * Source   Names: spec/operations.md 4, spec/messages-and-history.md 11. Values and what is ours:
 *          spec/settled.md 2, 10-12, 14-21, 34, 40.
 */
#pragma once
#include "core/conf_parts.h"

#define AT(s, member) .offset = offsetof(s, member), .width = sizeof(((s *)0)->member)
#define NUM_AT(where, key, lo, hi, standard_, unit_, ...) \
    {.path = key, .type = CONF_NUMBER, where, .min = lo, .max = hi, .standard = standard_, \
     .unit = unit_, .sentence = __VA_ARGS__}
#define NUM(key, member, ...) NUM_AT(AT(struct conf_target, member), key, __VA_ARGS__)
#define FLAG(key, member, standard_, ...) \
    {.path = key, .type = CONF_BOOL, AT(struct conf_target, member), .standard = standard_, \
     .sentence = __VA_ARGS__}
#define TEXT(key, member, lo, hi, standard_, ...) \
    {.path = key, .type = CONF_TEXT, AT(struct conf_target, member), .min = lo, .max = hi, \
     .standard = standard_, .sentence = __VA_ARGS__}
#define CHOICE(key, member, words, standard_, ...) \
    {.path = key, .type = CONF_CHOICE, AT(struct conf_target, member), .choices = words, \
     .standard = standard_, .sentence = __VA_ARGS__}
#define ONLY(key, word, ...) \
    {.path = key, .type = CONF_CHOICE, .choices = word, .standard = word, .sentence = __VA_ARGS__}
#define WORDS(key, member, standard_, ...) \
    {.path = key, .type = CONF_LIST, AT(struct conf_target, member), .min = 1, \
     .max = CONF_LIST_MAX, .standard = standard_, .sentence = __VA_ARGS__}

#define DURABILITY(where, key, flat_, standard_, ...) \
    {.path = key, .flat = flat_, .type = CONF_CHOICE, where, .choices = "commit relaxed", \
     .standard = standard_, .sentence = __VA_ARGS__}

#define U32 4294967295u
#define COUNTS (1ull << 50)

static const struct conf_key keys_server[] = {
    TEXT("host", conf.host, 1, 255, "0.0.0.0",
         "Address on which WebSocket and HTTP are served."),
    NUM("port", conf.port, 0, 65535, "6001", NULL,
        "Port for WebSocket and HTTP; 0 takes any free port."),
    {.path = "shards", .type = CONF_NUMBER, AT(struct conf_target, conf.shards), .min = 0,
     .max = CONF_SHARDS_MAX, .standard = "0", .shown = "one per usable core",
     .sentence = "Shard threads; 0 means one per usable core."},
    FLAG("shards_pin", conf.pin_threads, "true", "Keep each shard thread on a core of its own."),
    TEXT("data_dir", conf.data_dir, 1, 4000, "weft-data",
         "Directory that belongs to this server; made if missing, locked while it runs."),
    FLAG("debug", conf.debug, "false",
         "Log at level debug where `logging.level` is not given."),
    NUM("max_connections", conf.max_connections, 0, U32, "0", NULL,
        "Most sockets this node serves at once, else 4100; 0 means no limit."),
    NUM("activity_timeout", conf.activity_timeout, 1, 86400, "120", "s",
        "Silence after which a socket is pinged; announced to clients."),
    {.path = "user_authentication_timeout", .type = CONF_NUMBER,
     AT(struct conf_target, conf.user_authentication_timeout), .min = 0, .max = 86400,
     .standard = "0", .shown = "off", .unit = "s",
     .sentence = "Time for a client to sign in before it is closed with 4009; 0 means off."},
    NUM("shutdown_grace_period", conf.shutdown_grace_period, 0, 3600, "10", "s",
        "Longest wait for sockets to leave after SIGTERM."),
    NUM("health_check_timeout_ms", conf.health_check_timeout_ms, 1, 600000, "2000", "ms",
        "Longest wait for one check of `/up`."),
    NUM("websocket_max_payload_kb", conf.websocket_max_payload_kb, 1, 65536, "64", "KiB",
        "Largest message a client may send, else close 1009."),

    NUM("websocket.max_messages", conf.websocket_max_messages, 1, 1000000, "1000", NULL,
        "Frames that may wait for a slow socket before it is closed with 4100."),
    NUM("websocket.max_bytes", conf.websocket_max_bytes, 1024, 1073741824, "1048576", "bytes",
        "Bytes that may wait for a slow socket before it is closed with 4100."),
    {.path = "websocket.disconnect_on_buffer_full", .type = CONF_BOOL, .must_be_true = true,
     .standard = "true",
     .sentence = "Only true: a socket that falls behind is closed, its messages are never "
                 "dropped silently."},
    NUM("websocket.pong_timeout", conf.websocket_pong_timeout, 1, 86400, "30", "s",
        "Wait for the answer to a ping, then close 4201."),
    NUM("websocket.close_timeout_ms", conf.websocket_close_timeout_ms, 1, 600000, "2000", "ms",
        "Wait for the peer's close frame after ours."),
    NUM("websocket.ping_interval", conf.websocket_ping_interval, 0, 86400, "30", "s",
        "Least time between WebSocket pings to a V2 client; 0 means none."),
    NUM("websocket.idle_timeout", conf.websocket_idle_timeout, 0, 86400, "120", "s",
        "Silence after which a V2 client is closed with 1001; 0 means never."),

    NUM("http_api.request_limit_in_mb", conf.http_request_limit_in_mb, 1, 1024, "10", "MiB",
        "Largest request body, else 413."),
    FLAG("http_api.usage_enabled", conf.http_usage_enabled, "true", "Serve `/usage` and `/stats`."),
    NUM("http_api.keepalive_timeout_ms", conf.keepalive_timeout_ms, 1, 86400000, "60000", "ms",
        "Idle time after which a kept-alive HTTP connection is closed."),

    NUM("limits.connections_capacity", conf.connections_capacity, 1, 16777216, "1048576", NULL,
        "Sockets for which address space is reserved; 4100 beyond it."),
    NUM("limits.max_channels_per_connection", conf.max_channels_per_connection, 0, 65000,
        "100", NULL, "Channels one socket may subscribe to, else 4300; 0 means no limit."),
    NUM("limits.shard_memory_mb", conf.shard_memory_mb, 16, 1048576, "4096", "MiB",
        "Memory one shard may use for its state; work beyond it is refused."),
    NUM("limits.accepts_outstanding", conf.accepts_outstanding, 1, 4096, "256", NULL,
        "Connections one shard accepts at a time."),
    NUM("limits.fanout_backlog", conf.fanout_backlog, 1024, 4294967295, "4194304", NULL,
        "Subscribers that unfinished fan-outs of one shard have still to visit; publishes are "
        "refused beyond it."),
    NUM("limits.handshake_timeout_ms", conf.handshake_timeout_ms, 1, 600000, "10000", "ms",
        "Time for the head of a request, and between two pieces of its body."),
    NUM("limits.request_timeout_ms", conf.request_timeout_ms, 1, 3600000, "120000", "ms",
        "Time for a whole request, its body included, else 408."),

    NUM("channel_limits.max_name_length", shared.max_channel_name_length, 0, 16384, "200",
        "bytes", "Longest channel name where an app is silent; 0 means no limit."),
    NUM("channel_limits.cache_ttl", conf.cache_ttl, 1, 31536000, "3600", "s",
        "How long a cache channel keeps its last event."),
    NUM("event_limits.max_channels_at_once", shared.max_event_channels_at_once, 0, 1000000,
        "100", NULL, "Channels one event may name, where an app is silent; 0 means no limit."),
    NUM("event_limits.max_name_length", shared.max_event_name_length, 0, 65535, "200", "bytes",
        "Longest event name where an app is silent; 0 means no limit."),
    NUM("event_limits.max_payload_in_kb", shared.max_event_payload_in_kb, 0, 1048576, "100",
        "KiB", "Largest event data where an app is silent; 0 means no limit."),
    NUM("event_limits.max_batch_size", shared.max_event_batch_size, 0, 1000000, "10", NULL,
        "Events in one batch request where an app is silent; 0 means no limit."),
    NUM("presence.max_members_per_channel", shared.max_presence_members_per_channel, 0, U32,
        "100", NULL, "Members of one presence channel where an app is silent; 0 means no limit."),
    NUM("presence.max_member_size_in_kb", shared.max_presence_member_size_in_kb, 0, 1048576,
        "2", "KiB", "Largest `user_info` where an app is silent; 0 means no limit."),
    NUM("presence.ungraceful_timeout_seconds", conf.presence_ungraceful_timeout_seconds, 0,
        86400, "0", "s", "Wait before a V1 member whose socket broke is announced as gone."),
    NUM("presence.v2_ungraceful_timeout_seconds", conf.presence_v2_ungraceful_timeout_seconds, 0,
        86400, "15", "s", "Wait before a V2 member whose socket broke is announced as gone."),
    NUM("presence.update_rate_limit_per_member_per_second",
        conf.presence_update_rate_limit_per_member_per_second, 1, 1000000, "10", NULL,
        "Presence updates of one member and second, else 4301."),

    FLAG("history.enabled", conf.history_enabled, "false",
         "Keep what is published, in `data_dir`, where an app is silent; false: nothing of this "
         "section is in force."),
    ONLY("history.backend", "lmdb", "Where history is kept."),
    FLAG("history.rewind_enabled", conf.history_rewind_enabled, "true",
         "Let a V2 subscribe ask for past messages, where an app is silent."),
    NUM("history.retention_window_seconds", conf.history_retention_window_seconds, 1, U32, "86400",
        "s", "How long a message is kept, where an app is silent."),
    NUM("history.max_messages_per_channel", conf.history_max_messages_per_channel, 0, COUNTS, "0",
        NULL, "Messages kept of one channel, where an app is silent; 0 means no limit."),
    NUM("history.max_bytes_per_channel", conf.history_max_bytes_per_channel, 0, COUNTS, "0",
        "bytes", "Bytes kept of one channel, where an app is silent; 0 means no limit."),
    DURABILITY(AT(struct conf_target, conf.history_relaxed), "history.durability", NULL, "commit",
               "`commit`: stored, then delivered and acknowledged; `relaxed`: delivered and "
               "acknowledged first, so a crash may lose the newest messages. Where an app is "
               "silent."),
    NUM("history.max_page_size", conf.history_max_page_size, 1, 10000, "100", NULL,
        "Messages on one page of history."),
    NUM("history.purge_interval_seconds", conf.history_purge_interval_seconds, 1, 86400, "300",
        "s", "Time between two rounds of deleting what is past its retention."),
    NUM("history.forget_after_seconds", conf.history_forget_after_seconds, 0, U32, "604800", "s",
        "A channel of which nothing is left is forgotten when nothing has changed for so long; 0: "
        "never. Should it come again, it is another stream."),
    NUM("history.lanes", conf.history_lanes, 1, 16, "2", NULL,
        "Files and committer threads of a new data directory; one that exists keeps its number."),
    NUM("history.max_bytes", conf.history_max_bytes, 0, COUNTS, "0", "bytes",
        "What the data directory may hold; durable publishes are refused beyond it; 0 means what "
        "the disk has."),
    NUM("history.cold_replay_max_messages", conf.history_cold_replay_max_messages, 1, 1000000,
        "10000", NULL, "Messages that one resume may replay from the store."),
    NUM("history.cold_replay_max_bytes", conf.history_cold_replay_max_bytes, 1024, 67108864,
        "4194304", "bytes", "Bytes that one resume may replay from the store."),
    NUM("history.message_cache_mb", conf.history_message_cache_mb, 1, 1048576, "256", "MiB",
        "Memory for the latest versions of messages being changed, whole server."),

    FLAG("versioned_messages.enabled", conf.versioned_messages_enabled, "false",
         "Let messages be updated, appended to and deleted; needs history."),
    ONLY("versioned_messages.driver", "lmdb", "Where versions are kept."),
    NUM("versioned_messages.max_page_size", conf.versioned_messages_max_page_size, 1, 10000,
        "100", NULL, "Versions, or annotations, on one page."),
    {.path = "versioned_messages.retention_window_seconds", .type = CONF_NUMBER,
     AT(struct conf_target, conf.versioned_messages_retention_window_seconds), .min = 0,
     .max = U32, .standard = "0", .shown = "as the channel's history", .unit = "s",
     .sentence = "How long a version is kept; 0, which must be given, means for ever. Without its "
                 "versions, a row of history is as it was first published."},
    FLAG("annotations.enabled", conf.annotations_enabled, "false",
         "Let messages be annotated in apps and namespaces that allow it; needs versioned "
         "messages."),
    NUM("annotations.max_channel_mb", conf.annotations_max_channel_mb, 1, 65536, "64", "MiB",
        "Memory for the summaries of one channel's annotations; more are refused with 413."),

    FLAG("presence_history.enabled", conf.presence_history_enabled, "false",
         "Keep who came and went on presence channels, where an app is silent; needs history."),
    NUM("presence_history.retention_window_seconds",
        conf.presence_history_retention_window_seconds, 1, U32, "86400", "s",
        "How long an event is kept, where an app is silent."),
    NUM("presence_history.max_events_per_channel", conf.presence_history_max_events_per_channel, 0,
        COUNTS, "0", NULL, "Events kept of one channel, where an app is silent; 0 means no limit."),
    NUM("presence_history.max_bytes_per_channel", conf.presence_history_max_bytes_per_channel, 0,
        COUNTS, "0", "bytes",
        "Bytes kept of one channel, where an app is silent; 0 means no limit."),
    NUM("presence_history.max_page_size", conf.presence_history_max_page_size, 1, 10000, "100",
        NULL, "Events on one page of presence history."),

    FLAG("connection_recovery.enabled", conf.connection_recovery_enabled, "false",
         "Let V2 clients resume where they were cut off."),
    NUM("connection_recovery.buffer_ttl_seconds", conf.connection_recovery_buffer_ttl_seconds, 1,
        86400, "120", "s", "How long a frame can be replayed from memory."),
    NUM("connection_recovery.max_buffer_size", conf.connection_recovery_max_buffer_size, 1, 100000,
        "100", NULL, "Frames of one channel that can be replayed from memory."),
    FLAG("ephemeral.enabled", conf.ephemeral_enabled, "true",
         "Let a publish be delivered only, never kept."),
    FLAG("echo_control.enabled", conf.echo_control_enabled, "true",
         "Let a V2 client, or a publish, decide whether a sender gets its own events."),
    FLAG("echo_control.default_echo_messages", conf.echo_control_default_echo_messages, "true",
         "What a V2 client gets that does not say."),

    ONLY("cache.driver", "memory", "Where cache channels keep their event."),
    NUM("cache.max_bytes", conf.cache_max_bytes, 1024, 1ull << 40, "67108864", "bytes",
        "Memory for the events of cache channels; the oldest leave first."),
    FLAG("idempotency.enabled", shared.idempotency_enabled, "true",
         "Answer a repeated idempotency key with the first answer, where an app is silent."),
    NUM("idempotency.ttl_seconds", shared.idempotency_ttl_seconds, 1, 31536000, "120", "s",
        "How long a key is remembered, where an app is silent."),
    NUM("idempotency.max_key_length", conf.idempotency_max_key_length, 1, 1024, "128",
        "bytes", "Longest idempotency key."),
    NUM("idempotency.max_entries", conf.idempotency_max_entries, 1, 100000000, "1000000", NULL,
        "Keys remembered at once, about 300 bytes each; 503 when full, none is forgotten early. "
        "What ttl_seconds bring must fit: some SDKs send a key with every publish."),

    FLAG("rate_limiter.enabled", conf.rate_limiter_enabled, "false",
         "Limit requests per address."),
    ONLY("rate_limiter.driver", "memory", "Where the counts are kept."),
    NUM("rate_limiter.api_rate_limit.max_requests", conf.rate_api.max_requests, 0, U32, "100",
        NULL, "HTTP API requests per address and window; 0 means no limit."),
    NUM("rate_limiter.api_rate_limit.window_seconds", conf.rate_api.window_seconds, 1, 86400,
        "60", "s", "Length of that window."),
    NUM("rate_limiter.api_rate_limit.trust_hops", conf.rate_api.trust_hops, 0, 16, "0", NULL,
        "Proxies whose `X-Forwarded-For` entry is believed."),
    NUM("rate_limiter.websocket_rate_limit.max_requests", conf.rate_websocket.max_requests, 0,
        U32, "20", NULL, "WebSocket connects per address and window; 0 means no limit."),
    NUM("rate_limiter.websocket_rate_limit.window_seconds", conf.rate_websocket.window_seconds,
        1, 86400, "60", "s", "Length of that window."),
    NUM("rate_limiter.websocket_rate_limit.trust_hops", conf.rate_websocket.trust_hops, 0, 16,
        "0", NULL, "Proxies whose `X-Forwarded-For` entry is believed."),

    WORDS("cors.origin", conf.cors_origins, "*", "Origins that browsers may call from."),
    WORDS("cors.methods", conf.cors_methods, "GET POST PUT PATCH DELETE OPTIONS",
          "Methods that browsers may use."),
    WORDS("cors.allowed_headers", conf.cors_headers,
          "Authorization Content-Type X-Requested-With Accept X-Idempotency-Key",
          "Headers that browsers may send."),
    FLAG("cors.credentials", conf.cors_credentials, "true",
         "Allow credentials; never together with the origin `*`."),

    FLAG("metrics.enabled", conf.metrics_enabled, "true", "Serve `/metrics`."),
    ONLY("metrics.driver", "prometheus", "Form of the metrics."),
    TEXT("metrics.host", conf.metrics_host, 1, 255, "0.0.0.0",
         "Address on which metrics are served."),
    NUM("metrics.port", conf.metrics_port, 0, 65535, "9601", NULL,
        "Port for metrics; 0 takes any free port."),
    {.path = "metrics.prometheus.prefix", .type = CONF_TEXT, .form = CONF_METRIC_PREFIX,
     AT(struct conf_target, conf.metrics_prefix), .min = 0, .max = 64, .standard = "sockudo_",
     .sentence = "Start of every metric's name, `process_*` aside: letters, digits, `_` and `:`."},

    CHOICE("logging.level", conf.log_level, "error warn info debug trace", "info",
           "Least important level that is written."),
    CHOICE("logging.format", conf.log_json, "text json", "text", "Form of a log line."),

    ONLY("app_manager.driver", "memory", "Where apps are kept."),
    {.path = "app_manager.array.apps", .type = CONF_APPS, .min = 0, .max = CONF_APPS_MAX,
     .shown = "one built-in app",
     .sentence = "The apps, see below; without any: `app-id`, `app-key`, `app-secret`."},
};

#define APP(member) AT(struct conf_app, member)
#define APP_NUM(group, name, member, lo, hi, standard_, unit_, ...) \
    {.path = "policy." group name, .flat = name, .type = CONF_NUMBER, APP(member), .min = lo, \
     .max = hi, .standard = standard_, .unit = unit_, .sentence = __VA_ARGS__}
#define APP_FLAG(group, name, member, standard_, ...) \
    {.path = "policy." group name, .flat = name, .type = CONF_BOOL, APP(member), \
     .standard = standard_, .sentence = __VA_ARGS__}

/* Without a default: the server-wide value, already in the struct conf_app. */
static const struct conf_key keys_app[] = {
    {.path = "id", .type = CONF_TEXT, APP(id), .min = 1, .max = 200, .shown = "required",
     .sentence = "Name of the app in HTTP paths."},
    {.path = "key", .type = CONF_TEXT, APP(key), .min = 1, .max = 200, .shown = "required",
     .hidden = true, .sentence = "Key with which clients connect."},
    {.path = "secret", .type = CONF_TEXT, APP(secret), .min = 1, .max = 200,
     .shown = "required", .hidden = true, .sentence = "Signs requests and subscriptions."},
    {.path = "enabled", .type = CONF_BOOL, APP(enabled), .standard = "true",
     .sentence = "False refuses the app's clients with 4003."},
    APP_NUM("limits.", "max_connections", max_connections, 0, U32, "0", NULL,
            "Most sockets of the app, else 4004; 0 means no limit."),
    APP_NUM("limits.", "max_client_events_per_second", max_client_events_per_second, 0, U32,
            "0", NULL, "Client events per socket and window, else 4301; 0 means no limit."),
    APP_NUM("limits.", "decay_seconds", decay_seconds, 1, 86400, "1", "s",
            "Length of that window."),
    APP_FLAG("limits.", "terminate_on_limit", terminate_on_limit, "false",
             "Close a socket that goes over it."),
    APP_FLAG("limits.", "message_rate_limit.enabled", message_rate_enabled, "false",
             "Limit all messages of a socket."),
    APP_NUM("limits.", "message_rate_limit.max_attempts", message_rate_max_attempts, 1, U32,
            "60", NULL, "Messages per socket and window, else 4301."),
    APP_NUM("limits.", "message_rate_limit.decay_seconds", message_rate_decay_seconds, 1,
            86400, "60", "s", "Length of that window."),
    APP_FLAG("limits.", "message_rate_limit.terminate_on_limit",
             message_rate_terminate_on_limit, "false", "Close a socket that goes over it."),
    APP_NUM("limits.", "max_backend_events_per_second", max_backend_events_per_second, 0, U32,
            "0", NULL, "Events published over HTTP per second, else 429; 0 means no limit."),
    APP_NUM("limits.", "max_read_requests_per_second", max_read_requests_per_second, 0, U32,
            "0", NULL, "Reads over HTTP per second, else 429; 0 means no limit."),
    APP_NUM("limits.", "max_presence_members_per_channel", max_presence_members_per_channel, 0,
            U32, NULL, NULL, "Members of one presence channel; 0 means no limit."),
    APP_NUM("limits.", "max_presence_member_size_in_kb", max_presence_member_size_in_kb, 0,
            1048576, NULL, "KiB", "Largest `user_info`; 0 means no limit."),
    APP_NUM("limits.", "max_channel_name_length", max_channel_name_length, 0, 16384, NULL,
            "bytes", "Longest channel name; 0 means no limit."),
    APP_NUM("limits.", "max_event_name_length", max_event_name_length, 0, 65535, NULL,
            "bytes", "Longest event name; 0 means no limit."),
    APP_NUM("limits.", "max_event_channels_at_once", max_event_channels_at_once, 0, 1000000,
            NULL, NULL, "Channels one event may name; 0 means no limit."),
    APP_NUM("limits.", "max_event_payload_in_kb", max_event_payload_in_kb, 0, 1048576, NULL,
            "KiB", "Largest event data; 0 means no limit."),
    APP_NUM("limits.", "max_event_batch_size", max_event_batch_size, 0, 1000000, NULL, NULL,
            "Events in one batch request; 0 means no limit."),
    APP_FLAG("features.", "enable_client_messages", enable_client_messages, "false",
             "Allow client events."),
    APP_FLAG("features.", "enable_user_authentication", enable_user_authentication, "false",
             "Allow sign-in."),
    APP_FLAG("features.", "enable_watchlist_events", enable_watchlist_events, "false",
             "Tell signed-in users who of their watchlist is online."),
    APP_FLAG("features.", "enable_subscription_count", enable_subscription_count, "false",
             "Tell subscribers how many they are."),
    {.path = "policy.channels.allowed_origins", .flat = "allowed_origins", .type = CONF_LIST,
     APP(allowed_origins), .min = 0, .max = CONF_LIST_MAX, .shown = "any",
     .sentence = "Origins from which browsers may connect, else 4009."},
    APP_FLAG("", "idempotency.enabled", idempotency_enabled, NULL,
             "Answer a repeated idempotency key with the first answer."),
    APP_NUM("", "idempotency.ttl_seconds", idempotency_ttl_seconds, 1, 31536000, NULL, "s",
            "How long a key is remembered."),
    APP_FLAG("", "history.enabled", channels.history_enabled, NULL, "Keep what is published."),
    APP_FLAG("", "history.rewind_enabled", channels.history_rewind_enabled, NULL,
             "Let a V2 subscribe ask for past messages."),
    APP_NUM("", "history.retention_window_seconds", channels.history_retention_window_seconds, 1,
            U32, NULL, "s", "How long a message is kept."),
    APP_NUM("", "history.max_messages_per_channel", channels.history_max_messages_per_channel, 0,
            COUNTS, NULL, NULL, "Messages kept of one channel; 0 means no limit."),
    APP_NUM("", "history.max_bytes_per_channel", channels.history_max_bytes_per_channel, 0, COUNTS,
            NULL, "bytes", "Bytes kept of one channel; 0 means no limit."),
    DURABILITY(APP(channels.history_relaxed), "policy.history.durability", "history.durability",
               NULL, "Store first, or deliver first."),
    APP_FLAG("", "presence_history.enabled", channels.presence_history_enabled, NULL,
             "Keep who came and went on presence channels."),
    APP_NUM("", "presence_history.retention_window_seconds",
            channels.presence_history_retention_window_seconds, 1, U32, NULL, "s",
            "How long an event is kept."),
    APP_NUM("", "presence_history.max_events_per_channel",
            channels.presence_history_max_events_per_channel, 0, COUNTS, NULL, NULL,
            "Events kept of one channel; 0 means no limit."),
    APP_NUM("", "presence_history.max_bytes_per_channel",
            channels.presence_history_max_bytes_per_channel, 0, COUNTS, NULL, "bytes",
            "Bytes kept of one channel; 0 means no limit."),
    APP_FLAG("", "connection_recovery.enabled", channels.connection_recovery_enabled, NULL,
             "Let V2 clients resume where they were cut off."),
    APP_NUM("", "connection_recovery.buffer_ttl_seconds",
            channels.connection_recovery_buffer_ttl_seconds, 1, 86400, NULL, "s",
            "How long a frame can be replayed from memory."),
    APP_NUM("", "connection_recovery.max_buffer_size",
            channels.connection_recovery_max_buffer_size, 1, 100000, NULL, NULL,
            "Frames that one resume may replay from memory."),
    APP_FLAG("channels.", "annotations_enabled", channels.annotations_enabled, "false",
             "Let messages be annotated; they are kept then, whatever `history.enabled` says."),
    {.path = "policy.channels.channel_namespaces", .flat = "channel_namespaces",
     .type = CONF_NAMESPACES, .max = CONF_NAMESPACES_MAX, .shown = "none",
     .sentence = "The app's namespaces, see below."},
};

#define NAMED(member) AT(struct conf_named, member)
#define NAMED_NUM(name, member, lo, hi, unit_, ...) \
    {.path = name, .type = CONF_NUMBER, NAMED(member), .min = lo, .max = hi, .unit = unit_, \
     .sentence = __VA_ARGS__}
#define NAMED_FLAG(name, member, standard_, ...) \
    {.path = name, .type = CONF_BOOL, NAMED(member), .standard = standard_, \
     .sentence = __VA_ARGS__}

/* Without a default: the app's value, already in the struct conf_named. */
static const struct conf_key keys_namespace[] = {
    {.path = "name", .type = CONF_TEXT, .form = CONF_NAMESPACE_NAME, NAMED(ns.name), .min = 1,
     .max = 200, .shown = "required", .sentence = "What stands before the `:`."},
    {.path = "channel_name_pattern", .type = CONF_TEXT, .form = CONF_PATTERN,
     NAMED(ns.channel_name_pattern), .min = 0, .max = 255, .standard = "", .shown = "any",
     .sentence = "Regular expression found in each name, without its type prefix and what follows "
                 "a `#`, else 4300: `core/conf_pattern.h` lists what it may use."},
    {.path = "max_channel_name_length", .type = CONF_NUMBER, NAMED(ns.max_channel_name_length),
     .min = 1, .max = 16384, .unit = "bytes", .sentence = "Longest channel name."},
    NAMED_FLAG("allow_user_limited_channels", ns.allow_user_limited_channels, "false",
               "Allow channels like `room:a#u1,u2`, for these users only."),
    NAMED_FLAG("allow_subscribe_for_client", ns.allow_subscribe_for_client, "true",
               "Let V2 clients subscribe, else 4009."),
    NAMED_FLAG("allow_publish_for_client", ns.allow_publish_for_client, "true",
               "Let V2 clients send client events, else 4009."),
    NAMED_FLAG("allow_presence_for_client", ns.allow_presence_for_client, "true",
               "Let V2 clients join presence channels, else 4009."),
    NAMED_FLAG("annotations_enabled", channels.annotations_enabled, NULL,
               "Let messages be annotated; they are kept then."),
    NAMED_FLAG("history.rewind_enabled", channels.history_rewind_enabled, NULL,
               "Let a V2 subscribe ask for past messages."),
    NAMED_NUM("history.retention_window_seconds", channels.history_retention_window_seconds, 1,
              U32, "s", "How long a message is kept."),
    NAMED_NUM("history.max_messages_per_channel", channels.history_max_messages_per_channel, 0,
              COUNTS, NULL, "Messages kept of one channel; 0 means no limit."),
    NAMED_NUM("history.max_bytes_per_channel", channels.history_max_bytes_per_channel, 0, COUNTS,
              "bytes", "Bytes kept of one channel; 0 means no limit."),
    DURABILITY(NAMED(channels.history_relaxed), "history.durability", NULL, NULL,
               "Store first, or deliver first."),
    NAMED_FLAG("presence_history.enabled", channels.presence_history_enabled, NULL,
               "Keep who came and went on presence channels."),
    NAMED_NUM("presence_history.retention_window_seconds",
              channels.presence_history_retention_window_seconds, 1, U32, "s",
              "How long an event is kept."),
    NAMED_NUM("presence_history.max_events_per_channel",
              channels.presence_history_max_events_per_channel, 0, COUNTS, NULL,
              "Events kept of one channel; 0 means no limit."),
    NAMED_NUM("presence_history.max_bytes_per_channel",
              channels.presence_history_max_bytes_per_channel, 0, COUNTS, "bytes",
              "Bytes kept of one channel; 0 means no limit."),
};
static_assert(sizeof(keys_namespace) / sizeof(keys_namespace[0]) <= CONF_NAMESPACE_KEYS_MAX,
              "raise the bound");
static_assert(sizeof(keys_server) / sizeof(keys_server[0]) <= CONF_KEYS_MAX, "raise the bound");
static_assert(sizeof(keys_app) / sizeof(keys_app[0]) <= CONF_APP_KEYS_MAX, "raise the bound");

/* Keys of the reference that this build lacks: section ("" is the top), names. An app's keys
 * stand under the list of apps. Anything below a name is meant too. */
static const char *const keys_unsupported[][2] = {
    {"", "mode server_role delta_compression"},
    {"instance", "process_id"},
    {"http_api", "accept_traffic"},
    {"websocket", "max_message_size max_frame_size write_buffer_size max_backpressure auto_ping "
                  "compression"},
    {"app_manager", "cache mysql pgsql dynamodb surrealdb scylladb"},
    {"history", "writer_shards writer_queue_capacity purge_batch_size max_purge_per_tick postgres "
                "mysql dynamodb surrealdb scylladb memory"},
    {"versioned_messages", "purge_interval_seconds purge_batch_size max_purge_per_tick"},
    {"event_name_filtering", "enabled max_events_per_filter max_event_name_length"},
    {"tag_filtering", "enabled enable_tags"},
    {"ai_transport", "enabled channels max_accumulated_message_bytes max_appends_per_message "
                     "max_open_streaming_messages_per_channel max_transport_value_bytes "
                     "max_steer_codec_message_ids_bytes"},
    {"ai_transport.rollup", "enabled default_window_ms min_window_ms max_window_ms "
                            "orphan_ttl_ms wheel_tick_ms shards"},
    {"rate_limiter", "redis"},
    {"rate_limiter.api_rate_limit", "identifier"},
    {"rate_limiter.websocket_rate_limit", "identifier"},
    {"cache", "memory redis"},
    {"metrics", "tcp_exporter"},
    {"queue", "driver redis"},
    {"queue.reliability", "max_attempts retry_base_delay_ms retry_max_delay_ms retry_jitter "
                          "lease_duration_ms lease_renew_interval_ms stalled_batch_size "
                          "worker_poll_interval_ms worker_prefetch shutdown_timeout_ms "
                          "completed_retention failed_retention event_retention "
                          "deduplication_ttl_ms memory_capacity max_batch_size"},
    {"cleanup", "async_enabled fallback_to_sync queue_buffer_size batch_size batch_timeout_ms "
                "worker_threads max_retry_attempts"},
    {"webhooks", "request_timeout_ms"},
    {"webhooks.batching", "enabled duration size"},
    {"webhooks.retry", "enabled max_attempts max_elapsed_time_ms initial_backoff_ms "
                       "max_backoff_ms"},
    {"adapter", "driver fallback_to_local buffer_multiplier_per_cpu enable_socket_counting "
                "aggregate_counts fast_presence_transitions redis"},
    {"adapter.cluster_health", "enabled heartbeat_interval_ms node_timeout_ms "
                               "cleanup_interval_ms"},
    {"adapter.nats", "servers prefix username password token connection_timeout_ms "
                     "request_timeout_ms discovery_max_wait_ms discovery_idle_wait_ms "
                     "nodes_number subscription_capacity client_capacity max_reconnects "
                     "presence_sync_chunk_size no_echo"},
    {"ssl", "enabled cert_path key_path redirect_http http_port passphrase ca_path"},
    {"unix_socket", "enabled path permission_mode"},
    {"logging", "colors_enabled include_target"},
    {"app_manager.array.apps", "webhooks channel_delta_compression"},
    {"app_manager.array.apps.policy", "webhooks"},
    {"app_manager.array.apps.policy.channels", "channel_delta_compression"},
};
