/* api_annotations.mjs - annotations: create, delete, list, the five summaries, and what subscribers
 * are sent.
 *
 * Source   spec/messages-and-history.md 9; spec/protocol-v2.md 10; spec/settled.md 39.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, is_api_error, is_ok } from '../expect.mjs';
import { hmac } from '../http_raw.mjs';
import { app_entry } from '../apps.mjs';
import { mem, mem_config, Lives, v2 } from '../memory.mjs';
import { join } from '../clients.mjs';
import { metric, scrape } from '../metrics.mjs';

const small = app_entry('annsmall', { channels: { annotations_enabled: true },
                                      limits: { max_event_payload_in_kb: 1 } });
const s = suite('api annotations', { config: { ...mem_config,
  app_manager: { array: { apps: [...Object.values(mem), small] } } } });
const A = mem.app;
const at = (c, m, rest = '') =>
  `/channels/${c}/messages/${encodeURIComponent(m)}/annotations${rest}`;
const create = (t, c, m, body, app = A, more = {}) =>
  t.api(app, 'POST', at(c, m), { body, ...more });
const remove = (t, c, m, serial, query = {}, app = A) =>
  t.api(app, 'DELETE', at(c, m, `/${encodeURIComponent(serial)}`), { query });
const list = (t, c, m, query = {}, app = A) => t.api(app, 'GET', at(c, m), { query });

async function message(t, app = A, more = {}) {
  const c = t.name();
  const r = await t.api(app, 'POST', '/events', { body: { name: 'n', data: 'x', channel: c,
                                                          info: 'subscription_count' }, ...more });
  is_ok(r);
  return { c, m: r.json.channels[c].message_serial };
}
async function annotate(t, c, m, type, name, clientId, more = {}, app = A) {
  const r = await create(t, c, m, { type, name, clientId, ...more }, app);
  is_ok(r);
  assert.deepEqual(Object.keys(r.json), ['annotationSerial']);
  return r.json.annotationSerial;
}
/* What came before an event that is published now: answers leave before their frames, which come
 * from another shard, so a ping would not do. */
let marks = 0;
function hears(t, w, c, app = A) {
  w.heard = async () => {
    const data = `mark ${marks += 1}`;
    const seen = [];
    await t.publish(app, c, 'mark', data);
    for (;;) {
      const m = await w.next();
      if (m.event === 'mark' && m.data === data) return seen;
      if (m.event !== 'mark') seen.push(m);
    }
  };
  return w;
}
async function subscriber(t, c, more = {}, app = A, options = {}) {
  const w = await v2(t, { app, ...options });
  await w.subscribe(c, more);
  return hears(t, w, c, app);
}
const is_summary = (m) => m.event === 'sockudo_internal:message';
/* The value of the newest summary of a type. */
async function summary(w, type) {
  const seen = (await w.heard()).filter(is_summary).map((m) => m.data.annotations.summary)
    .filter((v) => type in v);
  assert.ok(seen.length > 0, `no summary of ${type}`);
  return seen.at(-1)[type];
}
async function signed_in(t, id, capabilities) {
  const w = await v2(t);
  const user_data = JSON.stringify({ id, capabilities });
  w.send({ event: 'sockudo:signin', data: { user_data,
    auth: `${A.key}:${hmac(A.secret, `${w.socket_id}::user::${user_data}`)}` } });
  await w.next((m) => m.event === 'sockudo:signin_success');
  return w;
}

