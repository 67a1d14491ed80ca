/* api_odd.mjs - every route with every field and parameter set to values that nobody sends on
 * purpose: each is answered with what the pages allow, in its form, and the server goes on.
 *
 * Source   spec/messages-and-history.md 0 (errors, framework-level rejections); RFC 8259.
 */
import { suite } from '../runner.mjs';
import { assert } from '../expect.mjs';
import { mem, mem_config } from '../memory.mjs';
import { create, message_path } from '../stored.mjs';

const s = suite('api odd values', { config: mem_config, parallel: 4 });
const A = mem.app;
const ANSWERS = [200, 400, 401, 403, 404, 413, 422];

/* As they stand in the body. */
const VALUES = ['null', 'true', '0', '-0', '-1', '1.0', '1e3', '1E400', '18446744073709551615',
  '18446744073709551616', '99999999999999999999999', '""', '" "', '"x"', '"\\u0000"', '"\\ud800"',
  '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\xff"', '"\x01"', '[]', '[[]]', '["x"]', '[1]', '{}',
  '{"a":1}', '{"a":1,"a":2}', '{"headers":{"a":{}}}', '{"headers":{"sockudo_action":"x"}}',
  '{"ai":{"transport":[]}}', `"${'y'.repeat(300)}"`, '['.repeat(70) + ']'.repeat(70), '01', 'nul'];

const routes = {
  '/events': { name: '"n"', channel: '"C"', channels: undefined, data: '"d"', socket_id: undefined,
               info: undefined, idempotency_key: undefined, message_id: undefined,
               tags: undefined, extras: undefined },
  '/batch_events': { batch: '[{"name":"n","channel":"C","data":"d"}]' },
  'M/append': { data: '"x"', extras: undefined, client_id: undefined, socket_id: undefined,
                description: undefined, metadata: undefined, op_id: undefined },
  'M/update': { data: '"x"', name: undefined, extras: undefined, clear_fields: undefined,
                metadata: undefined, op_id: undefined },
  'M/delete': { data: undefined, extras: undefined, clear_fields: undefined },
  'M/annotations': { type: '"like:multiple.v1"', name: '"n"', clientId: undefined, count: '1',
                     socketId: undefined, data: undefined, encoding: undefined },
  '/channels/C/history/purge': { confirm_channel: '"C"', confirm_operation: '"purge"',
    reason: '"r"', requested_by: undefined, mode: '"before_serial"', before_serial: '1',
    before_time_ms: undefined },
  '/channels/C/history/reset': { confirm_channel: '"C"', confirm_operation: '"nothing"',
                                 reason: '"r"', requested_by: undefined },
};
const fields_text = (fields) => `{${Object.entries(fields).filter(([, v]) => v !== undefined)
  .map(([k, v]) => `"${k}":${v}`).join(',')}}`;

function check(r, what) {
  assert.ok(ANSWERS.includes(r.status), `${what}: ${r.status} ${r.text}`);
  if (!/json/.test(r.headers['content-type'])) return;
  assert.ok(r.json !== undefined, `${what}: not JSON: ${r.text}`);
  if (r.status !== 200) assert.equal(r.json.status, r.status, `${what}: ${r.text}`);
}

for (const [route, fields] of Object.entries(routes)) {
  s.test(`POST ${route}`, async (t) => {
    const c = t.name();
    const { message_serial } = await create(t.port, A, c, 'text');
    const path = route.replace(/^M/, message_path(c, message_serial)).replace('/C/', `/${c}/`);
    const named = (text) => text.replaceAll('"C"', `"${c}"`);
    for (const value of VALUES) {
      for (const body of [value, ...Object.keys(fields).map((name) =>
        fields_text({ ...fields, [name]: value }))]) {
        const r = await t.api(A, 'POST', path, { body: named(body) });
        check(r, `${path} ${body}`);
        if (value === '01' || value === 'nul') assert.equal(r.status, 400, `${path} ${body}`);
      }
    }
    check(await t.api(A, 'POST', path, { body: named(fields_text(fields)) }), 'the plain one');
  });
}

const parameters = ['limit', 'cursor', 'direction', 'start_serial', 'end_serial', 'start_time_ms',
  'end_time_ms', 'start', 'end', 'at_serial', 'at_time_ms', 'at', 'from_serial', 'type',
  'socket_id', 'info', 'filter_by_prefix'];
const texts = ['', '0', '1', '-0', '-1', '1e3', '1.0', ' 1', '18446744073709551615',
  '18446744073709551616', '-9223372036854775808', '%', 'x', 'FORWARDS', 'oldest_first', '\u0000',
  'é', 'ann:00000000000000000001', 'ann:99999999999999999999', 'like:total.v1', 'eyJ9', '1.1',
  'A'.repeat(5000)];
for (const path of ['/channels', '/channels/C', '/channels/C/history', '/channels/C/history/state',
  'M', 'M/versions', 'M/annotations', '/channels/presence-C/presence/history',
  '/channels/presence-C/presence/history/state', '/channels/presence-C/presence/history/snapshot',
  '/channels/%00/history', '/channels/%ff/history', '/channels/C/messages/%00',
  `/channels/C/messages/${'9'.repeat(128)}`]) {
  s.test(`GET ${path}`, async (t) => {
    const c = t.name();
    const { message_serial } = await create(t.port, A, c, 'text');
    const full = path.replace(/^M/, message_path(c, message_serial))
      .replace(/(\/|-)C(\/|$)/, `$1${c}$2`);
    for (const name of parameters) {
      for (const text of texts) {
        check(await t.api(A, 'GET', full, { query: { [name]: text } }),
              `${full}?${name}=${text.slice(0, 100)}`);
      }
    }
  });
}
