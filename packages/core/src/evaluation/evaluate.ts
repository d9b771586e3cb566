/** Runs an embedder, an index or any search over a data set, and measures what it finds. */
import type { Embedder } from "../encoder/embedder.js";
import { InvalidInputError } from "../errors.js";
import {
  checkDataSet,
  type DataSet,
  missingDocuments,
  type ReadDataSetOptions,
  readDataSet,
  wholeText,
} from "./data-set.js";
import { exactSearch } from "./exact-search.js";
import { type Evaluation, evaluateRun, type MetricName, type Results, type Run } from "./metrics.js";
import { lengthSlices, type Slices } from "./slices.js";

/** A document that was found. Higher scores are better. */
export interface Found {
  readonly id: string;
  readonly score: number;
}

/** Any search: at most `k` different documents, best first. */
export type SearchFunction = (
  query: string,
  options: { readonly k: number; readonly signal?: AbortSignal },
) => Promise<readonly Found[]>;

/** What `CorpusIndex` of the retriever is, as far as it matters here. */
export interface SearchableIndex {
  search(
    query: string,
    options: { readonly k: number; readonly mergeByDocument: true; readonly signal?: AbortSignal },
  ): Promise<readonly Found[]>;
  /** A document by its id; where it is there, an index without the judged documents is refused. */
  get?(id: string): Promise<unknown>;
}

export interface EvaluateProgress {
  readonly step: "documents" | "queries";
  readonly done: number;
  readonly total: number;
}

export interface EvaluateOptions<M extends MetricName = MetricName> extends ReadDataSetOptions {
  /** @default DEFAULT_METRICS */
  readonly metrics?: readonly M[];
  /** Documents that are ranked a query. @default 100, or the largest cut-off of the metrics */
  readonly depth?: number;
  readonly onProgress?: (progress: EvaluateProgress) => void;
}

/** Figures, the run that they are of (for `writeTrecRun` and `writeBeirRun`), and where they come from. */
export interface EvaluationResult<M extends MetricName = MetricName> extends Evaluation<M> {
  readonly run: Run;
  readonly slices: Slices<M>;
  /** Ids of documents that the embedder cut to fit; only where an embedder alone was evaluated. */
  readonly truncated: readonly string[];
}

/** The field's usual figures. */
export const DEFAULT_METRICS = ["ndcg@10", "mrr@10", "recall@100", "success@1"] as const;

/** Queries that are embedded, or documents, between two reports of progress. */
const SLICE = 1024;

/**
 * Evaluates on a BEIR folder, or on a data set that was read before.
 *
 * An embedder alone is searched exactly, one vector a document (title, space, text), cut at what the model reads; such
 * documents are named in `truncated`. An index ranks documents by their best passage, in its own default mode; wrap it
 * in a function for another: `(query, options) => index.search(query, { ...options, mode: "lexical", mergeByDocument: true })`.
 *
 * @example
 * const { mean } = await evaluate(encoder.withContext(context), "data/nfcorpus", { metrics: ["ndcg@10"], split: "dev" });
 * @throws InvalidInputError for a metric that needs more than `depth` documents, a search that gives a document twice or
 * more than it was asked for, a data set whose queries are not exactly those judged, and an index that lacks judged documents of the corpus; else as `readDataSet`, `evaluateRun`
 */
export async function evaluate<M extends MetricName = (typeof DEFAULT_METRICS)[number]>(
  subject: Embedder | SearchableIndex | SearchFunction,
  data: string | DataSet,
  options: EvaluateOptions<M> = {},
): Promise<EvaluationResult<M>> {
  const { signal } = options;
  const metrics = options.metrics ?? (DEFAULT_METRICS as readonly string[] as readonly M[]);
  const depth = depthOf(metrics, options.depth);
  // Unknown metrics are refused before the work.
  evaluateRun(new Map([["", new Map()]]), new Map(), metrics);
  signal?.throwIfAborted();
  if (typeof data !== "string" && (options.maxQueries ?? options.seed ?? options.split) !== undefined)
    throw new InvalidInputError(
      "evaluate: split, maxQueries and seed choose what is read from a folder; this data set is read already. Leave them out.",
    );
  const dataSet = typeof data === "string" ? await readDataSet(data, options) : data;
  checkDataSet("evaluate", dataSet);
  const { run, truncated } =
    typeof subject === "function" || !("embedDocuments" in subject)
      ? { run: await runSearch(await searchOf(subject, dataSet), dataSet, depth, options), truncated: [] }
      : await runEmbedder(subject, dataSet, depth, options);
  const evaluation = evaluateRun(dataSet.qrels, run, metrics);
  return { ...evaluation, run, slices: lengthSlices(dataSet, evaluation), truncated };
}