s.test('create, list, delete', async (t) => {
  const { c, m } = await message(t);
  const one = await annotate(t, c, m, 'r:distinct.v1', 'like', 'u1', { data: { a: [1] },
                                                                       encoding: 'json' });
  const two = await annotate(t, c, m, 'r:multiple.v1', 'star', undefined, { count: 3 });
  assert.deepEqual([one, two], ['ann:00000000000000000001', 'ann:00000000000000000002']);
  const r = await remove(t, c, m, one);
  is_ok(r, { annotationSerial: 'ann:00000000000000000003', deletedAnnotationSerial: one });
  is_ok(await remove(t, c, m, one), { annotationSerial: one, deletedAnnotationSerial: one });
  const all = await list(t, c, m);
  is_ok(all);
  const { items } = all.json;
  assert.deepEqual({ ...all.json, items: 0 }, { channel: c, messageSerial: m, limit: 100,
    hasMore: false, nextCursor: null, items: 0 });
  assert.match(items[0].id, /^[0-9a-f-]{36}$/);
  const base = (i) => ({ serial: items[i].serial, timestamp: items[i].timestamp,
                         messageSerial: m });
  assert.deepEqual(items, [
    { ...base(0), action: 'annotation.create', id: items[0].id, type: 'r:distinct.v1', name: 'like',
      clientId: 'u1', data: { a: [1] }, encoding: 'json' },
    { ...base(1), action: 'annotation.create', id: items[1].id, type: 'r:multiple.v1',
      name: 'star', count: 3 },
    { ...base(2), action: 'annotation.delete', type: 'r:distinct.v1', name: 'like',
      clientId: 'u1' }]);
  assert.deepEqual(items.map((i) => i.serial), [one, two, 'ann:00000000000000000003']);
});
s.test('lists by page, by type, by message', async (t) => {
  const { c, m } = await message(t);
  const second = await t.api(A, 'POST', '/events', { body: { name: 'n', data: 'x', channel: c,
                                                             message_id: 'other' } });
  const other = second.json.channels[c].message_serial;
  for (let i = 0; i < 5; i++) {
    await annotate(t, c, m, 'r:total.v1');
    await annotate(t, c, other, 'r:flag.v1', undefined, `u${i}`);
    await annotate(t, c, m, 's:total.v1');
  }
  const seen = [];
  let from;
  do {
    const r = (await list(t, c, m, { limit: '3', ...(from && { from_serial: from }) })).json;
    assert.equal(r.hasMore, r.nextCursor !== null);
    if (r.hasMore) assert.equal(r.nextCursor, r.items.at(-1).serial);
    seen.push(...r.items.map((i) => i.type));
    from = r.nextCursor;
  } while (from);
  assert.deepEqual(seen, Array(5).fill(['r:total.v1', 's:total.v1']).flat());
  assert.equal((await list(t, c, m, { type: 's:total.v1' })).json.items.length, 5);
  assert.equal((await list(t, c, other)).json.items.length, 5);
  assert.deepEqual((await list(t, c, 'unknown')).json.items, []);
});
s.test('many events of a channel before those of the message', async (t) => {
  const { c, m } = await message(t);
  const second = await t.api(A, 'POST', '/events', { body: { name: 'n', data: 'x', channel: c,
                                                             message_id: 'other' } });
  const other = second.json.channels[c].message_serial;
  await Promise.all(Array.from({ length: 1100 }, () => annotate(t, c, m, 'r:total.v1')));
  const serial = await annotate(t, c, other, 'r:total.v1');
  assert.deepEqual((await list(t, c, other)).json.items.map((i) => i.serial), [serial]);
});

