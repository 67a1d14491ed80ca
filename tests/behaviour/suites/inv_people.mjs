/* inv_people.mjs - invariants 26 to 28: who was there, what was annotated, who may change what.
 *
 * Source   spec/messages-and-history.md 3, 8, 9, 12; spec/settled.md 39.
 */
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { app_entry } from '../apps.mjs';
import { Lives, disk_fails, disk_heals, disk_wrap, mem, mem_config, v2 } from '../memory.mjs';
import { api } from '../http_raw.mjs';
import { join, leave, user_auth } from '../clients.mjs';
import { create, message_path, mutate, path_of, post, read, read_channel, read_message,
         read_pages } from '../stored.mjs';
import { data_of } from '../v2_client.mjs';

const s = suite('inv people', { config: mem_config, parallel: 6 });
const A = mem.app;
const many = (n, fn) => Promise.all(Array.from({ length: n }, (_, i) => fn(i)));

/* The log of a room: alternating per user, without gap; the snapshot at any serial is what the
 * events up to it add up to. Resolves to who is inside and the events. */
async function check_log(port, room) {
  const path = `${path_of(room)}/presence/history`;
  const { items } = await read_pages(port, A, path, { limit: 9 });
  const inside = new Set();
  for (const [i, e] of items.entries()) {
    assert.equal(e.serial, i + 1);
    if (e.event === 'member_added') {
      assert.ok(!inside.has(e.user_id), `${e.user_id} is added twice`);
      inside.add(e.user_id);
    } else {
      assert.equal(e.event, 'member_removed');
      assert.ok(inside.delete(e.user_id), `${e.user_id} is removed twice`);
    }
    if (i % 5 !== 0) continue;
    const at = await read(port, A, `${path}/snapshot`, { at_serial: String(e.serial) });
    assert.deepEqual(at.members.map((m) => m.user_id), [...inside].sort());
    assert.equal(at.snapshot_serial, e.serial);
  }
  const now = await read(port, A, `${path}/snapshot`);
  assert.equal(now.member_count, now.members.length);
  if (now.snapshot_serial === items.length) {          /* nothing has happened since the pages */
    assert.deepEqual(now.members.map((m) => m.user_id), [...inside].sort());
  }
  return { inside: [...inside].sort(), items };
}
const live = async (port, room) => (await read(port, A, `${path_of(room)}/users`)).users
  .map((u) => u.id).sort();

s.test('invariant 26: the presence log alternates and its snapshot is who is there', async (t) => {
  const lives = new Lives(t);
  await lives.start();
  const room = 'presence-log';
  const sockets = await many(9, (i) => t.open(A, { port: lives.port, who: i }));
  const user = (i) => ({ user_id: `u${i % 5}`, user_info: { i } });   /* some on two sockets */
  for (let round = 0; round < 6; round++) {
    await many(9, async (i) => {
      await join(sockets[i], room, user(i));
      if ((i + round) % 3 !== 0) leave(sockets[i], room);
      await sockets[i].flush();
    });
    await many(9, async (i) => { leave(sockets[i], room); await sockets[i].flush(); });
  }
  await many(4, (i) => join(sockets[i], room, user(i)));
  await eventually(async () => (await check_log(lives.port, room)).inside.join()
    === (await live(lives.port, room)).join(), 'the log to be who is there');
  assert.deepEqual(await live(lives.port, room), ['u0', 'u1', 'u2', 'u3']);
  await lives.restart();
  const back = await t.open(A, { port: lives.port });
  await join(back, room, { user_id: 'u1', user_info: {} });
  const { items } = await eventually(async () => {
    const log = await check_log(lives.port, room);
    return log.inside.join() === 'u1' && log;
  }, 'members who did not come back to be removed');
  assert.deepEqual(await live(lives.port, room), ['u1']);
  const orphans = items.filter((e) => e.cause === 'orphan_cleanup').map((e) => e.user_id).sort();
  assert.deepEqual(orphans, ['u0', 'u2', 'u3']);
  await lives.stop();
});

