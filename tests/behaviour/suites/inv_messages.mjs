/* inv_messages.mjs - invariants 1 to 7: messages, their versions and the frames that show them.
 *
 * Source   spec/messages-and-history.md 12; the half of 7 that is about rollup comes with it.
 */
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { Lives, jumping_clock, mem, mem_config, reader, v2 } from '../memory.mjs';
import { create, fold, message_path, mutate, read_channel, read_message, read_state,
         read_versions } from '../stored.mjs';
import { data_of, header } from '../v2_client.mjs';

const s = suite('inv messages', { config: mem_config, parallel: 6 });
const A = mem.app;
const many = (n, fn) => Promise.all(Array.from({ length: n }, (_, i) => fn(i)));
const send = (t, path, body) => t.api(A, 'POST', path, { body });

s.test('invariant 1: every one of many concurrent appends is in the text once, in order',
  async (t) => {
    const c = t.name();
    const { message_serial } = await create(t.port, A, c, '');
    const acks = await many(200, (i) =>
      mutate(t.port, A, c, message_serial, 'append', { data: `<${i}>` }));
    for (const field of ['version_serial', 'delivery_serial']) {
      assert.equal(new Set(acks.map((a) => a[field])).size, 200, `${field}s are distinct`);
    }
    const by_serial = acks.map((a, i) => ({ a, i }))
      .sort((x, y) => x.a.delivery_serial - y.a.delivery_serial);
    const text = by_serial.map(({ i }) => `<${i}>`).join('');
    assert.equal((await read_message(t.port, A, c, message_serial)).data, text);
    const versions = await read_versions(t.port, A, c, message_serial);
    assert.equal(versions.length, 201);
  });

/* One of everything that may be asked of a channel, accepted or not. */
async function any_request(t, c, messages, i) {
  const message = messages[i % messages.length];
  const at = message_path(c, message);
  switch (i % 8) {
    case 0: return create(t.port, A, c, `new ${i}`);
    case 1: return send(t, `${at}/append`, { data: `<${i % 24}>`, op_id: `op-${i % 24}` });
    case 2: return send(t, `${at}/append`, { data: `<${i}>`, op_id: `op-${i % 24}` });
    case 3: return send(t, `${at}/append`, { data: `<${i}>` });
    case 4: return send(t, `${at}/append`, { data: '' });
    case 5: return send(t, `${at}/update`, { data: `again ${i}` });
    case 6: return send(t, `${message_path(c, 'unknown')}/append`, { data: 'x' });
    default: return send(t, `${at}/delete`, { description: `gone ${i}` });
  }
}

s.test('invariant 2: delivery serials are 1 to K whatever ran at once', async (t) => {
  const c = t.name();
  const messages = await many(6, async () => (await create(t.port, A, c, 'a')).message_serial);
  const answers = await many(240, (i) => any_request(t, c, messages, i));
  const stored = await read_channel(t.port, A, c, { limit: 17 });
  const duplicates = answers.filter((r) => r.json?.status === 'duplicate').length;
  const refused = answers.filter((r) => r.status >= 400).length;
  assert.deepEqual([duplicates, refused], [27, 27 + 30 + 30], 'they were in the mix');
  assert.equal(stored.head, 6 + 240 - duplicates - refused, 'whatever was accepted is stored');
});

const REFUSED = [
  ['/append', { data: '' }, 400], ['/append', {}, 422], ['/append', { data: 5 }, 422],
  ['/update', {}, 400], ['/update', { clear_fields: ['data', 'data'] }, 400],
  ['/update', { data: 'x', clear_fields: ['data'] }, 400],
  ['/delete', { data: 'x', clear_fields: ['data'] }, 400],
  ['/append', { data: 'x', op_id: '' }, 400],
  ['/append', { data: 'x', op_id: 'o'.repeat(65) }, 400],
  ['/append', { data: 'x', socket_id: '1.1' }, 401], ['/append', { data: 'x', op_id: 'used' }, 400],
];

