/* v2_namespaces.mjs - what a namespace forbids, on both protocols: flags, names, channels limited
 * to users, the order of the checks; and what it changes in the memory of its channels.
 *
 * Source   spec/protocol-v2.md 3, 5.1, 7, 10, 11; spec/messages-and-history.md 11.
 */
import { suite } from '../runner.mjs';
import { assert, expect_error, expect_nothing, is_api_error, is_ok } from '../expect.mjs';
import { app_entry } from '../apps.mjs';
import { join, subscribe_frame, user_auth } from '../clients.mjs';
import { mem_config } from '../memory.mjs';
import { expect_error_v2, expect_nothing_v2, join_v2, open_v2, sign_in_v2, subscribe_v2 }
  from '../v2_raw.mjs';

const features = { enable_client_messages: true, enable_user_authentication: true };
const spaced = app_entry('spaced', { features, channels: { annotations_enabled: true,
  channel_namespaces: [
    { name: 'open', allow_user_limited_channels: true },
    { name: 'shut', allow_subscribe_for_client: false },
    { name: 'mute', allow_publish_for_client: false },
    { name: 'nobody', allow_presence_for_client: false },
    { name: 'room', channel_name_pattern: '^room:[a-z]+$', max_channel_name_length: 20 },
    { name: 'now', history: { rewind_enabled: false } },
    { name: 'few', history: { max_messages_per_channel: 3 } },
    { name: 'bare', annotations_enabled: false },
  ] } });
const s = suite('v1 and v2 namespaces', { parallel: 8, config: { ...mem_config,
  app_manager: { array: { apps: [spaced] } } } });

/* One way to say each thing on each protocol. */
const protocols = {
  V1: {
    open: (t) => t.open(spaced),
    async sign_in(ws, id) {
      const user_data = JSON.stringify({ id });
      ws.send({ event: 'pusher:signin',
                data: { auth: user_auth(spaced, ws.socket_id, user_data), user_data } });
      await ws.until('pusher:signin_success');
    },
    join,
    ask: (ws, channel, member) => ws.send(subscribe_frame(ws, channel, member)),
    async refused(ws, channel, code, text) {
      await expect_error(ws, code, text);
      const m = await ws.next();
      assert.deepEqual([m.event, m.channel], ['pusher:subscription_error', channel]);
    },
    error: expect_error,
    nothing: expect_nothing,
  },
  V2: {
    open: (t) => open_v2(t, spaced),
    sign_in: (ws, id) => sign_in_v2(ws, { id }),
    join: (ws, channel, member) => join_v2(ws, channel, { member }),
    ask: (ws, channel, member) => subscribe_v2(ws, channel, { member }),
    refused: (ws, channel, code, text) => expect_error_v2(ws, code, text),
    error: expect_error_v2,
    nothing: expect_nothing_v2,
  },
};
const auth = (text) => `Authentication error: ${text}`;
const member = { user_id: 'u' };

for (const [name, p] of Object.entries(protocols)) {
  s.test(`${name}: subscriptions that a namespace forbids`, async (t) => {
    const ws = await p.open(t);
    for (const channel of ['shut:a', 'private-shut:a', 'cache-shut:a', 'private-cache-shut:a']) {
      p.ask(ws, channel);
      await p.refused(ws, channel, 4009,
                      auth("Namespace 'shut' does not allow client subscriptions"));
    }
    p.ask(ws, 'presence-shut:a', member);
    await p.refused(ws, 'presence-shut:a', 4009,
                    auth("Namespace 'shut' does not allow client subscriptions"));
    p.ask(ws, 'presence-nobody:a', member);
    await p.refused(ws, 'presence-nobody:a', 4009,
                    auth("Namespace 'nobody' does not allow client presence subscriptions"));
    for (const channel of ['nobody:a', 'private-nobody:a', 'open:a', 'free']) {
      await p.join(ws, channel);
    }
    const channels = { channels: ['shut:a', 'mute:a', 'presence-nobody:a'] };
    is_ok(await t.api(spaced, 'POST', '/events', { body: { name: 'e', data: '', ...channels } }));
  });
  s.test(`${name}: client events that a namespace forbids`, async (t) => {
    const [ws, other] = [await p.open(t), await p.open(t)];
    const [mute, open] = [`private-mute:${name}`, `private-open:${name}`];
    for (const channel of [mute, open]) {
      await p.join(ws, channel);
      await p.join(other, channel);
    }
    ws.send({ event: 'client-x', channel: mute, data: {} });
    await p.error(ws, 4009, auth("Namespace 'mute' does not allow client publishes"));
    await p.nothing(other);
    ws.send({ event: 'client-x', channel: open, data: {} });
    assert.equal((await other.until('client-x')).channel, open);
    is_ok(await t.api(spaced, 'POST', '/events',
                      { body: { name: 'e', data: '', channel: mute } }));
    assert.equal((await other.until('e')).channel, mute);
  });
  s.test(`${name}: names`, async (t) => {
    const ws = await p.open(t);
    await p.join(ws, 'room:abc');
    await p.join(ws, 'private-room:abc');
    const bad = {
      'gone:a': "Unknown channel namespace 'gone'",
      'room:ABC': "Channel 'room:ABC' does not match namespace 'room' pattern",
      'room:abcdefghijklmnopqrst': 'Channel name too long. Max length is 20',
      'room:a#u': "Channel 'room:a#u' uses user-limited syntax but the namespace does not allow it",
      'open:a#': "Channel 'open:a#' has an empty user limit segment",
      'open:a#u,': "Channel 'open:a#u,' contains an empty user id in its user limit segment",
      'open:a#u#v': "Channel 'open:a#u#v' contains multiple user limit separators",
    };
    for (const [channel, text] of Object.entries(bad)) {
      p.ask(ws, channel);
      await p.refused(ws, channel, 4300, `Channel error: ${text}`);
    }
  });
  s.test(`${name}: channels limited to users`, async (t) => {
    const [nobody, ann, bob] = [await p.open(t), await p.open(t), await p.open(t)];
    const [one, two] = [t.name('ann'), t.name('bob')];
    const channel = `private-open:room#${one},other`;
    const no = auth(`User is not allowed to access channel '${channel}'`);
    await p.sign_in(ann, one);
    await p.sign_in(bob, two);
    await p.join(ann, channel);
    for (const ws of [nobody, bob]) {
      p.ask(ws, channel);
      await p.refused(ws, channel, 4009, no);
      ws.send({ event: 'client-x', channel, data: {} });
      await p.error(ws, 4009, no);
    }
    ann.send({ event: 'client-x', channel, data: {} });
    if (name === 'V2') await ann.until('client-x');      /* its echo */
    is_ok(await t.api(spaced, 'POST', '/events', { body: { name: 'e', data: '', channel } }));
    assert.equal((await ann.until('e')).channel, channel);
    await p.nothing(ann);
  });
  s.test(`${name}: the first check that fails speaks`, async (t) => {
    const ws = await p.open(t);
    const event = name === 'V1' ? 'pusher:subscribe' : 'sockudo:subscribe';
    const send = (data) => ws.send({ event, data });
    send({ channel: 'private-shut:a' });
    await p.refused(ws, 'private-shut:a', 4009,
                    auth('Authentication signature required for this channel'));
    send({ channel: 'private-shut:a', auth: 'bad:00' });
    await p.refused(ws, 'private-shut:a', 4009, /Namespace 'shut' does not allow/);
    send({ channel: 'private-open:a#u', auth: 'bad:00' });
    await p.refused(ws, 'private-open:a#u', 4009, /User is not allowed to access/);
    send({ channel: 'presence-nobody:a', auth: 'bad:00', channel_data: '{' });
    await p.refused(ws, 'presence-nobody:a', 4009, /Namespace 'nobody' does not allow/);
    send({ channel: 'private-open:a', auth: 'bad:00' });
    await p.refused(ws, 'private-open:a', 4009, auth('Channel requires authentication'));
  });
}

