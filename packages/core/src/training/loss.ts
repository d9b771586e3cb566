/**
 * The loss of a batch and its gradient with respect to the vectors: the middle step of gradient caching. It is computed
 * in blocks of rows, so that its memory grows with the batch and not with its square.
 */
import {
  add,
  cosines,
  crossEntropy,
  exp,
  type Float,
  gradientsOf,
  greater,
  input,
  maskedLogits,
  matMul,
  mul,
  reduceMax,
  scalar,
  scale,
  slice,
  softmax,
  sub,
  where,
} from "../graph/index.js";
import { encodeModel } from "../onnx/encode.js";
import type { StoredName } from "../runtime/protocol.js";
import type { Runtime, Session, TensorData } from "../runtime/runtime.js";
import type { Contrast, ContrastBlock } from "./contrast.js";

export interface LossSettings {
  /** Vectors' full width. */
  readonly dimensions: number;
  /** Whether positives are contrasted with all queries too; the loss is the mean of both directions. */
  readonly symmetric: boolean;
  /** Widths whose first entries are trained to do alone, each with its weight; they add up to 1. */
  readonly widths: readonly { readonly width: number; readonly weight: number }[];
  readonly distillation: DistillationSettings | undefined;
  /** Whether vectors are compared behind an affine map, which each run is given. @default false */
  readonly mapped?: boolean | undefined;
}

export interface DistillationSettings {
  /** Weight of the term beside the contrastive loss. */
  readonly weight: number;
  /** Divisor of the similarities of both models. */
  readonly temperature: number;
}

/** Vectors below each other: rows of `dimensions` numbers, queries in the order of the pairs, documents in `Contrast`'s. */
export interface LossVectors {
  readonly queries: Float32Array;
  readonly documents: Float32Array;
  /** The base model's vectors of the same texts, where it is distilled from: as they are compared, so mapped already. */
  readonly base?: { readonly queries: Float32Array; readonly documents: Float32Array } | undefined;
  /** v becomes W (v − shift): W [dimensions, dimensions], symmetric, and the shift [dimensions]. */
  readonly map?: LossMap | undefined;
}

export interface LossMap {
  readonly matrix: TensorData;
  readonly shift: TensorData;
}

export interface LossResult {
  readonly loss: number;
  /** Of the loss: the part that keeps similarities close to the base model's, its weight included. */
  readonly distillation: number;
  /** Share of queries whose positive is the most similar of all documents that aren't masked. */
  readonly accuracy: number;
  readonly dQueries: Float32Array;
  readonly dDocuments: Float32Array;
  /** Gradient of log(1/temperature). */
  readonly dLogScale: number;
}

/** Entries of one table of a block; the graph holds about a dozen of them at a time. */
const BLOCK_ENTRIES = 1 << 19;

export class ContrastiveLoss {
  readonly #session: Session;
  readonly #settings: LossSettings;
  readonly #logScale: StoredName;

  private constructor(session: Session, settings: LossSettings, logScale: StoredName) {
    this.#session = session;
    this.#settings = settings;
    this.#logScale = logScale;
  }

  /** `logScale` is where log(1/temperature) lies, [1]. */
  static async open(runtime: Runtime, settings: LossSettings, logScale: StoredName): Promise<ContrastiveLoss> {
    return new ContrastiveLoss(await runtime.open(encodeModel(lossGraph(settings))), settings, logScale);
  }

  async run(contrast: Contrast, vectors: LossVectors): Promise<LossResult> {
    const { symmetric } = this.#settings;
    const { queries, documents } = contrast;
    const width = this.#settings.dimensions;
    const total = {
      loss: 0,
      distillation: 0,
      hits: 0,
      dLogScale: 0,
      dQueries: new Float32Array(vectors.queries.length),
      dDocuments: new Float32Array(vectors.documents.length),
    };
    const share = symmetric ? 0.5 : 1;
    const { base } = vectors;
    for (const [start, end] of blocks(queries, documents)) {
      const found = await this.#block(contrast.ofQueries(start, end), (share * (end - start)) / queries, {
        rows: vectors.queries.subarray(start * width, end * width),
        columns: vectors.documents,
        baseRows: base?.queries.subarray(start * width, end * width),
        baseColumns: base?.documents,
        map: vectors.map,
      });
      addTo(total.dQueries, found.dRows, start * width);
      addTo(total.dDocuments, found.dColumns, 0);
      total.hits += found.hits;
      sum(total, found);
    }
    const positives = queries * width;
    for (const [start, end] of symmetric ? blocks(queries, queries) : []) {
      const found = await this.#block(contrast.ofPositives(start, end), (share * (end - start)) / queries, {
        rows: vectors.documents.subarray(start * width, end * width),
        columns: vectors.queries,
        baseRows: base?.documents.subarray(start * width, end * width),
        baseColumns: base?.queries,
        map: vectors.map,
      });
      addTo(total.dDocuments.subarray(0, positives), found.dRows, start * width);
      addTo(total.dQueries, found.dColumns, 0);
      sum(total, found);
    }
    const { hits, ...result } = total;
    return { ...result, accuracy: hits / queries };
  }

  async #block(
    { labels, masked }: ContrastBlock,
    weight: number,
    given: {
      rows: Float32Array;
      columns: Float32Array;
      baseRows: Float32Array | undefined;
      baseColumns: Float32Array | undefined;
      map: LossMap | undefined;
    },
  ) {
    const width = this.#settings.dimensions;
    const matrix = (data: Float32Array, columns: number): TensorData => ({
      dtype: "float32",
      shape: [data.length / columns, columns],
      data,
    });
    const columns = given.columns.length / width;
    const out = await this.#session.run(
      {
        rows: matrix(given.rows, width),
        columns: matrix(given.columns, width),
        labels: matrix(labels, columns),
        masked: matrix(masked, columns),
        weight: { dtype: "float32", shape: [], data: Float32Array.of(weight) },
        ...(given.baseRows &&
          given.baseColumns && {
            baseRows: matrix(given.baseRows, width),
            baseColumns: matrix(given.baseColumns, width),
          }),
        ...given.map,
      },
      { stored: { logScale: this.#logScale } },
    );
    const numbers = (name: string) => out[name]!.data as Float32Array;
    const [best, own] = [numbers("best"), numbers("own")];
    return {
      loss: numbers("loss")[0]!,
      distillation: out.distillation ? numbers("distillation")[0]! : 0,
      dLogScale: numbers("dLogScale")[0]!,
      dRows: numbers("dRows"),
      dColumns: numbers("dColumns"),
      hits: own.reduce((count, value, i) => count + (value >= best[i]! ? 1 : 0), 0),
    };
  }
}

