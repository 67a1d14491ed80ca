/* The send queue: one frame pointer in the connection, then a list of small segments of them,
 * drained by one vectored send at a time. Pushing a frame onto an idle connection is one pointer
 * store; nothing is copied or allocated per subscriber. A segment is taken from the shard's pool
 * only for frames that queue behind another one. What many queues begin with leaves in one piece
 * (bundle.h): naming each frame in each send cost the kernel more than all that happens here. */
#include "shards/conn.h"
#include "shards/session.h"

static bool push_behind(struct shard *sh, struct conn *c, struct frame *f)
{
    struct conn_queue *q = c->out_last;
    if (q == NULL || q->tail == CONN_QUEUE_FRAMES) {
        struct conn_queue *fresh = heap_alloc(sh->heap, sizeof(*fresh));
        if (fresh == NULL) return false;
        fresh->next = NULL;
        fresh->head = fresh->tail = 0;
        if (q == NULL) c->out_first = fresh;
        else q->next = fresh;
        c->out_last = q = fresh;
    }
    q->frames[q->tail++] = frame_ref(f);
    return true;
}

/* ---- sockets that are to take large answers ---- */

struct conn_watch { uint32_t sock, gen, send_turn; uint64_t since_ms; };

static bool watch(struct shard *sh, const struct conn *c)
{
    uint32_t size = (uint32_t)sizeof(*sh->watched);
    if (sh->watched_count == sh->watched_room) {
        uint32_t room = u32_max(2 * sh->watched_room, 16);
        struct conn_watch *fresh = heap_alloc(sh->heap, size * room);
        if (fresh == NULL) return false;
        if (sh->watched_count > 0) memcpy(fresh, sh->watched, (size_t)size * sh->watched_count);
        heap_free(sh->heap, sh->watched, size * sh->watched_room);
        sh->watched = fresh;
        sh->watched_room = room;
    }
    sh->watched[sh->watched_count++] = (struct conn_watch){
        .sock = conn_sock(sh, c), .gen = c->gen, .send_turn = c->send_turn,
        .since_ms = sh->re.now_ms,
    };
    return true;
}

/* Answers wait, and it has just become more than what one send takes. */
static bool is_to_be_watched(const struct conn *c, uint32_t before)
{
    return c->out_asked > 0 && before <= CONN_SEND_BYTES && c->out_bytes > CONN_SEND_BYTES;
}

/* False: no more need to. Every send that ends is followed by another one. */
static bool is_watched(struct shard *sh, struct conn_watch *w)
{
    struct conn *c = conn_get(sh, w->sock, w->gen);
    if (c == NULL || c->state != CONN_WS) return false;
    if (c->out_asked == 0 || c->out_bytes <= CONN_SEND_BYTES) return false;
    if (c->send_turn != w->send_turn || !c->sending) {
        w->send_turn = c->send_turn;
        w->since_ms = sh->re.now_ms;
    }
    if (sh->re.now_ms - w->since_ms < sh->conf->websocket_pong_timeout * 1000ull) return true;
    conn_overflow(sh, c, SERIES_SLOW_BYTES);
    return false;
}

void conn_watch_all(struct shard *sh)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < sh->watched_count; i++) {
        if (is_watched(sh, &sh->watched[i])) sh->watched[left++] = sh->watched[i];
    }
    sh->watched_count = left;
    if (left > 0 || sh->watched == NULL) return;
    heap_free(sh->heap, sh->watched, (uint32_t)sizeof(*sh->watched) * sh->watched_room);
    sh->watched = NULL;
    sh->watched_room = 0;
}

/* ---- the queue ---- */

static bool push(struct shard *sh, struct conn *c, struct frame *f)
{
    uint32_t before = c->out_bytes;
    if (c->out_count == 0) c->out_one = frame_ref(f);
    else if (!push_behind(sh, c, f)) return false;
    c->out_bytes += f->bytes_count;
    if (f->asked) c->out_asked += f->bytes_count;
    c->out_count += 1 + f->more;
    if (!c->flushing) {
        c->flushing = true;
        c->flush_next = 0;
        uint32_t mark = conn_sock(sh, c) + 1;
        if (sh->flush_last == 0) sh->flush_first = mark;
        else sh->conns[sh->flush_last - 1].flush_next = mark;
        sh->flush_last = mark;
    }
    return !is_to_be_watched(c, before) || watch(sh, c);
}

