/** What an index can be told when it is built, opened, or given another context, and what it answers. */
import type { Embedder } from "@cde-js/core";
import type { BuildProgress, SplitOptions, Splitter } from "./build-index.js";
import type { ContextPassage } from "./context/from-corpus.js";
import type { ContextChoice } from "./context/select-context.js";
import type { JsonObject } from "./documents.js";
import type { RowOptions } from "./index-state.js";
import type { AnalyzerOptions } from "./lexical/analyzer.js";
import type { JudgedQuery, NewContextOptions } from "./recontext.js";
import type { FileSystem } from "./storage/file-system.js";

export interface OpenOptions extends RowOptions {
  /** The splitter that the index was built with, where that was one of your own and documents are to be added. */
  readonly split?: Splitter;
  /** Write a new generation by itself where much was deleted or the log has grown. @default true */
  readonly autoCompact?: boolean;
  /**
   * Keep updates in memory: the folder is neither locked nor written to, and changes by `save` alone. @default false
   */
  readonly detached?: boolean;
  /** @internal Where files are, for tests. */
  readonly fileSystem?: FileSystem | undefined;
  readonly signal?: AbortSignal;
}

export interface BuildOptions extends RowOptions {
  /** How texts are split: limits of our own splitter, a splitter of yours, or `false` for one passage a document. */
  readonly split?: SplitOptions | Splitter | false;
  /** How the lexical part finds words, or `false` for an index that is searched by meaning only. @default English */
  readonly lexical?: AnalyzerOptions | false;
  /** A folder that the index is written to while it is built, in place of one that is there; for `CorpusIndex.open`. */
  readonly directory?: string;
  /**
   * With `directory`: take over the vectors of every document that an interrupted build of this folder has embedded and
   * that is still the same; `false` discards them. @default true
   */
  readonly resume?: boolean;
  /** What a program wants to keep with the index, such as where its model is. See `index.notes`. */
  readonly notes?: JsonObject;
  /** As in `OpenOptions`. @default true */
  readonly autoCompact?: boolean;
  /** @internal Where files are, for tests. */
  readonly fileSystem?: FileSystem | undefined;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: BuildProgress) => void;
  /** Where the corpus lies, if not here: see `CorpusBackend`. @default in memory or in `directory` */
  readonly backend?: undefined;
}

export interface RecontextOptions extends NewContextOptions {
  /** Queries whose answers are known: the report has nDCG@10 of both contexts. */
  readonly judged?: readonly JudgedQuery[];
  readonly signal?: AbortSignal;
  /** Of passages that are embedded anew: not with a context that is a map of base vectors. */
  readonly onProgress?: (progress: BuildProgress) => void;
}

export interface RollbackOptions {
  /** The embedder of the context before, for one that the index can't bind by itself. */
  readonly embedder?: Embedder;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: BuildProgress) => void;
}

export interface RecontextReport {
  readonly before: ContextOutcome;
  readonly after: ContextOutcome;
  /** What was chosen as context; undefined where it was given. */
  readonly choice: ContextChoice<ContextPassage> | undefined;
  /** Whether passages were embedded anew; with a map of base vectors they are not. */
  readonly embedded: boolean;
  readonly seconds: number;
}

export interface ContextOutcome {
  readonly fingerprint: string;
  /** From 0 to 1; undefined without judged queries. */
  readonly ndcg10: number | undefined;
}