/* ---- summaries ---- */
s.test('total', async (t) => {
  const { c, m } = await message(t);
  const w = await subscriber(t, c);
  const one = await annotate(t, c, m, 'r:total.v1', undefined, undefined, { count: 9 });
  await annotate(t, c, m, 'r:total.v1', 'any', 'u');
  assert.deepEqual(await summary(w, 'r:total.v1'), { total: 2 });
  is_ok(await remove(t, c, m, one));
  assert.deepEqual(await summary(w, 'r:total.v1'), { total: 1 });
});
s.test('flag', async (t) => {
  const { c, m } = await message(t);
  const w = await subscriber(t, c);
  for (const u of ['zoe', 'ann', 'zoe']) await annotate(t, c, m, 'r:flag.v1', undefined, u);
  assert.deepEqual(await summary(w, 'r:flag.v1'),
                   { total: 2, clientIds: ['ann', 'zoe'], clipped: false });
  is_ok(await remove(t, c, m, 'ann:00000000000000000001'));
  assert.deepEqual(await summary(w, 'r:flag.v1'),
                   { total: 1, clientIds: ['ann'], clipped: false });
});
s.test('distinct', async (t) => {
  const { c, m } = await message(t);
  const w = await subscriber(t, c);
  const type = 'r:distinct.v1';
  const one = await annotate(t, c, m, type, 'like', 'b');
  await annotate(t, c, m, type, 'like', 'a');
  await annotate(t, c, m, type, 'wow', 'b');
  assert.deepEqual(await summary(w, type), {
    like: { total: 2, clientIds: ['a', 'b'], clipped: false },
    wow: { total: 1, clientIds: ['b'], clipped: false } });
  is_ok(await remove(t, c, m, one));
  is_ok(await remove(t, c, m, 'ann:00000000000000000003'));
  assert.deepEqual(await summary(w, type), {
    like: { total: 1, clientIds: ['a'], clipped: false } });
});
s.test('unique', async (t) => {
  const { c, m } = await message(t);
  const w = await subscriber(t, c);
  const type = 'vote:unique.v1';
  await annotate(t, c, m, type, 'yes', 'a');
  const two = await annotate(t, c, m, type, 'no', 'a');
  await annotate(t, c, m, type, 'yes', 'b');
  assert.deepEqual(await summary(w, type), {
    no: { total: 1, clientIds: ['a'], clipped: false },
    yes: { total: 1, clientIds: ['b'], clipped: false } });
  is_ok(await remove(t, c, m, two));
  assert.deepEqual(await summary(w, type), { yes: { total: 1, clientIds: ['b'], clipped: false } });
});
s.test('multiple', async (t) => {
  const { c, m } = await message(t);
  const w = await subscriber(t, c);
  const type = 'star:multiple.v1';
  const one = await annotate(t, c, m, type, 'up', 'a', { count: 2 });
  await annotate(t, c, m, type, 'up', 'a');
  await annotate(t, c, m, type, 'up', 'b', { count: 5 });
  const four = await annotate(t, c, m, type, 'up', undefined, { count: 4 });
  assert.deepEqual(await summary(w, type), { up: { total: 12, clientCounts: { a: 3, b: 5 },
    totalUnidentified: 4, clipped: false, totalClientIds: 2 } });
  is_ok(await remove(t, c, m, four));
  is_ok(await remove(t, c, m, one));
  assert.deepEqual(await summary(w, type), { up: { total: 9, clientCounts: { b: 5 },
    totalUnidentified: 4, clipped: false, totalClientIds: 1 } });
});
s.test('client lists are cut to the size of an event, totals stay exact', async (t) => {
  const { c, m } = await message(t, small);
  const w = await subscriber(t, c, {}, small);
  const type = 'r:distinct.v1';
  const who = Array.from({ length: 100 }, (_, i) => `client-${String(i).padStart(3, '0')}`);
  for (const id of who) await annotate(t, c, m, type, 'like', id, {}, small);
  const frames = (await w.heard()).filter(is_summary);
  for (const f of frames) assert.ok(JSON.stringify(f).length <= 1024);
  const { like } = frames.at(-1).data.annotations.summary[type];
  assert.deepEqual([like.total, like.clipped, like.clientIds],
                   [100, true, who.slice(0, 32)]);
});

