/** Pairs in the tiny model's words, batches of them, and what a model's directory holds. */
import { readFileSync } from "node:fs";
import { createRandom } from "@cde-js/core";
import type { TrainingBatch, TrainingPair } from "@cde-js/core/training";

const WORDS = "flood damage rent tenant law court who pays for the of and".split(" ");

/** Pairs of short texts in which nothing but the pairing says what belongs together. */
export function tinyPairs(count: number, seed = 1, negatives = 0): TrainingPair[] {
  const random = createRandom(seed);
  const text = (mark: string) =>
    `${mark} ${Array.from({ length: 3 + random.integer(4) }, () => WORDS[random.integer(WORDS.length)]).join(" ")}`;
  return Array.from({ length: count }, (_, i) => ({
    id: `pair-${i}`,
    query: text(`q${i}`),
    positive: text(`d${i}`),
    negatives: Array.from({ length: negatives }, (_, n) => text(`n${i}x${n}`)),
  }));
}

export function batchOf(pairs: readonly TrainingPair[], dataset = "tiny"): TrainingBatch {
  return { dataset, pairs };
}

/** Batches of `size` in order, the pairs shuffled by the epoch. */
export function batchesOf(pairs: readonly TrainingPair[], size: number): (epoch: number) => TrainingBatch[] {
  return (epoch) => {
    const shuffled = createRandom(100 + epoch).shuffle(pairs);
    return Array.from({ length: Math.floor(pairs.length / size) }, (_, i) =>
      batchOf(shuffled.slice(i * size, (i + 1) * size)),
    );
  };
}

export function read(path: string): string {
  return readFileSync(path, "utf8");
}

/** Cosine of unit vectors. */
export function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}
