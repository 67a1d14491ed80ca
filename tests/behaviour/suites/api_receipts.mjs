/* api_receipts.mjs - publish receipts: the same publish said again is answered from the first time,
 * by message_id, extras.idempotencyKey or the request's key, one receipt a channel.
 *
 * Source   spec/messages-and-history.md 10 (layer B), 13 (2, 4, 5); spec/settled.md 38.
 */
import { suite } from '../runner.mjs';
import { assert, is_api_error, is_ok } from '../expect.mjs';
import { app_entry } from '../apps.mjs';
import { mem, mem_config, Lives, v2 } from '../memory.mjs';

const silent = app_entry('recoff', { idempotency: { enabled: false } });
const brief = app_entry('recttl', { idempotency: { enabled: true, ttl_seconds: 1 } });
const s = suite('api receipts', { config: { ...mem_config,
  app_manager: { array: { apps: [...Object.values(mem), silent, brief] } } } });
const A = mem.app;
const differs = (r) => is_api_error(r, 400, 'invalid_input',
                                    'idempotency key was already used with a different payload');
const event = (channel, more = {}) =>
  ({ name: 'n', data: 'x', channel, info: 'subscription_count', ...more });
const post = (t, body, app = A, headers = {}) =>
  t.api(app, 'POST', '/events', { body, headers });
const rows = async (t, c, app = A) => (await t.api(app, 'GET', `/channels/${c}/history`,
  { query: { direction: 'forward' } })).json.items;
const ack = (r, c) => { is_ok(r); return r.json.channels[c]; };
/* The events that a socket heard on a channel before one that is published now. */
async function heard_until_end(t, w, c, app = A) {
  is_ok(await post(t, event(c, { name: 'end' }), app));
  const heard = [];
  for (;;) {
    const m = await w.next((f) => f.channel === c && !/succeeded$/.test(f.event));
    if (m.event === 'end') return heard;
    heard.push(m.event);
  }
}

