/* The first mistake in a YAML text, with its line.
 *
 * Why not libcyaml: it rejects an unknown key or a wrong shape, but tells the line to its log only,
 * knows no line for a value that we reject later, and accepts a key given twice. So libyaml, on
 * which libcyaml stands, reads the text into a document first; its nodes carry their marks. A
 * configuration is read once: the second pass costs nothing that matters.
 */
#include "core/conf_parts.h"

#include <stdarg.h>
#include <stdlib.h>
#include <yaml.h>

struct check {
    struct conf_job *job;            /* borrowed */
    const char      *source;
    bool             lines;          /* say the line: the source is a file */
    yaml_document_t  doc;
};

/* Where in the tree: the table, the path shown to the user, and its part inside the table. */
struct spot {
    const struct conf_table *table;
    char                     path[CONF_PATH_BYTES];
    uint32_t                 path_bytes, inside; /* path + inside is the path in the table */
};

/* ---- errors --------------------------------------------------------------------------------- */

static err_t fail_list(struct conf_job *job, const char *source, const char *format, va_list ap)
{
    int n = snprintf(job->error, job->error_bytes, "%s: ", source);

    if (n >= 0 && (uint32_t)n < job->error_bytes)
        vsnprintf(job->error + n, job->error_bytes - (uint32_t)n, format, ap);
    for (char *p = job->error; job->error_bytes > 0 && *p != '\0'; p++)  /* one clean line */
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
    return ERR_CONFIG;
}

err_t conf_fail(struct conf_job *job, const char *source, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    err_t e = fail_list(job, source, format, ap);
    va_end(ap);
    return e;
}

__attribute__((format(printf, 3, 4)))
static err_t fail_line(struct check *c, size_t line, const char *format, ...)
{
    char where[CONF_PATH_BYTES];
    va_list ap;

    if (c->lines) snprintf(where, sizeof(where), "%s:%zu", c->source, line + 1);
    else snprintf(where, sizeof(where), "%s", c->source);
    va_start(ap, format);
    err_t e = fail_list(c->job, where, format, ap);
    va_end(ap);
    return e;
}

err_t conf_fail_key(struct conf_job *job, const char *source, const struct conf_table *t,
                    const char *prefix, const char *path)
{
    bool section;
    char known[2 * CONF_PATH_BYTES];

    snprintf(known, sizeof(known), "%s%s", t->above, path);
    if (conf_table_is_section(t, path))
        return conf_fail(job, source, "%s%s: a section, not a key; name one of its keys", prefix,
                         path);
    if (conf_table_is_unsupported(known, &section))
        return conf_fail(job, source, "%s%s: known, but not supported by this build", prefix,
                         path);
    const char *near = conf_table_nearest(t, path);
    if (near != NULL)
        return conf_fail(job, source, "%s%s: unknown key; did you mean %s%s?", prefix, path,
                         prefix, near);
    return conf_fail(job, source, "%s%s: unknown key; --help-config lists all", prefix, path);
}

