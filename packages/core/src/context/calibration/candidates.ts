/** The strengths that a calibration chooses from. */
import { DEFAULT_STRENGTH, type SpectralStrength } from "../spectral-map.js";

/** How far the mean is taken off. */
const SHIFTS = [0, 0.5, 1] as const;

/** Exponent and shrinkage of the spectrum; without an exponent only the mean acts. */
const SPECTRA = [
  { a: 0, s: 1 },
  { a: 0.2, s: 0.3 },
  { a: 0.35, s: 0.1 },
  { a: 0.35, s: 0.3 },
  { a: 0.35, s: 0.6 },
  { a: 0.5, s: 0.3 },
  { a: 0.7, s: 0.3 },
  { a: 0.7, s: 0.6 },
] as const;

/** "off" first, then every shift with every spectrum that does something. The prior's table has this order. */
export const CANDIDATES: readonly (SpectralStrength | "off")[] = Object.freeze([
  "off",
  ...SHIFTS.flatMap((b) =>
    SPECTRA.filter(({ a }) => a > 0 || b > 0).map(({ a, s }) => Object.freeze({ a, s, b }) as SpectralStrength),
  ),
]);

/** Where `strength` stands among the candidates; -1 where it doesn't. */
export function candidateIndex(strength: SpectralStrength | "off"): number {
  return CANDIDATES.findIndex((candidate) =>
    candidate === "off" || strength === "off"
      ? candidate === strength
      : candidate.a === strength.a && candidate.s === strength.s && candidate.b === strength.b,
  );
}

/** Whether tokens count alike or by the corpus's weights: each with every strength. The prior's table has this order. */
export const WEIGHTINGS = ["alike", "weighted"] as const;

/** The published strength is one of them. */
export const DEFAULT_CANDIDATE: number = candidateIndex(DEFAULT_STRENGTH);
