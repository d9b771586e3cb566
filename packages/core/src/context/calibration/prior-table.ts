/**
 * What each candidate gained on real judgements, and how the gain follows from |m|²: of all-MiniLM-L6-v2 on corpora whose
 * licences allow it (nq, tatqa, covidqa, scitldr, squad, boolq, tldr_pages, medquad, cuad; dev and train queries). Printed by
 * `bench/calibration.mjs`.
 */

/** nDCG@10 × 100 over no context, the mean over corpora, in the order of `WEIGHTINGS` and `CANDIDATES`. */
export const PRIOR_GAINS: readonly (readonly number[])[] = [
  [
    0, 0.54, 0.66, 0.7, 0.57, 0.38, -0.26, 0.32, 0.07, 0.75, 0.9, 0.82, 0.74, 0.63, 0.03, 0.49, -0.26, 0.49, 0.61, 0.76,
    0.58, 0.44, 0.01, 0.48,
  ],
  [
    0.82, 1.23, 0.92, 1.09, 1.18, 0.64, -0.12, 0.56, 0.78, 1.21, 1.05, 1.19, 1.22, 0.74, 0.05, 0.77, 0.24, 0.88, 0.71,
    0.88, 0.9, 0.59, -0.03, 0.59,
  ],
];

/**
 * gain ≈ intercept + slope · |m|², with the standard deviation of a corpus from that line; `largest` is the largest |m|²
 * that was seen. First where tokens can only count alike, then where they can be weighted.
 */
export const EXPECTATIONS = [
  { intercept: 0.01, slope: 6.6, deviation: 1.07, largest: 0.33 },
  { intercept: -0.01, slope: 10.4, deviation: 1.61, largest: 0.33 },
] as const;
