/**
 * How much each token counts in a text's mean: a / (a + p), where p is the share of the context documents that hold it.
 * What every document of a corpus says tells none of them apart. The form is the smooth inverse frequency of Arora, Liang
 * and Ma (ICLR 2017), with shares of documents in place of frequencies, and over hidden states in place of word vectors.
 */
import { InvalidInputError } from "../errors.js";
import { canonicalJson, sha256Hex } from "../model/digest.js";

/** All that determines the weights, beside the tokenizer, which the model's fingerprint covers. */
export interface TokenWeightsIdentity {
  /** Fingerprint of the model that they are for, without context. */
  readonly model: string;
  /** a: the share of documents at which a token counts half. In (0, 1]. */
  readonly smoothing: number;
  /** sha256 of the digests of the texts that were counted, in order. */
  readonly texts: string;
}

/** Chosen by dev splits (docs/spectral-context.md): with less, corpora whose questions are templates lose more. */
export const DEFAULT_SMOOTHING = 0.3;

/**
 * Documents without any token that are counted beside those given, so that few documents weigh little: the share of a
 * token that two of two documents hold is 2 / 34.
 */
const EMPTY_DOCUMENTS = 32;

/** The weights of one corpus for one model. Immutable. They come with a `CorpusContext`. */
export class TokenWeights {
  readonly identity: TokenWeightsIdentity;
  /** sha256 (hex) of model and weights: the fingerprint of base vectors made with them. */
  readonly fingerprint: string;
  /** Documents that were counted. */
  readonly documents: number;
  readonly #counts: Int32Array;
  readonly #weights: Float32Array;

  /**
   * @internal
   * @param counts by token id, the number of documents that hold it
   * @throws InvalidInputError for a smoothing outside (0, 1]
   */
  constructor(identity: TokenWeightsIdentity, documents: number, counts: Int32Array) {
    const { model, smoothing, texts } = identity;
    checkSmoothing(smoothing);
    this.identity = Object.freeze({ model, smoothing, texts });
    this.fingerprint = sha256Hex(canonicalJson({ version: 1, model, tokenWeights: { smoothing, texts } }));
    this.documents = documents;
    this.#counts = counts;
    this.#weights = weightsOf(counts, documents, smoothing);
  }

  /**
   * @internal Counts the context documents.
   *
   * @param ids of each document, with its special tokens and prompt
   * @param digests sha256 of each document
   */
  static count(
    ids: readonly Int32Array[],
    options: {
      readonly model: string;
      readonly digests: readonly string[];
      readonly vocabulary: number;
      readonly smoothing: number;
    },
  ): TokenWeights {
    const { model, digests, vocabulary, smoothing } = options;
    const identity = { model, smoothing, texts: sha256Hex(canonicalJson(digests)) };
    return new TokenWeights(identity, ids.length, documentCounts(ids, vocabulary));
  }

  /** Of a token, in (0, 1]; 1 for one that no document holds. */
  weightOf(id: number): number {
    return this.#weights[id] ?? 1;
  }

  /** @internal By token id, the number of documents that hold it: don't write into it. */
  get counts(): Int32Array {
    return this.#counts;
  }
}

/** By token id, the number of documents that hold it. */
export function documentCounts(ids: readonly Int32Array[], vocabulary: number): Int32Array {
  const counts = new Int32Array(vocabulary);
  for (const document of ids) for (const id of new Set(document)) counts[id]!++;
  return counts;
}

/** By token id, what it counts. */
export function weightsOf(counts: Int32Array, documents: number, smoothing: number): Float32Array {
  const of = documents + EMPTY_DOCUMENTS;
  return Float32Array.from(counts, (count) => smoothing / (smoothing + count / of));
}

export function isSmoothing(value: unknown): value is number {
  return typeof value === "number" && value > 0 && value <= 1;
}

/** @throws InvalidInputError */
export function checkSmoothing(smoothing: number): void {
  if (isSmoothing(smoothing)) return;
  throw new InvalidInputError(
    `tokenWeights: the smoothing must be in (0, 1], got ${JSON.stringify(smoothing)}. Leave it out for ${DEFAULT_SMOOTHING}, or turn the weights off with { tokenWeights: "off" }.`,
  );
}
