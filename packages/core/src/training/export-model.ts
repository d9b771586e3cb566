/** Writes a trained model as a directory that loads everywhere: plain float32 weights, and all files beside them. */
import { mkdir, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { InvalidInputError } from "../errors.js";
import { isTwoStageDirectory } from "../model/checkpoint.js";
import { isJsonObject, readJsonObject } from "../model/json-file.js";
import type { ModelDirectory, Pooling } from "../model/model-directory.js";
import { type TensorToWrite, writeSafetensors } from "../model/safetensors.js";
import { SECOND_STAGE_FILE } from "../model/second-stage.js";
import { COMPANIONS, copyFiles, requireFree, writeDirectory } from "../model/write-directory.js";
import type { BaseModel } from "./base-model.js";
import type { BaseWeights } from "./base-weights.js";
import type { Forgetting } from "./forgetting.js";
import { type ModelCard, modelCard } from "./model-card.js";
import type { NamedShape } from "./parameters.js";
import type { Progress } from "./progress.js";
import { weightsOf } from "./stage.js";
import type { TrainedModel } from "./trained-model.js";
import { loraName } from "./trained-weights.js";

export interface ExportOptions {
  /** The best weights by the evaluators' figure, or those of the last step. @default "best" where there are any */
  readonly weights?: "best" | "last";
  /** Share of the base in the mean of base and trained weights, from 0 to below 1 (Wortsman et al. 2022). @default 0 */
  readonly averageWithBase?: number;
  /** What the model card says of licence and data. */
  readonly card?: ModelCard;
}

export interface ExportedRun {
  readonly model: TrainedModel;
  readonly progress: Progress;
  readonly best: ReadonlyMap<string, Float32Array> | undefined;
  readonly forgetting: Forgetting | undefined;
  readonly dequantized: boolean;
}

const OPERATION = "Trainer.export";

export async function exportTrained(run: ExportedRun, target: string, options: ExportOptions): Promise<void> {
  const { model, best } = run;
  const { averageWithBase: share = 0, weights = best ? "best" : "last" } = options;
  if (!(share >= 0 && share < 1)) {
    throw new InvalidInputError(`${OPERATION}: averageWithBase should be a number from 0 to below 1, got ${share}.`);
  }
  if (weights === "best" && !best) {
    throw new InvalidInputError(`${OPERATION}: there are no best weights: no evaluation kept any. Export the "last".`);
  }
  await requireFree(OPERATION, target);
  const { base } = model;
  const trained = async (name: string): Promise<Float32Array> =>
    (weights === "best" ? best?.get(name) : undefined) ??
    ((await model.parameters.weights.read(name)).data as Float32Array);
  await using baseWeights = await base.openWeights();
  const read = exportedWeights(model);
  const tensors = [
    ...read.map((tensor): TensorToWrite => ({ ...tensor, dtype: "F32", data: () => finalWeight(tensor) })),
    ...(await otherTensors(baseWeights, new Set(read.map(({ name }) => name)))),
  ];
  await writeDirectory(OPERATION, target, async (folder) => {
    const inner = await copyDescription(model, folder);
    await writeSafetensors(join(folder, inner, "model.safetensors"), tensors, {
      format: "pt",
      cde_base_sha256: baseWeights.digest,
    });
    const card = modelCard({ ...run, weights, averageWithBase: share }, options.card ?? {});
    await writeFile(join(folder, "README.md"), card);
  });

  /** Trained, or base plus its low-rank update; then averaged with the base. */
  async function finalWeight(tensor: NamedShape): Promise<Float32Array> {
    const { name } = tensor;
    const result = await trained(name);
    const product = name.replace(/\.weight$/, "");
    const lora = model.settings.lora;
    const updated = lora && model.parameters.trained.some((entry) => entry.name === loraName(product, "a"));
    if (updated) {
      addLowRank(result, tensor.shape, {
        down: await trained(loraName(product, "a")),
        up: await trained(loraName(product, "b")),
        scale: lora.alpha / lora.rank,
      });
    }
    if (share === 0 || !baseWeights.has(name)) return result;
    const before = await baseWeights.read(tensor);
    return result.map((value, i) => (1 - share) * value + share * before[i]!);
  }
}

/** Every weight that the model reads without low-rank updates, and the null context where one was trained. */
function exportedWeights({ base, settings }: TrainedModel): NamedShape[] {
  const contextDropout = (settings.context?.dropout ?? 0) > 0;
  const { text, first } = base.plan({ contextDropout, contextGradient: false });
  return weightsOf([text.vectors, ...(first ? [first.vectors] : [])]);
}

/** Tensors of the base that no stage reads, such as a pooler: other libraries ask for them. */
async function otherTensors(weights: BaseWeights, read: ReadonlySet<string>): Promise<TensorToWrite[]> {
  const { file } = weights;
  const tensors: TensorToWrite[] = [];
  for (const name of weights.others(read)) {
    const { dtype, shape } = file.tensors.get(name)!;
    if (["F32", "F16", "BF16", "F64"].includes(dtype)) {
      tensors.push({ name: unprefixed(name, read), dtype: "F32", shape, data: () => file.readFloat32(name) });
    } else if (dtype === "I64") {
      const data = async () => (await file.read(name)) as BigInt64Array;
      tensors.push({ name: unprefixed(name, read), dtype, shape, data });
    }
  }
  return tensors;
}

/** Names of the weights are written without "bert." or "model."; those of its neighbours must be so too. */
function unprefixed(name: string, read: ReadonlySet<string>): string {
  const short = name.replace(/^(?:bert|model)\./, "");
  return read.has(name) || read.has(short) ? name : short;
}

/** W += scale · B·A, for B [out, rank] and A [rank, in]. */
function addLowRank(
  weight: Float32Array,
  [outputs = 0, inputs = 0]: readonly number[],
  { down, up, scale }: { down: Float32Array; up: Float32Array; scale: number },
): void {
  const rank = up.length / outputs;
  const row = new Float64Array(inputs);
  for (let o = 0; o < outputs; o++) {
    row.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = scale * up[o * rank + r]!;
      for (let i = 0; i < inputs; i++) row[i]! += factor * down[r * inputs + i]!;
    }
    for (let i = 0; i < inputs; i++) weight[o * inputs + i]! += row[i]!;
  }
}

