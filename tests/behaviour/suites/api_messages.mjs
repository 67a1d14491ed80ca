/* api_messages.mjs - messages over HTTP: acknowledgements, update, delete, append, reads of the
 * latest version and of all, texts and order of every refusal, who may change what.
 *
 * Source   spec/messages-and-history.md 0, 2-6; spec/settled.md 31, 36.
 */
import { suite } from '../runner.mjs';
import { assert, is_api_error, is_ok } from '../expect.mjs';
import { app_entry } from '../apps.mjs';
import { mem, mem_config, v2 } from '../memory.mjs';
import { hmac } from '../http_raw.mjs';
import { join } from '../clients.mjs';

const s = suite('api messages', { config: mem_config });
const A = mem.app;
const at = (c, m, rest = '') =>
  `/channels/${encodeURIComponent(c)}/messages/${encodeURIComponent(m)}${rest}`;
const post = (t, path, body, app = A) => t.api(app, 'POST', path, { body });
const change = (t, c, m, action, body, app = A) => post(t, at(c, m, `/${action}`), body, app);
const get = (t, path, query, app = A) => t.api(app, 'GET', path, { query });

/* The acknowledgement of a create. */
async function create(t, channel, body = {}, app = A) {
  const r = await post(t, '/events', { name: 'note', data: 'draft', info: 'subscription_count',
                                       channel, ...body }, app);
  is_ok(r);
  return r.json.channels[channel];
}
async function item(t, c, m) {
  const r = await get(t, at(c, m));
  is_ok(r);
  assert.deepEqual(Object.keys(r.json).sort(), ['channel', 'item']);
  assert.equal(r.json.channel, c);
  return r.json.item;
}
/* A signed-in V2 socket; capabilities as in user_data. */
async function signed_in(t, id, capabilities, app = A) {
  const c = await v2(t, { app });
  const user_data = JSON.stringify({ id, capabilities });
  const auth = `${app.key}:${hmac(app.secret, `${c.socket_id}::user::${user_data}`)}`;
  c.send({ event: 'sockudo:signin', data: { user_data, auth } });
  await c.next((m) => m.event === 'sockudo:signin_success');
  return c;
}
const denied = (r) => {
  assert.equal(r.status, 403, r.text);
  assert.deepEqual(r.json, { error: 'mutations not permitted on this channel',
                             code: 'mutable_not_permitted', ai_code: 93002, status: 403 });
};

