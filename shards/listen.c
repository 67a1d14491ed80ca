#include "shards/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LISTEN_TRIES = 100, LISTEN_TRY_MS = 20 };

static int open_one(const struct sockaddr_storage *addr, socklen_t bytes, bool shared)
{
    int one = 1, off = 0;
    int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (shared) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    if (addr->ss_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));   /* accepted sockets inherit it */
    if (bind(fd, (const struct sockaddr *)addr, bytes) != 0 ||
        listen(fd, LISTEN_BACKLOG) != 0) {
        int e = -errno;
        close(fd);
        return e;
    }
    return fd;
}

static uint16_t *port_of(struct sockaddr_storage *addr)
{
    return addr->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)addr)->sin6_port
                                       : &((struct sockaddr_in *)addr)->sin_port;
}

static err_t resolve(const char *host, uint16_t port, struct sockaddr_storage *addr,
                     socklen_t *bytes, char *error, uint32_t error_bytes)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    int e = getaddrinfo(host, NULL, &hints, &found);
    if (e != 0 || found == NULL) {
        snprintf(error, error_bytes, "cannot listen on host \"%s\": %s", host, gai_strerror(e));
        return ERR_IO;
    }
    memcpy(addr, found->ai_addr, found->ai_addrlen);
    *bytes = found->ai_addrlen;
    *port_of(addr) = htons(port);
    freeaddrinfo(found);
    return OK;
}

static err_t refused(int e, const char *host, uint16_t port, char *error, uint32_t error_bytes)
{
    if (e == -EADDRINUSE) {
        snprintf(error, error_bytes,
                 "port %u on %s is in use by another process: stop it or choose another port", port,
                 host);
        return ERR_IN_USE;
    }
    snprintf(error, error_bytes, "cannot listen on %s port %u: %s", host, port, strerror(-e));
    return ERR_IO;
}

err_t listen_open(const char *host, uint16_t *port, uint32_t count, int *fds, char *error,
                  uint32_t error_bytes)
{
    struct sockaddr_storage addr;
    socklen_t bytes;
    err_t e = resolve(host, *port, &addr, &bytes, error, error_bytes);
    if (e != OK) return e;
    int probe = open_one(&addr, bytes, false);
    /* The rings of a killed process are torn down by the kernel in the background and hold its
     * listeners a moment longer: a restart need not fail for that. */
    for (uint32_t i = 0; i < LISTEN_TRIES && probe == -EADDRINUSE; i++) {
        struct timespec pause = {.tv_nsec = LISTEN_TRY_MS * 1000000};
        nanosleep(&pause, NULL);
        probe = open_one(&addr, bytes, false);
    }
    if (probe < 0) return refused(probe, host, *port, error, error_bytes);
    if (*port == 0) {
        socklen_t n = sizeof(addr);
        if (getsockname(probe, (struct sockaddr *)&addr, &n) == 0) *port = ntohs(*port_of(&addr));
    }
    close(probe);
    for (uint32_t i = 0; i < count; i++) {
        fds[i] = open_one(&addr, bytes, true);
        if (fds[i] >= 0) continue;
        int why = fds[i];
        while (i-- > 0) close(fds[i]);
        return refused(why, host, *port, error, error_bytes);
    }
    return OK;
}

/* ---- the data directory ---- */

/* A name that is not on the disk yet would go with a power cut, and everything below it. */
static int sync_above(const char *dir)
{
    char above[4096];
    const char *slash = strrchr(dir, '/');
    int e = 0, bytes = slash == NULL || slash == dir ? 1 : (int)(slash - dir);
    snprintf(above, sizeof(above), "%.*s", bytes, slash == NULL ? "." : dir);
    int fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno == EACCES ? 0 : -errno;      /* may be written in, but not be read */
    if (fsync(fd) != 0 && errno != EINVAL) e = -errno;    /* EINVAL: they need no sync here */
    close(fd);
    return e;
}

static int make_dirs(const char *path)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(part)) return -ENAMETOOLONG;
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        int e = mkdir(part, 0750) == 0 ? sync_above(part) : errno == EEXIST ? 0 : -errno;
        if (e < 0) return e;
    }
    return 0;
}

err_t listen_lock_dir(const char *path, int *fd, char *error, uint32_t error_bytes)
{
    char name[4200];
    struct stat st;
    int e = make_dirs(path);
    if (e == 0 && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))) e = -ENOTDIR;
    if (e < 0) {
        snprintf(error, error_bytes, "cannot create data directory %s: %s", path, strerror(-e));
        return ERR_IO;
    }
    snprintf(name, sizeof(name), "%s/lock", path);
    *fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (*fd < 0) {
        snprintf(error, error_bytes, "data directory %s is not writable: %s", path,
                 strerror(errno));
        return ERR_IO;
    }
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(error, error_bytes,
                 "data directory %s is in use by another weft process: give each its own "
                 "--data-dir",
                 path);
        close(*fd);
        return ERR_IN_USE;
    }
    char text[32];
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(*fd, 0) != 0 || pwrite(*fd, text, (size_t)n, 0) != n) {
        snprintf(error, error_bytes, "cannot write in data directory %s: %s", path,
                 strerror(errno));
        close(*fd);
        return ERR_IO;
    }
    return OK;
}
