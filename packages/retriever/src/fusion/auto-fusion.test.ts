/** The weight of a mix for one query, on paper, and what is chosen for a corpus. */
import { describe, expect, test } from "vitest";
import type { BaseVectors } from "../exact-index.js";
import { createAnalyzer } from "../lexical/analyzer.js";
import { Bm25Index } from "../lexical/bm25-index.js";
import { naiveVectorIndex } from "../spectral-stub.test.support.js";
import { DocumentStore } from "../storage/document-store.js";
import type { VectorIndex } from "../vector-index.js";
import { autoMix, chooseFusion, describeFusion, fallScale, fusionFault, mustChoose } from "./auto-fusion.js";
import { drawLevel, drawPassages } from "./draw.js";
import { type Fused, mix, type Ranked } from "./fusion.js";
import { queryWeight, rankingFalls, WEIGHT_RULE } from "./query-weight.js";

/** A ranking of `count` places from `first` down to `last`, evenly. */
function falling(first: number, last: number, count = 100, from = 0): Ranked<number>[] {
  return Array.from({ length: count }, (_, i) => ({
    id: from + i,
    score: first + ((last - first) * i) / Math.max(1, count - 1),
  }));
}

describe("the weight of one query", () => {
  test("is the rule's arithmetic", () => {
    // Cosines from 0.7 to 0.4; BM25 from 12 to 6, of 15 frequency mass; so falls 0.3, 12/15 = 0.8 and 6/12 = 0.5.
    const falls = rankingFalls(falling(0.7, 0.4), falling(12, 6), 15);
    expect(falls?.dense).toBeCloseTo(0.3, 12);
    expect(falls?.reached).toBeCloseTo(0.8, 12);
    expect(falls?.lexical).toBeCloseTo(0.5, 12);
    const { intercept, dense, reached, lexical } = WEIGHT_RULE;
    // ln 0.3 = -1.203973, ln 0.8 = -0.223144, ln 0.5 = -ln 2
    const odds = Math.exp(intercept - 1.203973 * dense - 0.223144 * reached - Math.LN2 * lexical);
    expect(queryWeight(falls!)).toBeCloseTo(odds / (1 + odds), 6);
  });

  test("grows with the fall of the cosines and shrinks with both falls of BM25", () => {
    const falls = { dense: 0.3, reached: 0.8, lexical: 0.5 };
    const weight = queryWeight(falls);
    expect(queryWeight({ ...falls, dense: 0.4 })).toBeGreaterThan(weight);
    expect(queryWeight({ ...falls, reached: 0.9 })).toBeLessThan(weight);
    expect(queryWeight({ ...falls, lexical: 0.6 })).toBeLessThan(weight);
    expect(queryWeight({ dense: 0, reached: 1e-9, lexical: 0 })).toBeGreaterThan(0);
    expect(queryWeight({ dense: 2, reached: 1e-9, lexical: 0 })).toBeLessThan(1);
  });

  test("takes a ranking of fewer than a hundred words' passages as one that falls to nothing", () => {
    expect(rankingFalls(falling(0.7, 0.4), falling(12, 11, 3), 15)?.lexical).toBe(1);
    expect(rankingFalls(falling(0.7, 0.4), falling(12, 11, 200), 15)?.lexical).toBeLessThan(0.1);
  });

  test("is not there without a hundred passages by meaning, without words in common, without known words", () => {
    expect(rankingFalls(falling(0.7, 0.4, 99), falling(12, 6), 15)).toBeUndefined();
    expect(rankingFalls(falling(0.7, 0.4), [], 15)).toBeUndefined();
    expect(rankingFalls(falling(0.7, 0.4), falling(12, 6), 0)).toBeUndefined();
  });
});

test("the frequency mass of a query counts a word as often as it is said, and only words that are there", () => {
  const index = new Bm25Index({ analyzer: createAnalyzer({ stopWords: [], stem: false }) });
  for (const [row, text] of ["cat dog", "cat", "bird", "fish"].entries()) index.upsert(row, text);
  // N = 4. cat is in 2: ln(1 + 2.5 / 2.5) = ln 2. dog is in 1: ln(1 + 3.5 / 1.5) = ln(10 / 3).
  expect(index.frequencyMass("cat cat dog unicorn")).toBeCloseTo(2 * Math.log(2) + Math.log(10 / 3), 12);
  expect(index.frequencyMass("unicorn")).toBe(0);
  index.delete(0);
  // N = 3, and no dog is left; cat is in 1: ln(1 + 2.5 / 1.5) = ln(8 / 3).
  expect(index.frequencyMass("cat dog")).toBeCloseTo(Math.log(8 / 3), 12);
});