/* ---- creates ---- */
s.test('an acknowledgement names the message by its serials', async (t) => {
  const c = t.name();
  const one = await create(t, c);
  assert.deepEqual(Object.keys(one).sort(), ['acknowledgement_id', 'delivery_serial',
    'history_serial', 'message_serial', 'subscription_count', 'version_serial']);
  assert.match(one.message_serial, /^\d{20}:[a-z0-9]+:\d{20}$/);
  assert.equal(one.acknowledgement_id, one.message_serial);
  assert.equal(one.version_serial, one.message_serial);
  assert.deepEqual([one.history_serial, one.delivery_serial], [1, 1]);
  const two = await create(t, c);
  assert.deepEqual([two.history_serial, two.delivery_serial], [2, 2]);
  assert.ok(two.message_serial > one.message_serial);
});
s.test('message_id alone asks for an acknowledgement; nothing else does', async (t) => {
  const c = t.name();
  const body = { name: 'n', data: 'x', channel: c };
  is_ok(await post(t, '/events', body), { ok: true });
  const r = await post(t, '/events', { ...body, message_id: t.name('id') });
  assert.equal(r.json.channels[c].delivery_serial, 2);
});
s.test('several channels, and a batch, are acknowledged one by one', async (t) => {
  const [a, b] = [t.name(), t.name()];
  const r = await post(t, '/events', { name: 'n', data: 'x', channels: [a, b], message_id: 'm' });
  assert.deepEqual(Object.keys(r.json.channels), [a, b]);
  const batch = await post(t, '/batch_events', { batch: [
    { name: 'n', data: 'x', channel: a, message_id: 'm2' }, { name: 'n', data: 'x', channel: a },
    { name: 'n', data: 'x', channels: [b, a], message_id: 'm3' }] });
  is_ok(batch);
  assert.deepEqual(batch.json.batch.map((x) => x.delivery_serial), [2, undefined, 2]);
  assert.deepEqual(batch.json.batch[1], {});
});
s.test('without history the message id is the acknowledgement', async (t) => {
  const c = t.name();
  const body = { name: 'n', data: 'x', channel: c };
  const r = await post(t, '/events', { ...body, message_id: 'mine' }, mem.plain);
  assert.deepEqual(r.json, { channels: { [c]: { acknowledgement_id: 'mine' } } });
});
s.test('an ephemeral publish is acknowledged without serials and not stored', async (t) => {
  const c = t.name();
  const ack = await create(t, c, { extras: { ephemeral: true } });
  assert.deepEqual(Object.keys(ack).sort(), ['acknowledgement_id', 'subscription_count']);
  assert.deepEqual((await get(t, `/channels/${c}/history`)).json.items, []);
});
s.test('AI events and AI extras are refused: no channel is an AI channel', async (t) => {
  for (const more of [{ name: 'ai-output' }, { extras: { ai: { transport: {} } } }]) {
    const r = await post(t, '/events', { name: 'n', data: 'x', channel: t.name(), ...more });
    assert.deepEqual(r.json, { error: 'AI Transport is not enabled for this channel',
                               code: 'ai_event_not_permitted', ai_code: 104003, status: 403 });
  }
});
s.test('extras and tags of the wrong shape are plain text 422', async (t) => {
  for (const more of [{ extras: 1 }, { extras: { headers: { a: {} } } }, { extras: { headers: 1 } },
    { extras: { ephemeral: 'yes' } }, { tags: [] }, { tags: { a: 1 } }, { message_id: 5 }]) {
    const r = await post(t, '/events', { name: 'n', data: 'x', channel: t.name(), ...more });
    assert.equal(r.status, 422, `${JSON.stringify(more)} ${r.text}`);
    assert.match(r.headers['content-type'], /^text\/plain/);
  }
});
s.test('null extras, tags and message_id are absent', async (t) => {
  is_ok(await post(t, '/events', { name: 'n', data: 'x', channel: t.name(), extras: null,
                                   tags: null, message_id: null }), { ok: true });
});
s.test('headers of publishers keep their names but not the server\'s prefix', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c, { extras: { headers: {
    mine: 'x', n: 5, yes: true, sockudo_action: 'message.delete', sockudo_other: 1 },
  more: [1] } });
  assert.deepEqual((await item(t, c, m)).extras, { headers: { mine: 'x', n: 5, yes: true },
                                                   more: [1] });
});

