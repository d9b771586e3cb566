/** One search from query to hits: filter, rank, merge, rerank, cut, diversify, in this order. */
import { type Embedder, InvalidInputError, RuntimeFailureError } from "@cde-js/core";
import type { BaseVectors } from "../exact-index.js";
import { type AutoFusion, autoMix } from "../fusion/auto-fusion.js";
import { maximalMarginalRelevance } from "../fusion/mmr.js";
import { highlight } from "../lexical/highlight.js";
import type { LexicalPart } from "../lexical/lexical-part.js";
import type { Passage } from "../split/pieces.js";
import type { DocumentStore, StoredDocument } from "../storage/document-store.js";
import { type VectorIndex, vectorFault } from "../vector-index.js";
import type { AllowedPassages, FilterPoints } from "./allowed.js";
import type { Hit, Scoring, SearchPlan } from "./options.js";
import { type Candidate, denseRanking, hybridRanking, lexicalRanking, mergedRanking, type Ranking } from "./ranking.js";

/** What a search reads. */
export interface Searchable {
  readonly embedder: Embedder;
  readonly documents: DocumentStore;
  readonly points: FilterPoints;
  readonly vectors: VectorIndex;
  readonly base: BaseVectors;
  readonly lexical: LexicalPart | undefined;
  /** The passages that a search may find, while others are being added; undefined where none are. */
  visible(): Uint8Array | undefined;
  /** What the weights of mixes are chosen by; undefined where there is nothing to choose by. */
  autoFusion(): Promise<AutoFusion | undefined>;
}

/** @throws RuntimeFailureError for a query vector that is none, InvalidInputError for scores of a reranker that are none */
export async function searchPassages(
  parts: Searchable,
  query: string | Float32Array,
  plan: SearchPlan,
): Promise<Hit[]> {
  const { documents } = parts;
  const { offset, mmr, rerank, signal, scoreThreshold } = plan;
  const allowed = plan.accepts && (await parts.points.allowed(plan.accepts, signal));
  const matches = allowed?.count ?? documents.livePassages;
  if (matches === 0) return [];
  const wanted = Math.min(offset + plan.k, matches);
  const pool = Math.min(matches, Math.max(wanted, rerank ? plan.rerankCandidates : (mmr?.candidates ?? 0)));
  const ranking = await rankingOf(parts, query, plan, allowed);
  let list = await ranking(pool);
  let { scoring } = plan;
  const words = typeof query === "string" ? query : "";
  const toHits = hitReader(parts, words, plan);
  if (rerank && list.length > 0) {
    list = reranked(list, await rerank(words, toHits(list, scoring)));
    signal?.throwIfAborted();
    scoring = "rerank";
  }
  if (scoreThreshold !== undefined) list = list.filter(({ score }) => score >= scoreThreshold);
  if (mmr && list.length > 0) {
    const head = list.slice(0, mmr.candidates);
    const picked = await diversified(head, { ...mmr, k: wanted, scale: scoring !== "cosine" }, parts.base);
    list = [...picked, ...list.slice(mmr.candidates)];
  }
  return toHits(list.slice(offset, wanted), scoring);
}

async function rankingOf(
  parts: Searchable,
  query: string | Float32Array,
  plan: SearchPlan,
  allowed: AllowedPassages | undefined,
): Promise<Ranking> {
  const { documents } = parts;
  const { mode, signal } = plan;
  let ranking: Ranking;
  // The check of options made sure that the part, and words, are there for the modes that use them.
  const lexical = (): Ranking => lexicalRanking(parts.lexical as LexicalPart, query as string, allowed);
  if (mode === "lexical") ranking = lexical();
  else {
    const vector = typeof query === "string" ? await embedded(parts.embedder, query, signal) : query;
    const dense = denseRanking(parts, vector, allowed, signal);
    if (mode === "dense") ranking = dense;
    else {
      const fuse = plan.isAuto ? await autoFuse(parts, query as string) : plan.fuse;
      ranking = hybridRanking(dense, lexical(), { depth: plan.depth, fuse });
    }
  }
  return plan.mergeByDocument ? mergedRanking(ranking, (label) => documents.locate(label).number) : ranking;
}

async function embedded(embedder: Embedder, query: string, signal: AbortSignal | undefined): Promise<Float32Array> {
  const vector = await embedder.embedQuery(query, signal ? { signal } : {});
  const fault = vectorFault(vector, embedder.dimensions);
  if (!fault) return vector;
  throw new RuntimeFailureError(`search: the embedder ${embedder.modelId} gave a query vector that ${fault}.`);
}

async function autoFuse(parts: Searchable, query: string): Promise<SearchPlan["fuse"]> {
  const choice = await parts.autoFusion();
  return autoMix(choice, choice ? (parts.lexical as LexicalPart).index.frequencyMass(query) : 0);
}

/** In the order of the new scores; equal ones keep the order that they had. */
export function reranked(list: readonly Candidate[], scores: readonly number[]): Candidate[] {
  if (!Array.isArray(scores) && !ArrayBuffer.isView(scores)) {
    throw new InvalidInputError("search: rerank must give an array of scores.");
  }
  if (scores.length !== list.length) {
    throw new InvalidInputError(`search: rerank gave ${scores.length} scores for ${list.length} hits.`);
  }
  return list
    .map((candidate, position) => {
      const score = scores[position] as number;
      if (Number.isFinite(score)) return { ...candidate, score };
      throw new InvalidInputError(`search: rerank gave hit ${position} the score ${score}; scores must be finite.`, {
        position,
      });
    })
    .sort((a, b) => b.score - a.score);
}

/** The `k` that maximal marginal relevance picks, in the order of picking. */
async function diversified(
  list: Candidate[],
  { lambda, k, scale }: { lambda: number; k: number; scale: boolean },
  base: BaseVectors,
): Promise<Candidate[]> {
  const rows = await base.read(Uint32Array.from(list, ({ label }) => label));
  const dimensions = rows.length / list.length;
  // Best first, whatever the score is.
  const [high, low] = [list[0]?.score ?? 0, list.at(-1)?.score ?? 0];
  const relevance = (score: number): number => (!scale ? score : high > low ? (score - low) / (high - low) : 1);
  const candidates = list.map(({ score }, i) => ({
    id: i,
    score: relevance(score),
    vector: rows.subarray(i * dimensions, (i + 1) * dimensions),
  }));
  return maximalMarginalRelevance(candidates, { lambda, k }).map(({ id }) => list[id] as Candidate);
}

function hitReader(parts: Searchable, query: string, plan: SearchPlan): (list: Candidate[], scoring: Scoring) => Hit[] {
  // Decoded once a document: many hits may lie in one long text.
  const read = new Map<number, StoredDocument>();
  const analyzer = plan.highlight ? parts.lexical?.index.analyzer : undefined;
  const toHit = ({ label, score, ...scores }: Candidate, scoring: Scoring): Hit => {
    const { number, position } = parts.documents.locate(label);
    const stored = read.get(number) ?? parts.documents.read(number);
    read.set(number, stored);
    const { id, text: whole, title, metadata } = stored.document;
    const passage = stored.passages[position] as Passage;
    const text = whole.slice(passage.start, passage.end);
    return {
      id,
      passage,
      text,
      score,
      scoring,
      scores,
      ...(title === undefined ? {} : { title }),
      // Its own copy, because the caller may change what it gets.
      metadata: structuredClone(metadata ?? {}),
      ...(analyzer ? { highlights: highlight(analyzer, query, text) } : {}),
    };
  };
  return (list, scoring) => list.map((candidate) => toHit(candidate, scoring));
}
