/* passing.mjs - channels that are used, emptied by retention, forgotten, and used again later.
 *
 * Shape    run() publishes to one of a few channels and reads it back at once; again(), at the end,
 *          waits until the server has forgotten some, and does the same with each of them.
 * Checks   A stream id and a serial stand for one message for ever, whatever became of the channel
 *          between two uses; the newest row is what was acknowledged last; rows have no gap.
 * Source   docs/store.md, "Channels that are no more"; spec/settled.md 30.
 */
import assert from 'node:assert/strict';
import { api } from '../../tests/behaviour/http_raw.mjs';
import { app_entry } from '../../tests/behaviour/apps.mjs';
import { eventually } from '../../tests/behaviour/expect.mjs';
import { scrape } from '../../tests/behaviour/metrics.mjs';
import { in_turn, path_of, read } from '../../tests/behaviour/stored.mjs';

const CHANNELS = 40;
const FORGET_MS = 30000;                     /* retention, an unused home, two sweeps */
export const passing_app = app_entry('chaospass', {
  history: { retention_window_seconds: 1 }, connection_recovery: { enabled: false },
  idempotency: { enabled: true, ttl_seconds: 1 } });

export class Passing {
  said = new Map();                          /* stream id and serial -> data */
  streams = new Map();                       /* channel -> Set(stream id) */

  forgotten = 0;                             /* since again() was called */

  constructor(world, auditor) { Object.assign(this, { world, auditor }); }

  async run() {
    const rng = this.world.rng.fork('passing');
    for (let n = 0; await this.world.open_gate(); n++) {
      const { life } = this.world;
      try {
        await this.#use(`passing-${rng.below(CHANNELS)}`, `${n}`);
      } catch (e) {
        if (!life.ending) this.auditor.fault(`passing: no answer from a live server: ${e}`);
        await life.ended;
      }
    }
  }

  /* Nobody publishes, and the server lives until this is over. */
  async again() {
    const known = [...this.streams].map(([channel, ids]) => [channel, ids.size]);
    const all = () => in_turn(known, 4, ([channel]) => this.#use(channel, 'again'));
    const count = async () =>
      (await scrape(this.world.server)).series.get('sockudo_store_forgotten_total{}');
    const before = await count();
    await all();
    this.forgotten = await eventually(async () => Math.max(0, await count() - before),
                                      'channels are forgotten', FORGET_MS);
    await all();
    assert.ok(known.some(([channel, n]) => this.streams.get(channel).size > n),
              'one of them is another stream');
  }

  async #use(channel, data) {
    const r = await api(this.world.port, passing_app, 'POST', '/events', {
      body: { name: 'passing', channel, data } });
    if (r.status !== 200) return;
    const page = await read(this.world.port, passing_app, `${path_of(channel)}/history`);
    try { this.#judge(channel, page, data); } catch (e) {
      this.auditor.fault(`${channel}: ${e.message}`);
    }
  }

  #judge(channel, page, data) {
    const { stream_id } = page.continuity;
    const known = this.streams.get(channel) ?? new Set();
    this.streams.set(channel, known.add(stream_id));
    page.items.forEach((row, i) => {
      const place = `${stream_id} ${row.serial}`;
      const before = this.said.get(place) ?? row.message.data;
      assert.equal(row.message.data, before, `another message stands at ${place}`);
      this.said.set(place, before);
      assert.equal(row.serial, page.items[0].serial - i, 'rows have no gap');
    });
    if (page.items.length === 0) return;     /* a second ago already */
    assert.equal(page.items[0].message.data, data, 'the newest row is what was said last');
  }
}
