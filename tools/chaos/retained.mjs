/* retained.mjs - channels that keep KEPT messages: what retention deletes under load and kills.
 *
 * Shape    run() creates messages on a few channels; audit() reads their rows.
 * Checks   The newest KEPT rows are there, without gap, up to the newest one acknowledged or later;
 *          what was acknowledged reads as it was written; the next serial never falls.
 * Source   spec/messages-and-history.md 7 and invariants 17, 20.
 */
import assert from 'node:assert/strict';
import { api } from '../../tests/behaviour/http_raw.mjs';
import { in_turn, read_rows, read_state } from '../../tests/behaviour/stored.mjs';
import { app_entry } from '../../tests/behaviour/apps.mjs';

const KEPT = 10;
const CHANNELS = 5;
export const retained_app = app_entry('chaosfew', {
  history: { max_messages_per_channel: KEPT } });

export class Retained {
  told = new Map();                          /* channel -> Map(history serial -> data) */
  next = new Map();                          /* channel -> the highest next_serial seen */

  constructor(world, auditor) { Object.assign(this, { world, auditor }); }

  async run() {
    const rng = this.world.rng.fork('retained');
    for (let n = 0; await this.world.open_gate(); n++) {
      const { life } = this.world;
      const channel = `few-${rng.below(CHANNELS)}`;
      const data = `${n}.${'r'.repeat(rng.below(2000))}`;
      try {
        const r = await api(this.world.port, retained_app, 'POST', '/events', {
          body: { name: 'few', channel, data, info: 'subscription_count' } });
        if (r.status !== 200) continue;
        const told = this.told.get(channel) ?? new Map();
        told.set(r.json.channels[channel].history_serial, data);
        this.told.set(channel, told);
      } catch (e) {
        if (!life.ending) this.auditor.fault(`retained: no answer from a live server: ${e}`);
        await life.ended;
      }
    }
  }

  async audit() {
    await in_turn([...this.told.keys()], CHANNELS, async (channel) => {
      const { port } = this.world;
      const { items, last } = await read_rows(port, retained_app, channel, { limit: 3 });
      const { next_serial } = await read_state(port, retained_app, channel);
      try { this.#judge(channel, items, last, next_serial); } catch (e) {
        this.auditor.fault(`${channel}: ${e.message}`);
      }
    });
  }

  #judge(channel, items, last, next_serial) {
    const told = this.told.get(channel);
    const newest = items.at(-1).serial;
    assert.equal(next_serial, newest + 1, 'the next serial follows the newest row');
    assert.ok(next_serial >= (this.next.get(channel) ?? 0), 'the next serial never falls');
    this.next.set(channel, next_serial);
    assert.ok(newest >= Math.max(...told.keys()), 'the newest acknowledged row is there');
    assert.equal(items.length, Math.min(KEPT, newest), 'the newest rows are kept');
    items.forEach((row, i) => {
      assert.equal(row.serial, newest - items.length + 1 + i, 'rows have no gap');
      if (told.has(row.serial)) assert.equal(row.message.data, told.get(row.serial));
    });
    assert.equal(last.continuity.complete, newest <= KEPT, 'complete when nothing is missing');
  }
}
