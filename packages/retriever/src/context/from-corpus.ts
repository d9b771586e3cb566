/** Reads a corpus once to choose and build its context, and hands it on to be read again and embedded. */
import {
  type BuildContextOptions,
  type CorpusContext,
  type Embedder,
  InvalidInputError,
  NoNullContextError,
  type SpectralStrength,
} from "@cde-js/core";
import { embeddedText, passageSource, type SplitOptions, type Splitter } from "../build-index.js";
import { type CorpusDocument, checkDocument, type JsonObject } from "../documents.js";
import { type ContextChoice, type ContextStrategy, selectContext } from "./select-context.js";

/** What builds contexts and binds them: a `ContextualEncoder`. */
export interface ContextEncoder {
  readonly modelId: string;
  readonly maxTokens: number;
  /** Context documents that the model reads exactly; undefined where any number will do. */
  readonly contextSize: number | undefined;
  countTokens?(text: string): number;
  buildContext(documents: readonly string[], options?: BuildContextOptions): Promise<CorpusContext>;
  withContext(context: CorpusContext): Embedder;
  withoutContext(): Embedder;
}

export interface ContextProgress {
  /** Documents and passages read so far. */
  readonly documents: number;
  readonly passages: number;
  /** Passages embedded so far: those that `clusters` and `farthest` choose from, then the chosen ones. */
  readonly embedded: number;
}

export interface CorpusContextOptions {
  /**
   * Passages in the context. A corpus with fewer passages gives all of them to a model that takes any number.
   * @default what the model reads exactly, else 512
   */
  readonly contextSize?: number;
  /** How they are chosen; `clusters` and `farthest` embed 20 times as many. See `selectContext`. @default "random" */
  readonly strategy?: ContextStrategy;
  /** For `stratified`: a path in the metadata of documents. */
  readonly stratum?: string;
  /** Equal seeds choose equal passages. @default 0 */
  readonly seed?: number;
  /** Strength of a spectral context; "auto" chooses it for the corpus. @default "auto" */
  readonly strength?: SpectralStrength | "off" | "auto";
  /** Whether tokens count by how rare they are in the corpus. @default as `buildContext` has it: chosen with the strength */
  readonly tokenWeights?: NonNullable<BuildContextOptions["tokenWeights"]>;
  /** Where the model reads an exact number and the corpus has fewer passages: repeat them. @default false */
  readonly repeat?: boolean;
  /** How texts are split; the context consists of passages as they will be embedded. As for `CorpusIndex.build`. */
  readonly split?: SplitOptions | Splitter | false;
  readonly signal?: AbortSignal;
  readonly onContextProgress?: (progress: ContextProgress) => void;
}

/** Documents, from their beginning at each call. */
export type DocumentSource = () => AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>;

/** A passage that may become a context document. */
export interface ContextPassage {
  /** Of its document. */
  readonly id: string;
  /** As it is embedded, with the title before it. */
  readonly text: string;
  readonly metadata: JsonObject;
}

export interface CorpusWithContext {
  readonly context: CorpusContext;
  readonly embedder: Embedder;
  readonly choice: ContextChoice<ContextPassage>;
  /** The corpus a second time; reading it fails where it isn't the same number of documents. */
  readonly again: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>;
}

