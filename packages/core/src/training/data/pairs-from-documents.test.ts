import { describe, expect, test } from "vitest";
import type { PairRecord } from "./pair-record.js";
import {
  countDocumentFrequencies,
  type PairsFromDocumentsOptions,
  pairsFromDocuments,
  type UnlabelledDocument,
} from "./pairs-from-documents.js";

const sentence = (i: number) => `Sentence number ${i} has exactly seven words.`;
const text = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => sentence(from + i)).join(" ");
const documents: UnlabelledDocument[] = [
  { id: "a", title: " The lease ", text: text(0, 8) },
  { id: "b", text: text(8, 9) },
  { id: "c", title: "Rent", text: text(9, 21) },
];

async function all(options: PairsFromDocumentsOptions, of: readonly UnlabelledDocument[] = documents) {
  const found: PairRecord[] = [];
  for await (const record of pairsFromDocuments(of, options)) found.push(record);
  return found;
}

describe("unsupervised pairs", () => {
  test("a title asks for its text; documents without one are reported", async () => {
    const skipped: string[] = [];
    const pairs = await all({ dataset: "s", onSkipped: ({ id, method }) => skipped.push(`${id} ${method}`) });
    expect(pairs).toEqual([
      { id: "a/title", dataset: "s", group: "a", query: "The lease", positive: text(0, 8) },
      { id: "c/title", dataset: "s", group: "c", query: "Rent", positive: text(9, 21) },
    ]);
    expect(skipped).toEqual(["b title"]);
  });

  test("neighbours are spans of whole sentences that follow each other", async () => {
    // Seven words a sentence: 14 words are two sentences. Document a has four spans and three places.
    const pairs = await all({ methods: ["neighbours"], spanWords: 14, perDocument: 9 });
    expect(pairs.filter(({ group }) => group === "a").map(({ query, positive }) => [query, positive])).toEqual([
      [text(0, 2), text(2, 4)],
      [text(2, 4), text(4, 6)],
      [text(4, 6), text(6, 8)],
    ]);
    expect(pairs.filter(({ group }) => group === "b")).toEqual([]);
  });

  test("a cloze takes its sentence out of the span, and leaves it there as often as asked", async () => {
    const many = Array.from({ length: 300 }, (_, i) => ({ id: `${i}`, text: text(10 * i, 10 * i + 6) }));
    const kept = async (keepSentence: number) => {
      const pairs = await all({ methods: ["cloze"], spanWords: 42, keepSentence }, many);
      expect(pairs.length).toBe(300);
      for (const { id, query, positive } of pairs) {
        const whole = text(10 * Number.parseInt(id!, 10), 10 * Number.parseInt(id!, 10) + 6);
        expect(whole).toContain(query);
        expect([whole, whole.replace(query, "").replace(/ {2}/, " ").trim()]).toContain(positive);
      }
      return pairs.filter(({ query, positive }) => positive.includes(query)).length;
    };
    expect(await kept(0)).toBe(0);
    expect(await kept(1)).toBe(300);
    const some = await kept(0.1); // 30 expected, standard deviation 5.2
    expect(some).toBeGreaterThan(9);
    expect(some).toBeLessThan(51);
  });

  test("a document's frequencies count each of its words once, of the title too", async () => {
    const frequencies = await countDocumentFrequencies([
      { title: "Rent due", text: "The rent, the RENT and a co-tenant's rent." },
      { text: "Rent is due on day 12 or 2024." },
    ]);
    expect(Object.fromEntries(frequencies)).toEqual({
      ...{ rent: 2, due: 2, the: 1, and: 1, "co-tenant's": 1, day: 1, "2024": 1 },
    });
    await expect(countDocumentFrequencies([{ title: "x" } as UnlabelledDocument])).rejects.toMatchObject({
      position: 0,
    });
  });

  test("lexical asks for a span by some of its rarest words, or by words in a row", async () => {
    const common = Array.from({ length: 20 }, (_, i) => `common${String.fromCharCode(97 + i)}`);
    const many = Array.from({ length: 200 }, (_, i) => {
      const rare = Array.from({ length: 12 }, (_, j) => `only${i}x${j}`);
      return { id: `${i}`, text: `${common.map((word, j) => `${word} ${rare[j] ?? ""}`.trim()).join(" ")}.` };
    });
    const documentFrequencies = await countDocumentFrequencies(many);
    const pairs = await all({ methods: ["lexical"], documentFrequencies }, many);
    expect(pairs.length).toBe(200);
    let inARow = 0;
    const lengths = new Set<number>();
    for (const { id, query, positive } of pairs) {
      expect(positive).toBe(many[Number.parseInt(id!, 10)]!.text);
      const words = query.split(" ");
      if (positive.includes(query) && words.length > 4) inARow++;
      else {
        // Twelve words stand in this document alone: only those are rare.
        for (const word of words) expect(word).toMatch(new RegExp(`^only${id!.split("/")[0]}x`));
        expect(new Set(words).size).toBe(words.length);
        lengths.add(words.length);
      }
    }
    expect([...lengths].sort()).toEqual([3, 4, 5, 6]);
    expect(inARow).toBeGreaterThan(70); // 100 expected, standard deviation 7
    expect(inARow).toBeLessThan(130);
    // Control: where the frequencies say otherwise, other words are rare.
    const turned = new Map([...documentFrequencies].map(([word, count]) => [word, -count]));
    const others = await all({ methods: ["lexical"], documentFrequencies: turned }, many);
    expect(others.some(({ query }) => !query.includes("only") && !query.includes("commona commonb"))).toBe(true);
  });

  test("lexical passes over spans with few words", async () => {
    const skipped: string[] = [];
    const onSkipped = ({ id }: { id: string }) => skipped.push(id);
    const few = [{ id: "few", text: "Yes. No. Yes and no. Yes or no. No or yes." }];
    expect(await all({ methods: ["lexical"], documentFrequencies: new Map(), onSkipped }, few)).toEqual([]);
    expect(skipped).toEqual(["few"]);
  });

  test("a seed gives the same pairs of a document whatever else is in the stream, and another seed others", async () => {
    const options = { methods: ["neighbours", "cloze"] as const, spanWords: 14, seed: 3 };
    const whole = await all(options);
    const alone = await all(options, [documents[2]!]);
    expect(whole.filter(({ group }) => group === "c")).toEqual(alone);
    const queries = async (seed: number) => (await all({ ...options, seed })).map(({ query }) => query).join();
    expect(new Set(await Promise.all([1, 2, 3, 4].map(queries))).size).toBeGreaterThan(1);
  });

  test("refuses what is no document, no method and no number", async () => {
    await expect(all({}, [documents[0]!, { title: "x" } as UnlabelledDocument])).rejects.toMatchObject({ position: 1 });
    await expect(all({ methods: ["other" as "title"] })).rejects.toThrow("title, neighbours, cloze, lexical");
    await expect(all({ methods: ["lexical"] })).rejects.toThrow("needs documentFrequencies");
    await expect(all({ methods: [] })).rejects.toThrow("got []");
    await expect(all({ spanWords: 0 })).rejects.toThrow("spanWords must be an integer of at least 1, got 0");
    await expect(all({ keepSentence: 2 })).rejects.toThrow("from 0 to 1");
  });
});
