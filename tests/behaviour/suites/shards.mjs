/* shards.mjs - whatever shard a socket or a request lands on: everyone gets all, in one order.
 *
 * Source   spec/pusher-v1.md 3.5, 3.7; spec/settled.md 6, 7; issue 2 item 6.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_fatal, expect_nothing } from '../expect.mjs';
import { join, join_all, leave, sign_in, subscribe_frame, user_channel } from '../clients.mjs';
import { scrape, value } from '../metrics.mjs';

const s = suite('shards', { shared: true, parallel: 6 });
const many = (t, n, app) => Promise.all(Array.from({ length: n }, () => t.open(app)));
/* Publishes on a connection of its own, which any shard may accept. */
const publish = async (t, channels, name, data, app = t.apps.main) => {
  const r = await t.api(app, 'POST', '/events', { agent: false,
    body: { name, data, channels: [channels].flat() } });
  assert.equal(r.status, 200, r.text);
};

s.test('the sockets are spread over the shards', async (t) => {
  const sockets = await many(t, 100);
  const held = await eventually(async () => {
    const m = await scrape(t.server);
    const list = Array.from({ length: t.shards }, (_, shard) =>
      value(m, 'sockudo_shard_connections', { shard: String(shard) }));
    return list.reduce((a, b) => a + b) >= sockets.length && list;
  }, 'the gauges of the shards');
  if (t.shards > 1) assert.ok(held.filter((n) => n > 0).length > 1, String(held));
});

s.test('a publish from anywhere reaches every subscriber once', async (t) => {
  const channel = t.name();
  const sockets = await many(t, 30);
  await join_all(sockets, channel);
  await Promise.all(Array.from({ length: 20 }, (_, n) => publish(t, channel, 'ev', String(n))));
  const wanted = Array.from({ length: 20 }, (_, n) => n);
  for (const ws of sockets) {
    const seen = [];
    while (seen.length < 20) seen.push(Number((await ws.next()).data));
    assert.deepEqual(seen.sort((a, b) => a - b), wanted);
  }
  for (const ws of sockets) await expect_nothing(ws);
});

s.test('one order per channel for every subscriber, with publishers at once', async (t) => {
  const channel = t.name('private-');
  const sockets = await many(t, 20);
  await join_all(sockets, channel);
  const HTTP = 4;
  const EACH = 60;
  const publishers = Array.from({ length: HTTP }, async (_, p) => {
    for (let n = 0; n < EACH; n++) await publish(t, channel, 'client-ev', { p, n });
  });
  for (const [i, ws] of sockets.slice(0, 3).entries()) {
    for (let n = 0; n < EACH; n++) {
      ws.send({ event: 'client-ev', channel, data: { p: HTTP + i, n } });
    }
  }
  const orders = await Promise.all(sockets.map(async (ws, i) => {
    const own = i < 3 ? HTTP + i : -1;
    const total = (HTTP + 3 - (i < 3 ? 1 : 0)) * EACH;
    const seen = [];
    while (seen.length < total) {
      const { data } = await ws.next();
      const { p, n } = typeof data === 'string' ? JSON.parse(data) : data;
      assert.notEqual(p, own, 'a sender never gets its own');
      seen.push(`${p}:${n}`);
    }
    return seen;
  }));
  await Promise.all(publishers);
  const full = orders[5];
  for (let p = 0; p < HTTP + 3; p++) {
    assert.deepEqual(full.filter((x) => x.startsWith(`${p}:`)),
                     Array.from({ length: EACH }, (_, n) => `${p}:${n}`),
                       'each publisher in order');
  }
  for (const [i, order] of orders.entries()) {
    const want = i < 3 ? full.filter((x) => !x.startsWith(`${HTTP + i}:`)) : full;
    assert.deepEqual(order, want, `socket ${i} saw another order`);
  }
});

/* What many sockets of a shard are to be sent leaves in one piece (shards/bundle.h), which must not
 * show. */
