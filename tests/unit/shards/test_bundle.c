/* Goal    Sockets that are to be sent the same frames get them in one piece; whatever each socket
 *         holds, it gets exactly that, in its order; the bounds count every frame of a bundle; and
 *         nothing is left behind.
 * Method  The send queues of a shard without a ring: ring_send (wrapped by the linker) writes down
 *         what each socket is sent, the test says when a send ends and after how many bytes.
 */
#include "shards/conn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/rng.h"

enum { CONNS = 24, STREAM_MAX = 4 << 20, MAX_MESSAGES = 10 };

struct peer {
    uint8_t  sent[STREAM_MAX], expected[STREAM_MAX];
    uint32_t sent_bytes, expected_bytes;
    uint32_t pieces, under_way;          /* of the last send; its bytes that have not been taken */
};

struct fixture {
    struct conf_app     app;
    struct conf         conf;
    struct server       server;
    struct shard        sh;
    struct metric_table table;
    struct metrics      metrics;
    struct conn         conns[CONNS];
    uint32_t            conn_of_sock[CONNS];
    struct peer         peers[CONNS];
    uint64_t            objects;         /* live at the start */
    uint32_t            pieces;          /* of all sends */
};

static struct fixture *now;

/* The kernel copies what the socket's buffer takes; what is more must stay as it is until the send
 * ends, so only then it is looked at: see end_send. */
static struct iovec under_way[CONNS][RING_SEND_IOV_MAX];

void __wrap_ring_send(struct ring *r, uint32_t sock, uint32_t gen, const struct iovec *iov,
                      uint32_t iov_count);
void __wrap_ring_send(struct ring *r, uint32_t sock, uint32_t gen, const struct iovec *iov,
                      uint32_t iov_count)
{
    struct peer *p = &now->peers[sock];
    assert_int_equal(p->under_way, 0);
    memcpy(under_way[sock], iov, iov_count * sizeof(*iov));
    p->pieces = iov_count;
    for (uint32_t i = 0; i < iov_count; i++) p->under_way += (uint32_t)iov[i].iov_len;
    assert_true(p->under_way > 0);
    now->pieces += iov_count;
}

static int fixture_open(void **state)
{
    static const char *const ids[] = {"app"};
    static const struct metric_table_conf table_conf = {ids, 1, "sockudo_", "9601"};
    struct fixture *f = now = calloc(1, sizeof(*f));
    f->app.id = (char *)(uintptr_t)ids[0];
    f->conf = (struct conf){.apps = &f->app, .apps_count = 1, .websocket_max_bytes = 1 << 20,
                            .websocket_max_messages = 1000, .websocket_close_timeout_ms = 1000};
    f->server = (struct server){.conf = &f->conf, .shards_count = 1};
    f->sh = (struct shard){.server = &f->server, .conf = &f->conf, .metrics = &f->metrics,
                           .conns = f->conns, .conn_of_sock = f->conn_of_sock};
    timer_wheel_open(&f->sh.re.wheel, 0);
    assert_int_equal(metric_table_open(&f->table, series_table, METRIC_COUNT, &table_conf), OK);
    assert_int_equal(metric_open(&f->metrics, &f->table, 0), OK);
    assert_int_equal(heap_open(&f->sh.heap, 64 << 20), OK);
    for (uint32_t i = 0; i < CONNS; i++) {
        f->conns[i].gen = 1;
        f->conns[i].ring_sock = f->conn_of_sock[i] = i;
        f->conns[i].state = CONN_WS;
    }
    f->objects = heap_used_objects(f->sh.heap);
    *state = f;
    return 0;
}

static int fixture_close(void **state)
{
    struct fixture *f = *state;
    heap_close(&f->sh.heap);
    metric_close(&f->metrics);
    metric_table_close(&f->table);
    free(f);
    return 0;
}

