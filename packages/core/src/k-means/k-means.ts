/** Spherical k-means of unit vectors: seeded k-means++, Lloyd's iterations, the best of several starts. */
import { InvalidInputError } from "../errors.js";
import { createRandom, type Random } from "../random.js";
import { type Clustering, checkRows, iterate, type LloydOptions } from "./lloyd.js";
import { rowSearch } from "./row-search.js";

export interface KMeansOptions extends LloydOptions {
  /** Equal seeds give equal clusters, to the bit where `rowProduct` is the same. @default 0 */
  readonly seed?: number;
  /** Starts, of which the one with the largest objective is kept. @default 1 */
  readonly starts?: number;
}

/** Rows a cluster that k-means++ looks at: of more, a sample. It takes time by their number times that of clusters. */
const SEED_ROWS = 16;
/** Centroids drawn between two updates of the distances. */
const ROUND = 16;
/** Distances below this are rounding. */
const SAME = 1e-6;

/**
 * Groups unit rows [n, dimensions] into `k` clusters by cosine. Works in slices, so that the event loop stays free.
 *
 * From: Dhillon & Modha 2001 (spherical k-means), Arthur & Vassilvitskii 2007 (k-means++).
 *
 * @throws InvalidInputError for rows that aren't unit vectors (with the position), or a `k` that isn't an integer from 1
 * to n
 */
export async function kMeans(
  rows: Float32Array,
  dimensions: number,
  k: number,
  options: KMeansOptions = {},
): Promise<Clustering> {
  const { seed = 0, starts = 1 } = options;
  checkRows("kMeans", rows, dimensions);
  const count = rows.length / dimensions;
  if (!Number.isSafeInteger(k) || k < 1 || k > count) {
    throw new InvalidInputError(`kMeans: ${k} clusters of ${count} rows; k must be an integer from 1 to ${count}.`);
  }
  if (!Number.isSafeInteger(starts) || starts < 1) {
    throw new InvalidInputError(`kMeans: starts must be an integer of at least 1, got ${starts}.`);
  }
  const random = createRandom(seed);
  await using search = await rowSearch(rows, dimensions, options);
  let best: Clustering | undefined;
  for (let start = 0; start < starts; start++) {
    const initial = await spread(rows, dimensions, k, random, options);
    const found = await iterate(search, rows, dimensions, initial, options);
    if (best === undefined || found.objective > best.objective) best = found;
  }
  return best!;
}

/**
 * k-means++: each next centroid is a row drawn with a chance that grows with its distance from those before. Distances
 * are brought up to date once a round. Within one, a row is drawn by its old distance and kept with the chance
 * new / old, which gives exactly the chances of new distances.
 */
async function spread(
  rows: Float32Array,
  dimensions: number,
  k: number,
  random: Random,
  options: KMeansOptions,
): Promise<Float32Array> {
  const count = rows.length / dimensions;
  const candidates = random.sample(count, Math.min(count, SEED_ROWS * k));
  const vectors = new Float32Array(candidates.length * dimensions);
  for (const [n, row] of candidates.entries()) {
    vectors.set(rows.subarray(row * dimensions, (row + 1) * dimensions), n * dimensions);
  }
  const vector = (n: number): Float32Array => vectors.subarray(n * dimensions, (n + 1) * dimensions);
  await using search = await rowSearch(vectors, dimensions, options);
  const distances = new Float64Array(candidates.length).fill(1); // the first centroid: any, with equal chances
  const sums = new Float64Array(candidates.length);
  const centroids = new Float32Array(k * dimensions);
  for (let chosen = 0; chosen < k; ) {
    let total = 0;
    for (let n = 0; n < sums.length; n++) {
      total += distances[n]!;
      sums[n] = total;
    }
    const round: number[] = [];
    const most = Math.min(k - chosen, chosen === 0 ? 1 : ROUND);
    for (let draws = 0; round.length < most && (draws < 2 * ROUND || round.length === 0); draws++) {
      const n = total === 0 ? random.integer(sums.length) : placeOf(sums, random.next() * total);
      const old = distances[n]!;
      const near = round.reduce((least, other) => Math.min(least, distance(vector(n), vector(other))), old);
      // Where all distances are 0 (fewer different rows than k), any row will do.
      if (total > 0 && near < old && !(random.next() * old < near)) continue;
      centroids.set(vector(n), (chosen + round.length) * dimensions);
      round.push(n);
    }
    const products = await search.products(
      centroids.subarray(chosen * dimensions, (chosen + round.length) * dimensions),
    );
    for (let n = 0; n < distances.length; n++) {
      for (let c = 0; c < round.length; c++) {
        // |x − c|² / 2 of unit vectors; rounding could take it below 0, and a centroid itself must never be drawn again.
        const away = 1 - products[n * round.length + c]!;
        distances[n] = chosen === 0 ? aside(away) : Math.min(distances[n]!, aside(away));
      }
    }
    chosen += round.length;
  }
  return centroids;
}

const aside = (away: number): number => (away < SAME ? 0 : away);

function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return aside(1 - sum);
}

/** The first place whose sum is above `value`. */
function placeOf(sums: Float64Array, value: number): number {
  let [low, high] = [0, sums.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sums[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