s.test('invariant 3: what is refused leaves nothing behind', async (t) => {
  const c = t.name();
  const { message_serial } = await create(t.port, A, c, 'text', { message_id: 'once' });
  const structured = await create(t.port, A, c, 'text');
  await mutate(t.port, A, c, structured.message_serial, 'update', { data: { not: 'text' } });
  await mutate(t.port, A, c, message_serial, 'append', { data: '.', op_id: 'used' });
  const ws = await v2(t);
  const v1 = await t.open(A);
  await ws.subscribe(c);
  ws.frames.length = ws.at = 0;
  v1.send({ event: 'pusher:subscribe', data: { channel: c, auth: '' } });
  await v1.until('pusher_internal:subscription_succeeded');
  const before = await read_channel(t.port, A, c);
  const state = await read_state(t.port, A, c);
  for (const [path, body, status] of REFUSED) {
    const r = await send(t, `${message_path(c, message_serial)}${path}`, body);
    assert.equal(r.status, status, `${path} ${JSON.stringify(body)}: ${r.status} ${r.text}`);
  }
  const more = [
    [`${message_path(c, structured.message_serial)}/append`, { data: 'x' }, 400],
    [`${message_path(c, `${message_serial}0`)}/append`, { data: 'x' }, 404],
    ['/events', { name: 'note', channel: c, data: 'other', message_id: 'once' }, 400],
    ['/events', { name: 'n'.repeat(201), channel: c, data: 'x' }, 400],
  ];
  for (const [path, body, status] of more) {
    const r = await send(t, path, body);
    assert.equal(r.status, status, `${path} ${JSON.stringify(body)}: ${r.status} ${r.text}`);
  }
  const after = await read_channel(t.port, A, c);
  const in_order = (v) => [...v].sort((x, y) => x[0] - y[0]);
  assert.deepEqual(in_order(after.versions), in_order(before.versions));
  assert.deepEqual(await read_state(t.port, A, c), state);
  const next = await mutate(t.port, A, c, message_serial, 'append', { data: '!' });
  assert.equal(next.delivery_serial, before.head + 1, 'the next serial is not used up');
  await create(t.port, A, c, 'new');
  for (const serial of [1, 2]) assert.equal((await ws.next()).serial, before.head + serial);
  assert.equal((await v1.next()).data, 'new', 'no frame but of what was accepted');
});

s.test('invariant 4: both serials of versions give one order, identity is constant', async (t) => {
  const c = t.name();
  const messages = await many(5, async () => (await create(t.port, A, c, 'a')).message_serial);
  const actions = ['append', 'update', 'delete'];
  await many(100, (i) => mutate(t.port, A, c, messages[i % 5], actions[i % 3],
                                i % 3 === 2 ? {} : { data: `<${i}>` }));
  const stored = await read_channel(t.port, A, c);     /* checks every message's versions */
  for (const m of messages) {
    const down = await read_versions(t.port, A, c, m, { direction: 'newest_first', limit: 7 });
    assert.deepEqual(down.reverse(), stored.messages.get(m).versions);
  }
});

s.test('invariant 5: version serials rise though the clock steps back', async (t) => {
  const clock = jumping_clock(t);
  const lives = new Lives(t);
  await lives.start({ env: clock.env });
  const { message_serial } = await create(lives.port, A, 'steps', '');
  const at = [];
  for (const seconds of [0, 300, -300, 290, -10, 0]) {
    clock.shift(seconds);
    const from = Math.floor(Date.now() / 1000) + seconds;
    await many(10, () => mutate(lives.port, A, 'steps', message_serial, 'append', { data: '.' }));
    const latest = await read_message(lives.port, A, 'steps', message_serial);
    at.push([from, latest.version.timestamp_ms / 1000]);
  }
  assert.ok(at[1][1] >= at[1][0] - 2, `the clock really moved: ${JSON.stringify(at)}`);
  clock.shift(-300);
  await lives.kill();
  await lives.start({ env: clock.env });
  await many(10, () => mutate(lives.port, A, 'steps', message_serial, 'append', { data: '.' }));
  const { messages } = await read_channel(lives.port, A, 'steps');
  const { versions } = messages.get(message_serial);   /* checked: they rise */
  assert.equal(versions.length, 71);
  let shared = 0;
  versions.reduce((before, v) => {
    assert.ok(v.version.timestamp_ms >= before.version.timestamp_ms, 'times do not fall');
    shared += v.version.timestamp_ms === before.version.timestamp_ms;
    return v;
  });
  assert.ok(shared > 0, 'some share a millisecond');
});

