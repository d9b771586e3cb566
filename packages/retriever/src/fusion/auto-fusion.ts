/** What `fusion: "auto"` knows of a corpus: whether weights can be set query by query, and the scale of its cosines. */
import { createRandom } from "@cde-js/core";
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
}

/** Below this a hundredth neighbour is a large part of the corpus; the rule was fitted on 555 passages and more. */
export const LEAST_PASSAGES = 500;
const ASKED = 64;
/**
 * The falls of the 19 corpora that the rule was fitted on, with and without a context. Printed by `bench/fusion.mjs`.
 * Other models' cosines may lie closer together or further apart.
 */
const USUAL_FALL = { least: 0.16, most: 0.51 } as const;
/** Vectors that are nearly all alike say nothing. */
const LEAST_FALL = 0.01;

/** Asks passages of the corpus for their neighbours. Encodes nothing. Undefined where there is no way to choose. */
export async function chooseFusion(
  vectors: VectorIndex,
  base: BaseVectors,
  labels: Uint32Array,
): Promise<AutoFusion | undefined> {
  if (labels.length < LEAST_PASSAGES) return undefined;
  const random = createRandom(0);
  // Every label has the same chance in each stretch, whatever order the corpus came in.
  const stretch = labels.length / ASKED;
  const passages = Uint32Array.from(
    { length: ASKED },
    (_, i) => labels[Math.floor((i + random.next()) * stretch)] as number,
  );
  const rows = await base.read(passages);
  const { dimensions } = vectors;
  let [asked, logarithms] = [0, 0];
  for (const [i, passage] of passages.entries()) {
    const found = await vectors.search(rows.subarray(i * dimensions, (i + 1) * dimensions), DEPTH + 1);
    const others = found.filter(({ label }) => label !== passage);
    const [nearest, last] = [others[0], others[DEPTH - 1]];
    if (!nearest || !last) continue;
    logarithms += Math.log(Math.max(nearest.score - last.score, LEAST_FALL / 10));
    asked++;
  }
  const fall = Math.exp(logarithms / Math.max(1, asked));
  return asked > 0 && fall >= LEAST_FALL ? { asked, fall } : undefined;
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
    const { asked, fall, ...more } = value as Record<string, unknown>;
    const sound = Number.isSafeInteger(asked) && (asked as number) > 0 && typeof fall === "number";
    if (sound && fall >= LEAST_FALL && fall <= 2 && Object.keys(more).length === 0) return undefined;
  }
  return "describes a fusion that is none";
}
