/* Goal: a message's state is what spec/messages-and-history.md 4 says. Method: one case a rule,
 * then random versions against a plain model, with a heap at its bound and without. */
#include "tests/unit/store/store_kit.h"

#include "core/mem.h"
#include "core/rng.h"

static struct rng rng;

static struct record version(enum record_kind kind, uint64_t delivery, const char *data)
{
    struct record r = {.kind = kind, .flags = kind == RECORD_APPEND ? 0 : RECORD_WHOLE, .chan = 3,
                       .delivery = delivery, .message = 10, .history = 4,
                       .time_ms = 1000 + delivery, .message_ms = 1010, .context = delivery};
    if (data != NULL) r.data = slice_str(data);
    if (kind == RECORD_APPEND) r.context = 10;
    return r;
}

static struct record create(const char *data)
{
    struct record r = version(RECORD_CREATE, 10, data);
    r.name = slice_str("\"note\"");
    r.extras = slice_str("{\"headers\":{}}");
    r.message_id = slice_str("m-1");
    r.owner = slice_str("ann");
    return r;
}

static struct record folded(const struct fold *f)
{
    struct record r;
    fold_record(f, &r);
    assert_int_equal(r.flags, RECORD_WHOLE | RECORD_FOLDED);
    return r;
}

static void an_append_adds_to_the_string_and_keeps_the_rest(void **state)
{
    struct fold f = {0};
    struct record c = create("\"ab\\n\""), a = version(RECORD_APPEND, 12, "\"cd\"");
    a.client = slice_str("bob");
    a.description = slice_str("more");
    assert_int_equal(fold_apply(&f, &c), OK);
    assert_int_equal(fold_apply(&f, &a), OK);
    struct record r = folded(&f);
    assert_true(slice_is(r.data, "\"ab\\ncd\""));
    assert_true(slice_is(r.name, "\"note\"") && slice_is(r.extras, "{\"headers\":{}}"));
    assert_true(slice_is(r.message_id, "m-1") && slice_is(r.owner, "ann"));
    assert_true(slice_is(r.client, "bob") && slice_is(r.description, "more"));
    assert_int_equal(r.kind, RECORD_APPEND);
    assert_true(r.delivery == 12 && r.message == 10 && r.history == 4 && r.chan == 3);
    assert_true(r.time_ms == 1012 && r.message_ms == 1010 && r.context == 10);
    assert_true(f.appends == 1 && f.versions == 1);

    a = version(RECORD_APPEND, 13, "\"\"");
    assert_int_equal(fold_apply(&f, &a), OK);
    r = folded(&f);
    assert_true(slice_is(r.data, "\"ab\\ncd\""));
    assert_null(r.client.ptr);             /* attribution is of the latest version only */
    assert_null(r.description.ptr);
    assert_int_equal(f.appends, 2);
    fold_free(&f);
}

static void an_append_to_absent_data_is_the_data(void **state)
{
    struct fold f = {0};
    struct record c = create("\"gone\""), u = version(RECORD_UPDATE, 11, NULL);
    struct record a = version(RECORD_APPEND, 12, "\"new\"");
    assert_int_equal(fold_apply(&f, &c), OK);
    assert_int_equal(fold_apply(&f, &u), OK);
    assert_null(folded(&f).data.ptr);
    assert_int_equal(fold_apply(&f, &a), OK);
    assert_true(slice_is(folded(&f).data, "\"new\""));
    fold_free(&f);
}

static void an_append_with_extras_replaces_them_whole(void **state)
{
    struct fold f = {0};
    struct record c = create("\"a\""), a = version(RECORD_APPEND, 12, "\"b\"");
    a.flags = RECORD_WHOLE;
    a.context = 12;
    a.name = slice_str("\"note\"");
    a.extras = slice_str("{\"ai\":{}}");
    a.user = slice_str("bob");
    assert_int_equal(fold_apply(&f, &c), OK);
    assert_int_equal(fold_apply(&f, &a), OK);
    struct record r = folded(&f);
    assert_true(slice_is(r.data, "\"ab\"") && slice_is(r.extras, "{\"ai\":{}}"));
    assert_true(slice_is(r.user, "bob") && slice_is(r.owner, "ann"));
    assert_null(r.message_id.ptr);         /* a whole record says everything */
    assert_int_equal(r.context, 12);
    fold_free(&f);
}

static void update_and_delete_replace_and_a_delete_is_not_the_end(void **state)
{
    struct fold f = {0};
    struct record c = create("{\"a\":1}"), u = version(RECORD_UPDATE, 11, "\"now text\"");
    struct record d = version(RECORD_DELETE, 12, "\"now text\"");
    struct record a = version(RECORD_APPEND, 13, "\"!\"");
    u.name = slice_str("\"other\"");
    assert_int_equal(fold_apply(&f, &c), OK);
    assert_int_equal(fold_apply(&f, &u), OK);
    struct record r = folded(&f);
    assert_true(slice_is(r.name, "\"other\"") && slice_is(r.data, "\"now text\""));
    assert_null(r.extras.ptr);
    assert_int_equal(fold_apply(&f, &d), OK);
    r = folded(&f);
    assert_int_equal(r.kind, RECORD_DELETE);
    assert_null(r.name.ptr);               /* cleared by the delete, data kept: a tombstone */
    assert_true(slice_is(r.data, "\"now text\"") && slice_is(r.owner, "ann"));
    assert_int_equal(fold_apply(&f, &a), OK);
    r = folded(&f);
    assert_int_equal(r.kind, RECORD_APPEND);
    assert_true(slice_is(r.data, "\"now text!\""));
    assert_true(f.versions == 3 && f.appends == 1);
    fold_free(&f);
}

