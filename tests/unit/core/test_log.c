/* test_log.c - lines, their two forms, their bounds, and a reader that does not read.
 *
 * Goal    Every line is one line, in JSON valid JSON, at most LOG_LINE_BYTES; a thread's lines
 *         come in order; nothing is lost without being counted; nothing ever blocks the caller.
 * Method  stderr is replaced by a pipe that the test reads.
 */
#include "core/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int stderr_kept, pipe_read;
static char text[1 << 22];
static size_t text_bytes;

static int capture(void **state)
{
    int ends[2];

    stderr_kept = dup(STDERR_FILENO);
    if (pipe2(ends, O_CLOEXEC) != 0 || dup2(ends[1], STDERR_FILENO) < 0) return -1;
    close(ends[1]);
    pipe_read = ends[0];
    text_bytes = 0;
    return 0;
}

/* Puts stderr back, so that the pipe ends, and reads what is left in it. */
static void captured(void)
{
    ssize_t n;

    dup2(stderr_kept, STDERR_FILENO);
    while ((n = read(pipe_read, text + text_bytes, sizeof(text) - 1 - text_bytes)) > 0)
        text_bytes += (size_t)n;
    text[text_bytes] = '\0';
}

static int release(void **state)
{
    dup2(stderr_kept, STDERR_FILENO);
    close(stderr_kept);
    close(pipe_read);
    return 0;
}

static void open_as(enum log_level level, bool json)
{
    assert_int_equal(log_open(&(struct log_conf){.level = level, .json = json}), OK);
}

static bool time_is_well_formed(const char *p)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";

    for (size_t i = 0; form[i] != '\0'; i++)
        if (form[i] == 'd' ? p[i] < '0' || p[i] > '9' : p[i] != form[i]) return false;
    return true;
}

/* Just enough of RFC 8259 to know that a line of ours is an object of strings and objects. */
static const char *json_string(const char *p)
{
    if (*p++ != '"') return NULL;
    for (; *p != '"'; p++) {
        if ((unsigned char)*p < 0x20) return NULL;
        if (*p == '\\' && *++p == 'u') p += 4;
    }
    return p + 1;
}

static const char *json_object(const char *p)
{
    if (*p++ != '{') return NULL;
    while (*p != '}') {
        if ((p = json_string(p)) == NULL || *p++ != ':') return NULL;
        p = *p == '{' ? json_object(p) : json_string(p);
        if (p == NULL) return NULL;
        if (*p == ',' && p[1] == '"') p++;
        else if (*p != '}') return NULL;
    }
    return p + 1;
}

/* ---- form ----------------------------------------------------------------------------------- */

static void a_text_line_has_time_level_message_and_fields(void **state)
{
    open_as(LOG_INFO, false);
    log_thread_join("main");
    LOG(LOG_INFO, "socket closed", "app_id", "a", "cause", "client close", "empty", "", "n", "a=b");
    LOG(LOG_ERROR, "line\nbreak", "q", "say \"hi\"", "bad", "\xff");
    log_close();
    captured();
    assert_true(time_is_well_formed(text));
    assert_true(memcmp(text, "20", 2) == 0);
    char *second = strchr(text, '\n') + 1;
    second[-1] = '\0';
    assert_string_equal(text + 24, " INFO socket closed app_id=a cause=\"client close\" empty=\"\" "
                        "n=\"a=b\" thread=main");
    assert_string_equal(second + 24, " ERROR line\\u000abreak q=\"say \\\"hi\\\"\" bad=\\ufffd "
                        "thread=main\n");
}

static void a_json_line_is_one_valid_object(void **state)
{
    open_as(LOG_INFO, true);
    log_thread_join("shard-0");
    LOG(LOG_WARN, "odd \"bytes\"", "a", "\x01\\\xc3\xa9\xed\xa0\x80", "b", "");
    log_close();
    captured();
    assert_true(json_object(text) == text + text_bytes - 1);
    assert_true(memcmp(text, "{\"timestamp\":\"", 14) == 0);
    assert_true(time_is_well_formed(text + 14));
    assert_string_equal(text + 38, "\",\"level\":\"WARN\",\"target\":\"weft\",\"span\":{\"thread\":"
                        "\"shard-0\"},\"fields\":{\"message\":\"odd \\\"bytes\\\"\","
                        "\"a\":\"\\u0001\\\\\xc3\xa9\\ufffd\\ufffd\\ufffd\",\"b\":\"\"}}\n");
}

/* Every length around the bound, so that the cut falls on every place of a line's end. */
static void a_long_line_is_cut_and_still_whole(void **state)
{
    static char value[LOG_LINE_BYTES + 64];

    assert_true(fcntl(pipe_read, F_SETPIPE_SZ, 1 << 20) >= 1 << 20);
    for (int json = 0; json <= 1; json++) {
        open_as(LOG_INFO, json == 1);
        log_thread_join("main");
        for (uint32_t n = LOG_LINE_BYTES - 180; n < LOG_LINE_BYTES + 60; n++) {
            memset(value, 'x', n);
            memcpy(value + n - 2, "\xc3\xa9", 3);
            LOG(LOG_INFO, "long", "key", value, "next", "a b", "last", "z");
        }
        log_close();
    }
    captured();
    uint32_t lines = 0;
    for (char *p = text, *end; *p != '\0'; p = end + 1, lines++) {
        end = strchr(p, '\n');
        assert_non_null(end);
        assert_true(end + 1 - p <= LOG_LINE_BYTES);
        if (*p == '{') assert_true(json_object(p) == end);
    }
    assert_int_equal(lines, 2 * 240);
}

