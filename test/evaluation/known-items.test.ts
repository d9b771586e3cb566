import { InvalidInputError } from "@cde-js/core";
import { evaluate, knownItems } from "@cde-js/core/evaluation";
import { describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";

const document = (id: string, text: string, title = "") => ({ id, title, text });
const notice = "All rights in this text are reserved by the publisher.";
const animals = ["heron", "badger", "otter", "lynx", "marten", "stoat"];
const documents = animals.map((animal, i) =>
  document(
    animal,
    `The ${animal} lives beside the river number ${i}. At night the ${animal} hunts along the bank.\n\nNobody has counted every ${animal} in the valley. ${notice}`,
  ),
);

test("a query is a sentence of its document, which no longer holds it; other documents stay whole", () => {
  const { queries, qrels, documents: left, split, synthetic } = knownItems(documents, { queries: 3, seed: 4 });
  expect(queries).toHaveLength(3);
  expect(split).toBe("synthetic");
  expect(synthetic).toContain("nobody judged");
  for (const { id, text } of queries) {
    const [[answer, judgement] = []] = [...qrels.get(id)!];
    expect(judgement).toBe(1);
    const before = documents.find((candidate) => candidate.id === answer)!;
    const after = left.find((candidate) => candidate.id === answer)!;
    expect(before.text.replace(/\s+/g, " ")).toContain(text);
    expect(after.text).not.toContain(text);
    expect(after.text.length).toBeGreaterThan(20);
    expect(after.text).toBe(after.text.trim());
  }
  const asked = new Set([...qrels.values()].flatMap((judgements) => [...judgements.keys()]));
  expect(left.filter(({ id }) => !asked.has(id))).toEqual(documents.filter(({ id }) => !asked.has(id)));
});

test("a sentence that stands in several documents is never a query", () => {
  for (let seed = 0; seed < 20; seed++)
    expect(knownItems(documents, { seed }).queries.map(({ text }) => text)).not.toContain(notice);
});

test("equal seeds draw equally, another one differently", () => {
  const texts = (seed: number) => knownItems(documents, { queries: 3, seed }).queries.map(({ text }) => text);
  expect(texts(1)).toEqual(texts(1));
  expect(new Set([0, 1, 2, 3].map((seed) => texts(seed).join("|"))).size).toBeGreaterThan(1);
});

test("a sentence wrapped over lines is one sentence", () => {
  const wrapped = "The heron stands in\nthe shallow water all day. It waits for a fish that comes too near to it.";
  const texts = [0, 1, 2, 3].map((seed) => knownItems([document("a", wrapped)], { seed }).queries[0]!.text);
  expect(new Set(texts)).toEqual(
    new Set(["The heron stands in the shallow water all day.", "It waits for a fish that comes too near to it."]),
  );
});

test("scripts without spaces have sentences too", () => {
  const { queries } = knownItems([document("a", "苍鹭站在浅水里等待小鱼。獾晚上沿着河岸寻找食物。")]);
  expect(["苍鹭站在浅水里等待小鱼。", "獾晚上沿着河岸寻找食物。"]).toContain(queries[0]!.text);
});

test("an embedder finds the rest of the documents, and a search that guesses doesn't", async () => {
  const data = knownItems(documents);
  const { mean } = await evaluate(stubEmbedder({ dimensions: 256, maxTokens: 64 }), data, { metrics: ["success@1"] });
  expect(mean["success@1"]).toBe(1);
  const guess = await evaluate(async () => [{ id: "heron", score: 1 }], data, { metrics: ["success@1"] });
  expect(guess.mean["success@1"]).toBeCloseTo(1 / 6, 12);
});

describe("refuses", () => {
  test("a corpus that can give no query", () => {
    const short = [document("a", "Too short."), document("b", "One sentence of enough words for a query alone.")];
    expect(() => knownItems(short)).toThrow(InvalidInputError);
    expect(() => knownItems(short)).toThrow("none of 2 documents");
  });

  test("a number of queries that is none", () => {
    expect(() => knownItems(documents, { queries: 0 })).toThrow("queries should be an integer of at least 1, got 0");
  });
});
