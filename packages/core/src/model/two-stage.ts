/**
 * The paper's two stages as graphs (Morris & Rush 2024; SPEC §1.2, §1.3): context documents → context vectors, and
 * [context | soft prompt | text] → a vector of the text. Names of tensors are checkpoint.ts's.
 */
import { InvalidInputError, internal } from "../errors.js";
import {
  abs,
  add,
  addDims,
  cast,
  concat,
  constant,
  type Dim,
  expand,
  type Float,
  type FloatType,
  gelu,
  greater,
  type Int,
  input,
  mul,
  multiplyDims,
  reduceMax,
  relu,
  reshape,
  scalar,
  scope,
  slice,
  sub,
  where,
} from "../graph/index.js";
import { backboneOf } from "./architectures.js";
import type { SequenceOptions } from "./backbone.js";
import type { BackboneConfig } from "./backbone-config.js";
import type { GraphWeights } from "./graph-weights.js";
import { pool, poolSegments } from "./pooling.js";

/** Vectors between context and text; the same for every text. */
const SOFT_PROMPT_TOKENS = 8;

/** Which of the functions that were published over one architecture is meant: the same weights differ in them. */
export interface SecondStagePath {
  /** Whether context tokens are rotated by their place. Otherwise their order doesn't matter. */
  readonly contextHasOrder: boolean;
  /** See `SequenceOptions.embedAgain`. */
  readonly embedAgain: boolean;
  /** output = projection(pooled) + pooled */
  readonly residual: boolean;
  /** Whether the prompt ("search_query:"), and what stands before it, is left out of the mean. */
  readonly skipPrompt: boolean;
}

export type TwoStagePreset = "v1-train" | "v1-hub" | "v2";

/** The consistent paths of SPEC §0.4. All leave context and soft prompt out of the mean. */
export const PRESETS: Readonly<Record<TwoStagePreset, SecondStagePath>> = {
  /** cde-small-v1 as it was trained. */
  "v1-train": { contextHasOrder: false, embedAgain: false, residual: false, skipPrompt: false },
  /** cde-small-v1 as the hub's own code runs it: positions on the context, the token type added again. */
  "v1-hub": { contextHasOrder: true, embedAgain: true, residual: false, skipPrompt: false },
  /** cde-small-v2. */
  v2: { contextHasOrder: true, embedAgain: true, residual: true, skipPrompt: true },
};

export interface TwoStageConfig {
  readonly firstStage: BackboneConfig;
  readonly secondStage: BackboneConfig;
  /** Context documents that the second stage reads, exactly. */
  readonly contextDocuments: number;
  /** Context vectors that the first stage makes of each. */
  readonly tokensPerDocument: number;
  readonly path: SecondStagePath;
}

/** The parts of a checkpoint, each seen from its own folder of names; heads hold two layers, "0" and "2". */
export interface TwoStageWeights {
  readonly firstBackbone: GraphWeights;
  readonly firstHead: GraphWeights;
  readonly secondBackbone: GraphWeights;
  readonly softPrompt: GraphWeights;
  readonly outputHead: GraphWeights;
  nullContext(width: number): Float;
}

/** Places that the context takes before every text. */
export function contextTokens({ contextDocuments, tokensPerDocument }: TwoStageConfig): number {
  return contextDocuments * tokensPerDocument;
}

/** Places before the text's first token. */
export function prefixTokens(config: TwoStageConfig): number {
  return contextTokens(config) + SOFT_PROMPT_TOKENS;
}

/**
 * Context documents → context vectors [batch, hidden], not normalised: GELU MLP of the mean. With several tokens a
 * document, `segments` [batch, tokens, length] are the weights of `segmentWeights`, and the result has that many rows.
 */
export function firstStage(
  config: TwoStageConfig,
  weights: TwoStageWeights,
  { ids, mask, segments }: { ids: Int; mask: Float; segments?: Float },
): { hidden: Float; pooled: Float; vectors: Float } {
  return scope("firstStage", () => {
    const backbone = backboneOf(config.firstStage, weights.firstBackbone);
    const hidden = backbone.encode(backbone.embed(ids), mask);
    const pooled = segments ? poolSegments(hidden, mask, segments) : pool("mean", hidden, mask);
    const { hiddenSize: width } = backbone;
    const rows = reshape(pooled, [multiplyDims(pooled.shape.slice(0, -1)), width]);
    const { form } = weights.firstHead;
    const vectors = twoLayers(rows, weights.firstHead, width, width, (x) => gelu(x, form.gelu));
    return { hidden, pooled, vectors: reshape(vectors, pooled.shape) };
  });
}

/** The soft prompt [8, hidden]: a ReLU MLP of a row of ones, so it depends on weights only. */
export function softPrompt(config: TwoStageConfig, weights: TwoStageWeights): Float {
  return scope("softPrompt", () => {
    const { hiddenSize: width } = config.secondStage;
    const at = weights.softPrompt;
    const ones = constant(at.form.dtype, [1, width], new Float64Array(width).fill(1)) as Float;
    return reshape(twoLayers(ones, at, width, SOFT_PROMPT_TOKENS * width, relu), [SOFT_PROMPT_TOKENS, width]);
  });
}

/**
 * What stands before every text: context vectors [rows, hidden], of which the first are read that the model has places
 * for, then the soft prompt. With `dropped` [batch, places], each text's ones are replaced by the null context
 * (training's context dropout) and the result has a batch axis.
 */
