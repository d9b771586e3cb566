import { expect, test } from "vitest";
import { DocumentCounter, drawDocuments } from "./adaptation.js";

const ids = (count: number) => Array.from({ length: count }, (_, i) => `d${i}`);
const draw = (count: number, differentTitles: number, minutes: number, seed = 0, titleOverlap = 0.8) =>
  drawDocuments({ ids: ids(count), differentTitles, titleOverlap }, { heldBack: 0.1, minutes, seed });

test("of a large corpus as many documents are trained on as the time is enough for", () => {
  // 20 minutes: 20,000 pairs. A document gives one by its title and one by lexical: 10,000 documents.
  const drawn = draw(30_000, 30_000, 20);
  expect(drawn).toMatchObject({ perDocument: 1, titles: true, documents: 30_000 });
  expect(drawn.held.size).toBe(3000);
  expect(drawn.trained.size).toBe(10_000);
  for (const id of drawn.trained) expect(drawn.held.has(id)).toBe(false);
  // Titles that many documents share are left out: one pair each, 20,000 documents.
  expect(draw(30_000, 20_000, 20)).toMatchObject({ titles: false });
  expect(draw(30_000, 20_000, 20).trained.size).toBe(20_000);
  // So are titles that share few words with their texts.
  expect(draw(30_000, 30_000, 20, 0, 0.3)).toMatchObject({ titles: false });
});

test("counts different titles, and how much of them their texts say", () => {
  const counter = new DocumentCounter();
  counter.add({ id: "1", title: "Flood damage", text: "The tenant pays for damage by a flood." });
  counter.add({ id: "2", title: "Rule 4.2 (rent)", text: "RENT is due on the third." });
  counter.add({ id: "3", title: " Flood damage ", text: "The landlord pays for damage." });
  counter.add({ id: "4", text: "No title." });
  counter.add({ id: "5", title: " – ", text: "A title without a word." });
  // All of two words; rent of rule, 4, 2 and rent; damage of two.
  expect(counter.count).toEqual({
    ids: ["1", "2", "3", "4", "5"],
    differentTitles: 2,
    titleOverlap: (1 + 0.25 + 0.5) / 3,
  });
});

test("of a small corpus every document that isn't held back is trained on, with more pairs each", () => {
  // 180 documents, 20,000 pairs: 111 a document and at most 8.
  const drawn = draw(200, 0, 20);
  expect(drawn).toMatchObject({ perDocument: 8, titles: false });
  expect(drawn.trained.size).toBe(180);
  // 9,000 documents: 20,000 / 9,000 is 2.
  expect(draw(10_000, 0, 20)).toMatchObject({ perDocument: 2 });
});

test("equal seeds draw alike; too few documents are refused with what to do", () => {
  expect(draw(50, 0, 1, 7)).toEqual(draw(50, 0, 1, 7));
  expect(draw(50, 0, 1, 7).held).not.toEqual(draw(50, 0, 1, 8).held);
  expect(() => draw(10, 0, 20)).toThrow(
    "of 10 documents 1 would be held back, too few to learn from and to measure on.",
  );
});
