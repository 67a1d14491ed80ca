/* kill.mjs - kills the real server again and again under load, and has an auditor compare.
 *
 *   node tools/chaos/kill.mjs [--kills 200] [--shards 1,3] [--seed N] [--weft FILE] [--workers 24]
 *
 * Shape    One data directory, many lives. A life: start with a number of shards drawn from
 *          --shards; subscribers come back; the auditor reads every channel and compares;
 *          publishers run; SIGKILL at a moment drawn from the seed: while starting, while being
 *          audited, in the first retries, under load, while the disk refuses every write, or
 *          shortly after it has healed. Some lives end by SIGTERM instead, and
 *          some dead directories are checked by weftctl before the next start.
 * Checks   auditor.mjs, watchers.mjs, workload.mjs, retained.mjs, passing.mjs, presence_log.mjs;
 *          at the end a full audit and `weftctl store check`.
 * Output   The seed first; a line every PROGRESS kills; the last line is "N passed, N failed",
 *          where each life and the end is a case. Exit code 0 only when nothing failed.
 */
import assert from 'node:assert/strict';
import { options_of } from '../../tests/behaviour/options.mjs';

const number = (value) => ({ type: 'string', number: true, default: String(value) });
const values = options_of(import.meta.url, {
  kills: number(200), seed: number(Math.floor(Math.random() * 2 ** 31)), workers: number(24),
  shards: { type: 'string', default: '1,3,2,5' }, weft: { type: 'string' },
});
if (values.weft) process.env.WEFT_BIN = values.weft;
process.env.WEFT_TEST_WAIT_MS ??= '20000';
const { seeded } = await import('./seed.mjs');
const { World } = await import('./world.mjs');
const { Auditor } = await import('./auditor.mjs');
const { Workload } = await import('./workload.mjs');
const { Member, V1Watcher, V2Watcher } = await import('./watchers.mjs');
const { Retained } = await import('./retained.mjs');
const { Passing } = await import('./passing.mjs');
const { check_presence_log } = await import('./presence_log.mjs');
const { in_turn, path_of, read } = await import('../../tests/behaviour/stored.mjs');

const PROGRESS = 20;
const MOMENTS = { start: 1, audit: 2, retries: 3, load: 9, disk: 2, disk_healed: 1 };
const LOAD_MS = 650;
const MEMBERS = 6;
const SETTLE_MS = 20000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const kills_wanted = values.kills;
const shards_list = values.shards.split(',').map(Number);
const rng = seeded(values.seed);
const world = new World(rng);
const auditor = new Auditor();
const load = new Workload(world, auditor);
const watchers = [new V2Watcher(world, auditor, 'delta-1', false),
                  new V2Watcher(world, auditor, 'delta-2', false),
                  new V2Watcher(world, auditor, 'full', true)];
const retained = new Retained(world, auditor);
const passing = new Passing(world, auditor);
const people = [new V1Watcher(world, auditor, 'v1'),
                ...Array.from({ length: MEMBERS }, (_, i) => new Member(world, auditor, `u${i}`))];
const totals = { kills: 0, stops: 0, checks: 0, cases: 0, bad: 0, moments: {} };

/* Reads and compares while nobody publishes. Ends early when the server dies under it. */
async function audit(life, channels, presence) {
  const stored = new Map();
  try {
    await in_turn(channels, 4, async (c) => {
      const s = await auditor.audit(world.port, world.app, c);
      if (s) stored.set(c, s);
    });
    await retained.audit();
    if (presence) await check_presence_log(world.port, world.app, world.room);
    const active = new Map([...stored].filter(([c]) => world.channels.includes(c)));
    for (const w of watchers) await w.current(active, life);
  } catch (e) {
    if (!life.ending) auditor.fault(`audit: ${e.stack}`);
    return false;
  }
  return !life.ending;
}

async function one_life(n) {
  const shards = rng.pick(shards_list);
  const moment = rng.weighted(MOMENTS);
  const early_ms = rng.below(120);
  const load_ms = rng.below(LOAD_MS) + 20;
  const all = n % PROGRESS === 0 ? [...world.channels, ...world.retired] : world.channels;
  totals.moments[moment] = (totals.moments[moment] ?? 0) + 1;
  if (moment === 'start') {
    await world.start(shards, { wait: false });
    await sleep(early_ms / 3);
    await world.kill();
    return;
  }
  const life = await world.start(shards);
  const audited = audit(life, all, true);
  if (moment === 'audit') {
    await sleep(early_ms);
    await world.kill();
    await audited;
    return;
  }
  await audited;
  world.open();
  await sleep(moment === 'retries' ? early_ms / 2 : load_ms);
  if (moment === 'disk' || moment === 'disk_healed') {
    await world.failing_disk(2 * early_ms);
    if (moment === 'disk_healed') {
      world.heal();
      await sleep(load_ms);
    }
  }
  if (rng.chance(0.07)) {
    totals.stops += 1;
    world.heal();
    await world.stop();
  } else await world.kill();
}

