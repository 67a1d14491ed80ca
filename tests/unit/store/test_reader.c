/* Goal    Every read answers exactly what a plain array of the same records answers: while records
 *         lie in the wal, in segments, or in both, before and after a restart, with floors of every
 *         kind, in one snapshot or in many, while commits and packing go on beside it.
 * Method  Random channels from seeds, random questions; answers are compared byte by byte.
 */
#include "read_model.h"

#include "core/hash.h"

enum { ROUNDS = 24, QUESTIONS = 12 };

static const struct store_policy forever = {
    .version_age_ms = UINT64_MAX, .receipt_age_ms = 3000};

static struct store_read question(const struct model *m, uint8_t kind)
{
    return (struct store_read){
        .kind = kind, .app_id = m->app_id, .channel = m->channel, .chan = m->chan,
        .upto = m->count, .rows_upto = UINT64_MAX, .time_upto_ms = UINT64_MAX,
        .bytes_max = 64 << 20,
    };
}

static void assert_answer(const struct store_read *r, struct model_answer *a)
{
    assert_int_equal(r->status, STORE_READ_OK);
    assert_int_equal(r->records_count, a->records);
    assert_int_equal(r->bytes_count, a->bytes_count);
    if (a->bytes_count > 0) assert_memory_equal(r->bytes, a->bytes, a->bytes_count);
    if (r->kind == STORE_VERSIONS || r->kind == STORE_ROWS) assert_int_equal(r->more, a->more);
    model_answer_free(a);
}

/* ---- one question of each kind ---- */

static void ask_range(struct model *m, struct rng *rng)
{
    struct store_read r = question(m, STORE_RANGE);
    struct model_floors floors;
    struct model_answer a;
    r.upto = rng_below(rng, m->count + 1);
    r.from = rng_below(rng, r.upto + 1);
    model_floors(m, r.upto, &floors);
    kit_read(m->kit, &r);
    bool whole = model_range(m, r.from, r.upto, floors.replay, &a);
    if (r.from < r.upto && r.from + 1 < floors.replay) {
        assert_int_equal(r.status, STORE_READ_GONE);
        model_answer_free(&a);
    } else if (r.status == STORE_READ_GONE) {
        assert_false(whole);
        model_answer_free(&a);
    } else {
        assert_answer(&r, &a);
        assert_int_equal(r.head.delivery, r.upto);
    }
    store_read_free(&r);
}

static void ask_message(struct model *m, struct rng *rng)
{
    struct store_read r = question(m, STORE_MESSAGE);
    struct model_answer a;
    uint32_t versions, appends, ops;
    r.upto = 1 + rng_below(rng, m->count);
    r.message = 1 + rng_below(rng, r.upto);
    if (rng_below(rng, 3) != 0) r.message = model_record_at(m, r.message)->message;
    bool there = model_message(m, r.message, r.upto, &a, &versions, &appends, &ops);
    kit_read(m->kit, &r);
    if (!there || !model_keeps(m, r.message, r.upto)) {
        assert_int_equal(r.status, STORE_READ_NOT_FOUND);
        model_answer_free(&a);
    } else {
        assert_answer(&r, &a);
        assert_int_equal(r.versions, versions);
        assert_int_equal(r.appends, appends);
        assert_int_equal(r.ops_count, ops);
        for (uint32_t i = 0; i < r.ops_count; i++) {
            const struct record *x = model_record_at(m, r.ops[2 * i + 1]);
            assert_int_equal(x->message, r.message);
            assert_int_equal(x->op_hash, r.ops[2 * i]);
        }
    }
    store_read_free(&r);
}

/* The last record of an answer that has not this flag: a page goes on behind it. */
static bool last_without(const struct store_read *r, uint8_t flag, struct record *out)
{
    bool found = false;
    struct slice rest = slice_of(r->bytes, r->bytes_count);
    for (uint32_t bytes; rest.bytes > 0; rest = slice_skip(rest, bytes)) {
        struct record x;
        assert_int_equal(record_read(rest, &x, &bytes), RECORD_OK);
        if ((x.flags & flag) != 0) continue;
        *out = x;
        found = true;
    }
    return found;
}

