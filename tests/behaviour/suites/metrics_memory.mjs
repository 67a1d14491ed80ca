/* metrics_memory.mjs - the counters of history, versions, presence history, idempotency and
 * recovery: each piece of work moves just those that its text in docs/metrics.md names, by as much.
 *
 * Source   spec/operations.md 1.5, 1.7, 1.8; spec/settled.md 39.
 */
import assert from 'node:assert/strict';
import { suite } from '../runner.mjs';
import { eventually, is_api_error, is_ok } from '../expect.mjs';
import { scrape } from '../metrics.mjs';
import { mem, mem_config } from '../memory.mjs';
import { message_path } from '../stored.mjs';
import { join_v2, leave_v2, open_v2, subscribe_v2 } from '../v2_raw.mjs';

const A = mem.app;
const s = suite('metrics of memory', { config: mem_config, parallel: 1 });

/* ---- what a piece of work has moved ---- */

const COUNTED = new RegExp('^sockudo_(idempotency_\\w+|history_\\w+|versioned_\\w+|presence_history'
  + '_\\w+?)(?<!_bucket|_sum|_depth|_channels)\\{(.*)\\}$');

/* "name label label" -> number, of the app's counters; labels stand in the order of their names. */
async function counters(t) {
  const all = new Map();
  for (const [key, n] of (await scrape(t.server)).series) {
    const m = COUNTED.exec(key);
    if (m === null || !m[2].includes(`app_id="${A.id}"`)) continue;
    const labels = [...m[2].matchAll(/(\w+)="([^"]*)"/g)]
      .filter(([, name]) => name !== 'app_id' && name !== 'port').map(([, , text]) => text);
    all.set([m[1], ...labels].join(' '), n);
  }
  return all;
}

/* Each shard has counters of its own, so the last one may be a little late. */
async function moves(t, wanted, work) {
  const before = await counters(t);
  const result = await work();
  let moved;
  for (const end = Date.now() + 10000; Date.now() < end;) {
    moved = {};
    for (const [name, n] of await counters(t)) {
      if (n !== before.get(name)) moved[name] = n - before.get(name);
    }
    try { assert.deepEqual(moved, wanted); return result; } catch { /* not yet */ }
  }
  assert.deepEqual(moved, wanted);
  return result;
}

const post = (t, body, more = {}) => t.api(A, 'POST', '/events', { body: { name: 'n', data: 'x',
                                                                           ...body }, ...more });
const rows = (n) => ({ history_writes_total: n, history_write_latency_ms_count: n,
                       'versioned_message_mutations_total message.create applied': n });
const keys = (n, again) => ({ idempotency_publish_total: n,
                              ...(again > 0 && { idempotency_duplicates_total: again }) });
async function message(t, channel) {
  const r = await post(t, { channel, info: 'subscription_count' });
  is_ok(r);
  return r.json.channels[channel].message_serial;
}

/* ---- the cases ---- */

s.test('publishes with and without keys', async (t) => {
  const [one, two] = [t.name(), t.name()];
  const times = async (n, body, more) => {
    for (let i = 0; i < n; i++) is_ok(await post(t, body, more));
  };
  await moves(t, rows(2), () => times(1, { channels: [one, two] }));
  await moves(t, {}, () => times(1, { channel: one, extras: { ephemeral: true } }));
  await moves(t, { ...rows(1), ...keys(3, 2) }, () => times(3, { channel: one, message_id: 'm' }));
  await moves(t, { ...rows(2), ...keys(3, 2) },
              () => times(3, { channels: [one, two], extras: { idempotencyKey: 'e' } }));
  await moves(t, { ...rows(1), ...keys(3, 2) },
              () => times(3, { channel: one, idempotency_key: t.name() }));
  await moves(t, { ...rows(1), ...keys(2, 1) }, async () => {
    for (const key of ['h1', 'h2']) {
      const headers = { 'x-idempotency-key': t.name(key) };
      await times(1, { channel: one, message_id: 'both' }, { headers });
    }
  });
  await moves(t, keys(1, 0), async () =>
    is_api_error(await post(t, { channel: one, message_id: 'm', data: 'other' }), 400,
                 'invalid_input', /different payload/));
});

s.test('batches with keys', async (t) => {
  const channel = t.name();
  const batch = (items, headers = {}) => t.api(A, 'POST', '/batch_events', { headers, body: { batch:
    items.map((more) => ({ name: 'n', data: 'x', channel, ...more })) } });
  const key = t.name();
  await moves(t, { ...rows(2), ...keys(3, 1) }, async () => is_ok(await batch(
    [{ idempotency_key: key }, { idempotency_key: key }, { message_id: 'b' }])));
  await moves(t, { ...rows(1), ...keys(2, 2) }, async () => is_ok(await batch(
    [{ idempotency_key: key }, { message_id: 'b' }, {}])));
  const headers = { 'x-idempotency-key': t.name() };
  await moves(t, { ...rows(2), ...keys(2, 1) }, async () => {
    for (let i = 0; i < 2; i++) is_ok(await batch([{}, {}], headers));
  });
});

