/* api_idempotency.mjs - a repeated key is answered from the first time and publishes nothing.
 *
 * Source   spec/pusher-v1.md 7.8 and its Build note; spec/settled.md 8, 21, 38.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, is_api_error, is_ok } from '../expect.mjs';
import { join } from '../clients.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('api idempotency', { shared: true });
const post = (t, body, app = t.apps.main, headers = {}) =>
  t.api(app, 'POST', '/events', { body, headers });
const event = (channel, key, name = 'ev') => ({ name, channel, data: 'x', idempotency_key: key });
const header = (key) => ({ 'X-Idempotency-Key': key });

/* How many events the socket got until a marker. */
async function delivered(t, ws, channel, app = t.apps.main) {
  await t.publish(app, channel, 'marker', 'x');
  let n = 0;
  for (let m = await ws.next(); m.event !== 'marker'; m = await ws.next()) n += 1;
  return n;
}
async function listener(t, app = t.apps.main) {
  const channel = t.name();
  const ws = await t.open(app);
  await join(ws, channel);
  return { ws, channel };
}

s.test('a repeat answers the same and publishes nothing', async (t) => {
  const { ws, channel } = await listener(t);
  const body = { ...event(channel, t.name('key')), info: 'subscription_count' };
  const first = await post(t, body);
  is_ok(first);
  const other = await t.open();
  await join(other, channel);
  for (let n = 0; n < 5; n++) {
    const again = await post(t, body);
    is_ok(again, first.json);
  }
  is_ok(await post(t, { ...body, info: undefined }), first.json);
  assert.equal(await delivered(t, ws, channel), 1);
});
s.test('a key stands for one payload', async (t) => {
  const { ws, channel } = await listener(t);
  const body = event(channel, t.name('key'));
  is_ok(await post(t, body));
  for (const change of [{ name: 'other' }, { data: 'y' }, { channel: t.name() },
    { message_id: 'm' }, { tags: { a: 'b' } }, { extras: { headers: { a: 1 } } }]) {
    is_api_error(await post(t, { ...body, ...change }), 400, 'invalid_input',
                 'idempotency key was already used with a different payload');
  }
  is_ok(await post(t, body));
  assert.equal(await delivered(t, ws, channel), 1);
});
s.test('the header is a key too, the body wins over it', async (t) => {
  const { ws, channel } = await listener(t);
  const [a, b] = [t.name('key'), t.name('key')];
  is_ok(await post(t, event(channel, undefined), t.apps.main, header(a)));
  is_ok(await post(t, event(channel, a), t.apps.main, header(b)));
  is_ok(await post(t, event(channel, b)));
  is_ok(await post(t, event(channel, undefined), t.apps.main, header(b)));
  assert.equal(await delivered(t, ws, channel), 2);
});
s.test('many at once: one is published, all get its answer', async (t) => {
  const { ws, channel } = await listener(t);
  const key = t.name('key');
  const all = await Promise.all(Array.from({ length: 20 }, () => post(t, event(channel, key))));
  for (const r of all) {
    if (r.status === 503) {
      is_api_error(r, 503, 'backpressure', 'Idempotent publish is still in progress');
      assert.equal(r.headers['retry-after'], '1');
    } else is_ok(r, { ok: true });
  }
  assert.equal(await delivered(t, ws, channel), 1);
});
s.test('keys of 128 bytes, keys of any bytes', async (t) => {
  const { ws, channel } = await listener(t);
  for (const key of ['k'.repeat(120) + t.name().slice(-8), `ü🎉"\\ ${t.name()}`]) {
    is_ok(await post(t, event(channel, key)));
    is_ok(await post(t, event(channel, key)));
  }
  assert.equal(await delivered(t, ws, channel), 2);
});
s.test('bad keys in the header', async (t) => {
  const body = { name: 'ev', channel: t.name(), data: 'x' };
  is_api_error(await post(t, body, t.apps.main, header('')), 400, 'invalid_input',
               'Idempotency key must not be empty');
  is_api_error(await post(t, body, t.apps.main, header('k'.repeat(129))), 400, 'invalid_input',
               'Idempotency key exceeds maximum length of 128 characters');
});
s.test('a request that fails releases its key', async (t) => {
  const { ws, channel } = await listener(t);
  const key = t.name('key');
  assert.equal((await post(t, event('bad name', key))).status, 400);
  assert.equal((await post(t, { ...event(channel, key), data: 'x'.repeat(200000) })).status, 413);
  is_ok(await post(t, event(channel, key)), { ok: true });
  assert.equal(await delivered(t, ws, channel), 1);
});
s.test('keys belong to one app', async (t) => {
  const key = t.name('key');
  const [mine, theirs] = [await listener(t), await listener(t, t.apps.other)];
  is_ok(await post(t, event(mine.channel, key)));
  is_ok(await post(t, event(theirs.channel, key), t.apps.other));
  assert.equal(await delivered(t, mine.ws, mine.channel), 1);
  assert.equal(await delivered(t, theirs.ws, theirs.channel, t.apps.other), 1);
});
s.test('a key expires after ttl_seconds', async (t) => {
  const app = t.apps.idem;
  const { ws, channel } = await listener(t, app);
  const key = t.name('key');
  is_ok(await post(t, event(channel, key), app));
  is_ok(await post(t, event(channel, key), app));
  await ws.until('ev');
  await eventually(async () => {
    const later = await post(t, event(channel, key, 'later'), app);
    if (later.status === 400) return false;
    is_ok(later);
    await t.publish(app, channel, 'marker', 'x');
    return (await ws.next()).event === 'later';
  }, 'the key to expire');
});
s.test('an app may turn it off', async (t) => {
  const app = t.apps.noidem;
  const { ws, channel } = await listener(t, app);
  for (let n = 0; n < 3; n++) is_ok(await post(t, event(channel, 'same'), app));
  assert.equal(await delivered(t, ws, channel, app), 3);
});

