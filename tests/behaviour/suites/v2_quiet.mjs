/* v2_quiet.mjs - channels where nobody speaks: their homes give the stream up once an attach is
 * answered, and nobody can tell.
 *
 * Source   settled 30; the memory bar of 768 B for a V2 socket with one subscription.
 */
import { suite } from '../runner.mjs';
import { assert, eventually } from '../expect.mjs';
import { app_entry } from '../apps.mjs';
import { Lives, mem, mem_config, v2 } from '../memory.mjs';
import { metric } from '../metrics.mjs';
import { post } from '../stored.mjs';
import { V2, data_of } from '../v2_client.mjs';

const s = suite('v2 quiet channels', { none: true, parallel: 2 });
const ring = app_entry('ringonly', { history: { enabled: false } });
const config = { ...mem_config, app_manager: { array: { apps: [...Object.values(mem), ring] } } };
/* Annotation summaries are asked for behind the success frame: a stream of theirs may still go. */
const settled = (lives, count) =>
  eventually(async () => await metric(lives.server, 'sockudo_streams') === count,
             `${count} streams`);
const names = Array.from({ length: 24 }, (_, i) => `quiet-${i}`);

for (const [what, app] of [['with history', mem.app], ['from the ring only', ring]]) {
  s.test(`${what}: no stream stays behind an attach, the next publish has it again`, async (t) => {
    const lives = new Lives(t, config);
    await lives.start();
    const ws = await v2(t, { port: lives.port, app });
    const told = await Promise.all(names.map((name) => ws.subscribe(name)));
    await settled(lives, 0);
    const late = await v2(t, { port: lives.port, app });
    for (const [i, name] of names.entries()) {
      const again = await late.subscribe(name);
      assert.deepEqual([again.stream_id, again.serial], [told[i].stream_id, told[i].serial]);
    }
    await settled(lives, 0);               /* two on a channel do not keep it either */
    for (const [i, name] of names.slice(0, 3).entries()) {
      await post(lives.port, app, '/events', { name: 'e', channel: name, data: `d${i}` });
      for (const c of [ws, late]) {
        const m = await c.next((x) => x.channel === name && x.event === 'e');
        assert.deepEqual([m.stream_id, m.serial], [told[i].stream_id, 1]);
      }
    }
    await settled(lives, 3);
    const back = await v2(t, { port: lives.port, app });
    back.send(V2.resume_frame({ [names[0]]: { stream_id: told[0].stream_id, serial: 0 },
                                [names[9]]: { stream_id: told[9].stream_id, serial: 0 } }));
    back.send(back.subscribe_frame(names[0]));
    back.send(back.subscribe_frame(names[9]));
    const { recovered, failed } = data_of(await back.next((m) =>
      m.event === 'sockudo:resume_success'));
    assert.deepEqual(failed, []);
    assert.deepEqual(recovered.map((r) => [r.channel, r.replayed]).sort(),
                     [[names[0], 1], [names[9], 0]].sort());
    await lives.stop();
  });
}

s.test('a hot channel keeps its stream, also before the first word', async (t) => {
  const lives = new Lives(t, config);
  await lives.start();
  const sockets = await Promise.all(names.slice(0, 6).map(() =>
    v2(t, { port: lives.port, app: ring })));
  for (const ws of sockets) await ws.subscribe('hall');
  await settled(lives, 1);
  await post(lives.port, ring, '/events', { name: 'e', channel: 'hall', data: 'x' });
  for (const ws of sockets) assert.equal((await ws.next((m) => m.serial === 1)).data, 'x');
  await lives.stop();
});
