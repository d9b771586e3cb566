/** Cosine similarity in full precision, for candidates that something less precise has found. */
import type { Neighbour } from "./vector-index.js";

/** The best `k` of `labels`, whose float32 rows `vectors` holds; equal scores in the order of labels. */
export function rescore(query: Float32Array, labels: ArrayLike<number>, vectors: Float32Array, k: number): Neighbour[] {
  const dimensions = query.length;
  let queryLength = 0;
  for (const x of query) queryLength += x * x;
  const scored = Array.from(labels, (label, n) => {
    let dot = 0;
    let rowLength = 0;
    for (let i = 0; i < dimensions; i++) {
      const x = query[i] as number;
      const y = vectors[n * dimensions + i] as number;
      dot += x * y;
      rowLength += y * y;
    }
    return { label, score: Math.max(-1, Math.min(1, dot / Math.sqrt(queryLength * rowLength))) + 0 };
  });
  return scored.sort((a, b) => b.score - a.score || a.label - b.label).slice(0, k);
}
