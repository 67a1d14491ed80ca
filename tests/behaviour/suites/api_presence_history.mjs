/* api_presence_history.mjs - the log of a presence channel: one event a user and edge, pages,
 * state, reset, snapshots, and what a crash leaves.
 *
 * Source   spec/messages-and-history.md 8; spec/settled.md 39.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, is_api_error, is_ok } from '../expect.mjs';
import { join, user_auth } from '../clients.mjs';
import { mem, mem_config, jumping_clock, Lives, v2 } from '../memory.mjs';

const s = suite('api presence history', { config: mem_config });
const A = mem.app;
const get = (t, c, rest = '', query = {}, port = undefined) => t.api(A, 'GET',
  `/channels/${c}/presence/history${rest}`, { query, ...(port && { port }) });
const member = (id, info = {}) => ({ user_id: id, user_info: info });

async function log(t, c, port) {
  const r = await get(t, c, '', { direction: 'oldest_first' }, port);
  is_ok(r);
  return r.json.items;
}
const told = (items) => items.map((i) => `${i.event} ${i.user_id} ${i.cause}`);
/* Until the log has n events. */
const logged = (t, c, n, port) => eventually(async () => {
  const items = await log(t, c, port);
  return items.length >= n && items;
}, `${n} events in the log`);
async function come(t, c, id, info) {
  const ws = await t.open(A);
  await join(ws, c, member(id, info));
  return ws;
}

