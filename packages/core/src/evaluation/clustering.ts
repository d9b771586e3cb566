/** Clustering of texts by their vectors, judged by the labels that they have: V-measure. */
import type { Embedder } from "../encoder/embedder.js";
import { InvalidInputError } from "../errors.js";
import { kMeans } from "../k-means/k-means.js";
import type { LabelledText } from "./classification.js";

/** All from 0 to 1. */
export interface ClusteringScores {
  /** 1 where every cluster holds one label only. */
  readonly homogeneity: number;
  /** 1 where every label lies in one cluster only. */
  readonly completeness: number;
  /** Their harmonic mean. */
  readonly vMeasure: number;
}

export interface EvaluateClusteringOptions {
  /** @default the number of different labels */
  readonly clusters?: number;
  /** Of k-means. @default 0 */
  readonly seed?: number;
  /** Starts of k-means, of which the best is kept. @default 10 */
  readonly starts?: number;
  readonly signal?: AbortSignal;
}

/** Embeds the texts as documents, groups them by spherical k-means and compares the clusters with the labels. */
export async function evaluateClustering(
  embedder: Embedder,
  texts: readonly LabelledText[],
  options: EvaluateClusteringOptions = {},
): Promise<ClusteringScores & { readonly clusters: readonly number[] }> {
  const labels = texts.map(({ label }) => label);
  const { clusters: k = new Set(labels).size, seed = 0, starts = 10, signal } = options;
  const { vectors } = await embedder.embedDocuments(
    texts.map(({ text }) => text),
    signal ? { signal } : {},
  );
  const rows = new Float32Array(vectors.length * embedder.dimensions);
  vectors.forEach((vector, i) => {
    rows.set(vector, i * embedder.dimensions);
  });
  const found = await kMeans(rows, embedder.dimensions, k, { seed, starts, ...(signal && { signal }) });
  const clusters = [...found.clusters];
  return { ...vMeasure(labels, clusters), clusters };
}

/**
 * Homogeneity 1 − H(label | cluster) / H(label), completeness 1 − H(cluster | label) / H(cluster), 1 where the divisor
 * is 0; and their harmonic mean. Raises InvalidInputError for lists of different length, and for empty ones.
 *
 * From: Rosenberg & Hirschberg 2007, "V-measure".
 */
export function vMeasure(
  labels: readonly (string | number)[],
  clusters: readonly (string | number)[],
): ClusteringScores {
  if (labels.length !== clusters.length || labels.length === 0)
    throw new InvalidInputError(
      `vMeasure: ${labels.length} labels and ${clusters.length} clusters; give one a text, and at least one.`,
    );
  const n = labels.length;
  const pairs = labels.map((label, i) => `${typeof clusters[i]} ${clusters[i]}\n${typeof label} ${label}`);
  const [ofLabels, ofClusters, ofBoth] = [entropy(labels), entropy(clusters), entropy(pairs)];
  // H(label | cluster) = H(label, cluster) − H(cluster); rounding may leave it a little below 0.
  const given = (whole: number, condition: number) => {
    const conditional = Math.max(0, ofBoth - condition);
    return whole === 0 ? 1 : Math.max(0, 1 - conditional / whole);
  };
  const [homogeneity, completeness] = [given(ofLabels, ofClusters), given(ofClusters, ofLabels)];
  const sum = homogeneity + completeness;
  return { homogeneity, completeness, vMeasure: sum === 0 ? 0 : (2 * homogeneity * completeness) / sum };

  function entropy(values: readonly (string | number)[]): number {
    const counts = new Map<string | number, number>();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    let sum = 0;
    for (const count of counts.values()) sum -= (count / n) * Math.log(count / n);
    return sum;
  }
}
