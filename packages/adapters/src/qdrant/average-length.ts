/** How long passages are on average: the one number of a corpus that BM25 needs before the first passage is written. */
import type { Embedder } from "@cde-js/core";
import {
  type AnalyzerOptions,
  type CorpusDocument,
  countTerms,
  createAnalyzer,
  type SplitOptions,
  type Splitter,
} from "@cde-js/retriever";
import { checkDocument, passageSource } from "@cde-js/retriever/backend";

/** Passages that are measured. */
export const MEASURED = 4096;

export interface AverageLengthOptions {
  readonly split?: SplitOptions | Splitter | false;
  readonly lexical?: AnalyzerOptions;
  readonly signal?: AbortSignal;
}

/**
 * Terms of a passage that has any, on average over the first 4,096 passages of a corpus; undefined where none has. Workers
 * that read one corpus from its beginning agree in it without speaking to each other.
 */
export async function averageLength(
  embedder: Embedder,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  { split, lexical = {}, signal }: AverageLengthOptions = {},
): Promise<number | undefined> {
  const analyzer = createAnalyzer(lexical);
  const source = passageSource(embedder, split);
  let [passages, sum, withTerms, position] = [0, 0, 0, 0];
  for await (const value of documents) {
    signal?.throwIfAborted();
    const document = checkDocument(value, position, "averageLength");
    const { passages: found } = await source(document, position++);
    for (const { start, end } of found) {
      const { length } = countTerms(analyzer, countedText(document.title, document.text.slice(start, end)));
      sum += length;
      if (length > 0) withTerms++;
      if (++passages === MEASURED) break;
    }
    if (passages === MEASURED) break;
  }
  return withTerms === 0 ? undefined : sum / withTerms;
}

/** What BM25 counts of a passage: its title too, as in the embedded index. */
export function countedText(title: string | undefined, text: string): string {
  return title === undefined ? text : `${title} ${text}`;
}
