/** What the three architectures have in common: token vectors in, hidden states out. Types only. */
import type { Float, Int } from "../graph/index.js";

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
  encode(tokens: Float, mask: Float): Float;
}
