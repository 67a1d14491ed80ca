/* v2_heartbeat.mjs - native pings with a nonce, 4201, the idle limit.
 *
 * Source   spec/protocol-v2.md 2; spec/settled.md 20.
 */
import { suite } from '../runner.mjs';
import { assert, expect_close } from '../expect.mjs';
import { OP, frame } from '../ws_raw.mjs';
import { open_v2, v2_app } from '../v2_raw.mjs';

const apps = { app_manager: { array: { apps: [v2_app] } } };
const SECOND = 1000;

/* Silence of 5 s at least; the first ping comes between half of it and all of it. */
const s = suite('v2 heartbeat', { parallel: 16, config: { ...apps, activity_timeout: 2,
  websocket: { ping_interval: 1, pong_timeout: 2, idle_timeout: 60 } } });

s.test('a ping has a nonce of 8 bytes; its pong keeps the socket', async (t) => {
  const ws = await open_v2(t);
  const seen = new Set();
  for (let i = 0; i < 3; i++) {
    const asked = Date.now();
    const item = await ws.take(12 * SECOND);
    assert.equal(item.kind, 'ping', JSON.stringify(item));
    assert.equal(item.payload.length, 8);
    seen.add(item.payload.toString('hex'));
    if (i > 0) assert.ok(Date.now() - asked >= 4.9 * SECOND, 'only after 5 s of silence');
    ws.write(frame(OP.PONG, item.payload));
  }
  assert.equal(seen.size, 3, 'every ping has its own');
});
s.test('no pong: 4201 without an error frame', async (t) => {
  const began = Date.now();
  const ws = await open_v2(t);
  assert.equal((await ws.take(12 * SECOND)).kind, 'ping');
  assert.ok(Date.now() - began >= 2.4 * SECOND);
  await expect_close(ws, 4201, 'Pong reply not received in time');
  assert.ok(Date.now() - began >= 4.4 * SECOND);
});
s.test('other traffic does not answer a ping, nor does another pong', async (t) => {
  const ws = await open_v2(t);
  const { payload } = await ws.take(12 * SECOND);
  ws.send({ event: 'sockudo:ping', data: {} });
  assert.equal((await ws.next()).event, 'sockudo:pong');
  ws.write(frame(OP.PONG, Buffer.from(payload).reverse()));
  ws.write(frame(OP.PONG, ''));
  ws.write(frame(OP.PONG, payload.subarray(0, 7)));
  await expect_close(ws, 4201, 'Pong reply not received in time');
});
s.test('a socket that talks is not pinged', async (t) => {
  const ws = await open_v2(t);
  const until = Date.now() + 8 * SECOND;
  while (Date.now() < until) {
    ws.send({ event: 'sockudo:ping', data: {} });
    assert.equal((await ws.next()).event, 'sockudo:pong', 'no native ping in between');
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
});
s.test('native pings of the client are answered with their payload', async (t) => {
  const ws = await open_v2(t);
  ws.write(frame(OP.PING, 'hello'));
  const item = await ws.take();
  assert.equal(item.kind, 'pong');
  assert.equal(item.payload.toString(), 'hello');
});
s.test('V1 sockets of the same server keep their pings', async (t) => {
  const ws = await t.open(v2_app);
  assert.equal((await ws.next(12 * SECOND)).event, 'pusher:ping');
  ws.send({ event: 'pusher:pong', data: {} });
});

const idle = suite('v2 idle limit', { parallel: 8, config: { ...apps,
  websocket: { ping_interval: 0, idle_timeout: 3 } } });
idle.test('silence ends with 1001 and no error frame', async (t) => {
  const began = Date.now();
  const ws = await open_v2(t);
  await expect_close(ws, 1001, 'Connection idle timeout');
  assert.ok(Date.now() - began >= 2.9 * SECOND);
});
idle.test('any frame counts', async (t) => {
  const ws = await open_v2(t);
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve, SECOND));
    ws.write(i % 2 ? frame(OP.PONG, '') : frame(OP.PING, 'x'));
    if (i % 2 === 0) assert.equal((await ws.take()).kind, 'pong');
  }
  await expect_close(ws, 1001, 'Connection idle timeout');
});
