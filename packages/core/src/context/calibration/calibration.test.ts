import { describe, expect, it } from "vitest";
import { createRandom } from "../../random.js";
import { DEFAULT_STRENGTH } from "../spectral-map.js";
import { Spectrum } from "../spectrum.js";
import {
  bestCandidate,
  type Calibration,
  chooseStrength as choose,
  DOUBT,
  describeCalibration,
  parseCalibration,
  uncalibrated,
} from "./calibration.js";
import { CANDIDATES, candidateIndex, WEIGHTINGS } from "./candidates.js";
import { EXPECTATIONS, PRIOR_GAINS as PRIORS } from "./prior-table.js";
import type { PseudoGains } from "./pseudo-gains.js";
import { makePseudoQueries, PSEUDO_QUERY_KINDS } from "./pseudo-queries.js";

/** By how much the published strength is preferred. */
const NEAR = 0.1;
const preferred = (of: readonly number[]) =>
  of.map((gain, c) => gain + (c === candidateIndex(DEFAULT_STRENGTH) ? NEAR : 0));
const PRIOR_GAINS: readonly number[] = preferred(PRIORS[0]!);

async function someSpectrum(): Promise<Spectrum> {
  const random = createRandom(1);
  const vectors = Array.from({ length: 40 }, () => {
    const vector = Array.from({ length: 8 }, () => 0.3 + random.normal());
    return Float32Array.from(vector, (value) => value / Math.hypot(...vector));
  });
  return await Spectrum.fit(vectors);
}

const ERROR = 0.1;

/** Gains on pseudo-queries by candidate. */
const pseudo = (gain: (c: number) => number) => ({
  mean: Float64Array.from(CANDIDATES, (_, c) => (c === 0 ? 0 : gain(c))),
  error: new Float64Array(CANDIDATES.length).fill(ERROR),
});

/** Where tokens can only count alike. */
function chooseStrength(spectrum: Spectrum, gains: PseudoGains | undefined): Calibration {
  return choose([{ spectrum, pseudo: gains }], gains ? 200 : 0);
}

describe("chooseStrength", () => {
  it("has a prior for every candidate under every weighting, none for off", () => {
    expect(PRIORS).toHaveLength(WEIGHTINGS.length);
    expect(EXPECTATIONS).toHaveLength(WEIGHTINGS.length);
    for (const gains of PRIORS) expect(gains).toHaveLength(CANDIDATES.length);
    expect(PRIOR_GAINS[candidateIndex("off")]).toBe(0);
    expect(candidateIndex(DEFAULT_STRENGTH)).toBeGreaterThan(0);
  });

  it("takes what gained most on other corpora where this one says nothing", async () => {
    const best = PRIOR_GAINS.indexOf(Math.max(...PRIOR_GAINS));
    expect(chooseStrength(await someSpectrum(), undefined).strength).toEqual(CANDIDATES[best]);
  });

  it("is off where this corpus speaks against all that gained elsewhere", async () => {
    const found = chooseStrength(
      await someSpectrum(),
      pseudo(() => -ERROR),
    );
    expect(found.strength).toBe("off");
    expect(found.expectedGain).toEqual({ points: 0, low: 0, high: 0 });
  });

  it("leaves out what loses by more than three quarters of its error, and nothing else", async () => {
    const spectrum = await someSpectrum();
    const inOrder = CANDIDATES.map((_, c) => c).sort((a, b) => PRIOR_GAINS[b]! - PRIOR_GAINS[a]!);
    const [first, second, third] = inOrder as [number, number, number];
    for (const [losses, chosen] of [
      [[DOUBT * ERROR - 0.001, 0], first],
      [[DOUBT * ERROR + 0.001, 0], second],
      [[DOUBT * ERROR + 0.001, DOUBT * ERROR + 0.001], third],
    ] as const) {
      const gains = pseudo((c) => (c === first ? -losses[0] : c === second ? -losses[1] : 0));
      const found = chooseStrength(spectrum, gains);
      expect(found.strength).toEqual(CANDIDATES[chosen]);
      expect(found.pseudoGain).toEqual({ points: gains.mean[chosen], error: ERROR });
    }
    // What it gains here decides nothing: those points are worth less than real ones.
    const other = pseudo((c) => (c === first ? 0 : 9));
    expect(chooseStrength(spectrum, other).strength).toEqual(CANDIDATES[first]);
  });

  it("weighs tokens only where pseudo-queries gain by that alone, and more than their error says", async () => {
    const spectrum = await someSpectrum();
    const best = (of: readonly number[]) => CANDIDATES[of.indexOf(Math.max(...of))];
    for (const [points, weighted] of [
      [DOUBT * ERROR + 0.001, true],
      [DOUBT * ERROR - 0.001, false],
      [0, false],
    ] as const) {
      const mean = new Float64Array(CANDIDATES.length).fill(5);
      mean[0] = points; // weights without a map
      const error = new Float64Array(CANDIDATES.length).fill(ERROR);
      const cases = [
        { spectrum, pseudo: pseudo(() => 0) },
        { spectrum, pseudo: { mean, error }, smoothing: 0.3 },
      ];
      const { smoothing, strength } = choose(cases, 200);
      expect(smoothing).toBe(weighted ? 0.3 : undefined);
      expect(strength).toEqual(best(preferred(PRIORS[Number(weighted)]!)));
    }
    const silent = [
      { spectrum, pseudo: undefined },
      { spectrum, pseudo: undefined, smoothing: 0.3 },
    ];
    expect(choose(silent, 0).smoothing).toBeUndefined();
  });

  it("takes the published strength of near-equals, and another that gained clearly more", () => {
    const published = candidateIndex(DEFAULT_STRENGTH);
    const other = candidateIndex({ a: 0.7, s: 0.3, b: 0 });
    for (const [ahead, chosen] of [
      [NEAR - 0.01, published],
      [NEAR + 0.01, other],
    ] as const) {
      const prior = CANDIDATES.map((_, c) => (c === published ? 1 : c === other ? 1 + ahead : 0));
      expect(bestCandidate([prior], [{ pseudo: undefined }])).toMatchObject({ of: 0, c: chosen });
    }
  });

  it("expects a gain by |m|², with an interval for one corpus", async () => {
    const spectrum = await someSpectrum();
    const { expectedGain, meanNormSquared } = chooseStrength(spectrum, undefined);
    // The mean of 40 unit vectors has (1 − |m|²) / 40 too much.
    expect(meanNormSquared).toBeCloseTo((40 * spectrum.meanNormSquared - 1) / 39, 12);
    const { intercept, slope, largest, deviation } = EXPECTATIONS[0];
    expect(expectedGain!.points).toBeCloseTo(intercept + slope * Math.min(meanNormSquared, largest), 12);
    expect(expectedGain!.high - expectedGain!.low).toBeCloseTo(2 * 1.96 * deviation, 12);
  });
});

