/* v2_client_events.mjs - client events of V2 sockets: echo, what survives, who gets which bytes.
 *
 * Source   spec/protocol-v2.md 4.3, 5.1, 5.3; spec/settled.md 19.
 */
import { suite } from '../runner.mjs';
import { assert, is_event } from '../expect.mjs';
import { app_entry } from '../apps.mjs';
import { join } from '../clients.mjs';
import { mem, mem_config } from '../memory.mjs';
import { UUID, expect_error_v2, expect_nothing_v2, join_v2, open_v2, sign_in_v2, v2_app }
  from '../v2_raw.mjs';

const features = { enable_client_messages: true, enable_user_authentication: true };
const bare = app_entry('vbare');
const named = app_entry('vsilent', { features, channels: { channel_namespaces: [
  { name: 'quiet', allow_publish_for_client: false }] } });
const rated = app_entry('vrated', { features, limits: { max_client_events_per_second: 2,
                                                        decay_seconds: 30 } });
const s = suite('v2 client events', { parallel: 16, config: { app_manager: { array: {
  apps: [v2_app, bare, named, rated] } } } });
const send = (ws, channel, data = {}, event = 'client-x') => ws.send({ event, channel, data });

s.test('the sender hears its own event by default', async (t) => {
  const channel = t.name('private-');
  const [a, b] = [await open_v2(t), await open_v2(t)];
  await join_v2(a, channel);
  await join_v2(b, channel);
  send(a, channel, { on: true }, 'client-typing');
  const text = `{"event":"client-typing","channel":"${channel}","data":{"on":true}}`;
  assert.equal((await a.take()).text, text);
  assert.equal((await b.take()).text, text);
});
s.test('echo_messages=false: only the others', async (t) => {
  const channel = t.name('private-');
  const [a, b] = [await open_v2(t, v2_app, 'echo_messages=false'), await open_v2(t)];
  await join_v2(a, channel);
  await join_v2(b, channel);
  send(a, channel);
  assert.equal((await b.next()).event, 'client-x');
  await expect_nothing_v2(a);
  send(b, channel);
  assert.equal((await b.next()).event, 'client-x');
  assert.equal((await a.next()).event, 'client-x');
});
s.test('only event, channel and data survive', async (t) => {
  const channel = t.name('private-');
  const ws = await open_v2(t);
  await join_v2(ws, channel);
  ws.send({ event: 'client-x', channel, data: 'd', extras: { echo: false, ephemeral: true },
            tags: { a: 'b' }, message_id: 'forged', user_id: 'forged', name: 'forged', serial: 9,
            stream_id: 'forged', idempotency_key: 'k' });
  is_event(await ws.next(), { event: 'client-x', channel, data: 'd' });
});
for (const data of [{ a: [1, null, { b: 'x' }] }, 'text', '{"a":1}', 7, null, true, [], '']) {
  s.test(`data ${JSON.stringify(data)} keeps its type`, async (t) => {
    const channel = t.name('private-');
    const ws = await open_v2(t);
    await join_v2(ws, channel);
    send(ws, channel, data);
    is_event(await ws.next(), { event: 'client-x', channel, data });
  });
}
s.test('presence channels: V1 sockets learn who spoke, V2 sockets do not', async (t) => {
  const channel = t.name('presence-');
  const [v1, other] = [await t.open(v2_app), await open_v2(t)];
  const speaker = await open_v2(t, v2_app, 'echo_messages=false');
  await join(v1, channel, { user_id: 'one' });
  await join_v2(other, channel, { member: { user_id: 'two' } });
  await join_v2(speaker, channel, { member: { user_id: 'three' } });
  send(speaker, channel, 1);
  is_event(await other.until('client-x'), { event: 'client-x', channel, data: 1 });
  is_event(await v1.until('client-x'), { event: 'client-x', channel, data: 1, user_id: 'three' });
  send(v1, channel, 2);
  is_event(await other.until('client-x'), { event: 'client-x', channel, data: 2 });
});
s.test('V1 senders never hear themselves, V2 subscribers hear them', async (t) => {
  const channel = t.name('private-');
  const [v1, v2] = [await t.open(v2_app), await open_v2(t)];
  await join(v1, channel);
  await join_v2(v2, channel);
  send(v1, channel, 1);
  is_event(await v2.next(), { event: 'client-x', channel, data: 1 });
  assert.deepEqual(await v1.flush(), []);
  send(v2, channel, 2);
  is_event(await v1.next(), { event: 'client-x', channel, data: 2 });
});

