/* v2_resume.mjs - sockudo:resume: its frames, their order, what is kept back and for how long.
 *
 * Source   spec/protocol-v2.md 6, 15.1, appendix B Q8, Q9; spec/settled.md 30, 32, 33.
 */
import { suite } from '../runner.mjs';
import { assert } from '../expect.mjs';
import { channel_auth } from '../clients.mjs';
import { mem, mem_config } from '../memory.mjs';
import { metric } from '../metrics.mjs';
import { OP, frame } from '../ws_raw.mjs';
import { SUCCEEDED, UUID, expect_error_v2, expect_nothing_v2, flush_v2, join_v2,
         leave_v2, open_v2, subscribe_v2 } from '../v2_raw.mjs';

const MESSAGES_MAX = 60;
const app = mem.app;
const s = suite('v2 resume', { parallel: 24, config: { ...mem_config,
  websocket: { max_messages: MESSAGES_MAX } } });
const hits = (t, limit) => metric(t.server, 'sockudo_limit_hits_total', { limit });
const SUCCESS = 'sockudo:resume_success';
const FAILED = 'sockudo:resume_failed';

const resume = (positions) => ({ event: 'sockudo:resume',
                                 data: JSON.stringify({ channel_positions: positions }) });
const subscribe = (ws, channel) => ({ event: 'sockudo:subscribe', data: { channel,
  auth: /^private-/.test(channel) ? channel_auth(app, ws.socket_id, channel) : '' } });
const in_one_write = (ws, messages) =>
  ws.write(Buffer.concat(messages.map((m) => frame(OP.TEXT, JSON.stringify(m)))));

/* A channel with `count` events; its stream. */
async function filled(t, count, prefix = 'ch-') {
  const channel = t.name(prefix);
  const ws = await open_v2(t, app);
  const { stream_id } = await join_v2(ws, channel);
  for (let i = 1; i <= count; i++) await t.publish(app, channel, 'ev', `${i}`);
  ws.destroy();
  return { channel, stream_id };
}

async function until_aggregate(ws, ms) {
  const before = [];
  for (;;) {
    const m = await ws.next(ms);
    if (m.event === SUCCESS) return { before, ...JSON.parse(m.data), frame: m };
    before.push(m);
  }
}