/* All pages, one after the other. */
static void ask_versions(struct model *m, struct rng *rng)
{
    struct store_read r = question(m, STORE_VERSIONS);
    struct model_answer a;
    struct record x;
    r.upto = 1 + rng_below(rng, m->count);
    r.message = model_record_at(m, 1 + rng_below(rng, r.upto))->message;
    r.limit = 1 + (uint32_t)rng_below(rng, 30);
    r.newest_first = rng_below(rng, 2) == 0;
    for (bool more = true; more;) {
        kit_read(m->kit, &r);
        if (!model_keeps(m, r.message, r.upto)) {
            assert_int_equal(r.status, STORE_READ_NOT_FOUND);
            return;
        }
        model_versions(m, &r, &a);
        assert_answer(&r, &a);
        more = r.more;
        if (last_without(&r, RECORD_CONTEXT, &x)) r.from = x.delivery;
        store_read_free(&r);
    }
}

static void ask_rows(struct model *m, struct rng *rng, bool past)
{
    struct store_read r = question(m, STORE_ROWS);
    struct model_answer a;
    struct record x;
    if (past) r.upto = 1 + rng_below(rng, m->count);
    r.limit = 1 + (uint32_t)rng_below(rng, 60);
    r.newest_first = rng_below(rng, 2) == 0;
    if (rng_below(rng, 3) == 0) r.rows_from = rng_below(rng, m->history_next);
    if (rng_below(rng, 3) == 0) r.rows_upto = rng_below(rng, m->history_next + 1);
    uint64_t first_ms = model_record_at(m, 1)->time_ms, span = m->time_ms - first_ms + 2;
    if (rng_below(rng, 3) == 0) r.time_from_ms = first_ms - 1 + rng_below(rng, span + 1);
    if (rng_below(rng, 3) == 0) r.time_upto_ms = first_ms - 1 + rng_below(rng, span + 1);
    for (bool more = true; more;) {
        kit_read(m->kit, &r);
        model_rows(m, &r, &a);
        assert_answer(&r, &a);
        more = r.more;
        if (last_without(&r, RECORD_FOLDED, &x)) r.rows_after = x.history;
        store_read_free(&r);
    }
}

static void ask_open(struct model *m, struct rng *rng)
{
    struct store_read r = question(m, STORE_OPEN);
    struct model_floors floors;
    static const uint8_t none[16];
    uint32_t n = 0;
    r.receipt_age_ms = rng_below(rng, 3) == 0 ? 0 : 1 + rng_below(rng, 3000);
    model_floors(m, m->count, &floors);
    kit_read(m->kit, &r);
    assert_int_equal(r.status, STORE_READ_OK);
    assert_int_equal(r.head.chan, m->chan);
    assert_int_equal(r.head.delivery, m->count);
    assert_int_equal(r.head.history_next, m->history_next);
    assert_int_equal(r.head.history_epoch, m->history_epoch);
    assert_int_equal(r.head.rows_first, floors.rows_first);
    assert_int_equal(r.head.rows_newest, floors.rows_newest);
    assert_int_equal(r.head.rows_count, floors.rows_count);
    assert_int_equal(r.head.rows_bytes, floors.rows_bytes);
    assert_int_equal(r.head.row_floor, floors.row);
    for (uint64_t d = 1; d <= m->count; d++) {
        const struct record *x = model_record_at(m, d);
        if (x->time_ms + r.receipt_age_ms <= kit_now_ms || r.receipt_age_ms == 0) continue;
        if (memcmp(x->key, none, sizeof none) == 0) continue;
        assert_true(n < r.receipts_count);
        assert_int_equal(r.receipts[n].delivery, d);
        assert_memory_equal(r.receipts[n].key, x->key, sizeof none);
        assert_memory_equal(r.receipts[n].print, x->print, sizeof none);
        n++;
    }
    assert_int_equal(r.receipts_count, n);
    store_read_free(&r);
}

static void ask_all(struct model *m, struct rng *rng, bool past)
{
    for (uint32_t i = 0; i < QUESTIONS; i++) {
        if (past) {
            ask_range(m, rng);
            ask_message(m, rng);
            ask_versions(m, rng);
        }
        ask_rows(m, rng, past);
    }
    ask_open(m, rng);
}

