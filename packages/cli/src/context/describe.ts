/** What a context is, in a few figures. */
import { type Calibration, type CorpusContext, describeCalibration } from "@cde-js/core";
import { counted } from "../printable.js";

export interface Description {
  readonly modelId: string;
  readonly fingerprint: string;
  readonly stage: string;
  readonly size: number;
  /** Different texts among them. */
  readonly differentTexts: number;
  /** Texts that were longer than the model reads, and cut. */
  readonly truncated: number;
  readonly dimensions: number;
  readonly strength: CorpusContext["identity"]["strength"];
  /** Of the token weights; null where all tokens count alike. */
  readonly smoothing: number | null;
  /** Why the strength was chosen, where it was chosen for the corpus. */
  readonly calibration: Calibration | null;
  readonly spectrum: {
    /** |m|², from 0 to 1: how much all passages have in common. */
    readonly meanNormSquared: number;
    /** (Σ l)² / Σ l² of the covariance's eigenvalues l: directions that the corpus really uses. */
    readonly effectiveDimensions: number;
  } | null;
}

export function describe(context: CorpusContext): Description {
  const { modelId, fingerprint, stage, size, dimensions, identity, map, truncated } = context;
  return {
    modelId,
    fingerprint,
    stage,
    size,
    differentTexts: new Set(identity.texts).size,
    truncated: truncated.length,
    dimensions,
    strength: identity.strength,
    smoothing: context.tokenWeights?.identity.smoothing ?? null,
    calibration: context.calibration ?? null,
    spectrum: map
      ? { meanNormSquared: map.meanNormSquared, effectiveDimensions: map.spectrum.effectiveDimensions }
      : null,
  };
}

export function descriptionLines(description: Description): string[] {
  const { modelId, fingerprint, stage, size, differentTexts, truncated, dimensions, strength, smoothing, spectrum } =
    description;
  return [
    `${stage} context of ${counted(size, "passage")} (${differentTexts} different), fingerprint ${fingerprint}`,
    `for ${modelId}, ${dimensions} dimensions${strength === null ? "" : `, strength ${JSON.stringify(strength)}`}${smoothing === null ? "" : `, tokens weighted at ${smoothing}`}`,
    ...(truncated > 0 ? [`${counted(truncated, "passage")} of them cut to what the model reads`] : []),
    ...(description.calibration ? [describeCalibration(description.calibration)] : []),
    ...(spectrum
      ? [
          `common to all passages: |mean|² = ${spectrum.meanNormSquared.toFixed(3)}; directions in use: ${spectrum.effectiveDimensions.toFixed(0)} of ${dimensions}`,
        ]
      : []),
  ];
}
