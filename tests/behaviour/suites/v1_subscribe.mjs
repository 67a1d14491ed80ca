/* v1_subscribe.mjs - names, kinds and signatures of channels; subscribe, duplicates, unsubscribe.
 *
 * Source   spec/pusher-v1.md 3.1 to 3.4, 3.7; spec/settled.md 7, 13, 16, 17, 19.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_error, expect_nothing, expect_refused, is_event, refuse }
  from '../expect.mjs';
import { channel_auth, join, leave, sign_in, subscribe_frame } from '../clients.mjs';
import { app_entry } from '../apps.mjs';
import { hmac } from '../http_raw.mjs';

const s = suite('v1 subscribe', { shared: true });
const subscribe = (data) => ({ event: 'pusher:subscribe', data });

s.test('the published signature vectors', async () => {
  assert.equal(hmac('secret-xyz', '123.456:private-room'),
               '193ca4cc41aa83ade0918fad3c4d300f9d256f3ce2dc6f7b71f4dafa524eb126');
  assert.equal(hmac('secret-xyz',
    '123.456:presence-room:{"user_id":"u1","user_info":{"name":"Ann"}}'),
               'f4ea45554dfff0e5ae32853d63fd88759bee6b12372a491fa141d5ff55a96491');
});

s.test('the success frame of a public channel, byte for byte', async (t) => {
  const ws = await t.open();
  const channel = t.name('orders-');
  ws.send(subscribe_frame(ws, channel));
  assert.equal((await ws.take()).text, '{"event":"pusher_internal:subscription_succeeded",'
    + `"channel":"${channel}","data":"{}"}`);
});

s.test('the frame may use sockudo:, data as text, other keys, no auth', async (t) => {
  const ws = await t.open();
  const forms = [
    (channel) => ({ event: 'sockudo:subscribe', data: { channel } }),
    (channel) => subscribe(JSON.stringify({ channel, auth: '' })),
    (channel) => subscribe({ channel, auth: '', delta: 'fossil', events: ['x'], tags: null }),
    (channel) => ({ ...subscribe({ channel }), channel: 'ignored', user_id: 'x' }),
  ];
  for (const form of forms) {
    const channel = t.name();
    ws.send(form(channel));
    const m = await ws.next();
    assert.equal(m.event, 'pusher_internal:subscription_succeeded', JSON.stringify(m));
    assert.equal(m.channel, channel);
  }
});

const names = ['a', 'A-Z_0=9@,.;', 'private', 'presence', 'privateer-x', 'cache', 'x'.repeat(200),
               'client-x', 'my-private-room', 'pusher-x'];
for (const name of names) {
  s.test(`"${name.slice(0, 30)}" is a public channel`, async (t) => {
    const ws = await t.open();
    ws.send(subscribe({ channel: name }));
    assert.equal((await ws.next()).channel, name);
  });
}

const bad_names = {
  'a space': 'a b', 'a slash': 'a/b', 'an exclamation mark': 'a!', 'umlauts': 'grün',
    'a quote': 'a"b',
  'a control character': 'a\u0001b', 'a newline': 'a\nb', 'a hash': '#other-x', 'a plus': 'a+b',
  'a hash inside': 'a#b', 'an emoji': '🎉',
};
for (const [what, name] of Object.entries(bad_names)) {
  s.test(`a name with ${what} is refused`, async (t) => {
    const ws = await t.open();
    await refuse(ws, name, 4300, /^Channel error: Channel name contains invalid characters: '/);
    await expect_nothing(ws);
  });
}
s.test('a namespace that is not configured', async (t) => {
  const ws = await t.open();
  await refuse(ws, 'chat:room', 4300, "Channel error: Unknown channel namespace 'chat'");
  await refuse(ws, 'private-chat:room', 4300, "Channel error: Unknown channel namespace 'chat'");
});
s.test('the text names the characters', async (t) => {
  const ws = await t.open();
  ws.send(subscribe({ channel: 'a b' }));
  await expect_error(ws, 4300,
    /^Channel error: Channel name contains invalid characters: 'a b' \(invalid chars: \[.+\]\)$/);
});
s.test('names of V2 features', async (t) => {
  const ws = await t.open();
  for (const name of ['orders-*', '[meta]orders']) {
    await refuse(ws, name, 4300, /^Channel error: .*only supported on protocol V2/);
  }
  const channel = t.name();
  ws.send({ event: 'pusher:subscribe', data: { channel, rewind: 5 } });
  await expect_refused(ws, channel, 4300,
                       'Channel error: Channel rewind is only supported on protocol V2');
  ws.send({ event: 'pusher:subscribe', data: { channel, rewind: null, filter: {}, modes: 1 } });
  assert.equal((await ws.next()).event, 'pusher_internal:subscription_succeeded');
});
s.test('an empty name', async (t) => {
  const ws = await t.open();
  ws.send(subscribe({ channel: '' }));
  const m = await ws.next();
  assert.equal(m.event, 'pusher:error');
  assert.ok([4000, 4300].includes(m.data.code), JSON.stringify(m));
});
s.test('a name of 201 bytes', async (t) => {
  const ws = await t.open();
  await refuse(ws, 'x'.repeat(201), 4300,
    'Channel error: Channel name too long. Max length is 200');
  await refuse(ws, `private-${'x'.repeat(200)}`, 4300,
               'Channel error: Channel name too long. Max length is 200');
});
s.test("an app's own length limit", async (t) => {
  const ws = await t.open(t.apps.limits);
  await join(ws, 'x'.repeat(40));
  await refuse(ws, 'x'.repeat(41), 4300, 'Channel error: Channel name too long. Max length is 40');
});

const shapes = {
  'no data': [{ event: 'pusher:subscribe' }, 'Invalid subscription data format'],
  'data null': [subscribe(null), 'Invalid subscription data format'],
  'data a number': [subscribe(5), 'Invalid subscription data format'],
  'data an array': [subscribe(['x']), 'Invalid subscription data format'],
  'no channel': [subscribe({ auth: '' }), 'Missing channel field'],
  'no channel in text': [subscribe('{"auth":""}'), 'Missing channel field'],
};
for (const [what, [message, text]] of Object.entries(shapes)) {
  s.test(`${what}: 4000 ${text}`, async (t) => {
    const ws = await t.open();
    ws.send(message);
    await expect_error(ws, 4000, `Invalid message format: ${text}`);
    await expect_nothing(ws);
  });
}

const signed = ['private-', 'private-encrypted-', 'private-cache-', 'private-encrypted-cache-',
                'presence-', 'presence-cache-', 'private-my-cache-', 'private-cache-cache-'];
const AUTH = 'Authentication error: ';
const WRONG = `${AUTH}Channel requires authentication`;
const needs_member = (kind) => (kind.startsWith('presence-') ? { user_id: 'u1' } : undefined);
for (const kind of signed) {
  s.test(`${kind}* takes a right signature`, async (t) => {
    await join(await t.open(), t.name(kind), needs_member(kind));
  });
  s.test(`${kind}* without auth`, async (t) => {
    const ws = await t.open();
    const channel = t.name(kind);
    const channel_data = needs_member(kind) && JSON.stringify(needs_member(kind));
    ws.send(subscribe({ channel, channel_data }));
    await expect_refused(ws, channel, 4009,
                         `${AUTH}Authentication signature required for this channel`);
    await expect_nothing(ws);
  });
  s.test(`${kind}* with wrong signatures`, async (t) => {
    const ws = await t.open();
    const channel = t.name(kind);
    const member = needs_member(kind);
    const good = subscribe_frame(ws, channel, member).data;
    const hex = good.auth.split(':')[1];
    const other = await t.open(t.apps.other);
    const others_auth = channel_auth(t.apps.other, ws.socket_id, channel, good.channel_data);
    const elsewhere = channel_auth(ws.app, other.socket_id, channel, good.channel_data);
    const swapped = channel_auth(ws.app, ws.socket_id, `${channel}x`, good.channel_data);
    for (const auth of ['', ':', 'x', hex, `${ws.app.key}:`, `${ws.app.key}:00`, `wrong:${hex}`,
                        `${ws.app.key}:${hex.toUpperCase()}`, `${good.auth}0`,
                          good.auth.slice(0, -1),
                        ` ${good.auth}`, others_auth, elsewhere, swapped, 'x'.repeat(5000)]) {
      ws.send(subscribe({ ...good, auth }));
      await expect_refused(ws, channel, 4009, WRONG);
    }
    await expect_nothing(ws);
    await join(ws, channel, member);
  });
}
s.test('auth that is not a string', async (t) => {
  const ws = await t.open();
  for (const auth of [5, null, {}, ['x']]) {
    ws.send(subscribe({ channel: t.name('private-'), auth }));
    const m = await ws.until('pusher:error');
    assert.ok([4000, 4009].includes(m.data.code), JSON.stringify(m));
  }
  await ws.flush();
});
s.test('channel_data is not part of the signature of a private channel', async (t) => {
  const ws = await t.open();
  const channel = t.name('private-');
  ws.send(subscribe({ channel, auth: channel_auth(ws.app, ws.socket_id, channel),
                      channel_data: '{"user_id":"u1"}' }));
  assert.equal((await ws.next()).event, 'pusher_internal:subscription_succeeded');
});

s.test('a refused subscribe joins nothing', async (t) => {
  const ws = await t.open();
  const channel = t.name('private-');
  ws.send(subscribe({ channel, auth: 'main-key:00' }));
  await expect_refused(ws, channel, 4009, WRONG);
  const info = await t.publish(t.apps.main, channel, 'ev', 'x', { info: 'subscription_count' });
  assert.equal(info.channels[channel].subscription_count, 0);
  await expect_nothing(ws);
});

s.test('a second subscribe is answered again and joins nothing twice', async (t) => {
  const ws = await t.open();
  const channel = t.name();
  for (let i = 0; i < 3; i++) await join(ws, channel);
  const info = await t.publish(t.apps.main, channel, 'ev', 'x', { info: 'subscription_count' });
  assert.equal(info.channels[channel].subscription_count, 1);
  is_event(await ws.next(), { event: 'ev', channel, data: 'x' });
  await expect_nothing(ws);
});

s.test('unsubscribe: no acknowledgement, and nothing follows', async (t) => {
  const ws = await t.open();
  for (const data of [(c) => ({ channel: c }), (c) => c]) {
    const channel = t.name();
    await join(ws, channel);
    ws.send({ event: 'pusher:unsubscribe', data: data(channel) });
    await expect_nothing(ws);
    /* Nothing says when the channel's home, another shard, has it: the count does. */
    await eventually(async () => {
      const info = await t.publish(t.apps.main, channel, 'ev', 'x',
                                   { info: 'subscription_count' });
      return info.channels[channel].subscription_count === 0;
    }, 'nobody is counted');
    await expect_nothing(ws);
    await join(ws, channel);
    await t.publish(t.apps.main, channel, 'again', 'y');
    is_event(await ws.next(), { event: 'again', channel, data: 'y' });
  }
});

