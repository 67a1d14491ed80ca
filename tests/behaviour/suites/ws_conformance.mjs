/* ws_conformance.mjs - RFC 6455: framing, ping and pong, reserved bits, opcodes, fragments, limits.
 *
 * Source   RFC 6455 section 5; the groups are those of the Autobahn test suite (1-5, 9, 10).
 */
import { suite } from '../runner.mjs';
import { OP, closeFrame, frame } from '../ws_raw.mjs';
import { PONG, close, conform, error, fragments, ping_text, ping_with, pong, sliced }
  from '../conform.mjs';

const text = (payload, options) => frame(OP.TEXT, payload, options);
const ping = (payload, options) => frame(OP.PING, payload, options);
const message = text(ping_text());

const framing = suite('ws 1 framing', { shared: true });
for (const size of [125, 126, 127, 128, 65535, 65536, 131072]) {
  conform(framing, `a text message of ${size} bytes`, [text(ping_text(size))], [PONG]);
  conform(framing, `a binary message of ${size} bytes is read like text`,
          [frame(OP.BINARY, ping_text(size))], [PONG]);
}
conform(framing, 'an empty text message', [text('')], [error]);
conform(framing, 'an empty binary message', [frame(OP.BINARY, '')], [error]);
conform(framing, 'several messages in one delivery keep their order',
        [text(ping_text()), text('{'), text(ping_text(200)), text('[]'), text(ping_text(70000))],
        [PONG, error, PONG, error, PONG]);
conform(framing, 'an unmasked frame', [message, text(ping_text(), { mask: false })],
        [PONG, close(1002)]);
conform(framing, 'an unmasked control frame', [ping('x', { mask: false })], [close(1002)]);
conform(framing, 'a 16-bit length that fits in 7 bits', [text(ping_text(80), { wide: 2 })],
        [close(1002)]);
conform(framing, 'a 64-bit length that fits in 16 bits', [text(ping_text(300), { wide: 8 })],
        [close(1002)]);
conform(framing, 'the top bit of a 64-bit length',
        [text('', { wide: 8, length: 2n ** 63n })], [close(1002)]);

const pings = suite('ws 2 ping and pong', { shared: true });
const bytes = Buffer.from([0, 255, 254, 253, 252, 251, 0, 255]);
conform(pings, 'a ping without payload', [ping('')], [pong('')]);
conform(pings, 'a ping with text', [ping('Hello, world!')], [pong('Hello, world!')]);
conform(pings, 'a ping with bytes that are no text', [ping(bytes)], [pong(bytes)]);
conform(pings, 'a ping of 125 bytes', [ping(Buffer.alloc(125, 0xfe))],
        [pong(Buffer.alloc(125, 0xfe))]);
conform(pings, 'a ping of 126 bytes', [ping(Buffer.alloc(126, 0xfe))], [close(1002)]);
conform(pings, 'unsolicited pongs are ignored',
        [frame(OP.PONG, ''), frame(OP.PONG, 'unasked'), frame(OP.PONG, 'x'), ping('after')],
        [pong('after')]);
conform(pings, 'a pong of 126 bytes', [frame(OP.PONG, Buffer.alloc(126))], [close(1002)]);
conform(pings, 'ten pings are answered in order',
        Array.from({ length: 10 }, (_, i) => ping(`payload-${i}`)),
        Array.from({ length: 10 }, (_, i) => pong(`payload-${i}`)));
conform(pings, 'pings between messages keep the order', [ping('a'), message, ping('b'), message],
        [pong('a'), PONG, pong('b'), PONG]);

const reserved = suite('ws 3 reserved bits', { shared: true });
for (let rsv = 1; rsv <= 7; rsv++) {
  conform(reserved, `reserved bits ${rsv} on a text frame`,
          [message, text(ping_text(), { rsv }), ping('late')], [PONG, close(1002)]);
}
conform(reserved, 'reserved bits on a binary frame', [frame(OP.BINARY, 'x', { rsv: 4 })],
        [close(1002)]);
conform(reserved, 'reserved bits on a ping', [ping('x', { rsv: 5 })], [close(1002)]);
conform(reserved, 'reserved bits on a close', [frame(OP.CLOSE, '', { rsv: 7 })], [close(1002)]);
conform(reserved, 'reserved bits on a continuation',
        [text('{"event":', { fin: false }), frame(OP.CONT, '1}', { rsv: 1 })], [close(1002)]);

const opcodes = suite('ws 4 opcodes', { shared: true });
for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) {
  conform(opcodes, `opcode ${opcode} without payload`, [frame(opcode, '')], [close(1002)]);
  conform(opcodes, `opcode ${opcode} after a message`,
          [message, frame(opcode, 'payload'), ping('late')], [PONG, close(1002)]);
}

const parts = suite('ws 5 fragmentation', { shared: true });
const body = ping_text(90);
const [one, two] = fragments(OP.TEXT, body, [40]);
conform(parts, 'a ping in two fragments', [ping('half', { fin: false }), frame(OP.CONT, 'rest')],
        [close(1002)]);
