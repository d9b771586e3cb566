/** How far two contexts are apart: what differs in their fingerprints, their means, their spectra, and in what they do. */
import { type CorpusContext, fitSpectralMap, type SpectralMap } from "@cde-js/core";

export interface ContextDifference {
  readonly same: boolean;
  /** Fields of the identity, which the fingerprint is of, that differ. */
  readonly fields: readonly ("model" | "stage" | "strength" | "texts")[];
  readonly texts: {
    readonly shared: number;
    readonly onlyA: number;
    readonly onlyB: number;
    /** Whether the same texts come in another order, which is another fingerprint. */
    readonly reordered: boolean;
  };
  /** Null where the two can't be compared: other models, other dimensions, or no spectral map. */
  readonly spectral: SpectralDifference | null;
}

export interface SpectralDifference {
  readonly meanNormSquared: readonly [a: number, b: number];
  /** Cosine of the two means; null where one is 0. */
  readonly meanCosine: number | null;
  readonly effectiveDimensions: readonly [a: number, b: number];
  /** tr(S S') / (|S| |S'|) of the two covariances: 1 where they spread alike, 0 where in other directions. */
  readonly covarianceSimilarity: number;
  /** Of the texts of both contexts: cosine of a text's vector under A and under B, the mean and the least. */
  readonly effect: Effect;
  /** The same between two halves of A: what chance does. Null for fewer than 4 documents. */
  readonly chance: Effect | null;
}

interface Effect {
  readonly mean: number;
  readonly least: number;
}

export async function differenceOf(a: CorpusContext, b: CorpusContext): Promise<ContextDifference> {
  const fields = (["model", "stage", "strength", "texts"] as const).filter(
    (field) => JSON.stringify(a.identity[field]) !== JSON.stringify(b.identity[field]),
  );
  const [left, right] = [new Set(a.identity.texts), new Set(b.identity.texts)];
  const shared = [...left].filter((text) => right.has(text)).length;
  const sorted = (texts: readonly string[]): string => JSON.stringify([...texts].sort());
  return {
    same: a.fingerprint === b.fingerprint,
    fields,
    texts: {
      shared,
      onlyA: left.size - shared,
      onlyB: right.size - shared,
      reordered: fields.includes("texts") && sorted(a.identity.texts) === sorted(b.identity.texts),
    },
    spectral: await spectralDifference(a, b),
  };
}

async function spectralDifference(a: CorpusContext, b: CorpusContext): Promise<SpectralDifference | null> {
  const { map } = a;
  const other = b.map;
  if (!map || !other || a.dimensions !== b.dimensions || a.identity.model !== b.identity.model) return null;
  const rows = [a.vectors(), b.vectors()];
  return {
    meanNormSquared: [map.meanNormSquared, other.meanNormSquared],
    meanCosine: cosine(map.mean, other.mean),
    effectiveDimensions: [map.spectrum.effectiveDimensions, other.spectrum.effectiveDimensions],
    covarianceSimilarity: covarianceSimilarity(map, other),
    effect: effectOf(rows, map, other),
    chance: await chanceOf(rows[0] as Float32Array, map),
  };
}

/** The two maps fitted to every second document of A, and to the others. */
async function chanceOf(rows: Float32Array, { dimensions, strength }: SpectralMap): Promise<Effect | null> {
  const count = rows.length / dimensions;
  if (count < 4) return null;
  const half = (parity: number): Float32Array => {
    const chosen = Array.from({ length: Math.floor((count - parity + 1) / 2) }, (_, i) => 2 * i + parity);
    const packed = new Float32Array(chosen.length * dimensions);
    for (const [i, row] of chosen.entries()) {
      packed.set(rows.subarray(row * dimensions, (row + 1) * dimensions), i * dimensions);
    }
    return packed;
  };
  const even = await fitSpectralMap({ rows: half(0), dimensions }, { strength });
  const odd = await fitSpectralMap({ rows: half(1), dimensions }, { strength });
  return effectOf([rows], even, odd);
}

function effectOf(lists: readonly Float32Array[], a: SpectralMap, b: SpectralMap): Effect {
  const { dimensions } = a;
  let [sum, count, least] = [0, 0, 1];
  for (const rows of lists) {
    const [under, other] = [a.applyRows(rows), b.applyRows(rows)];
    for (let at = 0; at < rows.length; at += dimensions) {
      let dot = 0;
      for (let i = at; i < at + dimensions; i++) dot += (under[i] as number) * (other[i] as number);
      const similarity = Math.min(1, dot);
      sum += similarity;
      least = Math.min(least, similarity);
      count++;
    }
  }
  return { mean: sum / count, least };
}

/** tr(S S') = Σ l_i l'_j (u_i · u'_j)², and |S|² = Σ l²; eigenvalues are scaled to mean 1, which cancels. */
function covarianceSimilarity(a: SpectralMap, b: SpectralMap): number {
  const { dimensions } = a;
  const norm = (values: Float64Array): number => Math.sqrt(values.reduce((sum, l) => sum + l * l, 0));
  const norms = norm(a.eigenvalues) * norm(b.eigenvalues);
  if (norms === 0) return a.eigenvalues.every((l, i) => l === b.eigenvalues[i]) ? 1 : 0;
  let trace = 0;
  for (let i = 0; i < a.spectrum.rank; i++) {
    for (let j = 0; j < b.spectrum.rank; j++) {
      let dot = 0;
      for (let k = 0; k < dimensions; k++) {
        dot += (a.spectrum.basis[i * dimensions + k] as number) * (b.spectrum.basis[j * dimensions + k] as number);
      }
      trace += (a.eigenvalues[i] as number) * (b.eigenvalues[j] as number) * dot * dot;
    }
  }
  return trace / norms;
}

function cosine(a: Float64Array, b: Float64Array): number | null {
  let [dot, left, right] = [0, 0, 0];
  for (const [i, x] of a.entries()) {
    const y = b[i] as number;
    dot += x * y;
    left += x * x;
    right += y * y;
  }
  return left === 0 || right === 0 ? null : dot / Math.sqrt(left * right);
}
