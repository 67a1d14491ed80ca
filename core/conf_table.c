#include "core/conf_keys.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/conf_pattern.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const struct conf_table conf_table_server = {keys_server, COUNT(keys_server), ""};
const struct conf_table conf_table_app = {keys_app, COUNT(keys_app), "app_manager.array.apps."};
const struct conf_table conf_table_namespace = {
    keys_namespace, COUNT(keys_namespace),
    "app_manager.array.apps.policy.channels.channel_namespaces.",
};

/* ---- finding a key -------------------------------------------------------------------------- */

const struct conf_key *conf_table_find(const struct conf_table *t, const char *path)
{
    for (uint32_t i = 0; i < t->count; i++) {
        const struct conf_key *k = &t->keys[i];
        if (strcmp(k->path, path) == 0) return k;
        if (k->flat != NULL && strcmp(k->flat, path) == 0) return k;
    }
    return NULL;
}

static bool path_is_below(const char *path, const char *section)
{
    size_t n = strlen(section);
    return strncmp(path, section, n) == 0 && path[n] == '.';
}

bool conf_table_is_section(const struct conf_table *t, const char *path)
{
    for (uint32_t i = 0; i < t->count; i++) {
        const struct conf_key *k = &t->keys[i];
        if (path_is_below(k->path, path)) return true;
        if (k->flat != NULL && path_is_below(k->flat, path)) return true;
    }
    return false;
}

/* Steps (insert, remove, change) from a to b; at most `limit` + 1. */
static uint32_t distance(const char *a, const char *b, uint32_t limit)
{
    uint32_t row[CONF_PATH_BYTES];
    size_t la = strlen(a), lb = strlen(b);

    if (la >= CONF_PATH_BYTES || lb >= CONF_PATH_BYTES) return limit + 1;
    for (uint32_t j = 0; j <= lb; j++) row[j] = j;
    for (uint32_t i = 1; i <= la; i++) {
        uint32_t corner = row[0];
        row[0] = i;
        for (uint32_t j = 1; j <= lb; j++) {
            uint32_t change = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            row[j] = u32_min(change, u32_min(row[j], row[j - 1]) + 1);
        }
    }
    return u32_min(row[lb], limit + 1);
}

const char *conf_table_nearest(const struct conf_table *t, const char *path)
{
    const char *best = NULL;
    size_t bytes = strlen(path);
    uint32_t limit = bytes < 4 ? 1 : u32_max(2, (uint32_t)bytes / 5);
    uint32_t best_steps = limit + 1;
    const char *leaf = strrchr(path, '.');
    leaf = leaf == NULL ? path : leaf + 1;

    for (uint32_t i = 0; i < 2 * t->count; i++) {          /* paths first, then flat ones */
        const struct conf_key *key = &t->keys[i % t->count];
        const char *candidate = i < t->count ? key->path : key->flat;
        if (candidate == NULL) continue;
        uint32_t steps = distance(path, candidate, limit);
        if (steps < best_steps) best = candidate, best_steps = steps;
    }
    for (uint32_t i = 0; best == NULL && i < t->count; i++) {  /* right name, wrong section */
        const char *dot = strrchr(t->keys[i].path, '.');
        if (dot != NULL && strcmp(dot + 1, leaf) == 0) best = t->keys[i].path;
    }
    return best;
}

bool conf_table_unsupported(uint32_t index, const char **section, const char **names)
{
    if (index >= COUNT(keys_unsupported)) return false;
    *section = keys_unsupported[index][0];
    *names = keys_unsupported[index][1];
    return true;
}

/* True when the first bytes of `rest`, up to a dot or the end, are one of the words. */
static bool words_have(const char *words, const char *rest)
{
    size_t n = strcspn(rest, ".");

    for (const char *w = words; *w != '\0';) {
        size_t bytes = strcspn(w, " ");
        if (bytes == n && memcmp(w, rest, n) == 0) return true;
        w += bytes + strspn(w + bytes, " ");
    }
    return false;
}

bool conf_table_is_unsupported(const char *path, bool *section)
{
    *section = false;
    for (uint32_t i = 0; i < COUNT(keys_unsupported); i++) {
        const char *head = keys_unsupported[i][0];
        const char *rest = path;
        if (strcmp(head, path) == 0 || path_is_below(head, path)) {
            *section = true;
            continue;
        }
        if (head[0] != '\0') {
            if (!path_is_below(path, head)) continue;
            rest = path + strlen(head) + 1;
        }
        if (words_have(keys_unsupported[i][1], rest)) return true;
    }
    return *section;
}

