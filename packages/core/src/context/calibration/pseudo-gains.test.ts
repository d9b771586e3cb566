import { describe, expect, it } from "vitest";
import { createRandom } from "../../random.js";
import { SpectralMap } from "../spectral-map.js";
import { Spectrum } from "../spectrum.js";
import { CANDIDATES, DEFAULT_CANDIDATE } from "./candidates.js";
import { gainsOver, type PseudoGains, type PseudoVectors, pseudoFigures } from "./pseudo-gains.js";

const KINDS = 2;

/** Unit vectors with a common part, so that a mean and a spectrum are there to act. */
function madeVectors(width: number, documents: number, asked: number, seed: number): PseudoVectors {
  const random = createRandom(seed);
  const unit = (make: (i: number) => number): number[] => {
    const values = Array.from({ length: width }, (_, i) => make(i));
    const length = Math.hypot(...values);
    return values.map((value) => value / length);
  };
  const near = (vector: readonly number[], noise: number) => unit((i) => vector[i]! + noise * random.normal());
  const rows = Array.from({ length: documents }, () => unit((i) => 0.8 + (2 / (1 + i)) * random.normal()));
  const owners = random.shuffle(rows.map((_, i) => i)).slice(0, asked);
  return {
    documents: Float32Array.from(rows.flat()),
    rest: Float32Array.from(owners.flatMap((owner) => near(rows[owner]!, 0.02))),
    queries: Array.from({ length: KINDS }, (_, kind) =>
      Float32Array.from(owners.flatMap((owner) => near(rows[owner]!, 0.05 * (kind + 1)))),
    ),
    owners,
  };
}

/** Over no context of the same vectors, which is the first candidate. */
async function pseudoGains(spectrum: Spectrum, vectors: PseudoVectors, signal?: AbortSignal): Promise<PseudoGains> {
  const figures = await pseudoFigures(spectrum, vectors, signal);
  return gainsOver(figures[0]!, figures);
}

/** The same figure, from mapped vectors and their inner products. */
function naiveGains(spectrum: Spectrum, { documents, queries, rest, owners }: PseudoVectors): number[] {
  const width = spectrum.dimensions;
  const rowsOf = (packed: Float32Array) =>
    Array.from({ length: packed.length / width }, (_, i) => packed.subarray(i * width, (i + 1) * width));
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  const figures = CANDIDATES.map((strength) => {
    const map = new SpectralMap(spectrum, { strength });
    const [docs, rests] = [rowsOf(map.applyRows(documents)), rowsOf(map.applyRows(rest))];
    let sum = 0;
    for (const kind of queries) {
      for (const [i, query] of rowsOf(map.applyRows(kind)).entries()) {
        const own = dot(query, rests[i]!);
        const above = docs.filter((document, d) => d !== owners[i] && dot(query, document) > own).length;
        sum += 1 / Math.log2(above + 2);
      }
    }
    return sum / KINDS / owners.length;
  });
  return figures.map((figure) => 100 * (figure - figures[0]!));
}

describe("pseudoGains", () => {
  it.each([
    ["more documents than dimensions", 24, 60],
    ["fewer documents than dimensions", 48, 40],
  ])("equals the ranks of mapped vectors: %s", async (_, width, count) => {
    const vectors = madeVectors(width, count, 25, 3);
    const spectrum = await Spectrum.fit({ rows: vectors.documents, dimensions: width });
    const { mean, error } = await pseudoGains(spectrum, vectors);
    const expected = naiveGains(spectrum, vectors);
    mean.forEach((gain, c) => {
      expect(gain).toBeCloseTo(expected[c]!, 6);
    });
    expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(0.5);
    expect(mean[0]).toBe(0);
    expect(error[0]).toBe(0);
    expect(error[DEFAULT_CANDIDATE]).toBeGreaterThan(0);

    // Control: the spectrum of other vectors gives other gains.
    const other = await Spectrum.fit({ rows: madeVectors(width, count, 25, 4).documents, dimensions: width });
    const moved = await pseudoGains(other, vectors);
    expect(Math.max(...moved.mean.map((gain, c) => Math.abs(gain - mean[c]!)))).toBeGreaterThan(0.1);
  });

  it("stops when it is aborted", async () => {
    const vectors = madeVectors(24, 40, 10, 5);
    const spectrum = await Spectrum.fit({ rows: vectors.documents, dimensions: 24 });
    await expect(pseudoGains(spectrum, vectors, AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
  });
});
