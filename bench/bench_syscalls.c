/* bench_syscalls.c - what one publish to many subscribers costs, and what is not on its way.
 *
 * Method   One shard, --subs subscribers, one publisher with one request outstanding. --messages
 *          publishes are counted by the server's own counters (io_uring_enter calls, sends, frames)
 *          and again under `strace -c -f`, which sees every system call of every thread. Then the
 *          shard thread is sampled (perf record -e cpu-clock) while publishes run: no lock and no
 *          allocator may appear among its user-space symbols, and strace must have seen no futex
 *          call. A payload copy per subscriber would show as memcpy: its share is printed.
 * Needs    strace and perf; a part whose tool is missing is left out and says so.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/publish.h"
#include "bench/server.h"
#include "bench/subs.h"

enum { TEXT_BYTES = 1 << 20, ATTACH_NS = 700000000, THREAD_TRIES = 8 };

struct run {
    struct load   *load;
    struct subs    subs;
    struct publish publish;
};

static void on_item(void *ctx, uint32_t id, const struct wire_item *item)
{
    struct run *r = ctx;
    if (subs_owns(&r->subs, id)) subs_take(&r->subs, id, item);
    else publish_reply(&r->publish, id, item);
}

static void on_close(void *ctx, uint32_t id)
{
    (void)ctx;
    bench_die("connection %u was closed", id);
}

/* Publish `count` messages, each delivered to all before the next. */
static void publish_all(struct run *r, uint32_t count)
{
    char     data[PUBLISH_BYTES_MAX];
    uint64_t end = r->publish.sent + count;
    while (r->subs.frames < end * r->subs.count || r->publish.answered < end) {
        bool delivered = r->subs.frames == r->publish.sent * r->subs.count;
        if (r->publish.sent < end && delivered && publish_idle(&r->publish) >= 0) {
            subs_data(data, 100, 0, (uint32_t)r->publish.sent);
            publish_send(&r->publish, 0, "bench", data);
        }
        load_poll(r->load, 1000000);
    }
}

/* Starts a tool; its output (both streams) goes to a file. */
static pid_t tool_start(const char *const *argv, const char *output)
{
    pid_t pid = fork();
    if (pid < 0) bench_die("cannot fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0) _exit(126);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    return pid;
}

/* Ends it as a user would; false when it could not run at all. */
static bool tool_stop(pid_t pid, int signal)
{
    int status = 0;
    if (signal != 0) kill(pid, signal);
    waitpid(pid, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 127);
}

static char *file_text(const char *path)
{
    char *text = bench_calloc(1, TEXT_BYTES);
    int   fd = open(path, O_RDONLY);
    if (fd < 0) bench_die("cannot read %s", path);
    uint32_t have = 0;
    for (ssize_t n; (n = read(fd, text + have, TEXT_BYTES - 1 - have)) > 0;) have += (uint32_t)n;
    close(fd);
    return text;
}

static void count_by_metrics(struct run *r, const struct server *s, uint32_t messages)
{
    static const char *const names[] = {"sockudo_ring_enters_total", "sockudo_sends_total",
                                        "sockudo_send_frames_total", "sockudo_wakeups_total"};
    static const char *const labels[] = {"publish_ring_enters", "publish_sends", "publish_frames",
                                         "publish_wakeups"};
    double before[4];
    bench_sleep_ns(1500000000);                      /* ring counters are copied once a second */
    for (int i = 0; i < 4; i++) before[i] = server_metric(s, names[i]);
    publish_all(r, messages);
    bench_sleep_ns(1500000000);
    for (int i = 0; i < 4; i++) {
        bench_figure(labels[i], (server_metric(s, names[i]) - before[i]) / messages,
                     "per publish", BENCH_NOTE, 0);
    }
}

/* Calls of one kind in a table of `strace -c`: share, seconds, us/call, calls, [errors], name. */
static double strace_calls(const char *text, const char *name)
{
    for (const char *line = text; line != NULL && *line != 0; line = strchr(line, '\n')) {
        char          what[64] = "";
        unsigned long calls, errors;
        if (*line == '\n') line++;
        if (sscanf(line, "%*f %*f %*u %lu %lu %63s", &calls, &errors, what) == 3 ||
            sscanf(line, "%*f %*f %*u %lu %63s", &calls, what) == 2) {
            if (strcmp(what, name) == 0) return (double)calls;
        }
    }
    return 0;
}

static void count_by_strace(struct run *r, const struct server *s, uint32_t messages)
{
    char        pid[16], output[96];
    const char *argv[] = {"strace", "-c", "-f", "-p", pid, NULL};
    snprintf(pid, sizeof pid, "%d", s->pid);
    snprintf(output, sizeof output, "%s/strace", s->dir);

    pid_t tool = tool_start(argv, output);
    bench_sleep_ns(ATTACH_NS);
    publish_all(r, messages);
    if (!tool_stop(tool, SIGINT)) {
        printf("note: no strace here; its part is left out\n");
        return;
    }
    char *text = file_text(output);
    printf("strace -c -f, %u publishes:\n%s", messages, text);
    bench_figure("publish_syscalls", strace_calls(text, "total") / messages, "per publish",
                 BENCH_NOTE, 0);
    bench_figure("publish_futex_calls", strace_calls(text, "futex"), "in all", BENCH_AT_MOST, 0);
    free(text);
}

/* Percent of samples in symbols whose name contains one of the words; lines are "12.34%  name". */
static double profile_share(const char *text, const char *const *words)
{
    double share = 0;
    char  *copy = strdup(text), *rest = copy;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        double percent;
        if (*line == '#' || sscanf(line, " %lf%%", &percent) != 1) continue;
        for (int i = 0; words[i] != NULL; i++) {
            if (strstr(line, words[i]) == NULL) continue;
            printf("  %s\n", line);
            share += percent;
            break;
        }
    }
    free(copy);
    return share;
}

