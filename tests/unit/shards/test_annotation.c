/* Goal    The five summarizers add up as documented, whatever the order of creates and deletes, and
 *         what they write never lists more clients than allowed.
 * Method  Events by hand against the documented values; then random events against a plain model
 *         that is replayed from the whole log each time.
 */
#include "shards/annotation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/rng.h"

static struct heap *heap;

static int open_heap(void **state)
{
    (void)state;
    return heap_open(&heap, 64 << 20) == OK ? 0 : -1;
}

static int close_heap(void **state)
{
    (void)state;
    heap_close(&heap);
    return 0;
}

static struct slice text(const char *t) { return t == NULL ? slice_of(NULL, 0) : slice_str(t); }

static void apply(struct annotation_summary *s, bool removed, const char *name, const char *client,
                  uint64_t count)
{
    struct annotation_event e = {removed, text(name), text(client), count};
    assert_int_equal(annotation_apply(s, &e), OK);
}
static void add(struct annotation_summary *s, const char *name, const char *client)
{
    apply(s, false, name, client, 1);
}
static void del(struct annotation_summary *s, const char *name, const char *client)
{
    apply(s, true, name, client, 1);
}

static void is(const struct annotation_summary *s, uint32_t clients_max, const char *want)
{
    struct api_text t = {.heap = heap};
    annotation_write(&t, s, clients_max);
    assert_false(t.failed);
    assert_int_equal(t.bytes, strlen(want));
    assert_memory_equal(t.ptr, want, t.bytes);
    api_text_free(&t);
}

static struct annotation_summary summary(enum annotation_kind kind)
{
    return (struct annotation_summary){.kind = kind, .heap = heap};
}

static void end(struct annotation_summary *s)
{
    annotation_free(s);
    assert_int_equal(s->bytes, 0);
    assert_int_equal(s->names_bytes, 0);
    assert_int_equal(s->clients_bytes, 0);
}

static void total_counts_and_never_falls_below_zero(void **state)
{
    struct annotation_summary s = summary(ANNOTATION_TOTAL);
    (void)state;
    is(&s, 9, "{\"total\":0}");
    del(&s, NULL, NULL);
    is(&s, 9, "{\"total\":0}");
    apply(&s, false, NULL, NULL, 50);
    add(&s, "x", "u");
    is(&s, 9, "{\"total\":2}");
    end(&s);
}

static void flag_is_a_set_of_clients(void **state)
{
    struct annotation_summary s = summary(ANNOTATION_FLAG);
    (void)state;
    is(&s, 9, "{\"total\":0,\"clientIds\":[],\"clipped\":false}");
    add(&s, NULL, "b");
    add(&s, NULL, "a");
    add(&s, NULL, "b");
    is(&s, 9, "{\"total\":2,\"clientIds\":[\"a\",\"b\"],\"clipped\":false}");
    is(&s, 1, "{\"total\":2,\"clientIds\":[\"a\"],\"clipped\":true}");
    is(&s, 0, "{\"total\":2,\"clientIds\":[],\"clipped\":true}");
    del(&s, NULL, "b");
    del(&s, NULL, "nobody");
    is(&s, 9, "{\"total\":1,\"clientIds\":[\"a\"],\"clipped\":false}");
    end(&s);
}

static void distinct_forgets_empty_names(void **state)
{
    struct annotation_summary s = summary(ANNOTATION_DISTINCT);
    (void)state;
    is(&s, 9, "{}");
    add(&s, "wow", "a");
    add(&s, "like", "a");
    add(&s, "like", "b\"");
    is(&s, 9, "{\"like\":{\"total\":2,\"clientIds\":[\"a\",\"b\\\"\"],\"clipped\":false},"
              "\"wow\":{\"total\":1,\"clientIds\":[\"a\"],\"clipped\":false}}");
    del(&s, "wow", "a");
    del(&s, "like", "c");
    is(&s, 9, "{\"like\":{\"total\":2,\"clientIds\":[\"a\",\"b\\\"\"],\"clipped\":false}}");
    end(&s);
}

static void unique_moves_a_client(void **state)
{
    struct annotation_summary s = summary(ANNOTATION_UNIQUE);
    (void)state;
    add(&s, "yes", "a");
    add(&s, "yes", "b");
    add(&s, "no", "a");
    is(&s, 9, "{\"no\":{\"total\":1,\"clientIds\":[\"a\"],\"clipped\":false},"
              "\"yes\":{\"total\":1,\"clientIds\":[\"b\"],\"clipped\":false}}");
    add(&s, "no", "b");
    is(&s, 9, "{\"no\":{\"total\":2,\"clientIds\":[\"a\",\"b\"],\"clipped\":false}}");
    del(&s, "yes", "b");                 /* whatever the name: out of where he is */
    del(&s, "no", "a");
    is(&s, 9, "{}");
    end(&s);
}

static void multiple_counts_and_keeps_names(void **state)
{
    struct annotation_summary s = summary(ANNOTATION_MULTIPLE);
    (void)state;
    apply(&s, false, "up", "a", 2);
    apply(&s, false, "up", "a", 1);
    apply(&s, false, "up", NULL, 4);
    is(&s, 9, "{\"up\":{\"total\":7,\"clientCounts\":{\"a\":3},\"totalUnidentified\":4,"
              "\"clipped\":false,\"totalClientIds\":1}}");
    apply(&s, true, "up", NULL, 4);
    apply(&s, true, "up", "a", 1);
    is(&s, 9, "{\"up\":{\"total\":4,\"clientCounts\":{},\"totalUnidentified\":4,"
              "\"clipped\":false,\"totalClientIds\":0}}");
    end(&s);
}

