/* log.c - a ring of finished lines per thread, one thread that writes them.
 *
 *   shard 0: format in place -> ring 0 --+
 *   shard 1: format in place -> ring 1 --+--> log thread: poll, then writev of at most PIPE_BUF
 *   lane 0:  ...             -> ring n --+
 *
 * The log thread sleeps in read() on an eventfd. It first says so in `asleep`; whoever queues a
 * line and finds the flag set clears it and writes the eventfd: one system call per sleep, none
 * per line. Poll before a write of at most PIPE_BUF bytes means that not even a pipe whose reader
 * has stopped can hold log_close for longer than CLOSE_WAIT_MS.
 */
#include "core/log.h"
#include "core/clock.h"

#include <ck_ring.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    CLOSE_WAIT_MS = 1000,            /* for a reader of stderr that has stopped reading */
    BATCH_LINES = 64,
    LOG_NAME_BYTES = 64,             /* a thread's name: the head of a line always fits */
    TAIL_BYTES = 8,                  /* kept free for the quotes, braces and newline at the end */
};

struct line {
    uint16_t bytes;
    char     text[LOG_LINE_BYTES - sizeof(uint16_t)];
};
static_assert(sizeof(struct line) == LOG_LINE_BYTES, "the bound counts the length too");
static_assert((LOG_QUEUE_LINES & (LOG_QUEUE_LINES - 1)) == 0, "ck_ring masks its index");

CK_RING_PROTOTYPE(line, line)

/* One per joined thread. The thread writes into the ring, the log thread reads from it. */
struct source {
    ck_ring_t        ring;
    struct source   *next;           /* set once, before it is published */
    const char      *name;
    _Atomic uint64_t dropped;        /* owning thread */
    uint64_t         dropped_told;   /* log thread */
    struct line      lines[LOG_QUEUE_LINES];
};

static _Atomic int      level_now = LOG_INFO;
static _Atomic bool     json_now;
static _Atomic uint64_t dropped_all;
static _Atomic uint32_t generation;  /* odd while open: a stale pointer to a source is seen */

static struct source *_Atomic sources;
static _Atomic bool asleep, closing;
static _Atomic bool deaf;            /* the reader of stderr had its second and did not read */
static pthread_t thread;
static int wake_fd = -1;

static _Thread_local struct source *own;
static _Thread_local uint32_t own_generation;
static _Thread_local const char *own_name;

/* ---- building a line ------------------------------------------------------------------------ */

/* Adds whole characters only and stops for good at the first that does not fit. */
struct out {
    struct line *line;
    bool         cut;
};

static void add(struct out *o, const char *text, size_t bytes)
{
    if (o->cut || o->line->bytes + bytes > sizeof(o->line->text) - TAIL_BYTES) {
        o->cut = true;
        return;
    }
    memcpy(o->line->text + o->line->bytes, text, bytes);
    o->line->bytes = (uint16_t)(o->line->bytes + bytes);
}

static void add_text(struct out *o, const char *text)
{
    add(o, text, strlen(text));
}

/* Fits always: the tail is kept for it. */
static void add_tail(struct out *o, const char *text)
{
    size_t bytes = strlen(text);

    ASSERT(o->line->bytes + bytes <= sizeof(o->line->text));
    memcpy(o->line->text + o->line->bytes, text, bytes);
    o->line->bytes = (uint16_t)(o->line->bytes + bytes);
}

/* Bytes of the UTF-8 character at p; 0 when it is none (RFC 3629). */
static size_t utf8_bytes(const unsigned char *p)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3
             : p[0] < 0xf5 ? 4 : 0;

    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (p[0] == 0xe0 && p[1] < 0xa0) return 0;
    if (p[0] == 0xed && p[1] > 0x9f) return 0;
    if (p[0] == 0xf0 && p[1] < 0x90) return 0;
    if (p[0] == 0xf4 && p[1] > 0x8f) return 0;
    return n;
}

