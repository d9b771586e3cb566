import fc from "fast-check";
import { expect, test } from "vitest";
import { TopK } from "./top-k.js";

test("keeps what sorting would keep, equal scores by label, in whatever order they come", () => {
  // Few different scores, so that many are equal.
  const entry = fc.record({ label: fc.nat(1000), score: fc.constantFrom(-1, -0.5, 0, 0.25, 1) });
  const entries = fc.uniqueArray(entry, { selector: ({ label }) => label, maxLength: 80 });
  fc.assert(
    fc.property(entries, fc.integer({ min: 0, max: 90 }), (list, k) => {
      const top = new TopK(k);
      for (const { label, score } of list) top.offer(label, score);
      const { labels, scores } = top.ranking();
      const sorted = list.toSorted((a, b) => b.score - a.score || a.label - b.label).slice(0, k);
      expect([...labels]).toEqual(sorted.map(({ label }) => label));
      expect([...scores]).toEqual(sorted.map(({ score }) => score));
    }),
    { numRuns: 500, seed: 1 },
  );
});
