#include "core/conf_parts.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct text {
    char  *ptr;                      /* owned */
    size_t bytes, room;
};

static err_t text_add(struct text *t, const char *more, size_t bytes)
{
    if (bytes > CONF_FILE_BYTES_MAX - t->bytes) return ERR_FULL;
    if (t->bytes + bytes + 1 > t->room) {
        size_t room = (t->bytes + bytes + 1) * 2;
        char *ptr = realloc(t->ptr, room);
        if (ptr == NULL) return ERR_MEMORY;
        t->ptr = ptr;
        t->room = room;
    }
    memcpy(t->ptr + t->bytes, more, bytes);
    t->bytes += bytes;
    t->ptr[t->bytes] = '\0';
    return OK;
}

const char *conf_environment_get(char **environment, const char *name, size_t name_bytes)
{
    for (char **e = environment; e != NULL && *e != NULL; e++)
        if (strncmp(*e, name, name_bytes) == 0 && (*e)[name_bytes] == '=')
            return *e + name_bytes + 1;
    return NULL;
}

/* ${NAME} or ${NAME:-default}; anything else that starts with a dollar is plain text. */
struct reference {
    const char *name, *fallback;     /* borrowed from the text; fallback NULL: none */
    size_t      name_bytes, fallback_bytes, bytes;
};

static bool reference_read(const char *at, const char *end, struct reference *r)
{
    const char *p = at + 2;

    if (end - at < 4 || at[0] != '$' || at[1] != '{') return false;
    if (!isalpha((unsigned char)*p) && *p != '_') return false;
    *r = (struct reference){.name = p};
    while (p < end && (isalnum((unsigned char)*p) || *p == '_')) p++;
    r->name_bytes = (size_t)(p - r->name);
    if (end - p >= 2 && p[0] == ':' && p[1] == '-') {
        p += 2;
        r->fallback = p;
        while (p < end && *p != '}' && *p != '\n') p++;
        r->fallback_bytes = (size_t)(p - r->fallback);
    }
    if (p >= end || *p != '}') return false;
    r->bytes = (size_t)(p - at) + 1;
    return true;
}

static err_t reference_expand(struct conf_job *job, const struct reference *r, struct text *out,
                              struct text *missing)
{
    const char *value = conf_environment_get(job->environment, r->name, r->name_bytes);

    if (value != NULL && value[0] != '\0') return text_add(out, value, strlen(value));
    if (r->fallback != NULL) return text_add(out, r->fallback, r->fallback_bytes);
    err_t e = missing->bytes > 0 ? text_add(missing, ", ", 2) : OK;
    return e != OK ? e : text_add(missing, r->name, r->name_bytes);
}

err_t conf_file_expand(struct conf_job *job, const char *source, const char *text, size_t bytes,
                       char **out, size_t *out_bytes)
{
    struct text whole = {0}, missing = {0};
    const char *end = text + bytes;
    size_t line = 1, line_missing = 0;
    err_t e = text_add(&whole, "", 0);

    for (const char *p = text; e == OK && p < end;) {
        struct reference r;
        size_t missing_before = missing.bytes;
        if (reference_read(p, end, &r)) {
            e = reference_expand(job, &r, &whole, &missing);
            if (missing_before == 0 && missing.bytes > 0) line_missing = line;
            p += r.bytes;
            continue;
        }
        size_t plain = 1;
        while (p + plain < end && p[plain] != '$' && p[plain - 1] != '\n') plain++;
        if (p[plain - 1] == '\n') line++;
        e = text_add(&whole, p, plain);
        p += plain;
    }
    if (e == ERR_FULL)
        e = conf_fail(job, source, "expected at most %d bytes", CONF_FILE_BYTES_MAX);
    if (e == OK && missing.bytes > 0) {
        char where[CONF_PATH_BYTES];
        snprintf(where, sizeof(where), "%s:%zu", source, line_missing);
        e = conf_fail(job, where, "environment variables that are not set: %s", missing.ptr);
    }
    free(missing.ptr);
    if (e != OK) {
        free(whole.ptr);
        return e;
    }
    *out = whole.ptr;
    *out_bytes = whole.bytes;
    return OK;
}

static err_t file_read(struct conf_job *job, const char *path, struct text *out)
{
    char chunk[16384];
    struct stat st;
    ssize_t n = 0;
    err_t e = OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) return conf_fail(job, path, "cannot be opened: %s", strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(fd);
        return conf_fail(job, path, "expected a file, got a directory");
    }
    while (e == OK && (n = read(fd, chunk, sizeof(chunk))) > 0)
        e = text_add(out, chunk, (size_t)n);
    if (n < 0) e = conf_fail(job, path, "cannot be read: %s", strerror(errno));
    if (e == ERR_FULL)
        e = conf_fail(job, path, "expected at most %d bytes", CONF_FILE_BYTES_MAX);
    close(fd);
    return e;
}

err_t conf_file_load_text(struct conf_job *job, const char *source, const char *text,
                          size_t bytes)
{
    char *expanded = NULL;
    size_t expanded_bytes = 0;
    bool empty = false;

    err_t e = conf_file_expand(job, source, text, bytes, &expanded, &expanded_bytes);
    if (e == OK) e = conf_check(job, source, true, NULL, expanded, expanded_bytes, &empty);
    if (e == OK && !empty)
        e = conf_schema_load(job, source, NULL, expanded, expanded_bytes);
    free(expanded);
    return e;
}

err_t conf_file_load(struct conf_job *job, const char *path)
{
    struct text raw = {0};

    err_t e = file_read(job, path, &raw);
    if (e == OK) e = conf_file_load_text(job, path, raw.ptr, raw.bytes);
    free(raw.ptr);
    return e;
}
