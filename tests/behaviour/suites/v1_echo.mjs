/* v1_echo.mjs - Laravel Echo on top of pusher-js.
 *
 * Source   spec/pusher-v1.md 10 (last rows), 3.3.
 */
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { Echo, connected } from '../clients.mjs';

const s = suite('clients laravel echo', { shared: true });

/* An Echo over a pusher-js client of ours, so that authorization stays in process. */
async function echo(t, options = {}) {
  const client = await connected(t.pusher(t.apps.main, options));
  return new Echo({ broadcaster: 'pusher', key: t.apps.main.key, client });
}
/* A promise and the function that fulfils it. */
function waiter(what) {
  let set;
  const list = [];
  const promise = new Promise((resolve) => { set = resolve; });
  return { list, heard: (value) => { list.push(value); set(value); },
           first: () => Promise.race([promise, new Promise((_, reject) => {
             setTimeout(() => reject(new Error(`${what} was not heard`)), 10000).unref();
           })]) };
}

s.test('channel().listen() of a namespaced event', async (t) => {
  const channel = t.name('orders-');
  const [got, ready] = [waiter('event'), waiter('subscribed')];
  const e = await echo(t);
  e.channel(channel).subscribed(ready.heard).listen('OrderShipped', got.heard)
    .listen('.plain', got.heard);
  await ready.first();
  await t.sdk().trigger(channel, 'App\\Events\\OrderShipped', { id: 7 });
  assert.deepEqual(await got.first(), { id: 7 });
  await t.sdk().trigger(channel, 'plain', { id: 8 });
  await eventually(() => got.list.length === 2, 'the plain event');
});
s.test('private().whisper() reaches the others only', async (t) => {
  const channel = t.name('room-');
  const [a, b] = [await echo(t), await echo(t)];
  const [ready, other, own, got] = [waiter('a'), waiter('b'), waiter('own'), waiter('whisper')];
  a.private(channel).subscribed(ready.heard).listenForWhisper('typing', own.heard);
  b.private(channel).subscribed(other.heard).listenForWhisper('typing', got.heard);
  await ready.first();
  await other.first();
  a.private(channel).whisper('typing', { on: true });
  assert.deepEqual(await got.first(), { on: true });
  assert.deepEqual(own.list, []);
});
s.test('join().here().joining().leaving()', async (t) => {
  const channel = t.name('room-');
  const options = (id, name) => ({ member: { user_id: id, user_info: { name } } });
  const a = await echo(t, options('u1', 'Ann'));
  const [here, joining, leaving] = [waiter('here'), waiter('joining'), waiter('leaving')];
  a.join(channel).here(here.heard).joining(joining.heard).leaving(leaving.heard);
  assert.deepEqual(await here.first(), [{ name: 'Ann' }]);
  const b = await echo(t, options('u2', 'Bo'));
  const all = waiter('all');
  b.join(channel).here(all.heard);
  assert.deepEqual((await all.first()).map((m) => m.name).sort(), ['Ann', 'Bo']);
  assert.deepEqual(await joining.first(), { name: 'Bo' });
  b.leave(channel);
  assert.deepEqual(await leaving.first(), { name: 'Bo' });
});
s.test('error() hears a refusal of the server', async (t) => {
  const e = await echo(t, { authorize: () => ({ auth: 'main-key:00' }) });
  const failed = waiter('error');
  e.private(t.name('room-')).error(failed.heard);
  const error = await failed.first();
  assert.equal(typeof error.error, 'string');
});
s.test('toOthers(): X-Socket-Id is the socket id that the API excludes', async (t) => {
  const channel = t.name('room-');
  const [a, b] = [await echo(t), await echo(t)];
  const [ra, rb, own, got] = [waiter('a'), waiter('b'), waiter('own'), waiter('event')];
  a.channel(channel).subscribed(ra.heard).listen('.ev', own.heard);
  b.channel(channel).subscribed(rb.heard).listen('.ev', got.heard);
  await ra.first();
  await rb.first();
  await t.sdk().trigger(channel, 'ev', { n: 1 }, { socket_id: a.socketId() });
  await got.first();
  await t.sdk().trigger(channel, 'ev', { n: 2 });
  assert.deepEqual(await own.first(), { n: 2 });
});
s.test('encryptedPrivate()', async (t) => {
  const master = { sdk: { encryptionMasterKeyBase64: Buffer.alloc(32, 9).toString('base64') } };
  const name = t.name('room-');
  const e = await echo(t, master);
  const [ready, got] = [waiter('subscribed'), waiter('event')];
  e.encryptedPrivate(name).subscribed(ready.heard).listen('.ev', got.heard);
  await ready.first();
  await t.sdk(t.apps.main, master).trigger(`private-encrypted-${name}`, 'ev', { n: 1 });
  assert.deepEqual(await got.first(), { n: 1 });
});
s.test('leave() and leaveChannel() unsubscribe', async (t) => {
  const channel = t.name('room-');
  const e = await echo(t);
  const ready = waiter('subscribed');
  e.channel(channel).subscribed(ready.heard);
  await ready.first();
  e.leave(channel);
  await eventually(async () => (await t.api(t.apps.main, 'GET', `/channels/${channel}`))
    .json.occupied === false, 'vacated');
});
