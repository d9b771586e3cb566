/** Means over parts of the queries, by the length of the query and of its relevant documents. */
import { InvalidInputError } from "../errors.js";
import { countWords, type DataSet, wholeText } from "./data-set.js";
import type { Evaluation, MetricName } from "./metrics.js";

/** Queries of like length. */
export interface Slice<M extends MetricName = MetricName> {
  /** Least and greatest length in it, in words. */
  readonly from: number;
  readonly to: number;
  readonly queries: readonly string[];
  readonly mean: Readonly<Record<M, number>>;
}

export interface Slices<M extends MetricName = MetricName> {
  readonly queryLength: readonly Slice<M>[];
  /** Of a query: the mean length of its relevant documents, titles included. Queries without any are left out. */
  readonly documentLength: readonly Slice<M>[];
}

/** Quarters of the queries by both lengths. */
export function lengthSlices<M extends MetricName>(
  dataSet: Pick<DataSet, "documents" | "queries" | "qrels">,
  evaluation: Pick<Evaluation<M>, "perQuery" | "mean">,
): Slices<M> {
  const words = new Map(dataSet.queries.map(({ id, text }) => [id, countWords(text)]));
  const ofDocument = new Map(dataSet.documents.map((document) => [document.id, countWords(wholeText(document))]));
  const answers = new Map<string, number>();
  for (const [query, judgements] of dataSet.qrels) {
    const lengths = [...judgements].flatMap(([id, judgement]) => (judgement > 0 ? (ofDocument.get(id) ?? []) : []));
    if (lengths.length > 0) answers.set(query, lengths.reduce((sum, length) => sum + length, 0) / lengths.length);
  }
  return { queryLength: sliceBy(evaluation, words), documentLength: sliceBy(evaluation, answers) };
}

/**
 * Slices of about equally many queries, ascending by `values`. Queries of one value stay together, so there may be fewer
 * slices than asked for. Raises InvalidInputError for a query that wasn't evaluated.
 */
export function sliceBy<M extends MetricName>(
  { perQuery, mean }: Pick<Evaluation<M>, "perQuery" | "mean">,
  values: ReadonlyMap<string, number>,
  { slices = 4 }: { readonly slices?: number } = {},
): Slice<M>[] {
  if (!Number.isSafeInteger(slices) || slices < 1)
    throw new InvalidInputError(`sliceBy: slices should be an integer of at least 1, got ${slices}.`);
  for (const [query, value] of values) {
    if (!perQuery.has(query)) throw new InvalidInputError(`sliceBy: query "${query}" was not evaluated.`);
    if (!Number.isFinite(value)) throw new InvalidInputError(`sliceBy: query "${query}" has the value ${value}.`);
  }
  const sorted = [...values].sort((a, b) => a[1] - b[1]);
  const found: Slice<M>[] = [];
  const metrics = Object.keys(mean) as M[];
  for (let start = 0, part = 1; start < sorted.length; part++) {
    let end = Math.round((sorted.length * part) / slices);
    if (end <= start) continue;
    while (end < sorted.length && sorted[end]![1] === sorted[end - 1]![1]) end++;
    const entries = sorted.slice(start, end);
    const rows = entries.map(([query]) => perQuery.get(query)!);
    const means = metrics.map((metric) => [metric, rows.reduce((sum, row) => sum + row[metric], 0) / rows.length]);
    found.push({
      from: entries[0]![1],
      to: entries.at(-1)![1],
      queries: entries.map(([query]) => query),
      mean: Object.fromEntries(means) as Record<M, number>,
    });
    start = end;
  }
  return found;
}
