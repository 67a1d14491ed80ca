/* presence_log.mjs - the log of who came and went, read whole and judged.
 *
 * Source   spec/messages-and-history.md 8 and invariant 26; spec/settled.md 39.
 */
import assert from 'node:assert/strict';
import { path_of, read, read_pages } from '../../tests/behaviour/stored.mjs';

/* Each user's events alternate, serials have no gap, and the snapshot at the head is what the
 * events add up to. Resolves to the users inside. */
export async function check_presence_log(port, app, room) {
  const path = `${path_of(room)}/presence/history`;
  const { items } = await read_pages(port, app, path);
  const inside = new Set();
  items.forEach((e, i) => {
    assert.equal(e.serial, items[0].serial + i, `${room}: presence serials have no gap`);
    assert.equal(e.stream_id, items[0].stream_id, `${room}: one presence stream`);
    const what = `${room} presence ${e.serial} (${e.user_id})`;
    if (e.event === 'member_added') {
      assert.ok(!inside.has(e.user_id), `${what}: added although inside`);
      inside.add(e.user_id);
    } else if (e.event === 'member_removed') {
      assert.ok(inside.delete(e.user_id), `${what}: removed although outside`);
    } else assert.ok(inside.has(e.user_id), `${what}: updated although outside`);
  });
  const at = items.length === 0 ? {} : { at_serial: String(items.at(-1).serial) };
  const snapshot = await read(port, app, `${path}/snapshot`, at);
  assert.deepEqual(snapshot.members.map((m) => m.user_id).sort(), [...inside].sort(),
                   `${room}: the snapshot is what the events add up to`);
  return inside;
}
