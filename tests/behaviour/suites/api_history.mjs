/* api_history.mjs - history over HTTP and on the socket: pages, bounds, cursors, continuity, state,
 * reset, purge, texts of refusals.
 *
 * Source   spec/messages-and-history.md 7; spec/protocol-v2.md 8.
 */
import { suite } from '../runner.mjs';
import { assert, is_api_error, is_ok } from '../expect.mjs';
import { mem, mem_config, v2 } from '../memory.mjs';

const s = suite('api history', { config: mem_config });
const A = mem.app;
const get = (t, c, query = {}, app = A, rest = '') =>
  t.api(app, 'GET', `/channels/${encodeURIComponent(c)}/history${rest}`, { query });
const post = (t, c, what, body, app = A) =>
  t.api(app, 'POST', `/channels/${encodeURIComponent(c)}/history/${what}`, { body });
const reset = (c, more = {}) =>
  ({ confirm_channel: c, confirm_operation: 'reset', reason: 'test', ...more });
const purge = (c, more = {}) =>
  ({ confirm_channel: c, confirm_operation: 'purge', reason: 'test', mode: 'all', ...more });

async function publish(t, c, data, app = A) {
  const r = await t.api(app, 'POST', '/events', { body: { name: 'n', data, channel: c,
                                                          info: 'subscription_count' } });
  is_ok(r);
  return r.json.channels[c];
}
async function fill(t, c, n, app = A) {
  const acks = [];
  for (let i = 1; i <= n; i++) acks.push(await publish(t, c, `d${i}`, app));
  return acks;
}
const serials = (r) => r.json.items.map((i) => i.serial);