export function contextPrefix(
  config: TwoStageConfig,
  weights: TwoStageWeights,
  { context, dropped }: { context: Float; dropped?: Float },
): Float {
  const places = contextTokens(config);
  const width = config.secondStage.hiddenSize;
  const rows = context.shape[0];
  if (context.rank !== 2 || context.shape[1] !== width || (typeof rows === "number" && rows < places)) {
    throw new InvalidInputError(
      `contextPrefix: the context is ${context}, the second stage reads ${places} vectors of ${width}.`,
    );
  }
  const used = slice(context, { axis: 0, start: 0, end: places });
  const prompt = softPrompt(config, weights);
  if (!dropped) return concat([used, prompt], 0);
  const batch = dropped.shape[0]!;
  const drop = reshape(dropped, [batch, places, 1]);
  const kept = mul(used, sub(scalar(1, drop.dtype), drop));
  return concat(
    [add(kept, mul(weights.nullContext(width), drop)), expand(prompt, [batch, SOFT_PROMPT_TOKENS, width])],
    1,
  );
}

export interface SecondStageInputs {
  readonly ids: Int;
  readonly mask: Float;
  /** From `contextPrefix`: [places, hidden], the same for all texts, or [batch, places, hidden]. */
  readonly prefix: Float;
  /** The token that ends a prompt, ":"; for paths that leave the prompt out of the mean. */
  readonly promptEnd?: number | undefined;
}

/** Texts behind a context → vectors [batch, hidden], not normalised. `hidden` begins with the prefix's rows. */
export function secondStage(
  config: TwoStageConfig,
  weights: TwoStageWeights,
  { ids, mask, prefix, promptEnd }: SecondStageInputs,
): { hidden: Float; pooled: Float; vectors: Float } {
  return scope("secondStage", () => {
    const { path } = config;
    const backbone = backboneOf(config.secondStage, weights.secondBackbone);
    const { hiddenSize: width } = backbone;
    const [batch, length] = ids.shape as [Dim, Dim];
    const before = prefixTokens(config);
    const sequence: SequenceOptions = {
      withoutPosition: path.contextHasOrder ? 0 : contextTokens(config),
      embedAgain: path.embedAgain,
    };
    const tokens = concat([expand(prefix, [batch, before, width]), backbone.embed(ids)], 1);
    const seen = concat([expand(scalar(1, mask.dtype), [batch, before]), mask], 1);
    const hidden = backbone.encode(tokens, seen, sequence);
    const text = slice(hidden, { axis: 1, start: before, end: addDims([before, length]) });
    if (path.skipPrompt && promptEnd === undefined) throw internal("the path skips prompts, and no token ends them");
    const counted = path.skipPrompt ? maskAfterPrompt(ids, mask, promptEnd!, backbone.maxPositions) : mask;
    const pooled = pool("mean", text, counted);
    const projected = twoLayers(pooled, weights.outputHead, width, width, relu);
    return { hidden, pooled, vectors: path.residual ? add(projected, pooled) : projected };
  });
}

/**
 * The mask without everything up to the first `end` token that isn't at position 0; the mask itself where there is none
 * (SPEC §1.3, step 8). A text without prompt that holds a ":" loses what stands before it, as in the reference.
 */
export function maskAfterPrompt(ids: Int, mask: Float, end: number, maxPositions: number): Float {
  const dtype = mask.dtype as FloatType;
  const zero = scalar(0, dtype);
  const perPosition = (value: (position: number) => number): Float => {
    const values = Float64Array.from({ length: maxPositions }, (_, position) => value(position));
    return slice(constant(dtype, [1, maxPositions], values) as Float, { axis: 1, start: 0, end: ids.shape[1]! });
  };
  // Counted down, so that the largest of the ends is the first; 0 where there is none.
  const left = perPosition((position) => maxPositions - position);
  const eligible = perPosition((position) => (position === 0 ? 0 : maxPositions - position));
  const difference = sub(cast(ids, dtype) as Float, scalar(end, dtype));
  const isOther = greater(abs(difference), scalar(0.5, dtype));
  const first = reduceMax(mul(where(isOther, zero, eligible), mask), { axes: [1], keep: true });
  return where(greater(first, zero), where(greater(first, left), mask, zero), mask);
}

/** All parameters of a model by name, as both stages' graphs ask for them; `all` is what `weights` are folders of. */
export function twoStageParameters(
  config: TwoStageConfig,
  weights: TwoStageWeights,
  all: GraphWeights,
): ReadonlyMap<string, Float> {
  const ids = input("ids", "int32", ["B", "S"]);
  const mask = input("mask", all.form.dtype, ["B", "S"]);
  const context = input("context", all.form.dtype, [contextTokens(config), config.secondStage.hiddenSize]);
  firstStage(config, weights, { ids, mask });
  secondStage(config, weights, { ids, mask, prefix: contextPrefix(config, weights, { context }), promptEnd: 0 });
  return all.parameters;
}

/** Two linear layers with an activation between; "0" and "2" because the activation is layer 1 of the checkpoint. */
function twoLayers(
  x: Float,
  at: GraphWeights,
  inputs: number,
  outputs: number,
  activation: (x: Float) => Float,
): Float {
  const inner = activation(at.linear(x, "0", { inputs, outputs: inputs }));
  return at.linear(inner, "2", { inputs, outputs });
}
