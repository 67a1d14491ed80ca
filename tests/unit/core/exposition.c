#include "exposition.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* The histogram whose bucket lines are being read. */
struct run {
    char   key[1024];                  /* name and labels without le */
    double bound, total;
    bool   open, ended;                /* in its buckets; +Inf seen, _sum and _count outstanding */
};

struct reader {
    const char *at, *end;
    char        family[256], type[32];
    char      **samples;               /* owned */
    uint32_t    samples_count, samples_cap;
    struct run  run;
};

struct sample {
    char name[256], labels[1024];      /* labels without le, as printed */
    char le[64];
    char key[2048];                    /* name{labels} */
    double value;
};

__attribute__((noreturn)) static void refuse(const char *why, const char *line)
{
    fail_msg("%s: %.200s", why, line);
    abort();
}

static bool name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool name_char(char c) { return name_start(c) || (c >= '0' && c <= '9'); }

/* Copies a name and returns what follows it. */
static const char *name_read(const char *at, char *out, size_t out_bytes)
{
    size_t n = 0;

    if (!name_start(*at)) refuse("no name", at);
    while (name_char(*at)) {
        if (n + 1 >= out_bytes) refuse("name too long", at);
        out[n++] = *at++;
    }
    out[n] = '\0';
    return at;
}

/* at: the opening quote. Returns what follows the closing one. */
static const char *value_skip(const char *at)
{
    if (*at != '"') refuse("label value without quote", at);
    for (at++; *at != '"'; at++) {
        if (*at == '\n' || *at == '\0') refuse("open label value", at);
        if (*at != '\\') continue;
        at++;
        if (*at != '\\' && *at != '"' && *at != 'n') refuse("bad escape", at);
    }
    return at + 1;
}

static const char *labels_read(const char *at, struct sample *out)
{
    char   names[METRIC_LABELS_MAX + 4][256];
    size_t count = 0, n = 0;

    do {
        const char *start = ++at;      /* past '{' or ',' */
        if (count == METRIC_LABELS_MAX + 4) refuse("too many labels", at);
        at = name_read(at, names[count], sizeof(names[0]));
        for (size_t i = 0; i < count; i++) {
            if (strcmp(names[i], names[count]) == 0) refuse("label twice", at);
        }
        if (*at != '=') refuse("label without =", at);
        const char *value = at + 1;
        at = value_skip(value);
        if (strcmp(names[count], "le") == 0) {
            size_t bytes = (size_t)(at - value) - 2;
            if (bytes >= sizeof(out->le) || *at != '}') refuse("bad le", value);
            memcpy(out->le, value + 1, bytes);
            out->le[bytes] = '\0';
        } else {
            size_t bytes = (size_t)(at - start);
            if (n + bytes + 2 > sizeof(out->labels)) refuse("labels too long", start);
            if (n > 0) out->labels[n++] = ',';
            memcpy(out->labels + n, start, bytes);
            n += bytes;
        }
        count++;
    } while (*at == ',');
    if (*at != '}') refuse("labels without }", at);
    out->labels[n] = '\0';
    return at + 1;
}

static double number_read(const char *at, const char **rest)
{
    char *end;

    if (strncmp(at, "+Inf", 4) != 0 && *at != '-' && !(*at >= '0' && *at <= '9')) {
        refuse("no number", at);
    }
    double value = strtod(at, &end);
    *rest = end;
    return value;
}

static void sample_read(const char *line, struct sample *out)
{
    *out = (struct sample){0};
    const char *at = name_read(line, out->name, sizeof(out->name));
    if (*at == '{') at = labels_read(at, out);
    if ((size_t)(at - line) >= sizeof(out->key)) refuse("too long", line);
    memcpy(out->key, line, (size_t)(at - line));
    if (*at != ' ') refuse("no space before the value", line);
    out->value = number_read(at + 1, &at);
    if (*at != '\n') refuse("something after the value", line);
}

