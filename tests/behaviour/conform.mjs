/* conform.mjs - runs WebSocket conformance cases, each in several kinds of delivery.
 *
 * Shape    A case is a claim, the client's frames and what must come back. The protocol has no
 *          echo, so a text message that holds a pusher:ping of the wanted size takes its place:
 *          its answer, one pusher:pong message, says that the whole message was read and
 *          understood. Answers: PONG (that message), pong(payload) (a Pong frame), error (a 4000
 *          error message), close(code). A case without close() ends with our closing
 *          handshake.
 * Delivery plain (one write), framewise, bytewise (large messages: at both edges), random pieces.
 */
import { assert, expect_close, is_error } from './expect.mjs';
import { OP, frame } from './ws_raw.mjs';

export const PONG = { answer: 'pusher:pong' };
export const pong = (payload = '') => ({ answer: 'pong', payload: Buffer.from(payload) });
export const error = { answer: 'error' };
export const close = (code) => ({ answer: 'close', code });

/* The text of a pusher:ping that is `bytes` long. */
export function ping_text(bytes = 64) {
  const head = '{"event":"pusher:ping","data":{},"pad":"';
  const pad = bytes - head.length - 2;
  assert.ok(pad >= 0, 'a ping does not fit in so few bytes');
  return `${head}${'x'.repeat(pad)}"}`;
}
/* A pusher:ping with `pad` (bytes) inside. */
export function ping_with(pad) {
  return Buffer.concat([Buffer.from('{"event":"pusher:ping","data":{},"pad":"'), Buffer.from(pad),
                        Buffer.from('"}')]);
}
/* The frames of one message cut at the given offsets. */
export function fragments(opcode, payload, cuts) {
  const body = Buffer.from(payload);
  const edges = [0, ...cuts, body.length];
  return edges.slice(1).map((end, i) => frame(i === 0 ? opcode : OP.CONT,
    body.subarray(edges[i], end), { fin: i === edges.length - 2 }));
}
/* The same with equal pieces of `size` bytes. */
export function sliced(opcode, payload, size) {
  const bytes = Buffer.byteLength(payload);
  const cuts = [];
  for (let at = size; at < bytes; at += size) cuts.push(at);
  return fragments(opcode, payload, cuts);
}

const EDGE = 24;
const deliveries = {
  plain: async (ws, frames) => ws.write(Buffer.concat(frames)),
  framewise: async (ws, frames) => {
    for (const f of frames) await ws.dribble(f, () => f.length);
  },
  bytewise: async (ws, frames) => {
    const large = frames.reduce((sum, f) => sum + f.length, 0) > 4096;
    for (const f of frames) {
      await ws.dribble(f, (at, length) => (!large || at < EDGE || at >= length - EDGE ? 1
        : Math.min(4093, length - EDGE - at)));
    }
  },
  random: async (ws, frames) => {
    await ws.dribble(Buffer.concat(frames), () => Math.floor(Math.random() ** 3 * 3000));
  },
};

async function answer(ws, want) {
  if (want.answer === 'close') return expect_close(ws, want.code);
  if (want.answer === 'pong') {
    const item = await ws.take();
    assert.equal(item.kind, 'pong', JSON.stringify(item));
    return assert.deepEqual(item.payload, want.payload);
  }
  const m = await ws.next();
  if (want.answer === 'error') return is_error(m, 4000, /^Invalid message format: /);
  return assert.equal(m.event, want.answer, JSON.stringify(m));
}

/* Adds one case per delivery. `kinds` narrows the deliveries. */
export function conform(s, claim, frames, answers, kinds = Object.keys(deliveries)) {
  for (const kind of kinds) {
    s.test(`${claim} (${kind})`, async (t) => {
      const ws = await t.open();
      const sent = deliveries[kind](ws, frames);
      for (const want of answers) await answer(ws, want);
      await sent;
      if (answers.at(-1)?.answer === 'close') return;
      assert.equal(ws.pending(), 0, 'more came than was asked for');
      ws.close(1000);
      await expect_close(ws, 1000);
    });
  }
}
