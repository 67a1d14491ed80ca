/* v1_watchlist.mjs - who of my watchlist is online; how many subscribe a channel.
 *
 * Source   spec/pusher-v1.md 5 (watchlist), 6; spec/settled.md 12, 19.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_error, expect_nothing } from '../expect.mjs';
import { channel_auth, join, leave, sign_in, user_auth, user_channel } from '../clients.mjs';

const s = suite('v1 watchlist', { shared: true });

/* The next message is a watchlist frame; returns {online, offline} with sorted ids. */
async function status(ws) {
  const m = await ws.next();
  assert.equal(m.event, 'pusher_internal:watchlist_events', JSON.stringify(m));
  assert.deepEqual(Object.keys(m).sort(), ['data', 'event']);
  assert.equal(typeof m.data, 'string');
  const { events, ...rest } = JSON.parse(m.data);
  assert.deepEqual(rest, {});
  const found = {};
  for (const { name, user_ids, ...more } of events) {
    assert.deepEqual(more, {});
    assert.equal(found[name], undefined, 'one list of each kind');
    found[name] = [...user_ids].sort();
  }
  return found;
}
/* Reads frames until `want` is what they said, for states that change while we look. */
async function sees(ws, want) { assert.deepEqual(await status(ws), want); }

s.test('the initial status comes right after signin_success', async (t) => {
  const [on, off, off2] = [t.name('u'), t.name('u'), t.name('u')];
  const [friend, ws] = [await t.open(), await t.open()];
  await sign_in(friend, { id: on });
  await sign_in(ws, { id: t.name('u'), watchlist: [on, off, off2] });
  await sees(ws, { online: [on], offline: [off, off2].sort() });
  await expect_nothing(ws);
  await expect_nothing(friend);
});
s.test('a list may be absent, but not empty', async (t) => {
  const [on, off] = [t.name('u'), t.name('u')];
  const [friend, a, b] = [await t.open(), await t.open(), await t.open()];
  await sign_in(friend, { id: on });
  await sign_in(a, { id: t.name('u'), watchlist: [on] });
  await sees(a, { online: [on] });
  await sign_in(b, { id: t.name('u'), watchlist: [off] });
  await sees(b, { offline: [off] });
});
s.test('one notification per transition, to each socket of each watcher', async (t) => {
  const [friend, watcher] = [t.name('u'), t.name('u')];
  const watching = [await t.open(), await t.open(), await t.open()];
  for (const [i, ws] of watching.entries()) {
    await sign_in(ws, { id: i < 2 ? watcher : t.name('u'), watchlist: [friend] });
    await sees(ws, { offline: [friend] });
  }
  const [first, second] = [await t.open(), await t.open()];
  await sign_in(first, { id: friend });
  for (const ws of watching) await sees(ws, { online: [friend] });
  await sign_in(second, { id: friend });
  await sign_in(second, { id: friend });
  first.reset();
  await eventually(async () => {
    const r = await t.api(t.apps.main, 'POST', '/events', { body: {
      name: 'x', data: 'x', channels: [user_channel(friend)], info: 'subscription_count' } });
    return r.json.channels[user_channel(friend)].subscription_count <= 1;
  }, 'the first socket is gone');
  for (const ws of watching) await expect_nothing(ws);
  second.close(1000);
  for (const ws of watching) await sees(ws, { offline: [friend] });
  const third = await t.open();
  await sign_in(third, { id: friend });
  for (const ws of watching) await sees(ws, { online: [friend] });
});
s.test('a user without a watchlist of its own is seen too', async (t) => {
  const friend = t.name('u');
  const [ws, other] = [await t.open(), await t.open()];
  await sign_in(ws, { id: t.name('u'), watchlist: [friend] });
  await sees(ws, { offline: [friend] });
  await sign_in(other, { id: friend });
  await sees(ws, { online: [friend] });
});
s.test('signing in as someone else is offline for one and online for the other', async (t) => {
  const [first, second] = [t.name('u'), t.name('u')];
  const [ws, friend] = [await t.open(), await t.open()];
  await sign_in(ws, { id: t.name('u'), watchlist: [first, second] });
  await sees(ws, { offline: [first, second].sort() });
  await sign_in(friend, { id: first });
  await sees(ws, { online: [first] });
  await sign_in(friend, { id: second });
  const both = [await status(ws), await status(ws)];
  assert.ok(both.some((m) => m.offline?.[0] === first), JSON.stringify(both));
  assert.ok(both.some((m) => m.online?.[0] === second), JSON.stringify(both));
});
s.test('a new sign-in replaces the watchlist', async (t) => {
  const [old, fresh, id] = [t.name('u'), t.name('u'), t.name('u')];
  const [ws, a, b] = [await t.open(), await t.open(), await t.open()];
  await sign_in(ws, { id, watchlist: [old] });
  await sees(ws, { offline: [old] });
  await sign_in(ws, { id, watchlist: [fresh] });
  await sees(ws, { offline: [fresh] });
  await sign_in(a, { id: old });
  await sign_in(b, { id: fresh });
  await sees(ws, { online: [fresh] });
  await expect_nothing(ws);
});
s.test('terminated users go offline', async (t) => {
  const friend = t.name('u');
  const [ws, other] = [await t.open(), await t.open()];
  await sign_in(other, { id: friend });
  await sign_in(ws, { id: t.name('u'), watchlist: [friend] });
  await sees(ws, { online: [friend] });
  await t.api(t.apps.main, 'POST', `/users/${friend}/terminate_connections`, { body: '{}' });
  await sees(ws, { offline: [friend] });
});
s.test('presence does not put anybody online', async (t) => {
  const friend = t.name('u');
  const [ws, member] = [await t.open(), await t.open()];
  await sign_in(ws, { id: t.name('u'), watchlist: [friend] });
  await sees(ws, { offline: [friend] });
  await join(member, t.name('presence-'), { user_id: friend });
  await expect_nothing(ws);
});
s.test('the first to look may be the last to leave', async (t) => {
  const friend = t.name('u');
  for (let round = 0; round < 5; round++) {
    const [ws, other] = [await t.open(), await t.open()];
    await sign_in(ws, { id: t.name('u'), watchlist: [friend] });
    await sees(ws, { offline: [friend] });
    await sign_in(other, { id: friend });
    await sees(ws, { online: [friend] });
    other.reset();
    await sees(ws, { offline: [friend] });
    ws.reset();
  }
});
s.test('an id listed twice is reported once', async (t) => {
  const friend = t.name('u');
  const ws = await t.open();
  await sign_in(ws, { id: t.name('u'), watchlist: [friend, friend] });
  const { offline } = await status(ws);
  assert.deepEqual([...new Set(offline)], [friend]);
});
s.test('an empty watchlist is silent', async (t) => {
  const ws = await t.open();
  await sign_in(ws, { id: t.name('u'), watchlist: [] });
  await expect_nothing(ws);
});
s.test('100 entries are fine, 101 are refused with the sign-in', async (t) => {
  const many = (n) => Array.from({ length: n }, () => t.name('u'));
  const ws = await t.open();
  const user = JSON.stringify({ id: t.name('u'), watchlist: many(101) });
  ws.send({ event: 'pusher:signin',
            data: { auth: user_auth(ws.app, ws.socket_id, user), user_data: user } });
  await expect_error(ws, 4302, 'Watchlist limit exceeded');
  await expect_nothing(ws);
  const channel = t.name('presence-');
  ws.send({ event: 'pusher:subscribe',
            data: { channel, auth: channel_auth(ws.app, ws.socket_id, channel) } });
  assert.equal((await ws.next()).event, 'pusher:error', 'nobody is signed in');
  await ws.next();
  const hundred = many(100);
  await sign_in(ws, { id: t.name('u'), watchlist: hundred });
  await sees(ws, { offline: hundred.sort() });
});
s.test('an app without watchlist events sends none', async (t) => {
  const app = t.apps.nowatch;
  const friend = t.name('u');
  const [ws, other] = [await t.open(app), await t.open(app)];
  await sign_in(ws, { id: t.name('u'), watchlist: [friend] });
  await sign_in(other, { id: friend });
  await expect_nothing(ws);
});