/* The kernel has taken `bytes` of what is under way. */
static void end_send(struct fixture *f, uint32_t i, uint32_t bytes)
{
    struct peer *p = &f->peers[i];
    uint32_t left = bytes;
    for (uint32_t k = 0; k < p->pieces && left > 0; k++) {
        uint32_t n = u32_min(left, (uint32_t)under_way[i][k].iov_len);
        assert_true(p->sent_bytes + n <= STREAM_MAX);
        memcpy(p->sent + p->sent_bytes, under_way[i][k].iov_base, n);
        p->sent_bytes += n;
        left -= n;
    }
    p->under_way = 0;
    conn_on_sent(&f->sh, i, 1, (int32_t)bytes);
}

static void end_all_sends(struct fixture *f)
{
    for (uint32_t i = 0; i < CONNS; i++) {
        while (f->peers[i].under_way > 0) end_send(f, i, f->peers[i].under_way);
    }
}

static void flush(struct fixture *f)
{
    f->sh.re.stats.turns++;
    conn_flush_all(&f->sh);
}

/* A frame whose bytes nobody else has. */
static struct frame *fresh_frame(struct fixture *f, uint32_t bytes)
{
    static uint64_t number;
    struct frame *frame = frame_make(&f->sh, bytes);
    assert_non_null(frame);
    for (uint32_t i = 0; i < bytes; i++) frame_room(frame)[i] = (uint8_t)(++number * 31 >> 3);
    frame->bytes_count = bytes;
    return frame;
}

static bool give(struct fixture *f, uint32_t i, struct frame *frame)
{
    struct peer *p = &f->peers[i];
    if (!conn_send(&f->sh, &f->conns[i], frame)) return false;
    assert_true(p->expected_bytes + frame->bytes_count <= STREAM_MAX);
    memcpy(p->expected + p->expected_bytes, frame->bytes, frame->bytes_count);
    p->expected_bytes += frame->bytes_count;
    return true;
}

/* `frames` frames of `bytes` to the first `conns` sockets. */
static void give_many(struct fixture *f, uint32_t conns, uint32_t frames, uint32_t bytes)
{
    for (uint32_t k = 0; k < frames; k++) {
        struct frame *frame = fresh_frame(f, bytes);
        for (uint32_t i = 0; i < conns; i++) assert_true(give(f, i, frame));
        frame_put(&f->sh, &frame);
    }
}

static void check_all_came(const struct fixture *f)
{
    for (uint32_t i = 0; i < CONNS; i++) {
        const struct peer *p = &f->peers[i];
        assert_int_equal(p->sent_bytes, p->expected_bytes);
        assert_memory_equal(p->sent, p->expected, p->sent_bytes);
        assert_int_equal(f->conns[i].out_count, 0);
        assert_int_equal(f->conns[i].out_bytes, 0);
    }
    assert_int_equal(heap_used_objects(f->sh.heap), f->objects);
}

static void what_many_sockets_hold_leaves_in_one_piece(void **state)
{
    struct fixture *f = *state;
    give_many(f, CONNS, 40, 100);
    flush(f);
    assert_int_equal(f->peers[0].pieces, 40);   /* nobody else was known to have them */
    for (uint32_t i = 1; i < CONNS; i++) assert_int_equal(f->peers[i].pieces, 1);
    for (uint32_t i = 0; i < CONNS; i++) assert_int_equal(f->conns[i].out_count, 40);
    end_all_sends(f);
    assert_int_equal(f->sh.send_frames, 40 * CONNS);
    check_all_came(f);
}

static void small_channels_and_large_frames_are_sent_as_they_are(void **state)
{
    struct fixture *f = *state;
    give_many(f, BUNDLE_HOLDERS_MIN - 1, 5, 100);
    flush(f);
    for (uint32_t i = 0; i < BUNDLE_HOLDERS_MIN - 1; i++) assert_int_equal(f->peers[i].pieces, 5);
    end_all_sends(f);
    give_many(f, CONNS, 5, BUNDLE_FRAME_BYTES_MAX + 1);
    flush(f);
    for (uint32_t i = 0; i < CONNS; i++) assert_int_equal(f->peers[i].pieces, 5);
    end_all_sends(f);
    give_many(f, CONNS, 3, 100);
    give_many(f, CONNS, 2, BUNDLE_FRAME_BYTES_MAX + 1);
    give_many(f, CONNS, 2, 100);
    flush(f);
    for (uint32_t i = 1; i < CONNS; i++) assert_int_equal(f->peers[i].pieces, 1 + 2 + 2);
    end_all_sends(f);
    give_many(f, CONNS, BUNDLE_BYTES_MAX / BUNDLE_FRAME_BYTES_MAX + 3, BUNDLE_FRAME_BYTES_MAX);
    flush(f);
    for (uint32_t i = 1; i < CONNS; i++) assert_int_equal(f->peers[i].pieces, 1 + 3);
    end_all_sends(f);
    check_all_came(f);
}