const refusals = {
  'without a channel': [undefined, 4301, 'Client event error: Channel required for client event'],
  'on a public channel': ['public', 4301, /^Client event error: Client events can only be sent to/],
  'on an encrypted channel': ['private-encrypted-x', 4301, /^Client event error: Client events /],
  'on a wildcard': ['private-*', 4301, /^Client event error: /],
  'on a metachannel': ['[meta]private-x', 4301, /^Client event error: /],
  'on a channel one is not on': ['private-nowhere', 4301,
    /^Client event error: Socket \d+\.\d+ is not subscribed to channel private-nowhere$/],
};
for (const [what, [channel, code, text]] of Object.entries(refusals)) {
  s.test(`${what}: ${code}`, async (t) => {
    const ws = await open_v2(t);
    send(ws, channel);
    await expect_error_v2(ws, code, text);
    await expect_nothing_v2(ws);
  });
}
s.test('an app without client events: 4301', async (t) => {
  const ws = await open_v2(t, bare);
  const channel = t.name('private-');
  await join_v2(ws, channel);
  send(ws, channel);
  await expect_error_v2(ws, 4301, 'Client event error: Client events are not enabled for this app');
});
s.test('a name of 201 bytes: 4000', async (t) => {
  const ws = await open_v2(t);
  send(ws, 'private-x', 1, `client-${'x'.repeat(194)}`);
  await expect_error_v2(ws, 4000, /^Invalid event name: /);
});
s.test('a namespace that forbids it: 4009', async (t) => {
  const ws = await open_v2(t, named);
  await join_v2(ws, 'private-quiet:x');
  send(ws, 'private-quiet:x');
  await expect_error_v2(ws, 4009, /^Authentication error: Namespace 'quiet' does not allow /);
});
s.test('a capability list without the channel: 4009', async (t) => {
  const ws = await open_v2(t);
  await sign_in_v2(ws, { id: t.name('u'), capabilities: { publish: ['private-mine'] } });
  await join_v2(ws, 'private-mine');
  await join_v2(ws, 'private-yours');
  send(ws, 'private-yours');
  await expect_error_v2(ws, 4009, /^Authentication error: Connection is not allowed to publish /);
  send(ws, 'private-mine');
  assert.equal((await ws.next()).event, 'client-x');
});
s.test('the rate limit: 4301', async (t) => {
  const ws = await open_v2(t, rated);
  const channel = t.name('private-');
  await join_v2(ws, channel);
  for (let i = 0; i < 3; i++) send(ws, channel, i);
  const seen = [await ws.next(), await ws.next(), await ws.next()];
  const error = seen.find((m) => m.event === 'sockudo:error');
  assert.deepEqual(error?.data, { code: 4301,
                                  message: 'Client event rejected due to rate limit' });
  assert.deepEqual(seen.filter((m) => m !== error).map((m) => m.data), [0, 1]);
});

/* ---- channels with memory ---- */

const m = suite('v2 client events with memory', { parallel: 8, config: mem_config });

m.test('they are creates: position, id and headers for V2, plain for V1', async (t) => {
  const channel = t.name('private-');
  const [v1, v2] = [await t.open(mem.app), await open_v2(t, mem.app)];
  await join(v1, channel);
  const success = await join_v2(v2, channel);
  v2.send({ event: 'client-x', channel, data: { a: 1 }, message_id: 'forged' });
  const live = await v2.next();
  assert.equal(live.event, 'client-x');
  assert.deepEqual(live.data, { a: 1 });
  assert.equal(live.serial, 1);
  assert.equal(live.stream_id, success.stream_id);
  assert.match(live.message_id, UUID);
  assert.equal(live.user_id, undefined);
  assert.equal(live.extras.headers.sockudo_action, 'message.create');
  assert.equal((await v1.take()).text,
               `{"event":"client-x","channel":"${channel}","data":{"a":1}}`);
  v1.send({ event: 'client-y', channel, data: 2 });
  assert.equal((await v2.next()).serial, 2);
  const r = await t.api(mem.app, 'GET', `/channels/${channel}/history`);
  assert.equal(r.json.items.length, 2, r.text);
});
m.test('presence: user_id for V1 only', async (t) => {
  const channel = t.name('presence-');
  const [v1, v2] = [await t.open(mem.app), await open_v2(t, mem.app)];
  await join(v1, channel, { user_id: 'one' });
  await join_v2(v2, channel, { member: { user_id: 'two' } });
  send(v2, channel, 1);
  assert.equal((await v2.until('client-x')).user_id, undefined);
  is_event(await v1.until('client-x'), { event: 'client-x', channel, data: 1, user_id: 'two' });
});
m.test('echo_messages=false leaves the sender out', async (t) => {
  const channel = t.name('private-');
  const [a, b] = [await open_v2(t, mem.app, 'echo_messages=false'), await open_v2(t, mem.app)];
  await join_v2(a, channel);
  await join_v2(b, channel);
  send(a, channel, 1);
  assert.equal((await b.next()).serial, 1);
  await expect_nothing_v2(a);
  send(b, channel, 2);
  assert.equal((await a.next()).serial, 2);
});
