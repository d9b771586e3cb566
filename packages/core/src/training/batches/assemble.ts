/** One batch from positions: its texts, its hard negatives, the surrogate's scores, the mask and the report. */
import type { MatrixRuntime } from "../../k-means/matrix-runtime.js";
import type { TrainingPair } from "../batch.js";
import type { PairSet } from "../data/pair-set.js";
import { textKey } from "../data/text-key.js";
import type { BatchReport } from "./batches.js";
import { difficultyOf, type FalseNegativeRule, maskFalseNegatives } from "./false-negatives.js";
import type { KnownPositives } from "./known-positives.js";
import { pairRandom } from "./seeds.js";
import type { VectorSource } from "./vector-cache.js";

/** What all batches share. */
export interface Assembly {
  readonly pairs: PairSet;
  /** Hard negatives of a pair at most. */
  readonly hardNegatives: number;
  readonly inBatchNegatives: boolean;
  readonly rule: FalseNegativeRule | undefined;
  readonly known: KnownPositives | undefined;
  readonly vectors: VectorSource | undefined;
  readonly runtime: MatrixRuntime | undefined;
  readonly seed: number;
}

export interface Assembled {
  readonly pairs: readonly TrainingPair[];
  readonly falseNegatives: Uint8Array | undefined;
  readonly report: Omit<BatchReport, "clusters">;
}

export async function assemble(
  { pairs, hardNegatives, inBatchNegatives, rule, known, vectors, runtime, seed }: Assembly,
  positions: Uint32Array,
  epoch: number,
  signal: AbortSignal | undefined,
): Promise<Assembled> {
  const read = await pairs.read(positions);
  const columnOf = new Map<number, number>();
  for (const [i, position] of positions.entries()) columnOf.set(pairs.documentKey(position), i);
  const documents = read.map(({ positive }) => positive);
  let repeatedNegatives = 0;
  /** Keys of each pair's hard negatives, those that were left out as well. */
  const ownKeys: number[][] = [];
  const chosen = read.map((pair, i): TrainingPair => {
    if (pair.negatives.length === 0) {
      ownKeys.push([]);
      return pair;
    }
    const keys = pair.negatives.map(textKey);
    ownKeys.push(keys);
    const order =
      hardNegatives < keys.length
        ? pairRandom("hard negatives", seed, epoch, positions[i]!).sample(keys.length, keys.length)
        : keys.keys();
    const negatives: string[] = [];
    for (const at of order) {
      if (negatives.length === hardNegatives) break;
      if (columnOf.has(keys[at]!)) {
        repeatedNegatives++;
        continue;
      }
      columnOf.set(keys[at]!, documents.length);
      documents.push(pair.negatives[at]!);
      negatives.push(pair.negatives[at]!);
    }
    return { ...pair, negatives };
  });

  const [rows, columns] = [read.length, documents.length];
  const own = new Uint8Array(rows * columns);
  const knownMask = known && new Uint8Array(rows * columns);
  for (const [i, position] of positions.entries()) {
    own[i * columns + i] = 1;
    for (const key of ownKeys[i]!) {
      const column = columnOf.get(key);
      if (column !== undefined) own[i * columns + column] = 1;
    }
    for (const key of known?.of(position) ?? []) {
      const column = columnOf.get(key);
      if (column !== undefined && column !== i) knownMask![i * columns + column] = 1;
    }
  }
  const scores = vectors && (await scoresOf(read, documents, vectors, runtime!, signal));
  const used = rule ? scores : undefined;
  const falseNegatives =
    rule || known || !inBatchNegatives
      ? maskFalseNegatives({
          pairs: rows,
          documents: columns,
          scores: used,
          rule,
          own,
          known: knownMask,
          inBatchNegatives,
        })
      : undefined;
  const report = count(rows, columns, { own, falseNegatives, knownMask, scores });
  return { pairs: chosen, falseNegatives, report: { ...report, repeatedNegatives } };
}

async function scoresOf(
  pairs: readonly TrainingPair[],
  documents: readonly string[],
  vectors: VectorSource,
  runtime: MatrixRuntime,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const queryVectors = await vectors.read(
    pairs.map(({ query }) => query),
    "query",
    signal,
  );
  const documentVectors = await vectors.read(documents, "document", signal);
  return runtime.product(queryVectors, documentVectors, vectors.dimensions, { signal, transfer: true });
}

interface Counted {
  readonly own: Uint8Array;
  readonly falseNegatives: Uint8Array | undefined;
  readonly knownMask: Uint8Array | undefined;
  readonly scores: Float32Array | undefined;
}

function count(
  rows: number,
  columns: number,
  { own, falseNegatives, knownMask, scores }: Counted,
): Omit<BatchReport, "clusters" | "repeatedNegatives"> {
  let [masked, knownPositives, candidates] = [0, 0, 0];
  for (let at = 0; at < rows * columns; at++) {
    const isMasked = falseNegatives?.[at] === 1;
    if (isMasked) masked++;
    if (isMasked && knownMask?.[at] === 1) knownPositives++;
    if (own[at] !== 1) candidates++;
  }
  const difficulty = scores && difficultyOf(scores, own, falseNegatives);
  return { falseNegatives: masked, knownPositives, candidates, difficulty };
}