s.test('V2: policy and capabilities beside the flags', async (t) => {
  const ws = await open_v2(t, spaced);
  subscribe_v2(ws, 'private-now:a', { rewind: 1 });
  await expect_error_v2(ws, 4300,
    "Channel error: Channel rewind is disabled by policy for channel 'private-now:a'");
  subscribe_v2(ws, 'bare:a', { modes: ['ANNOTATION_SUBSCRIBE'] });
  await expect_error_v2(ws, 4300, /^Channel error: Annotations are disabled /);
  await sign_in_v2(ws, { id: t.name('u'), capabilities: { subscribe: [] } });
  subscribe_v2(ws, 'shut:a');
  await expect_error_v2(ws, 4009, auth("Namespace 'shut' does not allow client subscriptions"));
  subscribe_v2(ws, 'open:a#someone');
  await expect_error_v2(ws, 4009,
    auth("Connection is not allowed to subscribe channel 'open:a#someone'"));
});
s.test('V2: history of a limited channel goes to its users', async (t) => {
  const ws = await open_v2(t, spaced);
  const id = t.name('u');
  const channel = `open:h#${id}`;
  await sign_in_v2(ws, { id });
  await join_v2(ws, channel);
  await sign_in_v2(ws, { id: t.name('other') });
  ws.send({ event: 'sockudo:channel_history', data: { channel } });
  await expect_error_v2(ws, 4009, auth(`User is not allowed to access channel '${channel}'`));
});
s.test('rewind of a namespace, and of the channels outside', async (t) => {
  const ws = await open_v2(t, spaced);
  subscribe_v2(ws, 'now:a', { rewind: 1 });
  await expect_error_v2(ws, 4300,
    "Channel error: Channel rewind is disabled by policy for channel 'now:a'");
  await t.publish(spaced, 'open:r', 'e', 'kept');
  await join_v2(ws, 'open:r', { rewind: 1 });
  assert.equal((await ws.next()).data, 'kept');
  assert.equal((await ws.next()).event, 'sockudo:rewind_complete');
});
s.test('retention of a namespace', async (t) => {
  const held = async (channel) => {
    for (let i = 0; i < 5; i++) await t.publish(spaced, channel, 'e', `${i}`);
    const r = await t.api(spaced, 'GET', `/channels/${channel}/history`);
    is_ok(r);
    return r.json.items.map((i) => i.message.data);
  };
  assert.deepEqual(await held('few:a'), ['4', '3', '2']);
  assert.deepEqual(await held('open:few'), ['4', '3', '2', '1', '0']);
});
s.test('annotations of a namespace', async (t) => {
  const annotate = async (channel) => {
    const { channels } = await t.publish(spaced, channel, 'e', 'x',
                                         { info: 'subscription_count' });
    return t.api(spaced, 'POST',
                 `/channels/${channel}/messages/${channels[channel].message_serial}/annotations`,
                 { body: { type: 'r:total.v1' } });
  };
  is_ok(await annotate('open:ann'));
  is_api_error(await annotate('bare:ann'), 403, 'forbidden', /^Annotations are disabled /);
});
