/** The configuration of a run: what train.schema.json lets be written, read and with its paths made absolute. */
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { InvalidInputError, MissingFileError } from "@cde-js/core";
import type { MetricName } from "@cde-js/core/evaluation";
import type {
  CsvColumns,
  ExportOptions,
  FalseNegativeRule,
  OpenOptions,
  TrainingOptions,
  UnsupervisedMethod,
} from "@cde-js/core/training";
import { problemsOf, type Schema } from "./schema.js";

export const TRAIN_SCHEMA: Schema = JSON.parse(
  readFileSync(new URL("../../train.schema.json", import.meta.url), "utf8"),
) as Schema;

/** What each option does, and its default, says train.schema.json. */
export interface TrainConfig {
  readonly $schema?: string;
  readonly model?: string;
  readonly output: string;
  readonly run?: string;
  readonly seed?: number;
  readonly threads?: number;
  readonly data: readonly DataSource[];
  readonly faulty?: "error" | "skip";
  readonly batches?: BatchesConfig;
  readonly budget?: { readonly epochs?: number; readonly steps?: number; readonly minutes?: number };
  readonly training?: TrainingConfig;
  readonly evaluation?: false | EvaluationConfig;
  readonly checkpoints?: { readonly every?: number };
  readonly export?: ExportOptions;
}

export type DataSource = (
  | { readonly jsonl: string }
  | { readonly csv: string; readonly columns?: CsvColumns; readonly delimiter?: string }
  | {
      readonly beir: string;
      readonly splits?: readonly string[] | "all";
      readonly leastGrade?: number;
      readonly judgedNegatives?: boolean;
    }
  | {
      readonly documents: string | readonly string[];
      readonly methods?: readonly UnsupervisedMethod[];
      readonly spanWords?: number;
      readonly perDocument?: number;
      readonly keepSentence?: number;
    }
) & { readonly dataset?: string };

export interface BatchesConfig {
  readonly strategy?: "contextual" | "random";
  readonly batchSize?: number;
  readonly clusterSize?: number;
  readonly clusterStarts?: number;
  readonly clusterIterations?: number;
  readonly clusterOrder?: "tour" | "random";
  readonly surrogate?: false | string | { readonly vectors: string; readonly texts: string; readonly tensor?: string };
  readonly falseNegatives?: false | FalseNegativeRule;
  readonly knownPositives?: boolean;
  readonly hardNegatives?: number;
  readonly inBatchNegatives?: boolean;
  readonly smallDatasets?: "error" | "skip";
}

export interface TrainingConfig
  extends Omit<TrainingOptions, "seed" | "totalSteps" | "context" | "spectral">,
    Pick<OpenOptions, "secondStage" | "dequantize"> {
  readonly pooling?: "mean" | "cls" | "last";
  readonly layerCache?: boolean | { readonly maxBytes?: number };
  readonly context?: Omit<NonNullable<TrainingOptions["context"]>, "from"> & { readonly from?: "batch" | "corpus" };
  readonly spectral?: Omit<NonNullable<TrainingOptions["spectral"]>, "from">;
}

export type DevConfig =
  | { readonly share: number; readonly by?: "both" | "query" | "document"; readonly nearDuplicate?: number | false }
  | { readonly beir: string; readonly split?: string }
  | { readonly knownItems: string | readonly string[]; readonly among?: string | readonly string[] };

export interface EvaluationConfig {
  readonly dev?: DevConfig;
  readonly metrics?: readonly MetricName[];
  readonly best?: MetricName;
  readonly every?: number | "epoch";
  readonly patience?: number;
  readonly queries?: number;
  readonly documents?: number;
}

/** A configuration whose paths are absolute, with the folder of the run. */
export interface TrainingPlan extends TrainConfig {
  readonly run: string;
}

/**
 * Reads a configuration. @throws MissingFileError; InvalidInputError with the options that are wrong, for each what is
 * there and what should be
 */
export async function readTrainConfig(path: string): Promise<TrainingPlan> {
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    throw new MissingFileError(path, `there is no file ${path} that can be read (${cause.code}).`, { cause });
  });
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\ufeff/, ""));
  } catch (cause) {
    throw new InvalidInputError(`${path} isn't JSON: ${(cause as Error).message}`, { cause });
  }
  return planOf(value, dirname(resolve(path)), path);
}

/** Most problems that are told at once. */
const TOLD = 3;

