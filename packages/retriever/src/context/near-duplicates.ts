/** Tells whether a text or vector is nearly one that was taken before. */
import { createRandom } from "@cde-js/core";
import { comparable } from "./distinct-texts.js";

/** The position of the taken one that is too much like it, or undefined, and then this one is taken too. */
export interface NearDuplicateFilter {
  take(position: number): { readonly like: number; readonly similarity: number } | undefined;
}

const SHINGLE_WORDS = 3;
/** At a Jaccard similarity of 0.8, 16 bands of 4 find 99.98 % of pairs; at 0.3, 12 % are compared in vain. */
const BANDS = 16;
const ROWS = 4;
/** Written without spaces: every character counts as a word. */
const UNSPACED = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]/gu;

/**
 * By Jaccard similarity of the sets of three-word shingles. MinHash finds the candidates, their sets decide.
 * From: Broder 1997, "On the resemblance and containment of documents".
 */
export function byShingles(texts: readonly string[], limit: number): NearDuplicateFilter {
  const random = createRandom(1); // fixed: which pairs are found must not depend on the seed of the choice
  const salts = Uint32Array.from({ length: BANDS * ROWS }, () => random.uint32());
  const buckets = new Map<string, number[]>();
  const taken = new Map<number, Uint32Array>();
  return {
    take(position) {
      const own = shingles(texts[position] as string);
      const keys = bandsOf(own, salts);
      const seen = new Set<number>();
      for (const key of keys) {
        for (const other of buckets.get(key) ?? []) {
          if (seen.has(other)) continue;
          seen.add(other);
          const similarity = jaccard(own, taken.get(other) as Uint32Array);
          if (similarity >= limit) return { like: other, similarity };
        }
      }
      taken.set(position, own);
      for (const key of keys) {
        const bucket = buckets.get(key);
        if (bucket) bucket.push(position);
        else buckets.set(key, [position]);
      }
      return undefined;
    },
  };
}

/** By cosine of unit rows [n, dimensions]. */
export function byCosine(rows: Float32Array, dimensions: number, limit: number): NearDuplicateFilter {
  const taken: number[] = [];
  return {
    take(position) {
      for (const other of taken) {
        const similarity = dot(rows, position * dimensions, other * dimensions, dimensions);
        if (similarity >= limit) return { like: other, similarity };
      }
      taken.push(position);
      return undefined;
    },
  };
}

/** Inner product of two rows of one array; four sums, so that additions don't wait for each other. */
export function dot(rows: Float32Array, at: number, other: number, dimensions: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < dimensions; i += 4) {
    a += (rows[at + i] as number) * (rows[other + i] as number);
    b += (rows[at + i + 1] as number) * (rows[other + i + 1] as number);
    c += (rows[at + i + 2] as number) * (rows[other + i + 2] as number);
    d += (rows[at + i + 3] as number) * (rows[other + i + 3] as number);
  }
  for (; i < dimensions; i++) a += (rows[at + i] as number) * (rows[other + i] as number);
  return a + b + c + d;
}

/** Hashes of the text's shingles, ascending, each once; a text of fewer words is one shingle. */
function shingles(text: string): Uint32Array {
  const words = comparable(text).replace(UNSPACED, " $& ").trim().split(/ +/).map(hashOf);
  const count = Math.max(1, words.length - SHINGLE_WORDS + 1);
  const hashes = Uint32Array.from({ length: count }, (_, start) => {
    let hash = 0;
    for (const word of words.slice(start, start + SHINGLE_WORDS)) hash = mix(hash ^ word);
    return hash;
  }).sort();
  return hashes.filter((hash, i) => i === 0 || hash !== hashes[i - 1]);
}

function hashOf(word: string): number {
  let hash = 0x811c9dc5; // FNV-1a, of UTF-16 units
  for (let i = 0; i < word.length; i++) hash = Math.imul(hash ^ word.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** The finishing step of MurmurHash3: every bit of the input changes half of the output. */
function mix(value: number): number {
  let x = value;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

function bandsOf(hashes: Uint32Array, salts: Uint32Array): string[] {
  const signature = salts.map((salt) => {
    let least = 0xffff_ffff;
    for (const hash of hashes) least = Math.min(least, mix(hash ^ salt));
    return least;
  });
  return Array.from({ length: BANDS }, (_, band) => `${band} ${signature.subarray(band * ROWS, (band + 1) * ROWS)}`);
}

function jaccard(a: Uint32Array, b: Uint32Array): number {
  let [i, j, common] = [0, 0, 0];
  while (i < a.length && j < b.length) {
    const [x, y] = [a[i] as number, b[j] as number];
    if (x === y) common++;
    if (x <= y) i++;
    if (y <= x) j++;
  }
  return common / (a.length + b.length - common);
}
