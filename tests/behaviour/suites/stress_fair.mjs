/* stress_fair.mjs - one app's clients ask for as much as they may: the clients of another app are
 * served in turn beside them, and what nobody takes does not fill the memory of all.
 *
 * Source   spec/messages-and-history.md 12; spec/protocol-v2.md 6, 8; spec/operations.md 7;
 *          spec/settled.md 14, 34.
 */
import net from 'node:net';
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { metric } from '../metrics.mjs';
import { mem, mem_config } from '../memory.mjs';
import { signedText } from '../http_raw.mjs';
import { join_v2, open_v2, subscribe_v2 } from '../v2_raw.mjs';

const GREEDY = mem.app;
const POLITE = mem.other;
const ROWS = 66;                          /* of 60,000 bytes: nearly the largest page */
const PAGES = 240;                        /* are asked for at once; 16 to 64 are read at a time */
const many = (n, fn) => Promise.all(Array.from({ length: n }, (_, i) => fn(i)));
const hits = (server, limit) => metric(server, 'sockudo_limit_hits_total', { limit });
/* Pages of the large channel that the server has read so far. */
const pages_read = async (server) => Math.round(await metric(server,
  'sockudo_versioned_history_substitution_total', { app_id: GREEDY.id }) / ROWS);
const ask = (channel) => ({ event: 'sockudo:channel_history', data: { channel, limit: 1000 } });

/* One shard: what is asked for by one app stands in the way of the other. */
async function start(t, more = {}) {
  t.server = await t.start({ shards: 1, config: { ...mem_config, ...more,
    connection_recovery: { enabled: true, max_buffer_size: 1 } } });
  for (let i = 0; i < ROWS; i += 6) {
    await many(6, () => t.publish(GREEDY, 'large', 'ev', 'x'.repeat(60000)));
  }
  await many(5, () => t.publish(POLITE, 'small', 'ev', 'y'));
}

async function small_page(ws) {
  ws.send(ask('small'));
  const m = await ws.next();
  assert.equal(m.event, 'sockudo:channel_history', JSON.stringify(m));
  const { items } = typeof m.data === 'string' ? JSON.parse(m.data) : m.data;
  assert.equal(items.length, 5);
}

/* Once nearly all of them stand in line. */
async function served_soon(t, page) {
  await eventually(async () => await hits(t.server, 'cold_reads') >= PAGES / 2,
                   'they stand in line');
  const before = await pages_read(t.server);
  await page();
  const between = await pages_read(t.server) - before;
  assert.ok(between < 100, `${between} pages of another app came first`);
}

const s = suite('stress fair', { none: true, parallel: 1 });

s.test('pages for many sockets of one app do not hold up another app', async (t) => {
  await start(t);
  const polite = await open_v2(t, POLITE);
  await join_v2(polite, 'small');
  const sockets = await many(PAGES / 2, () => open_v2(t, GREEDY));
  for (const ws of sockets) {
    ws.socket.pause();                   /* what they take would take the time of this process */
    subscribe_v2(ws, 'large');
    for (let i = 0; i < 2; i++) ws.send(ask('large'));
  }
  await served_soon(t, () => small_page(polite));
  for (const ws of sockets) ws.destroy();
  await small_page(polite);
  await t.server.stop();
});

s.test('requests of one app do not hold up another app', async (t) => {
  await start(t);
  const sockets = await many(PAGES, () => new Promise((resolve, reject) => {
    const socket = net.connect(t.port, '127.0.0.1', () => resolve(socket)).pause();
    socket.on('error', reject);
    t.after(() => socket.destroy());
  }));
  for (const socket of sockets) socket.write(signedText(GREEDY, 'GET', '/channels/large/history'));
  await served_soon(t, async () => {
    const r = await t.api(POLITE, 'GET', '/channels/small/history');
    assert.equal(r.status, 200, r.text);
    assert.equal(r.json.items.length, 5);
  });
  for (const socket of sockets) socket.destroy();
  await t.server.stop();
});

s.test('pages that nobody takes leave room for others', async (t) => {
  await start(t, { limits: { shard_memory_mb: 96 } });
  const polite = await open_v2(t, POLITE);
  await join_v2(polite, 'small');
  const stuck = await many(40, () => open_v2(t, GREEDY));
  await many(40, (i) => join_v2(stuck[i], 'large'));
  const publish = async (app, channel) => {
    const r = await t.api(app, 'POST', '/events', { body: { name: 'ev', channel, data: 'x' } });
    assert.equal(r.status, 200, r.text);
  };
  for (const ws of stuck) {
    ws.socket.pause();
    for (let i = 0; i < 2; i++) ws.send(ask('large'));
  }
  await eventually(async () => await hits(t.server, 'cold_reads') > 0, 'they stand in line');
  await small_page(polite);
  await publish(POLITE, 'other');
  let refused = 0;
  for (const ws of stuck) ws.socket.resume();
  await many(40, async (i) => {
    for (let answers = 0; answers < 2; answers++) {
      const m = await stuck[i].next(20000);
      if (m.event === 'sockudo:channel_history') continue;
      assert.equal(m.data.code, 4301, JSON.stringify(m));
      refused += 1;
    }
  });
  assert.ok(refused < 80, 'those that wait get theirs as others are taken');
  await publish(GREEDY, 'large');
  assert.equal(await hits(t.server, 'heap'), 0, 'nobody was refused for want of memory');
  await t.server.stop();
});
