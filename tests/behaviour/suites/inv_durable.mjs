/* inv_durable.mjs - invariants 8, 9, 13 to 16: what was answered holds, whatever is killed or
 * fails.
 *
 * Source   spec/messages-and-history.md 12; 14 and 16 read "a crash or a failing lane at any point"
 *          (settled 38: a receipt shares the commit of its record).
 */
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { Lives, disk_fails, disk_heals, disk_wrap, mem, v2 } from '../memory.mjs';
import { api } from '../http_raw.mjs';
import { create, message_path, mutate, read_channel, read_message, read_rows,
         read_versions } from '../stored.mjs';
import { V2, data_of, header } from '../v2_client.mjs';

const s = suite('inv durable', { none: true, parallel: 3 });
const A = mem.app;
const many = (n, fn) => Promise.all(Array.from({ length: n }, (_, i) => fn(i)));
const SERIALS = ['message_serial', 'version_serial', 'history_serial', 'delivery_serial'];
const serials = (ack) => SERIALS.map((name) => ack[name]);

/* Asks until the server is killed; hears of every answer. */
async function hammer(lives, width, ask) {
  let over = false;
  let next = 0;
  const workers = many(width, async () => {
    while (!over) {
      next += 1;
      try { await ask(next); } catch (e) { if (!over) throw e; }
    }
  });
  await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 250));
  over = true;
  await lives.kill();
  await workers;
  return next;
}

s.test('invariant 8: what was acknowledged survives, what was refused does not', async (t) => {
  const lives = new Lives(t);
  await lives.start();
  const { message_serial } = await create(lives.port, A, 'acks', '');
  const told = new Map();
  const refused = new Set();
  let first = 0;
  for (let life = 0; life < 4; life++) {
    const from = first;
    first += await hammer(lives, 16, async (n) => {
      const data = `<${from + n}>`;
      const r = await api(lives.port, A, 'POST', `${message_path('acks', message_serial)}/append`,
                          { body: { data } });
      if (r.status === 200) told.set(data, r.json);
      else refused.add(data);
    });
    await lives.start({ shards: [1, 3, 2, 1][life] });
    const versions = await read_versions(lives.port, A, 'acks', message_serial);
    const at = new Map(versions.map((v) => [v.data, v]));
    assert.equal(at.size, versions.length, 'nothing is stored twice');
    for (const [data, ack] of told) {
      assert.equal(at.get(data)?.version.serial, ack.version_serial, `${data} is stored as told`);
      assert.equal(at.get(data).delivery_serial, ack.delivery_serial);
    }
    for (const data of refused) assert.ok(!at.has(data), `${data} was refused`);
  }
  assert.ok(told.size > 50, `only ${told.size} acknowledged`);
  await read_channel(lives.port, A, 'acks');
  await lives.stop();
});

s.test('invariant 9: an op_id is applied once, also over restarts', async (t) => {
  const lives = new Lives(t);
  await lives.start();
  const { message_serial } = await create(lives.port, A, 'ops', '');
  const path = `${message_path('ops', message_serial)}/append`;
  const ask = (i, more = {}) => mutate(lives.port, A, 'ops', message_serial, 'append',
                                       { data: `<${i}>`, op_id: `op-${i}`, ...more });
  const first = await many(20, async (i) => {
    const same = await many(12, () => ask(i));
    assert.equal(same.filter((r) => r.status === 'applied').length, 1, 'one of them is applied');
    assert.ok(same.every((r) => ['applied', 'duplicate'].includes(r.status)));
    for (const r of same) assert.deepEqual(serials(r), serials(same[0]));
    return same[0];
  });
  await mutate(lives.port, A, 'ops', message_serial, 'update', { data: '' });
  for (const how of ['at once', 'kill', 'stop', 'kill']) {
    if (how !== 'at once') {
      await lives[how]();
      await lives.start({ shards: how === 'stop' ? 3 : 1 });
    }
    const before = await read_versions(lives.port, A, 'ops', message_serial);
    await many(20, async (i) => {
      const again = await ask(i);
      assert.equal(again.status, 'duplicate');
      assert.deepEqual(serials(again), serials(first[i]));
      const other = await api(lives.port, A, 'POST', path, { body: { data: 'other',
                                                                     op_id: `op-${i}` } });
      assert.equal(other.status, 400, other.text);
      assert.equal(other.json.error,
                   'idempotency key was already used with a different payload');
    });
    assert.deepEqual(await read_versions(lives.port, A, 'ops', message_serial), before);
  }
  const elsewhere = await mutate(lives.port, A, 'ops', message_serial, 'update',
                                 { data: '<0>', op_id: 'op-0' });
  assert.equal(elsewhere.status, 'applied', 'another action is another operation');
  await lives.stop();
});

