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
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: {
  appends: { type: 'string', default: '50000' }, cuts: { type: 'string', default: '100' },
  messages: { type: 'string', default: '200' }, channels: { type: 'string', default: '4' },
  shards: { type: 'string', default: '2' }, full: { type: 'boolean', default: false },
  seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
  weft: { type: 'string' },
} });
if (values.weft) process.env.WEFT_BIN = values.weft;
const { Server } = await import('../../tests/behaviour/harness.mjs');
const { mem, mem_config } = await import('../../tests/behaviour/memory.mjs');
const { converge } = await import('../../tests/behaviour/converge.mjs');

const number = (name) => Number(values[name]);
/* Frames missed on one channel each time, on average. */
const away = number('appends') / number('cuts') / number('channels');
const config = { ...mem_config,
  history: { ...mem_config.history, cold_replay_max_messages: Math.ceil(away * 1.3) },
  connection_recovery: { enabled: true, max_buffer_size: Math.ceil(away / 2) } };
const began = Date.now();
console.log(`seed ${values.seed}`);
const server = await Server.start({ config, shards: number('shards') });
let failed = 0;
try {
  const counts = await converge({
    port: server.port, app: mem.app, full: values.full, appends: number('appends'),
    cuts: number('cuts'), messages: number('messages'), width: 32, seed: number('seed'),
    channels: Array.from({ length: number('channels') }, (_, i) => `converge-${i}`) });
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