/* ---- batches ---- */
const batch = (t, items, headers = {}) =>
  t.api(t.apps.main, 'POST', '/batch_events', { body: { batch: items }, headers });
s.test('the header covers the whole batch, in a scope of its own', async (t) => {
  const { ws, channel } = await listener(t);
  const key = t.name('key');
  const items = [{ name: 'a', channel, data: 'x' }, { name: 'b', channel, data: 'x' }];
  is_ok(await batch(t, items, header(key)), {});
  is_ok(await batch(t, items, header(key)), {});
  is_ok(await post(t, event(channel, key)), { ok: true });
  assert.equal(await delivered(t, ws, channel), 3);
});
s.test("an item's key is that of /events; a known one skips the item", async (t) => {
  const { ws, channel } = await listener(t);
  const [known, fresh] = [t.name('key'), t.name('key')];
  is_ok(await post(t, event(channel, known)), { ok: true });
  const r = await batch(t, [
    { ...event(channel, known), info: 'subscription_count' },
    { ...event(channel, fresh), info: 'subscription_count' }, event(channel, fresh)]);
  is_ok(r);
  assert.deepEqual(r.json.batch[0], {});
  assert.equal(r.json.batch[1].subscription_count, 1);
  assert.deepEqual(r.json.batch[2], {});
  is_ok(await post(t, event(channel, fresh)));
  assert.equal(await delivered(t, ws, channel), 2);
});
s.test('two items of a batch with one key say the same, or nothing is published', async (t) => {
  const { ws, channel } = await listener(t);
  const key = t.name('key-');
  const other = { ...event(channel, key), data: 'y' };
  is_api_error(await batch(t, [event(channel, key), event(channel), other]), 400, 'invalid_input',
               'idempotency key was already used with a different payload');
  assert.equal(await delivered(t, ws, channel), 0);
  is_ok(await batch(t, [event(channel, key), event(channel, key)]), {});
  assert.equal(await delivered(t, ws, channel), 1);
});
s.test('a batch that fails releases its keys', async (t) => {
  const { ws, channel } = await listener(t);
  const [item, whole] = [t.name('key'), t.name('key')];
  const items = [event(channel, item), event('bad name', t.name('key'))];
  assert.equal((await batch(t, items, header(whole))).status, 400);
  items.pop();
  is_ok(await batch(t, items, header(whole)));
  assert.equal(await delivered(t, ws, channel), 1);
});

/* ---- the bound ---- */
const app = app_entry('few');
const few = suite('api idempotency bound', { config: (shards) => ({
  idempotency: { max_entries: 10 * shards, ttl_seconds: 2 },
  app_manager: { array: { apps: [app] } } }) });
few.test('when full: 503, no live key is forgotten, room comes back', async (t) => {
  const { channel } = await listener(t, app);
  const used = [];
  let refused = null;
  for (let n = 0; n < 10 * t.shards * 4 && !refused; n++) {
    const key = t.name('key');
    const r = await post(t, event(channel, key), app);
    if (r.status === 200) used.push(key);
    else refused = r;
  }
  assert.ok(refused, 'the table never filled');
  assert.equal(refused.status, 503);
  assert.equal(refused.json.code, 'backpressure');
  assert.ok(Number(refused.headers['retry-after']) >= 1);
  is_ok(await post(t, event(channel, used.at(-1)), app), { ok: true });
  is_ok(await post(t, { name: 'ev', channel, data: 'x' }, app), { ok: true });
  await eventually(async () => (await post(t, event(channel, t.name('key')), app)).status === 200,
                   'room for new keys');
});