/** Checks a configuration; `folder` is what its paths are relative to, `name` what errors call it. */
export function planOf(value: unknown, folder: string, name: string): TrainingPlan {
  const problems = problemsOf(TRAIN_SCHEMA, value);
  if (problems.length > 0) {
    const more = problems.length > TOLD ? `; and ${problems.length - TOLD} more` : "";
    throw new InvalidInputError(`${name}: ${problems.slice(0, TOLD).join("; ")}${more}.`);
  }
  const config = value as TrainConfig;
  const contradiction = contradictionOf(config);
  if (contradiction !== undefined) throw new InvalidInputError(`${name}: ${contradiction}`);
  return withAbsolutePaths(config, folder);
}

/** What a schema can't say: options that don't suit each other, as a sentence with what to do. */
function contradictionOf({
  batches = {},
  training = {},
  evaluation,
  export: exported,
}: TrainConfig): string | undefined {
  const { strategy = "contextual", falseNegatives } = batches;
  const surrogate = surrogateOf(batches);
  if (surrogate === false && strategy === "contextual") {
    return 'batches.surrogate is false, and batches.strategy "contextual" clusters by one. Leave it out, or take strategy "random".';
  }
  if (surrogate === false && falseNegatives) {
    return "batches.falseNegatives finds them by a surrogate, and there is none. Name batches.surrogate, or leave it out.";
  }
  if (strategy === "random") {
    const given = (["clusterSize", "clusterStarts", "clusterIterations", "clusterOrder"] as const).find(
      (key) => batches[key] !== undefined,
    );
    if (given) return `batches.${given} is for strategy "contextual", and batches.strategy is "random". Leave one out.`;
  }
  if (falseNegatives) {
    const { rule } = falseNegatives;
    const [needed, other] = rule === "positive" ? ["margin", "threshold"] : ["threshold", "margin"];
    if (other! in falseNegatives) return `batches.falseNegatives.${other} isn't of rule "${rule}". Leave it out.`;
    if (rule === "absolute" && !(needed! in falseNegatives)) {
      return 'batches.falseNegatives of rule "absolute" needs a threshold.';
    }
  }
  if (training.layerCache && !training.freeze) {
    return `training.layerCache keeps the states of frozen layers, and training.freeze is ${training.freeze ?? 0}. Freeze some, or leave it out.`;
  }
  if (evaluation) {
    const { metrics = DEFAULT_DEV_METRICS, best } = evaluation;
    if (best !== undefined && !metrics.includes(best)) {
      return `evaluation.best is "${best}", which is none of evaluation.metrics: ${metrics.join(", ")}. Add it there.`;
    }
  }
  if (evaluation === false && exported?.weights === "best") {
    return 'export.weights is "best", and evaluation is false, so that no weights are known to be. Leave one out.';
  }
  return undefined;
}

export const DEFAULT_DEV_METRICS: readonly MetricName[] = ["ndcg@10", "recall@10"];

/** The default of a surrogate depends on the strategy. */
export function surrogateOf({
  surrogate,
  strategy = "contextual",
}: BatchesConfig): NonNullable<BatchesConfig["surrogate"]> {
  return surrogate ?? (strategy === "contextual" ? "base" : false);
}

function withAbsolutePaths(config: TrainConfig, folder: string): TrainingPlan {
  const { model, output, run, data, batches, evaluation, ...rest } = config;
  const place = (path: string) => resolve(folder, path);
  const places = (paths: string | readonly string[]) => (typeof paths === "string" ? [paths] : paths).map(place);
  // What is no directory may be a repository of the hub.
  const modelPlace = (name: string) => (existsSync(place(name)) ? place(name) : name);
  const surrogate = batches?.surrogate;
  const dev = evaluation ? evaluation.dev : undefined;
  return {
    ...rest,
    ...(model !== undefined && { model: modelPlace(model) }),
    output: place(output),
    run: place(run ?? `${output.replace(/[\\/]+$/, "")}-run`),
    data: data.map((source) => {
      if ("jsonl" in source) return { ...source, jsonl: place(source.jsonl) };
      if ("csv" in source) return { ...source, csv: place(source.csv) };
      if ("beir" in source) return { ...source, beir: place(source.beir) };
      return { ...source, documents: places(source.documents) };
    }),
    ...(batches && {
      batches: {
        ...batches,
        ...(typeof surrogate === "string" && surrogate !== "base" && { surrogate: modelPlace(surrogate) }),
        ...(typeof surrogate === "object" && {
          surrogate: { ...surrogate, vectors: place(surrogate.vectors), texts: place(surrogate.texts) },
        }),
      },
    }),
    ...(evaluation !== undefined && {
      evaluation: evaluation && {
        ...evaluation,
        ...(dev && "beir" in dev && { dev: { ...dev, beir: place(dev.beir) } }),
        ...(dev &&
          "knownItems" in dev && {
            dev: {
              ...dev,
              knownItems: places(dev.knownItems),
              ...(dev.among !== undefined && { among: places(dev.among) }),
            },
          }),
      },
    }),
  };
}
