/* api_http.mjs - HTTP itself: health, CORS, unknown paths, kept-alive and pipelined requests,
 * chunked bodies, limits, and requests that two readers could read differently.
 *
 * Source   RFC 9112; spec/pusher-v1.md 7.2, 7.6, 7.7; spec/operations.md 3, 8; spec/settled.md 19.
 */
import net from 'node:net';
import { suite } from '../runner.mjs';
import { assert, expect_nothing } from '../expect.mjs';
import { request, signedQuery, signedText } from '../http_raw.mjs';
import { join } from '../clients.mjs';
import { apps } from '../apps.mjs';
import { metric } from '../metrics.mjs';
import { WAIT_MS } from '../ws_raw.mjs';

const s = suite('api http', { shared: true });
const LIVE = 'GET /live HTTP/1.1\r\nHost: a\r\n\r\n';
const event = (channel, data = 'x') => JSON.stringify({ name: 'ev', channel, data });

/* ---- health ---- */
s.test('/live: 200 without a body', async (t) => {
  const r = await t.get('/live');
  assert.equal(r.status, 200);
  assert.equal(r.text, '');
});
for (const [path, status, word] of [['/up', 200, 'OK'], ['/up/main-id', 200, 'OK'],
                                    ['/up/nobody', 404, 'NOT_FOUND'],
                                    ['/up/disabled-id', 503, 'ERROR']]) {
  s.test(`${path}: ${status} ${word}`, async (t) => {
    const r = await t.get(path);
    assert.equal(r.status, status);
    assert.equal(r.text, word);
    assert.equal(r.headers['x-health-check'], word);
  });
}
s.test('/usage: memory of the host', async (t) => {
  const { memory } = (await t.get('/usage')).json;
  assert.ok(memory.total > 1e8 && memory.free > 0 && memory.used > 0);
  assert.ok(memory.percent > 0 && memory.percent <= 100);
});
s.test('/stats: totals and one entry per app', async (t) => {
  const app = t.apps.other;
  const [a, b] = [await t.open(app), await t.open(app)];
  await join(a, t.name());
  await join(b, t.name('presence-'), { user_id: 'u' });
  for (const path of ['/stats', '/operator/stats']) {
    const { memory, totals, apps: list } = (await t.get(path)).json;
    assert.ok(memory.total > 1e8);
    assert.ok(totals.apps >= 1 && totals.connections >= 2);
    assert.deepEqual(list.map((x) => x.app_id), list.map((x) => x.app_id).sort());
    const own = list.find((x) => x.app_id === app.id);
    assert.ok(own.connections >= 2);
    assert.ok(own.occupancy.channels >= 2 && own.occupancy.subscriptions >= 2);
    assert.ok(own.occupancy.presence_channels >= 1 && own.occupancy.presence_members >= 1);
  }
});
for (const path of ['/', '/nothing', '/apps', '/apps/main-id', '/apps/main-id/nothing', '/upp',
                    '/live/x', '/metrics', '/app']) {
  s.test(`${path}: 404 or, under /apps, 401 first`, async (t) => {
    const r = await t.get(path);
    if (path.startsWith('/apps/')) return assert.ok([400, 401, 404].includes(r.status), r.text);
    assert.equal(r.status, 404);
    assert.equal(r.text, '404 NOT FOUND');
    return assert.match(r.headers['content-type'], /^text\/plain/);
  });
}
s.test('a signed unknown path: 404', async (t) => {
  assert.equal((await t.api(t.apps.main, 'GET', '/nothing')).status, 404);
});
for (const path of ['/live', '/up', '/stats']) {
  s.test(`POST ${path}: 405`, async (t) => {
    const r = await request(t.port, 'POST', path, { headers: { 'Content-Length': 0 } });
    assert.equal(r.status, 405);
  });
  s.test(`HEAD ${path} is GET without a body`, async (t) => {
    const { responses } = await t.raw(`HEAD ${path} HTTP/1.1\r\nHost: a\r\n\r\n`,
                                      { count: 1, head_only: true });
    assert.equal(responses[0].status, 200);
  });
}

/* ---- CORS ---- */
s.test('any origin by default', async (t) => {
  for (const path of ['/live', '/up', '/nothing', '/apps/main-id/channels']) {
    const r = await t.get(path, { headers: { Origin: 'https://app.test' } });
    assert.equal(r.headers['access-control-allow-origin'], '*', path);
    assert.equal(r.headers['access-control-allow-credentials'], undefined);
  }
});
s.test('OPTIONS: 200, empty, with methods and headers', async (t) => {
  for (const path of ['/apps/main-id/events', '/live', '/nothing']) {
    const r = await request(t.port, 'OPTIONS', path, { headers: {
      'Origin': 'https://app.test', 'Access-Control-Request-Method': 'POST' } });
    assert.equal(r.status, 200);
    assert.equal(r.text, '');
    assert.equal(r.headers['access-control-allow-origin'], '*');
    for (const m of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      assert.match(r.headers['access-control-allow-methods'], new RegExp(`\\b${m}\\b`));
    }
    for (const h of ['authorization', 'content-type', 'x-requested-with', 'accept',
                     'x-idempotency-key']) {
      assert.match(r.headers['access-control-allow-headers'].toLowerCase(), new RegExp(h));
    }
  }
});