/* ---- subscription count ---- */
const c = suite('v1 subscription count', { shared: true });
const count_of = async (ws, channel) => {
  const m = await ws.next();
  assert.equal(m.event, 'pusher_internal:subscription_count', JSON.stringify(m));
  assert.equal(m.channel, channel);
  assert.equal(typeof m.data, 'string');
  return JSON.parse(m.data).subscription_count;
};
for (const kind of ['', 'private-', 'private-encrypted-']) {
  c.test(`"${kind}*": everyone is told when the number of sockets changes`, async (t) => {
    const app = t.apps.counts;
    const channel = t.name(kind || 'ch-');
    const [a, b] = [await t.open(app), await t.open(app)];
    await join(a, channel);
    assert.equal(await count_of(a, channel), 1);
    await join(b, channel);
    assert.equal(await count_of(a, channel), 2);
    assert.equal(await count_of(b, channel), 2);
    await join(b, channel);
    await expect_nothing(a);
    leave(b, channel);
    assert.equal(await count_of(a, channel), 1);
    await expect_nothing(b);
    await join(b, channel);
    assert.equal(await count_of(a, channel), 2);
    b.reset();
    assert.equal(await count_of(a, channel), 1);
  });
}
c.test('the frame, byte for byte', async (t) => {
  const channel = t.name();
  const ws = await t.open(t.apps.counts);
  await join(ws, channel);
  assert.equal((await ws.take()).text, '{"event":"pusher_internal:subscription_count","channel":'
    + `"${channel}","data":"{\\"subscription_count\\":1}"}`);
});
c.test('not on presence channels', async (t) => {
  const ws = await t.open(t.apps.counts);
  await join(ws, t.name('presence-'), { user_id: 'u1' });
  await expect_nothing(ws);
});
c.test('not unless the app turns it on', async (t) => {
  const channel = t.name();
  const [a, b] = [await t.open(), await t.open()];
  await join(a, channel);
  await join(b, channel);
  await expect_nothing(a);
});
c.test('above 100 subscribers at most one frame in five seconds', async (t) => {
  const app = t.apps.counts;
  const channel = t.name();
  const sockets = await Promise.all(Array.from({ length: 130 }, () => t.open(app)));
  const [first] = sockets;
  await join(first, channel);
  const seen = [];
  for (const ws of sockets.slice(1, 101)) await join(ws, channel);
  while (seen.at(-1) !== 101 && seen.length < 101) seen.push(await count_of(first, channel));
  const began = Date.now();
  let frames = 0;
  for (const ws of sockets.slice(101)) await join(ws, channel);
  for (let count = 0; count !== 130; frames++) count = await count_of(first, channel);
  const seconds = (Date.now() - began) / 1000;
  assert.ok(frames <= 2 + seconds / 5, `${frames} frames in ${seconds} s`);
});
