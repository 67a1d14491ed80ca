/* metrics.mjs - /metrics parses, every series is there from the start, and the numbers move.
 *
 * Source   spec/operations.md 1.1 to 1.6; spec/settled.md 22.
 */
import { suite } from '../runner.mjs';
import { assert, eventually, expect_error } from '../expect.mjs';
import { metric, scrape, value } from '../metrics.mjs';
import { join, leave } from '../clients.mjs';
import { request } from '../http_raw.mjs';
import { app_entry } from '../apps.mjs';

const features = { enable_client_messages: true, enable_user_authentication: true };
const one = app_entry('one', { features, limits: { max_client_events_per_second: 1,
                                                   decay_seconds: 60 } });
const two = app_entry('two', { features, channels: { allowed_origins: ['none.test'] } });
const idle = app_entry('idle');
const config = { app_manager: { array: { apps: [one, two, idle] } } };
const s = suite('metrics', { config, parallel: 1 });

const CHANNEL_TYPES = ['public', 'private', 'presence', 'private_encrypted', 'cache'];
const ERRORS = ['app_not_found', 'app_disabled', 'origin_not_allowed', 'authentication_failed',
                'authentication_error', 'invalid_message_format', 'missing_event_name'];
const per_app = ['connected', 'new_connections_total', 'new_disconnections_total',
                 'socket_received_bytes', 'socket_transmitted_bytes', 'ws_messages_received_total',
                 'ws_messages_sent_total', 'http_received_bytes', 'http_transmitted_bytes',
                 'http_calls_received_total', 'idempotency_publish_total',
                 'idempotency_duplicates_total'];
const per_type = ['channel_subscriptions_total', 'channel_unsubscriptions_total',
  'active_channels'];
const process_wide = ['process_resident_memory_bytes', 'process_virtual_memory_bytes',
                      'process_cpu_seconds_total', 'process_start_time_seconds', 'process_open_fds',
                      'process_max_fds'];
const runtime = ['tokio_workers_count', 'tokio_active_tasks', 'tokio_injection_queue_depth',
                 'tokio_worker_local_queue_depth', 'tokio_worker_busy_ratio',
                 'tokio_worker_mean_poll_duration_us', 'tokio_budget_forced_yield_count'];

s.test('every series is there from the start, at zero, for every app', async (t) => {
  const server = await t.start({ config });
  const m = await scrape(server);
  const port = String(server.metrics_port);
  const zero = (name, labels) => assert.equal(value(m, `sockudo_${name}`, labels), 0,
                                              `${name} ${JSON.stringify(labels)}`);
  for (const app_id of [one.id, two.id, idle.id]) {
    for (const name of per_app) zero(name, { app_id, port });
    for (const name of per_type) {
      for (const channel_type of CHANNEL_TYPES) zero(name, { app_id, port, channel_type });
    }
    for (const error_type of ERRORS) zero('connection_errors_total', { app_id, port, error_type });
    for (const limiter_type of ['messages', 'client_events']) {
      for (const name of ['rate_limit_checks_total', 'rate_limit_triggered_total']) {
        zero(name, { app_id, port, limiter_type, request_context: 'unknown' });
      }
    }
    zero('broadcast_latency_ms_count', { app_id, port });
    zero('slow_consumer_disconnects_total', { app_id });
  }
  for (const name of ['rate_limit_checks_total', 'rate_limit_triggered_total']) {
    zero(name, { app_id: 'global', limiter_type: 'api_rate_limit', request_context: 'http_api' });
    zero(name, { app_id: 'global', limiter_type: 'websocket_rate_limit',
                 request_context: 'websocket_upgrade' });
  }
  zero('connection_errors_total', { app_id: 'unknown', error_type: 'app_not_found' });
  for (const name of process_wide) assert.ok(value(m, name) > 0, name);
  for (const name of runtime) assert.ok(value(m, `sockudo_${name}`) >= 0, name);
  assert.equal(value(m, 'sockudo_tokio_workers_count'), t.shards);
});

s.test('types and buckets are as documented', async (t) => {
  const { series, types } = await scrape(t.server);
  const expected = { process_resident_memory_bytes: 'gauge', sockudo_connected: 'gauge',
                     sockudo_new_connections_total: 'counter', sockudo_active_channels: 'gauge',
                     sockudo_socket_received_bytes: 'counter',
                     sockudo_broadcast_latency_ms: 'histogram',
                     sockudo_rate_limit_triggered_total: 'counter' };
  for (const [name, type] of Object.entries(expected)) assert.equal(types.get(name), type, name);
  const bounds = new Set();
  for (const key of series.keys()) {
    if (key.startsWith('sockudo_broadcast_latency_ms_bucket')) {
      bounds.add(/le="([^"]+)"/.exec(key)[1]);
    }
  }
  assert.deepEqual([...bounds].map((b) => Number(b.replace('+Inf', 'Infinity'))).sort((a,
    b) => a - b),
                   [0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, Infinity]);
});

