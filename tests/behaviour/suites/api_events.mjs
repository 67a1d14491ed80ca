/* api_events.mjs - POST /events and /batch_events: fields, refusals, answers, exclusion.
 *
 * Source   spec/pusher-v1.md 7.3, 7.4, 7.8; spec/settled.md 7, 8, 11, 21.
 */
import { suite } from '../runner.mjs';
import { assert, expect_nothing, is_api_error, is_event, is_ok } from '../expect.mjs';
import { join } from '../clients.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('api events', { shared: true });
const post = (t, body, app = t.apps.main, more = {}) =>
  t.api(app, 'POST', '/events', { body, ...more });

const kept = {
  'a string': ['{"id":7}', '{"id":7}'], 'an empty string': ['', ''],
    'plain text': ['hello', 'hello'],
  'strange text': ['\u0000\u001f"\\/ü🎉\u2028', '\u0000\u001f"\\/ü🎉\u2028'],
  'an object': [{ a: [1, null, { b: 'ü' }] }, '{"a":[1,null,{"b":"ü"}]}'], 'a number': [7.5, '7.5'],
  'null': [null, 'null'], 'true': [true, 'true'], 'an array': [[1, 2], '[1,2]'],
  'absent': [undefined, 'null'],
};
for (const [what, [data, delivered]] of Object.entries(kept)) {
  s.test(`data ${what} is delivered as a string`, async (t) => {
    const channel = t.name();
    const ws = await t.open();
    await join(ws, channel);
    is_ok(await post(t, { name: 'ev', channel, data }), { ok: true });
    is_event(await ws.next(), { event: 'ev', channel, data: delivered });
  });
}
s.test('non-string data is made compact', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  is_ok(await post(t,
    `{ "name" : "ev", "channel":"${channel}", "data" : { "a" : [ 1 , 1.50 ] } }`));
  assert.equal((await ws.next()).data, '{"a":[1,1.50]}');
});
s.test('the delivered frame, byte for byte', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  await post(t, { name: 'App\\Events\\OrderShipped', channel, data: '{"id":7}', tags: { a: 'b' },
                  delta: true, extras: { x: 1 }, user_id: 'x', foo: 1 });
  assert.equal((await ws.take()).text, '{"event":"App\\\\Events\\\\OrderShipped",'
    + `"channel":"${channel}","data":"{\\"id\\":7}"}`);
});
s.test('event names of any characters, reserved prefixes too', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  for (const name of ['ü🎉"\\\n\u0000', 'client-x', 'a b', 'pusher_custom', 'x'.repeat(200)]) {
    is_ok(await post(t, { name, channel, data: 'x' }), { ok: true });
    is_event(await ws.next(), { event: name, channel, data: 'x' });
  }
});
s.test('channels: each once, and wins over channel', async (t) => {
  const [a, b, c] = [t.name(), t.name(), t.name()];
  const ws = await t.open();
  for (const channel of [a, b, c]) await join(ws, channel);
  is_ok(await post(t, { name: 'ev', channels: [a, b, a], channel: c, data: 'x' }), { ok: true });
  const seen = [await ws.next(), await ws.next()].map((m) => m.channel).sort();
  assert.deepEqual(seen, [a, b].sort());
  await expect_nothing(ws);
});
s.test('100 channels at once', async (t) => {
  const channels = Array.from({ length: 100 }, () => t.name());
  const ws = await t.open();
  for (const channel of channels) await join(ws, channel);
  is_ok(await post(t, { name: 'ev', channels, data: 'x' }));
  const seen = [];
  while (seen.length < 100) seen.push((await ws.next()).channel);
  assert.deepEqual(seen.sort(), [...channels].sort());
});
s.test('a publish to nobody is no error', async (t) => {
  is_ok(await post(t, { name: 'ev', channel: t.name('presence-'), data: 'x' }), { ok: true });
});
s.test('data of 100 KB and an event larger than any buffer', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  const data = '"\\\n'.repeat(34133);
  is_ok(await post(t, { name: 'ev', channel, data }), { ok: true });
  assert.equal((await ws.next()).data, data);
});