/* What each summarizer makes of a log of annotations (section 9). */
const people = (set) => ({ total: set.size, clientIds: [...set].sort(), clipped: false });
const named = (map, value) => Object.fromEntries([...map].map(([k, v]) => [k, value(v)]));
const of_name = (map, name, fresh) => map.get(name) ?? map.set(name, fresh()).get(name);
const SUMMARIZE = {
  total: (log) => ({ total: log.reduce((n, e) => Math.max(0, n + (e.created ? 1 : -1)), 0) }),
  flag: (log) => {
    const all = new Set();
    for (const e of log) if (e.created) all.add(e.clientId); else all.delete(e.clientId);
    return people(all);
  },
  distinct: (log) => {
    const names = new Map();
    for (const e of log) {
      if (e.created) of_name(names, e.name, () => new Set()).add(e.clientId);
      else names.get(e.name)?.delete(e.clientId);
    }
    return named(new Map([...names].filter(([, set]) => set.size > 0)), people);
  },
  unique: (log) => {
    const at = new Map();
    for (const e of log) if (e.created) at.set(e.clientId, e.name); else at.delete(e.clientId);
    const names = new Map();
    for (const [client, name] of at) of_name(names, name, () => new Set()).add(client);
    return named(names, people);
  },
  multiple: (log) => {
    const names = new Map();
    for (const e of log) {
      const counts = of_name(names, e.name, () => new Map());
      if (e.created) counts.set(e.clientId, (counts.get(e.clientId) ?? 0) + (e.count ?? 1));
      else counts.delete(e.clientId);
    }
    return named(names, (counts) => ({
      total: [...counts.values()].reduce((sum, n) => sum + n, 0), totalUnidentified: 0,
      clientCounts: Object.fromEntries(counts), clipped: false, totalClientIds: counts.size }));
  },
};

s.test('invariant 27: a summary is what the annotations add up to, deleting twice is once',
  async (t) => {
    const lives = new Lives(t);
    await lives.start();
    const c = 'notes';
    const { message_serial } = await create(lives.port, A, c, 'x');
    const path = `${message_path(c, message_serial)}/annotations`;
    const ws = await v2(t, { port: lives.port });
    await ws.subscribe(c);
    for (const [kind, summarize] of Object.entries(SUMMARIZE)) {
      const type = `reaction:${kind}.v1`;
      const made = await many(12, async (i) => (await post(lives.port, A, path,
        { type, clientId: `c${i % 4}`, name: `n${i % 3}`, count: 1 + (i % 2) })).annotationSerial);
      const doomed = made.filter((_, i) => i % 3 === 0);
      for (const serial of doomed) {
        const gone = `${path}/${encodeURIComponent(serial)}`;
        const first = await api(lives.port, A, 'DELETE', gone);
        assert.equal(first.status, 200, first.text);
        assert.equal(first.json.deletedAnnotationSerial, serial);
        const second = await api(lives.port, A, 'DELETE', gone);
        assert.deepEqual([second.status, second.json],
                         [200, { annotationSerial: serial, deletedAnnotationSerial: serial }]);
      }
      const { items } = await read(lives.port, A, path, { type });
      assert.equal(items.length, made.length + doomed.length, 'what was repeated is not logged');
      const log = items.map((e) => ({ ...e, created: e.action === 'annotation.create' }));
      let pushed;
      for (let n = 0; n < items.length; n++) {
        pushed = data_of(await ws.next((m) => m.event === 'sockudo_internal:message'));
      }
      assert.deepEqual(pushed.annotations.summary, { [type]: summarize(log) });
    }
    const snapshot = async () => {
      const other = await v2(t, { port: lives.port });
      await other.subscribe(c);
      const out = {};
      while (Object.keys(out).length < 5) {
        const m = await other.next((f) => f.event === 'sockudo_internal:message');
        Object.assign(out, data_of(m).annotations.summary);
      }
      return out;
    };
    const before = await snapshot();
    await lives.restart();
    assert.deepEqual(await snapshot(), before, 'rebuilt from the log it is the same');
    assert.equal((await read_channel(lives.port, A, c)).head, 1,
                 'annotations take no row and no delivery serial');
    await lives.stop();
  });

const slack = app_entry('slack', { channels: { annotations_enabled: true },
                                   history: { durability: 'relaxed' } });
const slack_config = { ...mem_config, app_manager: { array: { apps: [slack] } } };
const slack_lives = async (t) => {
  const lives = new Lives(t, slack_config);
  await lives.start({ wrap: disk_wrap });
  return lives;
};

