/* world.mjs - one data directory and the servers that live and die on it, one after another.
 *
 * Shape    start() begins a life: the binary on the same directory and port with another number of
 *          shards. end() ends it by SIGKILL, stop() by SIGTERM. Publishers wait at the gate, which
 *          is open while the life is up and not being examined.
 * Bounds   CHANNELS channels at a time; old ones are retired and replaced, so that reading all of
 *          them stays possible.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Server, WEFT_BIN, freePort, tempDir } from '../../tests/behaviour/harness.mjs';
import { closeAgent } from '../../tests/behaviour/http_raw.mjs';
import { app_entry } from '../../tests/behaviour/apps.mjs';
import { disk_fails, disk_heals, disk_wrap } from '../../tests/behaviour/memory.mjs';
import { passing_app } from './passing.mjs';
import { retained_app } from './retained.mjs';

const CHANNELS = 8;
const CHECK_MS = 60000;

function gate() {
  let open;
  const passed = new Promise((resolve) => { open = resolve; });
  return { passed, open };
}

export class World {
  life = { up: false, ending: true, ended: Promise.resolve() };
  over = false;
  channels = [];
  retired = [];
  #gate = gate();
  #named = 0;

  constructor(rng, config = {}) {
    this.rng = rng;
    this.app = app_entry('chaos', { features: { enable_client_messages: true },
                                    limits: { max_event_batch_size: 10 },
                                    idempotency: { enabled: true, ttl_seconds: 7200 } });
    this.room = 'presence-chaos';
    this.dir = tempDir();
    this.config = {
      history: { enabled: true, purge_interval_seconds: 1, forget_after_seconds: 1 },
      versioned_messages: { enabled: true },
      connection_recovery: { enabled: true }, presence_history: { enabled: true },
      presence: { v2_ungraceful_timeout_seconds: 1 },
      app_manager: { array: { apps: [this.app, retained_app, passing_app] } }, ...config,
    };
    while (this.channels.length < CHANNELS) this.channels.push(this.#name());
  }

  #name() { this.#named += 1; return `chaos-${this.#named}`; }

  /* One channel goes, a new one comes. Between lives only: watchers subscribe when they connect. */
  rotate() {
    const at = this.rng.below(this.channels.length);
    this.retired.push(this.channels[at]);
    this.channels[at] = this.#name();
  }

  two_channels(rng) {
    const a = rng.below(this.channels.length);
    const b = (a + 1 + rng.below(this.channels.length - 1)) % this.channels.length;
    return [this.channels[a], this.channels[b]];
  }

  async start(shards, { wait = true } = {}) {
    this.port ??= await freePort();
    this.metrics_port ??= await freePort();
    let ended;
    const life = { up: false, ending: false, quiet: true, shards };
    life.ended = new Promise((resolve) => { ended = resolve; });
    life.over = ended;
    this.life = life;
    this.server = await Server.start({ dir: this.dir, config: this.config, shards, wait,
                                       wrap: disk_wrap, port: this.port,
                                       metrics_port: this.metrics_port });
    life.up = wait;
    return life;
  }

  /* True when there is a server to talk to; false when the run is over. */
  async open_gate() {
    while (!this.over && !this.#open) await this.#gate.passed;
    return !this.over;
  }
  #open = false;
  open() { this.life.quiet = false; this.#open = true; this.#gate.open(); }
  shut() {
    this.life.quiet = true;
    if (this.#open) this.#gate = gate();     /* whoever waits at a shut gate goes on waiting */
    this.#open = false;
  }
  finish() { this.over = true; this.#gate.open(); }

  /* Every write to a file fails for a while. A lane whose meta page is not written then serves
   * nothing until the disk takes it again. */
  async failing_disk(ms) {
    this.life.disk_failed = true;
    disk_fails(this.server);
    await new Promise((resolve) => setTimeout(resolve, ms));
  }
  heal() { disk_heals(this.server); }

  async kill() { await this.#end(() => this.server.kill()); }
  async stop() { await this.#end(() => this.server.stop()); }

  async #end(how) {
    this.shut();
    this.life.ending = true;
    this.life.up = false;
    try { await how(); } finally {
      this.server.check_log();
      closeAgent(this.port);
      this.life.over();
    }
  }

  /* weftctl on the directory of a server that is not running: what it found wrong, or null. */
  async check_store() {
    const weftctl = path.join(path.dirname(WEFT_BIN), 'weftctl');
    const child = spawn(weftctl, ['store', 'check', '--data-dir', this.server.data_dir],
                        { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    child.stdout.on('data', (c) => { text += c; });
    child.stderr.on('data', (c) => { text += c; });
    const timer = setTimeout(() => child.kill('SIGKILL'), CHECK_MS);
    const code = await new Promise((resolve) => {
      child.on('error', (e) => { text += e; resolve(-1); });
      child.on('close', resolve);
    });
    clearTimeout(timer);
    return code === 0 ? null : `weftctl store check: exit code ${code}: ${text}`;
  }

  clean() { fs.rmSync(this.dir, { recursive: true, force: true }); }
}