/* ---- reads ---- */
s.test('a message as created', async (t) => {
  const c = t.name();
  const ack = await create(t, c, { data: { a: 1 }, tags: { k: 'v' }, extras: { x: 1 } });
  const got = await item(t, c, ack.message_serial);
  assert.ok(got.version.timestamp_ms > 1.6e12);
  assert.deepEqual(got, { event: 'sockudo:message.create', channel: c, data: '{"a":1}',
    name: 'note', serial: 1, extras: { x: 1 }, action: 'create',
    message_serial: ack.message_serial, history_serial: 1, delivery_serial: 1,
    version: { serial: ack.version_serial, timestamp_ms: got.version.timestamp_ms } });
});
s.test('update, delete and append: the answer and the result', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  const a = await change(t, c, m, 'append', { data: ' more' });
  is_ok(a);
  assert.deepEqual(a.json, { channel: c, message_serial: m, action: 'append', accepted: true,
    version_serial: a.json.version_serial, history_serial: 1, delivery_serial: 2,
    status: 'applied' });
  let got = await item(t, c, m);
  assert.deepEqual([got.event, got.data, got.name, got.action], ['sockudo:message.append',
    'draft more', 'note', 'append']);
  const u = await change(t, c, m, 'update', { data: { any: ['json'] }, name: 'renamed',
    extras: { e: 1 }, description: 'why', metadata: { by: 'test' }, client_id: 'me' });
  is_ok(u);
  got = await item(t, c, m);
  assert.deepEqual([got.data, got.name, got.extras], [{ any: ['json'] }, 'renamed', { e: 1 }]);
  assert.deepEqual(got.version, { serial: u.json.version_serial, client_id: 'me',
    timestamp_ms: got.version.timestamp_ms, description: 'why', metadata: { by: 'test' } });
  is_ok(await change(t, c, m, 'delete', {}));
  got = await item(t, c, m);
  assert.deepEqual([got.action, got.data, got.version.description],
                   ['delete', { any: ['json'] }, undefined]);
  is_ok(await change(t, c, m, 'delete', { clear_fields: ['data', 'extras', 'name'] }));
  got = await item(t, c, m);
  assert.ok(!('data' in got) && !('extras' in got) && !('name' in got));
  is_ok(await change(t, c, m, 'append', { data: 'again' }));
  got = await item(t, c, m);
  assert.deepEqual([got.action, got.data, got.delivery_serial, got.history_serial],
                   ['append', 'again', 6, 1]);
});
s.test('null keeps a field, a value replaces it, even an empty one', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c, { extras: { keep: 1 } });
  is_ok(await change(t, c, m, 'update', { name: null, data: '', extras: null }));
  const got = await item(t, c, m);
  assert.deepEqual([got.name, got.data, got.extras], ['note', '', { keep: 1 }]);
});
s.test('versions: both directions, pages, fragments', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  for (let i = 0; i < 4; i++) is_ok(await change(t, c, m, 'append', { data: `${i}` }));
  is_ok(await change(t, c, m, 'update', { data: 'whole', name: 'other' }));
  is_ok(await change(t, c, m, 'append', { data: '!' }));
  const all = (await get(t, at(c, m, '/versions'), { direction: 'oldest_first' })).json;
  assert.deepEqual(all.items.map((i) => [i.action, i.data, i.name, i.delivery_serial]), [
    ['create', 'draft', 'note', 1], ['append', '0', 'note', 2], ['append', '1', 'note', 3],
    ['append', '2', 'note', 4], ['append', '3', 'note', 5], ['update', 'whole', 'other', 6],
    ['append', '!', 'other', 7]]);
  assert.deepEqual([all.channel, all.direction, all.limit, all.has_more],
                   [c, 'oldest_first', 100, false]);
  assert.ok(!('next_cursor' in all));
  for (const direction of ['oldest_first', 'newest_first']) {
    const want = direction === 'oldest_first' ? all.items : [...all.items].reverse();
    for (const limit of [1, 2, 3, 7]) {
      const items = [];
      let cursor;
      do {
        const page = (await get(t, at(c, m, '/versions'),
                                { limit: `${limit}`, direction, ...(cursor && { cursor }) })).json;
        assert.equal(page.has_more, page.next_cursor !== undefined);
        if (cursor) assert.ok(page.items.length > 0);
        cursor = page.next_cursor;
        if (cursor) assert.equal(cursor, page.items.at(-1).version.serial);
        items.push(...page.items);
      } while (cursor);
      assert.deepEqual(items, want, `${direction} by ${limit}`);
    }
  }
  assert.equal((await get(t, at(c, m, '/versions'))).json.direction, 'newest_first');
  assert.equal((await get(t, at(c, m, '/versions'), { limit: '5000' })).json.limit, 100);
});
s.test('bad questions about versions', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  const q = (query) => get(t, at(c, m, '/versions'), query);
  is_api_error(await q({ limit: '0' }), 400, 'invalid_input',
               'versions limit must be greater than 0');
  is_api_error(await q({ cursor: 'a b' }), 400, 'invalid_input',
               'version_serial must not contain whitespace');
  is_api_error(await q({ cursor: '' }), 400, 'invalid_input', 'version_serial must not be empty');
  for (const query of [{ limit: 'x' }, { limit: '-1' }, { direction: 'backwards' }]) {
    const r = await q(query);
    assert.equal(r.status, 400);
    assert.match(r.headers['content-type'], /^text\/plain/);
  }
});

