import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { CorruptFileError } from "@cde-js/core";
import { CorpusIndex, ExactIndex, type OpenOptions, type SearchOptions, type VectorIndex } from "@cde-js/retriever";
import { afterAll, describe, expect, test } from "vitest";
import { stubEmbedder } from "../support/stub-embedder.js";

const embedder = stubEmbedder();
const documents = [
  {
    id: "flood",
    title: "Water",
    text: "The tenant pays for flood damage. The landlord pays for the roof.",
    metadata: { n: 1 },
  },
  {
    id: "pets",
    text: "Cats are welcome. Dogs must be on a lead. Damage by cats is paid by their keepers.",
    metadata: { n: 2 },
  },
  { id: "title", title: "Parking of cats", text: "" },
  { id: "long title", title: "damage ".repeat(30), text: "Nothing of the kind." },
];
const folder = await mkdtemp(join(tmpdir(), "cde-lexical-"));
afterAll(() => rm(folder, { recursive: true, force: true }));
let folders = 0;
const newFolder = (): string => join(folder, `i${folders++}`);

const searches: SearchOptions[] = [
  {},
  { mode: "dense" },
  { mode: "lexical", highlight: true },
  { fusion: { kind: "rrf", k: 60 }, mergeByDocument: true },
  { fusion: { kind: "dbsf" }, filter: { must: { key: "n", range: { gte: 1 } } } },
  { mmr: { lambda: 0.3 }, scoreThreshold: 0.1 },
  { rerank: (_, hits) => hits.map(({ text }) => text.length) },
];
const answers = (index: CorpusIndex): Promise<unknown[]> =>
  Promise.all(searches.map((options) => index.search("damage by cats", options)));

/** Edits a saved index's manifest and seals it again. */
async function editManifest(directory: string, edit: (manifest: Record<string, unknown>) => void): Promise<void> {
  const path = join(directory, "manifest.json");
  const { checksum: _, ...manifest } = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  edit(manifest);
  const checksum = createHash("sha256").update(JSON.stringify(manifest)).digest("hex");
  await writeFile(path, JSON.stringify({ ...manifest, checksum }));
}

