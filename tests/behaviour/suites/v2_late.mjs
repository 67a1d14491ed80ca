/* v2_late.mjs - resumes that come behind the subscribe, read by a client that takes frames as they
 * come.
 *
 * Shape    Reader is the simplest client there is: it drops a message_id that it has seen, adds
 *          fragments to what it has, and takes every other text for the whole. It does not sort.
 * Source   spec/protocol-v2.md 6, 14, 15.1; spec/settled.md 33, 36, 37.
 */
import { suite } from '../runner.mjs';
import { assert } from '../expect.mjs';
import { mem, mem_config } from '../memory.mjs';
import { create, mutate, read_message } from '../stored.mjs';
import { header } from '../v2_client.mjs';
import { OP, frame } from '../ws_raw.mjs';
import { UUID, expect_nothing_v2, join_v2, open_v2 } from '../v2_raw.mjs';

const app = mem.app;
const RING = 16;
const s = suite('v2 late resume', { parallel: 8, config: { ...mem_config,
  connection_recovery: { enabled: true, max_buffer_size: RING } } });
const SUCCESS = 'sockudo:resume_success';

const resume = (channel, position) => ({ event: 'sockudo:resume',
                                         data: { channel_positions: { [channel]: position } } });
const subscribe = (channel) => ({ event: 'sockudo:subscribe', data: { channel, auth: '' } });
const in_one_write = (ws, messages) =>
  ws.write(Buffer.concat(messages.map((m) => frame(OP.TEXT, JSON.stringify(m)))));

class Reader {
  texts = new Map();
  seen = new Set();
  position = null;
  constructor(full) { this.full = full; }
  take(m) {
    if (this.seen.has(m.message_id)) return;
    this.seen.add(m.message_id);
    if (m.serial !== undefined) this.position = { stream_id: m.stream_id, serial: m.serial };
    const id = header(m, 'message_serial'), known = this.texts.get(id);
    if (id === undefined) return;
    if (m.event !== 'sockudo:message.append' || this.full) this.texts.set(id, m.data);
    else if (known !== undefined) this.texts.set(id, known + m.data);
  }
}

async function until_aggregate(ws, reader) {
  const before = [];
  for (;;) {
    const m = await ws.next();
    if (m.event === SUCCESS) return { before, ...JSON.parse(m.data) };
    reader?.take(m);
    before.push(m);
  }
}

/* A channel, what is said of it, and a client that knows of two messages and goes away. */
async function left_behind(t, query) {
  const channel = t.name();
  const ws = await open_v2(t, app, query);
  await join_v2(ws, channel);
  const names = {};
  const say = async (name, action, body) => {
    if (action !== 'create') return mutate(t.port, app, channel, names[name], action, body);
    names[name] = (await create(t.port, app, channel, body.data)).message_serial;
  };
  const add = (name, data) => say(name, 'append', { data });
  const reader = new Reader(query !== '');
  for (const name of 'abefg') await say(name, 'create', { data: `<${name}` });
  for (let i = 0; i < 5; i++) reader.take(await ws.next());
  ws.destroy();
  return { channel, names, say, add, reader };
}
const position_of = (reader) => ({ ...reader.position });

