/* conf_parts.h - what the conf_*.c files share. Nobody outside them includes this, tests aside.
 *
 * Shape    conf_table.c   the table of conf_keys.h, how one value is read, worded and stored
 *          conf_check.c   libyaml: finds the first mistake in a text and says where it is
 *          conf_schema.c  libcyaml: a schema made from the table, a text put into slots
 *          conf_file.c    the file read, ${VAR} expanded, checked and loaded
 *          conf_apps.c    slots of an app made into a struct conf_app with every limit resolved
 *          conf_names.c   its namespaces and every policy that follows
 *          conf_print.c   --help, --help-config, --version
 *          conf.c         the layers in order, conf_load and conf_free
 * Threads  main only.
 * Memory   Slots point into a layer; layers live until conf_load returns.
 * Errors   One line in struct conf_job.error; it never quotes an app's key or secret.
 */
#pragma once
#include "core/conf.h"

#include <stdio.h>

enum {
    CONF_KEYS_MAX = 128,             /* keys of the server */
    CONF_APP_KEYS_MAX = 64,          /* keys of an app */
    CONF_NAMESPACE_KEYS_MAX = 24,    /* keys of a namespace */
    CONF_NAMESPACES_MAX = 1024,      /* of one app */
    CONF_PATH_BYTES = 256,           /* longest key path with indexes, NUL included */
    CONF_EXPECTED_BYTES = 256,       /* what conf_value_expected says */
    CONF_APPS_MAX = 65535,     /* connections and channels hold an app's index in 16 bits */
    CONF_LIST_MAX = 1024,            /* entries of a list of texts */
    CONF_FILE_BYTES_MAX = 16 << 20,  /* after ${VAR} expansion too */
    CONF_SHARDS_MAX = 64,
};

enum conf_type {
    CONF_NUMBER, CONF_BOOL, CONF_TEXT, CONF_CHOICE, CONF_LIST, CONF_APPS, CONF_NAMESPACES,
};

/* What a text must look like beyond its length. */
enum conf_form { CONF_ANY, CONF_METRIC_PREFIX, CONF_NAMESPACE_NAME, CONF_PATTERN };

/* One row of the table. Numbers: min and max are the range. Texts: bytes. Lists: entries. */
struct conf_key {
    const char    *path;             /* "websocket.max_bytes"; an app's: "policy.limits.x" */
    const char    *flat;             /* an app's legacy spelling beside id and key, or NULL */
    enum conf_type type;
    uint16_t       offset;           /* in struct conf_target, conf_app or conf_named */
    uint8_t        width;            /* bytes at offset; 0: checked, stored nowhere */
    bool           hidden;           /* its value is never quoted */
    bool           must_be_true;     /* a bool that this server cannot turn off */
    enum conf_form form;             /* of a CONF_TEXT */
    uint64_t       min, max;
    const char    *choices;          /* CONF_CHOICE: words separated by one space */
    const char    *standard;         /* default as text, lists by space; NULL: none */
    const char    *shown;            /* how the reference prints the default; NULL: as it is */
    const char    *unit;
    const char    *sentence;
};

struct conf_table {
    const struct conf_key *keys;
    uint32_t               count;
    const char            *above;    /* where entries stand, as keys_unsupported names it */
};
extern const struct conf_table conf_table_server, conf_table_app, conf_table_namespace;

/* Where the server's keys are stored: the result, and what apps fall back on. */
struct conf_target {
    struct conf     conf;
    struct conf_app shared;          /* numbers and bools only */
};

/* Where a namespace's keys are stored. */
struct conf_named {
    struct conf_namespace ns;
    struct conf_channels  channels;
};

/* What libcyaml leaves for a key: char *, char **, struct conf_raw_app * or struct
 * conf_raw_namespace *. NULL: absent. */
struct conf_slot {
    void    *ptr;                    /* borrowed from the layer */
    uint64_t count;                  /* entries behind ptr, for lists, apps and namespaces */
};
struct conf_raw     { struct conf_slot slot[CONF_KEYS_MAX]; };
/* Both spellings of a key have a slot: libcyaml frees whatever a field of the schema points to. */
struct conf_raw_app { struct conf_slot slot[CONF_APP_KEYS_MAX], flat[CONF_APP_KEYS_MAX]; };
struct conf_raw_namespace { struct conf_slot slot[CONF_NAMESPACE_KEYS_MAX]; };

struct conf_schema;                  /* libcyaml's view of both tables */
struct conf_layer;                   /* one loaded text and what it owns */

