/* metrics.mjs - reads the Prometheus text of a server, strictly.
 *
 * Shape    scrape() gives {series: Map("name{labels}" -> number), types: Map(name -> type)};
 *          value() sums the series of one name whose labels match.
 * Source   Prometheus text exposition format 0.0.4; spec/operations.md 1.1.
 */
import assert from 'node:assert/strict';
import { request } from './http_raw.mjs';

const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\[\\\\"n])*"';
const LINE = new RegExp(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\\{(${LABEL}(?:,${LABEL})*),?\\})? `
  + '([-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|Inf)|NaN)$', 'i');

export function parse_metrics(text) {
  const series = new Map();
  const types = new Map();
  const helped = new Set();
  assert.ok(text.endsWith('\n'), 'the last line is complete');
  for (const line of text.split('\n').slice(0, -1)) {
    if (line === '') continue;
    const [hash, word, name, ...rest] = line.split(' ');
    if (hash === '#') {
      if (word === 'TYPE') {
        assert.ok(!types.has(name), `${name} has one TYPE line`);
        assert.match(rest.join(' '), /^(counter|gauge|histogram)$/);
        types.set(name, rest[0]);
      } else if (word === 'HELP') {
        assert.ok(!helped.has(name), `${name} has one HELP line`);
        helped.add(name);
      }
      continue;
    }
    const m = LINE.exec(line) ?? assert.fail(`no sample: ${line}`);
    const family = types.has(m[1]) ? m[1] : m[1].replace(/_(bucket|sum|count)$/, '');
    assert.ok(types.has(family), `${m[1]} has a TYPE line before it`);
    const labels = m[2] ? m[2].match(new RegExp(LABEL, 'g')).sort().join(',') : '';
    const key = `${m[1]}{${labels}}`;
    assert.ok(!series.has(key), `${key} stands once`);
    series.set(key, Number(m[3].replace('Inf', 'Infinity')));
  }
  return { series, types };
}

export async function scrape(server) {
  const r = await request(server.metrics_port, 'GET', '/metrics');
  assert.equal(r.status, 200);
  assert.match(r.headers['content-type'], /^text\/plain; version=0\.0\.4; charset=utf-8$/);
  return parse_metrics(r.text);
}

/* The sum of the series called `name` whose labels include all of `labels`; undefined if none. */
export function value({ series }, name, labels = {}) {
  const wanted = Object.entries(labels).map(([k, v]) => `${k}="${v}"`);
  let sum;
  for (const [key, n] of series) {
    if (!key.startsWith(`${name}{`)) continue;
    const have = key.slice(name.length + 1, -1).match(new RegExp(LABEL, 'g')) ?? [];
    if (wanted.every((w) => have.includes(w))) sum = (sum ?? 0) + n;
  }
  return sum;
}

export async function metric(server, name, labels) {
  return value(await scrape(server), name, labels);
}
