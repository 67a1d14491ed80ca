#include "shards/server_store.h"

static bool behind(struct slice name, const char *prefix, struct slice *rest)
{
    if (!slice_starts(name, prefix)) return false;
    *rest = slice_skip(name, (uint32_t)strlen(prefix));
    return true;
}

/* A channel of an app that is configured no longer is kept: who removed it may put it back. */
static void policy_of(void *ctx, struct slice app_id, struct slice channel,
                      struct store_policy *out)
{
    const struct server *s = ctx;
    struct conf_policy policy;
    struct slice name;
    uint32_t app;
    *out = (struct store_policy){.version_age_ms = UINT64_MAX};
    if (!shard_app_by_id(s, app_id, &app)) return;
    if (behind(channel, STORE_PRESENCE_PREFIX, &name)) {
        conf_policy_of(s->conf, app, name, &policy);
        out->age_ms = policy.presence_age_ms;
        out->messages_max = policy.presence_events_max;
        out->bytes_max = policy.presence_bytes_max;
    } else if (behind(channel, STORE_ANNOTATIONS_PREFIX, &name)) {
        conf_policy_of(s->conf, app, name, &policy);
        out->age_ms = conf_policy_annotations_age_ms(&policy);
    } else {
        conf_policy_of(s->conf, app, channel, &policy);
        out->age_ms = policy.history_age_ms;
        out->messages_max = policy.history_messages_max;
        out->bytes_max = policy.history_bytes_max;
        out->version_age_ms = policy.version_age_ms;
        if (s->conf->apps[app].idempotency_enabled) {
            out->receipt_age_ms = (uint64_t)s->conf->apps[app].idempotency_ttl_seconds * 1000;
        }
    }
}

err_t server_store_open(struct server *s, struct store **out, bool threads,
                        uint64_t (*wall_ms)(void), char *error, uint32_t error_bytes)
{
    const struct conf *conf = s->conf;
    uint32_t ttl_s = 0;
    for (uint32_t i = 0; i < conf->apps_count; i++) {
        ttl_s = u32_max(ttl_s, conf->apps[i].idempotency_ttl_seconds);
    }
    struct store_conf sc = {
        .dir = conf->data_dir, .lanes = conf->history_lanes, .shards_count = s->shards_count,
        .bytes_max = conf->history_max_bytes,
        .purge_interval_ms = conf->history_purge_interval_seconds * 1000,
        .request_age_ms = (uint64_t)ttl_s * 1000,
        .forget_after_ms = (uint64_t)conf->history_forget_after_seconds * 1000,
        .office = s->office, .policy = policy_of, .policy_ctx = s, .wall_ms = wall_ms,
        .threads = threads,
    };
    err_t e = store_open(out, &sc, error, error_bytes);
    s->store = e == OK ? *out : NULL;
    return e;
}