/* As inside a JSON string (RFC 8259 7). The text form uses it too: a line stays a line. */
static void add_escaped(struct out *o, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;

    while (*p != '\0' && !o->cut) {
        size_t n = utf8_bytes(p);
        if (n == 0) {
            add(o, "\\ufffd", 6);
            n = 1;
        } else if (*p == '"' || *p == '\\') {
            add(o, (char[]){'\\', (char)*p}, 2);
        } else if (*p < 0x20 || *p == 0x7f) {
            char code[8];
            snprintf(code, sizeof(code), "\\u%04x", *p);
            add(o, code, 6);
        } else {
            add(o, (const char *)p, n);
        }
        p += n;
    }
}

/* 2026-01-31T23:59:58.123Z, from Unix milliseconds (days to date after the proleptic Gregorian
 * calendar; gmtime_r would take a lock). */
static void add_time(struct out *o, uint64_t ms)
{
    uint64_t seconds = ms / 1000, days = seconds / 86400 + 719468;
    uint32_t of_day = (uint32_t)(seconds % 86400);
    uint64_t era = days / 146097, of_era = days % 146097;
    uint64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t shifted = (5 * of_year + 2) / 153;             /* months since March */
    uint64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
    uint64_t year = year_of_era + era * 400 + (month <= 2);
    char text[64];

    snprintf(text, sizeof(text), "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)year,
             (unsigned)month, (unsigned)(of_year - (153 * shifted + 2) / 5 + 1), of_day / 3600,
             of_day / 60 % 60, of_day % 60, (unsigned)(ms % 1000));
    add_text(o, text);
}

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_ERROR: return "ERROR";
    case LOG_WARN: return "WARN";
    case LOG_INFO: return "INFO";
    case LOG_DEBUG: return "DEBUG";
    case LOG_TRACE: return "TRACE";
    }
    return "UNKNOWN";
}

/* "key":"value", one unit: a key whose start does not fit is left out whole. */
static void add_json_field(struct out *o, bool first, const char *key, const char *value)
{
    uint16_t before = o->line->bytes;

    add_text(o, first ? "\"" : ",\"");
    add_escaped(o, key);
    add_text(o, "\":\"");
    if (o->cut) {
        o->line->bytes = before;
        return;
    }
    add_escaped(o, value);
    add_tail(o, "\"");               /* at most one such tail: the cut ends the list */
}

static void add_json(struct out *o, enum log_level level, const char *message, va_list fields)
{
    add_text(o, "{\"timestamp\":\"");
    add_time(o, clock_wall_ms());
    add_text(o, "\",\"level\":\"");
    add_text(o, level_name(level));
    add_text(o, "\",\"target\":\"weft\",\"span\":{");
    if (own_name != NULL) add_json_field(o, true, "thread", own_name);
    add_text(o, "},\"fields\":{");
    add_json_field(o, true, "message", message);
    for (const char *key; !o->cut && (key = va_arg(fields, const char *)) != NULL;) {
        const char *value = va_arg(fields, const char *);
        add_json_field(o, false, key, value != NULL ? value : "");
    }
    add_tail(o, "}}\n");
}

/* A value is quoted when it could be mistaken for more than one word. */
static void add_text_field(struct out *o, const char *key, const char *value)
{
    bool quote = value[0] == '\0';

    for (const unsigned char *p = (const unsigned char *)value; *p != '\0' && !quote; p++)
        quote = *p <= ' ' || *p == '"' || *p == '=' || *p == '\\' || *p == 0x7f;
    add_text(o, " ");
    add_escaped(o, key);
    add_text(o, quote ? "=\"" : "=");
    bool opened = quote && !o->cut;
    add_escaped(o, value);
    if (opened) add_tail(o, "\"");
}

