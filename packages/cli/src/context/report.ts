/** What a spectral context does to one corpus: its spectrum, the strength chosen, and the neighbours that change. */
import {
  type CorpusContext,
  describeCalibration,
  type Embedder,
  InvalidInputError,
  makePseudoQueries,
} from "@cde-js/core";

export interface NeighbourChange {
  readonly query: string;
  /** Positions in the context's texts, best first. */
  readonly without: readonly number[];
  readonly with: readonly number[];
  /** Of the best, how many are in one list only. */
  readonly changed: number;
}

export interface ContextReport {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly passages: number;
  readonly strength: CorpusContext["identity"]["strength"];
  readonly why: string;
  readonly meanNormSquared: number;
  /** Descending, mean 1; one a dimension. */
  readonly eigenvalues: readonly number[];
  /** The same behind the map, again with mean 1. */
  readonly mapped: readonly number[];
  readonly queries: readonly NeighbourChange[];
}

/** Neighbours shown of a query. */
const SHOWN = 5;
/** Queries that are made of the corpus where none are given. */
const MADE = 10;

/**
 * Of the embedders one is bound to the context, the other has none. Passages are ranked among the context's texts, which
 * is a sample of the corpus.
 * Raises InvalidInputError for a context without a map, and where no query is given and none can be made.
 */
export async function reportContext(
  context: CorpusContext,
  texts: readonly string[],
  { bound, without }: { readonly bound: Embedder; readonly without: Embedder },
  options: { readonly queries: readonly string[]; readonly signal: AbortSignal },
): Promise<ContextReport> {
  const { map } = context;
  if (!map) {
    throw new InvalidInputError(
      `report: only a spectral context can be explained by its spectrum; this one is ${context.stage}.`,
    );
  }
  // A sentence finds its own passage anyhow: what is shown are the others.
  const made = options.queries.length > 0 ? [] : makePseudoQueries(texts, MADE, 0);
  const asked = [
    ...options.queries.map((text) => ({ text, own: -1 })),
    ...made.map((query) => ({ text: query.texts[0]!, own: query.document })),
  ];
  if (asked.length === 0) {
    throw new InvalidInputError(
      "report: no passage has two sentences of five words to make a query from. Give some with --query.",
    );
  }
  const { signal } = options;
  const ask = async (embedder: Embedder) =>
    (
      await embedder.embedQueries(
        asked.map(({ text }) => text),
        { signal },
      )
    ).vectors;
  const base = rowsOf(context.vectors(), context.dimensions);
  const mappedDocuments = map.apply(base);
  const [vectors, mappedQueries] = [await ask(without), await ask(bound)];
  // Where tokens have weights, the context's own vectors aren't those without context.
  const documents = context.tokenWeights ? (await without.embedDocuments(texts, { signal })).vectors : base;
  const queries = asked.map(({ text, own }, i): NeighbourChange => {
    const [before, after] = [nearest(vectors[i]!, documents, own), nearest(mappedQueries[i]!, mappedDocuments, own)];
    return { query: text, without: before, with: after, changed: after.filter((at) => !before.includes(at)).length };
  });
  const eigenvalues = [...map.eigenvalues];
  return {
    modelId: context.modelId,
    fingerprint: context.fingerprint,
    passages: context.size,
    strength: context.identity.strength,
    why: context.calibration
      ? describeCalibration(context.calibration)
      : `strength ${JSON.stringify(context.identity.strength)}, as it was given`,
    meanNormSquared: map.meanNormSquared,
    eigenvalues,
    mapped: [...map.mappedEigenvalues],
    queries,
  };
}

function rowsOf(packed: Float32Array, width: number): Float32Array[] {
  return Array.from({ length: packed.length / width }, (_, i) => packed.subarray(i * width, (i + 1) * width));
}

function nearest(query: Float32Array, rows: readonly Float32Array[], except: number): number[] {
  const scores = rows.map((vector, row) => ({ row, sum: vector.reduce((sum, x, i) => sum + x * query[i]!, 0) }));
  return scores
    .filter(({ row }) => row !== except)
    .sort((a, b) => b.sum - a.sum)
    .slice(0, SHOWN)
    .map(({ row }) => row);
}