describe("an automatic mix", () => {
  const [dense, lexical] = [falling(0.9, 0.3), falling(12, 11, 100, 50)];
  const usual = { asked: 64, fall: 0.3, passages: 640 };

  test("is the mix with the weight of the query, not the even one", () => {
    const weight = queryWeight(rankingFalls(dense, lexical, 15)!);
    expect(autoMix(usual, 15)(dense, lexical)).toEqual({ ranked: mix(dense, lexical, { weight }), weight });
    expect(autoMix(usual, 15)(dense, lexical).ranked).not.toEqual(mix(dense, lexical, { weight: 0.5 }));
  });

  test("is even where nothing was chosen, or the query gives nothing to choose by", () => {
    const weight = 0.5;
    expect(autoMix(undefined, 15)(dense, lexical)).toEqual({ ranked: mix(dense, lexical, { weight }), weight });
    const short = dense.slice(0, 20);
    expect(autoMix(usual, 15)(short, lexical)).toEqual({ ranked: mix(short, lexical, { weight }), weight });
  });

  test("stretches cosines that lie closer together than those it was fitted on, and the other way round", () => {
    expect(fallScale(usual)).toBe(1);
    expect(fallScale({ asked: 64, fall: 0.08, passages: 640 })).toBeCloseTo(2, 12);
    expect(fallScale({ asked: 64, fall: 1.02, passages: 640 })).toBeCloseTo(0.5, 12);
    // Cosines of a tenth of the spread, of a corpus that says so, are weighed alike.
    const close = dense.map(({ id, score }) => ({ id, score: 0.8 + score / 10 }));
    const [wide, narrow] = [
      autoMix({ asked: 64, fall: 0.16, passages: 640 }, 15),
      autoMix({ asked: 64, fall: 0.016, passages: 640 }, 15),
    ];
    const scores = ({ ranked }: Fused) => ranked.map(({ score }) => Number(score.toFixed(9)));
    expect(scores(narrow(close, lexical))).toEqual(scores(wide(dense, lexical)));
    expect(scores(wide(close, lexical))).not.toEqual(scores(wide(dense, lexical)));
  });
});

describe("what is chosen for a corpus", () => {
  /** Unit rows all around a circle, `radius` of it in the plane of the last two components. */
  async function circle(count: number, radius = 1): Promise<[VectorIndex, BaseVectors, Uint32Array, number]> {
    const rows = new Float32Array(3 * count);
    for (let i = 0; i < count; i++) {
      const angle = (2 * Math.PI * i) / count;
      rows.set([Math.sqrt(1 - radius ** 2), radius * Math.cos(angle), radius * Math.sin(angle)], 3 * i);
    }
    const labels = Uint32Array.from({ length: count }, (_, i) => i);
    const vectors = naiveVectorIndex(3);
    await vectors.upsert(labels, rows);
    const read = async (of: Uint32Array) =>
      Float32Array.from([...of].flatMap((l) => [...rows.subarray(3 * l, 3 * l + 3)]));
    const drawn = labels.filter((label) => label % 7 === 3).slice(0, 64);
    return [vectors, { read }, drawn, count];
  }

  test("is how far cosines fall from the nearest neighbour to the hundredth", async () => {
    // 600 rows, 0.6° apart: the nearest other is at 0.6°, the hundredth (50 to each side) at 30°.
    const fall = Math.cos(Math.PI / 300) - Math.cos(Math.PI / 6); // 0.13392
    const chosen = await chooseFusion(...(await circle(600)));
    expect(chosen).toMatchObject({ asked: 64, passages: 600 });
    expect(chosen?.fall).toBeCloseTo(fall, 5);
    // With the same rows at half the radius, inner products of what differs are a quarter.
    expect((await chooseFusion(...(await circle(600, 0.5))))?.fall).toBeCloseTo(fall / 4, 5);
  });

  test("is nothing where vectors are nearly all alike", async () => {
    expect(await chooseFusion(...(await circle(600, 0.2)))).toBeUndefined();
  });

  test("is nothing where nobody has a hundred neighbours", async () => {
    expect(await chooseFusion(...(await circle(100)))).toBeUndefined();
    expect(await chooseFusion(...(await circle(101)))).toBeDefined();
  });

  test("is made from 500 passages on, and again at twice as many", () => {
    expect([499, 500, 5000].map((passages) => mustChoose(passages, undefined))).toEqual([false, true, true]);
    expect([300, 600, 1199, 1200].map((passages) => mustChoose(passages, 600))).toEqual([false, false, false, true]);
  });

  test("is said in a line, with what is unusual", () => {
    expect(describeFusion(undefined)).toMatch(/^fusion 0\.5 for every query: fewer than 500 passages/);
    expect(describeFusion({ asked: 64, fall: 0.3, passages: 640 })).toMatch(/64 passages.*fall by 0\.30: as usual/);
    expect(describeFusion({ asked: 64, fall: 0.08, passages: 640 })).toMatch(/multiplied by 2\.00/);
  });

  test("is read with distrust", () => {
    expect(fusionFault({ asked: 64, fall: 0.3, passages: 640 })).toBeUndefined();
    for (const fault of [
      null,
      7,
      {},
      { asked: 0, fall: 0.3, passages: 640 },
      { asked: 64, fall: 0, passages: 640 },
      { asked: 64, fall: "0.3", passages: 640 },
      { asked: 64, fall: Number.NaN, passages: 640 },
      { asked: 64, fall: 3, passages: 640 },
      { asked: 64, fall: 0.3 },
      { asked: 64, fall: 0.3, passages: 0.5 },
      { asked: 64, fall: 0.3, passages: 640, more: 1 },
    ]) {
      expect(fusionFault(fault)).toMatch(/fusion that is none/);
    }
  });
});

