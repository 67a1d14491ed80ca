/* v2_return.mjs - clients that come back: to their own channel, to messages that are being written,
 * many at a time; and what the ring keeps for them.
 *
 * Source   spec/protocol-v2.md 3, 6; spec/messages-and-history.md 6; spec/settled.md 33, 34, 37.
 */
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { user_auth, user_channel } from '../clients.mjs';
import { app_entry } from '../apps.mjs';
import { Lives, mem, mem_config } from '../memory.mjs';
import { metric } from '../metrics.mjs';
import { create, mutate } from '../stored.mjs';
import { OP, frame } from '../ws_raw.mjs';
import { SUCCEEDED, expect_nothing_v2, flush_v2, join_v2, open_v2, sign_in_v2,
         subscribe_v2 } from '../v2_raw.mjs';

const app = mem.app;
const RING = 3;
const COLD_BYTES = 100000;
const s = suite('v2 return', { parallel: 8, config: { ...mem_config,
  history: { ...mem_config.history, cold_replay_max_bytes: COLD_BYTES },
  connection_recovery: { enabled: true, max_buffer_size: RING } } });
const SUCCESS = 'sockudo:resume_success';

const resume = (positions) => ({ event: 'sockudo:resume',
                                 data: { channel_positions: positions } });
const in_one_write = (ws, messages) =>
  ws.write(Buffer.concat(messages.map((m) => frame(OP.TEXT, JSON.stringify(m)))));
const sign_in = (ws, id) => {
  const user_data = JSON.stringify({ id });
  return { event: 'sockudo:signin',
           data: { auth: user_auth(app, ws.socket_id, user_data), user_data } };
};
const subscribe = (channel, more = {}) =>
  ({ event: 'sockudo:subscribe', data: { channel, auth: '', ...more } });

async function until_aggregate(ws) {
  const before = [];
  for (;;) {
    const m = await ws.next();
    if (m.event === SUCCESS) return { before, ...JSON.parse(m.data) };
    before.push(m);
  }
}

/* ---- a user's own channel ---- */

/* A user who was here and has missed one event; another subscriber keeps the channel alive. */
async function missed_one(t) {
  const id = t.name('user-'), channel = user_channel(id);
  const ws = await open_v2(t, app);
  await sign_in_v2(ws, { id });
  await join_v2(ws, channel);
  await t.publish(app, channel, 'ev', '1');
  const { stream_id, serial } = await ws.next();
  assert.equal(serial, 1);
  await t.publish(app, channel, 'ev', '2');
  assert.equal((await ws.next()).serial, 2);
  return { id, channel, stream_id };
}

for (const [what, come_back] of Object.entries({
  'resume, sign-in, subscribe, one after the other': async (ws, r, i, u) => {
    ws.send(r);
    ws.send(i);
    await ws.until('sockudo:signin_success');
    ws.send(u);
  },
  'sign-in, resume, subscribe, one after the other': async (ws, r, i, u) => {
    ws.send(i);
    await ws.until('sockudo:signin_success');
    ws.send(r);
    await expect_nothing_v2(ws);
    ws.send(u);
  },
  'resume, sign-in, subscribe, in one write': (ws, r, i, u) => in_one_write(ws, [r, i, u]),
  'sign-in, subscribe, resume, in one write': (ws, r, i, u) => in_one_write(ws, [i, u, r]),
})) {
  s.test(`a user's own channel: ${what}: the missed event is replayed at once`, async (t) => {
    const { id, channel, stream_id } = await missed_one(t);
    const ws = await open_v2(t, app);
    await come_back(ws, resume({ [channel]: { stream_id, serial: 1 } }), sign_in(ws, id),
                    subscribe(channel));
    const { before, recovered, failed } = await until_aggregate(ws);
    const seen = before.filter((m) => m.event !== 'sockudo:signin_success');
    assert.deepEqual(seen.map((m) => [m.event, m.serial]), [[SUCCEEDED, 2], ['ev', 2]]);
    assert.deepEqual([failed, recovered.length, recovered[0].replayed], [[], 1, 1]);
    await t.publish(app, channel, 'ev', '3');
    const later = [];
    while (later.at(-1)?.event !== 'ev') {
      const m = await ws.next();
      if (m.event !== 'sockudo:signin_success') later.push(m);
    }
    assert.deepEqual(later.map((m) => [m.event, m.serial]), [['ev', 3]]);
    await expect_nothing_v2(ws);
  });
}
for (const signed_in of ['long before', 'in the same write']) {
  s.test(`a user's own channel: a subscribe behind the aggregate, sign-in ${signed_in}`,
    async (t) => {
    const { id, channel, stream_id } = await missed_one(t);
    const ws = await open_v2(t, app);
    const at_once = signed_in !== 'long before';
    if (!at_once) await sign_in_v2(ws, { id });
    ws.send(resume({ [channel]: { stream_id, serial: 1 } }));
    const { failed } = await until_aggregate(ws);
    assert.deepEqual(failed.map((f) => f.reason), ['not_subscribed']);
    in_one_write(ws, at_once ? [sign_in(ws, id), subscribe(channel)] : [subscribe(channel)]);
    const told = [];
    while (told.length < 2) {
      const m = await ws.next();
      if (m.event !== 'sockudo:signin_success') told.push(m);
    }
    assert.deepEqual(told.map((m) => m.event).sort(), ['sockudo:resume_failed', SUCCEEDED]);
    const failure = told.find((m) => m.event !== SUCCEEDED);
    assert.equal(JSON.parse(failure.data).reason, 'not_subscribed');
    await t.publish(app, channel, 'ev', '3');
    assert.equal((await ws.next()).serial, 3, 'the gate is open');
  });
}
s.test("a rewind of a user's own channel while the sign-in is under way", async (t) => {
  const { id, channel } = await missed_one(t);
  const ws = await open_v2(t, app);
  in_one_write(ws, [sign_in(ws, id), subscribe(channel, { rewind: 1 })]);
  const seen = [];
  while (seen.at(-1)?.event !== 'sockudo:rewind_complete') seen.push(await ws.next());
  const of_channel = seen.filter((m) => m.event !== 'sockudo:signin_success');
  assert.deepEqual(of_channel.map((m) => [m.event, m.data?.historical_count]),
                   [[SUCCEEDED, undefined], ['sockudo:message.create', undefined],
                    ['sockudo:rewind_complete', 1]]);
});

