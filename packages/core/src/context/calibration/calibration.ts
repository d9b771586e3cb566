/** What a calibration found, and the rule by which it chooses. */
import { InvalidInputError } from "../../errors.js";
import { checkStrength, DEFAULT_STRENGTH, type SpectralStrength } from "../spectral-map.js";
import type { Spectrum } from "../spectrum.js";
import { isSmoothing } from "../token-weights.js";
import { CANDIDATES, DEFAULT_CANDIDATE } from "./candidates.js";
import { EXPECTATIONS, PRIOR_GAINS } from "./prior-table.js";
import type { PseudoGains } from "./pseudo-gains.js";

/** Why a strength was chosen for a corpus. Plain data: it is saved with the context, and is not part of its fingerprint. */
export interface Calibration {
  readonly strength: SpectralStrength | "off";
  /** Of the token weights that were chosen with it; absent where all tokens count alike. */
  readonly smoothing?: number;
  /** Pseudo-queries made from the corpus, each asked in four ways; 0 where the documents gave none. */
  readonly pseudoQueries: number;
  /** Context documents. Fewer than 32 are too few to choose by: the default strength is taken. */
  readonly documents: number;
  /** |m|², bias of a finite sample taken off, 0 to 1: how much the documents have in common. */
  readonly meanNormSquared: number;
  /** (Σ l)² / Σ l²: directions that the corpus really uses. */
  readonly effectiveDimensions: number;
  /**
   * nDCG@10 × 100 over no context that corpora with this |m|² gained with all-MiniLM-L6-v2, with a 95 % interval for one
   * corpus; another model's gain may differ. Undefined where nothing could be calibrated.
   */
  readonly expectedGain: { readonly points: number; readonly low: number; readonly high: number } | undefined;
  /** Points of the pseudo-queries' own figure that the chosen strength gains, with its standard error. */
  readonly pseudoGain: { readonly points: number; readonly error: number } | undefined;
}

/** Below this a spectrum says more about the draw than about the corpus. */
export const LEAST_DOCUMENTS = 32;

/**
 * Standard errors by which pseudo-queries must lose before a candidate is left out, and gain before tokens are weighted:
 * weights belong to the base vectors and can't be taken back without encoding again. Their points are worth less than those
 * of real queries, but they are the only sign of a corpus that loses. From 0.3 to 1 no corpus lost more than 0.1 points.
 */
export const DOUBT = 0.75;

/**
 * Points by which another strength must have gained more elsewhere than the published one: the best of the prior's table are
 * nearer to each other than nine corpora tell apart.
 */
const NEAR = 0.1;

/** Two standard errors and what is between them of a normal distribution. */
const INTERVAL = 1.96;

/** Base vectors of one way to weigh tokens, in the order of `WEIGHTINGS`. */
export interface CalibrationCase {
  readonly spectrum: Spectrum;
  /** Over no context, tokens counting alike; undefined where the documents gave no pseudo-queries. */
  readonly pseudo: PseudoGains | undefined;
  /** Of the token weights. */
  readonly smoothing?: number | undefined;
}

/** The default strength, where documents are too few or too alike to choose by. */
export function uncalibrated(spectrum: Spectrum): Calibration {
  return {
    strength: DEFAULT_STRENGTH,
    pseudoQueries: 0,
    ...featuresOf(spectrum),
    expectedGain: undefined,
    pseudoGain: undefined,
  };
}

/**
 * The candidate that gained most on other corpora (of near-equals the published one), among those that this corpus's
 * pseudo-queries don't speak against; "off" with tokens counting alike, where there is none that gained. Weighted tokens are
 * taken only where pseudo-queries speak for them, without any map. Judged leave-one-corpus-out in docs/spectral-context.md.
 *
 * @param cases the first of tokens that count alike
 * @param pseudoQueries how many there were
 */
