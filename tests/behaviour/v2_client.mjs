/* v2_client.mjs - a Protocol V2 client made of a raw socket, and what a client knows of a channel.
 *
 * Shape    V2 opens a socket and hands every frame to `on` (or keeps it). View is one channel as
 *          one client knows it: frames and history items go in, the text of every message comes
 *          out. attach() subscribes and, given positions, resumes, in one of four orders, and
 *          leaves views that are current.
 * Checks   View refuses a repeated serial, a serial of another stream and an append without its
 *          base; settle() refuses a gap. Unless the resume came behind the subscribe, what is
 *          replayed must come before what is live.
 * Bounds   Each wait is limited.
 * Source   spec/protocol-v2.md 3, 6, 7, 8, 14; spec/settled.md 30-37.
 */
import { WsRaw, WAIT_MS } from './ws_raw.mjs';
import { channel_auth } from './clients.mjs';

export const RESUME_BEFORE = 'before';     /* resume, then subscribe, in two writes */
export const RESUME_WITH = 'with';         /* one write: resume first */
export const RESUME_BEHIND = 'behind';     /* one write: subscribe first, as sockudo-js does */
export const RESUME_AFTER = 'after';       /* resume once the subscribe has succeeded */
export const RESUME_ORDERS = [RESUME_BEFORE, RESUME_WITH, RESUME_BEHIND, RESUME_AFTER];
const SUCCEEDED = 'sockudo_internal:subscription_succeeded';
const TIMER_MAX = 2 ** 31 - 1;

export const data_of = (m) => (typeof m.data === 'string' ? JSON.parse(m.data) : m.data);
export const header = (m, name) => m.extras?.headers?.[`sockudo_${name}`];

export class V2 {
  #waiters = new Set();
  frames = [];
  at = 0;                                   /* frames before this one were consumed by next() */

  /* options: on(frame) receives every frame instead of it being kept; query: more of the URL. */
  static async open(port, app, options = {}) {
    const c = new V2();
    const more = options.query ? `&${options.query}` : '';
    const path = `/app/${app.key}?protocol=2&client=test&version=1.0&flash=false${more}`;
    c.app = app;
    c.on = options.on;
    c.ws = await WsRaw.connect(port, path, options);
    c.ws.app = app;
    c.gone = c.#read();
    c.gone.catch(() => {});
    const hello = await c.until((m) => m.event === 'sockudo:connection_established'
      || /:error$/.test(m.event));
    if (!/established/.test(hello.event)) throw new Error(`no welcome: ${JSON.stringify(hello)}`);
    c.socket_id = data_of(hello).socket_id;
    c.ws.socket_id = c.socket_id;
    return c;
  }

  /* Resolves to how the socket ended; rejects when the server broke the protocol. */
  async #read() {
    for (;;) {
      let item;
      try { item = await this.ws.take(TIMER_MAX); } catch (e) { this.#end(e); throw e; }
      if (item.kind === 'text') this.#frame(JSON.parse(item.text));
      if (item.kind === 'close') this.closed = item;
      if (['end', 'reset', 'gone'].includes(item.kind)) {
        this.#end(new Error(`the socket ended: ${JSON.stringify(this.closed ?? item)}`));
        return item.kind;
      }
    }
  }

  #frame(m) {
    if (this.on) this.on(m);
    else this.frames.push(m);
    for (const w of [...this.#waiters]) {
      try { if (w.match(m)) w.resolve(m); } catch (e) { w.reject(e); }
    }
  }

