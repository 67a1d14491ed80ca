/* inv_history.mjs - invariants 17 to 22: rows, pages, cursors, retention, resets.
 *
 * Source   spec/messages-and-history.md 7, 12.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, is_api_error } from '../expect.mjs';
import { Lives, flip, mem, mem_config, v2 } from '../memory.mjs';
import { api } from '../http_raw.mjs';
import { create, mutate, path_of, post, read, read_channel, read_rows,
         read_state } from '../stored.mjs';
import { V2, data_of } from '../v2_client.mjs';
import { scrape } from '../metrics.mjs';

const s = suite('inv history', { config: mem_config, parallel: 6 });
const A = mem.app;
const many = (n, fn) => Promise.all(Array.from({ length: n }, (_, i) => fn(i)));
const page_of = (t, channel, query, app = A) =>
  t.api(app, 'GET', `${path_of(channel)}/history`, { query });
const reset = (port, channel, app = A) => post(port, app, `${path_of(channel)}/history/reset`,
  { confirm_channel: channel, confirm_operation: 'reset', reason: 'a test' });
const purge = (port, channel, more) => post(port, A, `${path_of(channel)}/history/purge`,
  { confirm_channel: channel, confirm_operation: 'purge', reason: 'a test', ...more });
async function fill(port, channel, count, app = A) {
  const acks = [];
  for (let i = 0; i < count; i++) acks.push(await create(port, app, channel, `${i}`));
  return acks;
}

s.test('invariant 17: history serials rise, purge never lowers the next, reset begins a new stream',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const { port } = lives;
    await many(40, (i) => create(port, A, 'rows', `${i}`));
    const { rows, stream_id } = await read_channel(port, A, 'rows');
    rows.forEach((row, i) => assert.equal(row.serial, i + 1));
    for (const [how, next, first] of [
      [{ mode: 'before_serial', before_serial: 11 }, 41, 11],
      [{ mode: 'before_time_ms', before_time_ms: rows[20].published_at_ms }, 41, null],
      [{ mode: 'all' }, 41, null]]) {
      const r = await purge(port, 'rows', how);
      const state = await read_state(port, A, 'rows');
      assert.equal(state.next_serial, next, JSON.stringify(how));
      assert.equal(state.stream_id, stream_id, 'purge keeps the stream');
      assert.deepEqual(r.stream, state);
      if (first) assert.equal((await read_rows(port, A, 'rows')).items[0].serial, first);
    }
    assert.equal((await create(port, A, 'rows', 'next')).history_serial, 41);
    await lives.restart();
    assert.equal((await create(lives.port, A, 'rows', 'after')).history_serial, 42);
    const r = await reset(lives.port, 'rows');
    assert.equal(r.previous_stream_id, stream_id);
    assert.notEqual(r.new_stream_id, stream_id);
    assert.equal(r.purged_messages, 2);
    assert.equal((await read_state(lives.port, A, 'rows')).next_serial, 1);
    assert.equal((await create(lives.port, A, 'rows', 'new')).history_serial, 1);
    await lives.restart();
    const { items } = await read_rows(lives.port, A, 'rows');
    assert.deepEqual(items.map((i) => [i.serial, i.stream_id]), [[1, r.new_stream_id]]);
    assert.equal((await create(lives.port, A, 'rows', 'new')).history_serial, 2);
    await lives.stop();
  });

/* The position of one channel, resumed by a new socket: the aggregate and the serials before it. */
async function resumed(t, port, app, channel, position) {
  const ws = await v2(t, { port, app });
  ws.send(V2.resume_frame({ [channel]: position }));
  ws.send(ws.subscribe_frame(channel));
  const serials = [];
  for (;;) {
    const m = await ws.next();
    if (m.event === 'sockudo:resume_success') return { serials, ...data_of(m) };
    if (m.serial > position.serial) serials.push(m.serial);
  }
}
s.test('a reset ends no delivery stream: replayed over it, at once and after a restart',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const first = await v2(t, { port: lives.port });
    const { stream_id } = await first.subscribe('over');
    const [one] = await fill(lives.port, 'over', 3);
    await reset(lives.port, 'over');
    await mutate(lives.port, A, 'over', one.message_serial, 'append', { data: '!' });
    await create(lives.port, A, 'over', 'new');
    for (const source of ['hot', 'cold']) {
      const r = await resumed(t, lives.port, A, 'over', { stream_id, serial: 1 });
      assert.deepEqual([r.failed, r.serials], [[], [2, 3, 4, 5]]);
      assert.equal(r.recovered[0].source, source);
      if (source === 'hot') await lives.restart();
    }
    await lives.stop();
  });