export function chooseStrength(cases: readonly CalibrationCase[], pseudoQueries: number): Calibration {
  const best = bestCandidate(PRIOR_GAINS, cases);
  const features = featuresOf(cases[0]!.spectrum);
  const strength = CANDIDATES[best.c]!;
  const { smoothing, pseudo } = cases[best.of]!;
  const none = strength === "off" && smoothing === undefined;
  const { intercept, slope, deviation, largest } = EXPECTATIONS[cases.length - 1]!;
  const points = none ? 0 : intercept + slope * Math.min(features.meanNormSquared, largest);
  const spread = none ? 0 : INTERVAL * deviation;
  return {
    strength,
    ...(smoothing !== undefined && { smoothing }),
    pseudoQueries,
    ...features,
    expectedGain: { points, low: points - spread, high: points + spread },
    pseudoGain: pseudo && { points: pseudo.mean[best.c]!, error: pseudo.error[best.c]! },
  };
}

/**
 * The rule by itself.
 *
 * @param prior gains elsewhere, by case and candidate
 * @param cases the first of tokens that count alike; without pseudo-queries nothing is spoken against
 */
export function bestCandidate(
  prior: readonly (readonly number[])[],
  cases: readonly Pick<CalibrationCase, "pseudo">[],
): { readonly of: number; readonly c: number } {
  let best = { of: 0, c: 0, gain: 0 };
  for (const [of, { pseudo }] of cases.entries()) {
    /** How surely a candidate gains on pseudo-queries: points above as many standard errors. */
    const surplus = (c: number, errors: number) => (pseudo ? pseudo.mean[c]! - errors * pseudo.error[c]! : 0);
    if (of > 0 && !(surplus(0, DOUBT) > 0)) continue;
    for (const [c, measured] of prior[of]!.entries()) {
      const gain = measured + (c === DEFAULT_CANDIDATE ? NEAR : 0);
      if (gain > best.gain && surplus(c, -DOUBT) >= 0) best = { of, c, gain };
    }
  }
  return best;
}

function featuresOf({ count, meanNormSquared, effectiveDimensions }: Spectrum) {
  return {
    documents: count,
    // The mean of J unit vectors has (1 − |m|²) / J too much.
    meanNormSquared: count > 1 ? Math.max(0, (count * meanNormSquared - 1) / (count - 1)) : meanNormSquared,
    effectiveDimensions,
  };
}

/** One line for a person: what was chosen, what it is expected to gain, and when to leave it off. */
export function describeCalibration(calibration: Calibration): string {
  const { strength, smoothing, expectedGain, documents, meanNormSquared, pseudoQueries } = calibration;
  const map = strength === "off" ? "off" : `a ${strength.a}, s ${strength.s}, b ${strength.b}`;
  const named = smoothing === undefined ? map : `${map}, tokens weighted at ${smoothing}`;
  if (!expectedGain) {
    return `strength ${named}: the default, since ${documents} context documents that differ are too few or too alike to choose by`;
  }
  const signed = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
  const grounds = `|m|² ${meanNormSquared.toFixed(2)}, ${pseudoQueries} pseudo-queries`;
  if (strength === "off" && smoothing === undefined)
    return `strength off: no candidate is expected to gain on this corpus (${grounds})`;
  return `strength ${named}, expected ${signed(expectedGain.points)} points of nDCG@10 (95 % of corpora: ${signed(expectedGain.low)} to ${signed(expectedGain.high)}; ${grounds}); leave it off if judged queries of your own say otherwise`;
}

/** Reads a saved calibration with distrust. @throws InvalidInputError */
export function parseCalibration(value: unknown): Calibration {
  const {
    strength,
    smoothing,
    pseudoQueries,
    documents,
    meanNormSquared,
    effectiveDimensions,
    expectedGain,
    pseudoGain,
    ...more
  } = Object(value) as Record<string, unknown>;
  const numbers = (of: unknown, names: readonly string[]): boolean =>
    of === undefined ||
    (typeof of === "object" &&
      of !== null &&
      Object.keys(of).length === names.length &&
      names.every((name) => Number.isFinite((of as Record<string, unknown>)[name])));
  const sound =
    Object.keys(more).length === 0 &&
    [pseudoQueries, documents, meanNormSquared, effectiveDimensions].every((number) => Number.isFinite(number)) &&
    (smoothing === undefined || isSmoothing(smoothing)) &&
    numbers(expectedGain, ["points", "low", "high"]) &&
    numbers(pseudoGain, ["points", "error"]) &&
    (strength === "off" || (typeof strength === "object" && strength !== null));
  if (!sound) throw new InvalidInputError("calibration: the record is not one that a calibration gives.");
  checkStrength(strength as SpectralStrength | "off");
  return value as Calibration;
}
