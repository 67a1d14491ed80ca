/* converge.mjs - appends at full speed to many messages while one subscriber is cut off at random.
 *
 * Shape    converge() publishes `appends` to `messages` messages over the channels, `width` at a
 *          time, and cuts the subscriber's socket `cuts` times, after numbers of appends drawn from
 *          the seed; it comes back after a while, with the resume before, with or after the
 *          subscribe. At the end its views are compared with GET latest of every message. Resolves
 *          to the counts.
 * Checks   View: no duplicate, no gap, in order. A resume may fail only because the window is too
 *          small; the view is then made from channel_history.
 * Source   spec/protocol-v2.md 6; spec/settled.md 33, 34.
 */
import assert from 'node:assert/strict';
import { in_turn, mutate, create, read_channel, read_message } from './stored.mjs';
import { RESUME_ORDERS, View, attach, open_attached } from './v2_client.mjs';

const SETTLE_MS = 30000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const too_far = (f) => f.code === 'position_expired' && f.reason === 'recovery_window_exceeded';
/* What is live fills the gate before the replay is read: whole texts are more than fragments. */
const gate_full = (f) => f.reason === 'failed_to_deliver_recovery_payload'
  || f.reason === 'not_subscribed';

/* A generator of numbers below n: the same for the same seed. */
function numbers(seed) {
  let state = seed >>> 0;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

class Subscriber {
  counts = { cuts: 0, hot: 0, cold: 0, replayed: 0, failed: 0, gate_full: 0, rebuilt: 0 };
  faults = [];
  constructor(options, below) {
    Object.assign(this, { options, below });
    this.views = options.channels.map((c) => new View(c));
  }

  async attach() {
    const { port, app, full } = this.options;
    this.client = await open_attached(port, app, { full, fault: (e) => this.faults.push(e) });
    const order = RESUME_ORDERS[this.below(RESUME_ORDERS.length)];
    const allow_failure = (f) => too_far(f) || (full && gate_full(f));
    const r = await attach(this.client, this.views, { order, allow_failure });
    for (const k of ['hot', 'cold', 'replayed', 'rebuilt']) this.counts[k] += r[k];
    this.counts.failed += r.failed.length;
    this.counts.gate_full += r.failed.filter(gate_full).length;
  }

  async cut() {
    this.counts.cuts += 1;
    this.client.ws.reset();
    await this.client.gone;
    for (const v of this.views) v.pending.clear();
    if (this.faults.length > 0) throw this.faults[0];
  }
}

export async function converge(options) {
  const { port, app, channels, appends, cuts, messages, width, seed } = options;
  const below = numbers(seed);
  const list = await make_messages(options);
  const subscriber = new Subscriber(options, below);
  await subscriber.attach();
  const cut_at = Array.from({ length: cuts }, () => below(appends)).sort((a, b) => a - b);
  const state = { started: 0, last: new Map() };
  const publishers = Promise.all(Array.from({ length: width }, async () => {
    while (state.started < appends) {
      const n = state.started++;
      const { channel, serial } = list[below(messages)];
      const ack = await mutate(port, app, channel, serial, 'append', { data: `<${n}>` });
      const head = state.last.get(channel) ?? 0;
      if (ack.delivery_serial > head) state.last.set(channel, ack.delivery_serial);
    }
  }));
  publishers.catch(() => {});
  for (const at of cut_at) {
    while (state.started < at) await Promise.race([sleep(1), publishers]);
    await subscriber.cut();
    const away = Math.min(appends, state.started + below(2 * appends / cuts));
    while (state.started < away) await Promise.race([sleep(1), publishers]);
    await subscriber.attach();
  }
  await publishers;
  await compare(subscriber, list, state.last, options);
  subscriber.client.destroy();
  assert.equal(channels.length, subscriber.views.length);
  return subscriber.counts;
}

async function make_messages({ port, app, channels, messages }) {
  return Promise.all(Array.from({ length: messages }, async (_, i) => {
    const channel = channels[i % channels.length];
    const { message_serial: serial } = await create(port, app, channel, `${i}:`);
    return { channel, serial };
  }));
}

async function compare(subscriber, list, last, { port, app }) {
  const until = Date.now() + SETTLE_MS;
  for (const view of subscriber.views) {
    while (view.next <= (last.get(view.channel) ?? 0)) {
      if (subscriber.faults.length > 0) throw subscriber.faults[0];
      assert.ok(Date.now() < until, `${view.channel} stays before ${view.next}`);
      await sleep(2);
    }
    view.settle();
    if (view.full) view.check_skipped(await read_channel(port, app, view.channel));
  }
  if (subscriber.faults.length > 0) throw subscriber.faults[0];
  await in_turn(list, 16, async ({ channel, serial }) => {
    const view = subscriber.views.find((v) => v.channel === channel);
    const stored = await read_message(port, app, channel, serial);
    assert.equal(view.messages.get(serial).data, stored.data, `${channel} ${serial}`);
  });
}
