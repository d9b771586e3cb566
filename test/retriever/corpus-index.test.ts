import { chmod, cp, mkdtemp, readdir, readFile, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CdeError, type Embedder, FingerprintMismatchError } from "@cde-js/core";
import { type BuildProgress, type CorpusDocument, CorpusIndex, splitText } from "@cde-js/retriever";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";

const embedder = stubEmbedder();
const corpus: CorpusDocument[] = [
  { id: "flood", text: "The tenant pays for flood damage. The landlord pays for the roof.", metadata: { year: 2020 } },
  { id: "pets/../ü 🐈", title: "House rules", text: "Cats are welcome. Dogs must be on a lead." },
  { id: "blank", text: " \n " },
  { id: "only a title", title: "Parking permits", text: "" },
];

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-index-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
let folders = 0;
const newFolder = (): string => join(folder, `i${folders++}`);

async function all(index: CorpusIndex): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of index.documents()) documents.push(document);
  return documents;
}

describe("a built index", () => {
  test("finds the passage, with its place in the document, its text and metadata", async () => {
    await using index = await CorpusIndex.build(embedder, corpus, { split: { maxTokens: 9 } });
    const [best, next] = await index.search("who pays for flood damage", { k: 2 });
    expect(best).toMatchObject({ id: "flood", text: "The tenant pays for flood damage.", metadata: { year: 2020 } });
    expect(best?.passage).toEqual({ start: 0, end: 33 });
    expect(best?.score).toBeGreaterThan(next?.score as number);
    expect(corpus[0]?.text.slice(next?.passage.start, next?.passage.end)).toBe(next?.text);
    expect((await index.search("dogs on a lead"))[0]).toMatchObject({ id: "pets/../ü 🐈", title: "House rules" });
    expect(index).toMatchObject({
      fingerprint: embedder.fingerprint,
      modelId: embedder.modelId,
      dimensions: 64,
      count: 4,
    });
  });

  test("scores the cosine of query and passage, the title embedded before it", async () => {
    await using index = await CorpusIndex.build(embedder, corpus);
    const query = "cats in the house";
    const hits = await index.search(query, { k: 10, mode: "dense" });
    for (const hit of hits) {
      const text = `${hit.title ?? ""} ${hit.text}`.trim();
      const [a, b] = [await embedder.embedQuery(query), await embedder.embedQuery(text)];
      expect(hit.score).toBeCloseTo(
        a.reduce((sum, x, i) => sum + x * (b[i] as number), 0),
        6,
      );
    }
    expect(hits.map(({ score }) => score)).toEqual(hits.map(({ score }) => score).sort((a, b) => b - a));
    // A document without text is found by its title; one of white space not at all.
    expect(hits).toHaveLength(3);
    expect((await index.search("parking permits"))[0]).toMatchObject({
      id: "only a title",
      passage: { start: 0, end: 0 },
    });
    expect(index.report).toMatchObject({ documents: 4, passages: 3, withoutPassages: ["blank"], truncated: [] });
  });

  test("gives documents back, by id and in order, and not what the caller changed since", async () => {
    const own = structuredClone(corpus) as { id: string; text: string; metadata?: { year: number } }[];
    await using index = await CorpusIndex.build(embedder, own);
    (own[0]?.metadata as { year: number }).year = 1;
    const [hit] = await index.search("flood damage");
    (hit?.metadata as { year: number }).year = 2;
    expect(await all(index)).toEqual(corpus);
    expect(await index.get("pets/../ü 🐈")).toEqual(corpus[1]);
    expect(await index.get("nobody")).toBeUndefined();
  });

  test("takes any iterable, and an empty one", async () => {
    async function* stream(): AsyncGenerator<CorpusDocument> {
      yield* corpus;
    }
    for (const source of [corpus, new Set(corpus), stream()]) {
      await using index = await CorpusIndex.build(embedder, source);
      expect(index.count).toBe(4);
    }
    await using empty = await CorpusIndex.build(embedder, []);
    expect(await empty.search("anything")).toEqual([]);
    const directory = newFolder();
    await empty.save(directory);
    await using opened = await CorpusIndex.open(directory, embedder);
    expect([opened.count, await opened.search("anything")]).toEqual([0, []]);
  });

  test("splits long texts, so that the embedder never cuts, titles included", async () => {
    const text = Array.from({ length: 900 }, (_, i) => `word${i}${i % 11 === 0 ? "." : ""}`).join(" ");
    const documents = [
      { id: "a", title: "A title of five words", text },
      { id: "b", title: "long ".repeat(20), text },
    ];
    await using index = await CorpusIndex.build(embedder, documents, { split: { overlap: 4 } });
    expect(index.report).toMatchObject({ truncated: [], titlesLeftOut: ["b"] });
    expect(index.passageCount).toBeGreaterThan(60);
    // The control: unsplit, both are cut.
    await using whole = await CorpusIndex.build(embedder, documents, { split: false });
    expect(whole.report).toMatchObject({ passages: 2, truncated: ["a", "b"] });
  });

  test("takes a splitter of one's own, and refuses passages outside the text", async () => {
    const lines = ({ text }: CorpusDocument): { start: number; end: number }[] => [{ start: 4, end: text.length }];
    await using index = await CorpusIndex.build(embedder, [{ id: "a", text: "The end" }], { split: lines });
    expect((await index.search("end"))[0]).toMatchObject({ text: "end", passage: { start: 4, end: 7 } });
    const outside = CorpusIndex.build(embedder, [{ id: "a", text: "x" }], { split: () => [{ start: 0, end: 2 }] });
    await expect(outside).rejects.toThrow(/passage 0 to 2 of document "a" \(position 0\) is not inside its 1 units/);
  });

  test("reports progress that rises to 1, and stops at once when aborted, leaving no files", async () => {
    const documents = Array.from({ length: 3000 }, (_, i) => ({ id: String(i), text: `text ${i}` }));
    const seen: BuildProgress[] = [];
    await using index = await CorpusIndex.build(embedder, documents, { onProgress: (progress) => seen.push(progress) });
    expect(seen.at(-1)).toEqual({ documents: 3000, passages: 3000, embedded: 3000, fraction: 1 });
    const fractions = seen.map(({ fraction }) => fraction as number);
    expect(fractions).toEqual(fractions.toSorted((a, b) => a - b));
    expect(new Set(fractions).size).toBeGreaterThan(100);
    expect(index.count).toBe(3000);

    const controller = new AbortController();
    const directory = newFolder();
    const onProgress = ({ embedded }: BuildProgress): void => {
      if (embedded > 100) controller.abort(new Error("enough"));
    };
    const build = CorpusIndex.build(embedder, documents, { directory, signal: controller.signal, onProgress });
    await expect(build).rejects.toThrow("enough");
    expect(await readdir(directory)).toEqual([]);
  });
});