describe("describeCalibration", () => {
  it("says what was chosen, what is expected and when to leave it off", async () => {
    const line = describeCalibration(chooseStrength(await someSpectrum(), undefined));
    expect(line).toMatch(/^strength a 0\.\d+, s 0\.\d+, b [\d.]+, expected [+−]\d\.\d points .*interval|95 %/);
    expect(line).toContain("leave it off if");
  });

  it("says at what smoothing tokens are weighted", async () => {
    const spectrum = await someSpectrum();
    const cases = [
      { spectrum, pseudo: pseudo(() => -9) },
      { spectrum, pseudo: { ...pseudo(() => 2), mean: new Float64Array(CANDIDATES.length).fill(2) }, smoothing: 0.3 },
    ];
    expect(describeCalibration(choose(cases, 200))).toContain("tokens weighted at 0.3, expected +");
  });

  it("says why nothing was chosen", async () => {
    expect(describeCalibration(uncalibrated(await someSpectrum()))).toContain("too few or too alike");
  });
});

describe("parseCalibration", () => {
  it("reads back what was written", async () => {
    const calibration = chooseStrength(
      await someSpectrum(),
      pseudo(() => 0.2),
    );
    expect(parseCalibration(JSON.parse(JSON.stringify(calibration)))).toEqual(calibration);
    const weighted = { ...calibration, smoothing: 0.3 };
    expect(parseCalibration(JSON.parse(JSON.stringify(weighted)))).toEqual(weighted);
    const none = uncalibrated(await someSpectrum());
    expect(parseCalibration(JSON.parse(JSON.stringify(none)))).toEqual(JSON.parse(JSON.stringify(none)));
  });

  it.each([
    ["no record", null],
    ["a strength out of range", { strength: { a: 2, s: 0.3, b: 0 } }],
    ["a number that is text", { documents: "40" }],
    ["a smoothing out of range", { smoothing: 0 }],
    ["an interval without its ends", { expectedGain: { points: 1 } }],
    ["a field that isn't ours", { note: "hello" }],
  ])("refuses %s", async (_, change) => {
    const calibration = chooseStrength(await someSpectrum(), undefined);
    expect(() => parseCalibration(change && { ...calibration, ...change })).toThrow();
  });
});

describe("makePseudoQueries", () => {
  const documents = Array.from(
    { length: 50 },
    (_, i) =>
      `Clause ${i} binds the tenant to repair everything. The landlord number ${i} pays for the roof and gutters. Notice of word${i} is given in writing.`,
  );

  it("asks each document in every way, and leaves the sentence out of the rest", () => {
    const made = makePseudoQueries(documents, 20, 0);
    expect(made).toHaveLength(20);
    expect(new Set(made.map((query) => query.document)).size).toBe(20);
    for (const { document, rest, texts } of made) {
      expect(texts).toHaveLength(PSEUDO_QUERY_KINDS.length);
      const [sentence, span, , question] = texts as [string, string, string, string];
      expect(documents[document]).toContain(sentence);
      expect(sentence).toContain(span);
      expect(rest).not.toContain(sentence);
      expect(rest.length).toBeGreaterThan(20);
      // Of each sentence, the number or the word that no other document has is among the rarest.
      expect(question).toMatch(/^what is .*\?$/);
    }
    expect(made.some(({ texts }) => /word\d+/.test(texts[2]!))).toBe(true);
  });

  it("is the same for a seed and another for another", () => {
    expect(makePseudoQueries(documents, 20, 1)).toEqual(makePseudoQueries(documents, 20, 1));
    expect(makePseudoQueries(documents, 20, 1)).not.toEqual(makePseudoQueries(documents, 20, 2));
  });

  it("makes none of documents with one sentence, and as many as it can of the others", () => {
    expect(makePseudoQueries(["Only one sentence with many words here", ""], 20, 0)).toEqual([]);
    expect(makePseudoQueries([...documents.slice(0, 3), "short"], 20, 0)).toHaveLength(3);
  });
});
