/* harness.mjs - runs the real server: ports, configuration file, data directory, start, stop.
 *
 * Shape    Server.start() writes a YAML file into a directory of its own, starts the binary on free
 *          ports and returns once /live answers. stop() sends SIGTERM and insists on exit code 0
 *          and a log without sanitizer or assertion reports. run_once() is for starts
 *          that must fail.
 * Bounds   Every wait is limited; servers that are still up when the runner exits are killed.
 * Environment  WEFT_BIN names the binary; without it ../../build/weft.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { request } from './http_raw.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
export const WEFT_BIN = path.resolve(process.env.WEFT_BIN ?? path.join(here, '../../build/weft'));
const START_MS = 30000;
const STOP_MS = 30000;
const FAULTS = new RegExp('AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:'
  + '|[Aa]ssert(ion)?\\b.*(fail|:)|ASSERT');

const running = new Set();
process.on('exit', () => { for (const child of running) child.kill('SIGKILL'); });

/* A port below the ephemeral range, so that no client socket takes it between probe and start. */
const handed = new Set();
export async function freePort() {
  for (;;) {
    const port = 15000 + Math.floor(Math.random() * 17000);
    if (handed.has(port)) continue;
    const free = await new Promise((resolve) => {
      const probe = net.createServer();
      probe.on('error', () => resolve(false));
      probe.listen(port, '0.0.0.0', () => probe.close(() => resolve(true)));
    });
    if (!free) continue;
    handed.add(port);
    return port;
  }
}

/* Plain YAML for objects, arrays and scalars. Strings are always quoted. */
export function yaml(value, indent = '') {
  const scalar = (v) => (typeof v === 'string' ? JSON.stringify(v) : String(v));
  const empty = (v) => typeof v === 'object' && Object.keys(v).length === 0;
  const entry = (head, v) => {
    if (v === null || typeof v !== 'object') return `${indent}${head} ${scalar(v)}\n`;
    if (empty(v)) return `${indent}${head} ${Array.isArray(v) ? '[]' : '{}'}\n`;
    return `${indent}${head}\n${yaml(v, `${indent}  `)}`;
  };
  if (Array.isArray(value)) return value.map((v) => entry('-', v)).join('');
  return Object.entries(value).filter(([, v]) => v !== undefined)
    .map(([k, v]) => entry(`${k}:`, v)).join('');
}

export function tempDir() {
  return fs.mkdtempSync(path.join(os.tmpdir(), 'weft-behaviour-'));
}

/* Environment for the child: no WEFT_* of the caller leaks in. */
function cleanEnv(extra) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([k]) => !/^WEFT_/.test(k)));
  return { ...env, ...extra };
}

function collect(child) {
  const out = { stdout: '', stderr: '', exit: null };
  child.stdout.on('data', (c) => { out.stdout += c; });
  child.stderr.on('data', (c) => { out.stderr += c; });
  out.exited = new Promise((resolve) => {
    child.on('error', (e) => resolve({ code: -1, signal: String(e) }));
    child.on('close', (code, signal) => {
      running.delete(child);
      out.exit = { code, signal };
      resolve(out.exit);
    });
  });
  return out;
}

async function limited(promise, ms, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/* Runs the binary until it exits by itself. */
export async function run_once(args, { env = {}, cwd, ms = 20000 } = {}) {
  const child = spawn(WEFT_BIN, args, { env: cleanEnv(env), cwd,
    stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  const out = collect(child);
  try {
    const exit = await limited(out.exited, ms, `weft ${args.join(' ')} to exit`);
    return { ...exit, stdout: out.stdout, stderr: out.stderr };
  } finally {
    if (!out.exit) child.kill('SIGKILL');
  }
}

export class Server {
  /* options: config (object), config_text (instead of it), shards, args (more flags), env, dir
   * (kept afterwards), port, metrics_port, wait (false: return right after the start), wrap (a
   * command that starts the binary given behind it, in its own place). */
  static async start(options = {}) {
    const s = new Server();
    s.options = options;
    s.own_dir = options.dir === undefined;
    s.dir = options.dir ?? tempDir();
    s.port = options.port ?? await freePort();
    s.metrics_port = options.metrics_port ?? await freePort();
    s.data_dir = path.join(s.dir, 'data');
    const file = path.join(s.dir, 'weft.yaml');
    fs.writeFileSync(file, options.config_text ?? yaml(options.config ?? {}));
    const args = ['--config', file, '--port', s.port, '--metrics-port', s.metrics_port,
                  '--shards', options.shards ?? 1, '--data-dir', s.data_dir,
                  ...(options.args ?? [])].map(String);
    const [program, ...rest] = [...(options.wrap ?? []), WEFT_BIN, ...args];
    s.child = spawn(program, rest, { env: cleanEnv(options.env), cwd: s.dir,
                                     stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(s.child);
    s.out = collect(s.child);
    if (options.wait !== false) await s.#live();
    return s;
  }

  async #live() {
    const until = Date.now() + START_MS;
    for (;;) {
      if (this.out.exit) throw new Error(`the server did not start: ${this.out.stderr}`);
      let last;
      try {
        const r = await request(this.port, 'GET', '/live', { agent: false });
        if (r.status === 200) return;
        last = r.status;
      } catch (e) { last = e; }
      if (Date.now() > until) throw new Error(`/live says ${last}\n${this.out.stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  get pid() { return this.child.pid; }
  get stderr() { return this.out.stderr; }
  signal(name) { this.child.kill(name); }
  exited(ms = STOP_MS) { return limited(this.out.exited, ms, 'server exit'); }

  /* SIGTERM, then everything a clean end means. Throws what was wrong. */
  async stop() {
    try {
      if (!this.out.exit) this.signal('SIGTERM');
      const exit = await this.exited();
      this.check_log();
      if (exit.code !== 0) {
        throw new Error(`exit code ${exit.code}, signal ${exit.signal}\n${this.tail()}`);
      }
    } finally {
      this.clean();
    }
  }

  async kill() {
    this.signal('SIGKILL');
    await this.exited();
  }

  check_log() {
    const line = this.stderr.split('\n').find((l) => FAULTS.test(l));
    if (line) throw new Error(`the server log holds a fault: ${line}\n${this.tail()}`);
    const apps = this.options.config?.app_manager?.array?.apps ?? [];
    const told = apps.find((a) => [a.key, a.secret].some((text) => text.length > 6
      && this.stderr.includes(text)));
    if (told) throw new Error(`the server log holds a key or a secret of ${told.id}`);
  }

  tail(lines = 30) { return this.stderr.split('\n').slice(-lines).join('\n'); }

  clean() {
    if (!this.out.exit) this.child.kill('SIGKILL');
    if (this.own_dir) fs.rmSync(this.dir, { recursive: true, force: true });
  }
}