s.test('invariant 6: every subscriber gets live frames in the order of delivery serials',
  async (t) => {
    const c = t.name();
    const readers = await many(7, (i) => reader(t, [c], { full: i % 2 === 1 }));
    const acks = await many(8, (i) => create(t.port, A, c, `${i}`));
    const messages = acks.map((a) => a.message_serial);
    await many(400, (i) => mutate(t.port, A, c, messages[i % 8], i % 9 === 0 ? 'update' : 'append',
                                  { data: `<${i}>` }));
    for (const r of readers) await r.reach(c, 408);    /* a view refuses any other order */
    for (const r of readers) {
      r.check();
      assert.deepEqual(r.view(c).skipped, [], 'live, nothing stands for what was not shown');
    }
  });

s.test('invariant 7: delta, full and GET give the same text at every version', async (t) => {
  const c = t.name();
  const at = { delta: new Map(), full: new Map(), stored: new Map() };
  const texts = new Map();
  const delta = await reader(t, [c], { saw: (_, m) => {
    const id = header(m, 'message_serial');
    const before = header(m, 'action') === 'message.append' ? texts.get(id) ?? '' : '';
    texts.set(id, m.data === undefined ? undefined : before + m.data);
    at.delta.set(m.serial, [id, texts.get(id)]);
  } });
  const full = await reader(t, [c], { full: true,
    saw: (_, m) => at.full.set(m.serial, [header(m, 'message_serial'), m.data]) });
  const messages = await many(4, async (i) => (await create(t.port, A, c, `${i}`)).message_serial);
  const gets = new Map();
  await many(160, async (i) => {
    const kind = i % 20 === 7 ? 'update' : i % 40 === 9 ? 'delete' : 'append';
    await mutate(t.port, A, c, messages[i % 4], kind, kind === 'delete' ? { clear_fields: ['data'] }
      : { data: `<${i}>` });
    const m = await read_message(t.port, A, c, messages[i % 4]);
    gets.set(m.delivery_serial, [m.message_serial, m.data]);
  });
  await delta.reach(c, 164);
  await full.reach(c, 164);
  const { messages: stored } = await read_channel(t.port, A, c);
  for (const [id, { versions, item }] of stored) {
    fold(versions, (v, state) => at.stored.set(v.delivery_serial, [id, state.data]));
    assert.equal(delta.view(c).messages.get(id).data, item.data);
    assert.equal(full.view(c).messages.get(id).data, item.data);
  }
  assert.equal(at.stored.size, 164);
  const in_order = (map) => [...map].sort((a, b) => a[0] - b[0]);
  for (const mode of ['full', 'delta']) {
    assert.deepEqual(in_order(at[mode]), in_order(at.stored), mode);
  }
  for (const [serial, seen] of gets) assert.deepEqual(seen, at.delta.get(serial));
});


/* HTTP is signed with a time, so what reaches a server whose clock is wrong are its sockets. */
s.test('a clock ten years ahead, or an hour behind, for a while: nothing is lost for good',
  async (t) => {
    const [clock, c] = [jumping_clock(t), 'private-leaps'];
    const lives = new Lives(t);
    await lives.start({ env: clock.env });
    const key = { message_id: 'once' };
    const { message_serial } = await create(lives.port, A, c, 'before', key);
    const ws = await v2(t, { port: lives.port, app: A });
    await ws.subscribe(c);
    const rewound = async () => {
      const late = await v2(t, { port: lives.port, app: A });
      await late.subscribe(c, { rewind: 10 });
      const done = await late.next((m) => m.event === 'sockudo:rewind_complete');
      late.destroy();
      return data_of(done).historical_count;
    };
    const counts = [];
    for (const seconds of [315360000, 0, -3600, 0]) {
      clock.shift(seconds);
      ws.send({ event: 'client-said', channel: c, data: { seconds } });
      await eventually(async () => (await rewound()) > counts.length + 1, 'the client event');
      counts.push(await rewound());
    }
    assert.deepEqual(counts, [2, 3, 4, 5]);
    const { rows } = await read_channel(lives.port, A, c);
    assert.equal(rows.length, 5);
    for (const row of rows) {
      const off_ms = row.published_at_ms - Date.now();
      assert.ok(off_ms < 3600000, `stamped ${off_ms} ms ahead`);
    }
    const again = await create(lives.port, A, c, 'before', key);
    assert.equal(again.message_serial, message_serial);
    await mutate(lives.port, A, c, message_serial, 'append', { data: ' and after' });
    const now = await read_message(lives.port, A, c, message_serial);
    assert.equal(now.data, 'before and after');
    await lives.stop();
  });