/* ---- refusals ---- */
s.test('unknown messages', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  const other = m.replace(/.$/, '9');
  const when = m.replace(/^0000/, '0001');
  for (const missing of ['nothing', other, when]) {
    const text = `Message '${missing}' was not found in channel '${c}'`;
    is_api_error(await get(t, at(c, missing)), 404, 'not_found', text);
    is_api_error(await get(t, at(c, missing, '/versions')), 404, 'not_found', text);
    for (const action of ['update', 'delete', 'append']) {
      is_api_error(await change(t, c, missing, action, { data: 'x' }), 404, 'not_found', text);
    }
  }
  const empty = t.name();
  is_api_error(await get(t, at(empty, m)), 404, 'not_found',
               `Message '${m}' was not found in channel '${empty}'`);
});
s.test('serials that are none', async (t) => {
  const c = t.name();
  is_api_error(await get(t, at(c, 'a b')), 400, 'invalid_input',
               'message_serial must not contain whitespace');
  is_api_error(await change(t, c, 'x'.repeat(129), 'delete', {}), 400, 'invalid_input',
               'message_serial must be at most 128 bytes');
});
s.test('what a change must say', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  const bad = (action, body, text) => change(t, c, m, action, body)
    .then((r) => is_api_error(r, 400, 'invalid_input', text));
  await bad('update', {}, 'update request must include at least one patch field or operation '
    + 'metadata');
  await bad('update', { socket_id: '1.2' }, /must include at least one/);
  await bad('update', { clear_fields: ['data', 'data'] },
            'clear_fields must not contain duplicates');
  await bad('update', { data: 'x', clear_fields: ['data'] },
            'update request cannot both replace and clear the same field');
  await bad('delete', { extras: {}, clear_fields: ['extras'] },
            'delete request cannot both replace and clear the same field');
  await bad('append', { data: '' }, 'append request data must not be empty');
  await bad('update', { data: 'x', op_id: '' }, 'op_id must be 1..=64 bytes');
  await bad('append', { data: 'x', op_id: 'o'.repeat(65) }, 'op_id must be 1..=64 bytes');
  await bad('append', { data: 'x', socket_id: 'nonsense' }, /^Invalid socket_id: /);
  for (const [action, body] of [['append', {}], ['append', { data: 5 }], ['update', { name: 1 }],
    ['update', { extras: [] }], ['update', { clear_fields: ['tags'] }], ['delete', []],
    ['update', { clear_fields: 'data' }], ['delete', { op_id: 1 }]]) {
    const r = await change(t, c, m, action, body);
    assert.equal(r.status, 422, `${action} ${JSON.stringify(body)} ${r.text}`);
    assert.match(r.headers['content-type'], /^text\/plain/);
  }
  assert.equal((await change(t, c, m, 'update', '{"data":')).status, 400);
  const typed = await t.api(A, 'POST', at(c, m, '/delete'), { body: '{}',
    headers: { 'Content-Type': 'text/plain' } });
  assert.equal(typed.status, 415);
  assert.equal((await item(t, c, m)).delivery_serial, 1, 'nothing was changed');
});
s.test('an empty append may end a message', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  for (const extras of [{ ai: { codec: { status: 'complete' } } },
    { ai: { transport: { status: 'cancelled' } } }]) {
    is_ok(await change(t, c, m, 'append', { data: '', extras }));
  }
  const got = await item(t, c, m);
  assert.deepEqual([got.data, got.extras], ['draft', { ai: { transport: {
    status: 'cancelled' } } }]);
});
s.test('an append to what is not text', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  is_ok(await change(t, c, m, 'update', { data: 5 }));
  is_api_error(await change(t, c, m, 'append', { data: 'x' }), 400, 'invalid_input',
               'append requires string message data in the release 4.3 core model');
});
s.test('a message has room for 32 MiB; what replaces it is not weighed with it', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  const part = 'x'.repeat(9 << 20);
  for (let i = 0; i < 3; i++) is_ok(await change(t, c, m, 'append', { data: part }));
  const before = await item(t, c, m);
  is_api_error(await change(t, c, m, 'append', { data: part }), 413, 'payload_too_large',
               'Message is too large to be stored');
  assert.deepEqual(await item(t, c, m), before);
  is_ok(await change(t, c, m, 'update', { data: part }));
  assert.equal((await item(t, c, m)).data.length, part.length);
});
s.test('the order of refusals', async (t) => {
  const bad = 'bad name';
  const socket = '1.1';
  is_api_error(await change(t, bad, 'a b', 'append', { data: '', op_id: '' }), 400,
               'invalid_input', 'append request data must not be empty');
  is_api_error(await change(t, bad, 'a b', 'append', { data: 'x', op_id: '' }), 400,
               'invalid_input', 'op_id must be 1..=64 bytes');
  is_api_error(await change(t, bad, 'a b', 'append', { data: 'x' }), 400, 'invalid_input',
               /invalid characters/);
  const c = t.name();
  is_api_error(await change(t, c, 'a b', 'append', { data: 'x' }, mem.plain), 422,
               'feature_disabled', `Durable history is disabled by policy for channel '${c}'`);
  is_api_error(await change(t, c, 'a b', 'append', { data: 'x', socket_id: socket }), 400,
               'invalid_input', /whitespace/);
  is_api_error(await change(t, c, 'm', 'append', { data: 'x', socket_id: socket }), 404,
               'not_found', /./);
  const { message_serial: m } = await create(t, c);
  is_api_error(await change(t, c, m, 'append', { data: 'x', socket_id: socket }), 401,
               'auth_failed', `Mutation actor socket '${socket}' is not connected`);
});
s.test('methods', async (t) => {
  const c = t.name();
  for (const [method, path, allow] of [['POST', at(c, 'm'), 'GET, HEAD'],
    ['GET', at(c, 'm', '/append'), 'POST'], ['DELETE', at(c, 'm', '/update'), 'POST'],
    ['PUT', at(c, 'm', '/annotations'), 'GET, HEAD, POST'],
    ['GET', at(c, 'm', '/annotations/a'), 'DELETE'],
    ['POST', `/channels/${c}/history`, 'GET, HEAD'],
    ['GET', `/channels/${c}/history/reset`, 'POST']]) {
    const r = await t.api(A, method, path, { body: method === 'POST' ? '{}' : undefined });
    assert.deepEqual([r.status, r.headers.allow], [405, allow], `${method} ${path}`);
  }
  for (const path of [at(c, 'm', '/nothing'), at(c, 'm', '/versions/x'),
    `/channels/${c}/history/nothing`, `/channels/${c}/presence`, at(c, 'm', '/annotations/a/b')]) {
    assert.equal((await get(t, path)).status, 404, path);
  }
});