/* ---- fragments that repeat the text so far ---- */

for (const [what, [first, changes]] of Object.entries({
  'one that is the text and more': ['a', ['ab', 'aabX', 'q']],
  'behind an empty create': ['', ['a', 'b', 'abX', 'ab', 'q']],
  'one that only begins as the create does': ['hel', ['lo', 'help', 'hellohelp!', 'x']],
  'in other escapes, and behind an update': ['"\n', ['x', { data: 'é\t' }, 'é', 'é\té ', 'z']],
  'behind a deletion of the data': ['k', ['l', { delete: true }, 'm', 'mm', 'mmmn']],
})) {
  s.test(`a cold replay of appends is what was sent live: ${what}`, async (t) => {
    const channel = t.name();
    const live = await open_v2(t, app);
    const { stream_id } = await join_v2(live, channel);
    const { message_serial } = await create(t.port, app, channel, first);
    for (const c of changes) {
      const [action, body] = typeof c === 'string' ? ['append', { data: c }]
        : c.delete ? ['delete', { clear_fields: ['data'] }] : ['update', c];
      await mutate(t.port, app, channel, message_serial, action, body);
    }
    await live.next();                   // the create
    const sent = [];
    while (sent.length < changes.length) sent.push(await live.next());
    assert.deepEqual(await flush_v2(live), []);
    for (let i = 0; i <= RING; i++) await t.publish(app, channel, 'other', '');
    for (let serial = 0; serial <= sent.length; serial++) {
      const ws = await open_v2(t, app);
      in_one_write(ws, [resume({ [channel]: { stream_id, serial } }), subscribe(channel)]);
      const { before, recovered } = await until_aggregate(ws);
      assert.equal(recovered[0].source, 'cold');
      const replayed = before.filter((m) => /message\.(append|update|delete)/.test(m.event));
      const told = (m) => [m.event, m.serial, m.data, m.message_id, m.extras];
      assert.deepEqual(replayed.map(told), sent.slice(Math.max(serial - 1, 0)).map(told));
      ws.destroy();
    }
  });
}

/* ---- a rewind, and behind it a resume ---- */

for (const query of ['', 'append_mode=full']) {
  for (const [source, others] of [['hot', 0], ['cold', RING]]) {
    s.test(`what a rewind has shown is not replayed: ${source}, ${query}`, async (t) => {
      const channel = t.name();
      const first = await open_v2(t, app);
      const { stream_id } = await join_v2(first, channel);
      const [a, b] = [await create(t.port, app, channel, 'a'),
                      await create(t.port, app, channel, 'b')];
      for (const { message_serial } of [a, b, b]) {
        await mutate(t.port, app, channel, message_serial, 'append', { data: '+' });
      }
      for (let i = 0; i < others; i++) await t.publish(app, channel, 'other', 'c');
      const ws = await open_v2(t, app, query);
      await join_v2(ws, channel, { rewind: others + 1 });
      const shown = [];
      while (shown.at(-1)?.event !== 'sockudo:rewind_complete') shown.push(await ws.next());
      assert.deepEqual(shown.slice(0, -1).map((m) => m.data), ['b++', ...Array(others).fill('c')]);
      ws.send(resume({ [channel]: { stream_id, serial: 2 } }));
      const { before, recovered } = await until_aggregate(ws);
      assert.deepEqual(before.map((m) => [m.serial, m.extras.headers.sockudo_message_serial]),
                       [[3, a.message_serial]]);
      assert.deepEqual([recovered[0].source, recovered[0].replayed, recovered[0].position.serial],
                       [source, 1, 5 + others]);
      await mutate(t.port, app, channel, b.message_serial, 'append', { data: '!' });
      const live = await ws.next();
      assert.deepEqual([live.serial, live.data], [6 + others, query ? 'b++!' : '!']);
    });
  }
}