const TOO_MANY = 'Number of channels (101) exceeds limit (100)';
const bad = {
  'no name': [{ channel: 'c', data: 'x' }, 400, 'invalid_input', 'Event name is required'],
  'an empty name': [{ name: '', channel: 'c', data: 'x' }, 400, 'invalid_input', /./],
  'a name of 201 bytes': [{ name: 'x'.repeat(201), channel: 'c', data: 'x' }, 400, 'limit_exceeded',
                          `Event name '${'x'.repeat(201)}' exceeds maximum length of 200`],
  'data over 100 KB': [{ name: 'ev', channel: 'c', data: 'x'.repeat(102401) }, 413,
    'payload_too_large', "Event payload size (102401 bytes) for event 'ev' exceeds limit (100KB)"],
  'no channel': [{ name: 'ev', data: 'x' }, 400, 'missing_channel_info',
                 "Request must contain 'channels' (list) or 'channel' (string)"],
  'an empty list': [{ name: 'ev', channels: [], data: 'x' }, 400, /invalid_input|missing_channel/,
    /./],
  '101 channels': [{ name: 'ev', channels: Array(101).fill('c'), data: 'x' }, 400, 'limit_exceeded',
                   TOO_MANY],
  'a bad channel': [{ name: 'ev', channel: 'a b', data: 'x' }, 400, 'invalid_input',
                    /^Channel name contains invalid characters: 'a b'/],
  'a long channel': [{ name: 'ev', channel: 'x'.repeat(201), data: 'x' }, 400, 'invalid_input',
                     'Channel name too long. Max length is 200'],
  'an empty channel': [{ name: 'ev', channel: '', data: 'x' }, 400, 'invalid_input', /./],
  'an unusable socket_id': [{ name: 'ev', channel: 'c', data: 'x', socket_id: 'me' }, 400,
                            'invalid_input', /./],
  'an empty idempotency key': [{ name: 'ev', channel: 'c', data: 'x', idempotency_key: '' }, 400,
                               'invalid_input', 'Idempotency key must not be empty'],
  'a long idempotency key': [{ name: 'ev', channel: 'c', data: 'x',
    idempotency_key: 'k'.repeat(129) },
    400, 'invalid_input', 'Idempotency key exceeds maximum length of 128 characters'],
};
for (const [what, [body, status, code, text]] of Object.entries(bad)) {
  s.test(`${what}: ${status}`, async (t) => {
    const r = await post(t, body);
    if (code instanceof RegExp) assert.match(r.json.code, code);
    is_api_error(r, status, code instanceof RegExp ? r.json.code : code, text);
  });
}
s.test("an app's own limits", async (t) => {
  const app = t.apps.limits;
  const fits = { name: 'n'.repeat(20), channels: ['a', 'b', 'c'], data: 'x'.repeat(1024) };
  is_ok(await post(t, fits, app), { ok: true });
  is_api_error(await post(t, { ...fits, name: 'n'.repeat(21) }, app), 400, 'limit_exceeded',
               `Event name '${'n'.repeat(21)}' exceeds maximum length of 20`);
  is_api_error(await post(t, { ...fits, data: 'x'.repeat(1025) }, app), 413, 'payload_too_large',
    `Event payload size (1025 bytes) for event '${fits.name}' exceeds limit (1KB)`);
  is_api_error(await post(t, { ...fits, channels: ['a', 'b', 'c', 'd'] }, app), 400,
    'limit_exceeded',
               'Number of channels (4) exceeds limit (3)');
  is_api_error(await post(t, { ...fits, channels: ['a', 'x'.repeat(41)] }, app), 400,
               'invalid_input', 'Channel name too long. Max length is 40');
});
s.test('one bad channel: nothing is delivered anywhere', async (t) => {
  const [a, b] = [t.name(), t.name()];
  const ws = await t.open();
  await join(ws, a);
  await join(ws, b);
  assert.equal((await post(t, { name: 'ev', channels: [a, 'bad name', b], data: 'x' })).status,
    400);
  await t.publish(t.apps.main, a, 'marker', 'x');
  assert.equal((await ws.next()).event, 'marker');
});

