/* stress_shutdown.mjs - SIGTERM drains, a second one ends at once, kill -9 leaves nothing to clean.
 *
 * Bounds   The server's grace period is 60 s; exited() waits for half of that, so an end that it
 *          sees did not wait for the period.
 * Source   spec/operations.md 7; spec/settled.md 2, 15; issue 2 item 5.
 */
import net from 'node:net';
import { suite } from '../runner.mjs';
import { assert, eventually, expect_close, expect_error, expect_fatal } from '../expect.mjs';
import { connected, heard, join, subscribed } from '../clients.mjs';
import { request, signedText } from '../http_raw.mjs';
import { WAIT_MS, upgradeRequest } from '../ws_raw.mjs';
import { metric } from '../metrics.mjs';
import { Server, freePort, tempDir } from '../harness.mjs';
import { app_entry } from '../apps.mjs';
import fs from 'node:fs';

const app = app_entry('drain', { features: { enable_client_messages: true } });
const apps = { app_manager: { array: { apps: [app] } } };
const patient = { ...apps, shutdown_grace_period: 60, websocket: { close_timeout_ms: 60000 } };
const s = suite('stress shutdown', { none: true, parallel: 4 });
const TEXT = 'Server shutting down';

/* A socket that reads the close but does not answer it, so the server stays in drain until
 * let_go(). */
async function held(t, server) {
  return t.open(app, { port: server.port, autoClose: false, half_open: true });
}
function let_go(ws) {
  ws.close(4200);
  ws.socket.end();
}
async function sees_close(ws) {
  await expect_error(ws, 4200, TEXT);
  const item = await ws.take();
  assert.equal(item.kind, 'close');
  assert.equal(item.code, 4200);
  assert.equal(item.reason, TEXT);
}
/* A kept-alive connection on which one request after the other can be sent. What ends it, then or
 * before, fails the request that waits for an answer. */
async function kept_alive(t, port) {
  const socket = net.connect(port, '127.0.0.1');
  t.after(() => socket.destroy());
  socket.setNoDelay(true);
  let bytes = '';
  let over = null;
  let look = () => {};
  const end = (why) => { over ??= why; look(); };
  socket.on('data', (c) => { bytes += c; look(); });
  socket.on('end', () => end('the server ended it'));
  socket.on('error', (e) => end(e.code));
  socket.on('close', () => end('closed'));
  const take = () => {
    const head = bytes.indexOf('\r\n\r\n');
    if (head < 0) return null;
    const at = head + 4 + Number(/content-length: (\d+)/i.exec(bytes)?.[1] ?? 0);
    if (bytes.length < at) return null;
    const answer = { status: Number(bytes.split(' ')[1]), head: bytes.slice(0, head),
                     text: bytes.slice(head + 4, at) };
    bytes = bytes.slice(at);
    return answer;
  };
  const ask = (text, ms = WAIT_MS) => new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`${why}, after: ${JSON.stringify(bytes)}`));
    const late = setTimeout(() => fail('no answer'), ms);
    t.after(() => clearTimeout(late));
    look = () => {
      const answer = take();
      if (!answer && !over) return;
      clearTimeout(late);
      look = () => {};
      if (answer) resolve(answer);
      else fail(over);
    };
    if (text) socket.write(text);
    look();
  });
  return { socket, ask };
}
const UP = 'GET /up HTTP/1.1\r\nHost: a\r\n\r\n';

