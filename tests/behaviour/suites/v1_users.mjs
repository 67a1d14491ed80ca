/* v1_users.mjs - sign-in, events for a user, ending a user's connections.
 *
 * Source   spec/pusher-v1.md 5, 7.6; spec/settled.md 7, 17, 19.
 */
import { suite } from '../runner.mjs';
import { assert, expect_error, expect_fatal, expect_nothing, is_event, is_ok } from '../expect.mjs';
import { join, leave, sign_in, subscribe_frame, user_auth, user_channel } from '../clients.mjs';
import { hmac } from '../http_raw.mjs';

const s = suite('v1 users', { shared: true });
const signin = (data) => ({ event: 'pusher:signin', data });
const signed = (ws, user_data) =>
  signin({ auth: user_auth(ws.app, ws.socket_id, user_data), user_data });

s.test('the published signature vector', async () => {
  assert.equal(hmac('secret-xyz', '123.456::user::{"id":"u1"}'),
               '5ec3e888f4753aebeefafcd7eb98b16c8a1260986af9e4d2162cf5ca70dc50e3');
});
s.test('sign-in answers with the user_data that was sent', async (t) => {
  const ws = await t.open();
  const id = t.name('u');
  await sign_in(ws, `{ "id" : "${id}", "user_info":{"n":1.50},"x":"\\u00e4" }`);
  await expect_nothing(ws);
});
s.test('sockudo:signin is the same', async (t) => {
  const ws = await t.open();
  ws.send({ ...signed(ws, `{"id":"${t.name('u')}"}`), event: 'sockudo:signin' });
  assert.equal((await ws.next()).event, 'pusher:signin_success');
});

s.test('an app without user authentication', async (t) => {
  const ws = await t.open(t.apps.bare);
  ws.send(signed(ws, '{"id":"u1"}'));
  await expect_error(ws, 4009,
                     'Authentication error: User authentication is disabled for this app');
  await expect_nothing(ws);
});
const AUTH = 'Authentication error: ';
const NO_ID = `${AUTH}Missing 'id' field in user_data`;
const refused = {
  'no data': [() => ({ event: 'pusher:signin' }), 4000,
              'Invalid message format: Invalid signin data format'],
  'data a string': [() => signin('{"auth":"x","user_data":"{}"}'), 4000,
                    'Invalid message format: Invalid signin data format'],
  'no auth': [() => signin({ user_data: '{"id":"u"}' }), 4009,
              `${AUTH}Missing 'auth' field in signin data`],
  'no user_data': [() => signin({ auth: 'x' }), 4009,
                   `${AUTH}Missing 'user_data' field in signin data`],
  'user_data that is not JSON': [(ws) => signed(ws, '{"id":'), 4009,
                                 /^Authentication error: Invalid user_data JSON: ./],
  'no id': [(ws) => signed(ws, '{"user_info":{}}'), 4009, NO_ID],
  'id a number': [(ws) => signed(ws, '{"id":5}'), 4009, NO_ID],
  'id null': [(ws) => signed(ws, '{"id":null}'), 4009, NO_ID],
  'id empty': [(ws) => signed(ws, '{"id":""}'), 4009, NO_ID],
  'a wrong signature': [(ws) => signin({ auth: `${ws.app.key}:00`, user_data: '{"id":"u"}' }), 4009,
                        `${AUTH}Connection not authorized for signin.`],
  'no key in auth': [(ws) => signin({ user_data: '{"id":"u"}',
    auth: user_auth(ws.app, ws.socket_id, '{"id":"u"}').split(':')[1] }), 4009,
                     `${AUTH}Connection not authorized for signin.`],
  'another key in auth': [(ws) => signin({ user_data: '{"id":"u"}',
    auth: `other-key:${user_auth(ws.app, ws.socket_id, '{"id":"u"}').split(':')[1]}` }), 4009,
                          `${AUTH}Connection not authorized for signin.`],
  'other user_data than signed': [(ws) => signin({ user_data: '{"id":"v"}',
    auth: user_auth(ws.app, ws.socket_id, '{"id":"u"}') }), 4009,
                                  `${AUTH}Connection not authorized for signin.`],
  'a channel signature': [(ws) => signin({ user_data: '{"id":"v"}',
    auth: `${ws.app.key}:${hmac(ws.app.secret, `${ws.socket_id}:{"id":"v"}`)}` }), 4009,
                          `${AUTH}Connection not authorized for signin.`],
};
for (const [what, [make, code, text]] of Object.entries(refused)) {
  s.test(`${what}: an error, the socket stays`, async (t) => {
    const ws = await t.open();
    ws.send(make(ws));
    await expect_error(ws, code, text);
    await expect_nothing(ws);
    await sign_in(ws, { id: t.name('u') });
  });
}
s.test('an id over 128 bytes is refused', async (t) => {
  const ws = await t.open();
  await sign_in(ws, { id: 'x'.repeat(128) });
  ws.send(signed(ws, JSON.stringify({ id: 'x'.repeat(129) })));
  const m = await ws.next();
  assert.equal(m.event, 'pusher:error', JSON.stringify(m));
});

