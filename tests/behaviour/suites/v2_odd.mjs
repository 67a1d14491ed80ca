/* v2_odd.mjs - every frame of a V2 client with every field set to values that nobody sends on
 * purpose: an error frame, nothing, or a close that says why; the server goes on.
 *
 * Source   spec/protocol-v2.md 0, 3, 6-9; RFC 8259.
 */
import { suite } from '../runner.mjs';
import { assert } from '../expect.mjs';
import { mem, mem_config } from '../memory.mjs';
import { user_auth } from '../clients.mjs';
import { create } from '../stored.mjs';
import { join_v2, open_v2 } from '../v2_raw.mjs';

const s = suite('v2 odd values', { config: mem_config, parallel: 4 });
const A = mem.app;

/* As they stand in the frame. */
const VALUES = ['null', 'true', '0', '-0', '-1', '7', '1.0', '1e3', '18446744073709551615',
  '18446744073709551616', '""', '"x"', '"20"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '[]',
  '[1]', '["x"]', '{}', '{"a":1}', '{"a":{}}', '{"a":1,"a":2}', '{"count":0}', '{"seconds":1e3}',
  `"${'y'.repeat(3000)}"`, '['.repeat(70) + ']'.repeat(70), 'nul'];

/* The members of each frame's data; C stands for a channel's name, S for its stream. */
const frames = {
  subscribe: { channel: '"C"', auth: '""', channel_data: undefined, rewind: undefined,
               modes: undefined, filter: undefined, tags_filter: undefined, delta: undefined },
  unsubscribe: { channel: '"C"' },
  resume: { channel_positions: '{"C":{"stream_id":"S","serial":1}}', channel_serials: undefined },
  'resume of one': { serial: '1', stream_id: '"S"', last_message_id: undefined },
  channel_history: { channel: '"C"', limit: '3', cursor: undefined, direction: undefined,
    start_serial: undefined, end_serial: undefined, start_time_ms: undefined,
    end_time_ms: undefined, until_attach: undefined, params: undefined },
  presence_update: { channel: '"presence-C"', data: '{"n":1}' },
  signin: { auth: '"A"', user_data: '"U"' },
};
const ENVELOPE = { channel: undefined, name: undefined, user_id: undefined, tags: undefined,
  extras: undefined, serial: undefined, stream_id: undefined, message_id: undefined,
  idempotency_key: undefined };
const object = (fields) => `{${Object.entries(fields).filter(([, v]) => v !== undefined)
  .map(([k, v]) => `"${k}":${v}`).join(',')}}`;

function text_of(kind, data, envelope = ENVELOPE) {
  const of_one = kind === 'resume of one';
  const inner = of_one ? `{"channel_positions":{"C":${data}}}` : data;
  const event = `"sockudo:${of_one ? 'resume' : kind}"`;
  return object({ event, ...envelope, data: inner });
}

for (const [kind, fields] of Object.entries(frames)) {
  s.test(`${kind}: whatever stands in it, the next ping is answered or the close has a code`,
    async (t) => {
    const channel = t.name();
    await create(t.port, A, channel, 'text');
    const witness = await open_v2(t, A);
    const { stream_id } = await join_v2(witness, channel);
    await join_v2(witness, `presence-${channel}`, { member: { user_id: 'witness' } });
    let ws = null;
    const send = async (text) => {
      ws ??= await open_v2(t, A);
      const user = '{"id":"odd"}';
      ws.text(text.replaceAll('C"', `${channel}"`).replaceAll('"S"', `"${stream_id}"`)
        .replace('"A"', `"${user_auth(A, ws.socket_id, user)}"`)
        .replace('"U"', JSON.stringify(user)));
      ws.send({ event: 'sockudo:ping' });
      for (;;) {
        const item = await ws.take();
        if (item.kind === 'text' && JSON.parse(item.text).event === 'sockudo:pong') return;
        if (item.kind === 'text') continue;
        assert.equal(item.kind, 'close', `after ${text}`);
        assert.ok(item.code >= 4000, `${item.code} after ${text}`);
        ws = null;
        return;
      }
    };
    for (const value of VALUES) {
      await send(text_of(kind, value));
      for (const name of Object.keys(fields)) {
        const data = object({ ...fields, [name]: value });
        await send(text_of(kind, data));
        await send(text_of(kind, JSON.stringify(data)));
      }
      for (const name of Object.keys(ENVELOPE)) {
        await send(text_of(kind, object(fields), { ...ENVELOPE, [name]: value }));
      }
    }
    await t.publish(A, channel, 'after');
    while ((await witness.next()).event !== 'after');
  });
}
