/** What the base model says of a batch: which documents are too good to count against a query, and how hard it is. */
import type { TrainingBatch } from "./batch.js";
import { difficultyOf, type FalseNegativeRule, maskFalseNegatives } from "./batches/false-negatives.js";
import { dot } from "./evaluation.js";

/**
 * `vectors` are the base's unit vectors of the queries, and of the documents in the order of the batch's mask. What the
 * batch masks stays masked.
 */
export function compareByBase(
  { pairs, falseNegatives }: TrainingBatch,
  vectors: { readonly queries: Float32Array; readonly documents: Float32Array },
  rule: FalseNegativeRule | null,
): { readonly falseNegatives: Uint8Array | undefined; readonly difficulty: number } {
  const owners = [...pairs.keys(), ...pairs.flatMap(({ negatives }, i) => negatives.map(() => i))];
  const width = vectors.queries.length / pairs.length;
  const documents = owners.map((_, j) => vectors.documents.subarray(j * width, (j + 1) * width));
  const scores = new Float32Array(pairs.length * documents.length);
  const own = new Uint8Array(scores.length);
  for (const i of pairs.keys()) {
    const query = vectors.queries.subarray(i * width, (i + 1) * width);
    for (const [j, document] of documents.entries()) {
      scores[i * documents.length + j] = dot(query, document);
      own[i * documents.length + j] = Number(owners[j] === i);
    }
  }
  const found = rule && maskFalseNegatives({ pairs: pairs.length, documents: documents.length, scores, rule, own });
  const mask = found ? found.map((entry, at) => entry | (falseNegatives?.[at] ?? 0)) : falseNegatives;
  return { falseNegatives: mask, difficulty: difficultyOf(scores, own, mask) ?? Number.NaN };
}
