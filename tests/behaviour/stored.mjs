/* stored.mjs - everything that a server has stored of a channel, read over HTTP and judged.
 *
 * Shape    read_rows() pages through history, read_versions() through one message's versions;
 *          read_channel() does both and refuses whatever breaks an invariant that holds at all
 *          times: serials without gap, one row per message, constant identities, the same order by
 *          every serial, aggregates that equal the fold of their versions.
 * Bounds   WIDTH reads at a time.
 * Source   spec/messages-and-history.md 1, 4, 5, 7 and invariants 1, 2, 4, 17, 18, 21.
 */
import assert from 'node:assert/strict';
import { api } from './http_raw.mjs';

const WIDTH = 16;
export const path_of = (channel) => `/channels/${encodeURIComponent(channel)}`;
export const message_path = (channel, serial) =>
  `${path_of(channel)}/messages/${encodeURIComponent(serial)}`;

/* A signed GET that must be answered with 200; 503 is asked again. */
export async function read(port, app, path, query = {}) {
  for (let tries = 0; ; tries++) {
    const r = await api(port, app, 'GET', path, { query });
    if (r.status === 503 && tries < 200) {
      await new Promise((resolve) => setTimeout(resolve, 25));
      continue;
    }
    assert.equal(r.status, 200, `GET ${path} ${JSON.stringify(query)}: ${r.status} ${r.text}`);
    return r.json;
  }
}

export async function in_turn(items, width, fn) {
  let next = 0;
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, async () => {
    while (next < items.length) { next += 1; await fn(items[next - 1]); }
  }));
}

/* All pages from a path, joined. Each page must say what it was asked for. */
export async function read_pages(port, app, path, { limit = 100, direction = 'oldest_first',
                                                    query = {} } = {}) {
  const items = [];
  let cursor;
  let first;
  for (;;) {
    const page = await read(port, app, path, { limit: String(limit), direction, ...query,
                                               ...(cursor ? { cursor } : {}) });
    assert.equal(page.direction, direction);
    assert.ok(page.limit <= limit, `a page of ${page.limit}, asked for ${limit}`);
    assert.ok(page.items.length <= page.limit, `${page.items.length} on a page of ${page.limit}`);
    if (page.has_more) assert.equal(page.items.length, page.limit, 'pages but the last are full');
    first ??= page;
    items.push(...page.items);
    if (!page.has_more) {
      assert.ok(page.next_cursor == null, 'no cursor at the end');
      return { items, first, last: page };
    }
    assert.ok(page.next_cursor, 'more rows need a cursor');
    cursor = page.next_cursor;
  }
}

export const read_rows = (port, app, channel, options) =>
  read_pages(port, app, `${path_of(channel)}/history`, options);
export const read_versions = async (port, app, channel, serial, options) =>
  (await read_pages(port, app, `${message_path(channel, serial)}/versions`, options)).items;
export const read_message = async (port, app, channel, serial) =>
  (await read(port, app, message_path(channel, serial))).item;
export const read_state = async (port, app, channel) =>
  (await read(port, app, `${path_of(channel)}/history/state`)).stream;

/* The state of a message from its versions, oldest first; `each` hears of every step. */
export function fold(versions, each = () => {}) {
  const state = { name: undefined, data: undefined, extras: undefined };
  for (const v of versions) {
    if (v.action === 'append') {
      if (state.data !== undefined) assert.equal(typeof state.data, 'string');
      state.data = (state.data ?? '') + v.data;
    } else state.data = v.data;
    state.name = v.name;
    state.extras = v.extras;
    state.action = v.action;
    each(v, state);
  }
  return state;
}

