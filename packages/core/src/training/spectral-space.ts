/** The space that vectors are compared in, where a run trains within a spectral context. */
import { SpectralMap, type SpectralStrength } from "../context/spectral-map.js";
import { Spectrum } from "../context/spectrum.js";
import { documentCounts, weightsOf } from "../context/token-weights.js";
import type { Weighting } from "../encoder/batches.js";
import type { LossMap } from "./loss.js";
import { float32Tensor } from "./parameters.js";

export interface SpectralSpace {
  /** What a token counts in a text's mean; undefined where the model reads no weights. */
  readonly weighting: Weighting | undefined;
  readonly map: SpectralMap;
  /** The map as the loss reads it. */
  readonly tensors: LossMap;
}

/**
 * Made of the ids of context documents. `embed` gives their unit vectors [documents, dimensions] with tokens weighed so.
 */
export async function spectralSpace(
  ids: readonly Int32Array[],
  options: {
    readonly vocabulary: number;
    readonly strength: SpectralStrength;
    readonly smoothing: number | null;
    embed(weighting: Weighting | undefined): Promise<Float32Array>;
  },
): Promise<SpectralSpace> {
  const { vocabulary, strength, smoothing, embed } = options;
  const weights = smoothing === null ? undefined : weightsOf(documentCounts(ids, vocabulary), ids.length, smoothing);
  const weighting: Weighting | undefined = weights && ((id) => weights[id]!);
  const rows = await embed(weighting);
  const dimensions = rows.length / ids.length;
  const vectors = ids.map((_, i) => rows.subarray(i * dimensions, (i + 1) * dimensions));
  const map = new SpectralMap(await Spectrum.fit(vectors), { strength });
  const shift = Float32Array.from(map.mean, (value) => strength.b * value);
  const tensors = {
    matrix: float32Tensor([dimensions, dimensions], Float32Array.from(map.weights())),
    shift: float32Tensor([dimensions], shift),
  };
  return { weighting, map, tensors };
}
