/** The first reading of a corpus: counts it, and chooses the passages that its context is built from. */
import { type Embedder, InvalidInputError } from "@cde-js/core";
import { type ContextChoice, type CorpusDocument, selectContext, splitText } from "@cde-js/retriever";
import type { Corpus } from "./inputs.js";

/** An encoder or an embedder, of which only the tokenizer is used. */
export type TokenCounter = Required<Pick<Embedder, "maxTokens" | "countTokens">>;

export interface SurveyOptions {
  /** Passages to choose at most, and who counts their tokens; undefined only counts documents. */
  readonly sample: { readonly size: number; readonly counter: TokenCounter } | undefined;
  readonly seed: number;
  readonly signal: AbortSignal;
  readonly onDocument?: (documents: number) => void;
}

export interface Survey {
  readonly documents: number;
  /** UTF-16 units of all texts. */
  readonly units: number;
  /** The passages chosen, as they are embedded (with the title before them), and those left out; undefined without `sample`. */
  readonly choice: ContextChoice<string> | undefined;
}

/** Longest passage of an index that `cde` builds, in tokens. */
export function passageTokens({ maxTokens }: Pick<Embedder, "maxTokens">): number {
  return Math.min(256, maxTokens);
}

/**
 * Every different passage is as likely to be chosen as every other, whatever the number of documents; equal seeds choose
 * equally. See `selectContext`.
 *
 * @throws InvalidInputError where there is no document, or a sample is wanted and all of them are blank.
 */
export async function survey(inputs: Corpus, options: SurveyOptions): Promise<Survey> {
  const { sample: wanted, seed, signal, onDocument } = options;
  let [documents, units, passages] = [0, 0, 0];
  async function* read(): AsyncGenerator<string> {
    for await (const { document } of inputs.read()) {
      onDocument?.(++documents);
      units += document.text.length;
      if (!wanted) continue;
      for (const text of passageTexts(document, wanted.counter)) {
        passages++;
        yield text;
      }
    }
    if (documents === 0) throw new InvalidInputError("there are no documents in what was given.");
    if (wanted && passages === 0) throw new InvalidInputError("all documents are blank.");
  }
  if (wanted) {
    // A smaller corpus is taken whole; a model that needs more says so itself.
    const choice = await selectContext(read(), { size: wanted.size, seed, atMost: true, signal });
    return { documents, units, choice };
  }
  for await (const _ of read()) signal.throwIfAborted();
  return { documents, units, choice: undefined };
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
