/* v2_convergence.mjs - a subscriber that is cut off again and again ends with what is stored.
 *
 * Shape    The short form of tools/chaos/converge.mjs, which does the same with 50,000 appends and
 *          100 cuts; and rewind, resume and until_attach while publishes run at full speed.
 * Source   spec/protocol-v2.md 6, 7, 8; spec/settled.md 33-36.
 */
import { suite } from '../runner.mjs';
import { assert } from '../expect.mjs';
import { mem, mem_config, reader, v2 } from '../memory.mjs';
import { converge } from '../converge.mjs';
import { create, mutate, read_channel } from '../stored.mjs';
import { RESUME_ORDERS, View, header } from '../v2_client.mjs';

const PAGE = 500;
const COLD_MAX = 300;
const s = suite('v2 convergence', { parallel: 3, config: { ...mem_config,
  history: { ...mem_config.history, cold_replay_max_messages: COLD_MAX, max_page_size: PAGE },
  connection_recovery: { enabled: true, max_buffer_size: 40 } } });
const A = mem.app;

for (const full of [false, true]) {
  s.test(`cut off at random, append_mode=${full ? 'full' : 'delta'}: the text is what is stored`,
    async (t) => {
      const r = await converge({ port: t.port, app: A, channels: [t.name(), t.name()], full,
                                 appends: 3000, cuts: 14, messages: 24, width: 12,
                                 seed: full ? 7 : 8 });
      assert.equal(r.cuts, 14);
      assert.ok(r.hot + r.cold > 0, `recovered at least once: ${JSON.stringify(r)}`);
    });
}

/* Appends to the messages of a channel until stopped. */
function full_speed(t, channel, messages, width = 8) {
  const state = { over: false, appends: 0 };
  state.done = Promise.all(Array.from({ length: width }, async (_, w) => {
    for (let n = 0; !state.over; n++) {
      await mutate(t.port, A, channel, messages[(n + w) % messages.length], 'append',
                   { data: `<${w}.${n}>` });
      state.appends += 1;
    }
  }));
  return state;
}
async function speaking(t, count = 20) {
  const channel = t.name();
  const messages = [];
  for (let i = 0; i < count; i++) {
    messages.push((await create(t.port, A, channel, `${i}:`)).message_serial);
  }
  const load = full_speed(t, channel, messages);
  return { channel, messages, stop: async () => { load.over = true; await load.done; } };
}

/* The view reaches the head, and every message in it reads as it is stored. */
async function same_as_stored(t, c, channel) {
  const stored = await read_channel(t.port, A, channel, { limit: PAGE });
  const view = await c.reach(channel, stored.head);
  view.check_skipped(stored);
  assert.equal(view.messages.size, stored.messages.size);
  for (const [id, m] of view.messages) assert.equal(m.data, stored.messages.get(id).item.data);
  c.check();
}

s.test('until_attach plus live is everything, while publishes run at full speed', async (t) => {
  const { channel, stop } = await speaking(t);
  const readers = [];
  for (let i = 0; i < 8; i++) readers.push(await reader(t, [channel], { full: i % 2 === 0 }));
  await stop();
  for (const c of readers) await same_as_stored(t, c, channel);
});

s.test('rewind plus live is everything, while publishes run at full speed', async (t) => {
  const { channel, messages, stop } = await speaking(t);
  const views = [];
  for (const rewind of [PAGE, '20', { count: 25 }, { seconds: 600 }, { duration_seconds: 600 }]) {
    const ws = await v2(t, { query: views.length % 2 ? 'append_mode=full' : '' });
    const success = await ws.subscribe(channel, { rewind });
    const view = new View(channel);
    view.full = views.length % 2 === 1;
    view.restart(success.stream_id, success.serial);
    for (;;) {
      const m = await ws.next((f) => f.channel === channel && f.event !== success.event);
      if (m.event === 'sockudo:rewind_complete') {
        assert.equal(m.data.historical_count, messages.length);
        assert.deepEqual([m.stream_id, m.serial], [success.stream_id, view.next - 1]);
        break;
      }
      if (m.serial <= success.serial) {
        assert.equal(view.next, success.serial + 1, 'history comes before live frames');
        view.rewound(m);
      } else view.take(m);
      view.settle();
    }
    assert.equal(view.messages.size, messages.length);
    views.push({ ws, view });
  }
  await stop();
  const stored = await read_channel(t.port, A, channel, { limit: PAGE });
  for (const { ws, view } of views) {
    while (view.next <= stored.head) {
      view.take(await ws.next((f) => f.channel === channel));
      view.settle();
    }
    view.check_skipped(stored);
    for (const [id, m] of view.messages) assert.equal(m.data, stored.messages.get(id).item.data);
  }
});

s.test('a rewind of a subscription that stands shows nothing older than it was sent', async (t) => {
  const { channel, stop } = await speaking(t);
  const ws = await v2(t), shown = new Map();
  await ws.subscribe(channel);
  for (let n = 0; n < 30; n++) {
    ws.send(ws.subscribe_frame(channel, { rewind: 20 }));
    for (let m; m?.event !== 'sockudo:rewind_complete';) {
      m = await ws.next((f) => f.channel === channel);
      if (!header(m, 'version_serial')) continue;
      const id = header(m, 'message_serial');
      assert.ok(m.serial >= (shown.get(id) ?? 0), `${m.event} ${m.serial} of ${shown.get(id)}`);
      shown.set(id, m.serial);
    }
  }
  await stop();
});

s.test('resume in every order is exact while publishes run at full speed', async (t) => {
  const { channel, stop } = await speaking(t);
  const lost = new View(channel);
  let c = await reader(t, [channel], { views: [lost] });
  const results = [];
  for (let n = 0; n < 16; n++) {
    await new Promise((resolve) => setTimeout(resolve, 3 + 11 * (n % 5)));
    c.check();
    c.ws.reset();
    await c.gone;
    lost.pending.clear();
    c = await reader(t, [channel], { views: [lost], order: RESUME_ORDERS[n % 4] });
    results.push(c.result);
  }
  await stop();
  await same_as_stored(t, c, channel);
  assert.ok(results.some((r) => r.hot + r.cold > 0), JSON.stringify(results));
});
