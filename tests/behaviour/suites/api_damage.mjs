/* api_damage.mjs - a channel whose newest rows cannot be read after a start, while their publish
 * keys would still be known.
 *
 * Source   spec/messages-and-history.md 7 (stream states), 12 (22); settled 38.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { suite } from '../runner.mjs';
import { assert, eventually, is_api_error } from '../expect.mjs';
import { WEFT_BIN } from '../harness.mjs';
import { api } from '../http_raw.mjs';
import { Lives, flip, mem, v2 } from '../memory.mjs';
import { create, path_of, read } from '../stored.mjs';
import { V2, data_of } from '../v2_client.mjs';

const s = suite('api damage', { none: true });
const A = mem.app;
const many = (n, fn) => Promise.all(Array.from({ length: n }, (_, i) => fn(i)));

s.test('a torn segment inside the receipts\' window: said, never served, healed by a reset',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const first = await v2(t, { port: lives.port, app: A });
    const { stream_id } = await first.subscribe('torn');
    const publish = (key) => api(lives.port, A, 'POST', '/events', { body: {
      name: 'e', channel: 'torn', data: 'keyed', message_id: key,
      info: 'subscription_count' } });
    assert.equal((await publish('early')).status, 200);
    await create(lives.port, A, 'torn', 'MARK-OF-THE-TORN-ONE');
    const long = 'x'.repeat(4000);
    await many(60, () => create(lives.port, A, 'torn', long));
    assert.equal((await publish('late')).status, 200);
    await many(200, (i) => create(lives.port, A, `other-${i % 7}`, long));
    await lives.stop();
    assert.ok(flip(lives.server.data_dir, 'MARK-OF-THE-TORN-ONE') > 0, 'the record is in a file');
    await lives.start();

    const pages = async () => is_api_error(
      await api(lives.port, A, 'GET', `${path_of('torn')}/history`,
                { query: { direction: 'oldest_first' } }),
      500, 'internal_error', 'Internal server error');
    await pages();
    const state = await read(lives.port, A, `${path_of('torn')}/history/state`);
    assert.equal(state.stream.state.durable_state, 'degraded', JSON.stringify(state));
    const ws = await v2(t, { port: lives.port, app: A });
    ws.send(V2.resume_frame({ torn: { stream_id, serial: 1 } }));
    ws.send(ws.subscribe_frame('torn'));
    const { failed } = data_of(await ws.next((m) => m.event === 'sockudo:resume_success'));
    assert.equal(failed[0].code, 'persistence_unavailable', JSON.stringify(failed));
    /* Whether a key is new cannot be known: never a second message. What has none goes on. */
    const early = await publish('early');
    assert.ok(early.status === 503 || early.json.channels.torn.delivery_serial === 1, early.text);
    const fresh = await publish('fresh');
    assert.equal(fresh.status, 503, fresh.text);
    assert.ok(!/memory/.test(fresh.text), fresh.text);
    await create(lives.port, A, 'torn', 'no key');
    await pages();

    const r = await api(lives.port, A, 'POST', `${path_of('torn')}/history/reset`, { body: {
      confirm_channel: 'torn', confirm_operation: 'reset', reason: 'torn' } });
    assert.equal(r.status, 200, r.text);
    assert.equal((await publish('fresh')).status, 200);
    const page = await api(lives.port, A, 'GET', `${path_of('torn')}/history`);
    assert.deepEqual(page.json.items.map((i) => i.message.data), ['keyed']);
    const healed = await read(lives.port, A, `${path_of('torn')}/history/state`);
    assert.equal(healed.stream.state.durable_state, 'healthy');
    await lives.stop();
  });

const weftctl = path.join(path.dirname(WEFT_BIN), 'weftctl');
const check = (lives, wanted) => {
  const { error, status, output } = spawnSync(weftctl, ['store', 'check', '--data-dir',
                                                        lives.server.data_dir]);
  assert.ifError(error);
  assert.equal(status, wanted, String(output));
};
const reset_of = (lives, channel, what = 'history') => api(
  lives.port, A, 'POST', `${path_of(channel)}/${what}/reset`,
  { body: { confirm_channel: channel, confirm_operation: 'reset', reason: 'no head' } });

