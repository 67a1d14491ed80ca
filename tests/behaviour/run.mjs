/* run.mjs - the behaviour tests: node run.mjs [--shards 1,2,5] [--only PATTERN] [--list]
 *
 * The last line is "N passed, N failed"; the exit code is 0 only when nothing failed and something
 * passed. --only takes the cases whose suite and claim match; --list names them all. WEFT_BIN names
 * the server; SHARDS is the default of --shards.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { WEFT_BIN } from './harness.mjs';
import { options_of } from './options.mjs';
import { run_suites, suites } from './runner.mjs';

const values = options_of(import.meta.url, {
  shards: { type: 'string', default: process.env.SHARDS ?? '1,2,5' },
  only: { type: 'string', default: '' },
  list: { type: 'boolean', default: false },
});

const folder = path.join(path.dirname(fileURLToPath(import.meta.url)), 'suites');
for (const file of fs.readdirSync(folder).filter((f) => f.endsWith('.mjs')).sort()) {
  await import(path.join(folder, file));
}

if (values.list) {
  for (const s of suites) for (const c of s.cases) console.log(`${s.title}: ${c.claim}`);
  process.exit(0);
}
if (!fs.existsSync(WEFT_BIN)) {
  console.log(`no server at ${WEFT_BIN}: build it, or set WEFT_BIN`);
  console.log('0 passed, 1 failed');
  process.exit(1);
}

const total = { passed: 0, failed: 0 };
for (const shards of values.shards.split(',').map(Number)) {
  const began = Date.now();
  const { passed, failed } = await run_suites(shards, new RegExp(values.only));
  total.passed += passed;
  total.failed += failed;
  console.log(`---- shards=${shards}: ${passed} passed, ${failed} failed, `
    + `${Math.round((Date.now() - began) / 1000)} s`);
}
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 && total.passed > 0 ? 0 : 1);
