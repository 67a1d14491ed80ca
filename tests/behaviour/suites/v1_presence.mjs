/* v1_presence.mjs - presence channels: member lists, joins and leaves once per user, limits.
 *
 * Source   spec/pusher-v1.md 3.2, 3.5 and its Build notes; spec/settled.md 7, 11, 19.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_error, expect_nothing, expect_refused, is_event, refuse }
  from '../expect.mjs';
import { channel_auth, join, leave, sign_in, subscribe_frame } from '../clients.mjs';

const s = suite('v1 presence', { shared: true });

function added(channel, member) {
  return { event: 'pusher_internal:member_added', channel, data: JSON.stringify(member) };
}
/* A member_added frame; user_info may be left out where the member has none. */
function is_added(m, channel, user_id, user_info = {}) {
  assert.equal(m.event, 'pusher_internal:member_added', JSON.stringify(m));
  assert.equal(m.channel, channel);
  assert.deepEqual({ user_info: {}, ...JSON.parse(m.data) }, { user_id, user_info });
}
function removed(channel, user_id) {
  return { event: 'pusher_internal:member_removed', channel, data: JSON.stringify({ user_id }) };
}
/* The success data: ids and hash in any order. */
function is_list(data, members) {
  const { presence, ...rest } = data;
  assert.deepEqual(rest, {});
  assert.deepEqual([...presence.ids].sort(), Object.keys(members).sort());
  assert.deepEqual(presence.hash, members);
  assert.equal(presence.count, Object.keys(members).length);
}

s.test('the list holds everyone, the joiner included', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await t.open(), await t.open()];
  is_list(await join(a, channel, { user_id: 'u1', user_info: { name: 'Ann' } }),
          { u1: { name: 'Ann' } });
  is_list(await join(b, channel, { user_id: 'u2' }), { u1: { name: 'Ann' }, u2: {} });
});

s.test('member_added and member_removed, byte for byte, to the others only', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await t.open(), await t.open()];
  await join(a, channel, { user_id: 'u1' });
  await join(b, channel, { user_id: 'u2', user_info: { name: 'Bo' } });
  assert.equal((await a.take()).text,
    `{"event":"pusher_internal:member_added","channel":"${channel}"`
    + ',"data":"{\\"user_id\\":\\"u2\\",\\"user_info\\":{\\"name\\":\\"Bo\\"}}"}');
  await expect_nothing(b);
  leave(b, channel);
  assert.equal((await a.take()).text, '{"event":"pusher_internal:member_removed",'
    + `"channel":"${channel}","data":"{\\"user_id\\":\\"u2\\"}"}`);
  await expect_nothing(b);
});

s.test('member_added of a member without user_info', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await t.open(), await t.open()];
  await join(a, channel, { user_id: 'u1' });
  await join(b, channel, { user_id: 'u2' });
  is_added(await a.next(), channel, 'u2');
});

for (const info of [{ a: [1, { b: null }], 'ö': '🎉"\\' }, 'text', 7, [1, 2], true]) {
  s.test(`user_info ${JSON.stringify(info)} keeps its shape`, async (t) => {
    const channel = t.name('presence-');
    const [a, b] = [await t.open(), await t.open()];
    is_list(await join(a, channel, { user_id: 'u1', user_info: info }), { u1: info });
    is_list(await join(b, channel, { user_id: 'u2', user_info: info }), { u1: info, u2: info });
    is_event(await a.next(), added(channel, { user_id: 'u2', user_info: info }));
  });
}

s.test('ids of any characters', async (t) => {
  const channel = t.name('presence-');
  const a = await t.open();
  await join(a, channel, { user_id: 'a' });
  for (const user_id of ['ü"\\/\n', '🎉', ' ', '__proto__x', '#1:2*', 'x'.repeat(128)]) {
    const b = await t.open();
    const { presence } = await join(b, channel, { user_id });
    assert.ok(presence.ids.includes(user_id));
    assert.equal(JSON.parse((await a.next()).data).user_id, user_id);
    leave(b, channel);
    is_event(await a.next(), removed(channel, user_id));
  }
});

