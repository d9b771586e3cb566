/** What the trainer is told and what it says; what a checkpoint keeps of it is options.ts's. */
import { InvalidInputError } from "../errors.js";
import { canonicalJson } from "../model/digest.js";
import type { BaseModel } from "./base-model.js";
import { CheckpointMismatchError } from "./errors.js";
import type { Evaluator, MetricOf } from "./evaluation.js";
import {
  type MachineOptions,
  type OpenOptions,
  settingsOf,
  type TrainingOptions,
  type TrainingSettings,
} from "./options.js";

export interface EvaluationOptions<E extends readonly Evaluator[]> {
  readonly evaluators?: E;
  /** Steps between evaluations, or the end of each epoch and of `totalSteps`. @default "epoch" */
  readonly evaluateEvery?: number | "epoch";
  /** The figure by which the best weights are kept. */
  readonly best?: {
    readonly metric: MetricOf<E[number]>;
    /** Whether less is better. @default false */
    readonly lower?: boolean;
    /** Evaluations without a new best after which a run ends. @default never */
    readonly patience?: number;
  };
}

export interface TrainerOptions<E extends readonly Evaluator[] = readonly Evaluator[]>
  extends TrainingOptions,
    OpenOptions,
    MachineOptions,
    EvaluationOptions<E> {
  readonly signal?: AbortSignal;
}

export interface ResumeOptions<E extends readonly Evaluator[] = readonly Evaluator[]>
  extends TrainingOptions,
    MachineOptions,
    EvaluationOptions<E> {
  /** Where the base model lies now. @default where it lay */
  readonly model?: string;
}

export interface StepsOptions {
  /** Passes over the data in the whole run, those before a checkpoint included. @default 1 */
  readonly epochs?: number;
  /** Ends the loop after the step that is under way; it then throws the signal's reason, and the trainer can be saved. */
  readonly signal?: AbortSignal;
}

/** One step of the optimiser. */
export interface TrainingStep<M extends string = string> {
  /** From 1. */
  readonly step: number;
  /** From 0. */
  readonly epoch: number;
  /** Batches of this epoch that were used, this step's included. */
  readonly batches: number;
  readonly datasets: readonly string[];
  /** Mean over the step's batches, as are the figures below. */
  readonly loss: number;
  /** Part of the loss: the distance from the base's similarities. */
  readonly distillation: number;
  /** Share of queries whose positive was the most similar of all documents that counted. */
  readonly accuracy: number;
  readonly learningRate: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  readonly temperature: number;
  readonly pairs: number;
  /** Hard negatives included. */
  readonly documents: number;
  /** Documents that didn't count against a query, added up over queries. */
  readonly falseNegatives: number;
  /**
   * Mean cosine, by the base, of queries and the documents that counted against them: higher is harder. With
   * `distillation` or `falseNegatives`.
   */
  readonly difficulty?: number;
  /** Texts that were cut to `maxTokens`. */
  readonly truncated: number;
  /** Of the step without its evaluation. */
  readonly milliseconds: number;
  /** Figures of the evaluators, where they were due after this step. */
  readonly metrics?: Readonly<Record<M, number>>;
  /** Whether this step's weights are the best so far; only where they were evaluated. */
  readonly isBest?: boolean;
}

/** Refuses evaluators and figures that don't belong together. */
export function checkEvaluation(
  options: EvaluationOptions<readonly Evaluator[]>,
): EvaluationOptions<readonly Evaluator[]> {
  const { evaluators = [], evaluateEvery = "epoch", best } = options;
  const names = evaluators.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new InvalidInputError(`Trainer: two evaluators are named "${twice}".`);
  if (evaluateEvery !== "epoch" && !(Number.isSafeInteger(evaluateEvery) && evaluateEvery > 0)) {
    throw new InvalidInputError(`Trainer: evaluateEvery should be "epoch" or a number of steps, got ${evaluateEvery}.`);
  }
  if (best && !names.some((name) => best.metric.startsWith(`${name}/`))) {
    throw new InvalidInputError(
      `Trainer: best.metric is "${best.metric}", and no evaluator of that name is given: ${names.join(", ") || "none"}.`,
    );
  }
  if (best?.patience !== undefined && !(Number.isSafeInteger(best.patience) && best.patience > 0)) {
    throw new InvalidInputError(`Trainer: best.patience should be a whole number from 1, got ${best.patience}.`);
  }
  return { evaluators, evaluateEvery, ...(best && { best }) };
}

/** Options that are given again must be what the checkpoint holds. */
export function requireSame(directory: string, saved: TrainingSettings, base: BaseModel, options: ResumeOptions): void {
  const given = Object.keys(options).filter((key) => key in saved || key === "preset");
  if (given.length === 0) return;
  const asked = settingsOf(base, options);
  const keys = given.includes("preset") ? (Object.keys(saved) as (keyof TrainingSettings)[]) : given;
  for (const key of keys as (keyof TrainingSettings)[]) {
    const pairs = key === "temperature" ? (["temperature", "temperatureLearned"] as const) : [key];
    for (const entry of pairs) {
      const [before, now] = [canonicalJson(saved[entry]), canonicalJson(asked[entry])];
      if (before === now) continue;
      throw new CheckpointMismatchError(
        entry,
        `Trainer.resume: the run in ${directory} has ${entry} ${before}, asked for is ${now}. Leave it out, or begin a new run.`,
      );
    }
  }
}
