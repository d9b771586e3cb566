import { expect, test } from "vitest";
import { InvalidInputError } from "../errors.js";
import { createRandom } from "../random.js";
import { exactSearch } from "./exact-search.js";

const random = createRandom(5);
/** Small integers, so that products are exact and many are equal. */
const vectors = (count: number) =>
  Array.from({ length: count }, () => Float32Array.from({ length: 7 }, () => random.integer(5) - 2));
const queries = vectors(150);
const documents = vectors(333);

test("finds what sorting all products finds, equal ones in the order of documents, for any k", async () => {
  for (const k of [1, 10, 400]) {
    const found = await exactSearch(queries, documents, { k });
    expect(found).toHaveLength(150);
    found.forEach(({ positions, scores }, q) => {
      const all = documents
        .map((document, position) => ({
          position,
          score: document.reduce((sum, value, i) => sum + value * queries[q]![i]!, 0),
        }))
        .sort((a, b) => b.score - a.score || a.position - b.position)
        .slice(0, k);
      expect(positions).toEqual(all.map(({ position }) => position));
      expect(scores).toEqual(all.map(({ score }) => score));
    });
  }
});

test("an empty corpus gives empty lists, no queries none", async () => {
  expect(await exactSearch(queries.slice(0, 1), [], { k: 3 })).toEqual([{ positions: [], scores: [] }]);
  expect(await exactSearch([], documents, { k: 3 })).toEqual([]);
});

test("refuses vectors of two dimensions and numbers that aren't finite, with the position", async () => {
  const bad = [...documents.slice(0, 2), Float32Array.of(1, 2)];
  await expect(exactSearch(queries, bad, { k: 1 })).rejects.toMatchObject({ position: 2 });
  const infinite = [Float32Array.from({ length: 7 }, () => Number.POSITIVE_INFINITY)];
  await expect(exactSearch(infinite, documents, { k: 1 })).rejects.toBeInstanceOf(InvalidInputError);
});
