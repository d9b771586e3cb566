/** ModernBERT (Warner et al. 2024): rotary positions, pre-norm, GeGLU, no biases, two of three layers see a window. */
import {
  abs,
  add,
  constant,
  type Dim,
  type Float,
  type FloatType,
  gelu,
  greater,
  type Int,
  layerNorm,
  mul,
  reshape,
  scalar,
  scope,
  slice,
  split,
  sub,
  where,
} from "../graph/index.js";
import { type Attend, attend, attendRotated, MASKED, paddingBias, type TokenRows, tokenRows } from "./attention.js";
import { type Backbone, layerRange, type SequenceOptions } from "./backbone.js";
import type { ModernBertConfig } from "./backbone-config.js";
import type { GraphWeights } from "./graph-weights.js";
import { firstPositions, type RotaryTables, rotaryTables } from "./rotary.js";

/** What a layer attends with: global layers see all tokens, local ones a window, each with its own rotary base. */
interface View {
  readonly bias: Float;
  readonly rotary: RotaryTables;
  readonly by: Attend;
}

/** Writes the graph of a ModernBERT over `weights`, whose names begin at `embeddings.`, `layers.` and `final_norm.`. */
export function modernBert(config: ModernBertConfig, weights: GraphWeights): Backbone {
  const { hiddenSize, layers, heads, maxPositions, vocabularySize, intermediateSize } = config;
  const { dtype } = weights.form;
  const norm = (x: Float, name: string, at: GraphWeights) =>
    layerNorm(x, at.get(`${name}.weight`, [hiddenSize]), undefined, {
      epsilon: config.layerNormEpsilon,
      form: weights.form.layerNorm,
    });

  return {
    hiddenSize,
    maxPositions,
    vocabularySize,

    embed(ids: Int): Float {
      return scope("embeddings", () =>
        norm(
          weights.rows(ids, "embeddings.tok_embeddings", [vocabularySize, hiddenSize]),
          "norm",
          weights.within("embeddings"),
        ),
      );
    },

    encode(tokens: Float, mask: Float, options: SequenceOptions = {}): Float {
      const { withoutPosition = 0, embedAgain = false, attend: by = attend } = options;
      const [batch, length] = tokens.shape as [Dim, Dim, Dim];
      const rows = tokenRows(batch, length, heads, hiddenSize);
      const rotary = (base: number) =>
        firstPositions(
          rotaryTables({ positions: maxPositions, width: hiddenSize / heads, base, dtype, withoutPosition }),
          length,
        );
      const bias = paddingBias(mask);
      const global: View = { bias, rotary: rotary(config.globalRotaryBase), by };
      const local: View = {
        bias: windowBias(bias, length, { ...config, dtype }),
        rotary: rotary(config.localRotaryBase),
        by,
      };
      let x = reshape(tokens, rows.flat);
      const { start, end } = layerRange(options, layers);
      if (embedAgain && start === 0) x = scope("embeddings", () => norm(x, "norm", weights.within("embeddings")));
      for (let i = start; i < end; i++) {
        const view = i % config.globalEveryLayers === 0 ? global : local;
        x = scope(`layer.${i}`, () => layer(x, i, rows, view));
      }
      return reshape(end === layers ? norm(x, "final_norm", weights) : x, tokens.shape);
    },
  };

  function layer(x: Float, index: number, rows: TokenRows, view: View): Float {
    const at = weights.within(`layers.${index}`);
    const product = (y: Float, name: string, inputs: number, outputs: number) =>
      at.linear(y, name, { inputs, outputs, bias: false });
    const a = scope("attention", () => {
      const normed = index === 0 ? x : norm(x, "attn_norm", at); // the embedding layer ends in a norm
      const attended = attendRotated(product(normed, "attn.Wqkv", hiddenSize, 3 * hiddenSize), rows, {
        layer: index,
        ...view,
      });
      return add(x, product(attended, "attn.Wo", hiddenSize, hiddenSize));
    });
    return scope("mlp", () => {
      const up = product(norm(a, "mlp_norm", at), "mlp.Wi", hiddenSize, 2 * intermediateSize);
      const [value, gate] = split(up, { axis: 1, parts: 2 }) as [Float, Float];
      return add(a, product(mul(gelu(value, weights.form.gelu), gate), "mlp.Wo", intermediateSize, hiddenSize));
    });
  }
}

/**
 * The padding's bias [1, batch, 1, length], and −1e9 for keys further than half a window away: [1, batch, length,
 * length]. A padded query may have no key left; its row is then uniform, and means nothing.
 */
function windowBias(
  bias: Float,
  length: Dim,
  { localAttention, maxPositions, dtype }: ModernBertConfig & { readonly dtype: FloatType },
): Float {
  const all = constant(
    dtype,
    [maxPositions],
    Float64Array.from({ length: maxPositions }, (_, i) => i),
  ) as Float;
  const positions = slice(all, { axis: 0, start: 0, end: length });
  const distance = abs(sub(reshape(positions, [length, 1]), reshape(positions, [1, length])));
  return where(greater(distance, scalar(Math.floor(localAttention / 2), dtype)), scalar(MASKED, dtype), bias);
}