for (const query of ['', 'append_mode=full']) {
  for (const [source, more] of [['hot', 0], ['cold', RING]]) {
    for (const [ring, many] of [['holds', 0], ['has lost', 2 * RING]]) {
      s.test(`what was changed before and behind the attach reads right: ${source}, `
        + `the ring ${ring} what is live, ${query}`, async (t) => {
        const { channel, names, say, add, reader } = await left_behind(t, query);
        const position = position_of(reader);
        for (const name of 'aabef') await add(name, '1');
        await say('d', 'create', { data: '<d' });
        await add('d', '1');
        for (let i = 0; i < more; i++) await t.publish(app, channel, 'other', '');
        const ws = await open_v2(t, app, query);
        const head = (await join_v2(ws, channel)).serial;
        for (let i = 0; i < many; i++) await t.publish(app, channel, 'other', '');
        for (const name of 'agd') await add(name, '2');
        await say('e', 'update', { data: '<e!' });
        await add('e', '2');
        await say('f', 'delete', { clear_fields: ['data'] });
        for (let i = 0; i < many + 6; i++) reader.take(await ws.next());
        ws.send(resume(channel, position));
        const { before, recovered } = await until_aggregate(ws, reader);
        const replay = before.filter((m) => m.serial !== undefined);
        const mends = before.filter((m) => m.serial === undefined);
        assert.ok(replay.every((m) => m.serial > position.serial && m.serial <= head));
        assert.deepEqual([recovered[0].source, recovered[0].replayed],
                         [many > 0 ? 'cold' : source, replay.length]);
        assert.deepEqual(before.slice(-mends.length), mends, 'mends come behind the replay');
        assert.deepEqual(mends.map((m) => [m.event, m.data]).sort(),
                         [['sockudo:message.delete', undefined],
                          ['sockudo:message.update', '<a112'], ['sockudo:message.update', '<d12'],
                          ['sockudo:message.update', '<e!2']]);
        assert.ok(mends.every((m) => m.stream_id === undefined && UUID.test(m.message_id)));
        await add('a', '3');
        reader.take(await ws.next());
        for (const [name, id] of Object.entries(names)) {
          const { data } = await read_message(t.port, app, channel, id);
          assert.equal(reader.texts.get(id), data, name);
        }
        await expect_nothing_v2(ws);
      });
    }
  }
}

s.test('what a resume has recovered is not replayed by a second one', async (t) => {
  const { channel, names, add, reader } = await left_behind(t, '');
  const position = position_of(reader);
  for (let i = 0; i < 3; i++) await add('a', `${i}`);
  for (const order of [(p, u) => [p, u], (p, u) => [u, p]]) {
    const ws = await open_v2(t, app);
    in_one_write(ws, order(resume(channel, position), subscribe(channel)));
    const { before: told } = await until_aggregate(ws);
    assert.deepEqual(told.slice(1).map((m) => m.data), ['0', '1', '2']);
    for (const [serial, missed] of [[0, 0], [1, 0], [-2, 2], [-2, 0], [-3, 1]]) {
      ws.send(resume(channel, { ...position, serial: position.serial + serial }));
      const { before, recovered } = await until_aggregate(ws);
      assert.equal(recovered[0].replayed, missed);
      assert.equal(before.length, missed, 'only what lies before the positions so far');
    }
    ws.destroy();
  }
  assert.equal((await read_message(t.port, app, channel, names.a)).data, '<a012');
});

for (const query of ['', 'append_mode=full']) {
  s.test(`at full speed, cut off and late again and again: the text is what is stored ${query}`,
    async (t) => {
    const { channel, names, add, reader } = await left_behind(t, query);
    const state = { over: false, count: 0 };
    const writers = Promise.all('abefg'.split('').map(async (name) => {
      while (!state.over) await add(name, `${state.count++},`);
    }));
    writers.catch(() => {});
    let ws, recovered = 0;
    for (let n = 0; n < 12; n++) {
      const position = position_of(reader);
      ws = await open_v2(t, app, query);
      await join_v2(ws, channel);
      for (let i = 0; i < 1 + 3 * n; i++) reader.take(await ws.next());
      ws.send(resume(channel, position));
      const r = await until_aggregate(ws, reader);
      assert.deepEqual(r.failed, []);
      recovered += r.recovered[0].replayed;
      while (reader.position.serial <= (r.recovered[0].position?.serial ?? 0)) {
        reader.take(await ws.next());
      }
      for (let i = 0; i < 40; i++) reader.take(await ws.next());
      if (n < 11) ws.destroy();
    }
    state.over = true;
    await writers;
    assert.ok(recovered > 0);
    const stored = new Map();
    for (const id of Object.values(names)) {
      stored.set(id, await read_message(t.port, app, channel, id));
    }
    const last = Math.max(...[...stored.values()].map((m) => m.delivery_serial));
    while (reader.position.serial < last) reader.take(await ws.next());
    for (const [name, id] of Object.entries(names)) {
      assert.equal(reader.texts.get(id), stored.get(id).data, name);
    }
  });
}
