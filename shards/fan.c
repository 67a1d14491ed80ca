#include "shards/fan.h"

#include "shards/resume.h"

/* What each voice hears of a frame's family. */
static void offer(struct fan_job *job, bool annotations)
{
    struct frame *f = job->frame;
    struct frame *v2 = f->v2 != NULL ? f->v2 : f;
    struct frame *full = f->full != NULL ? f->full : v2;
    memset(job->by, 0, sizeof(job->by));
    job->by[VOICE_V2_ALL] = v2;
    job->by[VOICE_FULL_ALL] = full;
    if (annotations) return;
    job->by[VOICE_V1] = f->v2_only ? NULL : f;
    job->by[VOICE_V2] = v2;
    job->by[VOICE_FULL] = full;
}

/* Visit up to `budget` subscribers. True when every one has been visited.
 *
 * Cost   One pointer push per subscriber: no encoding, no allocation beyond the queue's segments,
 *        no system call, no copy. */
static bool step(struct shard *sh, struct fan_job *job, uint32_t *budget)
{
    struct sub *s = job->cursor;
    uint32_t before = *budget;
    while (s != NULL && *budget > 0) {
        struct sub *next = s->chan_next;
        struct conn *c = &sh->conns[s->sock];
        if (next != NULL) __builtin_prefetch(&sh->conns[next->sock]);
        (*budget)--;
        if (s->joined < job->serial &&
            (c->socket_a != job->except_a || c->socket_b != job->except_b)) {
            struct frame *f = job->by[s->voice];
            ASSERT(c->gen == s->gen);
            if (LIKELY(f != NULL)) conn_send(sh, c, f);   /* a refusal closes it; others go on */
            else if (s->voice == VOICE_GATED) resume_hold(sh, c, s, job->by[chan_voice(s)]);
        }
        s = next;
    }
    job->cursor = s;
    uint32_t visited = u32_min(before - *budget, job->left);
    job->left -= visited;
    sh->fan_waiting -= visited;
    return s == NULL;
}

static void observe(struct shard *sh, const struct chan *ch, const struct fan_job *job)
{
    if (!job->observe || job->recipients == 0) return;
    struct pusher_channel kind = {.kind = (enum pusher_kind)ch->kind, .cache = ch->cache};
    double ms = (double)(sh->re.now_ns - u64_min(job->started_ns, sh->re.now_ns)) / 1e6;
    metric_observe(sh->metrics, METRIC_BROADCAST_LATENCY_MS, ch->app,
                   series_broadcast((enum series_channel)pusher_type_label(&kind), job->recipients),
                   ms);
}

static void end_job(struct shard *sh, struct chan *ch, struct fan_job *job)
{
    observe(sh, ch, job);
    sh->fan_waiting -= job->left;        /* they left while it was under way */
    job->left = 0;
    frame_put(sh, &job->frame);
}

void fan_on_letter(struct shard *sh, const struct letter *l)
{
    struct chan *ch = chan_by_handle(sh, l->arg[0]);
    struct frame *f = frame_borrow(sh, l->payload, l->from_shard);
    sh->fan_serial++;
    if (ch == NULL) {                    /* everybody left while the letter was under way */
        frame_put(sh, &f);
        return;
    }
    if (f == NULL) {                     /* no memory to hold it: nobody may miss it unknowingly */
        for (struct sub *s = ch->subs; s != NULL; s = s->chan_next) {
            conn_kill_later(sh, &sh->conns[s->sock]);
        }
        return;
    }
    if (l->arg[4] != 0) {
        ch->shown = l->arg[4];
        ch->shown_at = sh->fan_serial;
    }
    struct fan_job job = {
        .frame = f, .cursor = ch->subs, .serial = sh->fan_serial, .except_a = l->arg[1],
        .except_b = l->arg[2], .started_ns = l->arg[3],
        .recipients = l->flags >> FAN_RECIPIENTS_SHIFT,
        .observe = (l->flags & FAN_OBSERVE) != 0,
    };
    offer(&job, (l->flags & FAN_ANNOTATIONS) != 0);
    if (ch->jobs_first == NULL && step(sh, &job, &sh->fan_budget)) {
        end_job(sh, ch, &job);
        return;
    }
    struct fan_job *kept = heap_alloc(sh->heap, sizeof(*kept));
    if (kept == NULL) {                  /* finish it now rather than lose it */
        uint32_t all = UINT32_MAX;
        fan_finish(sh, ch);
        step(sh, &job, &all);
        end_job(sh, ch, &job);
        return;
    }
    *kept = job;
    kept->left = ch->joined_count;
    sh->fan_waiting += kept->left;
    if (ch->jobs_last == NULL) ch->jobs_first = kept;
    else ch->jobs_last->next = kept;
    ch->jobs_last = kept;
    sh->fan_jobs++;
    if (!ch->fanning) {
        ch->fanning = true;
        ch->fan_next = NULL;
        if (sh->fan_last == NULL) sh->fan_first = ch;
        else sh->fan_last->fan_next = ch;
        sh->fan_last = ch;
    }
}

/* Jobs of one channel in order, while the budget lasts. */
static void work_channel(struct shard *sh, struct chan *ch)
{
    while (ch->jobs_first != NULL && step(sh, ch->jobs_first, &sh->fan_budget)) {
        struct fan_job *job = ch->jobs_first;
        ch->jobs_first = job->next;
        if (job->next == NULL) ch->jobs_last = NULL;
        sh->fan_jobs--;
        end_job(sh, ch, job);
        heap_free(sh->heap, job, sizeof(*job));
    }
}

bool fan_work(struct shard *sh)
{
    sh->fan_budget = FAN_TURN_SUBS;
    struct chan *last = sh->fan_last;
    while (sh->fan_first != NULL && sh->fan_budget > 0) {
        struct chan *ch = sh->fan_first;
        sh->fan_first = ch->fan_next;
        if (sh->fan_first == NULL) sh->fan_last = NULL;
        ch->fanning = false;
        work_channel(sh, ch);
        if (ch->jobs_first != NULL) {    /* to the back: channels take turns */
            ch->fanning = true;
            ch->fan_next = NULL;
            if (sh->fan_last == NULL) sh->fan_first = ch;
            else sh->fan_last->fan_next = ch;
            sh->fan_last = ch;
        }
        if (ch == last) break;
    }
    return sh->fan_first != NULL;
}

void fan_finish(struct shard *sh, struct chan *ch)
{
    uint32_t all = UINT32_MAX;
    for (struct fan_job *j = ch->jobs_first; j != NULL; j = j->next) step(sh, j, &all);
}

void fan_forget(struct chan *ch, struct sub *sub)
{
    for (struct fan_job *j = ch->jobs_first; j != NULL; j = j->next) {
        if (j->cursor == sub) j->cursor = sub->chan_next;
    }
}

void fan_drop(struct shard *sh, struct chan *ch)
{
    while (ch->jobs_first != NULL) {
        struct fan_job *job = ch->jobs_first;
        ch->jobs_first = job->next;
        sh->fan_jobs--;
        sh->fan_waiting -= job->left;
        frame_put(sh, &job->frame);
        heap_free(sh->heap, job, sizeof(*job));
    }
    ch->jobs_last = NULL;
    if (!ch->fanning) return;
    ch->fanning = false;
    struct chan *before = NULL;
    for (struct chan *c = sh->fan_first; c != ch; c = c->fan_next) before = c;
    if (before == NULL) sh->fan_first = ch->fan_next;
    else before->fan_next = ch->fan_next;
    if (sh->fan_last == ch) sh->fan_last = before;
}
