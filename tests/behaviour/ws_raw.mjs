/* ws_raw.mjs - a WebSocket client made of a TCP socket, so that anything can be sent.
 *
 * Shape    frame() builds client frames, valid or not. WsRaw.connect() upgrades and then yields
 *          what the server sends, one item at a time and in order: text, ping, pong, close,
 *          end, reset.
 * Checks   Every server frame must be unmasked, unfragmented, minimal in length and without
 *          reserved bits; anything else fails the test that reads it.
 * Bounds   Each wait has a limit; what was seen until then is in the error.
 * Source   RFC 6455; spec/pusher-v1.md for the JSON helpers.
 */
import net from 'node:net';
import crypto from 'node:crypto';

export const WAIT_MS = Number(process.env.WEFT_TEST_WAIT_MS ?? 10000);
export const OP = { CONT: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 };

/* One client frame. Options: fin, rsv (0-7), mask (false leaves it out), length (the length field
 * to write), wide (2 or 8: bytes of a longer length field than needed). */
export function frame(opcode, payload = '', options = {}) {
  const body = Buffer.from(payload);
  const { fin = true, rsv = 0, mask = true, length = body.length, wide = 0 } = options;
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  let head;
  if (wide === 8 || (wide === 0 && length > 65535)) {
    head = Buffer.alloc(10);
    head[1] = 127;
    head.writeBigUInt64BE(BigInt(length), 2);
  } else if (wide === 2 || length > 125) {
    head = Buffer.alloc(4);
    head[1] = 126;
    head.writeUInt16BE(length, 2);
  } else {
    head = Buffer.from([0, length]);
  }
  head[0] = first;
  if (!mask) return Buffer.concat([head, body]);
  head[1] |= 0x80;
  const key = crypto.randomBytes(4);
  const masked = Buffer.alloc(body.length);
  for (let i = 0; i < body.length; i++) masked[i] = body[i] ^ key[i & 3];
  return Buffer.concat([head, key, masked]);
}

export function closeFrame(code, reason = '') {
  if (code === undefined) return frame(OP.CLOSE);
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return frame(OP.CLOSE, Buffer.concat([head, Buffer.from(reason)]));
}

