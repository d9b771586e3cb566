/** Random vectors that are the same on every run. */

/** `count` rows of components uniform in [-1, 1), by the mulberry32 generator. */
export function randomVectors(count: number, dimensions: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count * dimensions }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  });
}
