/** Where a corpus lies that isn't embedded here: what `{ backend }` of `CorpusIndex.build` and `open` is. */
import { type Embedder, InvalidInputError } from "@cde-js/core";
import type { SplitOptions, Splitter } from "./build-index.js";
import type { CorpusDocument } from "./documents.js";
import type { AnalyzerOptions } from "./lexical/analyzer.js";
import type { SearchIndex, UpsertProgress } from "./search-index.js";

/** What a backend is told of an index that it builds; where the corpus lies it knows itself. */
export interface BackendBuildOptions {
  readonly split?: SplitOptions | Splitter | false;
  readonly lexical?: AnalyzerOptions | false;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: UpsertProgress) => void;
}

export interface BackendOpenOptions {
  /** How texts are split, as when the index was built. */
  readonly split?: SplitOptions | Splitter | false;
  readonly signal?: AbortSignal;
}

/** Another engine for a corpus: `qdrant({ … })` of `@cde-js/adapters/qdrant`, or one of yours. */
export interface CorpusBackend<Index extends SearchIndex = SearchIndex> {
  /** For error messages. */
  readonly name: string;
  build(
    embedder: Embedder,
    documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
    options: BackendBuildOptions,
  ): Promise<Index>;
  open(embedder: Embedder, options: BackendOpenOptions): Promise<Index>;
}

/** Options of the embedded index, or of a backend where one is named. */
export type WithBackend<Options, Index extends SearchIndex = SearchIndex> = Omit<Options, "backend" | "onProgress"> & {
  readonly backend?: CorpusBackend<Index> | undefined;
  readonly onProgress?: (progress: UpsertProgress) => void;
};

const BUILD_OPTIONS = ["backend", "split", "lexical", "signal", "onProgress"];
const CONTEXT_OPTIONS = ["contextSize", "strategy", "stratum", "seed", "strength", "repeat", "onContextProgress"];
const OPEN_OPTIONS = ["backend", "split", "signal"];

/** What `build` and `fromCorpus` can be told beside a backend. @throws InvalidInputError */
export function checkBuildOptions(operation: "build" | "fromCorpus", backend: CorpusBackend, options: object): void {
  checkBackend(operation, backend);
  refuseOthers(operation, backend, options, [...BUILD_OPTIONS, ...(operation === "fromCorpus" ? CONTEXT_OPTIONS : [])]);
}

/** What `build` is with a backend, after `checkBuildOptions`. */
export async function buildWithBackend<Index extends SearchIndex>(
  backend: CorpusBackend<Index>,
  embedder: Embedder,
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  options: BackendBuildOptions,
): Promise<Index> {
  const { split, lexical, signal, onProgress } = options;
  return await backend.build(embedder, documents, {
    ...(split === undefined ? {} : { split }),
    ...(lexical === undefined ? {} : { lexical }),
    ...(signal ? { signal } : {}),
    ...(onProgress ? { onProgress } : {}),
  });
}

/** @throws InvalidInputError for what is no backend or embedder, and for options that only the embedded index follows */
export async function openWithBackend<Index extends SearchIndex>(
  embedder: Embedder,
  { backend, split, signal, ...others }: BackendOpenOptions & { readonly backend: CorpusBackend<Index> },
): Promise<Index> {
  checkBackend("open", backend);
  refuseOthers("open", backend, others, OPEN_OPTIONS);
  if (typeof embedder !== "object" || embedder === null || !("embedQuery" in embedder)) {
    throw new InvalidInputError(
      `open: ${backend.name} keeps no context that an encoder could be bound to. Pass an embedder: ` +
        "encoder.withContext(await CorpusContext.load(path)).",
    );
  }
  return await backend.open(embedder, {
    ...(split === undefined ? {} : { split }),
    ...(signal ? { signal } : {}),
  });
}

/** Of `open(directory, …)`. @throws InvalidInputError for a backend, which has no directory */
export function checkOpenOptions(options: object): void {
  if ((options as { backend?: unknown }).backend === undefined) return;
  throw new InvalidInputError(
    "open: a directory is of the embedded index, and a backend has none. Leave one out: open(embedder, { backend }).",
  );
}

/** A context that nobody could bind again would be lost with the process. @throws InvalidInputError */
export function requireContext({ name }: CorpusBackend, embedder: Embedder): void {
  if (embedder.context) return;
  throw new InvalidInputError(
    `fromCorpus: ${name} keeps no context, and the embedder of ${embedder.modelId} doesn't say its own, so it would be ` +
      "lost. Choose it with selectContext, save it, and use CorpusIndex.build.",
  );
}

function checkBackend(operation: string, backend: unknown): void {
  const { name, build, open } = (backend ?? {}) as Partial<Record<string, unknown>>;
  if (typeof name === "string" && typeof build === "function" && typeof open === "function") return;
  throw new InvalidInputError(
    `${operation}: backend must be what qdrant({ … }) gives, or a CorpusBackend of yours, got ${backend === null ? "null" : typeof backend}.`,
  );
}

function refuseOthers(operation: string, { name }: CorpusBackend, options: object, allowed: readonly string[]): void {
  for (const [option, value] of Object.entries(options)) {
    if (value === undefined || allowed.includes(option)) continue;
    throw new InvalidInputError(
      `${operation}: ${option} is of the embedded index, and ${name} can't follow it. Leave ${option} out, or backend.`,
    );
  }
}
