/** The passages of an index as they were embedded, from the documents that it keeps. */
import { embeddedText, passageSource } from "./build-index.js";
import type { ContextPassage } from "./context/from-corpus.js";
import type { IndexState } from "./index-state.js";

/** A passage that may become a context document, and where its vector is. */
export interface LabelledPassage extends ContextPassage {
  readonly label: number;
}

/** @param labels those wanted; all where absent */
export async function* livePassages(
  state: IndexState,
  labels?: ReadonlySet<number>,
): AsyncGenerator<LabelledPassage, void, undefined> {
  const { documents } = state;
  const split = state.splitter ?? (state.split === "own" ? false : (state.split ?? undefined));
  const source = passageSource(state.storing, split);
  for (const number of documents.live()) {
    const first = documents.firstPassage(number);
    const end = documents.firstPassage(number + 1);
    const wanted = Array.from({ length: end - first }, (_, i) => first + i).filter(
      (label) => labels?.has(label) ?? true,
    );
    if (labels && wanted.length === 0) continue;
    const { document, passages } = documents.read(number);
    // Only for what stands before each passage; where they begin and end is known.
    const { prefix } = await source(document, number);
    for (const label of wanted) {
      const text = embeddedText(prefix, document.text, passages[label - first]!);
      yield { id: document.id, text, metadata: document.metadata ?? {}, label };
    }
  }
}
