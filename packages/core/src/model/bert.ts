/** BERT (Devlin et al. 2019): absolute positions, post-norm, GELU; names as Hugging Face stores them. */
import { ModelError } from "../errors.js";
import {
  add,
  type Dim,
  type Float,
  gelu,
  type Int,
  layerNorm,
  multiplyDims,
  relu,
  reshape,
  scope,
  slice,
} from "../graph/index.js";
import { type Attend, type AttentionShape, attend, mergeHeads, paddingBias, splitHeads } from "./attention.js";
import { type Backbone, layerRange, type SequenceOptions } from "./backbone.js";
import type { BertConfig } from "./backbone-config.js";
import type { GraphWeights } from "./graph-weights.js";

/** Writes the graph of a BERT encoder over `weights`, whose names begin at `embeddings.` and `encoder.`. */
export function bert(config: BertConfig, weights: GraphWeights): Backbone {
  const { hiddenSize, layers, layerNormEpsilon: epsilon, maxPositions, vocabularySize } = config;
  const norm = (x: Float, at: GraphWeights) =>
    layerNorm(x, at.get("weight", [hiddenSize]), at.get("bias", [hiddenSize]), {
      epsilon,
      form: weights.form.layerNorm,
    });

  return {
    hiddenSize,
    maxPositions,
    vocabularySize,

    embed(ids: Int): Float {
      return scope("embeddings", () => {
        const at = weights.within("embeddings");
        const length = ids.shape[1]!;
        const words = at.rows(ids, "word_embeddings", [vocabularySize, hiddenSize]);
        const positions = slice(at.get("position_embeddings.weight", [maxPositions, hiddenSize]), {
          axis: 0,
          start: 0,
          end: length,
        });
        const types = at.get("token_type_embeddings.weight", [config.typeVocabularySize, hiddenSize]);
        // Every token is of type 0; adding its row to the positions first costs one addition a position, not a token.
        return add(words, add(positions, slice(types, { axis: 0, start: 0, end: 1 })));
      });
    },

    // Its positions are added by `embed`, so tokens that come as vectors have none, as in the authors' class.
    encode(tokens: Float, mask: Float, options: SequenceOptions = {}): Float {
      const { embedAgain = false, attend: by = attend } = options;
      if (embedAgain) throw new ModelError("bert: no published second stage embeds the tokens of a BERT again.");
      const [batch, length] = tokens.shape as [Dim, Dim, Dim];
      const bias = paddingBias(mask);
      let x = reshape(tokens, [multiplyDims([batch, length]), hiddenSize]);
      const { start, end } = layerRange(options, layers);
      if (start === 0) x = scope("embeddings", () => norm(x, weights.within("embeddings.LayerNorm")));
      for (let i = start; i < end; i++) {
        x = scope(`layer.${i}`, () => layer(x, i, bias, by, batch, length));
      }
      return reshape(x, [batch, length, hiddenSize]);
    },
  };

  function layer(x: Float, index: number, bias: Float, by: Attend, batch: Dim, length: Dim): Float {
    const { heads, intermediateSize, activation } = config;
    const at = weights.within(`encoder.layer.${index}`);
    const shape: AttentionShape = { batch, length, heads, width: hiddenSize / heads };
    const square = { inputs: hiddenSize, outputs: hiddenSize };
    const attended = scope("attention", () => {
      const project = (name: string) => splitHeads(at.linear(x, `attention.self.${name}`, square), shape);
      const [q, k, v] = [project("query"), project("key"), project("value")];
      return mergeHeads(by({ layer: index, q, k, v, unturned: { q, k }, bias }), shape);
    });
    const a = norm(
      add(at.linear(attended, "attention.output.dense", square), x),
      at.within("attention.output.LayerNorm"),
    );
    const activate = (up: Float) =>
      activation === "relu" ? relu(up) : gelu(up, activation === "gelu-tanh" ? "tanh" : weights.form.gelu);
    return scope("mlp", () => {
      const up = at.linear(a, "intermediate.dense", { inputs: hiddenSize, outputs: intermediateSize });
      const down = at.linear(activate(up), "output.dense", {
        inputs: intermediateSize,
        outputs: hiddenSize,
      });
      return norm(add(down, a), at.within("output.LayerNorm"));
    });
  }
}