s.test('invariant 18: pages show every row once while publishes arrive', async (t) => {
  const c = t.name();
  const before = await many(60, (i) => create(t.port, A, c, `old ${i}`));
  let over = false;
  let published = 60;
  const publisher = (async () => {
    while (!over) { await create(t.port, A, c, 'new'); published += 1; }
  })();
  for (let round = 0; round < 2; round++) {     /* the more rows, the longer: few rounds */
    for (const limit of [1, 7, 25]) {
      const newest = (await read_state(t.port, A, c)).next_serial - 1;
      const down = (await read_rows(t.port, A, c, { limit, direction: 'newest_first',
        query: limit === 1 ? { start_serial: String(newest - 20) } : {} })).items;
      const serials = down.map((r) => r.serial);
      assert.ok(serials[0] >= newest);
      serials.forEach((v, i) => assert.equal(v, serials[0] - i, 'newest first: each once'));
      assert.equal(serials.at(-1), limit === 1 ? newest - 20 : 1);
      const bounds = { start_serial: '5', ...(limit === 1 ? { end_serial: '40' } : {}) };
      const up = (await read_rows(t.port, A, c, { limit, query: bounds })).items
        .map((r) => r.serial);
      up.forEach((v, i) => assert.equal(v, 5 + i, 'oldest first: each once'));
      assert.ok(limit === 1 ? up.at(-1) === 40 : up.at(-1) >= newest);
    }
  }
  over = true;
  await publisher;
  assert.ok(published > before.length + 16, 'publishes did arrive');
  assert.equal((await read_rows(t.port, A, c)).items.length, published);
});

s.test('invariant 19: a cursor is good for its question only', async (t) => {
  const c = t.name();
  await fill(t.port, c, 12);
  await fill(t.port, c, 12, mem.other);
  await fill(t.port, `${c}b`, 12);
  const { next_cursor: cursor } = (await page_of(t, c, { limit: '3' })).json;
  const q = { limit: '4', cursor };
  assert.equal((await page_of(t, c, q)).status, 200, 'limit may change');
  const refused = [
    [c, { ...q, direction: 'oldest_first' }, A, /direction does not match/],
    [c, { ...q, start_serial: '1' }, A, /bounds do not match/],
    [c, { ...q, end_time_ms: '9999999999999' }, A, /bounds do not match/],
    [`${c}b`, q, A, /channel does not match/], [c, q, mem.other, /app does not match/],
    [c, { ...q, cursor: `${cursor}x` }, A, /Invalid history cursor|does not match/],
  ];
  for (const [channel, query, app, text] of refused) {
    is_api_error(await page_of(t, channel, query, app), 400, 'invalid_input', text);
  }
  const up = (await page_of(t, c, { limit: '3', direction: 'oldest_first' })).json.next_cursor;
  await purge(t.port, c, { mode: 'before_serial', before_serial: 6 });
  is_api_error(await page_of(t, c, { limit: '3', direction: 'oldest_first', cursor: up }), 400,
               'invalid_input', /Expired history cursor: cursor points before retained history/);
  await reset(t.port, c);
  is_api_error(await page_of(t, c, q), 400, 'invalid_input',
               /Expired history cursor: channel stream changed/);
});

