/* A libcyaml schema made from the table at run time.
 *
 * The document's nesting exists only in the schema: every section is a mapping *by value at offset
 * 0*, so all leaves of all sections land in one flat array of slots, one per key. Leaves are
 * strings by pointer and therefore tell "absent" (NULL) from "0"; conf_value_* turns the text into
 * a value, whatever layer it came from.
 */
#include "core/conf_parts.h"

#include <cyaml/cyaml.h>
#include <stdlib.h>

enum { FIELDS_MAX = 768, NAMES_BYTES = 8192 };

struct conf_schema {
    cyaml_schema_field_t field[FIELDS_MAX];
    uint32_t             fields;
    char                 names[NAMES_BYTES];
    uint32_t             names_bytes;
    cyaml_schema_value_t text;         /* one entry of a list */
    cyaml_schema_value_t app;          /* one entry of the list of apps */
    cyaml_schema_value_t named;        /* one entry of an app's list of namespaces */
    cyaml_schema_value_t root;
};

static_assert(offsetof(struct conf_raw, slot) == 0 && offsetof(struct conf_raw_app, slot) == 0
              && offsetof(struct conf_raw_namespace, slot) == 0,
              "a key's slot is at its index, whichever table it is of");

struct conf_layer {
    struct conf_layer          *next;  /* owned */
    const cyaml_schema_value_t *schema;
    cyaml_schema_value_t        single; /* storage for a value on its own */
    void                       *data;  /* owned: released with the schema */
    unsigned                    count;
};

/* The checker has already said what is wrong and where; libcyaml's own lines are not for users. */
static const cyaml_config_t cyaml = {
    .log_fn = NULL, .mem_fn = cyaml_mem, .log_level = CYAML_LOG_ERROR, .flags = CYAML_CFG_DEFAULT,
};

static cyaml_schema_value_t leaf_value(const struct conf_schema *s, const struct conf_key *key)
{
    cyaml_schema_value_t v = {.flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL};

    if (key->type == CONF_LIST || key->type == CONF_APPS || key->type == CONF_NAMESPACES) {
        v.type = CYAML_SEQUENCE;
        v.sequence.entry = key->type == CONF_LIST ? &s->text
                         : key->type == CONF_APPS ? &s->app : &s->named;
        v.data_size = key->type == CONF_LIST ? sizeof(char *) : v.sequence.entry->data_size;
        v.sequence.min = 0;
        v.sequence.max = CYAML_UNLIMITED;
    } else {
        v.type = CYAML_STRING;
        v.data_size = sizeof(char);
        v.string.min = 0;
        v.string.max = CYAML_UNLIMITED;
    }
    return v;
}

/* The name at `at`, up to the next dot, kept for the schema's life. */
static const char *name_keep(struct conf_schema *s, const char *at)
{
    size_t n = strcspn(at, ".");
    char *name = s->names + s->names_bytes;

    ASSERT(s->names_bytes + n + 1 <= NAMES_BYTES);
    memcpy(name, at, n);
    name[n] = '\0';
    s->names_bytes += (uint32_t)n + 1;
    return name;
}

/* What follows `prefix` in the path, or NULL when the path lies elsewhere. */
static const char *rest_of(const char *path, const char *prefix)
{
    size_t n = strlen(prefix);

    if (path == NULL || strncmp(path, prefix, n) != 0) return NULL;
    return path + n;
}

static cyaml_schema_field_t *field_named(cyaml_schema_field_t *first, uint32_t count,
                                         const char *name)
{
    size_t n = strcspn(name, ".");

    for (uint32_t i = 0; i < count; i++)
        if (strlen(first[i].key) == n && memcmp(first[i].key, name, n) == 0) return &first[i];
    return NULL;
}

/* Adds the key or section that `name` begins with, unless it is there; a key's value goes into the
 * slot at `slot_offset`. */
static void child_add(struct conf_schema *s, const struct conf_key *key, size_t slot_offset,
                      const char *name, cyaml_schema_field_t *first, uint32_t *count)
{
    if (field_named(first, *count, name) != NULL) return;

    cyaml_schema_field_t *f = &first[(*count)++];
    f->key = name_keep(s, name);
    if (strchr(name, '.') != NULL) {                       /* a section, filled in below */
        f->value.type = CYAML_MAPPING;
        return;
    }
    f->data_offset = (uint32_t)(slot_offset + offsetof(struct conf_slot, ptr));
    f->count_offset = (uint32_t)(slot_offset + offsetof(struct conf_slot, count));
    f->count_size = sizeof(uint64_t);
    f->value = leaf_value(s, key);
}

