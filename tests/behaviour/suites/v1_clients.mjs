/* v1_clients.mjs - the behaviours of the real clients: pusher-js, the pusher SDK.
 *
 * Source   spec/pusher-v1.md 10.
 */
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { connected, heard, record, subscribed } from '../clients.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('clients pusher-js', { shared: true });

s.test('it connects and knows its socket id', async (t) => {
  const p = await connected(t.pusher());
  assert.match(p.connection.socket_id, /^\d+\.\d+$/);
});

/* Waits for the end of the first attempt; the client must not try again. */
async function refused(t, p, code) {
  const states = [];
  p.connection.bind('state_change', ({ current }) => states.push(current));
  const error = await heard(p.connection, 'error', (e) => e.error?.data?.code || e.data?.code);
  assert.equal(error.error?.data?.code ?? error.data?.code, code);
  await eventually(() => p.connection.state === 'disconnected', 'disconnected');
  assert.equal(states.filter((x) => x === 'connecting').length <= 1, true, String(states));
}
s.test('4001: one attempt, then disconnected', async (t) => {
  await refused(t, t.pusher(t.apps.main, { key: 'nobody' }), 4001);
});
s.test('4003: one attempt, then disconnected', async (t) => {
  await refused(t, t.pusher(t.apps.disabled), 4003);
});
s.test('4009 for an origin: one attempt, then disconnected', async (t) => {
  await refused(t, t.pusher(t.apps.origins), 4009);
});

s.test('idle, it pings and stays', async (t) => {
  const p = await connected(t.pusher(t.apps.main, { pusher: { activityTimeout: 300 } }));
  const id = p.connection.socket_id;
  for (let n = 0; n < 3; n++) await heard(p.connection, 'message', (m) => m.event
    === 'pusher:pong');
  assert.equal(p.connection.socket_id, id);
});

for (const kind of ['', 'private-', 'cache-', 'private-cache-']) {
  s.test(`"${kind}*" subscribe, trigger from the SDK, receive`, async (t) => {
    const channel = t.name(kind || 'open-');
    const p = await connected(t.pusher());
    const c = await subscribed(p, channel);
    const event = heard(c, 'App\\Events\\X');
    await t.sdk().trigger(channel, 'App\\Events\\X', { id: 7, text: 'ü🎉' });
    assert.deepEqual(await event, { id: 7, text: 'ü🎉' });
  });
}
s.test('a wrong signature: error 4009 and subscription_error, no success', async (t) => {
  const channel = t.name('private-');
  const p = await connected(t.pusher(t.apps.main, { authorize: () => ({ auth: 'main-key:00' }) }));
  const error = heard(p.connection, 'error');
  const c = p.subscribe(channel);
  const refusal = heard(c, 'pusher:subscription_error');
  assert.equal((await error).data.code, 4009);
  assert.equal(typeof (await refusal).error, 'string');
  assert.equal(c.subscribed, false);
  assert.equal(p.connection.state, 'connected');
});
s.test('encrypted channels are decrypted by the client only', async (t) => {
  const master = Buffer.alloc(32, 7).toString('base64');
  for (const kind of ['private-encrypted-', 'private-encrypted-cache-']) {
    const channel = t.name(kind);
    const options = { sdk: { encryptionMasterKeyBase64: master } };
    const p = await connected(t.pusher(t.apps.main, options));
    const raw = heard(p.connection, 'message', (m) => m.channel === channel && m.event
      === 'secret');
    const c = await subscribed(p, channel);
    const event = heard(c, 'secret');
    await t.sdk(t.apps.main, options).trigger(channel, 'secret', { pin: 1234 });
    assert.deepEqual(await event, { pin: 1234 });
    assert.deepEqual(Object.keys((await raw).data).sort(), ['ciphertext', 'nonce']);
  }
});

