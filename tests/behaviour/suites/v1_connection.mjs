/* v1_connection.mjs - connection_established, protocol pings, malformed messages, timeouts.
 *
 * Source   spec/pusher-v1.md 2; spec/settled.md 12, 18, 20.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_close, expect_error, expect_fatal, expect_nothing }
  from '../expect.mjs';
import { metric } from '../metrics.mjs';
import { OP, frame } from '../ws_raw.mjs';
import { join, sign_in } from '../clients.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('v1 connection', { shared: true });
const PING = { event: 'pusher:ping', data: {} };

s.test('connection_established comes first and looks exactly like this', async (t) => {
  const ws = await t.upgrade();
  const { text } = await ws.take();
  const form = new RegExp('^\\{"event":"pusher:connection_established","data":"\\{\\\\"socket_id'
    + '\\\\":\\\\"(\\d+)\\.(\\d+)\\\\",\\\\"activity_timeout\\\\":120\\}"\\}$');
  const [, a, b] = form.exec(text) ?? assert.fail(text);
  for (const part of [a, b]) {
    assert.ok(Number(part) <= 10000000000);
    assert.equal(String(Number(part)), part, 'no padding');
  }
});

s.test('socket ids differ', async (t) => {
  const sockets = await Promise.all(Array.from({ length: 100 }, () => t.open()));
  assert.equal(new Set(sockets.map((ws) => ws.socket_id)).size, 100);
});

s.test('pusher:ping and sockudo:ping are answered with pusher:pong', async (t) => {
  const ws = await t.open();
  for (const event of ['pusher:ping', 'sockudo:ping']) {
    for (const data of [{}, undefined, null, 'x', '{}']) {
      ws.send({ event, data });
      assert.equal((await ws.take()).text, '{"event":"pusher:pong"}');
    }
  }
});

s.test('pusher:pong and unknown events are ignored silently', async (t) => {
  const ws = await t.open();
  for (const event of ['pusher:pong', 'nothing', 'pusher:unknown', 'pusher_internal:member_added',
                       'pusher:subscription_succeeded', 'Client-x', 'client', 'sockudo:whatever']) {
    ws.send({ event, channel: 'public', data: { a: 1 } });
  }
  await expect_nothing(ws);
});

const undecodable = {
  'not JSON': 'hello', 'an open object': '{"event":"pusher:ping"', 'two values': '{}{}',
  'an array': '["pusher:ping"]', 'a string': '"pusher:ping"', 'a number': '7', 'null': 'null',
  'an event that is a number': '{"event":1}', 'an event that is null': '{"event":null}',
  'a channel that is a number': '{"event":"pusher:ping","channel":5}',
  'a trailing comma': '{"event":"pusher:ping",}', 'single quotes': "{'event':'pusher:ping'}",
  'a comment': '{"event":"pusher:ping"}//x', 'a raw newline in a string': '{"event":"a\nb"}',
  'a lone surrogate': '{"event":"\\ud800"}', 'a reversed pair': '{"event":"\\udc00\\ud800"}',
  'a bad escape': '{"event":"\\x41"}', 'a leading zero': '{"event":"pusher:ping","data":01}',
  'a bare fraction': '{"event":"pusher:ping","data":.5}', 'NaN': '{"event":"x","data":NaN}',
  'an event given twice': '{"event":"pusher:ping","event":"pusher:ping"}',
  'too deep': `{"event":"pusher:ping","data":${'['.repeat(200)}${']'.repeat(200)}}`,
  'a byte order mark': '\ufeff{"event":"pusher:ping"}', 'white space only': ' \r\n\t ',
};
for (const [what, text] of Object.entries(undecodable)) {
  s.test(`${what}: error 4000, the socket stays open`, async (t) => {
    const ws = await t.open();
    ws.text(text);
    await expect_error(ws, 4000, what === 'an event that is null'
      ? /^Invalid (message format: Decode failed: |event name: Event name is required$)/
      : /^Invalid message format: Decode failed: ./);
    await expect_nothing(ws);
  });
}

s.test('no event: its own text', async (t) => {
  const ws = await t.open();
  for (const text of ['{}', '{"data":{}}', '{"channel":"c","data":"x"}']) {
    ws.text(text);
    await expect_error(ws, 4000, 'Invalid event name: Event name is required');
  }
});

const decodable = {
  'white space around': ' \r\n\t{ "event" : "pusher:ping" , "data" : { } } \n',
  'escapes in names': '{"\\u0065vent":"pusher:pin\\u0067"}',
  'other keys': '{"a":[1,2,{"b":null}],"event":"pusher:ping","z":-1.5e-7,"tags":{"x":true}}',
  'large numbers': '{"event":"pusher:ping","data":123456789012345678901234567890e300}',
  'nesting': `{"event":"pusher:ping","data":${'['.repeat(40)}${']'.repeat(40)}}`,
  'a surrogate pair': '{"event":"pusher:ping","data":"\\ud83c\\udf89"}',
};
for (const [what, text] of Object.entries(decodable)) {
  s.test(`${what}: understood`, async (t) => {
    const ws = await t.open();
    ws.text(text);
    assert.equal((await ws.next()).event, 'pusher:pong');
  });
}

/* ---- timeouts ---- */
const quick = app_entry('quick', { features: { enable_user_authentication: true } });
const silent = app_entry('silent');
const idle = suite('v1 timeouts', { parallel: 32, config: {
  activity_timeout: 2, websocket: { pong_timeout: 2 }, app_manager: { array: { apps: [quick,
    silent] } } } });