static struct frame *front(const struct conn *c)
{
    return c->out_one != NULL ? c->out_one : c->out_first->frames[c->out_first->head];
}

static void uncount(struct conn *c, const struct frame *f)
{
    c->out_bytes -= f->bytes_count;
    if (f->asked) c->out_asked -= f->bytes_count;
    c->out_count -= 1 + f->more;
}

static void drop_first(struct shard *sh, struct conn *c)   /* an empty segment */
{
    struct conn_queue *q = c->out_first;
    c->out_first = q->next;
    if (c->out_first == NULL) c->out_last = NULL;
    heap_free(sh->heap, q, sizeof(*q));
}

static void pop(struct shard *sh, struct conn *c)
{
    struct conn_queue *q = c->out_first;
    bool one = c->out_one != NULL;
    struct frame *f = one ? c->out_one : q->frames[q->head++];
    uncount(c, f);
    c->out_one = NULL;
    frame_put(sh, &f);
    if (!one && q->head == q->tail) drop_first(sh, c);
}

void conn_drop_out(struct shard *sh, struct conn *c, bool all)
{
    if (all) {
        while (c->out_count > 0) pop(sh, c);
        c->out_inflight = 0;
        c->out_offset = 0;
        return;
    }
    /* Keep the frames in flight, which are the first ones: drop from the segment that holds the
     * last of them onwards. */
    uint32_t keep = c->out_inflight;
    if (c->out_one != NULL && keep > 0) keep--;
    else if (c->out_one != NULL) pop(sh, c);
    struct conn_queue *q = c->out_first;
    c->out_first = c->out_last = NULL;
    while (q != NULL) {
        struct conn_queue *next = q->next;
        uint32_t have = q->tail - q->head, stay = u32_min(keep, have);
        keep -= stay;
        while ((uint32_t)(q->tail - q->head) > stay) {
            struct frame *f = q->frames[--q->tail];
            uncount(c, f);
            frame_put(sh, &f);
        }
        if (stay == 0) {
            heap_free(sh->heap, q, sizeof(*q));
        } else {
            q->next = NULL;
            if (c->out_first == NULL) c->out_first = q;
            else c->out_last->next = q;
            c->out_last = q;
        }
        q = next;
    }
}

/* Past a bound: the queue that cannot leave is dropped, error and Close are queued if the socket
 * still takes them, and the connection leaves its channels at the next flush (the caller may be
 * walking a subscriber list). */
void conn_overflow(struct shard *sh, struct conn *c, uint32_t limit)
{
    if (c->state != CONN_WS) return;
    uint8_t out[PUSHER_SMALL_FRAME_BYTES];
    metric_add(sh->metrics, METRIC_SLOW_CONSUMER_DISCONNECTS_TOTAL, c->app, limit, 1);
    if (!c->sending) c->out_inflight = c->out_offset > 0;   /* half of it has left */
    conn_drop_out(sh, c, false);
    c->state = CONN_CLOSING;
    conn_arm(sh, c, sh->conf->websocket_close_timeout_ms);
    conn_send_bytes(sh, c, out,
                    conn_error_write(sh, c, out, PUSHER_OVER_CAPACITY, "Over capacity"));
    conn_send_bytes(sh, c, out,
                    ws_close_write(out, PUSHER_OVER_CAPACITY, slice_str("Over capacity")));
    c->slow = true;
    c->forced = true;
    c->close_sent = true;
}

/* A send that was submitted in an earlier turn and is still under way: the peer's window and the
 * socket's buffer are full. One started in this turn or the last says nothing about the peer. */
static bool is_stalled(const struct shard *sh, const struct conn *c)
{
    return c->sending && (uint32_t)sh->re.stats.turns - c->send_turn >= 2;
}

