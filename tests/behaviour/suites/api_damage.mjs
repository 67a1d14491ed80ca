/* api_damage.mjs - a channel whose newest rows cannot be read after a start, while their publish
 * keys would still be known.
 *
 * Source   spec/messages-and-history.md 7 (stream states), 12 (22); settled 38.
 */
import { suite } from '../runner.mjs';
import { assert, is_api_error } from '../expect.mjs';
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