/* ---- server to user ---- */
const event = (id, data = '{"room":4}') => ({ event: 'invite', channel: user_channel(id), data });

for (const strange of ['', ' 1', 'ü', '/x?y=1&z', '"\\', '🎉', '#a:b*[c]', '%41']) {
  s.test(`events reach every socket of user "…${strange}", subscribed or not`, async (t) => {
    const id = t.name('u') + strange;
    const [a, b, c] = [await t.open(), await t.open(), await t.open()];
    for (const ws of [a, b]) await sign_in(ws, { id });
    await sign_in(c, { id: `${id}x` });
    await join(b, user_channel(id));
    const r = await t.sdk().sendToUser(id, 'invite', { room: 4 });
    assert.equal(r.status, 200);
    for (const ws of [a, b]) is_event(await ws.next(), event(id));
    for (const ws of [a, b, c]) await expect_nothing(ws);
  });
}
s.test('the frame, byte for byte', async (t) => {
  const id = t.name('u');
  const ws = await t.open();
  await sign_in(ws, { id });
  await t.publish(t.apps.main, user_channel(id), 'invite', '{"room":4}');
  assert.equal((await ws.take()).text,
               `{"event":"invite","channel":"#server-to-user-${id}","data":"{\\"room\\":4}"}`);
});
s.test('after leaving the user channel events still come: it is the sign-in that counts',
       async (t) => {
  const id = t.name('u');
  const ws = await t.open();
  await sign_in(ws, { id });
  await join(ws, user_channel(id));
  leave(ws, user_channel(id));
  await ws.flush();
  await t.publish(t.apps.main, user_channel(id), 'invite', '1');
  is_event(await ws.next(), event(id, '1'));
});
s.test('only a socket signed in as that user may subscribe', async (t) => {
  const id = t.name('u');
  const [nobody, other] = [await t.open(), await t.open()];
  await sign_in(other, { id: t.name('u') });
  for (const ws of [nobody, other]) {
    ws.send(subscribe_frame(ws, user_channel(id)));
    assert.equal((await ws.next()).event, 'pusher:error');
    assert.equal((await ws.next()).event, 'pusher:subscription_error');
    await t.publish(t.apps.main, user_channel(id), 'secret', 'x');
    await expect_nothing(ws);
  }
});
s.test('names of user channels have bounds of their own', async (t) => {
  const ws = await t.open();
  for (const id of ['', 'x'.repeat(129)]) {
    ws.send(subscribe_frame(ws, user_channel(id)));
    assert.equal((await ws.until('pusher:error')).data.code >= 4000, true);
    const r = await t.api(t.apps.main, 'POST', '/events',
                          { body: { name: 'e', data: 'x', channels: [user_channel(id)] } });
    assert.equal(r.status, 400, r.text);
  }
  const r = await t.api(t.apps.main, 'POST', '/events',
                        { body: { name: 'e', data: 'x', channels: ['#server-to-user-a\u0007b'] } });
  assert.equal(r.status, 400, r.text);
});
s.test('the excluded socket gets nothing', async (t) => {
  const id = t.name('u');
  const [a, b] = [await t.open(), await t.open()];
  await sign_in(a, { id });
  await sign_in(b, { id });
  await t.publish(t.apps.main, user_channel(id), 'invite', '1', { socket_id: a.socket_id });
  is_event(await b.next(), event(id, '1'));
  await t.publish(t.apps.main, user_channel(id), 'invite', '2');
  is_event(await a.next(), event(id, '2'));
});
s.test('a presence member is not a signed-in user', async (t) => {
  const id = t.name('u');
  const [member, user] = [await t.open(), await t.open()];
  await join(member, t.name('presence-'), { user_id: id });
  await sign_in(user, { id });
  await t.publish(t.apps.main, user_channel(id), 'invite', '1');
  is_event(await user.next(), event(id, '1'));
  await expect_nothing(member);
});
s.test('signing in again replaces the user', async (t) => {
  const [first, second] = [t.name('u'), t.name('u')];
  const ws = await t.open();
  await sign_in(ws, { id: first });
  await sign_in(ws, { id: second });
  await t.publish(t.apps.main, user_channel(first), 'invite', '1');
  await t.publish(t.apps.main, user_channel(second), 'invite', '2');
  is_event(await ws.next(), event(second, '2'));
  await sign_in(ws, { id: second });
  await t.publish(t.apps.main, user_channel(second), 'invite', '3');
  is_event(await ws.next(), event(second, '3'));
  await expect_nothing(ws);
});
s.test('users of another app with the same id get nothing', async (t) => {
  const id = t.name('u');
  const [mine, theirs] = [await t.open(), await t.open(t.apps.other)];
  await sign_in(mine, { id });
  await sign_in(theirs, { id });
  await t.publish(t.apps.main, user_channel(id), 'invite', '1');
  is_event(await mine.next(), event(id, '1'));
  await expect_nothing(theirs);
});

