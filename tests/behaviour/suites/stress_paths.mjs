/* stress_paths.mjs - what waits, what is refused and what is bounded on the paths of channels with
 * memory: nothing is published twice, nothing hangs, nobody's answers take everybody's memory.
 *
 * Source   spec/messages-and-history.md 10, 12; spec/protocol-v2.md 6; spec/operations.md 7;
 *          spec/settled.md 14, 15, 32, 38.
 */
import fs from 'node:fs';
import path from 'node:path';
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { metric } from '../metrics.mjs';
import { Lives, mem, mem_config, v2 } from '../memory.mjs';
import { api } from '../http_raw.mjs';
import { Server, tempDir } from '../harness.mjs';
import { app_entry } from '../apps.mjs';
import { data_of } from '../v2_client.mjs';
import { SUCCEEDED, join_v2, open_v2, subscribe_v2 } from '../v2_raw.mjs';

const A = mem.app;
const many = (n, fn) => Promise.all(Array.from({ length: n }, (_, i) => fn(i)));
const rows = async (port, channel) =>
  (await api(port, A, 'GET', `/channels/${channel}/history`, { query: { limit: '100' } }))
    .json.items.map((i) => i.message.data);
const hits = (server, limit) => metric(server, 'sockudo_limit_hits_total', { limit });

/* ---- batches ---- */

const shared = suite('stress paths', { parallel: 8, config: mem_config });
shared.test('a keyed batch that fails in part publishes its other items once', async (t) => {
  const [good, bad] = [t.name(), t.name()];
  const send = (batch, key = 'k') => t.api(A, 'POST', '/batch_events',
    { body: { batch }, headers: { 'X-Idempotency-Key': `${good}-${key}` } });
  const item = (channel, data, more = {}) => ({ name: 'ev', channel, data, ...more });
  await t.publish(A, bad, 'ev', 'first', { message_id: 'taken' });
  const batch = [item(good, 'a'), item(bad, 'x', { message_id: 'taken' }), item(good, 'a')];
  for (let i = 0; i < 3; i++) assert.equal((await send(batch)).status, 400);
  assert.deepEqual(await rows(t.port, good), ['a', 'a'], 'both items, once each');
  batch[1] = item(bad, 'y');
  for (let i = 0; i < 2; i++) assert.equal((await send(batch)).status, 200);
  assert.deepEqual(await rows(t.port, good), ['a', 'a']);
  assert.deepEqual(await rows(t.port, bad), ['y', 'first']);
  const alone = await t.api(A, 'POST', '/events',
                            { body: { ...item(good, 'b'), idempotency_key: `${good}-k` } });
  assert.equal(alone.status, 200, alone.text);
  assert.deepEqual(await rows(t.port, good), ['b', 'a', 'a'], 'an event key is another key');
});

shared.test('a keyed batch that fails in part is heard once where nothing is kept', async (t) => {
  const [plain, other] = [t.name(), t.name()];
  const ws = await v2(t, { app: mem.plain });
  await ws.subscribe(plain);
  await t.publish(mem.plain, other, 'ev', 'first', { message_id: 'taken' });
  const batch = [{ name: 'ev', channel: plain, data: 'a' },
                 { name: 'ev', channel: other, data: 'a', message_id: 'taken' }];
  for (let i = 0; i < 3; i++) {
    const r = await t.api(mem.plain, 'POST', '/batch_events',
                          { body: { batch }, headers: { 'X-Idempotency-Key': plain } });
    assert.equal(r.status, 400, r.text);
  }
  await t.publish(mem.plain, plain, 'mark', 'b');
  const heard = [];
  while (heard.at(-1) !== 'mark') heard.push((await ws.next()).event);
  assert.deepEqual(heard.filter((event) => !event.startsWith('sockudo')), ['ev', 'mark']);
});

/* ---- room ---- */

/* Receipts would keep the records. */
const keyless = app_entry('keyless', { idempotency: { enabled: false } });
const room = suite('stress paths, no room', { none: true, parallel: 2 });
room.test('what makes room is not refused for want of room', async (t) => {
  const server = await t.start({ config: { ...mem_config,
    app_manager: { array: { apps: [keyless] } },
    history: { ...mem_config.history, max_bytes: 8 << 20 } } });
  t.server = server;
  const data = 'x'.repeat(60000);
  const send = (channel) => t.api(keyless, 'POST', '/events',
                                  { body: { name: 'ev', channel, data } });
  const full = async () => {
    for (let i = 0; i < 20; i++) if ((await send('full')).status === 503) return true;
    return false;
  };
  await eventually(full, 'the lanes refuse', 30000);
  const end = (what) => t.api(keyless, 'POST', `/channels/full/history/${what}`, { body: {
    mode: 'all', confirm_channel: 'full', confirm_operation: what, reason: 'r',
    requested_by: 'x' } });
  for (const what of ['purge', 'reset']) {
    const r = await end(what);
    assert.equal(r.status, 200, `${what}: ${r.text}`);
  }
  await eventually(async () => (await send('full')).status === 200, 'there is room again', 30000);
});

