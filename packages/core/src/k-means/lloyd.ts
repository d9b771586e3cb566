/** Spherical k-means from given centroids: assign each row to the nearest, average, bring back to unit length, repeat. */
import { checkPacked, checkUnitVector } from "../context/covariance.js";
import { InvalidInputError } from "../errors.js";
import type { RowProductFactory } from "../simd/product.js";
import { type Breathe, breather } from "./breather.js";
import type { MatrixRuntime } from "./matrix-runtime.js";
import { type RowSearch, rowSearch } from "./row-search.js";

export interface LloydOptions {
  /** Most averages taken; it ends earlier once no row changes its cluster. @default 50 */
  readonly iterations?: number;
  readonly signal?: AbortSignal;
  /**
   * Computes there, on as many threads as it has: worth it from some ten thousand rows on. The same seed may give other
   * clusters than without, since sums are rounded in another order.
   * @default one thread of WebAssembly SIMD
   */
  readonly runtime?: MatrixRuntime;
  /** Another implementation of the matrix product, where there is no `runtime`. @default WebAssembly SIMD */
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
  await using search = await rowSearch(rows, dimensions, options);
  return await iterate(search, rows, dimensions, centroids, options);
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
  await using search = await rowSearch(rows, dimensions, options);
  return await search.nearest(centroids);
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
  search: RowSearch,
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
  const sums = new ClusterSums(rows, dimensions, k);
  let centroids: Float32Array = initial.slice();
  for (let iterations = 0; ; iterations++) {
    const { clusters, similarities } = await search.nearest(centroids);
    const sizes = repair(clusters, similarities, k);
    const moved = await sums.assign(clusters, breathe);
    if (moved === 0 || iterations === most) {
      const objective = similarities.reduce((sum, value) => sum + value, 0) / similarities.length;
      return { centroids, clusters, similarities, sizes, objective, iterations, converged: moved === 0 };
    }
    centroids = sums.centroids(centroids);
  }
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

/** The sum of each cluster's rows in float64, changed only by rows that change their cluster: fewer each iteration. */
class ClusterSums {
  readonly #rows: Float32Array;
  readonly #dimensions: number;
  readonly #sums: Float64Array;
  #clusters: Uint32Array | undefined;

  constructor(rows: Float32Array, dimensions: number, k: number) {
    this.#rows = rows;
    this.#dimensions = dimensions;
    this.#sums = new Float64Array(k * dimensions);
  }

  /** Rows that were in another cluster before; all of them the first time. */
  async assign(clusters: Uint32Array, breathe: Breathe): Promise<number> {
    const before = this.#clusters;
    let moved = 0;
    for (let row = 0; row < clusters.length; row++) {
      const [from, to] = [before?.[row], clusters[row]!];
      if (from === to) continue;
      if (from !== undefined) this.#add(row, from, -1);
      this.#add(row, to, 1);
      if (++moved % 1024 === 0) await breathe();
    }
    this.#clusters = clusters;
    return moved;
  }

  /** Their directions. */
  centroids(before: Float32Array): Float32Array {
    const [sums, dimensions] = [this.#sums, this.#dimensions];
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

  #add(row: number, cluster: number, sign: 1 | -1): void {
    const [sums, rows, dimensions] = [this.#sums, this.#rows, this.#dimensions];
    const [from, to] = [row * dimensions, cluster * dimensions];
    for (let i = 0; i < dimensions; i++) sums[to + i] = sums[to + i]! + sign * rows[from + i]!;
  }
}