const member = (user_id, name) => ({ user_id, user_info: { name } });
s.test('presence: members, me, joins and leaves once per user', async (t) => {
  const channel = t.name('presence-');
  const ann = await connected(t.pusher(t.apps.main, { member: member('u1', 'Ann') }));
  const c = await subscribed(ann, channel);
  assert.equal(c.members.count, 1);
  assert.deepEqual(c.members.me, { id: 'u1', info: { name: 'Ann' } });
  const events = record(c, ['pusher:member_added', 'pusher:member_removed']);
  const bo = [];
  for (let n = 0; n < 2; n++) {
    const p = await connected(t.pusher(t.apps.main, { member: member('u2', 'Bo') }));
    const b = await subscribed(p, channel);
    assert.equal(b.members.count, 2);
    assert.deepEqual(b.members.get('u1'), { id: 'u1', info: { name: 'Ann' } });
    bo.push(p);
  }
  bo[0].disconnect();
  bo[1].unsubscribe(channel);
  await eventually(() => events.length === 2, 'both events');
  assert.deepEqual(events.map((e) => [e.event, e.data.id]),
                   [['pusher:member_added', 'u2'], ['pusher:member_removed', 'u2']]);
  assert.equal(c.members.count, 1);
});
s.test('presence by sign-in: the member is the signed-in user', async (t) => {
  const channel = t.name('presence-');
  const id = t.name('u');
  const p = await connected(t.pusher(t.apps.main, { user: { id, user_info: { name: 'Sam' } } }));
  p.signin();
  await p.user.signinDonePromise;
  const c = await subscribed(p, channel);
  assert.deepEqual(c.members.get(id), { id, info: { name: 'Sam' } });
});
s.test('cache: cache_miss, then the last event', async (t) => {
  const channel = t.name('cache-');
  const p = await connected(t.pusher());
  const c = p.subscribe(channel);
  await heard(c, 'pusher:cache_miss');
  await t.sdk().trigger(channel, 'price', { n: 1 });
  const q = await connected(t.pusher());
  const d = q.subscribe(channel);
  assert.deepEqual(await heard(d, 'price'), { n: 1 });
});
s.test('client events: the others get them, with metadata on presence channels', async (t) => {
  for (const kind of ['private-', 'presence-']) {
    const channel = t.name(kind);
    const [a, b] = [t.pusher(t.apps.main, { member: member('u1', 'A') }),
                    t.pusher(t.apps.main, { member: member('u2', 'B') })];
    await connected(a);
    await connected(b);
    const [ca, cb] = [await subscribed(a, channel), await subscribed(b, channel)];
    const own = record(ca, ['client-a', 'marker']);
    const got = record(cb, ['client-a', 'marker']);
    assert.ok(ca.trigger('client-a', { n: 1 }));
    await eventually(() => got.length === 1, 'the client event');
    await t.sdk().trigger(channel, 'marker', {});
    await eventually(() => own.length === 1 && got.length === 2, 'the marker');
    assert.equal(own[0].event, 'marker');
    assert.deepEqual(got[0].data, { n: 1 });
    assert.equal(got[0].metadata?.user_id, kind === 'presence-' ? 'u1' : undefined);
  }
});
s.test('over the rate limit: error 4301, still connected', async (t) => {
  const channel = t.name('private-');
  const p = await connected(t.pusher(t.apps.rate));
  const c = await subscribed(p, channel);
  const error = heard(p.connection, 'error');
  for (let n = 0; n < 4; n++) c.trigger('client-a', n);
  assert.equal((await error).data.code, 4301);
  assert.equal(p.connection.state, 'connected');
});
s.test('over the rate limit with termination: stays disconnected', async (t) => {
  const channel = t.name('private-');
  const p = await connected(t.pusher(t.apps.rateend));
  const c = await subscribed(p, channel);
  for (let n = 0; n < 4; n++) c.trigger('client-a', n);
  await eventually(() => p.connection.state === 'disconnected', 'disconnected');
});

