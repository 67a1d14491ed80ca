/* inv_delivery.mjs - invariants 23 to 25: what a replay is, what V1 sees, what ephemeral means.
 *
 * Source   spec/messages-and-history.md 12; spec/protocol-v2.md 4, 6; spec/settled.md 33, 34.
 */
import { suite } from '../runner.mjs';
import { assert } from '../expect.mjs';
import { Lives, mem, mem_config, v2 } from '../memory.mjs';
import { api } from '../http_raw.mjs';
import { connected, heard as wait_for, record, subscribed } from '../clients.mjs';
import { create, message_path, mutate, path_of, post, read_channel,
         read_rows } from '../stored.mjs';
import { V2, data_of, header } from '../v2_client.mjs';

const COLD_MAX = 60;
const RING_MAX = 20;
const s = suite('inv delivery', { config: { ...mem_config,
  history: { ...mem_config.history, cold_replay_max_messages: COLD_MAX },
  connection_recovery: { enabled: true, max_buffer_size: RING_MAX } }, parallel: 6 });
const A = mem.app;

/* Resumes from a position before the subscribe: the frames of the channel up to the aggregate, and
 * the aggregate's entry. */
async function resume(t, port, channel, position) {
  const ws = await v2(t, { port });
  ws.send(V2.resume_frame({ [channel]: position }));
  ws.send(ws.subscribe_frame(channel));
  const frames = [];
  for (;;) {
    const m = await ws.next();
    if (m.event === 'sockudo:resume_success') {
      const { recovered, failed } = data_of(m);
      ws.destroy();
      return { frames, recovered: recovered[0], failed: failed[0] };
    }
    const succeeded = /subscription_succeeded/.test(m.event);
    if (m.channel === channel && m.serial !== undefined && !succeeded) frames.push(m);
  }
}

async function check_replays(t, port, channel, head, stream_id, floor) {
  for (let serial = head; serial >= 0; serial -= serial > head - 8 ? 1 : 7) {
    const { frames, recovered, failed } = await resume(t, port, channel, { stream_id, serial });
    if (head - serial <= floor) {
      assert.ok(recovered, `from ${serial} of ${head}: ${JSON.stringify(failed)}`);
      assert.deepEqual(frames.map((m) => m.serial),
                       Array.from({ length: head - serial }, (_, i) => serial + i + 1));
      assert.ok(frames.every((m) => m.stream_id === stream_id));
      assert.equal(recovered.replayed, head - serial);
      if (head > serial) assert.equal(recovered.position.serial, head);
      else assert.equal(recovered.position, null);
    } else {
      assert.deepEqual(frames, [], 'a gap that is too large sends nothing');
      assert.equal(failed.code, 'position_expired', JSON.stringify(failed));
      assert.equal(failed.reason, 'recovery_window_exceeded');
    }
  }
}

s.test('invariant 23: a replay is exactly what follows the position, or fails', async (t) => {
  const lives = new Lives(t, { ...mem_config,
    history: { ...mem_config.history, cold_replay_max_messages: COLD_MAX },
    connection_recovery: { enabled: true, max_buffer_size: RING_MAX } });
  await lives.start();
  const ws = await v2(t, { port: lives.port });
  const { stream_id } = await ws.subscribe('replay');
  const { message_serial } = await create(lives.port, A, 'replay', '0');
  for (let i = 1; i < 90; i++) {
    if (i % 10 === 0) await create(lives.port, A, 'replay', `${i}`);
    else await mutate(lives.port, A, 'replay', message_serial, 'append', { data: `<${i}>` });
  }
  await check_replays(t, lives.port, 'replay', 90, stream_id, COLD_MAX);
  await lives.restart();
  await check_replays(t, lives.port, 'replay', 90, stream_id, COLD_MAX);
  const bad = [
    [{ stream_id, serial: 91 }, 'continuity_unverifiable'],
    [{ stream_id: '00000000-0000-4000-8000-000000000000', serial: 80 }, 'stream_reset'],
    [{ serial: 80 }, 'continuity_unverifiable'],
  ];
  for (const [position, code] of bad) {
    const { frames, failed } = await resume(t, lives.port, 'replay', position);
    assert.deepEqual(frames, []);
    assert.equal(failed?.code, code, JSON.stringify([position, failed]));
  }
  const empty = await (await v2(t, { port: lives.port })).subscribe('empty');
  const fresh = await resume(t, lives.port, 'empty', { stream_id: empty.stream_id, serial: 0 });
  assert.equal(fresh.recovered?.replayed, 0, 'the beginning of an empty channel');
  await lives.stop();
});

