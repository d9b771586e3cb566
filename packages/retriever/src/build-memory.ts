/** Embeds documents into an index without a folder. */
import type { Embedder } from "@cde-js/core";
import {
  type BuildProgress,
  type BuildReport,
  embedDocuments,
  type ReadyDocument,
  ReportLists,
  type SplitOptions,
  type Splitter,
  splitIdentity,
} from "./build-index.js";
import type { CorpusDocument, JsonObject } from "./documents.js";
import { IndexState, type StateOptions, storingEmbedder } from "./index-state.js";
import type { LexicalPart } from "./lexical/lexical-part.js";

export interface BuildInMemoryOptions extends StateOptions {
  readonly lexical: LexicalPart | undefined;
  readonly split: SplitOptions | Splitter | false | undefined;
  readonly notes: JsonObject | null;
  readonly onProgress?: ((progress: BuildProgress) => void) | undefined;
}

/** Passages taken in at once, between two turns of the event loop. */
const STEP = 128;

export async function buildInMemory(
  embedder: Embedder,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  options: BuildInMemoryOptions,
): Promise<{ readonly state: IndexState; readonly report: BuildReport }> {
  const { split, signal, onProgress, lexical } = options;
  const storing = storingEmbedder(embedder);
  const state = await IndexState.empty(embedder, { ...options, split: splitIdentity(storing, split) });
  const lists = new ReportLists();
  try {
    for await (const slice of embedDocuments(storing, documents, { operation: "build", split, signal, onProgress })) {
      for (const step of steps(slice)) await state.add(step);
      for (const embedded of slice) lists.add(embedded);
    }
  } catch (error) {
    await state.close();
    throw error;
  }
  // Documents of a later version of this index are weighed by the average length of these.
  lexical?.index.freeze();
  state.settled = state.documents.documents;
  await state.autoFusion();
  const { documents: count, passages } = state.documents;
  return { state, report: { documents: count, passages, ...lists, resumed: 0 } };
}

function* steps(slice: readonly ReadyDocument[]): Generator<readonly ReadyDocument[]> {
  let step: ReadyDocument[] = [];
  let passages = 0;
  for (const document of slice) {
    step.push(document);
    passages += document.passages.length;
    if (passages < STEP) continue;
    yield step;
    [step, passages] = [[], 0];
  }
  yield step;
}