/* ---- the connection ---- */
s.test('kept alive over many requests', async (t) => {
  const { responses, closed } = await t.raw(Array(20).fill(LIVE), { count: 20 });
  assert.deepEqual(responses.map((r) => r.status), Array(20).fill(200));
  assert.equal(closed, false);
});
s.test('pipelined requests are answered in order', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  const texts = Array.from({ length: 30 }, (_, n) => (n % 3 === 2 ? LIVE
    : signedText(t.apps.main, 'POST', '/events', event(channel, String(n)))));
  const { responses } = await t.raw(texts.join(''), { count: 30 });
  assert.deepEqual(responses.map((r) => [r.status, r.text]),
                   texts.map((_, n) => [200, n % 3 === 2 ? '' : '{"ok":true}']));
  for (let n = 0; n < 30; n++) if (n % 3 !== 2) assert.equal((await ws.next()).data, String(n));
});
s.test('a request in single bytes', async (t) => {
  const text = signedText(t.apps.main, 'POST', '/events', event(t.name()));
  const { responses } = await t.raw([...text], { count: 1 });
  assert.equal(responses[0].text, '{"ok":true}');
});
s.test('Connection: close and HTTP/1.0 end the connection after the answer', async (t) => {
  for (const text of ['GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
                      'GET /live HTTP/1.0\r\n\r\n']) {
    const { responses, closed } = await t.raw(text);
    assert.deepEqual(responses.map((r) => r.status), [200]);
    assert.ok(closed);
  }
});
s.test('empty lines in front of a request', async (t) => {
  const { responses } = await t.raw(`\r\n\r\n${LIVE}`, { count: 1 });
  assert.equal(responses[0].status, 200);
});

/* Signed POST with a chunked body. */
function chunked(body, sizes, trailer = '') {
  const q = signedQuery(apps.main, 'POST', '/apps/main-id/events', {}, body);
  let text = `POST /apps/main-id/events?${q} HTTP/1.1\r\nHost: a\r\n`
    + 'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n';
  for (let at = 0, i = 0; at < body.length; i++) {
    const size = Math.min(sizes[i % sizes.length], body.length - at);
    text += `${size.toString(16)}${i % 2 ? ';ext=1' : ''}\r\n${body.slice(at, at + size)}\r\n`;
    at += size;
  }
  return `${text}0\r\n${trailer}\r\n`;
}
for (const sizes of [[1], [1000], [3, 7, 1], [16]]) {
  s.test(`a chunked body in pieces of ${sizes}`, async (t) => {
    const body = event(t.name(), 'y'.repeat(500));
    const text = chunked(body, sizes, 'X-Trailer: 1\r\n');
    for (const pieces of [text, [...text]]) {
      const { responses } = await t.raw(pieces, { count: 1 });
      assert.equal(responses[0].text, '{"ok":true}');
    }
    const two = await t.raw(text + text + LIVE, { count: 3 });
    assert.deepEqual(two.responses.map((r) => r.status), [200, 200, 200]);
  });
}
s.test('Expect: 100-continue', async (t) => {
  const body = event(t.name());
  const text = signedText(t.apps.main, 'POST', '/events', body, { Expect: '100-continue' });
  const whole = await t.raw(text, { count: 1 });
  assert.ok([100, 200].includes(whole.responses[0].status));
  const head = text.slice(0, -body.length);
  const { responses } = await t.raw([head, body], { count: 2, pause_after: 1 });
  assert.deepEqual(responses.map((r) => r.status), [100, 200]);
});