static bool node_is_null(const yaml_node_t *n)
{
    const char *text = (const char *)n->data.scalar.value;

    if (n->type != YAML_SCALAR_NODE || n->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    return text[0] == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
}

/* What was found there: a short value in quotes, unless it must not be shown. */
static const char *got(const yaml_node_t *n, bool hidden, char *out, size_t out_bytes)
{
    if (n->type == YAML_MAPPING_NODE) return "a section of keys";
    if (n->type == YAML_SEQUENCE_NODE) return "a list";
    if (node_is_null(n)) return "nothing";
    if (hidden) return "another value";

    const char *text = (const char *)n->data.scalar.value;
    int shown = (int)u64_min(n->data.scalar.length, 60);
    while (shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80) shown--;
    snprintf(out, out_bytes, "\"%.*s%s\"", shown, text, text[shown] != '\0' ? "..." : "");
    return out;
}

static err_t fail_value(struct check *c, const struct conf_key *key, const yaml_node_t *n,
                        const char *path)
{
    char expected[CONF_EXPECTED_BYTES], found[80];

    conf_value_expected(key, expected, sizeof(expected));
    return fail_line(c, n->start_mark.line, "%s: expected %s, got %s", path, expected,
                     got(n, key->hidden || key->type >= CONF_APPS, found, sizeof(found)));
}

/* ---- values --------------------------------------------------------------------------------- */

static bool node_ok(const struct conf_key *key, const yaml_node_t *n)
{
    return n->type == YAML_SCALAR_NODE && !node_is_null(n)
           && conf_value_ok(key, (const char *)n->data.scalar.value, n->data.scalar.length);
}

static uint64_t list_count(const yaml_node_t *n)
{
    return (uint64_t)(n->data.sequence.items.top - n->data.sequence.items.start);
}

static yaml_node_t *list_at(struct check *c, const yaml_node_t *n, uint64_t index)
{
    return yaml_document_get_node(&c->doc, n->data.sequence.items.start[index]);
}

static err_t check_list(struct check *c, const struct conf_key *key, const yaml_node_t *n,
                        const char *path)
{
    if (n->type != YAML_SEQUENCE_NODE || list_count(n) < key->min || list_count(n) > key->max)
        return fail_value(c, key, n, path);
    for (uint64_t i = 0; i < list_count(n); i++) {
        const yaml_node_t *item = list_at(c, n, i);
        char item_path[CONF_PATH_BYTES + 32];
        snprintf(item_path, sizeof(item_path), "%s[%u]", path, (uint32_t)i);
        if (node_ok(key, item)) continue;
        char found[80];
        return fail_line(c, item->start_mark.line, "%s: expected a text of 1 to 255 printable "
                         "bytes, got %s", item_path, got(item, false, found, sizeof(found)));
    }
    return OK;
}

static err_t check_apps(struct check *c, const struct conf_key *key, const yaml_node_t *n,
                        const char *path);
static err_t check_namespaces(struct check *c, const struct conf_key *key, const yaml_node_t *n,
                              const char *path);

static err_t check_value(struct check *c, const struct conf_key *key, const yaml_node_t *n,
                         const char *path)
{
    if (key->type == CONF_LIST) return check_list(c, key, n, path);
    if (key->type == CONF_APPS) return check_apps(c, key, n, path);
    if (key->type == CONF_NAMESPACES) return check_namespaces(c, key, n, path);
    return node_ok(key, n) ? OK : fail_value(c, key, n, path);
}

/* ---- sections ------------------------------------------------------------------------------- */

static const char *scalar_text(const yaml_node_t *n)
{
    return (const char *)n->data.scalar.value;
}

static err_t check_mapping(struct check *c, struct spot *at, const yaml_node_t *n);

/* `at` ends with the name of a key that no table has. */
static err_t fail_unknown(struct check *c, struct spot *at, const yaml_node_t *name,
                          const yaml_node_t *value)
{
    char where[CONF_PATH_BYTES], prefix[CONF_PATH_BYTES], known[2 * CONF_PATH_BYTES];
    bool section;

    snprintf(known, sizeof(known), "%s%s", at->table->above, at->path + at->inside);
    if (value->type == YAML_MAPPING_NODE
        && value->data.mapping.pairs.top > value->data.mapping.pairs.start
        && conf_table_is_unsupported(known, &section) && section)
        return check_mapping(c, at, value);         /* name the key inside, not the section */

    if (c->lines)
        snprintf(where, sizeof(where), "%s:%zu", c->source, name->start_mark.line + 1);
    else
        snprintf(where, sizeof(where), "%s", c->source);
    snprintf(prefix, sizeof(prefix), "%.*s", (int)at->inside, at->path);
    return conf_fail_key(c->job, where, at->table, prefix, at->path + at->inside);
}

static err_t check_pair(struct check *c, struct spot *at, const yaml_node_t *name,
                        const yaml_node_t *value)
{
    const char *inside = at->path + at->inside;
    const struct conf_key *key = conf_table_find(at->table, inside);

    if (key != NULL) return check_value(c, key, value, at->path);
    if (!conf_table_is_section(at->table, inside)) return fail_unknown(c, at, name, value);
    if (value->type == YAML_MAPPING_NODE) return check_mapping(c, at, value);

    char found[80];
    return fail_line(c, value->start_mark.line, "%s: expected a section of keys, got %s",
                     at->path, got(value, true, found, sizeof(found)));
}

/* Every pair of the mapping at `at`. Unknown names stop the walk and a name may come once, so
 * neither the pairs looked at nor the depth can exceed what the tables hold. */
static err_t check_mapping(struct check *c, struct spot *at, const yaml_node_t *n)
{
    uint32_t bytes = at->path_bytes;

    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        yaml_node_t *name = yaml_document_get_node(&c->doc, p->key);
        yaml_node_t *value = yaml_document_get_node(&c->doc, p->value);

        if (name->type != YAML_SCALAR_NODE)
            return fail_line(c, name->start_mark.line, "expected the name of a key, got %s",
                             got(name, true, NULL, 0));
        int added = snprintf(at->path + bytes, CONF_PATH_BYTES - bytes, "%s%.100s",
                             bytes > at->inside ? "." : "", scalar_text(name));
        if (added < 0 || bytes + (uint32_t)added >= CONF_PATH_BYTES)
            return fail_line(c, name->start_mark.line, "expected a shorter name of a key");
        at->path_bytes = bytes + (uint32_t)added;

        for (yaml_node_pair_t *q = n->data.mapping.pairs.start; q < p; q++) {
            yaml_node_t *earlier = yaml_document_get_node(&c->doc, q->key);
            if (strcmp(scalar_text(earlier), scalar_text(name)) == 0)
                return fail_line(c, name->start_mark.line, "%s: given twice, first on line %zu",
                                 at->path, earlier->start_mark.line + 1);
        }
        err_t e = check_pair(c, at, name, value);
        if (e != OK) return e;
    }
    at->path_bytes = bytes;
    at->path[bytes] = '\0';
    return OK;
}

