/* api_rates.mjs - publish and read rates of an app; requests and connects per address.
 *
 * Source   spec/pusher-v1.md 7.9; spec/operations.md 5; spec/settled.md 8, 16.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, is_api_error, is_ok } from '../expect.mjs';
import { metric } from '../metrics.mjs';
import { upgradeRequest } from '../ws_raw.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('api rates', { shared: true });
const event = { name: 'ev', channel: 'c', data: 'x' };
const post = (t, app, headers = {}) => t.api(app, 'POST', '/events', { body: event, headers });

/* Calls until refused; returns how many passed and the refusal. */
async function until_refused(call, most) {
  for (let n = 0; n < most; n++) {
    const r = await call();
    if (r.status !== 200) return { passed: n, refused: r };
  }
  return assert.fail(`${most} requests passed`);
}

s.test('max_backend_events_per_second: 429 with Retry-After, then free again', async (t) => {
  const { refused } = await until_refused(() => post(t, t.apps.backend), 30);
  is_api_error(refused, 429, 'rate_limited', /./);
  assert.ok(Number(refused.headers['retry-after']) >= 1);
  is_ok(await t.api(t.apps.backend, 'GET', '/channels'));
  await eventually(async () => (await post(t, t.apps.backend)).status === 200, 'the next second');
});
s.test('a batch counts its items', async (t) => {
  await eventually(async () => {
    const r = await t.api(t.apps.backend, 'POST', '/batch_events',
      { body: { batch: [event, event] } });
    return r.status === 200;
  }, 'room for two');
  const { refused } = await until_refused(() => t.api(t.apps.backend, 'POST', '/batch_events',
    { body: { batch: [event, event, event] } }), 30);
  assert.equal(refused.status, 429);
});
s.test('max_read_requests_per_second', async (t) => {
  const { refused } = await until_refused(() => t.api(t.apps.reads, 'GET', '/channels'), 30);
  is_api_error(refused, 429, 'rate_limited', /./);
  assert.ok(Number(refused.headers['retry-after']) >= 1);
  is_ok(await post(t, t.apps.reads), { ok: true });
});
s.test('no per-address limit unless configured', async (t) => {
  for (let n = 0; n < 150; n++) is_ok(await post(t, t.apps.main));
  const r = await post(t, t.apps.main);
  assert.equal(r.headers['x-ratelimit-limit'], undefined);
});

/* ---- per address ---- */
const app = app_entry('limited');
const limited = (trust_hops) => ({
  rate_limiter: { enabled: true,
    api_rate_limit: { max_requests: 8, window_seconds: 5, trust_hops },
    websocket_rate_limit: { max_requests: 6, window_seconds: 5, trust_hops } },
  app_manager: { array: { apps: [app] } } });
const direct = suite('api address limits', { config: limited(0), parallel: 1 });
const proxied = suite('api address limits behind a proxy', { config: limited(1), parallel: 1 });

/* The windows are exact on one shard and approximate within one tick on several. */
const near = (t, n, limit) => assert.ok(n >= limit - 1 && n <= limit + (t.shards > 1 ? 4 : 0),
                                        `${n} passed, the limit is ${limit}`);

direct.test('API requests: headers, 429, the next window', async (t) => {
  const first = await post(t, app);
  is_ok(first);
  assert.equal(first.headers['x-ratelimit-limit'], '8');
  assert.equal(first.headers['x-ratelimit-remaining'], '7');
  assert.ok(Number(first.headers['x-ratelimit-reset']) <= 5);
  const { passed, refused } = await until_refused(() => post(t, app), 30);
  near(t, passed + 1, 8);
  assert.equal(refused.status, 429);
  assert.deepEqual(refused.json, { error: 'Too Many Requests',
                                   message: 'Rate limit exceeded. Please try again later.' });
  for (const name of ['x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset',
    'retry-after']) {
    assert.match(refused.headers[name] ?? '', /^\d+$/, name);
  }
  assert.equal(refused.headers['x-ratelimit-remaining'], '0');
  for (const path of ['/live', '/up', '/up/limited-id', '/usage', '/stats']) {
    assert.equal((await t.get(path)).status, 200, 'health is never limited');
  }
  assert.equal((await post(t, app, { 'X-Forwarded-For': '9.9.9.9',
    'X-Real-IP': '9.9.9.9' })).status,
               429, 'headers are not believed');
  assert.ok(await metric(t.server, 'sockudo_rate_limit_triggered_total',
                         { limiter_type: 'api_rate_limit', request_context: 'http_api' }) >= 1);
  await eventually(async () => (await post(t, app)).status === 200, 'the next window');
});

/* Connects until one is refused; returns how many passed and the refused response. */
async function connect_until_refused(t, options = {}) {
  for (let n = 0; n < 30; n++) {
    const r = upgradeRequest(`/app/${app.key}`, options);
    const { responses } = await t.raw(r.text, { count: 1 });
    if (responses[0].status !== 101) return { passed: n, refused: responses[0] };
  }
  return assert.fail('30 connects passed');
}
direct.test('WebSocket connects: 429 before the upgrade', async (t) => {
  const { passed, refused } = await connect_until_refused(t);
  near(t, passed, 6);
  assert.equal(refused.status, 429);
  assert.match(refused.headers['retry-after'], /^\d+$/);
  assert.ok(await metric(t.server, 'sockudo_rate_limit_triggered_total',
    { limiter_type: 'websocket_rate_limit', request_context: 'websocket_upgrade' }) >= 1);
  await eventually(async () => {
    const { responses } = await t.raw(upgradeRequest(`/app/${app.key}`).text, { count: 1 });
    return responses[0].status === 101;
  }, 'the next window');
});
direct.test('other source addresses have windows of their own', async (t) => {
  for (const localAddress of ['127.0.0.21', '127.0.0.22', '127.0.0.23']) {
    for (let n = 0; n < 5; n++) await t.open(app, { localAddress });
  }
});

proxied.test('the address comes from X-Forwarded-For, counted from the right', async (t) => {
  const from = (list) => post(t, app, { 'X-Forwarded-For': list });
  const { passed } = await until_refused(() => from('1.1.1.1, 5.5.5.5'), 30);
  near(t, passed, 8);
  assert.equal((await from('9.9.9.9, 5.5.5.5')).status, 429, 'what a client adds is not believed');
  is_ok(await from('5.5.5.5, 6.6.6.6'));
  is_ok(await from('5.5.5.5,2001:db8::1'));
  is_ok(await from('not an address'));
  const ws = await connect_until_refused(t, { headers: { 'X-Forwarded-For': '7.7.7.7' } });
  near(t, ws.passed, 6);
  const other = upgradeRequest(`/app/${app.key}`, { headers: { 'X-Forwarded-For': '8.8.8.8' } });
  const { responses } = await t.raw(other.text, { count: 1 });
  assert.equal(responses[0].status, 101);
});
