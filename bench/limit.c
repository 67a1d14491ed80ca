#include "bench/limit.h"

#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"

enum { OPTIONS = 6 };

static void child(const struct limit_conf *conf, int in, int out)
{
    const char *names[OPTIONS] = {"--port", "--threads", "--receivers", "--payload-bytes",
                                  "--frames", "--send-milli"};
    uint32_t    values[OPTIONS] = {conf->port, conf->threads, conf->receivers,
                                   conf->payload_bytes, conf->frames, conf->send_milli};
    char        here[512], path[600], texts[OPTIONS][16];
    const char *argv[2 * OPTIONS + 2] = {path};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ssize_t n = readlink("/proc/self/exe", here, sizeof here - 1);
    if (n <= 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0) _exit(126);
    here[n] = 0;
    snprintf(path, sizeof path, "%s/limit_fanout", dirname(here));
    for (int i = 0; i < OPTIONS; i++) {
        snprintf(texts[i], sizeof texts[i], "%u", values[i]);
        argv[1 + 2 * i] = names[i];
        argv[2 + 2 * i] = texts[i];
    }
    bench_pin(conf->cpu);
    execv(path, (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* The next line of the child; it says little, so byte by byte will do. */
static void read_line(struct limit *l)
{
    uint32_t n = 0;
    while (n + 1 < sizeof l->line) {
        if (read(l->from_child, l->line + n, 1) != 1) bench_die("limit_fanout ended early");
        if (l->line[n] == '\n') break;
        n++;
    }
    l->line[n] = 0;
}

static void expect(struct limit *l, const char *word)
{
    read_line(l);
    if (strcmp(l->line, word) != 0) bench_die("limit_fanout: %s, not %s", l->line, word);
}

void limit_start(struct limit *l, const struct limit_conf *conf)
{
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) bench_die("no pipe");
    l->pid = fork();
    if (l->pid < 0) bench_die("cannot fork");
    if (l->pid == 0) child(conf, to[0], from[1]);
    close(to[0]);
    close(from[1]);
    l->to_child = to[1];
    l->from_child = from[0];
    for (uint32_t i = 0; i < conf->threads; i++) expect(l, "listening");
}

void limit_ready(struct limit *l)
{
    expect(l, "connected");
}

void limit_go(struct limit *l)
{
    if (write(l->to_child, "g", 1) != 1) bench_die("limit_fanout is gone");
}

void limit_wait(struct limit *l)
{
    read_line(l);
}

void limit_stop(struct limit *l)
{
    int status;
    close(l->to_child);
    close(l->from_child);
    waitpid(l->pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) bench_die("limit_fanout failed");
}
