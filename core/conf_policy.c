#include "core/conf_policy.h"

#include "core/conf.h"
#include "core/conf_pattern.h"

/* The channel's name without its type prefix. */
static struct slice logical_name(struct slice channel)
{
    static const char *const kinds[] = {"private-encrypted-", "private-", "presence-"};
    struct slice rest = channel;

    for (uint32_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (!slice_starts(channel, kinds[i])) continue;
        rest = slice_skip(channel, (uint32_t)strlen(kinds[i]));
        break;
    }
    return slice_starts(rest, "cache-") ? slice_skip(rest, 6) : rest;
}

const struct conf_namespace *conf_names_find(const struct conf_names *names, struct slice logical)
{
    if (LIKELY(names->count == 0) || logical.bytes == 0) return NULL;
    const uint8_t *colon = memchr(logical.ptr, ':', logical.bytes);
    if (colon == NULL) return NULL;

    struct slice name = slice_of(logical.ptr, (uint32_t)(colon - logical.ptr));
    uint32_t low = 0, high = names->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = slice_order(name, slice_str(names->list[middle].name));
        if (order == 0) return &names->list[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

const struct conf_namespace *conf_namespace_of(const struct conf *conf, uint32_t app,
                                               struct slice channel)
{
    ASSERT(app < conf->apps_count);
    const struct conf_names *names = &conf->apps[app].names;
    return LIKELY(names->count == 0) ? NULL : conf_names_find(names, logical_name(channel));
}

bool conf_namespace_admits(const struct conf_namespace *ns, struct slice logical)
{
    return ns->pattern == NULL || conf_pattern_found(ns->pattern, logical);
}

const struct conf_policy *conf_policy_at(const struct conf *conf, uint32_t app,
                                         struct slice channel)
{
    static const struct conf_policy none;
    ASSERT(app < conf->apps_count);
    const struct conf_app *a = &conf->apps[app];
    if (LIKELY(!a->policy_any)) return &none;
    const struct conf_namespace *ns = conf_namespace_of(conf, app, channel);
    return ns == NULL ? &a->policy : &ns->policy;
}

void conf_policy_of(const struct conf *conf, uint32_t app, struct slice channel,
                    struct conf_policy *out)
{
    *out = *conf_policy_at(conf, app, channel);
    if (!slice_starts(channel, "presence-")) out->presence_history = false;
}
