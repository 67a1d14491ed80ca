/* v2_connection.mjs - Protocol V2: the upgrade, the first frame, malformed messages, prefixes.
 *
 * Source   spec/protocol-v2.md 0, 1, 2, appendix A and B (Q2, Q3); spec/settled.md 13.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_close } from '../expect.mjs';
import { app_entry } from '../apps.mjs';
import { closeFrame, upgradeRequest } from '../ws_raw.mjs';
import { expect_error_v2, expect_fatal_v2, expect_nothing_v2, is_error_v2, join_v2, open_v2,
         path_v2, sign_in_v2, subscribe_v2, v2_app } from '../v2_raw.mjs';

const disabled = app_entry('vdisabled', {}, { enabled: false });
const origins = app_entry('vorigins', { channels: { allowed_origins: ['https://good.test'] } });
const quota = app_entry('vquota', { limits: { max_connections: 1 } });
const s = suite('v2 connection', { parallel: 8, config: { app_manager: { array: {
  apps: [v2_app, disabled, origins, quota] } } } });

s.test('connection_established comes first and looks exactly like this', async (t) => {
  const ws = await t.upgrade(v2_app, { path: path_v2(v2_app) });
  const { text } = await ws.take();
  const form = new RegExp('^\\{"event":"sockudo:connection_established","data":"\\{\\\\"socket_id'
    + '\\\\":\\\\"(\\d+)\\.(\\d+)\\\\",\\\\"activity_timeout\\\\":120\\}",'
    + '"message_id":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"\\}$');
  assert.match(text, form);
});
s.test('any other protocol number is V1', async (t) => {
  for (const query of ['protocol=7', 'protocol=0', 'protocol=3', 'protocol=255', '']) {
    const ws = await t.upgrade(v2_app, { path: `/app/${v2_app.key}?${query}` });
    assert.equal((await ws.next()).event, 'pusher:connection_established', query);
  }
});
s.test('the subprotocol is echoed', async (t) => {
  const ws = await t.upgrade(v2_app, { path: path_v2(v2_app),
                                       headers: { 'Sec-WebSocket-Protocol': 'sockudo, other' } });
  assert.equal(ws.headers['sec-websocket-protocol'], 'sockudo');
});

const good = ['', 'format=json', 'format=JSON', 'format=', 'echo_messages=true',
  'echo_messages=false', 'append_mode=', 'append_mode=delta', 'append_mode=full',
  'append_rollup_window=0', 'append_rollup_window=500', 'flash=false&anything=else',
  'format=%20Json+', 'append_mode=%66ull', 'version=%zz'];
for (const query of good) {
  s.test(`"${query}" opens`, (t) => open_v2(t, v2_app, query));
}
const bad = ['echo_messages=yes', 'echo_messages=TRUE', 'echo_messages=', 'append_mode=both',
  'append_mode=FULL', 'append_rollup_window=41', 'append_rollup_window=x', 'format=xml',
  'format=msgpack', 'format=protobuf', 'append_mode=f%75', 'format=js%6'];
for (const query of bad) {
  s.test(`"${query}" is refused with 400 before the upgrade`, async (t) => {
    const { responses } = await t.raw(upgradeRequest(path_v2(v2_app, query)).text, { count: 1 });
    assert.equal(responses[0].status, 400, responses[0].text);
  });
}
s.test('the order of parameters does not matter', async (t) => {
  const request = upgradeRequest(`/app/${v2_app.key}?append_mode=both&protocol=2`).text;
  const { responses } = await t.raw(request, { count: 1 });
  assert.equal(responses[0].status, 400);
  const ws = await t.upgrade(v2_app, { path: `/app/${v2_app.key}?append_mode=both&protocol=7` });
  assert.equal((await ws.next()).event, 'pusher:connection_established', 'V1 does not know it');
});

s.test('an unknown key: 4001', async (t) => {
  const ws = await t.upgrade(v2_app, { path: '/app/no-such-key?protocol=2' });
  await expect_fatal_v2(ws, 4001, 'Application does not exist');
});
s.test('a disabled app: 4003', async (t) => {
  const ws = await t.upgrade(disabled, { path: path_v2(disabled) });
  await expect_fatal_v2(ws, 4003, 'Application disabled');
});
s.test('an origin that is not allowed: 4009', async (t) => {
  for (const headers of [{ Origin: 'https://evil.test' }, {}]) {
    const ws = await t.upgrade(origins, { path: path_v2(origins), headers });
    await expect_fatal_v2(ws, 4009, 'Origin not allowed');
  }
  await open_v2(t, origins, '', { headers: { Origin: 'https://good.test' } });
});
s.test('the app quota: 4004, given back with the socket', async (t) => {
  const ws = await open_v2(t, quota);
  const second = await t.upgrade(quota, { path: path_v2(quota) });
  await expect_fatal_v2(second, 4004, /quota$/);
  ws.close(1000);
  await ws.gone();
  await eventually(async () => {
    const third = await t.upgrade(quota, { path: path_v2(quota) });
    return (await third.next()).event === 'sockudo:connection_established';
  }, 'a free place');
});
s.test('a capability token: 4009', async (t) => {
  const ws = await t.upgrade(v2_app, { path: path_v2(v2_app, 'token=abc') });
  await expect_fatal_v2(ws, 4009, /^Authentication error: capability tokens are not supported/);
});

s.test('ping is answered with pong and nothing else in it', async (t) => {
  const ws = await open_v2(t);
  for (const event of ['sockudo:ping', 'pusher:ping', 'sockudo_internal:ping']) {
    for (const data of [{}, undefined, null, 'x']) {
      ws.send({ event, data });
      assert.equal((await ws.take()).text, '{"event":"sockudo:pong"}');
    }
  }
});
s.test('pong and unknown events are ignored silently', async (t) => {
  const ws = await open_v2(t);
  for (const event of ['sockudo:pong', 'pusher:pong', 'nothing', 'sockudo:unknown', 'subscribe',
                       'Client-x', SUCCEEDED_NAME, 'resume', 'sockudo_internal:presence_update']) {
    ws.send({ event, channel: 'public', data: { channel: 'public' } });
  }
  await expect_nothing_v2(ws);
});
const SUCCEEDED_NAME = 'sockudo_internal:subscription_succeeded';

const undecodable = {
  'not JSON': 'hello', 'an array': '["sockudo:ping"]', 'two values': '{}{}',
  'an event that is a number': '{"event":1}', 'a channel that is a number':
  '{"event":"sockudo:ping","channel":5}', 'a name that is a number':
  '{"event":"sockudo:ping","name":5}', 'a negative serial': '{"event":"sockudo:ping","serial":-1}',
  'a serial in text': '{"event":"sockudo:ping","serial":"7"}',
  'tags that are no texts': '{"event":"sockudo:ping","tags":{"a":1}}',
  'a header that is an object': '{"event":"sockudo:ping","extras":{"headers":{"a":{}}}}',
  'a header that is null': '{"event":"sockudo:ping","extras":{"headers":{"a":null}}}',
};
for (const [what, text] of Object.entries(undecodable)) {
  s.test(`${what}: 4000, and the socket stays`, async (t) => {
    const ws = await open_v2(t);
    ws.text(text);
    await expect_error_v2(ws, 4000, /^Invalid message format: Decode failed: /);
    await expect_nothing_v2(ws);
  });
}
s.test('an event without a name: 4000', async (t) => {
  const ws = await open_v2(t);
  for (const text of ['{}', '{"data":{}}', '{"event":null}']) {
    ws.text(text);
    await expect_error_v2(ws, 4000, 'Invalid event name: Event name is required');
  }
});
s.test('error frames have ids of their own', async (t) => {
  const ws = await open_v2(t);
  const ids = new Set();
  for (let i = 0; i < 50; i++) {
    ws.text('{}');
    const m = await ws.next();
    is_error_v2(m, 4000, /./);
    ids.add(m.message_id);
  }
  assert.equal(ids.size, 50);
});
s.test('every prefix is understood', async (t) => {
  const ws = await open_v2(t);
  for (const prefix of ['pusher:', 'sockudo:', 'pusher_internal:', 'sockudo_internal:']) {
    const channel = t.name();
    ws.send({ event: `${prefix}subscribe`, data: { channel } });
    assert.equal((await ws.next()).channel, channel);
    ws.send({ event: `${prefix}unsubscribe`, data: { channel } });
    await expect_nothing_v2(ws);
  }
});
s.test('the peer\'s Close is answered', async (t) => {
  const ws = await open_v2(t);
  ws.write(closeFrame(1000));
  await expect_close(ws, 1000);
});
s.test('V2 sockets count like any other', async (t) => {
  const ws = await open_v2(t);
  await join_v2(ws, 'private-counted');
  const r = await t.api(v2_app, 'GET', '/channels', { query: { info: 'subscription_count' } });
  assert.equal(r.json.channels['private-counted'].subscription_count, 1, r.text);
});
s.test('a user\'s sockets are terminated with 4009', async (t) => {
  const ws = await open_v2(t);
  const id = t.name('user');
  await sign_in_v2(ws, { id });
  const r = await t.api(v2_app, 'POST', `/users/${id}/terminate_connections`);
  assert.equal(r.status, 200, r.text);
  await expect_fatal_v2(ws, 4009, 'You got disconnected by the app.');
});

const limits = suite('v2 authentication timeout', { config: { user_authentication_timeout: 2,
  app_manager: { array: { apps: [v2_app] } } } });
limits.test('a socket that proves nothing is closed with 4009', async (t) => {
  const ws = await open_v2(t);
  await expect_fatal_v2(ws, 4009, 'Connection not authorized within timeout.');
});
limits.test('one on a private channel stays', async (t) => {
  const [ws, witness] = [await open_v2(t), await open_v2(t)];
  subscribe_v2(ws, 'private-x');
  await expect_fatal_v2(witness, 4009, 'Connection not authorized within timeout.');
  await ws.until(SUCCEEDED_NAME);
  await expect_nothing_v2(ws);
});