/* ---- apps and namespaces -------------------------------------------------------------------- */

static const yaml_node_t *mapping_get(struct check *c, const yaml_node_t *n, const char *name)
{
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++)
        if (strcmp(scalar_text(yaml_document_get_node(&c->doc, p->key)), name) == 0)
            return yaml_document_get_node(&c->doc, p->value);
    return NULL;
}

/* The old form puts limits and features beside id and key; beside a policy they would be ignored
 * or contradict it, so one app uses one form. */
static err_t check_one_form(struct check *c, const yaml_node_t *app, const char *path)
{
    if (mapping_get(c, app, "policy") == NULL) return OK;
    for (yaml_node_pair_t *p = app->data.mapping.pairs.start; p < app->data.mapping.pairs.top;
         p++) {
        const yaml_node_t *name = yaml_document_get_node(&c->doc, p->key);
        const struct conf_key *key = conf_table_find(&conf_table_app, scalar_text(name));
        bool old_form = key == NULL ? strcmp(scalar_text(name), "policy") != 0
                                    : key->flat != NULL;
        if (old_form)
            return fail_line(c, name->start_mark.line, "%s.%s: expected under policy, since "
                             "this app has one", path, scalar_text(name));
    }
    return OK;
}

/* One entry of a list of apps or namespaces: its keys, and those that it must have. */
static err_t check_entry(struct check *c, const yaml_node_t *n, const char *path,
                         const struct conf_table *table, const char *what,
                         const char *const *required)
{
    struct spot at = {.table = table};
    char text[CONF_EXPECTED_BYTES];

    if (n->type != YAML_MAPPING_NODE)
        return fail_line(c, n->start_mark.line, "%s: expected %s, got %s", path, what,
                         got(n, true, text, sizeof(text)));
    int bytes = snprintf(at.path, sizeof(at.path), "%s.", path);
    ASSERT(bytes > 0 && bytes < (int)sizeof(at.path));
    at.path_bytes = at.inside = (uint32_t)bytes;
    err_t e = check_mapping(c, &at, n);
    if (e != OK) return e;

    for (; *required != NULL; required++) {
        if (mapping_get(c, n, *required) != NULL) continue;
        conf_value_expected(conf_table_find(table, *required), text, sizeof(text));
        return fail_line(c, n->start_mark.line, "%s.%s: expected %s, got nothing", path,
                         *required, text);
    }
    return OK;
}

static err_t check_app(struct check *c, const yaml_node_t *app, const char *path)
{
    static const char *const required[] = {"id", "key", "secret", NULL};
    err_t e = check_entry(c, app, path, &conf_table_app, "an app with id, key and secret",
                          required);

    return e != OK ? e : check_one_form(c, app, path);
}

struct named { const char *text; size_t line; uint32_t index; };

static int named_compare(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int order = strcmp(x->text, y->text);

    return order != 0 ? order : (x->index > y->index) - (x->index < y->index);
}

/* No two entries share an id, a key or a name. */
static err_t check_unique(struct check *c, const yaml_node_t *n, const char *name,
                          const char *path)
{
    uint64_t count = list_count(n);
    struct named *all = calloc(count + 1, sizeof(*all));
    err_t e = OK;

    if (all == NULL) return ERR_MEMORY;
    for (uint64_t i = 0; i < count; i++) {
        const yaml_node_t *value = mapping_get(c, list_at(c, n, i), name);
        all[i] = (struct named){scalar_text(value), value->start_mark.line, (uint32_t)i};
    }
    qsort(all, count, sizeof(*all), named_compare);
    for (uint64_t i = 1; e == OK && i < count; i++)
        if (strcmp(all[i - 1].text, all[i].text) == 0)
            e = fail_line(c, all[i].line, "%s[%u].%s: expected another %s than that of %s[%u]",
                          path, all[i].index, name, name, path, all[i - 1].index);
    free(all);
    return e;
}

