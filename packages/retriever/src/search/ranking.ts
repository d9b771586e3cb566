/** The rankings that a search draws its hits from. A longer draw continues a shorter one, so that pages fit together. */
import type { Ranked } from "../fusion/fusion.js";
import type { LexicalPart } from "../lexical/lexical-part.js";
import { type AllowedPassages, isAllowed } from "./allowed.js";
import type { SearchPlan } from "./options.js";
import type { Searchable } from "./search.js";

/** A passage in a ranking. */
export interface Candidate {
  readonly label: number;
  readonly score: number;
  readonly dense?: number;
  readonly lexical?: number;
  /** Of meaning, where the score is a mix. */
  readonly weight?: number;
}

/** The first `count` of a ranking, best first; fewer only where it ends. */
export type Ranking = (count: number) => Promise<Candidate[]>;

export function denseRanking(
  parts: Pick<Searchable, "vectors" | "visible">,
  query: Float32Array,
  allowed: AllowedPassages | undefined,
  signal: AbortSignal | undefined,
): Ranking {
  return async (count) => {
    // As it is when the vectors are asked: they may have rows by then of passages that aren't there yet.
    const bits = allowed?.bits ?? parts.visible();
    const options = { ...(bits ? { allowed: bits } : {}), ...(signal ? { signal } : {}) };
    const neighbours = await parts.vectors.search(query, count, options);
    return neighbours.map(({ label, score }) => ({ label, score, dense: score }));
  };
}

export function lexicalRanking({ index }: LexicalPart, query: string, allowed: AllowedPassages | undefined): Ranking {
  const accept = allowed && { accept: (row: number) => isAllowed(allowed, row) };
  return async (count) =>
    index.search(query, { k: count, ...accept }).map(({ row, score }) => ({ label: row, score, lexical: score }));
}

/**
 * Both rankings up to `depth`, fused. Passages in neither follow in the order of the dense ranking, which holds all;
 * fusion gives them 0, or the last fused score where that is less (distribution-based fusion goes below 0).
 */
export function hybridRanking(
  dense: Ranking,
  lexical: Ranking,
  { depth, fuse }: Pick<SearchPlan, "depth" | "fuse">,
): Ranking {
  let fused: Promise<Candidate[]> | undefined;
  let weighed: { readonly weight?: number } = {};
  const head = async (): Promise<Candidate[]> => {
    // The worker searches vectors while this thread counts words.
    const lists = await Promise.all([dense(depth), lexical(depth)]);
    const parts = new Map<number, { dense?: number; lexical?: number }>();
    for (const list of lists) {
      for (const { label, score: _, ...part } of list) parts.set(label, { ...parts.get(label), ...part });
    }
    const ranks = (list: Candidate[]): Ranked<number>[] => list.map(({ label, score }) => ({ id: label, score }));
    const { ranked, weight } = fuse(ranks(lists[0]), ranks(lists[1]));
    if (weight !== undefined) weighed = { weight };
    return ranked.map(({ id, score }) => ({ label: id, score, ...parts.get(id), ...weighed }));
  };
  return async (count) => {
    fused ??= head();
    const first = await fused;
    if (count <= first.length) return first.slice(0, count);
    const seen = new Set(first.map(({ label }) => label));
    const score = Math.min(0, first.at(-1)?.score ?? 0);
    const rest = (await dense(count)).filter(({ label }) => !seen.has(label));
    return [...first, ...rest.slice(0, count - first.length).map((candidate) => ({ ...candidate, score, ...weighed }))];
  };
}

/** The ranking with only the best passage of each document. */
export function mergedRanking(ranking: Ranking, documentOf: (label: number) => number): Ranking {
  return async (count) => {
    for (let drawn = 2 * count; ; drawn *= 4) {
      const list = await ranking(drawn);
      const best = new Map<number, Candidate>();
      for (const candidate of list) {
        const document = documentOf(candidate.label);
        if (!best.has(document)) best.set(document, candidate);
      }
      if (best.size >= count || list.length < drawn) return [...best.values()].slice(0, count);
    }
  };
}
