/* workload.mjs - publishers that never stop asking: creates, appends, updates, deletes, batches,
 * each with or without a key, some twice at once, some that must be refused.
 *
 * Shape    A worker draws an operation, sends it and tells the auditor what came of it. When the
 *          server dies under it, a keyed operation is sent again, unchanged, to the next server;
 *          one without a key stays unknown: stored once or not at all.
 * Bounds   One operation a worker. 503 is asked again up to TRIES_MAX times.
 * Source   spec/messages-and-history.md 2, 3, 10 and invariants 3, 8, 9, 13-15, 25.
 */
import { api } from '../../tests/behaviour/http_raw.mjs';
import { in_turn, message_path, read_state } from '../../tests/behaviour/stored.mjs';

const TRIES_MAX = 400;
const RETRY_MS = 20;
const KEPT_MAX = 400;            /* keyed operations that are repeated on purpose */
const BULK_CHANNELS = 400;
const BULK_BYTES_MAX = 300e6;
const RECENT = 12;               /* messages that most mutations go to */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const KINDS = { create: 22, append: 40, update: 7, delete: 3, batch: 7, several: 4, repeat: 7,
                ephemeral: 3, refuse: 7 };

/* Mostly little, now and then some KiB: what is long is packed and folded elsewhere. */
const filling = (rng, most) => '.'.repeat(rng.below(rng.chance(0.03) ? 8000 : most));

export class Workload {
  kept = [];
  bulk = new Map();                /* channel -> rows {told, asked} */
  bulk_bytes = 0;
  flying = 0;                      /* requests on their way */
  counts = { requests: 0, again: 0, busy: 0, repeated: 0, refused: 0, unknown: 0 };

  constructor(world, auditor) { this.world = world; this.auditor = auditor; }

  async worker(id) {
    const rng = this.world.rng.fork(`worker ${id}`);
    while (!this.world.over) {
      if (!await this.world.open_gate()) return;
      const op = this.#draw(rng);
      if (!op) continue;
      const again = op.keyed && rng.chance(0.06);
      const runs = again ? [this.#run(op, rng), this.#run(op, rng)] : [this.#run(op, rng)];
      const done = await Promise.all(runs);
      if (op.keyed && done.every((d) => d)) this.#keep(op, rng);
    }
  }

  #keep(op, rng) {
    if (this.kept.length < KEPT_MAX) this.kept.push(op);
    else this.kept[rng.below(KEPT_MAX)] = op;
  }

