/* Goal: a lane whose meta page could not be written answers with a refusal, opens its environment
 * anew once the disk takes it, and never goes on from another state than the one it knows. Method:
 * bad_disk.h; with reads under way, and without threads. */
#include "tests/unit/store/bad_disk.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static int stderr_kept = -1, stderr_file = -1;

static void hear(void)
{
    stderr_file = memfd_create("stderr", MFD_CLOEXEC);
    stderr_kept = dup(STDERR_FILENO);
    assert_true(stderr_file >= 0 && stderr_kept >= 0);
    assert_int_equal(dup2(stderr_file, STDERR_FILENO), STDERR_FILENO);
}

/* Once, and no more. */
static void assert_heard(const char *text)
{
    char said[4096] = "";
    assert_int_equal(dup2(stderr_kept, STDERR_FILENO), STDERR_FILENO);
    assert_true(lseek(stderr_file, 0, SEEK_SET) == 0);
    assert_true(read(stderr_file, said, sizeof said - 1) >= 0);
    (void)close(stderr_kept);
    (void)close(stderr_file);
    const char *first = strstr(said, text);
    if (first == NULL) fail_msg("no \"%s\" in: %s", text, said);
    if (strstr(first + 1, text) != NULL) fail_msg("\"%s\" is repeated in: %s", text, said);
}

static void some_probes(void)
{
    for (uint64_t began_ns = clock_mono_ns(); clock_mono_ns() - began_ns < 300000000;) {
        (void)store_step(kit.store);
    }
}

static void assert_not_now(const char *name)
{
    struct store_read r = {.kind = STORE_OPEN, .app_id = slice_str("app"),
                           .channel = slice_str(name), .now_ms = kit.now_ms};
    kit_read(&r, 0, 0);
    assert_int_equal(r.status, STORE_READ_MEMORY);
    store_read_free(&r);
}

/* LMDB takes nothing any more once it could not write its meta page: it is opened anew, again and
 * again, until the disk takes one. */
static void a_failed_environment_opens_again(void **state)
{
    struct kit_batch b = {0};
    for (uint32_t round = 0; round < 2; round++) {
        open_overdue(&b);
        uint64_t chan = kit_chan(&b, "old-0", 0);
        b.generations[0] = 0;              /* shards start anew with the store */
        disk_fails = true;
        hear();
        if (round == 0) {                  /* a commit meets it first, or the sweep */
            put_row(&b, chan, SWEPT_ROWS + 1, 100);
            assert_true(kit_commit(&b, 0, 0) != OK);
        }
        assert_true(busy_rounds(1000) < SWEPT / 2);
        some_probes();
        assert_true(store_refuses(kit.store, 0));
        put_row(&b, chan, SWEPT_ROWS + 1, 100);
        assert_true(kit_commit(&b, 0, 0) != OK);
        assert_not_now("old-0");
        some_probes();
        disk_fails = false;
        until_accepts();
        assert_heard("see to it");
        struct store_head head = kit_head("old-0", 0);
        assert_true(head.delivery == SWEPT_ROWS && head.rows_count == 1);
        put_row(&b, chan, SWEPT_ROWS + 1, 100);
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        kit_check();
        assert_int_equal(kit_head("old-0", 0).delivery, SWEPT_ROWS + 1);
        kit_batch_free(&b);
        kit_close();
    }
}

/* The meta page is there nonetheless, so the failed commit is as well: what the lane knows is older
 * than what would be opened. The next start takes it as it is. */
static void an_environment_that_went_on_is_left_to_the_restart(void **state)
{
    struct kit_batch b = {0};
    kit_open(1, 1, false);
    uint64_t chan = kit_chan(&b, "a", 0);
    put_row(&b, chan, 1, 100);
    assert_int_equal(kit_commit(&b, 0, 0), OK);
    kit_idle();
    hear();
    disk_lies = true;
    put_row(&b, chan, 2, 100);
    assert_true(kit_commit(&b, 0, 0) != OK);
    disk_lies = false;
    some_probes();
    assert_heard("restart the server");
    assert_true(store_refuses(kit.store, 0));
    put_row(&b, chan, 2, 100);
    assert_true(kit_commit(&b, 0, 0) != OK);
    assert_not_now("a");
    kit_check();
    assert_newest("a", 2);
    b.generations[0] = 0;
    put_row(&b, chan, 3, 100);
    assert_int_equal(kit_commit(&b, 0, 0), OK);
    kit_batch_free(&b);
    kit_close();
}

/* While readers look at what is being closed. */
static void an_environment_opens_again_beside_reads(void **state)
{
    enum { READS = 24, ROUNDS = 20, ROWS = 80 };   /* several snapshots each */
    struct kit_batch b = {0};
    kit_open(1, 1, true);
    uint64_t chan = kit_chan(&b, "a", 0), good = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct store_read reads[READS];
        for (uint32_t i = 0; i < ROWS; i++) put_row(&b, chan, good + 1 + i, 20000);
        assert_int_equal(kit_commit(&b, 0, 0), OK);
        good += ROWS;
        for (uint32_t i = 0; i < READS; i++) {
            reads[i] = (struct store_read){
                .kind = STORE_RANGE, .app_id = slice_str("app"), .channel = slice_str("a"),
                .chan = chan, .upto = good, .from = good - ROWS, .now_ms = kit.now_ms};
            kit_read_post(&reads[i], 0, 0);
        }
        struct store_batch *failed = NULL;
        for (uint32_t i = 0; i < READS + 1; i++) {
            struct letter l = kit_letter(0);
            if (l.kind == MAIL_COMMITTED) {
                failed = l.payload;
                __atomic_store_n(&disk_fails, false, __ATOMIC_RELAXED);
                continue;
            }
            struct store_read *r = l.payload;
            bool all = r->status == STORE_READ_OK && r->records_count == ROWS;
            assert_true(all || (i > 0 && r->status == STORE_READ_MEMORY));
            store_read_free(r);
            if (i > 0) continue;
            __atomic_store_n(&disk_fails, true, __ATOMIC_RELAXED);   /* others are under way */
            put_row(&b, chan, good + 1, 100);
            kit_post(&b, 0, 0);
        }
        assert_true(failed == &b.b && failed->result != OK);
        b.generations[0] = b.b.generation_now;
        b.b.bytes_count = b.b.records_count = 0;
        until_accepts();
        assert_newest("a", good);
    }
    kit_check();
    assert_newest("a", good);
    kit_batch_free(&b);
    kit_close();
}

/* A lane whose name is not on the disk would take all that is acknowledged with it. */
static void a_lane_that_is_not_in_its_directory_is_not_used(void **state)
{
    kit_open(1, 1, false);
    kit_stop();
    char lane[128], away[128];
    (void)snprintf(lane, sizeof lane, "%s/lane-00", kit.dir);
    (void)snprintf(away, sizeof away, "%s/away", kit.dir);
    assert_int_equal(rename(lane, away), 0);
    dirs_fail = true;
    assert_int_equal(kit_start(), ERR_IO);
    assert_non_null(strstr(kit.error, "lane-00"));
    assert_int_equal(kit_start(), ERR_IO);   /* although it stands there now */
    dirs_fail = false;
    assert_int_equal(kit_start(), OK);
    kit_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_environment_opens_again),
        cmocka_unit_test(an_environment_that_went_on_is_left_to_the_restart),
        cmocka_unit_test(an_environment_opens_again_beside_reads),
        cmocka_unit_test(a_lane_that_is_not_in_its_directory_is_not_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