s.test('a message that a wrong clock has hidden can be changed again', async (t) => {
  const clock = jumping_clock(t);
  const lives = new Lives(t, { ...mem_config,
    versioned_messages: { enabled: true, retention_window_seconds: 300 } });
  await lives.start({ env: clock.env });
  const { message_serial } = await create(lives.port, A, 'hidden', 'there');
  const url = `${message_path('hidden', message_serial)}/append`;
  const append = async () => (await t.api(A, 'POST', url, { body: { data: '!' },
                                                            port: lives.port })).status;
  clock.shift(500);
  await eventually(async () => (await append()) === 404, 'it is too old');
  clock.shift(0);
  await eventually(async () => (await append()) === 200, 'it is young again');
  await lives.stop();
});

s.test('a message lives as long as its newest version, whatever its create\'s age', async (t) => {
  const clock = jumping_clock(t);
  const lives = new Lives(t, { ...mem_config,
    versioned_messages: { enabled: true, retention_window_seconds: 300 } });
  await lives.start({ env: clock.env });
  const { message_serial: m } = await create(lives.port, A, 'aged', 'as it was');
  clock.shift(200);
  const edit = { data: 'as it is', op_id: 'edit' };
  const { version_serial } = await mutate(lives.port, A, 'aged', m, 'update', edit);
  const look = async () => {
    const path = message_path('aged', m);
    const get = (rest) => t.api(A, 'GET', `${path}${rest}`, { port: lives.port });
    const [one, all] = [await get(''), await get('/versions')];
    const rows = await t.api(A, 'GET', '/channels/aged/history', { port: lives.port });
    return [one.json.item?.data ?? one.status,
            all.json.items?.map((v) => [v.action, v.data]) ?? all.status,
            rows.json.items.map((row) => [row.operation_kind, row.message.data])];
  };
  clock.shift(400);                      /* the create is older than 300 s, the edit is not */
  const kept = ['as it is', [['update', 'as it is']], [['message.update', 'as it is']]];
  assert.deepEqual(await look(), kept);
  const again = await mutate(lives.port, A, 'aged', m, 'update', edit);
  assert.deepEqual([again.status, again.version_serial], ['duplicate', version_serial]);
  await lives.restart({ env: clock.env });
  assert.deepEqual(await look(), kept);
  assert.equal((await mutate(lives.port, A, 'aged', m, 'update', edit)).status, 'duplicate');
  clock.shift(600);                      /* now the edit is too old as well: the row is raw */
  const gone = [404, 404, [['message.create', 'as it was']]];
  assert.deepEqual(await look(), gone);
  const append = await t.api(A, 'POST', `${message_path('aged', m)}/append`,
                             { body: { data: '!' }, port: lives.port });
  assert.equal(append.status, 404, append.text);
  await lives.restart({ env: clock.env });
  assert.deepEqual(await look(), gone);
  await lives.stop();
});

s.test('messages of different channels share no serial, and their frames no message_id',
  async (t) => {
    const channels = [t.name(), t.name()];
    const w = await v2(t);
    for (const c of channels) await w.subscribe(c);
    const r = await send(t, '/events', { name: 'n', data: '', channels, info: 'user_count' });
    const serials = channels.map((c) => r.json.channels[c].message_serial);
    assert.notEqual(serials[0], serials[1]);
    /* Clients drop what has a message_id that they have seen, on whatever channel. */
    await many(60, (i) => mutate(t.port, A, channels[i % 2], serials[i % 2], 'append',
                                 { data: '.' }));
    const ids = new Set();
    for (let i = 0; i < 60; i++) {
      ids.add((await w.next((m) => m.event.startsWith('sockudo:message.'))).message_id);
    }
    assert.equal(ids.size, 60);
  });
