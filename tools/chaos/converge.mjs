/* converge.mjs - a subscriber that is cut off 100 times during 50,000 appends ends with what is
 * stored.
 *
 *   node tools/chaos/converge.mjs [--appends 50000] [--cuts 100] [--messages 200] [--channels 4]
 *                                 [--shards 2] [--seed N] [--full] [--weft FILE]
 *
 * The work is tests/behaviour/converge.mjs. The server's windows are small against the time that
 * the subscriber is away, so that hot replay, cold replay and channel_history all take their part:
 * a run in which one of them took none counts as failed. The last line is "N passed, N failed".
 */
import assert from 'node:assert/strict';
import { options_of } from '../../tests/behaviour/options.mjs';

const number = (value) => ({ type: 'string', number: true, default: String(value) });
const values = options_of(import.meta.url, {
  appends: number(50000), cuts: number(100), messages: number(200), channels: number(4),
  shards: number(2), seed: number(Math.floor(Math.random() * 2 ** 31)),
  full: { type: 'boolean', default: false }, weft: { type: 'string' },
});
if (values.weft) process.env.WEFT_BIN = values.weft;
const { Server } = await import('../../tests/behaviour/harness.mjs');
const { mem, mem_config } = await import('../../tests/behaviour/memory.mjs');
const { converge } = await import('../../tests/behaviour/converge.mjs');

/* Frames missed on one channel each time, on average. */
const away = values.appends / values.cuts / values.channels;
const config = { ...mem_config,
  history: { ...mem_config.history, cold_replay_max_messages: Math.ceil(away * 1.3) },
  connection_recovery: { enabled: true, max_buffer_size: Math.ceil(away / 2) } };
const began = Date.now();
console.log(`seed ${values.seed}`);
const server = await Server.start({ config, shards: values.shards });
let failed = 0;
try {
  const counts = await converge({
    port: server.port, app: mem.app, full: values.full, appends: values.appends,
    cuts: values.cuts, messages: values.messages, width: 32, seed: values.seed,
    channels: Array.from({ length: values.channels }, (_, i) => `converge-${i}`) });
  const s = (Date.now() - began) / 1000;
  console.log(`seed ${values.seed}: ${values.appends} appends, ${JSON.stringify(counts)}, `
    + `${s.toFixed(1)} s`);
  for (const part of ['hot', 'cold', 'failed']) {
    assert.ok(counts[part] > 0, `no ${part} recovery took place: other windows are needed`);
  }
  await server.stop();
} catch (e) {
  failed = 1;
  console.log(`seed ${values.seed}: FAILED: ${e.stack}`);
  server.clean();
}
console.log(`${1 - failed} passed, ${failed} failed`);
process.exit(failed);