for (const [what, order] of Object.entries({
  'resume, then subscribe, in one write': (ws, r, u) => in_one_write(ws, [r, u]),
  'subscribe, then resume, in one write': (ws, r, u) => in_one_write(ws, [u, r]),
  'resume, and the subscribe later': async (ws, r, u) => {
    ws.send(r);
    await expect_nothing_v2(ws);
    ws.send(u);
  },
})) {
  s.test(`${what}: success with the position, replay, aggregate, live`, async (t) => {
    const { channel, stream_id } = await filled(t, 5);
    const ws = await open_v2(t, app);
    await order(ws, resume({ [channel]: { stream_id, serial: 2 } }), subscribe(ws, channel));
    const { before, recovered, failed } = await until_aggregate(ws);
    assert.deepEqual(before.map((m) => m.event), [SUCCEEDED, 'ev', 'ev', 'ev']);
    assert.deepEqual([before[0].serial, before[0].stream_id], [2, stream_id]);
    assert.deepEqual(before.slice(1).map((m) => [m.serial, m.data]),
                     [[3, '3'], [4, '4'], [5, '5']]);
    assert.deepEqual(failed, []);
    assert.deepEqual(recovered, [{ channel, source: 'hot', replayed: 3, position: { stream_id,
      serial: 5, last_message_id: before.at(-1).message_id } }]);
    await t.publish(app, channel, 'ev', '6');
    assert.equal((await ws.next()).serial, 6);
    await expect_nothing_v2(ws);
  });
}
s.test('a resume behind the subscribe replays up to the attach, nothing twice', async (t) => {
  const { channel, stream_id } = await filled(t, 4);
  const ws = await open_v2(t, app);
  assert.equal((await join_v2(ws, channel)).serial, 4);
  await t.publish(app, channel, 'ev', '5');
  assert.equal((await ws.next()).serial, 5);
  ws.send(resume({ [channel]: { stream_id, serial: 1 } }));
  const { before, recovered } = await until_aggregate(ws);
  assert.deepEqual(before.map((m) => m.serial), [2, 3, 4]);
  assert.equal(recovered[0].replayed, 3);
  await t.publish(app, channel, 'ev', '6');
  assert.equal((await ws.next()).serial, 6);
  await expect_nothing_v2(ws);
});
s.test('a resume while the subscribe is under way, and one behind repeats of it', async (t) => {
  const { channel, stream_id } = await filled(t, 4);
  for (let i = 0; i < 40; i++) {
    const ws = await open_v2(t, app);
    ws.send(subscribe(ws, channel));
    if (i % 2) in_one_write(ws, [subscribe(ws, channel), subscribe(ws, channel)]);
    if (i % 4 < 2) await new Promise((resolve) => setImmediate(resolve));
    ws.send(resume({ [channel]: { stream_id, serial: 2 } }));
    const { before, recovered } = await until_aggregate(ws);
    assert.equal(recovered[0].replayed, 2);
    assert.deepEqual(before.filter((m) => m.event === 'ev').map((m) => m.serial), [3, 4]);
    assert.ok((await flush_v2(ws)).every((m) => m.event === SUCCEEDED));
    ws.destroy();
  }
});
s.test('the frames of a success, to the member', async (t) => {
  const { channel, stream_id } = await filled(t, 1);
  const ws = await open_v2(t, app);
  await join_v2(ws, channel);
  ws.send(resume({ [channel]: { stream_id, serial: 1, last_message_id: null } }));
  const m = await ws.next();
  assert.deepEqual(Object.keys(m).sort(), ['data', 'event', 'message_id']);
  assert.match(m.message_id, UUID);
  assert.deepEqual(JSON.parse(m.data), { failed: [],
    recovered: [{ channel, source: 'hot', replayed: 0, position: null }] });
});
s.test('another stream: resume_failed with the channel inside; live goes on', async (t) => {
  const { channel, stream_id } = await filled(t, 2);
  const ws = await open_v2(t, app);
  const wrong = '00000000-0000-4000-8000-000000000000';
  in_one_write(ws, [resume({ [channel]: { stream_id: wrong, serial: 1 } }),
                    subscribe(ws, channel)]);
  const { before, recovered, failed } = await until_aggregate(ws);
  assert.deepEqual(before.map((m) => m.event), [SUCCEEDED, FAILED]);
  assert.equal(before[0].serial, 2);
  assert.deepEqual(Object.keys(before[1]).sort(), ['channel', 'data', 'event', 'message_id']);
  assert.equal(before[1].channel, channel);
  const told = JSON.parse(before[1].data);
  assert.deepEqual(Object.keys(told), ['channel', 'code', 'reason', 'expected_stream_id',
    'current_stream_id', 'oldest_available_serial', 'newest_available_serial']);
  assert.deepEqual([told.channel, told.code, told.expected_stream_id, told.current_stream_id],
                   [channel, 'stream_reset', wrong, stream_id]);
  assert.deepEqual(recovered, []);
  assert.deepEqual(failed, [told]);
  await t.publish(app, channel, 'ev', '3');
  assert.equal((await ws.next()).serial, 3);
});
const unverifiable = {
  'no stream_id': (p) => ({ channel_positions: { [p.channel]: { serial: 1 } } }),
  'stream_id null': (p) => ({ channel_positions: { [p.channel]: { serial: 1, stream_id: null } } }),
  'only a serial': (p) => ({ channel_serials: { [p.channel]: 1 } }),
  'a serial that is ahead': (p) => ({ channel_positions: { [p.channel]: { serial: 99,
    stream_id: p.stream_id } } }),
};
for (const [what, data] of Object.entries(unverifiable)) {
  s.test(`${what}: continuity_unverifiable`, async (t) => {
    const p = await filled(t, 2);
    const ws = await open_v2(t, app);
    in_one_write(ws, [{ event: 'sockudo:resume', data: JSON.stringify(data(p)) },
                      subscribe(ws, p.channel)]);
    const { failed } = await until_aggregate(ws);
    assert.deepEqual(failed.map((f) => [f.channel, f.code]),
                     [[p.channel, 'continuity_unverifiable']]);
  });
}
s.test('data as an object, serials in text, every prefix', async (t) => {
  const { channel, stream_id } = await filled(t, 3);
  for (const event of ['sockudo:resume', 'pusher:resume']) {
    const ws = await open_v2(t, app);
    await join_v2(ws, channel);
    ws.send({ event, data: { channel_positions: { [channel]: { stream_id, serial: '1' } } } });
    const { before } = await until_aggregate(ws);
    assert.deepEqual(before.map((m) => m.serial), [2, 3]);
  }
});
s.test('an empty channel at its beginning recovers with nothing', async (t) => {
  const { channel, stream_id } = await filled(t, 0);
  const ws = await open_v2(t, app);
  in_one_write(ws, [resume({ [channel]: { stream_id, serial: 0 } }), subscribe(ws, channel)]);
  const { recovered } = await until_aggregate(ws);
  assert.deepEqual(recovered, [{ channel, source: 'hot', replayed: 0, position: null }]);
});

