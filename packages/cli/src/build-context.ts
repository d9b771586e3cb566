/** Builds the context of a corpus from its own passages, for the commands that need one. */
import {
  type BuildContextOptions,
  type ContextualEncoder,
  type CorpusContext,
  describeCalibration,
  type SpectralStrength,
} from "@cde-js/core";
import { type Command, type Invocation, UsageError } from "./command.js";
import type { Corpus } from "./inputs.js";
import { counted, grouped } from "./printable.js";
import { type Survey, survey } from "./survey.js";

/** Passages of a context where the model doesn't ask for another number. */
const DEFAULT_SIZE = 512;

export const CONTEXT_HELP: string = `--context-size N   different passages that the context is built from, drawn with equal chance [${DEFAULT_SIZE}]
  --seed N           seed of the draw, and of the queries by which the strength is chosen [0]
  --strength S       of a spectral context: auto, off, or A,S,B such as 0.35,0.3,0.5 [auto: chosen for the corpus]
  --token-weights A  whether tokens count by how rare they are in the corpus: auto, off, or the share of passages at which a
                     token counts half, such as 0.3 [auto with a strength that is auto, else off]`;

/** The options behind CONTEXT_HELP. */
export const CONTEXT_OPTIONS: Command["options"] = {
  "context-size": { type: "string" },
  seed: { type: "string" },
  strength: { type: "string" },
  "token-weights": { type: "string" },
};

/** `--token-weights`; its range is checked where the context is built. */
function tokenWeightsOption({ options }: Invocation): BuildContextOptions["tokenWeights"] {
  const text = options.text("token-weights");
  if (text === undefined || text === "off" || text === "auto") return text;
  const smoothing = text.trim() === "" ? Number.NaN : Number(text);
  if (Number.isFinite(smoothing)) return { smoothing };
  throw new UsageError(`--token-weights should be auto, off or a number such as 0.3, got "${text}".`);
}

/** `--strength`; its ranges are checked where the context is built. */
export function strengthOption({ options }: Invocation): SpectralStrength | "off" | "auto" | undefined {
  const text = options.text("strength");
  if (text === undefined || text === "off" || text === "auto") return text;
  const [a, s, b, ...more] = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (more.length > 0 || ![a, s, b].every(Number.isFinite)) {
    throw new UsageError(`--strength should be auto, off or three numbers such as 0.35,0.3,0.5, got "${text}".`);
  }
  return { a: a!, s: s!, b: b! };
}

export interface SurveyedCorpus {
  readonly survey: Survey;
  /** Undefined where none was wanted. */
  readonly context: CorpusContext | undefined;
}

/** Reads the corpus once; `wanted: false` only counts it. */
export async function surveyCorpus(
  encoder: ContextualEncoder,
  inputs: Corpus,
  { wanted, invocation }: { readonly wanted: boolean; readonly invocation: Invocation },
): Promise<SurveyedCorpus> {
  const { options, progress, signal } = invocation;
  const size = options.integer("context-size", 1) ?? encoder.contextSize ?? DEFAULT_SIZE;
  // Before the corpus is read: a slip on the command line should not wait for it.
  const strength = strengthOption(invocation);
  const tokenWeights = tokenWeightsOption(invocation);
  const found = await survey(inputs, {
    sample: wanted ? { size, counter: encoder } : undefined,
    seed: options.integer("seed", 0) ?? 0,
    signal,
    onDocument: (done) => progress.update("reading", { done, noun: "document" }),
  });
  const { choice } = found;
  if (!choice) return { survey: found, context: undefined };
  const { duplicates, nearDuplicates, boilerplate, empty } = choice.leftOut;
  const leftOut = Object.entries({
    duplicates,
    "near-duplicates": nearDuplicates,
    boilerplate,
    "without a word": empty,
  });
  const reasons = leftOut.filter(([, count]) => count > 0).map(([what, count]) => `${grouped(count)} ${what}`);
  if (choice.chosen.length < size) {
    const all = counted(choice.chosen.length, "passage");
    progress.note(`there are fewer than ${grouped(size)} different passages: the context is all of them, ${all}`);
  }
  if (reasons.length > 0) progress.note(`left out of the context: ${reasons.join(", ")}`);
  const context = await encoder.buildContext(choice.chosen, {
    signal,
    ...(strength === undefined ? {} : { strength }),
    ...(tokenWeights === undefined ? {} : { tokenWeights }),
    onProgress: ({ done, total }) => progress.update("context", { done, total, noun: "text" }),
  });
  if (context.calibration) progress.note(describeCalibration(context.calibration));
  return { survey: found, context };
}