static void only_lines_of_the_level_are_written(void **state)
{
    open_as(LOG_WARN, false);
    assert_true(log_on(LOG_ERROR) && log_on(LOG_WARN));
    assert_false(log_on(LOG_INFO) || log_on(LOG_DEBUG) || log_on(LOG_TRACE));
    LOG(LOG_INFO, "hidden");
    LOG(LOG_WARN, "shown");
    log_close();
    captured();
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, " WARN shown"));
}

/* ---- delivery ------------------------------------------------------------------------------- */

static void lines_before_open_and_after_close_are_written_at_once(void **state)
{
    LOG(LOG_ERROR, "before");
    open_as(LOG_INFO, false);
    log_close();
    LOG(LOG_ERROR, "after");
    captured();
    assert_non_null(strstr(text, " ERROR before"));
    assert_non_null(strstr(text, " ERROR after"));
}

enum { THREADS = 3, LINES_EACH = 600 };

static void *write_lines(void *name)
{
    char number[16];

    log_thread_join(name);
    for (int i = 0; i < LINES_EACH; i++) {
        snprintf(number, sizeof(number), "%d", i);
        LOG(LOG_INFO, "count", "n", number);
    }
    return NULL;
}

static void lines_of_a_thread_keep_their_order_and_none_is_lost(void **state)
{
    static char *const names[THREADS] = {"t0", "t1", "t2"};
    pthread_t threads[THREADS];
    int next[THREADS] = {0};
    uint64_t dropped = log_dropped();
    int big = fcntl(pipe_read, F_SETPIPE_SZ, 1 << 20);   /* room for all: nobody reads meanwhile */

    assert_true(big >= 1 << 20);
    open_as(LOG_INFO, false);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, names[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    log_close();
    captured();
    assert_int_equal(log_dropped(), dropped);
    for (char *p = text; *p != '\0'; p = strchr(p, '\n') + 1) {
        int n, t;
        assert_int_equal(sscanf(p + 24, " INFO count n=%d thread=t%d", &n, &t), 2);
        assert_in_range(t, 0, THREADS - 1);
        assert_int_equal(n, next[t]++);
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(next[i], LINES_EACH);
}

/* Lines in the text, and lines that it says were dropped. */
static uint64_t lines_told(void)
{
    uint64_t lines = 0;
    unsigned long long count;

    for (char *p = text; (p = strstr(p, " INFO flood")) != NULL; p++) lines++;
    for (char *p = text; (p = strstr(p, " WARN log lines dropped")) != NULL; p++) {
        if (strchr(p, '\n') == NULL) break;
        assert_int_equal(sscanf(p, " WARN log lines dropped count=%llu from=main", &count), 1);
        lines += count;
    }
    return lines;
}

/* The pipe holds a few pages and the queue LOG_QUEUE_LINES; the rest must be dropped, at once. */
static void a_reader_that_stops_costs_lines_not_time(void **state)
{
    enum { LINES = 20 * LOG_QUEUE_LINES };
    char padding[200];
    uint64_t dropped = log_dropped();

    memset(padding, 'x', sizeof(padding) - 1);
    padding[sizeof(padding) - 1] = '\0';
    assert_true(fcntl(pipe_read, F_SETPIPE_SZ, 4096) >= 4096);
    open_as(LOG_INFO, false);
    log_thread_join("main");
    for (int i = 0; i < LINES; i++) LOG(LOG_INFO, "flood", "padding", padding);
    dropped = log_dropped() - dropped;
    assert_true(dropped >= LINES / 2 && dropped < LINES);

    /* The reader is back: what was queued arrives, and the count of what was not. */
    while (lines_told() < LINES) {
        ssize_t n = read(pipe_read, text + text_bytes, sizeof(text) - 1 - text_bytes);
        assert_true(n > 0);
        text_bytes += (size_t)n;
        text[text_bytes] = '\0';
    }
    log_close();
    captured();
    assert_int_equal(lines_told(), LINES);
}

static void close_ends_even_if_nobody_reads(void **state)
{
    assert_true(fcntl(pipe_read, F_SETPIPE_SZ, 4096) >= 4096);
    open_as(LOG_INFO, false);
    log_thread_join("main");
    uint64_t dropped = log_dropped();
    for (int i = 0; i < 1000; i++) LOG(LOG_INFO, "line that does not fit into the pipe");
    log_close();
    assert_true(log_dropped() > dropped);
    assert_int_equal(log_open(&(struct log_conf){.level = LOG_INFO}), OK);   /* and again */
    captured();
    log_close();
    assert_non_null(strstr(text, "does not fit"));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, capture, release)
    const struct CMUnitTest tests[] = {
        CASE(lines_before_open_and_after_close_are_written_at_once),
        CASE(a_text_line_has_time_level_message_and_fields),
        CASE(a_json_line_is_one_valid_object),
        CASE(a_long_line_is_cut_and_still_whole),
        CASE(only_lines_of_the_level_are_written),
        CASE(lines_of_a_thread_keep_their_order_and_none_is_lost),
        CASE(a_reader_that_stops_costs_lines_not_time),
        CASE(close_ends_even_if_nobody_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