/* Reads one server frame from `bytes`; null while incomplete. */
function readFrame(bytes) {
  if (bytes.length < 2) return null;
  const fault = (text) => { throw new Error(`server frame: ${text}`); };
  if (bytes[0] & 0x70) fault('reserved bits are set');
  if (bytes[1] & 0x80) fault('it is masked');
  if (!(bytes[0] & 0x80)) fault('it is fragmented');
  let length = bytes[1] & 0x7f;
  let at = 2;
  if (length === 126) {
    if (bytes.length < 4) return null;
    length = bytes.readUInt16BE(2);
    at = 4;
    if (length < 126) fault('length is not minimal');
  } else if (length === 127) {
    if (bytes.length < 10) return null;
    length = Number(bytes.readBigUInt64BE(2));
    at = 10;
    if (length < 65536) fault('length is not minimal');
  }
  const opcode = bytes[0] & 15;
  if (opcode >= 8 && length > 125) fault('control frame is too long');
  if (bytes.length < at + length) return null;
  return { opcode, payload: bytes.subarray(at, at + length), bytes: at + length };
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

function itemOf({ opcode, payload }) {
  switch (opcode) {
    case OP.TEXT: return { kind: 'text', text: utf8.decode(payload) };
    case OP.PING: return { kind: 'ping', payload: Buffer.from(payload) };
    case OP.PONG: return { kind: 'pong', payload: Buffer.from(payload) };
    case OP.CLOSE: {
      const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      return { kind: 'close', code, reason: utf8.decode(payload.subarray(2)) };
    }
    default: throw new Error(`server frame: opcode ${opcode}`);
  }
}

export function upgradeRequest(path, { host = '127.0.0.1', headers = {}, key } = {}) {
  const all = {
    Host: host, Upgrade: 'websocket', Connection: 'Upgrade', 'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': key ?? crypto.randomBytes(16).toString('base64'), ...headers,
  };
  const lines = Object.entries(all).filter(([, v]) => v !== null).map(([k, v]) => `${k}: ${v}`);
  return { text: `GET ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`,
           key: all['Sec-WebSocket-Key'] };
}

export function acceptFor(key) {
  return crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    .digest('base64');
}

export class WsRaw {
  #items = [];
  #waiter = null;
  #rest = Buffer.alloc(0);
  #fault = null;

  /* Opens TCP, upgrades and returns once the 101 has come. `early` bytes follow the request in the
   * same write. half_open: the server's end of TCP is not answered with ours. */
  static async connect(port, path, options = {}) {
    const ws = new WsRaw();
    const socket = net.connect({ port, host: '127.0.0.1', localAddress: options.localAddress,
                                 allowHalfOpen: options.half_open ?? false });
    socket.setNoDelay(true);
    ws.socket = socket;
    ws.recent = [];
    ws.autoClose = options.autoClose ?? true;
    const request = upgradeRequest(path, options);
    const head = await ws.#upgrade(request, options.early);
    ws.status = head.status;
    ws.headers = head.headers;
    if (head.status !== 101) {
      socket.destroy();
      throw Object.assign(new Error(`upgrade refused: ${head.status} ${head.body}`), head);
    }
    if (head.headers['sec-websocket-accept'] !== acceptFor(request.key)) {
      throw new Error('Sec-WebSocket-Accept is wrong');
    }
    return ws;
  }

  #upgrade(request, early) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.socket.destroy();
        reject(new Error('no answer to the upgrade'));
      }, WAIT_MS);
      let bytes = Buffer.alloc(0);
      const done = (fn, value) => { clearTimeout(timer); fn(value); };
      this.socket.on('error', (e) => { this.#push({ kind: 'reset', error: e.code });
                                       done(reject, e); });
      this.socket.on('end', () => { this.#push({ kind: 'end' });
                                    done(reject, new Error('closed during the upgrade')); });
      this.socket.on('close', () => this.#push({ kind: 'gone' }));
      const onHead = (chunk) => {
        bytes = Buffer.concat([bytes, chunk]);
        const end = bytes.indexOf('\r\n\r\n');
        if (end < 0) return;
        const [line, ...fields] = bytes.subarray(0, end).toString('latin1').split('\r\n');
        const headers = Object.fromEntries(fields.map((f) => {
          const colon = f.indexOf(':');
          return [f.slice(0, colon).toLowerCase(), f.slice(colon + 1).trim()];
        }));
        const rest = bytes.subarray(end + 4);
        const status = Number(line.split(' ')[1]);
        this.socket.off('data', onHead);
        this.socket.on('data', (c) => this.#data(c));
        if (status === 101) this.#data(rest);
        done(resolve, { status, headers, body: rest.toString() });
      };
      this.socket.on('data', onHead);
      const text = Buffer.from(request.text);
      this.socket.write(early ? Buffer.concat([text, early]) : text);
    });
  }

  #data(chunk) {
    this.#rest = this.#rest.length ? Buffer.concat([this.#rest, chunk]) : chunk;
    try {
      for (let f = readFrame(this.#rest); f; f = readFrame(this.#rest)) {
        const item = itemOf(f);
        this.#rest = this.#rest.subarray(f.bytes);
        if (item.kind === 'close' && this.autoClose && !this.closeSent) this.close(item.code);
        this.#push(item);
      }
    } catch (e) {
      this.#fault = e;
      this.socket.destroy();
    }
  }

  #push(item) {
    this.#items.push(item);
    if (this.#waiter) this.#waiter();
  }

  /* The next item of any kind. */
  async take(wait_ms = WAIT_MS) {
    if (this.#items.length === 0 && !this.#fault) {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(
          `nothing came within ${wait_ms} ms; last: ${this.recent.join(' | ') || 'nothing'}`)),
        wait_ms);
        this.#waiter = () => { clearTimeout(timer); resolve(); };
      }).finally(() => { this.#waiter = null; });
    }
    if (this.#items.length === 0) throw this.#fault;
    const item = this.#items.shift();
    this.recent.push(item.text?.slice(0, 160) ?? `${item.kind} ${item.code ?? ''}`);
    if (this.recent.length > 5) this.recent.shift();
    return item;
  }

  /* Items that are already here, without waiting. */
  pending() { return this.#items.length; }

  write(bytes) { this.socket.write(bytes); }
  text(text, options) { this.write(frame(OP.TEXT, text, options)); }
  send(message) { this.text(JSON.stringify(message)); }
  close(code, reason) { this.closeSent = true; this.write(closeFrame(code, reason)); }
  destroy() { this.socket.destroy(); }
  /* A reset instead of an orderly end: what a killed process or a lost host looks like. */
  reset() { this.socket.resetAndDestroy(); }

  /* Sends `bytes` in pieces, each write waiting for the one before. sizes() gives the next size. */
  async dribble(bytes, sizes) {
    for (let at = 0; at < bytes.length;) {
      const size = Math.max(1, sizes(at, bytes.length));
      const piece = bytes.subarray(at, at + size);
      at += piece.length;
      if (this.socket.destroyed) return;
      await new Promise((resolve) => this.socket.write(piece, () => resolve()));
    }
  }

  /* The next text message, parsed. */
  async next(wait_ms) {
    const item = await this.take(wait_ms);
    if (item.kind !== 'text') {
      throw new Error(`expected a message, got ${item.kind} ${item.code ?? ''} `
        + `${item.reason ?? ''}; last: ${this.recent.join(' | ')}`);
    }
    return JSON.parse(item.text);
  }

  /* Skips to the next message called `event` for which `match` holds. */
  async until(event, match = () => true, wait_ms = WAIT_MS) {
    for (;;) {
      const m = await this.next(wait_ms);
      if (m.event === event && match(m)) return m;
    }
  }

  /* The end of TCP, however it came; messages before it are skipped. */
  async gone(wait_ms) {
    for (;;) {
      const item = await this.take(wait_ms);
      if (item.kind === 'end' || item.kind === 'reset' || item.kind === 'gone') return item.kind;
    }
  }

  /* Everything that the server had sent to this socket up to now: asks with a protocol ping and
   * returns the messages in front of the pong. */
  async flush() {
    this.send({ event: 'pusher:ping', data: {} });
    const seen = [];
    for (;;) {
      const m = await this.next();
      if (m.event === 'pusher:pong') return seen;
      seen.push(m);
    }
  }
}
