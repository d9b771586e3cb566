/** Spherical k-means of unit vectors: seeded k-means++, Lloyd's iterations, the best of several starts. */
import { InvalidInputError } from "../errors.js";
import { createRandom, type Random } from "../random.js";
import { breather, type Clustering, checkRows, iterate, type LloydOptions } from "./lloyd.js";

export interface KMeansOptions extends LloydOptions {
  /** Equal seeds give equal clusters, to the bit where `rowProduct` is the same. @default 0 */
  readonly seed?: number;
  /** Starts, of which the one with the largest objective is kept. @default 1 */
  readonly starts?: number;
}

/** Rows a cluster that k-means++ looks at: of more, a sample. It takes time by their number times that of clusters. */
const SEED_ROWS = 16;

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
  let best: Clustering | undefined;
  for (let start = 0; start < starts; start++) {
    const initial = await spread(rows, dimensions, k, random, options.signal);
    const found = await iterate(rows, dimensions, initial, options);
    if (best === undefined || found.objective > best.objective) best = found;
  }
  return best!;
}

/** k-means++: each next centroid is a row drawn with a chance that grows with its distance from those before. */
async function spread(
  rows: Float32Array,
  dimensions: number,
  k: number,
  random: Random,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const breathe = breather(signal);
  const count = rows.length / dimensions;
  const candidates = random.sample(count, Math.min(count, SEED_ROWS * k));
  const distances = new Float64Array(candidates.length).fill(1);
  const centroids = new Float32Array(k * dimensions);
  for (let c = 0; c < k; c++) {
    const row = candidates[draw(distances, random)]! * dimensions;
    const centroid = rows.subarray(row, row + dimensions);
    centroids.set(centroid, c * dimensions);
    for (let n = 0; n < candidates.length; n++) {
      // |x − c|² / 2 of unit vectors; rounding could take it below 0, and the centroid itself must never be drawn again.
      const distance = Math.max(0, 1 - dot(rows, candidates[n]! * dimensions, centroid));
      distances[n] = distance < 1e-6 ? 0 : c === 0 ? distance : Math.min(distances[n]!, distance);
      if (n % 256 === 255) await breathe();
    }
  }
  return centroids;
}

/** An index with a chance in proportion to its weight; any, where all weights are 0 (fewer different rows than k). */
function draw(weights: Float64Array, random: Random): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (total === 0) return random.integer(weights.length);
  let left = random.next() * total;
  for (let n = 0; n < weights.length; n++) {
    left -= weights[n]!;
    if (left < 0) return n;
  }
  return weights.findLastIndex((weight) => weight > 0);
}

/** Four sums, so that additions don't wait for each other. */
function dot(rows: Float32Array, at: number, other: Float32Array): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < other.length; i += 4) {
    a += rows[at + i]! * other[i]!;
    b += rows[at + i + 1]! * other[i + 1]!;
    c += rows[at + i + 2]! * other[i + 2]!;
    d += rows[at + i + 3]! * other[i + 3]!;
  }
  for (; i < other.length; i++) a += rows[at + i]! * other[i]!;
  return a + b + c + d;
}