s.test('one event for each user who comes or goes', async (t) => {
  const c = t.name('presence-');
  const one = await come(t, c, 'ann', { n: 1 });
  const two = await come(t, c, 'ann', { n: 2 });
  const bob = await come(t, c, 'bob');
  one.send({ event: 'pusher:unsubscribe', data: { channel: c } });
  bob.send({ event: 'pusher:unsubscribe', data: { channel: c } });
  await logged(t, c, 3);
  two.send({ event: 'pusher:unsubscribe', data: { channel: c } });
  const items = await logged(t, c, 4);
  assert.deepEqual(told(items), ['member_added ann join', 'member_added bob join',
    'member_removed bob disconnect', 'member_removed ann disconnect']);
  assert.deepEqual(items.map((i) => i.serial), [1, 2, 3, 4]);
  const [first] = items;
  assert.deepEqual(first, { stream_id: first.stream_id, serial: 1,
    published_at_ms: first.published_at_ms, event: 'member_added', cause: 'join', user_id: 'ann',
    connection_id: one.socket_id, dead_node_id: null,
    payload_size_bytes: first.payload_size_bytes,
    presence_event: { published_at_ms: first.published_at_ms, event: 'member_added', cause: 'join',
      user_id: 'ann', connection_id: one.socket_id, user_info: { n: 1 }, dead_node_id: null,
      stream_id: first.stream_id, serial: 1 } });
  assert.deepEqual(items.map((i) => i.connection_id),
                   [one, bob, bob, two].map((ws) => ws.socket_id), 'whose edge it was');
});
s.test('a member the app disconnects', async (t) => {
  const [c, id] = [t.name('presence-'), t.name('u')];
  const ws = await come(t, c, 'ann');
  const user_data = JSON.stringify({ id });
  ws.send({ event: 'pusher:signin',
            data: { auth: user_auth(A, ws.socket_id, user_data), user_data } });
  await ws.until('pusher:signin_success');
  is_ok(await t.api(A, 'POST', `/users/${id}/terminate_connections`, { body: {} }));
  const items = await logged(t, c, 2);
  assert.equal(told(items)[1], 'member_removed ann forced_disconnect');
  assert.equal(items[1].connection_id, ws.socket_id);
});
s.test('a member who reads too slowly', async (t) => {
  const c = t.name('presence-');
  const ws = await come(t, c, 'ann');
  ws.socket.pause();
  const data = 'x'.repeat(60000);
  await eventually(async () => {
    for (let i = 0; i < 20; i++) await t.publish(A, c, 'ev', data);
    return (await log(t, c)).length === 2;
  }, 'the slow member to be closed', 30000);
  const items = await log(t, c);
  assert.equal(told(items)[1], 'member_removed ann forced_disconnect');
  assert.equal(items[1].connection_id, ws.socket_id);
});
s.test('an update is an event, a silent loss is a timeout', async (t) => {
  const c = t.name('presence-');
  const w = await v2(t);
  await w.subscribe(c, { member: member('ann') });
  w.send({ event: 'sockudo:presence_update', data: { channel: c, data: { mood: 'busy' } } });
  const items = await logged(t, c, 2);
  assert.deepEqual(told(items), ['member_added ann join', 'member_updated ann join']);
  assert.deepEqual(items[1].presence_event.user_info, { mood: 'busy' });
  w.destroy();
  const all = await logged(t, c, 3);
  assert.equal(told(all)[2], 'member_removed ann timeout');
  assert.deepEqual(all.map((i) => i.connection_id), Array(3).fill(w.socket_id));
});
s.test('pages, cursors and state speak of presence', async (t) => {
  const c = t.name('presence-');
  for (let i = 0; i < 5; i++) await come(t, c, `u${i}`);
  await logged(t, c, 5);
  const r = await get(t, c, '', { limit: '2' });
  is_ok(r);
  assert.deepEqual(r.json.items.map((i) => i.user_id), ['u4', 'u3']);
  const { continuity, stream_state } = r.json;
  assert.deepEqual([continuity.retained_events, continuity.degraded, continuity.complete],
                   [5, false, false]);
  assert.ok(!('retained_messages' in continuity));
  assert.deepEqual([stream_state.continuity_proven, stream_state.recovery_allowed],
                   [true, undefined]);
  const next = await get(t, c, '', { limit: '9', cursor: r.json.next_cursor });
  assert.deepEqual(next.json.items.map((i) => i.user_id), ['u2', 'u1', 'u0']);
  is_api_error(await get(t, c, '', { direction: 'forward', cursor: r.json.next_cursor }), 400,
               'invalid_input', 'Presence history cursor direction does not match the request');
  is_api_error(await get(t, c, '', { cursor: '!' }), 400, 'invalid_input',
               /^Invalid presence history cursor: /);
  is_api_error(await get(t, c, '', { limit: '0' }), 400, 'invalid_input',
               'Presence history limit must be greater than 0');
  const state = (await get(t, c, '/state')).json;
  assert.deepEqual([state.channel, state.stream.next_serial,
    state.stream.retained.retained_events, state.stream.state.continuity_proven], [c, 6, 5, true]);
  const body = { confirm_channel: c, confirm_operation: 'reset', reason: 'test' };
  const reset = await t.api(A, 'POST', `/channels/${c}/presence/history/reset`, { body });
  is_ok(reset);
  assert.deepEqual([reset.json.purged_events, reset.json.purged_messages,
    reset.json.stream.next_serial], [5, undefined, 1]);
  is_api_error(await get(t, c, '', { limit: '9', cursor: r.json.next_cursor }), 400,
               'invalid_input', 'Expired presence history cursor: channel stream changed');
  assert.equal((await t.api(A, 'POST', `/channels/${c}/presence/history/purge`, { body })).status,
               404);
});
s.test('a snapshot is who was there', async (t) => {
  const c = t.name('presence-');
  const ann = await come(t, c, 'ann');
  await come(t, c, 'bob');
  ann.send({ event: 'pusher:unsubscribe', data: { channel: c } });
  await logged(t, c, 3);
  await come(t, c, 'zoe');
  const items = await logged(t, c, 4);
  const shot = async (query) => {
    const r = await get(t, c, '/snapshot', query);
    is_ok(r);
    return r.json;
  };
  const now = await shot({});
  assert.deepEqual({ ...now, continuity: 0 }, { channel: c, members: [
    { user_id: 'bob', last_event: 'member_added', last_event_serial: 2,
      last_event_at_ms: items[1].published_at_ms },
    { user_id: 'zoe', last_event: 'member_added', last_event_serial: 4,
      last_event_at_ms: items[3].published_at_ms }],
  member_count: 2, events_replayed: 4, snapshot_serial: 4,
  snapshot_time_ms: items[3].published_at_ms, continuity: 0 });
  assert.deepEqual([now.continuity.complete, now.continuity.retained_events,
    'degraded' in now.continuity], [true, 4, false]);
  const ids = async (query) => (await shot(query)).members.map((m) => m.user_id);
  assert.deepEqual(await ids({ at_serial: '1' }), ['ann']);
  assert.deepEqual(await ids({ at_serial: '2' }), ['ann', 'bob']);
  assert.deepEqual(await ids({ at_serial: '3' }), ['bob']);
  assert.deepEqual(await ids({ at_time_ms: `${items[0].published_at_ms - 1}` }), []);
  assert.deepEqual(await ids({ at: `${items[3].published_at_ms}` }), ['bob', 'zoe']);
  const none = await shot({ at_serial: '0' });
  assert.deepEqual([none.members, none.snapshot_serial, none.snapshot_time_ms,
    none.events_replayed], [[], null, null, 0]);
  assert.equal((await get(t, c, '/snapshot', { at_serial: 'x' })).status, 400);
});
s.test('a reset keeps who is there', async (t) => {
  const c = t.name('presence-');
  const ann = await come(t, c, 'ann', { n: 1 });
  const bob = await come(t, c, 'bob');
  bob.send({ event: 'pusher:unsubscribe', data: { channel: c } });
  await logged(t, c, 3);
  await come(t, c, 'cid');
  await logged(t, c, 4);
  const body = { confirm_channel: c, confirm_operation: 'reset', reason: 'test' };
  const reset = await t.api(A, 'POST', `/channels/${c}/presence/history/reset`, { body });
  is_ok(reset);
  assert.equal(reset.json.purged_events, 4);
  const first = await logged(t, c, 2);
  assert.deepEqual(told(first).sort(), ['member_added ann join', 'member_added cid join']);
  assert.deepEqual(first.find((i) => i.user_id === 'ann').presence_event.user_info, { n: 1 });
  ann.send({ event: 'pusher:unsubscribe', data: { channel: c } });
  assert.equal(told(await logged(t, c, 3))[2], 'member_removed ann disconnect');
  const shot = await get(t, c, '/snapshot');
  is_ok(shot);
  assert.deepEqual(shot.json.members.map((m) => m.user_id), ['cid']);
});
s.test('many members page by page', async (t) => {
  const c = t.name('presence-');
  const sockets = [];
  for (let i = 0; i < 60; i++) sockets.push(await come(t, c, `u${String(i).padStart(3, '0')}`));
  for (const ws of sockets.slice(0, 30)) {
    ws.send({ event: 'pusher:unsubscribe', data: { channel: c } });
  }
  await logged(t, c, 90);
  const r = await get(t, c, '/snapshot');
  assert.deepEqual(r.json.members.map((m) => m.user_id),
                   sockets.slice(30).map((_, i) => `u${String(i + 30).padStart(3, '0')}`));
});
s.test('only presence channels, only where it is on', async (t) => {
  const c = t.name();
  is_api_error(await get(t, c), 400, 'invalid_input',
               'Only presence channels support this endpoint');
  is_api_error(await get(t, c, '/snapshot'), 400, 'invalid_input', /Only presence channels/);
});