s.test('a repeated message_id answers the same serials and stores nothing', async (t) => {
  const c = t.name();
  const w = await v2(t);
  await w.subscribe(c);
  const body = event(c, { message_id: 'm', extras: { headers: { a: 1 } }, tags: { k: 'v' } });
  const first = ack(await post(t, body), c);
  is_ok(await t.api(A, 'POST', `/channels/${c}/messages/${first.message_serial}/append`,
                    { body: { data: '!' } }));
  for (let i = 0; i < 3; i++) assert.deepEqual(ack(await post(t, body), c), first);
  assert.equal((await rows(t, c)).length, 1);
  assert.deepEqual(await heard_until_end(t, w, c), ['n', 'sockudo:message.append']);
});
s.test('one key, one payload', async (t) => {
  const c = t.name();
  const body = event(c, { message_id: 'm', extras: { a: 1 }, tags: { k: 'v' } });
  ack(await post(t, body), c);
  for (const more of [{ name: 'o' }, { data: 'y' }, { tags: { k: 'w' } }, { tags: undefined },
    { extras: { a: 2 } }, { extras: undefined }]) {
    differs(await post(t, { ...body, ...more }));
  }
  ack(await post(t, { ...body, data: 'x', info: 'user_count' }), c);
  assert.equal((await rows(t, c)).length, 1);
});
s.test('message_id goes before extras.idempotencyKey, both before the request key', async (t) => {
  const c = t.name();
  const key = t.name('key');
  const one = ack(await post(t, event(c, { message_id: 'm', extras: { idempotencyKey: 'e' } })), c);
  assert.equal(one.history_serial, 1);
  const two = ack(await post(t, event(c, { extras: { idempotencyKey: 'e' } })), c);
  assert.equal(two.history_serial, 2, 'the first was known by its message_id');
  assert.deepEqual(ack(await post(t, event(c, { extras: { idempotencyKey: 'e' } })), c), two);
  const three = ack(await post(t, event(c, { idempotency_key: key })), c);
  assert.equal(three.history_serial, 3);
  differs(await post(t, event(c, { data: 'y' }), A, { 'X-Idempotency-Key': key }));
  const four = ack(await post(t, event(c, { extras: { idempotency_key: 'e' } })), c);
  assert.equal(four.history_serial, 4, 'the snake_case form is a key of no meaning');
});
s.test('receipts belong to one channel', async (t) => {
  const [a, b] = [t.name(), t.name()];
  const both = { name: 'n', data: 'x', channels: [a, b], message_id: 'm' };
  const first = await post(t, both);
  is_ok(first);
  assert.deepEqual((await post(t, both)).json, first.json);
  const third = t.name();
  const more = await post(t, { ...both, channels: [a, third] });
  assert.deepEqual(more.json.channels[a], first.json.channels[a]);
  assert.equal(more.json.channels[third].history_serial, 1);
  assert.deepEqual([(await rows(t, a)).length, (await rows(t, b)).length], [1, 1]);
});
s.test('two at once are one', async (t) => {
  const c = t.name();
  const all = await Promise.all(Array.from({ length: 30 }, () =>
    post(t, event(c, { message_id: 'm' }))));
  const first = ack(all[0], c);
  for (const r of all) assert.deepEqual(ack(r, c), first);
  assert.equal((await rows(t, c)).length, 1);
});
s.test('batch items have receipts too', async (t) => {
  const c = t.name();
  const items = [event(c, { message_id: 'a' }), event(c, { message_id: 'b' }),
                 event(c, { message_id: 'a' })];
  const r = await t.api(A, 'POST', '/batch_events', { body: { batch: items } });
  is_ok(r);
  assert.deepEqual(r.json.batch[2], r.json.batch[0]);
  const again = await t.api(A, 'POST', '/batch_events', { body: { batch: items } });
  assert.deepEqual(again.json, r.json);
  differs(await t.api(A, 'POST', '/batch_events',
                      { body: { batch: [{ ...items[0], data: 'y' }] } }));
  assert.equal((await rows(t, c)).length, 2);
});
s.test('a batch that fails in the middle does not swallow its retry', async (t) => {
  const c = t.name();
  ack(await post(t, event(c, { message_id: 'taken' })), c);
  const [k1, k2, k3] = [t.name('key'), t.name('key'), t.name('key')];
  const items = [event(c, { idempotency_key: k1 }),
                 event(c, { message_id: 'taken', data: 'y', idempotency_key: k2 }),
                 event(c, { idempotency_key: k3 })];
  const send = (batch) => t.api(A, 'POST', '/batch_events', { body: { batch },
    headers: { 'X-Idempotency-Key': t.name('whole') } });
  differs(await send(items));
  items[1] = event(c, { idempotency_key: k2 });
  is_ok(await send(items));
  assert.equal((await rows(t, c)).length, 4, 'every item once, whatever had been published');
});
s.test('keys that are none', async (t) => {
  const c = t.name();
  for (const [more, text] of [[{ message_id: '' }, 'idempotency key must not be empty'],
    [{ message_id: 'm'.repeat(129) }, 'idempotency key exceeds 128 bytes'],
    [{ extras: { idempotencyKey: '' } }, 'idempotency key must not be empty'],
    [{ extras: { idempotencyKey: 'ü'.repeat(65) } }, 'idempotency key exceeds 128 bytes']]) {
    is_api_error(await post(t, event(c, more)), 400, 'invalid_input', text);
  }
  ack(await post(t, event(c, { message_id: 'ü'.repeat(64) })), c);
  assert.equal((await rows(t, c)).length, 1);
});
s.test('an app may do without', async (t) => {
  const c = t.name();
  for (let i = 1; i <= 2; i++) {
    const r = ack(await post(t, event(c, { message_id: 'm', data: `${i}` }), silent), c);
    assert.equal(r.history_serial, i);
  }
});
s.test('on a channel without history the receipt suppresses the broadcast', async (t) => {
  const c = t.name();
  const w = await v2(t, { app: mem.plain });
  await w.subscribe(c);
  for (let i = 0; i < 3; i++) {
    is_ok(await post(t, event(c, { message_id: 'm' }), mem.plain));
  }
  differs(await post(t, event(c, { message_id: 'm', data: 'y' }), mem.plain));
  assert.deepEqual(await heard_until_end(t, w, c, mem.plain), ['n']);
});
s.test('an ephemeral publish is told once', async (t) => {
  const c = t.name();
  const w = await v2(t);
  await w.subscribe(c);
  const body = event(c, { extras: { ephemeral: true, idempotencyKey: 'e' } });
  for (let i = 0; i < 3; i++) is_ok(await post(t, body));
  assert.deepEqual(await rows(t, c), []);
  assert.deepEqual(await heard_until_end(t, w, c), ['n']);
});
s.test('a receipt expires', async (t) => {
  const c = t.name();
  const body = event(c, { message_id: 'm' });
  assert.equal(ack(await post(t, body, brief), c).history_serial, 1);
  const until = Date.now() + 15000;
  for (;;) {
    if (ack(await post(t, body, brief), c).history_serial === 2) break;
    assert.ok(Date.now() < until, 'it never expired');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});

const lives = suite('api receipts over a restart', { none: true });
lives.test('receipts, request keys and op_ids are known after kill -9', async (t) => {
  const l = new Lives(t);
  await l.start();
  const send = (body, headers = {}) =>
    t.api(A, 'POST', '/events', { body, headers, port: l.port });
  const body = event('kept', { message_id: 'm' });
  const first = ack(await send(body), 'kept');
  const keyed = event('kept', { idempotency_key: 'k' });
  const second = await send(keyed);
  is_ok(second);
  const path = `/channels/kept/messages/${first.message_serial}/append`;
  const op = { body: { data: '!', op_id: 'o' }, port: l.port };
  const third = await t.api(A, 'POST', path, op);
  is_ok(third);
  const whole = { batch: [event('kept', { data: 'b' })] };
  const batch = (headers) =>
    t.api(A, 'POST', '/batch_events', { body: whole, headers, port: l.port });
  const fourth = await batch({ 'X-Idempotency-Key': 'w' });
  is_ok(fourth);
  await l.kill();
  await l.start();
  op.port = l.port;
  assert.deepEqual(ack(await send(body), 'kept'), first);
  differs(await send({ ...body, data: 'y' }));
  assert.deepEqual((await send(keyed)).json, second.json);
  differs(await send({ ...keyed, data: 'y' }));
  assert.deepEqual((await t.api(A, 'POST', path, op)).json,
                   { ...third.json, status: 'duplicate' });
  differs(await t.api(A, 'POST', path, { ...op, body: { data: '?', op_id: 'o' } }));
  assert.deepEqual((await batch({ 'X-Idempotency-Key': 'w' })).json, fourth.json);
  const items = (await t.api(A, 'GET', '/channels/kept/history', { port: l.port })).json.items;
  assert.equal(items.length, 3);
  await l.server.stop();
});
