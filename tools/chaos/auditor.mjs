/* auditor.mjs - what publishers were told and subscribers saw, compared with what is stored.
 *
 * Shape    Every request carries a token of its own (in the data of a create, in the description of
 *          a mutation). issue() notes it before it is sent, told() what was answered, refused()
 *          that it never will be stored; saw() and saw_v1() note frames. audit() reads one channel
 *          whole and compares.
 * Checks   Nothing told or seen is missing or different; nothing is stored twice; nothing is stored
 *          that was refused or never asked for; nothing stored before has changed; serials are 1..K
 *          without gap; and what stored.mjs checks of every channel.
 * Source   spec/messages-and-history.md 12: invariants 1-9, 13-15, 17, 21, 23-25.
 */
import assert from 'node:assert/strict';
import { read_channel } from '../../tests/behaviour/stored.mjs';
import { header } from '../../tests/behaviour/v2_client.mjs';

const TOKEN = /\[t\d+\]/;
const SERIALS = ['message_serial', 'version_serial', 'history_serial', 'delivery_serial'];
const V1_KEYS = new Set(['event', 'channel', 'data', 'name', 'user_id']);

export class Auditor {
  channels = new Map();
  faults = [];
  counts = { issued: 0, told: 0, seen: 0, seen_v1: 0, audits: 0, versions: 0 };
  #tokens = 0;

  token() { this.#tokens += 1; return `[t${this.#tokens}]`; }

  of(name) {
    if (!this.channels.has(name)) {
      this.channels.set(name, { name, asked: new Map(), told: new Map(), seen: new Map(),
                                full: new Map(), v1: new Set(), stream_id: undefined,
                                messages: [], stored: undefined });
    }
    return this.channels.get(name);
  }

  fault(text) {
    if (this.faults.length < 50) console.log(`FAULT ${text}`);
    this.faults.push(text);
  }

  /* ask: {token, action, message?, data?}. */
  issue(channel, ask) {
    this.counts.issued += 1;
    this.of(channel).asked.set(ask.token, { ...ask, refused: false });
  }

  refused(channel, token) { this.of(channel).asked.get(token).refused = true; }

  /* ack: the serials of an answer, or {} when it promised no more than that it is done. */
  told(channel, token, ack) {
    const c = this.of(channel);
    const before = c.told.get(token);
    const known = before && SERIALS.some((s) => before[s] !== undefined);
    if (known && ack.delivery_serial !== undefined) {
      for (const s of SERIALS) {
        if (ack[s] !== before[s]) {
          this.fault(`${channel} ${token}: ${s} was answered as ${before[s]}, now as ${ack[s]}`);
        }
      }
      return;
    }
    if (known) return;
    if (!before) this.counts.told += 1;
    c.told.set(token, ack);
    if (c.asked.get(token).action === 'create' && ack.message_serial) {
      c.messages.push(ack.message_serial);
    }
  }

  /* A V2 frame with a serial. full: the subscriber gets aggregates. */
  saw(channel, m, full) {
    const c = this.of(channel);
    this.counts.seen += 1;
    c.stream_id ??= m.stream_id;
    if (m.stream_id !== c.stream_id) {
      this.fault(`${channel}: a frame of stream ${m.stream_id}, before that ${c.stream_id}`);
    }
    let action = header(m, 'action')?.slice('message.'.length);
    if (full && action === 'append') action = 'update';     /* an aggregate goes out as either */
    const now = { action, data: m.data, message: header(m, 'message_serial'),
                  version: header(m, 'version_serial'), history: header(m, 'history_serial') };
    const kept = full ? c.full : c.seen;
    const old = kept.get(m.serial);
    if (old) {
      const same = Object.keys(now).every((k) => old[k] === now[k]);
      if (!same) {
        this.fault(`${channel}: serial ${m.serial} was ${JSON.stringify(old)}, now `
          + `${JSON.stringify(now)}`);
      }
    } else kept.set(m.serial, now);
  }

  saw_v1(channel, m) {
    const extra = Object.keys(m).filter((k) => !V1_KEYS.has(k));
    if (extra.length > 0 || /^sockudo/.test(m.event)) {
      this.fault(`${channel}: a V1 socket got ${JSON.stringify(m)}`);
    }
    const token = TOKEN.exec(m.data)?.[0];
    if (!token) this.fault(`${channel}: a V1 socket got data without a token: ${m.data}`);
    this.counts.seen_v1 += 1;
    const { v1 } = this.of(channel);       /* nothing is replayed to V1: once is all there is */
    if (v1.has(token)) this.fault(`${channel} ${token}: a V1 socket got it twice`);
    v1.add(token);
  }

  /* Reads the channel and compares. Network errors pass through; what is wrong becomes a fault. */
  async audit(port, app, name) {
    const c = this.of(name);
    try {
      const stored = await read_channel(port, app, name, { known: c.stored?.messages });
      this.#judge(c, stored);
      this.counts.audits += 1;
      this.counts.versions += stored.head;
      c.stored = stored;
      return stored;
    } catch (e) {
      if (!(e instanceof assert.AssertionError)) throw e;
      this.fault(`${name}: ${e.message}`);
      return null;
    }
  }

  #judge(c, stored) {
    const at = new Map();                    /* token -> stored version */
    for (const v of stored.versions.values()) {
      const token = TOKEN.exec(v.action === 'create' ? v.data : v.version.description)?.[0];
      const ask = c.asked.get(token);
      const what = `${c.name} ${v.delivery_serial} (${v.action} ${token})`;
      if (!ask) { this.fault(`${what}: nobody asked for this`); continue; }
      if (at.has(token)) this.fault(`${what}: stored twice, also as ${at.get(token).serial}`);
      at.set(token, v);
      if (ask.refused) this.fault(`${what}: it was refused, but is stored`);
      if (ask.action !== v.action) this.fault(`${what}: asked for as ${ask.action}`);
      if (ask.message && ask.message !== v.message_serial) {
        this.fault(`${what}: it belongs to message ${ask.message}`);
      }
      if (ask.data !== undefined && ask.data !== v.data) {
        this.fault(`${what}: data ${v.data} instead of ${ask.data}`);
      }
    }
    this.#judge_told(c, at);
    this.#judge_seen(c, stored);
    this.#judge_old(c, stored);
    for (const token of c.v1) {
      if (at.get(token)?.action !== 'create') {
        this.fault(`${c.name} ${token}: a V1 socket saw it, but it is not stored`);
      }
    }
  }

