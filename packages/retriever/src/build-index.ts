/** Reads documents, splits them into passages and embeds these, in slices of bounded memory. */
import { setImmediate as pause } from "node:timers/promises";
import { type Embedder, InvalidInputError, RuntimeFailureError } from "@cde-js/core";
import { type CorpusDocument, checkDocument, wellFormedFault } from "./documents.js";
import { type Passage, trim } from "./split/pieces.js";
import { passagesOf } from "./split/split-text.js";
import type { SplitIdentity } from "./storage/manifest.js";
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
  /** Documents whose vectors an interrupted build had made already. */
  readonly resumed: number;
}

/** A document with its passages and their vectors. */
export interface EmbeddedDocument {
  readonly document: CorpusDocument;
  readonly passages: readonly Passage[];
  /** One row a passage. */
  readonly rows: Float32Array;
  /** Its title takes more than half of a passage, and was not embedded. */
  readonly titleLeftOut: boolean;
  /** The embedder cut a passage. */
  readonly truncated: boolean;
}

/** Vectors that an earlier, interrupted run has made of the same text. */
export type KnownDocument = Omit<EmbeddedDocument, "document">;

/** A document that was embedded now, or whose vectors were known. */
export interface ReadyDocument extends EmbeddedDocument {
  readonly fresh: boolean;
}

export interface EmbedDocumentsOptions {
  /** For error messages. */
  readonly operation: string;
  readonly split?: SplitOptions | Splitter | false | undefined;
  /** Vectors that are at hand, of exactly this text and title (and, with a splitter of one's own, these passages). */
  readonly known?:
    | ((document: CorpusDocument, passages?: readonly Passage[]) => Promise<KnownDocument | undefined>)
    | undefined;
  /** Documents that will come, where that is known and they are no array. */
  readonly total?: number | undefined;
  /** Passages of a slice, at least. @default 512 */
  readonly slice?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: BuildProgress) => void) | undefined;
}

/** Passages embedded at once: enough for the embedder to sort by length, and what an interrupted build loses at most. */
const SLICE = 512;
/** Characters of a slice, so that long passages don't make it large. */
const SLICE_UNITS = 8 * 2 ** 20;
/** Milliseconds of splitting after which the event loop gets a turn. */
const TURN = 15;
const DEFAULT_MAX_TOKENS = 256;

interface Waiting {
  readonly document: CorpusDocument;
  readonly passages: readonly Passage[];
  readonly titleLeftOut: boolean;
  /** What is to be embedded, or the vectors where they are known. */
  readonly texts: readonly string[];
  readonly known: KnownDocument | undefined;
}

/**
 * Splits and embeds documents, slice by slice, in their order. What the caller does with a slice comes before the next
 * one is embedded.
 *
 * @throws InvalidInputError for a document that isn't one or comes twice, RuntimeFailureError for a vector that isn't one.
 */