s.test('bursts come in order, without what excludes a socket, from its join on', async (t) => {
  const BATCHES = 12;
  const EACH = 10;
  const channel = t.name();
  const sockets = await many(t, 80);
  const late = await many(t, BATCHES);
  await join_all(sockets, channel);
  const excluded = (n) => (n % 3 === 1 ? n % sockets.length : -1);
  const joins = [];
  for (let b = 0; b < BATCHES; b++) {
    joins.push(join(late[b], channel));
    const items = Array.from({ length: EACH }, (_, i) => b * EACH + i).map((n) => ({
      name: 'ev', channel, data: `${n}`.padEnd(n % 7 === 0 ? 2000 : 10),
      ...(excluded(n) < 0 ? {} : { socket_id: sockets[excluded(n)].socket_id }) }));
    const r = await t.api(t.apps.main, 'POST', '/batch_events', { body: { batch: items } });
    assert.equal(r.status, 200, r.text);
  }
  await Promise.all(joins);
  await publish(t, channel, 'end', 'x');
  const all = Array.from({ length: BATCHES * EACH }, (_, n) => n);
  for (const [i, ws] of [...sockets, ...late].entries()) {
    const seen = [];
    for (let m = await ws.next(); m.event === 'ev'; m = await ws.next()) seen.push(Number(m.data));
    const joined = i < sockets.length ? 0 : seen[0] ?? all.length;
    assert.deepEqual(seen, all.filter((n) => n >= joined && excluded(n) !== i), `socket ${i}`);
  }
});

s.test('many channels, each socket gets exactly its own', async (t) => {
  const channels = Array.from({ length: 40 }, () => t.name());
  const sockets = await many(t, 20);
  const mine = sockets.map((_, i) => channels.filter((_c, c) => (c * 7 + i * 3) % 5 === 0));
  await Promise.all(sockets.map(async (ws, i) => { for (const c of mine[i]) await join(ws, c); }));
  await Promise.all(Array.from({ length: 8 }, (_, n) =>
    publish(t, channels.filter((_c, c) => c % 8 === n), 'ev', 'x')));
  await publish(t, channels, 'all', 'x');
  for (const [i, ws] of sockets.entries()) {
    const seen = [];
    while (seen.length < 2 * mine[i].length) {
      const m = await ws.next();
      seen.push(`${m.event} ${m.channel}`);
    }
    assert.deepEqual(seen.sort(), mine[i].flatMap((c) => [`all ${c}`, `ev ${c}`]).sort());
  }
});

s.test('nothing comes before the success, nothing after an unsubscribe', async (t) => {
  const channel = t.name();
  const sockets = await many(t, 8);
  let stop = false;
  let sent = 0;
  const publishing = Promise.all([1, 2].map(async () => {
    while (!stop) { sent += 1; await publish(t, channel, 'ev', String(sent)); }
  }));
  await Promise.all(sockets.map(async (ws) => {
    for (let round = 0; round < 25; round++) {
      ws.send(subscribe_frame(ws, channel));
      assert.equal((await ws.next()).event, 'pusher_internal:subscription_succeeded');
      if (round % 3 === 0) assert.equal((await ws.next()).event, 'ev');
      leave(ws, channel);
      for (const m of await ws.flush()) assert.equal(m.event, 'ev');
      await expect_nothing(ws);
    }
  }));
  stop = true;
  await publishing;
});

s.test('an acknowledged publish is over before a later subscription', async (t) => {
  await Promise.all((await many(t, 10)).map(async (ws) => {
    for (let n = 0; n < 10; n++) {
      const channel = t.name();
      await publish(t, channel, 'early', 'x');
      await join(ws, channel);
      await publish(t, channel, 'late', 'x');
      assert.equal((await ws.next()).event, 'late');
    }
  }));
});

