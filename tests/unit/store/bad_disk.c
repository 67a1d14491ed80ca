/* The 64-bit names are calls of their own here, not other names of the short ones. */
#undef _FILE_OFFSET_BITS
#include "tests/unit/store/bad_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

bool disk_full, disk_fails, disk_lies, dirs_fail;

/* LMDB syncs data only: these are the store's own, of directories. */
int fsync(int fd)
{
    if (!dirs_fail) return (int)syscall(SYS_fsync, fd);
    errno = EIO;
    return -1;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at)
{
    return syscall(SYS_pwritev, fd, parts, disk_full ? 1 : count, at, 0);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    bool fails = __atomic_load_n(&disk_fails, __ATOMIC_RELAXED);
    if ((fails || disk_lies) && count < 4096) {
        if (disk_lies && (fcntl(fd, F_GETFL) & O_DSYNC) != 0) {
            assert_int_equal(syscall(SYS_pwrite64, fd, bytes, count, at), count);
        }
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, disk_full && count >= 4096 ? 2048 : count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    return pwritev64(fd, parts, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    return pwrite64(fd, bytes, count, at);
}

/* ---- a store on it ---- */

void put_row(struct kit_batch *b, uint64_t chan, uint64_t delivery, uint32_t bytes)
{
    static char data[ROW_BYTES];
    memset(data, 'a' + (int)(delivery % 26), bytes);
    data[0] = data[bytes - 1] = '"';
    struct record r = {.kind = RECORD_CREATE, .flags = RECORD_WHOLE, .chan = chan,
                       .delivery = delivery, .history = delivery, .message = delivery,
                       .time_ms = kit.now_ms, .message_ms = kit.now_ms, .context = delivery,
                       .data = slice_of(data, bytes)};
    kit_put(b, &r);
}

void assert_newest(const char *name, uint64_t newest)
{
    struct store_head head = kit_head(name, 0);
    assert_int_equal(head.delivery, newest);
    assert_int_equal(head.rows_count, newest);
}

void until_accepts(void)
{
    uint64_t began_ns = clock_mono_ns();
    while (store_refuses(kit.store, 0)) {
        if (kit.conf.threads) {
            (void)sched_yield();
        } else {
            (void)store_step(kit.store);
        }
        assert_true(clock_mono_ns() - began_ns < WAIT_NS);
    }
}

void open_overdue(struct kit_batch *b)
{
    char name[16];
    kit_open(1, 1, false);
    for (uint32_t i = 0; i < SWEPT; i++) {
        (void)snprintf(name, sizeof name, "old-%u", i);
        uint64_t chan = kit_chan(b, name, 0);
        for (uint64_t n = 1; n <= SWEPT_ROWS; n++) {
            put_row(b, chan, n, 6000);
            if (n % 3 != 0) continue;      /* a segment each time */
            assert_int_equal(kit_commit(b, 0, 0), OK);
            kit_idle();
        }
    }
    kit_idle();
    kit_stop();
    kit.policy.messages_max = 1;
    assert_int_equal(kit_start(), OK);
}

uint32_t busy_rounds(uint32_t rounds)
{
    uint32_t busy = 0;
    for (uint32_t i = 0; i < rounds; i++) busy += store_step(kit.store);
    return busy;
}