s.test('an integer user_id becomes its decimal text', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await t.open(), await t.open()];
  await join(a, channel, { user_id: 'a' });
  is_list(await join(b, channel, '{"user_id":42,"user_info":{"n":1}}'), { a: {}, 42: { n: 1 } });
  const data = JSON.parse((await a.next()).data);
  assert.equal(data.user_id, '42');
  const c = await t.open();
  await join(c, channel, { user_id: '42' });
  await expect_nothing(a);
  assert.deepEqual((await users(t, channel)).sort(), ['42', 'a']);
});

async function users(t, channel) {
  const r = await t.api(t.apps.main, 'GET', `/channels/${channel}/users`);
  assert.equal(r.status, 200, r.text);
  return r.json.users.map((u) => u.id);
}

s.test('a user with several sockets is one member', async (t) => {
  const channel = t.name('presence-');
  const [watcher, a, b, c] = await Promise.all([t.open(), t.open(), t.open(), t.open()]);
  await join(watcher, channel, { user_id: 'w' });
  for (const ws of [a, b, c]) {
    is_list(await join(ws, channel, { user_id: 'u', user_info: { n: 1 } }), { w: {}, u: { n: 1 } });
  }
  is_event(await watcher.next(), added(channel, { user_id: 'u', user_info: { n: 1 } }));
  assert.deepEqual((await users(t, channel)).sort(), ['u', 'w']);
  const info = await t.api(t.apps.main, 'GET', `/channels/${channel}`,
                           { query: { info: 'user_count,subscription_count' } });
  assert.equal(info.json.user_count, 2);
  assert.equal(info.json.subscription_count, 4);
  leave(a, channel);
  await a.flush();
  b.reset();
  await eventually(async () => (await t.api(t.apps.main, 'GET', `/channels/${channel}`,
    { query: { info: 'subscription_count' } })).json.subscription_count === 2, 'b is gone');
  await expect_nothing(watcher);
  await expect_nothing(c);
  leave(c, channel);
  is_event(await watcher.next(), removed(channel, 'u'));
});

const endings = {
  'a close': (ws) => ws.close(1000), 'a reset': (ws) => ws.reset(),
  'the end of TCP': (ws) => ws.socket.end(),
};
for (const [what, end] of Object.entries(endings)) {
  s.test(`${what} removes the member from every channel`, async (t) => {
    const channels = [t.name('presence-'), t.name('presence-'), t.name('presence-')];
    const [a, b] = [await t.open(), await t.open()];
    for (const channel of channels) {
      await join(a, channel, { user_id: 'u1' });
      await join(b, channel, { user_id: 'u2' });
      await a.next();
    }
    end(b);
    const seen = [];
    for (let i = 0; i < 3; i++) seen.push(await a.next());
    assert.deepEqual(seen.map((m) => m.channel).sort(), [...channels].sort());
    for (const m of seen) is_event(m, removed(m.channel, 'u2'));
  });
}

s.test('a second subscribe gets the current list and tells nobody', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await t.open(), await t.open()];
  await join(a, channel, { user_id: 'u1', user_info: { n: 1 } });
  await join(b, channel, { user_id: 'u2' });
  await a.next();
  is_list(await join(a, channel, { user_id: 'u1', user_info: { n: 1 } }), { u1: { n: 1 }, u2: {} });
  await expect_nothing(b);
  const info = await t.api(t.apps.main, 'GET', `/channels/${channel}`,
                           { query: { info: 'subscription_count' } });
  assert.equal(info.json.subscription_count, 2);
});

s.test('one socket may be different users on different channels', async (t) => {
  const [one, two] = [t.name('presence-'), t.name('presence-')];
  const [a, b] = [await t.open(), await t.open()];
  await join(a, one, { user_id: 'x' });
  await join(a, two, { user_id: 'y' });
  await join(b, one, { user_id: 'b' });
  await join(b, two, { user_id: 'b' });
  await a.next();
  await a.next();
  a.reset();
  const seen = [await b.next(), await b.next()].sort((p, q) => (p.channel < q.channel ? -1 : 1));
  const want = [removed(one, 'x'), removed(two, 'y')]
    .sort((p, q) => (p.channel < q.channel ? -1 : 1));
  assert.deepEqual(seen, want);
});

