/** Orders a pool by groups (strata, clusters) and says how many each may give. */
import { type Embedder, InvalidInputError, kMeans, RuntimeFailureError } from "@cde-js/core";
import { vectorFault } from "../vector-index.js";
import { dot } from "./near-duplicates.js";

export interface Group {
  readonly name: string;
  /** What it stands for: documents of a stratum, pooled texts of a cluster. */
  readonly size: number;
  /** Positions in the pool, those to take first at the head. */
  readonly positions: readonly number[];
}

/**
 * Shares `total` in proportion to the weights, by largest remainders; with `least` 1 everyone has one, where that is
 * possible. Equal remainders go to the first.
 */
export function apportion(total: number, weights: readonly number[], least: 0 | 1 = 0): number[] {
  const floor = least * weights.length <= total ? least : 0;
  const left = total - floor * weights.length;
  const sum = weights.reduce((all, weight) => all + weight, 0) || 1;
  const exact = weights.map((weight) => (left * weight) / sum);
  const shares = exact.map((value) => floor + Math.floor(value));
  const missing = total - shares.reduce((all, share) => all + share, 0);
  const byRemainder = exact.map((value, i) => ({ i, rest: value % 1 })).sort((a, b) => b.rest - a.rest || a.i - b.i);
  for (const { i } of byRemainder.slice(0, missing)) shares[i] = (shares[i] as number) + 1;
  return shares;
}

/** The pool's vectors packed [n, dimensions], checked and at unit length. */
export async function embedPool(
  embedder: Embedder,
  texts: readonly string[],
  signal: AbortSignal | undefined,
  onEmbedded: (done: number) => void,
): Promise<Float32Array> {
  const { dimensions, modelId } = embedder;
  const { vectors } = await embedder.embedDocuments(texts, {
    ...(signal ? { signal } : {}),
    onProgress: ({ done }) => onEmbedded(done),
  });
  if (vectors.length !== texts.length) {
    throw new RuntimeFailureError(
      `selectContext: ${modelId} gave ${vectors.length} vectors for ${texts.length} texts.`,
    );
  }
  const rows = new Float32Array(vectors.length * dimensions);
  vectors.forEach((vector, position) => {
    const fault = vectorFault(vector, dimensions);
    if (fault) throw new RuntimeFailureError(`selectContext: ${modelId} gave a vector (${position}) that ${fault}.`);
    const length = Math.sqrt(dot(vector, 0, 0, dimensions));
    for (let i = 0; i < dimensions; i++) rows[position * dimensions + i] = (vector[i] as number) / length;
  });
  return rows;
}

/** Clusters of unit rows, largest first; in each, those nearest to its centroid first. */
export async function clusterGroups(
  rows: Float32Array,
  dimensions: number,
  clusters: number,
  options: { readonly seed: number; readonly signal: AbortSignal | undefined },
): Promise<Group[]> {
  const count = rows.length / dimensions;
  const { seed, signal } = options;
  const found = await kMeans(rows, dimensions, Math.min(clusters, count), { seed, ...(signal ? { signal } : {}) });
  const members = Array.from(found.sizes, (): number[] => []);
  for (let position = 0; position < count; position++) {
    members[found.clusters[position] as number]?.push(position);
  }
  const nearness = (position: number): number => found.similarities[position] as number;
  return members
    .map((positions) => positions.sort((a, b) => nearness(b) - nearness(a) || a - b))
    .sort((a, b) => b.length - a.length || (a[0] as number) - (b[0] as number))
    .map((positions, i) => ({ name: `cluster ${i + 1}`, size: positions.length, positions }));
}

/**
 * k-centre greedy: the first row, then always the one least like all before it, until `size` are there or the next one
 * is as much alike as `limit`. From: Gonzalez 1985.
 */
export async function farthestFirst(
  rows: Float32Array,
  dimensions: number,
  size: number,
  limit: number,
  breathe: () => Promise<void> | undefined,
): Promise<number[]> {
  const count = rows.length / dimensions;
  const nearest = new Float64Array(count).fill(Number.NEGATIVE_INFINITY);
  const chosen: number[] = [];
  let next = 0;
  while (chosen.length < Math.min(size, count)) {
    chosen.push(next);
    nearest[next] = Number.POSITIVE_INFINITY; // never again
    let following = -1;
    for (let position = 0; position < count; position++) {
      const before = nearest[position] as number;
      if (before === Number.POSITIVE_INFINITY) continue;
      const similarity = Math.max(before, dot(rows, position * dimensions, next * dimensions, dimensions));
      nearest[position] = similarity;
      if (following < 0 || similarity < (nearest[following] as number)) following = position;
    }
    if (following < 0 || (nearest[following] as number) >= limit) break;
    next = following;
    await breathe();
  }
  return chosen;
}

/** What `stratum` says of a document: its value as a name; undefined where it has none. */
export function stratumOf<T>(document: T, stratum: string | ((document: T) => unknown), position: number): string {
  let value: unknown = document;
  if (typeof stratum === "function") value = stratum(document);
  else {
    value = (document as { metadata?: unknown } | null)?.metadata;
    for (const key of stratum.split(".")) {
      const inside = typeof value === "object" && value !== null && Object.hasOwn(value, key);
      value = inside ? (value as Record<string, unknown>)[key] : undefined;
    }
  }
  if (value === undefined || value === null) return "(none)";
  if (["string", "number", "boolean"].includes(typeof value)) return String(value);
  throw new InvalidInputError(
    `selectContext: the stratum of the document at position ${position} is of type ${Array.isArray(value) ? "array" : typeof value}, expected a string, number or boolean.`,
    { position },
  );
}
