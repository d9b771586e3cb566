/** Spherical k-means from given centroids: assign each row to the nearest, average, bring back to unit length, repeat. */
import { setImmediate as pause } from "node:timers/promises";
import { checkPacked, checkUnitVector } from "../context/covariance.js";
import { InvalidInputError } from "../errors.js";
import { ROW_BLOCK, type RowProductFactory, simdRowProduct } from "../simd/product.js";

export interface LloydOptions {
  /** Most averages taken; it ends earlier once no row changes its cluster. @default 50 */
  readonly iterations?: number;
  readonly signal?: AbortSignal;
  /** Another implementation of the matrix product, say on many threads. @default one thread of WebAssembly SIMD */
  readonly rowProduct?: RowProductFactory;
}

export interface Assignment {
  /** Cluster of each row. Of equally near centroids, the first. */
  readonly clusters: Uint32Array;
  /** Cosine of each row and its cluster's centroid. */
  readonly similarities: Float32Array;
}

export interface Clustering extends Assignment {
  /** Unit vectors [k, dimensions]. */
  readonly centroids: Float32Array;
  /** Rows of each cluster; none is empty. */
  readonly sizes: Uint32Array;
  /** Mean cosine of rows and their centroids: what k-means makes large. */
  readonly objective: number;
  /** Averages taken. */
  readonly iterations: number;
  /** Whether the last average changed no row's cluster. */
  readonly converged: boolean;
}

/** Milliseconds of computing after which the event loop gets a turn. */
const TURN = 15;
/** A sum of unit vectors below this has lost its direction to rounding. */
const VANISHED = 1e-6;

/**
 * Lloyd's iterations over unit rows [n, dimensions] from unit centroids [k, dimensions]. A cluster that loses all its
 * rows takes over the row least like its own centroid.
 *
 * @throws InvalidInputError for rows or centroids that aren't unit vectors (with the position), or more centroids than
 * rows
 */
export async function lloyd(
  rows: Float32Array,
  dimensions: number,
  centroids: Float32Array,
  options: LloydOptions = {},
): Promise<Clustering> {
  checkRows("lloyd", rows, dimensions);
  checkRows("lloyd (centroids)", centroids, dimensions);
  if (centroids.length === 0 || centroids.length > rows.length) {
    throw new InvalidInputError(
      `lloyd: ${centroids.length / dimensions} centroids for ${rows.length / dimensions} rows; give at least 1, at most one a row.`,
    );
  }
  return iterate(rows, dimensions, centroids, options);
}

/** The nearest centroid of each unit row. @throws InvalidInputError as `lloyd` does */
export async function assignToCentroids(
  rows: Float32Array,
  dimensions: number,
  centroids: Float32Array,
  options: Omit<LloydOptions, "iterations"> = {},
): Promise<Assignment> {
  checkRows("assignToCentroids", rows, dimensions);
  checkRows("assignToCentroids (centroids)", centroids, dimensions);
  if (centroids.length === 0) throw new InvalidInputError("assignToCentroids: got no centroids, expected at least 1.");
  return assign(rows, dimensions, centroids, options, breather(options.signal));
}

/** @internal Refuses what isn't unit rows packed into one array. */
export function checkRows(operation: string, rows: Float32Array, dimensions: number): void {
  checkPacked(operation, rows, dimensions);
  for (let position = 0; position < rows.length / dimensions; position++) {
    const row = rows.subarray(position * dimensions, (position + 1) * dimensions);
    checkUnitVector(operation, row, dimensions, position);
  }
}

/** @internal `lloyd` over what was checked. */
export async function iterate(
  rows: Float32Array,
  dimensions: number,
  initial: Float32Array,
  options: LloydOptions,
): Promise<Clustering> {
  const { iterations: most = 50, signal } = options;
  if (!Number.isSafeInteger(most) || most < 0) {
    throw new InvalidInputError(`k-means: iterations must be an integer of at least 0, got ${most}.`);
  }
  signal?.throwIfAborted();
  const breathe = breather(signal);
  const k = initial.length / dimensions;
  let centroids: Float32Array = initial.slice();
  let before: Uint32Array | undefined;
  for (let iterations = 0; ; iterations++) {
    const { clusters, similarities } = await assign(rows, dimensions, centroids, options, breathe);
    const sizes = repair(clusters, similarities, k);
    const converged = before?.every((cluster, i) => cluster === clusters[i]) ?? false;
    if (converged || iterations === most) {
      const objective = similarities.reduce((sum, value) => sum + value, 0) / similarities.length;
      return { centroids, clusters, similarities, sizes, objective, iterations, converged };
    }
    centroids = await averages(rows, dimensions, clusters, centroids, breathe);
    before = clusters;
  }
}

