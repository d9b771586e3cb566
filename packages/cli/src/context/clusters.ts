/** A context seen as clusters: how many of its documents lie together, and how much of the corpus lies with them. */
import { assignToCentroids, type CorpusContext, kMeans } from "@cde-js/core";
import type { ListedIndex } from "../listed-rows.js";

/** Clusters shown at most. */
const MOST = 12;
/** Passages of the corpus that are looked at: more would not change shares by a percent. */
const SAMPLE = 5000;
const SLICE = 1000;
/** Characters of an example. */
const SHOWN = 160;

export interface ContextCluster {
  /** Documents of the context. */
  readonly size: number;
  /** Mean cosine of them and their centre. */
  readonly tightness: number;
  /** Part of the corpus's passages that are nearest to it, from 0 to 1; null without a corpus. */
  readonly corpusShare: number | null;
  /** The passage of the corpus that is nearest to its centre. */
  readonly example: string | null;
}

export interface Coverage {
  /** Passages looked at, evenly spaced in the corpus. */
  readonly passages: number;
  /** Cosine of each and the context document nearest to it: the mean, and the value that a tenth are below. */
  readonly mean: number;
  readonly tenth: number;
  /** Half the sum of the differences of shares (context, corpus) over clusters: 0 the same, 1 nothing in common. */
  readonly imbalance: number;
  /** The passages that are least like anything in the context, worst first. */
  readonly worst: readonly { readonly id: string; readonly text: string; readonly similarity: number }[];
}

export interface ContextClusters {
  /** Largest first. */
  readonly clusters: readonly ContextCluster[];
  readonly coverage: Coverage | null;
  /** The vectors that are compared: the context's documents under the context itself where it is spectral. */
  readonly rows: Float32Array;
  readonly clusterOf: Uint32Array;
  /** Of the corpus's passages that were looked at, where there is a corpus. */
  readonly corpus: { readonly rows: Float32Array; readonly ids: readonly string[] } | null;
}

export async function clusterContext(
  context: CorpusContext,
  listed: ListedIndex | undefined,
  signal: AbortSignal,
): Promise<ContextClusters> {
  const { dimensions, size, map } = context;
  const rows = map ? map.applyRows(context.vectors()) : context.vectors();
  const k = Math.max(1, Math.min(MOST, Math.round(Math.sqrt(size / 4))));
  const found = await kMeans(rows, dimensions, k, { starts: 3, signal });
  const order = [...found.sizes.keys()].sort(
    (a, b) => (found.sizes[b] as number) - (found.sizes[a] as number) || a - b,
  );
  const rank = new Map(order.map((cluster, i) => [cluster, i]));
  const clusterOf = found.clusters.map((cluster) => rank.get(cluster) as number);
  const tightness = order.map(() => 0);
  for (const [n, cluster] of clusterOf.entries()) {
    tightness[cluster] = (tightness[cluster] as number) + (found.similarities[n] as number);
  }
  const centroids = new Float32Array(found.centroids.length);
  for (const [i, cluster] of order.entries()) {
    centroids.set(found.centroids.subarray(cluster * dimensions, (cluster + 1) * dimensions), i * dimensions);
  }
  const sizes = order.map((cluster) => found.sizes[cluster] as number);
  // Vectors of another kind (a two-stage model's first stage) can't be compared with those of passages.
  const comparable = listed !== undefined && map !== undefined && listed.labels.length > 0;
  const corpus = comparable ? await compareCorpus(listed, { rows, centroids, sizes, dimensions, signal }) : undefined;
  return {
    clusters: sizes.map((count, i) => ({
      size: count,
      tightness: (tightness[i] as number) / count,
      corpusShare: corpus?.shares[i] ?? null,
      example: corpus?.examples[i] ?? null,
    })),
    coverage: corpus?.coverage ?? null,
    rows,
    clusterOf,
    corpus: corpus?.drawn ?? null,
  };
}

interface Compared {
  readonly rows: Float32Array;
  readonly centroids: Float32Array;
  readonly sizes: readonly number[];
  readonly dimensions: number;
  readonly signal: AbortSignal;
}

async function compareCorpus(listed: ListedIndex, { rows, centroids, sizes, dimensions, signal }: Compared) {
  const total = listed.labels.length;
  const count = Math.min(total, SAMPLE);
  const labels = Uint32Array.from(
    { length: count },
    (_, i) => listed.labels[Math.floor((i * total) / count)] as number,
  );
  const sample = new Float32Array(count * dimensions);
  const nearest = new Float32Array(count);
  const counts = sizes.map(() => 0);
  const best = sizes.map(() => ({ position: -1, similarity: Number.NEGATIVE_INFINITY }));
  for (let first = 0; first < count; first += SLICE) {
    const vectors = await listed.vectors(labels.slice(first, first + SLICE));
    sample.set(vectors, first * dimensions);
    const near = await assignToCentroids(vectors, dimensions, rows, { signal });
    nearest.set(near.similarities, first);
    const assigned = await assignToCentroids(vectors, dimensions, centroids, { signal });
    for (const [i, cluster] of assigned.clusters.entries()) {
      counts[cluster] = (counts[cluster] as number) + 1;
      const similarity = assigned.similarities[i] as number;
      if (similarity > (best[cluster]?.similarity as number)) best[cluster] = { position: first + i, similarity };
    }
  }
  const shares = counts.map((share) => share / count);
  const documents = sizes.reduce((sum, size) => sum + size, 0);
  const imbalance = shares.reduce((sum, share, i) => sum + Math.abs(share - (sizes[i] as number) / documents), 0) / 2;
  const ascending = [...nearest.keys()].sort((a, b) => (nearest[a] as number) - (nearest[b] as number) || a - b);
  const worst = ascending.slice(0, 3);
  const passages = await listed.passages(labels);
  const shown = (position: number): string => {
    const { title, text } = passages[position] as (typeof passages)[number];
    const line = (title === undefined ? text : `${title}: ${text}`).replace(/\s+/g, " ").trim();
    return line.length > SHOWN ? `${line.slice(0, SHOWN).toWellFormed()}…` : line;
  };
  const idOf = (position: number): string => passages[position]?.id as string;
  const coverage: Coverage = {
    passages: count,
    mean: nearest.reduce((sum, x) => sum + x, 0) / count,
    tenth: nearest[ascending[Math.floor(count / 10)] as number] as number,
    imbalance,
    worst: worst.map((n) => ({ id: idOf(n), text: shown(n), similarity: nearest[n] as number })),
  };
  return {
    shares,
    coverage,
    examples: best.map(({ position }) => (position < 0 ? null : shown(position))),
    drawn: { rows: sample, ids: passages.map(({ id, title }) => title ?? id) },
  };
}
