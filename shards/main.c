/* The process: configuration, log, server; the rest is a list in server.c. */
#include "proto/origin.h"
#include "shards/server.h"

#include <signal.h>
#include <sodium.h>
#include <stdio.h>

/* What core cannot check, because it knows no protocol. */
static bool check_origins(const char *what, char **patterns, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (origin_pattern_valid(slice_str(patterns[i]))) continue;
        fprintf(stderr, "weft: %s: \"%s\" is not an origin pattern: expected a scheme://host, a "
                        "host, *.host, one * or any\n", what, patterns[i]);
        return false;
    }
    return true;
}

static bool check(const struct conf *c)
{
    for (uint32_t i = 0; i < c->apps_count; i++) {
        const struct conf_app *a = &c->apps[i];
        if (!check_origins("allowed_origins", a->allowed_origins, a->allowed_origins_count)) {
            return false;
        }
    }
    return check_origins("cors.origin", c->cors_origins, c->cors_origins_count);
}

static enum log_level level_of(const char *name)
{
    static const char *const names[] = {"error", "warn", "info", "debug", "trace"};
    for (uint32_t i = 0; i < 5; i++) {
        if (strcmp(names[i], name) == 0) return (enum log_level)i;
    }
    return LOG_INFO;
}

static void greet(const struct server_run *r)
{
    const struct conf *c = r->server.conf;
    if (c->builtin_app) {
        LOG(LOG_WARN, "no app is configured: serving the built-in app app-id, whose key and secret "
                      "everybody knows; configure app_manager.array.apps");
    }
    printf("weft serves WebSocket and HTTP on %s:%u, %u shard%s\n", c->host, r->port, c->shards,
           c->shards == 1 ? "" : "s");
    if (c->metrics_enabled) {
        printf("metrics on http://%s:%u/metrics\n", c->metrics_host, r->metrics_port);
    }
    printf("connect  ws://127.0.0.1:%u/app/%s?protocol=7\n", r->port, c->apps[0].key);
    printf("try      curl http://127.0.0.1:%u/up\n", r->port);
    fflush(stdout);
}

int main(int argc, char **argv, char **envp)
{
    static struct server_run run;
    static struct conf conf;
    enum conf_action action;
    char error[1024] = "";
    sigset_t set;
    if (conf_load(&conf, argc, argv, envp, &action, error, sizeof(error)) != OK) {
        fprintf(stderr, "weft: %s\n", error);
        return 1;
    }
    if (action == CONF_PRINTED) return 0;
    bool valid = check(&conf);
    if (!valid || action == CONF_CHECK) {
        if (valid) puts("configuration is valid");
        conf_free(&conf);
        return valid ? 0 : 1;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);                    /* a limit on files is a full disk: answered */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);      /* inherited: only server_wait takes them */
    struct log_conf log = {.level = level_of(conf.log_level), .json = conf.log_json};
    if (sodium_init() < 0 || log_open(&log) != OK) {
        fprintf(stderr, "weft: cannot start the log or libsodium\n");
        return 1;
    }
    log_thread_join("main");
    if (server_open(&run, &conf, error, sizeof(error)) != OK) {
        log_close();
        fprintf(stderr, "weft: %s\n", error);
        return 1;
    }
    greet(&run);
    server_wait(&run);
    server_close(&run);
    LOG(LOG_INFO, "stopped");
    log_close();
    conf_free(&conf);
    return 0;
}