/* ---- op_id ---- */
s.test('a repeated op_id is answered from the first time', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  const body = { data: ' more', op_id: 'op', metadata: { a: 1 } };
  const first = await change(t, c, m, 'append', body);
  is_ok(first);
  is_ok(await change(t, c, m, 'append', { data: '!' }));
  const again = await change(t, c, m, 'append', body);
  is_ok(again, { ...first.json, status: 'duplicate' });
  for (const other of [{ data: ' else' }, { client_id: 'x' }, { description: 'd' },
    { metadata: { a: 2 } }, { extras: {} }]) {
    is_api_error(await change(t, c, m, 'append', { ...body, ...other }), 400, 'invalid_input',
                 'idempotency key was already used with a different payload');
  }
  assert.equal((await item(t, c, m)).data, 'draft more!');
  is_ok(await change(t, c, m, 'update', { data: 'new', op_id: 'op' }));
  const second = await create(t, c);
  const r = await change(t, c, second.message_serial, 'append', body);
  assert.equal(r.json.status, 'applied', 'another message, another receipt');
});

/* ---- actors ---- */
s.test('who a socket must be', async (t) => {
  const c = t.name();
  const { message_serial: m } = await create(t, c);
  const act = (socket_id, more = {}) =>
    change(t, c, m, 'append', { data: 'x', socket_id, ...more });
  const old = await t.open(A);
  is_api_error(await act(old.socket_id), 401, 'auth_failed',
               'Mutation actor socket must use protocol V2');
  const nobody = await v2(t);
  is_api_error(await act(nobody.socket_id, { client_id: 'me' }), 401, 'auth_failed',
               'Mutation actor socket is not signed in with an identified client');
  denied(await act(nobody.socket_id));
  const me = await signed_in(t, 'me', { message_append_any: ['*'] });
  is_api_error(await act(me.socket_id, { client_id: 'you' }), 401, 'auth_failed',
               "Requested client_id 'you' does not match authenticated actor 'me'");
  is_ok(await act(me.socket_id, { client_id: 'me' }));
  is_ok(await act(me.socket_id));
  assert.equal((await item(t, c, m)).version.client_id, 'me');
  const elsewhere = await v2(t, { app: mem.other });
  is_api_error(await act(elsewhere.socket_id), 401, 'auth_failed', /is not connected$/);
  me.destroy();
  nobody.destroy();
});
s.test('own and any, by action and pattern', async (t) => {
  const c = t.name('room-');
  const alice = await signed_in(t, 'alice', {
    message_append_own: [`${c}`], message_update_own: ['room-*'], 'message-delete-own': ['*'] });
  const bob = await signed_in(t, 'bob', {
    message_append_any: ['other', '*-*x', `r*${c.slice(5)}`], message_update_own: ['room-*'] });
  const { message_serial: mine } = await create(t, c, { socket_id: alice.socket_id });
  const { message_serial: free } = await create(t, c);
  const act = (who, m, action) =>
    change(t, c, m, action, { data: 'x', socket_id: who.socket_id });
  for (const action of ['append', 'update', 'delete']) {
    is_ok(await act(alice, mine, action));
    denied(await act(alice, free, action));
  }
  is_ok(await act(bob, mine, 'append'));
  is_ok(await act(bob, free, 'append'));
  denied(await act(bob, mine, 'update'));
  denied(await act(bob, mine, 'delete'));
  assert.equal((await item(t, c, mine)).version.client_id, 'bob');
});
s.test('a create belongs to whoever is signed in on its socket', async (t) => {
  const c = t.name();
  const nobody = await v2(t);
  const { message_serial: m } = await create(t, c, { socket_id: nobody.socket_id });
  const me = await signed_in(t, 'me', { message_update_own: ['*'] });
  denied(await change(t, c, m, 'update', { data: 'x', socket_id: me.socket_id }));
  const mine = await create(t, c, { socket_id: me.socket_id });
  me.destroy();
  await me.gone.catch(() => {});
  const again = await signed_in(t, 'me', { message_update_own: ['*'] });
  is_ok(await change(t, c, mine.message_serial, 'update',
                     { data: 'x', socket_id: again.socket_id }));
});

