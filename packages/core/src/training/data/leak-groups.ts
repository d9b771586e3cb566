/** Groups of pairs that must stay together in a split: what shares a text, a group or nearly a text. */
import { minHashBands, shingleSimilarity, shingles } from "../../text/shingles.js";
import type { PairSet } from "./pair-set.js";

export interface LeakGroupOptions {
  /** Pairs of one query text stay together. */
  readonly queries: boolean;
  /** Pairs of one positive stay together. */
  readonly documents: boolean;
  /** Least Jaccard similarity of three-word shingles at which two positives count as one; false compares none. */
  readonly nearDuplicate: number | false;
  readonly signal: AbortSignal | undefined;
}

export interface LeakGroups {
  /** Number of the group of each pair, from 0 in order of first appearance. */
  readonly groupOf: Uint32Array;
  /** Pairs of each group. */
  readonly sizes: Uint32Array;
  /** Different positives that were found to be nearly another one. */
  readonly nearDuplicates: number;
}

/** Texts of one bucket that others are compared with, of those that no comparison has joined. */
const REPRESENTATIVES = 8;
const SLICE = 256;

export async function leakGroups(pairs: PairSet, options: LeakGroupOptions): Promise<LeakGroups> {
  const { queries, documents, nearDuplicate, signal } = options;
  const union = new UnionFind(pairs.size);
  const join = (key: (position: number) => number) => {
    for (const run of equalRuns(pairs.size, key)) for (const position of run) union.join(run[0]!, position);
  };
  if (queries) join((position) => pairs.queryKey(position));
  if (documents) join((position) => pairs.documentKey(position));
  join((position) => pairs.groupKey(position));
  const found = nearDuplicate === false ? 0 : await joinNearDuplicates(pairs, union, nearDuplicate, signal);
  return { ...union.groups(), nearDuplicates: found };
}

/**
 * Joins pairs whose positives are nearly the same. Of each text one pair is looked at; the keys take 64 bytes a text.
 * Texts of one bucket are compared with its first ones, so that a bucket of many texts costs no square of them.
 */
async function joinNearDuplicates(
  pairs: PairSet,
  union: UnionFind,
  least: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  const firsts = Uint32Array.from(
    [...equalRuns(pairs.size, (position) => pairs.documentKey(position), 1)].map((run) => run[0]!),
  ).sort();
  const read = async (positions: ArrayLike<number>): Promise<Uint32Array[]> => {
    signal?.throwIfAborted();
    return (await pairs.read(positions)).map(({ positive }) => shingles(positive));
  };
  const keys: Uint32Array[] = [];
  for (let from = 0; from < firsts.length; from += SLICE) {
    for (const [i, own] of (await read(firsts.subarray(from, from + SLICE))).entries()) {
      for (const [band, key] of minHashBands(own).entries()) {
        keys[band] ??= new Uint32Array(firsts.length);
        keys[band][from + i] = key;
      }
    }
  }
  let joined = 0;
  for (const band of keys) {
    for (const run of equalRuns(firsts.length, (i) => band[i]!)) {
      const positions = Uint32Array.from(run, (i) => firsts[i]!);
      if (positions.every((position) => union.find(position) === union.find(positions[0]!))) continue;
      const others: { position: number; own: Uint32Array }[] = [];
      for (let from = 0; from < positions.length; from += SLICE) {
        const slice = positions.subarray(from, from + SLICE);
        for (const [i, own] of (await read(slice)).entries()) {
          const position = slice[i]!;
          const like = others.find((other) => shingleSimilarity(own, other.own) >= least);
          if (like) joined += union.join(like.position, position) ? 1 : 0;
          else if (others.length < REPRESENTATIVES) others.push({ position, own });
        }
      }
    }
  }
  return joined;
}

/** Numbers below `count` whose keys are equal, in runs of at least `least`; NaN equals nothing. */
function* equalRuns(count: number, key: (i: number) => number, least = 2): Generator<Uint32Array> {
  const keys = Float64Array.from({ length: count }, (_, i) => key(i));
  const order = Uint32Array.from({ length: count }, (_, i) => i).sort((a, b) => keys[a]! - keys[b]! || a - b);
  for (let start = 0, i = 1; i <= count; i++) {
    if (i < count && keys[order[i]!] === keys[order[start]!]) continue;
    if (i - start >= least && !Number.isNaN(keys[order[start]!])) yield order.subarray(start, i);
    start = i;
  }
}

/** Disjoint sets of the numbers below n. The root of a set is its least number. */
class UnionFind {
  readonly #parent: Uint32Array;

  constructor(n: number) {
    this.#parent = Uint32Array.from({ length: n }, (_, i) => i);
  }

  find(i: number): number {
    const parent = this.#parent;
    let at = i;
    while (parent[at] !== at) {
      parent[at] = parent[parent[at]!]!;
      at = parent[at]!;
    }
    return at;
  }

  /** Whether they were apart. */
  join(a: number, b: number): boolean {
    const [x, y] = [this.find(a), this.find(b)];
    this.#parent[Math.max(x, y)] = Math.min(x, y);
    return x !== y;
  }

  groups(): { groupOf: Uint32Array; sizes: Uint32Array } {
    const groupOf = new Uint32Array(this.#parent.length);
    const sizes: number[] = [];
    for (let i = 0; i < groupOf.length; i++) {
      const root = this.find(i);
      groupOf[i] = root === i ? sizes.push(0) - 1 : groupOf[root]!;
      sizes[groupOf[i]!]! += 1;
    }
    return { groupOf, sizes: Uint32Array.from(sizes) };
  }
}
