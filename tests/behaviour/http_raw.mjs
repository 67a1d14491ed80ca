/* http_raw.mjs - HTTP as bytes, HTTP as requests, and the signature of the Pusher API.
 *
 * Shape    rawHttp() writes any bytes on one TCP connection and reads whole responses from it;
 *          request() is an ordinary kept-alive client; api() signs and sends, with every part of
 *          the signature open to change.
 * Source   spec/pusher-v1.md 7.1; RFC 9112 for reading responses.
 */
import net from 'node:net';
import http from 'node:http';
import crypto from 'node:crypto';
import { WAIT_MS } from './ws_raw.mjs';

export const hmac = (secret, text) =>
  crypto.createHmac('sha256', secret).update(text).digest('hex');
export const md5 = (text) => crypto.createHash('md5').update(text).digest('hex');

/* The signed query of a request. `query` overrides or (with undefined) removes parameters. */
export function signedQuery(app, method, path, query = {}, body = undefined) {
  const all = {
    auth_key: app.key, auth_timestamp: String(Math.floor(Date.now() / 1000)), auth_version: '1.0',
    ...(method === 'POST' ? { body_md5: md5(body ?? '') } : {}), ...query,
  };
  for (const name of Object.keys(all)) if (all[name] === undefined) delete all[name];
  const signature = all.auth_signature;
  delete all.auth_signature;
  const pairs = Object.keys(all).sort().map((k) => [k, all[k]]);
  const text = [method, path,
    pairs.map(([k, v]) => `${k.toLowerCase()}=${v}`).join('&')].join('\n');
  pairs.push(['auth_signature', signature ?? hmac(app.secret, text)]);
  return pairs.map(([k, v]) => `${encodeURIComponent(k)}=${encodeURIComponent(v)}`).join('&');
}

const agents = new Map();
function agentFor(port) {
  if (!agents.has(port)) {
    agents.set(port, new http.Agent({ keepAlive: true, maxSockets: 64 }));
  }
  return agents.get(port);
}
/* Ends the kept-alive connections to one server. */
export function closeAgent(port) {
  agents.get(port)?.destroy();
  agents.delete(port);
}

/* One request; resolves to {status, headers, text, json}. */
export function request(port, method, path, { headers = {}, body, agent } = {}) {
  return new Promise((resolve, reject) => {
    const r = http.request({ port, host: '127.0.0.1', method, path, headers,
                             agent: agent ?? agentFor(port), timeout: WAIT_MS }, (res) => {
      const chunks = [];
      res.on('data', (c) => chunks.push(c));
      res.on('error', reject);
      res.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        let json;
        try { json = JSON.parse(text); } catch { json = undefined; }
        resolve({ status: res.statusCode, headers: res.headers, text, json });
      });
    });
    r.on('timeout', () => r.destroy(new Error(`${method} ${path}: no answer`)));
    r.on('error', reject);
    if (body !== undefined) r.write(body);
    r.end();
  });
}

/* A signed request. body: object (becomes JSON) or string (sent as it is). `sign` changes what is
 * signed or sent: query (overrides, undefined removes), secret, key, path (the path that is
 * signed), raw (a whole query string in place of the signed one). */
export function api(port, app, method, path, { body, query, headers = {}, sign = {}, agent } = {}) {
  const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  const full = `/apps/${app.id}${path}`;
  const signer = { key: sign.key ?? app.key, secret: sign.secret ?? app.secret };
  const q = sign.raw ?? signedQuery(signer, method, sign.path ?? full, { ...query, ...sign.query },
                                    text);
  const type = text === undefined ? {} : { 'Content-Type': 'application/json' };
  const length = method === 'POST' ? { 'Content-Length': Buffer.byteLength(text ?? '') } : {};
  return request(port, method, q === '' ? full : `${full}?${q}`,
                 { body: text, agent, headers: { ...type, ...length, ...headers } });
}

/* The text of a signed request for rawHttp(). */
export function signedText(app, method, path, body = undefined, headers = {}) {
  const full = `/apps/${app.id}${path}`;
  const all = { Host: '127.0.0.1',
                ...(body === undefined ? {} : { 'Content-Type': 'application/json',
                                                'Content-Length': Buffer.byteLength(body) }),
                ...headers };
  const lines = Object.entries(all).filter(([, v]) => v !== null).map(([k, v]) => `${k}: ${v}\r\n`);
  return `${method} ${full}?${signedQuery(app, method, full, {}, body)} HTTP/1.1\r\n`
    + `${lines.join('')}\r\n${body ?? ''}`;
}

/* Reads one response from the front of `bytes`: null while incomplete. `ended` lets a response
 * without a length end with the connection. */
function readResponse(bytes, ended, head_only) {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return null;
  const [line, ...fields] = bytes.subarray(0, end).toString('latin1').split('\r\n');
  const headers = {};
  for (const f of fields) {
    const colon = f.indexOf(':');
    headers[f.slice(0, colon).toLowerCase()] = f.slice(colon + 1).trim();
  }
  const status = Number(line.split(' ')[1]);
  const at = end + 4;
  if (status < 200 || status === 204 || status === 304 || head_only) {
    return { status, headers, text: '', bytes: at };
  }
  if (headers['content-length'] === undefined && !ended) return null;
  const length = Number(headers['content-length'] ?? bytes.length - at);
  if (bytes.length < at + length) return null;
  return { status, headers, text: bytes.subarray(at, at + length).toString(), bytes: at + length };
}

/* Writes `pieces` (strings or buffers, one write each) on a new connection and collects responses
 * until `count` have come or the server closes; after `pause_after` pieces the first response is
 * awaited. Resolves to {responses, closed}. */
export function rawHttp(port, pieces, { count = Infinity, head_only = false,
                                        pause_after = Infinity } = {}) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1' });
    socket.setNoDelay(true);
    const responses = [];
    let bytes = Buffer.alloc(0);
    let resume;
    const paused = new Promise((done) => { resume = done; });
    const finish = (closed) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ responses, closed });
    };
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`raw HTTP: ${responses.length} responses, then nothing: ${bytes}`));
    }, WAIT_MS);
    const scan = (ended) => {
      for (let r = readResponse(bytes, ended, head_only); r;
        r = readResponse(bytes, ended, head_only)) {
        bytes = bytes.subarray(r.bytes);
        responses.push(r);
        resume();
        if (responses.length >= count) return finish(false);
      }
      return undefined;
    };
    socket.on('data', (c) => { bytes = Buffer.concat([bytes, c]); scan(false); });
    socket.on('end', () => { scan(true); finish(true); });
    socket.on('error', () => finish(true));
    (async () => {
      for (const [i, piece] of [pieces].flat().entries()) {
        if (i === pause_after) await paused;
        if (socket.destroyed) return;
        await new Promise((done) => socket.write(piece, () => done()));
      }
    })();
  });
}
