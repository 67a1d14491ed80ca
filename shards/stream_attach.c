/* V2 subscribes and resumes at the home: what can be replayed, the reads that it takes, the answer.
 *
 *   freeze {delivery head, history head}
 *     -> the ring has everything behind the position: answered in this step
 *     -> it is to be read from the lane: the ring keeps whatever is newer (a gate), and when the
 *        read is back the answer holds it all; only then the subscription is counted, so that no
 *        live frame can overtake */
#include "shards/stream_parts.h"

static void next_step(struct shard *sh, struct stream_attach *job);

/* ---- the end ---- */

static void open_gate(struct shard *sh, struct stream_attach *job)
{
    struct stream *st = job->st;
    if (job->gated) return;
    job->ring_from = job->hot ? stream_delivery_of(st, job->a->serial) : job->delivery;
    st->gate_from = st->gates == 0 ? job->ring_from : u64_min(st->gate_from, job->ring_from);
    st->gates++;
    job->gated = true;
}

/* More was published meanwhile than the gate holds. */
static bool overrun(const struct shard *sh, const struct stream_attach *job)
{
    return job->gated && !stream_ring_covers(sh, job->st, job->ring_from, true);
}

/* What a job that reads is counted with: the versions and as much again of whole texts, or rows. */
static uint64_t share(const struct shard *sh)
{
    return u64_max(2ull * sh->conf->history_cold_replay_max_bytes, STORE_READ_BYTES_MAX);
}

/* The stream is another one since the freeze: neither its head nor its frames are of that. */
static bool is_another(const struct stream_attach *job)
{
    const struct stream *st = job->st;
    return st != NULL && (st->delivery_epoch != job->delivery_epoch ||
                          st->history_epoch != job->history_epoch);
}

static void job_free(struct shard *sh, struct stream_attach *job)
{
    struct stream *st = job->st;
    if (job->gated) {
        st->gates--;
        stream_ring_trim(sh, st);
    }
    if (job->range != NULL) stream_read_end(sh, job->range);
    if (job->rewind != NULL) stream_read_end(sh, job->rewind);
    for (uint32_t i = 0; i < job->aggregates_count; i++) {
        if (job->aggregates[i].read != NULL) stream_read_end(sh, job->aggregates[i].read);
    }
    heap_free(sh->heap, job->aggregates,
              (uint32_t)sizeof(*job->aggregates) * job->aggregates_room);
    stream_turn_end(sh, &job->turn);
    heap_free(sh->heap, job, sizeof(*job));
}

static void answer(struct shard *sh, const struct letter *ask, enum home_status status,
                   struct home *h, struct member *m, struct frame *f)
{
    struct letter l = {
        .kind = MAIL_SUBSCRIBED, .payload = ask->payload, .flags = (uint32_t)ask->arg[1],
        .arg = {status, (uintptr_t)h, (uintptr_t)m, (uintptr_t)f},
    };
    if (status == HOME_OK && h->cache) {
        struct frame *cached = home_cached(sh, h);
        if (cached != NULL) l.arg[4] = (uintptr_t)frame_lend(cached);
    }
    shard_answer(sh, ask->from_shard, &l);
}

static void end_replay(struct shard *sh, struct stream_attach *job)
{
    struct letter l = {.kind = MAIL_REPLAYED, .payload = job->sub};
    struct frame *f = NULL;
    if (job->a->recovered && !job->broken) {
        if (!is_another(job) && (!job->hot || !overrun(sh, job))) f = stream_replay_frame(sh, job);
        if (f == NULL) {
            stream_judge_fail(sh, job, SERIES_RECOVERY_PERSISTENCE_UNAVAILABLE,
                 "failed_to_deliver_recovery_payload");
        } else if (f->bytes_count == 0) {
            frame_put(sh, &f);
        } else {
            stream_blob_count(sh, f, job->home->app);
        }
    }
    l.arg[0] = (uintptr_t)f;             /* the one reference goes with the letter */
    shard_answer(sh, job->letter.from_shard, &l);
}

/* Count the subscription and answer, all in this step. */
static void end_subscribe(struct shard *sh, struct stream_attach *job)
{
    struct home *h = job->home;
    const struct letter *ask = &job->letter;
    bool again = (ask->arg[1] & HOME_AGAIN) != 0;
    struct member *m = NULL;
    struct frame *f = NULL;
    enum home_status status = job->broken ? HOME_BUSY : HOME_OK;
    if (overrun(sh, job) || is_another(job)) status = HOME_BUSY;
    if (status == HOME_OK && !again) status = home_admit(sh, h, ask, job->sub, &m);
    if (status == HOME_OK) {
        f = stream_replay_frame(sh, job);
        if (f == NULL) {
            if (!again) home_unadmit(sh, h, ask, m);
            status = HOME_NO_MEMORY;
        } else {
            stream_blob_count(sh, f, job->home->app);
        }
    }
    answer(sh, ask, status, h, m, f);
    if (status == HOME_OK && !again) home_joined(sh, h);
}

