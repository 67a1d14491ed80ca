/* start_errors.mjs - starts that must fail say why in one line; flags, environment, file, defaults.
 *
 * Source   spec/operations.md 4.1; spec/settled.md 2, 3, 12, 14; issue 2 item 5.
 */
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { suite } from '../runner.mjs';
import { assert, is_ok } from '../expect.mjs';
import { freePort, run_once, tempDir, yaml } from '../harness.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('start', { none: true, parallel: 4 });
const app = app_entry('start');

async function flags(t, config_text, more = {}) {
  const dir = tempDir();
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const file = path.join(dir, 'weft.yaml');
  fs.writeFileSync(file, config_text);
  const all = { '--config': file, '--port': await freePort(), '--metrics-port': await freePort(),
                '--shards': t.shards, '--data-dir': path.join(dir, 'data'), ...more };
  return { dir, args: Object.entries(all).flat().map(String) };
}
/* It exits by itself, not with 0, and says one line on stderr that matches every pattern. */
function failed(r, ...patterns) {
  assert.ok(r.code > 0 && r.signal === null, `exit ${r.code} ${r.signal}\n${r.stderr}`);
  const lines = r.stderr.split('\n').filter((l) => l.trim() !== '');
  assert.equal(lines.length, 1, r.stderr);
  for (const p of patterns) assert.match(lines[0], p);
}

async function taken(t) {
  const port = await freePort();
  const other = net.createServer();
  await new Promise((resolve) => other.listen(port, '0.0.0.0', resolve));
  t.after(() => new Promise((resolve) => other.close(resolve)));
  return port;
}
s.test('the port is taken', async (t) => {
  const port = await taken(t);
  const { args } = await flags(t, '', { '--port': port });
  failed(await run_once(args), new RegExp(String(port)));
});
s.test('the metrics port is taken', async (t) => {
  const port = await taken(t);
  const { args } = await flags(t, '', { '--metrics-port': port });
  failed(await run_once(args), new RegExp(String(port)));
});
s.test('the port is taken by another server of ours', async (t) => {
  const server = await t.start();
  const { args } = await flags(t, '', { '--port': server.port });
  failed(await run_once(args), new RegExp(String(server.port)));
  const again = await flags(t, '', { '--metrics-port': server.metrics_port });
  failed(await run_once(again.args), new RegExp(String(server.metrics_port)));
  assert.equal((await t.get('/up', { port: server.port })).text, 'OK');
  await server.stop();
});
s.test('the data directory belongs to a running server', async (t) => {
  const server = await t.start();
  const { args } = await flags(t, '', { '--data-dir': server.data_dir });
  failed(await run_once(args), /data/);
  assert.equal((await t.get('/up', { port: server.port })).text, 'OK');
  await server.stop();
});
s.test('the data directory cannot be written', async (t) => {
  const dir = tempDir();
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  fs.writeFileSync(path.join(dir, 'file'), '');
  for (const bad of [path.join(dir, 'file'), path.join(dir, 'file', 'data'), '/proc/weft-data']) {
    const { args } = await flags(t, '', { '--data-dir': bad });
    failed(await run_once(args), /data|file|proc/);
  }
});
s.test('the data directory is created', async (t) => {
  const { args, dir } = await flags(t, '');
  const server = await t.start({ args: ['--data-dir', path.join(dir, 'a/b').replace('/b', '')] });
  assert.ok(fs.statSync(path.join(dir, 'a')).isDirectory());
  assert.ok(args.length > 0);
  await server.stop();
});

const duplicate = (change) => yaml({ app_manager: { array: { apps: [app,
  { ...app, ...change }] } } });
const bad_files = {
  'an unknown key': ['activity_timeoutt: 5\n', /activity_timeoutt/, /weft\.yaml/],
  'an unknown key in a section': ['websocket:\n  max_byte: 5\n', /max_byte/],
  'an unknown key of an app': [yaml({ app_manager: { array: { apps: [{ ...app, nme: 'x' }] } } }),
    /nme/],
  'a key of the reference that this build lacks': ['tag_filtering:\n  enabled: true\n',
                                                   /tag_filtering/, /not supported/],
  'text where a number belongs': ['activity_timeout: soon\n', /activity_timeout/],
  'a number that is too large': ['activity_timeout: 999999999\n', /activity_timeout/],
  'zero where it means nothing': ['activity_timeout: 0\n', /activity_timeout/],
  'a negative number': ['max_connections: -1\n', /max_connections/],
  'a fraction': ['max_connections: 1.5\n', /max_connections/],
  'a word where true or false belongs': ['http_api:\n  usage_enabled: perhaps\n', /usage_enabled/],
  'disconnect_on_buffer_full false': ['websocket:\n  disconnect_on_buffer_full: false\n',
                                      /disconnect_on_buffer_full/],
  'broken YAML': ['a: [1, 2\nb: "\n', /weft\.yaml/],
  'a list instead of a map': ['- 1\n- 2\n', /weft\.yaml/],
  'an app without a secret': [yaml({ app_manager: { array: { apps: [{ id: 'a', key: 'b' }] } } }),
                              /secret/],
  'two apps with one key': [duplicate({ id: 'other' }), /key/],
  'two apps with one id': [duplicate({ key: 'other' }), /id/],
  'an origin pattern with two stars': [yaml({ app_manager: { array: { apps: [{ ...app,
    policy: { channels: { allowed_origins: ['*.a.*'] } } }] } } }), /origin/],
};
for (const [what, [text, ...patterns]] of Object.entries(bad_files)) {
  s.test(`${what}: named, in a start and in --check-config`, async (t) => {
    const { args } = await flags(t, text);
    failed(await run_once(args), ...patterns);
    failed(await run_once([...args, '--check-config']), ...patterns);
  });
}
s.test('secrets are never shown', async (t) => {
  const secret = 'very-secret-value';
  const text = yaml({ app_manager: { array: { apps: [{ id: 'a', key: 'k', secret,
    nme: secret }] } } });
  const { args } = await flags(t, text);
  const r = await run_once(args);
  assert.ok(r.code > 0);
  assert.ok(!r.stderr.includes(secret), r.stderr);
});
s.test('a file that is not there', async (t) => {
  const { args } = await flags(t, '', { '--config': '/nowhere/weft.yaml' });
  failed(await run_once(args), /\/nowhere\/weft\.yaml/);
});
for (const more of [['--no-such-flag'], ['--port'], ['--port', 'x'], ['--port', '70000'],
                    ['--set', 'nothing=1'], ['--set', 'port'], ['stray']]) {
  s.test(`flags ${more.join(' ')}`, async (t) => {
    const { args } = await flags(t, '');
    failed(await run_once([...args, ...more]), /./);
  });
}
s.test('a bad environment variable is named', async (t) => {
  const { args } = await flags(t, '');
  failed(await run_once(args, { env: { WEFT_ACTIVITY_TIMEOUT: 'soon' } }), /WEFT_ACTIVITY_TIMEOUT/);
  failed(await run_once(args, { env: { WEFT_NO_SUCH_KEY: '1' } }), /WEFT_NO_SUCH_KEY/);
});