/* ---- cases ---- */

static void one_seed(uint64_t seed, uint32_t text_max)
{
    struct kit k = {.lane = seed % KIT_LANES};
    struct model m[3];
    struct rng rng;
    rng_seed(&rng, seed);
    kit_policy = forever;
    kit_make_dir(&k);
    kit_start(&k);
    model_open(&m[0], &k, &rng, "app", "notes");
    model_open(&m[1], &k, &rng, "app", "other");
    model_open(&m[2], &k, &rng, "app-2", "notes");
    m[1].text_max = 20;
    m[2].text_max = text_max;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < 3; i++) {
            model_grow(&m[i], 1 + (uint32_t)rng_below(&rng, 80));
            if (rng_below(&rng, 2) == 0) kit_commit(&k);
        }
        kit_commit(&k);
        if (rng_below(&rng, 12) == 0) {
            model_reset(&m[rng_below(&rng, 2)]);
            kit_commit(&k);
        }
        if (rng_below(&rng, 12) == 0) {
            struct model *x = &m[rng_below(&rng, 2)];
            model_purge(x, rng_below(&rng, x->count + 1));
            kit_commit(&k);
        }
        if (rng_below(&rng, 3) == 0) kit_settle(&k);
        if (rng_below(&rng, 6) == 0) kit_restart(&k);
        if (round % 4 == 3) ask_all(&m[rng_below(&rng, 3)], &rng, true);
    }
    for (uint32_t i = 0; i < 3; i++) ask_all(&m[i], &rng, true);
    for (uint32_t i = 0; i < 3; i++) model_close(&m[i]);
    kit_stop(&k);
    kit_remove_dir(&k);
}

static void reads_answer_what_the_model_answers(void **state)
{
    for (uint64_t seed = 1; seed <= 6; seed++) one_seed(seed, 300);
}

/* A megabyte and more a read: each goes through many snapshots. */
static void long_reads_go_through_many_snapshots(void **state)
{
    for (uint64_t seed = 11; seed <= 12; seed++) one_seed(seed, 20000);
}

static void floors_one_policy(const struct store_policy *policy, uint64_t seed)
{
    struct kit k = {.lane = 0};
    struct model m;
    struct rng rng;
    rng_seed(&rng, seed);
    kit_policy = *policy;
    kit_policy.receipt_age_ms = 3000;
    kit_make_dir(&k);
    kit_start(&k);
    model_open(&m, &k, &rng, "app", "notes");
    m.text_max = 400;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        model_grow(&m, 1 + (uint32_t)rng_below(&rng, 120));
        kit_commit(&k);
        kit_now_ms += 300;
        if (rng_below(&rng, 2) == 0) kit_settle(&k);
        if (rng_below(&rng, 6) == 0) kit_restart(&k);
        ask_all(&m, &rng, false);
        for (uint32_t i = 0; policy->messages_max + policy->bytes_max == 0 && i < 4; i++) {
            ask_range(&m, &rng);
            ask_message(&m, &rng);
            ask_versions(&m, &rng);
        }
    }
    model_close(&m);
    kit_stop(&k);
    kit_remove_dir(&k);
}

static void floors_are_those_of_the_policy(void **state)
{
    const struct store_policy policies[] = {
        {.messages_max = 40, .version_age_ms = UINT64_MAX},
        {.bytes_max = 60000, .version_age_ms = UINT64_MAX},
        {.age_ms = 2500, .version_age_ms = UINT64_MAX},
        {.age_ms = 2500, .version_age_ms = 0},
        {.age_ms = 2500, .version_age_ms = 900},
        {.age_ms = 900, .version_age_ms = 2500},
        {.age_ms = 3000, .messages_max = 100, .bytes_max = 90000, .version_age_ms = 0},
    };
    for (uint32_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        floors_one_policy(&policies[i], 21 + i);
    }
}

