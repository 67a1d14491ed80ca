/* Goal    The start-up self-test passes where the engine runs, and names what is refused, with what
 *         to do about it, where it does not.
 * Method  Once as it is; then in child processes that may not make a ring: a system-call filter
 *         answers EPERM, or no descriptor is left. ring_open must say so as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/ring.h"

static void the_probe_passes_on_this_kernel(void **state)
{
    char error[256] = "";
    assert_int_equal(ring_probe(error, sizeof(error)), OK);
    assert_string_equal(error, "");
}

static uint32_t open_descriptors(void)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 256; fd++) count += dup2(fd, fd) == fd;
    return count;
}

static void the_probe_leaves_nothing_open(void **state)
{
    char error[256];
    uint32_t before = open_descriptors();
    for (uint32_t i = 0; i < 20; i++) assert_int_equal(ring_probe(error, sizeof(error)), OK);
    assert_int_equal(open_descriptors(), before);
}

static bool forbid_rings(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static bool use_up_descriptors(void)
{
    struct rlimit none = {3, 3};
    return setrlimit(RLIMIT_NOFILE, &none) == 0;
}

/* In a child: 0 when both the probe and ring_open refuse and their texts hold these words. */
static int refusal(bool (*restrict_child)(void), const char *probe_word, const char *open_word)
{
    static const struct ring_handler handler;
    struct ring_conf conf = {.socks_max = 10, .accepts_max = 2, .handler = &handler};
    struct ring *r = NULL;
    char error[256] = "";
    pid_t child = fork();
    if (child != 0) {
        int status = -1;
        return child < 0 || waitpid(child, &status, 0) != child ? -1 : status;
    }
    if (!restrict_child()) _exit(1);
    if (ring_probe(error, sizeof(error)) != ERR_UNSUPPORTED) _exit(2);
    if (strstr(error, probe_word) == NULL || strchr(error, '\n') != NULL) _exit(3);
    if (ring_open(&r, &conf, error, sizeof(error)) != ERR_UNSUPPORTED || r != NULL) _exit(4);
    _exit(strstr(error, open_word) == NULL ? 5 : 0);
}

static void a_forbidden_io_uring_is_named(void **state)
{
    assert_int_equal(refusal(forbid_rings, "io_uring_disabled", "switched off"), 0);
}

static void missing_descriptors_are_named(void **state)
{
    assert_int_equal(refusal(use_up_descriptors, "RLIMIT_NOFILE", "RLIMIT_NOFILE"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_probe_passes_on_this_kernel),
        cmocka_unit_test(the_probe_leaves_nothing_open),
        cmocka_unit_test(a_forbidden_io_uring_is_named),
        cmocka_unit_test(missing_descriptors_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
