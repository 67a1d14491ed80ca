/* An app's namespaces and what follows from them: compiled patterns, policies worked out. */
#include "core/conf_parts.h"

#include <stdlib.h>

#include "core/conf_pattern.h"

/* ---- policies ------------------------------------------------------------------------------- */

static struct conf_policy policy_make(const struct conf *c, const struct conf_channels *s)
{
    bool annotations = c->annotations_enabled && s->annotations_enabled;
    bool history = c->history_enabled && (s->history_enabled || annotations);
    uint64_t version_s = c->versioned_messages_retention_window_seconds;

    return (struct conf_policy){
        .history = history,
        .rewind = history && s->history_rewind_enabled,
        .versioned = history && c->versioned_messages_enabled,
        .annotations = annotations,
        .presence_history = c->history_enabled && s->presence_history_enabled,
        .recovery = c->connection_recovery_enabled && s->connection_recovery_enabled,
        .relaxed = s->history_relaxed,
        .recovery_ttl_ms = s->connection_recovery_buffer_ttl_seconds * 1000,
        .recovery_max = s->connection_recovery_max_buffer_size,
        .history_age_ms = (uint64_t)s->history_retention_window_seconds * 1000,
        .history_messages_max = s->history_max_messages_per_channel,
        .history_bytes_max = s->history_max_bytes_per_channel,
        .version_age_ms = version_s == UINT64_MAX ? UINT64_MAX : version_s * 1000,
        .presence_age_ms = (uint64_t)s->presence_history_retention_window_seconds * 1000,
        .presence_events_max = s->presence_history_max_events_per_channel,
        .presence_bytes_max = s->presence_history_max_bytes_per_channel,
    };
}

static bool policy_any(const struct conf_policy *p)
{
    return p->history || p->presence_history || p->recovery;
}

/* ---- what cannot be on ---------------------------------------------------------------------- */

static err_t fail_needs(struct conf_job *job, const char *prefix, const char *name,
                        const char *needed)
{
    return conf_fail(job, "configuration", "%s%s: expected %s to be true too", prefix, name,
                     needed);
}

err_t conf_names_server_check(struct conf_job *job)
{
    const struct conf *c = &job->target.conf;

    if (c->versioned_messages_enabled && !c->history_enabled)
        return fail_needs(job, "", "versioned_messages.enabled", "history.enabled");
    if (c->annotations_enabled && !c->versioned_messages_enabled)
        return fail_needs(job, "", "annotations.enabled", "versioned_messages.enabled");
    if (c->presence_history_enabled && !c->history_enabled)
        return fail_needs(job, "", "presence_history.enabled", "history.enabled");
    return OK;
}

/* An app or a namespace starts from wider values, so what is on there and off here it said.
 * channels: what stands before `annotations_enabled`, behind the prefix. */
static err_t channels_check(struct conf_job *job, const char *prefix, const char *channels,
                            const struct conf_channels *s)
{
    const struct conf *c = &job->target.conf;
    char annotations[CONF_PATH_BYTES];

    if (s->history_enabled && !c->history_enabled)
        return fail_needs(job, prefix, "history.enabled", "history.enabled");
    if (s->presence_history_enabled && !c->history_enabled)
        return fail_needs(job, prefix, "presence_history.enabled", "history.enabled");
    snprintf(annotations, sizeof(annotations), "%sannotations_enabled", channels);
    if (s->annotations_enabled && !c->annotations_enabled)
        return fail_needs(job, prefix, annotations, "annotations.enabled");
    if (s->connection_recovery_enabled && !c->connection_recovery_enabled)
        return fail_needs(job, prefix, "connection_recovery.enabled",
                          "connection_recovery.enabled");
    return OK;
}

/* ---- namespaces ----------------------------------------------------------------------------- */

static err_t namespace_fill(const struct conf_raw_namespace *raw, struct conf_named *out)
{
    for (uint32_t i = 0; i < conf_table_namespace.count; i++) {
        const struct conf_key *key = &conf_table_namespace.keys[i];
        err_t e = raw->slot[i].ptr == NULL ? conf_value_store_standard(key, out)
                                           : conf_value_store(key, out, raw->slot[i].ptr);
        if (e != OK) return e;
    }
    return OK;
}

static err_t namespace_resolve(struct conf_job *job, const struct conf_raw_namespace *raw,
                               const char *prefix, const struct conf_app *a,
                               struct conf_namespace *out)
{
    struct conf_named named = {.channels = a->channels};
    err_t e = namespace_fill(raw, &named);

    *out = named.ns;                                      /* its texts are freed with the app */
    if (e != OK) return e;
    e = channels_check(job, prefix, "", &named.channels);
    if (e != OK) return e;
    out->policy = policy_make(&job->target.conf, &named.channels);
    if (out->channel_name_pattern[0] == '\0') return OK;
    out->pattern = conf_pattern_compile(out->channel_name_pattern);
    return out->pattern == NULL ? ERR_MEMORY : OK;        /* conf_check has compiled it before */
}

static int name_compare(const void *a, const void *b)
{
    const struct conf_namespace *x = a, *y = b;
    return slice_order(slice_str(x->name), slice_str(y->name));
}

err_t conf_names_resolve(struct conf_job *job, const struct conf_slot *raw, bool flat,
                         struct conf_app *a)
{
    uint32_t index = (uint32_t)(a - job->target.conf.apps);
    const struct conf_raw_namespace *list = raw->ptr;
    const char *policy = flat ? "" : "policy.", *channels = flat ? "" : "channels.";
    char prefix[CONF_PATH_BYTES];

    snprintf(prefix, sizeof(prefix), "app_manager.array.apps[%u].%s", index, policy);
    err_t e = channels_check(job, prefix, channels, &a->channels);
    if (e != OK) return e;
    a->policy = policy_make(&job->target.conf, &a->channels);
    a->policy_any = policy_any(&a->policy);

    ASSERT(raw->count <= CONF_NAMESPACES_MAX);            /* conf_check has counted */
    if (raw->count == 0) return OK;
    a->names.list = calloc(raw->count, sizeof(*a->names.list));
    if (a->names.list == NULL) return ERR_MEMORY;
    for (uint32_t i = 0; i < raw->count; i++) {
        struct conf_namespace *ns = &a->names.list[i];
        a->names.count = i + 1;                           /* half a namespace is freed too */
        snprintf(prefix, sizeof(prefix), "app_manager.array.apps[%u].%s%schannel_namespaces[%u].",
                 index, policy, channels, i);
        e = namespace_resolve(job, &list[i], prefix, a, ns);
        if (e != OK) return e;
        a->policy_any = a->policy_any || policy_any(&ns->policy);
    }
    qsort(a->names.list, a->names.count, sizeof(*a->names.list), name_compare);
    return OK;
}

void conf_names_free(struct conf_names *names)
{
    for (uint32_t i = 0; i < names->count; i++) {
        struct conf_namespace *ns = &names->list[i];
        conf_pattern_free(&ns->pattern);
        free(ns->name);
        free(ns->channel_name_pattern);
    }
    free(names->list);
    *names = (struct conf_names){0};
}