/* The answer is that of `upto`, whatever is committed and packed while the read runs. */
static void commits_beside_a_read_do_not_change_it(void **state)
{
    struct kit k = {.lane = 1};
    struct model m;
    struct rng rng;
    struct model_answer a;
    rng_seed(&rng, 31);
    kit_policy = forever;
    kit_make_dir(&k);
    kit_start(&k);
    model_open(&m, &k, &rng, "app", "notes");
    m.text_max = 12000;
    for (uint32_t i = 0; i < 8; i++) {
        model_grow(&m, 60);
        kit_commit(&k);
    }
    for (uint32_t i = 0; i < 9; i++) {
        const uint8_t kinds[] = {STORE_RANGE, STORE_ROWS, STORE_VERSIONS};
        struct store_read r = question(&m, kinds[i % 3]);
        uint32_t rounds = 0;
        r.newest_first = i % 2 == 0;
        r.limit = r.kind == STORE_RANGE ? 0 : 100000;
        r.message = 1;
        uint32_t count = m.count;
        kit_read_post(&k, &r);
        while (k.pending != NULL) {
            model_grow(&m, 6);
            kit_commit(&k);
            rounds++;
        }
        assert_true(rounds > 1 || r.kind == STORE_VERSIONS);
        uint32_t grown = m.count;
        m.count = count;
        if (r.kind == STORE_RANGE) (void)model_range(&m, 0, count, 0, &a);
        if (r.kind == STORE_ROWS) model_rows(&m, &r, &a);
        if (r.kind == STORE_VERSIONS) model_versions(&m, &r, &a);
        m.count = grown;
        assert_answer(&r, &a);
        store_read_free(&r);
    }
    model_close(&m);
    kit_stop(&k);
    kit_remove_dir(&k);
}

static void bounds_of_an_answer_hold(void **state)
{
    struct kit k = {.lane = 0};
    struct model m;
    struct rng rng;
    rng_seed(&rng, 41);
    kit_policy = forever;
    kit_make_dir(&k);
    kit_start(&k);
    model_open(&m, &k, &rng, "app", "notes");
    model_grow(&m, 300);
    kit_commit(&k);

    struct store_read r = question(&m, STORE_RANGE);
    r.limit = 299;
    kit_read(&k, &r);
    assert_int_equal(r.status, STORE_READ_LARGE);
    assert_null(r.bytes);
    r.limit = 300;
    kit_read(&k, &r);
    assert_int_equal(r.status, STORE_READ_OK);
    uint32_t bytes = r.bytes_count;
    store_read_free(&r);
    r.bytes_max = bytes - 1;
    kit_read(&k, &r);
    assert_int_equal(r.status, STORE_READ_LARGE);
    assert_null(r.bytes);

    r = question(&m, STORE_ROWS);              /* a page that is cut by bytes goes on */
    r.bytes_max = 2000;
    uint32_t rows = 0;
    do {
        kit_read(&k, &r);
        assert_int_equal(r.status, STORE_READ_OK);
        struct slice rest = slice_of(r.bytes, r.bytes_count);
        struct record x;
        for (uint32_t one; rest.bytes > 0; rest = slice_skip(rest, one)) {
            assert_int_equal(record_read(rest, &x, &one), RECORD_OK);
            if ((x.flags & RECORD_FOLDED) != 0) continue;
            assert_int_equal(x.history, r.rows_after + 1);
            r.rows_after = x.history;
            rows++;
        }
        store_read_free(&r);
    } while (r.more);
    assert_int_equal(rows, m.history_next - 1);

    r = question(&m, STORE_RANGE);             /* newer than what is committed: not to be shown */
    r.upto = m.count + 1;
    kit_read(&k, &r);
    assert_int_equal(r.status, STORE_READ_IO);
    model_close(&m);
    kit_stop(&k);
    kit_remove_dir(&k);
}

