#include "core/conf_parts.h"

#include <stdlib.h>

/* Used only when no app is configured (spec/settled.md 12). */
static const char builtin[] =
    "[{id: app-id, key: app-key, secret: app-secret, policy: {features: {"
    "enable_client_messages: true, enable_user_authentication: true, "
    "enable_watchlist_events: true}}}]";

/* The server's values, then the defaults that only apps have, then what this app says. */
static err_t app_resolve(struct conf_job *job, const struct conf_raw_app *raw,
                         struct conf_app *out)
{
    const struct conf_slot *names = NULL;
    bool flat = false;

    *out = job->target.shared;
    for (uint32_t i = 0; i < conf_table_app.count; i++) {
        const struct conf_key *key = &conf_table_app.keys[i];
        const struct conf_slot *slot = raw->slot[i].ptr != NULL ? &raw->slot[i] : &raw->flat[i];
        err_t e = OK;

        flat = flat || raw->flat[i].ptr != NULL;
        if (key->type == CONF_NAMESPACES) names = slot;
        else if (slot->ptr == NULL) e = conf_value_store_standard(key, out);
        else if (key->type == CONF_LIST)
            e = conf_value_store_list(key, out, slot->ptr, slot->count);
        else e = conf_value_store(key, out, slot->ptr);
        if (e != OK) return e;
    }
    ASSERT(names != NULL);
    return conf_names_resolve(job, names, flat, out);
}

err_t conf_apps_resolve(struct conf_job *job)
{
    const struct conf_key *key = conf_table_find(&conf_table_server, "app_manager.array.apps");
    const struct conf_slot *slot = &job->merged[key - conf_table_server.keys];
    struct conf *c = &job->target.conf;

    if (slot->count == 0) {
        err_t e = conf_schema_load(job, "built-in app", key, builtin, sizeof(builtin) - 1);
        if (e != OK) return e;
        c->builtin_app = true;
    }
    const struct conf_raw_app *raw = slot->ptr;
    ASSERT(slot->count > 0 && slot->count <= CONF_APPS_MAX);    /* conf_check has counted */
    c->apps = calloc(slot->count, sizeof(*c->apps));
    if (c->apps == NULL) return ERR_MEMORY;
    for (uint64_t i = 0; i < slot->count; i++) {
        c->apps_count = (uint32_t)i + 1;                         /* half an app is freed too */
        err_t e = app_resolve(job, &raw[i], &c->apps[i]);
        if (e != OK) return e;
    }
    return OK;
}

void conf_apps_free(struct conf *c)
{
    for (uint32_t i = 0; i < c->apps_count; i++) {
        struct conf_app *a = &c->apps[i];
        if (a->secret != NULL) explicit_bzero(a->secret, strlen(a->secret));
        for (uint32_t k = 0; k < a->allowed_origins_count; k++) free(a->allowed_origins[k]);
        free(a->allowed_origins);
        conf_names_free(&a->names);
        free(a->id);
        free(a->key);
        free(a->secret);
    }
    free(c->apps);
    c->apps = NULL;
    c->apps_count = 0;
}
