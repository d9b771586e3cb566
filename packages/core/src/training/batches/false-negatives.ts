/** Which documents of a batch may not count against a query: those that the surrogate finds too good. */
import { InvalidInputError } from "../../errors.js";

/**
 * `positive`: a document at least as near to the query as its own positive, plus `margin` (the paper's eq. 4 with its
 * epsilon; cosines, so -2 to 2). `absolute`: one whose score is at least `threshold`.
 */
export type FalseNegativeRule =
  | { readonly rule: "positive"; readonly margin?: number }
  | { readonly rule: "absolute"; readonly threshold: number };

export interface MaskInput {
  /** Queries. */
  readonly pairs: number;
  /** Positives and hard negatives: columns of all matrices. */
  readonly documents: number;
  /** Surrogate scores [pairs, documents]; where absent only `known` masks. */
  readonly scores?: Float32Array | undefined;
  readonly rule?: FalseNegativeRule | undefined;
  /** 1 for a query's own positive and own hard negatives [pairs, documents]. */
  readonly own: Uint8Array;
  /** 1 for documents that the data names as another positive of the query [pairs, documents]. */
  readonly known?: Uint8Array | undefined;
  /** Whether other pairs' documents count at all. @default true */
  readonly inBatchNegatives?: boolean;
}

/** Refuses what is no rule. */
export function checkRule(operation: string, rule: FalseNegativeRule): void {
  const value = rule.rule === "positive" ? (rule.margin ?? 0) : rule.rule === "absolute" ? rule.threshold : Number.NaN;
  if (typeof value === "number" && value >= -2 && value <= 2) return;
  throw new InvalidInputError(
    `${operation}: falseNegatives must be { rule: "positive", margin? } or { rule: "absolute", threshold } with a number from -2 to 2, got ${JSON.stringify(rule)}.`,
  );
}

/**
 * The mask [pairs, documents]. The query's own positive is never masked; its own hard negatives aren't either, and
 * without in-batch negatives everything else is. SPEC.md, section 5.2.
 */
export function maskFalseNegatives(input: MaskInput): Uint8Array {
  const { pairs, documents, scores, rule, own, known, inBatchNegatives = true } = input;
  const mask = new Uint8Array(pairs * documents);
  for (let i = 0; i < pairs; i++) {
    const row = i * documents;
    const bar = scores && rule ? barOf(rule, scores[row + i]!) : Number.POSITIVE_INFINITY;
    for (let j = 0; j < documents; j++) {
      if (j === i) continue;
      const at = row + j;
      const good = (scores !== undefined && scores[at]! >= bar) || known?.[at] === 1;
      mask[at] = inBatchNegatives ? Number(good && own[at] !== 1) : Number(good || own[at] !== 1);
    }
  }
  return mask;
}

/** Mean score of queries and the documents that count against them: higher is harder. Undefined where none does. */
export function difficultyOf(scores: Float32Array, own: Uint8Array, mask: Uint8Array | undefined): number | undefined {
  let [sum, counted] = [0, 0];
  for (const [at, score] of scores.entries()) {
    if (own[at] === 1 || mask?.[at] === 1) continue;
    sum += score;
    counted++;
  }
  return counted === 0 ? undefined : sum / counted;
}

function barOf(rule: FalseNegativeRule, positive: number): number {
  return rule.rule === "absolute" ? rule.threshold : positive + (rule.margin ?? 0);
}
