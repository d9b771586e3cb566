/** The first reading of a corpus: counts it, and draws the passages that its context is built from. */
import { createRandom, type Embedder, InvalidInputError } from "@cde-js/core";
import { type CorpusDocument, splitText } from "@cde-js/retriever";
import type { Corpus } from "./inputs.js";

/** An encoder or an embedder, of which only the tokenizer is used. */
export type TokenCounter = Required<Pick<Embedder, "maxTokens" | "countTokens">>;

export interface SurveyOptions {
  /** Passages to draw at most, and who counts their tokens; undefined only counts documents. */
  readonly sample: { readonly size: number; readonly counter: TokenCounter } | undefined;
  readonly seed: number;
  readonly onDocument?: (documents: number) => void;
}

export interface Survey {
  readonly documents: number;
  /** UTF-16 units of all texts. */
  readonly units: number;
  /** The passages drawn, as they are embedded: with the title before them. */
  readonly sample: readonly string[];
}

/** Longest passage of an index that `cde` builds, in tokens. */
export function passageTokens({ maxTokens }: Pick<Embedder, "maxTokens">): number {
  return Math.min(256, maxTokens);
}

/**
 * Every passage is as likely to be drawn as every other, whatever the number of documents; equal seeds draw equally.
 *
 * @throws InvalidInputError where there is no document, or a sample is wanted and all of them are blank.
 */
export async function survey(inputs: Corpus, options: SurveyOptions): Promise<Survey> {
  const random = createRandom(options.seed);
  const { sample: wanted } = options;
  const sample: string[] = [];
  let [documents, units, passages] = [0, 0, 0];
  for await (const { document } of inputs.read()) {
    options.onDocument?.(++documents);
    units += document.text.length;
    if (!wanted) continue;
    // Reservoir sampling (Vitter 1985, algorithm R).
    for (const text of passageTexts(document, wanted.counter)) {
      if (sample.length < wanted.size) sample.push(text);
      else {
        const at = random.integer(passages + 1);
        if (at < sample.length) sample[at] = text;
      }
      passages++;
    }
  }
  if (documents === 0) throw new InvalidInputError("there are no documents in what was given.");
  if (wanted && passages === 0) throw new InvalidInputError("all documents are blank.");
  return { documents, units, sample };
}

/** What an index embeds of a document: see `CorpusIndex.build`. */
function passageTexts({ text, title = "" }: CorpusDocument, counter: TokenCounter): string[] {
  const countTokens = (stretch: string): number => counter.countTokens(stretch);
  const maxTokens = passageTokens(counter);
  const bare = countTokens("");
  let prefix = title.trim() === "" ? "" : `${title.trim()} `;
  if (countTokens(prefix) - bare > (maxTokens - bare) / 2) prefix = "";
  return splitText(text, { countTokens, maxTokens, prefix }).map(({ start, end }) => prefix + text.slice(start, end));
}