s.test('lists: only the message\'s own, whatever lies between; foreign cursors', async (t) => {
  const { c, m } = await message(t);
  const { channels } = await t.publish(A, c, 'n', 'y', { info: 'subscription_count' });
  const other = channels[c].message_serial;
  const mine = [];
  for (let i = 0; i < 40; i++) {
    await annotate(t, c, other, 'r:total.v1');
    if (i % 10 === 5) mine.push(await annotate(t, c, m, 'r:total.v1'));
    if (i % 10 === 7) mine.push(await annotate(t, c, m, 's:total.v1'));
  }
  const serials = async (query) => (await list(t, c, m, query)).json.items.map((i) => i.serial);
  assert.deepEqual(await serials({}), mine);
  assert.deepEqual(await serials({ type: 's:total.v1' }), mine.filter((_, i) => i % 2 === 1));
  assert.deepEqual(await serials({ type: 't:total.v1' }), []);
  assert.deepEqual(await serials({ from_serial: mine[2] }), mine.slice(3));
  assert.deepEqual(await serials({ from_serial: mine.at(-1) }), []);
  assert.deepEqual(await serials({ from_serial: 'zz' }), []);
  assert.deepEqual(await serials({ from_serial: 'aa' }), mine);
  is_ok(await remove(t, c, m, mine[0]));
  assert.equal((await serials({})).length, mine.length + 1, 'its delete is an event as well');
});
s.test('a new subscriber is sent no more summaries than he can read', async (t) => {
  const { c, m } = await message(t);
  for (let i = 0; i < 1010; i += 10) {
    await Promise.all(Array.from({ length: 10 },
      (_, k) => annotate(t, c, m, `r${i + k}:total.v1`)));
  }
  await annotate(t, c, m, 'r0:total.v1');
  const seen = (await (await subscriber(t, c)).heard()).filter(is_summary)
    .map((f) => Object.entries(f.data.annotations.summary)[0]);
  assert.equal(seen.length, 1000);
  assert.deepEqual(seen[0], ['r0:total.v1', { total: 2 }], 'annotated last');
});

s.test('a summary has no more names than its frame can hold', async (t) => {
  const { c, m } = await message(t, small);
  const type = 'r:distinct.v1';
  let names = 0;
  for (;; names++) {
    const r = await create(t, c, m, { type, name: `n${names}`, clientId: 'u' }, small);
    if (r.status !== 200) {
      is_api_error(r, 413, 'payload_too_large', /exceed what their summaries may hold/);
      break;
    }
    assert.ok(names < 100);
  }
  assert.ok(names >= 5, `${names}`);
  const long = { type: 's:unique.v1', name: 'n'.repeat(1100), clientId: 'u' };
  assert.equal((await create(t, c, m, long, small)).status, 413);
  await annotate(t, c, m, type, 'n0', 'another', {}, small);
  await annotate(t, c, m, 't:total.v1', 'n'.repeat(1100), undefined, {}, small);
  const frames = (await (await subscriber(t, c, {}, small)).heard()).filter(is_summary);
  for (const f of frames) assert.ok(JSON.stringify(f).length <= 1024 + 200);
});
s.test('the summaries of a channel have a bound; what is deleted makes room', async (t) => {
  const lives = new Lives(t, { ...mem_config, annotations: { enabled: true, max_channel_mb: 1 } });
  await lives.start();
  const { c, m } = await message(t, A, { port: lives.port });
  const made = [];
  const make = () => create(t, c, m, { type: 'r:flag.v1',
    clientId: `${made.length}-`.padEnd(50000, 'x') }, A, { port: lives.port });
  const unmake = (serial) => t.api(A, 'DELETE', at(c, m, `/${encodeURIComponent(serial)}`),
                                   { port: lives.port });
  let r;
  while ((r = await make()).status === 200) made.push(r.json.annotationSerial);
  is_api_error(r, 413, 'payload_too_large', /exceed what their summaries may hold/);
  assert.ok(made.length >= 15 && made.length <= 21, `${made.length}`);
  assert.ok(await metric(lives.server, 'sockudo_limit_hits_total', { limit: 'annotations' }) > 0);
  for (const serial of made.splice(0, 2)) is_ok(await unmake(serial));
  is_ok(r = await make());
  made.push(r.json.annotationSerial);
  await lives.restart();
  for (const serial of made.splice(0, 2)) is_ok(await unmake(serial));   /* read back whole */
  is_ok(await make());
});

s.test('what has left the log with its age makes room', async (t) => {
  const lives = new Lives(t, { ...mem_config, annotations: { enabled: true, max_channel_mb: 1 },
    versioned_messages: { enabled: true, retention_window_seconds: 4 } });
  await lives.start();
  const [c, port] = [t.name(), lives.port];
  const make = async (clientId) => {
    const r = await t.api(A, 'POST', '/events', { port, body: { name: 'n', data: 'x', channel: c,
                                                               info: 'subscription_count' } });
    return create(t, c, r.json.channels[c].message_serial,
                  { type: 'r:flag.v1', clientId: clientId.padEnd(150000, 'x') }, A, { port });
  };
  let made = 0;
  while ((await make(`${made}-`)).status === 200) made += 1;
  await eventually(async () => (await make('again')).status === 200, 'room', 30000);
});

