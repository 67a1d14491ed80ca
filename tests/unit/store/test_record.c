/* Goal: one packed form for each record, every damage found. Method: records of every kind with
 * every subset of parts, written and read back; every byte of a packed record changed; every prefix
 * read. */
#include "tests/unit/store/store_kit.h"

#include "core/rng.h"

static struct rng rng;

static struct slice some_text(uint8_t *room, uint32_t bytes_max)
{
    uint32_t bytes = (uint32_t)rng_below(&rng, bytes_max + 1);
    for (uint32_t i = 0; i < bytes; i++) room[i] = (uint8_t)rng_next(&rng);
    return slice_of(room, bytes);
}

static void maybe_hash(uint8_t out[16])
{
    if (rng_below(&rng, 2) == 0) return;
    for (uint32_t i = 0; i < 16; i++) out[i] = (uint8_t)rng_next(&rng);
    out[0] |= 1;
}

static struct record some_record(uint8_t room[11][64])
{
    struct record r = {
        .kind = (uint8_t)(1 + rng_below(&rng, RECORD_REQUEST)),
        .flags = (uint8_t)rng_below(&rng, 16), .chan = rng_next(&rng),
        .delivery = rng_next(&rng), .time_ms = rng_next(&rng),
    };
    uint64_t *numbers[] = {&r.history, &r.message, &r.message_ms, &r.context, &r.op_hash};
    struct slice *texts[] = {&r.name, &r.data, &r.extras, &r.tags, &r.message_id, &r.user, &r.owner,
                             &r.client, &r.op_id, &r.description, &r.metadata};
    for (uint32_t i = 0; i < 5; i++) {
        if (rng_below(&rng, 2) == 0) *numbers[i] = rng_next(&rng) | 1;
    }
    maybe_hash(r.key);
    maybe_hash(r.print);
    for (uint32_t i = 0; i < 11; i++) {
        if (rng_below(&rng, 2) == 0) *texts[i] = some_text(room[i], 63);
    }
    return r;
}

static void assert_text(struct slice a, struct slice b)
{
    assert_int_equal(a.ptr == NULL, b.ptr == NULL);
    assert_true(slice_equal(a, b));
}

static void assert_same(const struct record *a, const struct record *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->flags, b->flags);
    assert_true(a->chan == b->chan && a->delivery == b->delivery && a->history == b->history &&
                a->message == b->message && a->time_ms == b->time_ms && a->context == b->context &&
                a->message_ms == b->message_ms && a->op_hash == b->op_hash);
    assert_memory_equal(a->key, b->key, 16);
    assert_memory_equal(a->print, b->print, 16);
    assert_text(a->name, b->name);
    assert_text(a->data, b->data);
    assert_text(a->extras, b->extras);
    assert_text(a->tags, b->tags);
    assert_text(a->message_id, b->message_id);
    assert_text(a->user, b->user);
    assert_text(a->owner, b->owner);
    assert_text(a->client, b->client);
    assert_text(a->op_id, b->op_id);
    assert_text(a->description, b->description);
    assert_text(a->metadata, b->metadata);
}

static void a_record_is_read_as_it_was_written(void **state)
{
    uint8_t room[11][64], packed[2048];
    for (uint32_t i = 0; i < 20000; i++) {
        struct record r = some_record(room), got;
        uint32_t bytes = record_bytes(&r), read = 0;
        assert_true(bytes <= sizeof packed - 8);
        assert_int_equal(record_write(&r, packed), bytes);
        memset(packed + bytes, 0x5a, 8);   /* the next record's bytes are not looked at */
        assert_int_equal(record_read(slice_of(packed, bytes + 8), &got, &read), RECORD_OK);
        assert_int_equal(read, bytes);
        assert_same(&r, &got);
        assert_int_equal(record_peek(slice_of(packed, bytes), &got, &read), RECORD_OK);
        assert_same(&r, &got);
    }
}

static void absent_and_empty_are_different(void **state)
{
    uint8_t packed[256];
    struct record r = {.kind = RECORD_UPDATE, .chan = 1, .delivery = 2, .extras = slice_of("", 0)};
    struct record got;
    uint32_t bytes, written = record_write(&r, packed);
    assert_int_equal(record_read(slice_of(packed, written), &got, &bytes), RECORD_OK);
    assert_null(got.data.ptr);
    assert_non_null(got.extras.ptr);
    assert_int_equal(got.extras.bytes, 0);
}

static void a_changed_byte_is_found(void **state)
{
    uint8_t room[11][64], packed[2048];
    for (uint32_t i = 0; i < 200; i++) {
        struct record r = some_record(room), got;
        uint32_t bytes = record_write(&r, packed), read;
        for (uint32_t at = 0; at < bytes; at++) {
            uint8_t kept = packed[at];
            packed[at] ^= (uint8_t)(1 + rng_below(&rng, 255));
            assert_int_not_equal(record_read(slice_of(packed, bytes), &got, &read), RECORD_OK);
            packed[at] = kept;
        }
    }
}

static void a_cut_record_is_short(void **state)
{
    uint8_t room[11][64], packed[2048];
    for (uint32_t i = 0; i < 200; i++) {
        struct record r = some_record(room), got;
        uint32_t bytes = record_write(&r, packed), read;
        for (uint32_t cut = 0; cut < bytes; cut++) {
            assert_int_equal(record_read(slice_of(packed, cut), &got, &read), RECORD_SHORT);
        }
    }
}

/* A checksum that fits does not make nonsense a record: peek looks at the shape alone. */
static void shapes_that_no_writer_makes_are_bad(void **state)
{
    uint8_t packed[256];
    struct record r = {.kind = RECORD_CREATE, .chan = 1, .delivery = 1, .history = 5,
                       .data = slice_str("\"x\"")}, got;
    uint32_t bytes = record_write(&r, packed), read, what, length = UINT32_MAX;
    memcpy(&what, packed + 8, 4);
    uint32_t wrong[] = {what & ~15u, (what & ~15u) | 15, what | 1u << 31,
                        what ^ 1u << 8 /* no history */, what ^ 1u << 15 /* a name */};
    for (uint32_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memcpy(packed + 8, &wrong[i], 4);
        assert_int_equal(record_peek(slice_of(packed, bytes), &got, &read), RECORD_BAD);
    }
    memcpy(packed + 8, &what, 4);
    memset(packed + 36, 0, 8);             /* a zero that is written down */
    assert_int_equal(record_peek(slice_of(packed, bytes), &got, &read), RECORD_BAD);
    memcpy(packed + 4, &length, 4);
    assert_int_equal(record_peek(slice_of(packed, bytes), &got, &read), RECORD_BAD);
    length = 8;
    memcpy(packed + 4, &length, 4);
    assert_int_equal(record_peek(slice_of(packed, bytes), &got, &read), RECORD_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_read_as_it_was_written),
        cmocka_unit_test(absent_and_empty_are_different),
        cmocka_unit_test(a_changed_byte_is_found),
        cmocka_unit_test(a_cut_record_is_short),
        cmocka_unit_test(shapes_that_no_writer_makes_are_bad),
    };
    rng_seed(&rng, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