static void add_human(struct out *o, enum log_level level, const char *message, va_list fields)
{
    add_time(o, clock_wall_ms());
    add_text(o, " ");
    add_text(o, level_name(level));
    add_text(o, " ");
    add_escaped(o, message);
    for (const char *key; !o->cut && (key = va_arg(fields, const char *)) != NULL;) {
        const char *value = va_arg(fields, const char *);
        add_text_field(o, key, value != NULL ? value : "");
    }
    if (own_name != NULL && !o->cut) add_text_field(o, "thread", own_name);
    add_tail(o, o->cut ? "...\n" : "\n");
}

static void line_build(struct line *l, enum log_level level, const char *message, va_list fields)
{
    struct out o = {.line = l};

    l->bytes = 0;
    if (atomic_load_explicit(&json_now, memory_order_relaxed))
        add_json(&o, level, message, fields);
    else
        add_human(&o, level, message, fields);
}

/* ---- the log thread ------------------------------------------------------------------------- */

/* Gathers lines[first..] from byte `offset` on, at most PIPE_BUF bytes: after poll such a write
 * does not wait. Returns how many parts. */
static int lines_gather(struct line *lines, uint32_t first, uint32_t count, size_t offset,
                        struct iovec part[BATCH_LINES])
{
    size_t bytes = 0;
    int parts = 0;

    for (uint32_t k = first; k < count && parts < BATCH_LINES; k++, offset = 0) {
        size_t rest = lines[k].bytes - offset;
        if (bytes + rest > PIPE_BUF) break;
        part[parts++] = (struct iovec){lines[k].text + offset, rest};
        bytes += rest;
    }
    return parts;
}

/* While the server runs, a reader that is slow holds this up, queues fill and lines are dropped
 * and counted. Once closing, it gets one second in all. */
static void lines_write(struct line *lines, uint32_t count)
{
    struct iovec part[BATCH_LINES];
    size_t offset = 0;                                  /* written already, of lines[i] */

    for (uint32_t i = 0; i < count;) {
        struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
        bool last_chance = atomic_load(&closing);
        int ready = poll(&p, 1, atomic_load(&deaf) ? 0 : CLOSE_WAIT_MS);

        if (ready == 0 && last_chance) {
            atomic_store(&deaf, true);
            atomic_fetch_add(&dropped_all, count - i);
            return;
        }
        if (ready == 0) continue;
        ssize_t n = writev(STDERR_FILENO, part, lines_gather(lines, i, count, offset, part));
        if (n < 0 && (errno == EINTR || errno == EAGAIN) && !last_chance) continue;
        if (n < 0) {                                    /* there is no one left to tell */
            atomic_fetch_add(&dropped_all, count - i);
            return;
        }
        for (offset += (size_t)n; i < count && offset >= lines[i].bytes; i++)
            offset -= lines[i].bytes;
    }
}

static void dropped_tell(struct source *s)
{
    uint64_t dropped = atomic_load_explicit(&s->dropped, memory_order_relaxed);
    char count[24];

    if (dropped == s->dropped_told) return;
    snprintf(count, sizeof(count), "%llu", (unsigned long long)(dropped - s->dropped_told));
    s->dropped_told = dropped;
    LOG(LOG_WARN, "log lines dropped", "count", count, "from", s->name);
}

/* True when a line was found. */
static bool sources_drain(void)
{
    struct line batch[BATCH_LINES];
    bool found = false;

    for (struct source *s = atomic_load(&sources); s != NULL; s = s->next) {
        for (;;) {
            uint32_t count = 0;
            while (count < BATCH_LINES
                   && ck_ring_dequeue_spsc_line(&s->ring, s->lines, &batch[count]))
                count++;
            if (count == 0) break;
            found = true;
            lines_write(batch, count);
            if (count < BATCH_LINES) break;
        }
        dropped_tell(s);
    }
    return found;
}

