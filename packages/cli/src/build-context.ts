/** Builds the context of a corpus from its own passages, for the commands that need one. */
import type { ContextualEncoder, CorpusContext } from "@cde-js/core";
import type { Invocation } from "./command.js";
import type { Corpus } from "./inputs.js";
import { counted, grouped } from "./printable.js";
import { type Survey, survey } from "./survey.js";

/** Passages of a context where the model doesn't ask for another number. */
const DEFAULT_SIZE = 512;

export const CONTEXT_HELP: string = `--context-size N   different passages that the context is built from, drawn with equal chance [${DEFAULT_SIZE}]
  --seed N           seed of the draw [0]`;

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
    onProgress: ({ done, total }) => progress.update("context", { done, total, noun: "passage" }),
  });
  return { survey: found, context };
}