  #judge_told(c, at) {
    for (const [token, ack] of c.told) {
      const v = at.get(token);
      if (!v) {
        this.fault(`${c.name} ${token}: acknowledged as ${ack.delivery_serial}, but not stored`);
        continue;
      }
      if (ack.delivery_serial === undefined) continue;
      const have = { message_serial: v.message_serial, version_serial: v.version.serial,
                     history_serial: v.history_serial, delivery_serial: v.delivery_serial };
      for (const s of SERIALS) {
        if (ack[s] !== have[s]) {
          this.fault(`${c.name} ${token}: ${s} was answered as ${ack[s]}, stored as ${have[s]}`);
        }
      }
    }
  }

  #judge_seen(c, stored) {
    if (c.full.size > 0) this.#judge_full(c, stored);
    for (const [serial, m] of c.seen) {
      const v = stored.versions.get(serial);
      if (!v) { this.fault(`${c.name}: serial ${serial} was seen, but is not stored`); continue; }
      this.#same(c, serial, m, v, v.data);
    }
  }

  /* Aggregates: fold each message again and stop at the serials that were seen. */
  #judge_full(c, stored) {
    const wanted = new Set(c.full.keys());
    for (const { versions } of stored.messages.values()) {
      let text;
      for (const v of versions) {
        text = v.action === 'append' ? (text ?? '') + v.data : v.data;
        if (!wanted.delete(v.delivery_serial)) continue;
        this.#same(c, v.delivery_serial, c.full.get(v.delivery_serial), v, text);
      }
    }
    for (const serial of wanted) {
      this.fault(`${c.name}: serial ${serial} was seen, but is not stored`);
    }
  }

  #same(c, serial, m, v, data) {
    const ok = m.message === v.message_serial && m.version === v.version.serial
      && Number(m.history) === v.history_serial && m.data === data
      && (m.action === v.action || (v.action === 'append' && m.action === 'update'));
    if (!ok) {
      this.fault(`${c.name}: serial ${serial} was seen as ${JSON.stringify(m)}, stored is `
        + `${JSON.stringify(v)}`);
    }
  }

  #judge_old(c, stored) {
    if (!c.stored) return;
    if (c.stored.stream_id !== stored.stream_id) {
      this.fault(`${c.name}: the history stream was ${c.stored.stream_id}, `
        + `is ${stored.stream_id}`);
    }
    for (const [serial, before] of c.stored.versions) {
      const now = stored.versions.get(serial);
      if (now === before) continue;
      if (JSON.stringify(now) !== JSON.stringify(before)) {
        this.fault(`${c.name}: serial ${serial} was ${JSON.stringify(before)}, now `
          + `${JSON.stringify(now)}`);
      }
    }
  }

  /* A client's view against what is stored. */
  same_view(view, stored, what) {
    const name = `${view.channel} ${what}`;
    try { view.check_skipped(stored); } catch (e) { this.fault(`${name}: ${e.message}`); }
    if (view.next - 1 !== stored.head) {
      this.fault(`${name}: it is at ${view.next - 1}, stored are ${stored.head}`);
    }
    for (const [serial, m] of view.messages) {
      const have = stored.messages.get(serial);
      if (!have) this.fault(`${name}: message ${serial} is not stored`);
      else if (have.item.data !== m.data) {
        this.fault(`${name}: message ${serial} reads ${JSON.stringify(m.data)}, stored is `
          + `${JSON.stringify(have.item.data)}`);
      }
    }
    if (view.messages.size !== stored.messages.size) {
      this.fault(`${name}: ${view.messages.size} messages, stored are ${stored.messages.size}`);
    }
  }
}