function depthOf(metrics: readonly MetricName[], wanted: number | undefined): number {
  if (metrics.length === 0) throw new InvalidInputError("evaluate: metrics is empty. Name at least one.");
  const deepest = metrics.reduce((most, name) => Math.max(most, Number(/@(\d+)$/.exec(name)?.[1] ?? 1)), 1);
  const depth = wanted ?? Math.max(100, deepest);
  if (!Number.isSafeInteger(depth) || depth < 1)
    throw new InvalidInputError(`evaluate: depth should be an integer of at least 1, got ${depth}.`);
  if (depth < deepest)
    throw new InvalidInputError(`evaluate: a metric looks at ${deepest} documents, but depth is ${depth}. Raise it.`);
  return depth;
}

async function searchOf(subject: SearchableIndex | SearchFunction, dataSet: DataSet): Promise<SearchFunction> {
  if (typeof subject === "function") return subject;
  if (subject.get !== undefined) {
    const missing = new Set(missingDocuments(dataSet));
    const judged = new Set([...dataSet.qrels.values()].flatMap((judgements) => [...judgements.keys()]));
    for (const id of judged)
      if (!missing.has(id) && (await subject.get(id)) === undefined)
        throw new InvalidInputError(
          `evaluate: the index lacks document "${id}" of ${dataSet.name}, which is judged. Build it from this corpus, with the same ids.`,
        );
  }
  return (query, options) => subject.search(query, { ...options, mergeByDocument: true });
}

async function runSearch(
  search: SearchFunction,
  { queries }: DataSet,
  depth: number,
  { signal, onProgress }: EvaluateOptions,
): Promise<Run> {
  const run = new Map<string, Results>();
  for (const { id, text } of queries) {
    signal?.throwIfAborted();
    const found = await search(text, { k: depth, ...(signal && { signal }) });
    if (found.length > depth)
      throw new InvalidInputError(`evaluate: query "${id}" asked for ${depth} documents and got ${found.length}.`);
    run.set(id, resultsOf(id, found));
    onProgress?.({ step: "queries", done: run.size, total: queries.length });
  }
  return run;
}

/** Scores, where they fall along the ranking; else the ranking itself, as after MMR. */
function resultsOf(query: string, found: readonly Found[]): Results {
  const scores = new Map(found.map(({ id, score }) => [id, score]));
  if (scores.size !== found.length)
    throw new InvalidInputError(
      `evaluate: the search gave a document twice for query "${query}". Give the best passage of each only.`,
    );
  const falling = found.every(({ score }, i) => Number.isFinite(score) && (i === 0 || score <= found[i - 1]!.score));
  return falling ? scores : found.map(({ id }) => id);
}

async function runEmbedder(
  embedder: Embedder,
  { documents, queries }: DataSet,
  depth: number,
  { signal, onProgress }: EvaluateOptions,
): Promise<{ run: Run; truncated: string[] }> {
  const embed = async (step: EvaluateProgress["step"], texts: readonly string[]) => {
    const vectors: Float32Array[] = [];
    const truncated: number[] = [];
    for (let start = 0; start < texts.length; start += SLICE) {
      const slice = texts.slice(start, start + SLICE);
      const report = (done: number) => onProgress?.({ step, done, total: texts.length });
      // The last one of a slice is reported once all of it is here.
      const progress = ({ done }: { done: number }) => done < slice.length && report(start + done);
      const options = { onProgress: progress, ...(signal && { signal }) };
      const part = await (step === "queries"
        ? embedder.embedQueries(slice, options)
        : embedder.embedDocuments(slice, options));
      if (part.vectors.length !== slice.length)
        throw new InvalidInputError(
          `evaluate: ${embedder.modelId} gave ${part.vectors.length} vectors for ${slice.length} texts.`,
        );
      vectors.push(...part.vectors);
      truncated.push(...part.truncated.map((position) => start + position));
      report(vectors.length);
      signal?.throwIfAborted();
    }
    return { vectors, truncated };
  };
  // Blank documents have no vector and are never found, as in an index.
  const told = documents.filter((document) => wholeText(document) !== "");
  const of = await embed("documents", told.map(wholeText));
  const asked = await embed(
    "queries",
    queries.map(({ text }) => text),
  );
  const nearest = await exactSearch(asked.vectors, of.vectors, { k: depth, signal });
  const run = new Map(
    queries.map(({ id }, q) => {
      const { positions, scores } = nearest[q]!;
      return [id, new Map(positions.map((position, i) => [told[position]!.id, scores[i]!]))];
    }),
  );
  return { run, truncated: of.truncated.map((position) => told[position]!.id) };
}
