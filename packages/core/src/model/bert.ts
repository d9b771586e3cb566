/** BERT (Devlin et al. 2019): absolute positions, post-norm, GELU; names as Hugging Face stores them. */
import {
  add,
  type Dim,
  type Float,
  gather,
  gelu,
  type Int,
  layerNorm,
  multiplyDims,
  reshape,
  scope,
  slice,
} from "../graph/index.js";
import { type AttentionShape, attend, mergeHeads, paddingBias, splitHeads } from "./attention.js";
import type { Backbone } from "./backbone.js";
import type { GraphWeights } from "./graph-weights.js";

export interface BertConfig {
  readonly architecture: "bert";
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly intermediateSize: number;
  readonly maxPositions: number;
  readonly typeVocabularySize: number;
  readonly layerNormEpsilon: number;
}

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
        const words = gather(at.get("word_embeddings.weight", [vocabularySize, hiddenSize]), ids);
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

    encode(tokens: Float, mask: Float): Float {
      const [batch, length] = tokens.shape as [Dim, Dim, Dim];
      const bias = paddingBias(mask);
      let x = reshape(tokens, [multiplyDims([batch, length]), hiddenSize]);
      x = scope("embeddings", () => norm(x, weights.within("embeddings.LayerNorm")));
      for (let i = 0; i < layers; i++) {
        x = scope(`layer.${i}`, () => layer(x, bias, weights.within(`encoder.layer.${i}`), batch, length));
      }
      return reshape(x, [batch, length, hiddenSize]);
    },
  };

  function layer(x: Float, bias: Float, at: GraphWeights, batch: Dim, length: Dim): Float {
    const { heads, intermediateSize } = config;
    const shape: AttentionShape = { batch, length, heads, width: hiddenSize / heads };
    const square = { inputs: hiddenSize, outputs: hiddenSize };
    const attended = scope("attention", () => {
      const project = (name: string) => splitHeads(at.linear(x, `attention.self.${name}`, square), shape);
      return mergeHeads(attend(project("query"), project("key"), project("value"), bias, shape.width), shape);
    });
    const a = norm(
      add(at.linear(attended, "attention.output.dense", square), x),
      at.within("attention.output.LayerNorm"),
    );
    return scope("mlp", () => {
      const up = at.linear(a, "intermediate.dense", { inputs: hiddenSize, outputs: intermediateSize });
      const down = at.linear(gelu(up, weights.form.gelu), "output.dense", {
        inputs: intermediateSize,
        outputs: hiddenSize,
      });
      return norm(add(down, a), at.within("output.LayerNorm"));
    });
  }
}
