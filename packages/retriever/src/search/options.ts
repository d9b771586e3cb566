/** What a search can be asked, what it answers, and the check of both before anything is computed. */
import { FingerprintMismatchError, fingerprintOf, InvalidInputError } from "@cde-js/core";
import type { JsonObject } from "../documents.js";
import { compileFilter } from "../filters/compile.js";
import { describe, isObject } from "../filters/payload-path.js";
import type { Filter, FilterPoint } from "../filters/types.js";
import { distributionBasedScoreFusion, type Fused, mix, type Ranked, reciprocalRankFusion } from "../fusion/fusion.js";
import { maximalMarginalRelevance } from "../fusion/mmr.js";
import { EVEN } from "../fusion/query-weight.js";
import type { Span } from "../lexical/highlight.js";
import type { Passage } from "../split/pieces.js";
import { checkK, vectorFault } from "../vector-index.js";

/** "dense" compares meanings, "lexical" counts words (BM25), "hybrid" fuses both rankings. */
export type SearchMode = "dense" | "lexical" | "hybrid";

/** What `Hit.score` is. */
export type Scoring = "cosine" | "bm25" | Fusion["kind"] | "rerank";

/**
 * How a hybrid search fuses its two rankings, each cut at its first `depth` passages (default 100):
 * reciprocal ranks, score distributions, or `weight` · dense + (1 - weight) · lexical of scores scaled to [0, 1].
 */
export type Fusion =
  | {
      readonly kind: "rrf";
      /** 60 is usual; Qdrant's own default is 2. */
      readonly k: number;
      /** Of dense and lexical, 0 or more. @default [1, 1] */
      readonly weights?: readonly [dense: number, lexical: number];
      readonly depth?: number;
    }
  | { readonly kind: "dbsf"; readonly depth?: number }
  | { readonly kind: "mix"; readonly weight: number; readonly depth?: number };

/** "auto" is a mix whose weight is chosen for each query: see docs/index.md. */
export type FusionChoice = Fusion | "auto";

/** Scores hits anew, higher is better: one finite number a hit, in their order. */
export type Reranker = (query: string, hits: readonly Hit[]) => readonly number[] | Promise<readonly number[]>;

export interface MmrOptions {
  /** 1 is pure relevance, 0 pure diversity. */
  readonly lambda: number;
  /** The best of the ranking that are chosen from; what follows them keeps its order. @default 100 */
  readonly candidates?: number;
}

export interface SearchOptions {
  /** Hits wanted, at least 1; fewer come back where fewer match. @default 10 */
  readonly k?: number;
  /** Hits of the same ranking to leave out first: the page before. @default 0 */
  readonly offset?: number;
  /** @default "hybrid" where the index has a lexical part, otherwise "dense" */
  readonly mode?: SearchMode;
  /** Of a hybrid search. "auto" has the weight 0.5 in an index that is too small to choose by. @default "auto" */
  readonly fusion?: FusionChoice;
  /** Qdrant's filter language over documents: a key is a path in the metadata, `has_id` asks for the document's id. */
  readonly filter?: Filter;
  /** Only hits of at least this score, which is the one that hits carry: after fusion, after reranking. */
  readonly scoreThreshold?: number;
  /** Only the best passage of a document. @default false */
  readonly mergeByDocument?: boolean;
  /** The first hits are ordered by these scores. It runs before `mmr`, which then chooses among what it scored. */
  readonly rerank?: Reranker;
  /** How many hits `rerank` scores, at least; never fewer than `offset + k`. @default 50 */
  readonly rerankCandidates?: number;
  /**
   * Chooses hits that are unlike each other. Relevance is the hit's score: a cosine as it is (as in Qdrant), any other
   * scaled to [0, 1] over the candidates, because it is weighed against cosines. Hits keep their scores.
   */
  readonly mmr?: MmrOptions;
  /** Adds the words of the query in each passage as `hit.highlights`. Needs a lexical part. @default false */
  readonly highlight?: boolean;
  readonly signal?: AbortSignal;
}

