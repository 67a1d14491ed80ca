/* Goal: a data directory that was made is on the disk, and so is each directory above it that was
 * made with it. Method: fsync is listened to; it may fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shards/listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char    root[64];
static uint8_t synced[3];                /* root, root/a, root/a/b */
static bool    fails;

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    static const char *const names[] = {"", "/a", "/a/b"};
    struct stat is, st;
    char path[96];
    assert_int_equal(fstat(fd, &is), 0);
    for (uint32_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s%s", root, names[i]);
        if (stat(path, &st) == 0 && st.st_ino == is.st_ino) synced[i]++;
    }
    errno = EIO;
    return fails ? -1 : 0;
}

static void a_directory_that_is_made_is_on_the_disk(void **state)
{
    char path[96], error[256] = "", file[128];
    int fd = -1;
    (void)snprintf(root, sizeof root, "weft-listen-XXXXXX");
    assert_non_null(mkdtemp(root));
    (void)snprintf(path, sizeof path, "%s/a/b/c", root);
    assert_int_equal(listen_lock_dir(path, &fd, error, sizeof error), OK);
    assert_true(synced[0] == 1 && synced[1] == 1 && synced[2] == 1);
    (void)close(fd);
    fails = true;                        /* nothing is made, nothing needs a sync */
    assert_int_equal(listen_lock_dir(path, &fd, error, sizeof error), OK);
    (void)close(fd);
    (void)snprintf(file, sizeof file, "%s/lock", path);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(listen_lock_dir(path, &fd, error, sizeof error), ERR_IO);
    assert_non_null(strstr(error, "a/b/c"));
    (void)snprintf(file, sizeof file, "%s/lock", path);
    assert_int_equal(access(file, F_OK), -1);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(rmdir(path), 0);
        *strrchr(path, '/') = 0;
    }
    assert_int_equal(rmdir(root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_directory_that_is_made_is_on_the_disk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