s.test('presence over shards: the events add up to the list', async (t) => {
  const channel = t.name('presence-');
  const watcher = await t.open();
  await join(watcher, channel, { user_id: 'watcher' });
  const sockets = await many(t, 24);
  let rounds = 0;
  await Promise.all(sockets.map(async (ws, i) => {
    const user_id = `u${i % 8}`;
    for (let round = 0; round < 12; round++) {
      ws.send(subscribe_frame(ws, channel, { user_id }));
      const m = await ws.until('pusher_internal:subscription_succeeded');
      const { presence } = JSON.parse(m.data);
      assert.ok(presence.ids.includes(user_id) && presence.ids.includes('watcher'));
      assert.equal(presence.count, new Set(presence.ids).size);
      if (round < 11 || i % 3 === 0) leave(ws, channel);
      rounds += 1;
      await ws.flush();
    }
  }));
  assert.equal(rounds, 24 * 12);
  const r = await t.api(t.apps.main, 'GET', `/channels/${channel}/users`);
  const users = r.json.users.map((u) => u.id).sort();
  const marker = await t.open();
  await join(marker, channel, { user_id: 'marker' });
  const members = new Set(['watcher']);
  for (;;) {
    const m = await watcher.next();
    const { user_id } = JSON.parse(m.data);
    if (user_id === 'marker') break;
    if (m.event === 'pusher_internal:member_added') {
      assert.ok(!members.has(user_id), `${user_id} was added twice`);
      members.add(user_id);
    } else {
      assert.equal(m.event, 'pusher_internal:member_removed');
      assert.ok(members.delete(user_id), `${user_id} was removed without being there`);
    }
  }
  assert.deepEqual([...members].sort(), users);
  assert.deepEqual(users.filter((u) => u !== 'watcher'),
                   ['u0', 'u1', 'u2', 'u3', 'u4', 'u5', 'u6', 'u7']);
});

s.test('counts over shards', async (t) => {
  const channel = t.name('presence-');
  const sockets = await many(t, 30);
  await Promise.all(sockets.map((ws, i) => {
    ws.send(subscribe_frame(ws, channel, { user_id: `u${i % 10}` }));
    return ws.until('pusher_internal:subscription_succeeded');
  }));
  const info = { info: 'user_count,subscription_count' };
  for (let n = 0; n < 5; n++) {
    const one = await t.api(t.apps.main, 'GET', `/channels/${channel}`,
      { query: info, agent: false });
    assert.deepEqual(one.json, { occupied: true, user_count: 10, subscription_count: 30 });
    const list = await t.api(t.apps.main, 'GET', '/channels',
                             { query: { ...info, filter_by_prefix: channel }, agent: false });
    assert.deepEqual(list.json.channels[channel], { user_count: 10, subscription_count: 30 });
  }
  sockets.slice(0, 15).forEach((ws) => ws.reset());
  await eventually(async () => (await t.api(t.apps.main, 'GET', `/channels/${channel}`,
    { query: info })).json.subscription_count === 15, 'half of them');
});

s.test('users over shards: events for one, the end of all', async (t) => {
  const id = t.name('u');
  const sockets = await many(t, 24);
  await Promise.all(sockets.map((ws) => sign_in(ws, { id })));
  await publish(t, user_channel(id), 'hello', '1');
  for (const ws of sockets) assert.equal((await ws.next()).event, 'hello');
  const r = await t.api(t.apps.main, 'POST', `/users/${id}/terminate_connections`,
                        { body: '{}', agent: false });
  assert.equal(r.status, 200);
  await Promise.all(sockets.map((ws) => expect_fatal(ws, 4009,
    'You got disconnected by the app.')));
});

s.test('apps with the same channel names stay apart', async (t) => {
  const channel = t.name();
  const [mine, theirs] = [await many(t, 6), await many(t, 6, t.apps.other)];
  await join_all([...mine, ...theirs], channel);
  await publish(t, channel, 'ours', 'x');
  await publish(t, channel, 'yours', 'x', t.apps.other);
  for (const ws of mine) assert.equal((await ws.next()).event, 'ours');
  for (const ws of theirs) assert.equal((await ws.next()).event, 'yours');
  for (const ws of [...mine, ...theirs]) await expect_nothing(ws);
});