/* The mapping of everything directly below `prefix` ("" or ending in a dot). */
static cyaml_schema_value_t mapping_build(struct conf_schema *s, const struct conf_table *t,
                                          const char *prefix, uint32_t data_size)
{
    cyaml_schema_field_t *first = &s->field[s->fields];
    uint32_t count = 0, room = 1;

    for (uint32_t i = 0; i < t->count; i++)                /* an upper bound: sections repeat */
        room += (rest_of(t->keys[i].path, prefix) != NULL)
                + (rest_of(t->keys[i].flat, prefix) != NULL);
    ASSERT(s->fields + room <= FIELDS_MAX);
    for (uint32_t i = 0; i < t->count; i++) {
        const char *rest = rest_of(t->keys[i].path, prefix);
        const char *flat = rest_of(t->keys[i].flat, prefix);
        size_t offset = i * sizeof(struct conf_slot), flat_offset = offset
                        + offsetof(struct conf_raw_app, flat);
        if (rest != NULL) child_add(s, &t->keys[i], offset, rest, first, &count);
        if (flat != NULL) child_add(s, &t->keys[i], flat_offset, flat, first, &count);
    }
    s->fields += count + 1;                                /* the last, zeroed, ends the list */

    for (uint32_t i = 0; i < count; i++) {
        char below[CONF_PATH_BYTES];
        if (first[i].value.type != CYAML_MAPPING) continue;
        int n = snprintf(below, sizeof(below), "%s%s.", prefix, first[i].key);
        ASSERT(n > 0 && n < (int)sizeof(below));
        first[i].value = mapping_build(s, t, below, data_size);
        first[i].value.flags = CYAML_FLAG_OPTIONAL;
    }
    cyaml_schema_value_t v = {.type = CYAML_MAPPING, .data_size = data_size};
    v.mapping.fields = first;
    return v;
}

err_t conf_schema_open(struct conf_job *job)
{
    struct conf_schema *s = calloc(1, sizeof(*s));

    if (s == NULL) return ERR_MEMORY;
    job->schema = s;
    s->text = (cyaml_schema_value_t){.type = CYAML_STRING, .flags = CYAML_FLAG_POINTER,
                                     .data_size = sizeof(char)};
    s->text.string.max = CYAML_UNLIMITED;
    s->named = mapping_build(s, &conf_table_namespace, "", sizeof(struct conf_raw_namespace));
    s->app = mapping_build(s, &conf_table_app, "", sizeof(struct conf_raw_app));
    s->root = mapping_build(s, &conf_table_server, "", sizeof(struct conf_raw));
    s->root.flags = CYAML_FLAG_POINTER;
    return OK;
}

static void slot_merge(struct conf_job *job, uint32_t index, struct conf_slot slot)
{
    job->merged[index] = slot;
    job->given[index] = true;
}

err_t conf_schema_load(struct conf_job *job, const char *source, const struct conf_key *key,
                       const char *text, size_t bytes)
{
    struct conf_layer *l = calloc(1, sizeof(*l));

    if (l == NULL) return ERR_MEMORY;
    l->next = job->layers;
    job->layers = l;
    l->schema = &job->schema->root;
    if (key != NULL) {
        l->single = leaf_value(job->schema, key);
        l->schema = &l->single;
    }
    bool counted = l->schema->type == CYAML_SEQUENCE;
    cyaml_err_t e = cyaml_load_data((const uint8_t *)text, bytes, &cyaml, l->schema, &l->data,
                                    counted ? &l->count : NULL);
    if (e != CYAML_OK) {
        l->data = NULL;
        return conf_fail(job, source, "cannot be loaded: %s", cyaml_strerror(e));
    }
    if (key != NULL) {
        slot_merge(job, (uint32_t)(key - conf_table_server.keys),
                   (struct conf_slot){l->data, l->count});
        return OK;
    }
    const struct conf_raw *raw = l->data;
    for (uint32_t i = 0; raw != NULL && i < conf_table_server.count; i++)
        if (raw->slot[i].ptr != NULL) slot_merge(job, i, raw->slot[i]);
    return OK;
}

void conf_schema_close(struct conf_job *job)
{
    while (job->layers != NULL) {
        struct conf_layer *l = job->layers;
        job->layers = l->next;
        if (l->data != NULL) cyaml_free(&cyaml, l->schema, l->data, l->count);
        free(l);
    }
    free(job->schema);
    job->schema = NULL;
}