/* ---- frames ---- */
s.test('summary to all V2, the event to those who asked, nothing to V1', async (t) => {
  const { c, m } = await message(t);
  const plain = await subscriber(t, c);
  const full = await subscriber(t, c, {}, A, { query: 'append_mode=full' });
  const keen = await signed_in(t, 'keen', { 'annotation-subscribe': ['*'] });
  await keen.subscribe(c, { modes: ['SUBSCRIBE', 'ANNOTATION_SUBSCRIBE'] });
  const old = await t.open(A);
  await join(old, c);
  const serial = await annotate(t, c, m, 'r:flag.v1', undefined, 'u');
  const want = { event: 'sockudo_internal:message', channel: c, data: { action: 'message.summary',
    serial: m, annotations: { summary: { 'r:flag.v1': { total: 1, clientIds: ['u'],
      clipped: false } } } }, extras: { ephemeral: true } };
  const frames = (seen) => seen.filter((f) => /^sockudo_internal:(message|annotation)$/
    .test(f.event));
  assert.deepEqual(frames(await plain.heard()), [want]);
  assert.deepEqual(frames(await full.heard()), [want]);
  const [first, second, ...rest] = frames(await hears(t, keen, c).heard());
  assert.deepEqual([first, rest], [want, []]);
  const [item] = (await list(t, c, m)).json.items;
  assert.equal(item.serial, serial);
  assert.deepEqual(second, { event: 'sockudo_internal:annotation', channel: c, data: item });
  assert.deepEqual((await hears(t, old, c).heard()), []);
});
s.test('a subscriber finds the summaries that there are', async (t) => {
  const { c, m } = await message(t);
  await annotate(t, c, m, 'r:flag.v1', undefined, 'u');
  await annotate(t, c, m, 's:total.v1');
  const w = await subscriber(t, c);
  const seen = [];
  for (let i = 0; i < 2; i++) seen.push((await w.next(is_summary)).data.annotations.summary);
  assert.deepEqual(Object.assign({}, ...seen), { 's:total.v1': { total: 1 },
    'r:flag.v1': { total: 1, clientIds: ['u'], clipped: false } });
});
s.test('annotations take no row and no serial of the channel', async (t) => {
  const { c, m } = await message(t);
  await annotate(t, c, m, 'r:total.v1');
  const r = await t.api(A, 'POST', '/events', { body: { name: 'n', data: 'x', channel: c,
                                                        message_id: 'next' } });
  assert.deepEqual([r.json.channels[c].history_serial, r.json.channels[c].delivery_serial],
                   [2, 2]);
  const { items } = (await t.api(A, 'GET', `/channels/${c}/history`)).json;
  assert.equal(items.length, 2);
});