s.test('unsubscribe without being subscribed is ignored', async (t) => {
  const [ws, other] = [await t.open(), await t.open()];
  const channel = t.name('presence-');
  await join(other, channel, { user_id: 'u1' });
  leave(ws, channel);
  leave(ws, 'bad name');
  leave(ws, t.name());
  await expect_nothing(ws);
  await expect_nothing(other);
});

s.test('unsubscribe without a channel', async (t) => {
  const ws = await t.open();
  for (const message of [{ event: 'pusher:unsubscribe', data: {} },
    { event: 'pusher:unsubscribe' }]) {
    ws.send(message);
    await expect_error(ws, 4000,
                       'Invalid message format: Missing channel in unsubscribe message');
  }
});

s.test('at most 100 channels on one socket, 4300 beyond', async (t) => {
  const ws = await t.open();
  const channels = Array.from({ length: 100 }, () => t.name());
  for (const channel of channels) await join(ws, channel);
  await join(ws, channels[5]);
  const more = t.name();
  ws.send(subscribe_frame(ws, more));
  await expect_refused(ws, more, 4300, /./);
  leave(ws, channels[0]);
  await join(ws, more);
});

const free = app_entry('free');
const unlimited = suite('v1 no channel limit', { config: {
  limits: { max_channels_per_connection: 0 }, channel_limits: { max_name_length: 0 },
  app_manager: { array: { apps: [free] } } } });
unlimited.test('max_channels_per_connection 0 means none', async (t) => {
  const ws = await t.open(free);
  for (let i = 0; i < 150; i++) await join(ws, t.name());
});
unlimited.test('max_name_length 0 means none', async (t) => {
  const ws = await t.open(free);
  const channel = 'n'.repeat(1500);
  await join(ws, channel);
  await t.publish(free, channel, 'ev', 'x');
  is_event(await ws.next(), { event: 'ev', channel, data: 'x' });
});
