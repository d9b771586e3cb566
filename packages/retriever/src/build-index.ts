/** Reads documents, splits them into passages and embeds these, in slices of bounded memory. */
import { setImmediate as pause } from "node:timers/promises";
import { type Embedder, InvalidInputError, RuntimeFailureError } from "@cde-js/core";
import { type CorpusDocument, checkDocument, wellFormedFault } from "./documents.js";
import type { LexicalPart } from "./lexical/lexical-part.js";
import { type Passage, trim } from "./split/pieces.js";
import { passagesOf } from "./split/split-text.js";
import type { DocumentStore } from "./storage/document-store.js";
import { vectorFault } from "./vector-index.js";

/** Cuts a document's text into passages, offsets in UTF-16 units. */
export type Splitter = (document: CorpusDocument) => readonly Passage[] | Promise<readonly Passage[]>;

export interface SplitOptions {
  /** Longest passage in tokens, special tokens and title included. @default 256, or `embedder.maxTokens` if less */
  readonly maxTokens?: number;
  /** Tokens that a passage repeats of the one before, at most. @default 0 */
  readonly overlap?: number;
}

export interface BuildProgress {
  /** Documents read so far. */
  readonly documents: number;
  /** Passages found in them so far. */
  readonly passages: number;
  /** Passages embedded so far. */
  readonly embedded: number;
  /** Part of the work done, from 0 to 1; undefined where the number of documents isn't known beforehand. */
  readonly fraction: number | undefined;
}

export interface BuildReport {
  readonly documents: number;
  readonly passages: number;
  /** Ids of documents without passages: their text and title are blank. They are kept and never found by a search. */
  readonly withoutPassages: readonly string[];
  /** Ids of documents whose title takes more than half of a passage: it is stored and not embedded. */
  readonly titlesLeftOut: readonly string[];
  /** Ids of documents of which the embedder cut a passage: only with a splitter of one's own, or without one. */
  readonly truncated: readonly string[];
}

export interface IngestOptions {
  readonly split?: SplitOptions | Splitter | false;
  /** Takes the words of every passage, title included, also of one too long to be embedded. */
  readonly lexical?: LexicalPart | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: BuildProgress) => void) | undefined;
}

/** Passages embedded at once: enough for the embedder to sort by length, little beside its own memory. */
const SLICE = 2048;
/** Characters of a slice, so that long passages don't make it large. */
const SLICE_UNITS = 8 * 2 ** 20;
/** Milliseconds of splitting after which the event loop gets a turn. */
const TURN = 15;
const DEFAULT_MAX_TOKENS = 256;

/**
 * Fills `store` and hands every slice's vectors to `onVectors`, in the order of passages.
 *
 * @throws InvalidInputError for a document that isn't one or comes twice, RuntimeFailureError for a vector that isn't one.
 */
export async function ingest(
  embedder: Embedder,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  store: DocumentStore,
  onVectors: (rows: Float32Array) => Promise<void>,
  options: IngestOptions,
): Promise<BuildReport> {
  const { lexical, signal, onProgress } = options;
  requireIterable(documents);
  const total = Array.isArray(documents) ? documents.length : undefined;
  const split = passageSource(embedder, options.split);
  const titlesLeftOut: string[] = [];
  const withoutPassages: string[] = [];
  const truncated = new Set<string>();
  let slice: { texts: string[]; ids: string[]; units: number } = { texts: [], ids: [], units: 0 };
  let embedded = 0;
  /** Documents whose passages are all embedded, for the fraction. */
  let finished = 0;
  let position = 0;
  let turn = performance.now();

  const flush = async (): Promise<void> => {
    const { texts, ids } = slice;
    slice = { texts: [], ids: [], units: 0 };
    const report = (done: number): void => {
      const documentsDone = finished + (position - finished) * (texts.length === 0 ? 1 : done / texts.length);
      const fraction = total === undefined ? undefined : total === 0 ? 1 : documentsDone / total;
      onProgress?.({ documents: position, passages: embedded + texts.length, embedded: embedded + done, fraction });
    };
    if (texts.length > 0) {
      const result = await embedder.embedDocuments(texts, {
        ...(signal ? { signal } : {}),
        onProgress: ({ done }) => report(Math.min(done, texts.length - 1)),
      });
      const rows = flatten(result.vectors, ids, embedder);
      for (const at of result.truncated) truncated.add(ids[at] as string);
      signal?.throwIfAborted();
      await onVectors(rows);
    }
    report(texts.length);
    embedded += texts.length;
    finished = position;
    turn = performance.now();
  };

  signal?.throwIfAborted();
  for await (const value of documents) {
    const document = checkDocument(value, position, "build");
    const { id, text } = document;
    const first = store.numberOf(id);
    if (first !== undefined) {
      throw new InvalidInputError(
        `build: the document at position ${position} has the id ${JSON.stringify(id)} of the one at ${first}. ` +
          "Ids are unique; remove one, or give it another id.",
        { position },
      );
    }
    const { passages, prefix, titleLeftOut } = await split(document, position);
    if (titleLeftOut) titlesLeftOut.push(id);
    const found: Passage[] = [];
    const keep = (passage: Passage): void => {
      lexical?.add(store.passages + found.length, document.title, text.slice(passage.start, passage.end));
      found.push(passage);
    };
    for (const passage of passages) {
      keep(passage);
      if (performance.now() - turn > TURN) {
        await pause();
        signal?.throwIfAborted();
        turn = performance.now();
      }
    }
    if (found.length === 0 && prefix !== "") keep({ start: 0, end: 0 });
    if (found.length === 0) withoutPassages.push(id);
    store.append(document, found);
    for (const { start, end } of found) {
      const whole = embeddedText(prefix, text, { start, end });
      slice.texts.push(whole);
      slice.ids.push(id);
      slice.units += whole.length;
      if (slice.texts.length >= SLICE || slice.units >= SLICE_UNITS) await flush();
    }
    position++;
    signal?.throwIfAborted();
  }
  await flush();
  return {
    documents: store.documents,
    passages: store.passages,
    withoutPassages,
    titlesLeftOut,
    truncated: [...truncated],
  };
}