s.test('what is refused before anything is done', async (t) => {
  const ws = await open_v2(t, app);
  const send = (data) => ws.send({ event: 'sockudo:resume', data });
  send({ channel_positions: {} });
  await expect_error_v2(ws, 4302, 'No channel recovery positions provided');
  for (const data of ['nothing', '{}', {}, null, undefined, { channel_positions: [] },
                      { channel_positions: { x: {} } },
                      { channel_positions: { x: { serial: -1 } } },
                      { channel_positions: { x: { serial: 1, stream_id: 5 } } }]) {
    send(data);
    await expect_error_v2(ws, 4000, /^Invalid message format: /);
  }
  const many = Object.fromEntries(Array.from({ length: 257 }, (_, i) => [`c${i}`, { serial: 1 }]));
  const before = await hits(t, 'resume_positions');
  send({ channel_positions: many });
  await expect_error_v2(ws, 4000, /./);
  assert.equal(await hits(t, 'resume_positions'), before + 1);
  await expect_nothing_v2(ws);
});
s.test('recovery that is off: 4301', async (t) => {
  const ws = await open_v2(t, mem.plain);
  ws.send(resume({ x: { serial: 1 } }));
  await expect_error_v2(ws, 4301, 'Connection recovery is not enabled');
});
s.test('many channels of one resume, with and without a subscribe before it', async (t) => {
  const channels = [];
  for (let i = 0; i < 12; i++) channels.push(await filled(t, 3));
  const ws = await open_v2(t, app);
  for (const { channel } of channels.slice(0, 4)) await join_v2(ws, channel);
  const positions = Object.fromEntries(channels.map(({ channel, stream_id }, i) =>
    [channel, { stream_id, serial: i % 4 }]));
  in_one_write(ws, [...channels.slice(4, 8).map(({ channel }) => subscribe(ws, channel)),
                    resume(positions),
                    ...channels.slice(8).map(({ channel }) => subscribe(ws, channel))]);
  const { before, recovered, failed } = await until_aggregate(ws);
  assert.deepEqual(failed, []);
  assert.deepEqual(recovered.map((r) => r.channel).sort(), channels.map((c) => c.channel).sort());
  for (const [i, { channel }] of channels.entries()) {
    const serials = before.filter((m) => m.channel === channel && m.event === 'ev')
      .map((m) => m.serial);
    assert.deepEqual(serials, [1, 2, 3].slice(i % 4), `channel ${i}`);
  }
});

/* ---- what is kept back ---- */

