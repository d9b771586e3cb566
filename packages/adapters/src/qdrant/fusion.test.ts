/** When passages are counted and asked again, with a collection that only counts what it is asked. */
import type { AutoFusion } from "@cde-js/retriever";
import { expect, test } from "vitest";
import type { QdrantCollection } from "./collection.js";
import type { DocumentPoints } from "./documents.js";
import { frequencyMass, rarityOf, ServerFusion } from "./fusion.js";
import type { GenerationEmbedder } from "./source.js";

const generation = { vector: "v", embedder: { dimensions: 2 } } as GenerationEmbedder;

test("who only reads counts again after a thousand searches, and takes what another program has chosen", async () => {
  let [passages, counted, read] = [600, 0, 0];
  let stored: AutoFusion = { asked: 64, fall: 0.3, passages: 600 };
  const documents = {
    tenant: undefined,
    count: async () => {
      counted++;
      return passages;
    },
  } as unknown as DocumentPoints;
  const target = {
    state: async () => {
      read++;
      const vectors = new Map([["v", { size: 2, distance: "Cosine" }]]);
      return { strict: { queryLimit: 99 }, fusion: new Map([["v", stored]]), vectors };
    },
  } as unknown as QdrantCollection;
  const fusion = new ServerFusion(target, documents, { chosen: new Map([["v", stored]]), parameters: {} });
  const first = stored;
  for (let i = 0; i < 1000; i++) expect(await fusion.of(generation)).toBe(first);
  expect([counted, read]).toEqual([1, 0]);
  // It grew, and somebody asked its passages.
  [passages, stored] = [1300, { asked: 64, fall: 0.2, passages: 1250 }];
  expect(await fusion.of(generation)).toBe(stored);
  expect(fusion.known("v")).toBe(stored);
  for (let i = 1; i < 1000; i++) await fusion.of(generation);
  expect([counted, read]).toEqual([2, 1]);
  // After a write of its own at once, and once for all that wait.
  fusion.recount();
  await Promise.all([fusion.of(generation), fusion.of(generation)]);
  expect([counted, read]).toEqual([3, 1]);
});

test("a word is as rare as its score over its weight, and a query's words count as often as it says them", () => {
  // N = 4, n = 2: ln(1 + 2.5 / 2.5) = 0.693147; weighed 1.2 in the best passage.
  const sparse = new Map([["bm25", { indices: [3, 7], values: [0.4, 1.2] }]]);
  const best = { id: 1, payload: {}, vectors: new Map(), sparse, score: 1.2 * Math.LN2 };
  expect(rarityOf(7, [best], 1.9)).toBeCloseTo(Math.LN2, 12);
  expect(rarityOf(7, [], 1.9)).toBe(0);
  expect(() => rarityOf(8, [best], 1.9)).toThrow(/weighs it NaN/);
  expect(() => rarityOf(7, [best], 1.1)).toThrow(/weighs it 1.2/);
  expect(frequencyMass({ indices: [3, 7], values: [1, 2] }, [0.5, Math.LN2])).toBeCloseTo(0.5 + 2 * Math.LN2, 12);
});