struct conf_job {
    struct conf_target  target;
    struct conf_slot    merged[CONF_KEYS_MAX]; /* by key; a later layer overwrites */
    bool                given[CONF_KEYS_MAX];
    struct conf_schema *schema;      /* owned */
    struct conf_layer  *layers;      /* owned, a list */
    char              **environment; /* borrowed */
    char               *error;       /* borrowed, the caller's */
    uint32_t            error_bytes;
};

/* conf_table.c */
const struct conf_key *conf_table_find(const struct conf_table *t, const char *path);
/* True when some key lies below `path`, as "websocket" has "websocket.max_bytes". */
bool conf_table_is_section(const struct conf_table *t, const char *path);
/* The nearest key to a misspelt one, or NULL when none is near. */
const char *conf_table_nearest(const struct conf_table *t, const char *path);
/* The reference's keys that this build lacks; `section` when keys lie below `path`. */
bool conf_table_is_unsupported(const char *path, bool *section);
/* Lines "section" and "key key key" of that list, for printing; false at the end. */
bool conf_table_unsupported(uint32_t index, const char **section, const char **names);
/* WEFT_WEBSOCKET__MAX_BYTES from websocket.max_bytes. */
void conf_table_environment_name(const char *path, char *out, uint32_t out_bytes);
/* True when `text` is a value of this key (lists: one entry). */
bool conf_value_ok(const struct conf_key *key, const char *text, size_t bytes);
/* "a whole number from 0 to 65535"; for lists, the list. */
void conf_value_expected(const struct conf_key *key, char *out, uint32_t out_bytes);
/* Stores an accepted value at base + offset; what was there before is freed. */
MUST_CHECK err_t conf_value_store(const struct conf_key *key, void *base, const char *text);
MUST_CHECK err_t conf_value_store_list(const struct conf_key *key, void *base, char **items,
                                       uint64_t count);
MUST_CHECK err_t conf_value_store_standard(const struct conf_key *key, void *base);

/* conf_check.c; `source` is a file's name, a variable's or a flag's; `key` NULL: a whole file. */
MUST_CHECK err_t conf_check(struct conf_job *job, const char *source, bool lines,
                            const struct conf_key *key, const char *text, size_t bytes,
                            bool *empty);
/* Writes "source: rest" as the job's error and answers ERR_CONFIG. */
__attribute__((format(printf, 3, 4)))
err_t conf_fail(struct conf_job *job, const char *source, const char *format, ...);
/* What to say of a key that is in no table: unsupported, misspelt, or unknown. */
err_t conf_fail_key(struct conf_job *job, const char *source, const struct conf_table *t,
                    const char *prefix, const char *path);

/* conf_schema.c; the text has passed conf_check. */
MUST_CHECK err_t conf_schema_open(struct conf_job *job);
MUST_CHECK err_t conf_schema_load(struct conf_job *job, const char *source,
                                  const struct conf_key *key, const char *text, size_t bytes);
void conf_schema_close(struct conf_job *job);

/* conf_file.c */
MUST_CHECK err_t conf_file_load(struct conf_job *job, const char *path);
MUST_CHECK err_t conf_file_load_text(struct conf_job *job, const char *source, const char *text,
                                     size_t bytes);
/* Expands ${VAR} and ${VAR:-default}; the caller frees *out. */
MUST_CHECK err_t conf_file_expand(struct conf_job *job, const char *source, const char *text,
                                  size_t bytes, char **out, size_t *out_bytes);
const char *conf_environment_get(char **environment, const char *name, size_t name_bytes);

/* conf_apps.c */
MUST_CHECK err_t conf_apps_resolve(struct conf_job *job);
void conf_apps_free(struct conf *c);

/* conf_names.c */
/* Refuses a feature of the server that lacks the one it stands on. */
MUST_CHECK err_t conf_names_server_check(struct conf_job *job);
/* a->names from the raw list and every policy of the app, from a->channels. Refuses what is on for
 * it and off for the server. flat: the app is written in the form without `policy`. */
MUST_CHECK err_t conf_names_resolve(struct conf_job *job, const struct conf_slot *raw, bool flat,
                                    struct conf_app *a);
void conf_names_free(struct conf_names *names);

/* conf.c: merged slots and defaults made into job->target. */
MUST_CHECK err_t conf_job_finish(struct conf_job *job);

/* conf_print.c */
void conf_print_help(FILE *to);
void conf_print_reference(FILE *to);
void conf_print_version(FILE *to);