/* ---- bounds ---- */

s.test('many sockets that subscribe at once: nobody is refused for a full mailbox', async (t) => {
  const server = await t.start({ config: mem_config });
  const sockets = [], options = { port: server.port };
  for (let i = 0; i < 60 * t.shards; i++) sockets.push(await open_v2(t, app, '', options));
  const name = t.name();
  process.kill(server.pid, 'SIGSTOP');       /* so that all of it is there at once */
  for (const [i, ws] of sockets.entries()) {
    in_one_write(ws, Array.from({ length: 100 }, (_, k) => subscribe(`${name}-${i}-${k}`)));
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  process.kill(server.pid, 'SIGCONT');
  for (const ws of sockets) {
    for (let k = 0; k < 100; k++) assert.equal((await ws.next(30000)).event, SUCCEEDED);
  }
});
s.test('whole texts that are read at a time: small, large, and too much of them', async (t) => {
  const PART = COLD_BYTES / 8, COUNT = 20;
  const lives = new Lives(t, { ...mem_config,
    history: { ...mem_config.history, cold_replay_max_bytes: COLD_BYTES } });
  await lives.start();
  const channel = t.name(), texts = new Map();
  const open = (query) => open_v2(t, app, query, { port: lives.port });
  const { stream_id } = await join_v2(await open(), channel);
  const write = async (bytes) => {
    const { message_serial: id } = await create(lives.port, app, channel, '<');
    for (const text of ['x'.repeat(bytes), '>']) {
      await mutate(lives.port, app, channel, id, 'append', { data: text });
    }
    texts.set(id, `<${'x'.repeat(bytes)}>`);
  };
  const back = async (serial) => {
    await lives.restart();               /* nothing is in memory */
    const ws = await open('append_mode=full');
    in_one_write(ws, [resume({ [channel]: { stream_id, serial } }), subscribe(channel)]);
    return until_aggregate(ws);
  };
  for (let i = 0; i < COUNT; i++) await write(i % 10 === 3 ? 1.5 * PART : 50 * i + 1);
  const { before, recovered } = await back(0);
  assert.equal(recovered[0]?.source, 'cold');
  const told = new Map();
  for (const m of before) {
    const id = m.extras?.headers?.sockudo_message_serial;
    if (id) told.set(id, m.data);
  }
  assert.deepEqual(told, texts);
  for (let i = 0; i < 2; i++) await write(3 * PART);
  for (const id of texts.keys()) {         /* what was missed fits, and each text; not all */
    await mutate(lives.port, app, channel, id, 'append', { data: '!' });
  }
  const { failed } = await back(3 * texts.size);
  assert.equal(failed[0]?.reason, 'recovery_window_exceeded');
});
s.test('a ring keeps no more bytes than a cold replay may have', async (t) => {
  const server = await t.start({ config: { ...mem_config,
    history: { ...mem_config.history, cold_replay_max_bytes: COLD_BYTES } } });
  const options = { port: server.port }, channel = t.name(), text = 'x'.repeat(9900);
  const { stream_id } = await join_v2(await open_v2(t, app, '', options), channel);
  for (let i = 0; i < 30; i++) await create(server.port, app, channel, text);
  assert.ok(await metric(server, 'sockudo_limit_hits_total', { limit: 'ring_bytes' }) >= 20);
  const back = async (serial) => {
    const ws = await open_v2(t, app, '', options);
    in_one_write(ws, [resume({ [channel]: { stream_id, serial } }), subscribe(channel)]);
    return until_aggregate(ws);
  };
  const near = await back(24);
  assert.deepEqual([near.recovered[0].source, near.recovered[0].replayed], ['hot', 6]);
  assert.equal((await back(10)).failed[0].reason, 'recovery_window_exceeded');
});
s.test('frames that have grown too old are not called available', async (t) => {
  const forgetful = app_entry('forgetful', { history: { enabled: false } });
  const server = await t.start({ config: { history: { enabled: true },
    connection_recovery: { enabled: true, buffer_ttl_seconds: 1 },
    app_manager: { array: { apps: [forgetful] } } } });
  const options = { port: server.port }, channel = t.name();
  const { stream_id } = await join_v2(await open_v2(t, forgetful, '', options), channel);
  for (let i = 0; i < 3; i++) {
    await t.api(forgetful, 'POST', '/events',
                { ...options, body: { name: 'ev', channel, data: '' } });
  }
  const told = await eventually(async () => {        /* the last of them misses: all have gone */
    const ws = await open_v2(t, forgetful, '', options);
    in_one_write(ws, [resume({ [channel]: { stream_id, serial: 2 } }), subscribe(channel)]);
    return (await until_aggregate(ws)).failed[0];
  }, 'too old');
  assert.equal(told.reason, 'hot_replay_expired_and_durable_history_disabled');
  assert.deepEqual([told.oldest_available_serial, told.newest_available_serial], [null, 3]);
});