static void sample_remember(struct reader *r, const char *key)
{
    if (r->samples_count == r->samples_cap) {
        r->samples_cap = r->samples_cap * 2 + 64;
        r->samples = realloc(r->samples, r->samples_cap * sizeof(char *));
        assert_non_null(r->samples);
    }
    r->samples[r->samples_count++] = strdup(key);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void samples_check_unique(struct reader *r)
{
    qsort(r->samples, r->samples_count, sizeof(char *), by_text);
    for (uint32_t i = 0; i < r->samples_count; i++) {
        if (i > 0 && strcmp(r->samples[i - 1], r->samples[i]) == 0) {
            refuse("sample twice", r->samples[i]);
        }
    }
}

/* What follows the family's name: "", "_bucket", "_sum" or "_count". */
static const char *suffix_of(const struct reader *r, const struct sample *s)
{
    size_t n = strlen(r->family);

    if (n == 0 || strncmp(s->name, r->family, n) != 0) refuse("outside its family", s->key);
    return s->name + n;
}

static void bucket_check(struct reader *r, const struct sample *s)
{
    const char *rest;
    double      bound;

    if (s->le[0] == '\0') refuse("bucket without le", s->key);
    bound = number_read(s->le, &rest);
    if (*rest != '\0') refuse("bad le", s->key);
    if (!r->run.open) {
        if (r->run.ended) refuse("histogram without sum and count", s->key);
        snprintf(r->run.key, sizeof(r->run.key), "%s", s->labels);
        r->run.open = true;
        r->run.bound = -INFINITY;
        r->run.total = 0;
    }
    if (strcmp(r->run.key, s->labels) != 0) refuse("buckets of another series", s->key);
    if (!(bound > r->run.bound)) refuse("bounds do not rise", s->key);
    if (s->value < r->run.total) refuse("buckets are not cumulative", s->key);
    r->run.bound = bound;
    r->run.total = s->value;
    if (isinf(bound)) {
        r->run.open = false;
        r->run.ended = true;
    }
}

static void histogram_check(struct reader *r, const struct sample *s)
{
    const char *suffix = suffix_of(r, s);

    if (strcmp(suffix, "_bucket") == 0) {
        bucket_check(r, s);
        return;
    }
    if (s->le[0] != '\0' || !r->run.ended || strcmp(r->run.key, s->labels) != 0) {
        refuse("not after its buckets", s->key);
    }
    if (strcmp(suffix, "_sum") == 0) return;
    if (strcmp(suffix, "_count") != 0) refuse("unknown histogram line", s->key);
    if (s->value != r->run.total) refuse("count differs from +Inf", s->key);
    r->run.ended = false;
}

static void head_read(struct reader *r, const char *line)
{
    char name[256];

    if (r->run.open || r->run.ended) refuse("unfinished histogram", line);
    if (strncmp(line, "# HELP ", 7) != 0) refuse("comment that is no HELP", line);
    const char *at = name_read(line + 7, r->family, sizeof(r->family));
    if (*at != ' ') refuse("HELP without text", line);
    at = strchr(at, '\n') + 1;
    if (strncmp(at, "# TYPE ", 7) != 0) refuse("HELP without TYPE", line);
    at = name_read(at + 7, name, sizeof(name));
    if (*at != ' ' || strcmp(name, r->family) != 0) refuse("TYPE of another name", line);
    at = name_read(at + 1, r->type, sizeof(r->type));
    if (*at != '\n') refuse("TYPE with more", line);
    if (strcmp(r->type, "counter") != 0 && strcmp(r->type, "gauge") != 0 &&
        strcmp(r->type, "histogram") != 0) {
        refuse("unknown type", line);
    }
    char head[300];
    snprintf(head, sizeof(head), "# %s", r->family);
    sample_remember(r, head);          /* so that a family occurs once */
    r->at = at + 1;
}

uint32_t expo_check(const struct metric_text *text)
{
    struct reader r = {0};
    uint32_t      lines_count = 0;
    char         *copy = malloc(text->bytes + 1);

    assert_non_null(copy);
    memcpy(copy, text->ptr, text->bytes);
    copy[text->bytes] = '\0';
    if (text->bytes == 0 || copy[text->bytes - 1] != '\n') refuse("no last newline", copy);
    if (strlen(copy) != text->bytes) refuse("a zero byte", copy);

    r.at = copy;
    r.end = copy + text->bytes;
    while (r.at < r.end) {
        struct sample s;
        if (*r.at == '#') {
            head_read(&r, r.at);
            continue;
        }
        sample_read(r.at, &s);
        sample_remember(&r, s.key);
        if (strcmp(r.type, "histogram") == 0) {
            histogram_check(&r, &s);
        } else if (*suffix_of(&r, &s) != '\0') {
            refuse("outside its family", s.key);
        }
        r.at = strchr(r.at, '\n') + 1;
        lines_count++;
    }
    if (r.run.open || r.run.ended) refuse("unfinished histogram", "end");
    samples_check_unique(&r);
    for (uint32_t i = 0; i < r.samples_count; i++) free(r.samples[i]);
    free(r.samples);
    free(copy);
    return lines_count;
}

/* Points behind the sample's space, or NULL. */
static const char *sample_find(const struct metric_text *text, const char *sample)
{
    size_t      n = strlen(sample);
    const char *end = text->ptr + text->bytes;

    for (const char *at = text->ptr; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if ((size_t)(newline - at) > n && memcmp(at, sample, n) == 0 && at[n] == ' ') {
            return at + n + 1;
        }
        at = newline + 1;
    }
    return NULL;
}

bool expo_has(const struct metric_text *text, const char *sample)
{
    return sample_find(text, sample) != NULL;
}

double expo_value(const struct metric_text *text, const char *sample)
{
    const char *at = sample_find(text, sample);

    if (at == NULL) refuse("no such sample", sample);
    return strtod(at, NULL);           /* a newline follows: the text never ends in the number */
}
