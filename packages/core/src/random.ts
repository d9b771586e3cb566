/** The seeded generators of the SDK: `Random` for all that draws, and mulberry32 with FNV-1a for portable weights. */
import { InvalidInputError } from "./errors.js";

/** The four 32-bit words of a generator; JSON keeps them exactly. */
export type RandomState = readonly [number, number, number, number];

/**
 * xoshiro128** 1.1: period 2^128 - 1. Equal seeds give equal draws on every machine, `normal` on every machine of one
 * V8 version. Not for secrets. From: Blackman & Vigna 2021, "Scrambled linear pseudorandom number generators".
 */
export class Random {
  readonly #words: Uint32Array;

  private constructor(words: Uint32Array) {
    this.#words = words;
  }

  /** A generator that goes on where the one that gave `state` stood. Raises InvalidInputError for what is no state. */
  static fromState(state: RandomState): Random {
    // The all-zero state is a fixed point: it would return 0 for ever.
    if (state.length !== 4 || !state.every(isUint32) || state.every((word) => word === 0))
      throw new InvalidInputError(
        `Random.fromState: a state is four integers in [0, 2^32), not all 0; got ${JSON.stringify(state)}. Pass what state() returned.`,
      );
    return new Random(Uint32Array.from(state));
  }

  /** Where the generator stands; later draws don't change the returned words. */
  state(): RandomState {
    const [a, b, c, d] = this.#words;
    return [a!, b!, c!, d!];
  }

  /** 32 random bits as an integer in [0, 2^32). */
  uint32(): number {
    const s = this.#words;
    const result = Math.imul(rotateLeft(Math.imul(s[1]!, 5), 7), 9) >>> 0;
    const t = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= t;
    s[3] = rotateLeft(s[3]!, 11);
    return result;
  }

  /** A multiple of 2^-53 in [0, 1). */
  next(): number {
    const high = this.uint32() >>> 5;
    return (high * 2 ** 26 + (this.uint32() >>> 6)) / 2 ** 53;
  }

  /** An integer in [0, n), each equally likely; `n` in [1, 2^32]. */
  integer(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 2 ** 32)
      throw new InvalidInputError(`Random.integer: n should be an integer from 1 to 2^32, got ${n}.`);
    let draw: number;
    let result: number;
    do {
      draw = this.uint32();
      result = draw % n;
      // The last, incomplete run of n values would favour small results: draw again.
    } while (draw - result > 2 ** 32 - n);
    return result;
  }

  /** Standard normal. Box and Muller's pair is used by half, so that the state is the four words alone. */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.next())); // 1 - u lies in (0, 1]: the logarithm is finite
    return radius * Math.cos(2 * Math.PI * this.next());
  }

  /** A shuffled copy: each order equally likely. */
  shuffle<T>(items: Iterable<T>): T[] {
    const copy = [...items];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [copy[i], copy[j]] = [copy[j]!, copy[i]!];
    }
    return copy;
  }

  /** `k` different integers of [0, n) in random order; time and memory grow with `k` alone. */
  sample(n: number, k: number): number[] {
    if (!Number.isInteger(n) || n < 0 || n > 2 ** 32 || !Number.isInteger(k) || k < 0 || k > n)
      throw new InvalidInputError(
        `Random.sample: can't draw ${k} different integers below ${n}; n is an integer up to 2^32 and k one up to n.`,
      );
    // The first k steps of a Fisher-Yates shuffle of 0, 1, ..., n - 1, of which only moved entries are stored.
    const moved = new Map<number, number>();
    return Array.from({ length: k }, (_, i) => {
      const j = i + this.integer(n - i);
      const drawn = moved.get(j) ?? j;
      moved.set(j, moved.get(i) ?? i);
      return drawn;
    });
  }
}

/** A generator seeded by SplitMix64, as its authors advise. `seed`: an integer in [0, 2^53). */
export function createRandom(seed: number): Random {
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new InvalidInputError(`createRandom: seed should be an integer from 0 to 2^53 - 1, got ${seed}.`);
  const [first, second] = splitMix64(BigInt(seed));
  return Random.fromState([Number(first & LOW), Number(first >> 32n), Number(second & LOW), Number(second >> 32n)]);
}

/**
 * The generator that portable weights are made with (SPEC.md §12.1, check 1): numbers in [0, 1) from a 32-bit seed.
 * 32 bits of state are too few for sampling; use `createRandom` there.
 */
export function mulberry32(seed: number): () => number {
  if (!isUint32(seed))
    throw new InvalidInputError(`mulberry32: seed should be an integer from 0 to 2^32 - 1, got ${seed}.`);
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** FNV-1a, 32 bits, of the UTF-8 bytes of `text`: an integer in [0, 2^32). Spreads names over seeds; no digest. */
export function fnv1a32(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text, "utf8")) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

const LOW = 0xffff_ffffn;

/** The first two outputs of SplitMix64 (Steele, Lea & Flood 2014); they are never both 0. */
export function splitMix64(seed: bigint): [bigint, bigint] {
  const output = (state: bigint) => {
    let z = BigInt.asUintN(64, state);
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  };
  const step = 0x9e3779b97f4a7c15n;
  return [output(seed + step), output(seed + 2n * step)];
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

function isUint32(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32;
}

/** A stream for what has a name, from one seed for all of them. */
export function namedRandom(seed: number, name: string): Random {
  return createRandom((seed + fnv1a32(name)) % Number.MAX_SAFE_INTEGER);
}
