import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { DEFAULT_ADAPT, DocumentCounter, drawDocuments, writeAdaptation } from "./adaptation.js";

const ids = (count: number) => Array.from({ length: count }, (_, i) => `d${i}`);
const draw = (count: number, differentTitles: number, minutes: number, seed = 0, titleOverlap = 0.8) =>
  drawDocuments({ ids: ids(count), differentTitles, titleOverlap }, { heldBack: 0.1, minutes, seed });

test("of a large corpus as many documents are trained on as the time is enough for", () => {
  // 20 minutes: 20,000 pairs. A document gives one by its title and, if it is a single sentence, one by lexical: 10,000 documents.
  const drawn = draw(30_000, 30_000, 20);
  expect(drawn).toMatchObject({ perDocument: 1, titles: true, documents: 30_000 });
  expect(drawn.held.size).toBe(3000);
  expect(drawn.trained.size).toBe(10_000);
  for (const id of drawn.trained) expect(drawn.held.has(id)).toBe(false);
  // Titles that many documents share are left out: 20,000 documents.
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
  // 180 documents, 20,000 pairs: 55 a document and method, and at most 4.
  const drawn = draw(200, 0, 20);
  expect(drawn).toMatchObject({ perDocument: 4, titles: false });
  expect(drawn.trained.size).toBe(180);
  // 4,500 documents: 20,000 / (2 · 4,500) is 2.
  expect(draw(5000, 0, 20)).toMatchObject({ perDocument: 2 });
  expect(draw(10_000, 0, 20)).toMatchObject({ perDocument: 1 });
});

test("equal seeds draw alike; too few documents are refused with what to do", () => {
  expect(draw(50, 0, 1, 7)).toEqual(draw(50, 0, 1, 7));
  expect(draw(50, 0, 1, 7).held).not.toEqual(draw(50, 0, 1, 8).held);
  expect(() => draw(10, 0, 20)).toThrow(
    "of 10 documents 1 would be held back, too few to learn from and to measure on.",
  );
});

test("trains words and sentences within a spectral context, unless layers of the model read a context themselves", async () => {
  const folder = await mkdtemp(join(tmpdir(), "cde-cli-"));
  try {
    await writeFile(join(folder, "config.json"), JSON.stringify({ num_hidden_layers: 6 }));
    const trainingOf = async (name: string) => {
      const path = await writeAdaptation({
        ...{ folder: join(folder, name), output: join(folder, "model"), model: folder, modelFolder: folder, name },
        choice: { ...DEFAULT_ADAPT, seed: 0 },
        drawn: draw(200, 0, 20),
        signal: new AbortController().signal,
        async *documents() {
          yield { id: "d0", text: "The tenant pays." };
        },
        passages: (document) => [document],
      });
      return JSON.parse(await readFile(path, "utf8")) as { data: { methods: string[] }[]; training: object };
    };
    const { data, training } = await trainingOf("biencoder");
    expect(data[0]!.methods).toEqual(["lexical", "cloze"]);
    expect(training).toMatchObject({ freeze: 4, spectral: {} });
    await writeFile(join(folder, "cde.json"), JSON.stringify({ format: 1, secondStage: "spectral" }));
    expect((await trainingOf("spectral")).training).toHaveProperty("spectral");
    await writeFile(join(folder, "cde.json"), JSON.stringify({ format: 1, secondStage: { kind: "prefix" } }));
    expect((await trainingOf("prefix")).training).not.toHaveProperty("spectral");
  } finally {
    await rm(folder, { recursive: true });
  }
});
