/* Goal    A cursor says where a page ended and is good for the same question only; whatever else
 *         comes in its place is refused with the documented text.
 * Method  Written and read back, with each thing it is bound to changed in turn, and with every
 *         byte of it changed.
 */
#include "shards/want_parts.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct heap *heap;

static int open_heap(void **state)
{
    (void)state;
    if (sodium_init() < 0) return -1;
    return heap_open(&heap, 64 << 20) == OK ? 0 : -1;
}

static int close_heap(void **state)
{
    (void)state;
    heap_close(&heap);
    return 0;
}

static const char stream[] = "5f0c0000-0000-4000-8000-000000000001";

static struct want_page page(void)
{
    return (struct want_page){.limit = 5, .newest_first = true, .has_start = true,
                              .start_serial = 3, .has_time_upto = true, .time_upto_ms = -7};
}

static struct want_scope scope(const struct want_page *p)
{
    return (struct want_scope){slice_str("app-\"id"), slice_str("notes"), p};
}

static struct api_text written(const struct want_scope *s)
{
    struct api_text t = {.heap = heap};
    want_cursor_write(&t, s, slice_str(stream), 42);
    assert_false(t.failed);
    return t;
}

static void is_refused(const struct want_scope *s, struct slice text, const char *word,
                       const char *why)
{
    struct want_cursor c;
    char error[PUSHER_ERROR_TEXT_BYTES];
    assert_false(want_cursor_read(heap, s, text, word, &c, error));
    if (strncmp(error, why, strlen(why)) != 0) fail_msg("%s, not %s", error, why);
}

static void comes_back_as_it_was(void **state)
{
    struct want_page p = page();
    struct want_scope s = scope(&p);
    struct api_text t = written(&s);
    struct want_cursor c;
    char error[PUSHER_ERROR_TEXT_BYTES];
    (void)state;
    assert_true(want_cursor_read(heap, &s, api_text_slice(&t), "History", &c, error));
    assert_string_equal(c.stream_id, stream);
    assert_int_equal(c.serial, 42);
    p.limit = 9;                         /* the limit may change */
    assert_true(want_cursor_read(heap, &s, api_text_slice(&t), "History", &c, error));
    api_text_free(&t);
}

static void is_bound_to_its_question(void **state)
{
    struct want_page p = page(), q = page();
    struct want_scope s = scope(&p), o = scope(&q);
    struct api_text t = written(&s);
    struct slice text = api_text_slice(&t);
    (void)state;
    o.app_id = slice_str("other");
    is_refused(&o, text, "History", "History cursor app does not match the request");
    o = scope(&q);
    o.channel = slice_str("note");
    is_refused(&o, text, "Presence history",
               "Presence history cursor channel does not match the request");
    o = scope(&q);
    q.newest_first = false;
    is_refused(&o, text, "History", "History cursor direction does not match the request");
    q = page();
    q.start_serial = 4;
    is_refused(&o, text, "History", "History cursor bounds do not match the request");
    q = page();
    q.has_end = true;
    is_refused(&o, text, "History", "History cursor bounds do not match the request");
    q = page();
    q.time_upto_ms = 7;
    is_refused(&o, text, "History", "History cursor bounds do not match the request");
    api_text_free(&t);
}

static void what_is_none_is_refused(void **state)
{
    static const struct { const char *json, *why; } cases[] = {
        {"", "Invalid history cursor: "}, {"[]", "Invalid history cursor: "},
        {"{}", "Invalid history cursor: no version"},
        {"{\"version\":3}", "Unsupported history cursor version: 3"},
        {"{\"version\":1}", "Invalid history cursor: no position"},
        {"{\"version\":1,\"stream_id\":\"x\",\"serial\":-1}",
         "Invalid history cursor: no position"},
        {"{\"version\":1,\"stream_id\":\"x\",\"serial\":1}", "History cursor app does not match"},
    };
    struct want_page p = page();
    struct want_scope s = scope(&p);
    static char long_text[WANT_CURSOR_BYTES_MAX + 2];
    char text[512];
    (void)state;
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sodium_bin2base64(text, sizeof(text), (const uint8_t *)cases[i].json,
                          strlen(cases[i].json), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
        is_refused(&s, slice_str(text), "History", cases[i].why);
    }
    memset(long_text, 'A', sizeof(long_text) - 1);
    is_refused(&s, slice_str(long_text), "History", "History cursor exceeds 16 KiB");
    is_refused(&s, slice_str("A+/="), "History", "Invalid history cursor: not base64url");
}

/* Never a fault, and never another stream or serial that nobody wrote. */
static void any_byte_may_be_wrong(void **state)
{
    struct want_page p = page();
    struct want_scope s = scope(&p);
    struct api_text t = written(&s);
    struct want_cursor c;
    char error[PUSHER_ERROR_TEXT_BYTES];
    (void)state;
    for (uint32_t i = 0; i < t.bytes; i++) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            t.ptr[i] ^= (uint8_t)(1 << bit);
            bool ok = want_cursor_read(heap, &s, api_text_slice(&t), "History", &c, error);
            if (ok) assert_true(strlen(c.stream_id) < sizeof(c.stream_id));
            t.ptr[i] ^= (uint8_t)(1 << bit);
        }
    }
    for (uint32_t bytes = 0; bytes < t.bytes; bytes++) {
        assert_false(want_cursor_read(heap, &s, slice_of(t.ptr, bytes), "History", &c, error));
    }
    api_text_free(&t);
    assert_int_equal(heap_used_objects(heap), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_as_it_was), cmocka_unit_test(is_bound_to_its_question),
        cmocka_unit_test(what_is_none_is_refused), cmocka_unit_test(any_byte_may_be_wrong),
    };
    return cmocka_run_group_tests(tests, open_heap, close_heap);
}
