/* v1_client_events.mjs - client events: delivery, rules, limits; the limit on all inbound messages.
 *
 * Source   spec/pusher-v1.md 2 (message_rate_limit), 4; spec/settled.md 11, 13, 19.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_error, expect_fatal, expect_nothing, is_event, is_error }
  from '../expect.mjs';
import { join, leave, sign_in } from '../clients.mjs';

const s = suite('v1 client events', { shared: true });
const send = (ws, channel, data = {}, event = 'client-x') => ws.send({ event, channel, data });

async function pair(t, channel, app = t.apps.main) {
  const sockets = [await t.open(app), await t.open(app)];
  const presence = channel.startsWith('presence-');
  for (const [i, ws] of sockets.entries()) {
    await join(ws, channel, presence ? { user_id: `u${i}` } : undefined);
    if (channel.includes('cache-')) await ws.until('pusher:cache_miss');
  }
  if (presence) await sockets[0].until('pusher_internal:member_added');
  return sockets;
}

for (const kind of ['private-', 'private-cache-']) {
  s.test(`${kind}*: every other subscriber gets it, the sender does not`, async (t) => {
    const channel = t.name(kind);
    const [a, b] = await pair(t, channel);
    a.send({ event: 'client-typing', channel, data: { on: true }, user_id: 'forged', extra: 1 });
    assert.equal((await b.take()).text,
                 `{"event":"client-typing","channel":"${channel}","data":{"on":true}}`);
    await expect_nothing(a);
  });
}
for (const kind of ['presence-', 'presence-cache-']) {
  s.test(`${kind}*: the sender's user_id is added`, async (t) => {
    const channel = t.name(kind);
    const [a, b] = await pair(t, channel);
    a.send({ event: 'client-typing', channel, data: { on: true }, user_id: 'forged' });
    assert.equal((await b.take()).text,
                 `{"event":"client-typing","channel":"${channel}","data":{"on":true}`
                 + ',"user_id":"u0"}');
    await expect_nothing(a);
  });
}
s.test('user_id is the member of that channel, not the signed-in user', async (t) => {
  const channel = t.name('presence-');
  const [a, b] = await pair(t, channel);
  await sign_in(a, { id: 'signed' });
  send(a, channel);
  assert.equal((await b.next()).user_id, 'u0');
});

for (const data of [{ a: [1, null, { b: 'x' }] }, 'text', '{"a":1}', 7, -1.5e300, null, true, [],
  '']) {
  s.test(`data ${JSON.stringify(data)} keeps its type`, async (t) => {
    const channel = t.name('private-');
    const [a, b] = await pair(t, channel);
    send(a, channel, data);
    is_event(await b.next(), { event: 'client-x', channel, data });
  });
}
s.test('without data nothing is invented', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel);
  a.send({ event: 'client-x', channel });
  const m = await b.next();
  assert.equal(m.event, 'client-x');
  assert.ok(m.data === undefined || m.data === null, JSON.stringify(m));
});
s.test('names and data of any characters', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel);
  for (const event of ['client-', 'client-App\\Events\\X', 'client-ü🎉"\n', 'client-a b']) {
    send(a, channel, { 'k"\\ö': '\u0000\u001f🎉\\' }, event);
    is_event(await b.next(), { event, channel, data: { 'k"\\ö': '\u0000\u001f🎉\\' } });
  }
});
s.test('the order of one sender is kept', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel);
  for (let n = 0; n < 300; n++) send(a, channel, n);
  for (let n = 0; n < 300; n++) assert.equal((await b.next()).data, n);
});

/* ---- refusals ---- */
const NOT_KIND = 'Client event error: Client events can only be sent to private or presence '
  + 'channels';