/* ---- refusals ---- */
s.test('types, names, clients, counts', async (t) => {
  const { c, m } = await message(t);
  const bad = async (body, text) =>
    is_api_error(await create(t, c, m, body), 400, 'invalid_input', text);
  const form = 'annotation type must use namespace:summarizer.version';
  for (const type of ['', 'total.v1', ':total.v1', 'r:total', 'r:', 'r:.v1']) {
    await bad({ type }, type === 'r:.v1' ? /./ : form);
  }
  await bad({ type: 'r:sum.v1' }, 'unsupported annotation summarizer: sum');
  await bad({ type: 'r:total.x' }, 'invalid annotation summarizer version: x');
  await bad({ type: 'r:total.v2' }, 'unsupported annotation summarizer version: 2');
  await bad({ type: 'r r:total.v1' }, /whitespace/);
  await bad({ type: `${'r'.repeat(250)}:total.v1` }, /256 bytes/);
  await bad({ type: 'r:total.v1', count: 0 }, 'Annotation count must be greater than 0');
  for (const kind of ['distinct', 'unique', 'multiple']) {
    await bad({ type: `r:${kind}.v1`, clientId: 'u' },
              'annotation name is required for this annotation type');
  }
  for (const kind of ['flag', 'distinct', 'unique']) {
    await bad({ type: `r:${kind}.v1`, name: 'n' },
              'annotation client_id is required for this annotation type');
  }
  for (const body of [{}, { type: 5 }, { type: 'r:total.v1', count: 'x' },
    { type: 'r:total.v1', count: -1 }, { type: 'r:total.v1', name: {} }, []]) {
    assert.equal((await create(t, c, m, body)).status, 422, JSON.stringify(body));
  }
  assert.deepEqual((await list(t, c, m)).json.items, []);
  const q = (query, text) => list(t, c, m, query)
    .then((r) => is_api_error(r, 400, 'invalid_input', text));
  await q({ limit: '0' }, 'Annotation event limit must be greater than 0');
  await q({ type: 'x' }, form);
  await q({ from_serial: 'a b' }, 'annotation_serial must not contain whitespace');
});
s.test('what is not there', async (t) => {
  const { c, m } = await message(t);
  const one = await annotate(t, c, m, 'r:total.v1');
  const gone = await remove(t, c, m, one);
  is_api_error(await create(t, c, 'none', { type: 'r:total.v1' }), 404, 'not_found',
               `Message 'none' was not found in channel '${c}'`);
  for (const serial of ['none', 'ann:00000000000000000099', 'ann:00000000000000000000']) {
    is_api_error(await remove(t, c, m, serial), 404, 'not_found',
                 `Annotation '${serial}' was not found in channel '${c}'`);
  }
  is_api_error(await remove(t, c, 'other', one), 404, 'not_found',
               `Annotation '${one}' does not target message 'other'`);
  is_api_error(await remove(t, c, m, gone.json.annotationSerial), 400, 'invalid_input',
               'Only annotation.create events can be deleted');
});
s.test('where annotations are off', async (t) => {
  const { c, m } = await message(t, mem.other);
  const text = `Annotations are disabled by channel policy for channel '${c}'`;
  is_api_error(await create(t, c, m, { type: 'r:total.v1' }, mem.other), 403, 'forbidden', text);
  is_api_error(await list(t, c, m, {}, mem.other), 403, 'forbidden', text);
  const shapeless = await list(t, c, m, { limit: 'x' }, mem.other);
  assert.equal(shapeless.status, 400, shapeless.text);
  assert.match(shapeless.headers['content-type'], /^text\/plain/);
  is_api_error(await remove(t, c, m, 'x', {}, mem.other), 403, 'forbidden', text);
});
s.test('who may annotate, delete and list', async (t) => {
  const { c, m } = await message(t);
  const body = (who, more = {}) => ({ type: 'r:flag.v1', socketId: who.socket_id, ...more });
  const forbidden = (r, what) => is_api_error(r, 403, 'forbidden',
    `${what} capability is required for channel '${c}'`);
  const none = await signed_in(t, 'none', {});
  forbidden(await create(t, c, m, body(none)), 'annotation-publish');
  const ann = await signed_in(t, 'ann', { 'annotation-publish': ['*'],
    annotation_delete_own: ['*'], 'annotation-subscribe': [c] });
  is_api_error(await create(t, c, m, body(ann, { clientId: 'bob' })), 401, 'auth_failed',
               "Requested client_id 'bob' does not match authenticated actor 'ann'");
  const made = await create(t, c, m, body(ann));
  is_ok(made);
  const other = await annotate(t, c, m, 'r:flag.v1', undefined, 'bob');
  const { items } = (await list(t, c, m, { socket_id: ann.socket_id })).json;
  assert.deepEqual(items.map((i) => i.clientId), ['ann', 'bob']);
  forbidden(await list(t, c, m, { socket_id: none.socket_id }), 'annotation-subscribe');
  const q = { socket_id: ann.socket_id };
  forbidden(await remove(t, c, m, other, q), 'annotation-delete');
  is_ok(await remove(t, c, m, made.json.annotationSerial, q));
  const boss = await signed_in(t, 'boss', { 'annotation-delete-any': ['*'] });
  is_ok(await remove(t, c, m, other, { socket_id: boss.socket_id }));
  const silent = await signed_in(t, 'mute', { publish: [], 'annotation-publish': ['*'] });
  forbidden(await create(t, c, m, body(silent)), 'annotation-publish');
  is_api_error(await create(t, c, m, { type: 'r:total.v1', socketId: '1.2' }), 401, 'auth_failed',
               "Annotation actor socket '1.2' is not connected");
  const old = await t.open(A);
  is_api_error(await list(t, c, m, { socket_id: old.socket_id }), 401, 'auth_failed',
               'Annotation actor socket must use protocol V2');
  is_api_error(await list(t, c, m, { socket_id: 'x' }), 400, 'invalid_input', /^Invalid socket_id/);
});

