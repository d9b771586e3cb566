/** Which parts of a model a run trains, and what they begin with where the base has none. */
import { InvalidInputError } from "../errors.js";
import { namedRandom } from "../random.js";
import type { TensorData } from "../runtime/runtime.js";
import { type BaseModel, type ModelPlan, NULL_CONTEXT } from "./base-model.js";
import type { TrainingSettings } from "./options.js";
import { float32Tensor, type NamedShape, sizeOf } from "./parameters.js";
import { weightsOf } from "./stage.js";
import { isLora, type LowRank } from "./trained-weights.js";

/** The layers whose states are cached: the frozen ones. Raises InvalidInputError where they depend on a context. */
export function cachedLayers(base: BaseModel, { freeze }: TrainingSettings): number {
  if (freeze === 0) {
    throw new InvalidInputError("Trainer.create: layerCache keeps states of frozen layers; pass { freeze } too.");
  }
  if (freeze > base.cacheableLayers) {
    throw new InvalidInputError(
      `Trainer.create: of ${base.path} the states of the lowest ${base.cacheableLayers} layers don't depend on a context, freeze is ${freeze}. Freeze fewer, or leave layerCache out.`,
    );
  }
  return freeze;
}

/** Whether a weight belongs to the embeddings or to one of the lowest layers of a backbone. */
function isFrozen(name: string, freeze: number): boolean {
  if (freeze === 0 || /^(?:prefix|lora)\./.test(name)) return false;
  if (/(?:^|\.)(?:embeddings|emb_ln)\./.test(name)) return true;
  const layer = /(?:^|\.)layers?\.(\d+)\./.exec(name)?.[1];
  return layer !== undefined && Number(layer) < freeze;
}

/** The weights that get a gradient and that the settings leave free. */
export function trainedOf({ text, first }: ModelPlan, { lora, freeze, context }: TrainingSettings): NamedShape[] {
  const read = weightsOf([text.vectors, ...(first && context?.gradient ? [first.vectors] : [])]);
  return read.filter(({ name }) => {
    if (isFrozen(name, freeze)) return false;
    return lora === null || isLora(name) || name.startsWith("prefix.") || name === NULL_CONTEXT;
  });
}

/** What gets a low-rank update: products of layers that aren't frozen. */
export function lowRankOf({ lora, freeze }: TrainingSettings): LowRank | undefined {
  if (!lora) return undefined;
  const { rank, alpha, products } = lora;
  return {
    rank,
    alpha,
    adapts: (name) =>
      !name.startsWith("prefix.") &&
      !isFrozen(`${name}.weight`, freeze) &&
      (products.length === 0 || products.some((part) => name.includes(part))),
  };
}

/** A is random, B is 0, so that a run begins at the base model. */
export function initialLora({ name, shape }: NamedShape, seed: number): TensorData {
  const data = new Float32Array(sizeOf(shape));
  if (name.endsWith(".b")) return float32Tensor(shape, data);
  const random = namedRandom(seed, name);
  const width = Math.sqrt(3 / shape[1]!);
  return float32Tensor(
    shape,
    data.map(() => width * (2 * random.next() - 1)),
  );
}