/* What holds of one message's versions, oldest first. */
export function check_versions(versions, what) {
  assert.ok(versions.length > 0, `${what}: a message has versions`);
  const [create] = versions;
  assert.equal(create.action, 'create', `${what}: the first version is the create`);
  assert.equal(create.version.serial, create.message_serial,
               `${what}: a create uses one text for both serials`);
  let before;
  for (const v of versions) {
    assert.equal(v.message_serial, create.message_serial, `${what}: message_serial is constant`);
    assert.equal(v.history_serial, create.history_serial, `${what}: history_serial is constant`);
    assert.equal(v.serial, v.delivery_serial, `${what}: serial is the delivery serial`);
    assert.equal(v.event, `sockudo:message.${v.action}`);
    if (before) {
      assert.ok(v.version.serial > before.version.serial, `${what}: version serials rise`);
      assert.ok(v.delivery_serial > before.delivery_serial,
                `${what}: both serials give the same order`);
    }
    before = v;
  }
}

/* What holds of all versions of a channel: delivery serials are 1..K. */
export function check_serials(versions, what) {
  const sorted = versions.map((v) => v.delivery_serial).sort((a, b) => a - b);
  sorted.forEach((serial, i) => assert.equal(serial, i + 1,
    `${what}: delivery serial ${i + 1} of ${sorted.length} is ${serial}`));
  return sorted.length;
}

/* What holds of the rows of a channel that was never reset or purged, oldest first. */
export function check_rows(rows, what) {
  let before;
  const seen = new Set();
  for (const row of rows) {
    const m = row.message;
    if (before) {
      assert.ok(row.serial > before.serial, `${what}: history serials rise`);
      assert.equal(row.stream_id, before.stream_id, `${what}: rows of one stream`);
      assert.ok(row.published_at_ms >= before.published_at_ms, `${what}: times do not fall`);
    }
    assert.equal(m.history_serial, row.serial, `${what}: the row's own serial`);
    assert.equal(row.event_name, m.event);
    assert.equal(row.operation_kind, `message.${m.action}`);
    assert.ok(!seen.has(m.message_serial), `${what}: one row per message`);
    seen.add(m.message_serial);
    before = row;
  }
}

/* Everything, judged. `known` (message serial -> {delivery, versions}) saves reading versions of
 * messages whose latest delivery serial has not moved. Resolves to {rows, messages, versions, head,
 * stream_id}: messages maps message serials to {versions, item}, versions is indexed by serial. */
export async function read_channel(port, app, channel, { known = new Map(), limit = 100 } = {}) {
  const { items: rows, first } = await read_rows(port, app, channel, { limit });
  check_rows(rows, channel);
  const messages = new Map();
  await in_turn(rows, WIDTH, async (row) => {
    const m = row.message;
    const old = known.get(m.message_serial);
    const versions = old && old.item.delivery_serial === m.delivery_serial ? old.versions
      : await read_versions(port, app, channel, m.message_serial, { limit });
    if (versions !== old?.versions) check_versions(versions, `${channel} ${m.message_serial}`);
    const latest = versions.at(-1);
    assert.equal(m.delivery_serial, latest.delivery_serial,
                 `${channel} ${m.message_serial}: history and versions agree on the latest`);
    const state = fold(versions);
    assert.deepEqual(m.data, state.data,
                     `${channel} ${m.message_serial}: the aggregate is the fold`);
    assert.equal(m.action, state.action);
    messages.set(m.message_serial, { versions, item: m });
  });
  const all = [...messages.values()].flatMap((m) => m.versions);
  const head = check_serials(all, channel);
  const versions = new Map(all.map((v) => [v.delivery_serial, v]));
  return { rows, messages, versions, head, stream_id: first.continuity.stream_id };
}

/* ---- writing ---- */

/* POST that insists on 200 and resolves to the body. */
export async function post(port, app, path, body, headers) {
  const r = await api(port, app, 'POST', path, { body, headers });
  assert.equal(r.status, 200, `POST ${path}: ${r.status} ${r.text}`);
  return r.json;
}
/* A create; resolves to its acknowledgement. */
export async function create(port, app, channel, data = 'x', more = {}) {
  const body = { name: 'note', channel, data, info: 'subscription_count', ...more };
  return (await post(port, app, '/events', body)).channels[channel];
}
export const mutate = (port, app, channel, serial, action, body) =>
  post(port, app, `${message_path(channel, serial)}/${action}`, body);
