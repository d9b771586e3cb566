/** Which second stage makes a biencoder contextual, as the caller or the model's `cde.json` says it. */
import { join } from "node:path";
import { CorruptFileError, InvalidInputError } from "../errors.js";
import type { BackboneConfig } from "./backbone-config.js";
import { describe, isJsonObject, readOptionalJsonObject } from "./json-file.js";
import { type PrefixConfig, prefixLayers } from "./prefix-stage.js";

/**
 * The learned slot: layers that attend to keys and values of the context, cached once a corpus. Untrained it reads
 * nothing (`"gated"`), or noise (`"joint"`); the spectral map needs no training.
 */
export interface PrefixOptions {
  readonly kind: "prefix";
  /**
   * One softmax over context and text, or one for each with a gate that begins at 0, where the model is its base
   * exactly. @default "gated"
   */
  readonly softmax?: "joint" | "gated";
  /**
   * How many of the top layers attend to the context, up to all. With 512 context vectors each of MiniLM's six costs a
   * query about 9 %.
   * @default the upper half
   */
  readonly layers?: number;
  /** Whether a spectral map follows, fitted to the context documents as this stage embeds them. @default false */
  readonly spectral?: boolean;
  /** Seed of the stage's own tensors where they are made anew. @default 0 */
  readonly seed?: number;
}

export type SecondStage = "spectral" | PrefixOptions;

/** The same, checked and complete; without a seed its own tensors are in the model's weights. */
export interface PrefixStage extends PrefixConfig {
  readonly kind: "prefix";
  readonly spectral: boolean;
  readonly seed?: number;
}

export const SECOND_STAGE_FILE = "cde.json";
const OPERATION = "ContextualEncoder.load";

/** The stage that `cde.json` of a model's directory names; undefined where there is no such file. */
export async function readSecondStage(
  directory: string,
  backbone: BackboneConfig,
): Promise<"spectral" | PrefixStage | undefined> {
  const path = join(directory, SECOND_STAGE_FILE);
  const json = await readOptionalJsonObject(OPERATION, path);
  if (!json) return undefined;
  const { format, secondStage, ...others } = json;
  const refuse = (what: string, cause?: unknown) =>
    new CorruptFileError(path, `${OPERATION}: ${path} ${what}`, { cause });
  if (format !== 1) throw refuse(`has the format ${describe(format)}, this version reads 1.`);
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw refuse(`has the unknown key "${unknown}".`);
  let stage: "spectral" | PrefixStage;
  try {
    stage = checkSecondStage(secondStage, backbone);
  } catch (cause) {
    throw refuse(`can't be used. ${(cause as Error).message}`, cause);
  }
  if (stage === "spectral" || stage.seed === undefined) return stage;
  throw refuse("has a seed, which belongs to stages that are made anew; a directory holds their tensors.");
}

/** Raises InvalidInputError for what is no second stage, or none for this backbone. */
function checkSecondStage(value: unknown, backbone: BackboneConfig): "spectral" | PrefixStage {
  if (value === "spectral") return value;
  if (!isJsonObject(value) || value.kind !== "prefix") {
    throw new InvalidInputError(
      `secondStage: use "spectral" or { kind: "prefix", … }, got ${isJsonObject(value) ? `the kind ${describe(value.kind)}` : describe(value)}.`,
    );
  }
  const {
    kind: _,
    softmax = "gated",
    layers = Math.ceil(backbone.layers / 2),
    spectral = false,
    seed,
    ...others
  } = value;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new InvalidInputError(
      `secondStage: a prefix stage has softmax, layers, spectral and seed, got "${unknown}" too.`,
    );
  }
  if (softmax !== "joint" && softmax !== "gated") {
    throw new InvalidInputError(`secondStage: softmax must be "joint" or "gated", got ${describe(softmax)}.`);
  }
  if (typeof spectral !== "boolean") {
    throw new InvalidInputError(`secondStage: spectral must be true or false, got ${describe(spectral)}.`);
  }
  if (seed !== undefined && !(Number.isSafeInteger(seed) && (seed as number) >= 0)) {
    throw new InvalidInputError(`secondStage: seed must be a whole number from 0 to 2^53 - 1, got ${describe(seed)}.`);
  }
  prefixLayers(backbone, { layers: layers as number });
  return {
    kind: "prefix",
    softmax,
    layers: layers as number,
    spectral,
    ...(seed !== undefined && { seed: seed as number }),
  };
}

/** The same for a stage that no weights exist for yet: its tensors will be made from its seed. */
export function newSecondStage(value: unknown, backbone: BackboneConfig): "spectral" | PrefixStage {
  const stage = checkSecondStage(value, backbone);
  return stage === "spectral" ? stage : { seed: 0, ...stage };
}