s.test('a head that cannot be read: the server starts, a reset gives the channel another beginning',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const first = await v2(t, { port: lives.port, app: A });
    const { stream_id } = await first.subscribe('lost');
    for (let i = 0; i < 3; i++) await create(lives.port, A, 'lost', `row ${i}`);
    const { message_serial } = await create(lives.port, A, 'kept', 'of another');
    await lives.stop();
    assert.ok(flip(lives.server.data_dir, `${A.id}lost`) > 0, 'the head is in a file');
    check(lives, 1);
    await lives.start();
    const url = `${path_of('lost')}/history`;
    is_api_error(await api(lives.port, A, 'GET', url), 500, 'internal_error',
                 'Internal server error');
    assert.equal((await api(lives.port, A, 'POST', '/events', {
      body: { name: 'e', channel: 'lost', data: 'x' } })).status, 503);
    await create(lives.port, A, 'kept', 'others go on');

    const [reset, again] = await Promise.all([reset_of(lives, 'lost'), reset_of(lives, 'lost')]);
    assert.equal(reset.status, 200, reset.text);
    assert.equal(again.status, 200, again.text);
    assert.equal(reset.json.previous_stream_id, null);
    assert.equal(reset.json.stream.state.durable_state, 'healthy', reset.text);
    await create(lives.port, A, 'lost', 'the first of a new life');
    const page = await api(lives.port, A, 'GET', url);
    assert.deepEqual(page.json.items.map((i) => [i.serial, i.message.data]),
                     [[1, 'the first of a new life']]);
    const ws = await v2(t, { port: lives.port, app: A });
    ws.send(V2.resume_frame({ lost: { stream_id, serial: 1 } }));
    ws.send(ws.subscribe_frame('lost'));
    const { failed } = data_of(await ws.next((m) => m.event === 'sockudo:resume_success'));
    assert.equal(failed[0].code, 'stream_reset', JSON.stringify(failed));
    await lives.stop();
    check(lives, 0);
    await lives.start();
    const kept = await read(lives.port, A, `${path_of('kept')}/messages/${message_serial}`);
    assert.equal(kept.item.data, 'of another');
    assert.equal((await read(lives.port, A, url)).items.length, 1);
    await lives.stop();
  });

s.test('logs without a head: annotations begin anew with the history, the presence log by itself',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const { message_serial } = await create(lives.port, A, 'presence-seen', 'noted');
    const annotations = `${path_of('presence-seen')}/messages/${message_serial}/annotations`;
    const annotate = () => api(lives.port, A, 'POST', annotations,
                               { body: { type: 'r:total.v1' } });
    const log = () => api(lives.port, A, 'GET', `${path_of('presence-seen')}/presence/history`);
    const join = async (user_id) => {
      const ws = await v2(t, { port: lives.port, app: A });
      await ws.subscribe('presence-seen', { member: { user_id } });
      return ws;
    };
    assert.equal((await annotate()).status, 200);
    (await join('ann')).destroy();
    await eventually(async () => (await log()).json.items.length === 2, 'ann to be gone');
    await lives.stop();
    for (const prefix of ['[annotations]', '[presence-history]']) {
      assert.ok(flip(lives.server.data_dir, `${A.id}${prefix}presence-seen`) > 0, prefix);
    }
    await lives.start();
    const ws = await join('bob');
    assert.equal((await annotate()).status, 500);
    assert.equal((await log()).status, 500);
    assert.equal((await reset_of(lives, 'presence-seen')).status, 200);
    assert.equal((await annotate()).status, 200);
    const list = await read(lives.port, A, annotations);
    assert.equal(list.items.length, 1, JSON.stringify(list));
    assert.equal((await log()).status, 500, 'the other log has its own reset');
    /* The event that waited for the log goes into it first: said again, it is reset. */
    await eventually(async () => (await reset_of(lives, 'presence-seen', 'presence/history'))
      .status === 200, 'the reset of the log');
    const { items } = (await log()).json;
    assert.deepEqual(items.map((i) => [i.serial, i.event, i.user_id]),
                     [[1, 'member_added', 'bob']]);
    ws.destroy();
    await lives.stop();
    check(lives, 0);
  });