s.test('live frames wait for the aggregate, which waits for every subscribe', async (t) => {
  const [a, b] = [await filled(t, 2), await filled(t, 2, 'private-')];
  const [ws, other] = [await open_v2(t, app), await open_v2(t, app)];
  const free = t.name();
  await join_v2(other, a.channel);
  await join_v2(ws, free);
  in_one_write(ws, [subscribe(ws, a.channel), resume({
    [a.channel]: { stream_id: a.stream_id, serial: 1 },
    [b.channel]: { stream_id: b.stream_id, serial: 0 } })]);
  assert.equal((await ws.next()).event, SUCCEEDED);
  assert.equal((await ws.next()).serial, 2);
  for (let i = 3; i <= 5; i++) {
    await t.publish(app, a.channel, 'ev', `${i}`);
    assert.equal((await other.next()).serial, i);
  }
  await t.publish(app, free, 'other', 'x');
  assert.equal((await ws.next()).event, 'other', 'other channels are not held');
  await expect_nothing_v2(ws);
  ws.send(subscribe(ws, b.channel));
  const { before, recovered } = await until_aggregate(ws);
  assert.deepEqual(before.map((m) => [m.event, m.serial]), [[SUCCEEDED, 0], ['ev', 1], ['ev', 2]]);
  assert.deepEqual(recovered.map((r) => r.replayed).sort(), [1, 2]);
  const live = [await ws.next(), await ws.next(), await ws.next()];
  assert.deepEqual(live.map((m) => m.serial), [3, 4, 5]);
  await expect_nothing_v2(ws);
});
s.test('a channel nobody subscribes to: `failed` after 5 s, resume_failed after 10', async (t) => {
  const [a, b] = [await filled(t, 1), await filled(t, 1)];
  const ws = await open_v2(t, app);
  const began = Date.now(), hits_before = await hits(t, 'resume_time');
  in_one_write(ws, [subscribe(ws, a.channel), resume({
    [a.channel]: { stream_id: a.stream_id, serial: 0 },
    [b.channel]: { stream_id: b.stream_id, serial: 0 } })]);
  await ws.until('ev');
  await t.publish(app, a.channel, 'ev', '2');
  const { before, recovered, failed } = await until_aggregate(ws);
  assert.ok(Date.now() - began >= 4900 && Date.now() - began < 9500, `${Date.now() - began} ms`);
  assert.deepEqual(before, []);
  assert.deepEqual(recovered.map((r) => r.channel), [a.channel]);
  assert.deepEqual(failed.map((f) => [f.channel, f.code, f.reason]),
                   [[b.channel, 'continuity_unverifiable', 'not_subscribed']]);
  assert.equal((await ws.next()).serial, 2, 'live behind the aggregate');
  const told = JSON.parse((await ws.until(FAILED)).data);
  assert.ok(Date.now() - began >= 9900, `${Date.now() - began} ms`);
  assert.ok(await hits(t, 'resume_time') >= hits_before + 2, 'after 5 s and after 10');
  assert.deepEqual([told.channel, told.code, told.reason],
                   [b.channel, 'continuity_unverifiable', 'not_subscribed']);
  const late = await join_v2(ws, b.channel);
  assert.equal(late.serial, 1, 'the position is forgotten');
});
s.test('between the two a subscribe still takes the position along', async (t) => {
  const b = await filled(t, 2);
  const ws = await open_v2(t, app);
  ws.send(resume({ [b.channel]: { stream_id: b.stream_id, serial: 0 } }));
  await until_aggregate(ws);
  assert.equal((await join_v2(ws, b.channel)).serial, 0);
  assert.deepEqual([await ws.next(), await ws.next()].map((m) => m.serial), [1, 2]);
  await t.publish(app, b.channel, 'ev', '3');
  assert.equal((await ws.next()).serial, 3);
  await expect_nothing_v2(ws);
});
s.test('one resume at a time', async (t) => {
  const a = await filled(t, 1);
  const ws = await open_v2(t, app);
  const again = resume({ [a.channel]: { stream_id: a.stream_id, serial: 0 } });
  ws.send(again);
  ws.send(again);
  await expect_error_v2(ws, 4301, /resume/);
  await until_aggregate(ws);
  ws.send(again);
  await expect_nothing_v2(ws);
  ws.send(subscribe(ws, a.channel));
  const { recovered } = await until_aggregate(ws);
  assert.equal(recovered[0].replayed, 1);
});
s.test('a channel that is given up meanwhile fails in the aggregate only', async (t) => {
  const [a, b] = [await filled(t, 1), await filled(t, 1)];
  const ws = await open_v2(t, app);
  await join_v2(ws, a.channel);
  in_one_write(ws, [resume({ [a.channel]: { stream_id: a.stream_id, serial: 0 },
                             [b.channel]: { stream_id: b.stream_id, serial: 0 } }),
                    { event: 'sockudo:unsubscribe', data: { channel: a.channel } },
                    subscribe(ws, b.channel)]);
  const { before, recovered, failed } = await until_aggregate(ws);
  assert.ok(before.every((m) => m.event !== FAILED), JSON.stringify(before));
  assert.deepEqual(recovered.map((r) => r.channel), [b.channel]);
  assert.deepEqual(failed.map((f) => [f.channel, f.reason]), [[a.channel, 'not_subscribed']]);
});
s.test('more than may be kept back: the answer leaves early, then all of it', async (t) => {
  const [a, b] = [await filled(t, 1), await filled(t, 1)];
  const ws = await open_v2(t, app), hits_before = await hits(t, 'resume_gate');
  in_one_write(ws, [subscribe(ws, a.channel), resume({
    [a.channel]: { stream_id: a.stream_id, serial: 1 },
    [b.channel]: { stream_id: b.stream_id, serial: 0 } })]);
  await ws.until(SUCCEEDED);
  for (let i = 0; i <= MESSAGES_MAX; i++) await t.publish(app, a.channel, 'ev', `${i}`);
  const { before, recovered, failed } = await until_aggregate(ws, 4000);
  assert.deepEqual([before, recovered.map((r) => r.channel), failed.map((f) => f.channel)],
                   [[], [a.channel], [b.channel]]);
  assert.equal(await hits(t, 'resume_gate'), hits_before + 1);
  for (let i = 0; i <= MESSAGES_MAX; i++) assert.equal((await ws.next()).data, `${i}`);
  await t.publish(app, a.channel, 'ev', 'live');
  assert.equal((await ws.next()).data, 'live');
});
s.test('sockets that end during a resume leave nothing behind', async (t) => {
  const [a, b] = [await filled(t, 3), await filled(t, 3)];
  for (let i = 0; i < 12; i++) {
    const ws = await open_v2(t, app);
    const positions = { [a.channel]: { stream_id: a.stream_id, serial: 1 },
                        [b.channel]: { stream_id: b.stream_id, serial: 0 } };
    const messages = [subscribe(ws, a.channel), resume(positions)];
    in_one_write(ws, i % 2 ? messages : messages.reverse());
    if (i % 3 > 0) await ws.until(SUCCEEDED);
    if (i % 3 === 2) await t.publish(app, a.channel, 'ev', 'x');
    if (i % 4 === 0) leave_v2(ws, a.channel);
    if (i % 2) ws.reset(); else ws.close(1000);
    await ws.gone();
  }
  for (let tries = 0; ; tries++) {
    const r = await t.api(app, 'GET', `/channels/${a.channel}`,
                          { query: { info: 'subscription_count' } });
    if (r.json.subscription_count === 0) break;
    assert.ok(tries < 200, r.text);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});
s.test('append_mode=full: a replay shows whole texts', async (t) => {
  const channel = t.name();
  const first = await open_v2(t, app);
  const { stream_id } = await join_v2(first, channel);
  const r = await t.api(app, 'POST', '/events', { body: { name: 'ev', channel, data: 'a',
                                                          info: 'subscription_count' } });
  const serial = r.json.channels[channel].message_serial;
  for (const data of ['b', 'c']) {
    const at = `/channels/${channel}/messages/${encodeURIComponent(serial)}/append`;
    const done = await t.api(app, 'POST', at, { body: { data } });
    assert.equal(done.status, 200, done.text);
  }
  for (const [query, last] of [['append_mode=full', 'abc'], ['append_mode=delta', 'c']]) {
    const ws = await open_v2(t, app, query);
    subscribe_v2(ws, channel);
    await ws.until(SUCCEEDED);
    ws.send(resume({ [channel]: { stream_id, serial: 1 } }));
    const { before } = await until_aggregate(ws);
    assert.equal(before.at(-1).data, last, query);
    assert.equal(before.at(-1).event, 'sockudo:message.append');
    assert.deepEqual(await flush_v2(ws), []);
  }
});

s.test('a repeated subscribe is answered behind what the resume keeps back', async (t) => {
  const [a, b] = [await filled(t, 2), await filled(t, 1)];
  const ws = await open_v2(t, app);
  subscribe_v2(ws, a.channel);
  await ws.until(SUCCEEDED);
  ws.send(resume({ [a.channel]: { stream_id: a.stream_id, serial: 1 },
                   [b.channel]: { stream_id: b.stream_id, serial: 0 } }));   /* waits for b */
  assert.equal((await ws.next()).serial, 2, 'the replay of a');
  await t.publish(app, a.channel, 'ev', 'kept');
  subscribe_v2(ws, a.channel);
  await expect_nothing_v2(ws);
  subscribe_v2(ws, b.channel);
  const { recovered } = await until_aggregate(ws);
  assert.equal(recovered.length, 2);
  assert.equal((await ws.next()).serial, 3, 'what was kept');
  const again = await ws.next();
  assert.deepEqual([again.event, again.channel, again.serial], [SUCCEEDED, a.channel, 3]);
});

const large = suite('v2 resume, large replays', { parallel: 1, config: mem_config });
large.test('a reader who is still reading what he asked for is not too slow', async (t) => {
  const [CHANNELS, ROWS, LIVE] = [4, 380, 1500];
  const data = 'x'.repeat(10000);
  const rooms = await Promise.all(Array.from({ length: CHANNELS }, () => filled(t, 1)));
  await Promise.all(rooms.map(async ({ channel }) => {
    for (let i = 0; i < ROWS; i++) await t.publish(app, channel, 'ev', data);
  }));
  const ws = await open_v2(t, app);
  ws.socket.pause();
  in_one_write(ws, [...rooms.map((r) => subscribe(ws, r.channel)), resume(Object.fromEntries(
    rooms.map((r) => [r.channel, { stream_id: r.stream_id, serial: 1 }])))]);
  for (let i = 0; i < LIVE; i += 10) {       /* far more than the socket's buffers and bounds */
    await Promise.all(Array.from({ length: 10 }, () => t.publish(app, rooms[0].channel, 'live')));
  }
  ws.socket.resume();
  const { before, recovered, failed } = await until_aggregate(ws, 20000);
  assert.deepEqual(failed, []);
  assert.equal(recovered.length, CHANNELS);
  const count = (name) => before.filter((m) => (m.name ?? m.event) === name).length;
  assert.equal(count('ev'), CHANNELS * ROWS);
  const replayed = count('live');
  for (let i = replayed; i < LIVE; i++) assert.equal((await ws.next()).event, 'live');
});

large.test('append_mode=full: hundreds of messages that grew meanwhile come as whole texts',
  async (t) => {
    const COUNT = 600;                       /* more than the ring holds: read from the store */
    const { channel, stream_id } = await filled(t, 0);
    const each = async (fn) => {
      for (let i = 0; i < COUNT; i += 20) {
        await Promise.all(Array.from({ length: 20 }, (_, k) => fn(i + k)));
      }
    };
    const serials = [];
    await each(async (i) => {
      const r = await t.api(app, 'POST', '/events', { body: { name: 'ev', channel, data: `<${i}`,
                                                              info: 'subscription_count' } });
      serials[i] = r.json.channels[channel].message_serial;
    });
    await each(async (i) => {
      const at = `/channels/${channel}/messages/${encodeURIComponent(serials[i])}/append`;
      const r = await t.api(app, 'POST', at, { body: { data: `${i}>` } });
      assert.equal(r.status, 200, r.text);
    });
    const ws = await open_v2(t, app, 'append_mode=full');
    in_one_write(ws, [resume({ [channel]: { stream_id, serial: COUNT } }),
                      subscribe(ws, channel)]);
    const { before, recovered, failed } = await until_aggregate(ws, 20000);
    assert.deepEqual(failed, []);
    assert.equal(recovered[0].source, 'cold');
    const texts = before.filter((m) => m.event !== SUCCEEDED).map((m) => m.data).sort();
    assert.deepEqual(texts, Array.from({ length: COUNT }, (_, i) => `<${i}${i}>`).sort());
  });
