/* The 64-bit names are calls of their own here, not other names of the short ones. */
#undef _FILE_OFFSET_BITS
#include "power_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct pending { uint64_t offset, bytes; uint8_t *data; };

struct disk {
    char            path[2 * KIT_PATH_BYTES];
    char            path_new[2 * KIT_PATH_BYTES];   /* while the lane is made */
    bool            there, named;        /* named: a lane made has got its own name */
    uint8_t        *bytes;               /* owned: what is on the disk */
    uint64_t        count, room;
    struct pending *pending;             /* owned, in the order of writing */
    uint32_t        pending_count, pending_room;
};

static struct disk disks[DISK_LANES];
static struct rng *cut_rng;
static uint64_t    events_left;
static uint32_t    fail_one_in;
static bool        watching, is_cut;

static void *need(void *ptr, size_t bytes)
{
    void *grown = realloc(ptr, bytes);
    if (grown == NULL) abort();
    return grown;
}

/* ---- what is on the disk ---- */

static void disk_put(struct disk *d, uint64_t offset, const uint8_t *data, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    if (end > d->room) {
        uint64_t room = 2 * end;
        d->bytes = need(d->bytes, room);
        memset(d->bytes + d->room, 0, room - d->room);
        d->room = room;
    }
    memcpy(d->bytes + offset, data, bytes);
    if (end > d->count) d->count = end;
}

static void pending_clear(struct disk *d)
{
    for (uint32_t i = 0; i < d->pending_count; i++) free(d->pending[i].data);
    d->pending_count = 0;
}

/* Each page of each pending write reached the disk, or did not. */
static void disk_cut_off(struct disk *d)
{
    for (uint32_t i = 0; i < d->pending_count; i++) {
        const struct pending *p = &d->pending[i];
        for (uint64_t at = 0; at < p->bytes;) {
            uint64_t to_page = DISK_PAGE_BYTES - (p->offset + at) % DISK_PAGE_BYTES;
            uint64_t bytes = u64_min(to_page, p->bytes - at);
            if (rng_below(cut_rng, 2) == 0) disk_put(d, p->offset + at, p->data + at, bytes);
            at += bytes;
        }
    }
    pending_clear(d);
}

void disk_cut_now(void)
{
    if (is_cut) return;
    is_cut = true;
    for (uint32_t i = 0; i < DISK_LANES; i++) {
        disks[i].named = access(disks[i].path, F_OK) == 0;
        disk_cut_off(&disks[i]);
    }
}

static void event(void)
{
    if (!is_cut && --events_left == 0) disk_cut_now();
}

/* ---- the calls ---- */

static struct disk *disk_of(int fd)
{
    char name[64], path[2 * KIT_PATH_BYTES];
    if (!watching || is_cut) return NULL;
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, path, sizeof path - 1);
    if (n <= 0) return NULL;
    path[n] = 0;
    for (uint32_t i = 0; i < DISK_LANES; i++) {
        if (strcmp(path, disks[i].path) == 0 || strcmp(path, disks[i].path_new) == 0) {
            return &disks[i];
        }
    }
    return NULL;
}

static void written(int fd, uint64_t offset, const void *data, uint64_t bytes)
{
    struct disk *d = disk_of(fd);
    if (d == NULL) return;
    d->there = true;
    if ((fcntl(fd, F_GETFL) & O_DSYNC) != 0) {
        disk_put(d, offset, data, bytes);
        return;
    }
    if (d->pending_count == d->pending_room) {
        d->pending_room = d->pending_room == 0 ? 64 : 2 * d->pending_room;
        d->pending = need(d->pending, d->pending_room * sizeof *d->pending);
    }
    struct pending *p = &d->pending[d->pending_count++];
    *p = (struct pending){offset, bytes, need(NULL, bytes)};
    memcpy(p->data, data, bytes);
}

static void written_parts(int fd, uint64_t offset, const struct iovec *parts, int count, ssize_t n)
{
    for (int i = 0; i < count && n > 0; i++) {
        uint64_t bytes = u64_min(parts[i].iov_len, (uint64_t)n);
        written(fd, offset, parts[i].iov_base, bytes);
        offset += bytes;
        n -= (ssize_t)bytes;
    }
    if (disk_of(fd) != NULL) event();
}