s.test('invariant 20: a page is complete only when nothing of its range is missing', async (t) => {
  const c = t.name();
  await fill(t.port, c, 30, mem.few);
  const seen = await eventually(async () => {
    const { json } = await page_of(t, c, {}, mem.few);
    const whole = json.items.length === 30;
    assert.equal(json.continuity.complete, whole, JSON.stringify(json.continuity));
    return json.items.length === 10 && json;
  }, 'the rows over the limit to go');
  const { continuity } = seen;
  assert.deepEqual([continuity.oldest_available_serial, continuity.newest_available_serial,
                    continuity.retained_messages, continuity.truncated_by_retention],
                   [21, 30, 10, true]);
  const is_complete = async (query, channel = c, app = mem.few) =>
    (await page_of(t, channel, query, app)).json.continuity.complete;
  assert.equal(await is_complete({ start_serial: '20' }), false, 'row 20 is gone');
  assert.equal(await is_complete({ start_serial: '21' }), true, 'all of 21 and later are here');
  assert.equal(await is_complete({ start_serial: '21', limit: '9' }), false, 'more pages follow');
  assert.equal(await is_complete({ start_serial: '21', end_serial: '25' }), true);
  assert.equal(await is_complete({ start_time_ms: '1' }), false);
  const d = t.name();
  assert.equal(await is_complete({}, d, A), true, 'an unknown channel');
  await fill(t.port, d, 5);
  assert.equal(await is_complete({}, d, A), true);
  await purge(t.port, d, { mode: 'before_serial', before_serial: 3 });
  assert.equal(await is_complete({}, d, A), false, 'purged rows are missing');
  await purge(t.port, d, { mode: 'all' });
  assert.equal(await is_complete({}, d, A), false, 'all rows are missing');
  assert.equal(await is_complete({ end_serial: '3' }, d, A), false);
  assert.equal(await is_complete({ start_time_ms: `${Date.now() - 60000}` }, d, A), false);
  assert.equal(await is_complete({ start_serial: '6' }, d, A), true, 'there never was a row 6');
  assert.equal(await is_complete({ start_time_ms: `${Date.now() + 60000}` }, d, A), true);
  const w = await v2(t);
  await w.subscribe(d, { rewind: 2 });
  const { data } = await w.next((m) => m.event === 'sockudo:rewind_complete');
  assert.deepEqual(data, { historical_count: 0, live_count: 0, complete: false,
                           truncated_by_retention: true, truncated_by_limit: false });
  await reset(t.port, d);
  assert.equal(await is_complete({}, d, A), true, 'a new stream');
});

s.test('invariant 21: history shows each message once, as it is now', async (t) => {
  const c = t.name();
  const [a, b, d] = await fill(t.port, c, 3);
  await mutate(t.port, A, c, a.message_serial, 'append', { data: '+' });
  await mutate(t.port, A, c, b.message_serial, 'update', { data: 'b', name: 'other' });
  await mutate(t.port, A, c, d.message_serial, 'delete', { clear_fields: ['data'] });
  await mutate(t.port, A, c, a.message_serial, 'append', { data: '+' });
  const want = [['append', '0++', 'note'], ['update', 'b', 'other'], ['delete', undefined, 'note']];
  const check = async (port) => {
    const { items } = await read_rows(port, A, c);
    assert.deepEqual(items.map(({ message: m }) => [m.action, m.data, m.name]), want);
    assert.ok(!('data' in items[2].message), 'cleared data is absent');
    const ws = await v2(t, { port });
    await ws.subscribe(c);
    const over_ws = await ws.history_all(c);
    assert.deepEqual(over_ws.map(({ message: m }) => [m.action, m.data, m.name]), want);
  };
  await check(t.port);
});