/* ---- frames ---- */
s.test('V2 subscribers see every change, V1 subscribers the create alone', async (t) => {
  const c = t.name();
  const young = await v2(t);
  young.send(young.subscribe_frame(c));
  await young.next((m) => /subscription_succeeded$/.test(m.event));
  const old = await t.open(A);
  await join(old, c);
  const { message_serial: m, ...ack } = await create(t, c, { message_id: 'mid', tags: { k: 'v' } });
  assert.deepEqual(await old.next(), { event: 'note', channel: c, data: 'draft' });
  const made = await young.next((f) => f.event === 'note');
  assert.deepEqual([made.serial, made.message_id, made.tags], [1, 'mid', { k: 'v' }]);
  assert.equal(made.extras.headers.sockudo_message_serial, m);
  assert.equal(made.extras.headers.sockudo_version_serial, ack.version_serial);
  const a = await change(t, c, m, 'append', { data: ' more' });
  const f = await young.next((x) => x.event === 'sockudo:message.append');
  assert.deepEqual([f.data, f.name, f.serial, f.tags], [' more', 'note', 2, undefined]);
  assert.equal(f.extras.headers.sockudo_version_serial, a.json.version_serial);
  is_ok(await change(t, c, m, 'delete', { clear_fields: ['data'] }));
  const gone = await young.next((x) => x.event === 'sockudo:message.delete');
  assert.ok(!('data' in gone));
  assert.deepEqual(await old.flush(), []);
});