/* A life is a case: it fails when it brought a new fault. */
async function counted(fn) {
  const before = auditor.faults.length;
  try { await fn(); } catch (e) { auditor.fault(e.stack); }
  totals.cases += 1;
  if (auditor.faults.length > before) totals.bad += 1;
}

async function check_store() {
  totals.checks += 1;
  const wrong = await world.check_store();
  if (wrong) auditor.fault(wrong);
}

async function until(check, what) {
  for (const end = Date.now() + SETTLE_MS; !await check(); await sleep(50)) {
    assert.ok(Date.now() < end, `${what} within ${SETTLE_MS} ms`);
  }
}

/* The last life: everything is read; members are let go; the directory is checked. */
async function the_end() {
  const life = await world.start(rng.pick(shards_list));
  await audit(life, [...world.channels, ...world.retired], true);
  world.open();
  await sleep(LOAD_MS);
  world.shut();
  await until(() => load.flying === 0, 'every request has its answer');
  await audit(life, world.channels, true);
  world.finish();
  await load.check_bulk();
  await passing.again();
  await until(async () => {                 /* once the grace time of those who left is over */
    const inside = await check_presence_log(world.port, world.app, world.room);
    const { users } = await read(world.port, world.app, `${path_of(world.room)}/users`);
    return [...inside].sort().join() === users.map((u) => u.id).sort().join();
  }, 'the log is who is there');
  await world.stop();
  await check_store();
  const counts = { ...auditor.counts, bulk: load.bulk.size, retained: retained.told.size,
                   forgotten: passing.forgotten };
  for (const [what, n] of Object.entries(counts)) assert.ok(n > 0, `no ${what}`);
}

const began = Date.now();
console.log(`seed ${values.seed}: ${kills_wanted} kills, shards ${values.shards}, ${world.dir}`);
const busy = [...Array.from({ length: values.workers }, (_, i) => load.worker(i)),
              retained.run(), passing.run(), load.bulk_worker(0), load.bulk_worker(1),
              ...watchers.map((w) => w.run()), ...people.map((p) => p.run())];
for (let n = 1; totals.kills < kills_wanted; n++) {
  const stops = totals.stops;
  await counted(() => one_life(n));
  if (totals.stops === stops) totals.kills += 1;
  if (rng.chance(0.1)) await counted(check_store);
  if (rng.chance(0.15)) world.rotate();
  if (totals.kills % PROGRESS === 0 && totals.stops === stops) {
    console.log(`${totals.kills} kills, ${Math.round((Date.now() - began) / 1000)} s, `
      + `${auditor.counts.told} acknowledged, ${auditor.faults.length} faults`);
  }
  if (auditor.faults.length > 200) break;
}
await counted(the_end);
world.finish();
await Promise.race([Promise.allSettled(busy), sleep(10000)]);
const sum = (k) => watchers.reduce((a, w) => a + w.counts[k], 0);
console.log(`seed ${values.seed}: ${totals.kills} kills (${JSON.stringify(totals.moments)}), `
  + `${totals.stops} clean stops, ${totals.checks} store checks; ${load.counts.requests} requests, `
  + `${load.counts.again} sent again after a kill, ${load.counts.repeated} repeated, `
  + `${load.counts.busy} answered 503, ${load.counts.unknown} unknown, `
  + `${load.counts.refused} refused on purpose, ${Math.round(load.bulk_bytes / 1e6)} MB in bulk; `
  + `${JSON.stringify(auditor.counts)}; ${passing.forgotten} forgotten; `
  + `${sum('attaches')} attaches, ${sum('hot')} hot and ${sum('cold')} cold recoveries of `
  + `${sum('replayed')} frames, ${sum('window')} past the window, ${sum('cut')} cuts; `
  + `${Math.round((Date.now() - began) / 1000)} s`);
if (auditor.faults.length === 0) world.clean();
else console.log(`${auditor.faults.length} faults; the directory is kept: ${world.dir}`);
console.log(`${totals.cases - totals.bad} passed, ${totals.bad} failed`);
process.exit(totals.bad === 0 && totals.kills > 0 ? 0 : 1);
