/**
 * What each candidate gained on real judgements, and how the gain follows from |m|²: of all-MiniLM-L6-v2 on corpora whose
 * licences allow it. Made by `bench/calibration.mjs`, which prints these lines.
 */

/** nDCG@10 × 100 over no context, the mean over corpora, in the order of `CANDIDATES`. */
export const PRIOR_GAINS: readonly number[] = [
  0.0, 0.79, 0.95, 0.97, 0.93, 0.78, 0.29, 0.74, 0.23, 0.98, 1.13, 1.16, 1.1, 1.03, 0.5, 0.97, -0.09, 0.89, 1.06, 1.02,
  0.95, 0.96, 0.62, 0.97,
];

/**
 * gain ≈ intercept + slope · |m|², with the standard deviation of a corpus from that line; `largest` is the largest |m|²
 * that was seen.
 */
export const EXPECTATION = { intercept: 0.13, slope: 6.6, deviation: 0.82, largest: 0.31 } as const;