const V1_KEYS = ['channel', 'data', 'event'];

s.test('invariant 24: V1 sockets see creates only, as plain events', async (t) => {
  const c = t.name('private-');
  const p = await connected(t.pusher(A));
  const ws = await v2(t);
  const raw = await t.open(A);
  const heard = record(await subscribed(p, c), ['note', 'other', 'sockudo:message.append',
    'sockudo:message.update', 'sockudo:message.delete', 'sockudo_internal:message',
    'sockudo_internal:annotation', 'pusher:message.append', 'pusher_internal:message']);
  await ws.subscribe(c, { modes: ['SUBSCRIBE'] });
  raw.send(ws_subscribe(raw, ws, c));
  await raw.until('pusher_internal:subscription_succeeded');
  ws.frames.length = ws.at = 0;
  const extras = { headers: { a: 1, b: 'x', c: true }, other: [1] };
  const { message_serial } = await create(t.port, A, c, 'one', { extras, tags: { k: 'v' },
                                                                  message_id: t.name('id') });
  await mutate(t.port, A, c, message_serial, 'append', { data: '!' });
  await mutate(t.port, A, c, message_serial, 'update', { data: 'two', client_id: 'me' });
  await post(t.port, A, `${message_path(c, message_serial)}/annotations`,
             { type: 'reaction:total.v1' });
  await mutate(t.port, A, c, message_serial, 'delete', {});
  const ended = wait_for(p.channel(c), 'other');
  await create(t.port, A, c, 'three', { name: 'other' });
  const plain = [];
  while (plain.at(-1)?.event !== 'other') plain.push(await raw.next());
  await ended;
  const first = await ws.next((m) => m.event === 'note');
  assert.deepEqual([header(first, 'action'), header(first, 'message_serial'), first.serial],
                   ['message.create', message_serial, 1]);
  assert.deepEqual(first.extras.headers.b, 'x');
  await ws.next((m) => m.event === 'other');
  const seen = ws.frames.filter((m) => m.channel === c).map((m) => m.event);
  assert.deepEqual(seen, ['note', 'sockudo:message.append', 'sockudo:message.update',
                          'sockudo_internal:message', 'sockudo:message.delete', 'other']);
  assert.deepEqual(heard.map((h) => [h.event, h.data]), [['note', 'one'], ['other', 'three']]);
  assert.deepEqual(plain.map((m) => [m.event, m.data]), [['note', 'one'], ['other', 'three']]);
  for (const m of plain) assert.deepEqual(Object.keys(m).sort(), V1_KEYS);
});
function ws_subscribe(raw, v2_client, channel) {
  const signed = v2_client.subscribe_frame.call({ app: A, socket_id: raw.socket_id }, channel);
  return { event: 'pusher:subscribe', data: signed.data };
}

