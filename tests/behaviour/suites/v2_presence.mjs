/* v2_presence.mjs - presence channels of V2 sockets: frames, presence_update, ungraceful leaves.
 *
 * Source   spec/protocol-v2.md 3, 4.3, 9.3, 9.4, appendix B Q1; spec/settled.md 19.
 */
import { suite } from '../runner.mjs';
import { app_entry } from '../apps.mjs';
import { assert, eventually, is_event } from '../expect.mjs';
import { join } from '../clients.mjs';
import { OP, frame } from '../ws_raw.mjs';
import { expect_error_v2, expect_nothing_v2, is_success, join_v2, leave_v2, open_v2, sign_in_v2,
         subscribe_v2, v2_app } from '../v2_raw.mjs';

const GRACE_MS = 2000;
const small = app_entry('vsmall', { limits: { max_presence_members_per_channel: 2 } });
const s = suite('v2 presence', { parallel: 12, config: { app_manager: { array: {
  apps: [v2_app, small] } },
  presence: { v2_ungraceful_timeout_seconds: GRACE_MS / 1000 } } });
const ADDED = 'sockudo_internal:member_added';
const REMOVED = 'sockudo_internal:member_removed';
const UPDATED = 'sockudo_internal:presence_update';
const member = (user_id, user_info) => ({ member: { user_id, user_info } });

/* Two members, the first of which has heard of the second. */
async function pair(t, channel) {
  const [a, b] = [await open_v2(t), await open_v2(t)];
  await join_v2(a, channel, member('u1'));
  await join_v2(b, channel, member('u2', { n: 2 }));
  await a.until(ADDED);
  return [a, b];
}

s.test('the success lists everyone, the joiner included', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await open_v2(t), await open_v2(t)];
  await join_v2(a, channel, member('u1', { n: 1 }));
  const m = await join_v2(b, channel, member('u2'));
  const { presence, ...rest } = JSON.parse(m.data);
  assert.deepEqual(rest, {});
  assert.deepEqual([...presence.ids].sort(), ['u1', 'u2']);
  assert.deepEqual(presence.hash, { u1: { n: 1 }, u2: {} });
  assert.equal(presence.count, 2);
});
s.test('a full channel: 4100, and the socket stays; a member may come again', async (t) => {
  const channel = t.name('presence-');
  const sockets = [];
  for (let i = 0; i < 4; i++) sockets.push(await open_v2(t, small));
  const [a, b, c, d] = sockets;
  await join_v2(a, channel, member('u1'));
  await join_v2(b, channel, member('u2'));
  subscribe_v2(c, channel, member('u3'));
  await expect_error_v2(c, 4100, 'Over capacity');
  await expect_nothing_v2(c);
  await join_v2(d, channel, member('u2'));
  leave_v2(a, channel);
  await b.until(REMOVED);
  await join_v2(c, channel, member('u3'));
});
s.test('member_added and member_removed, byte for byte, to the others only', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await open_v2(t), await open_v2(t)];
  await join_v2(a, channel, member('u1'));
  await join_v2(b, channel, member('u2', { n: 1 }));
  assert.equal((await a.take()).text, `{"event":"${ADDED}","channel":"${channel}",`
    + '"data":"{\\"user_id\\":\\"u2\\",\\"user_info\\":{\\"n\\":1}}"}');
  leave_v2(b, channel);
  assert.equal((await a.take()).text, `{"event":"${REMOVED}","channel":"${channel}",`
    + '"data":"{\\"user_id\\":\\"u2\\"}"}');
  await expect_nothing_v2(b);
});
s.test('V1 and V2 members see each other, each in its own words', async (t) => {
  const channel = t.name('presence-');
  const [one, two] = [await t.open(v2_app), await open_v2(t)];
  await join(one, channel, { user_id: 'u1' });
  const m = await join_v2(two, channel, member('u2'));
  assert.equal(JSON.parse(m.data).presence.count, 2);
  is_event(await one.next(), { event: 'pusher_internal:member_added', channel,
                               data: '{"user_id":"u2","user_info":{}}' });
  one.close(1000);
  is_event(await two.next(), { event: REMOVED, channel, data: '{"user_id":"u1"}' });
});