s.test('activity_timeout is 120 unless configured', async (t) => {
  assert.equal((await t.open()).established.activity_timeout, 120);
});
idle.test('activity_timeout is announced', async (t) => {
  assert.equal((await t.open(quick)).established.activity_timeout, 2);
});
idle.test('a silent socket is pinged, then closed with 4201', async (t) => {
  const began = Date.now();
  const ws = await t.open(quick);
  assert.deepEqual(await ws.next(), { event: 'pusher:ping' });
  assert.ok(Date.now() - began >= 1900, 'not before the socket was silent for long');
  await expect_fatal(ws, 4201, /^Pong reply not received/);
  assert.ok(Date.now() - began >= 3900, 'not before both waits are over');
});
idle.test('a half-open socket is given up', async (t) => {
  const ws = await t.open(silent, { autoClose: false });
  ws.socket.pause();
  assert.equal(await metric(t.server, 'sockudo_connected', { app_id: silent.id }), 1);
  await eventually(async () => await metric(t.server, 'sockudo_connected', { app_id: silent.id })
    === 0, 'the socket is given up');
});
const alive = {
  'pusher:pong': (ws) => ws.send({ event: 'pusher:pong', data: {} }),
  'pusher:ping': (ws) => ws.send(PING),
  'an unknown event': (ws) => ws.send({ event: 'whatever' }),
  'a binary message': (ws) => ws.write(frame(OP.BINARY, '{"event":"x"}')),
  'a WebSocket ping': (ws) => ws.write(frame(OP.PING, 'x')),
  'a malformed message': (ws) => ws.text('{'),
};
for (const [what, answer] of Object.entries(alive)) {
  idle.test(`a pending ping is cleared by ${what}`, async (t) => {
    const ws = await t.open(quick);
    let pings = 0;
    while (pings < 3) {
      const item = await ws.take();
      assert.notEqual(item.kind, 'close', 'closed although it answered');
      if (item.text === '{"event":"pusher:ping"}') { pings += 1; answer(ws); }
    }
  });
}
idle.test('traffic from the client puts the ping off', async (t) => {
  const ws = await t.open(quick);
  const until = Date.now() + 5000;
  while (Date.now() < until) {
    ws.send(PING);
    assert.equal((await ws.next()).event, 'pusher:pong');
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
});
idle.test('pusher-js stays connected to a server that pings often', async (t) => {
  const p = t.pusher(quick);
  const states = [];
  p.connection.bind('state_change', ({ current }) => states.push(current));
  await new Promise((resolve) => {
    let messages = 0;
    p.connection.bind('message', () => { messages += 1; if (messages === 4) resolve(); });
    p.connection.bind('ping', () => resolve());
    setTimeout(resolve, 5000);
  });
  assert.equal(p.connection.state, 'connected');
  assert.deepEqual(states.filter((x) => x !== 'connected' && x !== 'connecting'), []);
});

const open = app_entry('open');
const auth = suite('v1 authentication timeout', { parallel: 8, config: {
  user_authentication_timeout: 2, app_manager: { array: { apps: [quick, open] } } } });
auth.test('a socket that neither signs in nor joins is closed with 4009', async (t) => {
  const ws = await t.open(quick);
  await join(ws, t.name());
  await expect_fatal(ws, 4009, 'Connection not authorized within timeout.');
});
const stays = {
  'signed in': (ws) => sign_in(ws, { id: 'u1' }),
  'on a private channel': (ws, t) => join(ws, t.name('private-')),
  'on a presence channel': (ws, t) => join(ws, t.name('presence-'), { user_id: 'u1' }),
};
for (const [what, act] of Object.entries(stays)) {
  auth.test(`a socket that is ${what} stays`, async (t) => {
    const witness = await t.open(quick);
    const ws = await t.open(quick);
    await act(ws, t);
    await expect_fatal(witness, 4009, 'Connection not authorized within timeout.');
    const later = await t.open(quick);
    await expect_fatal(later, 4009, 'Connection not authorized within timeout.');
    await expect_nothing(ws);
    ws.close(1000);
    await expect_close(ws, 1000);
  });
}
auth.test('an app without user authentication has no such timeout', async (t) => {
  const ws = await t.open(open);
  const witness = await t.open(quick);
  await expect_fatal(witness, 4009, 'Connection not authorized within timeout.');
  await expect_nothing(ws);
});