function lossGraph({ dimensions, widths, distillation, mapped = false }: LossSettings): Record<string, Float> {
  const rows = input("rows", "float32", ["R", dimensions]) as Float;
  const columns = input("columns", "float32", ["C", dimensions]) as Float;
  const labels = input("labels", "float32", ["R", "C"]) as Float;
  const masked = input("masked", "float32", ["R", "C"]) as Float;
  const weight = input("weight", "float32", []) as Float;
  const logScale = input("logScale", "float32", [1]) as Float;
  const logitScale = exp(logScale);
  const [comparedRows, comparedColumns] = mapped ? bothMapped(rows, columns, dimensions) : [rows, columns];
  const logitsOf = (width: number): Float => {
    const first = (x: Float) => (width === dimensions ? x : slice(x, { axis: 1, start: 0, end: width }));
    return maskedLogits({
      queryVectors: first(comparedRows),
      documentVectors: first(comparedColumns),
      masked,
      logitScale,
    });
  };
  let loss = widths
    .map(({ width, weight: part }) => scale(crossEntropy(labels, logitsOf(width)), part))
    .reduce((a, b) => add(a, b));
  const outputs: Record<string, Float> = {};
  if (distillation) {
    const baseRows = input("baseRows", "float32", ["R", dimensions]) as Float;
    const baseColumns = input("baseColumns", "float32", ["C", dimensions]) as Float;
    const sharpened = (a: Float, b: Float) => scale(cosines(a, b), 1 / distillation.temperature);
    // KL(base ‖ model) = cross-entropy of the two less the base's own entropy, so that agreement is 0.
    const baseLogits = sharpened(baseRows, baseColumns);
    const shares = softmax(baseLogits);
    const kl = add(
      crossEntropy(shares, sharpened(comparedRows, comparedColumns)),
      scale(crossEntropy(shares, baseLogits), -1),
    );
    const term = scale(kl, distillation.weight);
    outputs.distillation = mul(term, weight);
    loss = add(loss, term);
  }
  const weighted = mul(loss, weight);
  const [dRows, dColumns, dLogScale] = gradientsOf(weighted, [rows, columns, logScale]) as [Float, Float, Float];
  const logits = logitsOf(dimensions);
  const zero = scalar(0, "float32");
  const positives = where(greater(labels, zero), logits, scalar(-2e10, "float32"));
  return {
    ...outputs,
    loss: weighted,
    dRows,
    dColumns,
    dLogScale,
    best: reduceMax(logits, { axes: [1] }),
    own: reduceMax(positives, { axes: [1] }),
  };
}

/** Behind the map that each run is given. */
function bothMapped(rows: Float, columns: Float, dimensions: number): [Float, Float] {
  const shift = input("shift", "float32", [dimensions]) as Float;
  const matrix = input("matrix", "float32", [dimensions, dimensions]) as Float;
  return [matMul(sub(rows, shift), matrix), matMul(sub(columns, shift), matrix)];
}

/** Blocks of rows whose tables have at most `BLOCK_ENTRIES` entries. */
function* blocks(rows: number, columns: number): Generator<[start: number, end: number]> {
  const size = Math.max(1, Math.floor(BLOCK_ENTRIES / columns));
  for (let start = 0; start < rows; start += size) yield [start, Math.min(rows, start + size)];
}

function addTo(target: Float32Array, values: Float32Array, offset: number): void {
  for (let i = 0; i < values.length; i++) target[offset + i]! += values[i]!;
}

function sum(
  total: { loss: number; distillation: number; dLogScale: number },
  { loss, distillation, dLogScale }: { loss: number; distillation: number; dLogScale: number },
): void {
  total.loss += loss;
  total.distillation += distillation;
  total.dLogScale += dLogScale;
}