s.test('an empty server exits at once', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    const server = await t.start({ config: { ...apps, shutdown_grace_period: 60 } });
    server.signal(signal);
    assert.deepEqual(await server.exited(), { code: 0, signal: null });
    server.check_log();
  }
});
s.test('every socket gets 4200, then the server exits with 0', async (t) => {
  const server = await t.start({ config: { ...apps, shutdown_grace_period: 60 } });
  const sockets = await Promise.all(Array.from({ length: 40 }, () => t.open(app,
    { port: server.port })));
  for (const [i, ws] of sockets.entries()) if (i % 2) await join(ws, t.name());
  server.signal('SIGTERM');
  await Promise.all(sockets.map((ws) => expect_fatal(ws, 4200, TEXT)));
  assert.deepEqual(await server.exited(), { code: 0, signal: null });
  server.check_log();
});
s.test('while it drains: DRAINING and 503 on old and new connections', async (t) => {
  const server = await t.start({ config: patient });
  const ws = await held(t, server);
  const old = await kept_alive(t, server.port);
  assert.equal((await old.ask(UP)).status, 200);
  const half = await kept_alive(t, server.port);
  const post = signedText(app, 'POST', '/events', JSON.stringify({ name: 'e', channel: 'c',
    data: 'x' }));
  const answer = half.ask(post.slice(0, -10), 4 * WAIT_MS);
  answer.catch(() => {});
  server.signal('SIGTERM');
  await sees_close(ws);
  const fresh = await kept_alive(t, server.port);
  for (const connection of [old, fresh]) {
    const up = await connection.ask(UP);
    assert.equal(up.status, 503);
    assert.equal(up.text, 'DRAINING');
    assert.match(up.head, /x-health-check: DRAINING/i);
  }
  const one = await kept_alive(t, server.port);
  assert.equal((await one.ask(UP.replace('/up', `/up/${app.id}`))).text, 'DRAINING');
  const upgrade = await kept_alive(t, server.port);
  assert.equal((await upgrade.ask(upgradeRequest(`/app/${app.key}`).text)).status, 503);
  half.socket.write(post.slice(-10));
  assert.equal((await answer).status, 200, 'what was in flight is finished');
  assert.equal(await metric(server, 'sockudo_drain_state'), 1);
  let_go(ws);
  assert.deepEqual(await server.exited(), { code: 0, signal: null }, 'as soon as it is empty');
  server.check_log();
});
s.test('the grace period bounds the drain', async (t) => {
  const server = await t.start({ config: { ...patient, shutdown_grace_period: 1 } });
  const ws = await held(t, server);
  ws.socket.pause();
  const began = Date.now();
  server.signal('SIGTERM');
  assert.deepEqual(await server.exited(), { code: 0, signal: null });
  const ms = Date.now() - began;
  assert.ok(ms >= 800, `${ms} ms`);
  server.check_log();
});
s.test('a second SIGTERM exits at once', async (t) => {
  const server = await t.start({ config: patient });
  const ws = await held(t, server);
  server.signal('SIGTERM');
  await sees_close(ws);
  server.signal('SIGTERM');
  const exit = await server.exited();
  assert.notEqual(exit.signal, 'SIGKILL');
  server.check_log();
});
s.test('idle HTTP connections do not hold it up', async (t) => {
  const server = await t.start({ config: { ...apps, shutdown_grace_period: 60 } });
  const idle = await kept_alive(t, server.port);
  await idle.ask(UP);
  const silent = await kept_alive(t, server.port);
  await new Promise((resolve) => silent.socket.once('connect', resolve));
  server.signal('SIGTERM');
  assert.deepEqual(await server.exited(), { code: 0, signal: null });
});
s.test('publishes around SIGTERM are answered 200 or 503, and delivered without a gap',
  async (t) => {
  const server = await t.start({ config: patient });
  t.server = server;
  const ws = await held(t, server);
  const channel = t.name();
  await join(ws, channel);
  let stop = false;
  const statuses = new Set();
  const publishing = (async () => {
    for (let n = 0; !stop; n++) {
      const r = await t.api(app, 'POST', '/events', { body: { name: 'ev', channel,
        data: `${n}` } });
      statuses.add(r.status);
    }
  })();
  publishing.catch(() => {});
  let seen = 0;
  let told = false;
  for (;;) {
    if (seen === 20 && !told) told = server.child.kill('SIGTERM');
    const item = await ws.take();
    if (item.kind === 'close') break;
    const m = JSON.parse(item.text);
    if (m.event !== 'ev') continue;
    assert.equal(m.data, String(seen));
    seen += 1;
  }
  stop = true;
  await publishing;
  let_go(ws);
  for (const status of statuses) assert.ok([200, 503].includes(status), `status ${status}`);
  assert.deepEqual(await server.exited(), { code: 0, signal: null }, server.tail());
});
s.test('pusher-js moves to the next server by itself', async (t) => {
  const port = await freePort();
  const config = { ...apps, shutdown_grace_period: 60 };
  const first = await t.start({ config, port });
  const p = await connected(t.pusher(app, { port }));
  const channel = t.name();
  const c = await subscribed(p, channel);
  const again = heard(c, 'pusher:subscription_succeeded', () => true, 30000);
  await first.stop();
  const second = await t.start({ config, port });
  await again;
  const event = heard(c, 'ev');
  t.server = second;
  await t.publish(app, channel, 'ev', '{"n":1}');
  assert.deepEqual(await event, { n: 1 });
});

/* ---- kill -9 ---- */
s.test('kill -9 at random moments: the next start on the same directory and ports serves',
  async (t) => {
  const dir = tempDir();
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const [port, metrics_port] = [await freePort(), await freePort()];
  const start = (wait) => Server.start({ config: apps, shards: t.shards, dir, port, metrics_port,
    wait });
  for (let round = 0; round < 6; round++) {
    const early = round % 2 === 1;
    const server = await start(!early);
    t.after(() => server.clean());
    if (!early) {
      const ws = await t.open(app, { port });
      await join(ws, 'x');
      t.server = server;
      const publishing = Promise.all(Array.from({ length: 3 }, async () => {
        for (let n = 0; n < 1000; n++) {
          if (!await t.publish(app, 'x', 'ev', '1').catch(() => null)) return;
        }
      }));
      for (let n = 0; n < 1 + Math.floor(Math.random() * 60); n++) await ws.until('ev');
      await server.kill();
      await publishing;
    } else {
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 60));
      await server.kill();
    }
  }
  const last = await start(true);
  t.after(() => last.clean());
  assert.equal((await request(port, 'GET', '/up', { agent: false })).text, 'OK');
  await eventually(async () => {
    const ws = await t.open(app, { port });
    ws.close(1000);
    await expect_close(ws, 1000);
    return true;
  }, 'it serves');
  await last.stop();
});
