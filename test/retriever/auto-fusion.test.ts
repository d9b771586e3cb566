/** `fusion: "auto"` through the index: chosen when it is built, saved, chosen anew with another context. */
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CorpusIndex, describeFusion } from "@cde-js/retriever";
import { afterAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";

const embedder = stubEmbedder();
const folder = await mkdtemp(join(tmpdir(), "cde-fusion-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const subjects = ["tenant", "landlord", "court", "bank", "insurer", "neighbour", "agent", "buyer"];
const deeds = ["pays for", "repairs", "forgets", "paints", "inspects", "insures", "sells", "measures", "floods"];
const things = ["the roof", "a cellar", "the garden wall", "every window", "the stairs", "one chimney", "the old gate"];
const more = ["in winter", "by law", "at night"];
const corpus = subjects.flatMap((subject) =>
  deeds.flatMap((deed) =>
    things.flatMap((thing) => more.map((when) => ({ text: `The ${subject} ${deed} ${thing} ${when}.` }))),
  ),
);
const documents = corpus.slice(0, 640).map(({ text }, i) => ({ id: `d${i}`, text }));
const query = "who floods the cellar at night?";
const even = { fusion: { kind: "mix", weight: 0.5 } } as const;

describe("an index of 640 passages", () => {
  test("chooses when it is built, and weighs a query as it says", async () => {
    await using index = await CorpusIndex.build(embedder, documents);
    expect(index.fusion).toEqual({ asked: 64, fall: expect.any(Number), passages: 640 });
    expect(describeFusion(index.fusion)).toMatch(/^fusion chosen for each query/);
    const hits = await index.search(query, { k: 20 });
    expect(hits[0]?.scoring).toBe("mix");
    expect(await index.search(query, { k: 20, fusion: "auto" })).toEqual(hits);
    const scores = hits.map(({ score }) => score);
    expect((await index.search(query, { k: 20, ...even })).map(({ score }) => score)).not.toEqual(scores);
  });

  test("says what each query weighed: the hits are those of a mix of that weight", async () => {
    await using index = await CorpusIndex.build(embedder, documents);
    const weights = [];
    for (const asked of [query, "the roof", "tenant pays for every window in winter"]) {
      const hits = await index.search(asked, { k: 640 });
      const weight = hits[0]?.scores.weight as number;
      // Also those behind the hundredth of both rankings.
      expect(hits.every(({ scores }) => scores.weight === weight)).toBe(true);
      expect(await index.search(asked, { k: 640, fusion: { kind: "mix", weight } })).toEqual(hits);
      weights.push(weight);
    }
    expect(new Set([...weights, 0.5]).size).toBe(4);
    const rerank = (_: string, hits: readonly unknown[]) => hits.map((_, i) => i);
    expect((await index.search(query, { rerank }))[0]?.scores.weight).toBe(weights[0]);
    const rrf = await index.search(query, { fusion: { kind: "rrf", k: 60 } });
    for (const hits of [
      rrf,
      await index.search(query, { mode: "dense" }),
      await index.search(query, { mode: "lexical" }),
    ]) {
      expect(hits[0]?.scores).not.toHaveProperty("weight");
    }
  });

  test("keeps the choice in its folder, also through a compaction, and says it without its model", async () => {
    const [built, saved] = [join(folder, "built"), join(folder, "saved")];
    await using index = await CorpusIndex.build(embedder, documents, { directory: built });
    await using memory = await CorpusIndex.build(embedder, documents);
    await memory.save(saved);
    expect(memory.fusion).toEqual(index.fusion);
    for (const directory of [built, saved]) {
      expect((await CorpusIndex.describe(directory)).fusion).toEqual(index.fusion);
    }
    await index.delete({ ids: documents.slice(0, 20).map(({ id }) => id) });
    await index.compact();
    expect((await CorpusIndex.describe(built)).fusion).toEqual(memory.fusion);
    await using opened = await CorpusIndex.open(saved, embedder);
    expect(opened.fusion).toEqual(memory.fusion);
    expect(await opened.search(query)).toEqual(await memory.search(query));
  });

  test("refuses a saved choice that is none", async () => {
    const directory = join(folder, "edited");
    await (await CorpusIndex.build(embedder, documents, { directory })).close();
    const path = join(directory, "manifest.json");
    const { checksum: _, ...manifest } = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
    manifest.fusion = { asked: 64, fall: -1, passages: 640 };
    const checksum = createHash("sha256").update(JSON.stringify(manifest)).digest("hex");
    await writeFile(path, JSON.stringify({ ...manifest, checksum }));
    await expect(CorpusIndex.open(directory, embedder)).rejects.toThrow(/fusion that is none/);
  });

  test("mixes evenly where a filter leaves fewer than a hundred passages", async () => {
    await using index = await CorpusIndex.build(embedder, documents);
    const filter = { must: [{ has_id: documents.slice(0, 60).map(({ id }) => id) }] };
    expect(await index.search(query, { filter })).toEqual(await index.search(query, { filter, ...even }));
  });
});

test("a small index mixes evenly, and chooses once it has grown", async () => {
  await using index = await CorpusIndex.build(embedder, documents.slice(0, 30));
  expect(index.fusion).toBeUndefined();
  expect(await index.search(query)).toEqual(await index.search(query, even));
  expect((await index.search(query))[0]?.scores.weight).toBe(0.5);
  await index.upsert(documents.slice(30));
  await Promise.all([index.search(query), index.search("the landlord")]);
  await using whole = await CorpusIndex.build(embedder, documents);
  expect(index.fusion).toEqual(whole.fusion);
});

test("an index that has doubled chooses anew, in memory and in its folder, and so doesn't depend on how it grew", async () => {
  const directory = join(folder, "doubled");
  const all = corpus.slice(0, 1200).map(({ text }, i) => ({ id: `d${i}`, text }));
  await using index = await CorpusIndex.build(embedder, all.slice(0, 560), { directory });
  const before = index.fusion;
  expect(before?.passages).toBe(560);
  await index.upsert(all.slice(560, 1100));
  await index.search(query);
  expect(index.fusion).toEqual(before);
  await index.upsert(all.slice(1100, 1120));
  await Promise.all([index.search(query), index.search("the landlord")]);
  await using whole = await CorpusIndex.build(embedder, all.slice(0, 1120).reverse());
  expect(whole.fusion?.passages).toBe(1120);
  expect(index.fusion?.passages).toBe(1120);
  expect(index.fusion?.fall).toBeCloseTo(whole.fusion!.fall, 6);
  expect(index.fusion?.fall).not.toBeCloseTo(before!.fall, 3);
  await index.compact();
  expect((await CorpusIndex.describe(directory)).fusion).toEqual(index.fusion);
});

test("an index without words chooses nothing", async () => {
  await using index = await CorpusIndex.build(embedder, documents, { lexical: false });
  await index.search(query);
  expect(index.fusion).toBeUndefined();
});