/* ---- ending connections ---- */
const ends = { terminate_connections: [4009, 'You got disconnected by the app.'],
               force_reconnect: [4200, 'Force reconnect requested by the app.'] };
for (const [verb, [code, text]] of Object.entries(ends)) {
  s.test(`${verb}: ${code} to every socket of the user and to nobody else`, async (t) => {
    const id = t.name('u');
    const sockets = await Promise.all(Array.from({ length: 6 }, () => t.open()));
    for (const ws of sockets) await sign_in(ws, { id });
    const [other, member, foreign] = [await t.open(), await t.open(), await t.open(t.apps.other)];
    await sign_in(other, { id: `${id}x` });
    await join(member, t.name('presence-'), { user_id: id });
    await sign_in(foreign, { id });
    is_ok(await t.api(t.apps.main, 'POST', `/users/${id}/${verb}`, { body: '{}' }), { ok: true });
    for (const ws of sockets) await expect_fatal(ws, code, text);
    for (const ws of [other, member, foreign]) await expect_nothing(ws);
  });
  s.test(`${verb} of a user without sockets, with an empty body`, async (t) => {
    is_ok(await t.api(t.apps.main, 'POST', `/users/${t.name('u')}/${verb}`), { ok: true });
  });
  s.test(`${verb} with GET: 405`, async (t) => {
    assert.equal((await t.api(t.apps.main, 'GET', `/users/u/${verb}`)).status, 405);
  });
  s.test(`${verb} needs a signature`, async (t) => {
    const id = t.name('u');
    const ws = await t.open();
    await sign_in(ws, { id });
    const r = await t.api(t.apps.main, 'POST', `/users/${id}/${verb}`,
                          { body: '{}', sign: { secret: 'wrong' } });
    assert.equal(r.status, 401);
    await expect_nothing(ws);
  });
}
for (const strange of [' 1', 'ü', '🎉', '%', 'a+b']) {
  s.test(`the SDK terminates user "…${strange}", whose path it signs unencoded`, async (t) => {
    const id = t.name('u') + strange;
    const ws = await t.open();
    await sign_in(ws, { id });
    if (strange === '%') {
      is_ok(await t.api(t.apps.main, 'POST',
                        `/users/${encodeURIComponent(id)}/terminate_connections`, { body: '{}' }));
    } else {
      assert.equal((await t.sdk().terminateUserConnections(id)).status, 200);
    }
    await expect_fatal(ws, 4009, 'You got disconnected by the app.');
  });
}
s.test('a socket that signed in as someone else since is not terminated', async (t) => {
  const [before, now] = [t.name('u'), t.name('u')];
  const ws = await t.open();
  await sign_in(ws, { id: before });
  await sign_in(ws, { id: now });
  is_ok(await t.api(t.apps.main, 'POST', `/users/${before}/terminate_connections`, { body: '{}' }));
  await expect_nothing(ws);
  is_ok(await t.api(t.apps.main, 'POST', `/users/${now}/terminate_connections`, { body: '{}' }));
  await expect_fatal(ws, 4009, 'You got disconnected by the app.');
});
