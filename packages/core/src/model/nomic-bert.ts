/** NomicBERT (Nussbaum et al. 2024): rotary positions, post-norm, SwiGLU, no biases in its products. */
import { add, type Dim, type Float, type Int, layerNorm, mul, reshape, scope, silu, slice } from "../graph/index.js";
import { type Attend, attend, attendRotated, paddingBias, type TokenRows, tokenRows } from "./attention.js";
import { type Backbone, layerRange, type SequenceOptions } from "./backbone.js";
import type { NomicBertConfig } from "./backbone-config.js";
import type { GraphWeights } from "./graph-weights.js";
import { firstPositions, type RotaryTables, rotaryTables } from "./rotary.js";

/** What every layer attends with. */
interface View {
  readonly bias: Float;
  readonly rotary: RotaryTables;
  readonly by: Attend;
}

/** Writes the graph of a NomicBERT over `weights`, whose names begin at `embeddings.`, `emb_ln.` and `encoder.`. */
export function nomicBert(config: NomicBertConfig, weights: GraphWeights): Backbone {
  const { hiddenSize, layers, heads, maxPositions, vocabularySize, intermediateSize } = config;
  const { dtype } = weights.form;
  const norm = (x: Float, name: string, at: GraphWeights) =>
    layerNorm(x, at.get(`${name}.weight`, [hiddenSize]), at.get(`${name}.bias`, [hiddenSize]), {
      epsilon: config.layerNormEpsilon,
      form: weights.form.layerNorm,
    });

  /** Every token is of type 0. */
  function addTokenType(tokens: Float): Float {
    if (config.typeVocabularySize === 0) return tokens;
    const types = weights.get("embeddings.token_type_embeddings.weight", [config.typeVocabularySize, hiddenSize]);
    return add(tokens, slice(types, { axis: 0, start: 0, end: 1 }));
  }

  return {
    hiddenSize,
    maxPositions,
    vocabularySize,

    embed(ids: Int): Float {
      return scope("embeddings", () =>
        addTokenType(weights.rows(ids, "embeddings.word_embeddings", [vocabularySize, hiddenSize])),
      );
    },

    encode(tokens: Float, mask: Float, options: SequenceOptions = {}): Float {
      const { withoutPosition = 0, embedAgain = false, attend: by = attend } = options;
      const [batch, length] = tokens.shape as [Dim, Dim, Dim];
      const rows = tokenRows(batch, length, heads, hiddenSize);
      const bias = paddingBias(mask);
      const rotary = firstPositions(
        rotaryTables({
          positions: maxPositions,
          width: hiddenSize / heads,
          base: config.rotaryBase,
          dtype,
          withoutPosition,
        }),
        length,
      );
      const { start, end } = layerRange(options, layers);
      let x = reshape(embedAgain && start === 0 ? addTokenType(tokens) : tokens, rows.flat);
      if (start === 0) x = scope("embeddings", () => norm(x, "emb_ln", weights));
      for (let i = start; i < end; i++) {
        x = scope(`layer.${i}`, () => layer(x, i, rows, { bias, rotary, by }));
      }
      return reshape(x, tokens.shape);
    },
  };

  function layer(x: Float, index: number, rows: TokenRows, view: View): Float {
    const at = weights.within(`encoder.layers.${index}`);
    const product = (y: Float, name: string, inputs: number, outputs: number) =>
      at.linear(y, name, { inputs, outputs, bias: false });
    const a = scope("attention", () => {
      const attended = attendRotated(product(x, "attn.Wqkv", hiddenSize, 3 * hiddenSize), rows, {
        layer: index,
        ...view,
      });
      return norm(add(product(attended, "attn.out_proj", hiddenSize, hiddenSize), x), "norm1", at);
    });
    return scope("mlp", () => {
      const value = product(a, "mlp.fc11", hiddenSize, intermediateSize);
      const gate = silu(product(a, "mlp.fc12", hiddenSize, intermediateSize));
      return norm(add(product(mul(value, gate), "mlp.fc2", intermediateSize, hiddenSize), a), "norm2", at);
    });
  }
}