s.test('a raw V2 client and a pusher-js client each get exactly what their protocol allows',
  async (t) => {
    const c = t.name();
    const p = await connected(t.pusher(A));
    const everything = [];
    (await subscribed(p, c)).bind_global((event, data) => everything.push([event, data]));
    const ws = await v2(t);
    const raw = await t.open(A);
    await ws.subscribe(c);
    raw.send({ event: 'pusher:subscribe', data: { channel: c, auth: '' } });
    await raw.until('pusher_internal:subscription_succeeded');
    ws.frames.length = ws.at = 0;
    const data = JSON.stringify({ text: 'grüße "x" \\ \u0000 🎉' });
    const ack = await create(t.port, A, c, data, { tags: { zone: 'eu' }, message_id: 'm-1',
      extras: { headers: { n: 5 }, echo: true } });
    const m2 = await ws.next();
    const m1 = await raw.next();
    assert.deepEqual(m1, { event: 'note', channel: c, data });
    const { headers } = m2.extras;
    assert.equal(m2.data, data);
    assert.deepEqual([m2.event, m2.channel, m2.message_id, m2.serial, headers.sockudo_action,
                      headers.sockudo_message_serial, headers.sockudo_version_serial,
                      Number(headers.sockudo_history_serial), Number(headers.n), m2.extras.echo],
                     ['note', c, 'm-1', ack.delivery_serial, 'message.create', ack.message_serial,
                      ack.version_serial, ack.history_serial, 5, true]);
    for (const key of ['name', 'idempotency_key', 'sequence', 'conflation_key']) {
      assert.ok(!(key in m2), `${key} is not in a live create`);
    }
    await mutate(t.port, A, c, ack.message_serial, 'update', { data: 'later' });
    const update = await ws.next();
    assert.equal(update.event, 'sockudo:message.update');
    assert.equal(update.name, 'note');
    const ended = wait_for(p.channel(c), 'end');
    await create(t.port, A, c, 'end', { name: 'end' });
    await raw.until('end');
    await ended;
    await ws.next((m) => m.event === 'end');
    assert.deepEqual(everything.filter(([e]) => !/^pusher:/.test(e)),
                     [['note', JSON.parse(data)], ['end', 'end']]);
  });

s.test('invariant 25: an ephemeral publish leaves no trace', async (t) => {
  const c = t.name();
  const ws = await v2(t);
  const { stream_id } = await ws.subscribe(c);
  await create(t.port, A, c, 'kept');
  const flash = { name: 'flash', channel: c, data: 'gone', extras: { ephemeral: true } };
  const answers = [
    await post(t.port, A, '/events', flash),
    await post(t.port, A, '/events', { ...flash, info: 'subscription_count' }),
    await post(t.port, A, '/events', { ...flash, message_id: t.name('id') }),
    await post(t.port, A, '/batch_events', { batch: [flash,
      { ...flash, name: 'note', extras: undefined, info: 'subscription_count' }] }),
  ];
  for (const a of answers.slice(0, 3)) {
    assert.ok(!/serial/.test(JSON.stringify(a)), JSON.stringify(a));
  }
  assert.deepEqual(Object.keys(answers[3].batch[0]).filter((k) => /serial/.test(k)), []);
  assert.ok(answers[3].batch[1].delivery_serial === 2, 'the other item is a create');
  const seen = [];
  for (let n = 0; n < 4; n++) seen.push(await ws.next((m) => m.event === 'flash'));
  for (const m of seen) {
    assert.ok(!('serial' in m) && !('stream_id' in m), JSON.stringify(m));
    assert.equal(header(m, 'action'), undefined);
  }
  const { head, rows } = await read_channel(t.port, A, c);
  assert.deepEqual([head, rows.map((r) => r.message.data)], [2, ['kept', 'gone']]);
  const { frames } = await resume(t, t.port, c, { stream_id, serial: 0 });
  assert.deepEqual(frames.map((m) => m.serial), [1, 2]);
  assert.ok(frames.every((m) => m.event !== 'flash'));
  const { items } = await read_rows(t.port, A, c);
  assert.equal(items.length, 2);
  const missing = await api(t.port, A, 'GET', `${path_of(c)}/messages/none`);
  assert.equal(missing.status, 404);
});
