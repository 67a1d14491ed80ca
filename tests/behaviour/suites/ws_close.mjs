/* ws_close.mjs - the closing handshake.
 *
 * Source   RFC 6455 5.5.1, 7.1, 7.4; Autobahn group 7.
 */
import { suite } from '../runner.mjs';
import { OP, closeFrame, frame } from '../ws_raw.mjs';
import { PONG, close, conform, ping_text } from '../conform.mjs';
import { assert } from '../expect.mjs';

const message = frame(OP.TEXT, ping_text());
const s = suite('ws 7 close', { shared: true });

conform(s, 'messages before the close are answered', [message, message, closeFrame(1000)],
        [PONG, PONG, close(1000)]);
/* In one write: the server may end TCP as soon as it has answered the close. */
conform(s, 'nothing after the close is answered', [closeFrame(1000), message, message],
        [close(1000)], ['plain']);
conform(s, 'a ping after the close is not answered', [closeFrame(1000), frame(OP.PING, 'late')],
        [close(1000)], ['plain']);
conform(s, 'two closes get one answer', [closeFrame(1000), closeFrame(1000)], [close(1000)],
        ['plain']);
conform(s, 'a close with a payload of one byte', [frame(OP.CLOSE, 'x')], [close(1002)]);
conform(s, 'a reason of 123 bytes', [closeFrame(1000, 'r'.repeat(123))], [close(1000)]);
conform(s, 'a close of 126 bytes', [closeFrame(1000, 'r'.repeat(124))], [close(1002)]);
conform(s, 'a reason that is not UTF-8', [closeFrame(1000, Buffer.from([0xce, 0xba, 0xff]))],
        [close(1007)]);
conform(s, 'a reason that ends inside a character', [closeFrame(1000, Buffer.from([0xe2, 0x82]))],
        [close(1007)]);
conform(s, 'a reason with characters of every length', [closeFrame(1000, 'aé漢🎉')],
        [close(1000)]);
for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]) {
  conform(s, `code ${code} is valid and comes back`, [closeFrame(code)], [close(code)],
          ['plain', 'bytewise']);
}
for (const code of [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]) {
  conform(s, `code ${code} is not valid`, [closeFrame(code, 'why')], [close(1002)],
          ['plain', 'bytewise']);
}

for (const bytewise of [false, true]) {
  s.test(`a close without a code (${bytewise ? 'bytewise' : 'plain'})`, async (t) => {
    const ws = await t.open();
    ws.closeSent = true;
    await ws.dribble(closeFrame(), () => (bytewise ? 1 : 99));
    const item = await ws.take();
    assert.equal(item.kind, 'close');
    assert.ok(item.code === 1005 || item.code === 1000, `code ${item.code}`);
    await ws.gone();
  });
}

s.test('after a protocol error TCP ends even if the peer never answers', async (t) => {
  const ws = await t.open(undefined, { autoClose: false });
  ws.write(frame(3, ''));
  const item = await ws.take();
  assert.equal(item.code, 1002);
  await ws.gone();
});

s.test('TCP that ends without a close leaves the server in order', async (t) => {
  for (const end of ['end', 'reset', 'half']) {
    const ws = await t.open();
    if (end === 'end') ws.socket.end();
    else if (end === 'reset') ws.reset();
    else { ws.write(frame(OP.TEXT, ping_text()).subarray(0, 9)); ws.socket.end(); }
    await ws.gone();
  }
  const ws = await t.open();
  ws.write(message);
  await ws.until('pusher:pong');
});
