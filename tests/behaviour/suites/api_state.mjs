/* api_state.mjs - what the HTTP API tells about channels and members.
 *
 * Source   spec/pusher-v1.md 7.5; spec/settled.md 7.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, is_api_error, is_ok } from '../expect.mjs';
import { join, leave } from '../clients.mjs';

const s = suite('api state', { shared: true });
const get = (t, path, query = {}, app = t.apps.main) => t.api(app, 'GET', path, { query });

s.test('GET /channels lists occupied channels, each with {}', async (t) => {
  const prefix = t.name('list-');
  const ws = await t.open();
  is_ok(await get(t, '/channels', { filter_by_prefix: prefix }), { channels: {} });
  const names = ['a', 'b', 'c'].map((x) => `${prefix}-${x}`);
  for (const name of names) await join(ws, name);
  await join(ws, t.name());
  const want = { channels: Object.fromEntries(names.map((n) => [n, {}])) };
  is_ok(await get(t, '/channels', { filter_by_prefix: prefix }), want);
  const all = await get(t, '/channels');
  for (const name of names) assert.deepEqual(all.json.channels[name], {});
  leave(ws, names[0]);
  /* An unsubscribe is not answered, so nothing says when its home, another shard, has it. */
  await eventually(async () => {
    const after = await get(t, '/channels', { filter_by_prefix: prefix });
    return Object.keys(after.json.channels).sort().join() === names.slice(1).join();
  }, 'the channel that was left is gone');
});
s.test('a subscription is in the list as soon as the client knows of it', async (t) => {
  await Promise.all(Array.from({ length: 10 }, async () => {
    const ws = await t.open();
    for (let n = 0; n < 5; n++) {
      const channel = t.name('fresh-');
      await join(ws, channel);
      is_ok(await get(t, '/channels', { filter_by_prefix: channel }),
        { channels: { [channel]: {} } });
      is_ok(await get(t, `/channels/${channel}`), { occupied: true });
    }
  }));
});
s.test('a socket that ended leaves the list', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  ws.reset();
  await eventually(async () => (await get(t, `/channels/${channel}`)).json.occupied === false,
                   'vacated');
  is_ok(await get(t, '/channels', { filter_by_prefix: channel }), { channels: {} });
});
s.test('info=user_count with presence channels', async (t) => {
  const prefix = t.name('presence-list');
  const [a, b, c] = [await t.open(), await t.open(), await t.open()];
  await join(a, `${prefix}a`, { user_id: 'u1' });
  await join(b, `${prefix}a`, { user_id: 'u2' });
  await join(c, `${prefix}a`, { user_id: 'u2' });
  await join(a, `${prefix}b`, { user_id: 'u1' });
  is_ok(await get(t, '/channels', { filter_by_prefix: prefix, info: 'user_count' }),
        { channels: { [`${prefix}a`]: { user_count: 2 }, [`${prefix}b`]: { user_count: 1 } } });
  is_ok(await get(t, '/channels', { filter_by_prefix: prefix,
    info: 'user_count,subscription_count' }),
        { channels: { [`${prefix}a`]: { user_count: 2, subscription_count: 3 },
                      [`${prefix}b`]: { user_count: 1, subscription_count: 1 } } });
});
s.test('info=user_count with another prefix', async (t) => {
  const channel = t.name();
  await join(await t.open(), channel);
  for (const query of [{ info: 'user_count' }, { info: 'user_count', filter_by_prefix: channel }]) {
    is_api_error(await get(t, '/channels', query), 400, 'invalid_input', 'user_count is only '
      + 'available for presence channels. Use filter_by_prefix=presence-');
  }
});
s.test('info=subscription_count with any channel', async (t) => {
  const prefix = t.name('list-');
  const [a, b] = [await t.open(), await t.open()];
  await join(a, `${prefix}-1`);
  await join(b, `${prefix}-1`);
  await join(a, `${prefix}-2`);
  is_ok(await get(t, '/channels', { filter_by_prefix: prefix, info: 'subscription_count' }),
        { channels: { [`${prefix}-1`]: { subscription_count: 2 },
                      [`${prefix}-2`]: { subscription_count: 1 } } });
});
s.test('info that yields nothing leaves the channel out', async (t) => {
  const channel = t.name('list-');
  await join(await t.open(), channel);
  is_ok(await get(t, '/channels', { filter_by_prefix: channel, info: 'nonsense' }),
    { channels: {} });
});
s.test('apps see their own channels only', async (t) => {
  const channel = t.name('list-');
  await join(await t.open(), channel);
  is_ok(await get(t, '/channels', { filter_by_prefix: channel }, t.apps.other), { channels: {} });
  is_ok(await get(t, `/channels/${channel}`, {}, t.apps.other), { occupied: false });
});
s.test('a list of 2000 channels is complete', async (t) => {
  const prefix = t.name('many-');
  const sockets = await Promise.all(Array.from({ length: 20 }, () => t.open()));
  await Promise.all(sockets.map(async (ws, i) => {
    for (let n = 0; n < 100; n++) await join(ws, `${prefix}-${i * 100 + n}`);
  }));
  const r = await get(t, '/channels', { filter_by_prefix: prefix, info: 'subscription_count' });
  is_ok(r);
  assert.equal(Object.keys(r.json.channels).length, 2000);
  for (let n = 0; n < 2000; n++) {
    assert.deepEqual(r.json.channels[`${prefix}-${n}`], { subscription_count: 1 });
  }
});
s.test('lists taken while channels come and go hold what stays', async (t) => {
  const prefix = t.name('churn-');
  const [stay, churn] = [await t.open(), await t.open()];
  for (let n = 0; n < 50; n++) await join(stay, `${prefix}-stay${n}`);
  let done = false;
  const churning = (async () => {
    for (let n = 0; !done; n++) {
      await join(churn, `${prefix}-go${n % 40}`);
      leave(churn, `${prefix}-go${(n + 20) % 40}`);
    }
  })();
  for (let round = 0; round < 40; round++) {
    const r = await get(t, '/channels', { filter_by_prefix: `${prefix}-stay` });
    assert.equal(Object.keys(r.json.channels).length, 50);
    is_ok(await get(t, '/channels', { filter_by_prefix: prefix }));
  }
  done = true;
  await churning;
});