describe("refuses", () => {
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  const bad: [string, unknown, RegExp][] = [
    ["a document that is none", "text", /position 1 is a string, expected \{ id, text \}/],
    ["a number as id", { id: 7, text: "" }, /position 1 has an id that is a number/],
    ["an empty id", { id: "", text: "" }, /position 1 has an empty id/],
    ["a lone surrogate in an id", { id: "\ud800", text: "" }, /lone surrogate at 0/],
    ["a missing text", { id: "x" }, /position 1 \(id "x"\) has a text that is undefined, expected a string/],
    ["a lone surrogate in a text", { id: "x", text: "a\udc00" }, /lone surrogate at 1/],
    ["a title that is no string", { id: "x", text: "", title: 1 }, /title that is a number/],
    ["metadata that is a list", { id: "x", text: "", metadata: [] }, /metadata that is an array/],
    ["NaN in metadata", { id: "x", text: "", metadata: { a: [Number.NaN] } }, /metadata\.a\[0\] is NaN/],
    ["a date in metadata", { id: "x", text: "", metadata: { a: new Date(0) } }, /metadata\.a is a Date/],
    ["undefined in metadata", { id: "x", text: "", metadata: { a: undefined } }, /metadata\.a is undefined/],
    ["a bigint in metadata", { id: "x", text: "", metadata: { a: 1n } }, /metadata\.a is a bigint/],
    ["a circle in metadata", { id: "x", text: "", metadata: circle }, /nested deeper than 64/],
    ["an id that came before", { id: "flood", text: "" }, /position 1 has the id "flood" of the one at 0/],
  ];
  test.each(bad)("%s, with its position", async (_, document, message) => {
    const build = CorpusIndex.build(embedder, [corpus[0], document] as CorpusDocument[]);
    await expect(build).rejects.toMatchObject({
      code: "INVALID_INPUT",
      position: 1,
      message: expect.stringMatching(message),
    });
  });

  test("documents that can't be iterated", async () => {
    for (const documents of [undefined, {}, "abc"]) {
      await expect(CorpusIndex.build(embedder, documents as never)).rejects.toThrow(/must be an iterable/);
    }
  });

  const faulty: [string, (vector: Float32Array) => Float32Array[], RegExp][] = [
    ["of another dimension", (v) => [v.subarray(1)], /has 63 components, expected 64/],
    ["with NaN", (v) => [v.map((x, i) => (i === 3 ? Number.NaN : x))], /has NaN at component 3/],
    ["of zeros", (v) => [v.map(() => 0)], /zero everywhere/],
    ["too many", (v) => [v, v], /gave 2 vectors for 1 texts/],
  ];
  test.each(faulty)("an embedder's vectors %s, and writes no index", async (_, spoil, message) => {
    const broken: Embedder = {
      ...embedder,
      embedDocuments: async (texts) => ({
        vectors: spoil((await embedder.embedDocuments(texts)).vectors[0]!),
        truncated: [],
      }),
    };
    const directory = newFolder();
    const build = CorpusIndex.build(broken, [corpus[0] as CorpusDocument], { directory });
    await expect(build).rejects.toMatchObject({ code: "RUNTIME", message: expect.stringMatching(message) });
    await expect(CorpusIndex.open(directory, embedder)).rejects.toMatchObject({ code: "MISSING_FILE" });
  });

  test("an embedder that can't count tokens, unless nothing has to be split by them", async () => {
    const { countTokens: _, ...remote } = embedder;
    await expect(CorpusIndex.build(remote, corpus)).rejects.toThrow(/can't count tokens.*split: false/);
    await using index = await CorpusIndex.build(remote, corpus, { split: false });
    expect(index.passageCount).toBe(3);
    await expect(CorpusIndex.build(embedder, corpus, { split: { maxTokens: 33 } })).rejects.toThrow(
      /33 tokens.*reads 32/,
    );
  });

  test("blank queries, queries that are no text, a bad k, and everything after closing", async () => {
    const index = await CorpusIndex.build(embedder, corpus);
    await expect(index.search("  ")).rejects.toThrow(/the query is blank/);
    await expect(index.search(7 as never)).rejects.toThrow(/the query is a number/);
    await expect(index.search("\ud800")).rejects.toThrow(/lone surrogate/);
    for (const k of [0, -1, 2.5, Number.NaN])
      await expect(index.search("cats", { k })).rejects.toThrow(/k must be an integer/);
    expect(await index.search("cats", { k: 1000 })).toHaveLength(3);
    await expect(index.search("cats", { signal: AbortSignal.abort(new Error("no")) })).rejects.toThrow("no");
    await index.close();
    for (const call of [index.search("cats"), index.get("flood"), index.save(newFolder()), all(index)]) {
      await expect(call).rejects.toMatchObject({ code: "INDEX_CLOSED" });
    }
  });
});

describe("a saved index", () => {
  const query = "who pays for the roof";

  test.each(["float32", "int8"] as const)(
    "answers as before, built in memory or into the folder (%s rows)",
    async (rows) => {
      await using built = await CorpusIndex.build(embedder, corpus, { rows });
      const expected = await built.search(query);
      const [saved, direct] = [newFolder(), newFolder()];
      await built.save(saved);
      await using inFolder = await CorpusIndex.build(embedder, corpus, { directory: direct, rows });
      expect(await inFolder.search(query)).toEqual(expected);
      expect(inFolder.report?.passages).toBe(3);
      const vectors = async (directory: string): Promise<Buffer> => readFile(join(directory, "vectors-000001.f32"));
      expect((await vectors(saved)).equals(await vectors(direct))).toBe(true);
      for (const directory of [saved, direct]) {
        await using opened = await CorpusIndex.open(directory, embedder, { rows });
        expect(await opened.search(query)).toEqual(expected);
        expect(await all(opened)).toEqual(corpus);
        // Into the folder that it was opened from.
        await opened.save(directory);
        expect((await readdir(directory)).toSorted()).toEqual([
          "documents-000002.bin",
          "lexical-000002.bm25",
          "manifest.json",
          "vectors-000002.f32",
        ]);
        expect(await opened.search(query)).toEqual(expected);
        await using again = await CorpusIndex.open(directory, embedder, { rows });
        expect(await again.search(query)).toEqual(await opened.search(query));
      }
    },
  );

  test("is refused with an embedder of another context, with both fingerprints", async () => {
    const directory = newFolder();
    await using index = await CorpusIndex.build(embedder, corpus, { directory });
    const other = stubEmbedder({ context: "legal" });
    const refused = CorpusIndex.open(directory, other);
    await expect(refused).rejects.toBeInstanceOf(FingerprintMismatchError);
    await expect(refused).rejects.toMatchObject({ expected: embedder.fingerprint, actual: other.fingerprint });
    await expect(refused).rejects.toThrow(index.fingerprint);
    const liar: Embedder = { ...stubEmbedder({ dimensions: 32 }), fingerprint: embedder.fingerprint };
    await expect(CorpusIndex.open(directory, liar)).rejects.toThrow(/64 dimensions.*32/);
  });

  test("is missed, unreadable or linked with a typed error each", async () => {
    const directory = newFolder();
    await using index = await CorpusIndex.build(embedder, corpus, { directory });
    const open = (path: string): Promise<CorpusIndex> => CorpusIndex.open(path, embedder);
    await expect(open(join(directory, "not-there"))).rejects.toMatchObject({ code: "MISSING_FILE" });
    await expect(open(join(directory, "manifest.json"))).rejects.toMatchObject({ code: "MISSING_FILE" });
    for (const name of await readdir(directory)) {
      const copy = newFolder();
      await cp(directory, copy, { recursive: true });
      await unlink(join(copy, name));
      await expect(open(copy), name).rejects.toMatchObject({ code: "MISSING_FILE" });
      await symlink(join(directory, name), join(copy, name));
      await expect(open(copy), name).rejects.toMatchObject({ code: "CORRUPT_FILE", message: /not a regular file/ });
      // Saving replaces the link and doesn't write through it.
      const before = await readFile(join(directory, name));
      if (name === "manifest.json") await index.save(copy);
      expect(await readFile(join(directory, name))).toEqual(before);
    }
    const file = newFolder();
    await writeFile(file, "a file");
    await expect(index.save(file)).rejects.toBeInstanceOf(CdeError);
  });

  test.skipIf(process.getuid?.() === 0)("can't go to a read-only folder (skipped for root, who may)", async () => {
    const directory = newFolder();
    await using index = await CorpusIndex.build(embedder, corpus, { directory });
    await chmod(directory, 0o555);
    await expect(index.save(directory)).rejects.toMatchObject({ code: "STORAGE", errno: "EACCES" });
    await using opened = await CorpusIndex.open(directory, embedder);
    expect(opened.count).toBe(4);
    await chmod(directory, 0o755);
  });

  test("refuses a second writer while one builds, and readers read on", async () => {
    const directory = newFolder();
    await using index = await CorpusIndex.build(embedder, corpus, { directory });
    async function* slow(): AsyncGenerator<CorpusDocument> {
      await expect(index.save(directory)).rejects.toMatchObject({ code: "INDEX_LOCKED", pid: process.pid });
      await using one = await CorpusIndex.open(directory, embedder);
      await using two = await CorpusIndex.open(directory, embedder);
      expect(await one.search("cats")).toEqual(await two.search("cats"));
      yield { id: "new", text: "Cats only." };
    }
    await using rebuilt = await CorpusIndex.build(embedder, slow(), { directory });
    expect(rebuilt.count).toBe(1);
    // The index that was open before still answers from what it holds.
    expect(await index.search("flood damage", { k: 1 })).toMatchObject([{ id: "flood" }]);
  });
});

test("the event loop keeps turning while a document of 10 MB is split", async () => {
  const text = "The party of the first part pays for the flood. ".repeat(220_000);
  const quick: Embedder = {
    ...stubEmbedder({ dimensions: 4, maxTokens: 256 }),
    countTokens: (part) => 2 + (part.match(/\S+/g)?.length ?? 0),
    embedDocuments: async (texts) => ({ vectors: texts.map(() => Float32Array.of(1, 0, 0, 0)), truncated: [] }),
  };
  // What the split takes in one step, on this machine at this moment.
  const start = performance.now();
  const { length } = splitText(text, { countTokens: (part) => quick.countTokens!(part), maxTokens: 256 });
  const inOneStep = performance.now() - start;
  let [last, gap] = [performance.now(), 0];
  const timer = setInterval(() => {
    gap = Math.max(gap, performance.now() - last);
    last = performance.now();
  }, 1);
  await using index = await CorpusIndex.build(quick, [{ id: "long", text }]);
  clearInterval(timer);
  expect(index.passageCount).toBe(length);
  expect(length).toBeGreaterThan(8000);
  // The storing of 10 MB of JSON is one step too, but a short one.
  expect(gap).toBeLessThan(inOneStep / 2);
});
