/* v1_cache.mjs - cache channels: the last event for who comes later, cache_miss, order, expiry.
 *
 * Source   spec/pusher-v1.md 3.1 (anchoring), 3.6, 3.7; spec/settled.md 20, 21.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_nothing, is_event } from '../expect.mjs';
import { join, subscribe_frame } from '../clients.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('v1 cache', { shared: true });
const kinds = ['cache-', 'private-cache-', 'private-encrypted-cache-', 'presence-cache-'];
const member = (kind) => (kind.startsWith('presence-') ? { user_id: 'u1' } : undefined);
const miss = (channel) => ({ event: 'pusher:cache_miss', channel, data: '{}' });

for (const kind of kinds) {
  s.test(`${kind}*: cache_miss, then the last event`, async (t) => {
    const channel = t.name(kind);
    const first = await t.open();
    await join(first, channel, member(kind));
    is_event(await first.next(), miss(channel));
    for (const n of [1, 2, 3]) await t.publish(t.apps.main, channel, `ev${n}`, `{"n":${n}}`);
    for (const n of [1, 2, 3]) {
      is_event(await first.next(), { event: `ev${n}`, channel, data: `{"n":${n}}` });
    }
    const second = await t.open();
    await join(second, channel, member(kind));
    is_event(await second.next(), { event: 'ev3', channel, data: '{"n":3}' });
    await expect_nothing(second);
    await expect_nothing(first);
  });
}

s.test('the miss frame, byte for byte', async (t) => {
  const channel = t.name('cache-');
  const ws = await t.open();
  await join(ws, channel);
  assert.equal((await ws.take()).text,
               `{"event":"pusher:cache_miss","channel":"${channel}","data":"{}"}`);
});

const not_cache = ['my-cache-', 'x-cache-', 'private-mycache-', 'private-x-cache-',
  'presence-my-cache-',
                   'Cache-', 'cache'];
for (const kind of not_cache) {
  s.test(`${kind}* is no cache channel`, async (t) => {
    const channel = t.name(kind);
    const ws = await t.open();
    await t.publish(t.apps.main, channel, 'ev', 'x');
    await join(ws, channel, member(kind));
    await expect_nothing(ws);
  });
}

s.test('an event published to nobody is kept', async (t) => {
  const channel = t.name('cache-');
  await t.publish(t.apps.main, channel, 'ev', 'kept');
  const ws = await t.open();
  await join(ws, channel);
  is_event(await ws.next(), { event: 'ev', channel, data: 'kept' });
});

s.test('it stays when everyone has left', async (t) => {
  const channel = t.name('cache-');
  const first = await t.open();
  await join(first, channel);
  await t.publish(t.apps.main, channel, 'ev', 'kept');
  await first.until('ev');
  first.reset();
  await eventually(async () => !(await t.api(t.apps.main, 'GET', `/channels/${channel}`))
    .json.occupied, 'the channel is empty');
  const ws = await t.open();
  await join(ws, channel);
  is_event(await ws.next(), { event: 'ev', channel, data: 'kept' });
});

s.test('batch and multi-channel publishes are kept too', async (t) => {
  const [one, two, three] = [t.name('cache-'), t.name('cache-'), t.name('cache-')];
  await t.publish(t.apps.main, [one, two], 'multi', 'm');
  const r = await t.api(t.apps.main, 'POST', '/batch_events', { body: { batch: [
    { name: 'first', channel: three, data: 'a' }, { name: 'last', channel: three, data: 'b' }] } });
  assert.equal(r.status, 200, r.text);
  const ws = await t.open();
  for (const [channel, event, data] of [[one, 'multi', 'm'], [two, 'multi', 'm'],
                                        [three, 'last', 'b']]) {
    await join(ws, channel);
    is_event(await ws.next(), { event, channel, data });
  }
});

s.test('client events are not kept', async (t) => {
  const channel = t.name('private-cache-');
  const [a, b, c] = [await t.open(), await t.open(), await t.open()];
  await join(a, channel);
  await join(b, channel);
  await a.until('pusher:cache_miss');
  await b.until('pusher:cache_miss');
  a.send({ event: 'client-x', channel, data: { n: 1 } });
  is_event(await b.next(), { event: 'client-x', channel, data: { n: 1 } });
  await join(c, channel);
  is_event(await c.next(), miss(channel));
});

s.test('the excluded publisher still gets it when it comes back', async (t) => {
  const channel = t.name('cache-');
  const ws = await t.open();
  await join(ws, channel);
  is_event(await ws.next(), miss(channel));
  await t.publish(t.apps.main, channel, 'ev', 'x', { socket_id: ws.socket_id });
  await expect_nothing(ws);
  await join(ws, channel);
  is_event(await ws.next(), { event: 'ev', channel, data: 'x' });
});

s.test('success, then the cached event, then live events', async (t) => {
  const channel = t.name('cache-');
  await t.publish(t.apps.main, channel, 'ev', '0');
  const sockets = await Promise.all(Array.from({ length: 12 }, () => t.open()));
  const publishing = (async () => {
    for (let n = 1; n <= 40; n++) await t.publish(t.apps.main, channel, 'ev', String(n));
  })();
  await Promise.all(sockets.map(async (ws) => {
    ws.send(subscribe_frame(ws, channel));
    assert.equal((await ws.next()).event, 'pusher_internal:subscription_succeeded');
    let last = Number((await ws.next()).data);
    while (last < 40) {
      const n = Number((await ws.next()).data);
      assert.equal(n, last + 1, 'each later event once and in order');
      last = n;
    }
  }));
  await publishing;
});

s.test('the state endpoint shows the cached event', async (t) => {
  const channel = t.name('cache-');
  await t.publish(t.apps.main, channel, 'ev', 'x');
  const r = await t.api(t.apps.main, 'GET', `/channels/${channel}`, { query: { info: 'cache' } });
  assert.equal(r.status, 200, r.text);
  assert.equal(r.json.occupied, false);
  assert.deepEqual(JSON.parse(r.json.cache.data), { event: 'ev', channel, data: 'x' });
  assert.ok(r.json.cache.ttl > 3500 && r.json.cache.ttl <= 3600, r.text);
  const empty = await t.api(t.apps.main, 'GET', `/channels/${t.name('cache-')}`,
                            { query: { info: 'cache' } });
  assert.equal(empty.json.cache, undefined);
});

s.test('apps do not share their caches', async (t) => {
  const channel = t.name('cache-');
  await t.publish(t.apps.main, channel, 'ev', 'mine');
  const ws = await t.open(t.apps.other);
  await join(ws, channel);
  is_event(await ws.next(), miss(channel));
});

/* ---- expiry and the bound on memory ---- */
const app = app_entry('small');
const small = suite('v1 cache bounds', { parallel: 1, config: (shards) => ({
  channel_limits: { cache_ttl: 3 }, cache: { max_bytes: 65536 * shards },
  app_manager: { array: { apps: [app] } } }) });
small.test('the event expires after cache_ttl', async (t) => {
  const channel = t.name('cache-');
  await t.publish(app, channel, 'ev', 'old');
  const ws = await t.open(app);
  await join(ws, channel);
  is_event(await ws.next(), { event: 'ev', channel, data: 'old' });
  await eventually(async () => {
    await join(ws, channel);
    return (await ws.next()).event === 'pusher:cache_miss';
  }, 'the event to expire');
});
small.test('cache.max_bytes evicts the oldest, which is seen as a miss', async (t) => {
  const channels = Array.from({ length: 30 * t.shards }, () => t.name('cache-'));
  for (const channel of channels) await t.publish(app, channel, 'ev', 'x'.repeat(30000));
  const ws = await t.open(app);
  await join(ws, channels[0]);
  is_event(await ws.next(), miss(channels[0]));
  await join(ws, channels.at(-1));
  assert.equal((await ws.next()).event, 'ev');
});