describe("passages that are drawn", () => {
  const passages = (count: number) => Array.from({ length: count }, (_, i) => ({ start: i, end: i + 1 }));
  const store = (ids: readonly string[], counts: (id: string) => number): DocumentStore => {
    const documents = new DocumentStore();
    for (const id of ids) documents.append({ id, text: "x".repeat(9) }, passages(counts(id)));
    return documents;
  };
  const named = (documents: DocumentStore, labels: Uint32Array): string[] =>
    [...labels].map((label) => {
      const { number, position } = documents.locate(label);
      return `${documents.idOf(number)} ${position}`;
    });

  test("are those of the smallest lots, as another program computed them", async () => {
    // Python: FNV-1a over the UTF-16 units of f"{passage} {document}", then murmur3's finaliser: 1102d036, 14aca26d, 39380366, 3a25e7cc, 4e3f3298, 9b1813e8
    const documents = store(["a", "b", "été", "d e"], (id) => (id === "b" ? 3 : 1));
    expect(named(documents, await drawPassages(documents, 6))).toEqual(["été 0", "b 2", "b 1", "d e 0", "b 0", "a 0"]);
    expect(named(documents, await drawPassages(documents, 2))).toEqual(["été 0", "b 2"]);
    expect(drawLevel("été", 0)).toBe(3);
    expect(drawLevel("a", 0)).toBe(0);
  });

  test("are left over when the corpus is halved again and again", () => {
    const levels = Array.from({ length: 4096 }, (_, i) => drawLevel(`d${i >> 2}`, i & 3));
    for (let level = 0; level <= 5; level++) {
      const share = levels.filter((each) => each >= level).length / 4096;
      expect(Math.abs(share * 2 ** level - 1)).toBeLessThan(0.3);
    }
  });

  test("are the same in whatever order a corpus came, and whatever was deleted from it", async () => {
    const ids = Array.from({ length: 1000 }, (_, i) => `d${i}`);
    const forward = store(ids, (id) => id.length % 3);
    const backward = store([...ids].reverse(), (id) => id.length % 3);
    const drawn = named(forward, await drawPassages(forward, 64));
    expect(drawn).toHaveLength(64);
    expect(named(backward, await drawPassages(backward, 64))).toEqual(drawn);
    // Deleted, the first makes room for the next one.
    const [first] = drawn;
    forward.remove(forward.numberOf(first!.split(" ")[0]!)!);
    const less = named(forward, await drawPassages(forward, 64));
    expect(less).not.toContain(first);
    expect(less.slice(0, 60)).toEqual(drawn.filter((name) => name.split(" ")[0] !== first!.split(" ")[0]).slice(0, 60));
    // The control: they aren't the first ones of either order.
    expect(drawn.filter((name) => Number(name.slice(1).split(" ")[0]) < 100).length).toBeLessThan(10);
  });

  test("are all there are in a small corpus", async () => {
    const documents = store(["a", "b"], () => 2);
    expect(await drawPassages(documents, 64)).toHaveLength(4);
    expect(
      await drawPassages(
        store([], () => 1),
        64,
      ),
    ).toHaveLength(0);
  });
});
