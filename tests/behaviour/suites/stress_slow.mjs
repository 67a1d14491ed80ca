/* stress_slow.mjs - a reader that falls behind is closed and counted; nobody else notices.
 *
 * Source   spec/pusher-v1.md 3.7; spec/operations.md 6; spec/settled.md 14.
 */
import net from 'node:net';
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { metric } from '../metrics.mjs';
import { join } from '../clients.mjs';
import { app_entry } from '../apps.mjs';

const app = app_entry('slow');
const apps = { app_manager: { array: { apps: [app] } } };
const DATA = 'd'.repeat(100000);
const MESSAGES = 240;        /* 24 MB: more than the kernel keeps for one socket, both ways */

/* Publishes until the server has closed every slow socket, at most MESSAGES times. */
async function flood(t, channel, slow_count) {
  let sent = 0;
  const closed = () => metric(t.server, 'sockudo_slow_consumer_disconnects_total',
    { app_id: app.id });
  const before = await closed();
  while (sent < MESSAGES && await closed() - before < slow_count) {
    await t.publish(app, channel, `e${sent}`, DATA);
    sent += 1;
  }
  await eventually(async () => await closed() - before === slow_count,
    'every slow socket is counted');
  return sent;
}

/* What a slow socket finds when it reads again: a gapless beginning, then 4100 or a reset. */
async function is_cut_off(ws) {
  ws.socket.resume();
  for (let n = 0; ; n++) {
    const item = await ws.take();
    if (item.kind !== 'text') {
      if (item.kind === 'close') assert.equal(item.code, 4100);
      else assert.ok(['reset', 'end', 'gone'].includes(item.kind), item.kind);
      return;
    }
    const m = JSON.parse(item.text);
    if (m.event === 'pusher:error') assert.equal(m.data.code, 4100);
    else assert.equal(m.event, `e${n}`, 'no gap before the end');
  }
}

for (const [limit, websocket] of [['bytes', { max_bytes: 400000, max_messages: 1000000 }],
                                  ['messages', { max_bytes: 100000000, max_messages: 40 }]]) {
  const s = suite(`stress slow readers, ${limit}`, { parallel: 1, config: { websocket, ...apps } });
  s.test('they are closed, the others get everything in order', async (t) => {
    const channel = t.name();
    const fast = await Promise.all(Array.from({ length: 5 }, () => t.open(app)));
    const slow = await Promise.all(Array.from({ length: 3 }, () => t.open(app)));
    for (const ws of [...fast, ...slow]) await join(ws, channel);
    for (const ws of slow) ws.socket.pause();
    let sent = Infinity;
    const reading = fast.map(async (ws) => {
      for (let n = 0; n < sent; n++) {
        const m = await ws.next();
        if (m.event === 'end') return assert.equal(n, sent);
        assert.equal(m.event, `e${n}`);
        assert.equal(m.data.length, DATA.length);
      }
      return undefined;
    });
    sent = await flood(t, channel, slow.length);
    await t.publish(app, channel, 'end', 'x');
    await Promise.all(reading);
    assert.equal(await metric(t.server, 'sockudo_slow_consumer_disconnects_total',
                              { app_id: app.id, limit }), slow.length);
    for (const ws of slow) await is_cut_off(ws);
    await eventually(async () => await metric(t.server, 'sockudo_connected', { app_id: app.id })
      === fast.length, 'the slow sockets are gone');
    for (const ws of fast) { await ws.flush(); }
  });
}

const standard = suite('stress bursts', { config: apps });
standard.test('a reader that keeps up gets bursts beyond both limits', async (t) => {
  const channel = t.name();
  const ws = await t.open(app);
  await join(ws, channel);
  const publishers = Array.from({ length: 4 }, async (_, p) => {
    for (let n = 0; n < 400; n++) await t.publish(app, channel, `p${p}`, `${n}`);
  });
  const next = [0, 0, 0, 0];
  for (let n = 0; n < 1600; n++) {
    const m = await ws.next();
    const p = Number(m.event[1]);
    assert.equal(Number(m.data), next[p]);
    next[p] += 1;
  }
  await Promise.all(publishers);
});
standard.test('a client that floods the server with pings is served', async (t) => {
  const ws = await t.open(app);
  const ping = Buffer.from(JSON.stringify({ event: 'pusher:ping', data: {} }));
  for (let n = 0; n < 20; n++) {
    for (let i = 0; i < 50; i++) ws.text(ping);
    for (let i = 0; i < 50; i++) assert.equal((await ws.next()).event, 'pusher:pong');
  }
});
standard.test('an HTTP client that pipelines and does not read is paused, not buffered',
              async (t) => {
  const REQUESTS = 40000;
  const socket = net.connect(t.port, '127.0.0.1');
  t.after(() => socket.destroy());
  socket.pause();
  const text = 'GET /stats HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(1000);
  let written = 0;
  const writing = (async () => {
    for (let n = 0; n < REQUESTS / 1000; n++) {
      await new Promise((resolve) => socket.write(text, resolve));
      written += 1;
    }
  })();
  const heap = () => metric(t.server, 'sockudo_heap_used_bytes');
  const before = await heap();
  let [last, same] = [-1, 0];
  while (same < 20 && written < REQUESTS / 1000) {       /* until no more of it is taken */
    same = written === last ? same + 1 : 0;
    last = written;
    assert.ok(await heap() - before < 16e6, 'the answers pile up');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  let answers = 0;
  let rest = '';
  const all = new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('data', (c) => {
      const parts = (rest + c).split('HTTP/1.1 200');
      answers += parts.length - 1;
      rest = parts.at(-1).slice(-12);
      if (answers === REQUESTS) resolve();
    });
  });
  socket.resume();
  await writing;
  await all;
});
standard.test('a storm of connects and resets leaves nothing behind', async (t) => {
  const before = await metric(t.server, 'sockudo_connected', { app_id: app.id });
  for (let round = 0; round < 8; round++) {
    await Promise.all(Array.from({ length: 50 }, async (_, i) => {
      const ws = await t.upgrade(app);
      if (i % 4 === 0) return ws.reset();
      await ws.next();
      if (i % 4 === 1) return ws.reset();
      ws.send({ event: 'pusher:subscribe', data: { channel: t.name() } });
      if (i % 4 === 2) return ws.reset();
      await ws.next();
      return ws.socket.end();
    }));
  }
  await eventually(async () => await metric(t.server, 'sockudo_connected', { app_id: app.id })
    <= before, 'everyone is gone');
  await eventually(async () => Object.keys((await t.api(app, 'GET', '/channels')).json.channels)
    .filter((c) => c.startsWith('ch-')).length === 0 || before > 0, 'no channel is left');
});