/* The bounds are on what a peer leaves unread; a burst within one turn, which no peer could have
 * read yet, may exceed them CONN_BURST times, and so may what waits behind an answer. */
static bool is_slow(const struct shard *sh, const struct conn *c, uint64_t used, uint64_t bound)
{
    return used > bound &&
           ((c->out_asked == 0 && is_stalled(sh, c)) || used > bound * CONN_BURST);
}

/* True when the frame may be queued behind what is unread. */
static bool has_room(struct shard *sh, struct conn *c, const struct frame *f)
{
    const struct conf *conf = sh->conf;
    uint64_t bytes = (uint64_t)c->out_bytes - c->out_asked + f->bytes_count;
    if (f->asked) {
        bytes = (uint64_t)c->out_asked + f->bytes_count;
        if (bytes <= (uint64_t)conf->websocket_max_bytes * CONN_ASKED) return true;
    } else if (is_slow(sh, c, c->out_count + 1ull, conf->websocket_max_messages)) {
        conn_overflow(sh, c, SERIES_SLOW_MESSAGES);
        return false;
    } else if (!is_slow(sh, c, bytes, conf->websocket_max_bytes)) {
        return true;
    }
    conn_overflow(sh, c, SERIES_SLOW_BYTES);
    return false;
}

bool conn_send(struct shard *sh, struct conn *c, struct frame *f)
{
    if (c->state == CONN_WS && c->out_count > 0) {
        if (!has_room(sh, c, f)) return false;
    } else if (c->state == CONN_DEAD || c->state == CONN_FREE || c->slow || c->close_sent) {
        return false;                    /* nothing follows a Close, nor a frame that was lost */
    }
    if (!push(sh, c, f)) {
        conn_kill_later(sh, c);
        return false;
    }
    return true;
}

bool conn_send_bytes(struct shard *sh, struct conn *c, const void *bytes, uint32_t count)
{
    struct frame *f = frame_copy(sh, bytes, count);
    if (f == NULL) {
        conn_kill_later(sh, c);
        return false;
    }
    bool sent = conn_send(sh, c, f);
    frame_put(sh, &f);
    return sent;
}

/* Not now: the caller may be walking a list that this connection is on. */
void conn_kill_later(struct shard *sh, struct conn *c)
{
    if (c->state == CONN_DEAD || c->state == CONN_FREE) return;
    metric_add(sh->metrics, METRIC_LIMIT_HITS_TOTAL, 0, SERIES_LIMIT_HEAP, 1);
    c->state = CONN_CLOSING;
    c->slow = true;
    c->forced = true;
    conn_arm(sh, c, 0);
}

/* While an answer is among them, only so many bytes: the last frame's rest goes with the next. */
static uint32_t cut(struct iovec *iov, uint32_t count)
{
    uint64_t left = CONN_SEND_BYTES;
    for (uint32_t n = 0; n < count; n++) {
        if (iov[n].iov_len >= left) {
            iov[n].iov_len = left;
            return n + 1;
        }
        left -= iov[n].iov_len;
    }
    return count;
}

/* The first frames of the queue, as many as one send takes. */
static uint32_t first_frames(const struct conn *c, struct frame **out)
{
    uint32_t n = 0;
    if (c->out_one != NULL) out[n++] = c->out_one;
    for (struct conn_queue *q = c->out_first; q != NULL && n < RING_SEND_IOV_MAX; q = q->next) {
        uint32_t take = u32_min(q->tail - q->head, RING_SEND_IOV_MAX - n);
        memcpy(out + n, q->frames + q->head, take * sizeof(*out));
        n += take;
    }
    return n;
}

/* The first `run` frames of the queue have become one, which took over their references. */
static void replace_first(struct shard *sh, struct conn *c, uint32_t run, struct frame *whole)
{
    if (c->out_one != NULL) run--;
    c->out_one = whole;
    while (run > 0) {
        struct conn_queue *q = c->out_first;
        uint32_t n = u32_min(run, q->tail - q->head);
        q->head = (uint16_t)(q->head + n);
        run -= n;
        if (q->head == q->tail) drop_first(sh, c);
    }
}