/* An event that excludes its publisher, a subscriber that came in the middle, an answer between two
 * events: such a queue is another one, and what it has in common with others is still bundled. */
static void a_socket_with_other_frames_gets_its_own(void **state)
{
    enum { EXCLUDED = 3, LATE = 5, ANSWERED = 7 };
    struct fixture *f = *state;
    for (uint32_t k = 0; k < 10; k++) {
        struct frame *frame = fresh_frame(f, 50 + k), *own = fresh_frame(f, 20);
        for (uint32_t i = 0; i < CONNS; i++) {
            if ((i == EXCLUDED && k == 4) || (i == LATE && k < 6)) continue;
            assert_true(give(f, i, frame));
            if (i == ANSWERED && k == 7) assert_true(give(f, i, own));
        }
        frame_put(&f->sh, &own);
        frame_put(&f->sh, &frame);
    }
    flush(f);
    assert_int_equal(f->peers[CONNS - 1].pieces, 1);
    assert_int_equal(f->peers[EXCLUDED].pieces, 9);
    assert_int_equal(f->peers[LATE].pieces, 4);
    assert_int_equal(f->peers[ANSWERED].pieces, 11);   /* its run of eight is only its own */
    end_all_sends(f);
    check_all_came(f);
}

/* One round of the test below: an answer that takes several sends, to one socket; frames to all,
 * most or few, with siblings, some of them large. */
static void give_at_random(struct fixture *f, struct rng *rng)
{
    uint64_t frames = rng_below(rng, 12);
    bool to_all = rng_below(rng, 3) != 0;
    if (rng_below(rng, 50) == 0) {
        struct frame *answer = fresh_frame(f, CONN_SEND_BYTES + 5000);
        answer->asked = true;
        assert_true(give(f, (uint32_t)rng_below(rng, CONNS), answer));
        frame_put(&f->sh, &answer);
    }
    for (uint64_t k = 0; k < frames; k++) {
        bool large = rng_below(rng, 20) == 0;
        uint32_t bytes = 1 + (uint32_t)rng_below(rng, large ? 6000 : 200);
        struct frame *frame = fresh_frame(f, bytes);
        if (rng_below(rng, 3) == 0) {
            struct frame *s = frame->v2 = frame_sibling(&f->sh, frame, 40);
            memset(frame_room(s), (int)k + 1, 40);
            s->bytes_count = 40;
        }
        uint64_t kind = to_all ? 8 : rng_below(rng, 8);
        for (uint32_t i = 0; i < CONNS; i++) {
            if (kind == 0 && rng_below(rng, 6) != 0) continue;   /* to few */
            if (kind <= 2 && rng_below(rng, 12) == 0) continue;  /* to most */
            assert_true(give(f, i, frame->v2 != NULL && i % 2 == 0 ? frame->v2 : frame));
        }
        frame_put(&f->sh, &frame);
    }
}

static void every_socket_gets_what_it_was_given_in_order(void **state)
{
    struct fixture *f = *state;
    struct rng rng;
    rng_seed(&rng, 11);
    for (uint32_t round = 0; round < 1000; round++) {
        give_at_random(f, &rng);
        if (rng_below(&rng, 4) != 0) flush(f);
        if (rng_below(&rng, 2) == 0) end_all_sends(f);
        for (uint32_t i = 0; i < CONNS; i++) {
            uint32_t bytes = f->peers[i].under_way;
            if (bytes == 0 || rng_below(&rng, 3) == 0) continue;
            end_send(f, i, rng_below(&rng, 5) == 0 ? 1 + (uint32_t)rng_below(&rng, bytes) : bytes);
        }
    }
    flush(f);
    end_all_sends(f);
    flush(f);                            /* the end of the turn in which sends ended */
    conn_watch_all(&f->sh);
    assert_true(f->pieces < f->sh.send_frames * 2 / 3);
    check_all_came(f);
}