type Breathe = () => Promise<void> | undefined;

/** Gives the event loop a turn, and an abort its effect, where the last turn is long ago. */
export function breather(signal: AbortSignal | undefined): Breathe {
  let turn = performance.now();
  return () => {
    if (performance.now() - turn < TURN) return undefined;
    return pause().then(() => {
      signal?.throwIfAborted();
      turn = performance.now();
    });
  };
}

async function assign(
  rows: Float32Array,
  dimensions: number,
  centroids: Float32Array,
  options: LloydOptions,
  breathe: Breathe,
): Promise<Assignment> {
  const count = rows.length / dimensions;
  const k = centroids.length / dimensions;
  const columns = new Float64Array(centroids.length); // [dimensions, k]
  for (let c = 0; c < k; c++) {
    for (let i = 0; i < dimensions; i++) columns[i * k + c] = centroids[c * dimensions + i]!;
  }
  const product = (options.rowProduct ?? simdRowProduct)(columns, dimensions, k);
  const block = new Float32Array(ROW_BLOCK * k);
  const clusters = new Uint32Array(count);
  const similarities = new Float32Array(count);
  for (let first = 0; first < count; first += ROW_BLOCK) {
    const size = Math.min(ROW_BLOCK, count - first);
    product(rows.subarray(first * dimensions, (first + size) * dimensions), size, block);
    for (let r = 0; r < size; r++) {
      let best = 0;
      let most = block[r * k]!;
      for (let c = 1; c < k; c++) {
        const value = block[r * k + c]!;
        if (value > most) {
          most = value;
          best = c;
        }
      }
      clusters[first + r] = best;
      similarities[first + r] = most;
    }
    await breathe();
  }
  return { clusters, similarities };
}

/** Gives each empty cluster the row least like its own centroid, of a cluster that keeps others. Returns the sizes. */
function repair(clusters: Uint32Array, similarities: Float32Array, k: number): Uint32Array {
  const sizes = new Uint32Array(k);
  for (const cluster of clusters) sizes[cluster]! += 1;
  for (let empty = sizes.indexOf(0); empty >= 0; empty = sizes.indexOf(0, empty)) {
    let farthest = -1;
    for (let i = 0; i < clusters.length; i++) {
      if (sizes[clusters[i]!]! < 2) continue;
      if (farthest < 0 || similarities[i]! < similarities[farthest]!) farthest = i;
    }
    sizes[clusters[farthest]!]! -= 1;
    sizes[empty] = 1;
    clusters[farthest] = empty;
    similarities[farthest] = 1; // it is its new cluster's mean
  }
  return sizes;
}

async function averages(
  rows: Float32Array,
  dimensions: number,
  clusters: Uint32Array,
  before: Float32Array,
  breathe: Breathe,
): Promise<Float32Array> {
  const sums = new Float64Array(before.length);
  for (let r = 0; r < clusters.length; r++) {
    const [to, from] = [clusters[r]! * dimensions, r * dimensions];
    for (let i = 0; i < dimensions; i++) sums[to + i] = sums[to + i]! + rows[from + i]!;
    if (r % 1024 === 1023) await breathe();
  }
  const centroids = before.slice();
  for (let at = 0; at < sums.length; at += dimensions) {
    let squares = 0;
    for (let i = at; i < at + dimensions; i++) squares += sums[i]! * sums[i]!;
    const length = Math.sqrt(squares);
    // Opposite rows have no mean direction: the centroid stays where it was.
    if (length < VANISHED) continue;
    for (let i = at; i < at + dimensions; i++) centroids[i] = sums[i]! / length;
  }
  return centroids;
}
