/* conf_policy.h - what the configuration says of one channel: its namespace and its policy.
 *
 * Shape    The most specific setting wins: namespace, app, server. All of it is worked out when the
 *          configuration is loaded; a question only finds the namespace and copies its answer.
 *          The namespace of a channel is the text before the first ':' behind the type prefix
 *          (private-encrypted-, private-, presence-, each with or without cache-, or cache-).
 * Threads  Any; read-only.
 * Cost     An app without policies: one branch and a cleared struct. Otherwise a search by halves
 *          among the app's namespaces; a pattern costs its states for each byte of the name.
 * Memory   Namespaces belong to struct conf.
 * Source   spec/messages-and-history.md 11; spec/protocol-v2.md 11; spec/settled.md 17, 34, 40.
 */
#pragma once
#include "core/base.h"

struct conf;
struct conf_pattern;

/* 0 in a bound: none. Without `history` the numbers of history and versions mean nothing, and so
 * on: a caller looks at the bool first. */
struct conf_policy {
    bool     history;                  /* publishes become rows */
    bool     rewind;                   /* history, and a subscribe may ask for rewind */
    bool     versioned;                /* history, and messages may be changed */
    bool     annotations;              /* versioned, and messages may be annotated */
    bool     presence_history;         /* presence- channels only */
    bool     recovery;                 /* a client may resume */
    bool     relaxed;                  /* deliver and acknowledge before the commit */
    uint32_t recovery_ttl_ms;          /* how long the replay ring keeps a frame */
    uint32_t recovery_max;             /* frames one hot resume may replay */
    uint64_t history_age_ms, history_messages_max, history_bytes_max;
    uint64_t version_age_ms;           /* 0: for ever; UINT64_MAX: as history */
    uint64_t presence_age_ms, presence_events_max, presence_bytes_max;
};

/* How long annotations are kept: as versions are, or as history where those have no age of their
 * own. */
static inline uint64_t conf_policy_annotations_age_ms(const struct conf_policy *p)
{
    return p->version_age_ms == UINT64_MAX ? p->history_age_ms : p->version_age_ms;
}

struct conf_namespace {
    char    *name;
    char    *channel_name_pattern;     /* "": any */
    struct conf_pattern *pattern;           /* owned; NULL: any */
    uint32_t max_channel_name_length;  /* bytes of the whole name; 0: the app's */
    bool     allow_user_limited_channels; /* checked when the name is parsed; default false */
    bool     allow_subscribe_for_client;  /* these three: V2 sockets, else 4009; default true */
    bool     allow_publish_for_client;
    bool     allow_presence_for_client;   /* subscribes to presence- channels */
    struct conf_policy policy;
};

/* The namespaces of one app, sorted by name. */
struct conf_names {
    struct conf_namespace *list;       /* owned */
    uint32_t               count;
};

/* The policy that was worked out for a channel's namespace or app; it is not yet looked at whether
 * the channel can have presence_history. */
const struct conf_policy *conf_policy_at(const struct conf *conf, uint32_t app,
                                         struct slice channel);
/* What holds for a channel of an app; `channel` is its whole name. */
void conf_policy_of(const struct conf *conf, uint32_t app, struct slice channel,
                    struct conf_policy *out);

/* The channel's namespace, or NULL: it has none, or none of that name is configured. */
const struct conf_namespace *conf_namespace_of(const struct conf *conf, uint32_t app,
                                               struct slice channel);

/* The same for a logical name, type prefix already off. */
const struct conf_namespace *conf_names_find(const struct conf_names *names, struct slice logical);

/* True when a logical name, without type prefix and #users, fits the namespace's pattern. */
bool conf_namespace_admits(const struct conf_namespace *ns, struct slice logical);