s.test('a signed-in socket keeps the member id of the channel', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await t.open(), await t.open()];
  await join(b, channel, { user_id: 'b' });
  await sign_in(a, { id: 'signed' });
  is_list(await join(a, channel, { user_id: 'member' }), { b: {}, member: {} });
  is_added(await b.next(), channel, 'member');
  leave(a, channel);
  is_event(await b.next(), removed(channel, 'member'));
});

s.test('without channel_data the signed-in user is the member', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await t.open(), await t.open()];
  await join(b, channel, { user_id: 'b' });
  await sign_in(a, { id: 'u7', user_info: { name: 'Sam' } });
  a.send({ event: 'pusher:subscribe',
           data: { channel, auth: channel_auth(a.app, a.socket_id, channel) } });
  const m = await a.next();
  assert.equal(m.event, 'pusher_internal:subscription_succeeded', JSON.stringify(m));
  is_list(JSON.parse(m.data), { b: {}, u7: { name: 'Sam' } });
  is_event(await b.next(), added(channel, { user_id: 'u7', user_info: { name: 'Sam' } }));
});

s.test('without channel_data and without sign-in it is an error, not a drop', async (t) => {
  const channel = t.name('presence-');
  const ws = await t.open();
  ws.send({ event: 'pusher:subscribe',
            data: { channel, auth: channel_auth(ws.app, ws.socket_id, channel) } });
  const m = await ws.next();
  assert.equal(m.event, 'pusher:error');
  assert.ok([4000, 4300].includes(m.data.code), JSON.stringify(m));
  assert.equal((await ws.next()).event, 'pusher:subscription_error');
  await expect_nothing(ws);
});

const bad_data = {
  'not JSON': ['{"user_id":', 4000,
    'Invalid message format: Invalid channel_data JSON for presence'],
  'empty': ['', null, /./],
  'no user_id': ['{"user_info":{}}', 4300, 'Channel error: Missing user_id in channel_data'],
  'user_id null': ['{"user_id":null}', 4300, 'Channel error: Missing user_id in channel_data'],
  'user_id an object': ['{"user_id":{}}', 4300, 'Channel error: Missing user_id in channel_data'],
  'user_id a fraction': ['{"user_id":1.5}', 4300, 'Channel error: Missing user_id in channel_data'],
};
for (const [what, [channel_data, code, text]] of Object.entries(bad_data)) {
  s.test(`signed channel_data: ${what}`, async (t) => {
    const ws = await t.open();
    const channel = t.name('presence-');
    ws.send(subscribe_frame(ws, channel, channel_data));
    if (code) return expect_refused(ws, channel, code, text);
    const m = await ws.next();
    return assert.equal(m.event, 'pusher:error', JSON.stringify(m));
  });
}
s.test('the signature is checked before channel_data is parsed', async (t) => {
  const ws = await t.open();
  const channel = t.name('presence-');
  for (const channel_data of ['{', '{"user_info":{}}', '[]']) {
    ws.send({ event: 'pusher:subscribe', data: { channel, auth: 'main-key:00', channel_data } });
    await expect_refused(ws, channel, 4009,
      'Authentication error: Channel requires authentication');
  }
});
s.test('channel_data is signed as it was sent', async (t) => {
  const ws = await t.open();
  const channel = t.name('presence-');
  const spaced = '{ "user_id" : "u1" , "user_info" : { "n" : 1.50 } }';
  is_list(await join(ws, channel, spaced), { u1: { n: 1.5 } });
  const other = await t.open();
  const frame = subscribe_frame(other, channel, spaced);
  frame.data.channel_data = JSON.stringify(JSON.parse(spaced));
  other.send(frame);
  await expect_error(other, 4009, 'Authentication error: Channel requires authentication');
});