s.test('an empty channel', async (t) => {
  const c = t.name();
  const r = await get(t, c);
  is_ok(r);
  const id = r.json.continuity.stream_id;
  assert.match(id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.deepEqual(r.json, {
    items: [], direction: 'newest_first', limit: 100, has_more: false, next_cursor: null,
    bounds: { start_serial: null, end_serial: null, start_time_ms: null, end_time_ms: null },
    continuity: { stream_id: id, oldest_available_serial: null, newest_available_serial: null,
      oldest_available_published_at_ms: null, newest_available_published_at_ms: null,
      retained_messages: 0, retained_bytes: 0, complete: true, truncated_by_retention: false },
    stream_state: { stream_id: id, durable_state: 'healthy', recovery_allowed: true,
      reset_required: false, reason: null, node_id: null, last_transition_at_ms: null,
      authoritative_source: 'durable_store', observed_source: 'durable_store' } });
  assert.equal((await get(t, c)).json.continuity.stream_id, id);
});
s.test('a row is the newest version of its message, in its place', async (t) => {
  const c = t.name();
  const [one] = await fill(t, c, 2);
  is_ok(await t.api(A, 'POST', `/channels/${c}/messages/${one.message_serial}/append`,
                    { body: { data: ' more' } }));
  const r = await get(t, c, { direction: 'oldest_first' });
  const [row, next] = r.json.items;
  const item = (await t.api(A, 'GET', `/channels/${c}/messages/${one.message_serial}`)).json.item;
  assert.deepEqual(row.message, item);
  assert.equal(item.data, 'd1 more');
  assert.deepEqual([row.serial, row.event_name, row.operation_kind, row.payload_size_bytes],
    [1, 'sockudo:message.append', 'message.append', JSON.stringify(item).length]);
  assert.match(row.message_id, /^[0-9a-f-]{36}$/);
  assert.equal(row.stream_id, r.json.continuity.stream_id);
  assert.deepEqual([next.operation_kind, next.event_name, next.message.data],
                   ['message.create', 'sockudo:message.create', 'd2']);
  assert.ok(row.published_at_ms <= next.published_at_ms);
});
s.test('words for directions, and limits', async (t) => {
  const c = t.name();
  await fill(t, c, 3);
  for (const [word, canonical, want] of [['NEWEST_first', 'newest_first', [3, 2, 1]],
    ['backwards', 'newest_first', [3, 2, 1]], ['Reverse', 'newest_first', [3, 2, 1]],
    ['forwards', 'oldest_first', [1, 2, 3]], ['forward', 'oldest_first', [1, 2, 3]]]) {
    const r = await get(t, c, { direction: word });
    assert.deepEqual([r.json.direction, serials(r)], [canonical, want]);
  }
  is_api_error(await get(t, c, { direction: 'x' }), 400, 'invalid_input',
    "Invalid direction 'x'. Accepted values: newest_first, oldest_first, backwards, forwards");
  is_api_error(await get(t, c, { limit: '0' }), 400, 'invalid_input',
               'History limit must be greater than 0');
  assert.equal((await get(t, c, { limit: '1000' })).json.limit, 100);
  for (const query of [{ limit: 'x' }, { start_serial: '-1' }, { end_time_ms: '1.5' }]) {
    const r = await get(t, c, query);
    assert.equal(r.status, 400, r.text);
    assert.match(r.headers['content-type'], /^text\/plain/);
  }
});
s.test('bounds by serial and by time, both inclusive', async (t) => {
  const c = t.name();
  await fill(t, c, 6);
  const all = (await get(t, c, { direction: 'oldest_first' })).json.items;
  assert.deepEqual(serials(await get(t, c, { start_serial: '2', end_serial: '4' })), [4, 3, 2]);
  assert.deepEqual(serials(await get(t, c, { start_serial: '5' })), [6, 5]);
  assert.deepEqual(serials(await get(t, c, { end_serial: '0' })), []);
  assert.deepEqual(serials(await get(t, c, { start_serial: '7' })), []);
  const time = all[2].published_at_ms;
  const same = all.filter((i) => i.published_at_ms === time).map((i) => i.serial);
  assert.deepEqual(serials(await get(t, c, { start_time_ms: `${time}`, end_time_ms: `${time}`,
                                             direction: 'forward' })), same);
  assert.deepEqual(serials(await get(t, c, { start: `${time}`, end: `${time}`,
                                             direction: 'forward' })), same);
  assert.deepEqual(serials(await get(t, c, { end_time_ms: '-5' })), []);
  assert.equal(serials(await get(t, c, { start_time_ms: '-5' })).length, 6);
  const r = await get(t, c, { start_serial: '2', end: `${time + 9e9}` });
  assert.deepEqual(r.json.bounds, { start_serial: 2, end_serial: null, start_time_ms: null,
                                    end_time_ms: time + 9e9 });
  is_api_error(await get(t, c, { start_serial: '3', end_serial: '2' }), 400, 'invalid_input',
               'start_serial must be less than or equal to end_serial');
  is_api_error(await get(t, c, { start: '3', end_time_ms: '2' }), 400, 'invalid_input',
               'start_time_ms must be less than or equal to end_time_ms');
});
s.test('pages follow each other; the limit may change', async (t) => {
  const c = t.name();
  await fill(t, c, 7);
  for (const direction of ['newest_first', 'oldest_first']) {
    const seen = [];
    let cursor;
    for (const limit of ['2', '1', '3', '5']) {
      const r = await get(t, c, { direction, limit, ...(cursor && { cursor }) });
      is_ok(r);
      seen.push(...serials(r));
      cursor = r.json.next_cursor;
      assert.equal(r.json.has_more, cursor !== null);
      assert.equal(r.json.continuity.complete, cursor === null);
    }
    const want = [1, 2, 3, 4, 5, 6, 7];
    assert.deepEqual(seen, direction === 'oldest_first' ? want : want.reverse());
  }
});
s.test('a cursor is bound to what it was made for', async (t) => {
  const c = t.name();
  await fill(t, c, 4);
  await fill(t, c, 2, mem.other);
  const { next_cursor: cursor } = (await get(t, c, { limit: '2' })).json;
  const inside = JSON.parse(Buffer.from(cursor, 'base64url'));
  assert.deepEqual(Object.keys(inside), ['version', 'app_id', 'channel', 'stream_id', 'serial',
                                         'direction', 'bounds']);
  assert.equal(inside.serial, 3);
  const bad = async (query, text, app = A, channel = c) =>
    is_api_error(await get(t, channel, { cursor, ...query }, app), 400, 'invalid_input', text);
  const made = (more) => ({ cursor: Buffer.from(JSON.stringify({ ...inside, ...more }))
    .toString('base64url') });
  await bad({}, 'History cursor app does not match the request', mem.other);
  await bad({}, 'History cursor channel does not match the request', A, t.name());
  await bad({ direction: 'forward' }, 'History cursor direction does not match the request');
  await bad({ start_serial: '1' }, 'History cursor bounds do not match the request');
  await bad(made({ version: 2 }), 'Unsupported history cursor version: 2');
  await bad(made({ stream_id: 'x' }), 'Expired history cursor: channel stream changed');
  await bad({ cursor: '!' }, /^Invalid history cursor: /);
  await bad({ cursor: Buffer.from('{}').toString('base64url') }, /^Invalid history cursor: /);
  await bad({ cursor: `${cursor}=` }, /^Invalid history cursor: /);
  await bad({ cursor: '' }, /^Invalid history cursor: /);
  is_ok(await post(t, c, 'purge', purge(c, { mode: 'before_serial', before_serial: 4 })));
  await bad({}, 'Expired history cursor: cursor points before retained history');
  is_ok(await post(t, c, 'reset', reset(c)));
  await bad({}, 'Expired history cursor: channel stream changed');
});
s.test('what retention has taken is said', async (t) => {
  const c = t.name();
  await fill(t, c, 15, mem.few);
  const at = (query) => get(t, c, query, mem.few).then((r) => r.json);
  const all = await at({});
  assert.equal(all.items.length, 10);
  assert.deepEqual([all.continuity.oldest_available_serial, all.continuity.retained_messages,
    all.continuity.truncated_by_retention, all.continuity.complete], [6, 10, true, false]);
  const part = await at({ start_serial: '8' });
  assert.deepEqual([part.continuity.truncated_by_retention, part.continuity.complete],
                   [false, true]);
  assert.equal((await at({ start_serial: '5' })).continuity.truncated_by_retention, true);
  const time = all.items.at(-1).published_at_ms;
  assert.equal((await at({ start: `${time - 1}` })).continuity.truncated_by_retention, true);
  assert.equal((await at({ start: `${time}` })).continuity.truncated_by_retention, false);
});
s.test('state', async (t) => {
  const c = t.name();
  await fill(t, c, 3);
  const page = (await get(t, c)).json;
  const r = await get(t, c, {}, A, '/state');
  const id = page.continuity.stream_id;
  const { retained_messages, retained_bytes, oldest_available_published_at_ms,
          newest_available_published_at_ms } = page.continuity;
  is_ok(r, { channel: c, stream: { stream_id: id, next_serial: 4,
    retained: { stream_id: id, retained_messages, retained_bytes, oldest_available_serial: 1,
      newest_available_serial: 3, oldest_available_published_at_ms,
      newest_available_published_at_ms },
    state: page.stream_state } });
  assert.equal(retained_messages, 3);
  assert.ok(retained_bytes > 0);
});
/* Versions are kept as long as rows by default: what is purged is gone at once, and not only after
 * a restart. */
async function is_gone(t, channel, serial, app = A) {
  const path = `/channels/${channel}/messages/${serial}`;
  for (const [method, rest, options] of [
    ['GET', '', {}], ['GET', '/versions', {}],
    ['POST', '/append', { body: { data: '!' } }],
  ]) {
    const r = await t.api(app, method, `${path}${rest}`, options);
    assert.equal(r.status, 404, `${method} ${rest}: ${r.text}`);
    assert.equal(r.json.code, 'not_found');
  }
}
s.test('reset begins a new stream of rows, delivery serials go on', async (t) => {
  const c = t.name();
  const [one] = await fill(t, c, 3);
  const before = (await get(t, c)).json.continuity;
  const r = await post(t, c, 'reset', reset(c, { requested_by: 'me' }));
  is_ok(r);
  assert.deepEqual({ ...r.json, stream: 0, new_stream_id: 0 }, { ok: true, operation: 'reset',
    channel: c, reason: 'test', requested_by: 'me', previous_stream_id: before.stream_id,
    new_stream_id: 0, purged_messages: 3, purged_bytes: before.retained_bytes, stream: 0 });
  assert.notEqual(r.json.new_stream_id, before.stream_id);
  assert.deepEqual((await get(t, c, {}, A, '/state')).json.stream, r.json.stream);
  assert.deepEqual([r.json.stream.stream_id, r.json.stream.next_serial,
    r.json.stream.retained.retained_messages], [r.json.new_stream_id, 1, 0]);
  const ack = await publish(t, c, 'new');
  assert.deepEqual([ack.history_serial, ack.delivery_serial], [1, 4]);
  assert.deepEqual(serials(await get(t, c)), [1]);
});
s.test('messages outlive a reset: read and changed, no rows of the new history', async (t) => {
  const c = t.name();
  const [one, two] = await fill(t, c, 2);
  is_ok(await post(t, c, 'reset', reset(c)));
  const path = `/channels/${c}/messages/${one.message_serial}`;
  const changed = await t.api(A, 'POST', `${path}/append`, { body: { data: '!' } });
  is_ok(changed);
  assert.deepEqual([changed.json.history_serial, changed.json.delivery_serial], [1, 3]);
  assert.equal((await t.api(A, 'GET', path)).json.item.data, 'd1!');
  assert.equal((await t.api(A, 'GET', `${path}/versions`)).json.items.length, 2);
  assert.deepEqual(serials(await get(t, c)), []);
  await publish(t, c, 'new');
  assert.deepEqual((await get(t, c)).json.items.map((i) => i.message.data), ['new']);
  is_ok(await post(t, c, 'purge', purge(c)));
  for (const m of [one, two]) await is_gone(t, c, m.message_serial);
});
s.test('a message that retention has taken cannot be changed any more', async (t) => {
  const c = t.name();
  const acks = await fill(t, c, 11, mem.few);      /* keeps 10 */
  await is_gone(t, c, acks[0].message_serial, mem.few);
  is_ok(await t.api(mem.few, 'POST', `/channels/${c}/messages/${acks[1].message_serial}/append`,
                    { body: { data: '!' } }));
});
s.test('purge by serial, by time, of all', async (t) => {
  const c = t.name();
  const acks = await fill(t, c, 6);
  const rows = (await get(t, c, { direction: 'forward' })).json.items;
  const id = rows[0].stream_id;
  const r = await post(t, c, 'purge', purge(c, { mode: 'before_serial', before_serial: 3 }));
  is_ok(r);
  await is_gone(t, c, acks[1].message_serial);
  is_ok(await t.api(A, 'POST', `/channels/${c}/messages/${acks[2].message_serial}/append`,
                    { body: { data: '!' } }));
  assert.ok(r.json.purged_bytes > 0);
  assert.deepEqual({ ...r.json, purged_bytes: 0, stream: 0 }, { ok: true, operation: 'purge',
    channel: c, mode: 'before_serial', before_serial: 3, before_time_ms: null, reason: 'test',
    requested_by: null, purged_messages: 2, purged_bytes: 0, stream: 0 });
  assert.deepEqual([r.json.stream.stream_id, r.json.stream.next_serial], [id, 7]);
  assert.deepEqual(serials(await get(t, c, { direction: 'forward' })), [3, 4, 5, 6]);
  const time = rows[4].published_at_ms;
  const later = rows.filter((i) => i.serial > 2 && i.published_at_ms >= time).map((i) => i.serial);
  const by_time = await post(t, c, 'purge', purge(c, { mode: 'before_time_ms',
                                                       before_time_ms: time }));
  assert.equal(by_time.json.purged_messages, 4 - later.length);
  assert.deepEqual(serials(await get(t, c, { direction: 'forward' })), later);
  const none = await post(t, c, 'purge', purge(c, { mode: 'before_serial', before_serial: 0 }));
  assert.deepEqual([none.json.purged_messages, none.json.purged_bytes], [0, 0]);
  const all = await post(t, c, 'purge', purge(c));
  assert.equal(all.json.purged_messages, later.length);
  assert.deepEqual((await get(t, c)).json.items, []);
  assert.equal((await publish(t, c, 'new')).history_serial, 7);
});
s.test('what reset and purge must be told', async (t) => {
  const c = t.name();
  await fill(t, c, 1);
  const bad = async (what, body, text) =>
    is_api_error(await post(t, c, what, body), 400, 'invalid_input', text);
  await bad('reset', reset('else'), 'confirm_channel must exactly match the channel path');
  await bad('reset', purge(c), "confirm_operation must be 'reset'");
  await bad('purge', reset(c, { mode: 'all' }), "confirm_operation must be 'purge'");
  for (const reason of ['', '  ', '\t\n']) {
    await bad('reset', reset(c, { reason }), 'reason must not be empty');
  }
  await bad('purge', purge(c, { before_serial: 1 }), "Purge mode 'all' does not accept bounds");
  for (const more of [{}, { before_time_ms: 1 }, { before_serial: 1, before_time_ms: 1 }]) {
    await bad('purge', purge(c, { mode: 'before_serial', ...more }),
              "Purge mode 'before_serial' requires before_serial only");
  }
  await bad('purge', purge(c, { mode: 'before_time_ms', before_serial: 1 }),
            "Purge mode 'before_time_ms' requires before_time_ms only");
  for (const [what, body] of [['reset', {}], ['reset', reset(c, { reason: 1 })],
    ['purge', purge(c, { mode: 'some' })], ['purge', purge(c, { mode: undefined })],
    ['purge', purge(c, { mode: 'before_serial', before_serial: 'x' })]]) {
    assert.equal((await post(t, c, what, body)).status, 422, JSON.stringify(body));
  }
  assert.deepEqual(serials(await get(t, c)), [1]);
});
s.test('without history', async (t) => {
  const c = t.name();
  const text = `Durable history is disabled by policy for channel '${c}'`;
  const off = (r) => is_api_error(r, 422, 'feature_disabled', text);
  off(await get(t, c, { limit: '0' }, mem.plain));
  off(await get(t, c, {}, mem.plain, '/state'));
  off(await post(t, c, 'reset', reset('x'), mem.plain));
  off(await post(t, c, 'purge', purge('x'), mem.plain));
  is_api_error(await get(t, 'bad name'), 400, 'invalid_input', /invalid characters/);
});

/* ---- on the socket ---- */
async function subscriber(t, c, app = A) {
  const w = await v2(t, { app });
  w.send(w.subscribe_frame(c));
  await w.next((m) => /subscription_succeeded$/.test(m.event));
  w.ask = async (data) => {
    w.send({ event: 'sockudo:channel_history', data });
    return w.next((m) => /channel_history$|error$/.test(m.event));
  };
  return w;
}
s.test('the same page on the socket, with its differences', async (t) => {
  const c = t.name();
  const [one] = await fill(t, c, 2);
  const w = await subscriber(t, c);
  is_ok(await t.api(A, 'POST', `/channels/${c}/messages/${one.message_serial}/append`,
                    { body: { data: '!' } }));
  const m = await w.ask({ channel: c, direction: 'oldest_first' });
  assert.equal(m.event, 'sockudo:channel_history');
  assert.equal(m.channel, c);
  const http = (await get(t, c, { direction: 'oldest_first' })).json;
  const stream = m.data.items[0].message.stream_id;
  assert.ok(stream);
  assert.deepEqual(m.data.items.map((i) => i.operation_kind), ['append', 'create']);
  const { until_attach, attach_serial, ...bounds } = m.data.bounds;
  assert.deepEqual([until_attach, attach_serial], [false, 2]);
  const same = m.data.items.map((i, n) => {
    const { stream_id, ...message } = i.message;
    assert.equal(stream_id, stream);
    return { ...i, message, operation_kind: `message.${i.operation_kind}`,
             payload_size_bytes: http.items[n].payload_size_bytes };
  });
  assert.deepEqual({ ...m.data, bounds, items: same }, http);
});
s.test('until_attach ends where live began', async (t) => {
  const c = t.name();
  await fill(t, c, 3);
  const w = await subscriber(t, c);
  await fill(t, c, 2);
  const m = await w.ask({ params: { limit: 2, until_attach: true }, channel: c });
  assert.deepEqual(m.data.items.map((i) => i.serial), [3, 2]);
  assert.deepEqual(m.data.bounds, { start_serial: null, end_serial: 3, start_time_ms: null,
    end_time_ms: null, until_attach: true, attach_serial: 3 });
  const next = await w.ask({ channel: c, limit: 5, untilAttach: true,
                             cursor: m.data.next_cursor });
  assert.deepEqual(next.data.items.map((i) => i.serial), [1]);
  const wrong = await w.ask({ channel: c, cursor: m.data.next_cursor });
  assert.deepEqual([wrong.data.code, wrong.data.message],
                   [4000, 'History cursor bounds do not match the request']);
});
s.test('until_attach on a channel that was empty', async (t) => {
  const c = t.name();
  const w = await subscriber(t, c);
  await fill(t, c, 2);
  const m = await w.ask({ channel: c, until_attach: true });
  assert.deepEqual([m.data.items, m.data.bounds.end_serial, m.data.has_more], [[], 0, false]);
});
