/** What `fusion: "auto"` knows of a corpus: whether weights can be set query by query, and the scale of its cosines. */
import type { BaseVectors } from "../exact-index.js";
import type { VectorIndex } from "../vector-index.js";
import { type Fused, mix, type Ranked } from "./fusion.js";
import { DEPTH, EVEN, queryWeight, rankingFalls } from "./query-weight.js";

/** Chosen from a corpus's own passages. Plain data: it is saved with the index. */
export interface AutoFusion {
  /** Passages that were asked as queries. */
  readonly asked: number;
  /** How far the cosine falls from a passage's nearest neighbour to its hundredth: the geometric mean. */
  readonly fall: number;
  /** Passages that there were. */
  readonly passages: number;
}

/** Below this a hundredth neighbour is a large part of the corpus; the rule was fitted on 555 passages and more. */
const LEAST_PASSAGES = 500;
/** In a corpus that is this many times larger a hundredth neighbour is another thing. */
const OUTGROWN = 2;
/** Passages that are asked: those that `drawPassages` gives, in every engine. */
export const ASKED = 64;
/**
 * The falls of the 19 corpora that the rule was fitted on, with and without a context. Printed by `bench/fusion.mjs`.
 * Other models' cosines may lie closer together or further apart.
 */
const USUAL_FALL = { least: 0.16, most: 0.51 } as const;
/** Vectors that are nearly all alike say nothing. */
const LEAST_FALL = 0.01;

/** Whether to ask: the corpus is large enough, and was never asked, or at half its size at most. */
export function mustChoose(passages: number, before: number | undefined): boolean {
  return passages >= LEAST_PASSAGES && (before === undefined || passages >= OUTGROWN * before);
}

/**
 * Asks passages of the corpus for their neighbours. Encodes nothing. Undefined where that gives nothing to choose by.
 *
 * @param passages how many there are
 */
export async function chooseFusion(
  vectors: VectorIndex,
  base: BaseVectors,
  drawn: Uint32Array,
  passages: number,
): Promise<AutoFusion | undefined> {
  const rows = await base.read(drawn);
  const { dimensions } = vectors;
  const others: Ranked[][] = [];
  for (const [i, passage] of drawn.entries()) {
    const found = await vectors.search(rows.subarray(i * dimensions, (i + 1) * dimensions), DEPTH + 1);
    others.push(found.flatMap(({ label, score }) => (label === passage ? [] : [{ id: label, score }])));
  }
  return fusionOf(others, passages);
}

/** Of the first hundred neighbours of each passage that was asked, itself left out. */
export function fusionOf(others: readonly (readonly Ranked[])[], passages: number): AutoFusion | undefined {
  const falls = others.flatMap((ranking) => {
    const [nearest, last] = [ranking[0], ranking[DEPTH - 1]];
    return nearest && last ? [Math.max(nearest.score - last.score, LEAST_FALL / 10)] : [];
  });
  const asked = falls.length;
  const fall = Math.exp(falls.reduce((sum, each) => sum + Math.log(each), 0) / Math.max(1, asked));
  return asked > 0 && fall >= LEAST_FALL ? { asked, fall, passages } : undefined;
}

/** By what falls of this corpus's cosines are multiplied: 1 where they are usual. */
export function fallScale({ fall }: AutoFusion): number {
  const { least, most } = USUAL_FALL;
  return fall < least ? least / fall : fall > most ? most / fall : 1;
}

/** Mixes a query's rankings, `weight` chosen for it; even where there is nothing to choose by. */
export function autoMix(
  choice: AutoFusion | undefined,
  frequencyMass: number,
): (dense: readonly Ranked<number>[], lexical: readonly Ranked<number>[]) => Fused {
  return (dense, lexical) => {
    const falls = choice && rankingFalls(dense, lexical, frequencyMass);
    const weight = falls ? queryWeight(falls, fallScale(choice)) : EVEN;
    return { ranked: mix(dense, lexical, { weight }), weight };
  };
}

/** One line for a person. */
export function describeFusion(choice: AutoFusion | undefined): string {
  if (!choice) {
    return `fusion 0.5 for every query: fewer than ${LEAST_PASSAGES} passages, or vectors too alike, give nothing to choose by`;
  }
  const { asked, fall } = choice;
  const scale = fallScale(choice);
  const usual = scale === 1 ? "as usual" : `unusual, so falls are multiplied by ${scale.toFixed(2)}`;
  return `fusion chosen for each query by how far its rankings fall (cosines of ${asked} passages to their hundredth neighbour fall by ${fall.toFixed(2)}: ${usual})`;
}

/** Why a saved choice is none; undefined for a sound one. */
export function fusionFault(value: unknown): string | undefined {
  if (typeof value === "object" && value !== null) {
    const { asked, fall, passages, ...more } = value as Record<string, unknown>;
    const isCount = (count: unknown): boolean => Number.isSafeInteger(count) && (count as number) > 0;
    if (
      isCount(asked) &&
      isCount(passages) &&
      typeof fall === "number" &&
      fall >= LEAST_FALL &&
      fall <= 2 &&
      Object.keys(more).length === 0
    )
      return undefined;
  }
  return "describes a fusion that is none";
}