static err_t check_apps(struct check *c, const struct conf_key *key, const yaml_node_t *n,
                        const char *path)
{
    if (n->type != YAML_SEQUENCE_NODE || list_count(n) > key->max)
        return fail_value(c, key, n, path);
    for (uint64_t i = 0; i < list_count(n); i++) {
        char app_path[64];
        snprintf(app_path, sizeof(app_path), "%s[%u]", path, (uint32_t)i);
        err_t e = check_app(c, list_at(c, n, i), app_path);
        if (e != OK) return e;
    }
    err_t e = check_unique(c, n, "id", path);
    return e != OK ? e : check_unique(c, n, "key", path);
}

static err_t check_namespaces(struct check *c, const struct conf_key *key, const yaml_node_t *n,
                              const char *path)
{
    static const char *const required[] = {"name", NULL};

    if (n->type != YAML_SEQUENCE_NODE || list_count(n) > key->max)
        return fail_value(c, key, n, path);
    for (uint64_t i = 0; i < list_count(n); i++) {
        char entry_path[CONF_PATH_BYTES / 2];
        snprintf(entry_path, sizeof(entry_path), "%s[%u]", path, (uint32_t)i);
        err_t e = check_entry(c, list_at(c, n, i), entry_path, &conf_table_namespace,
                              "a namespace with a name", required);
        if (e != OK) return e;
    }
    return check_unique(c, n, "name", path);
}

/* ---- the whole text ------------------------------------------------------------------------- */

static err_t fail_parse(struct check *c, const yaml_parser_t *p, const char *text, size_t bytes)
{
    size_t line = p->problem_mark.line;

    if (p->error == YAML_MEMORY_ERROR) return ERR_MEMORY;
    if (p->error == YAML_READER_ERROR) {              /* it knows the offset only */
        line = 0;
        for (size_t i = 0; i < p->problem_offset && i < bytes; i++) line += text[i] == '\n';
    }
    return fail_line(c, line, "not valid YAML: %s", p->problem != NULL ? p->problem : "unreadable");
}

static err_t check_document(struct check *c, const struct conf_key *key, bool *empty)
{
    const yaml_node_t *root = yaml_document_get_root_node(&c->doc);
    struct spot at = {.table = &conf_table_server};

    if (key != NULL) {
        if (root != NULL) return check_value(c, key, root, key->path);
        char expected[CONF_EXPECTED_BYTES];
        conf_value_expected(key, expected, sizeof(expected));
        return conf_fail(c->job, c->source, "%s: expected %s, got nothing", key->path, expected);
    }
    *empty = root == NULL || node_is_null(root);
    if (*empty) return OK;
    if (root->type == YAML_MAPPING_NODE) return check_mapping(c, &at, root);
    return fail_line(c, root->start_mark.line, "expected keys and values, as in `port: 6001`");
}

static err_t check_end(struct check *c, yaml_parser_t *parser, const char *text, size_t bytes)
{
    yaml_document_t second;

    if (!yaml_parser_load(parser, &second)) return fail_parse(c, parser, text, bytes);
    const yaml_node_t *root = yaml_document_get_root_node(&second);
    err_t e = OK;
    if (root != NULL)
        e = fail_line(c, root->start_mark.line, "expected one YAML document, got a second");
    yaml_document_delete(&second);
    return e;
}

err_t conf_check(struct conf_job *job, const char *source, bool lines,
                 const struct conf_key *key, const char *text, size_t bytes, bool *empty)
{
    struct check c = {.job = job, .source = source, .lines = lines};
    yaml_parser_t parser;
    err_t e;

    *empty = false;
    if (!yaml_parser_initialize(&parser)) return ERR_MEMORY;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    if (yaml_parser_load(&parser, &c.doc)) {
        e = check_document(&c, key, empty);
        if (e == OK && yaml_document_get_root_node(&c.doc) != NULL)
            e = check_end(&c, &parser, text, bytes);
        yaml_document_delete(&c.doc);
    } else {
        e = fail_parse(&c, &parser, text, bytes);
    }
    yaml_parser_delete(&parser);
    return e;
}