/** @throws InvalidInputError for a source that can't be read twice, a bad document, or a corpus that is too small */
export async function contextFromCorpus(
  encoder: ContextEncoder,
  source: DocumentSource,
  options: CorpusContextOptions,
): Promise<CorpusWithContext> {
  const {
    strategy = "random",
    stratum,
    seed = 0,
    strength,
    tokenWeights,
    repeat = false,
    signal,
    onContextProgress,
  } = options;
  const exact = encoder.contextSize;
  const size = options.contextSize ?? exact ?? 512;
  if (exact !== undefined && size !== exact) {
    throw new InvalidInputError(
      `fromCorpus: ${encoder.modelId} reads exactly ${exact} context documents, got contextSize ${size}. Leave it out.`,
    );
  }
  const first = open(source);
  // A second iterator that the same object gives would go on where the first one ends.
  let second = isIterator(first) ? open(source) : undefined;
  if (second === first) {
    throw new InvalidInputError(
      "fromCorpus: the source gives the same iterator twice, and the corpus is read twice: for the context, then to be embedded. Pass a function that starts anew each time, such as () => readDocuments(path); or choose a context with selectContext and use CorpusIndex.build.",
    );
  }
  const read = { documents: 0, passages: 0 };
  const byVectors = strategy === "clusters" || strategy === "farthest";
  const choice = await selectContext(passagesOf(first, encoder, options.split, read), {
    size,
    strategy,
    seed,
    text: (passage) => passage.text,
    ...(stratum === undefined ? {} : { stratum }),
    ...(byVectors ? { embedder: encoder.withoutContext() } : {}),
    ...(exact === undefined ? { atMost: true } : { repeat }),
    ...(signal ? { signal } : {}),
    onProgress: ({ embedded }) => onContextProgress?.({ ...read, embedded }),
  });
  const context = await encoder.buildContext(
    choice.chosen.map(({ text }) => text),
    {
      ...(strength === undefined ? {} : { strength }),
      ...(tokenWeights === undefined ? {} : { tokenWeights }),
      ...(signal ? { signal } : {}),
      onProgress: ({ done }) => onContextProgress?.({ ...read, embedded: done }),
    },
  );
  second ??= open(source);
  return {
    context,
    embedder: encoder.withContext(context),
    choice,
    // An array says how many there are, which progress needs, and can be nothing but the same.
    again: Array.isArray(second) && second.length === read.documents ? second : counted(second, read.documents),
  };
}

function open(source: DocumentSource): AsyncIterable<CorpusDocument> | Iterable<CorpusDocument> {
  const documents: unknown = typeof source === "function" ? source() : undefined;
  if (typeof documents === "object" && documents !== null) {
    if (Symbol.iterator in documents || Symbol.asyncIterator in documents) return documents as Iterable<CorpusDocument>;
  }
  throw new InvalidInputError(
    "fromCorpus: pass a function that returns the documents as an iterable or async iterable, since they are read twice: () => documents.",
  );
}

function isIterator(documents: object): boolean {
  return "next" in documents && typeof documents.next === "function";
}

/** Every passage as it will be embedded. */
async function* passagesOf(
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  encoder: ContextEncoder,
  split: CorpusContextOptions["split"],
  read: { documents: number; passages: number },
): AsyncGenerator<ContextPassage> {
  const cut = passageSource(counterOf(encoder, split), split);
  for await (const value of documents) {
    const document = checkDocument(value, read.documents, "fromCorpus");
    const { passages, prefix } = await cut(document, read.documents);
    read.documents++;
    const { id, metadata = {} } = document;
    let found = 0;
    for (const passage of passages) {
      found++;
      read.passages++;
      yield { id, text: embeddedText(prefix, document.text, passage), metadata };
    }
    if (found > 0 || prefix === "") continue;
    read.passages++;
    yield { id, text: prefix.trimEnd(), metadata };
  }
}

/** Who counts the tokens of passages before there is a context. */
function counterOf(
  encoder: ContextEncoder,
  split: CorpusContextOptions["split"],
): Pick<Embedder, "modelId" | "maxTokens" | "countTokens"> {
  if (encoder.countTokens || split === false || typeof split === "function") return encoder;
  try {
    return encoder.withoutContext();
  } catch (cause) {
    if (!(cause instanceof NoNullContextError)) throw cause;
    throw new InvalidInputError(
      `fromCorpus: ${encoder.modelId} can't count tokens before it has a context, so texts can't be split by them. Pass { split: false } for texts that fit the model, or a splitter of your own.`,
      { cause },
    );
  }
}

/** The documents, and an error at their end where they aren't as many as the first time. */
async function* counted(
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  expected: number,
): AsyncGenerator<CorpusDocument> {
  let count = 0;
  for await (const document of documents) {
    count++;
    yield document;
  }
  if (count === expected) return;
  throw new InvalidInputError(
    `fromCorpus: the source gave ${expected} documents the first time and ${count} the second. It must give the same corpus at each call.`,
  );
}