void conf_table_environment_name(const char *path, char *out, uint32_t out_bytes)
{
    uint32_t n = (uint32_t)snprintf(out, out_bytes, "WEFT_");

    for (const char *p = path; *p != '\0'; p++) {
        ASSERT(n + 3 < out_bytes);
        if (*p == '.') out[n++] = '_', out[n++] = '_';
        else out[n++] = (char)toupper((unsigned char)*p);
    }
    out[n] = '\0';
}

/* ---- reading a value ------------------------------------------------------------------------ */

static bool number_read(const char *text, uint64_t *out)
{
    uint64_t v = 0;

    if (text[0] == '\0') return false;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9') return false;
        if (__builtin_mul_overflow(v, 10, &v)) return false;
        if (__builtin_add_overflow(v, (uint64_t)(*p - '0'), &v)) return false;
    }
    *out = v;
    return true;
}

/* 1 or 0; -1 when the text is neither. */
static int bool_read(const char *text)
{
    static const char *const yes[] = {"true", "1", "yes", "on"};
    static const char *const no[] = {"false", "0", "no", "off"};

    for (size_t i = 0; i < COUNT(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0) return 1;
        if (strcasecmp(text, no[i]) == 0) return 0;
    }
    return -1;
}

/* Which of the words it is; -1: none. */
static int choice_read(const char *words, const char *text)
{
    int index = 0;

    for (const char *w = words; *w != '\0'; index++) {
        size_t bytes = strcspn(w, " ");
        if (strlen(text) == bytes && memcmp(w, text, bytes) == 0) return index;
        w += bytes + strspn(w + bytes, " ");
    }
    return -1;
}

/* Control characters have no place in any setting, and in a header they would split it. */
static bool text_is_clean(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f) return false;
    }
    return true;
}

static bool prefix_is_name(const char *text)
{
    if (text[0] >= '0' && text[0] <= '9') return false;
    for (const char *p = text; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && *p != '_' && *p != ':') return false;
    return true;
}

/* The characters of a channel name. */
static bool text_is_channel(const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        if (!isalnum((unsigned char)*p) && strchr("_-=@,.;", *p) == NULL) return false;
    return true;
}

static bool text_has_form(enum conf_form form, const char *text)
{
    switch (form) {
    case CONF_ANY: return true;
    case CONF_METRIC_PREFIX: return prefix_is_name(text);
    case CONF_NAMESPACE_NAME: return text_is_channel(text);
    case CONF_PATTERN: break;
    }
    struct conf_pattern *pattern = conf_pattern_compile(text);
    bool good = pattern != NULL;
    conf_pattern_free(&pattern);
    return good;
}

static const char *form_words(enum conf_form form)
{
    switch (form) {
    case CONF_ANY: return "printable bytes";
    case CONF_METRIC_PREFIX: return "letters, digits, _ and :";
    case CONF_NAMESPACE_NAME: return "letters, digits and _-=@,.;";
    case CONF_PATTERN:
        return "bytes, a regular expression of characters, . [] () | * + ? {} ^ $ \\d \\w \\s";
    }
    return "";
}

bool conf_value_ok(const struct conf_key *key, const char *text, size_t bytes)
{
    uint64_t number;

    if (strlen(text) != bytes || !text_is_clean(text, bytes)) return false;
    switch (key->type) {
    case CONF_NUMBER:
        return number_read(text, &number) && number >= key->min && number <= key->max;
    case CONF_BOOL:
        return bool_read(text) == 1 || (bool_read(text) == 0 && !key->must_be_true);
    case CONF_TEXT:
        return bytes >= key->min && bytes <= key->max && text_has_form(key->form, text);
    case CONF_CHOICE:
        return choice_read(key->choices, text) >= 0;
    case CONF_LIST:
        return bytes >= 1 && bytes <= 255;
    case CONF_APPS:
    case CONF_NAMESPACES:
        return false;
    }
    return false;
}