const off = suite('api presence history off', { config: { ...mem_config,
  presence_history: { enabled: false } } });
off.test('without presence history', async (t) => {
  const c = t.name('presence-');
  await come(t, c, 'ann');
  for (const rest of ['', '/state', '/snapshot']) {
    is_api_error(await get(t, c, rest), 422, 'feature_disabled',
                 `Presence history is disabled by policy for channel '${c}'`);
  }
});

const hasty = suite('api presence history, short heartbeats', { config: { ...mem_config,
  activity_timeout: 1, websocket: { pong_timeout: 1 } } });
hasty.test('a member who does not answer a ping has timed out', async (t) => {
  const c = t.name('presence-');
  const ws = await come(t, c, 'ann');
  await ws.until('pusher:ping');
  const items = await logged(t, c, 2);
  assert.equal(told(items)[1], 'member_removed ann timeout');
  assert.equal(items[1].connection_id, ws.socket_id);
});
hasty.test('one who vanishes without grace has only disconnected', async (t) => {
  const c = t.name('presence-');
  const ws = await come(t, c, 'ann');
  ws.destroy();
  assert.equal(told(await logged(t, c, 2))[1], 'member_removed ann disconnect');
});

const lives = suite('api presence history over a restart', { none: true });
lives.test('members left open by a crash are removed, unless they come back', async (t) => {
  const l = new Lives(t);
  const c = 'presence-crash';
  await l.start();
  const open = async (id) => {
    const ws = await t.open(A, { port: l.port });
    await join(ws, c, member(id));
    return ws;
  };
  await open('ann');
  await open('bob');
  await logged(t, c, 2, l.port);
  await l.kill();
  await l.start();
  await open('bob');
  const items = await logged(t, c, 3, l.port);
  assert.deepEqual(told(items).slice(2), ['member_removed ann orphan_cleanup']);
  assert.equal(items[2].connection_id, null, 'no socket of this life');
  await open('cid');
  assert.deepEqual(told(await logged(t, c, 4, l.port)).slice(3), ['member_added cid join']);
  const r = await get(t, c, '/snapshot', {}, l.port);
  assert.deepEqual(r.json.members.map((m) => m.user_id), ['bob', 'cid']);
  await l.server.stop();
});
lives.test('a log that retention has emptied does not pass for a whole one', async (t) => {
  const clock = jumping_clock(t);
  const l = new Lives(t, { ...mem_config,
                           presence_history: { enabled: true, retention_window_seconds: 60 } });
  const c = 'presence-old';
  await l.start({ env: clock.env });
  const ws = await t.open(A, { port: l.port });
  await join(ws, c, member('ann'));
  await logged(t, c, 1, l.port);
  clock.shift(120);
  const page = await eventually(async () => {
    const { json } = await get(t, c, '', {}, l.port);
    return json.items.length === 0 && json;
  }, 'the log to be empty');
  const { complete, truncated_by_retention, retained_events } = page.continuity;
  assert.deepEqual([complete, truncated_by_retention, retained_events], [false, false, 0]);
  const shot = (await get(t, c, '/snapshot', {}, l.port)).json;
  assert.deepEqual([shot.members, shot.continuity.complete], [[], false], 'ann is there');
  await l.server.stop();
});