static void end(struct shard *sh, struct stream_attach *job)
{
    struct home *h = job->home;
    struct stream *st = job->st;
    h->pins++;
    if (st != NULL) st->reads++;         /* holds the stream: a join may make room for another */
    if (job->replay) end_replay(sh, job);
    else end_subscribe(sh, job);
    job_free(sh, job);
    if (st != NULL) st->reads--;
    if (st != NULL) stream_rest(sh, st);
    h->pins--;
    home_release(sh, h);
}

/* ---- reads ---- */

static void broken_off(struct shard *sh, struct stream_attach *job)
{
    job->broken = true;
    if (job->replay) {
        stream_judge_fail(sh, job, SERIES_RECOVERY_PERSISTENCE_UNAVAILABLE,
             "failed_to_deliver_recovery_payload");
    }
    end(sh, job);
}

static void on_range(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct stream_attach *job = ctx;
    job->range = r;
    stream_judge_read(sh, job, r);
    next_step(sh, job);
}

/* ---- turns ---- */

/* It has waited too long, or too many do: the position is not recovered. */
static void give_up(struct shard *sh, struct stream_attach *job)
{
    if (job->a->rewind != V2_REWIND_NONE && !job->replay) {
        broken_off(sh, job);
        return;
    }
    stream_judge_fail(sh, job, SERIES_RECOVERY_PERSISTENCE_UNAVAILABLE,
                      "failed_to_deliver_recovery_payload");
    end(sh, job);
}

/* False: the job waits until others have read or sent, so that all of them together hold a bounded
 * amount, while its gate keeps what comes meanwhile; or it has ended. */
static bool turn(struct shard *sh, struct stream_attach *job, bool reads)
{
    if (stream_turn_now(sh, &job->turn, reads ? share(sh) : 0)) return true;
    if (stream_turn_wait(sh, &job->turn)) open_gate(sh, job);
    else give_up(sh, job);
    return false;
}

static void ask_range(struct shard *sh, struct stream_attach *job)
{
    struct stream *st = job->st;
    if (!turn(sh, job, true)) return;
    bool rows = stream_by_history(st);
    struct store_read *r = stream_read_make(sh, st, rows ? STORE_ROWS : STORE_RANGE, on_range, job);
    if (r == NULL) {
        broken_off(sh, job);
        return;
    }
    if (rows) {
        r->rows_from = job->a->serial + 1;
        r->rows_upto = job->head;
    } else {
        r->from = job->a->serial;
        r->upto = job->head;
    }
    r->limit = sh->conf->history_cold_replay_max_messages;
    r->bytes_max = sh->conf->history_cold_replay_max_bytes;
    open_gate(sh, job);
    stream_read_post_now(sh, r);
}

static void on_rewind(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct stream_attach *job = ctx;
    job->rewind = r;
    if (r->status == STORE_READ_IO) {    /* it would come back for ever: so it is told */
        stream_degrade(sh, st, true);
        r->bytes_count = 0;
    } else if (r->status != STORE_READ_OK && r->status != STORE_READ_NOT_FOUND &&
        r->status != STORE_READ_GONE) {
        broken_off(sh, job);
        return;
    }
    next_step(sh, job);
}

static void ask_rewind(struct shard *sh, struct stream_attach *job)
{
    struct stream *st = job->st;
    const struct attach *a = job->a;
    if (!turn(sh, job, true)) return;
    struct store_read *r = stream_read_make(sh, st, STORE_ROWS, on_rewind, job);
    if (r == NULL) {
        broken_off(sh, job);
        return;
    }
    r->upto = job->delivery;
    r->limit = sh->conf->history_max_page_size;
    if (a->rewind == V2_REWIND_COUNT) {
        r->newest_first = true;
        r->limit = (uint32_t)u64_min(a->rewind_amount, r->limit);
    } else {
        uint64_t back_ms = u64_min(a->rewind_amount, sh->re.wall_ms / 1000) * 1000;
        r->time_from_ms = sh->re.wall_ms - back_ms;
    }
    open_gate(sh, job);
    stream_read_post_now(sh, r);
}

/* ---- whole texts: several are read at a time, for each waits until a commit is through ---- */

/* The one that this read was for; it is under way no more. */
static struct stream_aggregate *take_back(struct stream_attach *job, const struct store_read *r)
{
    uint32_t i = 0;
    while (job->wholes[i].read != r) i++;
    struct stream_aggregate *g = &job->aggregates[job->wholes[i].index];
    job->wholes[i] = job->wholes[--job->wholes_out];
    return g;
}