/* ---- what a start reads ---- */

const KEY = 'KEYKEYKEYKEY1';
function* places(dir) {
  for (const lane of fs.readdirSync(dir).filter((f) => f.startsWith('lane-'))) {
    const file = path.join(dir, lane, 'data.mdb');
    const bytes = fs.readFileSync(file);
    for (let at = bytes.indexOf(KEY); at >= 0; at = bytes.indexOf(KEY, at + 1)) yield [file, at];
  }
}
function damage(file, at) {
  const fd = fs.openSync(file, 'r+');
  fs.writeSync(fd, Buffer.from('k'), 0, 1, at);
  fs.closeSync(fd);
}
room.test('a stored request key that cannot be read holds nobody up', async (t) => {
  const lives = new Lives(t);
  await lives.start();
  const keyed = (port, key) => api(port, A, 'POST', '/events', { body: { name: 'ev',
    channel: 'c', data: 'x', idempotency_key: key } });
  assert.equal((await keyed(lives.port, KEY)).status, 200);
  for (let i = 0; i < 80; i++) {
    const r = await api(lives.port, A, 'POST', '/events',
                        { body: { name: 'ev', channel: `c${i % 7}`, data: 'y'.repeat(3000) } });
    assert.equal(r.status, 200, r.text);
  }
  await lives.stop();
  let told = 0;
  for (const [file, at] of [...places(path.join(lives.dir, 'data'))]) {
    const dir = tempDir();
    t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
    fs.cpSync(path.join(lives.dir, 'data'), path.join(dir, 'data'), { recursive: true });
    damage(file.replace(lives.dir, dir), at);
    let server;
    try { server = await Server.start({ dir, config: mem_config, shards: t.shards }); }
    catch (e) { continue; }              /* it lay in the wal: a start says so and ends */
    t.after(() => server.clean());
    const r = await keyed(server.port, 'another');
    assert.equal(r.status, 200, r.text);
    await server.stop();
    if (/cannot be read/.test(server.stderr)) told += 1;
  }
  assert.ok(told > 0, 'one of them lay among the request keys');
});

/* ---- cold replays ---- */

/* A channel whose rows only the store has. */
async function filled(t, channel, count, bytes) {
  const ws = await open_v2(t, A, '', { port: t.port });
  const { stream_id } = await join_v2(ws, channel);
  ws.destroy();
  for (let i = 0; i < count; i += 10) {
    await many(10, () => t.publish(A, channel, 'ev', 'x'.repeat(bytes)));
  }
  return { channel, stream_id };
}
const cold_config = (more) => ({ ...mem_config, ...more,
  connection_recovery: { enabled: true, max_buffer_size: 1 } });
const resume = (ws, list) => ws.send({ event: 'sockudo:resume', data: JSON.stringify({
  channel_positions: Object.fromEntries(list.map((f) => [f.channel,
    { stream_id: f.stream_id, serial: 0 }])) }) });
async function aggregate(ws) {
  return data_of(await ws.until('sockudo:resume_success'));
}

const cold = suite('stress paths, cold replays', { none: true, parallel: 1 });
cold.test('many at once take turns, and all of them recover', async (t) => {
  const config = cold_config({ history: { ...mem_config.history,
                                          cold_replay_max_bytes: 32 << 20 } });
  t.server = await t.start({ config });
  const f = await filled(t, 'big', 70, 10000);
  const sockets = await many(12, () => open_v2(t, A, 'append_mode=full'));
  for (const ws of sockets) {
    resume(ws, [f]);
    subscribe_v2(ws, f.channel);
  }
  for (const outcome of await Promise.all(sockets.map(aggregate))) {
    assert.deepEqual(outcome.failed, []);
    assert.deepEqual(outcome.recovered.map((r) => [r.channel, r.source, r.replayed]),
                     [['big', 'cold', 70]]);
  }
  assert.ok(await hits(t.server, 'cold_reads') > 0, 'some have waited');
  await t.server.stop();
});
cold.test('sockets that do not take their replays are closed; others publish and recover',
          async (t) => {
  const config = cold_config({ limits: { shard_memory_mb: 128 }, websocket: { pong_timeout: 2 } });
  t.server = await t.start({ config });
  const list = [];
  for (const name of ['a', 'b', 'c', 'd']) list.push(await filled(t, name, 70, 50000));
  const stuck = await many(16, () => open_v2(t, A));
  for (const ws of stuck) {
    ws.socket.pause();
    resume(ws, list);
    for (const f of list) subscribe_v2(ws, f.channel);
  }
  const talk = setInterval(() => stuck.forEach((ws) => {    /* alive, but for the reading */
    if (!ws.socket.destroyed) ws.send({ event: 'sockudo:ping' });
  }), 300);
  t.after(() => clearInterval(talk));
  const closed = () => metric(t.server, 'sockudo_slow_consumer_disconnects_total',
                              { app_id: A.id });
  await eventually(async () => {
    const r = await t.api(A, 'POST', '/events', { body: { name: 'ev', channel: 'a', data: 'x' } });
    assert.equal(r.status, 200, r.text);
    return await closed() >= 2;
  }, 'who has a replay is a slow consumer', 30000);
  assert.ok(await hits(t.server, 'cold_reads') > 0, 'the others have waited in vain');
  clearInterval(talk);
  for (const ws of stuck) ws.destroy();
  const ws = await open_v2(t, A);
  resume(ws, [list[1]]);
  subscribe_v2(ws, 'b');
  const { recovered } = await aggregate(ws);
  assert.deepEqual(recovered.map((r) => [r.channel, r.replayed]), [['b', 70]]);
  await t.server.stop();
});

