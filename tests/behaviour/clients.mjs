/* clients.mjs - the real clients: pusher-js, Laravel Echo, the pusher HTTP SDK; signatures for raw
 * frames; ways to wait for what a client reports.
 *
 * Source   spec/pusher-v1.md 10 (set-up of the clients) and 3.2, 5 (strings to sign).
 */
import { createRequire } from 'node:module';
import { hmac } from './http_raw.mjs';
import { WAIT_MS } from './ws_raw.mjs';

const require = createRequire(import.meta.url);
export const PusherJs = require('pusher-js');
export const Sdk = require('pusher');
export const nacl = require('tweetnacl');
export const Echo = (await import('laravel-echo')).default;

export function sdkClient(port, app, options = {}) {
  return new Sdk({ appId: app.id, key: app.key, secret: app.secret, host: '127.0.0.1', port,
                   ...options.sdk });
}

/* pusher-js against the local server. options: member (channel_data of presence channels), user
 * (user_data of signin), authorize(params, sdk) to answer the auth endpoint by hand, pusher (more
 * client options), sdk (more SDK options). */
export function pusherClient(port, app, options = {}) {
  const sdk = sdkClient(port, app, options);
  const answer = (make, callback) => {
    let value;
    try { value = make(); } catch (e) { callback(e, null); return; }
    callback(null, value);
  };
  return new PusherJs(options.key ?? app.key, {
    cluster: '', wsHost: '127.0.0.1', wsPort: port, forceTLS: false, enabledTransports: ['ws'],
    enableStats: false, nacl,
    channelAuthorization: { customHandler: (params, callback) => answer(() => {
      if (options.authorize) return options.authorize(params, sdk);
      const member = params.channelName.startsWith('presence-') ? options.member : undefined;
      return sdk.authorizeChannel(params.socketId, params.channelName, member);
    }, callback) },
    userAuthentication: { customHandler: (params, callback) => answer(() => {
      if (options.authenticate) return options.authenticate(params, sdk);
      return sdk.authenticateUser(params.socketId, options.user);
    }, callback) },
    ...options.pusher,
  });
}

/* The data of the next `event` of a pusher-js emitter for which `match` holds. Call it before
 * causing the event. A wait that nobody reads any more stays quiet when it runs out. */
export function heard(emitter, event, match = () => true, wait_ms = WAIT_MS) {
  const promise = new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      emitter.unbind(event, on);
      reject(new Error(`${event} was not heard within ${wait_ms} ms`));
    }, wait_ms);
    function on(data, metadata) {
      if (!match(data, metadata)) return;
      clearTimeout(timer);
      emitter.unbind(event, on);
      resolve(data);
    }
    emitter.bind(event, on);
  });
  promise.catch(() => {});
  return promise;
}

export async function connected(p) {
  if (p.connection.state !== 'connected') await heard(p.connection, 'connected');
  return p;
}

/* Every event of an emitter, kept in order: [{event, data, metadata}]. */
export function record(emitter, events) {
  const list = [];
  for (const event of events) {
    emitter.bind(event, (data, metadata) => list.push({ event, data, metadata }));
  }
  return list;
}

/* Subscribes and waits for the success. */
export async function subscribed(p, channel) {
  const c = p.subscribe(channel);
  if (!c.subscribed) {
    await Promise.race([
      heard(c, 'pusher:subscription_succeeded'),
      heard(c, 'pusher:subscription_error').then((e) => {
        throw new Error(`subscription_error on ${channel}: ${JSON.stringify(e)}`);
      }),
    ]);
  }
  return c;
}

/* ---- signatures for raw frames ---- */

export function channel_auth(app, socket_id, channel, channel_data) {
  const text = channel_data === undefined ? `${socket_id}:${channel}`
    : `${socket_id}:${channel}:${channel_data}`;
  return `${app.key}:${hmac(app.secret, text)}`;
}
export function user_auth(app, socket_id, user_data) {
  return `${app.key}:${hmac(app.secret, `${socket_id}::user::${user_data}`)}`;
}

/* Subscribe frames as pusher-js writes them. member: object (JSON-encoded) or string (as it is). */
export function subscribe_frame(ws, channel, member) {
  const signed = /^(private|presence)-/.test(channel);
  const channel_data = member === undefined || typeof member === 'string' ? member
    : JSON.stringify(member);
  const auth = signed ? channel_auth(ws.app, ws.socket_id, channel, channel_data) : '';
  return { event: 'pusher:subscribe',
           data: { auth, ...(channel_data === undefined ? {} : { channel_data }), channel } };
}

/* Subscribes a raw socket and returns the decoded data of the success, which must be the next
 * message about that channel. */
export async function join(ws, channel, member) {
  ws.send(subscribe_frame(ws, channel, member));
  for (;;) {
    const m = await ws.next();
    if (m.event === 'pusher_internal:subscription_succeeded' && m.channel === channel) {
      if (typeof m.data !== 'string') throw new Error('success data is not string-encoded');
      return JSON.parse(m.data);
    }
    if (m.channel === channel || m.event === 'pusher:error') {
      throw new Error(`instead of the success of ${channel}: ${JSON.stringify(m)}`);
    }
  }
}

/* Joins the same public channel on several sockets. */
export async function join_all(sockets, channel) {
  await Promise.all(sockets.map((ws) => join(ws, channel)));
}

export async function sign_in(ws, user) {
  const user_data = typeof user === 'string' ? user : JSON.stringify(user);
  ws.send({ event: 'pusher:signin',
            data: { auth: user_auth(ws.app, ws.socket_id, user_data), user_data } });
  const m = await ws.until('pusher:signin_success');
  const data = typeof m.data === 'string' ? JSON.parse(m.data) : m.data;
  if (data.user_data !== user_data) throw new Error(`signin_success: ${JSON.stringify(m)}`);
  return m;
}

export function leave(ws, channel) {
  ws.send({ event: 'pusher:unsubscribe', data: { channel } });
}

/* Subscribes a raw socket to its own user channel, as pusher-js does after the sign-in. */
export const user_channel = (id) => `#server-to-user-${id}`;