for (const [what, text, status] of [
  ['malformed JSON', '{"name":', 400], ['no JSON at all', 'name=ev', 400],
    ['two values', '{}{}', 400],
  ['an array', '[]', 422], ['a string', '"x"', 422], ['a name that is a number', '{"name":5}', 422],
  ['channels that is a string', '{"name":"e","channels":"c","data":"x"}', 422],
  ['a channel that is a number', '{"name":"e","channels":[5],"data":"x"}', 422]]) {
  s.test(`${what}: ${status} in plain text`, async (t) => {
    const r = await post(t, text);
    assert.equal(r.status, status, r.text);
    assert.match(r.headers['content-type'] ?? '', /^text\/plain/);
  });
}
const wrong_types = {
  name: [5, true, [], {}], channel: [5, true, [], {}], channels: [5, true, 'c', {}],
  socket_id: [5, true, [], {}], info: [5, true, [], {}], idempotency_key: [5, true, [], {}],
  message_id: [5, true, [], {}], tags: [5, true, 'x', [], { a: 1 }, { a: null }],
  extras: [5, true, 'x', [], { headers: 1 }, { headers: { a: null } }, { ephemeral: 1 },
           { echo: 'x' }, { ai: [] }, { ai: { transport: { status: 1 } } }, { idempotencyKey: 1 }],
};
for (const [field, values] of Object.entries(wrong_types)) {
  s.test(`${field} of a wrong type: 422, alone and in a batch`, async (t) => {
    for (const value of values) {
      const event = { name: 'e', channel: 'c', data: 'x', [field]: value };
      for (const [path, body] of [['/events', event], ['/batch_events', { batch: [event] }]]) {
        const r = await t.api(t.apps.main, 'POST', path, { body });
        assert.equal(r.status, 422, `${path} ${JSON.stringify(event)}: ${r.status} ${r.text}`);
      }
    }
  });
}
for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonx', '']) {
  s.test(`Content-Type "${type}": 415`, async (t) => {
    const r = await post(t, '{"name":"e","channel":"c","data":"x"}', t.apps.main,
                         { headers: { 'Content-Type': type } });
    assert.equal(r.status, 415, r.text);
  });
}
for (const type of ['application/json; charset=utf-8', 'Application/JSON']) {
  s.test(`Content-Type "${type}" is JSON`, async (t) => {
    is_ok(await post(t, { name: 'e', channel: 'c', data: 'x' }, t.apps.main,
                     { headers: { 'Content-Type': type } }));
  });
}

/* ---- socket_id, info ---- */
s.test('socket_id excludes one socket and no other', async (t) => {
  const channel = t.name();
  const sockets = await Promise.all(Array.from({ length: 6 }, () => t.open()));
  for (const ws of sockets) await join(ws, channel);
  await t.sdk().trigger(channel, 'ev', { n: 1 }, { socket_id: sockets[2].socket_id });
  await t.publish(t.apps.main, channel, 'marker', 'x');
  for (const [i, ws] of sockets.entries()) {
    const m = await ws.next();
    assert.equal(m.event, i === 2 ? 'marker' : 'ev');
  }
});
s.test('a socket_id that nobody has excludes nobody', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  await t.publish(t.apps.main, channel, 'ev', 'x', { socket_id: '1.1' });
  assert.equal((await ws.next()).event, 'ev');
});
s.test('info: counts per channel', async (t) => {
  const [open, presence, empty] = [t.name(), t.name('presence-'), t.name()];
  const [a, b] = [await t.open(), await t.open()];
  await join(a, open);
  await join(b, open);
  await join(a, presence, { user_id: 'u' });
  await join(b, presence, { user_id: 'u' });
  const { channels } = await t.publish(t.apps.main, [open, presence, empty], 'ev', 'x',
                                       { info: ' user_count , subscription_count,nonsense ' });
  for (const name of [open, presence, empty]) delete channels[name].acknowledgement_id;
  assert.deepEqual(channels, { [open]: { subscription_count: 2 },
    [presence]: { user_count: 1, subscription_count: 2 }, [empty]: { subscription_count: 0 } });
});
s.test('info without known attributes keeps the shape', async (t) => {
  const channel = t.name();
  const { channels } = await t.publish(t.apps.main, channel, 'ev', 'x', { info: 'user_count' });
  assert.deepEqual(Object.keys(channels), [channel]);
  assert.equal(channels[channel].user_count, undefined);
});

