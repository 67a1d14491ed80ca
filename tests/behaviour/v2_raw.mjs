/* v2_raw.mjs - Protocol V2 on a raw socket, frame by frame: what the v2_* suites say all the time.
 *
 * Shape    open_v2() opens a socket of a case; subscribe_v2() and join_v2() subscribe on it; the
 *          is_* and expect_* functions judge single frames. v2_client.mjs is the client that keeps
 *          track of channels.
 * Source   spec/protocol-v2.md 0-3, appendix A; spec/settled.md 13.
 */
import { assert, expect_close } from './expect.mjs';
import { channel_auth, user_auth } from './clients.mjs';
import { app_entry } from './apps.mjs';

export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
export const SUCCEEDED = 'sockudo_internal:subscription_succeeded';
const everything = {
  enable_client_messages: true, enable_user_authentication: true, enable_watchlist_events: true,
};
export const v2_app = app_entry('vtwo', { features: everything });

export const path_v2 = (app, query = '') =>
  `/app/${app.key}?protocol=2&client=test&version=1${query ? `&${query}` : ''}`;

export async function open_v2(t, app = v2_app, query = '', options = {}) {
  const ws = await t.upgrade(app, { path: path_v2(app, query), ...options });
  const m = await ws.next();
  assert.equal(m.event, 'sockudo:connection_established', JSON.stringify(m));
  ws.socket_id = JSON.parse(m.data).socket_id;
  return ws;
}

/* member: object (JSON-encoded) or string (as it is); more: rewind, modes, ... */
export function subscribe_v2(ws, channel, { member, ...more } = {}) {
  const channel_data = member === undefined || typeof member === 'string' ? member
    : JSON.stringify(member);
  const auth = /^(private|presence)-/.test(channel)
    ? channel_auth(ws.app, ws.socket_id, channel, channel_data) : '';
  ws.send({ event: 'sockudo:subscribe',
            data: { channel, auth, ...(channel_data === undefined ? {} : { channel_data }),
                    ...more } });
}

/* Subscribes; resolves to the success frame, which must be the next one about the channel. */
export async function join_v2(ws, channel, options) {
  subscribe_v2(ws, channel, options);
  for (;;) {
    const m = await ws.next();
    if (m.event === SUCCEEDED && m.channel === channel) return is_success(m);
    if (m.channel === channel || /:error$/.test(m.event)) {
      throw new Error(`instead of the success of ${channel}: ${JSON.stringify(m)}`);
    }
  }
}

export function leave_v2(ws, channel) {
  ws.send({ event: 'sockudo:unsubscribe', data: { channel } });
}

export async function sign_in_v2(ws, user) {
  const user_data = JSON.stringify(user);
  ws.send({ event: 'sockudo:signin',
            data: { auth: user_auth(ws.app, ws.socket_id, user_data), user_data } });
  return ws.until('sockudo:signin_success');
}

/* A success frame of a channel without memory carries no position. */
export function is_success(m) {
  assert.equal(m.event, SUCCEEDED, JSON.stringify(m));
  assert.match(m.message_id, UUID);
  assert.equal(typeof m.data, 'string');
  return m;
}

function same_text(got, want) {
  if (want instanceof RegExp) assert.match(got, want);
  else assert.equal(got, want);
}

export function is_error_v2(m, code, text) {
  assert.equal(m.event, 'sockudo:error', `expected error ${code}, got ${JSON.stringify(m)}`);
  assert.deepEqual(Object.keys(m).sort(), ['data', 'event', 'message_id']);
  assert.deepEqual(Object.keys(m.data).sort(), ['code', 'message']);
  assert.match(m.message_id, UUID);
  same_text(m.data.message, text);
  assert.equal(m.data.code, code);
}

export async function expect_error_v2(ws, code, text) {
  is_error_v2(await ws.next(), code, text);
}

/* One error frame, the Close frame with the same code and text, the end of TCP. */
export async function expect_fatal_v2(ws, code, text) {
  await expect_error_v2(ws, code, text);
  await expect_close(ws, code, text);
}

/* What the server had sent to this socket up to now. */
export async function flush_v2(ws) {
  ws.send({ event: 'sockudo:ping', data: {} });
  const seen = [];
  for (;;) {
    const m = await ws.next();
    if (m.event === 'sockudo:pong') return seen;
    seen.push(m);
  }
}

export async function expect_nothing_v2(ws) {
  assert.deepEqual(await flush_v2(ws), []);
}