void conf_value_expected(const struct conf_key *key, char *out, uint32_t out_bytes)
{
    switch (key->type) {
    case CONF_NUMBER:
        snprintf(out, out_bytes, "a whole number from %" PRIu64 " to %" PRIu64, key->min,
                 key->max);
        return;
    case CONF_BOOL:
        snprintf(out, out_bytes, "%s", key->must_be_true
                 ? "true (a slow socket is closed, its messages are never dropped silently)"
                 : "true or false");
        return;
    case CONF_TEXT:
        snprintf(out, out_bytes, "a text of %" PRIu64 " to %" PRIu64 " %s", key->min, key->max,
                 form_words(key->form));
        return;
    case CONF_CHOICE:
        if (strchr(key->choices, ' ') != NULL)
            snprintf(out, out_bytes, "one of: %s", key->choices);
        else
            snprintf(out, out_bytes, "%s (this build supports no other)", key->choices);
        return;
    case CONF_LIST:
        snprintf(out, out_bytes, "a list of %" PRIu64 " to %" PRIu64 " texts", key->min,
                 key->max);
        return;
    case CONF_APPS:
        snprintf(out, out_bytes, "a list of apps");
        return;
    case CONF_NAMESPACES:
        snprintf(out, out_bytes, "a list of at most %" PRIu64 " namespaces", key->max);
        return;
    }
}

/* ---- storing a value ------------------------------------------------------------------------ */

static void number_store(void *at, uint8_t width, uint64_t v)
{
    if (width == 2) *(uint16_t *)at = (uint16_t)v;
    else if (width == 4) *(uint32_t *)at = (uint32_t)v;
    else *(uint64_t *)at = v;
}

static err_t text_store(char **at, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL) return ERR_MEMORY;
    free(*at);
    *at = copy;
    return OK;
}

err_t conf_value_store(const struct conf_key *key, void *base, const char *text)
{
    void *at = (char *)base + key->offset;
    uint64_t number = 0;

    ASSERT(conf_value_ok(key, text, strlen(text)));     /* pairs with conf_check */
    if (key->width == 0) return OK;
    switch (key->type) {
    case CONF_NUMBER:
        if (!number_read(text, &number)) return ERR_CONFIG;
        number_store(at, key->width, number);
        return OK;
    case CONF_BOOL:
        *(bool *)at = bool_read(text) == 1;
        return OK;
    case CONF_TEXT:
        return text_store(at, text);
    case CONF_CHOICE:
        if (key->width == sizeof(char *)) return text_store(at, text);
        *(bool *)at = choice_read(key->choices, text) != 0;
        return OK;
    case CONF_LIST:
    case CONF_APPS:
    case CONF_NAMESPACES:
        break;
    }
    return ERR_CONFIG;
}

/* The count stands right behind the pointer in both structs; conf_parts.h relies on it too. */
static_assert(offsetof(struct conf, cors_origins_count)
              == offsetof(struct conf, cors_origins) + sizeof(char **), "count follows list");
static_assert(offsetof(struct conf, cors_methods_count)
              == offsetof(struct conf, cors_methods) + sizeof(char **), "count follows list");
static_assert(offsetof(struct conf, cors_headers_count)
              == offsetof(struct conf, cors_headers) + sizeof(char **), "count follows list");
static_assert(offsetof(struct conf_app, allowed_origins_count)
              == offsetof(struct conf_app, allowed_origins) + sizeof(char **),
              "count follows list");

err_t conf_value_store_list(const struct conf_key *key, void *base, char **items,
                            uint64_t count)
{
    char ***at = (char ***)(void *)((char *)base + key->offset);
    uint32_t *count_at = (uint32_t *)(void *)(at + 1);

    for (uint32_t i = 0; i < *count_at; i++) free((*at)[i]);
    free(*at);
    *at = NULL;
    *count_at = 0;
    if (count == 0) return OK;

    *at = calloc(count, sizeof(char *));
    if (*at == NULL) return ERR_MEMORY;
    for (uint64_t i = 0; i < count; i++) {
        (*at)[i] = strdup(items[i]);
        if ((*at)[i] == NULL) return ERR_MEMORY;
        *count_at = (uint32_t)i + 1;
    }
    return OK;
}

static err_t words_store(const struct conf_key *key, void *base)
{
    char text[256], *items[16];
    uint32_t count = 0;

    ASSERT(strlen(key->standard) < sizeof(text));
    memcpy(text, key->standard, strlen(key->standard) + 1);
    for (char *save = NULL, *w = strtok_r(text, " ", &save); w != NULL;
         w = strtok_r(NULL, " ", &save)) {
        ASSERT(count < COUNT(items));
        items[count++] = w;
    }
    return conf_value_store_list(key, base, items, count);
}

err_t conf_value_store_standard(const struct conf_key *key, void *base)
{
    if (key->standard == NULL) return OK;
    if (key->type == CONF_LIST) return words_store(key, base);
    return conf_value_store(key, base, key->standard);
}