static void on_whole(struct shard *sh, struct stream *st, struct store_read *r, void *ctx)
{
    struct stream_attach *job = ctx;
    struct stream_aggregate *g = take_back(job, r);
    uint32_t most = sh->conf->history_cold_replay_max_bytes;
    if (r->status == STORE_READ_LARGE && r->bytes_max < most) {
        g->alone = true;
        job->alone_count++;
        stream_read_end(sh, r);
    } else {
        g->read = r;
        job->wholes_bytes += r->bytes_count;
        job->too_large = job->too_large || r->status == STORE_READ_LARGE;
        job->broken = job->broken || (r->status != STORE_READ_OK && !job->too_large);
    }
    job->too_large = job->too_large || job->wholes_bytes > most;
    if ((job->broken || job->too_large) && job->wholes_out > 0) return;
    if (job->broken) {
        broken_off(sh, job);
        return;
    }
    if (job->too_large) {
        stream_judge_fail(sh, job, SERIES_RECOVERY_POSITION_EXPIRED, "recovery_window_exceeded");
    }
    next_step(sh, job);
}

static void ask_whole(struct shard *sh, struct stream_attach *job, uint32_t index, uint32_t bytes)
{
    const struct stream_aggregate *g = &job->aggregates[index];
    struct store_read *r = stream_read_make(sh, job->st, STORE_MESSAGE, on_whole, job);
    if (r == NULL) {
        job->broken = true;
        return;
    }
    r->message = g->message;
    r->upto = g->delivery;
    r->bytes_max = bytes;
    job->wholes[job->wholes_out++] = (struct stream_whole){r, index};
    open_gate(sh, job);
    stream_read_post_now(sh, r);
}

/* As many as fit into what they may take together; one that takes more than its part is read again
 * when no other is under way. */
static void ask_wholes(struct shard *sh, struct stream_attach *job)
{
    uint32_t most = sh->conf->history_cold_replay_max_bytes;
    uint32_t part = u32_max(most / STREAM_WHOLES_MAX, 1);
    while (!job->broken && job->aggregates_next < job->aggregates_count &&
           job->wholes_out < STREAM_WHOLES_MAX &&
           (job->wholes_out == 0 ||
            job->wholes_bytes + (uint64_t)(job->wholes_out + 1) * part <= most)) {
        ask_whole(sh, job, job->aggregates_next++, part);
    }
    if (job->broken || job->wholes_out > 0) return;
    uint32_t index = 0;
    while (!job->aggregates[index].alone) index++;
    job->aggregates[index].alone = false;
    job->alone_count--;
    ask_whole(sh, job, index, most);
}

/* True: some are being read. The folds in memory serve only when none is: they move on. */
static bool read_wholes(struct shard *sh, struct stream_attach *job)
{
    struct stream *st = job->st;
    bool any = job->aggregates_next > 0;
    for (uint32_t i = 0; !any && i < job->aggregates_count; i++) {
        const struct fold *f = stream_fold(sh, st, job->aggregates[i].message);
        any = f == NULL || f->delivery != job->aggregates[i].delivery;
    }
    bool left = job->aggregates_next < job->aggregates_count || job->alone_count > 0;
    if (!any || (!left && job->wholes_out == 0)) return false;
    if (!turn(sh, job, true)) return true;
    if (left) ask_wholes(sh, job);
    if (job->broken && job->wholes_out == 0) broken_off(sh, job);
    return true;
}

/* ---- steps ---- */

/* Whole texts that the replay takes: all that full mode sends, or those that fragments begin with;
 * and those that mend what came before it.
 * A job that has reads for it already keeps to them. */
static bool whole_texts(struct shard *sh, struct stream_attach *job)
{
    bool good = true;
    if (!job->a->recovered || job->aggregates_count > 0) return true;
    if (job->a->full) good = stream_replay_wholes(sh, job);
    else if (job->range != NULL) good = stream_replay_bases(sh, job);
    job->wholes_count = job->aggregates_count;
    return good && stream_mend_find(sh, job);
}

static void next_step(struct shard *sh, struct stream_attach *job)
{
    struct stream *st = job->st;
    if (!whole_texts(sh, job)) {
        broken_off(sh, job);
        return;
    }
    if (job->a->recovered && read_wholes(sh, job)) return;
    bool rewinds = job->a->rewind != V2_REWIND_NONE && !job->a->recovered && !job->replay;
    if (rewinds && job->rewind == NULL && st != NULL && st->history && st->policy->rewind) {
        ask_rewind(sh, job);
        return;
    }
    if (job->a->recovered && job->a->serial < job->head && !turn(sh, job, false)) return;
    end(sh, job);
}