s.test('changes and reads of a message', async (t) => {
  const channel = t.name();
  const path = message_path(channel, await message(t, channel));
  const mutations = 'versioned_message_mutations_total';
  const change = (action, body) => t.api(A, 'POST', `${path}/${action}`, { body });
  const append = { data: '!', op_id: 'o' };
  await moves(t, { history_write_latency_ms_count: 1, [`${mutations} message.append applied`]: 1,
                   [`${mutations} message.append duplicate`]: 1 }, async () => {
    for (let i = 0; i < 2; i++) is_ok(await change('append', append));
  });
  await moves(t, { history_write_latency_ms_count: 2, [`${mutations} message.update applied`]: 1,
                   [`${mutations} message.delete applied`]: 1 }, async () => {
    is_ok(await change('update', { data: 'y' }));
    is_ok(await change('delete', {}));
  });
  const ws = await open_v2(t, A);
  await moves(t, { [`${mutations} message.update auth_failed`]: 1 }, async () =>
    assert.equal((await change('update', { data: 'z', socket_id: ws.socket_id })).status, 403));
  const read = 'versioned_message_retrieval_total';
  await moves(t, { [`${read} hit latest`]: 1, [`${read} miss latest`]: 1,
                   [`${read} hit versions`]: 1, [`${read} miss versions`]: 1 }, async () => {
    for (const rest of ['', '/versions']) {
      is_ok(await t.api(A, 'GET', path + rest));
      assert.equal((await t.api(A, 'GET', message_path(channel, 'none') + rest)).status, 404);
    }
  });
  await moves(t, { 'versioned_history_substitution_total applied': 1 }, async () =>
    is_ok(await t.api(A, 'GET', `/channels/${channel}/history`)));
});

s.test('a row that has outlived its versions', async (t) => {
  const brief = await t.start({ config: { ...mem_config,
    versioned_messages: { enabled: true, retention_window_seconds: 1 } } });
  const page = async () => {
    const r = await t.api(A, 'GET', '/channels/rows/history', { port: brief.port });
    return r.json.items.map((i) => [i.event_name, i.message.data]);
  };
  is_ok(await post(t, { channel: 'rows' }, { port: brief.port }));
  const path = message_path('rows', (await t.api(A, 'GET', '/channels/rows/history',
    { port: brief.port })).json.items[0].message.message_serial);
  is_ok(await t.api(A, 'POST', `${path}/append`, { body: { data: '!' }, port: brief.port }));
  await eventually(async () =>
    (await t.api(A, 'GET', path, { port: brief.port })).status === 404, 'no versions');
  await moves({ server: brief }, { 'versioned_history_substitution_total missing_latest': 1 },
              async () => assert.deepEqual(await page(), [['sockudo:message.create', 'x']]));
});

s.test('an annotation is no row of history', async (t) => {
  const channel = t.name();
  const path = `${message_path(channel, await message(t, channel))}/annotations`;
  await moves(t, { history_write_latency_ms_count: 2 }, async () => {
    const r = await t.api(A, 'POST', path, { body: { type: 'r:total.v1' } });
    is_ok(r);
    is_ok(await t.api(A, 'DELETE', `${path}/${encodeURIComponent(r.json.annotationSerial)}`));
  });
});

s.test('who comes, changes and goes', async (t) => {
  const channel = t.name('presence-');
  const ws = await open_v2(t, A);
  await moves(t, { presence_history_writes_total: 3,
                   presence_history_write_latency_ms_count: 3 }, async () => {
    await join_v2(ws, channel, { member: { user_id: 'ann' } });
    ws.send({ event: 'sockudo:presence_update', data: { channel, data: { mood: 'calm' } } });
    await ws.until('sockudo_internal:presence_update');
    leave_v2(ws, channel);
  });
});

s.test('positions that can be resumed, and those that cannot', async (t) => {
  const [channel, other] = [t.name(), t.name()];
  const { stream_id } = await join_v2(await open_v2(t, A), channel);
  for (let i = 0; i < 110; i++) await t.publish(A, channel, 'ev', String(i));
  const resume = async (name, position) => {
    const ws = await open_v2(t, A);
    ws.send({ event: 'sockudo:resume', data: { channel_positions: { [name]: position } } });
    subscribe_v2(ws, name);
    await ws.until('sockudo:resume_success');
  };
  const good = (source) => ({ [`history_recovery_success_total ${source}`]: 1 });
  const bad = (code) => ({ [`history_recovery_failures_total ${code}`]: 1 });
  await moves(t, good('hot'), () => resume(channel, { stream_id, serial: 50 }));
  /* the ring holds 100 */
  await moves(t, good('cold'), () => resume(channel, { stream_id, serial: 5 }));
  await moves(t, bad('stream_reset'), () => resume(channel, { stream_id: other, serial: 50 }));
  await moves(t, bad('continuity_unverifiable'), () => resume(channel, { serial: 50 }));
  await moves(t, bad('continuity_unverifiable'),
              () => resume(channel, { stream_id, serial: 1000 }));
});
