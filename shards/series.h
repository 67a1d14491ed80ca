/* series.h - every metric of this build, in the order of the text.
 *
 * Shape    SERIES_LIST is the table: X(id, name, form, scope, labels, help). series.c expands it
 *          into descriptors, enum metric_id into METRIC_<id>; docs/metrics.md is printed from it.
 *          Label values are lists too: the enums below are the `label` of metric_add and friends.
 *
 *          form     COUNTER, GAUGE; GAUGE_MAX: the largest of the shards, not their sum.
 *                   The cell holds a finer unit than the text: RATIO (parts per million),
 *                   MEAN_NS (ns, shown in us, averaged over the shards), CPU_US (us, shown in s),
 *                   TIME_MS (ms, shown in s).
 *                   MS, US, BYTES: histograms, observed in that unit.
 *          scope    PROCESS: no prefix, no label. SERVER: no label. APP: app_id. APP_PORT: app_id,
 *                   port. APP_PORT_UNKNOWN: also app_id "unknown". APP_PORT_MORE: also "unknown"
 *                   and "system". GLOBAL_PORT: port, and app_id="global" from the labels. SHARD,
 *                   WORKER: one line per shard.
 *          labels   the label set's name in series.c.
 * Threads  See metric.h. Values of the whole process (log lines, drain state, process_*) are set by
 *          one thread only: the one that renders.
 * Source   spec/operations.md 1.2 to 1.6 and 1.16; spec/settled.md 22.
 */
#pragma once
#include "core/metric.h"

/* ---- label values ---- */

/* error_type: the reference's values that have a cause here. */
#define SERIES_ERRORS(X)                                   \
    X(APP_NOT_FOUND, "app_not_found")                      \
    X(APP_DISABLED, "app_disabled")                        \
    X(ORIGIN_NOT_ALLOWED, "origin_not_allowed")            \
    X(AUTHENTICATION_FAILED, "authentication_failed")      \
    X(AUTHENTICATION_ERROR, "authentication_error")        \
    X(INVALID_MESSAGE_FORMAT, "invalid_message_format")    \
    X(MISSING_EVENT_NAME, "missing_event_name")

/* channel_type, in the order of pusher_type_labels. */
#define SERIES_CHANNELS(X)                                 \
    X(PUBLIC, "public")                                    \
    X(PRIVATE, "private")                                  \
    X(PRESENCE, "presence")                                \
    X(ENCRYPTED, "private_encrypted")                      \
    X(CACHE, "cache")

/* limit, of limit_hits_total. */
#define SERIES_LIMITS(X)                                   \
    X(CONNECTIONS_CAPACITY, "connections_capacity")        \
    X(MAX_CONNECTIONS, "max_connections")                  \
    X(APP_CONNECTIONS, "app_connections")                  \
    X(CHANNELS_PER_CONNECTION, "channels_per_connection")  \
    X(PAYLOAD, "payload")                                  \
    X(HEAP, "heap")                                        \
    X(MAILBOX, "mailbox")                                  \
    X(FANOUT_BACKLOG, "fanout_backlog")                    \
    X(IDEMPOTENCY_ENTRIES, "idempotency_entries")          \
    X(REQUEST_SIZE, "request_size")                        \
    X(REQUEST_TIME, "request_time")                        \
    X(BACKEND_RATE, "backend_rate")                        \
    X(READ_RATE, "read_rate")                              \
    X(RATE_ADDRESSES, "rate_addresses")                    \
    X(STORE, "store")                                      \
    X(LANE_BYTES, "lane_bytes")                            \
    X(ATTACH_GATE, "attach_gate")                          \
    X(ANNOTATION_SUMMARIES, "annotation_summaries")        \
    X(ANNOTATIONS, "annotations")                          \
    X(PRESENCE_LOG, "presence_log")                        \
    X(COLD_READS, "cold_reads")                            \
    X(RING_BYTES, "ring_bytes")                            \
    X(RESUMES, "resumes")                                  \
    X(RESUME_POSITIONS, "resume_positions")                \
    X(RESUME_GATE, "resume_gate")                          \
    X(RESUME_TIME, "resume_time")                          \
    X(HISTORIES, "histories")                              \
    X(QUESTIONS, "questions")