/* ---- presence_update ---- */

const forms = {
  'data as text, as the page has it': (channel, info) =>
    ({ event: 'sockudo:presence_update', data: JSON.stringify({ channel, data: info }) }),
  'data as an object': (channel, info) =>
    ({ event: 'sockudo:presence_update', data: { channel, data: info } }),
  'the channel in the envelope, user_info inside': (channel, info) =>
    ({ event: 'sockudo:presence_update', channel, data: { user_info: info } }),
  'the channel in the envelope, the info itself': (channel, info) =>
    ({ event: 'sockudo:presence_update', channel, data: info }),
  'the other prefix': (channel, info) =>
    ({ event: 'pusher:presence_update', data: { channel, data: info } }),
};
for (const [what, form] of Object.entries(forms)) {
  s.test(`presence_update: ${what}`, async (t) => {
    const channel = t.name('presence-');
    const [a, b] = await pair(t, channel);
    b.send(form(channel, { mood: 'busy', at: [1, 2] }));
    const data = JSON.stringify('{"user_id":"u2","user_info":{"mood":"busy","at":[1,2]}}');
    for (const ws of [a, b]) {
      assert.equal((await ws.take()).text,
                   `{"event":"${UPDATED}","channel":"${channel}","data":${data}}`);
    }
  });
}
s.test('V1 members hear nothing of it, newcomers see the new info', async (t) => {
  const channel = t.name('presence-');
  const [one, two, late] = [await t.open(v2_app), await open_v2(t), await open_v2(t)];
  await join(one, channel, { user_id: 'u1' });
  await join_v2(two, channel, member('u2', { old: true }));
  for (const info of [{ n: 1 }, { n: 2, text: 'ü"' }]) {
    two.send({ event: 'sockudo:presence_update', data: { channel, data: info } });
    const { data } = await two.until(UPDATED);
    assert.deepEqual(JSON.parse(data), { user_id: 'u2', user_info: info });
  }
  await t.publish(v2_app, channel, 'after');
  const heard = [];
  while (heard.at(-1) !== 'after') heard.push((await one.next()).event);
  assert.deepEqual(heard, ['pusher_internal:member_added', 'after']);
  const m = await join_v2(late, channel, member('u3'));
  assert.deepEqual(JSON.parse(m.data).presence.hash.u2, { n: 2, text: 'ü"' });
});
const refusals = {
  'no channel': [() => ({ data: {} }), /channel is required/],
  'no data': [(channel) => ({ channel }), /required/],
  'a public channel': [() => ({ channel: 'public', data: {} }), /./],
  'a channel one is not on': [() => ({ channel: 'presence-other', data: {} }), /./],
  'data of 1025 bytes': [(channel) => ({ channel, data: 'x'.repeat(1023) }), /./],
};
for (const [what, [data, text]] of Object.entries(refusals)) {
  s.test(`presence_update with ${what}: 4000`, async (t) => {
    const channel = t.name('presence-');
    const ws = await open_v2(t);
    await join_v2(ws, channel, member('u1'));
    ws.send({ event: 'sockudo:presence_update', data: data(channel) });
    await expect_error_v2(ws, 4000, text);
    await expect_nothing_v2(ws);
  });
}
s.test('data of 1024 bytes is fine', async (t) => {
  const channel = t.name('presence-');
  const ws = await open_v2(t);
  await join_v2(ws, channel, member('u1'));
  ws.send({ event: 'sockudo:presence_update', data: { channel, data: 'x'.repeat(1022) } });
  assert.equal(JSON.parse((await ws.next()).data).user_info.length, 1022);
});
s.test('ten updates a second and member, whatever the socket: then 4301', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await open_v2(t), await open_v2(t)];
  await join_v2(a, channel, member('same'));
  await join_v2(b, channel, member('same'));
  const update = JSON.stringify({ event: 'sockudo:presence_update', data: { channel, data: 1 } });
  a.write(Buffer.concat(Array.from({ length: 25 }, () => frame(OP.TEXT, update))));
  let [errors, heard] = [0, 0];
  while (errors < 15) {
    const m = await a.next();
    if (m.event === UPDATED) heard += 1;
    if (m.event !== 'sockudo:error') continue;
    assert.equal(m.data.code, 4301);
    errors += 1;
  }
  assert.equal(heard, 10);
  b.send(JSON.parse(update));
  const seen = [];
  while (seen.at(-1)?.event !== 'sockudo:error') seen.push(await b.next());
  assert.equal(seen.filter((m) => m.event === UPDATED).length, 10, 'its other socket is bound too');
});
s.test('the presence capability is needed where there is a list', async (t) => {
  const channel = t.name('presence-');
  const ws = await open_v2(t);
  await join_v2(ws, channel, member('u1'));
  await sign_in_v2(ws, { id: t.name('u'), capabilities: { presence: [] } });
  ws.send({ event: 'sockudo:presence_update', data: { channel, data: 1 } });
  await expect_error_v2(ws, 4009, /^Authentication error: /);
});

