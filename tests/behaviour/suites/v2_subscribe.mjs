/* v2_subscribe.mjs - Protocol V2: subscribe, its refusals, repeats, unsubscribe, sign-in; V1 and V2
 * sockets on one channel.
 *
 * Source   spec/protocol-v2.md 0, 3, 4.3, 11; spec/settled.md 7, 13, 33.
 */
import { suite } from '../runner.mjs';
import { assert, is_event } from '../expect.mjs';
import { app_entry } from '../apps.mjs';
import { join, subscribe_frame, user_auth } from '../clients.mjs';
import { mem, mem_config } from '../memory.mjs';
import { OP, frame } from '../ws_raw.mjs';
import { SUCCEEDED, UUID, expect_error_v2, expect_nothing_v2, flush_v2, is_success, join_v2,
         leave_v2, open_v2, sign_in_v2, subscribe_v2, v2_app } from '../v2_raw.mjs';

const features = { enable_client_messages: true, enable_user_authentication: true };
const named = app_entry('vnamed', { features, channels: { channel_namespaces: [
  { name: 'open', allow_user_limited_channels: true },
  { name: 'shut', allow_subscribe_for_client: false },
  { name: 'nopresence', allow_presence_for_client: false },
] } });
const s = suite('v2 subscribe', { parallel: 16, config: { app_manager: { array: {
  apps: [v2_app, named] } }, limits: { max_channels_per_connection: 40 } } });
const subscribe = (data) => ({ event: 'sockudo:subscribe', data });

s.test('the success frame of a public channel, byte for byte', async (t) => {
  const ws = await open_v2(t);
  const channel = t.name('orders-');
  subscribe_v2(ws, channel);
  const { text } = await ws.take();
  const id = JSON.parse(text).message_id;
  assert.match(id, UUID);
  assert.equal(text, `{"event":"${SUCCEEDED}","channel":"${channel}","data":"{}",`
    + `"message_id":"${id}"}`);
});
s.test('data as text, without auth, with things that do not matter', async (t) => {
  const ws = await open_v2(t);
  const forms = [
    (channel) => subscribe({ channel }),
    (channel) => subscribe(JSON.stringify({ channel, auth: '' })),
    (channel) => subscribe({ channel, auth: '', delta: { enabled: true }, unknown: [1] }),
    (channel) => subscribe({ channel, delta: 'fossil', modes: ['SUBSCRIBE', 'OTHER'] }),
    (channel) => ({ ...subscribe({ channel }), channel: 'ignored', user_id: 'x' }),
  ];
  for (const form of forms) {
    const channel = t.name();
    ws.send(form(channel));
    assert.equal(is_success(await ws.next()).channel, channel);
  }
});
s.test('private channels need the signature', async (t) => {
  const ws = await open_v2(t);
  const channel = t.name('private-');
  ws.send(subscribe({ channel }));
  await expect_error_v2(ws, 4009,
    'Authentication error: Authentication signature required for this channel');
  for (const auth of ['', 'x', `${v2_app.key}:${'0'.repeat(64)}`]) {
    ws.send(subscribe({ channel, auth }));
    await expect_error_v2(ws, 4009, 'Authentication error: Channel requires authentication');
  }
  await expect_nothing_v2(ws);
  await join_v2(ws, channel);
});