s.test('invariant 13: one message_id many times at once is one message', async (t) => {
  const lives = new Lives(t);
  await lives.start();
  const ws = await v2(t, { port: lives.port });
  const v1 = await t.open(A, { port: lives.port });
  await ws.subscribe('once');
  v1.send({ event: 'pusher:subscribe', data: { channel: 'once', auth: '' } });
  await v1.until('pusher_internal:subscription_succeeded');
  for (const keyed of [(id) => ({ message_id: id }), (id) => ({ extras: { idempotencyKey: id } }),
                       (id) => ({ idempotency_key: id })]) {
    for (let round = 0; round < 4; round++) {
      const id = t.name('id');
      const answers = await many(24, () => api(lives.port, A, 'POST', '/events', { body: {
        name: 'note', channel: 'once', data: id, info: 'subscription_count', ...keyed(id) } }));
      const acks = answers.filter((r) => r.status === 200).map((r) => r.json.channels.once);
      for (const r of answers) {
        if (r.status === 200) continue;
        assert.equal(r.status, 503, r.text);
        assert.equal(r.headers['retry-after'], '1');
      }
      assert.ok(acks.length > 0);
      for (const a of acks) assert.deepEqual(a, acks[0]);
      assert.equal((await ws.next((m) => m.channel === 'once' && m.event === 'note')).data, id);
      assert.equal((await v1.until('note')).data, id);
    }
  }
  await create(lives.port, A, 'once', 'end');      /* whatever came twice would stand before it */
  assert.equal((await ws.next((m) => m.channel === 'once' && m.event === 'note')).data, 'end');
  assert.equal((await v1.until('note')).data, 'end');
  const { items } = await read_rows(lives.port, A, 'once');
  assert.equal(items.length, 13);
  await lives.stop();
});

s.test('invariants 14 and 15: after a crash at any point a retry finds or makes the one message',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const ids = new Map();                    /* id -> ack, or null when it was never answered */
    const ask = (id) => api(lives.port, A, 'POST', '/events',
                            { body: { name: 'note', channel: 'crash', data: id, message_id: id } });
    for (let life = 0; life < 5; life++) {
      await hammer(lives, 12, async (n) => {
        const id = `${life}.${n}`;
        ids.set(id, null);
        const r = await ask(id);
        if (r.status === 200) ids.set(id, r.json.channels.crash);
        else assert.equal(r.status, 503, r.text);
      });
      await lives.start({ shards: [3, 1, 2, 5, 1][life] });
      const before = new Map((await read_rows(lives.port, A, 'crash')).items
        .map((row) => [row.message.data, row.message]));
      await many(ids.size, async (i) => {
        const [id, ack] = [...ids][i];
        const r = await ask(id);
        assert.equal(r.status, 200, `retry of ${id}: ${r.status} ${r.text}`);
        const again = r.json.channels.crash;
        if (ack) assert.deepEqual(serials(again), serials(ack));
        const found = before.get(id);
        if (found) assert.equal(again.message_serial, found.message_serial);
        ids.set(id, again);
      });
    }
    const { items } = await read_rows(lives.port, A, 'crash');
    assert.equal(items.length, ids.size, 'every id made one message');
    for (const row of items) {
      assert.equal(ids.get(row.message.data).message_serial, row.message.message_serial);
    }
    await lives.stop();
  });

/* Asks until a lane takes records again. */
async function healed(ask) {
  return eventually(async () => {
    const r = await ask();
    return r.status !== 503 && r;
  }, 'the lanes to take records again', 20000);
}
const busy = (r) => {
  assert.equal(r.status, 503, `${r.status} ${r.text}`);
  assert.equal(r.headers['retry-after'], '1', 'it says when to come again');
};

s.test('invariants 14 and 15: a failing lane refuses, and the retry afterwards is the first',
  async (t) => {
    const lives = new Lives(t);
    await lives.start({ wrap: disk_wrap });
    const ask = (channel, id) => api(lives.port, A, 'POST', '/events',
      { body: { name: 'note', channel, data: id, message_id: id } });
    const good = await create(lives.port, A, 'lane-0', 'good', { message_id: 'good' });
    disk_fails(lives.server);
    const ids = Array.from({ length: 40 }, (_, i) => [`lane-${i % 8}`, `id-${i}`]);
    for (let round = 0; round < 3; round++) {
      await many(ids.length, async (i) => busy(await ask(...ids[i])));
    }
    const again = await ask('lane-0', 'good');
    if (again.status !== 503) {
      assert.deepEqual(serials(again.json.channels['lane-0']), serials(good));
    }
    disk_heals(lives.server);
    const acks = await many(ids.length, async (i) => {
      const r = await healed(() => ask(...ids[i]));
      assert.equal(r.status, 200, r.text);
      return r.json.channels[ids[i][0]];
    });
    await lives.restart({ wrap: disk_wrap });
    await many(ids.length, async (i) => {
      const r = await ask(...ids[i]);
      assert.deepEqual(serials(r.json.channels[ids[i][0]]), serials(acks[i]));
    });
    let rows = 0;
    for (let i = 0; i < 8; i++) {
      rows += (await read_channel(lives.port, A, `lane-${i}`)).rows.length;
    }
    assert.equal(rows, ids.length + 1);
    await lives.stop();
  });