/* ---- batch ---- */
const batch = (t, items, app = t.apps.main, more = {}) =>
  t.api(app, 'POST', '/batch_events', { body: { batch: items }, ...more });
s.test('a batch is delivered in order', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  const items = Array.from({ length: 10 }, (_, n) => ({ name: `e${n}`, channel, data: { n } }));
  const r = await t.sdk().triggerBatch(structuredClone(items));
  assert.equal(r.status, 200);
  assert.deepEqual(await r.json(), {});
  for (let n = 0; n < 10; n++) {
    is_event(await ws.next(), { event: `e${n}`, channel, data: `{"n":${n}}` });
  }
});
s.test('a batch with info answers per item', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  const r = await batch(t, [{ name: 'a', channel, data: 'x', info: 'subscription_count' },
                            { name: 'b', channel, data: 'x', socket_id: ws.socket_id }]);
  is_ok(r);
  delete r.json.batch[0].acknowledgement_id;
  assert.deepEqual(r.json, { batch: [{ subscription_count: 1 }, {}] });
  assert.equal((await ws.next()).event, 'a');
  await t.publish(t.apps.main, channel, 'marker', 'x');
  assert.equal((await ws.next()).event, 'marker');
});
s.test('an empty batch', async (t) => is_ok(await batch(t, []), {}));
s.test('too many items', async (t) => {
  const item = { name: 'a', channel: 'c', data: 'x' };
  is_api_error(await batch(t, Array(11).fill(item)), 400, 'limit_exceeded',
               'Batch size (11) exceeds limit (10)');
  is_api_error(await batch(t, Array(3).fill(item), t.apps.limits), 400, 'limit_exceeded',
               'Batch size (3) exceeds limit (2)');
});
s.test('a bad item fails the batch', async (t) => {
  is_api_error(await batch(t, [{ name: 'a', channel: 'c', data: 'x' },
                               { name: 'a', channel: 'c d', data: 'x' }]), 400, 'invalid_input',
                                 /./);
  is_api_error(await batch(t, [{ channel: 'c', data: 'x' }]), 400, 'invalid_input',
               'Event name is required');
  is_api_error(await batch(t, [{ name: 'a', data: 'x' }]), 400, 'missing_channel_info', /./);
  const shape = await t.api(t.apps.main, 'POST', '/batch_events', { body: '{"batch":{}}' });
  assert.equal(shape.status, 422, shape.text);
  const none = await t.api(t.apps.main, 'POST', '/batch_events', { body: '{}' });
  assert.ok([400, 422].includes(none.status), none.text);
});

const zero = app_entry('zero', { limits: {
  max_event_payload_in_kb: 0, max_event_channels_at_once: 0, max_event_batch_size: 0,
  max_event_name_length: 0 } });
const unlimited = suite('api no limits', { config: { app_manager: { array: { apps: [zero] } } } });
unlimited.test('0 means no limit', async (t) => {
  const [channel, name] = [t.name(), 'n'.repeat(3000)];
  const ws = await t.open(zero);
  await join(ws, channel);
  is_ok(await post(t, { name, channel, data: 'x'.repeat(300000) }, zero), { ok: true });
  const m = await ws.next();
  assert.equal(m.event, name);
  assert.equal(m.data.length, 300000);
  is_ok(await post(t, { name: 'e', data: 'x',
                        channels: Array.from({ length: 300 }, () => t.name()) }, zero));
  is_ok(await batch(t, Array(50).fill({ name: 'e', channel, data: 'x' }), zero));
  for (let n = 0; n < 50; n++) await ws.until('e');
});