s.test('no channel', async (t) => {
  const ws = await t.open();
  ws.send({ event: 'client-x', data: {} });
  await expect_error(ws, 4301, 'Client event error: Channel required for client event');
});
s.test('client messages are off unless the app turns them on', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel, t.apps.bare);
  send(a, channel);
  await expect_error(a, 4301, 'Client event error: Client events are not enabled for this app');
  await expect_nothing(b);
});
s.test('a name longer than 200 bytes', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel);
  send(a, channel, {}, `client-${'x'.repeat(193)}`);
  await b.until(`client-${'x'.repeat(193)}`);
  send(a, channel, {}, `client-${'x'.repeat(194)}`);
  await expect_error(a, 4000, 'Invalid event name: Event name exceeds maximum length of 200');
});
s.test('a channel longer than 200 bytes', async (t) => {
  const ws = await t.open();
  send(ws, `private-${'x'.repeat(193)}`);
  await expect_error(ws, 4300,
                     'Channel name invalid: Channel name exceeds maximum length of 200');
});
for (const kind of ['', 'cache-', '#server-to-user-']) {
  s.test(`not on "${kind}*" channels`, async (t) => {
    const [a, b] = [await t.open(), await t.open()];
    const channel = t.name(kind);
    if (kind.startsWith('#')) {
      await sign_in(a, { id: channel.slice(kind.length) });
    } else {
      for (const ws of [a, b]) {
        await join(ws, channel);
        if (kind === 'cache-') await ws.until('pusher:cache_miss');
      }
    }
    send(a, channel);
    await expect_error(a, 4301, NOT_KIND);
    await expect_nothing(b);
  });
}
for (const kind of ['private-encrypted-', 'private-encrypted-cache-']) {
  s.test(`not on ${kind}* channels`, async (t) => {
    const channel = t.name(kind);
    const [a, b] = await pair(t, channel);
    send(a, channel);
    const m = await a.next();
    assert.equal(m.event, 'pusher:error');
    assert.equal(m.data.code, 4301);
    await expect_nothing(b);
  });
}
s.test('a payload over the limit, measured as compact JSON', async (t) => {
  const app = t.apps.limits;
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel, app);
  send(a, channel, 'x'.repeat(1022));
  await b.until('client-x');
  a.text(`{"event":"client-x","channel":"${channel}","data":  [ ${'1 , '.repeat(510)} 1 ] }`);
  await b.until('client-x');
  send(a, channel, 'x'.repeat(1023));
  await expect_error(a, 4301,
    'Client event error: Event payload size (1025 bytes) exceeds limit (1KB)');
  await expect_nothing(b);
});
s.test('a sender that is not subscribed', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel);
  const stranger = await t.open();
  send(stranger, channel);
  await expect_error(stranger, 4301, 'Client event error: Socket '
    + `${stranger.socket_id} is not subscribed to channel ${channel}`);
  leave(a, channel);
  send(a, channel);
  await expect_error(a, 4301, `Client event error: Socket ${a.socket_id} is not subscribed to `
    + `channel ${channel}`);
  await expect_nothing(b);
});
s.test('the checks keep their order', async (t) => {
  const ws = await t.open(t.apps.bare);
  send(ws, 'x'.repeat(300), {}, `client-${'x'.repeat(300)}`);
  await expect_error(ws, 4301, 'Client event error: Client events are not enabled for this app');
  const main = await t.open();
  send(main, 'x'.repeat(300), {}, `client-${'x'.repeat(300)}`);
  await expect_error(main, 4000, 'Invalid event name: Event name exceeds maximum length of 200');
  send(main, 'x'.repeat(300));
  await expect_error(main, 4300,
                     'Channel name invalid: Channel name exceeds maximum length of 200');
  send(main, 'public');
  await expect_error(main, 4301, NOT_KIND);
});

/* ---- rates ---- */
const RATE = 'Client event rejected due to rate limit';
s.test('the rate limit refuses, the socket stays, the next window is free', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel, t.apps.rate);
  for (let n = 0; n < 6; n++) send(a, channel, n);
  for (let n = 0; n < 3; n++) await expect_error(a, 4301, RATE);
  for (let n = 0; n < 3; n++) assert.equal((await b.next()).data, n);
  await expect_nothing(b);
  await eventually(async () => {
    send(a, channel, 'again');
    return (await a.flush()).length === 0;
  }, 'the next window');
  assert.equal((await b.next()).data, 'again');
});
s.test('rejected events count towards the rate', async (t) => {
  const ws = await t.open(t.apps.rate);
  for (let n = 0; n < 4; n++) send(ws, 'public');
  for (let n = 0; n < 3; n++) await expect_error(ws, 4301, NOT_KIND);
  await expect_error(ws, 4301, RATE);
});
s.test('each socket has a window of its own', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel, t.apps.rate);
  for (let n = 0; n < 3; n++) { send(a, channel, n); send(b, channel, n); }
  for (let n = 0; n < 3; n++) {
    assert.equal((await a.next()).data, n);
    assert.equal((await b.next()).data, n);
  }
});
s.test('terminate_on_limit closes with 4301', async (t) => {
  const channel = t.name('private-');
  const [a] = await pair(t, channel, t.apps.rateend);
  for (let n = 0; n < 3; n++) send(a, channel, n);
  await expect_fatal(a, 4301, 'Connection closed due to client event rate limit');
});
s.test('without a limit many events pass', async (t) => {
  const channel = t.name('private-');
  const [a, b] = await pair(t, channel);
  for (let n = 0; n < 500; n++) send(a, channel, n);
  for (let n = 0; n < 500; n++) assert.equal((await b.next()).data, n);
});
s.test('message_rate_limit counts every message', async (t) => {
  const ws = await t.open(t.apps.inbound);
  for (let n = 0; n < 5; n++) {
    ws.send(n === 2 ? { event: 'whatever' } : { event: 'pusher:ping', data: {} });
  }
  for (let n = 0; n < 4; n++) assert.equal((await ws.next()).event, 'pusher:pong');
  ws.send({ event: 'pusher:ping', data: {} });
  await expect_error(ws, 4301, RATE);
  await eventually(async () => {
    ws.send({ event: 'pusher:ping', data: {} });
    const m = await ws.next();
    if (m.event === 'pusher:pong') return true;
    is_error(m, 4301, RATE);
    return false;
  }, 'the next window');
});
s.test('message_rate_limit is checked before everything but parsing', async (t) => {
  const ws = await t.open(t.apps.inbound);
  for (let n = 0; n < 5; n++) ws.send({ event: 'whatever' });
  ws.send({ event: 'pusher:subscribe', data: { channel: 'a b' } });
  await expect_error(ws, 4301, RATE);
  ws.text('{');
  await expect_error(ws, 4000, /^Invalid message format: Decode failed: /);
});
s.test('message_rate_limit with terminate_on_limit closes with 4301', async (t) => {
  const ws = await t.open(t.apps.inboundend);
  for (let n = 0; n < 4; n++) ws.send({ event: 'whatever' });
  await expect_fatal(ws, 4301, 'Connection closed due to client event rate limit');
});
