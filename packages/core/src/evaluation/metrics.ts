/** Retrieval metrics as trec_eval computes them, averaged over the judged queries as BEIR does. */
import { InvalidInputError } from "../errors.js";

/** Judgements by query and document: integers, relevant from 1 on. */
export type Qrels = ReadonlyMap<string, ReadonlyMap<string, number>>;

/** What a system returned by query: scores by document (higher is better), or document ids, best first. */
export type Run = ReadonlyMap<string, Results>;

/** One query's part of a run. */
export type Results = ReadonlyMap<string, number> | readonly string[];

/** A metric by name; what stands behind "@" is its cut-off, an integer from 1 on. */
export type MetricName = "map" | "mrr" | `${CutMetric}@${number}`;

type CutMetric = "ndcg" | "map" | "mrr" | "precision" | "recall" | "success";

/** Figures in [0, 1], not times 100. */
export interface Evaluation<M extends MetricName = MetricName> {
  /** Every query of the qrels, in their order; a query that the run lacks has 0 everywhere. */
  readonly perQuery: ReadonlyMap<string, Readonly<Record<M, number>>>;
  /** Means over `queries`, missing ones included. */
  readonly mean: Readonly<Record<M, number>>;
  /** Number of judged queries. */
  readonly queries: number;
  /** Judged queries that the run lacks. */
  readonly missing: readonly string[];
}

/**
 * Evaluates a run as trec_eval 9 does: nDCG's gain is the judgement itself with discount 1/log2(rank + 1); judgements
 * below 1 gain nothing; equal scores are ordered by document id (bytes of UTF-8), descending; precision@k divides by k
 * however short the list. One thing differs, as in BEIR: a judged query that the run lacks counts as 0 in the mean.
 * A run's queries without judgements are left out. A ranked list is taken in its own order, without ties.
 * Scores are compared as given; builds of trec_eval that hold them as float32 see ties where we see an order.
 *
 * Raises InvalidInputError for an unknown metric, empty qrels, a judgement that isn't an integer, a score that isn't a
 * number, and a document that stands twice in a ranked list.
 */
export function evaluateRun<M extends MetricName>(qrels: Qrels, run: Run, metrics: readonly M[]): Evaluation<M> {
  const measures = metrics.map((name) => [name, measure(name)] as const);
  if (qrels.size === 0)
    throw new InvalidInputError("evaluateRun: the qrels are empty, so there is nothing to average.");
  const perQuery = new Map<string, Record<M, number>>();
  const missing: string[] = [];
  const sums = new Float64Array(measures.length);
  for (const [query, judgements] of qrels) {
    const results = run.get(query);
    if (results === undefined) missing.push(query);
    const judged = judge(query, judgements, results ?? []);
    const row = {} as Record<M, number>;
    measures.forEach(([name, compute], i) => {
      row[name] = compute(judged);
      sums[i]! += row[name];
    });
    perQuery.set(query, row);
  }
  const mean = Object.fromEntries(metrics.map((name, i) => [name, sums[i]! / qrels.size])) as Record<M, number>;
  return { perQuery, mean, queries: qrels.size, missing };
}

/** Document ids, best first, in trec_eval's order of equal scores. */
export function rankDocuments(query: string, results: Results): string[] {
  if (!(results instanceof Map)) {
    const ids = [...(results as readonly string[])];
    const seen = new Set<string>();
    ids.forEach((id, position) => {
      if (seen.has(id))
        throw new InvalidInputError(
          `rankDocuments: query "${query}" lists document "${id}" twice, the second time at rank ${position + 1}. List each document once.`,
          { position },
        );
      seen.add(id);
    });
    return ids;
  }
  const scored = [...(results as ReadonlyMap<string, number>)];
  for (const [id, score] of scored)
    if (typeof score !== "number" || Number.isNaN(score))
      throw new InvalidInputError(
        `rankDocuments: query "${query}" gives document "${id}" the score ${score}, which can't be ordered.`,
      );
  // Two equal infinities differ by NaN, which `||` takes for the tie that it is.
  return scored.sort((a, b) => b[1] - a[1] || compareBytes(b[0], a[0])).map(([id]) => id);
}

/** One query, ready to be measured. */
interface Judged {
  /** Judgements of the documents returned, best first; unjudged and below 1 as 0. */
  readonly gains: readonly number[];
  /** All judgements of at least 1, descending. */
  readonly ideal: readonly number[];
}

function judge(query: string, judgements: ReadonlyMap<string, number>, results: Results): Judged {
  const ideal: number[] = [];
  for (const [document, judgement] of judgements) {
    if (!Number.isInteger(judgement))
      throw new InvalidInputError(
        `evaluateRun: query "${query}" judges document "${document}" as ${judgement}; judgements are integers.`,
      );
    if (judgement > 0) ideal.push(judgement);
  }
  ideal.sort((a, b) => b - a);
  return { gains: rankDocuments(query, results).map((id) => Math.max(judgements.get(id) ?? 0, 0)), ideal };
}

/** Each gets ranks up to `k` and a query with at least one relevant document. */
const formulas: Readonly<Record<CutMetric, (judged: Judged, k: number) => number>> = {
  ndcg: ({ gains, ideal }, k) => discountedGain(gains, k) / discountedGain(ideal, k),
  map: ({ gains, ideal }, k) => {
    let relevant = 0;
    let sum = 0;
    for (let i = 0; i < Math.min(k, gains.length); i++) if (gains[i]! > 0) sum += ++relevant / (i + 1);
    return sum / ideal.length;
  },
  mrr: ({ gains }, k) => {
    const first = gains.findIndex((gain) => gain > 0);
    return first === -1 || first >= k ? 0 : 1 / (first + 1);
  },
  precision: ({ gains }, k) => countRelevant(gains, k) / k,
  recall: ({ gains, ideal }, k) => countRelevant(gains, k) / ideal.length,
  success: ({ gains }, k) => (countRelevant(gains, k) > 0 ? 1 : 0),
};

function measure(name: string): (judged: Judged) => number {
  const [, metric = "", cut] = /^([a-z]+)(?:@([1-9]\d*))?$/.exec(name) ?? [];
  const uncut = metric === "map" || metric === "mrr";
  if (!Object.hasOwn(formulas, metric) || (cut === undefined && !uncut))
    throw new InvalidInputError(
      `evaluateRun: unknown metric "${name}". Known are map, mrr and ${Object.keys(formulas).join("@k, ")}@k, with k an integer from 1 on.`,
    );
  const formula = formulas[metric as CutMetric];
  const k = cut === undefined ? Number.POSITIVE_INFINITY : Number(cut);
  // Without a relevant document every metric is 0, where the formulas would divide by it.
  return (judged) => (judged.ideal.length === 0 ? 0 : formula(judged, k));
}

/** Σ gain / log2(rank + 1) over the first k ranks. */
function discountedGain(gains: readonly number[], k: number): number {
  let sum = 0;
  for (let i = 0; i < Math.min(k, gains.length); i++) sum += gains[i]! / Math.log2(i + 2);
  return sum;
}

function countRelevant(gains: readonly number[], k: number): number {
  let count = 0;
  for (let i = 0; i < Math.min(k, gains.length); i++) if (gains[i]! > 0) count++;
  return count;
}

/** As C's strcmp on UTF-8; `<` would compare UTF-16 units, another order beyond U+FFFF. */
function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a, "utf8"), Buffer.from(b, "utf8"));
}
