/* ws_utf8.mjs - text messages are valid UTF-8, wherever the fragments are cut.
 *
 * Source   RFC 6455 8.1, RFC 3629, Unicode table 3-7; Autobahn group 6.
 */
import { suite } from '../runner.mjs';
import { OP, frame } from '../ws_raw.mjs';
import { PONG, close, conform, error, fragments, ping_with, sliced } from '../conform.mjs';

const hex = (s) => Buffer.from(s.replaceAll(' ', ''), 'hex');
const point = (n) => Buffer.from(String.fromCodePoint(n));
const text = (pad) => frame(OP.TEXT, ping_with(pad));
const HEAD = ping_with('').length - 2;          /* where the pad begins */

const valid = suite('ws 6 valid UTF-8', { shared: true });
const good = {
  'text of several scripts': Buffer.from('Hello-µ@ßöäüàá-UTF-8!! κόσμε 漢字 🎉'),
  'the first character of each length': Buffer.concat([point(0x20), point(0x80), point(0x800),
                                                       point(0x10000)]),
  'the last character of each length': Buffer.concat([point(0x7e), point(0x7ff), point(0xffff),
                                                      point(0x10ffff)]),
  'the edges of the surrogates': Buffer.concat([point(0xd7ff), point(0xe000)]),
  'the replacement character': point(0xfffd),
  'noncharacters': Buffer.concat([0xfdd0, 0xfffe, 0xffff, 0x1fffe, 0x5ffff, 0x10fffe, 0x10ffff]
    .map(point)),
  'every plane': Buffer.concat(Array.from({ length: 17 }, (_, i) => point(i * 0x10000 + 0x1234))),
};
for (const [name, pad] of Object.entries(good)) {
  conform(valid, name, [text(pad)], [PONG], ['plain', 'bytewise']);
  conform(valid, `${name}, fragments of one byte`, sliced(OP.TEXT, ping_with(pad), 1), [PONG],
          ['plain', 'bytewise']);
}
for (const cut of [1, 2, 3]) {
  conform(valid, `a four-byte character cut after byte ${cut}`,
          fragments(OP.TEXT, ping_with('🎉'), [HEAD + cut]), [PONG]);
}

const invalid = suite('ws 6 invalid UTF-8', { shared: true });
const bad = {
  'a surrogate': 'ed a0 80', 'the last surrogate': 'ed bf bf',
    'a surrogate pair': 'ed a0 bd ed b8 8e',
  'above U+10FFFF': 'f4 90 80 80', 'far above U+10FFFF': 'f7 bf bf bf',
  'five bytes': 'f8 88 80 80 80', 'six bytes': 'fc 84 80 80 80 80',
  'the largest six bytes': 'fd bf bf bf bf bf',
  'a lonely continuation byte': '80', 'the last continuation byte': 'bf',
  'several continuation bytes': '80 bf 80 bf 80',
  'every lead byte of two, alone': 'c2 20 c3 20 df 20',
  'a lead byte of three, alone': 'e0 20', 'a lead byte of four, alone': 'f0 20',
  'an incomplete three': 'e2 82', 'an incomplete four': 'f0 9f 8e', 'byte FE': 'fe',
    'byte FF': 'ff',
  'overlong slash in two': 'c0 af', 'overlong in two, last': 'c1 bf',
  'overlong slash in three': 'e0 80 af', 'overlong in three, last': 'e0 9f bf',
  'overlong slash in four': 'f0 80 80 af', 'overlong in four, last': 'f0 8f bf bf',
  'overlong slash in five': 'f8 80 80 80 af', 'overlong NUL': 'c0 80',
  'overlong NUL in three': 'e0 80 80',
  'valid text around a bad byte': '48 65 6c 6c 6f ce ba ff ce ba',
};
for (const [name, bytes] of Object.entries(bad)) {
  conform(invalid, name, [text(hex(bytes))], [close(1007)], ['plain', 'bytewise']);
  conform(invalid, `${name}, fragments of one byte`, sliced(OP.TEXT, ping_with(hex(bytes)), 1),
          [close(1007)], ['plain']);
}
conform(invalid, 'a message that ends inside a character', [frame(OP.TEXT, hex('ce ba e1 bd'))],
        [close(1007)]);
conform(invalid, 'a message whose last fragment ends inside a character',
        [frame(OP.TEXT, 'abc', { fin: false }), frame(OP.CONT, hex('e1 bd'))], [close(1007)]);
conform(invalid, 'a bad first fragment is refused before the message is complete',
        [frame(OP.TEXT, hex('ce ba ed a0 80'), { fin: false })], [close(1007)]);
conform(invalid, 'a bad byte right after a cut character',
        [frame(OP.TEXT, hex('f0 9f'), { fin: false }), frame(OP.CONT, hex('20'), { fin: false })],
        [close(1007)]);
conform(invalid, 'valid messages before it are answered', [text('ok'), text(hex('ff'))],
        [PONG, close(1007)]);
conform(invalid, 'in a binary message it is a JSON error, not a close',
        [frame(OP.BINARY, ping_with(hex('ff'))), text('ok')], [error, PONG]);
conform(invalid, 'in a ping payload it is allowed', [frame(OP.PING, hex('ff fe'))],
        [{ answer: 'pong', payload: hex('ff fe') }]);
