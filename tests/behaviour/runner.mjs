/* runner.mjs - suites, cases, and what a case gets to work with.
 *
 * Shape    A suite file calls suite(title, options) and then s.test(claim, fn). run_suites() gives
 *          each suite a server of its own (or the shared one), runs its cases concurrently and
 *          counts. Options: config (object, or function of the shard count), shared (true: the
 *          server of apps.mjs), none (true: no server; cases start their own), parallel (cases
 *          at a time).
 * Bounds   CASE_MS per case. Whatever a case opened through its context is closed after it.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { Server } from './harness.mjs';
import { WsRaw } from './ws_raw.mjs';
import { api, request, rawHttp, closeAgent } from './http_raw.mjs';
import { pusherClient, sdkClient } from './clients.mjs';
import { apps, shared_config } from './apps.mjs';

const CASE_MS = Number(process.env.WEFT_TEST_CASE_MS ?? 60000);
export const suites = [];
const current = new AsyncLocalStorage();
let names = 0;

export function suite(title, options = {}) {
  const s = { title, options, cases: [] };
  suites.push(s);
  return { test: (claim, fn) => s.cases.push({ claim, fn }) };
}

/* What one case works with. Everything opened here is closed when the case ends. */
class Context {
  #closers = [];
  constructor(server, shards) { this.server = server; this.shards = shards; this.apps = apps; }

  after(fn) { this.#closers.push(fn); }
  async end() {
    for (const close of this.#closers.reverse()) await close();
  }

  /* A name no other case uses. */
  name(prefix = 'ch-') { names += 1; return `${prefix}n${names}`; }

  get port() { return this.server.port; }

  /* A server for this case alone. */
  async start(options = {}) {
    const s = await Server.start({ shards: this.shards, ...options });
    this.after(() => s.clean());
    return s;
  }

  /* A raw socket after the upgrade; open() also reads connection_established. */
  async upgrade(app = apps.main, options = {}) {
    const path = options.path ?? `/app/${app.key}?protocol=7&client=js&version=8.6.0&flash=false`;
    const ws = await WsRaw.connect(options.port ?? this.port, path, options);
    ws.app = app;
    this.after(() => ws.destroy());
    return ws;
  }
  async open(app = apps.main, options = {}) {
    const ws = await this.upgrade(app, options);
    const m = await ws.next();
    if (m.event !== 'pusher:connection_established') {
      throw new Error(`instead of connection_established: ${JSON.stringify(m)}`);
    }
    ws.established = JSON.parse(m.data);
    ws.socket_id = ws.established.socket_id;
    return ws;
  }

  pusher(app = apps.main, options = {}) {
    const p = pusherClient(options.port ?? this.port, app, options);
    this.after(() => p.disconnect());
    return p;
  }
  sdk(app = apps.main, options = {}) { return sdkClient(options.port ?? this.port, app, options); }

  api(app, method, path, options = {}) {
    return api(options.port ?? this.port, app, method, path, options);
  }
  get(path, options = {}) { return request(options.port ?? this.port, 'GET', path, options); }
  raw(pieces, options = {}) { return rawHttp(options.port ?? this.port, pieces, options); }

  /* Publishes and insists on 200. */
  async publish(app, channels, name = 'ev', data = '{}', more = {}) {
    const r = await this.api(app, 'POST', '/events',
                             { body: { name, data, channels: [channels].flat(), ...more } });
    if (r.status !== 200) throw new Error(`publish: ${r.status} ${r.text}`);
    return r.json;
  }
}

/* The runner's own deadline: the case goes on in the background but no longer counts. */
async function run_case(c, server, shards) {
  const t = new Context(server, shards);
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${CASE_MS} ms`)), CASE_MS);
  });
  try {
    const work = current.run(c, () => c.fn(t));
    work.catch(() => {});
    await Promise.race([work, late]);
    return null;
  } catch (e) {
    return e;
  } finally {
    clearTimeout(timer);
    await t.end().catch(() => {});
  }
}

/* Errors outside any promise (a callback of a client library) belong to the case they came from. */
const strays = [];
function on_stray(e) { strays.push({ claim: current.getStore()?.claim ?? 'unknown case', e }); }

/* Counts one result; true when it was a failure. */
function report(total, title, claim, error) {
  if (!error) { total.passed += 1; return false; }
  total.failed += 1;
  const text = error.stack ?? String(error);
  const at = text.split('\n').filter((l) => !/node:internal|node_modules/.test(l)).slice(0, 12);
  console.log(`FAIL ${title}: ${claim}\n  ${at.join('\n  ')}`);
  return true;
}

async function in_parallel(items, width, fn) {
  let next = 0;
  const worker = async () => {
    while (next < items.length) { next += 1; await fn(items[next - 1]); }
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker));
}

async function run_cases(s, cases, server, shards, total) {
  const began = Date.now();
  let failed = 0;
  await in_parallel(cases, s.options.parallel ?? 16, async (c) => {
    const error = await run_case(c, server, shards);
    failed += report(total, `shards=${shards} ${s.title}`, c.claim, error);
  });
  const word = failed === 0 ? 'ok  ' : 'FAIL';
  console.log(`${word} shards=${shards} ${s.title}: ${cases.length} cases, `
    + `${Date.now() - began} ms`);
}

/* One server over several suites, and its clean end as a case of its own. */
async function with_server(title, config, shards, total, body) {
  let server;
  try {
    server = await Server.start({ config, shards });
  } catch (e) {
    report(total, `shards=${shards} ${title}`, 'the server starts', e);
    return;
  }
  await body(server);
  closeAgent(server.port);
  closeAgent(server.metrics_port);
  const early = server.out.exit;
  const error = await server.stop().then(() => null, (e) => e);
  report(total, `shards=${shards} ${title}`, 'the server stops cleanly',
         early ? new Error(`it ended during the suite: ${JSON.stringify(early)}\n${server.tail()}`)
               : error);
}

/* Runs every suite whose "title: claim" matches `only`. Returns {passed, failed}. */
export async function run_suites(shards, only) {
  const total = { passed: 0, failed: 0 };
  process.on('uncaughtException', on_stray);
  const chosen = suites.map((s) => ({
    s, cases: s.cases.filter((c) => only.test(`${s.title}: ${c.claim}`)),
  })).filter(({ cases }) => cases.length > 0);
  const shared = chosen.filter(({ s }) => s.options.shared);
  const own = chosen.filter(({ s }) => !s.options.shared);
  if (shared.length > 0) {
    await with_server('shared server', shared_config, shards, total, async (server) => {
      for (const { s, cases } of shared) await run_cases(s, cases, server, shards, total);
    });
  }
  await in_parallel(own, 3, async ({ s, cases }) => {
    if (s.options.none) return run_cases(s, cases, null, shards, total);
    const config = typeof s.options.config === 'function' ? s.options.config(shards)
      : s.options.config;
    return with_server(s.title, config, shards, total,
                       (server) => run_cases(s, cases, server, shards, total));
  });
  process.off('uncaughtException', on_stray);
  for (const { claim, e } of strays.splice(0)) {
    report(total, `shards=${shards} stray error`, claim, e);
  }
  return total;
}