/* ---- what works ---- */
s.test('--check-config, --help, --help-config, --version exit with 0', async (t) => {
  const { args } = await flags(t, 'activity_timeout: 30\n');
  assert.equal((await run_once([...args, '--check-config'])).code, 0);
  for (const [flag, pattern] of [['--help', /--port/], ['--help-config', /activity_timeout/],
                                 ['--version', /\d+\.\d+/]]) {
    const r = await run_once([flag]);
    assert.equal(r.code, 0);
    assert.match(r.stdout, pattern);
  }
});
s.test('flags over environment over file over defaults', async (t) => {
  const cases = [[{}, 120], [{ config: { activity_timeout: 31 } }, 31],
    [{ config: { activity_timeout: 31 }, env: { WEFT_ACTIVITY_TIMEOUT: '32' } }, 32],
    [{ config: { activity_timeout: 31 }, env: { WEFT_ACTIVITY_TIMEOUT: '32' },
       args: ['--set', 'activity_timeout=33'] }, 33]];
  for (const [options, want] of cases) {
    const server = await t.start(options);
    const ws = await t.open({ key: 'app-key' }, { port: server.port });
    assert.equal(ws.established.activity_timeout, want);
    await server.stop();
  }
});
s.test('nested keys in the environment and in --set', async (t) => {
  const server = await t.start({ env: { WEFT_WEBSOCKET__PONG_TIMEOUT: '2',
                                        WEFT_METRICS__PROMETHEUS__PREFIX: 'env_' },
                                 args: ['--set', 'http_api.usage_enabled=false'] });
  assert.equal((await t.get('/usage', { port: server.port })).status, 404);
  assert.match((await t.get('/metrics', { port: server.metrics_port })).text, /^env_connected\{/m);
  await server.stop();
});
s.test('JSON is YAML; apps may be written flat', async (t) => {
  const flat = { id: 'f', key: 'fk', secret: 'fs', max_event_name_length: 5,
                 enable_client_messages: true };
  const server = await t.start({ config_text: JSON.stringify({ app_manager: { array: {
    apps: [flat] } } }) });
  const post = (name) => t.api(flat, 'POST', '/events',
                               { port: server.port, body: { name, channel: 'c', data: 'x' } });
  is_ok(await post('12345'), { ok: true });
  assert.equal((await post('123456')).status, 400);
  await server.stop();
});
s.test('without apps there is one, with a warning', async (t) => {
  const server = await t.start({ config: {} });
  const builtin = { id: 'app-id', key: 'app-key', secret: 'app-secret' };
  is_ok(await t.api(builtin, 'GET', '/channels', { port: server.port }), { channels: {} });
  assert.match(server.stderr, /app-id|built-in|default app/i);
  assert.ok(!server.stderr.includes('app-secret'));
  await server.stop();
});
s.test('the log as JSON: one object a line, also at level trace', async (t) => {
  const server = await t.start({ config: { logging: { format: 'json', level: 'trace' },
                                           app_manager: { array: { apps: [app] } } } });
  const ws = await t.open(app, { port: server.port });
  ws.send({ event: 'pusher:subscribe', data: { channel: 'quo"te\n' } });
  await ws.until('pusher:error');
  await server.stop();
  const lines = server.stderr.split('\n').filter((l) => l !== '');
  assert.ok(lines.length > 0);
  for (const line of lines) {
    const entry = JSON.parse(line);
    assert.ok(Date.parse(entry.timestamp) > 1.6e12, line);
    assert.match(entry.level, /^(ERROR|WARN|INFO|DEBUG|TRACE)$/i);
    assert.equal(typeof entry.fields.message, 'string');
  }
  const messages = lines.map((line) => JSON.parse(line).fields.message);
  assert.ok(messages.includes('connected') && messages.includes('disconnected'));
  assert.ok(!server.stderr.includes(app.secret));
});