describe("a saved index with a lexical part", () => {
  test.each(["float32", "int8"] as const)("gives the same hits in every mode when opened (%s rows)", async (rows) => {
    const [saved, direct] = [newFolder(), newFolder()];
    const options = { rows, split: { maxTokens: 12 } };
    await using built = await CorpusIndex.build(embedder, documents, options);
    await built.save(saved);
    await using inFolder = await CorpusIndex.build(embedder, documents, { ...options, directory: direct });
    const expected = await answers(built);
    expect(new Set(expected.map((hits) => JSON.stringify(hits))).size).toBe(searches.length);
    expect(await answers(inFolder)).toEqual(expected);
    for (const directory of [saved, direct]) {
      await using opened = await CorpusIndex.open(directory, embedder, { rows });
      expect(await answers(opened)).toEqual(expected);
      const again = newFolder();
      await opened.save(again);
      const file = "lexical-000001.bm25";
      expect(await readFile(join(again, file))).toEqual(await readFile(join(directory, file)));
    }
  });

  test("counts titles in every passage, also one too long to be embedded", async () => {
    await using index = await CorpusIndex.build(embedder, documents, { split: { maxTokens: 9 } });
    expect(index.report?.titlesLeftOut).toEqual(["long title"]);
    const [best] = await index.search("damage", { mode: "lexical" });
    expect(best).toMatchObject({ id: "long title", text: "Nothing of the kind." });
    const water = await index.search("water", { mode: "lexical" });
    expect(water.map(({ text }) => text).toSorted()).toEqual([
      "The landlord pays for the roof.",
      "The tenant pays for flood damage.",
    ]);
  });

  test("keeps its language", async () => {
    const directory = newFolder();
    const lexical = { language: "de", stopWords: ["die"] };
    const german = [
      { id: "1", text: "Die Katze liegt im Garten." },
      { id: "2", text: "Die Katzen sind die Besten." },
    ];
    await using built = await CorpusIndex.build(embedder, german, { lexical, directory });
    await using opened = await CorpusIndex.open(directory, embedder);
    for (const index of [built, opened]) {
      expect(await index.search("die", { mode: "lexical" })).toEqual([]);
      // The control: English would stem both to one word.
      expect(await index.search("Katze", { mode: "lexical" })).toHaveLength(1);
    }
    await expect(CorpusIndex.build(embedder, german, { lexical: { language: "?" } })).rejects.toThrow(/language tag/);
  });

  test("opens for dense search only where it was saved before there were lexical parts", async () => {
    const [directory, whole] = [newFolder(), newFolder()];
    await using built = await CorpusIndex.build(embedder, documents, { lexical: false, directory });
    expect(await readdir(directory)).toHaveLength(3);
    await editManifest(directory, (manifest) => {
      manifest.version = 1;
    });
    await using opened = await CorpusIndex.open(directory, embedder);
    expect(opened.hasLexicalPart).toBe(false);
    expect(await opened.search("cats")).toEqual(await built.search("cats", { mode: "dense" }));
    await expect(opened.search("cats", { mode: "hybrid" })).rejects.toThrow(/Build it without \{ lexical: false \}/);
    // Saved again it is of this version, and still without.
    await opened.save(whole);
    await using again = await CorpusIndex.open(whole, embedder);
    expect(again.hasLexicalPart).toBe(false);
    await editManifest(whole, (manifest) => {
      manifest.version = 4;
    });
    await expect(CorpusIndex.open(whole, embedder)).rejects.toThrow(/format version 4, this program reads 1, 2, 3/);
  });

  const damage: [string, (bytes: Buffer) => Buffer][] = [
    ["a flipped bit", (bytes) => Buffer.from(bytes.map((byte, i) => (i === bytes.length >> 1 ? byte ^ 4 : byte)))],
    ["a cut end", (bytes) => bytes.subarray(0, -9)],
    ["no bytes", () => Buffer.alloc(0)],
    ["a header longer than the file", (bytes) => Buffer.concat([Buffer.from([255, 255, 255, 127]), bytes.subarray(4)])],
    ["a header of an unknown analyzer", (bytes) => reheaded(bytes, { analyzer: { language: "de" } })],
    ["a header of no language", (bytes) => reheaded(bytes, { analyzer: { language: "?" } })],
    ["stop words that are none", (bytes) => reheaded(bytes, { analyzer: { stopWords: 7 } })],
    ["a header without analyzer", (bytes) => reheaded(bytes, null)],
  ];
  function reheaded(bytes: Buffer, header: unknown): Buffer {
    const json = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(json.length);
    return Buffer.concat([length, json, bytes.subarray(4 + bytes.readUInt32LE(0))]);
  }
  test.each(damage)("is refused with %s, with its checksum wrong or made right", async (_, spoil) => {
    const directory = newFolder();
    await (await CorpusIndex.build(embedder, documents, { directory })).close();
    const name = "lexical-000001.bm25";
    const path = join(directory, name);
    const bytes = spoil(await readFile(path));
    await writeFile(path, bytes);
    const open = (): Promise<CorpusIndex> => CorpusIndex.open(directory, embedder);
    await expect(open()).rejects.toMatchObject({ code: "CORRUPT_FILE", path });
    await editManifest(directory, ({ files }) => {
      (files as Record<string, unknown>).lexical = { name, size: bytes.length, crc32: crc32(bytes) };
    });
    await expect(open()).rejects.toMatchObject({ code: "CORRUPT_FILE", path });
  });

  test("is refused with the words of another index", async () => {
    const [directory, other] = [newFolder(), newFolder()];
    await (await CorpusIndex.build(embedder, documents, { directory })).close();
    await (await CorpusIndex.build(embedder, documents.slice(1), { directory: other })).close();
    await cp(join(other, "lexical-000001.bm25"), join(directory, "lexical-000001.bm25"));
    const { files } = JSON.parse(await readFile(join(other, "manifest.json"), "utf8")) as {
      files: { lexical: object };
    };
    await editManifest(directory, (manifest) => Object.assign(manifest.files as object, { lexical: files.lexical }));
    const refused = CorpusIndex.open(directory, embedder);
    await expect(refused).rejects.toBeInstanceOf(CorruptFileError);
    await expect(refused).rejects.toThrow(/holds 3 passages that are not the 4/);
  });
});

describe("another index of vectors", () => {
  /** It counts its searches and can't give rows back. */
  function counting(): { options: OpenOptions; searches: () => number; closed: () => boolean } {
    let [searches, closed] = [0, false];
    const vectorIndex = (dimensions: number): VectorIndex => {
      const inner = new ExactIndex(dimensions);
      return {
        dimensions,
        get count() {
          return inner.count;
        },
        upsert: (labels, rows) => inner.upsert(labels, rows),
        delete: (labels) => inner.delete(labels),
        search: (...args) => {
          searches++;
          return inner.search(...args);
        },
        close: () => {
          closed = true;
          return inner.close();
        },
        [Symbol.asyncDispose]: () => inner.close(),
      };
    };
    return { options: { vectorIndex }, searches: () => searches, closed: () => closed };
  }

  test("is used, saved and opened like the exact one", async () => {
    const directory = newFolder();
    await using usual = await CorpusIndex.build(embedder, documents);
    const [first, second] = [counting(), counting()];
    const built = await CorpusIndex.build(embedder, documents, first.options);
    expect(await answers(built)).toEqual(await answers(usual));
    await built.save(directory);
    const opened = await CorpusIndex.open(directory, embedder, second.options);
    expect(await answers(opened)).toEqual(await answers(usual));
    for (const [index, { searches, closed }] of [
      [built, first],
      [opened, second],
    ] as const) {
      // One of seven searches is lexical; merging may draw twice.
      expect(searches()).toBeGreaterThanOrEqual(6);
      await index.close();
      expect(closed()).toBe(true);
    }
    const both = CorpusIndex.build(embedder, documents, { rows: "int8", ...counting().options });
    await expect(both).rejects.toThrow(/rows: "int8" is for the exact index/);
  });
});
