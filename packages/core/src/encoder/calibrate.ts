/** Chooses how strongly a spectral context acts on one corpus, from its context documents alone. */
import { type Calibration, chooseStrength, LEAST_DOCUMENTS, uncalibrated } from "../context/calibration/calibration.js";
import { gainsOver, pseudoFigures } from "../context/calibration/pseudo-gains.js";
import { makePseudoQueries, PSEUDO_QUERY_KINDS, type PseudoQuery } from "../context/calibration/pseudo-queries.js";
import { type CorpusContext, textDigest } from "../context/corpus-context.js";
import type { Spectrum } from "../context/spectrum.js";
import { InvalidInputError } from "../errors.js";
import type { Embedder, EmbedProgress } from "./embedder.js";

/** Documents that are asked for: with four queries and the rest of each, 1,000 short texts are embedded. */
const PSEUDO_QUERIES = 200;

/** What a calibration will embed. */
export interface CalibrationPlan {
  readonly pseudoQueries: readonly PseudoQuery[];
  /** Texts to embed, at most 1,000. */
  readonly texts: number;
}

export function planCalibration(documents: readonly string[], seed: number): CalibrationPlan {
  const enough = documents.length >= LEAST_DOCUMENTS;
  const pseudoQueries = enough ? makePseudoQueries(documents, PSEUDO_QUERIES, seed) : [];
  return { pseudoQueries, texts: pseudoQueries.length * (PSEUDO_QUERY_KINDS.length + 1) };
}

/** The context documents under one way to weigh tokens. */
export interface CalibrationBase {
  readonly spectrum: Spectrum;
  /** Unit base vectors of the context documents, packed. */
  readonly vectors: Float32Array;
  /** Of the token weights that they were made with. */
  readonly smoothing?: number | undefined;
}

export interface CalibrationInput {
  readonly plan: CalibrationPlan;
  /** The first with tokens that count alike; what is chosen is one of them, and a strength. */
  readonly bases: readonly CalibrationBase[];
  readonly signal?: AbortSignal | undefined;
  /**
   * Unit base vectors of texts, of all bases one after the other; `before` of the plan's texts are embedded already.
   */
  embed(kind: "query" | "document", texts: readonly string[], before: number): Promise<readonly Float32Array[]>;
}

export async function calibrateStrength(input: CalibrationInput): Promise<Calibration> {
  const { plan, bases, embed, signal } = input;
  const { pseudoQueries } = plan;
  const { spectrum } = bases[0]!;
  if (spectrum.count < LEAST_DOCUMENTS || spectrum.degenerate) return uncalibrated(spectrum);
  const without = bases.map((base) => ({ ...base, pseudo: undefined }));
  if (pseudoQueries.length === 0) return chooseStrength(without, 0);
  const asked = pseudoQueries.flatMap((query) => query.texts);
  const queries = await embed("query", asked, 0);
  const rests = pseudoQueries.map((query) => query.rest);
  const rest = await embed("document", rests, asked.length);
  const kinds = PSEUDO_QUERY_KINDS.length;
  const owners = pseudoQueries.map((query) => query.document);
  let off: Float64Array | undefined;
  const cases = [];
  for (const [at, { spectrum, vectors, smoothing }] of bases.entries()) {
    const part = (of: readonly Float32Array[]) => packedPart(of, spectrum.dimensions, at);
    const figures = await pseudoFigures(
      spectrum,
      {
        documents: vectors,
        queries: PSEUDO_QUERY_KINDS.map((_, kind) => part(queries.filter((_, i) => i % kinds === kind))),
        rest: part(rest),
        owners,
      },
      signal,
    );
    off ??= figures[0]!;
    cases.push({ spectrum, smoothing, pseudo: gainsOver(off, figures) });
  }
  return chooseStrength(cases, pseudoQueries.length);
}

export interface CalibrateContextOptions {
  /** Which documents pseudo-queries are made of. An integer in [0, 2^53). @default 0 */
  readonly seed?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: EmbedProgress) => void;
}

/**
 * A spectral context at the strength that suits its documents, as `buildContext` chooses it: for one that was made from
 * vectors at hand, or at a given strength. Embeds at most 1,000 short texts.
 *
 * @param texts the context's documents, in its order
 * @param base the embedder without context whose vectors the context was made from
 * @throws InvalidInputError for a context that isn't spectral or other texts; FingerprintMismatchError for another base
 */
export async function calibrateContext(
  context: CorpusContext,
  texts: readonly string[],
  base: Pick<Embedder, "modelId" | "fingerprint" | "embedQueries" | "embedDocuments">,
  options: CalibrateContextOptions = {},
): Promise<CorpusContext> {
  const { seed = 0, signal, onProgress } = options;
  const { identity } = context;
  if (identity.stage !== "spectral") {
    throw new InvalidInputError(
      `calibrateContext: only a spectral context has a strength to choose; this one is ${identity.stage}.`,
    );
  }
  context.requireModel("calibrateContext", base.fingerprint);
  const other = texts.findIndex((text, i) => textDigest(text) !== identity.texts[i]);
  if (texts.length !== identity.texts.length || other !== -1) {
    throw new InvalidInputError(
      `calibrateContext: the context was made of ${identity.texts.length} texts, got ${texts.length}${other === -1 ? "" : `, another at position ${other}`}. Pass its own, in its order.`,
    );
  }
  const plan = planCalibration(texts, seed);
  const calibration = await calibrateStrength({
    plan,
    bases: [{ spectrum: context.lastMap!.spectrum, vectors: context.rows }],
    signal,
    async embed(kind, pseudo, before) {
      const progress = ({ done }: EmbedProgress) => onProgress?.({ done: before + done, total: plan.texts });
      const call = { onProgress: progress, ...(signal && { signal }) };
      const { vectors } = await (kind === "query"
        ? base.embedQueries(pseudo, call)
        : base.embedDocuments(pseudo, call));
      return vectors;
    },
  });
  return context.withCalibration(calibration);
}

/** Of rows that hold several vectors of `width` one after the other, the one at `at`, below each other. */
export function packedPart(rows: readonly Float32Array[], width: number, at: number): Float32Array {
  return packed(rows.map((row) => row.subarray(at * width, (at + 1) * width)));
}

/** One row a vector, below each other. */
export function packed(vectors: readonly Float32Array[]): Float32Array {
  const dimensions = vectors[0]!.length;
  const rows = new Float32Array(vectors.length * dimensions);
  vectors.forEach((vector, i) => {
    rows.set(vector, i * dimensions);
  });
  return rows;
}
