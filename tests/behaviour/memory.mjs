/* memory.mjs - what the suites about channels with memory share: their applications, sockets that
 * are closed with the case, one data directory over several lives, a disk that fails and heals, a
 * wall clock that jumps.
 *
 * Shape    apps with different policies (see `mem`); v2() opens a raw V2 socket; reader() a client
 *          whose views check themselves; Lives keeps a directory over kills and restarts.
 * Disk     RLIMIT_FSIZE of 0 makes every write to a file fail with EFBIG, from prlimit's next word
 *          until the limit is lifted; it needs no privilege and no file system of its own. The
 *          signal that comes with it is ignored across the exec.
 * Clock    A preloaded clock_gettime that adds the seconds found in a shared file.
 * Source   spec/messages-and-history.md 11, 12; spec/settled.md 34, 38, 40.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { tempDir } from './harness.mjs';
import { app_entry } from './apps.mjs';
import { V2, View, attach, open_attached } from './v2_client.mjs';

const features = { enable_client_messages: true, enable_user_authentication: true };
const idempotency = { enabled: true, ttl_seconds: 3600 };

export const mem = {
  app: app_entry('mem', { features, idempotency, channels: { annotations_enabled: true } }),
  other: app_entry('memother', { features, idempotency }),
  few: app_entry('memfew', { features, idempotency, history: { max_messages_per_channel: 10 } }),
  brief: app_entry('membrief', { features, idempotency: { enabled: true, ttl_seconds: 1 } }),
  loose: app_entry('memloose', { features, idempotency, history: { durability: 'relaxed' } }),
  plain: app_entry('memplain', { features, idempotency, history: { enabled: false },
                                 connection_recovery: { enabled: false } }),
};

export const mem_config = {
  history: { enabled: true, purge_interval_seconds: 1 }, versioned_messages: { enabled: true },
  annotations: { enabled: true }, presence_history: { enabled: true },
  connection_recovery: { enabled: true },
  presence: { v2_ungraceful_timeout_seconds: 1 },
  app_manager: { array: { apps: Object.values(mem) } },
};

export async function v2(t, options = {}) {
  const c = await V2.open(options.port ?? t.port, options.app ?? mem.app, options);
  t.after(() => c.destroy());
  return c;
}

/* A socket with views of `channels`, current. What a view refuses is thrown by check(). */
export async function reader(t, channels, options = {}) {
  const faults = [];
  const port = options.port ?? t.port;
  const c = await open_attached(port, options.app ?? mem.app,
                                { ...options, fault: (e) => faults.push(e) });
  t.after(() => c.destroy());
  const views = options.views ?? channels.map((name) => new View(name));
  c.result = await attach(c, views, options);
  c.view = (name) => c.views.get(name);
  c.check = () => { if (faults.length > 0) throw faults[0]; };
  /* Until the view of a channel has reached a delivery serial. */
  c.reach = async (name, serial, ms = 20000) => {
    const until = Date.now() + ms;
    while (c.view(name).next <= serial) {
      c.check();
      if (Date.now() > until) throw new Error(`${name} stays before ${c.view(name).next}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return c.view(name);
  };
  return c;
}

/* Servers that follow each other on one directory. */
export class Lives {
  constructor(t, config = mem_config) {
    Object.assign(this, { t, config, dir: tempDir() });
    t.after(() => fs.rmSync(this.dir, { recursive: true, force: true }));
  }
  async start(options = {}) {
    this.server = await this.t.start({ dir: this.dir, config: this.config, ...options });
    return this.server;
  }
  get port() { return this.server.port; }
  kill() { return this.server.kill(); }
  stop() { return this.server.stop(); }
  async restart(options) { await this.kill(); return this.start(options); }
}

/* ---- bytes that turn over ---- */

/* Changes one byte of every place in the store's files where `mark` stands. */
export function flip(dir, mark) {
  let found = 0;
  for (const name of fs.readdirSync(dir, { recursive: true })) {
    const file = path.join(dir, name);
    if (!fs.statSync(file).isFile()) continue;
    const bytes = fs.readFileSync(file);
    const fd = fs.openSync(file, 'r+');
    for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, at + 1)) {
      fs.writeSync(fd, Buffer.from([bytes[at] ^ 1]), 0, 1, at);
      found += 1;
    }
    fs.closeSync(fd);
  }
  return found;
}

/* ---- a disk that fails ---- */

export const disk_wrap = ['sh', '-c', 'trap "" XFSZ; exec "$@"', 'sh'];
function limit_files(server, text) {
  execFileSync('prlimit', ['--pid', String(server.pid), `--fsize=${text}`]);
}
export const disk_fails = (server) => limit_files(server, '0:');
export const disk_heals = (server) => limit_files(server, 'unlimited:');

/* ---- a clock that jumps ---- */

const CLOCK = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static volatile long *shift_s;
__attribute__((constructor)) static void open_shift(void)
{
    const char *name = getenv("TEST_CLOCK_FILE");
    int fd = name ? open(name, O_RDONLY) : -1;
    void *p = fd < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) shift_s = p;
}
int clock_gettime(clockid_t id, struct timespec *t)
{
    long rc = syscall(SYS_clock_gettime, id, t);
    if (rc == 0 && id == CLOCK_REALTIME && shift_s) t->tv_sec += *shift_s;
    return (int)rc;
}
`;

/* {env, shift(seconds)}: servers started with env see a wall clock that is off by that much. */
export function jumping_clock(t) {
  const dir = tempDir();
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const [source, library, file] = ['clock.c', 'clock.so', 'shift'].map((f) => path.join(dir, f));
  const shift = (seconds) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(seconds));
    const fd = fs.openSync(file, 'r+');     /* in place: the server has it mapped */
    fs.writeSync(fd, bytes, 0, 8, 0);
    fs.closeSync(fd);
  };
  fs.writeFileSync(source, CLOCK);
  fs.writeFileSync(file, Buffer.alloc(8));
  execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, source]);
  /* A sanitizer wants to be first among the libraries, and is content with second. */
  const asan = `${process.env.ASAN_OPTIONS ?? ''}:verify_asan_link_order=0`;
  return { env: { LD_PRELOAD: library, TEST_CLOCK_FILE: file, ASAN_OPTIONS: asan }, shift };
}