s.test('the HTTP SDK can do all of it', async (t) => {
  const c = t.name();
  const sdk = t.sdk(A);
  const r = await sdk.trigger(c, 'note', 'draft', { info: 'subscription_count' });
  const m = (await r.json()).channels[c].message_serial;
  const said = async (answer) => (await answer).json();
  const a = await said(sdk.post({ path: at(c, m, '/append'), body: { data: '!' } }));
  assert.equal(a.status, 'applied');
  assert.equal((await said(sdk.get({ path: at(c, m) }))).item.data, 'draft!');
  const v = await said(sdk.get({ path: at(c, m, '/versions'), params: { limit: 1 } }));
  assert.deepEqual([v.items.length, v.has_more], [1, true]);
  const h = await said(sdk.get({ path: `/channels/${c}/history`, params: { limit: 5 } }));
  assert.deepEqual(h.items.map((i) => i.message.data), ['draft!']);
});

/* ---- off ---- */
const off = suite('api messages off', { config: { history: { enabled: true },
  app_manager: { array: { apps: [app_entry('nover')] } } } });
off.test('without versioned messages there is nothing to change, but rows', async (t) => {
  const app = app_entry('nover');
  const c = t.name();
  const r = await t.api(app, 'POST', '/events', { body: { name: 'n', data: { a: 1 }, channel: c,
    message_id: 'mid', tags: { k: 'v' }, extras: { x: 1 } } });
  is_ok(r, { channels: { [c]: { acknowledgement_id: 'mid' } } });
  const text = `Versioned messages are disabled for channel '${c}'`;
  is_api_error(await t.api(app, 'GET', at(c, 'm')), 422, 'feature_disabled', text);
  is_api_error(await t.api(app, 'GET', at(c, 'm', '/versions')), 422, 'feature_disabled', text);
  const shapeless = await t.api(app, 'GET', at(c, 'm', '/versions'), { query: { limit: 'x' } });
  assert.equal(shapeless.status, 400, 'shape before policy');
  is_api_error(await t.api(app, 'POST', at(c, 'm', '/append'), { body: { data: 'x' } }), 422,
               'feature_disabled', text);
  const page = (await t.api(app, 'GET', `/channels/${c}/history`)).json;
  const [row] = page.items;
  assert.deepEqual({ ...row, published_at_ms: 0, payload_size_bytes: 0 }, {
    stream_id: page.continuity.stream_id, serial: 1, published_at_ms: 0, message_id: 'mid',
    event_name: 'n', operation_kind: 'append', payload_size_bytes: 0,
    message: { event: 'n', channel: c, data: '{"a":1}', tags: { k: 'v' }, message_id: 'mid',
               stream_id: page.continuity.stream_id, serial: 1, extras: { x: 1 } } });
  assert.equal(row.payload_size_bytes, JSON.stringify(row.message).length);
});