s.test('invariant 16: while a lane fails nothing is published, and what needs no lane works',
  async (t) => {
    const lives = new Lives(t);
    await lives.start({ wrap: disk_wrap });
    const ws = await v2(t, { port: lives.port });
    const free = await v2(t, { port: lives.port, app: mem.plain });
    await ws.subscribe('shut');
    await free.subscribe('open');
    const { message_serial } = await create(lives.port, A, 'shut', 'text');
    await ws.next((m) => header(m, 'action') === 'message.create');
    const post = (path, body, headers) => api(lives.port, A, 'POST', path, { body, headers });
    const event = { name: 'note', channel: 'shut', data: 'never' };
    disk_fails(lives.server);
    for (let round = 0; round < 3; round++) {
      busy(await post('/events', { ...event, idempotency_key: `key-${round}` }));
      busy(await post('/events', event, { 'X-Idempotency-Key': `head-${round}` }));
      busy(await post('/events', { ...event, message_id: `id-${round}` }));
      busy(await post('/events', { ...event, extras: { idempotencyKey: `extra-${round}` } }));
      busy(await post('/events', event));
      busy(await post('/batch_events', { batch: [event] }, { 'X-Idempotency-Key': `b-${round}` }));
      busy(await post(`${message_path('shut', message_serial)}/append`, { data: '!', op_id: 'o' }));
      const r = await api(lives.port, mem.plain, 'POST', '/events', { body: {
        name: 'note', channel: 'open', data: `${round}`, idempotency_key: `plain-${round}` } });
      assert.equal(r.status, 200, `a channel without history: ${r.text}`);
      assert.equal((await free.next((m) => m.event === 'note')).data, `${round}`);
    }
    assert.deepEqual(await ws.flush(), [], 'nothing is delivered');
    assert.equal((await read_message(lives.port, A, 'shut', message_serial)).data, 'text',
                 'reads go on');
    disk_heals(lives.server);
    await healed(() => post('/events', { ...event, channel: 'shut', message_id: 'first' }));
    assert.equal((await ws.next()).message_id, 'first', 'nothing came before');
    assert.equal((await read_channel(lives.port, A, 'shut')).head, 2);
    for (const [path, body, headers] of [
      ['/events', { ...event, idempotency_key: 'key-0' }],
      ['/events', event, { 'X-Idempotency-Key': 'head-0' }],
      ['/events', { ...event, message_id: 'id-0' }],
      ['/batch_events', { batch: [event] }, { 'X-Idempotency-Key': 'b-0' }],
      [`${message_path('shut', message_serial)}/append`, { data: '!', op_id: 'o' }],
    ]) assert.equal((await post(path, body, headers)).status, 200, `${path} afterwards`);
    for (let serial = 3; serial <= 7; serial++) assert.equal((await ws.next()).serial, serial);
    assert.equal((await read_channel(lives.port, A, 'shut')).head, 7);
    await lives.stop();
  });

/* What a client that had seen all of `loose` is told by the next server. */
async function come_back(t, lives, position) {
  const back = await v2(t, { port: lives.port, app: mem.loose });
  back.send(V2.resume_frame({ loose: position }));
  const { stream_id } = await back.subscribe('loose');
  const { recovered, failed } = data_of(await back.next((m) =>
    m.event === 'sockudo:resume_success'));
  return { recovered: recovered[0], failed: failed[0], stream_id };
}

s.test('relaxed durability: after a crash no resume succeeds, after a clean stop every one does',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const L = mem.loose;
    /* kill 1: so soon that nothing may be stored; unseen: a start in between does not touch it. */
    for (const [how, count] of [['kill', 1], ['kill', 1], ['kill', 60], ['stop', 60],
                                ['unseen', 60], ['stop', 1], ['kill', 60]]) {
      const ws = await v2(t, { port: lives.port, app: L });
      const { stream_id, serial } = await ws.subscribe('loose');
      await many(count, (i) => create(lives.port, L, 'loose', `${how} ${i}`));
      const last = await ws.next((m) => m.serial === serial + count);
      assert.equal(last.stream_id, stream_id);
      await (how === 'stop' ? lives.stop() : lives.kill());
      if (how === 'unseen') {
        await lives.start();
        await lives.stop();
      }
      await lives.start({ shards: 2 });
      const r = await come_back(t, lives, { stream_id, serial: last.serial });
      if (how === 'stop') {
        assert.equal(r.recovered?.replayed, 0, JSON.stringify(r));
        assert.equal(r.stream_id, stream_id);
      } else {
        assert.equal(r.failed?.code, 'stream_reset', `${how} ${count}: ${JSON.stringify(r)}`);
        assert.notEqual(r.stream_id, stream_id);
      }
      await read_channel(lives.port, L, 'loose');
    }
    await lives.stop();
  });