/* ---- limits ---- */
s.test('the member limit: a new user is refused, a member may come again', async (t) => {
  const channel = t.name('presence-');
  const app = t.apps.limits;
  const [a, b, c, again] = await Promise.all([t.open(app), t.open(app), t.open(app), t.open(app)]);
  await join(a, channel, { user_id: 'a' });
  await join(b, channel, { user_id: 'b' });
  await refuse(c, channel, 4100, 'Over capacity', { user_id: 'c' });
  await expect_nothing(c);
  await join(again, channel, { user_id: 'a' });
  const frame = subscribe_frame(c, channel, { user_id: 'c' });
  frame.data.auth = `${app.key}:00`;
  c.send(frame);
  await expect_refused(c, channel, 4009, 'Authentication error: Channel requires authentication');
  leave(b, channel);
  await a.until('pusher_internal:member_removed');   /* the home has taken the leave in */
  await join(c, channel, { user_id: 'c' });
});
s.test('user_info larger than the limit', async (t) => {
  const app = t.apps.limits;
  const ws = await t.open(app);
  const info = (bytes) => ({ user_id: 'u', user_info: { p: 'x'.repeat(bytes - 8) } });
  await join(ws, t.name('presence-'), info(2047));
  await refuse(ws, t.name('presence-'), 4300,
               'Channel error: Presence member data size (2KB) exceeds limit (1KB)', info(2048));
});
s.test('without an own limit the server-wide one holds: 2 KB of user_info', async (t) => {
  const ws = await t.open();
  const info = (bytes) => ({ user_id: 'u', user_info: 'x'.repeat(bytes) });
  await join(ws, t.name('presence-'), info(3000));
  await refuse(ws, t.name('presence-'), 4300,
               'Channel error: Presence member data size (3KB) exceeds limit (2KB)', info(3072));
});
s.test('without an own limit the server-wide one holds: 100 members', async (t) => {
  const channel = t.name('presence-');
  const sockets = await Promise.all(Array.from({ length: 101 }, () => t.open()));
  await Promise.all(sockets.slice(0, 100).map((ws, i) => {
    ws.send(subscribe_frame(ws, channel, { user_id: `u${i}` }));
    return ws.until('pusher_internal:subscription_succeeded');
  }));
  await refuse(sockets[100], channel, 4100, 'Over capacity', { user_id: 'late' });
  await join(sockets[100], channel, { user_id: 'u50' });
});

/* ---- ungraceful_timeout ---- */
const grace = suite('v1 presence grace', { config: {
  presence: { ungraceful_timeout_seconds: 2 },
  app_manager: { array: { apps: [{ id: 'main-id', key: 'main-key',
    secret: 'main-secret' }] } } } });
grace.test('an abrupt end keeps the member until the time is over', async (t) => {
  const channel = t.name('presence-');
  const [a, b, c] = [await t.open(), await t.open(), await t.open()];
  await join(a, channel, { user_id: 'a' });
  await join(b, channel, { user_id: 'b' });
  await join(c, channel, { user_id: 'c' });
  await a.next();
  await a.next();
  const began = Date.now();
  b.reset();
  leave(c, channel);
  is_event(await a.next(), removed(channel, 'c'));
  is_event(await a.next(), removed(channel, 'b'));
  assert.ok(Date.now() - began >= 1500, 'the member stayed for a while');
});
grace.test('coming back in time is silent', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [await t.open(), await t.open()];
  await join(a, channel, { user_id: 'a' });
  await join(b, channel, { user_id: 'b' });
  await a.next();
  b.reset();
  await eventually(async () => (await t.api(t.apps.main, 'GET', `/channels/${channel}`,
    { query: { info: 'subscription_count' } })).json.subscription_count === 1,
      'the socket is gone');
  const back = await t.open();
  is_list(await join(back, channel, { user_id: 'b' }), { a: {}, b: {} });
  const leaver = await t.open();
  await join(leaver, channel, { user_id: 'd' });
  is_added(await a.next(), channel, 'd');
});