static void a_channel_never_seen_is_empty(void **state)
{
    struct kit k = {.lane = 0};
    kit_policy = forever;
    kit_make_dir(&k);
    kit_start(&k);
    struct store_read r = {.kind = STORE_OPEN, .app_id = slice_str("app"),
                           .channel = slice_str("never"), .receipt_age_ms = 1000};
    kit_read(&k, &r);
    assert_int_equal(r.status, STORE_READ_OK);
    assert_false(r.head.known);
    assert_int_equal(r.head.delivery, 0);
    assert_int_equal(r.head.history_next, 1);
    assert_int_equal(r.head.replay_floor, 1);
    r.chan = r.head.chan;
    r.rows_upto = r.time_upto_ms = UINT64_MAX;
    const uint8_t kinds[] = {STORE_RANGE, STORE_ROWS, STORE_MESSAGE, STORE_VERSIONS};
    for (uint32_t i = 0; i < 4; i++) {
        r.kind = kinds[i];
        r.message = 1;
        kit_read(&k, &r);
        assert_int_equal(r.status, i < 2 ? STORE_READ_OK : STORE_READ_NOT_FOUND);
        assert_int_equal(r.records_count, 0);
        store_read_free(&r);
    }
    kit_stop(&k);
    kit_remove_dir(&k);
}

/* ---- what a start needs ---- */

static void add_event(struct kit *k, uint64_t chan, uint64_t delivery, const char *user,
                      const char *event)
{
    struct record r = {.kind = RECORD_PRESENCE, .flags = RECORD_WHOLE, .chan = chan,
                       .delivery = delivery, .history = delivery, .message = delivery,
                       .time_ms = kit_now_ms, .message_ms = kit_now_ms, .context = delivery,
                       .name = slice_str(event), .data = slice_str("{}"), .user = slice_str(user)};
    kit_add(k, &r);
}

static void a_start_gets_members_and_request_keys(void **state)
{
    struct kit k = {.lane = 0};
    struct record x, request = {.kind = RECORD_REQUEST, .data = slice_str("{\"ok\":true}")};
    uint32_t bytes, members = 0, requests = 0;
    kit_policy = forever;
    kit_make_dir(&k);
    kit_start(&k);
    struct slice hidden = slice_str("[presence-history]presence-lab");
    uint64_t chan = kit_channel(&k, slice_str("app"), hidden);
    add_event(&k, chan, 1, "ann", "\"member_added\"");
    add_event(&k, chan, 2, "bob", "\"member_added\"");
    add_event(&k, chan, 3, "ann", "\"member_removed\"");
    add_event(&k, chan, 4, "bob", "\"member_updated\"");
    request.time_ms = kit_now_ms;
    request.key[0] = 1;
    kit_add(&k, &request);
    kit_commit(&k);
    kit_now_ms += 1000;
    request.key[0] = 2;
    request.time_ms = kit_now_ms;
    kit_add(&k, &request);
    kit_commit(&k);
    kit_restart(&k);

    uint32_t slot = hash_slot(slice_str("app"), slice_str("presence-lab"));
    for (uint32_t i = 0; i < 2; i++) {         /* the slots of the channel, and those behind */
        struct store_read r = {.kind = STORE_ACTIVE, .receipt_age_ms = 1000,
                               .slot_from = i == 0 ? 0 : slot + 1, .slot_upto = 1024};
        kit_read(&k, &r);
        assert_int_equal(r.status, STORE_READ_OK);
        struct slice rest = slice_of(r.bytes, r.bytes_count);
        for (; rest.bytes > 0; rest = slice_skip(rest, bytes)) {
            assert_int_equal(record_read(rest, &x, &bytes), RECORD_OK);
            if (x.kind == RECORD_CHANNEL) {
                assert_true(slice_equal(slice_skip(x.data, 4), hidden));
            } else if (x.kind == RECORD_PRESENCE) {
                assert_int_equal(x.delivery, 4);
                members++;
            } else {
                assert_int_equal(x.kind, RECORD_REQUEST);
                assert_int_equal(x.key[0], 2);
                requests++;
            }
        }
        store_read_free(&r);
        assert_int_equal(members, 1);
        assert_int_equal(requests, i + 1);
    }
    kit_stop(&k);
    kit_remove_dir(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_channel_never_seen_is_empty),
        cmocka_unit_test(reads_answer_what_the_model_answers),
        cmocka_unit_test(long_reads_go_through_many_snapshots),
        cmocka_unit_test(floors_are_those_of_the_policy),
        cmocka_unit_test(commits_beside_a_read_do_not_change_it),
        cmocka_unit_test(bounds_of_an_answer_hold),
        cmocka_unit_test(a_start_gets_members_and_request_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
