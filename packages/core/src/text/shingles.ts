/** Texts as sets of three-word shingles, and the keys that find similar ones without comparing all pairs. */
import { createRandom } from "../random.js";
import { comparable } from "./comparable.js";

const SHINGLE_WORDS = 3;
const BANDS = 16;
const ROWS = 4;
/** Written without spaces: every character counts as a word. */
const UNSPACED = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]/gu;

/** Hashes of the text's shingles, ascending, each once; a text of fewer words is one shingle. */
export function shingles(text: string): Uint32Array {
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

/**
 * 16 keys of a text's shingles: two texts that share one may be alike (MinHash, 16 bands of 4 hashes). At a Jaccard
 * similarity of 0.8 they share one with a chance of 99.98 %, at 0.3 with 12 %; their shingles decide.
 * From: Broder 1997, "On the resemblance and containment of documents".
 */
export function minHashBands(hashes: Uint32Array): Uint32Array {
  salts ??= fixedSalts();
  const keys = new Uint32Array(BANDS);
  for (let band = 0; band < BANDS; band++) {
    let key = band;
    for (let row = 0; row < ROWS; row++) {
      const salt = salts[band * ROWS + row]!;
      let least = 0xffff_ffff;
      for (const hash of hashes) least = Math.min(least, mix(hash ^ salt));
      key = mix(Math.imul(key, 31) ^ least);
    }
    keys[band] = key;
  }
  return keys;
}

let salts: Uint32Array | undefined;

/** Always the same: which pairs are found must not depend on anybody's seed. */
function fixedSalts(): Uint32Array {
  const random = createRandom(1);
  return Uint32Array.from({ length: BANDS * ROWS }, () => random.uint32());
}

/** Jaccard similarity of two sets of shingles, 0 to 1. */
export function shingleSimilarity(a: Uint32Array, b: Uint32Array): number {
  let [i, j, common] = [0, 0, 0];
  while (i < a.length && j < b.length) {
    const [x, y] = [a[i]!, b[j]!];
    if (x === y) common++;
    if (x <= y) i++;
    if (y <= x) j++;
  }
  return common / (a.length + b.length - common);
}
