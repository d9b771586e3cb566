import { type ContextIdentity, CorpusContext, type SpectralStrength, Spectrum } from "@cde-js/core";
import { expect, test } from "vitest";
import { clusterContext } from "./clusters.js";
import { differenceOf } from "./difference.js";
import { drawContext } from "./picture.js";
import { fitPlane } from "./projection.js";

const { signal } = new AbortController();
const STRENGTH: SpectralStrength = { a: 0.35, s: 0.3, b: 0.5 };
const digest = (n: number): string => n.toString(16).padStart(64, "0");

/** A spectral context of these unit vectors. */
async function contextOf(
  vectors: readonly (readonly number[])[],
  others: Partial<ContextIdentity> = {},
): Promise<CorpusContext> {
  const dimensions = vectors[0]?.length as number;
  const rows = Float32Array.from(vectors.flat());
  const identity: ContextIdentity = {
    model: digest(1),
    stage: "spectral",
    strength: STRENGTH,
    texts: vectors.map((_, i) => digest(100 + i)),
    ...others,
  };
  const spectrum = await Spectrum.fit({ rows, dimensions });
  return new CorpusContext({ identity, modelId: "test", vectors: rows, dimensions, spectrum });
}

const alongX = [
  [1, 0, 0],
  [-1, 0, 0],
];
const alongY = [
  [0, 1, 0],
  [0, -1, 0],
];

test("a context is the same as itself", async () => {
  const a = await contextOf([...alongX, ...alongY]);
  const { same, fields, texts, spectral } = await differenceOf(a, a);
  expect({ same, fields, texts }).toEqual({
    same: true,
    fields: [],
    texts: { shared: 4, onlyA: 0, onlyB: 0, reordered: false },
  });
  expect(spectral?.covarianceSimilarity).toBeCloseTo(1, 12);
  expect(spectral?.effect.least).toBeCloseTo(1, 6);
  // Every second vector is (1,0,0), (0,1,0), the others their negatives: the halves' means are opposite.
  expect(spectral?.chance?.mean).toBeLessThan(0.95);
});

test("the similarity of covariances is tr(S S') / (|S| |S'|)", async () => {
  const [x, y, both] = [await contextOf(alongX), await contextOf(alongY), await contextOf([...alongX, ...alongY])];
  const similarity = async (a: CorpusContext, b: CorpusContext) =>
    (await differenceOf(a, b)).spectral?.covarianceSimilarity;
  expect(await similarity(x, y)).toBeCloseTo(0, 12);
  // S = diag(1, 0, 0) and diag(1/2, 1/2, 0): 1/2 / (1 · sqrt(1/2)) = sqrt(1/2).
  expect(await similarity(x, both)).toBeCloseTo(Math.SQRT1_2, 12);
});

test("means: of (1,0,0), (0,1,0) it is (1/2, 1/2, 0), and of (1,0,0), (0,0,1) it is (1/2, 0, 1/2)", async () => {
  const a = await contextOf([
    [1, 0, 0],
    [0, 1, 0],
  ]);
  const b = await contextOf([
    [1, 0, 0],
    [0, 0, 1],
  ]);
  const { spectral } = await differenceOf(a, b);
  expect(spectral?.meanNormSquared).toEqual([0.5, 0.5]);
  expect(spectral?.meanCosine).toBeCloseTo(0.5, 12);
  expect(spectral?.chance).toBe(null);
});

test("names the fields that differ, and tells another order from other texts", async () => {
  const a = await contextOf(alongX);
  const reordered = await contextOf(alongX, { texts: [...a.identity.texts].reverse() });
  expect(await differenceOf(a, reordered)).toMatchObject({
    same: false,
    fields: ["texts"],
    texts: { shared: 2, reordered: true },
  });
  const stronger = await contextOf(alongX, { strength: { a: 1, s: 0.3, b: 0.5 } });
  expect(await differenceOf(a, stronger)).toMatchObject({
    fields: ["strength"],
    texts: { shared: 2, reordered: false },
  });
  const other = await contextOf(alongX, { model: digest(2), texts: [digest(100), digest(7)] });
  expect(await differenceOf(a, other)).toMatchObject({
    fields: ["model", "texts"],
    texts: { shared: 1, onlyA: 1, onlyB: 1 },
    spectral: null,
  });
});

test("the plane of two points is the line through them", async () => {
  const rows = Float32Array.of(1, 0, 0, 0, 1, 0);
  const plane = await fitPlane(rows, 3);
  expect(plane.share).toBeCloseTo(1, 12);
  // They are sqrt(2) apart, and their middle is 0. A third point above the middle has nothing of the line.
  const [x1, y1, x2, y2, x3] = plane.project(Float32Array.of(...rows, 0.5, 0.5, 0.7));
  expect(Math.abs(x1 as number)).toBeCloseTo(Math.SQRT1_2, 6);
  expect(x2).toBeCloseTo(-(x1 as number), 6);
  expect([y1, y2]).toEqual([0, 0]);
  expect(x3).toBeCloseTo(0, 6);
});

test("equal vectors make a plane without extent", async () => {
  const plane = await fitPlane(Float32Array.of(1, 0, 1, 0), 2);
  expect(plane.share).toBe(0);
  expect([...plane.project(Float32Array.of(1, 0))]).toEqual([0, 0]);
  await expect(fitPlane(new Float32Array(0), 2)).rejects.toThrow(/no vectors/);
});

test("clusters lie where the vectors do, largest first", async () => {
  /** Unit vectors about an axis. */
  const about = (axis: number, count: number): number[][] =>
    Array.from({ length: count }, (_, i) => {
      const vector = [0, 0, 0, 0];
      vector[axis] = Math.cos(0.05 + i * 0.002);
      vector[3] = Math.sin(0.05 + i * 0.002);
      return vector;
    });
  const context = await contextOf([...about(0, 4), ...about(1, 14), ...about(2, 18)]);
  const found = await clusterContext(context, undefined, signal);
  // sqrt(36 / 4) = 3 clusters.
  expect(found.clusters.map(({ size }) => size)).toEqual([18, 14, 4]);
  expect([...found.clusterOf]).toEqual([...Array(4).fill(2), ...Array(14).fill(1), ...Array(18).fill(0)]);
  expect(found.coverage).toBe(null);
  const svg = await drawContext(found, 4, `a <b> & "c" \u0000`);
  expect(svg.match(/<circle cx="[\d.]+" cy="[\d.]+" r="3.5"/g)).toHaveLength(36);
  expect(svg).toContain("a &#60;b&#62; &#38; &#34;c&#34; \ufffd");
  expect(svg).not.toMatch(/NaN|Infinity|<script/);
});