conform(parts, 'a pong in two fragments',
        [frame(OP.PONG, 'half', { fin: false }), frame(OP.CONT, 'rest')], [close(1002)]);
conform(parts, 'a close in two fragments', [frame(OP.CLOSE, '', { fin: false })], [close(1002)]);
conform(parts, 'a text in two fragments', [one, two], [PONG]);
conform(parts, 'a binary in two fragments', fragments(OP.BINARY, body, [7]), [PONG]);
conform(parts, 'a ping between two fragments', [one, ping('between'), two],
        [pong('between'), PONG]);
conform(parts, 'a pong between two fragments', [one, frame(OP.PONG, 'unasked'), two], [PONG]);
conform(parts, 'fragments of one byte', sliced(OP.TEXT, body, 1), [PONG]);
conform(parts, 'empty fragments in the middle', [frame(OP.TEXT, '', { fin: false }),
  frame(OP.CONT, '', { fin: false }), frame(OP.CONT, body, { fin: false }), frame(OP.CONT, '')],
        [PONG]);
conform(parts, 'only empty fragments', [frame(OP.TEXT, '', { fin: false }), frame(OP.CONT, '')],
        [error]);
conform(parts, 'a continuation without a start', [frame(OP.CONT, body), message], [close(1002)]);
conform(parts, 'an unfinished continuation without a start',
        [frame(OP.CONT, body, { fin: false }), message], [close(1002)]);
conform(parts, 'a continuation after a finished message', [one, two, two], [PONG, close(1002)]);
conform(parts, 'a new text inside a fragmented message', [one, message], [close(1002)]);
conform(parts, 'a new binary inside a fragmented message', [one, frame(OP.BINARY, body)],
        [close(1002)]);
conform(parts, 'two fragmented messages with pings everywhere',
        [ping('1'), one, ping('2'), two, ping('3'), one, ping('4'), ping('5'), two, ping('6')],
        [pong('1'), pong('2'), PONG, pong('3'), pong('4'), pong('5'), PONG, pong('6')]);
conform(parts, 'a close between two fragments wins', [one, closeFrame(1000)],
        [close(1000)], ['plain', 'bytewise']);
for (const size of [1000, 1300, 4096]) {
  conform(parts, `65536 bytes in fragments of ${size}`, sliced(OP.TEXT, ping_text(65536), size),
          [PONG]);
}
conform(parts, 'a message in 1000 fragments with a ping after each',
        sliced(OP.TEXT, ping_text(1000), 1).flatMap((f) => [f, ping('')]),
        [...Array.from({ length: 999 }, () => pong('')), PONG, pong('')], ['plain', 'random']);

/* The shared server takes messages of up to 256 KiB. */
const LIMIT = 256 * 1024;
const limits = suite('ws 9 limits', { shared: true });
conform(limits, 'a message of exactly the limit', [text(ping_text(LIMIT))], [PONG]);
conform(limits, 'a fragmented message of exactly the limit',
        sliced(OP.TEXT, ping_text(LIMIT), 65536), [PONG]);
conform(limits, 'one byte over the limit', [text(ping_text(LIMIT + 1))], [close(1009)]);
conform(limits, 'a binary message over the limit', [frame(OP.BINARY, ping_text(LIMIT + 1))],
        [close(1009)]);
conform(limits, 'the limit is checked on the header, before any payload',
        [text('', { wide: 8, length: LIMIT + 1 })], [close(1009)]);
conform(limits, 'a length of terabytes', [text('', { wide: 8, length: 2n ** 42n })],
        [close(1009)]);
conform(limits, 'fragments that add up to more than the limit',
        sliced(OP.TEXT, ping_text(LIMIT + 1), 65536), [close(1009)]);
conform(limits, 'many small fragments that add up to more than the limit',
        sliced(OP.TEXT, ping_text(LIMIT + 900), 997), [close(1009)], ['plain', 'random']);
conform(limits, 'control frames do not count towards the limit',
        sliced(OP.TEXT, ping_text(LIMIT), 32768).flatMap((f) => [f, ping('x'.repeat(125))]),
        [...Array.from({ length: 7 }, () => pong('x'.repeat(125))), PONG,
         pong('x'.repeat(125))]);
conform(limits, 'after a message at the limit small ones still work',
        [text(ping_text(LIMIT)), message, text(ping_text(LIMIT)), message],
        [PONG, PONG, PONG, PONG], ['plain', 'random']);
conform(limits, 'text of many two-byte characters', [text(ping_with('é'.repeat(60000)))], [PONG]);

/* The limit of a server that sets none. */
const standard = suite('ws 9 default limit', { config: {} });
standard.test('64 KiB pass and one byte more is refused', async (t) => {
  const app = { id: 'app-id', key: 'app-key', secret: 'app-secret' };
  const fits = await t.open(app);
  fits.text(ping_text(65536));
  await fits.until('pusher:pong');
  fits.text(ping_text(65537));
  const item = await fits.take();
  if (item.kind !== 'close' || item.code !== 1009) throw new Error(JSON.stringify(item));
  await fits.gone();
});
