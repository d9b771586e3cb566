/** What the three architectures have in common: token vectors in, hidden states out. */
import { InvalidInputError } from "../errors.js";
import type { Float, Int } from "../graph/index.js";
import type { Attend } from "./attention.js";

/** What a sequence that isn't plain text asks of a backbone: the second stages that read context among the tokens. */
export interface SequenceOptions {
  /** Number of first tokens that have no position: their rotation is left out. @default 0 */
  readonly withoutPosition?: number;
  /**
   * Whether the last step of the embedding layer is done to all tokens, though `embed` has done it to the text already:
   * NomicBERT's addition of the token type, ModernBERT's norm. The published code does so where it is given vectors
   * instead of ids (SPEC §1.5, §1.6). @default false
   */
  readonly embedAgain?: boolean;
  /** How each layer attends. @default every token to every token, padding aside */
  readonly attend?: Attend;
  /**
   * Only these layers, `start` to before `end`. From a start above 0, the tokens are the states that the layers before
   * it gave; what follows the last layer is done where `end` is the number of layers. @default all
   */
  readonly layers?: { readonly start: number; readonly end: number };
}

/** The layers to write; raises InvalidInputError for what is no part of the model. */
export function layerRange({ layers: part }: SequenceOptions, layers: number): { start: number; end: number } {
  const { start, end } = part ?? { start: 0, end: layers };
  if (Number.isInteger(start) && Number.isInteger(end) && start >= 0 && start <= end && end <= layers) {
    return { start, end };
  }
  throw new InvalidInputError(`encode: layers ${start} to ${end} are no part of a model of ${layers} layers.`);
}

/** One transformer, as functions that write its graph. */
export interface Backbone {
  readonly hiddenSize: number;
  /** Longest sequence that it has positions for. */
  readonly maxPositions: number;
  readonly vocabularySize: number;
  /** ids [batch, length] → token vectors [batch, length, hidden], the form in which context vectors stand beside text. */
  embed(ids: Int): Float;
  /**
   * Token vectors [batch, length, hidden] and a mask [batch, length] of ones and zeros → hidden states of the same
   * shape. Rows at masked positions mean nothing.
   */
  encode(tokens: Float, mask: Float, options?: SequenceOptions): Float;
}