/* ---- users ---- */
s.test('sign-in, then events for the user', async (t) => {
  const id = t.name('u');
  const p = await connected(t.pusher(t.apps.main, { user: { id, user_info: { a: 1 } } }));
  p.signin();
  await p.user.signinDonePromise;
  assert.deepEqual(p.user.user_data, { id, user_info: { a: 1 } });
  const event = heard(p.user, 'invite');
  await t.sdk().sendToUser(id, 'invite', { room: 4 });
  assert.deepEqual(await event, { room: 4 });
});
s.test('watchlist: online and offline', async (t) => {
  const [me, friend, never] = [t.name('u'), t.name('u'), t.name('u')];
  const p = await connected(t.pusher(t.apps.main, { user: { id: me,
    watchlist: [friend, never] } }));
  const first = heard(p.user.watchlist, 'offline');
  p.signin();
  assert.deepEqual((await first).user_ids.sort(), [friend, never].sort());
  const q = await connected(t.pusher(t.apps.main, { user: { id: friend } }));
  const online = heard(p.user.watchlist, 'online');
  q.signin();
  assert.deepEqual((await online).user_ids, [friend]);
  const offline = heard(p.user.watchlist, 'offline');
  q.disconnect();
  assert.deepEqual((await offline).user_ids, [friend]);
});
s.test('terminateUserConnections: disconnected for good', async (t) => {
  const id = t.name('u');
  const p = await connected(t.pusher(t.apps.main, { user: { id } }));
  p.signin();
  await p.user.signinDonePromise;
  const error = heard(p.connection, 'error', (e) => e.data?.code === 4009);
  await t.sdk().terminateUserConnections(id);
  await error;
  await eventually(() => p.connection.state === 'disconnected', 'disconnected');
});
s.test('force_reconnect: a new socket, signed in and subscribed again', async (t) => {
  const id = t.name('u');
  const channel = t.name('private-');
  const p = await connected(t.pusher(t.apps.main, { user: { id } }));
  p.signin();
  await p.user.signinDonePromise;
  const c = await subscribed(p, channel);
  const before = p.connection.socket_id;
  const again = heard(c, 'pusher:subscription_succeeded');
  await t.sdk().post({ path: `/users/${id}/force_reconnect`, body: {} });
  await again;
  assert.notEqual(p.connection.socket_id, before);
  await p.user.signinDonePromise;
  const event = heard(p.user, 'back');
  await eventually(async () => {
    await t.sdk().sendToUser(id, 'back', 1);
    return Promise.race([event.then(() => true), new Promise((r) => setTimeout(r, 200, false))]);
  }, 'events for the user again');
});
s.test('subscription count', async (t) => {
  const channel = t.name();
  const p = await connected(t.pusher(t.apps.counts));
  const c = await subscribed(p, channel);
  const two = heard(c, 'pusher:subscription_count', (d) => d.subscription_count === 2);
  const q = await connected(t.pusher(t.apps.counts));
  await subscribed(q, channel);
  await two;
  assert.equal(c.subscriptionCount, 2);
});

/* ---- the SDK ---- */
s.test('trigger with socket_id and info', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = [t.pusher(t.apps.main, { member: member('u1', 'A') }),
                  t.pusher(t.apps.main, { member: member('u2', 'B') })];
  await connected(a);
  await connected(b);
  const own = record(await subscribed(a, channel), ['ev', 'marker']);
  const got = record(await subscribed(b, channel), ['ev', 'marker']);
  const r = await t.sdk().trigger(channel, 'ev', {}, { socket_id: a.connection.socket_id,
                                                       info: 'user_count,subscription_count' });
  const { channels } = await r.json();
  assert.equal(channels[channel].user_count, 2);
  assert.equal(channels[channel].subscription_count, 2);
  await t.sdk().trigger(channel, 'marker', {});
  await eventually(() => own.length === 1 && got.length === 2, 'the marker');
  assert.equal(own[0].event, 'marker');
});
s.test('limits: 101 channels, a long name, large data', async (t) => {
  const post = (body) => t.sdk().post({ path: '/events', body }).then((r) => r.status,
    (e) => e.status);
  const ok = { name: 'e', data: 'x', channels: ['c'] };
  assert.equal(await post({ ...ok, channels: Array.from({ length: 101 }, (_, i) => `c${i}`) }),
    400);
  assert.equal(await post({ ...ok, name: 'n'.repeat(201) }), 400);
  assert.equal(await post({ ...ok, data: 'x'.repeat(200000) }), 413);
});

/* ---- reconnects ---- */
s.test('a killed TCP connection: new socket id, everything is repeated', async (t) => {
  const [channel, id] = [t.name('presence-'), t.name('u')];
  const p = await connected(t.pusher(t.apps.main, { member: member('u1', 'A'), user: { id } }));
  p.signin();
  await p.user.signinDonePromise;
  const c = await subscribed(p, channel);
  const before = p.connection.socket_id;
  const again = heard(c, 'pusher:subscription_succeeded');
  const signed_in = heard(p.connection, 'message', (m) => m.event === 'pusher:signin_success');
  p.connection.connection.transport.socket.close();
  await again;
  await signed_in;
  assert.notEqual(p.connection.socket_id, before);
  assert.equal(c.members.count, 1);
});

const small = app_entry('small');
const full = suite('clients server full', { config: {
  max_connections: 1, app_manager: { array: { apps: [small] } } } });
full.test('4100: it tries again after a second and gets in when there is room', async (t) => {
  const holder = await connected(t.pusher(small));
  const p = t.pusher(small);
  const error = heard(p.connection, 'error');
  const got = await error;
  assert.equal(got.error?.data?.code ?? got.data?.code, 4100);
  holder.disconnect();
  await connected(p);
});
