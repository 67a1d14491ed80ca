#include "store/check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/check_parts.h"

enum { PATH_BYTES = 4096, IDENTITY_BYTES = 128 };

/* ---- in the child ---- */

void *check_need(void *ptr, size_t count, size_t size)
{
    void *grown = reallocarray(ptr, count, size);
    if (grown == NULL) _exit(ENOMEM);
    return grown;
}

static void say(struct check *c, char kind, const char *format, va_list args)
{
    char line[CHECK_LINE_BYTES];
    line[0] = kind;
    int n = vsnprintf(line + 1, sizeof line - 2, format, args);
    size_t bytes = n < 0 ? 1 : (size_t)n + 1;
    if (bytes > sizeof line - 2) bytes = sizeof line - 2;
    line[bytes++] = '\n';
    for (size_t at = 0; at < bytes;) {
        ssize_t wrote = write(c->fd, line + at, bytes - at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) _exit(EPIPE);
        at += (size_t)wrote;
    }
}

void check_say(struct check *c, char kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(c, kind, format, args);
    va_end(args);
}

void check_find(struct check *c, const char *format, ...)
{
    va_list args;
    c->findings++;
    if (c->findings > CHECK_FINDINGS_MAX) return;
    va_start(args, format);
    say(c, 'F', format, args);
    va_end(args);
}

/* ---- in the parent ---- */

struct parent {
    check_line line;
    void      *ctx;
    uint32_t   lane;
    uint64_t   findings, unlisted;
    bool       cannot;
    char       identity[IDENTITY_BYTES];  /* of lane 0; all lanes must agree */
};

__attribute__((format(printf, 2, 3))) static void tell(const struct parent *p, const char *format,
                                                       ...)
{
    char line[CHECK_LINE_BYTES + 64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    p->line(p->ctx, line);
}

static void hear(struct parent *p, char *line)
{
    switch (line[0]) {
    case 'F':
        p->findings++;
        tell(p, "lane-%02u: %s", p->lane, line + 1);
        break;
    case 'T': tell(p, "lane-%02u: %s", p->lane, line + 1); break;
    case 'C':
        p->cannot = true;
        tell(p, "lane-%02u: %s", p->lane, line + 1);
        break;
    case 'U': p->unlisted += strtoull(line + 1, NULL, 10); break;
    case 'I':
        if (p->identity[0] == 0) (void)snprintf(p->identity, sizeof p->identity, "%s", line + 1);
        if (strcmp(p->identity, line + 1) == 0) break;
        p->findings++;
        tell(p, "lane-%02u: belongs to another store than the lanes before it", p->lane);
        break;
    default: ASSERT(false);
    }
}

/* Lines until the child has closed its end. */
static void hear_all(struct parent *p, int fd)
{
    char buffer[4 * CHECK_LINE_BYTES];
    size_t have = 0;
    for (;;) {
        ssize_t got = read(fd, buffer + have, sizeof buffer - have);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return;
        have += (size_t)got;
        char *start = buffer, *end;
        while ((end = memchr(start, '\n', have - (size_t)(start - buffer))) != NULL) {
            *end = 0;
            hear(p, start);
            start = end + 1;
        }
        have -= (size_t)(start - buffer);
        memmove(buffer, start, have);
        if (have == sizeof buffer) have = 0;   /* no line is that long */
    }
}

static void child(const char *dir, uint32_t index, int fd, void (*body)(struct check *c))
{
    char path[PATH_BYTES];
    struct check c = {.path = path, .index = index, .fd = fd};
    (void)snprintf(path, sizeof path, "%s/lane-%02u", dir, index);
    static const int ends[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (uint32_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        (void)signal(ends[i], SIG_DFL);  /* a handler of the parent's is not for this */
    }
    body(&c);
    if (c.findings > CHECK_FINDINGS_MAX) {
        check_say(&c, 'U', "%llu", (unsigned long long)(c.findings - CHECK_FINDINGS_MAX));
    }
    _exit(0);
}

/* False: no child could be made. */
static bool run_lane(struct parent *p, const char *dir, uint32_t index,
                     void (*body)(struct check *c))
{
    int fds[2], status = 0;
    p->lane = index;
    if (pipe2(fds, O_CLOEXEC) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(fds[0]);
        child(dir, index, fds[1], body);
    }
    (void)close(fds[1]);
    if (pid < 0) {
        (void)close(fds[0]);
        return false;
    }
    hear_all(p, fds[0]);
    (void)close(fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFSIGNALED(status)) {
        p->findings++;
        tell(p, "lane-%02u: the tree of pages is damaged: reading it ended with signal %d (%s)",
             index, WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) == ENOMEM) {
        tell(p, "lane-%02u: not enough memory to go on", index);
        return false;
    } else if (WEXITSTATUS(status) != 0) {
        p->findings++;
        tell(p, "lane-%02u: the tree of pages is damaged: reading it ended with code %d", index,
             WEXITSTATUS(status));
    }
    return true;
}

/* ---- the directory ---- */

static bool has_lane(const char *dir, uint32_t index)
{
    char path[PATH_BYTES];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/lane-%02u", dir, index);
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The lock that a server holds; *fd is -1 where none ever ran. */
static bool lock(const struct parent *p, const char *dir, int *fd)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/lock", dir);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT) return true;
    if (*fd >= 0 && flock(*fd, LOCK_EX | LOCK_NB) == 0) return true;
    if (*fd < 0) {
        tell(p, "%s: %s", path, strerror(errno));
    } else {
        tell(p, "%s is in use by a running server: stop it first", dir);
        (void)close(*fd);
    }
    return false;
}

static enum check_verdict run(const char *dir, check_line line, void *ctx,
                              void (*body)(struct check *c))
{
    struct parent p = {.line = line, .ctx = ctx};
    enum check_verdict verdict = CHECK_SOUND;
    uint32_t lanes = 0, said = 0;
    int fd;

    if (!has_lane(dir, 0) && !has_lane(dir, 1)) {
        tell(&p, "%s holds no store: there is no lane-00 in it", dir);
        return CHECK_CANNOT;
    }
    if (!lock(&p, dir, &fd)) return CHECK_CANNOT;
    for (uint32_t i = 0; i < STORE_LANES_MAX && verdict != CHECK_CANNOT; i++) {
        if (!has_lane(dir, i)) continue;
        lanes = i + 1;
        if (!run_lane(&p, dir, i, body) || p.cannot) verdict = CHECK_CANNOT;
    }
    const char *count = strstr(p.identity, "lanes ");
    if (count != NULL) said = (uint32_t)strtoul(count + strlen("lanes "), NULL, 10);
    for (uint32_t i = 0; said > 0 && i < u32_max(lanes, said) && i < STORE_LANES_MAX; i++) {
        if (has_lane(dir, i) && i < said) continue;
        p.findings++;
        tell(&p, "lane-%02u: %s", i, i < said ? "missing" : "one lane too many");
    }
    if (p.unlisted > 0) tell(&p, "%llu more findings", (unsigned long long)p.unlisted);
    if (fd >= 0) (void)close(fd);
    if (verdict == CHECK_SOUND && p.findings > 0) verdict = CHECK_DAMAGED;
    return verdict;
}

enum check_verdict check_run(const char *dir, check_line line, void *ctx)
{
    return run(dir, line, ctx, check_lane);
}

enum check_verdict check_stat(const char *dir, check_line line, void *ctx)
{
    return run(dir, line, ctx, check_stat_lane);
}
