/** How far a model has moved from its base on texts that it was not trained on. */
import { dot } from "./evaluation.js";
import { PROBE_PAIRS } from "./probe-texts.js";

/** Similarities of the probe's texts, now against the base's. */
export interface Forgetting {
  /** Mean distance of cosines over all pairs of texts: 0 where nothing moved. */
  readonly drift: number;
  /** Pearson's correlation of those cosines, −1 to 1: 1 where their pattern is the base's, whatever their scale. */
  readonly correlation: number;
  /** Share of sentences whose own paraphrase is the most similar of all paraphrases. */
  readonly paraphrasesFound: { readonly base: number; readonly now: number };
}

/** Sentences, then their paraphrases. */
export function probeTexts(): string[] {
  return [...PROBE_PAIRS.map(([sentence]) => sentence), ...PROBE_PAIRS.map(([, paraphrase]) => paraphrase)];
}

/** Both lists hold unit vectors of `probeTexts()`. */
export function forgettingOf(base: readonly Float32Array[], now: readonly Float32Array[]): Forgetting {
  const [before, after] = [similarities(base), similarities(now)];
  const drift = before.reduce((sum, value, i) => sum + Math.abs(value - after[i]!), 0) / before.length;
  return {
    drift,
    correlation: correlation(before, after),
    paraphrasesFound: { base: paraphrasesFound(base), now: paraphrasesFound(now) },
  };
}

function similarities(vectors: readonly Float32Array[]): number[] {
  return vectors.flatMap((a, i) => vectors.slice(i + 1).map((b) => dot(a, b)));
}

function correlation(a: readonly number[], b: readonly number[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  let [product, squaresA, squaresB] = [0, 0, 0];
  a.forEach((value, i) => {
    const [x, y] = [value - meanA, b[i]! - meanB];
    product += x * y;
    squaresA += x * x;
    squaresB += y * y;
  });
  return product / Math.sqrt(squaresA * squaresB);
}

function paraphrasesFound(vectors: readonly Float32Array[]): number {
  const half = vectors.length / 2;
  const paraphrases = vectors.slice(half);
  const found = vectors.slice(0, half).filter((sentence, i) => {
    const own = dot(sentence, paraphrases[i]!);
    return paraphrases.every((other, j) => j === i || dot(sentence, other) < own);
  });
  return found.length / half;
}