s.test('invariant 26 on a relaxed channel: what a failing lane could not log follows later',
  async (t) => {
    const lives = await slack_lives(t);
    const room = 'presence-slack';
    const path = `${path_of(room)}/presence/history`;
    const ws = await t.open(slack, { port: lives.port });
    const log = async () => (await read_pages(lives.port, slack, path)).items
      .map((e) => [e.event, e.user_id]);
    await join(ws, room, { user_id: 'ann' });
    await eventually(async () => (await log()).length === 1, 'the first event');
    disk_fails(lives.server);
    leave(ws, room);
    await ws.flush();
    await join(ws, room, { user_id: 'bob' });
    disk_heals(lives.server);
    await eventually(async () => (await log()).length === 3, 'the events of the bad time');
    assert.deepEqual(await log(), [['member_added', 'ann'], ['member_removed', 'ann'],
                                   ['member_added', 'bob']]);
    await lives.stop();
  });

s.test('invariant 27 on a relaxed channel: a summary holds nothing that a failing lane lost',
  async (t) => {
    const lives = await slack_lives(t);
    const c = 'slack-notes';
    const { message_serial } = await create(lives.port, slack, c, 'x');
    const path = `${message_path(c, message_serial)}/annotations`;
    const annotate = () => api(lives.port, slack, 'POST', path,
                               { body: { type: 'like:total.v1' } });
    assert.equal((await annotate()).status, 200);
    disk_fails(lives.server);
    for (let i = 0; i < 3; i++) {
      const r = await annotate();
      assert.equal(r.status, 503, `${r.status} ${r.text}`);
    }
    disk_heals(lives.server);
    await eventually(async () => (await annotate()).status === 200, 'the lane to heal', 20000);
    const { items } = await read(lives.port, slack, path);
    const ws = await v2(t, { port: lives.port, app: slack });
    await ws.subscribe(c);
    const m = await ws.next((f) => f.event === 'sockudo_internal:message');
    assert.deepEqual(data_of(m).annotations.summary, { 'like:total.v1': { total: items.length } });
    assert.equal(items.length, 2);
    await lives.stop();
  });

/* A signed-in V2 socket with capabilities. */
async function actor(t, id, capabilities) {
  const ws = await v2(t);
  const user_data = JSON.stringify({ id, user_info: {}, capabilities });
  ws.send({ event: 'sockudo:signin',
            data: { auth: user_auth(A, ws.socket_id, user_data), user_data } });
  await ws.next((m) => m.event === 'sockudo:signin_success');
  return ws;
}
const OWN = { message_append_own: ['*'], message_update_own: ['*'], message_delete_own: ['*'] };

s.test('invariant 28: own rights end at one\'s own messages, and client_id widens nothing',
  async (t) => {
    const c = t.name();
    const [ann, bob] = [await actor(t, t.name('ann'), OWN), await actor(t, t.name('bob'), OWN)];
    const nobody = await v2(t);
    const bare = await actor(t, t.name('bare'), undefined);
    const anns = await create(t.port, A, c, 'a', { socket_id: ann.socket_id });
    const anons = await create(t.port, A, c, 'n');
    const ask = (message, action, body) => api(t.port, A, 'POST',
      `${message_path(c, message.message_serial)}/${action}`, { body });
    const ok = await ask(anns, 'append', { data: '+', socket_id: ann.socket_id });
    assert.equal(ok.status, 200, ok.text);
    const denied = [
      [anns, bob, {}], [anons, ann, {}], [anons, bob, {}], [anns, nobody, {}], [anns, bare, {}],
      [anons, nobody, {}],
    ];
    for (const [message, who, more] of denied) {
      for (const [action, body] of [['append', { data: '!' }], ['update', { data: '!' }],
                                    ['delete', {}]]) {
        const r = await ask(message, action, { ...body, ...more, socket_id: who.socket_id });
        assert.equal(r.status, 403, `${action}: ${r.status} ${r.text}`);
        assert.equal(r.json.ai_code, 93002);
      }
    }
    const ann_id = (await read_message(t.port, A, c, anns.message_serial)).version.client_id;
    for (const who of [bob, nobody, bare]) {
      const r = await ask(anns, 'append', { data: '!', socket_id: who.socket_id,
                                            client_id: ann_id });
      assert.equal(r.status, 401, `${r.status} ${r.text}`);
      assert.equal(r.json.code, 'auth_failed');
    }
    const mine = await ask(anns, 'append', { data: '+', socket_id: ann.socket_id,
                                             client_id: ann_id });
    assert.equal(mine.status, 200, mine.text);
    const server = await mutate(t.port, A, c, anons.message_serial, 'append',
                                { data: '+', client_id: 'said by the backend' });
    assert.equal(server.status, 'applied');
    const { head } = await read_channel(t.port, A, c);
    assert.equal(head, 5, 'nothing that was denied left a version');
  });
