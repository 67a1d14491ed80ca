/* expect.mjs - what cases say again and again about frames, closes and HTTP answers.
 *
 * Source   spec/pusher-v1.md 1.1 (error frames), 3.3 (subscription_error), 7.2 (error bodies);
 *          spec/settled.md 13.
 */
import assert from 'node:assert/strict';
import { subscribe_frame } from './clients.mjs';
export { assert };

function same_text(got, want) {
  if (want instanceof RegExp) assert.match(got, want);
  else assert.equal(got, want);
}

/* The message is an error frame: object data, a numeric code, no channel. */
export function is_error(m, code, text) {
  assert.equal(m.event, 'pusher:error', `expected error ${code}, got ${JSON.stringify(m)}`);
  assert.deepEqual(Object.keys(m).sort(), ['data', 'event']);
  assert.deepEqual(Object.keys(m.data).sort(), ['code', 'message']);
  same_text(m.data.message, text);
  assert.equal(m.data.code, code);
}

export async function expect_error(ws, code, text) {
  is_error(await ws.next(), code, text);
}

/* The next item is the Close frame, then TCP ends. */
export async function expect_close(ws, code, reason) {
  const item = await ws.take();
  assert.equal(item.kind, 'close', `expected close ${code}, got ${JSON.stringify(item)}`);
  assert.equal(item.code, code);
  if (reason !== undefined) same_text(item.reason, reason);
  await ws.gone();
}

/* Exactly one error frame, the Close frame with the same code and text, the end of TCP. */
export async function expect_fatal(ws, code, text) {
  await expect_error(ws, code, text);
  await expect_close(ws, code, text);
}

/* An error frame, then subscription_error for the channel. */
export async function expect_refused(ws, channel, code, text) {
  await expect_error(ws, code, text);
  const m = await ws.next();
  assert.equal(m.event, 'pusher:subscription_error', JSON.stringify(m));
  assert.equal(m.channel, channel);
  assert.equal(typeof m.data, 'object');
  assert.equal(typeof m.data.type, 'string');
  assert.equal(typeof m.data.error, 'string');
  if ('status' in m.data) assert.equal(typeof m.data.status, 'number');
}

/* Sends a subscribe that must be refused. */
export async function refuse(ws, channel, code, text, member) {
  ws.send(subscribe_frame(ws, channel, member));
  await expect_refused(ws, channel, code, text);
}

/* The server has nothing to say to this socket. */
export async function expect_nothing(ws) {
  assert.deepEqual(await ws.flush(), []);
}

/* A delivered event, whole: no key more, no key less. */
export function is_event(m, want) {
  assert.deepEqual(m, want);
}

export function is_api_error(r, status, code, text) {
  assert.equal(r.status, status, `${r.status} ${r.text}`);
  assert.match(r.headers['content-type'] ?? '', /^application\/json/);
  assert.equal(r.json?.code, code, r.text);
  assert.equal(r.json.status, status);
  same_text(r.json.error, text);
  assert.deepEqual(Object.keys(r.json).sort(), ['code', 'error', 'status']);
}

export function is_ok(r, body) {
  assert.equal(r.status, 200, `${r.status} ${r.text}`);
  if (body !== undefined) assert.deepEqual(r.json, body);
}

/* Polls until `check` returns something true: for states that no event announces (gauges, counts
 * after a disconnect). */
export async function eventually(check, what, ms = 15000) {
  const until = Date.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > until) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
