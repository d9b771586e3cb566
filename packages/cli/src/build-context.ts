/** Builds the context of a corpus from its own passages, for the commands that need one. */
import type { ContextualEncoder, CorpusContext } from "@cde-js/core";
import type { Invocation } from "./command.js";
import type { Corpus } from "./inputs.js";
import { counted, grouped } from "./printable.js";
import { type Survey, survey } from "./survey.js";

/** Passages of a context where the model doesn't ask for another number. */
const DEFAULT_SIZE = 512;

export const CONTEXT_HELP: string = `--context-size N   passages that the context is built from, each drawn with equal chance [${DEFAULT_SIZE}]
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
    onDocument: (done) => progress.update("reading", { done, noun: "document" }),
  });
  if (!wanted) return { survey: found, context: undefined };
  if (found.sample.length < size) {
    const all = counted(found.sample.length, "passage");
    progress.note(`there are fewer than ${grouped(size)} passages: the context is the whole corpus, ${all}`);
  }
  const context = await encoder.buildContext(found.sample, {
    signal,
    onProgress: ({ done, total }) => progress.update("context", { done, total, noun: "passage" }),
  });
  return { survey: found, context };
}