static ssize_t sync_file(int fd, long call)
{
    struct disk *d = disk_of(fd);
    if (d == NULL) return watching ? 0 : syscall(call, fd);
    event();                             /* the power may go before the sync has done anything */
    if (is_cut) return 0;
    for (uint32_t i = 0; i < d->pending_count; i++) {
        disk_put(d, d->pending[i].offset, d->pending[i].data, d->pending[i].bytes);
    }
    pending_clear(d);
    event();
    return 0;
}

static bool fails(int fd)
{
    return fail_one_in > 0 && disk_of(fd) != NULL && (fcntl(fd, F_GETFL) & O_DSYNC) != 0 &&
           rng_below(cut_rng, fail_one_in) == 0;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    struct iovec part = {(void *)(uintptr_t)data, bytes};
    ssize_t n = syscall(SYS_pwrite64, fd, data, bytes, offset);
    if (fails(fd)) {
        if (rng_below(cut_rng, 2) == 0) disk_put(disk_of(fd), (uint64_t)offset, data, bytes);
        uint64_t soon = 2 + rng_below(cut_rng, 8);
        if (rng_below(cut_rng, 4) == 0) events_left = u64_min(events_left, soon);
        event();
        errno = EIO;
        return -1;
    }
    written_parts(fd, (uint64_t)offset, &part, 1, n);
    return n;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset)
{
    return pwrite(fd, data, bytes, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    ssize_t n = syscall(SYS_pwritev, fd, parts, count, offset, 0);
    written_parts(fd, (uint64_t)offset, parts, count, n);
    return n;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    return pwritev(fd, parts, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t n = syscall(SYS_writev, fd, parts, count);
    if (n > 0 && disk_of(fd) != NULL) {
        written_parts(fd, (uint64_t)(lseek(fd, 0, SEEK_CUR) - n), parts, count, n);
    }
    return n;
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    struct iovec part = {(void *)(uintptr_t)data, bytes};
    ssize_t n = syscall(SYS_write, fd, data, bytes);
    if (n > 0 && disk_of(fd) != NULL) {
        written_parts(fd, (uint64_t)(lseek(fd, 0, SEEK_CUR) - n), &part, 1, n);
    }
    return n;
}

int fdatasync(int fd)
{
    return (int)sync_file(fd, SYS_fdatasync);
}

int fsync(int fd)
{
    return (int)sync_file(fd, SYS_fsync);
}

/* ---- from outside ---- */

void disk_watch(const char *dir, struct rng *rng, uint64_t events)
{
    struct stat st;
    cut_rng = rng;
    events_left = events;
    is_cut = false;
    for (uint32_t i = 0; i < DISK_LANES; i++) {
        struct disk *d = &disks[i];
        (void)snprintf(d->path, sizeof d->path, "%s/lane-%02u/data.mdb", dir, i);
        (void)snprintf(d->path_new, sizeof d->path_new, "%s/lane-%02u.new/data.mdb", dir, i);
        d->count = 0;
        d->there = stat(d->path, &st) == 0;
        if (!d->there) continue;
        int fd = open(d->path, O_RDONLY | O_CLOEXEC);
        uint8_t *bytes = need(NULL, (size_t)st.st_size + 1);
        assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
        disk_put(d, 0, bytes, (uint64_t)st.st_size);
        free(bytes);
        (void)close(fd);
    }
    watching = true;
}

void disk_fail(uint32_t one_in)
{
    fail_one_in = one_in;
}

bool disk_cut(void)
{
    return is_cut;
}

/* What was made or renamed after the cut never was. */
static void names_restore(struct disk *d)
{
    char dir[2 * KIT_PATH_BYTES], dir_new[2 * KIT_PATH_BYTES];
    (void)snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(d->path, '/') - d->path), d->path);
    (void)snprintf(dir_new, sizeof dir_new, "%.*s", (int)(strrchr(d->path_new, '/') - d->path_new),
                   d->path_new);
    if (!d->named && access(d->path, F_OK) == 0) assert_int_equal(rename(dir, dir_new), 0);
    if (!d->there) (void)unlink(d->path_new);
}

void disk_restore(void)
{
    assert_true(is_cut);
    watching = false;
    for (uint32_t i = 0; i < DISK_LANES; i++) {
        struct disk *d = &disks[i];
        names_restore(d);
        if (!d->there) continue;
        int fd = open(d->path, O_RDWR | O_TRUNC | O_CLOEXEC);
        if (fd < 0) fd = open(d->path_new, O_RDWR | O_TRUNC | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, d->bytes, d->count, 0), (ssize_t)d->count);
        (void)close(fd);
        free(d->bytes);
        free(d->pending);
        *d = (struct disk){.there = false};
    }
}