/** Configuration, tokenizer and modules; returns the folder in which the weights belong. */
async function copyDescription(model: TrainedModel, folder: string): Promise<string> {
  const { base } = model;
  if (await isTwoStageDirectory(base.path)) {
    await copyFiles(base.path, folder, COMPANIONS);
    await copyFiles(base.directory.tokenizer, folder, TOKENIZER);
    await writeJson(join(folder, "config.json"), await twoStageConfig(model));
    return "";
  }
  const directory = base.directory as ModelDirectory;
  const inner = relative(directory.path, directory.tokenizer);
  await copyFiles(base.path, folder, COMPANIONS);
  if (inner !== "") await copyFiles(directory.tokenizer, join(folder, inner), COMPANIONS);
  await writeModules(directory, folder, inner);
  if (base.stage) {
    const stage = base.stage === "spectral" ? "spectral" : { ...base.stage, seed: undefined };
    await writeJson(join(folder, SECOND_STAGE_FILE), { format: 1, secondStage: stage });
  }
  return inner;
}

const TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/** The base's, with what the run decided: the path through the second stage, and the null context. */
async function twoStageConfig({ base, settings }: TrainedModel): Promise<object> {
  const json = await readJsonObject(OPERATION, join(base.path, "config.json"));
  const dropout = settings.context?.dropout ?? 0;
  return {
    ...json,
    ...(dropout > 0 && { transductive_sequence_dropout_prob: dropout }),
    cde: { ...(isJsonObject(json.cde) ? json.cde : {}), preset: presetOf(base) },
  };
}

function presetOf(base: BaseModel): string {
  return "preset" in base.directory ? base.directory.preset : "";
}

/** The chain of sentence-transformers, whether the base had it or was told how to pool. */
async function writeModules(directory: ModelDirectory, folder: string, inner: string): Promise<void> {
  const module = (idx: number, path: string, type: string) => ({
    idx,
    name: String(idx),
    path,
    type: `sentence_transformers.models.${type}`,
  });
  await writeJson(join(folder, "modules.json"), [
    module(0, inner, "Transformer"),
    module(1, "1_Pooling", "Pooling"),
    module(2, "2_Normalize", "Normalize"),
  ]);
  await mkdir(join(folder, "1_Pooling"), { recursive: true });
  const mode = (kind: Pooling) => directory.pooling === kind;
  await writeJson(join(folder, "1_Pooling", "config.json"), {
    word_embedding_dimension: directory.config.hiddenSize,
    pooling_mode_cls_token: mode("cls"),
    pooling_mode_mean_tokens: mode("mean"),
    pooling_mode_max_tokens: mode("max"),
    pooling_mode_mean_sqrt_len_tokens: false,
    pooling_mode_weightedmean_tokens: false,
    pooling_mode_lasttoken: mode("last"),
    include_prompt: true,
  });
  await writeJson(join(folder, inner, "sentence_bert_config.json"), {
    max_seq_length: directory.maxTokens,
    do_lower_case: false,
  });
}

async function writeJson(path: string, value: object): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, undefined, 2)}\n`);
}
