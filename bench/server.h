/* server.h - the process under test: started, watched through /proc and its metrics, ended.
 *
 * Shape    server_start returns once /up answers. What is read is the process's own: CPU time
 *          and memory from /proc, gauges and counters from its metrics port.
 * Threads  Any, for the readers.
 * Bounds   Ten seconds to start, ten to stop; the server dies with the program that started it.
 * Memory   Data lives in a directory of its own under /tmp, removed by server_stop.
 * Errors   All end the program: without its server a measurement is worth nothing.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { SERVER_ARGS_MAX = 48 };

struct server {
    pid_t    pid;
    uint16_t port, metrics_port;
    char     dir[64];
};

struct server_memory { uint64_t anon_bytes, rss_bytes; };

/* The binary is `--server`, else `weft` one folder above this program. Ports: `--port` and the next
 * one. `cpu`: the only core it may use, or -1. `extra`: more arguments, NULL at the end. */
void server_start(struct server *s, uint32_t shards, int cpu, const char *const *extra);
void server_stop(struct server *s);
/* Ends it by a signal and keeps its directory; starts it there again and returns once it answers
 * `path` with 200, with the time from the start until then. `path` may be made for that moment. */
void     server_end(struct server *s, int signal);
uint64_t server_again(struct server *s, uint32_t shards, int cpu, const char *const *extra,
                      const char *path);
/* `extra` of a server with history, versioned messages and recovery, and one lane. */
extern const char *const server_history[];

double   server_cpu_seconds(pid_t pid);            /* user and system, of all threads */
struct   server_memory server_memory(pid_t pid);
uint32_t server_descriptors(pid_t pid);            /* ordinary ones */
/* The thread whose name starts with `prefix`; 0 when there is none. */
pid_t    server_thread(pid_t pid, const char *prefix);

/* The sum over all series of one metric (`name` without labels); ends the program when absent. */
double   server_metric(const struct server *s, const char *name);
bool     server_has_metric(const struct server *s, const char *name);
/* Poll until the metric has the value; how long that took. Ends the program after ns_max. */
uint64_t server_wait_metric(const struct server *s, const char *name, double value,
                            uint64_t ns_max);
/* One request, one answer, connection closed: returns the status, fills body (0-terminated). */
uint32_t server_get(uint16_t port, const char *path, char *body, uint32_t body_bytes);