static void a_bundle_counts_as_the_frames_in_it(void **state)
{
    enum { SLOW = 2 };
    struct fixture *f = *state;
    struct conn *slow = &f->conns[SLOW];
    f->conf.websocket_max_messages = MAX_MESSAGES;
    give_many(f, CONNS, MAX_MESSAGES - 2, 100);
    flush(f);
    assert_int_equal(f->peers[SLOW].pieces, 1);
    for (uint32_t i = 0; i < CONNS; i++) {
        if (i != SLOW) end_send(f, i, f->peers[i].under_way);
    }
    for (uint32_t turns = 0; turns < 3; turns++) flush(f);   /* the peer takes nothing */
    give_many(f, CONNS, 2, 100);
    struct frame *frame = fresh_frame(f, 100);
    assert_false(give(f, SLOW, frame));
    assert_true(give(f, SLOW + 1, frame));
    frame_put(&f->sh, &frame);
    assert_true(slow->slow && slow->state == CONN_CLOSING);

    /* What is under way leaves whole, then error and Close; what waited behind it is gone. */
    uint32_t whole = f->peers[SLOW].under_way;
    assert_int_equal(whole, (MAX_MESSAGES - 2) * 100);
    assert_int_equal(slow->out_count, MAX_MESSAGES - 2 + 2);
    end_send(f, SLOW, whole);
    assert_memory_equal(f->peers[SLOW].sent, f->peers[SLOW].expected, whole);
    slow->half_shut = true;              /* there is no ring to shut it down */
    flush(f);
    end_all_sends(f);
    f->peers[SLOW].sent_bytes = f->peers[SLOW].expected_bytes = 0;
    check_all_came(f);
}

static void a_dead_socket_lets_go_of_its_bundle_when_its_send_ends(void **state)
{
    struct fixture *f = *state;
    give_many(f, CONNS, 6, 100);
    flush(f);
    for (uint32_t i = 0; i < CONNS; i++) {
        if (i != 4) end_send(f, i, f->peers[i].under_way);
    }
    assert_int_equal(heap_used_objects(f->sh.heap), f->objects + 1);   /* the bundle */
    conn_drop_out(&f->sh, &f->conns[4], false);
    assert_int_equal(f->conns[4].out_count, 6);
    end_send(f, 4, f->peers[4].under_way);
    check_all_came(f);
}

static void without_memory_for_a_bundle_frames_go_one_by_one(void **state)
{
    enum { BLOCKS = 4000 };
    struct fixture *f = *state;
    static struct { void *block; uint32_t bytes; } taken[BLOCKS];
    uint32_t count = 0, bytes = 64 << 10;
    give_many(f, CONNS, 10, 1000);
    while (bytes >= 1024) {
        void *block = heap_alloc(f->sh.heap, bytes);
        if (block == NULL) bytes /= 2;
        else taken[count].block = block, taken[count++].bytes = bytes;
        assert_true(count < BLOCKS);
    }
    flush(f);
    for (uint32_t i = 0; i < CONNS; i++) assert_int_equal(f->peers[i].pieces, 10);
    end_all_sends(f);
    while (count-- > 0) heap_free(f->sh.heap, taken[count].block, taken[count].bytes);
    check_all_came(f);
}

int main(void)
{
#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, fixture_open, fixture_close)
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(what_many_sockets_hold_leaves_in_one_piece),
        WITH_FIXTURE(small_channels_and_large_frames_are_sent_as_they_are),
        WITH_FIXTURE(a_socket_with_other_frames_gets_its_own),
        WITH_FIXTURE(every_socket_gets_what_it_was_given_in_order),
        WITH_FIXTURE(a_bundle_counts_as_the_frames_in_it),
        WITH_FIXTURE(a_dead_socket_lets_go_of_its_bundle_when_its_send_ends),
        WITH_FIXTURE(without_memory_for_a_bundle_frames_go_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