export async function* embedDocuments(
  embedder: Embedder,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  options: EmbedDocumentsOptions,
): AsyncGenerator<readonly ReadyDocument[], void, undefined> {
  const { operation, known, signal, onProgress, slice: sliceSize = SLICE } = options;
  requireIterable(documents, operation);
  const total = Array.isArray(documents) ? documents.length : options.total;
  const split = passageSource(embedder, options.split);
  const ownSplitter = typeof options.split === "function";
  const positions = new Map<string, number>();
  let slice: Waiting[] = [];
  /** Passages and characters of the slice. */
  let [waiting, units] = [0, 0];
  let embedded = 0;
  /** Documents whose passages are all embedded, for the fraction. */
  let finished = 0;
  let position = 0;
  let turn = performance.now();

  const report = (done: number): void => {
    const documentsDone = finished + (position - finished) * (waiting === 0 ? 1 : done / waiting);
    const fraction = total === undefined ? undefined : total === 0 ? 1 : documentsDone / total;
    onProgress?.({ documents: position, passages: embedded + waiting, embedded: embedded + done, fraction });
  };
  const flush = async (): Promise<ReadyDocument[]> => {
    const texts = slice.flatMap((item) => item.texts);
    const ids = slice.flatMap(({ texts, document }) => texts.map(() => document.id));
    const before = waiting - texts.length;
    const rows = new Float32Array(texts.length * embedder.dimensions);
    const cut = new Set<number>();
    for (let at = 0; at < texts.length; at += SLICE) {
      // One document may be many slices.
      if (at > 0) await pause();
      const part = texts.slice(at, at + SLICE);
      const result = await embedder.embedDocuments(part, {
        ...(signal ? { signal } : {}),
        onProgress: ({ done }) => report(Math.min(before + at + done, waiting - 1)),
      });
      rows.set(flatten(result.vectors, ids.slice(at, at + SLICE), embedder, operation), at * embedder.dimensions);
      for (const truncated of result.truncated) cut.add(at + truncated);
    }
    if (texts.length > SLICE) await pause();
    signal?.throwIfAborted();
    let at = 0;
    return slice.map(({ document, passages, titleLeftOut, texts, known }) => {
      if (known) return { document, ...known, fresh: false };
      const own = rows.subarray(at * embedder.dimensions, (at + texts.length) * embedder.dimensions);
      const truncated = texts.some((_, i) => cut.has(at + i));
      at += texts.length;
      return { document, passages, rows: own, titleLeftOut, truncated, fresh: true };
    });
  };
  const flushed = (): void => {
    report(waiting);
    embedded += waiting;
    finished = position;
    slice = [];
    [waiting, units] = [0, 0];
    turn = performance.now();
  };

  signal?.throwIfAborted();
  for await (const value of documents) {
    const document = checkDocument(value, position, operation);
    refuseRepeated(document.id, position, positions, operation);
    const found: Passage[] = [];
    let vectors = ownSplitter ? undefined : await known?.(document);
    let titleLeftOut = vectors?.titleLeftOut ?? false;
    let texts: string[] = [];
    if (!vectors) {
      const cut = await split(document, position);
      titleLeftOut = cut.titleLeftOut;
      for (const passage of cut.passages) {
        found.push(passage);
        if (performance.now() - turn > TURN) {
          await pause();
          signal?.throwIfAborted();
          turn = performance.now();
        }
      }
      if (found.length === 0 && cut.prefix !== "") found.push({ start: 0, end: 0 });
      if (ownSplitter) vectors = await known?.(document, found);
      if (!vectors) texts = found.map((passage) => embeddedText(cut.prefix, document.text, passage));
    }
    slice.push({ document, passages: vectors?.passages ?? found, titleLeftOut, texts, known: vectors });
    waiting += vectors?.passages.length ?? found.length;
    units += document.text.length;
    position++;
    signal?.throwIfAborted();
    if (waiting >= sliceSize || units >= SLICE_UNITS) {
      yield await flush();
      flushed();
    }
  }
  yield await flush();
  flushed();
}

/** @throws InvalidInputError for an id that came before */
export function refuseRepeated(id: string, position: number, positions: Map<string, number>, operation: string): void {
  const first = positions.get(id);
  if (first !== undefined) {
    throw new InvalidInputError(
      `${operation}: the document at position ${position} has the id ${JSON.stringify(id)} of the one at ${first}. ` +
        "Ids are unique; remove one, or give it another id.",
      { position },
    );
  }
  positions.set(id, position);
}

/** What building leaves out or cuts, gathered document by document. */
export class ReportLists {
  readonly withoutPassages: string[] = [];
  readonly titlesLeftOut: string[] = [];
  readonly truncated: string[] = [];

  add({ document: { id }, passages, titleLeftOut, truncated }: EmbeddedDocument): void {
    if (titleLeftOut) this.titlesLeftOut.push(id);
    if (passages.length === 0) this.withoutPassages.push(id);
    if (truncated) this.truncated.push(id);
  }
}

export function requireIterable(documents: unknown, operation: string): void {
  if (typeof documents === "object" && documents !== null) {
    if (Symbol.iterator in documents || Symbol.asyncIterator in documents) return;
  }
  throw new InvalidInputError(`${operation}: documents must be an iterable or async iterable of { id, text }.`);
}

/** How these options split, in full, as an index remembers it. */
export function splitIdentity(
  embedder: Pick<Embedder, "maxTokens">,
  split: SplitOptions | Splitter | false | undefined,
): SplitIdentity {
  if (split === false) return false;
  if (typeof split === "function") return "own";
  const { maxTokens = Math.min(DEFAULT_MAX_TOKENS, embedder.maxTokens), overlap = 0 } = split ?? {};
  return { maxTokens, overlap };
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
  split: SplitOptions | Splitter | false | undefined,
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
function flatten(
  vectors: readonly Float32Array[],
  ids: readonly string[],
  embedder: Embedder,
  operation: string,
): Float32Array {
  const { dimensions, modelId } = embedder;
  if (vectors.length !== ids.length) {
    throw new RuntimeFailureError(
      `${operation}: the embedder ${modelId} gave ${vectors.length} vectors for ${ids.length} texts.`,
    );
  }
  const rows = new Float32Array(vectors.length * dimensions);
  vectors.forEach((vector, i) => {
    const fault = vectorFault(vector, dimensions);
    if (fault) {
      const id = JSON.stringify(ids[i]);
      throw new RuntimeFailureError(
        `${operation}: the embedder ${modelId} gave a vector for document ${id} that ${fault}.`,
      );
    }
    rows.set(vector, i * dimensions);
  });
  return rows;
}