static void flush_one(struct shard *sh, struct conn *c)
{
    struct frame *list[RING_SEND_IOV_MAX], **frames = list;
    struct iovec iov[RING_SEND_IOV_MAX];
    uint32_t n = first_frames(c, list), offset = c->out_offset;
    uint32_t run = bundle_run(list, n);
    struct frame *whole = run == 0 ? NULL : bundle_take(sh, list, run);
    if (whole != NULL) {
        replace_first(sh, c, run, whole);
        frames += run - 1;
        n -= run - 1;
        frames[0] = whole;
    }
    for (uint32_t i = 0; i < n; i++) {
        iov[i].iov_base = (void *)(uintptr_t)(frames[i]->bytes + offset);
        iov[i].iov_len = frames[i]->bytes_count - offset;
        offset = 0;
    }
    if (c->out_asked > 0) n = cut(iov, n);
    metric_observe(sh->metrics, METRIC_OUTBOUND_QUEUE_BYTES, 0, 0, c->out_bytes);
    c->sending = true;
    c->send_turn = (uint32_t)sh->re.stats.turns;
    c->out_inflight = (uint16_t)n;
    ring_send(sh->re.ring, c->ring_sock, c->gen, iov, n);
}

void conn_flush_all(struct shard *sh)
{
    uint32_t mark = sh->flush_first;
    sh->flush_first = sh->flush_last = 0;
    while (mark != 0) {
        struct conn *c = &sh->conns[mark - 1];
        mark = c->flush_next;
        if (mark != 0) __builtin_prefetch(&sh->conns[mark - 1]);
        c->flushing = false;
        if (c->slow) {
            c->slow = false;
            c->abrupt = true;
            conn_detach(sh, c);
        }
        if (c->state == CONN_DEAD) conn_reap(sh, c);
        else if (!c->sending && c->out_count > 0) flush_one(sh, c);
    }
    bundle_forget_all(sh);
}

static void count_sent(struct shard *sh, const struct conn *c, uint32_t frames, uint32_t bytes)
{
    sh->send_frames += frames;
    if (c->counted) {
        metric_add(sh->metrics, METRIC_WS_MESSAGES_SENT_TOTAL, c->app, 0, frames);
        metric_add(sh->metrics, METRIC_SOCKET_TRANSMITTED_BYTES, c->app, 0, bytes);
    }
}

void conn_on_sent(void *ctx, uint32_t sock, uint32_t gen, int32_t n)
{
    struct shard *sh = ctx;
    struct conn *c = conn_of_ring(sh, sock);
    if (UNLIKELY(c->gen != gen || c->state == CONN_FREE)) {
        metric_add(sh->metrics, METRIC_STALE_COMPLETIONS_TOTAL, 0, 0, 1);
        return;
    }
    c->sending = false;
    if (UNLIKELY(n <= 0 || c->state == CONN_DEAD)) {
        c->out_inflight = 0;
        if (c->state != CONN_DEAD) {
            c->abrupt = c->state == CONN_WS;
            conn_kill(sh, c);
        }
        conn_drop_out(sh, c, true);
        conn_reap(sh, c);
        return;
    }
    uint32_t left = (uint32_t)n, frames = c->out_count;
    while (c->out_inflight > 0) {
        struct frame *f = front(c);
        uint32_t rest = f->bytes_count - c->out_offset;
        if (left < rest) {               /* cut short by a signal or a limit: the rest goes next */
            c->out_offset += left;
            break;
        }
        left -= rest;
        c->out_offset = 0;
        c->out_inflight--;
        pop(sh, c);
    }
    count_sent(sh, c, frames - c->out_count, (uint32_t)n);
    c->out_inflight = 0;
    if (c->out_count > 0) {
        if (!c->flushing) flush_one(sh, c);
    } else {
        conn_out_empty(sh, c);
    }
}