static void what_cannot_follow_changes_nothing(void **state)
{
    struct fold f = {0};
    struct record a = version(RECORD_APPEND, 12, "\"b\""), c = create("{\"a\":1}");
    assert_int_equal(fold_apply(&f, &a), ERR_IO);
    assert_false(f.started);
    assert_int_equal(fold_apply(&f, &c), OK);
    assert_int_equal(fold_apply(&f, &a), ERR_IO);          /* data is no string */
    a = version(RECORD_UPDATE, 10, "\"b\"");
    assert_int_equal(fold_apply(&f, &a), ERR_IO);          /* not later */
    a = version(RECORD_UPDATE, 12, "\"b\"");
    a.message = 11;
    assert_int_equal(fold_apply(&f, &a), ERR_IO);          /* another message */
    assert_int_equal(fold_apply(&f, &c), ERR_IO);          /* a second create */
    assert_true(slice_is(folded(&f).data, "{\"a\":1}") && f.delivery == 10 && f.versions == 0);
    fold_free(&f);
}

/* Folding goes on from a folded record as from the versions it was made of. */
static void a_folded_record_stands_for_its_versions(void **state)
{
    uint8_t packed[4096];
    for (uint32_t round = 0; round < 300; round++) {
        struct fold all = {0}, cut = {0};
        struct record c = create("\"s\"");
        uint32_t versions = 1 + (uint32_t)rng_below(&rng, 20);
        uint32_t at = (uint32_t)rng_below(&rng, versions + 1);
        assert_int_equal(fold_apply(&all, &c), OK);
        if (at > 0) assert_int_equal(fold_apply(&cut, &c), OK);
        for (uint32_t i = 0; i < versions; i++) {
            static const uint8_t kinds[] = {RECORD_UPDATE, RECORD_DELETE, RECORD_APPEND,
                                            RECORD_APPEND, RECORD_APPEND};
            struct record v = version(kinds[rng_below(&rng, 5)], 11 + i, "\"xy\"");
            if (rng_below(&rng, 3) == 0) v.client = slice_str("c");
            if (v.kind != RECORD_APPEND && rng_below(&rng, 2) == 0) v.extras = slice_str("{}");
            assert_int_equal(fold_apply(&all, &v), OK);
            if (i < at) assert_int_equal(fold_apply(&cut, &v), OK);
            if (i + 1 != at && !(at == 0 && i == 0)) {
                if (i >= at && at > 0) assert_int_equal(fold_apply(&cut, &v), OK);
                continue;
            }
            if (at == 0) continue;
            struct record middle = folded(&cut), read;
            uint32_t bytes = record_write(&middle, packed), again, appends = cut.appends;
            uint32_t seen = cut.versions;
            assert_int_equal(record_read(slice_of(packed, bytes), &read, &again), RECORD_OK);
            fold_free(&cut);
            cut.appends = appends;
            cut.versions = seen;
            assert_int_equal(fold_apply(&cut, &read), OK);
        }
        if (at > 0) {
            struct record x = folded(&all), y = folded(&cut);
            uint8_t a[4096], b[4096];
            uint32_t a_bytes = record_write(&x, a), b_bytes = record_write(&y, b);
            assert_int_equal(a_bytes, b_bytes);
            assert_memory_equal(a, b, a_bytes);
            assert_true(all.appends == cut.appends && all.versions == cut.versions);
        }
        fold_free(&all);
        fold_free(&cut);
    }
}

/* At every point where memory may end: nothing is applied, and the same record applies later. */
static void no_memory_applies_nothing(void **state)
{
    enum { CHUNK = 1000 };
    static char text[CHUNK + 3];
    struct heap *heap;
    struct fold f = {0};
    struct record c = create("\"s\"");
    uint32_t failed = 0;
    memset(text, 'x', sizeof text - 1);
    text[0] = text[CHUNK + 1] = '"';
    assert_int_equal(heap_open(&heap, 64 << 10), OK);
    f.heap = heap;
    assert_int_equal(fold_apply(&f, &c), OK);
    for (uint32_t i = 0; i < 200; i++) {
        struct record a = version(RECORD_APPEND, 11 + i, text);
        uint32_t before = f.data.bytes, versions = f.versions;
        err_t e = fold_apply(&f, &a);
        if (e == OK) {
            assert_int_equal(f.data.bytes, before + CHUNK);
            continue;
        }
        assert_int_equal(e, ERR_MEMORY);
        assert_true(f.data.bytes == before && f.versions == versions && f.delivery < 11 + i);
        failed++;
    }
    assert_true(failed > 0 && f.appends > 10);
    fold_free(&f);
    assert_int_equal(heap_used_bytes(heap), 0);
    heap_close(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_append_adds_to_the_string_and_keeps_the_rest),
        cmocka_unit_test(an_append_to_absent_data_is_the_data),
        cmocka_unit_test(an_append_with_extras_replaces_them_whole),
        cmocka_unit_test(update_and_delete_replace_and_a_delete_is_not_the_end),
        cmocka_unit_test(what_cannot_follow_changes_nothing),
        cmocka_unit_test(a_folded_record_stands_for_its_versions),
        cmocka_unit_test(no_memory_applies_nothing),
    };
    rng_seed(&rng, 3);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