static void go(struct shard *sh, struct stream_turn *t, bool late)
{
    struct stream_attach *job = CONTAINER_OF(t, struct stream_attach, turn);
    if (late) give_up(sh, job);
    else if (job->ranges && job->range == NULL) ask_range(sh, job);
    else next_step(sh, job);
}

static void freeze(struct stream_attach *job)
{
    struct stream *st = job->st;
    struct attach *a = job->a;
    if (st == NULL) return;
    job->delivery = st->now.delivery;
    job->delivery_epoch = st->delivery_epoch;
    job->history_epoch = st->history_epoch;
    job->head = stream_serial(st, &st->now);
    job->attach_serial = st->now.history;
    if (job->replay) {                   /* all of a younger stream has been sent live */
        uint64_t upto = a->head_epoch == stream_epoch(st) ? a->upto : a->serial;
        job->head = u64_min(upto, job->head);
        return;
    }
    a->head_epoch = stream_epoch(st);
    a->has_head = st->policy->recovery;
    a->head = job->head;
    a->has_attach_serial = st->history;
    a->attach_serial = job->attach_serial;
}

static void refuse_replay(struct shard *sh, const struct letter *l)
{
    struct sub *s = l->payload;
    struct letter none = {.kind = MAIL_REPLAYED, .payload = s};
    s->attach->code = "persistence_unavailable";
    s->attach->reason = "failed_to_deliver_recovery_payload";
    shard_answer(sh, l->from_shard, &none);
}

static void begin(struct shard *sh, const struct letter *l, struct home *h, struct stream *st)
{
    struct sub *s = l->payload;
    struct stream_attach *job = heap_zalloc(sh->heap, sizeof(*job));
    if (job == NULL) {
        if (l->kind == MAIL_REPLAY) refuse_replay(sh, l);
        else answer(sh, l, HOME_NO_MEMORY, h, NULL, NULL);
        home_release(sh, h);
        return;
    }
    job->letter = *l;
    job->sub = s;
    job->a = s->attach;
    job->home = h;
    job->st = st;
    job->turn = (struct stream_turn){.go = go, .app = h->app};
    job->replay = l->kind == MAIL_REPLAY;
    freeze(job);
    bool resume = job->replay || (job->a->resume && (l->arg[1] & HOME_AGAIN) == 0);
    job->ranges = resume && stream_judge(sh, job);
    if (job->ranges) ask_range(sh, job);
    else next_step(sh, job);
}

static bool has_memory(const struct shard *sh, const struct home *h)
{
    struct conf_policy policy;
    const struct stream *st = h->extra == NULL ? NULL : h->extra->streams[STREAM_MAIN];
    if (st != NULL) return st->history || st->policy->recovery;
    conf_policy_of(sh->conf, h->app, home_name(h), &policy);
    return policy.history || policy.recovery;
}

void stream_on_subscribe(struct shard *sh, const struct letter *l)
{
    struct sub *s = l->payload;
    const struct chan *ch = s->chan;     /* name, kind and presence hold still until the answer */
    struct home *h = (l->arg[1] & HOME_AGAIN) != 0
                         ? home_find(sh, ch->app, chan_name(ch))
                         : home_make(sh, ch->app, chan_name(ch), ch->kind, ch->cache);
    if (h == NULL) {
        answer(sh, l, HOME_NO_MEMORY, NULL, NULL, NULL);
        return;
    }
    struct stream *st = NULL;
    if (has_memory(sh, h)) {
        st = stream_of(sh, h, STREAM_MAIN);
        bool loading = st != NULL && st->state == STREAM_LOADING;
        if (loading && stream_wait_for(sh, st, l, 0)) return;
        if (st == NULL || loading) {
            answer(sh, l, HOME_BUSY, h, NULL, NULL);
            home_release(sh, h);
            return;
        }
    }
    begin(sh, l, h, st);
}

void stream_on_replay(struct shard *sh, const struct letter *l)
{
    struct sub *s = l->payload;
    struct home *h = home_find(sh, s->chan->app, chan_name(s->chan));
    ASSERT(h != NULL);                   /* the subscription is counted here */
    struct stream *st = NULL;
    if (has_memory(sh, h)) {
        st = stream_of(sh, h, STREAM_MAIN);
        bool loading = st != NULL && st->state == STREAM_LOADING;
        if (loading && stream_wait_for(sh, st, l, 0)) return;
        if (st == NULL || loading) {
            refuse_replay(sh, l);
            home_release(sh, h);
            return;
        }
    }
    begin(sh, l, h, st);
}
