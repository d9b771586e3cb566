/** What a run is judged by while it goes on: evaluators with named metrics, over the model as it is. */

import { InvalidInputError } from "../errors.js";
import { evaluateRun, type MetricName, type Qrels } from "../evaluation/metrics.js";

/** The model as it is at the moment, behind one context. Its vectors belong to no index: the next step changes them. */
export interface TrainingEmbedder {
  readonly dimensions: number;
  /** One unit vector a text, in order. */
  embedQueries(texts: readonly string[]): Promise<Float32Array[]>;
  embedDocuments(texts: readonly string[]): Promise<Float32Array[]>;
}

export interface TrainingEmbedderOptions {
  /** Context documents, for models that take some and for runs within a spectral context. @default none */
  readonly context?: readonly string[];
  /** Whose prompts to use. @default the default ones */
  readonly dataset?: string;
}

/** Gives the model as it is. */
export type BindTrainedModel = (options?: TrainingEmbedderOptions) => Promise<TrainingEmbedder>;

/** Figures of a model in training. `name` and the metrics' names make `"dev/ndcg@10"`. */
export interface Evaluator<N extends string = string, M extends string = string> {
  readonly name: N;
  evaluate(bind: BindTrainedModel): Promise<Readonly<Record<M, number>>>;
}

/** The names of an evaluator's figures: `"dev/ndcg@10"`. */
export type MetricOf<E> = E extends Evaluator<infer N, infer M> ? `${N}/${M}` : never;

/** Texts by id. */
export type Texts = ReadonlyMap<string, string>;

export interface RetrievalOptions<M extends MetricName> extends TrainingEmbedderOptions {
  readonly queries: Texts;
  readonly documents: Texts;
  readonly qrels: Qrels;
  readonly metrics: readonly M[];
}

/** trec_eval's usual depth. */
const DEPTH = 1000;

/** Exact search of all documents for every judged query, measured as trec_eval does. */
export function retrievalEvaluator<const N extends string, const M extends MetricName>(
  name: N,
  options: RetrievalOptions<M>,
): Evaluator<N, M> {
  const { queries, documents, qrels, metrics, context, dataset } = options;
  const missing = [...qrels.keys()].find((id) => !queries.has(id));
  if (missing !== undefined) {
    throw new InvalidInputError(
      `retrievalEvaluator: the qrels judge query "${missing}", which isn't among the queries.`,
    );
  }
  return {
    name,
    async evaluate(bind) {
      const embedder = await bind({ ...(context && { context }), ...(dataset !== undefined && { dataset }) });
      const judged = [...qrels.keys()];
      const documentIds = [...documents.keys()];
      const rows = await embedder.embedDocuments([...documents.values()]);
      const vectors = await embedder.embedQueries(judged.map((id) => queries.get(id)!));
      const run = new Map(judged.map((id, i) => [id, nearest(vectors[i]!, documentIds, rows)]));
      return evaluateRun(qrels, run, metrics).mean;
    },
  };
}

/** The documents most like the query, with their cosines. */
function nearest(query: Float32Array, ids: readonly string[], rows: readonly Float32Array[]): Map<string, number> {
  const scores = rows.map((row) => dot(query, row));
  const order = Uint32Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
  return new Map(Array.from(order.subarray(0, DEPTH), (i) => [ids[i]!, scores[i]!]));
}

export function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