const refusals = {
  'no data': [undefined, 4000, 'Invalid message format: Invalid subscription data format'],
  'data null': [null, 4000, 'Invalid message format: Invalid subscription data format'],
  'no channel': [{ auth: '' }, 4000, 'Invalid message format: Missing channel field'],
  'a name with a space': [{ channel: 'a b' }, 4300, /^Channel error: Channel name contains /],
  'an empty name': [{ channel: '' }, 4300, /^Channel error: /],
  'an unknown namespace': [{ channel: 'ns:x' }, 4300,
    "Channel error: Unknown channel namespace 'ns'"],
  'a wildcard': [{ channel: 'ticker*' }, 4300,
    'Channel error: Wildcard subscriptions are not supported by this build'],
  'a metachannel': [{ channel: '[meta]x' }, 4300,
    'Channel error: Metachannel subscriptions are not supported by this build'],
  'a filter': [{ channel: 'x', filter: { events: ['a'] } }, 4000,
    'Invalid message format: filters are not supported by this build'],
  'a tags_filter': [{ channel: 'x', tags_filter: { key: 'a', cmp: 'ex' } }, 4000,
    'Invalid message format: filters are not supported by this build'],
  'filter null': [{ channel: 'x', filter: null }, 4000, /^Invalid message format: /],
  'rewind 0': [{ channel: 'x', rewind: 0 }, 4000, /^Invalid message format: /],
  'rewind null': [{ channel: 'x', rewind: null }, 4000, /^Invalid message format: /],
  'rewind {}': [{ channel: 'x', rewind: {} }, 4000, /^Invalid message format: /],
  'modes no array': [{ channel: 'x', modes: 'SUBSCRIBE' }, 4000, /^Invalid message format: /],
  'rewind without history': [{ channel: 'x', rewind: 5 }, 4300,
    "Channel error: Channel rewind is disabled by policy for channel 'x'"],
  'annotations that are off': [{ channel: 'x', modes: ['ANNOTATION_SUBSCRIBE'] }, 4300,
    /^Channel error: Annotations are disabled/],
  'presence without channel_data': ['presence', 4000,
    'Invalid message format: Missing channel_data for presence channel'],
  'presence with channel_data that is no JSON': [['presence', 'nothing'], 4000, /./],
  'presence without user_id': [['presence', '{}'], 4300, /./],
};
for (const [what, [data, code, text]] of Object.entries(refusals)) {
  s.test(`${what}: ${code}, one frame, not joined`, async (t) => {
    const ws = await open_v2(t);
    if (data === 'presence') subscribe_v2(ws, t.name('presence-'));
    else if (Array.isArray(data)) subscribe_v2(ws, t.name('presence-'), { member: data[1] });
    else ws.send(subscribe(data));
    await expect_error_v2(ws, code, text);
    await expect_nothing_v2(ws);
  });
}
s.test('the limit of channels on a socket: 4300', async (t) => {
  const ws = await open_v2(t);
  for (let i = 0; i < 40; i++) await join_v2(ws, t.name());
  subscribe_v2(ws, t.name());
  await expect_error_v2(ws, 4300, /exceeds limit \(40\)$/);
});

