import {
  type CorpusDocument,
  CorpusIndex,
  distributionBasedScoreFusion,
  type Filter,
  type Fusion,
  type Hit,
  type JsonObject,
  mix,
  reciprocalRankFusion,
  type SearchOptions,
} from "@cde-js/retriever";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";

const numRuns = process.env.CDE_FULL === "1" ? 1000 : 60;
const WORDS = "flood tenant landlord roof river cat dog lead garden noise rent water".split(" ");

/** 120 documents of one to three passages, some without metadata. */
function corpus(): CorpusDocument[] {
  let state = 7;
  const random = (n: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  return Array.from({ length: 120 }, (_, i) => {
    const sentences = Array.from({ length: 1 + random(3) }, () =>
      Array.from({ length: 4 + random(4) }, () => WORDS[random(WORDS.length)]).join(" "),
    );
    const metadata: JsonObject = {
      year: 2000 + random(6),
      tags: WORDS.slice(random(4), 4 + random(4)),
      open: random(2) === 0,
    };
    return { id: `d${i}`, text: `${sentences.join(". ")}.`, ...(i % 9 === 0 ? {} : { metadata }) };
  });
}

const documents = corpus();
const index = await CorpusIndex.build(stubEmbedder(), documents, { split: { maxTokens: 10 } });
afterAll(() => index.close());

/** A filter beside what it means, in plain words of TypeScript. */
type Case = readonly [filter: Filter, holds: (document: CorpusDocument) => boolean];
const tagsOf = ({ metadata }: CorpusDocument): readonly unknown[] => (metadata?.tags as unknown[] | undefined) ?? [];
const word = fc.constantFrom(...WORDS);
const year = fc.integer({ min: 1999, max: 2007 });
const condition: fc.Arbitrary<Case> = fc.oneof(
  year.map((y): Case => [{ must: { key: "year", match: { value: y } } }, (d) => d.metadata?.year === y]),
  year.map((y): Case => [{ must: [{ key: "year", range: { gte: y } }] }, (d) => Number(d.metadata?.year) >= y]),
  word.map((w): Case => [{ must: { key: "tags", match: { any: [w] } } }, (d) => tagsOf(d).includes(w)]),
  word.map((w): Case => [{ must_not: { key: "tags", match: { value: w } } }, (d) => !tagsOf(d).includes(w)]),
  fc.constant<Case>([{ must: { is_empty: { key: "year" } } }, (d) => d.metadata === undefined]),
  fc.constant<Case>([{ must: { key: "missing", match: { value: 1 } } }, () => false]),
  fc
    .uniqueArray(fc.nat(130), { maxLength: 40 })
    .map(
      (list): Case => [{ must: { has_id: list.map((n) => `d${n}`) } }, ({ id }) => list.includes(Number(id.slice(1)))],
    ),
);
const filterCase: fc.Arbitrary<Case> = fc.oneof(
  condition,
  fc.tuple(condition, condition).map(([[f, a], [g, b]]): Case => [{ must: [f, g] }, (d) => a(d) && b(d)]),
  fc.tuple(condition, condition).map(([[f, a], [g, b]]): Case => [{ should: [f, g] }, (d) => a(d) || b(d)]),
  condition.map(([f, a]): Case => [{ must_not: [f] }, (d) => !a(d)]),
);
const query = fc.array(word, { minLength: 1, maxLength: 4 }).map((words) => words.join(" "));
const ALL = 100_000;

const key = ({ id, passage }: Hit): string => `${id}@${passage.start}`;
const ranked = (hits: readonly Hit[]): { id: string; score: number }[] =>
  hits.map((hit) => ({ id: key(hit), score: hit.score }));

describe(`a filtered search equals brute force, in ${numRuns} cases`, () => {
  const byId = new Map(documents.map((document) => [document.id, document]));
  const kept = async (mode: "dense" | "lexical", text: string, [, holds]: Case): Promise<Hit[]> =>
    (await index.search(text, { mode, k: ALL })).filter(({ id }) => holds(byId.get(id) as CorpusDocument));

  test("dense and lexical: the unfiltered ranking without the others, whole or cut", async () => {
    let [some, none] = [0, 0];
    await fc.assert(
      fc.asyncProperty(filterCase, query, fc.integer({ min: 1, max: 60 }), async (filtered, text, k) => {
        for (const mode of ["dense", "lexical"] as const) {
          const expected = await kept(mode, text, filtered);
          expect(await index.search(text, { mode, k: ALL, filter: filtered[0] })).toEqual(expected);
          expect(await index.search(text, { mode, k, filter: filtered[0] })).toEqual(expected.slice(0, k));
          expected.length > 0 ? some++ : none++;
        }
      }),
      { numRuns, seed: 1 },
    );
    // The control: filters kept some, and not always.
    expect(Math.min(some, none)).toBeGreaterThan(numRuns / 20);
  });

  test("hybrid: the fusion of both rankings that brute force leaves", async () => {
    const fusions: [Fusion, (lists: ReturnType<typeof ranked>[]) => ReturnType<typeof ranked>][] = [
      [{ kind: "rrf", k: 60, depth: ALL }, (lists) => reciprocalRankFusion(lists, { k: 60 })],
      [{ kind: "dbsf", depth: 30 }, (lists) => distributionBasedScoreFusion(lists)],
      [{ kind: "mix", weight: 0.5, depth: 30 }, ([a = [], b = []]) => mix(a, b, { weight: 0.5 })],
    ];
    await fc.assert(
      fc.asyncProperty(filterCase, query, fc.constantFrom(...fusions), async (filtered, text, [fusion, fuse]) => {
        const { depth = 100 } = fusion;
        const lists = [await kept("dense", text, filtered), await kept("lexical", text, filtered)];
        const expected = fuse(lists.map((list) => ranked(list.slice(0, depth))));
        const found = await index.search(text, { fusion, k: ALL, filter: filtered[0] });
        expect(ranked(found).slice(0, expected.length)).toEqual(expected);
        // Beyond the depth, all that is left comes too.
        expect(new Set(found.map(key))).toEqual(new Set(lists[0]?.map(key)));
      }),
      { numRuns, seed: 2 },
    );
  });
});

test(`pages show each hit once, in the order of the whole, in ${numRuns} cases`, async () => {
  const options: fc.Arbitrary<SearchOptions> = fc.record(
    {
      fusion: fc.constantFrom<Fusion>(
        { kind: "rrf", k: 60 },
        { kind: "dbsf", depth: 7 },
        { kind: "mix", weight: 0.3, depth: 40 },
      ),
      mmr: fc.record({
        lambda: fc.double({ min: 0, max: 1, noNaN: true }),
        candidates: fc.integer({ min: 1, max: 80 }),
      }),
      mergeByDocument: fc.boolean(),
      scoreThreshold: fc.double({ min: 0, max: 0.5, noNaN: true }),
      filter: filterCase.map(([filter]) => filter),
    },
    { requiredKeys: [] },
  );
  const mode = fc.constantFrom("dense", "lexical", "hybrid");
  await fc.assert(
    fc.asyncProperty(query, mode, options, fc.integer({ min: 1, max: 70 }), async (text, mode, given, size) => {
      const { fusion, ...others } = given;
      const settings: SearchOptions = { ...others, mode, ...(fusion && mode === "hybrid" ? { fusion } : {}) };
      const whole = await index.search(text, { ...settings, k: ALL });
      const pages: Hit[] = [];
      for (let offset = 0; ; offset += size) {
        const page = await index.search(text, { ...settings, k: size, offset });
        pages.push(...page);
        if (page.length < size) break;
      }
      expect(pages).toEqual(whole);
      expect(new Set(pages.map(key)).size).toBe(pages.length);
      const scores = whole.map(({ score }) => score);
      if (!given.mmr) expect(scores).toEqual(scores.toSorted((a, b) => b - a));
      for (const score of scores) expect(score).toBeGreaterThanOrEqual(given.scoreThreshold ?? -1);
      if (given.mergeByDocument) expect(new Set(whole.map(({ id }) => id)).size).toBe(whole.length);
    }),
    { numRuns, seed: 3 },
  );
});
