/** What a checkpoint holds of a run, written and read back with every part checked. */
import { CorruptFileError, InvalidInputError } from "../errors.js";
import { canonicalJson } from "../model/digest.js";
import { isJsonObject, type JsonObject } from "../model/json-file.js";
import type { Pooling } from "../model/model-directory.js";
import type { TensorToWrite } from "../model/safetensors.js";
import type { SecondStage } from "../model/second-stage.js";
import type { TwoStagePreset } from "../model/two-stage.js";
import { Random, type RandomState } from "../random.js";
import type { TensorStore } from "../runtime/runtime.js";
import type { BaseModel } from "./base-model.js";
import { type OpenCheckpoint, openCheckpoint, writeCheckpoint } from "./checkpoint-files.js";
import { CheckpointMismatchError } from "./errors.js";
import { settingsOf, type TrainingOptions, type TrainingSettings } from "./options.js";
import { float32Tensor, type NamedShape, type Parameters } from "./parameters.js";
import type { Progress } from "./progress.js";
import type { TrainedModel } from "./trained-model.js";

/** How the base model was opened. */
export interface OpenedBase {
  readonly path: string;
  readonly kind: string;
  readonly secondStage: SecondStage | null;
  readonly pathPreset: TwoStagePreset | null;
  readonly tokenizer: string | null;
  readonly pooling: Pooling | null;
  readonly dequantize: boolean;
  /** Whether the states of frozen layers come from a cache, rounded. */
  readonly layerCache: boolean;
}

export interface SavedState {
  readonly opened: OpenedBase;
  readonly progress: Progress;
}

interface RunState extends SavedState {
  readonly model: TrainedModel;
  readonly best: ReadonlyMap<string, Float32Array> | undefined;
}

export async function writeState(directory: string, { model, opened, progress, best }: RunState): Promise<void> {
  const { parameters, settings, baseDigest } = model;
  const [first, second] = parameters.moments;
  await writeCheckpoint(directory, progress.step, {
    state: { settings, opened, progress, baseDigest } as unknown as JsonObject,
    tensors: {
      weights: tensorsOf(parameters.weights, parameters.trained),
      first: tensorsOf(first, parameters.trained),
      second: tensorsOf(second, parameters.trained),
      ...(best && {
        best: parameters.trained.map(({ name, shape }): TensorToWrite => {
          return { name, shape, dtype: "F32", data: best.get(name)! };
        }),
      }),
    },
  });
}

/** Copies of the trained tensors of a store, by name. */
export async function readTensors(store: TensorStore, { trained }: Parameters): Promise<Map<string, Float32Array>> {
  const tensors = new Map<string, Float32Array>();
  for (const { name } of trained) tensors.set(name, (await store.read(name)).data as Float32Array);
  return tensors;
}

export interface OpenState extends OpenCheckpoint {
  readonly state: JsonObject & SavedState;
  /** The settings, held against the model by the checks that options pass. */
  settingsFor(base: BaseModel): TrainingSettings;
  requireBase(digest: string, path: string): void;
}

/** Opens a checkpoint and checks the form of what it says. */
export async function openState(directory: string): Promise<OpenState> {
  const checkpoint = await openCheckpoint(directory);
  const { state, folder } = checkpoint;
  const corrupt = (what: string, cause?: unknown) =>
    new CorruptFileError(folder, `Trainer.resume: the state in ${folder} ${what}`, { cause });
  try {
    const { settings, opened, progress, baseDigest } = state;
    if (!isJsonObject(settings) || !isJsonObject(opened) || typeof opened.path !== "string") {
      throw corrupt("lacks its settings.");
    }
    if (typeof baseDigest !== "string") throw corrupt("names no base model.");
    const checked = checkProgress(progress, corrupt);
    return {
      ...checkpoint,
      state: { ...state, opened: opened as unknown as OpenedBase, progress: checked },
      settingsFor(base) {
        let found: TrainingSettings;
        try {
          found = settingsOf(base, optionsOf(settings as unknown as TrainingSettings));
        } catch (cause) {
          if (!(cause instanceof InvalidInputError || cause instanceof TypeError)) throw cause;
          throw corrupt(`has settings that don't suit ${base.path}: ${cause.message}`, cause);
        }
        if (canonicalJson(found) === canonicalJson(settings)) return found;
        throw corrupt("has settings that this version doesn't know.");
      },
      requireBase(digest, path) {
        if (digest === baseDigest) return;
        throw new CheckpointMismatchError(
          "model",
          `Trainer.resume: the run began from weights with the digest ${baseDigest.slice(0, 12)}, those of ${path} have ${digest.slice(0, 12)}. Give the directory that it began from as { model }.`,
        );
      },
    };
  } catch (error) {
    await checkpoint[Symbol.asyncDispose]();
    throw error;
  }
}

