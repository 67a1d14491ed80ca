/* ws_handshake.mjs - the upgrade: what is accepted, what is refused as HTTP, what is refused as a
 * socket with an error frame and a close.
 *
 * Source   RFC 6455 4.2; spec/pusher-v1.md 1, 1.1, 1.2; spec/settled.md 13, 18.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_fatal } from '../expect.mjs';
import { OP, acceptFor, frame, upgradeRequest } from '../ws_raw.mjs';
import { ping_text } from '../conform.mjs';
import { Server } from '../harness.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('ws handshake', { shared: true });
const path = (app, query = 'protocol=7') => `/app/${app.key}?${query}`;

s.test('the answer is a complete 101', async (t) => {
  const ws = await t.upgrade(t.apps.main, {
    headers: { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' } });
  assert.equal(ws.status, 101);
  assert.equal(ws.headers.upgrade.toLowerCase(), 'websocket');
  assert.equal(ws.headers.connection.toLowerCase(), 'upgrade');
  assert.equal(ws.headers['sec-websocket-extensions'], undefined);
  assert.equal(ws.headers['sec-websocket-protocol'], undefined);
});

s.test('the key of RFC 6455 gives the accept value of RFC 6455', async (t) => {
  assert.equal(acceptFor('dGhlIHNhbXBsZSBub25jZQ=='), 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
  await t.upgrade(t.apps.main, { key: 'dGhlIHNhbXBsZSBub25jZQ==' });
});

s.test('the first offered subprotocol comes back', async (t) => {
  const ws = await t.open(t.apps.main, { headers: { 'Sec-WebSocket-Protocol': 'one, two' } });
  assert.equal(ws.headers['sec-websocket-protocol'], 'one');
});

s.test('header names and tokens have no case; Connection may be a list', async (t) => {
  await t.open(t.apps.main, { headers: { Upgrade: null, Connection: null, uPGRADE: 'WebSocket',
                                         'cONNECTION': 'keep-alive, UPGRADE' } });
});

s.test('a request that arrives byte by byte', async (t) => {
  const r = upgradeRequest(path(t.apps.main));
  const { responses } = await t.raw([...r.text], { count: 1 });
  assert.equal(responses[0].status, 101);
  assert.equal(responses[0].headers['sec-websocket-accept'], acceptFor(r.key));
});

s.test('a frame in the same packet as the request is read', async (t) => {
  const ws = await t.open(t.apps.main, { early: frame(OP.TEXT, ping_text()) });
  assert.equal((await ws.next()).event, 'pusher:pong');
});

s.test('half a frame in the same packet as the request is read', async (t) => {
  const f = frame(OP.TEXT, ping_text());
  const ws = await t.open(t.apps.main, { early: f.subarray(0, 30) });
  ws.write(f.subarray(30));
  assert.equal((await ws.next()).event, 'pusher:pong');
});

s.test('an upgrade on a kept-alive connection after an HTTP request', async (t) => {
  const r = upgradeRequest(path(t.apps.main));
  const { responses } = await t.raw(`GET /live HTTP/1.1\r\nHost: a\r\n\r\n${r.text}`, { count: 2 });
  assert.deepEqual(responses.map((x) => x.status), [200, 101]);
});

s.test('a trailing slash and percent-encoding in the key', async (t) => {
  await t.open(t.apps.main, { path: '/app/main-key/?protocol=7' });
  await t.open(t.apps.main, { path: '/app/main%2Dkey?protocol=7' });
  await t.open(t.apps.main, { path: '/app/%6dain-key?protocol=7&client=js' });
});

for (const query of ['', 'protocol=7', 'protocol=5', 'protocol=1', 'protocol=0', 'protocol=255',
                     'protocol=7&echo_messages=false', 'protocol=7&format=json&append_mode=x',
                     'protocol=7&version=nonsense&flash=perhaps&other=1']) {
  s.test(`query "${query}" is Protocol V1`, async (t) => {
    await t.open(t.apps.main, { path: path(t.apps.main, query) });
  });
}

const refusals = [
  ['protocol that is no number', 400, (a) => upgradeRequest(path(a, 'protocol=seven'))],
  ['protocol above 255', 400, (a) => upgradeRequest(path(a, 'protocol=256'))],
  ['negative protocol', 400, (a) => upgradeRequest(path(a, 'protocol=-1'))],
  ['echo_messages that is no boolean', 400,
   (a) => upgradeRequest(path(a, 'protocol=7&echo_messages=maybe'))],
  ['no Upgrade header', 400, (a) => upgradeRequest(path(a), { headers: { Upgrade: null } })],
  ['another Upgrade', 400, (a) => upgradeRequest(path(a), { headers: { Upgrade: 'h2c' } })],
  ['no Connection header', 400, (a) => upgradeRequest(path(a), { headers: { Connection: null } })],
  ['no key', 400, (a) => upgradeRequest(path(a), { headers: { 'Sec-WebSocket-Key': null } })],
  ['a short key', 400, (a) => upgradeRequest(path(a), { key: 'c2hvcnQ=' })],
  ['a key that is no base64', 400, (a) => upgradeRequest(path(a), { key: '!'.repeat(24) })],
  ['no version', 400,
   (a) => upgradeRequest(path(a), { headers: { 'Sec-WebSocket-Version': null } })],
  ['version 8', 400, (a) => upgradeRequest(path(a), { headers: { 'Sec-WebSocket-Version': '8' } })],
  ['no app in the path', 404, () => upgradeRequest('/app')],
  ['another path', 404, () => upgradeRequest('/socket/main-key')],
];
for (const [what, status, make] of refusals) {
  s.test(`${what}: ${status} before the upgrade`, async (t) => {
    const { responses } = await t.raw(make(t.apps.main).text, { count: 1 });
    assert.equal(responses[0].status, status);
    assert.ok(responses[0].text.length < 200, responses[0].text);
    assert.match(responses[0].headers['content-type'] ?? 'text/plain', /^text\/plain/);
  });
}

for (const method of ['POST', 'PUT', 'DELETE']) {
  s.test(`${method} on the socket path: 405`, async (t) => {
    const text = upgradeRequest(path(t.apps.main)).text.replace(/^GET/, method)
      .replace('\r\n\r\n', '\r\nContent-Length: 0\r\n\r\n');
    const { responses } = await t.raw(text, { count: 1 });
    assert.equal(responses[0].status, 405);
  });
}

s.test('an unknown key: 4001 as error frame and close', async (t) => {
  const ws = await t.upgrade(t.apps.main, { path: '/app/no-such-key?protocol=7' });
  await expect_fatal(ws, 4001, 'Application does not exist');
});

s.test('a disabled app: 4003, before its origin is looked at', async (t) => {
  const ws = await t.upgrade(t.apps.disabled, { headers: { Origin: 'http://bad.test' } });
  await expect_fatal(ws, 4003, 'Application disabled');
});

s.test('a capability token on V1: 4009', async (t) => {
  const ws = await t.upgrade(t.apps.main, { path: path(t.apps.main, 'protocol=7&token=abc') });
  await expect_fatal(ws, 4009, 'Authentication error: capability tokens require protocol V2');
});

const good_origins = ['https://exact.test', 'HTTPS://EXACT.TEST', 'http://plain.test',
                      'https://plain.test', 'https://wild.test', 'http://a.wild.test',
                      'https://a.b.wild.test', 'http://prefix.test', 'http://pre.test',
                      'http://ported.test:8080'];
for (const origin of good_origins) {
  s.test(`origin ${origin} is allowed`, async (t) => {
    await t.open(t.apps.origins, { headers: { Origin: origin } });
  });
}
const bad_origins = ['http://exact.test', 'https://exact.test.evil', 'https://notwild.test',
                     'https://wild.test.evil', 'https://prefix.test', 'http://ported.test',
                     'http://ported.test:80801', 'null', '', undefined];
for (const origin of bad_origins) {
  s.test(`origin ${origin ?? '(none)'} is refused with 4009`, async (t) => {
    const ws = await t.upgrade(t.apps.origins,
                               { headers: origin === undefined ? {} : { Origin: origin } });
    await expect_fatal(ws, 4009, 'Origin not allowed');
  });
}
s.test('"any" allows every origin, and none', async (t) => {
  await t.open(t.apps.anyorigin);
  await t.open(t.apps.anyorigin, { headers: { Origin: 'https://whoever.test' } });
});

s.test('the app quota: 4004, and a place is free again after a disconnect', async (t) => {
  const [first] = [await t.open(t.apps.quota), await t.open(t.apps.quota)];
  const third = await t.upgrade(t.apps.quota);
  await expect_fatal(third, 4004, /^Application is over (adapter|connection) quota$/);
  first.close(1000);
  await first.gone();
  await eventually(async () => {
    const ws = await t.upgrade(t.apps.quota);
    const m = await ws.next();
    return m.event === 'pusher:connection_established';
  }, 'a free place');
});

s.test('the app quota is strict when many connect at once', async (t) => {
  const sockets = await Promise.all(Array.from({ length: 20 }, () => t.upgrade(t.apps.quota2)));
  const first = await Promise.all(sockets.map((ws) => ws.next()));
  assert.equal(first.filter((m) => m.event === 'pusher:connection_established').length, 3);
  const codes = first.filter((m) => m.event === 'pusher:error').map((m) => m.data.code);
  assert.deepEqual(codes, Array(17).fill(4004));
});

/* ---- the server's own limit ---- */
const full = suite('ws server full', { none: true });
full.test('max_connections: 4100, strict, and freed by a disconnect', async (t) => {
  const app = app_entry('full');
  const server = await Server.start({ shards: t.shards, config: {
    max_connections: 7, app_manager: { array: { apps: [app] } } } });
  t.after(() => server.clean());
  const connect = () => t.upgrade(app, { port: server.port });
  const sockets = await Promise.all(Array.from({ length: 25 }, connect));
  const first = await Promise.all(sockets.map((ws) => ws.next()));
  const held = sockets.filter((_, i) => first[i].event === 'pusher:connection_established');
  assert.equal(held.length, 7);
  for (const m of first.filter((x) => x.event === 'pusher:error')) {
    assert.deepEqual(m.data, { code: 4100, message: 'Over capacity' });
  }
  await expect_fatal(await connect(), 4100, 'Over capacity');
  held[0].reset();
  await eventually(async () => {
    const ws = await connect();
    return (await ws.next()).event === 'pusher:connection_established';
  }, 'a free place');
  await server.stop();
});
full.test('connections_capacity: 4100 beyond it, and the server goes on', async (t) => {
  const app = app_entry('room');
  const server = await Server.start({ shards: t.shards, config: {
    limits: { connections_capacity: 64, accepts_outstanding: 4 },
    app_manager: { array: { apps: [app] } } } });
  t.after(() => server.clean());
  const held = [];
  let refused = null;
  for (let n = 0; n < 200 && !refused; n++) {
    const ws = await t.upgrade(app, { port: server.port });
    const m = await ws.next();
    if (m.event === 'pusher:connection_established') held.push(ws);
    else refused = m;
  }
  assert.deepEqual(refused?.data, { code: 4100, message: 'Over capacity' });
  assert.ok(held.length >= 16 && held.length <= 64, `${held.length} fit`);
  for (const ws of held) ws.reset();
  await eventually(async () => {
    const ws = await t.upgrade(app, { port: server.port });
    return (await ws.next()).event === 'pusher:connection_established';
  }, 'room again');
  await server.stop();
});