  #draw(rng) {
    const channel = rng.pick(this.world.channels);
    const kind = rng.weighted(KINDS);
    switch (kind) {
      case 'create': return this.#create([channel], rng);
      case 'several': return this.#create(this.world.two_channels(rng), rng);
      case 'batch': return this.#batch(rng);
      case 'ephemeral': return this.#ephemeral(channel);
      case 'repeat': return this.#repeat(rng);
      case 'refuse': return this.#refuse(channel, rng);
      default: return this.#mutation(channel, kind, rng);
    }
  }

  /* What a create says, with a key of the kind drawn. */
  #content(rng) {
    const token = this.auditor.token();
    const id = `id-${token.slice(1, -1)}-${rng.below(1e6)}`;
    const body = { name: rng.pick(['note', 'draft', 'ai-text']),
                   data: `${token}${'ü'.repeat(rng.below(4))}${filling(rng, 60)}` };
    const key = rng.pick(['none', 'message_id', 'extras', 'request']);
    if (key === 'message_id') body.message_id = id;
    if (key === 'extras') body.extras = { idempotencyKey: id };
    if (key === 'request') body.idempotency_key = id;
    if (key !== 'extras' && rng.chance(0.3)) body.extras = { headers: { n: rng.below(9), s: 'x' } };
    return { token, body, keyed: key !== 'none' };
  }

  #create(channels, rng) {
    const { token, body, keyed } = this.#content(rng);
    for (const c of channels) this.auditor.issue(c, { token, action: 'create', data: body.data });
    return {
      path: '/events', keyed, once: !keyed && channels.length > 1,
      body: { ...body, channels, info: 'subscription_count' },
      refused: () => channels.forEach((c) => this.auditor.refused(c, token)),
      done: (json) => channels.forEach((c) => this.auditor.told(c, token, json.channels[c])),
    };
  }

  #batch(rng) {
    const items = Array.from({ length: 1 + rng.below(5) }, () => {
      const channel = rng.pick(this.world.channels);
      const { token, body, keyed } = this.#content(rng);
      this.auditor.issue(channel, { token, action: 'create', data: body.data });
      return { channel, token, keyed, body: { ...body, channel } };
    });
    /* A server that dies in the middle of a batch has published some of its items: only those with
     * keys of their own may be sent again. */
    const keyed = items.every((i) => i.keyed);
    const headers = keyed && rng.chance(0.5)
      ? { 'X-Idempotency-Key': `batch-${items[0].token}` } : {};
    return {
      path: '/batch_events', keyed, headers, once: !keyed,
      body: { batch: items.map((i) => i.body) },
      refused: () => {},                     /* items before the one that was refused are stored */
      done: (json) => items.forEach((i, n) =>
        this.auditor.told(i.channel, i.token, json.batch?.[n] ?? {})),
    };
  }

  #mutation(channel, action, rng) {
    const messages = this.auditor.of(channel).messages;
    if (messages.length === 0) return null;
    const from = rng.chance(0.85) ? Math.max(0, messages.length - RECENT) : 0;
    const message = messages[from + rng.below(messages.length - from)];
    const token = this.auditor.token();
    const body = { description: token };
    if (action !== 'delete') body.data = `${token}${filling(rng, 30)}`;
    if (action === 'delete' && rng.chance(0.5)) body.clear_fields = ['data'];
    const keyed = rng.chance(0.6);
    if (keyed) body.op_id = `op-${token.slice(1, -1)}`;
    this.auditor.issue(channel, { token, action, message, data: body.data });
    let applied = 0;
    return {
      path: `${message_path(channel, message)}/${action}`, keyed, body,
      refused: () => this.auditor.refused(channel, token),
      done: (json) => {
        if (json.status === 'applied') applied += 1;
        if (applied > 1) this.auditor.fault(`${channel} ${token}: applied ${applied} times`);
        this.auditor.told(channel, token, json);
      },
    };
  }

  #ephemeral(channel) {
    const token = this.auditor.token();
    this.auditor.issue(channel, { token, action: 'none' });
    this.auditor.refused(channel, token);
    return {
      path: '/events', keyed: false,
      body: { name: 'flash', channel, data: token, extras: { ephemeral: true } },
      refused: () => {},
      done: (json) => {
        if (JSON.stringify(json).includes('serial')) {
          this.auditor.fault(`${channel} ${token}: an ephemeral publish was given serials`);
        }
      },
    };
  }

  #repeat(rng) {
    if (this.kept.length === 0) return null;
    this.counts.repeated += 1;
    return rng.pick(this.kept);
  }

  /* Requests with one right answer that is not 200. */
  #refuse(channel, rng) {
    const token = this.auditor.token();
    const messages = this.auditor.of(channel).messages;
    const kept = this.kept.filter((op) => op.body.op_id || op.body.message_id);
    const kind = rng.pick(['unknown', 'empty', 'payload']);
    const made = { keyed: false, refused: () => {}, done: () => {} };
    this.auditor.issue(channel, { token, action: 'none' });
    this.auditor.refused(channel, token);
    if (kind === 'payload' && kept.length > 0) {
      const op = rng.pick(kept);
      return { ...made, path: op.path, expect: 400, body: { ...op.body, data: `${token} other` } };
    }
    if (messages.length === 0) return null;
    const message = rng.pick(messages);
    if (kind === 'empty') {
      return { ...made, path: `${message_path(channel, message)}/append`, expect: 400,
               body: { data: '', description: token } };
    }
    const wrong = message.replace(/\d{6}$/, '999999');
    return { ...made, path: `${message_path(channel, wrong)}/append`, expect: 404,
             body: { data: token, description: token } };
  }

  /* Rows in bulk to many channels, only counted, until BULK_BYTES_MAX have been sent: what fills
   * the wal, so that it is packed into segments and its small tails are written again, under
   * kills. */
  async bulk_worker(id) {
    const rng = this.world.rng.fork(`bulk ${id}`);
    while (this.bulk_bytes < BULK_BYTES_MAX && await this.world.open_gate()) {
      const { life } = this.world;
      const batch = Array.from({ length: 10 }, () => ({ name: 'bulk',
        channel: `bulk-${rng.below(BULK_CHANNELS)}`, data: 'b'.repeat(rng.below(8000)) }));
      for (const item of batch) this.bulk_bytes += item.data.length;
      let done;
      this.flying += 1;
      try {
        const r = await api(this.world.port, this.world.app, 'POST', '/batch_events',
                            { body: { batch } });
        done = r.status === 200;
        if (!done && r.status !== 503) this.auditor.fault(`bulk: ${r.status} ${r.text}`);
      } catch (e) {
        if (!life.ending) this.auditor.fault(`bulk: no answer from a live server: ${e}`);
        await life.ended;
      } finally {
        this.flying -= 1;
      }
      for (const { channel } of batch) {
        const c = this.bulk.get(channel) ?? { told: 0, asked: 0 };
        c.asked += 1;
        if (done) c.told += 1;
        this.bulk.set(channel, c);
      }
    }
  }

  /* As many rows as were acknowledged, and no more than were asked for. */
  async check_bulk() {
    await in_turn([...this.bulk], 16, async ([channel, { told, asked }]) => {
      const { retained, next_serial } = await read_state(this.world.port, this.world.app, channel);
      const rows = retained.retained_messages;
      if (rows < told || rows > asked || next_serial !== rows + 1) {
        this.auditor.fault(`${channel}: ${rows} rows of ${told} to ${asked}, next ${next_serial}`);
      }
    });
  }

  /* Sends until there is an answer. True when it was the one wanted. */
  async #run(op) {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      if (!await this.world.open_gate()) return false;
      const life = this.world.life;
      this.counts.requests += 1;
      this.flying += 1;
      let r;
      try {
        r = await api(this.world.port, this.world.app, 'POST', op.path,
                      { body: op.body, headers: op.headers });
      } catch (e) {
        if (!life.ending) this.auditor.fault(`${op.path}: no answer from a live server: ${e}`);
        if (!op.keyed) { this.counts.unknown += 1; return false; }
        this.counts.again += 1;
        await life.ended;
        continue;
      } finally {
        this.flying -= 1;
      }
      if (r.status === 503) {
        this.counts.busy += 1;
        if (op.once) { this.counts.unknown += 1; return false; }   /* some of it may be stored */
        await sleep(RETRY_MS);
        continue;
      }
      return this.#answered(op, r);
    }
    this.auditor.fault(`${op.path}: refused with 503 ${TRIES_MAX} times`);
    return false;
  }

  #answered(op, r) {
    if (op.expect !== undefined) {
      this.counts.refused += 1;
      if (r.status !== op.expect) {
        this.auditor.fault(`${op.path} ${JSON.stringify(op.body)}: ${r.status} ${r.text}, `
          + `not ${op.expect}`);
      }
      return false;
    }
    if (r.status !== 200) {
      this.auditor.fault(`${op.path} ${JSON.stringify(op.body)}: ${r.status} ${r.text}`);
      op.refused();
      return false;
    }
    op.done(r.json);
    return true;
  }
}