/* code, of history_recovery_failures_total. */
#define SERIES_RECOVERIES(X)                               \
    X(STREAM_RESET, "stream_reset")                        \
    X(POSITION_EXPIRED, "position_expired")                \
    X(CONTINUITY_UNVERIFIABLE, "continuity_unverifiable")  \
    X(PERSISTENCE_UNAVAILABLE, "persistence_unavailable")

/* action, of versioned_message_mutations_total: in the order of enum record_kind. */
#define SERIES_MUTATIONS(X)                                \
    X(CREATE, "message.create")                            \
    X(UPDATE, "message.update")                            \
    X(DELETE, "message.delete")                            \
    X(APPEND, "message.append")

#define SERIES_ENUM_ERROR(id, text) SERIES_ERROR_##id,
#define SERIES_ENUM_CHANNEL(id, text) SERIES_CHANNEL_##id,
#define SERIES_ENUM_LIMIT(id, text) SERIES_LIMIT_##id,
#define SERIES_ENUM_RECOVERY(id, text) SERIES_RECOVERY_##id,

enum series_error { SERIES_ERRORS(SERIES_ENUM_ERROR) SERIES_ERROR_COUNT };
enum series_channel { SERIES_CHANNELS(SERIES_ENUM_CHANNEL) SERIES_CHANNEL_COUNT };
enum series_limit { SERIES_LIMITS(SERIES_ENUM_LIMIT) SERIES_LIMIT_COUNT };

enum series_recovery { SERIES_RECOVERIES(SERIES_ENUM_RECOVERY) SERIES_RECOVERY_COUNT };

enum series_source { SERIES_SOURCE_HOT, SERIES_SOURCE_COLD };
enum series_mutation_result { SERIES_MUTATION_APPLIED, SERIES_MUTATION_DUPLICATE,
                              SERIES_MUTATION_AUTH_FAILED, SERIES_MUTATION_RESULTS };
enum series_retrieval { SERIES_LATEST_HIT, SERIES_LATEST_MISS, SERIES_VERSIONS_HIT,
                        SERIES_VERSIONS_MISS };
enum series_substitution { SERIES_SUBSTITUTED, SERIES_MISSING_LATEST, SERIES_NOT_VERSIONED };
enum series_slow { SERIES_SLOW_BYTES, SERIES_SLOW_MESSAGES };
enum series_socket_limiter { SERIES_LIMITER_MESSAGES, SERIES_LIMITER_CLIENT_EVENTS };
enum series_http_limiter { SERIES_LIMITER_API, SERIES_LIMITER_WEBSOCKET };
enum series_recipients {               /* 1-10, 11-100, 101-1,000, 1,001-10,000, more */
    SERIES_RECIPIENTS_XS, SERIES_RECIPIENTS_SM, SERIES_RECIPIENTS_MD, SERIES_RECIPIENTS_LG,
    SERIES_RECIPIENTS_XL, SERIES_RECIPIENTS_COUNT
};

/* The label row of broadcast_latency_ms. No recipient is not observed: recipients > 0. */
static inline uint32_t series_broadcast(enum series_channel type, uint64_t recipients)
{
    uint32_t size = SERIES_RECIPIENTS_XS + (recipients > 10) + (recipients > 100) +
                    (recipients > 1000) + (recipients > 10000);
    return (uint32_t)type * SERIES_RECIPIENTS_COUNT + size;
}

/* The label row of versioned_message_mutations_total; action 0 is the create. */
static inline uint32_t series_mutation(uint32_t action, enum series_mutation_result result)
{
    return action * SERIES_MUTATION_RESULTS + result;
}

/* app_id of counts that belong to no configured app: series_app_unknown(apps_count) and so on. */
static inline uint32_t series_app_unknown(uint32_t apps_count) { return apps_count; }
static inline uint32_t series_app_system(uint32_t apps_count) { return apps_count + 1; }

/* ---- the table ---- */

