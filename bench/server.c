#include "bench/server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"

enum { START_TRIES = 200, STOP_TRIES = 1000, TRY_NS = 50000000, STOP_TRY_NS = 10000000,
       WAIT_TRY_NS = 20000000, AGAIN_TRY_NS = 2000000, AGAIN_TRIES = 15000,
       BODY_BYTES = 1 << 20 };

const char *const server_history[] = {
    "--set", "history.enabled=true", "--set", "versioned_messages.enabled=true",
    "--set", "connection_recovery.enabled=true", "--set", "history.lanes=1", NULL};

static const char *binary(char *out, uint32_t bytes)
{
    char    here[512];
    ssize_t n = readlink("/proc/self/exe", here, sizeof here - 1);
    if (n <= 0) bench_die("cannot find this program");
    here[n] = 0;
    snprintf(out, bytes, "%s/../weft", dirname(here));
    return bench_arg_text("server", out);
}

static void child(const struct server *s, const char *path, uint32_t shards, int cpu,
                  const char *const *extra)
{
    char        texts[3][16], log[96];
    const char *argv[SERVER_ARGS_MAX] = {path};
    uint32_t    n = 1;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(texts[0], sizeof texts[0], "%u", s->port);
    snprintf(texts[1], sizeof texts[1], "%u", s->metrics_port);
    snprintf(texts[2], sizeof texts[2], "%u", shards);
    const char *own[] = {"--port", texts[0], "--metrics-port", texts[1], "--shards", texts[2],
                         "--data-dir", s->dir};
    for (uint32_t i = 0; i < sizeof own / sizeof *own; i++) argv[n++] = own[i];
    const char *const *lists[] = {bench_arg("history", 0) != 0 ? server_history : NULL, extra};
    for (uint32_t k = 0; k < 2; k++) {
        for (uint32_t i = 0; lists[k] != NULL && lists[k][i] != NULL; i++) {
            if (n + 1 == SERVER_ARGS_MAX) _exit(126);
            argv[n++] = lists[k][i];
        }
    }
    bench_pin(cpu);

    snprintf(log, sizeof log, "%s/log", s->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0) _exit(126);
    execv(path, (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void die_with_log(const struct server *s, const char *what)
{
    char log[96], text[4096];
    snprintf(log, sizeof log, "%s/log", s->dir);
    int     fd = open(log, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    bench_die("%s; its log begins:\n%s", what, text);
}

static void launch(struct server *s, const char *program, uint32_t shards, int cpu,
                   const char *const *extra)
{
    s->pid = fork();
    if (s->pid < 0) bench_die("fork: %s", strerror(errno));
    if (s->pid == 0) child(s, program, shards, cpu, extra);
}

void server_start(struct server *s, uint32_t shards, int cpu, const char *const *extra)
{
    char path[600], body[256];
    *s = (struct server){.dir = "/tmp/weft-bench-XXXXXX"};
    s->port = (uint16_t)bench_arg("port", 6101);
    s->metrics_port = (uint16_t)(s->port + 1);
    if (mkdtemp(s->dir) == NULL) bench_die("cannot make a directory under /tmp");

    launch(s, binary(path, sizeof path), shards, cpu, extra);
    for (uint32_t i = 0; i < START_TRIES; i++) {
        int status;
        if (waitpid(s->pid, &status, WNOHANG) != 0) die_with_log(s, "the server ended at once");
        if (server_get(s->port, "/up", body, sizeof body) == 200) return;
        bench_sleep_ns(TRY_NS);
    }
    die_with_log(s, "the server does not answer /up");
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st, (void)kind, (void)walk;
    return remove(path);
}

uint64_t server_again(struct server *s, uint32_t shards, int cpu, const char *const *extra,
                      const char *path)
{
    char     program[600], body[4096];
    uint64_t start_ns = bench_now_ns();

    launch(s, binary(program, sizeof program), shards, cpu, extra);
    for (uint32_t i = 0; i < AGAIN_TRIES; i++) {
        int status;
        if (waitpid(s->pid, &status, WNOHANG) != 0) die_with_log(s, "the server ended at once");
        if (server_get(s->port, path, body, sizeof body) == 200) return bench_now_ns() - start_ns;
        bench_sleep_ns(AGAIN_TRY_NS);
    }
    die_with_log(s, "the server does not answer");
    return 0;
}

void server_end(struct server *s, int signal)
{
    int status = 0;

    kill(s->pid, signal);
    for (uint32_t i = 0; i < STOP_TRIES; i++) {
        if (waitpid(s->pid, &status, WNOHANG) != 0) break;
        if (i + 1 == STOP_TRIES) {
            printf("note: the server did not stop within 10 s and was killed\n");
            kill(s->pid, SIGKILL);
            waitpid(s->pid, &status, 0);
            status = 0;
        }
        bench_sleep_ns(STOP_TRY_NS);
    }
    if (WIFSIGNALED(status) && signal != SIGKILL) die_with_log(s, "the server died of a signal");
    s->pid = 0;
}

void server_stop(struct server *s)
{
    server_end(s, SIGTERM);
    nftw(s->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* All of a small file, 0-terminated. */
static void read_file(const char *path, char *out, uint32_t bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) bench_die("%s: %s", path, strerror(errno));
    uint32_t have = 0;
    for (;;) {
        ssize_t n = read(fd, out + have, bytes - 1 - have);
        if (n <= 0) break;
        have += (uint32_t)n;
    }
    out[have] = 0;
    close(fd);
}

double server_cpu_seconds(pid_t pid)
{
    char     path[64], text[1024];
    uint64_t user, system;

    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    read_file(path, text, sizeof text);
    const char *after_name = strrchr(text, ')');
    if (after_name == NULL || sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
                                     "%lu %lu", &user, &system) != 2) {
        bench_die("%s: unknown form", path);
    }
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static uint64_t status_kib(const char *text, const char *name)
{
    const char *p = strstr(text, name);
    if (p == NULL) bench_die("/proc status without %s", name);
    return strtoull(p + strlen(name), NULL, 10);
}

struct server_memory server_memory(pid_t pid)
{
    char path[64], text[8192];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    read_file(path, text, sizeof text);
    return (struct server_memory){status_kib(text, "RssAnon:") << 10,
                                  status_kib(text, "VmRSS:") << 10};
}

uint32_t server_descriptors(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *d = opendir(path);
    if (d == NULL) bench_die("%s: %s", path, strerror(errno));
    uint32_t count = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

pid_t server_thread(pid_t pid, const char *prefix)
{
    char path[352], text[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR  *d = opendir(path);
    pid_t found = 0;
    if (d == NULL) bench_die("%s: %s", path, strerror(errno));
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/comm", pid, e->d_name);
        read_file(path, text, sizeof text);
        if (strncmp(text, prefix, strlen(prefix)) == 0) found = (pid_t)atoi(e->d_name);
    }
    closedir(d);
    return found;
}

uint32_t server_get(uint16_t port, const char *path, char *body, uint32_t body_bytes)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(0x7f000001)};
    struct timeval     limit = {5, 0};
    char               request[1024];
    uint32_t           have = 0, status = 0;
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    body[0] = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", path);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 &&
        send(fd, request, (size_t)n, MSG_NOSIGNAL) == n) {
        for (ssize_t got; have + 1 < body_bytes; have += (uint32_t)got) {
            got = recv(fd, body + have, body_bytes - 1 - have, 0);
            if (got <= 0) break;
        }
        body[have] = 0;
        if (sscanf(body, "HTTP/1.1 %u", &status) != 1) status = 0;
        const char *end = strstr(body, "\r\n\r\n");
        if (end != NULL) memmove(body, end + 4, strlen(end + 4) + 1);
    }
    close(fd);
    return status;
}

static bool metric_sum(const struct server *s, const char *name, double *sum)
{
    char  *text = bench_calloc(1, BODY_BYTES);
    size_t name_bytes = strlen(name);
    bool   found = false;

    if (server_get(s->metrics_port, "/metrics", text, BODY_BYTES) != 200) {
        bench_die("the metrics port does not answer");
    }
    *sum = 0;
    for (char *line = text; line != NULL && *line != 0; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, name, name_bytes) != 0) continue;
        if (line[name_bytes] != '{' && line[name_bytes] != ' ') continue;
        char *value = line + strcspn(line, "}\n");
        value = *value == '}' ? value + 1 : line + name_bytes;
        *sum += strtod(value, NULL);
        found = true;
    }
    free(text);
    return found;
}

bool server_has_metric(const struct server *s, const char *name)
{
    double ignored;
    return metric_sum(s, name, &ignored);
}

double server_metric(const struct server *s, const char *name)
{
    double sum;
    if (!metric_sum(s, name, &sum)) bench_die("the server has no metric %s", name);
    return sum;
}

uint64_t server_wait_metric(const struct server *s, const char *name, double value,
                            uint64_t ns_max)
{
    uint64_t start_ns = bench_now_ns();
    for (;;) {
        double now = server_metric(s, name);
        if (now == value) return bench_now_ns() - start_ns;
        if (bench_now_ns() - start_ns > ns_max) {
            bench_die("%s is %.0f, not %.0f, after %.1f s", name, now, value, (double)ns_max / 1e9);
        }
        bench_sleep_ns(WAIT_TRY_NS);
    }
}