/** What a search by a vector can be asked: it ranks by meaning alone, and has no words. */
export interface VectorSearchOptions
  extends Omit<SearchOptions, "mode" | "fusion" | "highlight" | "rerank" | "rerankCandidates"> {
  /**
   * That the vector was made under: the index refuses another than its own. A vector that an embedder of this process
   * gave is known without it, unless it was copied.
   */
  readonly fingerprint?: string;
}

/** A passage that was found. */
export interface Hit {
  /** Of the document. */
  readonly id: string;
  /** Where the passage lies in the document's text, in UTF-16 units. */
  readonly passage: Passage;
  /** The passage, without the title. */
  readonly text: string;
  /** What hits are ranked by, and `scoring` says what it is. Higher is better. */
  readonly score: number;
  readonly scoring: Scoring;
  /**
   * Cosine similarity (from -1 to 1) and BM25, where the search computed them: of a hybrid search, those of the rankings
   * in which the passage came up to `depth`. Of a mix, also what meaning weighed in this search, from 0 to 1, and words the
   * rest: `fusion: "auto"` chooses it for the query.
   */
  readonly scores: { readonly dense?: number; readonly lexical?: number; readonly weight?: number };
  readonly title?: string;
  readonly metadata: JsonObject;
  /** Words of `text` that the query has, where `highlight` asked for them: `text.slice(start, end)` is one. */
  readonly highlights?: readonly Span[];
}

type Ranks = readonly Ranked<number>[];

/** The options with their defaults, checked. */
export interface SearchPlan {
  readonly k: number;
  readonly offset: number;
  readonly mode: SearchMode;
  readonly scoring: Scoring;
  readonly depth: number;
  /** The weight of the mix is to be chosen for the query; `fuse` is the even one, for who can't. */
  readonly isAuto: boolean;
  readonly fuse: (dense: Ranks, lexical: Ranks) => Fused;
  readonly accepts: ((document: FilterPoint) => boolean) | undefined;
  readonly scoreThreshold: number | undefined;
  readonly mergeByDocument: boolean;
  readonly rerank: Reranker | undefined;
  readonly rerankCandidates: number;
  readonly mmr: Required<MmrOptions> | undefined;
  readonly highlight: boolean;
  readonly signal: AbortSignal | undefined;
}

/** What "auto" is where nothing can be chosen. */
const EVEN_MIX: Fusion = { kind: "mix", weight: EVEN };
const MODES = ["dense", "lexical", "hybrid"];

/** @throws InvalidInputError and InvalidFilterError */
export function planSearch(options: SearchOptions, hasLexicalPart: boolean): SearchPlan {
  const { k = 10, offset = 0, mode = hasLexicalPart ? "hybrid" : "dense", filter, scoreThreshold, mmr } = options;
  const { rerank, rerankCandidates = 50, mergeByDocument = false, highlight = false, signal } = options;
  checkK(k, "search");
  const { fusion: asked = "auto" } = options;
  if (asked !== "auto" && !isObject(asked)) throw bad('fusion must be "auto" or an object', asked);
  if (mmr !== undefined && !isObject(mmr)) throw bad("mmr must be an object", mmr);
  if (!Number.isSafeInteger(offset) || offset < 0) throw bad("offset must be an integer of at least 0", offset);
  if (!MODES.includes(mode)) throw bad(`mode must be one of ${MODES.join(", ")}`, mode);
  for (const [name, needs] of Object.entries({ [`mode "${mode}"`]: mode !== "dense", highlight })) {
    if (!needs || hasLexicalPart) continue;
    throw new InvalidInputError(
      `search: ${name} needs a lexical part, and this index has none. Build it without { lexical: false }.`,
    );
  }
  if (options.fusion !== undefined && mode !== "hybrid") {
    throw new InvalidInputError(
      `search: fusion ${describe(asked === "auto" ? asked : asked.kind)} fuses two rankings, but mode is "${mode}". Leave one of them out.`,
    );
  }
  const isAuto = asked === "auto";
  const fusion = asked === "auto" ? EVEN_MIX : asked;
  const { depth = 100 } = fusion;
  requireCount("fusion.depth", depth);
  requireCount("rerankCandidates", rerankCandidates);
  if (rerank !== undefined && typeof rerank !== "function") throw bad("rerank must be a function", rerank);
  if (scoreThreshold !== undefined && !Number.isFinite(scoreThreshold)) {
    throw bad("scoreThreshold must be a finite number", scoreThreshold);
  }
  if (mmr !== undefined) {
    requireCount("mmr.candidates", mmr.candidates ?? 1);
    // Its own check of lambda, before anything is searched; the same for fusions below.
    maximalMarginalRelevance([], { lambda: mmr.lambda, k: 1 });
  }
  const fuse = fusionOf(fusion);
  fuse([], []);
  return {
    k,
    offset,
    mode,
    scoring: mode === "dense" ? "cosine" : mode === "lexical" ? "bm25" : fusion.kind,
    depth,
    isAuto,
    fuse,
    accepts: filter === undefined ? undefined : compileFilter(filter),
    scoreThreshold,
    mergeByDocument,
    rerank,
    rerankCandidates,
    mmr: mmr && { lambda: mmr.lambda, candidates: mmr.candidates ?? 100 },
    highlight,
    signal,
  };
}

