/** Which document is whose in one batch: the labels and masks of the loss, block by block. */
import { InvalidInputError } from "../errors.js";

export interface ContrastOptions {
  /** One id a query. Two equal ones, in a batch with hard negatives, share their positives (SPEC §6, step 4). */
  readonly ids: readonly string[];
  /** How many hard negatives each query brought. */
  readonly negatives: readonly number[];
  /** As in `TrainingBatch`. */
  readonly falseNegatives?: Uint8Array | undefined;
  /** Whether the other queries' documents count against a query. @default true */
  readonly inBatchNegatives?: boolean;
}

/** Labels and masks of a block of rows, [rows, columns] row by row. */
export interface ContrastBlock {
  /** The positives of a row share 1. */
  readonly labels: Float32Array;
  /** 1 where a column is left out of a row's softmax. */
  readonly masked: Float32Array;
}

/**
 * Queries against documents: positives in the order of the queries, then hard negatives in that order. A query's own
 * positive is never masked, nor are its own hard negatives while in-batch negatives are on (SPEC §5.2).
 */
export class Contrast {
  readonly queries: number;
  readonly documents: number;
  /** The query that each document came with. */
  readonly #owner: Int32Array;
  readonly #ids: readonly string[];
  readonly #falseNegatives: Uint8Array | undefined;
  readonly #inBatch: boolean;

  constructor({ ids, negatives, falseNegatives, inBatchNegatives = true }: ContrastOptions) {
    this.queries = ids.length;
    this.#ids = ids;
    this.#owner = Int32Array.from([...ids.keys(), ...negatives.flatMap((count, i) => Array<number>(count).fill(i))]);
    this.documents = this.#owner.length;
    this.#falseNegatives = falseNegatives;
    this.#inBatch = inBatchNegatives;
    if (falseNegatives && falseNegatives.length !== this.queries * this.documents) {
      throw new InvalidInputError(
        `training: falseNegatives of ${this.queries} pairs and ${this.documents} documents has ${this.queries * this.documents} entries, got ${falseNegatives.length}.`,
      );
    }
    if (!inBatchNegatives && negatives.some((count) => count === 0)) {
      throw new InvalidInputError(
        `training: without in-batch negatives every pair needs a hard negative, pair "${ids[negatives.indexOf(0)]}" has none.`,
      );
    }
  }

  /** Queries `start` to before `end` against all documents. */
  ofQueries(start: number, end: number): ContrastBlock {
    return block(end - start, this.documents, (row, column) => this.#entry(start + row, column));
  }

  /** Positives `start` to before `end` against all queries: the other direction of a symmetric loss. */
  ofPositives(start: number, end: number): ContrastBlock {
    return block(end - start, this.queries, (row, column) => this.#entry(column, start + row));
  }

  #entry(query: number, document: number): "positive" | "masked" | "negative" {
    const withNegatives = this.documents > this.queries;
    const own = this.#ids[query] === this.#ids[this.#owner[document]!];
    const positive = withNegatives ? own && document < this.queries : query === document;
    if (positive) return "positive";
    const flagged = this.#falseNegatives?.[query * this.documents + document] === 1;
    if (!withNegatives) return flagged ? "masked" : "negative";
    return (this.#inBatch ? flagged && !own : flagged || !own) ? "masked" : "negative";
  }
}

function block(
  rows: number,
  columns: number,
  entry: (row: number, column: number) => "positive" | "masked" | "negative",
): ContrastBlock {
  const labels = new Float32Array(rows * columns);
  const masked = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const positives: number[] = [];
    for (let column = 0; column < columns; column++) {
      const kind = entry(row, column);
      if (kind === "positive") positives.push(column);
      else if (kind === "masked") masked[row * columns + column] = 1;
    }
    for (const column of positives) labels[row * columns + column] = 1 / positives.length;
  }
  return { labels, masked };
}