/* ---- leaving ---- */

s.test('a Close frame: member_removed at once', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = await pair(t, channel);
  const began = Date.now();
  b.close(1000);
  assert.equal((await a.next()).event, REMOVED);
  assert.ok(Date.now() - began < GRACE_MS);
});
for (const [what, end] of Object.entries({ 'a reset': (ws) => ws.reset(),
                                           'an end without Close': (ws) => ws.socket.end() })) {
  s.test(`${what}: member_removed after the grace time`, async (t) => {
    const channel = t.name('presence-');
    const [a, b] = await pair(t, channel);
    const began = Date.now();
    end(b);
    const late = await open_v2(t);
    const m = await join_v2(late, channel, member('u3'));
    assert.deepEqual(JSON.parse(m.data).presence.ids.sort(), ['u1', 'u2', 'u3'], 'still listed');
    await a.until(REMOVED, (f) => f.data === '{"user_id":"u2"}');
    assert.ok(Date.now() - began >= GRACE_MS * 0.9, `${Date.now() - began} ms`);
  });
}
s.test('who is back in time was never away', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = await pair(t, channel);
  b.reset();
  await eventually(async () => {
    const r = await t.api(v2_app, 'GET', `/channels/${channel}`,
                          { query: { info: 'subscription_count' } });
    return r.json.subscription_count === 1;
  }, 'the socket to be gone');
  const again = await open_v2(t);
  await join_v2(again, channel, member('u2', { n: 3 }));
  await new Promise((resolve) => setTimeout(resolve, GRACE_MS * 1.3));
  await expect_nothing_v2(a);
});
s.test('V1 members have no grace time by default', async (t) => {
  const channel = t.name('presence-');
  const [one, two] = [await t.open(v2_app), await open_v2(t)];
  await join_v2(two, channel, member('u2'));
  await join(one, channel, { user_id: 'u1' });
  await two.until(ADDED);
  const began = Date.now();
  one.reset();
  assert.equal((await two.next()).event, REMOVED);
  assert.ok(Date.now() - began < GRACE_MS);
});
s.test('a fatal error: member_removed at once', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = await pair(t, channel);
  await sign_in_v2(b, { id: 'fatal-user' });
  const began = Date.now();
  const r = await t.api(v2_app, 'POST', '/users/fatal-user/terminate_connections');
  assert.equal(r.status, 200);
  assert.equal((await a.next()).event, REMOVED);
  assert.ok(Date.now() - began < GRACE_MS);
});
s.test('presence channels that are caches: success, then the event', async (t) => {
  const channel = t.name('presence-cache-');
  const ws = await open_v2(t);
  subscribe_v2(ws, channel, member('u1'));
  assert.equal(JSON.parse(is_success(await ws.next()).data).presence.count, 1);
  assert.equal((await ws.next()).event, 'sockudo:cache_miss');
});