s.test('invariant 22: damaged history is never served as if it were whole, until a reset',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const B = mem.brief;
    const first = await v2(t, { port: lives.port, app: B });
    const { stream_id } = await first.subscribe('torn');
    await fill(lives.port, 'torn', 5, B);
    await create(lives.port, B, 'torn', 'MARK-OF-THE-TORN-ONE');
    await fill(lives.port, 'torn', 5, B);
    /* A server does not start on a damaged wal: what is torn must have left it for a segment. */
    const long = 'x'.repeat(4000);
    await many(60, () => create(lives.port, B, 'torn', long));
    await many(200, (i) => create(lives.port, B, `other-${i % 7}`, long));
    await fill(lives.port, 'sound', 5, B);
    await lives.stop();
    /* The newest records are read again at the start for their keys: let these be too old. */
    await new Promise((resolve) => setTimeout(resolve, 1200));
    assert.ok(flip(lives.server.data_dir, 'MARK-OF-THE-TORN-ONE') > 0, 'the record is in a file');
    await lives.start();
    const damaged = async () => {
      for (const query of [{}, { direction: 'oldest_first' }, { limit: '7' }]) {
        const r = await api(lives.port, B, 'GET', `${path_of('torn')}/history`, { query });
        if (r.status === 200) assert.equal(r.json.continuity.complete, false, r.text);
        else is_api_error(r, 500, 'internal_error', 'Internal server error');
      }
      await refused();
    const back = await v2(t, { port: lives.port, app: B });
    await back.subscribe('torn', { rewind: 100 });
    const done = await back.next((m) => m.event === 'sockudo:rewind_complete');
    assert.equal(data_of(done).complete, false, JSON.stringify(done));
    };
    const refused = async () => {
      for (const serial of [2, 8]) {         /* behind the torn one all could be read */
        const { recovered, failed } = await resumed(t, lives.port, B, 'torn',
                                                    { stream_id, serial });
        assert.deepEqual(recovered, []);
        assert.equal(failed[0].code, 'persistence_unavailable', JSON.stringify(failed));
      }
    };
    await refused();
    await damaged();
    await create(lives.port, B, 'torn', 'publishing goes on');
    await damaged();
    const state = await read(lives.port, B, `${path_of('torn')}/history/state`);
    assert.equal(state.channel, 'torn');
    assert.equal((await read_rows(lives.port, B, 'sound')).items.length, 5, 'others are whole');
    await reset(lives.port, 'torn', B);
    await create(lives.port, B, 'torn', 'anew');
    const { items, last } = await read_rows(lives.port, B, 'torn');
    assert.deepEqual(items.map((i) => i.message.data), ['anew']);
    assert.equal(last.continuity.complete, true);
    const { failed } = await resumed(t, lives.port, B, 'torn', { stream_id, serial: 2 });
    assert.equal(failed[0].code, 'position_expired', JSON.stringify(failed));
    await lives.stop();
  });

s.test('a channel of which nothing is left is forgotten: another stream, or the same while heard',
  async (t) => {
    const lives = new Lives(t, { ...mem_config,
      history: { ...mem_config.history, retention_window_seconds: 1, forget_after_seconds: 1 },
      connection_recovery: { enabled: true, buffer_ttl_seconds: 1 } });
    const { brief } = mem;
    const forgotten = async () =>
      (await scrape(lives.server)).series.get('sockudo_store_forgotten_total{}');
    await lives.start();
    const ear = await v2(t, { port: lives.port, app: brief });
    const { stream_id: heard } = await ear.subscribe('heard');
    await fill(lives.port, 'heard', 3, brief);
    await fill(lives.port, 'gone', 3, brief);
    const before = await read_state(lives.port, brief, 'gone');
    await eventually(async () => await forgotten() === 1, 'one of them is forgotten');
    const state = await read_state(lives.port, brief, 'gone');
    const never = await read_state(lives.port, brief, 'never');
    assert.notEqual(state.stream_id, before.stream_id);
    const unnamed = (text, id) => JSON.parse(JSON.stringify(text).replaceAll(id, 'its own'));
    assert.deepEqual(unnamed(state, state.stream_id), unnamed(never, never.stream_id));
    const { last } = await read_rows(lives.port, brief, 'gone');
    assert.equal(last.continuity.complete, true);
    const { failed } = await resumed(t, lives.port, brief, 'gone',
                                     { stream_id: before.stream_id, serial: 3 });
    assert.equal(failed[0].code, 'stream_reset', JSON.stringify(failed));
    assert.equal((await create(lives.port, brief, 'gone', 'again')).history_serial, 1);
    const { rows, stream_id } = await read_channel(lives.port, brief, 'gone');
    assert.equal(stream_id, state.stream_id);
    assert.ok(rows.every((row) => row.serial === 1));
    assert.equal((await create(lives.port, brief, 'heard', 'still')).history_serial, 4);
    const next = await ear.next((m) => m.channel === 'heard' && m.data === 'still');
    assert.deepEqual([next.stream_id, next.serial], [heard, 4]);
    lives.config.history.forget_after_seconds = 3600;    /* however long the restart takes */
    await lives.restart();
    assert.equal((await read_state(lives.port, brief, 'gone')).stream_id, state.stream_id);
    await lives.stop();
  });