const OF_WORDS = ["mode", "fusion", "highlight", "rerank", "rerankCandidates"];

/**
 * The plan of a search by a vector.
 *
 * @throws FingerprintMismatchError for a vector of another model or context than that of the index, where it says so;
 * InvalidInputError for a vector that is none, and for options that need the words of a query; InvalidFilterError
 */
export function planVectorSearch(
  vector: Float32Array,
  { fingerprint, ...options }: VectorSearchOptions,
  index: { readonly fingerprint: string; readonly dimensions: number; readonly hasLexicalPart: boolean },
): SearchPlan {
  if (!(vector instanceof Float32Array)) throw bad("the query vector must be a Float32Array", vector);
  for (const name of OF_WORDS) {
    if ((options as Record<string, unknown>)[name] === undefined) continue;
    throw new InvalidInputError(`searchVector: ${name} needs the words of a query. Leave it out, or use search.`);
  }
  requireFingerprint("searchVector", "the query vector", [vector], fingerprint, index.fingerprint);
  const fault = vectorFault(vector, index.dimensions);
  if (fault) throw new InvalidInputError(`searchVector: the query vector ${fault}.`);
  return planSearch({ ...options, mode: "dense" }, index.hasLexicalPart);
}

/** Refuses vectors that are known to be of another model or context. @throws FingerprintMismatchError */
export function requireFingerprint(
  operation: string,
  what: string,
  vectors: readonly Float32Array[],
  stated: string | undefined,
  expected: string,
): void {
  const isOther = (found: string | undefined): found is string => found !== undefined && found !== expected;
  const known = Array.isArray(vectors) ? (vectors as readonly Float32Array[]).map(fingerprintOf) : [];
  const other = [stated, ...known].find(isOther);
  if (other === undefined) return;
  throw new FingerprintMismatchError(
    expected,
    other,
    `${operation}: this index has the fingerprint ${expected}, ${what} ${what.endsWith("s") ? "have" : "has"} ${other}. Their ` +
      "vectors are not comparable; embed with the index's own model and context.",
  );
}

function fusionOf(fusion: Fusion): SearchPlan["fuse"] {
  switch (fusion.kind) {
    case "rrf": {
      const { k, weights } = fusion;
      return (...lists) => ({ ranked: reciprocalRankFusion(lists, weights === undefined ? { k } : { k, weights }) });
    }
    case "dbsf":
      return (...lists) => ({ ranked: distributionBasedScoreFusion(lists) });
    case "mix": {
      const { weight } = fusion;
      return (dense, lexical) => ({ ranked: mix(dense, lexical, { weight }), weight });
    }
    default:
      throw bad("fusion.kind must be one of rrf, dbsf, mix", (fusion as { kind?: unknown }).kind);
  }
}

function requireCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) throw bad(`${name} must be an integer of at least 1`, value);
}

function bad(rule: string, value: unknown): InvalidInputError {
  return new InvalidInputError(`search: ${rule}, got ${describe(value)}.`);
}