s.test('a repeat is answered again', async (t) => {
  const ws = await open_v2(t);
  const channel = t.name();
  const ids = new Set();
  for (let i = 0; i < 4; i++) ids.add((await join_v2(ws, channel)).message_id);
  assert.equal(ids.size, 4);
  for (let i = 0; i < 4; i++) subscribe_v2(ws, channel);
  for (let i = 0; i < 4; i++) is_success(await ws.next());
  await t.publish(v2_app, channel);
  assert.equal((await ws.next()).event, 'ev');
  await expect_nothing_v2(ws);
});
s.test('repeats of a first subscribe, in one write', async (t) => {
  const ws = await open_v2(t);
  const channel = t.name();
  const text = JSON.stringify(subscribe({ channel }));
  ws.write(Buffer.concat(Array.from({ length: 5 }, () => frame(OP.TEXT, text))));
  for (let i = 0; i < 5; i++) assert.equal(is_success(await ws.next()).channel, channel);
  await expect_nothing_v2(ws);
});
s.test('a repeat on a presence channel says nothing', async (t) => {
  const ws = await open_v2(t);
  const channel = t.name('presence-');
  await join_v2(ws, channel, { member: { user_id: 'u1' } });
  subscribe_v2(ws, channel, { member: { user_id: 'u2' } });
  await expect_nothing_v2(ws);
  const r = await t.api(v2_app, 'GET', `/channels/${channel}/users`);
  assert.deepEqual(r.json.users.map((u) => u.id), ['u1']);
});
s.test('subscribes of one write are answered in their order', async (t) => {
  const ws = await open_v2(t);
  const names = Array.from({ length: 30 }, () => t.name());
  ws.write(Buffer.concat(names.map((channel) =>
    frame(OP.TEXT, JSON.stringify(subscribe({ channel }))))));
  const seen = [];
  for (let i = 0; i < names.length; i++) seen.push((await ws.next()).channel);
  if (t.shards === 1) assert.deepEqual(seen, names);
  else assert.deepEqual([...seen].sort(), [...names].sort());
});
s.test('what follows a subscribe in one write finds it', async (t) => {
  const ws = await open_v2(t);
  const [gone, stays] = [t.name('private-'), t.name('private-')];
  ws.write(Buffer.concat([
    subscribe_frame(ws, gone), { event: 'sockudo:unsubscribe', data: { channel: gone } },
    subscribe_frame(ws, stays), { event: 'client-x', channel: stays, data: 1 },
    { event: 'client-y', channel: gone, data: 1 },
  ].map((m) => frame(OP.TEXT, JSON.stringify(m)))));
  const events = [];
  while (events.length < 3) events.push(await ws.next());
  assert.deepEqual(events.map((m) => m.event).sort(), ['client-x', 'sockudo:error', SUCCEEDED]);
  const at = (event) => events.findIndex((m) => m.event === event);
  assert.ok(at(SUCCEEDED) < at('client-x'), 'nothing of a channel precedes its success');
  assert.equal(events[at(SUCCEEDED)].channel, stays);
});
s.test('a socket that goes away with subscribes under way leaves nothing', async (t) => {
  const channel = t.name();
  for (let i = 0; i < 10; i++) {
    const ws = await open_v2(t);
    const frames = Array.from({ length: 10 }, (_, n) =>
      frame(OP.TEXT, JSON.stringify(subscribe({ channel: `${channel}-${n % 5}` }))));
    ws.write(Buffer.concat(i % 2 ? [...frames, frame(OP.TEXT, 'x', { mask: false })] : frames));
    if (i % 2 === 0) ws.reset();
    await ws.gone();
  }
  for (let tries = 0; ; tries++) {
    const r = await t.api(v2_app, 'GET', '/channels', { query: { filter_by_prefix: channel } });
    if (Object.keys(r.json.channels).length === 0) break;
    assert.ok(tries < 200, r.text);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});

s.test('unsubscribe: by object and by text, no reply', async (t) => {
  const ws = await open_v2(t);
  for (const data of [(channel) => ({ channel }), (channel) => channel]) {
    const channel = t.name();
    await join_v2(ws, channel);
    ws.send({ event: 'sockudo:unsubscribe', data: data(channel) });
    await expect_nothing_v2(ws);
    await t.publish(v2_app, channel);
    await expect_nothing_v2(ws);
  }
  leave_v2(ws, t.name());
  await expect_nothing_v2(ws);
});

s.test('V1 and V2 sockets on one channel: their own success, the same event', async (t) => {
  const channel = t.name();
  const [one, two] = [await t.open(v2_app), await open_v2(t)];
  one.send(subscribe_frame(one, channel));
  assert.equal((await one.take()).text, '{"event":"pusher_internal:subscription_succeeded",'
    + `"channel":"${channel}","data":"{}"}`);
  await join_v2(two, channel);
  await t.publish(v2_app, channel, 'ev', '{"a":1}');
  const text = `{"event":"ev","channel":"${channel}","data":"{\\"a\\":1}"}`;
  assert.equal((await one.take()).text, text);
  assert.equal((await two.take()).text, text, 'without memory there is nothing to add');
});
s.test('names with a prefix have the word of the protocol', async (t) => {
  const channel = t.name();
  const [one, two] = [await t.open(v2_app), await open_v2(t)];
  await join(one, channel);
  await join_v2(two, channel);
  for (const rest of [':zip', '_internal:zip']) {
    for (const word of ['pusher', 'sockudo']) {
      await t.publish(v2_app, channel, word + rest, 'x');
      is_event(await one.next(), { event: `pusher${rest}`, channel, data: 'x' });
      is_event(await two.next(), { event: `sockudo${rest}`, channel, data: 'x' });
    }
  }
});
s.test('extras, tags and message_id reach V2 only', async (t) => {
  const channel = t.name();
  const [one, two] = [await t.open(v2_app), await open_v2(t)];
  await join(one, channel);
  await join_v2(two, channel);
  const more = { extras: { headers: { a: 1, b: 'x', c: true }, echo: true }, tags: { zone: 'eu' },
                 message_id: 'given' };
  const r = await t.api(v2_app, 'POST', '/events', { body: { name: 'ev', channel, data: 'x',
                                                             ...more } });
  assert.equal(r.status, 200, r.text);
  is_event(await one.next(), { event: 'ev', channel, data: 'x' });
  is_event(await two.next(), { event: 'ev', channel, data: 'x', ...more });
});
s.test('cache channels: cache_miss, then the cached event', async (t) => {
  const channel = t.name('cache-');
  const [a, b, v1] = [await open_v2(t), await open_v2(t), await t.open(v2_app)];
  await join_v2(a, channel);
  const miss = await a.next();
  assert.match(miss.message_id, UUID);
  is_event(miss, { event: 'sockudo:cache_miss', channel, data: '{}', message_id: miss.message_id });
  await t.publish(v2_app, channel, 'price', '7');
  assert.equal((await a.next()).event, 'price');
  await join_v2(b, channel);
  const m = await b.next();
  assert.deepEqual([m.event, m.channel, m.data], ['price', channel, '7']);
  await join(v1, channel);
  is_event(await v1.next(), { event: 'price', channel, data: '7' });
});

s.test('sign-in: an object with the same user_data', async (t) => {
  const ws = await open_v2(t);
  const m = await sign_in_v2(ws, { id: t.name('u') });
  assert.deepEqual(Object.keys(m).sort(), ['data', 'event', 'message_id']);
  assert.equal(typeof m.data, 'object');
  assert.deepEqual(Object.keys(m.data), ['user_data']);
});
s.test('sign-in: text is refused, a missing member is 4009', async (t) => {
  const ws = await open_v2(t);
  const send = (data) => ws.send({ event: 'sockudo:signin', data });
  send(JSON.stringify({ auth: 'x', user_data: '{}' }));
  await expect_error_v2(ws, 4000, /^Invalid message format: /);
  send({ auth: 'x' });
  await expect_error_v2(ws, 4009, /^Authentication error: /);
  send({ user_data: '{"id":"x"}' });
  await expect_error_v2(ws, 4009, /^Authentication error: /);
});
s.test('the user channel, and events for the user', async (t) => {
  const ws = await open_v2(t);
  const id = t.name('u');
  const channel = `#server-to-user-${id}`;
  subscribe_v2(ws, channel);
  await expect_error_v2(ws, 4009, /^Authentication error: /);
  await sign_in_v2(ws, { id });
  await join_v2(ws, channel);
  await t.publish(v2_app, channel, 'hello', '1');
  is_event(await ws.next(), { event: 'hello', channel, data: '1' });
});
s.test('watchlist: status before signin_success, then changes', async (t) => {
  const [ws, other] = [await open_v2(t), await open_v2(t)];
  const [id, friend, absent] = [t.name('u'), t.name('u'), t.name('u')];
  await sign_in_v2(other, { id: friend });
  const user_data = { id, watchlist: [friend, absent] };
  const seen = [];
  const take = ws.next.bind(ws);
  ws.next = async (ms) => { const m = await take(ms); seen.push(m); return m; };
  await sign_in_v2(ws, user_data);
  assert.deepEqual(seen.map((m) => m.event),
                   ['sockudo_internal:watchlist_events', 'sockudo:signin_success']);
  assert.deepEqual(seen[0].data, { events: [{ name: 'online', user_ids: [friend] },
                                            { name: 'offline', user_ids: [absent] }] });
  other.close(1000);
  const m = await ws.next();
  assert.deepEqual(m.data, { events: [{ name: 'offline', user_ids: [friend] }] });
});

s.test('namespaces: what they forbid is 4009', async (t) => {
  const ws = await open_v2(t, named);
  await join_v2(ws, 'open:a');
  await join_v2(ws, 'private-open:a');
  subscribe_v2(ws, 'shut:a');
  await expect_error_v2(ws, 4009, /^Authentication error: Namespace 'shut' does not allow client /);
  subscribe_v2(ws, 'presence-nopresence:a', { member: { user_id: 'u' } });
  await expect_error_v2(ws, 4009,
                        /^Authentication error: Namespace 'nopresence' does not allow client /);
});
s.test('user-limited channels', async (t) => {
  const ws = await open_v2(t, named);
  subscribe_v2(ws, 'open:room#ann,bob');
  await expect_error_v2(ws, 4009, /^Authentication error: /);
  await sign_in_v2(ws, { id: 'bob' });
  await join_v2(ws, 'open:room#ann,bob');
  subscribe_v2(ws, 'open:room#ann');
  await expect_error_v2(ws, 4009, /^Authentication error: /);
});
s.test('capabilities of user_data narrow what a socket may do', async (t) => {
  const ws = await open_v2(t, named);
  await sign_in_v2(ws, { id: t.name('u'), capabilities: { subscribe: ['open:*'], presence: [] } });
  await join_v2(ws, 'open:b');
  subscribe_v2(ws, 'other');
  await expect_error_v2(ws, 4009,
    "Authentication error: Connection is not allowed to subscribe channel 'other'");
  subscribe_v2(ws, 'presence-open:b', { member: { user_id: 'u' } });
  await expect_error_v2(ws, 4009, /^Authentication error: Connection is not allowed to /);
});
s.test('capabilities that cannot be read: the sign-in is refused', async (t) => {
  const ws = await open_v2(t, named);
  const bad = ['"subscribe"', '[]', '{"subscribe":"open:*"}', '{"history":[1]}',
    '{"subscribe":["open:*"],"subscribe":null}', '{},"capabilities":{}',
    '{"message_update_own":[],"message-update-own":[]}'];
  for (const capabilities of bad) {
    const user_data = `{"id":"u","capabilities":${capabilities}}`;
    ws.send({ event: 'sockudo:signin',
              data: { user_data, auth: user_auth(ws.app, ws.socket_id, user_data) } });
    await expect_error_v2(ws, 4009, 'Authentication error: Invalid capabilities in user_data');
  }
  for (const capabilities of [null, {}, { subscribe: null, presence: ['*'], 'other-key': 1 }]) {
    await sign_in_v2(ws, { id: t.name('u'), capabilities });
  }
});

/* ---- channels with memory ---- */

const m = suite('v2 subscribe with memory', { parallel: 8, config: mem_config });

m.test('the success tells the position and the attach serial', async (t) => {
  const channel = t.name();
  const ws = await open_v2(t, mem.app);
  const first = await join_v2(ws, channel);
  assert.match(first.stream_id, /^[0-9a-f-]{36}$/);
  assert.equal(first.serial, 0);
  assert.equal(JSON.parse(first.data).attach_serial, 0);
  await t.publish(mem.app, channel);
  const live = await ws.next();
  assert.equal(live.serial, 1);
  assert.equal(live.stream_id, first.stream_id);
  assert.match(live.message_id, UUID);
  const again = await join_v2(ws, channel);
  assert.equal(again.serial, 1);
  assert.equal(JSON.parse(again.data).attach_serial, 1);
  await expect_nothing_v2(ws);
});
m.test('an app without memory tells neither', async (t) => {
  const ws = await open_v2(t, mem.plain);
  const first = await join_v2(ws, t.name());
  assert.deepEqual(Object.keys(first).sort(), ['channel', 'data', 'event', 'message_id']);
  assert.equal(first.data, '{}');
});
m.test('rewind: history behind the success, rewind_complete, then live', async (t) => {
  const channel = t.name();
  for (let i = 1; i <= 5; i++) await t.publish(mem.app, channel, 'ev', `${i}`);
  for (const rewind of [3, '3', { count: 3 }]) {
    const ws = await open_v2(t, mem.app);
    await join_v2(ws, channel, { rewind });
    const frames = [await ws.next(), await ws.next(), await ws.next()];
    assert.deepEqual(frames.map((f) => f.data), ['3', '4', '5']);
    assert.ok(frames.every((f) => f.event === 'sockudo:message.create' && f.name === 'ev'));
    const complete = await ws.next();
    assert.equal(complete.event, 'sockudo:rewind_complete');
    assert.equal(complete.data.historical_count, 3);
    await expect_nothing_v2(ws);
  }
});
m.test('a rewind ends at the head, whatever its last message is', async (t) => {
  const channel = t.name();
  const { channels } = await t.publish(mem.app, channel, 'ev', 'b', { info: 'user_count' });
  await t.publish(mem.app, channel, 'ev', 'c');
  for (const data of ['x', 'y']) {
    const path = `/channels/${channel}/messages/${channels[channel].message_serial}/append`;
    const r = await t.api(mem.app, 'POST', path, { body: { data } });
    assert.equal(r.status, 200, r.text);
  }
  const ws = await open_v2(t, mem.app);
  const { stream_id } = await join_v2(ws, channel, { rewind: 10 });
  const frames = [await ws.next(), await ws.next(), await ws.next()];
  assert.deepEqual(frames.map((f) => [f.serial, f.stream_id]),
                   [[4, stream_id], [2, stream_id], [4, stream_id]]);
  assert.equal(frames[2].event, 'sockudo:rewind_complete');
});
m.test('V1 sees a channel with memory as it always did', async (t) => {
  const channel = t.name();
  const ws = await t.open(mem.app);
  ws.send(subscribe_frame(ws, channel));
  assert.equal((await ws.take()).text, '{"event":"pusher_internal:subscription_succeeded",'
    + `"channel":"${channel}","data":"{}"}`);
  await t.publish(mem.app, channel, 'ev', '{"a":1}');
  assert.equal((await ws.take()).text,
               `{"event":"ev","channel":"${channel}","data":"{\\"a\\":1}"}`);
});
m.test('annotation events need a capability', async (t) => {
  const ws = await open_v2(t, mem.app);
  const channel = t.name();
  subscribe_v2(ws, channel, { modes: ['ANNOTATION_SUBSCRIBE'] });
  await expect_error_v2(ws, 4009, /^Authentication error: Connection is not allowed to /);
  await sign_in_v2(ws, { id: t.name('u'), capabilities: { annotation_subscribe: ['*'] } });
  await join_v2(ws, channel, { modes: ['SUBSCRIBE', 'ANNOTATION_SUBSCRIBE'] });
});
m.test('rewind needs the history capability when there is a list', async (t) => {
  const ws = await open_v2(t, mem.app);
  await sign_in_v2(ws, { id: t.name('u'), capabilities: { history: ['other'] } });
  subscribe_v2(ws, t.name(), { rewind: 1 });
  await expect_error_v2(ws, 4009, /^Authentication error: Connection is not allowed to history /);
});
m.test('channel_history: pages, and what is refused', async (t) => {
  const channel = t.name();
  const ws = await open_v2(t, mem.app);
  const ask = (data) => ws.send({ event: 'sockudo:channel_history', data });
  ask({ channel });
  await expect_error_v2(ws, 4301, /^Client event error: /);
  ask({ channel: `x${'é'.repeat(300)}` });     /* cut for the error, within a character */
  await expect_error_v2(ws, 4301, /xé+\?'$/);
  for (let i = 1; i <= 3; i++) await t.publish(mem.app, channel, 'ev', `${i}`);
  await join_v2(ws, channel);
  await t.publish(mem.app, channel, 'ev', '4');
  assert.equal((await ws.next()).data, '4');
  ask(JSON.stringify({ channel, limit: 2, until_attach: true }));
  const page = await ws.next();
  assert.equal(page.event, 'sockudo:channel_history', JSON.stringify(page));
  assert.equal(page.channel, channel);
  assert.match(page.message_id, UUID);
  assert.deepEqual(page.data.items.map((i) => i.serial), [3, 2]);
  assert.equal(page.data.bounds.attach_serial, 3);
  ws.send({ event: 'channel_history', data: { channel, params: { direction: 'forward' } } });
  const whole = await ws.next();
  assert.deepEqual(whole.data.items.map((i) => i.serial), [1, 2, 3, 4]);
  assert.deepEqual(whole.data.bounds, { start_serial: null, end_serial: null, start_time_ms: null,
                                        end_time_ms: null, until_attach: false,
                                        attach_serial: 3 });
  ask({ channel, limit: 0 });
  await expect_error_v2(ws, 4000, /limit/);
  ask({ channel, start_serial: 3, end_serial: 2 });
  await expect_error_v2(ws, 4000, /./);
  ask({ channel, cursor: 'nonsense' });
  await expect_error_v2(ws, 4000, /./);
  ask({});
  await expect_error_v2(ws, 4000, /^Invalid message format: /);
});
m.test('channel_history: two at a time', async (t) => {
  const channel = t.name();
  const ws = await open_v2(t, mem.app);
  await join_v2(ws, channel);
  const text = JSON.stringify({ event: 'sockudo:channel_history',
                                data: JSON.stringify({ channel }) });
  ws.write(Buffer.concat([1, 2, 3].map(() => frame(OP.TEXT, text))));
  const seen = [await ws.next(), await ws.next(), await ws.next()].map((f) => f.event).sort();
  assert.deepEqual(seen, ['sockudo:channel_history', 'sockudo:channel_history', 'sockudo:error']);
  ws.text(text);
  assert.equal((await ws.next()).event, 'sockudo:channel_history', 'there is room again');
});
m.test('channel_history where there is no history: 4300', async (t) => {
  const ws = await open_v2(t, mem.plain);
  const channel = t.name();
  await join_v2(ws, channel);
  ws.send({ event: 'sockudo:channel_history', data: { channel } });
  await expect_error_v2(ws, 4300, /^Channel error: Durable history is disabled by policy/);
  assert.deepEqual(await flush_v2(ws), []);
});
