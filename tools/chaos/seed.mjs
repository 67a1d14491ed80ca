/* seed.mjs - decisions that a number can repeat.
 *
 * Shape    seeded(seed) makes a stream of numbers; fork(name) makes an independent one, so that
 *          what one part draws does not shift what another gets.
 * Source   The mixing step of SplitMix32.
 */
export function seeded(seed) {
  let state = seed >>> 0;
  const draw = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
  const rng = {
    below: (n) => Math.floor(draw() * n),
    chance: (p) => draw() < p,
    pick: (list) => list[Math.floor(draw() * list.length)],
    /* A key of {key: weight}. */
    weighted(table) {
      let at = draw() * Object.values(table).reduce((a, b) => a + b, 0);
      for (const [key, weight] of Object.entries(table)) {
        at -= weight;
        if (at < 0) return key;
      }
      return Object.keys(table)[0];
    },
    fork(name) {
      let hash = seed >>> 0;
      for (const c of name) hash = Math.imul(hash ^ c.charCodeAt(0), 0x01000193) >>> 0;
      return seeded(hash);
    },
  };
  return rng;
}