const H = 'Host: a\r\n';
const broken = {
  'no host': ['GET /live HTTP/1.1\r\n\r\n', 400],
  'two hosts': [`GET /live HTTP/1.1\r\n${H}${H}\r\n`, 400],
  'Content-Length and chunked':
    [`POST /live HTTP/1.1\r\n${H}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      400],
  'two different Content-Lengths':
    [`POST /live HTTP/1.1\r\n${H}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`, 400],
  'a Content-Length list': [`POST /live HTTP/1.1\r\n${H}Content-Length: 3, 3\r\n\r\nabc`, 400],
  'a signed Content-Length': [`POST /live HTTP/1.1\r\n${H}Content-Length: +3\r\n\r\nabc`, 400],
  'a negative Content-Length': [`POST /live HTTP/1.1\r\n${H}Content-Length: -1\r\n\r\n`, 400],
  'a hexadecimal Content-Length': [`POST /live HTTP/1.1\r\n${H}Content-Length: 0x3\r\n\r\nabc`,
    400],
  'another transfer coding': [`POST /live HTTP/1.1\r\n${H}Transfer-Encoding: gzip, chunked\r\n\r\n`,
    501],
  'chunked twice': [`POST /live HTTP/1.1\r\n${H}Transfer-Encoding: chunked, chunked\r\n\r\n`, 501],
  'chunked in 1.0': ['POST /live HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400],
  'white space before the colon': [`GET /live HTTP/1.1\r\n${H}X-A : 1\r\n\r\n`, 400],
  'a folded line': [`GET /live HTTP/1.1\r\n${H}X-A: 1\r\n folded\r\n\r\n`, 400],
  'a bare line feed': ['GET /live HTTP/1.1\nHost: a\n\n', 400],
  'a bare carriage return': [`GET /live HTTP/1.1\r\n${H}X-A: 1\r2\r\n\r\n`, 400],
  'a NUL in a header': [`GET /live HTTP/1.1\r\n${H}X-A: \0\r\n\r\n`, 400],
  'a header without a name': [`GET /live HTTP/1.1\r\n${H}: x\r\n\r\n`, 400],
  'no version': [`GET /live\r\n${H}\r\n`, 400],
  'version 2.0': [`GET /live HTTP/2.0\r\n${H}\r\n`, 505],
  'two spaces in the request line': [`GET  /live HTTP/1.1\r\n${H}\r\n`, 400],
  'an absolute target': [`GET http://a/live HTTP/1.1\r\n${H}\r\n`, 400],
  'a control byte in the target': [`GET /li\x01ve HTTP/1.1\r\n${H}\r\n`, 400],
  'no HTTP at all': ['\x16\x03\x01\x02\x00\x01\x00\r\n\r\n', 400],
  'a long request line': [`GET /${'a'.repeat(9000)} HTTP/1.1\r\n${H}\r\n`, 414],
  'a long header': [`GET /live HTTP/1.1\r\n${H}X-A: ${'a'.repeat(20000)}\r\n\r\n`, 431],
  'many headers': [`GET /live HTTP/1.1\r\n${H}${'X-A: 1\r\n'.repeat(200)}\r\n`, 431],
  'a body of 11 MB, refused by its header':
    [`POST /apps/main-id/events HTTP/1.1\r\n${H}Content-Length: 11534336\r\n\r\n`, 413],
};
for (const [what, [text, status]] of Object.entries(broken)) {
  for (const bytewise of [false, true]) {
    s.test(`${what}: ${status}, then the connection ends${bytewise ? ' (bytewise)' : ''}`,
           async (t) => {
      const { responses, closed } = await t.raw(bytewise && text.length < 500 ? [...text] : text);
      assert.deepEqual(responses.map((r) => r.status), [status]);
      assert.ok(closed);
    });
  }
}
const chunk_faults = ['zz\r\n', '5;\r\nabc\r\n0\r\n\r\n', '3\r\nabcd\r\n0\r\n\r\n', '-3\r\nabc\r\n',
                      'ffffffffffffffffff\r\n', '3\nabc\n0\n\n', ' 3\r\nabc\r\n'];
for (const fault of chunk_faults) {
  s.test(`chunked body ${JSON.stringify(fault)}: 400`, async (t) => {
    const { responses } = await t.raw('POST /apps/main-id/events HTTP/1.1\r\nHost: a\r\n'
      + `Transfer-Encoding: chunked\r\n\r\n${fault}${fault}`);
    assert.ok([400, 413].includes(responses[0].status), String(responses[0].status));
  });
}
s.test('a chunked body over the limit: 413', async (t) => {
  const piece = `${(65536).toString(16)}\r\n${'x'.repeat(65536)}\r\n`;
  const { responses } = await t.raw(['POST /apps/main-id/events HTTP/1.1\r\nHost: a\r\n'
    + 'Transfer-Encoding: chunked\r\n\r\n', ...Array(170).fill(piece)], { count: 1 });
  assert.equal(responses[0]?.status, 413);
});
s.test('a smuggled request in a body stays a body', async (t) => {
  const channel = t.name();
  const ws = await t.open();
  await join(ws, channel);
  const inner = signedText(t.apps.main, 'POST', '/events', event(channel));
  const outer = `POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: ${inner.length}\r\n\r\n${inner}`;
  const { responses } = await t.raw(outer + LIVE, { count: 2 });
  assert.deepEqual(responses.map((r) => r.status), [405, 200]);
  await expect_nothing(ws);
});
s.test('clients that leave in the middle of a request', async (t) => {
  const text = signedText(t.apps.main, 'POST', '/events', event(t.name()));
  for (let cut = 1; cut < text.length; cut += 7) {
    await new Promise((resolve, reject) => {
      const socket = net.connect(t.port, '127.0.0.1', () => {
        socket.write(text.slice(0, cut), () => {
          if (cut % 2) socket.resetAndDestroy();
          else socket.destroy();
        });
      });
      socket.on('error', reject);
      socket.on('close', resolve);
    });
  }
  assert.equal((await t.get('/live')).status, 200);
});

/* ---- settings of HTTP ---- */
const own = suite('api http settings', { config: {
  http_api: { usage_enabled: false, request_limit_in_mb: 1, keepalive_timeout_ms: 2000 },
  limits: { handshake_timeout_ms: 1500, request_timeout_ms: 3000 },
  cors: { origin: ['https://app.test', '*.wild.test'], methods: ['GET', 'POST'],
          allowed_headers: ['Content-Type'], credentials: true },
  app_manager: { array: { apps: [apps.main] } } } });
own.test('usage_enabled false hides /usage and /stats', async (t) => {
  for (const path of ['/usage', '/stats', '/operator/stats']) {
    assert.equal((await t.get(path)).status, 404);
  }
});
own.test('request_limit_in_mb', async (t) => {
  const fits = await t.raw(signedText(t.apps.main, 'POST', '/events',
    event('c', 'x'.repeat(102000))),
                           { count: 1 });
  assert.equal(fits.responses[0].status, 200);
  const { responses } = await t.raw('POST /apps/main-id/events HTTP/1.1\r\nHost: a\r\n'
    + 'Content-Length: 1048577\r\n\r\n');
  assert.equal(responses[0].status, 413);
});
own.test('explicit CORS origins', async (t) => {
  for (const origin of ['https://app.test', 'http://x.wild.test']) {
    const r = await t.get('/up', { headers: { Origin: origin } });
    assert.equal(r.headers['access-control-allow-origin'], origin);
    assert.equal(r.headers['access-control-allow-credentials'], 'true');
    assert.match(r.headers.vary ?? '', /origin/i);
  }
  const bad = await t.get('/up', { headers: { Origin: 'https://evil.test' } });
  assert.equal(bad.headers['access-control-allow-origin'], undefined);
  const options = await request(t.port, 'OPTIONS', '/up',
    { headers: { Origin: 'https://app.test' } });
  assert.match(options.headers['access-control-allow-methods'], /GET.*POST/);
  assert.doesNotMatch(options.headers['access-control-allow-methods'], /DELETE/);
});
own.test('an unfinished request is given up', async (t) => {
  for (const text of ['GET /li', 'POST /apps/main-id/events HTTP/1.1\r\nHost: a\r\n'
    + 'Content-Length: 50\r\n\r\n{"na']) {
    const { responses, closed } = await t.raw(text);
    assert.ok(closed);
    for (const r of responses) assert.equal(r.status, 408);
  }
});
/* What the server says to a request whose body never ends, though it never pauses. */
function trickle(port, head, piece) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    let text = '';
    const each = setInterval(() => socket.write(piece), 50);
    const late = setTimeout(() => socket.destroy(new Error(`it goes on: ${text}`)), WAIT_MS);
    socket.on('data', (bytes) => { text += bytes; });
    socket.on('end', () => socket.destroy());
    socket.on('error', reject);
    socket.on('close', () => { clearInterval(each); clearTimeout(late); resolve(text); });
    socket.write(head);
  });
}
for (const [what, length, piece] of [['of a known length', 'Content-Length: 100000', 'x'],
                                     ['in chunks', 'Transfer-Encoding: chunked', '1\r\nx\r\n']]) {
  own.test(`a body ${what} that trickles is given up`, async (t) => {
    const post = `POST /apps/main-id/events HTTP/1.1\r\nHost: a\r\n${length}\r\n\r\n`;
    const hits = () => metric(t.server, 'sockudo_limit_hits_total', { limit: 'request_time' });
    const before = await hits();
    for (const head of [post, LIVE + post]) {
      const answers = (await trickle(t.port, head, piece)).match(/HTTP\/1.1 \d+/g);
      assert.deepEqual(answers, [...(head === post ? [] : ['HTTP/1.1 200']), 'HTTP/1.1 408']);
    }
    assert.ok(await hits() >= before + 2);
  });
}
own.test('an idle kept-alive connection is closed', async (t) => {
  const { responses, closed } = await t.raw(LIVE);
  assert.equal(responses.length, 1);
  assert.ok(closed);
});
own.test('a connection that never says anything is closed', async (t) => {
  const { responses, closed } = await t.raw('');
  assert.ok(closed);
  for (const r of responses) assert.equal(r.status, 408);
  /* a connection of its own: kept-alive ones end at about this time */
  assert.equal((await t.get('/live', { agent: false })).status, 200, 'the server goes on');
});