/** Writes weights and moments over those that a model was opened with; returns the best weights, where there are any. */
export async function restoreTensors(
  { tensors, folder }: OpenState,
  parameters: Parameters,
): Promise<Map<string, Float32Array> | undefined> {
  const { trained, weights, moments } = parameters;
  parameters.changed();
  const stores = { weights, first: moments[0], second: moments[1] };
  for (const [file, store] of Object.entries(stores)) {
    const source = tensors.get(file);
    if (source?.tensors.size !== trained.length) {
      throw new CorruptFileError(
        folder,
        `Trainer.resume: ${folder} holds ${source?.tensors.size ?? 0} tensors in ${file}.safetensors, the run trains ${trained.length}.`,
      );
    }
    for (const { name, shape } of trained) {
      const data = await source.readFloat32(name, shape);
      await store.write({ [name]: float32Tensor(shape, data) }, { transfer: true });
    }
  }
  const best = tensors.get("best");
  if (!best) return undefined;
  const found = new Map<string, Float32Array>();
  for (const { name, shape } of trained) found.set(name, await best.readFloat32(name, shape));
  return found;
}

function tensorsOf(store: TensorStore, trained: readonly NamedShape[]): TensorToWrite[] {
  return trained.map(({ name, shape }) => ({
    name,
    shape,
    dtype: "F32",
    data: async () => (await store.read(name)).data as Float32Array,
  }));
}

/** The options that give these settings. */
function optionsOf(settings: TrainingSettings): TrainingOptions {
  const {
    temperature,
    temperatureLearned,
    totalSteps,
    lora,
    distillation,
    falseNegatives,
    context,
    spectral,
    ...same
  } = settings;
  return {
    ...same,
    temperature: temperatureLearned ? { initial: temperature } : temperature,
    ...(totalSteps !== null && { totalSteps }),
    ...(lora !== null && { lora }),
    ...(distillation !== null && { distillation }),
    ...(falseNegatives !== null && { falseNegatives }),
    ...(context !== null && { context }),
    ...(spectral !== null && { spectral }),
  };
}

function checkProgress(value: unknown, corrupt: (what: string, cause?: unknown) => CorruptFileError): Progress {
  if (!isJsonObject(value)) throw corrupt("doesn't say where the run stood.");
  for (const key of ["step", "epoch", "batches", "evaluationsSinceBest"]) {
    const count = value[key];
    if (!Number.isSafeInteger(count) || (count as number) < 0)
      throw corrupt(`has the ${key} ${JSON.stringify(count)}.`);
  }
  for (const key of ["lastBatch", "source"]) {
    if (!(value[key] === null || typeof value[key] === "string"))
      throw corrupt(`has the ${key} ${JSON.stringify(value[key])}.`);
  }
  for (const key of ["best", "metrics"]) {
    if (!(value[key] === null || isJsonObject(value[key]))) throw corrupt(`has no ${key}.`);
  }
  if (!isJsonObject(value.pairs)) throw corrupt("doesn't count its pairs.");
  try {
    Random.fromState(value.random as RandomState);
  } catch (cause) {
    throw corrupt("has no random state.", cause);
  }
  return { ...value } as unknown as Progress;
}