const off = suite('api annotations off', { config: { ...mem_config,
  annotations: { enabled: false },
  app_manager: { array: { apps: [mem.other] } } } });
off.test('globally off', async (t) => {
  const { c, m } = await message(t, mem.other);
  is_api_error(await create(t, c, m, { type: 'r:total.v1' }, mem.other), 422, 'feature_disabled',
               `Annotations are disabled globally for channel '${c}'`);
});

const lives = suite('api annotations over a restart', { none: true });
lives.test('summaries and deletes survive a kill -9', async (t) => {
  const l = new Lives(t);
  await l.start();
  const more = { port: l.port };
  const { c, m } = await message(t, A, more);
  const type = 'r:distinct.v1';
  const serials = [];
  for (const u of ['a', 'b', 'c']) {
    const r = await create(t, c, m, { type, name: 'like', clientId: u }, A, more);
    is_ok(r);
    serials.push(r.json.annotationSerial);
  }
  const drop = () => t.api(A, 'DELETE', at(c, m, `/${serials[1]}`), { port: l.port });
  is_ok(await drop());
  await l.kill();
  await l.start();
  more.port = l.port;
  const w = await subscriber(t, c, {}, A, { port: l.port });
  const found = await w.next(is_summary);
  assert.deepEqual(found.data.annotations.summary[type],
                   { like: { total: 2, clientIds: ['a', 'c'], clipped: false } });
  is_ok(await drop(), { annotationSerial: serials[1], deletedAnnotationSerial: serials[1] });
  const r = await create(t, c, m, { type, name: 'like', clientId: 'd' }, A, more);
  assert.equal(r.json.annotationSerial, 'ann:00000000000000000005');
  const after = await w.next(is_summary);
  assert.deepEqual(after.data.annotations.summary[type].like.clientIds, ['a', 'c', 'd']);
  await l.server.stop();
});

/* What the home remembers of the log's former life is not taken for this one. */
lives.test('a log that was forgotten begins anew', async (t) => {
  const brief = app_entry('annbrief', { channels: { annotations_enabled: true },
                                        idempotency: { enabled: true, ttl_seconds: 1 } });
  const l = new Lives(t, { ...mem_config,
    history: { ...mem_config.history, retention_window_seconds: 2, forget_after_seconds: 1 },
    connection_recovery: { enabled: true, buffer_ttl_seconds: 1 },
    app_manager: { array: { apps: [brief] } } });
  await l.start();
  const { port } = l;
  const c = t.name();
  const forgotten = async () =>
    (await scrape(l.server)).series.get('sockudo_store_forgotten_total{}');
  for (const life of [0, 1]) {
    await eventually(async () => await forgotten() === 2 * life, 'log and channel are forgotten');
    const said = await t.api(brief, 'POST', '/events', { port, body: { name: 'n', data: 'x',
      channel: c, info: 'subscription_count' } });
    const m = said.json.channels[c].message_serial;
    const r = await create(t, c, m, { type: 'r:total.v1', name: 'like' }, brief, { port });
    const one = 'ann:00000000000000000001';
    is_ok(r, { annotationSerial: one });
    is_ok(await t.api(brief, 'DELETE', at(c, m, `/${one}`), { port }),
          { annotationSerial: 'ann:00000000000000000002', deletedAnnotationSerial: one });
  }
  await l.stop();
});