static void profile(struct run *r, const struct server *s, uint32_t messages)
{
    static const char *const locks[] = {"futex", "mutex_lock", "pthread_", "lll_lock", NULL};
    static const char *const allocs[] = {"malloc", "calloc", "realloc", "cfree", "_int_free",
                                         "brk", "mmap", NULL};
    static const char *const heaps[] = {"heap_", NULL};       /* the shard's own pool */
    static const char *const copies[] = {"memcpy", "memmove", NULL};
    char        tid[16], data[96], output[96], report[96];
    snprintf(tid, sizeof tid, "%d", server_thread(s->pid, bench_arg_text("thread", "shard")));
    snprintf(data, sizeof data, "%s/perf.data", s->dir);
    snprintf(output, sizeof output, "%s/perf.out", s->dir);
    snprintf(report, sizeof report, "%s/perf.report", s->dir);
    const char *record[] = {"perf", "record", "-e", "cpu-clock:u", "-F", "4000", "-o", data, "-t",
                            tid, NULL};
    const char *print[] = {"perf", "report", "-i", data, "--stdio", "-F",
                           "overhead,symbol", "-g", "none", NULL};

    if (atoi(tid) == 0) bench_die("no shard thread found");
    pid_t tool = tool_start(record, output);
    bench_sleep_ns(ATTACH_NS);
    publish_all(r, messages);
    bool ran = tool_stop(tool, SIGINT);
    if (!ran || !tool_stop(tool_start(print, report), 0)) {
        printf("note: no perf here; its part is left out\n");
        return;
    }
    char *text = file_text(report);
    if (strstr(text, "%") == NULL) bench_die("perf saw no sample: %s", text);
    printf("user-space samples of the shard thread, by symbol:\n%.1800s\n", text);
    bench_figure("publish_lock_samples", profile_share(text, locks), "% of user samples",
                 BENCH_AT_MOST, 0);
    bench_figure("publish_alloc_samples", profile_share(text, allocs), "% of user samples",
                 BENCH_AT_MOST, 0);
    bench_figure("publish_pool_samples", profile_share(text, heaps), "% of user samples",
                 BENCH_NOTE, 0);
    bench_figure("publish_copy_samples", profile_share(text, copies), "% of user samples",
                 BENCH_NOTE, 0);
    free(text);
}

int main(int argc, char **argv)
{
    struct server server;
    struct run    r = {0};

    bench_open(argc, argv, "subs,messages,thread", 300);
    uint32_t subs = (uint32_t)bench_arg("subs", 1000);
    uint32_t messages = (uint32_t)bench_arg("messages", 300);

    bench_pin(1);
    server_start(&server, 1, 0, NULL);
    struct load_conf conf = {.port = server.port, .conns_max = subs + 1, .recv_bytes = 4096,
                             .ctx = &r, .on_item = on_item, .on_close = on_close};
    load_open(&r.load, &conf);
    subs_open(&r.subs, r.load, 0, subs, 1);
    load_fill(r.load, LOAD_WS, 0, subs, 256);
    subs_join(&r.subs, "bench");
    publish_open(&r.publish, r.load, subs, 1);
    publish_all(&r, 50);

    count_by_metrics(&r, &server, messages);
    count_by_strace(&r, &server, messages);
    profile(&r, &server, 4 * messages);
    bench_figure("publish_delivered", (double)r.subs.frames / subs, "messages to each",
                 BENCH_EXACT, (double)r.publish.sent);
    server_stop(&server);
    return bench_close();
}