#define SERIES_LIST(X)                                                                             \
    X(PROCESS_RESIDENT_MEMORY_BYTES, "process_resident_memory_bytes", GAUGE, PROCESS, none,        \
      "Resident memory of the process.")                                                           \
    X(PROCESS_VIRTUAL_MEMORY_BYTES, "process_virtual_memory_bytes", GAUGE, PROCESS, none,          \
      "Address space of the process; mostly reserved, not used.")                                  \
    X(PROCESS_CPU_SECONDS_TOTAL, "process_cpu_seconds_total", CPU_US, PROCESS, none,               \
      "User and system CPU time of all threads.")                                                  \
    X(PROCESS_START_TIME_SECONDS, "process_start_time_seconds", TIME_MS, PROCESS, none,            \
      "Unix time at which the server started.")                                                    \
    X(PROCESS_OPEN_FDS, "process_open_fds", GAUGE, PROCESS, none,                                  \
      "Open descriptors: those of the process plus the direct descriptors of the rings.")          \
    X(PROCESS_MAX_FDS, "process_max_fds", GAUGE, PROCESS, none,                                    \
      "Soft limit of the process's own descriptors; direct descriptors are outside it.")           \
    X(TOKIO_WORKERS_COUNT, "tokio_workers_count", GAUGE, SERVER, none,                             \
      "Shard threads.")                                                                            \
    X(TOKIO_ACTIVE_TASKS, "tokio_active_tasks", GAUGE, SERVER, none,                               \
      "Live units of work: connections, armed timers, operations and cross-shard requests in "     \
      "flight.")                                                                                   \
    X(TOKIO_INJECTION_QUEUE_DEPTH, "tokio_injection_queue_depth", GAUGE, SERVER, none,             \
      "Letters waiting in the shards' mailboxes.")                                                 \
    X(TOKIO_WORKER_LOCAL_QUEUE_DEPTH, "tokio_worker_local_queue_depth", GAUGE, WORKER, none,       \
      "Fan-outs that wait for the shard's next tick.")                                             \
    X(TOKIO_WORKER_BUSY_RATIO, "tokio_worker_busy_ratio", RATIO, WORKER, none,                     \
      "Share of the shard's uptime in which it did not sleep, 0 to 1.")                            \
    X(TOKIO_WORKER_MEAN_POLL_DURATION_US, "tokio_worker_mean_poll_duration_us", MEAN_NS, SERVER,   \
      none, "Mean length of a tick in microseconds, averaged over the shards.")                    \
    X(TOKIO_BUDGET_FORCED_YIELD_COUNT, "tokio_budget_forced_yield_count", GAUGE, SERVER, none,     \
      "Times a tick's phase ended because its budget was used up.")                                \
                                                                                                   \
    X(CONNECTED, "connected", GAUGE, APP_PORT, none,                                               \
      "Registered sockets.")                                                                       \
    X(NEW_CONNECTIONS_TOTAL, "new_connections_total", COUNTER, APP_PORT, none,                     \
      "Sockets registered; refusals by quota or origin do not count.")                             \
    X(NEW_DISCONNECTIONS_TOTAL, "new_disconnections_total", COUNTER, APP_PORT, none,               \
      "Registered sockets that ended, each counted once.")                                         \
    X(AUTHENTICATED_CONNECTIONS, "authenticated_connections", GAUGE, APP_PORT, none,               \
      "Registered sockets that are signed in as a user.")                                          \
    X(USERS, "users", GAUGE, APP_PORT, none,                                                       \
      "Users with at least one signed-in socket.")                                                 \
    X(CONNECTION_ERRORS_TOTAL, "connection_errors_total", COUNTER, APP_PORT_UNKNOWN, errors,       \
      "Refused handshakes and protocol errors of sockets, by cause.")                              \
    X(SOCKET_RECEIVED_BYTES, "socket_received_bytes", COUNTER, APP_PORT, none,                     \
      "Payload bytes of WebSocket messages received.")                                             \
    X(SOCKET_TRANSMITTED_BYTES, "socket_transmitted_bytes", COUNTER, APP_PORT, none,               \
      "Bytes of WebSocket frames written, counted at the write.")                        \
    X(WS_MESSAGES_RECEIVED_TOTAL, "ws_messages_received_total", COUNTER, APP_PORT, none,           \
      "WebSocket messages received.")                                                              \
    X(WS_MESSAGES_SENT_TOTAL, "ws_messages_sent_total", COUNTER, APP_PORT, none,                   \
      "WebSocket messages written, counted at the write.")                                         \
                                                                                                   \
    X(HTTP_RECEIVED_BYTES, "http_received_bytes", COUNTER, APP_PORT_MORE, none,                    \
      "Body bytes of HTTP requests.")                                                              \
    X(HTTP_TRANSMITTED_BYTES, "http_transmitted_bytes", COUNTER, APP_PORT_MORE, none,              \
      "Body bytes of HTTP responses.")                                                             \
    X(HTTP_CALLS_RECEIVED_TOTAL, "http_calls_received_total", COUNTER, APP_PORT_MORE, none,        \
      "HTTP requests; health checks that name no app count under app_id system.")                  \
                                                                                                   \
    X(CHANNEL_SUBSCRIPTIONS_TOTAL, "channel_subscriptions_total", COUNTER, APP_PORT, channels,     \
      "Subscriptions accepted.")                                                                   \
    X(CHANNEL_UNSUBSCRIPTIONS_TOTAL, "channel_unsubscriptions_total", COUNTER, APP_PORT, channels, \
      "Subscriptions ended, by request or with their socket.")                                     \
    X(ACTIVE_CHANNELS, "active_channels", GAUGE, APP_PORT, channels,                               \
      "Occupied channels.")                                                                        \
    X(SUBSCRIPTIONS, "subscriptions", GAUGE, APP_PORT, channels,                                   \
      "Sockets on channels now: one per socket and channel.")                                      \
    X(PRESENCE_MEMBERS, "presence_members", GAUGE, APP_PORT, none,                                 \
      "Users on presence channels now: one per user and channel.")                                 \
    X(BROADCAST_LATENCY_MS, "broadcast_latency_ms", MS, APP_PORT, broadcasts,                      \
      "Milliseconds from the receipt of a publish until its frames are queued on their sockets.")  \
    X(IDEMPOTENCY_PUBLISH_TOTAL, "idempotency_publish_total", COUNTER, APP_PORT, none,             \
      "Publishes over HTTP with an idempotency key: of the request or item, or, where there is "   \
      "history, message_id or extras.idempotencyKey.")                                             \
    X(IDEMPOTENCY_DUPLICATES_TOTAL, "idempotency_duplicates_total", COUNTER, APP_PORT, none,       \
      "Publishes answered from an earlier one with the same key.")                                 \
                                                                                                   \
    X(HISTORY_WRITES_TOTAL, "history_writes_total", COUNTER, APP_PORT, none,                       \
      "Rows of history committed: one a publish and channel, none for changes and annotations.")   \
    X(HISTORY_WRITE_FAILURES_TOTAL, "history_write_failures_total", COUNTER, APP_PORT, none,       \
      "Records whose commit failed; their publishers were told to try again.")                     \
    X(HISTORY_WRITE_LATENCY_MS, "history_write_latency_ms", MS, APP_PORT, none,                    \
      "Milliseconds from the post of a batch until its records are known to be committed.")        \
    X(HISTORY_QUEUE_DEPTH, "history_queue_depth", GAUGE, APP_PORT, none,                           \
      "Records on their way to a commit.")                                                         \
    X(HISTORY_DEGRADED_CHANNELS, "history_degraded_channels", GAUGE, APP_PORT, none,               \
      "Channels in use whose stored history cannot be read.")                                      \
    X(HISTORY_RESET_REQUIRED_CHANNELS, "history_reset_required_channels", GAUGE, APP_PORT, none,   \
      "Channels in use that only an operator's reset makes healthy again.")                        \
    X(HISTORY_CONTINUITY_LOST_TOTAL, "history_continuity_lost_total", COUNTER, APP_PORT, none,     \
      "Times a channel of a running server changed its stream id because records that were shown " \
      "could not be stored. (A start after a crash changes that of every relaxed channel.)")       \
    X(HISTORY_RECOVERY_SUCCESS_TOTAL, "history_recovery_success_total", COUNTER, APP_PORT,         \
      sources,                                                                                     \
      "Positions that could be resumed, from the ring or from the lane.")                          \
    X(HISTORY_RECOVERY_FAILURES_TOTAL, "history_recovery_failures_total", COUNTER, APP_PORT,       \
      recoveries,                                                                                  \
      "Positions that could not be resumed.")                                                      \
    X(VERSIONED_MESSAGE_MUTATIONS_TOTAL, "versioned_message_mutations_total", COUNTER, APP_PORT,   \
      mutations,                                                                                   \
      "Creates, updates, deletes and appends by their outcome.")                                   \
    X(VERSIONED_MESSAGE_RETRIEVAL_TOTAL, "versioned_message_retrieval_total", COUNTER, APP_PORT,   \
      retrievals,                                                                                  \
      "Reads of messages and of their versions.")                                                  \
    X(VERSIONED_HISTORY_SUBSTITUTION_TOTAL, "versioned_history_substitution_total", COUNTER,       \
      APP_PORT, substitutions,                                                                     \
      "Rows of history pages by what stands in their place.")                                      \
    X(PRESENCE_HISTORY_WRITES_TOTAL, "presence_history_writes_total", COUNTER, APP_PORT, none,     \
      "Presence events committed.")                                                                \
    X(PRESENCE_HISTORY_WRITE_FAILURES_TOTAL, "presence_history_write_failures_total", COUNTER,     \
      APP_PORT, none,                                                                              \
      "Presence events whose commit failed; they are tried again.")                                \
    X(PRESENCE_HISTORY_WRITE_LATENCY_MS, "presence_history_write_latency_ms", MS, APP_PORT, none,  \
      "Milliseconds from the post of a batch until its presence events are known to be "           \
      "committed.")                                                                                \
                                                                                                   \
    X(RATE_LIMIT_CHECKS_TOTAL, "rate_limit_checks_total", COUNTER, APP_PORT, socket_limiters,      \
      "Checks against a configured rate limit.")                                                   \
    X(RATE_LIMIT_CHECKS_TOTAL_GLOBAL, "rate_limit_checks_total", COUNTER, GLOBAL_PORT,             \
      http_limiters, "Checks against a configured rate limit.")                                    \
    X(RATE_LIMIT_TRIGGERED_TOTAL, "rate_limit_triggered_total", COUNTER, APP_PORT,                 \
      socket_limiters, "Refusals by a configured rate limit.")                                     \
    X(RATE_LIMIT_TRIGGERED_TOTAL_GLOBAL, "rate_limit_triggered_total", COUNTER, GLOBAL_PORT,       \
      http_limiters, "Refusals by a configured rate limit.")                                       \
                                                                                                   \
    X(SLOW_CONSUMER_DISCONNECTS_TOTAL, "slow_consumer_disconnects_total", COUNTER, APP, slows,     \
      "Sockets closed because their outbound queue reached its limit.")                            \
    X(CACHE_EVICTED_TOTAL, "cache_evicted_total", COUNTER, APP, none,                              \
      "Cached channel events dropped, oldest first, because cache.max_bytes was reached.")         \
    X(LIMIT_HITS_TOTAL, "limit_hits_total", COUNTER, SERVER, limits,                               \
      "Requests, sockets or letters refused because a limit was reached.")                         \
    X(OUTBOUND_QUEUE_BYTES, "outbound_queue_bytes", BYTES, SERVER, none,                           \
      "Bytes queued on a socket when its queue is written.")                                       \
    X(DRAIN_STATE, "drain_state", GAUGE_MAX, SERVER, none,                                         \
      "0 while serving, 1 once shutdown has begun.")                                               \
    X(CONNECTIONS_DRAINING, "connections_draining", GAUGE, SERVER, none,                           \
      "Sockets that shutdown still waits for; 0 while serving.")                                   \
    X(LOG_LINES_DROPPED_TOTAL, "log_lines_dropped_total", COUNTER, SERVER, none,                   \
      "Log lines lost to a full log queue.")                                                       \
                                                                                                   \
    X(STORE_COMMIT_MS, "store_commit_ms", MS, SERVER, none,                                        \
      "Milliseconds of the commits that this server's batches were in.")                           \
    X(STORE_COMMITS_TOTAL, "store_commits_total", COUNTER, SERVER, none,                           \
      "Transactions committed by all lanes.")                                                      \
    X(STORE_RECORDS_TOTAL, "store_records_total", COUNTER, SERVER, none,                           \
      "Records committed by all lanes.")                                                           \
    X(STORE_READS_TOTAL, "store_reads_total", COUNTER, SERVER, none,                               \
      "Reads done by all lanes.")                                                                  \
    X(STORE_READ_SECONDS_TOTAL, "store_read_seconds_total", CPU_US, SERVER, none,                  \
      "Time spent in reads of all lanes.")                                                         \
    X(STORE_FAILED_TOTAL, "store_failed_total", COUNTER, SERVER, none,                             \
      "Commits that failed.")                                                                      \
    X(STORE_REFUSED_TOTAL, "store_refused_total", COUNTER, SERVER, none,                           \
      "Batches refused: no room on the disk, or an older generation.")                             \
    X(STORE_FORGOTTEN_TOTAL, "store_forgotten_total", COUNTER, SERVER, none,                       \
      "Channels of which nothing was left, deleted by history.forget_after_seconds.")              \
    X(STORE_QUEUE_BATCHES, "store_queue_batches", GAUGE, SERVER, none,                             \
      "Batches that wait for their commit.")                                                       \
    X(STORE_WAL_BYTES, "store_wal_bytes", GAUGE, SERVER, none,                                     \
      "Bytes in the lanes' logs.")                                                                 \
    X(STORE_TAILS, "store_tails", GAUGE, SERVER, none,                                             \
      "Channels with records that are not packed yet.")                                            \
    X(STORE_SEGMENTS, "store_segments", GAUGE, SERVER, none,                                       \
      "Packed segments.")                                                                          \
    X(STORE_MAP_BYTES, "store_map_bytes", GAUGE, SERVER, none,                                     \
      "Bytes of the lanes' files in use.")                                                         \
    X(STORE_FREE_BYTES, "store_free_bytes", GAUGE, SERVER, none,                                   \
      "Bytes free on the data directory's disk, as last looked at.")                               \
    X(STREAMS, "streams", GAUGE, SHARD, none,                                                      \
      "Channels with memory in use at their homes.")                                               \
                                                                                                   \
    X(SHARD_CONNECTIONS, "shard_connections", GAUGE, SHARD, none,                                  \
      "Sockets held by the shard, WebSocket and HTTP.")                                            \
    X(DIRECT_DESCRIPTORS, "direct_descriptors", GAUGE, SHARD, none,                                \
      "Direct descriptors in use in the shard's rings.")                                           \
    X(DIRECT_DESCRIPTOR_SLOTS, "direct_descriptor_slots", GAUGE, SHARD, none,                      \
      "Size of the shard's direct descriptor tables opened so far.")                               \
    X(ACCEPT_ERRORS_TOTAL, "accept_errors_total", COUNTER, SHARD, none,                            \
      "Accepts that failed; for want of memory or files accepting then rests for 100 ms.")         \
    X(HEAP_USED_BYTES, "heap_used_bytes", GAUGE, SHARD, none,                                      \
      "Live bytes of the shard's heap.")                                                           \
    X(MAIL_SPILLED_TOTAL, "mail_spilled_total", COUNTER, SHARD, none,                              \
      "Letters that found their mailbox full and waited on the poster's spill list.")              \
    X(MAIL_QUEUE_DELAY_US, "mail_queue_delay_us", US, SHARD, none,                                 \
      "Microseconds between the post of a letter and its taking by this shard.")                   \
    X(RECV_BUFFERS_EXHAUSTED_TOTAL, "recv_buffers_exhausted_total", COUNTER, SHARD, none,          \
      "Receives that found no free provided buffer and were armed again.")                         \
    X(RECV_REARMED_TOTAL, "recv_rearmed_total", COUNTER, SHARD, none,                              \
      "Multishot receives that ended and were armed again.")                                       \
    X(STALE_COMPLETIONS_TOTAL, "stale_completions_total", COUNTER, SHARD, none,                    \
      "Completions for a slot that was reused meanwhile; dropped.")                                \
    X(SENDS_TOTAL, "sends_total", COUNTER, SHARD, none,                                            \
      "Send operations submitted.")                                                                \
    X(SEND_FRAMES_TOTAL, "send_frames_total", COUNTER, SHARD, none,                                \
      "Frames carried by these sends; their ratio is the coalescing achieved.")                    \
    X(RING_ENTERS_TOTAL, "ring_enters_total", COUNTER, SHARD, none,                                \
      "io_uring_enter system calls.")                                                              \
    X(WAKEUPS_TOTAL, "wakeups_total", COUNTER, SHARD, none,                                        \
      "Times the shard went to sleep and woke again.")

#define SERIES_ENUM_ID(id, name, form, scope, labels, help) METRIC_##id,
enum metric_id { SERIES_LIST(SERIES_ENUM_ID) METRIC_COUNT };

extern const struct metric_series series_table[METRIC_COUNT];

/* Fills the process_* series. The writer of m calls it right before metric_render; sets are those
 * that will be rendered (their direct descriptors count as open). */
void series_process(struct metrics *m, const struct metrics *const *sets, uint32_t sets_count,
                    uint64_t started_wall_ms);