/* ---- against a model ---- */

enum { EVENTS = 3000, NAMES = 4, CLIENTS = 12 };

struct logged { bool removed; uint32_t name, client; };

/* who[name][client], from the whole log. */
static void replay(enum annotation_kind kind, const struct logged *log, uint32_t count,
                   bool who[NAMES][CLIENTS])
{
    memset(who, 0, NAMES * CLIENTS * sizeof(bool));
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t n = 0; kind == ANNOTATION_UNIQUE && n < NAMES; n++) {
            who[n][log[i].client] = false;
        }
        who[log[i].name][log[i].client] = !log[i].removed;
    }
}

static void write_model(char *out, size_t room, bool who[NAMES][CLIENTS])
{
    size_t at = (size_t)snprintf(out, room, "{");
    bool any = false;
    for (uint32_t n = 0; n < NAMES; n++) {
        uint32_t total = 0, shown = 0;
        for (uint32_t c = 0; c < CLIENTS; c++) total += who[n][c];
        if (total == 0) continue;
        at += (size_t)snprintf(out + at, room - at, "%s\"n%u\":{\"total\":%u,\"clientIds\":[",
                               any ? "," : "", n, total);
        any = true;
        for (uint32_t c = 0; c < CLIENTS; c++) {
            if (!who[n][c]) continue;
            at += (size_t)snprintf(out + at, room - at, "%s\"c%02u\"", shown++ > 0 ? "," : "", c);
        }
        at += (size_t)snprintf(out + at, room - at, "],\"clipped\":false}");
    }
    snprintf(out + at, room - at, "}");
}

static void equals_a_replay(enum annotation_kind kind)
{
    static struct logged log[EVENTS];
    struct annotation_summary s = summary(kind);
    bool who[NAMES][CLIENTS];
    char want[4096], name[8], client[8];
    struct rng rng;
    rng_seed(&rng, 11 + (uint64_t)kind);
    for (uint32_t i = 0; i < EVENTS; i++) {
        log[i] = (struct logged){rng_below(&rng, 3) == 0, (uint32_t)rng_below(&rng, NAMES),
                                 (uint32_t)rng_below(&rng, CLIENTS)};
        snprintf(name, sizeof(name), "n%u", log[i].name);
        snprintf(client, sizeof(client), "c%02u", log[i].client);
        apply(&s, log[i].removed, name, client, 1);
        if (i % 50 != 0) continue;
        replay(kind, log, i + 1, who);
        write_model(want, sizeof(want), who);
        is(&s, UINT32_MAX, want);
    }
    end(&s);
    assert_int_equal(heap_used_objects(heap), 0);
}

static void distinct_equals_a_replay(void **state)
{
    (void)state;
    equals_a_replay(ANNOTATION_DISTINCT);
}

static void unique_equals_a_replay(void **state)
{
    (void)state;
    equals_a_replay(ANNOTATION_UNIQUE);
}

/* ---- types ---- */

static void types_are_parsed(void **state)
{
    static const struct { const char *type, *error; enum annotation_kind kind; } cases[] = {
        {"r:total.v1", NULL, ANNOTATION_TOTAL}, {"a.b-c:flag.v1", NULL, ANNOTATION_FLAG},
        {"r:multiple.v1", NULL, ANNOTATION_MULTIPLE},
        {"", "annotation type must use namespace:summarizer.version", 0},
        {":flag.v1", "annotation type must use namespace:summarizer.version", 0},
        {"r:flag", "annotation type must use namespace:summarizer.version", 0},
        {"r.v1", "annotation type must use namespace:summarizer.version", 0},
        {"r:Flag.v1", "unsupported annotation summarizer: Flag", 0},
        {"r:flag.", "invalid annotation summarizer version: ", 0},
        {"r:flag.v", "invalid annotation summarizer version: v", 0},
        {"r:flag.v01", "unsupported annotation summarizer version: 01", 0},
        {"r:flag.v1 ", "annotation type must not contain whitespace", 0},
    };
    char error[PUSHER_ERROR_TEXT_BYTES];
    enum annotation_kind kind;
    (void)state;
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool ok = annotation_type_parse(slice_str(cases[i].type), &kind, error);
        if (ok != (cases[i].error == NULL)) fail_msg("%s", cases[i].type);
        if (ok) assert_int_equal(kind, cases[i].kind);
        else assert_string_equal(error, cases[i].error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(total_counts_and_never_falls_below_zero),
        cmocka_unit_test(flag_is_a_set_of_clients),
        cmocka_unit_test(distinct_forgets_empty_names),
        cmocka_unit_test(unique_moves_a_client),
        cmocka_unit_test(multiple_counts_and_keeps_names),
        cmocka_unit_test(distinct_equals_a_replay),
        cmocka_unit_test(unique_equals_a_replay),
        cmocka_unit_test(types_are_parsed),
    };
    return cmocka_run_group_tests(tests, open_heap, close_heap);
}