static void *thread_run(void *unused)
{
    uint64_t wakes;

    own_name = "log";
    for (;;) {
        bool last = atomic_load(&closing);              /* before the drain: nothing comes after */
        if (sources_drain()) continue;
        if (last) return unused;
        atomic_store(&asleep, true);                    /* seq_cst: pairs with wake() */
        if (sources_drain() || atomic_load(&closing)) {
            atomic_store(&asleep, false);
            continue;
        }
        if (read(wake_fd, &wakes, sizeof(wakes)) < 0 && errno != EINTR) return unused;
    }
}

static void wake(void)
{
    uint64_t one = 1;

    atomic_thread_fence(memory_order_seq_cst);          /* the line is queued before the look */
    if (!atomic_load_explicit(&asleep, memory_order_relaxed)) return;
    if (!atomic_exchange(&asleep, false)) return;
    if (write(wake_fd, &one, sizeof(one)) < 0) atomic_store(&asleep, true);
}

/* ---- life ----------------------------------------------------------------------------------- */

err_t log_open(const struct log_conf *conf)
{
    sigset_t all, before;

    ASSERT(atomic_load(&generation) % 2 == 0);
    atomic_store(&level_now, (int)conf->level);
    atomic_store(&json_now, conf->json);
    atomic_store(&closing, false);
    atomic_store(&deaf, false);
    atomic_store(&asleep, false);
    wake_fd = eventfd(0, EFD_CLOEXEC);
    if (wake_fd < 0) return ERR_IO;

    sigfillset(&all);                                   /* signals belong to main */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, thread_run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        close(wake_fd);
        wake_fd = -1;
        return ERR_IO;
    }
    pthread_setname_np(thread, "weft-log");
    atomic_fetch_add(&generation, 1);
    return OK;
}

void log_close(void)
{
    uint64_t one = 1;

    if (atomic_load(&generation) % 2 == 0) return;
    atomic_fetch_add(&generation, 1);                   /* from here lines are written directly */
    atomic_store(&closing, true);
    ssize_t n = write(wake_fd, &one, sizeof(one));
    ASSERT(n == sizeof(one));
    pthread_join(thread, NULL);
    close(wake_fd);
    wake_fd = -1;
    for (struct source *s = atomic_exchange(&sources, NULL); s != NULL;) {
        struct source *next = s->next;
        free(s);
        s = next;
    }
}

void log_thread_join(const char *name)
{
    uint32_t g = atomic_load(&generation);

    ASSERT(strlen(name) < LOG_NAME_BYTES);
    own_name = name;
    if (g % 2 == 0 || own_generation == g) return;      /* not open, or joined already */
    struct source *s = malloc(sizeof(*s));
    if (s == NULL) return;                              /* its lines are written directly */
    explicit_bzero(s, sizeof(*s));                      /* touched now: memory stays flat later */
    s->name = name;
    ck_ring_init(&s->ring, LOG_QUEUE_LINES);
    s->next = atomic_load(&sources);
    while (!atomic_compare_exchange_weak(&sources, &s->next, s)) continue;
    own = s;
    own_generation = g;
}

/* ---- every line ----------------------------------------------------------------------------- */

bool log_on(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&level_now, memory_order_relaxed);
}

static void line_drop(struct source *s)
{
    atomic_fetch_add_explicit(&s->dropped, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&dropped_all, 1, memory_order_relaxed);
}

void log_line(enum log_level level, const char *message, ...)
{
    bool joined = own != NULL
                  && own_generation == atomic_load_explicit(&generation, memory_order_relaxed);
    struct line direct, *l = &direct;
    va_list fields;

    if (joined) l = ck_ring_enqueue_reserve_spsc_line(&own->ring, own->lines);
    if (l == NULL) {
        line_drop(own);
        wake();
        return;
    }
    va_start(fields, message);
    line_build(l, level, message, fields);
    va_end(fields);
    if (joined) {
        ck_ring_enqueue_commit_spsc(&own->ring);
        wake();
    } else {
        lines_write(l, 1);
    }
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&dropped_all, memory_order_relaxed);
}
