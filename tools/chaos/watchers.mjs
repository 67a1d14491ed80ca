/* watchers.mjs - subscribers that come back: V2 clients that resume, V1 clients, presence members.
 *
 * Shape    Each lives as long as the run. It connects to whatever server there is, loses it with
 *          the server or at random, and comes back. V2Watcher keeps a view per channel over all its
 *          lives; current() waits until the views have reached what is stored.
 * Checks   Whatever a view refuses; a resume that fails although nothing was lost; what V1 sockets
 *          must never see. All go to the auditor.
 * Source   spec/messages-and-history.md 12: 6, 7, 23, 24, 26; spec/settled.md 33-35.
 */
import { WsRaw } from '../../tests/behaviour/ws_raw.mjs';
import { join, leave } from '../../tests/behaviour/clients.mjs';
import { RESUME_ORDERS, V2, View, attach,
         open_attached } from '../../tests/behaviour/v2_client.mjs';

const RETRY_MS = 15;
const TIMER_MAX = 2 ** 31 - 1;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
/* A resume may fail for its size alone: the stream must have survived. */
const window_exceeded = (f) => f.code === 'position_expired'
  && f.reason === 'recovery_window_exceeded';

export class V2Watcher {
  views = new Map();
  counts = { attaches: 0, hot: 0, cold: 0, replayed: 0, window: 0, cut: 0 };

  constructor(world, auditor, name, full) {
    Object.assign(this, { world, auditor, name, full });
    this.rng = world.rng.fork(`v2 ${name}`);
  }

  async run() {
    while (!this.world.over) {
      const life = this.world.life;
      if (!life.up) { await sleep(RETRY_MS); continue; }
      try { await this.#one(life); } catch (e) {
        this.attached = false;
        this.client?.destroy();
        if (!life.ending && !this.#network(e)) {
          this.auditor.fault(`watcher ${this.name}: ${e.stack}`);
        }
        await sleep(RETRY_MS);
      }
    }
    this.client?.destroy();
  }

  #network(e) { return this.cutting && /the socket ended/.test(e.message); }

  /* From the connect to the end of the socket. */
  async #one(life) {
    const fault = (e) => this.auditor.fault(`watcher ${this.name}: ${e.message}`);
    const saw = (channel, m) => this.auditor.saw(channel, m, this.full);
    this.cutting = false;
    for (const v of this.views.values()) v.pending.clear();
    this.client = await open_attached(this.world.port, this.world.app,
                                      { full: this.full, saw, fault });
    const views = this.world.channels.map((c) => this.views.get(c) ?? new View(c));
    const result = await attach(this.client, views, { order: this.rng.pick(RESUME_ORDERS),
                                                      allow_failure: window_exceeded });
    for (const v of views) this.views.set(v.channel, v);
    this.counts.attaches += 1;
    for (const k of ['hot', 'cold', 'replayed']) this.counts[k] += result[k];
    this.counts.window += result.failed.length;
    this.attached = true;
    const cut = this.rng.chance(0.5) ? setTimeout(() => this.#cut(life),
                                                  60 + this.rng.below(900)) : null;
    await this.client.gone.finally(() => { clearTimeout(cut); this.attached = false; });
    if (!life.ending && !this.cutting) {
      fault(new Error(`closed: ${JSON.stringify(this.client.closed)}`));
    }
  }

  #cut(life) {
    if (life.ending || life.quiet) return;
    this.cutting = true;
    this.counts.cut += 1;
    this.client.ws.reset();
  }

  /* Waits until every view of a stored channel is at its head; gives up with the server. */
  async current(stored, life) {
    for (const [channel, s] of stored) {
      const until = Date.now() + 20000;
      while (!life.ending) {
        const view = this.views.get(channel);
        if (this.attached && view && view.next - 1 >= s.head) {
          this.auditor.same_view(view, s, `watcher ${this.name}`);
          break;
        }
        if (Date.now() > until) {
          this.auditor.fault(`watcher ${this.name}: ${channel} stays at ${view?.next - 1}, `
            + `stored are ${s.head}`);
          break;
        }
        await sleep(2);
      }
    }
  }
}

async function raw_v1(world) {
  const { key } = world.app;
  const ws = await WsRaw.connect(world.port, `/app/${key}?protocol=7&client=js&version=8.6.0`);
  ws.app = world.app;
  const m = await ws.next();
  ws.socket_id = JSON.parse(m.data).socket_id;
  return ws;
}

export class V1Watcher {
  constructor(world, auditor, name) { Object.assign(this, { world, auditor, name }); }

  async run() {
    while (!this.world.over) {
      const life = this.world.life;
      if (!life.up) { await sleep(RETRY_MS); continue; }
      try { await this.#one(); } catch (e) {
        if (!life.ending) this.auditor.fault(`V1 watcher ${this.name}: ${e.stack}`);
      }
      await sleep(RETRY_MS);
    }
  }

  async #one() {
    const ws = await raw_v1(this.world);
    for (const channel of this.world.channels) {
      ws.send({ event: 'pusher:subscribe', data: { channel, auth: '' } });
    }
    for (;;) {
      const item = await ws.take(TIMER_MAX);
      if (item.kind === 'end' || item.kind === 'reset' || item.kind === 'gone') {
        ws.destroy();
        return;
      }
      if (item.kind !== 'text') continue;
      const m = JSON.parse(item.text);
      if (m.event === 'pusher:error' && this.world.life.ending) continue;   /* a clean stop */
      if (/^pusher_internal:|^pusher:(ping|pong)/.test(m.event)) continue;
      if (m.event === 'flash') continue;     /* ephemeral: seen, never stored */
      this.auditor.saw_v1(m.channel, m);
    }
  }
}

/* A user who joins and leaves; V1 and V2 sockets alike. */
export class Member {
  constructor(world, auditor, user) {
    Object.assign(this, { world, auditor, user });
    this.rng = world.rng.fork(`member ${user}`);
  }

  async run() {
    while (!this.world.over) {
      const life = this.world.life;
      if (!life.up) { await sleep(RETRY_MS); continue; }
      let ws;
      try {
        ws = this.rng.chance(0.5) ? await raw_v1(this.world)
          : await V2.open(this.world.port, this.world.app);
        for (let n = this.rng.below(3) + 1; n > 0 && !life.ending && !life.quiet; n--) {
          const member = { user_id: this.user, user_info: { n } };
          if (ws instanceof V2) await ws.subscribe(this.world.room, { member });
          else await join(ws, this.world.room, member);
          await sleep(this.rng.below(120));
          leave(ws, this.world.room);
          await ws.flush();
        }
        if (this.rng.chance(0.5)) (ws.ws ?? ws).close(1000);
      } catch (e) {
        if (!life.ending && !this.#refused(life, e)) {
          this.auditor.fault(`member ${this.user}: ${e.stack}`);
        }
      }
      ws?.destroy();
      await sleep(this.rng.below(60) + 1);
    }
  }

  /* 4100 tells a client to come back later: no fault where the disk has failed. */
  #refused(life, e) { return life.disk_failed && /"code":4100/.test(e.message); }
}