/* ---- a reset under a live socket ---- */

const B = mem.other;
const plain = suite('stress paths, plain rows', { parallel: 4, config: { ...mem_config,
  versioned_messages: { enabled: false }, annotations: { enabled: false },
  app_manager: { array: { apps: [B] } } } });
plain.test('after a reset a live socket is replayed nothing that it was sent', async (t) => {
  const channel = t.name();
  const ws = await v2(t, { app: B });
  const before = await ws.subscribe(channel);
  const publish = async (n) => {
    for (let i = 0; i < n; i++) await t.publish(B, channel, 'ev', `${i}`);
    for (let i = 0; i < n; i++) await ws.next((m) => m.event === 'ev');
  };
  await publish(10);
  const late = await v2(t, { app: B });  /* its attach is in the middle of the old stream */
  await late.subscribe(channel);
  const r = await t.api(B, 'POST', `/channels/${channel}/history/reset`, { body: {
    confirm_channel: channel, confirm_operation: 'reset', reason: 'r', requested_by: 'x' } });
  assert.equal(r.status, 200, r.text);
  await publish(5);
  const now = (await (await v2(t, { app: B })).subscribe(channel));
  assert.notEqual(now.stream_id, before.stream_id);
  for (let i = 0; i < 5; i++) await late.next((m) => m.event === 'ev');
  for (const c of [ws, late]) {
    c.send({ event: 'sockudo:resume', data: JSON.stringify({
      channel_positions: { [channel]: { stream_id: now.stream_id, serial: 2 } } }) });
    const frames = [];
    let m;
    do frames.push(m = await c.next()); while (m.event !== 'sockudo:resume_success');
    assert.deepEqual(frames.filter((f) => f.event === 'ev').map((f) => f.serial), []);
    assert.deepEqual(data_of(m).recovered.map((x) => [x.channel, x.replayed]), [[channel, 0]]);
  }
  assert.equal(SUCCEEDED, before.event);
});

/* ---- a stop under load ---- */

room.test('a stop under a load of requests drains, and cuts no answer', async (t) => {
  const lives = new Lives(t, { ...mem_config, shutdown_grace_period: 30 });
  await lives.start();
  let [over, answered] = [false, 0];
  const workers = many(8, async (k) => {
    for (let n = 0; !over; n++) {
      const data = `${k}-${n}`;
      try {
        const r = await api(lives.port, A, 'POST', '/events', { agent: false,
                            body: { name: 'ev', channel: `load${k}`, data } });
        assert.ok([200, 503].includes(r.status), `${r.status} ${r.text}`);
        if (r.status === 200) answered += 1;
      } catch (e) {
        if (e.code === 'ERR_ASSERTION') throw e;
        if (over || lives.server.out.exit) return;
        await new Promise((resolve) => setTimeout(resolve, 5));   /* refused, or not accepted */
      }
    }
  });
  await eventually(() => answered > 300, 'the load runs');
  lives.server.signal('SIGTERM');
  const exit = await lives.server.exited();
  over = true;
  await workers;
  assert.deepEqual(exit, { code: 0, signal: null });
  assert.doesNotMatch(lives.server.stderr, /grace period over/);
  await lives.start();
  let stored = 0;
  for (let k = 0; k < 8; k++) {
    const r = await api(lives.port, A, 'GET', `/channels/load${k}/history/state`);
    assert.equal(r.status, 200, r.text);
    stored += r.json.stream.retained.retained_messages;
  }
  assert.equal(stored, answered, 'what is stored was answered');
  await lives.stop();
});