function requireIterable(documents: unknown): void {
  if (typeof documents === "object" && documents !== null) {
    if (Symbol.iterator in documents || Symbol.asyncIterator in documents) return;
  }
  throw new InvalidInputError("build: documents must be an iterable or async iterable of { id, text }.");
}

/** What the embedder gets for a passage. */
export function embeddedText(prefix: string, text: string, { start, end }: Passage): string {
  return (prefix + text.slice(start, end)).trimEnd();
}

interface SplitDocument {
  readonly passages: Iterable<Passage>;
  /** What is embedded before each passage. */
  readonly prefix: string;
  readonly titleLeftOut: boolean;
}

/** How a corpus is cut for this embedder. */
export function passageSource(
  embedder: Pick<Embedder, "modelId" | "maxTokens" | "countTokens">,
  split: IngestOptions["split"],
): (document: CorpusDocument, position: number) => SplitDocument | Promise<SplitDocument> {
  const titlePrefix = (document: CorpusDocument): string => {
    const title = document.title?.trim() ?? "";
    return title === "" ? "" : `${title} `;
  };
  if (split === false) {
    return (document) => {
      const whole = trim(document.text, 0, document.text.length);
      const passages = whole.start < whole.end ? [whole] : [];
      return { passages, prefix: titlePrefix(document), titleLeftOut: false };
    };
  }
  if (typeof split === "function") {
    return async (document, position) => {
      const passages = (await split(document)).map(({ start, end }) => ({ start, end }));
      checkPassages(passages, document, position);
      return { passages, prefix: titlePrefix(document), titleLeftOut: false };
    };
  }
  const countTokens = embedder.countTokens?.bind(embedder);
  if (!countTokens) {
    throw new InvalidInputError(
      `build: the embedder ${embedder.modelId} can't count tokens, so texts can't be split by them. ` +
        "Pass { split: false } for texts that fit the model, or a splitter of your own.",
    );
  }
  const maxTokens = split?.maxTokens ?? Math.min(DEFAULT_MAX_TOKENS, embedder.maxTokens);
  if (maxTokens > embedder.maxTokens) {
    throw new InvalidInputError(`build: passages of ${maxTokens} tokens, but the model reads ${embedder.maxTokens}.`);
  }
  const bare = countTokens("");
  const { overlap = 0 } = split ?? {};
  // A title takes up to the other half.
  if (overlap > 0 && overlap >= (maxTokens - bare) / 2) {
    throw new InvalidInputError(
      `build: an overlap of ${overlap} tokens, but passages of ${maxTokens} tokens allow less than half of the ` +
        `${maxTokens - bare} that are not special tokens.`,
    );
  }
  return (document) => {
    let prefix = titlePrefix(document);
    // A title of more than half a passage would drown the text; counting is skipped where its length says so already.
    const long = prefix.length > 24 * maxTokens || countTokens(prefix) - bare > (maxTokens - bare) / 2;
    if (long) prefix = "";
    const passages = passagesOf(document.text, { countTokens, maxTokens, overlap, prefix });
    return { passages, prefix, titleLeftOut: long };
  };
}

function checkPassages(passages: readonly Passage[], { id, text }: CorpusDocument, position: number): void {
  for (const { start, end } of passages) {
    const inside =
      Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start < end && end <= text.length;
    const fault = inside ? wellFormedFault(text.slice(start, end)) : `is not inside its ${text.length} units`;
    if (fault) {
      throw new InvalidInputError(
        `build: the splitter's passage ${start} to ${end} of document ${JSON.stringify(id)} (position ${position}) ${fault}.`,
        { position },
      );
    }
  }
}

/** One block of rows, each a sound vector. */
function flatten(vectors: readonly Float32Array[], ids: readonly string[], embedder: Embedder): Float32Array {
  const { dimensions, modelId } = embedder;
  if (vectors.length !== ids.length) {
    throw new RuntimeFailureError(
      `build: the embedder ${modelId} gave ${vectors.length} vectors for ${ids.length} texts.`,
    );
  }
  const rows = new Float32Array(vectors.length * dimensions);
  vectors.forEach((vector, i) => {
    const fault = vectorFault(vector, dimensions);
    if (fault) {
      const id = JSON.stringify(ids[i]);
      throw new RuntimeFailureError(`build: the embedder ${modelId} gave a vector for document ${id} that ${fault}.`);
    }
    rows.set(vector, i * dimensions);
  });
  return rows;
}