  #end(error) {
    this.ended = error;
    for (const w of [...this.#waiters]) w.reject(error);
  }

  /* The next frame from now on for which `match` holds. */
  until(match, ms = WAIT_MS, what = match) {
    if (this.ended) return Promise.reject(this.ended);
    const w = { match };
    this.#waiters.add(w);
    return new Promise((resolve, reject) => {
      w.resolve = resolve;
      w.reject = reject;
      w.timer = setTimeout(() => reject(new Error(`V2: not within ${ms} ms: ${what}`)), ms);
    }).finally(() => { clearTimeout(w.timer); this.#waiters.delete(w); });
  }

  /* The next kept frame, or the next one that matches (others are skipped). */
  async next(match = () => true, ms = WAIT_MS) {
    for (;;) {
      while (this.at < this.frames.length) {
        const m = this.frames[this.at++];
        if (match(m)) return m;
      }
      await this.until(() => true, ms);
    }
  }

  /* Kept frames that the server had sent up to now and that next() has not taken. */
  async flush() {
    this.send({ event: 'sockudo:ping' });
    const out = [];
    for (;;) {
      const m = await this.next();
      if (m.event === 'sockudo:pong') return out;
      out.push(m);
    }
  }

  send(message) { this.ws.send(message); }
  destroy() { this.ws.destroy(); }

  subscribe_frame(channel, more = {}) {
    const { member, ...rest } = more;
    const channel_data = member === undefined ? undefined : JSON.stringify(member);
    const auth = /^(private|presence)-/.test(channel)
      ? channel_auth(this.app, this.socket_id, channel, channel_data) : '';
    return { event: 'sockudo:subscribe',
             data: { channel, auth, ...(channel_data ? { channel_data } : {}), ...rest } };
  }

  /* Subscribes; resolves to the success frame. */
  async subscribe(channel, more = {}) {
    const done = this.#success(channel);
    this.send(this.subscribe_frame(channel, more));
    return done;
  }

  async #success(channel) {
    const m = await this.until((f) => (f.event === SUCCEEDED && f.channel === channel)
      || f.event === 'sockudo:error', WAIT_MS, `the success of ${channel}`);
    if (m.event !== SUCCEEDED) throw new Error(`subscribe ${channel}: ${JSON.stringify(m)}`);
    return m;
  }

  /* One page of channel_history. */
  async history(channel, params = {}) {
    const done = this.until((m) => (m.event === 'sockudo:channel_history' && m.channel === channel)
      || m.event === 'sockudo:error', WAIT_MS, `channel_history of ${channel}`);
    this.send({ event: 'sockudo:channel_history', data: JSON.stringify({ channel, ...params }) });
    const m = await done;
    if (m.event === 'sockudo:error') throw new Error(`channel_history: ${JSON.stringify(m)}`);
    return m.data;
  }

  /* Every item, page by page, oldest first. */
  async history_all(channel, params = {}) {
    const items = [];
    let cursor;
    do {
      const page = await this.history(channel, { direction: 'oldest_first', limit: 100, ...params,
                                                 ...(cursor ? { cursor } : {}) });
      items.push(...page.items);
      cursor = page.next_cursor;
    } while (cursor);
    return items;
  }

  static resume_frame(positions) {
    return { event: 'sockudo:resume', data: JSON.stringify({ channel_positions: positions }) };
  }
}

/* One channel as one client knows it. */
export class View {
  messages = new Map();                    /* message serial -> {data, delivery, version, name} */
  pending = new Map();                     /* frames behind a gap, by serial */
  skipped = [];                            /* serials that aggregates stand for */
  next = null;                             /* the serial to come; null: not attached yet */
  stream_id = null;

  constructor(channel) { this.channel = channel; }

  get position() {
    return this.next === null ? undefined : { stream_id: this.stream_id, serial: this.next - 1 };
  }

  fail(text) { throw new Error(`${this.channel}: ${text}`); }

  /* What is known so far is void: live frames start behind `head`. */
  restart(stream_id, head) {
    this.messages.clear();
    this.pending.clear();
    this.stream_id = stream_id;
    this.next = head + 1;
  }

  /* A history item's message: the state of one message at its delivery serial. */
  base(m) {
    this.messages.set(m.message_serial, { data: m.data, delivery: m.delivery_serial,
                                          version: m.version.serial, name: m.name });
  }

  /* A rewound frame: the same, as a frame. */
  rewound(m) {
    const id = header(m, 'message_serial');
    if (this.messages.has(id)) this.fail(`rewind showed message ${id} twice`);
    if (header(m, 'action') === 'message.append') this.fail('rewind showed an append');
    this.messages.set(id, { data: m.data, delivery: m.serial, name: m.name,
                            version: header(m, 'version_serial') });
  }

  /* A live or replayed frame. */
  take(m) {
    if (m.stream_id !== this.stream_id) {
      this.fail(`frame of stream ${m.stream_id} instead of ${this.stream_id}`);
    }
    for (; this.full && this.next < m.serial; this.next++) this.skipped.push(this.next);
    if (m.serial < this.next || this.pending.has(m.serial)) {
      this.fail(`serial ${m.serial} came again; next is ${this.next}`);
    }
    this.pending.set(m.serial, m);
    for (let f = this.pending.get(this.next); f; f = this.pending.get(this.next)) {
      this.pending.delete(this.next);
      this.#apply(f);
      this.next += 1;
    }
  }

  #apply(m) {
    const id = header(m, 'message_serial');
    const action = header(m, 'action');
    const known = this.messages.get(id);
    if (known && m.serial <= known.delivery) return;      /* the base has it already */
    const now = { data: m.data, delivery: m.serial, version: header(m, 'version_serial'),
                  name: m.name ?? m.event };
    if (known && !(now.version > known.version)) {
      this.fail(`version ${now.version} came after ${known.version}`);
    }
    if (action === 'message.create') {
      if (known) this.fail(`message ${id} was created twice`);
    } else if (action === 'message.append') {
      if (!known) this.fail(`append ${m.serial} to message ${id}, which was never seen`);
      if (!this.full) now.data = (known.data ?? '') + m.data;
    } else if (!known) this.fail(`${action} ${m.serial} of message ${id}, which was never seen`);
    this.messages.set(id, now);
  }

  /* Aggregates may stand for the appends before them (settled 37): what a socket that gets them was
   * not shown must be appends that a later version covers. `stored` is what read_channel()
   * gives. */
  check_skipped(stored) {
    for (const serial of this.skipped) {
      const v = stored.versions.get(serial);
      const { versions } = stored.messages.get(v.message_serial);
      const behind = versions[versions.indexOf(v) + 1];
      if (v.action !== 'append' || !behind || behind.delivery_serial >= this.next) {
        this.fail(`${v.action} ${serial} was not shown, behind it came ${behind?.action}`);
      }
    }
    this.skipped = [];
  }

  settle() {
    if (this.pending.size > 0) {
      this.fail(`${this.next} is missing; ${[...this.pending.keys()].slice(0, 5)} came`);
    }
  }
}

/* Subscribes `client` to the channels of `views` and makes them current: by resume where a view has
 * a position, by channel_history where it has none or the resume failed. From then on the frames of
 * those channels go to the views. Resolves to what happened:
 * {hot, cold, replayed, failed: [...], rebuilt}. The client comes from open_attached(). */
export async function attach(client, views, { order = RESUME_BEFORE, more = {},
                                              allow_failure = () => true } = {}) {
  const result = { hot: 0, cold: 0, replayed: 0, failed: [], rebuilt: 0 };
  const positions = {};
  for (const v of views) if (v.position) positions[v.channel] = v.position;
  const resuming = Object.keys(positions).length > 0;
  const successes = new Map();
  const subscribed = wait_successes(client, views, successes);
  const resumed = resuming
    ? client.until((m) => m.event === 'sockudo:resume_success', WAIT_MS, 'resume_success') : null;
  resumed?.catch(() => {});
  client.held = new Map(views.map((v) => [v.channel, []]));
  const subscribes = views.map((v) => client.subscribe_frame(v.channel, more[v.channel]));
  const resume = V2.resume_frame(positions);
  if (!resuming || order === RESUME_AFTER) subscribes.forEach((f) => client.send(f));
  else if (order === RESUME_BEFORE) {
    client.send(resume);
    await new Promise((resolve) => setImmediate(resolve));
    subscribes.forEach((f) => client.send(f));
  } else {
    const all = order === RESUME_WITH ? [resume, ...subscribes] : [...subscribes, resume];
    client.ws.socket.cork();
    all.forEach((f) => client.send(f));
    client.ws.socket.uncork();
  }
  await subscribed;
  if (resuming && order === RESUME_AFTER) client.send(resume);
  const outcome = resuming ? data_of(await resumed) : { recovered: [], failed: [] };
  check_outcome(outcome, positions, result, allow_failure);
  for (const v of views) {
    const recovered = outcome.recovered.find((r) => r.channel === v.channel);
    const head = successes.get(v.channel).serial;
    v.full = client.full;
    if (recovered && (order === RESUME_BEFORE || order === RESUME_WITH)
        && head !== positions[v.channel].serial) {
      v.fail(`resumed from ${positions[v.channel].serial}, the success frame says ${head}`);
    }
    if (!recovered) {
      await rebuild(client, v, successes.get(v.channel));
      result.rebuilt += 1;
    }
    release(client, v, order === RESUME_AFTER || order === RESUME_BEHIND, recovered);
  }
  return result;
}

function wait_successes(client, views, successes) {
  return client.until((m) => {
    if (m.event === 'sockudo:error') throw new Error(`attach: ${JSON.stringify(m)}`);
    if (m.event === SUCCEEDED && views.some((v) => v.channel === m.channel)) {
      successes.set(m.channel, m);
    }
    return successes.size === views.length;
  }, WAIT_MS, 'all subscribes to succeed');
}

function check_outcome(outcome, positions, result, allow_failure) {
  const named = [...outcome.recovered, ...outcome.failed].map((r) => r.channel).sort();
  const asked = Object.keys(positions).sort();
  if (named.join() !== asked.join()) {
    throw new Error(`resume of ${asked} answered for ${named}`);
  }
  for (const r of outcome.recovered) {
    if (r.source !== 'hot' && r.source !== 'cold') throw new Error(`source ${r.source}`);
    result[r.source] += 1;
    result.replayed += r.replayed;
  }
  for (const f of outcome.failed) {
    if (!allow_failure(f)) throw new Error(`resume failed: ${JSON.stringify(f)}`);
    result.failed.push(f);
  }
}

async function rebuild(client, view, success) {
  view.restart(success.stream_id, success.serial);
  for (const item of await client.history_all(view.channel, { until_attach: true })) {
    view.base(item.message);
  }
}

/* Frames that were held while the view was made current, then live ones as they come. */
function release(client, view, unordered, entry) {
  const upto = entry?.position?.serial ?? 0;
  const frames = client.held.get(view.channel);
  const replay = frames.filter((m) => m.serial <= upto);
  const live = frames.filter((m) => m.serial > upto);
  if (!unordered && frames.some((m, i) => i < replay.length && m !== replay[i])) {
    view.fail('the replay did not come first');
  }
  for (const m of [...replay, ...live]) {
    view.take(m);
    view.settle();
  }
  view.settle();
  client.held.delete(view.channel);
  client.views.set(view.channel, view);
}

/* A client whose channel frames go to views. saw(channel, frame) hears of each frame first,
 * fault(error) of what a view refuses. */
export async function open_attached(port, app, { query, full = false, saw = () => {},
                                                 fault } = {}) {
  let client;
  const on = (m) => {
    if (!client) return;                    /* the welcome */
    if (!m.channel || m.serial === undefined || m.event === SUCCEEDED
        || /:(resume_|rewind_|channel_history)/.test(m.event)) return;
    saw(m.channel, m);
    const held = client.held?.get(m.channel);
    if (held) { held.push(m); return; }
    const view = client.views.get(m.channel);
    if (!view) return;
    try { view.take(m); view.settle(); } catch (e) { fault?.(e); client.destroy(); }
  };
  const mode = full ? 'append_mode=full' : 'append_mode=delta';
  client = await V2.open(port, app, { on, query: query ? `${mode}&${query}` : mode });
  client.views = new Map();
  client.full = full;
  return client;
}