/* ---- one channel ---- */
s.test('GET /channels/{name}', async (t) => {
  const [open, presence] = [t.name(), t.name('presence-')];
  const [a, b] = [await t.open(), await t.open()];
  is_ok(await get(t, `/channels/${open}`), { occupied: false });
  await join(a, open);
  await join(a, presence, { user_id: 'u' });
  await join(b, presence, { user_id: 'u' });
  is_ok(await get(t, `/channels/${open}`), { occupied: true });
  is_ok(await get(t, `/channels/${open}`, { info: 'subscription_count' }),
        { occupied: true, subscription_count: 1 });
  is_ok(await get(t, `/channels/${presence}`, { info: 'user_count,subscription_count' }),
        { occupied: true, user_count: 1, subscription_count: 2 });
  is_ok(await get(t, `/channels/${presence}`, { info: 'nonsense' }), { occupied: true });
  is_api_error(await get(t, `/channels/${open}`, { info: 'user_count' }), 400, 'invalid_input',
               'user_count is only available for presence channels');
});
for (const path of ['/channels/a%20b', '/channels/a%20b/users', `/channels/${'x'.repeat(201)}`]) {
  s.test(`${path.slice(0, 30)}: bad names are refused`, async (t) => {
    is_api_error(await get(t, path), 400, 'invalid_input', /^Channel name /);
  });
}
s.test('names may be percent-encoded', async (t) => {
  const channel = t.name('a=b@c;d,e.f_');
  await join(await t.open(), channel);
  is_ok(await get(t, `/channels/${encodeURIComponent(channel)}`), { occupied: true });
  is_ok(await get(t, `/channels/${channel}`), { occupied: true });
});

/* ---- members ---- */
s.test('GET /channels/{name}/users: each user once', async (t) => {
  const channel = t.name('presence-');
  is_ok(await get(t, `/channels/${channel}/users`), { users: [] });
  const sockets = await Promise.all(Array.from({ length: 4 }, () => t.open()));
  for (const [i, id] of ['a', 'ü"\\', 'a', '7'].entries()) {
    await join(sockets[i], channel, { user_id: id });
  }
  const r = await get(t, `/channels/${channel}/users`);
  is_ok(r);
  for (const user of r.json.users) assert.deepEqual(Object.keys(user), ['id']);
  assert.deepEqual(r.json.users.map((u) => u.id).sort(), ['7', 'a', 'ü"\\']);
});
s.test('not a presence channel', async (t) => {
  for (const channel of ['open', 'private-x', 'cache-x']) {
    is_api_error(await get(t, `/channels/${channel}/users`), 400, 'invalid_input',
                 'Only presence channels support this endpoint');
  }
});
s.test('the SDK reads the same', async (t) => {
  const channel = t.name('presence-');
  await join(await t.open(), channel, { user_id: 'u1' });
  const sdk = t.sdk();
  const list = await sdk.get({ path: '/channels',
                               params: { filter_by_prefix: channel, info: 'user_count' } });
  assert.deepEqual(await list.json(), { channels: { [channel]: { user_count: 1 } } });
  const users = await sdk.get({ path: `/channels/${channel}/users` });
  assert.deepEqual(await users.json(), { users: [{ id: 'u1' }] });
  await assert.rejects(sdk.get({ path: '/channels/open/users' }), (e) => e.status === 400);
});
for (const [method, path] of [['POST', '/channels'], ['POST', '/channels/x'],
  ['DELETE', '/channels'],
                              ['GET', '/events'], ['GET', '/batch_events'], ['PUT', '/events']]) {
  s.test(`${method} ${path}: 405`, async (t) => {
    assert.equal((await t.api(t.apps.main, method, path)).status, 405);
  });
}