s.test('connected goes up and down, once per socket', async (t) => {
  const base = await metric(t.server, 'sockudo_connected', { app_id: one.id });
  const sockets = await Promise.all(Array.from({ length: 12 }, () => t.open(one)));
  await eventually(async () => await metric(t.server, 'sockudo_connected', { app_id: one.id })
    === base + 12, '12 more');
  sockets.slice(0, 4).forEach((ws) => ws.close(1000));
  sockets.slice(4, 8).forEach((ws) => ws.reset());
  sockets.slice(8).forEach((ws) => ws.socket.end());
  await eventually(async () => await metric(t.server, 'sockudo_connected', { app_id: one.id })
    === base, 'all gone');
  const m = await scrape(t.server);
  assert.ok(value(m, 'sockudo_new_connections_total', { app_id: one.id })
    - value(m, 'sockudo_new_disconnections_total', { app_id: one.id }) === base);
});

s.test('messages, bytes, subscriptions and channels are counted', async (t) => {
  const before = await scrape(t.server);
  const ws = await t.open(one);
  const channels = [t.name(), t.name('private-'), t.name('cache-')];
  for (const channel of channels) await join(ws, channel);
  await t.publish(one, channels[0], 'ev', 'x'.repeat(1000));
  await ws.until('ev');
  const grew = async (name, labels, by) => eventually(async () => {
    const m = await scrape(t.server);
    return value(m, `sockudo_${name}`, labels) - value(before, `sockudo_${name}`, labels) >= by;
  }, `${name} by ${by}`);
  await grew('ws_messages_received_total', { app_id: one.id }, 3);
  await grew('ws_messages_sent_total', { app_id: one.id }, 5);
  await grew('socket_transmitted_bytes', { app_id: one.id }, 1000);
  await grew('socket_received_bytes', { app_id: one.id }, 100);
  await grew('http_calls_received_total', { app_id: one.id }, 1);
  await grew('http_received_bytes', { app_id: one.id }, 1000);
  await grew('http_transmitted_bytes', { app_id: one.id }, 10);
  await grew('broadcast_latency_ms_count', { app_id: one.id, channel_type: 'public',
                                             recipient_count_bucket: 'xs' }, 1);
  for (const channel_type of ['public', 'private', 'cache']) {
    await grew('channel_subscriptions_total', { app_id: one.id, channel_type }, 1);
    await grew('active_channels', { app_id: one.id, channel_type }, 1);
  }
  leave(ws, channels[0]);
  await ws.flush();
  await grew('channel_unsubscriptions_total', { app_id: one.id, channel_type: 'public' }, 1);
  ws.reset();
  await eventually(async () => {
    const m = await scrape(t.server);
    return CHANNEL_TYPES.every((channel_type) =>
      value(m, 'sockudo_active_channels', { app_id: one.id, channel_type }) === 0);
  }, 'no active channels');
});

s.test('errors and rate limits are counted under their names', async (t) => {
  const errors = (labels) => metric(t.server, 'sockudo_connection_errors_total', labels);
  const unknown = await t.upgrade(one, { path: '/app/nobody' });
  await unknown.gone();
  await eventually(() => errors({ app_id: 'unknown', error_type: 'app_not_found' }),
    'app_not_found');
  assert.ok(!(await t.get('/metrics', { port: t.server.metrics_port })).text.includes('nobody'));
  const refused = await t.upgrade(two, { headers: { Origin: 'https://x.test' } });
  await refused.gone();
  await eventually(() => errors({ app_id: two.id, error_type: 'origin_not_allowed' }), 'origin');
  const ws = await t.open(one);
  const channel = t.name('private-');
  await join(ws, channel);
  for (let n = 0; n < 2; n++) ws.send({ event: 'client-x', channel, data: n });
  await expect_error(ws, 4301, 'Client event rejected due to rate limit');
  await eventually(() => metric(t.server, 'sockudo_rate_limit_triggered_total',
    { app_id: one.id, limiter_type: 'client_events' }), 'triggered');
  assert.ok(await metric(t.server, 'sockudo_rate_limit_checks_total',
                         { app_id: one.id, limiter_type: 'client_events' }) >= 2);
});

s.test('the metrics port serves nothing else, the traffic port no metrics', async (t) => {
  assert.equal((await request(t.server.metrics_port, 'GET', '/live')).status, 404);
  assert.equal((await request(t.server.metrics_port, 'GET', '/app/one-key')).status, 404);
  assert.equal((await t.get('/metrics')).status, 404);
});

s.test('two scrapes at once, and one during traffic', async (t) => {
  const ws = await t.open(two, { headers: { Origin: 'https://none.test' } });
  const channel = t.name();
  await join(ws, channel);
  const publishing = (async () => {
    for (let n = 0; n < 100; n++) await t.publish(two, channel, 'ev', String(n));
  })();
  for (let n = 0; n < 10; n++) await Promise.all([scrape(t.server), scrape(t.server)]);
  await publishing;
});

const named = suite('metrics settings', { none: true });
named.test('another prefix; metrics off', async (t) => {
  const server = await t.start({ config: { metrics: { prometheus: { prefix: 'weft_' } } } });
  assert.equal(await metric(server, 'weft_connected', { app_id: 'app-id' }), 0);
  const off = await t.start({ config: { metrics: { enabled: false } } });
  await assert.rejects(request(off.metrics_port, 'GET', '/metrics', { agent: false }));
  await server.stop();
  await off.stop();
});
